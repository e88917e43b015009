/*
 * rowmap.c
 *		Which field fills which column?
 *
 * A row map knows the needed columns of one foreign table: the top-level
 * fields they come from, which become the request's selection, and the codec
 * of each.  Columns that nobody needs are NULL.
 *
 * Room: shape 3.12
 */
#include "postgres.h"

#include "utils/builtins.h"
#include "utils/lsyscache.h"

#include "shape/rowmap.h"
#include "shape/value_decode.h"

typedef struct Column
{
	AttrNumber	attnum;
	char	   *name;
	char	   *label;			/* the field or path, for messages */
	int			field;			/* index in fields; -1: whole document */
	char	  **path;			/* further segments into an object */
	int			npath;
	CvxCodec   *codec;
} Column;

struct CvxRowMap
{
	int			natts;
	int			ncolumns;
	Column	   *columns;
	int			nfields;
	const char **fields;		/* strcmp order */
	int		   *field_lens;
	CvxSpan    *spans;			/* of the fields of one document */
	bool		is_whole;
};

static void add_column(CvxRowMap *map, Oid relid, Form_pg_attribute att,
					   const CvxTableOptions *options);
static void check_field(const Column *column, const char *field,
						const CvxTableOptions *options);
static int	add_field(CvxRowMap *map, const char *field);
static int	compare_names(const void *a, const void *b);
static bool find_value(const Column *column, const char *data, size_t len,
					   CvxValue *value);

/*
 * A map of the columns with these numbers (NULL: all), in the current context,
 * which must outlive it; the extra fields are asked for, too.  Throws HV007 for a column that can show no field.
 */
CvxRowMap *
cvx_rowmap_create(Oid relid, TupleDesc tupdesc, const Bitmapset *attnums,
				  const CvxTableOptions *options, List *extra_fields)
{
	CvxRowMap  *map = palloc0(sizeof(CvxRowMap));
	ListCell   *lc;

	map->natts = tupdesc->natts;
	map->columns = palloc0(sizeof(Column) * Max(tupdesc->natts, 1));
	map->fields = palloc0(sizeof(char *) *
						  (tupdesc->natts + list_length(extra_fields) + 1));
	for (int i = 0; i < tupdesc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(tupdesc, i);

		if (!att->attisdropped &&
			(attnums == NULL || bms_is_member(att->attnum, attnums)))
			add_column(map, relid, att, options);
	}
	foreach(lc, extra_fields)
		(void) add_field(map, lfirst(lc));

	/* Sort the fields; columns refer to them by number. */
	qsort(map->fields, map->nfields, sizeof(char *), compare_names);
	map->field_lens = palloc(sizeof(int) * Max(map->nfields, 1));
	map->spans = palloc(sizeof(CvxSpan) * Max(map->nfields, 1));
	for (int i = 0; i < map->nfields; i++)
		map->field_lens[i] = strlen(map->fields[i]);
	for (int i = 0; i < map->ncolumns; i++)
	{
		Column	   *column = &map->columns[i];

		for (int f = 0; column->field >= 0 && f < map->nfields; f++)
			if (strcmp(column->path[0], map->fields[f]) == 0)
				column->field = f;
	}
	return map;
}

/* The top-level fields that the columns come from, in byte order. */
const char *const *
cvx_rowmap_fields(const CvxRowMap *map, int *nfields)
{
	*nfields = map->nfields;
	return map->fields;
}

const int *
cvx_rowmap_field_lens(const CvxRowMap *map)
{
	return map->field_lens;
}

/* Does a column show the whole document? */
bool
cvx_rowmap_is_whole(const CvxRowMap *map)
{
	return map->is_whole;
}

/*
 * Convert one document of a page into values and nulls of all attributes, in
 * the current context.  While a value is converted its place is in *place,
 * which the caller has pushed.
 */
void
cvx_rowmap_decode(CvxRowMap *map, const CvxPage *page, int row,
				  Datum *values, bool *nulls, CvxErrorPlace *place)
{
	const CvxDoc *doc = &page->docs[row];
	const CvxSpan *spans = map->spans;

	Assert(page->nfields == map->nfields);
	cvx_page_spans(page, doc, map->spans);
	memset(nulls, true, map->natts);
	place->document = page->text + doc->id.offset;
	place->document_len = doc->id.len;
	for (int i = 0; i < map->ncolumns; i++)
	{
		Column	   *column = &map->columns[i];
		CvxSpan		span = column->field < 0 ? doc->document :
		spans[column->field];
		CvxValue	value;
		bool		is_present;

		place->column = column->name;
		place->field = column->label;
		is_present = span.len > 0 &&
			find_value(column, page->text + span.offset, span.len, &value);
		cvx_value_decode(column->codec, is_present ? &value : NULL,
						 &values[column->attnum - 1],
						 &nulls[column->attnum - 1]);
	}
	place->column = NULL;
}

static void
add_column(CvxRowMap *map, Oid relid, Form_pg_attribute att,
		   const CvxTableOptions *options)
{
	Column	   *column = &map->columns[map->ncolumns++];
	CvxColumnOptions *wanted = cvx_options_column(relid, att->attnum);

	column->attnum = att->attnum;
	column->name = pstrdup(NameStr(att->attname));
	column->label = wanted->field;
	column->codec = cvx_value_codec(att->atttypid, att->atttypmod, options);
	column->field = -1;
	if (wanted->is_document)
	{
		if (!cvx_value_takes_document(column->codec))
			ereport(ERROR,
					(errcode(ERRCODE_FDW_INVALID_DATA_TYPE),
					 errmsg("column \"%s\" of foreign table %s must have type jsonb to show the whole document",
							column->name, options->relation)));
		map->is_whole = true;
		return;
	}
	if (wanted->is_path)
	{
		CvxPath		path = cvx_options_path(wanted->field);

		column->path = path.names;
		column->npath = path.n;
	}
	else
	{
		column->path = palloc(sizeof(char *));
		column->path[0] = wanted->field;
		column->npath = 1;
	}
	check_field(column, column->path[0], options);
	column->field = add_field(map, column->path[0]);
}

static void
check_field(const Column *column, const char *field,
			const CvxTableOptions *options)
{
	if (!cvx_options_is_field_name(field, true))
		ereport(ERROR,
				(errcode(ERRCODE_FDW_INVALID_COLUMN_NAME),
				 errmsg("column \"%s\" of foreign table %s cannot show a Convex field",
						column->name, options->relation),
				 errdetail("No field of a Convex document can be named \"%s\".",
						   field),
				 errhint("Set the column's option column_name, or drop the column.")));
}

static int
add_field(CvxRowMap *map, const char *field)
{
	for (int i = 0; i < map->nfields; i++)
		if (strcmp(map->fields[i], field) == 0)
			return i;
	map->fields[map->nfields] = field;
	return map->nfields++;
}

static int
compare_names(const void *a, const void *b)
{
	return strcmp(*(const char *const *) a, *(const char *const *) b);
}

/* The value of a column within its field's value; false when missing. */
static bool
find_value(const Column *column, const char *data, size_t len,
		   CvxValue *value)
{
	cvx_value_read(data, len, value);
	value->is_document = column->field < 0;
	for (int i = 1; i < column->npath; i++)
	{
		CvxJson		json;
		CvxText		name;
		CvxText		text;
		bool		is_first = true;
		bool		is_found = false;

		if (value->kind != CVX_KIND_OBJECT)
			return false;
		cvx_json_within(&json, value->raw.data, value->raw.len);
		cvx_json_open(&json, '{');
		for (; cvx_json_member(&json, &name, is_first); is_first = false)
		{
			cvx_json_skip(&json, &text);
			if (!cvx_json_equals(&name, column->path[i], strlen(column->path[i])))
				continue;
			is_found = true;
			cvx_value_read(text.data, text.len, value);
		}
		if (!is_found)
			return false;
	}
	return true;
}
