/*
 * fdw_ask.h
 *		What does Convex answer to a scan's question?
 *
 * Room: fdw 5.6
 */
#ifndef CVX_FDW_ASK_H
#define CVX_FDW_ASK_H

#include "executor/executor.h"
#include "utils/hsearch.h"

#include "protocol/api.h"
#include "shape/options_read.h"
#include "fdw/fdw_paths.h"

/* Documents in the order of their creation, page by page. */
typedef struct CvxAskOrder
{
	/* fixed at begin */
	AttrNumber	attnum;
	bool		descends;
	Oid			operator;		/* that sorts as Convex does */
	bool		nulls_first;

	/* from the first page on */
	int			page_size;
	char	   *cursor;			/* of the last page, in its context; or NULL */
	bool		is_done;
	double		last;			/* _creationTime of the last document */
	int64		nread;
	int			npages;
	HTAB	   *given;			/* _ids; NULL: none */
	MemoryContext page_cxt[2];	/* in turn; NULL before their first page */
} CvxAskOrder;

/* The questions of one scan. */
typedef struct CvxAsk
{
	/* fixed at begin */
	CvxAccess	access;
	ExprState  *expr;
	ExprContext *econtext;

	/* per scan */
	int			nasked;			/* times that the scan was run */
	int			nquestions;		/* requests */
	const char *went_over;		/* why it reads the whole table; NULL: it does not */

	CvxAskOrder *order;			/* NULL: there is none */

	/* of a count */
	bool		is_counted;
	bool		is_given;		/* to the executor, since the last rescan */
	int64		count;

	/* the answer */
	MemoryContext cxt;
	List	   *pages;			/* CvxPage, not yet given out */
} CvxAsk;

extern void cvx_ask_init(void);
extern CvxAsk *cvx_ask_open(CvxAccess access, ExprState *expr,
							ExprContext *econtext);
extern void cvx_ask_forget(void);
extern bool cvx_ask_may(CvxAsk *ask, const CvxTableOptions *options);
extern bool cvx_ask_go_over(CvxAsk *ask, const char *why);
extern bool cvx_ask_documents(CvxAsk *ask, CvxHttp *http, CvxHttpStats *stats,
							  const CvxTableOptions *options, int64 ts,
							  const CvxPageWant *want);

extern void cvx_ask_set_order(CvxAsk *ask, List *order);
extern void cvx_ask_rewind(CvxAsk *ask);
extern CvxPage *cvx_ask_page(CvxAsk *ask, CvxHttp *http, CvxHttpStats *stats,
							 const CvxTableOptions *options, int64 ts,
							 const CvxPageWant *want);
extern bool cvx_ask_was_given(const CvxAsk *ask, const CvxPage *page, int row);
extern bool cvx_ask_count(CvxAsk *ask, CvxHttp *http, CvxHttpStats *stats,
						  const CvxTableOptions *options, int64 ts);

#endif							/* CVX_FDW_ASK_H */
