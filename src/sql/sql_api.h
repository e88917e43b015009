/*
 * sql_api.h
 *		What do the functions of the extension share?
 *
 * Room: sql 7.1
 */
#ifndef CVX_SQL_API_H
#define CVX_SQL_API_H

#include "foreign/foreign.h"

#include "wire/http.h"

extern ForeignServer *cvx_sql_find_server(Name name);
extern CvxHttp *cvx_sql_open_server(Name name);

#endif							/* CVX_SQL_API_H */
