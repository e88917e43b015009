/*
 * keycheck.h
 *		Can these fields be the key of a table's documents?
 *
 * Room: write 4.8
 */
#ifndef CVX_KEYCHECK_H
#define CVX_KEYCHECK_H

#include "wire/http.h"
#include "shape/encode.h"
#include "shape/options_read.h"

/* What a foreign table's column writes into one field of the key. */
typedef struct CvxKeyColumn
{
	char	   *name;			/* NULL: no column writes one kind alone */
	CvxKind		kind;
	CvxEncoder *encoder;
} CvxKeyColumn;

extern CvxKeyColumn *cvx_keycheck_columns(Oid relid,
										  const CvxTableOptions *options);
extern void cvx_keycheck(CvxHttp *http, const CvxTableOptions *options,
						 const CvxKeyColumn *columns);
extern bool cvx_keycheck_is_known(const CvxTableOptions *options,
								  const CvxKeyColumn *columns);
extern void cvx_keycheck_saw(const CvxTableOptions *options,
							 const CvxKeyColumn *columns, const char *doc,
							 size_t len);
extern void cvx_keycheck_look(const CvxTableOptions *options,
							  const CvxKeyColumn *columns, Oid userid);
extern void cvx_keycheck_document(const CvxTableOptions *options,
								  const CvxKeyColumn *columns,
								  const char *doc, size_t len);
extern bool cvx_keycheck_has_other_index(CvxHttp *http, const char *table,
										 const CvxKey *key);

#endif							/* CVX_KEYCHECK_H */
