/*
 * fdw_own.c
 *		Which rows do pending writes make of a snapshot's?
 *
 * A scan sees the messages of earlier commands of its transaction, as with any
 * table: by key over the documents of the snapshot, appended rows at the end.
 * The messages by key are folded into one per key, in memory; appended rows
 * are read again from the batch.
 *
 * Room: fdw 4.2
 */
#include "postgres.h"

#include "compat.h"
#include "batch.h"
#include "document.h"
#include "fdw.h"

/* What the pending messages make of the row with one key. */
typedef struct Entry
{
	CvxTextKey	key;
	bool		is_gone;		/* the snapshot's document was deleted */
	bool		is_seen;		/* by the scan */
	char	   *row;			/* the whole document, without _id; or NULL */
	int			row_len;
	char	   *patch;			/* over the snapshot's document; or NULL */
	int			patch_len;
} Entry;

/* Where the messages are. */
typedef struct Source
{
	CvxBatch   *batch;
	int64		begins_at;		/* after the last TRUNCATE */
	int64		ends_at;
	int64		next;			/* appended rows */
} Source;

struct CvxOwn
{
	MemoryContext cxt;
	CommandId	cid;			/* earlier commands are seen */
	char	   *table;
	List	   *keys;			/* CvxKey, by number in the entries' keys */
	HTAB	   *entries;
	List	   *order;			/* Entry, in the order of the first message */
	List	   *sources;
	bool		hides_all;

	/* of the scan */
	int			next_entry;
	int			next_source;
};

static void add_message(CvxOwn *own, Source *source,
						const CvxMessage *message);
static int	key_number(CvxOwn *own, const CvxKey *key);
static char *merged(const char *doc, int len, const CvxMessage *message,
					int *result_len);

/*
 * What the pending messages of commands before cid mean for a table of the
 * root component, in the current context; NULL: nothing.
 */
CvxOwn *
cvx_own_open(Oid serverid, const char *table, CommandId cid)
{
	CvxOwn	   *own = NULL;
	ListCell   *lc;

	foreach(lc, cvx_batch_list(serverid))
	{
		CvxBatch   *batch = lfirst(lc);
		Source	   *source = NULL;
		int64		offset = 0;
		CvxMessage	message;

		while (cvx_batch_next(batch, &offset, table, &message))
		{
			if (message.cid >= cid)
				break;
			if (own == NULL)
			{
				own = palloc0(sizeof(CvxOwn));
				own->cxt = CurrentMemoryContext;
				own->cid = cid;
				own->table = pstrdup(table);
				own->entries = cvx_batch_map("convex own rows", sizeof(Entry));
			}
			if (source == NULL)
			{
				source = palloc0(sizeof(Source));
				source->batch = batch;
				own->sources = lappend(own->sources, source);
			}
			source->ends_at = offset;
			add_message(own, source, &message);
			if (message.op == CVX_OP_APPEND)
				pfree((char *) message.row);
		}
	}
	if (own)
		cvx_own_rewind(own);
	return own;
}

/* The top-level fields that tell a document's key (char *). */
List *
cvx_own_key_fields(const CvxOwn *own)
{
	List	   *result = NIL;
	ListCell   *lc;

	foreach(lc, own->keys)
	{
		const CvxKey *key = lfirst(lc);

		for (int i = 0; i < key->n; i++)
			result = lappend(result, key->paths[i].names[0]);
	}
	return result;
}

/* Has the table been truncated, so that the snapshot does not matter? */
bool
cvx_own_hides_all(const CvxOwn *own)
{
	return own->hides_all;
}

/*
 * What becomes of a document of the snapshot; when changed it is appended to
 * out, with its _id unless it is a new one.
 */
CvxOwnEffect
cvx_own_apply(CvxOwn *own, const char *doc, size_t len, StringInfo out)
{
	int			number = 0;
	ListCell   *lc;

	foreach(lc, own->keys)
	{
		StringInfoData key;
		const char *missing;
		CvxTextKey	wanted = {NULL};
		Entry	   *entry = NULL;

		initStringInfo(&key);
		if (cvx_document_key(&key, doc, len, lfirst(lc), &missing))
		{
			wanted.data = key.data;
			wanted.len = key.len;
			wanted.table = number;
			entry = hash_search(own->entries, &wanted, HASH_FIND, NULL);
		}
		pfree(key.data);
		number++;
		if (entry == NULL)
			continue;
		entry->is_seen = true;
		if (entry->row != NULL && entry->is_gone)
			appendBinaryStringInfo(out, entry->row, entry->row_len);
		else if (entry->row != NULL)
		{
			static const char *const names[] = {"_id", "_creationTime"};
			StringInfoData system;

			/* A replaced document keeps these. */
			initStringInfo(&system);
			appendStringInfoChar(&system, '{');
			for (int i = 0; i < lengthof(names); i++)
			{
				CvxPath		path = {(char **) &names[i], 1};
				CvxText		value;

				if (cvx_document_get(doc, len, &path, &value))
					appendStringInfo(&system, "%s\"%s\":%.*s",
									 system.len > 1 ? "," : "", names[i],
									 (int) value.len, value.data);
			}
			appendStringInfoChar(&system, '}');
			cvx_document_merge(out, system.data, system.len, entry->row,
							   entry->row_len);
			pfree(system.data);
		}
		else if (entry->patch != NULL)
			cvx_document_merge(out, doc, len, entry->patch, entry->patch_len);
		else
			return CVX_OWN_GONE;
		return CVX_OWN_CHANGED;
	}
	return CVX_OWN_NONE;
}

/* The next row that is not in the snapshot; false at the end. */
bool
cvx_own_next(CvxOwn *own, StringInfo out)
{
	while (own->next_entry < list_length(own->order))
	{
		Entry	   *entry = list_nth(own->order, own->next_entry++);

		if (entry->is_seen || entry->row == NULL)
			continue;
		appendBinaryStringInfo(out, entry->row, entry->row_len);
		return true;
	}
	for (; own->next_source < list_length(own->sources); own->next_source++)
	{
		Source	   *source = list_nth(own->sources, own->next_source);
		CvxMessage	message;

		while (source->next < source->ends_at &&
			   cvx_batch_next(source->batch, &source->next, own->table,
							  &message))
		{
			bool		is_appended = message.op == CVX_OP_APPEND;

			if (is_appended)
				appendBinaryStringInfo(out, message.row, message.row_len);
			pfree(message.key ? (void *) message.key : message.id ?
				  (void *) message.id : (void *) message.row);
			if (is_appended)
				return true;
		}
	}
	return false;
}

/* Begin again with the first document. */
void
cvx_own_rewind(CvxOwn *own)
{
	ListCell   *lc;

	own->next_entry = own->next_source = 0;
	foreach(lc, own->order)
		((Entry *) lfirst(lc))->is_seen = false;
	foreach(lc, own->sources)
		((Source *) lfirst(lc))->next = ((Source *) lfirst(lc))->begins_at;
}

/* Fold a message into its row's entry.  Its texts are kept. */
static void
add_message(CvxOwn *own, Source *source, const CvxMessage *message)
{
	CvxTextKey	key = {message->key, message->key_len};
	Entry	   *entry;
	bool		is_known;

	if (message->op == CVX_OP_CLEAR)
	{
		own->hides_all = true;
		hash_destroy(own->entries);
		own->entries = cvx_batch_map("convex own rows", sizeof(Entry));
		own->order = NIL;
		source->begins_at = source->ends_at;
		return;
	}
	if (message->op == CVX_OP_APPEND)
		return;
	key.table = key_number(own, cvx_batch_table_of(source->batch,
												   message->table)->key);
	entry = hash_search(own->entries, &key, HASH_ENTER, &is_known);
	if (!is_known)
	{
		memset((char *) entry + sizeof(CvxTextKey), 0,
			   sizeof(Entry) - sizeof(CvxTextKey));
		own->order = lappend(own->order, entry);
	}
	switch (message->op)
	{
		case CVX_OP_UPSERT:
			entry->row = (char *) message->row;
			entry->row_len = message->row_len;
			entry->patch = NULL;
			break;
		case CVX_OP_UPDATE:
			if (entry->row)
				entry->row = merged(entry->row, entry->row_len, message,
									&entry->row_len);
			else if (!entry->is_gone)
				entry->patch = merged(entry->patch ? entry->patch : "{}",
									  entry->patch ? entry->patch_len : 2,
									  message, &entry->patch_len);
			break;
		default:
			entry->is_gone = true;
			entry->row = entry->patch = NULL;
			break;
	}
}

static int
key_number(CvxOwn *own, const CvxKey *key)
{
	int			number = 0;
	ListCell   *lc;

	foreach(lc, own->keys)
	{
		if (strcmp(((const CvxKey *) lfirst(lc))->text, key->text) == 0)
			return number;
		number++;
	}
	own->keys = lappend(own->keys, (void *) key);
	return number;
}

static char *
merged(const char *doc, int len, const CvxMessage *message, int *result_len)
{
	StringInfoData out;

	initStringInfo(&out);
	cvx_document_merge(&out, doc, len, message->row, message->row_len);
	*result_len = out.len;
	return out.data;
}
