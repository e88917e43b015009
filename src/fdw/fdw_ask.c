/*
 * fdw_ask.c
 *		What does Convex answer to a scan's question?
 *
 * A question is a request to one of Convex's own functions at the timestamp of
 * the scan; a walk reads the export.  The rows are the same either way.
 *
 * Invariants:
 *	1. No row is given out before all answers of a look-up have arrived and
 *	   passed: what fails before that costs a walk, and nothing else.
 *	2. What is wrong with an answer never fails the statement.
 *	3. A document is used only if its _id was asked for.
 *
 * Room: fdw 5.6
 */
#include "postgres.h"

#include <math.h>

#include "catalog/pg_type.h"
#include "lib/qunique.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "ground/compat.h"
#include "ground/redact.h"
#include "protocol/functions.h"
#include "fdw/fdw_ask.h"

/* Convex reads so many documents in one function, with room to spare. */
#define IDS_PER_QUESTION	1000

/* More than this are read by a walk. */
#define MAX_IDS				4000

/* Fewer at once are not tried when it was too much. */
#define LEAST_IDS			32

/* Documents of the first page in an order, unless a LIMIT says how many. */
#define FIRST_PAGE			32

/* An ordered scan that has read so many goes over. */
#define MAX_ORDERED			20000

/* _ids are shorter. */
#define MAX_ID_LEN			64

/* No table is larger; beyond that a double is not exact. */
#define MAX_COUNT			9007199254740992.0

/* A scan that is run again with other values asks so often. */
#define MAX_QUESTIONS		10

/* A server that refuses questions is not asked again for so long. */
#define REFUSED_MS			60000

typedef enum Pushdown
{
	PUSHDOWN_OFF,
	PUSHDOWN_AUTO
} Pushdown;

static const struct config_enum_entry pushdown_choices[] = {
	{"off", PUSHDOWN_OFF, false},
	{"auto", PUSHDOWN_AUTO, false},
	{NULL, 0, false}
};

static int	pushdown = PUSHDOWN_AUTO;

/* Who was refused, and until when; grows with the servers of a session. */
typedef struct Refusal
{
	Oid			serverid;
	Oid			userid;
	TimestampTz until;
} Refusal;

static List *refusals = NIL;

static char *page_args(const CvxAskOrder *order,
					   const CvxTableOptions *options);
static bool is_in_order(CvxAsk *ask, const CvxPage *page);
static bool give(CvxAsk *ask, const CvxPage *page);
static char *id_of(const CvxPage *page, int row, char *buf);
static bool is_refused(CvxAsk *ask, const CvxHttp *http);
static void note_refusal(const CvxHttp *http, const CvxFunctionAnswer *answer);
static Refusal *find_refusal(const CvxHttp *http, bool makes_one);
static int	take_ids(CvxAsk *ask, char ***ids);
static int	compare_ids(const void *a, const void *b);
static CvxFunctionAnswer ask_some(CvxHttp *http, CvxHttpStats *stats,
								  const CvxTableOptions *options, int64 ts,
								  char **ids, int n);
static bool are_asked_for(const CvxPage *page, char **ids, int n);

/* Called once when the library is loaded. */
void
cvx_ask_init(void)
{
	DefineCustomEnumVariable("convex_fdw.pushdown",
							 "Whether Convex is asked for documents instead of reading whole tables.",
							 "The rows are the same either way.",
							 &pushdown, PUSHDOWN_AUTO, pushdown_choices,
							 PGC_USERSET, 0, NULL, NULL, NULL);
}

/* What a scan is going to look up; in the current context. */
CvxAsk *
cvx_ask_open(CvxAccess access, ExprState *expr, ExprContext *econtext)
{
	CvxAsk	   *ask = palloc0(sizeof(CvxAsk));

	ask->access = access;
	ask->expr = expr;
	ask->econtext = econtext;
	ask->cxt = AllocSetContextCreate(CurrentMemoryContext, "convex answers",
									 ALLOCSET_DEFAULT_SIZES);
	return ask;
}

/* What is known of servers may be wrong from now on. */
void
cvx_ask_forget(void)
{
	list_free_deep(refusals);
	refusals = NIL;
}

/* May it ask now?  A plan may be older than what says no. */
bool
cvx_ask_may(CvxAsk *ask, const CvxTableOptions *options)
{
	if (ask->went_over)
		return false;
	if (pushdown == PUSHDOWN_OFF || !options->asks)
		return cvx_ask_go_over(ask, "pushdown is off");
	if (ask->nasked >= MAX_QUESTIONS)
		return cvx_ask_go_over(ask, "it was run again too often");
	return true;
}

/*
 * Look up the documents at ts, and leave them as pages.  False: this scan has
 * to read the whole table.
 */
bool
cvx_ask_documents(CvxAsk *ask, CvxHttp *http, CvxHttpStats *stats,
				  const CvxTableOptions *options, int64 ts,
				  const CvxPageWant *want)
{
	MemoryContext old;
	char	  **ids;
	int			nids;
	int			batch = IDS_PER_QUESTION;
	size_t		nbytes = 0;

	if (is_refused(ask, http))
		return false;
	MemoryContextReset(ask->cxt);
	ask->pages = NIL;
	old = MemoryContextSwitchTo(ask->cxt);
	nids = take_ids(ask, &ids);
	if (nids > MAX_IDS)
		cvx_ask_go_over(ask, "too many _ids");
	for (int i = 0; i < nids && ask->went_over == NULL;)
	{
		int			n = Min(batch, nids - i);
		CvxFunctionAnswer answer = ask_some(http, stats, options, ts, ids + i, n);
		CvxPage    *page;
		int			nelements;

		ask->nquestions++;
		if (answer.verdict == CVX_VERDICT_TOO_MUCH && n > LEAST_IDS)
		{
			batch = n / 4;
			continue;
		}
		note_refusal(http, &answer);
		if (answer.verdict != CVX_VERDICT_GOOD)
			cvx_ask_go_over(ask, answer.problem);
		else
		{
			page = cvx_function_documents(&answer, ts, want, &nelements);
			if (page == NULL || nelements != n || !are_asked_for(page, ids + i, n))
				cvx_ask_go_over(ask, "the answer has not the documents that were asked for");
			ask->pages = lappend(ask->pages, page);
			nbytes += answer.nbytes;
			if (nbytes > cvx_http_remote(http)->max_response_bytes)
				cvx_ask_go_over(ask, "the documents are too large");
		}
		i += n;
	}
	MemoryContextSwitchTo(old);
	ask->nasked++;
	return ask->went_over == NULL;
}

/* The scan gives documents in an order; see CvxOrderPrivate. */
void
cvx_ask_set_order(CvxAsk *ask, List *order)
{
	ask->order = palloc0(sizeof(CvxAskOrder));
	ask->order->attnum = (AttrNumber) list_nth_int(order, CVX_ORDER_ATTNUM);
	ask->order->descends = list_nth_int(order, CVX_ORDER_DESCENDS) != 0;
	ask->order->operator = (Oid) list_nth_int(order, CVX_ORDER_OPERATOR);
	ask->order->nulls_first = list_nth_int(order, CVX_ORDER_NULLS_FIRST) != 0;
	ask->order->page_size = list_nth_int(order, CVX_ORDER_WANTED);
	if (ask->order->page_size == 0)
		ask->order->page_size = FIRST_PAGE;
}

/* The scan begins anew. */
void
cvx_ask_rewind(CvxAsk *ask)
{
	if (ask->order == NULL)
		return;
	ask->nasked++;
	ask->order->cursor = NULL;
	ask->order->is_done = false;
	ask->order->nread = 0;
	ask->order->npages = 0;
	ask->order->given = NULL;
	ask->order->page_cxt[0] = ask->order->page_cxt[1] = NULL;
	MemoryContextReset(ask->cxt);
}

/*
 * The next documents in the scan's order, which are not given out before all
 * of them have passed; NULL: the rest has to be read by a walk.  The page lives
 * until the one after the next.
 */
CvxPage *
cvx_ask_page(CvxAsk *ask, CvxHttp *http, CvxHttpStats *stats,
			 const CvxTableOptions *options, int64 ts, const CvxPageWant *want)
{
	CvxAskOrder *order = ask->order;
	CvxFunctionAnswer answer;
	CvxFunctionPage found;
	CvxPage    *page = NULL;
	MemoryContext *cxt = &order->page_cxt[order->npages % 2];
	MemoryContext old;

	if (is_refused(ask, http))
		return NULL;
	if (order->nread >= MAX_ORDERED)
	{
		cvx_ask_go_over(ask, "too many documents were read");
		return NULL;
	}
	if (*cxt == NULL)
		*cxt = AllocSetContextCreate(ask->cxt, "convex answer", ALLOCSET_DEFAULT_SIZES);
	MemoryContextReset(*cxt);
	old = MemoryContextSwitchTo(*cxt);
	answer = cvx_function_query_at(http, stats, "_system/frontend/paginatedTableDocuments",
								   page_args(order, options), ts);
	ask->nquestions++;
	note_refusal(http, &answer);
	if (answer.verdict == CVX_VERDICT_GOOD && cvx_function_page(&answer, ts, want, &found) &&
		(found.is_done || found.cursor != NULL) && is_in_order(ask, found.page))
		page = found.page;
	else
		cvx_ask_go_over(ask, answer.verdict == CVX_VERDICT_GOOD ?
						"the answer is not the page that was asked for" : answer.problem);
	if (page)
	{
		order->is_done = found.is_done;
		order->cursor = found.cursor;
		order->nread += page->ndocs;
		order->npages++;
		order->page_size = Min(order->page_size * 2, IDS_PER_QUESTION);
	}
	MemoryContextSwitchTo(old);
	return page;
}

/* The arguments of the next page. */
static char *
page_args(const CvxAskOrder *order, const CvxTableOptions *options)
{
	/* {"clauses":[],"order":".."} */
	static const char *const filters[] = {
		"eyJjbGF1c2VzIjpbXSwib3JkZXIiOiJhc2MifQ==",
		"eyJjbGF1c2VzIjpbXSwib3JkZXIiOiJkZXNjIn0="
	};
	StringInfoData args;

	initStringInfo(&args);
	appendStringInfoString(&args, "{\"table\":");
	cvx_json_write_string(&args, options->table_name, strlen(options->table_name));
	appendStringInfo(&args, ",\"filters\":\"%s\",\"paginationOpts\":{\"numItems\":%d,\"cursor\":",
					 filters[order->descends], order->page_size);
	if (order->cursor)
		cvx_json_write_string(&args, order->cursor, strlen(order->cursor));
	else
		appendStringInfoString(&args, "null");
	appendStringInfoString(&args, "}}");
	return args.data;
}

/*
 * Do these documents go on where the last page ended, each once?  Then they
 * are noted as given.
 */
static bool
is_in_order(CvxAsk *ask, const CvxPage *page)
{
	CvxAskOrder *order = ask->order;
	CvxSpan    *spans = palloc(sizeof(CvxSpan) * Max(page->nfields, 1));
	double		last = order->last;
	int			field = 0;

	while (field < page->nfields && strcmp(page->fields[field], "_creationTime") != 0)
		field++;
	for (int i = 0; i < page->ndocs; i++)
	{
		const CvxDoc *doc = &page->docs[i];
		double		time;

		cvx_page_spans(page, doc, spans);
		if (field == page->nfields || doc->id.len >= MAX_ID_LEN ||
			!cvx_function_number(page->text + spans[field].offset, spans[field].len, &time) ||
			((order->nread > 0 || i > 0) && (order->descends ? time > last : time < last)))
			return false;
		last = time;
	}
	if (!give(ask, page))
		return false;
	order->last = last;
	return true;
}

/* Note the _ids of a page; false, and none is noted, when one is not new. */
static bool
give(CvxAsk *ask, const CvxPage *page)
{
	CvxAskOrder *order = ask->order;
	HASHCTL		ctl = {.keysize = MAX_ID_LEN,.entrysize = MAX_ID_LEN,.hcxt = ask->cxt};
	char		key[MAX_ID_LEN];

	if (order->given == NULL)
		order->given = hash_create("convex ids", 1024, &ctl,
								   HASH_ELEM | HASH_STRINGS | HASH_CONTEXT);
	for (int i = 0; i < page->ndocs; i++)
	{
		bool		is_known;

		(void) hash_search(order->given, id_of(page, i, key), HASH_ENTER, &is_known);
		if (!is_known)
			continue;
		while (--i >= 0)
			(void) hash_search(order->given, id_of(page, i, key), HASH_REMOVE, NULL);
		return false;
	}
	return true;
}

/* The _id of a document, in buf. */
static char *
id_of(const CvxPage *page, int row, char *buf)
{
	CvxSpan		id = page->docs[row].id;

	memcpy(buf, page->text + id.offset, id.len);
	buf[id.len] = '\0';
	return buf;
}

/* Has a scan that went over given this document before? */
bool
cvx_ask_was_given(const CvxAsk *ask, const CvxPage *page, int row)
{
	char		key[MAX_ID_LEN];

	return ask->order != NULL && ask->order->given != NULL &&
		page->docs[row].id.len < MAX_ID_LEN &&
		hash_search(ask->order->given, id_of(page, row, key), HASH_FIND, NULL) != NULL;
}

/*
 * How many documents does the table have at ts?  False: they have to be
 * counted here.
 */
bool
cvx_ask_count(CvxAsk *ask, CvxHttp *http, CvxHttpStats *stats,
			  const CvxTableOptions *options, int64 ts)
{
	MemoryContext old;
	CvxFunctionAnswer answer;
	StringInfoData args;
	double		count;

	if (is_refused(ask, http))
		return false;
	MemoryContextReset(ask->cxt);
	old = MemoryContextSwitchTo(ask->cxt);
	initStringInfo(&args);
	appendStringInfoString(&args, "{\"tableName\":");
	cvx_json_write_string(&args, options->table_name, strlen(options->table_name));
	appendStringInfoChar(&args, '}');
	answer = cvx_function_query_at(http, stats, "_system/frontend/tableSize", args.data, ts);
	ask->nquestions++;
	note_refusal(http, &answer);
	if (answer.verdict != CVX_VERDICT_GOOD)
		cvx_ask_go_over(ask, answer.problem);
	else if (!cvx_function_number(answer.value.data, answer.value.len, &count) ||
			 !(count >= 0 && count <= MAX_COUNT && count == floor(count)))
		cvx_ask_go_over(ask, "the answer is no count");
	else
	{
		ask->count = (int64) count;
		ask->is_counted = true;
	}
	MemoryContextSwitchTo(old);
	return ask->is_counted;
}

/* Has this server refused questions of late?  Then the scan goes over. */
static bool
is_refused(CvxAsk *ask, const CvxHttp *http)
{
	Refusal    *refusal = find_refusal(http, false);

	if (refusal == NULL || refusal->until <= GetCurrentTimestamp())
		return false;
	cvx_ask_go_over(ask, "the server does not take questions");
	return true;
}

static void
note_refusal(const CvxHttp *http, const CvxFunctionAnswer *answer)
{
	if (answer->verdict == CVX_VERDICT_NEVER)
		find_refusal(http, true)->until =
			TimestampTzPlusMilliseconds(GetCurrentTimestamp(), REFUSED_MS);
}

/* The note about this server and role, which may be made. */
static Refusal *
find_refusal(const CvxHttp *http, bool makes_one)
{
	const CvxRemote *remote = cvx_http_remote((CvxHttp *) http);
	MemoryContext old;
	Refusal    *refusal;
	ListCell   *lc;

	foreach(lc, refusals)
	{
		refusal = lfirst(lc);
		if (refusal->serverid == remote->serverid && refusal->userid == GetUserId())
			return refusal;
	}
	if (!makes_one)
		return NULL;
	old = MemoryContextSwitchTo(TopMemoryContext);
	refusal = palloc0(sizeof(Refusal));
	refusal->serverid = remote->serverid;
	refusal->userid = GetUserId();
	refusals = lappend(refusals, refusal);
	MemoryContextSwitchTo(old);
	return refusal;
}

/* The _ids that are looked up, each once, sorted, in UTF-8. */
static int
take_ids(CvxAsk *ask, char ***ids)
{
	MemoryContext cxt = CurrentMemoryContext;
	Datum	   *elements;
	bool	   *nulls;
	int			n = 0;
	int			nelements = 1;
	Datum		value;
	bool		isnull;

	value = ExecEvalExprSwitchContext(ask->expr, ask->econtext, &isnull);
	MemoryContextSwitchTo(cxt);
	if (isnull)
		return 0;
	if (ask->access == CVX_ACCESS_IDS)
		deconstruct_array(DatumGetArrayTypeP(value), TEXTOID, -1, false,
						  TYPALIGN_INT, &elements, &nulls, &nelements);
	else
	{
		elements = &value;
		nulls = &isnull;
	}
	*ids = palloc(sizeof(char *) * Max(nelements, 1));
	for (int i = 0; i < nelements; i++)
	{
		char	   *id;

		if (nulls[i])
			continue;
		id = TextDatumGetCString(elements[i]);
		(*ids)[n++] = pg_server_to_any(id, strlen(id), PG_UTF8);
	}
	qsort(*ids, n, sizeof(char *), compare_ids);
	return (int) qunique(*ids, n, sizeof(char *), compare_ids);
}

static int
compare_ids(const void *a, const void *b)
{
	return strcmp(*(char *const *) a, *(char *const *) b);
}

/* One question for the documents of these _ids. */
static CvxFunctionAnswer
ask_some(CvxHttp *http, CvxHttpStats *stats, const CvxTableOptions *options,
		 int64 ts, char **ids, int n)
{
	StringInfoData args;

	initStringInfo(&args);
	appendStringInfoString(&args, "{\"ids\":[");
	for (int i = 0; i < n; i++)
	{
		appendStringInfoString(&args, i > 0 ? ",{\"id\":" : "{\"id\":");
		cvx_json_write_string(&args, ids[i], strlen(ids[i]));
		appendStringInfoString(&args, ",\"tableName\":");
		cvx_json_write_string(&args, options->table_name, strlen(options->table_name));
		appendStringInfoChar(&args, '}');
	}
	appendStringInfoString(&args, "]}");
	return cvx_function_query_at(http, stats, "_system/frontend/listById", args.data, ts);
}

/* Documents come in the order in which they were asked for, some missing. */
static bool
are_asked_for(const CvxPage *page, char **ids, int n)
{
	int			next = 0;

	for (int i = 0; i < page->ndocs; i++)
	{
		CvxSpan		id = page->docs[i].id;

		while (next < n && (strlen(ids[next]) != id.len ||
							memcmp(ids[next], page->text + id.offset, id.len) != 0))
			next++;
		if (next++ >= n)
			return false;
	}
	return true;
}

/* The whole table is read instead; always false. */
bool
cvx_ask_go_over(CvxAsk *ask, const char *why)
{
	ask->went_over = MemoryContextStrdup(MemoryContextGetParent(ask->cxt), why ? why : "unknown");
	ereport(DEBUG1,
			(errmsg_internal("convex_fdw reads the whole table: %s", ask->went_over)));
	return false;
}
