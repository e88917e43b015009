/*
 * measure.h
 *		How large are the documents that a flush replaces?
 *
 * Room: write 4.5
 */
#ifndef CVX_MEASURE_H
#define CVX_MEASURE_H

#include "protocol/api.h"
#include "write/queue.h"

extern int64 cvx_measure_replaced(CvxBatch *batch, CvxHttp *http,
								  int64 enough);

#endif							/* CVX_MEASURE_H */
