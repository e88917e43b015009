/*
 * fdw_on_conflict.c
 *		Which INSERT has an ON CONFLICT that cannot be?
 *
 * Room: fdw 5.11
 */
#include "postgres.h"

#include "catalog/pg_class.h"
#include "foreign/foreign.h"
#include "optimizer/planner.h"
#include "parser/parsetree.h"
#include "utils/lsyscache.h"

#include "ground/compat.h"
#include "shape/options_read.h"
#include "fdw/fdw_on_conflict.h"

static planner_hook_type next_planner = NULL;

static PlannedStmt *refuse_on_conflict(Query *parse, const char *query_string,
									   int cursorOptions,
									   ParamListInfo boundParams);
static void check_query(Query *query);
static bool is_convex_table(Oid relid);

/* Called once when the library is loaded. */
void
cvx_on_conflict_init(void)
{
	next_planner = planner_hook;
	planner_hook = refuse_on_conflict;
}

/* The one error of ON CONFLICT. */
void
cvx_on_conflict_fail(void)
{
	ereport(ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg("ON CONFLICT is not supported for foreign tables of convex_fdw"),
			 errhint("With the table's option primary_key, an INSERT replaces the document that has its key.")));
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
		cvx_on_conflict_fail();
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
