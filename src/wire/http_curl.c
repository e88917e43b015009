/*
 * http_curl.c
 *		How does libcurl send, wait for and receive a request?
 *
 * The only file that knows libcurl.  It keeps invariants 2, 4, 5 and 8 of
 * http.h.  It does not decide whether an attempt is followed by another one.
 *
 * All sockets of a multi handle are gathered in one epoll descriptor, which
 * any WaitEventSet can watch.
 *
 * Room: wire 1.2
 */
#include "postgres.h"

#include <arpa/inet.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include <curl/curl.h>

#include "miscadmin.h"
#include "storage/fd.h"
#include "storage/latch.h"

#include "ground/compat.h"
#include "wire/address.h"
#include "wire/http_curl.h"

#ifdef CVX_USE_EPOLL
#include <sys/epoll.h>
#endif

StaticAssertDecl(CVX_CURL_ERROR_SIZE >= CURL_ERROR_SIZE,
				 "libcurl writes so much");
StaticAssertDecl(CVX_ADDRESS_SIZE >= INET6_ADDRSTRLEN,
				 "inet_ntop writes so much");

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

/* What a Retry-After says is believed up to an hour. */
#define MAX_RETRY_AFTER_S	3600

/* Set when libcurl has been initialised in this process. */
static bool curl_is_ready = false;

static void mark_file(const char *path, CvxFileMark *mark);
static bool is_same_file(const CvxFileMark *a, const CvxFileMark *b);
static void configure(CvxCall *call);
static void configure_request(CvxCall *call, CURL *easy);
static void configure_route(CvxCall *call, CURL *easy);
static void end_attempt(CvxCall *call, CURLcode rc);
static void detach_easy(CvxCall *call, bool keep);
static CvxTransport classify(CvxCall *call, CURLcode rc);
static CvxTransport refused_by_proxy(CvxCall *call);
static bool is_certificate_missing(CvxCall *call, CURLcode rc);
static bool is_tunnelled(const CvxRemote *remote);
static size_t on_body(char *data, size_t size, size_t n, void *arg);
static size_t on_header(char *data, size_t size, size_t n, void *arg);
static CvxHeadKind begin_head(CvxCall *call, const char *line, size_t len);
static void end_head(CvxCall *call);
static int	on_progress(void *arg, curl_off_t download_size,
						curl_off_t downloaded, curl_off_t upload_size,
						curl_off_t uploaded);
static bool must_stop(CvxCall *call);
static bool is_header(const char *line, size_t len, const char *name,
					  char *text);
static int	on_debug(CURL *easy, curl_infotype type, char *text, size_t len,
					 void *arg);
static curl_socket_t on_open_socket(void *arg, curlsocktype purpose,
									struct curl_sockaddr *address);
static int	on_close_socket(void *arg, curl_socket_t fd);
#ifdef CVX_USE_EPOLL
static int	on_socket(CURL *easy, curl_socket_t fd, int what, void *arg,
					  void *socket_arg);
static int	on_timer(CURLM *multi, long timeout_ms, void *arg);
#endif

/*
 * Once in each process that needs it.  libcurl and TLS libraries write session
 * secrets into the file that SSLKEYLOGFILE names, some when they are set up,
 * some with the first handshake; so it goes, from this process alone.  What
 * else they read from the environment is overruled for each request; see
 * configure().
 */
void
cvx_curl_init(void)
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
void
cvx_curl_look_at_authorities(const CvxRemote *remote,
							 CvxAuthorities *authorities)
{
	const curl_version_info_data *info = curl_version_info(CURLVERSION_NOW);

	memset(authorities, 0, sizeof(CvxAuthorities));
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

/* Are the files what they were when the connection was opened? */
bool
cvx_curl_has_same_authorities(const CvxHttp *http, const CvxRemote *remote)
{
	CvxAuthorities now;

	cvx_curl_look_at_authorities(remote, &now);
	return is_same_file(&now.bundle, &http->authorities.bundle) &&
		is_same_file(&now.directory, &http->authorities.directory);
}

/* NULL is allowed.  Does not throw. */
void
cvx_curl_free_headers(struct curl_slist *headers)
{
	curl_slist_free_all(headers);
}

/* End an attempt that is in flight, if there is one.  Does not throw. */
void
cvx_curl_abandon(CvxCall *call, CvxHttp *http)
{
	if (call->attempt.easy)
	{
		/* In flight: removing the handle closes its connection. */
		curl_multi_remove_handle(http->multi, call->attempt.easy);
		curl_easy_cleanup(call->attempt.easy);
		call->attempt.easy = NULL;
	}
}

/* The headers of a request; NULL: no memory. */
struct curl_slist *
cvx_curl_headers(CvxHttp *http, const char *content_type)
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

/*
 * Give a connection a multi handle, once there is room for its descriptors;
 * false: there are none.
 */
bool
cvx_curl_wake(CvxHttp *http)
{
#ifdef CVX_USE_EPOLL
	http->pulse.epfd = epoll_create1(EPOLL_CLOEXEC);
	if (http->pulse.epfd < 0)
		return false;
	ReserveExternalFD();
	cvx_curl_watch_timer(http);
#endif
	http->multi = curl_multi_init();
	if (http->multi == NULL)
	{
		cvx_curl_rest(http);
		return false;
	}
	for (int i = 0; i < CVX_CURL_FDS; i++)
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
void
cvx_curl_rest(CvxHttp *http)
{
	if (http->spare)
		curl_easy_cleanup(http->spare);
	http->spare = NULL;
	if (http->multi)
	{
		curl_multi_cleanup(http->multi);
		for (int i = 0; i < CVX_CURL_FDS; i++)
			ReleaseExternalFD();
	}
	http->multi = NULL;
	http->pulse.timer_due_ms = -1;
#ifdef CVX_USE_EPOLL
	if (http->pulse.timerfd >= 0)
	{
		close(http->pulse.timerfd);
		ReleaseExternalFD();
	}
	http->pulse.timerfd = -1;
	if (http->pulse.epfd >= 0)
	{
		close(http->pulse.epfd);
		ReleaseExternalFD();
	}
	http->pulse.epfd = -1;
#endif
}

#ifdef CVX_USE_EPOLL
/* The timer belongs to what one descriptor stands for. */
void
cvx_curl_watch_timer(CvxHttp *http)
{
	struct epoll_event event = {.events = EPOLLIN,.data.fd = http->pulse.timerfd};

	if (http->pulse.epfd >= 0 && http->pulse.timerfd >= 0)
		(void) epoll_ctl(http->pulse.epfd, EPOLL_CTL_ADD, http->pulse.timerfd, &event);
}
#endif

/* Give the request to a libcurl that is awake.  May throw before that. */
void
cvx_curl_begin(CvxCall *call)
{
	CvxHttp    *http = call->http;
	CvxHttpStats *stats = call->request.stats;

	call->attempt.easy = http->spare ? http->spare : curl_easy_init();
	http->spare = NULL;
	if (call->attempt.easy == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OUT_OF_MEMORY),
				 errmsg("out of memory while preparing a request")));

	/* Whoever holds the connection goes on with it, but trusts anew. */
	if (!http->is_distrusted &&
		!cvx_curl_has_same_authorities(http, &http->remote))
	{
		http->is_distrusted = true;
		http->is_valid = false;
	}
	configure(call);
	call->attempt = (CvxAttempt) {
		.easy = call->attempt.easy,
		.answered_ms = -1,
		.retry_date = -1,
		.fault = CVX_TRANSPORT_OK,
		.head = HEAD_NONE
	};
	call->attempt.started_ms = call->attempt.active_ms = cvx_curl_now_ms();
	call->answer.body_len = 0;
	call->answer.status = 0;
	call->answer.reason = NULL;
	call->answer.date = -1;
	call->answer.retry_after_s = 0;
	call->answer.attempts++;
	call->state = CALL_RUNNING;
	if (stats)
	{
		stats->requests++;
		stats->retries += call->answer.attempts > 1;
	}
	if (curl_multi_add_handle(http->multi, call->attempt.easy) != CURLM_OK)
		ereport(ERROR,
				(errcode(ERRCODE_OUT_OF_MEMORY),
				 errmsg("out of memory while preparing a request")));
}

/* A call whose attempt has ended, with its answer; or NULL. */
CvxCall *
cvx_curl_next_ended(CvxHttp *http)
{
	CURLMsg    *message;
	int			nleft;

	while ((message = curl_multi_info_read(http->multi, &nleft)) != NULL)
	{
		CvxCall    *call = NULL;
		CURLcode	rc = message->data.result;

		if (message->msg != CURLMSG_DONE)
			continue;
		curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE,
						  (char **) &call);
		end_attempt(call, rc);
		return call;
	}
	return NULL;
}

/* End an attempt that takes too long. */
void
cvx_curl_time_out(CvxCall *call)
{
	end_attempt(call, CURLE_OPERATION_TIMEDOUT);
}

/*
 * Signals are blocked meanwhile: libcurl may start its resolver thread, which
 * inherits the mask and must never run a handler of this process.
 */
void
cvx_curl_drive(CvxHttp *http)
{
	sigset_t	all;
	sigset_t	old;
	int			nrunning;

	http->pulse.turn_ms = cvx_curl_now_ms();	/* before its callbacks ask */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
#ifdef CVX_USE_EPOLL
	{
		struct epoll_event events[8];
		int			nevents = epoll_wait(http->pulse.epfd, events, lengthof(events), 0);

		for (int i = 0; i < nevents; i++)
		{
			int			flags = 0;

			if (events[i].data.fd == http->pulse.timerfd)
			{
				uint64		count;

				if (read(http->pulse.timerfd, &count, sizeof(count)) < 0)
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
		if (http->pulse.timer_due_ms >= 0 && http->pulse.timer_due_ms <= cvx_curl_now_ms())
		{
			http->pulse.timer_due_ms = -1;
			curl_multi_socket_action(http->multi, CURL_SOCKET_TIMEOUT, 0,
									 &nrunning);
		}
	}
#else
	curl_multi_perform(http->multi, &nrunning);
#endif
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	http->pulse.turn_ms = -1;
}

/*
 * When the running attempt or the pause of a call ends by the clock.  The
 * final answer must begin in time; once it has begun it must go on, and come
 * to an end: not slower on average than MIN_BYTES_PER_S, with the time of
 * request_timeout as an advance.  Interim answers and a proxy's consent begin
 * nothing.
 */
int64
cvx_curl_deadline_ms(CvxCall *call)
{
	const CvxRemote *remote = &call->http->remote;
	int64		deadline = PG_INT64_MAX;

	if (call->state == CALL_PAUSING)
		return call->wake_ms;
	if (remote->request_timeout_ms != 0)
		deadline = remote->request_timeout_ms +
			(call->attempt.answered_ms < 0 ? call->attempt.started_ms : call->attempt.answered_ms +
			 (int64) call->answer.body_len * 1000 / MIN_BYTES_PER_S);
	if (remote->idle_timeout_ms != 0 && call->attempt.answered_ms >= 0)
		deadline = Min(deadline, call->attempt.active_ms + remote->idle_timeout_ms);
	return deadline;
}

/*
 * May the server have something of the request?  libcurl counts the bytes of
 * heads that were sent, in some versions those of CONNECT as well.  (Its times
 * do not tell: in some versions that of PRETRANSFER passes for a connection
 * that failed, too.)
 */
bool
cvx_curl_has_sent(CvxCall *call)
{
	long		nsent = 0;
	long		nconnects = 0;

	curl_easy_getinfo(call->attempt.easy, CURLINFO_REQUEST_SIZE, &nsent);
	curl_easy_getinfo(call->attempt.easy, CURLINFO_NUM_CONNECTS, &nconnects);

	/* Until a proxy accepts CONNECT, only it has been sent anything. */
	if (is_tunnelled(&call->http->remote) && nconnects > 0 &&
		!call->attempt.has_tunnel)
		return false;
	return nsent > call->attempt.tunnel_bytes;
}

/* Sleep until something can be done for the call, at most so long. */
void
cvx_curl_wait(CvxCall *call, int64 max_ms)
{
	long		timeout = (long) Min(cvx_curl_timeout_ms(call->http), max_ms);

	call->http->pulse.is_awaited = true;
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
						  call->http->pulse.epfd, timeout, CVX_WAIT_EVENT) &
		WL_LATCH_SET)
		ResetLatch(MyLatch);
#else
	curl_multi_poll(call->http->multi, NULL, 0, (int) Min(timeout, 100), NULL);
#endif
}

/* How long nothing needs to be done, at most a minute. */
long
cvx_curl_timeout_ms(CvxHttp *http)
{
	int64		now = cvx_curl_now_ms();
	int64		due = now + 60000;
	dlist_iter	iter;

	if (http->pulse.timer_due_ms >= 0)
		due = Min(due, http->pulse.timer_due_ms);
	dlist_foreach(iter, &http->calls)
	{
		CvxCall    *call = dlist_container(CvxCall, node, iter.cur);

		if (call->state != CALL_DONE)
			due = Min(due, cvx_curl_deadline_ms(call));
	}
	return (long) Max(due - now, 0);
}

/* Microseconds of a clock that nobody sets. */
int64
cvx_curl_now_us(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64) now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

/* Milliseconds of the same clock. */
int64
cvx_curl_now_ms(void)
{
	return cvx_curl_now_us() / 1000;
}

static void
mark_file(const char *path, CvxFileMark *mark)
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
is_same_file(const CvxFileMark *a, const CvxFileMark *b)
{
	return a->device == b->device && a->inode == b->inode &&
		a->size == b->size &&
		a->modified.tv_sec == b->modified.tv_sec &&
		a->modified.tv_nsec == b->modified.tv_nsec &&
		a->changed.tv_sec == b->changed.tv_sec &&
		a->changed.tv_nsec == b->changed.tv_nsec;
}

static void
configure(CvxCall *call)
{
	CURL	   *easy = call->attempt.easy;

	curl_easy_reset(easy);
	curl_easy_setopt(easy, CURLOPT_PRIVATE, call);
	curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, call->attempt.curl_error);
	configure_request(call, easy);
	configure_route(call, easy);

	/* how it is waited for */
	curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
	cvx_curl_quick_exit(easy);
	curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS,
					 (long) call->http->remote.connect_timeout_ms);
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

/* What is sent. */
static void
configure_request(CvxCall *call, CURL *easy)
{
	bool		is_alone = call->request.is_write || call->http->is_distrusted;

	curl_easy_setopt(easy, CURLOPT_URL, call->url);
	curl_easy_setopt(easy, CURLOPT_HTTPHEADER,
					 call->headers ? call->headers : call->http->headers);

	/*
	 * On a kept connection that turns out to be closed libcurl would send the
	 * request again by itself.  So a write has a connection of its own.
	 */
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
}

/* Where it may go. */
static void
configure_route(CvxCall *call, CURL *easy)
{
	const CvxRemote *remote = &call->http->remote;

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
}

/* An attempt has ended: note its answer. */
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
		call->attempt.wants_certificate && call->attempt.head_bytes == 0)
		call->attempt.fault_reason = "it has asked for a client certificate, and closed the connection";
	curl_easy_getinfo(call->attempt.easy, CURLINFO_RESPONSE_CODE, &status);
	curl_easy_getinfo(call->attempt.easy, CURLINFO_SIZE_DOWNLOAD_T, &nbytes);
	answer->status = answer->transport == CVX_TRANSPORT_OK ? (int) status : 0;

	/* A server that misses a certificate looks at no request. */
	answer->may_have_arrived = cvx_curl_has_sent(call) &&
		answer->transport != CVX_TRANSPORT_CLIENT_CERTIFICATE;
	if (answer->transport != CVX_TRANSPORT_OK)
	{
		answer->body_len = 0;
		answer->reason = call->attempt.fault_reason ? call->attempt.fault_reason :
			call->attempt.curl_error[0] ? call->attempt.curl_error : curl_easy_strerror(rc);
		if (answer->transport == CVX_TRANSPORT_REFUSED_ADDRESS)
			answer->reason = call->attempt.address;
	}
	if (call->attempt.retry_date >= 0)
	{
		/* By the server's clock, which made the date. */
		int64		now = answer->date >= 0 ? answer->date : (int64) time(NULL);

		answer->retry_after_s =
			(int) Max(Min(call->attempt.retry_date - now, MAX_RETRY_AFTER_S), 0);
	}
	if (call->request.stats)
		call->request.stats->bytes += nbytes;
	detach_easy(call, answer->transport == CVX_TRANSPORT_OK);
}

/* Take the handle from libcurl; keep it for the next request if it is sound. */
static void
detach_easy(CvxCall *call, bool keep)
{
	CvxHttp    *http = call->http;

	curl_multi_remove_handle(http->multi, call->attempt.easy);
	if (keep && http->spare == NULL)
	{
		/* The call may be gone before the handle is used again. */
		curl_easy_reset(call->attempt.easy);
		http->spare = call->attempt.easy;
	}
	else
		curl_easy_cleanup(call->attempt.easy);
	call->attempt.easy = NULL;
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
	if (call->attempt.fault == CVX_TRANSPORT_TIMED_OUT && !cvx_curl_has_sent(call))
		return CVX_TRANSPORT_NO_CONNECTION;
	if (call->attempt.fault != CVX_TRANSPORT_OK)
		return call->attempt.fault;
	if (call->attempt.address[0] != '\0' && !call->attempt.has_socket &&
		!cvx_curl_has_sent(call))
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
			return cvx_curl_has_sent(call) ? CVX_TRANSPORT_TIMED_OUT :
				CVX_TRANSPORT_NO_CONNECTION;
		case CURLE_OUT_OF_MEMORY:	/* before 8.6: headers beyond its limit */
		case CVX_CURLE_TOO_LARGE:
		case CURLE_BAD_CONTENT_ENCODING:
		case CURLE_WEIRD_SERVER_REPLY:
		case CURLE_UNSUPPORTED_PROTOCOL:
		case CURLE_WRITE_ERROR:
			return CVX_TRANSPORT_UNREADABLE;
		default:
			return cvx_curl_has_sent(call) ? CVX_TRANSPORT_LOST :
				CVX_TRANSPORT_NO_CONNECTION;
	}
}

/* Has a proxy answered CONNECT with a refusal?  OK: no. */
static CvxTransport
refused_by_proxy(CvxCall *call)
{
	long		status = 0;

	if (call->attempt.has_tunnel)
		return CVX_TRANSPORT_OK;
	curl_easy_getinfo(call->attempt.easy, CURLINFO_HTTP_CONNECTCODE, &status);
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
	if (rc == CURLE_SSL_CONNECT_ERROR && call->attempt.wants_certificate)
		return strstr(call->attempt.curl_error, " alert ") != NULL;
	return (rc == CURLE_RECV_ERROR || rc == CURLE_SEND_ERROR ||
			rc == CURLE_SSL_CONNECT_ERROR) &&
		(strstr(call->attempt.curl_error, "alert certificate required") != NULL ||
		 strstr(call->attempt.curl_error, "Certificate is required") != NULL);
}

/* Does an HTTP proxy give us a tunnel to the server? */
static bool
is_tunnelled(const CvxRemote *remote)
{
	return remote->http_proxy != NULL && !remote->is_plain &&
		(strstr(remote->http_proxy, "://") == NULL ||
		 pg_strncasecmp(remote->http_proxy, "http", 4) == 0);
}

/* libcurl's callbacks: see invariant 2. */

static size_t
on_body(char *data, size_t size, size_t n, void *arg)
{
	CvxCall    *call = (CvxCall *) arg;
	CvxAnswer  *answer = &call->answer;
	size_t		len = size * n;
	size_t		limit = call->http->remote.max_response_bytes;

	call->attempt.active_ms = cvx_curl_now_ms();
	if (must_stop(call))
		return 0;
	if (len > limit - answer->body_len)
	{
		call->attempt.fault = CVX_TRANSPORT_TOO_LARGE;
		return 0;
	}
	if (answer->body_len + len + 1 > call->body_size)
	{
		size_t		want = Max(call->body_size * 2, FIRST_BODY_BYTES);
		curl_off_t	announced = -1;
		char	   *grown;

		/* The announced length is exact unless the body is compressed. */
		curl_easy_getinfo(call->attempt.easy, CURLINFO_CONTENT_LENGTH_DOWNLOAD_T,
						  &announced);
		if (call->body_size == 0 && announced > 0 &&
			(uint64) announced <= limit)
			want = (size_t) announced + 1;
		want = Min(Max(want, answer->body_len + len + 1), limit + 1);
		grown = realloc(answer->body, want);
		if (grown == NULL)
		{
			call->attempt.fault = CVX_TRANSPORT_NO_MEMORY;
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

	call->attempt.active_ms = cvx_curl_now_ms();
	if (must_stop(call))
		return 0;
	call->attempt.head_bytes += len;
	if (call->attempt.head_bytes > MAX_HEAD_BYTES)
	{
		call->attempt.fault = CVX_TRANSPORT_UNREADABLE;
		call->attempt.fault_reason = "its headers and trailers are larger than 256 kB";
		return 0;
	}
	if (len > 5 && memcmp(data, "HTTP/", 5) == 0)
		call->attempt.head = begin_head(call, data, len);
	else if (len > 0 && (data[0] == '\r' || data[0] == '\n'))
		end_head(call);
	if (call->attempt.head != HEAD_FINAL)
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
			call->attempt.retry_date = (int64) curl_getdate(value, NULL);
	}
	return len;
}

/* A status line: whose head does it begin? */
static CvxHeadKind
begin_head(CvxCall *call, const char *line, size_t len)
{
	const char *space = memchr(line, ' ', len);
	char		class = space && space + 1 < line + len ? space[1] : ' ';
	long		nconnects = 0;

	if (class == '1')
		return HEAD_INTERIM;
	curl_easy_getinfo(call->attempt.easy, CURLINFO_NUM_CONNECTS, &nconnects);
	if (is_tunnelled(&call->http->remote) && nconnects > 0 &&
		!call->attempt.has_tunnel)
		return class == '2' ? HEAD_TUNNEL : HEAD_REFUSAL;
	if (call->attempt.answered_ms < 0)
		call->attempt.answered_ms = call->attempt.active_ms;
	return HEAD_FINAL;
}

/* The empty line at the end of a head. */
static void
end_head(CvxCall *call)
{
	if (call->attempt.head == HEAD_TUNNEL)
	{
		call->attempt.has_tunnel = true;
		curl_easy_getinfo(call->attempt.easy, CURLINFO_REQUEST_SIZE,
						  &call->attempt.tunnel_bytes);
	}
	call->attempt.head = HEAD_NONE;
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
	int64		now = cvx_curl_now_ms();

	/* A handle that is taken from libcurl gives a last sign of its own. */
	if (call->http == NULL || call->http->pulse.turn_ms < 0 ||
		now - call->http->pulse.turn_ms < MAX_TURN_MS)
		return false;
	if (now >= cvx_curl_deadline_ms(call))
	{
		call->attempt.fault = CVX_TRANSPORT_TIMED_OUT;
		return true;
	}
	if ((!QueryCancelPending && !ProcDiePending) ||
		InterruptHoldoffCount > 0 || CritSectionCount > 0)
		return false;
	call->attempt.fault = CVX_TRANSPORT_LOST;
	call->attempt.fault_reason = "the statement was canceled while the answer came";
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
		((CvxCall *) arg)->attempt.wants_certificate = true;
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
		strcpy(call->attempt.address, "unknown address");
		if (address->addr.sa_family == AF_INET)
			inet_ntop(AF_INET, &((struct sockaddr_in *) &address->addr)->sin_addr,
					  call->attempt.address, sizeof(call->attempt.address));
		else if (address->addr.sa_family == AF_INET6)
			inet_ntop(AF_INET6, &((struct sockaddr_in6 *) &address->addr)->sin6_addr,
					  call->attempt.address, sizeof(call->attempt.address));
		return CURL_SOCKET_BAD;
	}
	call->attempt.has_socket = true;
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
		epoll_ctl(http->pulse.epfd, EPOLL_CTL_DEL, fd, &event);
		return 0;
	}
	event.events = (what & CURL_POLL_IN ? EPOLLIN : 0) |
		(what & CURL_POLL_OUT ? EPOLLOUT : 0);
	if (epoll_ctl(http->pulse.epfd, EPOLL_CTL_MOD, fd, &event) != 0)
		epoll_ctl(http->pulse.epfd, EPOLL_CTL_ADD, fd, &event);
	return 0;
}

static int
on_timer(CURLM *multi, long timeout_ms, void *arg)
{
	CvxHttp    *http = (CvxHttp *) arg;

	http->pulse.timer_due_ms = timeout_ms < 0 ? -1 : cvx_curl_now_ms() + timeout_ms;
	return 0;
}
#endif
