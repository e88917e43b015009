-- Tables with a primary key: INSERT, UPDATE and DELETE are Upsert, Update and
-- HardDelete, by every way to write them, and touch nothing else.

\ir lib/setup.sql
\ir lib/writes.sql
\pset fieldsep '\n'
SELECT plan(83);

SELECT emu.server() \g /dev/null
SELECT emu.index('users', '{name}'), emu.index('lines', '{order.no,pos}'), emu.index('things', '{id}'), emu.index('copies', '{id}', 'airbyte') \g /dev/null
CREATE FOREIGN TABLE users (_id text, name text, age bigint, score float8, tags jsonb, "_creationTime" timestamptz) SERVER convex OPTIONS (primary_key 'name');
CREATE FOREIGN TABLE lines (order_no bigint OPTIONS (column_name 'order.no', path 'true'), pos int, what text) SERVER convex OPTIONS (primary_key 'order.no,pos');
CREATE FOREIGN TABLE things (id bigint, label text) SERVER convex OPTIONS (primary_key 'id');
CREATE FOREIGN TABLE copies (id float8, label text) SERVER convex OPTIONS (primary_key 'id', import_route 'airbyte');

-- Everything a document can hold, in fields that no column maps.
SELECT emu.insert('users', VARIADIC ARRAY[
	jsonb_build_object('name', 'ada', 'age', emu.int64(36), 'score', 1.5, 'tags', '["a"]'::jsonb,
		'big', emu.int64(9007199254740993), 'raw', emu.bytes('\x00ff'), 'nan', emu.float64('NaN'), 'zero', emu.float64('-0'), 'nothing', NULL,
		'nested', jsonb_build_object('i', emu.int64(-1), 'list', jsonb_build_array(emu.int64(2), emu.bytes('\x01'), NULL, '{}'::jsonb))),
	jsonb_build_object('name', 'bob', 'age', emu.int64(41), 'score', 2),
	jsonb_build_object('name', 'cyd', 'age', emu.int64(52), 'score', 3)]) \g /dev/null
SELECT document AS ada FROM emu.dump('users') AS document WHERE document ->> 'name' = 'ada' \gset
CREATE FUNCTION document(key text) RETURNS jsonb LANGUAGE sql AS
$$ SELECT document FROM emu.dump('users') AS document WHERE document ->> 'name' = key $$;
SELECT emu.clear_journal() \g /dev/null

-- ------------------------------------------------------------------ UPDATE

UPDATE users SET age = age + 1 WHERE name = 'ada';
SELECT is(array_agg(m), ARRAY[jsonb_build_array('users', 'Update', jsonb_build_object('name', 'ada', 'age', emu.int64(37)))], 'an UPDATE sends the key and the changed field') FROM emu.messages() AS m;
SELECT is(request ->> 'path', '/api/streaming_import/apply_fivetran_operations', 'to apply_fivetran_operations') FROM emu.writes() AS request;
SELECT is(document('ada'), :'ada'::jsonb || jsonb_build_object('age', emu.int64(37)), 'all else stays exactly as it was, _id and _creationTime too');
SELECT is(emu.count_writes(), 1, 'in one request');
UPDATE users SET age = 0 WHERE name = 'nobody';
SELECT is(emu.count_writes(), 0, 'an UPDATE of no row sends nothing');
UPDATE users SET score = score * 10, tags = '[]' WHERE age > 40;
SELECT is(array_agg(m ORDER BY m), ARRAY[jsonb '["users", "Update", {"name": "bob", "score": 20, "tags": []}]', '["users", "Update", {"name": "cyd", "score": 30, "tags": []}]'], 'an UPDATE of many rows sends each') FROM emu.messages() AS m;
SELECT is(emu.count_writes(), 1, 'in one request');

CREATE TABLE raises (name text, by bigint);
INSERT INTO raises VALUES ('bob', 100), ('cyd', 200), ('eve', 300);
UPDATE users SET age = users.age + raises.by FROM raises WHERE raises.name = users.name;
SELECT is((SELECT array_agg(name || age ORDER BY name) FROM users), '{ada37,bob141,cyd252}', 'UPDATE ... FROM a local table');
UPDATE users u SET age = (SELECT max(age) FROM users) + (SELECT count(*) FROM raises r WHERE r.name <= u.name) WHERE EXISTS (SELECT FROM raises r WHERE r.name = u.name);
SELECT is((SELECT array_agg(name || age ORDER BY name) FROM users), '{ada37,bob253,cyd254}', 'UPDATE with sub-selects, also of the table itself');
UPDATE users u SET age = v.age FROM users v WHERE v.name = 'ada' AND u.name = 'bob';
SELECT is((SELECT array_agg(name || age ORDER BY name) FROM users), '{ada37,bob37,cyd254}', 'UPDATE with a self-join');
SELECT emu.clear_journal() \g /dev/null

CREATE FUNCTION returned(statement text) RETURNS jsonb LANGUAGE plpgsql AS
$$
DECLARE
	result jsonb;
BEGIN
	EXECUTE format('WITH r AS (%s) SELECT jsonb_agg(r) FROM r', statement) INTO result;
	RETURN result;
END
$$;
SELECT is(returned($$ UPDATE users u SET age = u.age + 1 FROM raises r WHERE r.name = u.name AND r.name = 'cyd' RETURNING u.name, u.age, u.tags, u._id = '$$ || (document('cyd') ->> '_id') || $$' AS same, r.by, u.tableoid::regclass::text AS t $$),
	'[{"name": "cyd", "age": 255, "tags": [], "same": true, "by": 200, "t": "users"}]', 'UPDATE ... RETURNING gives the whole new row, and the columns of a join');
SELECT is(array_agg(m), ARRAY[jsonb_build_array('users', 'Update', jsonb_build_object('name', 'cyd', 'age', emu.int64(255)))], 'and sends the changed field') FROM emu.messages() AS m;
SELECT emu.clear_journal() \g /dev/null

CREATE FUNCTION age_by_ten() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN new.age := new.age + 10; RETURN new; END $$;
CREATE TRIGGER age_by_ten BEFORE UPDATE ON users FOR EACH ROW EXECUTE FUNCTION age_by_ten();
UPDATE users SET score = 7 WHERE name = 'bob';
SELECT is(array_agg(m), ARRAY[jsonb_build_array('users', 'Update', jsonb_build_object('name', 'bob', 'score', 7, 'age', emu.int64(47)))], 'what a BEFORE trigger changes is sent too') FROM emu.messages() AS m;
DROP TRIGGER age_by_ten ON users;
SELECT emu.clear_journal() \g /dev/null

PREPARE p (text, bigint) AS UPDATE users SET age = $2 WHERE name = $1;
SET plan_cache_mode = force_generic_plan;
EXECUTE p ('bob', 1);
EXECUTE p ('bob', 2);
RESET plan_cache_mode;
SELECT is(document('bob') -> 'age', emu.int64(2), 'prepared UPDATEs arrive');
DO $$
DECLARE
	u record;
BEGIN
	FOR u IN SELECT name, age FROM app.users LOOP
		UPDATE app.users SET age = u.age + 1 WHERE name = u.name;
	END LOOP;
END
$$;
SELECT is((SELECT array_agg(name || age ORDER BY name) FROM users), '{ada38,bob3,cyd256}', 'a loop of UPDATEs arrives');

-- What the message Update cannot say goes as the whole document.
SELECT emu.clear_journal() \g /dev/null
SELECT document('ada') AS ada \gset
UPDATE users SET score = NULL WHERE name = 'ada';
SELECT is(array_agg(m ->> 1), '{Upsert}', 'UPDATE to NULL is an Upsert of the whole document') FROM emu.messages() AS m;
SELECT is(document('ada'), :'ada'::jsonb - 'score', 'without the field; all else stays exactly as it was');
UPDATE users SET score = score, age = age WHERE name = 'ada';
SELECT is((SELECT (array_agg(m ->> 1))[2] FROM emu.messages() AS m), 'Update', 'a column that is NULL and stays NULL is no change');
SELECT is(document('ada'), :'ada'::jsonb - 'score', 'and changes nothing');
UPDATE users SET score = 1.5 WHERE name = 'ada';
SELECT is(document('ada'), :'ada'::jsonb, 'and back');
SELECT is(emu.count_writes(), 3, 'each in one request');

CREATE FOREIGN TABLE users_null (name text, score float8 OPTIONS (nulls 'null'), tags jsonb OPTIONS (nulls 'null')) SERVER convex OPTIONS (table_name 'users', primary_key 'name');
UPDATE users_null SET score = NULL WHERE name = 'ada';
SELECT is(array_agg(m), ARRAY[jsonb '["users", "Update", {"name": "ada", "score": null}]'], 'with nulls ''null'' it is an Update to null') FROM emu.messages() AS m;
SELECT is(document('ada'), :'ada'::jsonb || '{"score": null}', 'that writes null');
INSERT INTO users_null (name) VALUES ('nil');
SELECT is(document('nil') - '_id' - '_creationTime', '{"name": "nil", "score": null, "tags": null}', 'INSERT writes null as well');
DELETE FROM users_null WHERE name = 'nil';

CREATE FOREIGN TABLE users_path (name text, i bigint OPTIONS (column_name 'nested.i', path 'true'), deep text OPTIONS (column_name 'nested.new.deep', path 'true'), list jsonb OPTIONS (column_name 'nested.list', path 'true')) SERVER convex OPTIONS (table_name 'users', primary_key 'name');
SELECT document('ada') AS ada \gset
UPDATE users_path SET i = 5 WHERE name = 'ada';
SELECT is(document('ada'), jsonb_set(:'ada', '{nested,i}', emu.int64(5)), 'UPDATE of a nested path changes that path alone');
UPDATE users_path SET deep = 'x' WHERE name = 'ada';
SELECT is(document('ada') #> '{nested,new}', '{"deep": "x"}', 'missing objects of a path are made');
UPDATE users_path SET deep = NULL WHERE name = 'ada';
SELECT is((document('ada') #> '{nested}') ? 'i', true, 'and NULL takes the field out again');
SELECT ok(NOT coalesce(document('ada') #> '{nested,new}' ? 'deep', false), 'and it alone');
UPDATE users_path SET i = -1 WHERE name = 'ada';

CREATE FOREIGN TABLE users_whole (name text, doc jsonb OPTIONS (column_name '*')) SERVER convex OPTIONS (table_name 'users', primary_key 'name', json_values 'encoded');
SELECT document('ada') AS ada \gset
UPDATE users_whole SET doc = doc || '{"added": true}' WHERE name = 'ada';
SELECT is(document('ada'), :'ada'::jsonb || '{"added": true}', 'UPDATE of the whole document keeps what it keeps, exactly');
UPDATE users_whole SET doc = doc - 'added' WHERE name = 'ada';
SELECT is(document('ada'), :'ada'::jsonb, 'and takes out what it takes out');

-- A field named fivetran is merged by Convex, so it goes whole.
SELECT emu.insert('things', VARIADIC ARRAY[jsonb_build_object('id', emu.int64(1), 'label', 'a', 'fivetran', '{"synced": 1.0, "columns": {"x": 1}}'::jsonb, 'keep', emu.int64(7))]) \g /dev/null
CREATE FOREIGN TABLE things_fivetran (id bigint, fivetran jsonb) SERVER convex OPTIONS (table_name 'things', primary_key 'id');
UPDATE things_fivetran SET fivetran = '{"other": 2}' WHERE id = 1;
SELECT is(emu.documents('things'), jsonb_build_array(jsonb_build_object('id', emu.int64(1), 'label', 'a', 'fivetran', '{"other": 2}'::jsonb, 'keep', emu.int64(7))), 'UPDATE of a field named fivetran replaces it');

-- ------------------------------------------------------------------ the key

SELECT document('bob') AS bob, emu.clear_journal() AS cleared \gset
UPDATE users SET name = 'bobby' WHERE name = 'bob';
SELECT is(array_agg(m ->> 1 ORDER BY place), '{HardDelete,Upsert}', 'a changed key is a HardDelete and an Upsert') FROM emu.messages() WITH ORDINALITY AS s (m, place);
SELECT is(emu.count_writes(), 1, 'in one request');
SELECT is(document('bob'), NULL, 'the old key is gone');
SELECT is(document('bobby') - '_id' - '_creationTime', (:'bob'::jsonb || '{"name": "bobby"}') - '_id' - '_creationTime', 'the new one has all else');
SELECT isnt(document('bobby') -> '_id', :'bob'::jsonb -> '_id', 'under a new _id');
UPDATE users SET name = 'bob', age = 4 WHERE name = 'bobby';
SELECT emu.clear_journal() \g /dev/null
UPDATE users SET name = name, age = 5 WHERE name = 'bob';
SELECT is(array_agg(m ->> 1), '{Update}', 'a key set to what it was is no change of the key') FROM emu.messages() AS m;

SELECT emu.clear_journal() \g /dev/null
INSERT INTO lines VALUES (1, 1, 'a'), (1, 2, 'b'), (9007199254740993, 1, 'c');
SELECT is(emu.documents('lines'), (SELECT jsonb_agg(d ORDER BY d) FROM unnest(ARRAY[
	jsonb_build_object('order', jsonb_build_object('no', emu.int64(1)), 'pos', 1, 'what', 'a'), jsonb_build_object('order', jsonb_build_object('no', emu.int64(1)), 'pos', 2, 'what', 'b'),
	jsonb_build_object('order', jsonb_build_object('no', emu.int64(9007199254740993)), 'pos', 1, 'what', 'c')]) AS d), 'nested and composite keys are written');
UPDATE lines SET what = upper(what) WHERE order_no > 1 OR pos = 2;
SELECT is((SELECT array_agg(what ORDER BY what) FROM lines), '{B,C,a}', 'and updated by');
INSERT INTO lines VALUES (1, 1, 'replaced');
SELECT is((SELECT array_agg(what ORDER BY what) FROM lines), '{B,C,replaced}', 'and replaced by');
DELETE FROM lines WHERE order_no = 9007199254740993;
SELECT is((SELECT array_agg(what ORDER BY what) FROM lines), '{B,replaced}', 'and deleted by, exactly');
UPDATE lines SET order_no = order_no + 1;
SELECT is((SELECT array_agg(order_no || what ORDER BY what) FROM lines), '{2B,2replaced}', 'and changed');

-- ------------------------------------------------------------------ INSERT

SELECT emu.clear_journal() \g /dev/null
INSERT INTO users (name, age) VALUES ('dee', 1), ('eve', 2);
SELECT is(array_agg(m), ARRAY[jsonb_build_array('users', 'Upsert', jsonb_build_object('name', 'dee', 'age', emu.int64(1))), jsonb_build_array('users', 'Upsert', jsonb_build_object('name', 'eve', 'age', emu.int64(2)))],
	'INSERT is an Upsert') FROM emu.messages() AS m;
SELECT is(emu.count_writes(), 1, 'in one request');
SELECT document('dee') AS dee \gset
INSERT INTO users (name, score) VALUES ('dee', 5);
SELECT is(document('dee'), (:'dee'::jsonb - 'age') || '{"score": 5}', 'an INSERT of a key that exists replaces the whole document under its _id');
SELECT is(returned($$ INSERT INTO users (name, age) VALUES ('fay', 9) RETURNING name, age, score $$), '[{"name": "fay", "age": 9, "score": null}]', 'INSERT ... RETURNING gives the values as sent');
COPY users (name, age) FROM stdin;
gil	10
hal	11
\.
SELECT is((SELECT count(*) FROM users WHERE age IN (10, 11)), 2::bigint, 'COPY arrives');
SELECT emu.clear_journal() \g /dev/null
INSERT INTO users (name, age) VALUES ('twice', 1), ('twice', 2);
SELECT is(document('twice') -> 'age', emu.int64(2), 'of a key given twice the last wins');
INSERT INTO users (name, age) SELECT name, age FROM users WHERE name = 'twice';

-- ------------------------------------------------------------------ DELETE

SELECT emu.clear_journal() \g /dev/null
DELETE FROM users WHERE name IN ('dee', 'twice');
SELECT is(array_agg(m ORDER BY m), ARRAY[jsonb '["users", "HardDelete", {"name": "dee"}]', '["users", "HardDelete", {"name": "twice"}]'], 'DELETE sends HardDelete with the key alone') FROM emu.messages() AS m;
SELECT is(emu.count_writes(), 1, 'in one request');
DELETE FROM users USING raises WHERE raises.name = users.name AND users.name = 'eve';
DELETE FROM users WHERE name = (SELECT max(name) FROM users);
SELECT is((SELECT array_agg(name ORDER BY name) FROM users), '{ada,bob,cyd,fay,gil}', 'DELETE with USING and with a sub-select');
SELECT is(returned($$ DELETE FROM users WHERE name = 'fay' RETURNING name, age, score, _id IS NOT NULL AS has_id, tableoid::regclass::text AS t $$), '[{"name": "fay", "age": 9, "score": null, "has_id": true, "t": "users"}]', 'DELETE ... RETURNING gives the old row');
WITH gone AS (DELETE FROM users WHERE name = 'gil' RETURNING *) INSERT INTO things (id, label) SELECT 100, name FROM gone;
SELECT is((SELECT label FROM things WHERE id = 100), 'gil', 'a row can be moved from table to table');
SELECT emu.clear_journal() \g /dev/null
BEGIN;
DELETE FROM things;
SELECT is(emu.count_writes(), 0, 'nothing is sent before COMMIT');
ROLLBACK;
SELECT is(emu.count_writes(), 0, 'nor by ROLLBACK');
SELECT is((SELECT count(*) FROM things), 2::bigint, 'nothing is gone');

-- ------------------------------------------------------------------ one commit, one transaction

SELECT emu.clear_journal() \g /dev/null
BEGIN;
INSERT INTO users (name, age) VALUES ('ivy', 1);
UPDATE things SET label = 'changed';
DELETE FROM users WHERE name = 'cyd';
INSERT INTO lines VALUES (7, 7, 'seven');
COMMIT;
SELECT is(array_agg(m ->> 0 ORDER BY place), '{users,things,things,users,lines}', 'statements of a transaction arrive in order') FROM emu.messages() WITH ORDINALITY AS s (m, place);
SELECT is(array_agg(jsonb_array_length(request -> 'commits')), '{1}', 'as one request and one Convex transaction over several tables') FROM emu.writes() AS request;
SELECT request #>> '{commits,0}' AS ts FROM emu.writes() AS request \gset
SELECT is(array_agg(DISTINCT ts), ARRAY[:ts], 'with one timestamp') FROM convex_changes('convex', :ts - 1) WHERE id IS NOT NULL;
SELECT emu.clear_journal() \g /dev/null

BEGIN;
UPDATE things SET label = 'one' WHERE id = 1;
SAVEPOINT s;
UPDATE things SET label = 'lost' WHERE id = 1;
DELETE FROM things WHERE id = 100;
ROLLBACK TO s;
INSERT INTO things VALUES (3, 'three');
COMMIT;
SELECT is((SELECT array_agg(id || label ORDER BY id) FROM things), '{1one,3three,100changed}', 'savepoints discard exactly what was written after them');

-- More than a request takes
ALTER FOREIGN TABLE things OPTIONS (ADD batch_size '10');
SELECT emu.clear_journal() \g /dev/null
INSERT INTO things SELECT n, 'n' || n FROM generate_series(1000, 1024) AS n;
SELECT is(array_agg(jsonb_array_length(request -> 'body')), '{10,10,5}', 'more than batch_size messages are several requests') FROM emu.writes() AS request;
SELECT is((SELECT count(*) FROM things WHERE id >= 1000), 25::bigint, 'all arrive');
ALTER FOREIGN TABLE things OPTIONS (SET batch_size '1000');
SELECT emu.clear_journal() \g /dev/null
INSERT INTO things SELECT n, repeat('x', 100000) FROM generate_series(1000, 1049) AS n;
SELECT cmp_ok(max((request #>> '{headers,content-length}')::int), '<=', 2 << 20, 'no request is over the 2 MiB of the route') FROM emu.writes() AS request;
SELECT is(count(*), 3::bigint, 'and none is split without need') FROM emu.writes() AS request;
DELETE FROM things WHERE id >= 1000;

-- Convex counts what it reads and writes of the documents, not what it is sent.
SELECT emu.index('large', '{k}'), emu.mutate((SELECT jsonb_agg(jsonb_build_object('op', 'insert', 'table', 'large', 'doc', jsonb_build_object('k', n, 'n', 0, 'text', repeat('x', 200000)))) FROM generate_series(1, 120) AS n)) \g /dev/null
CREATE FOREIGN TABLE large (k float8, n float8, text text) SERVER convex OPTIONS (primary_key 'k');
SELECT emu.clear_journal() \g /dev/null
UPDATE large SET n = 1;
SELECT is(max(jsonb_array_length(request -> 'commits')), 1, 'an UPDATE of large documents is cut into requests that are one Convex transaction each'),
	cmp_ok(count(*), '>', 1::bigint, 'which are several') FROM emu.writes() AS request;
SELECT is((SELECT count(*) FROM emu.dump('large') AS d WHERE d -> 'n' = '1'), 120::bigint, 'all are changed');
SELECT emu.clear_journal() \g /dev/null
SELECT isnt(emu.sqlstate('SET LOCAL convex_fdw.strict_atomic_writes = on', 'UPDATE large SET n = 2'), '00000', 'strict_atomic_writes refuses it');
SELECT is(emu.count_writes(), 0, 'before anything is sent');
DELETE FROM large;
SELECT is(max(jsonb_array_length(request -> 'commits')), 1, 'so is a DELETE of them') FROM emu.writes() AS request;

-- ------------------------------------------------------------------ import_route 'airbyte': the dedup import

SELECT emu.clear_journal() \g /dev/null
INSERT INTO copies VALUES (1, 'a'), (2, 'b');
INSERT INTO copies VALUES (2, 'B'), (3, 'c');
SELECT is(emu.documents('copies'), '[{"id": 1, "label": "a"}, {"id": 2, "label": "B"}, {"id": 3, "label": "c"}]', 'the dedup import inserts and replaces by key');
SELECT is(array_agg(request #> '{body,tables}'), ARRAY[jsonb '{"copies": {"primaryKey": [["id"]], "jsonSchema": {}}}', '{"copies": {"primaryKey": [["id"]], "jsonSchema": {}}}'], 'with the key in the request') FROM emu.writes() AS request;
COPY copies FROM stdin;
4	d
1	A
\.
SELECT is((SELECT string_agg(id || label, ',' ORDER BY id) FROM copies), '1A,2B,3c,4d', 'COPY too');
SELECT emu.clear_journal() \g /dev/null
SELECT throws_ok('UPDATE app.copies SET label = ''x''', '0A000', NULL, 'UPDATE is refused');
SELECT throws_ok('DELETE FROM app.copies', '0A000', NULL, 'DELETE is refused');
SELECT is(emu.count_writes(), 0, 'before anything is sent');

-- ------------------------------------------------------------------ what is missing on the server

CREATE FOREIGN TABLE bare (id text, a int) SERVER convex OPTIONS (primary_key 'id');
SELECT emu.mutate('[{"op": "create_table", "table": "bare"}]'), emu.outcome('INSERT INTO bare VALUES (''x'', 1)') AS missing \gset
SELECT is(:'missing'::jsonb ->> 'sqlstate', '55000', 'a missing index is told');
SELECT matches(:'missing'::jsonb ->> 'hint', 'convex_ensure_primary_key', 'with the call that makes it');
SELECT emu.config('{"index_backfill_ms": null, "index_backfill_polls": 1000}'), emu.mutate('[{"op": "index", "table": "bare", "fields": ["id"], "ready": false}]'), emu.outcome('INSERT INTO bare VALUES (''x'', 1)') AS missing \gset
SELECT is(:'missing'::jsonb ->> 'sqlstate', '55000', 'an index that is still backfilling is told');
SELECT matches(:'missing'::jsonb ->> 'hint', 'convex_ensure_primary_key', 'with the call that waits for it');
SELECT emu.config('{"index_backfill_ms": 200, "index_backfill_polls": 1}') \g /dev/null
CREATE FOREIGN TABLE bare_airbyte (id text, a int) SERVER convex OPTIONS (table_name 'bare', primary_key 'id', import_route 'airbyte');
SELECT is(emu.sqlstate('INSERT INTO bare_airbyte VALUES (''x'', 1)'), '55000', 'so is that of the dedup import');
SELECT emu.config('{"routes_missing": ["/api/streaming_import/apply_fivetran_operations"]}'), emu.clear_journal() \g /dev/null
SELECT is(emu.sqlstate('INSERT INTO users (name) VALUES (''x'')'), '0A000', 'a server without the route is told');
SELECT is(emu.count_writes(), 1, 'at once');
SELECT emu.config('{"routes_missing": []}') \g /dev/null

SELECT * FROM finish();
