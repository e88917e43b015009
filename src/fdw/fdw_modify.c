/*
 * fdw_modify.c
 *		How do INSERT, UPDATE, DELETE, TRUNCATE become messages?
 *
 * A row becomes messages when the executor hands it over; batch.c decides when
 * they leave.
 *
 * Room: fdw 5.14
 */
#include "postgres.h"

#include "access/sysattr.h"
#include "access/xact.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "optimizer/appendinfo.h"
#include "parser/parsetree.h"
#include "utils/memutils.h"
#include "utils/rel.h"

#include "ground/compat.h"
#include "shape/document.h"
#include "shape/options_read.h"
#include "write/batch.h"
#include "write/clear.h"
#include "fdw/fdw_modify.h"
#include "fdw/fdw_on_conflict.h"
#include "fdw/fdw_plan.h"
#include "fdw/fdw_snapshot.h"
#include "fdw/fdw_update.h"

static void check_writable(const CvxTableOptions *options, CmdType operation);

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
		cvx_on_conflict_fail();
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
	modify = cvx_row_open(mtstate->ps.state, rri, true);
	if (mtstate->operation != CMD_INSERT)
		cvx_update_open(modify, mtstate, rri, subplan_index);
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
		cvx_on_conflict_fail();
	check_writable(cvx_options_table(RelationGetRelid(rri->ri_RelationDesc)),
				   CMD_INSERT);
	if (plan != NULL && IsA(plan, ModifyTable))
		cvx_plan_check_routed((ModifyTable *) plan, plan ==
							  mtstate->ps.state->es_plannedstmt->planTree,
							  RelationGetRelid(rri->ri_RelationDesc));
	rri->ri_FdwState = cvx_row_open(mtstate->ps.state, rri, plan != NULL);
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

	cvx_row_begin(modify, &callback);
	initStringInfo(&row);
	initStringInfo(&key);
	cvx_row_look_at_key(modify);
	cvx_row_build(modify, slot, &row);
	message.new_bytes = cvx_document_measure(row.data, row.len);
	message.op = modify->options->key ? CVX_OP_UPSERT : CVX_OP_APPEND;
	if (modify->options->key)
	{
		cvx_row_key(modify, row.data, row.len, &key);
		cvx_row_check_key(modify, row.data, row.len);
	}
	cvx_row_put(modify, &message, modify->options->key ? &key : NULL, &row);
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
	CvxChange  *changes;
	int			nchanges;
	bool		needs_whole;
	bool		is_new = false;

	cvx_row_begin(modify, &callback);
	if (!cvx_update_find(modify, plan_slot, &target))
	{
		error_context_stack = callback.previous;
		MemoryContextSwitchTo(old);
		return NULL;
	}
	slot_getallattrs(slot);
	changes = cvx_update_collect(modify, slot, &target, &nchanges, &needs_whole);
	if (needs_whole)
		is_new = cvx_update_put_whole(modify, &target, changes, nchanges);
	else if (nchanges > 0)
		cvx_update_put(modify, &target, changes, nchanges);
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

	cvx_row_begin(modify, &callback);
	is_found = cvx_update_find(modify, plan_slot, &target);
	if (is_found)
		cvx_update_delete(modify, &target, false);
	error_context_stack = callback.previous;
	if (is_found)
	{
		/* RETURNING shows the row; the slot's memory outlives it. */
		ExecClearTuple(slot);
		MemoryContextSwitchTo(modify->row_cxt);
		cvx_update_decode(modify, &target, slot->tts_values, slot->tts_isnull);
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

