/*
 * sub_failure.h
 *		What becomes of a failure?
 *
 * Room: subscription 5.10
 */
#ifndef CVX_SUB_FAILURE_H
#define CVX_SUB_FAILURE_H

#include "subscription/sub_catalog.h"

extern TimestampTz cvx_failure_record(int32 subid, const ErrorData *error);
extern void cvx_failure_note_loss(const CvxSubscription *sub,
								  const char *what);
extern void cvx_failure_forget(const CvxSubscription *sub);
extern void cvx_failure_end(const CvxSubscription *sub);
extern uint32 cvx_failure_fingerprint(const CvxRemote *remote);
extern uint32 cvx_failure_fingerprint_error(const ErrorData *error);

#endif							/* CVX_SUB_FAILURE_H */
