/*
 * settle_check.h
 *		Have rows that are to be written changed since they were read?
 *
 * Room: write 4.3
 */
#ifndef CVX_SETTLE_CHECK_H
#define CVX_SETTLE_CHECK_H

#include "protocol/api.h"
#include "write/queue.h"

typedef struct CvxSettle CvxSettle;

/* The messages of one request, or of all of a role that follow each other. */
typedef struct CvxRange
{
	int64		begin;			/* offsets in the queue */
	int64		end;
} CvxRange;

/* One revision in the change log. */
typedef struct CvxRevision
{
	int64		ts;
	bool		is_deleted;
	bool		is_as_sent;
	char	   *text;			/* the document; NULL: not asked for */
	int			len;
	CvxTextKey	id;
} CvxRevision;

/* The revisions of the document with an id; oldest first. */
typedef struct CvxDocChange
{
	CvxTextKey	id;
	List	   *revisions;
} CvxDocChange;

struct CvxSettle
{
	/* fixed at open */
	CvxBatch   *batch;
	MemoryContext cxt;
	bool		has_checks;		/* some message of the flush is checked */

	/* per run of a role */
	CvxHttp    *http;
	CvxRange	run;
	CvxSelection selection;
	CvxPageWant want;
	bool		is_checked;		/* some message of the run is */
	int64		cursor;			/* the log was read up to here; 0: it was not */
	bool		is_current;		/* nothing was sent since then */

	/* what the flush has written */
	List	   *own;			/* timestamps of its transactions (int64 *) */
	HTAB	   *written;		/* keys of rows in transactions not known */
};

extern CvxSettle *cvx_settle_open(CvxBatch *batch);
extern void cvx_settle_check(CvxSettle *settle, CvxHttp *http, CvxRange run,
							 const char *applied);
extern void cvx_settle_before(CvxSettle *settle, int64 begin,
							  const char *applied);
extern void cvx_settle_expire(CvxSettle *settle);

/* what settle_after.c reads the log with, too */
extern bool cvx_settle_is_checked(const CvxMessage *message);
extern bool cvx_settle_has_checked(CvxBatch *batch, CvxRange range);
extern CvxTextKey cvx_settle_row_key(CvxBatch *batch, const CvxMessage *message);
extern HTAB *cvx_settle_read_changes(CvxSettle *settle, CvxRange range,
									 int64 *cursor);
extern void cvx_settle_read_log(CvxSettle *settle, bool is_whole, int64 *cursor,
								void (*take) (CvxSettle *settle, const CvxPage *page,
											  const CvxDoc *doc, void *arg),
								void *arg);
extern CvxDocChange *cvx_settle_find_change(HTAB *changes,
											const CvxMessage *message);
extern void cvx_settle_compare_unsent(CvxSettle *settle, HTAB *changes,
									  CvxRange range, const char *applied);
extern bool cvx_settle_is_own(const CvxSettle *settle, int64 ts);

#endif							/* CVX_SETTLE_CHECK_H */
