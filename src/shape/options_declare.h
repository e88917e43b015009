/*
 * options_declare.h
 *		Which options are there, and which values do they take?
 *
 * Room: shape 3.3
 */
#ifndef CVX_OPTIONS_DECLARE_H
#define CVX_OPTIONS_DECLARE_H

#include "nodes/pg_list.h"

/* A key file is one line; this is far more than any key. */
#define CVX_MAX_KEY_BYTES	4096

/* A field, or the way to one within objects. */
typedef struct CvxPath
{
	char	  **names;
	int			n;
	char	   *label;			/* "a.b" */
} CvxPath;

/* The option primary_key. */
typedef struct CvxKey
{
	CvxPath    *paths;
	int			n;
	char	   *text;			/* "a,b.c" */
} CvxKey;

extern void cvx_options_validate(List *options, Oid catalog);
extern CvxPath cvx_options_path(const char *text);
extern bool cvx_options_is_table_name(const char *name);
extern bool cvx_options_is_component(const char *path);
extern bool cvx_options_is_field_name(const char *name, bool is_top_level);
extern const char *cvx_options_text(List *options, const char *name);
extern bool cvx_options_bool(List *options, const char *name);
extern int	cvx_options_number(List *options, const char *name);
extern CvxKey *cvx_options_parse_key(const char *value);
extern void cvx_options_check_proxy(const char *value);

#endif							/* CVX_OPTIONS_DECLARE_H */
