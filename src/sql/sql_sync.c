/*
 * sql_sync.c
 *		How does a SQL user run a subscription, or wait for it?
 *
 * CALL convex_sync() steps it in transactions of its own; who waits looks at
 * the catalog, and at what its worker does.
 *
 * Room: sql 7.4
 */
#include "postgres.h"

#include "access/xact.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "storage/latch.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "ground/compat.h"
#include "protocol/api.h"
#include "shape/options_read.h"
#include "subscription/sub_catalog.h"
#include "subscription/sub_read.h"
#include "subscription/sub_sync.h"
#include "process/sub_process.h"
#include "sql/sql_sync.h"

/* A launcher starts a worker sooner. */
#define LAUNCH_MS	10000

/*
 * How often convex_sync() tries to walk, and how often one who waits looks:
 * where nobody can wake it, at first and later on.
 */
#define LOOK_MS		20
#define LONGEST_LOOK_MS	100

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

/* One subscription in one CALL. */
typedef struct Run
{
	CvxSync    *sync;
	int32		subid;
	const char *name;
	bool		is_alone;		/* what fails throws */
	TimestampTz told_at;		/* the last NOTICE */
	MemoryContext cxt;
	bool		is_done;
	bool		has_failed;
	bool		has_stepped;	/* not only waited for who does */
	ErrorData  *failure;		/* of the worker that was waited for */
} Run;

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

static bool sync_one(int32 subid, const char *name, bool is_alone,
					 int *max_pages);
static void run_step(Run *run);
static void wait_for_holder(Run *run);
static bool tell_failure(Run *run);
static void tell_waiting(int32 subid, const char *name);
static bool wait_for_worker(CvxSync *sync, int32 subid, const char *name,
							ErrorData **failure);
static CvxHttp *connect_to(const char *name);
static bool has_ended(int32 subid, int64 head, Mark *mark,
					  ErrorData **failure);
static void rollback(void);
static void pause_ms(long ms);
static List *own_subscriptions(void);
static void look_for_goal(void *arg);
static void look_whether_reached(void *arg);
static void look_who_follows(void *arg);
static void expect_worker(const char *name, int32 subid, bool is_launched,
						  bool is_new);

PG_FUNCTION_INFO_V1(convex_wait_for);
PG_FUNCTION_INFO_V1(convex_sync);

static const CvxSyncHost call_host = {
	cvx_call_begin, cvx_call_commit, rollback, false
};

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
	cvx_call_refuse_read_only();
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
	cvx_call_begin();
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
	cvx_call_commit();
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
 * Step one subscription to the head.  One that fails throws when it is alone;
 * otherwise it gives a WARNING and false.
 */
static bool
sync_one(int32 subid, const char *name, bool is_alone, int *max_pages)
{
	CvxSync    *sync = cvx_sync_open(subid, &call_host);
	Run			run = {sync, subid, name, is_alone,
	.told_at = GetCurrentTimestamp(),.cxt = CurrentMemoryContext};
	volatile bool is_good = false;

	cvx_sync_end_pauses(sync);
	PG_TRY();
	{
		while (!run.is_done && cvx_sync_pages(sync) < *max_pages)
			run_step(&run);
		*max_pages -= cvx_sync_pages(sync);
		is_good = tell_failure(&run);
	}
	PG_FINALLY();
	{
		cvx_sync_close(sync);
		ConditionVariableCancelSleep();
	}
	PG_END_TRY();

	/* A worker that found the subscription busy goes on at once. */
	if (run.has_stepped)
		cvx_worker_wake(subid);
	if (is_good)
		tell_waiting(subid, name);
	return is_good;
}

static void
run_step(Run *run)
{
	CvxStep		outcome;

	CHECK_FOR_INTERRUPTS();
	outcome = cvx_sync_step(run->sync);
	run->has_stepped |= outcome != CVX_STEP_BUSY_ELSEWHERE;
	cvx_process_tell(run->subid);
	switch (outcome)
	{
		case CVX_STEP_WORKED:
			if (!TimestampDifferenceExceeds(run->told_at, GetCurrentTimestamp(), 5000))
				break;
			run->told_at = GetCurrentTimestamp();
			ereport(NOTICE,
					(errmsg("subscription \"%s\": %d pages", run->name,
							cvx_sync_pages(run->sync))));
			break;
		case CVX_STEP_IDLE:
			if (cvx_sync_is_waiting(run->sync))
				pause_ms(LOOK_MS);
			else
				run->is_done = true;
			break;
		case CVX_STEP_FAILED:
			/* What fails beside the changes is told after them. */
			run->is_done = run->has_failed = !cvx_sync_fails_aside(run->sync);
			break;
		case CVX_STEP_BUSY_ELSEWHERE:
			MemoryContextSwitchTo(run->cxt);
			wait_for_holder(run);
			break;
		case CVX_STEP_GONE:
			run->is_done = true;
			break;
	}
}

/* Another process steps the subscription: wait for a worker, not for a CALL. */
static void
wait_for_holder(Run *run)
{
	int			holder = cvx_sync_holder(run->sync);

	/* It has left meanwhile. */
	if (holder == 0)
		pause_ms(LOOK_MS);
	else if (holder == cvx_process_pid(MyDatabaseId, run->subid))
		run->is_done = wait_for_worker(run->sync, run->subid, run->name, &run->failure);
	else
	{
		run->is_done = true;
		ereport(run->is_alone ? ERROR : NOTICE,
				(errcode(ERRCODE_OBJECT_IN_USE),
				 errmsg("subscription \"%s\" is already running", run->name),
				 errdetail("Process %d follows it.", holder)));
	}
}

/* False when the run has failed. */
static bool
tell_failure(Run *run)
{
	if (run->failure)
		ereport(run->is_alone ? ERROR : WARNING,
				(errcode(run->failure->sqlerrcode),
				 run->is_alone ? errmsg_internal("%s", run->failure->message) :
				 errmsg("subscription \"%s\": %s", run->name, run->failure->message),
				 errdetail("The subscription's worker has failed.")));
	else if (run->has_failed || cvx_sync_fails_aside(run->sync))
	{
		if (run->is_alone)
			cvx_sync_rethrow(run->sync);
		ereport(WARNING,
				(errmsg("subscription \"%s\": %s", run->name,
						cvx_sync_failure(run->sync))));
	}
	else
		return true;
	return false;
}

/* A WARNING when tables of a subscription that works wait for themselves. */
static void
tell_waiting(int32 subid, const char *name)
{
	int64		n;

	cvx_call_begin();
	cvx_catalog_run(SPI_OK_SELECT,
					"SELECT count(*) OVER (), table_name, coalesce(error_message, '')"
					" FROM @.convex_subscription_rel WHERE subid = $1 AND state <> 'dropped'"
					" AND retry_at > clock_timestamp() ORDER BY retry_at LIMIT 1", "i", subid);
	n = SPI_processed > 0 ? cvx_catalog_int64(0, 1) : 0;
	if (n > 0)
		ereport(WARNING,
				(errmsg_plural("table \"%s\" of subscription \"%s\" is waiting: %s",
							   "table \"%s\" and others of subscription \"%s\" have to wait: %s",
							   n, cvx_catalog_text(0, 2), name, cvx_catalog_text(0, 3)),
				 errhint("See waits_for and retry_at in convex_stat_subscription_rel.")));
	cvx_call_commit();
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

	cvx_call_begin();
	sub = cvx_catalog_check(name);
	cvx_catalog_check_server(sub);
	MemoryContextSwitchTo(cxt);
	http = cvx_http_open(cvx_options_remote(sub->serverid, sub->owner));
	cvx_call_commit();
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

	cvx_call_begin();
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
	cvx_call_commit();
	MemoryContextSwitchTo(cxt);
	return result;
}

/* Only who can write can keep a subscription. */
void
cvx_call_refuse_read_only(void)
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

void
cvx_call_begin(void)
{
	/* A step looks at what others commit meanwhile, whatever the session's default. */
	if (!FirstSnapshotSet)
		XactIsoLevel = XACT_READ_COMMITTED;
	PushActiveSnapshot(GetTransactionSnapshot());
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
}

void
cvx_call_commit(void)
{
	SPI_finish();
	PopActiveSnapshot();
	SPI_commit();
}

/* After an error: the connections within ours are left behind. */
static void
rollback(void)
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
