/*
 * sub_catalog.c
 *		Where is a subscription's state kept?
 *
 * In four tables in the extension's schema, which belong to the extension's
 * owner.  Everything here runs as that owner, under a search_path of
 * pg_catalog alone, and within a transaction and SPI that the caller has
 * begun.  "@." in a statement stands for the extension's schema, save in quotes.
 *
 * Room: subscription 5.1
 */
#include "postgres.h"

#include "access/table.h"
#include "catalog/dependency.h"
#include "catalog/namespace.h"
#include "catalog/pg_extension.h"
#include "commands/extension.h"
#include "common/hashfn.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"

#include "ground/compat.h"
#include "subscription/sub_catalog.h"

/* Arguments of one statement. */
#define MAX_ARGUMENTS	32

/* Plans that are kept. */
#define MAX_PLANS		500

typedef struct KeptPlan
{
	char	   *sql;
	uint32		hash;
	SPIPlanPtr	plan;
} KeptPlan;

/* Written by cvx_catalog_plan(). */
static KeptPlan plans[MAX_PLANS];
static int	nplans = 0;

/* As long as no relation has changed; written by this file. */
static Oid	known_schema = InvalidOid;

/* Set while this file writes: what else inserts is a restore. */
static bool is_writing = false;

static Oid	catalog_owner(void);
static void read_argument(char letter, va_list *args, Oid *type, Datum *value,
						  char *null);
static int	execute(const char *sql, int n, Oid *types, Datum *values,
					const char *nulls);
static bool is_cacheable(const char *sql);
static void forget_schema(Datum arg, int cacheid, uint32 hash);
static Oid	extension_schema(void);
static char *expand(const char *sql);

/* Is the catalog being written by the library itself? */
bool
cvx_catalog_is_writing(void)
{
	return is_writing;
}

/*
 * Run a statement on the catalog as its owner.  types has a letter for each
 * argument: i int4, l int64, n int64 with 0 as NULL, b boolean, o oid, t text
 * or NULL, j Jsonb or NULL.  The result is in SPI's variables.
 */
void
cvx_catalog_run(int expected, const char *sql, const char *types,...)
{
	Oid			argtypes[MAX_ARGUMENTS];
	Datum		values[MAX_ARGUMENTS];
	char		nulls[MAX_ARGUMENTS];
	int			rc;
	int			nest = 0;
	Oid			userid;
	int			context;
	va_list		args;

	va_start(args, types);
	for (int n = 0; types[n]; n++)
		read_argument(types[n], &args, &argtypes[n], &values[n], &nulls[n]);
	va_end(args);

	/*
	 * Named last, the caller's temporary types do not come first.  Within a
	 * step all is set already, but for the notices of utility statements.
	 */
	if (expected == SPI_OK_UTILITY ||
		strcmp(namespace_search_path, "pg_catalog, pg_temp") != 0)
	{
		nest = NewGUCNestLevel();
		(void) set_config_option("search_path", "pg_catalog, pg_temp", PGC_USERSET,
								 PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
		(void) set_config_option("client_min_messages", "warning", PGC_USERSET,
								 PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
	}
	GetUserIdAndSecContext(&userid, &context);
	SetUserIdAndSecContext(catalog_owner(),
						   context | SECURITY_LOCAL_USERID_CHANGE);
	rc = execute(expand(sql), strlen(types), argtypes, values, nulls);
	SetUserIdAndSecContext(userid, context);
	if (nest > 0)
		AtEOXact_GUC(true, nest);
	if (expected != 0 && rc != expected)
		elog(ERROR, "unexpected result %d of: %s", rc, sql);
}

/*
 * Read the catalog, with SPI connected, for functions that wait afterwards: the
 * locks are given back at once, or else DROP EXTENSION would wait for them, and
 * behind that the worker that is waited for.  What look() keeps, it keeps in
 * *arg.  Not in a subtransaction, whose end ends waits for a condition, too.
 */
void
cvx_catalog_look(void (*look) (void *arg), void *arg)
{
	ResourceOwner previous = CurrentResourceOwner;
	ResourceOwner owner = ResourceOwnerCreate(previous, "convex look");

	/* Without locks nothing else tells that the extension was dropped. */
	AcceptInvalidationMessages();

	/* An error leaves it to the end of the transaction. */
	CurrentResourceOwner = owner;
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	look(arg);
	SPI_finish();
	CurrentResourceOwner = previous;
	ResourceOwnerRelease(owner, RESOURCE_RELEASE_BEFORE_LOCKS, false, false);
	ResourceOwnerRelease(owner, RESOURCE_RELEASE_LOCKS, false, false);
	ResourceOwnerRelease(owner, RESOURCE_RELEASE_AFTER_LOCKS, false, false);
	ResourceOwnerDelete(owner);
}

/*
 * The plan of a statement, kept for the life of the process as long as there
 * are not too many.  The same text must always come with the same types.
 */
SPIPlanPtr
cvx_catalog_plan(const char *sql, int n, Oid *types)
{
	uint32		hash = hash_bytes((const unsigned char *) sql, strlen(sql));
	SPIPlanPtr	plan;
	KeptPlan   *entry;

	for (int i = 0; i < nplans; i++)
		if (plans[i].hash == hash && strcmp(plans[i].sql, sql) == 0)
			return plans[i].plan;
	plan = SPI_prepare(sql, n, types);
	if (plan == NULL)
		elog(ERROR, "cannot prepare: %s", sql);
	if (nplans == MAX_PLANS || !is_cacheable(sql))
		return plan;
	SPI_keepplan(plan);
	entry = &plans[nplans];
	entry->sql = MemoryContextStrdup(TopMemoryContext, sql);
	entry->hash = hash;
	entry->plan = plan;
	nplans++;
	return plan;
}

/* Statements that change or read rows; not those that make objects. */
static bool
is_cacheable(const char *sql)
{
	static const char *const words[] = {"SELECT ", "INSERT ", "UPDATE ", "DELETE "};

	for (int i = 0; i < lengthof(words); i++)
		if (strncmp(sql, words[i], 7) == 0)
			return true;
	return false;
}

/* A column of a row that cvx_catalog_run() found; NULL for NULL. */
char *
cvx_catalog_text(uint64 row, int column)
{
	return SPI_getvalue(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, column);
}

/* The same as a number; 0 for NULL. */
int64
cvx_catalog_int64(uint64 row, int column)
{
	bool		isnull;
	Oid			type = SPI_gettypeid(SPI_tuptable->tupdesc, column);
	Datum		datum = SPI_getbinval(SPI_tuptable->vals[row],
									  SPI_tuptable->tupdesc, column, &isnull);

	if (isnull)
		return 0;
	if (type == INT8OID || type == TIMESTAMPTZOID)
		return DatumGetInt64(datum);
	return type == OIDOID ? (int64) DatumGetObjectId(datum) :
		(int64) DatumGetInt32(datum);
}

bool
cvx_catalog_bool(uint64 row, int column)
{
	bool		isnull;
	Datum		datum = SPI_getbinval(SPI_tuptable->vals[row],
									  SPI_tuptable->tupdesc, column, &isnull);

	return !isnull && DatumGetBool(datum);
}

/* The table convex_subscription; invalid when the extension is not there. */
Oid
cvx_catalog_relid(void)
{
	Oid			schema = extension_schema();

	return OidIsValid(schema) ?
		get_relname_relid("convex_subscription", schema) : InvalidOid;
}

/* Is this a table of the catalog? */
bool
cvx_catalog_has_table(Relation relation)
{
	return RelationGetNamespace(relation) == extension_schema() &&
		getExtensionOfObject(RelationRelationId, RelationGetRelid(relation)) ==
		get_extension_oid("convex_fdw", true);
}

/* The role that the catalog belongs to. */
static Oid
catalog_owner(void)
{
	Oid			relid = cvx_catalog_relid();
	HeapTuple	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(relid));
	Oid			owner;

	if (!HeapTupleIsValid(tuple))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("extension \"convex_fdw\" is not installed in this database")));
	owner = ((Form_pg_class) GETSTRUCT(tuple))->relowner;
	ReleaseSysCache(tuple);
	return owner;
}

/* The number of a subscription; 0 when there is none of this name. */
int32
cvx_catalog_find(const char *name)
{
	cvx_catalog_run(SPI_OK_SELECT, "SELECT subid FROM @.convex_subscription WHERE name = $1::name",
					"t", name);
	return SPI_processed == 1 ? (int32) cvx_catalog_int64(0, 1) : 0;
}

/*
 * Which catalog this is, of which cluster: OIDs in its rows count here and
 * nowhere else.  A copy of the database by CREATE DATABASE is here, too.
 */
char *
cvx_catalog_home(void)
{
	return psprintf(INT64_FORMAT "/%u", (int64) GetSystemIdentifier(),
					cvx_catalog_relid());
}

/* A server of this wrapper by its name; NULL when there is none. */
ForeignServer *
cvx_catalog_server(const char *name)
{
	ForeignServer *server = GetForeignServerByName(name, true);

	return server && cvx_options_is_ours(server->serverid) ? server : NULL;
}

/* Where a table is loaded: a table in the schema convex_staging. */
char *
cvx_catalog_staging(const CvxSubscription *sub, const CvxSubRel *rel)
{
	return psprintf("s%d_%d", sub->subid, rel->relno);
}

/*
 * Its locks last until the transaction ends: where tables may be many, a step
 * leaves what is of no use to cvx_load_sweep().
 */
void
cvx_catalog_drop_staging(const CvxSubscription *sub, const CvxSubRel *rel)
{
	if (rel->is_staged)
		cvx_catalog_run(SPI_OK_UTILITY,
						psprintf("DROP TABLE IF EXISTS convex_staging.%s",
								 cvx_catalog_staging(sub, rel)), "");
}

/* The process that steps a subscription; 0 when there is none. */
int
cvx_catalog_pid(int32 subid)
{
	cvx_catalog_run(SPI_OK_SELECT,
					"SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND granted AND classid = $1"
					" AND objid = $2 AND objsubid = 11"
					" AND database = (SELECT oid FROM pg_database WHERE datname = current_database())",
					"oo", cvx_catalog_relid(), (Oid) subid);
	return SPI_processed > 0 ? (int) cvx_catalog_int64(0, 1) : 0;
}

static void
read_argument(char letter, va_list *args, Oid *type, Datum *value, char *null)
{
	const char *text;
	Jsonb	   *jsonb;

	*null = ' ';
	switch (letter)
	{
		case 'i':
			*type = INT4OID;
			*value = Int32GetDatum(va_arg(*args, int32));
			break;
		case 'l':
		case 'n':
			*type = INT8OID;
			*value = Int64GetDatum(va_arg(*args, int64));
			if (letter == 'n' && DatumGetInt64(*value) == 0)
				*null = 'n';
			break;
		case 'b':
			*type = BOOLOID;
			*value = BoolGetDatum((bool) va_arg(*args, int));
			break;
		case 'o':
			*type = OIDOID;
			*value = ObjectIdGetDatum(va_arg(*args, Oid));
			break;
		case 't':
			text = va_arg(*args, const char *);
			*type = TEXTOID;
			*value = text ? CStringGetTextDatum(text) : (Datum) 0;
			if (text == NULL)
				*null = 'n';
			break;
		case 'j':
			jsonb = va_arg(*args, Jsonb *);
			*type = JSONBOID;
			*value = PointerGetDatum(jsonb);
			if (jsonb == NULL)
				*null = 'n';
			break;
		default:
			elog(ERROR, "unknown argument type %c", letter);
	}
}

/* The flag is_writing holds while the statement runs, whatever happens. */
static int
execute(const char *sql, int n, Oid *types, Datum *values, const char *nulls)
{
	MemoryContext cxt = CurrentMemoryContext;
	SPIPlanPtr	plan = cvx_catalog_plan(sql, n, types);
	volatile int rc = 0;

	PG_TRY();
	{
		is_writing = true;
		rc = SPI_execute_plan(plan, values, nulls, false, 0);
	}
	PG_FINALLY();
	{
		is_writing = false;
	}
	PG_END_TRY();

	/* SPI leaves its own context behind. */
	MemoryContextSwitchTo(cxt);
	return rc;
}

/* What is known of the schema may be wrong from now on. */
static void
forget_schema(Datum arg, int cacheid, uint32 hash)
{
	known_schema = InvalidOid;
}

/*
 * The extension's schema; when it is not there, none.  The extension cannot
 * go or move without its tables.
 */
static Oid
extension_schema(void)
{
	static bool is_listening = false;
	Relation	rel;
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;
	Oid			schema = InvalidOid;

	if (!is_listening)
		CacheRegisterSyscacheCallback(RELOID, forget_schema, (Datum) 0);
	is_listening = true;
	if (OidIsValid(known_schema))
		return known_schema;
	rel = table_open(ExtensionRelationId, AccessShareLock);
	ScanKeyInit(&key, Anum_pg_extension_extname, BTEqualStrategyNumber,
				F_NAMEEQ, CStringGetDatum("convex_fdw"));
	scan = systable_beginscan(rel, ExtensionNameIndexId, true, NULL, 1, &key);
	tuple = systable_getnext(scan);
	if (HeapTupleIsValid(tuple))
		schema = ((Form_pg_extension) GETSTRUCT(tuple))->extnamespace;
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	known_schema = schema;
	return schema;
}

/*
 * The statement with the extension's schema for each "@.".  What is quoted is
 * left alone: names of users come as identifiers or literals, and one that
 * holds "@" is always quoted.  A quote within quotes is written twice, and so
 * ends and begins them.
 */
static char *
expand(const char *sql)
{
	StringInfoData buf;
	const char *schema = NULL;
	char		quote = '\0';

	initStringInfo(&buf);
	for (const char *p = sql; *p; p++)
	{
		if (quote == '\0' && (*p == '"' || *p == '\''))
			quote = *p;
		else if (*p == quote)
			quote = '\0';
		if (quote != '\0' || p[0] != '@' || p[1] != '.')
		{
			appendStringInfoChar(&buf, *p);
			continue;
		}
		if (schema == NULL)
			schema = quote_identifier(get_namespace_name(extension_schema()));
		appendStringInfoString(&buf, schema);
	}
	return buf.data;
}

