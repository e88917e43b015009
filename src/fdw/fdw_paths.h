/*
 * fdw_paths.h
 *		Which part of a query can Convex answer by itself?
 *
 * Room: fdw 5.4
 */
#ifndef CVX_FDW_PATHS_H
#define CVX_FDW_PATHS_H

#include "nodes/pathnodes.h"

/* How a scan gets its rows. */
typedef enum CvxAccess
{
	CVX_ACCESS_WALK,			/* the export, whole */
	CVX_ACCESS_ID,				/* the document of an _id */
	CVX_ACCESS_IDS,				/* those of an array of them */
	CVX_ACCESS_COUNT			/* no document, but how many there are */
} CvxAccess;

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
extern bool cvx_paths_find_lookup(PlannerInfo *root, RelOptInfo *baserel,
								  Oid relid, CvxLookup *lookup);

#endif							/* CVX_FDW_PATHS_H */
