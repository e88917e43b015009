/*
 * guard.c
 *		What does work fail with, when the transaction goes on?
 *
 * Which errors may be passed over is up to the caller, who throws the others
 * again.
 *
 * Room: ground 0.5
 */
#include "postgres.h"

#include "access/xact.h"
#include "utils/memutils.h"
#include "utils/resowner.h"

#include "ground/guard.h"

/*
 * Work within a subtransaction.  NULL when all went well; otherwise what was
 * done is undone, and this is the error, in the caller's context.
 */
ErrorData *
cvx_guard(void (*work) (void *arg), void *arg)
{
	MemoryContext cxt = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	ErrorData  *volatile error = NULL;

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(cxt);
	PG_TRY();
	{
		work(arg);
		ReleaseCurrentSubTransaction();
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(cxt);
		error = CopyErrorData();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
	}
	PG_END_TRY();
	MemoryContextSwitchTo(cxt);
	CurrentResourceOwner = owner;
	return error;
}
