-- Failures said what they were not: a proxy's 502 and 504 hinted at names of
-- tables, a proxy that takes the key away said that no key is set, a snapshot
-- beyond retention (a lasting 503 InternalServerError on Convex) that the server
-- is overloaded.

\ir ../pgtap/lib/setup.sql
SELECT plan(15);

SELECT emu.insert('notes', '{"n": 1}') \g /dev/null
SELECT emu.server('convex', $$max_retries '5', max_retry_wait '1ms'$$) \g /dev/null
SELECT emu.server('keyless', $$max_retries '0'$$) \g /dev/null
ALTER USER MAPPING FOR CURRENT_USER SERVER keyless OPTIONS (DROP deploy_key);
CREATE FOREIGN TABLE notes (_id text) SERVER convex;
CREATE FOREIGN TABLE keyless (_id text) SERVER keyless OPTIONS (table_name 'notes');

CREATE FUNCTION under(fault text, statement text DEFAULT 'SELECT * FROM notes') RETURNS jsonb LANGUAGE plpgsql AS
$$
DECLARE
	result jsonb;
BEGIN
	PERFORM emu.fault('{"path": "/api/list_snapshot", "action": "status", "count": -1}' || fault::jsonb);
	result := emu.failure(statement);
	PERFORM emu.clear_faults();
	RETURN result;
END
$$;

SELECT ok(f ->> 'sqlstate' = 'HV000' AND f ->> 'message' LIKE '%proxy%' AND f ->> 'hint' !~ 'table', status || ' is about the proxy')
FROM unnest('{502,504,520,524}'::int[]) AS status, under(format('{"status": %s, "body": "<html>Bad Gateway</html>"}', status)) AS f;
SELECT ok(f ->> 'message' LIKE '%failed to answer' AND f ->> 'hint' ~ 'table', status || ' is about the server')
FROM unnest('{500,501}'::int[]) AS status, under(format('{"status": %s}', status)) AS f;

-- -------------------------------------------------------------------- the key

SELECT ok(f ->> 'sqlstate' = '42501' AND f ->> 'message' LIKE '%has not received the deploy key' AND f ->> 'hint' ~ 'proxy.*Authorization',
	'a key that was sent and did not arrive was taken away') FROM under('{"status": 403, "code": "BadDeployKey"}') AS f;
SELECT ok(f ->> 'sqlstate' = '42501' AND f ->> 'message' LIKE '%wants a deploy key' AND f ->> 'hint' ~ 'user mapping', 'without a key, one is wanted')
FROM emu.failure('SELECT * FROM keyless') AS f;
SELECT emu.fault('{"path": "/api/test_streaming_export_connection", "action": "status", "status": 403, "code": "BadDeployKey"}') \g /dev/null
SELECT ok(NOT ok AND detail ~ 'BadDeployKey' AND hint ~ 'Authorization', 'convex_test_connection says so, too')
FROM convex_test_connection('convex') WHERE check_name = 'key';
SELECT emu.clear_faults() \g /dev/null

-- --------------------------------------------------------------- the snapshot

-- On Convex only requests at the old snapshot fail, not those at the head.
CREATE FUNCTION lost(statement text DEFAULT 'SELECT * FROM notes') RETURNS jsonb LANGUAGE sql AS
$$ SELECT under('{"status": 503, "code": "InternalServerError", "message": "Your request couldn''t be completed.", "where": {"table": "notes"}}', statement) $$;
SELECT convex_snapshot('convex') AS pinned \gset
SELECT is(lost() ->> 'sqlstate', '53000', 'a fresh snapshot cannot be beyond retention: the server is overloaded');
SET convex_fdw.snapshot = :'pinned';
SELECT is(f ->> 'sqlstate', '72000', 'a pinned one may be'),
	ok(f ->> 'message' LIKE '%may no longer keep that snapshot' AND f ->> 'detail' ~ 'after 3 attempts' AND f ->> 'detail' LIKE '%' || :'pinned' || '%'
		AND f ->> 'hint' ~ 'convex_fdw.snapshot', 'after the few attempts that such a failure is worth, with the snapshot and a hint')
FROM lost() AS f;
SELECT is(under('{"status": 503, "code": "InternalServerError"}') ->> 'sqlstate', '53000', 'a server that does not answer at its head either is overloaded');
SELECT is(under('{"status": 400, "code": "SnapshotTooOld"}') ->> 'sqlstate', '72000', 'Convex''s own word for it has the same state');
RESET convex_fdw.snapshot;

-- An open cursor grows old without being pinned.
BEGIN;
SELECT emu.insert('notes', VARIADIC ARRAY(SELECT '{"n": 2}'::jsonb FROM generate_series(1, 1500))) \g /dev/null
DECLARE old CURSOR FOR SELECT * FROM notes;
FETCH 1 FROM old \g /dev/null
SELECT emu.config('{"clock_offset_ns": 259200000000000}'), emu.insert('others', '{}') \g /dev/null
SELECT is(lost('FETCH ALL FROM old') ->> 'sqlstate', '72000', 'a cursor that has been open for days may have lost its snapshot');
COMMIT;
SELECT emu.config('{"clock_offset_ns": 0}') \g /dev/null

SELECT * FROM finish();
