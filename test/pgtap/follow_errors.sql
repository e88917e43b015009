-- Subscriptions: classes of failures, their paces, and how they end.

\ir lib/setup.sql
CREATE EXTENSION dblink;
SELECT plan(93);

SELECT emu.server('convex', $$max_retries '0', request_timeout '30s'$$) \g /dev/null
SELECT dblink_connect('two', format('host=%s port=%s dbname=%s user=postgres', split_part(current_setting('unix_socket_directories'), ',', 1), current_setting('port'), current_database())) \g /dev/null

-- What a call fails with in another session, where it may commit.
CREATE FUNCTION call_fails(name text) RETURNS text LANGUAGE sql AS
$$ SELECT coalesce(emu.failure(format('SELECT dblink_exec(''two'', %L)', format('CALL convex_sync(%L)', name))) ->> 'sqlstate', 'no error') $$;
-- The same under a fault.
CREATE FUNCTION provoke(fault jsonb) RETURNS text LANGUAGE plpgsql AS
$$
DECLARE
	state text;
BEGIN
	PERFORM emu.fault('{"path": "/api/document_deltas", "count": -1}' || fault);
	state := call_fails('app');
	PERFORM emu.clear_faults();
	RETURN state;
END
$$;
CREATE FUNCTION shown() RETURNS text LANGUAGE sql AS
$$ SELECT ROW (phase, last_error_class, last_error_code)::text FROM convex_stat_subscription WHERE name = 'app' $$;
-- Seconds from the failure to the next attempt.
CREATE FUNCTION pause() RETURNS numeric LANGUAGE sql AS
$$ SELECT extract(epoch FROM next_attempt_at - last_error_at) FROM convex_stat_subscription WHERE name = 'app' $$;
-- Is it what the first pause of a class can be, doubled so often?
CREATE FUNCTION paces(first numeric) RETURNS boolean LANGUAGE sql AS
$$ SELECT pause() BETWEEN 0.75 * first - 0.01 AND 1.25 * first + 0.01 $$;
CREATE FUNCTION last_event() RETURNS bigint LANGUAGE sql AS
$$ SELECT coalesce(max(eventid), 0) FROM convex_stat_subscription_event $$;
CREATE FUNCTION events(mark bigint) RETURNS text[] LANGUAGE sql AS
$$ SELECT array_agg(kind ORDER BY eventid) FROM convex_stat_subscription_event WHERE name = 'app' AND eventid > mark $$;

SELECT emu.insert('a', '{"x": "one"}', '{"x": "two"}') \g /dev/null
SELECT emu.insert('b', '{"x": "one"}') \g /dev/null
SELECT convex_create_subscription('app', 'convex', '{a}') \g /dev/null
SELECT convex_create_subscription('other', 'convex', '{b}') \g /dev/null
CALL convex_sync();
SELECT is(shown(), '(following,,)', 'a subscription that works shows no failure');

-- ------------------------------------------------------------------ each class

SELECT last_event() AS mark \gset
SELECT is(provoke('{"action": "status", "status": 401, "code": "BadAdminKey"}'), '28000', 'a refused key is the call''s error');
SELECT is(shown(), '(failing,auth,28000)', 'and of class auth');
SELECT ok(paces(60), 'which is tried again after a minute');
SELECT is((SELECT failing_since <= last_error_at FROM convex_stat_subscription WHERE name = 'app'), true, 'the view tells since when');
SELECT is(provoke('{"action": "status", "status": 401, "code": "BadAdminKey"}'), '28000', 'the same failure again');
SELECT ok(paces(120), 'makes a longer pause');
SELECT is(events(:mark), '{error}', 'and no second event');
SELECT is(provoke('{"action": "status", "status": 403, "code": "OperationNotPermitted"}'), '42501', 'a missing permission');
SELECT is(shown(), '(failing,auth,42501)', 'is of class auth, too');
SELECT is(events(:mark), '{error,error}', 'another failure is another event');
CALL convex_sync('app');
SELECT is((SELECT ROW (phase, next_attempt_at, failing_since)::text FROM convex_stat_subscription WHERE name = 'app'), '(following,,)', 'what works again does not fail any more');
SELECT is((SELECT last_error_class FROM convex_stat_subscription WHERE name = 'app'), 'auth', 'the last failure stays to be read');
SELECT is(events(:mark), '{error,error,recovered}', 'and its end is an event');
CALL convex_sync('app');
SELECT is(events(:mark), '{error,error,recovered}', 'once');

SELECT emu.config('{"streaming_export": false}') \g /dev/null
SELECT is(call_fails('app'), '42501', 'a plan without streaming export is the call''s error');
SELECT emu.config('{"streaming_export": true}') \g /dev/null
SELECT is(shown(), '(failing,plan,42501)', 'and of class plan');
SELECT ok(paces(300), 'which is tried again after five minutes');
CALL convex_sync('app');
SELECT is((SELECT phase FROM convex_stat_subscription WHERE name = 'app'), 'following', 'it mends');

SELECT is(provoke('{"action": "status", "status": 400, "code": "BackendIsNotRunning"}'), '55000', 'a deployment that is paused is the call''s error');
SELECT is(shown(), '(failing,paused,55000)', 'and of class paused');
SELECT ok(paces(60), 'which is tried again after a minute');
CALL convex_sync('app');
SELECT is((SELECT phase FROM convex_stat_subscription WHERE name = 'app'), 'following', 'it mends');

SELECT is(provoke('{"action": "status", "status": 503, "code": "CommitterFullError"}'), '53000', 'an overloaded server is the call''s error');
SELECT is(shown(), '(failing,overload,53000)', 'and of class overload');
SELECT ok(paces(2), 'which is tried again after two seconds');
SELECT is(provoke('{"action": "status", "status": 429, "code": "TooManyWrites", "headers": {"Retry-After": "100"}}'), '53000', 'a limit of requests');
SELECT ok(pause() BETWEEN 100 AND 168, 'is tried again not before the server wants it');
SELECT is(provoke('{"action": "status", "status": 429, "code": "TooManyWrites", "headers": {"Retry-After": "Fri, 01 Jan 2100 00:00:00 GMT"}}'), '53000', 'which may say so with a date');
SELECT ok(pause() BETWEEN 3599 AND 6001, 'that is believed up to an hour');
SELECT is(provoke('{"action": "status", "status": 500, "code": "InternalServerError"}'), 'HV000', 'a server that fails');
SELECT is(shown(), '(failing,overload,HV000)', 'is treated in the same way');
CALL convex_sync('app');
SELECT is((SELECT phase FROM convex_stat_subscription WHERE name = 'app'), 'following', 'it mends');

SELECT is(provoke('{"action": "reset"}'), '08006', 'a lost connection is the call''s error');
SELECT is(shown(), '(failing,network,08006)', 'and of class network');
SELECT ok(paces(0.5), 'which is tried again after half a second');
SELECT provoke('{"action": "reset"}') \g /dev/null
SELECT ok(paces(1), 'then after one second');
SELECT count(provoke('{"action": "reset"}')) FROM generate_series(1, 10) \g /dev/null
SELECT ok(paces(60), 'and after a minute at most');
ALTER SERVER convex OPTIONS (SET deployment_url 'http://127.0.0.1:1');
SELECT is(call_fails('app'), 'HV00N', 'a server that nobody reaches');
SELECT is(shown(), '(failing,network,HV00N)', 'is of class network');
SELECT format('ALTER SERVER convex OPTIONS (SET deployment_url %L)', current_setting('emu.url')) \gexec
CALL convex_sync('app');
SELECT is((SELECT phase FROM convex_stat_subscription WHERE name = 'app'), 'following', 'it mends');

SELECT is(provoke('{"action": "body", "body": "<html>Welcome</html>", "content_type": "text/html"}'), 'HV00M', 'an answer that is none is the call''s error');
SELECT is(shown(), '(failing,protocol,HV00M)', 'and of class protocol');
SELECT ok(paces(30), 'which is tried again after half a minute');
SELECT is(provoke('{"action": "body", "body": "{\"values\": [17], \"cursor\": 1, \"hasMore\": false}"}'), 'HV00M', 'so is a page that is none');
SELECT is(shown(), '(failing,protocol,HV00M)', 'of class protocol');
SELECT is(provoke('{"action": "status", "status": 404, "body": ""}'), '0A000', 'and a server that does not know the request');
SELECT is(shown(), '(failing,protocol,0A000)', 'of class protocol');
SELECT is(provoke('{"action": "status", "status": 400, "code": "SomethingNew"}'), 'HV00L', 'or refuses it for a reason that nobody knows');
SELECT is(shown(), '(failing,protocol,HV00L)', 'of class protocol');
CALL convex_sync('app');
SELECT is((SELECT phase FROM convex_stat_subscription WHERE name = 'app'), 'following', 'it mends');

DROP USER MAPPING FOR CURRENT_USER SERVER convex;
SELECT is(call_fails('app'), '42704', 'an owner without a user mapping is the call''s error');
SELECT is(shown(), '(failing,config,42704)', 'and of class config');
SELECT ok(paces(30), 'which is tried again after half a minute');
SELECT format('CREATE USER MAPPING FOR CURRENT_USER SERVER convex OPTIONS (deploy_key %L)', emu.key()) \gexec
SELECT emu.insert('a', jsonb_build_object('x', repeat('long', 30000))) \g /dev/null
ALTER SERVER convex OPTIONS (ADD max_response_size '64kB');
SELECT is(call_fails('app'), '54000', 'so is a page that is larger than allowed');
SELECT is(shown(), '(failing,config,54000)', 'of class config');
ALTER SERVER convex OPTIONS (DROP max_response_size);
CALL convex_sync('app');
SELECT is((SELECT phase FROM convex_stat_subscription WHERE name = 'app'), 'following', 'it mends');

-- ------------------------------------------------------------------ retention

SELECT last_event() AS mark \gset
SELECT emu.mutate('[{"op": "delete_all", "table": "a"}, {"op": "insert", "table": "a", "doc": {"x": "after"}}]') \g /dev/null
SELECT emu.config(jsonb_build_object('retention_floor', (emu.state() ->> 'head')::bigint)) \g /dev/null
CALL convex_sync('app', 1);
SELECT is(shown(), '(reloading,retention,HV00L)', 'changes that are no longer kept are of class retention');
SELECT is((SELECT next_attempt_at FROM convex_stat_subscription WHERE name = 'app'), NULL, 'and nothing waits');
CALL convex_sync('app');
SELECT emu.config('{"retention_floor": null}') \g /dev/null
SELECT is(shown(), '(following,retention,HV00L)', 'everything is loaded again without hands');
SELECT is((SELECT array_agg(x) FROM app.a), '{after}', 'so that the mirror is right');
SELECT is((SELECT count(*) FROM unnest(events(:mark)) AS e WHERE e IN ('resnapshot', 'error')), 1::bigint, 'with one event');

-- A server may say so with the status of a failure, on and on.
SELECT emu.insert('a', VARIADIC ARRAY(SELECT jsonb_build_object('x', 'l' || i) FROM generate_series(1, 20) AS i)) \g /dev/null
CALL convex_sync('app');
SELECT emu.config('{"page_limit": 8}') \g /dev/null
SELECT last_event() AS mark \gset
SELECT convex_resync_table('app', 'a') \g /dev/null
SELECT emu.fault('{"action": "status", "status": 503, "code": "InternalServerError", "path": "/api/list_snapshot", "where": {"table": "a"}, "skip": 2, "count": 6}') \g /dev/null
SET convex_fdw.prefetch = off;
SELECT dblink_exec('two', 'SET convex_fdw.prefetch = off') \g /dev/null
SELECT is(array_agg(call_fails('app')), '{53000,53000,53000,53000,53000}', 'a walk whose page fails is tried again') FROM generate_series(1, 5);
SELECT is(shown(), '(failing,overload,53000)', 'as an overloaded server''s');
CALL convex_sync('app');
SELECT emu.clear_faults() \g /dev/null
SELECT is(shown(), '(following,retention,HV00L)', 'and begins anew when another snapshot is served');
SELECT is((SELECT count(*) FROM unnest(events(:mark)) AS e WHERE e = 'load_restarted'), 1::bigint, 'with an event');
SELECT is((SELECT count(*) FROM app.a), 21::bigint, 'and ends');
RESET convex_fdw.prefetch;
SELECT dblink_exec('two', 'RESET convex_fdw.prefetch') \g /dev/null

-- ------------------------------------------------------------------ apply

SELECT emu.insert('c', '{"x": "one"}') \g /dev/null
SELECT convex_alter_subscription('app', tables => '{a,c}') \g /dev/null
CALL convex_sync('app');
SELECT last_event() AS mark \gset
ALTER TABLE app.a ADD CHECK (x <> 'bad');
SELECT emu.mutate('[{"op": "insert", "table": "a", "doc": {"x": "bad"}}, {"op": "insert", "table": "c", "doc": {"x": "good"}}]') \g /dev/null
CALL convex_sync('app');
SELECT is((SELECT ROW (state, error_code, retry_at IS NOT NULL)::text FROM convex_stat_subscription_rel WHERE name = 'app' AND table_name = 'a'), '(error,23514,t)', 'a target that refuses a row waits');
SELECT is((SELECT array_agg(x ORDER BY x) FROM app.c), '{good,one}', 'alone');
SELECT is((SELECT phase FROM convex_stat_subscription WHERE name = 'app'), 'following', 'the subscription does not fail');
SELECT is(events(:mark), '{table_error}', 'an event tells');
ALTER TABLE app.a DROP CONSTRAINT a_x_check;
SELECT convex_enable_subscription('app') \g /dev/null
CALL convex_sync('app');
SELECT is((SELECT ROW (state, error_code)::text FROM convex_stat_subscription_rel WHERE name = 'app' AND table_name = 'a'), '(ready,)', 'and enabling the subscription tries it again at once');
SELECT is((SELECT count(*) FROM app.a WHERE x = 'bad'), 1::bigint, 'with nothing lost');

-- ------------------------------------------------------------------ beside the changes

SELECT emu.insert('d', '{"x": "one"}') \g /dev/null
SELECT convex_alter_subscription('app', tables => '{a,c,d}') \g /dev/null
SELECT emu.insert('c', '{"x": "beside"}') \g /dev/null
SELECT emu.fault('{"action": "status", "status": 500, "path": "/api/list_snapshot", "where": {"table": "d"}, "count": -1}') \g /dev/null
SELECT is(call_fails('app'), 'HV000', 'a table that cannot be loaded is the call''s error');
SELECT is(shown(), '(failing,overload,HV000)', 'and a failure of the subscription');
SELECT is((SELECT count(*) FROM app.c WHERE x = 'beside'), 1::bigint, 'but the changes of the others are applied');
SELECT is((SELECT applied_ts FROM convex_stat_subscription WHERE name = 'app'), (emu.state() ->> 'head')::bigint, 'all of them');
SELECT emu.clear_faults() \g /dev/null
CALL convex_sync('app');
SELECT is((SELECT count(*) FROM app.d), 1::bigint, 'it joins when it can be loaded');
SELECT is(shown(), '(following,overload,HV000)', 'which ends the failure');

-- ------------------------------------------------------------------ the others go on

SELECT emu.insert('b', '{"x": "meanwhile"}') \g /dev/null
SELECT emu.fault('{"action": "status", "status": 401, "code": "BadAdminKey", "where": {"table": "a"}, "count": -1}') \g /dev/null
SELECT is(emu.failure($$ SELECT dblink_exec('two', 'CALL convex_sync()') $$) ->> 'sqlstate', 'HV000', 'a call for all subscriptions fails when one does');
SELECT emu.clear_faults() \g /dev/null
SELECT is((SELECT count(*) FROM other.b WHERE x = 'meanwhile'), 1::bigint, 'and the others are followed');
SELECT is((SELECT ROW (phase, last_error_class)::text FROM convex_stat_subscription WHERE name = 'other'), '(following,)', 'and do not fail');
CALL convex_sync();
SELECT is((SELECT phase FROM convex_stat_subscription WHERE name = 'app'), 'following', 'at the end nothing does');

-- ------------------------------------------------------------------ events are bounded

SELECT subid AS app FROM convex_subscription WHERE name = 'app' \gset
INSERT INTO convex_subscription_event (subid, kind) SELECT :app, 'old' FROM generate_series(1, 1500);
INSERT INTO convex_subscription_event (subid, kind, component, table_name, detail) SELECT :app, 'drift', '', 'a', 'field ' || i FROM generate_series(1, 999) AS i;
SELECT min(eventid) AS oldest FROM convex_subscription_event WHERE subid = :app AND kind = 'old' \gset
SELECT emu.insert('a', '{"x": 1.5}', '{"x": true}', '{"x": [1.5]}', '{"x": {}}') \g /dev/null
CALL convex_sync('app');
SELECT is((SELECT count(*) FROM convex_subscription_event WHERE subid = :app AND kind = 'drift'), 1001::bigint, 'a flood of drifts of a table is told up to a limit');
SELECT is((SELECT detail FROM convex_subscription_event WHERE subid = :app AND kind = 'drift' ORDER BY eventid DESC LIMIT 1), 'and more, which is not told', 'and then that there are more');
SELECT emu.insert('a', '{"x": 1.5}', '{"x": true}') \g /dev/null
CALL convex_sync('app');
SELECT is((SELECT count(*) FROM convex_subscription_event WHERE subid = :app AND kind = 'drift'), 1001::bigint, 'once');
SELECT is((SELECT count(*) FROM app.a WHERE _extra ? 'x'), 6::bigint, 'while nothing is lost');
SELECT convex_refresh_subscription('app') \g /dev/null
CALL convex_sync('app');
SELECT is((SELECT count(*) FROM convex_subscription_event WHERE subid = :app AND kind <> 'drift'), 1000::bigint, 'of the other events the last ones are kept');
SELECT is((SELECT count(*) FROM convex_subscription_event WHERE subid = :app AND eventid = :oldest), 0::bigint, 'and the oldest go first');

-- ------------------------------------------------------------------ prefetch

SELECT dblink_exec('two', 'SET convex_fdw.prefetch = off') \g /dev/null
SELECT convex_resync_table('app', 'a') \g /dev/null
SELECT emu.clear_journal() \g /dev/null
SELECT dblink_exec('two', 'CALL convex_sync(''app'', 2)') \g /dev/null
SELECT is((SELECT count(*) FROM emu.journal('/api/list_snapshot')), (SELECT pages FROM convex_stat_progress_snapshot WHERE name = 'app'), 'without prefetch no page is asked for that is not used');
SELECT dblink_exec('two', 'CALL convex_sync(''app'')') \g /dev/null
SELECT dblink_exec('two', 'RESET convex_fdw.prefetch') \g /dev/null
SELECT convex_resync_table('app', 'a') \g /dev/null
SELECT emu.clear_journal() \g /dev/null
SELECT dblink_exec('two', 'CALL convex_sync(''app'', 2)') \g /dev/null
SELECT is((SELECT count(*) FROM emu.journal('/api/list_snapshot')), (SELECT pages + 1 FROM convex_stat_progress_snapshot WHERE name = 'app'), 'with it the next one is');
CREATE FOREIGN TABLE scanned (_id text) SERVER convex OPTIONS (table_name 'a');
CREATE FUNCTION requests(is_on boolean) RETURNS bigint LANGUAGE plpgsql AS
$$
DECLARE
	rows refcursor := 'rows';
	row record;
BEGIN
	PERFORM set_config('convex_fdw.prefetch', is_on::text, true);
	PERFORM emu.clear_journal();
	OPEN rows FOR SELECT * FROM scanned;
	FOR i IN 1..7 LOOP
		FETCH rows INTO row;
	END LOOP;
	IF is_on THEN
		PERFORM emu.wait_until('(SELECT count(*) FROM emu.journal(''/api/list_snapshot'')) >= 2');
	END IF;
	CLOSE rows;
	RETURN (SELECT count(*) FROM emu.journal('/api/list_snapshot'));
END
$$;
SELECT is(requests(false), 1::bigint, 'a scan without prefetch asks for one page at a time');
SELECT is(requests(true), 2::bigint, 'with it, for the next one before the page is used up');

SELECT dblink_disconnect('two') \g /dev/null
SELECT * FROM finish();
