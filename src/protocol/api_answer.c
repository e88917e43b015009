/*
 * api_answer.c
 *		What does an answer say; may its request be sent again?
 *
 * The one place that knows which answers allow to send the same request again.
 *
 * Room: protocol 2.5
 */
#include "postgres.h"

#include "mb/pg_wchar.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"

#include "ground/redact.h"
#include "protocol/api_answer.h"

/* Bodies of errors are small; a larger one is not searched for codes. */
#define MAX_ERROR_BODY	65536

/* Another transaction has committed what this one had read. */
#define CONFLICT_CODE	"OptimisticConcurrencyControlFailure"

static bool is_conflict(const CvxAnswer *answer);
static Datum read_jsonb(char *text);
static bool has_error_code(const CvxAnswer *answer, const char *code);
static void read_error(const CvxAnswer *answer, CvxIncident *incident);

/* Was a call refused with this status and Convex code? */
bool
cvx_api_has_code(CvxCall *call, int status, const char *code)
{
	const CvxAnswer *answer = cvx_http_answer(call);

	return answer->status == status && has_error_code(answer, code);
}

/* Was a write turned away because of another one, with nothing applied? */
bool
cvx_api_is_conflict(CvxCall *call)
{
	return cvx_api_has_code(call, 503, CONFLICT_CODE);
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

/* Wait for an answer without a body that matters; throws what else it is. */
void
cvx_api_expect_success(CvxCall *call, CvxHttp *http)
{
	cvx_http_wait(call);
	if (cvx_http_answer(call)->status != 200)
		cvx_api_fail(call, http, NULL);
}

/*
 * Send a small question that may be repeated and wait for whatever answer.
 */
CvxCall *
cvx_api_ask(CvxHttp *http, const char *method, const char *path,
			const char *body)
{
	CvxRequest	request = {method, path, body,.repeat = cvx_answer_repeat_read};
	CvxCall    *call = cvx_http_start(http, &request);

	cvx_http_wait(call);
	return call;
}

/* A small answer as jsonb, in the current context.  Throws like a page. */
Jsonb *
cvx_api_json(CvxCall *call, CvxHttp *http)
{
	ErrorContextCallback callback = {error_context_stack, cvx_answer_context, call};
	const CvxAnswer *answer = cvx_http_answer(call);
	CvxJson		json;
	Datum		result;

	if (answer->status != 200 || answer->body_len == 0 ||
		strchr("{[n\"tf-0123456789",
			   answer->body[strspn(answer->body, " \n\r\t")]) == NULL)
		cvx_api_fail(call, http, NULL);
	if (answer->body_len > CVX_MAX_JSONB_BODY)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("answer of Convex server \"%s\" is too long: %zu bytes",
						cvx_http_remote(http)->server_name, answer->body_len),
				 errdetail("%s may answer with %d bytes.",
						   cvx_http_endpoint(call), CVX_MAX_JSONB_BODY)));

	/* Our own reader first: jsonb would recurse into hostile nesting. */
	error_context_stack = &callback;
	cvx_json_begin(&json, answer->body, answer->body_len);
	cvx_json_check_utf8(&json);
	cvx_json_skip(&json, NULL);
	cvx_json_end(&json);
	result = read_jsonb(pg_any_to_server(answer->body, answer->body_len, PG_UTF8));
	error_context_stack = callback.previous;
	return DatumGetJsonbP(result);
}

/*
 * Report the answer of a call as the failure that it is; more may be a further
 * sentence of detail, or NULL.
 */
void
cvx_api_fail(CvxCall *call, CvxHttp *http, const char *more)
{
	CvxIncident incident = {0};

	cvx_answer_fill_incident(&incident, call, http, more);
	if (incident.transport != CVX_TRANSPORT_OK)
		cvx_error_transport(&incident);
	cvx_error_http(&incident);
}

/*
 * Writes are repeated when it is certain that nothing was applied: nothing was
 * sent, or the server says so.
 */
CvxRepeat
cvx_answer_repeat_write(const CvxAnswer *answer)
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

/* The same for a write by key, whose conflicts the caller looks into. */
CvxRepeat
cvx_answer_repeat_keyed_write(const CvxAnswer *answer)
{
	if (answer->transport == CVX_TRANSPORT_OK && answer->status == 503 &&
		has_error_code(answer, CONFLICT_CODE))
		return CVX_REPEAT_NO;
	return cvx_answer_repeat_write(answer);
}

/* What a failed call has to tell, in the current context. */
void
cvx_answer_fill_incident(CvxIncident *incident, CvxCall *call,
						 CvxHttp *http, const char *more)
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
CvxRepeat
cvx_answer_repeat_unconnected(const CvxAnswer *answer)
{
	return answer->transport == CVX_TRANSPORT_NO_CONNECTION ?
		CVX_REPEAT_YES : CVX_REPEAT_NO;
}

/* Requests that change nothing. */
CvxRepeat
cvx_answer_repeat_read(const CvxAnswer *answer)
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
CvxRepeat
cvx_answer_repeat_walk(const CvxAnswer *answer)
{
	if (answer->transport == CVX_TRANSPORT_TIMED_OUT ||
		(answer->transport == CVX_TRANSPORT_OK && answer->status == 408))
		return CVX_REPEAT_FREE;
	return cvx_answer_repeat_read(answer);
}

/* Append a name as a JSON string. */
void
cvx_answer_add_name(StringInfo body, const char *name)
{
	cvx_json_write_string(body, name, strlen(name));
}

/* Which answer an error of reading it is about. */
void
cvx_answer_context(void *arg)
{
	CvxCall    *call = (CvxCall *) arg;
	const CvxAnswer *answer = cvx_http_answer(call);

	/* What jsonb cannot take is an unreadable answer, too. */
	if (ERRCODE_TO_CATEGORY(geterrcode()) == ERRCODE_DATA_EXCEPTION)
		errcode(ERRCODE_FDW_UNABLE_TO_CREATE_REPLY);
	errcontext("%s, HTTP status %d, attempts: %d", cvx_http_endpoint(call),
			   answer->status, answer->attempts);
}

/* Did the server's committer turn the transaction away? */
static bool
is_conflict(const CvxAnswer *answer)
{
	return has_error_code(answer, CONFLICT_CODE) ||
		has_error_code(answer, "CommitterFullError");
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
