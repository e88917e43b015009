/*
 * http_call.c
 *		When does a request begin, end, begin again?
 *
 * Keeps invariants 1, 3, 6 and 7 of http.h.  Does not know what the bytes mean.
 *
 * Room: wire 1.4
 */
#include "postgres.h"

#include "common/hashfn.h"
#include "miscadmin.h"
#include "storage/fd.h"
#include "storage/latch.h"
#include "utils/timestamp.h"

#include "ground/compat.h"
#include "wire/http_pool.h"

#ifdef CVX_USE_EPOLL
#include <sys/timerfd.h>
#endif

/* The first pause before a repetition; doubled for each further one. */
#define FIRST_BACKOFF_MS	250

/* What may be a lasting failure is repeated this often. */
#define MAX_FEW_RETRIES		2

/*
 * Repetitions that do not count (the server goes on working) end here all the
 * same, so that a server which always answers 408 is an error and not a hang.
 */
#define MAX_FREE_RETRIES	20

/* A pause of the consumer longer than this is not the server's silence. */
#define CONSUMER_PAUSE_MS	500

/* What libcurl takes for a connect_timeout of 0. */
#define DEFAULT_CONNECT_MS	(300 * 1000)

/* How often a request looks whether there are descriptors for it now. */
#define ROOM_POLL_MS		20

static void free_call(void *arg);
static void start_attempt(CvxCall *call);
static void wait_for_room(CvxCall *call);
CVX_NORETURN static void fail_roomless(CvxHttp *http);
static void drive(CvxHttp *http);
static void work(CvxHttp *http);
static void check_clock(CvxCall *call, int64 now);
static void decide(CvxCall *call);
static int64 asked_pause_ms(CvxCall *call, int nth);
static int64 backoff_ms(const CvxRemote *remote, int nth);
static int64 random_ms(int64 limit);

/*
 * Start a request without waiting.  The call and the answer's body live in
 * the current memory context; resetting it abandons the request.
 */
CvxCall *
cvx_http_start(CvxHttp *http, const CvxRequest *request)
{
	CvxCall    *call = palloc0(sizeof(CvxCall));

	call->http = http;
	http->nrefs++;
	dlist_push_tail(&http->calls, &call->node);
	call->state = CALL_DONE;
	call->callback.func = free_call;
	call->callback.arg = call;
	MemoryContextRegisterResetCallback(CurrentMemoryContext, &call->callback);

	call->request = *request;
	call->request.method = pstrdup(request->method);
	call->request.path = pstrdup(request->path);
	if (request->body)
	{
		size_t		len = request->body_len > 0 ? request->body_len :
			strlen(request->body);
		char	   *body = MemoryContextAllocHuge(CurrentMemoryContext, len + 1);

		memcpy(body, request->body, len);
		body[len] = '\0';
		call->request.body = body;
		call->request.body_len = len;
	}
	if (request->content_type)
	{
		call->headers = cvx_curl_headers(http, request->content_type);
		if (call->headers == NULL)
			ereport(ERROR,
					(errcode(ERRCODE_OUT_OF_MEMORY),
					 errmsg("out of memory while preparing a request")));
	}
	call->url = psprintf("%s%s", http->remote.base_url, request->path);
	call->endpoint = psprintf("%s %.*s", request->method,
							  (int) strcspn(request->path, "?"),
							  request->path);
	start_attempt(call);
	drive(http);
	return call;
}

/*
 * Do what can be done without waiting; true when the answer is final.
 */
bool
cvx_http_poll(CvxCall *call)
{
	if (call->state != CALL_DONE)
		drive(call->http);
	return call->state == CALL_DONE;
}

/*
 * Wait until the answer is final.  Interrupts are served: cancel, timeout and
 * terminate throw from here.
 */
void
cvx_http_wait(CvxCall *call)
{
	int64		begun = cvx_curl_now_us();

	CHECK_FOR_INTERRUPTS();
	while (!cvx_http_poll(call))
	{
		cvx_curl_wait(call, PG_INT64_MAX);
		CHECK_FOR_INTERRUPTS();
	}
	if (call->request.stats)
		call->request.stats->wait_us += cvx_curl_now_us() - begun;
}

/*
 * Wait until the answer is final, but let the caller decide what a cancel, a
 * termination or the deadline (0: none) means: false then, and the interrupt
 * is still pending.
 */
bool
cvx_http_wait_quietly(CvxCall *call, TimestampTz deadline)
{
	int64		begun = cvx_curl_now_us();
	bool		is_done;

	while (!(is_done = cvx_http_poll(call)))
	{
		int64		left_ms = PG_INT64_MAX;

		if (QueryCancelPending || ProcDiePending)
			break;
		CHECK_FOR_INTERRUPTS();
		if (deadline != 0)
		{
			left_ms = (deadline - GetCurrentTimestamp() + 999) / 1000;
			if (left_ms <= 0)
				break;
		}
		cvx_curl_wait(call, left_ms);
	}
	if (call->request.stats)
		call->request.stats->wait_us += cvx_curl_now_us() - begun;
	return is_done;
}

/* May the server have seen something of the last attempt? */
bool
cvx_http_may_have_arrived(CvxCall *call)
{
	if (call->state == CALL_RUNNING)
		return cvx_curl_has_sent(call);

	/* A write pauses only when it is certain that nothing was applied. */
	return call->state == CALL_DONE && call->answer.may_have_arrived;
}

/* Is the answer final?  Does not let libcurl work. */
bool
cvx_http_is_done(CvxCall *call)
{
	return call->state == CALL_DONE;
}

/*
 * The pause before the nth repetition (from 0) of what the caller repeats by
 * itself.  Interrupts are served.
 */
void
cvx_http_pause(CvxHttp *http, int nth)
{
	int64		until = cvx_curl_now_ms() + backoff_ms(&http->remote, nth);

	for (;;)
	{
		int64		left = until - cvx_curl_now_ms();

		CHECK_FOR_INTERRUPTS();
		if (left <= 0)
			return;
		(void) WaitLatch(MyLatch,
						 WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 Min(left, 1000), CVX_WAIT_EVENT);
		ResetLatch(MyLatch);
	}
}

/* The final answer; it lives as long as the call. */
const CvxAnswer *
cvx_http_answer(CvxCall *call)
{
	Assert(call->state == CALL_DONE);
	return &call->answer;
}

/* "POST /api/x", for messages; lives as long as the call. */
const char *
cvx_http_endpoint(CvxCall *call)
{
	return call->endpoint;
}

/*
 * Abandon a request, or give back its answer, before its context ends.
 */
void
cvx_http_free(CvxCall *call)
{
	free_call(call);
}

/*
 * A descriptor that becomes readable when a call of this connection wants to
 * be polled, for a foreign WaitEventSet; -1 where there is none.
 */
int
cvx_http_wait_fd(CvxHttp *http)
{
#ifdef CVX_USE_EPOLL
	struct itimerspec due = {0};
	long		timeout = Max(cvx_curl_timeout_ms(http), 1);

	if (http->pulse.timerfd < 0)
	{
		if (!cvx_pool_make_room(http, 1))
			fail_roomless(http);
		http->pulse.timerfd = timerfd_create(CLOCK_MONOTONIC,
									   TFD_NONBLOCK | TFD_CLOEXEC);
		if (http->pulse.timerfd < 0)
			fail_roomless(http);
		ReserveExternalFD();
		cvx_curl_watch_timer(http);
	}
	http->pulse.is_awaited = true;
	http->pulse.is_watched = true;
	due.it_value.tv_sec = timeout / 1000;
	due.it_value.tv_nsec = (timeout % 1000) * 1000000;
	(void) timerfd_settime(http->pulse.timerfd, 0, &due, NULL);

	/* Without descriptors of its own it only waits for the clock. */
	return http->pulse.epfd >= 0 ? http->pulse.epfd : http->pulse.timerfd;
#else
	return -1;
#endif
}

/* Memory context callback of a call; also cvx_http_free(). */
static void
free_call(void *arg)
{
	CvxCall    *call = (CvxCall *) arg;
	CvxHttp    *http = call->http;

	if (http == NULL)
		return;
	call->http = NULL;
	cvx_curl_abandon(call, http);
	dlist_delete(&call->node);
	free(call->answer.body);
	call->answer.body = NULL;
	cvx_curl_free_headers(call->headers);
	call->headers = NULL;
	cvx_pool_release(http);
}

/* Give the request to libcurl.  May throw before anything was sent. */
static void
start_attempt(CvxCall *call)
{
	if (!cvx_pool_wake(call->http))
	{
		wait_for_room(call);
		return;
	}
	call->roomless_ms = 0;
	cvx_curl_begin(call);
}

/*
 * Try again soon when other requests of this process are under way, whose end
 * gives descriptors back; that belongs to the time for connecting.
 */
static void
wait_for_room(CvxCall *call)
{
	int64		now = cvx_curl_now_ms();
	int64		limit_ms = call->http->remote.connect_timeout_ms;
	bool		is_hopeful = false;
	CvxHttp    *http = NULL;

	while ((http = cvx_pool_next(http)) != NULL)
	{
		if (http == call->http || !cvx_pool_has_work(http))
			continue;
		is_hopeful = true;

		/* A page that was asked for in advance may have come meanwhile. */
		if (!http->pulse.is_watched)
			work(http);
	}
	if (call->roomless_ms == 0)
		call->roomless_ms = now;
	if (limit_ms == 0)
		limit_ms = DEFAULT_CONNECT_MS;
	if (!is_hopeful || now - call->roomless_ms >= limit_ms)
	{
		call->state = CALL_DONE;
		fail_roomless(call->http);
	}
	call->state = CALL_PAUSING;
	call->wake_ms = now + ROOM_POLL_MS;
}

static void
fail_roomless(CvxHttp *http)
{
	ereport(ERROR,
			(errcode(ERRCODE_INSUFFICIENT_RESOURCES),
			 errmsg("too many files are open for another connection to server \"%s\"",
					http->remote.server_name),
			 errhint("Use fewer servers in one statement, or raise max_files_per_process.")));
}

/*
 * Let libcurl work on everything that is ready, take in ended attempts, look
 * at the clock, begin repetitions that are due.  Does not wait.
 */
static void
drive(CvxHttp *http)
{
	int64		now;
	dlist_mutable_iter iter;

	work(http);
	now = cvx_curl_now_ms();
	dlist_foreach_modify(iter, &http->calls)
		check_clock(dlist_container(CvxCall, node, iter.cur), now);
}

/* Let libcurl work, and take in ended attempts; begin none. */
static void
work(CvxHttp *http)
{
	CvxCall    *ended;
	int64		now = cvx_curl_now_ms();
	int64		pause = http->pulse.is_awaited ? 0 : now - http->pulse.driven_at_ms;
	dlist_iter	iter;

	/* The consumer's own pause is no silence of the server. */
	if (pause > CONSUMER_PAUSE_MS)
	{
		dlist_foreach(iter, &http->calls)
		{
			CvxCall    *call = dlist_container(CvxCall, node, iter.cur);

			call->attempt.started_ms += Min(pause, now - call->attempt.started_ms);
			if (call->attempt.answered_ms >= 0)
				call->attempt.answered_ms += Min(pause, now - call->attempt.answered_ms);
			call->attempt.active_ms = Max(call->attempt.active_ms, now);
		}
	}
	http->pulse.driven_at_ms = now;
	http->pulse.is_awaited = false;
	http->pulse.is_watched = false;
	if (http->multi == NULL)
		return;
	cvx_curl_drive(http);
	while ((ended = cvx_curl_next_ended(http)) != NULL)
		decide(ended);
}

/* Has an attempt been silent for too long, or a pause ended? */
static void
check_clock(CvxCall *call, int64 now)
{
	if (call->state == CALL_PAUSING && now >= call->wake_ms)
		start_attempt(call);
	else if (call->state == CALL_RUNNING && now >= cvx_curl_deadline_ms(call))
	{
		cvx_curl_time_out(call);
		decide(call);
	}
}

/* Is the answer final?  Otherwise plan a pause and another attempt. */
static void
decide(CvxCall *call)
{
	const CvxRemote *remote = &call->http->remote;
	CvxRepeat	repeat = call->request.repeat(&call->answer);
	int			limit = remote->max_retries;
	int			nth = 0;

	call->state = CALL_DONE;
	if (repeat == CVX_REPEAT_NO || limit == 0)
		return;

	/* A server that wants more time than we may take gets an end. */
	if ((int64) call->answer.retry_after_s * 1000 > remote->max_retry_wait_ms)
		return;
	if (repeat == CVX_REPEAT_FREE)
	{
		if (++call->nfree_retries > MAX_FREE_RETRIES)
			return;
	}
	else
	{
		if (repeat == CVX_REPEAT_FEW)
			limit = Min(limit, MAX_FEW_RETRIES);
		if (call->nretries >= limit)
			return;
		nth = call->nretries++;
	}
	call->state = CALL_PAUSING;
	call->wake_ms = cvx_curl_now_ms() + (call->answer.retry_after_s > 0 ?
										 asked_pause_ms(call, nth) :
										 backoff_ms(remote, nth));
}

/*
 * The pause that the server asks for, and up to half as long again: others
 * were asked for the same.  Never shorter, and not beyond max_retry_wait.
 */
static int64
asked_pause_ms(CvxCall *call, int nth)
{
	const CvxRemote *remote = &call->http->remote;
	int64		asked = (int64) call->answer.retry_after_s * 1000;
	int64		pause = Max(asked, backoff_ms(remote, nth));

	return pause + random_ms(Min(asked / 2,
								 Max(remote->max_retry_wait_ms - pause, 0)));
}

/* The pause before the nth repetition, between half of it and all of it. */
static int64
backoff_ms(const CvxRemote *remote, int nth)
{
	int64		pause = Min((int64) FIRST_BACKOFF_MS << Min(nth, 20),
							remote->max_retry_wait_ms);

	return pause / 2 + random_ms(pause / 2);
}

/* Between 0 and limit; another one in each process and at each time. */
static int64
random_ms(int64 limit)
{
	return hash_bytes_uint32((uint32) GetCurrentTimestamp() ^ MyProcPid) %
		(limit + 1);
}
