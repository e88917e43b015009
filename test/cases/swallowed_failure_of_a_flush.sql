-- With flush 'statement' a nested INSERT got 08007, the function caught it, and
-- the outer statement sent the rows of that request again: twice in Convex. What
-- a request has carried is never sent again, and the transaction cannot commit
-- over an outcome that nobody knows, nor over rows of its own that were refused.
\ir ../pgtap/lib/setup.sql
\ir ../pgtap/lib/writes.sql
SELECT plan(17);

SELECT emu.server('convex', $$max_retries '0', max_retry_wait '5ms'$$), emu.mutate('[{"op": "create_table", "table": "logs"}]') \g /dev/null
CREATE FOREIGN TABLE logs (n int) SERVER convex OPTIONS (flush 'statement');
CREATE FUNCTION nested(i int) RETURNS int LANGUAGE plpgsql AS
$$
BEGIN
	IF i = 2 THEN
		BEGIN
			INSERT INTO app.logs VALUES (100);
		EXCEPTION WHEN OTHERS THEN
			RAISE WARNING 'caught %', sqlstate;
		END;
	END IF;
	RETURN i;
END
$$;
CREATE FUNCTION in_convex() RETURNS int[] LANGUAGE sql AS $$ SELECT array_agg((d ->> 'n')::float8::int ORDER BY (d ->> 'n')::float8) FROM emu.dump('logs') AS d $$;
DO $$ BEGIN PERFORM dblink_exec('writer', 'SET client_min_messages = error'); END $$;

-- the outcome is unknown
SELECT emu.fault('{"action": "apply_then_cut", "path": "/api/streaming_import", "count": 1}') \g /dev/null
SELECT is(emu.sqlstate('INSERT INTO logs SELECT nested(i) FROM generate_series(1, 4) AS i'), '08007', 'after a caught unknown outcome the statement fails');
SELECT is(in_convex(), '{1,100}', 'what was applied is there once');
SELECT emu.reset(), emu.mutate('[{"op": "create_table", "table": "logs"}]') \g /dev/null
SELECT emu.fault('{"action": "reset", "after_bytes": 0, "path": "/api/streaming_import", "count": 1}') \g /dev/null
SELECT is(emu.sqlstate('DO $do$ BEGIN BEGIN INSERT INTO logs VALUES (1); EXCEPTION WHEN OTHERS THEN NULL; END; END $do$'), '08007', 'COMMIT does not succeed over one');
SELECT is(emu.sqlstate('DO $do$ BEGIN BEGIN INSERT INTO logs VALUES (1); EXCEPTION WHEN OTHERS THEN NULL; END; INSERT INTO logs VALUES (2); END $do$'), '00000', 'another transaction is not concerned');
SELECT is(in_convex(), '{1,2}', 'and its rows arrive');
SELECT emu.fault('{"action": "apply_then_cut", "path": "/api/streaming_import", "count": 1}') \g /dev/null
SELECT is(emu.sqlstate('DO $do$ BEGIN BEGIN INSERT INTO logs VALUES (3); EXCEPTION WHEN OTHERS THEN NULL; END; BEGIN INSERT INTO logs VALUES (4); EXCEPTION WHEN OTHERS THEN NULL; END; END $do$'), '08007', 'every later write fails, and COMMIT');
SELECT is(in_convex(), '{1,2,3}', 'nothing is sent after it');
SELECT emu.fault('{"action": "apply_then_cut", "path": "/api/streaming_import", "count": 1}') \g /dev/null
SELECT emu.clear_journal() \g /dev/null
SELECT is(emu.sqlstate('DO $do$ BEGIN BEGIN INSERT INTO logs VALUES (5); EXCEPTION WHEN OTHERS THEN NULL; END; END $do$', 'PREPARE TRANSACTION ''x'''), '08007', 'nor PREPARE TRANSACTION');
SELECT is(emu.count_writes(), 1, 'one request was sent');

-- the outcome is known: refused
SELECT emu.reset(), emu.mutate('[{"op": "create_table", "table": "logs"}]') \g /dev/null
SELECT emu.fault('{"action": "status", "status": 400, "code": "SchemaEnforcementError", "path": "/api/streaming_import", "count": 1}') \g /dev/null
SELECT is(emu.sqlstate('INSERT INTO logs SELECT nested(i) FROM generate_series(1, 4) AS i'), 'HV00L', 'a refused request that carried rows of the outer statement fails it, too');
SELECT is(in_convex(), NULL, 'nothing of it is there');
SELECT emu.fault('{"action": "status", "status": 400, "code": "SchemaEnforcementError", "path": "/api/streaming_import", "count": 1}') \g /dev/null
SELECT is(emu.sqlstate('DO $do$ BEGIN BEGIN INSERT INTO logs VALUES (1); EXCEPTION WHEN OTHERS THEN NULL; END; INSERT INTO logs VALUES (2); END $do$'), '00000', 'a block whose own rows alone were refused can be caught');
SELECT is(in_convex(), '{2}', 'and what follows arrives');
SELECT emu.fault('{"action": "status", "status": 400, "code": "SchemaEnforcementError", "path": "/api/streaming_import", "count": 1}') \g /dev/null
SELECT is(emu.sqlstate('SAVEPOINT a', 'DO $do$ BEGIN BEGIN INSERT INTO logs SELECT nested(i) FROM generate_series(1, 4) AS i; EXCEPTION WHEN OTHERS THEN NULL; END; END $do$', 'RELEASE a'), '00000', 'when the outer statement is undone as well the transaction goes on');
SELECT is(in_convex(), '{2}', 'without its rows');

-- a cancel in the middle of a request is an unknown outcome as well
SELECT emu.fault('{"action": "stall", "path": "/api/streaming_import", "count": 1}') \g /dev/null
SELECT is(emu.sqlstate('SET LOCAL statement_timeout = ''500ms''', 'DO $do$ BEGIN BEGIN INSERT INTO logs VALUES (7); EXCEPTION WHEN OTHERS THEN NULL; END; END $do$', 'SET LOCAL statement_timeout = 0'), '08007', 'a caught timeout of a request that may have arrived cannot be committed');
SELECT emu.clear_faults() \g /dev/null
SELECT is(in_convex(), '{2,7}', 'for it may be there');

SELECT * FROM finish();
