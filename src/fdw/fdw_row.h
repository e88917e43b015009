/*
 * fdw_row.h
 *		How does a row become a document, and a message?
 *
 * Room: fdw 5.12
 */
#ifndef CVX_FDW_ROW_H
#define CVX_FDW_ROW_H

#include "nodes/execnodes.h"

#include "ground/compat.h"
#include "shape/encode.h"
#include "shape/options_read.h"
#include "write/batch.h"
#include "write/keycheck.h"
#include "fdw/fdw_scan.h"

/* One writable column. */
typedef struct CvxRowColumn
{
	AttrNumber	attnum;
	char	   *name;
	CvxColumnOptions *options;
	CvxPath		path;			/* one name unless options->is_path */
	List	   *outer;			/* numbers of columns that hold its field */
	bool		is_system;		/* _id or _creationTime */
	bool		is_generated;	/* the executor computes it anew */
	bool		is_dropped_by_route;
	CvxEncoder *encoder;
	int16		typlen;
	bool		typbyval;
} CvxRowColumn;

typedef struct CvxModify
{
	/* fixed at begin */
	CvxTableOptions *options;
	TupleDesc	tupdesc;
	CvxBatch   *batch;
	int			table;			/* its number in the batch */
	CommandId	cid;			/* of the command that writes */
	int			ncolumns;
	CvxRowColumn *columns;
	bool		is_simple;		/* every column is a field of its own */
	CvxRowColumn *document;		/* the '*' column, or NULL */
	Oid			userid;
	CvxKeyColumn *key_columns;	/* what they write; NULL: no key */
	bool		is_key_known;	/* they are what the columns write */

	/* UPDATE and DELETE, or NULL */
	struct CvxUpdate *update;

	/* per row */
	int64		nrows;
	CvxRowColumn *column;		/* being encoded, or NULL */

	/* memory */
	MemoryContext cxt;
	MemoryContext row_cxt;
} CvxModify;

extern CvxModify *cvx_row_open(EState *estate, ResultRelInfo *rri,
							   bool has_plan);
extern void cvx_row_begin(CvxModify *modify, ErrorContextCallback *callback);
extern void cvx_row_encode(CvxModify *modify, CvxRowColumn *column,
						   Datum value, const CvxText *old, StringInfo out);
extern void cvx_row_look_at_key(CvxModify *modify);
extern void cvx_row_build(CvxModify *modify, TupleTableSlot *slot,
						  StringInfo out);
extern void cvx_row_lay_over(CvxModify *modify, CvxRowColumn *column,
							 const char *value, int len,
							 const CvxTargetRow *target, StringInfo doc);
CVX_NORETURN extern void cvx_row_fail_unlike(CvxModify *modify,
											 CvxRowColumn *column);
extern void cvx_row_document(CvxModify *modify, Datum value,
							 const CvxTargetRow *target, StringInfo out);
extern void cvx_row_put(CvxModify *modify, CvxMessage *message,
						const StringInfoData *key, const StringInfoData *row);
extern void cvx_row_key(CvxModify *modify, const char *doc, int len,
						StringInfo key);
extern void cvx_row_check_key(CvxModify *modify, const char *doc, int len);

#endif							/* CVX_FDW_ROW_H */
