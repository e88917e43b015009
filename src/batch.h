/*
 * batch.h
 *		When do writes leave the backend?
 *
 * Room: shape 3.6
 */
#ifndef CVX_BATCH_H
#define CVX_BATCH_H

#include "utils/hsearch.h"

#include "options.h"

typedef enum CvxOp
{
	CVX_OP_APPEND,				/* insert a document */
	CVX_OP_UPSERT,				/* insert, or replace the one with its key */
	CVX_OP_UPDATE,				/* change fields of the one with its key */
	CVX_OP_DELETE,
	CVX_OP_CLEAR				/* empty the table */
} CvxOp;

/* One outgoing change. */
typedef struct CvxMessage
{
	CvxOp		op;
	int			table;			/* of the batch, see cvx_batch_table() */
	CommandId	cid;			/* the command that wrote it */
	bool		is_checked;		/* refused when its row has changed meanwhile */
	bool		changes_nothing;	/* its row is in Convex as it is sent */
	bool		has_partner;	/* the next one belongs into the same request */
	int64		base_ts;		/* snapshot its row was read at; 0: none */
	int64		old_bytes;		/* Convex's size of the document before, or 0 */
	int64		new_bytes;		/* and after */
	const char *key;			/* canonical text of the key; NULL: append */
	int			key_len;
	const char *id;				/* of the document it changes, or NULL */
	int			id_len;
	const char *row;			/* JSON in the syntax of the route */
	int			row_len;
} CvxMessage;

/* Where the messages of a foreign table go. */
typedef struct CvxBatchTable
{
	char	   *name;			/* in Convex */
	char	   *relation;		/* quoted name of the foreign table */
	CvxRoute	route;
	const CvxKey *key;			/* NULL: append-only */
	int			batch_size;
	int			batch_bytes;
} CvxBatchTable;

/* A key of the maps below: bytes that somebody else keeps. */
typedef struct CvxTextKey
{
	const char *data;
	int			len;
	int			table;
} CvxTextKey;

typedef struct CvxBatch CvxBatch;

extern void cvx_batch_init(void);
extern CvxBatch *cvx_batch_open(const CvxTableOptions *options, Oid userid);
extern int	cvx_batch_table(CvxBatch *batch, const CvxTableOptions *options);
extern void cvx_batch_put(CvxBatch *batch, const CvxMessage *message);
extern void cvx_batch_end_statement(CvxBatch *batch);
extern bool cvx_batch_is_pending(Oid serverid);
extern List *cvx_batch_list(Oid serverid);
extern bool cvx_batch_next(CvxBatch *batch, int64 *offset, const char *name,
						   CvxMessage *message);
extern const CvxBatchTable *cvx_batch_table_of(CvxBatch *batch, int table);
extern HTAB *cvx_batch_map(const char *name, Size entry_size);

#endif							/* CVX_BATCH_H */
