/*
 * compat.h
 *		What differs between the supported versions of PostgreSQL (14 to 18)
 *		and of libcurl?
 *
 * The only file that looks at version macros.  http_curl.c includes curl/curl.h
 * before this header to get the libcurl part.
 *
 * Room: ground 0.1
 */
#ifndef CVX_COMPAT_H
#define CVX_COMPAT_H

#include "access/genam.h"
#include "access/tableam.h"
#include "catalog/pg_publication.h"
#include "commands/explain.h"
#include "executor/executor.h"
#include "storage/lock.h"
#include "utils/acl.h"
#include "utils/guc.h"
#include "utils/resowner.h"
#include "utils/snapmgr.h"
#include "utils/wait_event.h"

#if PG_VERSION_NUM < 140000
#error "convex_fdw needs PostgreSQL 14 or later"
#endif

#if PG_VERSION_NUM >= 180000
#include "commands/explain_format.h"
#include "commands/explain_state.h"
#endif

#if PG_VERSION_NUM >= 160000
#include "catalog/pg_database.h"
#include "catalog/pg_foreign_server.h"
#include "catalog/pg_namespace.h"
#include "catalog/pg_proc.h"
#define cvx_check_can_become(member, role) check_can_set_role(member, role)
#define cvx_server_aclcheck(serverid, userid) \
	object_aclcheck(ForeignServerRelationId, serverid, userid, ACL_USAGE)
#define cvx_function_aclcheck(function, userid) \
	object_aclcheck(ProcedureRelationId, function, userid, ACL_EXECUTE)
#define cvx_schema_aclcheck(schema, userid) \
	object_aclcheck(NamespaceRelationId, schema, userid, ACL_CREATE)
#define cvx_database_aclcheck(database, userid) \
	object_aclcheck(DatabaseRelationId, database, userid, ACL_CREATE)
#define cvx_database_ownercheck(dbid, userid) \
	object_ownercheck(DatabaseRelationId, dbid, userid)
#define cvx_scan_user(fsplan, estate) \
	(OidIsValid((fsplan)->checkAsUser) ? (fsplan)->checkAsUser : GetUserId())
#define cvx_modify_user(rri, estate) \
	ExecGetResultRelCheckAsUser(rri, estate)
#else
#define cvx_check_can_become(member, role) \
	check_is_member_of_role(member, role)
#define cvx_server_aclcheck(serverid, userid) \
	pg_foreign_server_aclcheck(serverid, userid, ACL_USAGE)
#define cvx_function_aclcheck(function, userid) \
	pg_proc_aclcheck(function, userid, ACL_EXECUTE)
#define cvx_schema_aclcheck(schema, userid) \
	pg_namespace_aclcheck(schema, userid, ACL_CREATE)
#define cvx_database_aclcheck(database, userid) \
	pg_database_aclcheck(database, userid, ACL_CREATE)
#define cvx_database_ownercheck(dbid, userid) \
	pg_database_ownercheck(dbid, userid)
#define cvx_scan_user(fsplan, estate) \
	cvx_rte_user(exec_rt_fetch(cvx_scan_relid(fsplan), estate))
#define cvx_modify_user(rri, estate) \
	cvx_rte_user(exec_rt_fetch((rri)->ri_RangeTableIndex != 0 ? \
							   (rri)->ri_RangeTableIndex : \
							   (rri)->ri_RootResultRelInfo->ri_RangeTableIndex, \
							   estate))
#define cvx_rte_user(rte) \
	(OidIsValid((rte)->checkAsUser) ? (rte)->checkAsUser : GetUserId())
#endif

#if PG_VERSION_NUM >= 150000
#define cvx_reserve_guc_prefix(prefix) MarkGUCPrefixReserved(prefix)
#else
#define cvx_reserve_guc_prefix(prefix) EmitWarningsOnPlaceholders(prefix)
#endif

/* Publications FOR TABLES IN SCHEMA. */
#if PG_VERSION_NUM >= 150000
#define cvx_schema_publications(schema) GetSchemaPublications(schema)
#else
#define cvx_schema_publications(schema) NIL
#endif

#if PG_VERSION_NUM >= 180000
#define cvx_create_foreignscan_path(root, rel, rows, startup, total, pathkeys, private) \
	create_foreignscan_path(root, rel, NULL, rows, 0, startup, total, \
							pathkeys, NULL, NULL, NIL, private)
#elif PG_VERSION_NUM >= 170000
#define cvx_create_foreignscan_path(root, rel, rows, startup, total, pathkeys, private) \
	create_foreignscan_path(root, rel, NULL, rows, startup, total, \
							pathkeys, NULL, NULL, NIL, private)
#else
#define cvx_create_foreignscan_path(root, rel, rows, startup, total, pathkeys, private) \
	create_foreignscan_path(root, rel, NULL, rows, startup, total, \
							pathkeys, NULL, NULL, private)
#endif

/* 18 declares the base64 functions with unsigned destinations. */
#if PG_VERSION_NUM >= 180000
#define cvx_b64_decode(src, len, dst, dstlen) \
	pg_b64_decode(src, len, (uint8 *) (dst), dstlen)
#define cvx_b64_encode(src, len, dst, dstlen) \
	pg_b64_encode((const uint8 *) (src), len, dst, dstlen)
#else
#define cvx_b64_decode(src, len, dst, dstlen) \
	pg_b64_decode(src, len, (char *) (dst), dstlen)
#define cvx_b64_encode(src, len, dst, dstlen) \
	pg_b64_encode((const char *) (src), len, dst, dstlen)
#endif

/* Stands before a declaration. */
#if PG_VERSION_NUM >= 180000
#define CVX_NORETURN pg_noreturn
#else
#define CVX_NORETURN pg_attribute_noreturn()
#endif

/* A random number in [0, 1) of a reservoir's state. */
#if PG_VERSION_NUM >= 150000
#define cvx_random_fraction(state) sampler_random_fract(&(state).randstate)
#else
#define cvx_random_fraction(state) sampler_random_fract((state).randstate)
#endif

/* A plan's subtransaction under parallel mode became legal in 17. */
#if PG_VERSION_NUM >= 170000
#define cvx_estimate_array_length(root, expr) estimate_array_length(root, expr)
#else
#define cvx_estimate_array_length(root, expr) estimate_array_length(expr)
#endif

#if PG_VERSION_NUM >= 170000
#define cvx_may_start_subxact() true
#else
#define cvx_may_start_subxact() (!IsInParallelMode())
#endif

/* 14 has no hook in which a library asks for shared memory: it just asks. */
#if PG_VERSION_NUM >= 150000
#define CVX_HOOK_SHMEM_REQUEST(previous, hook) \
	((previous) = shmem_request_hook, shmem_request_hook = (hook))
#else
typedef void (*shmem_request_hook_type) (void);
#define CVX_HOOK_SHMEM_REQUEST(previous, hook) (hook) ()
#endif
#define cvx_previous_shmem_request(previous) \
	((previous) ? (previous) () : (void) 0)

/* One process as pg_stat_activity sees it, from 1 on. */
#if PG_VERSION_NUM >= 160000
#define cvx_local_beentry(i) pgstat_get_local_beentry_by_index(i)
#else
#define cvx_local_beentry(i) pgstat_fetch_stat_local_beentry(i)
#endif

/* Which indexes an update has left to do. */
#if PG_VERSION_NUM >= 160000
typedef TU_UpdateIndexes CvxIndexUpdate;
#define CVX_INDEXES_ALL TU_All
#define cvx_needs_index_update(indexes) ((indexes) != TU_None)
#define cvx_insert_index_tuples(result, slot, estate, is_update, indexes) \
	list_free(ExecInsertIndexTuples(result, slot, estate, is_update, false, \
									NULL, NIL, (indexes) == TU_Summarizing))
#else
typedef bool CvxIndexUpdate;
#define CVX_INDEXES_ALL true
#define cvx_needs_index_update(indexes) (indexes)
#define cvx_insert_index_tuples(result, slot, estate, is_update, indexes) \
	list_free(ExecInsertIndexTuples(result, slot, estate, is_update, false, \
									NULL, NIL))
#endif

#if PG_VERSION_NUM >= 180000
#define cvx_index_beginscan(relation, index, snapshot, nkeys) \
	index_beginscan(relation, index, snapshot, NULL, nkeys, 0)
#else
#define cvx_index_beginscan(relation, index, snapshot, nkeys) \
	index_beginscan(relation, index, snapshot, nkeys, 0)
#endif

/* Is a lock held by this process, in just this mode? */
#if PG_VERSION_NUM >= 170000
#define cvx_lock_is_held(tag, mode) LockHeldByMe(tag, mode, false)
#else
#define cvx_lock_is_held(tag, mode) LockHeldByMe(tag, mode)
#endif

#if PG_VERSION_NUM >= 180000
#define cvx_pathkey_descends(key) ((key)->pk_cmptype == COMPARE_GT)
#else
#define cvx_pathkey_descends(key) ((key)->pk_strategy == BTGreaterStrategyNumber)
#endif

/* The number in the range table of the one table that a plan reads. */
#define cvx_scan_relid(fsplan) \
	((fsplan)->scan.scanrelid != 0 ? (fsplan)->scan.scanrelid : \
	 (Index) bms_next_member((fsplan)->fs_relids, -1))

#if PG_VERSION_NUM >= 180000
#define cvx_create_foreign_upper_path(root, rel, rows, startup, total, private) \
	create_foreign_upper_path(root, rel, (rel)->reltarget, rows, 0, startup, total, \
							  NIL, NULL, NIL, private)
#elif PG_VERSION_NUM >= 170000
#define cvx_create_foreign_upper_path(root, rel, rows, startup, total, private) \
	create_foreign_upper_path(root, rel, (rel)->reltarget, rows, startup, total, \
							  NIL, NULL, NIL, private)
#else
#define cvx_create_foreign_upper_path(root, rel, rows, startup, total, private) \
	create_foreign_upper_path(root, rel, (rel)->reltarget, rows, startup, total, \
							  NIL, NULL, private)
#endif

/* The wait event that all of our waits report. */
#define CVX_WAIT_EVENT PG_WAIT_EXTENSION

/* Elsewhere http_curl.c polls; see cvx_curl_wait(). */
#if defined(HAVE_SYS_EPOLL_H) && !defined(CVX_NO_EPOLL)
#define CVX_USE_EPOLL 1
#endif

/* ------------------------------------------------------------------------
 * libcurl
 * ------------------------------------------------------------------------
 */
#ifdef LIBCURL_VERSION_NUM

/* CURLE_TOO_LARGE of 8.6.0, as a number that older headers do not name. */
#define CVX_CURLE_TOO_LARGE 100

/* CURLE_SSL_CLIENTCERT of 7.77.0 likewise */
#define CVX_CURLE_SSL_CLIENTCERT 98

#if LIBCURL_VERSION_NUM >= 0x075500		/* 7.85.0 */
#define cvx_curl_limit_protocols(easy) \
	curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https")
#else
#define cvx_curl_limit_protocols(easy) \
	curl_easy_setopt(easy, CURLOPT_PROTOCOLS, \
					 (long) (CURLPROTO_HTTP | CURLPROTO_HTTPS))
#endif

#if LIBCURL_VERSION_NUM >= 0x075700		/* 7.87.0 */
#define cvx_curl_quick_exit(easy) \
	curl_easy_setopt(easy, CURLOPT_QUICK_EXIT, 1L)

/* Earlier versions read the authorities for each connection. */
#define cvx_curl_keep_no_authorities(easy) \
	curl_easy_setopt(easy, CURLOPT_CA_CACHE_TIMEOUT, 0L)
#else
#define cvx_curl_quick_exit(easy) ((void) 0)
#define cvx_curl_keep_no_authorities(easy) ((void) 0)
#endif

#endif							/* LIBCURL_VERSION_NUM */

#endif							/* CVX_COMPAT_H */
