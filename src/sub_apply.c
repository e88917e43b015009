/*
 * sub_apply.c
 *		How does a page change the local table?
 *
 * A document becomes a row: each field goes to its column, and what has no
 * column or is not exactly what its column shows goes to _extra as well, so
 * that columns and _extra together always say what the document said.
 *
 * Loads go to staging tables by multi-insert.  Changes go to the target by
 * plain INSERT, UPDATE and DELETE over the page's rows, which the statements
 * see as a relation; so triggers, constraints and partitions work as ever.
 * Whatever may run a user's code runs as the target's owner in a
 * security-restricted operation, with constraints immediate.
 *
 * This file does not decide when the cursor moves, and sends nothing.
 *
 * Room: subscription 4.2
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/heapam.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/dependency.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "catalog/pg_collation.h"
#include "catalog/pg_index.h"
#include "catalog/pg_type.h"
#include "common/base64.h"
#include "executor/executor.h"
#include "executor/spi.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/hsearch.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/queryenvironment.h"
#include "utils/rel.h"
#include "utils/relcache.h"
#include "utils/ruleutils.h"
#include "utils/syscache.h"
#include "utils/tuplestore.h"

#include "compat.h"
#include "names.h"
#include "schema.h"
#include "value.h"
#include "sub.h"

/* How long an ALTER TABLE may wait for its lock. */
#define ALTER_LOCK_TIMEOUT	"1s"

/* Rows of one multi-insert, and text of theirs that is enough for one. */
#define LOAD_ROWS			1000
#define LOAD_BYTES			(1024 * 1024)

/* The relation by which statements see the rows of a page. */
#define PAGE_RELATION		"convex_page"

/* Off while a page's statements are planned: what is left is look-ups. */
static const char *const lookup_settings[] = {
	"enable_seqscan", "enable_hashjoin", "enable_mergejoin", "enable_bitmapscan",
	"jit"
};

/* What fills a column. */
typedef enum Role
{
	ROLE_FIELD,
	ROLE_TS,
	ROLE_EXTRA,
	ROLE_DELETED,
	ROLE_DELETED_AT,
	ROLE_DOCUMENT
} Role;

typedef struct Column
{
	AttrNumber	attnum;
	char	   *name;
	Role		role;
	char	   *field;
	size_t		field_len;
	Oid			type;
	CvxCodec   *codec;
	int			kind;			/* the one kind it holds exactly; -1: any */
	bool		is_json;
} Column;

/* A field that has no column. */
typedef struct Unknown
{
	char	   *field;
	CvxType		type;
} Unknown;

typedef struct Target
{
	const CvxSubscription *sub;
	CvxSubRel  *rel;
	Relation	relation;
	TupleDesc	tupdesc;
	char	   *name;			/* quoted, with its schema */
	int			ncolumns;
	Column	   *columns;		/* fields in byte order first, then the rest */
	int			nfields;
	const Column *id;
	const Column *ts;
	const Column *extra;

	/* per page */
	List	   *unknowns;		/* Unknown */
	List	   *drifts;			/* char * */
	bool		may_add;		/* unknown fields are to get columns */
	MemoryContext row_cxt;
	Datum	   *values;			/* by attribute number - 1 */
	bool	   *nulls;
} Target;

static Target *open_target(const CvxSubscription *sub, CvxSubRel *rel,
						   Oid relid);
static void close_target(Target *target);
static void add_column(Target *target, Form_pg_attribute att);
static char *field_of(const CvxSubRel *rel, const char *attname);
static int	compare_columns(const void *a, const void *b);
static void copy_columns(const CvxSubscription *sub, CvxSubRel *rel, Oid from,
						 Oid to);
static char *column_type(TupleDesc tupdesc, AttrNumber attnum);
static void add_known_columns(const CvxSubscription *sub, CvxSubRel *rel);
static Oid	staging_relid(const CvxSubscription *sub, const CvxSubRel *rel);
static Oid	relation_owner(Oid relid);
static void become_owner(Oid owner, Oid *userid, int *context);
static void decode_row(Target *target, const CvxPage *page, const CvxDoc *doc,
					   StringInfo extra);
static Column *find_column(Target *target, const CvxText *name, int *guess);
static void decode_field(Target *target, Column *column, const CvxText *name,
						 const CvxText *text, StringInfo extra);
static bool is_exact(const CvxSubscription *sub, const Column *column,
					 const CvxValue *value, bool isnull);
static bool has_nul(const CvxValue *value);
static void add_extra(StringInfo extra, const CvxText *name,
					  const CvxValue *value);
static void write_exact(StringInfo buf, const CvxText *raw);
static void note_unknowns(Target *target, const CvxPage *page,
						  const CvxDoc *doc);
static void note_unknown(Target *target, const CvxText *name,
						 const CvxValue *value);
static bool has_attribute(Target *target, const char *field);
static CvxType type_of_kind(CvxKind kind);
static bool add_columns(Target *target);
static bool add_one_column(Target *target, const Unknown *unknown);
static bool known_column(Target *target, const char *field, char **name,
						 const char **type);
static void note_drift(Target *target, const char *drift);
static void report_drifts(Target *target);
static Datum timestamptz_of_ts(int64 ts);
static int	multi_insert(Target *target, const CvxBatchDocs *docs, int done);
static Tuplestorestate *collect_rows(Target *target, const CvxBatchDocs *docs,
									 TupleDesc tupdesc, int *nrows,
									 int *ndeleted);
static TupleDesc page_tupdesc(Target *target);
static int64 run_page(Target *target, const char *sql, int expected);
static int64 run_changes(Target *target, int nrows, int ndeleted);
static int64 run(const char *sql, int expected);
static char *column_list(Target *target, const char *prefix);
static char *set_list(Target *target, const char *from);
static void merge(Target *target, const char *staging, int64 ts);
static void move_into_place(const CvxSubscription *sub, CvxSubRel *rel,
							Oid staging);
static bool has_unique_id(Relation relation, AttrNumber attnum);

/* ------------------------------------------------------------------------
 * Loading
 * ------------------------------------------------------------------------
 */

/*
 * Make the staging table of a table that is to be loaded, with the columns of
 * its target, or those that its fields ask for.
 */
void
cvx_apply_create_staging(const CvxSubscription *sub, CvxSubRel *rel)
{
	StringInfoData buf;
	char	   *name = cvx_catalog_staging(sub, rel);

	cvx_catalog_run(SPI_OK_UTILITY, "CREATE SCHEMA IF NOT EXISTS convex_staging", "");
	cvx_catalog_run(SPI_OK_UTILITY,
					psprintf("DROP TABLE IF EXISTS convex_staging.%s", name), "");
	initStringInfo(&buf);
	appendStringInfo(&buf, "CREATE TABLE convex_staging.%s (", name);
	if (OidIsValid(rel->target))
	{
		Target	   *target;

		cvx_apply_check_target(sub, rel->target);
		if (sub->is_evolving)
			add_known_columns(sub, rel);
		target = open_target(sub, rel, rel->target);
		for (int i = 0; i < target->ncolumns; i++)
		{
			const Column *column = &target->columns[i];

			appendStringInfo(&buf, "%s%s %s", i > 0 ? ", " : "",
							 quote_identifier(column->name),
							 column_type(target->tupdesc, column->attnum));
		}
		close_target(target);
	}
	else
	{
		JsonbIterator *it = JsonbIteratorInit(&rel->columns->root);
		JsonbIteratorToken token;
		JsonbValue	value;
		char	   *attname = NULL;

		appendStringInfoString(&buf, "_id pg_catalog.text COLLATE pg_catalog.\"C\" NOT NULL, \"_creationTime\" pg_catalog.timestamptz");
		while ((token = JsonbIteratorNext(&it, &value, true)) != WJB_DONE)
		{
			if (token == WJB_KEY)
				attname = pnstrdup(value.val.string.val, value.val.string.len);
			else if (token == WJB_VALUE)
			{
				char	   *said = pnstrdup(value.val.string.val, value.val.string.len);
				char	   *type = strchr(said, '\t');

				appendStringInfo(&buf, ", %s %s", quote_identifier(attname),
								 type ? type + 1 : "pg_catalog.jsonb");
			}
		}
		appendStringInfoString(&buf, ", _ts pg_catalog.int8 NOT NULL, _extra pg_catalog.jsonb");
		if (sub->has_document)
			appendStringInfoString(&buf, ", _document pg_catalog.jsonb");
		if (sub->mode == CVX_MODE_SOFT_DELETE)
			appendStringInfoString(&buf, ", _deleted_at pg_catalog.timestamptz");
		if (sub->mode == CVX_MODE_HISTORY)
			appendStringInfoString(&buf, ", _deleted pg_catalog.bool NOT NULL");
	}
	appendStringInfoChar(&buf, ')');
	cvx_catalog_run(SPI_OK_UTILITY, buf.data, "");
	cvx_catalog_rel(sub, rel, "is_staged = true, copied_rows = 0");
	rel->is_staged = true;
}

/* Is the staging table of a table there? */
bool
cvx_apply_has_staging(const CvxSubscription *sub, const CvxSubRel *rel)
{
	Oid			schema = get_namespace_oid("convex_staging", true);

	return OidIsValid(schema) &&
		OidIsValid(get_relname_relid(cvx_catalog_staging(sub, rel), schema));
}

/* Give a target that exists the columns that its fields ask for. */
static void
add_known_columns(const CvxSubscription *sub, CvxSubRel *rel)
{
	JsonbIterator *it = JsonbIteratorInit(&rel->columns->root);
	JsonbIteratorToken token;
	JsonbValue	value;
	int			nest = NewGUCNestLevel();
	Oid			userid;
	int			context;
	char	   *attname = NULL;

	(void) set_config_option("lock_timeout", ALTER_LOCK_TIMEOUT, PGC_USERSET,
							 PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
	while ((token = JsonbIteratorNext(&it, &value, true)) != WJB_DONE)
	{
		char	   *said;
		char	   *type;

		if (token == WJB_KEY)
			attname = pnstrdup(value.val.string.val, value.val.string.len);
		if (token != WJB_VALUE || get_attnum(rel->target, attname) != InvalidAttrNumber)
			continue;
		said = pnstrdup(value.val.string.val, value.val.string.len);
		type = strchr(said, '\t');
		if (type == NULL)
			continue;
		become_owner(relation_owner(rel->target), &userid, &context);
		run(psprintf("ALTER TABLE %s ADD COLUMN %s %s",
					 quote_qualified_identifier(rel->target_schema, rel->target_name),
					 quote_identifier(attname), type + 1), SPI_OK_UTILITY);
		SetUserIdAndSecContext(userid, context);
	}
	AtEOXact_GUC(true, nest);
}

/* Give one table the columns with fields that it lacks and the other has. */
static void
copy_columns(const CvxSubscription *sub, CvxSubRel *rel, Oid from, Oid to)
{
	Target	   *source = open_target(sub, rel, from);
	char	   *name = quote_qualified_identifier(get_namespace_name(get_rel_namespace(to)),
												  get_rel_name(to));
	int			nest = NewGUCNestLevel();
	Oid			userid;
	int			context;

	(void) set_config_option("lock_timeout", ALTER_LOCK_TIMEOUT, PGC_USERSET,
							 PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
	for (int i = 0; i < source->nfields; i++)
	{
		const Column *column = &source->columns[i];

		if (get_attnum(to, column->name) != InvalidAttrNumber)
			continue;
		become_owner(relation_owner(to), &userid, &context);
		run(psprintf("ALTER TABLE %s ADD COLUMN %s %s", name,
					 quote_identifier(column->name),
					 column_type(source->tupdesc, column->attnum)), SPI_OK_UTILITY);
		SetUserIdAndSecContext(userid, context);
	}
	AtEOXact_GUC(true, nest);
	close_target(source);
}

/* A column's type and collation, as in a definition. */
static char *
column_type(TupleDesc tupdesc, AttrNumber attnum)
{
	Form_pg_attribute att = TupleDescAttr(tupdesc, attnum - 1);
	char	   *type = format_type_extended(att->atttypid, att->atttypmod,
											FORMAT_TYPE_TYPEMOD_GIVEN |
											FORMAT_TYPE_FORCE_QUALIFY);

	return OidIsValid(att->attcollation) ?
		psprintf("%s COLLATE %s", type, generate_collation_name(att->attcollation)) :
		type;
}

/*
 * Add documents of a walk to a staging table, so many at a time.  Fields that
 * no column is there for get theirs before the rows that show them first.
 */
void
cvx_apply_load(const CvxSubscription *sub, CvxSubRel *rel,
			   const CvxBatchDocs *docs)
{
	Target	   *target = open_target(sub, rel, staging_relid(sub, rel));
	Oid			userid;
	int			context;

	/* Of a table that nothing is known about the first page shows the fields. */
	target->may_add = sub->is_evolving || JB_ROOT_COUNT(rel->columns) == 0;
	for (int done = 0; done < docs->ndocs;)
	{
		/* Types of an existing target may bring code of their own. */
		become_owner(sub->owner, &userid, &context);
		done = multi_insert(target, docs, done);
		SetUserIdAndSecContext(userid, context);
		if (target->unknowns == NIL)
			continue;
		for (int i = done; i < docs->ndocs; i++)
			note_unknowns(target, docs->page, &docs->page->docs[docs->docs[i]]);
		report_drifts(target);
		if (add_columns(target))
		{
			close_target(target);
			target = open_target(sub, rel, staging_relid(sub, rel));
		}
		target->may_add = false;
	}
	report_drifts(target);
	close_target(target);
}

/* Give a loaded staging table its key. */
void
cvx_apply_index(const CvxSubscription *sub, CvxSubRel *rel)
{
	cvx_catalog_run(SPI_OK_UTILITY,
					psprintf("ALTER TABLE convex_staging.%s ADD PRIMARY KEY (%s)",
							 cvx_catalog_staging(sub, rel),
							 sub->mode == CVX_MODE_HISTORY ? "_id, _ts" : "_id"), "");
}

/*
 * Make a loaded table visible, as it was at ts: move it into place, or merge
 * it into the target that is there.
 */
void
cvx_apply_cutover(const CvxSubscription *sub, CvxSubRel *rel, int64 ts)
{
	Oid			staging = staging_relid(sub, rel);

	if (!OidIsValid(rel->target))
		move_into_place(sub, rel, staging);
	else
	{
		Target	   *target;
		Oid			owner;
		const char *name;
		Oid			userid;
		int			context;

		cvx_apply_check_target(sub, rel->target);

		/* Either may have got columns while the other was not looked at. */
		copy_columns(sub, rel, staging, rel->target);
		copy_columns(sub, rel, rel->target, staging);
		target = open_target(sub, rel, rel->target);
		owner = target->relation->rd_rel->relowner;
		name = quote_identifier(GetUserNameFromId(owner, false));

		/* The target's owner reads the staging table for this while. */
		cvx_catalog_run(SPI_OK_UTILITY,
						psprintf("GRANT SELECT ON convex_staging.%s TO %s",
								 cvx_catalog_staging(sub, rel), name), "");
		if (!superuser_arg(owner))
			cvx_catalog_run(SPI_OK_UTILITY,
							psprintf("GRANT USAGE ON SCHEMA convex_staging TO %s", name), "");
		become_owner(owner, &userid, &context);
		run("SET CONSTRAINTS ALL IMMEDIATE", SPI_OK_UTILITY);
		merge(target, psprintf("convex_staging.%s", cvx_catalog_staging(sub, rel)), ts);
		SetUserIdAndSecContext(userid, context);
		close_target(target);
		if (!superuser_arg(owner))
			cvx_catalog_run(SPI_OK_UTILITY,
							psprintf("REVOKE USAGE ON SCHEMA convex_staging FROM %s", name), "");
		cvx_catalog_drop_staging(sub, rel);
	}
	rel->is_staged = false;
}

/* ------------------------------------------------------------------------
 * Changes
 * ------------------------------------------------------------------------
 */

/*
 * Apply changes of one table, in the change log's order, to its target or to
 * its staging table.  Returns how many rows changed.
 */
int64
cvx_apply_changes(const CvxSubscription *sub, CvxSubRel *rel, bool to_staging,
				  const CvxBatchDocs *docs)
{
	Target	   *target;
	Tuplestorestate *rows;
	TupleDesc	tupdesc;
	EphemeralNamedRelationData enr = {{0}};
	Oid			userid;
	int			context;
	int			nrows;
	int			ndeleted;
	int64		changed;

	if (to_staging)
		target = open_target(sub, rel, staging_relid(sub, rel));
	else
	{
		if (!OidIsValid(rel->target))
			ereport(ERROR,
					(errcode(ERRCODE_UNDEFINED_TABLE),
					 errmsg("table \"%s.%s\" does not exist",
							rel->target_schema, rel->target_name),
					 errhint("Load it again with convex_resync_table().")));
		cvx_apply_check_target(sub, rel->target);
		target = open_target(sub, rel, rel->target);
	}
	target->may_add = true;
	for (;;)
	{
		tupdesc = page_tupdesc(target);
		become_owner(to_staging ? sub->owner : target->relation->rd_rel->relowner,
					 &userid, &context);
		rows = collect_rows(target, docs, tupdesc, &nrows, &ndeleted);
		SetUserIdAndSecContext(userid, context);
		if (target->unknowns == NIL || !target->may_add)
			break;
		tuplestore_end(rows);
		if (add_columns(target))
		{
			Oid			relid = RelationGetRelid(target->relation);

			close_target(target);
			target = open_target(sub, rel, relid);
		}
		target->may_add = false;
	}
	enr.md.name = PAGE_RELATION;
	enr.md.reliddesc = InvalidOid;
	enr.md.tupdesc = tupdesc;
	enr.md.enrtype = ENR_NAMED_TUPLESTORE;
	enr.md.enrtuples = nrows;
	enr.reldata = rows;
	/* One may be left of a table whose subtransaction failed. */
	(void) SPI_unregister_relation(PAGE_RELATION);
	if (SPI_register_relation(&enr) != SPI_OK_REL_REGISTER)
		elog(ERROR, "cannot register the rows of a page");
	become_owner(target->relation->rd_rel->relowner, &userid, &context);
	if (!to_staging)
		run("SET CONSTRAINTS ALL IMMEDIATE", SPI_OK_UTILITY);
	changed = run_changes(target, nrows, ndeleted);
	SPI_unregister_relation(PAGE_RELATION);
	tuplestore_end(rows);
	SetUserIdAndSecContext(userid, context);
	report_drifts(target);
	close_target(target);
	return changed;
}

/*
 * Does the target, or the staging table, hold exactly the documents of this
 * page of _ids between after and upto (NULL: from the beginning, to the end)?
 * Returns what differs, or NULL.
 */
char *
cvx_apply_compare(const CvxSubscription *sub, CvxSubRel *rel,
				  const CvxPage *page, const char *after, const char *upto)
{
	StringInfoData buf;
	Target	   *target;
	char	   *result = NULL;
	char	   *id;
	char	   *name;
	uint64		n;
	uint64		row = 0;
	Oid			userid;
	int			context;

	if (!OidIsValid(rel->target))
		return "the target is gone";
	target = open_target(sub, rel, rel->target);
	id = psprintf("%s%s", quote_identifier(target->id->name),
				  TupleDescAttr(target->tupdesc, target->id->attnum - 1)->attcollation == C_COLLATION_OID ?
				  "" : " COLLATE pg_catalog.\"C\"");
	name = target->name;
	initStringInfo(&buf);
	appendStringInfo(&buf, "SELECT %s %s AS i, %s AS t FROM %s WHERE true",
					 sub->mode == CVX_MODE_HISTORY ? psprintf("DISTINCT ON (%s)", id) : "",
					 id, target->ts ? "_ts" : "NULL::pg_catalog.int8", name);
	if (after)
		appendStringInfo(&buf, " AND %s > %s", id, quote_literal_cstr(after));
	if (upto)
		appendStringInfo(&buf, " AND %s <= %s", id, quote_literal_cstr(upto));
	if (sub->mode == CVX_MODE_SOFT_DELETE)
		appendStringInfoString(&buf, " AND _deleted_at IS NULL");
	appendStringInfo(&buf, " ORDER BY %s%s", id,
					 sub->mode == CVX_MODE_HISTORY ? ", _ts DESC" : "");
	if (sub->mode == CVX_MODE_HISTORY)
	{
		char	   *inner = pstrdup(buf.data);

		inner = psprintf("SELECT i, t FROM (SELECT DISTINCT ON (i) * FROM (SELECT %s AS i, _ts AS t, _deleted AS d FROM %s WHERE true%s%s) AS r ORDER BY i, t DESC) AS r WHERE NOT d ORDER BY i",
						 id, name,
						 after ? psprintf(" AND %s > %s", id, quote_literal_cstr(after)) : "",
						 upto ? psprintf(" AND %s <= %s", id, quote_literal_cstr(upto)) : "");
		resetStringInfo(&buf);
		appendStringInfoString(&buf, inner);
	}
	if (sub->applies_deletes)
		appendStringInfo(&buf, " LIMIT %d", page->ndocs + 1);
	become_owner(target->relation->rd_rel->relowner, &userid, &context);
	run(buf.data, SPI_OK_SELECT);
	SetUserIdAndSecContext(userid, context);
	n = SPI_processed;
	for (int i = 0; i < page->ndocs && result == NULL; i++)
	{
		const CvxDoc *doc = &page->docs[i];
		char	   *want = pnstrdup(page->text + doc->id.offset, doc->id.len);
		char	   *have = NULL;

		while (row < n)
		{
			have = cvx_catalog_text(row, 1);
			if (sub->applies_deletes || strcmp(have, want) >= 0)
				break;
			row++;
		}
		if (row >= n || strcmp(have, want) != 0)
			result = psprintf("document \"%s\" is missing", want);
		else if (target->ts && cvx_catalog_int64(row, 2) != doc->ts)
			result = psprintf("document \"%s\" is another revision", want);
		row++;
	}
	if (result == NULL && sub->applies_deletes && n > page->ndocs)
		result = psprintf("row \"%s\" is no document", cvx_catalog_text(n - 1, 1));
	close_target(target);
	return result;
}

/*
 * Settings under which the target's own code runs, for the rest of the
 * transaction.
 */
void
cvx_apply_environment(void)
{
	static const char *const settings[][2] = {
		{"search_path", "pg_catalog, pg_temp"},
		{"DateStyle", "ISO, YMD"},
		{"IntervalStyle", "postgres"},
		{"TimeZone", "UTC"},
		{"extra_float_digits", "1"},
		{"row_security", "on"},
		{"check_function_bodies", "off"},
	};

	for (int i = 0; i < lengthof(settings); i++)
		(void) set_config_option(settings[i][0], settings[i][1], PGC_USERSET,
								 PGC_S_SESSION, GUC_ACTION_LOCAL, true, 0, false);
}

/*
 * Throws unless a table can be a target of the subscription: 42501 when its
 * owner is a role that the subscription's owner cannot act for.
 */
void
cvx_apply_check_target(const CvxSubscription *sub, Oid relid)
{
	Relation	relation = table_open(relid, AccessShareLock);
	char	   *name = RelationGetRelationName(relation);
	AttrNumber	attnum = get_attnum(relid, "_id");
	static const char *const needed[][2] = {
		{NULL}, {"_deleted_at"}, {"_ts", "_deleted"}
	};

	if (relation->rd_rel->relkind != RELKIND_RELATION &&
		relation->rd_rel->relkind != RELKIND_PARTITIONED_TABLE)
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("\"%s\" is not a table", name)));
	if (!has_privs_of_role(sub->owner, relation->rd_rel->relowner))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("owner of subscription \"%s\" cannot act for the owner of table \"%s\"",
						sub->name, name),
				 errhint("Grant role \"%s\" to \"%s\".",
						 GetUserNameFromId(relation->rd_rel->relowner, true),
						 GetUserNameFromId(sub->owner, true))));
	if (attnum == InvalidAttrNumber || get_atttype(relid, attnum) != TEXTOID ||
		!TupleDescAttr(RelationGetDescr(relation), attnum - 1)->attnotnull ||
		(sub->mode != CVX_MODE_HISTORY && !has_unique_id(relation, attnum)))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_TABLE_DEFINITION),
				 errmsg("table \"%s\" has no usable column \"_id\"", name),
				 errhint("It must have a column _id text that is its primary key.")));
	for (int i = 0; i < 2; i++)
	{
		const char *column = needed[sub->mode][i];

		if (column && get_attnum(relid, column) == InvalidAttrNumber)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_TABLE_DEFINITION),
					 errmsg("table \"%s\" has no column \"%s\", which the mode needs",
							name, column)));
	}
	table_close(relation, NoLock);
}

/* A unique index on _id alone, or _id as the whole partition key. */
static bool
has_unique_id(Relation relation, AttrNumber attnum)
{
	List	   *indexes = RelationGetIndexList(relation);
	bool		is_found = relation->rd_rel->relkind == RELKIND_PARTITIONED_TABLE;
	ListCell   *lc;

	foreach(lc, indexes)
	{
		HeapTuple	tuple = SearchSysCache1(INDEXRELID,
											ObjectIdGetDatum(lfirst_oid(lc)));
		Form_pg_index index = (Form_pg_index) GETSTRUCT(tuple);

		is_found |= index->indisunique && index->indnkeyatts == 1 &&
			index->indkey.values[0] == attnum && index->indisvalid &&
			heap_attisnull(tuple, Anum_pg_index_indpred, NULL);
		ReleaseSysCache(tuple);
	}
	return is_found;
}

/* ------------------------------------------------------------------------
 * The target
 * ------------------------------------------------------------------------
 */

static Target *
open_target(const CvxSubscription *sub, CvxSubRel *rel, Oid relid)
{
	Target	   *target = palloc0(sizeof(Target));
	TupleDesc	tupdesc;

	target->sub = sub;
	target->rel = rel;
	target->relation = table_open(relid, RowExclusiveLock);
	target->tupdesc = tupdesc = RelationGetDescr(target->relation);
	target->name = quote_qualified_identifier(get_namespace_name(RelationGetNamespace(target->relation)),
											  RelationGetRelationName(target->relation));
	target->columns = palloc0(sizeof(Column) * Max(tupdesc->natts, 1));
	for (int i = 0; i < tupdesc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(tupdesc, i);

		if (!att->attisdropped && att->attgenerated == '\0')
			add_column(target, att);
	}
	qsort(target->columns, target->ncolumns, sizeof(Column), compare_columns);
	for (int i = 0; i < target->ncolumns; i++)
	{
		Column	   *column = &target->columns[i];

		if (column->role == ROLE_FIELD)
		{
			target->nfields++;
			if (strcmp(column->field, "_id") == 0)
				target->id = column;
		}
		else if (column->role == ROLE_TS)
			target->ts = column;
		else if (column->role == ROLE_EXTRA)
			target->extra = column;
	}
	if (target->id == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_COLUMN),
				 errmsg("table %s has no column \"_id\"", target->name)));
	target->values = palloc(sizeof(Datum) * tupdesc->natts);
	target->nulls = palloc(sizeof(bool) * tupdesc->natts);
	target->row_cxt = AllocSetContextCreate(CurrentMemoryContext, "convex row",
											ALLOCSET_DEFAULT_SIZES);
	return target;
}

static void
close_target(Target *target)
{
	MemoryContextDelete(target->row_cxt);
	table_close(target->relation, NoLock);
}

static void
add_column(Target *target, Form_pg_attribute att)
{
	static const struct
	{
		const char *name;
		Role		role;
		Oid			type;
	}			special[] = {
		{"_ts", ROLE_TS, INT8OID},
		{"_extra", ROLE_EXTRA, JSONBOID},
		{"_deleted", ROLE_DELETED, BOOLOID},
		{"_deleted_at", ROLE_DELETED_AT, TIMESTAMPTZOID},
		{"_document", ROLE_DOCUMENT, JSONBOID},
	};
	static const struct
	{
		Oid			type;
		CvxKind		kind;
	}			exact[] = {
		{BOOLOID, CVX_KIND_BOOLEAN},
		{INT8OID, CVX_KIND_INT64},
		{FLOAT8OID, CVX_KIND_FLOAT64},
		{TEXTOID, CVX_KIND_STRING},
		{BYTEAOID, CVX_KIND_BYTES},
	};
	char	   *name = NameStr(att->attname);
	Column	   *column = &target->columns[target->ncolumns];

	column->attnum = att->attnum;
	column->name = pstrdup(name);
	column->type = att->atttypid;
	column->role = ROLE_FIELD;
	column->kind = -1;
	for (int i = 0; i < lengthof(special); i++)
		if (strcmp(name, special[i].name) == 0)
		{
			if (att->atttypid != special[i].type)
				return;
			column->role = special[i].role;
		}
	if (column->role == ROLE_DELETED && target->sub->mode != CVX_MODE_HISTORY)
		return;
	if (column->role == ROLE_DELETED_AT && target->sub->mode != CVX_MODE_SOFT_DELETE)
		return;
	if (column->role == ROLE_FIELD)
	{
		column->field = field_of(target->rel, name);
		if (column->field == NULL)
			return;
		column->field_len = strlen(column->field);
		for (int i = 0; i < lengthof(exact); i++)
			if (att->atttypid == exact[i].type)
				column->kind = exact[i].kind;
		column->is_json = att->atttypid == JSONBOID || att->atttypid == JSONOID;
	}
	if (column->role == ROLE_FIELD || column->role == ROLE_DOCUMENT)
		column->codec = cvx_value_codec(att->atttypid, att->atttypmod,
										&target->sub->table_options);
	target->ncolumns++;
}

/*
 * The field that fills a column, as the catalog says; NULL for a column of the
 * user's own.
 */
static char *
field_of(const CvxSubRel *rel, const char *attname)
{
	JsonbValue	buffer;
	JsonbValue *value = getKeyJsonValueFromContainer(&rel->columns->root,
													 attname, strlen(attname),
													 &buffer);
	char	   *field;

	if (strcmp(attname, "_id") == 0 || strcmp(attname, "_creationTime") == 0)
		return pstrdup(attname);
	if (value == NULL || value->type != jbvString)
		return NULL;
	field = pnstrdup(value->val.string.val, value->val.string.len);
	field[strcspn(field, "\t")] = '\0';
	return field;
}

static int
compare_columns(const void *a, const void *b)
{
	const Column *left = a;
	const Column *right = b;

	if (left->role != right->role)
		return left->role < right->role ? -1 : 1;
	return left->role == ROLE_FIELD ? strcmp(left->field, right->field) : 0;
}

static Oid
staging_relid(const CvxSubscription *sub, const CvxSubRel *rel)
{
	char	   *name = cvx_catalog_staging(sub, rel);
	Oid			schema = get_namespace_oid("convex_staging", true);
	Oid			relid = OidIsValid(schema) ? get_relname_relid(name, schema) :
	InvalidOid;

	if (!OidIsValid(relid))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("staging table \"%s\" is gone", name),
				 errhint("Load the table again with convex_resync_table().")));
	return relid;
}

static Oid
relation_owner(Oid relid)
{
	HeapTuple	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(relid));
	Oid			owner;

	if (!HeapTupleIsValid(tuple))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("the table is gone")));
	owner = ((Form_pg_class) GETSTRUCT(tuple))->relowner;
	ReleaseSysCache(tuple);
	return owner;
}

/*
 * An error gives the identity back with the end of its transaction.  A
 * trigger of another owner may have changed the search path.
 */
static void
become_owner(Oid owner, Oid *userid, int *context)
{
	(void) set_config_option("search_path", "pg_catalog, pg_temp", PGC_USERSET,
							 PGC_S_SESSION, GUC_ACTION_LOCAL, true, 0, false);
	GetUserIdAndSecContext(userid, context);
	SetUserIdAndSecContext(owner, *context | SECURITY_RESTRICTED_OPERATION);
}

/* ------------------------------------------------------------------------
 * From document to row
 * ------------------------------------------------------------------------
 */

/* Fill values and nulls; what has no exact place goes to extra. */
static void
decode_row(Target *target, const CvxPage *page, const CvxDoc *doc,
		   StringInfo extra)
{
	CvxJson		json;
	CvxText		name;
	CvxText		text;
	bool		is_first = true;
	int			guess = 0;

	memset(target->nulls, true, target->tupdesc->natts);
	resetStringInfo(extra);
	cvx_json_within(&json, page->text + doc->document.offset, doc->document.len);
	cvx_json_open(&json, '{');
	for (; cvx_json_member(&json, &name, is_first); is_first = false)
	{
		cvx_json_skip(&json, &text);
		if (cvx_page_is_document_member(&name))
			decode_field(target, find_column(target, &name, &guess), &name,
						 &text, extra);
	}
	if (extra->len > 0)
		appendStringInfoChar(extra, '}');
	for (int i = target->nfields; i < target->ncolumns; i++)
	{
		Column	   *column = &target->columns[i];
		Datum	   *datum = &target->values[column->attnum - 1];
		bool	   *isnull = &target->nulls[column->attnum - 1];

		*isnull = false;
		switch (column->role)
		{
			case ROLE_TS:
				*datum = Int64GetDatum(doc->ts);
				break;
			case ROLE_EXTRA:
				*isnull = extra->len == 0;
				if (!*isnull)
					*datum = DirectFunctionCall1(jsonb_in, CStringGetDatum(extra->data));
				break;
			case ROLE_DELETED:
				*datum = BoolGetDatum(doc->is_deleted);
				break;
			case ROLE_DELETED_AT:
				*isnull = !doc->is_deleted;
				if (doc->is_deleted)
					*datum = timestamptz_of_ts(doc->ts);
				break;
			case ROLE_DOCUMENT:
				*isnull = doc->is_deleted;
				if (!doc->is_deleted)
				{
					CvxValue	value;

					cvx_value_read(page->text + doc->document.offset,
								   doc->document.len, &value);
					value.is_document = true;
					cvx_value_decode(column->codec, &value, datum, isnull);
				}
				break;
			case ROLE_FIELD:
				break;
		}
	}
}

/* Fields come in byte order, and so do the columns. */
static Column *
find_column(Target *target, const CvxText *name, int *guess)
{
	int			low = 0;
	int			high = target->nfields - 1;
	CvxText		plain = *name;

	if (*guess < target->nfields &&
		target->columns[*guess].field_len == name->len && !name->is_escaped &&
		memcmp(target->columns[*guess].field, name->data, name->len) == 0)
		return &target->columns[(*guess)++];
	if (name->is_escaped)
	{
		plain.data = cvx_json_cstring(name);
		plain.len = strlen(plain.data);
	}
	while (low <= high)
	{
		int			middle = (low + high) / 2;
		const Column *column = &target->columns[middle];
		int			order = memcmp(column->field, plain.data,
								   Min(column->field_len, plain.len));

		if (order == 0)
			order = (column->field_len > plain.len) - (column->field_len < plain.len);
		if (order == 0)
		{
			*guess = middle + 1;
			return &target->columns[middle];
		}
		if (order < 0)
			low = middle + 1;
		else
			high = middle - 1;
	}
	return NULL;
}

static void
decode_field(Target *target, Column *column, const CvxText *name,
			 const CvxText *text, StringInfo extra)
{
	CvxValue	value;
	bool		isnull = true;

	cvx_value_read(text->data, text->len, &value);
	if (column == NULL)
	{
		if (target->may_add)
			note_unknown(target, name, &value);
		add_extra(extra, name, &value);
		return;
	}
	cvx_value_decode(column->codec, &value, &target->values[column->attnum - 1],
					 &isnull);
	target->nulls[column->attnum - 1] = isnull;
	if (is_exact(target->sub, column, &value, isnull))
		return;
	add_extra(extra, name, &value);
	if (value.kind != CVX_KIND_NULL && !column->is_json &&
		(isnull || (column->kind >= 0 && value.kind != column->kind)))
		note_drift(target, psprintf("field \"%s\": %s in column \"%s\" of type %s",
									column->field, cvx_value_kind_name(value.kind),
									column->name, format_type_be(column->type)));
}

/* Does the column alone tell what the value was? */
static bool
is_exact(const CvxSubscription *sub, const Column *column,
		 const CvxValue *value, bool isnull)
{
	if (isnull || value->kind == CVX_KIND_NULL)
		return false;
	if (column->kind >= 0 && value->kind != column->kind)
		return false;
	if (column->kind == CVX_KIND_STRING)
		return !value->text.is_escaped || !has_nul(value);
	if (!column->is_json)
		return true;

	/* jsonb: markers are lost where json_values is clean, U+0000 always. */
	if (memmem(value->raw.data, value->raw.len, "\\u0000", 6) != NULL)
		return false;
	return sub->table_options.json_values == CVX_JSON_ENCODED ||
		(memmem(value->raw.data, value->raw.len, "\"$integer\"", 10) == NULL &&
		 memmem(value->raw.data, value->raw.len, "\"$float\"", 8) == NULL &&
		 memmem(value->raw.data, value->raw.len, "\"$bytes\"", 8) == NULL);
}

static bool
has_nul(const CvxValue *value)
{
	char	   *plain;
	bool		result;

	if (memmem(value->text.data, value->text.len, "\\u0000", 6) == NULL)
		return false;
	plain = palloc(value->text.len + 1);
	cvx_json_unescape(&value->text, plain, &result);
	return result;
}

static void
add_extra(StringInfo extra, const CvxText *name, const CvxValue *value)
{
	appendStringInfoChar(extra, extra->len == 0 ? '{' : ',');
	appendStringInfoChar(extra, '"');
	appendBinaryStringInfo(extra, name->data, name->len);
	appendStringInfoString(extra, "\":");
	write_exact(extra, &value->raw);
}

/*
 * A value as the wire has it, but strings with U+0000, which jsonb cannot
 * hold, as {"$text": base64 of their UTF-8}.
 */
static void
write_exact(StringInfo buf, const CvxText *raw)
{
	CvxJson		json;
	CvxText		name;
	CvxText		text;
	bool		is_array = raw->data[0] == '[';
	bool		is_first = true;

	if (memmem(raw->data, raw->len, "\\u0000", 6) == NULL)
	{
		appendBinaryStringInfo(buf, raw->data, raw->len);
		return;
	}
	if (raw->data[0] == '"')
	{
		CvxText		string = {raw->data + 1, raw->len - 2, true};
		char	   *plain = palloc(raw->len + 1);
		bool		is_bad;
		size_t		len = cvx_json_unescape(&string, plain, &is_bad);
		int			room = pg_b64_enc_len((int) len);

		if (!is_bad)
		{
			appendBinaryStringInfo(buf, raw->data, raw->len);
			return;
		}
		appendStringInfoString(buf, "{\"$text\":\"");
		enlargeStringInfo(buf, room + 3);
		room = cvx_b64_encode(plain, (int) len, buf->data + buf->len, room);
		buf->len += room;
		buf->data[buf->len] = '\0';
		appendStringInfoString(buf, "\"}");
		return;
	}
	cvx_json_within(&json, raw->data, raw->len);
	appendStringInfoChar(buf, is_array ? '[' : '{');
	cvx_json_open(&json, is_array ? '[' : '{');
	for (; is_array ? cvx_json_element(&json, is_first) :
		 cvx_json_member(&json, &name, is_first); is_first = false)
	{
		cvx_json_skip(&json, &text);
		if (!is_first)
			appendStringInfoChar(buf, ',');
		if (!is_array)
		{
			appendStringInfoChar(buf, '"');
			appendBinaryStringInfo(buf, name.data, name.len);
			appendStringInfoString(buf, "\":");
		}
		write_exact(buf, &text);
	}
	appendStringInfoChar(buf, is_array ? ']' : '}');
}

/* ------------------------------------------------------------------------
 * Fields without a column
 * ------------------------------------------------------------------------
 */

/* Those of one document. */
static void
note_unknowns(Target *target, const CvxPage *page, const CvxDoc *doc)
{
	CvxJson		json;
	CvxText		name;
	CvxText		text;
	CvxValue	value;
	bool		is_first = true;
	int			guess = 0;

	cvx_json_within(&json, page->text + doc->document.offset, doc->document.len);
	cvx_json_open(&json, '{');
	for (; cvx_json_member(&json, &name, is_first); is_first = false)
	{
		cvx_json_skip(&json, &text);
		if (!cvx_page_is_document_member(&name) ||
			find_column(target, &name, &guess) != NULL)
			continue;
		cvx_value_read(text.data, text.len, &value);
		note_unknown(target, &name, &value);
	}
}

static void
note_unknown(Target *target, const CvxText *name, const CvxValue *value)
{
	MemoryContext old;
	Unknown    *unknown = NULL;
	char	   *field;
	ListCell   *lc;

	if (value->kind == CVX_KIND_NULL)
		return;
	field = cvx_json_cstring(name);
	if (!target->sub->is_evolving && JB_ROOT_COUNT(target->rel->columns) > 0 &&
		!has_attribute(target, field))
		return;
	foreach(lc, target->unknowns)
		if (strcmp(((Unknown *) lfirst(lc))->field, field) == 0)
			unknown = lfirst(lc);
	if (unknown == NULL)
	{
		if (target->ncolumns + list_length(target->unknowns) >=
			target->sub->max_columns)
			return;
		old = MemoryContextSwitchTo(MemoryContextGetParent(target->row_cxt));
		unknown = palloc0(sizeof(Unknown));
		unknown->field = pstrdup(field);
		unknown->type = CVX_TYPE_UNSEEN;
		target->unknowns = lappend(target->unknowns, unknown);
		MemoryContextSwitchTo(old);
	}
	unknown->type = cvx_schema_union(unknown->type, type_of_kind(value->kind));
}

/* Does the table have a column of this name that could be a field's? */
static bool
has_attribute(Target *target, const char *field)
{
	for (int i = 0; i < target->tupdesc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(target->tupdesc, i);

		if (!att->attisdropped && att->attgenerated == '\0' &&
			strcmp(NameStr(att->attname), field) == 0)
			return true;
	}
	return false;
}

static CvxType
type_of_kind(CvxKind kind)
{
	switch (kind)
	{
		case CVX_KIND_NULL:
			return CVX_TYPE_UNSEEN;
		case CVX_KIND_BOOLEAN:
			return CVX_TYPE_BOOLEAN;
		case CVX_KIND_INT64:
			return CVX_TYPE_INT64;
		case CVX_KIND_FLOAT64:
			return CVX_TYPE_FLOAT64;
		case CVX_KIND_STRING:
			return CVX_TYPE_STRING;
		case CVX_KIND_BYTES:
			return CVX_TYPE_BYTES;
		case CVX_KIND_ARRAY:
			return CVX_TYPE_ARRAY;
		case CVX_KIND_OBJECT:
			break;
	}
	return CVX_TYPE_OBJECT;
}

/* Give the unknown fields columns; true when there is a new one. */
static bool
add_columns(Target *target)
{
	bool		has_new = false;
	ListCell   *lc;

	foreach(lc, target->unknowns)
	{
		if (!add_one_column(target, lfirst(lc)))
			break;
		has_new = true;
	}
	target->unknowns = NIL;
	return has_new;
}

/*
 * ALTER TABLE within a subtransaction: when it cannot have its lock, or its
 * owner may not, the values stay in _extra for now.
 */
static bool
add_one_column(Target *target, const Unknown *unknown)
{
	MemoryContext cxt = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	CvxSubRel  *rel = target->rel;
	Oid			relid = RelationGetRelid(target->relation);
	int			natts = target->tupdesc->natts;
	const char **taken = palloc(sizeof(char *) * (natts + 13));
	static const char *const system[] = {"tableoid", "ctid", "xmin", "cmin",
		"xmax", "cmax", "_id", "_creationTime", "_ts", "_extra", "_deleted",
		"_deleted_at", "_document"
	};
	CvxLocalName name = {pstrdup(unknown->field), unknown->field};
	bool		is_there = has_attribute(target, unknown->field);
	const char *type = cvx_names_type(unknown->field, unknown->type);
	volatile bool is_added = false;

	memcpy(taken, system, sizeof(system));
	for (int i = 0; i < natts; i++)
		taken[lengthof(system) + i] = NameStr(TupleDescAttr(target->tupdesc, i)->attname);
	if (!is_there && !known_column(target, unknown->field, &name.name, &type))
		cvx_names_make_unique(&name, 1, taken, lengthof(system) + natts);

	/* An ALTER TABLE wants nobody else here to use the relation. */
	table_close(target->relation, NoLock);
	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(cxt);
	PG_TRY();
	{
		char	   *table = target->name;
		int			nest = NewGUCNestLevel();
		Oid			userid;
		int			context;

		(void) set_config_option("lock_timeout", ALTER_LOCK_TIMEOUT, PGC_USERSET,
								 PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
		become_owner(relation_owner(relid), &userid, &context);
		if (!is_there)
			run(psprintf("ALTER TABLE %s ADD COLUMN %s %s", table,
						 quote_identifier(name.name), type), SPI_OK_UTILITY);
		SetUserIdAndSecContext(userid, context);
		cvx_catalog_run(SPI_OK_UPDATE,
						"UPDATE @.convex_subscription_rel SET columns = columns || jsonb_build_object($3, $4)"
						" WHERE subid = $1 AND relno = $2", "iitt",
						target->sub->subid, rel->relno, name.name,
						unknown->field);
		AtEOXact_GUC(true, nest);
		ReleaseCurrentSubTransaction();
		MemoryContextSwitchTo(cxt);
		CurrentResourceOwner = owner;
		is_added = true;
	}
	PG_CATCH();
	{
		ErrorData  *error;

		MemoryContextSwitchTo(cxt);
		error = CopyErrorData();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
		MemoryContextSwitchTo(cxt);
		CurrentResourceOwner = owner;
		if (error->sqlerrcode != ERRCODE_LOCK_NOT_AVAILABLE &&
			error->sqlerrcode != ERRCODE_INSUFFICIENT_PRIVILEGE &&
			error->sqlerrcode != ERRCODE_OBJECT_IN_USE &&
			error->sqlerrcode != ERRCODE_TOO_MANY_COLUMNS)
			ReThrowError(error);
		FreeErrorData(error);
	}
	PG_END_TRY();
	target->relation = table_open(relid, RowExclusiveLock);
	target->tupdesc = RelationGetDescr(target->relation);
	if (!is_added)
		return false;
	{
		/* The new column is known from now on. */
		JsonbParseState *state = NULL;
		JsonbValue	key = {.type = jbvString};
		JsonbValue	value = {.type = jbvString};
		Datum		added;

		key.val.string.val = name.name;
		key.val.string.len = strlen(name.name);
		value.val.string.val = unknown->field;
		value.val.string.len = strlen(unknown->field);
		pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
		pushJsonbValue(&state, WJB_KEY, &key);
		pushJsonbValue(&state, WJB_VALUE, &value);
		added = JsonbPGetDatum(JsonbValueToJsonb(pushJsonbValue(&state, WJB_END_OBJECT, NULL)));
		rel->columns = DatumGetJsonbP(DirectFunctionCall2(jsonb_concat,
														  JsonbPGetDatum(rel->columns), added));
	}
	if (!is_there)
		cvx_catalog_event(target->sub->subid, "column_added", rel,
						  psprintf("field \"%s\": column \"%s\" of type %s",
							   unknown->field, name.name, type));
	return true;
}

/* The name and type that the field's column has in the target itself. */
static bool
known_column(Target *target, const char *field, char **name, const char **type)
{
	Oid			relid = target->rel->target;
	Target	   *real;
	bool		is_found = false;

	if (!OidIsValid(relid) || relid == RelationGetRelid(target->relation))
		return false;
	real = open_target(target->sub, target->rel, relid);
	for (int i = 0; i < real->nfields && !is_found; i++)
	{
		if (strcmp(real->columns[i].field, field) != 0)
			continue;
		*name = real->columns[i].name;
		*type = column_type(real->tupdesc, real->columns[i].attnum);
		is_found = true;
	}
	close_target(real);
	return is_found;
}

static void
note_drift(Target *target, const char *drift)
{
	MemoryContext old;
	ListCell   *lc;

	foreach(lc, target->drifts)
		if (strcmp(lfirst(lc), drift) == 0)
			return;
	old = MemoryContextSwitchTo(MemoryContextGetParent(target->row_cxt));
	target->drifts = lappend(target->drifts, pstrdup(drift));
	MemoryContextSwitchTo(old);
}

static void
report_drifts(Target *target)
{
	ListCell   *lc;

	foreach(lc, target->drifts)
		cvx_catalog_drift(target->sub->subid, target->rel, lfirst(lc));
}

/* Nanoseconds since 1970, to the microsecond. */
static Datum
timestamptz_of_ts(int64 ts)
{
	return TimestampTzGetDatum(ts / 1000 -
							   (POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * USECS_PER_DAY);
}

/* ------------------------------------------------------------------------
 * From rows to the table
 * ------------------------------------------------------------------------
 */

/*
 * Insert the documents from the one at done on, until the last or until some
 * show a field that may get a column; returns where to go on.
 */
static int
multi_insert(Target *target, const CvxBatchDocs *docs, int done)
{
	int			nslots = Min(docs->ndocs - done, LOAD_ROWS);
	TupleTableSlot **slots = palloc(sizeof(TupleTableSlot *) * nslots);
	TupleDesc	tupdesc = CreateTupleDescCopy(target->tupdesc);	/* no reference counts */
	BulkInsertState bulk = GetBulkInsertState();
	CommandId	cid = GetCurrentCommandId(true);
	StringInfoData extra;

	initStringInfo(&extra);
	for (int i = 0; i < nslots; i++)
		slots[i] = MakeSingleTupleTableSlot(tupdesc, &TTSOpsVirtual);
	while (done < docs->ndocs)
	{
		size_t		size = 0;
		int			n = 0;

		for (; n < nslots && done + n < docs->ndocs && size < LOAD_BYTES; n++)
		{
			const CvxDoc *doc = &docs->page->docs[docs->docs[done + n]];
			MemoryContext old = MemoryContextSwitchTo(target->row_cxt);

			CHECK_FOR_INTERRUPTS();
			decode_row(target, docs->page, doc, &extra);
			MemoryContextSwitchTo(old);
			memcpy(slots[n]->tts_values, target->values, tupdesc->natts * sizeof(Datum));
			memcpy(slots[n]->tts_isnull, target->nulls, tupdesc->natts * sizeof(bool));
			ExecStoreVirtualTuple(slots[n]);
			size += doc->document.len;
		}
		if (target->unknowns == NIL)
		{
			table_multi_insert(target->relation, slots, n, cid, 0, bulk);
			done += n;
		}
		for (int i = 0; i < n; i++)
			ExecClearTuple(slots[i]);
		MemoryContextReset(target->row_cxt);
		if (target->unknowns != NIL)
			break;
	}
	FreeBulkInsertState(bulk);
	table_finish_bulk_insert(target->relation, 0);
	for (int i = 0; i < nslots; i++)
		ExecDropSingleTupleTableSlot(slots[i]);
	return done;
}

/* The columns of the page's relation: those of the target, and two more. */
static TupleDesc
page_tupdesc(Target *target)
{
	TupleDesc	tupdesc = CreateTemplateTupleDesc(target->ncolumns + 2);

	for (int i = 0; i < target->ncolumns; i++)
	{
		Form_pg_attribute att = TupleDescAttr(target->tupdesc,
											  target->columns[i].attnum - 1);

		TupleDescInitEntry(tupdesc, i + 1, NameStr(att->attname), att->atttypid,
						   att->atttypmod, att->attndims);
		TupleDescInitEntryCollation(tupdesc, i + 1, att->attcollation);
	}
	TupleDescInitEntry(tupdesc, target->ncolumns + 1, "?ts", INT8OID, -1, 0);
	TupleDescInitEntry(tupdesc, target->ncolumns + 2, "?deleted", BOOLOID, -1, 0);
	return tupdesc;
}

/*
 * The rows to apply: the last revision of each document, or in history mode
 * all of them.
 */
static Tuplestorestate *
collect_rows(Target *target, const CvxBatchDocs *docs, TupleDesc tupdesc,
			 int *nrows, int *ndeleted)
{
	Tuplestorestate *rows = tuplestore_begin_heap(true, false, work_mem);
	bool		is_history = target->sub->mode == CVX_MODE_HISTORY;
	Datum	   *values = palloc(sizeof(Datum) * tupdesc->natts);
	bool	   *nulls = palloc0(sizeof(bool) * tupdesc->natts);
	bool	   *is_old = palloc0(sizeof(bool) * Max(docs->ndocs, 1));
	StringInfoData extra;

	initStringInfo(&extra);
	*nrows = *ndeleted = 0;
	if (!is_history)
	{
		HASHCTL		ctl = {.keysize = 64,.entrysize = 64,.hcxt = CurrentMemoryContext};
		HTAB	   *seen = hash_create("convex ids", Max(docs->ndocs, 16), &ctl,
									   HASH_ELEM | HASH_STRINGS | HASH_CONTEXT);

		for (int i = docs->ndocs - 1; i >= 0; i--)
		{
			const CvxDoc *doc = &docs->page->docs[docs->docs[i]];
			char		id[64];

			if (doc->id.len >= sizeof(id))
				ereport(ERROR,
						(errcode(ERRCODE_FDW_UNABLE_TO_CREATE_REPLY),
						 errmsg("a document's _id is too long")));
			memcpy(id, docs->page->text + doc->id.offset, doc->id.len);
			id[doc->id.len] = '\0';
			(void) hash_search(seen, id, HASH_ENTER, &is_old[i]);
		}
		hash_destroy(seen);
	}
	for (int i = 0; i < docs->ndocs; i++)
	{
		const CvxDoc *doc = &docs->page->docs[docs->docs[i]];
		MemoryContext old;

		if (is_old[i] || (doc->is_deleted && !target->sub->applies_deletes))
			continue;
		CHECK_FOR_INTERRUPTS();
		old = MemoryContextSwitchTo(target->row_cxt);
		decode_row(target, docs->page, doc, &extra);
		for (int c = 0; c < target->ncolumns; c++)
		{
			values[c] = target->values[target->columns[c].attnum - 1];
			nulls[c] = target->nulls[target->columns[c].attnum - 1];
		}
		values[target->ncolumns] = Int64GetDatum(doc->ts);
		values[target->ncolumns + 1] = BoolGetDatum(doc->is_deleted);
		tuplestore_putvalues(rows, tupdesc, values, nulls);
		MemoryContextSwitchTo(old);
		MemoryContextReset(target->row_cxt);
		(*nrows)++;
		*ndeleted += doc->is_deleted;
	}
	return rows;
}

/*
 * A statement over the page's rows.  Where no trigger could be planned under
 * the same settings its plan is kept, and looks rows up by their key: one made
 * while the table was small must be good when it is large.
 */
static int64
run_page(Target *target, const char *sql, int expected)
{
	MemoryContext cxt = CurrentMemoryContext;
	Relation	relation = target->relation;
	int			nest;
	int			rc;

	if (relation->rd_rel->relkind != RELKIND_RELATION ||
		relation->trigdesc != NULL)
		return run(sql, expected);
	nest = NewGUCNestLevel();
	for (int i = 0; i < lengthof(lookup_settings); i++)
		(void) set_config_option(lookup_settings[i], "off", PGC_USERSET,
								 PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
	rc = SPI_execute_plan(cvx_catalog_plan(sql, 0, NULL), NULL, NULL, false, 0);
	AtEOXact_GUC(true, nest);
	MemoryContextSwitchTo(cxt);
	if (rc != expected)
		elog(ERROR, "unexpected result %d of: %s", rc, sql);
	return (int64) SPI_processed;
}

/* The statements of the mode; returns how many rows changed. */
static int64
run_changes(Target *target, int nrows, int ndeleted)
{
	const char *table = target->name;
	int64		changed = 0;

	if (nrows == 0)
		return 0;
	if (target->sub->mode == CVX_MODE_HISTORY)
		return run_page(target, psprintf("INSERT INTO %s (%s) SELECT %s FROM " PAGE_RELATION " AS p"
							" WHERE NOT EXISTS (SELECT FROM %s AS t WHERE t._id = p._id AND t._ts = p._ts)",
							table, column_list(target, ""), column_list(target, "p."), table),
				   SPI_OK_INSERT);
	if (ndeleted > 0 && target->sub->mode == CVX_MODE_MIRROR)
		changed += run_page(target, psprintf("DELETE FROM %s AS t USING " PAGE_RELATION " AS p"
								" WHERE t._id = p._id AND p.\"?deleted\"", table),
					   SPI_OK_DELETE);
	else if (ndeleted > 0)
		changed += run_page(target, psprintf("UPDATE %s AS t SET _deleted_at = p._deleted_at%s FROM " PAGE_RELATION " AS p"
								" WHERE t._id = p._id AND p.\"?deleted\"", table,
								target->ts ? ", _ts = p._ts" : ""),
					   SPI_OK_UPDATE);
	if (nrows > ndeleted)
	{
		if (target->ncolumns > 1)
			changed += run_page(target, psprintf("UPDATE %s AS t SET %s FROM " PAGE_RELATION " AS p"
									" WHERE t._id = p._id AND NOT p.\"?deleted\"",
									table, set_list(target, "p")), SPI_OK_UPDATE);
		if (changed < nrows)
			changed += run_page(target, psprintf("INSERT INTO %s (%s) SELECT %s FROM " PAGE_RELATION " AS p"
									" WHERE NOT p.\"?deleted\" AND NOT EXISTS (SELECT FROM %s AS t WHERE t._id = p._id)",
									table, column_list(target, ""), column_list(target, "p."), table),
						   SPI_OK_INSERT);
	}
	return changed;
}

/* Lay a loaded staging table over the target. */
static void
merge(Target *target, const char *staging, int64 ts)
{
	const char *table = target->name;
	const char *own = column_list(target, "t.");
	const char *other = column_list(target, "s.");

	if (target->sub->mode == CVX_MODE_HISTORY)
	{
		run(psprintf("INSERT INTO %s (%s) SELECT %s FROM %s AS s"
					 " WHERE NOT EXISTS (SELECT FROM %s AS t WHERE t._id = s._id AND t._ts = s._ts)",
					 table, column_list(target, ""), other, staging, table), SPI_OK_INSERT);
		if (target->sub->applies_deletes)
			run(psprintf("INSERT INTO %s (_id, _ts, _deleted) SELECT l._id, " INT64_FORMAT ", true"
						 " FROM (SELECT DISTINCT ON (t._id) t._id, t._deleted FROM %s AS t ORDER BY t._id, t._ts DESC) AS l"
						 " WHERE NOT l._deleted AND NOT EXISTS (SELECT FROM %s AS s WHERE s._id = l._id)",
						 table, ts, table, staging), SPI_OK_INSERT);
		return;
	}
	if (target->sub->applies_deletes && target->sub->mode == CVX_MODE_MIRROR)
		run(psprintf("DELETE FROM %s AS t WHERE NOT EXISTS (SELECT FROM %s AS s WHERE s._id = t._id)",
					 table, staging), SPI_OK_DELETE);
	else if (target->sub->applies_deletes)
		run(psprintf("UPDATE %s AS t SET _deleted_at = pg_catalog.timestamptz 'epoch' + " INT64_FORMAT " * interval '1 microsecond'%s"
					 " WHERE t._deleted_at IS NULL AND NOT EXISTS (SELECT FROM %s AS s WHERE s._id = t._id)",
					 table, ts / 1000, target->ts ? psprintf(", _ts = " INT64_FORMAT, ts) : "",
					 staging), SPI_OK_UPDATE);
	if (target->ncolumns > 1)
		run(psprintf("UPDATE %s AS t SET %s FROM %s AS s WHERE t._id = s._id AND pg_catalog.record_image_ne(ROW(%s), ROW(%s))",
					 table, set_list(target, "s"), staging, own, other), SPI_OK_UPDATE);
	run(psprintf("INSERT INTO %s (%s) SELECT %s FROM %s AS s"
				 " WHERE NOT EXISTS (SELECT FROM %s AS t WHERE t._id = s._id)",
				 table, column_list(target, ""), other, staging, table), SPI_OK_INSERT);
}

/* The staging table becomes the target. */
static void
move_into_place(const CvxSubscription *sub, CvxSubRel *rel, Oid staging)
{
	char	   *name = cvx_catalog_staging(sub, rel);
	char	   *key = psprintf("%s_pkey", name);
	Oid			schema = get_namespace_oid(rel->target_schema, false);
	char	   *new_key = psprintf("%.*s_pkey", NAMEDATALEN - 6, rel->target_name);

	if (cvx_schema_aclcheck(schema, sub->owner) != ACLCHECK_OK)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("owner of subscription \"%s\" may not create tables in schema \"%s\"",
						sub->name, rel->target_schema)));
	cvx_catalog_run(SPI_OK_UTILITY,
					psprintf("ALTER TABLE convex_staging.%s OWNER TO %s", name,
							 quote_identifier(GetUserNameFromId(sub->owner, false))), "");
	cvx_catalog_run(SPI_OK_UTILITY,
					psprintf("ALTER TABLE convex_staging.%s SET SCHEMA %s", name,
							 quote_identifier(rel->target_schema)), "");
	if (OidIsValid(get_relname_relid(key, schema)) &&
		!OidIsValid(get_relname_relid(new_key, schema)))
		cvx_catalog_run(SPI_OK_UTILITY,
						psprintf("ALTER INDEX %s RENAME TO %s",
								 quote_qualified_identifier(rel->target_schema, key),
								 quote_identifier(new_key)), "");
	cvx_catalog_run(SPI_OK_UTILITY,
					psprintf("ALTER TABLE %s RENAME TO %s",
							 quote_qualified_identifier(rel->target_schema, name),
							 quote_identifier(rel->target_name)), "");
	cvx_catalog_run(SPI_OK_UPDATE,
					"UPDATE @.convex_subscription_rel SET target_oid = $3 WHERE subid = $1 AND relno = $2",
					"iio", sub->subid, rel->relno, staging);
	rel->target = staging;
}

static int64
run(const char *sql, int expected)
{
	MemoryContext cxt = CurrentMemoryContext;
	int			rc = SPI_execute(sql, false, 0);

	MemoryContextSwitchTo(cxt);
	if (rc != expected)
		elog(ERROR, "unexpected result %d of: %s", rc, sql);
	return (int64) SPI_processed;
}

static char *
column_list(Target *target, const char *prefix)
{
	StringInfoData buf;

	initStringInfo(&buf);
	for (int i = 0; i < target->ncolumns; i++)
		appendStringInfo(&buf, "%s%s%s", i > 0 ? ", " : "", prefix,
						 quote_identifier(target->columns[i].name));
	return buf.data;
}

static char *
set_list(Target *target, const char *from)
{
	StringInfoData buf;

	initStringInfo(&buf);
	for (int i = 0; i < target->ncolumns; i++)
	{
		const char *name = quote_identifier(target->columns[i].name);

		if (&target->columns[i] != target->id)
			appendStringInfo(&buf, "%s%s = %s.%s", buf.len > 0 ? ", " : "",
							 name, from, name);
	}
	return buf.data;
}
