/*
 * sub_read.c
 *		What does the catalog say of a subscription?
 *
 * Room: subscription 5.4
 */
#include "postgres.h"

#include "catalog/namespace.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"

#include "ground/compat.h"
#include "subscription/sub_catalog.h"
#include "subscription/sub_events.h"
#include "subscription/sub_options.h"
#include "subscription/sub_read.h"

static void find_owner(CvxSubscription *sub, Oid oid);
static void find_server(CvxSubscription *sub, Oid oid);
static void load_rels(CvxSubscription *sub);
static void follow_target(CvxSubscription *sub, CvxSubRel *rel, Oid oid);
static char *copy_text(uint64 row, int column);
static Jsonb *copy_jsonb(uint64 row, int column);

/*
 * A subscription with its state and tables, in the current context; NULL when
 * it is gone.  Role, server and targets are those that it was made with, under
 * whatever names now: one that is gone is invalid in it, even if another has
 * its name.  Where the OIDs are not of this catalog, as after a restore, names
 * count, and the subscription is disabled.  Writes nothing.
 */
CvxSubscription *
cvx_catalog_load(int32 subid)
{
	MemoryContext cxt = CurrentMemoryContext;
	CvxSubscription *sub;
	Oid			owner_oid;
	Oid			server_oid;
	char	   *mode;
	Jsonb	   *options;
	Datum	   *elements;
	int			nelements;
	bool		isnull;

	cvx_catalog_run(SPI_OK_SELECT,
					"SELECT s.name::text, s.server::text, s.owner::text, s.owner_oid, s.enabled,"
					" s.tables, s.target_schema::text, s.mode, s.poll_interval::text,"
					" s.options, st.generation, st.phase = 'load_too_slow', st.cursor, st.reload, st.snapshot,"
					" st.page_cursor, st.load_restarts,"
					" st.check_wanted OR EXISTS (SELECT FROM @.convex_subscription_event AS e"
					" WHERE e.subid = s.subid AND e.kind = 'swap_announced') OR st.checked_at IS NULL OR st.checked_at +"
					" greatest(coalesce(s.options ->> 'table_check_interval', '1 h')::interval, '10 s') <= now(),"
					" st.failures, st.shown_from, st.deployment_url, s.server_oid, coalesce(s.home = $2, false),"
					" st.failing_since IS NOT NULL"
					" FROM @.convex_subscription AS s JOIN @.convex_subscription_state AS st USING (subid)"
					" WHERE subid = $1", "it", subid, cvx_catalog_home());
	if (SPI_processed != 1)
		return NULL;
	sub = MemoryContextAllocZero(cxt, sizeof(CvxSubscription));
	sub->subid = subid;
	sub->name = copy_text(0, 1);
	sub->server = copy_text(0, 2);
	sub->owner_name = copy_text(0, 3);
	owner_oid = (Oid) cvx_catalog_int64(0, 4);
	sub->is_enabled = cvx_catalog_bool(0, 5);
	deconstruct_array(DatumGetArrayTypePCopy(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 6, &isnull)),
					  TEXTOID, -1, false, TYPALIGN_INT, &elements, NULL, &nelements);
	MemoryContextSwitchTo(cxt);
	for (int i = 0; i < nelements; i++)
		sub->patterns = lappend(sub->patterns, TextDatumGetCString(elements[i]));
	sub->target_schema = copy_text(0, 7);
	mode = copy_text(0, 8);
	sub->mode = strcmp(mode, "history") == 0 ? CVX_MODE_HISTORY :
		strcmp(mode, "soft_delete") == 0 ? CVX_MODE_SOFT_DELETE : CVX_MODE_MIRROR;
	sub->options.poll_ms = cvx_catalog_poll_ms(cvx_catalog_text(0, 9));
	options = copy_jsonb(0, 10);
	sub->state.generation = cvx_catalog_int64(0, 11);
	sub->state.is_too_slow = cvx_catalog_bool(0, 12);
	sub->state.cursor = cvx_catalog_int64(0, 13);
	sub->state.is_reloading = cvx_catalog_bool(0, 14);
	sub->state.snapshot = cvx_catalog_int64(0, 15);
	sub->state.page_cursor = copy_text(0, 16);
	sub->state.load_restarts = (int) cvx_catalog_int64(0, 17);
	sub->state.is_check_due = cvx_catalog_bool(0, 18);
	sub->state.failures = (int) cvx_catalog_int64(0, 19);
	sub->state.shown_from = cvx_catalog_int64(0, 20);
	sub->state.deployment_url = copy_text(0, 21);

	server_oid = (Oid) cvx_catalog_int64(0, 22);
	sub->is_bound = cvx_catalog_bool(0, 23);
	sub->state.is_failing = cvx_catalog_bool(0, 24);
	sub->is_enabled &= sub->is_bound;
	find_owner(sub, owner_oid);
	find_server(sub, server_oid);
	if (OidIsValid(sub->serverid))
		sub->options.table = *cvx_options_server(sub->serverid);
	sub->options.table.on_misfit = CVX_MISFIT_NULL;
	sub->options.table.nul_handling = CVX_NUL_REPLACE;
	cvx_catalog_read_options(sub, options);
	load_rels(sub);
	return sub;
}

/* Write down what has been renamed or moved, and targets that are known. */
void
cvx_catalog_follow(CvxSubscription *sub)
{
	ListCell   *lc;

	if (!sub->is_bound)
		return;
	if (sub->is_moved)
		cvx_catalog_run(0, "UPDATE @.convex_subscription SET owner = $2::name, server = $3::name WHERE subid = $1",
						"itt", sub->subid, sub->owner_name, sub->server);
	sub->is_moved = false;
	foreach(lc, sub->rels)
	{
		CvxSubRel  *rel = lfirst(lc);

		/* One that has joined was this subscription's when it was dumped. */
		if (rel->is_moved ||
			(!rel->is_bound && OidIsValid(rel->target) &&
			 rel->state != CVX_REL_JOINING))
			cvx_catalog_bind_target(sub, rel);
	}
}

/* The names of role and server count from now on, as what they are here. */
void
cvx_catalog_bind(const CvxSubscription *sub)
{
	cvx_catalog_run(SPI_OK_UPDATE,
					"UPDATE @.convex_subscription SET owner_oid = $2, server_oid = $3, home = $4 WHERE subid = $1",
					"ioot", sub->subid, sub->owner, sub->serverid,
					cvx_catalog_home());
	cvx_catalog_run(0,
					"UPDATE @.convex_subscription_rel SET target_oid = 0 WHERE subid = $1",
					"i", sub->subid);
}

/* This table is the target from now on, whatever becomes of its name. */
void
cvx_catalog_bind_target(const CvxSubscription *sub, CvxSubRel *rel)
{
	cvx_catalog_run(SPI_OK_UPDATE_RETURNING,
					"UPDATE @.convex_subscription_rel SET target_oid = $3, target_schema = $4::name,"
					" target_name = $5::name, attnums = CASE WHEN target_oid = $3 THEN attnums END"
					" WHERE subid = $1 AND relno = $2 RETURNING attnums IS NULL",
					"iiott", sub->subid, rel->relno, rel->target,
					rel->target_schema, rel->target_name);
	if (cvx_catalog_bool(0, 1))
		rel->attnums = NULL;
	rel->is_bound = true;
	rel->is_moved = false;
}

/* The subscription of this name; the role must be its owner. */
CvxSubscription *
cvx_catalog_check(const char *name)
{
	int32		subid = cvx_catalog_find(name);
	CvxSubscription *sub = subid ? cvx_catalog_load(subid) : NULL;

	if (sub == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("subscription \"%s\" does not exist", name)));
	if (OidIsValid(sub->owner) ? !has_privs_of_role(GetUserId(), sub->owner) :
		!superuser())
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("must be owner of subscription \"%s\"", name)));
	return sub;
}

/*
 * Throws 42704 when the subscription's role or server is gone, 55000 when
 * another has its name now.
 */
void
cvx_catalog_check_server(const CvxSubscription *sub)
{
	if (!OidIsValid(sub->owner) && OidIsValid(get_role_oid(sub->owner_name, true)))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("role \"%s\" is not the one that owned subscription \"%s\"",
						sub->owner_name, sub->name),
				 errdetail("That role was dropped."),
				 errhint("A superuser can give the subscription to a role with convex_alter_subscription('%s', owner => ..).",
						 sub->name)));
	if (!OidIsValid(sub->owner))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("owner of subscription \"%s\" does not exist", sub->name)));
	if (!OidIsValid(sub->serverid) &&
		GetForeignServerByName(sub->server, true) != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("server \"%s\" is not the one of subscription \"%s\"",
						sub->server, sub->name),
				 errdetail("That server was dropped."),
				 errhint("Choose a server with convex_alter_subscription('%s', server => ..).",
						 sub->name)));
	if (!OidIsValid(sub->serverid))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("server \"%s\" does not exist", sub->server)));
}

static void
find_owner(CvxSubscription *sub, Oid oid)
{
	char	   *name;

	if (!sub->is_bound)
	{
		sub->owner = get_role_oid(sub->owner_name, true);
		return;
	}
	name = GetUserNameFromId(oid, true);
	if (name == NULL)
		return;
	sub->owner = oid;
	sub->is_moved |= strcmp(name, sub->owner_name) != 0;
	sub->owner_name = name;
}

static void
find_server(CvxSubscription *sub, Oid oid)
{
	ForeignServer *server = sub->is_bound ?
		GetForeignServerExtended(oid, FSV_MISSING_OK) :
		cvx_catalog_server(sub->server);

	if (server == NULL)
		return;
	sub->serverid = server->serverid;
	sub->is_moved |= strcmp(server->servername, sub->server) != 0;
	sub->server = server->servername;
}

static void
load_rels(CvxSubscription *sub)
{
	static const char *const states[] = {"joining", "ready", "resyncing", "error", "dropped"};
	static const char *const loads[] = {"", "wanted", "walking", "indexing", "catching_up"};
	uint64		n;
	Oid		   *oids;

	cvx_catalog_run(SPI_OK_SELECT,
					"SELECT relno, component, table_name, target_schema::text, target_name::text,"
					" target_oid, columns, state, coalesce(load, ''), is_staged, synced_ts, tablet,"
					" check_cursor, check_id, retry_at IS NULL OR retry_at <= clock_timestamp(), retry_at, copied_rows = 0, attnums,"
					" copied_rows = 0 AND snapshot IS NULL"
					" FROM @.convex_subscription_rel WHERE subid = $1 ORDER BY relno", "i",
					sub->subid);
	n = SPI_processed;
	oids = palloc(sizeof(Oid) * Max(n, 1));
	for (uint64 i = 0; i < n; i++)
	{
		CvxSubRel  *rel = palloc0(sizeof(CvxSubRel));
		char	   *state = copy_text(i, 8);
		char	   *load = copy_text(i, 9);

		rel->relno = (int) cvx_catalog_int64(i, 1);
		rel->component = copy_text(i, 2);
		rel->table = copy_text(i, 3);
		rel->target_schema = copy_text(i, 4);
		rel->target_name = copy_text(i, 5);
		oids[i] = (Oid) cvx_catalog_int64(i, 6);
		rel->columns = copy_jsonb(i, 7);
		for (int s = 0; s < lengthof(states); s++)
			if (strcmp(states[s], state) == 0)
				rel->state = (CvxRelState) s;
		for (int s = 0; s < lengthof(loads); s++)
			if (strcmp(loads[s], load) == 0)
				rel->load = (CvxRelLoad) s;
		rel->is_staged = cvx_catalog_bool(i, 10);
		rel->synced_ts = cvx_catalog_int64(i, 11);
		rel->check.tablet = copy_text(i, 12);
		rel->check.cursor = copy_text(i, 13);
		rel->check.id = copy_text(i, 14);
		rel->is_retry_due = cvx_catalog_bool(i, 15);
		rel->retry_at = cvx_catalog_int64(i, 16);
		rel->is_empty = cvx_catalog_bool(i, 17);
		rel->attnums = copy_jsonb(i, 18);
		rel->is_unused = cvx_catalog_bool(i, 19);
		sub->rels = lappend(sub->rels, rel);
	}
	for (uint64 i = 0; i < n; i++)
		follow_target(sub, list_nth(sub->rels, i), oids[i]);
}

/*
 * The target by its OID, wherever it has gone.  One that has none yet is a
 * table of its name.
 */
static void
follow_target(CvxSubscription *sub, CvxSubRel *rel, Oid oid)
{
	Oid			schema;
	char	   *name;
	char	   *schema_name;

	if (!sub->is_bound || !OidIsValid(oid))
	{
		schema = get_namespace_oid(rel->target_schema, true);
		rel->target = OidIsValid(schema) ?
			get_relname_relid(rel->target_name, schema) : InvalidOid;
		return;
	}
	rel->is_bound = true;
	name = get_rel_name(oid);
	schema_name = name ? get_namespace_name(get_rel_namespace(oid)) : NULL;
	if (schema_name == NULL)
		return;
	rel->target = oid;
	rel->is_moved = strcmp(name, rel->target_name) != 0 ||
		strcmp(schema_name, rel->target_schema) != 0;
	rel->target_name = name;
	rel->target_schema = schema_name;
}

static char *
copy_text(uint64 row, int column)
{
	return cvx_catalog_text(row, column);
}

static Jsonb *
copy_jsonb(uint64 row, int column)
{
	bool		isnull;
	Datum		datum = SPI_getbinval(SPI_tuptable->vals[row],
									  SPI_tuptable->tupdesc, column, &isnull);

	return isnull ? NULL : DatumGetJsonbPCopy(datum);
}
