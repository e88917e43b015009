/*
 * address.c
 *		Where may a connection go?
 *
 * Two questions: may a server name this host at all, and, when the name has
 * been resolved, may a socket be opened to this address?  Nothing here
 * allocates or throws: libcurl's callbacks ask.
 *
 * Room: wire 1.0
 */
#include "postgres.h"

#include <netinet/in.h>
#include <sys/socket.h>

#include "utils/guc.h"

#include "address.h"

typedef enum AddressKind
{
	ADDRESS_PUBLIC,
	ADDRESS_LOOPBACK,
	ADDRESS_PRIVATE				/* private, link-local, metadata, reserved */
} AddressKind;

/* convex_fdw.allowed_hosts */
static char *allowed_hosts = NULL;

static AddressKind address_kind(const struct sockaddr *address);
static AddressKind address4_kind(uint32 address);
static bool is_host_listed(const char *host);

/* Called once when the library is loaded. */
void
cvx_address_init(void)
{
	DefineCustomStringVariable("convex_fdw.allowed_hosts",
							   "Hosts that Convex servers may point to.",
							   "A comma-separated list of host names; *.example.com allows every host below example.com.  Empty allows every public address and loopback.  Private addresses are reached only by hosts that are listed.",
							   &allowed_hosts,
							   "",
							   PGC_SUSET, 0,
							   NULL, NULL, NULL);
}

/* The setting; never NULL. */
const char *
cvx_address_setting(void)
{
	return allowed_hosts ? allowed_hosts : "";
}

/*
 * May a server point to this host at all?  (Its addresses are checked again
 * when a socket is opened.)
 */
bool
cvx_address_is_allowed_host(const char *host)
{
	return cvx_address_setting()[strspn(cvx_address_setting(), " ,")] == '\0' ||
		is_host_listed(host);
}

/*
 * May a socket be opened to an address that host was resolved to?  Private
 * ones only for listed hosts; unencrypted only to loopback (is_plain).
 */
bool
cvx_address_is_allowed(const struct sockaddr *address, const char *host,
					   bool is_plain)
{
	AddressKind kind = address_kind(address);

	if (kind == ADDRESS_PRIVATE && !is_host_listed(host))
		return false;
	return kind == ADDRESS_LOOPBACK || !is_plain;
}

static AddressKind
address_kind(const struct sockaddr *address)
{
	static const uint8 zeros[16] = {0};
	static const uint8 mapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
	static const uint8 nat64[12] = {0, 0x64, 0xff, 0x9b};
	static const uint8 local_nat64[6] = {0, 0x64, 0xff, 0x9b, 0, 1};
	const uint8 *b;
	uint32		v4;

	if (address->sa_family == AF_INET)
		return address4_kind(ntohl(((const struct sockaddr_in *) address)->sin_addr.s_addr));
	if (address->sa_family != AF_INET6)
		return ADDRESS_PRIVATE;
	b = ((const struct sockaddr_in6 *) address)->sin6_addr.s6_addr;
	if (memcmp(b, zeros, 15) == 0 && b[15] == 1)
		return ADDRESS_LOOPBACK;

	/* IPv4 in other clothes: compatible, mapped, NAT64, 6to4 */
	memcpy(&v4, b + 12, 4);
	if (memcmp(b, zeros, 12) == 0 || memcmp(b, mapped, 12) == 0 ||
		memcmp(b, nat64, 12) == 0)
		return address4_kind(ntohl(v4));
	memcpy(&v4, b + 2, 4);
	if (b[0] == 0x20 && b[1] == 0x02)
		return address4_kind(ntohl(v4));

	/* local-use NAT64, unique local, link-local, site-local, multicast */
	if (memcmp(b, local_nat64, sizeof(local_nat64)) == 0 ||
		(b[0] & 0xfe) == 0xfc || b[0] == 0xff ||
		(b[0] == 0xfe && (b[1] & 0x80) == 0x80))
		return ADDRESS_PRIVATE;
	return ADDRESS_PUBLIC;
}

/* address is in host byte order */
static AddressKind
address4_kind(uint32 address)
{
	static const struct
	{
		uint32		net;
		int			bits;
	}			reserved[] = {
		{0x00000000, 8},		/* this network; Linux takes it for loopback */
		{0x0a000000, 8},		/* private */
		{0x64400000, 10},		/* carrier-grade NAT; some metadata services */
		{0xa83f8110, 32},		/* Azure's metadata service */
		{0xa9fe0000, 16},		/* link-local; metadata services */
		{0xac100000, 12},		/* private */
		{0xc0000000, 24},		/* IETF; some metadata services */
		{0xc0a80000, 16},		/* private */
		{0xc6120000, 15},		/* benchmarks */
		{0xe0000000, 3},		/* multicast and reserved */
	};

	if (address >> 24 == 127)
		return ADDRESS_LOOPBACK;
	for (int i = 0; i < lengthof(reserved); i++)
		if (((address ^ reserved[i].net) >> (32 - reserved[i].bits)) == 0)
			return ADDRESS_PRIVATE;
	return ADDRESS_PUBLIC;
}

/* Is the host named in convex_fdw.allowed_hosts?  Allocates nothing. */
static bool
is_host_listed(const char *host)
{
	const char *p = cvx_address_setting();
	size_t		hostlen = strlen(host);

	while (*p)
	{
		size_t		len = strcspn(p, ", ");

		if (len == hostlen && pg_strncasecmp(p, host, len) == 0)
			return true;
		if (len > 2 && p[0] == '*' && p[1] == '.' && hostlen > len - 1 &&
			pg_strncasecmp(p + 1, host + hostlen - (len - 1), len - 1) == 0)
			return true;
		p += len;
		p += strspn(p, ", ");
	}
	return false;
}
