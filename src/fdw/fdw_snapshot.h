/*
 * fdw_snapshot.h
 *		Which Convex snapshot belongs to a PostgreSQL snapshot?
 *
 * Room: fdw 5.1
 */
#ifndef CVX_FDW_SNAPSHOT_H
#define CVX_FDW_SNAPSHOT_H

#include "utils/snapshot.h"

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

#endif							/* CVX_FDW_SNAPSHOT_H */
