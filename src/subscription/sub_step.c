/*
 * sub_step.c
 *		How is a page asked for, and applied in one transaction?
 *
 * A step asks for a page, without a transaction, and asks for the one that
 * is probably next.  Then it applies the page, moves the cursor and commits.
 * Tables that refuse their rows wait, each by itself.
 *
 * Which page is to be next says sub_sync.c.
 *
 * Room: subscription 5.11
 */
#include "postgres.h"

#include "catalog/pg_foreign_server.h"
#include "common/hashfn.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

#include "ground/compat.h"
#include "ground/guard.h"
#include "protocol/inventory.h"
#include "protocol/schema.h"
#include "subscription/sub_apply.h"
#include "subscription/sub_catalog.h"
#include "subscription/sub_events.h"
#include "subscription/sub_state.h"
#include "subscription/sub_step.h"
#include "subscription/sub_tables.h"
#include "subscription/sub_target.h"

/* Deadlocks and the like of one table that are taken for passing. */
#define MAX_PASSING_FAILURES	3

/*
 * The part of the server's lock table that one transaction takes where it can
 * choose, and about how many locks a page needs of it for each table.
 */
#define LOCK_TABLE_PART		8
#define PAGE_LOCKS			6

/* How often a worker that is behind asks how far. */
#define HEAD_MS				5000

/* What step_work() is told. */
typedef struct Work
{
	CvxSync    *sync;
	CvxSubRel  *rel;
	void		(*work) (CvxSync *sync, CvxSubRel *rel, void *arg);
	void	   *arg;
} Work;

typedef struct ApplyArg
{
	const CvxBatchDocs *docs;
	bool		to_staging;
	int64		rows;
} ApplyArg;

static void check_lock(CvxSync *sync);
static void step_work(void *arg);
static void apply_one(CvxSync *sync, CvxSubRel *rel, void *arg);
static int	add_patterns(const CvxSubscription *sub, CvxTableName *names,
						 bool *is_everything);
static bool is_entered(const CvxSubscription *sub, const char *component,
					   const char *table);
static bool is_named(const CvxTableName *names, int n, const char *component,
					 const char *table);
static bool is_same_table(const CvxPage *page, const CvxDoc *one,
						  const CvxDoc *other);
static void look_for_dropped(CvxSync *sync);
static char *cursor_member(const char *cursor, const char *label);

/* Begin a transaction; the current context stays the step's. */
void
cvx_step_begin(CvxSync *sync)
{
	sync->host.begin();
	MemoryContextSwitchTo(sync->step.cxt);
	cvx_apply_environment();
}

/* Commit it, unless the lock that makes this process the only one is gone. */
void
cvx_step_commit(CvxSync *sync)
{
	check_lock(sync);
	sync->host.commit();
	MemoryContextSwitchTo(sync->step.cxt);
}

/* The right to step the subscription; it ends with the process at the latest. */
bool
cvx_step_take_lock(CvxSync *sync)
{
	if (sync->lease.has_lock)
		return true;
	SET_LOCKTAG_ADVISORY(sync->lease.lock, MyDatabaseId, cvx_catalog_relid(),
						 sync->subid, CVX_LOCK_SUBSCRIPTION);
	sync->lease.has_lock = LockAcquire(&sync->lease.lock, ExclusiveLock, true, true) !=
		LOCKACQUIRE_NOT_AVAIL;
	return sync->lease.has_lock;
}

/* Code of a target can let go of all advisory locks of its session. */
void
cvx_step_note_locks(CvxSync *sync)
{
	sync->lease.has_lock = sync->lease.has_lock &&
		cvx_lock_is_held(&sync->lease.lock, ExclusiveLock);
	sync->lease.has_walk_lock = sync->lease.has_walk_lock &&
		cvx_lock_is_held(&sync->lease.walk_lock, ExclusiveLock);
}

static void
check_lock(CvxSync *sync)
{
	bool		had_lock = sync->lease.has_lock;

	cvx_step_note_locks(sync);
	if (had_lock && !sync->lease.has_lock)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the lock of the subscription was released"),
				 errdetail("Code of a target called pg_advisory_unlock_all().")));
}

/* The right to walk: a deployment keeps one walk warm, whoever's it is. */
bool
cvx_step_take_walk_lock(CvxSync *sync)
{
	const char *url = cvx_http_remote(sync->link.http)->base_url;

	if (sync->lease.has_walk_lock)
		return true;
	SET_LOCKTAG_ADVISORY(sync->lease.walk_lock, InvalidOid, ForeignServerRelationId,
						 hash_bytes((const unsigned char *) url, strlen(url)),
						 CVX_LOCK_WALK);
	sync->lease.has_walk_lock = LockAcquire(&sync->lease.walk_lock, ExclusiveLock, true,
									  true) != LOCKACQUIRE_NOT_AVAIL;
	return sync->lease.has_walk_lock;
}

/* Let others of the deployment walk. */
void
cvx_step_release_walk_lock(CvxSync *sync)
{
	if (sync->lease.has_walk_lock)
		LockRelease(&sync->lease.walk_lock, ExclusiveLock, true);
	sync->lease.has_walk_lock = false;
}

/* What was asked for ahead is of no use any more. */
void
cvx_step_forget_ahead(CvxSync *sync)
{
	if (sync->link.ahead)
		MemoryContextReset(sync->link.page_cxts[1 - sync->link.present]);
	sync->link.ahead = NULL;
}

/* Is a table in this stage?  One that waits for its retry is not wanted. */
bool
cvx_step_has_load(CvxSubscription *sub, CvxRelLoad load)
{
	ListCell   *lc;

	foreach(lc, sub->rels)
	{
		CvxSubRel  *rel = lfirst(lc);

		if (rel->load == load &&
			(rel->is_retry_due ||
			 (load != CVX_LOAD_WANTED && load != CVX_LOAD_INDEXING)))
			return true;
	}
	return false;
}

/*
 * How many locks a transaction may take where its work can be divided.  The
 * table of locks is everybody's: when it is full nobody can write down even
 * that.  After failures it is less, since others may hold many.
 */
int
cvx_step_lock_budget(const CvxSync *sync)
{
	return Max(cvx_apply_lock_slots() / LOCK_TABLE_PART >> Min(sync->sub->state.failures, 8), 1);
}

/*
 * Where to cut a page of changes that has too many tables for one transaction:
 * at bound, or before the first Convex transaction that goes too far.
 */
int64
cvx_step_cut(const CvxSync *sync, const CvxPage *page, int64 bound)
{
	int			most = Max(cvx_step_lock_budget(sync) / PAGE_LOCKS, 1);
	int		   *firsts = palloc(sizeof(int) * most);
	int			n = 0;
	int64		whole = 0;

	for (int i = 0; i < page->ndocs && page->docs[i].ts <= bound; i++)
	{
		const CvxDoc *doc = &page->docs[i];
		bool		is_known = false;

		if (i > 0 && page->docs[i - 1].ts < doc->ts)
			whole = page->docs[i - 1].ts;
		for (int t = n; t-- > 0 && !is_known;)
			is_known = is_same_table(page, &page->docs[firsts[t]], doc);
		if (is_known)
			continue;
		if (n == most && whole > 0)
			return whole;
		if (n < most)
			firsts[n++] = i;
	}
	return bound;
}

static bool
is_same_table(const CvxPage *page, const CvxDoc *one, const CvxDoc *other)
{
	return one->table.len == other->table.len &&
		one->component.len == other->component.len &&
		memcmp(page->text + one->table.offset, page->text + other->table.offset,
			   one->table.len) == 0 &&
		memcmp(page->text + one->component.offset,
			   page->text + other->component.offset, one->component.len) == 0;
}

/* The newest timestamp, now; throws when the server does not tell. */
int64
cvx_step_ask_head(CvxSync *sync)
{
	return cvx_api_sure_head(sync->link.http);
}

/* Does the server refuse a walk because of its snapshot or cursor? */
bool
cvx_step_is_snapshot_gone(CvxCall *call)
{
	return cvx_api_has_code(call, 400, "SnapshotTooOld") ||
		cvx_api_has_code(call, 400, "SnapshotTooNew") ||
		cvx_api_has_code(call, 400, "InvalidListSnapshotCursor");
}

/*
 * A page of changes after ts, or of a walk at the snapshot ts; lives in the
 * current context.  is_open: also of tables that the subscription's patterns
 * name and that it does not follow yet.
 */
CvxPageRequest
cvx_step_make_request(CvxSync *sync, bool is_delta, int64 ts, const char *cursor, List *rels, bool is_open)
{
	CvxPageRequest request = {0};
	int			most = list_length(rels) +
		(is_open ? list_length(sync->sub->patterns) : 0);
	CvxTableName *names = palloc(sizeof(CvxTableName) * Max(most, 1));
	int			nnew = 0;
	int			n;
	StringInfoData key;
	ListCell   *lc;

	if (is_open)
		nnew = add_patterns(sync->sub, names, &request.selection.is_everything);
	n = nnew;
	foreach(lc, request.selection.is_everything ? NIL : rels)
	{
		CvxSubRel  *rel = lfirst(lc);

		if (is_named(names, nnew, rel->component, rel->table))
			continue;
		names[n].component = rel->component;
		names[n++].table = rel->table;
	}
	request.is_delta = is_delta;
	request.ts = ts;
	request.cursor = cursor;
	request.selection.is_whole = true;
	if (!request.selection.is_everything)
	{
		request.selection.tables = names;
		request.selection.ntables = n;
	}
	initStringInfo(&key);
	appendStringInfo(&key, "%p %d " INT64_FORMAT " %s", sync->link.http, is_delta, ts,
					 cursor ? cursor : "");
	for (int i = 0; i < request.selection.ntables; i++)
		appendStringInfo(&key, " %s/%s", names[i].component,
						 names[i].table ? names[i].table : "*");
	request.key = key.data;
	return request;
}

/* What the patterns name beyond the tables that are followed. */
static int
add_patterns(const CvxSubscription *sub, CvxTableName *names, bool *is_everything)
{
	int			n = 0;
	ListCell   *lc;

	foreach(lc, sub->patterns)
		*is_everything |= strcmp(lfirst(lc), "*") == 0;
	if (*is_everything)
		return 0;
	for (int pass = 0; pass < 2; pass++)
		foreach(lc, sub->patterns)
		{
			const char *pattern = lfirst(lc);
			const char *slash = strrchr(pattern, '/');
			char	   *component = pnstrdup(pattern, slash ? slash - pattern : 0);
			const char *table = slash ? slash + 1 : pattern;
			bool		is_all = strcmp(table, "*") == 0;

			/* Whole components come first: their tables need no name. */
			if (is_all != (pass == 0) || is_named(names, n, component, table) ||
				(!is_all && is_entered(sub, component, table)))
				continue;
			names[n].component = component;
			names[n++].table = is_all ? NULL : table;
		}
	return n;
}

/* Is this table one of the subscription, and not dropped? */
static bool
is_entered(const CvxSubscription *sub, const char *component, const char *table)
{
	ListCell   *lc;

	foreach(lc, sub->rels)
	{
		CvxSubRel  *rel = lfirst(lc);

		if (strcmp(rel->component, component) == 0 &&
			strcmp(rel->table, table) == 0)
			return rel->state != CVX_REL_DROPPED;
	}
	return false;
}

static bool
is_named(const CvxTableName *names, int n, const char *component, const char *table)
{
	for (int i = 0; i < n; i++)
		if (strcmp(names[i].component, component) == 0 &&
			(names[i].table == NULL || strcmp(names[i].table, table) == 0))
			return true;
	return false;
}

/* The answer to a request, perhaps asked for already; waits. */
CvxPageAnswer
cvx_step_receive(CvxSync *sync, CvxPageRequest *request)
{
	CvxPageAnswer received = {0};
	MemoryContext old;

	if (sync->link.ahead && strcmp(sync->link.ahead_key, request->key) == 0)
	{
		MemoryContextReset(sync->link.page_cxts[sync->link.present]);
		sync->link.present = 1 - sync->link.present;
		received.call = sync->link.ahead;
		sync->link.ahead = NULL;
	}
	else
	{
		cvx_step_forget_ahead(sync);
		MemoryContextReset(sync->link.page_cxts[sync->link.present]);
		old = MemoryContextSwitchTo(sync->link.page_cxts[sync->link.present]);
		received.call = request->is_delta ?
			cvx_api_document_deltas(sync->link.http, &sync->link.stats, &request->selection, request->ts) :
			cvx_api_list_snapshot(sync->link.http, &sync->link.stats, &request->selection,
								  request->ts, request->cursor);
		MemoryContextSwitchTo(old);
	}
	sync->link.npages++;
	cvx_http_wait(received.call);
	return received;
}

/* Ask for the page that is probably next, without waiting. */
void
cvx_step_prefetch(CvxSync *sync, CvxPageRequest *request)
{
	MemoryContext old;

	if (sync->link.ahead && strcmp(sync->link.ahead_key, request->key) == 0)
		return;
	cvx_step_forget_ahead(sync);
	if (!cvx_http_prefetch)
		return;
	MemoryContextReset(sync->link.page_cxts[1 - sync->link.present]);
	old = MemoryContextSwitchTo(sync->link.page_cxts[1 - sync->link.present]);
	sync->link.ahead_key = pstrdup(request->key);
	sync->link.ahead = request->is_delta ?
		cvx_api_document_deltas(sync->link.http, &sync->link.stats, &request->selection, request->ts) :
		cvx_api_list_snapshot(sync->link.http, &sync->link.stats, &request->selection,
							  request->ts, request->cursor);
	MemoryContextSwitchTo(old);
}

/*
 * The same before an answer is parsed, if its end tells the next page.  What
 * the parser finds to be otherwise is asked for anew.
 */
void
cvx_step_prefetch_after(CvxSync *sync, CvxCall *call, bool is_delta, List *rels, bool is_open)
{
	const CvxAnswer *answer = cvx_http_answer(call);
	int64		ts = sync->sub->state.snapshot;
	char	   *cursor = NULL;
	CvxPageRequest next;

	if (!cvx_http_prefetch || answer->status != 200 ||
		!cvx_page_peek(answer->body, answer->body_len, is_delta, &ts, &cursor))
		return;
	next = cvx_step_make_request(sync, is_delta, ts, cursor, rels, is_open);
	cvx_step_prefetch(sync, &next);
}

/*
 * The server does not know what it was asked for.  When it no longer lists a
 * table of the subscription, that is dropped, and the step is tried again
 * without it although the page fails.
 */
static void
look_for_dropped(CvxSync *sync)
{
	List	   *tables = cvx_inventory(sync->link.http);
	ListCell   *lc;
	int			ndropped = 0;

	cvx_step_begin(sync);
	if (cvx_step_still_at(sync))
	{
		foreach(lc, sync->sub->rels)
			ndropped -= ((CvxSubRel *) lfirst(lc))->state == CVX_REL_DROPPED;
		(void) cvx_catalog_add_tables(sync->sub, tables, false);
		foreach(lc, sync->sub->rels)
			ndropped += ((CvxSubRel *) lfirst(lc))->state == CVX_REL_DROPPED;
	}
	cvx_step_commit(sync);
	sync->step.has_dropped = ndropped > 0;
}

/* Parse the answer; the page lives until the next is received. */
CvxPage *
cvx_step_read_page(CvxSync *sync, CvxPageAnswer received, CvxPageRequest *request)
{
	MemoryContext old = MemoryContextSwitchTo(sync->link.page_cxts[sync->link.present]);
	CvxPageWant want = {.is_delta = request->is_delta};
	CvxPage    *page;
	ListCell   *lc;

	if (cvx_http_answer(received.call)->status == 404)
		look_for_dropped(sync);
	want.tables = request->selection.tables;
	want.ntables = request->selection.ntables;
	/* Pages of one table come together. */
	foreach(lc, sync->sub->rels)
	{
		CvxSubRel  *rel = lfirst(lc);

		if (request->selection.is_whole && rel->relno == sync->link.page_relno)
			cvx_target_want(rel, &want);
	}
	page = cvx_api_page(received.call, sync->link.http, &want);
	MemoryContextSwitchTo(old);
	return page;
}

/*
 * Has nothing changed since this step read the catalog?  The row stays locked
 * until the transaction ends.
 */
bool
cvx_step_still_at(CvxSync *sync)
{
	cvx_catalog_run(SPI_OK_SELECT,
					"SELECT st.subid FROM @.convex_subscription_state AS st"
					" JOIN @.convex_subscription AS s USING (subid)"
					" WHERE st.subid = $1 AND st.generation = $2 AND st.cursor IS NOT DISTINCT FROM $3"
					" AND st.snapshot IS NOT DISTINCT FROM $4 AND st.page_cursor IS NOT DISTINCT FROM $5"
					" AND s.enabled FOR SHARE OF s FOR UPDATE OF st", "ilnnt",
					sync->subid, sync->sub->state.generation, sync->sub->state.cursor,
					sync->sub->state.snapshot, sync->sub->state.page_cursor);
	return SPI_processed == 1;
}

/* How far behind is a worker?  Asked now and then; a call knows its head. */
void
cvx_step_look_ahead(CvxSync *sync)
{
	if (!sync->host.is_worker ||
		!TimestampDifferenceExceeds(sync->pace.head_asked_at, GetCurrentTimestamp(),
									HEAD_MS))
		return;
	sync->pace.head_asked_at = GetCurrentTimestamp();
	sync->pace.seen_head = cvx_api_query_ts(sync->link.http);
}

/* Move the cursor, from where it was read to be. */
void
cvx_step_advance(CvxSync *sync, int64 cursor, bool has_more, int64 rows)
{
	cvx_state_advance(sync->sub, cursor, Max(sync->pace.head, sync->pace.seen_head),
					  has_more, rows, &sync->link.stats);
	cvx_step_forget_costs(sync);
}

/* What was done and what it cost has been added to the state. */
void
cvx_step_forget_costs(CvxSync *sync)
{
	sync->link.stats.bytes = sync->link.stats.requests = sync->link.stats.retries = 0;
	sync->step.is_productive = true;
}

/* Is this a document of this table? */
bool
cvx_step_is_doc_of(const CvxPage *page, const CvxDoc *doc, const CvxSubRel *rel)
{
	return strlen(rel->table) == doc->table.len &&
		strlen(rel->component) == doc->component.len &&
		memcmp(rel->table, page->text + doc->table.offset, doc->table.len) == 0 &&
		memcmp(rel->component, page->text + doc->component.offset, doc->component.len) == 0;
}

/*
 * The documents of each table, those up to bound, in the page's order.  The
 * batches are in the order of rels.
 */
int
cvx_step_group_docs(CvxSync *sync, const CvxPage *page, int64 bound, List *rels, CvxBatchDocs **batches)
{
	int			nrels = list_length(rels);
	int		   *owners = palloc(sizeof(int) * Max(page->ndocs, 1));
	int		  **docs = palloc0(sizeof(int *) * Max(nrels, 1));
	int			last = 0;
	int			n = 0;

	*batches = palloc0(sizeof(CvxBatchDocs) * Max(nrels, 1));
	for (int i = 0; i < page->ndocs; i++)
	{
		const CvxDoc *doc = &page->docs[i];

		owners[i] = -1;
		for (int r = 0; r < nrels && doc->ts <= bound; r++)
		{
			int			candidate = (last + r) % nrels;

			if (cvx_step_is_doc_of(page, doc, list_nth(rels, candidate)))
			{
				owners[i] = last = candidate;
				(*batches)[candidate].ndocs++;
				n++;
				break;
			}
		}
	}
	if (n > 0)
		sync->link.page_relno = ((CvxSubRel *) list_nth(rels, last))->relno;
	for (int r = 0; r < nrels; r++)
	{
		docs[r] = palloc(sizeof(int) * Max((*batches)[r].ndocs, 1));
		(*batches)[r].page = page;
		(*batches)[r].docs = docs[r];
		(*batches)[r].ndocs = 0;
	}
	for (int i = 0; i < page->ndocs; i++)
		if (owners[i] >= 0)
			docs[owners[i]][(*batches)[owners[i]].ndocs++] = i;
	return n;
}

static void
apply_one(CvxSync *sync, CvxSubRel *rel, void *arg)
{
	ApplyArg   *apply = arg;

	apply->rows = cvx_apply_changes(sync->sub, rel, apply->to_staging,
									apply->docs);

	/* What has rows is not as a crash leaves it. */
	if (apply->to_staging && rel->is_empty && apply->rows > 0)
		cvx_state_count(sync->sub, rel, apply->rows, NULL);
}

/* Apply a page to all its tables; a broken one waits, and the others go on. */
int64
cvx_step_apply_tables(CvxSync *sync, List *rels, const CvxPage *page, int64 bound, bool to_staging)
{
	CvxBatchDocs *batches;
	int64		rows = 0;
	ListCell   *lc;

	cvx_step_group_docs(sync, page, bound, rels, &batches);
	foreach(lc, rels)
	{
		CvxSubRel  *rel = lfirst(lc);
		ApplyArg	arg = {&batches[foreach_current_index(lc)], to_staging, 0};

		if (arg.docs->ndocs == 0)
			continue;
		if (cvx_step_guarded(sync, rel, to_staging ? rel->synced_ts :
							 rel->synced_ts ? rel->synced_ts : sync->sub->state.cursor,
							 apply_one, &arg))
			rows += arg.rows;
	}
	return rows;
}

static void
step_work(void *arg)
{
	Work	   *work = arg;

	work->work(work->sync, work->rel, work->arg);
	check_lock(work->sync);
}

/*
 * Do the work of one table; in careful mode within a subtransaction, so that
 * only this table waits if its target is broken, standing where it is.
 */
bool
cvx_step_guarded(CvxSync *sync, CvxSubRel *rel, int64 stands_at, void (*work) (CvxSync *sync, CvxSubRel *rel, void *arg), void *arg)
{
	Work		it = {sync, rel, work, arg};
	ErrorData  *error;

	if (!sync->pace.is_careful)
	{
		sync->step.is_applying = true;
		step_work(&it);
		sync->step.is_applying = false;
		return true;
	}
	error = cvx_guard(step_work, &it);
	if (error == NULL)
		return true;
	cvx_step_note_locks(sync);
	if (!cvx_step_take_lock(sync) ||
		!cvx_step_is_of_table(sync->sub, error->sqlerrcode))
		ReThrowError(error);
	cvx_state_fail(sync->sub, rel, stands_at, error);
	FreeErrorData(error);
	return false;
}

/*
 * Can this be the fault of one target?  Convex is not spoken to meanwhile, so
 * a lost connection is one of the target's own.  What may pass by itself is
 * the target's fault when it comes again and again; what the machine or the
 * operator did never is, save a limit that this table's work goes beyond.
 */
bool
cvx_step_is_of_table(const CvxSubscription *sub, int sqlerrcode)
{
	if (sqlerrcode == ERRCODE_CONFIGURATION_LIMIT_EXCEEDED)
		return true;
	switch (ERRCODE_TO_CATEGORY(sqlerrcode))
	{
		case ERRCODE_TRANSACTION_ROLLBACK:
		case ERRCODE_INTERNAL_ERROR:
			return sub->state.failures >= MAX_PASSING_FAILURES;
		case ERRCODE_INSUFFICIENT_RESOURCES:
		case ERRCODE_OPERATOR_INTERVENTION:
		case ERRCODE_SYSTEM_ERROR:
			return false;
		default:
			return true;
	}
}

/* The tablet that a page cursor names; NULL when it names none. */
char *
cvx_step_tablet_of(const char *cursor)
{
	return cursor_member(cursor, "\"tablet\":\"");
}

/* The tablet of a walk's last document; NULL when the cursor is past it. */
char *
cvx_step_tablet_of_last(const CvxPage *page)
{
	const CvxDoc *doc;
	char	   *id;

	if (page->cursor == NULL || page->ndocs == 0)
		return NULL;
	doc = &page->docs[page->ndocs - 1];
	id = cursor_member(page->cursor, "\"id\":\"");
	if (id == NULL || strlen(id) != doc->id.len ||
		memcmp(id, page->text + doc->id.offset, doc->id.len) != 0)
		return NULL;
	return cvx_step_tablet_of(page->cursor);
}

static char *
cursor_member(const char *cursor, const char *label)
{
	const char *begin = strstr(cursor, label);

	if (begin == NULL)
		return NULL;
	begin += strlen(label);
	return pnstrdup(begin, strcspn(begin, "\""));
}
