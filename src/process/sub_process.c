/*
 * sub_process.c
 *		Which processes exist, and which must stay away?
 *
 * The table in shared memory that launcher, workers, probes and sessions
 * share when the library is preloaded, and what sessions do to it: wake,
 * hold, and keep everybody out of a database that is being dropped, renamed,
 * moved or copied.  It does not decide who is started: sub_launcher.c.
 *
 * 1. A process enters itself under the same lock under which it looks for
 *	  bars.  So either it sees the bar, or the one who set the bar sees it.
 * 2. Bars and orders to look end with the transaction that made them; what a
 *	  transaction announces is announced at its commit.
 * 3. Nothing that runs at the end of a transaction throws.
 * 4. Without preload there is no table: workers are found by what they report
 *	  to pg_stat_activity.
 *
 * Room: process 6.1
 */
#include "postgres.h"

#include <signal.h>

#include "access/xact.h"
#include "commands/dbcommands.h"
#include "commands/defrem.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "pgstat.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/procarray.h"
#include "storage/shmem.h"
#include "tcop/utility.h"
#include "utils/backend_status.h"
#include "utils/varlena.h"

#include "ground/compat.h"
#include "subscription/sub_catalog.h"
#include "process/sub_process.h"

/* How long a command waits for a database's workers to leave. */
#define LEAVE_LIMIT_MS 10000

/* A worker that lived shorter than this is started again with a pause. */
#define SHORT_LIFE_MS 10000

/* Who waits for a place while nobody gives one cannot count on it. */
#define STUCK_MS 10000

/* Pauses between the starts of a worker that ends at once. */
#define FIRST_PAUSE_MS 500
#define LONGEST_PAUSE_MS 60000

/* Workers that a transaction can wake at its commit; see cvx_worker_wake(). */
#define MAX_WOKEN CVX_MAX_PROCESSES

/* A subscription whose worker is woken at the commit. */
typedef struct Woken
{
	int32		subid;
	int			pid;			/* without the table; it cannot be looked up then */
} Woken;

CvxProcessTable *cvx_process_table = NULL;

bool		cvx_worker_enabled = true;
int			cvx_max_workers = 4;
static char *databases = NULL;

static shmem_startup_hook_type previous_shmem_startup = NULL;
static shmem_request_hook_type previous_shmem_request = NULL;
static ProcessUtility_hook_type previous_utility = NULL;

/* This process's place in the table; NULL when it has none. */
static CvxProcess *my_process = NULL;
static bool am_probe = false;

/* What this transaction does at its end; written by its functions. */
static bool is_xact_registered = false;
static bool has_bars = false;
static bool look_at_commit = false;
static int	nwoken = 0;
static Woken woken[MAX_WOKEN];

static bool check_databases(char **newval, void **extra, GucSource source);
static void on_shmem_request(void);
static void on_shmem_startup(void);
static void on_utility(PlannedStmt *pstmt, const char *query_string,
					   bool is_read_only, ProcessUtilityContext context,
					   ParamListInfo params, QueryEnvironment *environment,
					   DestReceiver *dest, QueryCompletion *completion);
static Oid	database_to_empty(Node *statement, ProcessUtilityContext context);
static const char *source_of(CreatedbStmt *statement);
static void keep_out(Oid dbid);
static bool have_left(Oid dbid, bool order);
static void at_xact_end(XactEvent event, void *arg);
static void watch_xact(void);
static void detach(int code, Datum arg);
static void ask(Oid dbid, int32 subid);
static void ask_process(int pid);
static int	reported_pid(Oid dbid, int32 subid);
static ConditionVariable *news_of(int32 subid);
static const char *state_of(const CvxProcess *process);

/*
 * Called once when the library is loaded; the part that needs shared memory
 * does nothing when that is not at the start of the server.
 */
void
cvx_process_init(void)
{
	DefineCustomBoolVariable("convex_fdw.worker_enabled",
							 "Whether the launcher runs the workers of subscriptions.",
							 "Off, it ends those that run. CALL convex_sync() works either way.",
							 &cvx_worker_enabled, true, PGC_SIGHUP, 0,
							 NULL, NULL, NULL);
	DefineCustomIntVariable("convex_fdw.max_workers",
							"How many subscriptions have a worker at the same time.",
							"Each takes one of max_worker_processes. More subscriptions take turns.",
							&cvx_max_workers, 4, 0, CVX_MAX_PROCESSES,
							PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomStringVariable("convex_fdw.databases",
							   "The databases whose subscriptions the launcher looks after.",
							   "A list of names. Empty: every database that allows connections and is no template.",
							   &databases, "", PGC_SIGHUP, GUC_LIST_INPUT,
							   check_databases, NULL, NULL);

	if (!process_shared_preload_libraries_in_progress)
		return;
	CVX_HOOK_SHMEM_REQUEST(previous_shmem_request, on_shmem_request);
	previous_shmem_startup = shmem_startup_hook;
	shmem_startup_hook = on_shmem_startup;
	previous_utility = ProcessUtility_hook;
	ProcessUtility_hook = on_utility;
}

static bool
check_databases(char **newval, void **extra, GucSource source)
{
	char	   *copy = pstrdup(*newval);
	List	   *names;
	bool		is_list = SplitIdentifierString(copy, ',', &names);

	if (!is_list)
		GUC_check_errdetail("List syntax is invalid.");
	list_free(names);
	pfree(copy);
	return is_list;
}

static void
on_shmem_request(void)
{
	cvx_previous_shmem_request(previous_shmem_request);
	RequestAddinShmemSpace(MAXALIGN(sizeof(CvxProcessTable)));
	RequestNamedLWLockTranche("convex_fdw", 1);
}

static void
on_shmem_startup(void)
{
	bool		found;

	if (previous_shmem_startup)
		previous_shmem_startup();
	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	cvx_process_table = ShmemInitStruct("convex_fdw processes",
										sizeof(CvxProcessTable), &found);
	if (!found)
	{
		memset(cvx_process_table, 0, sizeof(CvxProcessTable));
		cvx_process_table->lock = &GetNamedLWLockTranche("convex_fdw")->lock;
		for (int i = 0; i < CVX_MAX_NEWS; i++)
			ConditionVariableInit(&cvx_process_table->news[i]);
	}
	LWLockRelease(AddinShmemInitLock);
}

/* ------------------------------------------------------------------------
 * The table
 * ------------------------------------------------------------------------
 */

/*
 * The entry of a subscription, which is made when missing and wanted.  NULL
 * when there is none or no room.  The caller holds the lock.
 */
CvxProcess *
cvx_process_find(Oid dbid, int32 subid, bool create)
{
	CvxProcess *unused = NULL;

	for (int i = 0; i < CVX_MAX_PROCESSES; i++)
	{
		CvxProcess *process = &cvx_process_table->processes[i];

		if (process->dbid == dbid && process->subid == subid)
			return process;
		if (!OidIsValid(process->dbid) && unused == NULL)
			unused = process;
	}
	if (!create || unused == NULL)
		return NULL;
	memset(unused, 0, sizeof(CvxProcess));
	unused->dbid = dbid;
	unused->subid = subid;
	unused->due_at = GetCurrentTimestamp();
	return unused;
}

/* Does a command keep workers out of the database?  Caller holds the lock. */
bool
cvx_process_is_barred(Oid dbid)
{
	for (int i = 0; i < CVX_MAX_BARS; i++)
		if (cvx_process_table->bars[i].dbid == dbid)
			return true;
	return false;
}

/*
 * Note how many enabled subscriptions of a database have no entry, because
 * the table is full.  True when that is new.  The caller holds the lock.
 */
bool
cvx_process_note_overflow(Oid dbid, int count)
{
	CvxOverflow *overflow = NULL;

	for (int i = 0; i < CVX_MAX_LOOKS; i++)
	{
		CvxOverflow *candidate = &cvx_process_table->overflows[i];

		if (candidate->dbid == dbid)
		{
			overflow = candidate;
			break;
		}
		if (overflow == NULL && !OidIsValid(candidate->dbid))
			overflow = candidate;
	}
	if (overflow == NULL || (count == 0 && overflow->dbid != dbid))
		return false;
	if (count == 0)
	{
		memset(overflow, 0, sizeof(CvxOverflow));
		return false;
	}
	overflow->count = count;
	if (overflow->dbid == dbid)
		return false;
	overflow->dbid = dbid;
	overflow->since = GetCurrentTimestamp();
	return true;
}

/* Has a subscription an entry, or could it get one? */
bool
cvx_process_has_room(Oid dbid, int32 subid)
{
	bool		has_room = false;

	LWLockAcquire(cvx_process_table->lock, LW_SHARED);
	for (int i = 0; i < CVX_MAX_PROCESSES && !has_room; i++)
	{
		const CvxProcess *process = &cvx_process_table->processes[i];

		has_room = !OidIsValid(process->dbid) ||
			(process->dbid == dbid && process->subid == subid);
	}
	LWLockRelease(cvx_process_table->lock);
	return has_room;
}

/*
 * Enter the calling worker into the table.  False when it is not to run: its
 * database is barred, it is held, or the subscription has a worker.
 */
bool
cvx_process_attach(const CvxProcessOrder *order)
{
	CvxProcess *process;

	if (cvx_process_table == NULL)
		return true;

	/* Runs when the process has left the list of the database's sessions. */
	on_shmem_exit(detach, (Datum) 0);
	LWLockAcquire(cvx_process_table->lock, LW_EXCLUSIVE);
	process = cvx_process_find(order->dbid, order->subid, true);
	if (process && process->state != CVX_PROCESS_RUNNING &&
		!process->is_held && !cvx_process_is_barred(order->dbid))
	{
		process->name = order->name;
		process->owner = order->owner;
		process->state = CVX_PROCESS_RUNNING;
		process->is_manual = order->is_manual;
		process->is_leaving = false;
		process->has_yielded = false;
		process->lack = CVX_LACKS_NOTHING;
		process->pid = MyProcPid;
		process->proc = MyProc;
		process->started_at = GetCurrentTimestamp();
		my_process = process;

		/* What it was asked before it began is not lost. */
		if (process->is_asked)
			kill(MyProcPid, CVX_ASK_SIGNAL);
		process->is_asked = false;
	}
	LWLockRelease(cvx_process_table->lock);
	return my_process != NULL;
}

/* The same for a probe. */
bool
cvx_process_attach_probe(Oid dbid)
{
	if (cvx_process_table == NULL)
		return false;
	on_shmem_exit(detach, (Datum) 0);
	LWLockAcquire(cvx_process_table->lock, LW_EXCLUSIVE);
	if (cvx_process_table->probe_pid == 0 && !cvx_process_is_barred(dbid))
	{
		cvx_process_table->probe_pid = MyProcPid;
		cvx_process_table->probe_dbid = dbid;
		am_probe = true;
	}
	LWLockRelease(cvx_process_table->lock);
	return am_probe;
}

static void
detach(int code, Datum arg)
{
	LWLockAcquire(cvx_process_table->lock, LW_EXCLUSIVE);
	if (am_probe)
	{
		cvx_process_table->probe_pid = 0;
		cvx_process_table->probe_dbid = InvalidOid;
	}
	if (my_process)
		cvx_process_note_end(my_process);
	if (cvx_process_table->launcher)
		SetLatch(&cvx_process_table->launcher->procLatch);
	LWLockRelease(cvx_process_table->lock);
	am_probe = false;
	my_process = NULL;
}

/*
 * A worker has ended, or could not begin: when may it be started again?  The
 * caller holds the lock.
 */
void
cvx_process_note_end(CvxProcess *process)
{
	TimestampTz now = GetCurrentTimestamp();
	bool		was_asked = process->is_leaving || process->is_held ||
		cvx_process_is_barred(process->dbid);

	if (!process->has_yielded)
		process->due_at = process->look_after = now;
	if (was_asked || (process->state == CVX_PROCESS_RUNNING &&
					  TimestampDifferenceExceeds(process->started_at, now,
												 SHORT_LIFE_MS)))
		process->nshort = 0;
	else
	{
		int64		pause = (int64) FIRST_PAUSE_MS << Min(process->nshort, 10);

		/* Jitter: between half of the pause and all of it. */
		pause = Min(pause, LONGEST_PAUSE_MS);
		pause = pause / 2 + (uint64) now % (pause / 2 + 1);
		process->due_at = TimestampTzPlusMilliseconds(now, pause);
		process->nshort++;
	}
	process->state = CVX_PROCESS_NONE;
	process->is_manual = false;
	process->is_leaving = false;
	process->has_yielded = false;
	process->pid = 0;
	process->proc = NULL;
	process->ended_at = now;
}

/*
 * The calling worker has nothing to do before next_at: does it give its place
 * to one who waits?  Then it has to end.
 */
bool
cvx_process_yield(TimestampTz next_at, bool is_asked)
{
	bool		yields;

	if (my_process == NULL || cvx_process_table->nwaiting <= 0)
		return false;
	LWLockAcquire(cvx_process_table->lock, LW_EXCLUSIVE);
	yields = cvx_process_table->nwaiting > 0 && !my_process->is_manual &&
		!my_process->is_leaving &&
		TimestampDifferenceExceeds(my_process->started_at,
								   GetCurrentTimestamp(), CVX_TURN_MS);
	if (yields)
	{
		cvx_process_table->nwaiting--;
		my_process->is_leaving = true;
		my_process->has_yielded = true;
		my_process->is_asked = is_asked;
		my_process->due_at = next_at;
	}
	LWLockRelease(cvx_process_table->lock);
	return yields;
}

/* CvxProcessInfo of every entry, in the current memory context. */
List *
cvx_process_list(void)
{
	CvxProcessInfo *copies;
	int			counts[CVX_MAX_LOOKS];
	List	   *list = NIL;
	int			nprocesses;
	int			n = 0;

	if (cvx_process_table == NULL)
		return NIL;
	copies = palloc0((CVX_MAX_PROCESSES + CVX_MAX_LOOKS) *
					 sizeof(CvxProcessInfo));
	LWLockAcquire(cvx_process_table->lock, LW_SHARED);
	for (int i = 0; i < CVX_MAX_PROCESSES; i++)
	{
		const CvxProcess *process = &cvx_process_table->processes[i];
		CvxProcessInfo *copy = &copies[n];

		if (!OidIsValid(process->dbid))
			continue;
		copy->dbid = process->dbid;
		copy->subid = process->subid;
		copy->name = process->name;
		copy->owner = process->owner;
		copy->pid = process->pid;
		copy->state = state_of(process);
		copy->since = process->state == CVX_PROCESS_NONE ?
			process->ended_at : process->started_at;
		n++;
	}
	nprocesses = n;
	for (int i = 0; i < CVX_MAX_LOOKS; i++)
	{
		const CvxOverflow *overflow = &cvx_process_table->overflows[i];

		if (!OidIsValid(overflow->dbid))
			continue;
		copies[n].dbid = overflow->dbid;
		copies[n].since = overflow->since;
		counts[n - nprocesses] = overflow->count;
		n++;
	}
	LWLockRelease(cvx_process_table->lock);
	for (int i = nprocesses; i < n; i++)
		copies[i].state = psprintf("no room for %d", counts[i - nprocesses]);
	for (int i = 0; i < n; i++)
		list = lappend(list, &copies[i]);
	return list;
}

/*
 * Does a subscription wait for a place, for its worker or for the probe that
 * finds it?  When it cannot count on one, *stuck says why, as a sentence;
 * otherwise that is NULL.
 */
bool
cvx_process_is_queued(Oid dbid, int32 subid, char **stuck)
{
	const CvxProcess *process;
	CvxLack		lack = CVX_LACKS_NOTHING;
	TimestampTz since = 0;
	bool		is_long;

	*stuck = NULL;
	LWLockAcquire(cvx_process_table->lock, LW_SHARED);
	process = cvx_process_find(dbid, subid, false);
	if (process)
	{
		lack = process->lack;
		since = process->due_at;
	}
	else if (cvx_process_table->lacks_since != 0)
	{
		lack = CVX_LACKS_PROCESS;
		since = cvx_process_table->lacks_since;
	}
	else
	{
		for (int i = 0; i < CVX_MAX_LOOKS; i++)
			if (cvx_process_table->overflows[i].dbid == dbid)
				lack = CVX_LACKS_ROOM;
	}
	since = Max(since, cvx_process_table->moved_at);
	LWLockRelease(cvx_process_table->lock);

	is_long = TimestampDifferenceExceeds(since, GetCurrentTimestamp(), STUCK_MS);
	if (lack == CVX_LACKS_ROOM)
		*stuck = psprintf("A server has room for %d subscriptions that are enabled.",
						  CVX_MAX_PROCESSES);
	else if (lack == CVX_LACKS_WORKER && cvx_max_workers == 0)
		*stuck = pstrdup("convex_fdw.max_workers is 0.");
	else if (lack == CVX_LACKS_WORKER && is_long)
		*stuck = psprintf("convex_fdw.max_workers is %d, and none of the workers has caught up.",
						  cvx_max_workers);
	else if (lack == CVX_LACKS_PROCESS && is_long)
		*stuck = psprintf("max_worker_processes is %d, and all of them are used.",
						  max_worker_processes);
	return lack != CVX_LACKS_NOTHING;
}

/* Is a database among those that the launcher looks after? */
bool
cvx_process_is_chosen(const char *database)
{
	char	   *copy = pstrdup(databases);
	List	   *names;
	ListCell   *cell;
	bool		is_chosen;

	/* The hook has checked the list. */
	if (!SplitIdentifierString(copy, ',', &names))
		names = NIL;
	is_chosen = names == NIL;
	foreach(cell, names)
		if (strcmp((char *) lfirst(cell), database) == 0)
			is_chosen = true;
	list_free(names);
	pfree(copy);
	return is_chosen;
}

static const char *
state_of(const CvxProcess *process)
{
	if (process->state == CVX_PROCESS_RUNNING)
		return process->is_leaving ? "leaving" : "running";
	if (process->state == CVX_PROCESS_STARTING)
		return "starting";
	if (process->is_held)
		return "stopped";
	if (cvx_process_is_barred(process->dbid))
		return "kept out";
	if (!cvx_worker_enabled)
		return "off";
	if (process->lack != CVX_LACKS_NOTHING)
		return "no free slot";
	return process->nshort > 0 ? "pausing" : "waiting";
}

/*
 * Hold a subscription's worker away, or no longer.  Gives whether the table
 * could take the order; false without preload.
 */
bool
cvx_process_hold(Oid dbid, int32 subid, bool is_held)
{
	CvxProcess *process;

	if (cvx_process_table == NULL)
		return false;
	LWLockAcquire(cvx_process_table->lock, LW_EXCLUSIVE);
	process = cvx_process_find(dbid, subid, is_held);
	if (process)
	{
		process->is_held = is_held;
		process->due_at = Min(process->due_at, GetCurrentTimestamp());
		process->nshort = 0;
	}
	LWLockRelease(cvx_process_table->lock);
	return process != NULL;
}

/* ------------------------------------------------------------------------
 * Starting and finding processes
 * ------------------------------------------------------------------------
 */

/*
 * Ask the postmaster for a process; false when it has no free slot.  It tells
 * this process about its start and its end.
 */
bool
cvx_process_register(const char *function, const char *type,
					 const CvxProcessOrder *order,
					 BackgroundWorkerHandle **handle)
{
	BackgroundWorker worker = {0};

	StaticAssertStmt(sizeof(CvxProcessOrder) <= BGW_EXTRALEN,
					 "an order is too large for bgw_extra");
	worker.bgw_flags = BGWORKER_SHMEM_ACCESS |
		BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker.bgw_start_time = BgWorkerStart_RecoveryFinished;
	worker.bgw_restart_time = BGW_NEVER_RESTART;
	worker.bgw_notify_pid = MyProcPid;
	snprintf(worker.bgw_library_name, sizeof(worker.bgw_library_name),
			 "convex_fdw");
	snprintf(worker.bgw_function_name, sizeof(worker.bgw_function_name),
			 "%s", function);
	snprintf(worker.bgw_type, sizeof(worker.bgw_type), "%s", type);
	if (order->subid != 0)
		snprintf(worker.bgw_name, sizeof(worker.bgw_name),
				 "%s for subscription %d of database %u", type, order->subid,
				 order->dbid);
	else
		snprintf(worker.bgw_name, sizeof(worker.bgw_name),
				 "%s for database %u", type, order->dbid);
	memcpy(worker.bgw_extra, order, sizeof(CvxProcessOrder));
	return RegisterDynamicBackgroundWorker(&worker, handle);
}

/* What this process was started with. */
CvxProcessOrder
cvx_process_order(void)
{
	CvxProcessOrder order;

	memcpy(&order, MyBgworkerEntry->bgw_extra, sizeof(order));
	return order;
}

/*
 * The settings that the work of a background process depends on, whatever
 * ALTER ROLE and ALTER DATABASE say.  Called outside a transaction, after
 * connecting.
 */
void
cvx_process_settings(void)
{
	static const char *const settings[][2] = {
		{"role", "none"},
		{"search_path", "pg_catalog, pg_temp"},
		{"default_transaction_isolation", "read committed"},
		{"default_transaction_read_only", "off"},
		{"default_transaction_deferrable", "off"},
		{"statement_timeout", "0"},
		{"transaction_timeout", "0"},
		{"lock_timeout", "0"},
		{"idle_in_transaction_session_timeout", "0"},
		{"idle_session_timeout", "0"},
		{"session_replication_role", "origin"},
		{"row_security", "on"},
		{"datestyle", "ISO, YMD"},
		{"intervalstyle", "postgres"},
		{"timezone", "UTC"},
		{"bytea_output", "hex"},
		{"extra_float_digits", "1"},
		{"array_nulls", "on"},
		{"backslash_quote", "safe_encoding"},
		{"standard_conforming_strings", "on"},
		{"transform_null_equals", "off"},
		{"quote_all_identifiers", "off"},
		{"xmloption", "content"},
		{"xmlbinary", "base64"},
		{"check_function_bodies", "off"},
		{"client_min_messages", "warning"},
		{"restrict_nonsystem_relation_kind", ""},
		{"convex_fdw.snapshot", ""},
	};

	for (int i = 0; i < lengthof(settings); i++)
	{
		/* Not every version has all of them. */
		if (GetConfigOptionByName(settings[i][0], NULL, true) == NULL)
			continue;
		SetConfigOption(settings[i][0], settings[i][1], PGC_SUSET,
						PGC_S_OVERRIDE);
	}
}

/* The process of a subscription's worker, 0 when it has none. */
int
cvx_process_pid(Oid dbid, int32 subid)
{
	CvxProcess *process;
	int			pid = 0;

	if (cvx_process_table == NULL)
		return reported_pid(dbid, subid);
	LWLockAcquire(cvx_process_table->lock, LW_SHARED);
	process = cvx_process_find(dbid, subid, false);
	if (process)
		pid = process->pid;
	LWLockRelease(cvx_process_table->lock);
	return pid;
}

static int
reported_pid(Oid dbid, int32 subid)
{
	char		name[NAMEDATALEN];
	int			n;

	snprintf(name, sizeof(name), CVX_WORKER_TYPE " %d", subid);
	pgstat_clear_backend_activity_snapshot();
	n = pgstat_fetch_stat_numbackends();
	for (int i = 1; i <= n; i++)
	{
		LocalPgBackendStatus *local = cvx_local_beentry(i);
		const char *type;

		if (local == NULL || local->backendStatus.st_procpid == 0 ||
			local->backendStatus.st_backendType != B_BG_WORKER ||
			local->backendStatus.st_databaseid != dbid ||
			strcmp(local->backendStatus.st_appname, name) != 0)
			continue;
		type = GetBackgroundWorkerTypeByPid(local->backendStatus.st_procpid);
		if (type && strcmp(type, CVX_WORKER_TYPE) == 0)
			return local->backendStatus.st_procpid;
	}
	return 0;
}

/* A step of a subscription of this database has ended: wake who waits for it. */
void
cvx_process_tell(int32 subid)
{
	if (cvx_process_table)
		ConditionVariableBroadcast(news_of(subid));
}

/*
 * Wait for the end of a step, or until ms have passed; it may also be less.
 * Without the table nobody tells.  When all is over, the caller ends it with
 * ConditionVariableCancelSleep().
 */
void
cvx_process_await(int32 subid, long ms)
{
	if (cvx_process_table)
		(void) ConditionVariableTimedSleep(news_of(subid), ms, CVX_WAIT_EVENT);
	else
	{
		(void) WaitLatch(MyLatch,
						 WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, ms,
						 CVX_WAIT_EVENT);
		ResetLatch(MyLatch);
	}
	CHECK_FOR_INTERRUPTS();
}

static ConditionVariable *
news_of(int32 subid)
{
	return &cvx_process_table->news[(MyDatabaseId + (uint32) subid) %
									CVX_MAX_NEWS];
}

/*
 * Make a subscription's worker work at once, and again when this transaction
 * has committed, since only then it sees what was changed.  Whatever pause it
 * is in ends, and so does the launcher's before it starts the next one.
 */
void
cvx_worker_wake(int32 subid)
{
	int			pid = 0;

	if (cvx_process_table)
		ask(MyDatabaseId, subid);
	else if ((pid = reported_pid(MyDatabaseId, subid)) != 0)
		ask_process(pid);
	else
		return;
	for (int i = 0; i < nwoken; i++)
		if (woken[i].subid == subid)
			return;
	if (!IsTransactionState() || nwoken == MAX_WOKEN)
		return;
	watch_xact();
	woken[nwoken].subid = subid;
	woken[nwoken++].pid = pid;
}

/* The same now; for those in the table.  Does not throw. */
static void
ask(Oid dbid, int32 subid)
{
	CvxProcess *process;
	bool		needs_look;

	LWLockAcquire(cvx_process_table->lock, LW_EXCLUSIVE);
	process = cvx_process_find(dbid, subid, false);
	needs_look = process == NULL || (process->state == CVX_PROCESS_NONE &&
									 process->lack == CVX_LACKS_NOTHING);
	if (process && process->state == CVX_PROCESS_RUNNING &&
		!process->is_leaving)
		kill(process->pid, CVX_ASK_SIGNAL);
	else if (process)
		process->is_asked = true;
	LWLockRelease(cvx_process_table->lock);
	cvx_process_press(dbid, subid);

	/* The launcher may pause before it looks again, too. */
	if (needs_look)
		cvx_process_look(dbid);
}

/* Somebody waits: the launcher does not pause before it starts a worker. */
void
cvx_process_press(Oid dbid, int32 subid)
{
	CvxProcess *process;

	LWLockAcquire(cvx_process_table->lock, LW_EXCLUSIVE);
	process = cvx_process_find(dbid, subid, false);
	if (process)
	{
		process->due_at = Min(process->due_at, GetCurrentTimestamp());
		process->nshort = 0;
		if (process->state == CVX_PROCESS_NONE && cvx_process_table->launcher)
			SetLatch(&cvx_process_table->launcher->procLatch);
	}
	LWLockRelease(cvx_process_table->lock);
}

/* A signal, and not the latch alone: a request to the server resets that. */
static void
ask_process(int pid)
{
	if (BackendPidGetProc(pid))
		kill(pid, CVX_ASK_SIGNAL);
}

/*
 * Make the launcher look into this database: when this transaction commits,
 * or at once outside of one.
 */
void
cvx_launcher_wake(void)
{
	if (cvx_process_table == NULL)
		return;
	if (!IsTransactionState())
	{
		cvx_process_look(MyDatabaseId);
		return;
	}
	watch_xact();
	look_at_commit = true;
}

/* Ask the launcher to look into a database, or everywhere; does not throw. */
void
cvx_process_look(Oid dbid)
{
	LWLockAcquire(cvx_process_table->lock, LW_EXCLUSIVE);
	if (!OidIsValid(dbid) || cvx_process_table->nlooks == CVX_MAX_LOOKS)
		cvx_process_table->look_everywhere = true;
	else
		cvx_process_table->looks[cvx_process_table->nlooks++] = dbid;
	if (cvx_process_table->launcher)
		SetLatch(&cvx_process_table->launcher->procLatch);
	LWLockRelease(cvx_process_table->lock);
}

/* ------------------------------------------------------------------------
 * Ends of transactions
 * ------------------------------------------------------------------------
 */

static void
watch_xact(void)
{
	if (is_xact_registered)
		return;
	RegisterXactCallback(at_xact_end, NULL);
	is_xact_registered = true;
}

static void
at_xact_end(XactEvent event, void *arg)
{
	bool		is_committed = event == XACT_EVENT_COMMIT ||
		event == XACT_EVENT_PREPARE;

	if (!is_committed && event != XACT_EVENT_ABORT)
		return;
	if (has_bars)
	{
		LWLockAcquire(cvx_process_table->lock, LW_EXCLUSIVE);
		for (int i = 0; i < CVX_MAX_BARS; i++)
			if (cvx_process_table->bars[i].pid == MyProcPid)
				memset(&cvx_process_table->bars[i], 0, sizeof(CvxBar));
		LWLockRelease(cvx_process_table->lock);
		cvx_process_look(InvalidOid);
	}
	if (is_committed)
	{
		if (look_at_commit)
			cvx_process_look(MyDatabaseId);
		for (int i = 0; i < nwoken; i++)
		{
			if (cvx_process_table)
				ask(MyDatabaseId, woken[i].subid);
			else
				ask_process(woken[i].pid);
		}
	}
	has_bars = look_at_commit = false;
	nwoken = 0;
}

/* ------------------------------------------------------------------------
 * Commands that need a database without sessions
 * ------------------------------------------------------------------------
 */

static void
on_utility(PlannedStmt *pstmt, const char *query_string, bool is_read_only,
		   ProcessUtilityContext context, ParamListInfo params,
		   QueryEnvironment *environment, DestReceiver *dest,
		   QueryCompletion *completion)
{
	Node	   *statement = pstmt->utilityStmt;
	Oid			dbid = InvalidOid;
	bool		is_drop;

	/* The workers of a dropped extension have nothing to do any more. */
	is_drop = IsA(statement, DropStmt) &&
		((DropStmt *) statement)->removeType == OBJECT_EXTENSION;
	if (cvx_process_table)
		dbid = database_to_empty(statement, context);
	if (OidIsValid(dbid))
		keep_out(dbid);
	if (previous_utility)
		previous_utility(pstmt, query_string, is_read_only, context, params,
						 environment, dest, completion);
	else
		standard_ProcessUtility(pstmt, query_string, is_read_only, context,
								params, environment, dest, completion);

	/* The statement may be gone by now. */
	if (is_drop)
		cvx_launcher_wake();
}

/*
 * The database that a command needs for itself, or InvalidOid.  Who may not
 * run the command must not be able to send the workers away.
 */
static Oid
database_to_empty(Node *statement, ProcessUtilityContext context)
{
	const char *name = NULL;
	bool		may_be_in_block = false;
	Oid			dbid;

	if (IsA(statement, DropdbStmt))
		name = ((DropdbStmt *) statement)->dbname;
	else if (IsA(statement, CreatedbStmt))
		name = source_of((CreatedbStmt *) statement);
	else if (IsA(statement, RenameStmt) &&
			 ((RenameStmt *) statement)->renameType == OBJECT_DATABASE)
	{
		name = ((RenameStmt *) statement)->subname;
		may_be_in_block = true;
	}
	else if (IsA(statement, AlterDatabaseStmt))
	{
		ListCell   *cell;

		foreach(cell, ((AlterDatabaseStmt *) statement)->options)
			if (strcmp(lfirst_node(DefElem, cell)->defname, "tablespace") == 0)
				name = ((AlterDatabaseStmt *) statement)->dbname;
	}
	if (name == NULL || IsAbortedTransactionBlockState())
		return InvalidOid;
	if (!may_be_in_block &&
		(context != PROCESS_UTILITY_TOPLEVEL || IsTransactionBlock()))
		return InvalidOid;
	dbid = get_database_oid(name, true);
	if (!OidIsValid(dbid) || dbid == MyDatabaseId ||
		!cvx_database_ownercheck(dbid, GetUserId()))
		return InvalidOid;
	return dbid;
}

static const char *
source_of(CreatedbStmt *statement)
{
	ListCell   *cell;

	foreach(cell, statement->options)
	{
		DefElem    *option = lfirst_node(DefElem, cell);

		if (strcmp(option->defname, "template") == 0 && option->arg)
			return defGetString(option);
	}
	return NULL;
}

/* Bar a database until the transaction ends, and wait until it is empty. */
static void
keep_out(Oid dbid)
{
	TimestampTz begun = GetCurrentTimestamp();

	watch_xact();
	LWLockAcquire(cvx_process_table->lock, LW_EXCLUSIVE);
	for (int i = 0; i < CVX_MAX_BARS; i++)
	{
		CvxBar	   *bar = &cvx_process_table->bars[i];

		if (!OidIsValid(bar->dbid))
		{
			bar->dbid = dbid;
			bar->pid = MyProcPid;
			has_bars = true;
			break;
		}
	}
	LWLockRelease(cvx_process_table->lock);

	/* Those that are left then are for the command itself to report. */
	for (bool is_first = true; !have_left(dbid, is_first); is_first = false)
	{
		if (TimestampDifferenceExceeds(begun, GetCurrentTimestamp(),
									   LEAVE_LIMIT_MS))
			break;
		(void) WaitLatch(MyLatch,
						 WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 10, CVX_WAIT_EVENT);
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
	}
}

/* Are no workers of a database left?  With `order` they are sent away. */
static bool
have_left(Oid dbid, bool order)
{
	bool		have = true;

	LWLockAcquire(cvx_process_table->lock, LW_SHARED);
	if (cvx_process_table->probe_pid != 0 &&
		cvx_process_table->probe_dbid == dbid)
	{
		have = false;
		if (order)
			kill(cvx_process_table->probe_pid, SIGTERM);
	}
	for (int i = 0; i < CVX_MAX_PROCESSES; i++)
	{
		CvxProcess *process = &cvx_process_table->processes[i];

		if (process->dbid != dbid || process->pid == 0)
			continue;
		have = false;
		if (order)
			kill(process->pid, SIGTERM);
	}
	LWLockRelease(cvx_process_table->lock);
	return have;
}
