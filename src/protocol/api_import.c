/*
 * api_import.c
 *		What do the endpoints of snapshot imports take and give?
 *
 * An import does nothing before perform_import, so the outcome of its upload
 * is never in doubt: a failure has changed nothing.
 *
 * Room: protocol 2.8
 */
#include "postgres.h"

#include <ctype.h>

#include "protocol/api_answer.h"

static CvxCall *send_import_id(CvxHttp *http, const char *path,
							   const char *import_id);
static char *read_string(CvxCall *call, CvxHttp *http, const char *member);
static void add_url_encoded(StringInfo buf, const char *text);

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
	request.repeat = cvx_answer_repeat_write;
	call = cvx_http_start(http, &request);
	cvx_http_wait(call);
	part_token = read_string(call, http, NULL);
	cvx_http_free(call);
	initStringInfo(&result);
	cvx_answer_add_name(&result, part_token);
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
	cvx_answer_add_name(&body, mode);
	if (component[0] != '\0')
	{
		appendStringInfoString(&body, ", \"componentPath\": ");
		cvx_answer_add_name(&body, component);
	}
	appendStringInfoString(&body, "}, \"uploadToken\": ");
	cvx_answer_add_name(&body, token);
	appendStringInfo(&body, ", \"partTokens\": [%s]}", part_tokens);
	request.body = body.data;
	request.is_write = true;
	request.repeat = cvx_answer_repeat_write;
	call = cvx_http_start(http, &request);
	cvx_http_wait(call);
	return read_string(call, http, "importId");
}

/* Ask for the state of an import.  Does not wait. */
CvxCall *
cvx_api_query_import(CvxHttp *http, const char *import_id)
{
	CvxRequest	request = {"POST", "/api/query"};
	StringInfoData body;

	initStringInfo(&body);
	appendStringInfoString(&body, "{\"path\": \"_system/cli/queryImport\", \"args\": {\"importId\": ");
	cvx_answer_add_name(&body, import_id);
	appendStringInfoString(&body, "}, \"format\": \"json\"}");
	request.body = body.data;
	request.repeat = cvx_answer_repeat_read;
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

static CvxCall *
send_import_id(CvxHttp *http, const char *path, const char *import_id)
{
	CvxRequest	request = {"POST", path};
	StringInfoData body;

	initStringInfo(&body);
	appendStringInfoString(&body, "{\"importId\": ");
	cvx_answer_add_name(&body, import_id);
	appendStringInfoChar(&body, '}');
	request.body = body.data;
	request.repeat = cvx_answer_repeat_read;
	return cvx_http_start(http, &request);
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
