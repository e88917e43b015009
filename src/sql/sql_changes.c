/*
 * sql_changes.c
 *		Which rows does convex_changes() give?
 *
 * PostgreSQL reads a function in FROM to its end before it gives the first row.
 * So convex_changes() is in SQL, which PostgreSQL inlines, and what it calls in
 * a select list gives a row at a time: a LIMIT, a cursor, EXISTS read as far as
 * they need.
 *
 * At most two pages are in memory: the one being converted and the one being
 * downloaded.
 *
 * Room: sql 7.2
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "parser/parse_func.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"

#include "ground/compat.h"
#include "protocol/api.h"
#include "protocol/walk.h"
#include "shape/options_read.h"
#include "shape/value_decode.h"
#include "sql/sql_api.h"

/* How far a call has come; lives in its multi_call_memory_ctx. */
typedef struct Changes
{
	/* fixed at the first row */
	CvxHttp    *http;
	CvxSelection selection;
	CvxPageWant want;
	CvxCodec   *codec;
	CvxErrorPlace place;
	int			max_pages;

	/* per page */
	CvxLog		log;
	int64		cursor;			/* of the page that came last */
	int			npages;
	CvxPage    *page;			/* being converted, or NULL */
	int			next_row;
	CvxCall    *call;			/* the next page's, or NULL */
	bool		is_over;		/* the last row was given */

	/* memory */
	MemoryContext page_cxt[2];	/* the next page's is the one at npages % 2 */
} Changes;

static void check_right(FunctionCallInfo fcinfo);
static Changes *begin_changes(FunctionCallInfo fcinfo);
static CvxTableName *read_table_names(ArrayType *array, int *ntables);
static bool next_row(Changes *changes, Datum *values, bool *nulls);
static bool has_next_page(const Changes *changes);
static void start_page(Changes *changes);
static void receive_page(Changes *changes);
static void take_row(Changes *changes, const CvxDoc *doc, Datum *values,
					 bool *nulls);
static Datum text_of_span(const CvxPage *page, CvxSpan span);

PG_FUNCTION_INFO_V1(convex_changes_stream);

/*
 * convex_changes_stream(server, after, tables, max_pages) -> setof (ts,
 * component, table_name, id, deleted, document)
 *
 * The revisions of the change log after a timestamp, and at the end a row that
 * has only the timestamp at which to go on.
 */
Datum
convex_changes_stream(PG_FUNCTION_ARGS)
{
	FuncCallContext *call;
	Datum		values[6];
	bool		nulls[6];

	if (SRF_IS_FIRSTCALL())
	{
		MemoryContext old;

		check_right(fcinfo);
		call = SRF_FIRSTCALL_INIT();
		old = MemoryContextSwitchTo(call->multi_call_memory_ctx);
		if (get_call_result_type(fcinfo, NULL, &call->tuple_desc) != TYPEFUNC_COMPOSITE)
			elog(ERROR, "return type must be a row type");
		call->tuple_desc = BlessTupleDesc(call->tuple_desc);
		call->user_fctx = begin_changes(fcinfo);
		MemoryContextSwitchTo(old);
	}
	call = SRF_PERCALL_SETUP();
	if (!next_row(call->user_fctx, values, nulls))
		SRF_RETURN_DONE(call);
	SRF_RETURN_NEXT(call,
					HeapTupleGetDatum(heap_form_tuple(call->tuple_desc, values,
													  nulls)));
}

/*
 * Whoever may call convex_changes() may call what it is made of, and nobody
 * else.
 */
static void
check_right(FunctionCallInfo fcinfo)
{
	static const Oid types[] = {NAMEOID, INT8OID, TEXTARRAYOID, INT4OID};
	char	   *schema = get_namespace_name(get_func_namespace(fcinfo->flinfo->fn_oid));
	Oid			function = LookupFuncName(list_make2(makeString(schema),
													 makeString("convex_changes")),
										  lengthof(types), types, false);
	AclResult	acl = cvx_function_aclcheck(function, GetUserId());

	if (acl != ACLCHECK_OK)
		aclcheck_error(acl, OBJECT_FUNCTION, "convex_changes");
}

/* In the current context.  The first page is asked for. */
static Changes *
begin_changes(FunctionCallInfo fcinfo)
{
	Changes    *changes = palloc0(sizeof(Changes));
	CvxTableOptions *options;
	ForeignServer *server;

	if (PG_ARGISNULL(0) || PG_ARGISNULL(1))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("server and after must not be null"),
				 errhint("Start with convex_snapshot(server).")));
	changes->cursor = PG_GETARG_INT64(1);
	if (changes->cursor < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("after must not be negative")));
	changes->selection.is_whole = true;
	changes->selection.is_everything = PG_ARGISNULL(2);
	if (!PG_ARGISNULL(2))
		changes->selection.tables = read_table_names(PG_GETARG_ARRAYTYPE_P_COPY(2),
													 &changes->selection.ntables);
	changes->max_pages = PG_ARGISNULL(3) ? INT_MAX : PG_GETARG_INT32(3);
	if (changes->max_pages < 1)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("max_pages must be positive")));

	server = cvx_sql_find_server(PG_GETARG_NAME(0));
	changes->http = cvx_sql_open_server(PG_GETARG_NAME(0));
	options = cvx_options_server(server->serverid);
	changes->codec = cvx_value_codec(JSONBOID, -1, options);
	changes->want.is_delta = true;
	changes->want.tables = changes->selection.tables;
	changes->want.ntables = changes->selection.ntables;
	changes->place.server = options->server_name;
	changes->place.relation = "convex_changes()";
	for (int i = 0; i < 2; i++)
		changes->page_cxt[i] = AllocSetContextCreate(CurrentMemoryContext,
													 "convex page",
													 ALLOCSET_DEFAULT_SIZES);
	cvx_log_begin(&changes->log, options->server_name, changes->cursor);
	start_page(changes);
	return changes;
}

/* {users,billing/invoices} as names; throws 22023 for impossible ones. */
static CvxTableName *
read_table_names(ArrayType *array, int *ntables)
{
	Datum	   *elements;
	bool	   *nulls;
	CvxTableName *tables;

	deconstruct_array(array, TEXTOID, -1, false, TYPALIGN_INT, &elements,
					  &nulls, ntables);
	tables = palloc0(sizeof(CvxTableName) * Max(*ntables, 1));
	for (int i = 0; i < *ntables; i++)
	{
		char	   *name = nulls[i] ? "" : TextDatumGetCString(elements[i]);
		char	   *slash = strrchr(name, '/');

		tables[i].component = slash ? pnstrdup(name, slash - name) : "";
		tables[i].table = slash ? slash + 1 : name;
		if (!cvx_options_is_table_name(tables[i].table))
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("\"%s\" cannot be the name of a Convex table",
							name),
					 errhint("Write table, or component/table.")));
	}
	if (*ntables == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("tables must not be empty"),
				 errhint("Leave tables out to read the changes of all.")));
	return tables;
}

/* In the current context; false when the last row was given. */
static bool
next_row(Changes *changes, Datum *values, bool *nulls)
{
	bool		has_row = !changes->is_over;

	cvx_error_push(&changes->place);
	while (has_row && (changes->page == NULL ||
					   (changes->next_row == changes->page->ndocs &&
						has_next_page(changes))))
	{
		if (changes->call == NULL)
			start_page(changes);
		receive_page(changes);
	}
	if (has_row && changes->next_row < changes->page->ndocs)
		take_row(changes, &changes->page->docs[changes->next_row++], values,
				 nulls);
	else if (has_row)
	{
		memset(nulls, true, sizeof(bool) * 6);
		values[0] = Int64GetDatum(changes->cursor);
		nulls[0] = false;
		changes->is_over = true;
	}

	/* The next page comes in while this one is used, but not too early. */
	if (!changes->is_over && changes->call == NULL && has_next_page(changes) &&
		(changes->npages > 1 ||
		 changes->next_row > changes->page->ndocs / 4))
		start_page(changes);
	cvx_error_pop(&changes->place);
	return has_row;
}

static bool
has_next_page(const Changes *changes)
{
	return changes->page->has_more && changes->npages < changes->max_pages;
}

/* Send for the page after the present one.  Does not wait for it. */
static void
start_page(Changes *changes)
{
	MemoryContext cxt = changes->page_cxt[changes->npages % 2];
	MemoryContext old;

	MemoryContextReset(cxt);
	old = MemoryContextSwitchTo(cxt);
	changes->call = cvx_api_document_deltas(changes->http, NULL,
											&changes->selection,
											changes->cursor);
	MemoryContextSwitchTo(old);
}

/* Wait for the page under way and make it the present one. */
static void
receive_page(Changes *changes)
{
	MemoryContext old = MemoryContextSwitchTo(changes->page_cxt[changes->npages % 2]);
	CvxPage    *page = cvx_api_page(changes->call, changes->http,
									&changes->want);

	MemoryContextSwitchTo(old);
	changes->npages++;

	/* Of the first page the caller's timestamp may be the reason. */
	if (!cvx_log_check(&changes->log, page) && changes->npages > 1)
		cvx_log_fail_behind(&changes->log, page);
	if (page->ts < changes->cursor)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("timestamp " INT64_FORMAT " is ahead of server \"%s\"",
						changes->cursor, changes->place.server),
				 errdetail("The server's head is at " INT64_FORMAT ".",
						   page->ts),
				 errhint("The timestamp may belong to another deployment.")));
	changes->cursor = page->ts;
	changes->call = NULL;
	changes->page = page;
	changes->next_row = 0;
}

/* One revision, in the current context. */
static void
take_row(Changes *changes, const CvxDoc *doc, Datum *values, bool *nulls)
{
	const CvxPage *page = changes->page;
	CvxErrorPlace *place = &changes->place;
	CvxValue	value;

	memset(nulls, false, sizeof(bool) * 6);
	values[0] = Int64GetDatum(doc->ts);
	values[1] = text_of_span(page, doc->component);
	values[2] = text_of_span(page, doc->table);
	values[3] = text_of_span(page, doc->id);
	values[4] = BoolGetDatum(doc->is_deleted);
	nulls[5] = doc->is_deleted;
	if (doc->is_deleted)
		return;
	cvx_value_read(page->text + doc->document.offset, doc->document.len,
				   &value);
	value.is_document = true;
	place->column = "document";
	place->field = "*";
	place->document = page->text + doc->id.offset;
	place->document_len = doc->id.len;
	cvx_value_decode(changes->codec, &value, &values[5], &nulls[5]);
	place->column = NULL;
}

static Datum
text_of_span(const CvxPage *page, CvxSpan span)
{
	return PointerGetDatum(cstring_to_text_with_len(page->text + span.offset,
													span.len));
}
