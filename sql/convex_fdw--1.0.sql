/* sql/convex_fdw--1.0.sql */

-- complain if script is sourced in psql, rather than via CREATE EXTENSION
\echo Use "CREATE EXTENSION convex_fdw" to load this file. \quit

-- The wrapper

CREATE FUNCTION convex_fdw_handler()
RETURNS fdw_handler
AS 'MODULE_PATHNAME'
LANGUAGE C STRICT;
COMMENT ON FUNCTION convex_fdw_handler() IS 'foreign-data wrapper handler of convex_fdw';

CREATE FUNCTION convex_fdw_validator(text[], oid)
RETURNS void
AS 'MODULE_PATHNAME'
LANGUAGE C STRICT;
COMMENT ON FUNCTION convex_fdw_validator(text[], oid) IS 'option validator of convex_fdw';

CREATE FOREIGN DATA WRAPPER convex_fdw
  HANDLER convex_fdw_handler
  VALIDATOR convex_fdw_validator;
COMMENT ON FOREIGN DATA WRAPPER convex_fdw IS 'tables of a Convex deployment';

-- Reading

CREATE FUNCTION convex_fdw_version()
RETURNS text
AS 'MODULE_PATHNAME'
LANGUAGE C STABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION convex_fdw_version() IS 'version of the loaded convex_fdw library';

CREATE FUNCTION convex_tables(server name,
    OUT component text, OUT table_name text, OUT columns text[])
RETURNS SETOF record
AS 'MODULE_PATHNAME'
LANGUAGE C VOLATILE STRICT PARALLEL RESTRICTED
COST 10000 ROWS 100;
COMMENT ON FUNCTION convex_tables(name) IS 'tables of a Convex deployment';
REVOKE EXECUTE ON FUNCTION convex_tables(name) FROM PUBLIC;

CREATE FUNCTION convex_json_schemas(server name)
RETURNS jsonb
AS 'MODULE_PATHNAME'
LANGUAGE C VOLATILE STRICT PARALLEL RESTRICTED
COST 10000;
COMMENT ON FUNCTION convex_json_schemas(name) IS 'JSON Schemas of a Convex deployment, by component and table';
REVOKE EXECUTE ON FUNCTION convex_json_schemas(name) FROM PUBLIC;

CREATE FUNCTION convex_snapshot(server name)
RETURNS bigint
AS 'MODULE_PATHNAME'
LANGUAGE C VOLATILE STRICT PARALLEL RESTRICTED
COST 10000;
COMMENT ON FUNCTION convex_snapshot(name) IS 'Convex snapshot that the statement reads, in nanoseconds since 1970';
REVOKE EXECUTE ON FUNCTION convex_snapshot(name) FROM PUBLIC;

CREATE FUNCTION convex_changes(server name, after bigint,
    tables text[] DEFAULT NULL, max_pages int DEFAULT NULL,
    OUT ts bigint, OUT component text, OUT table_name text, OUT id text,
    OUT deleted boolean, OUT document jsonb)
RETURNS SETOF record
AS 'MODULE_PATHNAME'
LANGUAGE C VOLATILE PARALLEL RESTRICTED
COST 10000 ROWS 1000;
COMMENT ON FUNCTION convex_changes(name, bigint, text[], int) IS 'change log of a Convex deployment after a timestamp; the last row tells where to go on';
REVOKE EXECUTE ON FUNCTION convex_changes(name, bigint, text[], int) FROM PUBLIC;

CREATE FUNCTION convex_test_connection(server name,
    OUT check_name text, OUT ok boolean, OUT detail text, OUT hint text)
RETURNS SETOF record
AS 'MODULE_PATHNAME'
LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE
COST 10000 ROWS 12;
COMMENT ON FUNCTION convex_test_connection(name) IS 'what works between this role and a Convex deployment, and what does not';
REVOKE EXECUTE ON FUNCTION convex_test_connection(name) FROM PUBLIC;

-- Connections

CREATE FUNCTION convex_fdw_get_connections(OUT server_name text, OUT valid boolean)
RETURNS SETOF record
AS 'MODULE_PATHNAME'
LANGUAGE C VOLATILE STRICT PARALLEL RESTRICTED;
COMMENT ON FUNCTION convex_fdw_get_connections() IS 'connections that this session holds to Convex deployments';
REVOKE EXECUTE ON FUNCTION convex_fdw_get_connections() FROM PUBLIC;

CREATE FUNCTION convex_fdw_disconnect(server_name name)
RETURNS boolean
AS 'MODULE_PATHNAME'
LANGUAGE C VOLATILE STRICT PARALLEL RESTRICTED;
COMMENT ON FUNCTION convex_fdw_disconnect(name) IS 'close this session''s connections to a server';
REVOKE EXECUTE ON FUNCTION convex_fdw_disconnect(name) FROM PUBLIC;

CREATE FUNCTION convex_fdw_disconnect_all()
RETURNS boolean
AS 'MODULE_PATHNAME'
LANGUAGE C VOLATILE STRICT PARALLEL RESTRICTED;
COMMENT ON FUNCTION convex_fdw_disconnect_all() IS 'close all of this session''s connections to Convex deployments';
REVOKE EXECUTE ON FUNCTION convex_fdw_disconnect_all() FROM PUBLIC;

-- Processes

CREATE FUNCTION convex_start_worker(name name)
RETURNS integer
AS 'MODULE_PATHNAME'
LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE;
COMMENT ON FUNCTION convex_start_worker(name) IS 'the process that follows a subscription; it is started if there is none';
REVOKE EXECUTE ON FUNCTION convex_start_worker(name) FROM PUBLIC;

CREATE FUNCTION convex_stop_worker(name name)
RETURNS boolean
AS 'MODULE_PATHNAME'
LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE;
COMMENT ON FUNCTION convex_stop_worker(name) IS 'end the process that follows a subscription, until convex_start_worker()';
REVOKE EXECUTE ON FUNCTION convex_stop_worker(name) FROM PUBLIC;

CREATE FUNCTION convex_workers(OUT database oid, OUT subid integer, OUT name name,
    OUT pid integer, OUT state text, OUT since timestamptz)
RETURNS SETOF record
AS 'MODULE_PATHNAME'
LANGUAGE C VOLATILE STRICT PARALLEL RESTRICTED;
COMMENT ON FUNCTION convex_workers() IS 'the subscriptions of all databases that the launcher knows, and their processes';
REVOKE EXECUTE ON FUNCTION convex_workers() FROM PUBLIC;
