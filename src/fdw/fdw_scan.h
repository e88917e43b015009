/*
 * fdw_scan.h
 *		Which row comes next, from which one snapshot?
 *
 * Room: fdw 5.7
 */
#ifndef CVX_FDW_SCAN_H
#define CVX_FDW_SCAN_H

#include "foreign/fdwapi.h"
#include "utils/snapshot.h"

#include "protocol/api.h"
#include "fdw/fdw_snapshot.h"
#include "fdw/fdw_targets.h"

/* What asynchronous execution keeps of a scan. */
typedef struct CvxScanAsync
{
	AsyncRequest *areq;			/* NULL until the first one */
	bool		is_watched;		/* the descriptor is in the set for it */
} CvxScanAsync;

/* What a scan has cost. */
typedef struct CvxScanCounters
{
	CvxHttpStats http;
	int64		pages;
	int64		documents;
	int64		ts;				/* its snapshot; 0 until known */
	int64		questions;
	const char *went_over;		/* from questions to a walk: why; or NULL */
} CvxScanCounters;

extern CvxTargets *cvx_scan_targets(EState *estate, Index relid);
extern CvxHttp *cvx_scan_prepare(CvxScan *scan);
extern void cvx_scan_start_page(CvxScan *scan);
extern TupleTableSlot *cvx_scan_next_slot(ForeignScanState *node,
										  bool may_wait, bool *is_pending);
extern bool cvx_scan_is_new(const CvxScan *scan);
extern bool cvx_scan_is_waiting(const CvxScan *scan);
extern bool cvx_scan_is_walking(const CvxScan *scan);
extern bool cvx_scan_has_news(CvxScan *scan);
extern bool cvx_scan_any_other(const CvxScan *scan,
							   bool (*holds) (CvxScan *other,
											  const CvxScan *scan));
extern CvxScanAsync *cvx_scan_async(CvxScan *scan);
extern CvxScanCounters cvx_scan_counters(const CvxScan *scan);


extern CvxScan *cvx_scan_open(Relation rel, Oid userid, Bitmapset *attnums,
							  Snapshot pg);
extern bool cvx_scan_next(CvxScan *scan, Datum *values, bool *nulls);
extern void cvx_scan_close(CvxScan *scan);
extern int64 cvx_scan_snapshot(CvxHttp *http);

extern void convexBeginForeignScan(ForeignScanState *node, int eflags);
extern TupleTableSlot *convexIterateForeignScan(ForeignScanState *node);
extern void convexReScanForeignScan(ForeignScanState *node);
extern void convexEndForeignScan(ForeignScanState *node);

#endif							/* CVX_FDW_SCAN_H */
