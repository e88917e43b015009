/*
 * fdw_import.h
 *		Which foreign tables does IMPORT FOREIGN SCHEMA create?
 *
 * Room: fdw 5.15
 */
#ifndef CVX_FDW_IMPORT_H
#define CVX_FDW_IMPORT_H

#include "foreign/fdwapi.h"

extern List *convexImportForeignSchema(ImportForeignSchemaStmt *stmt,
									   Oid serverid);
extern void cvx_import_init(void);

#endif							/* CVX_FDW_IMPORT_H */
