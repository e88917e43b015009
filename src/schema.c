/*
 * schema.c
 *		Which tables and fields does the server have?
 *
 * Reads the answers of get_table_column_names, json_schemas (in the encoded
 * format) and get_schema.  The answers are small and foreign: whatever is not
 * understood becomes "any", never an error.
 *
 * Everything returned lives in the current memory context.
 *
 * Room: protocol 2.2
 */
#include "postgres.h"

#include "utils/builtins.h"

#include "redact.h"
#include "schema.h"

static List *read_strings(JsonbContainer *array);
static List *read_names(JsonbContainer *object);
static void read_properties(CvxTableSchema *table, JsonbContainer *schema);
static void read_type(JsonbContainer *schema, CvxFieldSchema *field);
static void read_union(JsonbContainer *branches, CvxFieldSchema *field);
static void read_declared(JsonbContainer *validator, CvxFieldSchema *field);
static void read_declared_union(JsonbContainer *branches, CvxFieldSchema *field);
static void add_branch(CvxFieldSchema *field, const CvxFieldSchema *branch,
					   bool *is_first);
static JsonbContainer *get_container(JsonbContainer *object, const char *name);
static char *get_string(JsonbContainer *object, const char *name);
static bool get_true(JsonbContainer *object, const char *name);
static char *get_name(JsonbContainer *object, const char *name);
static char *copy_name(const JsonbValue *value);
static char *copy_string(const JsonbValue *value);
static bool has_name(List *names, const char *name);

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

/* Is this an answer of get_table_column_names? */
bool
cvx_schema_is_names(Jsonb *answer)
{
	JsonbContainer *components = get_container(&answer->root, "byComponent");
	ListCell   *lc;

	if (components == NULL || !JsonContainerIsObject(components))
		return false;
	foreach(lc, read_names(components))
	{
		JsonbContainer *tables = get_container(components, lfirst(lc));

		if (tables == NULL || !JsonContainerIsArray(tables))
			return false;
		for (uint32 i = 0; i < JsonContainerSize(tables); i++)
		{
			JsonbValue *entry = getIthJsonbValueFromContainer(tables, i);

			if (entry->type != jbvBinary ||
				get_string(entry->val.binary.data, "name") == NULL ||
				get_container(entry->val.binary.data, "columns") == NULL)
				return false;
		}
	}
	return true;
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

/*
 * The tables of get_table_column_names: a list of CvxTableSchema without
 * types.
 */
List *
cvx_schema_parse_names(Jsonb *answer)
{
	List	   *result = NIL;
	JsonbContainer *components = get_container(&answer->root, "byComponent");
	ListCell   *lc;

	foreach(lc, read_names(components))
	{
		char	   *component = lfirst(lc);
		JsonbContainer *tables = get_container(components, component);

		if (tables == NULL || !JsonContainerIsArray(tables))
			continue;
		for (uint32 i = 0; i < JsonContainerSize(tables); i++)
		{
			JsonbValue *entry = getIthJsonbValueFromContainer(tables, i);
			CvxTableSchema *table = palloc0(sizeof(CvxTableSchema));

			if (entry->type != jbvBinary ||
				(table->table = get_name(entry->val.binary.data, "name")) == NULL)
				continue;
			table->component = component;
			table->names = read_strings(get_container(entry->val.binary.data,
													  "columns"));
			result = lappend(result, table);
		}
	}
	return result;
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
		ListCell   *lc;

		if (entry->type != jbvBinary ||
			(name = get_string(entry->val.binary.data, "tableName")) == NULL ||
			(table = cvx_schema_find(tables, "", name)) == NULL)
			continue;
		type = get_container(entry->val.binary.data, "documentType");
		name = get_string(type, "type");
		if (name == NULL || strcmp(name, "object") != 0)
			continue;
		type = get_container(type, "value");
		foreach(lc, read_names(type))
		{
			CvxFieldSchema *field = NULL;
			JsonbContainer *member = get_container(type, lfirst(lc));
			ListCell   *lc2;

			foreach(lc2, table->fields)
				if (strcmp(((CvxFieldSchema *) lfirst(lc2))->name, lfirst(lc)) == 0)
					field = lfirst(lc2);
			if (field == NULL)
			{
				field = palloc0(sizeof(CvxFieldSchema));
				field->name = lfirst(lc);
				table->fields = lappend(table->fields, field);
			}
			if (!has_name(table->names, field->name))
				table->names = lappend(table->names, field->name);
			field->is_nullable = false;
			field->is_optional = get_true(member, "optional");
			field->is_declared = true;
			read_declared(get_container(member, "fieldType"), field);
		}
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

CvxTableSchema *
cvx_schema_find(List *tables, const char *component, const char *name)
{
	ListCell   *lc;

	foreach(lc, tables)
	{
		CvxTableSchema *table = lfirst(lc);

		if (strcmp(table->component, component) == 0 &&
			strcmp(table->table, name) == 0)
			return table;
	}
	return NULL;
}

/* The different components (char *) of a list of tables. */
List *
cvx_schema_components(List *tables)
{
	List	   *result = NIL;
	ListCell   *lc;

	foreach(lc, tables)
	{
		CvxTableSchema *table = lfirst(lc);

		if (!has_name(result, table->component))
			result = lappend(result, table->component);
	}
	return result;
}

/* The type of a field that holds values of both types. */
CvxType
cvx_schema_union(CvxType a, CvxType b)
{
	if (a == b || b == CVX_TYPE_UNSEEN)
		return a;
	if (a == CVX_TYPE_UNSEEN)
		return b;
	if ((a == CVX_TYPE_ID && b == CVX_TYPE_STRING) ||
		(a == CVX_TYPE_STRING && b == CVX_TYPE_ID))
		return CVX_TYPE_STRING;
	return CVX_TYPE_ANY;
}

/* The type's name as the documentation writes it. */
const char *
cvx_schema_type_name(CvxType type)
{
	switch (type)
	{
		case CVX_TYPE_UNSEEN:
			return "null";
		case CVX_TYPE_BOOLEAN:
			return "boolean";
		case CVX_TYPE_INT64:
			return "int64";
		case CVX_TYPE_FLOAT64:
			return "float64";
		case CVX_TYPE_STRING:
			return "string";
		case CVX_TYPE_ID:
			return "id";
		case CVX_TYPE_BYTES:
			return "bytes";
		case CVX_TYPE_ARRAY:
			return "array";
		case CVX_TYPE_OBJECT:
			return "object";
		case CVX_TYPE_ANY:
			break;
	}
	return "any";
}

/* One table's JSON Schema. */
static void
read_properties(CvxTableSchema *table, JsonbContainer *schema)
{
	JsonbContainer *properties = get_container(schema, "properties");
	JsonbContainer *array = get_container(schema, "required");
	List	   *required = read_strings(array);
	ListCell   *lc;

	foreach(lc, read_names(properties))
	{
		CvxFieldSchema *field = palloc0(sizeof(CvxFieldSchema));

		field->name = lfirst(lc);
		field->is_optional = !has_name(required, field->name);
		read_type(get_container(properties, field->name), field);
		if (strcmp(field->name, "_id") == 0)
			field->type = CVX_TYPE_ID;
		table->fields = lappend(table->fields, field);
	}
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

/*
 * A name becomes a table's or a column's, which everybody sees: a server that
 * gives the deploy key for one is not believed.
 */
static char *
copy_name(const JsonbValue *value)
{
	if (cvx_redact_is_needed(value->val.string.val, value->val.string.len))
		ereport(ERROR,
				(errcode(ERRCODE_FDW_UNABLE_TO_CREATE_REPLY),
				 errmsg("Convex server sent a deploy key as the name of a table or field"),
				 errhint("Check deployment_url, and what stands between this PostgreSQL server and Convex.")));
	return copy_string(value);
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

static bool
has_name(List *names, const char *name)
{
	ListCell   *lc;

	foreach(lc, names)
		if (strcmp(lfirst(lc), name) == 0)
			return true;
	return false;
}
