/*
 * rowmap.h
 *		Which field fills which column?
 *
 * Room: shape 3.12
 */
#ifndef CVX_ROWMAP_H
#define CVX_ROWMAP_H

#include "access/tupdesc.h"
#include "nodes/bitmapset.h"
#include "nodes/pg_list.h"

#include "protocol/page.h"
#include "shape/options_read.h"

typedef struct CvxRowMap CvxRowMap;

extern CvxRowMap *cvx_rowmap_create(Oid relid, TupleDesc tupdesc,
									const Bitmapset *attnums,
									const CvxTableOptions *options,
									List *extra_fields);
extern const char *const *cvx_rowmap_fields(const CvxRowMap *map, int *nfields);
extern const int *cvx_rowmap_field_lens(const CvxRowMap *map);
extern bool cvx_rowmap_is_whole(const CvxRowMap *map);
extern void cvx_rowmap_decode(CvxRowMap *map, const CvxPage *page, int row,
							  Datum *values, bool *nulls,
							  CvxErrorPlace *place);

#endif							/* CVX_ROWMAP_H */
