/*
 * spool.h
 *		Where do bytes go that may outgrow memory?
 *
 * Room: ground 0.3
 */
#ifndef CVX_SPOOL_H
#define CVX_SPOOL_H

#include "ground/compat.h"

typedef struct CvxSpool CvxSpool;

extern CvxSpool *cvx_spool_create(ResourceOwner owner);
extern int64 cvx_spool_len(const CvxSpool *spool);
extern void cvx_spool_append(CvxSpool *spool, const void *data, size_t len);
extern void cvx_spool_read(CvxSpool *spool, int64 offset, void *data,
						   size_t len);
extern void cvx_spool_truncate(CvxSpool *spool, int64 len);
extern void cvx_spool_free(CvxSpool *spool);

#endif							/* CVX_SPOOL_H */
