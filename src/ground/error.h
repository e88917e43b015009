/*
 * error.h
 *		What does a failure mean in SQL?
 *
 * Room: ground 0.4
 */
#ifndef CVX_ERROR_H
#define CVX_ERROR_H

#include "utils/elog.h"

#include "ground/compat.h"

/* How an exchange ended below HTTP. */
typedef enum CvxTransport
{
	CVX_TRANSPORT_OK,			/* an HTTP status and a body were read */
	CVX_TRANSPORT_NO_CONNECTION,	/* name resolution or connect failed */
	CVX_TRANSPORT_TLS,			/* the TLS handshake or the certificate */
	CVX_TRANSPORT_CLIENT_CERTIFICATE,	/* the server wants one; we have none */
	CVX_TRANSPORT_PROXY_AUTH,	/* the proxy wants credentials, or others */
	CVX_TRANSPORT_PROXY_REFUSED,	/* the proxy does not let us through */
	CVX_TRANSPORT_REFUSED_ADDRESS,	/* the host resolves where we do not go */
	CVX_TRANSPORT_LOST,			/* the line was cut after connecting */
	CVX_TRANSPORT_TIMED_OUT,	/* silence for longer than allowed */
	CVX_TRANSPORT_TOO_LARGE,	/* more decoded bytes than allowed */
	CVX_TRANSPORT_UNREADABLE,	/* not HTTP, or a broken encoding */
	CVX_TRANSPORT_NO_MEMORY
} CvxTransport;

/* What a failure is, for whoever tries again by itself. */
typedef enum CvxErrorClass
{
	CVX_CLASS_LOCAL,			/* of this server: a lock, a full disk */
	CVX_CLASS_CONFIG,			/* a role, an option, a file, a right */
	CVX_CLASS_AUTH,				/* the key, or what it may do */
	CVX_CLASS_PLAN,				/* the deployment may not be read at all */
	CVX_CLASS_RETENTION,		/* Convex no longer has what is asked for */
	CVX_CLASS_PAUSED,			/* the deployment is paused or disabled */
	CVX_CLASS_OVERLOAD,			/* the server cannot answer now */
	CVX_CLASS_NETWORK,			/* there was no answer */
	CVX_CLASS_PROTOCOL			/* an answer that nobody expects */
} CvxErrorClass;

/* Everything that is known of an exchange that failed. */
typedef struct CvxIncident
{
	const char *server;			/* name of the foreign server */
	const char *endpoint;		/* "POST /api/list_snapshot" */
	CvxTransport transport;
	const char *reason;			/* libcurl's or our own words, or NULL */
	int			status;			/* HTTP status, 0 if none */
	int			attempts;		/* how often the request was sent */
	int			retry_after_s;	/* the server's wish, or 0 */
	const char *code;			/* Convex's error code, or NULL */
	const char *message;		/* Convex's message, or NULL */
	const char *body;			/* the body, when it is no Convex error */
	size_t		body_len;
	const char *more;			/* a further sentence of detail, or NULL */
	const char *hint;			/* instead of the usual one, or NULL */
	bool		has_key;		/* a deploy key was sent */
	bool		is_lost;		/* the server answers, but not at that snapshot */
	bool		is_partial;		/* earlier requests of the transaction were applied */
} CvxIncident;

/* Where decoding is: gives errors of values their place.  See error.c. */
typedef struct CvxErrorPlace
{
	ErrorContextCallback callback;
	const char *server;
	const char *relation;		/* quoted name of the foreign table, or NULL */
	const char *column;			/* set while one value is converted */
	const char *field;
	const char *document;		/* its _id; not terminated */
	int			document_len;
} CvxErrorPlace;

CVX_NORETURN extern void cvx_error_http(const CvxIncident *incident);
CVX_NORETURN extern void cvx_error_transport(const CvxIncident *incident);
CVX_NORETURN extern void cvx_error_unknown(const CvxIncident *incident);
extern void cvx_error_forget(void);
extern CvxErrorClass cvx_error_class(const ErrorData *error,
									 int *retry_after_s);
extern void cvx_error_push(CvxErrorPlace *place);
extern void cvx_error_pop(CvxErrorPlace *place);

#endif							/* CVX_ERROR_H */
