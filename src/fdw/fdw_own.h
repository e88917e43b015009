/*
 * fdw_own.h
 *		Which rows do pending writes make of a snapshot's?
 *
 * Room: fdw 5.2
 */
#ifndef CVX_FDW_OWN_H
#define CVX_FDW_OWN_H

#include "lib/stringinfo.h"
#include "nodes/pg_list.h"

typedef struct CvxOwn CvxOwn;

typedef enum CvxOwnEffect
{
	CVX_OWN_NONE,				/* the document is as the snapshot has it */
	CVX_OWN_CHANGED,
	CVX_OWN_GONE
} CvxOwnEffect;

extern CvxOwn *cvx_own_open(Oid serverid, const char *table, CommandId cid);
extern void cvx_own_close(CvxOwn *own);
extern List *cvx_own_key_fields(const CvxOwn *own);
extern bool cvx_own_hides_all(const CvxOwn *own);
extern CvxOwnEffect cvx_own_apply(CvxOwn *own, const char *doc, size_t len,
								  StringInfo out);
extern bool cvx_own_next(CvxOwn *own, StringInfo out);
extern void cvx_own_rewind(CvxOwn *own);

#endif							/* CVX_FDW_OWN_H */
