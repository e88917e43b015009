/*
 * queue.h
 *		Which changes wait to be sent, in which order?
 *
 * Room: write 4.1
 */
#ifndef CVX_QUEUE_H
#define CVX_QUEUE_H

#include "lib/stringinfo.h"
#include "utils/hsearch.h"

#include "ground/spool.h"
#include "shape/options_read.h"

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
	int			table;			/* of the batch, see cvx_queue_table() */
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
	const char *before;			/* the key and one field that it changes, as
								 * JSON with the value before; or NULL */
	int			before_len;
} CvxMessage;

/* Where the messages of a foreign table that a role has written go. */
typedef struct CvxBatchTable
{
	Oid			userid;
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

/* A message as the spool has it; its texts follow. */
typedef struct CvxRecord
{
	CvxMessage	message;		/* with lengths, without pointers */
	uint32		len;			/* of the whole record */
} CvxRecord;

/* The messages of one server; private to those who write. */
typedef struct CvxBatch
{
	Oid			serverid;
	char	   *server_name;
	bool		is_immediate;	/* flush 'statement' */
	List	   *tables;			/* CvxBatchTable */
	CvxSpool   *spool;
	int64		begun;			/* what is before it has left */
	List	   *levels;			/* of subtransactions, innermost last */
	int64		nunsent;		/* immediate: in the spool */
	int64		unsent_bytes;

	/* the request that has failed; see cvx_queue_doom() */
	int			doom;			/* SQLSTATE, or 0 */
	int64		doom_begin;		/* its first message */
	bool		doom_is_final;	/* it may have been applied */
} CvxBatch;

extern CvxBatch *cvx_queue_open(const CvxTableOptions *options,
								bool is_immediate);
extern int	cvx_queue_table(CvxBatch *batch, const CvxTableOptions *options,
							Oid userid);
extern void cvx_queue_put(CvxBatch *batch, const CvxMessage *message);
extern bool cvx_queue_has_table(CvxBatch *batch, const char *name);
extern bool cvx_queue_is_pending(Oid serverid);
extern List *cvx_queue_list(Oid serverid);
extern List *cvx_queue_all(void);
extern int64 cvx_queue_begin(const CvxBatch *batch);
extern bool cvx_queue_is_empty(const CvxBatch *batch);
extern int64 cvx_queue_peek(CvxBatch *batch, int64 offset, CvxRecord *record);
extern void cvx_queue_read_key(CvxBatch *batch, int64 offset,
							   const CvxRecord *record, StringInfo key);
extern bool cvx_queue_next(CvxBatch *batch, int64 *offset, const char *name,
						   CvxMessage *message);
extern void cvx_queue_free_message(CvxMessage *message);
extern const CvxBatchTable *cvx_queue_table_of(CvxBatch *batch, int table);
extern void cvx_queue_take(CvxBatch *batch, int64 begin, int64 end);
extern void cvx_queue_taken(CvxBatch *batch);
extern void cvx_queue_doom(CvxBatch *batch, bool is_final);
extern void cvx_queue_check_doom(const CvxBatch *batch);
extern void cvx_queue_empty(CvxBatch *batch);
extern void cvx_queue_abort_level(int nest_level);
extern void cvx_queue_commit_level(int nest_level);
extern void cvx_queue_forget(bool frees_spools);
extern HTAB *cvx_queue_map(const char *name, Size entry_size);

#endif							/* CVX_QUEUE_H */
