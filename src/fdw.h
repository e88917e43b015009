/*
 * fdw.h
 *		What do the files of the foreign-data wrapper share?
 *
 * Private to the room and to the doors above it.
 *
 * Room: fdw 4.0
 */
#ifndef CVX_FDW_H
#define CVX_FDW_H

#include "foreign/fdwapi.h"
#include "utils/snapshot.h"

#include "api.h"
#include "options.h"

/* What GetForeignPlan leaves for the executor in fdw_private. */
enum CvxPlanPrivate
{
	CVX_PLAN_ATTNUMS,			/* needed columns, a list of integers */
	CVX_PLAN_BOUND				/* rows that LIMIT wants at most; -1 unknown */
};

/* ---- fdw_snapshot.c: which Convex snapshot belongs to a PostgreSQL one? */

typedef struct CvxScan CvxScan;

/* One Convex snapshot in use; lives at most until the transaction ends. */
typedef struct CvxSnapshot
{
	Oid			serverid;
	Snapshot	pg;				/* registered by us; NULL: the transaction's */
	int64		pinned;			/* convex_fdw.snapshot when it was made, or 0 */
	int64		ts;				/* 0 until the first answer */
	CvxScan    *asker;			/* whose request will tell; or NULL */
} CvxSnapshot;

extern void cvx_snapshot_init(void);
extern CvxSnapshot *cvx_snapshot_get(Oid serverid, Snapshot pg, int64 pinned);
extern int64 cvx_snapshot_pinned(void);

/* ---- fdw_scan.c */

extern int	cvx_analyze_max_documents;

extern void cvx_scan_init(void);

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

/* ---- fdw_plan.c */

extern void convexGetForeignRelSize(PlannerInfo *root, RelOptInfo *baserel,
									Oid relid);
extern void convexGetForeignPaths(PlannerInfo *root, RelOptInfo *baserel,
								  Oid relid);
extern ForeignScan *convexGetForeignPlan(PlannerInfo *root,
										 RelOptInfo *baserel, Oid relid,
										 ForeignPath *best_path, List *tlist,
										 List *scan_clauses, Plan *outer_plan);
extern bool convexIsForeignPathAsyncCapable(ForeignPath *path);
extern bool convexAnalyzeForeignTable(Relation relation,
									  AcquireSampleRowsFunc *func,
									  BlockNumber *totalpages);
extern bool cvx_plan_may_rescan(EState *estate, ForeignScan *plan, int eflags);

/* ---- fdw_import.c */

extern List *convexImportForeignSchema(ImportForeignSchemaStmt *stmt,
									   Oid serverid);
extern void cvx_import_init(void);

#endif							/* CVX_FDW_H */
