/*
 * sub_events.h
 *		Which events, and which errors of tables, are told?
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
extern void cvx_catalog_rel_error(const CvxSubscription *sub,
								  const CvxSubRel *rel, int64 synced_ts,
								  const ErrorData *error);

#endif							/* CVX_SUB_EVENTS_H */
