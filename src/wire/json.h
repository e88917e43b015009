/*
 * json.h
 *		How is a page scanned without a tree, and text written?
 *
 * Room: wire 1.5
 */
#ifndef CVX_JSON_H
#define CVX_JSON_H

#include "lib/stringinfo.h"

#include "ground/compat.h"

/* Deepest nesting read; Convex itself reads 128 and stores 16. */
#define CVX_JSON_MAX_DEPTH	128

/*
 * A reader over one complete text in UTF-8.  The byte at end is 0, so looking
 * one byte ahead is always safe.
 */
typedef struct CvxJson
{
	const char *start;
	const char *p;
	const char *end;
	int			depth;
} CvxJson;

/* A piece of the text: a string without its quotes, or a whole value. */
typedef struct CvxText
{
	const char *data;
	size_t		len;
	bool		is_escaped;		/* strings: holds at least one backslash */
} CvxText;

/* Read a piece of a text that has been read before. */
static inline void
cvx_json_within(CvxJson *json, const char *data, size_t len)
{
	json->start = json->p = data;
	json->end = data + len;
	json->depth = 0;
}

extern void cvx_json_begin(CvxJson *json, const char *data, size_t len);
extern void cvx_json_end(CvxJson *json);
extern void cvx_json_check_utf8(CvxJson *json);
extern char cvx_json_peek(CvxJson *json);
extern void cvx_json_open(CvxJson *json, char bracket);
extern bool cvx_json_member(CvxJson *json, CvxText *name, bool is_first);
extern bool cvx_json_element(CvxJson *json, bool is_first);
extern void cvx_json_skip(CvxJson *json, CvxText *value);
extern void cvx_json_string(CvxJson *json, CvxText *string);
extern bool cvx_json_bool(CvxJson *json);
extern int64 cvx_json_int64(CvxJson *json);
CVX_NORETURN extern void cvx_json_fail(CvxJson *json, const char *problem);
extern size_t cvx_json_unescape(const CvxText *string, char *dest, bool *has_nul);
extern bool cvx_json_equals(const CvxText *string, const char *text, size_t len);
extern char *cvx_json_cstring(const CvxText *string);
extern bool cvx_json_number(const char *data, size_t len, double *value);
extern void cvx_json_write_string(StringInfo buf, const char *utf8, size_t len);

#endif							/* CVX_JSON_H */
