/*
 * sub_load.h
 *		How does a table come in whole?
 *
 * Private to the room.
 *
 * Room: subscription 5.12
 */
#ifndef CVX_SUB_LOAD_H
#define CVX_SUB_LOAD_H

#include "subscription/sub_step.h"

extern bool cvx_load_mend_staging(CvxSubscription *sub, bool is_beginning);
extern bool cvx_load_mend_unlogged(const CvxSubscription *sub,
								   bool is_beginning);
extern bool cvx_load_sweep(CvxSync *sync);
extern List *cvx_load_portion(CvxSync *sync, List *rels);
extern bool cvx_load_is_shown(const CvxSubscription *sub,
							  const CvxSubRel *rel);
extern CvxStep cvx_load_next(CvxSync *sync, bool *is_done);
extern CvxStep cvx_load_cut_over(CvxSync *sync, List *rels, int64 ts);
extern CvxStep cvx_load_catch_up(CvxSync *sync, List *rels);
extern CvxStep cvx_load_ask_shown_from(CvxSync *sync);
extern void cvx_load_note_log_end(CvxSync *sync, int64 ts);
extern CvxStep cvx_load_behind(CvxSync *sync, const CvxLog *log,
							   const CvxPage *page);
extern bool cvx_load_may_restart(CvxSync *sync);
extern CvxStep cvx_load_everything(CvxSync *sync, const char *why);

#endif							/* CVX_SUB_LOAD_H */
