/*
 * schema.c
 *		How is it kept which tables and fields there are?
 *
 * What a server lists may be long: nothing is looked for in a list, save one
 * table.
 *
 * Room: protocol 2.2
 */
#include "postgres.h"

#include "common/hashfn.h"

#include "protocol/schema.h"

/* An entry of cvx_schema_map(). */
typedef struct NamedSlot
{
	const char *name;
	void	   *value;
} NamedSlot;

static uint32 hash_name(const void *key, Size size);
static int	match_name(const void *a, const void *b, Size size);

/* A table of a list; NULL: it is not there. */
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

/*
 * A map from names, in the current context; what a server lists may be long.
 */
HTAB *
cvx_schema_map(long nnames)
{
	HASHCTL		control = {0};

	control.keysize = sizeof(const char *);
	control.entrysize = sizeof(NamedSlot);
	control.hash = hash_name;
	control.match = match_name;
	control.hcxt = CurrentMemoryContext;
	return hash_create("convex names", Max(nnames, 16), &control,
					   HASH_ELEM | HASH_FUNCTION | HASH_COMPARE | HASH_CONTEXT);
}

/* Where the map keeps something for a name, which is not copied. */
void **
cvx_schema_slot(HTAB *map, const char *name, bool *is_new)
{
	bool		is_known;
	NamedSlot  *slot = hash_search(map, &name, HASH_ENTER, &is_known);

	if (!is_known)
		slot->value = NULL;
	if (is_new)
		*is_new = !is_known;
	return &slot->value;
}

/* What the map keeps for a name; NULL: it is not there. */
void *
cvx_schema_find_slot(HTAB *map, const char *name)
{
	NamedSlot  *slot = hash_search(map, &name, HASH_FIND, NULL);

	return slot ? slot->value : NULL;
}

/* The different components (char *) of a list of tables. */
List *
cvx_schema_components(List *tables)
{
	List	   *result = NIL;
	HTAB	   *seen = cvx_schema_map(16);
	ListCell   *lc;

	foreach(lc, tables)
	{
		CvxTableSchema *table = lfirst(lc);
		bool		is_new;

		(void) cvx_schema_slot(seen, table->component, &is_new);
		if (is_new)
			result = lappend(result, table->component);
	}
	hash_destroy(seen);
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

static uint32
hash_name(const void *key, Size size)
{
	const char *name = *(const char *const *) key;

	return hash_bytes((const unsigned char *) name, strlen(name));
}

static int
match_name(const void *a, const void *b, Size size)
{
	return strcmp(*(const char *const *) a, *(const char *const *) b);
}
