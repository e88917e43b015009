-- A page of a load was answered twice, with another page's cursor, and a new
-- process took over in between: 23505 when the loaded table got its key, for
-- ever, whatever was asked for. Convex gives each document once, so the answer
-- is at fault (HV00M), and the table is loaded again.

\ir ../pgtap/lib/setup.sql
CREATE EXTENSION dblink;
SELECT plan(11);

SELECT emu.server('convex', $$max_retries '0'$$) \g /dev/null
SELECT dblink_connect('two', format('host=%s port=%s dbname=%s user=postgres', split_part(current_setting('unix_socket_directories'), ',', 1), current_setting('port'), current_database())) \g /dev/null

-- What a call fails with in another session, where it may commit.
CREATE FUNCTION call_fails(call text) RETURNS text LANGUAGE sql AS
$$ SELECT coalesce(emu.failure(format('SELECT dblink_exec(''two'', %L)', call)) ->> 'sqlstate', 'no error') $$;
CREATE FUNCTION load() RETURNS text LANGUAGE sql AS
$$ SELECT load FROM convex_subscription_rel $$;
-- The page of the walk under way after a cursor.
CREATE FUNCTION page(after text) RETURNS jsonb LANGUAGE sql AS
$$
	SELECT emu.call('POST', '/api/list_snapshot?adminKey=' || emu.url_encode(emu.key()), jsonb_strip_nulls(jsonb_build_object('snapshot', snapshot, 'cursor', after, 'tableName', 'a', 'format', 'convex_encoded_json')))
	FROM convex_subscription_state
$$;
CREATE FUNCTION loaded_twice() RETURNS text LANGUAGE plpgsql AS
$$
DECLARE
	first jsonb;
	state text;
BEGIN
	FOR i IN 1 .. 9 LOOP
		state := call_fails('CALL convex_sync(''app'', 1)');
		EXIT WHEN state <> 'no error' OR (SELECT page_cursor IS NOT NULL FROM convex_subscription_state);
	END LOOP;
	first := page(NULL);
	PERFORM emu.fault(jsonb_build_object('action', 'body', 'path', '/api/list_snapshot',
		'body', (first || jsonb_build_object('cursor', page(first ->> 'cursor') ->> 'cursor'))::text));
	FOR i IN 1 .. 9 LOOP
		state := call_fails('CALL convex_sync(''app'', 1)');
		EXIT WHEN state <> 'no error';
	END LOOP;
	PERFORM emu.clear_faults();
	RETURN state;
END
$$;

SELECT emu.config('{"page_limit": 2}') \g /dev/null
SELECT emu.insert('a', '{"x": "one"}', '{"x": "two"}', '{"x": "three"}', '{"x": "four"}', '{"x": "five"}', '{"x": "six"}', '{"x": "seven"}') \g /dev/null
SELECT convex_create_subscription('app', 'convex', '{a}') \g /dev/null
SELECT is(loaded_twice(), 'HV00M', 'a page that is answered twice to two processes is an error of the answer');
SELECT is((SELECT last_error_class FROM convex_stat_subscription), 'protocol', 'of class protocol, with its pauses');
SELECT is(load(), 'wanted', 'and the table is going to be loaded again');
SELECT is((SELECT count(*) FROM convex_stat_subscription_event WHERE kind = 'resync'), 1::bigint, 'of which an event tells');
SELECT convex_resync_table('app', 'a') \g /dev/null
CALL convex_sync('app');
SELECT results_eq('SELECT x FROM app.a ORDER BY x', $$VALUES ('five'), ('four'), ('one'), ('seven'), ('six'), ('three'), ('two')$$, 'that load is right');

-- A walk that fails on and on, of which somebody has enough.
SELECT convex_resync_table('app', 'a') \g /dev/null
SELECT emu.fault('{"action": "edit", "find": "\"hasMore\":true", "replace": "\"hasMore\":false", "path": "/api/list_snapshot", "skip": 1, "count": -1}') \g /dev/null
SELECT is(call_fails('CALL convex_sync(''app'')'), 'HV00M', 'a last page with a cursor is refused');
SELECT is(load(), 'walking', 'while the table walks');
SELECT emu.clear_faults() \g /dev/null
SELECT convex_resync_table('app', 'a') \g /dev/null
SELECT is(load(), 'wanted', 'a load that fails begins anew when that is asked for');
SELECT is((SELECT snapshot IS NULL AND page_cursor IS NULL FROM convex_subscription_state), true, 'with a new snapshot');
CALL convex_sync('app');
SELECT is((SELECT state FROM convex_stat_subscription_rel), 'ready', 'and is done');
SELECT is((SELECT count(*) FROM app.a), 7::bigint, 'with each document once');

SELECT * FROM finish();
