/*
 * walk.h
 *		Does a page follow the one before?
 *
 * Room: protocol 2.10
 */
#ifndef CVX_WALK_H
#define CVX_WALK_H

#include "nodes/pg_list.h"

#include "protocol/api.h"

/* How far the walk over a snapshot has come. */
typedef struct CvxWalk
{
	/* fixed at open */
	MemoryContext cxt;
	const char *server;
	int			ntables;		/* that are selected */

	/* the next page is asked for with these */
	int64		snapshot;		/* 0: not known yet */
	char	   *cursor;			/* NULL: the first page */

	/* what has been seen */
	List	   *tables;			/* "component/table" of each; the last is open */
	StringInfoData last_id;		/* of the open table */
	int			nempty;			/* empty pages in a row */
	int			nbroken;		/* pages in a row that did not follow */
} CvxWalk;

/* How far the change log has been read. */
typedef struct CvxLog
{
	const char *server;
	int64		cursor;			/* the next page is asked for with it */
	int			nempty;			/* empty pages in a row */
	int64		empty_from;		/* where the first of them began */
} CvxLog;

extern CvxWalk *cvx_walk_open(const char *server, int ntables);
extern void cvx_walk_resume(CvxWalk *walk, int64 snapshot, const char *cursor);
extern void cvx_walk_enter(CvxWalk *walk, const char *component,
						   const char *table, const char *last_id);
extern void cvx_walk_check(CvxWalk *walk, const CvxPage *page);
extern void cvx_walk_close(CvxWalk *walk);
extern void cvx_log_begin(CvxLog *log, const char *server, int64 cursor);
extern bool cvx_log_check(CvxLog *log, const CvxPage *page);
CVX_NORETURN extern void cvx_log_fail_behind(const CvxLog *log,
											 const CvxPage *page);

#endif							/* CVX_WALK_H */
