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
 *	6. One page at most has been taken in and is not committed.  The one ahead
 *	   is asked for meanwhile, and taken in after that commit: libcurl does not
 *	   work while a page is applied.
 *
 * Loads.  All tables that are to be loaded when a walk begins share it: one
 * selection and one snapshot S, page by page into staging tables.
 *
 *		wanted --begin_walk--> walking --walk_page--> indexing
 *		   --index_table--> catching_up (at S) --cut_over--> none
 *
 * The loaded tables stand at T = S and the common cursor at C: if T < C the
 * tables' own changes are read, cut at C; if T > C the common changes, cut at
 * T; if T = C they are cut over.  Without a cursor, or when all is reloaded,
 * the tables' changes are read alone, and the common cursor becomes T when
 * they are cut over, all at once.  Reading and applying changes of a target
 * that had been broken is the same, but for the staging table.
 *
 * Nothing loaded is shown before it was compared with Convex at T, which is
 * at or after the head as it was when the load had ended (shown_from): a table
 * that was replaced in between differs, and is loaded again (check_loaded).
 *
 * Room: subscription 4.5
 */
#include "postgres.h"

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
#include "storage/sinval.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/resowner.h"
#include "utils/syscache.h"

#include "compat.h"
#include "schema.h"
#include "sub_target.h"

/*
 * A walk that lost its snapshot is begun anew so often; tables beside others
 * that are followed then wait so long.
 */
#define MAX_LOAD_RESTARTS	1
#define SLOW_RETRY			"1 h"

/* Deadlocks and the like of one table that are taken for passing. */
#define MAX_PASSING_FAILURES	3

/*
 * So many steps have to fail before a snapshot is suspected: short troubles of
 * the server are over by then.
 */
#define LOST_AFTER_FAILURES	5

/* What a page cost, as parameters of a statement about the state. */
#define COSTS \
	"rows = rows + $2, pages = pages + 1, bytes = bytes + $3," \
	" requests = requests + $4, retries = retries + $5"

/* What was read of the catalog is good for pages that follow each other so soon. */
#define KEEP_MS		1000

/* The pause while another walk of the deployment goes on. */
#define WALK_RETRY_MS		1000

/* How long a check may keep changes waiting. */
#define CHECK_SLICE_MS		1000

/* How often a worker that is behind asks how far. */
#define HEAD_MS				5000

/* Checks at once after resyncs; then the interval has to pass. */
#define MAX_RECHECKS		3

/*
 * Loads that differed from Convex and are begun anew at once; after that the
 * table waits in between, for as long as the load took and at least a while:
 * an import under way may make it differ for hours.
 */
#define MAX_RELOADS			3

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

	/* the subscription as the catalog has it */
	MemoryContext sub_cxt;
	CvxSubscription *kept;
	bool		is_kept;		/* up to date after the last step */
	uint64		kept_at;		/* the catalogs then, as a count of changes */
	TimestampTz kept_since;

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
	bool		is_waiting;		/* for another walk */
	bool		is_aside;		/* not about the common changes */
	bool		is_productive;	/* it did something that can fail */
	int64		generation;		/* as the catalog had it */
	uint32		fingerprint;	/* of the connection; 0: none yet */
	int64		head;			/* to be reached by CALL; 0: not known yet */
	int64		seen_head;		/* by a worker that is behind */
	TimestampTz head_asked_at;
	int			holder;
	ErrorData  *failure;		/* of the last step */
	ErrorData  *aside_failure;	/* for CALL: of what stands aside */
	TimestampTz next_attempt;
	TimestampTz aside_retry_at; /* 0: what stands aside does not fail */
	uint32		failed_fingerprint; /* of the connection that failed */
	TimestampTz unknown_checked_at;
	int			poll_ms;
	int			idle_poll_ms;
	int			npages;
	int			page_relno;		/* the table of the last document; 0: none yet */
	int			nrechecks;		/* checks at once after a resync */

	/* checks: each is of use only at the head as it was when it was due */
	bool		has_arrived;	/* loaded ones stand at the cursor, before that */
	int64		check_from;		/* for tables that are followed; 0: not asked yet */
	int64		check_generation;	/* of the state when check_from was asked */
	int64		check_event;	/* the last announcement that it covers */
	int			check_relno;	/* the last table compared; 0: not begun */
	bool		check_found;	/* a table that was replaced */
	bool		was_check;		/* the last step was part of one */

	/* pages: one is applied while the other is fetched */
	MemoryContext page_cxts[2];
	int			present;
	CvxCall    *ahead;			/* in the context that is not present */
	char	   *ahead_key;
};

static CvxStep step(CvxSync *sync);
static bool is_kept_good(CvxSync *sync);
static bool read_catalog(CvxSync *sync, CvxStep *result);
static CvxSubscription *load_subscription(CvxSync *sync);
static bool mend_staging(CvxSubscription *sub);
static Oid	staging_intruder(void);
static void begin(CvxSync *sync);
static void commit(CvxSync *sync);
static bool take_lock(CvxSync *sync);
static bool take_walk_lock(CvxSync *sync);
static void release_walk_lock(CvxSync *sync);
static void open_connection(CvxSync *sync, const CvxSubscription *sub);
static void forget_ahead(CvxSync *sync);
static CvxRemote *find_remote(const CvxSubscription *sub);
static void record_failure(CvxSync *sync, const ErrorData *error);
static CvxStep work(CvxSync *sync);
static void note_deployment(CvxSync *sync);
static bool has_load(CvxSubscription *sub, CvxRelLoad load);
static CvxStep follow(CvxSync *sync);
static CvxStep reload(CvxSync *sync);
static CvxStep load_or(CvxSync *sync, bool *is_done);
static void stage_one(CvxSync *sync, CvxSubRel *rel, void *arg);
static CvxStep begin_walk(CvxSync *sync);
static CvxStep walk_page(CvxSync *sync);
static bool is_snapshot_lost(CvxSync *sync, CvxCall *call);
static ErrorData *copy_error(const ErrorData *error);
static CvxStep restart_walk(CvxSync *sync, const char *why);
static CvxStep index_tables(CvxSync *sync);
static CvxStep cut_over(CvxSync *sync, List *rels, int64 ts);
static int64 ask_head(CvxSync *sync);
static CvxStep ask_shown_from(CvxSync *sync);
static void note_log_end(CvxSync *sync, int64 ts);
static void begin_again(CvxSync *sync, List *rels, const char *why);
static void want_again(CvxSync *sync, CvxSubRel *rel, bool gives_up,
					   const char *why);
static void note_restart(CvxSync *sync, bool gives_up, const char *why);
static CvxStep catch_up(CvxSync *sync, List *rels);
static CvxStep common_changes(CvxSync *sync, int64 bound);
static CvxStep reload_all(CvxSync *sync, const char *why);
static bool is_check_pending(CvxSync *sync);
static CvxStep check_tables(CvxSync *sync);
static bool begin_check(CvxSync *sync);
static CvxStep check_loaded(CvxSync *sync, List *rels, int64 ts);
static bool is_unchanged(CvxSync *sync, CvxSubRel *rel, bool is_loaded);
static bool check_table(CvxSync *sync, CvxSubRel *rel, int64 ts,
						bool is_loaded);
static void load_again(CvxSync *sync, CvxSubRel *rel, bool is_loaded,
					   const char *problem);
static bool is_snapshot_gone(CvxCall *call);
static Request make_request(CvxSync *sync, bool is_delta, int64 ts,
							const char *cursor, List *rels, bool is_everything);
static Received receive(CvxSync *sync, Request *request);
static void prefetch(CvxSync *sync, Request *request);
static void prefetch_after(CvxSync *sync, CvxCall *call, bool is_delta,
						   List *rels, bool is_everything);
static CvxPage *read_page(CvxSync *sync, Received received, Request *request);
static bool still_at(CvxSync *sync);
static void look_ahead(CvxSync *sync);
static void advance(CvxSync *sync, int64 cursor, bool has_more, int64 rows);
static void forget_costs(CvxSync *sync);
static bool is_doc_of(const CvxPage *page, const CvxDoc *doc,
					  const CvxSubRel *rel);
static int	group_docs(CvxSync *sync, const CvxPage *page, int64 bound,
					   List *rels, CvxBatchDocs **batches);
static int64 apply_tables(CvxSync *sync, List *rels, const CvxPage *page,
						  int64 bound, bool to_staging);
static bool guarded(CvxSync *sync, CvxSubRel *rel, int64 stands_at,
					void (*work) (CvxSync *sync, CvxSubRel *rel, void *arg),
					void *arg);
static bool is_of_table(const CvxSubscription *sub, int sqlerrcode);
static char *tablet_of(const char *cursor);
static char *tablet_of_last(const CvxPage *page);
static char *cursor_member(const char *cursor, const char *label);

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
	sync->sub_cxt = AllocSetContextCreate(cxt, "convex catalog",
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
	sync->is_aside = false;
	sync->is_productive = false;
	cvx_error_forget();
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
			is_of_table(sync->sub, error->sqlerrcode))
		{
			/* Once more, each table by itself: perhaps only one is broken. */
			sync->is_careful = true;
			result = CVX_STEP_WORKED;
		}
		else
		{
			/* Others of the deployment may walk while this one pauses. */
			release_walk_lock(sync);
			sync->is_careful = false;
			record_failure(sync, error);
			sync->failure = error;
			if (sync->is_aside && !sync->host.is_worker)
			{
				/* Told when the changes have been applied. */
				MemoryContextSwitchTo(sync->cxt);
				sync->aside_failure = copy_error(error);
				MemoryContextSwitchTo(sync->step_cxt);
			}
			result = CVX_STEP_FAILED;
		}
	}
	PG_END_TRY();
	MemoryContextSwitchTo(old);
	return result;
}

/*
 * After a failure: has somebody changed something that may mend it?  Between
 * steps; does not throw.
 */
bool
cvx_sync_has_changed(CvxSync *sync)
{
	MemoryContext old = CurrentMemoryContext;
	volatile bool has_changed = true;

	MemoryContextReset(sync->step_cxt);
	MemoryContextSwitchTo(sync->step_cxt);
	sync->failure = NULL;
	PG_TRY();
	{
		CvxSubscription *sub;

		begin(sync);
		sub = OidIsValid(cvx_catalog_relid()) ? cvx_catalog_load(sync->subid) :
			NULL;
		if (sub && sub->is_enabled && sub->generation == sync->generation)
			has_changed = cvx_failure_fingerprint(find_remote(sub)) !=
				sync->failed_fingerprint;
		commit(sync);
	}
	PG_CATCH();
	{
		ErrorData  *error;

		MemoryContextSwitchTo(sync->step_cxt);
		error = CopyErrorData();
		FlushErrorState();
		sync->host.rollback();
		MemoryContextSwitchTo(sync->step_cxt);
		has_changed = cvx_failure_fingerprint_error(error) !=
			sync->failed_fingerprint;
	}
	PG_END_TRY();
	MemoryContextSwitchTo(old);
	return has_changed;
}

/*
 * After a failure: is it one of what stands aside, so that the next steps apply
 * the changes of the other tables all the same?
 */
bool
cvx_sync_fails_aside(CvxSync *sync)
{
	return sync->aside_retry_at != 0 && sync->aside_failure != NULL;
}

/* What is to be told of an error, in the current context. */
static ErrorData *
copy_error(const ErrorData *error)
{
	ErrorData  *copy = palloc(sizeof(ErrorData));
	char	  **texts[] = {&copy->message, &copy->detail, &copy->detail_log,
		&copy->hint, &copy->context, &copy->backtrace, &copy->schema_name,
		&copy->table_name, &copy->column_name, &copy->datatype_name,
	&copy->constraint_name, &copy->internalquery};
	const char **names[] = {&copy->filename, &copy->funcname, &copy->domain,
	&copy->context_domain};

	*copy = *error;
	for (int i = 0; i < lengthof(texts); i++)
		if (*texts[i])
			*texts[i] = pstrdup(*texts[i]);
	for (int i = 0; i < lengthof(names); i++)
		if (*names[i])
			*names[i] = pstrdup(*names[i]);
	copy->assoc_context = CurrentMemoryContext;
	return copy;
}

/*
 * After a failure: throw it.  Some names in it are not copied by ReThrowError,
 * though newer servers' CopyErrorData does; they outlive what is closed.
 */
void
cvx_sync_rethrow(CvxSync *sync)
{
	ErrorData  *error = sync->failure ? sync->failure : sync->aside_failure;

	if (error)
	{
		const char **names[] = {&error->filename, &error->funcname,
		&error->domain, &error->context_domain};

		for (int i = 0; i < lengthof(names); i++)
			if (*names[i])
				*names[i] = MemoryContextStrdup(ErrorContext, *names[i]);
		ReThrowError(error);
	}
	elog(ERROR, "a step failed and left no error");
}

/* After a failure: its message. */
const char *
cvx_sync_failure(CvxSync *sync)
{
	return sync->failure ? sync->failure->message :
		sync->aside_failure ? sync->aside_failure->message : "failed";
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
	CvxStep		result = CVX_STEP_WORKED;

	if (!is_kept_good(sync) && !read_catalog(sync, &result))
		return result;
	sync->sub = sub = sync->kept;
	sync->is_kept = false;
	if (sync->fingerprint != sync->failed_fingerprint)
		sync->aside_retry_at = 0;
	result = work(sync);

	/* What works now ends a failure, unless something else fails. */
	if (sync->is_productive &&
		(sub->failures > 0 || strcmp(sub->phase, "failing") == 0) &&
		(sync->is_aside || sync->aside_retry_at == 0))
	{
		begin(sync);
		cvx_failure_end(sub);
		commit(sync);
		sync->aside_retry_at = 0;
		sync->failed_fingerprint = 0;
		sub->failures = 0;
		sub->phase = "following";
	}
	return result;
}

/* Pages come fast: between two of them the catalog is not read again. */
static bool
is_kept_good(CvxSync *sync)
{
	return sync->is_kept && !sync->is_careful && sync->kept->failures == 0 &&
		sync->kept_at == SharedInvalidMessageCounter &&
		!TimestampDifferenceExceeds(sync->kept_since, GetCurrentTimestamp(),
									KEEP_MS);
}

/*
 * The subscription as the catalog has it, and the connection as the options
 * say now.  False: there is nothing to do but what *result says.
 */
static bool
read_catalog(CvxSync *sync, CvxStep *result)
{
	CvxSubscription *sub;
	bool		had_lock;

	sync->is_kept = false;
	sync->fingerprint = 0;
	begin(sync);
	if (!OidIsValid(cvx_catalog_relid()) ||
		(sub = load_subscription(sync)) == NULL || !sub->is_enabled)
	{
		commit(sync);
		*result = CVX_STEP_GONE;
		return false;
	}
	had_lock = sync->has_lock;
	if (!take_lock(sync))
	{
		sync->holder = cvx_catalog_pid(sync->subid);
		commit(sync);
		*result = CVX_STEP_BUSY_ELSEWHERE;
		return false;
	}
	/* What was read before the lock was there may be old. */
	if (!had_lock)
		sub = load_subscription(sync);
	if (sub == NULL)
	{
		commit(sync);
		*result = CVX_STEP_GONE;
		return false;
	}
	if (mend_staging(sub))
	{
		commit(sync);
		return false;
	}
	sync->generation = sub->generation;
	sync->poll_ms = sub->poll_ms;
	sync->idle_poll_ms = sub->idle_poll_ms;
	open_connection(sync, sub);
	commit(sync);
	sync->kept = sub;
	sync->kept_at = SharedInvalidMessageCounter;
	sync->kept_since = GetCurrentTimestamp();
	return true;
}

static CvxSubscription *
load_subscription(CvxSync *sync)
{
	MemoryContext old;
	CvxSubscription *sub;

	MemoryContextReset(sync->sub_cxt);
	old = MemoryContextSwitchTo(sync->sub_cxt);
	sub = cvx_catalog_load(sync->subid);
	MemoryContextSwitchTo(old);
	return sub;
}

/* The piece of work itself, with the connection open. */
static CvxStep
work(CvxSync *sync)
{
	CvxSubscription *sub = sync->sub;

	if (!sync->host.is_worker && sync->head == 0)
		sync->head = Max(cvx_api_query_ts(sync->http), 0);
	if (strcmp(sub->phase, "load_too_slow") == 0)
		return CVX_STEP_IDLE;
	if (sub->deployment_url == NULL)
		note_deployment(sync);
	else if (strcmp(sub->deployment_url, cvx_http_remote(sync->http)->base_url) != 0)
	{
		/* It must answer, or else a slip of the pen would cost a load. */
		(void) ask_head(sync);
		return reload_all(sync, "deployment_url of the server was changed");
	}
	if (sub->cursor == 0 || sub->is_reloading)
		return reload(sync);
	return follow(sync);
}

/* Remember whose cursor this is going to be. */
static void
note_deployment(CvxSync *sync)
{
	begin(sync);
	if (still_at(sync))
		cvx_catalog_run(SPI_OK_UPDATE,
						"UPDATE @.convex_subscription_state SET deployment_url = $2 WHERE subid = $1",
						"it", sync->subid, cvx_http_remote(sync->http)->base_url);
	commit(sync);
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

/* How the deployment is reached now; throws what is in the way. */
static CvxRemote *
find_remote(const CvxSubscription *sub)
{
	cvx_catalog_check_server(sub);
	if (cvx_server_aclcheck(sub->serverid, sub->owner) != ACLCHECK_OK)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("owner of subscription \"%s\" may not use server \"%s\"",
						sub->name, sub->server)));
	return cvx_options_remote(sub->serverid, sub->owner);
}

/* The connection as the options say now. */
static void
open_connection(CvxSync *sync, const CvxSubscription *sub)
{
	CvxRemote  *remote = find_remote(sub);
	MemoryContext cxt;

	cxt = AllocSetContextCreate(sync->cxt, "convex connection",
								ALLOCSET_SMALL_SIZES);
	sync->fingerprint = cvx_failure_fingerprint(remote);
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

/*
 * Leave the failure in the catalog.  What stands aside waits by itself: the
 * common changes go on at once.
 */
static void
record_failure(CvxSync *sync, const ErrorData *error)
{
	sync->failed_fingerprint = sync->fingerprint != 0 ? sync->fingerprint :
		cvx_failure_fingerprint_error(error);
	begin(sync);
	sync->next_attempt = cvx_failure_record(sync->subid, error);
	commit(sync);
	if (sync->is_aside)
	{
		sync->aside_retry_at = sync->next_attempt;
		sync->next_attempt = GetCurrentTimestamp();
	}
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

	/* Those that are broken catch up with the others later. */
	foreach(lc, sub->rels)
	{
		CvxSubRel  *rel = lfirst(lc);

		if (rel->load == CVX_LOAD_CATCHING_UP && rel->is_staged &&
			rel->state != CVX_REL_ERROR)
		{
			loaded = lappend(loaded, rel);
			ts = rel->synced_ts;
		}
	}
	/* A deployment without tables is followed from its head. */
	if (loaded == NIL)
		return cut_over(sync, NIL, cvx_api_fresh_snapshot(sync->http));
	if (sub->shown_from == 0)
		return ask_shown_from(sync);
	if (ts < sub->shown_from)
		return catch_up(sync, loaded);
	return check_loaded(sync, loaded, ts);
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
			cvx_catalog_rel(sub, rel,
							"load = 'walking', snapshot = NULL, tablet = NULL, check_cursor = NULL, check_id = NULL");
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
	char	   *tablet;
	ListCell   *lc;

	foreach(lc, sub->rels)
		if (((CvxSubRel *) lfirst(lc))->load == CVX_LOAD_WALKING)
			walking = lappend(walking, lfirst(lc));
	request = make_request(sync, false, sub->snapshot, sub->page_cursor,
						   walking, false);
	received = receive(sync, &request);
	if (sub->snapshot != 0 && is_snapshot_lost(sync, received.call))
		return restart_walk(sync, "Convex no longer serves the snapshot");
	if (sub->snapshot != 0)
		prefetch_after(sync, received.call, false, walking, false);
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
	group_docs(sync, page, PG_INT64_MAX, walking, &batches);
	tablet = tablet_of_last(page);
	foreach(lc, walking)
	{
		CvxSubRel  *rel = lfirst(lc);
		CvxBatchDocs *docs = &batches[foreach_current_index(lc)];

		if (docs->ndocs == 0)
			continue;
		cvx_apply_load(sub, rel, docs);
		cvx_catalog_run(SPI_OK_UPDATE,
						"UPDATE @.convex_subscription_rel SET copied_rows = copied_rows + $3,"
						" tablet = coalesce($4, tablet) WHERE subid = $1 AND relno = $2",
						"iilt", sub->subid, rel->relno, (int64) docs->ndocs,
						is_doc_of(page, &page->docs[page->ndocs - 1], rel) ? tablet : NULL);
	}
	if (!page->has_more)
		cvx_catalog_run(SPI_OK_UPDATE,
						"UPDATE @.convex_subscription_rel SET load = 'indexing', snapshot = $2"
						" WHERE subid = $1 AND load = 'walking'", "il",
						sub->subid, page->ts);
	cvx_catalog_run(SPI_OK_UPDATE,
					"UPDATE @.convex_subscription_state SET " COSTS ", snapshot = $6, page_cursor = $7,"
					" load_pages = load_pages + 1 WHERE subid = $1", "illlllt",
					sub->subid, (int64) page->ndocs, sync->stats.bytes,
					sync->stats.requests, sync->stats.retries, page->ts,
					page->has_more ? page->cursor : NULL);
	forget_costs(sync);
	commit(sync);
	sync->was_walk = true;
	if (page->has_more)
	{
		sub->snapshot = page->ts;
		sub->page_cursor = MemoryContextStrdup(sync->sub_cxt, page->cursor);
		sync->is_kept = true;
	}
	return CVX_STEP_WORKED;
}

/*
 * Is it the snapshot, or the cursor, that keeps a page from being read?  Convex
 * may say so; or it fails on and on, while it answers for a fresh snapshot.
 */
static bool
is_snapshot_lost(CvxSync *sync, CvxCall *call)
{
	if (is_snapshot_gone(call))
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
	ListCell   *lc;
	bool		gives_up = sub->load_restarts >= MAX_LOAD_RESTARTS;
	char	   *detail;

	begin(sync);
	cvx_catalog_run(SPI_OK_SELECT,
					"SELECT format('%s: %s pages, %s rows in %s s', $2, load_pages,"
					" (SELECT sum(copied_rows) FROM @.convex_subscription_rel AS r WHERE r.subid = $1 AND load = 'walking'),"
					" extract(epoch FROM clock_timestamp() - load_started_at)::bigint)"
					" FROM @.convex_subscription_state WHERE subid = $1", "it",
					sub->subid, why);
	detail = SPI_processed == 1 ? cvx_catalog_text(0, 1) : pstrdup(why);
	foreach(lc, sub->rels)
		if (((CvxSubRel *) lfirst(lc))->load == CVX_LOAD_WALKING)
			want_again(sync, lfirst(lc), gives_up, detail);
	cvx_catalog_event(sub->subid, gives_up ? "load_too_slow" : "load_restarted",
					  NULL, detail);
	note_restart(sync, gives_up, why);
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
			cvx_catalog_run(SPI_OK_UPDATE,
							"UPDATE @.convex_subscription_state SET shown_from = NULL WHERE subid = $1",
							"i", sub->subid);
		}
		commit(sync);
		sync->is_productive = true;
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

		if (rel->is_staged && !cvx_apply_fits(sub, rel))
		{
			cvx_catalog_drop_staging(sub, rel);
			cvx_catalog_rel(sub, rel, "load = 'wanted', is_staged = false, synced_ts = NULL");
			cvx_catalog_event(sub->subid, "resync", rel,
							  "a column of its target is of another type than when the load began");
			continue;
		}
		if (rel->is_staged &&
			!guarded(sync, rel, 0, cut_over_one, &ts))
			continue;
		cvx_catalog_rel(sub, rel,
						"state = 'ready', load = NULL, is_staged = false, synced_ts = NULL, attempts = 0,"
						" retry_at = NULL, error_code = NULL, error_message = NULL");
		cvx_catalog_event(sub->subid, rel->state == CVX_REL_JOINING ? "table_joined" : "table_resynced",
						  rel, psprintf("at " INT64_FORMAT, ts));
	}

	/* The next tables may be walking already. */
	cvx_catalog_run(0,
					"UPDATE @.convex_subscription_state SET snapshot = NULL, page_cursor = NULL WHERE subid = $1"
					" AND NOT EXISTS (SELECT FROM @.convex_subscription_rel WHERE subid = $1 AND load = 'walking')",
					"i", sub->subid);
	cvx_catalog_run(SPI_OK_UPDATE,
					"UPDATE @.convex_subscription_state SET"
					" load_restarts = 0, reload = false, check_wanted = check_wanted OR NOT $2,"
					" checked_at = CASE WHEN $3 THEN clock_timestamp() ELSE checked_at END WHERE subid = $1",
					"ibb", sub->subid, is_first || sync->nrechecks++ >= MAX_RECHECKS, is_first);
	if (is_first)
		advance(sync, ts, true, 0);
	commit(sync);
	sync->is_productive = true;
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
	bool		is_pausing = sync->aside_retry_at > GetCurrentTimestamp();
	List	   *rels = NIL;
	List	   *arrived = NIL;
	List	   *mended = NIL;
	ListCell   *lc;

	/* Tables at their own timestamps come first: they are soon done. */
	foreach(lc, sub->rels)
	{
		CvxSubRel  *rel = lfirst(lc);

		if (rel->load != CVX_LOAD_CATCHING_UP || !rel->is_retry_due)
			continue;
		if (rel->synced_ts == sub->cursor && rel->is_staged)
			arrived = lappend(arrived, rel);
		else if (rel->synced_ts == sub->cursor)
			mended = lappend(mended, rel);
		else if (rel->synced_ts > sub->cursor)
			bound = Min(bound, rel->synced_ts);
		else if (behind == 0 || rel->synced_ts < behind)
			behind = rel->synced_ts;
	}
	if (mended != NIL)
		return cut_over(sync, mended, sub->cursor);
	sync->has_arrived = arrived != NIL && !is_pausing;
	if (sync->has_arrived)
	{
		sync->is_aside = true;
		if (sub->shown_from == 0)
			return ask_shown_from(sync);
		if (sub->cursor >= sub->shown_from)
			return check_loaded(sync, arrived, sub->cursor);
		sync->is_aside = false;
	}
	foreach(lc, behind != 0 ? sub->rels : NIL)
	{
		CvxSubRel  *rel = lfirst(lc);
		CvxSubRel  *one = rels ? linitial(rels) : NULL;

		if (rel->load == CVX_LOAD_CATCHING_UP && rel->is_retry_due &&
			rel->synced_ts == behind &&
			(one == NULL || one->is_staged == rel->is_staged))
			rels = lappend(rels, rel);
	}
	if (rels != NIL && !is_pausing)
	{
		sync->is_aside = true;
		return catch_up(sync, rels);
	}

	/*
	 * A walk's page and a page of changes take turns.  What fails beside the
	 * common changes does not hold them up.
	 */
	if (!is_pausing && (!sync->was_walk || sync->is_caught_up))
	{
		bool		is_done = false;
		CvxStep		result;

		sync->is_aside = true;
		result = load_or(sync, &is_done);
		sync->is_aside = is_done;
		if (is_done)
		{
			sync->was_walk = true;
			sync->is_caught_up = false;
			return result;
		}
	}
	sync->was_walk = false;

	sync->is_aside = true;
	if (!is_pausing && is_check_pending(sync) &&
		sub->cursor >= sync->check_from && !sync->was_check)
		return check_tables(sync);
	sync->is_aside = false;
	sync->was_check = false;
	return common_changes(sync, bound);
}

/*
 * Changes of loaded tables alone, up to the common cursor at most if there is
 * a good one.
 */
static CvxStep
catch_up(CvxSync *sync, List *rels)
{
	CvxSubscription *sub = sync->sub;
	CvxSubRel  *first = linitial(rels);
	Request		request = make_request(sync, true, first->synced_ts, NULL, rels, false);
	Received	received = receive(sync, &request);
	CvxPage    *page;
	bool		is_alone = sub->cursor == 0 || sub->is_reloading;
	int64		bound = is_alone ? PG_INT64_MAX : sub->cursor;
	int64		ts;
	int64		rows;
	ListCell   *lc;

	if (cvx_api_has_code(received.call, 400, "InvalidWindowToReadDocuments"))
	{
		begin_again(sync, rels, "Convex no longer keeps the changes since the table's load");
		return CVX_STEP_WORKED;
	}
	page = read_page(sync, received, &request);
	ts = Min(page->ts, bound);
	if (page->ts < first->synced_ts)
		return reload_all(sync, "the cursor is ahead of the server");
	if (page->has_more && page->ts < bound)
	{
		Request		next = make_request(sync, true, page->ts, NULL, rels, false);

		prefetch(sync, &next);
	}

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
	if (!page->has_more && is_alone)
		note_log_end(sync, ts);
	cvx_catalog_run(SPI_OK_UPDATE,
					"UPDATE @.convex_subscription_state SET " COSTS " WHERE subid = $1",
					"illll", sync->subid, rows, sync->stats.bytes,
					sync->stats.requests, sync->stats.retries);
	forget_costs(sync);
	commit(sync);
	sync->is_careful = false;
	return CVX_STEP_WORKED;
}

/* The newest timestamp, now; throws when the server does not tell. */
static int64
ask_head(CvxSync *sync)
{
	int64		head = cvx_api_query_ts(sync->http);

	return head >= 0 ? head : cvx_api_fresh_snapshot(sync->http);
}

/* The head, once the loads have ended: what is loaded is not shown before. */
static CvxStep
ask_shown_from(CvxSync *sync)
{
	int64		head = ask_head(sync);

	begin(sync);
	if (still_at(sync))
		cvx_catalog_run(SPI_OK_UPDATE,
						"UPDATE @.convex_subscription_state SET shown_from = $2 WHERE subid = $1",
						"il", sync->sub->subid, head);
	commit(sync);
	return CVX_STEP_WORKED;
}

/* The end of the log will do, wherever the head was said to be. */
static void
note_log_end(CvxSync *sync, int64 ts)
{
	sync->check_from = Min(sync->check_from, ts);
	if (sync->sub->shown_from > ts)
		cvx_catalog_run(SPI_OK_UPDATE,
						"UPDATE @.convex_subscription_state SET shown_from = $2 WHERE subid = $1",
						"il", sync->sub->subid, ts);
}

/* Load tables again that cannot catch up; not for ever. */
static void
begin_again(CvxSync *sync, List *rels, const char *why)
{
	CvxSubscription *sub = sync->sub;
	bool		gives_up = sub->load_restarts >= MAX_LOAD_RESTARTS;
	ListCell   *lc;

	begin(sync);
	if (still_at(sync))
	{
		foreach(lc, rels)
		{
			cvx_catalog_drop_staging(sub, lfirst(lc));
			want_again(sync, lfirst(lc), gives_up, why);
			cvx_catalog_event(sub->subid, gives_up ? "load_too_slow" : "resync",
							  lfirst(lc), why);
		}
		note_restart(sync, gives_up, why);
	}
	commit(sync);
}

/*
 * A table's load begins anew; beside others that are followed one that cannot
 * keep up waits.
 */
static void
want_again(CvxSync *sync, CvxSubRel *rel, bool gives_up, const char *why)
{
	CvxSubscription *sub = sync->sub;

	cvx_catalog_run(SPI_OK_UPDATE,
					"UPDATE @.convex_subscription_rel SET load = 'wanted', is_staged = is_staged AND load = 'walking',"
					" synced_ts = NULL, retry_at = CASE WHEN $3 THEN clock_timestamp() + interval '" SLOW_RETRY "' END,"
					" error_message = CASE WHEN $3 THEN $4 END WHERE subid = $1 AND relno = $2",
					"iibt", sub->subid, rel->relno,
					gives_up && sub->cursor != 0 && !sub->is_reloading, why);
}

/* Loads have begun anew; when none is followed meanwhile, once too often. */
static void
note_restart(CvxSync *sync, bool gives_up, const char *why)
{
	CvxSubscription *sub = sync->sub;
	bool		is_aside = sub->cursor != 0 && !sub->is_reloading;

	cvx_failure_note_loss(sub, why);
	cvx_catalog_run(SPI_OK_UPDATE,
					"UPDATE @.convex_subscription_state SET snapshot = NULL, page_cursor = NULL,"
					" load_restarts = CASE WHEN $3 THEN 0 ELSE load_restarts + 1 END,"
					" phase = CASE WHEN $2 THEN 'load_too_slow' ELSE phase END WHERE subid = $1",
					"ibb", sub->subid, gives_up && !is_aside, gives_up && is_aside);
}

/* A page of the common change log, up to bound. */
static CvxStep
common_changes(CvxSync *sync, int64 bound)
{
	CvxSubscription *sub = sync->sub;
	bool		is_everything = false;
	bool		has_more;
	bool		has_aside;
	bool		is_unknown = false;
	bool		was_careful;
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
	if (bound == PG_INT64_MAX)
		prefetch_after(sync, received.call, true, rels, is_everything);
	page = read_page(sync, received, &request);
	if (page->ts < sub->cursor)
		return reload_all(sync, "the cursor is ahead of the server");
	ts = Min(page->ts, bound);
	has_more = page->has_more || ts < page->ts;
	if (has_more)
		look_ahead(sync);
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
				is_known |= is_doc_of(page, doc, lfirst(lc));
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
	was_careful = sync->is_careful;
	rows = apply_tables(sync, rels, page, ts, false);
	advance(sync, ts, has_more, rows);
	if (!has_more)
		note_log_end(sync, ts);
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
	has_aside = sub->is_check_due || is_unknown || sync->has_arrived ||
		has_load(sub, CVX_LOAD_WANTED) || has_load(sub, CVX_LOAD_WALKING) ||
		has_load(sub, CVX_LOAD_INDEXING);
	if (!sync->is_caught_up && bound == PG_INT64_MAX && !has_aside && !was_careful)
	{
		sub->cursor = ts;
		sync->is_kept = true;
	}
	if (!sync->is_caught_up || bound != PG_INT64_MAX ||
		(has_aside && sync->aside_retry_at <= GetCurrentTimestamp()))
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
						"UPDATE @.convex_subscription_state SET reload = true, head_ts = NULL, phase = 'reloading', caught_up = false,"
						" snapshot = NULL, page_cursor = NULL, deployment_url = $2 WHERE subid = $1",
						"it", sub->subid, cvx_http_remote(sync->http)->base_url);
		cvx_catalog_event(sub->subid, "resnapshot", NULL, why);
		cvx_failure_note_loss(sub, why);
	}
	commit(sync);
	return CVX_STEP_WORKED;
}

/* ------------------------------------------------------------------------
 * Looking for new, replaced and dropped tables
 * ------------------------------------------------------------------------
 */

/*
 * Is a check due?  Then check_from is the timestamp that it has to be made at:
 * before that what it was wanted for may not have happened.
 */
static bool
is_check_pending(CvxSync *sync)
{
	CvxSubscription *sub = sync->sub;

	if (!sub->is_check_due)
	{
		sync->check_from = 0;
		sync->check_relno = 0;
		return false;
	}
	if (sync->check_from != 0 && sync->check_generation == sub->generation)
		return true;
	begin(sync);
	cvx_catalog_run(SPI_OK_SELECT,
					"SELECT max(eventid) FROM @.convex_subscription_event"
					" WHERE subid = $1 AND kind = 'swap_announced'", "i", sub->subid);
	sync->check_event = cvx_catalog_int64(0, 1);
	commit(sync);
	sync->check_generation = sub->generation;
	sync->check_relno = 0;
	sync->check_from = ask_head(sync);
	return true;
}

/*
 * Compare the tables that are followed with Convex, at the cursor.  Where they
 * are many, pages of changes come in between.
 */
static CvxStep
check_tables(CvxSync *sync)
{
	CvxSubscription *sub = sync->sub;
	TimestampTz begun;
	ListCell   *lc;

	if (sync->check_relno == 0 && !begin_check(sync))
		return CVX_STEP_WORKED;
	begun = GetCurrentTimestamp();
	foreach(lc, sub->rels)
	{
		CvxSubRel  *rel = lfirst(lc);

		if (rel->state != CVX_REL_READY || rel->relno <= sync->check_relno)
			continue;
		if (TimestampDifferenceExceeds(begun, GetCurrentTimestamp(),
									   CHECK_SLICE_MS))
		{
			sync->was_check = true;
			return CVX_STEP_WORKED;
		}
		sync->check_found |= !check_table(sync, rel, sub->cursor, false);
		sync->check_relno = rel->relno;
	}
	if (!sync->check_found)
		sync->nrechecks = 0;
	sync->check_from = 0;
	sync->check_relno = 0;
	begin(sync);
	if (still_at(sync))
		cvx_catalog_run(SPI_OK_UPDATE,
						"UPDATE @.convex_subscription_state SET check_wanted = false, checked_at = clock_timestamp()"
						" WHERE subid = $1", "i", sub->subid);
	commit(sync);
	sync->is_productive = true;
	return CVX_STEP_WORKED;
}

/* Compare the names of the tables; false when there is nothing to go on with. */
static bool
begin_check(CvxSync *sync)
{
	CvxSubscription *sub = sync->sub;
	List	   *tables = cvx_catalog_fetch(sync->http);

	begin(sync);
	if (!still_at(sync))
	{
		commit(sync);
		return false;
	}
	(void) cvx_catalog_add_tables(sub, tables, false);

	/* What has been announced since asks for another check. */
	cvx_catalog_run(0,
					"WITH seen AS (UPDATE @.convex_subscription_event SET kind = 'swap_seen'"
					" WHERE subid = $1 AND kind = 'swap_announced' AND eventid <= $2)"
					" UPDATE @.convex_subscription_state SET check_wanted = true WHERE subid = $1",
					"il", sub->subid, sync->check_event);
	cvx_catalog_trim_events(sub->subid);
	commit(sync);
	sync->check_found = false;
	return true;
}

/*
 * Compare loaded tables, which stand at ts, with Convex, and cut those over
 * that are equal.  One that Convex no longer lists does not appear.
 */
static CvxStep
check_loaded(CvxSync *sync, List *rels, int64 ts)
{
	CvxSubscription *sub = sync->sub;
	List	   *tables;
	List	   *good = NIL;
	ListCell   *lc;

	tables = cvx_catalog_fetch(sync->http);
	begin(sync);
	if (!still_at(sync))
	{
		commit(sync);
		return CVX_STEP_WORKED;
	}
	(void) cvx_catalog_add_tables(sub, tables, false);
	commit(sync);
	foreach(lc, rels)
	{
		CvxSubRel  *rel = lfirst(lc);

		if (rel->state != CVX_REL_DROPPED && check_table(sync, rel, ts, true))
			good = lappend(good, rel);
	}
	return good != NIL ? cut_over(sync, good, ts) : CVX_STEP_WORKED;
}

/* Is the table still what it was when the step began? */
static bool
is_unchanged(CvxSync *sync, CvxSubRel *rel, bool is_loaded)
{
	cvx_catalog_run(SPI_OK_SELECT,
					"SELECT relno FROM @.convex_subscription_rel WHERE subid = $1 AND relno = $2"
					" AND CASE WHEN $3 THEN state <> 'dropped' AND load = 'catching_up' AND is_staged AND synced_ts = $4"
					" ELSE state = 'ready' AND load IS NULL END FOR UPDATE", "iibl",
					sync->subid, rel->relno, is_loaded, rel->synced_ts);
	return SPI_processed == 1;
}

/*
 * Compare a page of _ids at ts with the mirror, or with a loaded table's
 * staging.  When they differ, the table was replaced behind the change log and
 * is loaded again: false.
 */
static bool
check_table(CvxSync *sync, CvxSubRel *rel, int64 ts, bool is_loaded)
{
	static const char *const id_only[] = {"_id"};
	CvxSubscription *sub = sync->sub;
	Request		request = make_request(sync, false, ts, rel->check_cursor,
									   list_make1(rel), false);
	Received	received;
	CvxPage    *page;
	char	   *tablet;
	char	   *last = NULL;
	char	   *problem = NULL;
	bool		is_past_end = false;

	request.selection.is_whole = false;
	request.selection.fields = id_only;
	request.selection.nfields = 1;
	request.key = psprintf("check %s", request.key);
	received = receive(sync, &request);
	if (is_snapshot_gone(received.call))
	{
		/* Never to be had again: another check comes later. */
		begin(sync);
		if (still_at(sync) && is_unchanged(sync, rel, is_loaded))
		{
			cvx_catalog_rel(sub, rel, "check_cursor = NULL, check_id = NULL");
			cvx_catalog_event(sub->subid, "check_skipped", rel,
							  "Convex no longer serves the timestamp");
		}
		commit(sync);
		return true;
	}
	page = read_page(sync, received, &request);
	if (page->has_more && page->ndocs == 0)
		return true;
	if (rel->check_cursor && page->ndocs == 0)
		is_past_end = true;
	tablet = page->cursor ? tablet_of(page->cursor) : NULL;
	if (page->ndocs > 0)
		last = pnstrdup(page->text + page->docs[page->ndocs - 1].id.offset,
						page->docs[page->ndocs - 1].id.len);

	begin(sync);
	if (still_at(sync) && is_unchanged(sync, rel, is_loaded))
	{
		if (tablet && rel->tablet && strcmp(tablet, rel->tablet) != 0)
			problem = "its tablet is another one";
		else
			problem = cvx_apply_compare(sub, rel, is_loaded, page,
										rel->check_cursor ? rel->check_id : NULL,
										page->has_more ? last : NULL);
		if (problem)
			load_again(sync, rel, is_loaded, problem);
		else
			cvx_catalog_run(SPI_OK_UPDATE,
							"UPDATE @.convex_subscription_rel SET checked_at = clock_timestamp(), check_cursor = $3,"
							" check_id = $4, tablet = coalesce($5, tablet) WHERE subid = $1 AND relno = $2",
							"iittt", sub->subid, rel->relno,
							page->has_more ? page->cursor : NULL,
							page->has_more ? last : NULL, tablet);
	}
	commit(sync);
	if (problem == NULL && is_past_end)
	{
		/* That said nothing: compare the first page. */
		rel->check_cursor = NULL;
		return check_table(sync, rel, ts, is_loaded);
	}
	return problem == NULL;
}

/* A table was replaced.  What was loaded of it was not seen by anybody. */
static void
load_again(CvxSync *sync, CvxSubRel *rel, bool is_loaded, const char *problem)
{
	CvxSubscription *sub = sync->sub;

	if (is_loaded)
	{
		cvx_catalog_drop_staging(sub, rel);
		cvx_catalog_run(SPI_OK_UPDATE,
						"UPDATE @.convex_subscription_rel SET load = 'wanted', is_staged = false, synced_ts = NULL,"
						" attempts = attempts + 1, retry_at = CASE WHEN attempts >= $3 THEN clock_timestamp() +"
						" greatest(least(interval '1 s' * power(2, least(attempts - $3, 9)), interval '5 min'),"
						" (SELECT clock_timestamp() - load_started_at FROM @.convex_subscription_state WHERE subid = $1)) END"
						" WHERE subid = $1 AND relno = $2", "iii", sub->subid,
						rel->relno, MAX_RELOADS);
	}
	else
		cvx_catalog_rel(sub, rel, "state = 'resyncing', load = 'wanted'");
	cvx_catalog_event(sub->subid, "table_replaced", rel, problem);
}

/* Does the server refuse a walk because of its snapshot or cursor? */
static bool
is_snapshot_gone(CvxCall *call)
{
	return cvx_api_has_code(call, 400, "SnapshotTooOld") ||
		cvx_api_has_code(call, 400, "SnapshotTooNew") ||
		cvx_api_has_code(call, 400, "InvalidListSnapshotCursor");
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

	if (sync->ahead && strcmp(sync->ahead_key, request->key) == 0)
		return;
	forget_ahead(sync);
	if (!cvx_http_prefetch)
		return;
	MemoryContextReset(sync->page_cxts[1 - sync->present]);
	old = MemoryContextSwitchTo(sync->page_cxts[1 - sync->present]);
	sync->ahead_key = pstrdup(request->key);
	sync->ahead = request->is_delta ?
		cvx_api_document_deltas(sync->http, &sync->stats, &request->selection, request->ts) :
		cvx_api_list_snapshot(sync->http, &sync->stats, &request->selection,
							  request->ts, request->cursor);
	MemoryContextSwitchTo(old);
}

/*
 * The same before an answer is parsed, if its end tells the next page.  What
 * the parser finds to be otherwise is asked for anew.
 */
static void
prefetch_after(CvxSync *sync, CvxCall *call, bool is_delta, List *rels,
			   bool is_everything)
{
	const CvxAnswer *answer = cvx_http_answer(call);
	int64		ts = sync->sub->snapshot;
	char	   *cursor = NULL;
	Request		next;

	if (!cvx_http_prefetch || answer->status != 200 ||
		!cvx_page_peek(answer->body, answer->body_len, is_delta, &ts, &cursor))
		return;
	next = make_request(sync, is_delta, ts, cursor, rels, is_everything);
	prefetch(sync, &next);
}

static CvxPage *
read_page(CvxSync *sync, Received received, Request *request)
{
	MemoryContext old = MemoryContextSwitchTo(sync->page_cxts[sync->present]);
	CvxPageWant want = {.is_delta = request->is_delta};
	CvxPage    *page;
	ListCell   *lc;

	want.tables = request->selection.tables;
	want.ntables = request->is_any ? 0 : request->selection.ntables;
	/* Pages of one table come together. */
	foreach(lc, sync->sub->rels)
	{
		CvxSubRel  *rel = lfirst(lc);

		if (request->selection.is_whole && rel->relno == sync->page_relno)
			cvx_target_want(rel, &want);
	}
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
					" AND s.enabled FOR SHARE OF s FOR UPDATE OF st", "ilnnt",
					sync->subid, sync->sub->generation, sync->sub->cursor,
					sync->sub->snapshot, sync->sub->page_cursor);
	return SPI_processed == 1;
}

/* How far behind is a worker?  Asked now and then; a call knows its head. */
static void
look_ahead(CvxSync *sync)
{
	if (!sync->host.is_worker ||
		!TimestampDifferenceExceeds(sync->head_asked_at, GetCurrentTimestamp(),
									HEAD_MS))
		return;
	sync->head_asked_at = GetCurrentTimestamp();
	sync->seen_head = cvx_api_query_ts(sync->http);
}

/* Move the cursor, from where it was read to be. */
static void
advance(CvxSync *sync, int64 cursor, bool has_more, int64 rows)
{
	cvx_catalog_run(SPI_OK_UPDATE,
					"UPDATE @.convex_subscription_state SET " COSTS ", cursor = $7, head_ts = greatest(head_ts, $7, $9),"
					" caught_up = NOT $8, applied_at = clock_timestamp(),"
					" phase = CASE phase WHEN 'failing' THEN phase ELSE 'following' END"
					" WHERE subid = $1 AND cursor IS NOT DISTINCT FROM $6",
					"illllnlbl", sync->subid, rows, sync->stats.bytes,
					sync->stats.requests, sync->stats.retries,
					sync->sub->cursor, cursor, has_more,
					Max(sync->head, sync->seen_head));
	if (SPI_processed != 1)
		ereport(ERROR,
				(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
				 errmsg("cursor of subscription \"%s\" was moved by another process",
						sync->sub->name)));
	forget_costs(sync);
}

/* What was done and what it cost has been added to the state. */
static void
forget_costs(CvxSync *sync)
{
	sync->stats.bytes = sync->stats.requests = sync->stats.retries = 0;
	sync->is_productive = true;
}

/* Is this a document of this table? */
static bool
is_doc_of(const CvxPage *page, const CvxDoc *doc, const CvxSubRel *rel)
{
	return strlen(rel->table) == doc->table.len &&
		strlen(rel->component) == doc->component.len &&
		memcmp(rel->table, page->text + doc->table.offset, doc->table.len) == 0 &&
		memcmp(rel->component, page->text + doc->component.offset, doc->component.len) == 0;
}

/*
 * The documents of each table, those up to bound, in the page's order.  The
 * batches are in the order of rels.
 */
static int
group_docs(CvxSync *sync, const CvxPage *page, int64 bound, List *rels,
		   CvxBatchDocs **batches)
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

			if (is_doc_of(page, doc, list_nth(rels, candidate)))
			{
				owners[i] = last = candidate;
				(*batches)[candidate].ndocs++;
				n++;
				break;
			}
		}
	}
	if (n > 0)
		sync->page_relno = ((CvxSubRel *) list_nth(rels, last))->relno;
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

	group_docs(sync, page, bound, rels, &batches);
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
		if (!is_of_table(sync->sub, error->sqlerrcode))
			ReThrowError(error);
		cvx_catalog_rel_error(sync->sub, rel, stands_at, error);
		FreeErrorData(error);
	}
	PG_END_TRY();
	return is_done;
}

/*
 * Can this be the fault of one target?  Convex is not spoken to meanwhile, so
 * a lost connection is one of the target's own.  What may pass by itself is
 * the target's fault when it comes again and again; what the machine or the
 * operator did never is.
 */
static bool
is_of_table(const CvxSubscription *sub, int sqlerrcode)
{
	switch (ERRCODE_TO_CATEGORY(sqlerrcode))
	{
		case ERRCODE_TRANSACTION_ROLLBACK:
		case ERRCODE_INTERNAL_ERROR:
			return sub->failures >= MAX_PASSING_FAILURES;
		case ERRCODE_INSUFFICIENT_RESOURCES:
		case ERRCODE_OPERATOR_INTERVENTION:
		case ERRCODE_SYSTEM_ERROR:
			return false;
		default:
			return true;
	}
}

/* The tablet that a page cursor names; NULL when it names none. */
static char *
tablet_of(const char *cursor)
{
	return cursor_member(cursor, "\"tablet\":\"");
}

/* The tablet of a walk's last document; NULL when the cursor is past it. */
static char *
tablet_of_last(const CvxPage *page)
{
	const CvxDoc *doc;
	char	   *id;

	if (page->cursor == NULL || page->ndocs == 0)
		return NULL;
	doc = &page->docs[page->ndocs - 1];
	id = cursor_member(page->cursor, "\"id\":\"");
	if (id == NULL || strlen(id) != doc->id.len ||
		memcmp(id, page->text + doc->id.offset, doc->id.len) != 0)
		return NULL;
	return tablet_of(page->cursor);
}

static char *
cursor_member(const char *cursor, const char *label)
{
	const char *begin = strstr(cursor, label);

	if (begin == NULL)
		return NULL;
	begin += strlen(label);
	return pnstrdup(begin, strcspn(begin, "\""));
}
