/*
 * fdw_async.h
 *		How do scans below one Append overlap?
 *
 * Room: fdw 5.8
 */
#ifndef CVX_FDW_ASYNC_H
#define CVX_FDW_ASYNC_H

#include "foreign/fdwapi.h"

extern void convexForeignAsyncRequest(AsyncRequest *areq);
extern void convexForeignAsyncConfigureWait(AsyncRequest *areq);
extern void convexForeignAsyncNotify(AsyncRequest *areq);

#endif							/* CVX_FDW_ASYNC_H */
