/*
 * sql_sync.h
 *		How does a SQL user run a subscription, or wait for it?
 *
 * Room: sql 7.4
 */
#ifndef CVX_SQL_SYNC_H
#define CVX_SQL_SYNC_H

extern void cvx_call_refuse_read_only(void);
extern void cvx_call_begin(void);
extern void cvx_call_commit(void);

#endif							/* CVX_SQL_SYNC_H */
