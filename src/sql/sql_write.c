/*
 * sql_write.c
 *		What may a SQL user change in Convex by a function?
 *
 * These functions send at once; ROLLBACK does not undo them.  Each needs USAGE
 * on the server and a user mapping.
 *
 * Room: sql 7.3
 */
#include "postgres.h"

#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "storage/latch.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/portal.h"
#include "utils/timestamp.h"

#include "ground/compat.h"
#include "wire/zip.h"
#include "protocol/api.h"
#include "protocol/schema.h"
#include "protocol/upload.h"
#include "shape/document.h"
#include "shape/encode.h"
#include "shape/options_read.h"
#include "write/clear.h"
#include "write/keycheck.h"
#include "write/queue.h"
#include "sql/sql_api.h"

/* Rows in memory at a time: each may be 1 MiB. */
#define FETCH_ROWS		32

/* Looks at an index that is being built. */
#define POLL_MS			250

#define MAX_KEY_FIELDS	15

/* One column of an import. */
typedef struct ImportColumn
{
	char	   *label;			/* "name": of the JSON, in UTF-8 */
	CvxEncoder *encoder;
} ImportColumn;

/* The row that is being encoded, for messages. */
typedef struct Row
{
	int64		number;
	const char *column;			/* or NULL */
} Row;

static char **read_names(ArrayType *array, int *nnames);
static List *read_key(ArrayType *array);
static void refuse_pending(ForeignServer *server, const char *function);
static void await_airbyte_index(CvxHttp *http, const char *table, List *paths,
								TimestampTz deadline);
static void await_fivetran_index(CvxHttp *http, const char *table,
								 const CvxKey *key, List *paths,
								 TimestampTz deadline);
static bool is_crowded(CvxCall *call);
static void await_turn(CvxHttp *http, const char *table, CvxCall *call,
					   TimestampTz deadline);
static void pause_polling(void);
static void tell_replaced(const char *table);
static void fail_unready(CvxHttp *http, const char *table, bool is_begun);
static TimestampTz deadline_of(const Interval *timeout);
static void check_component(CvxHttp *http, const char *component);
static void spool_query(CvxZip *zip, const char *query,
						const CvxTableOptions *options);
static ImportColumn *begin_columns(TupleDesc tupdesc,
								   const CvxTableOptions *options);
static void encode_row(StringInfo line, HeapTuple tuple, TupleDesc tupdesc,
					   ImportColumn *columns, Row *row);
static void row_context(void *arg);

PG_FUNCTION_INFO_V1(convex_clear_tables);
PG_FUNCTION_INFO_V1(convex_replace_tables);
PG_FUNCTION_INFO_V1(convex_add_primary_key_indexes);
PG_FUNCTION_INFO_V1(convex_primary_key_indexes_ready);
PG_FUNCTION_INFO_V1(convex_ensure_primary_key);
PG_FUNCTION_INFO_V1(convex_import);

/* Empty tables in one Convex transaction: (server, VARIADIC tables). */
Datum
convex_clear_tables(PG_FUNCTION_ARGS)
{
	ForeignServer *server = cvx_sql_find_server(PG_GETARG_NAME(0));
	int			ntables;
	char	  **tables = read_names(PG_GETARG_ARRAYTYPE_P(1), &ntables);
	CvxHttp    *http;
	CvxCall    *call;

	PreventCommandIfReadOnly("convex_clear_tables()");
	refuse_pending(server, "convex_clear_tables()");
	http = cvx_sql_open_server(PG_GETARG_NAME(0));
	cvx_clear_check_names(http, (const char *const *) tables, ntables);
	cvx_clear_announce(server->serverid);
	call = cvx_api_clear_tables(http, (const char *const *) tables, ntables);
	cvx_api_finish_write(call, http, NULL, NULL);
	PG_RETURN_VOID();
}

/* What Convex no longer does: it says so. */
Datum
convex_replace_tables(PG_FUNCTION_ARGS)
{
	CvxHttp    *http = cvx_sql_open_server(PG_GETARG_NAME(0));
	int			ntables;
	char	  **tables = read_names(PG_GETARG_ARRAYTYPE_P(1), &ntables);

	cvx_api_replace_tables(http, (const char *const *) tables, ntables);
	PG_RETURN_VOID();
}

/* Begin to build the index of the airbyte route: (server, table, fields). */
Datum
convex_add_primary_key_indexes(PG_FUNCTION_ARGS)
{
	CvxHttp    *http = cvx_sql_open_server(PG_GETARG_NAME(0));
	char	   *table = text_to_cstring(PG_GETARG_TEXT_PP(1));
	List	   *paths = read_key(PG_GETARG_ARRAYTYPE_P(2));

	if (!cvx_options_is_table_name(table))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("\"%s\" cannot be the name of a Convex table", table)));
	PreventCommandIfReadOnly("convex_add_primary_key_indexes()");
	cvx_api_expect_success(cvx_api_add_primary_key(http, table, paths), http);
	PG_RETURN_VOID();
}

/* Are the indexes of the airbyte route built?  (server, VARIADIC tables) */
Datum
convex_primary_key_indexes_ready(PG_FUNCTION_ARGS)
{
	CvxHttp    *http = cvx_sql_open_server(PG_GETARG_NAME(0));
	int			ntables;
	char	  **tables = read_names(PG_GETARG_ARRAYTYPE_P(1), &ntables);
	CvxCall    *call;

	for (int i = 0; i < ntables; i++)
		if (!cvx_options_is_table_name(tables[i]))
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("\"%s\" cannot be the name of a Convex table",
							tables[i])));
	call = cvx_api_primary_keys_ready(http, (const char *const *) tables,
									  ntables);
	PG_RETURN_BOOL(cvx_api_is_ready(call, http));
}

/*
 * Make the index that a keyed foreign table needs, and wait until it is built:
 * (foreign table, timeout, check).
 */
Datum
convex_ensure_primary_key(PG_FUNCTION_ARGS)
{
	Oid			relid = PG_GETARG_OID(0);
	TimestampTz deadline = deadline_of(PG_GETARG_INTERVAL_P(1));
	bool		is_checked = PG_GETARG_BOOL(2);
	CvxTableOptions *options;
	List	   *paths = NIL;
	NameData	server_name;
	CvxHttp    *http;

	if (get_rel_relkind(relid) != RELKIND_FOREIGN_TABLE)
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 get_rel_name(relid) ?
				 errmsg("\"%s\" is not a foreign table", get_rel_name(relid)) :
				 errmsg("there is no relation with OID %u", relid)));
	namestrcpy(&server_name,
			   GetForeignServer(GetForeignTable(relid)->serverid)->servername);
	(void) cvx_sql_find_server(&server_name);
	options = cvx_options_table(relid);
	if (options->key == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("foreign table %s has no option primary_key",
						options->relation),
				 errhint("Name the key's fields with ALTER FOREIGN TABLE ... OPTIONS (ADD primary_key '...').")));
	if (options->component[0] != '\0')
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("foreign table %s belongs to a component",
						options->relation),
				 errdetail("Convex imports into tables of the root component only.")));

	PreventCommandIfReadOnly("convex_ensure_primary_key()");
	for (int i = 0; i < options->key->n; i++)
		paths = lappend(paths, options->key->paths[i].label);
	http = cvx_sql_open_server(&server_name);
	if (is_checked)
		cvx_keycheck(http, options, cvx_keycheck_columns(relid, options));
	if (options->route == CVX_ROUTE_AIRBYTE)
		await_airbyte_index(http, options->table_name, paths, deadline);
	else
		await_fivetran_index(http, options->table_name, options->key, paths,
							 deadline);
	PG_RETURN_VOID();
}

/*
 * Import the rows of a query as documents of a table:
 * (server, table, query, mode, component) -> number of documents.
 */
Datum
convex_import(PG_FUNCTION_ARGS)
{
	static const char *const modes[] = {"requireEmpty", "replace", "append"};
	ForeignServer *server;
	CvxHttp    *http;
	char	   *table;
	char	   *query;
	char	   *mode;
	char	   *component;
	CvxZip	   *zip;
	int64		ndocuments;
	bool		is_known = false;

	for (int i = 0; i < 4; i++)
		if (PG_ARGISNULL(i))
			ereport(ERROR,
					(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
					 errmsg("server, table_name, query and mode of convex_import() must not be null")));
	server = cvx_sql_find_server(PG_GETARG_NAME(0));
	table = text_to_cstring(PG_GETARG_TEXT_PP(1));
	query = text_to_cstring(PG_GETARG_TEXT_PP(2));
	mode = text_to_cstring(PG_GETARG_TEXT_PP(3));
	component = PG_ARGISNULL(4) ? "" : text_to_cstring(PG_GETARG_TEXT_PP(4));

	if (!cvx_options_is_table_name(table))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("\"%s\" cannot be the name of a Convex table", table)));
	if (strcmp(mode, "replaceAll") == 0)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("import mode \"replaceAll\" is not supported"),
				 errdetail("It would drop every other table of the deployment."),
				 errhint("Use replace, for one table after the other.")));
	for (int i = 0; i < lengthof(modes); i++)
		is_known |= strcmp(mode, modes[i]) == 0;
	if (!is_known)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("unknown import mode \"%s\"", mode),
				 errhint("Modes are requireEmpty, replace and append.")));

	PreventCommandIfReadOnly("convex_import()");
	http = cvx_sql_open_server(PG_GETARG_NAME(0));
	if (component[0] != '\0')
		check_component(http, component);

	cvx_clear_announce(server->serverid);

	/* The whole file is made first: what it cannot hold is refused unsent. */
	zip = cvx_zip_create();
	cvx_zip_begin(zip, psprintf("%s/generated_schema.jsonl", table));
	cvx_zip_write(zip, "\"uniform\"\n", 10);
	cvx_zip_begin(zip, psprintf("%s/documents.jsonl", table));
	spool_query(zip, query, cvx_options_server(server->serverid));
	ndocuments = cvx_upload(http, zip, cvx_zip_finish(zip), mode, component);
	cvx_zip_free(zip);
	PG_RETURN_INT64(ndocuments);
}

/* ------------------------------------------------------------------------
 * Arguments
 * ------------------------------------------------------------------------
 */

/* Each name once; their rules are the callee's. */
static char **
read_names(ArrayType *array, int *nnames)
{
	Datum	   *elements;
	bool	   *nulls;
	int			nelements;
	char	  **names;

	deconstruct_array(array, TEXTOID, -1, false, TYPALIGN_INT, &elements,
					  &nulls, &nelements);
	names = palloc(sizeof(char *) * Max(nelements, 1));
	*nnames = 0;
	for (int i = 0; i < nelements; i++)
	{
		char	   *name;
		bool		is_new = true;

		if (nulls[i])
			ereport(ERROR,
					(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
					 errmsg("a table name must not be null")));
		name = TextDatumGetCString(elements[i]);
		for (int j = 0; j < *nnames; j++)
			is_new &= strcmp(names[j], name) != 0;
		if (is_new)
			names[(*nnames)++] = name;
	}
	if (*nnames == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("at least one table name is required")));
	return names;
}

/* The fields of a key, as a list of texts like "a.b". */
static List *
read_key(ArrayType *array)
{
	int			nfields;
	char	  **fields = read_names(array, &nfields);
	List	   *paths = NIL;

	if (nfields != ArrayGetNItems(ARR_NDIM(array), ARR_DIMS(array)))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("a field can stand in the key only once")));
	if (nfields > MAX_KEY_FIELDS)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("an index of Convex has at most %d fields",
						MAX_KEY_FIELDS)));
	for (int i = 0; i < nfields; i++)
	{
		const char *p = fields[i];

		for (;; p++)
		{
			char	   *segment = pnstrdup(p, strcspn(p, "."));

			if (!cvx_options_is_table_name(segment))
				ereport(ERROR,
						(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						 errmsg("\"%s\" cannot be a field of a key", fields[i]),
						 errhint("Key fields are identifiers that begin with a letter; a.b is a nested field.")));
			p += strlen(segment);
			if (*p == '\0')
				break;
		}
		paths = lappend(paths, fields[i]);
	}
	return paths;
}

/* What is sent now would overtake what the transaction has yet to send. */
static void
refuse_pending(ForeignServer *server, const char *function)
{
	if (cvx_queue_is_pending(server->serverid))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("%s sends at once, and this transaction has writes to server \"%s\" that are not sent yet",
						function, server->servername),
				 errhint("Call it in a transaction of its own, or use TRUNCATE.")));
}

static TimestampTz
deadline_of(const Interval *timeout)
{
	double		ms = timeout->time / 1000.0 +
		(timeout->day + timeout->month * 30.0) * 24 * 60 * 60 * 1000;

	if (ms < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("timeout must not be negative")));
	return TimestampTzPlusMilliseconds(GetCurrentTimestamp(),
									   (int64) Min(ms, 1e12));
}

/* ------------------------------------------------------------------------
 * Indexes
 * ------------------------------------------------------------------------
 */

static void
await_airbyte_index(CvxHttp *http, const char *table, List *paths,
					TimestampTz deadline)
{
	CvxCall    *call = cvx_api_primary_keys_ready(http, &table, 1);
	bool		was_ready = false;
	bool		is_ready;

	if (!cvx_api_has_code(call, 400, "MissingIndex"))
		was_ready = cvx_api_is_ready(call, http);
	while (is_crowded(call = cvx_api_add_primary_key(http, table, paths)))
		await_turn(http, table, call, deadline);
	cvx_api_expect_success(call, http);
	is_ready = cvx_api_is_ready(cvx_api_primary_keys_ready(http, &table, 1),
								http);

	/* The same index would have stayed as it was. */
	if (was_ready && !is_ready)
		tell_replaced(table);
	while (!is_ready)
	{
		if (GetCurrentTimestamp() >= deadline)
			fail_unready(http, table, true);
		pause_polling();
		call = cvx_api_primary_keys_ready(http, &table, 1);
		is_ready = cvx_api_is_ready(call, http);
		cvx_http_free(call);
	}
}

static void
await_fivetran_index(CvxHttp *http, const char *table, const CvxKey *key,
					 List *paths, TimestampTz deadline)
{
	CvxCall    *call;

	if (cvx_keycheck_has_other_index(http, table, key))
		tell_replaced(table);
	for (;;)
	{
		call = cvx_api_create_fivetran_table(http, table, paths);
		if (!cvx_http_wait_quietly(call, deadline))
		{
			CHECK_FOR_INTERRUPTS();
			fail_unready(http, table, true);
		}
		if (!is_crowded(call))
			break;
		await_turn(http, table, call, deadline);
	}
	cvx_api_expect_success(call, http);
}

/*
 * Convex turns a new index away while it writes down its progress with
 * another one, of whatever table.
 */
static bool
is_crowded(CvxCall *call)
{
	return cvx_api_has_code(call, 503, "OptimisticConcurrencyControlFailure");
}

static void
await_turn(CvxHttp *http, const char *table, CvxCall *call,
		   TimestampTz deadline)
{
	cvx_http_free(call);
	if (GetCurrentTimestamp() >= deadline)
		fail_unready(http, table, false);
	pause_polling();
}

static void
pause_polling(void)
{
	if (WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
				  POLL_MS, CVX_WAIT_EVENT) & WL_LATCH_SET)
		ResetLatch(MyLatch);
	CHECK_FOR_INTERRUPTS();
}

static void
tell_replaced(const char *table)
{
	ereport(NOTICE,
			(errmsg("the primary key index of Convex table \"%s\" replaces one with other fields",
					table)));
}

static void
fail_unready(CvxHttp *http, const char *table, bool is_begun)
{
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("the primary key index of Convex table \"%s\" was not ready in time",
					table),
			 is_begun ?
			 errdetail("Convex server \"%s\" goes on building it.",
					   cvx_http_remote(http)->server_name) :
			 errdetail("Convex server \"%s\" is building other indexes, and has not begun with it.",
					   cvx_http_remote(http)->server_name),
			 errhint("Call convex_ensure_primary_key() again, or with a longer timeout.")));
}

/* ------------------------------------------------------------------------
 * Import
 * ------------------------------------------------------------------------
 */

/* Convex would make a component that it does not have, and mount it nowhere. */
static void
check_component(CvxHttp *http, const char *component)
{
	bool		is_readable;
	List	   *components = cvx_schema_components(cvx_api_tables(http,
																  &is_readable));
	StringInfoData known;
	ListCell   *lc;

	if (!is_readable)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("the components of Convex server \"%s\" cannot be listed, so \"%s\" cannot be checked",
						cvx_http_remote(http)->server_name, component),
				 errhint("Use a deploy key that allows deployment:data:view.")));
	initStringInfo(&known);
	foreach(lc, components)
	{
		char	   *name = lfirst(lc);

		if (strcmp(name, component) == 0)
			return;
		if (name[0] != '\0')
			appendStringInfo(&known, "%s%s", known.len > 0 ? ", " : "",
							 quote_identifier(name));
	}
	ereport(ERROR,
			(errcode(ERRCODE_FDW_SCHEMA_NOT_FOUND),
			 errmsg("Convex server \"%s\" has no component \"%s\" with tables",
					cvx_http_remote(http)->server_name, component),
			 errhint("Known are: %s.", known.len > 0 ? known.data : "none")));
}

/* The rows of a query, as lines of the member that was begun. */
static void
spool_query(CvxZip *zip, const char *query, const CvxTableOptions *options)
{
	ErrorContextCallback callback = {error_context_stack, row_context};
	MemoryContext cxt;
	SPIPlanPtr	plan;
	Portal		portal;
	ImportColumn *columns;
	StringInfoData line;
	Row			row = {0};

	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	plan = SPI_prepare(query, 0, NULL);
	if (plan == NULL || !SPI_is_cursor_plan(plan))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("query of convex_import() must be one statement that returns rows"),
				 errhint("Write a SELECT.")));
	portal = SPI_cursor_open(NULL, plan, NULL, NULL, false);
	columns = begin_columns(portal->tupDesc, options);
	initStringInfo(&line);
	cxt = AllocSetContextCreate(CurrentMemoryContext, "convex row",
								ALLOCSET_DEFAULT_SIZES);
	for (;;)
	{
		SPI_cursor_fetch(portal, true, FETCH_ROWS);
		if (SPI_processed == 0)
			break;
		callback.arg = &row;
		error_context_stack = &callback;
		for (uint64 i = 0; i < SPI_processed; i++)
		{
			MemoryContext old = MemoryContextSwitchTo(cxt);

			CHECK_FOR_INTERRUPTS();
			resetStringInfo(&line);
			row.number++;
			encode_row(&line, SPI_tuptable->vals[i], portal->tupDesc, columns,
					   &row);
			MemoryContextSwitchTo(old);
			MemoryContextReset(cxt);
			cvx_zip_write(zip, line.data, line.len);
		}
		error_context_stack = callback.previous;
		SPI_freetuptable(SPI_tuptable);
	}
	SPI_freetuptable(SPI_tuptable);
	SPI_cursor_close(portal);
	SPI_finish();
}

static ImportColumn *
begin_columns(TupleDesc tupdesc, const CvxTableOptions *options)
{
	ImportColumn *columns = palloc0(sizeof(ImportColumn) * Max(tupdesc->natts, 1));

	for (int i = 0; i < tupdesc->natts; i++)
	{
		Form_pg_attribute attr = TupleDescAttr(tupdesc, i);
		char	   *name = NameStr(attr->attname);
		StringInfoData label;

		for (int j = 0; j < i; j++)
			if (strcmp(NameStr(TupleDescAttr(tupdesc, j)->attname), name) == 0)
				ereport(ERROR,
						(errcode(ERRCODE_DUPLICATE_COLUMN),
						 errmsg("query of convex_import() has two columns \"%s\"",
								name),
						 errhint("Give each column a name of its own: they become the fields.")));
		if (!cvx_options_is_field_name(name, true))
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_NAME),
					 errmsg("column \"%s\" cannot be a field of a Convex document",
							name),
					 errhint("Convex field names are printable ASCII and begin neither with \"$\" nor with \"_\" (except _id and _creationTime).")));
		initStringInfo(&label);
		cvx_json_write_string(&label, name, strlen(name));
		appendStringInfoChar(&label, ':');
		columns[i].label = label.data;
		columns[i].encoder = cvx_encoder_create(attr->atttypid, attr->atttypmod,
												CVX_SYNTAX_EXPORT,
												options->json_values, NULL);
	}
	return columns;
}

/* One document; columns that are NULL are left out. */
static void
encode_row(StringInfo line, HeapTuple tuple, TupleDesc tupdesc,
		   ImportColumn *columns, Row *row)
{
	appendStringInfoChar(line, '{');
	for (int i = 0; i < tupdesc->natts; i++)
	{
		bool		isnull;
		Datum		value = SPI_getbinval(tuple, tupdesc, i + 1, &isnull);

		if (isnull)
			continue;
		row->column = NameStr(TupleDescAttr(tupdesc, i)->attname);
		if (line->len > 1)
			appendStringInfoChar(line, ',');
		appendStringInfoString(line, columns[i].label);
		cvx_encode(columns[i].encoder, value, line);
	}
	row->column = NULL;
	appendStringInfoChar(line, '}');
	(void) cvx_document_measure(line->data, line->len);
	appendStringInfoChar(line, '\n');
}

/* Where an error is. */
static void
row_context(void *arg)
{
	Row		   *row = (Row *) arg;

	if (row->column)
		errcontext("row " INT64_FORMAT " of the query of convex_import(), column \"%s\"",
				   row->number, row->column);
	else
		errcontext("row " INT64_FORMAT " of the query of convex_import()",
				   row->number);
}
