/*
 * fdw_snapshot.c
 *		Which Convex snapshot belongs to a PostgreSQL snapshot?
 *
 * Invariants:
 *	1. Two scans of one server use the same Convex snapshot exactly if
 *	   PostgreSQL gives them the same snapshot.
 *	2. A PostgreSQL snapshot is told by its address, and that address cannot
 *	   be used again while an entry names it: the entry holds a registration.
 *	3. In REPEATABLE READ and SERIALIZABLE there is one entry per server and
 *	   transaction, and one for each convex_fdw.snapshot that is set in it.
 *	4. An entry whose registration is the last use of its snapshot is dropped
 *	   when a resource owner is released, so that no xmin is held back, and
 *	   when another is made, so that a loop does not collect them.
 *
 * Room: fdw 5.1
 */
#include "postgres.h"

#include "access/parallel.h"
#include "access/xact.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/memutils.h"

#include "ground/compat.h"
#include "fdw/fdw_snapshot.h"

/* convex_fdw.snapshot: text, because it exceeds every integer setting. */
static char *pinned_snapshot = NULL;

#define PINNED_HINT "Give a timestamp in nanoseconds, as convex_snapshot() returns it, or an empty string."

/* Entries of this transaction, in TopTransactionContext. */
static List *entries = NIL;

/* Set once the setting is the library's own; written by cvx_snapshot_init(). */
static bool is_defined = false;

static bool check_pinned(char **value, void **extra, GucSource source);
static bool parse_pinned(const char *text, int64 *ts);
static void forget_all(XactEvent event, void *arg);
static void drop_at_release(ResourceReleasePhase phase, bool isCommit,
							bool isTopLevel, void *arg);
static void drop_unused(void);

/* Called once when the library is loaded. */
void
cvx_snapshot_init(void)
{
	DefineCustomStringVariable("convex_fdw.snapshot",
							   "Timestamp at which Convex tables are read.",
							   "Nanoseconds since 1970 as Convex tells them, for example by convex_snapshot().  Empty reads at the server's head.",
							   &pinned_snapshot,
							   "",
							   PGC_USERSET, 0,
							   check_pinned, NULL, NULL);
	is_defined = true;
	RegisterXactCallback(forget_all, NULL);
	RegisterResourceReleaseCallback(drop_at_release, NULL);
}

/*
 * The entry for a server and a PostgreSQL snapshot (that of an executor, or
 * the active one), made when there is none.  pinned is convex_fdw.snapshot as
 * it was when the executor started: a cursor keeps what it began with.
 */
CvxSnapshot *
cvx_snapshot_get(Oid serverid, Snapshot pg, int64 pinned)
{
	CvxSnapshot *entry;
	MemoryContext old;
	ListCell   *lc;

	if (IsolationUsesXactSnapshot())
		pg = NULL;
	foreach(lc, entries)
	{
		entry = lfirst(lc);
		if (entry->serverid == serverid && entry->pg == pg &&
			(pg != NULL || entry->pinned == pinned))
			return entry;
	}
	drop_unused();
	old = MemoryContextSwitchTo(TopTransactionContext);
	entry = palloc0(sizeof(CvxSnapshot));
	entry->serverid = serverid;
	entry->pinned = entry->ts = pinned;
	entries = lappend(entries, entry);
	MemoryContextSwitchTo(old);
	if (pg != NULL)
		entry->pg = RegisterSnapshotOnOwner(pg, TopTransactionResourceOwner);
	return entry;
}

/*
 * The timestamp that the session has pinned, or 0.  Throws 22023.
 */
int64
cvx_snapshot_pinned(void)
{
	int64		ts;

	if (!parse_pinned(pinned_snapshot, &ts))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid value for parameter \"convex_fdw.snapshot\": \"%s\"",
						pinned_snapshot),
				 errhint(PINNED_HINT)));
	return ts;
}

/*
 * SET refuses what is no timestamp.  A value that was set before the library
 * was loaded is kept, and so is the leader's in a parallel worker: it would
 * fall back to the head with no more than a warning, or end queries that read
 * nothing of Convex.  A scan refuses it.
 */
static bool
check_pinned(char **value, void **extra, GucSource source)
{
	int64		ts;

	if (!is_defined || InitializingParallelWorker || parse_pinned(*value, &ts))
		return true;
	GUC_check_errhint(PINNED_HINT);
	return false;
}

/* False when the text is neither a timestamp nor empty, which is 0. */
static bool
parse_pinned(const char *text, int64 *ts)
{
	char	   *end;

	*ts = 0;
	if (text == NULL || text[0] == '\0')
		return true;
	errno = 0;
	*ts = strtoll(text, &end, 10);
	return errno == 0 && *end == '\0' && *ts > 0;
}

static void
forget_all(XactEvent event, void *arg)
{
	ListCell   *lc;

	switch (event)
	{
		case XACT_EVENT_PRE_COMMIT:
		case XACT_EVENT_PARALLEL_PRE_COMMIT:
		case XACT_EVENT_PRE_PREPARE:
			foreach(lc, entries)
			{
				CvxSnapshot *entry = lfirst(lc);

				if (entry->pg != NULL)
					UnregisterSnapshotFromOwner(entry->pg,
												TopTransactionResourceOwner);
				entry->pg = NULL;
			}
			entries = NIL;
			break;
		case XACT_EVENT_ABORT:
		case XACT_EVENT_PARALLEL_ABORT:
			/* The resource owner gives the registrations back. */
			entries = NIL;
			break;
		default:
			break;
	}
}

/* Resource owner callback: the end of a portal or subtransaction. */
static void
drop_at_release(ResourceReleasePhase phase, bool isCommit, bool isTopLevel,
				void *arg)
{
	if (phase == RESOURCE_RELEASE_AFTER_LOCKS && !isTopLevel)
		drop_unused();
}

static void
drop_unused(void)
{
	ListCell   *lc;

	foreach(lc, entries)
	{
		CvxSnapshot *entry = lfirst(lc);

		if (entry->pg == NULL || entry->asker != NULL ||
			entry->pg->regd_count > 1 || entry->pg->active_count > 0)
			continue;
		UnregisterSnapshotFromOwner(entry->pg, TopTransactionResourceOwner);
		entries = foreach_delete_current(entries, lc);
		pfree(entry);
	}
}
