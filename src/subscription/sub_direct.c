/*
 * sub_direct.c
 *		How do changes reach a plain table without statements?
 *
 * A table whose changes run nobody's code and go nowhere else, that is without
 * triggers, rules, row security, generated columns, defaults of columns that
 * are not ours, parents or children, is changed row by row: each _id is looked
 * up in the unique index, and the row updated, deleted or kept for insertion
 * with others.  What a statement would check is checked: constraints, unique
 * indexes, replica identity, and rows that others change at the same time.
 *
 * All other tables are left to the statements of sub_apply.c.
 *
 * Room: subscription 5.7
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/relscan.h"
#include "access/skey.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_am.h"
#include "catalog/pg_index.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "rewrite/rewriteHandler.h"
#include "utils/acl.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"

#include "ground/compat.h"
#include "subscription/sub_catalog.h"
#include "subscription/sub_direct.h"
#include "subscription/sub_target.h"

/* Rows that are inserted together, and text of theirs that is enough. */
#define INSERT_ROWS			1000
#define INSERT_BYTES		(1024 * 1024)

#define NEEDED_RIGHTS		(ACL_SELECT | ACL_INSERT | ACL_UPDATE | ACL_DELETE)

/* While rows of a page are changed. */
typedef struct Direct
{
	CvxTarget  *target;
	MemoryContext cxt;			/* of all this */
	EState	   *estate;
	ResultRelInfo *result;
	Relation	index;
	IndexScanDesc scan;
	ScanKeyData key;
	CommandId	cid;
	TupleDesc	tupdesc;		/* not counted */
	TupleTableSlot *old;		/* as found */
	TupleTableSlot *new;
	int64		changed;

	/* to be inserted; the values are in the row's context */
	TupleTableSlot **inserts;
	int			ninserts;
	int			nslots;
	size_t		insert_bytes;
} Direct;

static bool has_foreign_default(CvxTarget *target);
static Oid	find_index(CvxTarget *target);
static void begin(Direct *direct, CvxTarget *target, Oid index, int max_rows);
static void end(Direct *direct);
static void begin_scan(Direct *direct);
static void end_scan(Direct *direct);
static bool look_up(Direct *direct);
static void change_row(Direct *direct, const CvxDoc *doc);
static TM_Result update_row(Direct *direct, const CvxDoc *doc);
static bool is_ours(const CvxColumn *column, const Direct *direct,
					const CvxDoc *doc);
static void keep_insert(Direct *direct, const CvxDoc *doc);
static void flush_inserts(Direct *direct);

/*
 * Can changes of a target go past the executor's statements?  As its owner.
 */
bool
cvx_direct_is_possible(CvxTarget *target)
{
	Relation	relation = target->relation;
	Form_pg_class form = relation->rd_rel;

	return target->sub->mode != CVX_MODE_HISTORY &&
		form->relkind == RELKIND_RELATION &&
		form->relam == HEAP_TABLE_AM_OID && !form->relispartition &&
		!form->relhassubclass && !form->relrowsecurity &&
		relation->trigdesc == NULL && relation->rd_rules == NULL &&
		!has_foreign_default(target) && OidIsValid(find_index(target)) &&
		pg_class_aclmask(RelationGetRelid(relation), form->relowner, NEEDED_RIGHTS,
						 ACLMASK_ALL) == NEEDED_RIGHTS;
}

/* Would an INSERT put something into a column that is not ours? */
static bool
has_foreign_default(CvxTarget *target)
{
	TupleDesc	tupdesc = target->tupdesc;

	for (int i = 0; i < tupdesc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(tupdesc, i);
		bool		is_known = att->attisdropped;

		if (!att->attisdropped && att->attgenerated != '\0')
			return true;
		for (int c = 0; c < target->ncolumns && !is_known; c++)
			is_known = target->columns[c].attnum == att->attnum;
		if (!is_known &&
			build_column_default(target->relation, att->attnum) != NULL)
			return true;
	}
	return false;
}

/* A unique index in which an _id can be looked up by its bytes. */
static Oid
find_index(CvxTarget *target)
{
	List	   *indexes = RelationGetIndexList(target->relation);
	Oid			result = InvalidOid;
	ListCell   *lc;

	foreach(lc, indexes)
	{
		HeapTuple	tuple = SearchSysCache1(INDEXRELID,
											ObjectIdGetDatum(lfirst_oid(lc)));
		Form_pg_index index = (Form_pg_index) GETSTRUCT(tuple);

		if (index->indisunique && index->indimmediate && index->indisvalid &&
			index->indnkeyatts == 1 &&
			index->indkey.values[0] == target->id->attnum &&
			heap_attisnull(tuple, Anum_pg_index_indpred, NULL))
		{
			Relation	relation = index_open(lfirst_oid(lc), AccessShareLock);

			if (relation->rd_rel->relam == BTREE_AM_OID &&
				get_collation_isdeterministic(relation->rd_indcollation[0]))
				result = lfirst_oid(lc);
			index_close(relation, NoLock);
		}
		ReleaseSysCache(tuple);
	}
	return result;
}

/*
 * Apply documents of the page, the one at *done first and each _id once, until
 * the last or until one shows a field that may get a column: *done says how
 * far it came.  As the target's owner.  Returns how many rows changed.
 */
int64
cvx_direct_apply(CvxTarget *target, const CvxPage *page, const int *docs,
				 int ndocs, int *done)
{
	Direct		direct;
	StringInfoData extra;

	initStringInfo(&extra);
	begin(&direct, target, find_index(target), ndocs - *done);
	for (; *done < ndocs; (*done)++)
	{
		const CvxDoc *doc = &page->docs[docs[*done]];
		MemoryContext old = MemoryContextSwitchTo(target->row.cxt);

		CHECK_FOR_INTERRUPTS();
		cvx_target_decode(target, page, doc, &extra);
		if (target->unknowns == NIL)
			change_row(&direct, doc);
		MemoryContextSwitchTo(old);
		if (direct.ninserts == 0)
			MemoryContextReset(target->row.cxt);
		if (target->unknowns != NIL)
			break;
	}
	end(&direct);
	return direct.changed;
}

static void
begin(Direct *direct, CvxTarget *target, Oid index, int max_rows)
{
	Relation	relation = target->relation;

	memset(direct, 0, sizeof(Direct));
	direct->target = target;
	direct->cxt = CurrentMemoryContext;
	CheckCmdReplicaIdentity(relation, CMD_UPDATE);
	CheckCmdReplicaIdentity(relation, CMD_DELETE);
	direct->estate = CreateExecutorState();
	direct->estate->es_output_cid = direct->cid = GetCurrentCommandId(true);
	direct->result = makeNode(ResultRelInfo);
	InitResultRelInfo(direct->result, relation, 0, NULL, 0);
	ExecOpenIndices(direct->result, false);
	for (int i = 0; i < direct->result->ri_NumIndices; i++)
		if (RelationGetRelid(direct->result->ri_IndexRelationDescs[i]) == index)
			direct->index = direct->result->ri_IndexRelationDescs[i];
	Assert(direct->index != NULL);
	ScanKeyEntryInitialize(&direct->key, 0, 1, BTEqualStrategyNumber, InvalidOid,
						   direct->index->rd_indcollation[0],
						   get_opcode(get_opfamily_member(direct->index->rd_opfamily[0],
														  direct->index->rd_opcintype[0],
														  direct->index->rd_opcintype[0],
														  BTEqualStrategyNumber)),
						   (Datum) 0);
	direct->tupdesc = CreateTupleDescCopy(target->tupdesc);
	direct->old = table_slot_create(relation, NULL);
	direct->new = MakeSingleTupleTableSlot(direct->tupdesc, &TTSOpsVirtual);
	direct->inserts = palloc(sizeof(TupleTableSlot *) * Min(max_rows, INSERT_ROWS));
	begin_scan(direct);
}

static void
end(Direct *direct)
{
	MemoryContext old = MemoryContextSwitchTo(direct->target->row.cxt);

	flush_inserts(direct);
	MemoryContextSwitchTo(old);
	MemoryContextReset(direct->target->row.cxt);
	ExecDropSingleTupleTableSlot(direct->old);
	end_scan(direct);
	ExecDropSingleTupleTableSlot(direct->new);
	for (int i = 0; i < direct->nslots; i++)
		ExecDropSingleTupleTableSlot(direct->inserts[i]);
	ExecCloseIndices(direct->result);
	FreeExecutorState(direct->estate);
	CommandCounterIncrement();
}

/* Look-ups see what a statement that begins now would see. */
static void
begin_scan(Direct *direct)
{
	MemoryContext old = MemoryContextSwitchTo(direct->cxt);

	PushActiveSnapshot(GetTransactionSnapshot());
	direct->scan = cvx_index_beginscan(direct->target->relation, direct->index,
									   GetActiveSnapshot(), 1);
	MemoryContextSwitchTo(old);
}

static void
end_scan(Direct *direct)
{
	index_endscan(direct->scan);
	PopActiveSnapshot();
}

/*
 * Find the row with the _id that was decoded.  What the index allocates on
 * the way lives as long as the scan.
 */
static bool
look_up(Direct *direct)
{
	MemoryContext old = MemoryContextSwitchTo(direct->cxt);
	bool		is_found;

	direct->key.sk_argument = direct->target->row.values[direct->target->id->attnum - 1];
	index_rescan(direct->scan, &direct->key, 1, NULL, 0);
	is_found = index_getnext_slot(direct->scan, ForwardScanDirection, direct->old);
	MemoryContextSwitchTo(old);
	return is_found;
}

/* Make the row what the document says. */
static void
change_row(Direct *direct, const CvxDoc *doc)
{
	Relation	relation = direct->target->relation;
	TM_FailureData failure;
	TM_Result	result;

	for (;;)
	{
		if (!look_up(direct))
		{
			if (!doc->is_deleted)
				keep_insert(direct, doc);
			return;
		}
		if (!doc->is_deleted && direct->target->ncolumns == 1)
			return;
		if (doc->is_deleted && direct->target->sub->mode == CVX_MODE_MIRROR)
			result = table_tuple_delete(relation, &direct->old->tts_tid,
										direct->cid, GetActiveSnapshot(),
										InvalidSnapshot, true, &failure, false);
		else
			result = update_row(direct, doc);
		if (result == TM_Ok)
			break;
		if (result != TM_Updated && result != TM_Deleted)
			elog(ERROR, "unexpected result %d of a change", result);
		if (IsolationUsesXactSnapshot())
			ereport(ERROR,
					(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
					 errmsg("could not serialize access due to concurrent update")));

		/* Somebody else was faster: once more, with what they left. */
		ExecClearTuple(direct->old);
		end_scan(direct);
		begin_scan(direct);
	}
	direct->changed++;
	ResetPerTupleExprContext(direct->estate);
}

/* Lay the decoded columns over the row that was found. */
static TM_Result
update_row(Direct *direct, const CvxDoc *doc)
{
	CvxTarget  *target = direct->target;
	TupleTableSlot *new = direct->new;
	int			natts = direct->tupdesc->natts;
	TM_FailureData failure;
	LockTupleMode lockmode;
	CvxIndexUpdate indexes;
	TM_Result	result;

	slot_getallattrs(direct->old);
	ExecClearTuple(new);
	memcpy(new->tts_values, direct->old->tts_values, sizeof(Datum) * natts);
	memcpy(new->tts_isnull, direct->old->tts_isnull, sizeof(bool) * natts);
	for (int i = 0; i < target->ncolumns; i++)
	{
		const CvxColumn *column = &target->columns[i];
		int			att = column->attnum - 1;

		if (column == target->id || !is_ours(column, direct, doc))
			continue;
		new->tts_values[att] = target->row.values[att];
		new->tts_isnull[att] = target->row.nulls[att];
	}
	ExecStoreVirtualTuple(new);
	if (target->relation->rd_att->constr)
		ExecConstraints(direct->result, new, direct->estate);
	result = table_tuple_update(target->relation, &direct->old->tts_tid, new,
								direct->cid, GetActiveSnapshot(),
								InvalidSnapshot, true, &failure, &lockmode,
								&indexes);
	if (result == TM_Ok && cvx_needs_index_update(indexes) &&
		direct->result->ri_NumIndices > 0)
		cvx_insert_index_tuples(direct->result, new, direct->estate, true,
								indexes);
	return result;
}

/* Of a deleted document only the time of its deletion is told. */
static bool
is_ours(const CvxColumn *column, const Direct *direct, const CvxDoc *doc)
{
	return !doc->is_deleted || column->role == CVX_ROLE_TS ||
		column->role == CVX_ROLE_DELETED_AT;
}

static void
keep_insert(Direct *direct, const CvxDoc *doc)
{
	CvxTarget  *target = direct->target;
	int			natts = direct->tupdesc->natts;
	TupleTableSlot *slot;

	if (direct->ninserts == direct->nslots)
	{
		MemoryContext old = MemoryContextSwitchTo(direct->cxt);

		direct->inserts[direct->nslots++] =
			MakeSingleTupleTableSlot(direct->tupdesc, &TTSOpsVirtual);
		MemoryContextSwitchTo(old);
	}
	slot = direct->inserts[direct->ninserts++];
	ExecClearTuple(slot);
	memcpy(slot->tts_values, target->row.values, sizeof(Datum) * natts);
	memcpy(slot->tts_isnull, target->row.nulls, sizeof(bool) * natts);
	ExecStoreVirtualTuple(slot);
	slot->tts_tableOid = RelationGetRelid(target->relation);
	if (target->relation->rd_att->constr)
		ExecConstraints(direct->result, slot, direct->estate);
	direct->insert_bytes += doc->document.len;
	if (direct->ninserts == INSERT_ROWS || direct->insert_bytes >= INSERT_BYTES)
		flush_inserts(direct);
}

static void
flush_inserts(Direct *direct)
{
	if (direct->ninserts == 0)
		return;
	table_multi_insert(direct->target->relation, direct->inserts,
					   direct->ninserts, direct->cid, 0, NULL);
	for (int i = 0; i < direct->ninserts; i++)
	{
		if (direct->result->ri_NumIndices > 0)
			cvx_insert_index_tuples(direct->result, direct->inserts[i],
									direct->estate, false, CVX_INDEXES_ALL);
		ExecClearTuple(direct->inserts[i]);
		ResetPerTupleExprContext(direct->estate);
	}
	direct->changed += direct->ninserts;
	direct->ninserts = 0;
	direct->insert_bytes = 0;
}
