/*
 * schema_read.h
 *		Which tables and fields does the server have?
 *
 * Room: protocol 2.3
 */
#ifndef CVX_SCHEMA_READ_H
#define CVX_SCHEMA_READ_H

#include "utils/jsonb.h"

#include "protocol/page.h"
#include "protocol/schema.h"

extern bool cvx_schema_is_tables(Jsonb *answer);
extern List *cvx_schema_read_names(const char *body, size_t len,
								   const CvxTableName *only);
extern List *cvx_schema_parse_tables(Jsonb *answer);
extern void cvx_schema_parse_types(List *tables, Jsonb *answer);
extern void cvx_schema_parse_declared(List *tables, Jsonb *answer);
extern bool cvx_schema_declares(Jsonb *schema, const char *table);

#endif							/* CVX_SCHEMA_READ_H */
