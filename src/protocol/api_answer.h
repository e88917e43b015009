/*
 * api_answer.h
 *		What does an answer say; may its request be sent again?
 *
 * What the files behind api.h share.
 *
 * Room: protocol 2.5
 */
#ifndef CVX_API_ANSWER_H
#define CVX_API_ANSWER_H

#include "protocol/api.h"

/*
 * Answers that become jsonb, which takes thirty times as much memory.  The
 * schemas of ten thousand tables are about as long.
 */
#define CVX_MAX_JSONB_BODY	(16 * 1024 * 1024)

extern void cvx_answer_fill_incident(CvxIncident *incident, CvxCall *call,
									 CvxHttp *http, const char *more);
extern CvxRepeat cvx_answer_repeat_read(const CvxAnswer *answer);
extern CvxRepeat cvx_answer_repeat_walk(const CvxAnswer *answer);
extern CvxRepeat cvx_answer_repeat_write(const CvxAnswer *answer);
extern CvxRepeat cvx_answer_repeat_keyed_write(const CvxAnswer *answer);
extern CvxRepeat cvx_answer_repeat_unconnected(const CvxAnswer *answer);
extern void cvx_answer_add_name(StringInfo body, const char *name);
extern void cvx_answer_context(void *arg);

#endif							/* CVX_API_ANSWER_H */
