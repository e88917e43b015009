/*
 * sub_launcher.c
 *		Which processes should exist?
 *
 * The launcher, connected to no database, and the probes that look into one
 * database each for it.
 *
 * 1. Only the launcher is restarted by the postmaster.  Workers and probes
 *	  are started again by the launcher, after looking: what has been dropped
 *	  leaves no loop behind.
 * 2. One probe at a time; one that hangs is ended.
 * 3. A database that cannot be looked into keeps what was found before, and
 *	  delays no other.
 * 4. A worker that finds no free slot is shown as such and waits.  Workers
 *	  that have nothing to do give it theirs, so all take turns, and who has
 *	  been due longest is next.  Where slots are enough nobody is disturbed.
 *
 * What becomes of one subscription's process:
 *
 *		look: enabled		cvx_process_find, is_wanted
 *		NONE > STARTING		start_worker, when wanted, looked at and due
 *		STARTING > RUNNING	cvx_process_attach, by the worker
 *		STARTING > NONE		check_starting, when it never came
 *		RUNNING > NONE		detach, by the worker; then a look is due, save
 *							after cvx_process_yield
 *		look: not enabled	send_away, then the entry is free
 *
 * Room: process 6.3
 */
#include "postgres.h"

#include <signal.h>

#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_database.h"
#include "commands/dbcommands.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "optimizer/cost.h"
#include "pgstat.h"
#include "postmaster/interrupt.h"
#include "replication/logicallauncher.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "tcop/tcopprot.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#include "ground/compat.h"
#include "subscription/sub_catalog.h"
#include "process/sub_launcher.h"
#include "process/sub_process.h"

/* How often every database is looked into. */
#define LOOK_INTERVAL_MS 60000

/* After how long a process that lacked a slot is tried again. */
#define SLOT_INTERVAL_MS 5000

/* A probe takes milliseconds; one that takes this long hangs. */
#define PROBE_LIMIT_MS 20000
#define PROBE_LOCK_LIMIT "2s"

/* Subscriptions without a worker that are named at a time. */
#define MAX_COMPLAINTS 10

/* The first pause after a look that failed. */
#define FIRST_REST_MS 2000

/* After so long without a lack it is told again. */
#define TELL_AGAIN_MS 60000

/* The postmaster restarts the launcher after so many seconds. */
#define RESTART_S 5

/* A database as the launcher knows it. */
typedef struct Database
{
	Oid			dbid;
	char	   *name;
	bool		is_present;		/* found by the latest reading, and chosen */
	TimestampTz look_at;		/* when the next look is due */
	TimestampTz looked_at;		/* when the last successful look began */
	TimestampTz rest_until;		/* no look before, after failures */
	int			nfailures;		/* failed looks in a row */
} Database;

/* A worker that is to be started. */
typedef struct Order
{
	int			i;				/* in the table */
	TimestampTz due_at;
} Order;

typedef struct Launcher
{
	/* memory */
	MemoryContext context;		/* databases and handles */
	MemoryContext cycle;		/* reset in each turn */

	/* what is known */
	List	   *databases;		/* Database */
	List	   *existing;		/* Oid of all databases there are */
	TimestampTz read_at;		/* when pg_database was read; 0: never */
	BackgroundWorkerHandle *handles[CVX_MAX_PROCESSES]; /* of STARTING ones */

	/* the probe under way */
	BackgroundWorkerHandle *probe;	/* or NULL */
	Database   *probed;
	uint64		nprobes;		/* reports before it was started */
	TimestampTz probe_begun_at;

	/* what the log was told */
	TimestampTz lacked_at;		/* the last time that a worker lacked a slot */
	bool		is_told;		/* that probes have to wait for one */
	int			told_workers;	/* max_workers that leave too little; 0: none */

	/* in this turn */
	TimestampTz now;
	TimestampTz wake_at;		/* when something is due */
	int			nlacking;		/* workers that are due and have no slot */
} Launcher;

static void on_exit_launcher(int code, Datum arg);
static void turn(Launcher *launcher);
static void take_orders(Launcher *launcher);
static void look_now(Launcher *launcher, Database *database);
static void read_databases(Launcher *launcher);
static Database *find_database(Launcher *launcher, Oid dbid);
static void forget_databases(Launcher *launcher);
static void check_probe(Launcher *launcher);
static void start_probe(Launcher *launcher);
static void note_slot(TimestampTz lacks_since);
static void check_processes(Launcher *launcher);
static void check_process(Launcher *launcher, int i, int *nrunning,
						  Order *order);
static int	compare_orders(const void *one, const void *other);
static void note_lacks(Launcher *launcher, const Order *orders, int norders,
					   CvxLack lack);
static void tell_lacks(Launcher *launcher, const Order *orders, int norders);
static void ask_for_places(Launcher *launcher);
static void tell_room(Launcher *launcher);
static void check_starting(Launcher *launcher, int i);
static bool start_worker(Launcher *launcher, int i);
static void due(Launcher *launcher, TimestampTz at);
static List *enabled_subscriptions(void);
static char *catalog_of_extension(void);
static void report_look(Oid dbid, List *found);

/*
 * Called once when the library is loaded: registers the launcher when that is
 * at the start of the server.
 */
void
cvx_launcher_init(void)
{
	BackgroundWorker worker = {0};

	if (!process_shared_preload_libraries_in_progress || IsBinaryUpgrade)
		return;
	worker.bgw_flags = BGWORKER_SHMEM_ACCESS |
		BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker.bgw_start_time = BgWorkerStart_RecoveryFinished;
	worker.bgw_restart_time = RESTART_S;
	snprintf(worker.bgw_library_name, sizeof(worker.bgw_library_name),
			 "convex_fdw");
	snprintf(worker.bgw_function_name, sizeof(worker.bgw_function_name),
			 "convex_launcher_main");
	snprintf(worker.bgw_name, sizeof(worker.bgw_name), CVX_LAUNCHER_TYPE);
	snprintf(worker.bgw_type, sizeof(worker.bgw_type), CVX_LAUNCHER_TYPE);
	RegisterBackgroundWorker(&worker);
}

/*
 * The launcher's entry point.  An error ends it, and the postmaster starts it
 * again; the workers live on.
 */
void
convex_launcher_main(Datum arg)
{
	Launcher   *launcher;

	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, die);
	BackgroundWorkerUnblockSignals();
	BackgroundWorkerInitializeConnection(NULL, NULL, 0);
	cvx_process_settings();
	SetConfigOption("application_name", CVX_LAUNCHER_TYPE, PGC_USERSET,
					PGC_S_SESSION);

	launcher = MemoryContextAllocZero(TopMemoryContext, sizeof(Launcher));
	launcher->context = AllocSetContextCreate(TopMemoryContext,
											  "convex launcher",
											  ALLOCSET_DEFAULT_SIZES);
	launcher->cycle = AllocSetContextCreate(TopMemoryContext, "convex cycle",
											ALLOCSET_DEFAULT_SIZES);
	on_shmem_exit(on_exit_launcher, (Datum) 0);
	LWLockAcquire(cvx_process_table->lock, LW_EXCLUSIVE);
	cvx_process_table->launcher = MyProc;
	LWLockRelease(cvx_process_table->lock);

	for (;;)
	{
		long		pause_ms;

		CHECK_FOR_INTERRUPTS();
		if (ConfigReloadPending)
		{
			ConfigReloadPending = false;
			ProcessConfigFile(PGC_SIGHUP);
			launcher->read_at = 0;
		}
		tell_room(launcher);
		turn(launcher);
		pause_ms = TimestampDifferenceMilliseconds(GetCurrentTimestamp(),
												   launcher->wake_at);
		(void) WaitLatch(MyLatch,
						 WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 Min(pause_ms, LOOK_INTERVAL_MS), CVX_WAIT_EVENT);
		ResetLatch(MyLatch);
	}
}

static void
on_exit_launcher(int code, Datum arg)
{
	LWLockAcquire(cvx_process_table->lock, LW_EXCLUSIVE);
	cvx_process_table->launcher = NULL;
	LWLockRelease(cvx_process_table->lock);
}

static void
turn(Launcher *launcher)
{
	MemoryContextSwitchTo(launcher->cycle);
	launcher->now = GetCurrentTimestamp();
	launcher->wake_at = TimestampTzPlusMilliseconds(launcher->now,
													LOOK_INTERVAL_MS);
	take_orders(launcher);
	if (launcher->read_at == 0 ||
		TimestampDifferenceExceeds(launcher->read_at, launcher->now,
								   LOOK_INTERVAL_MS))
		read_databases(launcher);
	check_probe(launcher);

	/* One that has waited for a slot comes before the workers that wait. */
	if (cvx_process_table->lacks_since != 0)
		start_probe(launcher);
	check_processes(launcher);
	start_probe(launcher);
	ask_for_places(launcher);
	forget_databases(launcher);
	MemoryContextSwitchTo(TopMemoryContext);
	MemoryContextReset(launcher->cycle);
}

/* Be awake again at that moment at the latest. */
static void
due(Launcher *launcher, TimestampTz at)
{
	launcher->wake_at = Min(launcher->wake_at, at);
}

/* ------------------------------------------------------------------------
 * Databases
 * ------------------------------------------------------------------------
 */

/* Where sessions want a look: now, and with a fresh list of databases. */
static void
take_orders(Launcher *launcher)
{
	Oid			looks[CVX_MAX_LOOKS];
	int			nlooks;
	bool		everywhere;
	ListCell   *cell;

	LWLockAcquire(cvx_process_table->lock, LW_EXCLUSIVE);
	nlooks = cvx_process_table->nlooks;
	everywhere = cvx_process_table->look_everywhere;
	memcpy(looks, cvx_process_table->looks, sizeof(looks));
	cvx_process_table->nlooks = 0;
	cvx_process_table->look_everywhere = false;
	LWLockRelease(cvx_process_table->lock);

	if (nlooks == 0 && !everywhere)
		return;
	read_databases(launcher);
	for (int i = 0; i < nlooks; i++)
	{
		Database   *database = find_database(launcher, looks[i]);

		if (database)
			look_now(launcher, database);
	}
	if (everywhere)
		foreach(cell, launcher->databases)
			look_now(launcher, (Database *) lfirst(cell));
}

static void
look_now(Launcher *launcher, Database *database)
{
	database->look_at = launcher->now;
	database->rest_until = 0;
}

/*
 * Read pg_database: new databases are to be looked into, others are not any
 * more.
 */
static void
read_databases(Launcher *launcher)
{
	Relation	rel;
	TableScanDesc scan;
	HeapTuple	tuple;
	ListCell   *cell;

	foreach(cell, launcher->databases)
		((Database *) lfirst(cell))->is_present = false;

	StartTransactionCommand();
	(void) GetTransactionSnapshot();
	rel = table_open(DatabaseRelationId, AccessShareLock);
	scan = table_beginscan_catalog(rel, 0, NULL);
	list_free(launcher->existing);
	launcher->existing = NIL;
	while (HeapTupleIsValid(tuple = heap_getnext(scan, ForwardScanDirection)))
	{
		Form_pg_database form = (Form_pg_database) GETSTRUCT(tuple);
		const char *name = NameStr(form->datname);
		Database   *database;
		MemoryContext old = MemoryContextSwitchTo(launcher->context);

		launcher->existing = lappend_oid(launcher->existing, form->oid);
		MemoryContextSwitchTo(old);

		/* -2: left over from a DROP DATABASE that failed half-way */
		if (!cvx_worker_enabled || !form->datallowconn || form->datistemplate ||
			form->datconnlimit == -2 || !cvx_process_is_chosen(name))
			continue;
		database = find_database(launcher, form->oid);
		if (database == NULL)
		{
			MemoryContextSwitchTo(launcher->context);
			database = palloc0(sizeof(Database));
			database->dbid = form->oid;
			database->name = pstrdup(name);
			database->look_at = launcher->now;
			launcher->databases = lappend(launcher->databases, database);
			MemoryContextSwitchTo(old);
		}
		else if (strcmp(database->name, name) != 0)
		{
			pfree(database->name);
			database->name = MemoryContextStrdup(launcher->context, name);
		}
		database->is_present = true;
	}
	table_endscan(scan);
	table_close(rel, AccessShareLock);
	CommitTransactionCommand();
	MemoryContextSwitchTo(launcher->cycle);
	launcher->read_at = launcher->now;
}

static Database *
find_database(Launcher *launcher, Oid dbid)
{
	ListCell   *cell;

	foreach(cell, launcher->databases)
		if (((Database *) lfirst(cell))->dbid == dbid)
			return (Database *) lfirst(cell);
	return NULL;
}

static void
forget_databases(Launcher *launcher)
{
	ListCell   *cell;

	LWLockAcquire(cvx_process_table->lock, LW_EXCLUSIVE);
	for (int i = 0; i < CVX_MAX_LOOKS; i++)
	{
		CvxOverflow *overflow = &cvx_process_table->overflows[i];
		Database   *database = find_database(launcher, overflow->dbid);

		if (database == NULL || !database->is_present)
			memset(overflow, 0, sizeof(CvxOverflow));
	}
	LWLockRelease(cvx_process_table->lock);
	foreach(cell, launcher->databases)
	{
		Database   *database = (Database *) lfirst(cell);

		if (database->is_present || database == launcher->probed)
			continue;
		launcher->databases = foreach_delete_current(launcher->databases, cell);
		pfree(database->name);
		pfree(database);
	}
}

/* ------------------------------------------------------------------------
 * Probes, as the launcher sees them
 * ------------------------------------------------------------------------
 */

/* Has the probe under way ended?  Then its database's next look is planned. */
static void
check_probe(Launcher *launcher)
{
	Database   *database = launcher->probed;
	pid_t		pid;
	bool		has_reported;

	if (launcher->probe == NULL)
		return;
	if (GetBackgroundWorkerPid(launcher->probe, &pid) != BGWH_STOPPED)
	{
		if (TimestampDifferenceExceeds(launcher->probe_begun_at, launcher->now,
									   PROBE_LIMIT_MS))
			TerminateBackgroundWorker(launcher->probe);
		due(launcher, TimestampTzPlusMilliseconds(launcher->now, 1000));
		return;
	}

	LWLockAcquire(cvx_process_table->lock, LW_SHARED);
	has_reported = cvx_process_table->nprobes != launcher->nprobes;
	LWLockRelease(cvx_process_table->lock);
	if (has_reported)
	{
		database->looked_at = launcher->probe_begun_at;
		database->nfailures = 0;
	}
	else
	{
		int64		pause = (int64) FIRST_REST_MS << Min(database->nfailures, 10);

		database->nfailures++;
		database->rest_until =
			TimestampTzPlusMilliseconds(launcher->now,
										Min(pause, LOOK_INTERVAL_MS));
	}
	pfree(launcher->probe);
	launcher->probe = NULL;
	launcher->probed = NULL;
}

/* Look into the database whose look is overdue longest. */
static void
start_probe(Launcher *launcher)
{
	Database   *next = NULL;
	TimestampTz next_at = 0;
	TimestampTz look_at;
	CvxProcessOrder order = {0};
	bool		is_barred;
	bool		is_started;
	ListCell   *cell;
	MemoryContext old;

	if (launcher->probe)
		return;
	foreach(cell, launcher->databases)
	{
		Database   *database = (Database *) lfirst(cell);

		if (!database->is_present)
			continue;
		LWLockAcquire(cvx_process_table->lock, LW_SHARED);
		is_barred = cvx_process_is_barred(database->dbid);
		LWLockRelease(cvx_process_table->lock);

		/* The end of a bar asks for a look. */
		if (is_barred)
			continue;
		look_at = Max(database->look_at, database->rest_until);
		if (next == NULL || look_at < next_at)
		{
			next = database;
			next_at = look_at;
		}
	}
	if (next && next_at > launcher->now)
		due(launcher, next_at);
	if (next == NULL || next_at > launcher->now)
	{
		/* Nobody has to make room for it any more. */
		if (cvx_process_table->lacks_since != 0)
			note_slot(0);
		return;
	}

	LWLockAcquire(cvx_process_table->lock, LW_SHARED);
	launcher->nprobes = cvx_process_table->nprobes;
	LWLockRelease(cvx_process_table->lock);
	order.dbid = next->dbid;
	old = MemoryContextSwitchTo(launcher->context);
	is_started = cvx_process_register("convex_probe_main", CVX_PROBE_TYPE,
									  &order, &launcher->probe);
	MemoryContextSwitchTo(old);
	if (!is_started)
	{
		/* Somebody else's process has to end first. */
		launcher->probe = NULL;
		if (!launcher->is_told)
			ereport(LOG,
					(errmsg("could not scan database \"%s\" for subscriptions: no free background worker slot",
							next->name),
					 errhint("You might need to increase max_worker_processes.")));
		launcher->is_told = true;
		if (cvx_process_table->lacks_since == 0)
			note_slot(launcher->now);
		due(launcher, TimestampTzPlusMilliseconds(launcher->now,
												  SLOT_INTERVAL_MS));
		return;
	}
	if (cvx_process_table->lacks_since == 0)
		launcher->is_told = false;
	note_slot(0);
	next->look_at = TimestampTzPlusMilliseconds(launcher->now,
												LOOK_INTERVAL_MS);
	launcher->probed = next;
	launcher->probe_begun_at = launcher->now;
	due(launcher, TimestampTzPlusMilliseconds(launcher->now, 1000));
}

static void
note_slot(TimestampTz lacks_since)
{
	LWLockAcquire(cvx_process_table->lock, LW_EXCLUSIVE);
	cvx_process_table->lacks_since = lacks_since;
	LWLockRelease(cvx_process_table->lock);
}

/* ------------------------------------------------------------------------
 * Workers, as the launcher sees them
 * ------------------------------------------------------------------------
 */

/* Those that have been due longest have the first right to the slots there are. */
static void
check_processes(Launcher *launcher)
{
	Order	   *orders = palloc(CVX_MAX_PROCESSES * sizeof(Order));
	int			nrunning = 0;
	int			norders = 0;
	int			nstarted = 0;
	CvxLack		lack = CVX_LACKS_NOTHING;

	LWLockAcquire(cvx_process_table->lock, LW_EXCLUSIVE);
	for (int i = 0; i < CVX_MAX_PROCESSES; i++)
	{
		orders[norders].i = -1;
		if (!OidIsValid(cvx_process_table->processes[i].dbid))
			continue;
		check_process(launcher, i, &nrunning, &orders[norders]);
		if (orders[norders].i >= 0)
			norders++;
	}
	LWLockRelease(cvx_process_table->lock);

	qsort(orders, norders, sizeof(Order), compare_orders);
	while (nstarted < norders && lack == CVX_LACKS_NOTHING)
	{
		if (nrunning >= cvx_max_workers)
			lack = CVX_LACKS_WORKER;
		else if (!start_worker(launcher, orders[nstarted].i))
			lack = CVX_LACKS_PROCESS;
		else
		{
			nrunning++;
			nstarted++;
		}
	}
	note_lacks(launcher, orders + nstarted, norders - nstarted, lack);
	launcher->nlacking = norders - nstarted;
}

/* Who is due first comes first; at the same time, who was found first. */
static int
compare_orders(const void *one, const void *other)
{
	const Order *a = one;
	const Order *b = other;

	if (a->due_at != b->due_at)
		return a->due_at < b->due_at ? -1 : 1;
	return a->i - b->i;
}

/* These are due and cannot be started; the log has it once. */
static void
note_lacks(Launcher *launcher, const Order *orders, int norders, CvxLack lack)
{
	if (norders > 0)
		launcher->lacked_at = launcher->now;
	LWLockAcquire(cvx_process_table->lock, LW_EXCLUSIVE);
	for (int i = 0; i < CVX_MAX_PROCESSES; i++)
	{
		CvxProcess *process = &cvx_process_table->processes[i];

		process->lack = CVX_LACKS_NOTHING;
		process->is_told = process->is_told &&
			!TimestampDifferenceExceeds(launcher->lacked_at, launcher->now,
										TELL_AGAIN_MS);
	}
	for (int i = 0; i < norders; i++)
		cvx_process_table->processes[orders[i].i].lack = lack;
	LWLockRelease(cvx_process_table->lock);
	tell_lacks(launcher, orders, norders);

	/* A slot that somebody else gives back is not announced. */
	if (lack == CVX_LACKS_PROCESS)
		due(launcher, TimestampTzPlusMilliseconds(launcher->now,
												  SLOT_INTERVAL_MS));
}

static void
tell_lacks(Launcher *launcher, const Order *orders, int norders)
{
	int			ntold = 0;

	for (int i = 0; i < norders; i++)
	{
		CvxProcess *process = &cvx_process_table->processes[orders[i].i];
		bool		is_ours = process->lack == CVX_LACKS_WORKER;

		if (process->is_told)
			continue;
		process->is_told = true;
		if (ntold++ >= MAX_COMPLAINTS)
			continue;
		ereport(LOG,
				(is_ours ?
				 errmsg("could not start worker of subscription \"%s\": all %d workers are in use",
						NameStr(process->name), cvx_max_workers) :
				 errmsg("could not start worker of subscription \"%s\": no free background worker slot",
						NameStr(process->name)),
				 errdetail("Subscriptions take turns."),
				 errhint("You might need to increase %s.",
						 is_ours ? "convex_fdw.max_workers" : "max_worker_processes")));
	}
	if (ntold > MAX_COMPLAINTS)
		ereport(LOG,
				(errmsg("could not start workers of %d more subscriptions", ntold - MAX_COMPLAINTS)));
}

/*
 * Let workers that have nothing to do look whether somebody waits, so that they
 * give up their places: cvx_process_yield().
 */
static void
ask_for_places(Launcher *launcher)
{
	int			nwaiting;

	LWLockAcquire(cvx_process_table->lock, LW_EXCLUSIVE);
	nwaiting = launcher->nlacking + (cvx_process_table->lacks_since != 0);
	for (int i = 0; i < CVX_MAX_PROCESSES; i++)
		nwaiting -= cvx_process_table->processes[i].has_yielded;
	cvx_process_table->nwaiting = Max(nwaiting, 0);
	for (int i = 0; i < CVX_MAX_PROCESSES && nwaiting > 0; i++)
	{
		CvxProcess *process = &cvx_process_table->processes[i];
		TimestampTz free_at = TimestampTzPlusMilliseconds(process->started_at,
														  CVX_TURN_MS) + 1;

		if (process->state != CVX_PROCESS_RUNNING || process->is_leaving ||
			process->is_manual)
			continue;
		if (free_at <= launcher->now)
			SetLatch(&process->proc->procLatch);
		else
			due(launcher, free_at);
	}
	LWLockRelease(cvx_process_table->lock);
}

/*
 * What is to become of one entry?  Its index is given when it wants to be
 * started.  The caller holds the lock.
 */
static void
check_process(Launcher *launcher, int i, int *nrunning, Order *order)
{
	CvxProcess *process = &cvx_process_table->processes[i];
	Database   *database = find_database(launcher, process->dbid);
	bool		is_wanted = process->is_wanted && !process->is_held &&
		database && database->is_present;

	if (process->state == CVX_PROCESS_STARTING)
		check_starting(launcher, i);
	if (process->state == CVX_PROCESS_RUNNING && !is_wanted &&
		!process->is_manual && !process->is_leaving)
	{
		process->is_leaving = true;
		kill(process->pid, SIGTERM);
	}
	if (process->state != CVX_PROCESS_NONE)
	{
		(*nrunning)++;
		return;
	}
	if (!is_wanted)
	{
		process->lack = CVX_LACKS_NOTHING;
		if (!process->is_held ||
			!list_member_oid(launcher->existing, process->dbid))
			memset(process, 0, sizeof(CvxProcess));
		return;
	}
	if (cvx_process_is_barred(process->dbid))
		return;
	if (process->due_at > launcher->now)
		due(launcher, process->due_at);
	else if (database->looked_at == 0 ||
			 database->looked_at < process->look_after)
	{
		/* Only after a look: it may have ended for good. */
		if (database != launcher->probed ||
			launcher->probe_begun_at < process->look_after)
			database->look_at = Min(database->look_at, launcher->now);
	}
	else
	{
		order->i = i;
		order->due_at = process->due_at;
	}
}

/* Has a worker that was ordered come to nothing?  Caller holds the lock. */
static void
check_starting(Launcher *launcher, int i)
{
	CvxProcess *process = &cvx_process_table->processes[i];
	pid_t		pid;

	/* Ordered in an earlier life of the launcher: wait, then give up. */
	if (launcher->handles[i] == NULL)
	{
		if (TimestampDifferenceExceeds(process->started_at, launcher->now,
									   PROBE_LIMIT_MS))
			cvx_process_note_end(process);
		due(launcher, TimestampTzPlusMilliseconds(launcher->now, 1000));
		return;
	}
	if (GetBackgroundWorkerPid(launcher->handles[i], &pid) == BGWH_STOPPED)
		cvx_process_note_end(process);
	else
		due(launcher, TimestampTzPlusMilliseconds(launcher->now, 1000));
}

/* False when there is no slot. */
static bool
start_worker(Launcher *launcher, int i)
{
	CvxProcess *process = &cvx_process_table->processes[i];
	CvxProcessOrder order = {0};
	MemoryContext old;
	bool		is_started;

	if (launcher->handles[i])
		pfree(launcher->handles[i]);
	launcher->handles[i] = NULL;

	/* Before it is ordered: it may be there before the order returns. */
	LWLockAcquire(cvx_process_table->lock, LW_EXCLUSIVE);
	if (process->state != CVX_PROCESS_NONE || !process->is_wanted ||
		process->is_held)
	{
		/* Since it was looked at, somebody else has started or held it. */
		LWLockRelease(cvx_process_table->lock);
		return true;
	}
	order.dbid = process->dbid;
	order.subid = process->subid;
	order.name = process->name;
	order.owner = process->owner;
	process->state = CVX_PROCESS_STARTING;
	process->started_at = launcher->now;
	LWLockRelease(cvx_process_table->lock);

	old = MemoryContextSwitchTo(launcher->context);
	is_started = cvx_process_register("convex_worker_main", CVX_WORKER_TYPE,
									  &order, &launcher->handles[i]);
	MemoryContextSwitchTo(old);
	LWLockAcquire(cvx_process_table->lock, LW_EXCLUSIVE);
	if (is_started)
		cvx_process_table->moved_at = launcher->now;
	else
	{
		launcher->handles[i] = NULL;
		process->state = CVX_PROCESS_NONE;
	}
	LWLockRelease(cvx_process_table->lock);
	return is_started;
}

/* Say once when workers leave less than one parallel query plans with. */
static void
tell_room(Launcher *launcher)
{
	/* The launcher has a slot, and so has that of logical replication. */
	int			nleft = max_worker_processes - cvx_max_workers - 1 -
		(max_logical_replication_workers > 0);
	int			nplanned = Min(max_parallel_workers,
							   max_parallel_workers_per_gather);

	if (nleft >= nplanned || cvx_max_workers == launcher->told_workers)
		return;
	launcher->told_workers = cvx_max_workers;
	ereport(LOG,
			(errmsg("convex_fdw.max_workers (%d) may leave parallel queries only %d of %d planned workers",
					cvx_max_workers, Max(nleft, 0), nplanned),
			 errdetail("Workers of subscriptions take slots of max_worker_processes, which is %d.",
					   max_worker_processes),
			 errhint("Increase max_worker_processes, or decrease convex_fdw.max_workers; subscriptions beyond that number take turns.")));
}

/* ------------------------------------------------------------------------
 * The probe
 * ------------------------------------------------------------------------
 */

/*
 * The probe's entry point: which subscriptions of this database are enabled?
 * The answer goes into the table.
 */
void
convex_probe_main(Datum arg)
{
	CvxProcessOrder order = cvx_process_order();
	List	   *found;

	pqsignal(SIGTERM, die);
	BackgroundWorkerUnblockSignals();
	if (!cvx_process_attach_probe(order.dbid))
		proc_exit(0);
	BackgroundWorkerInitializeConnectionByOid(order.dbid, InvalidOid, 0);
	cvx_process_settings();
	SetConfigOption("application_name", CVX_PROBE_TYPE, PGC_USERSET,
					PGC_S_SESSION);
	SetConfigOption("lock_timeout", PROBE_LOCK_LIMIT, PGC_USERSET,
					PGC_S_SESSION);

	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	found = enabled_subscriptions();
	report_look(order.dbid, found);
	PopActiveSnapshot();
	CommitTransactionCommand();
	proc_exit(0);
}

/* CvxProcessOrder of each, in the transaction's memory. */
static List *
enabled_subscriptions(void)
{
	MemoryContext context = CurrentMemoryContext;
	char	   *catalog;
	List	   *found = NIL;

	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI does not connect");
	catalog = catalog_of_extension();
	if (catalog == NULL)
	{
		SPI_finish();
		return NIL;
	}
	if (SPI_execute(psprintf("SELECT subid, name, owner_oid FROM %s WHERE enabled AND home = '%s' ORDER BY subid",
							 catalog, cvx_catalog_home()), true, 0) != SPI_OK_SELECT)
		elog(ERROR, "the catalog of subscriptions cannot be read");
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		HeapTuple	tuple = SPI_tuptable->vals[i];
		TupleDesc	desc = SPI_tuptable->tupdesc;
		MemoryContext old = MemoryContextSwitchTo(context);
		CvxProcessOrder *order = palloc0(sizeof(CvxProcessOrder));
		bool		is_null;

		order->dbid = MyDatabaseId;
		order->subid = DatumGetInt32(SPI_getbinval(tuple, desc, 1, &is_null));
		order->name = *DatumGetName(SPI_getbinval(tuple, desc, 2, &is_null));
		order->owner = DatumGetObjectId(SPI_getbinval(tuple, desc, 3, &is_null));
		found = lappend(found, order);
		MemoryContextSwitchTo(old);
	}
	SPI_finish();
	return found;
}

/* The extension's table, quoted; NULL when this database has none. */
static char *
catalog_of_extension(void)
{
	static const char sql[] =
		"SELECT pg_catalog.quote_ident(n.nspname) || '.' || pg_catalog.quote_ident(c.relname)"
		" FROM pg_catalog.pg_extension AS e"
		" JOIN pg_catalog.pg_depend AS d ON d.refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass"
		" AND d.refobjid = e.oid AND d.deptype = 'e'"
		" AND d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.objsubid = 0"
		" JOIN pg_catalog.pg_class AS c ON c.oid = d.objid"
		" JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace"
		" WHERE e.extname = 'convex_fdw' AND c.relname = 'convex_subscription' AND c.relkind = 'r'";

	if (SPI_execute(sql, true, 1) != SPI_OK_SELECT)
		elog(ERROR, "the extension cannot be looked up");
	if (SPI_processed == 0)
		return NULL;
	return SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1);
}

static void
report_look(Oid dbid, List *found)
{
	int			nmissing = 0;
	bool		is_news;
	ListCell   *cell;

	LWLockAcquire(cvx_process_table->lock, LW_EXCLUSIVE);
	for (int i = 0; i < CVX_MAX_PROCESSES; i++)
		if (cvx_process_table->processes[i].dbid == dbid)
			cvx_process_table->processes[i].is_wanted = false;
	foreach(cell, found)
	{
		CvxProcessOrder *order = (CvxProcessOrder *) lfirst(cell);
		CvxProcess *process = cvx_process_find(dbid, order->subid, true);

		if (process == NULL)
		{
			nmissing++;
			continue;
		}
		process->is_wanted = true;
		process->name = order->name;
		process->owner = order->owner;
	}
	for (int i = 0; i < CVX_MAX_PROCESSES; i++)
	{
		CvxProcess *process = &cvx_process_table->processes[i];

		/* Who enables it again wants it to run. */
		if (process->dbid == dbid && !process->is_wanted)
			process->is_held = false;
	}
	is_news = cvx_process_note_overflow(dbid, nmissing);
	cvx_process_table->nprobes++;
	LWLockRelease(cvx_process_table->lock);
	if (is_news)
		ereport(LOG,
				(errmsg("too many subscriptions: %d of database \"%s\" are not followed",
						nmissing, get_database_name(dbid)),
				 errdetail("A server has room for %d subscriptions that are enabled.",
						   CVX_MAX_PROCESSES),
				 errhint("Follow the others with CALL convex_sync(), or disable some.")));
}
