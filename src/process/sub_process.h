/*
 * sub_process.h
 *		Which processes exist, and which must stay away?
 *
 * Private to the processes of the room and to the door above them.
 *
 * Room: process 6.1
 */
#ifndef CVX_SUB_PROCESS_H
#define CVX_SUB_PROCESS_H

#include "nodes/pg_list.h"
#include "postmaster/bgworker.h"
#include "storage/condition_variable.h"
#include "storage/lwlock.h"
#include "storage/proc.h"
#include "utils/timestamp.h"

#include "ground/compat.h"

/* What pg_stat_activity shows as backend_type. */
#define CVX_WORKER_TYPE		"convex_fdw worker"
#define CVX_PROBE_TYPE		"convex_fdw probe"
#define CVX_LAUNCHER_TYPE	"convex_fdw launcher"

/* With this a worker is asked to work at once, whatever it waits for. */
#define CVX_ASK_SIGNAL	SIGUSR2

/* Subscriptions of all databases that the table has room for. */
#define CVX_MAX_PROCESSES	1024

/* A worker keeps its place at least for so long, when others wait for one. */
#define CVX_TURN_MS		5000

/* Commands that keep workers out of a database at the same time. */
#define CVX_MAX_BARS		64

/* Condition variables of those who wait; subscriptions share them. */
#define CVX_MAX_NEWS		64

/* Databases that the launcher is asked to look into at the same time. */
#define CVX_MAX_LOOKS		64

typedef enum CvxProcessState
{
	CVX_PROCESS_NONE,			/* no process */
	CVX_PROCESS_STARTING,		/* the postmaster is to start one */
	CVX_PROCESS_RUNNING
} CvxProcessState;

/* What a worker that is due cannot be started for. */
typedef enum CvxLack
{
	CVX_LACKS_NOTHING,
	CVX_LACKS_WORKER,			/* convex_fdw.max_workers are there */
	CVX_LACKS_PROCESS,			/* the postmaster has no slot */
	CVX_LACKS_ROOM				/* in the table */
} CvxLack;

/* One subscription that has a worker or is to have one. */
typedef struct CvxProcess
{
	/* which */
	Oid			dbid;			/* InvalidOid: the entry is free */
	int32		subid;
	NameData	name;			/* the subscription's, for people */
	Oid			owner;			/* the same */

	/* what should be */
	bool		is_wanted;		/* the last look found it enabled */
	bool		is_held;		/* convex_stop_worker() keeps it away */

	/* what is */
	CvxProcessState state;
	bool		is_manual;		/* started by convex_start_worker() */
	bool		is_leaving;		/* sent away, or giving its place */
	bool		has_yielded;	/* the latter */
	bool		is_asked;		/* to work at once, by somebody, while none ran */
	CvxLack		lack;
	bool		is_told;		/* that, in the log */
	int			pid;			/* of a running one, else 0 */
	PGPROC	   *proc;

	/* when */
	TimestampTz started_at;
	TimestampTz ended_at;		/* 0: it never ran */
	TimestampTz look_after;		/* not started without a look since */
	TimestampTz due_at;			/* not started before; who is due first comes first */
	int			nshort;			/* short lives in a row */
} CvxProcess;

/* A database that a command keeps workers out of. */
typedef struct CvxBar
{
	Oid			dbid;			/* InvalidOid: free */
	int			pid;			/* the backend that runs the command */
} CvxBar;

/* Subscriptions of a database that the table has no room for. */
typedef struct CvxOverflow
{
	Oid			dbid;			/* InvalidOid: free */
	int			count;
	TimestampTz since;
} CvxOverflow;

/* In shared memory, all of it under the lock but for the news. */
typedef struct CvxProcessTable
{
	LWLock	   *lock;
	PGPROC	   *launcher;		/* or NULL */

	/* the probe that looks into a database, set by itself */
	int			probe_pid;
	Oid			probe_dbid;
	uint64		nprobes;		/* that have reported */
	TimestampTz lacks_since;	/* no slot for a probe; 0: there is one */

	/* turns, when there are more subscriptions than workers */
	int			nwaiting;		/* that want a place of another */
	TimestampTz moved_at;		/* when a worker was started last */

	/* asked of the launcher */
	bool		look_everywhere;
	int			nlooks;
	Oid			looks[CVX_MAX_LOOKS];

	CvxBar		bars[CVX_MAX_BARS];
	CvxOverflow overflows[CVX_MAX_LOOKS];
	CvxProcess	processes[CVX_MAX_PROCESSES];

	ConditionVariable news[CVX_MAX_NEWS];
} CvxProcessTable;

/* What a process is started with, in bgw_extra. */
typedef struct CvxProcessOrder
{
	Oid			dbid;
	int32		subid;			/* 0 for a probe */
	bool		is_manual;		/* by convex_start_worker() */
	Oid			owner;
	NameData	name;
} CvxProcessOrder;

/* A copy of one entry, for convex_workers(). */
typedef struct CvxProcessInfo
{
	Oid			dbid;
	int32		subid;			/* 0: those without room */
	NameData	name;
	Oid			owner;
	int			pid;
	const char *state;
	TimestampTz since;			/* 0: unknown */
} CvxProcessInfo;

/* Of the library that was preloaded; NULL otherwise. */
extern CvxProcessTable *cvx_process_table;

extern bool cvx_worker_enabled;
extern int	cvx_max_workers;

extern void cvx_process_init(void);
extern bool cvx_process_attach(const CvxProcessOrder *order);
extern bool cvx_process_attach_probe(Oid dbid);
extern CvxProcess *cvx_process_find(Oid dbid, int32 subid, bool create);
extern bool cvx_process_is_barred(Oid dbid);
extern bool cvx_process_note_overflow(Oid dbid, int count);
extern bool cvx_process_has_room(Oid dbid, int32 subid);
extern void cvx_process_note_end(CvxProcess *process);
extern bool cvx_process_yield(TimestampTz next_at, bool is_asked);
extern bool cvx_process_register(const char *function, const char *type,
								 const CvxProcessOrder *order,
								 BackgroundWorkerHandle **handle);
extern CvxProcessOrder cvx_process_order(void);
extern void cvx_process_settings(void);
extern int	cvx_process_pid(Oid dbid, int32 subid);
extern void cvx_process_tell(int32 subid);
extern void cvx_process_await(int32 subid, long ms);
extern bool cvx_process_hold(Oid dbid, int32 subid, bool is_held);
extern void cvx_process_look(Oid dbid);
extern List *cvx_process_list(void);
extern bool cvx_process_is_queued(Oid dbid, int32 subid, char **stuck);
extern void cvx_process_press(Oid dbid, int32 subid);
extern bool cvx_process_is_chosen(const char *database);

/* Entry points of the processes, for the postmaster. */
extern PGDLLEXPORT void convex_launcher_main(Datum arg);
extern PGDLLEXPORT void convex_probe_main(Datum arg);
extern PGDLLEXPORT void convex_worker_main(Datum arg);

extern void cvx_worker_wake(int32 subid);
extern void cvx_launcher_wake(void);

#endif							/* CVX_SUB_PROCESS_H */
