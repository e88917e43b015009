/*
 * sub_load.c
 *		How does a table come in whole?
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
 * they are cut over, all at once or, where they are too many for the table of
 * locks, in portions, the last of which moves the cursor.  Reading and applying changes of a target
 * that had been broken is the same, but for the staging table.
 *
 * Nothing loaded is shown before it was compared with Convex at T, which is
 * at or after the head as it was when the load had ended (shown_from): a table
 * that was replaced in between differs, and is loaded again (check_loaded).
 *
 * Room: subscription 5.12
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/namespace.h"
#include "catalog/pg_namespace.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/syscache.h"

#include "ground/compat.h"
#include "ground/guard.h"
#include "subscription/sub_apply.h"
#include "subscription/sub_catalog.h"
#include "subscription/sub_events.h"
#include "subscription/sub_failure.h"
#include "subscription/sub_load.h"
#include "subscription/sub_state.h"
#include "subscription/sub_step.h"

/*
 * A walk that lost its snapshot is begun anew so often; tables beside others
 * that are followed then wait for long.
 */
#define MAX_LOAD_RESTARTS	1

/*
 * So many steps have to fail before a snapshot is suspected: short troubles of
 * the server are over by then.
 */
#define LOST_AFTER_FAILURES	5

/*
 * Between two loads of everything because the cursor is of no use; doubled for
 * each further one.
 */
#define RESTART_MS			60000

/* A page that does not follow the one before is asked for so often. */
#define MAX_BROKEN			2

/* The pause while another walk of the deployment goes on. */
#define WALK_RETRY_MS		1000

/* Checks at once after resyncs; then the interval has to pass. */
#define MAX_RECHECKS		3

/* What index_work() is told. */
typedef struct Indexing
{
	const CvxSubscription *sub;
	CvxSubRel  *rel;
} Indexing;

/* What cut_over_one() is told, and tells. */
typedef struct CutOver
{
	int64		ts;
	bool		fits;			/* false: the load begins anew */
} CutOver;

static Oid staging_intruder(void);
static void stage_one(CvxSync *sync, CvxSubRel *rel, void *arg);
static CvxStep begin_walk(CvxSync *sync);
static CvxStep walk_page(CvxSync *sync);
static void check_walk(CvxSync *sync, const CvxPage *page, int ntables);
static CvxStep distrust_walk(CvxSync *sync, List *walking);
static bool is_snapshot_lost(CvxSync *sync, CvxCall *call);
static CvxStep restart_walk(CvxSync *sync, const char *why);
static void index_work(void *arg);
static void index_one(CvxSync *sync, CvxSubRel *rel, void *arg);
static CvxStep index_tables(CvxSync *sync);
static bool is_to_be_indexed(const CvxSubscription *sub, const CvxSubRel *rel);
static void cut_over_one(CvxSync *sync, CvxSubRel *rel, void *arg);
static void begin_again(CvxSync *sync, List *rels, const char *why);
static bool is_alone(const CvxSubscription *sub);

/*
 * A staging table that is of no use is loaded again, and with it all that walk
 * together.  is_beginning: this process has just begun; none lives through a
 * crash.
 */
bool
cvx_load_mend_staging(CvxSubscription *sub, bool is_beginning)
{
	bool		is_mended = false;
	bool		is_foreign = OidIsValid(staging_intruder());
	const char *schema = NULL;
	bool		is_published = false;
	ListCell   *lc;

	foreach(lc, sub->rels)
	{
		CvxSubRel  *rel = lfirst(lc);
		bool		is_gone;
		const char *why;

		if (!rel->is_staged)
			continue;
		is_gone = is_foreign || !cvx_apply_has_staging(sub, rel);
		if (rel->load == CVX_LOAD_NONE && is_gone)
			cvx_state_unstage(sub, rel);
		if (schema == NULL || strcmp(schema, rel->target_schema) != 0)
			is_published = cvx_apply_is_published(schema = rel->target_schema);

		/* What the sweep is going to drop may be as it is. */
		if (rel->load == CVX_LOAD_NONE ||
			(rel->load == CVX_LOAD_WANTED && !rel->is_unused && !is_gone))
			continue;
		if (is_gone)
			why = "the staging table is gone";
		else if (is_published && cvx_apply_is_staging_logged(sub, rel))
			why = "a publication would send the rows of the staging table";
		else if (is_beginning && cvx_apply_is_staging_emptied(sub, rel))
			why = "the staging table is not logged, and empty";
		else
			continue;
		if (rel->load == CVX_LOAD_WALKING || is_alone(sub))
			cvx_state_abandon(sub, is_alone(sub), why);
		cvx_state_want(sub, rel, CVX_START_AGAIN, "resync", why);
		if (is_gone)
			cvx_state_unstage(sub, rel);
		else
			cvx_state_count(sub, rel, 1, NULL); /* the sweep is to take it */
		is_mended = true;
	}
	return is_mended;
}

/*
 * A crash, or a promotion, empties tables that are not logged: they are loaded
 * again.  One that was loaded without a row is compared only, since it is
 * probably empty because Convex has nothing; and only by a process that
 * begins, since none lives through a crash.
 */
bool
cvx_load_mend_unlogged(const CvxSubscription *sub, bool is_beginning)
{
	bool		is_mended = false;
	ListCell   *lc;

	foreach(lc, sub->rels)
	{
		CvxSubRel  *rel = lfirst(lc);

		if ((rel->state != CVX_REL_READY && rel->state != CVX_REL_RESYNCING) ||
			rel->load != CVX_LOAD_NONE || !cvx_apply_is_emptied(rel))
			continue;
		if (!rel->is_empty)
			cvx_state_want(sub, rel, CVX_START_NOW, "resync",
						   "the target is not logged, and empty");
		else if (is_beginning)
			cvx_state_check_anew(sub, rel);
		else
			continue;
		is_mended = true;
	}
	if (is_mended)
		cvx_state_want_check(sub->subid);
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

/*
 * Drop staging tables that are of no use any more, as many in a transaction as
 * the table of locks bears well.  False: there are none.
 */
bool
cvx_load_sweep(CvxSync *sync)
{
	CvxSubscription *sub = sync->sub;
	int			budget = cvx_step_lock_budget(sync);
	int			nlocks = 0;
	List	   *useless = NIL;
	ListCell   *lc;

	foreach(lc, sub->rels)
	{
		CvxSubRel  *rel = lfirst(lc);

		if (rel->is_staged &&
			(rel->load == CVX_LOAD_NONE ||
			 (rel->load == CVX_LOAD_WANTED && !rel->is_unused)))
			useless = lappend(useless, rel);
	}
	if (useless == NIL)
		return false;
	cvx_step_begin(sync);
	if (cvx_step_still_at(sync))
		foreach(lc, useless)
		{
			CvxSubRel  *rel = lfirst(lc);

			nlocks += cvx_apply_count_locks(sub, rel);
			if (nlocks > budget && rel != linitial(useless))
				break;
			cvx_catalog_drop_staging(sub, rel);
			cvx_state_unstage(sub, rel);
		}
	cvx_step_commit(sync);
	return true;
}

/* The next step of a load; *is_done is false when there is none. */
CvxStep
cvx_load_next(CvxSync *sync, bool *is_done)
{
	CvxSubscription *sub = sync->sub;
	ListCell   *lc;

	*is_done = true;
	foreach(lc, sub->rels)
		if (is_to_be_indexed(sub, lfirst(lc)))
			return index_tables(sync);

	/* Tables of a reload are cut over before others begin to walk. */
	if (cvx_step_has_load(sub, CVX_LOAD_WALKING) ||
		(cvx_step_has_load(sub, CVX_LOAD_WANTED) &&
		 !(is_alone(sub) &&
		   cvx_step_has_load(sub, CVX_LOAD_CATCHING_UP))))
	{
		if (!cvx_step_take_walk_lock(sync))
		{
			*is_done = is_alone(sub);
			sync->step.is_waiting = true;
			sync->trouble.next_attempt = TimestampTzPlusMilliseconds(GetCurrentTimestamp(),
															 WALK_RETRY_MS);
			return CVX_STEP_IDLE;
		}
		return cvx_step_has_load(sub, CVX_LOAD_WALKING) ? walk_page(sync) :
			begin_walk(sync);
	}
	cvx_step_release_walk_lock(sync);
	*is_done = false;
	return CVX_STEP_WORKED;
}

static void
stage_one(CvxSync *sync, CvxSubRel *rel, void *arg)
{
	cvx_apply_create_staging(sync->sub, rel);
}

/*
 * All tables that are wanted now walk together.  Their staging tables are made
 * first, as many in a transaction as the table of locks bears well.
 */
static CvxStep
begin_walk(CvxSync *sync)
{
	CvxSubscription *sub = sync->sub;
	int			budget = cvx_step_lock_budget(sync);
	int			nlocks = 0;
	bool		is_staging = false;
	Oid			intruder;
	ListCell   *lc;

	cvx_step_begin(sync);
	if (!cvx_step_still_at(sync))
	{
		cvx_step_commit(sync);
		return CVX_STEP_WORKED;
	}
	intruder = staging_intruder();
	if (OidIsValid(intruder))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("schema \"convex_staging\" belongs to role \"%s\", which is not a superuser",
						GetUserNameFromId(intruder, true)),
				 errhint("Drop the schema; it is made again when it is needed.")));
	foreach(lc, sub->rels)
	{
		CvxSubRel  *rel = lfirst(lc);

		if (rel->load != CVX_LOAD_WANTED || !rel->is_retry_due || rel->is_staged)
			continue;
		nlocks += cvx_apply_count_locks(sub, rel);
		if (nlocks > budget && is_staging)
		{
			cvx_step_commit(sync);
			return CVX_STEP_WORKED;
		}
		is_staging = true;
		(void) cvx_step_guarded(sync, rel, 0, stage_one, NULL);
	}
	cvx_state_begin_walk(sub);
	cvx_step_commit(sync);
	sync->pace.is_careful = false;
	return CVX_STEP_WORKED;
}

/* One page of the walk, into the staging table of its table. */
static CvxStep
walk_page(CvxSync *sync)
{
	CvxSubscription *sub = sync->sub;
	List	   *walking = NIL;
	CvxPageRequest request;
	CvxPageAnswer received;
	CvxPage    *page;
	CvxBatchDocs *batches;
	char	   *tablet;
	ListCell   *lc;

	foreach(lc, sub->rels)
		if (((CvxSubRel *) lfirst(lc))->load == CVX_LOAD_WALKING)
			walking = lappend(walking, lfirst(lc));
	if (sub->state.snapshot != 0 && sync->walk && sync->walk->nbroken >= MAX_BROKEN)
		return distrust_walk(sync, walking);
	request = cvx_step_make_request(sync, false, sub->state.snapshot, sub->state.page_cursor,
									walking, false);
	received = cvx_step_receive(sync, &request);
	if (sub->state.snapshot != 0 && is_snapshot_lost(sync, received.call))
		return restart_walk(sync, "Convex no longer serves the snapshot");
	if (sub->state.snapshot != 0)
		cvx_step_prefetch_after(sync, received.call, false, walking, false);
	page = cvx_step_read_page(sync, received, &request);
	check_walk(sync, page, list_length(walking));
	if (page->has_more)
	{
		CvxPageRequest next = cvx_step_make_request(sync, false, page->ts, page->cursor,
														 walking, false);

		cvx_step_prefetch(sync, &next);
	}

	cvx_step_begin(sync);
	if (!cvx_step_still_at(sync) || cvx_load_mend_staging(sub, false))
	{
		cvx_step_commit(sync);
		return CVX_STEP_WORKED;
	}
	cvx_step_group_docs(sync, page, PG_INT64_MAX, walking, &batches);
	tablet = cvx_step_tablet_of_last(page);
	foreach(lc, walking)
	{
		CvxSubRel  *rel = lfirst(lc);
		CvxBatchDocs *docs = &batches[foreach_current_index(lc)];

		if (docs->ndocs == 0)
			continue;
		cvx_apply_load(sub, rel, docs);
		cvx_state_count(sub, rel, docs->ndocs,
						cvx_step_is_doc_of(page, &page->docs[page->ndocs - 1], rel) ? tablet : NULL);
	}
	cvx_state_walk_on(sub, page, &sync->link.stats);
	cvx_step_forget_costs(sync);
	cvx_step_commit(sync);
	sync->pace.was_walk = true;
	if (page->has_more)
	{
		sub->state.snapshot = page->ts;
		sub->state.page_cursor = MemoryContextStrdup(sync->kept.cxt, page->cursor);
		sync->kept.is_fresh = true;
	}
	return CVX_STEP_WORKED;
}

/* Does the page follow those that this process has seen of the walk? */
static void
check_walk(CvxSync *sync, const CvxPage *page, int ntables)
{
	CvxSubscription *sub = sync->sub;
	MemoryContext old = MemoryContextSwitchTo(sync->cxt);

	if (sync->walk == NULL)
		sync->walk = cvx_walk_open(NULL, 0);
	sync->walk->server = sub->server;
	sync->walk->ntables = ntables;
	cvx_walk_resume(sync->walk, sub->state.snapshot, sub->state.page_cursor);
	MemoryContextSwitchTo(old);
	cvx_walk_check(sync->walk, page);
}

/*
 * Neither the page that should be next nor those that are loaded can be trusted
 * when they do not fit together for long: begin anew.
 */
static CvxStep
distrust_walk(CvxSync *sync, List *walking)
{
	ListCell   *lc;

	sync->walk->nbroken = 0;
	cvx_step_begin(sync);
	if (cvx_step_still_at(sync))
		foreach(lc, walking)
			cvx_state_want(sync->sub, lfirst(lc), CVX_START_AGAIN, "resync",
						   "pages of the walk did not follow each other");
	cvx_step_commit(sync);
	cvx_step_release_walk_lock(sync);
	return CVX_STEP_WORKED;
}

/*
 * Is it the snapshot, or the cursor, that keeps a page from being read?  Convex
 * may say so; or it fails on and on, while it answers for a fresh snapshot.
 */
static bool
is_snapshot_lost(CvxSync *sync, CvxCall *call)
{
	if (cvx_step_is_snapshot_gone(call))
		return true;
	if (sync->sub->state.failures < LOST_AFTER_FAILURES ||
		!(cvx_api_has_code(call, 503, "InternalServerError") ||
		  cvx_api_has_code(call, 500, "InternalServerError")))
		return false;
	(void) cvx_api_fresh_snapshot(sync->link.http);
	return true;
}

/* Begin the walk anew, once; then say that the load cannot keep up. */
static CvxStep
restart_walk(CvxSync *sync, const char *why)
{
	CvxSubscription *sub = sync->sub;
	ListCell   *lc;
	bool		is_aside = !is_alone(sub);
	bool		gives_up = sub->state.load_restarts >= MAX_LOAD_RESTARTS;
	char	   *detail;

	cvx_step_begin(sync);
	cvx_catalog_run(SPI_OK_SELECT,
					"SELECT format('%s: %s pages, %s rows in %s s', $2, load_pages,"
					" (SELECT sum(copied_rows) FROM @.convex_subscription_rel AS r WHERE r.subid = $1 AND load = 'walking'),"
					" extract(epoch FROM clock_timestamp() - load_started_at)::bigint)"
					" FROM @.convex_subscription_state WHERE subid = $1", "it",
					sub->subid, why);
	detail = SPI_processed == 1 ? cvx_catalog_text(0, 1) : pstrdup(why);
	foreach(lc, sub->rels)
		if (((CvxSubRel *) lfirst(lc))->load == CVX_LOAD_WALKING)
			cvx_state_want(sub, lfirst(lc), is_aside && gives_up ? CVX_START_LATER :
						   CVX_START_NOW, NULL, detail);
	cvx_catalog_event(sub->subid, gives_up ? "load_too_slow" : "load_restarted",
					  NULL, detail);
	cvx_failure_note_loss(sub, why);
	cvx_state_restart(sub, is_aside, gives_up);
	cvx_step_commit(sync);
	cvx_step_release_walk_lock(sync);
	return CVX_STEP_WORKED;
}

static void
index_work(void *arg)
{
	Indexing   *indexing = arg;

	cvx_apply_index(indexing->sub, indexing->rel);
}

/*
 * False (*arg) when a document is there twice: a page was answered twice, and a
 * new process took over in between, which could not see it.
 */
static void
index_one(CvxSync *sync, CvxSubRel *rel, void *arg)
{
	Indexing	indexing = {sync->sub, rel};
	ErrorData  *error = cvx_guard(index_work, &indexing);

	*(bool *) arg = error == NULL;
	if (error && error->sqlerrcode != ERRCODE_UNIQUE_VIOLATION)
		ReThrowError(error);
}

/*
 * Give one loaded table its key.  One for which that fails waits alone; in a
 * load of everything until the others are visible.
 */
static CvxStep
index_tables(CvxSync *sync)
{
	CvxSubscription *sub = sync->sub;
	bool		is_unique = true;
	ListCell   *lc;

	cvx_step_release_walk_lock(sync);
	foreach(lc, sub->rels)
	{
		CvxSubRel  *rel = lfirst(lc);

		if (!is_to_be_indexed(sub, rel))
			continue;
		cvx_step_begin(sync);
		if (cvx_step_still_at(sync) &&
			cvx_step_guarded(sync, rel, 0, index_one, &is_unique))
		{
			if (!is_unique)
			{
				cvx_state_want(sub, rel, CVX_START_NOW, "resync",
							   "the walk gave a document twice");
				cvx_step_commit(sync);
				ereport(ERROR,
						(errcode(ERRCODE_FDW_UNABLE_TO_CREATE_REPLY),
						 errmsg("Convex server \"%s\" sent documents of table \"%s\" twice",
								sub->server, rel->table),
						 errdetail("The table is loaded again."),
						 errhint("A proxy may be returning a cached answer.")));
			}
			cvx_state_catch_up(sub, rel);
		}
		cvx_step_commit(sync);
		sync->pace.is_careful = false;
		sync->step.is_productive = true;
		return CVX_STEP_WORKED;
	}
	return CVX_STEP_WORKED;
}

static bool
is_to_be_indexed(const CvxSubscription *sub, const CvxSubRel *rel)
{
	return rel->load == CVX_LOAD_INDEXING && rel->is_retry_due &&
		!(rel->state == CVX_REL_ERROR &&
		  is_alone(sub));
}

static void
cut_over_one(CvxSync *sync, CvxSubRel *rel, void *arg)
{
	CutOver    *cut_over = arg;

	cut_over->fits = cvx_apply_fits(sync->sub, rel) &&
		cvx_apply_cutover(sync->sub, rel, cut_over->ts);
	if (!cut_over->fits)
		cvx_state_want(sync->sub, rel, CVX_START_AGAIN, "resync",
					   "the columns of its target are not those of when the load began");
}

/*
 * Those of the loaded tables that one transaction can make visible without
 * taking too much of the table of locks; at least one.  Within a transaction.
 */
List *
cvx_load_portion(CvxSync *sync, List *rels)
{
	int			budget = cvx_step_lock_budget(sync);
	int			nlocks = 0;
	List	   *portion = NIL;
	ListCell   *lc;

	foreach(lc, rels)
	{
		nlocks += cvx_apply_count_locks(sync->sub, lfirst(lc));
		if (nlocks > budget && portion != NIL)
			break;
		portion = lappend(portion, lfirst(lc));
	}
	return portion;
}

/*
 * Is this table of a load of everything visible as it was at the load's
 * timestamp, before all are?
 */
bool
cvx_load_is_shown(const CvxSubscription *sub, const CvxSubRel *rel)
{
	return is_alone(sub) && !rel->is_staged &&
		rel->load == CVX_LOAD_CATCHING_UP && rel->state != CVX_REL_ERROR;
}

/*
 * Make loaded tables visible, as they were at ts, which is or becomes the
 * common cursor; all of them in one transaction.  Where everything is loaded
 * and is too much for that, portions become visible one after the other, each
 * table standing at ts by itself, until the last moves the cursor and makes
 * all of them ready.
 */
CvxStep
cvx_load_cut_over(CvxSync *sync, List *rels, int64 ts)
{
	CvxSubscription *sub = sync->sub;
	bool		is_first = is_alone(sub);
	bool		is_part = false;
	bool		is_last;
	ListCell   *lc;

	foreach(lc, is_first ? sub->rels : NIL)
	{
		CvxSubRel  *rel = lfirst(lc);

		is_part |= rel->load == CVX_LOAD_CATCHING_UP && rel->is_staged &&
			rel->state != CVX_REL_ERROR && !list_member_ptr(rels, rel);
	}
	cvx_step_begin(sync);
	if (!cvx_step_still_at(sync))
	{
		cvx_step_commit(sync);
		return CVX_STEP_WORKED;
	}
	foreach(lc, rels)
	{
		CvxSubRel  *rel = lfirst(lc);

		CutOver		cut_over = {ts};

		if (rel->is_staged &&
			(!cvx_step_guarded(sync, rel, 0, cut_over_one, &cut_over) ||
			 !cut_over.fits))
			continue;
		if (is_part)
			cvx_state_unstage(sub, rel);
		else
			cvx_state_ready(sub, rel, ts);
	}
	if (is_part)
	{
		cvx_step_commit(sync);
		sync->step.is_productive = true;
		sync->pace.is_careful = false;
		return CVX_STEP_WORKED;
	}
	foreach(lc, sub->rels)
		if (cvx_load_is_shown(sub, lfirst(lc)) && !list_member_ptr(rels, lfirst(lc)))
			cvx_state_ready(sub, lfirst(lc), ts);

	is_last = is_first || sync->check.nrechecks++ >= MAX_RECHECKS;
	cvx_state_end_loads(sub, is_first, !is_last);
	if (is_first)
		cvx_step_advance(sync, ts, true, 0);
	cvx_step_commit(sync);

	/* A check under way may have passed these tables by. */
	if (!is_last)
		sync->check.from = 0;
	sync->step.is_productive = true;
	sync->pace.is_careful = false;
	return CVX_STEP_WORKED;
}

/*
 * Changes of loaded tables alone, up to the common cursor at most if there is
 * a good one.
 */
CvxStep
cvx_load_catch_up(CvxSync *sync, List *rels)
{
	CvxSubscription *sub = sync->sub;
	CvxSubRel  *first = linitial(rels);
	CvxPageRequest request = cvx_step_make_request(sync, true, first->synced_ts, NULL, rels, false);
	CvxPageAnswer received = cvx_step_receive(sync, &request);
	CvxPage    *page;
	int64		bound = is_alone(sub) ? PG_INT64_MAX : sub->state.cursor;
	int64		ts;
	int64		rows;
	ListCell   *lc;

	if (cvx_api_has_code(received.call, 400, "InvalidWindowToReadDocuments"))
	{
		begin_again(sync, rels, "Convex no longer keeps the changes since the table's load");
		return CVX_STEP_WORKED;
	}
	page = cvx_step_read_page(sync, received, &request);
	cvx_log_begin(&sync->own_log, sub->server, first->synced_ts);
	if (!cvx_log_check(&sync->own_log, page))
		return cvx_load_behind(sync, &sync->own_log, page);
	ts = cvx_step_cut(sync, page, Min(page->ts, bound));
	if (page->has_more && ts == page->ts && ts < bound)
	{
		CvxPageRequest next = cvx_step_make_request(sync, true, ts, NULL, rels, false);

		cvx_step_prefetch(sync, &next);
	}

	cvx_step_begin(sync);
	if (!cvx_step_still_at(sync) || cvx_load_mend_staging(sub, false))
	{
		cvx_step_commit(sync);
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
			cvx_step_commit(sync);
			return CVX_STEP_WORKED;
		}
	}
	rows = cvx_step_apply_tables(sync, rels, page, ts, first->is_staged);
	cvx_state_catch_up_to(sub, rels, ts, rows, &sync->link.stats);
	if (!page->has_more && ts == page->ts && is_alone(sub))
		cvx_load_note_log_end(sync, ts);
	cvx_step_forget_costs(sync);
	cvx_step_commit(sync);
	sync->pace.is_careful = false;
	return CVX_STEP_WORKED;
}

/* The head, once the loads have ended: what is loaded is not shown before. */
CvxStep
cvx_load_ask_shown_from(CvxSync *sync)
{
	int64		head = cvx_step_ask_head(sync);

	cvx_step_begin(sync);
	if (cvx_step_still_at(sync))
		cvx_state_show_from(sync->sub, head);
	cvx_step_commit(sync);
	return CVX_STEP_WORKED;
}

/* The end of the log will do, wherever the head was said to be. */
void
cvx_load_note_log_end(CvxSync *sync, int64 ts)
{
	sync->check.from = Min(sync->check.from, ts);
	if (sync->sub->state.shown_from > ts)
		cvx_state_show_from(sync->sub, ts);
}

/* Load tables again that cannot catch up; not for ever. */
static void
begin_again(CvxSync *sync, List *rels, const char *why)
{
	CvxSubscription *sub = sync->sub;
	bool		is_aside = !is_alone(sub);
	bool		gives_up = sub->state.load_restarts >= MAX_LOAD_RESTARTS;
	ListCell   *lc;

	cvx_step_begin(sync);
	if (cvx_step_still_at(sync))
	{
		foreach(lc, rels)
			cvx_state_want(sub, lfirst(lc), is_aside && gives_up ? CVX_START_LATER :
						   CVX_START_NOW, gives_up ? "load_too_slow" : "resync", why);
		cvx_failure_note_loss(sub, why);
		cvx_state_restart(sub, is_aside, gives_up);
	}
	cvx_step_commit(sync);
}

/*
 * The log ends before the cursor, which is another deployment's, or of one that
 * was restored since.  A server whose log lies behind what it has just told
 * does not get everything loaded again each time: the next load has to wait,
 * and until then this is a failure.
 */
CvxStep
cvx_load_behind(CvxSync *sync, const CvxLog *log, const CvxPage *page)
{
	if (!cvx_load_may_restart(sync))
		cvx_log_fail_behind(log, page);
	return cvx_load_everything(sync, "the cursor is ahead of the server");
}

/*
 * May everything be loaded again now?  Not soon after the last time, whose
 * cursor was of no use: then the caller fails.
 */
bool
cvx_load_may_restart(CvxSync *sync)
{
	TimestampTz now = GetCurrentTimestamp();

	if (sync->trouble.nrestarts > 0 &&
		!TimestampDifferenceExceeds(sync->trouble.restarted_at, now,
									RESTART_MS << Min(sync->trouble.nrestarts - 1, 6)))
		return false;
	sync->trouble.nrestarts++;
	sync->trouble.restarted_at = now;
	return true;
}

/* The cursor is of no use: load everything again, beside the old rows. */
CvxStep
cvx_load_everything(CvxSync *sync, const char *why)
{
	CvxSubscription *sub = sync->sub;

	cvx_step_forget_ahead(sync);
	cvx_step_begin(sync);
	if (cvx_step_still_at(sync))
	{
		cvx_state_want_everything(sub, cvx_http_remote(sync->link.http)->base_url, why);
		cvx_failure_note_loss(sub, why);
	}
	cvx_step_commit(sync);
	return CVX_STEP_WORKED;
}

/* Are no tables followed meanwhile, since the cursor is of no use yet? */
static bool
is_alone(const CvxSubscription *sub)
{
	return sub->state.cursor == 0 || sub->state.is_reloading;
}
