/*
 * api.c
 *		What does each endpoint take and give; may it be repeated?
 *
 * The one place that knows the routes, the bodies they take, and which answers
 * allow to send the same request again.  All values travel in the format
 * convex_encoded_json, which is exact and describes itself.
 *
 * Room: protocol 2.3
 */
#include "postgres.h"

#include <ctype.h>

#include "common/base64.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/timeout.h"
#include "utils/timestamp.h"

#include "protocol/api.h"
#include "ground/compat.h"
#include "ground/redact.h"
#include "protocol/schema.h"

/* How long an answer that can be done without is waited for. */
#define LOOK_MS		10000

/* Bodies of errors are small; a larger one is not searched for codes. */
#define MAX_ERROR_BODY	65536

/*
 * Answers that become jsonb, which takes thirty times as much memory.  The
 * schemas of ten thousand tables are about as long.
 */
#define MAX_JSONB_BODY	(16 * 1024 * 1024)

/* No deployment forgets what is younger. */
#define OLD_SNAPSHOT_NS	(INT64CONST(3600) * 1000000000)

/* Another transaction has committed what this one had read. */
#define CONFLICT_CODE	"OptimisticConcurrencyControlFailure"

static int64 read_query_ts(CvxCall *call, CvxHttp *http);
static List *read_names(CvxCall *call, CvxHttp *http,
						const CvxTableName *only);
static CvxRepeat repeat_read(const CvxAnswer *answer);
static CvxRepeat repeat_walk(const CvxAnswer *answer);
static CvxRepeat repeat_unconnected(const CvxAnswer *answer);
static CvxCall *send_import_id(CvxHttp *http, const char *path,
							   const char *import_id);
static void add_names(StringInfo body, const char *const *names, int nnames);
static void add_path(StringInfo body, const char *path);
static char *read_string(CvxCall *call, CvxHttp *http, const char *member);
static void add_url_encoded(StringInfo buf, const char *text);
static CvxRepeat repeat_write(const CvxAnswer *answer);
static CvxRepeat repeat_keyed_write(const CvxAnswer *answer);
static bool is_conflict(const CvxAnswer *answer);
static void fill_incident(CvxIncident *incident, CvxCall *call, CvxHttp *http,
						  const char *more);
static void add_selection(StringInfo body, const CvxSelection *selection);
static void add_tables(StringInfo body, const CvxSelection *selection,
					   const char *component);
static void add_name(StringInfo body, const char *name);
static Datum read_jsonb(char *text);
static void answer_context(void *arg);
static void read_error(const CvxAnswer *answer, CvxIncident *incident);
static bool has_error_code(const CvxAnswer *answer, const char *code);

/*
 * Ask for a page of a snapshot: the first one when cursor is NULL, at the
 * server's head when snapshot is 0.  Does not wait.  The call lives in the
 * current context.
 */
CvxCall *
cvx_api_list_snapshot(CvxHttp *http, CvxHttpStats *stats,
					  const CvxSelection *selection, int64 snapshot,
					  const char *cursor)
{
	CvxRequest	request = {"POST", "/api/list_snapshot"};
	StringInfoData body;

	initStringInfo(&body);
	appendStringInfoChar(&body, '{');
	if (snapshot > 0)
		appendStringInfo(&body, "\"snapshot\": " INT64_FORMAT ", ", snapshot);
	if (cursor)
	{
		appendStringInfoString(&body, "\"cursor\": ");
		cvx_json_write_string(&body, cursor, strlen(cursor));
		appendStringInfoString(&body, ", ");
	}
	add_selection(&body, selection);
	appendStringInfoString(&body, "\"format\": \"convex_encoded_json\"}");
	request.body = body.data;
	request.repeat = repeat_walk;
	request.stats = stats;
	return cvx_http_start(http, &request);
}

/* Ask for the changes after a timestamp.  Does not wait. */
CvxCall *
cvx_api_document_deltas(CvxHttp *http, CvxHttpStats *stats,
						const CvxSelection *selection, int64 cursor)
{
	CvxRequest	request = {"POST", "/api/document_deltas"};
	StringInfoData body;

	initStringInfo(&body);
	appendStringInfo(&body, "{\"cursor\": " INT64_FORMAT ", ", cursor);
	add_selection(&body, selection);
	appendStringInfoString(&body, "\"format\": \"convex_encoded_json\"}");
	request.body = body.data;
	request.repeat = repeat_read;
	request.stats = stats;
	return cvx_http_start(http, &request);
}

/*
 * The page that a call was answered with.  It lives in the current context and
 * points into the call's body.  Throws what the server or the line said.
 */
CvxPage *
cvx_api_page(CvxCall *call, CvxHttp *http, const CvxPageWant *want)
{
	ErrorContextCallback callback = {error_context_stack, answer_context, call};
	const CvxAnswer *answer;
	CvxPage    *page;

	cvx_http_wait(call);
	answer = cvx_http_answer(call);
	if (answer->status != 200 || answer->body_len == 0 ||
		answer->body[strspn(answer->body, " \n\r\t")] != '{')
		cvx_api_fail(call, http, NULL);
	error_context_stack = &callback;
	page = cvx_page_parse(answer->body, answer->body_len, want);
	error_context_stack = callback.previous;
	return page;
}

/* Was a call refused with this status and Convex code? */
bool
cvx_api_has_code(CvxCall *call, int status, const char *code)
{
	const CvxAnswer *answer = cvx_http_answer(call);

	return answer->status == status && has_error_code(answer, code);
}

/* A snapshot at the server's head, without a document. */
int64
cvx_api_fresh_snapshot(CvxHttp *http)
{
	static const CvxSelection nothing = {0};
	static const CvxPageWant any = {0};
	CvxCall    *call = cvx_api_list_snapshot(http, NULL, &nothing, 0, NULL);
	int64		snapshot = cvx_api_page(call, http, &any)->ts;

	cvx_http_free(call);
	return snapshot;
}

/* The timestamp of the server's head; -1 when it does not tell. */
int64
cvx_api_query_ts(CvxHttp *http)
{
	return read_query_ts(cvx_api_ask(http, "POST", "/api/query_ts", "{}"), http);
}

/*
 * The same, asked for in another way where the server does not know the route;
 * -1 when it answers and does not tell.  Throws when there is no answer: what
 * comes next would only wait as long again.  more is for the message, or NULL.
 */
int64
cvx_api_head(CvxHttp *http, const char *more)
{
	static const CvxSelection nothing = {0};
	static const CvxPageWant any = {0};
	CvxCall    *call = cvx_api_ask(http, "POST", "/api/query_ts", "{}");
	int64		head;

	if (cvx_http_answer(call)->transport != CVX_TRANSPORT_OK)
		cvx_api_fail(call, http, more);
	head = read_query_ts(call, http);
	if (head >= 0)
		return head;
	call = cvx_api_list_snapshot(http, NULL, &nothing, 0, NULL);
	cvx_http_wait(call);
	if (cvx_http_answer(call)->transport != CVX_TRANSPORT_OK)
		cvx_api_fail(call, http, more);
	if (cvx_http_answer(call)->status == 200)
		head = cvx_api_page(call, http, &any)->ts;
	cvx_http_free(call);
	return head;
}

/* The same; throws whatever keeps the server from telling. */
int64
cvx_api_sure_head(CvxHttp *http)
{
	CvxCall    *call = cvx_api_ask(http, "POST", "/api/query_ts", "{}");
	int64		head;

	if (cvx_http_answer(call)->transport != CVX_TRANSPORT_OK)
		cvx_api_fail(call, http, NULL);
	head = read_query_ts(call, http);
	return head >= 0 ? head : cvx_api_fresh_snapshot(http);
}

/* What an answer of query_ts says; -1: nothing. */
static int64
read_query_ts(CvxCall *call, CvxHttp *http)
{
	Jsonb	   *answer;
	JsonbValue	buffer;
	JsonbValue *ts = NULL;
	uint8		bytes[16];
	uint64		value = 0;

	if (cvx_http_answer(call)->status != 200)
		return -1;
	answer = cvx_api_json(call, http);
	if (JB_ROOT_IS_OBJECT(answer))
		ts = getKeyJsonValueFromContainer(&answer->root, "ts", 2, &buffer);
	if (ts == NULL || ts->type != jbvString ||
		cvx_b64_decode(ts->val.string.val, ts->val.string.len, bytes,
					   sizeof(bytes)) != 8)
		return -1;
	for (int i = 7; i >= 0; i--)
		value = (value << 8) | bytes[i];
	cvx_http_free(call);
	return (int64) value;
}

/*
 * Every table with the names of its fields, as a list of CvxTableSchema in the
 * current context; only the one that is named, without its fields, when only
 * is not NULL.  False when the server does not know the route.
 */
bool
cvx_api_column_names(CvxHttp *http, const CvxTableName *only, List **tables)
{
	CvxCall    *call = cvx_api_ask(http, "GET", "/api/get_table_column_names",
								   NULL);

	*tables = NIL;
	if (cvx_http_answer(call)->status == 404)
	{
		cvx_http_free(call);
		return false;
	}
	*tables = read_names(call, http, only);
	cvx_http_free(call);
	return true;
}

static List *
read_names(CvxCall *call, CvxHttp *http, const CvxTableName *only)
{
	ErrorContextCallback callback = {error_context_stack, answer_context, call};
	const CvxAnswer *answer = cvx_http_answer(call);
	List	   *tables;

	if (answer->status != 200 || answer->body_len == 0 ||
		answer->body[strspn(answer->body, " \n\r\t")] != '{')
		cvx_api_fail(call, http, NULL);
	error_context_stack = &callback;
	tables = cvx_schema_read_names(answer->body, answer->body_len, only);
	error_context_stack = callback.previous;
	return tables;
}

/*
 * JSON Schemas by component, in the encoded format; NULL when the server
 * refuses the call (one odd table is enough), or says too much, and that is
 * allowed.
 */
Jsonb *
cvx_api_json_schemas(CvxHttp *http, bool missing_ok)
{
	CvxCall    *call;
	Jsonb	   *answer;
	int			status;

	call = cvx_api_ask(http, "GET",
					   "/api/json_schemas?deltaSchema=false&byComponent=true"
					   "&format=convex_encoded_json", NULL);
	status = cvx_http_answer(call)->status;
	if (missing_ok && (status == 400 || status == 404 || status >= 500 ||
					   cvx_http_answer(call)->body_len > MAX_JSONB_BODY))
	{
		cvx_http_free(call);
		return NULL;
	}
	answer = cvx_api_json(call, http);
	if (!cvx_schema_is_tables(answer))
		cvx_api_fail(call, http, NULL);
	return answer;
}

/*
 * The declared schema; NULL when there is none, the key may not see it, or it
 * is too long to be one.
 */
Jsonb *
cvx_api_declared_schema(CvxHttp *http)
{
	CvxCall    *call = cvx_api_ask(http, "GET",
								   "/api/streaming_import/get_schema", NULL);
	int			status = cvx_http_answer(call)->status;
	Jsonb	   *answer;

	if (status == 403 || status == 404 ||
		cvx_http_answer(call)->body_len > MAX_JSONB_BODY)
		return NULL;
	answer = cvx_api_json(call, http);
	return JB_ROOT_IS_OBJECT(answer) ? answer : NULL;
}

/*
 * Every table of the deployment, as a list of CvxTableSchema with names alone;
 * NIL and *is_readable false when the key or the plan allows no reading.
 */
List *
cvx_api_tables(CvxHttp *http, bool *is_readable)
{
	CvxCall    *call = cvx_api_ask(http, "GET", "/api/get_table_column_names",
								   NULL);
	int			status = cvx_http_answer(call)->status;

	*is_readable = status != 403;
	if (status == 403)
		return NIL;
	if (status == 404)
		return cvx_schema_parse_tables(cvx_api_json_schemas(http, false));
	return read_names(call, http, NULL);
}

/* ------------------------------------------------------------------------
 * Writes
 * ------------------------------------------------------------------------
 */

static CvxCall *
start_write(CvxHttp *http, const char *method, const char *path,
			const char *body)
{
	CvxRequest	request = {method, path, body,.is_write = true,
	.repeat = repeat_write};

	return cvx_http_start(http, &request);
}

/* Append or deduplicate records.  Does not wait. */
CvxCall *
cvx_api_import_airbyte_records(CvxHttp *http, const char *body)
{
	return start_write(http, "POST",
					   "/api/streaming_import/import_airbyte_records", body);
}

/*
 * Upsert, update and delete rows by key.  Does not wait.  A write conflict is
 * not repeated here: the caller looks first for what the rows have become.
 */
CvxCall *
cvx_api_apply_fivetran_operations(CvxHttp *http, const char *body)
{
	CvxRequest	request = {"POST",
		"/api/streaming_import/apply_fivetran_operations", body,
	.is_write = true,.repeat = repeat_keyed_write};

	return cvx_http_start(http, &request);
}

/* Was a write turned away because of another one, with nothing applied? */
bool
cvx_api_is_conflict(CvxCall *call)
{
	return cvx_api_has_code(call, 503, CONFLICT_CODE);
}

/* Empty tables, all at once.  Does not wait. */
CvxCall *
cvx_api_clear_tables(CvxHttp *http, const char *const *tables, int ntables)
{
	StringInfoData body;

	initStringInfo(&body);
	appendStringInfoString(&body, "{\"tableNames\": ");
	add_names(&body, tables, ntables);
	appendStringInfoChar(&body, '}');
	return start_write(http, "PUT", "/api/streaming_import/clear_tables",
					   body.data);
}

/* What the final answer of a write says of its effect. */
CvxOutcome
cvx_api_outcome(CvxCall *call)
{
	const CvxAnswer *answer = cvx_http_answer(call);

	if (answer->transport != CVX_TRANSPORT_OK)
		return answer->may_have_arrived &&
			answer->transport != CVX_TRANSPORT_NO_CONNECTION &&
			answer->transport != CVX_TRANSPORT_TLS &&
			answer->transport != CVX_TRANSPORT_REFUSED_ADDRESS ?
			CVX_OUTCOME_UNKNOWN : CVX_OUTCOME_REFUSED;
	if (answer->status == 200)
		return answer->body_len == 0 ? CVX_OUTCOME_APPLIED :
			CVX_OUTCOME_UNKNOWN;
	if (answer->status >= 300 && answer->status < 500 &&
		answer->status != 408 && answer->status != 425)
		return CVX_OUTCOME_REFUSED;
	return answer->status == 503 && is_conflict(answer) ?
		CVX_OUTCOME_REFUSED : CVX_OUTCOME_UNKNOWN;
}

/*
 * Wait for a write.  False: a cancel or a termination came while the server may
 * have been at work.  Throws when they came before anything was sent.
 */
bool
cvx_api_await_write(CvxCall *call)
{
	if (cvx_http_wait_quietly(call, 0))
		return true;
	if (cvx_http_may_have_arrived(call))
	{
		/* What is thrown now tells of the cancel; it is not to hit again. */
		QueryCancelPending = false;
		(void) get_timeout_indicator(STATEMENT_TIMEOUT, true);
		return false;
	}
	cvx_http_free(call);
	CHECK_FOR_INTERRUPTS();
	elog(ERROR, "a wait ended without an interrupt");
	return false;				/* keep the compiler quiet */
}

/*
 * Wait for a write that is not repeated, and throw unless it was applied.
 * more and hint are for the message, or NULL.
 */
void
cvx_api_finish_write(CvxCall *call, CvxHttp *http, const char *more,
					 const char *hint)
{
	if (!cvx_api_await_write(call) ||
		cvx_api_outcome(call) != CVX_OUTCOME_APPLIED)
		cvx_api_fail_write(call, http, more, hint);
	cvx_http_free(call);
}

/*
 * Report a write that was refused, or whose outcome is unknown; one that is
 * still under way was cancelled.
 */
void
cvx_api_fail_write(CvxCall *call, CvxHttp *http, const char *more,
				   const char *hint)
{
	const CvxRemote *remote = cvx_http_remote(http);
	CvxIncident incident = {0};

	if (cvx_http_is_done(call))
	{
		fill_incident(&incident, call, http, more);
		incident.hint = hint;
		incident.is_partial = more != NULL;
		if (cvx_api_outcome(call) == CVX_OUTCOME_UNKNOWN)
			cvx_error_unknown(&incident);
		if (incident.transport != CVX_TRANSPORT_OK)
			cvx_error_transport(&incident);
		cvx_error_http(&incident);
	}
	incident.server = remote->server_name;
	incident.endpoint = cvx_http_endpoint(call);
	incident.attempts = 1;
	incident.reason = "the statement was canceled while the request was under way";
	incident.more = more;
	cvx_error_unknown(&incident);
}

/*
 * Writes are repeated when it is certain that nothing was applied: nothing was
 * sent, or the server says so.
 */
static CvxRepeat
repeat_write(const CvxAnswer *answer)
{
	if (answer->transport == CVX_TRANSPORT_NO_CONNECTION ||
		(answer->transport == CVX_TRANSPORT_LOST && !answer->may_have_arrived))
		return CVX_REPEAT_YES;
	if (answer->transport == CVX_TRANSPORT_OK &&
		(answer->status == 429 ||
		 (answer->status == 503 && is_conflict(answer))))
		return CVX_REPEAT_YES;
	return CVX_REPEAT_NO;
}

static CvxRepeat
repeat_keyed_write(const CvxAnswer *answer)
{
	if (answer->transport == CVX_TRANSPORT_OK && answer->status == 503 &&
		has_error_code(answer, CONFLICT_CODE))
		return CVX_REPEAT_NO;
	return repeat_write(answer);
}

/* Did the server's committer turn the transaction away? */
static bool
is_conflict(const CvxAnswer *answer)
{
	return has_error_code(answer, CONFLICT_CODE) ||
		has_error_code(answer, "CommitterFullError");
}

/* ------------------------------------------------------------------------
 * Indexes, and what is no longer there
 * ------------------------------------------------------------------------
 */

/* What Convex no longer supports; never returns. */
void
cvx_api_replace_tables(CvxHttp *http, const char *const *tables, int ntables)
{
	StringInfoData body;

	initStringInfo(&body);
	appendStringInfoString(&body, "{\"tableNames\": {");
	for (int i = 0; i < ntables; i++)
	{
		appendStringInfoString(&body, i > 0 ? ", " : "");
		add_name(&body, tables[i]);
		appendStringInfoString(&body, ": ");
		add_name(&body, tables[i]);
	}
	appendStringInfoString(&body, "}}");

	/* Refused by everyone, so it may be repeated. */
	cvx_api_fail(cvx_api_ask(http, "POST",
							 "/api/streaming_import/replace_tables",
							 body.data), http, NULL);
}

/*
 * Make the hidden index of the airbyte route, and wait for whatever answer;
 * paths are texts like "a.b".  The same index again is no change, so this may
 * be repeated.
 */
CvxCall *
cvx_api_add_primary_key(CvxHttp *http, const char *table, List *paths)
{
	StringInfoData body;
	ListCell   *lc;

	initStringInfo(&body);
	appendStringInfoString(&body, "{\"indexes\": {");
	add_name(&body, table);
	appendStringInfoString(&body, ": [");
	foreach(lc, paths)
	{
		if (lc != list_head(paths))
			appendStringInfoString(&body, ", ");
		add_path(&body, lfirst(lc));
	}
	appendStringInfoString(&body, "]}}");
	return cvx_api_ask(http, "PUT",
					   "/api/streaming_import/add_primary_key_indexes",
					   body.data);
}

/* Ask whether those indexes are built, and wait for the answer. */
CvxCall *
cvx_api_primary_keys_ready(CvxHttp *http, const char *const *tables,
						   int ntables)
{
	StringInfoData body;

	initStringInfo(&body);
	appendStringInfoString(&body, "{\"tables\": ");
	add_names(&body, tables, ntables);
	appendStringInfoChar(&body, '}');
	return cvx_api_ask(http, "GET",
					   "/api/streaming_import/primary_key_indexes_ready",
					   body.data);
}

/* What the answer says; throws when it is a failure. */
bool
cvx_api_is_ready(CvxCall *call, CvxHttp *http)
{
	Jsonb	   *answer = cvx_api_json(call, http);
	JsonbValue	buffer;
	JsonbValue *value = NULL;

	if (JB_ROOT_IS_OBJECT(answer))
		value = getKeyJsonValueFromContainer(&answer->root, "indexesReady", 12,
											 &buffer);
	if (value == NULL || value->type != jbvBool)
		cvx_api_fail(call, http, NULL);
	return value->val.boolean;
}

/*
 * Make a table with the hidden index of the fivetran route.  The answer comes
 * when the index is built; the server goes on building after its own time
 * limit, and the same request again is no change.  Does not wait.
 */
CvxCall *
cvx_api_create_fivetran_table(CvxHttp *http, const char *table, List *paths)
{
	CvxRequest	request = {"POST", "/api/streaming_import/fivetran_create_table"};
	StringInfoData body;
	ListCell   *lc;

	initStringInfo(&body);
	appendStringInfoString(&body, "{\"tableDefinition\": {\"tableName\": ");
	add_name(&body, table);
	appendStringInfoString(&body, ", \"documentType\": null, \"indexes\": [{\"indexDescriptor\": \"_fivetran_by_primary_key\", \"fields\": [");
	foreach(lc, paths)
	{
		if (lc != list_head(paths))
			appendStringInfoString(&body, ", ");
		add_name(&body, lfirst(lc));
	}
	appendStringInfoString(&body, "]}]}}");
	request.body = body.data;
	request.repeat = repeat_walk;
	return cvx_http_start(http, &request);
}

/*
 * Ask for an update of a row that is not there, and wait for the refusal: its
 * code tells of the index.  It would set the fields that found the row to what
 * they are, so it changes nothing in any case and may be repeated.
 */
CvxCall *
cvx_api_probe_fivetran_key(CvxHttp *http, const char *table, const char *row)
{
	StringInfoData body;

	initStringInfo(&body);
	appendStringInfoString(&body, "[{\"table\": ");
	add_name(&body, table);
	appendStringInfo(&body, ", \"operation\": \"Update\", \"row\": %s}]", row);
	return cvx_api_ask(http, "POST",
					   "/api/streaming_import/apply_fivetran_operations",
					   body.data);
}

/* ------------------------------------------------------------------------
 * Snapshot imports
 *
 * An import does nothing before perform_import, so the outcome of its upload
 * is never in doubt: a failure has changed nothing.
 * ------------------------------------------------------------------------
 */

/* The token of a new upload.  One that is never finished is forgotten. */
char *
cvx_api_start_upload(CvxHttp *http)
{
	return read_string(cvx_api_ask(http, "POST", "/api/import/start_upload",
								   "{}"), http, "uploadToken");
}

/*
 * Send a part and wait; its token, as the JSON text that finish_upload wants.
 * Never repeated once it was sent: some servers append parts as they come.
 */
char *
cvx_api_upload_part(CvxHttp *http, const char *token, int number,
					const char *data, size_t len)
{
	CvxRequest	request = {"POST"};
	StringInfoData path;
	StringInfoData result;
	CvxCall    *call;
	char	   *part_token;

	initStringInfo(&path);
	appendStringInfoString(&path, "/api/import/upload_part?uploadToken=");
	add_url_encoded(&path, token);
	appendStringInfo(&path, "&partNumber=%d", number);
	request.path = path.data;
	request.body = data;
	request.body_len = len;
	request.content_type = "application/octet-stream";
	request.is_write = true;
	request.repeat = repeat_write;
	call = cvx_http_start(http, &request);
	cvx_http_wait(call);
	part_token = read_string(call, http, NULL);
	cvx_http_free(call);
	initStringInfo(&result);
	add_name(&result, part_token);
	return result.data;
}

/*
 * Make an import of the parts of a ZIP file; its id.  Not repeated once it was
 * sent: a second import would be made.
 */
char *
cvx_api_finish_upload(CvxHttp *http, const char *token,
					  const char *part_tokens, const char *mode,
					  const char *component)
{
	CvxRequest	request = {"POST", "/api/import/finish_upload"};
	StringInfoData body;
	CvxCall    *call;

	initStringInfo(&body);
	appendStringInfoString(&body, "{\"import\": {\"format\": \"zip\", \"mode\": ");
	add_name(&body, mode);
	if (component[0] != '\0')
	{
		appendStringInfoString(&body, ", \"componentPath\": ");
		add_name(&body, component);
	}
	appendStringInfoString(&body, "}, \"uploadToken\": ");
	add_name(&body, token);
	appendStringInfo(&body, ", \"partTokens\": [%s]}", part_tokens);
	request.body = body.data;
	request.is_write = true;
	request.repeat = repeat_write;
	call = cvx_http_start(http, &request);
	cvx_http_wait(call);
	return read_string(call, http, "importId");
}

/*
 * What a function of Convex's dashboard answers when it is asked for one
 * document of a table of the root component: a JSON text in the current
 * context, in convex_encoded_json.  NULL when the server does not tell, for
 * whatever reason.  Throws when no connection can be made, or the answer is no
 * JSON.
 */
char *
cvx_api_one_document(CvxHttp *http, const char *table)
{
	ErrorContextCallback callback = {error_context_stack, answer_context};
	CvxRequest	request = {"POST", "/api/query",.repeat = repeat_unconnected};
	StringInfoData body;
	CvxCall    *call;
	const CvxAnswer *answer;
	CvxJson		json;
	char	   *text = NULL;

	initStringInfo(&body);
	appendStringInfoString(&body, "{\"path\": \"_system/frontend/paginatedTableDocuments\", \"args\": {\"table\": ");
	add_name(&body, table);
	appendStringInfoString(&body, ", \"filters\": null, \"paginationOpts\": {\"numItems\": 1, \"cursor\": null}}, \"format\": \"convex_encoded_json\"}");
	request.body = body.data;
	call = cvx_http_start(http, &request);
	if (!cvx_http_wait_quietly(call,
							   TimestampTzPlusMilliseconds(GetCurrentTimestamp(),
														   LOOK_MS)))
	{
		CHECK_FOR_INTERRUPTS();
		cvx_http_free(call);
		return NULL;
	}
	answer = cvx_http_answer(call);
	if (answer->transport == CVX_TRANSPORT_NO_CONNECTION)
		cvx_api_fail(call, http, NULL);
	if (answer->transport == CVX_TRANSPORT_OK && answer->status == 200)
	{
		callback.arg = call;
		error_context_stack = &callback;
		text = pnstrdup(answer->body, answer->body_len);
		cvx_json_begin(&json, text, answer->body_len);
		if (pg_encoding_verifymbstr(PG_UTF8, text, answer->body_len) !=
			answer->body_len)
			cvx_json_fail(&json, "not UTF-8");
		cvx_json_skip(&json, NULL);
		cvx_json_end(&json);
		error_context_stack = callback.previous;
	}
	cvx_http_free(call);
	return text;
}

/* Ask for the state of an import.  Does not wait. */
CvxCall *
cvx_api_query_import(CvxHttp *http, const char *import_id)
{
	CvxRequest	request = {"POST", "/api/query"};
	StringInfoData body;

	initStringInfo(&body);
	appendStringInfoString(&body, "{\"path\": \"_system/cli/queryImport\", \"args\": {\"importId\": ");
	add_name(&body, import_id);
	appendStringInfoString(&body, "}, \"format\": \"json\"}");
	request.body = body.data;
	request.repeat = repeat_read;
	return cvx_http_start(http, &request);
}

/*
 * Let a waiting import begin.  For one that has begun or ended this does
 * nothing, so it may be repeated.  Does not wait.
 */
CvxCall *
cvx_api_perform_import(CvxHttp *http, const char *import_id)
{
	return send_import_id(http, "/api/perform_import", import_id);
}

/*
 * Cancel an import.  One that has ended stays as it is, so this may be
 * repeated.  Does not wait.
 */
CvxCall *
cvx_api_cancel_import(CvxHttp *http, const char *import_id)
{
	return send_import_id(http, "/api/cancel_import", import_id);
}

/* Wait for an answer without a body that matters; throws what else it is. */
void
cvx_api_expect_success(CvxCall *call, CvxHttp *http)
{
	cvx_http_wait(call);
	if (cvx_http_answer(call)->status != 200)
		cvx_api_fail(call, http, NULL);
}

/* ------------------------------------------------------------------------
 * Questions and answers of all kinds
 * ------------------------------------------------------------------------
 */

/*
 * Send a small question that may be repeated and wait for whatever answer.
 */
CvxCall *
cvx_api_ask(CvxHttp *http, const char *method, const char *path,
			const char *body)
{
	CvxRequest	request = {method, path, body,.repeat = repeat_read};
	CvxCall    *call = cvx_http_start(http, &request);

	cvx_http_wait(call);
	return call;
}

/* A small answer as jsonb, in the current context.  Throws like a page. */
Jsonb *
cvx_api_json(CvxCall *call, CvxHttp *http)
{
	ErrorContextCallback callback = {error_context_stack, answer_context, call};
	const CvxAnswer *answer = cvx_http_answer(call);
	CvxJson		json;
	Datum		result;

	if (answer->status != 200 || answer->body_len == 0 ||
		strchr("{[n\"tf-0123456789",
			   answer->body[strspn(answer->body, " \n\r\t")]) == NULL)
		cvx_api_fail(call, http, NULL);
	if (answer->body_len > MAX_JSONB_BODY)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("answer of Convex server \"%s\" is too long: %zu bytes",
						cvx_http_remote(http)->server_name, answer->body_len),
				 errdetail("%s may answer with %d bytes.",
						   cvx_http_endpoint(call), MAX_JSONB_BODY)));

	/* Our own reader first: jsonb would recurse into hostile nesting. */
	error_context_stack = &callback;
	cvx_json_begin(&json, answer->body, answer->body_len);
	if (pg_encoding_verifymbstr(PG_UTF8, answer->body, answer->body_len) !=
		answer->body_len)
		cvx_json_fail(&json, "not UTF-8");
	cvx_json_skip(&json, NULL);
	cvx_json_end(&json);
	result = read_jsonb(pg_any_to_server(answer->body, answer->body_len, PG_UTF8));
	error_context_stack = callback.previous;
	return DatumGetJsonbP(result);
}

/* Text as jsonb, whose errors quote the text in their context. */
static Datum
read_jsonb(char *text)
{
	MemoryContext cxt = CurrentMemoryContext;
	volatile Datum result = (Datum) 0;

	PG_TRY();
	{
		result = DirectFunctionCall1(jsonb_in, CStringGetDatum(text));
	}
	PG_CATCH();
	{
		ErrorData  *error;

		MemoryContextSwitchTo(cxt);
		error = CopyErrorData();
		FlushErrorState();
		ReThrowError(cvx_redact_error(error));
	}
	PG_END_TRY();
	return result;
}

/*
 * A page at a snapshot was refused with what overload looks like, 503
 * InternalServerError.  Does the server answer at its head?  Then it is the
 * snapshot, which is no longer kept: report that, when it was chosen or is old.
 */
void
cvx_api_fail_if_lost(CvxCall *call, CvxHttp *http, int64 snapshot,
					 bool is_chosen)
{
	static const CvxSelection nothing = {0};
	static const CvxPageWant any = {0};
	CvxIncident incident = {0};
	CvxCall    *fresh;
	int64		head;

	if (!cvx_api_has_code(call, 503, "InternalServerError"))
		return;
	fresh = cvx_api_list_snapshot(http, NULL, &nothing, 0, NULL);
	cvx_http_wait(fresh);
	if (cvx_http_answer(fresh)->status != 200)
		return;
	head = cvx_api_page(fresh, http, &any)->ts;
	if (!is_chosen && head - snapshot < OLD_SNAPSHOT_NS)
		return;
	fill_incident(&incident, call, http,
				  psprintf("Snapshot " INT64_FORMAT " was asked for; the server answers at its head, " INT64_FORMAT ".",
						   snapshot, head));
	incident.is_lost = true;
	cvx_error_http(&incident);
}

/*
 * Report the answer of a call as the failure that it is; more may be a further
 * sentence of detail, or NULL.
 */
void
cvx_api_fail(CvxCall *call, CvxHttp *http, const char *more)
{
	CvxIncident incident = {0};

	fill_incident(&incident, call, http, more);
	if (incident.transport != CVX_TRANSPORT_OK)
		cvx_error_transport(&incident);
	cvx_error_http(&incident);
}

static void
fill_incident(CvxIncident *incident, CvxCall *call, CvxHttp *http,
			  const char *more)
{
	const CvxAnswer *answer = cvx_http_answer(call);
	const CvxRemote *remote = cvx_http_remote(http);

	incident->server = remote->server_name;
	incident->endpoint = cvx_http_endpoint(call);
	incident->has_key = remote->key != NULL;
	incident->transport = answer->transport;
	incident->reason = answer->reason;
	incident->status = answer->status;
	incident->attempts = answer->attempts;
	incident->retry_after_s = answer->retry_after_s;
	incident->body = answer->body;
	incident->body_len = answer->body_len;
	incident->more = more;
	if (answer->transport == CVX_TRANSPORT_OK && answer->status != 200)
		read_error(answer, incident);
}

/* Only what has not arrived: the answer is not worth more. */
static CvxRepeat
repeat_unconnected(const CvxAnswer *answer)
{
	return answer->transport == CVX_TRANSPORT_NO_CONNECTION ?
		CVX_REPEAT_YES : CVX_REPEAT_NO;
}

/* Requests that change nothing. */
static CvxRepeat
repeat_read(const CvxAnswer *answer)
{
	switch (answer->transport)
	{
		case CVX_TRANSPORT_OK:
			break;
		case CVX_TRANSPORT_NO_CONNECTION:
		case CVX_TRANSPORT_LOST:
		case CVX_TRANSPORT_TIMED_OUT:
			return CVX_REPEAT_YES;
		default:
			return CVX_REPEAT_NO;
	}
	switch (answer->status)
	{
		case 408:
		case 425:
		case 429:
			return CVX_REPEAT_YES;
		case 500:
			return CVX_REPEAT_FEW;
		default:
			if (answer->status < 500 || answer->status > 599)
				return CVX_REPEAT_NO;
			return has_error_code(answer, "InternalServerError") ?
				CVX_REPEAT_FEW : CVX_REPEAT_YES;
	}
}

/*
 * list_snapshot: the server goes on with the work of a page that took too long,
 * so that the same request finds more of it done.
 */
static CvxRepeat
repeat_walk(const CvxAnswer *answer)
{
	if (answer->transport == CVX_TRANSPORT_TIMED_OUT ||
		(answer->transport == CVX_TRANSPORT_OK && answer->status == 408))
		return CVX_REPEAT_FREE;
	return repeat_read(answer);
}

static CvxCall *
send_import_id(CvxHttp *http, const char *path, const char *import_id)
{
	CvxRequest	request = {"POST", path};
	StringInfoData body;

	initStringInfo(&body);
	appendStringInfoString(&body, "{\"importId\": ");
	add_name(&body, import_id);
	appendStringInfoChar(&body, '}');
	request.body = body.data;
	request.repeat = repeat_read;
	return cvx_http_start(http, &request);
}

/*
 * The selection; and, for one table, also tableName and component, which
 * servers that do not know selections obey.
 */
static void
add_selection(StringInfo body, const CvxSelection *selection)
{
	appendStringInfoString(body, "\"selection\": {\"_other\": ");
	appendStringInfoString(body, selection->is_everything ? "\"included\"" :
						   "\"excluded\"");
	for (int i = 0; i < selection->ntables; i++)
	{
		const char *component = selection->tables[i].component;
		bool		is_known = false;

		for (int j = 0; j < i && !is_known; j++)
			is_known = strcmp(selection->tables[j].component, component) == 0;
		if (!is_known)
			add_tables(body, selection, component);
	}
	appendStringInfoString(body, "}, ");
	if (selection->ntables == 1)
	{
		if (selection->tables[0].table)
		{
			appendStringInfoString(body, "\"tableName\": ");
			add_name(body, selection->tables[0].table);
			appendStringInfoString(body, ", ");
		}
		if (selection->tables[0].component[0] != '\0')
		{
			appendStringInfoString(body, "\"component\": ");
			add_name(body, selection->tables[0].component);
			appendStringInfoString(body, ", ");
		}
	}
}

/* The selected tables of one component. */
static void
add_tables(StringInfo body, const CvxSelection *selection,
		   const char *component)
{
	bool		is_all = false;

	for (int i = 0; i < selection->ntables; i++)
		is_all |= selection->tables[i].table == NULL &&
			strcmp(selection->tables[i].component, component) == 0;
	appendStringInfoString(body, ", ");
	add_name(body, component);
	appendStringInfo(body, ": {\"_other\": \"%s\"",
					 is_all ? "included" : "excluded");
	for (int i = 0; i < selection->ntables; i++)
	{
		if (is_all || strcmp(selection->tables[i].component, component) != 0)
			continue;
		appendStringInfoString(body, ", ");
		add_name(body, selection->tables[i].table);
		if (selection->is_whole)
		{
			appendStringInfoString(body, ": {\"_other\": \"included\"}");
			continue;
		}
		appendStringInfoString(body, ": {\"_other\": \"excluded\", \"_id\": \"included\"");
		for (int f = 0; f < selection->nfields; f++)
		{
			if (strcmp(selection->fields[f], "_id") == 0)
				continue;
			appendStringInfoString(body, ", ");
			add_name(body, selection->fields[f]);
			appendStringInfoString(body, ": \"included\"");
		}
		appendStringInfoChar(body, '}');
	}
	appendStringInfoChar(body, '}');
}

static void
add_name(StringInfo body, const char *name)
{
	cvx_json_write_string(body, name, strlen(name));
}

static void
add_names(StringInfo body, const char *const *names, int nnames)
{
	appendStringInfoChar(body, '[');
	for (int i = 0; i < nnames; i++)
	{
		appendStringInfoString(body, i > 0 ? ", " : "");
		add_name(body, names[i]);
	}
	appendStringInfoChar(body, ']');
}

/* "a.b" as ["a", "b"] */
static void
add_path(StringInfo body, const char *path)
{
	appendStringInfoChar(body, '[');
	for (;;)
	{
		size_t		len = strcspn(path, ".");

		cvx_json_write_string(body, path, len);
		path += len;
		if (*path++ == '\0')
			break;
		appendStringInfoString(body, ", ");
	}
	appendStringInfoChar(body, ']');
}

/* A string of a small answer: a member, or (NULL) the answer itself. */
static char *
read_string(CvxCall *call, CvxHttp *http, const char *member)
{
	Jsonb	   *answer = cvx_api_json(call, http);
	JsonbValue	buffer;
	JsonbValue *value = NULL;

	if (member && JB_ROOT_IS_OBJECT(answer))
		value = getKeyJsonValueFromContainer(&answer->root, member,
											 strlen(member), &buffer);
	else if (!member && JB_ROOT_IS_SCALAR(answer))
		value = getIthJsonbValueFromContainer(&answer->root, 0);
	if (value == NULL || value->type != jbvString)
		cvx_api_fail(call, http, NULL);
	return pnstrdup(value->val.string.val, value->val.string.len);
}

static void
add_url_encoded(StringInfo buf, const char *text)
{
	for (const char *p = text; *p; p++)
	{
		if (isalnum((unsigned char) *p) || strchr("-_.~", *p))
			appendStringInfoChar(buf, *p);
		else
			appendStringInfo(buf, "%%%02X", (unsigned char) *p);
	}
}

/* Which answer an error of reading it is about. */
static void
answer_context(void *arg)
{
	CvxCall    *call = (CvxCall *) arg;
	const CvxAnswer *answer = cvx_http_answer(call);

	/* What jsonb cannot take is an unreadable answer, too. */
	if (ERRCODE_TO_CATEGORY(geterrcode()) == ERRCODE_DATA_EXCEPTION)
		errcode(ERRCODE_FDW_UNABLE_TO_CREATE_REPLY);
	errcontext("%s, HTTP status %d, attempts: %d", cvx_http_endpoint(call),
			   answer->status, answer->attempts);
}

/* Is the body a Convex error with this code? */
static bool
has_error_code(const CvxAnswer *answer, const char *code)
{
	CvxIncident incident = {0};

	if (answer->body_len == 0 || strstr(answer->body, code) == NULL)
		return false;
	read_error(answer, &incident);
	return incident.code != NULL && strcmp(incident.code, code) == 0;
}

/* Convex's code and message, when the body is a Convex error. */
static void
read_error(const CvxAnswer *answer, CvxIncident *incident)
{
	MemoryContext cxt = CurrentMemoryContext;

	if (answer->body_len == 0 || answer->body_len > MAX_ERROR_BODY ||
		answer->body[0] != '{')
		return;
	PG_TRY();
	{
		CvxJson		json;
		CvxText		name;
		CvxText		value;
		bool		is_first = true;

		cvx_json_begin(&json, answer->body, answer->body_len);
		cvx_json_open(&json, '{');
		for (; cvx_json_member(&json, &name, is_first); is_first = false)
		{
			if (cvx_json_peek(&json) != '"')
				cvx_json_skip(&json, NULL);
			else
			{
				cvx_json_string(&json, &value);
				if (cvx_json_equals(&name, "code", 4))
					incident->code = cvx_json_cstring(&value);
				else if (cvx_json_equals(&name, "message", 7))
					incident->message = cvx_json_cstring(&value);
			}
		}
	}
	PG_CATCH();
	{
		/* Not a Convex error: the body is shown instead. */
		MemoryContextSwitchTo(cxt);
		FlushErrorState();
	}
	PG_END_TRY();
}
