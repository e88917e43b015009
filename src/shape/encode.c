/*
 * encode.c
 *		How does a datum become a Convex value?
 *
 * The SQL type says which Convex type a value gets, or the column's option
 * convex_type does; what cannot be sent exactly throws class 22 with a hint.
 * The caller's error context names row and column.
 *
 * Room: shape 3.9
 */
#include "postgres.h"

#include <math.h>

#include "catalog/pg_type.h"
#include "common/base64.h"
#include "fmgr.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/date.h"
#include "utils/fmgrprotos.h"
#include "utils/jsonb.h"
#include "utils/lsyscache.h"
#include "utils/numeric.h"
#include "utils/timestamp.h"

#include "ground/compat.h"
#include "shape/encode.h"
#include "ground/redact.h"
#include "shape/typeio.h"
#include "shape/value_read.h"

/* The time between 1970 and 2000. */
#define MS_AT_2000		INT64CONST(946684800000)
#define DAYS_AT_2000	10957

/* The largest magnitude up to which every whole number is a float64. */
#define MAX_SAFE_WHOLE	(INT64CONST(1) << 53)

/* What the value is to be in Convex. */
typedef enum Target
{
	TARGET_DEFAULT,				/* as the SQL type says */
	TARGET_BOOLEAN,
	TARGET_INT64,
	TARGET_FLOAT64,
	TARGET_STRING,
	TARGET_BYTES
} Target;

typedef void (*Encode) (CvxEncoder *encoder, Datum value, StringInfo out);

struct CvxEncoder
{
	Oid			type;			/* base type */
	Target		target;
	CvxSyntax	syntax;
	bool		keeps_markers;	/* jsonb: json_values 'encoded' */
	Encode		encode;
	CvxTypeIO	output;
	CvxEncoder *element;		/* of an array */
	int16		elmlen;
	bool		elmbyval;
	char		elmalign;
};

static void encode_bool(CvxEncoder *encoder, Datum value, StringInfo out);
static void encode_int2(CvxEncoder *encoder, Datum value, StringInfo out);
static void encode_int4(CvxEncoder *encoder, Datum value, StringInfo out);
static void encode_int8(CvxEncoder *encoder, Datum value, StringInfo out);
static void encode_float4(CvxEncoder *encoder, Datum value, StringInfo out);
static void encode_float8(CvxEncoder *encoder, Datum value, StringInfo out);
static void encode_numeric(CvxEncoder *encoder, Datum value, StringInfo out);
static void encode_text(CvxEncoder *encoder, Datum value, StringInfo out);
static void encode_bytea(CvxEncoder *encoder, Datum value, StringInfo out);
static void encode_json(CvxEncoder *encoder, Datum value, StringInfo out);
static void encode_jsonb(CvxEncoder *encoder, Datum value, StringInfo out);
static void encode_timestamp(CvxEncoder *encoder, Datum value, StringInfo out);
static void encode_date(CvxEncoder *encoder, Datum value, StringInfo out);
static void encode_output(CvxEncoder *encoder, Datum value, StringInfo out);
static void encode_array(CvxEncoder *encoder, Datum value, StringInfo out);

static const struct
{
	Oid			type;
	Encode		encode;
}			encodes[] = {
	{BOOLOID, encode_bool},
	{INT2OID, encode_int2},
	{INT4OID, encode_int4},
	{INT8OID, encode_int8},
	{FLOAT4OID, encode_float4},
	{FLOAT8OID, encode_float8},
	{NUMERICOID, encode_numeric},
	{TEXTOID, encode_text},
	{VARCHAROID, encode_text},
	{BYTEAOID, encode_bytea},
	{JSONOID, encode_json},
	{JSONBOID, encode_jsonb},
	{TIMESTAMPTZOID, encode_timestamp},
	{TIMESTAMPOID, encode_timestamp},
	{DATEOID, encode_date},
};

static const struct
{
	const char *name;
	Target		target;
	CvxKind		kind;
}			targets[] = {
	{"boolean", TARGET_BOOLEAN, CVX_KIND_BOOLEAN},
	{"int64", TARGET_INT64, CVX_KIND_INT64},
	{"float64", TARGET_FLOAT64, CVX_KIND_FLOAT64},
	{"string", TARGET_STRING, CVX_KIND_STRING},
	{"id", TARGET_STRING, CVX_KIND_STRING},
	{"bytes", TARGET_BYTES, CVX_KIND_BYTES},
};

/* What a type becomes, and what convex_type can make of it, as bits of 1 << kind. */
#define BIT(kind)		(1 << CVX_KIND_##kind)
#define NUMBERS			(BIT(INT64) | BIT(FLOAT64))
#define TEXTS			(NUMBERS | BIT(STRING) | BIT(BYTES))

static const struct
{
	Encode		encode;
	CvxKind		kind;
	int			choices;
}			kinds[] = {
	{encode_bool, CVX_KIND_BOOLEAN, BIT(BOOLEAN)},
	{encode_int2, CVX_KIND_FLOAT64, NUMBERS},
	{encode_int4, CVX_KIND_FLOAT64, NUMBERS},
	{encode_int8, CVX_KIND_INT64, NUMBERS},
	{encode_float4, CVX_KIND_FLOAT64, NUMBERS},
	{encode_float8, CVX_KIND_FLOAT64, NUMBERS},
	{encode_numeric, CVX_KIND_FLOAT64, NUMBERS},
	{encode_text, CVX_KIND_STRING, TEXTS},
	{encode_output, CVX_KIND_STRING, TEXTS},
	{encode_bytea, CVX_KIND_BYTES, BIT(BYTES)},
	{encode_timestamp, CVX_KIND_FLOAT64, NUMBERS | BIT(STRING)},
	{encode_date, CVX_KIND_FLOAT64, NUMBERS | BIT(STRING)},
	{encode_array, CVX_KIND_ARRAY, BIT(ARRAY)},
};

static Datum jsonb_of(Datum json);
static void write_int64(CvxEncoder *encoder, int64 value, StringInfo out);
static void write_float64(CvxEncoder *encoder, double value, StringInfo out);
static void write_whole(CvxEncoder *encoder, int64 value, StringInfo out);
static void write_base64(CvxEncoder *encoder, const char *bytes, int len,
						 StringInfo out);
static void write_text(CvxEncoder *encoder, const char *text, int len,
					   StringInfo out);
static void write_dimension(CvxEncoder *encoder, ArrayType *array, int depth,
							Datum *datums, bool *nulls, int *next,
							StringInfo out);
static void write_jsonb(CvxEncoder *encoder, JsonbContainer *container,
						const CvxText *old, StringInfo out);
static void write_jsonb_value(CvxEncoder *encoder, JsonbValue *value,
							  const CvxText *old, StringInfo out);
static bool write_jsonb_marker(CvxEncoder *encoder, JsonbContainer *container,
							   StringInfo out);
static void check_name(CvxEncoder *encoder, const char *name, int len);
static char *excerpt(Numeric number);
static double exact_double(Numeric number);
static bool is_between(Numeric number, int64 min, int64 max);
static int64 exact_int64(Numeric number);
CVX_NORETURN static void refuse_route(const char *what);
CVX_NORETURN static void refuse_type(CvxEncoder *encoder);

/*
 * An encoder for values of a type, in the current context.  convex_type is
 * the column's option or NULL.  Throws HV004 when the two do not go together.
 */
CvxEncoder *
cvx_encoder_create(Oid type, int32 typmod, CvxSyntax syntax,
				   CvxJsonValues json_values, const char *convex_type)
{
	CvxEncoder *encoder = palloc0(sizeof(CvxEncoder));
	Oid			element;

	encoder->type = getBaseType(type);
	encoder->syntax = syntax;
	encoder->keeps_markers = json_values == CVX_JSON_ENCODED;
	encoder->encode = encode_output;
	for (int i = 0; i < lengthof(encodes); i++)
		if (encodes[i].type == encoder->type)
			encoder->encode = encodes[i].encode;
	for (int i = 0; convex_type && i < lengthof(targets); i++)
		if (strcmp(targets[i].name, convex_type) == 0)
			encoder->target = targets[i].target;
	cvx_typeio_for_output(encoder->type, &encoder->output);
	element = get_element_type(encoder->type);
	if (OidIsValid(element))
	{
		encoder->encode = encode_array;
		encoder->element = cvx_encoder_create(element, typmod, syntax,
											  json_values, convex_type);
		get_typlenbyvalalign(element, &encoder->elmlen, &encoder->elmbyval,
							 &encoder->elmalign);
	}
	return encoder;
}

/* Does the encoder take json or jsonb? */
bool
cvx_encoder_is_json(const CvxEncoder *encoder)
{
	return encoder->type == JSONBOID || encoder->type == JSONOID;
}

/*
 * Which kind has every value that the encoder writes?  False: it depends on
 * the value, or none can be written.
 */
bool
cvx_encoder_kind(const CvxEncoder *encoder, CvxKind *kind)
{
	for (int i = 0; i < lengthof(kinds); i++)
	{
		if (kinds[i].encode != encoder->encode)
			continue;
		*kind = kinds[i].kind;
		for (int t = 0; t < lengthof(targets) && *kind != CVX_KIND_ARRAY; t++)
			if (targets[t].target == encoder->target)
				*kind = targets[t].kind;
		return (kinds[i].choices & (1 << *kind)) != 0;
	}
	return false;
}

/* Is there a convex_type with which the type is written as this kind? */
bool
cvx_encoder_may_be(const CvxEncoder *encoder, CvxKind kind)
{
	for (int i = 0; i < lengthof(kinds); i++)
		if (kinds[i].encode == encoder->encode)
			return (kinds[i].choices & (1 << kind)) != 0;
	return false;
}

/* Append the Convex value of a datum.  Throws class 22 when it has none. */
void
cvx_encode(CvxEncoder *encoder, Datum value, StringInfo out)
{
	encoder->encode(encoder, value, out);
}

/*
 * The same for a value that takes the place of another: what clean JSON shows
 * without its type (an int64 as a number, bytes as text) keeps the type it has.
 */
void
cvx_encode_over(CvxEncoder *encoder, Datum value, const CvxText *old,
				StringInfo out)
{
	if (!cvx_encoder_is_json(encoder) || encoder->keeps_markers)
	{
		cvx_encode(encoder, value, out);
		return;
	}
	if (encoder->type == JSONOID)
		value = jsonb_of(value);
	write_jsonb(encoder, &DatumGetJsonbP(value)->root, old, out);
}

static void
encode_bool(CvxEncoder *encoder, Datum value, StringInfo out)
{
	if (encoder->target != TARGET_DEFAULT && encoder->target != TARGET_BOOLEAN)
		refuse_type(encoder);
	appendStringInfoString(out, DatumGetBool(value) ? "true" : "false");
}

static void
encode_int2(CvxEncoder *encoder, Datum value, StringInfo out)
{
	write_whole(encoder, DatumGetInt16(value), out);
}

static void
encode_int4(CvxEncoder *encoder, Datum value, StringInfo out)
{
	write_whole(encoder, DatumGetInt32(value), out);
}

/* A whole number whose SQL type means float64. */
static void
write_whole(CvxEncoder *encoder, int64 value, StringInfo out)
{
	if (encoder->target == TARGET_INT64)
		write_int64(encoder, value, out);
	else if (encoder->target == TARGET_DEFAULT ||
			 encoder->target == TARGET_FLOAT64)
		write_float64(encoder, (double) value, out);
	else
		refuse_type(encoder);
}

static void
encode_int8(CvxEncoder *encoder, Datum value, StringInfo out)
{
	int64		number = DatumGetInt64(value);
	double		rounded = (double) number;

	if (encoder->target == TARGET_DEFAULT || encoder->target == TARGET_INT64)
	{
		write_int64(encoder, number, out);
		return;
	}
	if (encoder->target != TARGET_FLOAT64)
		refuse_type(encoder);
	if (rounded >= 9223372036854775808.0 || (int64) rounded != number)
		ereport(ERROR,
				(errcode(ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE),
				 errmsg("no float64 holds " INT64_FORMAT " exactly", number),
				 errhint("Send it as int64 (drop the column's option convex_type) or as text.")));
	write_float64(encoder, rounded, out);
}

static void
encode_float4(CvxEncoder *encoder, Datum value, StringInfo out)
{
	if (encoder->target == TARGET_INT64)
		write_int64(encoder,
					exact_int64(DatumGetNumeric(DirectFunctionCall1(float4_numeric, value))),
					out);
	else if (encoder->target == TARGET_DEFAULT ||
			 encoder->target == TARGET_FLOAT64)
		write_float64(encoder, DatumGetFloat4(value), out);
	else
		refuse_type(encoder);
}

static void
encode_float8(CvxEncoder *encoder, Datum value, StringInfo out)
{
	if (encoder->target == TARGET_INT64)
	{
		double		number = DatumGetFloat8(value);

		if (!(number >= -9223372036854775808.0 &&
			  number < 9223372036854775808.0) || number != rint(number))
			ereport(ERROR,
					(errcode(ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE),
					 errmsg("%g is not an int64", number),
					 errhint("The column's option convex_type is int64.")));
		write_int64(encoder, (int64) number, out);
	}
	else if (encoder->target == TARGET_DEFAULT ||
			 encoder->target == TARGET_FLOAT64)
		write_float64(encoder, DatumGetFloat8(value), out);
	else
		refuse_type(encoder);
}

static void
encode_numeric(CvxEncoder *encoder, Datum value, StringInfo out)
{
	Numeric		number = DatumGetNumeric(value);

	if (encoder->target == TARGET_INT64)
		write_int64(encoder, exact_int64(number), out);
	else if (encoder->target == TARGET_DEFAULT ||
			 encoder->target == TARGET_FLOAT64)
		write_float64(encoder, exact_double(number), out);
	else
		refuse_type(encoder);
}

static void
encode_text(CvxEncoder *encoder, Datum value, StringInfo out)
{
	text	   *string = DatumGetTextPP(value);

	write_text(encoder, VARDATA_ANY(string), VARSIZE_ANY_EXHDR(string), out);
}

/* Types without an encoder of their own travel as their text. */
static void
encode_output(CvxEncoder *encoder, Datum value, StringInfo out)
{
	char	   *string = cvx_typeio_output(&encoder->output, value);

	write_text(encoder, string, strlen(string), out);
}

/* A string, or what the string spells when convex_type says so. */
static void
write_text(CvxEncoder *encoder, const char *string, int len, StringInfo out)
{
	Datum		packed = PointerGetDatum(cstring_to_text_with_len(string, len));
	char	   *cstring;
	char	   *utf8;

	switch (encoder->target)
	{
		case TARGET_DEFAULT:
		case TARGET_STRING:
			if (GetDatabaseEncoding() == PG_UTF8)
			{
				cvx_json_write_string(out, string, len);
				return;
			}
			utf8 = pg_server_to_any(string, len, PG_UTF8);
			cvx_json_write_string(out, utf8, utf8 == string ? len :
								  strlen(utf8));
			return;
		case TARGET_INT64:
		case TARGET_FLOAT64:
			{
				Numeric		number;

				cstring = text_to_cstring(DatumGetTextPP(packed));
				number = DatumGetNumeric(DirectFunctionCall3(numeric_in,
															 CStringGetDatum(cstring),
															 ObjectIdGetDatum(InvalidOid),
															 Int32GetDatum(-1)));
				if (encoder->target == TARGET_INT64)
					write_int64(encoder, exact_int64(number), out);
				else
					write_float64(encoder, exact_double(number), out);
				return;
			}
		case TARGET_BYTES:
			{
				packed = DirectFunctionCall2(binary_decode, packed,
										   CStringGetTextDatum("base64"));
				write_base64(encoder, VARDATA_ANY(DatumGetByteaPP(packed)),
							 VARSIZE_ANY_EXHDR(DatumGetByteaPP(packed)), out);
				return;
			}
		default:
			refuse_type(encoder);
	}
}

static void
encode_bytea(CvxEncoder *encoder, Datum value, StringInfo out)
{
	bytea	   *bytes = DatumGetByteaPP(value);

	if (encoder->target != TARGET_DEFAULT && encoder->target != TARGET_BYTES)
		refuse_type(encoder);
	write_base64(encoder, VARDATA_ANY(bytes), VARSIZE_ANY_EXHDR(bytes), out);
}

static void
encode_timestamp(CvxEncoder *encoder, Datum value, StringInfo out)
{
	Timestamp	us = DatumGetTimestamp(value);
	int64		ms = us / 1000;
	int64		rest = us % 1000;
	double		number;

	if (encoder->target == TARGET_STRING)
	{
		encode_output(encoder, value, out);
		return;
	}
	if (TIMESTAMP_NOT_FINITE(us))
		ereport(ERROR,
				(errcode(ERRCODE_DATETIME_VALUE_OUT_OF_RANGE),
				 errmsg("an infinite timestamp has no value in Convex"),
				 errhint("Write NULL, or set the column's option convex_type to 'string'.")));
	if (rest < 0)
	{
		rest += 1000;
		ms--;
	}
	ms += MS_AT_2000;
	number = (double) ms + (double) rest / 1000.0;
	if (encoder->target == TARGET_INT64)
	{
		if (rest != 0)
			ereport(ERROR,
					(errcode(ERRCODE_DATETIME_VALUE_OUT_OF_RANGE),
					 errmsg("an int64 of milliseconds does not hold microseconds"),
					 errhint("Round the timestamp to milliseconds.")));
		write_int64(encoder, ms, out);
		return;
	}
	if ((int64) floor(number) != ms ||
		(int64) rint((number - floor(number)) * 1000.0) != rest)
		ereport(ERROR,
				(errcode(ERRCODE_DATETIME_VALUE_OUT_OF_RANGE),
				 errmsg("no float64 of milliseconds holds this timestamp exactly"),
				 errhint("Round it to milliseconds, or set the column's option convex_type to 'string'.")));
	if (encoder->target == TARGET_DEFAULT ||
			 encoder->target == TARGET_FLOAT64)
		write_float64(encoder, number, out);
	else
		refuse_type(encoder);
}

static void
encode_date(CvxEncoder *encoder, Datum value, StringInfo out)
{
	DateADT		date = DatumGetDateADT(value);

	if (encoder->target == TARGET_STRING)
	{
		encode_output(encoder, value, out);
		return;
	}
	if (DATE_NOT_FINITE(date))
		ereport(ERROR,
				(errcode(ERRCODE_DATETIME_VALUE_OUT_OF_RANGE),
				 errmsg("an infinite date has no value in Convex"),
				 errhint("Write NULL, or set the column's option convex_type to 'string'.")));
	write_whole(encoder, ((int64) date + DAYS_AT_2000) * 86400000, out);
}

static void
encode_json(CvxEncoder *encoder, Datum value, StringInfo out)
{
	encode_jsonb(encoder, jsonb_of(value), out);
}

/* A json as jsonb, in which each name stands once. */
static Datum
jsonb_of(Datum json)
{
	char	   *string = TextDatumGetCString(json);

	for (const char *p = string; (p = strchr(p, '\\')) != NULL; p += 2)
		if (strncmp(p, "\\u0000", 6) == 0)
			ereport(ERROR,
					(errcode(ERRCODE_FDW_INVALID_DATA_TYPE),
					 errmsg("json with the character U+0000 cannot be written"),
					 errhint("Take \"\\u0000\" out of its strings.")));
	return DirectFunctionCall1(jsonb_in, CStringGetDatum(string));
}

static void
encode_jsonb(CvxEncoder *encoder, Datum value, StringInfo out)
{
	write_jsonb(encoder, &DatumGetJsonbP(value)->root, NULL, out);
}

static void
encode_array(CvxEncoder *encoder, Datum value, StringInfo out)
{
	ArrayType  *array = DatumGetArrayTypeP(value);
	Datum	   *datums;
	bool	   *nulls;
	int			n;
	int			next = 0;

	if (ARR_NDIM(array) == 0)
	{
		appendStringInfoString(out, "[]");
		return;
	}
	deconstruct_array(array, ARR_ELEMTYPE(array), encoder->elmlen,
					  encoder->elmbyval, encoder->elmalign, &datums, &nulls,
					  &n);
	write_dimension(encoder, array, 0, datums, nulls, &next, out);
}

static void
write_dimension(CvxEncoder *encoder, ArrayType *array, int depth,
				Datum *datums, bool *nulls, int *next, StringInfo out)
{
	appendStringInfoChar(out, '[');
	for (int i = 0; i < ARR_DIMS(array)[depth]; i++)
	{
		if (i > 0)
			appendStringInfoChar(out, ',');
		if (depth + 1 < ARR_NDIM(array))
			write_dimension(encoder, array, depth + 1, datums, nulls, next,
							out);
		else
		{
			if (nulls[*next])
				appendStringInfoString(out, "null");
			else
				cvx_encode(encoder->element, datums[*next], out);
			(*next)++;
		}
	}
	appendStringInfoChar(out, ']');
}

static void
write_int64(CvxEncoder *encoder, int64 value, StringInfo out)
{
	switch (encoder->syntax)
	{
		case CVX_SYNTAX_PLAIN:
			refuse_route("an int64");
		case CVX_SYNTAX_ENCODED:
			cvx_value_write_int64(out, value);
			break;
		case CVX_SYNTAX_EXPORT:
			appendStringInfo(out, INT64_FORMAT, value);
			break;
	}
}

static void
write_float64(CvxEncoder *encoder, double value, StringInfo out)
{
	if (encoder->syntax == CVX_SYNTAX_PLAIN && (isnan(value) || isinf(value)))
		refuse_route("NaN or an infinity");
	cvx_value_write_float64(out, value, encoder->syntax == CVX_SYNTAX_ENCODED);
}

static void
write_base64(CvxEncoder *encoder, const char *bytes, int len, StringInfo out)
{
	int			room = pg_b64_enc_len(len);

	if (encoder->syntax == CVX_SYNTAX_PLAIN)
		refuse_route("bytes");
	appendStringInfoString(out, "{\"$bytes\":\"");
	enlargeStringInfo(out, room);
	out->len += cvx_b64_encode(bytes, len, out->data + out->len, room);
	out->data[out->len] = '\0';
	appendStringInfoString(out, "\"}");
}

static void
refuse_route(const char *what)
{
	ereport(ERROR,
			(errcode(ERRCODE_FDW_INVALID_DATA_TYPE),
			 errmsg("%s cannot be sent through import_airbyte_records", what),
			 errhint("Give the foreign table the option primary_key: its rows then go through apply_fivetran_operations, which is exact.  A number can also be sent as float64 with the column's option convex_type.")));
}

static void
refuse_type(CvxEncoder *encoder)
{
	ereport(ERROR,
			(errcode(ERRCODE_FDW_INVALID_DATA_TYPE),
			 errmsg("a value of type %s cannot be sent as the column's convex_type",
					format_type_be(encoder->type)),
			 errhint("Change the column's type or its option convex_type.")));
}

/* A number for messages: it may have 131,072 digits. */
static char *
excerpt(Numeric number)
{
	char	   *text = DatumGetCString(DirectFunctionCall1(numeric_out,
														   NumericGetDatum(number)));

	return cvx_redact_excerpt(text, strlen(text));
}

/* The float64 whose shortest text is this number. */
static double
exact_double(Numeric number)
{
	Datum		datum = NumericGetDatum(number);
	double		value = DatumGetFloat8(DirectFunctionCall1(numeric_float8_no_overflow,
														   datum));

	if (numeric_is_nan(number) || numeric_is_inf(number))
		return value;
	if (!isinf(value))
	{
		StringInfoData shortest;
		Datum		back;

		initStringInfo(&shortest);
		cvx_value_write_float64(&shortest, value, false);
		back = DirectFunctionCall3(numeric_in, CStringGetDatum(shortest.data),
								   ObjectIdGetDatum(InvalidOid),
								   Int32GetDatum(-1));
		pfree(shortest.data);
		if (DatumGetBool(DirectFunctionCall2(numeric_eq, back, datum)))
			return value;

		/* A whole number may be exact although its shortest text is not. */
		back = DirectFunctionCall1(float8_numeric, Float8GetDatum(value));
		if (fabs(value) <= (double) MAX_SAFE_WHOLE &&
			DatumGetBool(DirectFunctionCall2(numeric_eq, back, datum)))
			return value;
	}
	ereport(ERROR,
			(errcode(ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE),
			 errmsg("no float64 holds %s exactly", excerpt(number)),
			 errhint("Round the number, or send it as text or bigint.")));
}

static bool
is_between(Numeric number, int64 min, int64 max)
{
	Datum		datum = NumericGetDatum(number);

	return DatumGetBool(DirectFunctionCall2(numeric_ge, datum,
											DirectFunctionCall1(int8_numeric,
																Int64GetDatum(min)))) &&
		DatumGetBool(DirectFunctionCall2(numeric_le, datum,
										 DirectFunctionCall1(int8_numeric,
															 Int64GetDatum(max))));
}

static int64
exact_int64(Numeric number)
{
	Datum		datum = NumericGetDatum(number);

	if (!numeric_is_nan(number) && !numeric_is_inf(number))
	{
		Datum		whole = DirectFunctionCall2(numeric_trunc, datum,
												Int32GetDatum(0));

		if (DatumGetBool(DirectFunctionCall2(numeric_eq, whole, datum)) &&
			is_between(number, PG_INT64_MIN, PG_INT64_MAX))
			return DatumGetInt64(DirectFunctionCall1(numeric_int8, datum));
	}
	ereport(ERROR,
			(errcode(ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE),
			 errmsg("%s is not an int64", excerpt(number)),
			 errhint("The column's option convex_type is int64.")));
}

/* ------------------------------------------------------------------------
 * jsonb
 * ------------------------------------------------------------------------
 */

static void
write_jsonb(CvxEncoder *encoder, JsonbContainer *container,
			const CvxText *old, StringInfo out)
{
	bool		is_object = JsonContainerIsObject(container);
	bool		is_scalar = JsonContainerIsScalar(container);
	bool		is_first = true;
	CvxValue	before = {.kind = CVX_KIND_NULL};
	CvxJson		elements;
	bool		has_elements = false;
	JsonbIterator *it;
	JsonbIteratorToken token;
	JsonbValue	value;
	char	   *name = NULL;

	check_stack_depth();
	if (is_object && encoder->keeps_markers &&
		write_jsonb_marker(encoder, container, out))
		return;
	if (old)
		cvx_value_read(old->data, old->len, &before);
	if (!is_object && !is_scalar && before.kind == CVX_KIND_ARRAY)
	{
		cvx_json_within(&elements, old->data, old->len);
		cvx_json_open(&elements, '[');
		has_elements = true;
	}
	if (!is_scalar)
		appendStringInfoChar(out, is_object ? '{' : '[');
	it = JsonbIteratorInit(container);
	while ((token = JsonbIteratorNext(&it, &value, true)) != WJB_DONE)
	{
		CvxText		member;
		const CvxText *under = NULL;

		if (token == WJB_KEY)
		{
			name = pnstrdup(value.val.string.val, value.val.string.len);
			check_name(encoder, name, value.val.string.len);
			if (!is_first)
				appendStringInfoChar(out, ',');
			is_first = false;
			cvx_json_write_string(out, name, strlen(name));
			appendStringInfoChar(out, ':');
			continue;
		}
		if (token != WJB_VALUE && token != WJB_ELEM)
			continue;
		if (is_scalar)
			under = old;
		else if (is_object && before.kind == CVX_KIND_OBJECT)
		{
			CvxJson		json;
			CvxText		key;
			bool		is_first_key = true;

			cvx_json_within(&json, old->data, old->len);
			cvx_json_open(&json, '{');
			for (; cvx_json_member(&json, &key, is_first_key);
				 is_first_key = false)
			{
				cvx_json_skip(&json, &member);
				if (cvx_json_equals(&key, name, strlen(name)))
				{
					under = &member;
					break;
				}
			}
		}
		else if (has_elements)
		{
			has_elements = cvx_json_element(&elements, is_first);
			if (has_elements)
			{
				cvx_json_skip(&elements, &member);
				under = &member;
			}
		}
		if (!is_object && !is_scalar)
		{
			if (!is_first)
				appendStringInfoChar(out, ',');
			is_first = false;
		}
		write_jsonb_value(encoder, &value, under, out);
	}
	if (!is_scalar)
		appendStringInfoChar(out, is_object ? '}' : ']');
}

static void
write_jsonb_value(CvxEncoder *encoder, JsonbValue *value, const CvxText *old,
				  StringInfo out)
{
	CvxValue	before = {.kind = CVX_KIND_NULL};

	if (old)
		cvx_value_read(old->data, old->len, &before);
	switch (value->type)
	{
		case jbvNull:
			appendStringInfoString(out, "null");
			break;
		case jbvBool:
			appendStringInfoString(out, value->val.boolean ? "true" : "false");
			break;
		case jbvNumeric:
			if (before.kind == CVX_KIND_INT64)
			{
				Datum		number = NumericGetDatum(value->val.numeric);
				Datum		whole = DirectFunctionCall2(numeric_trunc, number,
														Int32GetDatum(0));

				if (DatumGetBool(DirectFunctionCall2(numeric_eq, whole, number)) &&
					is_between(value->val.numeric, PG_INT64_MIN, PG_INT64_MAX))
				{
					write_int64(encoder, exact_int64(value->val.numeric), out);
					break;
				}
			}
			if (before.kind == CVX_KIND_FLOAT64 && before.float64 == 0 &&
				signbit(before.float64) &&
				exact_double(value->val.numeric) == 0)
			{
				write_float64(encoder, before.float64, out);
				break;
			}
			write_float64(encoder, exact_double(value->val.numeric), out);
			break;
		case jbvString:
			if (before.kind == CVX_KIND_BYTES &&
				before.text.len == value->val.string.len &&
				memcmp(before.text.data, value->val.string.val,
					   value->val.string.len) == 0)
				appendBinaryStringInfo(out, old->data, old->len);
			else if (before.kind == CVX_KIND_FLOAT64 &&
					 ((isnan(before.float64) && value->val.string.len == 3 &&
					   memcmp(value->val.string.val, "NaN", 3) == 0) ||
					  (isinf(before.float64) && before.float64 > 0 &&
					   value->val.string.len == 8 &&
					   memcmp(value->val.string.val, "Infinity", 8) == 0) ||
					  (isinf(before.float64) && before.float64 < 0 &&
					   value->val.string.len == 9 &&
					   memcmp(value->val.string.val, "-Infinity", 9) == 0)))
				appendBinaryStringInfo(out, old->data, old->len);
			else
			{
				CvxEncoder	plain = {.target = TARGET_STRING};

				write_text(&plain, value->val.string.val,
						   value->val.string.len, out);
			}
			break;
		case jbvBinary:
			write_jsonb(encoder, value->val.binary.data, old, out);
			break;
		default:
			elog(ERROR, "unexpected jsonb value of type %d", (int) value->type);
	}
}

static bool
is_text(const JsonbValue *value, const char *text)
{
	return value->val.string.len == strlen(text) &&
		memcmp(value->val.string.val, text, value->val.string.len) == 0;
}

/*
 * {"$integer": ..}, {"$float": ..} or {"$bytes": ..} in a jsonb that keeps
 * markers.  False: it is an object.
 */
static bool
write_jsonb_marker(CvxEncoder *encoder, JsonbContainer *container,
				   StringInfo out)
{
	JsonbIterator *it;
	JsonbValue	name;
	JsonbValue	content;
	StringInfoData marker;
	CvxValue	value;
	bool		is_number;
	int			nbytes;

	if (JsonContainerSize(container) != 1)
		return false;
	it = JsonbIteratorInit(container);
	(void) JsonbIteratorNext(&it, &name, true);
	(void) JsonbIteratorNext(&it, &name, true);
	if (JsonbIteratorNext(&it, &content, true) != WJB_VALUE ||
		content.type != jbvString || name.val.string.len == 0 ||
		name.val.string.val[0] != '$')
		return false;
	is_number = is_text(&name, "$integer") || is_text(&name, "$float");
	if (!is_number && !is_text(&name, "$bytes"))
		return false;
	nbytes = cvx_b64_decode(content.val.string.val, content.val.string.len,
							palloc(content.val.string.len + 1),
							content.val.string.len + 1);
	if (nbytes < 0 || (is_number && nbytes != 8))
		ereport(ERROR,
				(errcode(ERRCODE_FDW_INVALID_DATA_TYPE),
				 errmsg("the value of a Convex marker is malformed"),
				 errhint("$bytes takes base64; $integer and $float take the base64 of 8 bytes, little-endian.")));
	initStringInfo(&marker);
	appendStringInfoChar(&marker, '{');
	cvx_json_write_string(&marker, name.val.string.val, name.val.string.len);
	appendStringInfoChar(&marker, ':');
	cvx_json_write_string(&marker, content.val.string.val, content.val.string.len);
	appendStringInfoChar(&marker, '}');
	cvx_value_read(marker.data, marker.len, &value);
	switch (value.kind)
	{
		case CVX_KIND_INT64:
			write_int64(encoder, value.int64, out);
			return true;
		case CVX_KIND_FLOAT64:
			write_float64(encoder, value.float64, out);
			return true;
		case CVX_KIND_BYTES:
			{
				Datum		bytes = DirectFunctionCall2(binary_decode,
														PointerGetDatum(cstring_to_text_with_len(value.text.data,
																								 value.text.len)),
														CStringGetTextDatum("base64"));

				write_base64(encoder, VARDATA_ANY(DatumGetByteaPP(bytes)),
							 VARSIZE_ANY_EXHDR(DatumGetByteaPP(bytes)), out);
				return true;
			}
		default:
			return false;
	}
}

/* Names that Convex would refuse or change are refused here. */
static void
check_name(CvxEncoder *encoder, const char *name, int len)
{
	if (strlen(name) != len || !cvx_options_is_field_name(name, false))
		ereport(ERROR,
				(errcode(ERRCODE_FDW_INVALID_DATA_TYPE),
				 errmsg("\"%s\" cannot be the name of a Convex field",
						cvx_redact_excerpt(name, strlen(name))),
				 errhint("Names of fields are printable ASCII and do not begin with \"$\"; with json_values 'encoded', an object with one of Convex's markers is a value.")));
	if (encoder->syntax == CVX_SYNTAX_PLAIN && name[0] == '_')
		ereport(ERROR,
				(errcode(ERRCODE_FDW_INVALID_DATA_TYPE),
				 errmsg("field \"%s\" cannot be sent through import_airbyte_records",
						cvx_redact_excerpt(name, strlen(name))),
				 errdetail("Convex would store it under another name."),
				 errhint("Give the foreign table the option primary_key, or rename the field.")));
}
