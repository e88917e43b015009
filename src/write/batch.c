/*
 * batch.c
 *		When do writes leave the backend?
 *
 * Invariants:
 *	1. With flush 'commit' nothing leaves before PostgreSQL's own checks at
 *	   commit have passed; then the messages leave in statement order, in as
 *	   few requests as the tables' batch_size and batch_bytes allow, which
 *	   Convex's limits exceed by so much that it makes one transaction of each.
 *	2. From before the check for conflicts until the answer is verified the rows
 *	   that go by key are locked (keylock.c).
 *	3. A request that Convex may have applied is not sent again, unless it goes
 *	   by key and the change log shows that none of its rows was touched.
 *	4. Whatever is not known to be applied is an error, which aborts the
 *	   transaction of PostgreSQL.  Once anything of it is in Convex, no error
 *	   is of class 40, which programs take as leave to run all of it again.
 *
 * Room: write 4.6
 */
#include "postgres.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "storage/predicate.h"
#include "storage/proc.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/timeout.h"
#include "utils/timestamp.h"

#include "ground/compat.h"
#include "protocol/api.h"
#include "write/batch.h"
#include "write/keylock.h"
#include "write/measure.h"
#include "write/settle_after.h"

/* The fivetran route takes bodies of 2 MiB; the rest is for brackets. */
#define MAX_FIVETRAN_BYTES	(2 * 1024 * 1024 - 4096)

/* And the airbyte route 20 MiB. */
#define MAX_AIRBYTE_BYTES	(20 * 1024 * 1024 - 65536)

/*
 * Convex reads a document that it changes twice, and at most 16 MiB in a
 * transaction.
 */
#define MAX_OLD_BYTES		(6 * 1024 * 1024)

/* What a message costs in a body beside its row and its table's name. */
#define MESSAGE_OVERHEAD	64

/* Messages that go out together. */
typedef struct Request
{
	CvxOp		kind;			/* APPEND: airbyte, UPSERT: fivetran, CLEAR */
	Oid			userid;
	CvxRange	range;
	int64		marker;			/* the message that tells its timestamp; or -1 */
	int			nmessages;
	int64		nbytes;			/* of the body */
	int64		old_bytes;
	int64		new_bytes;
	int			max_messages;
	int64		max_bytes;
	List	   *tables;			/* numbers */
} Request;

/* Messages of this transaction that Convex has; set by flush(). */
static int64 napplied = 0;
static bool has_applied_changes = false;

/* convex_fdw.strict_atomic_writes */
static bool strict_atomic_writes = false;

static void at_subxact(SubXactEvent event, SubTransactionId id,
					   SubTransactionId parent, void *arg);
static void at_xact(XactEvent event, void *arg);
static void at_prepare(void);
static void flush_all(void);
static void count_requests(int *nservers, int *nrequests);
static void flush(CvxBatch *batch);
static void check_replaced(CvxBatch *batch);
static void check_serializable(void);
static void deny_repetition(void);
static void flush_run(CvxBatch *batch, CvxSettle *settle);
static CvxRange next_run(CvxBatch *batch, Oid *userid);
static CvxKeyLocks *lock_rows(CvxBatch *batch);
static bool next_request(CvxBatch *batch, int64 offset, Request *request);
static bool fits(const Request *request, const CvxBatchTable *table,
				 CvxOp kind, int64 nmessages, int64 nbytes, int64 old_bytes,
				 int64 new_bytes);
static bool is_other_stream(CvxBatch *batch, const Request *request,
							const CvxBatchTable *table);
static void send_request(CvxBatch *batch, CvxSettle *settle, CvxHttp *http,
						 Request *request);
static bool await_request(CvxBatch *batch, CvxCall *call);
CVX_NORETURN static void fail_request(CvxBatch *batch, CvxCall *call,
									  CvxHttp *http, bool is_final,
									  const char *hint);
static CvxCall *start_request(CvxBatch *batch, CvxHttp *http,
							  Request *request);
static CvxCall *start_clear(CvxBatch *batch, CvxHttp *http,
							Request *request);
static void add_operation(StringInfo body, const char *table, CvxOp op,
						  const char *row, int row_len);
static void add_streams(StringInfo body, CvxBatch *batch, Request *request);
static char *index_hint(CvxBatch *batch, Request *request, CvxCall *call);
static char *applied_detail(void);

/* Called once when the library is loaded. */
void
cvx_batch_init(void)
{
	DefineCustomBoolVariable("convex_fdw.strict_atomic_writes",
							 "Refuse a transaction whose writes do not fit into one Convex transaction.",
							 NULL,
							 &strict_atomic_writes,
							 false,
							 PGC_USERSET, 0,
							 NULL, NULL, NULL);
	RegisterXactCallback(at_xact, NULL);
	RegisterSubXactCallback(at_subxact, NULL);
}

/* The batch that a foreign table's writes go into. */
CvxBatch *
cvx_batch_open(const CvxTableOptions *options)
{
	CvxBatch   *batch = cvx_queue_open(options, false);

	/* Behind what the transaction keeps for the same table, keep this too. */
	if (!options->flushes_statement ||
		cvx_queue_has_table(batch, options->table_name))
		return batch;
	if (strict_atomic_writes)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("foreign table %s sends its rows before the transaction commits",
						options->relation),
				 errhint("Set its option flush to 'commit', or turn convex_fdw.strict_atomic_writes off.")));
	return cvx_queue_open(options, true);
}

/*
 * Add a message; it is copied.  With flush 'statement' a full batch leaves
 * first.  Throws 54000 for a message that no request can carry.
 */
void
cvx_batch_put(CvxBatch *batch, const CvxMessage *message)
{
	const CvxBatchTable *table = cvx_queue_table_of(batch, message->table);
	int64		room = message->row_len + strlen(table->name) +
		MESSAGE_OVERHEAD;

	cvx_queue_check_doom(batch);
	if (message->op != CVX_OP_CLEAR &&
		room > (table->route == CVX_ROUTE_FIVETRAN ? MAX_FIVETRAN_BYTES :
				MAX_AIRBYTE_BYTES))
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("document is too large for a request to Convex: " INT64_FORMAT " bytes as JSON",
						room),
				 table->route == CVX_ROUTE_FIVETRAN ?
				 errhint("apply_fivetran_operations takes 2 MiB; a foreign table with import_route 'airbyte' can send more.") : 0));
	cvx_queue_put(batch, message);
	if (!batch->is_immediate || message->has_partner)
		return;
	batch->nunsent++;
	batch->unsent_bytes += Max(room, Max(message->new_bytes,
										 message->old_bytes));
	if (batch->nunsent >= table->batch_size ||
		batch->unsent_bytes >= table->batch_bytes)
		flush(batch);
}

/* A statement that wrote has ended: send what flush 'statement' keeps. */
void
cvx_batch_end_statement(CvxBatch *batch)
{
	if (batch->is_immediate)
		flush(batch);
}

/* ------------------------------------------------------------------------
 * Transactions
 * ------------------------------------------------------------------------
 */

static void
at_subxact(SubXactEvent event, SubTransactionId id, SubTransactionId parent,
		   void *arg)
{
	if (event == SUBXACT_EVENT_ABORT_SUB)
		cvx_queue_abort_level(GetCurrentTransactionNestLevel());
	else if (event == SUBXACT_EVENT_COMMIT_SUB)
		cvx_queue_commit_level(GetCurrentTransactionNestLevel());
}

static void
at_xact(XactEvent event, void *arg)
{
	switch (event)
	{
		case XACT_EVENT_PRE_COMMIT:
			flush_all();
			break;
		case XACT_EVENT_PRE_PREPARE:
			at_prepare();
			break;
		case XACT_EVENT_COMMIT:
		case XACT_EVENT_ABORT:
		case XACT_EVENT_PREPARE:
			cvx_queue_forget(false);
			napplied = 0;
			has_applied_changes = false;
			break;
		default:
			break;
	}
}

static void
at_prepare(void)
{
	ListCell   *lc;

	foreach(lc, cvx_queue_all())
	{
		CvxBatch   *batch = lfirst(lc);

		cvx_queue_check_doom(batch);
		if (!cvx_queue_is_empty(batch))
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("cannot prepare a transaction that has written to Convex server \"%s\"",
							batch->server_name)));
	}
	cvx_queue_forget(true);
}

/* Send everything that the transaction has kept. */
static void
flush_all(void)
{
	int			nrequests;
	int			nservers;
	bool		has_timer = false;
	ListCell   *lc;

	foreach(lc, cvx_queue_all())
		cvx_queue_check_doom(lfirst(lc));
	count_requests(&nservers, &nrequests);
	if (strict_atomic_writes && nservers > 1)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("transaction writes to %d Convex servers", nservers),
				 errdetail("Nothing was sent."),
				 errhint("Turn convex_fdw.strict_atomic_writes off to send them one after the other.")));
	if (strict_atomic_writes && nrequests > 1)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("writes do not fit into one Convex transaction"),
				 errdetail("They need %d requests.  Nothing was sent.",
						   nrequests),
				 errhint("Write less, through one route, as one role, without TRUNCATE; see also batch_size and batch_bytes; or turn convex_fdw.strict_atomic_writes off.")));

	/* PostgreSQL makes this check after us; a failure must come before. */
	if ((nrequests > 0 || napplied > 0) && IsolationIsSerializable())
		check_serializable();

	/* PostgreSQL has stopped its own timer before COMMIT does its work. */
	if (nrequests > 0 && StatementTimeout > 0 &&
		!get_timeout_active(STATEMENT_TIMEOUT))
	{
		enable_timeout_at(STATEMENT_TIMEOUT,
						  TimestampTzPlusMilliseconds(GetCurrentStatementStartTimestamp(),
													  StatementTimeout));
		has_timer = true;
	}
	foreach(lc, cvx_queue_all())
		flush(lfirst(lc));
	if (has_timer)
		disable_timeout(STATEMENT_TIMEOUT, false);
	cvx_queue_forget(true);
}

static void
count_requests(int *nservers, int *nrequests)
{
	ListCell   *lc;

	*nservers = *nrequests = 0;
	foreach(lc, cvx_queue_all())
	{
		CvxBatch   *batch = lfirst(lc);
		Request		request;
		int64		offset = cvx_queue_begin(batch);

		*nservers += !cvx_queue_is_empty(batch);
		while (next_request(batch, offset, &request))
		{
			(*nrequests)++;
			offset = request.range.end;
		}
	}
}

/* ------------------------------------------------------------------------
 * Requests
 * ------------------------------------------------------------------------
 */

/*
 * Send what a batch holds, and forget it.  Once something of the transaction
 * is in Convex an error of class 40 would have it run again as a whole.
 */
static void
flush(CvxBatch *batch)
{
	MemoryContext old = CurrentMemoryContext;
	MemoryContext cxt;

	cvx_queue_check_doom(batch);
	if (cvx_queue_is_empty(batch))
		return;
	cxt = AllocSetContextCreate(TopTransactionContext, "convex flush",
								ALLOCSET_DEFAULT_SIZES);
	MemoryContextSwitchTo(cxt);
	PG_TRY();
	{
		CvxKeyLocks *locks = lock_rows(batch);
		CvxSettle  *settle = cvx_settle_open(batch);

		if (strict_atomic_writes)
			check_replaced(batch);
		while (!cvx_queue_is_empty(batch))
			flush_run(batch, settle);
		cvx_keylock_release(locks);
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(old);
		MemoryContextDelete(cxt);
		deny_repetition();
		PG_RE_THROW();
	}
	PG_END_TRY();
	cvx_queue_empty(batch);
	MemoryContextSwitchTo(old);
	MemoryContextDelete(cxt);
}

/*
 * Convex commits what it has done of a request when it has read too much, and
 * that is what its documents replace.
 */
static void
check_replaced(CvxBatch *batch)
{
	Oid			userid;
	int64		replaced;

	(void) next_run(batch, &userid);
	replaced = cvx_measure_replaced(batch,
									cvx_http_open(cvx_options_remote(batch->serverid,
																	 userid)),
									MAX_OLD_BYTES);
	if (replaced > MAX_OLD_BYTES)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("writes do not fit into one Convex transaction"),
				 errdetail("They replace documents of more than %d bytes, which Convex reads.  Nothing was sent.",
						   MAX_OLD_BYTES),
				 errhint("Write less, or turn convex_fdw.strict_atomic_writes off.")));
}

/* PostgreSQL's own check, whose failure means nothing of that kind. */
static void
check_serializable(void)
{
	MemoryContext old = CurrentMemoryContext;

	PG_TRY();
	{
		PreCommit_CheckForSerializationFailure();
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(old);
		deny_repetition();
		PG_RE_THROW();
	}
	PG_END_TRY();
}

/*
 * Within PG_CATCH: an error that lets programs run the transaction again is
 * 08007 instead when something of it is in Convex.
 */
static void
deny_repetition(void)
{
	ErrorData  *error;

	if (napplied == 0 ||
		ERRCODE_TO_CATEGORY(geterrcode()) != ERRCODE_TRANSACTION_ROLLBACK)
		return;
	error = CopyErrorData();
	FlushErrorState();
	ereport(ERROR,
			(errcode(ERRCODE_TRANSACTION_RESOLUTION_UNKNOWN),
			 errmsg("%s", error->message),
			 errdetail("%s", applied_detail()),
			 errhint("Look at the data in Convex before you run the transaction again.")));
}

/*
 * Locks for every row that goes by key, and for tables that are emptied.  An
 * INSERT is no conflict, but it must not come between the check and the write
 * of an UPDATE.
 */
static CvxKeyLocks *
lock_rows(CvxBatch *batch)
{
	CvxKeyLocks *locks = NULL;
	int64		offset = cvx_queue_begin(batch);
	StringInfoData key;

	initStringInfo(&key);
	while (offset < cvx_spool_len(batch->spool))
	{
		CvxRecord	record;
		int64		at = offset;
		const CvxBatchTable *table;

		offset = cvx_queue_peek(batch, at, &record);
		table = cvx_queue_table_of(batch, record.message.table);
		if (locks == NULL)
			locks = cvx_keylock_begin(cvx_options_remote(batch->serverid,
														 table->userid)->base_url);
		if (record.message.op == CVX_OP_CLEAR)
			cvx_keylock_add_table(locks, table->name);
		else if (record.message.key_len > 0)
		{
			resetStringInfo(&key);
			cvx_queue_read_key(batch, at, &record, &key);
			cvx_keylock_add(locks, table->name, key.data, key.len);
		}
	}
	cvx_keylock_acquire(locks);
	return locks;
}

/* Send the messages up to the first one of another role. */
static void
flush_run(CvxBatch *batch, CvxSettle *settle)
{
	MemoryContext cxt = AllocSetContextCreate(CurrentMemoryContext,
											  "convex request",
											  ALLOCSET_DEFAULT_SIZES);
	MemoryContext old;
	Oid			userid;
	CvxRange	run = next_run(batch, &userid);
	CvxHttp    *http = cvx_http_open(cvx_options_remote(batch->serverid,
														userid));
	Request		request;

	cvx_settle_check(settle, http, run, applied_detail());
	old = MemoryContextSwitchTo(cxt);
	while (cvx_queue_begin(batch) < run.end &&
		   next_request(batch, cvx_queue_begin(batch), &request))
	{
		send_request(batch, settle, http, &request);
		MemoryContextReset(cxt);
	}
	MemoryContextSwitchTo(old);
	MemoryContextDelete(cxt);
}

static CvxRange
next_run(CvxBatch *batch, Oid *userid)
{
	CvxRange	run;

	*userid = InvalidOid;
	run.begin = run.end = cvx_queue_begin(batch);
	while (run.end < cvx_spool_len(batch->spool))
	{
		CvxRecord	record;
		int64		next = cvx_queue_peek(batch, run.end, &record);
		Oid			role = cvx_queue_table_of(batch,
											  record.message.table)->userid;

		if (OidIsValid(*userid) && *userid != role)
			break;
		*userid = role;
		run.end = next;
	}
	return run;
}

/* The kind of request that a message goes into. */
static CvxOp
kind_of(const CvxMessage *message, const CvxBatchTable *table)
{
	if (message->op == CVX_OP_CLEAR)
		return CVX_OP_CLEAR;
	return table->route == CVX_ROUTE_FIVETRAN ? CVX_OP_UPSERT : CVX_OP_APPEND;
}

/* The messages from an offset on that go out together.  False: none is left. */
static bool
next_request(CvxBatch *batch, int64 offset, Request *request)
{
	memset(request, 0, sizeof(Request));
	request->range.begin = request->range.end = offset;
	request->marker = -1;
	while (offset < cvx_spool_len(batch->spool))
	{
		CvxRecord	record;
		const CvxBatchTable *table;
		CvxOp		kind;
		int64		at = offset;
		int			nmessages = 1;
		int64		nbytes;
		int64		old_bytes;
		int64		new_bytes;
		bool		is_marker;

		offset = cvx_queue_peek(batch, offset, &record);
		table = cvx_queue_table_of(batch, record.message.table);
		kind = kind_of(&record.message, table);
		nbytes = record.message.row_len + strlen(table->name) +
			MESSAGE_OVERHEAD;
		is_marker = request->marker < 0 && record.message.before_len > 0;
		if (is_marker)
			nbytes += record.message.before_len + strlen(table->name) +
				MESSAGE_OVERHEAD;
		old_bytes = record.message.old_bytes;
		new_bytes = record.message.new_bytes;
		if (record.message.has_partner)
		{
			CvxRecord	partner;

			offset = cvx_queue_peek(batch, offset, &partner);
			nmessages++;
			nbytes += partner.message.row_len + strlen(table->name) +
				MESSAGE_OVERHEAD;
			old_bytes += partner.message.old_bytes;
			new_bytes += partner.message.new_bytes;
		}
		if (request->nmessages == 0)
		{
			request->kind = kind;
			request->userid = table->userid;
			request->max_messages = table->batch_size;
			request->max_bytes = table->batch_bytes;
		}
		else if (!fits(request, table, kind, nmessages, nbytes, old_bytes,
					   new_bytes) ||
				 (kind == CVX_OP_APPEND &&
				  is_other_stream(batch, request, table)))
			break;
		if (is_marker)
			request->marker = at;
		request->max_messages = Min(request->max_messages, table->batch_size);
		request->max_bytes = Min(request->max_bytes, table->batch_bytes);
		request->nmessages += nmessages;
		request->nbytes += nbytes;
		request->old_bytes += old_bytes;
		request->new_bytes += new_bytes;
		request->tables = list_append_unique_int(request->tables,
												 record.message.table);
		request->range.end = offset;
	}
	return request->nmessages > 0;
}

/* A stream is either appended to or deduplicated. */
static bool
is_other_stream(CvxBatch *batch, const Request *request,
				const CvxBatchTable *table)
{
	ListCell   *lc;

	foreach(lc, request->tables)
	{
		const CvxBatchTable *other = cvx_queue_table_of(batch, lfirst_int(lc));

		if (strcmp(other->name, table->name) == 0 &&
			((other->key == NULL) != (table->key == NULL) ||
			 (other->key && strcmp(other->key->text, table->key->text) != 0)))
			return true;
	}
	return false;
}

static bool
fits(const Request *request, const CvxBatchTable *table, CvxOp kind,
	 int64 nmessages, int64 nbytes, int64 old_bytes, int64 new_bytes)
{
	int64		max_bytes = Min(request->max_bytes, table->batch_bytes);

	if (kind != request->kind || table->userid != request->userid)
		return false;
	if (kind == CVX_OP_CLEAR)
		return true;
	return request->nmessages + nmessages <= Min(request->max_messages,
												 table->batch_size) &&
		request->nbytes + nbytes <= (kind == CVX_OP_UPSERT ?
									 Min(max_bytes, MAX_FIVETRAN_BYTES) :
									 max_bytes) &&
		request->new_bytes + new_bytes <= max_bytes &&
		request->old_bytes + old_bytes <= Min(max_bytes, MAX_OLD_BYTES);
}

/* Send one request and see to it that it is applied once. */
static void
send_request(CvxBatch *batch, CvxSettle *settle, CvxHttp *http,
			 Request *request)
{
	bool		is_keyed = request->kind != CVX_OP_CLEAR;
	bool		is_applied = false;
	ListCell   *lc;

	foreach(lc, request->tables)
		is_keyed &= cvx_queue_table_of(batch, lfirst_int(lc))->key != NULL;
	for (int nth = 0; !is_applied; nth++)
	{
		CvxCall    *call;
		CvxOutcome	outcome;

		if (is_keyed)
			cvx_settle_before(settle, request->range.begin, applied_detail());
		call = start_request(batch, http, request);
		if (!await_request(batch, call))
			fail_request(batch, call, http, true, NULL);
		outcome = cvx_api_outcome(call);
		if (cvx_api_is_conflict(call) && is_keyed &&
			nth < cvx_http_remote(http)->max_retries)
			cvx_settle_expire(settle);
		else if (outcome == CVX_OUTCOME_REFUSED)
			fail_request(batch, call, http, false,
						 index_hint(batch, request, call));
		if (outcome == CVX_OUTCOME_UNKNOWN)
		{
			if (is_keyed)
				outcome = cvx_settle_lost(settle, request->range);
			if (outcome == CVX_OUTCOME_UNKNOWN ||
				(outcome == CVX_OUTCOME_REFUSED &&
				 nth >= cvx_http_remote(http)->max_retries))
				fail_request(batch, call, http, true, NULL);
		}
		is_applied = outcome == CVX_OUTCOME_APPLIED;
		cvx_http_free(call);
		if (!is_applied)
			cvx_http_pause(http, nth);
	}
	napplied += request->nmessages;
	has_applied_changes |= request->kind != CVX_OP_APPEND;
	if (is_keyed)
		cvx_settle_after(settle, request->range, request->marker,
						 applied_detail());
	cvx_queue_taken(batch);
}

/* Wait for the answer; false: canceled while the server may be at work. */
static bool
await_request(CvxBatch *batch, CvxCall *call)
{
	bool		is_answered;

	PG_TRY();
	{
		is_answered = cvx_api_await_write(call);
	}
	PG_CATCH();
	{
		/* It throws only when nothing has been sent. */
		cvx_queue_doom(batch, false);
		PG_RE_THROW();
	}
	PG_END_TRY();
	return is_answered;
}

/*
 * Throw what a request has ended with.  Final: Convex may have applied it.
 */
static void
fail_request(CvxBatch *batch, CvxCall *call, CvxHttp *http, bool is_final,
			 const char *hint)
{
	PG_TRY();
	{
		cvx_api_fail_write(call, http, applied_detail(), hint);
	}
	PG_CATCH();
	{
		cvx_queue_doom(batch, is_final);
		PG_RE_THROW();
	}
	PG_END_TRY();
	pg_unreachable();
}

/* Write the body and start the request: from here on its rows have left. */
static CvxCall *
start_request(CvxBatch *batch, CvxHttp *http, Request *request)
{
	StringInfoData body;
	MemoryContext row_cxt = AllocSetContextCreate(CurrentMemoryContext,
												  "convex message",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext cxt;
	int64		offset = request->range.begin;
	bool		is_first = true;
	CvxCall    *call;

	if (request->kind == CVX_OP_CLEAR)
		return start_clear(batch, http, request);
	initStringInfo(&body);
	enlargeStringInfo(&body, request->nbytes);
	if (request->kind == CVX_OP_UPSERT)
		appendStringInfoChar(&body, '[');
	else
	{
		add_streams(&body, batch, request);
		appendStringInfoString(&body, ", \"messages\": [");
	}
	cxt = MemoryContextSwitchTo(row_cxt);
	while (offset < request->range.end)
	{
		CvxMessage	message;
		bool		is_marker = offset == request->marker;
		const char *name;

		MemoryContextReset(row_cxt);
		if (!cvx_queue_next(batch, &offset, NULL, &message))
			break;
		name = cvx_queue_table_of(batch, message.table)->name;
		if (!is_first)
			appendStringInfoChar(&body, ',');
		is_first = false;
		if (request->kind != CVX_OP_UPSERT)
		{
			appendStringInfo(&body, "{\"tableName\":\"%s\",\"data\":", name);
			appendBinaryStringInfo(&body, message.row, message.row_len);
			appendStringInfoChar(&body, '}');
			continue;
		}

		/*
		 * First the value that the row had, then the new one: a write that
		 * finds its document as it makes it would leave no revision.
		 */
		if (is_marker)
		{
			add_operation(&body, name, CVX_OP_UPDATE, message.before,
						  message.before_len);
			appendStringInfoChar(&body, ',');
		}
		add_operation(&body, name, message.op, message.row, message.row_len);
	}
	MemoryContextSwitchTo(cxt);
	appendStringInfoString(&body, request->kind == CVX_OP_UPSERT ? "]" : "]}");
	cvx_queue_take(batch, request->range.begin, request->range.end);
	call = request->kind == CVX_OP_UPSERT ?
		cvx_api_apply_fivetran_operations(http, body.data) :
		cvx_api_import_airbyte_records(http, body.data);
	pfree(body.data);
	MemoryContextDelete(row_cxt);
	return call;
}

static void
add_operation(StringInfo body, const char *table, CvxOp op, const char *row,
			  int row_len)
{
	static const char *const operations[] = {
		[CVX_OP_UPSERT] = "Upsert",
		[CVX_OP_UPDATE] = "Update",
		[CVX_OP_DELETE] = "HardDelete",
	};

	appendStringInfo(body, "{\"table\":\"%s\",\"operation\":\"%s\",\"row\":",
					 table, operations[op]);
	appendBinaryStringInfo(body, row, row_len);
	appendStringInfoChar(body, '}');
}

/* Empty the tables of a request. */
static CvxCall *
start_clear(CvxBatch *batch, CvxHttp *http, Request *request)
{
	const char **names = palloc(sizeof(char *) *
								list_length(request->tables));
	int			n = 0;
	ListCell   *lc;

	foreach(lc, request->tables)
	{
		const char *name = cvx_queue_table_of(batch, lfirst_int(lc))->name;
		bool		is_known = false;

		for (int i = 0; i < n; i++)
			is_known |= strcmp(names[i], name) == 0;
		if (!is_known)
			names[n++] = name;
	}
	cvx_queue_take(batch, request->range.begin, request->range.end);
	return cvx_api_clear_tables(http, names, n);
}

/* The tables of an airbyte request, each once. */
static void
add_streams(StringInfo body, CvxBatch *batch, Request *request)
{
	ListCell   *lc;
	List	   *names = NIL;

	appendStringInfoString(body, "{\"tables\": {");
	foreach(lc, request->tables)
	{
		const CvxBatchTable *table = cvx_queue_table_of(batch, lfirst_int(lc));
		ListCell   *lc2;
		bool		is_known = false;

		foreach(lc2, names)
			is_known |= strcmp(lfirst(lc2), table->name) == 0;
		if (is_known)
			continue;
		appendStringInfo(body, "%s\"%s\": {\"primaryKey\": ",
						 names ? ", " : "", table->name);
		names = lappend(names, table->name);
		if (table->key == NULL)
			appendStringInfoString(body, "null");
		for (int i = 0; table->key && i < table->key->n; i++)
		{
			const CvxPath *path = &table->key->paths[i];

			appendStringInfoString(body, i > 0 ? ", [" : "[[");
			for (int j = 0; j < path->n; j++)
				appendStringInfo(body, "%s\"%s\"", j > 0 ? ", " : "",
								 path->names[j]);
			appendStringInfoString(body, i + 1 == table->key->n ? "]]" : "]");
		}
		appendStringInfoString(body, ", \"jsonSchema\": {}}");
	}
	appendStringInfoChar(body, '}');
}

/* The call that mends an index which a refused request misses, or NULL. */
static char *
index_hint(CvxBatch *batch, Request *request, CvxCall *call)
{
	static const char *const codes[] = {
		"MissingFivetranPrimaryKeyIndex", "IndexNotFoundError",
		"IndexBackfillingError", "FieldNotInIndex", "InvalidIndexRange",
		"MissingValueForFivetranPrimaryKeyIndex",
	};
	const CvxAnswer *answer = cvx_http_answer(call);
	const CvxBatchTable *found = NULL;
	bool		is_about_index = false;
	ListCell   *lc;

	for (int i = 0; i < lengthof(codes); i++)
		is_about_index |= cvx_api_has_code(call, 400, codes[i]);
	if (!is_about_index)
		return NULL;
	foreach(lc, request->tables)
	{
		const CvxBatchTable *table = cvx_queue_table_of(batch, lfirst_int(lc));

		if (table->key == NULL)
			continue;

		/* Convex's message names the table. */
		if (found == NULL ||
			(answer->body && strstr(answer->body, table->name) &&
			 !strstr(answer->body, found->name)))
			found = table;
	}
	if (found == NULL)
		return NULL;
	return psprintf("SELECT convex_ensure_primary_key(%s);",
					quote_literal_cstr(found->relation));
}

/* What of the transaction is in Convex already; NULL: nothing. */
static char *
applied_detail(void)
{
	if (napplied == 0)
		return NULL;
	if (napplied == 1)
		return psprintf("1 %s of this transaction is in Convex.",
						has_applied_changes ? "change" : "document");
	return psprintf(INT64_FORMAT " %s of this transaction are in Convex.",
					napplied, has_applied_changes ? "changes" : "documents");
}
