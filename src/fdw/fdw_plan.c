/*
 * fdw_plan.c
 *		What is estimated, planned, pushed down?
 *
 * Convex's export takes no condition, so every one is checked here and no
 * parameterised path is offered; what goes down is the choice of columns and
 * the fact that few rows are wanted.  Planning sends nothing.
 *
 * The ctid of a foreign row is the wrapper's own: it tells UPDATE and DELETE
 * where a scan keeps the document, and is not the same in another scan.  A
 * query may show it; every other use, and every use of xmin and the like, is
 * refused here.
 *
 * Room: fdw 5.5
 */
#include "postgres.h"

#include "access/sysattr.h"
#include "catalog/heap.h"
#include "catalog/pg_class.h"
#include "executor/executor.h"
#include "foreign/foreign.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/cost.h"
#include "optimizer/optimizer.h"
#include "optimizer/pathnode.h"
#include "optimizer/planmain.h"
#include "optimizer/restrictinfo.h"
#include "utils/rel.h"

#include "ground/compat.h"
#include "shape/options_read.h"
#include "fdw/fdw_paths.h"
#include "fdw/fdw_plan.h"

/* Documents of one page of an ordered scan; the first ones are smaller. */
#define ORDERED_PAGE	1000

/* Rows of a table that was never analyzed. */
#define DEFAULT_ROWS	10000

/* A look for system columns in a query. */
typedef struct SystemSearch
{
	Bitmapset  *relids;			/* the table and its parents; NULL: anyone's */
	int			levels_up;		/* from here to their query */
	AttrNumber	found;			/* which one is used */
} SystemSearch;

static bool is_target(PlannerInfo *root, RelOptInfo *baserel);
static bool is_used_in_query(PlannerInfo *root, SystemSearch *search);
static bool is_used_in_output(List *targetlist, bool may_show,
							  SystemSearch *search);
static bool is_used(Node *node, void *arg);
CVX_NORETURN static void fail_system_column(Oid table, AttrNumber attnum);
static char *id_column(Relation rel);
static List *needed_columns(PlannerInfo *root, RelOptInfo *baserel, Oid relid);
static int	wanted_rows(PlannerInfo *root, RelOptInfo *baserel,
						List *conditions);
static bool may_rescan_below(Plan *plan, Plan *target, bool is_rescanned,
							 bool *may_rescan);

void
convexGetForeignRelSize(PlannerInfo *root, RelOptInfo *baserel, Oid relid)
{
	CvxTableOptions *options = cvx_options_table(relid);
	CvxLookup	lookup;

	cvx_plan_check_system_columns(root, baserel->relid, relid);
	baserel->fdw_private = options;

	/* -1: never analyzed.  Such a table is not empty. */
	if (baserel->tuples < 0)
		baserel->tuples = DEFAULT_ROWS;
	set_baserel_size_estimates(root, baserel);

	/* An _id has one document, whatever the statistics say. */
	if (cvx_paths_find_lookup(root, baserel, relid, &lookup))
		baserel->rows = clamp_row_est(Min(baserel->rows, lookup.nids));
}

void
convexGetForeignPaths(PlannerInfo *root, RelOptInfo *baserel, Oid relid)
{
	CvxTableOptions *options = (CvxTableOptions *) baserel->fdw_private;
	Cost		startup = options->startup_cost +
		baserel->baserestrictcost.startup;
	Cost		per_row = options->tuple_cost + cpu_tuple_cost +
		baserel->baserestrictcost.per_tuple;

	CvxLookup	lookup;
	PathKey    *pathkey;
	List	   *order;

	add_path(baserel, (Path *)
			 cvx_create_foreignscan_path(root, baserel, baserel->rows, startup,
										 startup + per_row * baserel->tuples, NIL, NIL));
	if (!options->asks || options->component[0] != '\0' || is_target(root, baserel))
		return;

	/* The moment may have to be asked for first. */
	startup += options->startup_cost;
	if (cvx_paths_find_lookup(root, baserel, relid, &lookup))
		add_path(baserel, (Path *)
				 cvx_create_foreignscan_path(root, baserel, baserel->rows, startup,
											 startup + per_row * lookup.nids, NIL,
											 list_make2(makeInteger(lookup.access), lookup.expr)));
	order = cvx_paths_find_order(root, baserel, relid, options, &pathkey);
	if (order)
		add_path(baserel, (Path *)
				 cvx_create_foreignscan_path(root, baserel, baserel->rows, startup,
											 startup + per_row * baserel->tuples +
											 options->startup_cost * baserel->tuples / ORDERED_PAGE,
											 list_make1(pathkey),
											 list_make2(makeInteger(CVX_ACCESS_NEWEST), order)));
}

ForeignScan *
convexGetForeignPlan(PlannerInfo *root, RelOptInfo *baserel, Oid relid,
					 ForeignPath *best_path, List *tlist, List *scan_clauses,
					 Plan *outer_plan)
{
	List	   *conditions = extract_actual_clauses(scan_clauses, false);
	List	   *asked = best_path->fdw_private;
	bool		orders = asked && intVal(linitial(asked)) == CVX_ACCESS_NEWEST;
	List	   *private;

	if (IS_UPPER_REL(baserel))
		return make_foreignscan(tlist, NIL, 0, NIL,
								list_make4(NIL, makeInteger(-1), makeInteger(false), linitial(asked)),
								list_make1(makeTargetEntry(lsecond(asked), 1, NULL, false)),
								NIL, outer_plan);
	private = list_make5(needed_columns(root, baserel, relid),
									 makeInteger(wanted_rows(root, baserel,
															 conditions)),
									 makeInteger(is_target(root, baserel)),
									 asked ? linitial(asked) :
									 (void *) makeInteger(CVX_ACCESS_WALK),
									 orders ? lsecond(asked) : NIL);

	return make_foreignscan(tlist, conditions, baserel->relid,
							asked && !orders ? list_make1(lsecond(asked)) : NIL, private,
							NIL, NIL, outer_plan);
}

/* Does the query update or delete rows of this table? */
static bool
is_target(PlannerInfo *root, RelOptInfo *baserel)
{
	return root->parse->commandType != CMD_SELECT &&
		bms_is_member(baserel->relid, root->all_result_relids);
}

bool
convexIsForeignPathAsyncCapable(ForeignPath *path)
{
#ifdef CVX_USE_EPOLL
	RelOptInfo *rel = ((Path *) path)->parent;

	/* A question is answered at once. */
	return path->fdw_private == NIL &&
		((CvxTableOptions *) rel->fdw_private)->is_async_capable;
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

/*
 * Refuse a query that uses system columns of the table, save that it may show
 * ctid.  The planner calls this with the query as it will run: views and
 * functions are opened, and the arguments of sub-selects, which are plans by
 * now, say what these use of the query.
 */
void
cvx_plan_check_system_columns(PlannerInfo *root, Index relid, Oid table)
{
	SystemSearch search = {NULL, 0, 0};

	/* A reference to a parent is one to each of its children. */
	for (;;)
	{
		AppendRelInfo *info = root->append_rel_array ?
			root->append_rel_array[relid] : NULL;

		search.relids = bms_add_member(search.relids, relid);
		if (info == NULL)
			break;
		relid = info->parent_relid;
	}
	if (is_used_in_query(root, &search))
		fail_system_column(table, search.found);
}

/*
 * The same for an INSERT whose rows reach the table through a parent, when
 * only the executor knows it.  RETURNING and checks are all that can use them.
 */
void
cvx_plan_check_routed(ModifyTable *plan, bool is_top, Oid table)
{
	SystemSearch search = {NULL, 0, 0};
	ListCell   *lc;

	foreach(lc, plan->returningLists)
		if (is_used_in_output((List *) lfirst(lc), is_top, &search))
			fail_system_column(table, search.found);
	if (is_used((Node *) plan->withCheckOptionLists, &search))
		fail_system_column(table, search.found);
}

/* The output of the statement shows; everything else decides or keeps. */
static bool
is_used_in_query(PlannerInfo *root, SystemSearch *search)
{
	bool		is_top = root->query_level == 1;
	Query		rest = *root->parse;

	rest.targetList = NIL;
	rest.returningList = NIL;
	return is_used_in_output(root->parse->targetList,
							 is_top && rest.commandType == CMD_SELECT,
							 search) ||
		is_used_in_output(root->parse->returningList, is_top, search) ||
		query_tree_walker(&rest, is_used, search, QTW_IGNORE_JOINALIASES) ||
		is_used((Node *) root->append_rel_list, search);
}

static bool
is_used_in_output(List *targetlist, bool may_show, SystemSearch *search)
{
	ListCell   *lc;

	foreach(lc, targetlist)
	{
		TargetEntry *entry = lfirst_node(TargetEntry, lc);
		bool		is_ctid = IsA(entry->expr, Var) &&
			((Var *) entry->expr)->varattno == SelfItemPointerAttributeNumber;

		/* The planner's own row identities are named; ORDER BY's are not. */
		if (is_ctid && (entry->resjunk ? entry->resname != NULL :
						may_show && entry->ressortgroupref == 0))
			continue;
		if (is_used((Node *) entry->expr, search))
			return true;
	}
	return false;
}

/* A walker of trees, which ends at the first use. */
static bool
is_used(Node *node, void *arg)
{
	SystemSearch *search = (SystemSearch *) arg;

	if (node == NULL)
		return false;
	if (IsA(node, Var))
	{
		Var		   *var = (Var *) node;

		search->found = var->varattno;
		return var->varattno < 0 && var->varattno != TableOidAttributeNumber &&
			(int) var->varlevelsup == search->levels_up &&
			(search->relids ? bms_is_member(var->varno, search->relids) :
			 !IS_SPECIAL_VARNO(var->varno));
	}
	if (IsA(node, Query))
	{
		bool		result;

		search->levels_up++;
		result = query_tree_walker((Query *) node, is_used, search,
								   QTW_IGNORE_JOINALIASES);
		search->levels_up--;
		return result;
	}
	return expression_tree_walker(node, is_used, search);
}

static void
fail_system_column(Oid table, AttrNumber attnum)
{
	Relation	rel = RelationIdGetRelation(table);
	bool		is_ctid = attnum == SelfItemPointerAttributeNumber;
	char	   *id = id_column(rel);

	ereport(ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg("system column \"%s\" is not available in foreign table \"%s\"",
					NameStr(SystemAttributeDefinition(attnum)->attname),
					RelationGetRelationName(rel)),
			 !is_ctid ? 0 :
			 errdetail("A query can show it, but it does not identify a row."),
			 !is_ctid ? 0 : id ?
			 errhint("Use the column \"%s\", which holds the document's _id.",
					 id) :
			 errhint("Use the document's _id: ALTER FOREIGN TABLE ... ADD COLUMN _id text.")));
}

/* The column that holds the document's _id, or NULL. */
static char *
id_column(Relation rel)
{
	TupleDesc	tupdesc = RelationGetDescr(rel);

	for (int i = 0; i < tupdesc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(tupdesc, i);

		if (!att->attisdropped &&
			strcmp(cvx_options_column(RelationGetRelid(rel),
									  att->attnum)->field, "_id") == 0)
			return NameStr(att->attname);
	}
	return NULL;
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
