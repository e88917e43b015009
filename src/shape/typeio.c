/*
 * typeio.c
 *		How are a type's own input and output functions called?
 *
 * Under settings that are the same in every session, as postgres_fdw sends
 * values: what one session writes to Convex every other one reads as the same
 * value, and a foreign table and a mirror read the same.
 *
 * Only settings that the type's functions look at, and that the session has
 * otherwise, are changed, and only while the function runs; no code of users
 * runs meanwhile.  An error gives them back with the end of its transaction or
 * subtransaction.
 *
 * Room: shape 3.1
 */
#include "postgres.h"

#include "access/transam.h"
#include "catalog/pg_type.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"

#include "ground/compat.h"
#include "ground/redact.h"
#include "shape/typeio.h"

/* What functions of types look at. */
#define NEEDS_DATES		(1 << 0)
#define NEEDS_INTERVALS	(1 << 1)
#define NEEDS_FLOATS	(1 << 2)
#define NEEDS_BYTES		(1 << 3)
#define NEEDS_MONEY		(1 << 4)
#define NEEDS_XML		(1 << 5)
#define NEEDS_NAMES		(1 << 6)
#define NEEDS_ARRAYS	(1 << 7)
#define NEEDS_ALL		((1 << 8) - 1)

/* PostgreSQL's defaults, but for the names and the zone. */
static const struct
{
	int			need;
	const char *name;
	const char *value;
}			settings[] = {
	{NEEDS_DATES, "DateStyle", "ISO, MDY"},
	{NEEDS_DATES, "TimeZone", "UTC"},
	{NEEDS_INTERVALS, "IntervalStyle", "postgres"},
	{NEEDS_FLOATS, "extra_float_digits", "1"},
	{NEEDS_BYTES, "bytea_output", "hex"},
	{NEEDS_MONEY, "lc_monetary", "C"},
	{NEEDS_XML, "xmloption", "content"},
	{NEEDS_NAMES, "search_path", "pg_catalog, pg_temp"},
	{NEEDS_NAMES, "quote_all_identifiers", "off"},
	{NEEDS_ARRAYS, "array_nulls", "on"},
};

/* From this length on a message that quotes a text is not readable. */
#define LONG_TEXT		1000

static Datum long_input(CvxTypeIO *io, char *text, int32 typmod);
static int	needs_of(Oid type);
static int	begin_settings(int needs);

/* The input function of a type, in the current context. */
void
cvx_typeio_for_input(Oid type, CvxTypeIO *io)
{
	Oid			function;

	getTypeInputInfo(type, &function, &io->ioparam);
	fmgr_info(function, &io->function);
	io->needs = needs_of(type);
}

/* The output function of a type, in the current context. */
void
cvx_typeio_for_output(Oid type, CvxTypeIO *io)
{
	Oid			function;
	bool		is_varlena;

	getTypeOutputInfo(type, &function, &is_varlena);
	fmgr_info(function, &io->function);
	io->needs = needs_of(type);
}

/* Throws what the type's function throws, with an excerpt of a long message. */
Datum
cvx_typeio_input(CvxTypeIO *io, char *text, int32 typmod)
{
	int			nest = begin_settings(io->needs);
	Datum		result;

	if (strnlen(text, LONG_TEXT) < LONG_TEXT)
		result = InputFunctionCall(&io->function, text, io->ioparam, typmod);
	else
		result = long_input(io, text, typmod);
	if (nest > 0)
		AtEOXact_GUC(true, nest);
	return result;
}

char *
cvx_typeio_output(CvxTypeIO *io, Datum value)
{
	int			nest = begin_settings(io->needs);
	char	   *result = OutputFunctionCall(&io->function, value);

	if (nest > 0)
		AtEOXact_GUC(true, nest);
	return result;
}

/* Messages of input functions often quote the whole text. */
static Datum
long_input(CvxTypeIO *io, char *text, int32 typmod)
{
	MemoryContext cxt = CurrentMemoryContext;
	volatile Datum result = (Datum) 0;

	PG_TRY();
	{
		result = InputFunctionCall(&io->function, text, io->ioparam, typmod);
	}
	PG_CATCH();
	{
		ErrorData  *error;

		MemoryContextSwitchTo(cxt);
		error = CopyErrorData();
		FlushErrorState();
		if (strlen(error->message) >= LONG_TEXT)
			error->message = cvx_redact_excerpt(error->message,
											   strlen(error->message));
		if (error->detail && strlen(error->detail) >= LONG_TEXT)
			error->detail = cvx_redact_excerpt(error->detail,
											  strlen(error->detail));
		ReThrowError(error);
	}
	PG_END_TRY();
	return result;
}

/*
 * Types of extensions, and those that contain others of any kind, may look at
 * anything; PostgreSQL's own at what is listed here.
 */
static int
needs_of(Oid type)
{
	switch (type)
	{
		case DATEOID:
		case TIMETZOID:
		case TIMESTAMPOID:
		case TIMESTAMPTZOID:
			return NEEDS_DATES;
		case INTERVALOID:
			return NEEDS_INTERVALS;
		case FLOAT4OID:
		case FLOAT8OID:
		case POINTOID:
		case LSEGOID:
		case PATHOID:
		case BOXOID:
		case POLYGONOID:
		case LINEOID:
		case CIRCLEOID:
			return NEEDS_FLOATS;
		case BYTEAOID:
			return NEEDS_BYTES;
		case CASHOID:
			return NEEDS_MONEY;
		case XMLOID:
			return NEEDS_XML;
		case REGPROCOID:
		case REGPROCEDUREOID:
		case REGOPEROID:
		case REGOPERATOROID:
		case REGCLASSOID:
		case REGTYPEOID:
		case REGROLEOID:
		case REGNAMESPACEOID:
		case REGCONFIGOID:
		case REGDICTIONARYOID:
		case REGCOLLATIONOID:
			return NEEDS_NAMES;
		default:
			break;
	}
	switch (get_typtype(type))
	{
		case TYPTYPE_ENUM:
			return 0;
		case TYPTYPE_DOMAIN:
			return needs_of(getBaseType(type));
		case TYPTYPE_RANGE:
			return needs_of(get_range_subtype(type));
		case TYPTYPE_MULTIRANGE:
			return needs_of(get_range_subtype(get_multirange_range(type)));
		case TYPTYPE_BASE:
			if (OidIsValid(get_element_type(type)))
				return NEEDS_ARRAYS | needs_of(get_element_type(type));
			return type < FirstNormalObjectId ? 0 : NEEDS_ALL;
		default:
			return NEEDS_ALL;
	}
}

/*
 * Make the settings what they are to be; 0 when they are that already,
 * otherwise the level that AtEOXact_GUC() ends.
 */
static int
begin_settings(int needs)
{
	int			nest = 0;

	for (int i = 0; needs != 0 && i < lengthof(settings); i++)
	{
		if ((settings[i].need & needs) == 0 ||
			strcmp(GetConfigOption(settings[i].name, false, false),
				   settings[i].value) == 0)
			continue;
		if (nest == 0)
			nest = NewGUCNestLevel();
		(void) set_config_option(settings[i].name, settings[i].value,
								 PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE,
								 true, 0, false);
	}
	return nest;
}
