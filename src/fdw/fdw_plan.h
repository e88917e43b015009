/*
 * fdw_plan.h
 *		What is estimated, planned, pushed down?
 *
 * Room: fdw 5.5
 */
#ifndef CVX_FDW_PLAN_H
#define CVX_FDW_PLAN_H

#include "foreign/fdwapi.h"

/* What GetForeignPlan leaves for the executor in fdw_private. */
enum CvxPlanPrivate
{
	CVX_PLAN_ATTNUMS,			/* needed columns, a list of integers */
	CVX_PLAN_BOUND,				/* rows that LIMIT wants at most; -1 unknown */
	CVX_PLAN_TARGET,			/* 1: UPDATE or DELETE of this table */
	CVX_PLAN_ACCESS,			/* CvxAccess */
	CVX_PLAN_ORDER				/* CvxOrderPrivate, or NIL */
};

extern void convexGetForeignRelSize(PlannerInfo *root, RelOptInfo *baserel,
									Oid relid);
extern void convexGetForeignPaths(PlannerInfo *root, RelOptInfo *baserel,
								  Oid relid);
extern ForeignScan *convexGetForeignPlan(PlannerInfo *root,
										 RelOptInfo *baserel, Oid relid,
										 ForeignPath *best_path, List *tlist,
										 List *scan_clauses, Plan *outer_plan);
extern bool convexIsForeignPathAsyncCapable(ForeignPath *path);
extern void cvx_plan_check_system_columns(PlannerInfo *root, Index relid,
										  Oid table);
extern void cvx_plan_check_routed(ModifyTable *plan, bool is_top, Oid table);
extern bool cvx_plan_may_rescan(EState *estate, ForeignScan *plan, int eflags);

#endif							/* CVX_FDW_PLAN_H */
