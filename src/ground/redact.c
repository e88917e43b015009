/*
 * redact.c
 *		How is foreign text shown without the deploy key?
 *
 * Text that came from a server is shown only as an excerpt from here: short,
 * printable, and without any secret that this process has used, however it
 * is escaped.  So no caller has to know which key belongs to which text.
 *
 * What is recognised: a secret as it is, with \/, \uXXXX, %XX and &#NN; in it,
 * in base64 (at any of the three offsets that a longer text gives it), and any
 * run of SECRET_RUN characters of one of these.  Letters match in either case.
 *
 * Rows are not touched: a document's fields are data, whatever they hold.
 *
 * Room: ground 0.2
 */
#include "postgres.h"

#include <ctype.h>

#include "lib/ilist.h"
#include "lib/stringinfo.h"
#include "mb/pg_wchar.h"
#include "utils/memutils.h"

#include "ground/redact.h"

/* Foreign text is cut here: enough to recognise, too little to flood a log. */
#define EXCERPT_CHARS	200

/* Only this much of a text is looked at to find an excerpt. */
#define EXCERPT_SOURCE	4096

/* A message that holds foreign text is cut here, with the words around it. */
#define MESSAGE_BYTES	1000

/* So many successive characters of a secret are blotted out anywhere. */
#define SECRET_RUN		8

/*
 * A process uses one key, or one for each of its servers and roles.  Beyond
 * this many the one that was used longest ago is forgotten.
 */
#define MAX_SECRETS		512

/* A name that holds so many of them is taken for the secret. */
#define NAME_RUN		16

/* Escapes within escapes, as in JSON within JSON, are undone this often. */
#define MAX_ESCAPES		3

/* The secret itself, and its base64 text at each of the three offsets. */
#define NFORMS			4

typedef struct Secret
{
	dlist_node	node;
	char	   *forms[NFORMS];
	size_t		lengths[NFORMS];
} Secret;

/* Secrets that this process has used, the latest first; see learn. */
static dlist_head secrets = DLIST_STATIC_INIT(secrets);
static int	nsecrets = 0;

/* A bit for each pair of characters, folded, that stands in some form. */
static uint8 pairs[8192];

static void encode_base64(char *out, const char *secret, int offset);
static void forget(Secret *secret);
static void add_unescaped(StringInfo buf, const char *text, size_t len);
static void unescape(StringInfo buf);
static bool add_redacted(StringInfo buf, const char *text, size_t len);
static size_t secret_length(const char *text, size_t len, size_t least);
static size_t run_length(const char *text, size_t len, const char *form,
						 size_t form_len, size_t least);
static bool may_begin(const char *text, size_t len);
static void note_pairs(const char *form);
static unsigned char fold(char c);
static int	printable_width(const char *p, int len);

/*
 * Never show this text from now on, for the life of the process: what a server
 * has kept of it may come back after the key was changed.
 */
void
cvx_redact_learn(const char *secret)
{
	Secret	   *new;
	dlist_iter	iter;

	if (secret == NULL || secret[0] == '\0')
		return;
	dlist_foreach(iter, &secrets)
	{
		if (strcmp(dlist_container(Secret, node, iter.cur)->forms[0], secret) != 0)
			continue;
		dlist_move_head(&secrets, iter.cur);
		return;
	}
	new = MemoryContextAlloc(TopMemoryContext, sizeof(Secret));
	for (int i = 0; i < NFORMS; i++)
	{
		/* room for the longest form */
		new->forms[i] = MemoryContextAlloc(TopMemoryContext,
										   (strlen(secret) + 2) * 8 / 6 + 1);
		if (i == 0)
			strcpy(new->forms[i], secret);
		else
			encode_base64(new->forms[i], secret, i - 1);
		new->lengths[i] = strlen(new->forms[i]);
		note_pairs(new->forms[i]);
	}
	dlist_push_head(&secrets, &new->node);
	if (nsecrets == MAX_SECRETS)
		forget(dlist_tail_element(Secret, node, &secrets));
	else
		nsecrets++;
}

/*
 * Does a name hold a secret, in whatever form?  A short run may be chance, and
 * then it is no secret either.
 */
bool
cvx_redact_is_needed(const char *text, size_t len)
{
	StringInfoData plain;
	bool		is_needed = false;

	initStringInfo(&plain);
	add_unescaped(&plain, text, len);
	for (int i = 0; i < plain.len && !is_needed; i++)
		is_needed = may_begin(plain.data + i, plain.len - i) &&
			secret_length(plain.data + i, plain.len - i, NAME_RUN) > 0;
	pfree(plain.data);
	return is_needed;
}

/*
 * A short, printable copy of foreign text in one line, in the current context,
 * in the database's encoding, without secrets.
 */
char *
cvx_redact_excerpt(const char *text, size_t len)
{
	StringInfoData plain;
	StringInfoData redacted;
	StringInfoData out;
	const char *p;
	const char *end;
	int			nchars = 0;

	initStringInfo(&plain);
	initStringInfo(&redacted);
	initStringInfo(&out);
	add_unescaped(&plain, text, Min(len, EXCERPT_SOURCE));
	(void) add_redacted(&redacted, plain.data, plain.len);
	end = redacted.data + redacted.len;
	for (p = redacted.data; p < end;)
	{
		int			width = printable_width(p, end - p);

		if (nchars++ == EXCERPT_CHARS)
		{
			appendStringInfoString(&out, "...");
			break;
		}
		if (width > 0)
			appendBinaryStringInfo(&out, p, width);
		else
			appendStringInfoChar(&out, isspace((unsigned char) *p) ? ' ' : '?');
		p += Max(width, 1);
	}
	pfree(plain.data);
	pfree(redacted.data);
	return out.data;
}

/*
 * The text of a message that may quote a foreign value, as it can be shown, in
 * the current context: shortened, without secrets, otherwise as it is.
 */
char *
cvx_redact_message(const char *message)
{
	size_t		len = strlen(message);
	StringInfoData plain;
	StringInfoData redacted;
	bool		is_cut = false;

	if (len > MESSAGE_BYTES)
	{
		len = pg_mbcliplen(message, Min(len, EXCERPT_SOURCE), EXCERPT_SOURCE);
		is_cut = true;
	}
	initStringInfo(&redacted);
	if (!add_redacted(&redacted, message, len))
	{
		/* Undo escapes only where they hide something. */
		initStringInfo(&plain);
		add_unescaped(&plain, message, len);
		resetStringInfo(&redacted);
		if (!add_redacted(&redacted, plain.data, plain.len))
		{
			resetStringInfo(&redacted);
			appendBinaryStringInfo(&redacted, message, len);
		}
		pfree(plain.data);
	}
	if (!is_cut)
		return redacted.data;
	if (redacted.len > MESSAGE_BYTES)
		redacted.data[pg_mbcliplen(redacted.data, redacted.len,
								   MESSAGE_BYTES)] = '\0';
	return psprintf("%s...", redacted.data);
}

/*
 * An error as it can be stored or logged, in the current context.  Shares with
 * the given one what needs no change.
 */
ErrorData *
cvx_redact_error(const ErrorData *error)
{
	ErrorData  *result = palloc(sizeof(ErrorData));

	*result = *error;
	if (error->message)
		result->message = cvx_redact_message(error->message);
	if (error->detail)
		result->detail = cvx_redact_message(error->detail);
	if (error->detail_log)
		result->detail_log = cvx_redact_message(error->detail_log);
	if (error->hint)
		result->hint = cvx_redact_message(error->hint);
	if (error->context)
		result->context = cvx_redact_message(error->context);
	return result;
}

/*
 * For an error context callback around the conversion of foreign values: the
 * error that is being reported, which may quote a value, loses secrets and
 * length.
 */
void
cvx_redact_current_error(void)
{
	MemoryContext cxt = AllocSetContextCreate(TopMemoryContext,
											  "convex redaction",
											  ALLOCSET_SMALL_SIZES);
	MemoryContext old = MemoryContextSwitchTo(cxt);
	ErrorData  *error = CopyErrorData();
	ErrorData  *shown = cvx_redact_error(error);

	if (error->message && strcmp(error->message, shown->message) != 0)
		errmsg_internal("%s", shown->message);
	if (error->detail && strcmp(error->detail, shown->detail) != 0)
		errdetail_internal("%s", shown->detail);
	if (error->hint && strcmp(error->hint, shown->hint) != 0)
		errhint("%s", shown->hint);
	MemoryContextSwitchTo(old);
	MemoryContextDelete(cxt);
}

/*
 * The base64 text that a secret has within a longer text, after offset bytes
 * (modulo 3), without the digits that its neighbours have a part in.
 */
static void
encode_base64(char *out, const char *secret, int offset)
{
	static const char digits[] =
		"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	size_t		nbits = (offset + strlen(secret)) * 8;

	for (size_t i = (offset * 8 + 5) / 6; (i + 1) * 6 <= nbits; i++)
	{
		size_t		bit = i * 6 - offset * 8;
		const char *pair = secret + bit / 8;

		/* The second of the two bytes may be the terminator. */
		*out++ = digits[((((unsigned char) pair[0] << 8) |
						  (unsigned char) pair[1]) >> (10 - bit % 8)) & 63];
	}
	*out = '\0';
}

static void
forget(Secret *secret)
{
	dlist_delete(&secret->node);
	for (int i = 0; i < NFORMS; i++)
	{
		explicit_bzero(secret->forms[i], secret->lengths[i]);
		pfree(secret->forms[i]);
	}
	pfree(secret);
}

/*
 * Append text with \/, \uXXXX, %XX and &#NN; undone, also where these are
 * escaped once or twice more: a secret that comes back in one of these forms
 * must be recognised.
 */
static void
add_unescaped(StringInfo buf, const char *text, size_t len)
{
	appendBinaryStringInfo(buf, text, len);
	for (int i = 0; i < MAX_ESCAPES; i++)
	{
		int			before = buf->len;

		unescape(buf);
		if (buf->len == before)
			break;
	}
}

/* In place: what is undone is shorter. */
static void
unescape(StringInfo buf)
{
	char	   *out = buf->data;

	for (int i = 0; i < buf->len; i++)
	{
		const char *piece = buf->data + i;
		unsigned	code = 0;
		int			used = 0;
		int			nslashes = strspn(piece, "\\");

		if (nslashes > 0 && piece[nslashes] == '/')
		{
			code = '/';
			used = nslashes + 1;
		}
		else if (nslashes > 0)
		{
			if (sscanf(piece + nslashes, "u%4x%n", &code, &used) < 1 || used != 5)
				used = 0;
			else
				used += nslashes;
		}
		else if ((sscanf(piece, "%%%2x%n", &code, &used) < 1 || used != 3) &&
				 ((used = 0), (sscanf(piece, "&#x%6x;%n", &code, &used) < 1 || used == 0)) &&
				 ((used = 0), (sscanf(piece, "&#%6u;%n", &code, &used) < 1 || used == 0)))
			used = 0;
		if (used > 0 && code >= 0x20 && code < 0x7f)
		{
			*out++ = (char) code;
			i += used - 1;
		}
		else
			*out++ = *piece;
	}
	*out = '\0';
	buf->len = out - buf->data;
}

/* Append text with every run of a secret blotted out; was there one? */
static bool
add_redacted(StringInfo buf, const char *text, size_t len)
{
	bool		is_redacted = false;

	for (size_t i = 0; i < len;)
	{
		size_t		run = !may_begin(text + i, len - i) ? 0 :
			secret_length(text + i, len - i, SECRET_RUN);

		if (run > 0)
			appendStringInfoString(buf, "[key]");
		else
			appendStringInfoChar(buf, text[i]);
		is_redacted |= run > 0;
		i += Max(run, 1);
	}
	return is_redacted;
}

/*
 * How much of what begins here is a run of a secret that is long enough, or is
 * all of it; 0: none.
 */
static size_t
secret_length(const char *text, size_t len, size_t least)
{
	size_t		longest = 0;
	dlist_iter	iter;

	dlist_foreach(iter, &secrets)
	{
		Secret	   *secret = dlist_container(Secret, node, iter.cur);

		for (int i = 0; i < NFORMS; i++)
			longest = Max(longest, run_length(text, len, secret->forms[i],
											  secret->lengths[i], least));
	}
	return longest;
}

static size_t
run_length(const char *text, size_t len, const char *form, size_t form_len,
		   size_t least)
{
	size_t		needed = Min(form_len, least);
	size_t		longest = 0;

	if (needed == 0 || len < needed)
		return 0;
	for (size_t k = 0; k + needed <= form_len; k++)
	{
		size_t		run = 0;

		while (run < len && k + run < form_len &&
			   fold(text[run]) == fold(form[k + run]))
			run++;
		longest = Max(longest, run);
	}
	return longest >= needed ? longest : 0;
}

/* Can a run of a secret begin here?  Most texts end at this question. */
static bool
may_begin(const char *text, size_t len)
{
	int			pair = fold(text[0]) << 8 | (len > 1 ? fold(text[1]) : 0);

	return (pairs[pair / 8] >> (pair % 8)) & 1;
}

/* Remember which pairs of characters a form has. */
static void
note_pairs(const char *form)
{
	for (const char *p = form; *p; p++)
	{
		for (int next = 0; next < 256; next++)
		{
			int			pair = fold(*p) << 8 | next;

			if (form[1] == '\0' || next == fold(p[1]))
				pairs[pair / 8] |= 1 << (pair % 8);
		}
	}
}

/* The same for letters in either case, and for both alphabets of base64. */
static unsigned char
fold(char c)
{
	return c == '-' ? '+' : c == '_' ? '/' :
		c >= 'A' && c <= 'Z' ? c - 'A' + 'a' : (unsigned char) c;
}

/*
 * The bytes of the next character, if it can be shown: not a control, format
 * or private character; 0 otherwise.
 */
static int
printable_width(const char *p, int len)
{
	static const pg_wchar hidden[][2] = {
		{0x0080, 0x009f}, {0x00ad, 0x00ad}, {0x061c, 0x061c},
		{0x200b, 0x200f}, {0x2028, 0x202e}, {0x2060, 0x206f},
		{0xd800, 0xf8ff}, {0xfeff, 0xfeff}, {0xfff0, 0xffff},
		{0xe0000, 0x10ffff}
	};
	const unsigned char *u = (const unsigned char *) p;
	int			width = pg_utf_mblen(u);
	pg_wchar	c;

	if (*u < 0x80)
		return isprint(*u) ? 1 : 0;
	if (GetDatabaseEncoding() != PG_UTF8 || width < 2 || width > len ||
		!pg_utf8_islegal(u, width))
		return 0;
	c = utf8_to_unicode(u);
	for (int i = 0; i < lengthof(hidden); i++)
		if (c >= hidden[i][0] && c <= hidden[i][1])
			return 0;
	return width;
}
