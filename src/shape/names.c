/*
 * names.c
 *		Which local name and type belongs to a table or field of Convex?
 *
 * Names that are too long, empty, equal to each other or reserved get the hash
 * of the Convex name: it does not depend on the other names.  Of equal names
 * the one that is Convex's own stays.
 *
 * Room: shape 3.13
 */
#include "postgres.h"

#include "common/hashfn.h"
#include "miscadmin.h"

#include "shape/names.h"

/* A count that no number of names reaches, nor leaves. */
#define RESERVED		((uintptr_t) 1 << 30)
#define IS_RESERVED(n)	((n) > RESERVED / 2)

static char *with_hash(const char *name, const char *source, uint32 seed);

const char *const cvx_names_reserved[CVX_NAMES_RESERVED] = {
	"tableoid", "ctid", "xmin", "cmin", "xmax", "cmax",
	"_id", "_ts", "_extra", "_deleted", "_deleted_at", "_document", "_creationTime"
};

/* Change what must be changed; new names live in the current context. */
void
cvx_names_make_unique(CvxLocalName *names, int n, const char *const *reserved,
					  int nreserved)
{
	HTAB	   *counts = cvx_schema_map(n + nreserved);
	bool	   *bad = palloc(sizeof(bool) * Max(n, 1));

	/* How many have a name; one that is reserved has none to give. */
	for (int i = 0; i < n; i++)
		++*(uintptr_t *) cvx_schema_slot(counts, names[i].name, NULL);
	for (int i = 0; i < n; i++)
	{
		const char *name = names[i].name;
		uintptr_t	count = *(uintptr_t *) cvx_schema_slot(counts, name, NULL);

		bad[i] = name[0] == '\0' || strlen(name) >= NAMEDATALEN ||
			(count > 1 && strcmp(name, names[i].source) != 0);
	}
	for (int r = 0; r < nreserved; r++)
		*(uintptr_t *) cvx_schema_slot(counts, reserved[r], NULL) = RESERVED;
	for (int i = 0; i < n; i++)
	{
		char	   *wanted = names[i].name;
		uintptr_t  *count = (uintptr_t *) cvx_schema_slot(counts, wanted, NULL);

		CHECK_FOR_INTERRUPTS();
		if (!bad[i] && !IS_RESERVED(*count))
			continue;
		--*count;

		/* A hash could be another name, or hash. */
		for (uint32 seed = 0;; seed++)
		{
			names[i].name = with_hash(wanted, names[i].source, seed);
			count = (uintptr_t *) cvx_schema_slot(counts, names[i].name, NULL);
			if (*count == 0)
				break;
		}
		++*count;
	}
	hash_destroy(counts);
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

static char *
with_hash(const char *name, const char *source, uint32 seed)
{
	return psprintf("%.*s_%08x", NAMEDATALEN - 1 - 9, name[0] ? name : "field",
					hash_bytes((const unsigned char *) source,
							   strlen(source)) + seed);
}
