/*
 * measure.c
 *		How large are the documents that a flush replaces?
 *
 * Convex reads a document before it replaces it, and commits what it has done
 * of a request when it has read too much.  UPDATE and DELETE know the documents
 * that they change; what an INSERT by key finds, only the table tells.  So it
 * is read, for those who want one transaction or none (batch.c).
 *
 * Room: write 4.5
 */
#include "postgres.h"

#include "utils/memutils.h"

#include "ground/compat.h"
#include "protocol/walk.h"
#include "shape/document.h"
#include "write/measure.h"

/* Convex's largest document. */
#define MAX_DOCUMENT_BYTES	(1024 * 1024)

/* Keys of one table whose documents are not known. */
typedef struct Unknown
{
	const CvxBatchTable *table;
	HTAB	   *keys;			/* CvxTextKey */
} Unknown;

static List *find_unknown(CvxBatch *batch, int64 *known, int *nunknown);
static HTAB *keys_of(List **tables, const CvxBatchTable *table);
static int64 measure_table(CvxHttp *http, Unknown *unknown, int64 enough);
static int64 measure_page(const CvxPage *page, Unknown *unknown);

/*
 * The size, as Convex counts, of the documents that the unsent messages
 * replace or delete; at least enough when it is more.  Reads tables only where
 * the largest documents would not fit.  Throws what a scan would.
 */
int64
cvx_measure_replaced(CvxBatch *batch, CvxHttp *http, int64 enough)
{
	int64		result;
	int			nunknown;
	List	   *tables = find_unknown(batch, &result, &nunknown);
	ListCell   *lc;

	if (result + (int64) nunknown * MAX_DOCUMENT_BYTES <= enough)
		return result;
	foreach(lc, tables)
	{
		if (result >= enough)
			break;
		result += measure_table(http, lfirst(lc), enough - result);
	}
	return result;
}

/* The tables and keys of INSERTs; known is the size of all else. */
static List *
find_unknown(CvxBatch *batch, int64 *known, int *nunknown)
{
	List	   *tables = NIL;
	int64		offset = cvx_queue_begin(batch);
	CvxMessage	message;

	*known = 0;
	*nunknown = 0;
	while (cvx_queue_next(batch, &offset, NULL, &message))
	{
		CvxTextKey	key = {message.key, message.key_len};
		HTAB	   *keys;
		bool		is_known = true;

		*known += message.old_bytes;
		if (message.op == CVX_OP_UPSERT && message.id == NULL)
		{
			keys = keys_of(&tables, cvx_queue_table_of(batch, message.table));
			key.data = pnstrdup(message.key, message.key_len);
			(void) hash_search(keys, &key, HASH_ENTER, &is_known);
		}
		*nunknown += !is_known;
		cvx_queue_free_message(&message);
	}
	return tables;
}

static HTAB *
keys_of(List **tables, const CvxBatchTable *table)
{
	Unknown    *unknown;
	ListCell   *lc;

	foreach(lc, *tables)
	{
		unknown = lfirst(lc);
		if (strcmp(unknown->table->name, table->name) == 0 &&
			strcmp(unknown->table->key->text, table->key->text) == 0)
			return unknown->keys;
	}
	unknown = palloc(sizeof(Unknown));
	unknown->table = table;
	unknown->keys = cvx_queue_map("convex keys", sizeof(CvxTextKey));
	*tables = lappend(*tables, unknown);
	return unknown->keys;
}

/* Read a table until all its keys are found, or enough is. */
static int64
measure_table(CvxHttp *http, Unknown *unknown, int64 enough)
{
	MemoryContext cxt = AllocSetContextCreate(CurrentMemoryContext,
											  "convex page",
											  ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = CurrentMemoryContext;
	CvxTableName name = {"", unknown->table->name};
	CvxSelection selection = {.tables = &name,.ntables = 1,.is_whole = true};
	CvxPageWant want = {.tables = &name,.ntables = 1};
	CvxWalk    *walk = cvx_walk_open(cvx_http_remote(http)->server_name, 1);
	int64		result = 0;
	bool		has_more = true;

	while (has_more && result < enough &&
		   hash_get_num_entries(unknown->keys) > 0)
	{
		CvxPage    *page;

		MemoryContextReset(cxt);
		MemoryContextSwitchTo(cxt);
		page = cvx_api_page(cvx_api_list_snapshot(http, NULL, &selection,
												  walk->snapshot,
												  walk->cursor),
							http, &want);
		cvx_walk_check(walk, page);
		result += measure_page(page, unknown);
		MemoryContextSwitchTo(old);
		has_more = page->has_more;
	}
	cvx_walk_close(walk);
	MemoryContextDelete(cxt);
	return result;
}

/* The documents of a page that have one of the keys, which are taken out. */
static int64
measure_page(const CvxPage *page, Unknown *unknown)
{
	int64		result = 0;

	for (int i = 0; i < page->ndocs; i++)
	{
		const char *text = page->text + page->docs[i].document.offset;
		size_t		len = page->docs[i].document.len;
		StringInfoData key;
		const char *missing;
		CvxTextKey	wanted = {NULL};
		bool		is_found;

		initStringInfo(&key);
		if (!cvx_document_key(&key, text, len, unknown->table->key, &missing))
			continue;
		wanted.data = key.data;
		wanted.len = key.len;
		(void) hash_search(unknown->keys, &wanted, HASH_REMOVE, &is_found);
		if (is_found)
		{
			StringInfoData plain;

			initStringInfo(&plain);
			cvx_document_strip(&plain, text, len, false);
			result += cvx_document_measure(plain.data, plain.len);
		}
	}
	return result;
}
