/*
 * sub_state.c
 *		What may become of a subscription and of its tables?
 *
 * No other file writes the columns `state`, `load` and `phase`, nor what goes
 * with them: is_staged, snapshot, synced_ts, attempts, retry_at, error_code,
 * error_message, copied_rows, tablet and the columns of checks; cursor, reload,
 * page_cursor, load_restarts, load_started_at, load_pages, shown_from.  (The
 * names and numbers of targets are sub_read's, their columns sub_target's, the
 * failures of a subscription sub_failure's.)  Each function is one transition,
 * within its caller's transaction.
 *
 * A table is in one of these pairs; the CHECK constraints of the catalog say
 * the same:
 *
 *	state		load			its rows
 *	joining		not NULL		there are none yet
 *	ready		NULL			stand at the cursor
 *	resyncing	not NULL		the old ones stand at the cursor, until the new
 *								ones are shown
 *	error		not NULL		stand still: the target refused some, or changes
 *								are missing between them and the cursor
 *	dropped		NULL			stay as they were: Convex has the table no more
 *
 *	load		is_staged		synced_ts	snapshot	it waits for
 *	NULL		until swept		NULL (1)	any			-
 *	wanted		perhaps (2)		NULL		any			retry_at, then a walk
 *	walking		yes				NULL		NULL		its pages
 *	indexing	yes				NULL		not NULL	its key
 *	catching_up	perhaps (3)		not NULL	any			changes, from synced_ts on
 *
 * (1) of a dropped table where it stood.  (2) a new staging table, or one that
 * is of no use and not swept yet.  (3) no: the target itself stands there; it
 * was mended, or shown before the others of its load.
 *
 *		wanted --begin_walk--> walking --walk_on--> indexing --catch_up-->
 *		catching_up --catch_up_to--> catching_up --ready--> NULL
 *
 * and from everywhere back to wanted by want(), want_everything() and, for all
 * that share a walk, abandon(): the selection of a walk never changes.
 * fail() keeps what was under way, and gives NULL the load catching_up.
 *
 * A subscription's phase:
 *
 *	starting		no load has begun; cursor is NULL
 *	loading			cursor is NULL
 *	reloading		reload is true: the cursor is of no use, or not set yet
 *	following		cursor is not NULL
 *	load_too_slow	nothing is done until somebody asks
 *
 * That it fails is told by failing_since, beside the phase.
 *
 * Who may call, and what may come in between.  Processes that step the
 * subscription hold its advisory lock, and call after cvx_step_still_at() has
 * locked its row and found generation, cursor, snapshot and page as they were
 * when the step began.  SQL functions have locked the subscription's row, which
 * a step locks FOR SHARE, and call ask() before they end, which moves the
 * generation: a step under way then leaves nothing.  Thus:
 *	- resync_table, or a table that Convex has no more, while its walk goes on:
 *	  the page under way is lost, and the walk begins anew without it.
 *	- disabled, or altered, while a page is applied: it waits for the commit, or
 *	  the page is lost; never half of it.
 *	- convex_drop_tables in portions: each leaves tables wanted, and the
 *	  subscription disabled.
 *	- a target that is dropped while its load goes on: the load goes on, and
 *	  fails when the rows are to be shown (42P01).
 *	- a restore: the rows come as they were, disabled; the staging tables are
 *	  gone, which sub_load finds and wants the tables again.
 *	- a process that dies: what is committed counts.
 *
 * Room: subscription 5.5
 */
#include "postgres.h"

#include "utils/builtins.h"

#include "ground/compat.h"
#include "ground/redact.h"
#include "subscription/sub_catalog.h"
#include "subscription/sub_events.h"
#include "subscription/sub_state.h"

/*
 * Loads that were of no use and are begun anew at once; after that the table
 * waits in between, for as long as the load took and at least a while: an
 * import under way may make it differ from Convex for hours.
 */
#define MAX_RELOADS			3

/* What a page cost; of the table of states, with parameters 2 to 5. */
#define COSTS \
	"rows = rows + $2, pages = pages + 1, bytes = bytes + $3," \
	" requests = requests + $4, retries = retries + $5"

/* The phase of a subscription that does something. */
#define PHASE \
	"CASE WHEN reload THEN 'reloading' WHEN cursor IS NULL THEN 'loading' ELSE 'following' END"

static void change(const CvxSubscription *sub, const CvxSubRel *rel,
				   const char *from, const char *sets);
static void forget_walk(const CvxSubscription *sub);

/*
 * A table is to be loaded again, and says why until its rows are shown, with an
 * event of this kind if it has one.
 */
void
cvx_state_want(const CvxSubscription *sub, const CvxSubRel *rel,
			   CvxLoadStart start, const char *kind, const char *why)
{
	cvx_catalog_run(SPI_OK_UPDATE,
					"UPDATE @.convex_subscription_rel SET load = 'wanted', synced_ts = NULL,"
					" state = CASE WHEN $3 THEN 'joining' WHEN state = 'ready' THEN 'resyncing' WHEN state = 'dropped' THEN 'error' ELSE state END,"
					" target_oid = CASE WHEN $3 THEN 0 ELSE target_oid END,"
					" attempts = attempts + $4::int, retry_at = CASE"
					" WHEN $5 THEN clock_timestamp() + interval '1 h'"
					" WHEN $4 AND attempts >= $6 THEN clock_timestamp() +"
					" greatest(least(interval '1 s' * power(2, least(attempts - $6, 9)), interval '5 min'),"
					" (SELECT clock_timestamp() - load_started_at FROM @.convex_subscription_state WHERE subid = $1)) END,"
					" error_code = NULL, error_message = $7 WHERE subid = $1 AND relno = $2",
					"iibbbit", sub->subid, rel->relno, start == CVX_START_NEW,
					start == CVX_START_AGAIN, start == CVX_START_LATER,
					MAX_RELOADS, why);
	if (kind)
		cvx_catalog_event(sub->subid, kind, rel, why);
}

/* The cursor is of no use: all tables are loaded again, beside their old rows. */
void
cvx_state_want_everything(const CvxSubscription *sub, const char *url,
						  const char *why)
{
	cvx_catalog_run(0,
					"UPDATE @.convex_subscription_rel SET load = 'wanted', synced_ts = NULL,"
					" error_message = CASE WHEN state = 'error' THEN error_message ELSE $2 END,"
					" state = CASE WHEN state = 'ready' THEN 'resyncing' ELSE state END"
					" WHERE subid = $1 AND state <> 'dropped'", "it", sub->subid, why);
	cvx_catalog_run(SPI_OK_UPDATE,
					"UPDATE @.convex_subscription_state SET reload = true, phase = 'reloading', head_ts = NULL, caught_up = false,"
					" snapshot = NULL, page_cursor = NULL, deployment_url = $2 WHERE subid = $1",
					"it", sub->subid, url);
	cvx_catalog_event(sub->subid, "resnapshot", NULL, why);
}

/* A table that is to be loaded has got its staging table, without rows. */
void
cvx_state_stage(const CvxSubscription *sub, CvxSubRel *rel)
{
	change(sub, rel, "load = 'wanted'",
		   "is_staged = true, copied_rows = 0, snapshot = NULL");
	rel->is_staged = true;
}

/*
 * It has none any more: another one shows its rows, or they are of no use, or
 * they are what the target has now.
 */
void
cvx_state_unstage(const CvxSubscription *sub, CvxSubRel *rel)
{
	change(sub, rel, "load IS NULL OR load IN ('wanted', 'catching_up')",
		   "is_staged = false");
	rel->is_staged = false;
}

/* All tables that are wanted, due and staged walk together from now on. */
void
cvx_state_begin_walk(const CvxSubscription *sub)
{
	cvx_catalog_run(0,
					"UPDATE @.convex_subscription_rel SET load = 'walking', snapshot = NULL, tablet = NULL,"
					" check_cursor = NULL, check_id = NULL WHERE subid = $1 AND load = 'wanted' AND is_staged"
					" AND (retry_at IS NULL OR retry_at <= clock_timestamp())", "i",
					sub->subid);
	cvx_catalog_run(SPI_OK_UPDATE,
					"UPDATE @.convex_subscription_state SET snapshot = NULL, page_cursor = NULL,"
					" load_started_at = clock_timestamp(), load_pages = 0, phase = " PHASE
					" WHERE subid = $1", "i", sub->subid);
}

/* Rows have come into the staging table; of this tablet, if it is known. */
void
cvx_state_count(const CvxSubscription *sub, const CvxSubRel *rel, int64 rows,
				const char *tablet)
{
	cvx_catalog_run(SPI_OK_UPDATE,
					"UPDATE @.convex_subscription_rel SET copied_rows = copied_rows + $3,"
					" tablet = coalesce($4, tablet) WHERE subid = $1 AND relno = $2",
					"iilt", sub->subid, rel->relno, rows, tablet);
}

/* A page of the walk has been taken in; with the last one it ends. */
void
cvx_state_walk_on(const CvxSubscription *sub, const CvxPage *page,
				  const CvxHttpStats *costs)
{
	if (!page->has_more)
		cvx_catalog_run(SPI_OK_UPDATE,
						"UPDATE @.convex_subscription_rel SET load = 'indexing', snapshot = $2"
						" WHERE subid = $1 AND load = 'walking'", "il",
						sub->subid, page->ts);
	cvx_catalog_run(SPI_OK_UPDATE,
					"UPDATE @.convex_subscription_state SET " COSTS ", snapshot = $6, page_cursor = $7,"
					" load_pages = load_pages + 1 WHERE subid = $1", "illlllt",
					sub->subid, (int64) page->ndocs, costs->bytes,
					costs->requests, costs->retries, page->ts,
					page->has_more ? page->cursor : NULL);
}

/*
 * A table leaves a walk, whose selection never changes: all that share it are
 * wanted again; is_whole: and all that were loaded before, and not shown.
 */
void
cvx_state_abandon(const CvxSubscription *sub, bool is_whole, const char *why)
{
	cvx_catalog_run(0,
					"UPDATE @.convex_subscription_rel SET load = 'wanted', synced_ts = NULL, error_message = $3"
					" WHERE subid = $1 AND (load = 'walking' OR $2 AND load <> 'wanted')", "ibt",
					sub->subid, is_whole, why);
	cvx_catalog_run(SPI_OK_UPDATE,
					"UPDATE @.convex_subscription_state SET snapshot = NULL, page_cursor = NULL WHERE subid = $1",
					"i", sub->subid);
}

/*
 * A walk has begun anew, or tables that cannot catch up; is_aside: while others
 * are followed.  Once too often, and nothing is followed: it gives up.
 */
void
cvx_state_restart(const CvxSubscription *sub, bool is_aside, bool gives_up)
{
	forget_walk(sub);
	cvx_catalog_run(SPI_OK_UPDATE,
					"UPDATE @.convex_subscription_state SET load_restarts = CASE WHEN $3 THEN 0 ELSE load_restarts + 1 END,"
					" phase = CASE WHEN $2 THEN 'load_too_slow' ELSE phase END WHERE subid = $1",
					"ibb", sub->subid, gives_up && !is_aside, gives_up && is_aside);
}

/* A loaded table has its key; what is shown must not be older than now. */
void
cvx_state_catch_up(const CvxSubscription *sub, const CvxSubRel *rel)
{
	change(sub, rel, "load = 'indexing'",
		   "load = 'catching_up', synced_ts = snapshot, retry_at = NULL");
	cvx_state_show_from(sub, 0);
}

/* Tables that catch up stand at ts, but those that failed meanwhile. */
void
cvx_state_catch_up_to(const CvxSubscription *sub, List *rels, int64 ts,
					  int64 rows, const CvxHttpStats *costs)
{
	ListCell   *lc;

	foreach(lc, rels)
		cvx_catalog_run(0,
						"UPDATE @.convex_subscription_rel SET synced_ts = $3 WHERE subid = $1 AND relno = $2"
						" AND load = 'catching_up' AND (retry_at IS NULL OR retry_at <= clock_timestamp())",
						"iil", sub->subid, ((CvxSubRel *) lfirst(lc))->relno, ts);
	cvx_catalog_run(SPI_OK_UPDATE,
					"UPDATE @.convex_subscription_state SET " COSTS " WHERE subid = $1",
					"illll", sub->subid, rows, costs->bytes, costs->requests,
					costs->retries);
}

/* A table stands at the cursor, which is ts. */
void
cvx_state_ready(const CvxSubscription *sub, CvxSubRel *rel, int64 ts)
{
	change(sub, rel, "load = 'catching_up'",
		   "state = 'ready', load = NULL, is_staged = false, synced_ts = NULL, attempts = 0,"
		   " retry_at = NULL, error_code = NULL, error_message = NULL");
	cvx_catalog_event(sub->subid, rel->state == CVX_REL_JOINING ? "table_joined" : "table_resynced",
					  rel, psprintf("at " INT64_FORMAT, ts));
}

/* Loaded tables are shown; all that are compared was compared just now. */
void
cvx_state_end_loads(const CvxSubscription *sub, bool is_checked,
					bool wants_check)
{
	forget_walk(sub);
	cvx_catalog_run(SPI_OK_UPDATE,
					"UPDATE @.convex_subscription_state SET load_restarts = 0, check_wanted = check_wanted OR $2,"
					" checked_at = CASE WHEN $3 THEN clock_timestamp() ELSE checked_at END WHERE subid = $1",
					"ibb", sub->subid, wants_check, is_checked);
}

/*
 * A table could not be written: it waits, standing at stands_at (0: where it
 * is), longer each time.
 */
void
cvx_state_fail(const CvxSubscription *sub, const CvxSubRel *rel,
			   int64 stands_at, const ErrorData *error)
{
	const char *code = unpack_sql_state(error->sqlerrcode);
	bool		is_known;

	error = cvx_redact_error(error);
	cvx_catalog_run(SPI_OK_SELECT,
					"SELECT FROM @.convex_subscription_rel WHERE subid = $1 AND relno = $2 AND state = 'error'"
					" AND error_code = $3 AND error_message = $4", "iitt",
					sub->subid, rel->relno, code, error->message);
	is_known = SPI_processed > 0;
	cvx_catalog_run(SPI_OK_UPDATE,
					"UPDATE @.convex_subscription_rel SET state = 'error', error_code = $3, error_message = $4,"
					" synced_ts = CASE WHEN load IS NULL OR load = 'catching_up' THEN coalesce($5, synced_ts) ELSE synced_ts END,"
					" load = coalesce(load, 'catching_up'),"
					" attempts = attempts + 1,"
					" retry_at = clock_timestamp() + least(interval '1 s' * power(2, least(attempts, 9)), interval '5 min')"
					" WHERE subid = $1 AND relno = $2", "iittn",
					sub->subid, rel->relno, code, error->message, stands_at);
	if (is_known)
		return;
	cvx_catalog_event(sub->subid, "table_error", rel,
					  psprintf("%s: %s", code, error->message));
	ereport(LOG,
			(errcode(error->sqlerrcode),
			 errmsg("table \"%s\" of subscription \"%s\" waits (apply): %s",
					rel->target_name, sub->name, error->message),
			 error->detail ? errdetail_internal("%s", error->detail) : 0,
			 error->hint ? errhint("%s", error->hint) : 0,
			 errhidestmt(true), errhidecontext(true)));
}

/* Convex has a table no more, or it is not selected. */
void
cvx_state_drop(const CvxSubscription *sub, CvxSubRel *rel)
{
	if (rel->load == CVX_LOAD_WALKING)
		cvx_state_abandon(sub, false, "another table of the walk was dropped");
	change(sub, rel, "state <> 'dropped'",
		   "state = 'dropped', load = NULL, retry_at = NULL, synced_ts = coalesce(synced_ts,"
		   " (SELECT cursor FROM @.convex_subscription_state WHERE subid = $1))");
	cvx_catalog_event(sub->subid, "table_dropped", rel, NULL);
	rel->state = CVX_REL_DROPPED;
}

/* No table waits for its time any more. */
void
cvx_state_end_pauses(int32 subid)
{
	cvx_catalog_run(0,
					"UPDATE @.convex_subscription_rel SET retry_at = NULL WHERE subid = $1 AND retry_at IS NOT NULL",
					"i", subid);
}

/*
 * Move the cursor, from where it was read to be; what was loaded for it is
 * shown.  Tables that left a load of everything in between have rows of before
 * the old cursor, which changes from the new one on do not fit.  head: what is
 * known of it.
 */
void
cvx_state_advance(const CvxSubscription *sub, int64 cursor, int64 head,
				  bool has_more, int64 rows, const CvxHttpStats *costs)
{
	cvx_catalog_run(SPI_OK_UPDATE,
					"UPDATE @.convex_subscription_state SET " COSTS ", cursor = $7, head_ts = greatest(head_ts, $7, $9),"
					" caught_up = NOT $8, applied_at = clock_timestamp(), reload = false, phase = 'following'"
					" WHERE subid = $1 AND cursor IS NOT DISTINCT FROM $6",
					"illllnlbl", sub->subid, rows, costs->bytes,
					costs->requests, costs->retries, sub->state.cursor, cursor,
					has_more, head);
	if (SPI_processed != 1)
		ereport(ERROR,
				(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
				 errmsg("cursor of subscription \"%s\" was moved by another process",
						sub->name)));
	if (sub->state.is_reloading)
		cvx_catalog_run(0,
						"UPDATE @.convex_subscription_rel SET state = 'error' WHERE subid = $1 AND state = 'resyncing'",
						"i", sub->subid);
}

/* Whose cursor it is, or is going to be. */
void
cvx_state_note_deployment(const CvxSubscription *sub, const char *url)
{
	cvx_catalog_run(SPI_OK_UPDATE,
					"UPDATE @.convex_subscription_state SET deployment_url = $2 WHERE subid = $1",
					"it", sub->subid, url);
}

/* What is loaded is shown at ts or later; 0: at the head, to be asked for. */
void
cvx_state_show_from(const CvxSubscription *sub, int64 ts)
{
	cvx_catalog_run(SPI_OK_UPDATE,
					"UPDATE @.convex_subscription_state SET shown_from = $2 WHERE subid = $1",
					"in", sub->subid, ts);
}

/*
 * Somebody asks for something: a step under way leaves nothing, and whatever
 * waited, because it had failed or could not keep up, is tried again.
 */
void
cvx_state_ask(int32 subid, bool wants_check)
{
	cvx_catalog_run(SPI_OK_UPDATE,
					"UPDATE @.convex_subscription_state SET generation = generation + 1, check_wanted = check_wanted OR $2,"
					" load_restarts = CASE phase WHEN 'load_too_slow' THEN 0 ELSE load_restarts END,"
					" phase = CASE phase WHEN 'load_too_slow' THEN " PHASE " ELSE phase END WHERE subid = $1",
					"ib", subid, wants_check);
	cvx_state_end_pauses(subid);
}

/* Tables are to be compared with Convex. */
void
cvx_state_want_check(int32 subid)
{
	cvx_catalog_run(SPI_OK_UPDATE,
					"UPDATE @.convex_subscription_state SET check_wanted = true WHERE subid = $1",
					"i", subid);
}

/* They have been compared. */
void
cvx_state_end_check(int32 subid)
{
	cvx_catalog_run(SPI_OK_UPDATE,
					"UPDATE @.convex_subscription_state SET check_wanted = false, checked_at = clock_timestamp()"
					" WHERE subid = $1", "i", subid);
}

/*
 * A table is what Convex has, as far as its ids were compared; the next check
 * goes on behind this one, or with the first one (NULL).
 */
void
cvx_state_checked(const CvxSubscription *sub, const CvxSubRel *rel,
				  const char *cursor, const char *id, const char *tablet)
{
	cvx_catalog_run(SPI_OK_UPDATE,
					"UPDATE @.convex_subscription_rel SET checked_at = clock_timestamp(), check_cursor = $3,"
					" check_id = $4, tablet = coalesce($5, tablet) WHERE subid = $1 AND relno = $2",
					"iittt", sub->subid, rel->relno, cursor, id, tablet);
}

/* The next check of a table begins with its first id. */
void
cvx_state_check_anew(const CvxSubscription *sub, const CvxSubRel *rel)
{
	change(sub, rel, "true", "check_cursor = NULL, check_id = NULL");
}

/*
 * Set columns of a table that is in one of the states of `from`.  It is always:
 * see "who may call".
 */
static void
change(const CvxSubscription *sub, const CvxSubRel *rel, const char *from,
	   const char *sets)
{
	cvx_catalog_run(SPI_OK_UPDATE,
					psprintf("UPDATE @.convex_subscription_rel SET %s WHERE subid = $1 AND relno = $2 AND (%s)",
							 sets, from), "ii", sub->subid, rel->relno);
	if (SPI_processed != 1)
		elog(ERROR, "table \"%s\" of subscription \"%s\" was changed by another process",
			 rel->table, sub->name);
}

/* A walk has ended, unless the next tables are walking already. */
static void
forget_walk(const CvxSubscription *sub)
{
	cvx_catalog_run(0,
					"UPDATE @.convex_subscription_state SET snapshot = NULL, page_cursor = NULL WHERE subid = $1"
					" AND NOT EXISTS (SELECT FROM @.convex_subscription_rel WHERE subid = $1 AND load = 'walking')",
					"i", sub->subid);
}
