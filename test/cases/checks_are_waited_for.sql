-- After another client had cleared or replaced a table and convex_refresh_subscription was called, convex_wait_for was true
-- at once, with rows that are in Convex no more: a check that was asked for is part of the wait.

\ir ../pgtap/lib/setup.sql
CREATE EXTENSION dblink;
SELECT plan(12);

SELECT emu.server('convex', $$max_retries '0', request_timeout '60s'$$) \g /dev/null
SELECT emu.config('{"page_limit": 10}') \g /dev/null
SELECT emu.insert(t, VARIADIC ARRAY(SELECT jsonb_build_object('n', i) FROM generate_series(1, 25) AS i)) FROM unnest('{cleared,failing,announced,called}'::text[]) AS t \g /dev/null
CREATE FUNCTION clear(table_name text) RETURNS void LANGUAGE plpgsql AS
$$
BEGIN
	EXECUTE format('COPY (SELECT 1) TO PROGRAM %L', 'cat >/dev/null; curl -q -sS --fail --noproxy ''*'' -X PUT -o /dev/null -H ''Content-Type: application/json'' -H '
		|| emu.shell_quote('Authorization: Convex ' || emu.key()) || ' --data ' || emu.shell_quote(jsonb_build_object('tableNames', ARRAY[table_name])::text)
		|| ' ' || emu.shell_quote(current_setting('emu.url') || '/api/streaming_import/clear_tables'));
END
$$;
CREATE FUNCTION sync_fails(name text) RETURNS text LANGUAGE sql AS
$$
	SELECT emu.failure(format('SELECT dblink_exec(%L, %L)', format('host=%s port=%s dbname=%s user=postgres',
		split_part(current_setting('unix_socket_directories'), ',', 1), current_setting('port'), current_database()), format('CALL convex_sync(%L)', name))) ->> 'sqlstate'
$$;

-- A worker that polls once an hour: only who wakes it sees something.
SELECT convex_create_subscription('app', 'convex', '{cleared,failing,announced}', poll_interval => '1 h') \g /dev/null
SELECT convex_start_worker('app') \g /dev/null
CALL convex_sync('app');
SELECT is((SELECT count(*) FROM app.cleared), 25::bigint, 'a worker has loaded a table');

-- ------------------------------------------------------------------ asked for

-- The worker's first question takes a while.
SELECT emu.fault('{"action": "delay", "ms": 700, "path": "/api/get_table_column_names", "count": 1}') \g /dev/null
SELECT clear('cleared') \g /dev/null
SELECT convex_refresh_subscription('app') \g /dev/null
SELECT is(convex_wait_for('app'), true, 'after a refresh convex_wait_for is true');
SELECT is((SELECT count(*) FROM app.cleared), 0::bigint, 'when the rows that a clear took are gone');

SELECT emu.fault('{"action": "delay", "ms": 700, "path": "/api/get_table_column_names", "count": 1}') \g /dev/null
SELECT convex_clear_tables('convex', 'announced') \g /dev/null
SELECT is(convex_wait_for('app'), true, 'after a clear by this database convex_wait_for is true');
SELECT is((SELECT count(*) FROM app.announced), 0::bigint, 'when it has been looked for');

-- ------------------------------------------------------------------ that fails

SELECT emu.fault('{"action": "status", "status": 503, "code": "TableSummariesUnavailable", "path": "/api/get_table_column_names", "count": -1}') \g /dev/null
SELECT clear('failing') \g /dev/null
SELECT convex_refresh_subscription('app') \g /dev/null
SELECT is(convex_wait_for('app', timeout => '300 ms'), false, 'while the check fails convex_wait_for is not true');
SELECT is(sync_fails('app'), '53000', 'and a call fails');
SELECT is((SELECT count(*) FROM app.failing), 25::bigint, 'since the rows are still there');
SELECT emu.clear_faults() \g /dev/null
SELECT convex_refresh_subscription('app') \g /dev/null
SELECT is(convex_wait_for('app'), true, 'when the check passes convex_wait_for is true');
SELECT is((SELECT count(*) FROM app.failing), 0::bigint, 'and the rows are gone');
SELECT convex_stop_worker('app') \g /dev/null

-- ------------------------------------------------------------------ a call

SELECT convex_create_subscription('hand', 'convex', '{called}') \g /dev/null
CALL convex_sync('hand');
SELECT clear('called') \g /dev/null
SELECT convex_refresh_subscription('hand') \g /dev/null
CALL convex_sync('hand');
SELECT is((SELECT count(*) FROM hand.called), 0::bigint, 'after a refresh a call takes the rows away');

-- ------------------------------------------------------------------ at the last page of a check

-- A check is to go on behind the tenth document, where a table has its eleventh.  That is deleted, the table cleared, and the
-- eleventh added again: behind the tenth there is just what the mirror has.  The new tablet may be before the old one in
-- Convex's order, or behind it.  Each table is alone, since another one that is loaded again leads to one more check.
SELECT emu.insert(format('full_%s', t), VARIADIC ARRAY(SELECT jsonb_build_object('n', i) FROM generate_series(1, 11) AS i)) FROM generate_series(1, 5) AS t \g /dev/null
SELECT convex_create_subscription('full_' || t, 'convex', ARRAY['full_' || t], 'pages') FROM generate_series(1, 5) AS t \g /dev/null
CALL convex_sync();
CREATE FUNCTION put_back(table_name text) RETURNS SETOF text LANGUAGE plpgsql AS
$$
DECLARE
	last text := (SELECT max((d ->> '_id') COLLATE "C") FROM emu.dump(table_name) AS d);
BEGIN
	PERFORM emu.mutate(jsonb_build_array(jsonb_build_object('op', 'delete', 'table', table_name, 'id', last)));
	PERFORM clear(table_name);
	RETURN QUERY SELECT emu.insert(table_name, jsonb_build_object('_id', last, 'n', 12));
END
$$;
SELECT put_back('full_' || t) FROM generate_series(1, 5) AS t \g /dev/null
CALL convex_sync();
SELECT convex_refresh_subscription('full_' || t) FROM generate_series(1, 5) AS t \g /dev/null
CALL convex_sync();
SELECT is((SELECT array_agg(n) FROM (TABLE pages.full_1 UNION ALL TABLE pages.full_2 UNION ALL TABLE pages.full_3 UNION ALL TABLE pages.full_4 UNION ALL TABLE pages.full_5) AS f),
	'{12,12,12,12,12}', 'a check that goes on behind the rows that are gone finds that they are');

SELECT * FROM finish();
