/*
 * keylock.h
 *		Who of this cluster may write a row now?
 *
 * Room: write 4.2
 */
#ifndef CVX_KEYLOCK_H
#define CVX_KEYLOCK_H

#include "write/queue.h"

typedef struct CvxKeyLocks CvxKeyLocks;

extern CvxKeyLocks *cvx_keylock_begin(const char *base_url);
extern void cvx_keylock_add(CvxKeyLocks *locks, const char *table,
							const char *key, int key_len);
extern void cvx_keylock_add_table(CvxKeyLocks *locks, const char *table);
extern void cvx_keylock_acquire(CvxKeyLocks *locks);
extern void cvx_keylock_release(CvxKeyLocks *locks);

#endif							/* CVX_KEYLOCK_H */
