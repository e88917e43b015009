/*
 * sub_state.h
 *		What may become of a subscription and of its tables?
 *
 * Room: subscription 5.5
 */
#ifndef CVX_SUB_STATE_H
#define CVX_SUB_STATE_H

#include "subscription/sub_catalog.h"

/* When does the load of a table begin? */
typedef enum CvxLoadStart
{
	CVX_START_NOW,
	CVX_START_NEW,				/* now, and it gets a new target */
	CVX_START_AGAIN,			/* after a pause, from the fourth time in a row on */
	CVX_START_LATER				/* in an hour: it cannot keep up */
} CvxLoadStart;

extern void cvx_state_want(const CvxSubscription *sub, const CvxSubRel *rel,
						   CvxLoadStart start, const char *kind,
						   const char *why);
extern void cvx_state_want_everything(const CvxSubscription *sub,
									  const char *url, const char *why);
extern void cvx_state_stage(const CvxSubscription *sub, CvxSubRel *rel);
extern void cvx_state_unstage(const CvxSubscription *sub, CvxSubRel *rel);
extern void cvx_state_begin_walk(const CvxSubscription *sub);
extern void cvx_state_count(const CvxSubscription *sub, const CvxSubRel *rel,
							int64 rows, const char *tablet);
extern void cvx_state_walk_on(const CvxSubscription *sub, const CvxPage *page,
							  const CvxHttpStats *costs);
extern void cvx_state_abandon(const CvxSubscription *sub, bool is_whole,
							  const char *why);
extern void cvx_state_restart(const CvxSubscription *sub, bool is_aside,
							  bool gives_up);
extern void cvx_state_catch_up(const CvxSubscription *sub,
							   const CvxSubRel *rel);
extern void cvx_state_catch_up_to(const CvxSubscription *sub, List *rels,
								  int64 ts, int64 rows,
								  const CvxHttpStats *costs);
extern void cvx_state_ready(const CvxSubscription *sub, CvxSubRel *rel,
							int64 ts);
extern void cvx_state_end_loads(const CvxSubscription *sub, bool is_checked,
								bool wants_check);
extern void cvx_state_fail(const CvxSubscription *sub, const CvxSubRel *rel,
						   int64 stands_at, const ErrorData *error);
extern void cvx_state_drop(const CvxSubscription *sub, CvxSubRel *rel);
extern void cvx_state_end_pauses(int32 subid);
extern void cvx_state_advance(const CvxSubscription *sub, int64 cursor,
							  int64 head, bool has_more, int64 rows,
							  const CvxHttpStats *costs);
extern void cvx_state_note_deployment(const CvxSubscription *sub,
									  const char *url);
extern void cvx_state_show_from(const CvxSubscription *sub, int64 ts);
extern void cvx_state_ask(int32 subid, bool wants_check);
extern void cvx_state_want_check(int32 subid);
extern void cvx_state_end_check(int32 subid);
extern void cvx_state_checked(const CvxSubscription *sub,
							  const CvxSubRel *rel, const char *cursor,
							  const char *id, const char *tablet);
extern void cvx_state_check_anew(const CvxSubscription *sub,
								 const CvxSubRel *rel);

#endif							/* CVX_SUB_STATE_H */
