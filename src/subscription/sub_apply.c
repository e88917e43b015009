/*
 * sub_apply.c
 *		How does a page change the local table?
 *
 * Loads go to staging tables by multi-insert.  Changes go to the target by
 * plain INSERT, UPDATE and DELETE over the page's rows, which the statements
 * see as a relation; so triggers, constraints and partitions work as ever.
 * Whatever may run a user's code runs as the target's owner in a
 * security-restricted operation, with constraints immediate and settings that
 * end with it.
 *
 * This file does not decide when the cursor moves, and sends nothing.
 *
 * Room: subscription 5.8
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/heapam.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/twophase.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/dependency.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "catalog/pg_collation.h"
#include "catalog/pg_extension.h"
#include "catalog/pg_index.h"
#include "catalog/pg_namespace.h"
#include "catalog/pg_type.h"
#include "common/base64.h"
#include "commands/extension.h"
#include "executor/executor.h"
#include "executor/spi.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "rewrite/rewriteDefine.h"
#include "storage/bufmgr.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/hsearch.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/queryenvironment.h"
#include "utils/rel.h"
#include "utils/relcache.h"
#include "utils/ruleutils.h"
#include "utils/syscache.h"
#include "utils/tuplestore.h"

#include "ground/compat.h"
#include "subscription/sub_apply.h"
#include "subscription/sub_catalog.h"
#include "subscription/sub_direct.h"
#include "subscription/sub_events.h"
#include "subscription/sub_read.h"
#include "subscription/sub_state.h"
#include "subscription/sub_target.h"

/* Rows of one multi-insert, and text of theirs that is enough for one. */
#define LOAD_ROWS			1000
#define LOAD_BYTES			(1024 * 1024)

/*
 * Locks of a transaction that makes or drops a staging table: the table, its
 * TOAST table with index, its key, and the types and constraint of these; and
 * of one that writes or drops a target, besides its indexes.
 */
#define STAGING_LOCKS		12
#define TABLE_LOCKS			6

/* A merge has three steps.  Each goes over parts of so many rows. */
#define MERGE_STEPS			3
#define PART_ROWS			10000

/* Rows of a target and its staging table that are merged by one statement. */
typedef struct Part
{
	char	   *after;			/* _ids: beyond this, or NULL */
	char	   *upto;			/* up to this, or NULL */
	bool		is_last;
} Part;

/* The relation by which statements see the rows of a page. */
#define PAGE_RELATION		"convex_page"

/* Off while a page's statements are planned: what is left is look-ups. */
static const char *const lookup_settings[] = {
	"enable_seqscan", "enable_hashjoin", "enable_mergejoin", "enable_bitmapscan",
	"jit"
};

/* Off while a merge is planned: what is left needs no temporary files. */
static const char *const merge_settings[] = {
	"enable_seqscan", "enable_hashjoin", "enable_hashagg", "enable_bitmapscan",
	"enable_sort", "jit"
};

static void go_with_extension(Oid class, Oid object);
static const char *redirected_event(Relation relation);
static void note_columns(const CvxSubscription *sub, CvxSubRel *rel);
static void add_declared_columns(StringInfo buf, const CvxSubRel *rel);
static const CvxColumn *find_column(const CvxTarget *target, const char *name);
static bool is_same_type(Form_pg_attribute one, Form_pg_attribute other);
static bool copy_columns(const CvxSubscription *sub, CvxSubRel *rel, Oid from,
						 Oid to);
static void add_known_columns(const CvxSubscription *sub, CvxSubRel *rel);
static bool add_column(const CvxSubscription *sub, const CvxSubRel *rel,
					   Oid relid, const char *name, const char *type,
					   const char *field);
static Oid	staging_relid(const CvxSubscription *sub, const CvxSubRel *rel);
static int	multi_insert(CvxTarget *target, const CvxBatchDocs *docs, int done);
static int *choose_docs(const CvxSubscription *sub, const CvxBatchDocs *docs,
						int *ndocs);
static char *compared_rows(const CvxTarget *target, const CvxPage *page,
						   const char *id, const char *after,
						   const char *upto);
static int	compare_ids(const CvxPage *page, int a, int b);
static int	compare_docs(const void *a, const void *b, void *arg);
static Oid	decoding_role(const CvxTarget *target, bool to_staging);
static void reopen(CvxTarget **target);
static int64 change_directly(CvxTarget **target, bool to_staging,
							 const CvxPage *page, const int *docs, int ndocs);
static int64 change_by_statements(CvxTarget **target, bool to_staging,
								  const CvxPage *page, const int *docs,
								  int ndocs);
static Tuplestorestate *collect_rows(CvxTarget *target, const CvxPage *page,
									 const int *docs, int ndocs,
									 TupleDesc tupdesc, int *ndeleted);
static TupleDesc page_tupdesc(CvxTarget *target);
static int64 run_page(CvxTarget *target, const char *sql, int expected);
static int64 run_changes(CvxTarget *target, int nrows, int ndeleted);
static char *column_list(CvxTarget *target, const char *prefix);
static char *set_list(CvxTarget *target, const char *from);
static void merge_as(const CvxSubscription *sub, CvxSubRel *rel, Oid staging,
					 int64 ts);
static void merge(CvxTarget *target, Oid relid, const char *staging,
				  int64 ts);
static bool is_divisible(CvxTarget *target, Oid staging);
static bool next_part(CvxTarget *target, const char *staging, Part *part);
static char *within(const Part *part, const char *alias);
static void merge_step(CvxTarget *target, const char *staging, int64 ts,
					   int step, const Part *part);
static void merge_history(CvxTarget *target, const char *staging, int64 ts,
						  int step, const Part *part);
static Oid	check_schema(const CvxSubscription *sub, const CvxSubRel *rel);
static void copy_into_place(const CvxSubscription *sub, CvxSubRel *rel);
static void move_into_place(const CvxSubscription *sub, CvxSubRel *rel,
							Oid staging);
static bool may_adopt(const CvxSubscription *sub, const CvxSubRel *rel, Oid owner);
static bool has_unique_id(Relation relation, AttrNumber attnum);

/* ------------------------------------------------------------------------
 * Loading
 * ------------------------------------------------------------------------
 */

/*
 * Make the staging table of a table that is to be loaded, with the columns of
 * its target, or those that its fields ask for.  Where a publication would
 * send its rows it is not logged: subscribers have no such table.
 */
void
cvx_apply_create_staging(const CvxSubscription *sub, CvxSubRel *rel)
{
	StringInfoData buf;
	char	   *name = cvx_catalog_staging(sub, rel);

	if (!OidIsValid(get_namespace_oid("convex_staging", true)))
	{
		cvx_catalog_run(SPI_OK_UTILITY, "CREATE SCHEMA convex_staging", "");
		go_with_extension(NamespaceRelationId, get_namespace_oid("convex_staging", false));
	}
	cvx_catalog_run(SPI_OK_UTILITY,
					psprintf("DROP TABLE IF EXISTS convex_staging.%s", name), "");
	initStringInfo(&buf);
	appendStringInfo(&buf, "CREATE %sTABLE convex_staging.%s (",
					 cvx_apply_is_published(rel->target_schema) ? "UNLOGGED " : "", name);
	if (OidIsValid(rel->target))
	{
		CvxTarget  *target;

		cvx_apply_check_target(sub, rel);
		cvx_catalog_bind_target(sub, rel);
		note_columns(sub, rel);
		if (sub->options.is_evolving)
			add_known_columns(sub, rel);
		if (sub->options.has_document && get_attnum(rel->target, "_document") == InvalidAttrNumber)
			(void) add_column(sub, rel, rel->target, "_document",
							  "pg_catalog.jsonb", "_document");
		target = cvx_target_open(sub, rel, rel->target);
		for (int i = 0; i < target->ncolumns; i++)
		{
			const CvxColumn *column = &target->columns[i];

			appendStringInfo(&buf, "%s%s %s", i > 0 ? ", " : "",
							 quote_identifier(column->name),
							 cvx_target_column_type(target->tupdesc, column->attnum));
		}
		cvx_target_close(target);
	}
	else
	{
		appendStringInfoString(&buf, "_id pg_catalog.text COLLATE pg_catalog.\"C\" NOT NULL, \"_creationTime\" pg_catalog.timestamptz");
		add_declared_columns(&buf, rel);
		appendStringInfoString(&buf, ", _ts pg_catalog.int8 NOT NULL, _extra pg_catalog.jsonb");
		if (sub->options.has_document)
			appendStringInfoString(&buf, ", _document pg_catalog.jsonb");
		if (sub->mode == CVX_MODE_SOFT_DELETE)
			appendStringInfoString(&buf, ", _deleted_at pg_catalog.timestamptz");
		if (sub->mode == CVX_MODE_HISTORY)
			appendStringInfoString(&buf, ", _deleted pg_catalog.bool NOT NULL");
	}
	appendStringInfoChar(&buf, ')');
	cvx_catalog_run(SPI_OK_UTILITY, buf.data, "");
	go_with_extension(RelationRelationId, staging_relid(sub, rel));
	cvx_state_stage(sub, rel);
}

/* It is dropped with the extension, and may be dropped without it. */
static void
go_with_extension(Oid class, Oid object)
{
	ObjectAddress it;
	ObjectAddress extension;

	ObjectAddressSet(it, class, object);
	ObjectAddressSet(extension, ExtensionRelationId, get_extension_oid("convex_fdw", false));
	recordDependencyOn(&it, &extension, DEPENDENCY_AUTO_EXTENSION);
}

/* One column for each field that the catalog names. */
static void
add_declared_columns(StringInfo buf, const CvxSubRel *rel)
{
	JsonbIterator *it = JsonbIteratorInit(&rel->columns->root);
	JsonbIteratorToken token;
	JsonbValue	value;
	char	   *attname = NULL;
	List	   *fields = list_make1("_creationTime");

	while ((token = JsonbIteratorNext(&it, &value, true)) != WJB_DONE)
	{
		char	   *field;
		char	   *type;
		bool		is_there = false;
		ListCell   *lc;

		if (token == WJB_KEY)
			attname = pnstrdup(value.val.string.val, value.val.string.len);
		if (token != WJB_VALUE)
			continue;
		field = pnstrdup(value.val.string.val, value.val.string.len);
		type = strchr(field, '\t');
		if (type)
			*type++ = '\0';

		/* An earlier target may have had two for a field, one after the other. */
		foreach(lc, fields)
			is_there |= strcmp(lfirst(lc), field) == 0;
		if (is_there)
			continue;
		fields = lappend(fields, field);
		appendStringInfo(buf, ", %s %s", quote_identifier(attname),
						 type ? type : "pg_catalog.jsonb");
	}
}

/* See what the columns of a target are called now, and know them by that. */
static void
note_columns(const CvxSubscription *sub, CvxSubRel *rel)
{
	CvxTarget  *target = cvx_target_open(sub, rel, rel->target);

	cvx_target_report_drifts(target);
	cvx_target_close(target);
}

/*
 * Does a publication of this database send all that is written to the tables
 * of this schema, or to staging tables?
 */
bool
cvx_apply_is_published(const char *schema)
{
	Oid			schemas[] = {get_namespace_oid(schema, true),
	get_namespace_oid("convex_staging", true)};

	if (!XLogLogicalInfoActive())
		return false;
	if (GetAllTablesPublications() != NIL)
		return true;
	for (int i = 0; i < lengthof(schemas); i++)
		if (OidIsValid(schemas[i]) && cvx_schema_publications(schemas[i]) != NIL)
			return true;
	return false;
}

/* Would a publication send the rows of this staging table? */
bool
cvx_apply_is_staging_logged(const CvxSubscription *sub, const CvxSubRel *rel)
{
	return get_rel_persistence(staging_relid(sub, rel)) != RELPERSISTENCE_UNLOGGED;
}

/* Has a crash taken the rows of a staging table that is not logged? */
bool
cvx_apply_is_staging_emptied(const CvxSubscription *sub, const CvxSubRel *rel)
{
	Relation	relation;
	bool		is_emptied;

	if (rel->is_empty || cvx_apply_is_staging_logged(sub, rel))
		return false;
	relation = table_open(staging_relid(sub, rel), AccessShareLock);
	is_emptied = RelationGetNumberOfBlocks(relation) == 0;
	table_close(relation, AccessShareLock);
	return is_emptied;
}

/* Is the staging table of a table there? */
bool
cvx_apply_has_staging(const CvxSubscription *sub, const CvxSubRel *rel)
{
	Oid			schema = get_namespace_oid("convex_staging", true);

	return OidIsValid(schema) &&
		OidIsValid(get_relname_relid(cvx_catalog_staging(sub, rel), schema));
}

/* Is a target a table that is not logged, without a page? */
bool
cvx_apply_is_emptied(const CvxSubRel *rel)
{
	Relation	relation;
	bool		is_emptied;

	if (!OidIsValid(rel->target) ||
		get_rel_relkind(rel->target) != RELKIND_RELATION ||
		get_rel_persistence(rel->target) != RELPERSISTENCE_UNLOGGED ||
		(relation = try_relation_open(rel->target, AccessShareLock)) == NULL)
		return false;
	is_emptied = RelationGetNumberOfBlocks(relation) == 0;
	relation_close(relation, AccessShareLock);
	return is_emptied;
}

/* Give a target that exists the columns that its fields ask for. */
static void
add_known_columns(const CvxSubscription *sub, CvxSubRel *rel)
{
	JsonbIterator *it = JsonbIteratorInit(&rel->columns->root);
	JsonbIteratorToken token;
	JsonbValue	value;
	char	   *attname = NULL;

	while ((token = JsonbIteratorNext(&it, &value, true)) != WJB_DONE)
	{
		char	   *said;
		char	   *type;

		if (token == WJB_KEY)
			attname = pnstrdup(value.val.string.val, value.val.string.len);
		if (token != WJB_VALUE || get_attnum(rel->target, attname) != InvalidAttrNumber)
			continue;
		said = pnstrdup(value.val.string.val, value.val.string.len);
		type = strchr(said, '\t');
		if (type != NULL)
			(void) add_column(sub, rel, rel->target, attname, type + 1,
							  pnstrdup(said, type - said));
	}
}

/*
 * Give one table the columns with fields that it lacks and the other has; false
 * when it refuses one.
 */
static bool
copy_columns(const CvxSubscription *sub, CvxSubRel *rel, Oid from, Oid to)
{
	CvxTarget  *source = cvx_target_open(sub, rel, from);
	bool		is_done = true;

	for (int i = 0; i < source->nfields; i++)
	{
		const CvxColumn *column = &source->columns[i];

		if (get_attnum(to, column->name) == InvalidAttrNumber)
			is_done &= add_column(sub, rel, to, column->name, to == rel->target ?
								  cvx_target_column_type(source->tupdesc, column->attnum) :
								  cvx_target_base_type(source->tupdesc, column->attnum),
								  column->field);
	}
	cvx_target_close(source);
	return is_done;
}

/* False when the table refuses the column, which is told; throws 55P03. */
static bool
add_column(const CvxSubscription *sub, const CvxSubRel *rel, Oid relid,
		   const char *name, const char *type, const char *field)
{
	char	   *drift;
	CvxAdding	adding = cvx_target_add_column(rel, relid, name, type, field,
											   &drift);

	if (adding == CVX_ADDING_LATER)
		ereport(ERROR,
				(errcode(ERRCODE_LOCK_NOT_AVAILABLE),
				 errmsg("table \"%s\" is in use and cannot get column \"%s\" now",
						get_rel_name(relid), name)));
	if (drift)
		cvx_catalog_drift(sub->subid, rel, drift);
	return adding == CVX_ADDING_DONE;
}

/*
 * Add documents of a walk to a staging table, so many at a time.  Fields that
 * no column is there for get theirs before the rows that show them first.
 */
void
cvx_apply_load(const CvxSubscription *sub, CvxSubRel *rel,
			   const CvxBatchDocs *docs)
{
	CvxTarget  *target = cvx_target_open(sub, rel, staging_relid(sub, rel));
	CvxTurn		turn;

	/* Of a table that nothing is known about the first page shows the fields. */
	target->may_add = sub->options.is_evolving || JB_ROOT_COUNT(rel->columns) == 0;
	for (int done = 0; done < docs->ndocs;)
	{
		cvx_target_begin_turn(&turn, decoding_role(target, true));
		done = multi_insert(target, docs, done);
		cvx_target_end_turn(&turn);
		if (target->unknowns == NIL)
			continue;
		for (int i = done; i < docs->ndocs; i++)
			cvx_target_note_unknowns(target, docs->page, &docs->page->docs[docs->docs[i]]);
		if (cvx_target_add_columns(target))
			reopen(&target);
		target->may_add = false;
	}
	cvx_target_report_drifts(target);
	cvx_target_close(target);
}

/* How many locks the server has room for, in all its processes. */
int
cvx_apply_lock_slots(void)
{
	return max_locks_per_xact * (MaxBackends + max_prepared_xacts);
}

/*
 * About how many locks a transaction needs that makes, shows or drops this
 * table.  The target's indexes and partitions are looked up without locks.
 */
int
cvx_apply_count_locks(const CvxSubscription *sub, const CvxSubRel *rel)
{
	if (!OidIsValid(rel->target))
		return STAGING_LOCKS;
	cvx_catalog_run(SPI_OK_SELECT,
					"WITH RECURSIVE tree (relid) AS (SELECT $1 UNION"
					" SELECT inhrelid FROM pg_inherits, tree WHERE inhparent = relid)"
					" SELECT count(*) * $2::bigint + (SELECT count(*) FROM pg_index, tree"
					" WHERE indrelid = relid) FROM tree", "oi", rel->target,
					TABLE_LOCKS);
	return STAGING_LOCKS + (int) cvx_catalog_int64(0, 1);
}

/* Give a loaded staging table its key. */
void
cvx_apply_index(const CvxSubscription *sub, CvxSubRel *rel)
{
	cvx_catalog_run(SPI_OK_UTILITY,
					psprintf("ALTER TABLE convex_staging.%s ADD PRIMARY KEY (%s)",
							 cvx_catalog_staging(sub, rel),
							 sub->mode == CVX_MODE_HISTORY ? "_id, _ts" : "_id"), "");
}

/*
 * Does a staging table fit its target?  Columns that both have are of the same
 * types (they may have got one for the same field from different documents), are
 * still filled in both, and it has what it cannot get without a value being lost.
 */
bool
cvx_apply_fits(const CvxSubscription *sub, CvxSubRel *rel)
{
	CvxTarget  *staging;
	CvxTarget  *target;
	bool		fits = true;

	if (!OidIsValid(rel->target))
		return true;

	/* The target's columns may have been renamed: it comes first. */
	target = cvx_target_open(sub, rel, rel->target);
	staging = cvx_target_open(sub, rel, staging_relid(sub, rel));
	for (int i = 0; i < staging->tupdesc->natts; i++)
	{
		Form_pg_attribute one = TupleDescAttr(staging->tupdesc, i);
		const CvxColumn *other;

		if (one->attisdropped)
			continue;
		other = find_column(target, NameStr(one->attname));
		if (find_column(staging, NameStr(one->attname)) == NULL ||
			(other == NULL && get_attnum(rel->target, NameStr(one->attname)) > 0))
			fits = false;
		else if (other)
			fits &= is_same_type(one, TupleDescAttr(target->tupdesc, other->attnum - 1));
	}
	for (int i = target->nfields; i < target->ncolumns; i++)
		fits &= find_column(staging, target->columns[i].name) != NULL;
	cvx_target_close(staging);
	cvx_target_close(target);
	return fits;
}

/* A column that is filled; NULL: there is none of this name. */
static const CvxColumn *
find_column(const CvxTarget *target, const char *name)
{
	for (int i = 0; i < target->ncolumns; i++)
		if (strcmp(target->columns[i].name, name) == 0)
			return &target->columns[i];
	return NULL;
}

/* Domains over the same type are taken for it. */
static bool
is_same_type(Form_pg_attribute one, Form_pg_attribute other)
{
	int32		one_typmod = one->atttypmod;
	int32		other_typmod = other->atttypmod;

	return getBaseTypeAndTypmod(one->atttypid, &one_typmod) ==
		getBaseTypeAndTypmod(other->atttypid, &other_typmod) &&
		one_typmod == other_typmod;
}

/*
 * Make a loaded table visible, as it was at ts: move it into place, or merge
 * it into the target that is there.  What moves is not published: where that
 * matters its rows are inserted into a new table.  False when the target
 * refuses a column that the staging table has.
 */
bool
cvx_apply_cutover(const CvxSubscription *sub, CvxSubRel *rel, int64 ts)
{
	Oid			staging = staging_relid(sub, rel);

	if (!OidIsValid(rel->target) &&
		(!cvx_apply_is_staging_logged(sub, rel) ||
		 cvx_apply_is_published(rel->target_schema)))
		copy_into_place(sub, rel);
	else if (!OidIsValid(rel->target))
		move_into_place(sub, rel, staging);
	else
	{
		cvx_apply_check_target(sub, rel);

		/* Either may have got columns while the other was not looked at. */
		if (!copy_columns(sub, rel, staging, rel->target))
			return false;
		(void) copy_columns(sub, rel, rel->target, staging);
		merge_as(sub, rel, staging, ts);
	}
	note_columns(sub, rel);
	rel->is_staged = false;
	return true;
}

/*
 * Merge as the target's owner, who reads the staging table for this while.  It
 * moves beside the target for that, where the owner finds it without a right
 * on the schema of the staging tables: all subscriptions share that, and no
 * two transactions may change one object's rights.
 */
static void
merge_as(const CvxSubscription *sub, CvxSubRel *rel, Oid staging, int64 ts)
{
	CvxTarget  *target = cvx_target_open(sub, rel, rel->target);
	Oid			owner = target->relation->rd_rel->relowner;
	Oid			schema = RelationGetNamespace(target->relation);
	const char *table = cvx_catalog_staging(sub, rel);
	char	   *name = quote_qualified_identifier(get_namespace_name(schema), table);
	CvxTurn		turn;

	cvx_catalog_run(SPI_OK_UTILITY,
					psprintf("ALTER TABLE convex_staging.%s SET SCHEMA %s", table,
							 quote_identifier(get_namespace_name(schema))), "");
	cvx_catalog_run(SPI_OK_UTILITY,
					psprintf("GRANT SELECT ON %s TO %s", name,
							 quote_identifier(GetUserNameFromId(owner, false))), "");
	cvx_target_begin_turn(&turn, owner);
	cvx_target_run("SET CONSTRAINTS ALL IMMEDIATE", SPI_OK_UTILITY);
	merge(target, staging, name, ts);
	cvx_target_end_turn(&turn);
	cvx_target_close(target);

	/* An owner of the schema could have put a table of its own there. */
	if (get_relname_relid(table, schema) != staging)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("staging table %s was replaced", name),
				 errdetail("It was replaced by code of the target table.")));
	cvx_catalog_run(SPI_OK_UTILITY, psprintf("DROP TABLE %s", name), "");
}

/* ------------------------------------------------------------------------
 * Changes
 * ------------------------------------------------------------------------
 */

/*
 * Apply changes of one table, in the change log's order, to its target or to
 * its staging table.  Returns how many rows changed.
 */
int64
cvx_apply_changes(const CvxSubscription *sub, CvxSubRel *rel, bool to_staging,
				  const CvxBatchDocs *docs)
{
	CvxTarget  *target;
	int			ndocs;
	int		   *chosen = choose_docs(sub, docs, &ndocs);
	int64		changed;

	if (to_staging)
		target = cvx_target_open(sub, rel, staging_relid(sub, rel));
	else
	{
		if (!OidIsValid(rel->target))
			ereport(ERROR,
					(errcode(ERRCODE_UNDEFINED_TABLE),
					 errmsg("table \"%s.%s\" does not exist",
							rel->target_schema, rel->target_name),
					 errhint("Load it again with convex_resync_table().")));
		cvx_apply_check_target(sub, rel);
		target = cvx_target_open(sub, rel, rel->target);
	}
	target->may_add = true;
	if (cvx_direct_is_possible(target))
		changed = change_directly(&target, to_staging, docs->page, chosen, ndocs);
	else
		changed = change_by_statements(&target, to_staging, docs->page, chosen, ndocs);
	cvx_target_report_drifts(target);
	cvx_target_close(target);
	return changed;
}

/*
 * The documents to apply: the last revision of each, by _id, or in history
 * mode all of them, as they come.
 */
static int *
choose_docs(const CvxSubscription *sub, const CvxBatchDocs *docs, int *ndocs)
{
	const CvxPage *page = docs->page;
	int		   *chosen = palloc(sizeof(int) * Max(docs->ndocs, 1));
	int			n = 0;

	for (int i = 0; i < docs->ndocs; i++)
		if (sub->options.applies_deletes || !page->docs[docs->docs[i]].is_deleted)
			chosen[n++] = docs->docs[i];
	*ndocs = n;
	if (sub->mode == CVX_MODE_HISTORY)
		return chosen;
	qsort_arg(chosen, n, sizeof(int), compare_docs, (void *) page);
	*ndocs = 0;
	for (int i = 0; i < n; i++)
		if (i + 1 == n || compare_ids(page, chosen[i], chosen[i + 1]) != 0)
			chosen[(*ndocs)++] = chosen[i];
	return chosen;
}

static int
compare_ids(const CvxPage *page, int a, int b)
{
	CvxSpan		left = page->docs[a].id;
	CvxSpan		right = page->docs[b].id;
	int			order = memcmp(page->text + left.offset,
							   page->text + right.offset,
							   Min(left.len, right.len));

	return order != 0 ? order : (left.len > right.len) - (left.len < right.len);
}

/* By _id, then as in the page. */
static int
compare_docs(const void *a, const void *b, void *arg)
{
	int			left = *(const int *) a;
	int			right = *(const int *) b;
	int			order = compare_ids(arg, left, right);

	return order != 0 ? order : (left > right) - (left < right);
}

/*
 * Types of a target may bring code of its owner's, and a staging table has the
 * types of its target.
 */
static Oid
decoding_role(const CvxTarget *target, bool to_staging)
{
	if (!to_staging)
		return target->relation->rd_rel->relowner;
	return OidIsValid(target->rel->target) ?
		cvx_target_owner(target->rel->target) : target->sub->owner;
}

/* Opened anew, a target shows the columns that were added to it. */
static void
reopen(CvxTarget **target)
{
	const CvxSubscription *sub = (*target)->sub;
	CvxSubRel  *rel = (*target)->rel;
	Oid			relid = RelationGetRelid((*target)->relation);

	cvx_target_report_drifts(*target);
	cvx_target_close(*target);
	*target = cvx_target_open(sub, rel, relid);
}

/* The way of a plain table; see sub_direct.c. */
static int64
change_directly(CvxTarget **target, bool to_staging, const CvxPage *page,
				const int *docs, int ndocs)
{
	int64		changed = 0;
	CvxTurn		turn;

	for (int done = 0; done < ndocs;)
	{
		cvx_target_begin_turn(&turn, decoding_role(*target, to_staging));
		changed += cvx_direct_apply(*target, page, docs, ndocs, &done);
		cvx_target_end_turn(&turn);
		if ((*target)->unknowns == NIL)
			continue;
		for (int i = done; i < ndocs; i++)
			cvx_target_note_unknowns(*target, page, &page->docs[docs[i]]);
		if (cvx_target_add_columns(*target))
			reopen(target);
		(*target)->may_add = false;
	}
	return changed;
}

/* The way of all others. */
static int64
change_by_statements(CvxTarget **target, bool to_staging, const CvxPage *page,
					 const int *docs, int ndocs)
{
	Tuplestorestate *rows;
	EphemeralNamedRelationData enr = {{0}};
	TupleDesc	tupdesc;
	CvxTurn		turn;
	int			ndeleted;
	int64		changed;

	for (;;)
	{
		tupdesc = page_tupdesc(*target);
		cvx_target_begin_turn(&turn, decoding_role(*target, to_staging));
		rows = collect_rows(*target, page, docs, ndocs, tupdesc, &ndeleted);
		cvx_target_end_turn(&turn);
		if ((*target)->unknowns == NIL || !(*target)->may_add)
			break;
		tuplestore_end(rows);
		if (cvx_target_add_columns(*target))
			reopen(target);
		(*target)->may_add = false;
	}
	enr.md.name = PAGE_RELATION;
	enr.md.reliddesc = InvalidOid;
	enr.md.tupdesc = tupdesc;
	enr.md.enrtype = ENR_NAMED_TUPLESTORE;
	enr.md.enrtuples = ndocs;
	enr.reldata = rows;
	/* One may be left of a table whose subtransaction failed. */
	(void) SPI_unregister_relation(PAGE_RELATION);
	if (SPI_register_relation(&enr) != SPI_OK_REL_REGISTER)
		elog(ERROR, "cannot register the rows of a page");
	cvx_target_begin_turn(&turn, (*target)->relation->rd_rel->relowner);
	if (!to_staging)
		cvx_target_run("SET CONSTRAINTS ALL IMMEDIATE", SPI_OK_UTILITY);
	changed = run_changes(*target, ndocs, ndeleted);
	SPI_unregister_relation(PAGE_RELATION);
	tuplestore_end(rows);
	cvx_target_end_turn(&turn);
	return changed;
}

/*
 * Does the target, or the staging table, hold exactly the documents of this
 * page of _ids between after and upto (NULL: from the beginning, to the end)?
 * Returns what differs, or NULL.
 */
char *
cvx_apply_compare(const CvxSubscription *sub, CvxSubRel *rel, bool in_staging,
				  const CvxPage *page, const char *after, const char *upto)
{
	StringInfoData buf;
	CvxTarget  *target;
	char	   *result = NULL;
	char	   *id;
	char	   *range;
	char	   *name;
	uint64		n;
	uint64		row = 0;
	CvxTurn		turn;

	if (!in_staging && !OidIsValid(rel->target))
		return "the target is gone";
	target = cvx_target_open(sub, rel,
							 in_staging ? staging_relid(sub, rel) : rel->target);
	id = psprintf("%s%s", quote_identifier(target->id->name),
				  TupleDescAttr(target->tupdesc, target->id->attnum - 1)->attcollation == C_COLLATION_OID ?
				  "" : " COLLATE pg_catalog.\"C\"");
	name = target->name;
	initStringInfo(&buf);
	appendStringInfo(&buf, "SELECT %s %s AS i, %s AS t FROM %s WHERE true",
					 sub->mode == CVX_MODE_HISTORY ? psprintf("DISTINCT ON (%s)", id) : "",
					 id, target->ts ? "_ts" : "NULL::pg_catalog.int8", name);
	range = compared_rows(target, page, id, after, upto);
	appendStringInfoString(&buf, range);
	if (sub->mode == CVX_MODE_SOFT_DELETE)
		appendStringInfoString(&buf, " AND _deleted_at IS NULL");
	appendStringInfo(&buf, " ORDER BY %s%s", id,
					 sub->mode == CVX_MODE_HISTORY ? ", _ts DESC" : "");
	if (sub->mode == CVX_MODE_HISTORY)
	{
		char	   *inner = pstrdup(buf.data);

		inner = psprintf("SELECT i, t FROM (SELECT DISTINCT ON (i) * FROM (SELECT %s AS i, _ts AS t, _deleted AS d FROM %s WHERE true%s) AS r ORDER BY i, t DESC) AS r WHERE NOT d ORDER BY i",
						 id, name, range);
		resetStringInfo(&buf);
		appendStringInfoString(&buf, inner);
	}
	if (sub->options.applies_deletes)
		appendStringInfo(&buf, " LIMIT %d", page->ndocs + 1);
	cvx_target_begin_turn(&turn, target->relation->rd_rel->relowner);
	cvx_target_run(buf.data, SPI_OK_SELECT);
	cvx_target_end_turn(&turn);
	n = SPI_processed;
	for (int i = 0; i < page->ndocs && result == NULL; i++)
	{
		const CvxDoc *doc = &page->docs[i];
		char	   *want = pnstrdup(page->text + doc->id.offset, doc->id.len);
		char	   *have = NULL;

		while (row < n)
		{
			have = cvx_catalog_text(row, 1);
			if (sub->options.applies_deletes || strcmp(have, want) >= 0)
				break;
			row++;
		}
		if (row >= n || strcmp(have, want) != 0)
			result = psprintf("document \"%s\" is missing", want);
		else if (target->ts && cvx_catalog_int64(row, 2) != doc->ts)
			result = psprintf("document \"%s\" is another revision", want);
		row++;
	}
	if (result == NULL && sub->options.applies_deletes && n > page->ndocs)
		result = psprintf("row \"%s\" is no document", cvx_catalog_text(n - 1, 1));
	cvx_target_close(target);
	return result;
}

/*
 * The condition that a row is compared with a page.  Where rows stay whose
 * documents are gone, there may be any number between those of the page.
 */
static char *
compared_rows(const CvxTarget *target, const CvxPage *page, const char *id,
			  const char *after, const char *upto)
{
	StringInfoData buf;

	initStringInfo(&buf);
	if (!target->sub->options.applies_deletes)
	{
		/* The column as it is: its index may have another collation. */
		appendStringInfo(&buf, " AND %s = ANY (ARRAY[",
						 quote_identifier(target->id->name));
		for (int i = 0; i < page->ndocs; i++)
		{
			char	   *text = pnstrdup(page->text + page->docs[i].id.offset,
										page->docs[i].id.len);

			appendStringInfo(&buf, "%s%s", i > 0 ? "," : "",
							 quote_literal_cstr(text));
		}
		appendStringInfoString(&buf, "]::pg_catalog.text[])");
		return buf.data;
	}
	if (after)
		appendStringInfo(&buf, " AND %s > %s", id, quote_literal_cstr(after));
	if (upto)
		appendStringInfo(&buf, " AND %s <= %s", id, quote_literal_cstr(upto));
	return buf.data;
}

/*
 * Settings under which the target's own code runs, for the rest of the
 * transaction.
 */
void
cvx_apply_environment(void)
{
	static const char *const settings[][2] = {
		{"search_path", "pg_catalog, pg_temp"},
		{"DateStyle", "ISO, YMD"},
		{"IntervalStyle", "postgres"},
		{"TimeZone", "UTC"},
		{"extra_float_digits", "1"},
		{"row_security", "on"},
		{"check_function_bodies", "off"},
	};

	for (int i = 0; i < lengthof(settings); i++)
		(void) set_config_option(settings[i][0], settings[i][1], PGC_USERSET,
								 PGC_S_SESSION, GUC_ACTION_LOCAL, true, 0, false);
}

/* What a rule that is in force does something else instead of; NULL: nothing. */
static const char *
redirected_event(Relation relation)
{
	for (int i = 0; relation->rd_rules && i < relation->rd_rules->numLocks; i++)
	{
		const RewriteRule *rule = relation->rd_rules->rules[i];

		if (!rule->isInstead || (rule->enabled != RULE_FIRES_ON_ORIGIN &&
								 rule->enabled != RULE_FIRES_ALWAYS))
			continue;
		return rule->event == CMD_INSERT ? "INSERT" :
			rule->event == CMD_UPDATE ? "UPDATE" : "DELETE";
	}
	return NULL;
}

/*
 * Throws unless a table can be a target of the subscription: 42501 when its
 * owner is a role that the subscription's owner cannot act for, or when it is
 * not yet the target and a role that is less trusted may have put it there.
 */
void
cvx_apply_check_target(const CvxSubscription *sub, const CvxSubRel *rel)
{
	Oid			relid = rel->target;
	Relation	relation = cvx_target_lock(relid, AccessShareLock);
	char	   *name = RelationGetRelationName(relation);
	const char *event = redirected_event(relation);
	AttrNumber	attnum = get_attnum(relid, "_id");
	static const char *const needed[][2] = {
		{NULL}, {"_deleted_at"}, {"_ts", "_deleted"}
	};

	if (relation->rd_rel->relkind != RELKIND_RELATION &&
		relation->rd_rel->relkind != RELKIND_PARTITIONED_TABLE)
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("\"%s\" is not a table", name)));
	if (event)
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("table \"%s\" has a rule ON %s DO INSTEAD, by which changes would be lost",
						name, event),
				 errhint("Drop the rule, or use a trigger in its place.")));
	if (!has_privs_of_role(sub->owner, relation->rd_rel->relowner))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("owner of subscription \"%s\" cannot act for the owner of table \"%s\"",
						sub->name, name),
				 errhint("Grant role \"%s\" to \"%s\".",
						 GetUserNameFromId(relation->rd_rel->relowner, true),
						 GetUserNameFromId(sub->owner, true))));
	if (!rel->is_bound && rel->state == CVX_REL_JOINING &&
		!may_adopt(sub, rel, relation->rd_rel->relowner))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("table \"%s\" belongs to role \"%s\", which would read the documents",
						name, GetUserNameFromId(relation->rd_rel->relowner, true)),
				 errhint("If it is to be the target, name it in option \"adopt\" of the subscription: {\"adopt\": [\"%s\"]}.",
						 name)));
	if (attnum == InvalidAttrNumber || get_atttype(relid, attnum) != TEXTOID ||
		!TupleDescAttr(RelationGetDescr(relation), attnum - 1)->attnotnull ||
		(sub->mode != CVX_MODE_HISTORY && !has_unique_id(relation, attnum)))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_TABLE_DEFINITION),
				 errmsg("table \"%s\" has no usable column \"_id\"", name),
				 errhint("It must have a column _id text that is its primary key.")));
	for (int i = 0; i < 2; i++)
	{
		const char *column = needed[sub->mode][i];

		if (column && get_attnum(relid, column) == InvalidAttrNumber)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_TABLE_DEFINITION),
					 errmsg("table \"%s\" has no column \"%s\", which the mode needs",
							name, column),
					 errhint("Add the column, or choose another target_schema.")));
	}
	table_close(relation, NoLock);
}

/*
 * May a table of this owner become a target?  One of the subscription's owner,
 * of a superuser, or of a role that it was made a member of; a superuser is a
 * member of all, so those do not count for it.
 */
static bool
may_adopt(const CvxSubscription *sub, const CvxSubRel *rel, Oid owner)
{
	ListCell   *lc;

	if (owner == sub->owner || superuser_arg(owner) ||
		(!superuser_arg(sub->owner) &&
		 is_member_of_role_nosuper(sub->owner, owner)))
		return true;
	foreach(lc, sub->options.adopted)
		if (strcmp(lfirst(lc), rel->target_name) == 0)
			return true;
	return false;
}

/* A unique index on _id alone, or _id as the whole partition key. */
static bool
has_unique_id(Relation relation, AttrNumber attnum)
{
	List	   *indexes = RelationGetIndexList(relation);
	bool		is_found = relation->rd_rel->relkind == RELKIND_PARTITIONED_TABLE;
	ListCell   *lc;

	foreach(lc, indexes)
	{
		HeapTuple	tuple = SearchSysCache1(INDEXRELID,
											ObjectIdGetDatum(lfirst_oid(lc)));
		Form_pg_index index = (Form_pg_index) GETSTRUCT(tuple);

		is_found |= index->indisunique && index->indnkeyatts == 1 &&
			index->indkey.values[0] == attnum && index->indisvalid &&
			heap_attisnull(tuple, Anum_pg_index_indpred, NULL);
		ReleaseSysCache(tuple);
	}
	return is_found;
}

static Oid
staging_relid(const CvxSubscription *sub, const CvxSubRel *rel)
{
	char	   *name = cvx_catalog_staging(sub, rel);
	Oid			schema = get_namespace_oid("convex_staging", true);
	Oid			relid = OidIsValid(schema) ? get_relname_relid(name, schema) :
	InvalidOid;

	if (!OidIsValid(relid))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("staging table \"%s\" is gone", name),
				 errhint("Load the table again with convex_resync_table().")));
	return relid;
}

/* ------------------------------------------------------------------------
 * From rows to the table
 * ------------------------------------------------------------------------
 */

/*
 * Insert the documents from the one at done on, until the last or until some
 * show a field that may get a column; returns where to go on.
 */
static int
multi_insert(CvxTarget *target, const CvxBatchDocs *docs, int done)
{
	int			nslots = Min(docs->ndocs - done, LOAD_ROWS);
	TupleTableSlot **slots = palloc(sizeof(TupleTableSlot *) * nslots);
	TupleDesc	tupdesc = CreateTupleDescCopy(target->tupdesc);	/* no reference counts */
	BulkInsertState bulk = GetBulkInsertState();
	CommandId	cid = GetCurrentCommandId(true);
	StringInfoData extra;

	initStringInfo(&extra);
	for (int i = 0; i < nslots; i++)
		slots[i] = MakeSingleTupleTableSlot(tupdesc, &TTSOpsVirtual);
	while (done < docs->ndocs)
	{
		size_t		size = 0;
		int			n = 0;

		for (; n < nslots && done + n < docs->ndocs && size < LOAD_BYTES; n++)
		{
			const CvxDoc *doc = &docs->page->docs[docs->docs[done + n]];
			MemoryContext old = MemoryContextSwitchTo(target->row.cxt);

			CHECK_FOR_INTERRUPTS();
			cvx_target_decode(target, docs->page, doc, &extra);
			MemoryContextSwitchTo(old);
			memcpy(slots[n]->tts_values, target->row.values, tupdesc->natts * sizeof(Datum));
			memcpy(slots[n]->tts_isnull, target->row.nulls, tupdesc->natts * sizeof(bool));
			ExecStoreVirtualTuple(slots[n]);
			size += doc->document.len;
		}
		if (target->unknowns == NIL)
		{
			table_multi_insert(target->relation, slots, n, cid, 0, bulk);
			done += n;
		}
		for (int i = 0; i < n; i++)
			ExecClearTuple(slots[i]);
		MemoryContextReset(target->row.cxt);
		if (target->unknowns != NIL)
			break;
	}
	FreeBulkInsertState(bulk);
	table_finish_bulk_insert(target->relation, 0);
	for (int i = 0; i < nslots; i++)
		ExecDropSingleTupleTableSlot(slots[i]);
	return done;
}

/* The columns of the page's relation: those of the target, and two more. */
static TupleDesc
page_tupdesc(CvxTarget *target)
{
	TupleDesc	tupdesc = CreateTemplateTupleDesc(target->ncolumns + 2);

	for (int i = 0; i < target->ncolumns; i++)
	{
		Form_pg_attribute att = TupleDescAttr(target->tupdesc,
											  target->columns[i].attnum - 1);

		TupleDescInitEntry(tupdesc, i + 1, NameStr(att->attname), att->atttypid,
						   att->atttypmod, att->attndims);
		TupleDescInitEntryCollation(tupdesc, i + 1, att->attcollation);
	}
	TupleDescInitEntry(tupdesc, target->ncolumns + 1, "?ts", INT8OID, -1, 0);
	TupleDescInitEntry(tupdesc, target->ncolumns + 2, "?deleted", BOOLOID, -1, 0);
	return tupdesc;
}

/* The rows of the documents, for the statements. */
static Tuplestorestate *
collect_rows(CvxTarget *target, const CvxPage *page, const int *docs,
			 int ndocs, TupleDesc tupdesc, int *ndeleted)
{
	Tuplestorestate *rows = tuplestore_begin_heap(true, false, work_mem);
	Datum	   *values = palloc(sizeof(Datum) * tupdesc->natts);
	bool	   *nulls = palloc0(sizeof(bool) * tupdesc->natts);
	StringInfoData extra;

	initStringInfo(&extra);
	*ndeleted = 0;
	for (int i = 0; i < ndocs; i++)
	{
		const CvxDoc *doc = &page->docs[docs[i]];
		MemoryContext old = MemoryContextSwitchTo(target->row.cxt);

		CHECK_FOR_INTERRUPTS();
		cvx_target_decode(target, page, doc, &extra);
		for (int c = 0; c < target->ncolumns; c++)
		{
			values[c] = target->row.values[target->columns[c].attnum - 1];
			nulls[c] = target->row.nulls[target->columns[c].attnum - 1];
		}
		values[target->ncolumns] = Int64GetDatum(doc->ts);
		values[target->ncolumns + 1] = BoolGetDatum(doc->is_deleted);
		tuplestore_putvalues(rows, tupdesc, values, nulls);
		MemoryContextSwitchTo(old);
		MemoryContextReset(target->row.cxt);
		*ndeleted += doc->is_deleted;
	}
	return rows;
}

/*
 * A statement over the page's rows.  Where no trigger could be planned under
 * the same settings its plan is kept, and looks rows up by their key: one made
 * while the table was small must be good when it is large.
 */
static int64
run_page(CvxTarget *target, const char *sql, int expected)
{
	MemoryContext cxt = CurrentMemoryContext;
	Relation	relation = target->relation;
	int			nest;
	int			rc;

	if (relation->rd_rel->relkind != RELKIND_RELATION ||
		relation->trigdesc != NULL)
		return cvx_target_run(sql, expected);
	nest = NewGUCNestLevel();
	for (int i = 0; i < lengthof(lookup_settings); i++)
		(void) set_config_option(lookup_settings[i], "off", PGC_USERSET,
								 PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
	rc = SPI_execute_plan(cvx_catalog_plan(sql, 0, NULL), NULL, NULL, false, 0);
	AtEOXact_GUC(true, nest);
	MemoryContextSwitchTo(cxt);
	if (rc != expected)
		elog(ERROR, "unexpected result %d of: %s", rc, sql);
	return (int64) SPI_processed;
}

/* The statements of the mode; returns how many rows changed. */
static int64
run_changes(CvxTarget *target, int nrows, int ndeleted)
{
	const char *table = target->name;
	int64		changed = 0;

	if (nrows == 0)
		return 0;
	if (target->sub->mode == CVX_MODE_HISTORY)
		return run_page(target, psprintf("INSERT INTO %s (%s) SELECT %s FROM " PAGE_RELATION " AS p"
							" WHERE NOT EXISTS (SELECT FROM %s AS t WHERE t._id = p._id AND t._ts = p._ts)",
										 table, column_list(target, ""), column_list(target, "p."), table),
						SPI_OK_INSERT);
	if (ndeleted > 0 && target->sub->mode == CVX_MODE_MIRROR)
		changed += run_page(target, psprintf("DELETE FROM %s AS t USING " PAGE_RELATION " AS p"
											 " WHERE t._id = p._id AND p.\"?deleted\"", table),
							SPI_OK_DELETE);
	else if (ndeleted > 0)
		changed += run_page(target, psprintf("UPDATE %s AS t SET _deleted_at = p._deleted_at%s FROM " PAGE_RELATION " AS p"
											 " WHERE t._id = p._id AND p.\"?deleted\"", table,
											 target->ts ? ", _ts = p._ts" : ""),
							SPI_OK_UPDATE);
	if (nrows > ndeleted)
	{
		if (target->ncolumns > 1)
			changed += run_page(target, psprintf("UPDATE %s AS t SET %s FROM " PAGE_RELATION " AS p"
												 " WHERE t._id = p._id AND NOT p.\"?deleted\"",
												 table, set_list(target, "p")), SPI_OK_UPDATE);
		if (changed < nrows)
			changed += run_page(target, psprintf("INSERT INTO %s (%s) SELECT %s FROM " PAGE_RELATION " AS p"
									" WHERE NOT p.\"?deleted\" AND NOT EXISTS (SELECT FROM %s AS t WHERE t._id = p._id)",
												 table, column_list(target, ""), column_list(target, "p."), table),
								SPI_OK_INSERT);
	}
	return changed;
}

/*
 * Lay a loaded staging table over the target.  What vanishes goes before what
 * is new comes, which may take its place in another unique index.
 */
static void
merge(CvxTarget *target, Oid relid, const char *staging, int64 ts)
{
	bool		is_plain = is_divisible(target, relid);
	Part		part = {0};

	/* Both tables have their rows in the order of ids. */
	for (int i = 0; is_plain && i < lengthof(merge_settings); i++)
		(void) set_config_option(merge_settings[i], "off", PGC_USERSET,
								 PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
	for (int step = 0; step < MERGE_STEPS; step++)
	{
		memset(&part, 0, sizeof(part));
		if (!is_plain)
			merge_step(target, staging, ts, step, &part);
		else
			while (next_part(target, staging, &part))
				merge_step(target, staging, ts, step, &part);
	}
}

/*
 * May the rows be merged in several statements?  Not where constraints of
 * several rows, or triggers, look at the end of a statement, nor where the two
 * tables have their ids in another order.
 */
static bool
is_divisible(CvxTarget *target, Oid staging)
{
	Oid			collation = TupleDescAttr(target->tupdesc,
										  target->id->attnum - 1)->attcollation;
	Oid			other;
	Oid			type;
	int32		typmod;
	List	   *indexes = RelationGetIndexList(target->relation);
	bool		result = target->relation->rd_rel->relkind == RELKIND_RELATION &&
		target->relation->trigdesc == NULL &&
		target->relation->rd_rules == NULL &&
		!target->relation->rd_rel->relhassubclass;
	int			nkeys = 0;
	ListCell   *lc;

	foreach(lc, indexes)
	{
		HeapTuple	tuple = SearchSysCache1(INDEXRELID,
											ObjectIdGetDatum(lfirst_oid(lc)));
		Form_pg_index index = (Form_pg_index) GETSTRUCT(tuple);

		if (index->indisunique || index->indisexclusion)
		{
			bool		is_key = !index->indisexclusion && index->indisvalid &&
				index->indkey.values[0] == target->id->attnum;

			nkeys += is_key;
			result &= is_key;
		}
		ReleaseSysCache(tuple);
	}
	get_atttypetypmodcoll(staging, get_attnum(staging, "_id"), &type, &typmod,
						  &other);
	return result && nkeys > 0 && other == collation;
}

/* The rows of the next part; false behind the last. */
static bool
next_part(CvxTarget *target, const char *staging, Part *part)
{
	char	   *after = NULL;

	if (part->is_last)
		return false;
	if (part->upto)
		after = psprintf(" WHERE _id > %s", quote_literal_cstr(part->upto));
	part->after = part->upto;
	cvx_target_run(psprintf("SELECT pg_catalog.min(_id) FROM"
							" ((SELECT _id FROM %s%s ORDER BY _id OFFSET %d LIMIT 1)"
							" UNION ALL (SELECT _id FROM %s%s ORDER BY _id OFFSET %d LIMIT 1)) AS ends",
							staging, after ? after : "", PART_ROWS - 1,
							target->name, after ? after : "", PART_ROWS - 1),
				   SPI_OK_SELECT);
	part->upto = cvx_catalog_text(0, 1);
	part->is_last = part->upto == NULL;
	return true;
}

/* The condition that a row is of this part. */
static char *
within(const Part *part, const char *alias)
{
	StringInfoData buf;

	initStringInfo(&buf);
	if (part->after)
		appendStringInfo(&buf, " AND %s._id > %s", alias,
						 quote_literal_cstr(part->after));
	if (part->upto)
		appendStringInfo(&buf, " AND %s._id <= %s", alias,
						 quote_literal_cstr(part->upto));
	return buf.data;
}

/* One of the three statements of a merge, for one part. */
static void
merge_step(CvxTarget *target, const char *staging, int64 ts, int step,
		   const Part *part)
{
	const char *table = target->name;
	const char *own = column_list(target, "t.");
	const char *other = column_list(target, "s.");
	const char *in_table = within(part, "t");
	const char *in_staging = within(part, "s");
	bool		is_mirror = target->sub->mode == CVX_MODE_MIRROR;

	if (target->sub->mode == CVX_MODE_HISTORY)
		merge_history(target, staging, ts, step, part);
	else if (step == 0 && target->sub->options.applies_deletes && is_mirror)
		cvx_target_run(psprintf("DELETE FROM %s AS t WHERE NOT EXISTS (SELECT FROM %s AS s WHERE s._id = t._id%s)%s",
								table, staging, in_staging, in_table), SPI_OK_DELETE);
	else if (step == 0 && target->sub->options.applies_deletes)
		cvx_target_run(psprintf("UPDATE %s AS t SET _deleted_at = pg_catalog.timestamptz 'epoch' + " INT64_FORMAT " * interval '1 microsecond'%s"
					 " WHERE t._deleted_at IS NULL AND NOT EXISTS (SELECT FROM %s AS s WHERE s._id = t._id%s)%s",
								table, ts / 1000, target->ts ? psprintf(", _ts = " INT64_FORMAT, ts) : "",
								staging, in_staging, in_table), SPI_OK_UPDATE);
	else if (step == 1 && target->ncolumns > 1)
		cvx_target_run(psprintf("UPDATE %s AS t SET %s FROM %s AS s WHERE t._id = s._id"
								" AND pg_catalog.record_image_ne(ROW(%s), ROW(%s))%s%s",
								table, set_list(target, "s"), staging, own, other,
								in_table, in_staging), SPI_OK_UPDATE);
	else if (step == 2)
		cvx_target_run(psprintf("INSERT INTO %s (%s) SELECT %s FROM %s AS s"
								" WHERE NOT EXISTS (SELECT FROM %s AS t WHERE t._id = s._id%s)%s",
								table, column_list(target, ""), other, staging, table,
								in_table, in_staging), SPI_OK_INSERT);
}

/*
 * The same in history mode.  What is later than a document's last revision was
 * no change of it: rows of an import that failed, or that was not there yet
 * when the mirror was compared.
 */
static void
merge_history(CvxTarget *target, const char *staging, int64 ts, int step,
			  const Part *part)
{
	const char *table = target->name;
	const char *in_table = within(part, "t");
	const char *in_staging = within(part, "s");

	if (step == 0)
		cvx_target_run(psprintf("DELETE FROM %s AS t USING (SELECT s._id, pg_catalog.max(s._ts) AS _ts FROM %s AS s WHERE true%s GROUP BY s._id) AS l"
								" WHERE t._id = l._id AND t._ts > l._ts%s",
								table, staging, in_staging, in_table), SPI_OK_DELETE);
	else if (step == 1)
		cvx_target_run(psprintf("INSERT INTO %s (%s) SELECT %s FROM %s AS s"
								" WHERE NOT EXISTS (SELECT FROM %s AS t WHERE t._id = s._id AND t._ts = s._ts%s)%s",
								table, column_list(target, ""), column_list(target, "s."), staging,
								table, in_table, in_staging), SPI_OK_INSERT);
	else if (target->sub->options.applies_deletes)
		cvx_target_run(psprintf("INSERT INTO %s (_id, _ts, _deleted) SELECT l._id, greatest(l._ts + 1, " INT64_FORMAT "), true"
								" FROM (SELECT DISTINCT ON (t._id) t._id, t._ts, t._deleted FROM %s AS t WHERE true%s ORDER BY t._id, t._ts DESC) AS l"
								" WHERE NOT l._deleted AND NOT EXISTS (SELECT FROM %s AS s WHERE s._id = l._id%s)",
								table, ts, table, in_table, staging, in_staging), SPI_OK_INSERT);
}

/* May the subscription's owner make the target? */
static Oid
check_schema(const CvxSubscription *sub, const CvxSubRel *rel)
{
	Oid			schema = get_namespace_oid(rel->target_schema, false);

	if (cvx_schema_aclcheck(schema, sub->owner) != ACLCHECK_OK)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("owner of subscription \"%s\" may not create tables in schema \"%s\"",
						sub->name, rel->target_schema)));
	return schema;
}

/*
 * The rows of the staging table become those of a new target.  Nobody else
 * can have put code into either of them.
 */
static void
copy_into_place(const CvxSubscription *sub, CvxSubRel *rel)
{
	char	   *name = cvx_catalog_staging(sub, rel);
	const char *target = quote_qualified_identifier(rel->target_schema,
													rel->target_name);
	Oid			schema = check_schema(sub, rel);

	cvx_catalog_run(SPI_OK_UTILITY,
					psprintf("CREATE TABLE %s (LIKE convex_staging.%s INCLUDING ALL)",
							 target, name), "");
	cvx_catalog_run(SPI_OK_INSERT,
					psprintf("INSERT INTO %s SELECT * FROM convex_staging.%s",
							 target, name), "");
	cvx_catalog_run(SPI_OK_UTILITY,
					psprintf("ALTER TABLE %s OWNER TO %s", target,
							 quote_identifier(GetUserNameFromId(sub->owner, false))), "");
	cvx_catalog_drop_staging(sub, rel);
	rel->target = get_relname_relid(rel->target_name, schema);
	cvx_catalog_bind_target(sub, rel);
}

/* The staging table becomes the target. */
static void
move_into_place(const CvxSubscription *sub, CvxSubRel *rel, Oid staging)
{
	char	   *name = cvx_catalog_staging(sub, rel);
	char	   *key = psprintf("%s_pkey", name);
	Oid			schema = check_schema(sub, rel);
	char	   *new_key = psprintf("%.*s_pkey", NAMEDATALEN - 6, rel->target_name);

	cvx_catalog_run(SPI_OK_UTILITY,
					psprintf("ALTER TABLE convex_staging.%s OWNER TO %s", name,
							 quote_identifier(GetUserNameFromId(sub->owner, false))), "");
	cvx_catalog_run(SPI_OK_UTILITY,
					psprintf("ALTER TABLE convex_staging.%s SET SCHEMA %s", name,
							 quote_identifier(rel->target_schema)), "");
	if (OidIsValid(get_relname_relid(key, schema)) &&
		!OidIsValid(get_relname_relid(new_key, schema)))
		cvx_catalog_run(SPI_OK_UTILITY,
						psprintf("ALTER INDEX %s RENAME TO %s",
								 quote_qualified_identifier(rel->target_schema, key),
								 quote_identifier(new_key)), "");
	cvx_catalog_run(SPI_OK_UTILITY,
					psprintf("ALTER TABLE %s RENAME TO %s",
							 quote_qualified_identifier(rel->target_schema, name),
							 quote_identifier(rel->target_name)), "");
	(void) deleteDependencyRecordsForSpecific(RelationRelationId, staging,
											  DEPENDENCY_AUTO_EXTENSION,
											  ExtensionRelationId,
											  get_extension_oid("convex_fdw", false));
	rel->target = staging;
	cvx_catalog_bind_target(sub, rel);
}

static char *
column_list(CvxTarget *target, const char *prefix)
{
	StringInfoData buf;

	initStringInfo(&buf);
	for (int i = 0; i < target->ncolumns; i++)
		appendStringInfo(&buf, "%s%s%s", i > 0 ? ", " : "", prefix,
						 quote_identifier(target->columns[i].name));
	return buf.data;
}

static char *
set_list(CvxTarget *target, const char *from)
{
	StringInfoData buf;

	initStringInfo(&buf);
	for (int i = 0; i < target->ncolumns; i++)
	{
		const char *name = quote_identifier(target->columns[i].name);

		if (&target->columns[i] != target->id)
			appendStringInfo(&buf, "%s%s = %s.%s", buf.len > 0 ? ", " : "",
							 name, from, name);
	}
	return buf.data;
}
