/*
 * sub_events.h
 *		What has happened to a subscription?
 *
 * Room: subscription 5.3
 */
#ifndef CVX_SUB_EVENTS_H
#define CVX_SUB_EVENTS_H

#include "subscription/sub_catalog.h"

extern void cvx_catalog_event(int32 subid, const char *kind,
							  const CvxSubRel *rel, const char *detail);
extern void cvx_catalog_trim_events(int32 subid);
extern void cvx_catalog_drift(int32 subid, const CvxSubRel *rel,
							  const char *detail);

#endif							/* CVX_SUB_EVENTS_H */
