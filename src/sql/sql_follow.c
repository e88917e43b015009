/*
 * sql_follow.c
 *		What may a SQL user do with subscriptions?
 *
 * Each function looks at the rights of the role that calls it and leaves the
 * catalog to sub_catalog.c and the work to sub_sync.c.
 *
 * Room: sql 7.4
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/pg_namespace.h"
#include "catalog/pg_type.h"
#include "commands/dbcommands.h"
#include "commands/trigger.h"
#include "executor/spi.h"
#include "foreign/foreign.h"
#include "funcapi.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "storage/latch.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

#include "ground/compat.h"
#include "protocol/api.h"
#include "protocol/schema.h"
#include "shape/options_read.h"
#include "subscription/sub_apply.h"
#include "subscription/sub_catalog.h"
#include "subscription/sub_state.h"
#include "subscription/sub_events.h"
#include "subscription/sub_failure.h"
#include "subscription/sub_options.h"
#include "subscription/sub_read.h"
#include "subscription/sub_sync.h"
#include "subscription/sub_tables.h"
#include "process/sub_process.h"
#include "sql/sql_api.h"

/* A launcher starts a worker sooner. */
#define LAUNCH_MS	10000

/*
 * How often convex_sync() tries to walk, and how often one who waits looks:
 * where nobody can wake it, at first and later on.
 */
#define LOOK_MS		20
#define LONGEST_LOOK_MS	100

/* The part of the server's lock table that the caller's transaction may take. */
#define LOCK_TABLE_PART	2

/* The same for one of several transactions. */
#define LOCK_TABLE_PORTION	8

/* How often it looks whether there is a process that steps. */
#define HOLDER_MS	1000

/* Has a check been asked for, of the state st, that has not passed yet? */
#define CHECK_IS_ASKED_FOR \
	"(st.check_wanted OR EXISTS (SELECT FROM @.convex_subscription_event AS e" \
	" WHERE e.subid = st.subid AND e.kind = 'swap_announced'))"

/* Where a subscription stood when somebody began to wait for its worker. */
typedef struct Mark
{
	bool		is_set;
	int64		applied_at;
	int64		failed_at;
} Mark;

/* What convex_wait_for() waits for. */
typedef struct Goal
{
	const char *name;
	int32		subid;
	Oid			serverid;
	Oid			owner;
	bool		is_enabled;
	int64		ts;

	/* as it was at the last look */
	bool		is_reached;
	bool		is_followed;
} Goal;

static List *read_patterns(ArrayType *array);
static void check_server(CvxHttp *http, ForeignServer *server, int ntables);
static Oid	make_schema(const char *name, Oid owner);
static void leave_schema(const CvxSubscription *sub, Oid schema,
						 bool drops_tables);
static void check_found(CvxSubscription *sub);
static void begin_catalog(void);
static void end_catalog(const CvxSubscription *sub);
static CvxSubscription *hold(const char *name);
static void choose_server(const CvxSubscription *sub, const char *name);
static void give_to(const CvxSubscription *sub, const char *name);
static int	locks_of_drop(const CvxSubscription *sub, const CvxSubRel *rel,
						  bool drops_target);
static void check_locks(const CvxSubscription *sub, bool drops_tables);
static void drop_target(const CvxSubRel *rel);
static bool drop_portion(const char *name);
static bool sync_one(int32 subid, const char *name, bool is_alone,
					 int *max_pages);
static void tell_waiting(int32 subid, const char *name);
static void refuse_read_only(void);
static bool wait_for_worker(CvxSync *sync, int32 subid, const char *name,
							ErrorData **failure);
static CvxHttp *connect_to(const char *name);
static bool has_ended(int32 subid, int64 head, Mark *mark,
					  ErrorData **failure);
static void host_begin(void);
static void host_commit(void);
static void host_rollback(void);
static void pause_ms(long ms);
static List *own_subscriptions(void);
static void look_for_goal(void *arg);
static void look_whether_reached(void *arg);
static void look_who_follows(void *arg);
static void expect_worker(const char *name, int32 subid, bool is_launched,
						  bool is_new);

PG_FUNCTION_INFO_V1(convex_create_subscription);
PG_FUNCTION_INFO_V1(convex_alter_subscription);
PG_FUNCTION_INFO_V1(convex_drop_subscription);
PG_FUNCTION_INFO_V1(convex_drop_tables);
PG_FUNCTION_INFO_V1(convex_enable_subscription);
PG_FUNCTION_INFO_V1(convex_disable_subscription);
PG_FUNCTION_INFO_V1(convex_refresh_subscription);
PG_FUNCTION_INFO_V1(convex_resync_table);
PG_FUNCTION_INFO_V1(convex_wait_for);
PG_FUNCTION_INFO_V1(convex_sync);
PG_FUNCTION_INFO_V1(convex_subscription_restored);

/* How CALL convex_sync() does its transactions; SPI is connected around it. */
static const CvxSyncHost call_host = {
	host_begin, host_commit, host_rollback, false
};

/* A subscription with its tables; the deployment is asked for them. */
Datum
convex_create_subscription(PG_FUNCTION_ARGS)
{
	char	   *name;
	char	   *schema;
	char	   *mode;
	char	   *protocol;
	ForeignServer *server;
	CvxHttp    *http;
	CvxSubscription *sub;
	List	   *patterns;
	List	   *tables;
	Jsonb	   *options;
	int32		subid;
	Oid			schema_oid;

	for (int i = 0; i < 9; i++)
		if (PG_ARGISNULL(i) && i != 3)
			ereport(ERROR,
					(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
					 errmsg("arguments of convex_create_subscription must not be null")));
	refuse_read_only();
	name = pstrdup(NameStr(*PG_GETARG_NAME(0)));
	schema = PG_ARGISNULL(3) ? name : pstrdup(NameStr(*PG_GETARG_NAME(3)));
	mode = text_to_cstring(PG_GETARG_TEXT_PP(4));
	protocol = text_to_cstring(PG_GETARG_TEXT_PP(5));
	options = PG_GETARG_JSONB_P(8);
	if (GetDatabaseEncoding() != PG_UTF8)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("subscriptions need a database with encoding UTF8")));
	if (strcmp(mode, "mirror") != 0 && strcmp(mode, "soft_delete") != 0 &&
		strcmp(mode, "history") != 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid mode \"%s\"", mode),
				 errhint("Valid values are: mirror, soft_delete, history.")));
	if (strcmp(protocol, "document_deltas") != 0)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("protocol \"%s\" is not supported", protocol),
				 errhint("Valid values are: document_deltas.")));
	if (name[0] == '\0')
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_NAME),
				 errmsg("name of a subscription must not be empty")));
	if (schema[0] == '\0' || strncmp(schema, "pg_", 3) == 0 ||
		strcmp(schema, "information_schema") == 0 ||
		strcmp(schema, "convex_staging") == 0)
		ereport(ERROR,
				(errcode(ERRCODE_RESERVED_NAME),
				 errmsg("schema \"%s\" cannot have mirrors", schema),
				 errhint("Choose another target_schema.")));
	patterns = read_patterns(PG_GETARG_ARRAYTYPE_P(2));
	cvx_catalog_check_options(options);
	cvx_catalog_check_poll_interval(PG_GETARG_INTERVAL_P(6));

	server = cvx_sql_find_server(PG_GETARG_NAME(1));
	http = cvx_http_open(cvx_options_remote(server->serverid, GetUserId()));
	tables = cvx_catalog_fetch(http);
	check_server(http, server, cvx_catalog_count_selected(patterns, tables));

	begin_catalog();
	if (cvx_catalog_find(name) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_DUPLICATE_OBJECT),
				 errmsg("subscription \"%s\" already exists", name)));
	schema_oid = make_schema(schema, GetUserId());
	cvx_catalog_run(SPI_OK_INSERT_RETURNING,
					"INSERT INTO @.convex_subscription (name, server, server_oid, owner, owner_oid, home, enabled, tables,"
					" target_schema, mode, protocol, poll_interval, options, schema_oid)"
					" VALUES ($1::name, $2::name, $12, $3::name, $4, $13, $5, $6::text[], $7::name, $8, $9, $10::interval, $11, $14)"
					" RETURNING subid", "tttobtttttjoto", name, server->servername,
					GetUserNameFromId(GetUserId(), false), GetUserId(),
					PG_GETARG_BOOL(7),
					OidOutputFunctionCall(F_ARRAY_OUT, PG_GETARG_DATUM(2)),
					schema, mode, protocol,
					DatumGetCString(DirectFunctionCall1(interval_out, PG_GETARG_DATUM(6))),
					options, server->serverid, cvx_catalog_home(),
					schema_oid);
	subid = (int32) cvx_catalog_int64(0, 1);
	cvx_catalog_run(SPI_OK_INSERT,
					"INSERT INTO @.convex_subscription_state (subid) VALUES ($1)",
					"i", subid);
	sub = cvx_catalog_load(subid);
	(void) cvx_catalog_add_tables(sub, tables, true);
	check_found(cvx_catalog_load(subid));
	cvx_catalog_event(subid, "created", NULL, NULL);
	SPI_finish();
	cvx_launcher_wake();
	PG_RETURN_INT32(subid);
}

/* Change what is not NULL. */
Datum
convex_alter_subscription(PG_FUNCTION_ARGS)
{
	CvxSubscription *sub;

	if (PG_ARGISNULL(0))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("name must not be null")));
	begin_catalog();
	sub = hold(NameStr(*PG_GETARG_NAME(0)));
	if (!PG_ARGISNULL(1))
	{
		(void) read_patterns(PG_GETARG_ARRAYTYPE_P(1));
		cvx_catalog_run(SPI_OK_UPDATE,
						"UPDATE @.convex_subscription SET tables = $2::text[] WHERE subid = $1",
						"it", sub->subid,
						OidOutputFunctionCall(F_ARRAY_OUT, PG_GETARG_DATUM(1)));
	}
	if (!PG_ARGISNULL(2))
	{
		cvx_catalog_check_poll_interval(PG_GETARG_INTERVAL_P(2));
		cvx_catalog_run(SPI_OK_UPDATE,
						"UPDATE @.convex_subscription SET poll_interval = $2::interval WHERE subid = $1",
						"it", sub->subid,
						DatumGetCString(DirectFunctionCall1(interval_out, PG_GETARG_DATUM(2))));
	}
	if (!PG_ARGISNULL(3))
	{
		cvx_catalog_check_options(PG_GETARG_JSONB_P(3));
		cvx_catalog_run(SPI_OK_UPDATE,
						"UPDATE @.convex_subscription SET options = options || $2 WHERE subid = $1",
						"ij", sub->subid, PG_GETARG_JSONB_P(3));
	}
	if (!PG_ARGISNULL(4))
		choose_server(sub, NameStr(*PG_GETARG_NAME(4)));
	if (!PG_ARGISNULL(5))
		give_to(sub, NameStr(*PG_GETARG_NAME(5)));
	cvx_state_ask(sub->subid, !PG_ARGISNULL(1));
	end_catalog(sub);
	PG_RETURN_VOID();
}

/* End a subscription; its tables stay, unless they are to go. */
Datum
convex_drop_subscription(PG_FUNCTION_ARGS)
{
	CvxSubscription *sub;
	Oid			schema;
	ListCell   *lc;

	begin_catalog();
	sub = hold(NameStr(*PG_GETARG_NAME(0)));
	cvx_catalog_run(SPI_OK_SELECT, "SELECT schema_oid FROM @.convex_subscription WHERE subid = $1", "i", sub->subid);
	schema = (Oid) cvx_catalog_int64(0, 1);
	check_locks(sub, PG_GETARG_BOOL(1));
	foreach(lc, sub->rels)
		cvx_catalog_drop_staging(sub, lfirst(lc));
	cvx_catalog_run(0, "DELETE FROM @.convex_subscription_state WHERE subid = $1", "i", sub->subid);
	cvx_catalog_run(0, "DELETE FROM @.convex_subscription_rel WHERE subid = $1", "i", sub->subid);
	cvx_catalog_run(0, "DELETE FROM @.convex_subscription_event WHERE subid = $1", "i", sub->subid);
	cvx_catalog_run(0, "DELETE FROM @.convex_subscription WHERE subid = $1", "i", sub->subid);
	foreach(lc, sub->rels)
	{
		CvxSubRel  *rel = lfirst(lc);

		if (PG_GETARG_BOOL(1) && OidIsValid(rel->target))
			drop_target(rel);
	}
	leave_schema(sub, schema, PG_GETARG_BOOL(1));
	cvx_launcher_wake();
	end_catalog(sub);
	PG_RETURN_VOID();
}

/* Drop a subscription's tables in transactions that each take few locks. */
Datum
convex_drop_tables(PG_FUNCTION_ARGS)
{
	bool		is_atomic = !(fcinfo->context && IsA(fcinfo->context, CallContext) &&
							  !((CallContext *) fcinfo->context)->atomic);
	MemoryContext cxt;
	char	   *name;

	if (PG_ARGISNULL(0))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("name must not be null")));
	if (is_atomic)
		ereport(ERROR,
				(errcode(ERRCODE_ACTIVE_SQL_TRANSACTION),
				 errmsg("convex_drop_tables cannot run inside a transaction block"),
				 errhint("It commits in between: CALL it alone, as the only statement of its string.")));
	SPI_connect_ext(SPI_OPT_NONATOMIC);
	cxt = AllocSetContextCreate(PortalContext, "convex drop",
								ALLOCSET_DEFAULT_SIZES);
	MemoryContextSwitchTo(cxt);
	name = pstrdup(NameStr(*PG_GETARG_NAME(0)));
	while (drop_portion(name))
		MemoryContextSwitchTo(cxt);
	SPI_finish();
	PG_RETURN_VOID();
}

Datum
convex_enable_subscription(PG_FUNCTION_ARGS)
{
	CvxSubscription *sub;
	ListCell   *lc;

	begin_catalog();
	sub = hold(NameStr(*PG_GETARG_NAME(0)));
	if (!sub->is_bound)
	{
		cvx_catalog_check_server(sub);
		cvx_catalog_bind(sub);
	}

	/* A target that a restored dump did not bring is loaded again. */
	foreach(lc, sub->rels)
	{
		CvxSubRel  *rel = lfirst(lc);

		if (OidIsValid(rel->target) || rel->state == CVX_REL_JOINING ||
			rel->state == CVX_REL_DROPPED || rel->load == CVX_LOAD_WALKING ||
			rel->load == CVX_LOAD_INDEXING)
			continue;
		cvx_state_want(sub, rel, CVX_START_NEW, "resync", "the target is gone");
	}
	cvx_catalog_run(SPI_OK_UPDATE,
					"UPDATE @.convex_subscription SET enabled = true WHERE subid = $1",
					"i", sub->subid);
	cvx_state_ask(sub->subid, true);
	cvx_failure_forget(sub);
	cvx_launcher_wake();
	end_catalog(sub);
	PG_RETURN_VOID();
}

Datum
convex_disable_subscription(PG_FUNCTION_ARGS)
{
	CvxSubscription *sub;

	begin_catalog();
	sub = hold(NameStr(*PG_GETARG_NAME(0)));
	cvx_catalog_run(SPI_OK_UPDATE,
					"UPDATE @.convex_subscription SET enabled = false WHERE subid = $1",
					"i", sub->subid);
	cvx_state_ask(sub->subid, false);
	cvx_launcher_wake();
	end_catalog(sub);
	PG_RETURN_VOID();
}

/* Look for new, replaced and dropped tables at the next step. */
Datum
convex_refresh_subscription(PG_FUNCTION_ARGS)
{
	CvxSubscription *sub;

	begin_catalog();
	sub = hold(NameStr(*PG_GETARG_NAME(0)));
	cvx_state_ask(sub->subid, true);
	end_catalog(sub);
	PG_RETURN_VOID();
}

/* Load one table again; it is named as in Convex, or as its target. */
Datum
convex_resync_table(PG_FUNCTION_ARGS)
{
	char	   *table = text_to_cstring(PG_GETARG_TEXT_PP(1));
	CvxSubscription *sub;
	CvxSubRel  *rel = NULL;
	ListCell   *lc;

	begin_catalog();
	sub = hold(NameStr(*PG_GETARG_NAME(0)));
	foreach(lc, sub->rels)
	{
		CvxSubRel  *candidate = lfirst(lc);
		char	   *path = psprintf("%s%s%s", candidate->component,
									candidate->component[0] ? "/" : "",
									candidate->table);

		if (strcmp(path, table) == 0 ||
			(rel == NULL && strcmp(candidate->target_name, table) == 0))
			rel = candidate;
	}
	if (rel == NULL || rel->state == CVX_REL_DROPPED)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("subscription \"%s\" has no table \"%s\"", sub->name, table)));
	if (rel->load == CVX_LOAD_WANTED)
	{
		ereport(NOTICE,
				(errmsg("table \"%s\" is being loaded already", table)));
		cvx_state_ask(sub->subid, false);
	}
	else if ((rel->load == CVX_LOAD_WALKING || rel->load == CVX_LOAD_INDEXING) &&
			 sub->failures == 0)
		ereport(NOTICE,
				(errmsg("table \"%s\" is being loaded already", table)));
	else
	{
		/* A walk that fails begins anew, with all tables that share it. */
		if (rel->load == CVX_LOAD_WALKING)
			cvx_state_abandon(sub, false, "another table of the walk is loaded again");
		cvx_state_want(sub, rel, OidIsValid(rel->target) ? CVX_START_NOW :
					   CVX_START_NEW, "resync", "asked for");
		cvx_catalog_drop_staging(sub, rel);
		cvx_state_unstage(sub, rel);
		cvx_state_ask(sub->subid, false);
	}
	end_catalog(sub);
	PG_RETURN_VOID();
}

/*
 * Wait until the subscription shows what Convex had at ts; NULL: at this
 * call.  The change log does not say which tables were replaced: a check that
 * was asked for has to pass as well.
 */
Datum
convex_wait_for(PG_FUNCTION_ARGS)
{
	Goal		goal = {0};
	TimestampTz until;
	Interval   *timeout;
	bool		is_launched;
	long		pause = LOOK_MS;
	TimestampTz now;
	TimestampTz look_at = 0;
	TimestampTz expected = TimestampTzPlusMilliseconds(GetCurrentTimestamp(),
													   LAUNCH_MS);

	if (PG_ARGISNULL(0) || PG_ARGISNULL(2))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("name and timeout must not be null")));
	if (IsolationUsesXactSnapshot())
		ereport(ERROR,
				(errcode(ERRCODE_ACTIVE_SQL_TRANSACTION),
				 errmsg("convex_wait_for cannot be used in isolation level %s",
						IsolationIsSerializable() ? "SERIALIZABLE" : "REPEATABLE READ"),
				 errdetail("The snapshot of the transaction could not show the rows.")));
	timeout = PG_GETARG_INTERVAL_P(2);
	until = DatumGetTimestampTz(DirectFunctionCall2(timestamptz_pl_interval,
													TimestampTzGetDatum(GetCurrentTimestamp()),
													IntervalPGetDatum(timeout)));
	goal.name = NameStr(*PG_GETARG_NAME(0));
	cvx_catalog_look(look_for_goal, &goal);
	goal.ts = PG_ARGISNULL(1) ?
		cvx_api_sure_head(cvx_http_open(cvx_options_remote(goal.serverid, goal.owner))) :
		PG_GETARG_INT64(1);
	is_launched = cvx_process_table != NULL && cvx_worker_enabled &&
		goal.is_enabled;
	cvx_worker_wake(goal.subid);
	for (;;)
	{
		cvx_catalog_look(look_whether_reached, &goal);
		if (goal.is_reached || (now = GetCurrentTimestamp()) >= until)
			break;

		/* Rows reach a standby without a process of ours. */
		if (now >= look_at && !RecoveryInProgress())
		{
			look_at = TimestampTzPlusMilliseconds(now, HOLDER_MS);
			cvx_catalog_look(look_who_follows, &goal);
			if (goal.is_followed)
				expected = TimestampTzPlusMilliseconds(now, LAUNCH_MS);
			else
				expect_worker(goal.name, goal.subid, is_launched, now < expected);
		}
		cvx_process_await(goal.subid, Min(TimestampDifferenceMilliseconds(now, until) + 1,
										  pause));
		pause = Min(pause * 2, cvx_process_table ? HOLDER_MS : LONGEST_LOOK_MS);
	}
	ConditionVariableCancelSleep();
	PG_RETURN_BOOL(goal.is_reached);
}

/* Bring one subscription, or all of the role's, to the head as of the call. */
Datum
convex_sync(PG_FUNCTION_ARGS)
{
	bool		is_atomic = !(fcinfo->context && IsA(fcinfo->context, CallContext) &&
							  !((CallContext *) fcinfo->context)->atomic);
	MemoryContext cxt;
	char	   *name = PG_ARGISNULL(0) ? NULL : NameStr(*PG_GETARG_NAME(0));
	int			max_pages = PG_ARGISNULL(1) ? INT_MAX : PG_GETARG_INT32(1);
	List	   *subids = NIL;
	int			nfailed = 0;
	ListCell   *lc;

	if (is_atomic)
		ereport(ERROR,
				(errcode(ERRCODE_ACTIVE_SQL_TRANSACTION),
				 errmsg("convex_sync cannot run inside a transaction block"),
				 errhint("It commits page by page: CALL it alone, as the only statement of its string.")));
	refuse_read_only();
	if (max_pages < 1)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("max_pages must be positive")));

	/* What outlives the commits is below the portal's context. */
	SPI_connect_ext(SPI_OPT_NONATOMIC);
	cxt = AllocSetContextCreate(PortalContext, "convex sync",
								ALLOCSET_DEFAULT_SIZES);
	MemoryContextSwitchTo(cxt);
	name = name ? pstrdup(name) : NULL;
	host_begin();
	MemoryContextSwitchTo(cxt);
	if (name == NULL)
		subids = own_subscriptions();
	else
	{
		CvxSubscription *sub = cvx_catalog_check(name);

		if (!sub->is_enabled)
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("subscription \"%s\" is disabled", name),
					 errhint("Use convex_enable_subscription('%s').", name)));
		subids = list_make1(sub);
	}
	host_commit();
	MemoryContextSwitchTo(cxt);
	foreach(lc, subids)
	{
		CvxSubscription *sub = lfirst(lc);

		if (!sync_one(sub->subid, sub->name, name != NULL, &max_pages))
			nfailed++;
		MemoryContextSwitchTo(cxt);
		if (max_pages <= 0)
			break;
	}
	SPI_finish();
	if (nfailed > 0)
		ereport(ERROR,
				(errcode(ERRCODE_FDW_ERROR),
				 errmsg("%d of %d subscriptions failed", nfailed,
						list_length(subids)),
				 errhint("See convex_stat_subscription.")));
	PG_RETURN_VOID();
}

/*
 * BEFORE INSERT OR UPDATE: a row that the library did not write is of a
 * restored dump, or of another cluster whose catalog is replicated.  Neither
 * brings OIDs along, or decides what runs here.
 */
Datum
convex_subscription_restored(PG_FUNCTION_ARGS)
{
	static const char *const ours[] = {
		"owner_oid", "server_oid", "target_oid", "schema_oid", "enabled", "home", "attnums"
	};
	TriggerData *data = (TriggerData *) fcinfo->context;
	TupleDesc	tupdesc;
	HeapTuple	tuple;
	bool		is_update;

	/* Its tables have columns of the types that it sets. */
	if (!CALLED_AS_TRIGGER(fcinfo) ||
		!(TRIGGER_FIRED_BY_INSERT(data->tg_event) ||
		  TRIGGER_FIRED_BY_UPDATE(data->tg_event)) ||
		!TRIGGER_FIRED_BEFORE(data->tg_event) ||
		!TRIGGER_FIRED_FOR_ROW(data->tg_event) ||
		!cvx_catalog_has_table(data->tg_relation))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("convex_subscription_restored is for its own trigger only")));
	tupdesc = RelationGetDescr(data->tg_relation);
	is_update = TRIGGER_FIRED_BY_UPDATE(data->tg_event);
	tuple = is_update ? data->tg_newtuple : data->tg_trigtuple;

	/* A change by hand is the superuser's own. */
	if (cvx_catalog_is_writing() ||
		(is_update && SessionReplicationRole != SESSION_REPLICATION_ROLE_REPLICA))
		return PointerGetDatum(tuple);
	for (int i = 0; i < lengthof(ours); i++)
	{
		int			attnum = SPI_fnumber(tupdesc, ours[i]);
		Datum		value = (Datum) 0;	/* no OID, or false */
		bool		isnull = i >= lengthof(ours) - 2;	/* home and attnums */

		if (attnum <= 0)
			continue;
		if (is_update)
			value = heap_getattr(data->tg_trigtuple, attnum, tupdesc, &isnull);
		tuple = heap_modify_tuple_by_cols(tuple, tupdesc, 1, &attnum, &value,
										  &isnull);
	}
	return PointerGetDatum(tuple);
}

/* Patterns of tables: "*", "table", "component/table", "component/" and "*". */
static List *
read_patterns(ArrayType *array)
{
	List	   *patterns = NIL;
	Datum	   *elements;
	bool	   *nulls;
	int			n;

	deconstruct_array(array, TEXTOID, -1, false, TYPALIGN_INT, &elements, &nulls, &n);
	for (int i = 0; i < n; i++)
	{
		char	   *pattern = nulls[i] ? NULL : TextDatumGetCString(elements[i]);
		char	   *slash = pattern ? strrchr(pattern, '/') : NULL;
		char	   *last = slash ? slash + 1 : pattern;

		if (pattern == NULL ||
			(strcmp(last, "*") != 0 && !cvx_options_is_table_name(last)) ||
			!cvx_options_is_component(pnstrdup(pattern, slash ? slash - pattern : 0)))
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("invalid table pattern \"%s\"", pattern ? pattern : "NULL"),
					 errhint("Write *, table, component/table or component/*.")));
		patterns = lappend(patterns, pattern);
	}
	if (n == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("tables must not be empty")));
	return patterns;
}

/* Several tables share one walk, which needs a server that obeys selections. */
static void
check_server(CvxHttp *http, ForeignServer *server, int ntables)
{
	static const CvxSelection nothing = {0};
	static const CvxPageWant any = {0};
	CvxCall    *call;
	CvxPage    *page;

	if (ntables < 2)
		return;
	call = cvx_api_list_snapshot(http, NULL, &nothing, 0, NULL);
	page = cvx_api_page(call, http, &any);
	if (page->ndocs > 0 || page->has_more)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("Convex server \"%s\" does not obey the selection of tables",
						server->servername),
				 errhint("Update the Convex server.")));
	cvx_http_free(call);
}

/*
 * The schema of the targets, owned by the subscription's owner.  Gives it if it
 * was not there before.
 */
static Oid
make_schema(const char *name, Oid owner)
{
	Oid			schema = get_namespace_oid(name, true);

	if (OidIsValid(schema))
		return InvalidOid;
	if (cvx_database_aclcheck(MyDatabaseId, owner) != ACLCHECK_OK)
		aclcheck_error(ACLCHECK_NO_PRIV, OBJECT_DATABASE,
					   get_database_name(MyDatabaseId));
	cvx_catalog_run(SPI_OK_UTILITY,
					psprintf("CREATE SCHEMA %s AUTHORIZATION %s", quote_identifier(name),
							 quote_identifier(GetUserNameFromId(owner, false))), "");
	return get_namespace_oid(name, false);
}

/*
 * A subscription ends; `schema` is the one that was made for it, or invalid.
 * Another one that has its mirrors there takes it over; else it goes with the
 * tables, with the rights of the caller, when nothing else is in it.
 */
static void
leave_schema(const CvxSubscription *sub, Oid schema, bool drops_tables)
{
	char	   *name = OidIsValid(schema) ? get_namespace_name(schema) : NULL;
	HeapTuple	tuple;
	bool		is_ours;

	/* Who has renamed it, or given it away, keeps it. */
	if (name == NULL || strcmp(name, sub->target_schema) != 0)
		return;
	cvx_catalog_run(SPI_OK_UPDATE,
					"UPDATE @.convex_subscription SET schema_oid = $1 WHERE subid ="
					" (SELECT min(subid) FROM @.convex_subscription WHERE target_schema = $2::name)",
					"ot", schema, name);
	if (SPI_processed > 0 || !drops_tables)
		return;
	tuple = SearchSysCache1(NAMESPACEOID, ObjectIdGetDatum(schema));
	is_ours = HeapTupleIsValid(tuple) &&
		((Form_pg_namespace) GETSTRUCT(tuple))->nspowner == sub->owner;
	if (HeapTupleIsValid(tuple))
		ReleaseSysCache(tuple);
	if (!is_ours)
		return;
	cvx_catalog_run(SPI_OK_SELECT,
					"SELECT FROM pg_depend WHERE (refclassid = 'pg_namespace'::regclass AND refobjid = $1)"
					" OR (classid = 'pg_namespace'::regclass AND objid = $1)", "o",
					schema);
	if (SPI_processed == 0)
		SPI_execute(psprintf("DROP SCHEMA %s RESTRICT", quote_identifier(name)),
					false, 0);
}

/* Each table that was named must be there. */
static void
check_found(CvxSubscription *sub)
{
	Oid			schema = get_namespace_oid(sub->target_schema, false);
	ListCell   *lc;
	ListCell   *lc2;

	foreach(lc, sub->patterns)
	{
		char	   *pattern = lfirst(lc);
		bool		is_found = strchr(pattern, '*') != NULL;

		foreach(lc2, sub->rels)
		{
			CvxSubRel  *rel = lfirst(lc2);

			is_found |= strcmp(pattern, psprintf("%s%s%s", rel->component,
												 rel->component[0] ? "/" : "",
												 rel->table)) == 0;
		}
		if (!is_found)
			ereport(ERROR,
					(errcode(ERRCODE_FDW_TABLE_NOT_FOUND),
					 errmsg("Convex server \"%s\" has no table \"%s\"", sub->server, pattern),
					 errhint("convex_tables('%s') lists what it has.", sub->server)));
	}
	foreach(lc, sub->rels)
		if (!OidIsValid(((CvxSubRel *) lfirst(lc))->target) &&
			cvx_schema_aclcheck(schema, sub->owner) != ACLCHECK_OK)
			aclcheck_error(ACLCHECK_NO_PRIV, OBJECT_SCHEMA, sub->target_schema);
}

static void
begin_catalog(void)
{
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
}

/* A change is written; the worker looks.  Nothing of sub is there afterwards. */
static void
end_catalog(const CvxSubscription *sub)
{
	cvx_worker_wake(sub->subid);
	SPI_finish();
}

/*
 * The subscription that the role is to change, as it is between two steps.
 * Whoever writes the catalog locks this row first, then the state, then the
 * tables' rows: a step does the same.
 */
static CvxSubscription *
hold(const char *name)
{
	CvxSubscription *sub;

	refuse_read_only();
	sub = cvx_catalog_check(name);
	cvx_catalog_run(SPI_OK_SELECT,
					"SELECT FROM @.convex_subscription WHERE subid = $1 FOR UPDATE",
					"i", sub->subid);
	sub = cvx_catalog_check(name);
	cvx_catalog_follow(sub);
	return sub;
}

/* Another server; if its deployment is another one all is loaded again. */
static void
choose_server(const CvxSubscription *sub, const char *name)
{
	ForeignServer *server = GetForeignServerByName(name, false);

	if (cvx_catalog_server(name) == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("server \"%s\" is not a server of convex_fdw", name)));
	if (OidIsValid(sub->owner) &&
		cvx_server_aclcheck(server->serverid, sub->owner) != ACLCHECK_OK)
		aclcheck_error(ACLCHECK_NO_PRIV, OBJECT_FOREIGN_SERVER, name);
	cvx_catalog_run(SPI_OK_UPDATE,
					"UPDATE @.convex_subscription SET server = $2::name, server_oid = $3 WHERE subid = $1",
					"ito", sub->subid, name, server->serverid);
}

/* Another owner, whom the role can act for. */
static void
give_to(const CvxSubscription *sub, const char *name)
{
	Oid			owner = get_role_oid(name, false);

	cvx_check_can_become(GetUserId(), owner);
	cvx_catalog_run(SPI_OK_UPDATE,
					"UPDATE @.convex_subscription SET owner = $2::name, owner_oid = $3 WHERE subid = $1",
					"ito", sub->subid, name, owner);
}

/* About how many locks the drop of one table of a subscription needs. */
static int
locks_of_drop(const CvxSubscription *sub, const CvxSubRel *rel,
			  bool drops_target)
{
	CvxSubRel	staging = {.target = InvalidOid};
	int			nstaging = cvx_apply_count_locks(sub, &staging);

	return (rel->is_staged ? nstaging : 0) +
		(drops_target && OidIsValid(rel->target) ?
		 cvx_apply_count_locks(sub, rel) - nstaging : 0);
}

/*
 * What the caller's transaction drops must leave others room in the table of
 * locks.
 */
static void
check_locks(const CvxSubscription *sub, bool drops_tables)
{
	int			most = cvx_apply_lock_slots() / LOCK_TABLE_PART;
	int			nlocks = 0;
	ListCell   *lc;

	foreach(lc, sub->rels)
		nlocks += locks_of_drop(sub, lfirst(lc), drops_tables);
	if (nlocks > most)
		ereport(ERROR,
				(errcode(ERRCODE_OUT_OF_MEMORY),
				 errmsg("tables of subscription \"%s\" are too many to be dropped in one transaction",
						sub->name),
				 errdetail("About %d locks are needed, and %d may be taken at once.",
						   nlocks, most),
				 drops_tables ?
				 errhint("CALL convex_drop_tables('%s') first, which takes several transactions, or increase max_locks_per_transaction.",
						 sub->name) :
				 errhint("Let the load end, or increase max_locks_per_transaction.")));
}

/* With the rights of the caller. */
static void
drop_target(const CvxSubRel *rel)
{
	SPI_execute(psprintf("DROP TABLE %s",
						 quote_qualified_identifier(rel->target_schema,
													rel->target_name)),
				false, 0);
}

/*
 * In one transaction: disable a subscription, and drop some of its tables;
 * false when there were none left.
 */
static bool
drop_portion(const char *name)
{
	int			budget = cvx_apply_lock_slots() / LOCK_TABLE_PORTION;
	int			nlocks = 0;
	bool		is_dropping = false;
	CvxSubscription *sub;
	ListCell   *lc;

	CHECK_FOR_INTERRUPTS();
	host_begin();
	sub = hold(name);
	if (sub->is_enabled)
	{
		cvx_catalog_run(SPI_OK_UPDATE,
						"UPDATE @.convex_subscription SET enabled = false WHERE subid = $1",
						"i", sub->subid);
		cvx_state_ask(sub->subid, false);
		cvx_launcher_wake();
	}
	foreach(lc, sub->rels)
	{
		CvxSubRel  *rel = lfirst(lc);

		if (!rel->is_staged && !OidIsValid(rel->target))
			continue;
		nlocks += locks_of_drop(sub, rel, true);
		if (is_dropping && nlocks > budget)
			break;
		is_dropping = true;
		if (rel->load == CVX_LOAD_WALKING)
			cvx_state_abandon(sub, false, "tables are dropped");
		if (rel->load != CVX_LOAD_NONE)
			cvx_state_want(sub, rel, CVX_START_NEW, NULL, "tables are dropped");
		cvx_catalog_drop_staging(sub, rel);
		cvx_state_unstage(sub, rel);
		if (OidIsValid(rel->target))
			drop_target(rel);
	}
	cvx_worker_wake(sub->subid);
	host_commit();
	return is_dropping;
}

/*
 * Step one subscription to the head.  One that fails throws when it is alone;
 * otherwise it gives a WARNING and false.
 */
static bool
sync_one(int32 subid, const char *name, bool is_alone, int *max_pages)
{
	CvxSync    *sync = cvx_sync_open(subid, &call_host);
	TimestampTz told_at = GetCurrentTimestamp();
	MemoryContext cxt = CurrentMemoryContext;
	ErrorData  *volatile failure = NULL;
	volatile bool is_done = false;
	volatile bool has_failed = false;
	volatile bool has_stepped = false;
	volatile bool is_good = true;

	cvx_sync_end_pauses(sync);
	PG_TRY();
	{
		while (!is_done && cvx_sync_pages(sync) < *max_pages)
		{
			CvxStep		outcome;

			CHECK_FOR_INTERRUPTS();
			outcome = cvx_sync_step(sync);
			has_stepped |= outcome != CVX_STEP_BUSY_ELSEWHERE;
			cvx_process_tell(subid);
			switch (outcome)
			{
				case CVX_STEP_WORKED:
					if (TimestampDifferenceExceeds(told_at, GetCurrentTimestamp(), 5000))
					{
						told_at = GetCurrentTimestamp();
						ereport(NOTICE,
								(errmsg("subscription \"%s\": %d pages", name,
										cvx_sync_pages(sync))));
					}
					break;
				case CVX_STEP_IDLE:
					if (cvx_sync_is_waiting(sync))
						pause_ms(LOOK_MS);
					else
						is_done = true;
					break;
				case CVX_STEP_FAILED:
					/* What fails beside the changes is told after them. */
					is_done = has_failed = !cvx_sync_fails_aside(sync);
					break;
				case CVX_STEP_BUSY_ELSEWHERE:
					MemoryContextSwitchTo(cxt);
					if (cvx_sync_holder(sync) == 0)
					{
						/* It has left meanwhile. */
						pause_ms(LOOK_MS);
						break;
					}
					if (cvx_sync_holder(sync) == cvx_process_pid(MyDatabaseId, subid))
					{
						ErrorData  *error = NULL;

						is_done = wait_for_worker(sync, subid, name, &error);
						failure = error;
						break;
					}
					is_done = true;
					ereport(is_alone ? ERROR : NOTICE,
							(errcode(ERRCODE_OBJECT_IN_USE),
							 errmsg("subscription \"%s\" is already running", name),
							 errdetail("Process %d follows it.", cvx_sync_holder(sync))));
					break;
				case CVX_STEP_GONE:
					is_done = true;
					break;
			}
		}
		*max_pages -= cvx_sync_pages(sync);
		if (failure)
		{
			ereport(is_alone ? ERROR : WARNING,
					(errcode(failure->sqlerrcode),
					 is_alone ? errmsg_internal("%s", failure->message) :
					 errmsg("subscription \"%s\": %s", name, failure->message),
					 errdetail("The subscription's worker has failed.")));
			is_good = false;
		}
		else if (has_failed || cvx_sync_fails_aside(sync))
		{
			if (is_alone)
				cvx_sync_rethrow(sync);
			ereport(WARNING,
					(errmsg("subscription \"%s\": %s", name,
							cvx_sync_failure(sync))));
			is_good = false;
		}
	}
	PG_FINALLY();
	{
		cvx_sync_close(sync);
		ConditionVariableCancelSleep();
	}
	PG_END_TRY();

	/* A worker that found the subscription busy goes on at once. */
	if (has_stepped)
		cvx_worker_wake(subid);
	if (is_good)
		tell_waiting(subid, name);
	return is_good;
}

/* A WARNING when tables of a subscription that works wait for themselves. */
static void
tell_waiting(int32 subid, const char *name)
{
	int64		n;

	host_begin();
	cvx_catalog_run(SPI_OK_SELECT,
					"SELECT count(*) OVER (), table_name, coalesce(error_message, '')"
					" FROM @.convex_subscription_rel WHERE subid = $1 AND state <> 'dropped'"
					" AND retry_at > clock_timestamp() ORDER BY retry_at LIMIT 1", "i", subid);
	n = SPI_processed > 0 ? cvx_catalog_int64(0, 1) : 0;
	if (n > 0)
		ereport(WARNING,
				(errmsg_plural("table \"%s\" of subscription \"%s\" has to wait: %s",
							   "table \"%s\" and others of subscription \"%s\" have to wait: %s",
							   n, cvx_catalog_text(0, 2), name, cvx_catalog_text(0, 3)),
				 errhint("See waits_for and retry_at in convex_stat_subscription_rel.")));
	host_commit();
}

/*
 * The worker steps the subscription: make it work at once, and wait until it
 * has reached the head as of now.  False when it ends before: then the caller
 * steps.  What the worker fails with meanwhile is left in *failure.
 */
static bool
wait_for_worker(CvxSync *sync, int32 subid, const char *name, ErrorData **failure)
{
	int			worker = cvx_sync_holder(sync);
	int64		head = cvx_api_sure_head(connect_to(name));
	Mark		mark = {false};
	long		pause = LOOK_MS;
	bool		is_woken = false;

	while (!has_ended(subid, head, &mark, failure))
	{
		if (cvx_process_pid(MyDatabaseId, subid) != worker)
			return false;
		if (!is_woken)
			cvx_worker_wake(subid);
		is_woken = true;
		cvx_process_await(subid, pause);
		pause = Min(pause * 2, cvx_process_table ? HOLDER_MS : LONGEST_LOOK_MS);
	}
	return true;
}

/* The deployment of a subscription, with the mapping of its owner. */
static CvxHttp *
connect_to(const char *name)
{
	MemoryContext cxt = CurrentMemoryContext;
	CvxSubscription *sub;
	CvxHttp    *http;

	host_begin();
	sub = cvx_catalog_check(name);
	cvx_catalog_check_server(sub);
	MemoryContextSwitchTo(cxt);
	http = cvx_http_open(cvx_options_remote(sub->serverid, sub->owner));
	host_commit();
	MemoryContextSwitchTo(cxt);
	return http;
}

/*
 * Has the worker asked Convex since the first look, and is nothing left to be
 * done up to the head?  What waits by itself, such as a table whose target is
 * broken, is not waited for.  A new failure ends it as well.
 */
static bool
has_ended(int32 subid, int64 head, Mark *mark, ErrorData **failure)
{
	MemoryContext cxt = CurrentMemoryContext;
	bool		result = true;

	host_begin();
	cvx_catalog_run(SPI_OK_SELECT,
					"SELECT NOT s.enabled OR st.phase = 'load_too_slow',"
					" st.cursor >= $2 AND NOT st.reload AND NOT " CHECK_IS_ASKED_FOR
					" AND NOT EXISTS (SELECT FROM @.convex_subscription_rel AS r WHERE r.subid = $1 AND r.load IS NOT NULL"
					" AND (r.retry_at IS NULL OR r.retry_at <= clock_timestamp())),"
					" (extract(epoch FROM st.applied_at) * 1000000)::bigint, (extract(epoch FROM st.last_error_at) * 1000000)::bigint,"
					" st.failures, st.last_error_code, st.last_error_message"
					" FROM @.convex_subscription AS s JOIN @.convex_subscription_state AS st USING (subid) WHERE subid = $1",
					"il", subid, head);
	if (SPI_processed > 0)
	{
		int64		applied_at = cvx_catalog_int64(0, 3);
		int64		failed_at = cvx_catalog_int64(0, 4);

		if (!mark->is_set)
		{
			mark->is_set = true;
			mark->applied_at = applied_at;
			mark->failed_at = failed_at;
		}
		result = cvx_catalog_bool(0, 1) ||
			(cvx_catalog_bool(0, 2) && applied_at != mark->applied_at);
		if (!result && failed_at != mark->failed_at &&
			cvx_catalog_int64(0, 5) > 0)
		{
			const char *code = cvx_catalog_text(0, 6);
			const char *message = cvx_catalog_text(0, 7);

			*failure = MemoryContextAllocZero(cxt, sizeof(ErrorData));
			(*failure)->sqlerrcode = code && strlen(code) == 5 ?
				MAKE_SQLSTATE(code[0], code[1], code[2], code[3], code[4]) :
				ERRCODE_FDW_ERROR;
			(*failure)->message = MemoryContextStrdup(cxt, message ? message : "failed");
			result = true;
		}
	}
	host_commit();
	MemoryContextSwitchTo(cxt);
	return result;
}

/* Only who can write can keep a subscription. */
static void
refuse_read_only(void)
{
	if (RecoveryInProgress())
		ereport(ERROR,
				(errcode(ERRCODE_READ_ONLY_SQL_TRANSACTION),
				 errmsg("cannot run or change a subscription on a standby server"),
				 errhint("Use the primary server, from which the rows are replicated.")));
	if (XactReadOnly)
		ereport(ERROR,
				(errcode(ERRCODE_READ_ONLY_SQL_TRANSACTION),
				 errmsg("cannot run or change a subscription in a read-only transaction")));
}

static void
host_begin(void)
{
	/* A step looks at what others commit meanwhile, whatever the session's default. */
	if (!FirstSnapshotSet)
		XactIsoLevel = XACT_READ_COMMITTED;
	PushActiveSnapshot(GetTransactionSnapshot());
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
}

static void
host_commit(void)
{
	SPI_finish();
	PopActiveSnapshot();
	SPI_commit();
}

/* After an error: the connections within ours are left behind. */
static void
host_rollback(void)
{
	while (!SPI_inside_nonatomic_context())
		if (SPI_finish() != SPI_OK_FINISH)
			elog(ERROR, "SPI is not connected");

	/* Since the first commit there are no snapshots of portals. */
	while (ActiveSnapshotSet())
		PopActiveSnapshot();
	SPI_rollback();
}

static void
pause_ms(long ms)
{
	(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
					 ms, CVX_WAIT_EVENT);
	ResetLatch(MyLatch);
	CHECK_FOR_INTERRUPTS();
}

/* The enabled subscriptions that the role may run. */
static List *
own_subscriptions(void)
{
	List	   *result = NIL;
	int32	   *subids;
	uint64		n;

	cvx_catalog_run(SPI_OK_SELECT,
					"SELECT subid FROM @.convex_subscription WHERE enabled ORDER BY subid", "");
	n = SPI_processed;
	subids = palloc(sizeof(int32) * Max(n, 1));
	for (uint64 i = 0; i < n; i++)
		subids[i] = (int32) cvx_catalog_int64(i, 1);
	for (uint64 i = 0; i < n; i++)
	{
		CvxSubscription *sub = cvx_catalog_load(subids[i]);

		if (sub && sub->is_enabled && OidIsValid(sub->owner) &&
			has_privs_of_role(GetUserId(), sub->owner))
			result = lappend(result, sub);
	}
	return result;
}

static void
look_for_goal(void *arg)
{
	Goal	   *goal = arg;
	CvxSubscription *sub = cvx_catalog_check(goal->name);

	cvx_catalog_check_server(sub);
	goal->subid = sub->subid;
	goal->serverid = sub->serverid;
	goal->owner = sub->owner;
	goal->is_enabled = sub->is_enabled;
}

static void
look_whether_reached(void *arg)
{
	Goal	   *goal = arg;

	cvx_catalog_run(SPI_OK_SELECT,
					"SELECT st.cursor >= $2 AND NOT " CHECK_IS_ASKED_FOR
					" AND NOT EXISTS (SELECT FROM @.convex_subscription_rel AS r"
					" WHERE r.subid = $1 AND r.state <> 'ready' AND r.state <> 'dropped')"
					" AND NOT EXISTS (SELECT FROM @.convex_subscription_rel AS r JOIN pg_class AS c ON c.oid = r.target_oid"
					" WHERE r.subid = $1 AND r.state = 'ready' AND r.copied_rows > 0 AND c.relkind = 'r'"
					" AND c.relpersistence = 'u' AND pg_relation_size(c.oid) = 0)"
					" FROM @.convex_subscription_state AS st WHERE st.subid = $1",
					"il", goal->subid, goal->ts);
	if (SPI_processed != 1)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("the subscription was dropped")));
	goal->is_reached = cvx_catalog_bool(0, 1);
}

static void
look_who_follows(void *arg)
{
	Goal	   *goal = arg;

	goal->is_followed = cvx_catalog_pid(goal->subid) != 0;
}

/*
 * Nobody follows the subscription: throws unless a worker is going to.  is_new:
 * not for long, so that the launcher may be about to start one.
 */
static void
expect_worker(const char *name, int32 subid, bool is_launched, bool is_new)
{
	char	   *stuck = NULL;

	if (is_launched &&
		(cvx_process_is_queued(MyDatabaseId, subid, &stuck) || is_new) &&
		stuck == NULL)
	{
		cvx_process_press(MyDatabaseId, subid);
		return;
	}
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("no process follows subscription \"%s\"", name),
			 stuck ? errdetail_internal("%s", stuck) : 0,
			 stuck ? errhint("Use CALL convex_sync('%s'), or increase the setting.", name) :
			 errhint("Use CALL convex_sync('%s').", name)));
}
