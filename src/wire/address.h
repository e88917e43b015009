/*
 * address.h
 *		Where may a connection go?
 *
 * Room: wire 1.0
 */
#ifndef CVX_ADDRESS_H
#define CVX_ADDRESS_H

struct sockaddr;

extern void cvx_address_init(void);
extern const char *cvx_address_setting(void);
extern bool cvx_address_is_allowed_host(const char *host);
extern bool cvx_address_is_allowed(const struct sockaddr *address,
								   const char *host, bool is_plain);

#endif							/* CVX_ADDRESS_H */
