-- Subscriptions to servers that do not know `selection`, as before 2025-08:
-- one table by itself can be followed there.

\ir lib/setup.sql
CREATE EXTENSION dblink;
SELECT plan(16);

SELECT emu.config('{"selection_supported": false, "page_limit": 10}') \g /dev/null
SELECT emu.server() \g /dev/null
CREATE FUNCTION state(statement text) RETURNS text LANGUAGE sql AS
$$ SELECT coalesce(emu.failure(statement) ->> 'sqlstate', 'no error') $$;
CREATE FUNCTION source(table_name text, component text DEFAULT '') RETURNS SETOF text LANGUAGE sql AS
$$ SELECT (d ->> '_id') || ' ' || (d ->> 'x') FROM emu.dump(table_name, component) AS d $$;
CREATE FUNCTION events(subscription name) RETURNS text[] LANGUAGE sql AS
$$ SELECT array_agg(kind ORDER BY eventid) FROM convex_stat_subscription_event WHERE name = subscription $$;

SELECT emu.insert('one', VARIADIC ARRAY(SELECT jsonb_build_object('x', 'a' || i) FROM generate_series(1, 25) AS i)) \g /dev/null
SELECT convex_create_subscription('every', 'convex') \g /dev/null
SELECT emu.insert('two', '{"x": "b"}') \g /dev/null
SELECT emu.mutate('[{"op": "insert", "table": "deep", "component": "part", "doc": {"x": "c"}}]') \g /dev/null

SELECT is(state($$ SELECT convex_create_subscription('both', 'convex') $$), '0A000', 'several tables of an older server are refused');
SELECT is(state($$ SELECT convex_create_subscription('both', 'convex', '{one,two}') $$), '0A000', 'however they are chosen');
SELECT is((SELECT count(*) FROM convex_stat_subscription WHERE name = 'both'), 0::bigint, 'and nothing is left of it');
SELECT is((SELECT count(*) FROM pg_namespace WHERE nspname = 'both'), 0::bigint, 'no schema either');

SELECT emu.clear_journal() \g /dev/null
SELECT convex_create_subscription('single', 'convex', '{one}') \g /dev/null
SELECT convex_create_subscription('nested', 'convex', '{part/*}') \g /dev/null
CALL convex_sync('single');
CALL convex_sync('nested');
SELECT bag_eq('SELECT _id || '' '' || x FROM single.one', $$ SELECT source('one') $$, 'one table is loaded from an older server');
SELECT bag_eq('SELECT _id || '' '' || x FROM nested.part_deep', $$ SELECT source('deep', 'part') $$, 'one of a component as well');
SELECT is((SELECT count(*) FROM emu.journal('/api/list_snapshot') AS r WHERE r -> 'body' ->> 'tableName' IS NULL), 0::bigint, 'no request asks for more than that');
SELECT emu.mutate('[{"op": "insert", "table": "one", "doc": {"x": "new"}}, {"op": "insert", "table": "two", "doc": {"x": "no"}}]') \g /dev/null
SELECT emu.mutate(jsonb_build_array(jsonb_build_object('op', 'delete', 'table', 'one', 'id', (SELECT min(d ->> '_id') FROM emu.dump('one') AS d)))) \g /dev/null
CALL convex_sync('single');
SELECT bag_eq('SELECT _id || '' '' || x FROM single.one', $$ SELECT source('one') $$, 'and followed');
SELECT emu.mutate('[{"op": "drop_table", "table": "one"}]') \g /dev/null
SELECT emu.insert('one', '{"x": "again"}') \g /dev/null
SELECT convex_refresh_subscription('single') \g /dev/null
CALL convex_sync('single');
SELECT bag_eq('SELECT _id || '' '' || x FROM single.one', $$ SELECT source('one') $$, 'when it is replaced as well');
SELECT is(events('single'), '{created,table_joined,table_replaced,table_resynced}', 'the events tell');
SELECT is(to_regclass('single.two'), NULL, 'without a row of another table');

-- A subscription to all tables, made when there was one, cannot go on when there are more.
SELECT is(emu.failure(format($$ SELECT dblink_exec(%L, 'CALL convex_sync(''every'')') $$, format('host=%s port=%s dbname=%s user=postgres', split_part(current_setting('unix_socket_directories'), ',', 1), current_setting('port'), current_database()))) ->> 'sqlstate',
	'HV00M', 'a subscription to all tables fails when a second one appears');
SELECT bag_eq('SELECT _id || '' '' || x FROM every.one', $$ SELECT source('one') $$, 'with the first one as it was');
SELECT is((SELECT count(*) FROM pg_class WHERE relnamespace = 'every'::regnamespace AND relkind = 'r'), 1::bigint, 'and no other');
SELECT emu.config('{"selection_supported": true}') \g /dev/null
CALL convex_sync('every');
SELECT bag_eq('SELECT _id || '' '' || x FROM every.two', $$ SELECT source('two') $$, 'and goes on when the server is updated');
SELECT bag_eq('SELECT _id || '' '' || x FROM every.part_deep', $$ SELECT source('deep', 'part') $$, 'with all its tables');

SELECT * FROM finish();
