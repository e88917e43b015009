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

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include "tcop/pquery.h"
#include "utils/guc.h"

#include "wire/address.h"

typedef enum AddressKind
{
	ADDRESS_PUBLIC,
	ADDRESS_LOOPBACK,
	ADDRESS_PRIVATE				/* private, link-local, metadata, reserved */
} AddressKind;

/* convex_fdw.allowed_hosts */
static char *allowed_hosts = NULL;

/* Set while the setting is defined; see check_allowed_hosts(). */
static bool is_loading = false;

static bool check_allowed_hosts(char **newval, void **extra, GucSource source);
static const char *entry_problem(const char *entry, size_t len);
static bool is_entry_for(const char *entry, size_t len, const char *host);
static AddressKind address_kind(const struct sockaddr *address);
static AddressKind address4_kind(uint32 address);
static bool is_host_listed(const char *host);

/* Called once when the library is loaded. */
void
cvx_address_init(void)
{
	is_loading = true;
	DefineCustomStringVariable("convex_fdw.allowed_hosts",
							   "Hosts that Convex servers may point to.",
							   "A comma-separated list of host names; *.example.com allows every host below example.com.  Empty allows every public address and loopback.  Private addresses are reached only by hosts that are listed.",
							   &allowed_hosts,
							   "",
							   PGC_SUSET, 0,
							   check_allowed_hosts, NULL, NULL);
	is_loading = false;
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

/*
 * GUC check hook: each entry must be able to match a host.  Whoever sets the
 * list is told.  What a file, a database or a role brings along is taken with a
 * line in the log, and its bad entries match nothing: refused, it would leave
 * the default, which allows every public address.
 */
static bool
check_allowed_hosts(char **newval, void **extra, GucSource source)
{
	/* ALTER SYSTEM sets for the file, as a statement. */
	bool		is_set = source >= PGC_S_INTERACTIVE ||
		(source == PGC_S_FILE && ActivePortal != NULL && !is_loading);
	const char *p = *newval ? *newval : "";

	for (p += strspn(p, ", "); *p; p += strspn(p, ", "))
	{
		int			len = strcspn(p, ", ");
		const char *problem = entry_problem(p, len);

		if (problem && is_set)
		{
			GUC_check_errcode(ERRCODE_INVALID_PARAMETER_VALUE);
			GUC_check_errdetail("\"%.*s\": %s.", len, p, problem);
			GUC_check_errhint("List names of hosts or addresses, separated by commas; *.example.com is every host below example.com.");
			return false;
		}
		if (problem)
			ereport(LOG,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("entry \"%.*s\" of parameter \"convex_fdw.allowed_hosts\" allows no host",
							len, p),
					 errdetail_internal("It is not valid: %s.", problem)));
		p += len;
	}
	return true;
}

/* Why an entry can match no host; NULL: it can. */
static const char *
entry_problem(const char *entry, size_t len)
{
	char		address[INET6_ADDRSTRLEN];
	uint8		bytes[16];

	if (len > 2 && entry[0] == '[' && entry[len - 1] == ']')
	{
		entry++;
		len -= 2;
		if (memchr(entry, ':', len) == NULL)
			return "only an IPv6 address is written in brackets";
	}
	if (len == 1 && entry[0] == '*')
		return "\"*\" alone is not allowed; an empty list allows every public address";
	if (memmem(entry, len, "://", 3))
		return "write the host without a scheme";
	if (memchr(entry, ':', len))
	{
		snprintf(address, sizeof(address), "%.*s", (int) Min(len, INT_MAX), entry);
		if (len < sizeof(address) && inet_pton(AF_INET6, address, bytes) == 1)
			return NULL;
		return memchr(entry, ':', len) == memrchr(entry, ':', len) ||
			memchr(entry, ']', len) ? "write the host without a port" :
			"it is not an IPv6 address";
	}
	if (memchr(entry, '/', len))
		return "write the host without a path, or single addresses instead of a network";
	if (len > 2 && entry[0] == '*' && entry[1] == '.')
	{
		entry += 2;
		len -= 2;
	}
	if (len > 253)
		return "no name is so long";
	for (size_t i = 0; i < len; i++)
	{
		if (!strchr("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.",
					entry[i]))
			return entry[i] == '*' ? "\"*\" stands only before a dot at the beginning" :
				"a name of a host is letters, digits, \"-\", \"_\" and dots";
		if (entry[i] == '.' && (i == 0 || i == len - 1 || entry[i + 1] == '.'))
			return "a name of a host has no empty part";
	}
	return NULL;
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

	for (p += strspn(p, ", "); *p; p += strspn(p, ", "))
	{
		size_t		len = strcspn(p, ", ");

		if (entry_problem(p, len) == NULL && is_entry_for(p, len, host))
			return true;
		p += len;
	}
	return false;
}

/*
 * Does a valid entry allow the host, which has no brackets?  Addresses of IPv6
 * are compared as such, since there are many ways to write one.
 */
static bool
is_entry_for(const char *entry, size_t len, const char *host)
{
	size_t		hostlen = strlen(host);

	if (entry[0] == '[')
	{
		entry++;
		len -= 2;
	}
	if (memchr(entry, ':', len))
	{
		char		address[INET6_ADDRSTRLEN];
		uint8		listed[16];
		uint8		wanted[16];

		snprintf(address, sizeof(address), "%.*s", (int) len, entry);
		return inet_pton(AF_INET6, address, listed) == 1 &&
			inet_pton(AF_INET6, host, wanted) == 1 &&
			memcmp(listed, wanted, sizeof(listed)) == 0;
	}
	if (len == hostlen && pg_strncasecmp(entry, host, len) == 0)
		return true;
	return len > 2 && entry[0] == '*' && entry[1] == '.' && hostlen > len - 1 &&
		pg_strncasecmp(entry + 1, host + hostlen - (len - 1), len - 1) == 0;
}
