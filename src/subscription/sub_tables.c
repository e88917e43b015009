/*
 * sub_tables.c
 *		Which tables does a subscription have?
 *
 * Room: subscription 5.9
 */
#include "postgres.h"

#include "catalog/namespace.h"
#include "utils/lsyscache.h"

#include "ground/compat.h"
#include "shape/names.h"
#include "write/clear.h"
#include "subscription/sub_apply.h"
#include "subscription/sub_catalog.h"
#include "subscription/sub_events.h"
#include "subscription/sub_options.h"
#include "subscription/sub_state.h"
#include "subscription/sub_tables.h"

static void want_checks(Oid serverid);
static bool is_selected(List *patterns, const CvxTableSchema *table);
static CvxSubRel *find_rel(CvxSubscription *sub, const CvxTableSchema *table);
static void name_targets(CvxSubscription *sub, List *tables, bool is_first);
static void add_table(CvxSubscription *sub, const CvxTableSchema *table,
					  const char *target, int relno, bool is_first);
static Jsonb *make_columns(const CvxTableSchema *table);

/* Called once when the library is loaded. */
void
cvx_catalog_init(void)
{
	cvx_clear_listen(want_checks);
}

/*
 * Tables of a server's deployment are swapped by this transaction: once it has
 * committed, every subscription to the deployment looks for it.
 */
static void
want_checks(Oid serverid)
{
	if (!OidIsValid(cvx_catalog_relid()))
		return;
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");

	/*
	 * An insertion never meets the worker, whatever the isolation level.  A
	 * subscription that is enabled later looks for it anyway.
	 */
	cvx_catalog_run(SPI_OK_INSERT,
					"INSERT INTO @.convex_subscription_event (subid, kind, detail)"
					" SELECT s.subid, 'swap_announced', 'a transaction of this database empties or replaces tables'"
					" FROM @.convex_subscription AS s, pg_foreign_server AS theirs, pg_foreign_server AS ours"
					" WHERE s.enabled AND s.home = $2 AND theirs.oid = s.server_oid AND ours.oid = $1"
					" AND (SELECT option_value FROM pg_options_to_table(theirs.srvoptions) WHERE option_name = 'deployment_url')"
					" = (SELECT option_value FROM pg_options_to_table(ours.srvoptions) WHERE option_name = 'deployment_url')",
					"ot", serverid, cvx_catalog_home());
	SPI_finish();
}

/*
 * Compare the deployment's tables with the subscription's: new ones join,
 * those that are gone are dropped.  Returns how many are to be loaded now.
 */
int
cvx_catalog_add_tables(CvxSubscription *sub, List *tables, bool is_first)
{
	List	   *fresh = NIL;
	int			nreturned = 0;
	ListCell   *lc;

	foreach(lc, tables)
	{
		CvxTableSchema *table = lfirst(lc);
		CvxSubRel  *rel = find_rel(sub, table);

		if (!is_selected(sub->patterns, table))
			continue;
		if (rel == NULL)
			fresh = lappend(fresh, table);
		else if (rel->state == CVX_REL_DROPPED)
		{
			cvx_state_want(sub, rel, OidIsValid(rel->target) ? CVX_START_NOW :
						   CVX_START_NEW, "table_returned", "Convex has the table again");
			nreturned++;
		}
	}
	name_targets(sub, fresh, is_first);
	foreach(lc, sub->rels)
	{
		CvxSubRel  *rel = lfirst(lc);
		ListCell   *lc2;
		bool		is_listed = false;

		foreach(lc2, tables)
		{
			CvxTableSchema *table = lfirst(lc2);

			is_listed |= is_selected(sub->patterns, table) &&
				strcmp(table->table, rel->table) == 0 &&
				strcmp(table->component, rel->component) == 0;
		}
		if (is_listed || rel->state == CVX_REL_DROPPED)
			continue;
		cvx_state_drop(sub, rel);
	}
	if (!is_first)
		foreach(lc, fresh)
		{
			CvxTableSchema *table = lfirst(lc);
			CvxSubRel	rel = {.component = table->component,.table = table->table};

			cvx_catalog_event(sub->subid, "table_new", &rel, NULL);
		}
	return list_length(fresh) + nreturned;
}

/* How many of these tables a subscription with these patterns has. */
int
cvx_catalog_count_selected(List *patterns, List *tables)
{
	int			n = 0;
	ListCell   *lc;

	foreach(lc, tables)
		n += is_selected(patterns, lfirst(lc));
	return n;
}

/* "table", "component/table", and "*" for the last part, or alone for all. */
static bool
is_selected(List *patterns, const CvxTableSchema *table)
{
	ListCell   *lc;

	foreach(lc, patterns)
	{
		const char *pattern = lfirst(lc);
		const char *slash = strrchr(pattern, '/');
		size_t		len = slash ? slash - pattern : 0;

		if (strcmp(pattern, "*") == 0)
			return true;
		if (strlen(table->component) != len ||
			strncmp(table->component, pattern, len) != 0)
			continue;
		pattern = slash ? slash + 1 : pattern;
		if (strcmp(pattern, "*") == 0 || strcmp(pattern, table->table) == 0)
			return true;
	}
	return false;
}

static CvxSubRel *
find_rel(CvxSubscription *sub, const CvxTableSchema *table)
{
	ListCell   *lc;

	foreach(lc, sub->rels)
	{
		CvxSubRel  *rel = lfirst(lc);

		if (strcmp(rel->table, table->table) == 0 &&
			strcmp(rel->component, table->component) == 0)
			return rel;
	}
	return NULL;
}

/* Give new tables a number and a local name, and enter them. */
static void
name_targets(CvxSubscription *sub, List *tables, bool is_first)
{
	int			ntaken = list_length(sub->rels);
	const char **taken;
	CvxLocalName *names = palloc(sizeof(CvxLocalName) * Max(list_length(tables), 1));
	int			relno = 0;
	uint64		nothers;
	ListCell   *lc;

	/* A target has one subscription; a new table can have another name. */
	cvx_catalog_run(SPI_OK_SELECT,
					"SELECT target_name::text FROM @.convex_subscription_rel WHERE subid <> $1 AND target_schema = $2::name",
					"it", sub->subid, sub->target_schema);
	nothers = is_first ? 0 : SPI_processed;
	taken = palloc(sizeof(char *) * Max(ntaken + nothers, 1));
	for (uint64 i = 0; i < nothers; i++)
		taken[ntaken + i] = cvx_catalog_text(i, 1);
	ntaken += nothers;
	foreach(lc, sub->rels)
	{
		CvxSubRel  *rel = lfirst(lc);

		taken[foreach_current_index(lc)] = rel->target_name;
		relno = Max(relno, rel->relno);
	}
	foreach(lc, tables)
	{
		CvxTableSchema *table = lfirst(lc);
		CvxLocalName *name = &names[foreach_current_index(lc)];
		char	   *path = psprintf("%s%s%s", table->component,
									table->component[0] ? "/" : "", table->table);

		name->source = path;
		name->name = pstrdup(path);
		for (char *p = name->name; *p; p++)
			if (*p == '/')
				*p = '_';
	}
	cvx_names_make_unique(names, list_length(tables), taken, ntaken);
	foreach(lc, tables)
		add_table(sub, lfirst(lc), names[foreach_current_index(lc)].name,
				  ++relno, is_first);
}

static void
add_table(CvxSubscription *sub, const CvxTableSchema *table,
		  const char *target, int relno, bool is_first)
{
	Oid			schema = get_namespace_oid(sub->target_schema, true);
	Oid			relid = OidIsValid(schema) ?
	get_relname_relid(target, schema) : InvalidOid;

	/* A table that comes later waits alone if its target is of no use. */
	if (is_first)
	{
		cvx_catalog_run(SPI_OK_SELECT,
						"SELECT s.name::text FROM @.convex_subscription_rel AS r JOIN @.convex_subscription AS s USING (subid)"
						" WHERE r.subid <> $1 AND (r.target_schema = $2::name AND r.target_name = $3::name OR r.target_oid = $4 AND $4 <> 0::oid)",
						"itto", sub->subid, sub->target_schema, target, relid);
		if (SPI_processed > 0)
			ereport(ERROR,
					(errcode(ERRCODE_DUPLICATE_OBJECT),
					 errmsg("table \"%s.%s\" is a target of subscription \"%s\" already",
							sub->target_schema, target, cvx_catalog_text(0, 1)),
					 errhint("Choose another target_schema.")));
		if (OidIsValid(relid))
		{
			CvxSubRel	rel = {.target = relid,.target_name = pstrdup(target),
			.state = CVX_REL_JOINING};

			cvx_apply_check_target(sub, &rel);
		}
	}
	cvx_catalog_run(SPI_OK_INSERT,
					"INSERT INTO @.convex_subscription_rel (subid, relno, component, table_name,"
					" target_schema, target_name, target_oid, columns) VALUES ($1, $2, $3, $4, $5::name, $6::name, $7, $8)",
					"iittttoj", sub->subid, relno, table->component, table->table,
					sub->target_schema, target, is_first ? relid : InvalidOid,
					make_columns(table));
}

/*
 * The columns of a table to be made, as an object: attribute -> field.  Types
 * stand behind the field, after a tab, which no field's name can hold.
 */
static Jsonb *
make_columns(const CvxTableSchema *table)
{
	CvxLocalName *names = palloc(sizeof(CvxLocalName) * Max(list_length(table->fields), 1));
	CvxFieldSchema **fields = palloc(sizeof(CvxFieldSchema *) * Max(list_length(table->fields), 1));
	JsonbParseState *state = NULL;
	JsonbValue *result;
	int			n = 0;
	ListCell   *lc;

	foreach(lc, table->fields)
	{
		CvxFieldSchema *field = lfirst(lc);

		if (field->name[0] == '_' || field->type == CVX_TYPE_UNSEEN ||
			n >= CVX_MAX_COLUMNS - 10)
			continue;
		fields[n] = field;
		names[n].name = field->name;
		names[n].source = field->name;
		n++;
	}
	cvx_names_make_unique(names, n, cvx_names_reserved, CVX_NAMES_RESERVED);
	pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	for (int i = 0; i < n; i++)
	{
		JsonbValue	value;
		char	   *said = psprintf("%s\t%s%s", fields[i]->name,
									cvx_names_type(fields[i]->name, fields[i]->type),
									fields[i]->type == CVX_TYPE_ID ? " COLLATE pg_catalog.\"C\"" : "");

		value.type = jbvString;
		value.val.string.val = names[i].name;
		value.val.string.len = strlen(names[i].name);
		pushJsonbValue(&state, WJB_KEY, &value);
		value.val.string.val = said;
		value.val.string.len = strlen(said);
		pushJsonbValue(&state, WJB_VALUE, &value);
	}
	result = pushJsonbValue(&state, WJB_END_OBJECT, NULL);
	return JsonbValueToJsonb(result);
}
