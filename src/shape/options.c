/*
 * options.c
 *		Which URL, key, limits, names apply?
 *
 * One table describes every option: where it may stand, how its value is
 * written, which right it needs.  The validator sees one object's list at a
 * time; what needs a second object (key against host) is checked when the
 * connection is described by cvx_options_remote().
 *
 * The deploy key appears in no message.  Whatever a user mapping is refused
 * for hides the statement and its context from the log.
 *
 * Room: shape 3.2
 */
#include "postgres.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "access/htup_details.h"
#include "access/reloptions.h"
#include "catalog/pg_attribute.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_foreign_data_wrapper.h"
#include "catalog/pg_foreign_server.h"
#include "catalog/pg_foreign_table.h"
#include "catalog/pg_language.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_user_mapping.h"
#include "commands/defrem.h"
#include "foreign/foreign.h"
#include "miscadmin.h"
#include "storage/fd.h"
#include "utils/builtins.h"
#include "utils/formatting.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"
#include "utils/varlena.h"

#include "ground/compat.h"
#include "shape/options.h"
#include "ground/redact.h"

/* A key file is one line; this is far more than any key. */
#define MAX_KEY_BYTES	4096

/* Messages of one request, unless the option batch_size says otherwise. */
#define BATCH_KEYED		1000
#define BATCH_APPENDED	8000

/* Longest names Convex takes. */
#define MAX_IDENTIFIER	64
#define MAX_FIELD_NAME	1024

/* Where an option may stand. */
#define ON_SERVER	1
#define ON_MAPPING	2
#define ON_TABLE	4
#define ON_COLUMN	8

typedef enum OptionKind
{
	OPTION_TEXT,
	OPTION_BOOL,
	OPTION_DURATION,			/* GUC unit; limits in ms */
	OPTION_SIZE,				/* GUC unit; limits in kB */
	OPTION_INTEGER,
	OPTION_COST,
	OPTION_CHOICE				/* one of the words in choices */
} OptionKind;

typedef enum OptionRight
{
	RIGHT_NONE,
	RIGHT_SUPERUSER,
	RIGHT_READ_FILES			/* pg_read_server_files */
} OptionRight;

typedef void (*OptionCheck) (const char *value);

typedef struct Option
{
	const char *name;
	int			places;
	OptionKind	kind;
	const char *initial;		/* default value, or NULL */
	int			min;
	int			max;
	const char *choices;		/* "a, b" */
	OptionRight right;
	OptionCheck check;
} Option;

static void check_key(const char *value);
static void check_key_file(const char *value);
static void check_proxy(const char *value);
static void check_proxy_user(const char *value);
static void check_proxy_password(const char *value);
static void check_table_name(const char *value);
static void check_component(const char *value);
static void check_primary_key(const char *value);
static CvxKey *parse_primary_key(const char *value);

#define MS_DAY	(24 * 60 * 60 * 1000)

static const Option known_options[] = {
	{"deployment_url", ON_SERVER, OPTION_TEXT, NULL},
	{"connect_timeout", ON_SERVER, OPTION_DURATION, "10s", 0, MS_DAY},
	{"request_timeout", ON_SERVER, OPTION_DURATION, "330s", 0, MS_DAY},
	{"idle_timeout", ON_SERVER, OPTION_DURATION, "30s", 0, MS_DAY},
	{"max_retries", ON_SERVER, OPTION_INTEGER, "5", 0, 1000},
	{"max_retry_wait", ON_SERVER, OPTION_DURATION, "60s", 0, MS_DAY},
	{"max_response_size", ON_SERVER, OPTION_SIZE, "256MB", 1, 4 * 1024 * 1024},
	{"ca_file", ON_SERVER, OPTION_TEXT, NULL, .right = RIGHT_READ_FILES},
	{"allow_insecure_http", ON_SERVER, OPTION_BOOL, "false", .right = RIGHT_SUPERUSER},
	{"http_proxy", ON_SERVER, OPTION_TEXT, NULL, .right = RIGHT_SUPERUSER, .check = check_proxy},
	{"allow_key_mismatch", ON_SERVER, OPTION_BOOL, "false", .right = RIGHT_SUPERUSER},

	{"updatable", ON_SERVER | ON_TABLE, OPTION_BOOL, "true"},
	{"truncatable", ON_SERVER | ON_TABLE, OPTION_BOOL, "true"},
	{"batch_size", ON_SERVER | ON_TABLE, OPTION_INTEGER, NULL, 1, 16000},
	{"batch_bytes", ON_SERVER | ON_TABLE, OPTION_SIZE, "4MB", 1, 8 * 1024},
	{"flush", ON_SERVER | ON_TABLE, OPTION_CHOICE, "commit", .choices = "commit, statement"},
	{"conflict_check", ON_SERVER | ON_TABLE, OPTION_BOOL, "true"},
	{"async_capable", ON_SERVER | ON_TABLE, OPTION_BOOL, "true"},
	{"fdw_startup_cost", ON_SERVER | ON_TABLE, OPTION_COST, "100"},
	{"fdw_tuple_cost", ON_SERVER | ON_TABLE, OPTION_COST, "0.01"},
	{"json_values", ON_SERVER | ON_TABLE, OPTION_CHOICE, "clean", .choices = "clean, encoded"},
	{"on_conversion_error", ON_SERVER | ON_TABLE, OPTION_CHOICE, "error", .choices = "error, null"},
	{"nul_handling", ON_SERVER | ON_TABLE, OPTION_CHOICE, "error", .choices = "error, replace, strip"},

	{"deploy_key", ON_MAPPING, OPTION_TEXT, NULL, .check = check_key},
	{"deploy_key_file", ON_MAPPING, OPTION_TEXT, NULL, .right = RIGHT_READ_FILES, .check = check_key_file},
	{"proxy_user", ON_MAPPING, OPTION_TEXT, NULL, .check = check_proxy_user},
	{"proxy_password", ON_MAPPING, OPTION_TEXT, NULL, .check = check_proxy_password},

	{"table_name", ON_TABLE, OPTION_TEXT, NULL, .check = check_table_name},
	{"component", ON_TABLE, OPTION_TEXT, "", .check = check_component},
	{"primary_key", ON_TABLE, OPTION_TEXT, NULL, .check = check_primary_key},
	{"import_route", ON_TABLE, OPTION_CHOICE, NULL, .choices = "fivetran, airbyte"},

	{"column_name", ON_COLUMN, OPTION_TEXT, NULL},
	{"path", ON_COLUMN, OPTION_BOOL, "false"},
	{"nulls", ON_COLUMN, OPTION_CHOICE, "omit", .choices = "omit, null"},
	{"convex_type", ON_COLUMN, OPTION_CHOICE, NULL,
	.choices = "boolean, int64, float64, string, id, bytes, array, object, any"},
};

static const Option *find_option(const char *name);
static void validate_one(const DefElem *def, int place);
static void refuse_unknown(const char *name, int place);
static void refuse_value(const Option *option, const char *value,
						 const char *hint);
static void check_right(const Option *option);
static bool is_bare_number(const char *value);
static int	parse_number(const Option *option, const char *value);
static void validate_server(List *options);
static void validate_mapping(List *options);
static void validate_column(List *options);
static void parse_url(const char *url, bool allow_http, CvxRemote *remote);
static bool has_empty_label(const char *host, size_t len);
static void refuse_url(const char *why, const char *hint);
static bool is_loopback_host(const char *host);
static const char *get_text(List *options, const char *name);
static bool get_bool(List *options, const char *name);
static int	get_number(List *options, const char *name);
static double get_cost(List *options, const char *name);
static void fill_proxy(CvxRemote *remote, List *server_options,
					   List *mapping_options);
static bool is_printable(const char *value);
static void learn_key(const char *key);
static char *read_key_file(const char *path);
static bool is_identifier(const char *name);
static bool ends_with(const char *text, const char *end);
static void fill_table(CvxTableOptions *table, List *options);

static int
place_of(Oid catalog)
{
	switch (catalog)
	{
		case ForeignServerRelationId:
			return ON_SERVER;
		case UserMappingRelationId:
			return ON_MAPPING;
		case ForeignTableRelationId:
			return ON_TABLE;
		case AttributeRelationId:
			return ON_COLUMN;
		default:
			return 0;
	}
}

/* In messages about user mappings nothing of the statement may be logged. */
static int
hide_statement(int place)
{
	if (place == ON_MAPPING)
	{
		errhidestmt(true);
		errhidecontext(true);
	}
	return 0;
}

/*
 * Check the options of one object at CREATE or ALTER.  Throws HV00D for an
 * unknown option, 22023 for a bad value, HV002 for a missing one, 42501 for a
 * missing right.
 */
void
cvx_options_validate(List *options, Oid catalog)
{
	int			place = place_of(catalog);
	ListCell   *lc;

	foreach(lc, options)
		validate_one((DefElem *) lfirst(lc), place);
	if (place == ON_SERVER)
		validate_server(options);
	else if (place == ON_MAPPING)
		validate_mapping(options);
	else if (place == ON_COLUMN)
		validate_column(options);
}

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
	const char *url = get_text(server->options, "deployment_url");
	const char *key_file = get_text(mapping->options, "deploy_key_file");
	const char *key = get_text(mapping->options, "deploy_key");
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
	remote->allow_insecure_http = get_bool(server->options,
										   "allow_insecure_http");
	parse_url(url, remote->allow_insecure_http, remote);
	remote->key = key_file ? read_key_file(key_file) :
		key ? pstrdup(key) : NULL;
	learn_key(remote->key);
	if (get_text(server->options, "ca_file"))
		remote->ca_file = pstrdup(get_text(server->options, "ca_file"));
	if (get_text(server->options, "http_proxy"))
		fill_proxy(remote, server->options, mapping->options);
	remote->connect_timeout_ms = get_number(server->options, "connect_timeout");
	remote->request_timeout_ms = get_number(server->options, "request_timeout");
	remote->idle_timeout_ms = get_number(server->options, "idle_timeout");
	remote->max_retries = get_number(server->options, "max_retries");
	remote->max_retry_wait_ms = get_number(server->options, "max_retry_wait");
	remote->max_response_bytes =
		(size_t) get_number(server->options, "max_response_size") * 1024;

	problem = remote->key && !get_bool(server->options, "allow_key_mismatch") ?
		cvx_options_key_problem(remote->key, remote->host) : NULL;
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
	const char *name = get_text(foreign->options, "table_name");
	const char *component = get_text(foreign->options, "component");
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
	const char *name = get_text(options, "column_name");

	column->is_path = get_bool(options, "path");
	column->is_document = name != NULL && strcmp(name, "*") == 0 &&
		!column->is_path;
	column->field = name ? pstrdup(name) : get_attname(relid, attnum, false);
	column->writes_nulls = strcmp(get_text(options, "nulls"), "null") == 0;
	if (get_text(options, "convex_type"))
		column->convex_type = pstrdup(get_text(options, "convex_type"));
	return column;
}

/* "a.b" as a path, in the current context. */
CvxPath
cvx_options_path(const char *text)
{
	CvxPath		path = {.label = pstrdup(text)};
	char	   *p = pstrdup(text);

	path.names = palloc(sizeof(char *) * (strlen(text) + 1));
	for (;;)
	{
		char	   *dot = strchr(p, '.');

		path.names[path.n++] = p;
		if (dot == NULL)
			return path;
		*dot = '\0';
		p = dot + 1;
	}
}

/*
 * Is a key of the form <kind>:<deployment>|... made for another deployment
 * than the host's?  NULL: no, or that cannot be told from here.
 */
char *
cvx_options_key_problem(const char *key, const char *host)
{
	const char *colon = strchr(key, ':');
	const char *bar = strchr(key, '|');
	size_t		hostlen = strcspn(host, ".");
	size_t		len;

	if (colon == NULL || bar == NULL || bar < colon ||
		memchr(colon + 1, ':', bar - colon - 1) != NULL ||
		strncmp(key, "preview:", 8) == 0 || strncmp(key, "project:", 8) == 0)
		return NULL;
	if (!ends_with(host, ".convex.cloud"))
		return NULL;

	/* <name>.convex.cloud or <name>.<region>.convex.cloud */
	if (strlen(host) - hostlen != strlen(".convex.cloud"))
	{
		const char *region = host + hostlen + 1;

		if (strcmp(region + strcspn(region, "."), ".convex.cloud") != 0)
			return NULL;
	}
	len = bar - colon - 1;
	if (len == hostlen && pg_strncasecmp(colon + 1, host, len) == 0)
		return NULL;
	return psprintf("The key names deployment \"%.*s\", the server's host \"%s\".",
					(int) Min(len, MAX_IDENTIFIER), colon + 1, host);
}

/* Does Convex take this as the name of a user's table? */
bool
cvx_options_is_table_name(const char *name)
{
	return name[0] != '_' && is_identifier(name);
}

/* Can a component have this path?  That of the root is empty. */
bool
cvx_options_is_component(const char *path)
{
	while (*path)
	{
		char	   *segment = pnstrdup(path, strcspn(path, "/"));

		if (!is_identifier(segment))
			return false;
		path += strlen(segment);
		if (*path == '/' && *++path == '\0')
			return false;
	}
	return true;
}

/*
 * Can a field have this name?  Top-level fields other than _id and
 * _creationTime do not begin with "_".
 */
bool
cvx_options_is_field_name(const char *name, bool is_top_level)
{
	size_t		len = strlen(name);

	if (len > MAX_FIELD_NAME || name[0] == '$')
		return false;
	for (size_t i = 0; i < len; i++)
		if (name[i] < 0x20 || name[i] > 0x7e)
			return false;
	return !is_top_level || name[0] != '_' || strcmp(name, "_id") == 0 ||
		strcmp(name, "_creationTime") == 0;
}

static void
validate_one(const DefElem *def, int place)
{
	const Option *option = find_option(def->defname);
	char	   *value;
	int			flag;

	if (option == NULL || !(option->places & place))
		refuse_unknown(def->defname, place);
	value = defGetString((DefElem *) def);
	check_right(option);
	switch (option->kind)
	{
		case OPTION_BOOL:
			{
				bool		result;

				if (!parse_bool(value, &result))
					refuse_value(option, value, "Write true or false.");
				break;
			}
		case OPTION_DURATION:
		case OPTION_SIZE:
		case OPTION_INTEGER:
			(void) parse_number(option, value);
			break;
		case OPTION_COST:
			{
				double		cost;

				if (!parse_real(value, &cost, 0, NULL) || cost < 0)
					refuse_value(option, value,
								 "Write a number that is not negative.");
				break;
			}
		case OPTION_CHOICE:
			{
				size_t		len = strlen(value);
				const char *p = option->choices;

				for (flag = 0; *p && !flag; p += strspn(p, ", "))
				{
					flag = strcspn(p, ",") == len && strncmp(p, value, len) == 0;
					p += strcspn(p, ",");
				}
				if (!flag)
					refuse_value(option, value,
								 psprintf("Valid values are: %s.",
										  option->choices));
				break;
			}
		case OPTION_TEXT:
			if (option->check)
				option->check(value);
			break;
	}
}

static const Option *
find_option(const char *name)
{
	for (int i = 0; i < lengthof(known_options); i++)
		if (strcmp(known_options[i].name, name) == 0)
			return &known_options[i];
	return NULL;
}

/* HV00D with the closest name and the valid list; never with the value. */
static void
refuse_unknown(const char *name, int place)
{
	const Option *closest = NULL;
	int			closest_distance = 5;
	const Option *elsewhere = find_option(name);
	StringInfoData valid;

	if (elsewhere && elsewhere->places == ON_MAPPING)
		ereport(ERROR,
				(errcode(ERRCODE_FDW_INVALID_OPTION_NAME),
				 errmsg("option \"%s\" belongs to a user mapping", name),
				 errhint("Use CREATE USER MAPPING FOR CURRENT_USER SERVER ... OPTIONS (%s '...').",
						 name),
				 hide_statement(ON_MAPPING)));
	initStringInfo(&valid);
	for (int i = 0; i < lengthof(known_options); i++)
	{
		const Option *option = &known_options[i];
		int			distance;

		if (!(option->places & place))
			continue;
		appendStringInfo(&valid, "%s%s", valid.len > 0 ? ", " : "",
						 option->name);
		distance = varstr_levenshtein_less_equal(name, Min(strlen(name), 255),
												 option->name,
												 strlen(option->name),
												 1, 1, 1, closest_distance, true);
		if (distance < closest_distance && distance <= (int) strlen(name) / 2)
		{
			closest = option;
			closest_distance = distance;
		}
	}
	ereport(ERROR,
			(errcode(ERRCODE_FDW_INVALID_OPTION_NAME),
			 errmsg("invalid option \"%s\"", name),
			 valid.len == 0 ? errhint("There are no valid options in this context.") :
			 closest ? errhint("Perhaps you meant the option \"%s\".  Valid options in this context are: %s.",
							   closest->name, valid.data) :
			 errhint("Valid options in this context are: %s.", valid.data),
			 hide_statement(place)));
}

static void
refuse_value(const Option *option, const char *value, const char *hint)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("invalid value for option \"%s\": \"%s\"", option->name,
					value),
			 hint ? errhint("%s", hint) : 0));
}

static void
check_right(const Option *option)
{
	bool		has_right = true;

	if (option->right == RIGHT_SUPERUSER)
		has_right = superuser();
	else if (option->right == RIGHT_READ_FILES)
		has_right = has_privs_of_role(GetUserId(), ROLE_PG_READ_SERVER_FILES);
	if (has_right)
		return;
	ereport(ERROR,
			(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
			 errmsg("permission denied to set option \"%s\"", option->name),
			 option->right == RIGHT_SUPERUSER ?
			 errhint("Only a superuser may set it, or alter an object that has it.") :
			 errhint("Only a superuser or a member of pg_read_server_files may set it, or alter an object that has it."),
			 hide_statement(option->places)));
}

/* A number other than 0 without a unit? */
static bool
is_bare_number(const char *value)
{
	char	   *end;
	double		number = strtod(value, &end);

	return end != value && number != 0 && end[strspn(end, " \t\n\r")] == '\0';
}

/* A duration in ms, a size in kB, or a plain integer, within its limits. */
static int
parse_number(const Option *option, const char *value)
{
	int			flags = option->kind == OPTION_DURATION ? GUC_UNIT_MS :
		option->kind == OPTION_SIZE ? GUC_UNIT_KB : 0;
	const char *hint = NULL;
	int			result;

	if (flags != 0 && is_bare_number(value))
		refuse_value(option, value,
					 psprintf("Write the unit, for example \"%s\".",
							  option->kind == OPTION_DURATION ? "10s" : "64MB"));
	if (!parse_int(value, &result, flags, &hint))
		refuse_value(option, value, hint);
	if (result < option->min || result > option->max)
		refuse_value(option, value,
					 option->kind == OPTION_SIZE ?
					 psprintf("It must be between %d kB and %d kB.",
							  option->min, option->max) :
					 option->kind == OPTION_DURATION ?
					 psprintf("It must be between %d ms and %d ms.",
							  option->min, option->max) :
					 psprintf("It must be between %d and %d.",
							  option->min, option->max));
	return result;
}

static void
validate_server(List *options)
{
	const char *url = get_text(options, "deployment_url");
	CvxRemote	remote;

	if (url == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_FDW_DYNAMIC_PARAMETER_VALUE_NEEDED),
				 errmsg("option \"deployment_url\" is required"),
				 errhint("For example: OPTIONS (deployment_url 'https://happy-otter-123.convex.cloud').")));
	parse_url(url, get_bool(options, "allow_insecure_http"), &remote);
}

static void
validate_mapping(List *options)
{
	if (get_text(options, "deploy_key") && get_text(options, "deploy_key_file"))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("options \"deploy_key\" and \"deploy_key_file\" exclude each other"),
				 hide_statement(ON_MAPPING)));
	if (get_text(options, "proxy_password") && !get_text(options, "proxy_user"))
		ereport(ERROR,
				(errcode(ERRCODE_FDW_DYNAMIC_PARAMETER_VALUE_NEEDED),
				 errmsg("option \"proxy_password\" needs option \"proxy_user\""),
				 hide_statement(ON_MAPPING)));
}

static void
validate_column(List *options)
{
	const char *name = get_text(options, "column_name");
	bool		is_path = get_bool(options, "path");
	bool		is_valid = true;

	if (name == NULL || (strcmp(name, "*") == 0 && !is_path))
		return;
	if (!is_path)
		is_valid = cvx_options_is_field_name(name, true);
	else
	{
		const char *p = name;
		bool		is_top_level = true;

		for (;; p++)
		{
			char	   *segment = pnstrdup(p, strcspn(p, "."));

			is_valid &= segment[0] != '\0' &&
				cvx_options_is_field_name(segment, is_top_level);
			is_top_level = false;
			p += strlen(segment);
			if (*p == '\0')
				break;
		}
	}
	if (!is_valid)
		refuse_value(find_option("column_name"), name,
					 "Convex field names are printable ASCII, at most 1024 bytes, and begin neither with \"$\" nor, at the top level, with \"_\" (except _id and _creationTime).");
}

static void
check_key(const char *value)
{
	for (const char *p = value; *p; p++)
		if (*p <= ' ' || *p > '~')
			value = "";
	if (*value == '\0' || strlen(value) > MAX_KEY_BYTES)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid value for option \"deploy_key\""),
				 errhint("A deploy key is one line of printable ASCII without spaces."),
				 hide_statement(ON_MAPPING)));
}

static void
check_key_file(const char *value)
{
	if (!is_absolute_path(value))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("option \"deploy_key_file\" must be an absolute path"),
				 hide_statement(ON_MAPPING)));
}

/*
 * Everybody sees the options of a server: what it needs to know of a role
 * stands in the role's user mapping.
 */
static void
check_proxy(const char *value)
{
	if (strchr(value, '@') == NULL)
		return;
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("option \"http_proxy\" must not hold a user or password"),
			 errhint("Set proxy_user and proxy_password in CREATE USER MAPPING."),
			 hide_statement(ON_MAPPING)));
}

/* Basic authentication ends the name at the first colon. */
static void
check_proxy_user(const char *value)
{
	if (value[0] == '\0' || strchr(value, ':') || !is_printable(value))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid value for option \"proxy_user\""),
				 errhint("It is one line of printable ASCII without a colon."),
				 hide_statement(ON_MAPPING)));
}

static void
check_proxy_password(const char *value)
{
	if (value[0] == '\0' || !is_printable(value))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid value for option \"proxy_password\""),
				 errhint("It is one line of printable ASCII."),
				 hide_statement(ON_MAPPING)));
}

static bool
is_printable(const char *value)
{
	for (const char *p = value; *p; p++)
		if (*p < ' ' || *p > '~')
			return false;
	return strlen(value) <= MAX_KEY_BYTES;
}

static void
check_table_name(const char *value)
{
	if (!cvx_options_is_table_name(value))
		refuse_value(find_option("table_name"), value,
					 "Names of Convex tables are letters, digits and \"_\", begin with a letter, and have at most 64 characters.");
}

static void
check_component(const char *value)
{
	if (!cvx_options_is_component(value))
		refuse_value(find_option("component"), value,
					 "A component is named by its path, such as \"billing\" or \"billing/ledger\"; the root component is the empty string.");
}

static void
check_primary_key(const char *value)
{
	(void) parse_primary_key(value);
}

/* 'a, b.c' as a key, in the current context.  Throws 22023. */
static CvxKey *
parse_primary_key(const char *value)
{
	CvxKey	   *key = palloc0(sizeof(CvxKey));
	const char *p = value;
	StringInfoData field;

	initStringInfo(&field);
	key->text = pstrdup(value);
	key->paths = palloc(sizeof(CvxPath) * (strlen(value) + 1));
	for (;; p++)
	{
		char	   *segment;

		p += strspn(p, " ");
		segment = pnstrdup(p, strcspn(p, ",. "));
		p += strlen(segment);
		p += strspn(p, " ");
		if (!cvx_options_is_table_name(segment))
			refuse_value(find_option("primary_key"), value,
						 "Write one field or several separated by commas; a.b is a nested field.");
		appendStringInfo(&field, "%s%s", field.len > 0 ? "." : "", segment);
		if (*p == '.')
			continue;
		for (int i = 0; i < key->n; i++)
			if (strcmp(key->paths[i].label, field.data) == 0)
				refuse_value(find_option("primary_key"), value,
							 "A field can stand in the key only once.");
		key->paths[key->n++] = cvx_options_path(field.data);
		resetStringInfo(&field);
		if (*p == '\0')
			break;
		if (*p != ',')
			refuse_value(find_option("primary_key"), value,
						 "Write one field or several separated by commas; a.b is a nested field.");
	}
	if (key->n > 15)
		refuse_value(find_option("primary_key"), value,
					 "An index of Convex has at most 15 fields.");
	return key;
}

/*
 * Take a deployment's URL apart: base_url, host, is_plain of remote, in the
 * current context.
 */
static void
parse_url(const char *url, bool allow_http, CvxRemote *remote)
{
	const char *p;
	const char *host;
	size_t		hostlen;
	bool		is_bracketed;

	if (pg_strncasecmp(url, "https://", 8) == 0)
		remote->is_plain = false;
	else if (pg_strncasecmp(url, "http://", 7) == 0)
		remote->is_plain = true;
	else
		refuse_url("it must begin with https://",
				   "For example: https://happy-otter-123.convex.cloud");
	p = host = strchr(url, '/') + 2;
	if (p[strcspn(p, "@?#")] == '@')
		refuse_url("it must not hold a user or password",
				   "Set the deploy key in CREATE USER MAPPING.");
	is_bracketed = *p == '[';
	if (is_bracketed)
	{
		host = ++p;
		hostlen = strspn(p, "0123456789abcdefABCDEF:.");
		p += hostlen;
		if (*p != ']')
			refuse_url("its IPv6 address does not end with \"]\"", NULL);
		p++;
	}
	else
	{
		hostlen = strspn(p, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._");
		p += hostlen;
	}
	if (hostlen == 0 || hostlen > 253 ||
		(!is_bracketed && has_empty_label(host, hostlen)))
		refuse_url("it has no valid host name", NULL);
	if (*p == ':')
	{
		int			port = 0;
		const char *digits = ++p;

		for (; *p >= '0' && *p <= '9' && p - digits < 6; p++)
			port = port * 10 + (*p - '0');
		if (port < 1 || port > 65535)
			refuse_url("its port is not between 1 and 65535", NULL);
	}
	remote->base_url = pnstrdup(url, p - url);
	if (*p == '/' && p[1] == '\0')
		p++;
	if (*p != '\0')
		refuse_url("it must be only scheme, host and port, without a path or query",
				   NULL);
	remote->host = asc_tolower(host, hostlen);
	if (ends_with(remote->host, ".convex.site"))
		refuse_url("a .convex.site host serves HTTP actions only",
				   psprintf("Use https://%.*s.convex.cloud instead.",
							(int) (strlen(remote->host) - strlen(".convex.site")),
							remote->host));
	if (remote->is_plain && !allow_http && !is_loopback_host(remote->host))
		refuse_url("plain http is only for loopback addresses",
				   "Use https; a superuser can set allow_insecure_http.");
}

/* Also a trailing dot: it would get round the rules about host names. */
static bool
has_empty_label(const char *host, size_t len)
{
	for (size_t i = 0; i < len; i++)
		if (host[i] == '.' && (i == 0 || i == len - 1 || host[i + 1] == '.'))
			return true;
	return false;
}

static void
refuse_url(const char *why, const char *hint)
{
	/* A user, a password or a query may be in it, so it is not logged. */
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("invalid value for option \"deployment_url\": %s", why),
			 hint ? errhint("%s", hint) : 0,
			 hide_statement(ON_MAPPING)));
}

static bool
is_loopback_host(const char *host)
{
	return strcmp(host, "localhost") == 0 || ends_with(host, ".localhost") ||
		strcmp(host, "::1") == 0 ||
		(strncmp(host, "127.", 4) == 0 &&
		 host[strspn(host, "0123456789.")] == '\0');
}

/* The last value of an option, or its default; NULL when there is neither. */
static const char *
get_text(List *options, const char *name)
{
	const char *value = find_option(name)->initial;
	ListCell   *lc;

	foreach(lc, options)
	{
		DefElem    *def = (DefElem *) lfirst(lc);

		if (strcmp(def->defname, name) == 0)
			value = defGetString(def);
	}
	return value;
}

static bool
get_bool(List *options, const char *name)
{
	bool		value = false;

	(void) parse_bool(get_text(options, name), &value);
	return value;
}

static int
get_number(List *options, const char *name)
{
	return parse_number(find_option(name), get_text(options, name));
}

static double
get_cost(List *options, const char *name)
{
	double		cost = 0;

	(void) parse_real(get_text(options, name), &cost, 0, NULL);
	return cost;
}

static void
fill_table(CvxTableOptions *table, List *options)
{
	const char *text = get_text(options, "nul_handling");

	table->nul_handling = strcmp(text, "replace") == 0 ? CVX_NUL_REPLACE :
		strcmp(text, "strip") == 0 ? CVX_NUL_STRIP : CVX_NUL_ERROR;
	text = get_text(options, "json_values");
	table->json_values = strcmp(text, "encoded") == 0 ? CVX_JSON_ENCODED :
		CVX_JSON_CLEAN;
	text = get_text(options, "on_conversion_error");
	table->on_misfit = strcmp(text, "null") == 0 ? CVX_MISFIT_NULL :
		CVX_MISFIT_ERROR;
	table->is_async_capable = get_bool(options, "async_capable");
	table->startup_cost = get_cost(options, "fdw_startup_cost");
	table->tuple_cost = get_cost(options, "fdw_tuple_cost");

	table->is_updatable = get_bool(options, "updatable");
	table->is_truncatable = get_bool(options, "truncatable");
	table->checks_conflicts = get_bool(options, "conflict_check");
	table->flushes_statement = strcmp(get_text(options, "flush"),
									  "statement") == 0;
	table->batch_bytes = get_number(options, "batch_bytes") * 1024;
	if (get_text(options, "primary_key"))
		table->key = parse_primary_key(get_text(options, "primary_key"));
	text = get_text(options, "import_route");
	table->route = table->key != NULL &&
		(text == NULL || strcmp(text, "fivetran") == 0) ?
		CVX_ROUTE_FIVETRAN : CVX_ROUTE_AIRBYTE;
	table->batch_size = get_text(options, "batch_size") ?
		get_number(options, "batch_size") :
		table->key ? BATCH_KEYED : BATCH_APPENDED;
}

/* The proxy, and what the role shows to it. */
static void
fill_proxy(CvxRemote *remote, List *server_options, List *mapping_options)
{
	const char *user = get_text(mapping_options, "proxy_user");
	const char *password = get_text(mapping_options, "proxy_password");

	remote->http_proxy = pstrdup(get_text(server_options, "http_proxy"));

	/* It may have been set by a version that did not look. */
	check_proxy(remote->http_proxy);
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
	char	   *key = palloc(MAX_KEY_BYTES + 2);
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
	len = read(fd, key, MAX_KEY_BYTES + 1);
	if (len < 0)
		ereport(ERROR,
				(errcode_for_file_access(),
				 errmsg("could not read deploy key file \"%s\": %m", path)));
	CloseTransientFile(fd);
	if (len > MAX_KEY_BYTES)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("deploy key file \"%s\" is larger than %d bytes", path,
						MAX_KEY_BYTES)));
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

/* Convex's rule for names of tables and components. */
static bool
is_identifier(const char *name)
{
	size_t		len = strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_");

	return len > 0 && len <= MAX_IDENTIFIER && name[len] == '\0' &&
		(name[0] < '0' || name[0] > '9') && name[strspn(name, "_")] != '\0';
}

static bool
ends_with(const char *text, const char *end)
{
	size_t		len = strlen(text);

	return len >= strlen(end) && strcmp(text + len - strlen(end), end) == 0;
}
