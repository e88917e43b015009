/*
 * api_read.c
 *		What do the endpoints take and give that read?
 *
 * All values travel in the format convex_encoded_json, which is exact and
 * describes itself.
 *
 * Room: protocol 2.6
 */
#include "postgres.h"

#include "common/base64.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/timestamp.h"

#include "ground/compat.h"
#include "protocol/api_answer.h"
#include "protocol/schema_read.h"

/* How long an answer that can be done without is waited for. */
#define LOOK_MS		10000

/* No deployment forgets what is younger. */
#define OLD_SNAPSHOT_NS	(INT64CONST(3600) * 1000000000)

static int64 read_query_ts(CvxCall *call, CvxHttp *http);
static List *read_names(CvxCall *call, CvxHttp *http,
						const CvxTableName *only);
static void add_selection(StringInfo body, const CvxSelection *selection);
static void add_tables(StringInfo body, const CvxSelection *selection,
					   const char *component);

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
	request.repeat = cvx_answer_repeat_walk;
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
	request.repeat = cvx_answer_repeat_read;
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
	ErrorContextCallback callback = {error_context_stack, cvx_answer_context, call};
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
					   cvx_http_answer(call)->body_len > CVX_MAX_JSONB_BODY))
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
		cvx_http_answer(call)->body_len > CVX_MAX_JSONB_BODY)
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
	ErrorContextCallback callback = {error_context_stack, cvx_answer_context};
	CvxRequest	request = {"POST", "/api/query",
	.repeat = cvx_answer_repeat_unconnected};
	StringInfoData body;
	CvxCall    *call;
	const CvxAnswer *answer;
	CvxJson		json;
	char	   *text = NULL;

	initStringInfo(&body);
	appendStringInfoString(&body, "{\"path\": \"_system/frontend/paginatedTableDocuments\", \"args\": {\"table\": ");
	cvx_answer_add_name(&body, table);
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
	cvx_answer_fill_incident(&incident, call, http,
							 psprintf("Snapshot " INT64_FORMAT " was asked for; the server answers at its head, " INT64_FORMAT ".",
									  snapshot, head));
	incident.is_lost = true;
	cvx_error_http(&incident);
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

static List *
read_names(CvxCall *call, CvxHttp *http, const CvxTableName *only)
{
	ErrorContextCallback callback = {error_context_stack, cvx_answer_context, call};
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
			cvx_answer_add_name(body, selection->tables[0].table);
			appendStringInfoString(body, ", ");
		}
		if (selection->tables[0].component[0] != '\0')
		{
			appendStringInfoString(body, "\"component\": ");
			cvx_answer_add_name(body, selection->tables[0].component);
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
	cvx_answer_add_name(body, component);
	appendStringInfo(body, ": {\"_other\": \"%s\"",
					 is_all ? "included" : "excluded");
	for (int i = 0; i < selection->ntables; i++)
	{
		if (is_all || strcmp(selection->tables[i].component, component) != 0)
			continue;
		appendStringInfoString(body, ", ");
		cvx_answer_add_name(body, selection->tables[i].table);
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
			cvx_answer_add_name(body, selection->fields[f]);
			appendStringInfoString(body, ": \"included\"");
		}
		appendStringInfoChar(body, '}');
	}
	appendStringInfoChar(body, '}');
}
