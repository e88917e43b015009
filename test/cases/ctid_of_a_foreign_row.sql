-- The ctid of a foreign row is no identity: it was the same for all rows of a scan, or different for the same row in two
-- scans, so that "delete duplicates" by ctid deleted every row and "delete in batches" none. A query may show it; every
-- other use is refused, with a hint at _id, by which both can be done.

\ir ../pgtap/lib/setup.sql
\ir ../pgtap/lib/writes.sql
SELECT no_plan();

SELECT emu.server() \g /dev/null
SELECT emu.index('item', '{k}'), emu.index('other', '{k}'),
	emu.insert('item', VARIADIC (SELECT array_agg(jsonb_build_object('k', n, 'tag', 'tag ' || n % 3, 'n', 0)) FROM generate_series(1, 9) AS n)),
	emu.insert('other', '{"k": 1, "tag": "tag 1"}', '{"k": 2, "tag": "x"}') \g /dev/null
CREATE FOREIGN TABLE item (_id text, k int, tag text, n int) SERVER convex OPTIONS (primary_key 'k');
CREATE FOREIGN TABLE other (_id text, k int, tag text, n int) SERVER convex OPTIONS (primary_key 'k');
CREATE FOREIGN TABLE nameless (doc_id text OPTIONS (column_name '_id'), k int) SERVER convex OPTIONS (table_name 'item', primary_key 'k');
CREATE FOREIGN TABLE no_id (k int) SERVER convex OPTIONS (table_name 'item', primary_key 'k');
CREATE TABLE here (k int, tag text, t tid);
INSERT INTO here VALUES (1, 'here', '(0,1)'), (2, 'here', '(0,2)');
CREATE TABLE parent (_id text, k int, tag text, n int);
INSERT INTO parent (k, tag) VALUES (100, 'plain'), (101, 'plain');
CREATE FOREIGN TABLE child () INHERITS (parent) SERVER convex OPTIONS (table_name 'other', primary_key 'k');
CREATE TABLE parted (_id text, k int, tag text, n int) PARTITION BY RANGE (k);
CREATE TABLE parted_here PARTITION OF parted FOR VALUES FROM (100) TO (200);
CREATE FOREIGN TABLE parted_there PARTITION OF parted FOR VALUES FROM (0) TO (100) SERVER convex OPTIONS (table_name 'other', primary_key 'k');
INSERT INTO parted (k, tag) VALUES (100, 'plain');
CREATE VIEW seen AS SELECT ctid AS place, * FROM item;
CREATE VIEW seen_item AS SELECT * FROM item WHERE ctid IS NOT NULL;
CREATE FUNCTION places() RETURNS TABLE (place tid, tag text) LANGUAGE sql STABLE AS 'SELECT ctid, tag FROM app.item';
CREATE FUNCTION place_of_one() RETURNS tid LANGUAGE sql STABLE AS 'SELECT min(ctid) FROM app.item';

SELECT emu.clear_journal() \g /dev/null
CREATE FUNCTION refused(statement text) RETURNS text LANGUAGE sql AS $$ SELECT is(emu.failure(statement) ->> 'sqlstate', '0A000', statement) $$;

-- ------------------------------------------------------------------ refused

SELECT refused(statement) FROM unnest(ARRAY[
	'DELETE FROM item WHERE ctid NOT IN (SELECT min(ctid) FROM item GROUP BY tag)',
	'DELETE FROM item a USING item b WHERE a.tag = b.tag AND a.ctid < b.ctid',
	'DELETE FROM item a USING item b WHERE a.tag = b.tag AND a.ctid <> b.ctid AND a.k < b.k',
	'DELETE FROM item WHERE ctid IN (SELECT ctid FROM item LIMIT 1)',
	'DELETE FROM item WHERE ctid = ANY (ARRAY(SELECT ctid FROM item LIMIT 1))',
	'DELETE FROM item WHERE ctid = (SELECT ctid FROM item WHERE k = 1)',
	'DELETE FROM item WHERE ctid = ''(0,1)''',
	'DELETE FROM item WHERE (ctid::text::point)[0] > 1',
	'DELETE FROM item a WHERE EXISTS (SELECT FROM item b WHERE b.tag = a.tag AND b.ctid > a.ctid)',
	'DELETE FROM item a WHERE EXISTS (SELECT FROM here b WHERE b.t = a.ctid)',
	'DELETE FROM item a WHERE (SELECT count(*) FROM here b WHERE b.t < a.ctid OFFSET 0) > 1',
	'DELETE FROM item USING (SELECT ctid AS c, row_number() OVER (PARTITION BY tag) AS r FROM item) AS d WHERE d.c = item.ctid AND d.r > 1',
	'WITH d AS (SELECT ctid FROM item LIMIT 1) DELETE FROM item USING d WHERE d.ctid = item.ctid',
	'WITH d AS MATERIALIZED (SELECT ctid FROM item) DELETE FROM here USING d WHERE d.ctid = here.t',
	'DELETE FROM here WHERE t IN (SELECT ctid FROM item)',
	'DELETE FROM here USING item WHERE here.ctid = item.ctid',
	'UPDATE item SET n = 1 WHERE ctid = (SELECT max(ctid) FROM item)',
	'UPDATE item SET n = (SELECT count(*) FROM here WHERE t <= item.ctid)',
	'UPDATE item SET tag = ctid::text',
	'UPDATE item a SET n = 1 FROM item b WHERE a.ctid = b.ctid',
	'UPDATE here SET t = item.ctid FROM item WHERE item.k = here.k',
	'INSERT INTO here (t) SELECT ctid FROM item',
	'WITH d AS (DELETE FROM item RETURNING ctid) SELECT * FROM here JOIN d ON d.ctid = t',
	'WITH i AS (INSERT INTO item (k) VALUES (50) RETURNING ctid) SELECT * FROM here JOIN i ON i.ctid = t',
	'DELETE FROM item RETURNING ctid = ''(0,1)''',
	'UPDATE item SET n = 2 RETURNING ctid::text',
	'INSERT INTO item (k) VALUES (50) RETURNING ctid::text',
	'SELECT k FROM item WHERE ctid < ''(1,1)''',
	'SELECT k FROM item ORDER BY ctid',
	'SELECT ctid FROM item ORDER BY 1',
	'SELECT DISTINCT ctid FROM item',
	'SELECT DISTINCT ON (ctid) k FROM item',
	'SELECT ctid, count(*) FROM item GROUP BY ctid',
	'SELECT min(ctid) FROM item',
	'SELECT count(*) FROM item GROUP BY tag HAVING min(ctid) > ''(0,1)''',
	'SELECT count(*) FILTER (WHERE ctid = ''(0,1)'') FROM item',
	'SELECT row_number() OVER (ORDER BY ctid) FROM item',
	'SELECT row_number() OVER w FROM item WINDOW w AS (PARTITION BY ctid)',
	'SELECT k FROM item GROUP BY GROUPING SETS ((k), (k, ctid))',
	'SELECT ctid FROM item UNION SELECT t FROM here',
	'SELECT ctid FROM item EXCEPT SELECT t FROM here',
	'SELECT c FROM (SELECT ctid AS c FROM item UNION ALL SELECT t FROM here) AS s WHERE c = ''(0,1)''',
	'SELECT ctid = ''(0,1)'' FROM item',
	'SELECT CASE ctid WHEN ''(0,1)'' THEN 1 END FROM item',
	'SELECT (SELECT here.k FROM here WHERE here.t = item.ctid) FROM item',
	'SELECT a.k FROM item a JOIN other b ON a.ctid = b.ctid',
	'SELECT a.k FROM item a LEFT JOIN other b ON a.k = b.k AND b.ctid > ''(0,1)''',
	'SELECT a.k FROM item a FULL JOIN other b ON a.k = b.k AND a.ctid = b.ctid',
	'SELECT * FROM item a, LATERAL (SELECT k FROM here WHERE t = a.ctid LIMIT 1) AS b',
	'SELECT * FROM item a, LATERAL (VALUES (a.ctid), (NULL)) AS b',
	'SELECT * FROM item a, LATERAL unnest(ARRAY[a.ctid]) AS b',
	'SELECT * FROM here h WHERE EXISTS (SELECT FROM item WHERE item.ctid = h.ctid)',
	'WITH RECURSIVE w AS (SELECT ctid AS c FROM item UNION ALL SELECT c FROM w WHERE false) SELECT * FROM w',
	-- views and functions that the planner opens
	'SELECT * FROM seen WHERE place = ''(0,1)''',
	'DELETE FROM seen WHERE place IN (SELECT min(place) FROM seen GROUP BY tag)',
	'SELECT k FROM seen_item',
	'DELETE FROM seen_item',
	'SELECT * FROM places() WHERE place = ''(0,1)''',
	'SELECT * FROM here WHERE t = place_of_one()',
	-- other system columns, also where no scan is
	'INSERT INTO item (k) VALUES (50) RETURNING xmin',
	'INSERT INTO parted (k) VALUES (50) RETURNING cmax',
	'UPDATE item SET n = 1 RETURNING xmin',
	'DELETE FROM item RETURNING xmax',
	'SELECT xmin FROM parent',
	'SELECT 1 FROM parted WHERE xmin = ''1''',
	-- a parent's rows are those of its children
	'DELETE FROM parent WHERE ctid = ''(0,1)''',
	'DELETE FROM parent WHERE ctid NOT IN (SELECT min(ctid) FROM parent GROUP BY tag)',
	'SELECT k FROM parent WHERE ctid = ''(0,1)''',
	'SELECT a.k FROM parent a JOIN here b ON a.ctid = b.t',
	'UPDATE parent a SET n = 1 FROM parent b WHERE a.ctid < b.ctid',
	'DELETE FROM parted WHERE ctid NOT IN (SELECT min(ctid) FROM parted GROUP BY tag)',
	'SELECT min(ctid) FROM parted',
	'UPDATE parted SET n = 1 WHERE ctid = ''(0,1)''',
	'INSERT INTO parted (k) VALUES (50) RETURNING ctid::text',
	'WITH i AS (INSERT INTO parted (k) VALUES (50) RETURNING ctid) SELECT * FROM here JOIN i ON i.ctid = t',
	-- not run
	'EXPLAIN DELETE FROM item WHERE ctid = ''(0,1)''',
	'EXPLAIN (COSTS OFF, VERBOSE) SELECT min(ctid) FROM item',
	'MERGE INTO here USING item ON here.t = item.ctid WHEN MATCHED THEN DELETE',
	'MERGE INTO here USING item ON here.k = item.k WHEN MATCHED THEN UPDATE SET t = item.ctid',
	'MERGE INTO item USING here ON here.t = item.ctid WHEN MATCHED THEN DELETE']) AS statement
WHERE current_setting('server_version_num')::int >= 150000 OR statement NOT LIKE 'MERGE%';

PREPARE by_place (tid) AS DELETE FROM item WHERE ctid = $1;
SELECT refused('EXECUTE by_place (''(0,1)'')');
SET plan_cache_mode = force_generic_plan;
SELECT refused('EXECUTE by_place (''(0,1)'')');
RESET plan_cache_mode;
CREATE FUNCTION by_place(place tid) RETURNS void LANGUAGE plpgsql AS $$ BEGIN DELETE FROM item WHERE ctid = place; END $$;
SELECT refused('SELECT by_place(''(0,1)'')');
BEGIN;
DECLARE c CURSOR FOR SELECT * FROM item;
MOVE c;
SAVEPOINT s;
SELECT refused('DELETE FROM item WHERE CURRENT OF c');
ROLLBACK;

-- A session's first use of the library is no exception.
SELECT is(emu.sqlstate('DELETE FROM item WHERE ctid NOT IN (SELECT min(ctid) FROM item GROUP BY tag)'), '0A000', 'another session is refused, too');
SELECT is(emu.count_writes(), 0, 'nothing is sent');

SELECT failure ->> 'message' AS message, failure ->> 'hint' AS hint FROM emu.failure('DELETE FROM item WHERE ctid = ''(0,1)''') AS failure \gset
SELECT is(:'message'::text, 'system column "ctid" is not available in foreign table "item"', 'the message names the column and the table');
SELECT matches(:'hint'::text, 'column "_id"', 'the hint names the column _id');
SELECT matches(emu.failure('DELETE FROM nameless WHERE ctid = ''(0,1)''') ->> 'hint', 'column "doc_id"', 'by the name it has');
SELECT matches(emu.failure('DELETE FROM no_id WHERE ctid = ''(0,1)''') ->> 'hint', 'ADD COLUMN.*_id', 'or how to add it');
SELECT matches(emu.failure('DELETE FROM parent WHERE ctid = ''(0,1)''') ->> 'message', 'child', 'a parent''s query names the foreign child');

-- ------------------------------------------------------------------ shown

CREATE FUNCTION shown(statement text) RETURNS text LANGUAGE plpgsql AS
$$
DECLARE
	place text;
	r record;
BEGIN
	FOR r IN EXECUTE statement LOOP
		place := concat_ws(' ', place, r.ctid);
	END LOOP;
	RETURN place;
END
$$;
SELECT is(shown('SELECT ctid, k FROM other'), '(4294967295,0) (4294967295,0)', 'a query may show it: it is the place of no row');
SELECT is(shown('SELECT k, ctid FROM other ORDER BY k LIMIT 1 FOR UPDATE'), '(4294967295,0)', 'in any order, with locks');
SELECT is(shown('SELECT b.ctid FROM item a JOIN other b USING (k)'), '(4294967295,0) (4294967295,0)', 'of a join');
SELECT is(shown('SELECT place AS ctid FROM seen WHERE k = 1'), '(4294967295,0)', 'of a view');
SELECT is(shown('SELECT ctid FROM parent WHERE k < 101 ORDER BY k'), '(4294967295,0) (4294967295,0) (0,1)', 'of a parent');
SELECT is(shown('UPDATE other SET n = 1 WHERE k = 1 RETURNING ctid'), '(4294967295,0)', 'RETURNING may show it');
SELECT is(shown('INSERT INTO other (k) VALUES (50) RETURNING ctid'), '(4294967295,0)', 'that of INSERT');
SELECT is(shown('INSERT INTO parted (k) VALUES (51) RETURNING ctid'), '(4294967295,0)', 'into a partition');
SELECT is(shown('DELETE FROM other WHERE k = 51 RETURNING ctid'), '(4294967295,0)', 'and of DELETE');
WITH u AS (UPDATE item SET n = 0 WHERE k = 1 RETURNING tableoid::regclass::text AS t) SELECT is(t, 'item', 'tableoid works in RETURNING') FROM u;
SELECT is((SELECT count(*) FROM seen WHERE tag = 'tag 0'), 3::bigint, 'a view that has it can be read without it');
SELECT is((SELECT count(*) FROM ONLY parent WHERE ctid >= '(0,1)'), 2::bigint, 'ONLY a plain parent has places of rows');
DELETE FROM ONLY parent WHERE ctid = '(0,2)';
SELECT is((SELECT array_agg(k ORDER BY k) FROM parent), '{1,2,50,100}', 'by which they can be deleted');
SELECT is((SELECT count(*) FROM parted_here WHERE ctid = '(0,1)'), 1::bigint, 'and so has a plain partition');

-- ------------------------------------------------------------------ what goes on working

UPDATE item a SET n = b.k FROM item b WHERE a.k = b.k + 1 AND b.k < 3;
SELECT is((SELECT array_agg(n ORDER BY k) FROM item), '{0,1,2,0,0,0,0,0,0}', 'a self-join on another column');
UPDATE item a SET n = a.n + h.k FROM here h JOIN other o USING (k) WHERE a.k = h.k AND o.k = a.k;
SELECT is((SELECT array_agg(n ORDER BY k) FROM item), '{1,3,2,0,0,0,0,0,0}', 'a join of two foreign tables and a local one');
UPDATE here SET tag = item.tag FROM item WHERE item.k = here.k AND here.ctid IS NOT NULL;
SELECT is((SELECT array_agg(tag ORDER BY k) FROM here), '{"tag 1","tag 2"}', 'a local table''s own ctid beside a foreign table');
UPDATE parent a SET n = 7 FROM parent b WHERE a.k = b.k AND a.tag <> 'x';
UPDATE parted SET n = coalesce(n, 0) + 1 WHERE k IN (1, 100);
SELECT is((SELECT array_agg(n ORDER BY k) FROM parent), '{8,NULL,NULL,7}', 'UPDATE of a parent with its foreign child, joined with itself');
SELECT is((SELECT array_agg(n ORDER BY k) FROM parted), '{8,NULL,NULL,1}', 'and of a partitioned table');
SELECT is((SELECT count(*) FROM (SELECT k FROM parent FOR UPDATE) AS s), 4::bigint, 'row locks of a parent');
UPDATE here SET tag = 'seen' FROM parent WHERE parent.k = here.k;
SELECT is((SELECT array_agg(tag) FROM here), '{seen,seen}', 'and an UPDATE that joins it');
CREATE FUNCTION deleted(statement text) RETURNS jsonb LANGUAGE plpgsql AS
$$
DECLARE
	result jsonb;
BEGIN
	EXECUTE format('WITH d AS (%s) SELECT jsonb_agg(k ORDER BY k) FROM d', statement) INTO result;
	RETURN result;
END
$$;

-- ------------------------------------------------------------------ the idioms of docs/writes.md

SELECT deleted('DELETE FROM item WHERE _id IN (SELECT _id FROM item WHERE k > 7 ORDER BY _id LIMIT 1) RETURNING k') AS first \gset
SELECT is(jsonb_array_length(:'first'), 1, 'a batch is deleted by _id');
SELECT is((SELECT jsonb_agg(k ORDER BY k) FROM item WHERE k > 7), jsonb '[8, 9]' - ((:'first'::jsonb ->> 0)::int - 8), 'and nothing else');
SELECT is(jsonb_array_length(deleted('DELETE FROM item WHERE _id IN (SELECT _id FROM item WHERE k > 7 ORDER BY _id LIMIT 1) RETURNING k')), 1, 'then the next');
SELECT is(deleted('DELETE FROM item WHERE _id IN (SELECT _id FROM item WHERE k > 7 ORDER BY _id LIMIT 1) RETURNING k'), NULL::jsonb, 'until there is none');
SELECT jsonb_agg(k ORDER BY k) AS again FROM (SELECT k, row_number() OVER (PARTITION BY tag ORDER BY _id) AS r FROM item) AS s WHERE r > 1 \gset
BEGIN;
SELECT is(deleted('DELETE FROM item WHERE _id NOT IN (SELECT min(_id) FROM item GROUP BY tag) RETURNING k'), :'again'::jsonb, 'all but the first of each tag are deleted');
ROLLBACK;
SELECT is(deleted('DELETE FROM item a USING item b WHERE a.tag = b.tag AND a._id > b._id RETURNING a.k'), :'again'::jsonb, 'the same by a self-join');
SELECT is((SELECT array_agg(d ->> 'tag' ORDER BY d ->> 'tag') FROM emu.dump('item') AS d), '{tag 0,tag 1,tag 2}', 'one of each is left in Convex');

SELECT * FROM finish();
