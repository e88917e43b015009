/*
 * options_read.h
 *		Which URL, key, limits, names apply?
 *
 * Room: shape 3.4
 */
#ifndef CVX_OPTIONS_READ_H
#define CVX_OPTIONS_READ_H

#include "access/attnum.h"

#include "wire/http.h"
#include "shape/options_declare.h"

typedef enum CvxJsonValues
{
	CVX_JSON_CLEAN,				/* int64 as number, bytes as base64 text */
	CVX_JSON_ENCODED			/* Convex's markers kept */
} CvxJsonValues;

typedef enum CvxOnMisfit
{
	CVX_MISFIT_ERROR,
	CVX_MISFIT_NULL
} CvxOnMisfit;

typedef enum CvxNulHandling
{
	CVX_NUL_ERROR,
	CVX_NUL_REPLACE,
	CVX_NUL_STRIP
} CvxNulHandling;

/* The way that writes of a table take. */
typedef enum CvxRoute
{
	CVX_ROUTE_AIRBYTE,			/* import_airbyte_records */
	CVX_ROUTE_FIVETRAN			/* apply_fivetran_operations */
} CvxRoute;

/* What applies to a foreign table: its options over those of its server. */
typedef struct CvxTableOptions
{
	Oid			serverid;
	char	   *server_name;
	char	   *relation;		/* quoted, for messages */
	char	   *table_name;		/* in Convex */
	char	   *component;		/* "" is the root component */
	CvxJsonValues json_values;
	CvxOnMisfit on_misfit;
	CvxNulHandling nul_handling;
	bool		asks;			/* Convex may be asked, instead of read whole */
	bool		is_async_capable;
	double		startup_cost;
	double		tuple_cost;

	/* writing */
	bool		is_updatable;
	bool		is_truncatable;
	CvxKey	   *key;			/* NULL: append-only */
	CvxRoute	route;
	int			batch_size;		/* messages of one request */
	int			batch_bytes;	/* of one request */
	bool		flushes_statement;	/* sends before the statement ends */
	bool		checks_conflicts;
} CvxTableOptions;

typedef struct CvxColumnOptions
{
	char	   *field;			/* or a path, see is_path */
	bool		is_path;		/* "a.b" reaches into an object */
	bool		is_document;	/* "*": the whole document */
	bool		writes_nulls;	/* SQL NULL is Convex null, not a missing field */
	char	   *convex_type;	/* or NULL: what the SQL type says */
} CvxColumnOptions;

extern bool cvx_options_is_ours(Oid serverid);
extern CvxRemote *cvx_options_remote(Oid serverid, Oid userid);
extern CvxTableOptions *cvx_options_table(Oid relid);
extern CvxTableOptions *cvx_options_table_unnamed(Oid relid);
extern CvxTableOptions *cvx_options_server(Oid serverid);
extern CvxColumnOptions *cvx_options_column(Oid relid, AttrNumber attnum);

#endif							/* CVX_OPTIONS_READ_H */
