/*
 * redact.h
 *		How is foreign text shown without the deploy key?
 *
 * Room: ground 0.2
 */
#ifndef CVX_REDACT_H
#define CVX_REDACT_H

#include "utils/elog.h"

extern void cvx_redact_learn(const char *secret);
extern bool cvx_redact_is_needed(const char *text, size_t len);
extern char *cvx_redact_excerpt(const char *text, size_t len);
extern char *cvx_redact_message(const char *message);
extern ErrorData *cvx_redact_error(const ErrorData *error);
extern void cvx_redact_current_error(void);

#endif							/* CVX_REDACT_H */
