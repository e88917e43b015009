/*
 * sub_target.h
 *		What is a target, and what came of a document that became a row of it?
 *
 * Private to the room.
 *
 * Room: subscription 5.6
 */
#ifndef CVX_SUB_TARGET_H
#define CVX_SUB_TARGET_H

#include "access/tupdesc.h"
#include "utils/rel.h"

#include "protocol/page.h"
#include "shape/typeio.h"
#include "shape/value_decode.h"
#include "subscription/sub_catalog.h"

/* How long an ALTER TABLE may wait for its lock. */
#define CVX_ALTER_LOCK_TIMEOUT	"1s"

/* What fills a column. */
typedef enum CvxColumnRole
{
	CVX_ROLE_FIELD,
	CVX_ROLE_TS,
	CVX_ROLE_EXTRA,
	CVX_ROLE_DELETED,
	CVX_ROLE_DELETED_AT,
	CVX_ROLE_DOCUMENT
} CvxColumnRole;

typedef struct CvxColumn
{
	AttrNumber	attnum;
	char	   *name;
	CvxColumnRole role;
	char	   *field;
	size_t		field_len;
	Oid			type;
	CvxCodec   *codec;
	int			kind;			/* the one kind it holds exactly; -1: see base */
	bool		is_json;
	Oid			base;			/* below domains */
	CvxTypeIO	output;			/* of the base, if kind is -1 */
} CvxColumn;

/* What comes of an ALTER TABLE ADD COLUMN. */
typedef enum CvxAdding
{
	CVX_ADDING_DONE,
	CVX_ADDING_LATER,			/* somebody has the table locked */
	CVX_ADDING_REFUSED			/* for as long as the table is what it is */
} CvxAdding;

/* What a field's column was filled from, where rows may be too big. */
typedef struct CvxSource
{
	bool		is_field;
	CvxText		name;
	CvxText		text;			/* empty: nothing, or in _extra anyway */
} CvxSource;

/* The document that was decoded last. */
typedef struct CvxTargetRow
{
	MemoryContext cxt;
	const CvxPage *page;		/* that it is of */
	bool		is_found;		/* the page's parser has found the fields */
	CvxSpan    *spans;			/* of its fields */
	Datum	   *values;			/* by attribute number - 1 */
	bool	   *nulls;
	CvxSource  *sources;		/* the same; NULL: every row fits into a page */
} CvxTargetRow;

/* A relation that gets rows, opened for one page. */
typedef struct CvxTarget
{
	const CvxSubscription *sub;
	CvxSubRel  *rel;
	Relation	relation;
	TupleDesc	tupdesc;
	char	   *name;			/* quoted, with its schema */
	int			ncolumns;
	CvxColumn  *columns;		/* fields in byte order first, then the rest */
	int			nfields;
	const CvxColumn *id;
	const CvxColumn *ts;
	const CvxColumn *extra;

	/* per page */
	List	   *unknowns;		/* Unknown */
	List	   *drifts;			/* char * */
	bool		may_add;		/* unknown fields are to get columns */
	CvxTargetRow row;
} CvxTarget;

/* While another role is acted for: what there was before. */
typedef struct CvxTurn
{
	Oid			userid;
	int			context;
	int			nest;			/* of settings */
} CvxTurn;

extern void cvx_target_want(const CvxSubRel *rel, CvxPageWant *want);
extern CvxTarget *cvx_target_open(const CvxSubscription *sub, CvxSubRel *rel,
								  Oid relid);
extern Relation cvx_target_lock(Oid relid, LOCKMODE lockmode);
extern void cvx_target_close(CvxTarget *target);
extern void cvx_target_decode(CvxTarget *target, const CvxPage *page,
							  const CvxDoc *doc, StringInfo extra);
extern void cvx_target_note_unknowns(CvxTarget *target, const CvxPage *page,
									 const CvxDoc *doc);
extern bool cvx_target_add_columns(CvxTarget *target);
extern CvxAdding cvx_target_add_column(const CvxSubRel *rel, Oid relid,
									   const char *name, const char *type,
									   const char *field, char **drift);
extern void cvx_target_report_drifts(CvxTarget *target);
extern char *cvx_target_column_type(TupleDesc tupdesc, AttrNumber attnum);
extern char *cvx_target_base_type(TupleDesc tupdesc, AttrNumber attnum);
extern Oid	cvx_target_owner(Oid relid);
extern void cvx_target_begin_turn(CvxTurn *turn, Oid owner);
extern void cvx_target_end_turn(const CvxTurn *turn);
extern int64 cvx_target_run(const char *sql, int expected);
extern void cvx_target_init(void);

#endif							/* CVX_SUB_TARGET_H */
