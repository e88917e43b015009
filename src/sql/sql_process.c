/*
 * sql_process.c
 *		What may a SQL user do to the processes of subscriptions?
 *
 * Room: sql 7.6
 */
#include "postgres.h"

#include <signal.h>

#include "access/htup_details.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/pg_authid.h"
#include "commands/dbcommands.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "storage/latch.h"
#include "storage/lock.h"
#include "storage/procarray.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "ground/compat.h"
#include "subscription/sub_catalog.h"
#include "subscription/sub_read.h"
#include "process/sub_process.h"

/* How long the functions wait for a process to come or go. */
#define WAIT_LIMIT_MS 30000

/* A subscription as the functions need it. */
typedef struct Found
{
	const char *name;
	CvxProcessOrder order;
	bool		is_enabled;
	bool		is_committed;
} Found;

static CvxProcessOrder subscription(const char *name, bool *is_enabled,
									bool *is_committed);
static void find(void *arg);
static int	await_launcher(const CvxProcessOrder *order);
static int	start_here(const CvxProcessOrder *order);
CVX_NORETURN static void fail_without_slot(const char *why);
CVX_NORETURN static void fail_to_start(const CvxProcessOrder *order);
static bool pause_briefly(TimestampTz begun);
static List *visible_to(Oid role, List *all);

PG_FUNCTION_INFO_V1(convex_start_worker);
PG_FUNCTION_INFO_V1(convex_stop_worker);
PG_FUNCTION_INFO_V1(convex_workers);

/*
 * convex_start_worker(name) -> integer
 *
 * The process of the subscription's worker, which is started if there is
 * none: by the launcher where there is one, else by this session.
 */
Datum
convex_start_worker(PG_FUNCTION_ARGS)
{
	const char *name = NameStr(*PG_GETARG_NAME(0));
	bool		is_enabled;
	bool		is_committed;
	CvxProcessOrder order;
	int			pid;

	if (RecoveryInProgress())
		ereport(ERROR,
				(errcode(ERRCODE_READ_ONLY_SQL_TRANSACTION),
				 errmsg("no worker can run during recovery")));
	order = subscription(name, &is_enabled, &is_committed);
	if (!is_enabled)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("subscription \"%s\" is disabled", name),
				 errhint("Enable it with convex_enable_subscription().")));
	if (cvx_process_table &&
		!cvx_process_has_room(order.dbid, order.subid))
		ereport(ERROR,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("no room for a worker of subscription \"%s\"", name),
				 errdetail("A server has room for %d subscriptions that are enabled.",
						   CVX_MAX_PROCESSES),
				 errhint("Use CALL convex_sync('%s').", name)));
	(void) cvx_process_hold(order.dbid, order.subid, false);
	pid = cvx_process_pid(order.dbid, order.subid);

	/* A process sees what has been committed, and nothing else. */
	if (pid == 0 && !is_committed)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("subscription \"%s\" was created or changed by this transaction",
						name),
				 errhint("Commit it, then start its worker.")));
	if (pid == 0)
		pid = cvx_process_table && cvx_worker_enabled &&
			cvx_process_is_chosen(get_database_name(MyDatabaseId)) ?
			await_launcher(&order) : start_here(&order);
	else
		cvx_worker_wake(order.subid);
	PG_RETURN_INT32(pid);
}

/*
 * convex_stop_worker(name) -> boolean
 *
 * Ends the subscription's worker and keeps the launcher from starting it
 * again until convex_start_worker(), or until the server restarts.  True when
 * there was one.
 */
Datum
convex_stop_worker(PG_FUNCTION_ARGS)
{
	bool		is_enabled;
	bool		is_committed;
	CvxProcessOrder order = subscription(NameStr(*PG_GETARG_NAME(0)),
										 &is_enabled, &is_committed);
	TimestampTz begun = GetCurrentTimestamp();
	int			pid;

	(void) cvx_process_hold(order.dbid, order.subid, true);
	pid = cvx_process_pid(order.dbid, order.subid);
	if (pid == 0)
		PG_RETURN_BOOL(false);
	kill(pid, SIGTERM);
	while (cvx_process_pid(order.dbid, order.subid) == pid)
		if (!pause_briefly(begun))
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_IN_USE),
					 errmsg("worker with process %d does not end", pid)));
	PG_RETURN_BOOL(true);
}

/*
 * Name to number, for the owner and its members only.  Is it as another
 * process sees it?
 */
static CvxProcessOrder
subscription(const char *name, bool *is_enabled, bool *is_committed)
{
	Found		found = {.name = name};

	cvx_catalog_look(find, &found);
	*is_enabled = found.is_enabled;
	*is_committed = found.is_committed;
	return found.order;
}

static void
find(void *arg)
{
	Found	   *found = arg;
	CvxSubscription *sub;

	cvx_catalog_run(SPI_OK_SELECT,
					"SELECT xmin FROM @.convex_subscription WHERE name = $1::name",
					"t", found->name);
	found->is_committed = SPI_processed == 1 &&
		!TransactionIdIsCurrentTransactionId((TransactionId) cvx_catalog_int64(0, 1));
	sub = cvx_catalog_check(found->name);
	found->order.dbid = MyDatabaseId;
	found->order.subid = sub->subid;
	found->order.owner = sub->owner;
	namestrcpy(&found->order.name, sub->name);
	found->is_enabled = sub->is_enabled;
}

/* Let the launcher start it. */
static int
await_launcher(const CvxProcessOrder *order)
{
	TimestampTz begun = GetCurrentTimestamp();
	int			pid;

	cvx_process_look(order->dbid);
	while ((pid = cvx_process_pid(order->dbid, order->subid)) == 0)
	{
		char	   *stuck;
		bool		is_queued = cvx_process_is_queued(order->dbid, order->subid,
													  &stuck);

		if (stuck)
			fail_without_slot(stuck);
		if (pause_briefly(begun))
			continue;
		if (is_queued)
			fail_without_slot("Subscriptions take turns, and the time to wait is over.");
		fail_to_start(order);
	}
	return pid;
}

static void
fail_without_slot(const char *why)
{
	ereport(ERROR,
			(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
			 errmsg("no free background worker slot"),
			 why ? errdetail_internal("%s", why) : 0,
			 errhint("You might need to increase max_worker_processes or convex_fdw.max_workers.")));
}

static void
fail_to_start(const CvxProcessOrder *order)
{
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("worker of subscription \"%s\" did not start",
					NameStr(order->name)),
			 errhint("The server's log may say why.")));
}

/* Start it from here, unless another session has done so meanwhile. */
static int
start_here(const CvxProcessOrder *given)
{
	CvxProcessOrder order = *given;
	BackgroundWorkerHandle *handle;
	TimestampTz begun;
	BgwHandleStatus status;
	LOCKTAG		lock;
	int			found;
	pid_t		pid;

	SET_LOCKTAG_ADVISORY(lock, MyDatabaseId, cvx_catalog_relid(), order.subid,
						 CVX_LOCK_START);
	(void) LockAcquire(&lock, ExclusiveLock, false, false);
	found = cvx_process_pid(order.dbid, order.subid);
	if (found != 0)
	{
		LockRelease(&lock, ExclusiveLock, false);
		return found;
	}
	order.is_manual = true;
	begun = GetCurrentTimestamp();
	if (!cvx_process_register("convex_worker_main", CVX_WORKER_TYPE, &order,
							  &handle))
		fail_without_slot(NULL);
	status = WaitForBackgroundWorkerStartup(handle, &pid);

	/* Until it can be found by convex_stop_worker(). */
	while (status == BGWH_STARTED &&
		   (found = cvx_process_pid(order.dbid, order.subid)) == 0)
	{
		if (!pause_briefly(begun))
			break;
		status = GetBackgroundWorkerPid(handle, &pid);
	}
	if (found == 0)
		fail_to_start(&order);
	LockRelease(&lock, ExclusiveLock, false);
	return found;
}

/* A moment; false when all of the time is up. */
static bool
pause_briefly(TimestampTz begun)
{
	(void) WaitLatch(MyLatch,
					 WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
					 10, CVX_WAIT_EVENT);
	ResetLatch(MyLatch);
	CHECK_FOR_INTERRUPTS();
	return !TimestampDifferenceExceeds(begun, GetCurrentTimestamp(),
									   WAIT_LIMIT_MS);
}

/*
 * convex_workers() -> setof (database oid, subid, name, pid, state, since)
 *
 * What the launcher knows, of every database; nothing without preload.  Roles
 * that do not read all statistics see what their own subscriptions have, and
 * how many of this database have no room.
 */
Datum
convex_workers(PG_FUNCTION_ARGS)
{
	FuncCallContext *call;
	List	   *list;
	CvxProcessInfo *info;
	Datum		values[6];
	bool		nulls[6] = {false};

	if (SRF_IS_FIRSTCALL())
	{
		MemoryContext old;
		TupleDesc	desc;

		call = SRF_FIRSTCALL_INIT();
		old = MemoryContextSwitchTo(call->multi_call_memory_ctx);
		if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
			elog(ERROR, "return type must be a row type");
		call->tuple_desc = BlessTupleDesc(desc);
		list = visible_to(GetUserId(), cvx_process_list());
		call->user_fctx = list;
		call->max_calls = list_length(list);
		MemoryContextSwitchTo(old);
	}
	call = SRF_PERCALL_SETUP();
	if (call->call_cntr >= call->max_calls)
		SRF_RETURN_DONE(call);

	info = (CvxProcessInfo *) list_nth((List *) call->user_fctx,
									   (int) call->call_cntr);
	values[0] = ObjectIdGetDatum(info->dbid);
	values[1] = Int32GetDatum(info->subid);
	values[2] = NameGetDatum(&info->name);
	nulls[1] = nulls[2] = info->subid == 0;
	values[3] = Int32GetDatum(info->pid);
	nulls[3] = info->pid == 0;
	values[4] = CStringGetTextDatum(info->state);
	values[5] = TimestampTzGetDatum(info->since);
	nulls[5] = info->since == 0;
	SRF_RETURN_NEXT(call,
					HeapTupleGetDatum(heap_form_tuple(call->tuple_desc, values,
													  nulls)));
}

/* Those of a list of CvxProcessInfo that the role may see. */
static List *
visible_to(Oid role, List *all)
{
	List	   *visible = NIL;
	ListCell   *lc;

	if (has_privs_of_role(role, ROLE_PG_READ_ALL_STATS))
		return all;
	foreach(lc, all)
	{
		CvxProcessInfo *info = lfirst(lc);

		if (info->subid == 0 ? info->dbid == MyDatabaseId :
			has_privs_of_role(role, info->owner))
			visible = lappend(visible, info);
	}
	return visible;
}
