/*
 * settle_after.c
 *		What has become of a request, and what did it overwrite?
 *
 * The change log is read after a request that got no answer, for what became
 * of it; and after one that was applied, for changes that came in between and
 * were overwritten.  Invariants 2 and 3 of settle_check.c are kept here.
 *
 * Room: write 4.4
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/memutils.h"

#include "ground/compat.h"
#include "ground/redact.h"
#include "shape/document.h"
#include "write/settle_after.h"

/* What a request makes of one row, and what the change log shows of it. */
typedef struct Expected
{
	CvxTextKey	key;
	CvxOp		op;				/* UPSERT, UPDATE or DELETE */
	char	   *row;
	int			row_len;
	bool		is_provable;	/* applying it would show in the change log */
	bool		is_checked;
	List	   *revisions;
} Expected;

/* The row with an id. */
typedef struct Known
{
	CvxTextKey	id;
	Expected   *expected;
} Known;

/* So often nobody changes a row between two requests. */
#define MAX_ROW_REVISIONS	1000

static void note_own(CvxSettle *settle, int64 ts);
static void note_written(CvxSettle *settle, CvxRange request);
static void verify(CvxSettle *settle, CvxRange request, int64 marker,
				   const char *applied);
static int64 marker_ts(CvxSettle *settle, HTAB *changes, int64 marker);
static bool is_all_deleted(CvxSettle *settle, HTAB *changes,
						   CvxRange request);
static bool is_overwriting(CvxSettle *settle, HTAB *changes,
						   CvxRange request, int64 ts);
static void look_closer(CvxSettle *settle, CvxRange request, int64 marker,
						int64 cursor, int64 own_ts, const char *applied);
CVX_NORETURN static void report_overwritten(CvxSettle *settle,
											const Expected *row,
											const CvxRevision *lost,
											const char *applied);
static int64 likeliest_ts(CvxSettle *settle, HTAB *rows, CvxBatch *batch,
						  int64 marker);
static const CvxRevision *overwritten(CvxSettle *settle, const Expected *row,
									  int64 ts);
static HTAB *read_rows(CvxSettle *settle, CvxRange request, int64 *cursor);
static void expect_rows(CvxBatch *batch, CvxRange request, HTAB *rows,
						HTAB *known);
static void take_revision(CvxSettle *settle, const CvxPage *page,
						  const CvxDoc *doc, void *arg);
static void add_revision(CvxSettle *settle, const CvxPage *page,
						 const CvxDoc *doc, Expected *row);
static bool is_as_sent(const Expected *row, const char *doc, size_t len);
static bool is_span(const CvxPage *page, CvxSpan span, const char *text);

/*
 * A request by key ended without an answer: APPLIED when the change log shows
 * every row of it as sent, REFUSED when it shows none of them, UNKNOWN
 * otherwise, also when the change log cannot be read.
 */
CvxOutcome
cvx_settle_lost(CvxSettle *settle, CvxRange request)
{
	MemoryContext cxt = CurrentMemoryContext;
	volatile CvxOutcome outcome = CVX_OUTCOME_UNKNOWN;

	if (settle->cursor <= 0)
		return CVX_OUTCOME_UNKNOWN;
	PG_TRY();
	{
		int64		cursor = settle->cursor;
		HTAB	   *rows = read_rows(settle, request, &cursor);
		bool		is_any_touched = false;
		bool		is_all_as_sent = true;
		HASH_SEQ_STATUS seq;
		Expected   *row;

		hash_seq_init(&seq, rows);
		while ((row = hash_seq_search(&seq)) != NULL)
		{
			const CvxRevision *last = row->revisions ?
				llast(row->revisions) : NULL;

			is_any_touched |= last != NULL;
			is_all_as_sent &= last ? last->is_as_sent : !row->is_provable;
		}
		outcome = !is_any_touched ? CVX_OUTCOME_REFUSED :
			is_all_as_sent ? CVX_OUTCOME_APPLIED : CVX_OUTCOME_UNKNOWN;
	}
	PG_CATCH();
	{
		/* The caller reports the request whose outcome stays unknown. */
		MemoryContextSwitchTo(cxt);
		FlushErrorState();
		QueryCancelPending = false;
		outcome = CVX_OUTCOME_UNKNOWN;
	}
	PG_END_TRY();
	return outcome;
}

/*
 * A request by key has been applied: has it overwritten what somebody else
 * wrote after the check?  Then 08007, and also when that cannot be told.
 * marker is the offset of the message whose write surely left a revision, or
 * -1.  Looks out for conflicts of later requests, too.
 */
void
cvx_settle_after(CvxSettle *settle, CvxRange request, int64 marker,
				 const char *applied)
{
	MemoryContext old = CurrentMemoryContext;
	MemoryContext cxt;

	settle->is_current = false;
	if (!settle->has_checks)
		return;
	if (!cvx_settle_has_checked(settle->batch, request))
	{
		note_written(settle, request);
		return;
	}
	cxt = AllocSetContextCreate(settle->cxt, "convex changes",
								ALLOCSET_DEFAULT_SIZES);
	MemoryContextSwitchTo(cxt);
	PG_TRY();
	{
		verify(settle, request, marker, applied);
	}
	PG_CATCH();
	{
		ErrorData  *error;

		MemoryContextSwitchTo(cxt);
		if (geterrcode() == ERRCODE_TRANSACTION_RESOLUTION_UNKNOWN)
			PG_RE_THROW();
		error = CopyErrorData();
		FlushErrorState();
		ereport(ERROR,
				(errcode(ERRCODE_TRANSACTION_RESOLUTION_UNKNOWN),
				 errmsg("Convex server \"%s\" has applied a write, but it is not known whether it overwrote another client's change",
						settle->batch->server_name),
				 errdetail("The change log could not be read: %s.  %s",
						   error->message, applied),
				 errhint("Look at the data in Convex before you run the transaction again.")));
	}
	PG_END_TRY();
	MemoryContextSwitchTo(old);
	MemoryContextDelete(cxt);
}

static void
note_own(CvxSettle *settle, int64 ts)
{
	MemoryContext old = MemoryContextSwitchTo(settle->cxt);
	int64	   *copy = palloc(sizeof(int64));

	*copy = ts;
	settle->own = lappend(settle->own, copy);
	MemoryContextSwitchTo(old);
}

/* A request's timestamp is not known: its rows are no conflict from now on. */
static void
note_written(CvxSettle *settle, CvxRange request)
{
	MemoryContext old = MemoryContextSwitchTo(settle->cxt);
	int64		offset = request.begin;

	while (offset < request.end)
	{
		CvxMessage	message;
		CvxTextKey	key;
		bool		is_known;

		if (!cvx_queue_next(settle->batch, &offset, NULL, &message))
			break;
		if (message.key != NULL)
		{
			key = cvx_settle_row_key(settle->batch, &message);
			key.data = pnstrdup(key.data, key.len);
			(void) hash_search(settle->written, &key, HASH_ENTER, &is_known);
		}
		cvx_queue_free_message(&message);
	}
	MemoryContextSwitchTo(old);
}

static void
verify(CvxSettle *settle, CvxRange request, int64 marker, const char *applied)
{
	CvxRange	rest = {request.end, settle->run.end};
	CvxRange	unverified = {request.begin, settle->run.end};
	int64		before = settle->cursor;
	HTAB	   *changes = cvx_settle_read_changes(settle, unverified, &settle->cursor);
	int64		ts = marker_ts(settle, changes, marker);

	if (ts == 0 && is_all_deleted(settle, changes, request))
		note_written(settle, request);
	else if (ts == 0 || is_overwriting(settle, changes, request, ts))
		look_closer(settle, request, marker, before, ts, applied);
	else
		note_own(settle, ts);
	cvx_settle_compare_unsent(settle, changes, rest, applied);
	settle->is_current = true;
}

/* The only timestamp that can be the request's; 0: there is none, or several. */
static int64
marker_ts(CvxSettle *settle, HTAB *changes, int64 marker)
{
	CvxMessage	message;
	CvxDocChange *change;
	int64		ts = 0;
	ListCell   *lc;

	if (marker < 0 ||
		!cvx_queue_next(settle->batch, &marker, NULL, &message))
		return 0;
	change = cvx_settle_find_change(changes, &message);
	foreach(lc, change ? change->revisions : NIL)
	{
		const CvxRevision *revision = lfirst(lc);

		if (cvx_settle_is_own(settle, revision->ts))
			continue;
		if (ts != 0)
			return 0;
		ts = revision->ts;
	}
	return ts;
}

/* Were rows deleted and nothing else, by whomever? */
static bool
is_all_deleted(CvxSettle *settle, HTAB *changes, CvxRange request)
{
	bool		result = true;

	while (result && request.begin < request.end)
	{
		CvxMessage	message;
		CvxDocChange *change;
		ListCell   *lc;

		if (!cvx_queue_next(settle->batch, &request.begin, NULL, &message))
			break;
		change = cvx_settle_find_change(changes, &message);
		result = message.op == CVX_OP_DELETE && change != NULL;
		foreach(lc, change ? change->revisions : NIL)
			result &= ((const CvxRevision *) lfirst(lc))->is_deleted;
		cvx_queue_free_message(&message);
	}
	return result;
}

/* Has a checked row of the request a revision of somebody else's before it? */
static bool
is_overwriting(CvxSettle *settle, HTAB *changes, CvxRange request, int64 ts)
{
	while (request.begin < request.end)
	{
		CvxMessage	message;
		CvxDocChange *change;
		ListCell   *lc;

		if (!cvx_queue_next(settle->batch, &request.begin, NULL, &message))
			break;
		change = cvx_settle_is_checked(&message) ?
			cvx_settle_find_change(changes, &message) : NULL;
		foreach(lc, change ? change->revisions : NIL)
		{
			const CvxRevision *revision = lfirst(lc);

			if (revision->ts < ts && !cvx_settle_is_own(settle, revision->ts))
				return true;
		}
		cvx_queue_free_message(&message);
	}
	return false;
}

/*
 * Read the documents themselves.  own_ts is the request's timestamp, or 0: the
 * one at which most of its rows are as it has sent them, and the last of
 * these, so that in doubt an overwritten change is reported.
 */
static void
look_closer(CvxSettle *settle, CvxRange request, int64 marker, int64 cursor,
			int64 own_ts, const char *applied)
{
	HTAB	   *rows = read_rows(settle, request, &cursor);
	HASH_SEQ_STATUS seq;
	Expected   *row;

	if (own_ts == 0)
		own_ts = likeliest_ts(settle, rows, settle->batch, marker);
	if (own_ts == 0)
	{
		note_written(settle, request);
		return;
	}
	note_own(settle, own_ts);
	hash_seq_init(&seq, rows);
	while ((row = hash_seq_search(&seq)) != NULL)
	{
		const CvxRevision *lost = overwritten(settle, row, own_ts);

		if (lost == NULL)
			continue;
		hash_seq_term(&seq);
		report_overwritten(settle, row, lost, applied);
	}
}

/* Throw 08007 that tells what was lost, and where it can still be read. */
static void
report_overwritten(CvxSettle *settle, const Expected *row,
				   const CvxRevision *lost, const char *applied)
{
	const char *name = cvx_queue_table_of(settle->batch, row->key.table)->name;
	StringInfoData plain;

	if (lost->is_deleted)
		ereport(ERROR,
				(errcode(ERRCODE_TRANSACTION_RESOLUTION_UNKNOWN),
				 errmsg("another client's change was overwritten in Convex"),
				 errdetail("Document \"%s\" of table \"%s\" was deleted at " INT64_FORMAT ", after the check for conflicts, and this transaction wrote the row again.  %s",
						   cvx_redact_excerpt(lost->id.data, lost->id.len), name,
						   lost->ts, applied),
				 errhint("Look at the data in Convex before you run the transaction again.")));
	initStringInfo(&plain);
	cvx_document_strip(&plain, lost->text, lost->len, false);
	ereport(ERROR,
			(errcode(ERRCODE_TRANSACTION_RESOLUTION_UNKNOWN),
			 errmsg("another client's change was overwritten in Convex"),
			 errdetail("Document \"%s\" of table \"%s\" was changed at " INT64_FORMAT ", after the check for conflicts, to %s.  %s",
					   cvx_redact_excerpt(lost->id.data, lost->id.len), name,
					   lost->ts, cvx_redact_message(plain.data),
					   applied),
			 errhint("After SET convex_fdw.snapshot = '" INT64_FORMAT "' the foreign table shows what was overwritten.",
					 lost->ts)));
}

static int64
likeliest_ts(CvxSettle *settle, HTAB *rows, CvxBatch *batch, int64 marker)
{
	CvxMessage	message;
	CvxTextKey	wanted = {NULL};
	int64		best_ts = 0;
	int			best = 0;
	HTAB	   *counts;
	HASHCTL		control = {0};
	HASH_SEQ_STATUS seq;
	Expected   *row;
	struct Count
	{
		int64		ts;
		int			n;
	}		   *count;

	control.keysize = sizeof(int64);
	control.entrysize = sizeof(struct Count);
	control.hcxt = CurrentMemoryContext;
	counts = hash_create("convex timestamps", 64, &control,
						 HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	if (marker >= 0)
	{
		int64		offset = marker;

		if (cvx_queue_next(batch, &offset, NULL, &message))
			wanted = cvx_settle_row_key(batch, &message);
		else
			marker = -1;
	}
	hash_seq_init(&seq, rows);
	while ((row = hash_seq_search(&seq)) != NULL)
	{
		ListCell   *lc;

		/* Where there is a marker its row alone tells. */
		if (marker >= 0 &&
			(row->key.table != wanted.table || row->key.len != wanted.len ||
			 memcmp(row->key.data, wanted.data, wanted.len) != 0))
			continue;
		foreach(lc, row->revisions)
		{
			const CvxRevision *revision = lfirst(lc);
			bool		is_known;

			if (!revision->is_as_sent || cvx_settle_is_own(settle, revision->ts))
				continue;
			count = hash_search(counts, &revision->ts, HASH_ENTER, &is_known);
			count->n = is_known ? count->n + 1 : 1;
		}
	}
	hash_seq_init(&seq, counts);
	while ((count = hash_seq_search(&seq)) != NULL)
		if (count->n > best || (count->n == best && count->ts > best_ts))
		{
			best = count->n;
			best_ts = count->ts;
		}
	return best_ts;
}

/* The last foreign revision of a row before a timestamp; NULL: none counts. */
static const CvxRevision *
overwritten(CvxSettle *settle, const Expected *row, int64 ts)
{
	const CvxRevision *lost = NULL;
	ListCell   *lc;

	if (!row->is_checked)
		return NULL;
	foreach(lc, row->revisions)
	{
		const CvxRevision *revision = lfirst(lc);

		if (revision->ts < ts && !cvx_settle_is_own(settle, revision->ts))
			lost = revision;
	}

	/* A row that was to be deleted and had been deleted is as it should be. */
	return lost != NULL && lost->is_deleted && row->op == CVX_OP_DELETE ?
		NULL : lost;
}

/* What a request's rows were to become, and their revisions after a cursor. */
static HTAB *
read_rows(CvxSettle *settle, CvxRange request, int64 *cursor)
{
	HTAB	   *maps[2];

	maps[0] = cvx_queue_map("convex rows", sizeof(Expected));
	maps[1] = cvx_queue_map("convex ids", sizeof(Known));
	expect_rows(settle->batch, request, maps[0], maps[1]);
	cvx_settle_read_log(settle, true, cursor, take_revision, maps);
	return maps[0];
}

/* Fill in what the request makes of each of its rows. */
static void
expect_rows(CvxBatch *batch, CvxRange request, HTAB *rows, HTAB *known)
{
	int64		offset = request.begin;

	while (offset < request.end)
	{
		CvxMessage	message;
		CvxTextKey	key;
		Expected   *row;
		bool		is_known;

		if (!cvx_queue_next(batch, &offset, NULL, &message))
			break;
		key = cvx_settle_row_key(batch, &message);
		row = hash_search(rows, &key, HASH_ENTER, &is_known);
		if (!is_known)
		{
			memset((char *) row + sizeof(CvxTextKey), 0,
				   sizeof(Expected) - sizeof(CvxTextKey));
			row->op = message.op;
		}
		if (message.op == CVX_OP_UPDATE && is_known &&
			row->op != CVX_OP_DELETE)
		{
			StringInfoData merged;

			initStringInfo(&merged);
			cvx_document_merge(&merged, row->row, row->row_len, message.row,
							   message.row_len);
			row->row = merged.data;
			row->row_len = merged.len;
		}
		else
		{
			row->op = message.op;
			row->row = (char *) message.row;
			row->row_len = message.row_len;
		}
		row->is_checked |= cvx_settle_is_checked(&message);
		row->is_provable = !message.changes_nothing &&
			(row->op != CVX_OP_DELETE || message.id != NULL);
		if (message.id != NULL)
		{
			CvxTextKey	id = {message.id, message.id_len};
			Known	   *entry = hash_search(known, &id, HASH_ENTER, NULL);

			entry->expected = row;
		}
	}
}

/* Note a change that is of one of the request's rows. */
static void
take_revision(CvxSettle *settle, const CvxPage *page, const CvxDoc *doc,
			  void *arg)
{
	HTAB	  **maps = arg;
	const char *text = page->text + doc->document.offset;
	CvxTextKey	id = {page->text + doc->id.offset, doc->id.len};
	Known	   *entry = hash_search(maps[1], &id, HASH_FIND, NULL);
	Expected   *by_key = NULL;
	int			number = 0;
	ListCell   *lc;

	foreach(lc, settle->batch->tables)
	{
		const CvxBatchTable *table = lfirst(lc);
		StringInfoData key;
		const char *missing;

		initStringInfo(&key);
		if (!doc->is_deleted && by_key == NULL && table->key &&
			is_span(page, doc->table, table->name) &&
			cvx_document_key(&key, text, doc->document.len, table->key,
							 &missing))
		{
			CvxTextKey	wanted = {key.data, key.len, number};

			by_key = hash_search(maps[0], &wanted, HASH_FIND, NULL);
		}
		number++;
		pfree(key.data);
	}

	/* A document that has another key now is a change of both rows. */
	if (entry && entry->expected != by_key)
		add_revision(settle, page, doc, entry->expected);
	if (by_key)
		add_revision(settle, page, doc, by_key);
}

static void
add_revision(CvxSettle *settle, const CvxPage *page, const CvxDoc *doc,
			 Expected *row)
{
	CvxRevision *revision = palloc0(sizeof(CvxRevision));

	if (list_length(row->revisions) >= MAX_ROW_REVISIONS)
		ereport(ERROR,
				(errcode(ERRCODE_FDW_UNABLE_TO_CREATE_REPLY),
				 errmsg("Convex server \"%s\" reports more than %d changes of one document",
						settle->batch->server_name, MAX_ROW_REVISIONS)));
	revision->ts = doc->ts;
	revision->is_deleted = doc->is_deleted;
	revision->text = pnstrdup(page->text + doc->document.offset,
							  doc->document.len);
	revision->len = doc->document.len;
	revision->id.data = pnstrdup(page->text + doc->id.offset, doc->id.len);
	revision->id.len = doc->id.len;
	revision->is_as_sent = doc->is_deleted ? row->op == CVX_OP_DELETE :
		is_as_sent(row, revision->text, revision->len);
	row->revisions = lappend(row->revisions, revision);
}

/* Is the document what the request makes of it? */
static bool
is_as_sent(const Expected *row, const char *doc, size_t len)
{
	StringInfoData have;
	StringInfoData want;

	initStringInfo(&have);
	initStringInfo(&want);
	if (row->op == CVX_OP_DELETE)
		return false;
	cvx_document_canonical(&have, doc, len, true);
	if (row->op == CVX_OP_UPSERT || row->op == CVX_OP_APPEND)
		cvx_document_canonical(&want, row->row, row->row_len, true);
	else
	{
		StringInfoData merged;

		initStringInfo(&merged);
		cvx_document_merge(&merged, doc, len, row->row, row->row_len);
		cvx_document_canonical(&want, merged.data, merged.len, true);
	}
	return have.len == want.len && memcmp(have.data, want.data, have.len) == 0;
}

static bool
is_span(const CvxPage *page, CvxSpan span, const char *text)
{
	return strlen(text) == span.len &&
		memcmp(page->text + span.offset, text, span.len) == 0;
}
