/*
 * json.c
 *		How is a page scanned without a tree, and text written?
 *
 * A pull reader: the caller walks objects and arrays and skips what it does
 * not want.  Everything walked over or skipped is checked to be JSON as RFC
 * 8259 has it (jsonb accepts exactly the same texts, but for U+0000, which is
 * read here, and for its own limits), nested at most CVX_JSON_MAX_DEPTH deep.
 * Whether the bytes are UTF-8 is checked by page.c, once for a whole page.
 *
 * The reader does not know what Convex means by a value: value_read.c does.
 *
 * Room: wire 1.5
 */
#include "postgres.h"

#include <math.h>

#include "mb/pg_wchar.h"
#include "port/pg_bitutils.h"
#include "utils/memutils.h"

#include "wire/json.h"

/* The verifier counts in int. */
#define UTF8_CHUNK	((size_t) 1 << 30)

static const char *skip_string(CvxJson *json, const char *p, bool *is_escaped);
static inline const char *skip_plain(const char *p, const char *end);
static const char *skip_number(CvxJson *json, const char *p);
static const char *skip_value(CvxJson *json, const char *p);
static const char *skip_container(CvxJson *json, const char *p, char close);
static const char *skip_word(CvxJson *json, const char *p, const char *word);
static int	read_hex4(const char *p);
static inline bool read_eight(const char *p, const char *end, uint64 *value);
static bool parse_digits(const char *data, size_t len, double *value);

static inline const char *
skip_space(const char *p)
{
	while (*p == ' ' || *p == '\n' || *p == '\t' || *p == '\r')
		p++;
	return p;
}

/* Begin to read; data[len] must be 0. */
void
cvx_json_begin(CvxJson *json, const char *data, size_t len)
{
	Assert(data[len] == '\0');
	json->start = json->p = data;
	json->end = data + len;
	json->depth = 0;
}

/* Nothing but space may be left. */
void
cvx_json_end(CvxJson *json)
{
	json->p = skip_space(json->p);
	if (json->p != json->end)
		cvx_json_fail(json, "text goes on after its end");
}

/* Throws unless the whole text is UTF-8 without zero bytes. */
void
cvx_json_check_utf8(CvxJson *json)
{
	const char *p = json->start;

	while (p < json->end)
	{
		size_t		chunk = Min(json->end - p, UTF8_CHUNK);
		size_t		good = pg_encoding_verifymbstr(PG_UTF8, p, (int) chunk);

		/* A chunk may end within a character, but not the text. */
		if (good < chunk && (chunk < UTF8_CHUNK || chunk - good >= 4))
		{
			json->p = p + good;
			cvx_json_fail(json, "not UTF-8");
		}
		p += good;
	}
}

/* The first byte of the next value; 0 at the end. */
char
cvx_json_peek(CvxJson *json)
{
	json->p = skip_space(json->p);
	return *json->p;
}

/* Enter an object ("{") or an array ("["). */
void
cvx_json_open(CvxJson *json, char bracket)
{
	if (cvx_json_peek(json) != bracket)
		cvx_json_fail(json, bracket == '{' ? "expected an object" :
					  "expected an array");
	if (++json->depth > CVX_JSON_MAX_DEPTH)
		cvx_json_fail(json, "nested too deeply");
	json->p++;
}

/*
 * Go to the next member of an object, whose name is given and whose value
 * must be read next; false, having left the object, when there is none.
 */
bool
cvx_json_member(CvxJson *json, CvxText *name, bool is_first)
{
	char		c = cvx_json_peek(json);

	if (c == '}')
	{
		json->p++;
		json->depth--;
		return false;
	}
	if (!is_first)
	{
		if (c != ',')
			cvx_json_fail(json, "expected \",\" or \"}\"");
		json->p++;
	}
	cvx_json_string(json, name);
	if (cvx_json_peek(json) != ':')
		cvx_json_fail(json, "expected \":\"");
	json->p++;
	return true;
}

/* The same for the elements of an array. */
bool
cvx_json_element(CvxJson *json, bool is_first)
{
	char		c = cvx_json_peek(json);

	if (c == ']')
	{
		json->p++;
		json->depth--;
		return false;
	}
	if (!is_first)
	{
		if (c != ',')
			cvx_json_fail(json, "expected \",\" or \"]\"");
		json->p++;
	}
	return true;
}

/* Pass over one value of any kind; value may be NULL. */
void
cvx_json_skip(CvxJson *json, CvxText *value)
{
	const char *p = skip_space(json->p);
	const char *end = skip_value(json, p);

	if (value)
	{
		value->data = p;
		value->len = end - p;
	}
	json->p = end;
}

/* Read a string; its text is still escaped. */
void
cvx_json_string(CvxJson *json, CvxText *string)
{
	const char *end;

	if (cvx_json_peek(json) != '"')
		cvx_json_fail(json, "expected a string");
	string->data = json->p + 1;
	end = skip_string(json, json->p + 1, &string->is_escaped);
	string->len = end - 1 - string->data;
	json->p = end;
}

bool
cvx_json_bool(CvxJson *json)
{
	bool		value = cvx_json_peek(json) == 't';

	json->p = skip_word(json, json->p, value ? "true" : "false");
	return value;
}

/* Read an integer that never passes through a double. */
int64
cvx_json_int64(CvxJson *json)
{
	bool		is_negative = cvx_json_peek(json) == '-';
	const char *begin = json->p + is_negative;
	const char *p = begin;
	uint64		value = 0;
	uint64		limit = (uint64) PG_INT64_MAX + is_negative;
	uint64		eight;

	for (; p - begin <= 8 && read_eight(p, json->end, &eight); p += 8)
		value = value * 100000000 + eight;
	for (; *p >= '0' && *p <= '9'; p++)
	{
		unsigned	digit = *p - '0';

		/* 18 digits always fit */
		if (p - begin >= 18 && value > (limit - digit) / 10)
			cvx_json_fail(json, "integer out of range");
		value = value * 10 + digit;
	}
	if (p == begin || (*begin == '0' && p - begin > 1) ||
		*p == '.' || *p == 'e' || *p == 'E')
		cvx_json_fail(json, "expected an integer");
	json->p = p;
	return is_negative ? (int64) (0 - value) : (int64) value;
}

/* Report text that is not what it should be, by its place. */
void
cvx_json_fail(CvxJson *json, const char *problem)
{
	if (json->p >= json->end)
		problem = "text ends too early";
	ereport(ERROR,
			(errcode(ERRCODE_FDW_UNABLE_TO_CREATE_REPLY),
			 errmsg("Convex server gave an answer that is not the expected JSON"),
			 errdetail("At byte %zu of %zu: %s.",
					   (size_t) (json->p - json->start),
					   (size_t) (json->end - json->start), problem),
			 errhint("Check deployment_url: something other than Convex may be answering.")));
}

/*
 * Write the unescaped string to dest, which has room for string->len bytes;
 * returns its length.  *has_nul tells whether it holds U+0000.
 */
size_t
cvx_json_unescape(const CvxText *string, char *dest, bool *has_nul)
{
	const char *p = string->data;
	const char *end = p + string->len;
	char	   *out = dest;

	*has_nul = false;
	while (p < end)
	{
		const char *plain = memchr(p, '\\', end - p);
		pg_wchar	c;

		if (plain == NULL)
			plain = end;
		memcpy(out, p, plain - p);
		out += plain - p;
		p = plain;
		if (p == end)
			break;
		p += 2;
		switch (p[-1])
		{
			case 'b':
				*out++ = '\b';
				break;
			case 'f':
				*out++ = '\f';
				break;
			case 'n':
				*out++ = '\n';
				break;
			case 'r':
				*out++ = '\r';
				break;
			case 't':
				*out++ = '\t';
				break;
			case 'u':
				c = read_hex4(p);
				p += 4;
				if (c >= 0xd800 && c <= 0xdbff)
				{
					/* skip_string() has seen the second half */
					c = 0x10000 + ((c & 0x3ff) << 10) +
						(read_hex4(p + 2) & 0x3ff);
					p += 6;
				}
				*has_nul |= c == 0;
				unicode_to_utf8(c, (unsigned char *) out);
				out += pg_utf_mblen((unsigned char *) out);
				break;
			default:
				*out++ = p[-1];
		}
	}
	return out - dest;
}

/* Is this string, once unescaped, the given text? */
bool
cvx_json_equals(const CvxText *string, const char *text, size_t len)
{
	char	   *copy;
	size_t		copied;
	bool		has_nul;
	bool		is_equal;

	if (!string->is_escaped)
		return string->len == len && memcmp(string->data, text, len) == 0;
	copy = palloc(string->len + 1);
	copied = cvx_json_unescape(string, copy, &has_nul);
	is_equal = copied == len && memcmp(copy, text, len) == 0;
	pfree(copy);
	return is_equal;
}

/*
 * The string in the current context, unescaped, terminated and converted to
 * the database's encoding.  U+0000 fails.
 */
char *
cvx_json_cstring(const CvxText *string)
{
	char	   *utf8 = palloc(string->len + 1);
	bool		has_nul = false;
	size_t		len = string->len;

	if (string->is_escaped)
		len = cvx_json_unescape(string, utf8, &has_nul);
	else
		memcpy(utf8, string->data, len);
	if (has_nul)
		ereport(ERROR,
				(errcode(ERRCODE_FDW_UNABLE_TO_CREATE_REPLY),
				 errmsg("Convex server gave an answer that is not the expected JSON"),
				 errdetail("A name holds U+0000.")));
	utf8[len] = '\0';
	return pg_any_to_server(utf8, len, PG_UTF8);
}

/*
 * The nearest double of a number's text, which need not be terminated; false
 * when no finite double is near.
 */
bool
cvx_json_number(const char *data, size_t len, double *value)
{
	char		small[64];
	char	   *copy = small;

	if (parse_digits(data, len, value))
		return true;
	if (len >= sizeof(small))
		copy = palloc(len + 1);
	memcpy(copy, data, len);
	copy[len] = '\0';
	*value = strtod(copy, NULL);
	if (copy != small)
		pfree(copy);
	return !isinf(*value);
}

/* Append a JSON string literal. */
void
cvx_json_write_string(StringInfo buf, const char *utf8, size_t len)
{
	appendStringInfoCharMacro(buf, '"');
	for (size_t i = 0; i < len; i++)
	{
		unsigned char c = utf8[i];

		if (c == '"' || c == '\\')
		{
			appendStringInfoCharMacro(buf, '\\');
			appendStringInfoCharMacro(buf, c);
		}
		else if (c < 0x20)
			appendStringInfo(buf, "\\u%04x", c);
		else
			appendStringInfoCharMacro(buf, c);
	}
	appendStringInfoCharMacro(buf, '"');
}

/*
 * Pass the rest of a string; returns what follows its closing quote.
 */
static const char *
skip_string(CvxJson *json, const char *p, bool *is_escaped)
{
	*is_escaped = false;
	for (;;)
	{
		p = skip_plain(p, json->end);
		if (*p == '"')
			return p + 1;
		json->p = p;
		if (*p != '\\')
			cvx_json_fail(json, "control character in a string");
		*is_escaped = true;
		p++;
		if (*p == 'u')
		{
			int			c = read_hex4(p + 1);

			if (c < 0 || (c >= 0xdc00 && c <= 0xdfff))
				cvx_json_fail(json, "bad \\u escape");
			p += 5;
			if (c >= 0xd800 && c <= 0xdbff)
			{
				if (p[0] != '\\' || p[1] != 'u' ||
					(c = read_hex4(p + 2)) < 0xdc00 || c > 0xdfff)
					cvx_json_fail(json, "half of a surrogate pair");
				p += 6;
			}
		}
		else if (*p != '\0' && strchr("\"\\/bfnrt", *p) != NULL)
			p++;
		else
			cvx_json_fail(json, "bad escape");
	}
}

/*
 * Pass bytes that mean nothing in a string: eight at a time, until one of them
 * is a quote, a backslash or a control character (or the final 0).
 */
static inline const char *
skip_plain(const char *p, const char *end)
{
	const uint64 ones = UINT64CONST(0x0101010101010101);
	const uint64 highs = UINT64CONST(0x8080808080808080);

	while (end - p >= 8)
	{
		uint64		word;
		uint64		quote;
		uint64		slash;
		uint64		hits;

		memcpy(&word, p, 8);
		quote = word ^ (ones * '"');
		slash = word ^ (ones * '\\');
		hits = (((quote - ones) & ~quote) | ((slash - ones) & ~slash) |
				((word - ones * 0x20) & ~word)) & highs;
		if (hits != 0)
		{
#ifdef WORDS_BIGENDIAN
			break;
#else
			/* The lowest hit is a true one; those above it may not be. */
			return p + (pg_rightmost_one_pos64(hits) >> 3);
#endif
		}
		p += 8;
	}
	while (*p != '"' && *p != '\\' && (unsigned char) *p >= 0x20)
		p++;
	return p;
}

static const char *
skip_number(CvxJson *json, const char *p)
{
	const char *begin = p;

	p += *p == '-';
	if (*p == '0')
		p++;
	else if (*p >= '1' && *p <= '9')
		while (*p >= '0' && *p <= '9')
			p++;
	else
		goto bad;
	if (*p == '.')
	{
		p++;
		if (*p < '0' || *p > '9')
			goto bad;
		while (*p >= '0' && *p <= '9')
			p++;
	}
	if (*p == 'e' || *p == 'E')
	{
		p++;
		p += *p == '+' || *p == '-';
		if (*p < '0' || *p > '9')
			goto bad;
		while (*p >= '0' && *p <= '9')
			p++;
	}
	return p;

bad:
	json->p = *p ? begin : p;
	cvx_json_fail(json, "bad number");
}

/* Pass one value that begins at p; returns what follows it. */
static const char *
skip_value(CvxJson *json, const char *p)
{
	bool		is_escaped;

	switch (*p)
	{
		case '"':
			return skip_string(json, p + 1, &is_escaped);
		case '{':
			return skip_container(json, p, '}');
		case '[':
			return skip_container(json, p, ']');
		case 't':
			return skip_word(json, p, "true");
		case 'f':
			return skip_word(json, p, "false");
		case 'n':
			return skip_word(json, p, "null");
		case '-':
		case '0':
		case '1':
		case '2':
		case '3':
		case '4':
		case '5':
		case '6':
		case '7':
		case '8':
		case '9':
			return skip_number(json, p);
		default:
			json->p = p;
			cvx_json_fail(json, "expected a value");
	}
}

/* Recursion is bounded by CVX_JSON_MAX_DEPTH. */
static const char *
skip_container(CvxJson *json, const char *p, char close)
{
	bool		is_escaped;
	bool		is_first = true;

	json->p = p;
	if (++json->depth > CVX_JSON_MAX_DEPTH)
		cvx_json_fail(json, "nested too deeply");
	for (p = skip_space(p + 1); *p != close; p = skip_space(p))
	{
		json->p = p;
		if (!is_first)
		{
			if (*p != ',')
				cvx_json_fail(json, "expected \",\" or a closing bracket");
			p = skip_space(p + 1);
		}
		is_first = false;
		if (close == '}')
		{
			json->p = p;
			if (*p != '"')
				cvx_json_fail(json, "expected a string");
			p = skip_space(skip_string(json, p + 1, &is_escaped));
			json->p = p;
			if (*p != ':')
				cvx_json_fail(json, "expected \":\"");
			p = skip_space(p + 1);
		}
		p = skip_value(json, p);
	}
	json->depth--;
	return p + 1;
}

static const char *
skip_word(CvxJson *json, const char *p, const char *word)
{
	size_t		len = strlen(word);

	if (strncmp(p, word, len) != 0)
	{
		json->p = p;
		cvx_json_fail(json, "expected a value");
	}
	return p + len;
}

/* Four hexadecimal digits, or -1. */
static int
read_hex4(const char *p)
{
	int			value = 0;

	for (int i = 0; i < 4; i++)
	{
		char		c = p[i];
		int			digit;

		if (c >= '0' && c <= '9')
			digit = c - '0';
		else if (c >= 'a' && c <= 'f')
			digit = c - 'a' + 10;
		else if (c >= 'A' && c <= 'F')
			digit = c - 'A' + 10;
		else
			return -1;
		value = value * 16 + digit;
	}
	return value;
}

/*
 * Eight decimal digits at once: false if they are not there.  Neighbours are
 * added up, digits to pairs, pairs to fours, fours to all.
 */
static inline bool
read_eight(const char *p, const char *end, uint64 *value)
{
#ifdef WORDS_BIGENDIAN
	return false;
#else
	uint64		word;

	if (end - p < 8)
		return false;
	memcpy(&word, p, 8);

	/* The upper half of a digit is 3, and is still when six are added. */
	if ((word & UINT64CONST(0xf0f0f0f0f0f0f0f0)) != UINT64CONST(0x3030303030303030) ||
		((word + UINT64CONST(0x0606060606060606)) & UINT64CONST(0xf0f0f0f0f0f0f0f0)) !=
		UINT64CONST(0x3030303030303030))
		return false;
	word &= UINT64CONST(0x0f0f0f0f0f0f0f0f);
	word = (word * 10 + (word >> 8)) & UINT64CONST(0x00ff00ff00ff00ff);
	word = (word * 100 + (word >> 16)) & UINT64CONST(0x0000ffff0000ffff);
	*value = (word * 10000 + (word >> 32)) & UINT64CONST(0xffffffff);
	return true;
#endif
}

/*
 * The numbers whose nearest double one exact operation gives: at most 2^53 as
 * an integer of digits, and a power of ten up to 22.  False: not one of them.
 */
static bool
parse_digits(const char *data, size_t len, double *value)
{
	static const double powers[] = {
		1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12,
		1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22
	};
	const char *p = data;
	const char *end = data + len;
	bool		is_negative = len > 0 && *p == '-';
	uint64		digits = 0;
	int			ndigits = 0;
	int			nfraction = 0;
	bool		is_fraction = false;
	uint64		eight;

	p += is_negative;
	for (; ndigits <= 8 && read_eight(p, end, &eight); p += 8, ndigits += 8)
		digits = digits * 100000000 + eight;
	for (; p < end; p++)
	{
		if (*p == '.')
		{
			is_fraction = true;
			continue;
		}
		if (*p < '0' || *p > '9' || ++ndigits > 18)
			return false;		/* an exponent, or too long */
		digits = digits * 10 + (*p - '0');
		nfraction += is_fraction;
	}
	if (digits > (UINT64CONST(1) << 53))
		return false;
	*value = nfraction > 0 ? (double) digits / powers[nfraction] :
		(double) digits;
	if (is_negative)
		*value = -*value;
	return true;
}
