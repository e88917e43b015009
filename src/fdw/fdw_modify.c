/*
 * fdw_modify.c
 *		How do INSERT, UPDATE, DELETE, TRUNCATE become messages?
 *
 * Invariants:
 *	1. A row becomes messages when the executor hands it over; batch.c decides
 *	   when they leave.  What Convex would not store exactly is refused here.
 *	2. UPDATE and DELETE begin with the document as their scan has seen it,
 *	   own pending writes included; its ctid says where the scan keeps it.
 *	3. A field that an UPDATE does not set keeps its bytes.
 *	4. One command changes a row once, as with any table.
 *
 * Room: fdw 5.6
 */
#include "postgres.h"

#include "access/sysattr.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/pg_class.h"
#include "commands/trigger.h"
#include "executor/executor.h"
#include "foreign/foreign.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "optimizer/appendinfo.h"
#include "optimizer/planner.h"
#include "parser/parsetree.h"
#include "utils/datum.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"

#include "ground/compat.h"
#include "ground/redact.h"
#include "shape/document.h"
#include "shape/encode.h"
#include "shape/options.h"
#include "shape/rowmap.h"
#include "shape/value.h"
#include "write/batch.h"
#include "write/clear.h"
#include "write/keycheck.h"
#include "fdw/fdw_modify.h"
#include "fdw/fdw_plan.h"
#include "fdw/fdw_scan.h"
#include "fdw/fdw_snapshot.h"

/* Names that import_airbyte_records drops. */
#define AIRBYTE_DROPPED	"source_ab_cdc"

/* The value before that a message carries along is not to double its size. */
#define MAX_BEFORE_BYTES	1024

/* One writable column. */
typedef struct Column
{
	AttrNumber	attnum;
	char	   *name;
	CvxColumnOptions *options;
	CvxPath		path;			/* one name unless options->is_path */
	List	   *outer;			/* numbers of columns that hold its field */
	bool		is_system;		/* _id or _creationTime */
	bool		is_generated;	/* the executor computes it anew */
	bool		is_dropped_by_route;
	CvxEncoder *encoder;
	int16		typlen;
	bool		typbyval;
} Column;

/* The change of one column: a new value, or none. */
typedef struct Change
{
	Column	   *column;
	char	   *value;			/* NULL: the field is taken out */
	int			len;
	bool		is_same;		/* as it was */
} Change;

typedef struct CvxModify
{
	/* fixed at begin */
	CvxTableOptions *options;
	TupleDesc	tupdesc;
	CvxBatch   *batch;
	int			table;			/* its number in the batch */
	CommandId	cid;			/* of the command that writes */
	int			ncolumns;
	Column	   *columns;
	bool		is_simple;		/* every column is a field of its own */
	Column	   *document;		/* the '*' column, or NULL */
	Oid			userid;
	CvxKeyColumn *key_columns;	/* what they write; NULL: no key */
	bool		is_key_known;	/* they are what the columns write */

	/* UPDATE and DELETE */
	EState	   *estate;
	AttrNumber	ctid;			/* of the plan's rows */
	Index		relid;
	Bitmapset  *updated;		/* numbers of the columns that SET names */
	bool		has_before_trigger;
	CvxScan    *scan;			/* found at the first row */
	CvxRowMap  *map;			/* of all columns */
	CvxPageWant want;
	Bitmapset  *done;			/* rows that this command has changed */
	HTAB	   *new_keys;		/* that it has given to rows; or NULL */

	/* per row */
	int64		nrows;
	Column	   *column;			/* being encoded, or NULL */

	/* memory */
	MemoryContext cxt;
	MemoryContext row_cxt;
} CvxModify;

static planner_hook_type next_planner = NULL;

static PlannedStmt *refuse_on_conflict(Query *parse, const char *query_string,
									   int cursorOptions,
									   ParamListInfo boundParams);
static void check_query(Query *query);
static bool is_convex_table(Oid relid);
static void check_writable(const CvxTableOptions *options, CmdType operation);
static CvxModify *open_modify(EState *estate, ResultRelInfo *rri,
							  bool has_plan);
static void open_updates(CvxModify *modify, ModifyTableState *mtstate,
						 ResultRelInfo *rri, int subplan_index);
static bool may_change_keys(const CvxModify *modify);
static bool is_named(const CvxModify *modify, const Column *column);
static bool may_change(const CvxModify *modify, const Column *column);
static void add_column(CvxModify *modify, Oid relid, Form_pg_attribute att);
static void order_columns(CvxModify *modify);
static bool is_within(const CvxPath *path, const CvxPath *outer);
static void row_context(void *arg);
static void begin_row(CvxModify *modify, ErrorContextCallback *callback);
static void encode_column(CvxModify *modify, Column *column, Datum value,
						  const CvxText *old, StringInfo out);
static void look_at_key(CvxModify *modify);
static void build_row(CvxModify *modify, TupleTableSlot *slot,
					  StringInfo out);
static void lay_over(CvxModify *modify, Column *column, const char *value,
					 int len, const CvxTargetRow *target, StringInfo doc);
CVX_NORETURN static void fail_unlike(CvxModify *modify, Column *column);
static void write_document(CvxModify *modify, Datum value,
						   const CvxTargetRow *target, StringInfo out);
static bool find_target(CvxModify *modify, TupleTableSlot *plan_slot,
						CvxTargetRow *target);
static Change *collect_changes(CvxModify *modify, TupleTableSlot *slot,
							   const CvxTargetRow *target, int *nchanges,
							   bool *needs_whole);
static void settle_overlaps(CvxModify *modify, Change *changes, int *nchanges);
static void put_update(CvxModify *modify, const CvxTargetRow *target,
					   Change *changes, int nchanges);
static bool put_whole(CvxModify *modify, const CvxTargetRow *target,
					  Change *changes, int nchanges);
static void put_delete(CvxModify *modify, const CvxTargetRow *target,
					   bool has_partner);
static bool has_key(CvxModify *modify, const StringInfoData *key);
static void note_key(CvxModify *modify, const StringInfoData *key);
static void name_target(CvxMessage *message, const CvxTargetRow *target);
static void note_before(CvxModify *modify, CvxMessage *message,
						const StringInfoData *old, const StringInfoData *new);
static bool is_same_value(const CvxText *a, const CvxText *b);
static void put_message(CvxModify *modify, CvxMessage *message,
						const StringInfoData *key, const StringInfoData *row);
static bool is_same_document(const StringInfoData *a,
							 const StringInfoData *b);
static void decode_target(CvxModify *modify, const CvxTargetRow *target,
						  Datum *values, bool *nulls);
static void key_of(CvxModify *modify, const char *doc, int len,
				   StringInfo key);
static void check_key_ends(CvxModify *modify, const char *doc, int len);

/* Called once when the library is loaded. */
void
cvx_modify_init(void)
{
	next_planner = planner_hook;
	planner_hook = refuse_on_conflict;
}

/*
 * The planner looks for a unique index before it asks the wrapper, and its
 * error would say nothing of what an INSERT does here.
 */
static PlannedStmt *
refuse_on_conflict(Query *parse, const char *query_string, int cursorOptions,
				   ParamListInfo boundParams)
{
	check_query(parse);
	return next_planner ?
		next_planner(parse, query_string, cursorOptions, boundParams) :
		standard_planner(parse, query_string, cursorOptions, boundParams);
}

static void
check_query(Query *query)
{
	ListCell   *lc;

	if (query->onConflict != NULL && query->resultRelation > 0 &&
		is_convex_table(rt_fetch(query->resultRelation,
								 query->rtable)->relid))
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("ON CONFLICT is not supported for foreign tables of convex_fdw"),
				 errhint("With the table's option primary_key, an INSERT replaces the document that has its key.")));
	foreach(lc, query->cteList)
	{
		CommonTableExpr *cte = lfirst_node(CommonTableExpr, lc);

		if (IsA(cte->ctequery, Query))
			check_query((Query *) cte->ctequery);
	}
}

static bool
is_convex_table(Oid relid)
{
	return get_rel_relkind(relid) == RELKIND_FOREIGN_TABLE &&
		cvx_options_is_ours(GetForeignTable(relid)->serverid);
}

/* ------------------------------------------------------------------------
 * Planning
 * ------------------------------------------------------------------------
 */

/* Which operations may the table's rows see?  Views of the catalog ask, too. */
int
convexIsForeignRelUpdatable(Relation rel)
{
	CvxTableOptions *options = cvx_options_table_unnamed(RelationGetRelid(rel));

	if (!options->is_updatable || options->component[0] != '\0')
		return 0;
	return (1 << CMD_INSERT) |
		(options->key && options->route == CVX_ROUTE_FIVETRAN ?
		 (1 << CMD_UPDATE) | (1 << CMD_DELETE) : 0);
}

void
convexAddForeignUpdateTargets(PlannerInfo *root, Index rtindex,
							  RangeTblEntry *target_rte,
							  Relation target_relation)
{
	check_writable(cvx_options_table(RelationGetRelid(target_relation)),
				   root->parse->commandType);
	add_row_identity_var(root,
						 makeVar(rtindex, SelfItemPointerAttributeNumber,
								 TIDOID, -1, InvalidOid, 0),
						 rtindex, "ctid");
}

List *
convexPlanForeignModify(PlannerInfo *root, ModifyTable *plan,
						Index resultRelation, int subplan_index)
{
	RangeTblEntry *rte = planner_rt_fetch(resultRelation, root);

	if (plan->onConflictAction != ONCONFLICT_NONE)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("ON CONFLICT is not supported for foreign tables of convex_fdw"),
				 errhint("With the table's option primary_key, an INSERT replaces the document that has its key.")));
	check_writable(cvx_options_table(rte->relid), plan->operation);
	cvx_plan_check_system_columns(root, resultRelation, rte->relid);
	return NIL;
}

/* Refuse what the table's options do not allow, with a hint. */
static void
check_writable(const CvxTableOptions *options, CmdType operation)
{
	if (!options->is_updatable)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("foreign table %s does not allow writing",
						options->relation),
				 errhint("Its option updatable, or that of its server, is false.")));
	if (options->component[0] != '\0')
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("foreign table %s belongs to component \"%s\"",
						options->relation, options->component),
				 errhint("Convex imports rows into the root component only.")));
	if (operation == CMD_INSERT)
		return;
	if (options->key == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("foreign table %s is append-only", options->relation),
				 errhint("UPDATE and DELETE need the table's option primary_key.")));
	if (options->route != CVX_ROUTE_FIVETRAN)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("foreign table %s takes only INSERT and COPY, because its import_route is airbyte",
						options->relation),
				 errhint("UPDATE and DELETE need import_route 'fivetran'.")));
}

void
convexExplainForeignModify(ModifyTableState *mtstate, ResultRelInfo *rri,
						   List *fdw_private, int subplan_index,
						   struct ExplainState *es)
{
	CvxTableOptions *options;

	if (!es->verbose)
		return;
	options = cvx_options_table(RelationGetRelid(rri->ri_RelationDesc));
	ExplainPropertyText("Convex Table", options->table_name, es);
	ExplainPropertyText("Convex Route",
						options->route == CVX_ROUTE_FIVETRAN ?
						"apply_fivetran_operations" :
						"import_airbyte_records", es);
	ExplainPropertyText("Flush", options->flushes_statement ? "statement" :
						"commit", es);
}

/* ------------------------------------------------------------------------
 * Begin and end
 * ------------------------------------------------------------------------
 */

void
convexBeginForeignModify(ModifyTableState *mtstate, ResultRelInfo *rri,
						 List *fdw_private, int subplan_index, int eflags)
{
	CvxModify  *modify;

	if (eflags & EXEC_FLAG_EXPLAIN_ONLY)
		return;
	if (mtstate->operation != CMD_INSERT && cvx_snapshot_pinned() != 0)
		ereport(ERROR,
				(errcode(ERRCODE_READ_ONLY_SQL_TRANSACTION),
				 errmsg("cannot change rows of Convex while convex_fdw.snapshot is set"),
				 errhint("RESET convex_fdw.snapshot.")));
	modify = open_modify(mtstate->ps.state, rri, true);
	if (mtstate->operation != CMD_INSERT)
		open_updates(modify, mtstate, rri, subplan_index);
	rri->ri_FdwState = modify;
}

/* COPY, and rows that a partitioned table sends here. */
void
convexBeginForeignInsert(ModifyTableState *mtstate, ResultRelInfo *rri)
{
	Plan	   *plan = mtstate->ps.plan;

	/* The table is also a target of the same UPDATE: its state serves both. */
	if (rri->ri_FdwState != NULL)
		return;
	if (plan != NULL && IsA(plan, ModifyTable) &&
		((ModifyTable *) plan)->onConflictAction != ONCONFLICT_NONE)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("ON CONFLICT is not supported for foreign tables of convex_fdw"),
				 errhint("With the table's option primary_key, an INSERT replaces the document that has its key.")));
	check_writable(cvx_options_table(RelationGetRelid(rri->ri_RelationDesc)),
				   CMD_INSERT);
	if (plan != NULL && IsA(plan, ModifyTable))
		cvx_plan_check_routed((ModifyTable *) plan, plan ==
							  mtstate->ps.state->es_plannedstmt->planTree,
							  RelationGetRelid(rri->ri_RelationDesc));
	rri->ri_FdwState = open_modify(mtstate->ps.state, rri, plan != NULL);
}

void
convexEndForeignModify(EState *estate, ResultRelInfo *rri)
{
	CvxModify  *modify = (CvxModify *) rri->ri_FdwState;

	if (modify == NULL)
		return;
	rri->ri_FdwState = NULL;
	cvx_batch_end_statement(modify->batch);
	MemoryContextDelete(modify->cxt);
}

void
convexEndForeignInsert(EState *estate, ResultRelInfo *rri)
{
	convexEndForeignModify(estate, rri);
}

static CvxModify *
open_modify(EState *estate, ResultRelInfo *rri, bool has_plan)
{
	MemoryContext cxt = AllocSetContextCreate(estate->es_query_cxt,
											  "convex modify",
											  ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(cxt);
	CvxModify  *modify = palloc0(sizeof(CvxModify));
	Relation	rel = rri->ri_RelationDesc;

	modify->cxt = cxt;

	/* COPY does not tell its command in the executor's state. */
	modify->cid = has_plan ? estate->es_output_cid : GetCurrentCommandId(true);
	modify->row_cxt = AllocSetContextCreate(cxt, "convex row",
											ALLOCSET_DEFAULT_SIZES);
	modify->options = cvx_options_table(RelationGetRelid(rel));
	modify->tupdesc = RelationGetDescr(rel);
	modify->columns = palloc0(sizeof(Column) * Max(modify->tupdesc->natts, 1));
	modify->is_simple = true;
	for (int i = 0; i < modify->tupdesc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(modify->tupdesc, i);

		if (!att->attisdropped)
			add_column(modify, RelationGetRelid(rel), att);
	}
	if (!modify->is_simple)
		order_columns(modify);
	modify->batch = cvx_batch_open(modify->options);
	modify->userid = cvx_modify_user(rri, estate);
	modify->table = cvx_queue_table(modify->batch, modify->options,
									modify->userid);
	if (modify->options->key)
	{
		modify->key_columns = cvx_keycheck_columns(RelationGetRelid(rel),
												   modify->options);
		modify->is_key_known = cvx_keycheck_is_known(modify->options,
													 modify->key_columns);
	}
	MemoryContextSwitchTo(old);
	return modify;
}

static void
open_updates(CvxModify *modify, ModifyTableState *mtstate, ResultRelInfo *rri,
			 int subplan_index)
{
	MemoryContext old = MemoryContextSwitchTo(modify->cxt);
	Plan	   *subplan = outerPlan(mtstate->ps.plan);
	EState	   *estate = mtstate->ps.state;
	Relation	rel = rri->ri_RelationDesc;
	TriggerDesc *triggers = rri->ri_TrigDesc;

	modify->estate = estate;
	modify->relid = rri->ri_RangeTableIndex;
	modify->ctid = ExecFindJunkAttributeInTlist(subplan->targetlist, "ctid");
	if (!AttributeNumberIsValid(modify->ctid))
		elog(ERROR, "could not find junk ctid column");
	if (mtstate->operation == CMD_UPDATE)
		modify->updated = ExecGetUpdatedCols(rri, estate);
	modify->has_before_trigger = triggers && triggers->trig_update_before_row;
	if (mtstate->operation == CMD_UPDATE && may_change_keys(modify))
		modify->new_keys = cvx_queue_map("convex new keys", sizeof(CvxTextKey));
	modify->map = cvx_rowmap_create(RelationGetRelid(rel), modify->tupdesc,
									NULL, modify->options, NIL);
	modify->want.fields = cvx_rowmap_fields(modify->map,
											&modify->want.nfields);
	modify->want.field_lens = cvx_rowmap_field_lens(modify->map);
	MemoryContextSwitchTo(old);
}

/* Can the UPDATE give a row another key? */
static bool
may_change_keys(const CvxModify *modify)
{
	const CvxKey *key = modify->options->key;

	for (int i = 0; i < modify->ncolumns; i++)
	{
		const Column *column = &modify->columns[i];

		if (!may_change(modify, column))
			continue;
		if (column->options->is_document)
			return true;
		for (int k = 0; k < key->n; k++)
			if (strcmp(key->paths[k].names[0], column->path.names[0]) == 0)
				return true;
	}
	return false;
}

/* Does SET name the column? */
static bool
is_named(const CvxModify *modify, const Column *column)
{
	return bms_is_member(column->attnum - FirstLowInvalidHeapAttributeNumber,
						 modify->updated);
}

/*
 * Can the UPDATE give the column another value?  Which generated columns
 * depend on those that SET names is known to the executor only, which can be
 * asked only after it has begun; the values will tell.
 */
static bool
may_change(const CvxModify *modify, const Column *column)
{
	return is_named(modify, column) || column->is_generated ||
		modify->has_before_trigger;
}

static void
add_column(CvxModify *modify, Oid relid, Form_pg_attribute att)
{
	Column	   *column = &modify->columns[modify->ncolumns++];
	CvxColumnOptions *options = cvx_options_column(relid, att->attnum);

	column->attnum = att->attnum;
	column->name = pstrdup(NameStr(att->attname));
	column->is_generated = att->attgenerated != '\0';
	column->options = options;
	column->typlen = att->attlen;
	column->typbyval = att->attbyval;
	column->encoder = cvx_encoder_create(att->atttypid, att->atttypmod,
										 modify->options->route == CVX_ROUTE_FIVETRAN ?
										 CVX_SYNTAX_ENCODED : CVX_SYNTAX_PLAIN,
										 modify->options->json_values,
										 options->convex_type);
	if (options->is_document)
	{
		if (!cvx_encoder_is_json(column->encoder))
			ereport(ERROR,
					(errcode(ERRCODE_FDW_INVALID_DATA_TYPE),
					 errmsg("column \"%s\" of foreign table %s must have type jsonb to hold the whole document",
							column->name, modify->options->relation)));
		modify->is_simple = false;
		return;
	}
	if (options->is_path)
	{
		column->path = cvx_options_path(options->field);
		modify->is_simple = false;
	}
	else
	{
		column->path.names = palloc(sizeof(char *));
		column->path.names[0] = options->field;
		column->path.n = 1;
		column->path.label = options->field;
	}
	if (!cvx_options_is_field_name(column->path.names[0], true))
		ereport(ERROR,
				(errcode(ERRCODE_FDW_INVALID_COLUMN_NAME),
				 errmsg("column \"%s\" of foreign table %s cannot be a Convex field",
						column->name, modify->options->relation),
				 errhint("Set the column's option column_name, or drop the column.")));
	column->is_system = column->path.names[0][0] == '_';
	column->is_dropped_by_route =
		modify->options->route == CVX_ROUTE_AIRBYTE &&
		strncmp(column->path.names[0], AIRBYTE_DROPPED,
				strlen(AIRBYTE_DROPPED)) == 0;
	for (int i = 1; i < column->path.n; i++)
		if (modify->options->route == CVX_ROUTE_AIRBYTE &&
			column->path.names[i][0] == '_')
			column->is_dropped_by_route = true;
	for (Column *other = modify->columns; other < column; other++)
		if (other->path.n > 0 &&
			strcmp(other->path.names[0], column->path.names[0]) == 0)
			modify->is_simple = false;
}

/*
 * The '*' column first, then columns with shorter paths: what lies within
 * another column's field lies over it.
 */
static void
order_columns(CvxModify *modify)
{
	for (int i = 1; i < modify->ncolumns; i++)
	{
		Column		column = modify->columns[i];
		int			at = i;

		for (; at > 0 && modify->columns[at - 1].path.n > column.path.n; at--)
			modify->columns[at] = modify->columns[at - 1];
		modify->columns[at] = column;
	}
	for (int i = 0; i < modify->ncolumns; i++)
	{
		Column	   *column = &modify->columns[i];

		if (column->options->is_document)
			modify->document = column;
		for (int j = 0; j < i; j++)
			if (modify->columns[j].path.n > 0 &&
				is_within(&column->path, &modify->columns[j].path))
				column->outer = lappend_int(column->outer, j);
	}
}

/* Is a path the other one, or does it go on from there? */
static bool
is_within(const CvxPath *path, const CvxPath *outer)
{
	if (path->n < outer->n)
		return false;
	for (int i = 0; i < outer->n; i++)
		if (strcmp(path->names[i], outer->names[i]) != 0)
			return false;
	return true;
}

/* ------------------------------------------------------------------------
 * Rows
 * ------------------------------------------------------------------------
 */

TupleTableSlot *
convexExecForeignInsert(EState *estate, ResultRelInfo *rri,
						TupleTableSlot *slot, TupleTableSlot *plan_slot)
{
	CvxModify  *modify = (CvxModify *) rri->ri_FdwState;
	MemoryContext old = MemoryContextSwitchTo(modify->row_cxt);
	ErrorContextCallback callback;
	CvxMessage	message = {0};
	StringInfoData row;
	StringInfoData key;

	begin_row(modify, &callback);
	initStringInfo(&row);
	initStringInfo(&key);
	look_at_key(modify);
	build_row(modify, slot, &row);
	message.new_bytes = cvx_document_measure(row.data, row.len);
	message.op = modify->options->key ? CVX_OP_UPSERT : CVX_OP_APPEND;
	if (modify->options->key)
	{
		key_of(modify, row.data, row.len, &key);
		check_key_ends(modify, row.data, row.len);
	}
	put_message(modify, &message, modify->options->key ? &key : NULL, &row);
	error_context_stack = callback.previous;
	MemoryContextSwitchTo(old);
	return slot;
}

TupleTableSlot *
convexExecForeignUpdate(EState *estate, ResultRelInfo *rri,
						TupleTableSlot *slot, TupleTableSlot *plan_slot)
{
	CvxModify  *modify = (CvxModify *) rri->ri_FdwState;
	MemoryContext old = MemoryContextSwitchTo(modify->row_cxt);
	ErrorContextCallback callback;
	CvxTargetRow target;
	Change	   *changes;
	int			nchanges;
	bool		needs_whole;
	bool		is_new = false;

	begin_row(modify, &callback);
	if (!find_target(modify, plan_slot, &target))
	{
		error_context_stack = callback.previous;
		MemoryContextSwitchTo(old);
		return NULL;
	}
	slot_getallattrs(slot);
	changes = collect_changes(modify, slot, &target, &nchanges, &needs_whole);
	if (needs_whole)
		is_new = put_whole(modify, &target, changes, nchanges);
	else if (nchanges > 0)
		put_update(modify, &target, changes, nchanges);
	error_context_stack = callback.previous;
	MemoryContextSwitchTo(old);

	/* Convex gives a row with another key another _id. */
	for (int i = 0; is_new && i < modify->ncolumns; i++)
		if (modify->columns[i].is_system)
			slot->tts_isnull[modify->columns[i].attnum - 1] = true;
	return slot;
}

TupleTableSlot *
convexExecForeignDelete(EState *estate, ResultRelInfo *rri,
						TupleTableSlot *slot, TupleTableSlot *plan_slot)
{
	CvxModify  *modify = (CvxModify *) rri->ri_FdwState;
	MemoryContext old = MemoryContextSwitchTo(modify->row_cxt);
	ErrorContextCallback callback;
	CvxTargetRow target;
	bool		is_found;

	begin_row(modify, &callback);
	is_found = find_target(modify, plan_slot, &target);
	if (is_found)
		put_delete(modify, &target, false);
	error_context_stack = callback.previous;
	if (is_found)
	{
		/* RETURNING shows the row; the slot's memory outlives it. */
		ExecClearTuple(slot);
		MemoryContextSwitchTo(modify->row_cxt);
		decode_target(modify, &target, slot->tts_values, slot->tts_isnull);
		ExecStoreVirtualTuple(slot);
	}
	MemoryContextSwitchTo(old);
	return is_found ? slot : NULL;
}

/*
 * TRUNCATE: one message per table, which batch.c joins into one request.
 */
void
convexExecForeignTruncate(List *rels, DropBehavior behavior, bool restart_seqs)
{
	const char **names = palloc(sizeof(char *) * list_length(rels));
	int			n = 0;
	CvxTableOptions *any = NULL;
	ListCell   *lc;

	/* The executor gives tables of one server. */
	foreach(lc, rels)
	{
		CvxTableOptions *options =
			cvx_options_table(RelationGetRelid((Relation) lfirst(lc)));

		if (!options->is_truncatable)
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("foreign table %s does not allow truncates",
							options->relation),
					 errhint("Its option truncatable, or that of its server, is false.")));
		check_writable(options, CMD_INSERT);
		names[n++] = options->table_name;
		any = options;
	}
	cvx_clear_check_names(cvx_http_open(cvx_options_remote(any->serverid,
														   GetUserId())),
						  names, n);
	cvx_clear_announce(any->serverid);
	foreach(lc, rels)
	{
		CvxTableOptions *options =
			cvx_options_table(RelationGetRelid((Relation) lfirst(lc)));
		CvxBatch   *batch = cvx_batch_open(options);
		CvxMessage	message = {.op = CVX_OP_CLEAR};

		message.table = cvx_queue_table(batch, options, GetUserId());
		message.cid = GetCurrentCommandId(true);
		cvx_batch_put(batch, &message);
		if (lnext(rels, lc) == NULL)
			cvx_batch_end_statement(batch);
	}
}

/* Errors of a row name it, and the column; misfits are HV004. */
static void
row_context(void *arg)
{
	CvxModify  *modify = (CvxModify *) arg;
	int			category = ERRCODE_TO_CATEGORY(geterrcode());

	if (modify->column &&
		(category == ERRCODE_DATA_EXCEPTION ||
		 geterrcode() == ERRCODE_FDW_INVALID_DATA_TYPE))
	{
		errcode(ERRCODE_FDW_INVALID_DATA_TYPE);
		errdetail("Row " INT64_FORMAT ", column \"%s\" of foreign table %s.  Nothing of it was sent.",
				  modify->nrows, modify->column->name,
				  modify->options->relation);
	}
	else if (modify->column)
		errcontext("row " INT64_FORMAT ", column \"%s\" of foreign table %s",
				   modify->nrows, modify->column->name,
				   modify->options->relation);
	else
		errcontext("row " INT64_FORMAT " of foreign table %s", modify->nrows,
				   modify->options->relation);
}

static void
begin_row(CvxModify *modify, ErrorContextCallback *callback)
{
	MemoryContextReset(modify->row_cxt);
	modify->nrows++;
	modify->column = NULL;
	callback->callback = row_context;
	callback->arg = modify;
	callback->previous = error_context_stack;
	error_context_stack = callback;
}

static void
encode_column(CvxModify *modify, Column *column, Datum value,
			  const CvxText *old, StringInfo out)
{
	modify->column = column;
	if (column->is_system)
		ereport(ERROR,
				(errcode(ERRCODE_FDW_INVALID_DATA_TYPE),
				 errmsg("field \"%s\" cannot be written",
						column->path.names[0]),
				 errhint("Convex sets it; leave the column out.")));
	if (column->is_dropped_by_route)
		ereport(ERROR,
				(errcode(ERRCODE_FDW_INVALID_DATA_TYPE),
				 errmsg("field \"%s\" cannot be sent through import_airbyte_records, which drops or renames it",
						column->path.label),
				 errhint("Give the foreign table the option primary_key, or rename the field.")));
	if (old)
		cvx_encode_over(column->encoder, value, old, out);
	else
		cvx_encode(column->encoder, value, out);
	modify->column = NULL;
}

/*
 * The first INSERT of a session by a key looks at a document.  Pending writes
 * may have done away with what Convex has; then the next transaction looks.
 */
static void
look_at_key(CvxModify *modify)
{
	if (modify->key_columns == NULL || modify->is_key_known)
		return;
	modify->is_key_known = true;
	if (modify->options->checks_conflicts &&
		!cvx_queue_is_pending(modify->options->serverid))
		cvx_keycheck_look(modify->options, modify->key_columns,
						  modify->userid);
}

/* The document that an INSERT sends. */
static void
build_row(CvxModify *modify, TupleTableSlot *slot, StringInfo out)
{
	StringInfoData value;
	Bitmapset  *given = NULL;

	slot_getallattrs(slot);
	initStringInfo(&value);
	if (modify->document && !slot->tts_isnull[modify->document->attnum - 1])
		write_document(modify, slot->tts_values[modify->document->attnum - 1],
					   NULL, out);
	else
		appendStringInfoString(out, modify->is_simple ? "{" : "{}");
	for (int i = 0; i < modify->ncolumns; i++)
	{
		Column	   *column = &modify->columns[i];
		bool		is_null = slot->tts_isnull[column->attnum - 1];
		bool		is_given = false;
		ListCell   *lc;

		foreach(lc, column->outer)
			is_given |= bms_is_member(lfirst_int(lc), given);

		/* NULL says nothing where another column has given the field. */
		if (column->options->is_document ||
			(is_null && (!column->options->writes_nulls || column->is_system ||
						 is_given)))
			continue;
		resetStringInfo(&value);
		if (is_null)
			appendStringInfoString(&value, "null");
		else
			encode_column(modify, column,
						  slot->tts_values[column->attnum - 1], NULL, &value);
		if (modify->is_simple)
		{
			if (out->len > 1)
				appendStringInfoChar(out, ',');
			cvx_json_write_string(out, column->path.names[0],
								  strlen(column->path.names[0]));
			appendStringInfoChar(out, ':');
			appendBinaryStringInfo(out, value.data, value.len);
			continue;
		}
		if (is_given)
		{
			CvxText		text = {value.data, value.len};
			CvxText		other;

			if (!cvx_document_get(out->data, out->len, &column->path, &other) ||
				!cvx_document_is_alike(&text, &other))
				fail_unlike(modify, column);
		}
		if (!is_null)
			given = bms_add_member(given, i);
		lay_over(modify, column, value.data, value.len, NULL, out);
	}
	if (modify->is_simple)
		appendStringInfoChar(out, '}');
}

/*
 * Set a column's field in a document (value NULL: take it out), which begins
 * as that of a target, if there is one.  What is on the way and no object is
 * replaced only where the table says that a misfit is NULL.
 */
static void
lay_over(CvxModify *modify, Column *column, const char *value, int len,
		 const CvxTargetRow *target, StringInfo doc)
{
	StringInfoData longer;
	CvxValue	way;
	int			depth;

	if (value != NULL && modify->options->on_misfit == CVX_MISFIT_ERROR &&
		cvx_document_is_blocked(doc->data, doc->len, &column->path, &way,
								&depth))
	{
		StringInfoData field;
		StringInfoData where;

		initStringInfo(&field);
		initStringInfo(&where);
		for (int i = 0; i < depth; i++)
			appendStringInfo(&field, "%s%s", i > 0 ? "." : "",
							 column->path.names[i]);
		if (target && target->id)
			appendStringInfo(&where, " of document \"%s\"",
							 cvx_redact_excerpt(target->id, target->id_len));
		modify->column = column;
		ereport(ERROR,
				(errcode(ERRCODE_FDW_INVALID_DATA_TYPE),
				 errmsg("cannot set field \"%s\": field \"%s\"%s has type %s",
						column->path.label, field.data, where.data,
						cvx_value_kind_name(way.kind)),
				 errhint("Set field \"%s\" itself, or set the table's option on_conversion_error to 'null': what is no object is replaced then.",
						 field.data)));
	}
	initStringInfo(&longer);
	cvx_document_set(&longer, doc->data, doc->len, &column->path, value, len);
	*doc = longer;
}

static void
fail_unlike(CvxModify *modify, Column *column)
{
	modify->column = column;
	ereport(ERROR,
			(errcode(ERRCODE_FDW_INVALID_DATA_TYPE),
			 errmsg("field \"%s\" is given different values by two columns",
					column->path.label),
			 errhint("Another column of the foreign table has the same field, or one that it is part of.  Set one of them only.")));
}

/*
 * The '*' column's value as a document without system fields.  In an UPDATE
 * they may stand in it as they are.
 */
static void
write_document(CvxModify *modify, Datum value, const CvxTargetRow *target,
			   StringInfo out)
{
	StringInfoData text;
	CvxText		old = {target ? target->doc : NULL, target ? target->doc_len : 0};
	CvxJson		json;
	CvxText		name;
	CvxText		member;
	bool		is_first = true;

	initStringInfo(&text);
	modify->column = modify->document;
	if (target)
		cvx_encode_over(modify->document->encoder, value, &old, &text);
	else
		cvx_encode(modify->document->encoder, value, &text);
	if (text.data[0] != '{')
		ereport(ERROR,
				(errcode(ERRCODE_FDW_INVALID_DATA_TYPE),
				 errmsg("a whole document must be a JSON object"),
				 errhint("Give an object with the document's fields.")));
	cvx_json_within(&json, text.data, text.len);
	cvx_json_open(&json, '{');
	for (; cvx_json_member(&json, &name, is_first); is_first = false)
	{
		char	   *names[1];
		CvxPath		path = {names, 1};
		CvxText		before;

		cvx_json_skip(&json, &member);
		names[0] = cvx_json_cstring(&name);
		if (modify->options->route == CVX_ROUTE_AIRBYTE &&
			strncmp(names[0], AIRBYTE_DROPPED, strlen(AIRBYTE_DROPPED)) == 0)
			ereport(ERROR,
					(errcode(ERRCODE_FDW_INVALID_DATA_TYPE),
					 errmsg("field \"%s\" cannot be sent through import_airbyte_records, which drops it",
							cvx_redact_excerpt(names[0], strlen(names[0]))),
					 errhint("Give the foreign table the option primary_key, or rename the field.")));
		if (names[0][0] != '_')
			continue;
		if (target && (strcmp(names[0], "_id") == 0 ||
					   strcmp(names[0], "_creationTime") == 0) &&
			cvx_document_get(target->doc, target->doc_len, &path, &before))
		{
			StringInfoData a;
			StringInfoData b;

			initStringInfo(&a);
			initStringInfo(&b);
			cvx_document_canonical(&a, member.data, member.len, false);
			cvx_document_canonical(&b, before.data, before.len, false);
			if (strcmp(a.data, b.data) == 0)
				continue;
		}
		ereport(ERROR,
				(errcode(ERRCODE_FDW_INVALID_DATA_TYPE),
				 errmsg("field \"%s\" cannot be written",
						cvx_redact_excerpt(names[0], strlen(names[0]))),
				 errhint("Top-level fields beginning with \"_\" are Convex's: take it out of the document.")));
	}
	modify->column = NULL;
	cvx_document_strip(out, text.data, text.len, false);
}

/*
 * The document behind a row of the plan; false when this command has changed
 * it already.
 */
static bool
find_target(CvxModify *modify, TupleTableSlot *plan_slot,
			CvxTargetRow *target)
{
	MemoryContext old;
	bool		is_null;
	Datum		ctid = ExecGetJunkAttribute(plan_slot, modify->ctid, &is_null);

	if (is_null)
		elog(ERROR, "ctid is NULL");
	if (modify->scan == NULL)
		modify->scan = cvx_scan_find(modify->estate, modify->relid);
	if (modify->scan == NULL)
		elog(ERROR, "the scan of foreign table %s is not open",
			 modify->options->relation);
	cvx_scan_target_row(modify->scan, (ItemPointer) DatumGetPointer(ctid),
						target);
	if (bms_is_member((int) target->number, modify->done))
		return false;
	if (modify->key_columns && !modify->is_key_known)
	{
		cvx_keycheck_saw(modify->options, modify->key_columns, target->doc,
						 target->doc_len);
		modify->is_key_known = cvx_keycheck_is_known(modify->options,
													 modify->key_columns);
	}
	old = MemoryContextSwitchTo(modify->cxt);
	modify->done = bms_add_member(modify->done, (int) target->number);
	MemoryContextSwitchTo(old);
	return true;
}

/* What an UPDATE sets, encoded; in the current context. */
static Change *
collect_changes(CvxModify *modify, TupleTableSlot *slot,
				const CvxTargetRow *target, int *nchanges, bool *needs_whole)
{
	Change	   *changes = palloc(sizeof(Change) * Max(modify->ncolumns, 1));
	const CvxKey *key = modify->options->key;
	Datum	   *old_values = palloc(sizeof(Datum) * modify->tupdesc->natts);
	bool	   *old_nulls = palloc(sizeof(bool) * modify->tupdesc->natts);

	*nchanges = 0;
	*needs_whole = false;
	decode_target(modify, target, old_values, old_nulls);
	for (int i = 0; i < modify->ncolumns; i++)
	{
		Column	   *column = &modify->columns[i];
		int			at = column->attnum - 1;
		Change	   *change = &changes[*nchanges];
		bool		is_same = slot->tts_isnull[at] == old_nulls[at] &&
			(slot->tts_isnull[at] ||
			 datum_image_eq(slot->tts_values[at], old_values[at],
							column->typbyval, column->typlen));
		CvxText		old;
		StringInfoData value;

		if (!may_change(modify, column) ||
			(is_same && (column->is_system || !is_named(modify, column))))
			continue;

		/* Where nothing or null is, NULL changes nothing. */
		if (is_same && slot->tts_isnull[at] && !column->options->is_document &&
			(!cvx_document_get(target->doc, target->doc_len, &column->path,
							   &old) || old.data[0] == 'n'))
			continue;
		initStringInfo(&value);
		change->column = column;
		change->value = NULL;
		change->len = 0;
		change->is_same = is_same;
		(*nchanges)++;
		if (column->options->is_document)
		{
			*needs_whole = true;
			if (slot->tts_isnull[at])
			{
				modify->column = column;
				ereport(ERROR,
						(errcode(ERRCODE_FDW_INVALID_DATA_TYPE),
						 errmsg("a whole document cannot be NULL"),
						 errhint("Use DELETE, or set the document's fields.")));
			}
			write_document(modify, slot->tts_values[at], target, &value);
		}
		else if (!slot->tts_isnull[at])
			encode_column(modify, column, slot->tts_values[at],
						  cvx_document_get(target->doc, target->doc_len,
										   &column->path, &old) ? &old : NULL,
						  &value);
		else if (column->is_system)
			encode_column(modify, column, (Datum) 0, NULL, &value);
		else if (column->options->writes_nulls)
			appendStringInfoString(&value, "null");
		if (value.len > 0)
		{
			change->value = value.data;
			change->len = value.len;
		}
		else
			*needs_whole = true;
		if (column->path.n > 1 ||
			(column->path.n == 1 &&
			 strcmp(column->path.names[0], "fivetran") == 0))
			*needs_whole = true;
		for (int k = 0; k < key->n && column->path.n > 0; k++)
			if (strcmp(key->paths[k].names[0], column->path.names[0]) == 0)
			{
				*needs_whole |= !is_same;
				cvx_keycheck_document(modify->options, modify->key_columns,
									  target->doc, target->doc_len);
			}
	}
	settle_overlaps(modify, changes, nchanges);
	return changes;
}

/*
 * Of two columns with one field, or a field within the other's, the one that
 * changes counts; both must say the same.
 */
static void
settle_overlaps(CvxModify *modify, Change *changes, int *nchanges)
{
	for (int i = 0; i < *nchanges; i++)
		for (int j = i + 1; j < *nchanges; j++)
		{
			Column	   *outer = changes[i].column;
			Column	   *inner = changes[j].column;
			CvxPath		rest = {inner->path.names + outer->path.n, inner->path.n - outer->path.n};
			CvxText		one = {changes[j].value, changes[j].len};
			CvxText		other;
			bool		has_other;

			if (!list_member_int(inner->outer, outer - modify->columns))
				continue;
			if (changes[i].is_same != changes[j].is_same)
			{
				int			gone = changes[i].is_same ? i : j;

				memmove(&changes[gone], &changes[gone + 1],
						sizeof(Change) * (*nchanges - gone - 1));
				(*nchanges)--;

				/* Begin again with what is at i now. */
				j = gone == i ? i : j - 1;
				continue;
			}
			has_other = changes[i].value != NULL &&
				cvx_document_get(changes[i].value, changes[i].len, &rest,
								 &other);
			if (has_other != (one.data != NULL) ||
				(has_other && !cvx_document_is_alike(&one, &other)))
				fail_unlike(modify, inner);
		}
}

/* An Update: the key's fields as they are, and the changed ones. */
static void
put_update(CvxModify *modify, const CvxTargetRow *target, Change *changes,
		   int nchanges)
{
	const CvxKey *key = modify->options->key;
	CvxMessage	message = {.op = CVX_OP_UPDATE};
	StringInfoData patch;
	StringInfoData merged;
	StringInfoData key_text;

	initStringInfo(&patch);
	initStringInfo(&merged);
	initStringInfo(&key_text);
	key_of(modify, target->doc, target->doc_len, &key_text);
	note_key(modify, &key_text);
	appendStringInfoString(&patch, "{}");
	for (int i = 0; i < key->n; i++)
	{
		CvxPath		path = {key->paths[i].names, 1};
		CvxText		value;
		StringInfoData longer;

		initStringInfo(&longer);
		if (!cvx_document_get(target->doc, target->doc_len, &path, &value))
			continue;
		cvx_document_set(&longer, patch.data, patch.len, &path, value.data,
						 value.len);
		patch = longer;
	}
	for (int i = 0; i < nchanges; i++)
	{
		StringInfoData longer;

		initStringInfo(&longer);
		cvx_document_set(&longer, patch.data, patch.len,
						 &changes[i].column->path, changes[i].value,
						 changes[i].len);
		patch = longer;
	}
	cvx_document_strip(&merged, target->doc, target->doc_len, false);
	message.old_bytes = cvx_document_measure(merged.data, merged.len);
	{
		StringInfoData after;

		initStringInfo(&after);
		cvx_document_merge(&after, merged.data, merged.len, patch.data,
						   patch.len);
		message.new_bytes = cvx_document_measure(after.data, after.len);
		message.changes_nothing = is_same_document(&merged, &after);
		name_target(&message, target);
		message.is_checked = modify->options->checks_conflicts;
		note_before(modify, &message, &merged, &after);
	}
	put_message(modify, &message, &key_text, &patch);
}

/*
 * An Upsert of the whole document with the changes laid over it; true when its
 * key has changed, and the old one is deleted.
 */
static bool
put_whole(CvxModify *modify, const CvxTargetRow *target, Change *changes,
		  int nchanges)
{
	CvxMessage	message = {.op = CVX_OP_UPSERT};
	StringInfoData doc;
	StringInfoData before;
	StringInfoData old_key;
	StringInfoData new_key;
	bool		is_new;
	bool		is_replaced;

	initStringInfo(&doc);
	initStringInfo(&before);
	initStringInfo(&old_key);
	initStringInfo(&new_key);
	cvx_document_strip(&doc, target->doc, target->doc_len, false);
	message.old_bytes = cvx_document_measure(doc.data, doc.len);

	/* The whole document first, then what lies over it. */
	for (int i = 0; i < nchanges; i++)
	{
		if (!changes[i].column->options->is_document)
		{
			lay_over(modify, changes[i].column, changes[i].value,
					 changes[i].len, target, &doc);
			continue;
		}
		resetStringInfo(&doc);
		appendBinaryStringInfo(&doc, changes[i].value, changes[i].len);
	}
	key_of(modify, target->doc, target->doc_len, &old_key);
	key_of(modify, doc.data, doc.len, &new_key);
	is_new = old_key.len != new_key.len ||
		memcmp(old_key.data, new_key.data, new_key.len) != 0;
	if (is_new)
		check_key_ends(modify, doc.data, doc.len);
	message.new_bytes = cvx_document_measure(doc.data, doc.len);

	/*
	 * Where another row of this command has got the old key, its document has
	 * taken the place of this one, and must not be deleted.
	 */
	is_replaced = is_new && has_key(modify, &old_key);
	note_key(modify, &new_key);
	if (is_replaced)
	{
		name_target(&message, target);
		message.is_checked = true;
	}
	else if (is_new)
	{
		put_delete(modify, target, true);
		message.old_bytes = 0;
	}
	else
	{
		cvx_document_strip(&before, target->doc, target->doc_len, false);
		message.changes_nothing = is_same_document(&before, &doc);
		name_target(&message, target);
		message.is_checked = true;
		note_before(modify, &message, &before, &doc);
	}
	put_message(modify, &message, &new_key, &doc);
	return is_new;
}

static void
put_delete(CvxModify *modify, const CvxTargetRow *target, bool has_partner)
{
	const CvxKey *key = modify->options->key;
	CvxMessage	message = {.op = CVX_OP_DELETE};
	StringInfoData row;
	StringInfoData stripped;
	StringInfoData key_text;

	initStringInfo(&row);
	initStringInfo(&stripped);
	initStringInfo(&key_text);
	key_of(modify, target->doc, target->doc_len, &key_text);
	appendStringInfoString(&row, "{}");
	for (int i = 0; i < key->n; i++)
	{
		CvxText		value;
		StringInfoData longer;

		initStringInfo(&longer);
		(void) cvx_document_get(target->doc, target->doc_len, &key->paths[i],
								&value);
		cvx_document_set(&longer, row.data, row.len, &key->paths[i],
						 value.data, value.len);
		row = longer;
	}
	cvx_document_strip(&stripped, target->doc, target->doc_len, false);
	message.old_bytes = cvx_document_measure(stripped.data, stripped.len);
	name_target(&message, target);
	message.has_partner = has_partner;
	message.is_checked = modify->options->checks_conflicts || has_partner;
	put_message(modify, &message, &key_text, &row);
}

/* Has this command given a row this key? */
static bool
has_key(CvxModify *modify, const StringInfoData *key)
{
	CvxTextKey	wanted = {key->data, key->len};

	return modify->new_keys != NULL &&
		hash_search(modify->new_keys, &wanted, HASH_FIND, NULL) != NULL;
}

/*
 * A row of this command has this key from now on.  Throws 23505 when another
 * one has it, which Convex would take for the same document.
 */
static void
note_key(CvxModify *modify, const StringInfoData *key)
{
	CvxTextKey	wanted = {key->data, key->len};
	MemoryContext old;

	if (modify->new_keys == NULL)
		return;
	if (has_key(modify, key))
		ereport(ERROR,
				(errcode(ERRCODE_UNIQUE_VIOLATION),
				 errmsg("two rows of foreign table %s would have the same key",
						modify->options->relation),
				 errdetail("Row " INT64_FORMAT " gets the key of an earlier one: (%s).",
						   modify->nrows,
						   cvx_redact_excerpt(key->data, key->len)),
				 errhint("The option primary_key is '%s'; its values must stay unique.",
						 modify->options->key->text)));
	old = MemoryContextSwitchTo(modify->cxt);
	wanted.data = pnstrdup(key->data, key->len);
	(void) hash_search(modify->new_keys, &wanted, HASH_ENTER, NULL);
	MemoryContextSwitchTo(old);
}

/* The message changes a document that its scan has seen. */
static void
name_target(CvxMessage *message, const CvxTargetRow *target)
{
	message->base_ts = target->ts;
	message->id = target->id;
	message->id_len = target->id_len;
}

/*
 * A field that a checked change gives another value than it had, with the value
 * that it had: the shortest one.  See batch.c, which may send it before the
 * change.  None where the change only adds fields.
 */
static void
note_before(CvxModify *modify, CvxMessage *message, const StringInfoData *old,
			const StringInfoData *new)
{
	const CvxKey *key = modify->options->key;
	StringInfoData patch;
	CvxJson		json;
	CvxText		name;
	CvxText		value;
	CvxText		best = {NULL};
	char	   *best_name = NULL;
	char	   *names[1];
	CvxPath		path = {names, 1};

	if (!message->is_checked || message->id == NULL ||
		message->changes_nothing)
		return;
	cvx_json_within(&json, old->data, old->len);
	cvx_json_open(&json, '{');
	for (bool is_first = true; cvx_json_member(&json, &name, is_first);
		 is_first = false)
	{
		CvxText		after;
		bool		is_usable = true;

		cvx_json_skip(&json, &value);
		names[0] = cvx_json_cstring(&name);
		for (int i = 0; i < key->n; i++)
			is_usable &= strcmp(key->paths[i].names[0], names[0]) != 0;

		/* Convex merges this one, so that it may keep what it had. */
		is_usable &= strcmp(names[0], "fivetran") != 0;
		if (!is_usable || value.len > MAX_BEFORE_BYTES ||
			(best.data != NULL && value.len >= best.len) ||
			(cvx_document_get(new->data, new->len, &path, &after) &&
			 is_same_value(&value, &after)))
			continue;
		best = value;
		best_name = names[0];
	}
	if (best_name == NULL)
		return;
	initStringInfo(&patch);
	appendStringInfoString(&patch, "{}");
	for (int i = 0; i <= key->n; i++)
	{
		StringInfoData longer;

		names[0] = i < key->n ? key->paths[i].names[0] : best_name;
		if (i < key->n && !cvx_document_get(old->data, old->len, &path, &value))
			continue;
		initStringInfo(&longer);
		cvx_document_set(&longer, patch.data, patch.len, &path,
						 i < key->n ? value.data : best.data,
						 i < key->n ? value.len : best.len);
		patch = longer;
	}
	message->before = patch.data;
	message->before_len = patch.len;
}

static bool
is_same_value(const CvxText *a, const CvxText *b)
{
	StringInfoData x;
	StringInfoData y;

	if (a->len == b->len && memcmp(a->data, b->data, a->len) == 0)
		return true;
	initStringInfo(&x);
	initStringInfo(&y);
	cvx_document_canonical(&x, a->data, a->len, false);
	cvx_document_canonical(&y, b->data, b->len, false);
	return x.len == y.len && memcmp(x.data, y.data, x.len) == 0;
}

/* Give a message, its key (NULL: none) and its row to the batch. */
static void
put_message(CvxModify *modify, CvxMessage *message, const StringInfoData *key,
			const StringInfoData *row)
{
	message->table = modify->table;
	message->cid = modify->cid;
	message->key = key ? key->data : NULL;
	message->key_len = key ? key->len : 0;
	message->row = row->data;
	message->row_len = row->len;
	cvx_batch_put(modify->batch, message);
}

/* Would Convex write nothing? */
static bool
is_same_document(const StringInfoData *a, const StringInfoData *b)
{
	StringInfoData x;
	StringInfoData y;

	initStringInfo(&x);
	initStringInfo(&y);
	cvx_document_canonical(&x, a->data, a->len, true);
	cvx_document_canonical(&y, b->data, b->len, true);
	return x.len == y.len && memcmp(x.data, y.data, x.len) == 0;
}

/* The target's columns, in the current context. */
static void
decode_target(CvxModify *modify, const CvxTargetRow *target, Datum *values,
			  bool *nulls)
{
	CvxErrorPlace place = {.server = modify->options->server_name};
	CvxPage    *page = cvx_page_of_document(target->doc, target->doc_len,
											&modify->want);

	place.relation = psprintf("foreign table %s", modify->options->relation);
	cvx_error_push(&place);
	cvx_rowmap_decode(modify->map, page, 0, values, nulls, &place);
	cvx_error_pop(&place);
}

/* The canonical key of a document; 23502 when it has none. */
static void
key_of(CvxModify *modify, const char *doc, int len, StringInfo key)
{
	const char *missing;

	if (cvx_document_key(key, doc, len, modify->options->key, &missing))
		return;
	ereport(ERROR,
			(errcode(ERRCODE_NOT_NULL_VIOLATION),
			 errmsg("key field \"%s\" is null or missing", missing),
			 errdetail("Row " INT64_FORMAT " of foreign table %s.",
					   modify->nrows, modify->options->relation),
			 errhint("Every row needs a value for each field of the table's option primary_key (%s).",
					 modify->options->key->text)));
}

/*
 * Convex looks for a key by a prefix of its bytes, and writes a zero byte in a
 * string or in bytes as their end and one more byte.  So the key '\\x01' also
 * finds a document with the key '\\x0100' and replaces it.  After a field that
 * is not the last one there is a byte that ends the likeness.
 */
static void
check_key_ends(CvxModify *modify, const char *doc, int len)
{
	const CvxPath *path = &modify->options->key->paths[modify->options->key->n - 1];
	CvxText		text;
	CvxValue	value;

	if (!cvx_document_get(doc, len, path, &text))
		return;
	cvx_value_read(text.data, text.len, &value);
	if (cvx_value_has_nul(&value))
		ereport(ERROR,
				(errcode(ERRCODE_FDW_INVALID_DATA_TYPE),
				 errmsg("key field \"%s\" of foreign table %s has a zero byte",
						path->label, modify->options->relation),
				 errdetail("Convex would take the value for the continuation of a shorter key, and replace this document when that key is written."),
				 errhint("Use a text column, for example with hexadecimal digits, or a primary_key whose last field has another type.")));
}
