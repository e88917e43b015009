/*
 * http.h
 *		How are bytes sent, awaited, cancelled, capped, retried?
 *
 * The one face of http_curl.c, http_pool.c and http_call.c.  Invariants:
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
 *	   cvx_curl_deadline_ms().
 *	8. Whether a server may have acted on a request is told by what was sent,
 *	   never by how far libcurl says that it has come.
 *
 * Room: wire 1.1
 */
#ifndef CVX_HTTP_H
#define CVX_HTTP_H

#include "datatype/timestamp.h"
#include "nodes/pg_list.h"

#include "ground/error.h"

/* The library's version, and how we present ourselves to Convex. */
#define CVX_VERSION		"1.0.0"
#define CVX_CLIENT		"pg-convex-fdw-" CVX_VERSION

/*
 * How one deployment is reached by one role.  Built by options_read.c; copied by
 * cvx_http_open().
 */
typedef struct CvxRemote
{
	Oid			serverid;
	Oid			userid;			/* the role whose user mapping was used */
	Oid			umid;			/* the user mapping */
	char	   *server_name;
	char	   *base_url;		/* scheme://host[:port] */
	char	   *host;			/* lower case, without brackets */
	char	   *key;			/* deploy key; NULL when none is to be sent */
	char	   *ca_file;		/* or NULL */
	char	   *http_proxy;		/* or NULL */
	char	   *proxy_user;		/* or NULL */
	char	   *proxy_password; /* or NULL */
	bool		is_plain;		/* http rather than https */
	bool		allow_insecure_http;
	int			connect_timeout_ms;
	int			request_timeout_ms; /* to the first byte */
	int			idle_timeout_ms;	/* without a byte after that */
	int			max_retries;
	int			max_retry_wait_ms;
	size_t		max_response_bytes; /* after decompression */
} CvxRemote;

/* What a request cost; the caller's, added to by http_curl.c. */
typedef struct CvxHttpStats
{
	int64		requests;
	int64		retries;
	int64		bytes;			/* of bodies, as received */
	int64		wait_us;
} CvxHttpStats;

/* The end of one attempt. */
typedef struct CvxAnswer
{
	CvxTransport transport;
	const char *reason;			/* words for a transport failure, or NULL */
	int			status;			/* HTTP status, 0 if none */
	char	   *body;			/* terminated; lives as long as the call */
	size_t		body_len;
	int64		date;			/* HTTP Date as Unix seconds, or -1 */
	int			retry_after_s;	/* Retry-After from now on, or 0 */
	int			attempts;
	bool		may_have_arrived;	/* the last attempt went past connecting */
} CvxAnswer;

/* May the request be repeated after this answer? */
typedef enum CvxRepeat
{
	CVX_REPEAT_NO,
	CVX_REPEAT_YES,				/* up to max_retries */
	CVX_REPEAT_FEW,				/* may be lasting: at most twice */
	CVX_REPEAT_FREE				/* work goes on at the server: not counted */
} CvxRepeat;

typedef CvxRepeat (*CvxRepeatRule) (const CvxAnswer *answer);

typedef struct CvxRequest
{
	const char *method;
	const char *path;			/* with query, from "/" on */
	const char *body;			/* JSON in UTF-8 unless content_type; or NULL */
	size_t		body_len;		/* 0: the body is a C string */
	const char *content_type;	/* NULL: application/json */
	bool		is_write;		/* only repeated by the rule, never by libcurl */
	CvxRepeatRule repeat;
	CvxHttpStats *stats;		/* or NULL */
} CvxRequest;

typedef struct CvxHttp CvxHttp;
typedef struct CvxCall CvxCall;

/* One pooled connection, as convex_fdw_get_connections() shows it. */
typedef struct CvxHttpInfo
{
	Oid			serverid;
	Oid			userid;
	bool		is_valid;
} CvxHttpInfo;

/* May a request be sent before its answer is needed? */
extern bool cvx_http_prefetch;

extern void cvx_http_init(void);
extern CvxHttp *cvx_http_open(const CvxRemote *remote);
extern const CvxRemote *cvx_http_remote(CvxHttp *http);
extern CvxCall *cvx_http_start(CvxHttp *http, const CvxRequest *request);
extern bool cvx_http_poll(CvxCall *call);
extern void cvx_http_wait(CvxCall *call);
extern bool cvx_http_wait_quietly(CvxCall *call, TimestampTz deadline);
extern bool cvx_http_may_have_arrived(CvxCall *call);
extern bool cvx_http_is_done(CvxCall *call);
extern void cvx_http_pause(CvxHttp *http, int nth);
extern const CvxAnswer *cvx_http_answer(CvxCall *call);
extern const char *cvx_http_endpoint(CvxCall *call);
extern void cvx_http_free(CvxCall *call);
extern int	cvx_http_wait_fd(CvxHttp *http);
extern List *cvx_http_list(void);
extern bool cvx_http_disconnect(Oid serverid);

#endif							/* CVX_HTTP_H */
