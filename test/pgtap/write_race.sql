-- Nobody's update is lost: sessions that change the same rows over a line with
-- latency take turns, and what a writer elsewhere did in between is told.
-- CONVEX_RACE_ROUNDS and CONVEX_RACE_SESSIONS look further.

\set rounds `echo "${CONVEX_RACE_ROUNDS:-4}"`
\set sessions `echo "${CONVEX_RACE_SESSIONS:-4}"`
\ir lib/setup.sql
\ir lib/writes.sql
\pset fieldsep '\n'
SELECT no_plan();

SELECT emu.server() \g /dev/null
SELECT emu.index('counters', '{id}') \g /dev/null
SELECT emu.insert('counters', VARIADIC ARRAY(SELECT jsonb_build_object('id', n, 'n', 0, 'note', 'kept') FROM generate_series(1, 30) AS n)) \g /dev/null
CREATE FOREIGN TABLE counters (id float8, n float8, note text, extra text) SERVER convex OPTIONS (primary_key 'id');
CREATE FOREIGN TABLE streamed (id float8, n float8) SERVER convex OPTIONS (table_name 'counters', primary_key 'id', flush 'statement');

-- A session of its own for each racer.
CREATE FUNCTION emu.racer(number int) RETURNS text LANGUAGE sql AS $$ SELECT 'racer' || number $$;
SELECT dblink_connect(emu.racer(n), format('host=%s port=%s dbname=%s user=postgres options=-csearch_path=app,public',
	split_part(current_setting('unix_socket_directories'), ',', 1), current_setting('port'), current_database())) FROM generate_series(1, :sessions) AS n \g /dev/null

-- The SQLSTATE that a statement sent to a racer ended with; 00000: it was acknowledged.
CREATE FUNCTION emu.end_of(racer text) RETURNS text LANGUAGE plpgsql AS
$$
DECLARE
	state text := '00000';
BEGIN
	BEGIN
		PERFORM * FROM public.dblink_get_result(racer) AS t (status text);
	EXCEPTION WHEN query_canceled OR OTHERS THEN
		state := sqlstate;
	END;
	PERFORM * FROM public.dblink_get_result(racer, false) AS t (status text);
	RETURN state;
END
$$;

-- Every racer runs the statement at the same time, some rounds long; %s is a key.
CREATE FUNCTION emu.race(statement text, keys int, rounds int, sessions int) RETURNS TABLE (acknowledged bigint, states text[]) LANGUAGE plpgsql AS
$$
DECLARE
	ends text[] := '{}';
BEGIN
	FOR round IN 1 .. rounds LOOP
		PERFORM public.dblink_send_query(emu.racer(s), format(statement, 1 + (round * 7 + s * (keys - 1)) % keys)) FROM generate_series(1, sessions) AS s;
		ends := ends || ARRAY(SELECT emu.end_of(emu.racer(s)) FROM generate_series(1, sessions) AS s);
	END LOOP;
	RETURN QUERY SELECT count(*) FILTER (WHERE e = '00000'), array_agg(DISTINCT e) FILTER (WHERE e <> '00000') FROM unnest(ends) AS e;
END
$$;
CREATE FUNCTION emu.counted() RETURNS bigint LANGUAGE sql AS $$ SELECT sum((d ->> 'n')::float8)::bigint FROM emu.dump('counters') AS d $$;
CREATE FUNCTION emu.set_isolation(level text, sessions int) RETURNS void LANGUAGE sql AS
$$ SELECT public.dblink_exec(emu.racer(s), 'SET default_transaction_isolation = ' || quote_literal(level)) FROM generate_series(1, sessions) AS s $$;

-- ------------------------------------------------------------------ sessions of this cluster

SELECT emu.config('{"extra_latency_ms": 20, "committer": "concurrent", "commit_latency_ms": 5}') \g /dev/null
CREATE TABLE races (kind text, rows int, level text, before bigint, after bigint, acknowledged bigint, states text[]);
CREATE FUNCTION emu.run_race(kind text, rows int, level text, statement text, keys int, rounds int, sessions int) RETURNS void LANGUAGE plpgsql AS
$$
DECLARE
	before bigint := emu.counted();
	result record;
BEGIN
	PERFORM emu.set_isolation(level, sessions);
	SELECT * INTO result FROM emu.race(statement, keys, rounds, sessions);
	INSERT INTO app.races VALUES (kind, rows, level, before, emu.counted(), result.acknowledged, result.states);
END
$$;
SELECT emu.run_race(kind, rows, level, statement, keys, :rounds, :sessions)
FROM (VALUES ('one row', 1, 'UPDATE counters SET n = n + 1 WHERE id = 1', 1),
		('one row with its statement', 1, 'UPDATE streamed SET n = n + 1 WHERE id = 1', 1),
		('a whole document', 1, 'UPDATE counters SET n = n + 1, extra = NULL WHERE id = 1', 1),
		('two of 30 rows', 2, 'UPDATE counters SET n = n + 1 WHERE id IN (%1$s, 1 + %1$s %% 30)', 30)) AS k (kind, rows, statement, keys),
	unnest(ARRAY['read committed', 'repeatable read', 'serializable']) AS level \g /dev/null
SELECT emu.config('{"extra_latency_ms": 0}') \g /dev/null
SELECT is(after - before, rows * acknowledged, kind || ', ' || level || ': every acknowledged increment counts') FROM races ORDER BY kind, level;
SELECT cmp_ok(acknowledged, '>=', :rounds::bigint, kind || ', ' || level || ': one of each round at least gets through') FROM races ORDER BY kind, level;
SELECT is(coalesce(states, '{40001}'), '{40001}', kind || ', ' || level || ': the others get 40001') FROM races ORDER BY kind, level;

-- ------------------------------------------------------------------ writers elsewhere

CREATE FUNCTION id_of(key int) RETURNS text LANGUAGE sql AS $$ SELECT d ->> '_id' FROM emu.dump('counters') AS d WHERE (d ->> 'id')::float8 = key $$;
CREATE FUNCTION row_of(key int) RETURNS jsonb LANGUAGE sql AS $$ SELECT d - '_id' - '_creationTime' - 'id' FROM emu.dump('counters') AS d WHERE (d ->> 'id')::float8 = key $$;
CREATE FUNCTION patch_of(key int, doc jsonb) RETURNS jsonb LANGUAGE sql AS $$ SELECT jsonb_build_object('op', 'patch', 'table', 'counters', 'id', app.id_of(key), 'doc', doc) $$;
CREATE FUNCTION state_of(failure jsonb) RETURNS text LANGUAGE sql AS $$ SELECT coalesce(failure ->> 'sqlstate', '00000') $$;
-- What a transaction ends with when somebody else's ops are committed after its check, just before its write.
CREATE FUNCTION crossed(ops jsonb, VARIADIC statements text[]) RETURNS jsonb LANGUAGE plpgsql AS
$$
DECLARE
	failure jsonb;
BEGIN
	PERFORM emu.mutate((SELECT jsonb_agg(app.patch_of(k, '{"n": 5, "note": "kept"}')) FROM unnest(ARRAY[1, 2]) AS k WHERE app.id_of(k) IS NOT NULL));
	PERFORM emu.clear_journal(), emu.fault(jsonb_build_object('action', 'mutate', 'path', '/api/streaming_import', 'count', 1, 'ops', ops));
	failure := emu.outcome(VARIADIC statements);
	PERFORM emu.clear_faults();
	RETURN failure;
END
$$;

SELECT is(state_of(crossed(jsonb_build_array(patch_of(3, '{"n": 77}')), 'UPDATE counters SET n = n + 1 WHERE id = 1')), '00000', 'a change of another row is no conflict');
SELECT is(row_of(1) ->> 'n', '6.0', 'the write is there');
SELECT is(count(*), 2::bigint, 'the change log was read before it and after it') FROM emu.journal('/api/document_deltas');

CREATE TABLE told AS SELECT crossed(jsonb_build_array(patch_of(1, '{"n": 100, "note": "theirs"}')), 'UPDATE counters SET n = n + 1 WHERE id = 1') AS e;
SELECT is(state_of(e), '08007', 'a change that came between the check and the write is told') FROM told;
SELECT matches(e ->> 'detail', 'Document "' || id_of(1) || '" of table "counters" was changed at [0-9]+, after the check for conflicts, to \{.*"n": ?100\.0.*\}\.  1 change of this transaction is in Convex\.', 'with its value') FROM told;
SELECT matches(e ->> 'hint', 'SET convex_fdw\.snapshot = ''[0-9]+''', 'and where it can still be read') FROM told;
SELECT format('SET convex_fdw.snapshot = %L', substring(e ->> 'hint' FROM '''([0-9]+)''')) FROM told \gexec
SELECT is((n, note)::text, '(100,theirs)', 'it can') FROM counters WHERE id = 1;
RESET convex_fdw.snapshot;
SELECT is(row_of(1), '{"n": 6.0, "note": "theirs"}', 'only the field that SET names was overwritten');

SELECT is(state_of(crossed('[{"op": "increment_all", "table": "counters", "field": "n", "by": 1}]', 'UPDATE counters SET n = n + 1 WHERE id = 1')), '08007', 'also a change to the very value that is written');
SELECT is(row_of(1) ->> 'n', '6.0', 'which is there once');
SELECT is(state_of(crossed('[{"op": "increment_all", "table": "counters", "field": "n", "by": 1}]', 'UPDATE counters SET n = n + 1, note = NULL WHERE id = 1')), '08007', 'also when the whole document is sent');
SELECT is(state_of(crossed(jsonb_build_array(patch_of(2, '{"n": 6}')), 'UPDATE counters SET n = n + 1 WHERE id <= 2')), '08007', 'also of another row of the request than the one that tells its timestamp');
SELECT is(state_of(crossed(jsonb_build_array(patch_of(2, '{"n": 9}')), 'UPDATE counters SET extra = ''new'' WHERE id <= 2')), '08007', 'also when fields are only added');
SELECT is(state_of(crossed(jsonb_build_array(patch_of(2, '{"note": "theirs"}')), 'UPDATE counters SET note = note WHERE id <= 2')), '08007', 'also when nothing changes');
SELECT is(state_of(crossed(jsonb_build_array(patch_of(1, '{"n": 9}')), 'DELETE FROM counters WHERE id = 1')), '08007', 'a row that was changed and then deleted is told');
SELECT emu.insert('counters', '{"id": 1, "n": 5}') \g /dev/null
SELECT is(state_of(crossed(jsonb_build_array(jsonb_build_object('op', 'delete', 'table', 'counters', 'id', id_of(1))), 'DELETE FROM counters WHERE id = 1')), '00000', 'a row that both delete is gone');
SELECT emu.insert('counters', '{"id": 1, "n": 5}') \g /dev/null
SELECT is(state_of(crossed(jsonb_build_array(jsonb_build_object('op', 'delete', 'table', 'counters', 'id', id_of(1))), 'UPDATE counters SET n = 7 WHERE id = 1')), '40001', 'a row that vanished is not made again by UPDATE');
SELECT emu.insert('counters', '{"id": 1, "n": 5}') \g /dev/null
SELECT is(state_of(crossed(jsonb_build_array(jsonb_build_object('op', 'delete', 'table', 'counters', 'id', id_of(1))), 'UPDATE counters SET n = 7, note = NULL WHERE id = 1')), '40001', 'nor by one that sends the whole document');
SELECT is(row_of(1), NULL, 'it stays away');
SELECT emu.insert('counters', '{"id": 1, "n": 5}') \g /dev/null
SELECT is(state_of(crossed(jsonb_build_array(patch_of(1, '{"n": 100}')), 'INSERT INTO counters VALUES (1, 7)')), '00000', 'INSERT replaces whatever is there');
SELECT is(count(*), 0::bigint, 'and reads no log') FROM emu.journal('/api/document_deltas');
CREATE FOREIGN TABLE unchecked (id float8, n float8) SERVER convex OPTIONS (table_name 'counters', primary_key 'id', conflict_check 'false');
SELECT is(state_of(crossed(jsonb_build_array(patch_of(1, '{"n": 100}')), 'UPDATE unchecked SET n = 8 WHERE id = 1')), '00000', 'without a check the last writer wins');
SELECT is(count(*), 0::bigint, 'and reads no log') FROM emu.journal('/api/document_deltas');

-- among more changes than are kept
CREATE FUNCTION many() RETURNS jsonb LANGUAGE sql AS $$ SELECT jsonb_agg('{"op": "insert", "table": "counters", "doc": {"n": 0}}'::jsonb) FROM generate_series(1, 10500) $$;
SELECT is(state_of(crossed(many() || patch_of(1, '{"n": 9}'), 'UPDATE counters SET n = n + 1 WHERE id = 1')), '08007', 'also among thousands of others');
SELECT is(state_of(crossed(many(), 'UPDATE counters SET n = n + 1 WHERE id = 1')), '00000', 'which alone are no conflict');
SELECT emu.mutate('[{"op": "delete_all", "table": "counters"}]') \g /dev/null
SELECT emu.insert('counters', '{"id": 1, "n": 5}', '{"id": 2, "n": 5}', '{"id": 3, "n": 5}') \g /dev/null

-- a change that comes later is nobody's loss
SELECT emu.fault(jsonb_build_object('action', 'mutate', 'path', '/api/document_deltas', 'skip', 1, 'count', 1, 'ops', jsonb_build_array(patch_of(1, '{"n": 50}')))) \g /dev/null
SELECT is(emu.sqlstate('UPDATE counters SET n = n + 1 WHERE id = 1'), '00000', 'a change after the write is not overwritten');
SELECT is(row_of(1) ->> 'n', '50.0', 'it stays');

-- several requests: a row of the second changes after the first was sent
CREATE FOREIGN TABLE small (id float8, n float8) SERVER convex OPTIONS (table_name 'counters', primary_key 'id', batch_size '1');
SELECT emu.fault(jsonb_build_object('action', 'mutate', 'path', '/api/streaming_import', 'count', 1, 'ops', jsonb_build_array(patch_of(2, '{"n": 60}')))), emu.clear_journal() \g /dev/null
SELECT is(emu.outcome('UPDATE small SET n = n + 1 WHERE id = 1', 'UPDATE small SET n = n + 1 WHERE id = 2') - 'hint', jsonb_build_object('sqlstate', '08007', 'message', 'could not write to Convex because of a concurrent change',
	'detail', format('Document "%s" of table "counters" has changed since it was read.  1 change of this transaction is in Convex.', id_of(2))), 'a conflict of a later request stops it');
SELECT is(emu.count_writes(), 1, 'the second request is not sent');

-- the log cannot be read after the answer
SELECT emu.fault('{"action": "status", "status": 400, "code": "InvalidWindowToReadDocuments", "path": "/api/document_deltas", "skip": 1, "count": 1}') \g /dev/null
SELECT matches(emu.outcome('UPDATE counters SET n = 1 WHERE id = 1') ->> 'message', 'has applied a write, but it is not known whether', 'when the log cannot be read after the answer that is told');
SELECT emu.fault('{"action": "stall", "path": "/api/document_deltas", "skip": 1, "count": 1}') \g /dev/null
SELECT is(emu.sqlstate('SET LOCAL statement_timeout = ''1s''', 'UPDATE counters SET n = 2 WHERE id = 1'), '08007', 'a timeout after the answer does not say that nothing was done');
SELECT emu.clear_faults() \g /dev/null

-- Convex turns the request away: the check is made again before it is repeated
SELECT emu.fault(jsonb_build_array(
	jsonb_build_object('action', 'mutate', 'path', '/api/streaming_import', 'count', 1, 'ops', jsonb_build_array(patch_of(1, '{"n": 70}'))),
	jsonb_build_object('action', 'status', 'status', 503, 'code', 'OptimisticConcurrencyControlFailure', 'path', '/api/streaming_import', 'count', 1))), emu.clear_journal() \g /dev/null
SELECT is(emu.sqlstate('UPDATE counters SET n = n + 1 WHERE id = 1'), '40001', 'a write conflict with a change of the row is 40001');
SELECT is(emu.count_writes(), 1, 'and is not sent again');
SELECT is(row_of(1) ->> 'n', '70.0', 'theirs stays');
SELECT emu.fault('{"action": "status", "status": 503, "code": "OptimisticConcurrencyControlFailure", "path": "/api/streaming_import", "count": 2}') \g /dev/null
SELECT is(emu.sqlstate('UPDATE counters SET n = n + 1 WHERE id = 1'), '00000', 'a write conflict with something else is repeated');
SELECT is(row_of(1) ->> 'n', '71.0', 'and counts once');

-- ------------------------------------------------------------------ locks

-- Those of this chapter's sessions; other chapters run beside it.
CREATE VIEW own_locks AS SELECT l.* FROM pg_locks AS l JOIN pg_stat_activity AS a USING (pid) WHERE a.datname = current_database() AND locktype = 'advisory';
SELECT emu.fault('{"action": "stall", "path": "/api/streaming_import", "count": 1}') \g /dev/null
SELECT emu.set_isolation('read committed', 2) \g /dev/null
SELECT dblink_send_query('racer1', 'UPDATE counters SET n = n + 1 WHERE id = 1') \g /dev/null
SELECT ok(emu.wait_until($$EXISTS (SELECT FROM app.own_locks WHERE objsubid = 15)$$), 'a row is locked while its write is under way');
SELECT is(emu.sqlstate('SET LOCAL lock_timeout = ''200ms''', 'UPDATE streamed SET n = n + 1 WHERE id = 1'), '55P03', 'lock_timeout ends a wait for it');
SELECT is(emu.sqlstate('SET LOCAL lock_timeout = ''200ms''', 'INSERT INTO streamed VALUES (1, 1)'), '55P03', 'an INSERT of its key waits as well');
SELECT is(emu.sqlstate('SET LOCAL lock_timeout = ''200ms''', 'UPDATE streamed SET n = n + 1 WHERE id = 2'), '00000', 'another row is free');
SELECT dblink_send_query('racer2', 'UPDATE counters SET n = n + 1 WHERE id = 1') \g /dev/null
SELECT ok(emu.wait_until($$EXISTS (SELECT FROM app.own_locks WHERE objsubid = 15 AND NOT granted)$$), 'another session waits for it');
SELECT dblink_cancel_query('racer2') \g /dev/null
SELECT is(emu.end_of('racer2'), '57014', 'until it is canceled');
SELECT emu.clear_faults() \g /dev/null
SELECT is(emu.end_of('racer1'), '00000', 'the first one ends');
SELECT is(count(*), 0::bigint, 'no lock is left') FROM app.own_locks WHERE objsubid IN (14, 15);

-- many rows lock their table
SELECT emu.insert('counters', VARIADIC ARRAY(SELECT jsonb_build_object('id', n, 'n', 0) FROM generate_series(101, 160) AS n)) \g /dev/null
SELECT emu.fault('{"action": "stall", "path": "/api/streaming_import", "count": 1}') \g /dev/null
SELECT dblink_send_query('racer1', 'UPDATE counters SET n = n + 1 WHERE id > 100') \g /dev/null
SELECT ok(emu.wait_until($$EXISTS (SELECT FROM app.own_locks WHERE objsubid = 14 AND mode = 'ExclusiveLock')$$), 'many rows lock the table');
SELECT is(count(*), 0::bigint, 'and not each of them') FROM app.own_locks WHERE objsubid = 15;
SELECT is(emu.sqlstate('SET LOCAL lock_timeout = ''200ms''', 'UPDATE streamed SET n = n + 1 WHERE id = 2'), '55P03', 'so that every row of it waits');
SELECT emu.clear_faults() \g /dev/null
SELECT is(emu.end_of('racer1'), '00000', 'that ends');

SELECT * FROM finish();
