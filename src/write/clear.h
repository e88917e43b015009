/*
 * clear.h
 *		May these tables be emptied?
 *
 * Room: write 4.7
 */
#ifndef CVX_CLEAR_H
#define CVX_CLEAR_H

#include "wire/http.h"

/* Told of a server whose tables are about to be swapped behind the change log. */
typedef void (*CvxClearListener) (Oid serverid);

extern void cvx_clear_init(void);
extern void cvx_clear_listen(CvxClearListener listener);
extern void cvx_clear_announce(Oid serverid);
extern void cvx_clear_check_names(CvxHttp *http, const char *const *tables,
								  int ntables);

#endif							/* CVX_CLEAR_H */
