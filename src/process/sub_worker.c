/*
 * sub_worker.c
 *		When does a subscription's process wait, work, back off?
 *
 * What a step does is sub_sync.c's; who is started is the launcher's.
 *
 * 1. While the worker waits, for the server or for the next poll, it has no
 *	  transaction, no snapshot and no lock on any object.
 * 2. Whatever goes wrong, the next step waits: a worker never spins.
 * 3. The catalog alone says what comes next.  A worker may end anywhere.
 * 4. Who asks for something (CVX_ASK_SIGNAL) ends the pause.
 *
 * Room: process 6.2
 */
#include "postgres.h"

#include <signal.h>

#include "access/xact.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/sinval.h"
#include "tcop/tcopprot.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#include "ground/compat.h"
#include "subscription/sub_catalog.h"
#include "subscription/sub_sync.h"
#include "process/sub_process.h"

/* Pauses after errors that the step could not record. */
#define FIRST_PAUSE_MS 1000
#define LONGEST_PAUSE_MS 60000

/* The shortest pause after a recorded failure, whatever was recorded. */
#define LEAST_PAUSE_MS 100

/* The longest pause while another subscription loads from the same deployment. */
#define WALK_PAUSE_MS 1000

/* How often a failing worker looks whether something was changed. */
#define LOOK_MS 2000

/* However often somebody asks, what has failed is not tried more often. */
#define LEAST_RETRY_MS 1000

/* One that fails and has given its place to another is tried again by then. */
#define LONGEST_ABSENCE_MS 60000

/* The longest wait without looking at the clock again. */
#define LONGEST_WAIT_MS 3600000

/* One worker's life. */
typedef struct CvxWorker
{
	/* fixed at begin */
	CvxProcessOrder order;
	char	   *activity;		/* for pg_stat_activity */
	MemoryContext cycle;		/* reset after each step */

	/* what is asked of it */
	bool		ends_pauses;	/* not only its own: of what waits in the catalog */
	TimestampTz ended_at;		/* when that was done last */

	/* per step */
	CvxSync    *sync;			/* NULL: to be opened */
	int			poll_ms;		/* the present polling interval */
	int			nerrors;		/* unrecorded ones in a row */
	bool		is_failing;		/* a failure that was recorded */
} CvxWorker;

/* Somebody asks; set by the signal's handler, cleared by the loop. */
static volatile sig_atomic_t is_asked = false;

static void begin(void);
static void commit(void);
static void rollback(void);
static void on_ask(SIGNAL_ARGS);
static void take_request(CvxWorker *worker);
static bool turn(CvxWorker *worker, int64 *pause_ms);
static CvxStep step(CvxWorker *worker);
static int64 after_idle(CvxWorker *worker);
static int64 until_retry(CvxWorker *worker, int64 pause_ms);
static int64 after_failure(CvxWorker *worker);
static int64 after_error(CvxWorker *worker);
static bool wait_for_turn(CvxWorker *worker, int64 pause_ms);
static bool gives_place(CvxWorker *worker, TimestampTz until);
static void serve_interrupts(void);
static int64 jitter(int64 pause_ms);

static const CvxSyncHost host = {begin, commit, rollback, true};

/*
 * The worker's entry point.  Ends when there is nothing to follow any more,
 * or when it is told to.
 */
void
convex_worker_main(Datum arg)
{
	CvxWorker  *worker;
	char		name[NAMEDATALEN];

	worker = MemoryContextAllocZero(TopMemoryContext, sizeof(CvxWorker));
	worker->order = cvx_process_order();
	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, die);
	pqsignal(CVX_ASK_SIGNAL, on_ask);
	BackgroundWorkerUnblockSignals();

	if (!cvx_process_attach(&worker->order))
		proc_exit(0);
	BackgroundWorkerInitializeConnectionByOid(worker->order.dbid, InvalidOid,
											  0);
	cvx_process_settings();
	snprintf(name, sizeof(name), CVX_WORKER_TYPE " %d", worker->order.subid);
	SetConfigOption("application_name", name, PGC_USERSET, PGC_S_OVERRIDE);
	worker->activity = MemoryContextStrdup(TopMemoryContext,
										   psprintf("convex subscription %s",
													NameStr(worker->order.name)));
	worker->cycle = AllocSetContextCreate(TopMemoryContext, "convex cycle",
										  ALLOCSET_DEFAULT_SIZES);

	for (;;)
	{
		int64		pause_ms = 0;

		serve_interrupts();
		if (ConfigReloadPending)
		{
			ConfigReloadPending = false;
			ProcessConfigFile(PGC_SIGHUP);
			is_asked = true;
		}
		take_request(worker);
		if (!turn(worker, &pause_ms) || !wait_for_turn(worker, pause_ms))
			break;
	}
	proc_exit(0);
}

/* A request that comes during a step counts at the next one. */
static void
on_ask(SIGNAL_ARGS)
{
	int			save_errno = errno;

	is_asked = true;
	SetLatch(MyLatch);
	errno = save_errno;
}

/* Somebody wants something to be seen: poll quickly again. */
static void
take_request(CvxWorker *worker)
{
	TimestampTz now = GetCurrentTimestamp();

	if (is_asked)
	{
		is_asked = false;
		worker->ends_pauses = true;
		if (worker->sync)
			worker->poll_ms = cvx_sync_poll_interval_ms(worker->sync);
	}
	if (!worker->ends_pauses || worker->sync == NULL ||
		!TimestampDifferenceExceeds(worker->ended_at, now, LEAST_RETRY_MS))
		return;
	cvx_sync_end_pauses(worker->sync);
	worker->ends_pauses = false;
	worker->ended_at = now;
}

/*
 * One step.  Gives how long to wait before the next one; false when there
 * will be none.
 */
static bool
turn(CvxWorker *worker, int64 *pause_ms)
{
	volatile CvxStep outcome = CVX_STEP_FAILED;
	volatile bool has_thrown = false;

	pgstat_report_activity(STATE_RUNNING, worker->activity);
	MemoryContextSwitchTo(worker->cycle);
	PG_TRY();
	{
		outcome = step(worker);
	}
	PG_CATCH();
	{
		/* Cancelled, or an error that could not be written down. */
		HOLD_INTERRUPTS();
		MemoryContextSwitchTo(worker->cycle);
		EmitErrorReport();
		AbortOutOfAnyTransaction();
		FlushErrorState();
		RESUME_INTERRUPTS();
		has_thrown = true;
	}
	PG_END_TRY();

	cvx_process_tell(worker->order.subid);
	if (has_thrown && worker->sync)
	{
		cvx_sync_close(worker->sync);
		worker->sync = NULL;
	}
	*pause_ms = 0;
	worker->is_failing = !has_thrown && outcome == CVX_STEP_FAILED;
	if (has_thrown)
		*pause_ms = after_error(worker);
	else
	{
		worker->nerrors = 0;
		switch (outcome)
		{
			case CVX_STEP_WORKED:
				worker->poll_ms = cvx_sync_poll_interval_ms(worker->sync);
				break;
			case CVX_STEP_IDLE:
			case CVX_STEP_BUSY_ELSEWHERE:
				*pause_ms = after_idle(worker);
				break;
			case CVX_STEP_FAILED:
				*pause_ms = after_failure(worker);
				break;
			case CVX_STEP_GONE:
				return false;
		}
	}

	MemoryContextSwitchTo(TopMemoryContext);
	MemoryContextReset(worker->cycle);
	pgstat_report_stat(*pause_ms > 0);
	if (*pause_ms > 0)
		pgstat_report_activity(STATE_IDLE, NULL);
	return true;
}

static CvxStep
step(CvxWorker *worker)
{
	if (worker->sync == NULL)
	{
		MemoryContextSwitchTo(TopMemoryContext);
		worker->sync = cvx_sync_open(worker->order.subid, &host);
		MemoryContextSwitchTo(worker->cycle);
		take_request(worker);
	}
	return cvx_sync_step(worker->sync);
}

/*
 * Caught up.  Each time nothing has changed, the next pause is twice as long,
 * within limits; where changes trickle in, all pauses are of the shortest.
 */
static int64
after_idle(CvxWorker *worker)
{
	int			least = cvx_sync_poll_interval_ms(worker->sync);
	int			most = Max(cvx_sync_idle_poll_interval_ms(worker->sync), least);
	int			pause_ms = Min(Max(worker->poll_ms, least), most);

	if (cvx_sync_has_changes(worker->sync))
		pause_ms = worker->poll_ms = least;
	else if (!cvx_sync_is_waiting(worker->sync))
		worker->poll_ms = Min((int64) pause_ms * 2, most);
	if (cvx_sync_is_waiting(worker->sync))
		pause_ms = Min(pause_ms, WALK_PAUSE_MS);
	return until_retry(worker, Max(pause_ms, 1));
}

/* A pause, or less: until what waits beside the changes is due. */
static int64
until_retry(CvxWorker *worker, int64 pause_ms)
{
	TimestampTz now = GetCurrentTimestamp();
	TimestampTz retry_at = cvx_sync_retry_at(worker->sync);

	if (worker->ends_pauses)
		retry_at = TimestampTzPlusMilliseconds(worker->ended_at, LEAST_RETRY_MS);
	if (retry_at <= now)
		return pause_ms;
	return Min(pause_ms, TimestampDifferenceMilliseconds(now, retry_at) + 1);
}

/* A failure that stands in the catalog, with the time of the next attempt. */
static int64
after_failure(CvxWorker *worker)
{
	TimestampTz next = cvx_sync_next_attempt(worker->sync);
	int64		pause_ms = (next - GetCurrentTimestamp()) / 1000;

	worker->poll_ms = cvx_sync_poll_interval_ms(worker->sync);
	return Max(pause_ms, LEAST_PAUSE_MS);
}

static int64
after_error(CvxWorker *worker)
{
	int64		pause_ms = (int64) FIRST_PAUSE_MS << Min(worker->nerrors, 10);

	worker->nerrors++;
	return jitter(Min(pause_ms, LONGEST_PAUSE_MS));
}

/* Between half of a pause and all of it. */
static int64
jitter(int64 pause_ms)
{
	return pause_ms / 2 +
		((uint64) GetCurrentTimestamp() ^ (uint64) MyProcPid) %
		(uint64) (pause_ms / 2 + 1);
}

/* Between steps there is nothing to cancel. */
static void
serve_interrupts(void)
{
	QueryCancelPending = false;
	CHECK_FOR_INTERRUPTS();
}

/*
 * Wait until the pause is over or somebody asks; after a failure also until
 * somebody changes what the connection is made of.  False when this process
 * is to make room for another.
 */
static bool
wait_for_turn(CvxWorker *worker, int64 pause_ms)
{
	TimestampTz until = TimestampTzPlusMilliseconds(GetCurrentTimestamp(),
													pause_ms);

	while (!is_asked && !ConfigReloadPending)
	{
		int64		left_ms = (until - GetCurrentTimestamp()) / 1000;
		int64		most_ms = worker->is_failing ? LOOK_MS : LONGEST_WAIT_MS;

		if (left_ms <= 0)
			break;
		if (gives_place(worker, until))
			return false;
		if (WaitLatch(MyLatch,
					  WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
					  (long) Min(left_ms, most_ms), CVX_WAIT_EVENT) & WL_LATCH_SET)
		{
			ResetLatch(MyLatch);
			serve_interrupts();
			if (catchupInterruptPending)
				ProcessCatchupInterrupt();
		}
		else if (worker->is_failing && left_ms > LOOK_MS &&
				 cvx_sync_has_changed(worker->sync))
			break;
	}
	return true;
}

/* Is the pause one that another subscription has its turn in? */
static bool
gives_place(CvxWorker *worker, TimestampTz until)
{
	TimestampTz latest = TimestampTzPlusMilliseconds(GetCurrentTimestamp(),
													 LONGEST_ABSENCE_MS);

	/* After a failure nobody looks meanwhile whether something was changed. */
	return cvx_process_yield(worker->is_failing ? Min(until, latest) : until,
							 worker->ends_pauses);
}

/* ------------------------------------------------------------------------
 * Transactions of a step
 * ------------------------------------------------------------------------
 */

static void
begin(void)
{
	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();

	/* Nothing is left of an earlier one, whatever code ran in it. */
	ResetAllOptions();
	PushActiveSnapshot(GetTransactionSnapshot());
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI does not connect");
}

static void
commit(void)
{
	SPI_finish();
	PopActiveSnapshot();
	CommitTransactionCommand();
}

static void
rollback(void)
{
	AbortOutOfAnyTransaction();
}
