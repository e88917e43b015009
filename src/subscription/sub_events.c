/*
 * sub_events.c
 *		What has happened to a subscription?
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
