/*
 * http_curl.h
 *		How does libcurl send, wait for and receive a request?
 *
 * Behind http.h: the connection and the call are known to the files http_*.c
 * alone.
 *
 * Room: wire 1.2
 */
#ifndef CVX_HTTP_CURL_H
#define CVX_HTTP_CURL_H

#include <sys/stat.h>

#include "lib/ilist.h"

#include "ground/compat.h"
#include "wire/http.h"

/* As large as libcurl's CURL_ERROR_SIZE, and INET6_ADDRSTRLEN */
#define CVX_CURL_ERROR_SIZE	256
#define CVX_ADDRESS_SIZE	46

/* libcurl's own descriptors for a multi handle */
#define CVX_CURL_FDS		2

typedef enum CvxCallState
{
	CALL_RUNNING,				/* libcurl works on an attempt */
	CALL_PAUSING,				/* waiting to make the next one */
	CALL_DONE					/* the answer is final */
} CvxCallState;

/* Whose head is being received? */
typedef enum CvxHeadKind
{
	HEAD_NONE,					/* none: a body, a trailer, nothing yet */
	HEAD_TUNNEL,				/* a proxy's consent to CONNECT */
	HEAD_REFUSAL,				/* a proxy's, of CONNECT */
	HEAD_INTERIM,				/* 1xx: the answer is still to come */
	HEAD_FINAL					/* the answer's */
} CvxHeadKind;

/* Which file it is, and in which state; all zeros: none. */
typedef struct CvxFileMark
{
	dev_t		device;
	ino_t		inode;
	off_t		size;
	struct timespec modified;
	struct timespec changed;
} CvxFileMark;

/* The files that say whom to trust: a bundle, and a directory. */
typedef struct CvxAuthorities
{
	CvxFileMark	bundle;
	CvxFileMark	directory;
} CvxAuthorities;

/* When libcurl works for a connection, and who waits for it. */
typedef struct CvxPulse
{
	int64		driven_at_ms;	/* when drive() last ran */
	int64		turn_ms;		/* when libcurl's present turn began, or -1 */
	bool		is_awaited;		/* somebody has waited for it since */
	bool		is_watched;		/* in a foreign WaitEventSet since */
	int64		timer_due_ms;	/* libcurl's timer; -1 when unset */
#ifdef CVX_USE_EPOLL
	int			epfd;
	int			timerfd;
#endif
} CvxPulse;

struct CvxHttp
{
	dlist_node	node;			/* in pool */

	/* fixed at open */
	MemoryContext cxt;
	CvxRemote	remote;
	char	   *allowed_hosts;	/* the setting at that time */
	CvxAuthorities authorities;	/* the files at that time */
	uint32		server_hash;
	uint32		user_hash;
	char	   *authorization;	/* header line, or NULL */
	struct curl_slist *headers;

	/* per life */
	void	   *multi;			/* CURLM; or NULL: it has no descriptors */
	void	   *spare;			/* a CURL at rest, or NULL */
	dlist_head	calls;
	int			nrefs;
	bool		is_valid;		/* cleared by invalidation callbacks */
	bool		is_distrusted;	/* the authorities have changed since */
	CvxPulse	pulse;
};

/* One attempt of a call. */
typedef struct CvxAttempt
{
	void	   *easy;			/* CURL */
	int64		started_ms;
	int64		answered_ms;	/* begin of the final answer, or -1 */
	int64		active_ms;		/* last sign of life of the server */
	int64		retry_date;		/* of Retry-After, as Unix seconds; or -1 */
	CvxTransport fault;			/* set by a callback that ends the attempt */
	const char *fault_reason;	/* its words, or NULL */
	char		address[CVX_ADDRESS_SIZE];	/* the last refused one, or "" */
	bool		has_socket;		/* an address was not refused */
	bool		wants_certificate;	/* the server has asked us for one */
	char		curl_error[CVX_CURL_ERROR_SIZE];

	/* what has come and gone */
	CvxHeadKind	head;
	size_t		head_bytes;		/* of all heads and trailers */
	bool		has_tunnel;		/* the proxy has accepted CONNECT */
	long		tunnel_bytes;	/* sent until then, as libcurl counts */
} CvxAttempt;

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

	/* per life */
	CvxCallState	state;
	int64		wake_ms;		/* end of the pause */
	CvxAttempt	attempt;
	int			nretries;
	int			nfree_retries;
	int64		roomless_ms;	/* since when there are no descriptors; or 0 */
	CvxAnswer	answer;
	size_t		body_size;		/* allocated, by malloc */
};

extern void cvx_curl_init(void);
extern void cvx_curl_look_at_authorities(const CvxRemote *remote,
										 CvxAuthorities *authorities);
extern bool cvx_curl_has_same_authorities(const CvxHttp *http,
										  const CvxRemote *remote);
extern struct curl_slist *cvx_curl_headers(CvxHttp *http,
										   const char *content_type);
extern void cvx_curl_free_headers(struct curl_slist *headers);
extern bool cvx_curl_wake(CvxHttp *http);
extern void cvx_curl_rest(CvxHttp *http);
#ifdef CVX_USE_EPOLL
extern void cvx_curl_watch_timer(CvxHttp *http);
#endif
extern void cvx_curl_begin(CvxCall *call);
extern void cvx_curl_drive(CvxHttp *http);
extern CvxCall *cvx_curl_next_ended(CvxHttp *http);
extern void cvx_curl_time_out(CvxCall *call);
extern void cvx_curl_abandon(CvxCall *call, CvxHttp *http);
extern bool cvx_curl_has_sent(CvxCall *call);
extern void cvx_curl_wait(CvxCall *call, int64 max_ms);
extern long cvx_curl_timeout_ms(CvxHttp *http);
extern int64 cvx_curl_deadline_ms(CvxCall *call);
extern int64 cvx_curl_now_us(void);
extern int64 cvx_curl_now_ms(void);

#endif							/* CVX_HTTP_CURL_H */
