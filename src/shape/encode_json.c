/*
 * encode_json.c
 *		How does json or jsonb become a Convex value?
 *
 * Room: shape 3.10
 */
#include "postgres.h"

#include <math.h>

#include "common/base64.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"

#include "ground/redact.h"
#include "shape/encode_json.h"

static const CvxText *find_member(const CvxText *object, const char *name,
								 CvxText *member);
static void write_jsonb_value(CvxEncoder *encoder, JsonbValue *value,
							  const CvxText *old, StringInfo out);
static bool is_text(const JsonbValue *value, const char *text);
static bool write_jsonb_marker(CvxEncoder *encoder, JsonbContainer *container,
							   StringInfo out);
static void check_name(CvxEncoder *encoder, const char *name, int len);

/* The encoder of json. */
void
cvx_encode_json(CvxEncoder *encoder, Datum value, StringInfo out)
{
	cvx_encode_jsonb(encoder, cvx_encode_jsonb_of(value), out);
}

/* A json as jsonb, in which each name stands once. */
Datum
cvx_encode_jsonb_of(Datum json)
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

/* The encoder of jsonb. */
void
cvx_encode_jsonb(CvxEncoder *encoder, Datum value, StringInfo out)
{
	cvx_encode_jsonb_over(encoder, &DatumGetJsonbP(value)->root, NULL, out);
}

/*
 * Append a jsonb.  old is the value whose place it takes, or NULL: what clean
 * JSON shows without its type keeps the type that it has there.
 */
void
cvx_encode_jsonb_over(CvxEncoder *encoder, JsonbContainer *container,
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
			under = find_member(old, name, &member);
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

/* The value of a member of an object, in *member; NULL: it has none. */
static const CvxText *
find_member(const CvxText *object, const char *name, CvxText *member)
{
	CvxJson		json;
	CvxText		key;

	cvx_json_within(&json, object->data, object->len);
	cvx_json_open(&json, '{');
	for (bool is_first = true; cvx_json_member(&json, &key, is_first); is_first = false)
	{
		cvx_json_skip(&json, member);
		if (cvx_json_equals(&key, name, strlen(name)))
			return member;
	}
	return NULL;
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
					cvx_encode_is_between(value->val.numeric, PG_INT64_MIN, PG_INT64_MAX))
				{
					cvx_encode_int64(encoder,
									 cvx_encode_exact_int64(value->val.numeric),
									 out);
					break;
				}
			}
			if (before.kind == CVX_KIND_FLOAT64 && before.float64 == 0 &&
				signbit(before.float64) &&
				cvx_encode_exact_double(value->val.numeric) == 0)
			{
				cvx_encode_float64(encoder, before.float64, out);
				break;
			}
			cvx_encode_float64(encoder,
							   cvx_encode_exact_double(value->val.numeric),
							   out);
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

				cvx_encode_string(&plain, value->val.string.val,
								  value->val.string.len, out);
			}
			break;
		case jbvBinary:
			cvx_encode_jsonb_over(encoder, value->val.binary.data, old, out);
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
			cvx_encode_int64(encoder, value.int64, out);
			return true;
		case CVX_KIND_FLOAT64:
			cvx_encode_float64(encoder, value.float64, out);
			return true;
		case CVX_KIND_BYTES:
			{
				Datum		bytes = DirectFunctionCall2(binary_decode,
														PointerGetDatum(cstring_to_text_with_len(value.text.data,
																								 value.text.len)),
														CStringGetTextDatum("base64"));

				cvx_encode_base64(encoder, VARDATA_ANY(DatumGetByteaPP(bytes)),
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
