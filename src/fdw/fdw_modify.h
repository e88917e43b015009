/*
 * fdw_modify.h
 *		How do INSERT, UPDATE, DELETE, TRUNCATE become messages?
 *
 * Room: fdw 5.14
 */
#ifndef CVX_FDW_MODIFY_H
#define CVX_FDW_MODIFY_H

#include "foreign/fdwapi.h"

extern void convexAddForeignUpdateTargets(PlannerInfo *root, Index rtindex,
										  RangeTblEntry *target_rte,
										  Relation target_relation);
extern List *convexPlanForeignModify(PlannerInfo *root, ModifyTable *plan,
									 Index resultRelation, int subplan_index);
extern void convexBeginForeignModify(ModifyTableState *mtstate,
									 ResultRelInfo *rri, List *fdw_private,
									 int subplan_index, int eflags);
extern TupleTableSlot *convexExecForeignInsert(EState *estate,
											   ResultRelInfo *rri,
											   TupleTableSlot *slot,
											   TupleTableSlot *plan_slot);
extern TupleTableSlot *convexExecForeignUpdate(EState *estate,
											   ResultRelInfo *rri,
											   TupleTableSlot *slot,
											   TupleTableSlot *plan_slot);
extern TupleTableSlot *convexExecForeignDelete(EState *estate,
											   ResultRelInfo *rri,
											   TupleTableSlot *slot,
											   TupleTableSlot *plan_slot);
extern void convexEndForeignModify(EState *estate, ResultRelInfo *rri);
extern void convexBeginForeignInsert(ModifyTableState *mtstate,
									 ResultRelInfo *rri);
extern void convexEndForeignInsert(EState *estate, ResultRelInfo *rri);
extern int	convexIsForeignRelUpdatable(Relation rel);
extern void convexExplainForeignModify(ModifyTableState *mtstate,
									   ResultRelInfo *rri, List *fdw_private,
									   int subplan_index,
									   struct ExplainState *es);
extern void convexExecForeignTruncate(List *rels, DropBehavior behavior,
									  bool restart_seqs);

#endif							/* CVX_FDW_MODIFY_H */
