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

#include "access/genam.h"
#include "access/table.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/dependency.h"
#include "catalog/indexing.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "catalog/pg_extension.h"
#include "catalog/pg_type.h"
#include "commands/extension.h"
#include "common/hashfn.h"
#include "executor/spi.h"
#include "foreign/foreign.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/resowner.h"
#include "utils/syscache.h"

#include "ground/compat.h"
#include "write/clear.h"
#include "shape/names.h"
#include "ground/redact.h"
#include "protocol/schema_read.h"
#include "subscription/sub.h"

/* Events of one subscription that are kept. */
#define KEPT_EVENTS		1000

/* Drifts of one table that are told one by one: more is a flood. */
#define KEPT_DRIFTS		1000

/* Columns of a table that schema_evolution stops at. */
#define MAX_COLUMNS		250

/* Arguments of one statement. */
#define MAX_ARGUMENTS	32

/* Plans that are kept. */
#define MAX_PLANS		500

/* The values that an interval may have. */
typedef struct IntervalRange
{
	double		least_ms;
	double		most_ms;
	const char *text;
} IntervalRange;

/* Shorter ones would be a flood of requests, longer ones never end. */
static const IntervalRange poll_range = {50, 86400e3, "50 ms to 1 day"};
static const IntervalRange check_range = {10e3, 30 * 86400e3, "10 s to 30 days"};

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

static void want_checks(Oid serverid);
static void read_argument(char letter, va_list *args, Oid *type, Datum *value,
						  char *null);
static int	execute(const char *sql, int n, Oid *types, Datum *values,
					const char *nulls);
static bool is_cacheable(const char *sql);
static void forget_schema(Datum arg, int cacheid, uint32 hash);
static Oid	extension_schema(void);
static char *expand(const char *sql);
static Jsonb *copy_jsonb(uint64 row, int column);
static char *copy_text(uint64 row, int column);
static void read_options(CvxSubscription *sub, Jsonb *options);
static char *option_text(Jsonb *options, const char *name);
static List *option_names(Jsonb *options, const char *name);
static bool is_choice(const char *choices, const char *text);
static double interval_ms(const Interval *interval);
static Interval *interval_of(const char *text);
static void check_interval(const char *name, const Interval *interval,
						   const IntervalRange *range);
static int	poll_ms(const char *text);
static void find_owner(CvxSubscription *sub, Oid oid);
static void find_server(CvxSubscription *sub, Oid oid);
static void load_rels(CvxSubscription *sub);
static void follow_target(CvxSubscription *sub, CvxSubRel *rel, Oid oid);
static bool is_selected(List *patterns, const CvxTableSchema *table);
static CvxSubRel *find_rel(CvxSubscription *sub, const CvxTableSchema *table);
static void name_targets(CvxSubscription *sub, List *tables, bool is_first);
static void add_table(CvxSubscription *sub, const CvxTableSchema *table,
					  const char *target, int relno, bool is_first);
static Jsonb *make_columns(const CvxTableSchema *table);

/* Called once when the library is loaded. */
void
cvx_catalog_init(void)
{
	cvx_clear_listen(want_checks);
}

/*
 * Tables of a server's deployment are swapped by this transaction: once it has
 * committed, every subscription to the deployment looks for it.
 */
static void
want_checks(Oid serverid)
{
	if (!OidIsValid(cvx_catalog_relid()))
		return;
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");

	/*
	 * An insertion never meets the worker, whatever the isolation level.  A
	 * subscription that is enabled later looks for it anyway.
	 */
	cvx_catalog_run(SPI_OK_INSERT,
					"INSERT INTO @.convex_subscription_event (subid, kind, detail)"
					" SELECT s.subid, 'swap_announced', 'a transaction of this database empties or replaces tables'"
					" FROM @.convex_subscription AS s, pg_foreign_server AS theirs, pg_foreign_server AS ours"
					" WHERE s.enabled AND s.home = $2 AND theirs.oid = s.server_oid AND ours.oid = $1"
					" AND (SELECT option_value FROM pg_options_to_table(theirs.srvoptions) WHERE option_name = 'deployment_url')"
					" = (SELECT option_value FROM pg_options_to_table(ours.srvoptions) WHERE option_name = 'deployment_url')",
					"ot", serverid, cvx_catalog_home());
	SPI_finish();
}

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
	SetUserIdAndSecContext(cvx_catalog_owner(),
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
Oid
cvx_catalog_owner(void)
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

/*
 * A subscription with its state and tables, in the current context; NULL when
 * it is gone.  Role, server and targets are those that it was made with, under
 * whatever names now: one that is gone is invalid in it, even if another has
 * its name.  Where the OIDs are not of this catalog, as after a restore, names
 * count, and the subscription is disabled.  Writes nothing.
 */
CvxSubscription *
cvx_catalog_load(int32 subid)
{
	MemoryContext cxt = CurrentMemoryContext;
	CvxSubscription *sub;
	Oid			owner_oid;
	Oid			server_oid;
	char	   *mode;
	Jsonb	   *options;
	Datum	   *elements;
	int			nelements;
	bool		isnull;

	cvx_catalog_run(SPI_OK_SELECT,
					"SELECT s.name::text, s.server::text, s.owner::text, s.owner_oid, s.enabled,"
					" s.tables, s.target_schema::text, s.mode, s.poll_interval::text,"
					" s.options, st.generation, st.phase, st.cursor, st.reload, st.snapshot,"
					" st.page_cursor, st.load_restarts,"
					" st.check_wanted OR EXISTS (SELECT FROM @.convex_subscription_event AS e"
					" WHERE e.subid = s.subid AND e.kind = 'swap_announced') OR st.checked_at IS NULL OR st.checked_at +"
					" greatest(coalesce(s.options ->> 'table_check_interval', '1 h')::interval, '10 s') <= now(),"
					" st.failures, st.shown_from, st.deployment_url, s.server_oid, coalesce(s.home = $2, false)"
					" FROM @.convex_subscription AS s JOIN @.convex_subscription_state AS st USING (subid)"
					" WHERE subid = $1", "it", subid, cvx_catalog_home());
	if (SPI_processed != 1)
		return NULL;
	sub = MemoryContextAllocZero(cxt, sizeof(CvxSubscription));
	sub->subid = subid;
	sub->name = copy_text(0, 1);
	sub->server = copy_text(0, 2);
	sub->owner_name = copy_text(0, 3);
	owner_oid = (Oid) cvx_catalog_int64(0, 4);
	sub->is_enabled = cvx_catalog_bool(0, 5);
	deconstruct_array(DatumGetArrayTypePCopy(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 6, &isnull)),
					  TEXTOID, -1, false, TYPALIGN_INT, &elements, NULL, &nelements);
	MemoryContextSwitchTo(cxt);
	for (int i = 0; i < nelements; i++)
		sub->patterns = lappend(sub->patterns, TextDatumGetCString(elements[i]));
	sub->target_schema = copy_text(0, 7);
	mode = copy_text(0, 8);
	sub->mode = strcmp(mode, "history") == 0 ? CVX_MODE_HISTORY :
		strcmp(mode, "soft_delete") == 0 ? CVX_MODE_SOFT_DELETE : CVX_MODE_MIRROR;
	sub->poll_ms = poll_ms(cvx_catalog_text(0, 9));
	options = copy_jsonb(0, 10);
	sub->generation = cvx_catalog_int64(0, 11);
	sub->phase = copy_text(0, 12);
	sub->cursor = cvx_catalog_int64(0, 13);
	sub->is_reloading = cvx_catalog_bool(0, 14);
	sub->snapshot = cvx_catalog_int64(0, 15);
	sub->page_cursor = copy_text(0, 16);
	sub->load_restarts = (int) cvx_catalog_int64(0, 17);
	sub->is_check_due = cvx_catalog_bool(0, 18);
	sub->failures = (int) cvx_catalog_int64(0, 19);
	sub->shown_from = cvx_catalog_int64(0, 20);
	sub->deployment_url = copy_text(0, 21);

	server_oid = (Oid) cvx_catalog_int64(0, 22);
	sub->is_bound = cvx_catalog_bool(0, 23);
	sub->is_enabled &= sub->is_bound;
	find_owner(sub, owner_oid);
	find_server(sub, server_oid);
	if (OidIsValid(sub->serverid))
		sub->table_options = *cvx_options_server(sub->serverid);
	sub->table_options.on_misfit = CVX_MISFIT_NULL;
	sub->table_options.nul_handling = CVX_NUL_REPLACE;
	read_options(sub, options);
	load_rels(sub);
	return sub;
}

static void
find_owner(CvxSubscription *sub, Oid oid)
{
	char	   *name;

	if (!sub->is_bound)
	{
		sub->owner = get_role_oid(sub->owner_name, true);
		return;
	}
	name = GetUserNameFromId(oid, true);
	if (name == NULL)
		return;
	sub->owner = oid;
	sub->is_moved |= strcmp(name, sub->owner_name) != 0;
	sub->owner_name = name;
}

static void
find_server(CvxSubscription *sub, Oid oid)
{
	ForeignServer *server = sub->is_bound ?
		GetForeignServerExtended(oid, FSV_MISSING_OK) :
		cvx_catalog_server(sub->server);

	if (server == NULL)
		return;
	sub->serverid = server->serverid;
	sub->is_moved |= strcmp(server->servername, sub->server) != 0;
	sub->server = server->servername;
}

/* Write down what has been renamed or moved, and targets that are known. */
void
cvx_catalog_follow(CvxSubscription *sub)
{
	ListCell   *lc;

	if (!sub->is_bound)
		return;
	if (sub->is_moved)
		cvx_catalog_run(0, "UPDATE @.convex_subscription SET owner = $2::name, server = $3::name WHERE subid = $1",
						"itt", sub->subid, sub->owner_name, sub->server);
	sub->is_moved = false;
	foreach(lc, sub->rels)
	{
		CvxSubRel  *rel = lfirst(lc);

		/* One that has joined was this subscription's when it was dumped. */
		if (rel->is_moved ||
			(!rel->is_bound && OidIsValid(rel->target) &&
			 rel->state != CVX_REL_JOINING))
			cvx_catalog_bind_target(sub, rel);
	}
}

/* The names of role and server count from now on, as what they are here. */
void
cvx_catalog_bind(const CvxSubscription *sub)
{
	cvx_catalog_run(SPI_OK_UPDATE,
					"UPDATE @.convex_subscription SET owner_oid = $2, server_oid = $3, home = $4 WHERE subid = $1",
					"ioot", sub->subid, sub->owner, sub->serverid,
					cvx_catalog_home());
	cvx_catalog_run(0,
					"UPDATE @.convex_subscription_rel SET target_oid = 0 WHERE subid = $1",
					"i", sub->subid);
}

/* This table is the target from now on, whatever becomes of its name. */
void
cvx_catalog_bind_target(const CvxSubscription *sub, CvxSubRel *rel)
{
	cvx_catalog_run(SPI_OK_UPDATE,
					"UPDATE @.convex_subscription_rel SET target_oid = $3, target_schema = $4::name,"
					" target_name = $5::name WHERE subid = $1 AND relno = $2",
					"iiott", sub->subid, rel->relno, rel->target,
					rel->target_schema, rel->target_name);
	rel->is_bound = true;
	rel->is_moved = false;
}

/* Note an event; the oldest ones are forgotten. */
void
cvx_catalog_event(int32 subid, const char *kind, const CvxSubRel *rel,
				  const char *detail)
{
	cvx_catalog_run(SPI_OK_INSERT,
					"INSERT INTO @.convex_subscription_event (subid, kind, component, table_name, detail)"
					" VALUES ($1, $2, $3, $4, $5)", "itttt", subid, kind,
					rel ? rel->component : NULL, rel ? rel->table : NULL,
					detail ? cvx_redact_message(detail) : NULL);
	cvx_catalog_trim_events(subid);
}

/*
 * Forget old events.  Drifts have a bound of their own, because each is told
 * once; what is announced must be seen by a check before it may go.
 */
void
cvx_catalog_trim_events(int32 subid)
{
	cvx_catalog_run(SPI_OK_DELETE,
					"DELETE FROM @.convex_subscription_event WHERE subid = $1 AND kind NOT IN ('drift', 'swap_announced')"
					" AND eventid <= (SELECT eventid FROM @.convex_subscription_event WHERE subid = $1"
					" AND kind NOT IN ('drift', 'swap_announced') ORDER BY eventid DESC OFFSET $2 LIMIT 1)",
					"il", subid, (int64) KEPT_EVENTS);
}

/*
 * Note a drift, once for each table, field and kind of value; when there are
 * too many of a table, once that there are more.
 */
void
cvx_catalog_drift(int32 subid, const CvxSubRel *rel, const char *detail)
{
	cvx_catalog_run(SPI_OK_INSERT,
					"WITH told AS MATERIALIZED (SELECT detail FROM @.convex_subscription_event"
					" WHERE subid = $1 AND kind = 'drift' AND component = $2 AND table_name = $3)"
					" INSERT INTO @.convex_subscription_event (subid, kind, component, table_name, detail)"
					" SELECT $1, 'drift', $2, $3, new.detail FROM (SELECT CASE WHEN (SELECT count(*) FROM told) < $5"
					" THEN $4 ELSE 'and more, which is not told' END) AS new (detail)"
					" WHERE NOT EXISTS (SELECT FROM told WHERE told.detail IN ($4, new.detail))",
					"itttl", subid, rel->component, rel->table,
					cvx_redact_message(detail),
					(int64) KEPT_DRIFTS);
}

/* Change a table's row. */
void
cvx_catalog_rel(const CvxSubscription *sub, const CvxSubRel *rel,
				const char *sets)
{
	cvx_catalog_run(SPI_OK_UPDATE,
					psprintf("UPDATE @.convex_subscription_rel SET %s WHERE subid = $1 AND relno = $2", sets),
					"ii", sub->subid, rel->relno);
}

/*
 * A table could not be written: it waits, standing at synced_ts, longer each
 * time.
 */
void
cvx_catalog_rel_error(const CvxSubscription *sub, const CvxSubRel *rel,
					  int64 synced_ts, const ErrorData *error)
{
	const char *state = unpack_sql_state(error->sqlerrcode);
	bool		is_known;

	error = cvx_redact_error(error);
	cvx_catalog_run(SPI_OK_SELECT,
					"SELECT FROM @.convex_subscription_rel WHERE subid = $1 AND relno = $2 AND state = 'error'"
					" AND error_code = $3 AND error_message = $4", "iitt",
					sub->subid, rel->relno, state, error->message);
	is_known = SPI_processed > 0;
	cvx_catalog_run(SPI_OK_UPDATE,
					"UPDATE @.convex_subscription_rel SET state = 'error', error_code = $3, error_message = $4,"
					" synced_ts = CASE WHEN load IS NULL OR load = 'catching_up' THEN coalesce($5, synced_ts) ELSE synced_ts END,"
					" load = coalesce(load, 'catching_up'),"
					" attempts = attempts + 1,"
					" retry_at = clock_timestamp() + least(interval '1 s' * power(2, least(attempts, 9)), interval '5 min')"
					" WHERE subid = $1 AND relno = $2", "iittn",
					sub->subid, rel->relno, state, error->message, synced_ts);
	if (is_known)
		return;
	cvx_catalog_event(sub->subid, "table_error", rel,
					  psprintf("%s: %s", state, error->message));
	ereport(LOG,
			(errcode(error->sqlerrcode),
			 errmsg("table \"%s\" of subscription \"%s\" waits (apply): %s",
					rel->target_name, sub->name, error->message),
			 error->detail ? errdetail_internal("%s", error->detail) : 0,
			 errhidestmt(true), errhidecontext(true)));
}

/*
 * Compare the deployment's tables with the subscription's: new ones join,
 * those that are gone are dropped.  Returns how many are to be loaded now.
 */
int
cvx_catalog_add_tables(CvxSubscription *sub, List *tables, bool is_first)
{
	List	   *fresh = NIL;
	int			nreturned = 0;
	ListCell   *lc;

	foreach(lc, tables)
	{
		CvxTableSchema *table = lfirst(lc);
		CvxSubRel  *rel = find_rel(sub, table);

		if (!is_selected(sub->patterns, table))
			continue;
		if (rel == NULL)
			fresh = lappend(fresh, table);
		else if (rel->state == CVX_REL_DROPPED)
		{
			/* One that was dropped before it was loaded has no target to follow. */
			cvx_catalog_rel(sub, rel, OidIsValid(rel->target) ?
							"state = 'resyncing', load = 'wanted'" :
							"state = 'joining', load = 'wanted'");
			cvx_catalog_event(sub->subid, "table_returned", rel, NULL);
			nreturned++;
		}
	}
	name_targets(sub, fresh, is_first);
	foreach(lc, sub->rels)
	{
		CvxSubRel  *rel = lfirst(lc);
		ListCell   *lc2;
		bool		is_listed = false;

		foreach(lc2, tables)
		{
			CvxTableSchema *table = lfirst(lc2);

			is_listed |= is_selected(sub->patterns, table) &&
				strcmp(table->table, rel->table) == 0 &&
				strcmp(table->component, rel->component) == 0;
		}
		if (is_listed || rel->state == CVX_REL_DROPPED)
			continue;
		if (rel->load == CVX_LOAD_WALKING)
		{
			/* The selection of a walk never changes: the others begin anew. */
			cvx_catalog_run(0, "UPDATE @.convex_subscription_rel SET load = 'wanted' WHERE subid = $1 AND load = 'walking'",
							"i", sub->subid);
			cvx_catalog_run(SPI_OK_UPDATE, "UPDATE @.convex_subscription_state SET snapshot = NULL, page_cursor = NULL WHERE subid = $1",
							"i", sub->subid);
		}
		cvx_catalog_rel(sub, rel, "state = 'dropped', load = NULL, synced_ts = coalesce(synced_ts, 0)");
		cvx_catalog_event(sub->subid, "table_dropped", rel, NULL);
		rel->state = CVX_REL_DROPPED;
	}
	if (!is_first)
		foreach(lc, fresh)
		{
			CvxTableSchema *table = lfirst(lc);
			CvxSubRel	rel = {.component = table->component,.table = table->table};

			cvx_catalog_event(sub->subid, "table_new", &rel, NULL);
		}
	return list_length(fresh) + nreturned;
}

/* How many of these tables a subscription with these patterns has. */
int
cvx_catalog_count_selected(List *patterns, List *tables)
{
	int			n = 0;
	ListCell   *lc;

	foreach(lc, tables)
		n += is_selected(patterns, lfirst(lc));
	return n;
}

/*
 * What the deployment has, with whatever types can be had, in the current
 * context.  Waits for HTTP.
 */
List *
cvx_catalog_fetch(CvxHttp *http)
{
	List	   *tables;
	bool		has_names = cvx_api_column_names(http, NULL, &tables);
	Jsonb	   *schemas = cvx_api_json_schemas(http, has_names);
	Jsonb	   *declared = cvx_api_declared_schema(http);

	if (!has_names)
		tables = cvx_schema_parse_tables(schemas);
	else if (schemas)
		cvx_schema_parse_types(tables, schemas);
	if (declared)
		cvx_schema_parse_declared(tables, declared);
	return tables;
}

/* Throws 22023 for an option that does not exist or has a bad value. */
void
cvx_catalog_check_options(Jsonb *options)
{
	static const struct
	{
		const char *name;
		const char *values;		/* NULL: an interval; "#": a number */
		const IntervalRange *range;
	}			known[] = {
		{"json_values", "clean, encoded"},
		{"nul_handling", "replace, strip"},
		{"schema_evolution", "add, ignore"},
		{"deletes", "apply, ignore"},
		{"document", "none, jsonb"},
		{"notify", "true, false"},
		{"max_columns", "#"},
		{"idle_poll_interval", NULL, &poll_range},
		{"table_check_interval", NULL, &check_range},
	};
	JsonbIterator *it = JsonbIteratorInit(&options->root);
	JsonbIteratorToken token;
	JsonbValue	value;

	if (!JB_ROOT_IS_OBJECT(options))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("options must be a JSON object")));
	while ((token = JsonbIteratorNext(&it, &value, true)) != WJB_DONE)
	{
		char	   *name;
		char	   *text;
		char	   *end;
		int			i;

		if (token != WJB_KEY)
			continue;
		name = pnstrdup(value.val.string.val, value.val.string.len);
		if (strcmp(name, "adopt") == 0)
		{
			(void) option_names(options, name);
			continue;
		}
		for (i = 0; i < lengthof(known); i++)
			if (strcmp(known[i].name, name) == 0)
				break;
		if (i == lengthof(known))
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("unknown option \"%s\" of a subscription", name),
					 errhint("Known are: json_values, nul_handling, schema_evolution, deletes, document, notify, max_columns, idle_poll_interval, table_check_interval, adopt.")));
		text = option_text(options, name);
		if (known[i].values == NULL && text)
			check_interval(name, interval_of(text), known[i].range);
		else if (text == NULL ||
				 (strcmp(known[i].values, "#") == 0 ?
				  strtol(text, &end, 10) < 10 || strtol(text, NULL, 10) > 1500 ||
				  *end != '\0' :
				  !is_choice(known[i].values, text)))
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("invalid value of option \"%s\" of a subscription", name),
					 known[i].values == NULL ? 0 :
					 strcmp(known[i].values, "#") == 0 ?
					 errhint("Valid values are 10 to 1500.") :
					 errhint("Valid values are: %s.", known[i].values)));
	}
}

/* Throws 22023 for an interval that nobody would poll in. */
void
cvx_catalog_check_poll_interval(const Interval *interval)
{
	check_interval("poll_interval", interval, &poll_range);
}

/* The subscription of this name; the role must be its owner. */
CvxSubscription *
cvx_catalog_check(const char *name)
{
	int32		subid = cvx_catalog_find(name);
	CvxSubscription *sub = subid ? cvx_catalog_load(subid) : NULL;

	if (sub == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("subscription \"%s\" does not exist", name)));
	if (OidIsValid(sub->owner) ? !has_privs_of_role(GetUserId(), sub->owner) :
		!superuser())
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("must be owner of subscription \"%s\"", name)));
	return sub;
}

/*
 * Throws 42704 when the subscription's role or server is gone, 55000 when
 * another has its name now.
 */
void
cvx_catalog_check_server(const CvxSubscription *sub)
{
	if (!OidIsValid(sub->owner) && OidIsValid(get_role_oid(sub->owner_name, true)))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("role \"%s\" is not the one that owned subscription \"%s\"",
						sub->owner_name, sub->name),
				 errdetail("That role was dropped."),
				 errhint("A superuser can give the subscription to a role with convex_alter_subscription('%s', owner => ..).",
						 sub->name)));
	if (!OidIsValid(sub->owner))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("owner of subscription \"%s\" does not exist", sub->name)));
	if (!OidIsValid(sub->serverid) &&
		GetForeignServerByName(sub->server, true) != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("server \"%s\" is not the one of subscription \"%s\"",
						sub->server, sub->name),
				 errdetail("That server was dropped."),
				 errhint("Choose a server with convex_alter_subscription('%s', server => ..).",
						 sub->name)));
	if (!OidIsValid(sub->serverid))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("server \"%s\" does not exist", sub->server)));
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

static char *
copy_text(uint64 row, int column)
{
	return cvx_catalog_text(row, column);
}

static Jsonb *
copy_jsonb(uint64 row, int column)
{
	bool		isnull;
	Datum		datum = SPI_getbinval(SPI_tuptable->vals[row],
									  SPI_tuptable->tupdesc, column, &isnull);

	return isnull ? NULL : DatumGetJsonbPCopy(datum);
}

static void
read_options(CvxSubscription *sub, Jsonb *options)
{
	char	   *text;

	sub->is_evolving = true;
	sub->applies_deletes = true;
	sub->max_columns = MAX_COLUMNS;
	sub->idle_poll_ms = 10000;
	if ((text = option_text(options, "schema_evolution")) != NULL)
		sub->is_evolving = strcmp(text, "ignore") != 0;
	if ((text = option_text(options, "deletes")) != NULL)
		sub->applies_deletes = strcmp(text, "ignore") != 0;
	if ((text = option_text(options, "document")) != NULL)
		sub->has_document = strcmp(text, "jsonb") == 0;
	if ((text = option_text(options, "notify")) != NULL)
		sub->notifies = strcmp(text, "true") == 0;
	if ((text = option_text(options, "max_columns")) != NULL)
		sub->max_columns = atoi(text);
	if ((text = option_text(options, "json_values")) != NULL)
		sub->table_options.json_values = strcmp(text, "encoded") == 0 ?
			CVX_JSON_ENCODED : CVX_JSON_CLEAN;
	if ((text = option_text(options, "nul_handling")) != NULL)
		sub->table_options.nul_handling = strcmp(text, "strip") == 0 ?
			CVX_NUL_STRIP : CVX_NUL_REPLACE;
	sub->adopted = option_names(options, "adopt");
	if ((text = option_text(options, "idle_poll_interval")) != NULL)
		sub->idle_poll_ms = poll_ms(text);
	sub->idle_poll_ms = Max(sub->idle_poll_ms, sub->poll_ms);
}

/* An option as text; NULL when it is not set. */
static char *
option_text(Jsonb *options, const char *name)
{
	JsonbValue	buffer;
	JsonbValue *value = getKeyJsonValueFromContainer(&options->root, name,
													 strlen(name), &buffer);

	if (value == NULL || value->type == jbvNull)
		return NULL;
	switch (value->type)
	{
		case jbvString:
			return pnstrdup(value->val.string.val, value->val.string.len);
		case jbvBool:
			return value->val.boolean ? "true" : "false";
		case jbvNumeric:
			return DatumGetCString(DirectFunctionCall1(numeric_out, NumericGetDatum(value->val.numeric)));
		default:
			return NULL;
	}
}

/* An option that is an array of names; NIL when it is not set. */
static List *
option_names(Jsonb *options, const char *name)
{
	JsonbValue	buffer;
	JsonbValue *value = getKeyJsonValueFromContainer(&options->root, name,
													 strlen(name), &buffer);
	bool		is_array = value && value->type == jbvBinary &&
		JsonContainerIsArray(value->val.binary.data);
	int			n = is_array ? JsonContainerSize(value->val.binary.data) : 0;
	List	   *names = NIL;

	for (int i = 0; i < n; i++)
	{
		JsonbValue *element = getIthJsonbValueFromContainer(value->val.binary.data, i);

		if (element->type == jbvString)
			names = lappend(names, pnstrdup(element->val.string.val,
											element->val.string.len));
	}
	if (value && (!is_array || list_length(names) < n))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid value of option \"%s\" of a subscription", name),
				 errhint("It is a JSON array of names.")));
	return names;
}

/* Is text one of the words of a list? */
static bool
is_choice(const char *choices, const char *text)
{
	size_t		len = strlen(text);

	for (const char *p = choices; *p; p += strspn(p, ", "))
	{
		if (strcspn(p, ",") == len && strncmp(p, text, len) == 0)
			return true;
		p += strcspn(p, ",");
	}
	return false;
}

/* As polls are paused; what a catalog of old may hold is brought into range. */
static int
poll_ms(const char *text)
{
	double		ms = interval_ms(interval_of(text));

	return (int) Max(Min(ms, poll_range.most_ms), poll_range.least_ms);
}

static Interval *
interval_of(const char *text)
{
	return DatumGetIntervalP(DirectFunctionCall3(interval_in,
												 CStringGetDatum(text),
												 ObjectIdGetDatum(InvalidOid),
												 Int32GetDatum(-1)));
}

static double
interval_ms(const Interval *interval)
{
	return interval->time / 1000.0 +
		(interval->day + interval->month * 30.0) * 86400e3;
}

static void
check_interval(const char *name, const Interval *interval,
			   const IntervalRange *range)
{
	double		ms = interval_ms(interval);

	if (ms < range->least_ms || ms > range->most_ms)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s of a subscription is out of range", name),
				 errhint("Valid values are %s.", range->text)));
}

static void
load_rels(CvxSubscription *sub)
{
	static const char *const states[] = {"joining", "ready", "resyncing", "error", "dropped"};
	static const char *const loads[] = {"", "wanted", "walking", "indexing", "catching_up"};
	uint64		n;
	Oid		   *oids;

	cvx_catalog_run(SPI_OK_SELECT,
					"SELECT relno, component, table_name, target_schema::text, target_name::text,"
					" target_oid, columns, state, coalesce(load, ''), is_staged, synced_ts, tablet,"
					" check_cursor, check_id, retry_at IS NULL OR retry_at <= clock_timestamp(), retry_at, copied_rows = 0"
					" FROM @.convex_subscription_rel WHERE subid = $1 ORDER BY relno", "i",
					sub->subid);
	n = SPI_processed;
	oids = palloc(sizeof(Oid) * Max(n, 1));
	for (uint64 i = 0; i < n; i++)
	{
		CvxSubRel  *rel = palloc0(sizeof(CvxSubRel));
		char	   *state = copy_text(i, 8);
		char	   *load = copy_text(i, 9);

		rel->relno = (int) cvx_catalog_int64(i, 1);
		rel->component = copy_text(i, 2);
		rel->table = copy_text(i, 3);
		rel->target_schema = copy_text(i, 4);
		rel->target_name = copy_text(i, 5);
		oids[i] = (Oid) cvx_catalog_int64(i, 6);
		rel->columns = copy_jsonb(i, 7);
		for (int s = 0; s < lengthof(states); s++)
			if (strcmp(states[s], state) == 0)
				rel->state = (CvxRelState) s;
		for (int s = 0; s < lengthof(loads); s++)
			if (strcmp(loads[s], load) == 0)
				rel->load = (CvxRelLoad) s;
		rel->is_staged = cvx_catalog_bool(i, 10);
		rel->synced_ts = cvx_catalog_int64(i, 11);
		rel->tablet = copy_text(i, 12);
		rel->check_cursor = copy_text(i, 13);
		rel->check_id = copy_text(i, 14);
		rel->is_retry_due = cvx_catalog_bool(i, 15);
		rel->retry_at = cvx_catalog_int64(i, 16);
		rel->is_empty = cvx_catalog_bool(i, 17);
		sub->rels = lappend(sub->rels, rel);
	}
	for (uint64 i = 0; i < n; i++)
		follow_target(sub, list_nth(sub->rels, i), oids[i]);
}

/*
 * The target by its OID, wherever it has gone.  One that has none yet is a
 * table of its name.
 */
static void
follow_target(CvxSubscription *sub, CvxSubRel *rel, Oid oid)
{
	Oid			schema;
	char	   *name;
	char	   *schema_name;

	if (!sub->is_bound || !OidIsValid(oid))
	{
		schema = get_namespace_oid(rel->target_schema, true);
		rel->target = OidIsValid(schema) ?
			get_relname_relid(rel->target_name, schema) : InvalidOid;
		return;
	}
	rel->is_bound = true;
	name = get_rel_name(oid);
	schema_name = name ? get_namespace_name(get_rel_namespace(oid)) : NULL;
	if (schema_name == NULL)
		return;
	rel->target = oid;
	rel->is_moved = strcmp(name, rel->target_name) != 0 ||
		strcmp(schema_name, rel->target_schema) != 0;
	rel->target_name = name;
	rel->target_schema = schema_name;
}

/* "table", "component/table", and "*" for the last part, or alone for all. */
static bool
is_selected(List *patterns, const CvxTableSchema *table)
{
	ListCell   *lc;

	foreach(lc, patterns)
	{
		const char *pattern = lfirst(lc);
		const char *slash = strrchr(pattern, '/');
		size_t		len = slash ? slash - pattern : 0;

		if (strcmp(pattern, "*") == 0)
			return true;
		if (strlen(table->component) != len ||
			strncmp(table->component, pattern, len) != 0)
			continue;
		pattern = slash ? slash + 1 : pattern;
		if (strcmp(pattern, "*") == 0 || strcmp(pattern, table->table) == 0)
			return true;
	}
	return false;
}

static CvxSubRel *
find_rel(CvxSubscription *sub, const CvxTableSchema *table)
{
	ListCell   *lc;

	foreach(lc, sub->rels)
	{
		CvxSubRel  *rel = lfirst(lc);

		if (strcmp(rel->table, table->table) == 0 &&
			strcmp(rel->component, table->component) == 0)
			return rel;
	}
	return NULL;
}

/* Give new tables a number and a local name, and enter them. */
static void
name_targets(CvxSubscription *sub, List *tables, bool is_first)
{
	int			ntaken = list_length(sub->rels);
	const char **taken;
	CvxLocalName *names = palloc(sizeof(CvxLocalName) * Max(list_length(tables), 1));
	int			relno = 0;
	uint64		nothers;
	ListCell   *lc;

	/* A target has one subscription; a new table can have another name. */
	cvx_catalog_run(SPI_OK_SELECT,
					"SELECT target_name::text FROM @.convex_subscription_rel WHERE subid <> $1 AND target_schema = $2::name",
					"it", sub->subid, sub->target_schema);
	nothers = is_first ? 0 : SPI_processed;
	taken = palloc(sizeof(char *) * Max(ntaken + nothers, 1));
	for (uint64 i = 0; i < nothers; i++)
		taken[ntaken + i] = cvx_catalog_text(i, 1);
	ntaken += nothers;
	foreach(lc, sub->rels)
	{
		CvxSubRel  *rel = lfirst(lc);

		taken[foreach_current_index(lc)] = rel->target_name;
		relno = Max(relno, rel->relno);
	}
	foreach(lc, tables)
	{
		CvxTableSchema *table = lfirst(lc);
		CvxLocalName *name = &names[foreach_current_index(lc)];
		char	   *path = psprintf("%s%s%s", table->component,
									table->component[0] ? "/" : "", table->table);

		name->source = path;
		name->name = pstrdup(path);
		for (char *p = name->name; *p; p++)
			if (*p == '/')
				*p = '_';
	}
	cvx_names_make_unique(names, list_length(tables), taken, ntaken);
	foreach(lc, tables)
		add_table(sub, lfirst(lc), names[foreach_current_index(lc)].name,
				  ++relno, is_first);
}

static void
add_table(CvxSubscription *sub, const CvxTableSchema *table,
		  const char *target, int relno, bool is_first)
{
	Oid			schema = get_namespace_oid(sub->target_schema, true);
	Oid			relid = OidIsValid(schema) ?
	get_relname_relid(target, schema) : InvalidOid;

	/* A table that comes later waits alone if its target is of no use. */
	if (is_first)
	{
		cvx_catalog_run(SPI_OK_SELECT,
						"SELECT s.name::text FROM @.convex_subscription_rel AS r JOIN @.convex_subscription AS s USING (subid)"
						" WHERE r.subid <> $1 AND (r.target_schema = $2::name AND r.target_name = $3::name OR r.target_oid = $4 AND $4 <> 0::oid)",
						"itto", sub->subid, sub->target_schema, target, relid);
		if (SPI_processed > 0)
			ereport(ERROR,
					(errcode(ERRCODE_DUPLICATE_OBJECT),
					 errmsg("table \"%s.%s\" is a target of subscription \"%s\" already",
							sub->target_schema, target, cvx_catalog_text(0, 1)),
					 errhint("Choose another target_schema.")));
		if (OidIsValid(relid))
		{
			CvxSubRel	rel = {.target = relid,.target_name = pstrdup(target),
			.state = CVX_REL_JOINING};

			cvx_apply_check_target(sub, &rel);
		}
	}
	cvx_catalog_run(SPI_OK_INSERT,
					"INSERT INTO @.convex_subscription_rel (subid, relno, component, table_name,"
					" target_schema, target_name, target_oid, columns, state, load)"
					" VALUES ($1, $2, $3, $4, $5::name, $6::name, $7, $8, 'joining', 'wanted')",
					"iittttoj", sub->subid, relno, table->component, table->table,
					sub->target_schema, target, is_first ? relid : InvalidOid,
					make_columns(table));
}

/*
 * The columns of a table to be made, as an object: attribute -> field.  Types
 * stand behind the field, after a tab, which no field's name can hold.
 */
static Jsonb *
make_columns(const CvxTableSchema *table)
{
	static const char *const reserved[] = {"tableoid", "ctid", "xmin", "cmin",
		"xmax", "cmax", "_id", "_creationTime", "_ts", "_extra", "_deleted",
		"_deleted_at", "_document"
	};
	CvxLocalName *names = palloc(sizeof(CvxLocalName) * Max(list_length(table->fields), 1));
	CvxFieldSchema **fields = palloc(sizeof(CvxFieldSchema *) * Max(list_length(table->fields), 1));
	JsonbParseState *state = NULL;
	JsonbValue *result;
	int			n = 0;
	ListCell   *lc;

	foreach(lc, table->fields)
	{
		CvxFieldSchema *field = lfirst(lc);

		if (field->name[0] == '_' || field->type == CVX_TYPE_UNSEEN ||
			n >= MAX_COLUMNS - 10)
			continue;
		fields[n] = field;
		names[n].name = field->name;
		names[n].source = field->name;
		n++;
	}
	cvx_names_make_unique(names, n, reserved, lengthof(reserved));
	pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	for (int i = 0; i < n; i++)
	{
		JsonbValue	value;
		char	   *said = psprintf("%s\t%s%s", fields[i]->name,
									cvx_names_type(fields[i]->name, fields[i]->type),
									fields[i]->type == CVX_TYPE_ID ? " COLLATE pg_catalog.\"C\"" : "");

		value.type = jbvString;
		value.val.string.val = names[i].name;
		value.val.string.len = strlen(names[i].name);
		pushJsonbValue(&state, WJB_KEY, &value);
		value.val.string.val = said;
		value.val.string.len = strlen(said);
		pushJsonbValue(&state, WJB_VALUE, &value);
	}
	result = pushJsonbValue(&state, WJB_END_OBJECT, NULL);
	return JsonbValueToJsonb(result);
}
