/*
 * page.c
 *		What did a snapshot or delta answer say?
 *
 * One pass over the body checks that it is JSON in UTF-8, that every document
 * belongs to a table that was asked for, and notes where the wanted fields
 * are.  No row is given out before the whole page has passed.  The values
 * themselves stay text: rowmap.c converts those that are needed.  Whether a
 * page follows the one before it is walk.c's question.
 *
 * Room: protocol 2.1
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/memutils.h"

#include "ground/redact.h"
#include "protocol/page.h"

/*
 * The server's page size, and some fields of each; more make the arrays grow.
 * They grow with what is in the text, never with what is not.
 */
#define FIRST_DOCS		1024
#define FIRST_VALUES	8192

/* A page's cursor is this near to its end. */
#define PEEK_BYTES	1024

typedef struct Parser
{
	/* fixed */
	CvxJson		json;
	const CvxPageWant *want;
	CvxPage    *page;
	size_t		ndocs_allocated;
	size_t		nvalues_allocated;

	char	  **quoted;			/* "name": of each wanted field; or NULL */
	int		   *quoted_lens;

	bool		is_plain;		/* documents have nothing beside their fields */
	int64		max_ts;			/* of the documents so far */

	/* per document */
	int			guess;			/* the field that probably comes next */
	bool		has_ts;
	bool		has_deleted;
	bool		is_checked;		/* its table is that of a known head */
	int			last_table;		/* index in want->tables of the last match */

	/* the head of a document that passed: all bytes before its _ts's value */
	const char *head;
	int			head_len;		/* 0: none yet */
	CvxSpan		head_component;
	CvxSpan		head_table;
} Parser;

/* What documents carry beside their fields. */
typedef enum Meta
{
	META_NONE,
	META_COMPONENT,
	META_TABLE,
	META_TS,
	META_DELETED
} Meta;

CVX_NORETURN static void fail_shape(Parser *parser, const char *problem);
static void see_once(Parser *parser, bool *is_seen);
static void document_once(Parser *parser, bool is_seen);
static char *read_cursor(Parser *parser);
static void parse_values(Parser *parser);
static void parse_document(Parser *parser);
static bool skip_head(Parser *parser, CvxDoc *doc);
static inline int guess_field(Parser *parser, bool is_first);
static void quote_fields(Parser *parser);
static CvxSpan read_id(Parser *parser, const CvxText *value);
static Meta find_meta(const CvxText *name);
static int	find_field(Parser *parser, const CvxText *name);
static int	compare_field(const CvxPageWant *want, int i, const char *name,
						  size_t len);
static void read_meta(Parser *parser, Meta meta, CvxDoc *doc);
static CvxSpan read_plain_string(Parser *parser);
static void check_document(Parser *parser, const CvxDoc *doc);
static inline void add_value(Parser *parser, CvxDoc *doc, int field,
							 const CvxText *value);
static CvxDoc *next_document(Parser *parser);

static inline CvxSpan
span_of(Parser *parser, const char *data, size_t len)
{
	CvxSpan		span;

	span.offset = (uint32) (data - parser->json.start);
	span.len = (uint32) len;
	return span;
}

static inline bool
is_span(const CvxPage *page, CvxSpan span, const char *text)
{
	return strlen(text) == span.len &&
		memcmp(page->text + span.offset, text, span.len) == 0;
}

static inline bool
is_name(const CvxText *name, const char *text, size_t len)
{
	return name->len == len && memcmp(name->data, text, len) == 0;
}

#define IS_NAME(name, literal) is_name(name, "" literal, sizeof(literal) - 1)

/*
 * Parse an answer of list_snapshot or document_deltas.  The page lives in the
 * current context and points into the body.  Throws HV00M for anything that is
 * not such an answer, and for rows of a table that was not asked for.
 */
CvxPage *
cvx_page_parse(const char *body, size_t len, const CvxPageWant *want)
{
	Parser		parser = {0};
	CvxPage    *page = palloc0(sizeof(CvxPage));
	CvxText		name;
	bool		has_values = false;
	bool		has_more = false;
	bool		has_ts = false;
	bool		has_cursor = false;
	bool		is_first = true;

	page->text = body;
	page->fields = want->fields;
	page->nfields = want->nfields;
	parser.want = want;
	parser.page = page;
	quote_fields(&parser);
	cvx_json_begin(&parser.json, body, len);
	if (len > PG_UINT32_MAX)
		cvx_json_fail(&parser.json, "longer than 4 GB");
	cvx_json_check_utf8(&parser.json);

	cvx_json_open(&parser.json, '{');
	for (; cvx_json_member(&parser.json, &name, is_first); is_first = false)
	{
		CHECK_FOR_INTERRUPTS();
		if (IS_NAME(&name, "values"))
		{
			see_once(&parser, &has_values);
			parse_values(&parser);
		}
		else if (IS_NAME(&name, "hasMore"))
		{
			see_once(&parser, &has_more);
			page->has_more = cvx_json_bool(&parser.json);
		}
		else if (want->is_delta ? IS_NAME(&name, "cursor") :
				 IS_NAME(&name, "snapshot"))
		{
			see_once(&parser, &has_ts);
			page->ts = cvx_json_int64(&parser.json);
		}
		else if (IS_NAME(&name, "cursor"))
		{
			see_once(&parser, &has_cursor);
			page->cursor = read_cursor(&parser);
		}
		else
			cvx_json_skip(&parser.json, NULL);
	}
	cvx_json_end(&parser.json);
	if (!has_values || !has_more || !has_ts)
		fail_shape(&parser, "a page without values, hasMore or its timestamp");
	if (page->ts < 0 || (page->ts == 0 && !want->is_delta))
		fail_shape(&parser, "an impossible timestamp");
	if (page->has_more && !want->is_delta && page->cursor == NULL)
		fail_shape(&parser, "more pages but no cursor");
	if (!page->has_more && page->cursor != NULL)
		fail_shape(&parser, "no more pages but a cursor");
	if (!want->is_delta && parser.max_ts > page->ts)
		fail_shape(&parser, "a document that is newer than its snapshot");
	return page;
}

/*
 * Where the next page begins, as the end of a page that has more says it, in
 * the current context; for asking ahead, before the page is parsed.  False
 * when the end is not of the usual shape.  Does not throw.
 */
bool
cvx_page_peek(const char *body, size_t len, bool is_delta, int64 *ts,
			  char **cursor)
{
	static const char last[] = ",\"hasMore\":true}";
	static const char name[] = "\"cursor\":";
	const char *end = body + len - (sizeof(last) - 1);
	const char *value = NULL;
	char	   *out;

	if (len < sizeof(last) - 1 || memcmp(end, last, sizeof(last) - 1) != 0)
		return false;
	for (const char *p = end - (sizeof(name) - 1);
		 p >= body && end - p < PEEK_BYTES && value == NULL; p--)
		if (memcmp(p, name, sizeof(name) - 1) == 0)
			value = p + sizeof(name) - 1;
	if (value == NULL || value == end)
		return false;
	if (is_delta)
	{
		char	   *rest;

		errno = 0;
		*ts = (int64) strtoll(value, &rest, 10);
		return errno == 0 && rest == end && *ts > 0;
	}

	/* A string, whose escapes are those of the JSON that a cursor is. */
	if (end - value < 3 || *value != '"' || end[-1] != '"')
		return false;
	*cursor = out = palloc(end - value);
	for (const char *p = value + 1; p < end - 1; p++)
	{
		if (*p == '\\' && ++p < end - 1 && *p != '"' && *p != '\\')
			return false;
		if (*p < ' ' || *p > '~')
			return false;
		*out++ = *p;
	}
	*out = '\0';
	return true;
}

/* Where the wanted fields of a document are; len 0: it lacks one. */
void
cvx_page_spans(const CvxPage *page, const CvxDoc *doc, CvxSpan *spans)
{
	const CvxFieldSpan *values = page->values + doc->first_value;

	memset(spans, 0, sizeof(CvxSpan) * page->nfields);
	for (uint32 i = 0; i < doc->nvalues; i++)
		spans[values[i].field] = values[i].span;
}

/*
 * Is this member of a document's object one of the document's own fields, and
 * not something that the endpoint added?  It may come to add more than it does
 * today; documents themselves have no other names that begin with "_".
 */
bool
cvx_page_is_document_member(const CvxText *name)
{
	return name->len == 0 || name->data[0] != '_' ||
		IS_NAME(name, "_id") || IS_NAME(name, "_creationTime");
}

/* A page says each thing once. */
static void
see_once(Parser *parser, bool *is_seen)
{
	if (*is_seen)
		fail_shape(parser, "a page that says the same twice");
	*is_seen = true;
}

/* And so does a document of what it carries beside its fields. */
static void
document_once(Parser *parser, bool is_seen)
{
	if (is_seen)
		cvx_json_fail(&parser->json, "a document that says the same twice");
}

/* The cursor of a snapshot walk: a text to send back as it is, or null. */
static char *
read_cursor(Parser *parser)
{
	CvxText		text;
	char	   *cursor;
	bool		has_nul = false;
	size_t		len;

	if (cvx_json_peek(&parser->json) == 'n')
	{
		cvx_json_skip(&parser->json, NULL);
		return NULL;
	}
	cvx_json_string(&parser->json, &text);
	cursor = palloc(text.len + 1);
	len = cvx_json_unescape(&text, cursor, &has_nul);
	cursor[len] = '\0';
	if (has_nul || len == 0)
		fail_shape(parser, "an impossible cursor");
	return cursor;
}

/* JSON, but not an answer of this endpoint. */
static void
fail_shape(Parser *parser, const char *problem)
{
	parser->json.p = parser->json.start;
	cvx_json_fail(&parser->json, problem);
}

static void
parse_values(Parser *parser)
{
	bool		is_first = true;

	cvx_json_open(&parser->json, '[');
	for (; cvx_json_element(&parser->json, is_first); is_first = false)
		parse_document(parser);
}

/*
 * A page of documents that a function of Convex has given, with nothing beside
 * their fields: list is an array of documents and nulls, within a body that is
 * known to be UTF-8.  *nelements counts both.  In the current context; points
 * into the body.  Throws HV00M for anything else.
 */
CvxPage *
cvx_page_of_documents(const char *body, const CvxText *list, int64 ts,
					  const CvxPageWant *want, int *nelements)
{
	Parser		parser = {0};
	CvxPage    *page = palloc0(sizeof(CvxPage));
	bool		is_first = true;

	page->text = body;
	page->fields = want->fields;
	page->nfields = want->nfields;
	page->ts = ts;
	parser.want = want;
	parser.page = page;
	parser.is_plain = true;
	quote_fields(&parser);
	cvx_json_within(&parser.json, list->data, list->len);
	parser.json.start = body;
	*nelements = 0;
	cvx_json_open(&parser.json, '[');
	for (; cvx_json_element(&parser.json, is_first); is_first = false)
	{
		(*nelements)++;
		if (cvx_json_peek(&parser.json) == 'n')
			cvx_json_skip(&parser.json, NULL);
		else
			parse_document(&parser);
	}
	return page;
}

static void
parse_document(Parser *parser)
{
	CvxJson    *json = &parser->json;
	CvxDoc	   *doc = next_document(parser);
	CvxText		name;
	CvxText		value;
	bool		is_first = true;
	const char *begin;
	const char *head_end = NULL;
	int			nmembers = 0;

	cvx_json_peek(json);
	begin = json->p;
	parser->guess = 0;
	parser->has_ts = parser->has_deleted = parser->is_checked = false;
	if (skip_head(parser, doc))
		is_first = false;
	else
		cvx_json_open(json, '{');
	for (;; is_first = false)
	{
		int			field = guess_field(parser, is_first);
		Meta		meta;

		if ((++nmembers & 1023) == 0)
			CHECK_FOR_INTERRUPTS();
		if (field < 0)
		{
			if (!cvx_json_member(json, &name, is_first))
				break;
			meta = find_meta(&name);
			if (meta != META_NONE)
			{
				/* Only _component and _table may have come before. */
				if (meta == META_TS && nmembers == 3 && doc->table.len > 0 &&
					doc->component.offset > 0)
				{
					cvx_json_peek(json);
					head_end = json->p;
				}
				read_meta(parser, meta, doc);
				continue;
			}
			field = find_field(parser, &name);
		}
		else
		{
			name.data = parser->want->fields[field];
			name.len = parser->want->field_lens[field];
		}
		cvx_json_skip(json, &value);
		if (field >= 0)
			add_value(parser, doc, field, &value);
		else
			doc->nothers++;
		if (IS_NAME(&name, "_id"))
		{
			document_once(parser, doc->id.len > 0);
			doc->id = read_id(parser, &value);
		}
	}
	doc->document = span_of(parser, begin, json->p - begin);
	check_document(parser, doc);

	/* Both names must be those in the head, not later ones. */
	if (head_end != NULL && parser->head_len == 0 &&
		json->start + doc->component.offset < head_end &&
		json->start + doc->table.offset < head_end)
	{
		parser->head = begin;
		parser->head_len = head_end - begin;
		parser->head_component = doc->component;
		parser->head_table = doc->table;
	}
}

/*
 * Documents of one table begin alike.  When this one begins with the bytes of
 * one that passed, go on behind them, with its _ts.
 */
static bool
skip_head(Parser *parser, CvxDoc *doc)
{
	CvxJson    *json = &parser->json;
	uint32		shift;

	if (parser->head_len == 0 || json->end - json->p <= parser->head_len ||
		memcmp(json->p, parser->head, parser->head_len) != 0)
		return false;
	shift = (uint32) (json->p - parser->head);
	doc->component = parser->head_component;
	doc->component.offset += shift;
	doc->table = parser->head_table;
	doc->table.offset += shift;
	json->p += parser->head_len;
	json->depth++;
	read_meta(parser, META_TS, doc);
	parser->is_checked = true;
	return true;
}

/*
 * Is the next member the wanted field that probably comes next?  Then its name
 * has been passed.  Anything unusual gives -1 and is read the long way.
 */
static inline int
guess_field(Parser *parser, bool is_first)
{
	CvxJson    *json = &parser->json;
	const char *p = json->p;
	int			field = parser->guess;

	if (field >= parser->want->nfields || parser->quoted[field] == NULL)
		return -1;
	if (!is_first && *p++ != ',')
		return -1;
	if (json->end - p <= parser->quoted_lens[field] ||
		memcmp(p, parser->quoted[field], parser->quoted_lens[field]) != 0)
		return -1;
	json->p = p + parser->quoted_lens[field];
	parser->guess = field + 1;
	return field;
}

/* The wanted fields as they mostly stand in the text. */
static void
quote_fields(Parser *parser)
{
	const CvxPageWant *want = parser->want;

	parser->quoted = palloc(sizeof(char *) * Max(want->nfields, 1));
	parser->quoted_lens = palloc(sizeof(int) * Max(want->nfields, 1));
	for (int i = 0; i < want->nfields; i++)
	{
		bool		is_plain = strpbrk(want->fields[i], "\"\\") == NULL;

		parser->quoted[i] = is_plain ? psprintf("\"%s\":", want->fields[i]) :
			NULL;
		parser->quoted_lens[i] = want->field_lens[i] + 3;
	}
}

static CvxSpan
read_id(Parser *parser, const CvxText *value)
{
	if (value->len < 3 || value->data[0] != '"' ||
		memchr(value->data, '\\', value->len) != NULL)
		cvx_json_fail(&parser->json, "a document's _id is no plain string");
	return span_of(parser, value->data + 1, value->len - 2);
}

static Meta
find_meta(const CvxText *name)
{
	if (name->len == 0 || name->data[0] != '_')
		return META_NONE;
	if (IS_NAME(name, "_component"))
		return META_COMPONENT;
	if (IS_NAME(name, "_table"))
		return META_TABLE;
	if (IS_NAME(name, "_ts"))
		return META_TS;
	if (IS_NAME(name, "_deleted"))
		return META_DELETED;
	return META_NONE;
}

static void
read_meta(Parser *parser, Meta meta, CvxDoc *doc)
{
	switch (meta)
	{
		case META_COMPONENT:
			document_once(parser, doc->component.offset > 0);
			doc->component = read_plain_string(parser);
			break;
		case META_TABLE:
			document_once(parser, doc->table.len > 0);
			doc->table = read_plain_string(parser);
			break;
		case META_TS:
			document_once(parser, parser->has_ts);
			doc->ts = cvx_json_int64(&parser->json);
			parser->has_ts = true;
			if (doc->ts <= 0)
				cvx_json_fail(&parser->json, "a document with an impossible timestamp");
			parser->max_ts = Max(parser->max_ts, doc->ts);
			break;
		case META_DELETED:
			document_once(parser, parser->has_deleted);
			doc->is_deleted = cvx_json_bool(&parser->json);
			parser->has_deleted = true;
			break;
		case META_NONE:
			break;
	}
}

/* A name of a component or a table: identifiers, so never escaped. */
static CvxSpan
read_plain_string(Parser *parser)
{
	CvxText		text;

	cvx_json_string(&parser->json, &text);
	if (text.is_escaped)
		cvx_json_fail(&parser->json, "a table's name is no identifier");
	return span_of(parser, text.data, text.len);
}

/*
 * Which wanted field is this?  -1: none.  Fields come in byte order, and so do
 * the wanted ones: the next is mostly the right guess.
 */
static int
find_field(Parser *parser, const CvxText *name)
{
	const CvxPageWant *want = parser->want;
	const char *text = name->data;
	size_t		len = name->len;
	char	   *copy = NULL;
	int			low = 0;
	int			high = want->nfields - 1;
	int			found = -1;

	if (want->nfields == 0)
		return -1;
	if (name->is_escaped)
	{
		bool		has_nul;

		copy = palloc(len + 1);
		len = cvx_json_unescape(name, copy, &has_nul);
		text = copy;
	}
	if (parser->guess < want->nfields &&
		compare_field(want, parser->guess, text, len) == 0)
		found = parser->guess;
	while (found < 0 && low <= high)
	{
		int			middle = (low + high) / 2;
		int			order = compare_field(want, middle, text, len);

		if (order == 0)
			found = middle;
		else if (order < 0)
			low = middle + 1;
		else
			high = middle - 1;
	}
	if (found >= 0)
		parser->guess = found + 1;
	if (copy)
		pfree(copy);
	return found;
}

static int
compare_field(const CvxPageWant *want, int i, const char *name, size_t len)
{
	size_t		have = want->field_lens[i];
	int			order = memcmp(want->fields[i], name, Min(have, len));

	return order != 0 ? order : (have > len) - (have < len);
}

/* Throws unless the document is complete and of a table that was asked for. */
static void
check_document(Parser *parser, const CvxDoc *doc)
{
	const CvxPageWant *want = parser->want;
	const CvxPage *page = parser->page;

	if (parser->is_plain && doc->id.len == 0)
		cvx_json_fail(&parser->json, "a document without _id");
	if (parser->is_plain)
		return;
	if (doc->id.len == 0 || doc->table.len == 0 || !parser->has_ts ||
		doc->component.offset == 0)
		cvx_json_fail(&parser->json, "a document without _id, _table, _component or _ts");

	/* Only changes have it, and each one has. */
	if (parser->has_deleted ? doc->is_deleted && !want->is_delta :
		want->is_delta)
		cvx_json_fail(&parser->json, want->is_delta ?
					  "a change without _deleted" :
					  "a document that is deleted in a snapshot");

	if (want->ntables == 0 || parser->is_checked)
		return;
	for (int i = 0; i < want->ntables; i++)
	{
		int			candidate = (parser->last_table + i) % want->ntables;

		if ((want->tables[candidate].table == NULL ||
			 is_span(page, doc->table, want->tables[candidate].table)) &&
			is_span(page, doc->component, want->tables[candidate].component))
		{
			parser->last_table = candidate;
			return;
		}
	}
	ereport(ERROR,
			(errcode(ERRCODE_FDW_UNABLE_TO_CREATE_REPLY),
			 errmsg("Convex server sent a document of table \"%s\", which was not asked for",
					cvx_redact_excerpt(page->text + doc->table.offset,
									   doc->table.len)),
			 errdetail("Component \"%s\", table \"%s\" was received; component \"%s\", table \"%s\" was asked for.",
					   cvx_redact_excerpt(page->text + doc->component.offset,
										  doc->component.len),
					   cvx_redact_excerpt(page->text + doc->table.offset,
										  doc->table.len),
					   cvx_redact_excerpt(want->tables[0].component,
										  strlen(want->tables[0].component)),
					   want->tables[0].table == NULL ? "*" :
					   cvx_redact_excerpt(want->tables[0].table,
										  strlen(want->tables[0].table))),
			 errhint("The server does not obey the selection of tables: update it.")));
}

/* Note where a wanted field is; of two of the same name the last one counts. */
static inline void
add_value(Parser *parser, CvxDoc *doc, int field, const CvxText *value)
{
	CvxPage    *page = parser->page;
	CvxFieldSpan *entry;

	if (page->nvalues == parser->nvalues_allocated)
	{
		size_t		n = Max(parser->nvalues_allocated * 2, FIRST_VALUES);

		page->values = page->values == NULL ?
			palloc_extended(n * sizeof(CvxFieldSpan), MCXT_ALLOC_HUGE) :
			repalloc_huge(page->values, n * sizeof(CvxFieldSpan));
		parser->nvalues_allocated = n;
	}
	entry = &page->values[page->nvalues++];
	entry->field = field;
	entry->span = span_of(parser, value->data, value->len);
	doc->nvalues++;
}

/* Make room for one more document, zeroed. */
static CvxDoc *
next_document(Parser *parser)
{
	CvxPage    *page = parser->page;
	CvxDoc	   *doc;

	CHECK_FOR_INTERRUPTS();
	if (page->ndocs == parser->ndocs_allocated)
	{
		size_t		n = Max(parser->ndocs_allocated * 2, FIRST_DOCS);

		page->docs = page->docs == NULL ?
			palloc_extended(n * sizeof(CvxDoc), MCXT_ALLOC_HUGE) :
			repalloc_huge(page->docs, n * sizeof(CvxDoc));
		parser->ndocs_allocated = n;
	}
	doc = &page->docs[page->ndocs];
	memset(doc, 0, sizeof(CvxDoc));
	doc->first_value = page->nvalues;
	page->ndocs++;
	return doc;
}

/*
 * A page of one document that did not come from an answer: what pending writes
 * make of a row.  It may lack an _id.  In the current context; points into the
 * document.
 */
CvxPage *
cvx_page_of_document(const char *doc, size_t len, const CvxPageWant *want)
{
	CvxPage    *page = palloc0(sizeof(CvxPage));
	CvxJson		json;
	CvxText		name;
	CvxText		value;
	bool		is_first = true;

	page->text = doc;
	page->ndocs = 1;
	page->docs = palloc0(sizeof(CvxDoc));
	page->fields = want->fields;
	page->nfields = want->nfields;
	page->values = palloc0(sizeof(CvxFieldSpan) * Max(want->nfields, 1));
	page->nvalues = page->docs[0].nvalues = want->nfields;
	page->docs[0].document.len = (uint32) len;
	for (int i = 0; i < want->nfields; i++)
		page->values[i].field = i;
	cvx_json_within(&json, doc, len);
	cvx_json_open(&json, '{');
	for (; cvx_json_member(&json, &name, is_first); is_first = false)
	{
		cvx_json_skip(&json, &value);
		if (IS_NAME(&name, "_id") && value.len > 2)
		{
			page->docs[0].id.offset = (uint32) (value.data + 1 - doc);
			page->docs[0].id.len = (uint32) value.len - 2;
		}
		for (int i = 0; i < want->nfields; i++)
		{
			if (!cvx_json_equals(&name, want->fields[i], want->field_lens[i]))
				continue;
			page->values[i].span.offset = (uint32) (value.data - doc);
			page->values[i].span.len = (uint32) value.len;
		}
	}
	return page;
}
