/*
 * settle.h
 *		Did somebody else change the rows that a flush writes?
 *
 * Room: write 4.3
 */
#ifndef CVX_SETTLE_H
#define CVX_SETTLE_H

#include "protocol/api.h"
#include "write/queue.h"

typedef struct CvxSettle CvxSettle;

/* The messages of one request, or of all of a role that follow each other. */
typedef struct CvxRange
{
	int64		begin;			/* offsets in the queue */
	int64		end;
} CvxRange;

extern CvxSettle *cvx_settle_open(CvxBatch *batch);
extern void cvx_settle_check(CvxSettle *settle, CvxHttp *http, CvxRange run,
							 const char *applied);
extern void cvx_settle_before(CvxSettle *settle, int64 begin,
							  const char *applied);
extern void cvx_settle_expire(CvxSettle *settle);
extern CvxOutcome cvx_settle_lost(CvxSettle *settle, CvxRange request);
extern void cvx_settle_after(CvxSettle *settle, CvxRange request,
							 int64 marker, const char *applied);

#endif							/* CVX_SETTLE_H */
