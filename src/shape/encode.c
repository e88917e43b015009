/*
 * encode.c
 *		How does a datum become a Convex value?
 *
 * The SQL type says which Convex type a value gets, or the column's option
 * convex_type does; what cannot be sent exactly throws class 22 with a hint.
 * The caller's error context names row and column.
 *
 * Room: shape 3.11
 */
#include "postgres.h"

#include <math.h>

#include "catalog/pg_type.h"
#include "fmgr.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/date.h"
#include "utils/fmgrprotos.h"
#include "utils/lsyscache.h"
#include "utils/timestamp.h"

#include "shape/encode.h"
#include "shape/encode_json.h"

/* The time between 1970 and 2000. */
#define MS_AT_2000		INT64CONST(946684800000)
#define DAYS_AT_2000	10957

static void encode_bool(CvxEncoder *encoder, Datum value, StringInfo out);
static void encode_int2(CvxEncoder *encoder, Datum value, StringInfo out);
static void encode_int4(CvxEncoder *encoder, Datum value, StringInfo out);
static void write_whole(CvxEncoder *encoder, int64 value, StringInfo out);
static void encode_int8(CvxEncoder *encoder, Datum value, StringInfo out);
static void encode_float4(CvxEncoder *encoder, Datum value, StringInfo out);
static void encode_float8(CvxEncoder *encoder, Datum value, StringInfo out);
static void encode_numeric(CvxEncoder *encoder, Datum value, StringInfo out);
static void encode_text(CvxEncoder *encoder, Datum value, StringInfo out);
static void encode_output(CvxEncoder *encoder, Datum value, StringInfo out);
static void encode_bytea(CvxEncoder *encoder, Datum value, StringInfo out);
static void encode_timestamp(CvxEncoder *encoder, Datum value, StringInfo out);
static void encode_date(CvxEncoder *encoder, Datum value, StringInfo out);
static void encode_array(CvxEncoder *encoder, Datum value, StringInfo out);
static void write_dimension(CvxEncoder *encoder, ArrayType *array, int depth,
							Datum *datums, bool *nulls, int *next,
							StringInfo out);

static const struct
{
	Oid			type;
	CvxEncodeValue encode;
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
	{JSONOID, cvx_encode_json},
	{JSONBOID, cvx_encode_jsonb},
	{TIMESTAMPTZOID, encode_timestamp},
	{TIMESTAMPOID, encode_timestamp},
	{DATEOID, encode_date},
};

static const struct
{
	const char *name;
	CvxEncodeTarget target;
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
	CvxEncodeValue encode;
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
		value = cvx_encode_jsonb_of(value);
	cvx_encode_jsonb_over(encoder, &DatumGetJsonbP(value)->root, old, out);
}

static void
encode_bool(CvxEncoder *encoder, Datum value, StringInfo out)
{
	if (encoder->target != TARGET_DEFAULT && encoder->target != TARGET_BOOLEAN)
		cvx_encode_refuse_type(encoder);
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
		cvx_encode_int64(encoder, value, out);
	else if (encoder->target == TARGET_DEFAULT ||
			 encoder->target == TARGET_FLOAT64)
		cvx_encode_float64(encoder, (double) value, out);
	else
		cvx_encode_refuse_type(encoder);
}

static void
encode_int8(CvxEncoder *encoder, Datum value, StringInfo out)
{
	int64		number = DatumGetInt64(value);
	double		rounded = (double) number;

	if (encoder->target == TARGET_DEFAULT || encoder->target == TARGET_INT64)
	{
		cvx_encode_int64(encoder, number, out);
		return;
	}
	if (encoder->target != TARGET_FLOAT64)
		cvx_encode_refuse_type(encoder);
	if (rounded >= 9223372036854775808.0 || (int64) rounded != number)
		ereport(ERROR,
				(errcode(ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE),
				 errmsg(INT64_FORMAT " cannot be represented exactly as float64", number),
				 errhint("Send it as int64 (drop the column's option convex_type) or as text.")));
	cvx_encode_float64(encoder, rounded, out);
}

static void
encode_float4(CvxEncoder *encoder, Datum value, StringInfo out)
{
	if (encoder->target == TARGET_INT64)
		cvx_encode_int64(encoder,
						 cvx_encode_exact_int64(DatumGetNumeric(DirectFunctionCall1(float4_numeric, value))),
						 out);
	else if (encoder->target == TARGET_DEFAULT ||
			 encoder->target == TARGET_FLOAT64)
		cvx_encode_float64(encoder, DatumGetFloat4(value), out);
	else
		cvx_encode_refuse_type(encoder);
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
		cvx_encode_int64(encoder, (int64) number, out);
	}
	else if (encoder->target == TARGET_DEFAULT ||
			 encoder->target == TARGET_FLOAT64)
		cvx_encode_float64(encoder, DatumGetFloat8(value), out);
	else
		cvx_encode_refuse_type(encoder);
}

static void
encode_numeric(CvxEncoder *encoder, Datum value, StringInfo out)
{
	Numeric		number = DatumGetNumeric(value);

	if (encoder->target == TARGET_INT64)
		cvx_encode_int64(encoder, cvx_encode_exact_int64(number), out);
	else if (encoder->target == TARGET_DEFAULT ||
			 encoder->target == TARGET_FLOAT64)
		cvx_encode_float64(encoder, cvx_encode_exact_double(number), out);
	else
		cvx_encode_refuse_type(encoder);
}

static void
encode_text(CvxEncoder *encoder, Datum value, StringInfo out)
{
	text	   *string = DatumGetTextPP(value);

	cvx_encode_string(encoder, VARDATA_ANY(string), VARSIZE_ANY_EXHDR(string), out);
}

/* Types without an encoder of their own travel as their text. */
static void
encode_output(CvxEncoder *encoder, Datum value, StringInfo out)
{
	char	   *string = cvx_typeio_output(&encoder->output, value);

	cvx_encode_string(encoder, string, strlen(string), out);
}

static void
encode_bytea(CvxEncoder *encoder, Datum value, StringInfo out)
{
	bytea	   *bytes = DatumGetByteaPP(value);

	if (encoder->target != TARGET_DEFAULT && encoder->target != TARGET_BYTES)
		cvx_encode_refuse_type(encoder);
	cvx_encode_base64(encoder, VARDATA_ANY(bytes), VARSIZE_ANY_EXHDR(bytes), out);
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
				 errmsg("infinite timestamps cannot be stored in Convex"),
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
		cvx_encode_int64(encoder, ms, out);
		return;
	}
	if ((int64) floor(number) != ms ||
		(int64) rint((number - floor(number)) * 1000.0) != rest)
		ereport(ERROR,
				(errcode(ERRCODE_DATETIME_VALUE_OUT_OF_RANGE),
				 errmsg("timestamp cannot be represented exactly as float64 milliseconds"),
				 errhint("Round it to milliseconds, or set the column's option convex_type to 'string'.")));
	if (encoder->target == TARGET_DEFAULT ||
			 encoder->target == TARGET_FLOAT64)
		cvx_encode_float64(encoder, number, out);
	else
		cvx_encode_refuse_type(encoder);
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
				 errmsg("infinite dates cannot be stored in Convex"),
				 errhint("Write NULL, or set the column's option convex_type to 'string'.")));
	write_whole(encoder, ((int64) date + DAYS_AT_2000) * 86400000, out);
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
