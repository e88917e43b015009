/*
 * sub_failure.c
 *		What becomes of a failure?
 *
 * A step that failed leaves its class, SQLSTATE and message in the catalog,
 * with the time of the next attempt; each class has a pace of its own.  What
 * is new about it becomes an event and a line of the server's log, and so
 * does its end.  What a failure is says error.c; what a table does whose
 * target refuses rows is sub_catalog.c's.
 *
 * Room: subscription 5.10
 */
#include "postgres.h"

#include <math.h>

#include "common/hashfn.h"
#include "executor/spi.h"
#include "lib/stringinfo.h"
#include "utils/builtins.h"

#include "ground/compat.h"
#include "ground/redact.h"
#include "wire/address.h"
#include "subscription/sub_catalog.h"
#include "subscription/sub_events.h"
#include "subscription/sub_failure.h"

/*
 * The pause before the first new attempt, and the longest one; it doubles in
 * between, and each is between three and five quarters of that.
 */
typedef struct Pace
{
	const char *name;			/* as the view shows it */
	int			first_ms;
	int			longest_ms;
} Pace;

/*
 * What a person must mend is asked for rarely, because a change of the server,
 * the user mapping or the key's file ends the pause anyway.
 */
static const Pace paces[] = {
	[CVX_CLASS_LOCAL] = {"local", 1000, 300000},
	[CVX_CLASS_CONFIG] = {"config", 30000, 300000},
	[CVX_CLASS_AUTH] = {"auth", 60000, 600000},
	[CVX_CLASS_PLAN] = {"plan", 300000, 3600000},
	[CVX_CLASS_RETENTION] = {"retention", 1000, 60000},
	[CVX_CLASS_PAUSED] = {"paused", 60000, 300000},
	[CVX_CLASS_OVERLOAD] = {"overload", 2000, 300000},
	[CVX_CLASS_NETWORK] = {"network", 500, 60000},
	[CVX_CLASS_PROTOCOL] = {"protocol", 30000, 600000},
};

static int64 pause_ms(const Pace *pace, int nth, int retry_after_s);
static const char *with_hint(const ErrorData *error);
static void tell(const char *name, const Pace *pace, const ErrorData *error);

/*
 * Leave a failure in the catalog, within the caller's transaction.  Gives when
 * to try again.
 */
TimestampTz
cvx_failure_record(int32 subid, const ErrorData *error)
{
	int			retry_after_s;
	const Pace *pace = &paces[cvx_error_class(error, &retry_after_s)];
	const char *state = unpack_sql_state(error->sqlerrcode);
	const char *name;
	const char *message;
	int			failures;
	int64		pause;
	bool		is_known;

	error = cvx_redact_error(error);
	message = with_hint(error);
	cvx_catalog_run(SPI_OK_SELECT,
					"SELECT s.name::text, CASE WHEN st.last_error_class = $2 THEN st.failures ELSE 0 END,"
					" st.failures > 0 AND st.last_error_class = $2 AND st.last_error_code = $3 AND st.last_error_message = $4"
					" FROM @.convex_subscription AS s JOIN @.convex_subscription_state AS st USING (subid)"
					" WHERE s.subid = $1 FOR UPDATE OF st", "ittt", subid,
					pace->name, state, message);
	if (SPI_processed != 1)
		return GetCurrentTimestamp();
	name = cvx_catalog_text(0, 1);
	failures = (int) cvx_catalog_int64(0, 2);
	is_known = cvx_catalog_bool(0, 3);
	pause = pause_ms(pace, failures, retry_after_s);
	cvx_catalog_run(SPI_OK_UPDATE,
					"UPDATE @.convex_subscription_state SET failures = $2, caught_up = false,"
					" failing_since = coalesce(failing_since, clock_timestamp()),"
					" last_error_class = $3, last_error_code = $4, last_error_message = $5,"
					" last_error_at = clock_timestamp(),"
					" next_attempt_at = clock_timestamp() + $6 * interval '1 ms' WHERE subid = $1",
					"iitttl", subid, failures + 1, pace->name, state,
					message, pause);
	if (!is_known)
	{
		cvx_catalog_event(subid, "error", NULL,
						  psprintf("%s, %s: %s", pace->name, state,
								   message));
		tell(name, pace, error);
	}
	return TimestampTzPlusMilliseconds(GetCurrentTimestamp(), pause);
}

/*
 * Leave a loss of what Convex kept in the catalog: the caller loads again at
 * once, so that nothing waits.
 */
void
cvx_failure_note_loss(const CvxSubscription *sub, const char *what)
{
	cvx_catalog_run(SPI_OK_UPDATE,
					"UPDATE @.convex_subscription_state SET last_error_class = $2, last_error_code = $3,"
					" last_error_message = $4, last_error_at = clock_timestamp() WHERE subid = $1",
					"ittt", sub->subid, paces[CVX_CLASS_RETENTION].name,
					unpack_sql_state(ERRCODE_FDW_UNABLE_TO_CREATE_EXECUTION),
					what);
	ereport(LOG,
			(errmsg("subscription \"%s\" loads again: %s", sub->name, what),
			 errhidestmt(true), errhidecontext(true)));
}

/* It is tried again at once, as if it had not failed before. */
void
cvx_failure_forget(const CvxSubscription *sub)
{
	cvx_catalog_run(SPI_OK_UPDATE,
					"UPDATE @.convex_subscription_state SET failures = 0, next_attempt_at = NULL WHERE subid = $1",
					"i", sub->subid);
}

/* What failed works again; within the caller's transaction. */
void
cvx_failure_end(const CvxSubscription *sub)
{
	char	   *what;

	cvx_catalog_run(SPI_OK_SELECT,
					"SELECT format('%s, since %s', last_error_class, failing_since)"
					" FROM @.convex_subscription_state WHERE subid = $1 AND failing_since IS NOT NULL",
					"i", sub->subid);
	what = SPI_processed == 1 ? cvx_catalog_text(0, 1) : NULL;
	cvx_catalog_run(0,
					"UPDATE @.convex_subscription_state SET failures = 0, next_attempt_at = NULL, failing_since = NULL"
					" WHERE subid = $1",
					"i", sub->subid);
	if (what == NULL)
		return;
	cvx_catalog_event(sub->subid, "recovered", NULL, what);
	ereport(LOG,
			(errmsg("subscription \"%s\" has recovered", sub->name),
			 errdetail_internal("It failed: %s.", what),
			 errhidestmt(true), errhidecontext(true)));
}

/*
 * What a connection would be made of, as a number: when it changes, somebody
 * has changed something, and it is worth to try again.
 */
uint32
cvx_failure_fingerprint(const CvxRemote *remote)
{
	StringInfoData buf;
	uint32		hash;

	initStringInfo(&buf);
	appendStringInfo(&buf, "%s %s %s %s %s %s %s %d %d %d %d %d %zu",
					 remote->base_url, remote->key ? remote->key : "",
					 remote->ca_file ? remote->ca_file : "",
					 remote->http_proxy ? remote->http_proxy : "",
					 remote->proxy_user ? remote->proxy_user : "",
					 remote->proxy_password ? remote->proxy_password : "",
					 cvx_address_setting(), remote->allow_insecure_http,
					 remote->connect_timeout_ms, remote->request_timeout_ms,
					 remote->idle_timeout_ms, remote->max_retries,
					 remote->max_response_bytes);
	hash = hash_bytes((const unsigned char *) buf.data, buf.len);

	/* It holds the key. */
	memset(buf.data, 0, buf.len);
	pfree(buf.data);
	return hash;
}

/* The same where no connection can be made: of the reason. */
uint32
cvx_failure_fingerprint_error(const ErrorData *error)
{
	return hash_bytes((const unsigned char *) error->message,
					  strlen(error->message)) ^ (uint32) error->sqlerrcode;
}

/* The pause before the nth repetition, from 0 on. */
static int64
pause_ms(const Pace *pace, int nth, int retry_after_s)
{
	double		pause = Min(pace->first_ms * pow(2, Min(nth, 20)),
							pace->longest_ms);

	/* Not earlier than the server wants it, and not all at that moment. */
	if (retry_after_s > 0 && pause < retry_after_s * 1000.0)
		pause = retry_after_s * 1000.0 / 0.75;
	return (int64) (pause * (0.75 + 0.5 * (random() % 1000) / 1000.0));
}

/* The hint of a resource that is used up names the setting. */
static const char *
with_hint(const ErrorData *error)
{
	if (error->hint == NULL ||
		ERRCODE_TO_CATEGORY(error->sqlerrcode) != ERRCODE_INSUFFICIENT_RESOURCES)
		return error->message;
	return psprintf("%s. %s", error->message, error->hint);
}

/* A line for the server's log. */
static void
tell(const char *name, const Pace *pace, const ErrorData *error)
{
	ereport(LOG,
			(errcode(error->sqlerrcode),
			 errmsg("subscription \"%s\" fails (%s): %s", name, pace->name,
					error->message),
			 error->detail ? errdetail_internal("%s", error->detail) : 0,
			 error->hint ? errhint("%s", error->hint) : 0,
			 errhidestmt(true), errhidecontext(true)));
}
