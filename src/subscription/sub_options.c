/*
 * sub_options.c
 *		What may the options of a subscription be?
 *
 * Room: subscription 5.2
 */
#include "postgres.h"

#include "utils/builtins.h"

#include "ground/compat.h"
#include "subscription/sub_catalog.h"
#include "subscription/sub_options.h"

/* The values that an interval may have. */
typedef struct IntervalRange
{
	double		least_ms;
	double		most_ms;
	const char *text;
} IntervalRange;

/* Shorter ones would be a flood of requests, longer ones never end. */
static const IntervalRange poll_range = {50, 86400e3, "50 ms to 1 day"};
static const IntervalRange check_range = {10e3, 30 * 86400e3, "10 s to 30 days"};

static char *option_text(Jsonb *options, const char *name);
static List *option_names(Jsonb *options, const char *name);
static bool is_choice(const char *choices, const char *text);
static Interval *interval_of(const char *text);
static double interval_ms(const Interval *interval);
static void check_interval(const char *name, const Interval *interval,
						   const IntervalRange *range);

/* Throws 22023 for an option that does not exist or has a bad value. */
void
cvx_catalog_check_options(Jsonb *options)
{
	static const struct
	{
		const char *name;
		const char *values;		/* NULL: an interval; "#": a number */
		const IntervalRange *range;
	}			known[] = {
		{"json_values", "clean, encoded"},
		{"nul_handling", "replace, strip"},
		{"schema_evolution", "add, ignore"},
		{"deletes", "apply, ignore"},
		{"document", "none, jsonb"},
		{"notify", "true, false"},
		{"max_columns", "#"},
		{"idle_poll_interval", NULL, &poll_range},
		{"table_check_interval", NULL, &check_range},
	};
	JsonbIterator *it = JsonbIteratorInit(&options->root);
	JsonbIteratorToken token;
	JsonbValue	value;

	if (!JB_ROOT_IS_OBJECT(options))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("options must be a JSON object")));
	while ((token = JsonbIteratorNext(&it, &value, true)) != WJB_DONE)
	{
		char	   *name;
		char	   *text;
		char	   *end;
		int			i;

		if (token != WJB_KEY)
			continue;
		name = pnstrdup(value.val.string.val, value.val.string.len);
		if (strcmp(name, "adopt") == 0)
		{
			(void) option_names(options, name);
			continue;
		}
		for (i = 0; i < lengthof(known); i++)
			if (strcmp(known[i].name, name) == 0)
				break;
		if (i == lengthof(known))
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("unknown option \"%s\" of a subscription", name),
					 errhint("Known are: json_values, nul_handling, schema_evolution, deletes, document, notify, max_columns, idle_poll_interval, table_check_interval, adopt.")));
		text = option_text(options, name);
		if (known[i].values == NULL && text)
			check_interval(name, interval_of(text), known[i].range);
		else if (text == NULL ||
				 (strcmp(known[i].values, "#") == 0 ?
				  strtol(text, &end, 10) < 10 || strtol(text, NULL, 10) > 1500 ||
				  *end != '\0' :
				  !is_choice(known[i].values, text)))
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("invalid value of option \"%s\" of a subscription", name),
					 known[i].values == NULL ? 0 :
					 strcmp(known[i].values, "#") == 0 ?
					 errhint("Valid values are 10 to 1500.") :
					 errhint("Valid values are: %s.", known[i].values)));
	}
}

/* Throws 22023 for an interval that nobody would poll in. */
void
cvx_catalog_check_poll_interval(const Interval *interval)
{
	check_interval("poll_interval", interval, &poll_range);
}

void
cvx_catalog_read_options(CvxSubscription *sub, Jsonb *options)
{
	char	   *text;

	sub->options.is_evolving = true;
	sub->options.applies_deletes = true;
	sub->options.max_columns = CVX_MAX_COLUMNS;
	sub->options.idle_poll_ms = 10000;
	if ((text = option_text(options, "schema_evolution")) != NULL)
		sub->options.is_evolving = strcmp(text, "ignore") != 0;
	if ((text = option_text(options, "deletes")) != NULL)
		sub->options.applies_deletes = strcmp(text, "ignore") != 0;
	if ((text = option_text(options, "document")) != NULL)
		sub->options.has_document = strcmp(text, "jsonb") == 0;
	if ((text = option_text(options, "notify")) != NULL)
		sub->options.notifies = strcmp(text, "true") == 0;
	if ((text = option_text(options, "max_columns")) != NULL)
		sub->options.max_columns = atoi(text);
	if ((text = option_text(options, "json_values")) != NULL)
		sub->options.table.json_values = strcmp(text, "encoded") == 0 ?
			CVX_JSON_ENCODED : CVX_JSON_CLEAN;
	if ((text = option_text(options, "nul_handling")) != NULL)
		sub->options.table.nul_handling = strcmp(text, "strip") == 0 ?
			CVX_NUL_STRIP : CVX_NUL_REPLACE;
	sub->options.adopted = option_names(options, "adopt");
	if ((text = option_text(options, "idle_poll_interval")) != NULL)
		sub->options.idle_poll_ms = cvx_catalog_poll_ms(text);
	sub->options.idle_poll_ms = Max(sub->options.idle_poll_ms, sub->options.poll_ms);
}

/* An option as text; NULL when it is not set. */
static char *
option_text(Jsonb *options, const char *name)
{
	JsonbValue	buffer;
	JsonbValue *value = getKeyJsonValueFromContainer(&options->root, name,
													 strlen(name), &buffer);

	if (value == NULL || value->type == jbvNull)
		return NULL;
	switch (value->type)
	{
		case jbvString:
			return pnstrdup(value->val.string.val, value->val.string.len);
		case jbvBool:
			return value->val.boolean ? "true" : "false";
		case jbvNumeric:
			return DatumGetCString(DirectFunctionCall1(numeric_out, NumericGetDatum(value->val.numeric)));
		default:
			return NULL;
	}
}

/* An option that is an array of names; NIL when it is not set. */
static List *
option_names(Jsonb *options, const char *name)
{
	JsonbValue	buffer;
	JsonbValue *value = getKeyJsonValueFromContainer(&options->root, name,
													 strlen(name), &buffer);
	bool		is_array = value && value->type == jbvBinary &&
		JsonContainerIsArray(value->val.binary.data);
	int			n = is_array ? JsonContainerSize(value->val.binary.data) : 0;
	List	   *names = NIL;

	for (int i = 0; i < n; i++)
	{
		JsonbValue *element = getIthJsonbValueFromContainer(value->val.binary.data, i);

		if (element->type == jbvString)
			names = lappend(names, pnstrdup(element->val.string.val,
											element->val.string.len));
	}
	if (value && (!is_array || list_length(names) < n))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid value of option \"%s\" of a subscription", name),
				 errhint("It is a JSON array of names.")));
	return names;
}

/* Is text one of the words of a list? */
static bool
is_choice(const char *choices, const char *text)
{
	size_t		len = strlen(text);

	for (const char *p = choices; *p; p += strspn(p, ", "))
	{
		if (strcspn(p, ",") == len && strncmp(p, text, len) == 0)
			return true;
		p += strcspn(p, ",");
	}
	return false;
}

/* As polls are paused; what a catalog of old may hold is brought into range. */
int
cvx_catalog_poll_ms(const char *text)
{
	double		ms = interval_ms(interval_of(text));

	return (int) Max(Min(ms, poll_range.most_ms), poll_range.least_ms);
}

static Interval *
interval_of(const char *text)
{
	return DatumGetIntervalP(DirectFunctionCall3(interval_in,
												 CStringGetDatum(text),
												 ObjectIdGetDatum(InvalidOid),
												 Int32GetDatum(-1)));
}

static double
interval_ms(const Interval *interval)
{
	return interval->time / 1000.0 +
		(interval->day + interval->month * 30.0) * 86400e3;
}

static void
check_interval(const char *name, const Interval *interval,
			   const IntervalRange *range)
{
	double		ms = interval_ms(interval);

	if (ms < range->least_ms || ms > range->most_ms)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s of a subscription is out of range", name),
				 errhint("Valid values are %s.", range->text)));
}
