/*
 * settle_check.c
 *		Have rows that are to be written changed since they were read?
 *
 * The change log tells.  It is read before the first request, for rows that
 * have changed since they were read; settle_after.c reads it after a request.
 *
 * Invariants of both:
 *	1. A row that is to be updated or deleted and has changed since it was read
 *	   is 40001 before anything is sent, 08007 once the transaction has
 *	   anything in Convex.
 *	2. A revision that somebody else made of such a row after the check, and
 *	   before ours, is 08007 and named.  Ours is told from others by its
 *	   timestamp, which all rows of a request share; the row that tells it is
 *	   the request's marker (batch.c), whose write always leaves a revision.
 *	3. What the flush itself has written is no conflict.
 *
 * Room: write 4.3
 */
#include "postgres.h"

#include "utils/memutils.h"

#include "ground/redact.h"
#include "protocol/walk.h"
#include "write/settle_check.h"

/* Changes that are being collected. */
typedef struct Changes
{
	HTAB	   *map;			/* CvxDocChange */
	CvxRange	range;			/* whose rows they are wanted for */
	HTAB	   *ids;			/* of these rows; NULL: all changes are kept */
} Changes;

/*
 * As long as there are no more changed documents than these, all are kept;
 * then those of the rows that are written alone.
 */
#define MAX_CHANGES		10000

/* Of each document the first revisions; what comes later decides nothing. */
#define MAX_REVISIONS	16

static void name_tables(CvxSettle *settle);
static void keep_own(CvxSettle *settle, Changes *changes);
static void take_change(CvxSettle *settle, const CvxPage *page,
						const CvxDoc *doc, void *arg);
static bool is_written(CvxSettle *settle, const CvxMessage *message);

/* Begin a flush; lives in the current context. */
CvxSettle *
cvx_settle_open(CvxBatch *batch)
{
	CvxSettle  *settle = palloc0(sizeof(CvxSettle));
	CvxRange	all = {cvx_queue_begin(batch), cvx_spool_len(batch->spool)};

	settle->batch = batch;
	settle->cxt = CurrentMemoryContext;
	settle->has_checks = cvx_settle_has_checked(batch, all);
	settle->written = cvx_queue_map("convex written rows",
									sizeof(CvxTextKey));
	return settle;
}

/*
 * Before the first request of a run of messages, which all belong to the role
 * of the connection: has a row that is to be updated or deleted changed since
 * it was read?  applied says what of the transaction is in Convex; NULL:
 * nothing.
 */
void
cvx_settle_check(CvxSettle *settle, CvxHttp *http, CvxRange run,
				 const char *applied)
{
	MemoryContext old = MemoryContextSwitchTo(settle->cxt);
	int64		cursor = 0;
	HTAB	   *changes;

	settle->http = http;
	settle->run = run;
	settle->cursor = 0;
	settle->is_checked = false;
	for (int64 offset = run.begin; offset < run.end;)
	{
		CvxRecord	record;

		offset = cvx_queue_peek(settle->batch, offset, &record);
		if (!cvx_settle_is_checked(&record.message))
			continue;
		settle->is_checked = true;
		if (cursor == 0 || record.message.base_ts < cursor)
			cursor = record.message.base_ts;
	}
	name_tables(settle);
	if (settle->is_checked)
	{
		MemoryContext cxt = AllocSetContextCreate(settle->cxt,
												  "convex changes",
												  ALLOCSET_DEFAULT_SIZES);

		MemoryContextSwitchTo(cxt);
		changes = cvx_settle_read_changes(settle, run, &cursor);
		cvx_settle_compare_unsent(settle, changes, run, applied);
		settle->cursor = cursor;
		settle->is_current = true;
		MemoryContextSwitchTo(old);
		MemoryContextDelete(cxt);
	}
	MemoryContextSwitchTo(old);
}

/*
 * Before a request by key that begins at an offset: without a timestamp the log
 * cannot be asked later.
 */
void
cvx_settle_before(CvxSettle *settle, int64 begin, const char *applied)
{
	CvxRange	rest = {begin, settle->run.end};

	if (settle->cursor > 0 && settle->is_current)
		return;
	if (settle->is_checked && settle->cursor > 0)
	{
		MemoryContext cxt = AllocSetContextCreate(settle->cxt,
												  "convex changes",
												  ALLOCSET_DEFAULT_SIZES);
		MemoryContext old = MemoryContextSwitchTo(cxt);

		cvx_settle_compare_unsent(settle,
								  cvx_settle_read_changes(settle, rest,
														  &settle->cursor),
								  rest, applied);
		MemoryContextSwitchTo(old);
		MemoryContextDelete(cxt);
	}
	else
		settle->cursor = cvx_api_head(settle->http, applied);
	settle->is_current = true;
}

/* Somebody else has written: look again before the next request. */
void
cvx_settle_expire(CvxSettle *settle)
{
	settle->is_current = false;
}

/* Is a message's row checked for changes since it was read? */
bool
cvx_settle_is_checked(const CvxMessage *message)
{
	return message->is_checked && message->base_ts > 0 && message->id_len > 0;
}

/* Is a row of a range of messages? */
bool
cvx_settle_has_checked(CvxBatch *batch, CvxRange range)
{
	while (range.begin < range.end)
	{
		CvxRecord	record;

		range.begin = cvx_queue_peek(batch, range.begin, &record);
		if (cvx_settle_is_checked(&record.message))
			return true;
	}
	return false;
}

/*
 * The key of a message's row.  Foreign tables and roles have numbers of their
 * own for one table of Convex: the lowest stands for all.
 */
CvxTextKey
cvx_settle_row_key(CvxBatch *batch, const CvxMessage *message)
{
	const CvxBatchTable *table = cvx_queue_table_of(batch, message->table);
	CvxTextKey	key = {message->key, message->key_len, 0};
	ListCell   *lc;

	foreach(lc, batch->tables)
	{
		const CvxBatchTable *other = lfirst(lc);

		if (other->key != NULL && table->key != NULL &&
			strcmp(other->name, table->name) == 0 &&
			strcmp(other->key->text, table->key->text) == 0)
			break;
		key.table++;
	}
	return key;
}

/*
 * All changes after a cursor of the rows of a range, and perhaps of others, by
 * _id, in the current context.
 */
HTAB *
cvx_settle_read_changes(CvxSettle *settle, CvxRange range, int64 *cursor)
{
	Changes		changes = {
		cvx_queue_map("convex changes", sizeof(CvxDocChange)), range
	};

	cvx_settle_read_log(settle, false, cursor, take_change, &changes);
	return changes.map;
}

/*
 * Give every change after a cursor to a function; the cursor moves to the end
 * of the log.
 */
void
cvx_settle_read_log(CvxSettle *settle, bool is_whole, int64 *cursor,
					void (*take) (CvxSettle *settle, const CvxPage *page,
								  const CvxDoc *doc, void *arg),
					void *arg)
{
	MemoryContext cxt = CurrentMemoryContext;
	MemoryContext page_cxt = AllocSetContextCreate(cxt, "convex page",
												   ALLOCSET_DEFAULT_SIZES);
	CvxLog		log = {NULL};
	bool		has_more = true;

	settle->selection.is_whole = is_whole;
	cvx_log_begin(&log, cvx_http_remote(settle->http)->server_name, *cursor);
	while (has_more)
	{
		CvxPage    *page;

		MemoryContextReset(page_cxt);
		MemoryContextSwitchTo(page_cxt);
		page = cvx_api_page(cvx_api_document_deltas(settle->http, NULL,
													&settle->selection,
													*cursor),
							settle->http, &settle->want);
		MemoryContextSwitchTo(cxt);
		if (!cvx_log_check(&log, page))
			cvx_log_fail_behind(&log, page);
		for (int i = 0; i < page->ndocs; i++)
			take(settle, page, &page->docs[i], arg);
		*cursor = page->ts;
		has_more = page->has_more;
	}
	MemoryContextDelete(page_cxt);
}

/* What is known of a message's document; NULL: nothing. */
CvxDocChange *
cvx_settle_find_change(HTAB *changes, const CvxMessage *message)
{
	CvxTextKey	id = {message->id, message->id_len};

	return message->id ? hash_search(changes, &id, HASH_FIND, NULL) : NULL;
}

/* Throw when a row of unsent messages has changed since it was read. */
void
cvx_settle_compare_unsent(CvxSettle *settle, HTAB *changes, CvxRange range,
						  const char *applied)
{
	int64		offset = range.begin;

	if (hash_get_num_entries(changes) == 0)
		return;
	while (offset < range.end)
	{
		CvxMessage	message;
		CvxDocChange *change;
		ListCell   *lc;

		if (!cvx_queue_next(settle->batch, &offset, NULL, &message))
			break;
		change = cvx_settle_is_checked(&message) ?
			cvx_settle_find_change(changes, &message) : NULL;
		foreach(lc, change ? change->revisions : NIL)
		{
			const CvxRevision *revision = lfirst(lc);
			const char *name;

			if (revision->ts <= message.base_ts ||
				cvx_settle_is_own(settle, revision->ts) || is_written(settle, &message))
				continue;
			name = cvx_queue_table_of(settle->batch, message.table)->name;
			if (applied)
				ereport(ERROR,
						(errcode(ERRCODE_TRANSACTION_RESOLUTION_UNKNOWN),
						 errmsg("could not write to Convex because of a concurrent change"),
						 errdetail("Document \"%s\" of table \"%s\" has changed since it was read.  %s",
								   cvx_redact_excerpt(message.id, message.id_len),
								   name, applied),
						 errhint("Look at the data in Convex before you run the transaction again.")));
			ereport(ERROR,
					(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
					 errmsg("could not write to Convex because of a concurrent change"),
					 errdetail("Document \"%s\" of table \"%s\" has changed since it was read.  Nothing was sent.",
							   cvx_redact_excerpt(message.id, message.id_len),
							   name),
					 errhint("Run the transaction again.")));
		}
		cvx_queue_free_message(&message);
	}
}

/* Is this the timestamp of a transaction of this flush? */
bool
cvx_settle_is_own(const CvxSettle *settle, int64 ts)
{
	ListCell   *lc;

	foreach(lc, settle->own)
		if (*(int64 *) lfirst(lc) == ts)
			return true;
	return false;
}

/* Select the documents of all tables that are written by key. */
static void
name_tables(CvxSettle *settle)
{
	CvxBatch   *batch = settle->batch;
	CvxTableName *names = palloc(sizeof(CvxTableName) *
								 Max(list_length(batch->tables), 1));
	int			n = 0;
	ListCell   *lc;

	foreach(lc, batch->tables)
	{
		const CvxBatchTable *table = lfirst(lc);
		bool		is_known = table->key == NULL;

		for (int i = 0; i < n; i++)
			is_known |= strcmp(names[i].table, table->name) == 0;
		if (is_known)
			continue;
		names[n].component = "";
		names[n++].table = table->name;
	}
	memset(&settle->selection, 0, sizeof(settle->selection));
	memset(&settle->want, 0, sizeof(settle->want));
	settle->want.is_delta = true;
	settle->selection.tables = settle->want.tables = names;
	settle->selection.ntables = settle->want.ntables = n;
}

/* There are many changes: keep those of the range's rows from now on. */
static void
keep_own(CvxSettle *settle, Changes *changes)
{
	int64		offset = changes->range.begin;
	HASH_SEQ_STATUS seq;
	CvxDocChange *change;

	changes->ids = cvx_queue_map("convex ids", sizeof(CvxTextKey));
	while (offset < changes->range.end)
	{
		CvxMessage	message;
		CvxTextKey	id = {NULL};

		if (!cvx_queue_next(settle->batch, &offset, NULL, &message))
			break;
		if (message.id != NULL)
		{
			id.data = pnstrdup(message.id, message.id_len);
			id.len = message.id_len;
			(void) hash_search(changes->ids, &id, HASH_ENTER, NULL);
		}
		cvx_queue_free_message(&message);
	}
	hash_seq_init(&seq, changes->map);
	while ((change = hash_seq_search(&seq)) != NULL)
		if (hash_search(changes->ids, &change->id, HASH_FIND, NULL) == NULL)
			(void) hash_search(changes->map, &change->id, HASH_REMOVE, NULL);
}

static void
take_change(CvxSettle *settle, const CvxPage *page, const CvxDoc *doc,
			void *arg)
{
	Changes    *changes = arg;
	CvxTextKey	id = {page->text + doc->id.offset, doc->id.len};
	CvxDocChange *change = hash_search(changes->map, &id, HASH_FIND, NULL);
	CvxRevision *revision;

	if (change == NULL)
	{
		if (changes->ids == NULL &&
			hash_get_num_entries(changes->map) >= MAX_CHANGES)
			keep_own(settle, changes);
		if (changes->ids != NULL &&
			hash_search(changes->ids, &id, HASH_FIND, NULL) == NULL)
			return;
		id.data = pnstrdup(id.data, id.len);
		change = hash_search(changes->map, &id, HASH_ENTER, NULL);
		change->revisions = NIL;
	}
	if (list_length(change->revisions) >= MAX_REVISIONS)
		return;
	revision = palloc0(sizeof(CvxRevision));
	revision->ts = doc->ts;
	revision->is_deleted = doc->is_deleted;
	change->revisions = lappend(change->revisions, revision);
}

static bool
is_written(CvxSettle *settle, const CvxMessage *message)
{
	CvxTextKey	key = cvx_settle_row_key(settle->batch, message);

	return hash_search(settle->written, &key, HASH_FIND, NULL) != NULL;
}
