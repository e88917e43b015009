/*
 * options_read.c
 *		Which URL, key, limits, names apply?
 *
 * The deploy key appears in no message.
 *
 * Room: shape 3.4
 */
#include "postgres.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "access/htup_details.h"
#include "catalog/pg_foreign_data_wrapper.h"
#include "catalog/pg_language.h"
#include "catalog/pg_proc.h"
#include "foreign/foreign.h"
#include "storage/fd.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"

#include "ground/redact.h"
#include "shape/options_read.h"
#include "shape/url.h"

/* Messages of one request, unless the option batch_size says otherwise. */
#define BATCH_KEYED		1000
#define BATCH_APPENDED	8000

static double get_cost(List *options, const char *name);
static void fill_table(CvxTableOptions *table, List *options);
static void fill_proxy(CvxRemote *remote, List *server_options,
					   List *mapping_options);
static void learn_key(const char *key);
static char *read_key_file(const char *path);

/*
 * Is this a server of a wrapper that has our handler?  Neither the wrapper's
 * name nor the handler's says so: both can be renamed, and a second wrapper may
 * have the same handler.
 */
bool
cvx_options_is_ours(Oid serverid)
{
	ForeignDataWrapper *fdw =
		GetForeignDataWrapper(GetForeignServer(serverid)->fdwid);
	HeapTuple	tuple = SearchSysCache1(PROCOID,
										ObjectIdGetDatum(fdw->fdwhandler));
	bool		is_ours = false;

	if (!HeapTupleIsValid(tuple))
		return false;
	if (((Form_pg_proc) GETSTRUCT(tuple))->prolang == ClanguageId)
	{
		bool		isnull;
		Datum		symbol = SysCacheGetAttr(PROCOID, tuple,
											 Anum_pg_proc_prosrc, &isnull);

		is_ours = !isnull && strcmp(TextDatumGetCString(symbol),
									"convex_fdw_handler") == 0;
	}
	ReleaseSysCache(tuple);
	return is_ours;
}

/*
 * How a role reaches a server, in the current context.  Reads the key file
 * anew each time.  Throws when the role has no user mapping, or its key is
 * made for another deployment (28000).
 */
CvxRemote *
cvx_options_remote(Oid serverid, Oid userid)
{
	ForeignServer *server = GetForeignServer(serverid);
	UserMapping *mapping = GetUserMapping(userid, serverid);
	CvxRemote  *remote = palloc0(sizeof(CvxRemote));
	const char *url = cvx_options_text(server->options, "deployment_url");
	const char *key_file = cvx_options_text(mapping->options, "deploy_key_file");
	const char *key = cvx_options_text(mapping->options, "deploy_key");
	char	   *problem;

	if (!cvx_options_is_ours(serverid))
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("server \"%s\" is not a server of convex_fdw",
						server->servername)));
	if (url == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_FDW_DYNAMIC_PARAMETER_VALUE_NEEDED),
				 errmsg("server \"%s\" has no option deployment_url",
						server->servername)));
	remote->serverid = serverid;
	remote->userid = userid;
	remote->umid = mapping->umid;
	remote->server_name = server->servername;
	remote->allow_insecure_http = cvx_options_bool(server->options,
												   "allow_insecure_http");
	cvx_url_parse(url, remote->allow_insecure_http, remote);
	remote->key = key_file ? read_key_file(key_file) :
		key ? pstrdup(key) : NULL;
	learn_key(remote->key);
	if (cvx_options_text(server->options, "ca_file"))
		remote->ca_file = pstrdup(cvx_options_text(server->options, "ca_file"));
	if (cvx_options_text(server->options, "http_proxy"))
		fill_proxy(remote, server->options, mapping->options);
	remote->connect_timeout_ms =
		cvx_options_number(server->options, "connect_timeout");
	remote->request_timeout_ms =
		cvx_options_number(server->options, "request_timeout");
	remote->idle_timeout_ms = cvx_options_number(server->options, "idle_timeout");
	remote->max_retries = cvx_options_number(server->options, "max_retries");
	remote->max_retry_wait_ms =
		cvx_options_number(server->options, "max_retry_wait");
	remote->max_response_bytes =
		(size_t) cvx_options_number(server->options, "max_response_size") * 1024;

	problem = remote->key && !cvx_options_bool(server->options, "allow_key_mismatch") ?
		cvx_url_key_problem(remote->key, remote->host) : NULL;
	if (problem)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION),
				 errmsg("deploy key for server \"%s\" is made for another deployment",
						server->servername),
				 errdetail("%s", problem),
				 errhint("Correct the user mapping's deploy_key or the server's deployment_url; a superuser can set the server's option allow_key_mismatch.")));
	return remote;
}

/*
 * What applies to a foreign table, in the current context.  Throws HV00R when
 * no table of Convex can have its name.
 */
CvxTableOptions *
cvx_options_table(Oid relid)
{
	CvxTableOptions *table = cvx_options_table_unnamed(relid);

	if (!cvx_options_is_table_name(table->table_name))
		ereport(ERROR,
				(errcode(ERRCODE_FDW_TABLE_NOT_FOUND),
				 errmsg("\"%s\" cannot be the name of a Convex table",
						table->table_name),
				 errhint("Set the option table_name of foreign table %s.",
						 table->relation)));
	return table;
}

/* The same, whatever its name. */
CvxTableOptions *
cvx_options_table_unnamed(Oid relid)
{
	ForeignTable *foreign = GetForeignTable(relid);
	CvxTableOptions *table = cvx_options_server(foreign->serverid);
	ForeignServer *server = GetForeignServer(foreign->serverid);
	const char *name = cvx_options_text(foreign->options, "table_name");
	const char *component = cvx_options_text(foreign->options, "component");
	char	   *schema = get_namespace_name(get_rel_namespace(relid));
	char	   *relname = get_rel_name(relid);

	/* The later entry of the same name wins: the table's own. */
	fill_table(table, list_concat_copy(server->options, foreign->options));
	table->relation = quote_qualified_identifier(schema, relname);
	table->table_name = pstrdup(name ? name : relname);
	table->component = pstrdup(component ? component : "");
	return table;
}

/* The same for a server alone, without the names of a table. */
CvxTableOptions *
cvx_options_server(Oid serverid)
{
	ForeignServer *server = GetForeignServer(serverid);
	CvxTableOptions *table = palloc0(sizeof(CvxTableOptions));

	table->serverid = serverid;
	table->server_name = server->servername;
	table->relation = psprintf("server %s",
							   quote_identifier(server->servername));
	fill_table(table, server->options);
	return table;
}

/* What a column shows, in the current context. */
CvxColumnOptions *
cvx_options_column(Oid relid, AttrNumber attnum)
{
	List	   *options = GetForeignColumnOptions(relid, attnum);
	CvxColumnOptions *column = palloc0(sizeof(CvxColumnOptions));
	const char *name = cvx_options_text(options, "column_name");

	column->is_path = cvx_options_bool(options, "path");
	column->is_document = name != NULL && strcmp(name, "*") == 0 &&
		!column->is_path;
	column->field = name ? pstrdup(name) : get_attname(relid, attnum, false);
	column->writes_nulls = strcmp(cvx_options_text(options, "nulls"), "null") == 0;
	if (cvx_options_text(options, "convex_type"))
		column->convex_type = pstrdup(cvx_options_text(options, "convex_type"));
	return column;
}

static double
get_cost(List *options, const char *name)
{
	double		cost = 0;

	(void) parse_real(cvx_options_text(options, name), &cost, 0, NULL);
	return cost;
}

static void
fill_table(CvxTableOptions *table, List *options)
{
	const char *text = cvx_options_text(options, "nul_handling");

	table->nul_handling = strcmp(text, "replace") == 0 ? CVX_NUL_REPLACE :
		strcmp(text, "strip") == 0 ? CVX_NUL_STRIP : CVX_NUL_ERROR;
	text = cvx_options_text(options, "json_values");
	table->json_values = strcmp(text, "encoded") == 0 ? CVX_JSON_ENCODED :
		CVX_JSON_CLEAN;
	text = cvx_options_text(options, "on_conversion_error");
	table->on_misfit = strcmp(text, "null") == 0 ? CVX_MISFIT_NULL :
		CVX_MISFIT_ERROR;
	table->asks = strcmp(cvx_options_text(options, "pushdown"), "auto") == 0;
	table->is_async_capable = cvx_options_bool(options, "async_capable");
	table->startup_cost = get_cost(options, "fdw_startup_cost");
	table->tuple_cost = get_cost(options, "fdw_tuple_cost");

	table->is_updatable = cvx_options_bool(options, "updatable");
	table->is_truncatable = cvx_options_bool(options, "truncatable");
	table->checks_conflicts = cvx_options_bool(options, "conflict_check");
	table->flushes_statement = strcmp(cvx_options_text(options, "flush"),
									  "statement") == 0;
	table->batch_bytes = cvx_options_number(options, "batch_bytes") * 1024;
	if (cvx_options_text(options, "primary_key"))
		table->key = cvx_options_parse_key(cvx_options_text(options, "primary_key"));
	text = cvx_options_text(options, "import_route");
	table->route = table->key != NULL &&
		(text == NULL || strcmp(text, "fivetran") == 0) ?
		CVX_ROUTE_FIVETRAN : CVX_ROUTE_AIRBYTE;
	table->batch_size = cvx_options_text(options, "batch_size") ?
		cvx_options_number(options, "batch_size") :
		table->key ? BATCH_KEYED : BATCH_APPENDED;
}

/* The proxy, and what the role shows to it. */
static void
fill_proxy(CvxRemote *remote, List *server_options, List *mapping_options)
{
	const char *user = cvx_options_text(mapping_options, "proxy_user");
	const char *password = cvx_options_text(mapping_options, "proxy_password");

	remote->http_proxy = pstrdup(cvx_options_text(server_options, "http_proxy"));

	/* It may have been set by a version that did not look. */
	cvx_options_check_proxy(remote->http_proxy);
	if (user)
		remote->proxy_user = pstrdup(user);
	if (password)
		remote->proxy_password = pstrdup(password);
	cvx_redact_learn(password);
}

/* What follows the last "|" is the secret; before it stand mere names. */
static void
learn_key(const char *key)
{
	const char *bar = key ? strrchr(key, '|') : NULL;

	cvx_redact_learn(bar && bar[1] ? bar + 1 : key);
}

/* The key in a file, in the current context. */
static char *
read_key_file(const char *path)
{
	char	   *key = palloc(CVX_MAX_KEY_BYTES + 2);
	struct stat st;
	ssize_t		len;
	int			fd;

	/* Do not wait for a writer, should it be a pipe. */
	fd = OpenTransientFile(path, O_RDONLY | O_NONBLOCK | PG_BINARY);
	if (fd < 0 || fstat(fd, &st) != 0)
		ereport(ERROR,
				(errcode_for_file_access(),
				 errmsg("could not open deploy key file \"%s\": %m", path)));
	if (!S_ISREG(st.st_mode))
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("deploy key file \"%s\" is not a regular file", path)));
	if (st.st_mode & S_IROTH)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("deploy key file \"%s\" can be read by everyone", path),
				 errhint("Use chmod 0600 or 0640.")));
	len = read(fd, key, CVX_MAX_KEY_BYTES + 1);
	if (len < 0)
		ereport(ERROR,
				(errcode_for_file_access(),
				 errmsg("could not read deploy key file \"%s\": %m", path)));
	CloseTransientFile(fd);
	if (len > CVX_MAX_KEY_BYTES)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("deploy key file \"%s\" is larger than %d bytes", path,
						CVX_MAX_KEY_BYTES)));
	while (len > 0 && (key[len - 1] == '\n' || key[len - 1] == '\r'))
		len--;
	key[len] = '\0';
	if (strlen(key) != len)
		key[0] = '\0';
	for (char *p = key; *p; p++)
		if (*p <= ' ' || *p > '~')
			key[0] = '\0';
	if (key[0] == '\0')
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("deploy key file \"%s\" does not hold one deploy key",
						path)));
	return key;
}
