/*
 * schema_read.c
 *		Which tables and fields does the server have?
 *
 * Reads the answers of get_table_column_names, json_schemas (in the encoded
 * format) and get_schema.  A type that is not understood becomes "any", never
 * an error.  The answers are foreign, and may be long: nothing is looked for
 * in a list.
 *
 * Everything returned lives in the current memory context.
 *
 * Room: protocol 2.3
 */
#include "postgres.h"

#include <ctype.h>

#include "miscadmin.h"
#include "utils/builtins.h"

#include "ground/redact.h"
#include "protocol/schema_read.h"

/* Convex allows ten thousand tables, unless its operator has changed that. */
#define MAX_TABLES	100000

/* And a document has at most 1,024 fields; those of a table may be more. */
#define MAX_NAMES	100000

#define MAX_IDENTIFIER	64

/* A list of tables that is being read. */
typedef struct NamesReader
{
	CvxJson		json;
	const CvxTableName *only;	/* NULL: all */
	char	   *component;
	int			nnames;			/* of components and tables */
	List	   *tables;			/* CvxTableSchema */
} NamesReader;

/* The words of json_schemas ("type") and of get_schema (validators). */
static const struct
{
	const char *word;
	CvxType		type;
}			schema_words[] = {
	{"null", CVX_TYPE_UNSEEN},
	{"boolean", CVX_TYPE_BOOLEAN},
	{"number", CVX_TYPE_FLOAT64},
	{"string", CVX_TYPE_STRING},
	{"array", CVX_TYPE_ARRAY},
	{"object", CVX_TYPE_OBJECT},
}, declared_words[] = {
	{"null", CVX_TYPE_UNSEEN},
	{"boolean", CVX_TYPE_BOOLEAN},
	{"number", CVX_TYPE_FLOAT64},
	{"bigint", CVX_TYPE_INT64},
	{"commitTs", CVX_TYPE_INT64},
	{"string", CVX_TYPE_STRING},
	{"bytes", CVX_TYPE_BYTES},
	{"function", CVX_TYPE_STRING},	/* a function's handle */
	{"id", CVX_TYPE_ID},
	{"array", CVX_TYPE_ARRAY},
	{"record", CVX_TYPE_OBJECT},
	{"object", CVX_TYPE_OBJECT},
};

static void read_component(NamesReader *reader, const CvxText *name);
static void count_one(NamesReader *reader);
static void read_table(NamesReader *reader, HTAB *seen);
static List *read_columns(NamesReader *reader);
static bool is_identifier(const char *name, size_t len);
static CvxFieldSchema *declared_field(CvxTableSchema *table, HTAB *fields,
									  HTAB *names, const char *name);
static void read_properties(CvxTableSchema *table, JsonbContainer *schema);
static void read_type(JsonbContainer *schema, CvxFieldSchema *field);
static void read_union(JsonbContainer *branches, CvxFieldSchema *field);
static void read_declared(JsonbContainer *validator, CvxFieldSchema *field);
static void read_declared_union(JsonbContainer *branches, CvxFieldSchema *field);
static void add_branch(CvxFieldSchema *field, const CvxFieldSchema *branch,
					   bool *is_first);
static List *read_strings(JsonbContainer *array);
static char *copy_name(const JsonbValue *value);
static char *read_json_name(const CvxText *text);
static void refuse_key(const char *name, size_t len);
static List *read_names(JsonbContainer *object);
static JsonbContainer *get_container(JsonbContainer *object, const char *name);
static char *get_string(JsonbContainer *object, const char *name);
static char *get_name(JsonbContainer *object, const char *name);
static bool get_true(JsonbContainer *object, const char *name);
static char *copy_string(const JsonbValue *value);

/*
 * The tables of an answer of get_table_column_names: a list of CvxTableSchema
 * without types; of one table alone, and without its fields, when only is not
 * NULL.  Throws HV00M for what is not such an answer, and for names that can be
 * none.  Does not become jsonb, which takes thirty times as much memory.
 */
List *
cvx_schema_read_names(const char *body, size_t len, const CvxTableName *only)
{
	NamesReader reader = {.only = only};
	CvxText		name;
	bool		has_components = false;
	bool		is_first = true;

	cvx_json_begin(&reader.json, body, len);
	cvx_json_open(&reader.json, '{');
	for (; cvx_json_member(&reader.json, &name, is_first); is_first = false)
	{
		bool		is_first_component = true;
		CvxText		component;

		if (!cvx_json_equals(&name, "byComponent", strlen("byComponent")))
		{
			cvx_json_skip(&reader.json, NULL);
			continue;
		}
		if (has_components)
			cvx_json_fail(&reader.json, "tables listed twice");
		has_components = true;
		cvx_json_open(&reader.json, '{');
		for (; cvx_json_member(&reader.json, &component, is_first_component);
			 is_first_component = false)
			read_component(&reader, &component);
	}
	cvx_json_end(&reader.json);
	if (!has_components)
	{
		reader.json.p = reader.json.start;
		cvx_json_fail(&reader.json, "no list of tables");
	}
	return reader.tables;
}

/* Is this an answer of json_schemas by component? */
bool
cvx_schema_is_tables(Jsonb *answer)
{
	ListCell   *lc;
	ListCell   *lc2;

	if (!JB_ROOT_IS_OBJECT(answer))
		return false;
	foreach(lc, read_names(&answer->root))
	{
		JsonbContainer *tables = get_container(&answer->root, lfirst(lc));

		if (tables == NULL || !JsonContainerIsObject(tables))
			return false;
		foreach(lc2, read_names(tables))
			if (get_container(tables, lfirst(lc2)) == NULL)
				return false;
	}
	return true;
}

/* The tables that json_schemas describes, with their types. */
List *
cvx_schema_parse_tables(Jsonb *answer)
{
	List	   *result = NIL;
	ListCell   *lc;
	ListCell   *lc2;

	foreach(lc, read_names(&answer->root))
	{
		char	   *component = lfirst(lc);

		foreach(lc2, read_names(get_container(&answer->root, component)))
		{
			CvxTableSchema *table = palloc0(sizeof(CvxTableSchema));
			ListCell   *lc3;

			table->component = component;
			table->table = lfirst(lc2);
			result = lappend(result, table);
			read_properties(table,
							get_container(get_container(&answer->root, component),
										  table->table));
			foreach(lc3, table->fields)
				table->names = lappend(table->names,
									   ((CvxFieldSchema *) lfirst(lc3))->name);
		}
	}
	return result;
}

/* Add the types of json_schemas (by component, encoded) to listed tables. */
void
cvx_schema_parse_types(List *tables, Jsonb *answer)
{
	ListCell   *lc;

	foreach(lc, tables)
	{
		CvxTableSchema *table = lfirst(lc);
		JsonbContainer *component = get_container(&answer->root,
												  table->component);

		read_properties(table, get_container(component, table->table));
	}
}

/*
 * Let the declared types of get_schema win, where the deployment enforces
 * them.  They are those of the root component.
 */
void
cvx_schema_parse_declared(List *tables, Jsonb *answer)
{
	JsonbContainer *declared = get_container(&answer->root, "tables");

	if (!get_true(&answer->root, "schemaValidation") || declared == NULL ||
		!JsonContainerIsArray(declared))
		return;
	for (uint32 i = 0; i < JsonContainerSize(declared); i++)
	{
		JsonbValue *entry = getIthJsonbValueFromContainer(declared, i);
		JsonbContainer *type;
		char	   *name;
		CvxTableSchema *table;
		HTAB	   *fields;
		HTAB	   *names;
		ListCell   *lc;

		CHECK_FOR_INTERRUPTS();
		if (entry->type != jbvBinary ||
			(name = get_string(entry->val.binary.data, "tableName")) == NULL ||
			(table = cvx_schema_find(tables, "", name)) == NULL)
			continue;
		type = get_container(entry->val.binary.data, "documentType");
		name = get_string(type, "type");
		if (name == NULL || strcmp(name, "object") != 0)
			continue;
		type = get_container(type, "value");
		fields = cvx_schema_map(list_length(table->fields));
		names = cvx_schema_map(list_length(table->names));
		foreach(lc, table->fields)
			*cvx_schema_slot(fields, ((CvxFieldSchema *) lfirst(lc))->name, NULL) = lfirst(lc);
		foreach(lc, table->names)
			(void) cvx_schema_slot(names, lfirst(lc), NULL);
		foreach(lc, read_names(type))
		{
			CvxFieldSchema *field = declared_field(table, fields, names,
												   lfirst(lc));
			JsonbContainer *member = get_container(type, lfirst(lc));

			field->is_nullable = false;
			field->is_optional = get_true(member, "optional");
			field->is_declared = true;
			read_declared(get_container(member, "fieldType"), field);
		}
		hash_destroy(fields);
		hash_destroy(names);
	}
}

/* Is a table of the root component in the schema of get_schema? */
bool
cvx_schema_declares(Jsonb *schema, const char *table)
{
	JsonbContainer *declared = get_container(&schema->root, "tables");

	if (declared == NULL || !JsonContainerIsArray(declared))
		return false;
	for (uint32 i = 0; i < JsonContainerSize(declared); i++)
	{
		JsonbValue *entry = getIthJsonbValueFromContainer(declared, i);
		char	   *name = entry->type != jbvBinary ? NULL :
			get_string(entry->val.binary.data, "tableName");

		if (name != NULL && strcmp(name, table) == 0)
			return true;
	}
	return false;
}

/* The tables of one component. */
static void
read_component(NamesReader *reader, const CvxText *name)
{
	char	   *component = read_json_name(name);
	HTAB	   *seen = cvx_schema_map(16);
	bool		is_first = true;

	count_one(reader);
	for (const char *p = component; *p;)
	{
		size_t		len = strcspn(p, "/");

		if (!is_identifier(p, len) || (p[len] == '/' && p[len + 1] == '\0'))
			cvx_json_fail(&reader->json, "impossible name of a component");
		p += len + (p[len] == '/');
	}
	reader->component = component;
	cvx_json_open(&reader->json, '[');
	for (; cvx_json_element(&reader->json, is_first); is_first = false)
	{
		count_one(reader);
		read_table(reader, seen);
	}
	hash_destroy(seen);
}

/* A component, or a table: a component without tables is not listed. */
static void
count_one(NamesReader *reader)
{
	CHECK_FOR_INTERRUPTS();
	if (++reader->nnames > MAX_TABLES)
		cvx_json_fail(&reader->json, "more tables than Convex can have");
}

/* One table: its name and those of its fields. */
static void
read_table(NamesReader *reader, HTAB *seen)
{
	CvxTableSchema *table = palloc0(sizeof(CvxTableSchema));
	CvxText		member;
	bool		has_columns = false;
	bool		is_first = true;
	bool		is_new;

	cvx_json_open(&reader->json, '{');
	for (; cvx_json_member(&reader->json, &member, is_first); is_first = false)
	{
		CvxText		text;

		if (cvx_json_equals(&member, "name", 4) && table->table == NULL)
		{
			cvx_json_string(&reader->json, &text);
			table->table = read_json_name(&text);
		}
		else if (cvx_json_equals(&member, "columns", 7) && !has_columns)
		{
			has_columns = true;
			table->names = read_columns(reader);
		}
		else
			cvx_json_skip(&reader->json, NULL);
	}
	if (table->table == NULL || !has_columns || table->table[0] == '_' ||
		!is_identifier(table->table, strlen(table->table)))
		cvx_json_fail(&reader->json, "a table without its name or its columns");
	table->component = reader->component;
	if (reader->only == NULL)
	{
		(void) cvx_schema_slot(seen, table->table, &is_new);
		if (!is_new)
			cvx_json_fail(&reader->json, "a table that is listed twice");
		reader->tables = lappend(reader->tables, table);
	}
	else if (strcmp(table->table, reader->only->table) == 0 &&
			 strcmp(table->component, reader->only->component) == 0)
		reader->tables = lappend(reader->tables, table);
	else
	{
		pfree(table->table);
		pfree(table);
	}
}

static List *
read_columns(NamesReader *reader)
{
	List	   *names = NIL;
	CvxText		text;
	bool		is_first = true;

	cvx_json_open(&reader->json, '[');
	for (; cvx_json_element(&reader->json, is_first); is_first = false)
	{
		if (list_length(names) >= MAX_NAMES)
			cvx_json_fail(&reader->json, "more fields than a table can have");
		cvx_json_string(&reader->json, &text);
		if (reader->only == NULL)
			names = lappend(names, read_json_name(&text));
	}
	return names;
}

/* Does Convex name tables, and the parts of a component's path, so? */
static bool
is_identifier(const char *name, size_t len)
{
	if (len == 0 || len > MAX_IDENTIFIER || (name[0] >= '0' && name[0] <= '9'))
		return false;
	for (size_t i = 0; i < len; i++)
		if (!isalnum((unsigned char) name[i]) && name[i] != '_')
			return false;
	return true;
}

/* The field of a table that a declaration is about, added when it is new. */
static CvxFieldSchema *
declared_field(CvxTableSchema *table, HTAB *fields, HTAB *names,
			   const char *name)
{
	bool		is_new;
	void	  **slot = cvx_schema_slot(fields, name, &is_new);
	CvxFieldSchema *field;

	if (is_new)
	{
		field = palloc0(sizeof(CvxFieldSchema));
		field->name = pstrdup(name);
		table->fields = lappend(table->fields, field);
		*slot = field;
	}
	field = *slot;
	(void) cvx_schema_slot(names, field->name, &is_new);
	if (is_new)
		table->names = lappend(table->names, field->name);
	return field;
}

/* One table's JSON Schema. */
static void
read_properties(CvxTableSchema *table, JsonbContainer *schema)
{
	JsonbContainer *properties = get_container(schema, "properties");
	JsonbContainer *array = get_container(schema, "required");
	List	   *names = read_strings(array);
	HTAB	   *required = cvx_schema_map(list_length(names));
	ListCell   *lc;

	foreach(lc, names)
		(void) cvx_schema_slot(required, lfirst(lc), NULL);
	foreach(lc, read_names(properties))
	{
		CvxFieldSchema *field = palloc0(sizeof(CvxFieldSchema));

		field->name = lfirst(lc);
		field->is_optional = hash_search(required, &field->name, HASH_FIND,
										 NULL) == NULL;
		read_type(get_container(properties, field->name), field);
		if (strcmp(field->name, "_id") == 0)
			field->type = CVX_TYPE_ID;
		table->fields = lappend(table->fields, field);
	}
	hash_destroy(required);
}

/* One field's JSON Schema; NULL stands for true, false and other scalars. */
static void
read_type(JsonbContainer *schema, CvxFieldSchema *field)
{
	char	   *description = get_string(schema, "$description");
	char	   *word = get_string(schema, "type");
	JsonbContainer *branches = get_container(schema, "anyOf");
	JsonbContainer *properties = get_container(schema, "properties");

	field->type = CVX_TYPE_ANY;
	if (branches != NULL && description != NULL &&
		strcmp(description, "float64") == 0)
		field->type = CVX_TYPE_FLOAT64;
	else if (branches != NULL)
		read_union(branches, field);
	else if (word != NULL)
	{
		for (int i = 0; i < lengthof(schema_words); i++)
			if (strcmp(word, schema_words[i].word) == 0)
				field->type = schema_words[i].type;
		field->is_nullable = field->type == CVX_TYPE_UNSEEN;
		if (field->type == CVX_TYPE_STRING && description != NULL &&
			strncmp(description, "Id(", 3) == 0 && strlen(description) > 4)
		{
			field->type = CVX_TYPE_ID;
			field->id_table = pnstrdup(description + 3,
									   strlen(description) - 4);
		}
		if (field->type == CVX_TYPE_OBJECT &&
			get_container(properties, "$integer") != NULL)
			field->type = CVX_TYPE_INT64;
		else if (field->type == CVX_TYPE_OBJECT &&
				 get_container(properties, "$bytes") != NULL)
			field->type = CVX_TYPE_BYTES;
	}
	else if (get_container(schema, "type") != NULL)
		field->type = CVX_TYPE_OBJECT;	/* a record's malformed schema */
}

static void
read_union(JsonbContainer *branches, CvxFieldSchema *field)
{
	bool		is_first = true;

	field->type = CVX_TYPE_UNSEEN;
	for (uint32 i = 0; JsonContainerIsArray(branches) &&
		 i < JsonContainerSize(branches); i++)
	{
		JsonbValue *entry = getIthJsonbValueFromContainer(branches, i);
		CvxFieldSchema branch = {0};

		read_type(entry->type == jbvBinary ? entry->val.binary.data : NULL,
				  &branch);
		add_branch(field, &branch, &is_first);
	}
}

/* One validator of get_schema. */
static void
read_declared(JsonbContainer *validator, CvxFieldSchema *field)
{
	char	   *word = get_string(validator, "type");

	field->type = CVX_TYPE_ANY;
	field->id_table = NULL;
	if (word == NULL)
		return;
	for (int i = 0; i < lengthof(declared_words); i++)
		if (strcmp(word, declared_words[i].word) == 0)
			field->type = declared_words[i].type;
	if (field->type == CVX_TYPE_UNSEEN)
		field->is_nullable = true;
	else if (field->type == CVX_TYPE_ID)
		field->id_table = get_name(validator, "tableName");
	else if (strcmp(word, "union") == 0)
		read_declared_union(get_container(validator, "value"), field);
	else if (strcmp(word, "literal") == 0)
	{
		JsonbValue	value;
		JsonbValue *literal;

		literal = validator ? getKeyJsonValueFromContainer(validator, "value",
														   5, &value) : NULL;
		if (literal == NULL)
			return;
		if (literal->type == jbvString)
			field->type = CVX_TYPE_STRING;
		else if (literal->type == jbvNumeric)
			field->type = CVX_TYPE_FLOAT64;
		else if (literal->type == jbvBool)
			field->type = CVX_TYPE_BOOLEAN;
		else if (literal->type == jbvBinary &&
				 get_string(literal->val.binary.data, "$integer") != NULL)
			field->type = CVX_TYPE_INT64;
	}
}

static void
read_declared_union(JsonbContainer *branches, CvxFieldSchema *field)
{
	bool		is_first = true;

	field->type = CVX_TYPE_UNSEEN;
	for (uint32 i = 0; branches != NULL && JsonContainerIsArray(branches) &&
		 i < JsonContainerSize(branches); i++)
	{
		JsonbValue *entry = getIthJsonbValueFromContainer(branches, i);
		CvxFieldSchema branch = {0};

		read_declared(entry->type == jbvBinary ? entry->val.binary.data : NULL,
					  &branch);
		add_branch(field, &branch, &is_first);
	}
}

static void
add_branch(CvxFieldSchema *field, const CvxFieldSchema *branch, bool *is_first)
{
	field->is_nullable |= branch->is_nullable;
	field->type = cvx_schema_union(field->type, branch->type);
	if (branch->type == CVX_TYPE_UNSEEN)
		return;
	field->id_table = *is_first ? branch->id_table : NULL;
	*is_first = false;
}

static List *
read_strings(JsonbContainer *array)
{
	List	   *result = NIL;

	for (uint32 i = 0; array != NULL && JsonContainerIsArray(array) &&
		 i < JsonContainerSize(array); i++)
	{
		JsonbValue *value = getIthJsonbValueFromContainer(array, i);

		if (value->type == jbvString)
			result = lappend(result, copy_name(value));
	}
	return result;
}

static char *
copy_name(const JsonbValue *value)
{
	refuse_key(value->val.string.val, value->val.string.len);
	return copy_string(value);
}

/* The same of text that has not become jsonb. */
static char *
read_json_name(const CvxText *text)
{
	char	   *name = cvx_json_cstring(text);

	refuse_key(name, strlen(name));
	return name;
}

/*
 * A name becomes a table's or a column's, which everybody sees: a server that
 * gives the deploy key for one is not believed.
 */
static void
refuse_key(const char *name, size_t len)
{
	if (cvx_redact_is_needed(name, len))
		ereport(ERROR,
				(errcode(ERRCODE_FDW_UNABLE_TO_CREATE_REPLY),
				 errmsg("Convex server sent a deploy key as the name of a table or field"),
				 errhint("Check deployment_url, and any proxy between this PostgreSQL server and Convex.")));
}

/* The names of an object's members, in byte order of C strings. */
static List *
read_names(JsonbContainer *object)
{
	List	   *result = NIL;
	JsonbIterator *iterator;
	JsonbIteratorToken token;
	JsonbValue	value;

	if (object == NULL || !JsonContainerIsObject(object))
		return NIL;
	iterator = JsonbIteratorInit(object);
	while ((token = JsonbIteratorNext(&iterator, &value, true)) != WJB_DONE)
		if (token == WJB_KEY)
			result = lappend(result, copy_name(&value));
	return result;
}

/* A member that is an object or array; NULL when it is not. */
static JsonbContainer *
get_container(JsonbContainer *object, const char *name)
{
	JsonbValue	buffer;
	JsonbValue *value;

	if (object == NULL || !JsonContainerIsObject(object))
		return NULL;
	value = getKeyJsonValueFromContainer(object, name, strlen(name), &buffer);
	return value != NULL && value->type == jbvBinary ? value->val.binary.data :
		NULL;
}

static char *
get_string(JsonbContainer *object, const char *name)
{
	JsonbValue	buffer;
	JsonbValue *value;

	if (object == NULL || !JsonContainerIsObject(object))
		return NULL;
	value = getKeyJsonValueFromContainer(object, name, strlen(name), &buffer);
	return value != NULL && value->type == jbvString ? copy_string(value) : NULL;
}

/* The same of a name. */
static char *
get_name(JsonbContainer *object, const char *name)
{
	JsonbValue	buffer;
	JsonbValue *value;

	if (object == NULL || !JsonContainerIsObject(object))
		return NULL;
	value = getKeyJsonValueFromContainer(object, name, strlen(name), &buffer);
	return value != NULL && value->type == jbvString ? copy_name(value) : NULL;
}

static bool
get_true(JsonbContainer *object, const char *name)
{
	JsonbValue	buffer;
	JsonbValue *value;

	if (object == NULL || !JsonContainerIsObject(object))
		return false;
	value = getKeyJsonValueFromContainer(object, name, strlen(name), &buffer);
	return value != NULL && value->type == jbvBool && value->val.boolean;
}

static char *
copy_string(const JsonbValue *value)
{
	return pnstrdup(value->val.string.val, value->val.string.len);
}
