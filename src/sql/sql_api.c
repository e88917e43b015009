/*
 * sql_api.c
 *		What may a SQL user call?
 *
 * The functions of the extension.  Each that takes a server needs USAGE on it
 * and a user mapping; none takes a URL.
 *
 * Room: sql 7.1
 */
#include "postgres.h"

#include <math.h>

#include "catalog/pg_type.h"
#include "foreign/foreign.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"

#include "ground/compat.h"
#include "ground/guard.h"
#include "ground/redact.h"
#include "protocol/api.h"
#include "protocol/functions.h"
#include "protocol/inventory.h"
#include "protocol/schema_read.h"
#include "shape/options_read.h"
#include "fdw/fdw_ask.h"
#include "fdw/fdw_scan.h"
#include "sql/sql_api.h"

/* A clock that differs by more makes timestamps confusing to people. */
#define MAX_CLOCK_SKEW_S	60

/* Rows that a set-returning function collects. */
typedef struct Rows
{
	Tuplestorestate *store;
	TupleDesc	tupdesc;
} Rows;

/* A permission that convex_test_connection() looks for. */
/* What open_work() is told, and tells. */
typedef struct Opening
{
	Oid			serverid;
	CvxHttp    *http;
} Opening;

typedef struct Permission
{
	const char *name;
	const char *op;				/* as check_admin_key names it */
	const char *method;			/* a request that needs it and writes nothing */
	const char *path;
	const char *body;
	const char *hint;			/* when it is missing */
} Permission;

static Rows begin_rows(FunctionCallInfo fcinfo);
static void put_check(Rows *rows, const char *name, int ok, const char *detail,
					  const char *hint);
static void open_work(void *arg);
static CvxHttp *try_open(ForeignServer *server, Rows *rows);
static bool check_export(Rows *rows, CvxHttp *http);
static void check_permission(Rows *rows, CvxHttp *http, Jsonb *ops,
							 const Permission *permission);
static Jsonb *ask_ops(CvxHttp *http);
static int	query_outcome(CvxCall *call, CvxHttp *http);
static void check_clock(Rows *rows, int64 date);
static void check_features(Rows *rows, CvxHttp *http);
static void check_head(Rows *rows, CvxHttp *http);
static void check_functions(Rows *rows, CvxHttp *http, int64 head);
static char *describe_answer(CvxCall *call);

PG_FUNCTION_INFO_V1(convex_fdw_version);
PG_FUNCTION_INFO_V1(convex_tables);
PG_FUNCTION_INFO_V1(convex_json_schemas);
PG_FUNCTION_INFO_V1(convex_snapshot);
PG_FUNCTION_INFO_V1(convex_test_connection);
PG_FUNCTION_INFO_V1(convex_fdw_get_connections);
PG_FUNCTION_INFO_V1(convex_fdw_disconnect);
PG_FUNCTION_INFO_V1(convex_fdw_disconnect_all);

/* The library's version. */
Datum
convex_fdw_version(PG_FUNCTION_ARGS)
{
	PG_RETURN_TEXT_P(cstring_to_text(CVX_VERSION));
}

/* What the deployment has: (component, table_name, columns). */
Datum
convex_tables(PG_FUNCTION_ARGS)
{
	CvxHttp    *http = cvx_sql_open_server(PG_GETARG_NAME(0));
	Rows		rows = begin_rows(fcinfo);
	ListCell   *lc;

	foreach(lc, cvx_inventory_names(http))
	{
		CvxTableSchema *table = lfirst(lc);
		Datum	   *names = palloc(sizeof(Datum) *
								   Max(list_length(table->names), 1));
		Datum		values[3];
		bool		nulls[3] = {false};
		int			n = 0;
		ListCell   *lc2;

		foreach(lc2, table->names)
			names[n++] = CStringGetTextDatum(lfirst(lc2));
		values[0] = CStringGetTextDatum(table->component);
		values[1] = CStringGetTextDatum(table->table);
		values[2] = PointerGetDatum(construct_array(names, n, TEXTOID, -1,
													false, TYPALIGN_INT));
		tuplestore_putvalues(rows.store, rows.tupdesc, values, nulls);
	}
	return (Datum) 0;
}

/* JSON Schemas by component. */
Datum
convex_json_schemas(PG_FUNCTION_ARGS)
{
	CvxHttp    *http = cvx_sql_open_server(PG_GETARG_NAME(0));

	PG_RETURN_JSONB_P(cvx_api_json_schemas(http, false));
}

/* The snapshot that the statement uses, or, outside of one, a fresh one. */
Datum
convex_snapshot(PG_FUNCTION_ARGS)
{
	PG_RETURN_INT64(cvx_scan_snapshot(cvx_sql_open_server(PG_GETARG_NAME(0))));
}

/* What works and what does not: (check_name, ok, detail, hint). */
Datum
convex_test_connection(PG_FUNCTION_ARGS)
{
	static const Permission permissions[] = {
		{"backups:import", "ImportBackups", "GET",
			"/api/streaming_import/get_schema", NULL,
		"Writing needs a deploy key that allows deployment:backups:import."},
		{"backups:view", "ViewBackups", "POST", "/api/query",
			"{\"path\": \"_system/cli/queryImport:list\", \"args\": {}, \"format\": \"json\"}",
		"convex_import() needs a deploy key that allows deployment:backups:view."},
	};
	ForeignServer *server = cvx_sql_find_server(PG_GETARG_NAME(0));
	Rows		rows = begin_rows(fcinfo);
	CvxHttp    *http = try_open(server, &rows);
	Jsonb	   *ops;

	if (http == NULL || !check_export(&rows, http))
		return (Datum) 0;
	ops = ask_ops(http);
	for (int i = 0; i < lengthof(permissions); i++)
		check_permission(&rows, http, ops, &permissions[i]);
	check_features(&rows, http);
	check_head(&rows, http);
	return (Datum) 0;
}

/* This session's connections: (server_name, valid). */
Datum
convex_fdw_get_connections(PG_FUNCTION_ARGS)
{
	Rows		rows = begin_rows(fcinfo);
	ListCell   *lc;

	foreach(lc, cvx_http_list())
	{
		CvxHttpInfo *info = lfirst(lc);
		ForeignServer *server = GetForeignServerExtended(info->serverid,
														 FSV_MISSING_OK);
		Datum		values[2] = {0};
		bool		nulls[2] = {false};

		if (server)
			values[0] = CStringGetTextDatum(server->servername);
		nulls[0] = server == NULL;
		values[1] = BoolGetDatum(info->is_valid && server != NULL);
		tuplestore_putvalues(rows.store, rows.tupdesc, values, nulls);
	}
	return (Datum) 0;
}

/* Close this session's connections to a server. */
Datum
convex_fdw_disconnect(PG_FUNCTION_ARGS)
{
	ForeignServer *server = GetForeignServerByName(NameStr(*PG_GETARG_NAME(0)),
												   false);

	cvx_ask_forget();
	PG_RETURN_BOOL(cvx_http_disconnect(server->serverid));
}

/* Close all connections of this session. */
Datum
convex_fdw_disconnect_all(PG_FUNCTION_ARGS)
{
	cvx_ask_forget();
	PG_RETURN_BOOL(cvx_http_disconnect(InvalidOid));
}

/* A server of this wrapper that the role may use. */
ForeignServer *
cvx_sql_find_server(Name name)
{
	ForeignServer *server = GetForeignServerByName(NameStr(*name), false);
	AclResult	acl = cvx_server_aclcheck(server->serverid, GetUserId());

	if (acl != ACLCHECK_OK)
		aclcheck_error(acl, OBJECT_FOREIGN_SERVER, server->servername);
	if (!cvx_options_is_ours(server->serverid))
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("server \"%s\" is not a server of convex_fdw",
						server->servername)));
	return server;
}

/* Its connection, with the role's own mapping. */
CvxHttp *
cvx_sql_open_server(Name name)
{
	ForeignServer *server = cvx_sql_find_server(name);

	return cvx_http_open(cvx_options_remote(server->serverid, GetUserId()));
}

/* Prepare to return a set by materialising it. */
static Rows
begin_rows(FunctionCallInfo fcinfo)
{
	ReturnSetInfo *info = (ReturnSetInfo *) fcinfo->resultinfo;
	Rows		rows;
	MemoryContext old;

	if (info == NULL || !IsA(info, ReturnSetInfo) ||
		!(info->allowedModes & SFRM_Materialize))
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("set-valued function called in context that cannot accept a set")));
	old = MemoryContextSwitchTo(info->econtext->ecxt_per_query_memory);
	if (get_call_result_type(fcinfo, NULL, &rows.tupdesc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	rows.tupdesc = CreateTupleDescCopy(rows.tupdesc);
	rows.store = tuplestore_begin_heap(info->allowedModes & SFRM_Materialize_Random,
									   false, work_mem);
	info->returnMode = SFRM_Materialize;
	info->setResult = rows.store;
	info->setDesc = rows.tupdesc;
	MemoryContextSwitchTo(old);
	return rows;
}

/* ------------------------------------------------------------------------
 * convex_test_connection()
 * ------------------------------------------------------------------------
 */

/* ok: 1, 0, or -1 for unknown */
static void
put_check(Rows *rows, const char *name, int ok, const char *detail,
		  const char *hint)
{
	Datum		values[4];
	bool		nulls[4];

	values[0] = CStringGetTextDatum(name);
	values[1] = BoolGetDatum(ok == 1);
	values[2] = CStringGetTextDatum(detail ? detail : "");
	values[3] = CStringGetTextDatum(hint ? hint : "");
	nulls[0] = false;
	nulls[1] = ok < 0;
	nulls[2] = detail == NULL;
	nulls[3] = hint == NULL || ok == 1;
	tuplestore_putvalues(rows->store, rows->tupdesc, values, nulls);
}

static void
open_work(void *arg)
{
	Opening    *opening = arg;

	opening->http = cvx_http_open(cvx_options_remote(opening->serverid, GetUserId()));
}

/* The connection; NULL, with a row that says why, when the options fail. */
static CvxHttp *
try_open(ForeignServer *server, Rows *rows)
{
	Opening		opening = {server->serverid, NULL};
	ErrorData  *error = cvx_guard(open_work, &opening);

	if (error == NULL)
		return opening.http;
	error = cvx_redact_error(error);
	put_check(rows, "options", 0,
			  error->detail ? psprintf("%s: %s", error->message,
									   error->detail) : error->message,
			  error->hint);
	return NULL;
}

/* Reach the server and see what the key and the plan allow; false: stop. */
static bool
check_export(Rows *rows, CvxHttp *http)
{
	const CvxRemote *remote = cvx_http_remote(http);
	CvxCall    *call = cvx_api_ask(http, "GET",
								   "/api/test_streaming_export_connection",
								   NULL);
	const CvxAnswer *answer = cvx_http_answer(call);
	char	   *detail = describe_answer(call);
	bool		is_gated = cvx_api_has_code(call, 403, "StreamingExportNotEnabled");
	bool		is_keyless = cvx_api_has_code(call, 403, "BadDeployKey");

	if (answer->transport != CVX_TRANSPORT_OK)
	{
		put_check(rows, answer->transport == CVX_TRANSPORT_TLS ||
				  answer->transport == CVX_TRANSPORT_CLIENT_CERTIFICATE ?
				  "tls" : "url",
				  0, detail, "Check deployment_url, ca_file and the network.");
		return false;
	}
	put_check(rows, "url", answer->status != 404 && answer->status < 500,
			  answer->status == 404 || answer->status >= 500 ? detail :
			  remote->base_url,
			  "Check deployment_url: something other than Convex answers.");
	put_check(rows, "tls", !remote->is_plain || !remote->allow_insecure_http,
			  !remote->is_plain ? "verified" :
			  remote->allow_insecure_http ? "plain http, to any address" :
			  "plain http, to loopback only",
			  "Use https and drop the option allow_insecure_http.");
	put_check(rows, "key", remote->key != NULL && answer->status != 401 &&
			  !is_keyless,
			  remote->key == NULL ? "no key" :
			  answer->status == 401 || is_keyless ? detail : "accepted",
			  remote->key != NULL && is_keyless ?
			  "The key was sent: a proxy on the way may take the header Authorization away." :
			  "Check deploy_key or deploy_key_file of the user mapping.");
	put_check(rows, "plan", is_gated ? 0 : answer->status == 200 ? 1 : -1,
			  is_gated ? detail : answer->status == 200 ?
			  "streaming export is enabled" : NULL,
			  "Reading needs the Convex Professional plan or a self-hosted deployment; writing still works.");
	put_check(rows, "data:view", is_gated ? -1 : answer->status == 200,
			  answer->status == 200 ? "allowed" : detail,
			  "Reading needs a deploy key that allows deployment:data:view.");
	check_clock(rows, answer->date);
	return answer->status != 404;
}

/*
 * What the key may do, as a list of operations; NULL when the server does not
 * tell.  Servers before 2026-04 do not, and an empty list stands for all: both
 * leave it to a try.
 */
static Jsonb *
ask_ops(CvxHttp *http)
{
	CvxCall    *call = cvx_api_ask(http, "GET", "/api/check_admin_key", NULL);
	JsonbValue	buffer;
	JsonbValue *ops = NULL;
	Jsonb	   *answer;

	if (cvx_http_answer(call)->status != 200)
		return NULL;
	answer = cvx_api_json(call, http);
	if (JB_ROOT_IS_OBJECT(answer))
		ops = getKeyJsonValueFromContainer(&answer->root, "allowedOps",
										   strlen("allowedOps"), &buffer);
	if (ops == NULL || ops->type != jbvBinary ||
		!JsonContainerIsArray(ops->val.binary.data) ||
		JsonContainerSize(ops->val.binary.data) == 0)
		return NULL;
	return JsonbValueToJsonb(ops);
}

/* May the key do this: by what the server tells of it, or by trying. */
static void
check_permission(Rows *rows, CvxHttp *http, Jsonb *ops,
				 const Permission *permission)
{
	CvxCall    *call;
	const CvxAnswer *answer;
	int			ok;

	if (ops != NULL)
	{
		JsonbValue	op = {.type = jbvString};

		op.val.string.val = unconstify(char *, permission->op);
		op.val.string.len = strlen(permission->op);
		ok = findJsonbValueFromContainer(&ops->root, JB_FARRAY, &op) != NULL;
		put_check(rows, permission->name, ok, ok ? "allowed" :
				  psprintf("the key does not allow %s", permission->op),
				  permission->hint);
		return;
	}
	call = cvx_api_ask(http, permission->method, permission->path,
					   permission->body);
	answer = cvx_http_answer(call);
	ok = answer->status == 200 ? 1 : answer->status == 403 ? 0 : -1;

	/* A query's own failure comes with status 200, or 560. */
	if ((answer->status == 200 || answer->status == 560) &&
		permission->body != NULL)
		ok = query_outcome(call, http);
	put_check(rows, permission->name, ok,
			  ok == 1 ? "allowed" : describe_answer(call), permission->hint);
}

/*
 * What the answer of a system function says of the permission: 1, 0 or -1 for
 * unknown.  An old server does not have the function; whatever else keeps it
 * from answering tells nothing, either.
 */
static int
query_outcome(CvxCall *call, CvxHttp *http)
{
	const CvxAnswer *answer = cvx_http_answer(call);
	Jsonb	   *root;
	JsonbValue	buffer;
	JsonbValue *status = NULL;

	if (answer->status == 200)
	{
		root = cvx_api_json(call, http);
		if (JB_ROOT_IS_OBJECT(root))
			status = getKeyJsonValueFromContainer(&root->root, "status",
												  strlen("status"), &buffer);
		if (status != NULL && status->type == jbvString &&
			status->val.string.len == strlen("success") &&
			strncmp(status->val.string.val, "success",
					status->val.string.len) == 0)
			return 1;
	}
	return answer->body_len > 0 &&
		(strstr(answer->body, "permission") != NULL ||
		 strstr(answer->body, "not permitted") != NULL) ? 0 : -1;
}

static void
check_clock(Rows *rows, int64 date)
{
	int64		now = (int64) time(NULL);

	if (date < 0)
		put_check(rows, "clock", -1, "the server sends no Date", NULL);
	else
		put_check(rows, "clock", llabs(now - date) <= MAX_CLOCK_SKEW_S,
				  psprintf("this machine is " INT64_FORMAT " s ahead of the server",
						   now - date),
				  "Synchronise this machine's clock.");
}

/* Routes are told by their answer to a method that they do not have. */
static void
check_features(Rows *rows, CvxHttp *http)
{
	static const CvxSelection nothing = {0};
	static const char *const routes[][3] = {
		{"fivetran", "GET", "/api/streaming_import/apply_fivetran_operations"},
		{"data_sync", "GET", "/api/v1/data/sync"},
	};
	CvxCall    *call = cvx_api_list_snapshot(http, NULL, &nothing, 0, NULL);
	static const CvxPageWant any = {0};

	cvx_http_wait(call);
	if (cvx_http_answer(call)->status != 200)
		put_check(rows, "selection", -1, describe_answer(call), NULL);
	else
	{
		CvxPage    *page = cvx_api_page(call, http, &any);
		bool		is_obeyed = page->ndocs == 0 && !page->has_more;

		put_check(rows, "selection", is_obeyed,
				  is_obeyed ? "the server obeys selections" :
				  "the server ignores selections",
				  "Single tables can be read all the same; update the Convex server for more.");
	}
	for (int i = 0; i < lengthof(routes); i++)
	{
		int			status;

		call = cvx_api_ask(http, routes[i][1], routes[i][2], NULL);
		status = cvx_http_answer(call)->status;
		put_check(rows, routes[i][0], status == 404 ? 0 : status == 405 ? 1 : -1,
				  status == 404 ? "the server does not have the route" :
				  status == 405 ? "available" : describe_answer(call),
				  "Update the Convex server.");
	}
}

static void
check_head(Rows *rows, CvxHttp *http)
{
	int64		head = cvx_api_query_ts(http);
	double		age;

	if (head < 0)
	{
		put_check(rows, "head", -1, "the server does not tell it", NULL);
		return;
	}
	age = (double) time(NULL) - (double) (head / 1000000000);
	put_check(rows, "head", 1,
			  psprintf(INT64_FORMAT ", %.0f s ago", head, Max(age, 0)), NULL);
	check_functions(rows, http, head);
}

/* Does it answer questions? */
static void
check_functions(Rows *rows, CvxHttp *http, int64 head)
{
	CvxFunctionAnswer answer = cvx_function_query_at(http, NULL, "_system/frontend/tableSize",
													 "{\"tableName\":\"\"}", head);
	bool		is_good = answer.verdict == CVX_VERDICT_GOOD;

	put_check(rows, "functions", is_good ? 1 : answer.verdict == CVX_VERDICT_NEVER ? 0 : -1,
			  is_good ? "Convex answers look-ups and counts" : answer.problem,
			  "Tables are read whole.");
}

/* Status, code and message, or what the transport said. */
static char *
describe_answer(CvxCall *call)
{
	const CvxAnswer *answer = cvx_http_answer(call);

	if (answer->transport != CVX_TRANSPORT_OK)
		return cvx_redact_excerpt(answer->reason, strlen(answer->reason));
	return psprintf("HTTP status %d%s%s", answer->status,
					answer->body_len > 0 ? ": " : "",
					answer->body_len > 0 ?
					cvx_redact_excerpt(answer->body, answer->body_len) : "");
}
