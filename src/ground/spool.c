/*
 * spool.c
 *		Where do bytes go that may outgrow memory?
 *
 * A spool is a string of bytes that is written at its end, read anywhere and
 * cut off anywhere.  It is in memory up to work_mem and in a temporary file
 * beyond.
 *
 * Room: ground 0.3
 */
#include "postgres.h"

#include "miscadmin.h"
#include "storage/buffile.h"
#include "utils/memutils.h"

#include "ground/compat.h"
#include "ground/spool.h"

#define FIRST_BYTES		8192

struct CvxSpool
{
	MemoryContext cxt;
	ResourceOwner owner;		/* of the temporary file */
	int64		len;
	char	   *memory;			/* NULL once there is a file */
	size_t		allocated;
	BufFile    *file;
};

static void move_to_file(CvxSpool *spool);
static void seek(CvxSpool *spool, int64 offset);

/*
 * An empty spool in the current context.  Its file, should it need one, ends
 * with the owner.
 */
CvxSpool *
cvx_spool_create(ResourceOwner owner)
{
	CvxSpool   *spool = palloc0(sizeof(CvxSpool));

	spool->cxt = CurrentMemoryContext;
	spool->owner = owner;
	spool->allocated = FIRST_BYTES;
	spool->memory = palloc(spool->allocated);
	return spool;
}

int64
cvx_spool_len(const CvxSpool *spool)
{
	return spool->len;
}

/* Add bytes at the end.  Throws when the temporary file cannot grow. */
void
cvx_spool_append(CvxSpool *spool, const void *data, size_t len)
{
	size_t		limit = (size_t) work_mem * 1024;

	if (spool->file == NULL && spool->len + len > limit)
		move_to_file(spool);
	if (spool->file != NULL)
	{
		seek(spool, spool->len);
		BufFileWrite(spool->file, (void *) data, len);
	}
	else
	{
		if (spool->len + len > spool->allocated)
		{
			while (spool->len + len > spool->allocated)
				spool->allocated *= 2;
			spool->memory = repalloc_huge(spool->memory, spool->allocated);
		}
		memcpy(spool->memory + spool->len, data, len);
	}
	spool->len += len;
}

/*
 * Copy bytes that have been written.  Throws XX000 when they are not there: an
 * offset may have outlived a cut, or come from the plan's rows.
 */
void
cvx_spool_read(CvxSpool *spool, int64 offset, void *data, size_t len)
{
	if (offset < 0 || offset > spool->len ||
		len > (size_t) (spool->len - offset))
		ereport(ERROR,
				(errcode(ERRCODE_INTERNAL_ERROR),
				 errmsg("spool of " INT64_FORMAT " bytes has no %zu bytes at offset " INT64_FORMAT,
						spool->len, len, offset)));
	if (spool->file == NULL)
	{
		memcpy(data, spool->memory + offset, len);
		return;
	}
	seek(spool, offset);
	if (BufFileRead(spool->file, data, len) != len)
		ereport(ERROR,
				(errcode_for_file_access(),
				 errmsg("could not read from a temporary file: %m")));
}

/*
 * Forget everything from an offset on.  What is written next gets the same
 * offsets again, so nobody may keep one beyond a cut.
 */
void
cvx_spool_truncate(CvxSpool *spool, int64 len)
{
	if (len < 0 || len > spool->len)
		ereport(ERROR,
				(errcode(ERRCODE_INTERNAL_ERROR),
				 errmsg("spool of " INT64_FORMAT " bytes cannot be cut at offset " INT64_FORMAT,
						spool->len, len)));
	spool->len = len;
}

/* Give back the file and the memory.  After an error that happens by itself. */
void
cvx_spool_free(CvxSpool *spool)
{
	if (spool->file)
		BufFileClose(spool->file);
	else
		pfree(spool->memory);
	pfree(spool);
}

static void
move_to_file(CvxSpool *spool)
{
	MemoryContext old = MemoryContextSwitchTo(spool->cxt);
	ResourceOwner owner = CurrentResourceOwner;

	/* As in tuplestore.c: after an error the abort puts the owner back. */
	CurrentResourceOwner = spool->owner;
	spool->file = BufFileCreateTemp(false);
	BufFileWrite(spool->file, spool->memory, spool->len);
	CurrentResourceOwner = owner;
	pfree(spool->memory);
	spool->memory = NULL;
	MemoryContextSwitchTo(old);
}

static void
seek(CvxSpool *spool, int64 offset)
{
	if (BufFileSeek(spool->file, 0, offset, SEEK_SET) != 0)
		ereport(ERROR,
				(errcode_for_file_access(),
				 errmsg("could not seek in a temporary file: %m")));
}
