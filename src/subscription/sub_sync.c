/*
 * sub_sync.c
 *		What is the next step, and when does the cursor move?
 *
 * Invariants:
 *	1. Rows, cursor and states of tables change in one transaction.
 *	2. The cursor moves only from the value that the page was asked for: each
 *	   advance compares it, and the row's generation, before it sets it; and a
 *	   session lock lets one process at a time step a subscription.  A step
 *	   whose lock was let go by code of a target does not commit.
 *	3. Nobody waits for HTTP with a snapshot, a transaction id or a lock on an
 *	   object; a worker not even within a transaction.
 *	4. A page may be cut at any timestamp: the changes up to there, and the
 *	   cursor there, are a state that Convex had.
 *	5. After a crash the catalog alone decides what comes next.
 *	6. One page at most has been taken in and is not committed.  The one ahead
 *	   is asked for meanwhile, and taken in after that commit: libcurl does not
 *	   work while a page is applied.
 *
 * Room: subscription 5.14
 */
#include "postgres.h"

#include "commands/async.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "storage/sinval.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

#include "ground/compat.h"
#include "ground/redact.h"
#include "subscription/sub_catalog.h"
#include "subscription/sub_check.h"
#include "subscription/sub_failure.h"
#include "subscription/sub_load.h"
#include "subscription/sub_read.h"
#include "subscription/sub_state.h"
#include "subscription/sub_step.h"
#include "subscription/sub_sync.h"
#include "subscription/sub_tables.h"

/* What was read of the catalog is good for pages that follow each other so soon. */
#define KEEP_MS		1000

/* Tables that are due, and not at the cursor. */
typedef struct Standing
{
	List	   *mended;			/* targets that stand there again */
	List	   *arrived;		/* loaded ones that do */
	List	   *last;			/* those that are farthest behind it */
	int64		bound;			/* the first one before it */
} Standing;

static ErrorData *copy_error(const ErrorData *error);
static CvxStep step(CvxSync *sync);
static bool is_kept_good(CvxSync *sync);
static bool read_catalog(CvxSync *sync, CvxStep *result);
static bool end_pauses(CvxSubscription *sub);
static CvxSubscription *load_subscription(CvxSync *sync);
static CvxStep work(CvxSync *sync);
static void note_deployment(CvxSync *sync);
static CvxRemote *find_remote(const CvxSubscription *sub);
static void open_connection(CvxSync *sync, const CvxSubscription *sub);
static void record_failure(CvxSync *sync, const ErrorData *error);
static CvxStep reload(CvxSync *sync);
static CvxStep follow(CvxSync *sync);
static Standing find_standing(const CvxSubscription *sub);
static CvxStep common_changes(CvxSync *sync, int64 bound);
static List *followed_tables(const CvxSubscription *sub);
static void notify(const CvxSubscription *sub, int64 ts);
static List *look_for_tables(CvxSync *sync, const CvxPage *page, int64 ts,
							 bool *is_put_off);
static List *unknown_tables(CvxSync *sync, const CvxPage *page, int64 ts);

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
	sync->step.cxt = AllocSetContextCreate(cxt, "convex step",
										   ALLOCSET_DEFAULT_SIZES);
	sync->kept.cxt = AllocSetContextCreate(cxt, "convex catalog",
										  ALLOCSET_DEFAULT_SIZES);
	for (int i = 0; i < 2; i++)
		sync->link.page_cxts[i] = AllocSetContextCreate(cxt, "convex page",
												   ALLOCSET_DEFAULT_SIZES);
	sync->kept.poll_ms = 1000;
	sync->kept.idle_poll_ms = 10000;
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

	MemoryContextReset(sync->step.cxt);
	MemoryContextSwitchTo(sync->step.cxt);
	sync->sub = NULL;
	sync->step.failure = NULL;
	sync->step.is_applying = false;
	sync->step.is_waiting = false;
	sync->step.is_aside = false;
	sync->step.is_looking = false;
	sync->step.has_dropped = false;
	sync->step.is_productive = false;
	sync->step.has_changes = false;
	cvx_error_forget();
	PG_TRY();
	{
		result = step(sync);
	}
	PG_CATCH();
	{
		ErrorData  *error;

		MemoryContextSwitchTo(sync->step.cxt);
		error = cvx_redact_error(CopyErrorData());
		cvx_step_forget_ahead(sync);
		if (error->sqlerrcode == ERRCODE_QUERY_CANCELED ||
			error->sqlerrcode == ERRCODE_ADMIN_SHUTDOWN ||
			error->sqlerrcode == ERRCODE_CRASH_SHUTDOWN)
		{
			MemoryContextSwitchTo(old);
			PG_RE_THROW();
		}
		FlushErrorState();
		sync->host.rollback();
		MemoryContextSwitchTo(sync->step.cxt);
		cvx_step_note_locks(sync);
		if (sync->step.has_dropped)
			result = CVX_STEP_WORKED;	/* once more, without that table */
		else if (sync->step.is_looking)
		{
			/* The check that comes instead tells what is wrong. */
			sync->pace.skips_look = true;
			result = CVX_STEP_WORKED;
		}
		else if (!sync->pace.is_careful && sync->step.is_applying &&
			cvx_step_is_of_table(sync->sub, error->sqlerrcode))
		{
			/* Once more, each table by itself: perhaps only one is broken. */
			sync->pace.is_careful = true;
			result = CVX_STEP_WORKED;
		}
		else
		{
			/* Others of the deployment may walk while this one pauses. */
			cvx_step_release_walk_lock(sync);
			sync->pace.is_careful = false;
			record_failure(sync, error);
			sync->step.failure = error;
			if (sync->step.is_aside && !sync->host.is_worker)
			{
				/* Told when the changes have been applied. */
				MemoryContextSwitchTo(sync->cxt);
				sync->trouble.aside = copy_error(error);
				MemoryContextSwitchTo(sync->step.cxt);
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

	MemoryContextReset(sync->step.cxt);
	MemoryContextSwitchTo(sync->step.cxt);
	sync->step.failure = NULL;
	PG_TRY();
	{
		CvxSubscription *sub;

		cvx_step_begin(sync);
		sub = OidIsValid(cvx_catalog_relid()) ? cvx_catalog_load(sync->subid) :
			NULL;
		if (sub && sub->is_enabled && sub->state.generation == sync->kept.generation)
			has_changed = cvx_failure_fingerprint(find_remote(sub)) !=
				sync->trouble.fingerprint;
		cvx_step_commit(sync);
	}
	PG_CATCH();
	{
		ErrorData  *error;

		MemoryContextSwitchTo(sync->step.cxt);
		error = CopyErrorData();
		FlushErrorState();
		sync->host.rollback();
		MemoryContextSwitchTo(sync->step.cxt);
		has_changed = cvx_failure_fingerprint_error(error) !=
			sync->trouble.fingerprint;
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
	return sync->trouble.aside_retry_at != 0 && sync->trouble.aside != NULL;
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
	ErrorData  *error = sync->step.failure ? sync->step.failure : sync->trouble.aside;

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
	return sync->step.failure ? sync->step.failure->message :
		sync->trouble.aside ? sync->trouble.aside->message : "failed";
}

/*
 * Somebody asks for the subscription: what waits because it has failed is tried
 * again at the next step.
 */
void
cvx_sync_end_pauses(CvxSync *sync)
{
	sync->trouble.ends_pauses = true;
	sync->kept.is_fresh = false;
	sync->trouble.aside_retry_at = 0;
	sync->trouble.nrestarts = 0;
}

/* When something that waits beside the common changes is due; 0: nothing waits. */
TimestampTz
cvx_sync_retry_at(CvxSync *sync)
{
	TimestampTz retry_at = sync->trouble.aside_retry_at;
	ListCell   *lc;

	foreach(lc, sync->sub ? sync->sub->rels : NIL)
	{
		CvxSubRel  *rel = lfirst(lc);

		if (rel->retry_at != 0 && (retry_at == 0 || rel->retry_at < retry_at))
			retry_at = rel->retry_at;
	}
	return retry_at;
}

/* After a failure: when to try again. */
TimestampTz
cvx_sync_next_attempt(CvxSync *sync)
{
	return sync->trouble.next_attempt;
}

int
cvx_sync_poll_interval_ms(CvxSync *sync)
{
	return sync->kept.poll_ms;
}

int
cvx_sync_idle_poll_interval_ms(CvxSync *sync)
{
	return sync->kept.idle_poll_ms;
}

/* Who else steps the subscription; 0 when that is not known. */
int
cvx_sync_holder(CvxSync *sync)
{
	return sync->lease.holder;
}

/* Is an idle step waiting for the walk of another subscription? */
bool
cvx_sync_is_waiting(CvxSync *sync)
{
	return sync->step.is_waiting;
}

/* Did the last step find changes, whether it is idle now or not? */
bool
cvx_sync_has_changes(CvxSync *sync)
{
	return sync->step.has_changes;
}

/* How many pages have been asked for. */
int
cvx_sync_pages(CvxSync *sync)
{
	return sync->link.npages;
}

/* Give back locks and memory; also after an error. */
void
cvx_sync_close(CvxSync *sync)
{
	cvx_step_note_locks(sync);
	cvx_step_release_walk_lock(sync);
	if (sync->lease.has_lock)
		LockRelease(&sync->lease.lock, ExclusiveLock, true);
	sync->lease.has_lock = false;
	MemoryContextDelete(sync->cxt);
}

static CvxStep
step(CvxSync *sync)
{
	CvxSubscription *sub;
	CvxStep		result = CVX_STEP_WORKED;

	if (!is_kept_good(sync) && !read_catalog(sync, &result))
		return result;
	sync->sub = sub = sync->kept.sub;
	sync->kept.is_fresh = false;
	if (sync->link.fingerprint != sync->trouble.fingerprint)
		sync->trouble.aside_retry_at = 0;
	result = work(sync);

	/* What works now ends a failure, unless something else fails. */
	if (sync->step.is_productive && sub->state.is_failing &&
		(sync->step.is_aside || sync->trouble.aside_retry_at == 0))
	{
		cvx_step_begin(sync);
		cvx_failure_end(sub);
		cvx_step_commit(sync);
		sync->trouble.aside_retry_at = 0;
		sync->trouble.fingerprint = 0;
		sub->state.failures = 0;
		sub->state.is_failing = false;
	}
	return result;
}

/* Pages come fast: between two of them the catalog is not read again. */
static bool
is_kept_good(CvxSync *sync)
{
	return sync->kept.is_fresh && !sync->pace.is_careful && sync->kept.sub->state.failures == 0 &&
		sync->kept.at == SharedInvalidMessageCounter &&
		!TimestampDifferenceExceeds(sync->kept.since, GetCurrentTimestamp(),
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

	sync->kept.is_fresh = false;
	sync->link.fingerprint = 0;
	cvx_step_begin(sync);
	if (!OidIsValid(cvx_catalog_relid()) ||
		(sub = load_subscription(sync)) == NULL || !sub->is_enabled)
	{
		cvx_step_commit(sync);
		*result = CVX_STEP_GONE;
		return false;
	}
	had_lock = sync->lease.has_lock;
	if (!cvx_step_take_lock(sync))
	{
		sync->lease.holder = cvx_catalog_pid(sync->subid);
		cvx_step_commit(sync);
		*result = CVX_STEP_BUSY_ELSEWHERE;
		return false;
	}
	/* What was read before the lock was there may be old. */
	if (!had_lock || (sync->trouble.ends_pauses && end_pauses(sub)))
		sub = load_subscription(sync);
	if (sub == NULL)
	{
		cvx_step_commit(sync);
		*result = CVX_STEP_GONE;
		return false;
	}
	cvx_catalog_follow(sub);
	if (cvx_load_mend_unlogged(sub, !had_lock) ||
		cvx_load_mend_staging(sub, !had_lock))
	{
		cvx_step_commit(sync);
		return false;
	}

	/* What somebody asks for does not wait until a pause is over. */
	if (sync->kept.generation != sub->state.generation)
		sync->trouble.aside_retry_at = 0;
	sync->kept.generation = sub->state.generation;
	sync->kept.poll_ms = sub->options.poll_ms;
	sync->kept.idle_poll_ms = sub->options.idle_poll_ms;
	open_connection(sync, sub);
	cvx_step_commit(sync);
	sync->trouble.ends_pauses = false;
	sync->kept.sub = sub;
	sync->kept.at = SharedInvalidMessageCounter;
	sync->kept.since = GetCurrentTimestamp();
	return true;
}

/* Let no table wait; false when none does. */
static bool
end_pauses(CvxSubscription *sub)
{
	bool		is_waiting = false;
	ListCell   *lc;

	foreach(lc, sub->rels)
		is_waiting |= !((CvxSubRel *) lfirst(lc))->is_retry_due;
	if (is_waiting)
		cvx_state_end_pauses(sub->subid);
	return is_waiting;
}

static CvxSubscription *
load_subscription(CvxSync *sync)
{
	MemoryContext old;
	CvxSubscription *sub;

	MemoryContextReset(sync->kept.cxt);
	old = MemoryContextSwitchTo(sync->kept.cxt);
	sub = cvx_catalog_load(sync->subid);
	MemoryContextSwitchTo(old);
	return sub;
}

/* The piece of work itself, with the connection open. */
static CvxStep
work(CvxSync *sync)
{
	CvxSubscription *sub = sync->sub;

	if (!sync->host.is_worker && sync->pace.head == 0)
		sync->pace.head = Max(cvx_api_query_ts(sync->link.http), 0);
	if (sub->state.is_too_slow)
		return CVX_STEP_IDLE;
	if (sub->state.deployment_url == NULL)
		note_deployment(sync);
	else if (strcmp(sub->state.deployment_url, cvx_http_remote(sync->link.http)->base_url) != 0)
	{
		/* It must answer, or else a slip of the pen would cost a load. */
		(void) cvx_step_ask_head(sync);

		/* The head of the other one says nothing of this one. */
		sync->pace.head = sync->pace.seen_head = sync->pace.head_asked_at = 0;
		sync->check.from = 0;
		return cvx_load_everything(sync, "deployment_url of the server was changed");
	}
	if (cvx_load_sweep(sync))
		return CVX_STEP_WORKED;
	if (sub->state.cursor == 0 || sub->state.is_reloading)
		return reload(sync);
	return follow(sync);
}

/* Remember whose cursor this is going to be. */
static void
note_deployment(CvxSync *sync)
{
	const char *url = cvx_http_remote(sync->link.http)->base_url;

	cvx_step_begin(sync);
	if (cvx_step_still_at(sync))
		cvx_state_note_deployment(sync->sub, url);
	cvx_step_commit(sync);
	sync->sub->state.deployment_url = MemoryContextStrdup(sync->kept.cxt, url);
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
	sync->link.fingerprint = cvx_failure_fingerprint(remote);
	MemoryContextSwitchTo(cxt);
	sync->link.http = cvx_http_open(remote);
	MemoryContextSwitchTo(sync->step.cxt);
	if (sync->link.cxt)
		MemoryContextDelete(sync->link.cxt);
	sync->link.cxt = cxt;
}

/*
 * Leave the failure in the catalog.  What stands aside waits by itself: the
 * common changes go on at once.
 */
static void
record_failure(CvxSync *sync, const ErrorData *error)
{
	sync->trouble.fingerprint = sync->link.fingerprint != 0 ? sync->link.fingerprint :
		cvx_failure_fingerprint_error(error);
	cvx_step_begin(sync);
	sync->trouble.next_attempt = cvx_failure_record(sync->subid, error);
	cvx_step_commit(sync);
	if (sync->step.is_aside)
	{
		sync->trouble.aside_retry_at = sync->trouble.next_attempt;
		sync->trouble.next_attempt = GetCurrentTimestamp();
	}
}

/* There is no common cursor yet, or none that is good: all tables walk. */
static CvxStep
reload(CvxSync *sync)
{
	CvxSubscription *sub = sync->sub;
	List	   *loaded = NIL;
	bool		is_done = false;
	CvxStep		result = cvx_load_next(sync, &is_done);
	int64		ts = 0;
	int64		shown_at = 0;
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
		else if (cvx_load_is_shown(sub, rel))
			shown_at = rel->synced_ts;
	}
	if (loaded == NIL && shown_at != 0)
		return cvx_load_cut_over(sync, NIL, shown_at);

	/* A deployment without tables is followed from its head. */
	if (loaded == NIL)
		return cvx_load_cut_over(sync, NIL, cvx_api_fresh_snapshot(sync->link.http));
	if (sub->state.shown_from == 0)
		return cvx_load_ask_shown_from(sync);
	if (ts < sub->state.shown_from)
		return cvx_load_catch_up(sync, loaded);
	return cvx_check_loaded(sync, loaded, ts);
}

/*
 * The cursor is good.  Tables at their own timestamps come first: they are soon
 * done.
 */
static CvxStep
follow(CvxSync *sync)
{
	CvxSubscription *sub = sync->sub;
	bool		is_pausing = sync->trouble.aside_retry_at > GetCurrentTimestamp();
	bool		is_done = false;
	Standing	at = find_standing(sub);
	CvxStep		result;

	if (at.mended != NIL)
		return cvx_load_cut_over(sync, at.mended, sub->state.cursor);
	sync->check.has_arrived = at.arrived != NIL && !is_pausing;
	sync->step.is_aside = true;
	if (sync->check.has_arrived && sub->state.shown_from == 0)
		return cvx_load_ask_shown_from(sync);
	if (sync->check.has_arrived && sub->state.cursor >= sub->state.shown_from)
		return cvx_check_loaded(sync, at.arrived, sub->state.cursor);
	if (at.last != NIL && !is_pausing)
		return cvx_load_catch_up(sync, at.last);

	/*
	 * A walk's page and a page of changes take turns.  What fails beside the
	 * common changes does not hold them up.
	 */
	if (!is_pausing && (!sync->pace.was_walk || sync->pace.is_caught_up))
	{
		result = cvx_load_next(sync, &is_done);
		if (is_done)
		{
			sync->pace.was_walk = true;
			sync->pace.is_caught_up = false;
			return result;
		}
	}
	sync->pace.was_walk = false;
	if (!is_pausing && cvx_check_is_pending(sync) &&
		sub->state.cursor >= sync->check.from && !sync->pace.was_check)
		return cvx_check_tables(sync);
	sync->step.is_aside = false;
	sync->pace.was_check = false;
	return common_changes(sync, at.bound);
}

/* Where tables stand that are due, and not at the cursor. */
static Standing
find_standing(const CvxSubscription *sub)
{
	Standing	at = {.bound = PG_INT64_MAX};
	int64		cursor = sub->state.cursor;
	int64		behind = PG_INT64_MAX;
	ListCell   *lc;

	foreach(lc, sub->rels)
	{
		CvxSubRel  *rel = lfirst(lc);

		if (rel->load != CVX_LOAD_CATCHING_UP || !rel->is_retry_due)
			continue;
		if (rel->synced_ts == cursor && rel->is_staged)
			at.arrived = lappend(at.arrived, rel);
		else if (rel->synced_ts == cursor)
			at.mended = lappend(at.mended, rel);
		else if (rel->synced_ts > cursor)
			at.bound = Min(at.bound, rel->synced_ts);
		else if (rel->synced_ts < behind)
		{
			behind = rel->synced_ts;
			at.last = list_make1(rel);
		}
		else if (rel->synced_ts == behind &&
				 rel->is_staged == ((CvxSubRel *) linitial(at.last))->is_staged)
			at.last = lappend(at.last, rel);
	}
	return at;
}

/*
 * A page of the common change log, up to bound.  Tables that it names and that
 * nobody knows enter in the commit that moves the cursor past it.
 */
static CvxStep
common_changes(CvxSync *sync, int64 bound)
{
	CvxSubscription *sub = sync->sub;
	bool		has_more;
	bool		has_aside;
	bool		is_put_off = false;
	bool		was_careful;
	List	   *rels = followed_tables(sub);
	List	   *tables;
	CvxPageRequest request = cvx_step_make_request(sync, true, sub->state.cursor,
												   NULL, rels, true);
	CvxPageAnswer received = cvx_step_receive(sync, &request);
	CvxPage    *page;
	int64		ts;
	int64		rows;
	int			njoined = 0;

	if (cvx_api_has_code(received.call, 400, "InvalidWindowToReadDocuments") &&
		cvx_load_may_restart(sync))
		return cvx_load_everything(sync, "Convex no longer keeps the changes since the cursor");
	if (bound == PG_INT64_MAX)
		cvx_step_prefetch_after(sync, received.call, true, rels, true);
	page = cvx_step_read_page(sync, received, &request);
	sync->step.has_changes = page->ndocs > 0;
	cvx_log_begin(&sync->log, sub->server, sub->state.cursor);
	if (!cvx_log_check(&sync->log, page))
		return cvx_load_behind(sync, &sync->log, page);
	ts = cvx_step_cut(sync, page, Min(page->ts, bound));
	has_more = page->has_more || ts < page->ts;
	if (has_more)
		cvx_step_look_ahead(sync);
	if (has_more && ts == page->ts)
	{
		CvxPageRequest next = cvx_step_make_request(sync, true, ts, NULL, rels, true);

		cvx_step_prefetch(sync, &next);
	}
	tables = look_for_tables(sync, page, ts, &is_put_off);

	cvx_step_begin(sync);
	if (!cvx_step_still_at(sync))
	{
		cvx_step_commit(sync);
		return CVX_STEP_WORKED;
	}
	was_careful = sync->pace.is_careful;
	rows = cvx_step_apply_tables(sync, rels, page, ts, false);
	cvx_step_advance(sync, ts, has_more, rows);
	if (!has_more)
		cvx_load_note_log_end(sync, ts);
	if (tables != NIL)
	{
		sync->step.is_looking = true;
		njoined = cvx_catalog_add_tables(sub, tables, false);
		sync->step.is_looking = false;
	}
	if (is_put_off)
		cvx_state_want_check(sub->subid);
	if (sub->options.notifies && rows > 0)
		notify(sub, ts);
	cvx_step_commit(sync);

	/* A check under way has listed the tables before. */
	if (is_put_off)
		sync->check.from = 0;
	sync->pace.is_careful = false;
	sync->pace.is_caught_up = !has_more ||
		(sync->pace.head > 0 && ts >= sync->pace.head);
	has_aside = sub->state.is_check_due || is_put_off || njoined > 0 || sync->check.has_arrived ||
		cvx_step_has_load(sub, CVX_LOAD_WANTED) || cvx_step_has_load(sub, CVX_LOAD_WALKING) ||
		cvx_step_has_load(sub, CVX_LOAD_INDEXING);
	if (!sync->pace.is_caught_up && bound == PG_INT64_MAX && !has_aside && !was_careful)
	{
		sub->state.cursor = ts;
		sync->kept.is_fresh = true;
	}
	if (!sync->pace.is_caught_up || bound != PG_INT64_MAX ||
		(has_aside && sync->trouble.aside_retry_at <= GetCurrentTimestamp()))
		return sync->step.is_waiting ? CVX_STEP_IDLE : CVX_STEP_WORKED;
	return CVX_STEP_IDLE;
}

/* The tables whose rows stand at the cursor. */
static List *
followed_tables(const CvxSubscription *sub)
{
	List	   *rels = NIL;
	ListCell   *lc;

	foreach(lc, sub->rels)
	{
		CvxSubRel  *rel = lfirst(lc);

		if (rel->state == CVX_REL_READY || rel->state == CVX_REL_RESYNCING)
			rels = lappend(rels, rel);
	}
	return rels;
}

static void
notify(const CvxSubscription *sub, int64 ts)
{
	char	   *channel = psprintf("convex_%s", sub->name);

	channel[Min(strlen(channel), NAMEDATALEN - 1)] = '\0';
	Async_Notify(channel, psprintf(INT64_FORMAT, ts));
}

/*
 * The deployment's tables, when a page names one up to ts that nobody knows.  A
 * look that failed is put off: a check does it.
 */
static List *
look_for_tables(CvxSync *sync, const CvxPage *page, int64 ts, bool *is_put_off)
{
	List	   *unknown = unknown_tables(sync, page, ts);
	List	   *tables = NIL;

	*is_put_off = unknown != NIL && sync->pace.skips_look;
	sync->pace.skips_look = false;
	if (unknown == NIL || *is_put_off)
		return NIL;
	sync->step.is_looking = true;
	tables = cvx_check_find(sync, unknown);
	sync->step.is_looking = false;
	return tables;
}

/*
 * The tables, as component and name, that a page names up to ts and that are
 * not entered, or were dropped.
 */
static List *
unknown_tables(CvxSync *sync, const CvxPage *page, int64 ts)
{
	const CvxDoc *last = NULL;
	List	   *unknown = NIL;

	for (int i = 0; i < page->ndocs; i++)
	{
		const CvxDoc *doc = &page->docs[i];
		CvxTableName *name;
		bool		is_known = doc->ts > ts;
		ListCell   *lc;

		/* Documents of one table come together. */
		if (!is_known && last && last->table.len == doc->table.len &&
			last->component.len == doc->component.len &&
			memcmp(page->text + last->table.offset,
				   page->text + doc->table.offset, doc->table.len) == 0 &&
			memcmp(page->text + last->component.offset,
				   page->text + doc->component.offset, doc->component.len) == 0)
			continue;
		last = doc;
		foreach(lc, is_known ? NIL : sync->sub->rels)
		{
			CvxSubRel  *rel = lfirst(lc);

			is_known |= rel->state != CVX_REL_DROPPED &&
				cvx_step_is_doc_of(page, doc, rel);
		}
		if (is_known)
			continue;
		name = palloc(sizeof(CvxTableName));
		name->component = pnstrdup(page->text + doc->component.offset,
								   doc->component.len);
		name->table = pnstrdup(page->text + doc->table.offset, doc->table.len);
		unknown = lappend(unknown, name);
	}
	return unknown;
}
