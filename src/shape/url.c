/*
 * url.c
 *		Where does a deployment's URL lead, and is a key made for it?
 *
 * A refused URL may hold a password, so its statement is not logged.
 *
 * Room: shape 3.2
 */
#include "postgres.h"

#include "utils/formatting.h"

#include "shape/url.h"

/* So much is shown of a deployment's name. */
#define MAX_SHOWN		64

static bool has_empty_label(const char *host, size_t len);
static void refuse_url(const char *why, const char *hint);
static bool is_loopback_host(const char *host);
static bool ends_with(const char *text, const char *end);

/*
 * Is a key of the form <kind>:<deployment>|... made for another deployment
 * than the host's?  NULL: no, or that cannot be told from here.
 */
char *
cvx_url_key_problem(const char *key, const char *host)
{
	const char *colon = strchr(key, ':');
	const char *bar = strchr(key, '|');
	size_t		hostlen = strcspn(host, ".");
	size_t		len;

	if (colon == NULL || bar == NULL || bar < colon ||
		memchr(colon + 1, ':', bar - colon - 1) != NULL ||
		strncmp(key, "preview:", 8) == 0 || strncmp(key, "project:", 8) == 0)
		return NULL;
	if (!ends_with(host, ".convex.cloud"))
		return NULL;

	/* <name>.convex.cloud or <name>.<region>.convex.cloud */
	if (strlen(host) - hostlen != strlen(".convex.cloud"))
	{
		const char *region = host + hostlen + 1;

		if (strcmp(region + strcspn(region, "."), ".convex.cloud") != 0)
			return NULL;
	}
	len = bar - colon - 1;
	if (len == hostlen && pg_strncasecmp(colon + 1, host, len) == 0)
		return NULL;
	return psprintf("The key names deployment \"%.*s\", the server's host \"%s\".",
					(int) Min(len, MAX_SHOWN), colon + 1, host);
}

/*
 * Take a deployment's URL apart: base_url, host, is_plain of remote, in the
 * current context.
 */
void
cvx_url_parse(const char *url, bool allow_http, CvxRemote *remote)
{
	const char *p;
	const char *host;
	size_t		hostlen;
	bool		is_bracketed;

	if (pg_strncasecmp(url, "https://", 8) == 0)
		remote->is_plain = false;
	else if (pg_strncasecmp(url, "http://", 7) == 0)
		remote->is_plain = true;
	else
		refuse_url("it must begin with https://",
				   "For example: https://happy-otter-123.convex.cloud");
	p = host = strchr(url, '/') + 2;
	if (p[strcspn(p, "@?#")] == '@')
		refuse_url("it must not hold a user or password",
				   "Set the deploy key in CREATE USER MAPPING.");
	is_bracketed = *p == '[';
	if (is_bracketed)
	{
		host = ++p;
		hostlen = strspn(p, "0123456789abcdefABCDEF:.");
		p += hostlen;
		if (*p != ']')
			refuse_url("its IPv6 address does not end with \"]\"", NULL);
		p++;
	}
	else
	{
		hostlen = strspn(p, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._");
		p += hostlen;
	}
	if (hostlen == 0 || hostlen > 253 ||
		(!is_bracketed && has_empty_label(host, hostlen)))
		refuse_url("it has no valid host name", NULL);
	if (*p == ':')
	{
		int			port = 0;
		const char *digits = ++p;

		for (; *p >= '0' && *p <= '9' && p - digits < 6; p++)
			port = port * 10 + (*p - '0');
		if (port < 1 || port > 65535)
			refuse_url("its port is not between 1 and 65535", NULL);
	}
	remote->base_url = pnstrdup(url, p - url);
	if (*p == '/' && p[1] == '\0')
		p++;
	if (*p != '\0')
		refuse_url("it must be only scheme, host and port, without a path or query",
				   NULL);
	remote->host = asc_tolower(host, hostlen);
	if (ends_with(remote->host, ".convex.site"))
		refuse_url("a .convex.site host serves HTTP actions only",
				   psprintf("Use https://%.*s.convex.cloud instead.",
							(int) (strlen(remote->host) - strlen(".convex.site")),
							remote->host));
	if (remote->is_plain && !allow_http && !is_loopback_host(remote->host))
		refuse_url("plain http is only for loopback addresses",
				   "Use https; a superuser can set allow_insecure_http.");
}

/* Also a trailing dot: it would get round the rules about host names. */
static bool
has_empty_label(const char *host, size_t len)
{
	for (size_t i = 0; i < len; i++)
		if (host[i] == '.' && (i == 0 || i == len - 1 || host[i + 1] == '.'))
			return true;
	return false;
}

static void
refuse_url(const char *why, const char *hint)
{
	/* A user, a password or a query may be in it, so it is not logged. */
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("invalid value for option \"deployment_url\": %s", why),
			 hint ? errhint("%s", hint) : 0,
			 errhidestmt(true),
			 errhidecontext(true)));
}

static bool
is_loopback_host(const char *host)
{
	return strcmp(host, "localhost") == 0 || ends_with(host, ".localhost") ||
		strcmp(host, "::1") == 0 ||
		(strncmp(host, "127.", 4) == 0 &&
		 host[strspn(host, "0123456789.")] == '\0');
}

static bool
ends_with(const char *text, const char *end)
{
	size_t		len = strlen(text);

	return len >= strlen(end) && strcmp(text + len - strlen(end), end) == 0;
}
