/*
 * json_test.c
 *		json.c as SQL functions, to be compared with jsonb.
 *
 * A library of the tests' own, built and loaded by test/t/json.pl.
 */
#include "postgres.h"

#include "fmgr.h"
#include "mb/pg_wchar.h"
#include "utils/builtins.h"

#include "wire/json.h"

PG_MODULE_MAGIC;

PG_FUNCTION_INFO_V1(json_test_rewrite);
PG_FUNCTION_INFO_V1(json_test_skip);
PG_FUNCTION_INFO_V1(json_test_number);
PG_FUNCTION_INFO_V1(json_test_integer);

static void rewrite(CvxJson *json, StringInfo out);
static void begin(CvxJson *json, bytea *bytes);

/* The text read piece by piece and written again. */
Datum
json_test_rewrite(PG_FUNCTION_ARGS)
{
	CvxJson		json;
	StringInfoData out;

	begin(&json, PG_GETARG_BYTEA_PP(0));
	initStringInfo(&out);
	rewrite(&json, &out);
	cvx_json_end(&json);
	PG_RETURN_TEXT_P(cstring_to_text_with_len(out.data, out.len));
}

/* Whether the text may be passed over. */
Datum
json_test_skip(PG_FUNCTION_ARGS)
{
	CvxJson		json;

	begin(&json, PG_GETARG_BYTEA_PP(0));
	cvx_json_skip(&json, NULL);
	cvx_json_end(&json);
	PG_RETURN_BOOL(true);
}

/* NULL when no finite number is near. */
Datum
json_test_number(PG_FUNCTION_ARGS)
{
	text	   *number = PG_GETARG_TEXT_PP(0);
	double		value;

	if (!cvx_json_number(VARDATA_ANY(number), VARSIZE_ANY_EXHDR(number), &value))
		PG_RETURN_NULL();
	PG_RETURN_FLOAT8(value);
}

Datum
json_test_integer(PG_FUNCTION_ARGS)
{
	CvxJson		json;
	int64		value;

	begin(&json, PG_GETARG_BYTEA_PP(0));
	value = cvx_json_int64(&json);
	cvx_json_end(&json);
	PG_RETURN_INT64(value);
}

static void
begin(CvxJson *json, bytea *bytes)
{
	size_t		len = VARSIZE_ANY_EXHDR(bytes);
	char	   *text = palloc(len + 1);

	memcpy(text, VARDATA_ANY(bytes), len);
	text[len] = '\0';
	cvx_json_begin(json, text, len);
	if (pg_encoding_verifymbstr(PG_UTF8, text, len) != len)
		cvx_json_fail(json, "not UTF-8");
}

static void
rewrite_string(const CvxText *string, StringInfo out)
{
	char	   *text = palloc(string->len + 1);
	bool		has_nul;
	size_t		len = cvx_json_unescape(string, text, &has_nul);

	cvx_json_write_string(out, text, len);
}

static void
rewrite(CvxJson *json, StringInfo out)
{
	char		c = cvx_json_peek(json);
	bool		is_first = true;
	CvxText		text;

	if (c == '{' || c == '[')
	{
		cvx_json_open(json, c);
		appendStringInfoChar(out, c);
		while (c == '{' ? cvx_json_member(json, &text, is_first) :
			   cvx_json_element(json, is_first))
		{
			if (!is_first)
				appendStringInfoChar(out, ',');
			if (c == '{')
			{
				rewrite_string(&text, out);
				appendStringInfoChar(out, ':');
			}
			rewrite(json, out);
			is_first = false;
		}
		appendStringInfoChar(out, c == '{' ? '}' : ']');
	}
	else if (c == '"')
	{
		cvx_json_string(json, &text);
		rewrite_string(&text, out);
	}
	else
	{
		cvx_json_skip(json, &text);
		appendBinaryStringInfo(out, text.data, text.len);
	}
}
