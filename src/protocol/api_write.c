/*
 * api_write.c
 *		What do the endpoints of streaming imports take and give?
 *
 * Rows, indexes, and what is no longer there.
 *
 * Room: protocol 2.7
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/timeout.h"

#include "protocol/api_answer.h"

static CvxCall *start_write(CvxHttp *http, const char *method, const char *path,
							const char *body);
static void add_names(StringInfo body, const char *const *names, int nnames);
static void add_path(StringInfo body, const char *path);

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
	.is_write = true,.repeat = cvx_answer_repeat_keyed_write};

	return cvx_http_start(http, &request);
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
		cvx_answer_fill_incident(&incident, call, http, more);
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
		cvx_answer_add_name(&body, tables[i]);
		appendStringInfoString(&body, ": ");
		cvx_answer_add_name(&body, tables[i]);
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
	cvx_answer_add_name(&body, table);
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
	cvx_answer_add_name(&body, table);
	appendStringInfoString(&body, ", \"documentType\": null, \"indexes\": [{\"indexDescriptor\": \"_fivetran_by_primary_key\", \"fields\": [");
	foreach(lc, paths)
	{
		if (lc != list_head(paths))
			appendStringInfoString(&body, ", ");
		cvx_answer_add_name(&body, lfirst(lc));
	}
	appendStringInfoString(&body, "]}]}}");
	request.body = body.data;
	request.repeat = cvx_answer_repeat_walk;
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
	cvx_answer_add_name(&body, table);
	appendStringInfo(&body, ", \"operation\": \"Update\", \"row\": %s}]", row);
	return cvx_api_ask(http, "POST",
					   "/api/streaming_import/apply_fivetran_operations",
					   body.data);
}

static CvxCall *
start_write(CvxHttp *http, const char *method, const char *path,
			const char *body)
{
	CvxRequest	request = {method, path, body,.is_write = true,
	.repeat = cvx_answer_repeat_write};

	return cvx_http_start(http, &request);
}

static void
add_names(StringInfo body, const char *const *names, int nnames)
{
	appendStringInfoChar(body, '[');
	for (int i = 0; i < nnames; i++)
	{
		appendStringInfoString(body, i > 0 ? ", " : "");
		cvx_answer_add_name(body, names[i]);
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
