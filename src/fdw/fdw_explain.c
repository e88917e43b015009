/*
 * fdw_explain.c
 *		What does EXPLAIN show of a scan?
 *
 * Room: fdw 5.9
 */
#include "postgres.h"

#include "utils/rel.h"

#include "ground/compat.h"
#include "shape/options_read.h"
#include "shape/rowmap.h"
#include "fdw/fdw_explain.h"
#include "fdw/fdw_paths.h"
#include "fdw/fdw_plan.h"
#include "fdw/fdw_scan.h"

void
convexExplainForeignScan(ForeignScanState *node, struct ExplainState *es)
{
	ForeignScan *plan = (ForeignScan *) node->ss.ps.plan;
	CvxScan    *scan = (CvxScan *) node->fdw_state;
	CvxAccess	access = intVal(list_nth(plan->fdw_private, CVX_PLAN_ACCESS));

	if (access != CVX_ACCESS_WALK)
		ExplainPropertyText("Convex Access", access == CVX_ACCESS_COUNT ? "count" :
							access != CVX_ACCESS_NEWEST ? "look-up by _id" :
							list_nth_int(list_nth(plan->fdw_private, CVX_PLAN_ORDER), CVX_ORDER_DESCENDS) ?
							"newest first" : "oldest first", es);
	if (access == CVX_ACCESS_COUNT)
	{
		RangeTblEntry *rte = exec_rt_fetch(cvx_scan_relid(plan), node->ss.ps.state);

		ExplainPropertyText("Convex Table", cvx_options_table(rte->relid)->table_name, es);
	}
	else if (es->verbose)
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
		CvxScanCounters cost = cvx_scan_counters(scan);

		/* A scan that was never asked for a row has no snapshot. */
		if (cost.ts != 0)
			ExplainPropertyInteger("Convex Snapshot", NULL, cost.ts, es);
		if (access != CVX_ACCESS_WALK)
			ExplainPropertyInteger("Questions", NULL, cost.questions, es);
		if (cost.went_over)
			ExplainPropertyText("Went Over", cost.went_over, es);
		ExplainPropertyInteger("Pages", NULL, cost.pages, es);
		ExplainPropertyInteger("Documents", NULL, cost.documents, es);
		ExplainPropertyInteger("Bytes Received", NULL, cost.http.bytes, es);
		ExplainPropertyInteger("Requests", NULL, cost.http.requests, es);
		ExplainPropertyInteger("Retries", NULL, cost.http.retries, es);
		if (es->timing)
			ExplainPropertyFloat("Wait Time", "ms", cost.http.wait_us / 1000.0,
								 3, es);
	}
}
