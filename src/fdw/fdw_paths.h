/*
 * fdw_paths.h
 *		Which part of a query can Convex answer by itself?
 *
 * Room: fdw 5.4
 */
#ifndef CVX_FDW_PATHS_H
#define CVX_FDW_PATHS_H

#include "nodes/pathnodes.h"

#include "shape/options_read.h"

/* How a scan gets its rows. */
typedef enum CvxAccess
{
	CVX_ACCESS_WALK,			/* the export, whole */
	CVX_ACCESS_ID,				/* the document of an _id */
	CVX_ACCESS_IDS,				/* those of an array of them */
	CVX_ACCESS_COUNT,			/* no document, but how many there are */
	CVX_ACCESS_NEWEST			/* all, the newest or the oldest first */
} CvxAccess;

/* An order that Convex gives, as integers of a plan. */
enum CvxOrderPrivate
{
	CVX_ORDER_ATTNUM,			/* of the column with _creationTime */
	CVX_ORDER_DESCENDS,
	CVX_ORDER_OPERATOR,
	CVX_ORDER_NULLS_FIRST,
	CVX_ORDER_WANTED			/* rows that are probably enough; 0: unknown */
};

/* What is looked up. */
typedef struct CvxLookup
{
	CvxAccess	access;
	Expr	   *expr;			/* text, or text[] */
	double		nids;			/* estimated */
} CvxLookup;

extern void convexGetForeignUpperPaths(PlannerInfo *root,
									   UpperRelationKind stage,
									   RelOptInfo *input, RelOptInfo *output,
									   void *extra);
extern List *cvx_paths_find_order(PlannerInfo *root, RelOptInfo *baserel,
								  Oid relid,
								  const CvxTableOptions *options,
								  PathKey **pathkey);
extern bool cvx_paths_find_lookup(PlannerInfo *root, RelOptInfo *baserel,
								  Oid relid, CvxLookup *lookup);

#endif							/* CVX_FDW_PATHS_H */
