-- The old rows of a table that a load of everything left behind, and those of
-- a table that had been dropped in Convex and was there again, got the changes
-- from the new cursor on: a mixture that Convex never had. They stand still
-- until the new ones are there.

\ir ../pgtap/lib/setup.sql
SELECT plan(11);

SELECT emu.server('convex') \g /dev/null
SELECT emu.config('{"page_limit": 10}') \g /dev/null

CREATE FUNCTION state_of(tbl text) RETURNS text LANGUAGE sql AS
$$ SELECT concat_ws(' ', state, load, error_message) FROM convex_stat_subscription_rel WHERE table_name = tbl $$;

SELECT emu.insert('a', jsonb_build_object('x', i)) FROM generate_series(1, 15) AS i \g /dev/null
SELECT emu.insert('b', jsonb_build_object('x', i)) FROM generate_series(1, 15) AS i \g /dev/null
SELECT convex_create_subscription('app', 'convex', '{a,b}') \g /dev/null
CALL convex_sync('app');
SELECT emu.mutate(jsonb_build_array(jsonb_build_object('op', 'delete', 'table', 'a', 'id', (SELECT min(_id) FROM app.a)))) \g /dev/null
SELECT emu.fault('{"action": "status", "status": 400, "code": "InvalidWindowToReadDocuments", "path": "/api/document_deltas", "count": 1}') \g /dev/null
CALL convex_sync('app', 1);
CALL convex_sync('app', 1);
CALL convex_sync('app', 1);
CALL convex_sync('app', 1);
CALL convex_sync('app', 1);
SELECT matches(state_of('a'), '^resyncing indexing', 'all tables are loaded again');
SELECT emu.config('{"delta_limit": 10}') \g /dev/null
SELECT emu.insert('b', jsonb_build_object('x', i)) FROM generate_series(1, 35) AS i \g /dev/null
CALL convex_sync('app', 1);
SELECT convex_resync_table('app', 'a') \g /dev/null
CALL convex_sync('app', 1);
CALL convex_sync('app', 1);
CALL convex_sync('app', 1);
CALL convex_sync('app', 1);
SELECT is((SELECT count(*) FROM app.b), 50::bigint, 'the others are there again');
SELECT is(state_of('a'), 'error wanted asked for', 'a table that left the load in between is not');
SELECT emu.insert('a', '{"x": 99}') \g /dev/null
CALL convex_sync('app', 1);
SELECT matches(state_of('a'), 'error walking asked for', 'changes arrive while it is loaded');
SELECT is((SELECT concat_ws(' ', min(x), max(x), count(*)) FROM app.a), '1 15 15', 'its rows stand still');
CALL convex_sync('app');
SELECT is((SELECT concat_ws(' ', max(x), count(*)) FROM app.a), '99 15', 'until the new ones are there');

-- A table that comes back.
SELECT emu.mutate('[{"op": "drop_table", "table": "a"}]') \g /dev/null
SELECT convex_refresh_subscription('app') \g /dev/null
CALL convex_sync('app');
SELECT is(state_of('a'), 'dropped', 'a table is dropped');
SELECT emu.insert('a', jsonb_build_object('x', i)) FROM generate_series(200, 220) AS i \g /dev/null
SELECT emu.insert('b', '{"x": 100}') \g /dev/null
CALL convex_sync('app', 3);
SELECT matches(state_of('a'), '^error \w+ Convex has the table again', 'and comes back');
SELECT is((SELECT max(x) FROM app.a), 99::float8, 'its old rows stand still');
CALL convex_sync('app');
SELECT is((SELECT concat_ws(' ', min(x), max(x), count(*)) FROM app.a), '200 220 21', 'until the new ones are there');
SELECT is(state_of('a'), 'ready', 'and follow');

SELECT * FROM finish();
