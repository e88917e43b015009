/*
 * batch.h
 *		When do writes leave the backend?
 *
 * Room: write 4.6
 */
#ifndef CVX_BATCH_H
#define CVX_BATCH_H

#include "write/queue.h"

extern void cvx_batch_init(void);
extern CvxBatch *cvx_batch_open(const CvxTableOptions *options);
extern void cvx_batch_put(CvxBatch *batch, const CvxMessage *message);
extern void cvx_batch_end_statement(CvxBatch *batch);

#endif							/* CVX_BATCH_H */
