/*
 * functions.h
 *		What does a function of Convex answer?
 *
 * Room: protocol 2.12
 */
#ifndef CVX_FUNCTIONS_H
#define CVX_FUNCTIONS_H

#include "protocol/api.h"

typedef enum CvxVerdict
{
	CVX_VERDICT_GOOD,
	CVX_VERDICT_TOO_MUCH,		/* less at once may work */
	CVX_VERDICT_NOT_NOW,		/* the timestamp is gone, or there is trouble */
	CVX_VERDICT_NEVER			/* no permission, or no such function */
} CvxVerdict;

/* The answer lives as long as the context that it was asked for in. */
typedef struct CvxFunctionAnswer
{
	CvxVerdict	verdict;
	const char *body;			/* UTF-8, checked */
	size_t		nbytes;			/* of it */
	CvxText		value;			/* within it; only of a good one */
	const char *problem;		/* words of ours or, redacted, of the server */
} CvxFunctionAnswer;

/* A page of documents. */
typedef struct CvxFunctionPage
{
	CvxPage    *page;
	bool		is_done;
	char	   *cursor;			/* of the next one; or NULL */
} CvxFunctionPage;

extern CvxFunctionAnswer cvx_function_query_at(CvxHttp *http,
											   CvxHttpStats *stats,
											   const char *path,
											   const char *args, int64 ts);

extern CvxPage *cvx_function_documents(const CvxFunctionAnswer *answer,
									   int64 ts, const CvxPageWant *want,
									   int *nelements);

extern bool cvx_function_number(const char *json, size_t len, double *number);
extern bool cvx_function_page(const CvxFunctionAnswer *answer, int64 ts,
							  const CvxPageWant *want,
							  CvxFunctionPage *page);

#endif							/* CVX_FUNCTIONS_H */
