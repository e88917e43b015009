/*
 * fdw_update.h
 *		What does an UPDATE or DELETE change in its documents?
 *
 * Room: fdw 5.13
 */
#ifndef CVX_FDW_UPDATE_H
#define CVX_FDW_UPDATE_H

#include "fdw/fdw_row.h"

/* The change of one column: a new value, or none. */
typedef struct CvxChange
{
	CvxRowColumn *column;
	char	   *value;			/* NULL: the field is taken out */
	int			len;
	bool		is_same;		/* as it was */
} CvxChange;

extern void cvx_update_open(CvxModify *modify, ModifyTableState *mtstate,
							ResultRelInfo *rri, int subplan_index);
extern bool cvx_update_find(CvxModify *modify, TupleTableSlot *plan_slot,
							CvxTargetRow *target);
extern CvxChange *cvx_update_collect(CvxModify *modify, TupleTableSlot *slot,
									 const CvxTargetRow *target, int *nchanges,
									 bool *needs_whole);
extern void cvx_update_put(CvxModify *modify, const CvxTargetRow *target,
						   CvxChange *changes, int nchanges);
extern bool cvx_update_put_whole(CvxModify *modify, const CvxTargetRow *target,
								 CvxChange *changes, int nchanges);
extern void cvx_update_delete(CvxModify *modify, const CvxTargetRow *target,
							  bool has_partner);
extern void cvx_update_decode(CvxModify *modify, const CvxTargetRow *target,
							  Datum *values, bool *nulls);

#endif							/* CVX_FDW_UPDATE_H */
