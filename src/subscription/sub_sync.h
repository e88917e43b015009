/*
 * sub_sync.h
 *		What is the next step, and when does the cursor move?
 *
 * Room: subscription 5.14
 */
#ifndef CVX_SUB_SYNC_H
#define CVX_SUB_SYNC_H

#include "subscription/sub_step.h"

extern CvxSync *cvx_sync_open(int32 subid, const CvxSyncHost *host);
extern CvxStep cvx_sync_step(CvxSync *sync);
extern void cvx_sync_end_pauses(CvxSync *sync);
extern TimestampTz cvx_sync_retry_at(CvxSync *sync);
extern TimestampTz cvx_sync_next_attempt(CvxSync *sync);
extern bool cvx_sync_has_changed(CvxSync *sync);
extern bool cvx_sync_fails_aside(CvxSync *sync);
extern int	cvx_sync_poll_interval_ms(CvxSync *sync);
extern int	cvx_sync_idle_poll_interval_ms(CvxSync *sync);
extern int	cvx_sync_holder(CvxSync *sync);
CVX_NORETURN extern void cvx_sync_rethrow(CvxSync *sync);
extern const char *cvx_sync_failure(CvxSync *sync);
extern bool cvx_sync_is_waiting(CvxSync *sync);
extern bool cvx_sync_has_changes(CvxSync *sync);
extern int	cvx_sync_pages(CvxSync *sync);
extern void cvx_sync_close(CvxSync *sync);

#endif							/* CVX_SUB_SYNC_H */
