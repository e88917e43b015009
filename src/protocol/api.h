/*
 * api.h
 *		What does each endpoint take and give; may it be repeated?
 *
 * Room: protocol 2.4
 */
#ifndef CVX_API_H
#define CVX_API_H

#include "utils/jsonb.h"

#include "wire/http.h"
#include "protocol/page.h"

/* Which tables and fields a request asks for. */
typedef struct CvxSelection
{
	const CvxTableName *tables;
	int			ntables;		/* 0: see is_everything */
	bool		is_everything;	/* every table; otherwise none */
	bool		is_whole;		/* every field; otherwise fields and _id */
	const char *const *fields;
	int			nfields;
} CvxSelection;

extern CvxCall *cvx_api_list_snapshot(CvxHttp *http, CvxHttpStats *stats,
									  const CvxSelection *selection,
									  int64 snapshot, const char *cursor);
extern CvxCall *cvx_api_document_deltas(CvxHttp *http, CvxHttpStats *stats,
										const CvxSelection *selection,
										int64 cursor);
extern CvxPage *cvx_api_page(CvxCall *call, CvxHttp *http,
							 const CvxPageWant *want);
extern bool cvx_api_has_code(CvxCall *call, int status, const char *code);
extern int64 cvx_api_fresh_snapshot(CvxHttp *http);
extern int64 cvx_api_query_ts(CvxHttp *http);
extern int64 cvx_api_head(CvxHttp *http, const char *more);
extern int64 cvx_api_sure_head(CvxHttp *http);
extern bool cvx_api_column_names(CvxHttp *http, const CvxTableName *only,
								 List **tables);
extern Jsonb *cvx_api_json_schemas(CvxHttp *http, bool missing_ok);
extern Jsonb *cvx_api_declared_schema(CvxHttp *http);
extern List *cvx_api_tables(CvxHttp *http, bool *is_readable);
extern char *cvx_api_one_document(CvxHttp *http, const char *table);

/* How a write ended. */
typedef enum CvxOutcome
{
	CVX_OUTCOME_APPLIED,
	CVX_OUTCOME_REFUSED,		/* nothing of the request was applied */
	CVX_OUTCOME_UNKNOWN
} CvxOutcome;

extern CvxCall *cvx_api_import_airbyte_records(CvxHttp *http,
											   const char *body);
extern CvxCall *cvx_api_apply_fivetran_operations(CvxHttp *http,
												  const char *body);
extern CvxCall *cvx_api_clear_tables(CvxHttp *http, const char *const *tables,
									 int ntables);
extern bool cvx_api_is_conflict(CvxCall *call);
extern CvxOutcome cvx_api_outcome(CvxCall *call);
extern void cvx_api_finish_write(CvxCall *call, CvxHttp *http,
								 const char *more, const char *hint);
extern bool cvx_api_await_write(CvxCall *call);
CVX_NORETURN extern void cvx_api_fail_write(CvxCall *call, CvxHttp *http,
											const char *more,
											const char *hint);

/* indexes, and what is no longer there */
CVX_NORETURN extern void cvx_api_replace_tables(CvxHttp *http,
												const char *const *tables,
												int ntables);
extern CvxCall *cvx_api_add_primary_key(CvxHttp *http, const char *table,
										List *paths);
extern CvxCall *cvx_api_primary_keys_ready(CvxHttp *http,
										   const char *const *tables,
										   int ntables);
extern bool cvx_api_is_ready(CvxCall *call, CvxHttp *http);
extern CvxCall *cvx_api_create_fivetran_table(CvxHttp *http, const char *table,
											  List *paths);
extern CvxCall *cvx_api_probe_fivetran_key(CvxHttp *http, const char *table,
										   const char *row);

/* snapshot imports */
extern char *cvx_api_start_upload(CvxHttp *http);
extern char *cvx_api_upload_part(CvxHttp *http, const char *token, int number,
								 const char *data, size_t len);
extern char *cvx_api_finish_upload(CvxHttp *http, const char *token,
								   const char *part_tokens, const char *mode,
								   const char *component);
extern CvxCall *cvx_api_query_import(CvxHttp *http, const char *import_id);
extern CvxCall *cvx_api_perform_import(CvxHttp *http, const char *import_id);
extern CvxCall *cvx_api_cancel_import(CvxHttp *http, const char *import_id);

extern void cvx_api_expect_success(CvxCall *call, CvxHttp *http);
extern CvxCall *cvx_api_ask(CvxHttp *http, const char *method,
							const char *path, const char *body);
extern void cvx_api_fail_if_lost(CvxCall *call, CvxHttp *http, int64 snapshot,
								 bool is_chosen);
extern Jsonb *cvx_api_json(CvxCall *call, CvxHttp *http);
CVX_NORETURN extern void cvx_api_fail(CvxCall *call, CvxHttp *http,
									  const char *more);

#endif							/* CVX_API_H */
