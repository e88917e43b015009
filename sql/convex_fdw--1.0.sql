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

-- In a select list a function gives a row at a time. It asks for the right to
-- call convex_changes, which PostgreSQL inlines.
CREATE FUNCTION convex_changes_stream(server name, after bigint,
    tables text[], max_pages int,
    OUT ts bigint, OUT component text, OUT table_name text, OUT id text,
    OUT deleted boolean, OUT document jsonb)
RETURNS SETOF record
AS 'MODULE_PATHNAME'
LANGUAGE C VOLATILE PARALLEL RESTRICTED
COST 10000 ROWS 1000;
COMMENT ON FUNCTION convex_changes_stream(name, bigint, text[], int) IS 'what convex_changes is made of; call that';

CREATE FUNCTION convex_changes(server name, after bigint,
    tables text[] DEFAULT NULL, max_pages int DEFAULT NULL,
    OUT ts bigint, OUT component text, OUT table_name text, OUT id text,
    OUT deleted boolean, OUT document jsonb)
RETURNS SETOF record
LANGUAGE sql STABLE PARALLEL RESTRICTED
COST 10000 ROWS 1000
BEGIN ATOMIC
    SELECT (change).* FROM (SELECT convex_changes_stream(server, after, tables, max_pages) AS change OFFSET 0) AS stream;
END;
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

-- Writing: these functions send at once

CREATE FUNCTION convex_clear_tables(server name, VARIADIC tables text[])
RETURNS void
AS 'MODULE_PATHNAME'
LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE
COST 10000;
COMMENT ON FUNCTION convex_clear_tables(name, text[]) IS 'empty tables of a Convex deployment in one Convex transaction';
REVOKE EXECUTE ON FUNCTION convex_clear_tables(name, text[]) FROM PUBLIC;

CREATE FUNCTION convex_replace_tables(server name, VARIADIC tables text[])
RETURNS void
AS 'MODULE_PATHNAME'
LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE
COST 10000;
COMMENT ON FUNCTION convex_replace_tables(name, text[]) IS 'no longer supported by Convex; says what Convex says';
REVOKE EXECUTE ON FUNCTION convex_replace_tables(name, text[]) FROM PUBLIC;

CREATE FUNCTION convex_add_primary_key_indexes(server name, table_name text,
    primary_key text[])
RETURNS void
AS 'MODULE_PATHNAME'
LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE
COST 10000;
COMMENT ON FUNCTION convex_add_primary_key_indexes(name, text, text[]) IS 'begin to build the index that keyed imports of the airbyte route need';
REVOKE EXECUTE ON FUNCTION convex_add_primary_key_indexes(name, text, text[]) FROM PUBLIC;

CREATE FUNCTION convex_primary_key_indexes_ready(server name, VARIADIC tables text[])
RETURNS boolean
AS 'MODULE_PATHNAME'
LANGUAGE C VOLATILE STRICT PARALLEL RESTRICTED
COST 10000;
COMMENT ON FUNCTION convex_primary_key_indexes_ready(name, text[]) IS 'are the indexes of convex_add_primary_key_indexes() built?';
REVOKE EXECUTE ON FUNCTION convex_primary_key_indexes_ready(name, text[]) FROM PUBLIC;

CREATE FUNCTION convex_ensure_primary_key(foreign_table regclass,
    timeout interval DEFAULT '5 min', "check" boolean DEFAULT true)
RETURNS void
AS 'MODULE_PATHNAME'
LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE
COST 10000;
COMMENT ON FUNCTION convex_ensure_primary_key(regclass, interval, boolean) IS 'check the keys of a foreign table''s documents, make the index of its route and wait for it';
REVOKE EXECUTE ON FUNCTION convex_ensure_primary_key(regclass, interval, boolean) FROM PUBLIC;

CREATE FUNCTION convex_import(server name, table_name text, query text,
    mode text DEFAULT 'requireEmpty', component text DEFAULT NULL)
RETURNS bigint
AS 'MODULE_PATHNAME'
LANGUAGE C VOLATILE PARALLEL UNSAFE
COST 100000;
COMMENT ON FUNCTION convex_import(name, text, text, text, text) IS 'import the rows of a query as documents of a Convex table; gives their number';
REVOKE EXECUTE ON FUNCTION convex_import(name, text, text, text, text) FROM PUBLIC;

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

-- Subscriptions: the catalog

CREATE SEQUENCE convex_subscription_subid AS integer;
COMMENT ON SEQUENCE convex_subscription_subid IS 'numbers of subscriptions';

CREATE TABLE convex_subscription (
    subid integer PRIMARY KEY DEFAULT nextval('convex_subscription_subid'),
    name name NOT NULL UNIQUE,
    server name NOT NULL,
    server_oid oid NOT NULL DEFAULT 0,
    owner name NOT NULL,
    owner_oid oid NOT NULL DEFAULT 0,
    home text,
    enabled boolean NOT NULL,
    tables text[] NOT NULL,
    target_schema name NOT NULL,
    schema_oid oid NOT NULL DEFAULT 0,
    mode text NOT NULL CHECK (mode IN ('mirror', 'soft_delete', 'history')),
    protocol text NOT NULL CHECK (protocol = 'document_deltas'),
    poll_interval interval NOT NULL,
    options jsonb NOT NULL
);
COMMENT ON TABLE convex_subscription IS 'subscriptions: what is mirrored, and how';
COMMENT ON COLUMN convex_subscription.schema_oid IS 'the target schema, if a subscription made it';
COMMENT ON COLUMN convex_subscription.home IS 'the catalog that the OIDs are of; elsewhere only the names count, and the subscription is disabled';

CREATE TABLE convex_subscription_state (
    subid integer PRIMARY KEY,
    generation bigint NOT NULL DEFAULT 0,
    phase text NOT NULL DEFAULT 'starting'
        CHECK (phase IN ('starting', 'loading', 'reloading', 'following', 'load_too_slow')),
    deployment_url text,
    cursor bigint,
    reload boolean NOT NULL DEFAULT false,
    snapshot bigint,
    page_cursor text,
    load_restarts integer NOT NULL DEFAULT 0,
    load_started_at timestamptz,
    load_pages bigint NOT NULL DEFAULT 0,
    shown_from bigint,
    applied_at timestamptz,
    head_ts bigint,
    caught_up boolean NOT NULL DEFAULT false,
    check_wanted boolean NOT NULL DEFAULT false,
    checked_at timestamptz,
    rows bigint NOT NULL DEFAULT 0,
    pages bigint NOT NULL DEFAULT 0,
    bytes bigint NOT NULL DEFAULT 0,
    requests bigint NOT NULL DEFAULT 0,
    retries bigint NOT NULL DEFAULT 0,
    failures integer NOT NULL DEFAULT 0,
    failing_since timestamptz,
    next_attempt_at timestamptz,
    last_error_class text,
    last_error_code text,
    last_error_message text,
    last_error_at timestamptz,
    CHECK (CASE phase WHEN 'following' THEN cursor IS NOT NULL AND NOT reload
        WHEN 'reloading' THEN reload
        WHEN 'load_too_slow' THEN true ELSE cursor IS NULL AND NOT reload END),
    CHECK (page_cursor IS NULL OR snapshot IS NOT NULL)
) WITH (fillfactor = 50);
COMMENT ON TABLE convex_subscription_state IS 'where each subscription stands';

CREATE TABLE convex_subscription_rel (
    subid integer NOT NULL,
    relno integer NOT NULL,
    component text NOT NULL,
    table_name text NOT NULL,
    target_schema name NOT NULL,
    target_name name NOT NULL,
    target_oid oid NOT NULL DEFAULT 0,
    columns jsonb NOT NULL DEFAULT '{}',
    attnums jsonb,
    state text NOT NULL DEFAULT 'joining'
        CHECK (state IN ('joining', 'ready', 'resyncing', 'error', 'dropped')),
    load text DEFAULT 'wanted' CHECK (load IN ('wanted', 'walking', 'indexing', 'catching_up')),
    is_staged boolean NOT NULL DEFAULT false,
    snapshot bigint,
    synced_ts bigint,
    tablet text,
    check_cursor text,
    check_id text,
    checked_at timestamptz,
    copied_rows bigint NOT NULL DEFAULT 0,
    attempts integer NOT NULL DEFAULT 0,
    retry_at timestamptz,
    error_code text,
    error_message text,
    PRIMARY KEY (subid, component, table_name),
    UNIQUE (subid, relno),
    CHECK ((load IS NULL) = (state IN ('ready', 'dropped'))),
    CHECK (is_staged OR load IS NULL OR load NOT IN ('walking', 'indexing')),
    CHECK (snapshot IS NOT NULL OR load IS DISTINCT FROM 'indexing'),
    CHECK (state = 'dropped' OR (synced_ts IS NOT NULL) = (load IS NOT DISTINCT FROM 'catching_up'))
) WITH (fillfactor = 50);
COMMENT ON TABLE convex_subscription_rel IS 'tables of subscriptions and their states';
COMMENT ON COLUMN convex_subscription_rel.columns IS 'the fields of the columns, by name';
COMMENT ON COLUMN convex_subscription_rel.attnums IS 'the names that columns had when they were looked at last, by number: so a renamed one keeps its field';

CREATE SEQUENCE convex_subscription_eventid;
COMMENT ON SEQUENCE convex_subscription_eventid IS 'numbers of events of subscriptions';

CREATE TABLE convex_subscription_event (
    eventid bigint PRIMARY KEY DEFAULT nextval('convex_subscription_eventid'),
    subid integer NOT NULL,
    at timestamptz NOT NULL DEFAULT now(),
    kind text NOT NULL,
    component text,
    table_name text,
    detail text
);
CREATE INDEX convex_subscription_event_subid ON convex_subscription_event (subid, kind, component, table_name);
COMMENT ON TABLE convex_subscription_event IS 'what happened to subscriptions: re-snapshots, new and replaced tables, drift, errors';

SELECT pg_catalog.pg_extension_config_dump('convex_subscription_subid', '');
SELECT pg_catalog.pg_extension_config_dump('convex_subscription', '');
SELECT pg_catalog.pg_extension_config_dump('convex_subscription_state', '');
SELECT pg_catalog.pg_extension_config_dump('convex_subscription_rel', '');
SELECT pg_catalog.pg_extension_config_dump('convex_subscription_eventid', '');
SELECT pg_catalog.pg_extension_config_dump('convex_subscription_event', '');

-- The database's owner can dump it.
GRANT SELECT ON convex_subscription, convex_subscription_state, convex_subscription_rel, convex_subscription_event TO pg_database_owner;
GRANT SELECT ON SEQUENCE convex_subscription_subid, convex_subscription_eventid TO pg_database_owner;

CREATE FUNCTION convex_subscription_restored()
RETURNS trigger
AS 'MODULE_PATHNAME'
LANGUAGE C;
COMMENT ON FUNCTION convex_subscription_restored() IS 'makes a subscription that is restored or replicated come disabled and without OIDs';
REVOKE EXECUTE ON FUNCTION convex_subscription_restored() FROM PUBLIC;

CREATE TRIGGER restored BEFORE INSERT OR UPDATE ON convex_subscription
    FOR EACH ROW EXECUTE FUNCTION convex_subscription_restored();
ALTER TABLE convex_subscription ENABLE ALWAYS TRIGGER restored;
COMMENT ON TRIGGER restored ON convex_subscription IS 'a restored subscription is disabled';
CREATE TRIGGER restored BEFORE INSERT OR UPDATE ON convex_subscription_rel
    FOR EACH ROW EXECUTE FUNCTION convex_subscription_restored();
ALTER TABLE convex_subscription_rel ENABLE ALWAYS TRIGGER restored;
COMMENT ON TRIGGER restored ON convex_subscription_rel IS 'a restored table is found by its name';

-- Subscriptions: functions

CREATE FUNCTION convex_create_subscription(name name, server name,
    tables text[] DEFAULT '{*}', target_schema name DEFAULT NULL,
    mode text DEFAULT 'mirror', protocol text DEFAULT 'document_deltas',
    poll_interval interval DEFAULT '1 s', enabled boolean DEFAULT true,
    options jsonb DEFAULT '{}')
RETURNS integer
AS 'MODULE_PATHNAME'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION convex_create_subscription(name, name, text[], name, text, text, interval, boolean, jsonb) IS 'mirror tables of a Convex deployment into local tables';
REVOKE EXECUTE ON FUNCTION convex_create_subscription(name, name, text[], name, text, text, interval, boolean, jsonb) FROM PUBLIC;

CREATE FUNCTION convex_alter_subscription(name name,
    tables text[] DEFAULT NULL, poll_interval interval DEFAULT NULL,
    options jsonb DEFAULT NULL, server name DEFAULT NULL,
    owner name DEFAULT NULL)
RETURNS void
AS 'MODULE_PATHNAME'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION convex_alter_subscription(name, text[], interval, jsonb, name, name) IS 'change a subscription; what is NULL stays';
REVOKE EXECUTE ON FUNCTION convex_alter_subscription(name, text[], interval, jsonb, name, name) FROM PUBLIC;

CREATE FUNCTION convex_drop_subscription(name name, drop_tables boolean DEFAULT false)
RETURNS void
AS 'MODULE_PATHNAME'
LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE;
COMMENT ON FUNCTION convex_drop_subscription(name, boolean) IS 'end a subscription, and drop its tables if wanted';
REVOKE EXECUTE ON FUNCTION convex_drop_subscription(name, boolean) FROM PUBLIC;

CREATE PROCEDURE convex_drop_tables(name name)
AS 'MODULE_PATHNAME'
LANGUAGE C;
COMMENT ON PROCEDURE convex_drop_tables(name) IS 'disable a subscription and drop its tables, in several transactions';
REVOKE EXECUTE ON PROCEDURE convex_drop_tables(name) FROM PUBLIC;

CREATE FUNCTION convex_enable_subscription(name name)
RETURNS void
AS 'MODULE_PATHNAME'
LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE;
COMMENT ON FUNCTION convex_enable_subscription(name) IS 'let a subscription go on';
REVOKE EXECUTE ON FUNCTION convex_enable_subscription(name) FROM PUBLIC;

CREATE FUNCTION convex_disable_subscription(name name)
RETURNS void
AS 'MODULE_PATHNAME'
LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE;
COMMENT ON FUNCTION convex_disable_subscription(name) IS 'let a subscription rest';
REVOKE EXECUTE ON FUNCTION convex_disable_subscription(name) FROM PUBLIC;

CREATE FUNCTION convex_refresh_subscription(name name)
RETURNS void
AS 'MODULE_PATHNAME'
LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE;
COMMENT ON FUNCTION convex_refresh_subscription(name) IS 'look for new, replaced and dropped tables at the next step';
REVOKE EXECUTE ON FUNCTION convex_refresh_subscription(name) FROM PUBLIC;

CREATE FUNCTION convex_resync_table(name name, "table" text)
RETURNS void
AS 'MODULE_PATHNAME'
LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE;
COMMENT ON FUNCTION convex_resync_table(name, text) IS 'load one table of a subscription again';
REVOKE EXECUTE ON FUNCTION convex_resync_table(name, text) FROM PUBLIC;

CREATE FUNCTION convex_wait_for(name name, ts bigint DEFAULT NULL,
    timeout interval DEFAULT '30 s')
RETURNS boolean
AS 'MODULE_PATHNAME'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION convex_wait_for(name, bigint, interval) IS 'wait until a subscription shows what Convex had at a timestamp, or at the call';
REVOKE EXECUTE ON FUNCTION convex_wait_for(name, bigint, interval) FROM PUBLIC;

CREATE PROCEDURE convex_sync(name name DEFAULT NULL, max_pages integer DEFAULT NULL)
AS 'MODULE_PATHNAME'
LANGUAGE C;
COMMENT ON PROCEDURE convex_sync(name, integer) IS 'bring subscriptions to the head as of the call';
REVOKE EXECUTE ON PROCEDURE convex_sync(name, integer) FROM PUBLIC;

-- Subscriptions: views

CREATE FUNCTION convex_workers(OUT database oid, OUT subid integer, OUT name name,
    OUT pid integer, OUT state text, OUT since timestamptz)
RETURNS SETOF record
AS 'MODULE_PATHNAME'
LANGUAGE C VOLATILE STRICT PARALLEL RESTRICTED;
COMMENT ON FUNCTION convex_workers() IS 'the subscriptions of all databases that the launcher knows, and their processes; those of others for pg_read_all_stats';

CREATE VIEW convex_stat_subscription WITH (security_barrier) AS
SELECT s.subid, s.name, coalesce(f.srvname, s.server) AS server,
    coalesce(r.rolname, s.owner) AS owner, s.enabled AND h.is_home AS enabled,
    w.pid, coalesce(p.state, n.state) AS worker,
    CASE WHEN st.failing_since IS NOT NULL AND st.phase <> 'load_too_slow' THEN 'failing' ELSE st.phase END AS phase,
    s.protocol, st.cursor AS applied_ts, st.applied_at, st.head_ts,
    st.caught_up,
    CASE WHEN st.caught_up OR st.cursor >= st.head_ts THEN interval '0'
        ELSE ((st.head_ts - st.cursor) / 1000) * interval '1 microsecond' END AS lag,
    st.rows, st.pages, st.bytes, st.requests, st.retries,
    st.failing_since, st.next_attempt_at, st.last_error_class, st.last_error_code, st.last_error_message, st.last_error_at
FROM convex_subscription AS s
    JOIN convex_subscription_state AS st ON st.subid = s.subid
    CROSS JOIN LATERAL (
        SELECT coalesce(s.home = c.system_identifier || '/' || 'convex_subscription'::pg_catalog.regclass::pg_catalog.oid, false)
        FROM pg_catalog.pg_control_system() AS c) AS h (is_home)
    LEFT JOIN pg_catalog.pg_foreign_server AS f ON h.is_home AND f.oid = s.server_oid
    LEFT JOIN pg_catalog.pg_roles AS r
        ON CASE WHEN h.is_home THEN r.oid = s.owner_oid ELSE r.rolname = s.owner END
    LEFT JOIN LATERAL (
        SELECT l.pid FROM pg_catalog.pg_locks AS l
        WHERE l.locktype = 'advisory' AND l.granted
            AND l.database = (SELECT d.oid FROM pg_catalog.pg_database AS d WHERE d.datname = pg_catalog.current_database())
            AND l.classid = 'convex_subscription'::pg_catalog.regclass
            AND l.objid = s.subid::bigint::pg_catalog.oid AND l.objsubid = 11
        LIMIT 1) AS w ON true
    CROSS JOIN LATERAL (SELECT d.oid FROM pg_catalog.pg_database AS d WHERE d.datname = pg_catalog.current_database()) AS d
    LEFT JOIN convex_workers() AS p ON p.database = d.oid AND p.subid = s.subid
    LEFT JOIN convex_workers() AS n ON s.enabled AND h.is_home AND n.database = d.oid AND n.subid IS NULL
WHERE pg_catalog.pg_has_role('pg_read_all_stats', 'USAGE')
    OR r.oid IS NOT NULL AND pg_catalog.pg_has_role(r.oid, 'USAGE');
COMMENT ON VIEW convex_stat_subscription IS 'where each subscription of this database stands';
GRANT SELECT ON convex_stat_subscription TO PUBLIC;

CREATE VIEW convex_stat_subscription_rel WITH (security_barrier) AS
SELECT s.subid, s.name, r.component, r.table_name, r.target_schema,
    r.target_name, r.state, r.load,
    CASE WHEN r.state = 'error' THEN r.synced_ts ELSE coalesce(r.synced_ts, st.cursor) END AS synced_ts,
    r.checked_at, r.copied_rows, r.retry_at, r.error_code, r.error_message,
    CASE WHEN r.state = 'dropped' THEN NULL
        WHEN NOT s.enabled THEN 'enable'
        WHEN r.retry_at > pg_catalog.clock_timestamp() THEN 'retry_at'
        WHEN s.phase = 'load_too_slow' THEN 'enable'
        WHEN s.phase = 'failing' AND (r.load IS NOT NULL OR NOT s.caught_up) THEN 'next_attempt_at'
        WHEN s.pid IS NULL AND s.worker IS DISTINCT FROM 'running' THEN 'worker'
        WHEN r.load = 'wanted' THEN 'walk' END AS waits_for
FROM convex_stat_subscription AS s
    JOIN convex_subscription_state AS st ON st.subid = s.subid
    JOIN convex_subscription_rel AS r ON r.subid = s.subid;
COMMENT ON VIEW convex_stat_subscription_rel IS 'where each table of a subscription stands';
COMMENT ON COLUMN convex_stat_subscription_rel.waits_for IS 'why nothing happens to the table now; NULL: it is followed or loaded';
GRANT SELECT ON convex_stat_subscription_rel TO PUBLIC;

CREATE VIEW convex_stat_progress_snapshot WITH (security_barrier) AS
SELECT s.subid, s.name, s.pid, st.snapshot, st.load_started_at AS started_at,
    st.load_pages AS pages,
    (SELECT pg_catalog.sum(r.copied_rows) FROM convex_subscription_rel AS r
        WHERE r.subid = s.subid AND r.load IS NOT NULL) AS rows
FROM convex_stat_subscription AS s
    JOIN convex_subscription_state AS st ON st.subid = s.subid
WHERE st.snapshot IS NOT NULL;
COMMENT ON VIEW convex_stat_progress_snapshot IS 'loads of subscriptions that are under way';
GRANT SELECT ON convex_stat_progress_snapshot TO PUBLIC;

CREATE VIEW convex_stat_subscription_event WITH (security_barrier) AS
SELECT e.eventid, s.name, e.at, e.kind, e.component, e.table_name, e.detail
FROM convex_stat_subscription AS s
    JOIN convex_subscription_event AS e ON e.subid = s.subid;
COMMENT ON VIEW convex_stat_subscription_event IS 'what happened to subscriptions';
GRANT SELECT ON convex_stat_subscription_event TO PUBLIC;

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
