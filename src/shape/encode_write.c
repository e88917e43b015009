/*
 * encode_write.c
 *		How are numbers, strings and bytes written for Convex?
 *
 * What cannot be sent exactly throws class 22 with a hint.
 *
 * Room: shape 3.9
 */
#include "postgres.h"

#include <math.h>

#include "common/base64.h"
#include "mb/pg_wchar.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"

#include "ground/redact.h"
#include "shape/encode_write.h"

/* The largest magnitude up to which every whole number is a float64. */
#define MAX_SAFE_WHOLE	(INT64CONST(1) << 53)

CVX_NORETURN static void refuse_route(const char *what);
static char *excerpt(Numeric number);

/* A string, or what the string spells when convex_type says so. */
void
cvx_encode_string(CvxEncoder *encoder, const char *string, int len,
				  StringInfo out)
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
					cvx_encode_int64(encoder, cvx_encode_exact_int64(number), out);
				else
					cvx_encode_float64(encoder, cvx_encode_exact_double(number),
									   out);
				return;
			}
		case TARGET_BYTES:
			{
				packed = DirectFunctionCall2(binary_decode, packed,
										   CStringGetTextDatum("base64"));
				cvx_encode_base64(encoder, VARDATA_ANY(DatumGetByteaPP(packed)),
								  VARSIZE_ANY_EXHDR(DatumGetByteaPP(packed)), out);
				return;
			}
		default:
			cvx_encode_refuse_type(encoder);
	}
}

/* Append an int64.  Throws HV004 where the route has none. */
void
cvx_encode_int64(CvxEncoder *encoder, int64 value, StringInfo out)
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

/* Append a float64.  Throws HV004 where the route does not take it. */
void
cvx_encode_float64(CvxEncoder *encoder, double value, StringInfo out)
{
	if (encoder->syntax == CVX_SYNTAX_PLAIN && (isnan(value) || isinf(value)))
		refuse_route("NaN or an infinity");
	cvx_value_write_float64(out, value, encoder->syntax == CVX_SYNTAX_ENCODED);
}

/* Append bytes.  Throws HV004 where the route has none. */
void
cvx_encode_base64(CvxEncoder *encoder, const char *bytes, int len, StringInfo out)
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

/* Throw HV004: the type and the option convex_type do not go together. */
void
cvx_encode_refuse_type(CvxEncoder *encoder)
{
	ereport(ERROR,
			(errcode(ERRCODE_FDW_INVALID_DATA_TYPE),
			 errmsg("a value of type %s cannot be sent as the column's convex_type",
					format_type_be(encoder->type)),
			 errhint("Change the column's type or its option convex_type.")));
}

/* The float64 whose shortest text is this number. */
double
cvx_encode_exact_double(Numeric number)
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
			 errmsg("%s cannot be represented exactly as float64", excerpt(number)),
			 errhint("Round the number, or send it as text or bigint.")));
}

/* Is a number within limits, both included? */
bool
cvx_encode_is_between(Numeric number, int64 min, int64 max)
{
	Datum		datum = NumericGetDatum(number);

	return DatumGetBool(DirectFunctionCall2(numeric_ge, datum,
											DirectFunctionCall1(int8_numeric,
																Int64GetDatum(min)))) &&
		DatumGetBool(DirectFunctionCall2(numeric_le, datum,
										 DirectFunctionCall1(int8_numeric,
															 Int64GetDatum(max))));
}

/* The int64 that this number is; throws 22003 when it is none. */
int64
cvx_encode_exact_int64(Numeric number)
{
	Datum		datum = NumericGetDatum(number);

	if (!numeric_is_nan(number) && !numeric_is_inf(number))
	{
		Datum		whole = DirectFunctionCall2(numeric_trunc, datum,
												Int32GetDatum(0));

		if (DatumGetBool(DirectFunctionCall2(numeric_eq, whole, datum)) &&
			cvx_encode_is_between(number, PG_INT64_MIN, PG_INT64_MAX))
			return DatumGetInt64(DirectFunctionCall1(numeric_int8, datum));
	}
	ereport(ERROR,
			(errcode(ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE),
			 errmsg("%s is not an int64", excerpt(number)),
			 errhint("The column's option convex_type is int64.")));
}

static void
refuse_route(const char *what)
{
	ereport(ERROR,
			(errcode(ERRCODE_FDW_INVALID_DATA_TYPE),
			 errmsg("%s cannot be sent through import_airbyte_records", what),
			 errhint("Give the foreign table the option primary_key: its rows then go through apply_fivetran_operations, which is exact.  A number can also be sent as float64 with the column's option convex_type.")));
}

/* A number for messages: it may have 131,072 digits. */
static char *
excerpt(Numeric number)
{
	char	   *text = DatumGetCString(DirectFunctionCall1(numeric_out,
														   NumericGetDatum(number)));

	return cvx_redact_excerpt(text, strlen(text));
}
