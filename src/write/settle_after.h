/*
 * settle_after.h
 *		What has become of a request, and what did it overwrite?
 *
 * Room: write 4.4
 */
#ifndef CVX_SETTLE_AFTER_H
#define CVX_SETTLE_AFTER_H

#include "write/settle_check.h"

extern CvxOutcome cvx_settle_lost(CvxSettle *settle, CvxRange request);
extern void cvx_settle_after(CvxSettle *settle, CvxRange request,
							 int64 marker, const char *applied);

#endif							/* CVX_SETTLE_AFTER_H */
