/*
 * fdw_plan.c
 *		What is estimated, planned, explained, pushed down?
 *
 * Convex's export takes no condition, so every one is checked here and no
 * parameterised path is offered; what goes down is the choice of columns and
 * the fact that few rows are wanted.  Planning sends nothing.
 *
 * Room: fdw 4.3
 */
#include "postgres.h"

#include "access/sysattr.h"
#include "catalog/heap.h"
#include "catalog/pg_class.h"
#include "executor/executor.h"
#include "foreign/foreign.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "optimizer/cost.h"
#include "optimizer/optimizer.h"
#include "optimizer/pathnode.h"
#include "optimizer/planmain.h"
#include "optimizer/restrictinfo.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/sampling.h"
#include "utils/snapmgr.h"

#include "compat.h"
#include "fdw.h"

/* Rows of a table that was never analyzed. */
#define DEFAULT_ROWS	10000

static List *needed_columns(PlannerInfo *root, RelOptInfo *baserel, Oid relid);
static int	wanted_rows(PlannerInfo *root, RelOptInfo *baserel,
						List *conditions);
static bool may_rescan_below(Plan *plan, Plan *target, bool is_rescanned,
							 bool *may_rescan);
static int	acquire_sample(Relation relation, int elevel, HeapTuple *rows,
						   int targrows, double *totalrows,
						   double *totaldeadrows);

void
convexGetForeignRelSize(PlannerInfo *root, RelOptInfo *baserel, Oid relid)
{
	CvxTableOptions *options = cvx_options_table(relid);

	baserel->fdw_private = options;

	/* -1: never analyzed.  Such a table is not empty. */
	if (baserel->tuples < 0)
		baserel->tuples = DEFAULT_ROWS;
	set_baserel_size_estimates(root, baserel);
}

void
convexGetForeignPaths(PlannerInfo *root, RelOptInfo *baserel, Oid relid)
{
	CvxTableOptions *options = (CvxTableOptions *) baserel->fdw_private;
	Cost		startup = options->startup_cost +
		baserel->baserestrictcost.startup;
	Cost		per_row = options->tuple_cost + cpu_tuple_cost +
		baserel->baserestrictcost.per_tuple;

	add_path(baserel, (Path *)
			 cvx_create_foreignscan_path(root, baserel, baserel->rows, startup,
										 startup + per_row * baserel->tuples));
}

ForeignScan *
convexGetForeignPlan(PlannerInfo *root, RelOptInfo *baserel, Oid relid,
					 ForeignPath *best_path, List *tlist, List *scan_clauses,
					 Plan *outer_plan)
{
	List	   *conditions = extract_actual_clauses(scan_clauses, false);
	bool		is_target = root->parse->commandType != CMD_SELECT &&
		bms_is_member(baserel->relid, root->all_result_relids);
	List	   *private = list_make3(needed_columns(root, baserel, relid),
									 makeInteger(wanted_rows(root, baserel,
															 conditions)),
									 makeInteger(is_target));

	return make_foreignscan(tlist, conditions, baserel->relid, NIL, private,
							NIL, NIL, outer_plan);
}

bool
convexIsForeignPathAsyncCapable(ForeignPath *path)
{
#ifdef CVX_USE_EPOLL
	RelOptInfo *rel = ((Path *) path)->parent;

	return ((CvxTableOptions *) rel->fdw_private)->is_async_capable;
#else
	return false;
#endif
}

/*
 * Can this node be rescanned?  Executor flags promise only part of it: find
 * the way from the plan's root to the node and see whether something on it
 * runs its input again.  In doubt the answer is yes.
 */
bool
cvx_plan_may_rescan(EState *estate, ForeignScan *plan, int eflags)
{
	bool		may_rescan = false;
	ListCell   *lc;

	if ((eflags & EXEC_FLAG_REWIND) || estate->es_epq_active != NULL)
		return true;
	if (may_rescan_below(estate->es_plannedstmt->planTree, (Plan *) plan,
						 false, &may_rescan))
		return may_rescan;
	foreach(lc, estate->es_plannedstmt->subplans)
	{
		Plan	   *subplan = (Plan *) lfirst(lc);

		/* Without outer parameters it runs once, or was told to rewind. */
		if (subplan != NULL &&
			may_rescan_below(subplan, (Plan *) plan,
							 !bms_is_empty(subplan->extParam), &may_rescan))
			return may_rescan;
	}
	return true;
}

bool
convexAnalyzeForeignTable(Relation relation, AcquireSampleRowsFunc *func,
						  BlockNumber *totalpages)
{
	*func = acquire_sample;

	/* Convex does not tell sizes; nothing here depends on them. */
	*totalpages = 1;
	return true;
}

/* The numbers of the columns that the query uses. */
static List *
needed_columns(PlannerInfo *root, RelOptInfo *baserel, Oid relid)
{
	Bitmapset  *used = NULL;
	List	   *result = NIL;
	int			member = -1;
	Relation	rel;
	TupleDesc	tupdesc;
	ListCell   *lc;

	pull_varattnos((Node *) baserel->reltarget->exprs, baserel->relid, &used);
	foreach(lc, baserel->baserestrictinfo)
		pull_varattnos((Node *) ((RestrictInfo *) lfirst(lc))->clause,
					   baserel->relid, &used);

	/* The planner holds a lock already. */
	rel = RelationIdGetRelation(relid);
	tupdesc = RelationGetDescr(rel);
	while ((member = bms_next_member(used, member)) >= 0)
	{
		int			attnum = member + FirstLowInvalidHeapAttributeNumber;

		if (attnum == 0)
		{
			result = NIL;
			for (int i = 1; i <= tupdesc->natts; i++)
				if (!TupleDescAttr(tupdesc, i - 1)->attisdropped)
					result = lappend_int(result, i);
			break;
		}
		if (attnum > 0)
			result = lappend_int(result, attnum);
		else if (attnum != TableOidAttributeNumber &&
				 attnum != SelfItemPointerAttributeNumber)
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("system column \"%s\" is not available in foreign table \"%s\"",
							NameStr(SystemAttributeDefinition(attnum)->attname),
							RelationGetRelationName(rel))));
	}
	RelationClose(rel);
	return result;
}

/*
 * The rows that a LIMIT asks of this table, when nothing between the two
 * drops, adds or collects rows; -1: unknown.
 */
static int
wanted_rows(PlannerInfo *root, RelOptInfo *baserel, List *conditions)
{
	Query	   *parse = root->parse;

	if (root->limit_tuples < 0 || root->limit_tuples > INT_MAX / 2 ||
		conditions != NIL || parse->hasAggs || parse->groupClause ||
		parse->groupingSets || parse->distinctClause || parse->sortClause ||
		parse->hasWindowFuncs || parse->hasTargetSRFs ||
		parse->setOperations || parse->havingQual || parse->rowMarks ||
		bms_num_members(root->all_baserels) != 1)
		return -1;
	return (int) root->limit_tuples;
}

/*
 * Look for the target below a plan that runs again or not.  True: found, and
 * *may_rescan is set.
 */
static bool
may_rescan_below(Plan *plan, Plan *target, bool is_rescanned, bool *may_rescan)
{
	List	   *children = NIL;
	bool		is_inner_rescanned = is_rescanned;
	ListCell   *lc;

	if (plan == NULL)
		return false;
	if (plan == target)
	{
		*may_rescan = is_rescanned;
		return true;
	}
	check_stack_depth();
	switch (nodeTag(plan))
	{
		case T_Append:
			children = ((Append *) plan)->appendplans;
			break;
		case T_MergeAppend:
			children = ((MergeAppend *) plan)->mergeplans;
			break;
		case T_SubqueryScan:
			children = list_make1(((SubqueryScan *) plan)->subplan);
			break;
		case T_CustomScan:
			children = ((CustomScan *) plan)->custom_plans;
			is_rescanned = true;
			break;
		case T_NestLoop:
			{
				Plan	   *inner = innerPlan(plan);

				/* A Material told to rewind does not run its input again. */
				if (IsA(inner, Material) && !is_rescanned &&
					((NestLoop *) plan)->nestParams == NIL &&
					bms_is_empty(inner->extParam))
					break;
				is_inner_rescanned = true;
				break;
			}
		case T_RecursiveUnion:
			is_inner_rescanned = true;
			break;
		default:
			break;
	}
	foreach(lc, children)
		if (may_rescan_below((Plan *) lfirst(lc), target, is_rescanned,
							 may_rescan))
			return true;
	return may_rescan_below(outerPlan(plan), target, is_rescanned,
							may_rescan) ||
		may_rescan_below(innerPlan(plan), target, is_inner_rescanned,
						 may_rescan);
}

/*
 * ANALYZE: a random sample of the first documents, at most
 * convex_fdw.analyze_max_documents of them.
 */
static int
acquire_sample(Relation relation, int elevel, HeapTuple *rows, int targrows,
			   double *totalrows, double *totaldeadrows)
{
	TupleDesc	tupdesc = RelationGetDescr(relation);
	Datum	   *values = palloc0(tupdesc->natts * sizeof(Datum));
	bool	   *nulls = palloc(tupdesc->natts * sizeof(bool));
	CvxScan    *scan = cvx_scan_open(relation, GetUserId(), NULL,
									 GetActiveSnapshot());
	ReservoirStateData state;
	double		nskip = -1;
	double		nseen = 0;
	int			nrows = 0;
	bool		is_whole = true;

	reservoir_init_selection_state(&state, targrows);
	while (cvx_scan_next(scan, values, nulls))
	{
		CHECK_FOR_INTERRUPTS();
		if (nseen >= cvx_analyze_max_documents)
		{
			is_whole = false;
			break;
		}
		nseen++;
		if (nrows < targrows)
		{
			rows[nrows++] = heap_form_tuple(tupdesc, values, nulls);
			continue;
		}
		if (nskip < 0)
			nskip = reservoir_get_next_S(&state, nseen - 1, targrows);
		if (nskip <= 0)
		{
			int			k = (int) (targrows * cvx_random_fraction(state));

			heap_freetuple(rows[k]);
			rows[k] = heap_form_tuple(tupdesc, values, nulls);
		}
		nskip -= 1;
	}
	cvx_scan_close(scan);

	/* What lies beyond the limit is unknown; never shrink an estimate. */
	*totalrows = is_whole ? nseen :
		Max(nseen, relation->rd_rel->reltuples);
	*totaldeadrows = 0;
	ereport(elevel,
			(errmsg("\"%s\": %.0f documents read%s, %d rows in sample",
					RelationGetRelationName(relation), nseen,
					is_whole ? "" : " (convex_fdw.analyze_max_documents)",
					nrows)));
	return nrows;
}
