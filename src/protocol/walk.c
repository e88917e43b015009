/*
 * walk.c
 *		Does a page follow the one before?
 *
 * What a single page must be, page.c says.  Here is what Convex promises of a
 * row of pages, and what everyone who asks for a row of pages checks:
 *
 *	1. All pages of a walk have the snapshot of the first one.
 *	2. The _ids of a table ascend, from page to page, too; a table whose
 *	   documents have ended does not come again.
 *	3. A cursor leads on: the answer does not give the one back that was sent.
 *	4. A walk has at most one empty page for each selected table.
 *	5. The changes of a page lie after the cursor that was sent, in the order
 *	   of their timestamps.
 *	6. While the log goes on its cursor moves forward.  Empty pages may follow
 *	   each other for long, where others write; but at least 128 changes lie
 *	   behind each of them, and those take time.
 *
 * So a proxy that answers an old request again, or a server that is broken,
 * gives an error, never rows twice, nor requests without end.
 *
 * Room: protocol 2.10
 */
#include "postgres.h"

#include "utils/memutils.h"

#include "protocol/walk.h"

/* Empty pages of a walk beyond one for each table. */
#define SPARE_EMPTY_PAGES	2

/*
 * So many empty pages of the log may come in a row whatever their cursors are;
 * then each has to lie so many nanoseconds after the one before, on average.
 * That is a hundred million changes a second.  A deployment whose clock was set
 * back commits nanosecond by nanosecond until it has caught up: who follows it
 * then fails now and then, and goes on from the cursor that it has reached.
 */
#define FREE_EMPTY_PAGES	32
#define MIN_EMPTY_NS		1000

CVX_NORETURN static void fail(const char *server, const char *problem);
static void check_documents(CvxWalk *walk, const CvxPage *page);
static void enter_table(CvxWalk *walk, const CvxPage *page,
						const CvxDoc *doc);
static inline bool is_same_span(const char *text, CvxSpan a, CvxSpan b);
static int	compare_id(const char *a, size_t a_len, const char *b,
					   size_t b_len);

/*
 * A walk at its beginning, in a child of the current context.  The server's
 * name is for messages and is not copied; ntables are selected.
 */
CvxWalk *
cvx_walk_open(const char *server, int ntables)
{
	MemoryContext cxt = AllocSetContextCreate(CurrentMemoryContext,
											  "convex walk",
											  ALLOCSET_SMALL_SIZES);
	CvxWalk    *walk = MemoryContextAllocZero(cxt, sizeof(CvxWalk));
	MemoryContext old = MemoryContextSwitchTo(cxt);

	walk->cxt = cxt;
	walk->server = server;
	walk->ntables = ntables;
	initStringInfo(&walk->last_id);
	MemoryContextSwitchTo(old);
	return walk;
}

/*
 * A page is asked for with these.  When that is not where the walk stands, as
 * after a failure or in a new process, or at the beginning, what was seen
 * before is forgotten.
 */
void
cvx_walk_resume(CvxWalk *walk, int64 snapshot, const char *cursor)
{
	if (walk->snapshot == snapshot && cursor != NULL &&
		walk->cursor != NULL && strcmp(walk->cursor, cursor) == 0)
		return;
	walk->snapshot = snapshot;
	if (walk->cursor)
		pfree(walk->cursor);
	walk->cursor = cursor ? MemoryContextStrdup(walk->cxt, cursor) : NULL;
	list_free_deep(walk->tables);
	walk->tables = NIL;
	walk->nempty = 0;
	walk->nbroken = 0;
}

/*
 * After cvx_walk_resume(): the page before ended with this document, as whoever
 * asks for the next one has kept it.
 */
void
cvx_walk_enter(CvxWalk *walk, const char *component, const char *table,
			   const char *last_id)
{
	MemoryContext old = MemoryContextSwitchTo(walk->cxt);

	walk->tables = lappend(walk->tables, psprintf("%s/%s", component, table));
	resetStringInfo(&walk->last_id);
	appendStringInfoString(&walk->last_id, last_id);
	MemoryContextSwitchTo(old);
}

/* The next page of the walk; throws HV00M unless it can be that. */
void
cvx_walk_check(CvxWalk *walk, const CvxPage *page)
{
	MemoryContext old;

	walk->nbroken++;
	if (walk->snapshot != 0 && page->ts != walk->snapshot)
		ereport(ERROR,
				(errcode(ERRCODE_FDW_UNABLE_TO_CREATE_REPLY),
				 errmsg("Convex server \"%s\" answered with snapshot " INT64_FORMAT " instead of " INT64_FORMAT,
						walk->server, page->ts, walk->snapshot)));
	if (page->has_more && walk->cursor != NULL &&
		strcmp(page->cursor, walk->cursor) == 0)
		fail(walk->server, "answered with the same page cursor again");
	walk->nempty = page->ndocs > 0 ? 0 : walk->nempty + 1;
	if (page->has_more && walk->nempty > walk->ntables + SPARE_EMPTY_PAGES)
		fail(walk->server, "goes on with empty pages");

	old = MemoryContextSwitchTo(walk->cxt);
	check_documents(walk, page);
	walk->snapshot = page->ts;
	if (walk->cursor)
		pfree(walk->cursor);
	walk->cursor = page->has_more ? pstrdup(page->cursor) : NULL;
	walk->nbroken = 0;
	MemoryContextSwitchTo(old);
}

void
cvx_walk_close(CvxWalk *walk)
{
	MemoryContextDelete(walk->cxt);
}

/* The log is going to be read after a cursor. */
void
cvx_log_begin(CvxLog *log, const char *server, int64 cursor)
{
	log->server = server;
	if (log->cursor != cursor)
		log->nempty = 0;
	log->cursor = cursor;
}

/*
 * The next page of the log; throws HV00M unless it can be that.  False: the
 * log ends before the cursor.  Convex says so of a cursor that is another
 * deployment's, or from before a restore; what it means the caller knows.
 */
bool
cvx_log_check(CvxLog *log, const CvxPage *page)
{
	int64		before = log->cursor;

	if (page->has_more && page->ts <= log->cursor)
		fail(log->server, page->ts == log->cursor ?
			 "answered with the same change cursor again" :
			 "answered with a change cursor before the one that was sent");
	for (int i = 0; i < page->ndocs; i++)
	{
		const CvxDoc *doc = &page->docs[i];

		if (doc->ts <= log->cursor)
			fail(log->server, "sent a change again that lies before the cursor");
		if (doc->ts < before)
			fail(log->server, "sent changes that are not in the order of their timestamps");
		before = doc->ts;
	}
	if (before > page->ts && page->ndocs > 0)
		fail(log->server, "sent a change that lies after the cursor of its page");
	if (page->ts < log->cursor)
		return false;

	if (page->ndocs > 0 || !page->has_more)
		log->nempty = 0;
	else if (log->nempty++ == 0)
		log->empty_from = log->cursor;
	if (log->nempty > FREE_EMPTY_PAGES &&
		page->ts - log->empty_from < (int64) log->nempty * MIN_EMPTY_NS)
		fail(log->server, "goes on with empty pages whose cursors hardly move");
	log->cursor = page->ts;
	return true;
}

/* The log ends before a cursor that the same server gave. */
void
cvx_log_fail_behind(const CvxLog *log, const CvxPage *page)
{
	ereport(ERROR,
			(errcode(ERRCODE_FDW_UNABLE_TO_CREATE_REPLY),
			 errmsg("change log of Convex server \"%s\" ends before the timestamp that the server gave",
					log->server),
			 errdetail("The log ends at " INT64_FORMAT "; it was asked for after " INT64_FORMAT ".",
					   page->ts, log->cursor),
			 errhint("Requests may reach different deployments: check deployment_url and any proxy.")));
}

static void
fail(const char *server, const char *problem)
{
	ereport(ERROR,
			(errcode(ERRCODE_FDW_UNABLE_TO_CREATE_REPLY),
			 errmsg("Convex server \"%s\" %s", server, problem),
			 errhint("A proxy may be returning a cached answer.")));
}

/* Do the documents follow those before, table by table? */
static void
check_documents(CvxWalk *walk, const CvxPage *page)
{
	const CvxDoc *last = NULL;

	for (int i = 0; i < page->ndocs; i++)
	{
		const CvxDoc *doc = &page->docs[i];

		if (last != NULL && is_same_span(page->text, doc->table, last->table) &&
			is_same_span(page->text, doc->component, last->component))
		{
			if (compare_id(page->text + last->id.offset, last->id.len,
						   page->text + doc->id.offset, doc->id.len) >= 0)
				fail(walk->server, "sent documents whose _ids do not ascend");
		}
		else
			enter_table(walk, page, doc);
		last = doc;
	}
	if (last != NULL)
	{
		resetStringInfo(&walk->last_id);
		appendBinaryStringInfo(&walk->last_id, page->text + last->id.offset,
							   last->id.len);
	}
}

/* The first document of a page, or the first one of another table. */
static void
enter_table(CvxWalk *walk, const CvxPage *page, const CvxDoc *doc)
{
	char	   *name = psprintf("%.*s/%.*s", (int) doc->component.len,
								page->text + doc->component.offset,
								(int) doc->table.len,
								page->text + doc->table.offset);
	ListCell   *lc;

	if (walk->tables != NIL && strcmp(llast(walk->tables), name) == 0)
	{
		if (compare_id(walk->last_id.data, walk->last_id.len,
					   page->text + doc->id.offset, doc->id.len) >= 0)
			fail(walk->server, "sent documents again that an earlier page had");
		pfree(name);
		return;
	}
	foreach(lc, walk->tables)
		if (strcmp(lfirst(lc), name) == 0)
			fail(walk->server, "sent documents again of a table that had ended");
	walk->tables = lappend(walk->tables, name);
}

static inline bool
is_same_span(const char *text, CvxSpan a, CvxSpan b)
{
	return a.len == b.len &&
		memcmp(text + a.offset, text + b.offset, a.len) == 0;
}

/* The order of their bytes is the order of Convex. */
static int
compare_id(const char *a, size_t a_len, const char *b, size_t b_len)
{
	int			order = memcmp(a, b, Min(a_len, b_len));

	return order != 0 ? order : (a_len > b_len) - (a_len < b_len);
}
