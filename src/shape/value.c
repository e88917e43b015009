/*
 * value.c
 *		How does one value become a datum, and back?
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
 * Room: shape 3.3
 */
#include "postgres.h"

#include <math.h>

#include "access/htup_details.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "common/base64.h"
#include "common/shortest_dec.h"
#include "fmgr.h"
#include "mb/pg_wchar.h"
#include "port/pg_bswap.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/date.h"
#include "utils/fmgrprotos.h"
#include "utils/jsonb.h"
#include "utils/lsyscache.h"
#include "utils/numeric.h"
#include "utils/timestamp.h"
#include "utils/typcache.h"

#include "ground/compat.h"
#include "protocol/page.h"
#include "ground/redact.h"
#include "shape/typeio.h"
#include "shape/value.h"

/* The time between 1970 and 2000. */
#define MS_AT_2000		INT64CONST(946684800000)
#define DAYS_AT_2000	10957
#define MS_A_DAY		INT64CONST(86400000)

/* Why a string does not fit, where options do not say what becomes of it. */
static const char HAS_NUL[] = "it holds the character U+0000";

/* How an int64 is spelled, and where its digits begin. */
#define INT64_MARKER	"{\"$integer\":\"xxxxxxxxxxx=\"}"
#define INT64_DIGITS_AT	13

typedef bool (*Decoder) (CvxCodec *codec, const CvxValue *value, Datum *datum);

/* For which values may a decoder throw class 22 or 23? */
typedef enum Throws
{
	THROWS_NEVER,
	THROWS_ON_STRINGS,			/* which go through an input function */
	THROWS_ALWAYS
} Throws;

struct CvxCodec
{
	/* fixed at creation */
	Oid			type;			/* as declared; a domain or not */
	Oid			base;			/* what the decoder makes */
	int32		typmod;
	bool		is_domain;
	Throws		throws;
	Decoder		decode;
	CvxJsonValues json_values;
	CvxOnMisfit on_misfit;
	CvxNulHandling nul_handling;
	CvxTypeIO	input;
	MemoryContext cxt;			/* of the codec; for domain checks */
	void	   *domain_cache;
	struct CvxCodec *element;	/* of an array */
	int16		elmlen;
	bool		elmbyval;
	char		elmalign;

	/* per value */
	const char *why;			/* it does not fit */
};

/* Elements of an array while it is read. */
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

static bool decode_bool(CvxCodec *codec, const CvxValue *value, Datum *datum);
static bool decode_int2(CvxCodec *codec, const CvxValue *value, Datum *datum);
static bool decode_int4(CvxCodec *codec, const CvxValue *value, Datum *datum);
static bool decode_int8(CvxCodec *codec, const CvxValue *value, Datum *datum);
static bool decode_float4(CvxCodec *codec, const CvxValue *value, Datum *datum);
static bool decode_float8(CvxCodec *codec, const CvxValue *value, Datum *datum);
static bool decode_numeric(CvxCodec *codec, const CvxValue *value, Datum *datum);
static bool decode_text(CvxCodec *codec, const CvxValue *value, Datum *datum);
static bool decode_name(CvxCodec *codec, const CvxValue *value, Datum *datum);
static bool decode_bytea(CvxCodec *codec, const CvxValue *value, Datum *datum);
static bool decode_json(CvxCodec *codec, const CvxValue *value, Datum *datum);
static bool decode_jsonb(CvxCodec *codec, const CvxValue *value, Datum *datum);
static bool decode_timestamp(CvxCodec *codec, const CvxValue *value, Datum *datum);
static bool decode_date(CvxCodec *codec, const CvxValue *value, Datum *datum);
static bool decode_input(CvxCodec *codec, const CvxValue *value, Datum *datum);
static bool decode_array(CvxCodec *codec, const CvxValue *value, Datum *datum);

/* Which decoder makes which type; the others go through input functions. */
static const struct
{
	Oid			type;
	Decoder		decode;
	Throws		throws;
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
	{JSONOID, decode_json, THROWS_NEVER},
	{JSONBOID, decode_jsonb, THROWS_NEVER},
	{TIMESTAMPTZOID, decode_timestamp, THROWS_ON_STRINGS},
	{TIMESTAMPOID, decode_timestamp, THROWS_ON_STRINGS},
	{DATEOID, decode_date, THROWS_ON_STRINGS},
};

static void write_marker(StringInfo out, const char *name, uint64 bits);
static bool read_marker(const CvxText *raw, CvxValue *value);
static bool read_int64_digits(const char *digits, int64 *result);
static bool decode_checked(CvxCodec *codec, const CvxValue *value,
						   Datum *datum, bool *isnull);
static bool decode_guarded(CvxCodec *codec, const CvxValue *value,
						   Datum *datum, bool *isnull);
static const char *type_name(const CvxCodec *codec);
static bool misfit(CvxCodec *codec, const char *why);
static bool get_integer(CvxCodec *codec, const CvxValue *value, int64 min,
						int64 max, int64 *result);
static bool get_string(CvxCodec *codec, const CvxText *text, char **result,
					   size_t *len);
static void *get_bytes(const CvxValue *value, size_t offset, int *len);
static char *number_text(const CvxValue *value);
static bool get_milliseconds(CvxCodec *codec, const CvxValue *value,
							 int64 *whole, double *fraction);
static void *get_bytes(const CvxValue *value, size_t offset, int *len);
static bool push_value(CvxCodec *codec, JsonbParseState **state,
					   JsonbIteratorToken token, const CvxValue *value,
					   JsonbValue **result);
static size_t shown_digits(const CvxCodec *codec, const CvxValue *value);
static bool push_scalar(CvxCodec *codec, const CvxValue *value,
						JsonbValue *scalar);
static bool push_string(CvxCodec *codec, const CvxText *text,
						JsonbValue *scalar);
static void write_clean(StringInfo buf, const CvxValue *value);
static void skip_meta(StringInfo buf, const CvxValue *value, bool is_clean);
static bool read_elements(Elements *elements, const CvxText *raw, int depth);

/* Does the endpoint's own member stand in a document's object? */
static bool
is_meta(const CvxText *name, bool is_document)
{
	return is_document && !cvx_page_is_document_member(name);
}

/*
 * See what one value is.  The text has passed cvx_page_parse().  Points into
 * it; allocates nothing.
 */
void
cvx_value_read(const char *data, size_t len, CvxValue *value)
{
	value->raw.data = data;
	value->raw.len = len;
	value->is_marked = false;
	value->is_document = false;
	switch (*data)
	{
		case 'n':
			value->kind = CVX_KIND_NULL;
			break;
		case 't':
		case 'f':
			value->kind = CVX_KIND_BOOLEAN;
			value->boolean = *data == 't';
			break;
		case '"':
			value->kind = CVX_KIND_STRING;
			value->text.data = data + 1;
			value->text.len = len - 2;
			value->text.is_escaped = memchr(data, '\\', len) != NULL;
			break;
		case '[':
			value->kind = CVX_KIND_ARRAY;
			break;
		case '{':
			value->kind = CVX_KIND_OBJECT;
			read_marker(&value->raw, value);
			break;
		default:
			value->kind = CVX_KIND_FLOAT64;
			if (!cvx_json_number(data, len, &value->float64))
				ereport(ERROR,
						(errcode(ERRCODE_FDW_INVALID_DATA_TYPE),
						 errmsg("number \"%s\" is out of range for float64",
								cvx_redact_excerpt(data, len))));
	}
}

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
			(errcode(codec->why == HAS_NUL ? ERRCODE_CHARACTER_NOT_IN_REPERTOIRE :
					 ERRCODE_FDW_INVALID_DATA_TYPE),
			 codec->why ?
			 errmsg("%s value does not fit type %s: %s",
					cvx_value_kind_name(value->kind), type_name(codec),
					codec->why) :
			 errmsg("%s value does not fit type %s",
					cvx_value_kind_name(value->kind), type_name(codec))));
}

static const char *
type_name(const CvxCodec *codec)
{
	return codec->is_domain ? format_type_be(codec->type) :
		format_type_with_typemod(codec->type, codec->typmod);
}

/* May the column show a whole document? */
bool
cvx_value_takes_document(const CvxCodec *codec)
{
	return codec->base == JSONBOID || codec->base == JSONOID;
}

/* The type of a field that has been seen with one kind of value. */
CvxType
cvx_value_type(CvxKind kind)
{
	switch (kind)
	{
		case CVX_KIND_NULL:
			return CVX_TYPE_UNSEEN;
		case CVX_KIND_BOOLEAN:
			return CVX_TYPE_BOOLEAN;
		case CVX_KIND_INT64:
			return CVX_TYPE_INT64;
		case CVX_KIND_FLOAT64:
			return CVX_TYPE_FLOAT64;
		case CVX_KIND_STRING:
			return CVX_TYPE_STRING;
		case CVX_KIND_BYTES:
			return CVX_TYPE_BYTES;
		case CVX_KIND_ARRAY:
			return CVX_TYPE_ARRAY;
		case CVX_KIND_OBJECT:
			break;
	}
	return CVX_TYPE_OBJECT;
}

const char *
cvx_value_kind_name(CvxKind kind)
{
	switch (kind)
	{
		case CVX_KIND_NULL:
			return "null";
		case CVX_KIND_BOOLEAN:
			return "boolean";
		case CVX_KIND_INT64:
			return "int64";
		case CVX_KIND_FLOAT64:
			return "float64";
		case CVX_KIND_STRING:
			return "string";
		case CVX_KIND_BYTES:
			return "bytes";
		case CVX_KIND_ARRAY:
			return "array";
		case CVX_KIND_OBJECT:
			break;
	}
	return "object";
}

/* Is there a zero byte in a string, or in bytes? */
bool
cvx_value_has_nul(const CvxValue *value)
{
	bool		has_nul = false;
	int			len;
	char	   *bytes;

	if (value->kind == CVX_KIND_STRING && value->text.is_escaped)
	{
		bytes = palloc(value->text.len + 1);
		cvx_json_unescape(&value->text, bytes, &has_nul);
		pfree(bytes);
	}
	else if (value->kind == CVX_KIND_BYTES &&
			 (bytes = get_bytes(value, 0, &len)) != NULL)
	{
		has_nul = memchr(bytes, 0, len) != NULL;
		pfree(bytes);
	}
	return has_nul;
}

/* An int64 as convex_encoded_json has it. */
void
cvx_value_write_int64(StringInfo out, int64 value)
{
	write_marker(out, "$integer", (uint64) value);
}

/*
 * A float64: its shortest text, always with "." or "e", or a marker for what
 * JSON numbers do not have; and for -0, where the reader wants markers.
 */
void
cvx_value_write_float64(StringInfo out, double value, bool has_markers)
{
	char		text[DOUBLE_SHORTEST_DECIMAL_LEN];
	uint64		bits;

	if (isnan(value) || isinf(value) ||
		(has_markers && value == 0 && signbit(value)))
	{
		memcpy(&bits, &value, 8);
		write_marker(out, "$float", bits);
		return;
	}
	double_to_shortest_decimal_buf(value, text);
	appendStringInfoString(out, text);
	if (strpbrk(text, ".e") == NULL)
		appendStringInfoString(out, ".0");
}

static void
write_marker(StringInfo out, const char *name, uint64 bits)
{
	char		base64[16];
	uint8		bytes[8];

	for (int i = 0; i < 8; i++)
		bytes[i] = (uint8) (bits >> (8 * i));
	base64[cvx_b64_encode((const char *) bytes, 8, base64, sizeof(base64))] = '\0';
	appendStringInfo(out, "{\"%s\":\"%s\"}", name, base64);
}

/*
 * {"$integer": ..}, {"$float": ..} and {"$bytes": ..}: no field of a document
 * can begin with "$", so nothing else looks like them.
 */
static bool
read_marker(const CvxText *raw, CvxValue *value)
{
	CvxJson		json;
	CvxText		name;
	CvxText		text;
	char		plain[80];
	uint8		bytes[16];
	uint64		bits = 0;

	/* The usual spelling of an int64 needs no reader. */
	if (raw->len == sizeof(INT64_MARKER) - 1 &&
		memcmp(raw->data, INT64_MARKER, INT64_DIGITS_AT) == 0 &&
		raw->data[raw->len - 2] == '"' &&
		read_int64_digits(raw->data + INT64_DIGITS_AT, &value->int64))
	{
		value->kind = CVX_KIND_INT64;
		return true;
	}

	cvx_json_within(&json, raw->data, raw->len);
	cvx_json_open(&json, '{');
	if (!cvx_json_member(&json, &name, true) || name.len < 6 ||
		name.data[0] != '$' || cvx_json_peek(&json) != '"')
		return false;
	cvx_json_string(&json, &text);
	if (cvx_json_peek(&json) != '}')
		return false;
	if (cvx_json_equals(&name, "$bytes", 6))
	{
		value->kind = CVX_KIND_BYTES;
		value->text = text;
		return true;
	}
	if (!cvx_json_equals(&name, "$integer", 8) &&
		!cvx_json_equals(&name, "$float", 6))
		return false;

	/* base64 text is never escaped but for "\/" */
	if (text.is_escaped && text.len < sizeof(plain))
	{
		bool		has_nul;

		text.len = cvx_json_unescape(&text, plain, &has_nul);
		text.data = plain;
	}
	if (text.len > 12 || cvx_b64_decode(text.data, (int) text.len, bytes,
										sizeof(bytes)) != 8)
		ereport(ERROR,
				(errcode(ERRCODE_FDW_INVALID_DATA_TYPE),
				 errmsg("malformed value of a number: %s",
						cvx_redact_excerpt(raw->data, raw->len))));
	for (int i = 7; i >= 0; i--)
		bits = (bits << 8) | bytes[i];
	if (name.len == 8)
	{
		value->kind = CVX_KIND_INT64;
		value->int64 = (int64) bits;
	}
	else
	{
		value->kind = CVX_KIND_FLOAT64;
		value->is_marked = true;
		memcpy(&value->float64, &bits, 8);
	}
	return true;
}

/* Eleven base64 digits and "=" as eight bytes, little-endian. */
static bool
read_int64_digits(const char *digits, int64 *result)
{
	static const int8 values[128] = {
		-1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1,
		-1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1,
		-1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, 62, -1, -1, -1, 63,
		52, 53, 54, 55, 56, 57, 58, 59, 60, 61, -1, -1, -1, -1, -1, -1,
		-1, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14,
		15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, -1, -1, -1, -1, -1,
		-1, 26, 27, 28, 29, 30, 31, 32, 33, 34, 35, 36, 37, 38, 39, 40,
		41, 42, 43, 44, 45, 46, 47, 48, 49, 50, 51, -1, -1, -1, -1, -1
	};
	uint64		bits = 0;
	int			wrong = 0;
	int			last;

	for (int i = 0; i < 10; i++)
	{
		int			value = values[digits[i] & 0x7f];

		wrong |= value | (digits[i] & 0x80);
		bits = (bits << 6) | (uint64) (value & 0x3f);
	}
	last = values[digits[10] & 0x7f];
	if (wrong < 0 || (wrong & 0x80) || last < 0 || (digits[10] & 0x80) ||
		(last & 3) != 0 || digits[11] != '=')
		return false;
	bits = (bits << 4) | (uint64) (last >> 2);
	*result = (int64) pg_bswap64(bits);
	return true;
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

/*
 * The same where an error of the type's own functions means "does not fit".
 * A subtransaction undoes what the functions may have begun.
 */
static bool
decode_guarded(CvxCodec *codec, const CvxValue *value, Datum *datum,
			   bool *isnull)
{
	MemoryContext cxt = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	ErrorContextCallback *stack = error_context_stack;
	volatile bool fits = false;

	if (!cvx_may_start_subxact())
		return decode_checked(codec, value, datum, isnull);
	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(cxt);
	PG_TRY();
	{
		error_context_stack = NULL;
		fits = decode_checked(codec, value, datum, isnull);
		error_context_stack = stack;
		ReleaseCurrentSubTransaction();
		MemoryContextSwitchTo(cxt);
		CurrentResourceOwner = owner;
	}
	PG_CATCH();
	{
		ErrorData  *error;
		int			category;

		MemoryContextSwitchTo(cxt);
		error = CopyErrorData();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
		MemoryContextSwitchTo(cxt);
		CurrentResourceOwner = owner;
		error_context_stack = stack;
		category = ERRCODE_TO_CATEGORY(error->sqlerrcode);
		if (category != ERRCODE_DATA_EXCEPTION &&
			category != ERRCODE_INTEGRITY_CONSTRAINT_VIOLATION &&
			error->sqlerrcode != ERRCODE_FDW_INVALID_DATA_TYPE)
			ReThrowError(error);
		FreeErrorData(error);
		fits = false;
	}
	PG_END_TRY();
	return fits;
}

static bool
misfit(CvxCodec *codec, const char *why)
{
	codec->why = why;
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
			return misfit(codec, "out of range");
		if (value->float64 != rint(value->float64))
			return misfit(codec, "not a whole number");
		*result = (int64) value->float64;
	}
	else
		return false;
	if (*result < min || *result > max)
		return misfit(codec, "out of range");
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
		return misfit(codec, "out of range");
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
			return misfit(codec, "no float64 holds it exactly");
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
								 CStringGetDatum(number_text(value)),
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
		if (!get_string(codec, &value->text, &text, &len))
			return false;
		*datum = PointerGetDatum(cstring_to_text_with_len(text, len));
		return true;
	}
	if (!get_string(codec, &value->text, &text, &len))
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
	if (!get_string(codec, &value->text, &text, &len))
		return false;
	if (len >= NAMEDATALEN)
		return misfit(codec, "too long");
	name = palloc0(NAMEDATALEN);
	memcpy(NameStr(*name), text, len);
	*datum = NameGetDatum(name);
	return true;
}

/* The bytes after offset reserved ones; NULL when the base64 is broken. */
static void *
get_bytes(const CvxValue *value, size_t offset, int *len)
{
	int			room = pg_b64_dec_len((int) value->text.len);
	char	   *bytes = palloc(offset + room + 1);

	/* base64 text is never escaped but for "\/" */
	if (value->text.is_escaped)
	{
		bool		has_nul;
		char	   *plain = palloc(value->text.len + 1);
		size_t		n = cvx_json_unescape(&value->text, plain, &has_nul);

		*len = cvx_b64_decode(plain, (int) n, bytes + offset, room);
		pfree(plain);
	}
	else
		*len = cvx_b64_decode(value->text.data, (int) value->text.len,
							  bytes + offset, room);
	return *len < 0 ? NULL : bytes;
}

static bool
decode_bytea(CvxCodec *codec, const CvxValue *value, Datum *datum)
{
	int			len;
	void	   *bytes;

	if (value->kind != CVX_KIND_BYTES)
		return false;
	bytes = get_bytes(value, VARHDRSZ, &len);
	if (bytes == NULL)
		return misfit(codec, "malformed base64");
	SET_VARSIZE(bytes, len + VARHDRSZ);
	*datum = PointerGetDatum(bytes);
	return true;
}

/*
 * The text as the wire has it, without what the endpoint added to a document;
 * json_values 'clean' takes the markers away.
 */
static bool
decode_json(CvxCodec *codec, const CvxValue *value, Datum *datum)
{
	StringInfoData buf;
	char	   *text;

	initStringInfo(&buf);
	if (codec->json_values == CVX_JSON_CLEAN)
		write_clean(&buf, value);
	else if (value->kind == CVX_KIND_OBJECT)
		skip_meta(&buf, value, false);
	else
		appendBinaryStringInfo(&buf, value->raw.data, value->raw.len);
	text = pg_any_to_server(buf.data, buf.len, PG_UTF8);
	*datum = PointerGetDatum(cstring_to_text_with_len(text, text == buf.data ?
													  buf.len : strlen(text)));
	return true;
}

static bool
decode_jsonb(CvxCodec *codec, const CvxValue *value, Datum *datum)
{
	JsonbParseState *state = NULL;
	JsonbValue *result = NULL;
	JsonbValue	scalar;

	if (value->kind == CVX_KIND_ARRAY || value->kind == CVX_KIND_OBJECT ||
		(codec->json_values == CVX_JSON_ENCODED &&
		 value->raw.data[0] == '{'))
	{
		if (!push_value(codec, &state, WJB_DONE, value, &result))
			return false;
	}
	else
	{
		if (!push_scalar(codec, value, &scalar))
			return false;
		result = &scalar;
	}
	*datum = PointerGetDatum(JsonbValueToJsonb(result));
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
		return misfit(codec, "out of range");

	/* Whole ms as an integer, the fraction apart: exact to the microsecond. */
	us = (whole - MS_AT_2000) * 1000 + (int64) rint(fraction * 1000.0);
	if (!IS_VALID_TIMESTAMP(us))
		return misfit(codec, "out of range");
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
		return misfit(codec, "out of range");
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
		return misfit(codec, "not a point in time");
	below = floor(value->float64);
	if (!(below >= -9223372036854775808.0 && below < 9223372036854775808.0))
		return misfit(codec, "out of range");
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
			if (!get_string(codec, &value->text, &text, &len))
				return false;
			break;
		case CVX_KIND_BOOLEAN:
			text = value->boolean ? "true" : "false";
			break;
		case CVX_KIND_INT64:
		case CVX_KIND_FLOAT64:
			text = number_text(value);
			break;
		default:
			return false;
	}
	*datum = cvx_typeio_input(&codec->input, text, codec->typmod);
	return true;
}

/* A number as PostgreSQL's input functions read it. */
static char *
number_text(const CvxValue *value)
{
	char	   *text;

	if (value->kind == CVX_KIND_INT64)
		return psprintf(INT64_FORMAT, value->int64);
	if (isnan(value->float64))
		return "NaN";
	if (isinf(value->float64))
		return value->float64 > 0 ? "Infinity" : "-Infinity";
	text = palloc(DOUBLE_SHORTEST_DECIMAL_LEN);
	double_to_shortest_decimal_buf(value->float64, text);
	return text;
}

/*
 * A string in the database's encoding, terminated, with U+0000 treated as the
 * table wants.
 */
static bool
get_string(CvxCodec *codec, const CvxText *text, char **result, size_t *len)
{
	/* Each "\u0000" (6 bytes) may become U+FFFD (3 bytes). */
	char	   *utf8 = palloc(text->len + 1);
	bool		has_nul = false;

	*len = text->len;
	if (text->is_escaped)
		*len = cvx_json_unescape(text, utf8, &has_nul);
	else
		memcpy(utf8, text->data, text->len);
	if (has_nul)
	{
		char	   *mended;
		size_t		n = 0;

		if (codec->nul_handling == CVX_NUL_ERROR)
			return misfit(codec, HAS_NUL);
		mended = palloc(*len * 3 + 1);
		for (size_t i = 0; i < *len; i++)
		{
			if (utf8[i] != '\0')
				mended[n++] = utf8[i];
			else if (codec->nul_handling == CVX_NUL_REPLACE)
			{
				memcpy(mended + n, "\xef\xbf\xbd", 3);
				n += 3;
			}
		}
		utf8 = mended;
		*len = n;
	}
	utf8[*len] = '\0';
	*result = utf8;
	if (GetDatabaseEncoding() != PG_UTF8)
	{
		*result = pg_any_to_server(utf8, *len, PG_UTF8);
		*len = strlen(*result);
	}
	return true;
}

/* ------------------------------------------------------------------------
 * jsonb and json
 * ------------------------------------------------------------------------
 */

/*
 * Push one value; token is WJB_VALUE or WJB_ELEM inside a container, WJB_DONE
 * for the value itself, whose own metadata is then left out.
 */
static bool
push_value(CvxCodec *codec, JsonbParseState **state, JsonbIteratorToken token,
		   const CvxValue *value, JsonbValue **result)
{
	bool		is_array = value->kind == CVX_KIND_ARRAY;
	bool		is_first = true;
	CvxJson		json;
	CvxText		name;
	CvxText		text;
	CvxValue	inner;
	JsonbValue	scalar;

	/* A marker stays an object where markers are kept. */
	if (!is_array && value->kind != CVX_KIND_OBJECT &&
		(codec->json_values == CVX_JSON_CLEAN || value->raw.data[0] != '{'))
	{
		if (!push_scalar(codec, value, &scalar))
			return false;
		*result = pushJsonbValue(state, token, &scalar);
		return true;
	}

	cvx_json_within(&json, value->raw.data, value->raw.len);
	pushJsonbValue(state, is_array ? WJB_BEGIN_ARRAY : WJB_BEGIN_OBJECT, NULL);
	cvx_json_open(&json, is_array ? '[' : '{');
	for (; is_array ? cvx_json_element(&json, is_first) :
		 cvx_json_member(&json, &name, is_first); is_first = false)
	{
		cvx_json_skip(&json, &text);
		if (!is_array)
		{
			if (is_meta(&name, value->is_document))
				continue;
			if (!push_string(codec, &name, &scalar))
				return false;
			pushJsonbValue(state, WJB_KEY, &scalar);
		}
		cvx_value_read(text.data, text.len, &inner);
		if (!push_value(codec, state, is_array ? WJB_ELEM : WJB_VALUE, &inner,
						result))
			return false;
	}
	*result = pushJsonbValue(state, is_array ? WJB_END_ARRAY : WJB_END_OBJECT,
							 NULL);
	return true;
}

/*
 * How much of a number's text is shown: a clean whole number is 4, as
 * JavaScript has it, and not 4.0.  codec NULL: clean.
 */
static size_t
shown_digits(const CvxCodec *codec, const CvxValue *value)
{
	size_t		len = value->raw.len;

	if ((codec == NULL || codec->json_values == CVX_JSON_CLEAN) &&
		len > 2 && memcmp(value->raw.data + len - 2, ".0", 2) == 0)
		len -= 2;
	return len;
}

static bool
push_scalar(CvxCodec *codec, const CvxValue *value, JsonbValue *scalar)
{
	switch (value->kind)
	{
		case CVX_KIND_NULL:
			scalar->type = jbvNull;
			return true;
		case CVX_KIND_BOOLEAN:
			scalar->type = jbvBool;
			scalar->val.boolean = value->boolean;
			return true;
		case CVX_KIND_INT64:
			scalar->type = jbvNumeric;
			scalar->val.numeric = int64_to_numeric(value->int64);
			return true;
		case CVX_KIND_FLOAT64:
			if (isnan(value->float64) || isinf(value->float64))
			{
				scalar->type = jbvString;
				scalar->val.string.val = number_text(value);
				scalar->val.string.len = strlen(scalar->val.string.val);
				return true;
			}
			scalar->type = jbvNumeric;
			scalar->val.numeric =
				DatumGetNumeric(DirectFunctionCall3(numeric_in,
													CStringGetDatum(value->is_marked ? number_text(value) :
																	pnstrdup(value->raw.data, shown_digits(codec, value))),
													ObjectIdGetDatum(InvalidOid),
													Int32GetDatum(-1)));
			return true;
		default:
			return push_string(codec, &value->text, scalar);
	}
}

static bool
push_string(CvxCodec *codec, const CvxText *text, JsonbValue *scalar)
{
	char	   *string;
	size_t		len;

	if (!get_string(codec, text, &string, &len))
		return false;
	if (len > JENTRY_OFFLENMASK)
		return misfit(codec, "a string is too long for jsonb");
	scalar->type = jbvString;
	scalar->val.string.val = string;
	scalar->val.string.len = (int) len;
	return true;
}

/* A value without markers, as JSON text. */
static void
write_clean(StringInfo buf, const CvxValue *value)
{
	CvxJson		json;
	CvxText		text;
	CvxValue	inner;
	bool		is_first = true;

	switch (value->kind)
	{
		case CVX_KIND_INT64:
			appendStringInfo(buf, INT64_FORMAT, value->int64);
			break;
		case CVX_KIND_FLOAT64:
			if (isnan(value->float64) || isinf(value->float64))
				appendStringInfo(buf, "\"%s\"", number_text(value));
			else if (value->is_marked)
				appendStringInfoString(buf, number_text(value));
			else
				appendBinaryStringInfo(buf, value->raw.data,
									   shown_digits(NULL, value));
			break;
		case CVX_KIND_BYTES:
			appendStringInfoChar(buf, '"');
			appendBinaryStringInfo(buf, value->text.data, value->text.len);
			appendStringInfoChar(buf, '"');
			break;
		case CVX_KIND_OBJECT:
			skip_meta(buf, value, true);
			break;
		case CVX_KIND_ARRAY:
			cvx_json_within(&json, value->raw.data, value->raw.len);
			appendStringInfoChar(buf, '[');
			cvx_json_open(&json, '[');
			for (; cvx_json_element(&json, is_first); is_first = false)
			{
				if (!is_first)
					appendStringInfoChar(buf, ',');
				cvx_json_skip(&json, &text);
				cvx_value_read(text.data, text.len, &inner);
				write_clean(buf, &inner);
			}
			appendStringInfoChar(buf, ']');
			break;
		default:
			appendBinaryStringInfo(buf, value->raw.data, value->raw.len);
	}
}

/*
 * An object's text without the members that the endpoint added.  Only a
 * document has them: nested names beginning with "_" are the user's.
 */
static void
skip_meta(StringInfo buf, const CvxValue *value, bool is_clean)
{
	CvxJson		json;
	CvxText		name;
	CvxText		text;
	CvxValue	inner;
	bool		is_first = true;
	bool		is_written = false;

	cvx_json_within(&json, value->raw.data, value->raw.len);
	appendStringInfoChar(buf, '{');
	cvx_json_open(&json, '{');
	for (; cvx_json_member(&json, &name, is_first); is_first = false)
	{
		cvx_json_skip(&json, &text);
		if (is_meta(&name, value->is_document))
			continue;
		if (is_written)
			appendStringInfoChar(buf, ',');
		is_written = true;
		appendStringInfoChar(buf, '"');
		appendBinaryStringInfo(buf, name.data, name.len);
		appendStringInfoString(buf, "\":");
		cvx_value_read(text.data, text.len, &inner);
		if (is_clean)
			write_clean(buf, &inner);
		else
			appendBinaryStringInfo(buf, text.data, text.len);
	}
	appendStringInfoChar(buf, '}');
}

/* ------------------------------------------------------------------------
 * Arrays
 * ------------------------------------------------------------------------
 */

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
				return misfit(codec, "too many dimensions");
			if (elements->ndims == depth + 1)
				return misfit(codec, "arrays and single values are mixed");
			if (!read_elements(elements, &text, depth + 1))
				return false;
			continue;
		}
		if (elements->ndims == -1)
			elements->ndims = depth + 1;
		if (elements->ndims != depth + 1)
			return misfit(codec, "arrays and single values are mixed");
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
			return misfit(codec, codec->element->why);
		elements->n++;
	}

	/* All arrays of one depth have one length. */
	if (n == 0 && depth > 0)
		return misfit(codec, "an array within it is empty");
	if (elements->dims[depth] != 0 && elements->dims[depth] != n)
		return misfit(codec, "its arrays differ in length");
	elements->dims[depth] = n;
	return true;
}
