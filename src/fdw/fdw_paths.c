/*
 * fdw_paths.c
 *		Which part of a query can Convex answer by itself?
 *
 * Today: documents by their _id, how many a table has, and documents in the
 * order of their creation.  A condition that is answered by Convex is
 * still checked here, so what it gives may be more than the condition wants,
 * but never less.
 *
 *	condition						asked for
 *	_id = expr						that _id
 *	_id = ANY (expr)				those _ids; a NULL in it finds nothing
 *
 * Convex orders by _creationTime, a number that every document has.  As a
 * timestamptz it is rounded, which keeps the order; but then nothing may be NULL
 * because it does not fit.  Where times are equal the order is Convex's own, so
 * that nothing may be promised behind it.
 *
 * expr does not depend on rows of any table, nor changes within a statement,
 * and the collation is deterministic: then equality is that of bytes, and no
 * document has an _id that is not a text.
 *
 * Room: fdw 5.4
 */
#include "postgres.h"

#include "catalog/pg_collation.h"
#include "catalog/pg_type.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/clauses.h"
#include "optimizer/cost.h"
#include "optimizer/optimizer.h"
#include "optimizer/pathnode.h"
#include "optimizer/restrictinfo.h"
#include "parser/parsetree.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/selfuncs.h"
#include "utils/typcache.h"

#include "ground/compat.h"
#include "shape/options_read.h"
#include "fdw/fdw_paths.h"

/* What a LIMIT may make the first page hold. */
#define MAX_WANTED	1000

static Aggref *find_count(const RelOptInfo *output);
static bool is_lookup(PlannerInfo *root, RelOptInfo *baserel, Oid relid,
					  Expr *clause, CvxLookup *lookup);
static bool is_id(const Node *node, RelOptInfo *baserel, Oid relid);
static bool is_equality(Oid opno, Oid collation);
static bool is_fixed(PlannerInfo *root, Node *expr);
static bool has_changing_param(Node *node, void *arg);

/* count(*) of a whole table: a path beside reading it. */
void
convexGetForeignUpperPaths(PlannerInfo *root, UpperRelationKind stage,
						   RelOptInfo *input, RelOptInfo *output, void *extra)
{
	const Query *parse = root->parse;
	const CvxTableOptions *options = input->fdw_private;
	Aggref	   *count;
	Cost		cost;

	/* A parent's rows are those of its children as well. */
	if (stage != UPPERREL_GROUP_AGG || input->reloptkind != RELOPT_BASEREL ||
		options == NULL || planner_rt_fetch(input->relid, root)->inh ||
		input->baserestrictinfo != NIL || parse->groupClause || parse->groupingSets ||
		parse->havingQual || parse->rowMarks || parse->hasTargetSRFs ||
		!options->asks || options->component[0] != '\0' ||
		(count = find_count(output)) == NULL)
		return;

	/* The moment may have to be asked for first. */
	cost = 2 * options->startup_cost;
	add_path(output, (Path *)
			 cvx_create_foreign_upper_path(root, output, 1, cost, cost + cpu_tuple_cost,
										   list_make2(makeInteger(CVX_ACCESS_COUNT), count)));
}

/* The one aggregate of the query, when it is count(*). */
static Aggref *
find_count(const RelOptInfo *output)
{
	Aggref	   *count = NULL;
	ListCell   *lc;

	foreach(lc, pull_var_clause((Node *) output->reltarget->exprs, PVC_INCLUDE_AGGREGATES))
	{
		Aggref	   *aggref = lfirst(lc);

		if (!IsA(aggref, Aggref) || aggref->aggfnoid != F_COUNT_ || !aggref->aggstar ||
			aggref->aggfilter || aggref->agglevelsup != 0 ||
			aggref->aggsplit != AGGSPLIT_SIMPLE)
			return NULL;
		count = aggref;
	}
	return count;
}

/*
 * How the query's first sort key is told to the executor, as integers, when
 * Convex can give it; otherwise NIL.
 */
List *
cvx_paths_find_order(PlannerInfo *root, RelOptInfo *baserel, Oid relid,
					 const CvxTableOptions *options, PathKey **pathkey)
{
	EquivalenceClass *ec;
	ListCell   *lc;

	if (root->query_pathkeys == NIL)
		return NIL;
	*pathkey = linitial(root->query_pathkeys);
	ec = (*pathkey)->pk_eclass;
	if (ec->ec_has_volatile)
		return NIL;
	foreach(lc, ec->ec_members)
	{
		EquivalenceMember *em = lfirst(lc);
		const Var  *var = (const Var *) em->em_expr;
		bool		descends = cvx_pathkey_descends(*pathkey);
		TypeCacheEntry *type;

		if (!IsA(var, Var) || var->varno != baserel->relid || var->varattno <= 0 ||
			(var->vartype != TIMESTAMPTZOID && var->vartype != FLOAT8OID) ||
			(var->vartype == TIMESTAMPTZOID && options->on_misfit == CVX_MISFIT_NULL) ||
			strcmp(cvx_options_column(relid, var->varattno)->field, "_creationTime") != 0 ||
			cvx_options_column(relid, var->varattno)->is_path)
			continue;
		type = lookup_type_cache(var->vartype, TYPECACHE_BTREE_OPFAMILY | TYPECACHE_LT_OPR | TYPECACHE_GT_OPR);
		if ((*pathkey)->pk_opfamily != type->btree_opf)
			continue;
		return list_make5_int(var->varattno, descends,
							  (int) (descends ? type->gt_opr : type->lt_opr),
							  (*pathkey)->pk_nulls_first,
							  root->limit_tuples > 0 && root->limit_tuples <= MAX_WANTED ?
							  (int) root->limit_tuples : 0);
	}
	return NIL;
}

/* The documents that a scan can look up; false: it has no such condition. */
bool
cvx_paths_find_lookup(PlannerInfo *root, RelOptInfo *baserel, Oid relid,
					  CvxLookup *lookup)
{
	ListCell   *lc;

	lookup->access = CVX_ACCESS_WALK;
	foreach(lc, baserel->baserestrictinfo)
	{
		RestrictInfo *info = lfirst_node(RestrictInfo, lc);
		CvxLookup	found;

		if (info->pseudoconstant ||
			(info->security_level > baserel->baserestrict_min_security && !info->leakproof) ||
			!is_lookup(root, baserel, relid, info->clause, &found))
			continue;
		if (lookup->access == CVX_ACCESS_WALK || found.nids < lookup->nids)
			*lookup = found;
	}
	return lookup->access != CVX_ACCESS_WALK;
}

static bool
is_lookup(PlannerInfo *root, RelOptInfo *baserel, Oid relid, Expr *clause,
		  CvxLookup *lookup)
{
	Node	   *left;
	Node	   *right;

	if (IsA(clause, OpExpr) && list_length(((OpExpr *) clause)->args) == 2)
	{
		OpExpr	   *op = (OpExpr *) clause;

		if (!is_equality(op->opno, op->inputcollid))
			return false;
		left = linitial(op->args);
		right = lsecond(op->args);
		if (!is_id(left, baserel, relid))
		{
			left = right;
			right = linitial(op->args);
		}
		lookup->access = CVX_ACCESS_ID;
		lookup->nids = 1;
	}
	else if (IsA(clause, ScalarArrayOpExpr))
	{
		ScalarArrayOpExpr *op = (ScalarArrayOpExpr *) clause;

		if (!op->useOr || !is_equality(op->opno, op->inputcollid))
			return false;
		left = linitial(op->args);
		right = lsecond(op->args);
		lookup->access = CVX_ACCESS_IDS;
		lookup->nids = cvx_estimate_array_length(root, right);
	}
	else
		return false;
	lookup->expr = (Expr *) right;
	return is_id(left, baserel, relid) && is_fixed(root, right) &&
		getBaseType(exprType(right)) == (lookup->access == CVX_ACCESS_ID ? TEXTOID : TEXTARRAYOID);
}

/* The column that holds the _id, as a text of any length. */
static bool
is_id(const Node *node, RelOptInfo *baserel, Oid relid)
{
	const Var  *var;

	if (IsA(node, RelabelType) && ((RelabelType *) node)->resulttype == TEXTOID)
		node = (const Node *) ((RelabelType *) node)->arg;
	var = (const Var *) node;
	return IsA(node, Var) && var->varno == baserel->relid &&
		var->varlevelsup == 0 && var->varattno > 0 && var->vartypmod == -1 &&
		(var->vartype == TEXTOID || var->vartype == VARCHAROID) &&
		strcmp(cvx_options_column(relid, var->varattno)->field, "_id") == 0 &&
		!cvx_options_column(relid, var->varattno)->is_path;
}

static bool
is_equality(Oid opno, Oid collation)
{
	return opno == lookup_type_cache(TEXTOID, TYPECACHE_EQ_OPR)->eq_opr &&
		OidIsValid(collation) && get_collation_isdeterministic(collation);
}

/* Is it one value for all rows of a scan that is not run again? */
static bool
is_fixed(PlannerInfo *root, Node *expr)
{
	return !contain_var_clause(expr) && !contain_volatile_functions(expr) &&
		!contain_subplans(expr) && !has_changing_param(expr, root);
}

/*
 * A parameter of the executor that no InitPlan sets is a value of an outer row:
 * with each one of them the scan would ask again.
 */
static bool
has_changing_param(Node *node, void *arg)
{
	if (node == NULL)
		return false;
	if (IsA(node, Param) && ((Param *) node)->paramkind == PARAM_EXEC)
	{
		for (PlannerInfo *root = arg; root; root = root->parent_root)
		{
			ListCell   *lc;

			foreach(lc, root->init_plans)
				if (list_member_int(((SubPlan *) lfirst(lc))->setParam,
									((Param *) node)->paramid))
					return false;
		}
		return true;
	}
	return expression_tree_walker(node, has_changing_param, arg);
}
