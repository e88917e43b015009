/*
 * schema.h
 *		How is it kept which tables and fields there are?
 *
 * Room: protocol 2.2
 */
#ifndef CVX_SCHEMA_H
#define CVX_SCHEMA_H

#include "nodes/pg_list.h"
#include "utils/hsearch.h"

typedef enum CvxType
{
	CVX_TYPE_UNSEEN,			/* only null, or nothing at all */
	CVX_TYPE_BOOLEAN,
	CVX_TYPE_INT64,
	CVX_TYPE_FLOAT64,
	CVX_TYPE_STRING,
	CVX_TYPE_ID,
	CVX_TYPE_BYTES,
	CVX_TYPE_ARRAY,
	CVX_TYPE_OBJECT,
	CVX_TYPE_ANY				/* a union, or unknown */
} CvxType;

typedef struct CvxFieldSchema
{
	char	   *name;
	CvxType		type;
	char	   *id_table;		/* of an id: the table it points to, or NULL */
	bool		is_optional;	/* absent in some documents */
	bool		is_nullable;	/* null in some documents */
	bool		is_declared;	/* by an enforced schema, not inferred */
} CvxFieldSchema;

typedef struct CvxTableSchema
{
	char	   *component;		/* "" is the root component */
	char	   *table;
	List	   *names;			/* field names (char *), as the server lists them */
	List	   *fields;			/* CvxFieldSchema; NIL while types are unknown */
} CvxTableSchema;

extern CvxTableSchema *cvx_schema_find(List *tables, const char *component,
									   const char *table);
extern List *cvx_schema_components(List *tables);
extern HTAB *cvx_schema_map(long nnames);
extern void **cvx_schema_slot(HTAB *map, const char *name, bool *is_new);
extern void *cvx_schema_find_slot(HTAB *map, const char *name);
extern CvxType cvx_schema_union(CvxType a, CvxType b);
extern const char *cvx_schema_type_name(CvxType type);

#endif							/* CVX_SCHEMA_H */
