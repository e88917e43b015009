-- Append-only tables: INSERT in all its forms arrives as one Convex transaction
-- at COMMIT, or not at all.

\ir lib/setup.sql
\ir lib/writes.sql
\pset fieldsep '\n'
SELECT plan(82);

SELECT emu.server() \g /dev/null
CREATE FOREIGN TABLE events (_id text, kind text, n float8, at timestamptz, payload jsonb) SERVER convex;
CREATE FOREIGN TABLE logs (line text, n int) SERVER convex;
CREATE TABLE numbers AS SELECT n FROM generate_series(1, 5) AS n;

-- ------------------------------------------------------------------ forms of INSERT

INSERT INTO events (kind, n) VALUES ('login', 1.5);
SELECT is(emu.documents('events'), '[{"kind": "login", "n": 1.5}]', 'an INSERT arrives; NULL fields are absent');
SELECT is(array_agg(request -> 'body'), ARRAY[jsonb '{"tables": {"events": {"primaryKey": null, "jsonSchema": {}}}, "messages": [{"tableName": "events", "data": {"kind": "login", "n": 1.5}}]}'],
	'it is one request of one message, without a primary key') FROM emu.writes() AS request;
SELECT is(request ->> 'path', '/api/streaming_import/import_airbyte_records', 'to import_airbyte_records') FROM emu.writes() AS request;
SELECT is(emu.count_writes(), 1, 'and nothing else is written');

INSERT INTO events (kind, n) VALUES ('a', 1), ('b', 2), ('c', 3);
SELECT is(array_agg(m), ARRAY[jsonb '["events", "Append", {"kind": "a", "n": 1}]', '["events", "Append", {"kind": "b", "n": 2}]', '["events", "Append", {"kind": "c", "n": 3}]'],
	'rows of one INSERT arrive in order') FROM emu.messages() AS m;
SELECT is(emu.count_writes(), 1, 'in one request');

INSERT INTO events (kind, n) SELECT 'selected', n FROM numbers ORDER BY n DESC;
SELECT is(array_agg(m #> '{2,n}'), ARRAY[jsonb '5', '4', '3', '2', '1'], 'INSERT ... SELECT keeps the order of its rows') FROM emu.messages() AS m;
SELECT is(emu.count_writes(), 1, 'in one request');
INSERT INTO events (kind, n) SELECT 'again', n FROM events WHERE kind = 'selected';
SELECT is((SELECT count(*) FROM events WHERE kind = 'again'), 5::bigint, 'a table can be filled from itself');
SELECT is(emu.count_writes(), 1, 'in one request');
INSERT INTO events (kind) SELECT 'none' WHERE false;
SELECT is(emu.count_writes(), 0, 'an INSERT of no row sends nothing');
INSERT INTO events DEFAULT VALUES;
SELECT is(array_agg(m), ARRAY[jsonb '["events", "Append", {}]'], 'a row of NULLs is an empty document') FROM emu.messages() AS m;
SELECT emu.clear_journal() \g /dev/null

COPY events (kind, n, at) FROM stdin (FORMAT csv);
copied,1,2026-01-02T03:04:05Z
copied,2,
\.
SELECT is(array_agg(m ORDER BY m), ARRAY[jsonb '["events", "Append", {"kind": "copied", "n": 2}]', '["events", "Append", {"kind": "copied", "n": 1, "at": 1767323045000}]'],
	'COPY arrives') FROM emu.messages() AS m;
SELECT is(emu.count_writes(), 1, 'in one request');

PREPARE p (text, float8) AS INSERT INTO events (kind, n) VALUES ($1, $2);
EXECUTE p ('prepared', 1);
SET plan_cache_mode = force_generic_plan;
EXECUTE p ('prepared', 2);
RESET plan_cache_mode;
SELECT is(array_agg(m #> '{2,n}'), ARRAY[jsonb '1', '2'], 'prepared INSERTs arrive') FROM emu.messages() AS m;
SELECT is(emu.count_writes(), 2, 'each with its own commit');

ALTER FOREIGN TABLE events ALTER kind SET DEFAULT 'by default';
INSERT INTO events (n) VALUES (1);
SELECT is(array_agg(m), ARRAY[jsonb '["events", "Append", {"kind": "by default", "n": 1}]'], 'defaults are filled in') FROM emu.messages() AS m;
ALTER FOREIGN TABLE events ALTER kind DROP DEFAULT;
SELECT emu.clear_journal() \g /dev/null

WITH new AS (INSERT INTO events (kind, n) VALUES ('with', 1) RETURNING *) SELECT * FROM new \g /dev/null
SELECT is(emu.count_writes(), 1, 'an INSERT in WITH arrives');
CREATE VIEW event_view AS SELECT kind, n FROM events WHERE n > 0;
INSERT INTO event_view VALUES ('through a view', 1);
SELECT is(emu.count_writes(), 1, 'an INSERT through a view arrives');
CREATE VIEW checked_view AS SELECT kind, n FROM events WHERE n > 0 WITH CHECK OPTION;
SELECT throws_ok($$ INSERT INTO app.checked_view VALUES ('x', 0) $$, '44000', NULL, 'WITH CHECK OPTION is checked');
SELECT is(emu.count_writes(), 0, 'before anything is sent');

-- ------------------------------------------------------------------ RETURNING

CREATE FUNCTION returned(statement text) RETURNS jsonb LANGUAGE plpgsql AS
$$
DECLARE
	result jsonb;
BEGIN
	EXECUTE format('WITH r AS (%s) SELECT jsonb_agg(r) FROM r', statement) INTO result;
	RETURN result;
END
$$;
SELECT is(returned($$ INSERT INTO events (kind, n, payload) VALUES ('r', 1, '{"a": [1, null]}'), ('s', NULL, NULL) RETURNING *, tableoid::regclass::text AS t, n + 1 AS m $$),
	'[{"_id": null, "kind": "r", "n": 1, "at": null, "payload": {"a": [1, null]}, "t": "events", "m": 2}, {"_id": null, "kind": "s", "n": null, "at": null, "payload": null, "t": "events", "m": null}]',
	'RETURNING gives the values as sent, _id is NULL, tableoid tells the table');

-- ------------------------------------------------------------------ functions, triggers, partitions

CREATE FUNCTION note(text) RETURNS void LANGUAGE sql AS $$ INSERT INTO app.logs (line) VALUES ($1) $$;
CREATE FUNCTION note_plpgsql(text) RETURNS void LANGUAGE plpgsql AS $$ BEGIN INSERT INTO app.logs (line) VALUES ($1); INSERT INTO app.logs (line) VALUES ($1 || ' again'); END $$;
SELECT emu.clear_journal() \g /dev/null
SELECT note('sql'), note_plpgsql('plpgsql') \g /dev/null
SELECT is(array_agg(m #>> '{2,line}'), '{sql,plpgsql,"plpgsql again"}', 'INSERTs of functions arrive in order') FROM emu.messages() AS m;
SELECT is(emu.count_writes(), 1, 'in the statement''s one request');

CREATE FUNCTION log_number() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO app.logs (line, n) VALUES (tg_op || ' ' || tg_when, new.n); RETURN new; END $$;
CREATE TRIGGER log_before BEFORE INSERT ON numbers FOR EACH ROW EXECUTE FUNCTION log_number();
CREATE CONSTRAINT TRIGGER log_deferred AFTER INSERT ON numbers DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION log_number();
INSERT INTO numbers VALUES (10), (11);
SELECT is(array_agg(m -> 2 ORDER BY place), ARRAY[jsonb '{"line": "INSERT BEFORE", "n": 10}', '{"line": "INSERT BEFORE", "n": 11}', '{"line": "INSERT AFTER", "n": 10}', '{"line": "INSERT AFTER", "n": 11}'],
	'what triggers on a local table insert arrives, deferred ones too') FROM emu.messages() WITH ORDINALITY AS s (m, place);
SELECT is(emu.count_writes(), 1, 'in one request');
DROP TRIGGER log_before ON numbers;
DROP TRIGGER log_deferred ON numbers;

CREATE FUNCTION shout() RETURNS trigger LANGUAGE plpgsql AS
$$
BEGIN
	IF new.kind = 'skip' THEN
		RETURN NULL;
	END IF;
	new.kind := upper(new.kind);
	RETURN new;
END
$$;
CREATE TRIGGER shout BEFORE INSERT ON events FOR EACH ROW EXECUTE FUNCTION shout();
CREATE TRIGGER log_after AFTER INSERT ON events FOR EACH ROW EXECUTE FUNCTION log_number();
INSERT INTO events (kind, n) VALUES ('low', 1), ('skip', 2), ('high', 3);
SELECT is(array_agg(m #>> '{2,kind}') FILTER (WHERE m ->> 0 = 'events'), '{LOW,HIGH}', 'BEFORE triggers of the foreign table change rows and drop them') FROM emu.messages() AS m;
SELECT is(array_agg(m #> '{2,n}') FILTER (WHERE m ->> 0 = 'logs'), ARRAY[jsonb '1', '3'], 'its AFTER triggers see the rows') FROM emu.messages() AS m;
SELECT is(emu.count_writes(), 1, 'all in one request');
DROP TRIGGER shout ON events;
DROP TRIGGER log_after ON events;

CREATE TABLE parted (day int, what text) PARTITION BY LIST (day);
CREATE FOREIGN TABLE day1 PARTITION OF parted FOR VALUES IN (1) SERVER convex;
CREATE FOREIGN TABLE day2 PARTITION OF parted FOR VALUES IN (2) SERVER convex;
CREATE TABLE day3 PARTITION OF parted FOR VALUES IN (3);
INSERT INTO parted VALUES (1, 'a'), (2, 'b'), (3, 'c'), (1, 'd');
SELECT is(array_agg(m), ARRAY[jsonb '["day1", "Append", {"day": 1, "what": "a"}]', '["day2", "Append", {"day": 2, "what": "b"}]', '["day1", "Append", {"day": 1, "what": "d"}]'],
	'rows are routed to foreign partitions, in order') FROM emu.messages() AS m;
SELECT is(emu.count_writes(), 1, 'in one request');
COPY parted FROM stdin;
2	copied
1	copied
3	copied
\.
SELECT is(count(*), 2::bigint, 'COPY is routed too') FROM emu.messages();
SELECT is(emu.count_writes(), 1, 'in one request');
SELECT is((SELECT array_agg(day || what ORDER BY day, what) FROM parted), '{1a,1copied,1d,2b,2copied,3c,3copied}', 'all partitions read back');
SELECT throws_ok('INSERT INTO parted VALUES (4, ''x'')', '23514', NULL, 'a row without a partition is refused');
SELECT is(returned($$ INSERT INTO parted VALUES (2, 'r') RETURNING *, tableoid::regclass::text AS t $$), '[{"day": 2, "what": "r", "t": "day2"}]', 'RETURNING works through partitions');

-- ------------------------------------------------------------------ one commit, one request

SELECT emu.clear_journal() \g /dev/null
BEGIN;
INSERT INTO events (kind, n) VALUES ('tx', 1);
INSERT INTO logs (line, n) VALUES ('tx', 2);
INSERT INTO events (kind, n) VALUES ('tx', 3);
COPY logs (line, n) FROM stdin;
tx	4
\.
SELECT is(emu.count_writes(), 0, 'nothing is sent before COMMIT');
COMMIT;
SELECT is(array_agg(m #> '{2,n}'), ARRAY[jsonb '1', '2', '3', '4'], 'statements of a transaction arrive in order') FROM emu.messages() AS m;
SELECT is(array_agg(jsonb_array_length(request -> 'commits')), '{1}', 'as one request and one Convex transaction') FROM emu.writes() AS request;
SELECT request #>> '{commits,0}' AS ts FROM emu.writes() AS request \gset
SELECT is(array_agg(DISTINCT table_name || ' ' || ts ORDER BY table_name || ' ' || ts), ARRAY['events ' || :'ts', 'logs ' || :'ts'], 'two tables share its timestamp in the change log')
FROM convex_changes('convex', :ts - 1) WHERE id IS NOT NULL;
SELECT emu.clear_journal() \g /dev/null

BEGIN;
INSERT INTO events (kind) VALUES ('rolled back');
INSERT INTO logs (line) VALUES ('rolled back');
ROLLBACK;
SELECT is(emu.count_writes(), 0, 'ROLLBACK sends nothing');
SELECT is(emu.sqlstate($$ INSERT INTO events (kind) VALUES ('failed') $$, 'SELECT 1/0'), '22012', 'a transaction that fails');
SELECT is(emu.count_writes(), 0, 'sends nothing');
SELECT is(emu.sqlstate($$ INSERT INTO events (kind) VALUES ('failed') $$,
	$$ CREATE TEMP TABLE unique_later (n int UNIQUE DEFERRABLE INITIALLY DEFERRED) $$, 'INSERT INTO unique_later VALUES (1), (1)'), '23505', 'a deferred constraint that fails at COMMIT');
SELECT is(emu.count_writes(), 0, 'sends nothing');

BEGIN;
INSERT INTO logs (n) VALUES (1);
SAVEPOINT a;
INSERT INTO logs (n) VALUES (2);
ROLLBACK TO a;
INSERT INTO logs (n) VALUES (3);
SAVEPOINT b;
INSERT INTO logs (n) VALUES (4);
SAVEPOINT c;
INSERT INTO logs (n) VALUES (5);
RELEASE c;
ROLLBACK TO b;
SAVEPOINT d;
INSERT INTO logs (n) VALUES (6);
RELEASE d;
RELEASE b;
INSERT INTO logs (n) VALUES (7);
COMMIT;
SELECT is(array_agg(m #> '{2,n}'), ARRAY[jsonb '1', '3', '6', '7'], 'savepoints discard exactly what was written after them') FROM emu.messages() AS m;
SELECT is(emu.count_writes(), 1, 'the rest is one request');

DO $$
BEGIN
	FOR i IN 1 .. 6 LOOP
		BEGIN
			INSERT INTO app.logs (n) VALUES (i);
			IF i % 2 = 0 THEN
				RAISE EXCEPTION 'even';
			END IF;
		EXCEPTION WHEN raise_exception THEN
			INSERT INTO app.logs (n) VALUES (-i);
		END;
	END LOOP;
END
$$;
SELECT is(array_agg(m #> '{2,n}'), ARRAY[jsonb '1', '-2', '3', '-4', '5', '-6'], 'exception blocks discard what was written in them') FROM emu.messages() AS m;
SELECT is(emu.count_writes(), 1, 'the rest is one request');
BEGIN;
SAVEPOINT s;
INSERT INTO logs (n) VALUES (1);
ROLLBACK TO s;
COMMIT;
SELECT is(emu.count_writes(), 0, 'a transaction with nothing left sends nothing');

CREATE PROCEDURE commit_each() LANGUAGE plpgsql AS
$$
BEGIN
	FOR i IN 1 .. 4 LOOP
		INSERT INTO app.logs (n) VALUES (i);
		IF i % 2 = 0 THEN COMMIT; ELSE ROLLBACK; END IF;
	END LOOP;
END
$$;
CALL commit_each();
SELECT is(array_agg(m #> '{2,n}'), ARRAY[jsonb '2', '4'], 'a procedure''s COMMIT sends, its ROLLBACK does not') FROM emu.messages() AS m;
SELECT is(emu.count_writes(), 2, 'one request for each COMMIT');

DECLARE held CURSOR WITH HOLD FOR SELECT note('held ' || n) FROM numbers WHERE n < 3 ORDER BY n;
SELECT is(array_agg(m #>> '{2,line}'), '{"held 1","held 2"}', 'what a WITH HOLD cursor writes when COMMIT materializes it is sent') FROM emu.messages() AS m;
CLOSE held;
SELECT emu.clear_journal() \g /dev/null

-- Two roles have a connection, and a commit, each.
CREATE ROLE chapter_write_append;
GRANT USAGE ON SCHEMA app TO chapter_write_append;
GRANT INSERT ON logs TO chapter_write_append;
GRANT USAGE ON FOREIGN SERVER convex TO chapter_write_append;
SELECT format('CREATE USER MAPPING FOR chapter_write_append SERVER convex OPTIONS (deploy_key %L)', emu.key()) \gexec
BEGIN;
INSERT INTO logs (n) VALUES (1);
SET LOCAL ROLE chapter_write_append;
INSERT INTO logs (n) VALUES (2);
RESET ROLE;
INSERT INTO logs (n) VALUES (3);
COMMIT;
SELECT is(array_agg(n ORDER BY n), ARRAY[1::numeric, 2, 3], 'each role''s rows are sent') FROM (SELECT (m #>> '{2,n}')::numeric AS n FROM emu.messages() AS m) AS s;
SELECT is(emu.count_writes(), 3, 'in statement order, none with those of another role');
SET ROLE chapter_write_append;
SELECT throws_ok('INSERT INTO app.events (kind) VALUES (''x'')', '42501', NULL, 'privileges are checked');
RESET ROLE;
SELECT is(emu.count_writes(), 0, 'before anything is sent');

-- ------------------------------------------------------------------ sizes of batches

ALTER FOREIGN TABLE logs OPTIONS (ADD batch_size '10');
INSERT INTO logs (n) SELECT n FROM generate_series(1, 25) AS n;
SELECT is(array_agg(jsonb_array_length(request #> '{body,messages}')), '{10,10,5}', 'more than batch_size messages are several requests, each as full as it may be') FROM emu.writes() AS request;
SELECT is(array_agg((m #>> '{2,n}')::numeric), (SELECT array_agg(n::numeric) FROM generate_series(1, 25) AS n), 'in order') FROM emu.messages() AS m;
SELECT emu.clear_journal() \g /dev/null
SELECT is(emu.sqlstate('SET LOCAL convex_fdw.strict_atomic_writes = on', 'INSERT INTO logs (n) SELECT n FROM generate_series(1, 11) AS n') <> '00000', true, 'strict_atomic_writes refuses what does not fit one request');
SELECT is(emu.count_writes(), 0, 'before anything is sent');
SELECT is(emu.sqlstate('SET LOCAL convex_fdw.strict_atomic_writes = on', 'INSERT INTO logs (n) SELECT n FROM generate_series(1, 10) AS n'), '00000', 'and sends what fits');
SELECT is(emu.count_writes(), 1, 'in one request');
ALTER FOREIGN TABLE logs OPTIONS (SET batch_size '1000', ADD batch_bytes '10kB');
INSERT INTO logs (line, n) SELECT repeat('x', 1000), n FROM generate_series(1, 25) AS n;
SELECT cmp_ok(max((request #>> '{headers,content-length}')::int), '<=', 10240, 'no request is over batch_bytes') FROM emu.writes() AS request;
SELECT cmp_ok(count(*), '<=', 4::bigint, 'and none is split without need') FROM emu.writes() AS request;
SELECT is(array_agg((m #>> '{2,n}')::numeric), (SELECT array_agg(n::numeric) FROM generate_series(1, 25) AS n), 'in order') FROM emu.messages() AS m;
SELECT emu.clear_journal() \g /dev/null
INSERT INTO logs (line) VALUES (repeat('x', 20000));
SELECT is(emu.count_writes(), 1, 'a single row may be larger than batch_bytes');
ALTER FOREIGN TABLE logs OPTIONS (DROP batch_size, DROP batch_bytes);

-- ------------------------------------------------------------------ flush 'statement'

ALTER FOREIGN TABLE logs OPTIONS (ADD flush 'statement', ADD batch_size '10');
BEGIN;
INSERT INTO logs (n) SELECT n FROM generate_series(1, 25) AS n;
SELECT is(array_agg(jsonb_array_length(request #> '{body,messages}')), '{10,10,5}', 'with flush ''statement'' batches leave during the statement, the last at its end') FROM emu.writes() AS request;
ROLLBACK;
SELECT is((SELECT count(*) FROM emu.messages()), 25::bigint, 'and ROLLBACK does not take them back');
SELECT emu.clear_journal() \g /dev/null
BEGIN;
INSERT INTO logs (n) VALUES (501);
SELECT is((SELECT count(*) FROM logs WHERE n = 501), 1::bigint, 'the next command reads what was sent');
COMMIT;
SELECT is(emu.count_writes(), 1, 'once');
ALTER FOREIGN TABLE logs OPTIONS (DROP flush, DROP batch_size);

-- ------------------------------------------------------------------ errors of Convex abort the transaction

CREATE TABLE witness (n int);
SELECT emu.fault('{"action": "status", "status": 400, "code": "SchemaEnforcementError", "message": "Path: .n", "path": "/api/streaming_import"}') \g /dev/null
SELECT outcome AS refused FROM emu.outcome('INSERT INTO witness VALUES (1)', 'INSERT INTO logs (n) VALUES (1)') AS outcome \gset
SELECT is(:'refused'::jsonb ->> 'sqlstate', 'HV00L', 'an error of Convex at COMMIT is the transaction''s');
SELECT matches(:'refused'::text, 'SchemaEnforcementError', 'with Convex''s code');
SELECT matches(:'refused'::text, 'Path: .n', 'and its message');
SELECT is((SELECT count(*) FROM witness), 0::bigint, 'local changes are rolled back with it');
SELECT is(emu.count_writes(), 1, 'the request is not repeated');
SELECT is(emu.sqlstate('INSERT INTO logs (n) VALUES (1)'), '00000', 'the session goes on');
SELECT is(emu.count_writes(), 1, 'without what failed');

-- A declared schema
SELECT emu.config('{"schema": {"tables": [{"tableName": "logs", "indexes": [], "documentType": {"type": "object", "value": {"n": {"fieldType": {"type": "number"}, "optional": false}}}}], "schemaValidation": true}}') \g /dev/null
SELECT outcome AS refused FROM emu.outcome('INSERT INTO logs (n) VALUES (1), (2)', 'INSERT INTO logs (line) VALUES (''no number'')') AS outcome \gset
SELECT matches(:'refused'::text, 'SchemaEnforcementError', 'a document against the schema is refused');
SELECT matches(:'refused'::text, 'required field `n`', 'with the field that Convex names');
SELECT is((SELECT count(*) FROM emu.messages()), 3::bigint, 'by Convex');
SELECT is((SELECT array_agg(request -> 'commits') FROM emu.writes() AS request), ARRAY[jsonb '[]'], 'and nothing of its request is there');
SELECT emu.config('{"schema": null}'), emu.clear_journal() \g /dev/null

SELECT * FROM finish();
