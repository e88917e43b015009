/*
 * upload.c
 *		How does a file become the documents of a table?
 *
 * Convex's snapshot import, in steps:
 *
 *	start_upload > upload_part ... > finish_upload
 *					|
 *				uploaded > waiting_for_confirmation > in_progress > completed
 *					|				|					|
 *					+---------------+-------------------+-------> failed
 *
 *	step							function
 *	parts							send_parts()
 *	follow the state				follow(), until_changed()
 *	waiting -> in progress			confirm()
 *	any -> failed, on an error		stop()
 *
 * Invariants:
 *	1. Nothing changes in Convex before perform_import is sent, and it is sent
 *	   only by who can follow the import.
 *	2. Whatever ends the statement after the upload cancels the import.  When
 *	   the import had been let begin and its end cannot be told, the error is
 *	   08007.
 *	3. Parts go one after the other and are never sent twice.
 *
 * Room: protocol 2.9
 */
#include "postgres.h"

#include "miscadmin.h"
#include "storage/latch.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "ground/compat.h"
#include "ground/redact.h"
#include "protocol/api.h"
#include "protocol/upload.h"

/* An object store wants at least this much in every part but the last. */
#define MIN_PART_BYTES	(5 * 1024 * 1024)

/* Convex counts parts with four digits. */
#define MAX_PARTS		9999

/* Pauses between looks at the state: soon at first, then seldom. */
#define FIRST_PAUSE_MS	50
#define MAX_PAUSE_MS	1000

/*
 * How long a statement that ends waits for its import to be cancelled: before
 * the confirmation nothing hangs on it, so a cancel must not be felt.
 */
#define STOP_UNCONFIRMED_MS	150
#define STOP_RUNNING_MS		3000

typedef enum ImportState
{
	IMPORT_UPLOADED,
	IMPORT_WAITING,
	IMPORT_IN_PROGRESS,
	IMPORT_COMPLETED,
	IMPORT_FAILED
} ImportState;

static const struct
{
	const char *name;
	ImportState state;
}			states[] = {
	{"uploaded", IMPORT_UPLOADED},
	{"waiting_for_confirmation", IMPORT_WAITING},
	{"in_progress", IMPORT_IN_PROGRESS},
	{"completed", IMPORT_COMPLETED},
	{"failed", IMPORT_FAILED},
};

/* What one look at an import shows. */
typedef struct Look
{
	ImportState state;
	int64		rows;			/* completed */
	char	   *text;			/* message to confirm, progress, or failure */
	int			nsteps;			/* done, in progress */
	char	  **steps;
} Look;

typedef struct Upload
{
	/* fixed at begin */
	CvxHttp    *http;
	MemoryContext cxt;			/* reset for each request */
	const char *mode;
	bool		is_atomic;		/* not append */

	/* per life */
	char	   *import_id;
	bool		is_confirmed;	/* perform_import was sent */
	bool		is_over;		/* completed, failed or cancelled */
	char	   *told;			/* the progress that was shown last */
	int			nsteps_told;
	MemoryContext told_cxt;
} Upload;

static char *send_parts(Upload *upload, const char *token, CvxZip *zip,
						int64 size);
static int64 follow(Upload *upload);
static void look(Upload *upload, Look *seen);
static void read_look(Upload *upload, CvxCall *call, Look *seen);
static void refuse_unseen(Upload *upload, const char *why);
static void confirm(Upload *upload, const Look *seen);
static void tell_progress(Upload *upload, const Look *seen);
static void tell(Upload *upload, const char *text);
static void fail_import(Upload *upload, const Look *seen);
static void await(Upload *upload, CvxCall *call);
static void pause_ms(Upload *upload, int ms);
static void serve_interrupts(Upload *upload);
static void stop(Upload *upload, const char *reason);
static bool wait_regardless(CvxHttp *http, CvxCall *call, int timeout_ms);
static JsonbValue *member(JsonbContainer *object, const char *name,
						  JsonbValue *buffer);
static char *member_text(JsonbContainer *object, const char *name);
static char *printable(const char *text);

/*
 * Send a finished ZIP file of that many bytes and see the import through: the
 * number of documents written.  The table and how it is typed stand in the
 * file.  Throws 42501 when the key may not follow imports, HV00L with Convex's
 * words when the import fails.
 */
int64
cvx_upload(CvxHttp *http, CvxZip *zip, int64 size, const char *mode,
		   const char *component)
{
	MemoryContext old = CurrentMemoryContext;
	Upload		upload = {0};
	char	   *token;
	char	   *part_tokens;
	volatile int64 rows = 0;

	upload.http = http;
	upload.mode = mode;
	upload.is_atomic = strcmp(mode, "append") != 0;
	upload.cxt = AllocSetContextCreate(old, "convex import",
									   ALLOCSET_DEFAULT_SIZES);
	upload.told_cxt = old;

	token = cvx_api_start_upload(http);
	part_tokens = send_parts(&upload, token, zip, size);
	upload.import_id = cvx_api_finish_upload(http, token, part_tokens, mode,
											 component);
	PG_TRY();
	{
		rows = follow(&upload);
	}
	PG_CATCH();
	{
		ErrorData  *error;

		MemoryContextSwitchTo(old);
		error = CopyErrorData();
		FlushErrorState();
		stop(&upload, error->message);
		ReThrowError(error);
	}
	PG_END_TRY();
	MemoryContextSwitchTo(old);
	MemoryContextDelete(upload.cxt);
	return rows;
}

/* The tokens of the parts, as the inside of a JSON array. */
static char *
send_parts(Upload *upload, const char *token, CvxZip *zip, int64 size)
{
	MemoryContext old = CurrentMemoryContext;
	size_t		part_bytes = Max(MIN_PART_BYTES, size / MAX_PARTS + 1);
	char	   *part = MemoryContextAllocHuge(old, part_bytes);
	StringInfoData tokens;
	size_t		len;

	initStringInfo(&tokens);
	for (int number = 1; (len = cvx_zip_read(zip, part, part_bytes)) > 0; number++)
	{
		char	   *part_token;

		MemoryContextReset(upload->cxt);
		MemoryContextSwitchTo(upload->cxt);
		part_token = cvx_api_upload_part(upload->http, token, number, part,
										 len);
		MemoryContextSwitchTo(old);
		appendStringInfo(&tokens, "%s%s", number > 1 ? ", " : "", part_token);
	}
	pfree(part);
	return tokens.data;
}

/* From the uploaded file to the end of the import. */
static int64
follow(Upload *upload)
{
	int			pause = FIRST_PAUSE_MS;

	for (;;)
	{
		Look		seen = {0};

		MemoryContextReset(upload->cxt);
		MemoryContextSwitchTo(upload->cxt);
		look(upload, &seen);
		switch (seen.state)
		{
			case IMPORT_UPLOADED:
				break;
			case IMPORT_WAITING:
				if (!upload->is_confirmed)
					confirm(upload, &seen);
				break;
			case IMPORT_IN_PROGRESS:
				tell_progress(upload, &seen);
				break;
			case IMPORT_COMPLETED:
				upload->is_over = true;
				tell_progress(upload, &seen);
				return seen.rows;
			case IMPORT_FAILED:
				upload->is_over = true;
				fail_import(upload, &seen);
		}
		pause_ms(upload, pause);
		pause = Min(pause * 2, MAX_PAUSE_MS);
	}
}

/* Ask for the state; throws what keeps us from knowing it. */
static void
look(Upload *upload, Look *seen)
{
	CvxCall    *call = cvx_api_query_import(upload->http, upload->import_id);
	const CvxAnswer *answer;
	Jsonb	   *root;
	char	   *status;

	await(upload, call);
	answer = cvx_http_answer(call);
	if (answer->status == 403)
		refuse_unseen(upload, "The server answered with HTTP status 403.");

	/* A function's failure comes with status 200 or 560. */
	if (answer->status == 560)
		refuse_unseen(upload, printable(answer->body));
	root = cvx_api_json(call, upload->http);
	status = JB_ROOT_IS_OBJECT(root) ? member_text(&root->root, "status") : NULL;
	if (status != NULL && strcmp(status, "error") == 0)
	{
		char	   *why = member_text(&root->root, "errorMessage");

		refuse_unseen(upload, printable(why ? why : "No reason was given."));
	}
	read_look(upload, call, seen);
}

static void
read_look(Upload *upload, CvxCall *call, Look *seen)
{
	Jsonb	   *root = cvx_api_json(call, upload->http);
	JsonbValue	buffers[3];
	JsonbValue *value = member(&root->root, "value", &buffers[0]);
	JsonbContainer *state;
	char	   *name;
	JsonbValue *steps;
	int			n = 0;

	value = value && value->type == jbvBinary ?
		member(value->val.binary.data, "state", &buffers[1]) : NULL;
	state = value && value->type == jbvBinary ? value->val.binary.data : NULL;
	name = state ? member_text(state, "state") : NULL;
	while (name && n < lengthof(states) && strcmp(states[n].name, name) != 0)
		n++;
	if (name == NULL || n == lengthof(states))
		cvx_api_fail(call, upload->http, NULL);
	seen->state = states[n].state;
	switch (seen->state)
	{
		case IMPORT_UPLOADED:
			break;
		case IMPORT_WAITING:
			seen->text = member_text(state, "message_to_confirm");
			break;
		case IMPORT_COMPLETED:
			name = member_text(state, "num_rows_written");
			if (name == NULL)
				cvx_api_fail(call, upload->http, NULL);
			seen->rows = DatumGetInt64(DirectFunctionCall1(int8in,
														   CStringGetDatum(name)));
			break;
		case IMPORT_FAILED:
			seen->text = member_text(state, "error_message");
			break;
		case IMPORT_IN_PROGRESS:
			seen->text = member_text(state, "progress_message");
			steps = member(state, "checkpoint_messages", &buffers[2]);
			if (steps == NULL || steps->type != jbvBinary ||
				!JsonContainerIsArray(steps->val.binary.data))
				break;
			seen->steps = palloc(sizeof(char *) *
								 (JsonContainerSize(steps->val.binary.data) + 1));
			for (uint32 i = 0; i < JsonContainerSize(steps->val.binary.data); i++)
			{
				JsonbValue *step = getIthJsonbValueFromContainer(steps->val.binary.data, i);

				if (step->type == jbvString)
					seen->steps[seen->nsteps++] =
						pnstrdup(step->val.string.val, step->val.string.len);
			}
			break;
	}
}

/* The import was not begun and never will be. */
static void
refuse_unseen(Upload *upload, const char *why)
{
	if (!upload->is_confirmed)
	{
		cvx_api_expect_success(cvx_api_cancel_import(upload->http,
													 upload->import_id),
							   upload->http);
		upload->is_over = true;
	}
	ereport(ERROR,
			(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
			 errmsg("Convex server \"%s\" does not show the state of the import, so it was cancelled",
					cvx_http_remote(upload->http)->server_name),
			 errdetail("%s", why),
			 errhint("Use a deploy key that also allows deployment:backups:view.")));
}

static void
confirm(Upload *upload, const Look *seen)
{
	CvxCall    *call;

	if (seen->text && seen->text[0] != '\0')
		ereport(NOTICE,
				(errmsg("%s", printable(seen->text))));
	upload->is_confirmed = true;
	call = cvx_api_perform_import(upload->http, upload->import_id);
	await(upload, call);
	cvx_api_expect_success(call, upload->http);
}

/* Each step and each other message once. */
static void
tell_progress(Upload *upload, const Look *seen)
{
	for (; upload->nsteps_told < seen->nsteps; upload->nsteps_told++)
		tell(upload, seen->steps[upload->nsteps_told]);
	if (seen->text != NULL)
		tell(upload, seen->text);
}

/* What has just been done is a step and, for a while, the state as well. */
static void
tell(Upload *upload, const char *text)
{
	if (upload->told && strcmp(upload->told, text) == 0)
		return;
	ereport(NOTICE,
			(errmsg("%s", printable(text))));
	upload->told = MemoryContextStrdup(upload->told_cxt, text);
}

static void
fail_import(Upload *upload, const Look *seen)
{
	ereport(ERROR,
			(errcode(ERRCODE_FDW_UNABLE_TO_CREATE_EXECUTION),
			 errmsg("the import into Convex server \"%s\" failed",
					cvx_http_remote(upload->http)->server_name),
			 errdetail("%s", printable(seen->text ? seen->text :
									   "Convex gives no reason.")),
			 upload->is_atomic ? errhint("Nothing was changed in Convex.") :
			 errhint("In mode append, documents that were written before the failure stay in Convex.")));
}

/* ------------------------------------------------------------------------
 * Waiting, and the end of waiting
 * ------------------------------------------------------------------------
 */

static void
await(Upload *upload, CvxCall *call)
{
	while (!cvx_http_wait_quietly(call, 0))
		serve_interrupts(upload);
}

static void
pause_ms(Upload *upload, int ms)
{
	int			rc = WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT |
							   WL_EXIT_ON_PM_DEATH, ms, CVX_WAIT_EVENT);

	if (rc & WL_LATCH_SET)
		ResetLatch(MyLatch);
	serve_interrupts(upload);
}

/*
 * A cancel is thrown and comes back to cvx_upload(); a termination would not,
 * so the import is stopped before it is obeyed.
 */
static void
serve_interrupts(Upload *upload)
{
	if (ProcDiePending)
		stop(upload, "terminating connection due to administrator command");
	CHECK_FOR_INTERRUPTS();
}

/*
 * Cancel the import because the statement ends, for that reason.  Throws 08007
 * when the import may go on or has been completed all the same.
 */
static void
stop(Upload *upload, const char *reason)
{
	int			timeout_ms = upload->is_confirmed ? STOP_RUNNING_MS :
		STOP_UNCONFIRMED_MS;
	const char *server = cvx_http_remote(upload->http)->server_name;
	CvxCall    *call;
	Look		seen = {IMPORT_IN_PROGRESS};

	if (upload->is_over)
		return;
	upload->is_over = true;
	call = cvx_api_cancel_import(upload->http, upload->import_id);
	if (wait_regardless(upload->http, call, timeout_ms) &&
		cvx_http_answer(call)->status == 200)
		seen.state = IMPORT_FAILED;
	else if (cvx_http_poll(call) &&
			 cvx_api_has_code(call, 400, "CannotCancelImport"))
	{
		/* It has ended by itself: how? */
		call = cvx_api_query_import(upload->http, upload->import_id);
		if (wait_regardless(upload->http, call, timeout_ms) &&
			cvx_http_answer(call)->status == 200)
			read_look(upload, call, &seen);
	}
	if (!upload->is_confirmed)
		return;
	switch (seen.state)
	{
		case IMPORT_FAILED:
			if (!upload->is_atomic)
				ereport(WARNING,
						(errmsg("the import into Convex server \"%s\" was cancelled in mode append: documents that it has written stay",
								server)));
			return;
		case IMPORT_COMPLETED:
			ereport(ERROR,
					(errcode(ERRCODE_TRANSACTION_RESOLUTION_UNKNOWN),
					 errmsg("the import into Convex server \"%s\" was completed although the statement ended",
							server),
					 errdetail("The statement ended with: %s.  " INT64_FORMAT " documents were written.",
							   reason, seen.rows),
					 errhint("Nothing needs to be repeated.")));
			break;
		default:
			ereport(ERROR,
					(errcode(ERRCODE_TRANSACTION_RESOLUTION_UNKNOWN),
					 errmsg("it is unknown whether the import into Convex server \"%s\" goes on",
							server),
					 errdetail("The statement ended with: %s.  The import is \"%s\".",
							   reason, printable(upload->import_id)),
					 errhint("Look for the import on the page of snapshot imports of the Convex dashboard.")));
	}
}

/* Wait for an answer whatever interrupts are pending; false: none came. */
static bool
wait_regardless(CvxHttp *http, CvxCall *call, int timeout_ms)
{
	TimestampTz end = TimestampTzPlusMilliseconds(GetCurrentTimestamp(),
												  timeout_ms);

	while (!cvx_http_poll(call))
	{
		long		left = TimestampDifferenceMilliseconds(GetCurrentTimestamp(),
														   end);
		int			fd = cvx_http_wait_fd(http);
		int			rc;

		if (left <= 0)
			return false;
		rc = WaitLatchOrSocket(MyLatch, WL_LATCH_SET | WL_TIMEOUT |
							   WL_EXIT_ON_PM_DEATH |
							   (fd >= 0 ? WL_SOCKET_READABLE : 0),
							   fd >= 0 ? fd : PGINVALID_SOCKET,
							   Min(left, 20), CVX_WAIT_EVENT);
		if (rc & WL_LATCH_SET)
			ResetLatch(MyLatch);
	}
	return true;
}

/* ------------------------------------------------------------------------
 * Reading the answer
 * ------------------------------------------------------------------------
 */

static JsonbValue *
member(JsonbContainer *object, const char *name, JsonbValue *buffer)
{
	return JsonContainerIsObject(object) ?
		getKeyJsonValueFromContainer(object, name, strlen(name), buffer) : NULL;
}

/* A string, or an int64 that came as a number, as text; NULL when absent. */
static char *
member_text(JsonbContainer *object, const char *name)
{
	JsonbValue	buffer;
	JsonbValue *value = member(object, name, &buffer);

	if (value && value->type == jbvString)
		return pnstrdup(value->val.string.val, value->val.string.len);
	if (value && value->type == jbvNumeric)
		return DatumGetCString(DirectFunctionCall1(numeric_out,
												   NumericGetDatum(value->val.numeric)));
	return NULL;
}

/* Convex's words line by line, each short, without the key. */
static char *
printable(const char *text)
{
	StringInfoData buf;

	initStringInfo(&buf);
	for (;;)
	{
		size_t		len = strcspn(text, "\n");

		appendStringInfoString(&buf, cvx_redact_excerpt(text, len));
		text += len;
		if (*text++ == '\0')
			break;
		appendStringInfoChar(&buf, '\n');
	}
	return buf.data;
}
