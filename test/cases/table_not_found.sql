-- A server that answers 404 for the page of a table that it no longer has made
-- the whole subscription fail as a breach of protocol.  The list of tables says
-- which table is gone: it is dropped, and the others go on.  A scan of such a
-- table is HV00R, as it is where the server gives an empty page for it.

\ir ../pgtap/lib/setup.sql
SELECT plan(12);

SELECT emu.server('convex', $$max_retries '0'$$) \g /dev/null
SELECT emu.insert('kept', '{"n": 1}') \g /dev/null
SELECT emu.insert('gone', '{"n": 1}') \g /dev/null
CREATE FOREIGN TABLE gone (_id text) SERVER convex;
CREATE FUNCTION not_found(path text) RETURNS jsonb LANGUAGE sql AS
$$ SELECT emu.fault(jsonb_build_object('path', path, 'where', '{"table": "gone"}'::jsonb, 'count', -1, 'action', 'status', 'status', 404)) $$;
CREATE FUNCTION states(subscription text) RETURNS text LANGUAGE sql AS
$$ SELECT string_agg(table_name || ' ' || state, ', ' ORDER BY table_name) FROM convex_stat_subscription_rel WHERE name = subscription $$;

-- Of a table that is listed it is what it says.
SELECT not_found('/api') \g /dev/null
SELECT is(emu.failure('SELECT * FROM gone') ->> 'sqlstate', '0A000', 'a page of a listed table that is not found is no known request');
SELECT emu.clear_faults() \g /dev/null
SELECT convex_create_subscription('followed', 'convex') \g /dev/null
CALL convex_sync('followed');
SELECT is(states('followed'), 'gone ready, kept ready', 'both tables are followed');
CREATE FUNCTION changes_not_found() RETURNS jsonb LANGUAGE sql AS
$$ SELECT emu.fault('{"path": "/api/document_deltas", "count": 1, "action": "status", "status": 404}') $$;
SELECT changes_not_found() \g /dev/null
\set ON_ERROR_STOP 0
CALL convex_sync('followed');
\set listed :LAST_ERROR_SQLSTATE
\set ON_ERROR_STOP 1
SELECT is(:'listed'::text, '0A000', 'a subscription says so of a listed table');
SELECT is(states('followed'), 'gone ready, kept ready', 'and keeps it');
SELECT emu.clear_faults() \g /dev/null
CALL convex_sync('followed');

-- A load that has begun, and one that follows.
SELECT convex_create_subscription('loading', 'convex') \g /dev/null
SELECT emu.mutate('[{"op": "drop_table", "table": "gone"}]') \g /dev/null
SELECT emu.insert('kept', '{"n": 2}') \g /dev/null
SELECT not_found('/api'), changes_not_found() \g /dev/null
SELECT is(emu.failure('SELECT * FROM gone') ->> 'sqlstate', 'HV00R', 'a scan of a table that is gone is HV00R');
CALL convex_sync('followed');
SELECT is(states('followed'), 'gone dropped, kept ready', 'a table that is not found and not listed is dropped');
SELECT results_eq('SELECT n FROM followed.kept ORDER BY n', 'VALUES (1::float8), (2)', 'the other one is followed');
SELECT is((SELECT count(*) FROM followed.gone), 1::bigint, 'and its rows stay');
SELECT is((SELECT last_error_code FROM convex_stat_subscription WHERE name = 'followed' AND failing_since IS NOT NULL), NULL, 'nothing fails');
SELECT ok(EXISTS (SELECT FROM convex_stat_subscription_event WHERE name = 'followed' AND kind = 'table_dropped' AND table_name = 'gone'), 'there is an event');
CALL convex_sync('loading');
SELECT is(states('loading'), 'gone dropped, kept ready', 'so it is with a first load');
SELECT results_eq('SELECT n FROM loading.kept ORDER BY n', 'VALUES (1::float8), (2)', 'whose other table comes in');

SELECT * FROM finish();
