/*
 * sub_check.c
 *		Is a table what Convex has?
 *
 * Imports, restores and cleared tables leave no trace in the change log.  So
 * a page of ids of each table is compared with the mirror now and then, and
 * with what was loaded before it becomes visible.
 *
 * Room: subscription 5.13
 */
#include "postgres.h"

#include "executor/spi.h"
#include "utils/builtins.h"

#include "ground/compat.h"
#include "protocol/inventory.h"
#include "protocol/schema.h"
#include "subscription/sub_apply.h"
#include "subscription/sub_catalog.h"
#include "subscription/sub_check.h"
#include "subscription/sub_events.h"
#include "subscription/sub_load.h"
#include "subscription/sub_state.h"
#include "subscription/sub_step.h"
#include "subscription/sub_tables.h"

/* How long a check may keep changes waiting. */
#define CHECK_SLICE_MS		1000

static bool begin_check(CvxSync *sync);
static bool is_unchanged(CvxSync *sync, CvxSubRel *rel, bool is_loaded);
static bool is_asked_for(CvxSync *sync);
static CvxPage *receive_ids(CvxSync *sync, CvxSubRel *rel, int64 ts,
							bool is_loaded);
static bool check_table(CvxSync *sync, CvxSubRel *rel, int64 ts,
						bool is_loaded);

/*
 * Is a check due?  Then check_from is the timestamp that it has to be made at:
 * before that what it was wanted for may not have happened.
 */
bool
cvx_check_is_pending(CvxSync *sync)
{
	CvxSubscription *sub = sync->sub;

	if (!sub->state.is_check_due)
	{
		sync->check.from = 0;
		sync->check.relno = 0;
		return false;
	}
	if (sync->check.from != 0 && sync->check.generation == sub->state.generation)
		return true;
	cvx_step_begin(sync);
	cvx_catalog_run(SPI_OK_SELECT,
					"SELECT max(eventid) FROM @.convex_subscription_event"
					" WHERE subid = $1 AND kind = 'swap_announced'", "i", sub->subid);
	sync->check.event = cvx_catalog_int64(0, 1);
	cvx_step_commit(sync);
	sync->check.generation = sub->state.generation;
	sync->check.relno = 0;
	sync->check.from = cvx_step_ask_head(sync);
	return true;
}

/*
 * Compare the tables that are followed with Convex, at the cursor.  Where they
 * are many, pages of changes come in between.
 */
CvxStep
cvx_check_tables(CvxSync *sync)
{
	CvxSubscription *sub = sync->sub;
	TimestampTz begun;
	ListCell   *lc;

	if (sync->check.relno == 0 && !begin_check(sync))
		return CVX_STEP_WORKED;
	begun = GetCurrentTimestamp();
	foreach(lc, sub->rels)
	{
		CvxSubRel  *rel = lfirst(lc);

		if (rel->state != CVX_REL_READY || rel->relno <= sync->check.relno)
			continue;
		if (TimestampDifferenceExceeds(begun, GetCurrentTimestamp(),
									   CHECK_SLICE_MS))
		{
			sync->pace.was_check = true;
			return CVX_STEP_WORKED;
		}
		sync->check.found |= !check_table(sync, rel, sub->state.cursor, false);
		sync->check.relno = rel->relno;
	}
	if (!sync->check.found)
		sync->check.nrechecks = 0;
	sync->check.from = 0;
	sync->check.relno = 0;
	cvx_step_begin(sync);
	if (cvx_step_still_at(sync))
		cvx_state_end_check(sub->subid);
	cvx_step_commit(sync);
	sync->step.is_productive = true;
	return CVX_STEP_WORKED;
}

/* Compare the names of the tables; false when there is nothing to go on with. */
static bool
begin_check(CvxSync *sync)
{
	CvxSubscription *sub = sync->sub;
	List	   *tables = cvx_inventory(sync->link.http);

	cvx_step_begin(sync);
	if (!cvx_step_still_at(sync))
	{
		cvx_step_commit(sync);
		return false;
	}
	(void) cvx_catalog_add_tables(sub, tables, false);

	/* What has been announced since asks for another check. */
	cvx_catalog_run(0,
					"UPDATE @.convex_subscription_event SET kind = 'swap_seen'"
					" WHERE subid = $1 AND kind = 'swap_announced' AND eventid <= $2",
					"il", sub->subid, sync->check.event);
	cvx_state_want_check(sub->subid);
	cvx_catalog_trim_events(sub->subid);
	cvx_step_commit(sync);
	sync->check.found = false;
	return true;
}

/*
 * The deployment's tables, if it lists one of these, named as CvxTableName;
 * otherwise none: what the change log names is not always listed, as the rows
 * of an import under way and those of tables that were dropped since.
 */
List *
cvx_check_find(CvxSync *sync, List *names)
{
	List	   *tables = cvx_inventory_names(sync->link.http);
	ListCell   *lc;

	foreach(lc, names)
	{
		CvxTableName *name = lfirst(lc);

		if (cvx_schema_find(tables, name->component, name->table) != NULL)
			return cvx_inventory(sync->link.http);
	}
	return NIL;
}

/*
 * Compare loaded tables, which stand at ts, with Convex, and cut those over
 * that are equal.  One that Convex no longer lists does not appear.
 */
CvxStep
cvx_check_loaded(CvxSync *sync, List *rels, int64 ts)
{
	CvxSubscription *sub = sync->sub;
	List	   *tables;
	List	   *good = NIL;
	ListCell   *lc;

	tables = cvx_inventory(sync->link.http);
	cvx_step_begin(sync);
	if (!cvx_step_still_at(sync))
	{
		cvx_step_commit(sync);
		return CVX_STEP_WORKED;
	}
	(void) cvx_catalog_add_tables(sub, tables, false);
	rels = cvx_load_portion(sync, rels);
	cvx_step_commit(sync);
	foreach(lc, rels)
	{
		CvxSubRel  *rel = lfirst(lc);

		if (rel->state != CVX_REL_DROPPED && check_table(sync, rel, ts, true))
			good = lappend(good, rel);
	}
	return good != NIL ? cvx_load_cut_over(sync, good, ts) : CVX_STEP_WORKED;
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
 * Has the check been asked for, by somebody or by the changes?  Then others
 * wait until it has passed.
 */
static bool
is_asked_for(CvxSync *sync)
{
	bool		result;

	cvx_step_begin(sync);
	cvx_catalog_run(SPI_OK_SELECT,
					"SELECT check_wanted FROM @.convex_subscription_state WHERE subid = $1",
					"i", sync->subid);
	result = SPI_processed == 1 && cvx_catalog_bool(0, 1);
	cvx_step_commit(sync);
	return result;
}

/*
 * The next page of _ids at ts that has any, or the last one; NULL when Convex
 * no longer serves it, unless that is the failure of a check that others wait
 * for.
 */
static CvxPage *
receive_ids(CvxSync *sync, CvxSubRel *rel, int64 ts, bool is_loaded)
{
	static const char *const id_only[] = {"_id"};
	CvxWalk    *walk = cvx_walk_open(sync->sub->server, 1);
	const char *cursor = rel->check.cursor;
	CvxPage    *page;

	cvx_walk_resume(walk, ts, cursor);
	if (cursor && rel->check.id)
		cvx_walk_enter(walk, rel->component, rel->table, rel->check.id);
	do
	{
		CvxPageRequest request = cvx_step_make_request(sync, false, ts, cursor,
														list_make1(rel), false);
		CvxPageAnswer received;

		request.selection.is_whole = false;
		request.selection.fields = id_only;
		request.selection.nfields = 1;
		request.key = psprintf("check %s", request.key);
		received = cvx_step_receive(sync, &request);
		if (cvx_step_is_snapshot_gone(received.call) &&
			(rel->check.cursor || is_loaded || !is_asked_for(sync)))
			return NULL;
		page = cvx_step_read_page(sync, received, &request);
		cvx_walk_check(walk, page);
		cursor = page->has_more ? pstrdup(page->cursor) : NULL;
	} while (page->has_more && page->ndocs == 0);
	cvx_walk_close(walk);
	return page;
}

/*
 * Compare a page of _ids at ts with the mirror, or with a loaded table's
 * staging.  When they differ, the table was replaced behind the change log and
 * is loaded again: false.
 *
 * A page that goes on where the one before ended proves that the table is the
 * same only when its cursor names the tablet.  The last one names none, and of
 * another tablet it may be just the rows that were added since: then the first
 * page is compared, too.
 */
static bool
check_table(CvxSync *sync, CvxSubRel *rel, int64 ts, bool is_loaded)
{
	CvxSubscription *sub = sync->sub;
	CvxPage    *page = receive_ids(sync, rel, ts, is_loaded);
	char	   *tablet;
	char	   *last = NULL;
	char	   *problem = NULL;
	bool		is_proof;

	if (page == NULL)
	{
		if (rel->check.cursor)
		{
			/* It may be the cursor that is refused. */
			rel->check.cursor = NULL;
			return check_table(sync, rel, ts, is_loaded);
		}

		/* Never to be had again: another check comes later. */
		cvx_step_begin(sync);
		if (cvx_step_still_at(sync) && is_unchanged(sync, rel, is_loaded))
		{
			cvx_state_check_anew(sub, rel);
			cvx_catalog_event(sub->subid, "check_skipped", rel,
							  "Convex no longer serves the timestamp");
		}
		cvx_step_commit(sync);
		return true;
	}
	is_proof = rel->check.cursor == NULL || page->has_more;
	tablet = page->cursor ? cvx_step_tablet_of(page->cursor) : NULL;
	if (page->ndocs > 0)
		last = pnstrdup(page->text + page->docs[page->ndocs - 1].id.offset,
						page->docs[page->ndocs - 1].id.len);

	cvx_step_begin(sync);
	if (cvx_step_still_at(sync) && is_unchanged(sync, rel, is_loaded))
	{
		if (tablet && rel->check.tablet && strcmp(tablet, rel->check.tablet) != 0)
			problem = "its tablet is another one";
		else
			problem = cvx_apply_compare(sub, rel, is_loaded, page,
										rel->check.cursor ? rel->check.id : NULL,
										page->has_more ? last : NULL);
		if (problem)
			cvx_state_want(sub, rel, is_loaded ? CVX_START_AGAIN : CVX_START_NOW,
						   "table_replaced", problem);
		else
			cvx_state_checked(sub, rel, page->has_more ? page->cursor : NULL,
							  page->has_more ? last : NULL, tablet);
	}
	cvx_step_commit(sync);
	if (problem == NULL && !is_proof)
	{
		rel->check.cursor = NULL;
		return check_table(sync, rel, ts, is_loaded);
	}
	return problem == NULL;
}
