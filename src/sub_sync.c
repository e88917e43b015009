/*
 * sub_sync.c
 *		What is the next step, and when does the cursor move?
 *
 * Invariants:
 *	1. Rows, cursor and states of tables change in one transaction.
 *	2. The cursor moves only from the value that the page was asked for: each
 *	   advance compares it, and the row's generation, before it sets it; and a
 *	   session lock lets one process at a time step a subscription.
 *	3. Nobody waits for HTTP with a snapshot, a transaction id or a lock on an
 *	   object; a worker not even within a transaction.
 *	4. A page may be cut at any timestamp: the changes up to there, and the
 *	   cursor there, are a state that Convex had.
 *	5. After a crash the catalog alone decides what comes next.
 *
 * Loads.  All tables that are to be loaded when a walk begins share it: one
 * selection and one snapshot S, page by page into staging tables.
 *
 *		wanted --begin_walk--> walking --walk_page--> indexing
 *		   --index_table--> catching_up (at S) --cut_over--> none
 *
 * Without a cursor, or when all is reloaded, the common cursor becomes S when
 * the loaded tables are cut over, all at once.  Otherwise the loaded tables
 * stand at T = S and the common cursor at C: if T < C the tables' own changes
 * are read, cut at C; if T > C the common changes, cut at T; if T = C they are
 * cut over.  Reading and applying changes of a target that had been broken is
 * the same, but for the staging table.
 *
 * Room: subscription 4.3
 */
#include "postgres.h"

#include <math.h>

#include "access/htup_details.h"
#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/pg_foreign_server.h"
#include "catalog/pg_namespace.h"
#include "commands/async.h"
#include "common/hashfn.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "storage/lock.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/resowner.h"
#include "utils/syscache.h"

#include "compat.h"
#include "schema.h"
#include "sub.h"

/* A walk that lost its snapshot is begun anew so often. */
#define MAX_LOAD_RESTARTS	1

/*
 * So many steps have to fail before a snapshot is suspected: short troubles of
 * the server are over by then.
 */
#define LOST_AFTER_FAILURES	5

/* The pause while another walk of the deployment goes on. */
#define WALK_RETRY_MS		1000

/* The longest pause after failures. */
#define MAX_BACKOFF_S		300

/* Checks at once after resyncs; then the interval has to pass. */
#define MAX_RECHECKS		3

/* Tables that changes name and nobody knows are looked for so often. */
#define UNKNOWN_CHECK_MS	10000

/* One page to be asked for. */
typedef struct Request
{
	bool		is_delta;
	int64		ts;				/* cursor, or snapshot (0: the head) */
	const char *cursor;			/* of a walk, or NULL */
	CvxSelection selection;
	bool		is_any;			/* documents of other tables may come */
	char	   *key;			/* all of it as text */
} Request;

/* A page that has arrived. */
typedef struct Received
{
	CvxCall    *call;
	CvxPage    *page;
} Received;

struct CvxSync
{
	/* fixed at open */
	int32		subid;
	CvxSyncHost host;
	MemoryContext cxt;

	/* locks that this process holds for it */
	LOCKTAG		lock;
	bool		has_lock;
	LOCKTAG		walk_lock;
	bool		has_walk_lock;

	/* connection */
	CvxHttp    *http;
	MemoryContext http_cxt;
	CvxHttpStats stats;

	/* per step */
	MemoryContext step_cxt;
	CvxSubscription *sub;
	bool		is_careful;		/* each table in a subtransaction */
	bool		is_applying;	/* to one table */
	bool		was_walk;		/* the last step was a walk's */
	bool		is_caught_up;
	bool		is_check_noted; /* and the head was reached after it was wanted */
	bool		is_waiting;		/* for another walk */
	int64		head;			/* to be reached by CALL; 0: not known yet */
	int			holder;
	ErrorData  *failure;		/* of the last step */
	TimestampTz next_attempt;
	TimestampTz unknown_checked_at;
	int			poll_ms;
	int			idle_poll_ms;
	int			npages;
	int			nrechecks;		/* checks at once after a resync */

	/* pages: one is applied while the other is fetched */
	MemoryContext page_cxts[2];
	int			present;
	CvxCall    *ahead;			/* in the context that is not present */
	char	   *ahead_key;
};

static CvxStep step(CvxSync *sync);
static bool mend_staging(CvxSubscription *sub);
static Oid	staging_intruder(void);
static void begin(CvxSync *sync);
static void commit(CvxSync *sync);
static bool take_lock(CvxSync *sync);
static bool take_walk_lock(CvxSync *sync);
static void release_walk_lock(CvxSync *sync);
static void open_connection(CvxSync *sync);
static void forget_ahead(CvxSync *sync);
static void record_failure(CvxSync *sync, const ErrorData *error);
static bool has_load(CvxSubscription *sub, CvxRelLoad load);
static CvxStep follow(CvxSync *sync);
static CvxStep reload(CvxSync *sync);
static CvxStep load_or(CvxSync *sync, bool *is_done);
static void stage_one(CvxSync *sync, CvxSubRel *rel, void *arg);
static CvxStep begin_walk(CvxSync *sync);
static CvxStep walk_page(CvxSync *sync);
static bool is_snapshot_lost(CvxSync *sync, CvxCall *call);
static CvxStep restart_walk(CvxSync *sync, const char *why);
static CvxStep index_tables(CvxSync *sync);
static CvxStep cut_over(CvxSync *sync, List *rels, int64 ts);
static CvxStep catch_up(CvxSync *sync, List *rels);
static CvxStep common_changes(CvxSync *sync, int64 bound);
static CvxStep reload_all(CvxSync *sync, const char *why);
static CvxStep check_tables(CvxSync *sync);
static bool is_ready(CvxSync *sync, CvxSubRel *rel);
static bool check_table(CvxSync *sync, CvxSubRel *rel);
static Request make_request(CvxSync *sync, bool is_delta, int64 ts,
							const char *cursor, List *rels, bool is_everything);
static Received receive(CvxSync *sync, Request *request);
static void prefetch(CvxSync *sync, Request *request);
static CvxPage *read_page(CvxSync *sync, Received received, Request *request);
static bool still_at(CvxSync *sync);
static void advance(CvxSync *sync, int64 cursor, bool has_more, int64 rows);
static void add_costs(CvxSync *sync, int64 rows);
static int	group_docs(const CvxPage *page, int64 bound, List *rels,
					   CvxBatchDocs **batches);
static int64 apply_tables(CvxSync *sync, List *rels, const CvxPage *page,
						  int64 bound, bool to_staging);
static bool guarded(CvxSync *sync, CvxSubRel *rel, int64 stands_at,
					void (*work) (CvxSync *sync, CvxSubRel *rel, void *arg),
					void *arg);
static bool is_of_table(int sqlerrcode);
static char *tablet_of(const char *cursor);

/* A state for one subscription; no transaction is needed. */
CvxSync *
cvx_sync_open(int32 subid, const CvxSyncHost *host)
{
	MemoryContext cxt = AllocSetContextCreate(TopMemoryContext,
											  "convex subscription",
											  ALLOCSET_DEFAULT_SIZES);
	CvxSync    *sync = MemoryContextAllocZero(cxt, sizeof(CvxSync));

	sync->cxt = cxt;
	sync->subid = subid;
	sync->host = *host;
	sync->step_cxt = AllocSetContextCreate(cxt, "convex step",
										   ALLOCSET_DEFAULT_SIZES);
	for (int i = 0; i < 2; i++)
		sync->page_cxts[i] = AllocSetContextCreate(cxt, "convex page",
												   ALLOCSET_DEFAULT_SIZES);
	sync->poll_ms = 1000;
	sync->idle_poll_ms = 10000;
	return sync;
}

/*
 * Do the next piece of work, in transactions of its own.  What fails is
 * recorded in the catalog; only cancel and terminate are thrown, and what
 * keeps the catalog from being written.
 */
CvxStep
cvx_sync_step(CvxSync *sync)
{
	MemoryContext old = CurrentMemoryContext;
	volatile CvxStep result = CVX_STEP_FAILED;

	MemoryContextReset(sync->step_cxt);
	MemoryContextSwitchTo(sync->step_cxt);
	sync->sub = NULL;
	sync->failure = NULL;
	sync->is_applying = false;
	sync->is_waiting = false;
	PG_TRY();
	{
		result = step(sync);
	}
	PG_CATCH();
	{
		ErrorData  *error;

		MemoryContextSwitchTo(sync->step_cxt);
		error = CopyErrorData();
		forget_ahead(sync);
		if (error->sqlerrcode == ERRCODE_QUERY_CANCELED ||
			error->sqlerrcode == ERRCODE_ADMIN_SHUTDOWN ||
			error->sqlerrcode == ERRCODE_CRASH_SHUTDOWN)
		{
			MemoryContextSwitchTo(old);
			PG_RE_THROW();
		}
		FlushErrorState();
		sync->host.rollback();
		MemoryContextSwitchTo(sync->step_cxt);
		if (!sync->is_careful && sync->is_applying &&
			is_of_table(error->sqlerrcode))
		{
			/* Once more, each table by itself: perhaps only one is broken. */
			sync->is_careful = true;
			result = CVX_STEP_WORKED;
		}
		else
		{
			sync->is_careful = false;
			record_failure(sync, error);
			sync->failure = error;
			result = CVX_STEP_FAILED;
		}
	}
	PG_END_TRY();
	MemoryContextSwitchTo(old);
	return result;
}

/* After a failure: throw it. */
void
cvx_sync_rethrow(CvxSync *sync)
{
	ErrorData  *error = sync->failure;
	MemoryContext old;

	if (error == NULL)
		elog(ERROR, "a step failed and left no error");

	/*
	 * Some minor releases copy these with an error, but not when it is thrown
	 * again, and ours are gone before it is reported.
	 */
	old = MemoryContextSwitchTo(ErrorContext);
	error->filename = error->filename ? pstrdup(error->filename) : NULL;
	error->funcname = error->funcname ? pstrdup(error->funcname) : NULL;
	error->domain = error->domain ? pstrdup(error->domain) : NULL;
	error->context_domain = error->context_domain ? pstrdup(error->context_domain) : NULL;
	MemoryContextSwitchTo(old);
	ReThrowError(error);
}

/* After a failure: its message. */
const char *
cvx_sync_failure(CvxSync *sync)
{
	return sync->failure ? sync->failure->message : "failed";
}

/* After a failure: when to try again. */
TimestampTz
cvx_sync_next_attempt(CvxSync *sync)
{
	return sync->next_attempt;
}

int
cvx_sync_poll_interval_ms(CvxSync *sync)
{
	return sync->poll_ms;
}

int
cvx_sync_idle_poll_interval_ms(CvxSync *sync)
{
	return sync->idle_poll_ms;
}

/* Who else steps the subscription; 0 when that is not known. */
int
cvx_sync_holder(CvxSync *sync)
{
	return sync->holder;
}

/* Is an idle step waiting for the walk of another subscription? */
bool
cvx_sync_is_waiting(CvxSync *sync)
{
	return sync->is_waiting;
}

/* How many pages have been asked for. */
int
cvx_sync_pages(CvxSync *sync)
{
	return sync->npages;
}

/* Give back locks and memory; also after an error. */
void
cvx_sync_close(CvxSync *sync)
{
	release_walk_lock(sync);
	if (sync->has_lock)
		LockRelease(&sync->lock, ExclusiveLock, true);
	sync->has_lock = false;
	MemoryContextDelete(sync->cxt);
}

/* ------------------------------------------------------------------------
 * Steps
 * ------------------------------------------------------------------------
 */

static CvxStep
step(CvxSync *sync)
{
	CvxSubscription *sub;
	bool		had_lock;

	begin(sync);
	if (!OidIsValid(cvx_catalog_relid()) ||
		(sub = cvx_catalog_load(sync->subid)) == NULL || !sub->is_enabled)
	{
		commit(sync);
		return CVX_STEP_GONE;
	}
	had_lock = sync->has_lock;
	if (!take_lock(sync))
	{
		sync->holder = cvx_catalog_pid(sync->subid);
		commit(sync);
		return CVX_STEP_BUSY_ELSEWHERE;
	}
	/* What was read before the lock was there may be old. */
	if (!had_lock)
		sub = cvx_catalog_load(sync->subid);
	if (sub == NULL)
	{
		commit(sync);
		return CVX_STEP_GONE;
	}
	if (mend_staging(sub))
	{
		commit(sync);
		return CVX_STEP_WORKED;
	}
	sync->sub = sub;
	sync->poll_ms = sub->poll_ms;
	sync->idle_poll_ms = sub->idle_poll_ms;
	open_connection(sync);
	commit(sync);

	if (!sync->host.is_worker && sync->head == 0)
		sync->head = Max(cvx_api_query_ts(sync->http), 0);
	if (strcmp(sub->phase, "load_too_slow") == 0)
		return CVX_STEP_IDLE;
	if (sub->cursor == 0 || sub->is_reloading)
		return reload(sync);
	return follow(sync);
}

/*
 * A staging table that is gone, as after a restore, is loaded again, and with
 * it all that walk together.
 */
static bool
mend_staging(CvxSubscription *sub)
{
	bool		is_mended = false;
	bool		is_foreign = OidIsValid(staging_intruder());
	ListCell   *lc;

	foreach(lc, sub->rels)
	{
		CvxSubRel  *rel = lfirst(lc);

		if (!rel->is_staged ||
			(!is_foreign && cvx_apply_has_staging(sub, rel)))
			continue;
		cvx_catalog_rel(sub, rel, "load = 'wanted', is_staged = false, synced_ts = NULL, retry_at = NULL");
		if (rel->load == CVX_LOAD_WALKING || sub->cursor == 0 || sub->is_reloading)
		{
			cvx_catalog_run(SPI_OK_UPDATE,
							"UPDATE @.convex_subscription_rel SET load = 'wanted' WHERE subid = $1"
							" AND (load = 'walking' OR ($2 AND load IS NOT NULL))", "ib",
							sub->subid, sub->cursor == 0 || sub->is_reloading);
			cvx_catalog_run(SPI_OK_UPDATE,
							"UPDATE @.convex_subscription_state SET snapshot = NULL, page_cursor = NULL WHERE subid = $1",
							"i", sub->subid);
		}
		cvx_catalog_event(sub->subid, "resync", rel, "the staging table is gone");
		is_mended = true;
	}
	return is_mended;
}

/*
 * The role that owns the schema of staging tables and is no superuser: it could
 * put tables of its own in their place, with code in them.
 */
static Oid
staging_intruder(void)
{
	Oid			schema = get_namespace_oid("convex_staging", true);
	HeapTuple	tuple = SearchSysCache1(NAMESPACEOID, ObjectIdGetDatum(schema));
	Oid			owner = InvalidOid;

	if (HeapTupleIsValid(tuple))
	{
		owner = ((Form_pg_namespace) GETSTRUCT(tuple))->nspowner;
		ReleaseSysCache(tuple);
	}
	return OidIsValid(owner) && !superuser_arg(owner) ? owner : InvalidOid;
}

/* Begin a transaction; the current context stays the step's. */
static void
begin(CvxSync *sync)
{
	sync->host.begin();
	MemoryContextSwitchTo(sync->step_cxt);
	cvx_apply_environment();
}

static void
commit(CvxSync *sync)
{
	sync->host.commit();
	MemoryContextSwitchTo(sync->step_cxt);
}

/* The right to step the subscription; it ends with the process at the latest. */
static bool
take_lock(CvxSync *sync)
{
	if (sync->has_lock)
		return true;
	SET_LOCKTAG_ADVISORY(sync->lock, MyDatabaseId, cvx_catalog_relid(),
						 sync->subid, CVX_LOCK_SUBSCRIPTION);
	sync->has_lock = LockAcquire(&sync->lock, ExclusiveLock, true, true) !=
		LOCKACQUIRE_NOT_AVAIL;
	return sync->has_lock;
}

/* The right to walk: a deployment keeps one walk warm, whoever's it is. */
static bool
take_walk_lock(CvxSync *sync)
{
	const char *url = cvx_http_remote(sync->http)->base_url;

	if (sync->has_walk_lock)
		return true;
	SET_LOCKTAG_ADVISORY(sync->walk_lock, InvalidOid, ForeignServerRelationId,
						 hash_bytes((const unsigned char *) url, strlen(url)),
						 CVX_LOCK_WALK);
	sync->has_walk_lock = LockAcquire(&sync->walk_lock, ExclusiveLock, true,
									  true) != LOCKACQUIRE_NOT_AVAIL;
	return sync->has_walk_lock;
}

static void
release_walk_lock(CvxSync *sync)
{
	if (sync->has_walk_lock)
		LockRelease(&sync->walk_lock, ExclusiveLock, true);
	sync->has_walk_lock = false;
}

/* The connection as the options say now. */
static void
open_connection(CvxSync *sync)
{
	MemoryContext cxt = AllocSetContextCreate(sync->cxt, "convex connection",
											  ALLOCSET_SMALL_SIZES);
	CvxRemote  *remote;

	cvx_catalog_check_server(sync->sub);
	if (cvx_server_aclcheck(sync->sub->serverid, sync->sub->owner) != ACLCHECK_OK)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("owner of subscription \"%s\" may not use server \"%s\"",
						sync->sub->name, sync->sub->server)));
	remote = cvx_options_remote(sync->sub->serverid, sync->sub->owner);
	MemoryContextSwitchTo(cxt);
	sync->http = cvx_http_open(remote);
	MemoryContextSwitchTo(sync->step_cxt);
	if (sync->http_cxt)
		MemoryContextDelete(sync->http_cxt);
	sync->http_cxt = cxt;
}

static void
forget_ahead(CvxSync *sync)
{
	if (sync->ahead)
		MemoryContextReset(sync->page_cxts[1 - sync->present]);
	sync->ahead = NULL;
}

/* Leave the failure in the catalog, and pause longer each time. */
static void
record_failure(CvxSync *sync, const ErrorData *error)
{
	int			failures;
	double		pause;

	begin(sync);
	cvx_catalog_run(0,
					"UPDATE @.convex_subscription_state SET failures = failures + 1, phase ="
					" CASE WHEN phase IN ('starting', 'loading', 'reloading') THEN phase ELSE 'failing' END,"
					" last_error_code = $2, last_error_message = $3, last_error_at = clock_timestamp(),"
					" caught_up = false WHERE subid = $1 RETURNING failures", "itt",
					sync->subid, unpack_sql_state(error->sqlerrcode),
					error->message);
	failures = SPI_processed == 1 ? (int) cvx_catalog_int64(0, 1) : 1;
	pause = Min(pow(2, Min(failures - 1, 10)), MAX_BACKOFF_S) *
		(0.75 + 0.5 * (random() % 1000) / 1000.0);
	sync->next_attempt = TimestampTzPlusMilliseconds(GetCurrentTimestamp(),
													 (int64) (pause * 1000));
	cvx_catalog_run(0,
					"UPDATE @.convex_subscription_state SET next_attempt_at ="
					" clock_timestamp() + $2 * interval '1 ms' WHERE subid = $1",
					"ii", sync->subid, (int32) (pause * 1000));
	if (failures == 1)
		cvx_catalog_event(sync->subid, "error", NULL,
						  psprintf("%s: %s", unpack_sql_state(error->sqlerrcode),
								   error->message));
	commit(sync);
}

/* Is a table in this stage?  One that waits for its retry is not wanted. */
static bool
has_load(CvxSubscription *sub, CvxRelLoad load)
{
	ListCell   *lc;

	foreach(lc, sub->rels)
	{
		CvxSubRel  *rel = lfirst(lc);

		if (rel->load == load &&
			(load != CVX_LOAD_WANTED || rel->is_retry_due))
			return true;
	}
	return false;
}

/* ------------------------------------------------------------------------
 * Loading
 * ------------------------------------------------------------------------
 */

/* There is no common cursor yet, or none that is good: all tables walk. */
static CvxStep
reload(CvxSync *sync)
{
	CvxSubscription *sub = sync->sub;
	List	   *loaded = NIL;
	bool		is_done = false;
	CvxStep		result = load_or(sync, &is_done);
	int64		ts = 0;
	ListCell   *lc;

	if (is_done)
		return result;
	foreach(lc, sub->rels)
	{
		CvxSubRel  *rel = lfirst(lc);

		if (rel->load == CVX_LOAD_CATCHING_UP && rel->is_staged)
		{
			loaded = lappend(loaded, rel);
			ts = rel->synced_ts;
		}
	}
	/* A deployment without tables is followed from its head. */
	if (ts == 0)
		ts = cvx_api_fresh_snapshot(sync->http);
	return cut_over(sync, loaded, ts);
}

/* The next step of a load; *is_done is false when there is none. */
static CvxStep
load_or(CvxSync *sync, bool *is_done)
{
	CvxSubscription *sub = sync->sub;

	*is_done = true;
	if (has_load(sub, CVX_LOAD_INDEXING))
		return index_tables(sync);

	/* Tables of a reload are cut over before others begin to walk. */
	if (has_load(sub, CVX_LOAD_WALKING) ||
		(has_load(sub, CVX_LOAD_WANTED) &&
		 !((sub->cursor == 0 || sub->is_reloading) &&
		   has_load(sub, CVX_LOAD_CATCHING_UP))))
	{
		if (!take_walk_lock(sync))
		{
			*is_done = sub->cursor == 0 || sub->is_reloading;
			sync->is_waiting = true;
			sync->next_attempt = TimestampTzPlusMilliseconds(GetCurrentTimestamp(),
															 WALK_RETRY_MS);
			return CVX_STEP_IDLE;
		}
		return has_load(sub, CVX_LOAD_WALKING) ? walk_page(sync) :
			begin_walk(sync);
	}
	release_walk_lock(sync);
	*is_done = false;
	return CVX_STEP_WORKED;
}

static void
stage_one(CvxSync *sync, CvxSubRel *rel, void *arg)
{
	cvx_apply_create_staging(sync->sub, rel);
}

/* All tables that are wanted now walk together. */
static CvxStep
begin_walk(CvxSync *sync)
{
	CvxSubscription *sub = sync->sub;
	Oid			intruder;
	ListCell   *lc;

	begin(sync);
	if (!still_at(sync))
	{
		commit(sync);
		return CVX_STEP_WORKED;
	}
	intruder = staging_intruder();
	if (OidIsValid(intruder))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("schema \"convex_staging\" belongs to role \"%s\", which is no superuser",
						GetUserNameFromId(intruder, true)),
				 errhint("Drop the schema; it is made again when it is needed.")));
	foreach(lc, sub->rels)
	{
		CvxSubRel  *rel = lfirst(lc);

		if (rel->load != CVX_LOAD_WANTED || !rel->is_retry_due)
			continue;
		if (guarded(sync, rel, 0, stage_one, NULL))
			cvx_catalog_rel(sub, rel, "load = 'walking', snapshot = NULL");
	}
	cvx_catalog_run(SPI_OK_UPDATE,
					"UPDATE @.convex_subscription_state SET snapshot = NULL, page_cursor = NULL,"
					" load_started_at = clock_timestamp(), load_pages = 0,"
					" phase = CASE WHEN cursor IS NULL THEN 'loading' WHEN reload THEN 'reloading' ELSE phase END"
					" WHERE subid = $1", "i", sub->subid);
	commit(sync);
	sync->is_careful = false;
	return CVX_STEP_WORKED;
}

/* One page of the walk, into the staging table of its table. */
static CvxStep
walk_page(CvxSync *sync)
{
	CvxSubscription *sub = sync->sub;
	List	   *walking = NIL;
	Request		request;
	Received	received;
	CvxPage    *page;
	CvxBatchDocs *batches;
	ListCell   *lc;

	foreach(lc, sub->rels)
		if (((CvxSubRel *) lfirst(lc))->load == CVX_LOAD_WALKING)
			walking = lappend(walking, lfirst(lc));
	request = make_request(sync, false, sub->snapshot, sub->page_cursor,
						   walking, false);
	received = receive(sync, &request);
	if (sub->snapshot != 0 && is_snapshot_lost(sync, received.call))
		return restart_walk(sync, "Convex no longer serves the snapshot");
	page = read_page(sync, received, &request);
	if (sub->snapshot != 0 && page->ts != sub->snapshot)
		ereport(ERROR,
				(errcode(ERRCODE_FDW_UNABLE_TO_CREATE_REPLY),
				 errmsg("Convex server \"%s\" changed the snapshot of a walk",
						sub->server)));
	if (page->has_more)
	{
		Request		next = make_request(sync, false, page->ts, page->cursor,
										walking, false);

		prefetch(sync, &next);
	}

	begin(sync);
	if (!still_at(sync))
	{
		commit(sync);
		return CVX_STEP_WORKED;
	}
	group_docs(page, PG_INT64_MAX, walking, &batches);
	foreach(lc, walking)
	{
		CvxSubRel  *rel = lfirst(lc);
		CvxBatchDocs *docs = &batches[foreach_current_index(lc)];

		if (docs->ndocs == 0)
			continue;
		cvx_apply_load(sub, rel, docs);
		cvx_catalog_run(SPI_OK_UPDATE,
						"UPDATE @.convex_subscription_rel SET copied_rows = copied_rows + $3"
						" WHERE subid = $1 AND relno = $2",
						"iil", sub->subid, rel->relno, (int64) docs->ndocs);
	}
	if (!page->has_more)
		cvx_catalog_run(SPI_OK_UPDATE,
						"UPDATE @.convex_subscription_rel SET load = 'indexing', snapshot = $2"
						" WHERE subid = $1 AND load = 'walking'", "il",
						sub->subid, page->ts);
	cvx_catalog_run(SPI_OK_UPDATE,
					"UPDATE @.convex_subscription_state SET snapshot = $2, page_cursor = $3,"
					" load_pages = load_pages + 1 WHERE subid = $1", "ilt",
					sub->subid, page->ts, page->has_more ? page->cursor : NULL);
	add_costs(sync, page->ndocs);
	commit(sync);
	sync->was_walk = true;
	return CVX_STEP_WORKED;
}

/*
 * Is it the snapshot, or the cursor, that keeps a page from being read?  Convex
 * may say so; or it fails on and on, while it answers for a fresh snapshot.
 */
static bool
is_snapshot_lost(CvxSync *sync, CvxCall *call)
{
	if (cvx_api_has_code(call, 400, "SnapshotTooOld") ||
		cvx_api_has_code(call, 400, "SnapshotTooNew") ||
		cvx_api_has_code(call, 400, "InvalidListSnapshotCursor"))
		return true;
	if (sync->sub->failures < LOST_AFTER_FAILURES ||
		!(cvx_api_has_code(call, 503, "InternalServerError") ||
		  cvx_api_has_code(call, 500, "InternalServerError")))
		return false;
	(void) cvx_api_fresh_snapshot(sync->http);
	return true;
}

/* Begin the walk anew, once; then say that the load cannot keep up. */
static CvxStep
restart_walk(CvxSync *sync, const char *why)
{
	CvxSubscription *sub = sync->sub;
	bool		gives_up = sub->load_restarts >= MAX_LOAD_RESTARTS;

	begin(sync);
	cvx_catalog_run(0,
					"UPDATE @.convex_subscription_rel SET load = 'wanted' WHERE subid = $1 AND load = 'walking'",
					"i", sub->subid);
	cvx_catalog_run(SPI_OK_SELECT,
					"SELECT format('%s: %s pages, %s rows in %s s', $2, load_pages,"
					" (SELECT sum(copied_rows) FROM @.convex_subscription_rel AS r WHERE r.subid = $1 AND load = 'wanted'),"
					" extract(epoch FROM clock_timestamp() - load_started_at)::bigint)"
					" FROM @.convex_subscription_state WHERE subid = $1", "it",
					sub->subid, why);
	cvx_catalog_event(sub->subid, gives_up ? "load_too_slow" : "load_restarted",
					  NULL, SPI_processed == 1 ? cvx_catalog_text(0, 1) : why);
	cvx_catalog_run(SPI_OK_UPDATE,
					"UPDATE @.convex_subscription_state SET snapshot = NULL, page_cursor = NULL,"
					" load_restarts = load_restarts + 1, phase = CASE WHEN $2 THEN 'load_too_slow' ELSE phase END"
					" WHERE subid = $1", "ib", sub->subid, gives_up);
	commit(sync);
	release_walk_lock(sync);
	return CVX_STEP_WORKED;
}

/* Give one loaded table its key. */
static CvxStep
index_tables(CvxSync *sync)
{
	CvxSubscription *sub = sync->sub;
	ListCell   *lc;

	release_walk_lock(sync);
	foreach(lc, sub->rels)
	{
		CvxSubRel  *rel = lfirst(lc);

		if (rel->load != CVX_LOAD_INDEXING)
			continue;
		begin(sync);
		if (still_at(sync))
		{
			cvx_apply_index(sub, rel);
			cvx_catalog_rel(sub, rel, "load = 'catching_up', synced_ts = snapshot");
		}
		commit(sync);
		return CVX_STEP_WORKED;
	}
	return CVX_STEP_WORKED;
}

static void
cut_over_one(CvxSync *sync, CvxSubRel *rel, void *arg)
{
	cvx_apply_cutover(sync->sub, rel, *(int64 *) arg);
}

/*
 * Make loaded tables visible, as they were at ts, which is or becomes the
 * common cursor; all of them in one transaction.
 */
static CvxStep
cut_over(CvxSync *sync, List *rels, int64 ts)
{
	CvxSubscription *sub = sync->sub;
	bool		is_first = sub->cursor == 0 || sub->is_reloading;
	ListCell   *lc;

	begin(sync);
	if (!still_at(sync))
	{
		commit(sync);
		return CVX_STEP_WORKED;
	}
	foreach(lc, rels)
	{
		CvxSubRel  *rel = lfirst(lc);

		if (rel->is_staged &&
			!guarded(sync, rel, 0, cut_over_one, &ts))
			continue;
		cvx_catalog_rel(sub, rel,
						"state = 'ready', load = NULL, is_staged = false, synced_ts = NULL, attempts = 0,"
						" retry_at = NULL, error_code = NULL, error_message = NULL, check_cursor = NULL,"
						" check_id = NULL, tablet = NULL, checked_at = NULL");
		cvx_catalog_event(sub->subid, rel->state == CVX_REL_JOINING ? "table_joined" : "table_resynced",
						  rel, psprintf("at " INT64_FORMAT, ts));
	}
	cvx_catalog_run(SPI_OK_UPDATE,
					"UPDATE @.convex_subscription_state SET snapshot = NULL, page_cursor = NULL,"
					" load_restarts = 0, reload = false, check_wanted = check_wanted OR NOT $2 WHERE subid = $1",
					"ib", sub->subid, is_first || sync->nrechecks++ >= MAX_RECHECKS);
	if (is_first)
		advance(sync, ts, true, 0);
	commit(sync);
	sync->is_careful = false;
	return CVX_STEP_WORKED;
}

/* ------------------------------------------------------------------------
 * Following
 * ------------------------------------------------------------------------
 */

static CvxStep
follow(CvxSync *sync)
{
	CvxSubscription *sub = sync->sub;
	int64		behind = 0;
	int64		bound = PG_INT64_MAX;
	List	   *rels = NIL;
	List	   *arrived = NIL;
	ListCell   *lc;

	/* Tables at their own timestamps come first: they are soon done. */
	foreach(lc, sub->rels)
	{
		CvxSubRel  *rel = lfirst(lc);

		if (rel->load != CVX_LOAD_CATCHING_UP || !rel->is_retry_due)
			continue;
		if (rel->synced_ts == sub->cursor)
			arrived = lappend(arrived, rel);
		else if (rel->synced_ts > sub->cursor)
			bound = Min(bound, rel->synced_ts);
		else if (behind == 0 || rel->synced_ts < behind)
			behind = rel->synced_ts;
	}
	if (arrived != NIL)
		return cut_over(sync, arrived, sub->cursor);
	foreach(lc, behind != 0 ? sub->rels : NIL)
	{
		CvxSubRel  *rel = lfirst(lc);
		CvxSubRel  *one = rels ? linitial(rels) : NULL;

		if (rel->load == CVX_LOAD_CATCHING_UP && rel->is_retry_due &&
			rel->synced_ts == behind &&
			(one == NULL || one->is_staged == rel->is_staged))
			rels = lappend(rels, rel);
	}
	if (rels != NIL)
		return catch_up(sync, rels);

	/* A walk's page and a page of changes take turns. */
	if (!sync->was_walk || sync->is_caught_up)
	{
		bool		is_done = false;
		CvxStep		result = load_or(sync, &is_done);

		if (is_done)
		{
			sync->was_walk = true;
			sync->is_caught_up = false;
			return result;
		}
	}
	sync->was_walk = false;

	/* A check is of use only at a cursor behind what it was wanted for. */
	if (sub->is_check_due && !sync->is_check_noted)
		sync->is_caught_up = false;
	sync->is_check_noted = sub->is_check_due;
	if (sub->is_check_due && sync->is_caught_up)
		return check_tables(sync);
	return common_changes(sync, bound);
}

/* Changes of loaded tables alone, up to the common cursor at most. */
static CvxStep
catch_up(CvxSync *sync, List *rels)
{
	CvxSubscription *sub = sync->sub;
	CvxSubRel  *first = linitial(rels);
	Request		request = make_request(sync, true, first->synced_ts, NULL, rels, false);
	Received	received = receive(sync, &request);
	CvxPage    *page;
	int64		ts;
	int64		rows;
	ListCell   *lc;

	if (cvx_api_has_code(received.call, 400, "InvalidWindowToReadDocuments"))
	{
		begin(sync);
		foreach(lc, rels)
		{
			cvx_catalog_drop_staging(sub, lfirst(lc));
			cvx_catalog_rel(sub, lfirst(lc), "load = 'wanted', is_staged = false, synced_ts = NULL");
			cvx_catalog_event(sub->subid, "resync", lfirst(lc),
							  "Convex no longer keeps the changes since the table's load");
		}
		commit(sync);
		return CVX_STEP_WORKED;
	}
	page = read_page(sync, received, &request);
	ts = Min(page->ts, sub->cursor);
	if (page->ts < first->synced_ts)
		return reload_all(sync, "the cursor is ahead of the server");

	begin(sync);
	if (!still_at(sync))
	{
		commit(sync);
		return CVX_STEP_WORKED;
	}
	foreach(lc, rels)
	{
		cvx_catalog_run(SPI_OK_SELECT,
						"SELECT relno FROM @.convex_subscription_rel WHERE subid = $1 AND relno = $2"
						" AND load = 'catching_up' AND synced_ts = $3 FOR UPDATE", "iil",
						sub->subid, ((CvxSubRel *) lfirst(lc))->relno,
						first->synced_ts);
		if (SPI_processed != 1)
		{
			commit(sync);
			return CVX_STEP_WORKED;
		}
	}
	rows = apply_tables(sync, rels, page, ts, first->is_staged);
	foreach(lc, rels)
		cvx_catalog_run(0,
						"UPDATE @.convex_subscription_rel SET synced_ts = $3 WHERE subid = $1 AND relno = $2"
						" AND (retry_at IS NULL OR retry_at <= clock_timestamp())",
						"iil", sub->subid, ((CvxSubRel *) lfirst(lc))->relno, ts);
	add_costs(sync, rows);
	commit(sync);
	sync->is_careful = false;
	return CVX_STEP_WORKED;
}

/* A page of the common change log, up to bound. */
static CvxStep
common_changes(CvxSync *sync, int64 bound)
{
	CvxSubscription *sub = sync->sub;
	bool		is_everything = false;
	bool		has_more;
	bool		is_unknown = false;
	List	   *rels = NIL;
	Request		request;
	Received	received;
	CvxPage    *page;
	int64		ts;
	int64		rows;
	ListCell   *lc;

	foreach(lc, sub->rels)
	{
		CvxSubRel  *rel = lfirst(lc);

		if (rel->state == CVX_REL_READY || rel->state == CVX_REL_RESYNCING)
			rels = lappend(rels, rel);
	}
	foreach(lc, sub->patterns)
		is_everything |= strcmp(lfirst(lc), "*") == 0;
	request = make_request(sync, true, sub->cursor, NULL, rels, is_everything);
	received = receive(sync, &request);
	if (cvx_api_has_code(received.call, 400, "InvalidWindowToReadDocuments"))
		return reload_all(sync, "Convex no longer keeps the changes since the cursor");
	page = read_page(sync, received, &request);
	if (page->ts < sub->cursor)
		return reload_all(sync, "the cursor is ahead of the server");
	ts = Min(page->ts, bound);
	has_more = page->has_more || ts < page->ts;
	if (has_more && ts == page->ts)
	{
		Request		next = make_request(sync, true, ts, NULL, rels, is_everything);

		prefetch(sync, &next);
	}
	if (is_everything)
		for (int i = 0; i < page->ndocs && !is_unknown; i++)
		{
			const CvxDoc *doc = &page->docs[i];
			bool		is_known = false;

			foreach(lc, sub->rels)
			{
				CvxSubRel  *rel = lfirst(lc);

				is_known |= strlen(rel->table) == doc->table.len &&
					strlen(rel->component) == doc->component.len &&
					memcmp(rel->table, page->text + doc->table.offset, doc->table.len) == 0 &&
					memcmp(rel->component, page->text + doc->component.offset, doc->component.len) == 0;
			}
			is_unknown = !is_known;
		}
	if (is_unknown && TimestampDifferenceExceeds(sync->unknown_checked_at,
												 GetCurrentTimestamp(),
												 UNKNOWN_CHECK_MS))
		sync->unknown_checked_at = GetCurrentTimestamp();
	else
		is_unknown = false;

	begin(sync);
	if (!still_at(sync))
	{
		commit(sync);
		return CVX_STEP_WORKED;
	}
	rows = apply_tables(sync, rels, page, ts, false);
	advance(sync, ts, has_more, rows);
	if (is_unknown)
		cvx_catalog_run(SPI_OK_UPDATE,
						"UPDATE @.convex_subscription_state SET check_wanted = true WHERE subid = $1",
						"i", sub->subid);
	if (sub->notifies && rows > 0)
	{
		char	   *channel = psprintf("convex_%s", sub->name);

		channel[Min(strlen(channel), NAMEDATALEN - 1)] = '\0';
		Async_Notify(channel, psprintf(INT64_FORMAT, ts));
	}
	commit(sync);
	sync->is_careful = false;
	sync->is_caught_up = !has_more ||
		(sync->head > 0 && ts >= sync->head);
	if (!sync->is_caught_up || sub->is_check_due || is_unknown ||
		has_load(sub, CVX_LOAD_WANTED) || has_load(sub, CVX_LOAD_WALKING) ||
		has_load(sub, CVX_LOAD_INDEXING) || bound != PG_INT64_MAX)
		return sync->is_waiting ? CVX_STEP_IDLE : CVX_STEP_WORKED;
	return CVX_STEP_IDLE;
}

/* The cursor is of no use: load everything again, beside the old rows. */
static CvxStep
reload_all(CvxSync *sync, const char *why)
{
	CvxSubscription *sub = sync->sub;
	ListCell   *lc;

	forget_ahead(sync);
	begin(sync);
	if (still_at(sync))
	{
		foreach(lc, sub->rels)
		{
			CvxSubRel  *rel = lfirst(lc);

			if (rel->state == CVX_REL_DROPPED)
				continue;
			cvx_catalog_drop_staging(sub, rel);
			cvx_catalog_rel(sub, rel,
							"load = 'wanted', is_staged = false, synced_ts = NULL,"
							" state = CASE WHEN state = 'ready' THEN 'resyncing' ELSE state END");
		}
		cvx_catalog_run(SPI_OK_UPDATE,
						"UPDATE @.convex_subscription_state SET reload = true, phase = 'reloading', caught_up = false,"
						" snapshot = NULL, page_cursor = NULL WHERE subid = $1",
						"i", sub->subid);
		cvx_catalog_event(sub->subid, "resnapshot", NULL, why);
	}
	commit(sync);
	return CVX_STEP_WORKED;
}

/* ------------------------------------------------------------------------
 * Looking for new, replaced and dropped tables
 * ------------------------------------------------------------------------
 */

static CvxStep
check_tables(CvxSync *sync)
{
	CvxSubscription *sub = sync->sub;
	List	   *tables = cvx_catalog_fetch(sync->http);
	bool		is_replaced = false;
	ListCell   *lc;

	begin(sync);
	if (!still_at(sync))
	{
		commit(sync);
		return CVX_STEP_WORKED;
	}
	(void) cvx_catalog_add_tables(sub, tables, false);

	/* What is announced from now on asks for another check. */
	cvx_catalog_run(0,
					"WITH seen AS (UPDATE @.convex_subscription_event SET kind = 'swap_seen'"
					" WHERE subid = $1 AND kind = 'swap_announced')"
					" UPDATE @.convex_subscription_state SET check_wanted = true WHERE subid = $1",
					"i", sub->subid);
	sync->is_check_noted = false;
	commit(sync);
	foreach(lc, sub->rels)
	{
		CvxSubRel  *rel = lfirst(lc);

		if (rel->state == CVX_REL_READY)
			is_replaced |= check_table(sync, rel);
	}
	if (!is_replaced)
		sync->nrechecks = 0;
	begin(sync);
	if (still_at(sync))
		cvx_catalog_run(SPI_OK_UPDATE,
						"UPDATE @.convex_subscription_state SET check_wanted = false, checked_at = clock_timestamp()"
						" WHERE subid = $1", "i", sub->subid);
	commit(sync);
	return CVX_STEP_WORKED;
}

/* Is the table still what it was when the step began? */
static bool
is_ready(CvxSync *sync, CvxSubRel *rel)
{
	cvx_catalog_run(SPI_OK_SELECT,
					"SELECT relno FROM @.convex_subscription_rel WHERE subid = $1 AND relno = $2"
					" AND state = 'ready' AND load IS NULL FOR UPDATE", "ii",
					sync->subid, rel->relno);
	return SPI_processed == 1;
}

/*
 * Compare a page of _ids at the cursor with the mirror; when they differ, the
 * table was replaced behind the change log and is loaded again.
 */
static bool
check_table(CvxSync *sync, CvxSubRel *rel)
{
	static const char *const id_only[] = {"_id"};
	CvxSubscription *sub = sync->sub;
	Request		request = make_request(sync, false, sub->cursor,
									   rel->check_cursor, list_make1(rel), false);
	Received	received;
	CvxPage    *page;
	char	   *tablet;
	char	   *last = NULL;
	char	   *problem = NULL;

	request.selection.is_whole = false;
	request.selection.fields = id_only;
	request.selection.nfields = 1;
	request.key = psprintf("check %s", request.key);
	received = receive(sync, &request);
	page = read_page(sync, received, &request);
	if (page->has_more && page->ndocs == 0)
		return false;
	tablet = page->cursor ? tablet_of(page->cursor) : NULL;
	if (page->ndocs > 0)
		last = pnstrdup(page->text + page->docs[page->ndocs - 1].id.offset,
						page->docs[page->ndocs - 1].id.len);

	begin(sync);
	if (still_at(sync) && is_ready(sync, rel))
	{
		if (tablet && rel->tablet && strcmp(tablet, rel->tablet) != 0)
			problem = "its tablet is another one";
		else
			problem = cvx_apply_compare(sub, rel, page, rel->check_cursor ? rel->check_id : NULL,
										page->has_more ? last : NULL);
		if (problem)
		{
			cvx_catalog_rel(sub, rel, "state = 'resyncing', load = 'wanted', check_cursor = NULL, check_id = NULL, tablet = NULL");
			cvx_catalog_event(sub->subid, "table_replaced", rel, problem);
		}
		else
			cvx_catalog_run(SPI_OK_UPDATE,
							"UPDATE @.convex_subscription_rel SET checked_at = clock_timestamp(), check_cursor = $3,"
							" check_id = $4, tablet = coalesce($5, tablet) WHERE subid = $1 AND relno = $2",
							"iittt", sub->subid, rel->relno,
							page->has_more ? page->cursor : NULL,
							page->has_more ? last : NULL, tablet);
	}
	commit(sync);
	return problem != NULL;
}

/* ------------------------------------------------------------------------
 * Pages
 * ------------------------------------------------------------------------
 */

static Request
make_request(CvxSync *sync, bool is_delta, int64 ts, const char *cursor,
			 List *rels, bool is_everything)
{
	Request		request = {0};
	CvxTableName *names = palloc(sizeof(CvxTableName) * Max(list_length(rels), 1));
	StringInfoData key;
	ListCell   *lc;

	initStringInfo(&key);
	appendStringInfo(&key, "%p %d " INT64_FORMAT " %s", sync->http, is_delta, ts,
					 cursor ? cursor : "");
	foreach(lc, rels)
	{
		CvxSubRel  *rel = lfirst(lc);

		names[foreach_current_index(lc)].component = rel->component;
		names[foreach_current_index(lc)].table = rel->table;
		if (!is_everything)
			appendStringInfo(&key, " %s/%s", rel->component, rel->table);
	}
	request.is_delta = is_delta;
	request.ts = ts;
	request.cursor = cursor;
	request.is_any = is_everything;
	request.selection.is_whole = true;
	request.selection.is_everything = is_everything;
	if (!is_everything)
	{
		request.selection.tables = names;
		request.selection.ntables = list_length(rels);
	}
	request.key = key.data;
	return request;
}

/* The answer to a request, perhaps asked for already; waits. */
static Received
receive(CvxSync *sync, Request *request)
{
	Received	received = {0};
	MemoryContext old;

	if (sync->ahead && strcmp(sync->ahead_key, request->key) == 0)
	{
		MemoryContextReset(sync->page_cxts[sync->present]);
		sync->present = 1 - sync->present;
		received.call = sync->ahead;
		sync->ahead = NULL;
	}
	else
	{
		forget_ahead(sync);
		MemoryContextReset(sync->page_cxts[sync->present]);
		old = MemoryContextSwitchTo(sync->page_cxts[sync->present]);
		received.call = request->is_delta ?
			cvx_api_document_deltas(sync->http, &sync->stats, &request->selection, request->ts) :
			cvx_api_list_snapshot(sync->http, &sync->stats, &request->selection,
								  request->ts, request->cursor);
		MemoryContextSwitchTo(old);
	}
	sync->npages++;
	cvx_http_wait(received.call);
	return received;
}

/* Ask for the page that is probably next, without waiting. */
static void
prefetch(CvxSync *sync, Request *request)
{
	MemoryContext old;

	forget_ahead(sync);
	MemoryContextReset(sync->page_cxts[1 - sync->present]);
	old = MemoryContextSwitchTo(sync->page_cxts[1 - sync->present]);
	sync->ahead_key = pstrdup(request->key);
	sync->ahead = request->is_delta ?
		cvx_api_document_deltas(sync->http, &sync->stats, &request->selection, request->ts) :
		cvx_api_list_snapshot(sync->http, &sync->stats, &request->selection,
							  request->ts, request->cursor);
	MemoryContextSwitchTo(old);
}

static CvxPage *
read_page(CvxSync *sync, Received received, Request *request)
{
	CvxPageWant want = {.is_delta = request->is_delta};
	MemoryContext old = MemoryContextSwitchTo(sync->page_cxts[sync->present]);
	CvxPage    *page;

	want.tables = request->selection.tables;
	want.ntables = request->is_any ? 0 : request->selection.ntables;
	page = cvx_api_page(received.call, sync->http, &want);
	MemoryContextSwitchTo(old);
	return page;
}

/*
 * Has nothing changed since this step read the catalog?  The row stays locked
 * until the transaction ends.
 */
static bool
still_at(CvxSync *sync)
{
	cvx_catalog_run(SPI_OK_SELECT,
					"SELECT st.subid FROM @.convex_subscription_state AS st"
					" JOIN @.convex_subscription AS s USING (subid)"
					" WHERE st.subid = $1 AND st.generation = $2 AND st.cursor IS NOT DISTINCT FROM $3"
					" AND st.snapshot IS NOT DISTINCT FROM $4 AND st.page_cursor IS NOT DISTINCT FROM $5"
					" AND s.enabled FOR UPDATE OF st FOR SHARE OF s", "ilnnt",
					sync->subid, sync->sub->generation, sync->sub->cursor,
					sync->sub->snapshot, sync->sub->page_cursor);
	return SPI_processed == 1;
}

/* Move the cursor, from where it was read to be. */
static void
advance(CvxSync *sync, int64 cursor, bool has_more, int64 rows)
{
	cvx_catalog_run(SPI_OK_UPDATE,
					"UPDATE @.convex_subscription_state SET cursor = $3, head_ts = greatest(head_ts, $3),"
					" caught_up = NOT $4, phase = 'following', applied_at = clock_timestamp(), failures = 0,"
					" next_attempt_at = NULL WHERE subid = $1 AND cursor IS NOT DISTINCT FROM $2",
					"inlb", sync->subid, sync->sub->cursor, cursor, has_more);
	if (SPI_processed != 1)
		ereport(ERROR,
				(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
				 errmsg("cursor of subscription \"%s\" was moved by another process",
						sync->sub->name)));
	add_costs(sync, rows);
}

/* What was done and what it cost. */
static void
add_costs(CvxSync *sync, int64 rows)
{
	cvx_catalog_run(SPI_OK_UPDATE,
					"UPDATE @.convex_subscription_state SET rows = rows + $2, pages = pages + 1,"
					" bytes = bytes + $3, requests = requests + $4, retries = retries + $5,"
					" failures = 0, next_attempt_at = NULL,"
					" phase = CASE WHEN phase = 'failing' THEN 'following' ELSE phase END WHERE subid = $1",
					"illll", sync->subid, rows, sync->stats.bytes,
					sync->stats.requests, sync->stats.retries);
	sync->stats.bytes = sync->stats.requests = sync->stats.retries = 0;
}

/*
 * The documents of each table, those up to bound, in the page's order.  The
 * batches are in the order of rels.
 */
static int
group_docs(const CvxPage *page, int64 bound, List *rels, CvxBatchDocs **batches)
{
	int			nrels = list_length(rels);
	int		   *owners = palloc(sizeof(int) * Max(page->ndocs, 1));
	int		  **docs = palloc0(sizeof(int *) * Max(nrels, 1));
	int			last = 0;
	int			n = 0;

	*batches = palloc0(sizeof(CvxBatchDocs) * Max(nrels, 1));
	for (int i = 0; i < page->ndocs; i++)
	{
		const CvxDoc *doc = &page->docs[i];

		owners[i] = -1;
		for (int r = 0; r < nrels && doc->ts <= bound; r++)
		{
			int			candidate = (last + r) % nrels;
			CvxSubRel  *rel = list_nth(rels, candidate);

			if (strlen(rel->table) == doc->table.len &&
				strlen(rel->component) == doc->component.len &&
				memcmp(rel->table, page->text + doc->table.offset, doc->table.len) == 0 &&
				memcmp(rel->component, page->text + doc->component.offset, doc->component.len) == 0)
			{
				owners[i] = last = candidate;
				(*batches)[candidate].ndocs++;
				n++;
				break;
			}
		}
	}
	for (int r = 0; r < nrels; r++)
	{
		docs[r] = palloc(sizeof(int) * Max((*batches)[r].ndocs, 1));
		(*batches)[r].page = page;
		(*batches)[r].docs = docs[r];
		(*batches)[r].ndocs = 0;
	}
	for (int i = 0; i < page->ndocs; i++)
		if (owners[i] >= 0)
			docs[owners[i]][(*batches)[owners[i]].ndocs++] = i;
	return n;
}

typedef struct ApplyArg
{
	const CvxBatchDocs *docs;
	bool		to_staging;
	int64		rows;
} ApplyArg;

static void
apply_one(CvxSync *sync, CvxSubRel *rel, void *arg)
{
	ApplyArg   *apply = arg;

	apply->rows = cvx_apply_changes(sync->sub, rel, apply->to_staging,
									apply->docs);
}

/* Apply a page to all its tables; a broken one waits, and the others go on. */
static int64
apply_tables(CvxSync *sync, List *rels, const CvxPage *page, int64 bound,
			 bool to_staging)
{
	CvxBatchDocs *batches;
	int64		rows = 0;
	ListCell   *lc;

	group_docs(page, bound, rels, &batches);
	foreach(lc, rels)
	{
		CvxSubRel  *rel = lfirst(lc);
		ApplyArg	arg = {&batches[foreach_current_index(lc)], to_staging, 0};

		if (arg.docs->ndocs == 0)
			continue;
		if (guarded(sync, rel, to_staging ? rel->synced_ts :
					rel->synced_ts ? rel->synced_ts : sync->sub->cursor,
					apply_one, &arg))
			rows += arg.rows;
	}
	return rows;
}

/*
 * Do the work of one table; in careful mode within a subtransaction, so that
 * only this table waits if its target is broken, standing where it is.
 */
static bool
guarded(CvxSync *sync, CvxSubRel *rel, int64 stands_at,
		void (*work) (CvxSync *sync, CvxSubRel *rel, void *arg), void *arg)
{
	MemoryContext cxt = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	volatile bool is_done = false;

	if (!sync->is_careful)
	{
		sync->is_applying = true;
		work(sync, rel, arg);
		sync->is_applying = false;
		return true;
	}
	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(cxt);
	PG_TRY();
	{
		work(sync, rel, arg);
		ReleaseCurrentSubTransaction();
		MemoryContextSwitchTo(cxt);
		CurrentResourceOwner = owner;
		is_done = true;
	}
	PG_CATCH();
	{
		ErrorData  *error;

		MemoryContextSwitchTo(cxt);
		error = CopyErrorData();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
		MemoryContextSwitchTo(cxt);
		CurrentResourceOwner = owner;
		if (!is_of_table(error->sqlerrcode))
			ReThrowError(error);
		cvx_catalog_rel_error(sync->sub, rel, stands_at, error);
		FreeErrorData(error);
	}
	PG_END_TRY();
	return is_done;
}

/*
 * Can this be the fault of one target?  Not what the server, the line, the
 * machine or the operator did.
 */
static bool
is_of_table(int sqlerrcode)
{
	switch (ERRCODE_TO_CATEGORY(sqlerrcode))
	{
		case ERRCODE_CONNECTION_EXCEPTION:
		case ERRCODE_TRANSACTION_ROLLBACK:
		case ERRCODE_INSUFFICIENT_RESOURCES:
		case ERRCODE_OPERATOR_INTERVENTION:
		case ERRCODE_SYSTEM_ERROR:
		case ERRCODE_INTERNAL_ERROR:
		case ERRCODE_FDW_ERROR:
			return false;
		default:
			return true;
	}
}

/* The tablet that a page cursor names; NULL when it names none. */
static char *
tablet_of(const char *cursor)
{
	static const char label[] = "\"tablet\":\"";
	const char *begin = strstr(cursor, label);

	if (begin == NULL)
		return NULL;
	begin += strlen(label);
	return pnstrdup(begin, strcspn(begin, "\""));
}
