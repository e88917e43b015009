/*
 * sub.h
 *		What do the files of the subscriptions share?
 *
 * Private to the room and to the floors above it.
 *
 * Room: subscription 5.0
 */
#ifndef CVX_SUB_H
#define CVX_SUB_H

#include "executor/spi.h"
#include "foreign/foreign.h"
#include "nodes/pg_list.h"
#include "utils/jsonb.h"
#include "utils/rel.h"
#include "utils/timestamp.h"

#include "protocol/api.h"
#include "shape/options_read.h"

/* ---- sub_sync.c: what is the next step, and when does the cursor move? */

/*
 * The last number of our advisory locks, which no SQL function can make.  They
 * are advisory because other session locks end with a transaction that fails.
 */
#define CVX_LOCK_SUBSCRIPTION	11
#define CVX_LOCK_WALK			12
#define CVX_LOCK_START			13

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

extern CvxSync *cvx_sync_open(int32 subid, const CvxSyncHost *host);
extern CvxStep cvx_sync_step(CvxSync *sync);
extern void cvx_sync_end_pauses(CvxSync *sync);
extern TimestampTz cvx_sync_retry_at(CvxSync *sync);
extern TimestampTz cvx_sync_next_attempt(CvxSync *sync);
extern bool cvx_sync_has_changed(CvxSync *sync);
extern bool cvx_sync_fails_aside(CvxSync *sync);
extern int	cvx_sync_poll_interval_ms(CvxSync *sync);
extern int	cvx_sync_idle_poll_interval_ms(CvxSync *sync);
extern int	cvx_sync_holder(CvxSync *sync);
CVX_NORETURN extern void cvx_sync_rethrow(CvxSync *sync);
extern const char *cvx_sync_failure(CvxSync *sync);
extern bool cvx_sync_is_waiting(CvxSync *sync);
extern bool cvx_sync_has_changes(CvxSync *sync);
extern int	cvx_sync_pages(CvxSync *sync);
extern void cvx_sync_close(CvxSync *sync);

/* ---- sub_worker.c, sub_launcher.c: see there */

extern void cvx_worker_wake(int32 subid);
extern void cvx_launcher_wake(void);

/* ---- sub_catalog.c: where is a subscription's state kept? */

typedef enum CvxMode
{
	CVX_MODE_MIRROR,
	CVX_MODE_SOFT_DELETE,
	CVX_MODE_HISTORY
} CvxMode;

/* What a table's rows are; see the diagram in sub_sync.c. */
typedef enum CvxRelState
{
	CVX_REL_JOINING,			/* not visible yet */
	CVX_REL_READY,
	CVX_REL_RESYNCING,			/* followed, and loaded again beside it */
	CVX_REL_ERROR,				/* waits until retry_at */
	CVX_REL_DROPPED				/* no longer listed; its rows stay */
} CvxRelState;

typedef enum CvxRelLoad
{
	CVX_LOAD_NONE,
	CVX_LOAD_WANTED,
	CVX_LOAD_WALKING,			/* in the walk under way */
	CVX_LOAD_INDEXING,
	CVX_LOAD_CATCHING_UP		/* at its own synced_ts */
} CvxRelLoad;

/* One table of a subscription as the catalog has it. */
typedef struct CvxSubRel
{
	int			relno;
	char	   *component;
	char	   *table;
	char	   *target_schema;
	char	   *target_name;
	Oid			target;			/* as found; invalid when there is none */
	bool		is_bound;		/* by its OID; else a table of its name */
	bool		is_moved;		/* the catalog does not say so yet */
	Jsonb	   *columns;		/* attribute -> field */
	CvxRelState state;
	CvxRelLoad	load;
	bool		is_staged;
	bool		is_empty;		/* the staging table has no rows yet */
	int64		synced_ts;		/* 0: stands at the common cursor */
	char	   *tablet;
	char	   *check_cursor;	/* where the next check goes on, or NULL */
	char	   *check_id;		/* the last _id checked */
	bool		is_retry_due;	/* its time to wait has passed */
	TimestampTz retry_at;		/* its end; 0: it does not wait */
} CvxSubRel;

typedef struct CvxSubscription
{
	int32		subid;
	char	   *name;
	char	   *server;
	char	   *owner_name;
	Oid			serverid;		/* invalid when it is gone */
	Oid			owner;			/* the same */
	bool		is_bound;		/* by their OIDs; else disabled */
	bool		is_moved;		/* the catalog has older names */
	bool		is_enabled;
	List	   *adopted;		/* char *: tables of others to be targets */
	List	   *patterns;		/* char * */
	char	   *target_schema;
	CvxMode		mode;
	int			poll_ms;

	/* options */
	int			idle_poll_ms;
	bool		is_evolving;	/* schema_evolution is add */
	bool		applies_deletes;
	bool		has_document;
	bool		notifies;
	int			max_columns;
	CvxTableOptions table_options;

	/* state */
	int64		generation;
	char	   *phase;
	char	   *deployment_url; /* that the cursor is of, or NULL */
	int64		cursor;			/* 0: none yet */
	bool		is_reloading;	/* all tables, under one new snapshot */
	int64		snapshot;		/* of the walk under way, or 0 */
	char	   *page_cursor;
	int			load_restarts;
	bool		is_check_due;
	int64		shown_from;		/* loaded tables: not before this; 0: unknown */
	int			failures;
	List	   *rels;			/* CvxSubRel */
} CvxSubscription;

extern void cvx_catalog_run(int expected, const char *sql,
							const char *types,...);
extern void cvx_catalog_look(void (*look) (void *arg), void *arg);
extern SPIPlanPtr cvx_catalog_plan(const char *sql, int n, Oid *types);
extern char *cvx_catalog_text(uint64 row, int column);
extern int64 cvx_catalog_int64(uint64 row, int column);
extern bool cvx_catalog_bool(uint64 row, int column);
extern Oid	cvx_catalog_relid(void);
extern Oid	cvx_catalog_owner(void);
extern bool cvx_catalog_has_table(Relation relation);
extern int32 cvx_catalog_find(const char *name);
extern CvxSubscription *cvx_catalog_load(int32 subid);
extern void cvx_catalog_follow(CvxSubscription *sub);
extern void cvx_catalog_bind(const CvxSubscription *sub);
extern void cvx_catalog_bind_target(const CvxSubscription *sub,
									CvxSubRel *rel);
extern char *cvx_catalog_home(void);
extern ForeignServer *cvx_catalog_server(const char *name);
extern void cvx_catalog_event(int32 subid, const char *kind,
							  const CvxSubRel *rel, const char *detail);
extern void cvx_catalog_trim_events(int32 subid);
extern void cvx_catalog_drift(int32 subid, const CvxSubRel *rel,
							  const char *detail);
extern void cvx_catalog_rel(const CvxSubscription *sub, const CvxSubRel *rel,
							const char *sets);
extern void cvx_catalog_rel_error(const CvxSubscription *sub,
								  const CvxSubRel *rel, int64 synced_ts,
								  const ErrorData *error);
extern int	cvx_catalog_add_tables(CvxSubscription *sub, List *tables,
								   bool is_first);
extern int	cvx_catalog_count_selected(List *patterns, List *tables);
extern bool cvx_catalog_is_writing(void);
extern void cvx_catalog_check_options(Jsonb *options);
extern void cvx_catalog_check_poll_interval(const Interval *interval);
extern List *cvx_catalog_fetch(CvxHttp *http);
extern CvxSubscription *cvx_catalog_check(const char *name);
extern void cvx_catalog_check_server(const CvxSubscription *sub);
extern void cvx_catalog_drop_staging(const CvxSubscription *sub,
									 const CvxSubRel *rel);
extern int	cvx_catalog_pid(int32 subid);
extern void cvx_catalog_init(void);
extern char *cvx_catalog_staging(const CvxSubscription *sub,
								 const CvxSubRel *rel);

/* ---- sub_target.c: how does a document become a row of its target? */

extern void cvx_target_init(void);

/* ---- sub_failure.c: what becomes of a failure? */

extern TimestampTz cvx_failure_record(int32 subid, const ErrorData *error);
extern void cvx_failure_note_loss(const CvxSubscription *sub,
								  const char *what);
extern void cvx_failure_end(const CvxSubscription *sub);
extern uint32 cvx_failure_fingerprint(const CvxRemote *remote);
extern uint32 cvx_failure_fingerprint_error(const ErrorData *error);

/* ---- sub_apply.c: how does a page change the local table? */

/* Documents of one table in a page. */
typedef struct CvxBatchDocs
{
	const CvxPage *page;
	const int  *docs;			/* indexes in page, in its order */
	int			ndocs;
} CvxBatchDocs;

extern void cvx_apply_create_staging(const CvxSubscription *sub,
									 CvxSubRel *rel);
extern bool cvx_apply_is_published(const char *schema);
extern bool cvx_apply_is_staging_logged(const CvxSubscription *sub,
										const CvxSubRel *rel);
extern bool cvx_apply_is_staging_emptied(const CvxSubscription *sub,
										 const CvxSubRel *rel);
extern bool cvx_apply_has_staging(const CvxSubscription *sub,
								  const CvxSubRel *rel);
extern void cvx_apply_load(const CvxSubscription *sub, CvxSubRel *rel,
						   const CvxBatchDocs *docs);
extern int	cvx_apply_lock_slots(void);
extern int	cvx_apply_count_locks(const CvxSubscription *sub,
								  const CvxSubRel *rel);
extern void cvx_apply_index(const CvxSubscription *sub, CvxSubRel *rel);
extern int64 cvx_apply_changes(const CvxSubscription *sub, CvxSubRel *rel,
							   bool to_staging, const CvxBatchDocs *docs);
extern bool cvx_apply_fits(const CvxSubscription *sub, CvxSubRel *rel);
extern void cvx_apply_cutover(const CvxSubscription *sub, CvxSubRel *rel,
							  int64 ts);
extern char *cvx_apply_compare(const CvxSubscription *sub, CvxSubRel *rel,
							   bool in_staging, const CvxPage *page,
							   const char *after, const char *upto);
extern bool cvx_apply_is_emptied(const CvxSubRel *rel);
extern void cvx_apply_environment(void);
extern void cvx_apply_check_target(const CvxSubscription *sub,
								   const CvxSubRel *rel);

#endif							/* CVX_SUB_H */
