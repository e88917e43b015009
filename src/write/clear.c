/*
 * clear.c
 *		May these tables be emptied?
 *
 * Convex makes a table that it is told to clear and does not have, and changes
 * a name that it does not like.  So a name is sent only when it is known.
 *
 * Room: write 4.7
 */
#include "postgres.h"

#include "ground/compat.h"
#include "protocol/api.h"
#include "protocol/schema_read.h"
#include "shape/options_declare.h"
#include "write/clear.h"

/* convex_fdw.allow_unchecked_clear, by the GUC machinery */
static bool allow_unchecked_clear = false;

/* Set once at load by the room that mirrors tables. */
static CvxClearListener clear_listener = NULL;

/* Be told when a transaction empties or replaces tables. */
void
cvx_clear_listen(CvxClearListener listener)
{
	clear_listener = listener;
}

/*
 * This transaction empties or replaces tables of a server.  Convex's change
 * log will not say so.
 */
void
cvx_clear_announce(Oid serverid)
{
	if (clear_listener)
		clear_listener(serverid);
}

/* Called once when the library is loaded. */
void
cvx_clear_init(void)
{
	DefineCustomBoolVariable("convex_fdw.allow_unchecked_clear",
							 "Clears Convex tables although their names cannot be checked.",
							 "Convex creates a table of a name that it does not have.",
							 &allow_unchecked_clear, false,
							 PGC_USERSET, 0, NULL, NULL, NULL);
}

/*
 * Throws 22023 for a name that no table can have, HV00R for one that the
 * deployment does not have, and 42501 when the key may see neither its tables
 * nor its declared schema, unless convex_fdw.allow_unchecked_clear is on.
 */
void
cvx_clear_check_names(CvxHttp *http, const char *const *tables, int ntables)
{
	const char *server = cvx_http_remote(http)->server_name;
	bool		is_readable;
	List	   *known;
	Jsonb	   *declared = NULL;

	for (int i = 0; i < ntables; i++)
		if (!cvx_options_is_table_name(tables[i]))
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("\"%s\" cannot be the name of a Convex table",
							tables[i]),
					 errhint("Names are letters, digits and \"_\", begin with a letter, and have at most 64 characters; only tables of the root component can be cleared.")));

	known = cvx_api_tables(http, &is_readable);
	if (!is_readable)
		declared = cvx_api_declared_schema(http);
	if (!is_readable && declared == NULL)
	{
		if (allow_unchecked_clear)
			return;
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("the tables of Convex server \"%s\" cannot be listed, so names cannot be checked",
						server),
				 errdetail("Convex would create a table that it does not have."),
				 errhint("Use a deploy key that allows deployment:data:view, or set convex_fdw.allow_unchecked_clear if you are certain of the names.")));
	}
	for (int i = 0; i < ntables; i++)
	{
		if (is_readable ? cvx_schema_find(known, "", tables[i]) != NULL :
			cvx_schema_declares(declared, tables[i]))
			continue;
		ereport(ERROR,
				(errcode(ERRCODE_FDW_TABLE_NOT_FOUND),
				 errmsg("Convex server \"%s\" has no table \"%s\"", server,
						tables[i]),
				 errdetail("Convex would create it."),
				 errhint("convex_tables() lists the tables.")));
	}
}
