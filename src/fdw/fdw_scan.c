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
 * Room: fdw 5.7
 */
#include "postgres.h"

#include "access/table.h"
#include "executor/executor.h"
#include "lib/ilist.h"
#include "miscadmin.h"
#include "nodes/execnodes.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/tuplesort.h"

#include "ground/compat.h"
#include "protocol/schema.h"
#include "protocol/walk.h"
#include "shape/options_read.h"
#include "shape/rowmap.h"
#include "fdw/fdw_ask.h"
#include "fdw/fdw_own.h"
#include "fdw/fdw_plan.h"
#include "fdw/fdw_scan.h"
#include "fdw/fdw_snapshot.h"

/* A download goes on each time this much text has been converted. */
#define PUMP_BYTES	65536

/* The pages of a walk. */
typedef struct ScanWalk
{
	/* from the first request on */
	CvxHttp    *http;
	CvxSnapshot *asked;			/* set while our answer will tell it */
	int64		ts;				/* 0 until known */
	CvxSelection selection;
	CvxPageWant want;
	CvxWalk    *rules;			/* NULL before the first page */

	/* per page */
	CvxPage    *page;			/* being converted, or NULL */
	int			next_row;
	uint32		pumped_to;		/* offset in the page's text */
	CvxCall    *call;			/* the next page's, or NULL */
	char	   *cursor;			/* that call's cursor */
	bool		is_last;		/* no page follows the present one */
	int64		nrows;			/* given out since the last restart */
	int64		npages;			/* received since the last restart */

	/* memory */
	MemoryContext page_cxt[2];
	int			current_cxt;	/* that of page */
} ScanWalk;

/* What the executor has said. */
typedef struct ScanUse
{
	EState	   *estate;			/* NULL: ANALYZE */
	Index		relid;			/* in its range table */
	int64		bound;			/* rows that will be asked for; -1 unknown */
	bool		may_rescan;
} ScanUse;
/* What pending writes make of the rows. */
typedef struct ScanOwn
{
	CvxOwn	   *it;				/* NULL: there are none */
	StringInfoData doc;
} ScanOwn;

/* Rows that a rescan gets again. */
typedef struct ScanKept
{
	Tuplestorestate *store;
	TupleTableSlot *slot;

	/* what an ordered scan has sorted by itself, or NULL */
	Tuplesortstate *sort;
	TupleTableSlot *sorted;
} ScanKept;

struct CvxScan
{
	/* fixed at open */
	Oid			userid;
	Relation	rel;
	Bitmapset  *attnums;		/* of the needed columns; NULL: all */
	Snapshot	pg;				/* the executor's */
	int64		pinned;			/* convex_fdw.snapshot at its start, or 0 */
	CvxTableOptions *options;
	CvxTableName table;
	ScanUse		use;

	/* from the first row on */
	bool		is_prepared;
	CvxRowMap  *map;
	ScanOwn		own;
	ScanWalk	walk;
	ScanKept	kept;

	CvxAsk	   *ask;			/* NULL: it only walks */

	/* for others */
	CvxTargets *targets;		/* NULL: not a target of UPDATE or DELETE */
	CvxScanAsync async;
	CvxScanCounters counters;
	dlist_node	node;			/* in open_scans */

	/* memory */
	MemoryContext cxt;
	MemoryContext row_cxt;
	MemoryContextCallback callback;
	CvxErrorPlace place;
};

/* Scans of this backend that are open; scans add and remove themselves. */
static dlist_head open_scans = DLIST_STATIC_INIT(open_scans);

static void forget_scan(void *arg);
static void drop_kept(CvxScan *scan);
static bool fetch_row(CvxScan *scan, bool may_wait, bool *is_pending,
					  Datum *values, bool *nulls);
static bool next_sorted(CvxScan *scan, Datum *values, bool *nulls);
static bool fetch_next(CvxScan *scan, bool may_wait, bool *is_pending,
					   Datum *values, bool *nulls);
static void prepare(CvxScan *scan);
static void create_map(CvxScan *scan, List *extra_fields);
static bool advance(CvxScan *scan, bool may_wait, bool *is_pending);
static bool take_answer(CvxScan *scan);
static bool take_page(CvxScan *scan);
static bool prepare_question(CvxScan *scan);
static TupleTableSlot *next_count(CvxScan *scan, TupleTableSlot *slot);
static bool counts(const CvxScan *scan);
static bool asks(const CvxScan *scan);
static void fix_moment(CvxScan *scan);
static void take_row(CvxScan *scan, const CvxPage *page, int row,
					 Datum *values, bool *nulls);
static void take_own_row(CvxScan *scan, Datum *values, bool *nulls);
static void connect_scan(CvxScan *scan);
static void fix_snapshot(CvxScan *scan);
static void begin_walk(CvxScan *scan);
static void receive_page(CvxScan *scan);
static void fail_too_new(CvxScan *scan);
static void check_table_exists(CvxScan *scan);
static void keep_downloading(CvxScan *scan);
static void restart(CvxScan *scan);
static void drop_sorted(CvxScan *scan);
static void rewind_walk(CvxScan *scan);
static void forget_question(CvxScan *scan);

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
	for (int i = 0; i < 2; i++)
		scan->walk.page_cxt[i] = AllocSetContextCreate(cxt, "convex page",
												  ALLOCSET_DEFAULT_SIZES);
	scan->row_cxt = AllocSetContextCreate(cxt, "convex row",
										  ALLOCSET_DEFAULT_SIZES);
	scan->userid = userid;
	scan->pg = pg;
	scan->pinned = cvx_snapshot_pinned();
	scan->use.bound = -1;
	scan->options = cvx_options_table(RelationGetRelid(rel));
	scan->table.component = scan->options->component;
	scan->table.table = scan->options->table_name;
	scan->rel = rel;
	scan->attnums = attnums ? bms_copy(attnums) : NULL;
	scan->walk.selection.tables = &scan->table;
	scan->walk.selection.ntables = 1;
	scan->walk.want.tables = &scan->table;
	scan->walk.want.ntables = 1;
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

/* The rows of a target by its number in the range table; NULL: none is open. */
CvxTargets *
cvx_scan_targets(EState *estate, Index relid)
{
	dlist_iter	iter;

	dlist_foreach(iter, &open_scans)
	{
		CvxScan    *scan = dlist_container(CvxScan, node, iter.cur);

		if (scan->use.estate == estate && scan->use.relid == relid &&
			scan->targets != NULL)
			return scan->targets;
	}
	return NULL;
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

	while (entry->ts == 0 && entry->asker != NULL && entry->asker->walk.call != NULL)
		receive_page(entry->asker);
	if (entry->ts == 0)
		entry->ts = cvx_api_fresh_snapshot(http);
	return entry->ts;
}

/*
 * What the first request needs, before it is sent: the connection, and the
 * pending writes.
 */
CvxHttp *
cvx_scan_prepare(CvxScan *scan)
{
	prepare(scan);
	connect_scan(scan);
	return scan->walk.http;
}

/* Has nothing been asked for, though something will be? */
bool
cvx_scan_is_new(const CvxScan *scan)
{
	return scan->walk.npages == 0 && scan->walk.call == NULL && !scan->walk.is_last;
}

/* Is a page under way? */
bool
cvx_scan_is_waiting(const CvxScan *scan)
{
	return scan->walk.call != NULL;
}

/* Has the walk begun, and will go on? */
bool
cvx_scan_is_walking(const CvxScan *scan)
{
	return scan->walk.call != NULL ||
		(scan->walk.page != NULL &&
		 !(scan->walk.is_last && scan->walk.next_row >= scan->walk.page->ndocs));
}

/*
 * Is there a row, an end, or a page to take in?  Another scan that needed the
 * snapshot may have received the page for us.
 */
bool
cvx_scan_has_news(CvxScan *scan)
{
	const ScanWalk *walk = &scan->walk;

	return (walk->page != NULL && walk->next_row < walk->page->ndocs) ||
		walk->is_last || (walk->call != NULL && cvx_http_poll(walk->call));
}

/* Does this hold for another open scan of the same connection? */
bool
cvx_scan_any_other(const CvxScan *scan, bool (*holds) (CvxScan *other,
				   const CvxScan *scan))
{
	dlist_iter	iter;

	dlist_foreach(iter, &open_scans)
	{
		CvxScan    *other = dlist_container(CvxScan, node, iter.cur);

		if (other != scan && other->walk.http == scan->walk.http && holds(other, scan))
			return true;
	}
	return false;
}

/* What asynchronous execution keeps of a scan. */
CvxScanAsync *
cvx_scan_async(CvxScan *scan)
{
	return &scan->async;
}

/* What the scan has cost so far, and its snapshot. */
CvxScanCounters
cvx_scan_counters(const CvxScan *scan)
{
	CvxScanCounters counters = scan->counters;

	counters.ts = scan->walk.ts;
	counters.questions = scan->ask ? scan->ask->nquestions : 0;
	counters.went_over = scan->ask ? scan->ask->went_over : NULL;
	return counters;
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
	CvxAccess	access = intVal(list_nth(plan->fdw_private, CVX_PLAN_ACCESS));
	Bitmapset  *attnums = NULL;
	Relation	rel;
	CvxScan    *scan;
	ListCell   *lc;

	if (eflags & EXEC_FLAG_EXPLAIN_ONLY)
		return;
	foreach(lc, (List *) list_nth(plan->fdw_private, CVX_PLAN_ATTNUMS))
		attnums = bms_add_member(attnums, lfirst_int(lc));

	/* NULL means all: an empty set needs a member that no column has. */
	if (attnums == NULL)
		attnums = bms_make_singleton(0);
	rel = node->ss.ss_currentRelation;
	if (rel == NULL)
		rel = table_open(exec_rt_fetch(cvx_scan_relid(plan), estate)->relid, NoLock);
	scan = cvx_scan_open(rel, cvx_scan_user(plan, estate), attnums,
						 estate->es_snapshot);
	scan->use.bound = intVal(list_nth(plan->fdw_private, CVX_PLAN_BOUND));
	scan->use.may_rescan = access != CVX_ACCESS_COUNT &&
		cvx_plan_may_rescan(estate, plan, eflags);
	scan->use.estate = estate;
	scan->use.relid = cvx_scan_relid(plan);
	if (intVal(list_nth(plan->fdw_private, CVX_PLAN_TARGET)) != 0)
	{
		MemoryContext old = MemoryContextSwitchTo(scan->cxt);

		scan->targets = cvx_targets_open();
		scan->walk.selection.is_whole = true;
		MemoryContextSwitchTo(old);
	}
	if (access != CVX_ACCESS_WALK)
	{
		MemoryContext old = MemoryContextSwitchTo(scan->cxt);

		scan->ask = cvx_ask_open(access, plan->fdw_exprs == NIL ? NULL :
								 ExecInitExpr(linitial(plan->fdw_exprs), (PlanState *) node),
								 node->ss.ps.ps_ExprContext);
		if (access == CVX_ACCESS_NEWEST)
			cvx_ask_set_order(scan->ask, list_nth(plan->fdw_private, CVX_PLAN_ORDER));
		MemoryContextSwitchTo(old);
	}
	node->fdw_state = scan;
}

TupleTableSlot *
convexIterateForeignScan(ForeignScanState *node)
{
	bool		is_pending;

	return cvx_scan_next_slot(node, true, &is_pending);
}

void
convexReScanForeignScan(ForeignScanState *node)
{
	CvxScan    *scan = (CvxScan *) node->fdw_state;

	if (scan == NULL)
		return;
	if (counts(scan))
	{
		scan->ask->is_given = false;
		return;
	}
	if (scan->targets)
		cvx_targets_rewind(scan->targets);

	/* What was looked up may not be what is looked up now. */
	if (asks(scan) && scan->ask->expr != NULL && node->ss.ps.chgParam != NULL)
	{
		drop_kept(scan);
		restart(scan);
	}
	else if (scan->kept.store)
		tuplestore_rescan(scan->kept.store);
	else if (scan->walk.nrows > 0)
		restart(scan);
}

void
convexEndForeignScan(ForeignScanState *node)
{
	CvxScan    *scan = (CvxScan *) node->fdw_state;

	if (scan == NULL)
		return;
	drop_kept(scan);
	drop_sorted(scan);
	if (scan->targets)
		cvx_targets_close(scan->targets);
	if (scan->own.it)
		cvx_own_close(scan->own.it);
	if (node->ss.ss_currentRelation == NULL)
		table_close(scan->rel, NoLock);
	node->fdw_state = NULL;
	cvx_scan_close(scan);
}

static void
drop_kept(CvxScan *scan)
{
	if (scan->kept.store)
	{
		tuplestore_end(scan->kept.store);
		ExecDropSingleTupleTableSlot(scan->kept.slot);
	}
	scan->kept.store = NULL;
}

/* ------------------------------------------------------------------------
 * Rows and pages
 * ------------------------------------------------------------------------
 */

/*
 * The next row as a slot: a kept one, or a new one, which is kept if need be.
 */
TupleTableSlot *
cvx_scan_next_slot(ForeignScanState *node, bool may_wait, bool *is_pending)
{
	CvxScan    *scan = (CvxScan *) node->fdw_state;
	TupleTableSlot *slot = node->ss.ss_ScanTupleSlot;

	*is_pending = false;
	if (counts(scan))
		return next_count(scan, slot);
	if (scan->kept.store)
	{
		/* A row from the temporary file outlives the executor's context. */
		MemoryContext old = MemoryContextSwitchTo(scan->cxt);
		bool		has_row = tuplestore_gettupleslot(scan->kept.store, true, false,
													  scan->kept.slot);

		MemoryContextSwitchTo(old);
		if (has_row)
		{
			if (scan->targets)
				cvx_targets_mark_kept(scan->targets, scan->kept.slot);
			return scan->kept.slot;
		}
	}

	ExecClearTuple(slot);
	if (!fetch_row(scan, may_wait, is_pending, slot->tts_values,
				   slot->tts_isnull))
		return slot;
	ExecStoreVirtualTuple(slot);
	if (scan->targets)
		cvx_targets_mark_new(scan->targets, slot);
	if (scan->use.may_rescan)
	{
		if (scan->kept.store == NULL)
		{
			MemoryContext old = MemoryContextSwitchTo(scan->cxt);

			scan->kept.store = tuplestore_begin_heap(false, false, work_mem);
			tuplestore_set_eflags(scan->kept.store, EXEC_FLAG_REWIND);
			scan->kept.slot =
				MakeSingleTupleTableSlot(slot->tts_tupleDescriptor,
										 &TTSOpsMinimalTuple);
			(void) tuplestore_gettupleslot(scan->kept.store, true, false,
										   scan->kept.slot);
			MemoryContextSwitchTo(old);
		}
		tuplestore_puttupleslot(scan->kept.store, slot);
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
		if (scan->walk.page && scan->walk.next_row < scan->walk.page->ndocs)
		{
			keep_downloading(scan);
			return true;
		}
		if (scan->walk.is_last)
			return false;
		if (asks(scan) && !counts(scan))
		{
			if (scan->ask->order ? take_page(scan) : take_answer(scan))
				continue;

			/* An ordered scan reads the rest in another way. */
			if (scan->ask->order)
				return false;
		}
		if (!may_wait && (scan->walk.call == NULL || !cvx_http_poll(scan->walk.call)))
		{
			*is_pending = true;
			return false;
		}
		if (scan->walk.call == NULL)
			cvx_scan_start_page(scan);
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
	*is_pending = false;
	if (scan->ask == NULL || scan->ask->order == NULL)
		return fetch_next(scan, may_wait, is_pending, values, nulls);
	if (asks(scan) && fetch_next(scan, may_wait, is_pending, values, nulls))
		return true;
	return !asks(scan) && next_sorted(scan, values, nulls);
}

/*
 * An ordered scan that has gone over reads the whole table, drops what it has
 * given, and sorts the rest as Convex would have.
 */
static bool
next_sorted(CvxScan *scan, Datum *values, bool *nulls)
{
	CvxAskOrder *order = scan->ask->order;
	TupleDesc	tupdesc = RelationGetDescr(scan->rel);
	MemoryContext old = MemoryContextSwitchTo(scan->cxt);
	bool		is_pending;

	if (scan->kept.sort == NULL)
	{
		TupleTableSlot *slot = MakeSingleTupleTableSlot(tupdesc, &TTSOpsVirtual);
		Oid			collation = InvalidOid;

		rewind_walk(scan);
		scan->kept.sort = tuplesort_begin_heap(tupdesc, 1, &order->attnum, &order->operator,
											   &collation, &order->nulls_first,
											   work_mem, NULL, 0);
		scan->kept.sorted = MakeSingleTupleTableSlot(tupdesc, &TTSOpsMinimalTuple);
		while (fetch_next(scan, true, &is_pending, slot->tts_values, slot->tts_isnull))
		{
			CHECK_FOR_INTERRUPTS();
			ExecStoreVirtualTuple(slot);
			tuplesort_puttupleslot(scan->kept.sort, slot);
			ExecClearTuple(slot);
		}
		ExecDropSingleTupleTableSlot(slot);
		tuplesort_performsort(scan->kept.sort);
	}
	if (!tuplesort_gettupleslot(scan->kept.sort, true, false, scan->kept.sorted, NULL))
	{
		MemoryContextSwitchTo(old);
		return false;
	}
	slot_getallattrs(scan->kept.sorted);
	memcpy(values, scan->kept.sorted->tts_values, sizeof(Datum) * tupdesc->natts);
	memcpy(nulls, scan->kept.sorted->tts_isnull, sizeof(bool) * tupdesc->natts);
	MemoryContextSwitchTo(old);
	return true;
}

/*
 * The next row as the transaction sees it, in the order of its page.  False at
 * the end, when an ordered scan goes over, or, when waiting is not allowed,
 * while the page is still under way.
 */
static bool
fetch_next(CvxScan *scan, bool may_wait, bool *is_pending, Datum *values,
		   bool *nulls)
{
	prepare(scan);
	while (advance(scan, may_wait, is_pending))
	{
		const CvxPage *page = scan->walk.page;
		int			row = scan->walk.next_row++;
		CvxOwnEffect effect = CVX_OWN_NONE;

		if (scan->ask && scan->ask->went_over && cvx_ask_was_given(scan->ask, page, row))
			continue;
		if (scan->own.it)
		{
			MemoryContext old = MemoryContextSwitchTo(scan->row_cxt);

			MemoryContextReset(scan->row_cxt);
			resetStringInfo(&scan->own.doc);
			effect = cvx_own_apply(scan->own.it,
								   page->text + page->docs[row].document.offset,
								   page->docs[row].document.len,
								   &scan->own.doc);
			MemoryContextSwitchTo(old);
		}
		if (effect == CVX_OWN_GONE)
			continue;
		scan->walk.nrows++;
		if (effect == CVX_OWN_CHANGED)
			take_own_row(scan, values, nulls);
		else
			take_row(scan, page, row, values, nulls);
		return true;
	}
	if (*is_pending || scan->own.it == NULL)
		return false;
	resetStringInfo(&scan->own.doc);
	if (!cvx_own_next(scan->own.it, &scan->own.doc))
		return false;
	scan->walk.nrows++;
	take_own_row(scan, values, nulls);
	return true;
}

/*
 * The documents that Convex was asked for, as the only pages of the scan.  False:
 * the scan walks.
 */
static bool
take_answer(CvxScan *scan)
{
	CvxAsk	   *ask = scan->ask;
	CvxPage    *page;

	if (scan->walk.page == NULL &&
		(!prepare_question(scan) ||
		 !cvx_ask_documents(ask, scan->walk.http, &scan->counters.http,
							scan->options, scan->walk.ts, &scan->walk.want)))
		return false;
	page = ask->pages != NIL ? linitial(ask->pages) : NULL;
	if (page)
	{
		ask->pages = list_delete_first(ask->pages);
		scan->walk.page = page;
		scan->walk.next_row = 0;
		scan->counters.documents += page->ndocs;
	}
	scan->walk.is_last = ask->pages == NIL;
	if (scan->walk.is_last && scan->walk.nrows == 0 &&
		(page == NULL || page->ndocs == 0))
		check_table_exists(scan);
	return true;
}

/*
 * The next page of an ordered scan.  False: the scan goes over, or the end was
 * reached before.
 */
static bool
take_page(CvxScan *scan)
{
	CvxAskOrder *order = scan->ask->order;
	CvxPage    *page;

	if ((order->npages == 0 && !prepare_question(scan)) ||
		(page = cvx_ask_page(scan->ask, scan->walk.http, &scan->counters.http,
							 scan->options, scan->walk.ts, &scan->walk.want)) == NULL)
		return false;
	scan->walk.page = page;
	scan->walk.next_row = 0;
	scan->walk.is_last = order->is_done;
	scan->counters.documents += page->ndocs;
	if (order->is_done && order->nread == 0)
		check_table_exists(scan);
	return true;
}

/* May Convex be asked, at a timestamp that is known then? */
static bool
prepare_question(CvxScan *scan)
{
	if (scan->pinned != 0)
		return cvx_ask_go_over(scan->ask, "convex_fdw.snapshot is set");
	if (scan->own.it != NULL)
		return cvx_ask_go_over(scan->ask, "the transaction has written to the table");
	if (!cvx_ask_may(scan->ask, scan->options))
		return false;
	connect_scan(scan);
	fix_moment(scan);
	if (scan->walk.ts == 0)
		return cvx_ask_go_over(scan->ask, "the server does not tell its head");
	return true;
}

/* The one row of a scan that counts: Convex tells it, or the rows do. */
static TupleTableSlot *
next_count(CvxScan *scan, TupleTableSlot *slot)
{
	CvxAsk	   *ask = scan->ask;

	ExecClearTuple(slot);
	if (ask->is_given)
		return slot;
	prepare(scan);
	if (!ask->is_counted &&
		(ask->went_over || !prepare_question(scan) ||
		 !cvx_ask_count(ask, scan->walk.http, &scan->counters.http,
						scan->options, scan->walk.ts)))
	{
		int			natts = RelationGetDescr(scan->rel)->natts;
		Datum	   *values = palloc(sizeof(Datum) * Max(natts, 1));
		bool	   *nulls = palloc(sizeof(bool) * Max(natts, 1));

		for (ask->count = 0; cvx_scan_next(scan, values, nulls); ask->count++)
			CHECK_FOR_INTERRUPTS();
		ask->is_counted = true;
	}
	else if (ask->count == 0 && ask->went_over == NULL)
		check_table_exists(scan);
	ask->is_given = true;
	slot->tts_values[0] = Int64GetDatum(ask->count);
	slot->tts_isnull[0] = false;
	return ExecStoreVirtualTuple(slot);
}

/* Is only the number of rows wanted? */
static bool
counts(const CvxScan *scan)
{
	return scan->ask != NULL && scan->ask->access == CVX_ACCESS_COUNT;
}

/* Does the scan look documents up, and has not gone over to a walk? */
static bool
asks(const CvxScan *scan)
{
	return scan->ask != NULL && scan->ask->went_over == NULL;
}

/*
 * The timestamp of a question: that of the entry, or the head, which is the
 * entry's then.  A server that does not tell it leaves 0.
 */
static void
fix_moment(CvxScan *scan)
{
	CvxSnapshot *entry;

	if (scan->walk.ts != 0)
		return;
	entry = cvx_snapshot_get(scan->options->serverid, scan->pg, scan->pinned);
	while (entry->ts == 0 && entry->asker != NULL && entry->asker->walk.call != NULL)
		receive_page(entry->asker);
	if (entry->ts == 0)
	{
		int64		head = cvx_api_query_ts(scan->walk.http);

		entry->ts = Max(head, 0);
	}
	scan->walk.ts = entry->ts;
}

/* Before the first row: what do pending writes make of the table? */
static void
prepare(CvxScan *scan)
{
	MemoryContext old;

	if (scan->is_prepared)
		return;
	scan->is_prepared = true;
	if (scan->use.estate == NULL || scan->table.component[0] != '\0')
		return;
	old = MemoryContextSwitchTo(scan->cxt);
	scan->own.it = cvx_own_open(scan->options->serverid, scan->table.table,
							 scan->pg->curcid);
	if (scan->own.it)
	{
		initStringInfo(&scan->own.doc);
		create_map(scan, cvx_own_key_fields(scan->own.it));
		scan->walk.is_last = cvx_own_hides_all(scan->own.it);
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
	scan->walk.selection.is_whole = scan->targets != NULL ||
		cvx_rowmap_is_whole(scan->map);
	scan->walk.selection.fields = cvx_rowmap_fields(scan->map,
											   &scan->walk.selection.nfields);
	scan->walk.want.fields = scan->walk.selection.fields;
	scan->walk.want.nfields = scan->walk.selection.nfields;
	scan->walk.want.field_lens = cvx_rowmap_field_lens(scan->map);
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
	if (scan->targets)
		cvx_targets_put(scan->targets, page, row, scan->walk.ts);
}

/* The same for the document that pending writes have made. */
static void
take_own_row(CvxScan *scan, Datum *values, bool *nulls)
{
	MemoryContext cxt = AllocSetContextCreate(CurrentMemoryContext,
											  "convex own row",
											  ALLOCSET_SMALL_SIZES);
	MemoryContext old = MemoryContextSwitchTo(cxt);
	CvxPage    *page = cvx_page_of_document(scan->own.doc.data,
											scan->own.doc.len, &scan->walk.want);

	MemoryContextSwitchTo(old);
	take_row(scan, page, 0, values, nulls);
	MemoryContextDelete(cxt);
}

/* The connection, at the first need. */
static void
connect_scan(CvxScan *scan)
{
	MemoryContext old;

	if (scan->walk.http != NULL)
		return;
	old = MemoryContextSwitchTo(scan->cxt);
	scan->walk.http = cvx_http_open(cvx_options_remote(scan->options->serverid,
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

	if (scan->walk.ts != 0)
		return;
	entry = cvx_snapshot_get(scan->options->serverid, scan->pg, scan->pinned);
	while (entry->ts == 0 && entry->asker != NULL && entry->asker != scan &&
		   entry->asker->walk.call != NULL)
		receive_page(entry->asker);
	scan->walk.ts = entry->ts;
	if (scan->walk.ts == 0)
	{
		/* An entry is not dropped while it has an asker. */
		entry->asker = scan;
		scan->walk.asked = entry;
	}
}

/* Send for the page after the present one.  Does not wait for it. */
void
cvx_scan_start_page(CvxScan *scan)
{
	MemoryContext cxt = scan->walk.page_cxt[1 - scan->walk.current_cxt];
	MemoryContext old;

	prepare(scan);
	connect_scan(scan);
	fix_snapshot(scan);

	/* Waiting for another scan's answer may have served this one too. */
	if (scan->walk.call != NULL)
		return;
	if (scan->walk.page == NULL)
		begin_walk(scan);
	MemoryContextReset(cxt);
	old = MemoryContextSwitchTo(cxt);
	scan->walk.cursor = scan->walk.page ? pstrdup(scan->walk.page->cursor) : NULL;
	scan->walk.call = cvx_api_list_snapshot(scan->walk.http, &scan->counters.http,
									   &scan->walk.selection, scan->walk.ts,
									   scan->walk.cursor);
	MemoryContextSwitchTo(old);
}

/* The first page of the table is about to be asked for. */
static void
begin_walk(CvxScan *scan)
{
	MemoryContext old = MemoryContextSwitchTo(scan->cxt);

	if (scan->walk.rules == NULL)
		scan->walk.rules = cvx_walk_open(scan->options->server_name, 1);
	cvx_walk_resume(scan->walk.rules, scan->walk.ts, NULL);
	MemoryContextSwitchTo(old);
}

/* Wait for the page under way and make it the present one. */
static void
receive_page(CvxScan *scan)
{
	MemoryContext old;
	CvxPage    *page;

	cvx_error_push(&scan->place);
	cvx_http_wait(scan->walk.call);
	if (cvx_api_has_code(scan->walk.call, 400, "SnapshotTooNew"))
		fail_too_new(scan);
	if (cvx_http_answer(scan->walk.call)->status == 404)
		check_table_exists(scan);
	if (scan->walk.ts != 0)
		cvx_api_fail_if_lost(scan->walk.call, scan->walk.http, scan->walk.ts,
							 scan->pinned != 0);

	/* Nothing of the scan changes before the page has passed. */
	old = MemoryContextSwitchTo(scan->walk.page_cxt[1 - scan->walk.current_cxt]);
	page = cvx_api_page(scan->walk.call, scan->walk.http, &scan->walk.want);
	MemoryContextSwitchTo(old);

	cvx_walk_check(scan->walk.rules, page);
	scan->walk.ts = page->ts;
	if (scan->walk.asked)
		scan->walk.asked->ts = page->ts;
	forget_question(scan);
	MemoryContextReset(scan->walk.page_cxt[scan->walk.current_cxt]);
	scan->walk.current_cxt = 1 - scan->walk.current_cxt;
	scan->walk.call = NULL;
	scan->walk.page = page;
	scan->walk.next_row = 0;
	scan->walk.pumped_to = 0;
	scan->walk.is_last = !page->has_more;
	scan->walk.npages++;
	scan->counters.pages++;
	scan->counters.documents += page->ndocs;
	if (scan->walk.npages == 1 && scan->walk.is_last && page->ndocs == 0 &&
		scan->own.it == NULL)
		check_table_exists(scan);
	cvx_error_pop(&scan->place);
}

/* The pinned snapshot lies ahead of the server: tell where its head is. */
static void
fail_too_new(CvxScan *scan)
{
	int64		head = cvx_api_query_ts(scan->walk.http);

	cvx_api_fail(scan->walk.call, scan->walk.http, head < 0 ? NULL :
				 psprintf("Snapshot " INT64_FORMAT " was asked for; the server's head is at " INT64_FORMAT ".",
						  scan->walk.ts, head));
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
	bool		is_listed = true;

	/* Questions need no plan with streaming export; the list does. */
	if (asks(scan))
	{
		tables = cvx_api_tables(scan->walk.http, &is_listed);
		is_listed = !is_listed ||
			cvx_schema_find(tables, scan->table.component, scan->table.table) != NULL;
	}
	else if (cvx_api_column_names(scan->walk.http, &scan->table, &tables))
		is_listed = tables != NIL;
	if (!is_listed)
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
	CvxPage    *page = scan->walk.page;
	uint32		offset;

	if (scan->walk.call == NULL)
	{
		int			nleft = page->ndocs - scan->walk.next_row;

		if (scan->walk.is_last || !cvx_http_prefetch || asks(scan) ||
			(scan->walk.npages == 1 && scan->walk.next_row < page->ndocs / 4) ||
			(scan->use.bound >= 0 && scan->walk.nrows + nleft >= scan->use.bound))
			return;
		cvx_scan_start_page(scan);
		return;
	}
	offset = page->docs[scan->walk.next_row].document.offset;
	if (offset - scan->walk.pumped_to >= PUMP_BYTES)
	{
		scan->walk.pumped_to = offset;
		(void) cvx_http_poll(scan->walk.call);
	}
}

/* Read from the beginning again, at the same snapshot. */
static void
restart(CvxScan *scan)
{
	if (scan->ask)
		cvx_ask_rewind(scan->ask);
	drop_sorted(scan);
	rewind_walk(scan);
}

static void
drop_sorted(CvxScan *scan)
{
	if (scan->kept.sort == NULL)
		return;
	ExecDropSingleTupleTableSlot(scan->kept.sorted);
	tuplesort_end(scan->kept.sort);
	scan->kept.sort = NULL;
}

static void
rewind_walk(CvxScan *scan)
{
	forget_question(scan);
	scan->walk.call = NULL;
	scan->walk.page = NULL;
	MemoryContextReset(scan->walk.page_cxt[0]);
	MemoryContextReset(scan->walk.page_cxt[1]);
	scan->walk.is_last = false;
	scan->walk.nrows = 0;
	scan->walk.npages = 0;
	if (scan->own.it)
	{
		cvx_own_rewind(scan->own.it);
		scan->walk.is_last = cvx_own_hides_all(scan->own.it);
	}
}

/* Memory context callback: leave no pointer to the scan behind. */
static void
forget_scan(void *arg)
{
	CvxScan    *scan = (CvxScan *) arg;

	dlist_delete(&scan->node);
	forget_question(scan);
}

/* The snapshot is known now, or somebody else may ask for it. */
static void
forget_question(CvxScan *scan)
{
	if (scan->walk.asked)
		scan->walk.asked->asker = NULL;
	scan->walk.asked = NULL;
}
