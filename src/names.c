/*
 * names.c
 *		Which local name and type belongs to a table or field of Convex?
 *
 * Names that are too long, empty, equal to each other or reserved get the hash
 * of the Convex name: it does not depend on the other names.  Of equal names
 * the one that is Convex's own stays.
 *
 * Room: shape 3.7
 */
#include "postgres.h"

#include "common/hashfn.h"

#include "names.h"

static bool is_bad(const CvxLocalName *names, int n, int i,
				   const char *const *reserved, int nreserved);
static bool is_taken(const CvxLocalName *names, int n, int i,
					 const char *const *reserved, int nreserved);
static char *with_hash(const char *name, const char *source, uint32 seed);

/* Change what must be changed; new names live in the current context. */
void
cvx_names_make_unique(CvxLocalName *names, int n, const char *const *reserved,
					  int nreserved)
{
	bool	   *bad = palloc(sizeof(bool) * Max(n, 1));

	for (int i = 0; i < n; i++)
		bad[i] = is_bad(names, n, i, reserved, nreserved);
	for (int i = 0; i < n; i++)
	{
		char	   *wanted = names[i].name;

		/* A hash could be another name, or hash. */
		for (uint32 seed = 0; bad[i] &&
			 (seed == 0 || is_taken(names, n, i, reserved, nreserved)); seed++)
			names[i].name = with_hash(wanted, names[i].source, seed);
	}
	pfree(bad);
}

/* The type of a column that shows a field of this type. */
const char *
cvx_names_type(const char *field, CvxType type)
{
	if (strcmp(field, "_creationTime") == 0)
		return "pg_catalog.timestamptz";
	switch (type)
	{
		case CVX_TYPE_BOOLEAN:
			return "pg_catalog.bool";
		case CVX_TYPE_INT64:
			return "pg_catalog.int8";
		case CVX_TYPE_FLOAT64:
			return "pg_catalog.float8";
		case CVX_TYPE_STRING:
		case CVX_TYPE_ID:
			return "pg_catalog.text";
		case CVX_TYPE_BYTES:
			return "pg_catalog.bytea";
		default:
			return "pg_catalog.jsonb";
	}
}

static bool
is_bad(const CvxLocalName *names, int n, int i, const char *const *reserved,
	   int nreserved)
{
	const char *name = names[i].name;

	if (name[0] == '\0' || strlen(name) >= NAMEDATALEN)
		return true;
	for (int r = 0; r < nreserved; r++)
		if (strcmp(name, reserved[r]) == 0)
			return true;
	for (int other = 0; other < n; other++)
		if (other != i && strcmp(names[other].name, name) == 0 &&
			strcmp(name, names[i].source) != 0)
			return true;
	return false;
}

static bool
is_taken(const CvxLocalName *names, int n, int i, const char *const *reserved,
		 int nreserved)
{
	for (int r = 0; r < nreserved; r++)
		if (strcmp(names[i].name, reserved[r]) == 0)
			return true;
	for (int other = 0; other < n; other++)
		if (other != i && strcmp(names[other].name, names[i].name) == 0)
			return true;
	return false;
}

static char *
with_hash(const char *name, const char *source, uint32 seed)
{
	return psprintf("%.*s_%08x", NAMEDATALEN - 1 - 9, name[0] ? name : "field",
					hash_bytes((const unsigned char *) source,
							   strlen(source)) + seed);
}
