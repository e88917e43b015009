-- Scans: what is asked of Convex, and are the rows right however PostgreSQL
-- walks over them?

\ir lib/setup.sql
-- The walk is what this is about: see lookup.sql for what Convex is asked.
SET convex_fdw.pushdown = off;
SELECT plan(146);
\ir lib/scan.sql

-- ------------------------------------------------------------------ only what is needed

SELECT emu.clear_journal() \g /dev/null
SELECT is((SELECT array_agg(name ORDER BY name) FROM items WHERE n < 3), '{name 1,name 2}', 'a scan gives the rows');
SELECT is(body() - 'format', '{"selection": {"_other": "excluded", "": {"_other": "excluded", "items":
		{"_other": "excluded", "_id": "included", "n": "included", "name": "included"}}}, "tableName": "items"}',
	'the columns of the query, with _id, become a selection that is sent together with tableName');
SELECT is(body() ->> 'format', 'convex_encoded_json', 'values are asked for in the exact format');
SELECT is((SELECT entry ->> 'method' FROM emu.journal() AS entry), 'POST', 'with one POST');
SELECT emu.clear_journal() \g /dev/null
SELECT is((SELECT name FROM stock), 'in stock', 'a table of a component is read');
SELECT is(body() - 'format', '{"selection": {"_other": "excluded", "shop/stock": {"_other": "excluded", "items":
		{"_other": "excluded", "_id": "included", "name": "included"}}}, "tableName": "items", "component": "shop/stock"}',
	'a component is named in the selection and beside tableName');

SELECT is(fields_of('SELECT count(*) FROM app.items'), '{_id,"_other excluded"}', 'count(*) asks for _id only');
SELECT is(fields_of('SELECT 1 FROM app.items'), '{_id,"_other excluded"}', 'a query of no column asks for _id only');
SELECT is(fields_of('SELECT count(n) FROM app.items'), '{_id,"_other excluded",n}', 'count(n) asks for n');
SELECT is(fields_of('SELECT tableoid, ctid FROM app.items'), '{_id,"_other excluded"}', 'tableoid and ctid need no field');
SELECT is(fields_of('SELECT _id FROM app.items'), '{_id,"_other excluded"}', '_id is asked for once');
SELECT is(fields_of('SELECT "_creationTime" FROM app.items'), '{_creationTime,_id,"_other excluded"}', '_creationTime is a field like others');
SELECT is(fields_of('SELECT size FROM app.items'), '{"Font Size",_id,"_other excluded"}', 'column_name names the field');
SELECT is(fields_of('SELECT city FROM app.items'), '{_id,"_other excluded",address}', 'a path asks for its top-level field');
SELECT is(fields_of('SELECT n FROM app.items ORDER BY name'), '{_id,"_other excluded",n,name}', 'ORDER BY counts');
SELECT is(fields_of('SELECT max(n) FROM app.items GROUP BY city HAVING min(size) > 0'),
	'{"Font Size",_id,"_other excluded",address,n}', 'GROUP BY and HAVING count');
SELECT is(fields_of('SELECT sum(n) FILTER (WHERE size > 1) OVER (PARTITION BY name) FROM app.items'),
	'{"Font Size",_id,"_other excluded",n,name}', 'window functions count');
SELECT is(fields_of('SELECT o.n FROM app.items i JOIN app.stock o ON o.name = i.name'), '{_id,"_other excluded",name}', 'join conditions count');
SELECT is(fields_of('SELECT (SELECT count(*) FROM generate_series(1, i.n)) FROM app.items i'), '{_id,"_other excluded",n}', 'parameters of sub-queries count');
SELECT is(fields_of('SELECT g FROM app.items i, LATERAL generate_series(1, i.n) AS g'), '{_id,"_other excluded",n}', 'parameters of LATERAL count');
SELECT is(fields_of('SELECT i FROM app.items i'), '{"Font Size",_creationTime,_id,"_other excluded",address,n,name}', 'a whole row asks for the fields of all columns');
SELECT is(fields_of('SELECT to_jsonb(i) ->> ''n'' FROM app.items i'), '{"Font Size",_creationTime,_id,"_other excluded",address,n,name}', 'so does a function of it');
SELECT is(fields_of('SELECT * FROM app.items'), '{"Font Size",_creationTime,_id,"_other excluded",address,n,name}', 'SELECT * asks for the columns and nothing else');
SELECT is(fields_of('SELECT document FROM app.whole'), '{_other}', 'a column "*" asks for whole documents');
SELECT is(fields_of('SELECT n FROM app.whole'), '{_id,"_other excluded",n}', 'but only when it is needed');
SELECT is((SELECT document FROM whole WHERE n = 4) - '_id' - '_creationTime' - 'unused',
	'{"n": 4, "name": "name 4", "Font Size": 2, "address": {"city": "city 1", "zip": 4}}', 'a column "*" is the document');
SELECT is((SELECT to_jsonb(i) - '_id' - '_creationTime' FROM items i WHERE n = 4),
	'{"n": 4, "name": "name 4", "size": 2, "city": "city 1"}', 'a whole row has every column');
SELECT is((SELECT count(*) FROM items i WHERE i IS NOT NULL), 10::bigint, 'a whole row can be tested');

CREATE FOREIGN TABLE no_columns () SERVER convex OPTIONS (table_name 'items');
SELECT is((SELECT count(*) FROM no_columns), 10::bigint, 'a foreign table without columns has rows');

-- ------------------------------------------------------------------ few rows, few requests

SELECT emu.clear_journal() \g /dev/null
SELECT is((SELECT count(*) FROM (SELECT * FROM bench LIMIT 10) AS few), 10::bigint, 'LIMIT gives its rows');
SELECT is(requests(), 1, 'LIMIT 10 is one request');
SELECT is((SELECT count(*) FROM (SELECT * FROM bench LIMIT 10 OFFSET 20) AS few), 10::bigint, 'so does OFFSET');
SELECT is(requests(), 1, 'OFFSET 20 LIMIT 10 is one request');
SELECT ok((SELECT EXISTS (SELECT FROM bench)), 'EXISTS finds a row');
SELECT is(requests(), 1, 'EXISTS is one request');
SELECT ok((SELECT EXISTS (SELECT FROM bench WHERE name LIKE 'Item%')), 'EXISTS with a condition finds a row');
SELECT is(requests(), 1, 'EXISTS with a condition that an early row meets is one request');
SELECT is((SELECT count(*) FROM (SELECT * FROM bench WHERE count > 0 LIMIT 5) AS few), 5::bigint, 'a condition with LIMIT gives its rows');
SELECT is(requests(), 1, 'a condition that early rows meet with LIMIT is one request');
SELECT is((SELECT count(*) FROM (SELECT * FROM bench LIMIT 0) AS none), 0::bigint, 'LIMIT 0 gives no row');
SELECT is(requests(), 0, 'LIMIT 0 is no request');
SELECT is((SELECT count(*) FROM bench WHERE false), 0::bigint, 'WHERE false gives no row');
SELECT is(requests(), 0, 'WHERE false is no request');
SELECT is((SELECT count(*) FROM (SELECT * FROM bench WHERE current_setting('app.on', true) = 'yes') AS none), 0::bigint,
	'a condition without columns that is false gives no row');
SELECT is(requests(), 0, 'and is no request');

BEGIN;
DECLARE c CURSOR FOR SELECT count AS n FROM bench;
SELECT is(cardinality(numbers('FETCH 3 FROM c')), 3, 'a cursor gives its first rows');
CLOSE c;
COMMIT;
SELECT is(requests(), 1, 'the first rows of a cursor are one request');

CREATE FUNCTION leave_early(n int) RETURNS int LANGUAGE plpgsql AS
$$
DECLARE
	r record;
	seen int := 0;
BEGIN
	FOR r IN SELECT * FROM app.bench LOOP
		seen := seen + 1;
		EXIT WHEN seen = n;
	END LOOP;
	RETURN seen;
END
$$;
SELECT is(leave_early(7), 7, 'a FOR loop may be left early');
SELECT is(requests(), 1, 'leaving a FOR loop early is one request');

SELECT emu.config('{"page_limit": 4}') \g /dev/null
SELECT is((SELECT count(*) FROM (SELECT * FROM bench LIMIT 12) AS few), 12::bigint, 'LIMIT over several pages gives its rows');
SELECT cmp_ok(requests(), '<=', 4, 'it asks for no more than one page beyond those it needs');
SELECT is((SELECT count(*) FROM (SELECT * FROM bench LIMIT 9) AS few), 9::bigint, 'LIMIT in the middle of a page gives its rows');
SELECT cmp_ok(requests(), '<=', 4, 'it asks for no more than one page beyond those it needs, too');
SELECT is((SELECT count(*) FROM (SELECT * FROM bench WHERE count >= -1000 LIMIT 8) AS few), 8::bigint, 'LIMIT with a condition gives its rows');
SELECT cmp_ok(requests(), '<=', 3, 'it asks for no more than one page beyond those it needs, either');
SELECT is(leave_early(21), 21, 'a FOR loop over small pages may be left early');
SELECT cmp_ok(requests(), '<=', 16, 'it asks for no more than one page beyond the 60 rows that PL/pgSQL fetches');
PREPARE first_rows (int) AS SELECT count(*) FROM (SELECT * FROM bench LIMIT $1) AS few;
SET plan_cache_mode = force_generic_plan;
EXECUTE first_rows (6) \gset
SELECT is(:count, 6, 'a LIMIT that is a parameter gives its rows');
SELECT cmp_ok(requests(), '<=', 3, 'it asks for no more than one page beyond those it needs');
RESET plan_cache_mode;
-- What was abandoned above does not disturb what follows.
SELECT emu.config('{"page_limit": 1024}') \g /dev/null
SELECT is((SELECT sum(count) FROM bench), (SELECT sum(7 * i - 1000)::numeric FROM generate_series(0, 4999) AS i), 'the connection is sound after early ends');
SELECT is(requests(), 5, '5000 documents are five pages');

-- ------------------------------------------------------------------ paging

SELECT emu.config('{"page_limit": 4}') \g /dev/null
SELECT is(numbers(format('SELECT n FROM app.t%s ORDER BY n', size)), ARRAY(SELECT generate_series(1, size)),
	format('%s documents in pages of 4 are read once each', size))
FROM unnest('{0,1,3,4,5,8,9}'::int[]) AS size;
SELECT is((SELECT count(*) FROM t0), 0::bigint, 'an empty table has no row');
SELECT emu.config('{"routes_missing": ["/api/get_table_column_names"]}') \g /dev/null
SELECT is((SELECT count(*) FROM t0), 0::bigint, 'also on a server that cannot list its tables');
SELECT emu.config('{"routes_missing": []}') \g /dev/null

CREATE FOREIGN TABLE unknown (n int) SERVER convex;
CREATE FOREIGN TABLE elsewhere (n int) SERVER convex OPTIONS (table_name 't4', component 'shop/stock');
CREATE FOREIGN TABLE nowhere (n int) SERVER convex OPTIONS (table_name 't4', component 'nowhere');
SELECT throws_ok('SELECT n FROM app.unknown', 'HV00R', NULL, 'an unknown table is an error');
SELECT throws_ok('SELECT count(*) FROM app.unknown', 'HV00R', NULL, 'an unknown table has no count of 0');
SELECT throws_ok('SELECT EXISTS (SELECT FROM app.unknown)', 'HV00R', NULL, 'EXISTS of an unknown table is not false');
SELECT throws_ok('SELECT n FROM app.t4 WHERE n NOT IN (SELECT n FROM app.unknown)', 'HV00R', NULL, 'NOT IN of an unknown table is not true');
SELECT throws_ok('SELECT n FROM app.elsewhere', 'HV00R', NULL, 'a table of another component is unknown');
SELECT throws_ok('SELECT n FROM app.nowhere', 'HV00R', NULL, 'a table of an unknown component is unknown');
SELECT throws_ok('ANALYZE app.unknown', 'HV00R', NULL, 'an unknown table cannot be analyzed');
BEGIN;
SELECT emu.state() ->> 'head' AS before_unknown \gset
SELECT emu.insert('unknown', '{"n": 1}') \g /dev/null
SELECT is((SELECT n FROM unknown), 1, 'a table is known as soon as it exists');
SELECT set_config('convex_fdw.snapshot', :'before_unknown', true) \g /dev/null
SELECT is((SELECT count(*) FROM unknown), 0::bigint, 'a table has no row at a timestamp before it existed');
COMMIT;

-- ------------------------------------------------------------------ answers that cannot be right

SELECT emu.fault('{"action": "ignore_filter", "path": "/api/list_snapshot", "count": -1}') \g /dev/null
SELECT throws_ok('SELECT n FROM app.items', 'HV00M', NULL, 'a server that answers with other tables is an error');
SELECT throws_ok('SELECT count(*) FROM app.t0', 'HV00M', NULL, 'also when the table is empty');
SELECT throws_ok('ANALYZE app.items', 'HV00M', NULL, 'also for ANALYZE');
SELECT emu.clear_faults() \g /dev/null

SELECT emu.fault('{"action": "wrong_table", "path": "/api/list_snapshot", "skip": 1}') \g /dev/null
CREATE TABLE received (n int);
SELECT throws_ok('INSERT INTO app.received SELECT n FROM app.t9', 'HV00M', NULL, 'a document of another table is an error on any page');
SELECT is((SELECT count(*) FROM received), 0::bigint, 'and no row');
SELECT emu.fault('{"action": "edit", "path": "/api/list_snapshot", "find": "\"_component\":\"\"", "replace": "\"_component\":\"shop\""}') \g /dev/null
SELECT throws_ok('SELECT n FROM app.t4', 'HV00M', NULL, 'a document of another component is an error');

SELECT emu.fault('{"action": "edit", "path": "/api/list_snapshot", "skip": 1, "find": "\"snapshot\":1", "replace": "\"snapshot\":2"}') \g /dev/null
SELECT throws_ok('SELECT n FROM app.t9', 'HV00M', NULL, 'a page of another snapshot is an error');
SELECT emu.fault('{"action": "edit", "path": "/api/list_snapshot", "where": {"table": "t9"}, "find": "\"snapshot\":1", "replace": "\"snapshot\":2"}') \g /dev/null
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT is((SELECT count(*) FROM t4), 4::bigint, 'after the first table has fixed the snapshot');
SELECT throws_ok('SELECT n FROM app.t9', 'HV00M', NULL, 'a first page of another one is an error, too');
COMMIT;
SELECT emu.fault('{"action": "edit", "path": "/api/list_snapshot", "find": "\"snapshot\":1", "replace": "\"snapshot\":2"}') \g /dev/null
BEGIN;
SELECT set_config('convex_fdw.snapshot', emu.state() ->> 'head', true) \g /dev/null
SELECT throws_ok('SELECT n FROM app.t9', 'HV00M', NULL, 'so is another snapshot than the pinned one');
COMMIT;

SELECT emu.fault(jsonb_build_object('action', 'body', 'path', '/api/list_snapshot', 'count', -1, 'body',
	'{"values":[{"_component":"","_table":"t9","_ts":1787000000123456789,"_id":"j57000820c20a1g7104gm2rc1m70ynr8","n":1}],'
	|| '"snapshot":1787000001000000000,"cursor":"the same","hasMore":true}')) \g /dev/null
SELECT throws_ok('SELECT n FROM app.t9', 'HV00M', NULL, 'the same cursor twice is an error, not an endless loop');
SELECT emu.clear_faults() \g /dev/null

CREATE TABLE wrong_answers (what text, answer text);
INSERT INTO wrong_answers VALUES
	('nothing', ''), ('a text', 'Welcome'), ('HTML', '<html></html>'), ('null', 'null'), ('an array', '[]'), ('an empty object', '{}'),
	('half an answer', '{"values":[{"_component":"","_table":"t9","_ts":17'),
	('an answer and more', '{"values":[],"snapshot":1787000001000000000,"cursor":null,"hasMore":false} x'),
	('no values', '{"snapshot":1787000001000000000,"cursor":null,"hasMore":false}'),
	('no snapshot', '{"values":[],"cursor":null,"hasMore":false}'),
	('no hasMore', '{"values":[],"snapshot":1787000001000000000,"cursor":null}'),
	('hasMore without a cursor', '{"values":[],"snapshot":1787000001000000000,"hasMore":true}'),
	('hasMore with a null cursor', '{"values":[],"snapshot":1787000001000000000,"cursor":null,"hasMore":true}'),
	('a snapshot that is no integer', '{"values":[],"snapshot":1.787e18,"cursor":null,"hasMore":false}'),
	('a snapshot that is a text', '{"values":[],"snapshot":"1787000001000000000","cursor":null,"hasMore":false}'),
	('a document without _id', '{"values":[{"_component":"","_table":"t9","_ts":1787000000123456789,"n":1}],"snapshot":1787000001000000000,"cursor":null,"hasMore":false}'),
	('a document without _table', '{"values":[{"_component":"","_ts":1787000000123456789,"_id":"j57","n":1}],"snapshot":1787000001000000000,"cursor":null,"hasMore":false}'),
	('a document that is a number', '{"values":[1],"snapshot":1787000001000000000,"cursor":null,"hasMore":false}'),
	('values that are null', '{"values":null,"snapshot":1787000001000000000,"cursor":null,"hasMore":false}');
CREATE FUNCTION state_for_answer(answer text) RETURNS text LANGUAGE plpgsql AS
$$
BEGIN
	PERFORM emu.fault(jsonb_build_object('action', 'body', 'path', '/api/list_snapshot', 'body', answer));
	RETURN coalesce(emu.failure('SELECT n FROM app.t9') ->> 'sqlstate', 'no error');
END
$$;
SELECT is(state_for_answer(answer), 'HV00M', what || ' for an answer is an error') FROM wrong_answers;
SELECT emu.clear_faults() \g /dev/null
SELECT is(numbers('SELECT n FROM app.t9 ORDER BY n'), ARRAY(SELECT generate_series(1, 9)), 'the session reads again after all these');

-- Servers before August 2025 do not know selections.
SELECT emu.config('{"selection_supported": false}') \g /dev/null
SELECT is(numbers('SELECT n FROM app.t9 ORDER BY n'), ARRAY(SELECT generate_series(1, 9)), 'an old server''s table is read right');
SELECT is((SELECT array_agg(city ORDER BY n) FROM items WHERE n < 4), '{city 1,city 2,city 0}', 'fields that were not asked for are passed over');
SELECT is((SELECT name FROM stock), 'in stock', 'an old server''s component is read right');
SELECT is((SELECT count(*) FROM t0), 0::bigint, 'an old server''s empty table is empty');
SELECT throws_ok('SELECT n FROM app.nowhere', 'HV00R', NULL, 'an unknown table is an error on an old server, too');
SELECT emu.config('{"selection_supported": true}') \g /dev/null

-- ------------------------------------------------------------------ cursors

SELECT requests() \g /dev/null
BEGIN;
DECLARE c SCROLL CURSOR FOR SELECT n FROM t9;
SELECT numbers('FETCH ALL FROM c') AS nine \gset
SELECT is((SELECT array_agg(n ORDER BY n) FROM unnest(:'nine'::int[]) AS n), ARRAY(SELECT generate_series(1, 9)), 'FETCH ALL gives all rows');
SELECT requests() AS forward \gset
SELECT is(numbers('FETCH BACKWARD ALL FROM c'), ARRAY(SELECT n FROM unnest(:'nine'::int[]) WITH ORDINALITY AS u (n, i) ORDER BY i DESC),
	'FETCH BACKWARD ALL gives them the other way round');
SELECT is(numbers('FETCH FORWARD 3 FROM c'), (:'nine'::int[])[1:3], 'FETCH FORWARD goes on from the start');
SELECT is(numbers('FETCH BACKWARD 2 FROM c'), ARRAY[(:'nine'::int[])[2], (:'nine'::int[])[1]], 'FETCH BACKWARD goes back');
SELECT is(numbers('FETCH ABSOLUTE 7 FROM c'), (:'nine'::int[])[7:7], 'FETCH ABSOLUTE finds its row');
SELECT is(numbers('FETCH RELATIVE -3 FROM c'), (:'nine'::int[])[4:4], 'FETCH RELATIVE finds its row');
SELECT is(numbers('FETCH ABSOLUTE -1 FROM c'), (:'nine'::int[])[9:9], 'FETCH ABSOLUTE -1 is the last row');
SELECT is(numbers('FETCH FIRST FROM c'), (:'nine'::int[])[1:1], 'FETCH FIRST is the first');
SELECT is(numbers('FETCH PRIOR FROM c'), '{}', 'before it there is none');
MOVE FORWARD 5 IN c;
SELECT is(numbers('FETCH NEXT FROM c'), (:'nine'::int[])[6:6], 'MOVE skips rows');
MOVE LAST IN c;
SELECT is(numbers('FETCH NEXT FROM c'), '{}', 'after the last row there is none');
SELECT is(requests(), 0, 'going back sends nothing');
COMMIT;

BEGIN;
DECLARE c SCROLL CURSOR FOR SELECT n FROM t9;
SELECT is(numbers('FETCH 2 FROM c'), (:'nine'::int[])[1:2], 'a cursor that turns back early');
SELECT is(numbers('FETCH BACKWARD 1 FROM c'), (:'nine'::int[])[1:1], 'gives the first row again');
SELECT is(numbers('FETCH 4 FROM c'), (:'nine'::int[])[2:5], 'and goes on to rows of the next page');
SELECT is(numbers('FETCH ABSOLUTE 1 FROM c'), (:'nine'::int[])[1:1], 'back again');
SELECT is(numbers('FETCH ALL FROM c'), (:'nine'::int[])[2:9], 'and on to the end');
COMMIT;
SELECT is(requests(), :forward::int, 'all that costs as much as going forward');

BEGIN;
DECLARE c NO SCROLL CURSOR FOR SELECT n FROM t9;
SELECT is(numbers('FETCH 6 FROM c'), (:'nine'::int[])[1:6], 'a NO SCROLL cursor goes forward');
SELECT throws_ok('FETCH BACKWARD 1 FROM c', '55000', NULL, 'and not backward');
ROLLBACK;

BEGIN;
DECLARE c SCROLL CURSOR WITH HOLD FOR SELECT n FROM t9;
DECLARE d CURSOR WITH HOLD FOR SELECT n FROM t9;
SELECT is(numbers('FETCH 3 FROM c') || numbers('FETCH 3 FROM d'), (:'nine'::int[])[1:3] || (:'nine'::int[])[1:3], 'WITH HOLD cursors in their transaction');
COMMIT;
SELECT requests() \g /dev/null
SELECT is(numbers('FETCH ALL FROM c') || numbers('FETCH ALL FROM d'), (:'nine'::int[])[4:9] || (:'nine'::int[])[4:9], 'go on after it');
SELECT is(numbers('FETCH BACKWARD 2 FROM c'), ARRAY[(:'nine'::int[])[9], (:'nine'::int[])[8]], 'the one that scrolls also goes back');
SELECT is(requests(), 0, 'and nothing is sent');
CLOSE ALL;

BEGIN;
DECLARE c SCROLL CURSOR FOR SELECT a.n FROM t9 a JOIN t9 b USING (n) ORDER BY 1;
SELECT is(numbers('FETCH 4 FROM c'), '{1,2,3,4}', 'a cursor over a join');
SELECT is(numbers('FETCH BACKWARD 3 FROM c'), '{3,2,1}', 'goes back');
SELECT is(numbers('FETCH ALL FROM c'), '{2,3,4,5,6,7,8,9}', 'and forward');
COMMIT;

-- A session that rests is not a server that is silent.
SELECT emu.config('{"page_limit": 1024}') \g /dev/null
ALTER SERVER convex OPTIONS (ADD request_timeout '1s', ADD idle_timeout '1s', ADD max_retries '0');
BEGIN;
DECLARE c CURSOR FOR SELECT count AS n FROM bench;
SELECT is(cardinality(numbers('FETCH 600 FROM c')), 600, 'a cursor that has a page under way');
SELECT ok(emu.wait_until(format('clock_timestamp() > timestamptz %L', clock_timestamp() + interval '1.2 s')), 'rests for longer than the timeouts');
SELECT is(cardinality(numbers('FETCH ALL FROM c')), 4400, 'and goes on');
COMMIT;
ALTER SERVER convex OPTIONS (DROP request_timeout, DROP idle_timeout, DROP max_retries);

CREATE FUNCTION many_cursors() RETURNS int LANGUAGE plpgsql AS
$$
DECLARE
	names refcursor[] := ARRAY(SELECT 'many ' || i FROM generate_series(1, 20) AS i);
	c refcursor;
	moved int;
	total int := 0;
BEGIN
	FOREACH c IN ARRAY names LOOP
		OPEN c FOR SELECT count FROM app.bench;
		MOVE FORWARD 400 IN c;
		GET DIAGNOSTICS moved = ROW_COUNT;
		total := total + moved;
	END LOOP;
	FOREACH c IN ARRAY names LOOP
		MOVE FORWARD ALL IN c;
		GET DIAGNOSTICS moved = ROW_COUNT;
		total := total + moved;
		CLOSE c;
	END LOOP;
	RETURN total;
END
$$;
SELECT is(many_cursors(), 100000, 'twenty cursors with a page under way each have all their rows');
SELECT emu.config('{"page_limit": 4}') \g /dev/null

SELECT * FROM finish();
