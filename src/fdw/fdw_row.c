/*
 * fdw_row.c
 *		How does a row become a document, and a message?
 *
 * What Convex would not store exactly is refused here.  Errors of a row name
 * it, and the column.
 *
 * Room: fdw 5.12
 */
#include "postgres.h"

#include "access/xact.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "utils/memutils.h"
#include "utils/rel.h"

#include "ground/compat.h"
#include "ground/redact.h"
#include "shape/document.h"
#include "shape/value_read.h"
#include "fdw/fdw_row.h"

/* Names that import_airbyte_records drops. */
#define AIRBYTE_DROPPED	"source_ab_cdc"

static void add_column(CvxModify *modify, Oid relid, Form_pg_attribute att);
static void order_columns(CvxModify *modify);
static bool is_within(const CvxPath *path, const CvxPath *outer);
static void row_context(void *arg);

/*
 * What a command needs to write rows of a table; lives in a child of the
 * query's context.  has_plan is false for COPY.
 */
CvxModify *
cvx_row_open(EState *estate, ResultRelInfo *rri, bool has_plan)
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
	modify->columns = palloc0(sizeof(CvxRowColumn) * Max(modify->tupdesc->natts, 1));
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
add_column(CvxModify *modify, Oid relid, Form_pg_attribute att)
{
	CvxRowColumn *column = &modify->columns[modify->ncolumns++];
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
	for (CvxRowColumn *other = modify->columns; other < column; other++)
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
		CvxRowColumn	column = modify->columns[i];
		int			at = i;

		for (; at > 0 && modify->columns[at - 1].path.n > column.path.n; at--)
			modify->columns[at] = modify->columns[at - 1];
		modify->columns[at] = column;
	}
	for (int i = 0; i < modify->ncolumns; i++)
	{
		CvxRowColumn *column = &modify->columns[i];

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

/*
 * The next row: its memory is empty, and errors name it until the callback is
 * taken off.
 */
void
cvx_row_begin(CvxModify *modify, ErrorContextCallback *callback)
{
	MemoryContextReset(modify->row_cxt);
	modify->nrows++;
	modify->column = NULL;
	callback->callback = row_context;
	callback->arg = modify;
	callback->previous = error_context_stack;
	error_context_stack = callback;
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

/*
 * The first INSERT of a session by a key looks at a document.  Pending writes
 * may have done away with what Convex has; then the next transaction looks.
 */
void
cvx_row_look_at_key(CvxModify *modify)
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
void
cvx_row_build(CvxModify *modify, TupleTableSlot *slot, StringInfo out)
{
	StringInfoData value;
	Bitmapset  *given = NULL;

	slot_getallattrs(slot);
	initStringInfo(&value);
	if (modify->document && !slot->tts_isnull[modify->document->attnum - 1])
		cvx_row_document(modify, slot->tts_values[modify->document->attnum - 1],
						 NULL, out);
	else
		appendStringInfoString(out, modify->is_simple ? "{" : "{}");
	for (int i = 0; i < modify->ncolumns; i++)
	{
		CvxRowColumn *column = &modify->columns[i];
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
			cvx_row_encode(modify, column,
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
				cvx_row_fail_unlike(modify, column);
		}
		if (!is_null)
			given = bms_add_member(given, i);
		cvx_row_lay_over(modify, column, value.data, value.len, NULL, out);
	}
	if (modify->is_simple)
		appendStringInfoChar(out, '}');
}

/* A column's value as JSON; old is what the field had, or NULL. */
void
cvx_row_encode(CvxModify *modify, CvxRowColumn *column, Datum value,
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
 * Set a column's field in a document (value NULL: take it out), which begins
 * as that of a target, if there is one.  What is on the way and no object is
 * replaced only where the table says that a misfit is NULL.
 */
void
cvx_row_lay_over(CvxModify *modify, CvxRowColumn *column, const char *value,
				 int len, const CvxTargetRow *target, StringInfo doc)
{
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
				 errhint("Set field \"%s\" itself, or set the table's option on_conversion_error to 'null': values that are not objects are then replaced.",
						 field.data)));
	}
	cvx_document_set(doc, &column->path, value, len);
}

/* Two columns say different things of one field. */
void
cvx_row_fail_unlike(CvxModify *modify, CvxRowColumn *column)
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
void
cvx_row_document(CvxModify *modify, Datum value, const CvxTargetRow *target,
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

/* The canonical key of a document; 23502 when it has none. */
void
cvx_row_key(CvxModify *modify, const char *doc, int len, StringInfo key)
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
void
cvx_row_check_key(CvxModify *modify, const char *doc, int len)
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

/* Give a message, its key (NULL: none) and its row to the batch. */
void
cvx_row_put(CvxModify *modify, CvxMessage *message, const StringInfoData *key,
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
