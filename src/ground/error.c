/*
 * error.c
 *		What does a failure mean in SQL?
 *
 * The only place where HTTP statuses, Convex codes and transport failures
 * become SQLSTATEs, classes and hints.  What foreign text may be shown is up to
 * redact.c.
 *
 * It does not decide whether a request is repeated: api_answer.c does.
 *
 * Room: ground 0.4
 */
#include "postgres.h"

#include "lib/stringinfo.h"
#include "ground/compat.h"
#include "ground/error.h"
#include "ground/redact.h"

/* snapshot_too_old, whose name newer servers do not define */
#define SQLSTATE_SNAPSHOT_TOO_OLD	MAKE_SQLSTATE('7', '2', '0', '0', '0')

/* What a status, or a status with a code, means.  First match wins. */
typedef struct Meaning
{
	int			first_status;
	int			last_status;
	const char *code;			/* NULL: any */
	int			sqlstate;
	CvxErrorClass class;
	const char *summary;		/* "server \"x\" <summary>" */
	const char *hint;			/* or NULL */
	bool		needs_key;		/* only when a key was sent */
	bool		needs_lost;		/* only when a snapshot is lost */
} Meaning;

static const Meaning meanings[] = {
	{401, 401, NULL, ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION, CVX_CLASS_AUTH,
		"does not accept the deploy key",
	"Check deploy_key or deploy_key_file of the user mapping: the key must belong to this deployment."},
	{403, 403, "StreamingExportNotEnabled", ERRCODE_INSUFFICIENT_PRIVILEGE, CVX_CLASS_PLAN,
		"does not allow reading: streaming export is not part of its plan",
	"Reading needs the Convex Professional plan or a self-hosted deployment.  Writing still works."},
	{403, 403, "BadDeployKey", ERRCODE_INSUFFICIENT_PRIVILEGE, CVX_CLASS_AUTH,
		"has not received the deploy key",
		"The key was sent: a proxy on the way may take the header Authorization away.",
	.needs_key = true},
	{403, 403, "BadDeployKey", ERRCODE_INSUFFICIENT_PRIVILEGE, CVX_CLASS_AUTH,
		"wants a deploy key",
	"Set deploy_key or deploy_key_file in the user mapping."},
	{403, 403, "SystemIdentityRequired", ERRCODE_INSUFFICIENT_PRIVILEGE, CVX_CLASS_AUTH,
		"refuses a key that acts for a user",
	"Use a plain deploy key."},
	{403, 403, NULL, ERRCODE_INSUFFICIENT_PRIVILEGE, CVX_CLASS_AUTH,
		"refuses permission",
	"Use a deploy key that allows the action named in the detail."},
	{404, 404, "FivetranMissingUpdatedRow", ERRCODE_T_R_SERIALIZATION_FAILURE, CVX_CLASS_PROTOCOL,
		"no longer has a row that was to be updated",
	"Run the transaction again."},
	{404, 405, NULL, ERRCODE_FEATURE_NOT_SUPPORTED, CVX_CLASS_PROTOCOL,
		"does not know the request",
	"Check deployment_url; or the Convex server is too old for this feature."},
	{407, 407, NULL, ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION, CVX_CLASS_CONFIG,
		"is behind a proxy that demands other credentials",
	"Set proxy_user and proxy_password in the user mapping, or check the option http_proxy of the server."},
	{408, 408, NULL, ERRCODE_CONNECTION_FAILURE, CVX_CLASS_OVERLOAD,
		"gave up on the request after its own time limit",
	"Try again; a first page of an old snapshot can take long."},
	{400, 400, "SnapshotTooOld", SQLSTATE_SNAPSHOT_TOO_OLD, CVX_CLASS_RETENTION,
		"no longer serves that snapshot",
	"Convex serves snapshots of the last days only.  Start a new transaction, or choose a later convex_fdw.snapshot."},
	{400, 400, "SnapshotTooNew", ERRCODE_FDW_UNABLE_TO_CREATE_EXECUTION, CVX_CLASS_RETENTION,
		"has not reached that snapshot yet",
	"Choose an earlier convex_fdw.snapshot."},
	{400, 400, "InvalidWindowToReadDocuments", ERRCODE_FDW_UNABLE_TO_CREATE_EXECUTION, CVX_CLASS_RETENTION,
		"no longer keeps the changes after that timestamp",
	"Read the tables again from a new snapshot."},
	{400, 499, "BackendIsNotRunning", ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE, CVX_CLASS_PAUSED,
		"is paused or disabled",
	"Resume the deployment in the Convex dashboard."},
	{400, 400, "BadFormat", ERRCODE_FDW_UNABLE_TO_CREATE_EXECUTION, CVX_CLASS_PROTOCOL,
		"does not know the value format convex_encoded_json",
	"Update the Convex server."},
	{400, 400, "InvalidListSnapshotCursor", ERRCODE_FDW_UNABLE_TO_CREATE_EXECUTION, CVX_CLASS_RETENTION,
		"no longer accepts the page cursor",
	"Run the statement again."},
	{400, 400, "NoSchemaForExport", ERRCODE_FDW_UNABLE_TO_CREATE_EXECUTION, CVX_CLASS_PROTOCOL,
		"cannot describe one of its tables",
	"Use convex_tables(), which does not depend on schemas."},
	{400, 400, "MissingFivetranPrimaryKeyIndex", ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE, CVX_CLASS_PROTOCOL,
		"has no index for the primary key of a table",
	"Make it with convex_ensure_primary_key()."},
	{400, 400, "IndexNotFoundError", ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE, CVX_CLASS_PROTOCOL,
		"has no index for the primary key of a table",
	"Make it with convex_ensure_primary_key()."},
	{400, 400, "IndexBackfillingError", ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE, CVX_CLASS_PROTOCOL,
		"is still building the index for the primary key of a table",
	"Wait for it with convex_ensure_primary_key()."},
	{400, 400, "FieldNotInIndex", ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE, CVX_CLASS_PROTOCOL,
		"has an index for another primary key of a table",
	"Replace it with convex_ensure_primary_key()."},
	{400, 400, "InvalidIndexRange", ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE, CVX_CLASS_PROTOCOL,
		"has an index for another primary key of a table",
	"Replace it with convex_ensure_primary_key()."},
	{400, 400, "MissingValueForFivetranPrimaryKeyIndex", ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE, CVX_CLASS_PROTOCOL,
		"has an index for another primary key of a table",
	"Replace it with convex_ensure_primary_key()."},
	{400, 400, "InvalidImport", ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE, CVX_CLASS_PROTOCOL,
		"cannot clear a table while one of its indexes is being built",
	"Try again when convex_primary_key_indexes_ready() says true, or convex_ensure_primary_key() has come back."},
	{400, 400, "OverwriteNotSupported", ERRCODE_FEATURE_NOT_SUPPORTED, CVX_CLASS_PROTOCOL,
		"no longer replaces tables by others",
	"Use convex_clear_tables(), or convex_import() with mode replace."},
	{400, 400, "MissingIndex", ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE, CVX_CLASS_PROTOCOL,
		"has no index for the primary key of a table",
	"Make it with convex_add_primary_key_indexes() or convex_ensure_primary_key()."},
	{400, 400, "InvalidPrimaryKey", ERRCODE_INVALID_PARAMETER_VALUE, CVX_CLASS_PROTOCOL,
		"does not accept the primary key",
	"A key is one to 15 fields, each an identifier or a path like a.b."},
	{400, 400, "SchemaEnforcementError", ERRCODE_FDW_UNABLE_TO_CREATE_EXECUTION, CVX_CLASS_PROTOCOL,
		"refused a document that does not match the deployment's schema",
	"Change the document, or the schema in Convex."},
	{400, 400, NULL, ERRCODE_FDW_UNABLE_TO_CREATE_EXECUTION, CVX_CLASS_PROTOCOL,
		"refused the request",
	"Check table, component and column names, and that the Convex server is up to date."},
	{425, 425, NULL, ERRCODE_INSUFFICIENT_RESOURCES, CVX_CLASS_OVERLOAD,
	"is not ready", "Try again later."},
	{429, 429, NULL, ERRCODE_INSUFFICIENT_RESOURCES, CVX_CLASS_OVERLOAD,
	"limits the rate of requests", "Try again later."},
	{503, 503, "OptimisticConcurrencyControlFailure", ERRCODE_T_R_SERIALIZATION_FAILURE, CVX_CLASS_OVERLOAD,
		"could not commit because of concurrent changes",
	"Run the transaction again."},
	{503, 503, "InternalServerError", SQLSTATE_SNAPSHOT_TOO_OLD, CVX_CLASS_RETENTION,
		"may no longer keep that snapshot",
		"Convex keeps documents of the last days only, as the deployment is set.  Start a new transaction, or choose a later convex_fdw.snapshot.",
	.needs_lost = true},
	{503, 503, "TableSummariesUnavailable", ERRCODE_INSUFFICIENT_RESOURCES, CVX_CLASS_OVERLOAD,
	"is still starting", "Try again in a minute."},
	{503, 503, NULL, ERRCODE_INSUFFICIENT_RESOURCES, CVX_CLASS_OVERLOAD,
	"is overloaded or unavailable", "Try again later."},
	{502, 502, NULL, ERRCODE_FDW_ERROR, CVX_CLASS_OVERLOAD,
		"cannot be reached by the proxy in front of it",
	"Check that the Convex server runs, and the log of the proxy or load balancer that gave this answer."},
	{504, 504, NULL, ERRCODE_FDW_ERROR, CVX_CLASS_OVERLOAD,
		"did not answer the proxy in front of it in time",
	"Try again; or allow requests more time in the proxy or load balancer that gave this answer."},
	{520, 599, NULL, ERRCODE_FDW_ERROR, CVX_CLASS_OVERLOAD,
		"was not reached: a proxy in front of it has answered",
	"Try again; the documentation of the proxy or content network says what its status means."},
	{500, 599, NULL, ERRCODE_FDW_ERROR, CVX_CLASS_OVERLOAD,
		"failed to answer",
	"Convex answers some invalid requests with status 500: check table, component and column names, then the server's log."},
	{300, 399, NULL, ERRCODE_FDW_UNABLE_TO_CREATE_REPLY, CVX_CLASS_PROTOCOL,
		"answered with a redirect, and redirects are not followed",
	"Set deployment_url to the address that serves the API."},
	{400, 499, NULL, ERRCODE_FDW_UNABLE_TO_CREATE_EXECUTION, CVX_CLASS_PROTOCOL,
		"refused the request",
	"Check deployment_url: a proxy or something other than Convex may be answering."},
	{0, 999, NULL, ERRCODE_FDW_UNABLE_TO_CREATE_REPLY, CVX_CLASS_PROTOCOL,
		"gave an answer that cannot be read",
	"Check deployment_url: something other than Convex may be answering."},
};

/* How an exchange that ended below HTTP is told. */
static const struct
{
	CvxTransport transport;
	int			sqlstate;
	CvxErrorClass class;
	const char *summary;		/* one %s: the server */
	const char *hint;
	const char *word;			/* only when the reason has it; or NULL */
}			failures[] = {
	/* What the library that makes secure connections says, first. */
	{CVX_TRANSPORT_TLS, ERRCODE_FDW_UNABLE_TO_ESTABLISH_CONNECTION, CVX_CLASS_NETWORK,
		"could not establish a secure connection to server \"%s\"",
		"Check the clock of this machine, and whether the server's certificate was renewed.",
	"expired"},
	{CVX_TRANSPORT_TLS, ERRCODE_FDW_UNABLE_TO_ESTABLISH_CONNECTION, CVX_CLASS_NETWORK,
		"could not establish a secure connection to server \"%s\"",
		"Check the clock of this machine: the server's certificate begins to be valid later.",
	"not yet valid"},
	{CVX_TRANSPORT_NO_CONNECTION, ERRCODE_FDW_UNABLE_TO_ESTABLISH_CONNECTION, CVX_CLASS_NETWORK,
		"could not establish a secure connection to server \"%s\"",
		"This PostgreSQL server and the other side have no version of TLS in common: at least TLS 1.2 is needed.",
	"protocol version"},
	{CVX_TRANSPORT_NO_CONNECTION, ERRCODE_FDW_UNABLE_TO_ESTABLISH_CONNECTION, CVX_CLASS_NETWORK,
		"could not establish a secure connection to server \"%s\"",
		"This PostgreSQL server and the other side have no version of TLS in common: at least TLS 1.2 is needed.",
	"unsupported protocol"},
	{CVX_TRANSPORT_NO_CONNECTION, ERRCODE_FDW_UNABLE_TO_ESTABLISH_CONNECTION, CVX_CLASS_NETWORK,
		"could not establish a secure connection to server \"%s\"",
		"Check deployment_url: what answers at this port does not speak TLS.",
	"wrong version number"},
	{CVX_TRANSPORT_NO_CONNECTION, ERRCODE_FDW_UNABLE_TO_ESTABLISH_CONNECTION, CVX_CLASS_NETWORK,
		"could not establish a secure connection to server \"%s\"",
		"The other side refused the TLS handshake: check deployment_url and what it demands.",
	"alert"},
	{CVX_TRANSPORT_NO_CONNECTION, ERRCODE_FDW_UNABLE_TO_ESTABLISH_CONNECTION, CVX_CLASS_NETWORK,
		"could not connect to server \"%s\"",
	"Check deployment_url and the network between this PostgreSQL server and Convex."},
	{CVX_TRANSPORT_TLS, ERRCODE_FDW_UNABLE_TO_ESTABLISH_CONNECTION, CVX_CLASS_NETWORK,
		"could not establish a secure connection to server \"%s\"",
	"Install the ca-certificates package, or set ca_file to the authority that signed the server's certificate."},
	{CVX_TRANSPORT_CLIENT_CERTIFICATE, ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION, CVX_CLASS_CONFIG,
		"server \"%s\" demands a client certificate",
	"Client certificates are not supported.  Let deployment_url name an address that does without, or a proxy of your own that has one."},
	{CVX_TRANSPORT_PROXY_AUTH, ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION, CVX_CLASS_CONFIG,
		"the proxy of server \"%s\" demands other credentials",
	"Set proxy_user and proxy_password in the user mapping."},
	{CVX_TRANSPORT_PROXY_REFUSED, ERRCODE_INSUFFICIENT_PRIVILEGE, CVX_CLASS_CONFIG,
		"the proxy of server \"%s\" refuses the connection",
	"Check the option http_proxy of the server, and the rules of the proxy."},
	{CVX_TRANSPORT_REFUSED_ADDRESS, ERRCODE_INSUFFICIENT_PRIVILEGE, CVX_CLASS_CONFIG,
		"the address of server \"%s\" is not allowed",
	"A superuser can list the host in convex_fdw.allowed_hosts."},
	{CVX_TRANSPORT_LOST, ERRCODE_CONNECTION_FAILURE, CVX_CLASS_NETWORK,
		"lost the connection to server \"%s\"",
	"Try again; see the option max_retries of the server."},
	{CVX_TRANSPORT_TIMED_OUT, ERRCODE_CONNECTION_FAILURE, CVX_CLASS_NETWORK,
		"timed out waiting for server \"%s\"",
	"See the options request_timeout and idle_timeout of the server."},
	{CVX_TRANSPORT_TOO_LARGE, ERRCODE_PROGRAM_LIMIT_EXCEEDED, CVX_CLASS_CONFIG,
		"answer of server \"%s\" is larger than max_response_size",
	"Raise the server's option max_response_size, or read fewer columns."},
	{CVX_TRANSPORT_UNREADABLE, ERRCODE_FDW_UNABLE_TO_CREATE_REPLY, CVX_CLASS_PROTOCOL,
		"server \"%s\" gave an answer that cannot be read",
	"Check deployment_url: something other than Convex may be answering."},
	{CVX_TRANSPORT_NO_MEMORY, ERRCODE_OUT_OF_MEMORY, CVX_CLASS_LOCAL,
		"out of memory while reading from server \"%s\"",
	"Read fewer columns, or lower the server's option max_response_size."},
};

/*
 * What an error that did not come from an exchange is.  A category stands for
 * all of its states that are not named before it.
 */
static const struct
{
	int			sqlstate;		/* or a category */
	CvxErrorClass class;
}			other_classes[] = {
	{ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION, CVX_CLASS_AUTH},
	{ERRCODE_FDW_UNABLE_TO_ESTABLISH_CONNECTION, CVX_CLASS_NETWORK},
	{ERRCODE_FDW_INVALID_OPTION_NAME, CVX_CLASS_CONFIG},
	{ERRCODE_FDW_DYNAMIC_PARAMETER_VALUE_NEEDED, CVX_CLASS_CONFIG},
	{ERRCODE_LOCK_NOT_AVAILABLE, CVX_CLASS_LOCAL},
	{ERRCODE_OBJECT_IN_USE, CVX_CLASS_LOCAL},
	{ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE, CVX_CLASS_CONFIG},
	{ERRCODE_UNDEFINED_FILE, CVX_CLASS_CONFIG},
	{ERRCODE_TO_CATEGORY(ERRCODE_FDW_ERROR), CVX_CLASS_PROTOCOL},
	{ERRCODE_TO_CATEGORY(ERRCODE_CONNECTION_EXCEPTION), CVX_CLASS_NETWORK},
	{ERRCODE_TO_CATEGORY(ERRCODE_SYNTAX_ERROR_OR_ACCESS_RULE_VIOLATION), CVX_CLASS_CONFIG},
	{ERRCODE_TO_CATEGORY(ERRCODE_DATA_EXCEPTION), CVX_CLASS_CONFIG},
	{ERRCODE_TO_CATEGORY(ERRCODE_PROGRAM_LIMIT_EXCEEDED), CVX_CLASS_CONFIG},
};

/* The last exchange that was reported; set by those that report one. */
static struct
{
	int			sqlstate;		/* 0: none */
	CvxErrorClass class;
	int			retry_after_s;
}			last;

static const Meaning *find_meaning(const CvxIncident *incident);
static void note(int sqlstate, CvxErrorClass class, int retry_after_s);
static int	explain_exchange(const CvxIncident *incident);
static void place_callback(void *arg);

/*
 * Report an answer whose HTTP status is not a success, or whose body is not
 * what the endpoint gives.  Allocates in the current context; never returns.
 */
void
cvx_error_http(const CvxIncident *incident)
{
	const Meaning *meaning = find_meaning(incident);
	int			sqlstate = meaning->sqlstate;
	const char *hint = incident->hint ? incident->hint : meaning->hint;

	/* Programs run again what ends with class 40, as a whole. */
	if (incident->is_partial &&
		ERRCODE_TO_CATEGORY(sqlstate) == ERRCODE_TRANSACTION_ROLLBACK)
	{
		sqlstate = ERRCODE_TRANSACTION_RESOLUTION_UNKNOWN;
		hint = "A part of the transaction is in Convex, as the detail says: run only the rest again.";
	}
	note(sqlstate, meaning->class, incident->retry_after_s);
	ereport(ERROR,
			(errcode(sqlstate),
			 errmsg("Convex server \"%s\" %s", incident->server,
					meaning->summary),
			 explain_exchange(incident),
			 hint ? errhint("%s", hint) : 0));
	pg_unreachable();
}

/*
 * Report a write that Convex may have applied or not.  Never returns.
 */
void
cvx_error_unknown(const CvxIncident *incident)
{
	ereport(ERROR,
			(errcode(ERRCODE_TRANSACTION_RESOLUTION_UNKNOWN),
			 errmsg("Convex server \"%s\" may have applied a write or not",
					incident->server),
			 explain_exchange(incident),
			 errhint("%s", incident->hint ? incident->hint :
					 "Look at the data in Convex before you run the transaction again.")));
	pg_unreachable();
}

/*
 * Report an exchange that did not reach an HTTP answer.  Never returns.
 */
void
cvx_error_transport(const CvxIncident *incident)
{
	for (int i = 0; i < lengthof(failures); i++)
	{
		if (failures[i].transport != incident->transport ||
			(failures[i].word != NULL &&
			 (incident->reason == NULL ||
			  strcasestr(incident->reason, failures[i].word) == NULL)))
			continue;
		note(failures[i].sqlstate, failures[i].class, 0);
		ereport(ERROR,
				(errcode(failures[i].sqlstate),
				 errmsg(failures[i].summary, incident->server),
				 explain_exchange(incident),
				 failures[i].hint ? errhint("%s", failures[i].hint) : 0));
	}
	elog(ERROR, "no failure to report");
	pg_unreachable();
}

/* Begin anew: what was reported before is of no concern any more. */
void
cvx_error_forget(void)
{
	last.sqlstate = 0;
}

/*
 * What an error is that was thrown since cvx_error_forget(), for whoever has
 * to try again by itself; and how long the server wants to be left alone, or
 * 0.
 */
CvxErrorClass
cvx_error_class(const ErrorData *error, int *retry_after_s)
{
	*retry_after_s = 0;
	if (last.sqlstate != 0 && last.sqlstate == error->sqlerrcode)
	{
		*retry_after_s = last.retry_after_s;
		return last.class;
	}
	for (int i = 0; i < lengthof(other_classes); i++)
		if (other_classes[i].sqlstate == error->sqlerrcode ||
			other_classes[i].sqlstate == ERRCODE_TO_CATEGORY(error->sqlerrcode))
			return other_classes[i].class;
	return CVX_CLASS_LOCAL;
}

/*
 * While pushed, errors tell where decoding is; an error of class 22 or 23
 * raised while a column is set becomes HV004 and names the value's place.
 */
void
cvx_error_push(CvxErrorPlace *place)
{
	place->callback.callback = place_callback;
	place->callback.arg = place;
	place->callback.previous = error_context_stack;
	error_context_stack = &place->callback;
}

void
cvx_error_pop(CvxErrorPlace *place)
{
	Assert(error_context_stack == &place->callback);
	error_context_stack = place->callback.previous;
}

static const Meaning *
find_meaning(const CvxIncident *incident)
{
	const Meaning *meaning = meanings;

	while (incident->status < meaning->first_status ||
		   incident->status > meaning->last_status ||
		   (meaning->code && (incident->code == NULL ||
							  strcmp(incident->code, meaning->code) != 0)) ||
		   (meaning->needs_key && !incident->has_key) ||
		   (meaning->needs_lost && !incident->is_lost))
		meaning++;
	return meaning;
}

static void
note(int sqlstate, CvxErrorClass class, int retry_after_s)
{
	last.sqlstate = sqlstate;
	last.class = class;
	last.retry_after_s = retry_after_s;
}

/* The detail line: what was asked, how often, and what came back. */
static int
explain_exchange(const CvxIncident *incident)
{
	StringInfoData buf;

	initStringInfo(&buf);
	appendStringInfoString(&buf, incident->endpoint);
	if (incident->status != 0)
		appendStringInfo(&buf, " answered with HTTP status %d",
						 incident->status);
	else
		appendStringInfoString(&buf, " got no answer");
	appendStringInfo(&buf, " after %d %s", incident->attempts,
					 incident->attempts == 1 ? "attempt" : "attempts");
	if (incident->code)
		appendStringInfo(&buf, ", %s",
						 cvx_redact_excerpt(incident->code, strlen(incident->code)));
	if (incident->message)
		appendStringInfo(&buf, ": %s",
						 cvx_redact_excerpt(incident->message, strlen(incident->message)));
	else if (incident->reason)
		appendStringInfo(&buf, ": %s",
						 cvx_redact_excerpt(incident->reason, strlen(incident->reason)));
	else if (incident->body_len > 0)
		appendStringInfo(&buf, ": %s",
						 cvx_redact_excerpt(incident->body, incident->body_len));
	else if (incident->status != 0)
		appendStringInfoString(&buf, " and an empty body");
	if (buf.data[buf.len - 1] != '.')
		appendStringInfoChar(&buf, '.');
	if (incident->more)
		appendStringInfo(&buf, "  %s", incident->more);
	return errdetail_internal("%s", buf.data);
}

/* Error context callback of cvx_error_push(). */
static void
place_callback(void *arg)
{
	CvxErrorPlace *place = (CvxErrorPlace *) arg;
	int			category = ERRCODE_TO_CATEGORY(geterrcode());

	if (place->column &&
		(category == ERRCODE_DATA_EXCEPTION ||
		 category == ERRCODE_INTEGRITY_CONSTRAINT_VIOLATION ||
		 geterrcode() == ERRCODE_FDW_INVALID_DATA_TYPE))
	{
		bool		has_nul = geterrcode() == ERRCODE_CHARACTER_NOT_IN_REPERTOIRE;

		errcode(ERRCODE_FDW_INVALID_DATA_TYPE);
		cvx_redact_current_error();
		errdetail("Field \"%s\" of document \"%s\" does not fit column \"%s\" of %s.",
				  place->field,
				  cvx_redact_excerpt(place->document, place->document_len),
				  place->column, place->relation);
		if (has_nul)
			errhint("Set the option nul_handling of the foreign table or its server to 'replace' or 'strip', or declare the column as json.");
		else
			errhint("Declare the column with a type that fits, such as jsonb, or set the table's option on_conversion_error to 'null'.");
	}
	else if (place->relation)
		errcontext("reading %s from Convex server \"%s\"", place->relation,
				   place->server);
	else
		errcontext("reading from Convex server \"%s\"", place->server);
}
