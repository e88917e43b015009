-- A check that was asked for counted as passed when Convex did not serve its timestamp: it had compared nothing. While something
-- pauses after a failure, new tables are looked for, and waited for until the check that is noted has passed.

\ir ../pgtap/lib/setup.sql
CREATE EXTENSION dblink;
SELECT plan(13);

SELECT emu.server('convex', $$max_retries '0'$$) \g /dev/null
CREATE FUNCTION sync(name text) RETURNS jsonb LANGUAGE sql AS
$$
	SELECT emu.failure(format('SELECT dblink_exec(%L, %L)', format('host=%s port=%s dbname=%s user=postgres',
		split_part(current_setting('unix_socket_directories'), ',', 1), current_setting('port'), current_database()), format('CALL convex_sync(%L)', name)))
$$;
CREATE FUNCTION is_wanted(subscription text) RETURNS boolean LANGUAGE sql AS
$$ SELECT check_wanted FROM convex_subscription_state JOIN convex_subscription USING (subid) WHERE name = subscription $$;

-- ------------------------------------------------------------------ an empty page

SELECT emu.insert('a', '{"n": 1}', '{"n": 2}') \g /dev/null
SELECT convex_create_subscription('app', 'convex', '{a}') \g /dev/null
CALL convex_sync('app');
DELETE FROM app.a;
-- The first page says that its rows are all on the next one.
SELECT emu.fault(jsonb_build_object('action', 'body', 'path', '/api/list_snapshot', 'count', 1, 'body',
	format('{"values":[],"snapshot":%s,"cursor":"{\"tablet\":\"%s\",\"id\":\"0400000000000000000000000000248\"}","hasMore":true}', cursor, tablet)))
	FROM convex_subscription_state, jsonb_to_recordset(emu.state() -> 'tables') AS t("table" text, tablet text) WHERE "table" = 'a' \g /dev/null
SELECT convex_refresh_subscription('app') \g /dev/null
CALL convex_sync('app');
SELECT is((SELECT count(*) FROM app.a), 2::bigint, 'a check goes on behind an empty page');

-- ------------------------------------------------------------------ a timestamp that is not served

SELECT emu.fault('{"action": "status", "status": 400, "code": "SnapshotTooOld", "path": "/api/list_snapshot", "count": -1}') \g /dev/null
DELETE FROM app.a;
SELECT convex_refresh_subscription('app') \g /dev/null
SELECT isnt(sync('app'), NULL, 'a check that was asked for and cannot be made is an error of the call');
SELECT is(is_wanted('app'), true, 'and is still wanted');
SELECT emu.clear_faults() \g /dev/null
CALL convex_sync('app');
SELECT is((SELECT count(*) FROM app.a), 2::bigint, 'until it has been made');
SELECT is(is_wanted('app'), false, 'then no longer');

-- ------------------------------------------------------------------ new tables during a pause

-- What is refused as a matter of the plan is asked for again after some minutes.
SELECT convex_create_subscription('every', 'convex', poll_interval => '50 ms') \g /dev/null
SELECT convex_start_worker('every') \g /dev/null
SELECT emu.wait_until($$ (SELECT caught_up FROM convex_stat_subscription WHERE name = 'every') $$) \g /dev/null
SELECT emu.fault('{"action": "status", "status": 403, "code": "StreamingExportNotEnabled", "path": "/api/list_snapshot", "count": -1}') \g /dev/null
SELECT convex_refresh_subscription('every') \g /dev/null
SELECT ok(emu.wait_until($$ (SELECT phase = 'failing' FROM convex_stat_subscription WHERE name = 'every') $$), 'while a check pauses after a failure');
-- Whoever has woken the worker may have one more attempt, which lists the tables; not two.
SELECT emu.insert('early', '{"n": 1}') \g /dev/null
SELECT emu.wait_until($$ EXISTS (SELECT FROM convex_stat_subscription_rel WHERE name = 'every' AND table_name = 'early') $$, '30 s') \g /dev/null
SELECT emu.insert('late', '{"n": 1}') \g /dev/null
SELECT ok(emu.wait_until($$ EXISTS (SELECT FROM convex_stat_subscription_rel WHERE name = 'every' AND table_name = 'late') $$, '30 s'), 'a new table is looked for at once');
SELECT is(convex_wait_for('every', timeout => '100 ms'), false, 'and waited for');

-- So it is where the list of tables fails as well: the check that is noted has to pass.
SELECT emu.fault('{"action": "status", "status": 503, "code": "TableSummariesUnavailable", "path": "/api/get_table_column_names", "count": -1}') \g /dev/null
SELECT emu.insert('later', '{"n": 1}') \g /dev/null
SELECT is(convex_wait_for('every', timeout => '500 ms'), false, 'a table that cannot be looked for is waited for');
SELECT emu.clear_faults() \g /dev/null
SELECT convex_refresh_subscription('every') \g /dev/null
SELECT is(convex_wait_for('every'), true, 'until all is there');
SELECT is((SELECT count(*) FROM every.late JOIN every.later USING (n)), 1::bigint, 'with both tables');
SELECT convex_stop_worker('every') \g /dev/null

-- A list that fails once, while nothing else is wrong.
SELECT convex_start_worker('every') \g /dev/null
CALL convex_sync('every');
SELECT emu.fault('{"action": "status", "status": 503, "code": "TableSummariesUnavailable", "path": "/api/get_table_column_names", "count": 2}') \g /dev/null
SELECT emu.insert('last', '{"n": 1}') \g /dev/null
SELECT is(convex_wait_for('every'), true, 'a wait is over');
SELECT is((SELECT count(*) FROM convex_stat_subscription_rel WHERE name = 'every' AND table_name = 'last' AND state = 'ready'), 1::bigint, 'when a table is there whose look has failed');
SELECT convex_stop_worker('every') \g /dev/null

SELECT * FROM finish();
