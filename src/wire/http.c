/*
 * http.c
 *		How are bytes sent, awaited, cancelled, capped, retried?
 *
 * Invariants:
 *	1. Nothing here waits anywhere but in cvx_http_wait(), which watches the
 *	   process latch; so every stage of an exchange can be cancelled.
 *	2. A libcurl callback raises no PostgreSQL error, calls no throwing
 *	   allocator and looks at no interrupt.
 *	3. What libcurl or malloc gave is held by a palloc'd holder whose memory
 *	   context callback gives it back, also after an error.
 *	4. A body never grows beyond max_response_bytes, counted after
 *	   decompression; what stands around it (heads and trailers) not beyond
 *	   MAX_HEAD_BYTES.
 *	5. A request goes where the options say: https, or http to loopback; no
 *	   redirect, no proxy or netrc from the environment; TLS is verified; the
 *	   address is checked after name resolution (address.c).
 *	6. Only the request's rule says whether it may be repeated.
 *	7. Every attempt ends by the clock, whatever the server sends: see
 *	   deadline_ms().
 *	8. Whether a server may have acted on a request is told by what was sent,
 *	   never by how far libcurl says that it has come.
 *
 * A connection (CvxHttp) is a libcurl multi handle of one server and role with
 * its own connection cache; it is pooled for the life of the backend.  All
 * sockets of a multi handle are gathered in one epoll descriptor, which any
 * WaitEventSet can watch.  All descriptors are taken from PostgreSQL's own
 * budget.  A connection has none before its first request, and loses them when
 * others need them and it has no request under way.
 *
 * This file does not know what the bytes mean.
 *
 * Room: wire 1.1
 */
#include "postgres.h"

#include <arpa/inet.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <curl/curl.h>

#include "common/hashfn.h"
#include "lib/ilist.h"
#include "miscadmin.h"
#include "storage/fd.h"
#include "storage/latch.h"
#include "utils/inval.h"
#include "utils/memutils.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

#include "ground/compat.h"
#include "wire/address.h"
#include "wire/http.h"

#ifdef CVX_USE_EPOLL
#include <sys/epoll.h>
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

/* Bodies without a Content-Length start with this much. */
#define FIRST_BODY_BYTES	16384

/* libcurl's receive buffer: its maximum, for few system calls. */
#define RECEIVE_BUFFER_BYTES	(512 * 1024L)

/*
 * All heads and trailers that come back for one attempt: those of a proxy, of
 * interim answers, and of the answer.  Convex sends less than 1 kB; servers
 * and proxies commonly refuse heads beyond 64 kB.  libcurl's own limits differ
 * from version to version, and none covers trailers.
 */
#define MAX_HEAD_BYTES	(256 * 1024)

/*
 * An answer that comes slower than this, on average and beyond the time of
 * request_timeout, is no answer: 100 bytes a second is slower than any line
 * that a page would be read over, and faster than a server that sends a byte
 * now and then to keep us waiting.
 */
#define MIN_BYTES_PER_S	100

/*
 * libcurl works on what a socket gives for as long as it gives.  After so long
 * its callbacks look at the clock and for a cancel, and end the attempt.
 */
#define MAX_TURN_MS		100

/*
 * Connections that nobody uses are kept for the next statement: this many, and
 * not for longer.  Servers and balancers commonly hang up earlier.
 */
#define MAX_IDLE			16
#define MAX_IDLE_MS			(5 * 60 * 1000)

/*
 * libcurl's own descriptors for a multi handle, and those that must be left for
 * PostgreSQL when we take some: for wait event sets, and a name resolver's.
 */
#define CURL_FDS			2
#define SPARE_FDS			5

/*
 * So many connections work at once; the requests of others wait.  With a budget
 * of 300 descriptors, as PostgreSQL's defaults give, there are some left for the
 * clocks of those that wait under an asynchronous Append.
 */
#define MAX_AWAKE			40

/* What libcurl takes for a connect_timeout of 0. */
#define DEFAULT_CONNECT_MS	(300 * 1000)

/* How often a request looks whether there are descriptors for it now. */
#define ROOM_POLL_MS		20

typedef enum CallState
{
	CALL_RUNNING,				/* libcurl works on an attempt */
	CALL_PAUSING,				/* waiting to make the next one */
	CALL_DONE					/* the answer is final */
} CallState;

/* Whose head is being received? */
typedef enum HeadKind
{
	HEAD_NONE,					/* none: a body, a trailer, nothing yet */
	HEAD_TUNNEL,				/* a proxy's consent to CONNECT */
	HEAD_REFUSAL,				/* a proxy's, of CONNECT */
	HEAD_INTERIM,				/* 1xx: the answer is still to come */
	HEAD_FINAL					/* the answer's */
} HeadKind;

/* Which file it is, and in which state; all zeros: none. */
typedef struct FileMark
{
	dev_t		device;
	ino_t		inode;
	off_t		size;
	struct timespec modified;
	struct timespec changed;
} FileMark;

/* The files that say whom to trust: a bundle, and a directory. */
typedef struct Authorities
{
	FileMark	bundle;
	FileMark	directory;
} Authorities;

struct CvxHttp
{
	dlist_node	node;			/* in pool */

	/* fixed at open */
	MemoryContext cxt;
	CvxRemote	remote;
	char	   *allowed_hosts;	/* the setting at that time */
	Authorities authorities;	/* the files at that time */
	uint32		server_hash;
	uint32		user_hash;
	char	   *authorization;	/* header line, or NULL */
	struct curl_slist *headers;

	/* per life */
	CURLM	   *multi;			/* or NULL: it has no descriptors */
	CURL	   *spare;			/* an easy handle at rest, or NULL */
	dlist_head	calls;
	int			nrefs;
	bool		is_valid;		/* cleared by invalidation callbacks */
	bool		is_distrusted;	/* the authorities have changed since */
	int64		driven_at_ms;	/* when drive() last ran */
	int64		turn_ms;		/* when libcurl's present turn began, or -1 */
	bool		is_awaited;		/* somebody has waited for it since */
	bool		is_watched;		/* in a foreign WaitEventSet since */
	int64		timer_due_ms;	/* libcurl's timer; -1 when unset */
#ifdef CVX_USE_EPOLL
	int			epfd;
	int			timerfd;
#endif
};

/* A reference to a connection that ends with a memory context. */
typedef struct HttpRef
{
	CvxHttp    *http;
	MemoryContextCallback callback;
} HttpRef;

struct CvxCall
{
	dlist_node	node;			/* in http->calls */
	CvxHttp    *http;			/* NULL once freed */
	MemoryContextCallback callback;

	/* fixed at start */
	CvxRequest	request;
	char	   *url;
	char	   *endpoint;
	struct curl_slist *headers; /* instead of the connection's; or NULL */

	/* per attempt */
	CallState	state;
	CURL	   *easy;
	int64		started_ms;
	int64		answered_ms;	/* begin of the final answer, or -1 */
	int64		active_ms;		/* last sign of life of the server */
	int64		wake_ms;		/* end of the pause */
	int64		retry_date;		/* of Retry-After, as Unix seconds; or -1 */
	CvxTransport fault;			/* set by a callback that ends the attempt */
	const char *fault_reason;	/* its words, or NULL */
	char		address[INET6_ADDRSTRLEN];	/* the last refused one, or "" */
	bool		has_socket;		/* an address was not refused */
	bool		wants_certificate;	/* the server has asked us for one */
	char		curl_error[CURL_ERROR_SIZE];

	/* per attempt: what has come and gone */
	HeadKind	head;
	size_t		head_bytes;		/* of all heads and trailers */
	bool		has_tunnel;		/* the proxy has accepted CONNECT */
	long		tunnel_bytes;	/* sent until then, as libcurl counts */

	/* per life */
	int			nretries;
	int			nfree_retries;
	int64		roomless_ms;	/* since when there are no descriptors; or 0 */
	CvxAnswer	answer;
	size_t		body_size;		/* allocated, by malloc */
};

/* What a Retry-After says is believed up to a day. */
#define MAX_RETRY_AFTER_S	86400

bool		cvx_http_prefetch = true;

/* Connections of this backend; changed by open, release and disconnect. */
static dlist_head pool = DLIST_STATIC_INIT(pool);

/* Set when libcurl has been initialised in this process. */
static bool curl_is_ready = false;

static CvxHttp *http_create(const CvxRemote *remote);
static void init_curl(void);
static void look_at_authorities(const CvxRemote *remote,
								Authorities *authorities);
static void mark_file(const char *path, FileMark *mark);
static bool has_same_authorities(const CvxHttp *http,
								 const CvxRemote *remote);
static struct curl_slist *request_headers(CvxHttp *http,
										  const char *content_type);
static void http_destroy(CvxHttp *http);
static void http_release(CvxHttp *http);
static void release_ref(void *arg);
static void free_call(void *arg);
static bool is_same_remote(const CvxHttp *http, const CvxRemote *remote);
static void sweep_pool(void);
static void close_idle(void);
static bool has_work(CvxHttp *http);
static bool wake(CvxHttp *http);
static void rest(CvxHttp *http);
static bool make_room(CvxHttp *http, int wanted);
static CvxHttp *longest_unused(const CvxHttp *but);
static void give_up(CvxHttp *unused);
static void start_attempt(CvxCall *call);
static void wait_for_room(CvxCall *call);
CVX_NORETURN static void fail_roomless(CvxHttp *http);
static void configure(CvxCall *call);
static void drive(CvxHttp *http);
static void work(CvxHttp *http);
static void drive_curl(CvxHttp *http);
static void check_clock(CvxCall *call, int64 now);
static void end_attempt(CvxCall *call, CURLcode rc);
static void detach_easy(CvxCall *call, bool keep);
static void decide(CvxCall *call);
static int64 asked_pause_ms(CvxCall *call, int nth);
static int64 backoff_ms(const CvxRemote *remote, int nth);
static int64 random_ms(int64 limit);
static CvxTransport classify(CvxCall *call, CURLcode rc);
static bool has_sent_request(CvxCall *call);
static bool is_tunnelled(const CvxRemote *remote);
static CvxTransport refused_by_proxy(CvxCall *call);
static bool is_certificate_missing(CvxCall *call, CURLcode rc);
static void wait_for_news(CvxCall *call, int64 max_ms);
static long next_timeout_ms(CvxHttp *http);
static int64 now_us(void);
static int64 now_ms(void);
static int64 deadline_ms(CvxCall *call);
static size_t on_body(char *data, size_t size, size_t n, void *arg);
static size_t on_header(char *data, size_t size, size_t n, void *arg);
static HeadKind begin_head(CvxCall *call, const char *line, size_t len);
static void end_head(CvxCall *call);
static int	on_progress(void *arg, curl_off_t download_size,
						curl_off_t downloaded, curl_off_t upload_size,
						curl_off_t uploaded);
static bool must_stop(CvxCall *call);
static int	on_debug(CURL *easy, curl_infotype type, char *text, size_t len,
					 void *arg);
static bool is_header(const char *line, size_t len, const char *name,
					  char *text);
static curl_socket_t on_open_socket(void *arg, curlsocktype purpose,
									struct curl_sockaddr *address);
static int	on_close_socket(void *arg, curl_socket_t fd);
static void invalidate(Datum arg, int cacheid, uint32 hashvalue);
#ifdef CVX_USE_EPOLL
static void watch_timer(CvxHttp *http);
static int	on_socket(CURL *easy, curl_socket_t fd, int what, void *arg,
					  void *socket_arg);
static int	on_timer(CURLM *multi, long timeout_ms, void *arg);
#endif

/*
 * Called once when the library is loaded.
 */
void
cvx_http_init(void)
{
	DefineCustomBoolVariable("convex_fdw.prefetch",
							 "Whether the next page is asked for while the present one is used.",
							 "Off, each page is asked for when it is needed: slower, for measurements.",
							 &cvx_http_prefetch, true, PGC_USERSET, 0,
							 NULL, NULL, NULL);
	CacheRegisterSyscacheCallback(FOREIGNSERVEROID, invalidate, (Datum) 0);
	CacheRegisterSyscacheCallback(USERMAPPINGOID, invalidate, (Datum) 0);
}

/*
 * The pooled connection to a deployment, made when missing or outdated.  The
 * reference ends with the current memory context.  Sends nothing.  Throws
 * 42501 when the host is not among the allowed ones.
 */
CvxHttp *
cvx_http_open(const CvxRemote *remote)
{
	CvxHttp    *http = NULL;
	HttpRef    *ref;
	dlist_iter	iter;

	if (!cvx_address_is_allowed_host(remote->host))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("host \"%s\" of server \"%s\" is not allowed",
						remote->host, remote->server_name),
				 errhint("A superuser can list the host in convex_fdw.allowed_hosts.")));

	sweep_pool();
	ref = palloc0(sizeof(HttpRef));
	dlist_foreach(iter, &pool)
	{
		CvxHttp    *candidate = dlist_container(CvxHttp, node, iter.cur);

		if (candidate->remote.serverid != remote->serverid ||
			candidate->remote.userid != remote->userid ||
			!candidate->is_valid)
			continue;
		if (is_same_remote(candidate, remote))
			http = candidate;
		else
			candidate->is_valid = false;
	}
	if (http == NULL)
		http = http_create(remote);
	http->nrefs++;
	ref->http = http;
	ref->callback.func = release_ref;
	ref->callback.arg = ref;
	MemoryContextRegisterResetCallback(CurrentMemoryContext, &ref->callback);
	return http;
}

/* What the connection was opened for; lives as long as the connection. */
const CvxRemote *
cvx_http_remote(CvxHttp *http)
{
	return &http->remote;
}

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
		call->headers = request_headers(http, request->content_type);
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
	int64		begun = now_us();

	CHECK_FOR_INTERRUPTS();
	while (!cvx_http_poll(call))
	{
		wait_for_news(call, PG_INT64_MAX);
		CHECK_FOR_INTERRUPTS();
	}
	if (call->request.stats)
		call->request.stats->wait_us += now_us() - begun;
}

/*
 * Wait until the answer is final, but let the caller decide what a cancel, a
 * termination or the deadline (0: none) means: false then, and the interrupt
 * is still pending.
 */
bool
cvx_http_wait_quietly(CvxCall *call, TimestampTz deadline)
{
	int64		begun = now_us();
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
		wait_for_news(call, left_ms);
	}
	if (call->request.stats)
		call->request.stats->wait_us += now_us() - begun;
	return is_done;
}

/* May the server have seen something of the last attempt? */
bool
cvx_http_may_have_arrived(CvxCall *call)
{
	if (call->state == CALL_RUNNING)
		return has_sent_request(call);

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
	int64		until = now_ms() + backoff_ms(&http->remote, nth);

	for (;;)
	{
		int64		left = until - now_ms();

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
	long		timeout = Max(next_timeout_ms(http), 1);

	if (http->timerfd < 0)
	{
		if (!make_room(http, 1))
			fail_roomless(http);
		http->timerfd = timerfd_create(CLOCK_MONOTONIC,
									   TFD_NONBLOCK | TFD_CLOEXEC);
		if (http->timerfd < 0)
			fail_roomless(http);
		ReserveExternalFD();
		watch_timer(http);
	}
	http->is_awaited = true;
	http->is_watched = true;
	due.it_value.tv_sec = timeout / 1000;
	due.it_value.tv_nsec = (timeout % 1000) * 1000000;
	(void) timerfd_settime(http->timerfd, 0, &due, NULL);

	/* Without descriptors of its own it only waits for the clock. */
	return http->epfd >= 0 ? http->epfd : http->timerfd;
#else
	return -1;
#endif
}

/* Every pooled connection, as a list of CvxHttpInfo. */
List *
cvx_http_list(void)
{
	List	   *result = NIL;
	dlist_iter	iter;

	sweep_pool();
	dlist_foreach(iter, &pool)
	{
		CvxHttp    *http = dlist_container(CvxHttp, node, iter.cur);
		CvxHttpInfo *info = palloc(sizeof(CvxHttpInfo));

		info->serverid = http->remote.serverid;
		info->userid = http->remote.userid;
		info->is_valid = http->is_valid;
		result = lappend(result, info);
	}
	return result;
}

/*
 * Close the idle connections to one server, or to all (InvalidOid); warns of
 * those in use.  True when one was closed.
 */
bool
cvx_http_disconnect(Oid serverid)
{
	bool		has_closed = false;
	dlist_mutable_iter iter;

	dlist_foreach_modify(iter, &pool)
	{
		CvxHttp    *http = dlist_container(CvxHttp, node, iter.cur);

		if (OidIsValid(serverid) && http->remote.serverid != serverid)
			continue;
		if (http->nrefs > 0)
		{
			ereport(WARNING,
					(errmsg("cannot close connection for server \"%s\" because it is still in use",
							http->remote.server_name)));
			continue;
		}
		http_destroy(http);
		has_closed = true;
	}
	return has_closed;
}

/* ------------------------------------------------------------------------
 * Connections
 * ------------------------------------------------------------------------
 */

static CvxHttp *
http_create(const CvxRemote *remote)
{
	MemoryContext cxt;
	MemoryContext old;
	CvxHttp    *http;

	init_curl();
	cxt = AllocSetContextCreate(TopMemoryContext, "convex connection",
								ALLOCSET_SMALL_SIZES);
	old = MemoryContextSwitchTo(cxt);
	http = palloc0(sizeof(CvxHttp));
	http->cxt = cxt;
	http->remote = *remote;
	http->remote.server_name = pstrdup(remote->server_name);
	http->remote.base_url = pstrdup(remote->base_url);
	http->remote.host = pstrdup(remote->host);
	http->remote.key = remote->key ? pstrdup(remote->key) : NULL;
	http->remote.ca_file = remote->ca_file ? pstrdup(remote->ca_file) : NULL;
	http->remote.http_proxy =
		remote->http_proxy ? pstrdup(remote->http_proxy) : NULL;
	http->remote.proxy_user =
		remote->proxy_user ? pstrdup(remote->proxy_user) : NULL;
	http->remote.proxy_password =
		remote->proxy_password ? pstrdup(remote->proxy_password) : NULL;
	http->allowed_hosts = pstrdup(cvx_address_setting());
	look_at_authorities(remote, &http->authorities);
	http->server_hash = GetSysCacheHashValue1(FOREIGNSERVEROID,
											  ObjectIdGetDatum(remote->serverid));
	http->user_hash = GetSysCacheHashValue1(USERMAPPINGOID,
											ObjectIdGetDatum(remote->umid));
	http->is_valid = true;
	http->timer_due_ms = -1;
	http->turn_ms = -1;
	http->driven_at_ms = now_ms();
	dlist_init(&http->calls);
	if (remote->key)
		http->authorization = psprintf("Authorization: Convex %s",
									   remote->key);
	MemoryContextSwitchTo(old);

	/* From here on http_destroy() gives everything back. */
	dlist_push_tail(&pool, &http->node);
#ifdef CVX_USE_EPOLL
	http->timerfd = -1;
	http->epfd = -1;
#endif
	http->headers = request_headers(http, "application/json");
	if (http->headers == NULL)
	{
		http_destroy(http);
		ereport(ERROR,
				(errcode(ERRCODE_OUT_OF_MEMORY),
				 errmsg("out of memory while preparing a connection")));
	}
	return http;
}

/*
 * Once in each process that needs it.  libcurl and TLS libraries write session
 * secrets into the file that SSLKEYLOGFILE names, some when they are set up,
 * some with the first handshake; so it goes, from this process alone.  What
 * else they read from the environment is overruled for each request; see
 * configure().
 */
static void
init_curl(void)
{
	if (curl_is_ready)
		return;
	unsetenv("SSLKEYLOGFILE");
	if (curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK)
		ereport(ERROR,
				(errcode(ERRCODE_OUT_OF_MEMORY),
				 errmsg("could not initialise libcurl")));
	curl_is_ready = true;
}

/*
 * The files that libcurl would read now to learn whom to trust.  A certificate
 * that is withdrawn must not be accepted by what was kept: a connection, a TLS
 * session, the parsed file.
 */
static void
look_at_authorities(const CvxRemote *remote, Authorities *authorities)
{
	const curl_version_info_data *info = curl_version_info(CURLVERSION_NOW);

	memset(authorities, 0, sizeof(Authorities));
	if (remote->is_plain)
		return;
	if (remote->ca_file != NULL)
		mark_file(remote->ca_file, &authorities->bundle);
	else if (info->age >= CURLVERSION_SEVENTH)
	{
		mark_file(info->cainfo, &authorities->bundle);
		mark_file(info->capath, &authorities->directory);
	}
}

static void
mark_file(const char *path, FileMark *mark)
{
	struct stat file;

	if (path == NULL || stat(path, &file) != 0)
		return;
	mark->device = file.st_dev;
	mark->inode = file.st_ino;
	mark->size = file.st_size;
	mark->modified = file.st_mtim;
	mark->changed = file.st_ctim;
}

static bool
is_same_file(const FileMark *a, const FileMark *b)
{
	return a->device == b->device && a->inode == b->inode &&
		a->size == b->size &&
		a->modified.tv_sec == b->modified.tv_sec &&
		a->modified.tv_nsec == b->modified.tv_nsec &&
		a->changed.tv_sec == b->changed.tv_sec &&
		a->changed.tv_nsec == b->changed.tv_nsec;
}

/* Are the files what they were when the connection was opened? */
static bool
has_same_authorities(const CvxHttp *http, const CvxRemote *remote)
{
	Authorities now;

	look_at_authorities(remote, &now);
	return is_same_file(&now.bundle, &http->authorities.bundle) &&
		is_same_file(&now.directory, &http->authorities.directory);
}

/* The headers of a request, to be freed by the caller; NULL: no memory. */
static struct curl_slist *
request_headers(CvxHttp *http, const char *content_type)
{
	char		line[128];
	const char *const lines[] = {
		"Convex-Client: " CVX_CLIENT, "Expect:", line, http->authorization
	};
	struct curl_slist *headers = NULL;

	snprintf(line, sizeof(line), "Content-Type: %s", content_type);
	for (int i = 0; i < lengthof(lines) && lines[i] != NULL; i++)
	{
		struct curl_slist *longer = curl_slist_append(headers, lines[i]);

		if (longer == NULL)
		{
			curl_slist_free_all(headers);
			return NULL;
		}
		headers = longer;
	}
	return headers;
}

/* Does not throw: runs in memory context callbacks. */
static void
http_destroy(CvxHttp *http)
{
	dlist_delete(&http->node);
	rest(http);
	curl_slist_free_all(http->headers);
	MemoryContextDelete(http->cxt);
}

/*
 * Give a connection what it needs to send requests; false: there are not
 * enough descriptors now.
 */
static bool
wake(CvxHttp *http)
{
	CvxHttp    *unused;
	int			nawake = 0;
	dlist_iter	iter;

	if (http->multi != NULL)
		return make_room(http, 1);
	dlist_foreach(iter, &pool)
		nawake += dlist_container(CvxHttp, node, iter.cur)->multi != NULL;
	if (nawake >= MAX_AWAKE)
	{
		if ((unused = longest_unused(http)) == NULL)
			return false;
		give_up(unused);
	}
	if (!make_room(http, 2 + CURL_FDS))
		return false;
#ifdef CVX_USE_EPOLL
	http->epfd = epoll_create1(EPOLL_CLOEXEC);
	if (http->epfd < 0)
		return false;
	ReserveExternalFD();
	watch_timer(http);
#endif
	http->multi = curl_multi_init();
	if (http->multi == NULL)
	{
		rest(http);
		return false;
	}
	for (int i = 0; i < CURL_FDS; i++)
		ReserveExternalFD();
#ifdef CVX_USE_EPOLL
	curl_multi_setopt(http->multi, CURLMOPT_SOCKETFUNCTION, on_socket);
	curl_multi_setopt(http->multi, CURLMOPT_SOCKETDATA, http);
	curl_multi_setopt(http->multi, CURLMOPT_TIMERFUNCTION, on_timer);
	curl_multi_setopt(http->multi, CURLMOPT_TIMERDATA, http);
#endif
	curl_multi_setopt(http->multi, CURLMOPT_MAXCONNECTS, 4L);
	return true;
}

/* Give back all descriptors; there must be no attempt.  Does not throw. */
static void
rest(CvxHttp *http)
{
	if (http->spare)
		curl_easy_cleanup(http->spare);
	http->spare = NULL;
	if (http->multi)
	{
		curl_multi_cleanup(http->multi);
		for (int i = 0; i < CURL_FDS; i++)
			ReleaseExternalFD();
	}
	http->multi = NULL;
	http->timer_due_ms = -1;
#ifdef CVX_USE_EPOLL
	if (http->timerfd >= 0)
	{
		close(http->timerfd);
		ReleaseExternalFD();
	}
	http->timerfd = -1;
	if (http->epfd >= 0)
	{
		close(http->epfd);
		ReleaseExternalFD();
	}
	http->epfd = -1;
#endif
}

#ifdef CVX_USE_EPOLL
/* The timer belongs to what one descriptor stands for. */
static void
watch_timer(CvxHttp *http)
{
	struct epoll_event event = {.events = EPOLLIN,.data.fd = http->timerfd};

	if (http->epfd >= 0 && http->timerfd >= 0)
		(void) epoll_ctl(http->epfd, EPOLL_CTL_ADD, http->timerfd, &event);
}
#endif

/*
 * Would PostgreSQL give so many descriptors now, and have some left?  If not,
 * take those of other connections that have nothing to do.
 */
static bool
make_room(CvxHttp *http, int wanted)
{
	for (;;)
	{
		CvxHttp    *unused;
		int			n = 0;

		while (n < wanted + SPARE_FDS && AcquireExternalFD())
			n++;
		for (int i = 0; i < n; i++)
			ReleaseExternalFD();
		if (n == wanted + SPARE_FDS)
			return true;
		unused = longest_unused(http);
		if (unused == NULL)
			return false;
		give_up(unused);
	}
}

static void
give_up(CvxHttp *unused)
{
	if (unused->nrefs == 0)
		http_destroy(unused);
	else
		rest(unused);
}

/* The connection with descriptors and without requests that rests longest. */
static CvxHttp *
longest_unused(const CvxHttp *but)
{
	CvxHttp    *found = NULL;
	dlist_iter	iter;

	dlist_foreach(iter, &pool)
	{
		CvxHttp    *http = dlist_container(CvxHttp, node, iter.cur);

		if (http != but && http->multi != NULL && !http->is_watched &&
			!has_work(http) &&
			(found == NULL || http->driven_at_ms < found->driven_at_ms))
			found = http;
	}
	return found;
}

/* Is a request under way, or to be repeated? */
static bool
has_work(CvxHttp *http)
{
	dlist_iter	iter;

	dlist_foreach(iter, &http->calls)
		if (dlist_container(CvxCall, node, iter.cur)->state != CALL_DONE)
			return true;
	return false;
}

static void
http_release(CvxHttp *http)
{
	if (--http->nrefs == 0 && !http->is_valid)
		http_destroy(http);
}

static void
release_ref(void *arg)
{
	http_release(((HttpRef *) arg)->http);
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
	if (call->easy)
	{
		/* In flight: removing the handle closes its connection. */
		curl_multi_remove_handle(http->multi, call->easy);
		curl_easy_cleanup(call->easy);
		call->easy = NULL;
	}
	dlist_delete(&call->node);
	free(call->answer.body);
	call->answer.body = NULL;
	curl_slist_free_all(call->headers);
	call->headers = NULL;
	http_release(http);
}

static bool
is_same_text(const char *a, const char *b)
{
	return (a == NULL || b == NULL) ? a == b : strcmp(a, b) == 0;
}

/* Is a pooled connection what would be made for this remote now? */
static bool
is_same_remote(const CvxHttp *http, const CvxRemote *remote)
{
	const CvxRemote *have = &http->remote;

	return strcmp(have->base_url, remote->base_url) == 0 &&
		is_same_text(have->key, remote->key) &&
		is_same_text(have->ca_file, remote->ca_file) &&
		is_same_text(have->http_proxy, remote->http_proxy) &&
		is_same_text(have->proxy_user, remote->proxy_user) &&
		is_same_text(have->proxy_password, remote->proxy_password) &&
		strcmp(have->server_name, remote->server_name) == 0 &&
		have->umid == remote->umid &&
		have->allow_insecure_http == remote->allow_insecure_http &&
		have->connect_timeout_ms == remote->connect_timeout_ms &&
		have->request_timeout_ms == remote->request_timeout_ms &&
		have->idle_timeout_ms == remote->idle_timeout_ms &&
		have->max_retries == remote->max_retries &&
		have->max_retry_wait_ms == remote->max_retry_wait_ms &&
		have->max_response_bytes == remote->max_response_bytes &&
		is_same_text(http->allowed_hosts, cvx_address_setting()) &&
		has_same_authorities(http, remote);
}

/* Close what is no longer used, and invalid or not needed. */
static void
sweep_pool(void)
{
	dlist_mutable_iter iter;

	dlist_foreach_modify(iter, &pool)
	{
		CvxHttp    *http = dlist_container(CvxHttp, node, iter.cur);

		if (!http->is_valid && http->nrefs == 0)
			http_destroy(http);
	}
	close_idle();
}

/* Of those that nobody uses, close the old ones, and those beyond a number. */
static void
close_idle(void)
{
	int64		now = now_ms();

	for (;;)
	{
		CvxHttp    *oldest = NULL;
		int			nidle = 0;
		dlist_iter	iter;

		dlist_foreach(iter, &pool)
		{
			CvxHttp    *http = dlist_container(CvxHttp, node, iter.cur);

			if (http->nrefs > 0)
				continue;
			nidle++;
			if (oldest == NULL || http->driven_at_ms < oldest->driven_at_ms)
				oldest = http;
		}
		if (oldest == NULL || (nidle <= MAX_IDLE &&
							   now - oldest->driven_at_ms <= MAX_IDLE_MS))
			return;
		http_destroy(oldest);
	}
}

/* Syscache callback: servers and user mappings that changed. */
static void
invalidate(Datum arg, int cacheid, uint32 hashvalue)
{
	dlist_iter	iter;

	dlist_foreach(iter, &pool)
	{
		CvxHttp    *http = dlist_container(CvxHttp, node, iter.cur);

		if (hashvalue == 0 ||
			(cacheid == FOREIGNSERVEROID && hashvalue == http->server_hash) ||
			(cacheid == USERMAPPINGOID && hashvalue == http->user_hash))
			http->is_valid = false;
	}
}

/* ------------------------------------------------------------------------
 * Attempts
 * ------------------------------------------------------------------------
 */

/* Give the request to libcurl.  May throw before anything was sent. */
static void
start_attempt(CvxCall *call)
{
	CvxHttp    *http = call->http;
	CvxHttpStats *stats = call->request.stats;

	if (!wake(http))
	{
		wait_for_room(call);
		return;
	}
	call->roomless_ms = 0;
	call->easy = http->spare ? http->spare : curl_easy_init();
	http->spare = NULL;
	if (call->easy == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OUT_OF_MEMORY),
				 errmsg("out of memory while preparing a request")));

	/* Whoever holds the connection goes on with it, but trusts anew. */
	if (!http->is_distrusted && !has_same_authorities(http, &http->remote))
	{
		http->is_distrusted = true;
		http->is_valid = false;
	}
	configure(call);
	call->fault = CVX_TRANSPORT_OK;
	call->fault_reason = NULL;
	call->address[0] = '\0';
	call->has_socket = false;
	call->wants_certificate = false;
	call->curl_error[0] = '\0';
	call->head = HEAD_NONE;
	call->head_bytes = 0;
	call->has_tunnel = false;
	call->tunnel_bytes = 0;
	call->answered_ms = -1;
	call->answer.body_len = 0;
	call->answer.status = 0;
	call->answer.reason = NULL;
	call->answer.date = -1;
	call->answer.retry_after_s = 0;
	call->retry_date = -1;
	call->answer.attempts++;
	call->started_ms = call->active_ms = now_ms();
	call->state = CALL_RUNNING;
	if (stats)
	{
		stats->requests++;
		stats->retries += call->answer.attempts > 1;
	}
	if (curl_multi_add_handle(http->multi, call->easy) != CURLM_OK)
		ereport(ERROR,
				(errcode(ERRCODE_OUT_OF_MEMORY),
				 errmsg("out of memory while preparing a request")));
}

/*
 * Try again soon when other requests of this process are under way, whose end
 * gives descriptors back; that belongs to the time for connecting.
 */
static void
wait_for_room(CvxCall *call)
{
	int64		now = now_ms();
	int64		limit_ms = call->http->remote.connect_timeout_ms;
	bool		is_hopeful = false;
	dlist_iter	iter;

	dlist_foreach(iter, &pool)
	{
		CvxHttp    *http = dlist_container(CvxHttp, node, iter.cur);

		if (http == call->http || !has_work(http))
			continue;
		is_hopeful = true;

		/* A page that was asked for in advance may have come meanwhile. */
		if (!http->is_watched)
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

static void
configure(CvxCall *call)
{
	CURL	   *easy = call->easy;
	const CvxRemote *remote = &call->http->remote;
	bool		is_alone;

	curl_easy_reset(easy);
	curl_easy_setopt(easy, CURLOPT_URL, call->url);
	curl_easy_setopt(easy, CURLOPT_PRIVATE, call);
	curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, call->curl_error);
	curl_easy_setopt(easy, CURLOPT_HTTPHEADER,
					 call->headers ? call->headers : call->http->headers);

	/*
	 * On a kept connection that turns out to be closed libcurl would send the
	 * request again by itself.  So a write has a connection of its own.
	 */
	is_alone = call->request.is_write || call->http->is_distrusted;
	curl_easy_setopt(easy, CURLOPT_FRESH_CONNECT, is_alone ? 1L : 0L);
	curl_easy_setopt(easy, CURLOPT_FORBID_REUSE, is_alone ? 1L : 0L);
	curl_easy_setopt(easy, CURLOPT_SSL_SESSIONID_CACHE,
					 call->http->is_distrusted ? 0L : 1L);
	if (call->request.body)
	{
		curl_easy_setopt(easy, CURLOPT_POSTFIELDSIZE_LARGE,
						 (curl_off_t) call->request.body_len);
		curl_easy_setopt(easy, CURLOPT_POSTFIELDS, call->request.body);
		curl_easy_setopt(easy, CURLOPT_CUSTOMREQUEST, call->request.method);
	}
	else if (strcmp(call->request.method, "GET") == 0)
		curl_easy_setopt(easy, CURLOPT_HTTPGET, 1L);
	else
	{
		curl_easy_setopt(easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t) 0);
		curl_easy_setopt(easy, CURLOPT_POSTFIELDS, "");
		curl_easy_setopt(easy, CURLOPT_CUSTOMREQUEST, call->request.method);
	}

	/* where it may go */
	cvx_curl_limit_protocols(easy);
	curl_easy_setopt(easy, CURLOPT_FOLLOWLOCATION, 0L);
	curl_easy_setopt(easy, CURLOPT_PROXY,
					 remote->http_proxy ? remote->http_proxy : "");
	curl_easy_setopt(easy, CURLOPT_PROXYUSERNAME, remote->proxy_user);
	curl_easy_setopt(easy, CURLOPT_PROXYPASSWORD, remote->proxy_password);
	curl_easy_setopt(easy, CURLOPT_NOPROXY, "");
	curl_easy_setopt(easy, CURLOPT_NETRC, (long) CURL_NETRC_IGNORED);
	curl_easy_setopt(easy, CURLOPT_OPENSOCKETFUNCTION, on_open_socket);
	curl_easy_setopt(easy, CURLOPT_OPENSOCKETDATA, call);
	curl_easy_setopt(easy, CURLOPT_CLOSESOCKETFUNCTION, on_close_socket);
	curl_easy_setopt(easy, CURLOPT_CLOSESOCKETDATA, NULL);
	curl_easy_setopt(easy, CURLOPT_SSLVERSION, (long) CURL_SSLVERSION_TLSv1_2);
	curl_easy_setopt(easy, CURLOPT_SSL_VERIFYPEER, 1L);
	curl_easy_setopt(easy, CURLOPT_SSL_VERIFYHOST, 2L);
	if (remote->ca_file)
	{
		/* instead of the system's certificates, not beside them */
		curl_easy_setopt(easy, CURLOPT_CAINFO, remote->ca_file);
		curl_easy_setopt(easy, CURLOPT_CAPATH, NULL);
	}
	cvx_curl_keep_no_authorities(easy);

	/* how it is waited for */
	curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
	cvx_curl_quick_exit(easy);
	curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS,
					 (long) remote->connect_timeout_ms);
	curl_easy_setopt(easy, CURLOPT_TCP_KEEPALIVE, 1L);
	curl_easy_setopt(easy, CURLOPT_TCP_KEEPIDLE, 30L);
	curl_easy_setopt(easy, CURLOPT_TCP_KEEPINTVL, 15L);

	/* what comes back */
	curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, (long) CURL_HTTP_VERSION_1_1);
	curl_easy_setopt(easy, CURLOPT_ACCEPT_ENCODING, "gzip, deflate");
	curl_easy_setopt(easy, CURLOPT_BUFFERSIZE, RECEIVE_BUFFER_BYTES);
	curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, on_body);
	curl_easy_setopt(easy, CURLOPT_WRITEDATA, call);
	curl_easy_setopt(easy, CURLOPT_HEADERFUNCTION, on_header);
	curl_easy_setopt(easy, CURLOPT_HEADERDATA, call);
	curl_easy_setopt(easy, CURLOPT_NOPROGRESS, 0L);
	curl_easy_setopt(easy, CURLOPT_XFERINFOFUNCTION, on_progress);
	curl_easy_setopt(easy, CURLOPT_XFERINFODATA, call);
	curl_easy_setopt(easy, CURLOPT_DEBUGFUNCTION, on_debug);
	curl_easy_setopt(easy, CURLOPT_DEBUGDATA, call);
	curl_easy_setopt(easy, CURLOPT_VERBOSE, 1L);
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
	now = now_ms();
	dlist_foreach_modify(iter, &http->calls)
		check_clock(dlist_container(CvxCall, node, iter.cur), now);
}

/* Let libcurl work, and take in ended attempts; begin none. */
static void
work(CvxHttp *http)
{
	CURLMsg    *message;
	int			nleft;
	int64		now = now_ms();
	int64		pause = http->is_awaited ? 0 : now - http->driven_at_ms;
	dlist_iter	iter;

	/* The consumer's own pause is no silence of the server. */
	if (pause > CONSUMER_PAUSE_MS)
	{
		dlist_foreach(iter, &http->calls)
		{
			CvxCall    *call = dlist_container(CvxCall, node, iter.cur);

			call->started_ms += Min(pause, now - call->started_ms);
			if (call->answered_ms >= 0)
				call->answered_ms += Min(pause, now - call->answered_ms);
			call->active_ms = Max(call->active_ms, now);
		}
	}
	http->driven_at_ms = now;
	http->is_awaited = false;
	http->is_watched = false;
	if (http->multi == NULL)
		return;
	drive_curl(http);
	while ((message = curl_multi_info_read(http->multi, &nleft)) != NULL)
	{
		CvxCall    *call = NULL;
		CURLcode	rc = message->data.result;

		if (message->msg != CURLMSG_DONE)
			continue;
		curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE,
						  (char **) &call);
		end_attempt(call, rc);
	}
}

/*
 * Signals are blocked meanwhile: libcurl may start its resolver thread, which
 * inherits the mask and must never run a handler of this process.
 */
static void
drive_curl(CvxHttp *http)
{
	sigset_t	all;
	sigset_t	old;
	int			nrunning;

	http->turn_ms = now_ms();	/* before its callbacks ask */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
#ifdef CVX_USE_EPOLL
	{
		struct epoll_event events[8];
		int			nevents = epoll_wait(http->epfd, events, lengthof(events), 0);

		for (int i = 0; i < nevents; i++)
		{
			int			flags = 0;

			if (events[i].data.fd == http->timerfd)
			{
				uint64		count;

				if (read(http->timerfd, &count, sizeof(count)) < 0)
					continue;
				continue;
			}
			if (events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR))
				flags |= CURL_CSELECT_IN;
			if (events[i].events & EPOLLOUT)
				flags |= CURL_CSELECT_OUT;
			if (events[i].events & EPOLLERR)
				flags |= CURL_CSELECT_ERR;
			curl_multi_socket_action(http->multi, events[i].data.fd, flags,
									 &nrunning);
		}
		if (http->timer_due_ms >= 0 && http->timer_due_ms <= now_ms())
		{
			http->timer_due_ms = -1;
			curl_multi_socket_action(http->multi, CURL_SOCKET_TIMEOUT, 0,
									 &nrunning);
		}
	}
#else
	curl_multi_perform(http->multi, &nrunning);
#endif
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	http->turn_ms = -1;
}

/* Has an attempt been silent for too long, or a pause ended? */
static void
check_clock(CvxCall *call, int64 now)
{
	if (call->state == CALL_PAUSING && now >= call->wake_ms)
		start_attempt(call);
	else if (call->state == CALL_RUNNING && now >= deadline_ms(call))
		end_attempt(call, CURLE_OPERATION_TIMEDOUT);
}

/*
 * When the running attempt or the pause of a call ends by the clock.  The
 * final answer must begin in time; once it has begun it must go on, and come
 * to an end: not slower on average than MIN_BYTES_PER_S, with the time of
 * request_timeout as an advance.  Interim answers and a proxy's consent begin
 * nothing.
 */
static int64
deadline_ms(CvxCall *call)
{
	const CvxRemote *remote = &call->http->remote;
	int64		deadline = PG_INT64_MAX;

	if (call->state == CALL_PAUSING)
		return call->wake_ms;
	if (remote->request_timeout_ms != 0)
		deadline = remote->request_timeout_ms +
			(call->answered_ms < 0 ? call->started_ms : call->answered_ms +
			 (int64) call->answer.body_len * 1000 / MIN_BYTES_PER_S);
	if (remote->idle_timeout_ms != 0 && call->answered_ms >= 0)
		deadline = Min(deadline, call->active_ms + remote->idle_timeout_ms);
	return deadline;
}

/* An attempt has ended: note its answer, then stop or plan the next one. */
static void
end_attempt(CvxCall *call, CURLcode rc)
{
	CvxAnswer  *answer = &call->answer;
	long		status = 0;
	curl_off_t	nbytes = 0;

	answer->transport = classify(call, rc);

	/*
	 * Where the end of the connection overtakes the alert, before or after
	 * our request: the likely cause.
	 */
	if ((answer->transport == CVX_TRANSPORT_LOST ||
		 answer->transport == CVX_TRANSPORT_NO_CONNECTION) &&
		call->wants_certificate && call->head_bytes == 0)
		call->fault_reason = "it has asked for a client certificate, and closed the connection";
	curl_easy_getinfo(call->easy, CURLINFO_RESPONSE_CODE, &status);
	curl_easy_getinfo(call->easy, CURLINFO_SIZE_DOWNLOAD_T, &nbytes);
	answer->status = answer->transport == CVX_TRANSPORT_OK ? (int) status : 0;

	/* A server that misses a certificate looks at no request. */
	answer->may_have_arrived = has_sent_request(call) &&
		answer->transport != CVX_TRANSPORT_CLIENT_CERTIFICATE;
	if (answer->transport != CVX_TRANSPORT_OK)
	{
		answer->body_len = 0;
		answer->reason = call->fault_reason ? call->fault_reason :
			call->curl_error[0] ? call->curl_error : curl_easy_strerror(rc);
		if (answer->transport == CVX_TRANSPORT_REFUSED_ADDRESS)
			answer->reason = call->address;
	}
	if (call->retry_date >= 0)
	{
		/* By the server's clock, which made the date. */
		int64		now = answer->date >= 0 ? answer->date : (int64) time(NULL);

		answer->retry_after_s =
			(int) Max(Min(call->retry_date - now, MAX_RETRY_AFTER_S), 0);
	}
	if (call->request.stats)
		call->request.stats->bytes += nbytes;
	detach_easy(call, answer->transport == CVX_TRANSPORT_OK);
	decide(call);
}

/* Take the handle from libcurl; keep it for the next request if it is sound. */
static void
detach_easy(CvxCall *call, bool keep)
{
	CvxHttp    *http = call->http;

	curl_multi_remove_handle(http->multi, call->easy);
	if (keep && http->spare == NULL)
	{
		/* The call may be gone before the handle is used again. */
		curl_easy_reset(call->easy);
		http->spare = call->easy;
	}
	else
		curl_easy_cleanup(call->easy);
	call->easy = NULL;
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
	call->wake_ms = now_ms() + (call->answer.retry_after_s > 0 ?
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

/*
 * How an attempt ended.  A refused address counts only when no other one was
 * used: of two addresses, one may be refused after the other has answered.
 */
static CvxTransport
classify(CvxCall *call, CURLcode rc)
{
	CvxTransport refusal;

	if (rc == CURLE_OK)
		return CVX_TRANSPORT_OK;
	if ((refusal = refused_by_proxy(call)) != CVX_TRANSPORT_OK)
		return refusal;
	if (call->fault == CVX_TRANSPORT_TIMED_OUT && !has_sent_request(call))
		return CVX_TRANSPORT_NO_CONNECTION;
	if (call->fault != CVX_TRANSPORT_OK)
		return call->fault;
	if (call->address[0] != '\0' && !call->has_socket &&
		!has_sent_request(call))
		return CVX_TRANSPORT_REFUSED_ADDRESS;
	if (is_certificate_missing(call, rc))
		return CVX_TRANSPORT_CLIENT_CERTIFICATE;
	switch (rc)
	{
		case CURLE_COULDNT_RESOLVE_HOST:
		case CURLE_COULDNT_RESOLVE_PROXY:
		case CURLE_COULDNT_CONNECT:
		case CURLE_SSL_CONNECT_ERROR:
			return CVX_TRANSPORT_NO_CONNECTION;
		case CURLE_PEER_FAILED_VERIFICATION:
		case CURLE_SSL_CACERT_BADFILE:
		case CURLE_SSL_CERTPROBLEM:
		case CURLE_SSL_ISSUER_ERROR:
		case CURLE_SSL_CIPHER:
			return CVX_TRANSPORT_TLS;
		case CURLE_OPERATION_TIMEDOUT:
			return has_sent_request(call) ? CVX_TRANSPORT_TIMED_OUT :
				CVX_TRANSPORT_NO_CONNECTION;
		case CURLE_OUT_OF_MEMORY:	/* before 8.6: headers beyond its limit */
		case CVX_CURLE_TOO_LARGE:
		case CURLE_BAD_CONTENT_ENCODING:
		case CURLE_WEIRD_SERVER_REPLY:
		case CURLE_UNSUPPORTED_PROTOCOL:
		case CURLE_WRITE_ERROR:
			return CVX_TRANSPORT_UNREADABLE;
		default:
			return has_sent_request(call) ? CVX_TRANSPORT_LOST :
				CVX_TRANSPORT_NO_CONNECTION;
	}
}

/* Has a proxy answered CONNECT with a refusal?  OK: no. */
static CvxTransport
refused_by_proxy(CvxCall *call)
{
	long		status = 0;

	if (call->has_tunnel)
		return CVX_TRANSPORT_OK;
	curl_easy_getinfo(call->easy, CURLINFO_HTTP_CONNECTCODE, &status);
	switch (status)
	{
		case 407:
			return CVX_TRANSPORT_PROXY_AUTH;
		case 408:
		case 425:
		case 429:
			return CVX_TRANSPORT_NO_CONNECTION;
		default:
			return status < 300 ? CVX_TRANSPORT_OK :
				status < 500 ? CVX_TRANSPORT_PROXY_REFUSED :
				CVX_TRANSPORT_NO_CONNECTION;
	}
}

/*
 * Has the server ended the handshake since we have no certificate to show?
 * With TLS 1.3 the alert that says so follows the first bytes of the request,
 * and belongs to the handshake all the same.  Older versions have no alert of
 * that meaning: there it is one that follows the server's asking, within the
 * handshake.
 */
static bool
is_certificate_missing(CvxCall *call, CURLcode rc)
{
	if (rc == (CURLcode) CVX_CURLE_SSL_CLIENTCERT)
		return true;
	if (rc == CURLE_SSL_CONNECT_ERROR && call->wants_certificate)
		return strstr(call->curl_error, " alert ") != NULL;
	return (rc == CURLE_RECV_ERROR || rc == CURLE_SEND_ERROR ||
			rc == CURLE_SSL_CONNECT_ERROR) &&
		(strstr(call->curl_error, "alert certificate required") != NULL ||
		 strstr(call->curl_error, "Certificate is required") != NULL);
}

/*
 * May the server have something of the request?  libcurl counts the bytes of
 * heads that were sent, in some versions those of CONNECT as well.  (Its times
 * do not tell: in some versions that of PRETRANSFER passes for a connection
 * that failed, too.)
 */
static bool
has_sent_request(CvxCall *call)
{
	long		nsent = 0;
	long		nconnects = 0;

	curl_easy_getinfo(call->easy, CURLINFO_REQUEST_SIZE, &nsent);
	curl_easy_getinfo(call->easy, CURLINFO_NUM_CONNECTS, &nconnects);

	/* Until a proxy accepts CONNECT, only it has been sent anything. */
	if (is_tunnelled(&call->http->remote) && nconnects > 0 &&
		!call->has_tunnel)
		return false;
	return nsent > call->tunnel_bytes;
}

/* Does an HTTP proxy give us a tunnel to the server? */
static bool
is_tunnelled(const CvxRemote *remote)
{
	return remote->http_proxy != NULL && !remote->is_plain &&
		(strstr(remote->http_proxy, "://") == NULL ||
		 pg_strncasecmp(remote->http_proxy, "http", 4) == 0);
}

/* Sleep until something can be done for the call, at most so long. */
static void
wait_for_news(CvxCall *call, int64 max_ms)
{
	long		timeout = (long) Min(next_timeout_ms(call->http), max_ms);

	call->http->is_awaited = true;
	if (call->http->multi == NULL)
	{
		if (WaitLatch(MyLatch,
					  WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
					  timeout, CVX_WAIT_EVENT) & WL_LATCH_SET)
			ResetLatch(MyLatch);
		return;
	}
#ifdef CVX_USE_EPOLL
	if (WaitLatchOrSocket(MyLatch,
						  WL_LATCH_SET | WL_SOCKET_READABLE |
						  WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						  call->http->epfd, timeout, CVX_WAIT_EVENT) &
		WL_LATCH_SET)
		ResetLatch(MyLatch);
#else
	curl_multi_poll(call->http->multi, NULL, 0, (int) Min(timeout, 100), NULL);
#endif
}

/* How long nothing needs to be done, at most a minute. */
static long
next_timeout_ms(CvxHttp *http)
{
	int64		now = now_ms();
	int64		due = now + 60000;
	dlist_iter	iter;

	if (http->timer_due_ms >= 0)
		due = Min(due, http->timer_due_ms);
	dlist_foreach(iter, &http->calls)
	{
		CvxCall    *call = dlist_container(CvxCall, node, iter.cur);

		if (call->state != CALL_DONE)
			due = Min(due, deadline_ms(call));
	}
	return (long) Max(due - now, 0);
}

/* Microseconds of a clock that nobody sets. */
static int64
now_us(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64) now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

static int64
now_ms(void)
{
	return now_us() / 1000;
}

/* ------------------------------------------------------------------------
 * libcurl's callbacks: see invariant 2
 * ------------------------------------------------------------------------
 */

static size_t
on_body(char *data, size_t size, size_t n, void *arg)
{
	CvxCall    *call = (CvxCall *) arg;
	CvxAnswer  *answer = &call->answer;
	size_t		len = size * n;
	size_t		limit = call->http->remote.max_response_bytes;

	call->active_ms = now_ms();
	if (must_stop(call))
		return 0;
	if (len > limit - answer->body_len)
	{
		call->fault = CVX_TRANSPORT_TOO_LARGE;
		return 0;
	}
	if (answer->body_len + len + 1 > call->body_size)
	{
		size_t		want = Max(call->body_size * 2, FIRST_BODY_BYTES);
		curl_off_t	announced = -1;
		char	   *grown;

		/* The announced length is exact unless the body is compressed. */
		curl_easy_getinfo(call->easy, CURLINFO_CONTENT_LENGTH_DOWNLOAD_T,
						  &announced);
		if (call->body_size == 0 && announced > 0 &&
			(uint64) announced <= limit)
			want = (size_t) announced + 1;
		want = Min(Max(want, answer->body_len + len + 1), limit + 1);
		grown = realloc(answer->body, want);
		if (grown == NULL)
		{
			call->fault = CVX_TRANSPORT_NO_MEMORY;
			return 0;
		}
		answer->body = grown;
		call->body_size = want;
	}
	memcpy(answer->body + answer->body_len, data, len);
	answer->body_len += len;
	answer->body[answer->body_len] = '\0';
	return len;
}

/*
 * A line of a head, with its status line and the empty one at its end, or of
 * a trailer.
 */
static size_t
on_header(char *data, size_t size, size_t n, void *arg)
{
	CvxCall    *call = (CvxCall *) arg;
	size_t		len = size * n;
	char		text[64];

	call->active_ms = now_ms();
	if (must_stop(call))
		return 0;
	call->head_bytes += len;
	if (call->head_bytes > MAX_HEAD_BYTES)
	{
		call->fault = CVX_TRANSPORT_UNREADABLE;
		call->fault_reason = "its headers and trailers are larger than 256 kB";
		return 0;
	}
	if (len > 5 && memcmp(data, "HTTP/", 5) == 0)
		call->head = begin_head(call, data, len);
	else if (len > 0 && (data[0] == '\r' || data[0] == '\n'))
		end_head(call);
	if (call->head != HEAD_FINAL)
		return len;
	if (is_header(data, len, "date:", text))
		call->answer.date = (int64) curl_getdate(text, NULL);
	else if (is_header(data, len, "retry-after:", text))
	{
		const char *value = text + strspn(text, " \t");

		/* Seconds, or a date: the Date to compare it with may follow. */
		if (*value >= '0' && *value <= '9')
			call->answer.retry_after_s =
				(int) Min(strtol(value, NULL, 10), MAX_RETRY_AFTER_S);
		else
			call->retry_date = (int64) curl_getdate(value, NULL);
	}
	return len;
}

/* A status line: whose head does it begin? */
static HeadKind
begin_head(CvxCall *call, const char *line, size_t len)
{
	const char *space = memchr(line, ' ', len);
	char		class = space && space + 1 < line + len ? space[1] : ' ';
	long		nconnects = 0;

	if (class == '1')
		return HEAD_INTERIM;
	curl_easy_getinfo(call->easy, CURLINFO_NUM_CONNECTS, &nconnects);
	if (is_tunnelled(&call->http->remote) && nconnects > 0 &&
		!call->has_tunnel)
		return class == '2' ? HEAD_TUNNEL : HEAD_REFUSAL;
	if (call->answered_ms < 0)
		call->answered_ms = call->active_ms;
	return HEAD_FINAL;
}

/* The empty line at the end of a head. */
static void
end_head(CvxCall *call)
{
	if (call->head == HEAD_TUNNEL)
	{
		call->has_tunnel = true;
		curl_easy_getinfo(call->easy, CURLINFO_REQUEST_SIZE,
						  &call->tunnel_bytes);
	}
	call->head = HEAD_NONE;
}

/* libcurl calls this often, also while it reads what it gives to nobody. */
static int
on_progress(void *arg, curl_off_t download_size, curl_off_t downloaded,
			curl_off_t upload_size, curl_off_t uploaded)
{
	return must_stop((CvxCall *) arg) ? 1 : 0;
}

/*
 * Has libcurl worked for so long that a cancel or the clock must count before
 * it returns?  Only looks: the interrupt is served when it has returned.
 */
static bool
must_stop(CvxCall *call)
{
	int64		now = now_ms();

	/* A handle that is taken from libcurl gives a last sign of its own. */
	if (call->http == NULL || call->http->turn_ms < 0 ||
		now - call->http->turn_ms < MAX_TURN_MS)
		return false;
	if (now >= deadline_ms(call))
	{
		call->fault = CVX_TRANSPORT_TIMED_OUT;
		return true;
	}
	if ((!QueryCancelPending && !ProcDiePending) ||
		InterruptHoldoffCount > 0 || CritSectionCount > 0)
		return false;
	call->fault = CVX_TRANSPORT_LOST;
	call->fault_reason = "the statement was canceled while the answer came";
	return true;
}

/* Is a header line of this name?  Then text, of 64 bytes, is its value. */
static bool
is_header(const char *line, size_t len, const char *name, char *text)
{
	size_t		name_len = strlen(name);

	if (len <= name_len || len - name_len >= 64 ||
		pg_strncasecmp(line, name, name_len) != 0)
		return false;
	memcpy(text, line + name_len, len - name_len);
	text[len - name_len] = '\0';
	return true;
}

/*
 * libcurl's remarks on what it does.  One of them is of interest: nothing else
 * tells that a server has asked for a certificate.
 */
static int
on_debug(CURL *easy, curl_infotype type, char *text, size_t len, void *arg)
{
	static const char asked[] = "Request CERT";

	if (type == CURLINFO_TEXT &&
		memmem(text, len, asked, sizeof(asked) - 1) != NULL)
		((CvxCall *) arg)->wants_certificate = true;
	return 0;
}

static curl_socket_t
on_open_socket(void *arg, curlsocktype purpose, struct curl_sockaddr *address)
{
	CvxCall    *call = (CvxCall *) arg;
	const CvxRemote *remote = &call->http->remote;
	bool		is_refused;
	int			fd;

	is_refused = !cvx_address_is_allowed(&address->addr, remote->host,
										 remote->is_plain &&
										 !remote->allow_insecure_http);

	/* A proxy is a superuser's choice; the address is its, not the host's. */
	if (is_refused && remote->http_proxy == NULL)
	{
		strcpy(call->address, "unknown address");
		if (address->addr.sa_family == AF_INET)
			inet_ntop(AF_INET, &((struct sockaddr_in *) &address->addr)->sin_addr,
					  call->address, sizeof(call->address));
		else if (address->addr.sa_family == AF_INET6)
			inet_ntop(AF_INET6, &((struct sockaddr_in6 *) &address->addr)->sin6_addr,
					  call->address, sizeof(call->address));
		return CURL_SOCKET_BAD;
	}
	call->has_socket = true;
	if (!AcquireExternalFD())
		return CURL_SOCKET_BAD;
	fd = socket(address->family, address->socktype | SOCK_CLOEXEC,
				address->protocol);
	if (fd < 0)
		ReleaseExternalFD();
	return fd;
}

static int
on_close_socket(void *arg, curl_socket_t fd)
{
	ReleaseExternalFD();
	return close(fd);
}

#ifdef CVX_USE_EPOLL
static int
on_socket(CURL *easy, curl_socket_t fd, int what, void *arg, void *socket_arg)
{
	CvxHttp    *http = (CvxHttp *) arg;
	struct epoll_event event = {.data.fd = fd};

	if (what == CURL_POLL_REMOVE)
	{
		epoll_ctl(http->epfd, EPOLL_CTL_DEL, fd, &event);
		return 0;
	}
	event.events = (what & CURL_POLL_IN ? EPOLLIN : 0) |
		(what & CURL_POLL_OUT ? EPOLLOUT : 0);
	if (epoll_ctl(http->epfd, EPOLL_CTL_MOD, fd, &event) != 0)
		epoll_ctl(http->epfd, EPOLL_CTL_ADD, fd, &event);
	return 0;
}

static int
on_timer(CURLM *multi, long timeout_ms, void *arg)
{
	CvxHttp    *http = (CvxHttp *) arg;

	http->timer_due_ms = timeout_ms < 0 ? -1 : now_ms() + timeout_ms;
	return 0;
}
#endif
