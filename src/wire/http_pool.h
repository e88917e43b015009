/*
 * http_pool.h
 *		Which connections are kept, and which of them may work?
 *
 * Room: wire 1.3
 */
#ifndef CVX_HTTP_POOL_H
#define CVX_HTTP_POOL_H

#include "wire/http_curl.h"

extern bool cvx_pool_wake(CvxHttp *http);
extern bool cvx_pool_make_room(CvxHttp *http, int wanted);
extern CvxHttp *cvx_pool_next(CvxHttp *http);
extern bool cvx_pool_has_work(CvxHttp *http);
extern void cvx_pool_release(CvxHttp *http);

#endif							/* CVX_HTTP_POOL_H */
