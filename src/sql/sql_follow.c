/*
 * sql_follow.c
 *		What may a SQL user do with subscriptions?
 *
 * Each function looks at the rights of the role that calls it and leaves the
 * catalog to sub_catalog.c and the work to sub_sync.c.
 *
 * Room: sql 7.5
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/namespace.h"
#include "catalog/pg_namespace.h"
#include "catalog/pg_type.h"
#include "commands/dbcommands.h"
#include "commands/trigger.h"
#include "executor/spi.h"
#include "foreign/foreign.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/syscache.h"

#include "ground/compat.h"
#include "protocol/api.h"
#include "protocol/inventory.h"
#include "protocol/schema.h"
#include "shape/options_read.h"
#include "subscription/sub_apply.h"
#include "subscription/sub_catalog.h"
#include "subscription/sub_events.h"
#include "subscription/sub_failure.h"
#include "subscription/sub_options.h"
#include "subscription/sub_read.h"
#include "subscription/sub_state.h"
#include "subscription/sub_sync.h"
#include "subscription/sub_tables.h"
#include "process/sub_process.h"
#include "sql/sql_api.h"
#include "sql/sql_sync.h"

/* The part of the server's lock table that the caller's transaction may take. */
#define LOCK_TABLE_PART	2

/* The same for one of several transactions. */
#define LOCK_TABLE_PORTION	8

static void check_kind(const char *mode, const char *protocol);
static void check_names(const char *name, const char *schema);
static List *read_patterns(ArrayType *array);
static void check_server(CvxHttp *http, ForeignServer *server, int ntables);
static Oid	make_schema(const char *name, Oid owner);
static void leave_schema(const CvxSubscription *sub, Oid schema,
						 bool drops_tables);
static void check_found(CvxSubscription *sub);
static void begin_catalog(void);
static void end_catalog(const CvxSubscription *sub);
static CvxSubscription *hold(const char *name);
static void choose_server(const CvxSubscription *sub, const char *name);
static void give_to(const CvxSubscription *sub, const char *name);
static int	locks_of_drop(const CvxSubscription *sub, const CvxSubRel *rel,
						  bool drops_target);
static void check_locks(const CvxSubscription *sub, bool drops_tables);
static void drop_target(const CvxSubRel *rel);
static bool drop_portion(const char *name);

PG_FUNCTION_INFO_V1(convex_create_subscription);
PG_FUNCTION_INFO_V1(convex_alter_subscription);
PG_FUNCTION_INFO_V1(convex_drop_subscription);
PG_FUNCTION_INFO_V1(convex_drop_tables);
PG_FUNCTION_INFO_V1(convex_enable_subscription);
PG_FUNCTION_INFO_V1(convex_disable_subscription);
PG_FUNCTION_INFO_V1(convex_refresh_subscription);
PG_FUNCTION_INFO_V1(convex_resync_table);
PG_FUNCTION_INFO_V1(convex_subscription_restored);

/* How CALL convex_sync() does its transactions; SPI is connected around it. */
/* A subscription with its tables; the deployment is asked for them. */
Datum
convex_create_subscription(PG_FUNCTION_ARGS)
{
	char	   *name;
	char	   *schema;
	char	   *mode;
	char	   *protocol;
	ForeignServer *server;
	CvxHttp    *http;
	CvxSubscription *sub;
	List	   *patterns;
	List	   *tables;
	Jsonb	   *options;
	int32		subid;
	Oid			schema_oid;

	for (int i = 0; i < 9; i++)
		if (PG_ARGISNULL(i) && i != 3)
			ereport(ERROR,
					(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
					 errmsg("arguments of convex_create_subscription must not be null")));
	cvx_call_refuse_read_only();
	name = pstrdup(NameStr(*PG_GETARG_NAME(0)));
	schema = PG_ARGISNULL(3) ? name : pstrdup(NameStr(*PG_GETARG_NAME(3)));
	mode = text_to_cstring(PG_GETARG_TEXT_PP(4));
	protocol = text_to_cstring(PG_GETARG_TEXT_PP(5));
	options = PG_GETARG_JSONB_P(8);
	check_kind(mode, protocol);
	check_names(name, schema);
	patterns = read_patterns(PG_GETARG_ARRAYTYPE_P(2));
	cvx_catalog_check_options(options);
	cvx_catalog_check_poll_interval(PG_GETARG_INTERVAL_P(6));

	server = cvx_sql_find_server(PG_GETARG_NAME(1));
	http = cvx_http_open(cvx_options_remote(server->serverid, GetUserId()));
	tables = cvx_inventory(http);
	check_server(http, server, cvx_catalog_count_selected(patterns, tables));

	begin_catalog();
	if (cvx_catalog_find(name) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_DUPLICATE_OBJECT),
				 errmsg("subscription \"%s\" already exists", name)));
	schema_oid = make_schema(schema, GetUserId());
	cvx_catalog_run(SPI_OK_INSERT_RETURNING,
					"INSERT INTO @.convex_subscription (name, server, server_oid, owner, owner_oid, home, enabled, tables,"
					" target_schema, mode, protocol, poll_interval, options, schema_oid)"
					" VALUES ($1::name, $2::name, $12, $3::name, $4, $13, $5, $6::text[], $7::name, $8, $9, $10::interval, $11, $14)"
					" RETURNING subid", "tttobtttttjoto", name, server->servername,
					GetUserNameFromId(GetUserId(), false), GetUserId(),
					PG_GETARG_BOOL(7),
					OidOutputFunctionCall(F_ARRAY_OUT, PG_GETARG_DATUM(2)),
					schema, mode, protocol,
					DatumGetCString(DirectFunctionCall1(interval_out, PG_GETARG_DATUM(6))),
					options, server->serverid, cvx_catalog_home(),
					schema_oid);
	subid = (int32) cvx_catalog_int64(0, 1);
	cvx_catalog_run(SPI_OK_INSERT,
					"INSERT INTO @.convex_subscription_state (subid) VALUES ($1)",
					"i", subid);
	sub = cvx_catalog_load(subid);
	(void) cvx_catalog_add_tables(sub, tables, true);
	check_found(cvx_catalog_load(subid));
	cvx_catalog_event(subid, "created", NULL, NULL);
	SPI_finish();
	cvx_launcher_wake();
	PG_RETURN_INT32(subid);
}

/* Change what is not NULL. */
Datum
convex_alter_subscription(PG_FUNCTION_ARGS)
{
	CvxSubscription *sub;

	if (PG_ARGISNULL(0))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("name must not be null")));
	begin_catalog();
	sub = hold(NameStr(*PG_GETARG_NAME(0)));
	if (!PG_ARGISNULL(1))
	{
		(void) read_patterns(PG_GETARG_ARRAYTYPE_P(1));
		cvx_catalog_run(SPI_OK_UPDATE,
						"UPDATE @.convex_subscription SET tables = $2::text[] WHERE subid = $1",
						"it", sub->subid,
						OidOutputFunctionCall(F_ARRAY_OUT, PG_GETARG_DATUM(1)));
	}
	if (!PG_ARGISNULL(2))
	{
		cvx_catalog_check_poll_interval(PG_GETARG_INTERVAL_P(2));
		cvx_catalog_run(SPI_OK_UPDATE,
						"UPDATE @.convex_subscription SET poll_interval = $2::interval WHERE subid = $1",
						"it", sub->subid,
						DatumGetCString(DirectFunctionCall1(interval_out, PG_GETARG_DATUM(2))));
	}
	if (!PG_ARGISNULL(3))
	{
		cvx_catalog_check_options(PG_GETARG_JSONB_P(3));
		cvx_catalog_run(SPI_OK_UPDATE,
						"UPDATE @.convex_subscription SET options = options || $2 WHERE subid = $1",
						"ij", sub->subid, PG_GETARG_JSONB_P(3));
	}
	if (!PG_ARGISNULL(4))
		choose_server(sub, NameStr(*PG_GETARG_NAME(4)));
	if (!PG_ARGISNULL(5))
		give_to(sub, NameStr(*PG_GETARG_NAME(5)));
	cvx_state_ask(sub->subid, !PG_ARGISNULL(1));
	end_catalog(sub);
	PG_RETURN_VOID();
}

/* End a subscription; its tables stay, unless they are to go. */
Datum
convex_drop_subscription(PG_FUNCTION_ARGS)
{
	CvxSubscription *sub;
	Oid			schema;
	ListCell   *lc;

	begin_catalog();
	sub = hold(NameStr(*PG_GETARG_NAME(0)));
	cvx_catalog_run(SPI_OK_SELECT, "SELECT schema_oid FROM @.convex_subscription WHERE subid = $1", "i", sub->subid);
	schema = (Oid) cvx_catalog_int64(0, 1);
	check_locks(sub, PG_GETARG_BOOL(1));
	foreach(lc, sub->rels)
		cvx_catalog_drop_staging(sub, lfirst(lc));
	cvx_catalog_run(0, "DELETE FROM @.convex_subscription_state WHERE subid = $1", "i", sub->subid);
	cvx_catalog_run(0, "DELETE FROM @.convex_subscription_rel WHERE subid = $1", "i", sub->subid);
	cvx_catalog_run(0, "DELETE FROM @.convex_subscription_event WHERE subid = $1", "i", sub->subid);
	cvx_catalog_run(0, "DELETE FROM @.convex_subscription WHERE subid = $1", "i", sub->subid);
	foreach(lc, sub->rels)
	{
		CvxSubRel  *rel = lfirst(lc);

		if (PG_GETARG_BOOL(1) && OidIsValid(rel->target))
			drop_target(rel);
	}
	leave_schema(sub, schema, PG_GETARG_BOOL(1));
	cvx_launcher_wake();
	end_catalog(sub);
	PG_RETURN_VOID();
}

/* Drop a subscription's tables in transactions that each take few locks. */
Datum
convex_drop_tables(PG_FUNCTION_ARGS)
{
	bool		is_atomic = !(fcinfo->context && IsA(fcinfo->context, CallContext) &&
							  !((CallContext *) fcinfo->context)->atomic);
	MemoryContext cxt;
	char	   *name;

	if (PG_ARGISNULL(0))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("name must not be null")));
	if (is_atomic)
		ereport(ERROR,
				(errcode(ERRCODE_ACTIVE_SQL_TRANSACTION),
				 errmsg("convex_drop_tables cannot run inside a transaction block"),
				 errhint("It commits in between: CALL it alone, as the only statement of its string.")));
	SPI_connect_ext(SPI_OPT_NONATOMIC);
	cxt = AllocSetContextCreate(PortalContext, "convex drop",
								ALLOCSET_DEFAULT_SIZES);
	MemoryContextSwitchTo(cxt);
	name = pstrdup(NameStr(*PG_GETARG_NAME(0)));
	while (drop_portion(name))
		MemoryContextSwitchTo(cxt);
	SPI_finish();
	PG_RETURN_VOID();
}

Datum
convex_enable_subscription(PG_FUNCTION_ARGS)
{
	CvxSubscription *sub;
	ListCell   *lc;

	begin_catalog();
	sub = hold(NameStr(*PG_GETARG_NAME(0)));
	if (!sub->is_bound)
	{
		cvx_catalog_check_server(sub);
		cvx_catalog_bind(sub);
	}

	/* A target that a restored dump did not bring is loaded again. */
	foreach(lc, sub->rels)
	{
		CvxSubRel  *rel = lfirst(lc);

		if (OidIsValid(rel->target) || rel->state == CVX_REL_JOINING ||
			rel->state == CVX_REL_DROPPED || rel->load == CVX_LOAD_WALKING ||
			rel->load == CVX_LOAD_INDEXING)
			continue;
		cvx_state_want(sub, rel, CVX_START_NEW, "resync", "the target is gone");
	}
	cvx_catalog_run(SPI_OK_UPDATE,
					"UPDATE @.convex_subscription SET enabled = true WHERE subid = $1",
					"i", sub->subid);
	cvx_state_ask(sub->subid, true);
	cvx_failure_forget(sub);
	cvx_launcher_wake();
	end_catalog(sub);
	PG_RETURN_VOID();
}

Datum
convex_disable_subscription(PG_FUNCTION_ARGS)
{
	CvxSubscription *sub;

	begin_catalog();
	sub = hold(NameStr(*PG_GETARG_NAME(0)));
	cvx_catalog_run(SPI_OK_UPDATE,
					"UPDATE @.convex_subscription SET enabled = false WHERE subid = $1",
					"i", sub->subid);
	cvx_state_ask(sub->subid, false);
	cvx_launcher_wake();
	end_catalog(sub);
	PG_RETURN_VOID();
}

/* Look for new, replaced and dropped tables at the next step. */
Datum
convex_refresh_subscription(PG_FUNCTION_ARGS)
{
	CvxSubscription *sub;

	begin_catalog();
	sub = hold(NameStr(*PG_GETARG_NAME(0)));
	cvx_state_ask(sub->subid, true);
	end_catalog(sub);
	PG_RETURN_VOID();
}

/* Load one table again; it is named as in Convex, or as its target. */
Datum
convex_resync_table(PG_FUNCTION_ARGS)
{
	char	   *table = text_to_cstring(PG_GETARG_TEXT_PP(1));
	CvxSubscription *sub;
	CvxSubRel  *rel = NULL;
	ListCell   *lc;

	begin_catalog();
	sub = hold(NameStr(*PG_GETARG_NAME(0)));
	foreach(lc, sub->rels)
	{
		CvxSubRel  *candidate = lfirst(lc);
		char	   *path = psprintf("%s%s%s", candidate->component,
									candidate->component[0] ? "/" : "",
									candidate->table);

		if (strcmp(path, table) == 0 ||
			(rel == NULL && strcmp(candidate->target_name, table) == 0))
			rel = candidate;
	}
	if (rel == NULL || rel->state == CVX_REL_DROPPED)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("subscription \"%s\" has no table \"%s\"", sub->name, table)));
	if (rel->load == CVX_LOAD_WANTED)
	{
		ereport(NOTICE,
				(errmsg("table \"%s\" is being loaded already", table)));
		cvx_state_ask(sub->subid, false);
	}
	else if ((rel->load == CVX_LOAD_WALKING || rel->load == CVX_LOAD_INDEXING) &&
			 sub->state.failures == 0)
		ereport(NOTICE,
				(errmsg("table \"%s\" is being loaded already", table)));
	else
	{
		/* A walk that fails begins anew, with all tables that share it. */
		if (rel->load == CVX_LOAD_WALKING)
			cvx_state_abandon(sub, false, "another table of the walk is loaded again");
		cvx_state_want(sub, rel, OidIsValid(rel->target) ? CVX_START_NOW :
					   CVX_START_NEW, "resync", "asked for");
		cvx_catalog_drop_staging(sub, rel);
		cvx_state_unstage(sub, rel);
		cvx_state_ask(sub->subid, false);
	}
	end_catalog(sub);
	PG_RETURN_VOID();
}

/*
 * BEFORE INSERT OR UPDATE: a row that the library did not write is of a
 * restored dump, or of another cluster whose catalog is replicated.  Neither
 * brings OIDs along, or decides what runs here.
 */
Datum
convex_subscription_restored(PG_FUNCTION_ARGS)
{
	static const char *const ours[] = {
		"owner_oid", "server_oid", "target_oid", "schema_oid", "enabled", "home", "attnums"
	};
	TriggerData *data = (TriggerData *) fcinfo->context;
	TupleDesc	tupdesc;
	HeapTuple	tuple;
	bool		is_update;

	/* Its tables have columns of the types that it sets. */
	if (!CALLED_AS_TRIGGER(fcinfo) ||
		!(TRIGGER_FIRED_BY_INSERT(data->tg_event) ||
		  TRIGGER_FIRED_BY_UPDATE(data->tg_event)) ||
		!TRIGGER_FIRED_BEFORE(data->tg_event) ||
		!TRIGGER_FIRED_FOR_ROW(data->tg_event) ||
		!cvx_catalog_has_table(data->tg_relation))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("convex_subscription_restored is for its own trigger only")));
	tupdesc = RelationGetDescr(data->tg_relation);
	is_update = TRIGGER_FIRED_BY_UPDATE(data->tg_event);
	tuple = is_update ? data->tg_newtuple : data->tg_trigtuple;

	/* A change by hand is the superuser's own. */
	if (cvx_catalog_is_writing() ||
		(is_update && SessionReplicationRole != SESSION_REPLICATION_ROLE_REPLICA))
		return PointerGetDatum(tuple);
	for (int i = 0; i < lengthof(ours); i++)
	{
		int			attnum = SPI_fnumber(tupdesc, ours[i]);
		Datum		value = (Datum) 0;	/* no OID, or false */
		bool		isnull = i >= lengthof(ours) - 2;	/* home and attnums */

		if (attnum <= 0)
			continue;
		if (is_update)
			value = heap_getattr(data->tg_trigtuple, attnum, tupdesc, &isnull);
		tuple = heap_modify_tuple_by_cols(tuple, tupdesc, 1, &attnum, &value,
										  &isnull);
	}
	return PointerGetDatum(tuple);
}

/* Throws unless subscriptions of this mode and protocol can be. */
static void
check_kind(const char *mode, const char *protocol)
{
	if (GetDatabaseEncoding() != PG_UTF8)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("subscriptions need a database with encoding UTF8")));
	if (strcmp(mode, "mirror") != 0 && strcmp(mode, "soft_delete") != 0 &&
		strcmp(mode, "history") != 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid mode \"%s\"", mode),
				 errhint("Valid values are: mirror, soft_delete, history.")));
	if (strcmp(protocol, "document_deltas") != 0)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("protocol \"%s\" is not supported", protocol),
				 errhint("Valid values are: document_deltas.")));
}

/* Throws unless it may have this name, and targets in this schema. */
static void
check_names(const char *name, const char *schema)
{
	if (name[0] == '\0')
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_NAME),
				 errmsg("name of a subscription must not be empty")));
	if (schema[0] == '\0' || strncmp(schema, "pg_", 3) == 0 ||
		strcmp(schema, "information_schema") == 0 ||
		strcmp(schema, "convex_staging") == 0)
		ereport(ERROR,
				(errcode(ERRCODE_RESERVED_NAME),
				 errmsg("schema \"%s\" cannot be a target schema", schema),
				 errhint("Choose another target_schema.")));
}

/* Patterns of tables: "*", "table", "component/table", "component/" and "*". */
static List *
read_patterns(ArrayType *array)
{
	List	   *patterns = NIL;
	Datum	   *elements;
	bool	   *nulls;
	int			n;

	deconstruct_array(array, TEXTOID, -1, false, TYPALIGN_INT, &elements, &nulls, &n);
	for (int i = 0; i < n; i++)
	{
		char	   *pattern = nulls[i] ? NULL : TextDatumGetCString(elements[i]);
		char	   *slash = pattern ? strrchr(pattern, '/') : NULL;
		char	   *last = slash ? slash + 1 : pattern;

		if (pattern == NULL ||
			(strcmp(last, "*") != 0 && !cvx_options_is_table_name(last)) ||
			!cvx_options_is_component(pnstrdup(pattern, slash ? slash - pattern : 0)))
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("invalid table pattern \"%s\"", pattern ? pattern : "NULL"),
					 errhint("Write *, table, component/table or component/*.")));
		patterns = lappend(patterns, pattern);
	}
	if (n == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("tables must not be empty")));
	return patterns;
}

/* Several tables share one walk, which needs a server that obeys selections. */
static void
check_server(CvxHttp *http, ForeignServer *server, int ntables)
{
	static const CvxSelection nothing = {0};
	static const CvxPageWant any = {0};
	CvxCall    *call;
	CvxPage    *page;

	if (ntables < 2)
		return;
	call = cvx_api_list_snapshot(http, NULL, &nothing, 0, NULL);
	page = cvx_api_page(call, http, &any);
	if (page->ndocs > 0 || page->has_more)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("Convex server \"%s\" does not obey the selection of tables",
						server->servername),
				 errhint("Update the Convex server.")));
	cvx_http_free(call);
}

/*
 * The schema of the targets, owned by the subscription's owner.  Gives it if it
 * was not there before.
 */
static Oid
make_schema(const char *name, Oid owner)
{
	Oid			schema = get_namespace_oid(name, true);

	if (OidIsValid(schema))
		return InvalidOid;
	if (cvx_database_aclcheck(MyDatabaseId, owner) != ACLCHECK_OK)
		aclcheck_error(ACLCHECK_NO_PRIV, OBJECT_DATABASE,
					   get_database_name(MyDatabaseId));
	cvx_catalog_run(SPI_OK_UTILITY,
					psprintf("CREATE SCHEMA %s AUTHORIZATION %s", quote_identifier(name),
							 quote_identifier(GetUserNameFromId(owner, false))), "");
	return get_namespace_oid(name, false);
}

/*
 * A subscription ends; `schema` is the one that was made for it, or invalid.
 * Another one that has its mirrors there takes it over; else it goes with the
 * tables, with the rights of the caller, when nothing else is in it.
 */
static void
leave_schema(const CvxSubscription *sub, Oid schema, bool drops_tables)
{
	char	   *name = OidIsValid(schema) ? get_namespace_name(schema) : NULL;
	HeapTuple	tuple;
	bool		is_ours;

	/* Who has renamed it, or given it away, keeps it. */
	if (name == NULL || strcmp(name, sub->target_schema) != 0)
		return;
	cvx_catalog_run(SPI_OK_UPDATE,
					"UPDATE @.convex_subscription SET schema_oid = $1 WHERE subid ="
					" (SELECT min(subid) FROM @.convex_subscription WHERE target_schema = $2::name)",
					"ot", schema, name);
	if (SPI_processed > 0 || !drops_tables)
		return;
	tuple = SearchSysCache1(NAMESPACEOID, ObjectIdGetDatum(schema));
	is_ours = HeapTupleIsValid(tuple) &&
		((Form_pg_namespace) GETSTRUCT(tuple))->nspowner == sub->owner;
	if (HeapTupleIsValid(tuple))
		ReleaseSysCache(tuple);
	if (!is_ours)
		return;
	cvx_catalog_run(SPI_OK_SELECT,
					"SELECT FROM pg_depend WHERE (refclassid = 'pg_namespace'::regclass AND refobjid = $1)"
					" OR (classid = 'pg_namespace'::regclass AND objid = $1)", "o",
					schema);
	if (SPI_processed == 0)
		SPI_execute(psprintf("DROP SCHEMA %s RESTRICT", quote_identifier(name)),
					false, 0);
}

/* Each table that was named must be there. */
static void
check_found(CvxSubscription *sub)
{
	Oid			schema = get_namespace_oid(sub->target_schema, false);
	ListCell   *lc;
	ListCell   *lc2;

	foreach(lc, sub->patterns)
	{
		char	   *pattern = lfirst(lc);
		bool		is_found = strchr(pattern, '*') != NULL;

		foreach(lc2, sub->rels)
		{
			CvxSubRel  *rel = lfirst(lc2);

			is_found |= strcmp(pattern, psprintf("%s%s%s", rel->component,
												 rel->component[0] ? "/" : "",
												 rel->table)) == 0;
		}
		if (!is_found)
			ereport(ERROR,
					(errcode(ERRCODE_FDW_TABLE_NOT_FOUND),
					 errmsg("Convex server \"%s\" has no table \"%s\"", sub->server, pattern),
					 errhint("convex_tables('%s') lists what it has.", sub->server)));
	}
	foreach(lc, sub->rels)
		if (!OidIsValid(((CvxSubRel *) lfirst(lc))->target) &&
			cvx_schema_aclcheck(schema, sub->owner) != ACLCHECK_OK)
			aclcheck_error(ACLCHECK_NO_PRIV, OBJECT_SCHEMA, sub->target_schema);
}

static void
begin_catalog(void)
{
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
}

/* A change is written; the worker looks.  Nothing of sub is there afterwards. */
static void
end_catalog(const CvxSubscription *sub)
{
	cvx_worker_wake(sub->subid);
	SPI_finish();
}

/*
 * The subscription that the role is to change, as it is between two steps.
 * Whoever writes the catalog locks this row first, then the state, then the
 * tables' rows: a step does the same.
 */
static CvxSubscription *
hold(const char *name)
{
	CvxSubscription *sub;

	cvx_call_refuse_read_only();
	sub = cvx_catalog_check(name);
	cvx_catalog_run(SPI_OK_SELECT,
					"SELECT FROM @.convex_subscription WHERE subid = $1 FOR UPDATE",
					"i", sub->subid);
	sub = cvx_catalog_check(name);
	cvx_catalog_follow(sub);
	return sub;
}

/* Another server; if its deployment is another one all is loaded again. */
static void
choose_server(const CvxSubscription *sub, const char *name)
{
	ForeignServer *server = GetForeignServerByName(name, false);

	if (cvx_catalog_server(name) == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("server \"%s\" is not a server of convex_fdw", name)));
	if (OidIsValid(sub->owner) &&
		cvx_server_aclcheck(server->serverid, sub->owner) != ACLCHECK_OK)
		aclcheck_error(ACLCHECK_NO_PRIV, OBJECT_FOREIGN_SERVER, name);
	cvx_catalog_run(SPI_OK_UPDATE,
					"UPDATE @.convex_subscription SET server = $2::name, server_oid = $3 WHERE subid = $1",
					"ito", sub->subid, name, server->serverid);
}

/* Another owner, whom the role can act for. */
static void
give_to(const CvxSubscription *sub, const char *name)
{
	Oid			owner = get_role_oid(name, false);

	cvx_check_can_become(GetUserId(), owner);
	cvx_catalog_run(SPI_OK_UPDATE,
					"UPDATE @.convex_subscription SET owner = $2::name, owner_oid = $3 WHERE subid = $1",
					"ito", sub->subid, name, owner);
}

/* About how many locks the drop of one table of a subscription needs. */
static int
locks_of_drop(const CvxSubscription *sub, const CvxSubRel *rel,
			  bool drops_target)
{
	CvxSubRel	staging = {.target = InvalidOid};
	int			nstaging = cvx_apply_count_locks(sub, &staging);

	return (rel->is_staged ? nstaging : 0) +
		(drops_target && OidIsValid(rel->target) ?
		 cvx_apply_count_locks(sub, rel) - nstaging : 0);
}

/*
 * What the caller's transaction drops must leave others room in the table of
 * locks.
 */
static void
check_locks(const CvxSubscription *sub, bool drops_tables)
{
	int			most = cvx_apply_lock_slots() / LOCK_TABLE_PART;
	int			nlocks = 0;
	ListCell   *lc;

	foreach(lc, sub->rels)
		nlocks += locks_of_drop(sub, lfirst(lc), drops_tables);
	if (nlocks > most)
		ereport(ERROR,
				(errcode(ERRCODE_OUT_OF_MEMORY),
				 errmsg("tables of subscription \"%s\" are too many to be dropped in one transaction",
						sub->name),
				 errdetail("About %d locks are needed, and %d may be taken at once.",
						   nlocks, most),
				 drops_tables ?
				 errhint("CALL convex_drop_tables('%s') first, which takes several transactions, or increase max_locks_per_transaction.",
						 sub->name) :
				 errhint("Let the load end, or increase max_locks_per_transaction.")));
}

/* With the rights of the caller. */
static void
drop_target(const CvxSubRel *rel)
{
	SPI_execute(psprintf("DROP TABLE %s",
						 quote_qualified_identifier(rel->target_schema,
													rel->target_name)),
				false, 0);
}

/*
 * In one transaction: disable a subscription, and drop some of its tables;
 * false when there were none left.
 */
static bool
drop_portion(const char *name)
{
	int			budget = cvx_apply_lock_slots() / LOCK_TABLE_PORTION;
	int			nlocks = 0;
	bool		is_dropping = false;
	CvxSubscription *sub;
	ListCell   *lc;

	CHECK_FOR_INTERRUPTS();
	cvx_call_begin();
	sub = hold(name);
	if (sub->is_enabled)
	{
		cvx_catalog_run(SPI_OK_UPDATE,
						"UPDATE @.convex_subscription SET enabled = false WHERE subid = $1",
						"i", sub->subid);
		cvx_state_ask(sub->subid, false);
		cvx_launcher_wake();
	}
	foreach(lc, sub->rels)
	{
		CvxSubRel  *rel = lfirst(lc);

		if (!rel->is_staged && !OidIsValid(rel->target))
			continue;
		nlocks += locks_of_drop(sub, rel, true);
		if (is_dropping && nlocks > budget)
			break;
		is_dropping = true;
		if (rel->load == CVX_LOAD_WALKING)
			cvx_state_abandon(sub, false, "tables are dropped");
		if (rel->load != CVX_LOAD_NONE)
			cvx_state_want(sub, rel, CVX_START_NEW, NULL, "tables are dropped");
		cvx_catalog_drop_staging(sub, rel);
		cvx_state_unstage(sub, rel);
		if (OidIsValid(rel->target))
			drop_target(rel);
	}
	cvx_worker_wake(sub->subid);
	cvx_call_commit();
	return is_dropping;
}

