-- Subscriptions: two sessions at once, waiting, and what is held meanwhile.

\ir lib/setup.sql
CREATE EXTENSION dblink;
SELECT plan(28);

SELECT emu.server('convex', $$max_retries '0', request_timeout '60s'$$) \g /dev/null
CREATE FUNCTION state(statement text) RETURNS text LANGUAGE sql AS
$$ SELECT coalesce(emu.failure(statement) ->> 'sqlstate', 'no error') $$;
SELECT dblink_connect(name, format('host=%s port=%s dbname=%s user=postgres', split_part(current_setting('unix_socket_directories'), ',', 1), current_setting('port'), current_database())) FROM unnest('{one,two}'::text[]) AS name \g /dev/null
SELECT pid AS one FROM dblink('one', 'SELECT pg_backend_pid()') AS t (pid int) \gset

SELECT emu.insert('a', '{"x": "one"}', '{"x": "two"}') \g /dev/null
SELECT emu.insert('b', '{"x": "one"}') \g /dev/null
SELECT convex_create_subscription('app', 'convex', options => '{"notify": true}') \g /dev/null
CALL convex_sync('app');

-- ------------------------------------------------------------------ while the server is silent

SELECT emu.fault('{"action": "stall", "path": "/api/document_deltas", "count": -1}') \g /dev/null
SELECT emu.clear_journal() \g /dev/null
SELECT dblink_send_query('one', $$ CALL convex_sync('app') $$) \g /dev/null
SELECT ok(emu.wait_until($$ EXISTS (SELECT FROM emu.journal('/api/document_deltas')) $$), 'a call waits for Convex');
SELECT is((SELECT ROW (backend_xmin, backend_xid)::text FROM pg_stat_activity WHERE pid = :one), '(,)', 'without a snapshot and a transaction id');
SELECT is((SELECT array_agg(DISTINCT locktype ORDER BY locktype) FROM pg_locks WHERE pid = :one), '{advisory,virtualxid}', 'and without a lock on any object');
SELECT is((SELECT pid FROM convex_stat_subscription), :one, 'the view tells which process it is');
SELECT is(failure ->> 'sqlstate', '55006', 'a second call fails at once') FROM (SELECT emu.failure($$ SELECT dblink_exec('two', 'CALL convex_sync(''app'')') $$) AS failure) AS f;
SELECT dblink_send_query('two', $$ CALL convex_sync('app') $$) \g /dev/null
SELECT matches(emu.failure($$ SELECT * FROM dblink_get_result('two') AS t (x text) $$) ->> 'detail', :'one', 'and names the process');
SELECT * FROM dblink_get_result('two') AS t (x text) \g /dev/null
SELECT lives_ok('DROP TABLE app.b', 'tables can be dropped meanwhile');
SELECT emu.insert('a', '{"x": "unseen"}') \g /dev/null
SELECT is(convex_wait_for('app', timeout => '50 ms'), false, 'convex_wait_for gives up at its timeout');
SELECT pg_cancel_backend(:one) \g /dev/null
CREATE FUNCTION is_cancelled(connection text) RETURNS boolean LANGUAGE plpgsql AS
$$
BEGIN
	PERFORM * FROM dblink_get_result(connection) AS t (x text);
	RETURN false;
EXCEPTION WHEN query_canceled THEN
	RETURN true;
END
$$;
SELECT ok(is_cancelled('one'), 'the call can be cancelled');
SELECT * FROM dblink_get_result('one') AS t (x text) \g /dev/null
SELECT is((SELECT pid FROM convex_stat_subscription), NULL, 'and leaves no lock behind');
SELECT emu.clear_faults() \g /dev/null

-- ------------------------------------------------------------------ waiting

SELECT is(state($$ SELECT convex_wait_for('app', 9223372036854775807) $$), '55000', 'convex_wait_for fails when nobody follows');
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT is(state($$ SELECT convex_wait_for('app') $$), '25001', 'and where the transaction could not see the rows');
ROLLBACK;
SELECT convex_resync_table('app', 'b') \g /dev/null
CALL convex_sync('app');
SELECT is(convex_wait_for('app'), true, 'it is true at once for what is here');
SELECT emu.insert('a', '{"x": "three"}') \g /dev/null
SELECT emu.fault('{"action": "delay", "ms": 300, "path": "/api/document_deltas", "count": -1}') \g /dev/null
SELECT dblink_send_query('one', $$ CALL convex_sync('app') $$) \g /dev/null
SELECT ok(emu.wait_until($$ (SELECT pid FROM convex_stat_subscription) IS NOT NULL $$), 'while somebody follows');
SELECT is(convex_wait_for('app'), true, 'it waits for what Convex had before the call');
SELECT is((SELECT count(*) FROM app.a WHERE x = 'three'), 1::bigint, 'which is then visible');
SELECT * FROM dblink_get_result('one') AS t (x text) \g /dev/null
SELECT * FROM dblink_get_result('one') AS t (x text) \g /dev/null
SELECT emu.clear_faults() \g /dev/null

-- ------------------------------------------------------------------ notifications

SELECT dblink_exec('two', 'LISTEN convex_app') \g /dev/null
SELECT emu.insert('a', '{"x": "four"}') \g /dev/null
CALL convex_sync('app');
SELECT * FROM dblink('two', 'SELECT 1') AS t (x integer) \g /dev/null
SELECT is((SELECT extra FROM dblink_get_notify('two')), (SELECT applied_ts::text FROM convex_stat_subscription), 'a batch of changes notifies with its timestamp');
CALL convex_sync('app');
SELECT * FROM dblink('two', 'SELECT 1') AS t (x integer) \g /dev/null
SELECT is((SELECT count(*) FROM dblink_get_notify('two')), 0::bigint, 'no changes, no notification');

-- ------------------------------------------------------------------ failures of the server

SELECT emu.fault('{"action": "status", "status": 401, "code": "BadAdminKey", "path": "/api/document_deltas", "count": 1}') \g /dev/null
SELECT is(emu.failure($$ SELECT dblink_exec('two', 'CALL convex_sync(''app'')') $$) ->> 'sqlstate', '28000', 'a failure is the call''s error');
SELECT is((SELECT ROW (phase, last_error_code, next_attempt_at IS NOT NULL)::text FROM convex_stat_subscription), '(failing,28000,t)', 'and stands in the view');
CALL convex_sync('app');
SELECT is((SELECT ROW (phase, next_attempt_at)::text FROM convex_stat_subscription), '(following,)', 'until it works again');

SELECT convex_create_subscription('second', 'convex', '{a}') \g /dev/null
SELECT emu.fault('{"action": "status", "status": 401, "code": "BadAdminKey", "path": "/api/document_deltas", "count": 1}') \g /dev/null
SELECT is(emu.failure($$ SELECT dblink_exec('two', 'CALL convex_sync()') $$) ->> 'sqlstate', 'HV000', 'a call for all subscriptions fails when one does');
SELECT is((SELECT caught_up FROM convex_stat_subscription WHERE name = 'second'), true, 'and the others are followed all the same');
SELECT convex_drop_subscription('second', true) \g /dev/null

-- A reader of two tables never sees a transaction torn, nor half a table.
SELECT emu.insert('c', VARIADIC ARRAY(SELECT '{"n": 0.0}'::jsonb FROM generate_series(1, 20))) \g /dev/null
SELECT emu.insert('d', VARIADIC ARRAY(SELECT '{"n": 0.0}'::jsonb FROM generate_series(1, 20))) \g /dev/null
CREATE TABLE torn (c numeric, d numeric, nc bigint, nd bigint);
SELECT emu.config('{"page_limit": 5, "delta_limit": 1}') \g /dev/null
SELECT emu.fault('{"action": "mutate", "count": -1, "path": "/api/", "ops": [{"op": "increment_all", "table": "c", "field": "n", "by": 1}, {"op": "increment_all", "table": "d", "field": "n", "by": -1}]}') \g /dev/null
SELECT convex_create_subscription('pair', 'convex', '{c,d}') \g /dev/null
CREATE PROCEDURE follow_pair() LANGUAGE plpgsql AS
$$ BEGIN FOR i IN 1..30 LOOP CALL convex_sync('pair', 60); END LOOP; END $$;
SELECT dblink_send_query('one', $$ CALL follow_pair() $$) \g /dev/null
CREATE PROCEDURE read_pair() LANGUAGE plpgsql AS
$$
DECLARE seen bigint := 0;
BEGIN
	WHILE dblink_is_busy('one') = 1 LOOP
		BEGIN
			INSERT INTO torn SELECT (SELECT sum(n) FROM pair.c), (SELECT sum(n) FROM pair.d), (SELECT count(*) FROM pair.c), (SELECT count(*) FROM pair.d);
		EXCEPTION WHEN undefined_table OR invalid_schema_name THEN NULL;
		END;
		COMMIT;
	END LOOP;
END
$$;
CALL read_pair();
SELECT * FROM dblink_get_result('one') AS t (x text) \g /dev/null
SELECT * FROM dblink_get_result('one') AS t (x text) \g /dev/null
SELECT cmp_ok((SELECT count(DISTINCT c) FROM torn), '>', 10::bigint, 'a reader saw several states of two tables');
SELECT is((SELECT count(*) FROM torn WHERE c + d <> 0), 0::bigint, 'and never a transaction in one of them only');
SELECT is((SELECT count(*) FROM torn WHERE nc <> 20 OR nd <> 20), 0::bigint, 'nor half a table');
SELECT convex_resync_table('pair', 'c') \g /dev/null
TRUNCATE torn;
SELECT dblink_send_query('one', $$ CALL follow_pair() $$) \g /dev/null
CALL read_pair();
SELECT * FROM dblink_get_result('one') AS t (x text) \g /dev/null
SELECT * FROM dblink_get_result('one') AS t (x text) \g /dev/null
SELECT is((SELECT state FROM convex_stat_subscription_rel WHERE name = 'pair' AND table_name = 'c'), 'ready', 'a resync of one of them ends');
SELECT is((SELECT count(*) FROM torn WHERE c + d <> 0 OR nc <> 20 OR nd <> 20), 0::bigint, 'without a torn read either');
SELECT emu.clear_faults() \g /dev/null

SELECT dblink_disconnect(name) FROM unnest('{one,two}'::text[]) AS name \g /dev/null
SELECT * FROM finish();
