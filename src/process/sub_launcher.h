/*
 * sub_launcher.h
 *		Which processes should exist?
 *
 * Room: process 6.3
 */
#ifndef CVX_SUB_LAUNCHER_H
#define CVX_SUB_LAUNCHER_H

extern void cvx_launcher_init(void);

#endif							/* CVX_SUB_LAUNCHER_H */
