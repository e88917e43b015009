/*
 * page.h
 *		What did a snapshot or delta answer say?
 *
 * Room: protocol 2.1
 */
#ifndef CVX_PAGE_H
#define CVX_PAGE_H

#include "wire/json.h"

/* A piece of the page's text; len 0 means absent. */
typedef struct CvxSpan
{
	uint32		offset;
	uint32		len;
} CvxSpan;

/* A table that may appear in an answer. */
typedef struct CvxTableName
{
	const char *component;		/* "" is the root component */
	const char *table;			/* NULL: every table of the component */
} CvxTableName;

/* What the caller wants of a page; all names in UTF-8. */
typedef struct CvxPageWant
{
	bool		is_delta;		/* document_deltas, not list_snapshot */
	const CvxTableName *tables; /* rows of other tables are an error */
	int			ntables;		/* 0: any table */
	const char *const *fields;	/* wanted top-level fields, strcmp order */
	const int  *field_lens;
	int			nfields;
} CvxPageWant;

typedef struct CvxDoc
{
	int64		ts;				/* commit timestamp of the revision */
	bool		is_deleted;
	CvxSpan		component;		/* strings, without quotes */
	CvxSpan		table;
	CvxSpan		id;
	CvxSpan		document;		/* the whole object with its metadata */
	int			nothers;		/* members that are neither metadata nor wanted */
	uint32		first_value;	/* its wanted fields in the page's values */
	uint32		nvalues;
} CvxDoc;

/* A wanted field that a document has. */
typedef struct CvxFieldSpan
{
	int			field;			/* number in the wanted ones */
	CvxSpan		span;
} CvxFieldSpan;

typedef struct CvxPage
{
	const char *text;			/* the caller's body; not copied */
	int			ndocs;
	CvxDoc	   *docs;
	CvxFieldSpan *values;		/* of each document in turn */
	uint32		nvalues;
	const char *const *fields;	/* those wanted; the caller's, not copied */
	int			nfields;
	int64		ts;				/* snapshot, or the delta cursor */
	char	   *cursor;			/* snapshot walk: unescaped UTF-8, or NULL */
	bool		has_more;
} CvxPage;

extern CvxPage *cvx_page_parse(const char *body, size_t len,
							   const CvxPageWant *want);
extern bool cvx_page_peek(const char *body, size_t len, bool is_delta,
						  int64 *ts, char **cursor);
extern CvxPage *cvx_page_of_document(const char *doc, size_t len,
									 const CvxPageWant *want);
extern CvxPage *cvx_page_of_documents(const char *body, const CvxText *list,
									  int64 ts, const CvxPageWant *want,
									  int *nelements);
extern void cvx_page_spans(const CvxPage *page, const CvxDoc *doc,
						   CvxSpan *spans);
extern bool cvx_page_is_document_member(const CvxText *name);

#endif							/* CVX_PAGE_H */
