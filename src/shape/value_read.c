/*
 * value_read.c
 *		What is one value, and what are its string, bytes and number?
 *
 * A value is what the wire says (convex_encoded_json), never what a schema
 * says: an int64 never passes through a double.
 *
 * Room: shape 3.5
 */
#include "postgres.h"

#include <math.h>

#include "common/base64.h"
#include "common/shortest_dec.h"
#include "mb/pg_wchar.h"
#include "port/pg_bswap.h"

#include "ground/compat.h"
#include "ground/redact.h"
#include "shape/value_read.h"

/* Why a string does not fit, where options do not say what becomes of it. */
const char cvx_value_nul_reason[] = "it holds the character U+0000";

/* How an int64 is spelled, and where its digits begin. */
#define INT64_MARKER	"{\"$integer\":\"xxxxxxxxxxx=\"}"
#define INT64_DIGITS_AT	13

static void write_marker(StringInfo out, const char *name, uint64 bits);
static bool read_marker(const CvxText *raw, CvxValue *value);
static bool read_int64_digits(const char *digits, int64 *result);

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

/* The kind's name, for messages. */
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
			 (bytes = cvx_value_get_bytes(value, 0, &len)) != NULL)
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

/* The bytes after offset reserved ones; NULL when the base64 is broken. */
void *
cvx_value_get_bytes(const CvxValue *value, size_t offset, int *len)
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

/* A number as PostgreSQL's input functions read it. */
char *
cvx_value_number_text(const CvxValue *value)
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
bool
cvx_value_get_string(CvxCodec *codec, const CvxText *text, char **result,
					 size_t *len)
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
			return cvx_value_misfit(codec, cvx_value_nul_reason);
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
