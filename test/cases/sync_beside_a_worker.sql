-- CALL convex_sync beside the worker of a subscription failed with 55006, so README's first two commands failed wherever the
-- library is preloaded. It wakes the worker and waits for it; the result is the same.

\ir ../pgtap/lib/setup.sql
CREATE EXTENSION dblink;
SELECT plan(17);

SELECT emu.server('convex', $$max_retries '0'$$) \g /dev/null
SELECT emu.insert('a', VARIADIC ARRAY(SELECT jsonb_build_object('n', i) FROM generate_series(1, 30) AS i)) \g /dev/null
SELECT emu.config('{"page_limit": 10}') \g /dev/null

-- A worker that polls once an hour: only who wakes it sees something.
SELECT convex_create_subscription('app', 'convex', poll_interval => '1 h') \g /dev/null
SELECT convex_start_worker('app') \g /dev/null
SELECT emu.wait_until('(SELECT pid IS NOT NULL FROM convex_stat_subscription)') \g /dev/null
CALL convex_sync('app');
SELECT is((SELECT count(*) FROM app.a), 30::bigint, 'a call waits for the first load');
SELECT isnt((SELECT pid FROM convex_stat_subscription), pg_backend_pid(), 'that the worker does');

CREATE TABLE seen (n int, found bigint);
CREATE PROCEDURE insert_and_call(times int) LANGUAGE plpgsql AS
$$
BEGIN
	FOR i IN 1..times LOOP
		PERFORM emu.insert('a', jsonb_build_object('n', 1000 + i));
		COMMIT;
		CALL convex_sync('app');
		INSERT INTO seen SELECT i, count(*) FROM app.a WHERE n = 1000 + i;
		COMMIT;
	END LOOP;
END
$$;
CALL insert_and_call(5);
SELECT is((SELECT array_agg(found ORDER BY n) FROM seen), '{1,1,1,1,1}', 'what was committed before a call is there after it');
SELECT emu.insert('b', '{"n": 1}') \g /dev/null
CALL convex_sync();
SELECT is((SELECT count(*) FROM app.b), 1::bigint, 'new tables, too, with a call for all subscriptions');
SELECT convex_resync_table('app', 'a'), convex_refresh_subscription('app') \g /dev/null
CALL convex_sync('app');
SELECT is((SELECT ROW (check_wanted, (SELECT array_agg(DISTINCT state || coalesce(load, '')) FROM convex_subscription_rel))::text FROM convex_subscription_state), '(f,{ready})', 'what was asked for is done');

-- ------------------------------------------------------------------ failures

CREATE FUNCTION outcome(statement text, before text DEFAULT '') RETURNS text LANGUAGE plpgsql AS
$$
DECLARE
	result text;
BEGIN
	PERFORM dblink_connect('one', format('host=%s port=%s dbname=%s user=postgres', split_part(current_setting('unix_socket_directories'), ',', 1), current_setting('port'), current_database()));
	IF before <> '' THEN
		PERFORM dblink_exec('one', before);
	END IF;
	result := coalesce(emu.failure(format('SELECT dblink_exec(''one'', %L)', statement)) ->> 'sqlstate', 'no error');
	PERFORM dblink_disconnect('one');
	RETURN result;
END
$$;
SELECT emu.fault('{"action": "status", "status": 401, "code": "BadAdminKey", "path": "/api/document_deltas", "count": -1}') \g /dev/null
SELECT is(outcome('CALL convex_sync(''app'')'), '28000', 'the worker''s failure is the call''s');
SELECT is(outcome('CALL convex_sync(''app'')'), '28000', 'once more, though the worker pauses');
SELECT is(outcome('CALL convex_sync()'), 'HV000', 'and one of a call for all');
SELECT emu.clear_faults() \g /dev/null
CALL convex_sync('app');
SELECT is((SELECT phase FROM convex_stat_subscription), 'following', 'a call makes it try again at once');

-- ------------------------------------------------------------------ the worker leaves

SELECT emu.fault('{"action": "stall", "path": "/api/document_deltas", "count": 1}'), emu.clear_journal() \g /dev/null
SELECT dblink_connect('two', format('host=%s port=%s dbname=%s user=postgres', split_part(current_setting('unix_socket_directories'), ',', 1), current_setting('port'), current_database())) \g /dev/null
SELECT emu.insert('a', '{"n": 2000}') \g /dev/null
SELECT dblink_send_query('two', 'CALL convex_sync(''app'')') \g /dev/null
SELECT emu.wait_until('EXISTS (SELECT FROM emu.journal(''/api/document_deltas''))') \g /dev/null
SELECT convex_stop_worker('app') \g /dev/null
SELECT is((SELECT x FROM dblink_get_result('two') AS t (x text)), 'CALL', 'when the worker leaves, the call does the work');
SELECT * FROM dblink_get_result('two') AS t (x text) \g /dev/null
SELECT is((SELECT count(*) FROM app.a WHERE n = 2000), 1::bigint, 'to the end');
SELECT dblink_disconnect('two') \g /dev/null

-- ------------------------------------------------------------------ where nothing can be written

SELECT is(outcome('CALL convex_sync(''app'')', 'SET default_transaction_read_only = on'), '25006', 'a call in a read-only session is refused');
SELECT is(outcome('CALL convex_sync()', 'SET default_transaction_read_only = on'), '25006', 'for all subscriptions as well');
SELECT is(outcome(format('SELECT %s', what), 'SET default_transaction_read_only = on'), '25006', format('%s is refused there', what))
FROM unnest(ARRAY['convex_create_subscription(''b'', ''convex'')', 'convex_alter_subscription(''app'')', 'convex_refresh_subscription(''app'')', 'convex_drop_subscription(''app'')']) AS what;

SELECT convex_drop_subscription('app') \g /dev/null
SELECT * FROM finish();
