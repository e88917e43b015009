/*
 * inventory.c
 *		Which tables does the deployment have?
 *
 * Names come from get_table_column_names, or, where the server does not know
 * that, from json_schemas.  Types are inferred by the server (json_schemas) or
 * declared (get_schema); either may be refused, and is then left out.
 *
 * Room: protocol 2.11
 */
#include "postgres.h"

#include "ground/compat.h"
#include "protocol/inventory.h"
#include "protocol/schema_read.h"

/*
 * Every table with whatever types can be had: CvxTableSchema, in the current
 * context.  Waits for HTTP.
 */
List *
cvx_inventory(CvxHttp *http)
{
	List	   *tables;
	bool		has_names = cvx_api_column_names(http, NULL, &tables);
	Jsonb	   *schemas = cvx_api_json_schemas(http, has_names);
	Jsonb	   *declared = cvx_api_declared_schema(http);

	if (!has_names)
		tables = cvx_schema_parse_tables(schemas);
	else if (schemas)
		cvx_schema_parse_types(tables, schemas);
	if (declared)
		cvx_schema_parse_declared(tables, declared);
	return tables;
}

/* The same with the names of fields alone. */
List *
cvx_inventory_names(CvxHttp *http)
{
	List	   *tables;

	return cvx_api_column_names(http, NULL, &tables) ? tables :
		cvx_schema_parse_tables(cvx_api_json_schemas(http, false));
}
