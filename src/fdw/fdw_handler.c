/*
 * fdw_handler.c
 *		Which callbacks exist?
 *
 * Room: fdw 5.16
 */
#include "postgres.h"

#include "access/reloptions.h"
#include "fmgr.h"

#include "ground/compat.h"
#include "shape/options_declare.h"
#include "fdw/fdw_analyze.h"
#include "fdw/fdw_async.h"
#include "fdw/fdw_explain.h"
#include "fdw/fdw_import.h"
#include "fdw/fdw_modify.h"
#include "fdw/fdw_paths.h"
#include "fdw/fdw_plan.h"
#include "fdw/fdw_scan.h"

PG_FUNCTION_INFO_V1(convex_fdw_handler);
PG_FUNCTION_INFO_V1(convex_fdw_validator);

/* The wrapper's callbacks; a struct in the current context. */
Datum
convex_fdw_handler(PG_FUNCTION_ARGS)
{
	FdwRoutine *routine = makeNode(FdwRoutine);

	routine->GetForeignRelSize = convexGetForeignRelSize;
	routine->GetForeignPaths = convexGetForeignPaths;
	routine->GetForeignUpperPaths = convexGetForeignUpperPaths;
	routine->GetForeignPlan = convexGetForeignPlan;
	routine->BeginForeignScan = convexBeginForeignScan;
	routine->IterateForeignScan = convexIterateForeignScan;
	routine->ReScanForeignScan = convexReScanForeignScan;
	routine->EndForeignScan = convexEndForeignScan;
	routine->ExplainForeignScan = convexExplainForeignScan;
	routine->AddForeignUpdateTargets = convexAddForeignUpdateTargets;
	routine->PlanForeignModify = convexPlanForeignModify;
	routine->BeginForeignModify = convexBeginForeignModify;
	routine->ExecForeignInsert = convexExecForeignInsert;
	routine->ExecForeignUpdate = convexExecForeignUpdate;
	routine->ExecForeignDelete = convexExecForeignDelete;
	routine->EndForeignModify = convexEndForeignModify;
	routine->BeginForeignInsert = convexBeginForeignInsert;
	routine->EndForeignInsert = convexEndForeignInsert;
	routine->IsForeignRelUpdatable = convexIsForeignRelUpdatable;
	routine->ExplainForeignModify = convexExplainForeignModify;
	routine->ExecForeignTruncate = convexExecForeignTruncate;
	routine->AnalyzeForeignTable = convexAnalyzeForeignTable;
	routine->ImportForeignSchema = convexImportForeignSchema;
	routine->IsForeignPathAsyncCapable = convexIsForeignPathAsyncCapable;
	routine->ForeignAsyncRequest = convexForeignAsyncRequest;
	routine->ForeignAsyncConfigureWait = convexForeignAsyncConfigureWait;
	routine->ForeignAsyncNotify = convexForeignAsyncNotify;
	PG_RETURN_POINTER(routine);
}

/* Called by CREATE and ALTER of servers, mappings, tables and columns. */
Datum
convex_fdw_validator(PG_FUNCTION_ARGS)
{
	cvx_options_validate(untransformRelOptions(PG_GETARG_DATUM(0)),
						 PG_GETARG_OID(1));
	PG_RETURN_VOID();
}
