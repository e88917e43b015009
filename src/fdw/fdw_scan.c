/*
 * fdw_scan.c
 *		Which row comes next, from which one snapshot?
 *
 * Invariants:
 *	1. Nothing is sent before the first row is asked for.
 *	2. All pages of a scan, and all scans under one PostgreSQL snapshot, carry
 *	   the same Convex snapshot; an answer with another one is an error, and so
 *	   is a page that does not follow the one before (walk.c).
 *	3. At most two pages are in memory: the one being converted and the one
 *	   being downloaded.
 *	4. A scan that may be rescanned keeps its rows: a rescan sends nothing.
 *
 * Memory: scan > page (two, in turn) > row.
 *
 * Room: fdw 5.4
 */
#include "postgres.h"

#include "commands/defrem.h"
#include "executor/executor.h"
#include "executor/execAsync.h"
#include "lib/ilist.h"
#include "miscadmin.h"
#include "nodes/execnodes.h"
#include "storage/latch.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "ground/compat.h"
#include "ground/spool.h"
#include "protocol/schema.h"
#include "protocol/walk.h"
#include "shape/document.h"
#include "shape/options.h"
#include "shape/rowmap.h"
#include "fdw/fdw_own.h"
#include "fdw/fdw_plan.h"
#include "fdw/fdw_scan.h"
#include "fdw/fdw_snapshot.h"

/* A download goes on each time this much text has been converted. */
#define PUMP_BYTES	65536

struct CvxScan
{
	/* fixed at open */
	Oid			serverid;
	Oid			userid;
	Relation	rel;
	Bitmapset  *attnums;		/* of the needed columns; NULL: all */
	Snapshot	pg;				/* the executor's */
	int64		pinned;			/* convex_fdw.snapshot at its start, or 0 */
	CvxTableOptions *options;
	CvxTableName table;
	CvxRowMap  *map;
	int64		bound;			/* rows that will be asked for; -1 unknown */
	bool		may_rescan;
	EState	   *estate;			/* of the executor; NULL: ANALYZE */
	Index		relid;			/* in its range table */
	bool		is_target;		/* of UPDATE or DELETE */

	/* from the first row on */
	bool		is_prepared;
	CvxOwn	   *own;			/* what pending writes make of it; or NULL */
	StringInfoData own_doc;

	/* from the first request on */
	CvxHttp    *http;
	CvxSnapshot *asked;			/* set while our answer will tell it */
	int64		ts;				/* 0 until known */
	CvxSelection selection;
	CvxPageWant want;
	CvxWalk    *walk;			/* NULL before the first page */

	/* per page */
	CvxPage    *page;			/* being converted, or NULL */
	int			next_row;
	uint32		pumped_to;		/* offset in the page's text */
	CvxCall    *call;			/* the next page's, or NULL */
	char	   *cursor;			/* that call's cursor */
	bool		is_last;		/* no page follows the present one */
	int64		nrows;			/* given out since the last restart */
	int64		npages;			/* received since the last restart */

	/* kept rows */
	Tuplestorestate *kept;
	TupleTableSlot *kept_slot;

	/* rows of a target, for those who change them */
	CvxSpool   *targets;
	int64		ntargets;
	int64		target_at;		/* the record of the row given out last */
	int64		next_kept_at;	/* that of the next kept row */

	/* asynchronous execution */
	AsyncRequest *areq;			/* NULL until the first one */
	bool		is_watched;		/* the descriptor is in the set for us */
	dlist_node	node;			/* in open_scans */
	bool		is_open;

	/* counters for EXPLAIN */
	CvxHttpStats stats;
	int64		total_pages;
	int64		total_documents;

	/* memory */
	MemoryContext cxt;
	MemoryContext page_cxt[2];
	int			current_cxt;	/* that of page */
	MemoryContext row_cxt;
	MemoryContextCallback callback;
	CvxErrorPlace place;
};

/* How many bits of an offset in the targets' spool a ctid's number holds. */
#define TARGET_BITS		15

/* Scans of this backend that are open; scans add and remove themselves. */
static dlist_head open_scans = DLIST_STATIC_INIT(open_scans);

static void forget_scan(void *arg);
static bool fetch_row(CvxScan *scan, bool may_wait, bool *is_pending,
					  Datum *values, bool *nulls);
static void prepare(CvxScan *scan);
static void create_map(CvxScan *scan, List *extra_fields);
static bool advance(CvxScan *scan, bool may_wait, bool *is_pending);
static void take_row(CvxScan *scan, const CvxPage *page, int row,
					 Datum *values, bool *nulls);
static void take_own_row(CvxScan *scan, Datum *values, bool *nulls);
static void note_target(CvxScan *scan, const CvxPage *page, int row);
static void set_target(CvxScan *scan, TupleTableSlot *slot, int64 at);
static void connect_scan(CvxScan *scan);
static void fix_snapshot(CvxScan *scan);
static void start_page(CvxScan *scan);
static void begin_walk(CvxScan *scan);
static void receive_page(CvxScan *scan);
static void fail_too_new(CvxScan *scan);
static void check_table_exists(CvxScan *scan);
static void keep_downloading(CvxScan *scan);
static void restart(CvxScan *scan);
static void forget_question(CvxScan *scan);
static TupleTableSlot *next_slot(ForeignScanState *node, bool may_wait,
								 bool *is_pending);
static void answer_request(AsyncRequest *areq);
static bool has_news(CvxScan *scan);
static bool is_walking(const CvxScan *scan);
static bool is_watched(const CvxScan *scan);
static bool any_neighbour(const CvxScan *scan, bool (*holds) (const CvxScan *));

/*
 * Begin to read a foreign table as a role, with the columns of these numbers
 * (NULL: all).  Lives in a child of the current context.  Sends nothing.
 */
CvxScan *
cvx_scan_open(Relation rel, Oid userid, Bitmapset *attnums, Snapshot pg)
{
	MemoryContext cxt = AllocSetContextCreate(CurrentMemoryContext,
											  "convex scan",
											  ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(cxt);
	CvxScan    *scan = palloc0(sizeof(CvxScan));

	scan->cxt = cxt;
	scan->callback.func = forget_scan;
	scan->callback.arg = scan;
	MemoryContextRegisterResetCallback(cxt, &scan->callback);
	dlist_push_tail(&open_scans, &scan->node);
	scan->is_open = true;
	for (int i = 0; i < 2; i++)
		scan->page_cxt[i] = AllocSetContextCreate(cxt, "convex page",
												  ALLOCSET_DEFAULT_SIZES);
	scan->row_cxt = AllocSetContextCreate(cxt, "convex row",
										  ALLOCSET_DEFAULT_SIZES);
	scan->userid = userid;
	scan->pg = pg;
	scan->pinned = cvx_snapshot_pinned();
	scan->bound = -1;
	scan->options = cvx_options_table(RelationGetRelid(rel));
	scan->serverid = scan->options->serverid;
	scan->table.component = scan->options->component;
	scan->table.table = scan->options->table_name;
	scan->rel = rel;
	scan->attnums = attnums ? bms_copy(attnums) : NULL;
	scan->selection.tables = &scan->table;
	scan->selection.ntables = 1;
	scan->want.tables = &scan->table;
	scan->want.ntables = 1;
	create_map(scan, NIL);
	scan->place.server = scan->options->server_name;
	scan->place.relation = psprintf("foreign table %s",
									scan->options->relation);
	MemoryContextSwitchTo(old);
	return scan;
}

/*
 * The next row, waiting for it; its values live until the next call.  False
 * at the end.
 */
bool
cvx_scan_next(CvxScan *scan, Datum *values, bool *nulls)
{
	bool		is_pending;

	return fetch_row(scan, true, &is_pending, values, nulls);
}

/* The scan of a target by its number in the range table; NULL: none is open. */
CvxScan *
cvx_scan_find(EState *estate, Index relid)
{
	dlist_iter	iter;

	dlist_foreach(iter, &open_scans)
	{
		CvxScan    *scan = dlist_container(CvxScan, node, iter.cur);

		if (scan->estate == estate && scan->relid == relid && scan->is_target)
			return scan;
	}
	return NULL;
}

/* The row of a target that a ctid stands for, in the current context. */
void
cvx_scan_target_row(CvxScan *scan, ItemPointer tid, CvxTargetRow *row)
{
	int64		at = ((int64) ItemPointerGetBlockNumberNoCheck(tid) << TARGET_BITS) +
		ItemPointerGetOffsetNumberNoCheck(tid) - 1;
	char	   *text;

	cvx_spool_read(scan->targets, at, row, sizeof(CvxTargetRow));
	text = palloc(row->id_len + row->doc_len + 1);
	cvx_spool_read(scan->targets, at + sizeof(CvxTargetRow), text,
				   row->id_len + row->doc_len);
	text[row->id_len + row->doc_len] = '\0';
	row->id = row->id_len > 0 ? text : NULL;
	row->doc = text + row->id_len;
}

void
cvx_scan_close(CvxScan *scan)
{
	MemoryContextDelete(scan->cxt);
}

/*
 * The Convex snapshot that the running statement uses on a connection's
 * server; taken now if nothing has fixed it yet.
 */
int64
cvx_scan_snapshot(CvxHttp *http)
{
	CvxSnapshot *entry = cvx_snapshot_get(cvx_http_remote(http)->serverid,
										  GetActiveSnapshot(),
										  cvx_snapshot_pinned());

	while (entry->ts == 0 && entry->asker != NULL && entry->asker->call != NULL)
		receive_page(entry->asker);
	if (entry->ts == 0)
		entry->ts = cvx_api_fresh_snapshot(http);
	return entry->ts;
}

/* ------------------------------------------------------------------------
 * Callbacks of the executor
 * ------------------------------------------------------------------------
 */

void
convexBeginForeignScan(ForeignScanState *node, int eflags)
{
	ForeignScan *plan = (ForeignScan *) node->ss.ps.plan;
	EState	   *estate = node->ss.ps.state;
	Bitmapset  *attnums = NULL;
	CvxScan    *scan;
	ListCell   *lc;

	if (eflags & EXEC_FLAG_EXPLAIN_ONLY)
		return;
	foreach(lc, (List *) list_nth(plan->fdw_private, CVX_PLAN_ATTNUMS))
		attnums = bms_add_member(attnums, lfirst_int(lc));

	/* NULL means all: an empty set needs a member that no column has. */
	if (attnums == NULL)
		attnums = bms_make_singleton(0);
	scan = cvx_scan_open(node->ss.ss_currentRelation,
						 cvx_scan_user(plan, estate), attnums,
						 estate->es_snapshot);
	scan->bound = intVal(list_nth(plan->fdw_private, CVX_PLAN_BOUND));
	scan->may_rescan = cvx_plan_may_rescan(estate, plan, eflags);
	scan->estate = estate;
	scan->relid = plan->scan.scanrelid;
	scan->is_target = intVal(list_nth(plan->fdw_private, CVX_PLAN_TARGET)) != 0;
	if (scan->is_target)
	{
		MemoryContext old = MemoryContextSwitchTo(scan->cxt);

		scan->targets = cvx_spool_create(CurrentResourceOwner);
		scan->selection.is_whole = true;
		MemoryContextSwitchTo(old);
	}
	node->fdw_state = scan;
}

TupleTableSlot *
convexIterateForeignScan(ForeignScanState *node)
{
	bool		is_pending;

	return next_slot(node, true, &is_pending);
}

void
convexReScanForeignScan(ForeignScanState *node)
{
	CvxScan    *scan = (CvxScan *) node->fdw_state;

	if (scan == NULL)
		return;
	scan->next_kept_at = 0;
	if (scan->kept)
		tuplestore_rescan(scan->kept);
	else if (scan->nrows > 0)
		restart(scan);
}

void
convexEndForeignScan(ForeignScanState *node)
{
	CvxScan    *scan = (CvxScan *) node->fdw_state;

	if (scan == NULL)
		return;
	if (scan->kept)
	{
		tuplestore_end(scan->kept);
		ExecDropSingleTupleTableSlot(scan->kept_slot);
	}
	if (scan->targets)
		cvx_spool_free(scan->targets);
	if (scan->own)
		cvx_own_close(scan->own);
	node->fdw_state = NULL;
	cvx_scan_close(scan);
}

void
convexExplainForeignScan(ForeignScanState *node, struct ExplainState *es)
{
	ForeignScan *plan = (ForeignScan *) node->ss.ps.plan;
	CvxScan    *scan = (CvxScan *) node->fdw_state;

	if (es->verbose)
	{
		Relation	rel = node->ss.ss_currentRelation;
		CvxTableOptions *options = cvx_options_table(RelationGetRelid(rel));
		Bitmapset  *attnums = bms_make_singleton(0);
		CvxRowMap  *map;
		List	   *names = NIL;
		const char *const *fields;
		int			nfields;
		ListCell   *lc;

		foreach(lc, (List *) list_nth(plan->fdw_private, CVX_PLAN_ATTNUMS))
			attnums = bms_add_member(attnums, lfirst_int(lc));
		map = cvx_rowmap_create(RelationGetRelid(rel), RelationGetDescr(rel),
								attnums, options, NIL);
		fields = cvx_rowmap_fields(map, &nfields);
		for (int i = 0; i < nfields; i++)
			names = lappend(names, (char *) fields[i]);
		if (cvx_rowmap_is_whole(map) ||
			intVal(list_nth(plan->fdw_private, CVX_PLAN_TARGET)) != 0)
			names = list_make1("*");
		ExplainPropertyText("Convex Table", options->table_name, es);
		ExplainPropertyText("Convex Component", options->component, es);
		ExplainPropertyList("Convex Fields", names, es);
	}
	if (es->analyze && scan != NULL)
	{
		/* A scan that was never asked for a row has none. */
		if (scan->ts != 0)
			ExplainPropertyInteger("Convex Snapshot", NULL, scan->ts, es);
		ExplainPropertyInteger("Pages", NULL, scan->total_pages, es);
		ExplainPropertyInteger("Documents", NULL, scan->total_documents, es);
		ExplainPropertyInteger("Bytes Received", NULL, scan->stats.bytes, es);
		ExplainPropertyInteger("Requests", NULL, scan->stats.requests, es);
		ExplainPropertyInteger("Retries", NULL, scan->stats.retries, es);
		if (es->timing)
			ExplainPropertyFloat("Wait Time", "ms",
								 scan->stats.wait_us / 1000.0, 3, es);
	}
}

/* ------------------------------------------------------------------------
 * Asynchronous execution under Append
 *
 * Different deployments overlap.  The scans of one connection take turns
 * within an Append: a walk that has begun is finished before the next begins.
 * They share one descriptor, which the Append's set can hold only once.
 * ------------------------------------------------------------------------
 */

void
convexForeignAsyncRequest(AsyncRequest *areq)
{
	CvxScan    *scan = (CvxScan *) ((ForeignScanState *) areq->requestee)->fdw_state;

	/* Begin at once when the turn is free. */
	scan->areq = areq;
	prepare(scan);
	if (scan->npages == 0 && scan->call == NULL && !scan->is_last)
	{
		connect_scan(scan);
		if (!any_neighbour(scan, is_walking))
			start_page(scan);
	}
	answer_request(areq);
}

void
convexForeignAsyncConfigureWait(AsyncRequest *areq)
{
	ForeignScanState *node = (ForeignScanState *) areq->requestee;
	CvxScan    *scan = (CvxScan *) node->fdw_state;
	AppendState *requestor = (AppendState *) areq->requestor;

	prepare(scan);
	connect_scan(scan);
	for (;;)
	{
		if (!has_news(scan))
		{
			if (scan->call != NULL)
				break;
			if (scan->npages == 0 && any_neighbour(scan, is_walking))
				return;
			start_page(scan);
			continue;
		}

		/* It is here already: there is nothing to wait for. */
		areq->callback_pending = false;
		answer_request(areq);
		if (areq->request_complete)
		{
			ExecAsyncResponse(areq);

			/* The executor counts the rows of the other two callbacks. */
			if (areq->requestee->instrument)
				InstrUpdateTupleCount(areq->requestee->instrument,
									  TupIsNull(areq->result) ? 0.0 : 1.0);
			return;
		}
	}
	if (any_neighbour(scan, is_watched))
		return;
	scan->is_watched = true;
	AddWaitEventToSet(requestor->as_eventset, WL_SOCKET_READABLE,
					  cvx_http_wait_fd(scan->http), NULL, areq);
}

void
convexForeignAsyncNotify(AsyncRequest *areq)
{
	answer_request(areq);
}

/* Complete a request with a row or the end, or leave it pending. */
static void
answer_request(AsyncRequest *areq)
{
	ForeignScanState *node = (ForeignScanState *) areq->requestee;
	CvxScan    *scan = (CvxScan *) node->fdw_state;
	bool		is_pending = false;
	TupleTableSlot *slot;

	/* Local conditions may reject rows: go on to one that passes. */
	for (;;)
	{
		ExprContext *econtext = node->ss.ps.ps_ExprContext;

		ResetExprContext(econtext);
		slot = next_slot(node, false, &is_pending);
		if (is_pending)
		{
			ExecAsyncRequestPending(areq);
			return;
		}
		if (TupIsNull(slot))
			break;
		slot->tts_tableOid = RelationGetRelid(node->ss.ss_currentRelation);
		econtext->ecxt_scantuple = slot;
		if (node->ss.ps.qual == NULL || ExecQual(node->ss.ps.qual, econtext))
		{
			if (node->ss.ps.ps_ProjInfo)
				slot = ExecProject(node->ss.ps.ps_ProjInfo);
			scan->is_watched = false;
			ExecAsyncRequestDone(areq, slot);
			return;
		}
		InstrCountFiltered1(node, 1);
	}
	scan->is_watched = false;
	ExecAsyncRequestDone(areq, NULL);
}

/*
 * Is there a row, an end, or a page to take in?  Another scan that needed the
 * snapshot may have received the page for us.
 */
static bool
has_news(CvxScan *scan)
{
	return (scan->page != NULL && scan->next_row < scan->page->ndocs) ||
		scan->is_last || (scan->call != NULL && cvx_http_poll(scan->call));
}

/*
 * Is a walk under way that the Append will finish?  After a rescan it may have
 * left this one out: then nothing is requested of it.
 */
static bool
is_walking(const CvxScan *scan)
{
	if (!scan->areq->callback_pending && !scan->areq->request_complete)
		return false;
	return scan->call != NULL ||
		(scan->page != NULL &&
		 !(scan->is_last && scan->next_row >= scan->page->ndocs));
}

/* Is the descriptor in the set on behalf of this scan? */
static bool
is_watched(const CvxScan *scan)
{
	return scan->is_watched && scan->areq->callback_pending;
}

/*
 * Does this hold for another scan of the same connection below the same
 * Append?
 */
static bool
any_neighbour(const CvxScan *scan, bool (*holds) (const CvxScan *))
{
	dlist_iter	iter;

	dlist_foreach(iter, &open_scans)
	{
		CvxScan    *other = dlist_container(CvxScan, node, iter.cur);

		if (other != scan && other->http == scan->http &&
			other->areq != NULL &&
			other->areq->requestor == scan->areq->requestor && holds(other))
			return true;
	}
	return false;
}

/* ------------------------------------------------------------------------
 * Rows and pages
 * ------------------------------------------------------------------------
 */

/*
 * The next row as a slot: a kept one, or a new one, which is kept if need be.
 */
static TupleTableSlot *
next_slot(ForeignScanState *node, bool may_wait, bool *is_pending)
{
	CvxScan    *scan = (CvxScan *) node->fdw_state;
	TupleTableSlot *slot = node->ss.ss_ScanTupleSlot;

	*is_pending = false;
	if (scan->kept)
	{
		/* A row from the temporary file outlives the executor's context. */
		MemoryContext old = MemoryContextSwitchTo(scan->cxt);
		bool		has_row = tuplestore_gettupleslot(scan->kept, true, false,
													  scan->kept_slot);

		MemoryContextSwitchTo(old);
		if (has_row)
		{
			if (scan->is_target)
				set_target(scan, scan->kept_slot, scan->next_kept_at);
			return scan->kept_slot;
		}
	}

	ExecClearTuple(slot);
	if (!fetch_row(scan, may_wait, is_pending, slot->tts_values,
				   slot->tts_isnull))
		return slot;
	ExecStoreVirtualTuple(slot);
	if (scan->is_target)
		set_target(scan, slot, scan->target_at);
	if (scan->may_rescan)
	{
		if (scan->kept == NULL)
		{
			MemoryContext old = MemoryContextSwitchTo(scan->cxt);

			scan->kept = tuplestore_begin_heap(false, false, work_mem);
			tuplestore_set_eflags(scan->kept, EXEC_FLAG_REWIND);
			scan->kept_slot =
				MakeSingleTupleTableSlot(slot->tts_tupleDescriptor,
										 &TTSOpsMinimalTuple);
			(void) tuplestore_gettupleslot(scan->kept, true, false,
										   scan->kept_slot);
			MemoryContextSwitchTo(old);
		}
		tuplestore_puttupleslot(scan->kept, slot);
	}
	return slot;
}

/*
 * Bring the next row to the front of the present page.  False at the end, or,
 * when waiting is not allowed, while the page is still under way.
 */
static bool
advance(CvxScan *scan, bool may_wait, bool *is_pending)
{
	*is_pending = false;
	for (;;)
	{
		if (scan->page && scan->next_row < scan->page->ndocs)
		{
			keep_downloading(scan);
			return true;
		}
		if (scan->is_last)
			return false;
		if (!may_wait && (scan->call == NULL || !cvx_http_poll(scan->call)))
		{
			*is_pending = true;
			return false;
		}
		if (scan->call == NULL)
			start_page(scan);
		receive_page(scan);
	}
}

/*
 * The next row as the transaction sees it.  False at the end, or, when waiting
 * is not allowed, while the page is still under way.
 */
static bool
fetch_row(CvxScan *scan, bool may_wait, bool *is_pending, Datum *values,
		  bool *nulls)
{
	prepare(scan);
	while (advance(scan, may_wait, is_pending))
	{
		const CvxPage *page = scan->page;
		int			row = scan->next_row++;
		CvxOwnEffect effect = CVX_OWN_NONE;

		if (scan->own)
		{
			MemoryContext old = MemoryContextSwitchTo(scan->row_cxt);

			MemoryContextReset(scan->row_cxt);
			resetStringInfo(&scan->own_doc);
			effect = cvx_own_apply(scan->own,
								   page->text + page->docs[row].document.offset,
								   page->docs[row].document.len,
								   &scan->own_doc);
			MemoryContextSwitchTo(old);
		}
		if (effect == CVX_OWN_GONE)
			continue;
		scan->nrows++;
		if (effect == CVX_OWN_CHANGED)
			take_own_row(scan, values, nulls);
		else
			take_row(scan, page, row, values, nulls);
		return true;
	}
	if (*is_pending || scan->own == NULL)
		return false;
	resetStringInfo(&scan->own_doc);
	if (!cvx_own_next(scan->own, &scan->own_doc))
		return false;
	scan->nrows++;
	take_own_row(scan, values, nulls);
	return true;
}

/* Before the first row: what do pending writes make of the table? */
static void
prepare(CvxScan *scan)
{
	MemoryContext old;

	if (scan->is_prepared)
		return;
	scan->is_prepared = true;
	if (scan->estate == NULL || scan->table.component[0] != '\0')
		return;
	old = MemoryContextSwitchTo(scan->cxt);
	scan->own = cvx_own_open(scan->serverid, scan->table.table,
							 scan->pg->curcid);
	if (scan->own)
	{
		initStringInfo(&scan->own_doc);
		create_map(scan, cvx_own_key_fields(scan->own));
		scan->is_last = cvx_own_hides_all(scan->own);
	}
	MemoryContextSwitchTo(old);
}

/* Which fields are asked for: those of the columns, and more. */
static void
create_map(CvxScan *scan, List *extra_fields)
{
	scan->map = cvx_rowmap_create(RelationGetRelid(scan->rel),
								  RelationGetDescr(scan->rel), scan->attnums,
								  scan->options, extra_fields);
	scan->selection.is_whole = scan->is_target ||
		cvx_rowmap_is_whole(scan->map);
	scan->selection.fields = cvx_rowmap_fields(scan->map,
											   &scan->selection.nfields);
	scan->want.fields = scan->selection.fields;
	scan->want.nfields = scan->selection.nfields;
	scan->want.field_lens = cvx_rowmap_field_lens(scan->map);
}

/* Convert a row of a page; its values live until the next one. */
static void
take_row(CvxScan *scan, const CvxPage *page, int row, Datum *values,
		 bool *nulls)
{
	MemoryContext old;

	MemoryContextReset(scan->row_cxt);
	cvx_error_push(&scan->place);
	old = MemoryContextSwitchTo(scan->row_cxt);
	cvx_rowmap_decode(scan->map, page, row, values, nulls, &scan->place);
	MemoryContextSwitchTo(old);
	cvx_error_pop(&scan->place);
	if (scan->is_target)
		note_target(scan, page, row);
}

/* The same for the document that pending writes have made. */
static void
take_own_row(CvxScan *scan, Datum *values, bool *nulls)
{
	MemoryContext cxt = AllocSetContextCreate(CurrentMemoryContext,
											  "convex own row",
											  ALLOCSET_SMALL_SIZES);
	MemoryContext old = MemoryContextSwitchTo(cxt);
	CvxPage    *page = cvx_page_of_document(scan->own_doc.data,
											scan->own_doc.len, &scan->want);

	MemoryContextSwitchTo(old);
	take_row(scan, page, 0, values, nulls);
	MemoryContextDelete(cxt);
}

/* Keep a row of the target for the one who changes it. */
static void
note_target(CvxScan *scan, const CvxPage *page, int row)
{
	const CvxDoc *doc = &page->docs[row];
	CvxTargetRow record = {0};

	record.number = scan->ntargets++;
	record.ts = scan->ts;
	record.id_len = doc->id.len;
	record.doc_len = doc->document.len;
	scan->target_at = cvx_spool_len(scan->targets);
	cvx_spool_append(scan->targets, &record, sizeof(record));
	cvx_spool_append(scan->targets, page->text + doc->id.offset, doc->id.len);
	cvx_spool_append(scan->targets, page->text + doc->document.offset,
					 doc->document.len);
}

/* The row's ctid tells where its record is. */
static void
set_target(CvxScan *scan, TupleTableSlot *slot, int64 at)
{
	CvxTargetRow record;

	ItemPointerSet(&slot->tts_tid, (BlockNumber) (at >> TARGET_BITS),
				   (OffsetNumber) ((at & ((1 << TARGET_BITS) - 1)) + 1));
	cvx_spool_read(scan->targets, at, &record, sizeof(record));
	scan->next_kept_at = at + sizeof(record) + record.id_len + record.doc_len;
}

/* The connection, at the first need. */
static void
connect_scan(CvxScan *scan)
{
	MemoryContext old;

	if (scan->http != NULL)
		return;
	old = MemoryContextSwitchTo(scan->cxt);
	scan->http = cvx_http_open(cvx_options_remote(scan->serverid,
												  scan->userid));
	MemoryContextSwitchTo(old);
}

/*
 * Which snapshot does the next request ask for?  When nobody knows, this scan
 * asks; when another scan is asking, its answer is awaited.
 */
static void
fix_snapshot(CvxScan *scan)
{
	CvxSnapshot *entry;

	if (scan->ts != 0)
		return;
	entry = cvx_snapshot_get(scan->serverid, scan->pg, scan->pinned);
	while (entry->ts == 0 && entry->asker != NULL && entry->asker != scan &&
		   entry->asker->call != NULL)
		receive_page(entry->asker);
	scan->ts = entry->ts;
	if (scan->ts == 0)
	{
		/* An entry is not dropped while it has an asker. */
		entry->asker = scan;
		scan->asked = entry;
	}
}

/* Send for the page after the present one.  Does not wait for it. */
static void
start_page(CvxScan *scan)
{
	MemoryContext cxt = scan->page_cxt[1 - scan->current_cxt];
	MemoryContext old;

	prepare(scan);
	connect_scan(scan);
	fix_snapshot(scan);

	/* Waiting for another scan's answer may have served this one too. */
	if (scan->call != NULL)
		return;
	if (scan->page == NULL)
		begin_walk(scan);
	MemoryContextReset(cxt);
	old = MemoryContextSwitchTo(cxt);
	scan->cursor = scan->page ? pstrdup(scan->page->cursor) : NULL;
	scan->call = cvx_api_list_snapshot(scan->http, &scan->stats,
									   &scan->selection, scan->ts,
									   scan->cursor);
	MemoryContextSwitchTo(old);
}

/* The first page of the table is about to be asked for. */
static void
begin_walk(CvxScan *scan)
{
	MemoryContext old = MemoryContextSwitchTo(scan->cxt);

	if (scan->walk == NULL)
		scan->walk = cvx_walk_open(scan->options->server_name, 1);
	cvx_walk_resume(scan->walk, scan->ts, NULL);
	MemoryContextSwitchTo(old);
}

/* Wait for the page under way and make it the present one. */
static void
receive_page(CvxScan *scan)
{
	MemoryContext old;
	CvxPage    *page;

	cvx_error_push(&scan->place);
	cvx_http_wait(scan->call);
	if (cvx_api_has_code(scan->call, 400, "SnapshotTooNew"))
		fail_too_new(scan);
	if (cvx_http_answer(scan->call)->status == 404)
		check_table_exists(scan);
	if (scan->ts != 0)
		cvx_api_fail_if_lost(scan->call, scan->http, scan->ts,
							 scan->pinned != 0);

	/* Nothing of the scan changes before the page has passed. */
	old = MemoryContextSwitchTo(scan->page_cxt[1 - scan->current_cxt]);
	page = cvx_api_page(scan->call, scan->http, &scan->want);
	MemoryContextSwitchTo(old);

	cvx_walk_check(scan->walk, page);
	scan->ts = page->ts;
	if (scan->asked)
		scan->asked->ts = page->ts;
	forget_question(scan);
	MemoryContextReset(scan->page_cxt[scan->current_cxt]);
	scan->current_cxt = 1 - scan->current_cxt;
	scan->call = NULL;
	scan->page = page;
	scan->next_row = 0;
	scan->pumped_to = 0;
	scan->is_last = !page->has_more;
	scan->npages++;
	scan->total_pages++;
	scan->total_documents += page->ndocs;
	if (scan->npages == 1 && scan->is_last && page->ndocs == 0 &&
		scan->own == NULL)
		check_table_exists(scan);
	cvx_error_pop(&scan->place);
}

/* The pinned snapshot lies ahead of the server: tell where its head is. */
static void
fail_too_new(CvxScan *scan)
{
	int64		head = cvx_api_query_ts(scan->http);

	cvx_api_fail(scan->call, scan->http, head < 0 ? NULL :
				 psprintf("Snapshot " INT64_FORMAT " was asked for; the server's head is at " INT64_FORMAT ".",
						  scan->ts, head));
}

/*
 * An unknown table gives an empty page, not an error.  Before an empty result
 * is believed the table must be on the server's list.
 */
static void
check_table_exists(CvxScan *scan)
{
	MemoryContext old = MemoryContextSwitchTo(scan->row_cxt);
	List	   *tables;

	if (cvx_api_column_names(scan->http, &scan->table, &tables) &&
		tables == NIL)
		ereport(ERROR,
				(errcode(ERRCODE_FDW_TABLE_NOT_FOUND),
				 errmsg("Convex server \"%s\" has no table \"%s\"%s%s%s",
						scan->options->server_name, scan->table.table,
						scan->table.component[0] ? " in component \"" : "",
						scan->table.component,
						scan->table.component[0] ? "\"" : ""),
				 errhint("Check the options table_name and component of the foreign table; convex_tables('%s') lists the tables.",
						 scan->options->server_name)));
	MemoryContextSwitchTo(old);
	MemoryContextReset(scan->row_cxt);
}

/*
 * Let the next page come in while this one is converted.  The first page must
 * be used to a quarter before: a LIMIT or EXISTS that takes a few rows costs
 * one request.  A LIMIT that this page satisfies never asks for another.
 */
static void
keep_downloading(CvxScan *scan)
{
	CvxPage    *page = scan->page;
	uint32		offset;

	if (scan->call == NULL)
	{
		int			nleft = page->ndocs - scan->next_row;

		if (scan->is_last || !cvx_http_prefetch ||
			(scan->npages == 1 && scan->next_row < page->ndocs / 4) ||
			(scan->bound >= 0 && scan->nrows + nleft >= scan->bound))
			return;
		start_page(scan);
		return;
	}
	offset = page->docs[scan->next_row].document.offset;
	if (offset - scan->pumped_to >= PUMP_BYTES)
	{
		scan->pumped_to = offset;
		(void) cvx_http_poll(scan->call);
	}
}

/* Read from the beginning again, at the same snapshot. */
static void
restart(CvxScan *scan)
{
	forget_question(scan);
	scan->call = NULL;
	scan->page = NULL;
	MemoryContextReset(scan->page_cxt[0]);
	MemoryContextReset(scan->page_cxt[1]);
	scan->is_last = false;
	scan->nrows = 0;
	scan->npages = 0;
	if (scan->own)
	{
		cvx_own_rewind(scan->own);
		scan->is_last = cvx_own_hides_all(scan->own);
	}
}

/* Memory context callback: leave no pointer to the scan behind. */
static void
forget_scan(void *arg)
{
	CvxScan    *scan = (CvxScan *) arg;

	if (!scan->is_open)
		return;
	scan->is_open = false;
	dlist_delete(&scan->node);
	forget_question(scan);
}

/* The snapshot is known now, or somebody else may ask for it. */
static void
forget_question(CvxScan *scan)
{
	if (scan->asked)
		scan->asked->asker = NULL;
	scan->asked = NULL;
}
