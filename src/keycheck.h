/*
 * keycheck.h
 *		Can these fields be the key of a table's documents?
 *
 * Room: shape 3.9
 */
#ifndef CVX_KEYCHECK_H
#define CVX_KEYCHECK_H

#include "http.h"
#include "options.h"

extern void cvx_keycheck(CvxHttp *http, const char *table, const CvxKey *key);
extern bool cvx_keycheck_has_other_index(CvxHttp *http, const char *table,
										 const CvxKey *key);

#endif							/* CVX_KEYCHECK_H */
