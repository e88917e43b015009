/*
 * convex_fdw.c
 *		What happens at load?
 *
 * The rooms' initialisation in floor order; each room defines its own
 * settings and callbacks.
 *
 * Room: sql 7.7
 */
#include "postgres.h"

#include "fmgr.h"

#include "ground/compat.h"
#include "wire/address.h"
#include "wire/http.h"
#include "write/batch.h"
#include "write/clear.h"
#include "fdw/fdw_analyze.h"
#include "fdw/fdw_ask.h"
#include "fdw/fdw_import.h"
#include "fdw/fdw_on_conflict.h"
#include "fdw/fdw_snapshot.h"
#include "subscription/sub_catalog.h"
#include "subscription/sub_tables.h"
#include "subscription/sub_target.h"
#include "process/sub_launcher.h"
#include "process/sub_process.h"

PG_MODULE_MAGIC;

void		_PG_init(void);

void
_PG_init(void)
{
	cvx_address_init();
	cvx_http_init();
	cvx_batch_init();
	cvx_clear_init();
	cvx_snapshot_init();
	cvx_analyze_init();
	cvx_ask_init();
	cvx_on_conflict_init();
	cvx_catalog_init();
	cvx_target_init();
	cvx_import_init();
	cvx_process_init();
	cvx_launcher_init();
	cvx_reserve_guc_prefix("convex_fdw");
}
