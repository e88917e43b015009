/*
 * fdw_on_conflict.h
 *		Which INSERT has an ON CONFLICT that cannot be?
 *
 * Room: fdw 5.11
 */
#ifndef CVX_FDW_ON_CONFLICT_H
#define CVX_FDW_ON_CONFLICT_H

#include "ground/compat.h"

extern void cvx_on_conflict_init(void);
CVX_NORETURN extern void cvx_on_conflict_fail(void);

#endif							/* CVX_FDW_ON_CONFLICT_H */
