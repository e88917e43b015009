/*
 * sub_read.h
 *		What does the catalog say of a subscription?
 *
 * Room: subscription 5.4
 */
#ifndef CVX_SUB_READ_H
#define CVX_SUB_READ_H

#include "subscription/sub_catalog.h"

extern CvxSubscription *cvx_catalog_load(int32 subid);
extern void cvx_catalog_follow(CvxSubscription *sub);
extern void cvx_catalog_bind(const CvxSubscription *sub);
extern void cvx_catalog_bind_target(const CvxSubscription *sub,
									CvxSubRel *rel);
extern CvxSubscription *cvx_catalog_check(const char *name);
extern void cvx_catalog_check_server(const CvxSubscription *sub);

#endif							/* CVX_SUB_READ_H */
