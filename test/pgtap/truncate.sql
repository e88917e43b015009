-- TRUNCATE of foreign tables: one clear_tables, in order with what else is pending.

\ir lib/setup.sql
\ir lib/writes.sql
\pset fieldsep '\n'
SELECT plan(38);

SELECT emu.server('convex', $$max_retries '3', max_retry_wait '10ms'$$) \g /dev/null
SELECT emu.index('users', '{name}') \g /dev/null
CREATE FOREIGN TABLE users (name text, age float8) SERVER convex OPTIONS (primary_key 'name');
CREATE FOREIGN TABLE events (n int) SERVER convex;
CREATE FOREIGN TABLE more_events (n int) SERVER convex OPTIONS (table_name 'events');
CREATE FUNCTION fresh() RETURNS void LANGUAGE plpgsql AS
$$
BEGIN
	PERFORM emu.clear_faults();
	PERFORM emu.mutate('[{"op": "delete_all", "table": "users"}, {"op": "insert", "table": "users", "doc": {"name": "ada", "age": 1}}, {"op": "insert", "table": "users", "doc": {"name": "bob", "age": 2}},
		{"op": "create_table", "table": "events"}, {"op": "delete_all", "table": "events"}, {"op": "insert", "table": "events", "doc": {"n": 1}}]');
	PERFORM emu.clear_journal();
END
$$;
CREATE FUNCTION clears() RETURNS SETOF jsonb LANGUAGE sql AS
$$ SELECT request #> '{body,tableNames}' FROM emu.writes() AS request WHERE request ->> 'path' = '/api/streaming_import/clear_tables' $$;
CREATE FUNCTION sequence_of_writes() RETURNS text[] LANGUAGE sql AS
$$ SELECT array_agg(substring(request ->> 'path' FROM '[a-z_]+$') ORDER BY n) FROM emu.writes() WITH ORDINALITY AS s (request, n) $$;

SELECT fresh() \g /dev/null
TRUNCATE users;
SELECT is(array_agg(c), ARRAY[jsonb '["users"]'], 'TRUNCATE is one clear_tables') FROM clears() AS c;
SELECT is(emu.documents('users'), '[]', 'the table is empty');
SELECT is((SELECT array_agg(request ->> 'method') FROM emu.writes() AS request), '{PUT}', 'a PUT');
SELECT is(emu.sqlstate('INSERT INTO users VALUES (''x'', 1)'), '00000', 'its index is still there');
SELECT fresh() \g /dev/null
TRUNCATE users, events;
SELECT is(array_agg(c ORDER BY c), ARRAY[jsonb '["users", "events"]'], 'TRUNCATE of several tables is one call') FROM clears() AS c;
SELECT is(emu.documents('users') || emu.documents('events'), '[]', 'both are empty');
SELECT fresh() \g /dev/null
TRUNCATE events, more_events;
SELECT is(array_agg(c), ARRAY[jsonb '["events"]'], 'a table that two foreign tables show is named once') FROM clears() AS c;

-- ------------------------------------------------------------------ in transactions

SELECT fresh() \g /dev/null
BEGIN;
TRUNCATE users;
SELECT is(emu.count_writes(), 0, 'nothing is sent before COMMIT');
SELECT is((SELECT count(*) FROM users), 0::bigint, 'the transaction sees an empty table');
INSERT INTO users VALUES ('new', 9);
SELECT is((SELECT array_agg(name) FROM users), '{new}', 'and what it writes into it');
UPDATE users SET age = age + 1;
SAVEPOINT s;
TRUNCATE users;
SELECT is((SELECT count(*) FROM users), 0::bigint, 'a second TRUNCATE empties it again');
ROLLBACK TO s;
SELECT is((SELECT array_agg(name || age) FROM users), '{new10}', 'and can be undone');
ROLLBACK;
SELECT is(emu.count_writes(), 0, 'ROLLBACK sends nothing');
SELECT is((SELECT count(*) FROM users), 2::bigint, 'and all rows are there');

BEGIN;
INSERT INTO events VALUES (2);
TRUNCATE users;
INSERT INTO users VALUES ('new', 9);
INSERT INTO events VALUES (3);
COMMIT;
SELECT is(emu.documents('users'), '[{"name": "new", "age": 9}]', 'INSERT after TRUNCATE');
SELECT is(emu.documents('events'), '[{"n": 1}, {"n": 2}, {"n": 3}]', 'other tables keep their rows');
SELECT is(sequence_of_writes(), '{import_airbyte_records,clear_tables,apply_fivetran_operations,import_airbyte_records}', 'it is sent in statement order');
SELECT fresh() \g /dev/null
BEGIN;
INSERT INTO events VALUES (5);
TRUNCATE events;
INSERT INTO events VALUES (6);
COMMIT;
SELECT is(emu.documents('events'), '[{"n": 6}]', 'TRUNCATE takes what was inserted before it');
SELECT fresh() \g /dev/null
BEGIN;
UPDATE users SET age = 5 WHERE name = 'ada';
TRUNCATE users;
COMMIT;
SELECT is(emu.documents('users'), '[]', 'UPDATE and TRUNCATE');
SELECT fresh() \g /dev/null
BEGIN;
SAVEPOINT s;
TRUNCATE users;
ROLLBACK TO s;
INSERT INTO events VALUES (7);
COMMIT;
SELECT is(sequence_of_writes(), '{import_airbyte_records}', 'a TRUNCATE that was rolled back is not sent');
SELECT is(emu.sqlstate('SET LOCAL convex_fdw.strict_atomic_writes = on', 'TRUNCATE users, events'), '00000', 'a TRUNCATE alone is one request under strict_atomic_writes');

-- ------------------------------------------------------------------ names

CREATE FOREIGN TABLE absent (n int) SERVER convex;
CREATE FOREIGN TABLE half (n int) SERVER convex OPTIONS (table_name 'user');
SELECT fresh() \g /dev/null
SELECT matches(emu.sqlstate('TRUNCATE absent'), '^(HV00R|42P01)$', 'a table that Convex does not have is refused, for it would make it');
SELECT matches(emu.sqlstate('TRUNCATE users, half'), '^(HV00R|42P01)$', 'also beside one that it has');
SELECT is(emu.count_writes(), 0, 'and nothing is sent');
SELECT is((SELECT count(*) FROM users), 2::bigint, 'nothing is gone');

-- ------------------------------------------------------------------ outcomes

CREATE FUNCTION truncate_under(fault jsonb) RETURNS text LANGUAGE plpgsql AS
$$
DECLARE
	failure jsonb;
BEGIN
	PERFORM app.fresh(), emu.fault(fault || '{"path": "/api/streaming_import/clear_tables"}');
	failure := emu.outcome('TRUNCATE users');
	PERFORM emu.clear_faults();
	RETURN concat_ws(' ', coalesce(failure ->> 'sqlstate', '00000'), 'requests', (SELECT count(*) FROM emu.writes()), 'rows', jsonb_array_length(emu.documents('users')));
END
$$;
SELECT is(truncate_under('{"action": "apply_then_cut"}'), '08007 requests 1 rows 0', 'a TRUNCATE without an answer is unknown, and sent once');
SELECT is(truncate_under('{"action": "reset"}'), '08007 requests 1 rows 2', 'whether it was applied or not');
SELECT is(truncate_under('{"action": "apply_then_status", "status": 500}'), '08007 requests 1 rows 0', '500');
SELECT is(truncate_under('{"action": "status", "status": 408}'), '08007 requests 1 rows 2', '408');
SELECT is(truncate_under('{"action": "status", "status": 429, "code": "TooManyWrites"}'), '00000 requests 2 rows 0', '429 is repeated');
SELECT is(truncate_under('{"action": "status", "status": 403, "code": "OperationNotPermitted"}'), '42501 requests 1 rows 2', 'a refusal is not');
SELECT emu.config('{"index_backfill_ms": null, "index_backfill_polls": 1000}'), emu.mutate('[{"op": "index", "table": "users", "fields": ["age"], "ready": false}]') \g /dev/null
SELECT outcome AS busy FROM emu.outcome('TRUNCATE users') AS outcome \gset
SELECT is(:'busy'::jsonb ->> 'sqlstate', '55000', 'an index that is still backfilling is told');
SELECT ok(length(:'busy'::jsonb ->> 'hint') > 10, 'with a hint');
SELECT emu.config('{"index_backfill_ms": 200, "index_backfill_polls": 1}') \g /dev/null

-- ------------------------------------------------------------------ beside local tables

CREATE TABLE local_part (n int);
INSERT INTO local_part VALUES (1);
SELECT fresh() \g /dev/null
SELECT is(emu.sqlstate('TRUNCATE local_part, events'), '00000', 'local and foreign tables in one TRUNCATE');
SELECT is((SELECT count(*) FROM local_part) + (SELECT count(*) FROM events), 0::bigint, 'are both emptied');
CREATE TABLE parted (n int) PARTITION BY LIST (n);
CREATE FOREIGN TABLE part1 PARTITION OF parted FOR VALUES IN (1) SERVER convex OPTIONS (table_name 'events');
CREATE TABLE part2 PARTITION OF parted FOR VALUES IN (2);
SELECT fresh() \g /dev/null
INSERT INTO parted VALUES (1), (2);
TRUNCATE parted;
SELECT is((SELECT count(*) FROM parted), 0::bigint, 'TRUNCATE of a partitioned table empties its foreign partitions');
SELECT fresh(), emu.sqlstate('INSERT INTO local_part VALUES (1)') \g /dev/null
SELECT emu.fault('{"action": "status", "status": 400, "code": "InvalidImport", "path": "/api/streaming_import"}') \g /dev/null
SELECT isnt(emu.sqlstate('TRUNCATE local_part, users'), '00000', 'an error of Convex');
SELECT is((SELECT count(*) FROM local_part), 1::bigint, 'brings the local rows back');

SELECT * FROM finish();
