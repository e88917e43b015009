/*
 * sub.h
 *		What do the files of the subscriptions share?
 *
 * Private to the room and to the doors above it.
 *
 * Room: subscription 4.0
 */
#ifndef CVX_SUB_H
#define CVX_SUB_H

#include "utils/timestamp.h"

#include "api.h"
#include "options.h"

/* ---- sub_sync.c: what is the next step, and when does the cursor move? */

typedef struct CvxSync CvxSync;

typedef enum CvxStep
{
	CVX_STEP_WORKED,			/* progress: call again at once */
	CVX_STEP_IDLE,				/* caught up: again after the poll interval */
	CVX_STEP_FAILED,			/* recorded; again at next_attempt */
	CVX_STEP_BUSY_ELSEWHERE,	/* another process steps this subscription */
	CVX_STEP_GONE				/* dropped or disabled */
} CvxStep;

/* How the hosting process begins and ends transactions. */
typedef struct CvxSyncHost
{
	void		(*begin) (void);
	void		(*commit) (void);
	void		(*rollback) (void);
	bool		is_worker;
} CvxSyncHost;

extern CvxSync *cvx_sync_open(int32 subid, const CvxSyncHost *host);
extern CvxStep cvx_sync_step(CvxSync *sync);
extern TimestampTz cvx_sync_next_attempt(CvxSync *sync);
extern int	cvx_sync_poll_interval_ms(CvxSync *sync);
extern int	cvx_sync_idle_poll_interval_ms(CvxSync *sync);
extern int	cvx_sync_holder(CvxSync *sync);
extern void cvx_sync_close(CvxSync *sync);

/* ---- sub_worker.c, sub_launcher.c: see there */

extern void cvx_worker_wake(Oid dbid, int32 subid);
extern void cvx_launcher_wake(void);

#endif							/* CVX_SUB_H */
