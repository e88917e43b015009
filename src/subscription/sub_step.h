/*
 * sub_step.h
 *		What do the steps of a subscription share?
 *
 * Private to the room.
 *
 * Room: subscription 5.11
 */
#ifndef CVX_SUB_STEP_H
#define CVX_SUB_STEP_H

#include "storage/lock.h"

#include "protocol/walk.h"
#include "subscription/sub_apply.h"
#include "subscription/sub_target.h"

typedef struct CvxSync CvxSync;

typedef enum CvxStep
{
	CVX_STEP_WORKED,			/* progress: call again at once */
	CVX_STEP_IDLE,				/* caught up: again after the poll interval */
	CVX_STEP_FAILED,			/* recorded; again at next_attempt */
	CVX_STEP_BUSY_ELSEWHERE,	/* another process steps this subscription */
	CVX_STEP_GONE				/* dropped or disabled */
} CvxStep;

/* How the hosting process begins and ends transactions. */
typedef struct CvxSyncHost
{
	void		(*begin) (void);
	void		(*commit) (void);
	void		(*rollback) (void);
	bool		is_worker;
} CvxSyncHost;

/* One page to be asked for. */
typedef struct CvxPageRequest
{
	bool		is_delta;
	int64		ts;				/* cursor, or snapshot (0: the head) */
	const char *cursor;			/* of a walk, or NULL */
	CvxSelection selection;
	char	   *key;			/* all of it as text */
} CvxPageRequest;

/* A page that has arrived. */
typedef struct CvxPageAnswer
{
	CvxCall    *call;
	CvxPage    *page;
} CvxPageAnswer;

/* How Convex is spoken to. */
typedef struct CvxLink
{
	CvxHttp    *http;
	MemoryContext cxt;			/* of the connection */
	uint32		fingerprint;	/* of what it is made of; 0: none yet */
	CvxHttpStats stats;			/* not yet added to the state */
	int			npages;			/* asked for */

	/* pages: one is applied while the other is fetched */
	MemoryContext page_cxts[2];
	int			present;
	CvxCall    *ahead;			/* in the context that is not present */
	char	   *ahead_key;
	int			page_relno;		/* the table of the last document; 0: none yet */
} CvxLink;

/* What this process alone may do. */
typedef struct CvxLease
{
	LOCKTAG		lock;			/* of the subscription */
	bool		has_lock;
	LOCKTAG		walk_lock;		/* of the deployment */
	bool		has_walk_lock;
	int			holder;			/* who has the first one */
} CvxLease;

/* The subscription as the catalog had it. */
typedef struct CvxKept
{
	MemoryContext cxt;
	CvxSubscription *sub;
	bool		is_fresh;		/* up to date after the last step */
	uint64		at;				/* the catalogs then, as a count of changes */
	TimestampTz since;
	int64		generation;
	int			poll_ms;
	int			idle_poll_ms;
} CvxKept;

/* Of one step. */
typedef struct CvxStepState
{
	MemoryContext cxt;
	bool		is_applying;	/* to one table */
	bool		is_aside;		/* not about the common changes */
	bool		is_looking;		/* for tables that changes name and nobody knows */
	bool		is_waiting;		/* for another walk */
	bool		is_productive;	/* it did something that can fail */
	bool		has_changes;	/* its page of the change log was not empty */
	bool		has_dropped;	/* it found a table gone that it asked for */
	ErrorData  *failure;
} CvxStepState;

/* What the last steps leave to the next. */
typedef struct CvxPace
{
	bool		is_careful;		/* each table in a subtransaction */
	bool		was_walk;		/* the last step was a walk's */
	bool		was_check;		/* or part of a check */
	bool		is_caught_up;
	bool		skips_look;		/* it failed: the page goes on without it */
	int64		head;			/* to be reached by CALL; 0: not known yet */
	int64		seen_head;		/* by a worker that is behind */
	TimestampTz head_asked_at;
} CvxPace;

/* What has failed, and when to try again. */
typedef struct CvxTrouble
{
	TimestampTz next_attempt;
	TimestampTz aside_retry_at; /* 0: what stands aside does not fail */
	ErrorData  *aside;			/* for CALL: of what stands aside */
	uint32		fingerprint;	/* of the connection that failed */
	bool		ends_pauses;	/* somebody asked for it */

	/* loads of everything, since the cursor was of no use */
	int			nrestarts;
	TimestampTz restarted_at;	/* the last one */
} CvxTrouble;

/* Checks: each is of use only at the head as it was when it was due. */
typedef struct CvxCheckState
{
	bool		has_arrived;	/* loaded ones stand at the cursor, before that */
	int64		from;			/* for tables that are followed; 0: not asked yet */
	int64		generation;		/* of the state when `from` was asked */
	int64		event;			/* the last announcement that it covers */
	int			relno;			/* the last table compared; 0: not begun */
	bool		found;			/* a table that was replaced */
	int			nrechecks;		/* checks at once after a resync */
} CvxCheckState;

struct CvxSync
{
	/* fixed at open */
	int32		subid;
	CvxSyncHost host;
	MemoryContext cxt;

	CvxLink		link;
	CvxLease	lease;
	CvxKept		kept;
	CvxSubscription *sub;		/* that this step works on */
	CvxStepState step;
	CvxPace		pace;
	CvxTrouble	trouble;
	CvxCheckState check;

	/* what earlier pages tell of the next; told anew after a failure */
	CvxWalk    *walk;			/* that loads; NULL before the first */
	CvxLog		log;			/* of the common changes */
	CvxLog		own_log;		/* of tables that catch up */
};

extern void cvx_step_begin(CvxSync *sync);
extern void cvx_step_commit(CvxSync *sync);
extern bool cvx_step_take_lock(CvxSync *sync);
extern void cvx_step_note_locks(CvxSync *sync);
extern bool cvx_step_take_walk_lock(CvxSync *sync);
extern void cvx_step_release_walk_lock(CvxSync *sync);
extern void cvx_step_forget_ahead(CvxSync *sync);
extern bool cvx_step_has_load(CvxSubscription *sub, CvxRelLoad load);
extern int	cvx_step_lock_budget(const CvxSync *sync);
extern int64 cvx_step_cut(const CvxSync *sync, const CvxPage *page,
						   int64 bound);
extern int64 cvx_step_ask_head(CvxSync *sync);
extern bool cvx_step_is_snapshot_gone(CvxCall *call);
extern CvxPageRequest cvx_step_make_request(CvxSync *sync, bool is_delta,
											int64 ts, const char *cursor,
											List *rels, bool is_open);
extern CvxPageAnswer cvx_step_receive(CvxSync *sync, CvxPageRequest *request);
extern void cvx_step_prefetch(CvxSync *sync, CvxPageRequest *request);
extern void cvx_step_prefetch_after(CvxSync *sync, CvxCall *call,
									bool is_delta, List *rels,
									bool is_open);
extern CvxPage *cvx_step_read_page(CvxSync *sync, CvxPageAnswer received,
								   CvxPageRequest *request);
extern bool cvx_step_still_at(CvxSync *sync);
extern void cvx_step_look_ahead(CvxSync *sync);
extern void cvx_step_advance(CvxSync *sync, int64 cursor, bool has_more,
							 int64 rows);
extern void cvx_step_forget_costs(CvxSync *sync);
extern bool cvx_step_is_doc_of(const CvxPage *page, const CvxDoc *doc,
							   const CvxSubRel *rel);
extern int cvx_step_group_docs(CvxSync *sync, const CvxPage *page,
							   int64 bound, List *rels, CvxBatchDocs **batches);
extern int64 cvx_step_apply_tables(CvxSync *sync, List *rels,
								   const CvxPage *page, int64 bound,
								   bool to_staging);
extern bool cvx_step_guarded(CvxSync *sync, CvxSubRel *rel, int64 stands_at,
							 void (*work) (CvxSync *sync, CvxSubRel *rel, void *arg),
							 void *arg);
extern bool cvx_step_is_of_table(const CvxSubscription *sub, int sqlerrcode);
extern char *cvx_step_tablet_of(const char *cursor);
extern char *cvx_step_tablet_of_last(const CvxPage *page);

#endif							/* CVX_SUB_STEP_H */
