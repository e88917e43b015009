/*
 * queue.c
 *		Which changes wait to be sent, in which order?
 *
 * Invariants:
 *	1. A batch holds the messages of one server in statement order, whichever
 *	   role wrote them.  There are two batches at most: what waits for the
 *	   commit, and what leaves with its statement.
 *	2. The messages of a subtransaction that aborts are the end of the queue,
 *	   and are cut off.
 *	3. A message leaves the queue when the request that carries it starts, not
 *	   when it is answered: nobody can send it again, whatever becomes of the
 *	   error.
 *	4. A request that failed dooms the batch until everything that it carried
 *	   is undone by PostgreSQL, too; forever, if Convex may have applied it.
 *	   Otherwise a swallowed error would lose rows of the outer transaction, or
 *	   let it commit without knowing what is in Convex.
 *
 * Everything lives in TopTransactionContext.
 *
 * Room: write 4.1
 */
#include "postgres.h"

#include "access/xact.h"
#include "common/hashfn.h"
#include "utils/memutils.h"

#include "ground/compat.h"
#include "write/queue.h"

/* Where the messages of a subtransaction begin. */
typedef struct Level
{
	int			nest_level;
	int64		begins_at;
} Level;

/* Batches of this transaction, in TopTransactionContext. */
static List *batches = NIL;

static CvxBatch *find_batch(Oid serverid, bool is_immediate);
static CvxKey *copy_key(const CvxKey *key);
static void enter_level(CvxBatch *batch);
static uint32 hash_text(const void *key, Size size);
static int	match_text(const void *a, const void *b, Size size);

/*
 * The batch that a foreign table's writes go into; lives until the transaction
 * ends.
 */
CvxBatch *
cvx_queue_open(const CvxTableOptions *options, bool is_immediate)
{
	CvxBatch   *batch = find_batch(options->serverid, is_immediate);
	MemoryContext old;

	if (batch != NULL)
		return batch;
	old = MemoryContextSwitchTo(TopTransactionContext);
	batch = palloc0(sizeof(CvxBatch));
	batch->serverid = options->serverid;
	batch->server_name = pstrdup(options->server_name);
	batch->is_immediate = is_immediate;
	batch->spool = cvx_spool_create(TopTransactionResourceOwner);
	batches = lappend(batches, batch);
	MemoryContextSwitchTo(old);
	return batch;
}

static CvxBatch *
find_batch(Oid serverid, bool is_immediate)
{
	ListCell   *lc;

	foreach(lc, batches)
	{
		CvxBatch   *batch = lfirst(lc);

		if (batch->serverid == serverid &&
			batch->is_immediate == is_immediate)
			return batch;
	}
	return NULL;
}

/* The number, within the batch, of a foreign table that a role writes. */
int
cvx_queue_table(CvxBatch *batch, const CvxTableOptions *options, Oid userid)
{
	MemoryContext old;
	CvxBatchTable *table;
	ListCell   *lc;
	int			number = 0;

	foreach(lc, batch->tables)
	{
		table = lfirst(lc);
		if (table->userid == userid &&
			strcmp(table->relation, options->relation) == 0 &&
			strcmp(table->name, options->table_name) == 0 &&
			table->route == options->route &&
			(table->key == NULL) == (options->key == NULL) &&
			(table->key == NULL ||
			 strcmp(table->key->text, options->key->text) == 0) &&
			table->batch_size == options->batch_size &&
			table->batch_bytes == options->batch_bytes)
			return number;
		number++;
	}
	old = MemoryContextSwitchTo(TopTransactionContext);
	table = palloc0(sizeof(CvxBatchTable));
	table->userid = userid;
	table->name = pstrdup(options->table_name);
	table->relation = pstrdup(options->relation);
	table->route = options->route;
	table->key = options->key ? copy_key(options->key) : NULL;
	table->batch_size = options->batch_size;
	table->batch_bytes = options->batch_bytes;
	batch->tables = lappend(batch->tables, table);
	MemoryContextSwitchTo(old);
	return number;
}

static CvxKey *
copy_key(const CvxKey *key)
{
	CvxKey	   *copy = palloc(sizeof(CvxKey));

	copy->n = key->n;
	copy->text = pstrdup(key->text);
	copy->paths = palloc(sizeof(CvxPath) * key->n);
	for (int i = 0; i < key->n; i++)
		copy->paths[i] = cvx_options_path(key->paths[i].label);
	return copy;
}

const CvxBatchTable *
cvx_queue_table_of(CvxBatch *batch, int table)
{
	return list_nth(batch->tables, table);
}

/* Add a message; it is copied. */
void
cvx_queue_put(CvxBatch *batch, const CvxMessage *message)
{
	CvxRecord	record;

	/* Messages are visible from the next command on. */
	(void) GetCurrentCommandId(true);
	enter_level(batch);
	memset(&record, 0, sizeof(record));
	record.message = *message;
	record.message.key = record.message.id = NULL;
	record.message.row = record.message.before = NULL;
	record.len = sizeof(record) + message->key_len + message->id_len +
		message->row_len + message->before_len;
	cvx_spool_append(batch->spool, &record, sizeof(record));
	cvx_spool_append(batch->spool, message->key, message->key_len);
	cvx_spool_append(batch->spool, message->id, message->id_len);
	cvx_spool_append(batch->spool, message->row, message->row_len);
	cvx_spool_append(batch->spool, message->before, message->before_len);
}

/* ------------------------------------------------------------------------
 * Reading
 * ------------------------------------------------------------------------
 */

/* Where the unsent messages of a batch begin. */
int64
cvx_queue_begin(const CvxBatch *batch)
{
	return batch->begun;
}

/* Is nothing left to send? */
bool
cvx_queue_is_empty(const CvxBatch *batch)
{
	return batch->begun >= cvx_spool_len(batch->spool);
}

/* Has the transaction unsent writes for a server? */
bool
cvx_queue_is_pending(Oid serverid)
{
	return cvx_queue_list(serverid) != NIL;
}

/* The batches that hold unsent writes for a server. */
List *
cvx_queue_list(Oid serverid)
{
	List	   *result = NIL;
	ListCell   *lc;

	foreach(lc, batches)
	{
		CvxBatch   *batch = lfirst(lc);

		if (batch->serverid == serverid && !cvx_queue_is_empty(batch))
			result = lappend(result, batch);
	}
	return result;
}

/* Every batch of the transaction; not to be changed. */
List *
cvx_queue_all(void)
{
	return batches;
}

/* Does what is to leave at commit hold messages for a table of Convex? */
bool
cvx_queue_has_table(CvxBatch *batch, const char *name)
{
	int64		offset = cvx_queue_begin(batch);

	while (offset < cvx_spool_len(batch->spool))
	{
		CvxRecord	record;

		offset = cvx_queue_peek(batch, offset, &record);
		if (strcmp(cvx_queue_table_of(batch, record.message.table)->name,
				   name) == 0)
			return true;
	}
	return false;
}

/* Read a message's record without its texts; returns the next one's offset. */
int64
cvx_queue_peek(CvxBatch *batch, int64 offset, CvxRecord *record)
{
	cvx_spool_read(batch->spool, offset, record, sizeof(CvxRecord));
	return offset + record->len;
}

/* Append the key of a peeked message. */
void
cvx_queue_read_key(CvxBatch *batch, int64 offset, const CvxRecord *record,
				   StringInfo key)
{
	enlargeStringInfo(key, record->message.key_len);
	cvx_spool_read(batch->spool, offset + sizeof(CvxRecord),
				   key->data + key->len, record->message.key_len);
	key->len += record->message.key_len;
	key->data[key->len] = '\0';
}

/*
 * The next message from an offset on for a table of Convex (NULL: any), in the
 * current context; the offset moves behind it.  False: there is none.
 */
bool
cvx_queue_next(CvxBatch *batch, int64 *offset, const char *name,
			   CvxMessage *message)
{
	while (*offset < cvx_spool_len(batch->spool))
	{
		CvxRecord	record;
		int64		at = *offset + sizeof(CvxRecord);
		uint32		len;
		char	   *text;

		*offset = cvx_queue_peek(batch, *offset, &record);
		if (name != NULL &&
			strcmp(cvx_queue_table_of(batch, record.message.table)->name,
				   name) != 0)
			continue;
		len = record.len - sizeof(CvxRecord);
		text = palloc(len + 1);
		cvx_spool_read(batch->spool, at, text, len);
		text[len] = '\0';
		*message = record.message;
		message->key = message->key_len > 0 ? text : NULL;
		text += message->key_len;
		message->id = message->id_len > 0 ? text : NULL;
		text += message->id_len;
		message->row = text;
		text += message->row_len;
		message->before = message->before_len > 0 ? text : NULL;
		return true;
	}
	return false;
}

/* Give back the texts of a message that cvx_queue_next() gave. */
void
cvx_queue_free_message(CvxMessage *message)
{
	pfree((char *) (message->row - message->id_len - message->key_len));
}

/* A map from CvxTextKey, the first member of its entries. */
HTAB *
cvx_queue_map(const char *name, Size entry_size)
{
	HASHCTL		control = {0};

	control.keysize = sizeof(CvxTextKey);
	control.entrysize = entry_size;
	control.hash = hash_text;
	control.match = match_text;
	control.hcxt = CurrentMemoryContext;
	return hash_create(name, 256, &control,
					   HASH_ELEM | HASH_FUNCTION | HASH_COMPARE | HASH_CONTEXT);
}

static uint32
hash_text(const void *key, Size size)
{
	const CvxTextKey *text = key;

	return hash_combine(hash_bytes((const unsigned char *) text->data,
								   text->len), text->table);
}

static int
match_text(const void *a, const void *b, Size size)
{
	const CvxTextKey *x = a;
	const CvxTextKey *y = b;

	return x->table != y->table || x->len != y->len ||
		memcmp(x->data, y->data, x->len) != 0;
}

/* ------------------------------------------------------------------------
 * Leaving
 * ------------------------------------------------------------------------
 */

/*
 * The messages up to end are those of a request that starts now.  Until
 * cvx_queue_taken() its outcome is unknown.
 */
void
cvx_queue_take(CvxBatch *batch, int64 begin, int64 end)
{
	batch->begun = end;
	batch->doom = ERRCODE_TRANSACTION_RESOLUTION_UNKNOWN;
	batch->doom_begin = begin;
	batch->doom_is_final = true;
}

/* That request has been applied. */
void
cvx_queue_taken(CvxBatch *batch)
{
	batch->doom = 0;
}

/*
 * The error being reported ends the request that has started.  Final means
 * that Convex may have applied something of it.
 */
void
cvx_queue_doom(CvxBatch *batch, bool is_final)
{
	if (batch->doom == 0)
		return;
	batch->doom_is_final = is_final;
	batch->doom = is_final ? ERRCODE_TRANSACTION_RESOLUTION_UNKNOWN :
		geterrcode();
}

/* Throws when a request of the batch has failed and its rows still count. */
void
cvx_queue_check_doom(const CvxBatch *batch)
{
	if (batch->doom == 0)
		return;
	if (batch->doom_is_final)
		ereport(ERROR,
				(errcode(ERRCODE_TRANSACTION_RESOLUTION_UNKNOWN),
				 errmsg("Convex server \"%s\" may have applied a write of this transaction or not",
						batch->server_name),
				 errdetail("The error of that request was caught; the transaction cannot go on."),
				 errhint("Look at the data in Convex before you run the transaction again.")));
	ereport(ERROR,
			(errcode(batch->doom),
			 errmsg("Convex server \"%s\" has refused a write of this transaction",
					batch->server_name),
			 errdetail("The error of that request was caught, but rows from outside the block that caught it were refused with it."),
			 errhint("Set the foreign table's option flush to 'commit'.")));
}

/* Everything has left. */
void
cvx_queue_empty(CvxBatch *batch)
{
	ListCell   *lc;

	cvx_spool_truncate(batch->spool, 0);
	batch->begun = 0;
	batch->nunsent = batch->unsent_bytes = 0;
	foreach(lc, batch->levels)
		((Level *) lfirst(lc))->begins_at = 0;
}

/* ------------------------------------------------------------------------
 * Transactions
 * ------------------------------------------------------------------------
 */

/* Note where the messages of the current subtransaction begin. */
static void
enter_level(CvxBatch *batch)
{
	int			nest_level = GetCurrentTransactionNestLevel();
	Level	   *level = batch->levels ? llast(batch->levels) : NULL;
	MemoryContext old;

	if (nest_level == 1 || (level && level->nest_level == nest_level))
		return;
	old = MemoryContextSwitchTo(TopTransactionContext);
	level = palloc(sizeof(Level));
	level->nest_level = nest_level;
	level->begins_at = cvx_spool_len(batch->spool);
	batch->levels = lappend(batch->levels, level);
	MemoryContextSwitchTo(old);
}

/* A subtransaction aborts: forget its messages that have not left. */
void
cvx_queue_abort_level(int nest_level)
{
	ListCell   *lc;

	foreach(lc, batches)
	{
		CvxBatch   *batch = lfirst(lc);
		Level	   *level;

		while (batch->levels != NIL &&
			   (level = llast(batch->levels))->nest_level >= nest_level)
		{
			/* What has left with flush 'statement' stays in Convex. */
			cvx_spool_truncate(batch->spool,
							   Min(Max(level->begins_at, batch->begun),
								   cvx_spool_len(batch->spool)));
			if (cvx_queue_is_empty(batch))
				batch->nunsent = batch->unsent_bytes = 0;

			/* Everything that was refused is undone here as well. */
			if (batch->doom != 0 && !batch->doom_is_final &&
				level->begins_at <= batch->doom_begin)
				batch->doom = 0;
			batch->levels = list_delete_last(batch->levels);
		}
	}
}

/* A subtransaction commits: its messages are those of the level above. */
void
cvx_queue_commit_level(int nest_level)
{
	ListCell   *lc;

	foreach(lc, batches)
	{
		CvxBatch   *batch = lfirst(lc);
		Level	   *level;

		while (batch->levels != NIL &&
			   (level = llast(batch->levels))->nest_level >= nest_level)
		{
			Level	   *outer = list_length(batch->levels) > 1 ?
				list_nth(batch->levels, list_length(batch->levels) - 2) : NULL;

			if (nest_level > 2 &&
				(outer == NULL || outer->nest_level < nest_level - 1))
			{
				level->nest_level = nest_level - 1;
				break;
			}
			batch->levels = list_delete_last(batch->levels);
		}
	}
}

/* The transaction has ended.  After an error spools free themselves. */
void
cvx_queue_forget(bool frees_spools)
{
	ListCell   *lc;

	if (frees_spools)
		foreach(lc, batches)
			cvx_spool_free(((CvxBatch *) lfirst(lc))->spool);
	batches = NIL;
}
