/*
 * fdw_targets.h
 *		Where is the document of a row that UPDATE or DELETE may change?
 *
 * Room: fdw 5.3
 */
#ifndef CVX_FDW_TARGETS_H
#define CVX_FDW_TARGETS_H

#include "executor/tuptable.h"

#include "protocol/page.h"

typedef struct CvxTargets CvxTargets;

/* A row that UPDATE or DELETE is about, as its scan has seen it. */
typedef struct CvxTargetRow
{
	int64		number;			/* of the scan's rows, from 0 */
	int64		ts;				/* the snapshot */
	char	   *id;				/* NULL: not in Convex yet */
	int			id_len;
	char	   *doc;			/* with what the endpoint added */
	int			doc_len;
} CvxTargetRow;

extern CvxTargets *cvx_targets_open(void);
extern void cvx_targets_close(CvxTargets *targets);
extern void cvx_targets_put(CvxTargets *targets, const CvxPage *page, int row,
							int64 ts);
extern void cvx_targets_mark_new(CvxTargets *targets, TupleTableSlot *slot);
extern void cvx_targets_mark_kept(CvxTargets *targets, TupleTableSlot *slot);
extern void cvx_targets_rewind(CvxTargets *targets);
extern void cvx_targets_get(CvxTargets *targets, ItemPointer tid,
							CvxTargetRow *row);

#endif							/* CVX_FDW_TARGETS_H */
