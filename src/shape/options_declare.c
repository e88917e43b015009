/*
 * options_declare.c
 *		Which options are there, and which values do they take?
 *
 * One table describes every option: where it may stand, how its value is
 * written, which right it needs.  The validator sees one object's list at a
 * time; what needs a second object (key against host) is checked when the
 * connection is described by cvx_options_remote().
 *
 * The deploy key appears in no message.  Whatever a user mapping is refused
 * for hides the statement and its context from the log.
 *
 * Room: shape 3.3
 */
#include "postgres.h"

#include "access/reloptions.h"
#include "catalog/pg_attribute.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_foreign_server.h"
#include "catalog/pg_foreign_table.h"
#include "catalog/pg_user_mapping.h"
#include "commands/defrem.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/varlena.h"

#include "ground/compat.h"
#include "shape/options_declare.h"
#include "shape/url.h"

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

static int place_of(Oid catalog);
static int hide_statement(int place);
static void validate_one(const DefElem *def, int place);
static const Option *find_option(const char *name);
static void refuse_unknown(const char *name, int place);
static void refuse_value(const Option *option, const char *value,
						 const char *hint);
static void check_right(const Option *option);
static bool is_bare_number(const char *value);
static int	parse_number(const Option *option, const char *value);
static void validate_server(List *options);
static void validate_mapping(List *options);
static void validate_column(List *options);
static void check_key(const char *value);
static void check_key_file(const char *value);
static void check_proxy_user(const char *value);
static void check_proxy_password(const char *value);
static bool is_printable(const char *value);
static void check_table_name(const char *value);
static void check_component(const char *value);
static void check_primary_key(const char *value);
static bool is_identifier(const char *name);

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
	{"http_proxy", ON_SERVER, OPTION_TEXT, NULL, .right = RIGHT_SUPERUSER, .check = cvx_options_check_proxy},
	{"allow_key_mismatch", ON_SERVER, OPTION_BOOL, "false", .right = RIGHT_SUPERUSER},

	{"updatable", ON_SERVER | ON_TABLE, OPTION_BOOL, "true"},
	{"truncatable", ON_SERVER | ON_TABLE, OPTION_BOOL, "true"},
	{"batch_size", ON_SERVER | ON_TABLE, OPTION_INTEGER, NULL, 1, 16000},
	{"batch_bytes", ON_SERVER | ON_TABLE, OPTION_SIZE, "4MB", 1, 8 * 1024},
	{"flush", ON_SERVER | ON_TABLE, OPTION_CHOICE, "commit", .choices = "commit, statement"},
	{"conflict_check", ON_SERVER | ON_TABLE, OPTION_BOOL, "true"},
	{"pushdown", ON_SERVER | ON_TABLE, OPTION_CHOICE, "auto", .choices = "auto, off"},
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

/*
 * Everybody sees the options of a server: what it needs to know of a role
 * stands in the role's user mapping.
 */
void
cvx_options_check_proxy(const char *value)
{
	if (strchr(value, '@') == NULL)
		return;
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("option \"http_proxy\" must not hold a user or password"),
			 errhint("Set proxy_user and proxy_password in CREATE USER MAPPING."),
			 hide_statement(ON_MAPPING)));
}

/* 'a, b.c' as a key, in the current context.  Throws 22023. */
CvxKey *
cvx_options_parse_key(const char *value)
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

/* The last value of an option, or its default; NULL when there is neither. */
const char *
cvx_options_text(List *options, const char *name)
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

/* The same as a boolean; false when there is neither. */
bool
cvx_options_bool(List *options, const char *name)
{
	bool		value = false;

	(void) parse_bool(cvx_options_text(options, name), &value);
	return value;
}

/* The same as a number, in the unit of its limits. */
int
cvx_options_number(List *options, const char *name)
{
	return parse_number(find_option(name), cvx_options_text(options, name));
}

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
	const char *url = cvx_options_text(options, "deployment_url");
	CvxRemote	remote;

	if (url == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_FDW_DYNAMIC_PARAMETER_VALUE_NEEDED),
				 errmsg("option \"deployment_url\" is required"),
				 errhint("For example: OPTIONS (deployment_url 'https://happy-otter-123.convex.cloud').")));
	cvx_url_parse(url, cvx_options_bool(options, "allow_insecure_http"),
				  &remote);
}

static void
validate_mapping(List *options)
{
	if (cvx_options_text(options, "deploy_key") &&
		cvx_options_text(options, "deploy_key_file"))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("options \"deploy_key\" and \"deploy_key_file\" exclude each other"),
				 hide_statement(ON_MAPPING)));
	if (cvx_options_text(options, "proxy_password") &&
		!cvx_options_text(options, "proxy_user"))
		ereport(ERROR,
				(errcode(ERRCODE_FDW_DYNAMIC_PARAMETER_VALUE_NEEDED),
				 errmsg("option \"proxy_password\" needs option \"proxy_user\""),
				 hide_statement(ON_MAPPING)));
}

static void
validate_column(List *options)
{
	const char *name = cvx_options_text(options, "column_name");
	bool		is_path = cvx_options_bool(options, "path");
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
	if (*value == '\0' || strlen(value) > CVX_MAX_KEY_BYTES)
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
	return strlen(value) <= CVX_MAX_KEY_BYTES;
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
	(void) cvx_options_parse_key(value);
}

/* Convex's rule for names of tables and components. */
static bool
is_identifier(const char *name)
{
	size_t		len = strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_");

	return len > 0 && len <= MAX_IDENTIFIER && name[len] == '\0' &&
		(name[0] < '0' || name[0] > '9') && name[strspn(name, "_")] != '\0';
}
