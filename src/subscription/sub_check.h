/*
 * sub_check.h
 *		Is a table what Convex has?
 *
 * Private to the room.
 *
 * Room: subscription 5.13
 */
#ifndef CVX_SUB_CHECK_H
#define CVX_SUB_CHECK_H

#include "subscription/sub_step.h"

extern bool cvx_check_is_pending(CvxSync *sync);
extern List *cvx_check_find(CvxSync *sync, List *names);
extern CvxStep cvx_check_tables(CvxSync *sync);
extern CvxStep cvx_check_loaded(CvxSync *sync, List *rels, int64 ts);

#endif							/* CVX_SUB_CHECK_H */
