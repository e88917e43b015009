-- Conflicts, repetitions and unknown outcomes of a flush.

\ir lib/setup.sql
\ir lib/writes.sql
\pset fieldsep '\n'
SELECT plan(94);

SELECT emu.server('convex', $$max_retries '3', max_retry_wait '10ms', request_timeout '60s'$$) \g /dev/null
SELECT emu.index('users', '{name}') \g /dev/null
CREATE FOREIGN TABLE users (_id text, name text, age float8, note text) SERVER convex OPTIONS (primary_key 'name');
CREATE FOREIGN TABLE users_unchecked (_id text, name text, age float8, note text) SERVER convex OPTIONS (table_name 'users', primary_key 'name', conflict_check 'false');
CREATE FOREIGN TABLE events (n int) SERVER convex;

-- ada, bob and cyd, and an empty journal
CREATE FUNCTION fresh() RETURNS void LANGUAGE plpgsql AS
$$
BEGIN
	PERFORM emu.clear_faults();
	PERFORM emu.mutate('[{"op": "delete_all", "table": "users"}, {"op": "insert", "table": "users", "doc": {"name": "ada", "age": 1}},
		{"op": "insert", "table": "users", "doc": {"name": "bob", "age": 2}}, {"op": "insert", "table": "users", "doc": {"name": "cyd", "age": 3}},
		{"op": "create_table", "table": "events"}, {"op": "delete_all", "table": "events"}]');
	PERFORM emu.clear_journal();
END
$$;
CREATE FUNCTION ages() RETURNS text LANGUAGE sql AS
$$ SELECT string_agg((d ->> 'name') || (d ->> 'age')::float8, ' ' ORDER BY d ->> 'name') FROM emu.dump('users') AS d $$;
CREATE FUNCTION id_of(who text) RETURNS text LANGUAGE sql AS $$ SELECT d ->> '_id' FROM emu.dump('users') AS d WHERE d ->> 'name' = who $$;
CREATE FUNCTION change_of(who text, "to" jsonb) RETURNS jsonb LANGUAGE sql AS
$$ SELECT jsonb_build_object('op', 'patch', 'table', 'users', 'id', app.id_of(who), 'doc', "to") $$;

-- A transaction of the other session, in whose midst somebody else commits.
CREATE FUNCTION interrupted(before text[], ops jsonb, after text[] DEFAULT '{}', level text DEFAULT 'READ COMMITTED') RETURNS jsonb LANGUAGE plpgsql AS
$$
DECLARE
	failure jsonb := emu.failure(format('SELECT public.dblink_exec(%L, %L)', 'writer', 'BEGIN ISOLATION LEVEL ' || level || '; ' || array_to_string(before, '; ')));
BEGIN
	IF failure IS NULL THEN
		PERFORM emu.mutate(ops);
		failure := emu.failure(format('SELECT public.dblink_exec(%L, %L)', 'writer', array_to_string(after || 'COMMIT'::text, '; ')));
	END IF;
	IF failure IS NOT NULL THEN
		PERFORM dblink_exec('writer', 'ROLLBACK');
	END IF;
	RETURN failure;
END
$$;

-- ------------------------------------------------------------------ conflicts

SELECT fresh() \g /dev/null
SELECT is(interrupted('{UPDATE users SET age = 10 WHERE name = ''ada''}', jsonb_build_array(change_of('ada', '{"age": 5}'))) ->> 'sqlstate', '40001', 'a row that somebody changed meanwhile is a conflict');
SELECT is(emu.count_writes(), 0, 'and nothing is sent');
SELECT is(ages(), 'ada5 bob2 cyd3', 'theirs stays');
SELECT is(interrupted('{UPDATE users SET age = 10 WHERE name = ''ada''}', jsonb_build_array(jsonb_build_object('op', 'delete', 'table', 'users', 'id', id_of('ada')))) ->> 'sqlstate', '40001', 'so is a row that vanished');
SELECT is(interrupted('{DELETE FROM users WHERE name = ''bob''}', jsonb_build_array(change_of('bob', '{"age": 6}'))) ->> 'sqlstate', '40001', 'DELETE of a changed row conflicts too');
SELECT is(emu.count_writes(), 0, 'and nothing is sent');
SELECT is(ages(), 'bob6 cyd3', 'it stays');
SELECT fresh() \g /dev/null
SELECT is(interrupted('{UPDATE users SET age = 10 WHERE name = ''ada''}', jsonb_build_array(change_of('bob', '{"age": 5}'), '{"op": "insert", "table": "users", "doc": {"name": "dee", "age": 4}}'::jsonb)), NULL, 'changes of other rows are no conflict');
SELECT is(ages(), 'ada10 bob5 cyd3 dee4', 'both are there');
SELECT is(count(*), 2::bigint, 'the change log is read before the write and after it') FROM emu.journal('/api/document_deltas');
SELECT ok(bool_and(request -> 'body' -> 'selection' IS NOT NULL AND request #>> '{body,selection}' !~ 'age'), 'for the ids of the written tables alone') FROM emu.journal('/api/document_deltas') AS request;
SELECT is(interrupted('{UPDATE users SET age = 11 WHERE name = ''ada''}', jsonb_build_array(change_of('bob', '{"age": 7}')), '{UPDATE users SET age = age + 1 WHERE name = ''bob''}'), NULL, 'a later statement sees what was committed before it');
SELECT is(ages(), 'ada11 bob8 cyd3 dee4', 'and builds on it');
SELECT is(interrupted('{UPDATE users SET age = 12 WHERE name = ''ada''}', jsonb_build_array(change_of('ada', '{"age": 0}')), '{UPDATE users SET note = ''x'' WHERE name = ''ada''}') ->> 'sqlstate', '40001', 'a row changed between two UPDATEs of it conflicts');
SELECT is(interrupted('{CREATE TEMP TABLE seen AS SELECT * FROM users}', jsonb_build_array(change_of('bob', '{"age": 9}')), '{UPDATE users SET age = 20 WHERE name = ''bob''}', 'REPEATABLE READ') ->> 'sqlstate', '40001', 'in REPEATABLE READ a row changed since the transaction''s snapshot conflicts');
SELECT is(ages(), 'ada0 bob9 cyd3 dee4', 'it stays');
SELECT emu.clear_journal() \g /dev/null
SELECT is(interrupted('{INSERT INTO users (name\, age) VALUES (''ada''\, 30)}', jsonb_build_array(change_of('ada', '{"age": 1}'))), NULL, 'an INSERT replaces whatever is there');
SELECT is(count(*), 0::bigint, 'without a look at the change log') FROM emu.journal('/api/document_deltas');
SELECT is(interrupted('{UPDATE users SET age = 1 WHERE name = ''ada''}', jsonb_build_array(change_of('ada', '{"age": 2}'), '{"op": "system"}'::jsonb)) ->> 'sqlstate', '40001', 'an UPDATE of that row conflicts again');
SELECT is(interrupted('{SAVEPOINT s,UPDATE users SET age = 1 WHERE name = ''ada'',ROLLBACK TO s,UPDATE users SET age = 1 WHERE name = ''bob''}', jsonb_build_array(change_of('ada', '{"age": 3}'))), NULL, 'what was rolled back cannot conflict');

-- conflict_check 'false'
SELECT fresh() \g /dev/null
SELECT is(interrupted('{UPDATE users_unchecked SET age = 10 WHERE name = ''ada''}', jsonb_build_array(change_of('ada', '{"age": 5, "note": "theirs"}'))), NULL, 'with conflict_check ''false'' there is no conflict');
SELECT is(ages(), 'ada10 bob2 cyd3', 'the last writer wins');
SELECT is((SELECT d ->> 'note' FROM emu.dump('users') AS d WHERE d ->> 'name' = 'ada'), 'theirs', 'field by field');
SELECT is(count(*), 0::bigint, 'the change log is not read') FROM emu.journal('/api/document_deltas');
SELECT is(interrupted('{UPDATE users_unchecked SET age = 10 WHERE name = ''ada''}', jsonb_build_array(jsonb_build_object('op', 'delete', 'table', 'users', 'id', id_of('ada')))) ->> 'sqlstate', '40001', 'a vanished row is 40001 all the same');
SELECT is(ages(), 'bob2 cyd3', 'and never inserted');
SELECT is(interrupted('{DELETE FROM users_unchecked WHERE name = ''bob''}', jsonb_build_array(jsonb_build_object('op', 'delete', 'table', 'users', 'id', id_of('bob')))), NULL, 'a DELETE of a vanished row is no error');
SELECT is(interrupted('{UPDATE users_unchecked SET age = NULL WHERE name = ''cyd''}', jsonb_build_array(change_of('cyd', '{"age": 5}'))) ->> 'sqlstate', '40001', 'an UPDATE that sends the whole document is checked always');

-- ------------------------------------------------------------------ appends whose outcome is unknown

-- A fault on the writing route under an INSERT: what it ends with, how often it was sent, what Convex holds.
CREATE FUNCTION append_under(fault jsonb, VARIADIC statements text[] DEFAULT '{INSERT INTO events VALUES (1)}') RETURNS text LANGUAGE plpgsql AS
$$
DECLARE
	failure jsonb;
BEGIN
	PERFORM app.fresh(), emu.fault(fault || '{"path": "/api/streaming_import"}');
	failure := emu.outcome(VARIADIC statements);
	PERFORM emu.clear_faults();
	RETURN concat_ws(' ', coalesce(failure ->> 'sqlstate', '00000'), 'requests', (SELECT count(*) FROM emu.writes()), 'documents', (SELECT count(*) FROM emu.dump('events')));
END
$$;
SELECT is(append_under('{"action": "apply_then_cut"}'), '08007 requests 1 documents 1', 'an append that was applied without an answer is unknown, and sent once');
SELECT is(append_under('{"action": "reset"}'), '08007 requests 1 documents 0', 'so is one that was not applied');
ALTER SERVER convex OPTIONS (SET request_timeout '2s');
SELECT is(append_under('{"action": "stall", "seconds": 60}', 'SET LOCAL statement_timeout = 0', 'INSERT INTO events VALUES (1)'), '08007 requests 1 documents 1', 'one whose answer does not come in time');
ALTER SERVER convex OPTIONS (SET request_timeout '60s');
SELECT is(append_under('{"action": "stall", "seconds": 60}', 'SET LOCAL statement_timeout = ''1s''', 'INSERT INTO events VALUES (1)'), '08007 requests 1 documents 1', 'one that statement_timeout ends at COMMIT');
SELECT is(append_under('{"action": "apply_then_status", "status": 408}'), '08007 requests 1 documents 1', '408');
SELECT is(append_under('{"action": "status", "status": 408}'), '08007 requests 1 documents 0', '408 without effect');
SELECT is(append_under('{"action": "apply_then_status", "status": 500}'), '08007 requests 1 documents 1', '500');
SELECT is(append_under('{"action": "apply_then_status", "status": 502, "body": "<html>"}'), '08007 requests 1 documents 1', '502 of a proxy');
SELECT is(append_under('{"action": "status", "status": 504, "body": ""}'), '08007 requests 1 documents 0', '504 of a proxy');
SELECT is(append_under('{"action": "status", "status": 503, "body": "busy"}'), '08007 requests 1 documents 0', '503 of a proxy');
SELECT is(append_under('{"action": "status", "status": 503, "code": "InternalServerError"}'), '08007 requests 1 documents 0', '503 of another code');
SELECT ok(length(emu.outcome('INSERT INTO events VALUES (1)') ->> 'hint') > 10, 'a hint tells what to do') FROM emu.fault('{"action": "apply_then_cut", "path": "/api/streaming_import"}');

-- A connection that has carried requests before
SELECT is(append_under('{"action": "apply_then_cut"}', 'CREATE TEMP TABLE read_first ON COMMIT DROP AS SELECT * FROM events', 'INSERT INTO events VALUES (1)'), '08007 requests 1 documents 1', 'no library sends it again on a connection that was re-used');
SELECT fresh(), emu.fault(format('{"action": "close_after", "at": "%s", "path": "/api/list_snapshot"}', at)::jsonb), is(emu.sqlstate('CREATE TEMP TABLE read_first ON COMMIT DROP AS SELECT * FROM events', 'INSERT INTO events VALUES (1)'), '00000', 'a connection closed meanwhile (' || at || ') costs nothing'),
	is((SELECT array_agg(jsonb_array_length(request -> 'commits')) FROM emu.writes() AS request), '{1}', 'and the request is sent once')
FROM unnest(ARRAY['answer', 'next']) AS at;

-- What proves that nothing was applied is repeated.
SELECT is(append_under('{"action": "status", "status": 429, "code": "TooManyWrites", "count": 2}'), '00000 requests 3 documents 1', '429 is repeated');
SELECT is(append_under('{"action": "status", "status": 503, "code": "OptimisticConcurrencyControlFailure", "count": 2}'), '00000 requests 3 documents 1', 'a write conflict is repeated');
SELECT is(append_under('{"action": "status", "status": 503, "code": "CommitterFullError", "count": 2}'), '00000 requests 3 documents 1', 'a full committer is repeated');
SELECT is(append_under('{"action": "status", "status": 429, "code": "TooManyWrites", "count": -1}'), '53000 requests 4 documents 0', 'max_retries times');
SELECT is(append_under('{"action": "status", "status": 400, "code": "TooNestedError"}'), 'HV00L requests 1 documents 0', 'a refusal is not repeated');
CREATE SERVER closed FOREIGN DATA WRAPPER convex_fdw OPTIONS (deployment_url 'http://127.0.0.1:1', max_retries '1', max_retry_wait '1ms');
CREATE USER MAPPING FOR CURRENT_USER SERVER closed;
SELECT format('ALTER USER MAPPING FOR CURRENT_USER SERVER closed OPTIONS (ADD deploy_key %L)', emu.key()) \gexec
CREATE FOREIGN TABLE closed_events (n int) SERVER closed;
SELECT is(emu.sqlstate('INSERT INTO closed_events VALUES (1)'), 'HV00N', 'no connection is no unknown outcome');

-- ------------------------------------------------------------------ keyed writes: the change log tells

CREATE FUNCTION keyed_under(faults jsonb, VARIADIC statements text[] DEFAULT '{UPDATE users SET age = 10 WHERE name = ''ada''}') RETURNS text LANGUAGE plpgsql AS
$$
DECLARE
	failure jsonb;
BEGIN
	PERFORM app.fresh(), emu.fault((SELECT jsonb_agg('{"path": "/api/streaming_import"}'::jsonb || fault) FROM jsonb_array_elements(faults) AS fault));
	failure := emu.outcome(VARIADIC statements);
	PERFORM emu.clear_faults();
	RETURN concat_ws(' ', coalesce(failure ->> 'sqlstate', '00000'), 'requests', (SELECT count(*) FROM emu.writes()), app.ages());
END
$$;
SELECT is(keyed_under('[{"action": "apply_then_cut"}]'), '00000 requests 1 ada10 bob2 cyd3', 'an UPDATE that was applied without an answer is found done');
SELECT is(keyed_under('[{"action": "reset"}]'), '00000 requests 2 ada10 bob2 cyd3', 'one that was not applied is repeated');
SELECT is(keyed_under('[{"action": "apply_then_status", "status": 500}]'), '00000 requests 1 ada10 bob2 cyd3', 'done behind a 500');
SELECT is(keyed_under('[{"action": "status", "status": 500}]'), '00000 requests 2 ada10 bob2 cyd3', 'repeated after a 500');
SELECT is(keyed_under('[{"action": "apply_then_status", "status": 408}]'), '00000 requests 1 ada10 bob2 cyd3', 'done behind a 408');
SELECT is(keyed_under('[{"action": "status", "status": 502, "body": "x"}]'), '00000 requests 2 ada10 bob2 cyd3', 'repeated after a 502');
SELECT is(keyed_under('[{"action": "apply_then_cut"}]', 'INSERT INTO users (name, age) VALUES (''dee'', 4), (''ada'', 5)'), '00000 requests 1 ada5 bob2 cyd3 dee4', 'INSERTs are found done');
SELECT is(keyed_under('[{"action": "reset"}]', 'INSERT INTO users (name, age) VALUES (''dee'', 4), (''ada'', 5)'), '00000 requests 2 ada5 bob2 cyd3 dee4', 'and repeated');
SELECT emu.config('{"routes_missing": ["/api/query_ts"]}') \g /dev/null
SELECT is(keyed_under('[{"action": "apply_then_cut"}]', 'INSERT INTO users (name, age) VALUES (''dee'', 4)'), '00000 requests 1 ada1 bob2 cyd3 dee4', 'also where the server does not know query_ts');
SELECT emu.config('{"routes_missing": []}') \g /dev/null
SELECT is(keyed_under('[{"action": "apply_then_cut"}]', 'DELETE FROM users WHERE name <> ''ada'''), '00000 requests 1 ada1', 'DELETEs are found done');
SELECT is(keyed_under('[{"action": "reset"}]', 'DELETE FROM users WHERE name <> ''ada'''), '00000 requests 2 ada1', 'and repeated');
SELECT is(keyed_under('[{"action": "apply_then_cut"}]', 'UPDATE users SET age = 7, name = ''eve'' WHERE name = ''ada'''), '00000 requests 1 bob2 cyd3 eve7', 'a changed key is found done');
SELECT matches(keyed_under('[{"action": "apply_then_cut"}]', 'UPDATE users SET age = age WHERE name = ''ada'''), '^00000 requests [12] ada1 bob2 cyd3$', 'a write that changes nothing needs no trace in the change log');
SELECT is(keyed_under('[{"action": "apply_then_cut"}]', 'UPDATE users SET age = CASE name WHEN ''ada'' THEN 10 ELSE age END'), '00000 requests 1 ada10 bob2 cyd3', 'also beside one that leaves a trace');
SELECT matches(keyed_under('[{"action": "apply_then_cut"}]', 'UPDATE users SET age = 10 WHERE name = ''ada''', 'INSERT INTO users (name, age) VALUES (''dee'', 1)', 'DELETE FROM users WHERE name = ''dee'''), '^00000 requests [12] ada10 bob2 cyd3$', 'nor does a row that was inserted and deleted');
SELECT is(keyed_under('[{"action": "mutate", "ops": [{"op": "update_all", "table": "users", "doc": {"age": 50}}]}, {"action": "reset"}]'), '08007 requests 1 ada50 bob50 cyd50', 'a row that somebody else changed instead leaves it unknown');
SELECT is(keyed_under('[{"action": "mutate", "ops": [{"op": "insert", "table": "users", "doc": {"name": "dee", "age": 9}}]}, {"action": "reset"}]'), '00000 requests 2 ada10 bob2 cyd3 dee9', 'changes of rows that were not written do not');
SELECT is(keyed_under('[{"action": "apply_then_cut"}, {"action": "status", "status": 400, "code": "InvalidWindowToReadDocuments", "path": "/api/document_deltas", "skip": 1, "count": -1}]'), '08007 requests 1 ada10 bob2 cyd3', 'a change log that cannot be read leaves it unknown');
SELECT is(keyed_under('[{"action": "reset", "count": -1}]') LIKE '0800_ requests _ ada1 bob2 cyd3', true, 'repetitions have an end');
SELECT is(keyed_under('[{"action": "stall", "seconds": 60}]', 'SET LOCAL statement_timeout = ''1s''', 'UPDATE users SET age = 10 WHERE name = ''ada'''), '08007 requests 1 ada10 bob2 cyd3', 'statement_timeout under a keyed request is an unknown outcome');
SELECT is(keyed_under('[{"action": "status", "status": 503, "code": "OptimisticConcurrencyControlFailure", "count": 2}]'), '00000 requests 3 ada10 bob2 cyd3', 'a write conflict is repeated');
SELECT is(keyed_under('[{"action": "status", "status": 429, "code": "TooManyWrites"}]'), '00000 requests 2 ada10 bob2 cyd3', '429 is repeated');

-- The server itself splits a request: its first part may be applied when the second conflicts.
SELECT emu.config('{"max_tx_ranges": 4}') \g /dev/null
SELECT is(keyed_under('[{"action": "apply_then_cut"}]', 'UPDATE users SET age = 10'), '00000 requests 1 ada10 bob10 cyd10', 'a request of several transactions is found done');
SELECT emu.config('{"max_tx_ranges": 4096}') \g /dev/null

-- A cancel while a request is in flight
CREATE FUNCTION cancelled_at_commit(how text, VARIADIC statements text[]) RETURNS text LANGUAGE plpgsql AS
$$
DECLARE
	victim int := (SELECT pid FROM dblink('writer', 'SELECT pg_backend_pid()') AS t (pid int));
	failure jsonb;
BEGIN
	PERFORM app.fresh(), emu.fault('{"action": "stall", "path": "/api/streaming_import"}');
	PERFORM dblink_exec('writer', 'BEGIN; ' || array_to_string(statements, '; '));
	PERFORM dblink_send_query('writer', 'COMMIT');
	PERFORM emu.wait_until('EXISTS (SELECT FROM emu.writes() AS w WHERE w ->> ''fault'' = ''stall'')');
	EXECUTE format('SELECT %s(%s)', how, victim);
	failure := emu.failure($f$ SELECT * FROM public.dblink_get_result('writer') AS t (status text) $f$);
	PERFORM emu.failure($f$ SELECT * FROM public.dblink_get_result('writer') AS t (status text) $f$);
	PERFORM emu.clear_faults();
	PERFORM emu.failure($f$ SELECT public.dblink_exec('writer', 'ROLLBACK') $f$);
	RETURN failure ->> 'sqlstate';
END
$$;
SELECT is(cancelled_at_commit('pg_cancel_backend', 'INSERT INTO events VALUES (1)'), '08007', 'a cancel while an append is in flight is an unknown outcome');
SELECT is(emu.count_writes(), 1, 'sent once');
SELECT is(cancelled_at_commit('pg_cancel_backend', 'UPDATE users SET age = 10'), '08007', 'also of a keyed write');
SELECT is(emu.sqlstate('INSERT INTO events VALUES (2)'), '00000', 'the session goes on');

-- ------------------------------------------------------------------ late failures

SELECT fresh() \g /dev/null
ALTER FOREIGN TABLE events OPTIONS (ADD batch_size '10');
SELECT emu.fault('{"action": "status", "status": 400, "code": "TooNestedError", "path": "/api/streaming_import", "skip": 2}'), emu.outcome('INSERT INTO events SELECT n FROM generate_series(1, 35) AS n') AS late \gset
SELECT is(:'late'::jsonb ->> 'sqlstate', 'HV00L', 'a late refusal is the transaction''s error');
SELECT matches(:'late'::text, '\y20\y', 'that says how many messages were applied');
SELECT is((SELECT count(*) FROM emu.dump('events')), 20::bigint, 'and they are');
SELECT is(emu.count_writes(), 3, 'what comes after is not sent');
SELECT fresh(), emu.fault('{"action": "apply_then_cut", "path": "/api/streaming_import", "skip": 2}'), emu.outcome('INSERT INTO events SELECT n FROM generate_series(1, 35) AS n') AS late \gset
SELECT is(:'late'::jsonb ->> 'sqlstate', '08007', 'a late unknown outcome too');
SELECT matches(:'late'::text, '\y20\y', 'with the number of those that were');
SELECT is(emu.count_writes(), 3, 'what comes after is not sent');
SELECT fresh() \g /dev/null
ALTER FOREIGN TABLE users OPTIONS (ADD batch_size '10');
SELECT emu.fault('{"action": "status", "status": 400, "code": "TooNestedError", "path": "/api/streaming_import", "skip": 1}'), emu.outcome('INSERT INTO users (name, age) SELECT ''u'' || n, n FROM generate_series(1, 15) AS n') AS late \gset
SELECT matches(:'late'::text, '\y10\y', 'keyed writes say it as well');
SELECT fresh(), emu.outcome('INSERT INTO users (name, age) SELECT ''u'' || n, n FROM generate_series(1, 15) AS n') \g /dev/null
SELECT emu.fault('{"action": "status", "status": 404, "code": "FivetranMissingUpdatedRow", "path": "/api/streaming_import", "skip": 1}'), emu.outcome('UPDATE users SET age = age + 1') AS late \gset
SELECT is(:'late'::jsonb ->> 'sqlstate', '08007', 'what is in Convex in part is no 40001, after which programs run all of it again');
ALTER FOREIGN TABLE users OPTIONS (DROP batch_size);

-- A large COPY
SELECT fresh() \g /dev/null
ALTER FOREIGN TABLE events OPTIONS (SET batch_size '1000');
-- What the other session has taken of memory at its worst, without what it shares; in kB.
CREATE FUNCTION peak_memory() RETURNS int LANGUAGE sql AS
$$
	SELECT (regexp_match(status, 'VmHWM:\s+(\d+)'))[1]::int - (regexp_match(status, 'RssShmem:\s+(\d+)'))[1]::int
	FROM dblink('writer', 'SELECT pg_read_file(''/proc/self/status'')') AS t (status text)
$$;
SELECT emu.sqlstate('COPY events FROM PROGRAM ''seq 1 10000''') AS copied, peak_memory() AS before, fresh() AS done \gset
SELECT is(emu.sqlstate('COPY events FROM PROGRAM ''seq 1 100000'''), '00000', 'COPY of 100,000 rows');
SELECT cmp_ok(peak_memory() - :before, '<', 8192, 'takes no more memory than one of 10,000');
SELECT is(array_agg(DISTINCT jsonb_array_length(request #> '{body,messages}')) || count(*)::int, '{1000,100}', 'with batch_size 1000 is 100 requests') FROM emu.writes() AS request;
SELECT is((SELECT count(DISTINCT n) FROM events), 100000::bigint, 'and all of them arrive');
SELECT fresh(), emu.fault('{"action": "status", "status": 400, "code": "TooNestedError", "path": "/api/streaming_import", "skip": 59}'), emu.outcome('COPY events FROM PROGRAM ''seq 1 100000''') AS late \gset
SELECT matches(:'late'::text, '59[, ]?000', 'a failure in request 60 says that 59,000 documents are in Convex');
SELECT is((SELECT count(*) FROM emu.dump('events')), 59000::bigint, 'and they are');
SELECT is(emu.count_writes(), 60, 'after 60 requests');

SELECT * FROM finish();
