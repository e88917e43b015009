/*
 * fdw.h
 *		What do the files of the foreign-data wrapper share?
 *
 * Private to the room and to the floors above it.
 *
 * Room: fdw 5.0
 */
#ifndef CVX_FDW_H
#define CVX_FDW_H

#include "foreign/fdwapi.h"
#include "lib/stringinfo.h"
#include "utils/snapshot.h"

#include "protocol/api.h"
#include "shape/options.h"

/* What GetForeignPlan leaves for the executor in fdw_private. */
enum CvxPlanPrivate
{
	CVX_PLAN_ATTNUMS,			/* needed columns, a list of integers */
	CVX_PLAN_BOUND,				/* rows that LIMIT wants at most; -1 unknown */
	CVX_PLAN_TARGET				/* 1: UPDATE or DELETE of this table */
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

/* ---- fdw_own.c: which rows do pending writes make of a snapshot's? */

typedef struct CvxOwn CvxOwn;

typedef enum CvxOwnEffect
{
	CVX_OWN_NONE,				/* the document is as the snapshot has it */
	CVX_OWN_CHANGED,
	CVX_OWN_GONE
} CvxOwnEffect;

extern CvxOwn *cvx_own_open(Oid serverid, const char *table, CommandId cid);
extern void cvx_own_close(CvxOwn *own);
extern List *cvx_own_key_fields(const CvxOwn *own);
extern bool cvx_own_hides_all(const CvxOwn *own);
extern CvxOwnEffect cvx_own_apply(CvxOwn *own, const char *doc, size_t len,
								  StringInfo out);
extern bool cvx_own_next(CvxOwn *own, StringInfo out);
extern void cvx_own_rewind(CvxOwn *own);

/* ---- fdw_scan.c */

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
extern void cvx_plan_check_system_columns(PlannerInfo *root, Index relid,
										  Oid table);
extern void cvx_plan_check_routed(ModifyTable *plan, bool is_top, Oid table);
extern bool cvx_plan_may_rescan(EState *estate, ForeignScan *plan, int eflags);

/* ---- fdw_modify.c */

extern void cvx_modify_init(void);
extern void convexAddForeignUpdateTargets(PlannerInfo *root, Index rtindex,
										  RangeTblEntry *target_rte,
										  Relation target_relation);
extern List *convexPlanForeignModify(PlannerInfo *root, ModifyTable *plan,
									 Index resultRelation, int subplan_index);
extern void convexBeginForeignModify(ModifyTableState *mtstate,
									 ResultRelInfo *rri, List *fdw_private,
									 int subplan_index, int eflags);
extern TupleTableSlot *convexExecForeignInsert(EState *estate,
											   ResultRelInfo *rri,
											   TupleTableSlot *slot,
											   TupleTableSlot *plan_slot);
extern TupleTableSlot *convexExecForeignUpdate(EState *estate,
											   ResultRelInfo *rri,
											   TupleTableSlot *slot,
											   TupleTableSlot *plan_slot);
extern TupleTableSlot *convexExecForeignDelete(EState *estate,
											   ResultRelInfo *rri,
											   TupleTableSlot *slot,
											   TupleTableSlot *plan_slot);
extern void convexEndForeignModify(EState *estate, ResultRelInfo *rri);
extern void convexBeginForeignInsert(ModifyTableState *mtstate,
									 ResultRelInfo *rri);
extern void convexEndForeignInsert(EState *estate, ResultRelInfo *rri);
extern int	convexIsForeignRelUpdatable(Relation rel);
extern void convexExplainForeignModify(ModifyTableState *mtstate,
									   ResultRelInfo *rri, List *fdw_private,
									   int subplan_index,
									   struct ExplainState *es);
extern void convexExecForeignTruncate(List *rels, DropBehavior behavior,
									  bool restart_seqs);

/* ---- fdw_import.c */

extern List *convexImportForeignSchema(ImportForeignSchemaStmt *stmt,
									   Oid serverid);
extern void cvx_import_init(void);

#endif							/* CVX_FDW_H */
