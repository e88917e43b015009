/*
 * sub_target.c
 *		How does a document become a row of its target?
 *
 * Each field goes to its column, and what has no column or is not exactly what
 * its column shows goes to _extra as well, so that columns and _extra together
 * always say what the document said.  Fields that have no column may get one.
 *
 * This file writes no rows; see sub_direct.c and sub_apply.c.
 *
 * Room: subscription 5.6
 */
#include "postgres.h"

#include <math.h>

#include "access/detoast.h"
#include "access/genam.h"
#include "access/htup_details.h"
#include "access/relation.h"
#include "access/table.h"
#include "access/tupmacs.h"
#include "catalog/namespace.h"
#include "catalog/objectaccess.h"
#include "catalog/pg_collation.h"
#include "catalog/pg_type.h"
#include "common/base64.h"
#include "common/hashfn.h"
#include "executor/spi.h"
#include "lib/qunique.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/date.h"
#include "utils/fmgroids.h"
#include "utils/fmgrprotos.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/ruleutils.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

#include "ground/compat.h"
#include "ground/guard.h"
#include "ground/redact.h"
#include "protocol/schema.h"
#include "shape/encode.h"
#include "shape/names.h"
#include "subscription/sub_catalog.h"
#include "subscription/sub_events.h"
#include "subscription/sub_target.h"

/* Fields that a page's parser is asked to find: each takes memory per document. */
#define MAX_WANTED		64

/* A field that has no column. */
typedef struct Unknown
{
	char	   *field;
	CvxType		type;
} Unknown;

/* A value that may move to _extra. */
typedef struct Candidate
{
	int			attno;
	size_t		size;
} Candidate;

/* Columns that are not for a field. */
static const struct
{
	const char *name;
	CvxColumnRole role;
	Oid			type;
}			specials[] = {
	{"_ts", CVX_ROLE_TS, INT8OID},
	{"_extra", CVX_ROLE_EXTRA, JSONBOID},
	{"_deleted", CVX_ROLE_DELETED, BOOLOID},
	{"_deleted_at", CVX_ROLE_DELETED_AT, TIMESTAMPTZOID},
	{"_document", CVX_ROLE_DOCUMENT, JSONBOID},
};

/* What alter_work() is told. */
typedef struct Altering
{
	Oid			relid;
	const char *name;
	const char *type;
} Altering;

/* A column that was refused. */
typedef struct Refusal
{
	Oid			relid;			/* of the target; invalid: nothing */
	uint32		hash;			/* of the field */
	TimestampTz at;
} Refusal;

/* A refused column is tried again after this, whatever has changed. */
#define REFUSED_MS		60000

/* Written once, when the library is loaded. */
static object_access_hook_type previous_access = NULL;

/* What was refused lately, each at the place of its hash. */
static Refusal refusals[256];

static void watch_creation(ObjectAccessType access, Oid class, Oid object,
						   int sub, void *arg);
static Oid	new_namespace(Oid type);
static void fail_gone(void) pg_attribute_noreturn();
static bool is_fillable(Form_pg_attribute att);
static void add_column(CvxTarget *target, Form_pg_attribute att);
static List *follow_columns(const CvxSubscription *sub, CvxSubRel *rel,
							TupleDesc tupdesc);
static char *known_name(const CvxSubRel *rel, AttrNumber attnum);
static Jsonb *renamed_columns(const CvxSubscription *sub, CvxSubRel *rel,
							  TupleDesc tupdesc, const char **known);
static bool is_for_us(const CvxSubRel *rel, const char **known, int natts,
					  const char *name);
static Jsonb *numbered_names(const char **known, int natts);
static Jsonb *make_object(const char **keys, const char **values, int n);
static char *field_of(const CvxSubRel *rel, const char *attname);
static char *said_of(const CvxSubRel *rel, const char *attname);
static int	special_of(const char *attname);
static int	compare_columns(const void *a, const void *b);
static int	compare_names(const void *a, const void *b);
static bool is_found(const CvxTarget *target, const CvxPage *page);
static void decode_found(CvxTarget *target, const CvxPage *page,
						 const CvxDoc *doc, StringInfo extra);
static void decode_members(CvxTarget *target, const CvxPage *page,
						   const CvxDoc *doc, StringInfo extra);
static CvxColumn *find_column(CvxTarget *target, const CvxText *name, int *guess);
static void decode_field(CvxTarget *target, CvxColumn *column, const CvxText *name,
						 const CvxText *text, StringInfo extra);
static bool is_exact(CvxTarget *target, CvxColumn *column,
					 const CvxValue *value, bool isnull);
static bool shows_all(CvxColumn *column, Datum datum, const CvxValue *value);
static bool is_same_double(double a, double b);
static bool is_same_array(CvxColumn *column, Datum datum,
						  const CvxValue *value);
static bool has_nul(const CvxValue *value);
static void add_extra(StringInfo extra, const CvxText *name,
					  const CvxText *raw);
static void watch_size(CvxTarget *target);
static void fit_into_page(CvxTarget *target, StringInfo extra);
static int	compare_candidates(const void *a, const void *b);
static size_t row_size(CvxTarget *target);
static size_t stored_size(CvxTarget *target, Form_pg_attribute att);
static void write_exact(StringInfo buf, const CvxText *raw);
static void note_unknown(CvxTarget *target, const CvxText *name,
						 const CvxValue *value);
static bool is_free(const CvxTarget *target, const char *field);
static CvxAdding add_one_column(CvxTarget *target, const Unknown *unknown);
static char *new_name(CvxTarget *target, char *field);
static const char *unable_because(Oid relid);
static void alter_work(void *arg);
static ErrorData *alter_table(Oid relid, const char *name, const char *type);
static void remember_refusal(Oid relid, const char *field);
static bool is_refused(const CvxTarget *target, const char *field);
static Refusal *refusal_of(Oid relid, const char *field);
static uint32 hash_field(const char *field);
static void forget_refusals(Datum arg, Oid relid);
static void forget_all_refusals(Datum arg, int cacheid, uint32 hash);
static void note_column(CvxTarget *target, char *name, char *field,
						const char *type);
static bool known_column(CvxTarget *target, const char *field, char **name,
						 const char **type);
static void note_drift(CvxTarget *target, const char *drift);
static Datum timestamptz_of_ts(int64 ts);

/*
 * Open a relation as the target, or the staging table, of a table of the
 * subscription; lives in the current context.  Throws 42703 without
 * _id, and 42P01 when it is gone.
 */
CvxTarget *
cvx_target_open(const CvxSubscription *sub, CvxSubRel *rel, Oid relid)
{
	CvxTarget  *target = palloc0(sizeof(CvxTarget));
	TupleDesc	tupdesc;
	bool		is_numbered;
	List	   *drifts = NIL;
	ListCell   *lc;

	target->sub = sub;
	target->rel = rel;
	target->relation = cvx_target_lock(relid, RowExclusiveLock);
	target->tupdesc = tupdesc = RelationGetDescr(target->relation);
	target->name = quote_qualified_identifier(get_namespace_name(RelationGetNamespace(target->relation)),
											  RelationGetRelationName(target->relation));
	target->columns = palloc0(sizeof(CvxColumn) * Max(tupdesc->natts, 1));
	is_numbered = rel->is_bound && relid == rel->target;
	if (is_numbered)
		drifts = follow_columns(sub, rel, tupdesc);
	for (int i = 0; i < tupdesc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(tupdesc, i);

		if (is_fillable(att) &&
			(!is_numbered || known_name(rel, att->attnum) != NULL ||
			 strcmp(NameStr(att->attname), "_id") == 0))
			add_column(target, att);
	}
	qsort(target->columns, target->ncolumns, sizeof(CvxColumn), compare_columns);
	for (int i = 0; i < target->ncolumns; i++)
	{
		CvxColumn  *column = &target->columns[i];

		if (column->role == CVX_ROLE_FIELD)
		{
			target->nfields++;
			if (strcmp(column->field, "_id") == 0)
				target->id = column;
		}
		else if (column->role == CVX_ROLE_TS)
			target->ts = column;
		else if (column->role == CVX_ROLE_EXTRA)
			target->extra = column;
	}
	if (target->id == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_COLUMN),
				 errmsg("table %s has no column \"_id\"", target->name)));
	target->row.spans = palloc(sizeof(CvxSpan) * Max(target->nfields, 1));
	target->row.values = palloc(sizeof(Datum) * tupdesc->natts);
	target->row.nulls = palloc(sizeof(bool) * tupdesc->natts);
	watch_size(target);
	target->row.cxt = AllocSetContextCreate(CurrentMemoryContext, "convex row",
											ALLOCSET_DEFAULT_SIZES);
	foreach(lc, drifts)
		note_drift(target, lfirst(lc));
	return target;
}

/*
 * Open and lock a target; throws 42P01 when it is gone, as after its owner's
 * code has dropped it in the middle of a page.
 */
Relation
cvx_target_lock(Oid relid, LOCKMODE lockmode)
{
	Relation	relation = try_relation_open(relid, lockmode);

	if (relation == NULL)
		fail_gone();
	return relation;
}

static void
fail_gone(void)
{
	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_TABLE),
			 errmsg("the table is gone")));
}

/* Close it; its lock lasts until the transaction ends. */
void
cvx_target_close(CvxTarget *target)
{
	MemoryContextDelete(target->row.cxt);
	table_close(target->relation, NoLock);
}

/* Is a column left to be filled by us, and not PostgreSQL's own to fill? */
static bool
is_fillable(Form_pg_attribute att)
{
	return !att->attisdropped && att->attgenerated == '\0' &&
		att->attidentity == '\0';
}

/*
 * Columns of a target are known by their numbers: one that is renamed keeps its
 * field, and one that gets the name of another does not get its field.  Those
 * that are new here are known from now on.  Returns what is to be told.
 */
static List *
follow_columns(const CvxSubscription *sub, CvxSubRel *rel, TupleDesc tupdesc)
{
	int			natts = tupdesc->natts;
	const char **known = palloc0(sizeof(char *) * Max(natts, 1));
	bool		is_renamed = false;
	bool		is_changed = false;
	List	   *drifts = NIL;
	MemoryContext old;

	for (int i = 0; i < natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(tupdesc, i);
		char	   *name = known_name(rel, att->attnum);
		bool		is_other = name && strcmp(name, NameStr(att->attname)) != 0;

		/* Nothing but its name says what a column such as _ts is for. */
		if (is_other && !att->attisdropped && field_of(rel, name) == NULL)
			drifts = lappend(drifts, psprintf("column \"%s\" is \"%s\" now, which nothing fills",
											  name, NameStr(att->attname)));
		is_changed |= is_other;
		if (name && is_fillable(att) && !(is_other && field_of(rel, name) == NULL))
			known[i] = name;
		is_changed |= name != NULL && known[i] == NULL;
		is_renamed |= is_other && known[i] != NULL;
	}

	/* for as long as the table's other properties are known */
	old = MemoryContextSwitchTo(GetMemoryChunkContext(rel));
	if (is_renamed)
		rel->columns = renamed_columns(sub, rel, tupdesc, known);
	for (int i = 0; i < natts; i++)
		if (known[i])
			known[i] = NameStr(TupleDescAttr(tupdesc, i)->attname);
	for (int i = 0; i < natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(tupdesc, i);

		if (known[i] || !is_fillable(att) || !is_for_us(rel, known, natts, NameStr(att->attname)))
			continue;
		known[i] = NameStr(att->attname);
		is_changed = true;
	}
	if (is_changed)
		rel->attnums = numbered_names(known, natts);
	MemoryContextSwitchTo(old);
	if (is_changed)
		cvx_catalog_run(SPI_OK_UPDATE,
						"UPDATE @.convex_subscription_rel SET columns = $3, attnums = $4 WHERE subid = $1 AND relno = $2",
						"iijj", sub->subid, rel->relno, rel->columns, rel->attnums);
	return drifts;
}

/* The name under which a column of the target is known; NULL: it is not. */
static char *
known_name(const CvxSubRel *rel, AttrNumber attnum)
{
	char		number[12];
	JsonbValue	buffer;
	JsonbValue *value;

	if (rel->attnums == NULL)
		return NULL;
	snprintf(number, sizeof(number), "%d", attnum);
	value = getKeyJsonValueFromContainer(&rel->attnums->root, number,
										 strlen(number), &buffer);
	return value && value->type == jbvString ?
		pnstrdup(value->val.string.val, value->val.string.len) : NULL;
}

/*
 * The columns with their fields, some of which have other names now.  An event
 * tells that of each.
 */
static Jsonb *
renamed_columns(const CvxSubscription *sub, CvxSubRel *rel, TupleDesc tupdesc,
				const char **known)
{
	int			n = 0;
	const char **keys = palloc(sizeof(char *) *
							   (JB_ROOT_COUNT(rel->columns) + tupdesc->natts));
	const char **values = palloc(sizeof(char *) *
								 (JB_ROOT_COUNT(rel->columns) + tupdesc->natts));
	JsonbIterator *it = JsonbIteratorInit(&rel->columns->root);
	JsonbIteratorToken token;
	JsonbValue	value;

	/* What comes later counts: first the names that columns had. */
	while ((token = JsonbIteratorNext(&it, &value, true)) != WJB_DONE)
	{
		bool		is_gone = false;

		if (token == WJB_VALUE)
			values[n++] = pnstrdup(value.val.string.val, value.val.string.len);
		if (token != WJB_KEY)
			continue;
		keys[n] = pnstrdup(value.val.string.val, value.val.string.len);
		for (int i = 0; i < tupdesc->natts; i++)
			is_gone |= known[i] && strcmp(known[i], keys[n]) == 0 &&
				strcmp(NameStr(TupleDescAttr(tupdesc, i)->attname), keys[n]) != 0;
		if (is_gone)
			(void) JsonbIteratorNext(&it, &value, true);
	}
	for (int i = 0; i < tupdesc->natts; i++)
	{
		const char *name = NameStr(TupleDescAttr(tupdesc, i)->attname);

		if (known[i] == NULL || strcmp(known[i], name) == 0)
			continue;
		keys[n] = name;
		values[n++] = said_of(rel, known[i]);
		cvx_catalog_event(sub->subid, "column_renamed", rel,
						  psprintf("field \"%s\": column \"%s\" is \"%s\" now",
								   field_of(rel, known[i]), known[i], name));
	}
	return make_object(keys, values, n);
}

/*
 * Is a column that is not known yet ours by its name?  One whose field has
 * another column already is the user's.
 */
static bool
is_for_us(const CvxSubRel *rel, const char **known, int natts, const char *name)
{
	char	   *field = field_of(rel, name);

	if (field == NULL)
		return special_of(name) >= 0;
	if (strcmp(field, "_id") == 0)
		return false;
	for (int i = 0; i < natts; i++)
	{
		char	   *other = known[i] ? field_of(rel, known[i]) : NULL;

		if (other && strcmp(other, field) == 0)
			return false;
	}
	return true;
}

static Jsonb *
numbered_names(const char **known, int natts)
{
	const char **keys = palloc(sizeof(char *) * Max(natts, 1));
	const char **values = palloc(sizeof(char *) * Max(natts, 1));
	int			n = 0;

	for (int i = 0; i < natts; i++)
		if (known[i])
		{
			keys[n] = psprintf("%d", i + 1);
			values[n++] = known[i];
		}
	return make_object(keys, values, n);
}

/* An object of strings; of equal keys the last one counts. */
static Jsonb *
make_object(const char **keys, const char **values, int n)
{
	JsonbParseState *state = NULL;
	JsonbValue	value = {.type = jbvString};

	pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	for (int i = 0; i < n; i++)
	{
		value.val.string.val = unconstify(char *, keys[i]);
		value.val.string.len = strlen(keys[i]);
		pushJsonbValue(&state, WJB_KEY, &value);
		value.val.string.val = unconstify(char *, values[i]);
		value.val.string.len = strlen(values[i]);
		pushJsonbValue(&state, WJB_VALUE, &value);
	}
	return JsonbValueToJsonb(pushJsonbValue(&state, WJB_END_OBJECT, NULL));
}

static void
add_column(CvxTarget *target, Form_pg_attribute att)
{
	static const struct
	{
		Oid			type;
		CvxKind		kind;
	}			exact[] = {
		{BOOLOID, CVX_KIND_BOOLEAN},
		{INT8OID, CVX_KIND_INT64},
		{FLOAT8OID, CVX_KIND_FLOAT64},
		{TEXTOID, CVX_KIND_STRING},
		{BYTEAOID, CVX_KIND_BYTES},
	};
	char	   *name = NameStr(att->attname);
	int			special = special_of(name);
	CvxColumn  *column = &target->columns[target->ncolumns];

	column->attnum = att->attnum;
	column->name = pstrdup(name);
	column->type = att->atttypid;
	column->role = CVX_ROLE_FIELD;
	column->kind = -1;
	if (special >= 0)
	{
		if (att->atttypid != specials[special].type)
			return;
		column->role = specials[special].role;
	}
	if (column->role == CVX_ROLE_DELETED && target->sub->mode != CVX_MODE_HISTORY)
		return;
	if (column->role == CVX_ROLE_DELETED_AT && target->sub->mode != CVX_MODE_SOFT_DELETE)
		return;
	if (column->role == CVX_ROLE_FIELD)
	{
		column->field = field_of(target->rel, name);
		if (column->field == NULL)
			return;
		column->field_len = strlen(column->field);
		for (int i = 0; i < lengthof(exact); i++)
			if (att->atttypid == exact[i].type)
				column->kind = exact[i].kind;
		column->is_json = att->atttypid == JSONBOID || att->atttypid == JSONOID;
		column->base = getBaseType(att->atttypid);
		if (column->kind < 0 && !column->is_json)
			cvx_typeio_for_output(column->base, &column->output);
	}
	if (column->role == CVX_ROLE_FIELD || column->role == CVX_ROLE_DOCUMENT)
		column->codec = cvx_value_codec(att->atttypid, att->atttypmod,
										&target->sub->options.table);
	target->ncolumns++;
}

/*
 * The field that fills a column, as the catalog says; NULL for a column of the
 * user's own.
 */
static char *
field_of(const CvxSubRel *rel, const char *attname)
{
	char	   *field;

	if (strcmp(attname, "_id") == 0 || strcmp(attname, "_creationTime") == 0)
		return pstrdup(attname);
	field = said_of(rel, attname);
	if (field)
		field[strcspn(field, "\t")] = '\0';
	return field;
}

/* The same with the type that the column is to have, if that is known. */
static char *
said_of(const CvxSubRel *rel, const char *attname)
{
	JsonbValue	buffer;
	JsonbValue *value = getKeyJsonValueFromContainer(&rel->columns->root,
													 attname, strlen(attname),
													 &buffer);

	if (value == NULL || value->type != jbvString)
		return strcmp(attname, "_creationTime") == 0 ? pstrdup(attname) : NULL;
	return pnstrdup(value->val.string.val, value->val.string.len);
}

/* Which of the columns is this that are for no field?  -1: none. */
static int
special_of(const char *attname)
{
	for (int i = 0; i < lengthof(specials); i++)
		if (strcmp(attname, specials[i].name) == 0)
			return i;
	return -1;
}

static int
compare_columns(const void *a, const void *b)
{
	const CvxColumn *left = a;
	const CvxColumn *right = b;

	if (left->role != right->role)
		return left->role < right->role ? -1 : 1;
	return left->role == CVX_ROLE_FIELD ? strcmp(left->field, right->field) : 0;
}

/* A column's type and collation, as in a definition. */
char *
cvx_target_column_type(TupleDesc tupdesc, AttrNumber attnum)
{
	Form_pg_attribute att = TupleDescAttr(tupdesc, attnum - 1);
	char	   *type = format_type_extended(att->atttypid, att->atttypmod,
											FORMAT_TYPE_TYPEMOD_GIVEN |
											FORMAT_TYPE_FORCE_QUALIFY);

	return OidIsValid(att->attcollation) ?
		psprintf("%s COLLATE %s", type, generate_collation_name(att->attcollation)) :
		type;
}

/*
 * The type below a column's domain.  A column that is added to a staging table
 * gets this: the checks of a domain would run as the owner of that table.
 */
char *
cvx_target_base_type(TupleDesc tupdesc, AttrNumber attnum)
{
	Form_pg_attribute att = TupleDescAttr(tupdesc, attnum - 1);
	int32		typmod = att->atttypmod;
	Oid			base = getBaseTypeAndTypmod(att->atttypid, &typmod);

	if (base == att->atttypid)
		return cvx_target_column_type(tupdesc, attnum);
	return format_type_extended(base, typmod, FORMAT_TYPE_TYPEMOD_GIVEN |
								FORMAT_TYPE_FORCE_QUALIFY);
}

/* Who owns a relation?  Throws 42P01 when it is gone. */
Oid
cvx_target_owner(Oid relid)
{
	HeapTuple	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(relid));
	Oid			owner;

	if (!HeapTupleIsValid(tuple))
		fail_gone();
	owner = ((Form_pg_class) GETSTRUCT(tuple))->relowner;
	ReleaseSysCache(tuple);
	return owner;
}

/* Called once when the library is loaded. */
void
cvx_target_init(void)
{
	previous_access = object_access_hook;
	object_access_hook = watch_creation;
}

/*
 * Types of the session's temporary schema stand before those of pg_catalog:
 * one that restricted code leaves behind would be taken for text.  Recent
 * minor releases of PostgreSQL (15.20, not 15.18) refuse it by themselves.
 */
static void
watch_creation(ObjectAccessType access, Oid class, Oid object, int sub,
			   void *arg)
{
	if (previous_access)
		previous_access(access, class, object, sub, arg);
	if (access == OAT_POST_CREATE && class == TypeRelationId &&
		InSecurityRestrictedOperation() && isTempNamespace(new_namespace(object)))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("cannot create a type in a temporary schema within security-restricted operation")));
}

/* The schema of a type that no other command sees yet. */
static Oid
new_namespace(Oid type)
{
	Relation	relation = table_open(TypeRelationId, AccessShareLock);
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;
	Oid			result = InvalidOid;

	ScanKeyInit(&key, Anum_pg_type_oid, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(type));
	scan = systable_beginscan(relation, TypeOidIndexId, true, SnapshotSelf, 1, &key);
	tuple = systable_getnext(scan);
	if (HeapTupleIsValid(tuple))
		result = ((Form_pg_type) GETSTRUCT(tuple))->typnamespace;
	systable_endscan(scan);
	table_close(relation, AccessShareLock);
	return result;
}

/*
 * From here to cvx_target_end_turn() everything runs as a role that may have
 * code of its own in the target: triggers, checks, types, policies.  What that
 * code sets, for the session too, ends with the turn.  An error ends it with
 * its transaction.
 */
void
cvx_target_begin_turn(CvxTurn *turn, Oid owner)
{
	turn->nest = NewGUCNestLevel();
	(void) set_config_option("search_path", "pg_catalog, pg_temp", PGC_USERSET,
							 PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
	GetUserIdAndSecContext(&turn->userid, &turn->context);
	SetUserIdAndSecContext(owner, turn->context | SECURITY_RESTRICTED_OPERATION);
}

/* Back to who it was, with the settings that it had. */
void
cvx_target_end_turn(const CvxTurn *turn)
{
	AtEOXact_GUC(false, turn->nest);
	SetUserIdAndSecContext(turn->userid, turn->context);
}

/* Run a statement that takes no parameters; returns how many rows it changed. */
int64
cvx_target_run(const char *sql, int expected)
{
	MemoryContext cxt = CurrentMemoryContext;
	int			rc = SPI_execute(sql, false, 0);

	MemoryContextSwitchTo(cxt);
	if (rc != expected)
		elog(ERROR, "unexpected result %d of: %s", rc, sql);
	return (int64) SPI_processed;
}

/* ------------------------------------------------------------------------
 * From document to row
 * ------------------------------------------------------------------------
 */

/*
 * Fields that the parser of a page is to find on its way, because the page is
 * probably of this table; in the current context.
 */
void
cvx_target_want(const CvxSubRel *rel, CvxPageWant *want)
{
	JsonbIterator *it = JsonbIteratorInit(&rel->columns->root);
	JsonbIteratorToken token;
	JsonbValue	value;
	int			nfields = JB_ROOT_COUNT(rel->columns) + 2;
	char	  **fields;
	int		   *lens;

	if (nfields > MAX_WANTED)
		return;
	fields = palloc(sizeof(char *) * nfields);
	lens = palloc(sizeof(int) * nfields);
	fields[0] = pstrdup("_id");
	fields[1] = pstrdup("_creationTime");
	nfields = 2;
	while ((token = JsonbIteratorNext(&it, &value, true)) != WJB_DONE)
	{
		if (token != WJB_VALUE || value.type != jbvString)
			continue;
		fields[nfields] = pnstrdup(value.val.string.val, value.val.string.len);
		fields[nfields][strcspn(fields[nfields], "\t")] = '\0';
		nfields++;
	}
	qsort(fields, nfields, sizeof(char *), compare_names);
	nfields = qunique(fields, nfields, sizeof(char *), compare_names);
	for (int i = 0; i < nfields; i++)
		lens[i] = strlen(fields[i]);
	want->fields = (const char *const *) fields;
	want->field_lens = lens;
	want->nfields = nfields;
}

static int
compare_names(const void *a, const void *b)
{
	return strcmp(*(char *const *) a, *(char *const *) b);
}

/* Has the page's parser looked for just the fields that have columns? */
static bool
is_found(const CvxTarget *target, const CvxPage *page)
{
	if (page->nfields != target->nfields)
		return false;
	for (int i = 0; i < target->nfields; i++)
		if (strcmp(page->fields[i], target->columns[i].field) != 0 ||
			strpbrk(page->fields[i], "\"\\") != NULL)
			return false;
	return true;
}

/* Fill values and nulls; what has no exact place goes to extra. */
void
cvx_target_decode(CvxTarget *target, const CvxPage *page, const CvxDoc *doc,
				  StringInfo extra)
{
	memset(target->row.nulls, true, target->tupdesc->natts);
	for (int i = 0; target->row.sources && i < target->tupdesc->natts; i++)
		target->row.sources[i].text.len = 0;
	resetStringInfo(extra);
	if (target->row.page != page)
		target->row.is_found = is_found(target, page);
	target->row.page = page;
	if (target->row.is_found && doc->nothers == 0)
		decode_found(target, page, doc, extra);
	else
		decode_members(target, page, doc, extra);
	if (target->row.sources)
		fit_into_page(target, extra);
	if (extra->len > 0)
		appendStringInfoChar(extra, '}');
	for (int i = target->nfields; i < target->ncolumns; i++)
	{
		CvxColumn  *column = &target->columns[i];
		Datum	   *datum = &target->row.values[column->attnum - 1];
		bool	   *isnull = &target->row.nulls[column->attnum - 1];

		*isnull = false;
		switch (column->role)
		{
			case CVX_ROLE_TS:
				*datum = Int64GetDatum(doc->ts);
				break;
			case CVX_ROLE_EXTRA:
				*isnull = extra->len == 0;
				if (!*isnull)
					*datum = DirectFunctionCall1(jsonb_in, CStringGetDatum(extra->data));
				break;
			case CVX_ROLE_DELETED:
				*datum = BoolGetDatum(doc->is_deleted);
				break;
			case CVX_ROLE_DELETED_AT:
				*isnull = !doc->is_deleted;
				if (doc->is_deleted)
					*datum = timestamptz_of_ts(doc->ts);
				break;
			case CVX_ROLE_DOCUMENT:
				*isnull = doc->is_deleted;
				if (!doc->is_deleted)
				{
					CvxValue	value;

					cvx_value_read(page->text + doc->document.offset,
								   doc->document.len, &value);
					value.is_document = true;
					cvx_value_decode(column->codec, &value, datum, isnull);
				}
				break;
			case CVX_ROLE_FIELD:
				break;
		}
	}
}

/* What the page's parser has found, and there is nothing else. */
static void
decode_found(CvxTarget *target, const CvxPage *page, const CvxDoc *doc,
			 StringInfo extra)
{
	const CvxSpan *values = target->row.spans;

	cvx_page_spans(page, doc, target->row.spans);
	for (int i = 0; i < target->nfields; i++)
	{
		CvxColumn  *column = &target->columns[i];
		CvxText		name = {column->field, column->field_len, false};
		CvxText		text = {page->text + values[i].offset, values[i].len, false};

		if (text.len > 0)
			decode_field(target, column, &name, &text, extra);
	}
}

/* Member by member. */
static void
decode_members(CvxTarget *target, const CvxPage *page, const CvxDoc *doc,
			   StringInfo extra)
{
	CvxJson		json;
	CvxText		name;
	CvxText		text;
	bool		is_first = true;
	int			guess = 0;

	cvx_json_within(&json, page->text + doc->document.offset, doc->document.len);
	cvx_json_open(&json, '{');
	for (; cvx_json_member(&json, &name, is_first); is_first = false)
	{
		cvx_json_skip(&json, &text);
		if (cvx_page_is_document_member(&name))
			decode_field(target, find_column(target, &name, &guess), &name,
						 &text, extra);
	}
}

/* Fields come in byte order, and so do the columns. */
static CvxColumn *
find_column(CvxTarget *target, const CvxText *name, int *guess)
{
	int			low = 0;
	int			high = target->nfields - 1;
	CvxText		plain = *name;

	if (*guess < target->nfields &&
		target->columns[*guess].field_len == name->len && !name->is_escaped &&
		memcmp(target->columns[*guess].field, name->data, name->len) == 0)
		return &target->columns[(*guess)++];
	if (name->is_escaped)
	{
		plain.data = cvx_json_cstring(name);
		plain.len = strlen(plain.data);
	}
	while (low <= high)
	{
		int			middle = (low + high) / 2;
		const CvxColumn *column = &target->columns[middle];
		int			order = memcmp(column->field, plain.data,
								   Min(column->field_len, plain.len));

		if (order == 0)
			order = (column->field_len > plain.len) - (column->field_len < plain.len);
		if (order == 0)
		{
			*guess = middle + 1;
			return &target->columns[middle];
		}
		if (order < 0)
			low = middle + 1;
		else
			high = middle - 1;
	}
	return NULL;
}

static void
decode_field(CvxTarget *target, CvxColumn *column, const CvxText *name,
			 const CvxText *text, StringInfo extra)
{
	CvxValue	value;
	bool		isnull = true;

	cvx_value_read(text->data, text->len, &value);
	if (column == NULL)
	{
		if (target->may_add)
			note_unknown(target, name, &value);
		add_extra(extra, name, &value.raw);
		return;
	}
	cvx_value_decode(column->codec, &value, &target->row.values[column->attnum - 1],
					 &isnull);
	target->row.nulls[column->attnum - 1] = isnull;
	if (is_exact(target, column, &value, isnull))
	{
		if (target->row.sources)
		{
			target->row.sources[column->attnum - 1].name = *name;
			target->row.sources[column->attnum - 1].text = value.raw;
		}
		return;
	}
	add_extra(extra, name, &value.raw);
	if (value.kind != CVX_KIND_NULL && !column->is_json &&
		(isnull || (column->kind >= 0 && value.kind != column->kind)))
		note_drift(target, psprintf("field \"%s\": %s in column \"%s\" of type %s",
									column->field, cvx_value_kind_name(value.kind),
									column->name, format_type_be(column->type)));
}

/* Does the column alone tell what the value was? */
static bool
is_exact(CvxTarget *target, CvxColumn *column, const CvxValue *value,
		 bool isnull)
{
	if (isnull || value->kind == CVX_KIND_NULL)
		return false;
	if (column->kind >= 0 && value->kind != column->kind)
		return false;
	if (column->kind == CVX_KIND_STRING)
		return !value->text.is_escaped || !has_nul(value);
	if (column->kind >= 0)
		return true;
	if (!column->is_json)
		return shows_all(column, target->row.values[column->attnum - 1], value);

	/* jsonb: markers are lost where json_values is clean, U+0000 always. */
	if (memmem(value->raw.data, value->raw.len, "\\u0000", 6) != NULL)
		return false;
	return target->sub->options.table.json_values == CVX_JSON_ENCODED ||
		(memmem(value->raw.data, value->raw.len, "\"$integer\"", 10) == NULL &&
		 memmem(value->raw.data, value->raw.len, "\"$float\"", 8) == NULL &&
		 memmem(value->raw.data, value->raw.len, "\"$bytes\"", 8) == NULL);
}

/*
 * Does a column of another type show the value, with the kind that such a
 * column writes, to the last digit?
 */
static bool
shows_all(CvxColumn *column, Datum datum, const CvxValue *value)
{
	char	   *text;

	switch (column->base)
	{
		case INT2OID:
			return value->kind == CVX_KIND_FLOAT64 &&
				is_same_double(DatumGetInt16(datum), value->float64);
		case INT4OID:
			return value->kind == CVX_KIND_FLOAT64 &&
				is_same_double(DatumGetInt32(datum), value->float64);
		case FLOAT4OID:
			return value->kind == CVX_KIND_FLOAT64 &&
				is_same_double(DatumGetFloat4(datum), value->float64);
		case NUMERICOID:
			return value->kind == CVX_KIND_FLOAT64 &&
				is_same_double(DatumGetFloat8(DirectFunctionCall1(numeric_float8, datum)),
							   value->float64);
		case DATEOID:
			return value->kind == CVX_KIND_FLOAT64 &&
				is_same_double(((double) DatumGetDateADT(datum) + POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) *
							   (SECS_PER_DAY * 1000.0), value->float64);
		case TIMESTAMPOID:
		case TIMESTAMPTZOID:
			/* The time of creation is the exception that the docs name. */
			return value->kind == CVX_KIND_FLOAT64 &&
				(strcmp(column->field, "_creationTime") == 0 ||
				 is_same_double((DatumGetTimestamp(datum) +
								 (POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * USECS_PER_DAY) / 1000.0,
								value->float64));
		case BOOLOID:
		case INT8OID:
		case FLOAT8OID:
		case BYTEAOID:
			/* below a domain */
			return value->kind == (column->base == BOOLOID ? CVX_KIND_BOOLEAN :
								   column->base == INT8OID ? CVX_KIND_INT64 :
								   column->base == FLOAT8OID ? CVX_KIND_FLOAT64 :
								   CVX_KIND_BYTES);
		default:
			if (value->kind == CVX_KIND_ARRAY)
				return is_same_array(column, datum, value);
			if (value->kind != CVX_KIND_STRING || has_nul(value))
				return false;
			text = cvx_typeio_output(&column->output, datum);
			return cvx_json_equals(&value->text, text, strlen(text));
	}
}

/* The same number with the same sign; which NaN it was is not known. */
static bool
is_same_double(double a, double b)
{
	return a == b && signbit(a) == signbit(b);
}

/* Would an array of a type that can always be written be written as it was? */
static bool
is_same_array(CvxColumn *column, Datum datum, const CvxValue *value)
{
	StringInfoData buf;

	switch (get_element_type(column->base))
	{
		case BOOLOID:
		case INT8OID:
		case FLOAT8OID:
		case TEXTOID:
		case BYTEAOID:
			break;
		default:
			return false;
	}
	if (memmem(value->raw.data, value->raw.len, "\\u0000", 6) != NULL)
		return false;
	initStringInfo(&buf);
	cvx_encode(cvx_encoder_create(column->base, -1, CVX_SYNTAX_ENCODED,
								  CVX_JSON_CLEAN, NULL), datum, &buf);
	return DatumGetBool(DirectFunctionCall2(jsonb_eq,
											DirectFunctionCall1(jsonb_in, CStringGetDatum(buf.data)),
											DirectFunctionCall1(jsonb_in, CStringGetDatum(pnstrdup(value->raw.data, value->raw.len)))));
}

static bool
has_nul(const CvxValue *value)
{
	char	   *plain;
	bool		result;

	if (memmem(value->text.data, value->text.len, "\\u0000", 6) == NULL)
		return false;
	plain = palloc(value->text.len + 1);
	cvx_json_unescape(&value->text, plain, &result);
	return result;
}

static void
add_extra(StringInfo extra, const CvxText *name, const CvxText *raw)
{
	appendStringInfoChar(extra, extra->len == 0 ? '{' : ',');
	appendStringInfoChar(extra, '"');
	appendBinaryStringInfo(extra, name->data, name->len);
	appendStringInfoString(extra, "\":");
	write_exact(extra, raw);
}

/* Remember what rows are made of, if one may be too big for a page. */
static void
watch_size(CvxTarget *target)
{
	if (row_size(target) <= MaxHeapTupleSize)
		return;
	target->row.sources = palloc0(sizeof(CvxSource) * target->tupdesc->natts);
	for (int i = 0; i < target->nfields; i++)
		target->row.sources[target->columns[i].attnum - 1].is_field = true;
}

/*
 * Move the largest values to extra until the row fits into a page.  What may
 * not be NULL stays, and so does the _id, which staging tables let be NULL.
 */
static void
fit_into_page(CvxTarget *target, StringInfo extra)
{
	size_t		size = row_size(target);
	Candidate  *candidates;
	int			n = 0;

	if (size <= MaxHeapTupleSize)
		return;
	candidates = palloc(sizeof(Candidate) * Max(target->nfields, 1));
	for (int i = 0; i < target->nfields; i++)
	{
		int			attno = target->columns[i].attnum - 1;
		Form_pg_attribute att = TupleDescAttr(target->tupdesc, attno);

		if (target->row.nulls[attno] || att->attnotnull ||
			&target->columns[i] == target->id)
			continue;
		candidates[n].attno = attno;
		candidates[n++].size = stored_size(target, att);
	}
	qsort(candidates, n, sizeof(Candidate), compare_candidates);
	for (int i = 0; i < n && size > MaxHeapTupleSize; i++)
	{
		CvxSource  *source = &target->row.sources[candidates[i].attno];

		if (source->text.len > 0)
			add_extra(extra, &source->name, &source->text);
		target->row.nulls[candidates[i].attno] = true;
		size -= candidates[i].size;
	}
	note_drift(target, target->extra ?
			   "rows are too big for a page: their largest values are in \"_extra\"" :
			   "rows are too big for a page: their largest values are not kept");
}

/* The largest first, and of equal ones the last. */
static int
compare_candidates(const void *a, const void *b)
{
	const Candidate *left = a;
	const Candidate *right = b;

	if (left->size != right->size)
		return left->size > right->size ? -1 : 1;
	return right->attno - left->attno;
}

/*
 * How much of a page the decoded row takes at most, with all out of line that
 * can be; while sources are not watched, any row.
 */
static size_t
row_size(CvxTarget *target)
{
	TupleDesc	tupdesc = target->tupdesc;
	size_t		size = MAXALIGN(SizeofHeapTupleHeader + BITMAPLEN(tupdesc->natts));

	for (int i = 0; i < tupdesc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(tupdesc, i);

		if (att->attisdropped ||
			(target->row.sources && target->row.sources[i].is_field && target->row.nulls[i]))
			continue;
		if (att->attlen > 0)
			size = att_align_nominal(size, att->attalign);
		size += stored_size(target, att);
	}
	return MAXALIGN(size);
}

/*
 * How much of a page a column's value takes at most, without padding.  TOAST
 * leaves alone what is no longer than an aligned pointer.
 */
static size_t
stored_size(CvxTarget *target, Form_pg_attribute att)
{
	size_t		most = MAXALIGN(TOAST_POINTER_SIZE);
	char	   *value;
	size_t		size;

	if (att->attlen > 0)
		return att->attlen;
	if (target->row.sources == NULL || !target->row.sources[att->attnum - 1].is_field)
		return att->attlen == -1 && att->attstorage != TYPSTORAGE_PLAIN ? most :
			MaxHeapTupleSize / 4;
	value = DatumGetPointer(target->row.values[att->attnum - 1]);
	if (att->attlen == -2)
		return strlen(value) + 1;
	size = VARSIZE_ANY_EXHDR(value) + VARHDRSZ_SHORT;
	if (att->attstorage == TYPSTORAGE_PLAIN)
		return size + VARHDRSZ + MAXIMUM_ALIGNOF;
	return size <= VARATT_SHORT_MAX ? Min(size, most) : TOAST_POINTER_SIZE;
}

/*
 * A value as the wire has it, but strings with U+0000, which jsonb cannot
 * hold, as {"$text": base64 of their UTF-8}.
 */
static void
write_exact(StringInfo buf, const CvxText *raw)
{
	CvxJson		json;
	CvxText		name;
	CvxText		text;
	bool		is_array = raw->data[0] == '[';
	bool		is_first = true;

	if (memmem(raw->data, raw->len, "\\u0000", 6) == NULL)
	{
		appendBinaryStringInfo(buf, raw->data, raw->len);
		return;
	}
	if (raw->data[0] == '"')
	{
		CvxText		string = {raw->data + 1, raw->len - 2, true};
		char	   *plain = palloc(raw->len + 1);
		bool		is_bad;
		size_t		len = cvx_json_unescape(&string, plain, &is_bad);
		int			room = pg_b64_enc_len((int) len);

		if (!is_bad)
		{
			appendBinaryStringInfo(buf, raw->data, raw->len);
			return;
		}
		appendStringInfoString(buf, "{\"$text\":\"");
		enlargeStringInfo(buf, room + 3);
		room = cvx_b64_encode(plain, (int) len, buf->data + buf->len, room);
		buf->len += room;
		buf->data[buf->len] = '\0';
		appendStringInfoString(buf, "\"}");
		return;
	}
	cvx_json_within(&json, raw->data, raw->len);
	appendStringInfoChar(buf, is_array ? '[' : '{');
	cvx_json_open(&json, is_array ? '[' : '{');
	for (; is_array ? cvx_json_element(&json, is_first) :
		 cvx_json_member(&json, &name, is_first); is_first = false)
	{
		cvx_json_skip(&json, &text);
		if (!is_first)
			appendStringInfoChar(buf, ',');
		if (!is_array)
		{
			appendStringInfoChar(buf, '"');
			appendBinaryStringInfo(buf, name.data, name.len);
			appendStringInfoString(buf, "\":");
		}
		write_exact(buf, &text);
	}
	appendStringInfoChar(buf, is_array ? ']' : '}');
}

/* Nanoseconds since 1970, to the microsecond. */
static Datum
timestamptz_of_ts(int64 ts)
{
	return TimestampTzGetDatum(ts / 1000 -
							   (POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * USECS_PER_DAY);
}

/* ------------------------------------------------------------------------
 * Fields without a column
 * ------------------------------------------------------------------------
 */

/* Note the fields of one document that could get columns. */
void
cvx_target_note_unknowns(CvxTarget *target, const CvxPage *page, const CvxDoc *doc)
{
	CvxJson		json;
	CvxText		name;
	CvxText		text;
	CvxValue	value;
	bool		is_first = true;
	int			guess = 0;

	cvx_json_within(&json, page->text + doc->document.offset, doc->document.len);
	cvx_json_open(&json, '{');
	for (; cvx_json_member(&json, &name, is_first); is_first = false)
	{
		cvx_json_skip(&json, &text);
		if (!cvx_page_is_document_member(&name) ||
			find_column(target, &name, &guess) != NULL)
			continue;
		cvx_value_read(text.data, text.len, &value);
		note_unknown(target, &name, &value);
	}
}

static void
note_unknown(CvxTarget *target, const CvxText *name, const CvxValue *value)
{
	MemoryContext old;
	Unknown    *unknown = NULL;
	char	   *field;
	ListCell   *lc;

	if (value->kind == CVX_KIND_NULL)
		return;
	field = cvx_json_cstring(name);

	/* Such a name is no column's; its value stays in "_extra". */
	if (cvx_redact_is_needed(field, strlen(field)))
		return;
	if (!target->sub->options.is_evolving && JB_ROOT_COUNT(target->rel->columns) > 0 &&
		!is_free(target, field))
		return;
	if (is_refused(target, field))
		return;
	foreach(lc, target->unknowns)
		if (strcmp(((Unknown *) lfirst(lc))->field, field) == 0)
			unknown = lfirst(lc);
	if (unknown == NULL)
	{
		if (target->ncolumns + list_length(target->unknowns) >=
			target->sub->options.max_columns)
			return;
		old = MemoryContextSwitchTo(MemoryContextGetParent(target->row.cxt));
		unknown = palloc0(sizeof(Unknown));
		unknown->field = pstrdup(field);
		unknown->type = CVX_TYPE_UNSEEN;
		target->unknowns = lappend(target->unknowns, unknown);
		MemoryContextSwitchTo(old);
	}
	unknown->type = cvx_schema_union(unknown->type, cvx_value_type(value->kind));
}

/* Does the table have a column of this name that could be a field's, and is nobody's yet? */
static bool
is_free(const CvxTarget *target, const char *field)
{
	for (int i = 0; i < target->ncolumns; i++)
		if (strcmp(target->columns[i].name, field) == 0)
			return false;
	for (int i = 0; i < target->tupdesc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(target->tupdesc, i);

		if (is_fillable(att) && strcmp(NameStr(att->attname), field) == 0)
			return true;
	}
	return false;
}

/* Give the unknown fields columns; true when there is a new one. */
bool
cvx_target_add_columns(CvxTarget *target)
{
	bool		has_new = false;
	ListCell   *lc;

	foreach(lc, target->unknowns)
	{
		CvxAdding	adding = add_one_column(target, lfirst(lc));

		if (adding == CVX_ADDING_LATER)
			break;
		has_new |= adding == CVX_ADDING_DONE;
	}
	target->unknowns = NIL;
	return has_new;
}

/*
 * Give a field a column.  While a target that exists is loaded it gets the
 * column first: what it refuses its staging table does not get either, or else
 * the values could not be merged.
 */
static CvxAdding
add_one_column(CvxTarget *target, const Unknown *unknown)
{
	char	   *field = unknown->field;
	bool		is_there = is_free(target, field);
	const char *type = cvx_names_type(field, unknown->type);
	char	   *name = pstrdup(field);
	Oid			relid = RelationGetRelid(target->relation);
	Oid			real = target->rel->target;
	bool		is_known = is_there || known_column(target, field, &name, &type);
	CvxAdding	adding = CVX_ADDING_DONE;
	char	   *drift = NULL;

	if (!is_known)
		name = new_name(target, field);

	/* An ALTER TABLE wants nobody else here to use the relation. */
	table_close(target->relation, NoLock);
	if (!is_known && OidIsValid(real) && real != relid)
		adding = cvx_target_add_column(target->rel, real, name, type, field, &drift);
	if (!is_there && adding != CVX_ADDING_REFUSED)
		adding = cvx_target_add_column(target->rel, relid, name, type, field, &drift);
	target->relation = cvx_target_lock(relid, RowExclusiveLock);
	target->tupdesc = RelationGetDescr(target->relation);
	if (drift)
		note_drift(target, drift);
	if (adding == CVX_ADDING_DONE)
		note_column(target, name, field, is_there ? NULL : type);
	return adding;
}

/* A name that no column of the target, or of its staging table, has. */
static char *
new_name(CvxTarget *target, char *field)
{
	CvxLocalName name = {pstrdup(field), field};
	const char **taken = palloc(sizeof(char *) *
								(CVX_NAMES_RESERVED + 2 * MaxHeapAttributeNumber));
	int			ntaken = CVX_NAMES_RESERVED;
	Oid			relids[] = {RelationGetRelid(target->relation), target->rel->target};

	memcpy(taken, cvx_names_reserved, sizeof(cvx_names_reserved));
	if (strcmp(field, "_creationTime") == 0)
		ntaken--;				/* that name is its own */
	for (int i = 0; i < lengthof(relids); i++)
	{
		Relation	relation = OidIsValid(relids[i]) ?
			try_relation_open(relids[i], AccessShareLock) : NULL;

		for (int k = 0; relation && k < RelationGetNumberOfAttributes(relation); k++)
			taken[ntaken++] = pstrdup(NameStr(TupleDescAttr(RelationGetDescr(relation), k)->attname));
		if (relation)
			relation_close(relation, NoLock);
	}
	cvx_names_make_unique(&name, 1, taken, ntaken);
	return name.name;
}

/*
 * ALTER TABLE ADD COLUMN as the table's owner, in a subtransaction, and without
 * a long wait for its lock.  One that is refused is a drift, and is remembered
 * for a while: each attempt may lock the table.
 */
CvxAdding
cvx_target_add_column(const CvxSubRel *rel, Oid relid, const char *name,
					  const char *type, const char *field, char **drift)
{
	const char *why = unable_because(relid);
	CvxAdding	adding = CVX_ADDING_REFUSED;

	*drift = NULL;
	if (why == NULL)
	{
		ErrorData  *error = alter_table(relid, name, type);

		if (error == NULL)
			return CVX_ADDING_DONE;
		if (error->sqlerrcode == ERRCODE_LOCK_NOT_AVAILABLE ||
			error->sqlerrcode == ERRCODE_OBJECT_IN_USE)
			adding = CVX_ADDING_LATER;
		why = error->message;
	}
	if (adding == CVX_ADDING_REFUSED)
	{
		*drift = psprintf("field \"%s\" has no column: %s", field, why);
		remember_refusal(OidIsValid(rel->target) ? rel->target : relid, field);
	}
	return adding;
}

/* Why a table cannot get a column at all, whoever asks; NULL: it can. */
static const char *
unable_because(Oid relid)
{
	Relation	relation = try_relation_open(relid, AccessShareLock);
	const char *why = NULL;

	if (relation == NULL)
		return NULL;
	if (relation->rd_rel->relispartition)
		why = "the table is a partition";
	else if (OidIsValid(relation->rd_rel->reloftype))
		why = "the table is of a composite type";
	else if (RelationGetNumberOfAttributes(relation) >= MaxHeapAttributeNumber)
		why = psprintf("the table has had %d columns, which is the most there can be",
					   MaxHeapAttributeNumber);
	relation_close(relation, NoLock);
	return why;
}

static void
alter_work(void *arg)
{
	Altering   *altering = arg;
	Oid			relid = altering->relid;
	CvxTurn		turn;

	cvx_target_begin_turn(&turn, cvx_target_owner(relid));
	(void) set_config_option("lock_timeout", CVX_ALTER_LOCK_TIMEOUT, PGC_USERSET,
							 PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
	cvx_target_run(psprintf("ALTER TABLE %s ADD COLUMN %s %s",
							quote_qualified_identifier(get_namespace_name(get_rel_namespace(relid)),
													   get_rel_name(relid)),
							quote_identifier(altering->name), altering->type),
				   SPI_OK_UTILITY);
	cvx_target_end_turn(&turn);
}

/* Returns the error, unless that is of no table: then it throws it. */
static ErrorData *
alter_table(Oid relid, const char *name, const char *type)
{
	Altering	altering = {relid, name, type};
	ErrorData  *error = cvx_guard(alter_work, &altering);

	if (error)
		switch (ERRCODE_TO_CATEGORY(error->sqlerrcode))
		{
			case ERRCODE_TRANSACTION_ROLLBACK:
			case ERRCODE_INSUFFICIENT_RESOURCES:
			case ERRCODE_OPERATOR_INTERVENTION:
			case ERRCODE_SYSTEM_ERROR:
			case ERRCODE_INTERNAL_ERROR:
				ReThrowError(error);
		}
	return error;
}

/* The field's column is not tried again for a while. */
static void
remember_refusal(Oid relid, const char *field)
{
	static bool is_listening = false;
	Refusal    *refusal = refusal_of(relid, field);

	if (!is_listening)
	{
		CacheRegisterRelcacheCallback(forget_refusals, (Datum) 0);
		CacheRegisterSyscacheCallback(EVENTTRIGGEROID, forget_all_refusals, (Datum) 0);
	}
	is_listening = true;
	refusal->relid = relid;
	refusal->hash = hash_field(field);
	refusal->at = GetCurrentTimestamp();
}

/* Has the target, or a table that is to be one, refused it lately? */
static bool
is_refused(const CvxTarget *target, const char *field)
{
	Oid			relid = OidIsValid(target->rel->target) ? target->rel->target :
		RelationGetRelid(target->relation);
	const Refusal *refusal = refusal_of(relid, field);

	return refusal->relid == relid && refusal->hash == hash_field(field) &&
		!TimestampDifferenceExceeds(refusal->at, GetCurrentTimestamp(), REFUSED_MS);
}

/* The one place where it can be. */
static Refusal *
refusal_of(Oid relid, const char *field)
{
	return &refusals[(hash_field(field) ^ relid) % lengthof(refusals)];
}

static uint32
hash_field(const char *field)
{
	return hash_bytes((const unsigned char *) field, strlen(field));
}

/* The table has become another; with no OID, any may have. */
static void
forget_refusals(Datum arg, Oid relid)
{
	for (int i = 0; i < lengthof(refusals); i++)
		if (!OidIsValid(relid) || refusals[i].relid == relid)
			refusals[i].relid = InvalidOid;
}

static void
forget_all_refusals(Datum arg, int cacheid, uint32 hash)
{
	forget_refusals(arg, InvalidOid);
}

/* The column is the field's from now on; a new one (type is not NULL) is told. */
static void
note_column(CvxTarget *target, char *name, char *field, const char *type)
{
	CvxSubRel  *rel = target->rel;
	Jsonb	   *added = make_object((const char **) &name, (const char **) &field, 1);
	MemoryContext old;

	cvx_catalog_run(SPI_OK_UPDATE,
					"UPDATE @.convex_subscription_rel SET columns = columns || $3 WHERE subid = $1 AND relno = $2",
					"iij", target->sub->subid, rel->relno, added);

	/* for as long as the table's other properties are known */
	old = MemoryContextSwitchTo(GetMemoryChunkContext(rel));
	rel->columns = DatumGetJsonbP(DirectFunctionCall2(jsonb_concat,
													  JsonbPGetDatum(rel->columns),
													  JsonbPGetDatum(added)));
	MemoryContextSwitchTo(old);
	if (type)
		cvx_catalog_event(target->sub->subid, "column_added", rel,
						  psprintf("field \"%s\": column \"%s\" of type %s",
								   field, name, type));
}

/*
 * The name and type that the field's column has in the target itself, or will
 * have because it is named so and nobody's yet.
 */
static bool
known_column(CvxTarget *target, const char *field, char **name, const char **type)
{
	Oid			relid = target->rel->target;
	CvxTarget  *real;
	AttrNumber	attnum = InvalidAttrNumber;

	if (!OidIsValid(relid) || relid == RelationGetRelid(target->relation))
		return false;
	real = cvx_target_open(target->sub, target->rel, relid);
	for (int i = 0; i < real->nfields; i++)
		if (strcmp(real->columns[i].field, field) == 0)
			attnum = real->columns[i].attnum;
	if (attnum == InvalidAttrNumber && is_free(real, field))
		attnum = get_attnum(relid, field);
	if (attnum != InvalidAttrNumber)
	{
		*name = pstrdup(NameStr(TupleDescAttr(real->tupdesc, attnum - 1)->attname));
		*type = cvx_target_base_type(real->tupdesc, attnum);
	}
	cvx_target_close(real);
	return attnum != InvalidAttrNumber;
}

/* ------------------------------------------------------------------------
 * Values that did not fit
 * ------------------------------------------------------------------------
 */

static void
note_drift(CvxTarget *target, const char *drift)
{
	MemoryContext old;
	ListCell   *lc;

	foreach(lc, target->drifts)
		if (strcmp(lfirst(lc), drift) == 0)
			return;
	old = MemoryContextSwitchTo(MemoryContextGetParent(target->row.cxt));
	target->drifts = lappend(target->drifts, pstrdup(drift));
	MemoryContextSwitchTo(old);
}

/* Write an event for each drift that there is none for yet. */
void
cvx_target_report_drifts(CvxTarget *target)
{
	ListCell   *lc;

	foreach(lc, target->drifts)
		cvx_catalog_drift(target->sub->subid, target->rel, lfirst(lc));
}
