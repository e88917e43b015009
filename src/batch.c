/*
 * batch.c
 *		When do writes leave the backend?
 *
 * Invariants:
 *	1. A batch holds the messages of one server and role in statement order.
 *	   Those of an aborted subtransaction are its end, and are cut off.
 *	2. With flush 'commit' nothing leaves before PostgreSQL's own checks at
 *	   commit have passed; then the messages leave in as few requests as the
 *	   tables' batch_size and batch_bytes allow, which Convex's limits exceed
 *	   by so much that it makes one transaction of each.
 *	3. A request that Convex may have applied is not sent again, unless it goes
 *	   by key and the change log shows that none of its rows was touched.
 *	4. Whatever is not known to be applied is an error, which aborts the
 *	   transaction of PostgreSQL.
 *
 * Room: shape 3.6
 */
#include "postgres.h"

#include "access/xact.h"
#include "common/hashfn.h"
#include "miscadmin.h"
#include "storage/predicate.h"
#include "storage/proc.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/timeout.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "api.h"
#include "batch.h"
#include "document.h"
#include "spool.h"

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

/* A message as the spool has it; key, id and row follow. */
typedef struct Record
{
	CvxMessage	message;		/* with lengths, without pointers */
	uint32		len;			/* of the whole record */
} Record;

/* Where the messages of a subtransaction begin. */
typedef struct Level
{
	int			nest_level;
	int64		begins_at;
} Level;

struct CvxBatch
{
	Oid			serverid;
	Oid			userid;
	char	   *server_name;
	bool		is_immediate;	/* flush 'statement' */
	List	   *tables;			/* CvxBatchTable */
	CvxSpool   *spool;
	List	   *levels;			/* Level, innermost last */
	int64		nunsent;		/* immediate: in the spool */
	int64		unsent_bytes;
};

/* Messages that go out together. */
typedef struct Request
{
	CvxOp		kind;			/* APPEND: airbyte, UPSERT: fivetran, CLEAR */
	int64		begin;			/* offsets in the spool */
	int64		end;
	int			nmessages;
	int64		nbytes;			/* of the body */
	int64		old_bytes;
	int64		new_bytes;
	int			max_messages;
	int64		max_bytes;
	List	   *tables;			/* numbers */
} Request;

/* What a request makes of one row, and what the change log shows of it. */
typedef struct Expected
{
	CvxTextKey	key;
	CvxOp		op;				/* UPSERT, UPDATE or DELETE */
	char	   *row;
	int			row_len;
	bool		is_provable;	/* applying it would show in the change log */
	bool		is_touched;
	bool		is_as_sent;
} Expected;

/* The row with an id. */
typedef struct Known
{
	CvxTextKey	id;
	Expected   *expected;
} Known;

typedef struct Change
{
	CvxTextKey	id;
	int64		ts;
} Change;

/* Batches of this transaction, in TopTransactionContext. */
static List *batches = NIL;

/* Messages of this transaction that Convex has; set by flush(). */
static int64 napplied = 0;

/* convex_fdw.strict_atomic_writes */
static bool strict_atomic_writes = false;

static CvxBatch *find_batch(Oid serverid, Oid userid, bool is_immediate);
static bool has_messages_for(CvxBatch *batch, const char *name);
static void enter_level(CvxBatch *batch);
static void at_subxact(SubXactEvent event, SubTransactionId id,
					   SubTransactionId parent, void *arg);
static void at_xact(XactEvent event, void *arg);
static void flush_all(void);
static void flush(CvxBatch *batch);
static int64 read_record(CvxBatch *batch, int64 offset, Record *record);
static bool next_request(CvxBatch *batch, int64 offset, Request *request);
static bool fits(const Request *request, const CvxBatchTable *table,
				 CvxOp kind, int64 nmessages, int64 nbytes, int64 old_bytes,
				 int64 new_bytes);
static void send_request(CvxBatch *batch, CvxHttp *http, Request *request,
						 int64 head);
static CvxCall *start_request(CvxBatch *batch, CvxHttp *http,
							  Request *request);
static void add_streams(StringInfo body, CvxBatch *batch, Request *request);
static char *index_hint(CvxBatch *batch, Request *request, CvxCall *call);
static char *applied_detail(const Request *request);
static int64 check_conflicts(CvxBatch *batch, CvxHttp *http);
static void name_tables(CvxBatch *batch, CvxSelection *selection,
						CvxPageWant *want);
static void expect_request(CvxBatch *batch, Request *request, HTAB *expected,
						   HTAB *known);
static CvxOutcome ask_change_log(CvxBatch *batch, CvxHttp *http,
								 Request *request, int64 head);
static void compare_change(CvxBatch *batch, const CvxPage *page,
						   const CvxDoc *doc, HTAB *expected, HTAB *known);
static bool is_as_sent(const Expected *expected, const char *doc, size_t len);
static bool is_span(const CvxPage *page, CvxSpan span, const char *text);
static uint32 hash_text(const void *key, Size size);
static int	match_text(const void *a, const void *b, Size size);

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

/*
 * The batch that a foreign table's writes by a role go into; lives until the
 * transaction ends.
 */
CvxBatch *
cvx_batch_open(const CvxTableOptions *options, Oid userid)
{
	CvxBatch   *batch = find_batch(options->serverid, userid, false);
	MemoryContext old;

	/* Behind what the transaction keeps for the same table, keep this too. */
	if (options->flushes_statement &&
		(batch == NULL || !has_messages_for(batch, options->table_name)))
	{
		if (strict_atomic_writes)
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("foreign table %s sends its rows before the transaction commits",
							options->relation),
					 errhint("Set its option flush to 'commit', or turn convex_fdw.strict_atomic_writes off.")));
		batch = find_batch(options->serverid, userid, true);
	}
	if (batch != NULL)
		return batch;
	old = MemoryContextSwitchTo(TopTransactionContext);
	batch = palloc0(sizeof(CvxBatch));
	batch->serverid = options->serverid;
	batch->userid = userid;
	batch->server_name = pstrdup(options->server_name);
	batch->is_immediate = options->flushes_statement;
	batch->spool = cvx_spool_create(TopTransactionResourceOwner);
	batches = lappend(batches, batch);
	MemoryContextSwitchTo(old);
	return batch;
}

/* The number of a foreign table within the batch. */
int
cvx_batch_table(CvxBatch *batch, const CvxTableOptions *options)
{
	MemoryContext old;
	CvxBatchTable *table;
	ListCell   *lc;
	int			number = 0;

	foreach(lc, batch->tables)
	{
		table = lfirst(lc);
		if (strcmp(table->relation, options->relation) == 0 &&
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
	table->name = pstrdup(options->table_name);
	table->relation = pstrdup(options->relation);
	table->route = options->route;
	if (options->key)
	{
		CvxKey	   *key = palloc(sizeof(CvxKey));

		key->n = options->key->n;
		key->text = pstrdup(options->key->text);
		key->paths = palloc(sizeof(CvxPath) * key->n);
		for (int i = 0; i < key->n; i++)
			key->paths[i] = cvx_options_path(options->key->paths[i].label);
		table->key = key;
	}
	table->batch_size = options->batch_size;
	table->batch_bytes = options->batch_bytes;
	batch->tables = lappend(batch->tables, table);
	MemoryContextSwitchTo(old);
	return number;
}

/*
 * Add a message; it is copied.  With flush 'statement' a full batch leaves
 * first.  Throws 54000 for a message that no request can carry.
 */
void
cvx_batch_put(CvxBatch *batch, const CvxMessage *message)
{
	const CvxBatchTable *table = list_nth(batch->tables, message->table);
	Record		record;
	int64		room = message->row_len + strlen(table->name) +
		MESSAGE_OVERHEAD;

	if (message->op != CVX_OP_CLEAR &&
		room > (table->route == CVX_ROUTE_FIVETRAN ? MAX_FIVETRAN_BYTES :
				MAX_AIRBYTE_BYTES))
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("document is too large for a request to Convex: " INT64_FORMAT " bytes as JSON",
						room),
				 table->route == CVX_ROUTE_FIVETRAN ?
				 errhint("apply_fivetran_operations takes 2 MiB; a foreign table with import_route 'airbyte' can send more.") : 0));

	/* Messages are visible from the next command on. */
	(void) GetCurrentCommandId(true);
	enter_level(batch);
	memset(&record, 0, sizeof(record));
	record.message = *message;
	record.message.key = record.message.id = record.message.row = NULL;
	record.len = sizeof(record) + message->key_len + message->id_len +
		message->row_len;
	cvx_spool_append(batch->spool, &record, sizeof(record));
	cvx_spool_append(batch->spool, message->key, message->key_len);
	cvx_spool_append(batch->spool, message->id, message->id_len);
	cvx_spool_append(batch->spool, message->row, message->row_len);

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
	if (batch->is_immediate && cvx_spool_len(batch->spool) > 0)
		flush(batch);
}

/* Has the transaction unsent writes for a server? */
bool
cvx_batch_is_pending(Oid serverid)
{
	ListCell   *lc;

	foreach(lc, batches)
	{
		CvxBatch   *batch = lfirst(lc);

		if (batch->serverid == serverid && cvx_spool_len(batch->spool) > 0)
			return true;
	}
	return false;
}

/* The batches that hold unsent writes for a server. */
List *
cvx_batch_list(Oid serverid)
{
	List	   *result = NIL;
	ListCell   *lc;

	foreach(lc, batches)
	{
		CvxBatch   *batch = lfirst(lc);

		if (batch->serverid == serverid && cvx_spool_len(batch->spool) > 0)
			result = lappend(result, batch);
	}
	return result;
}

/*
 * The next message from an offset on for a table of Convex (NULL: any), in the
 * current context; the offset moves behind it.  False: there is none.
 */
bool
cvx_batch_next(CvxBatch *batch, int64 *offset, const char *name,
			   CvxMessage *message)
{
	while (*offset < cvx_spool_len(batch->spool))
	{
		Record		record;
		int64		at = *offset + sizeof(Record);
		char	   *text;

		*offset = read_record(batch, *offset, &record);
		if (name != NULL &&
			strcmp(cvx_batch_table_of(batch, record.message.table)->name,
				   name) != 0)
			continue;
		text = palloc(record.len - sizeof(Record) + 1);
		cvx_spool_read(batch->spool, at, text, record.len - sizeof(Record));
		text[record.len - sizeof(Record)] = '\0';
		*message = record.message;
		message->key = message->key_len > 0 ? text : NULL;
		message->id = message->id_len > 0 ? text + message->key_len : NULL;
		message->row = text + message->key_len + message->id_len;
		return true;
	}
	return false;
}

const CvxBatchTable *
cvx_batch_table_of(CvxBatch *batch, int table)
{
	return list_nth(batch->tables, table);
}

/* A map from CvxTextKey, the first member of its entries. */
HTAB *
cvx_batch_map(const char *name, Size entry_size)
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

static CvxBatch *
find_batch(Oid serverid, Oid userid, bool is_immediate)
{
	ListCell   *lc;

	foreach(lc, batches)
	{
		CvxBatch   *batch = lfirst(lc);

		if (batch->serverid == serverid && batch->userid == userid &&
			batch->is_immediate == is_immediate)
			return batch;
	}
	return NULL;
}

static bool
has_messages_for(CvxBatch *batch, const char *name)
{
	int64		offset = 0;

	while (offset < cvx_spool_len(batch->spool))
	{
		Record		record;

		offset = read_record(batch, offset, &record);
		if (strcmp(cvx_batch_table_of(batch, record.message.table)->name,
				   name) == 0)
			return true;
	}
	return false;
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

static void
at_subxact(SubXactEvent event, SubTransactionId id, SubTransactionId parent,
		   void *arg)
{
	int			nest_level = GetCurrentTransactionNestLevel();
	ListCell   *lc;

	if (event != SUBXACT_EVENT_COMMIT_SUB && event != SUBXACT_EVENT_ABORT_SUB)
		return;
	foreach(lc, batches)
	{
		CvxBatch   *batch = lfirst(lc);
		Level	   *level;

		while (batch->levels != NIL &&
			   (level = llast(batch->levels))->nest_level >= nest_level)
		{
			Level	   *outer = list_length(batch->levels) > 1 ?
				list_nth(batch->levels, list_length(batch->levels) - 2) : NULL;

			if (event == SUBXACT_EVENT_ABORT_SUB)
			{
				/* What has left with flush 'statement' stays in Convex. */
				cvx_spool_truncate(batch->spool,
								   Min(level->begins_at,
									   cvx_spool_len(batch->spool)));
				if (cvx_spool_len(batch->spool) == 0)
					batch->nunsent = batch->unsent_bytes = 0;
			}
			else if (nest_level > 2 &&
					 (outer == NULL || outer->nest_level < nest_level - 1))
			{
				level->nest_level = nest_level - 1;
				break;
			}
			batch->levels = list_delete_last(batch->levels);
		}
	}
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
			{
				ListCell   *lc;

				foreach(lc, batches)
				{
					CvxBatch   *batch = lfirst(lc);

					if (cvx_spool_len(batch->spool) > 0)
						ereport(ERROR,
								(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
								 errmsg("cannot prepare a transaction that has written to Convex server \"%s\"",
										batch->server_name)));
					cvx_spool_free(batch->spool);
				}
				batches = NIL;
				break;
			}
		case XACT_EVENT_COMMIT:
		case XACT_EVENT_ABORT:
		case XACT_EVENT_PREPARE:
			batches = NIL;
			napplied = 0;
			break;
		default:
			break;
	}
}

/* Send everything that the transaction has kept. */
static void
flush_all(void)
{
	int			nrequests = 0;
	int			nservers = 0;
	bool		has_timer = false;
	ListCell   *lc;

	foreach(lc, batches)
	{
		CvxBatch   *batch = lfirst(lc);
		Request		request;
		int64		offset = 0;

		nservers += cvx_spool_len(batch->spool) > 0;
		while (next_request(batch, offset, &request))
		{
			nrequests++;
			offset = request.end;
		}
	}
	if (strict_atomic_writes && nservers > 1)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("transaction writes to %d Convex servers or as several roles",
						nservers),
				 errdetail("Nothing was sent."),
				 errhint("Turn convex_fdw.strict_atomic_writes off to send them one after the other.")));
	if (strict_atomic_writes && nrequests > 1)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("writes do not fit into one Convex transaction"),
				 errdetail("They need %d requests.  Nothing was sent.",
						   nrequests),
				 errhint("Write less, through one route, without TRUNCATE; see also batch_size and batch_bytes; or turn convex_fdw.strict_atomic_writes off.")));

	/* PostgreSQL makes this check after us; a failure must come before. */
	if (nrequests > 0 && IsolationIsSerializable())
		PreCommit_CheckForSerializationFailure();

	/* PostgreSQL has stopped its own timer before COMMIT does its work. */
	if (nrequests > 0 && StatementTimeout > 0 &&
		!get_timeout_active(STATEMENT_TIMEOUT))
	{
		enable_timeout_at(STATEMENT_TIMEOUT,
						  TimestampTzPlusMilliseconds(GetCurrentStatementStartTimestamp(),
													  StatementTimeout));
		has_timer = true;
	}
	foreach(lc, batches)
		flush(lfirst(lc));
	if (has_timer)
		disable_timeout(STATEMENT_TIMEOUT, false);
	foreach(lc, batches)
		cvx_spool_free(((CvxBatch *) lfirst(lc))->spool);
	batches = NIL;
}

/* ------------------------------------------------------------------------
 * Requests
 * ------------------------------------------------------------------------
 */

/* Send what a batch holds, and forget it. */
static void
flush(CvxBatch *batch)
{
	MemoryContext cxt = AllocSetContextCreate(TopTransactionContext,
											  "convex flush",
											  ALLOCSET_DEFAULT_SIZES);
	MemoryContext request_cxt = AllocSetContextCreate(cxt, "convex request",
													  ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(cxt);
	CvxHttp    *http;
	Request		request;
	int64		offset = 0;
	int64		head;
	ListCell   *lc;

	if (cvx_spool_len(batch->spool) == 0)
	{
		MemoryContextSwitchTo(old);
		MemoryContextDelete(cxt);
		return;
	}
	http = cvx_http_open(cvx_options_remote(batch->serverid, batch->userid));
	head = check_conflicts(batch, http);
	MemoryContextSwitchTo(request_cxt);
	while (next_request(batch, offset, &request))
	{
		send_request(batch, http, &request, head);
		napplied += request.nmessages;
		offset = request.end;
		head = 0;
		MemoryContextReset(request_cxt);
	}
	cvx_spool_truncate(batch->spool, 0);
	batch->nunsent = batch->unsent_bytes = 0;
	foreach(lc, batch->levels)
		((Level *) lfirst(lc))->begins_at = 0;
	MemoryContextSwitchTo(old);
	MemoryContextDelete(cxt);
}

/* Read a message's record without its texts; returns the next one's offset. */
static int64
read_record(CvxBatch *batch, int64 offset, Record *record)
{
	cvx_spool_read(batch->spool, offset, record, sizeof(Record));
	return offset + record->len;
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
	request->begin = request->end = offset;
	while (offset < cvx_spool_len(batch->spool))
	{
		Record		record;
		const CvxBatchTable *table;
		CvxOp		kind;
		int			nmessages = 1;
		int64		nbytes;
		int64		old_bytes;
		int64		new_bytes;

		offset = read_record(batch, offset, &record);
		table = cvx_batch_table_of(batch, record.message.table);
		kind = kind_of(&record.message, table);
		nbytes = record.message.row_len + strlen(table->name) +
			MESSAGE_OVERHEAD;
		old_bytes = record.message.old_bytes;
		new_bytes = record.message.new_bytes;
		if (record.message.has_partner)
		{
			Record		partner;

			offset = read_record(batch, offset, &partner);
			nmessages++;
			nbytes += partner.message.row_len + strlen(table->name) +
				MESSAGE_OVERHEAD;
			old_bytes += partner.message.old_bytes;
			new_bytes += partner.message.new_bytes;
		}
		if (request->nmessages > 0 &&
			!fits(request, table, kind, nmessages, nbytes, old_bytes,
				  new_bytes))
			break;

		/* A stream is either appended to or deduplicated. */
		if (kind == CVX_OP_APPEND &&
			!list_member_int(request->tables, record.message.table))
		{
			bool		is_other = false;
			ListCell   *lc;

			foreach(lc, request->tables)
			{
				const CvxBatchTable *other =
					cvx_batch_table_of(batch, lfirst_int(lc));

				is_other |= strcmp(other->name, table->name) == 0 &&
					((other->key == NULL) != (table->key == NULL) ||
					 (other->key && strcmp(other->key->text,
										   table->key->text) != 0));
			}
			if (is_other)
				break;
		}
		if (request->nmessages == 0)
		{
			request->kind = kind;
			request->max_messages = table->batch_size;
			request->max_bytes = table->batch_bytes;
		}
		request->max_messages = Min(request->max_messages, table->batch_size);
		request->max_bytes = Min(request->max_bytes, table->batch_bytes);
		request->nmessages += nmessages;
		request->nbytes += nbytes;
		request->old_bytes += old_bytes;
		request->new_bytes += new_bytes;
		request->tables = list_append_unique_int(request->tables,
												 record.message.table);
		request->end = offset;
	}
	return request->nmessages > 0;
}

static bool
fits(const Request *request, const CvxBatchTable *table, CvxOp kind,
	 int64 nmessages, int64 nbytes, int64 old_bytes, int64 new_bytes)
{
	int64		max_bytes = Min(request->max_bytes, table->batch_bytes);

	if (kind != request->kind)
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

/*
 * Send one request and see to it that it is applied once.  head is a timestamp
 * before it, or 0.
 */
static void
send_request(CvxBatch *batch, CvxHttp *http, Request *request, int64 head)
{
	bool		is_keyed = request->kind != CVX_OP_CLEAR;
	ListCell   *lc;

	foreach(lc, request->tables)
		is_keyed &= cvx_batch_table_of(batch, lfirst_int(lc))->key != NULL;
	for (int nth = 0;; nth++)
	{
		CvxCall    *call;

		/* Without a timestamp the change log cannot be asked later. */
		if (is_keyed && head <= 0)
			head = cvx_api_head(http);
		call = start_request(batch, http, request);
		if (!cvx_api_await_write(call))
			cvx_api_fail_write(call, http, applied_detail(request),
							   NULL);
		switch (cvx_api_outcome(call))
		{
			case CVX_OUTCOME_APPLIED:
				return;
			case CVX_OUTCOME_REFUSED:
				cvx_api_fail_write(call, http, applied_detail(request),
								   index_hint(batch, request, call));
			case CVX_OUTCOME_UNKNOWN:
				break;
		}
		if (!is_keyed || head <= 0)
			cvx_api_fail_write(call, http, applied_detail(request),
							   NULL);
		switch (ask_change_log(batch, http, request, head))
		{
			case CVX_OUTCOME_APPLIED:
				return;
			case CVX_OUTCOME_REFUSED:
				if (nth < cvx_http_remote(http)->max_retries)
					break;
				/* FALLTHROUGH */
			case CVX_OUTCOME_UNKNOWN:
				cvx_api_fail_write(call, http, applied_detail(request),
								   NULL);
		}
		cvx_http_free(call);
		cvx_http_pause(http, nth);
	}
}

/* Write the body and start the request. */
static CvxCall *
start_request(CvxBatch *batch, CvxHttp *http, Request *request)
{
	static const char *const operations[] = {
		[CVX_OP_UPSERT] = "Upsert",
		[CVX_OP_UPDATE] = "Update",
		[CVX_OP_DELETE] = "HardDelete",
	};
	StringInfoData body;
	MemoryContext row_cxt = AllocSetContextCreate(CurrentMemoryContext,
												  "convex message",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext cxt;
	int64		offset = request->begin;
	bool		is_first = true;
	CvxCall    *call;

	if (request->kind == CVX_OP_CLEAR)
	{
		const char **names = palloc(sizeof(char *) *
									list_length(request->tables));
		int			n = 0;
		ListCell   *lc;

		foreach(lc, request->tables)
		{
			const char *name = cvx_batch_table_of(batch, lfirst_int(lc))->name;
			bool		is_known = false;

			for (int i = 0; i < n; i++)
				is_known |= strcmp(names[i], name) == 0;
			if (!is_known)
				names[n++] = name;
		}
		return cvx_api_clear_tables(http, names, n);
	}
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
	while (offset < request->end)
	{
		CvxMessage	message;
		const char *name;

		MemoryContextReset(row_cxt);
		if (!cvx_batch_next(batch, &offset, NULL, &message))
			break;
		name = cvx_batch_table_of(batch, message.table)->name;
		if (!is_first)
			appendStringInfoChar(&body, ',');
		is_first = false;
		if (request->kind == CVX_OP_UPSERT)
			appendStringInfo(&body, "{\"table\":\"%s\",\"operation\":\"%s\",\"row\":",
							 name, operations[message.op]);
		else
			appendStringInfo(&body, "{\"tableName\":\"%s\",\"data\":", name);
		appendBinaryStringInfo(&body, message.row, message.row_len);
		appendStringInfoChar(&body, '}');
	}
	MemoryContextSwitchTo(cxt);
	appendStringInfoString(&body, request->kind == CVX_OP_UPSERT ? "]" : "]}");
	call = request->kind == CVX_OP_UPSERT ?
		cvx_api_apply_fivetran_operations(http, body.data) :
		cvx_api_import_airbyte_records(http, body.data);
	pfree(body.data);
	MemoryContextDelete(row_cxt);
	return call;
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
		const CvxBatchTable *table = cvx_batch_table_of(batch, lfirst_int(lc));
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
		const CvxBatchTable *table = cvx_batch_table_of(batch, lfirst_int(lc));

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
applied_detail(const Request *request)
{
	if (napplied == 0)
		return NULL;
	return psprintf(INT64_FORMAT " %s of this transaction are in Convex.",
					napplied,
					request->kind == CVX_OP_APPEND ? "documents" : "changes");
}

/* ------------------------------------------------------------------------
 * The change log
 * ------------------------------------------------------------------------
 */

/*
 * Has a row that is to be updated or deleted changed since it was read?  Then
 * 40001, before anything is sent.  Returns the timestamp up to which the
 * change log was read, or 0 when there was nothing to check.
 */
static int64
check_conflicts(CvxBatch *batch, CvxHttp *http)
{
	CvxSelection selection = {0};
	CvxPageWant want = {.is_delta = true};
	int64		cursor = 0;
	int64		offset = 0;
	HTAB	   *changes;
	MemoryContext cxt;
	MemoryContext page_cxt;
	bool		has_more = true;

	while (offset < cvx_spool_len(batch->spool))
	{
		Record		record;

		offset = read_record(batch, offset, &record);
		if (record.message.is_checked && record.message.base_ts > 0 &&
			(cursor == 0 || record.message.base_ts < cursor))
			cursor = record.message.base_ts;
	}
	if (cursor == 0)
		return 0;
	changes = cvx_batch_map("convex changes", sizeof(Change));
	cxt = CurrentMemoryContext;
	page_cxt = AllocSetContextCreate(cxt, "convex page",
									 ALLOCSET_DEFAULT_SIZES);
	name_tables(batch, &selection, &want);
	while (has_more)
	{
		CvxPage    *page;
		int64		before = cursor;

		MemoryContextReset(page_cxt);
		MemoryContextSwitchTo(page_cxt);
		page = cvx_api_page(cvx_api_document_deltas(http, NULL, &selection,
													cursor), http, &want);
		MemoryContextSwitchTo(cxt);
		for (int i = 0; i < page->ndocs; i++)
		{
			CvxTextKey	id = {page->text + page->docs[i].id.offset,
			page->docs[i].id.len};
			Change	   *change;
			bool		is_known;

			change = hash_search(changes, &id, HASH_FIND, NULL);
			if (change == NULL)
			{
				id.data = pnstrdup(id.data, id.len);
				change = hash_search(changes, &id, HASH_ENTER, &is_known);
			}
			change->ts = page->docs[i].ts;
		}
		cursor = page->ts;
		has_more = page->has_more;
		if (has_more && cursor <= before)
			ereport(ERROR,
					(errcode(ERRCODE_FDW_UNABLE_TO_CREATE_REPLY),
					 errmsg("Convex server answered with the same change cursor again")));
	}
	MemoryContextDelete(page_cxt);
	if (hash_get_num_entries(changes) == 0)
		return cursor;
	for (offset = 0;;)
	{
		CvxMessage	message;
		Change	   *change;
		CvxTextKey	id = {NULL};

		if (!cvx_batch_next(batch, &offset, NULL, &message))
			break;
		id.data = message.id;
		id.len = message.id_len;
		if (!message.is_checked || message.id == NULL ||
			(change = hash_search(changes, &id, HASH_FIND, NULL)) == NULL ||
			change->ts <= message.base_ts)
		{
			pfree(message.key ? (void *) message.key : message.id ?
				  (void *) message.id : (void *) message.row);
			continue;
		}
		ereport(ERROR,
				(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
				 errmsg("could not write to Convex because of a concurrent change"),
				 errdetail("Document \"%.*s\" of table \"%s\" has changed since it was read.  Nothing was sent.",
						   message.id_len, message.id,
						   cvx_batch_table_of(batch, message.table)->name),
				 errhint("Run the transaction again.")));
	}
	return cursor;
}

/* Select the _id of the documents of all tables of the batch. */
static void
name_tables(CvxBatch *batch, CvxSelection *selection, CvxPageWant *want)
{
	CvxTableName *names = palloc(sizeof(CvxTableName) *
								 list_length(batch->tables));
	int			n = 0;
	ListCell   *lc;

	foreach(lc, batch->tables)
	{
		const CvxBatchTable *table = lfirst(lc);
		bool		is_known = false;

		for (int i = 0; i < n; i++)
			is_known |= strcmp(names[i].table, table->name) == 0;
		if (is_known)
			continue;
		names[n].component = "";
		names[n++].table = table->name;
	}
	selection->tables = want->tables = names;
	selection->ntables = want->ntables = n;
}

/*
 * A request by key ended without an answer: APPLIED when the change log since
 * head shows every row of it as sent, REFUSED when it shows none of them,
 * UNKNOWN otherwise, also when the change log cannot be read.
 */
static CvxOutcome
ask_change_log(CvxBatch *batch, CvxHttp *http, Request *request, int64 head)
{
	MemoryContext cxt = CurrentMemoryContext;
	volatile CvxOutcome outcome = CVX_OUTCOME_UNKNOWN;

	PG_TRY();
	{
		int64		cursor = head;
		CvxSelection selection = {.is_whole = true};
		CvxPageWant want = {.is_delta = true};
		HTAB	   *expected = cvx_batch_map("convex rows", sizeof(Expected));
		HTAB	   *known = cvx_batch_map("convex ids", sizeof(Known));
		bool		has_more = true;
		bool		is_any_touched = false;
		bool		is_all_as_sent = true;
		HASH_SEQ_STATUS seq;
		Expected   *each;

		expect_request(batch, request, expected, known);
		name_tables(batch, &selection, &want);
		while (has_more)
		{
			CvxCall    *call = cvx_api_document_deltas(http, NULL, &selection,
													   cursor);
			CvxPage    *page = cvx_api_page(call, http, &want);

			for (int i = 0; i < page->ndocs; i++)
				compare_change(batch, page, &page->docs[i], expected, known);
			has_more = page->has_more && page->ts > cursor;
			cursor = page->ts;
			cvx_http_free(call);
		}
		hash_seq_init(&seq, expected);
		while ((each = hash_seq_search(&seq)) != NULL)
		{
			is_any_touched |= each->is_touched;
			is_all_as_sent &= each->is_touched ? each->is_as_sent :
				!each->is_provable;
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

/* Fill in what the request makes of each of its rows. */
static void
expect_request(CvxBatch *batch, Request *request, HTAB *expected, HTAB *known)
{
	int64		offset = request->begin;

	while (offset < request->end)
	{
		CvxMessage	message;
		CvxTextKey	key = {NULL};
		Expected   *row;
		bool		is_known;

		if (!cvx_batch_next(batch, &offset, NULL, &message))
			break;
		key.data = message.key;
		key.len = message.key_len;
		key.table = message.table;
		row = hash_search(expected, &key, HASH_ENTER, &is_known);
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

/* See whether a change is one of the request's. */
static void
compare_change(CvxBatch *batch, const CvxPage *page, const CvxDoc *doc,
			   HTAB *expected, HTAB *known)
{
	const char *text = page->text + doc->document.offset;
	CvxTextKey	id = {page->text + doc->id.offset, doc->id.len};
	Known	   *entry = hash_search(known, &id, HASH_FIND, NULL);
	int			number = 0;
	ListCell   *lc;

	if (doc->is_deleted)
	{
		if (entry)
		{
			entry->expected->is_touched = true;
			entry->expected->is_as_sent = entry->expected->op == CVX_OP_DELETE;
		}
		return;
	}
	if (entry)
		entry->expected->is_touched = true;
	foreach(lc, batch->tables)
	{
		const CvxBatchTable *table = lfirst(lc);
		StringInfoData key;
		const char *missing;

		initStringInfo(&key);
		if (table->key && is_span(page, doc->table, table->name) &&
			cvx_document_key(&key, text, doc->document.len, table->key,
							 &missing))
		{
			CvxTextKey	wanted = {key.data, key.len, number};
			Expected   *row = hash_search(expected, &wanted, HASH_FIND, NULL);

			if (row)
			{
				row->is_touched = true;
				row->is_as_sent = is_as_sent(row, text, doc->document.len);
			}
		}
		number++;
		pfree(key.data);
	}
}

/* Is the document what the request makes of it? */
static bool
is_as_sent(const Expected *expected, const char *doc, size_t len)
{
	StringInfoData have;
	StringInfoData want;

	initStringInfo(&have);
	initStringInfo(&want);
	if (expected->op == CVX_OP_DELETE)
		return false;
	cvx_document_canonical(&have, doc, len, true);
	if (expected->op == CVX_OP_UPSERT || expected->op == CVX_OP_APPEND)
		cvx_document_canonical(&want, expected->row, expected->row_len, true);
	else
	{
		StringInfoData merged;

		initStringInfo(&merged);
		cvx_document_merge(&merged, doc, len, expected->row,
						   expected->row_len);
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
