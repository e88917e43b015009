/*
 * fdw_import.c
 *		Which foreign tables does IMPORT FOREIGN SCHEMA create?
 *
 * The tables come from get_table_column_names, the types from json_schemas,
 * declared types from get_schema.  Where those say nothing, the first page of
 * the table does, and the table also gets a column with the whole document.
 *
 * The statements we return can only create tables.  The columns' comments are
 * added when each of those statements has run, by a hook that acts only on
 * what an import of this transaction announced.
 *
 * Room: fdw 5.15
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "commands/comment.h"
#include "commands/defrem.h"
#include "foreign/foreign.h"
#include "miscadmin.h"
#include "tcop/utility.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#include "ground/compat.h"
#include "ground/redact.h"
#include "protocol/api.h"
#include "protocol/inventory.h"
#include "protocol/walk.h"
#include "shape/names.h"
#include "shape/options_read.h"
#include "shape/value_read.h"
#include "fdw/fdw_import.h"
#include "fdw/fdw_snapshot.h"

/* Columns of one table at most; PostgreSQL itself allows 1600. */
#define MAX_COLUMNS		1200

/* Of fields that a first page shows so many are looked at. */
#define MAX_FIELDS		(8 * MAX_COLUMNS)

/* What stands for the root component in IMPORT FOREIGN SCHEMA. */
#define ROOT_SCHEMA		"convex"

typedef enum NameCase
{
	CASE_KEEP,
	CASE_LOWER,
	CASE_SNAKE
} NameCase;

typedef struct Import
{
	ImportForeignSchemaStmt *stmt;
	CvxHttp    *http;
	char	   *component;
	bool		has_not_null;
	bool		has_comments;
	NameCase	name_case;
	int64		snapshot;		/* of the first pages; 0 until the first one */
	HTAB	   *fields;			/* those of the present table by name */
} Import;

/* A column to be, and its comment. */
typedef struct ImportColumn
{
	char	   *name;
	char	   *field;			/* "*" is the whole document */
	CvxFieldSchema *schema;		/* NULL for the whole document */
	CvxTableSchema *table;		/* where a table's name is made, not a column's */
	char	   *comment;
} ImportColumn;

/* A table whose comments wait until it exists. */
typedef struct Announced
{
	char	   *schema;
	char	   *table;
	List	   *columns;		/* ImportColumn */
} Announced;

/* Tables announced in this transaction, in TopTransactionContext. */
static List *announced = NIL;
static ProcessUtility_hook_type next_utility_hook = NULL;

static void read_options(Import *import);
static void choose_component(Import *import, List *tables);
static bool is_wanted(Import *import, const char *name);
static bool needs_first_page(const CvxTableSchema *table);
static void infer_from_page(Import *import, CvxTableSchema *table);
static void infer_document(Import *import, CvxTableSchema *table,
						   const CvxPage *page, int row);
static void map_fields(Import *import, CvxTableSchema *table);
static CvxFieldSchema *find_field(Import *import, CvxTableSchema *table,
								  const char *name);
static List *make_columns(Import *import, CvxTableSchema *table,
						  bool has_document);
static int	compare_fields(const ListCell *a, const ListCell *b);
static ImportColumn *make_column(Import *import, const char *field,
								 CvxFieldSchema *schema);
static void make_names_unique(List *columns);
static char *local_name(Import *import, const char *name);
static char *make_statement(Import *import, const char *name,
							CvxTableSchema *table, List *columns);
static const char *column_type(const ImportColumn *column);
static char *describe(const CvxFieldSchema *field);
static void announce(Import *import, const char *name, List *columns);
static void comment_after_create(PlannedStmt *pstmt, const char *queryString,
								 bool readOnlyTree,
								 ProcessUtilityContext context,
								 ParamListInfo params,
								 QueryEnvironment *queryEnv,
								 DestReceiver *dest, QueryCompletion *qc);
static void forget_announced(XactEvent event, void *arg);

/* Called once when the library is loaded. */
void
cvx_import_init(void)
{
	next_utility_hook = ProcessUtility_hook;
	ProcessUtility_hook = comment_after_create;
	RegisterXactCallback(forget_announced, NULL);
}

List *
convexImportForeignSchema(ImportForeignSchemaStmt *stmt, Oid serverid)
{
	Import		import = {stmt};
	List	   *result = NIL;
	List	   *tables;
	List	   *names = NIL;
	ListCell   *lc;
	ListCell   *lc2;

	/* What an earlier import announced and did not create is void. */
	announced = NIL;
	read_options(&import);
	import.http = cvx_http_open(cvx_options_remote(serverid, GetUserId()));
	tables = cvx_inventory(import.http);
	choose_component(&import, tables);

	/* Names first: they decide what is wanted. */
	foreach(lc, tables)
	{
		CvxTableSchema *table = lfirst(lc);
		ImportColumn *name;

		if (strcmp(table->component, import.component) != 0)
			continue;
		name = make_column(&import, table->table, NULL);
		name->table = table;
		names = lappend(names, name);
	}
	make_names_unique(names);

	foreach(lc2, names)
	{
		ImportColumn *name = lfirst(lc2);
		CvxTableSchema *table = name->table;
		bool		is_unknown = needs_first_page(table);
		List	   *columns;

		if (!is_wanted(&import, name->name))
			continue;
		map_fields(&import, table);
		if (is_unknown)
			infer_from_page(&import, table);
		columns = make_columns(&import, table,
							   is_unknown ||
							   list_length(table->fields) > MAX_COLUMNS);
		result = lappend(result, make_statement(&import, name->name, table,
												columns));
		if (import.has_comments)
			announce(&import, name->name, columns);
	}
	return result;
}

static void
read_options(Import *import)
{
	ListCell   *lc;

	import->has_comments = true;
	foreach(lc, import->stmt->options)
	{
		DefElem    *def = (DefElem *) lfirst(lc);

		if (strcmp(def->defname, "import_not_null") == 0)
			import->has_not_null = defGetBoolean(def);
		else if (strcmp(def->defname, "import_comments") == 0)
			import->has_comments = defGetBoolean(def);
		else if (strcmp(def->defname, "case") == 0)
		{
			char	   *value = defGetString(def);

			if (strcmp(value, "keep") == 0)
				import->name_case = CASE_KEEP;
			else if (strcmp(value, "lower") == 0)
				import->name_case = CASE_LOWER;
			else if (strcmp(value, "snake") == 0)
				import->name_case = CASE_SNAKE;
			else
				ereport(ERROR,
						(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						 errmsg("invalid value for option \"case\": \"%s\"",
								value),
						 errhint("Valid values are: keep, lower, snake.")));
		}
		else
			ereport(ERROR,
					(errcode(ERRCODE_FDW_INVALID_OPTION_NAME),
					 errmsg("invalid option \"%s\"", def->defname),
					 errhint("Valid options in this context are: import_not_null, import_comments, case.")));
	}
}

static void
choose_component(Import *import, List *tables)
{
	char	   *schema = import->stmt->remote_schema;
	StringInfoData known;
	ListCell   *lc;

	import->component = strcmp(schema, ROOT_SCHEMA) == 0 ? "" : schema;
	if (import->component[0] == '\0')
		return;
	initStringInfo(&known);
	appendStringInfoString(&known, ROOT_SCHEMA);
	foreach(lc, cvx_schema_components(tables))
	{
		char	   *component = lfirst(lc);

		if (strcmp(component, import->component) == 0)
			return;
		if (component[0] != '\0')
			appendStringInfo(&known, ", %s", quote_identifier(component));
	}
	ereport(ERROR,
			(errcode(ERRCODE_FDW_SCHEMA_NOT_FOUND),
			 errmsg("Convex server \"%s\" has no component \"%s\" with tables",
					import->stmt->server_name, schema),
			 errhint("Known are: %s (the root component is \"%s\").",
					 cvx_redact_message(known.data), ROOT_SCHEMA)));
}

/* LIMIT TO and EXCEPT speak of local names, as the core checks them again. */
static bool
is_wanted(Import *import, const char *name)
{
	ListCell   *lc;
	bool		is_listed = false;

	foreach(lc, import->stmt->table_list)
		is_listed |= strcmp(((RangeVar *) lfirst(lc))->relname, name) == 0;
	switch (import->stmt->list_type)
	{
		case FDW_IMPORT_SCHEMA_LIMIT_TO:
			return is_listed;
		case FDW_IMPORT_SCHEMA_EXCEPT:
			return !is_listed;
		default:
			return true;
	}
}

/* Nothing but _id and _creationTime is known, or json_schemas was refused. */
static bool
needs_first_page(const CvxTableSchema *table)
{
	ListCell   *lc;

	if (list_length(table->names) <= 2 || list_length(table->fields) <= 2)
		return true;
	foreach(lc, table->fields)
		if (strcmp(((CvxFieldSchema *) lfirst(lc))->name, "_id") == 0)
			return false;
	return true;
}

/* Fields and types as the first page of the table shows them. */
static void
infer_from_page(Import *import, CvxTableSchema *table)
{
	CvxTableName name = {table->component, table->table};
	CvxSelection selection = {&name, 1, false, true};
	CvxPageWant want = {false, &name, 1};
	CvxCall    *call = cvx_api_list_snapshot(import->http, NULL, &selection,
											 import->snapshot, NULL);
	CvxPage    *page = cvx_api_page(call, import->http, &want);
	CvxWalk    *walk = cvx_walk_open(import->stmt->server_name, 1);
	CvxFieldSchema *field;
	ListCell   *lc;

	cvx_walk_resume(walk, import->snapshot, NULL);
	cvx_walk_check(walk, page);
	import->snapshot = page->ts;
	foreach(lc, table->names)
	{
		field = find_field(import, table, lfirst(lc));
		if (field && !field->is_declared)
			field->type = CVX_TYPE_UNSEEN;
	}
	field = find_field(import, table, "_id");
	field->type = CVX_TYPE_ID;
	field->is_optional = false;
	field = find_field(import, table, "_creationTime");
	field->type = CVX_TYPE_FLOAT64;
	field->is_optional = false;
	for (int i = 0; i < page->ndocs; i++)
		infer_document(import, table, page, i);
	cvx_http_free(call);
	cvx_walk_close(walk);
}

static void
infer_document(Import *import, CvxTableSchema *table, const CvxPage *page,
			   int row)
{
	CvxSpan		span = page->docs[row].document;
	CvxJson		json;
	CvxText		name;
	CvxText		text;
	bool		is_first = true;

	cvx_json_within(&json, page->text + span.offset, span.len);
	cvx_json_open(&json, '{');
	for (; cvx_json_member(&json, &name, is_first); is_first = false)
	{
		CvxValue	value;
		CvxFieldSchema *field;
		char	   *label;

		CHECK_FOR_INTERRUPTS();
		cvx_json_skip(&json, &text);
		if (!cvx_page_is_document_member(&name))
			continue;

		/* Such a name is no column's; the whole document shows it. */
		label = cvx_json_cstring(&name);
		if (cvx_redact_is_needed(label, strlen(label)))
			continue;
		field = find_field(import, table, label);
		pfree(label);
		if (field == NULL || field->is_declared || field->type == CVX_TYPE_ID)
			continue;
		cvx_value_read(text.data, text.len, &value);
		if (value.kind == CVX_KIND_NULL)
			field->is_nullable = true;
		else
			field->type = cvx_schema_union(field->type,
										   cvx_value_type(value.kind));
	}
}

/* The fields of a table are going to be looked for by name. */
static void
map_fields(Import *import, CvxTableSchema *table)
{
	ListCell   *lc;

	if (import->fields)
		hash_destroy(import->fields);
	import->fields = cvx_schema_map(list_length(table->fields));
	foreach(lc, table->fields)
		*cvx_schema_slot(import->fields, ((CvxFieldSchema *) lfirst(lc))->name,
						 NULL) = lfirst(lc);
}

/*
 * The field of this name, added when it is new; NULL when there are too many,
 * of which the column with the whole document will tell.
 */
static CvxFieldSchema *
find_field(Import *import, CvxTableSchema *table, const char *name)
{
	CvxFieldSchema *field = cvx_schema_find_slot(import->fields, name);

	if (field != NULL)
		return field;
	if (list_length(table->fields) >= MAX_FIELDS &&
		strcmp(name, "_id") != 0 && strcmp(name, "_creationTime") != 0)
		return NULL;
	field = palloc0(sizeof(CvxFieldSchema));
	field->name = pstrdup(name);
	*cvx_schema_slot(import->fields, field->name, NULL) = field;
	field->type = CVX_TYPE_UNSEEN;
	field->is_optional = true;
	table->fields = lappend(table->fields, field);
	return field;
}

/* _id and _creationTime first, then the fields in byte order. */
static List *
make_columns(Import *import, CvxTableSchema *table, bool has_document)
{
	static const char *const leading[] = {"_id", "_creationTime"};
	List	   *columns = NIL;
	ListCell   *lc;

	list_sort(table->fields, compare_fields);
	for (int i = 0; i < lengthof(leading); i++)
		columns = lappend(columns,
						  make_column(import, leading[i],
									  find_field(import, table, leading[i])));
	foreach(lc, table->fields)
	{
		CvxFieldSchema *field = lfirst(lc);

		if (strcmp(field->name, "_id") == 0 ||
			strcmp(field->name, "_creationTime") == 0 ||
			list_length(columns) >= MAX_COLUMNS)
			continue;
		columns = lappend(columns, make_column(import, field->name, field));
	}
	if (has_document)
	{
		ImportColumn *column = make_column(import, "document", NULL);

		column->field = "*";
		columns = lappend(columns, column);
	}
	make_names_unique(columns);
	return columns;
}

static int
compare_fields(const ListCell *a, const ListCell *b)
{
	return strcmp(((CvxFieldSchema *) lfirst(a))->name,
				  ((CvxFieldSchema *) lfirst(b))->name);
}

static ImportColumn *
make_column(Import *import, const char *field, CvxFieldSchema *schema)
{
	ImportColumn *column = palloc0(sizeof(ImportColumn));

	column->field = pstrdup(field);
	column->name = local_name(import, field);
	column->schema = schema;
	return column;
}

/* Unique names that are no system columns. */
static void
make_names_unique(List *columns)
{
	CvxLocalName *names = palloc(sizeof(CvxLocalName) *
								 Max(list_length(columns), 1));
	ListCell   *lc;

	foreach(lc, columns)
	{
		ImportColumn *column = lfirst(lc);

		names[foreach_current_index(lc)].name = column->name;
		names[foreach_current_index(lc)].source = column->field;
	}
	cvx_names_make_unique(names, list_length(columns), cvx_names_reserved,
						  CVX_NAMES_SYSTEM);
	foreach(lc, columns)
		((ImportColumn *) lfirst(lc))->name = names[foreach_current_index(lc)].name;
}

static char *
local_name(Import *import, const char *name)
{
	StringInfoData buf;

	if (import->name_case == CASE_KEEP)
		return pstrdup(name);
	initStringInfo(&buf);
	for (const char *p = name; *p; p++)
	{
		bool		is_upper = *p >= 'A' && *p <= 'Z';
		bool		is_word = is_upper || (*p >= 'a' && *p <= 'z') ||
			(*p >= '0' && *p <= '9');

		if (import->name_case == CASE_SNAKE && is_upper && p > name &&
			((p[-1] >= 'a' && p[-1] <= 'z') || (p[-1] >= '0' && p[-1] <= '9')))
			appendStringInfoChar(&buf, '_');
		if (import->name_case == CASE_SNAKE && !is_word)
			appendStringInfoChar(&buf, '_');
		else
			appendStringInfoChar(&buf, is_upper ? *p - 'A' + 'a' : *p);
	}
	return buf.data;
}

static char *
make_statement(Import *import, const char *name, CvxTableSchema *table,
			   List *columns)
{
	StringInfoData buf;
	ListCell   *lc;
	bool		is_first = true;

	initStringInfo(&buf);
	appendStringInfo(&buf, "CREATE FOREIGN TABLE %s (",
					 quote_identifier(name));
	foreach(lc, columns)
	{
		ImportColumn *column = lfirst(lc);
		CvxFieldSchema *field = column->schema;

		appendStringInfo(&buf, "%s\n  %s %s", is_first ? "" : ",",
						 quote_identifier(column->name), column_type(column));
		is_first = false;
		if (strcmp(column->name, column->field) != 0)
			appendStringInfo(&buf, " OPTIONS (column_name %s)",
							 quote_literal_cstr(column->field));
		if (field && field->type == CVX_TYPE_ID)
			appendStringInfoString(&buf, " COLLATE pg_catalog.\"C\"");
		if (import->has_not_null && field && !field->is_optional &&
			!field->is_nullable)
			appendStringInfoString(&buf, " NOT NULL");
		column->comment = describe(field);
	}
	appendStringInfo(&buf, "\n) SERVER %s\nOPTIONS (table_name %s",
					 quote_identifier(import->stmt->server_name),
					 quote_literal_cstr(table->table));
	if (table->component[0] != '\0')
		appendStringInfo(&buf, ", component %s",
						 quote_literal_cstr(table->component));
	appendStringInfoChar(&buf, ')');
	return buf.data;
}

static const char *
column_type(const ImportColumn *column)
{
	return column->schema == NULL ? "pg_catalog.jsonb" :
		cvx_names_type(column->field, column->schema->type);
}

static char *
describe(const CvxFieldSchema *field)
{
	if (field == NULL)
		return "the whole document";
	return psprintf("%s%s%s%s%s, %s", cvx_schema_type_name(field->type),
					field->id_table ? " of " : "",
					field->id_table ? cvx_redact_excerpt(field->id_table,
														 strlen(field->id_table)) : "",
					field->is_nullable && field->type != CVX_TYPE_UNSEEN ?
					" or null" : "",
					field->is_optional ? ", optional" : "",
					field->is_declared ? "declared" : "inferred");
}

static void
announce(Import *import, const char *name, List *columns)
{
	MemoryContext old = MemoryContextSwitchTo(TopTransactionContext);
	Announced  *table = palloc0(sizeof(Announced));
	ListCell   *lc;

	table->schema = pstrdup(import->stmt->local_schema);
	table->table = pstrdup(name);
	foreach(lc, columns)
	{
		ImportColumn *column = lfirst(lc);
		ImportColumn *copy = palloc0(sizeof(ImportColumn));

		copy->name = pstrdup(column->name);
		copy->comment = pstrdup(column->comment);
		table->columns = lappend(table->columns, copy);
	}
	announced = lappend(announced, table);
	MemoryContextSwitchTo(old);
}

/* Utility hook: comment the columns of an announced table just created. */
static void
comment_after_create(PlannedStmt *pstmt, const char *queryString,
					 bool readOnlyTree, ProcessUtilityContext context,
					 ParamListInfo params, QueryEnvironment *queryEnv,
					 DestReceiver *dest, QueryCompletion *qc)
{
	Node	   *node = pstmt->utilityStmt;
	RangeVar   *name = NULL;
	ListCell   *lc;

	if (announced != NIL && context == PROCESS_UTILITY_SUBCOMMAND &&
		IsA(node, CreateForeignTableStmt))
		name = ((CreateForeignTableStmt *) node)->base.relation;

	(next_utility_hook ? next_utility_hook : standard_ProcessUtility)
		(pstmt, queryString, readOnlyTree, context, params, queryEnv, dest, qc);

	if (name == NULL || name->schemaname == NULL)
		return;
	foreach(lc, announced)
	{
		Announced  *table = lfirst(lc);
		ListCell   *lc2;
		Oid			relid;

		if (strcmp(table->table, name->relname) != 0 ||
			strcmp(table->schema, name->schemaname) != 0)
			continue;
		announced = foreach_delete_current(announced, lc);
		CommandCounterIncrement();
		relid = RangeVarGetRelid(name, NoLock, true);
		foreach(lc2, OidIsValid(relid) ? table->columns : NIL)
		{
			ImportColumn *column = lfirst(lc2);
			AttrNumber	attnum = get_attnum(relid, column->name);

			if (attnum != InvalidAttrNumber)
				CreateComments(relid, RelationRelationId, attnum,
							   column->comment);
		}
		break;
	}
}

static void
forget_announced(XactEvent event, void *arg)
{
	if (event == XACT_EVENT_COMMIT || event == XACT_EVENT_ABORT ||
		event == XACT_EVENT_PREPARE)
		announced = NIL;
}
