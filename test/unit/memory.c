/*
 * memory.c
 *		A process that cannot have large pieces of memory, by LD_PRELOAD.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>

/* PostgreSQL asks for less while it starts and works on small things. */
#define LARGEST_PIECE	(64UL << 20)

void *
realloc(void *old, size_t size)
{
	static void *(*next) (void *, size_t) = NULL;

	if (next == NULL)
		next = (void *(*) (void *, size_t)) dlsym(RTLD_NEXT, "realloc");
	if (size > LARGEST_PIECE)
	{
		errno = ENOMEM;
		return NULL;
	}
	return next(old, size);
}
