/*
 * keycheck.c
 *		Can these fields be the key of a table's documents?
 *
 * Reads the key fields of all documents at one snapshot.  Convex's hidden
 * indexes find a document by its key; they do not enforce that there is one,
 * or only one.
 *
 * Keys are compared as the server writes them: one value has one text.
 * Sorting spills to disk beyond work_mem.
 *
 * Room: write 4.8
 */
#include "postgres.h"

#include "access/table.h"
#include "access/tupdesc.h"
#include "catalog/pg_operator.h"
#include "catalog/pg_type.h"
#include "executor/tuptable.h"
#include "miscadmin.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/tuplesort.h"

#include "ground/compat.h"
#include "ground/redact.h"
#include "protocol/api.h"
#include "protocol/walk.h"
#include "shape/document.h"
#include "shape/value_read.h"
#include "write/keycheck.h"

/* Neither can be part of a JSON text or of an id. */
#define AFTER_VALUE		'\001'
#define AFTER_KEY		'\002'

#define MAX_ID			100

/* Does a row have all fields of the index? */
typedef enum ProbeResult
{
	PROBE_UNKNOWN,				/* no index, or it is being built */
	PROBE_LACKING,
	PROBE_COMPLETE
} ProbeResult;

/* One field of the key. */
typedef struct KeyField
{
	const CvxPath *path;
	int			field;			/* of its first name among the check's fields */
	CvxKind		kind;			/* of the first document */
	char		kind_id[MAX_ID];	/* that document; "" before it */
	char		missing_id[MAX_ID]; /* first document without it; or "" */
} KeyField;

typedef struct KeyCheck
{
	/* fixed at begin */
	const char *table;
	KeyField   *keys;
	int			nkeys;
	const char **fields;		/* top-level, in the order of strcmp */
	int		   *field_lens;
	int			nfields;
	CvxSpan    *spans;			/* of one document */

	/* the keys seen */
	Tuplesortstate *sort;
	TupleDesc	tupdesc;
	TupleTableSlot *slot;		/* going in */
	TupleTableSlot *sorted;		/* coming out */
	StringInfoData entry;		/* key, AFTER_KEY, id */
} KeyCheck;

/* Checks that need not be made again, as texts in TopMemoryContext. */
static List *known = NIL;

static void begin_fields(KeyCheck *check, const CvxKey *key);
static void read_pages(KeyCheck *check, CvxHttp *http);
static void take_document(KeyCheck *check, const CvxPage *page, int n);
static bool find_value(const KeyField *key, const CvxPage *page, CvxSpan span,
					   CvxValue *value);
static void note_missing(KeyCheck *check, KeyField *key, const char *id);
static void fail_missing(KeyCheck *check, KeyField *key, const char *id);
static ProbeResult lacks_field(CvxHttp *http, const char *table,
							   const CvxKey *key, int left_out);
static void find_duplicates(KeyCheck *check);
static void check_kind(const CvxTableOptions *options, int field,
					   const CvxKeyColumn *column, CvxKind kind,
					   const char *document);
static int	find_other(const CvxTableOptions *options,
					   const CvxKeyColumn *columns, const char *doc,
					   size_t len, CvxKind *kind);
static char *name_check(const CvxTableOptions *options,
						const CvxKeyColumn *columns);
static void note_known(const CvxTableOptions *options,
					   const CvxKeyColumn *columns);
static char *name_key(KeyCheck *check);
static char *printable(const char *id);

/* The columns that write the key's fields, in its order; in the current context. */
CvxKeyColumn *
cvx_keycheck_columns(Oid relid, const CvxTableOptions *options)
{
	const CvxKey *key = options->key;
	CvxKeyColumn *columns = palloc0(sizeof(CvxKeyColumn) * key->n);
	Relation	rel = table_open(relid, AccessShareLock);

	for (int i = 0; i < RelationGetNumberOfAttributes(rel); i++)
	{
		Form_pg_attribute att = TupleDescAttr(RelationGetDescr(rel), i);
		CvxColumnOptions *column;
		CvxPath		path;

		if (att->attisdropped)
			continue;
		column = cvx_options_column(relid, att->attnum);
		if (column->is_document)
			continue;
		path.names = &column->field;
		path.n = 1;
		if (column->is_path)
			path = cvx_options_path(column->field);
		for (int k = 0; k < key->n; k++)
		{
			CvxEncoder *encoder;
			bool		is_same = path.n == key->paths[k].n;

			for (int n = 0; is_same && n < path.n; n++)
				is_same = strcmp(path.names[n], key->paths[k].names[n]) == 0;
			if (!is_same)
				continue;
			encoder = cvx_encoder_create(att->atttypid, att->atttypmod,
										 CVX_SYNTAX_ENCODED,
										 options->json_values,
										 column->convex_type);
			if (!cvx_encoder_kind(encoder, &columns[k].kind))
				continue;
			columns[k].name = pstrdup(NameStr(att->attname));
			columns[k].encoder = encoder;
		}
	}
	table_close(rel, AccessShareLock);
	return columns;
}

/*
 * Read a table of the root component and throw when the fields cannot be its
 * key: 23502 for a document without it, 42804 for values of different types or
 * of another than the foreign table's columns write, 23505 for two documents
 * with the same key.  Names the documents.
 */
void
cvx_keycheck(CvxHttp *http, const CvxTableOptions *options,
			 const CvxKeyColumn *columns)
{
	const CvxKey *key = options->key;
	KeyCheck	check = {0};
	AttrNumber	attno = 1;
	Oid			less = ByteaLessOperator;
	Oid			collation = InvalidOid;
	bool		nulls_first = false;

	check.table = options->table_name;
	begin_fields(&check, key);
	check.spans = palloc(sizeof(CvxSpan) * Max(check.nfields, 1));
	check.tupdesc = CreateTemplateTupleDesc(1);
	TupleDescInitEntry(check.tupdesc, 1, "key", BYTEAOID, -1, 0);
	check.slot = MakeSingleTupleTableSlot(check.tupdesc, &TTSOpsVirtual);
	check.sorted = MakeSingleTupleTableSlot(check.tupdesc,
											&TTSOpsMinimalTuple);
	check.sort = tuplesort_begin_heap(check.tupdesc, 1, &attno, &less,
									  &collation, &nulls_first, work_mem,
									  NULL, 0);
	initStringInfo(&check.entry);

	read_pages(&check, http);
	for (int i = 0; i < check.nkeys; i++)
		if (check.keys[i].missing_id[0] != '\0')
			fail_missing(&check, &check.keys[i], NULL);
	for (int i = 0; i < check.nkeys; i++)
		if (check.keys[i].kind_id[0] != '\0')
			check_kind(options, i, &columns[i], check.keys[i].kind,
					   printable(check.keys[i].kind_id));
	find_duplicates(&check);
	ExecDropSingleTupleTableSlot(check.slot);
	ExecDropSingleTupleTableSlot(check.sorted);
	tuplesort_end(check.sort);
}

/*
 * Has this session seen that the types of the key are those that the columns
 * write, or that it cannot see them?
 */
bool
cvx_keycheck_is_known(const CvxTableOptions *options,
					  const CvxKeyColumn *columns)
{
	char	   *name = name_check(options, columns);
	ListCell   *lc;
	bool		is_known = true;

	for (int i = 0; i < options->key->n; i++)
		is_known &= columns[i].name == NULL;
	foreach(lc, known)
		is_known |= strcmp(lfirst(lc), name) == 0;
	pfree(name);
	return is_known;
}

/* A document has been read that the session can learn the key's types from. */
void
cvx_keycheck_saw(const CvxTableOptions *options, const CvxKeyColumn *columns,
				 const char *doc, size_t len)
{
	CvxKind		kind;

	if (find_other(options, columns, doc, len, &kind) < 0)
		note_known(options, columns);
}

/*
 * Before the first row that a session inserts by a key: throw 42804 when a
 * document's key has another type than the columns write.  One document is
 * looked at, which costs Convex one row, however it stores its tables; a page
 * of the export may cost seconds.  What the server does not tell is not asked
 * for again.
 */
void
cvx_keycheck_look(const CvxTableOptions *options, const CvxKeyColumn *columns,
				  Oid userid)
{
	char	   *names[] = {"value", "page"};
	CvxPath		path = {names, 2, NULL};
	CvxPath		id = {(char *[]) {"_id"}, 1, NULL};
	CvxHttp    *http = cvx_http_open(cvx_options_remote(options->serverid,
														userid));
	char	   *answer = cvx_api_one_document(http, options->table_name);
	CvxText		page;
	CvxText		doc;
	CvxText		value;
	CvxJson		json;

	if (answer != NULL && cvx_document_get(answer, strlen(answer), &path, &page) &&
		page.data[0] == '[')
	{
		cvx_json_within(&json, page.data, page.len);
		cvx_json_open(&json, '[');
		if (cvx_json_element(&json, true))
		{
			cvx_json_skip(&json, &doc);

			/* The function also puts errors there. */
			if (cvx_document_get(doc.data, doc.len, &id, &value))
				cvx_keycheck_document(options, columns, doc.data, doc.len);
		}
	}
	note_known(options, columns);
}

/* Throws 42804 when a document's key has another type than the columns write. */
void
cvx_keycheck_document(const CvxTableOptions *options,
					  const CvxKeyColumn *columns, const char *doc, size_t len)
{
	CvxPath		path = {(char *[]) {"_id"}, 1, NULL};
	CvxText		id;
	CvxValue	value = {0};
	CvxKind		kind;
	int			field = find_other(options, columns, doc, len, &kind);

	if (field < 0)
		return;
	if (cvx_document_get(doc, len, &path, &id))
		cvx_value_read(id.data, id.len, &value);
	check_kind(options, field, &columns[field], kind,
			   cvx_redact_excerpt(value.text.data ? value.text.data : "",
								  value.text.len));
}

/*
 * Is the table's index of the fivetran route certainly one of other fields?
 * Convex does not list it, but it says whether a row lacks a field of it.  The
 * order of the fields stays hidden.
 */
bool
cvx_keycheck_has_other_index(CvxHttp *http, const char *table,
							 const CvxKey *key)
{
	if (lacks_field(http, table, key, -1) == PROBE_LACKING)
		return true;			/* a field that is none of the key's */
	for (int i = 0; i < key->n && key->n > 1; i++)
	{
		ProbeResult result = lacks_field(http, table, key, i);

		if (result == PROBE_UNKNOWN)
			return false;
		if (result == PROBE_COMPLETE)
			return true;		/* none of the index's */
	}
	return false;
}

static int
compare_names(const void *a, const void *b)
{
	return strcmp(*(const char *const *) a, *(const char *const *) b);
}

static void
begin_fields(KeyCheck *check, const CvxKey *key)
{
	check->keys = palloc0(sizeof(KeyField) * key->n);
	check->fields = palloc(sizeof(char *) * key->n);
	check->field_lens = palloc(sizeof(int) * key->n);
	check->nkeys = check->nfields = key->n;
	for (int i = 0; i < key->n; i++)
	{
		check->keys[i].path = &key->paths[i];
		check->fields[i] = key->paths[i].names[0];
	}

	/* Each name once. */
	qsort(check->fields, check->nfields, sizeof(char *), compare_names);
	for (int i = 0, n = check->nfields; i < n; i++)
	{
		if (i == 0)
			check->nfields = 0;
		else if (strcmp(check->fields[check->nfields - 1], check->fields[i]) == 0)
			continue;
		check->fields[check->nfields++] = check->fields[i];
	}
	for (int f = 0; f < check->nfields; f++)
	{
		check->field_lens[f] = strlen(check->fields[f]);
		for (int i = 0; i < check->nkeys; i++)
			if (strcmp(check->keys[i].path->names[0], check->fields[f]) == 0)
				check->keys[i].field = f;
	}
}

/* The walk over the table, at the snapshot of its first page. */
static void
read_pages(KeyCheck *check, CvxHttp *http)
{
	CvxTableName name = {"", check->table};
	CvxSelection selection = {.tables = &name,.ntables = 1,.fields = check->fields,.nfields = check->nfields};
	CvxPageWant want = {.tables = &name,.ntables = 1,.fields = check->fields,.field_lens = check->field_lens,.nfields = check->nfields};
	MemoryContext old = CurrentMemoryContext;
	MemoryContext page_cxt = AllocSetContextCreate(old, "convex page",
												   ALLOCSET_DEFAULT_SIZES);
	CvxPage    *page;
	CvxWalk    *walk = cvx_walk_open(cvx_http_remote(http)->server_name, 1);

	do
	{
		MemoryContextReset(page_cxt);
		MemoryContextSwitchTo(page_cxt);
		page = cvx_api_page(cvx_api_list_snapshot(http, NULL, &selection,
												  walk->snapshot, walk->cursor),
							http, &want);
		cvx_walk_check(walk, page);
		for (int i = 0; i < page->ndocs; i++)
		{
			CHECK_FOR_INTERRUPTS();
			take_document(check, page, i);
		}
	} while (page->has_more);
	MemoryContextSwitchTo(old);
	MemoryContextDelete(page_cxt);
	cvx_walk_close(walk);
}

static void
take_document(KeyCheck *check, const CvxPage *page, int n)
{
	const CvxDoc *doc = &page->docs[n];
	char		id[MAX_ID];
	bool		is_complete = true;
	bytea	   *entry;

	snprintf(id, sizeof(id), "%.*s", (int) doc->id.len,
			 page->text + doc->id.offset);
	resetStringInfo(&check->entry);
	cvx_page_spans(page, doc, check->spans);
	for (int i = 0; i < check->nkeys; i++)
	{
		KeyField   *key = &check->keys[i];
		CvxValue	value;

		if (!find_value(key, page, check->spans[key->field], &value) ||
			value.kind == CVX_KIND_NULL)
		{
			note_missing(check, key, id);
			is_complete = false;
			continue;
		}
		if (key->kind_id[0] == '\0')
		{
			key->kind = value.kind;
			strcpy(key->kind_id, id);
		}
		else if (value.kind != key->kind)
			ereport(ERROR,
					(errcode(ERRCODE_DATATYPE_MISMATCH),
					 errmsg("field \"%s\" of Convex table \"%s\" cannot be a key: its values have different types",
							key->path->label, check->table),
					 errdetail("Document \"%s\" has %s, document \"%s\" has %s.",
							   printable(key->kind_id),
							   cvx_value_kind_name(key->kind),
							   printable(id),
							   cvx_value_kind_name(value.kind)),
					 errhint("Give the field one type in all documents.")));

		/* Convex finds it by a shorter key, too: see fdw_modify.c. */
		if (i == check->nkeys - 1 && cvx_value_has_nul(&value))
			ereport(ERROR,
					(errcode(ERRCODE_FDW_INVALID_DATA_TYPE),
					 errmsg("field \"%s\" of Convex table \"%s\" cannot be the last field of a key: a value has a zero byte",
							key->path->label, check->table),
					 errdetail("Convex would take the value of document \"%s\" for the continuation of a shorter key.",
							   printable(id)),
					 errhint("Let another field be the last one, or change the document.")));
		appendBinaryStringInfo(&check->entry, value.raw.data, value.raw.len);
		appendStringInfoChar(&check->entry, AFTER_VALUE);
	}
	if (!is_complete)
		return;
	appendStringInfoChar(&check->entry, AFTER_KEY);
	appendStringInfoString(&check->entry, id);

	entry = palloc(VARHDRSZ + check->entry.len);
	SET_VARSIZE(entry, VARHDRSZ + check->entry.len);
	memcpy(VARDATA(entry), check->entry.data, check->entry.len);
	ExecClearTuple(check->slot);
	check->slot->tts_values[0] = PointerGetDatum(entry);
	check->slot->tts_isnull[0] = false;
	ExecStoreVirtualTuple(check->slot);
	tuplesort_puttupleslot(check->sort, check->slot);
	pfree(entry);
}

/* The value at the end of the key's path; false when it is absent. */
static bool
find_value(const KeyField *key, const CvxPage *page, CvxSpan span,
		   CvxValue *value)
{
	const CvxPath *path = key->path;
	CvxPath		rest = {path->names + 1, path->n - 1, path->label};
	CvxText		text;

	if (span.len == 0 ||
		!cvx_document_get(page->text + span.offset, span.len, &rest, &text))
		return false;
	cvx_value_read(text.data, text.len, value);
	return true;
}

/* Reports the second one, so that two can be named. */
static void
note_missing(KeyCheck *check, KeyField *key, const char *id)
{
	if (key->missing_id[0] != '\0')
		fail_missing(check, key, id);
	strcpy(key->missing_id, id);
}

/* id: a second document, or NULL */
static void
fail_missing(KeyCheck *check, KeyField *key, const char *id)
{
	ereport(ERROR,
			(errcode(ERRCODE_NOT_NULL_VIOLATION),
			 errmsg("field \"%s\" of Convex table \"%s\" cannot be a key: not every document has it",
					key->path->label, check->table),
			 id ? errdetail("It is absent or null in the documents \"%s\" and \"%s\".",
							printable(key->missing_id),
							printable(id)) :
			 errdetail("It is absent or null in the document \"%s\".",
					   printable(key->missing_id)),
			 errhint("Give every document a value, or choose another key.")));
}

/* A row with values that no document has, without one of the key's fields. */
static ProbeResult
lacks_field(CvxHttp *http, const char *table, const CvxKey *key, int left_out)
{
	StringInfoData row;
	CvxCall    *call;
	char		value[64];
	uint64		random[2];

	if (!pg_strong_random(random, sizeof(random)))
		return PROBE_UNKNOWN;
	snprintf(value, sizeof(value), "\"" UINT64_FORMAT "-" UINT64_FORMAT "\"",
			 random[0], random[1]);
	initStringInfo(&row);
	appendStringInfoString(&row, "{}");
	for (int i = 0; i < key->n; i++)
	{
		if (i != left_out)
			cvx_document_set(&row, &key->paths[i], value, strlen(value));
	}
	call = cvx_api_probe_fivetran_key(http, table, row.data);
	if (cvx_api_has_code(call, 404, "FivetranMissingUpdatedRow"))
		return PROBE_COMPLETE;
	return cvx_api_has_code(call, 400, "MissingValueForFivetranPrimaryKeyIndex") ?
		PROBE_LACKING : PROBE_UNKNOWN;
}

static void
find_duplicates(KeyCheck *check)
{
	StringInfoData before;

	initStringInfo(&before);
	tuplesort_performsort(check->sort);
	while (tuplesort_gettupleslot(check->sort, true, false, check->sorted,
								  NULL))
	{
		bool		isnull;
		Datum		datum = slot_getattr(check->sorted, 1, &isnull);
		bytea	   *entry = DatumGetByteaPP(datum);
		const char *key = VARDATA_ANY(entry);
		int			len = VARSIZE_ANY_EXHDR(entry);
		const char *end = memchr(key, AFTER_KEY, len);
		int			keylen = end - key + 1;

		CHECK_FOR_INTERRUPTS();
		if (before.len > keylen && memcmp(before.data, key, keylen) == 0)
			ereport(ERROR,
					(errcode(ERRCODE_UNIQUE_VIOLATION),
					 errmsg("%s of Convex table \"%s\" cannot be a key: two documents have the same one",
							name_key(check), check->table),
					 errdetail("The documents are \"%s\" and \"%s\".",
							   printable(before.data + keylen),
							   printable(pnstrdup(key + keylen,
														 len - keylen))),
					 errhint("Delete or change one of the documents.")));
		resetStringInfo(&before);
		appendBinaryStringInfo(&before, key, len);
	}
}

/*
 * A key of another type is another key.  Throws 42804 when a document's is not
 * of the type that the column writes.
 */
static void
check_kind(const CvxTableOptions *options, int field,
		   const CvxKeyColumn *column, CvxKind kind, const char *document)
{
	const char *wanted = cvx_value_kind_name(kind);

	if (column->name == NULL || column->kind == kind)
		return;
	ereport(ERROR,
			(errcode(ERRCODE_DATATYPE_MISMATCH),
			 errmsg("column \"%s\" of foreign table %s writes %s, and the key of Convex table \"%s\" has %s",
					column->name, options->relation,
					cvx_value_kind_name(column->kind), options->table_name,
					wanted),
			 errdetail("Field \"%s\" of document \"%s\" has %s.  With keys of another type, INSERT would make a second document where it is to replace one.",
					   options->key->paths[field].label, document, wanted),
			 cvx_encoder_may_be(column->encoder, kind) ?
			 errhint("Set the column's option convex_type to '%s'.", wanted) :
			 errhint("Give the column a type that is %s in Convex.", wanted)));
}

/*
 * The first field of the key that has another type in the document than its
 * column writes; -1 when there is none.
 */
static int
find_other(const CvxTableOptions *options, const CvxKeyColumn *columns,
		   const char *doc, size_t len, CvxKind *kind)
{
	for (int i = 0; i < options->key->n; i++)
	{
		CvxText		text;
		CvxValue	value;

		if (columns[i].name == NULL ||
			!cvx_document_get(doc, len, &options->key->paths[i], &text))
			continue;
		cvx_value_read(text.data, text.len, &value);
		*kind = value.kind;
		if (value.kind != CVX_KIND_NULL && value.kind != columns[i].kind)
			return i;
	}
	return -1;
}

/* The server, the table, the key, and what the columns write. */
static char *
name_check(const CvxTableOptions *options, const CvxKeyColumn *columns)
{
	StringInfoData buf;

	initStringInfo(&buf);
	appendStringInfo(&buf, "%u %s %s", options->serverid, options->table_name,
					 options->key->text);
	for (int i = 0; i < options->key->n; i++)
		appendStringInfo(&buf, " %s", columns[i].name == NULL ? "any" :
						 cvx_value_kind_name(columns[i].kind));
	return buf.data;
}

static void
note_known(const CvxTableOptions *options, const CvxKeyColumn *columns)
{
	MemoryContext old;
	char	   *name;

	if (cvx_keycheck_is_known(options, columns))
		return;
	name = name_check(options, columns);
	old = MemoryContextSwitchTo(TopMemoryContext);
	known = lappend(known, pstrdup(name));
	MemoryContextSwitchTo(old);
	pfree(name);
}

/* field "a", or fields "a", "b" */
static char *
name_key(KeyCheck *check)
{
	StringInfoData buf;

	initStringInfo(&buf);
	appendStringInfoString(&buf, check->nkeys > 1 ? "fields" : "field");
	for (int i = 0; i < check->nkeys; i++)
		appendStringInfo(&buf, "%s \"%s\"", i > 0 ? "," : "",
						 check->keys[i].path->label);
	return buf.data;
}

/* An id is foreign text, too. */
static char *
printable(const char *id)
{
	return cvx_redact_excerpt(id, strlen(id));
}
