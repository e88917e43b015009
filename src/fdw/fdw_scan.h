/*
 * fdw_scan.h
 *		Which row comes next, from which one snapshot?
 *
 * Room: fdw 5.4
 */
#ifndef CVX_FDW_SCAN_H
#define CVX_FDW_SCAN_H

#include "foreign/fdwapi.h"
#include "utils/snapshot.h"

#include "protocol/api.h"
#include "fdw/fdw_snapshot.h"

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

extern CvxScan *cvx_scan_find(EState *estate, Index relid);
extern void cvx_scan_target_row(CvxScan *scan, ItemPointer tid,
								CvxTargetRow *row);

extern CvxScan *cvx_scan_open(Relation rel, Oid userid, Bitmapset *attnums,
							  Snapshot pg);
extern bool cvx_scan_next(CvxScan *scan, Datum *values, bool *nulls);
extern void cvx_scan_close(CvxScan *scan);
extern int64 cvx_scan_snapshot(CvxHttp *http);

extern void convexBeginForeignScan(ForeignScanState *node, int eflags);
extern TupleTableSlot *convexIterateForeignScan(ForeignScanState *node);
extern void convexReScanForeignScan(ForeignScanState *node);
extern void convexEndForeignScan(ForeignScanState *node);
extern void convexExplainForeignScan(ForeignScanState *node,
									 struct ExplainState *es);
extern void convexForeignAsyncRequest(AsyncRequest *areq);
extern void convexForeignAsyncConfigureWait(AsyncRequest *areq);
extern void convexForeignAsyncNotify(AsyncRequest *areq);

#endif							/* CVX_FDW_SCAN_H */
