-- Writing where PostgreSQL's own features meet it: partitions, triggers, keys of
-- every kind, DDL in the same transaction, flush 'statement', several servers.

\ir lib/setup.sql
\ir lib/writes.sql
\pset fieldsep '\n'
SET timezone = 'UTC';
SELECT plan(104);

SELECT emu.server('convex', $$max_retries '1', max_retry_wait '5ms'$$), emu.server('second', $$max_retries '1', max_retry_wait '5ms'$$) \g /dev/null
SELECT emu.index('users', '{name}'), emu.index('east', '{n}'), emu.index('west', '{n}'), emu.mutate('[{"op": "create_table", "table": "events"}, {"op": "create_table", "table": "others"}]') \g /dev/null
CREATE FOREIGN TABLE users (name text, age float8, note text) SERVER convex OPTIONS (primary_key 'name');
CREATE FOREIGN TABLE events (n int) SERVER convex;
CREATE FOREIGN TABLE others (n int) SERVER second;
CREATE FUNCTION fresh() RETURNS void LANGUAGE plpgsql AS
$$
BEGIN
	PERFORM emu.clear_faults();
	PERFORM emu.mutate('[{"op": "delete_all", "table": "users"}, {"op": "insert", "table": "users", "doc": {"name": "ada", "age": 1}}, {"op": "insert", "table": "users", "doc": {"name": "bob", "age": 2}},
		{"op": "delete_all", "table": "events"}, {"op": "delete_all", "table": "others"}]');
	PERFORM emu.clear_journal();
END
$$;

-- ------------------------------------------------------------------ partitions and children

CREATE TABLE parted (n int, side text, what text) PARTITION BY LIST (side);
CREATE FOREIGN TABLE east PARTITION OF parted FOR VALUES IN ('e') SERVER convex OPTIONS (primary_key 'n');
CREATE FOREIGN TABLE west PARTITION OF parted FOR VALUES IN ('w') SERVER convex OPTIONS (primary_key 'n');
CREATE TABLE here PARTITION OF parted FOR VALUES IN ('h');
INSERT INTO parted SELECT n, (ARRAY['e', 'w', 'h'])[1 + n % 3], 'new' FROM generate_series(1, 9) AS n;
SELECT fresh() \g /dev/null
UPDATE parted SET what = 'changed' WHERE n > 3;
SELECT is((SELECT array_agg(n || side || what ORDER BY n) FROM parted), '{1wnew,2hnew,3enew,4wchanged,5hchanged,6echanged,7wchanged,8hchanged,9echanged}', 'an UPDATE of a partitioned table changes foreign and local partitions');
SELECT is(emu.count_writes(), 1, 'in one request');
DELETE FROM parted WHERE n % 2 = 0;
SELECT is((SELECT array_agg(n || side ORDER BY n) FROM parted), '{1w,3e,5h,7w,9e}', 'so does a DELETE');
SELECT is(emu.count_writes(), 1, 'in one request');
UPDATE parted SET side = 'e' WHERE n = 5;
SELECT is((SELECT array_agg(n || side || tableoid::regclass::text ORDER BY n) FROM parted), '{1wwest,3eeast,5eeast,7wwest,9eeast}', 'a row moves from a local to a foreign partition');
UPDATE parted p SET what = o.what || p.n FROM (VALUES (1, 'one'), (3, 'three'), (9, 'nine')) AS o (n, what) WHERE o.n = p.n;
SELECT is((SELECT array_agg(what ORDER BY n) FROM parted), '{one1,three3,changed,changed,nine9}', 'UPDATE ... FROM over partitions');
CREATE TABLE parent (name text, age float8);
CREATE FOREIGN TABLE child () INHERITS (parent) SERVER convex OPTIONS (table_name 'users', primary_key 'name');
INSERT INTO parent VALUES ('local', 1);
UPDATE parent SET age = age + 10;
SELECT is((SELECT array_agg(name || age ORDER BY name) FROM parent), '{ada11,bob12,local11}', 'a foreign child is updated with its parent');
DELETE FROM parent WHERE name IN ('ada', 'local');
SELECT is((SELECT array_agg(name || age ORDER BY name) FROM parent), '{bob12}', 'and deleted');
WITH moved AS (DELETE FROM east RETURNING n, what) INSERT INTO west (n, side, what) SELECT n, 'w', what FROM moved;
SELECT is((SELECT array_agg(n || tableoid::regclass::text ORDER BY n) FROM parted), '{1west,3west,5west,7west,9west}', 'rows are moved from one foreign table to another');

-- ------------------------------------------------------------------ triggers, generated columns, constraints

CREATE TABLE audit (id serial, entry text);
CREATE FUNCTION audit() RETURNS trigger LANGUAGE plpgsql AS
$$
BEGIN
	INSERT INTO app.audit (entry) VALUES (concat_ws(' ', tg_when, tg_op, tg_level, CASE WHEN tg_level = 'ROW' AND tg_op <> 'INSERT' THEN old.name || old.age END, CASE WHEN tg_level = 'ROW' AND tg_op <> 'DELETE' THEN new.name || new.age END));
	RETURN CASE WHEN tg_op = 'DELETE' THEN old ELSE new END;
END
$$;
CREATE TRIGGER a_row BEFORE INSERT OR UPDATE OR DELETE ON users FOR EACH ROW EXECUTE FUNCTION audit();
CREATE TRIGGER b_row AFTER INSERT OR UPDATE OR DELETE ON users FOR EACH ROW EXECUTE FUNCTION audit();
CREATE TRIGGER c_statement AFTER INSERT OR UPDATE OR DELETE ON users FOR EACH STATEMENT EXECUTE FUNCTION audit();
SELECT fresh() \g /dev/null
UPDATE users SET age = 5 WHERE name = 'ada';
DELETE FROM users WHERE name = 'bob';
INSERT INTO users VALUES ('cyd', 3);
SELECT is((SELECT array_agg(entry ORDER BY id) FROM audit), '{"BEFORE UPDATE ROW ada1 ada5","AFTER UPDATE ROW ada1 ada5","AFTER UPDATE STATEMENT","BEFORE DELETE ROW bob2","AFTER DELETE ROW bob2","AFTER DELETE STATEMENT","BEFORE INSERT ROW cyd3","AFTER INSERT ROW cyd3","AFTER INSERT STATEMENT"}',
	'triggers see old and new rows');
DROP TRIGGER a_row ON users;
DROP TRIGGER b_row ON users;
DROP TRIGGER c_statement ON users;
CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;
CREATE TRIGGER nothing BEFORE UPDATE OR DELETE ON users FOR EACH ROW EXECUTE FUNCTION nothing();
SELECT fresh() \g /dev/null
UPDATE users SET age = 9;
DELETE FROM users;
SELECT is(emu.count_writes(), 0, 'a BEFORE trigger that returns NULL drops the change');
DROP TRIGGER nothing ON users;

CREATE FOREIGN TABLE computed (name text, age float8, twice float8 GENERATED ALWAYS AS (age * 2) STORED) SERVER convex OPTIONS (table_name 'users', primary_key 'name');
INSERT INTO computed (name, age) VALUES ('gen', 4);
UPDATE computed SET age = 5 WHERE name = 'gen';
SELECT is((SELECT d - '_id' - '_creationTime' FROM emu.dump('users') AS d WHERE d ->> 'name' = 'gen'), '{"name": "gen", "age": 5, "twice": 10}', 'a generated column is written, and again when what it is made of changes');
DROP FOREIGN TABLE computed;

-- ------------------------------------------------------------------ keys

CREATE TABLE keys (declared text, a text, b text);
INSERT INTO keys VALUES ('text', '''it''''s "q" \ , %s''', 'e''tab\t\x01 \u00e4\U0001F600'''), ('text', '''''', ''' '''), ('bigint', '-9223372036854775808', '9007199254740993'), ('int', '0', '-1'), ('float8', '0.1', '1e300'), ('float8', '''NaN''', '''-Infinity'''),
	('numeric', '0.5', '12345678901'), ('bool', 'true', 'false'), ('bytea', '''\x01''', '''\x'''), ('uuid', '''a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11''', '''b0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'''),
	('timestamptz', '''2026-01-02 03:04:05.678Z''', '''1969-12-31 23:59:59.5Z'''), ('date', '''2026-01-02''', '''1900-01-01'''), ('jsonb', '''{"a": [1, "x"]}''', '''[]'''), ('text[]', '''{a,b}''', '''{}'''), ('varchar(3)', '''abc''', '''d''');
CREATE TABLE keyed AS SELECT row_number() OVER () AS n, * FROM keys;
SELECT emu.mutate(jsonb_agg(jsonb_build_object('op', 'index', 'table', 'key' || n, 'fields', '["k"]'::jsonb))) FROM keyed \g /dev/null
SELECT format('CREATE FOREIGN TABLE key%s (k %s, v text) SERVER convex OPTIONS (primary_key ''k'')', n, declared) FROM keyed \gexec
SELECT format('INSERT INTO key%s VALUES (%s, ''a''), (%s, ''b'')', n, a, b) FROM keyed \gexec
SELECT format('UPDATE key%s SET v = v || v WHERE k = %s', n, a) FROM keyed \gexec
SELECT format('INSERT INTO key%s VALUES (%s, ''c'')', n, b) FROM keyed \gexec
SELECT is((SELECT array_agg(d ->> 'v' ORDER BY d ->> 'v') FROM emu.dump('key' || n) AS d), '{aa,c}', format('%s, %s are keys of type %s', a, b, declared)) FROM keyed ORDER BY n;
SELECT format('DELETE FROM key%s WHERE k = %s', n, a) FROM keyed \gexec
SELECT is((SELECT array_agg(d ->> 'v' ORDER BY d ->> 'v') FROM emu.dump('key' || n) AS d), '{c}', format('and one is deleted (%s)', declared)) FROM keyed ORDER BY n;
SELECT format('UPDATE key%s SET k = %s', n, a) FROM keyed \gexec
SELECT is((SELECT array_agg(d ->> 'v') FROM emu.dump('key' || n) AS d), '{c}', format('and one becomes the other (%s)', declared)) FROM keyed ORDER BY n;

-- The hint of a missing index is the call that makes it.
CREATE FOREIGN TABLE "Made Anew" (k text, v int) SERVER convex OPTIONS (table_name 'made', primary_key 'k');
SELECT emu.mutate('[{"op": "create_table", "table": "made"}]'), emu.outcome('INSERT INTO "Made Anew" VALUES (''a'', 1)') AS missing \gset
SELECT is(:'missing'::jsonb ->> 'sqlstate', '55000', 'a missing index is told');
SELECT :'missing'::jsonb ->> 'hint' AS mend \gset
:mend \g /dev/null
SELECT is(emu.sqlstate('INSERT INTO "Made Anew" VALUES (''a'', 1)'), '00000', 'and what the hint says mends it');

-- ------------------------------------------------------------------ the size of a document

-- 72 bytes beside the text: braces, _id, _creationTime, the names, the key.
CREATE FOREIGN TABLE sized (k text, v text) SERVER convex;
SELECT is(emu.sqlstate('INSERT INTO sized VALUES (''k'', repeat(''x'', 1048576 - 72))'), '00000', 'a document of exactly 1 MiB is taken');
SELECT emu.clear_journal() \g /dev/null
SELECT is(emu.sqlstate('INSERT INTO sized VALUES (''k'', repeat(''x'', 1048577 - 72))'), '54000', 'one byte more is refused');
SELECT is(emu.count_writes(), 0, 'before it is sent');

-- ------------------------------------------------------------------ DDL in the same transaction

SELECT fresh() \g /dev/null
SELECT is(emu.sqlstate('INSERT INTO events VALUES (1)', 'ALTER FOREIGN TABLE events RENAME TO renamed', 'INSERT INTO renamed VALUES (2)', 'ALTER FOREIGN TABLE renamed RENAME TO events'), '00000', 'a table may be renamed after it was written to');
SELECT fresh() \g /dev/null
SELECT is(emu.sqlstate('CREATE FOREIGN TABLE short_lived (n int) SERVER convex OPTIONS (table_name ''events'')', 'INSERT INTO short_lived VALUES (1)', 'DROP FOREIGN TABLE short_lived'), '00000', 'a table may be dropped after it was written to');
SELECT is(emu.documents('events'), '[{"n": 1}]', 'its rows are sent');
SELECT fresh() \g /dev/null
SELECT is(emu.sqlstate('CREATE SERVER short_lived FOREIGN DATA WRAPPER convex_fdw OPTIONS (deployment_url ''http://127.0.0.1:1'')', 'CREATE USER MAPPING FOR CURRENT_USER SERVER short_lived', 'CREATE FOREIGN TABLE short_lived (n int) SERVER short_lived',
	'INSERT INTO short_lived VALUES (1)', 'DROP SERVER short_lived CASCADE') IN ('00000'), false, 'rows for a server that is dropped in the same transaction are an error, not lost');
SELECT is(emu.sqlstate('INSERT INTO events VALUES (1)', 'ALTER SERVER convex OPTIONS (ADD request_timeout ''10s'')'), '00000', 'a server may be altered while rows wait');
SELECT is(emu.documents('events'), '[{"n": 1}]', 'they are sent');
ALTER SERVER convex OPTIONS (DROP request_timeout);
SELECT fresh() \g /dev/null
SELECT is(emu.sqlstate('INSERT INTO events VALUES (1)', 'DO $$ BEGIN PERFORM convex_fdw_disconnect_all(); END $$'), '00000', 'connections may be closed while rows wait');
SELECT is(emu.documents('events'), '[{"n": 1}]', 'they are sent');
SELECT fresh() \g /dev/null
SELECT is(emu.sqlstate('INSERT INTO events VALUES (1)', 'DO $$ BEGIN PERFORM convex_clear_tables(''convex'', ''others''); END $$'), '55000', 'convex_clear_tables() is refused while rows wait');
SELECT is(emu.count_writes(), 0, 'and nothing is sent');

-- ------------------------------------------------------------------ statements around the own writes

SELECT fresh() \g /dev/null
BEGIN;
INSERT INTO users VALUES ('cyd', 3);
UPDATE users SET age = 10 WHERE name = 'ada';
SELECT is((SELECT array_agg(name ORDER BY name) FROM (SELECT name FROM users UNION ALL SELECT name FROM users) AS u), '{ada,ada,bob,bob,cyd,cyd}', 'both branches of a union see them');
SELECT is((SELECT array_agg(name || age ORDER BY name) FROM users u WHERE EXISTS (SELECT FROM users v WHERE v.age > u.age)), '{bob2,cyd3}', 'correlated sub-selects do');
SELECT is((SELECT count(*) FROM users WHERE name = 'cyd' AND age = 3), 1::bigint, 'conditions are checked on them');
SELECT is((SELECT count(*) FROM (SELECT * FROM users LIMIT 3) AS s), 3::bigint, 'LIMIT counts them');
ANALYZE users;
DELETE FROM users WHERE name IN (SELECT name FROM users ORDER BY age DESC LIMIT 1);
SELECT is((SELECT array_agg(name ORDER BY name) FROM users), '{bob,cyd}', 'a DELETE chooses among them');
WITH i AS (INSERT INTO users VALUES ('dee', 4) RETURNING name), d AS (DELETE FROM users WHERE name = 'bob' RETURNING name)
SELECT array_agg(name) FROM (SELECT name FROM i UNION ALL SELECT name FROM d) AS s \g /dev/null
SELECT is((SELECT array_agg(name ORDER BY name) FROM users), '{cyd,dee}', 'two commands of one statement both count');
COMMIT;
SELECT is((SELECT array_agg(name || age ORDER BY name) FROM users), '{cyd3,dee4}', 'all of it arrives');
SELECT fresh() \g /dev/null
EXPLAIN (ANALYZE, VERBOSE) INSERT INTO events VALUES (1) \g /dev/null
EXPLAIN (ANALYZE, VERBOSE) UPDATE users SET age = 7 WHERE name = 'ada' \g /dev/null
SELECT is((SELECT age FROM users WHERE name = 'ada') + (SELECT count(*) FROM events), 8::float8, 'EXPLAIN ANALYZE writes');
SELECT fresh() \g /dev/null
BEGIN ISOLATION LEVEL SERIALIZABLE;
INSERT INTO events VALUES (1);
COMMIT;
SELECT is(emu.count_writes(), 1, 'a SERIALIZABLE transaction is sent');

-- ------------------------------------------------------------------ flush 'statement'

ALTER FOREIGN TABLE events OPTIONS (ADD flush 'statement', ADD batch_size '10');
SELECT fresh() \g /dev/null
BEGIN;
SAVEPOINT s;
INSERT INTO events SELECT n FROM generate_series(1, 15) AS n;
ROLLBACK TO s;
INSERT INTO events SELECT n FROM generate_series(21, 25) AS n;
SELECT is((SELECT count(*) FROM events), 20::bigint, 'with flush ''statement'' ROLLBACK TO takes nothing back');
COMMIT;
SELECT is(emu.count_writes(), 3, 'and COMMIT sends nothing more');
SELECT fresh() \g /dev/null
SELECT is(emu.sqlstate('INSERT INTO events SELECT 100 / (26 - n) FROM generate_series(1, 30) AS n'), '22012', 'a statement that fails half-way');
SELECT is((SELECT count(*) FROM emu.dump('events')), 20::bigint, 'has sent the batches that were full');
SELECT fresh() \g /dev/null
SELECT emu.fault('{"action": "status", "status": 400, "code": "TooNestedError", "path": "/api/streaming_import", "skip": 2}'), emu.outcome('INSERT INTO events SELECT n FROM generate_series(1, 35) AS n') AS late \gset
SELECT matches(:'late'::text, '\y20\y', 'an error tells how many documents are in Convex');
SELECT fresh() \g /dev/null
SELECT emu.fault('{"action": "apply_then_cut", "path": "/api/streaming_import"}'), emu.outcome('INSERT INTO events SELECT n FROM generate_series(1, 5) AS n') AS late \gset
SELECT is(:'late'::jsonb ->> 'sqlstate', '08007', 'an outcome may be unknown at the end of a statement');
SELECT is(emu.count_writes(), 1, 'it is sent once');
SELECT isnt(emu.sqlstate('SET LOCAL convex_fdw.strict_atomic_writes = on', 'INSERT INTO events VALUES (1)'), '00000', 'strict_atomic_writes refuses it');
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT count(*) FROM events \gset before_
INSERT INTO events VALUES (99);
SELECT is((SELECT count(*) FROM events), :before_count::bigint, 'in REPEATABLE READ what has left is not in the snapshot');
COMMIT;
CREATE FOREIGN TABLE users_now (name text, age float8) SERVER convex OPTIONS (table_name 'users', primary_key 'name', flush 'statement');
SELECT fresh() \g /dev/null
BEGIN;
UPDATE users_now SET age = 10 WHERE name = 'ada';
UPDATE users_now SET age = age + 1 WHERE name = 'ada';
SELECT is((SELECT age FROM users_now WHERE name = 'ada'), 11::float8, 'keyed statements build on each other');
ROLLBACK;
SELECT is((SELECT d -> 'age' FROM emu.dump('users') AS d WHERE d ->> 'name' = 'ada')::float8, 11::float8, 'and are there');
SELECT fresh() \g /dev/null
BEGIN;
UPDATE users SET age = 20 WHERE name = 'ada';
UPDATE users_now SET age = age + 1 WHERE name = 'ada';
COMMIT;
SELECT is((SELECT d -> 'age' FROM emu.dump('users') AS d WHERE d ->> 'name' = 'ada')::float8, 21::float8, 'after rows that wait for the same table it waits, too');
ALTER FOREIGN TABLE events OPTIONS (DROP flush, DROP batch_size);

-- ------------------------------------------------------------------ several servers

SELECT fresh() \g /dev/null
SELECT emu.fault('{"action": "status", "status": 400, "code": "TooNestedError", "path": "/api/streaming_import", "skip": 1}'), emu.outcome('INSERT INTO events SELECT n FROM generate_series(1, 7) AS n', 'INSERT INTO others VALUES (1)') AS late \gset
SELECT is(:'late'::jsonb ->> 'sqlstate', 'HV00L', 'when the second server refuses');
SELECT matches(:'late'::text, '\y7\y', 'the error tells how many documents are in the first');
SELECT is((SELECT count(*) FROM emu.dump('events')), 7::bigint, 'they are');

-- ------------------------------------------------------------------ keys that move to each other

SELECT emu.mutate('[{"op": "index", "table": "moved", "fields": ["k"]}]') \g /dev/null
CREATE FOREIGN TABLE moved (k int, v text) SERVER convex OPTIONS (primary_key 'k');
INSERT INTO moved VALUES (1, 'a'), (2, 'b'), (3, 'c');
UPDATE moved SET k = k + 1;
SELECT is((SELECT array_agg(k || v ORDER BY k) FROM moved), '{2a,3b,4c}', 'keys can be shifted by one command');
UPDATE moved SET k = k - 1;
SELECT is((SELECT array_agg(k || v ORDER BY k) FROM moved), '{1a,2b,3c}', 'and back, in whatever order the rows come');
BEGIN;
UPDATE moved SET k = 3 - k WHERE k < 3;
SELECT is((SELECT array_agg(k || v ORDER BY k) FROM moved), '{1b,2a,3c}', 'or swapped, as the transaction itself sees');
COMMIT;
SELECT is((SELECT array_agg(k || v ORDER BY k) FROM moved), '{1b,2a,3c}', 'and Convex has');
SELECT emu.clear_journal() \g /dev/null
SELECT is(emu.sqlstate('UPDATE moved SET k = 9'), '23505', 'two rows of one command cannot get one key');
SELECT is(emu.sqlstate('UPDATE moved SET k = CASE k WHEN 1 THEN 3 ELSE k END'), '23505', 'nor that of a row that keeps it');
SELECT is((SELECT array_agg(k || v ORDER BY k) FROM moved), '{1b,2a,3c}', 'and nothing is sent');

-- ------------------------------------------------------------------ views of the catalog

CREATE FOREIGN TABLE "no Convex name" (x text) SERVER convex;
CREATE FOREIGN TABLE not_updatable (x text) SERVER convex OPTIONS (updatable 'false');
SELECT is((SELECT jsonb_object_agg(table_name, is_insertable_into) FROM information_schema.tables WHERE table_name IN ('no Convex name', 'not_updatable')),
	'{"no Convex name": "YES", "not_updatable": "NO"}', 'the information schema tells what can be written, whatever the name');

SELECT * FROM finish();
