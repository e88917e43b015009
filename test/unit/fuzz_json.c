/*
 * fuzz_json.c
 *		json.c, page.c and redact.c's excerpts against hostile texts.
 *
 * Built without a server, so that it can run under the sanitizers:
 *
 *	fuzz_json run SECONDS SEED		mutates its own corpus
 *	fuzz_json file NAME...			tries these texts
 *	fuzz_json read < LINES			one hex text a line; prints what was read
 *
 * With -DFUZZ_LIBFUZZER only LLVMFuzzerTestOneInput is left, for clang's
 * -fsanitize=fuzzer.  A broken promise aborts after printing the text.
 *
 * The promises: nothing is read outside the text; skipping and walking accept
 * the same texts; what is walked, written and walked again is the same; numbers
 * are those of strtod and strtoll; strings unescape to UTF-8 that is not longer;
 * a page holds what a slow reader finds in it; every refusal is HV00M and its
 * words are short, printable and without the key.
 */
#include "postgres.h"

#include <ctype.h>
#include <math.h>
#include <setjmp.h>
#include <signal.h>
#include <time.h>

#include "mb/pg_wchar.h"
#include "utils/memutils.h"

#include "ground/error.h"
#include "wire/json.h"
#include "protocol/page.h"
#include "ground/redact.h"

/* ------------------------------------------------------------------------
 * As much of the server as the files under test use
 * ------------------------------------------------------------------------
 */

typedef struct Piece
{
	struct Piece *next;
	long double data[];
} Piece;

static Piece *pieces = NULL;
static sigjmp_buf *catcher = NULL;
static int	raised_code;
static char *raised_words[3];
static int	nraised_words;
static const char *current_text;
static size_t current_len;

MemoryContext CurrentMemoryContext = NULL;
MemoryContext TopMemoryContext = NULL;
ErrorContextCallback *error_context_stack = NULL;
volatile sig_atomic_t InterruptPending = false;

static void
die(const char *promise)
{
	fprintf(stderr, "broken promise: %s\ntext of %zu bytes:", promise,
			current_len);
	for (size_t i = 0; i < current_len && i < 4096; i++)
		fprintf(stderr, "%s%02x", i % 32 == 0 ? "\n" : "",
				(unsigned char) current_text[i]);
	fprintf(stderr, "\n%.*s\n", (int) Min(current_len, 4096), current_text);
	abort();
}

#define PROMISE(condition) \
	((condition) ? (void) 0 : die(#condition))

void *
palloc(Size size)
{
	Piece	   *piece = malloc(offsetof(Piece, data) + size);

	if (piece == NULL)
		abort();
	piece->next = pieces;
	pieces = piece;
	return piece->data;
}

static void
free_pieces(void)
{
	while (pieces)
	{
		Piece	   *piece = pieces;

		pieces = piece->next;
		free(piece);
	}
}

/* What is to outlive the text; nobody gives it back. */
void *
MemoryContextAlloc(MemoryContext context, Size size)
{
	void	   *result = malloc(size);

	if (result == NULL)
		abort();
	return result;
}

void *
palloc0(Size size)
{
	return memset(palloc(size), 0, size);
}

void *
palloc_extended(Size size, int flags)
{
	return flags & MCXT_ALLOC_ZERO ? palloc0(size) : palloc(size);
}

/* Moves always, so that stale pointers show. */
void *
repalloc_huge(void *old, Size size)
{
	Piece	   *piece = (Piece *) ((char *) old - offsetof(Piece, data));
	Piece	  **link = &pieces;

	while (*link != piece)
		link = &(*link)->next;
	*link = piece->next;
	piece = realloc(piece, offsetof(Piece, data) + size);
	if (piece == NULL)
		abort();
	piece->next = pieces;
	pieces = piece;
	return piece->data;
}

void *
repalloc(void *old, Size size)
{
	return repalloc_huge(old, size);
}

void
pfree(void *old)
{
	Piece	   *piece = (Piece *) ((char *) old - offsetof(Piece, data));
	Piece	  **link = &pieces;

	while (*link != piece)
		link = &(*link)->next;
	*link = piece->next;
	free(piece);
}

char *
pnstrdup(const char *text, Size len)
{
	char	   *copy;

	len = strnlen(text, len);
	copy = memcpy(palloc(len + 1), text, len);
	copy[len] = '\0';
	return copy;
}

char *
pstrdup(const char *text)
{
	return pnstrdup(text, strlen(text));
}

static char *
format(const char *fmt, va_list args)
{
	va_list		again;
	char	   *result;
	int			len;

	va_copy(again, args);
	len = vsnprintf(NULL, 0, fmt, again);
	va_end(again);
	result = palloc(len + 1);
	vsnprintf(result, len + 1, fmt, args);
	return result;
}

char *
psprintf(const char *fmt,...)
{
	va_list		args;
	char	   *result;

	va_start(args, fmt);
	result = format(fmt, args);
	va_end(args);
	return result;
}

void
initStringInfo(StringInfo str)
{
	str->data = palloc(16);
	str->maxlen = 16;
	str->len = str->cursor = 0;
	str->data[0] = '\0';
}

void
resetStringInfo(StringInfo str)
{
	str->len = str->cursor = 0;
	str->data[0] = '\0';
}

void
enlargeStringInfo(StringInfo str, int needed)
{
	while (str->maxlen <= str->len + needed)
	{
		str->maxlen *= 2;
		str->data = repalloc(str->data, str->maxlen);
	}
}

void
appendBinaryStringInfo(StringInfo str, const
#if PG_VERSION_NUM >= 160000
					   void *
#else
					   char *
#endif
					   data, int len)
{
	enlargeStringInfo(str, len);
	memcpy(str->data + str->len, data, len);
	str->len += len;
	str->data[str->len] = '\0';
}

void
appendStringInfoString(StringInfo str, const char *text)
{
	appendBinaryStringInfo(str, text, strlen(text));
}

void
appendStringInfoChar(StringInfo str, char c)
{
	appendBinaryStringInfo(str, &c, 1);
}

void
appendStringInfo(StringInfo str, const char *fmt,...)
{
	va_list		args;

	va_start(args, fmt);
	appendStringInfoString(str, format(fmt, args));
	va_end(args);
}

bool
errstart(int elevel, const char *domain)
{
	raised_code = 0;
	nraised_words = 0;
	return elevel >= ERROR;
}

bool
errstart_cold(int elevel, const char *domain)
{
	return errstart(elevel, domain);
}

int
errcode(int sqlerrcode)
{
	raised_code = sqlerrcode;
	return 0;
}

int
geterrcode(void)
{
	return raised_code;
}

#define TELL(name) \
int \
name(const char *fmt,...) \
{ \
	va_list		args; \
\
	va_start(args, fmt); \
	if (nraised_words < lengthof(raised_words)) \
		raised_words[nraised_words++] = format(fmt, args); \
	va_end(args); \
	return 0; \
}

TELL(errmsg)
TELL(errmsg_internal)
TELL(errdetail)
TELL(errdetail_internal)
TELL(errhint)
TELL(errcontext_msg)

int
set_errcontext_domain(const char *domain)
{
	return 0;
}

void
errfinish(const char *filename, int lineno, const char *funcname)
{
	if (catcher == NULL)
		die("nothing is raised here");
	siglongjmp(*catcher, 1);
}

void
ExceptionalCondition(const char *conditionName,
#if PG_VERSION_NUM < 160000
					 const char *errorType,
#endif
					 const char *fileName, int lineNumber)
{
	die(conditionName);
	abort();
}

void
ProcessInterrupts(void)
{
}

int
GetDatabaseEncoding(void)
{
	return PG_UTF8;
}

char *
pg_any_to_server(const char *s, int len, int encoding)
{
	if (pg_encoding_verifymbstr(PG_UTF8, s, len) != len)
		ereport(ERROR, (errcode(ERRCODE_CHARACTER_NOT_IN_REPERTOIRE),
						errmsg("not UTF-8")));
	return unconstify(char *, s);
}

/* For what is not called here. */
MemoryContext
AllocSetContextCreateInternal(MemoryContext parent, const char *name,
							  Size minContextSize, Size initBlockSize,
							  Size maxBlockSize)
{
	return NULL;
}

void
MemoryContextDelete(MemoryContext context)
{
}

ErrorData *
CopyErrorData(void)
{
	abort();
}

int
pg_mbcliplen(const char *mbstr, int len, int limit)
{
	abort();
}

/* ------------------------------------------------------------------------
 * The promises
 * ------------------------------------------------------------------------
 */

/* A key in two pieces, so that no text of ours holds it by itself. */
static const char secret[] = "prod:happy-otter-123|" "0123456789abcdef";

/* Was the text accepted?  Otherwise the refusal is looked at. */
#define TRY(accepted, statements) \
	do { \
		sigjmp_buf	here; \
		sigjmp_buf *outer = catcher; \
\
		catcher = &here; \
		if (sigsetjmp(here, 0) == 0) \
		{ \
			statements; \
			accepted = true; \
		} \
		else \
		{ \
			accepted = false; \
			check_refusal(); \
		} \
		catcher = outer; \
	} while (0)

static void
check_words(const char *words)
{
	size_t		len = strlen(words);

	PROMISE(len < 2000);
	PROMISE(pg_encoding_verifymbstr(PG_UTF8, words, len) == len);
	for (size_t i = 0; i < len; i++)
		PROMISE((unsigned char) words[i] >= ' ' && words[i] != 0x7f);
}

static void
check_refusal(void)
{
	PROMISE(raised_code == ERRCODE_FDW_UNABLE_TO_CREATE_REPLY);
	for (int i = 0; i < nraised_words; i++)
		check_words(raised_words[i]);
}

/* A copy that ends exactly where it ends, for the sanitizer to watch. */
static char *
exact(const char *data, size_t len)
{
	return memcpy(palloc(len), data, len);
}

static void
check_number(const char *data, size_t len)
{
	char	   *copy = pnstrdup(data, len);
	char	   *end;
	double		wanted = strtod(copy, &end);
	double		value = 0;
	bool		is_finite = cvx_json_number(exact(data, len), len, &value);
	bool		is_integer;
	int64		integer = 0;
	CvxJson		json;

	PROMISE(*end == '\0');
	PROMISE(is_finite == !isinf(wanted));
	if (is_finite)
		PROMISE(memcmp(&value, &wanted, sizeof(value)) == 0);

	cvx_json_within(&json, copy, len);
	TRY(is_integer, integer = cvx_json_int64(&json));
	errno = 0;
	if (copy[strspn(copy, "-0123456789")] != '\0' ||
		(strtoll(copy, NULL, 10), errno == ERANGE))
		PROMISE(!is_integer);
	else
		PROMISE(is_integer && integer == strtoll(copy, NULL, 10));
}

static void
walk_string(const CvxText *string, StringInfo out, bool is_utf8)
{
	char	   *text = palloc(Max(string->len, 1));
	bool		has_nul;
	size_t		len = cvx_json_unescape(string, text, &has_nul);

	PROMISE(len <= string->len);
	PROMISE(has_nul == (memchr(text, '\0', len) != NULL));
	PROMISE(string->is_escaped == (memchr(string->data, '\\', string->len) != NULL));
	PROMISE(cvx_json_equals(string, text, len));
	PROMISE(len == 0 || !cvx_json_equals(string, text, len - 1));
	if (is_utf8 && !has_nul)
	{
		PROMISE(pg_encoding_verifymbstr(PG_UTF8, text, len) == len);
		PROMISE(strlen(cvx_json_cstring(string)) == len);
	}
	cvx_json_write_string(out, text, len);
}

/* Read a value piece by piece and write it again. */
static void
walk(CvxJson *json, StringInfo out, bool is_utf8)
{
	char		c = cvx_json_peek(json);
	bool		is_first = true;
	CvxText		text;

	switch (c)
	{
		case '{':
			cvx_json_open(json, c);
			appendStringInfoChar(out, c);
			for (; cvx_json_member(json, &text, is_first); is_first = false)
			{
				if (!is_first)
					appendStringInfoChar(out, ',');
				walk_string(&text, out, is_utf8);
				appendStringInfoChar(out, ':');
				walk(json, out, is_utf8);
			}
			appendStringInfoChar(out, '}');
			break;
		case '[':
			cvx_json_open(json, c);
			appendStringInfoChar(out, c);
			for (; cvx_json_element(json, is_first); is_first = false)
			{
				if (!is_first)
					appendStringInfoChar(out, ',');
				walk(json, out, is_utf8);
			}
			appendStringInfoChar(out, ']');
			break;
		case '"':
			cvx_json_string(json, &text);
			walk_string(&text, out, is_utf8);
			break;
		case 't':
		case 'f':
			appendStringInfoString(out, cvx_json_bool(json) ? "true" : "false");
			break;
		default:
			cvx_json_skip(json, &text);
			PROMISE(text.len > 0);
			if (c != 'n')
				check_number(text.data, text.len);
			appendBinaryStringInfo(out, text.data, text.len);
	}
}

static bool
walk_all(const char *data, size_t len, StringInfo out, bool is_utf8)
{
	CvxJson		json;
	bool		accepted;

	initStringInfo(out);
	cvx_json_begin(&json, data, len);
	TRY(accepted, walk(&json, out, is_utf8); cvx_json_end(&json); PROMISE(json.depth == 0));
	return accepted;
}

static bool
skip_all(const char *data, size_t len)
{
	CvxJson		json;
	CvxText		text;
	bool		accepted;

	cvx_json_begin(&json, data, len);
	TRY(accepted, cvx_json_skip(&json, &text); cvx_json_end(&json); PROMISE(json.depth == 0));
	if (accepted)
		PROMISE(text.data >= data && text.data + text.len <= data + len);
	return accepted;
}

static bool
check_reader(const char *data, size_t len)
{
	bool		is_utf8 = pg_encoding_verifymbstr(PG_UTF8, data, len) == len;
	bool		accepted = skip_all(data, len);
	StringInfoData once;
	StringInfoData twice;

	PROMISE(walk_all(data, len, &once, is_utf8) == accepted);
	if (accepted)
	{
		PROMISE(walk_all(once.data, once.len, &twice, is_utf8));
		PROMISE(once.len == twice.len && memcmp(once.data, twice.data, once.len) == 0);
	}
	return accepted;
}

static const CvxTableName wanted_tables[] = {{"", "users"}, {"billing", "invoices"}};
static const char *const wanted_fields[] = {"_id", "a", "b\"c", "name"};
static const int wanted_field_lens[] = {3, 1, 3, 4};

#define NFIELDS lengthof(wanted_fields)

/* What one document holds, found the slow way. */
typedef struct Found
{
	CvxText		values[NFIELDS];
	CvxText		component;
	CvxText		table;
	CvxText		id;
	CvxText		document;
	int64		ts;
	bool		is_deleted;
} Found;

static bool
is_text(const CvxText *text, const char *wanted)
{
	return text->len == strlen(wanted) && memcmp(text->data, wanted, text->len) == 0;
}

static void
find_document(CvxJson *json, Found *found)
{
	CvxText		name;
	CvxText		value;
	bool		is_first = true;

	memset(found, 0, sizeof(Found));
	cvx_json_peek(json);
	found->document.data = json->p;
	cvx_json_open(json, '{');
	for (; cvx_json_member(json, &name, is_first); is_first = false)
	{
		CvxJson		within;

		cvx_json_skip(json, &value);
		cvx_json_within(&within, value.data, value.len);
		if (is_text(&name, "_ts"))
			found->ts = cvx_json_int64(&within);
		else if (is_text(&name, "_deleted"))
			found->is_deleted = cvx_json_bool(&within);
		else if (is_text(&name, "_component"))
			cvx_json_string(&within, &found->component);
		else if (is_text(&name, "_table"))
			cvx_json_string(&within, &found->table);
		else
		{
			if (is_text(&name, "_id"))
				cvx_json_string(&within, &found->id);
			for (int i = 0; i < NFIELDS; i++)
				if (cvx_json_equals(&name, wanted_fields[i], wanted_field_lens[i]))
					found->values[i] = value;
		}
	}
	found->document.len = json->p - found->document.data;
}

static void
check_span(const CvxPage *page, CvxSpan span, const CvxText *wanted)
{
	PROMISE(span.len == wanted->len);
	PROMISE(wanted->data == NULL || page->text + span.offset == wanted->data);
}

static void
compare_page(const CvxPage *page, const char *data, size_t len, bool is_delta)
{
	CvxJson		json;
	CvxText		name;
	bool		is_first = true;
	int			ndocs = 0;

	cvx_json_begin(&json, data, len);
	cvx_json_open(&json, '{');
	for (; cvx_json_member(&json, &name, is_first); is_first = false)
	{
		bool		is_first_doc = true;

		if (is_text(&name, "hasMore"))
			PROMISE(cvx_json_bool(&json) == page->has_more);
		else if (is_text(&name, is_delta ? "cursor" : "snapshot"))
			PROMISE(cvx_json_int64(&json) == page->ts);
		else if (!is_text(&name, "values"))
			cvx_json_skip(&json, NULL);
		else
		{
			cvx_json_open(&json, '[');
			for (; cvx_json_element(&json, is_first_doc); is_first_doc = false)
			{
				const CvxDoc *doc = &page->docs[ndocs];
				CvxSpan		values[NFIELDS];
				bool		is_asked_for = false;
				Found		found;

				PROMISE(ndocs++ < page->ndocs);
				cvx_page_spans(page, doc, values);
				find_document(&json, &found);
				PROMISE(doc->ts == found.ts);
				PROMISE(doc->is_deleted == found.is_deleted);
				check_span(page, doc->component, &found.component);
				check_span(page, doc->table, &found.table);
				check_span(page, doc->id, &found.id);
				check_span(page, doc->document, &found.document);
				PROMISE(found.id.len > 0);
				for (int i = 0; i < NFIELDS; i++)
					check_span(page, values[i], &found.values[i]);
				for (int i = 0; i < lengthof(wanted_tables); i++)
					is_asked_for |= is_text(&found.table, wanted_tables[i].table) &&
						is_text(&found.component, wanted_tables[i].component);
				PROMISE(is_asked_for);
			}
		}
	}
	PROMISE(ndocs == page->ndocs);
}

static bool
check_page(const char *data, size_t len, bool is_delta)
{
	CvxPageWant want = {
		.is_delta = is_delta, .tables = wanted_tables, .ntables = lengthof(wanted_tables),
		.fields = wanted_fields, .field_lens = wanted_field_lens, .nfields = NFIELDS
	};
	CvxPage    *volatile page = NULL;
	bool		accepted;

	TRY(accepted, page = cvx_page_parse(data, len, &want));
	if (!accepted)
		return false;
	PROMISE(pg_encoding_verifymbstr(PG_UTF8, data, len) == len);
	PROMISE(skip_all(data, len));
	compare_page(page, data, len, is_delta);

	/* Without wanted fields or tables it is the same page. */
	want.nfields = want.ntables = 0;
	TRY(accepted, page = cvx_page_parse(data, len, &want));
	PROMISE(accepted);
	return true;
}

static void
check_excerpt(const char *data, size_t len)
{
	char	   *words;

	cvx_redact_learn(strchr(secret, '|') + 1);
	words = cvx_redact_excerpt(exact(data, len), len);
	check_words(words);
	PROMISE(strcasestr(words, strchr(secret, '|') + 1) == NULL);
}

static uint64 ninputs;
static uint64 naccepted;
static uint64 npages;

int			LLVMFuzzerTestOneInput(const uint8 *data, size_t size);

int
LLVMFuzzerTestOneInput(const uint8 *data, size_t size)
{
	char	   *text = malloc(size + 1);

	memcpy(text, data, size);
	text[size] = '\0';
	current_text = text;
	current_len = size;
	ninputs++;
	naccepted += check_reader(text, size);
	npages += check_page(text, size, false);
	npages += check_page(text, size, true);
	check_excerpt(text, size);
	free_pieces();
	free(text);
	return 0;
}

#ifndef FUZZ_LIBFUZZER

/* ------------------------------------------------------------------------
 * Without libFuzzer
 * ------------------------------------------------------------------------
 */

#define LARGEST_INPUT	4096

static const char *const corpus[] = {
	"{\"values\":[{\"_component\":\"\",\"_table\":\"users\",\"_ts\":1700000000000000000,\"_creationTime\":1.5,\"_id\":\"j57\",\"a\":\"41\",\"name\":\"Eve\"},"
	"{\"_component\":\"\",\"_table\":\"users\",\"_ts\":1700000000000000001,\"_creationTime\":2.5,\"_id\":\"j58\",\"a\":null,\"b\\\"c\":[1,2],\"name\":\"Zo\xc3\xab\"},"
	"{\"_component\":\"billing\",\"_table\":\"invoices\",\"_ts\":3,\"_id\":\"k1\",\"a\":{\"$integer\":\"AQAAAAAAAAA=\"}}],"
	"\"snapshot\":1700000000000000002,\"cursor\":\"{\\\"tablet\\\":\\\"AA\\\"}\",\"hasMore\":true}",
	"{\"values\":[{\"_component\":\"\",\"_table\":\"users\",\"_ts\":1,\"_deleted\":false,\"_id\":\"j57\",\"a\":1},"
	"{\"_component\":\"\",\"_table\":\"users\",\"_ts\":2,\"_deleted\":true,\"_id\":\"j57\"}],\"cursor\":1700000000000000002,\"hasMore\":false}",
	" { \"hasMore\" : false , \"snapshot\" : 7 , \"values\" : [ { \"_id\" : \"x\" , \"_ts\" : 9 , \"_table\" : \"users\" , \"_component\" : \"\" , \"n\\u0061me\" : \"\\ud83d\\ude00\" } ] } ",
	"{\"values\":[{\"_component\":\"\",\"_table\":\"users\",\"name\":\"Eve\",\"_ts\":1,\"_id\":\"j1\"},{\"_component\":\"\",\"_table\":\"users\",\"name\":\"Eve\",\"_ts\":1,\"_id\":\"j2\"}],\"snapshot\":5,\"cursor\":null,\"hasMore\":false}",
	"{\"values\":[],\"snapshot\":5,\"cursor\":null,\"hasMore\":false}",
	"[0,-0,1,-1,0.5,1e5,1E+5,1.25e-7,9007199254740993,1e308,1e309,5e-324,1e-400,123456789012345678901234567890,9223372036854775807,-9223372036854775808,9223372036854775808]",
	"[\"\",\"\\\"\\\\\\/\\b\\f\\n\\r\\t\\u0000\\u001f\\u00e9\\ud83d\\ude00\",\"\xe2\x82\xac \xf0\x9f\x98\x80\",{\"\":{}},[[[]]],true,false,null]",
	"{\"code\":\"BadAdminKey\",\"message\":\"prod:happy-otter-123|" "0123456789abcdef is \x1b[31mbad\"}",
	"<html><body>prod%3Ahappy-otter-123%7C" "0123456789abcdef &#48;&#x31;</body></html>",
	"[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[1"
	"]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]",
};

static const char *const words[] = {
	"{", "}", "[", "]", ",", ":", "\"", "\\", "\\\"", "\\u", "\\u0000", "\\ud83d", "\\ude00", "\\u00e9", "\\/",
	"true", "false", "null", "0", "-", ".", "e", "1e999", "00", " ", "\n", "\t", "\"_ts\":", "\"_table\":\"users\"", "\"_component\":\"\"",
	"\"_id\":\"x\"", "\"a\":1", "\"name\":\"n\"", "\"values\":[", "\"hasMore\":true", "\"cursor\":null", "\"snapshot\":1", "\"_deleted\":true",
	"{\"_component\":\"\",\"_table\":\"users\",\"_ts\":", "\xff", "\xc3", "\xe2\x82\xac", "\xed\xa0\x80", "\xf4\x90\x80\x80", "\x01", "\x7f",
	"9223372036854775807", "9223372036854775808", "aaaaaaaa", "\"\"", "{}", "[]", "\"b\\\"c\":2", "\"\\u0061\":3", "secrets",
};

static uint64 state;

/* splitmix64 */
static uint64
next_random(void)
{
	uint64		z = (state += UINT64CONST(0x9e3779b97f4a7c15));

	z = (z ^ (z >> 30)) * UINT64CONST(0xbf58476d1ce4e5b9);
	z = (z ^ (z >> 27)) * UINT64CONST(0x94d049bb133111eb);
	return z ^ (z >> 31);
}

static size_t
below(size_t n)
{
	return n == 0 ? 0 : next_random() % n;
}

/* Replace some bytes by others; gives the new length. */
static size_t
replace(uint8 *buf, size_t len, size_t at, size_t gone, const void *data, size_t n)
{
	gone = Min(gone, len - at);
	if (len - gone + n > LARGEST_INPUT)
		return len;
	memmove(buf + at + n, buf + at + gone, len - at - gone);
	memmove(buf + at, data, n);
	return len - gone + n;
}

static size_t
mutate(uint8 *buf, size_t len)
{
	uint8		piece[256];
	size_t		at = below(len + 1);
	size_t		n = below(Min(len - at, sizeof(piece)) + 1);
	const char *word = words[below(lengthof(words))];
	uint8		byte = (uint8) next_random();

	switch (below(9))
	{
		case 0:
			return at;			/* cut the end */
		case 1:
			return replace(buf, len, 0, at, "", 0);	/* cut the beginning */
		case 2:
			return replace(buf, len, at, below(8), "", 0);
		case 3:
			return replace(buf, len, at, 1, &byte, 1);
		case 4:
			return replace(buf, len, at, 0, &byte, 1);
		case 5:
		case 6:
			return replace(buf, len, at, below(2) * below(8), word, strlen(word));
		case 7:					/* a piece once more, elsewhere */
			memcpy(piece, buf + at, n);
			return replace(buf, len, below(len + 1), 0, piece, n);
		default:				/* another bit */
			if (at < len)
				buf[at] ^= 1 << below(8);
			return len;
	}
}

/* Documents whose members come in any order, some of them twice. */
static size_t
make_page(uint8 *buf)
{
	static const char *const members[] = {
		"\"_component\":\"\"", "\"_table\":\"users\"", "\"_ts\":1", "\"_ts\":2", "\"_id\":\"x\"", "\"_id\":\"yy\"", "\"a\":1", "\"a\":[2]",
		"\"b\\\"c\":true", "\"name\":\"n\"", "\"name\" : \"m\"", "\"\\u0061\":3", "\"z\":{}", "\"_deleted\":true", "\"_deleted\":false",
		"\"_component\":\"billing\"", "\"_table\":\"invoices\"", "\"_creationTime\":1.5",
	};
	size_t		len = sprintf((char *) buf, "{\"values\":[");
	int			ndocs = below(6);
	int			pattern[12];
	int			npattern = 0;

	for (int d = 0; d < ndocs; d++)
	{
		/* Mostly the members of the last document again. */
		if (d == 0 || below(3) == 0)
		{
			npattern = below(lengthof(pattern)) + 1;
			for (int i = 0; i < npattern; i++)
				pattern[i] = i < 4 && below(4) > 0 ? (int[]) {0, 1, 2, 4}[i] : (int) below(lengthof(members));
		}
		len += sprintf((char *) buf + len, "%s{", d > 0 ? "," : "");
		for (int i = 0; i < npattern; i++)
			len += sprintf((char *) buf + len, "%s%s", i > 0 ? "," : "", members[pattern[i]]);
		len += sprintf((char *) buf + len, "}");
	}
	return len + sprintf((char *) buf + len, "],\"snapshot\":5,\"cursor\":%s,\"hasMore\":false}",
						 below(2) ? "7" : "null");
}

static void
run(int seconds)
{
	uint8		buf[LARGEST_INPUT + 1];
	time_t		end = time(NULL) + seconds;

	for (int i = 0; i < lengthof(corpus); i++)
		LLVMFuzzerTestOneInput((const uint8 *) corpus[i], strlen(corpus[i]));
	do
	{
		for (int i = 0; i < 100; i++)
		{
			const char *seed = corpus[below(lengthof(corpus))];
			size_t		len = strlen(seed);

			if (below(3) == 0)
				len = make_page(buf);
			else
				memcpy(buf, seed, len);
			for (int n = below(6); n > 0; n--)
				len = mutate(buf, len);
			LLVMFuzzerTestOneInput(buf, len);
		}
	} while (time(NULL) < end);
	printf("%llu texts, %llu accepted, %llu pages\n", (unsigned long long) ninputs,
		   (unsigned long long) naccepted, (unsigned long long) npages);
}

static void
try_file(const char *name)
{
	FILE	   *file = fopen(name, "rb");
	uint8	   *data = malloc(64 << 20);
	size_t		len;

	if (file == NULL)
	{
		perror(name);
		exit(2);
	}
	len = fread(data, 1, 64 << 20, file);
	fclose(file);
	LLVMFuzzerTestOneInput(data, len);
	free(data);
}

/* For an oracle outside: what each text is, written again; "-" if refused. */
static void
read_lines(void)
{
	char	   *line = NULL;
	size_t		size = 0;
	ssize_t		nhex;

	while ((nhex = getline(&line, &size, stdin)) >= 0)
	{
		size_t		len = nhex / 2;
		char	   *text = malloc(len + 1);
		StringInfoData out;

		for (size_t i = 0; i < len; i++)
		{
			unsigned	byte;

			sscanf(line + 2 * i, "%2x", &byte);
			text[i] = (char) byte;
		}
		text[len] = '\0';
		current_text = text;
		current_len = len;
		if (pg_encoding_verifymbstr(PG_UTF8, text, len) == len &&
			walk_all(text, len, &out, true))
			printf("%s\n", out.data);
		else
			printf("-\n");
		free_pieces();
		free(text);
	}
	free(line);
}

int
main(int argc, char **argv)
{
	if (argc == 4 && strcmp(argv[1], "run") == 0)
	{
		state = strtoull(argv[3], NULL, 10);
		run(atoi(argv[2]));
	}
	else if (argc > 2 && strcmp(argv[1], "file") == 0)
		for (int i = 2; i < argc; i++)
			try_file(argv[i]);
	else if (argc == 2 && strcmp(argv[1], "read") == 0)
		read_lines();
	else
	{
		fprintf(stderr, "usage: fuzz_json run SECONDS SEED | file NAME... | read\n");
		return 2;
	}
	return 0;
}

#endif							/* FUZZ_LIBFUZZER */
