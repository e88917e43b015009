/*
 * value_json.c
 *		How does a value become json or jsonb?
 *
 * Room: shape 3.6
 */
#include "postgres.h"

#include <math.h>

#include "mb/pg_wchar.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/jsonb.h"
#include "utils/numeric.h"

#include "protocol/page.h"
#include "shape/value_json.h"

static bool is_meta(const CvxText *name, bool is_document);
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

/*
 * The text as the wire has it, without what the endpoint added to a document;
 * json_values 'clean' takes the markers away.
 */
bool
cvx_value_to_json(CvxCodec *codec, const CvxValue *value, Datum *datum)
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

/* The decoder of jsonb. */
bool
cvx_value_to_jsonb(CvxCodec *codec, const CvxValue *value, Datum *datum)
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

/* Does the endpoint's own member stand in a document's object? */
static bool
is_meta(const CvxText *name, bool is_document)
{
	return is_document && !cvx_page_is_document_member(name);
}

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
				scalar->val.string.val = cvx_value_number_text(value);
				scalar->val.string.len = strlen(scalar->val.string.val);
				return true;
			}
			scalar->type = jbvNumeric;
			scalar->val.numeric =
				DatumGetNumeric(DirectFunctionCall3(numeric_in,
													CStringGetDatum(value->is_marked ? cvx_value_number_text(value) :
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

	if (!cvx_value_get_string(codec, text, &string, &len))
		return false;
	if (len > JENTRY_OFFLENMASK)
		return cvx_value_misfit(codec, "a string is too long for jsonb");
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
				appendStringInfo(buf, "\"%s\"", cvx_value_number_text(value));
			else if (value->is_marked)
				appendStringInfoString(buf, cvx_value_number_text(value));
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
