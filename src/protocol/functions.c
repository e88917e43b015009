/*
 * functions.c
 *		What does a function of Convex answer?
 *
 * Convex's dashboard reads through functions that every deployment has
 * ("_system/..").  They are no published interface: whatever is wrong with an
 * answer is a verdict here, not an error, and the caller reads in another way.
 * Failures of a function come as HTTP 200 (or 560) with prose.
 *
 * Room: protocol 2.12
 */
#include "postgres.h"

#include "common/base64.h"

#include "ground/compat.h"
#include "ground/redact.h"
#include "protocol/api_answer.h"
#include "protocol/functions.h"

/* The server's own bound on messages is 64 KiB; the first words say it. */
#define MAX_PROBLEM	200

/* What an error text means.  The first that it contains decides. */
static const struct
{
	const char *words;
	CvxVerdict	verdict;
}			verdicts[] = {
	{"do not have permission", CVX_VERDICT_NEVER},
	{"not permitted", CVX_VERDICT_NEVER},
	{"find system module", CVX_VERDICT_NEVER},
	{"Couldn't find", CVX_VERDICT_NEVER},
	{"Could not find", CVX_VERDICT_NEVER},
	{"Object is missing", CVX_VERDICT_NEVER},
	{"Object contains extra", CVX_VERDICT_NEVER},
	{"does not match validator", CVX_VERDICT_NEVER},
	{"Too many", CVX_VERDICT_TOO_MUCH},
	{"is too large", CVX_VERDICT_TOO_MUCH},
	{"is too long", CVX_VERDICT_TOO_MUCH},
};

static bool read_page(const CvxFunctionAnswer *answer, int64 ts,
					  const CvxPageWant *want, CvxFunctionPage *page);
static CvxRepeat repeat_question(const CvxAnswer *answer);
static char *encode_ts(int64 ts);
static void read_answer(CvxFunctionAnswer *answer, const CvxAnswer *http);
static void refuse(CvxFunctionAnswer *answer, CvxText *message);

/*
 * Run a query function of the root component at a timestamp, and wait for its
 * answer; args is a JSON object.  Throws what ends the statement, and nothing
 * about the answer.
 */
CvxFunctionAnswer
cvx_function_query_at(CvxHttp *http, CvxHttpStats *stats, const char *path,
					  const char *args, int64 ts)
{
	CvxRequest	request = {"POST", "/api/query_at_ts"};
	CvxFunctionAnswer answer = {CVX_VERDICT_NOT_NOW};
	MemoryContext cxt = CurrentMemoryContext;
	StringInfoData body;
	CvxCall    *call;

	initStringInfo(&body);
	appendStringInfo(&body, "{\"path\":\"%s\",\"ts\":\"%s\",\"format\":\"convex_encoded_json\",\"args\":%s}",
					 path, encode_ts(ts), args);
	request.body = body.data;
	request.repeat = repeat_question;
	request.stats = stats;
	call = cvx_http_start(http, &request);
	cvx_http_wait(call);

	/* Only reading: nothing has to be undone. */
	PG_TRY();
	{
		read_answer(&answer, cvx_http_answer(call));
	}
	PG_CATCH();
	{
		if (geterrcode() != ERRCODE_FDW_UNABLE_TO_CREATE_REPLY)
			PG_RE_THROW();
		MemoryContextSwitchTo(cxt);
		FlushErrorState();
		answer = (CvxFunctionAnswer) {
			CVX_VERDICT_NEVER,.problem = "the answer is not that of a function"
		};
	}
	PG_END_TRY();
	return answer;
}

/*
 * The documents of a good answer that is a list of documents and nulls, as
 * cvx_page_of_documents() gives them; NULL when it is something else.
 */
CvxPage *
cvx_function_documents(const CvxFunctionAnswer *answer, int64 ts,
					   const CvxPageWant *want, int *nelements)
{
	MemoryContext cxt = CurrentMemoryContext;
	CvxPage    *volatile page = NULL;

	if (answer->value.data[0] != '[')
		return NULL;
	PG_TRY();
	{
		page = cvx_page_of_documents(answer->body, &answer->value, ts, want,
									 nelements);
	}
	PG_CATCH();
	{
		if (geterrcode() != ERRCODE_FDW_UNABLE_TO_CREATE_REPLY)
			PG_RE_THROW();
		MemoryContextSwitchTo(cxt);
		FlushErrorState();
	}
	PG_END_TRY();
	return page;
}

/* A value that is a plain number; false when it is anything else. */
bool
cvx_function_number(const char *json, size_t len, double *number)
{
	return len > 0 && (json[0] == '-' || (json[0] >= '0' && json[0] <= '9')) &&
		cvx_json_number(json, len, number);
}

/*
 * The page of a good answer that is one of documents: {"page": [..], "isDone":
 * .., "continueCursor": ..}.  False when it is something else.
 */
bool
cvx_function_page(const CvxFunctionAnswer *answer, int64 ts,
				  const CvxPageWant *want, CvxFunctionPage *page)
{
	MemoryContext cxt = CurrentMemoryContext;
	volatile bool is_good = false;

	PG_TRY();
	{
		is_good = read_page(answer, ts, want, page);
	}
	PG_CATCH();
	{
		if (geterrcode() != ERRCODE_FDW_UNABLE_TO_CREATE_REPLY)
			PG_RE_THROW();
		MemoryContextSwitchTo(cxt);
		FlushErrorState();
	}
	PG_END_TRY();
	return is_good;
}

static bool
read_page(const CvxFunctionAnswer *answer, int64 ts, const CvxPageWant *want,
		  CvxFunctionPage *page)
{
	CvxJson		json;
	CvxText		name;
	CvxText		value;
	CvxText		list = {0};
	bool		has_end = false;
	int			nelements;

	memset(page, 0, sizeof(CvxFunctionPage));
	cvx_json_within(&json, answer->value.data, answer->value.len);
	cvx_json_open(&json, '{');
	for (bool is_first = true; cvx_json_member(&json, &name, is_first); is_first = false)
	{
		if (cvx_json_equals(&name, "isDone", 6))
		{
			page->is_done = cvx_json_bool(&json);
			has_end = true;
		}
		else if (cvx_json_equals(&name, "continueCursor", 14) && cvx_json_peek(&json) == '"')
		{
			cvx_json_string(&json, &value);
			page->cursor = cvx_json_cstring(&value);
		}
		else
		{
			cvx_json_skip(&json, &value);
			if (cvx_json_equals(&name, "page", 4))
				list = value;
		}
	}
	if (!has_end || list.len == 0)
		return false;
	page->page = cvx_page_of_documents(answer->body, &list, ts, want, &nelements);
	return nelements == page->page->ndocs;
}

/*
 * Trouble is not waited out: there is another way to read, which repeats its
 * requests.  That all slots of functions are taken passes soon.
 */
static CvxRepeat
repeat_question(const CvxAnswer *answer)
{
	return answer->transport == CVX_TRANSPORT_OK && answer->status == 429 ?
		CVX_REPEAT_YES : CVX_REPEAT_NO;
}

/* As query_ts gives it: 8 bytes, little-endian, in base64. */
static char *
encode_ts(int64 ts)
{
	uint8		bytes[8];
	char	   *text = palloc(pg_b64_enc_len(sizeof(bytes)) + 1);
	int			len;

	for (int i = 0; i < 8; i++)
		bytes[i] = (uint8) ((uint64) ts >> (8 * i));
	len = pg_b64_encode((const void *) bytes, sizeof(bytes), text, pg_b64_enc_len(sizeof(bytes)));
	text[len] = '\0';
	return text;
}

/* Throws HV00M when it is no JSON object. */
static void
read_answer(CvxFunctionAnswer *answer, const CvxAnswer *http)
{
	CvxJson		json;
	CvxText		name;
	CvxText		value;
	CvxText		status = {0};
	CvxText		message = {0};

	if (http->transport != CVX_TRANSPORT_OK || (http->status != 200 && http->status != 560))
	{
		answer->verdict = http->status == 404 || http->status == 405 ?
			CVX_VERDICT_NEVER : CVX_VERDICT_NOT_NOW;
		answer->problem = http->transport != CVX_TRANSPORT_OK ? "no answer" :
			psprintf("HTTP status %d", http->status);
		return;
	}
	cvx_json_begin(&json, http->body ? http->body : "", http->body_len);
	cvx_json_check_utf8(&json);
	cvx_json_open(&json, '{');
	for (bool is_first = true; cvx_json_member(&json, &name, is_first); is_first = false)
	{
		cvx_json_skip(&json, &value);
		if (cvx_json_equals(&name, "status", 6))
			status = value;
		else if (cvx_json_equals(&name, "value", 5))
			answer->value = value;
		else if (cvx_json_equals(&name, "errorMessage", 12))
			message = value;
	}
	cvx_json_end(&json);
	answer->body = http->body;
	answer->nbytes = http->body_len;
	if (status.len == 7 && memcmp(status.data, "\"error\"", 7) == 0)
		refuse(answer, &message);
	else if (status.len == 9 && memcmp(status.data, "\"success\"", 9) == 0 &&
			 answer->value.len > 0)
		answer->verdict = CVX_VERDICT_GOOD;
	else
		cvx_json_fail(&json, "an answer without status or value");
}

/* The function has failed, for a reason in prose. */
static void
refuse(CvxFunctionAnswer *answer, CvxText *message)
{
	char	   *text = message->len > 2 && message->data[0] == '"' ?
		pnstrdup(message->data + 1, message->len - 2) : pstrdup("no message");
	const char *uncaught = strstr(text, "Uncaught ");

	answer->verdict = CVX_VERDICT_NOT_NOW;
	for (int i = 0; i < lengthof(verdicts); i++)
		if (strstr(text, verdicts[i].words))
		{
			answer->verdict = verdicts[i].verdict;
			break;
		}
	if (uncaught)
		text = pstrdup(uncaught);
	text[Min(strcspn(text, "\\"), MAX_PROBLEM)] = '\0';
	answer->problem = cvx_redact_message(text);
}
