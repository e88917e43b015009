/*
 * measure.h
 *		How large are the documents that a flush replaces?
 *
 * Room: shape 3.12
 */
#ifndef CVX_MEASURE_H
#define CVX_MEASURE_H

#include "api.h"
#include "queue.h"

extern int64 cvx_measure_replaced(CvxBatch *batch, CvxHttp *http,
								  int64 enough);

#endif							/* CVX_MEASURE_H */
