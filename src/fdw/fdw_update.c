/*
 * fdw_update.c
 *		What does an UPDATE or DELETE change in its documents?
 *
 * Invariants:
 *	1. It begins with the document as the scan has seen it, own pending writes
 *	   included; the row's ctid says where the scan keeps it.
 *	2. A field that an UPDATE does not set keeps its bytes.
 *	3. One command changes a row once, as with any table.
 *
 * Room: fdw 5.13
 */
#include "postgres.h"

#include "access/sysattr.h"
#include "commands/trigger.h"
#include "executor/executor.h"
#include "utils/datum.h"
#include "utils/memutils.h"
#include "utils/rel.h"

#include "ground/compat.h"
#include "ground/redact.h"
#include "shape/document.h"
#include "shape/rowmap.h"
#include "fdw/fdw_update.h"

/* The value before that a message carries along is not to double its size. */
#define MAX_BEFORE_BYTES	1024

/* What a command that is an UPDATE or DELETE keeps. */
struct CvxUpdate
{
	/* fixed at begin */
	EState	   *estate;
	AttrNumber	ctid;			/* of the plan's rows */
	Index		relid;
	Bitmapset  *updated;		/* numbers of the columns that SET names */
	bool		has_before_trigger;
	CvxRowMap  *map;			/* of all columns */
	CvxPageWant want;

	/* from the first row on */
	CvxTargets *targets;		/* of its scan */
	Bitmapset  *done;			/* rows that this command has changed */
	HTAB	   *new_keys;		/* that it has given to rows; or NULL */
};

static bool may_change_keys(const CvxModify *modify);
static bool is_named(const CvxModify *modify, const CvxRowColumn *column);
static bool may_change(const CvxModify *modify, const CvxRowColumn *column);
static void encode_change(CvxModify *modify, Datum datum, bool is_null,
						  const CvxTargetRow *target, CvxChange *change);
static bool is_whole_needed(CvxModify *modify, const CvxTargetRow *target,
							const CvxChange *change);
static void settle_overlaps(CvxModify *modify, CvxChange *changes,
							int *nchanges);
static bool has_key(CvxModify *modify, const StringInfoData *key);
static void note_key(CvxModify *modify, const StringInfoData *key);
static void name_target(CvxMessage *message, const CvxTargetRow *target);
static void note_before(CvxModify *modify, CvxMessage *message,
						const StringInfoData *old, const StringInfoData *new);

/* What UPDATE and DELETE need beyond INSERT. */
void
cvx_update_open(CvxModify *modify, ModifyTableState *mtstate,
				ResultRelInfo *rri, int subplan_index)
{
	MemoryContext old = MemoryContextSwitchTo(modify->cxt);
	Plan	   *subplan = outerPlan(mtstate->ps.plan);
	EState	   *estate = mtstate->ps.state;
	Relation	rel = rri->ri_RelationDesc;
	TriggerDesc *triggers = rri->ri_TrigDesc;

	modify->update = palloc0(sizeof(struct CvxUpdate));
	modify->update->estate = estate;
	modify->update->relid = rri->ri_RangeTableIndex;
	modify->update->ctid = ExecFindJunkAttributeInTlist(subplan->targetlist, "ctid");
	if (!AttributeNumberIsValid(modify->update->ctid))
		elog(ERROR, "could not find junk ctid column");
	if (mtstate->operation == CMD_UPDATE)
		modify->update->updated = ExecGetUpdatedCols(rri, estate);
	modify->update->has_before_trigger = triggers && triggers->trig_update_before_row;
	if (mtstate->operation == CMD_UPDATE && may_change_keys(modify))
		modify->update->new_keys = cvx_queue_map("convex new keys", sizeof(CvxTextKey));
	modify->update->map = cvx_rowmap_create(RelationGetRelid(rel), modify->tupdesc,
									NULL, modify->options, NIL);
	modify->update->want.fields = cvx_rowmap_fields(modify->update->map,
											&modify->update->want.nfields);
	modify->update->want.field_lens = cvx_rowmap_field_lens(modify->update->map);
	MemoryContextSwitchTo(old);
}

/* Can the UPDATE give a row another key? */
static bool
may_change_keys(const CvxModify *modify)
{
	const CvxKey *key = modify->options->key;

	for (int i = 0; i < modify->ncolumns; i++)
	{
		const CvxRowColumn *column = &modify->columns[i];

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
is_named(const CvxModify *modify, const CvxRowColumn *column)
{
	return bms_is_member(column->attnum - FirstLowInvalidHeapAttributeNumber,
						 modify->update->updated);
}

/*
 * Can the UPDATE give the column another value?  Which generated columns
 * depend on those that SET names is known to the executor only, which can be
 * asked only after it has begun; the values will tell.
 */
static bool
may_change(const CvxModify *modify, const CvxRowColumn *column)
{
	return is_named(modify, column) || column->is_generated ||
		modify->update->has_before_trigger;
}

/*
 * The document behind a row of the plan; false when this command has changed
 * it already.
 */
bool
cvx_update_find(CvxModify *modify, TupleTableSlot *plan_slot,
				CvxTargetRow *target)
{
	MemoryContext old;
	bool		is_null;
	Datum		ctid = ExecGetJunkAttribute(plan_slot, modify->update->ctid, &is_null);

	if (is_null)
		elog(ERROR, "ctid is NULL");
	if (modify->update->targets == NULL)
		modify->update->targets = cvx_scan_targets(modify->update->estate,
												   modify->update->relid);
	if (modify->update->targets == NULL)
		elog(ERROR, "the scan of foreign table %s is not open",
			 modify->options->relation);
	cvx_targets_get(modify->update->targets,
					(ItemPointer) DatumGetPointer(ctid), target);
	if (bms_is_member((int) target->number, modify->update->done))
		return false;
	if (modify->key_columns && !modify->is_key_known)
	{
		cvx_keycheck_saw(modify->options, modify->key_columns, target->doc,
						 target->doc_len);
		modify->is_key_known = cvx_keycheck_is_known(modify->options,
													 modify->key_columns);
	}
	old = MemoryContextSwitchTo(modify->cxt);
	modify->update->done = bms_add_member(modify->update->done, (int) target->number);
	MemoryContextSwitchTo(old);
	return true;
}

/* What an UPDATE sets, encoded; in the current context. */
CvxChange *
cvx_update_collect(CvxModify *modify, TupleTableSlot *slot,
				   const CvxTargetRow *target, int *nchanges,
				   bool *needs_whole)
{
	CvxChange  *changes = palloc(sizeof(CvxChange) * Max(modify->ncolumns, 1));
	Datum	   *old_values = palloc(sizeof(Datum) * modify->tupdesc->natts);
	bool	   *old_nulls = palloc(sizeof(bool) * modify->tupdesc->natts);

	*nchanges = 0;
	*needs_whole = false;
	cvx_update_decode(modify, target, old_values, old_nulls);
	for (int i = 0; i < modify->ncolumns; i++)
	{
		CvxRowColumn *column = &modify->columns[i];
		int			at = column->attnum - 1;
		CvxChange  *change = &changes[*nchanges];
		bool		is_same = slot->tts_isnull[at] == old_nulls[at] &&
			(slot->tts_isnull[at] ||
			 datum_image_eq(slot->tts_values[at], old_values[at],
							column->typbyval, column->typlen));
		CvxText		old;

		if (!may_change(modify, column) ||
			(is_same && (column->is_system || !is_named(modify, column))))
			continue;

		/* Where nothing or null is, NULL changes nothing. */
		if (is_same && slot->tts_isnull[at] && !column->options->is_document &&
			(!cvx_document_get(target->doc, target->doc_len, &column->path,
							   &old) || old.data[0] == 'n'))
			continue;
		change->column = column;
		change->is_same = is_same;
		encode_change(modify, slot->tts_values[at], slot->tts_isnull[at],
					  target, change);
		(*nchanges)++;
		*needs_whole |= is_whole_needed(modify, target, change);
	}
	settle_overlaps(modify, changes, nchanges);
	return changes;
}

/* The value that a column gets; none where its field is taken out. */
static void
encode_change(CvxModify *modify, Datum datum, bool is_null,
			  const CvxTargetRow *target, CvxChange *change)
{
	CvxRowColumn *column = change->column;
	StringInfoData value;
	CvxText		old;

	initStringInfo(&value);
	if (column->options->is_document && is_null)
	{
		modify->column = column;
		ereport(ERROR,
				(errcode(ERRCODE_FDW_INVALID_DATA_TYPE),
				 errmsg("a whole document cannot be NULL"),
				 errhint("Use DELETE, or set the document's fields.")));
	}
	else if (column->options->is_document)
		cvx_row_document(modify, datum, target, &value);
	else if (!is_null)
		cvx_row_encode(modify, column, datum,
					   cvx_document_get(target->doc, target->doc_len,
										&column->path, &old) ? &old : NULL,
					   &value);
	else if (column->is_system)
		cvx_row_encode(modify, column, (Datum) 0, NULL, &value);
	else if (column->options->writes_nulls)
		appendStringInfoString(&value, "null");
	change->value = value.len > 0 ? value.data : NULL;
	change->len = value.len;
}

/*
 * Can an Update of fields not express the change?  Then the whole document is
 * sent.
 */
static bool
is_whole_needed(CvxModify *modify, const CvxTargetRow *target,
				const CvxChange *change)
{
	const CvxKey *key = modify->options->key;
	const CvxRowColumn *column = change->column;
	bool		result = column->options->is_document ||
		change->value == NULL || column->path.n > 1 ||
		strcmp(column->path.names[0], "fivetran") == 0;

	for (int k = 0; k < key->n && column->path.n > 0; k++)
		if (strcmp(key->paths[k].names[0], column->path.names[0]) == 0)
		{
			result |= !change->is_same;
			cvx_keycheck_document(modify->options, modify->key_columns,
								  target->doc, target->doc_len);
		}
	return result;
}

/*
 * Of two columns with one field, or a field within the other's, the one that
 * changes counts; both must say the same.
 */
static void
settle_overlaps(CvxModify *modify, CvxChange *changes, int *nchanges)
{
	for (int i = 0; i < *nchanges; i++)
		for (int j = i + 1; j < *nchanges; j++)
		{
			CvxRowColumn *outer = changes[i].column;
			CvxRowColumn *inner = changes[j].column;
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
						sizeof(CvxChange) * (*nchanges - gone - 1));
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
				cvx_row_fail_unlike(modify, inner);
		}
}

/* An Update: the key's fields as they are, and the changed ones. */
void
cvx_update_put(CvxModify *modify, const CvxTargetRow *target,
			   CvxChange *changes, int nchanges)
{
	const CvxKey *key = modify->options->key;
	CvxMessage	message = {.op = CVX_OP_UPDATE};
	StringInfoData patch;
	StringInfoData merged;
	StringInfoData key_text;

	initStringInfo(&patch);
	initStringInfo(&merged);
	initStringInfo(&key_text);
	cvx_row_key(modify, target->doc, target->doc_len, &key_text);
	note_key(modify, &key_text);
	appendStringInfoString(&patch, "{}");
	for (int i = 0; i < key->n; i++)
	{
		CvxPath		path = {key->paths[i].names, 1};
		CvxText		value;

		if (cvx_document_get(target->doc, target->doc_len, &path, &value))
			cvx_document_set(&patch, &path, value.data, value.len);
	}
	for (int i = 0; i < nchanges; i++)
		cvx_document_set(&patch, &changes[i].column->path, changes[i].value,
						 changes[i].len);
	cvx_document_strip(&merged, target->doc, target->doc_len, false);
	message.old_bytes = cvx_document_measure(merged.data, merged.len);
	{
		StringInfoData after;

		initStringInfo(&after);
		cvx_document_merge(&after, merged.data, merged.len, patch.data,
						   patch.len);
		message.new_bytes = cvx_document_measure(after.data, after.len);
		message.changes_nothing = cvx_document_is_same(merged.data, merged.len,
													   after.data, after.len, true);
		name_target(&message, target);
		message.is_checked = modify->options->checks_conflicts;
		note_before(modify, &message, &merged, &after);
	}
	cvx_row_put(modify, &message, &key_text, &patch);
}

/*
 * An Upsert of the whole document with the changes laid over it; true when its
 * key has changed, and the old one is deleted.
 */
bool
cvx_update_put_whole(CvxModify *modify, const CvxTargetRow *target,
					 CvxChange *changes, int nchanges)
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
			cvx_row_lay_over(modify, changes[i].column, changes[i].value,
							 changes[i].len, target, &doc);
			continue;
		}
		resetStringInfo(&doc);
		appendBinaryStringInfo(&doc, changes[i].value, changes[i].len);
	}
	cvx_row_key(modify, target->doc, target->doc_len, &old_key);
	cvx_row_key(modify, doc.data, doc.len, &new_key);
	is_new = old_key.len != new_key.len ||
		memcmp(old_key.data, new_key.data, new_key.len) != 0;
	if (is_new)
		cvx_row_check_key(modify, doc.data, doc.len);
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
		cvx_update_delete(modify, target, true);
		message.old_bytes = 0;
	}
	else
	{
		cvx_document_strip(&before, target->doc, target->doc_len, false);
		message.changes_nothing = cvx_document_is_same(before.data, before.len,
													   doc.data, doc.len, true);
		name_target(&message, target);
		message.is_checked = true;
		note_before(modify, &message, &before, &doc);
	}
	cvx_row_put(modify, &message, &new_key, &doc);
	return is_new;
}

/* A HardDelete; has_partner: another message of the row follows. */
void
cvx_update_delete(CvxModify *modify, const CvxTargetRow *target,
				  bool has_partner)
{
	const CvxKey *key = modify->options->key;
	CvxMessage	message = {.op = CVX_OP_DELETE};
	StringInfoData row;
	StringInfoData stripped;
	StringInfoData key_text;

	initStringInfo(&row);
	initStringInfo(&stripped);
	initStringInfo(&key_text);
	cvx_row_key(modify, target->doc, target->doc_len, &key_text);
	appendStringInfoString(&row, "{}");
	for (int i = 0; i < key->n; i++)
	{
		CvxText		value;

		(void) cvx_document_get(target->doc, target->doc_len, &key->paths[i],
								&value);
		cvx_document_set(&row, &key->paths[i], value.data, value.len);
	}
	cvx_document_strip(&stripped, target->doc, target->doc_len, false);
	message.old_bytes = cvx_document_measure(stripped.data, stripped.len);
	name_target(&message, target);
	message.has_partner = has_partner;
	message.is_checked = modify->options->checks_conflicts || has_partner;
	cvx_row_put(modify, &message, &key_text, &row);
}

/* Has this command given a row this key? */
static bool
has_key(CvxModify *modify, const StringInfoData *key)
{
	CvxTextKey	wanted = {key->data, key->len};

	return modify->update->new_keys != NULL &&
		hash_search(modify->update->new_keys, &wanted, HASH_FIND, NULL) != NULL;
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

	if (modify->update->new_keys == NULL)
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
	(void) hash_search(modify->update->new_keys, &wanted, HASH_ENTER, NULL);
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
			 cvx_document_is_same(value.data, value.len, after.data, after.len,
								  false)))
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
		names[0] = i < key->n ? key->paths[i].names[0] : best_name;
		if (i < key->n && !cvx_document_get(old->data, old->len, &path, &value))
			continue;
		cvx_document_set(&patch, &path, i < key->n ? value.data : best.data,
						 i < key->n ? value.len : best.len);
	}
	message->before = patch.data;
	message->before_len = patch.len;
}

/* The target's columns, in the current context. */
void
cvx_update_decode(CvxModify *modify, const CvxTargetRow *target, Datum *values,
				  bool *nulls)
{
	CvxErrorPlace place = {.server = modify->options->server_name};
	CvxPage    *page = cvx_page_of_document(target->doc, target->doc_len,
											&modify->update->want);

	place.relation = psprintf("foreign table %s", modify->options->relation);
	cvx_error_push(&place);
	cvx_rowmap_decode(modify->update->map, page, 0, values, nulls, &place);
	cvx_error_pop(&place);
}
