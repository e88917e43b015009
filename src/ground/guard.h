/*
 * guard.h
 *		What does work fail with, when the transaction goes on?
 *
 * Room: ground 0.5
 */
#ifndef CVX_GUARD_H
#define CVX_GUARD_H

#include "ground/compat.h"

extern ErrorData *cvx_guard(void (*work) (void *arg), void *arg);

#endif							/* CVX_GUARD_H */
