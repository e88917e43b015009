/*
 * url.h
 *		Where does a deployment's URL lead, and is a key made for it?
 *
 * Room: shape 3.2
 */
#ifndef CVX_URL_H
#define CVX_URL_H

#include "wire/http.h"

extern void cvx_url_parse(const char *url, bool allow_http, CvxRemote *remote);
extern char *cvx_url_key_problem(const char *key, const char *host);

#endif							/* CVX_URL_H */
