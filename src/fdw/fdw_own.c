/*
 * fdw_own.c
 *		Which rows do pending writes make of a snapshot's?
 *
 * A scan sees the messages of earlier commands of its transaction, as with any
 * table: by key over the documents of the snapshot, appended rows at the end.
 * The messages by key are folded into one per key, in memory; appended rows
 * are copied into a spool of the scan's.
 *
 * Invariant: what is opened holds its own copy of everything.  A cursor may be
 * fetched from after its rows have left the queue, or were cut off it.
 *
 * Room: fdw 5.2
 */
#include "postgres.h"

#include "ground/compat.h"
#include "ground/spool.h"
#include "shape/document.h"
#include "write/queue.h"
#include "fdw/fdw_own.h"

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

struct CvxOwn
{
	List	   *keys;			/* CvxKey, by number in the entries' keys */
	HTAB	   *entries;
	List	   *order;			/* Entry, in the order of the first message */
	CvxSpool   *appended;		/* each row after its length; NULL: none */
	bool		hides_all;

	/* of the scan */
	int			next_entry;
	int64		next_appended;
};

static void add_message(CvxOwn *own, const CvxMessage *message,
						const CvxKey *key);
static void append_row(CvxOwn *own, const CvxMessage *message);
static int	key_number(CvxOwn *own, const CvxKey *key);
static char *merged(const char *doc, int len, const CvxMessage *message,
					int *result_len);

/*
 * What the pending messages of commands before cid mean for a table of the
 * root component, in the current context; NULL: nothing.  To be closed, for a
 * temporary file may belong to it.
 */
CvxOwn *
cvx_own_open(Oid serverid, const char *table, CommandId cid)
{
	CvxOwn	   *own = NULL;
	ListCell   *lc;

	foreach(lc, cvx_queue_list(serverid))
	{
		CvxBatch   *batch = lfirst(lc);
		int64		offset = cvx_queue_begin(batch);
		CvxMessage	message;

		while (cvx_queue_next(batch, &offset, table, &message))
		{
			if (message.cid >= cid)
				break;
			if (own == NULL)
			{
				own = palloc0(sizeof(CvxOwn));
				own->entries = cvx_queue_map("convex own rows", sizeof(Entry));
			}
			add_message(own, &message,
						cvx_queue_table_of(batch, message.table)->key);
		}
	}
	return own;
}

/* Give back the temporary file.  After an error that happens by itself. */
void
cvx_own_close(CvxOwn *own)
{
	if (own->appended)
		cvx_spool_free(own->appended);
	own->appended = NULL;
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
	if (own->appended != NULL &&
		own->next_appended < cvx_spool_len(own->appended))
	{
		int			len;

		cvx_spool_read(own->appended, own->next_appended, &len, sizeof(len));
		enlargeStringInfo(out, len);
		cvx_spool_read(own->appended, own->next_appended + sizeof(len),
					   out->data + out->len, len);
		out->len += len;
		out->data[out->len] = '\0';
		own->next_appended += sizeof(len) + len;
		return true;
	}
	return false;
}

/* Begin again with the first document. */
void
cvx_own_rewind(CvxOwn *own)
{
	ListCell   *lc;

	own->next_entry = 0;
	own->next_appended = 0;
	foreach(lc, own->order)
		((Entry *) lfirst(lc))->is_seen = false;
}

/* Fold a message into its row's entry.  Its texts are kept. */
static void
add_message(CvxOwn *own, const CvxMessage *message, const CvxKey *message_key)
{
	CvxTextKey	key = {message->key, message->key_len};
	Entry	   *entry;
	bool		is_known;

	if (message->op == CVX_OP_CLEAR)
	{
		own->hides_all = true;
		hash_destroy(own->entries);
		own->entries = cvx_queue_map("convex own rows", sizeof(Entry));
		own->order = NIL;
		cvx_own_close(own);
		return;
	}
	if (message->op == CVX_OP_APPEND)
	{
		append_row(own, message);
		return;
	}
	key.table = key_number(own, message_key);
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

static void
append_row(CvxOwn *own, const CvxMessage *message)
{
	if (own->appended == NULL)
		own->appended = cvx_spool_create(CurrentResourceOwner);
	cvx_spool_append(own->appended, &message->row_len,
					 sizeof(message->row_len));
	cvx_spool_append(own->appended, message->row, message->row_len);
	pfree((char *) message->row);
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
