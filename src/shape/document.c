/*
 * document.c
 *		What becomes of a document when changes are laid over it?
 *
 * Documents are texts in convex_encoded_json.  Nothing is decoded: what a
 * change does not touch keeps its bytes.
 *
 * Room: shape 3.8
 */
#include "postgres.h"

#include <math.h>

#include "common/shortest_dec.h"
#include "common/base64.h"
#include "miscadmin.h"

#include "ground/compat.h"
#include "shape/document.h"
#include "shape/value_read.h"

/* Convex's limits of one document. */
#define MAX_DOCUMENT_BYTES	(1024 * 1024)
#define MAX_NESTING			16
#define MAX_FIELDS			1024
#define MAX_ELEMENTS		8192

/*
 * What the server adds, and counts: "_id" of 32 characters and
 * "_creationTime".
 */
#define SYSTEM_FIELDS		2
#define SYSTEM_FIELD_BYTES	(3 + 1 + 34 + 13 + 1 + 9)

typedef struct Member
{
	char	   *name;
	CvxText		value;
} Member;

static void write_set(StringInfo out, const char *doc, size_t len,
					  const CvxPath *path, const char *value,
					  size_t value_len);
static bool is_name(const CvxText *name, const char *text);
static void put_member(StringInfo out, bool *is_first, const CvxText *name,
					   const char *value, size_t len);
static int	compare_members(const void *a, const void *b);
static void canonical_object(StringInfo out, const CvxText *raw,
							 bool is_document);
static bool is_system_field(const CvxText *name);
static int64 measure(const char *data, size_t len, int depth);

/*
 * Find a field, at a path into objects; false when there is none.  The value
 * points into the document.
 */
bool
cvx_document_get(const char *doc, size_t len, const CvxPath *path,
				 CvxText *value)
{
	value->data = doc;
	value->len = len;
	for (int i = 0; i < path->n; i++)
	{
		CvxJson		json;
		CvxText		name;
		CvxText		text;
		bool		is_first = true;
		bool		is_found = false;

		if (value->data[0] != '{')
			return false;
		cvx_json_within(&json, value->data, value->len);
		cvx_json_open(&json, '{');
		for (; cvx_json_member(&json, &name, is_first); is_first = false)
		{
			cvx_json_skip(&json, &text);
			if (!is_found && is_name(&name, path->names[i]))
			{
				is_found = true;
				*value = text;
			}
			if (is_found)
				break;
		}
		if (!is_found)
			return false;
	}
	return true;
}

/*
 * Does a value on the way to the path's end keep objects from being made?  It
 * is then *value, at the end of the first *depth names.  A null does not.
 */
bool
cvx_document_is_blocked(const char *doc, size_t len, const CvxPath *path,
						CvxValue *value, int *depth)
{
	for (int i = 1; i < path->n; i++)
	{
		CvxPath		way = {path->names, i, NULL};
		CvxText		text;

		if (!cvx_document_get(doc, len, &way, &text) || text.data[0] == 'n')
			return false;
		cvx_value_read(text.data, text.len, value);
		*depth = i;
		if (value->kind != CVX_KIND_OBJECT)
			return true;
	}
	return false;
}

/*
 * Do two values look the same in clean JSON?  It shows an int64 as a number
 * and bytes as text.
 */
bool
cvx_document_is_alike(const CvxText *a, const CvxText *b)
{
	CvxValue	x;
	CvxValue	y;

	cvx_value_read(a->data, a->len, &x);
	cvx_value_read(b->data, b->len, &y);
	if (x.kind > y.kind)
	{
		CvxValue	swap = x;

		x = y;
		y = swap;
	}
	if (x.kind == CVX_KIND_INT64 && y.kind == CVX_KIND_FLOAT64)
		return (double) x.int64 == y.float64;
	if (x.kind == CVX_KIND_STRING && y.kind == CVX_KIND_BYTES)
		return !x.text.is_escaped && x.text.len == y.text.len &&
			memcmp(x.text.data, y.text.data, x.text.len) == 0;
	return cvx_document_is_same(a->data, a->len, b->data, b->len, false);
}

/*
 * Are two values, or two documents, the same to Convex?  strips: whatever their
 * system fields are.
 */
bool
cvx_document_is_same(const char *a, size_t a_len, const char *b, size_t b_len,
					 bool strips)
{
	StringInfoData one;
	StringInfoData other;

	if (a_len == b_len && memcmp(a, b, a_len) == 0)
		return true;
	initStringInfo(&one);
	initStringInfo(&other);
	cvx_document_canonical(&one, a, a_len, strips);
	cvx_document_canonical(&other, b, b_len, strips);
	return one.len == other.len && memcmp(one.data, other.data, one.len) == 0;
}

/*
 * Set a field of a document to a value, or take it out (value NULL).  Objects
 * on the way are made; what stands in the way is replaced.  The document's
 * memory is new, in the current context.
 */
void
cvx_document_set(StringInfo doc, const CvxPath *path, const char *value,
				 size_t value_len)
{
	StringInfoData longer;

	initStringInfo(&longer);
	write_set(&longer, doc->data, doc->len, path, value, value_len);
	*doc = longer;
}

static void
write_set(StringInfo out, const char *doc, size_t len, const CvxPath *path,
		  const char *value, size_t value_len)
{
	CvxPath		rest = {path->names + 1, path->n - 1, path->label};
	CvxJson		json;
	CvxText		name;
	CvxText		text;
	bool		is_first = true;
	bool		is_first_out = true;
	bool		is_found = false;
	StringInfoData inner;

	check_stack_depth();
	initStringInfo(&inner);
	appendStringInfoChar(out, '{');
	cvx_json_within(&json, doc, len);
	cvx_json_open(&json, '{');
	for (; cvx_json_member(&json, &name, is_first); is_first = false)
	{
		cvx_json_skip(&json, &text);
		if (!is_name(&name, path->names[0]))
		{
			put_member(out, &is_first_out, &name, text.data, text.len);
			continue;
		}
		is_found = true;
		if (rest.n > 0)
		{
			CvxValue	old;

			cvx_value_read(text.data, text.len, &old);
			if (old.kind == CVX_KIND_OBJECT)
				write_set(&inner, text.data, text.len, &rest, value, value_len);
			else if (value == NULL)
				appendBinaryStringInfo(&inner, text.data, text.len);
			else
				write_set(&inner, "{}", 2, &rest, value, value_len);
			put_member(out, &is_first_out, &name, inner.data, inner.len);
		}
		else if (value != NULL)
			put_member(out, &is_first_out, &name, value, value_len);
	}
	if (!is_found && value != NULL)
	{
		if (rest.n > 0)
		{
			write_set(&inner, "{}", 2, &rest, value, value_len);
			value = inner.data;
			value_len = inner.len;
		}
		if (!is_first_out)
			appendStringInfoChar(out, ',');
		cvx_json_write_string(out, path->names[0], strlen(path->names[0]));
		appendStringInfoChar(out, ':');
		appendBinaryStringInfo(out, value, value_len);
	}
	appendStringInfoChar(out, '}');
	pfree(inner.data);
}

/* The document with the patch's top-level fields in the place of its own. */
void
cvx_document_merge(StringInfo out, const char *doc, size_t len,
				   const char *patch, size_t patch_len)
{
	CvxJson		json;
	CvxText		name;
	CvxText		text;
	bool		is_first = true;
	bool		is_first_out = true;

	appendStringInfoChar(out, '{');
	cvx_json_within(&json, doc, len);
	cvx_json_open(&json, '{');
	for (; cvx_json_member(&json, &name, is_first); is_first = false)
	{
		char	   *names[1];
		CvxPath		path = {names, 1, NULL};
		CvxText		ignored;

		cvx_json_skip(&json, &text);
		names[0] = cvx_json_cstring(&name);
		if (!cvx_document_get(patch, patch_len, &path, &ignored))
			put_member(out, &is_first_out, &name, text.data, text.len);
		pfree(names[0]);
	}
	cvx_json_within(&json, patch, patch_len);
	cvx_json_open(&json, '{');
	for (is_first = true; cvx_json_member(&json, &name, is_first);
		 is_first = false)
	{
		cvx_json_skip(&json, &text);
		put_member(out, &is_first_out, &name, text.data, text.len);
	}
	appendStringInfoChar(out, '}');
}

/*
 * The document without what the endpoint added, and without _id and
 * _creationTime unless they are to be kept.
 */
void
cvx_document_strip(StringInfo out, const char *doc, size_t len,
				   bool keeps_system)
{
	CvxJson		json;
	CvxText		name;
	CvxText		text;
	bool		is_first = true;
	bool		is_first_out = true;

	appendStringInfoChar(out, '{');
	cvx_json_within(&json, doc, len);
	cvx_json_open(&json, '{');
	for (; cvx_json_member(&json, &name, is_first); is_first = false)
	{
		cvx_json_skip(&json, &text);
		if (name.len > 0 && name.data[0] == '_' &&
			!(keeps_system && is_system_field(&name)))
			continue;
		put_member(out, &is_first_out, &name, text.data, text.len);
	}
	appendStringInfoChar(out, '}');
}

/*
 * The document's key as text that is equal exactly for keys that Convex takes
 * for equal.  False, with the name of the field, when one is missing or null.
 */
bool
cvx_document_key(StringInfo out, const char *doc, size_t len,
				 const CvxKey *key, const char **missing)
{
	for (int i = 0; i < key->n; i++)
	{
		CvxText		value;

		if (!cvx_document_get(doc, len, &key->paths[i], &value) ||
			value.data[0] == 'n')
		{
			*missing = key->paths[i].label;
			return false;
		}
		if (i > 0)
			appendStringInfoChar(out, ',');
		cvx_document_canonical(out, value.data, value.len, false);
	}
	return true;
}

/*
 * One spelling for each value: members by name, numbers and strings as we
 * write them.  Of a document only the fields.
 */
void
cvx_document_canonical(StringInfo out, const char *data, size_t len,
					   bool is_document)
{
	CvxValue	value;

	check_stack_depth();
	cvx_value_read(data, len, &value);
	switch (value.kind)
	{
		case CVX_KIND_STRING:
			{
				bool		has_nul;
				char	   *text = palloc(value.text.len + 1);
				size_t		n = cvx_json_unescape(&value.text, text, &has_nul);

				cvx_json_write_string(out, text, n);
				pfree(text);
				break;
			}
		case CVX_KIND_INT64:
			cvx_value_write_int64(out, value.int64);
			break;
		case CVX_KIND_FLOAT64:
			cvx_value_write_float64(out, value.float64, true);
			break;
		case CVX_KIND_ARRAY:
			{
				CvxJson		json;
				CvxText		text;
				bool		is_first = true;

				appendStringInfoChar(out, '[');
				cvx_json_within(&json, data, len);
				cvx_json_open(&json, '[');
				for (; cvx_json_element(&json, is_first); is_first = false)
				{
					cvx_json_skip(&json, &text);
					if (!is_first)
						appendStringInfoChar(out, ',');
					cvx_document_canonical(out, text.data, text.len, false);
				}
				appendStringInfoChar(out, ']');
				break;
			}
		case CVX_KIND_OBJECT:
			canonical_object(out, &value.raw, is_document);
			break;
		case CVX_KIND_BYTES:
			appendStringInfoString(out, "{\"$bytes\":\"");
			appendBinaryStringInfo(out, value.text.data, value.text.len);
			appendStringInfoString(out, "\"}");
			break;
		default:
			appendBinaryStringInfo(out, data, len);
	}
}

/*
 * The size that Convex counts for a document, with the system fields it adds.
 * Throws 54000 when it is more than Convex takes, in any of its limits.
 */
int64
cvx_document_measure(const char *doc, size_t len)
{
	int64		size = measure(doc, len, 1) + SYSTEM_FIELD_BYTES;

	if (size > MAX_DOCUMENT_BYTES)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("document of " INT64_FORMAT " bytes is too large for Convex",
						size),
				 errhint("A Convex document has at most 1 MiB.")));
	return size;
}

static bool
is_name(const CvxText *name, const char *text)
{
	return cvx_json_equals(name, text, strlen(text));
}

static bool
is_system_field(const CvxText *name)
{
	return is_name(name, "_id") || is_name(name, "_creationTime");
}

static void
put_member(StringInfo out, bool *is_first, const CvxText *name,
		   const char *value, size_t len)
{
	if (!*is_first)
		appendStringInfoChar(out, ',');
	*is_first = false;
	appendStringInfoChar(out, '"');
	appendBinaryStringInfo(out, name->data, name->len);
	appendStringInfoString(out, "\":");
	appendBinaryStringInfo(out, value, len);
}

static int
compare_members(const void *a, const void *b)
{
	return strcmp(((const Member *) a)->name, ((const Member *) b)->name);
}

static void
canonical_object(StringInfo out, const CvxText *raw, bool is_document)
{
	Member	   *members = palloc(sizeof(Member) * 16);
	int			nmembers = 0;
	int			nallocated = 16;
	CvxJson		json;
	CvxText		name;
	CvxText		text;
	bool		is_first = true;

	cvx_json_within(&json, raw->data, raw->len);
	cvx_json_open(&json, '{');
	for (; cvx_json_member(&json, &name, is_first); is_first = false)
	{
		cvx_json_skip(&json, &text);
		if (is_document && name.len > 0 && name.data[0] == '_')
			continue;
		if (nmembers == nallocated)
		{
			nallocated *= 2;
			members = repalloc(members, sizeof(Member) * nallocated);
		}
		members[nmembers].name = cvx_json_cstring(&name);
		members[nmembers++].value = text;
	}
	qsort(members, nmembers, sizeof(Member), compare_members);
	appendStringInfoChar(out, '{');
	for (int i = 0; i < nmembers; i++)
	{
		if (i > 0)
			appendStringInfoChar(out, ',');
		cvx_json_write_string(out, members[i].name, strlen(members[i].name));
		appendStringInfoChar(out, ':');
		cvx_document_canonical(out, members[i].value.data,
							   members[i].value.len, false);
		pfree(members[i].name);
	}
	appendStringInfoChar(out, '}');
	pfree(members);
}

CVX_NORETURN static void
fail_limit(const char *what, int limit)
{
	ereport(ERROR,
			(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
			 errmsg("document has more %s than Convex allows", what),
			 errhint("Convex allows at most %d.", limit)));
}

/* The bytes of a string when it is not escaped. */
static int64
text_size(const CvxText *string)
{
	bool		has_nul;
	char	   *plain;
	size_t		size = string->len;

	if (string->is_escaped)
	{
		plain = palloc(string->len + 1);
		size = cvx_json_unescape(string, plain, &has_nul);
		pfree(plain);
	}
	return (int64) size;
}

/* Convex's size of one value; at depth 1 without the system fields. */
static int64
measure(const char *data, size_t len, int depth)
{
	CvxValue	value;
	CvxJson		json;
	CvxText		name;
	CvxText		text;
	int64		size = 2;
	int			n = 0;
	int			nsystem = 0;

	if (depth > MAX_NESTING + 1)
		fail_limit("levels of nesting", MAX_NESTING);
	cvx_value_read(data, len, &value);
	switch (value.kind)
	{
		case CVX_KIND_NULL:
		case CVX_KIND_BOOLEAN:
			return 1;
		case CVX_KIND_INT64:
		case CVX_KIND_FLOAT64:
			return 9;
		case CVX_KIND_BYTES:
			size += (int64) value.text.len / 4 * 3;
			for (size_t i = value.text.len; i > 0 && value.text.data[i - 1] == '='; i--)
				size--;
			return size;
		case CVX_KIND_STRING:
			return size + text_size(&value.text);
		default:
			break;
	}
	cvx_json_within(&json, data, len);
	cvx_json_open(&json, value.kind == CVX_KIND_ARRAY ? '[' : '{');
	for (; value.kind == CVX_KIND_ARRAY ? cvx_json_element(&json, n == 0) :
		 cvx_json_member(&json, &name, n == 0); n++)
	{
		cvx_json_skip(&json, &text);
		if (value.kind == CVX_KIND_OBJECT && depth == 1 &&
			is_system_field(&name))
		{
			nsystem++;
			continue;
		}
		if (value.kind == CVX_KIND_OBJECT)
			size += text_size(&name) + 1;
		size += measure(text.data, text.len, depth + 1);
	}
	if (value.kind == CVX_KIND_ARRAY && n > MAX_ELEMENTS)
		fail_limit("elements in an array", MAX_ELEMENTS);
	if (value.kind == CVX_KIND_OBJECT && depth == 1 &&
		n - nsystem > MAX_FIELDS - SYSTEM_FIELDS)
		fail_limit("fields", MAX_FIELDS - SYSTEM_FIELDS);
	if (value.kind == CVX_KIND_OBJECT && n > MAX_FIELDS)
		fail_limit("fields in an object", MAX_FIELDS);
	return size;
}
