/*
 * names.c
 *		Name resolution as the tests need it, by LD_PRELOAD.
 *
 * A host below .stall.test is never found, and telling so takes 30 s. A few
 * names below .test lead to addresses that must not be reached, or to loopback.
 * Everything else is resolved as always.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <netdb.h>
#include <string.h>
#include <time.h>

typedef int (*Resolver) (const char *, const char *, const struct addrinfo *,
						 struct addrinfo **);

static const struct
{
	const char *name;
	const char *addresses[2];
}			names[] = {
	{"loopback.test", {"127.0.0.1"}},
	{"private.test", {"10.1.2.3"}},
	{"metadata.test", {"169.254.169.254"}},
	{"this-network.test", {"0.0.0.0"}},
	{"private-first.test", {"10.1.2.3", "127.0.0.1"}},
	{"loopback-first.test", {"127.0.0.1", "10.1.2.3"}},
	{"two-families.test", {"127.0.0.1", "fd00::5"}},
};

int
getaddrinfo(const char *node, const char *service,
			const struct addrinfo *hints, struct addrinfo **result)
{
	Resolver	next = (Resolver) dlsym(RTLD_NEXT, "getaddrinfo");
	const char *stall = node ? strstr(node, ".stall.test") : NULL;
	struct timespec left = {30, 0};

	if (stall && strcmp(stall, ".stall.test") == 0)
	{
		while (nanosleep(&left, &left) != 0)
			;
		return EAI_AGAIN;
	}
	for (size_t i = 0; node && i < sizeof(names) / sizeof(names[0]); i++)
	{
		struct addrinfo **tail = result;

		if (strcmp(node, names[i].name) != 0)
			continue;
		for (int j = 0; j < 2 && names[i].addresses[j]; j++)
		{
			int			rc = next(names[i].addresses[j], service, hints, tail);

			if (rc != 0)
				return rc;
			while (*tail)
				tail = &(*tail)->ai_next;
		}
		return 0;
	}
	return next(node, service, hints, result);
}
