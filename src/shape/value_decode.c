/*
 * value_decode.c
 *		How does one value become a datum?
 *
 * A value is decoded from what the wire says (convex_encoded_json), never
 * from a schema: an int64 is an int64 in any column, and never passes through
 * a double.  What a type cannot hold exactly does not fit; whether that is an
 * error or a NULL is the table's option on_conversion_error.
 *
 * A decoder returns false when the value does not fit and says why in the
 * codec.  Input functions of types throw instead; class 22 and 23 errors get
 * their place and SQLSTATE HV004 from the error context (error.c).
 *
 * Room: shape 3.7
 */
#include "postgres.h"

#include <math.h>

#include "access/htup_details.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "mb/pg_wchar.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/date.h"
#include "utils/fmgrprotos.h"
#include "utils/lsyscache.h"
#include "utils/timestamp.h"
#include "utils/typcache.h"

#include "ground/compat.h"
#include "ground/guard.h"
#include "shape/value_decode.h"
#include "shape/value_json.h"

/* The time between 1970 and 2000. */
#define MS_AT_2000		INT64CONST(946684800000)
#define DAYS_AT_2000	10957
#define MS_A_DAY		INT64CONST(86400000)

/* Elements of an array while it is read. */
/* What decode_work() is told, and tells. */
typedef struct Decoding
{
	CvxCodec   *codec;
	const CvxValue *value;
	Datum	   *datum;
	bool	   *isnull;
	bool		fits;
} Decoding;

typedef struct Elements
{
	CvxCodec   *codec;
	Datum	   *datums;
	bool	   *nulls;
	int			n;
	int			nallocated;
	int			ndims;			/* -1 until the first scalar is met */
	int			dims[MAXDIM];
} Elements;

static const char *type_name(const CvxCodec *codec);
static bool decode_checked(CvxCodec *codec, const CvxValue *value,
						   Datum *datum, bool *isnull);
static void decode_work(void *arg);
static bool decode_guarded(CvxCodec *codec, const CvxValue *value,
						   Datum *datum, bool *isnull);
static bool decode_bool(CvxCodec *codec, const CvxValue *value, Datum *datum);
static bool get_integer(CvxCodec *codec, const CvxValue *value, int64 min,
						int64 max, int64 *result);
static bool decode_int2(CvxCodec *codec, const CvxValue *value, Datum *datum);
static bool decode_int4(CvxCodec *codec, const CvxValue *value, Datum *datum);
static bool decode_int8(CvxCodec *codec, const CvxValue *value, Datum *datum);
static bool decode_float4(CvxCodec *codec, const CvxValue *value, Datum *datum);
static bool decode_float8(CvxCodec *codec, const CvxValue *value, Datum *datum);
static bool decode_numeric(CvxCodec *codec, const CvxValue *value, Datum *datum);
static bool decode_text(CvxCodec *codec, const CvxValue *value, Datum *datum);
static bool decode_name(CvxCodec *codec, const CvxValue *value, Datum *datum);
static bool decode_bytea(CvxCodec *codec, const CvxValue *value, Datum *datum);
static bool decode_timestamp(CvxCodec *codec, const CvxValue *value, Datum *datum);
static bool decode_date(CvxCodec *codec, const CvxValue *value, Datum *datum);
static bool get_milliseconds(CvxCodec *codec, const CvxValue *value,
							 int64 *whole, double *fraction);
static bool decode_input(CvxCodec *codec, const CvxValue *value, Datum *datum);
static bool decode_array(CvxCodec *codec, const CvxValue *value, Datum *datum);
static bool read_elements(Elements *elements, const CvxText *raw, int depth);

/* Which decoder makes which type; the others go through input functions. */
static const struct
{
	Oid			type;
	CvxDecoder	decode;
	CvxThrows	throws;
}			decoders[] = {
	{BOOLOID, decode_bool, THROWS_NEVER},
	{INT2OID, decode_int2, THROWS_NEVER},
	{INT4OID, decode_int4, THROWS_NEVER},
	{INT8OID, decode_int8, THROWS_NEVER},
	{FLOAT4OID, decode_float4, THROWS_NEVER},
	{FLOAT8OID, decode_float8, THROWS_NEVER},
	{NUMERICOID, decode_numeric, THROWS_ALWAYS},
	{TEXTOID, decode_text, THROWS_NEVER},
	{VARCHAROID, decode_text, THROWS_ALWAYS},
	{BPCHAROID, decode_text, THROWS_ALWAYS},
	{NAMEOID, decode_name, THROWS_NEVER},
	{BYTEAOID, decode_bytea, THROWS_NEVER},
	{JSONOID, cvx_value_to_json, THROWS_NEVER},
	{JSONBOID, cvx_value_to_jsonb, THROWS_NEVER},
	{TIMESTAMPTZOID, decode_timestamp, THROWS_ON_STRINGS},
	{TIMESTAMPOID, decode_timestamp, THROWS_ON_STRINGS},
	{DATEOID, decode_date, THROWS_ON_STRINGS},
};

/*
 * A codec for a type, in the current context, which must outlive it.
 */
CvxCodec *
cvx_value_codec(Oid type, int32 typmod, const CvxTableOptions *options)
{
	CvxCodec   *codec = palloc0(sizeof(CvxCodec));
	Oid			element;

	codec->type = type;
	codec->typmod = typmod;
	codec->base = getBaseTypeAndTypmod(type, &codec->typmod);
	codec->is_domain = codec->base != type;
	codec->json_values = options->json_values;
	codec->on_misfit = options->on_misfit;
	codec->nul_handling = options->nul_handling;
	codec->cxt = CurrentMemoryContext;
	cvx_typeio_for_input(codec->base, &codec->input);
	codec->decode = decode_input;
	codec->throws = THROWS_ALWAYS;
	for (int i = 0; i < lengthof(decoders); i++)
	{
		if (decoders[i].type != codec->base)
			continue;
		codec->decode = decoders[i].decode;
		codec->throws = decoders[i].throws;
	}
	element = get_element_type(codec->base);
	if (OidIsValid(element))
	{
		codec->decode = decode_array;
		codec->element = cvx_value_codec(element, codec->typmod, options);
		codec->throws = codec->element->throws == THROWS_NEVER ?
			THROWS_NEVER : THROWS_ALWAYS;
		get_typlenbyvalalign(element, &codec->elmlen, &codec->elmbyval,
							 &codec->elmalign);
	}
	if (codec->base == NUMERICOID && codec->typmod < 0)
		codec->throws = THROWS_NEVER;
	if (codec->is_domain || GetDatabaseEncoding() != PG_UTF8)
		codec->throws = THROWS_ALWAYS;
	return codec;
}

/*
 * Convert a value, NULL for a missing one, in the current context.  A value
 * that does not fit throws HV004, or gives NULL where the table says so.
 */
void
cvx_value_decode(CvxCodec *codec, const CvxValue *value, Datum *datum,
				 bool *isnull)
{
	bool		fits;

	codec->why = NULL;
	*isnull = value == NULL || value->kind == CVX_KIND_NULL;
	*datum = (Datum) 0;
	if (*isnull && !codec->is_domain)
		return;
	if (codec->on_misfit == CVX_MISFIT_NULL &&
		(codec->throws == THROWS_ALWAYS ||
		 (codec->throws == THROWS_ON_STRINGS && value->kind == CVX_KIND_STRING)))
		fits = decode_guarded(codec, value, datum, isnull);
	else
		fits = decode_checked(codec, value, datum, isnull);
	if (fits)
		return;
	if (codec->on_misfit == CVX_MISFIT_NULL)
	{
		*isnull = true;
		return;
	}

	/* The place of a value knows its hint by the code (error.c). */
	ereport(ERROR,
			(errcode(codec->why == cvx_value_nul_reason ? ERRCODE_CHARACTER_NOT_IN_REPERTOIRE :
					 ERRCODE_FDW_INVALID_DATA_TYPE),
			 codec->why ?
			 errmsg("%s value does not fit type %s: %s",
					cvx_value_kind_name(value->kind), type_name(codec),
					codec->why) :
			 errmsg("%s value does not fit type %s",
					cvx_value_kind_name(value->kind), type_name(codec))));
}

/* May the column show a whole document? */
bool
cvx_value_takes_document(const CvxCodec *codec)
{
	return codec->base == JSONBOID || codec->base == JSONOID;
}

static const char *
type_name(const CvxCodec *codec)
{
	return codec->is_domain ? format_type_be(codec->type) :
		format_type_with_typemod(codec->type, codec->typmod);
}

/* Decode and check a domain's constraints, which see NULLs too. */
static bool
decode_checked(CvxCodec *codec, const CvxValue *value, Datum *datum,
			   bool *isnull)
{
	if (!*isnull && !codec->decode(codec, value, datum))
		return false;
	if (codec->is_domain)
		domain_check(*datum, *isnull, codec->type, &codec->domain_cache,
					 codec->cxt);
	return true;
}

static void
decode_work(void *arg)
{
	Decoding   *decoding = arg;
	ErrorContextCallback *stack = error_context_stack;

	error_context_stack = NULL;
	decoding->fits = decode_checked(decoding->codec, decoding->value,
									decoding->datum, decoding->isnull);
	error_context_stack = stack;
}

/*
 * The same where an error of the type's own functions means "does not fit".
 * A subtransaction undoes what the functions may have begun.
 */
static bool
decode_guarded(CvxCodec *codec, const CvxValue *value, Datum *datum,
			   bool *isnull)
{
	Decoding	decoding = {codec, value, datum, isnull, false};
	ErrorData  *error;
	int			category;

	if (!cvx_may_start_subxact())
		return decode_checked(codec, value, datum, isnull);
	error = cvx_guard(decode_work, &decoding);
	if (error == NULL)
		return decoding.fits;
	category = ERRCODE_TO_CATEGORY(error->sqlerrcode);
	if (category != ERRCODE_DATA_EXCEPTION &&
		category != ERRCODE_INTEGRITY_CONSTRAINT_VIOLATION &&
		error->sqlerrcode != ERRCODE_FDW_INVALID_DATA_TYPE)
		ReThrowError(error);
	FreeErrorData(error);
	return false;
}

static bool
decode_bool(CvxCodec *codec, const CvxValue *value, Datum *datum)
{
	if (value->kind != CVX_KIND_BOOLEAN)
		return false;
	*datum = BoolGetDatum(value->boolean);
	return true;
}

/* An int64, or a float64 that is a whole number, within limits. */
static bool
get_integer(CvxCodec *codec, const CvxValue *value, int64 min, int64 max,
			int64 *result)
{
	if (value->kind == CVX_KIND_INT64)
		*result = value->int64;
	else if (value->kind == CVX_KIND_FLOAT64)
	{
		if (!(value->float64 >= -9223372036854775808.0 &&
			  value->float64 < 9223372036854775808.0))
			return cvx_value_misfit(codec, "out of range");
		if (value->float64 != rint(value->float64))
			return cvx_value_misfit(codec, "not a whole number");
		*result = (int64) value->float64;
	}
	else
		return false;
	if (*result < min || *result > max)
		return cvx_value_misfit(codec, "out of range");
	return true;
}

static bool
decode_int2(CvxCodec *codec, const CvxValue *value, Datum *datum)
{
	int64		result;

	if (!get_integer(codec, value, PG_INT16_MIN, PG_INT16_MAX, &result))
		return false;
	*datum = Int16GetDatum((int16) result);
	return true;
}

static bool
decode_int4(CvxCodec *codec, const CvxValue *value, Datum *datum)
{
	int64		result;

	if (!get_integer(codec, value, PG_INT32_MIN, PG_INT32_MAX, &result))
		return false;
	*datum = Int32GetDatum((int32) result);
	return true;
}

static bool
decode_int8(CvxCodec *codec, const CvxValue *value, Datum *datum)
{
	int64		result;

	if (!get_integer(codec, value, PG_INT64_MIN, PG_INT64_MAX, &result))
		return false;
	*datum = Int64GetDatum(result);
	return true;
}

/* A float4 column asks for rounding, but not for overflow. */
static bool
decode_float4(CvxCodec *codec, const CvxValue *value, Datum *datum)
{
	Datum		wide;
	double		exact;
	float4		result;

	if (!decode_float8(codec, value, &wide))
		return false;
	exact = DatumGetFloat8(wide);
	result = (float4) exact;
	if ((isinf(result) && !isinf(exact)) || (result == 0 && exact != 0))
		return cvx_value_misfit(codec, "out of range");
	*datum = Float4GetDatum(result);
	return true;
}

static bool
decode_float8(CvxCodec *codec, const CvxValue *value, Datum *datum)
{
	if (value->kind == CVX_KIND_FLOAT64)
		*datum = Float8GetDatum(value->float64);
	else if (value->kind == CVX_KIND_INT64)
	{
		double		result = (double) value->int64;

		/* 2^63 itself does not convert back */
		if (result >= 9223372036854775808.0 || (int64) result != value->int64)
			return cvx_value_misfit(codec, "it cannot be represented exactly as float64");
		*datum = Float8GetDatum(result);
	}
	else
		return false;
	return true;
}

/* A float64 becomes the shortest decimal that means the same double. */
static bool
decode_numeric(CvxCodec *codec, const CvxValue *value, Datum *datum)
{
	if (value->kind != CVX_KIND_INT64 && value->kind != CVX_KIND_FLOAT64)
		return false;
	*datum = DirectFunctionCall3(numeric_in,
								 CStringGetDatum(cvx_value_number_text(value)),
								 ObjectIdGetDatum(InvalidOid),
								 Int32GetDatum(codec->typmod));
	return true;
}

static bool
decode_text(CvxCodec *codec, const CvxValue *value, Datum *datum)
{
	char	   *text;
	size_t		len;

	if (value->kind != CVX_KIND_STRING)
		return false;
	if (codec->base == TEXTOID || codec->typmod < 0)
	{
		/* Straight into the datum: the usual case. */
		if (!value->text.is_escaped && GetDatabaseEncoding() == PG_UTF8)
		{
			*datum = PointerGetDatum(cstring_to_text_with_len(value->text.data,
															  value->text.len));
			return true;
		}
		if (!cvx_value_get_string(codec, &value->text, &text, &len))
			return false;
		*datum = PointerGetDatum(cstring_to_text_with_len(text, len));
		return true;
	}
	if (!cvx_value_get_string(codec, &value->text, &text, &len))
		return false;
	*datum = cvx_typeio_input(&codec->input, text, codec->typmod);
	return true;
}

/* name_in() would cut a long one. */
static bool
decode_name(CvxCodec *codec, const CvxValue *value, Datum *datum)
{
	char	   *text;
	size_t		len;
	Name		name;

	if (value->kind != CVX_KIND_STRING)
		return false;
	if (!cvx_value_get_string(codec, &value->text, &text, &len))
		return false;
	if (len >= NAMEDATALEN)
		return cvx_value_misfit(codec, "too long");
	name = palloc0(NAMEDATALEN);
	memcpy(NameStr(*name), text, len);
	*datum = NameGetDatum(name);
	return true;
}

static bool
decode_bytea(CvxCodec *codec, const CvxValue *value, Datum *datum)
{
	int			len;
	void	   *bytes;

	if (value->kind != CVX_KIND_BYTES)
		return false;
	bytes = cvx_value_get_bytes(value, VARHDRSZ, &len);
	if (bytes == NULL)
		return cvx_value_misfit(codec, "malformed base64");
	SET_VARSIZE(bytes, len + VARHDRSZ);
	*datum = PointerGetDatum(bytes);
	return true;
}

/* Numbers are ms since 1970 in UTC; strings the type's input syntax. */
static bool
decode_timestamp(CvxCodec *codec, const CvxValue *value, Datum *datum)
{
	int64		whole;
	double		fraction;
	int64		us;

	if (value->kind == CVX_KIND_STRING)
		return decode_input(codec, value, datum);
	if (!get_milliseconds(codec, value, &whole, &fraction))
		return false;
	if (whole < -INT64CONST(1000000000000000) ||
		whole > INT64CONST(10000000000000000))
		return cvx_value_misfit(codec, "out of range");

	/* Whole ms as an integer, the fraction apart: exact to the microsecond. */
	us = (whole - MS_AT_2000) * 1000 + (int64) rint(fraction * 1000.0);
	if (!IS_VALID_TIMESTAMP(us))
		return cvx_value_misfit(codec, "out of range");
	*datum = TimestampGetDatum((Timestamp) us);
	if (codec->typmod >= 0)
		*datum = DirectFunctionCall2(codec->base == TIMESTAMPOID ?
									 timestamp_scale : timestamptz_scale,
									 *datum, Int32GetDatum(codec->typmod));
	return true;
}

static bool
decode_date(CvxCodec *codec, const CvxValue *value, Datum *datum)
{
	int64		whole;
	double		fraction;
	int64		days;

	if (value->kind == CVX_KIND_STRING)
		return decode_input(codec, value, datum);
	if (!get_milliseconds(codec, value, &whole, &fraction))
		return false;
	days = whole / MS_A_DAY - (whole % MS_A_DAY < 0 ? 1 : 0) - DAYS_AT_2000;
	if (!IS_VALID_DATE(days))
		return cvx_value_misfit(codec, "out of range");
	*datum = DateADTGetDatum((DateADT) days);
	return true;
}

/* The whole milliseconds below, and what is more. */
static bool
get_milliseconds(CvxCodec *codec, const CvxValue *value, int64 *whole,
				 double *fraction)
{
	double		below;

	if (value->kind == CVX_KIND_INT64)
	{
		*whole = value->int64;
		*fraction = 0;
		return true;
	}
	if (value->kind != CVX_KIND_FLOAT64)
		return false;
	if (isnan(value->float64) || isinf(value->float64))
		return cvx_value_misfit(codec, "not a point in time");
	below = floor(value->float64);
	if (!(below >= -9223372036854775808.0 && below < 9223372036854775808.0))
		return cvx_value_misfit(codec, "out of range");
	*whole = (int64) below;
	*fraction = value->float64 - below;
	return true;
}

/* Every other type, through its input function. */
static bool
decode_input(CvxCodec *codec, const CvxValue *value, Datum *datum)
{
	char	   *text;
	size_t		len;

	switch (value->kind)
	{
		case CVX_KIND_STRING:
			if (!cvx_value_get_string(codec, &value->text, &text, &len))
				return false;
			break;
		case CVX_KIND_BOOLEAN:
			text = value->boolean ? "true" : "false";
			break;
		case CVX_KIND_INT64:
		case CVX_KIND_FLOAT64:
			text = cvx_value_number_text(value);
			break;
		default:
			return false;
	}
	*datum = cvx_typeio_input(&codec->input, text, codec->typmod);
	return true;
}

/* Nested JSON arrays of one shape are an array of several dimensions. */
static bool
decode_array(CvxCodec *codec, const CvxValue *value, Datum *datum)
{
	Elements	elements = {.codec = codec,.ndims = -1};
	int			lbs[MAXDIM];

	if (value->kind != CVX_KIND_ARRAY)
		return false;
	if (!read_elements(&elements, &value->raw, 0))
		return false;
	if (elements.n == 0)
	{
		*datum = PointerGetDatum(construct_empty_array(codec->element->type));
		return true;
	}
	for (int i = 0; i < MAXDIM; i++)
		lbs[i] = 1;
	*datum = PointerGetDatum(construct_md_array(elements.datums,
												elements.nulls,
												elements.ndims, elements.dims,
												lbs, codec->element->type,
												codec->elmlen, codec->elmbyval,
												codec->elmalign));
	return true;
}

static bool
read_elements(Elements *elements, const CvxText *raw, int depth)
{
	CvxCodec   *codec = elements->codec;
	bool		takes_arrays = cvx_value_takes_document(codec->element) ||
		codec->element->element != NULL;
	CvxJson		json;
	CvxText		text;
	CvxValue	inner;
	int			n = 0;

	cvx_json_within(&json, raw->data, raw->len);
	cvx_json_open(&json, '[');
	for (; cvx_json_element(&json, n == 0); n++)
	{
		cvx_json_skip(&json, &text);
		cvx_value_read(text.data, text.len, &inner);
		if (inner.kind == CVX_KIND_ARRAY && !takes_arrays)
		{
			if (depth + 1 >= MAXDIM)
				return cvx_value_misfit(codec, "too many dimensions");
			if (elements->ndims == depth + 1)
				return cvx_value_misfit(codec, "arrays and single values are mixed");
			if (!read_elements(elements, &text, depth + 1))
				return false;
			continue;
		}
		if (elements->ndims == -1)
			elements->ndims = depth + 1;
		if (elements->ndims != depth + 1)
			return cvx_value_misfit(codec, "arrays and single values are mixed");
		if (elements->n == elements->nallocated)
		{
			int			want = Max(elements->nallocated * 2, 16);

			elements->datums = elements->datums ?
				repalloc_huge(elements->datums, want * sizeof(Datum)) :
				palloc(want * sizeof(Datum));
			elements->nulls = elements->nulls ?
				repalloc_huge(elements->nulls, want * sizeof(bool)) :
				palloc(want * sizeof(bool));
			elements->nallocated = want;
		}
		elements->datums[elements->n] = (Datum) 0;
		elements->nulls[elements->n] = inner.kind == CVX_KIND_NULL;
		codec->element->why = "an element has another type";
		if (!decode_checked(codec->element, &inner,
							&elements->datums[elements->n],
							&elements->nulls[elements->n]))
			return cvx_value_misfit(codec, codec->element->why);
		elements->n++;
	}

	/* All arrays of one depth have one length. */
	if (n == 0 && depth > 0)
		return cvx_value_misfit(codec, "an array within it is empty");
	if (elements->dims[depth] != 0 && elements->dims[depth] != n)
		return cvx_value_misfit(codec, "its arrays differ in length");
	elements->dims[depth] = n;
	return true;
}
