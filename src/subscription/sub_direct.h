/*
 * sub_direct.h
 *		How do changes reach a plain table without statements?
 *
 * Private to the room.
 *
 * Room: subscription 5.7
 */
#ifndef CVX_SUB_DIRECT_H
#define CVX_SUB_DIRECT_H

#include "subscription/sub_target.h"

extern bool cvx_direct_is_possible(CvxTarget *target);
extern int64 cvx_direct_apply(CvxTarget *target, const CvxPage *page,
							  const int *docs, int ndocs, int *done);

#endif							/* CVX_SUB_DIRECT_H */
