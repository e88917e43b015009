/*
 * sub_events.c
 *		Which events, and which errors of tables, are told?
 *
 * Room: subscription 5.3
 */
#include "postgres.h"

#include "ground/compat.h"
#include "ground/redact.h"
#include "subscription/sub_catalog.h"
#include "subscription/sub_events.h"

/* Events of one subscription that are kept. */
#define KEPT_EVENTS		1000

/* Drifts of one table that are told one by one: more is a flood. */
#define KEPT_DRIFTS		1000

/* Note an event; the oldest ones are forgotten. */
void
cvx_catalog_event(int32 subid, const char *kind, const CvxSubRel *rel,
				  const char *detail)
{
	cvx_catalog_run(SPI_OK_INSERT,
					"INSERT INTO @.convex_subscription_event (subid, kind, component, table_name, detail)"
					" VALUES ($1, $2, $3, $4, $5)", "itttt", subid, kind,
					rel ? rel->component : NULL, rel ? rel->table : NULL,
					detail ? cvx_redact_message(detail) : NULL);
	cvx_catalog_trim_events(subid);
}

/*
 * Forget old events.  Drifts have a bound of their own, because each is told
 * once; what is announced must be seen by a check before it may go.
 */
void
cvx_catalog_trim_events(int32 subid)
{
	cvx_catalog_run(SPI_OK_DELETE,
					"DELETE FROM @.convex_subscription_event WHERE subid = $1 AND kind NOT IN ('drift', 'swap_announced')"
					" AND eventid <= (SELECT eventid FROM @.convex_subscription_event WHERE subid = $1"
					" AND kind NOT IN ('drift', 'swap_announced') ORDER BY eventid DESC OFFSET $2 LIMIT 1)",
					"il", subid, (int64) KEPT_EVENTS);
}

/*
 * Note a drift, once for each table, field and kind of value; when there are
 * too many of a table, once that there are more.
 */
void
cvx_catalog_drift(int32 subid, const CvxSubRel *rel, const char *detail)
{
	cvx_catalog_run(SPI_OK_INSERT,
					"WITH told AS MATERIALIZED (SELECT detail FROM @.convex_subscription_event"
					" WHERE subid = $1 AND kind = 'drift' AND component = $2 AND table_name = $3)"
					" INSERT INTO @.convex_subscription_event (subid, kind, component, table_name, detail)"
					" SELECT $1, 'drift', $2, $3, new.detail FROM (SELECT CASE WHEN (SELECT count(*) FROM told) < $5"
					" THEN $4 ELSE 'and more, which is not told' END) AS new (detail)"
					" WHERE NOT EXISTS (SELECT FROM told WHERE told.detail IN ($4, new.detail))",
					"itttl", subid, rel->component, rel->table,
					cvx_redact_message(detail),
					(int64) KEPT_DRIFTS);
}

/*
 * A table could not be written: it waits, standing at synced_ts, longer each
 * time.
 */
void
cvx_catalog_rel_error(const CvxSubscription *sub, const CvxSubRel *rel,
					  int64 synced_ts, const ErrorData *error)
{
	const char *state = unpack_sql_state(error->sqlerrcode);
	bool		is_known;

	error = cvx_redact_error(error);
	cvx_catalog_run(SPI_OK_SELECT,
					"SELECT FROM @.convex_subscription_rel WHERE subid = $1 AND relno = $2 AND state = 'error'"
					" AND error_code = $3 AND error_message = $4", "iitt",
					sub->subid, rel->relno, state, error->message);
	is_known = SPI_processed > 0;
	cvx_catalog_run(SPI_OK_UPDATE,
					"UPDATE @.convex_subscription_rel SET state = 'error', error_code = $3, error_message = $4,"
					" synced_ts = CASE WHEN load IS NULL OR load = 'catching_up' THEN coalesce($5, synced_ts) ELSE synced_ts END,"
					" load = coalesce(load, 'catching_up'),"
					" attempts = attempts + 1,"
					" retry_at = clock_timestamp() + least(interval '1 s' * power(2, least(attempts, 9)), interval '5 min')"
					" WHERE subid = $1 AND relno = $2", "iittn",
					sub->subid, rel->relno, state, error->message, synced_ts);
	if (is_known)
		return;
	cvx_catalog_event(sub->subid, "table_error", rel,
					  psprintf("%s: %s", state, error->message));
	ereport(LOG,
			(errcode(error->sqlerrcode),
			 errmsg("table \"%s\" of subscription \"%s\" waits (apply): %s",
					rel->target_name, sub->name, error->message),
			 error->detail ? errdetail_internal("%s", error->detail) : 0,
			 error->hint ? errhint("%s", error->hint) : 0,
			 errhidestmt(true), errhidecontext(true)));
}
