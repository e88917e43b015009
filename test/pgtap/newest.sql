-- ORDER BY "_creationTime" with a LIMIT: Convex gives the newest documents, or
-- the oldest, page by page at the snapshot of the statement. The rows are those
-- of a walk and a sort, also when the scan goes over to that in the middle.

\ir lib/setup.sql
SELECT plan(43);

SELECT emu.server('convex', $$max_retries '1', max_retry_wait '1ms', fdw_tuple_cost '1'$$) \g /dev/null
SELECT emu.config('{"page_limit": 1000}') \g /dev/null
SELECT emu.insert('items', VARIADIC ARRAY(SELECT jsonb_build_object('x', i, '_creationTime', 1700000000000 + (i * 7919 % 3001) * 10) FROM generate_series(1, 3000) AS i)) \g /dev/null
CREATE FOREIGN TABLE items (_id text, at timestamptz OPTIONS (column_name '_creationTime'), ms float8 OPTIONS (column_name '_creationTime'), x float8) SERVER convex;
CREATE TABLE local AS SELECT * FROM items;

CREATE FUNCTION asked() RETURNS text LANGUAGE sql AS
$$ SELECT concat_ws(' ', count(*) FILTER (WHERE e->>'path' = '/api/query_at_ts'), count(*) FILTER (WHERE e->>'path' = '/api/list_snapshot'),
	coalesce(sum((e->>'documents_read')::int), 0)) FROM emu.journal() AS e $$;
CREATE FUNCTION access_of(statement text) RETURNS text LANGUAGE plpgsql AS
$$
DECLARE
	line text;
	found text := 'walk';
BEGIN
	FOR line IN EXECUTE 'EXPLAIN ' || statement LOOP
		found := coalesce(substring(line FROM 'Convex Access: (.*)'), found);
	END LOOP;
	RETURN found;
END
$$;
CREATE TEMPORARY TABLE result (line text);
-- A query of `items` gives in this order what the same query of `local` does.
CREATE PROCEDURE expect(query text, questions text, what text) LANGUAGE plpgsql AS
$$
DECLARE
	have text;
	want text;
BEGIN
	PERFORM emu.clear_journal();
	EXECUTE format('SELECT string_agg(q::text, '' '') FROM (%s) AS q', query) INTO have;
	INSERT INTO result VALUES (is(asked(), questions, what || ': requests'));
	EXECUTE format('SELECT string_agg(q::text, '' '') FROM (%s) AS q', replace(query, 'items', 'local')) INTO want;
	INSERT INTO result VALUES (is(md5(have), md5(want), what || ': rows'));
END
$$;
\set show 'SELECT line FROM result; TRUNCATE result;'

-- ------------------------------------------------------------------ only what is needed is read

CALL expect('SELECT x, at FROM items ORDER BY at DESC LIMIT 20', '1 0 20', 'the newest');
CALL expect('SELECT x, at FROM items ORDER BY at LIMIT 20', '1 0 20', 'the oldest');
CALL expect('SELECT x FROM items ORDER BY ms DESC LIMIT 20 OFFSET 30', '1 0 50', 'after some');
CALL expect('SELECT x FROM items ORDER BY at DESC FETCH FIRST 5 ROWS WITH TIES', '2 0 15', 'with those that are equal');
CALL expect('SELECT x FROM items WHERE x > 1500 ORDER BY at DESC LIMIT 20', '2 0 60', 'conditions need more');
CALL expect('SELECT DISTINCT ON (at) x, at FROM items ORDER BY at DESC LIMIT 10', '1 0 32', 'the first of each');
CALL expect('SELECT x, row_number() OVER (ORDER BY at DESC) FROM items LIMIT 10', '1 0 32', 'window functions');
CALL expect('SELECT max(at) FROM items', '1 0 1', 'a maximum');
CALL expect('SELECT x FROM items ORDER BY at DESC, x LIMIT 10', '2 0 30', 'a second key is sorted here');
CALL expect('SELECT g, (SELECT i.x FROM items AS i WHERE i.x > g ORDER BY i.at DESC LIMIT 1) FROM generate_series(1, 2900, 100) AS g', '5 0 31', 'one that is run again with other values goes on where it was');
CALL expect('SELECT i.x FROM (SELECT * FROM items ORDER BY at DESC LIMIT 3) AS i, generate_series(1, 3) AS g ORDER BY g, i.at', '1 0 3', 'a sub-select is read once');
:show

SELECT is(access_of('SELECT x FROM items ORDER BY at DESC LIMIT 20'), 'newest first', 'EXPLAIN says so');
SELECT is(access_of('SELECT x FROM items ORDER BY x LIMIT 20'), 'walk', 'other columns are sorted here');
SELECT is(access_of('SELECT x FROM items ORDER BY at::date LIMIT 20'), 'walk', 'and expressions');
ALTER FOREIGN TABLE items OPTIONS (ADD on_conversion_error 'null');
SELECT is(access_of('SELECT x FROM items ORDER BY at LIMIT 20'), 'walk', 'and times that may be NULL');
ALTER FOREIGN TABLE items OPTIONS (DROP on_conversion_error);

-- ------------------------------------------------------------------ going over

-- As the last scan says: why, and what it gives is right.
CREATE FUNCTION went_over(statement text) RETURNS text LANGUAGE plpgsql AS
$$
DECLARE
	line text;
	found text := 'no';
BEGIN
	FOR line IN EXECUTE 'EXPLAIN (ANALYZE, SUMMARY OFF) ' || statement LOOP
		found := coalesce(substring(line FROM 'Went Over: (.*)'), found);
	END LOOP;
	RETURN found;
END
$$;
\set newest 'SELECT x FROM items WHERE x > 2500 ORDER BY at DESC LIMIT 40'

BEGIN;
DECLARE c CURSOR FOR SELECT x FROM items ORDER BY at DESC;
CREATE TEMPORARY TABLE fetched (n serial, x float8);
CREATE PROCEDURE take(n int) LANGUAGE plpgsql AS
$$
DECLARE
	c refcursor := 'c';
	x float8;
BEGIN
	FOR i IN 1 .. n LOOP
		FETCH c INTO x;
		EXIT WHEN NOT FOUND;
		INSERT INTO fetched (x) VALUES (x);
	END LOOP;
END
$$;
CALL take(40);
SELECT emu.config('{"query_window_s": 0}') \g /dev/null
SELECT emu.insert('items', '{"x": -1}') \g /dev/null
SELECT emu.insert('items', '{"x": -2}') \g /dev/null
SELECT emu.clear_journal() \g /dev/null
CALL take(10000);
SELECT matches(asked(), '^[12] [34] ', 'a timestamp is forgotten in the middle');
SELECT is((SELECT md5(string_agg(x::text, ' ' ORDER BY n)) FROM fetched), (SELECT md5(string_agg(x::text, ' ' ORDER BY at DESC)) FROM local), 'and the rows go on as they were');
COMMIT;
SELECT emu.config('{"query_window_s": 10}') \g /dev/null
SELECT emu.mutate(jsonb_build_array(jsonb_build_object('op', 'delete', 'table', 'items', 'id', _id))) FROM items WHERE x < 0 \g /dev/null

CREATE FUNCTION under_fault(fault jsonb, query text) RETURNS text LANGUAGE plpgsql AS
$$
DECLARE
	have text;
	want text;
	why text;
BEGIN
	PERFORM convex_fdw_disconnect_all();
	PERFORM emu.fault(fault || '{"path": "/api/query_at_ts"}');
	EXECUTE format('SELECT string_agg(q::text, '' '') FROM (%s) AS q', query) INTO have;
	PERFORM emu.clear_faults();
	EXECUTE format('SELECT string_agg(q::text, '' '') FROM (%s) AS q', replace(query, 'items', 'local')) INTO want;
	RETURN CASE WHEN have = want THEN 'right' ELSE 'wrong' END;
END
$$;
SELECT is(under_fault('{"action": "status", "status": 503, "code": "InternalServerError", "count": -1}', :'newest'), 'right', 'no page at all');
SELECT is(under_fault('{"action": "status", "status": 503, "code": "InternalServerError", "count": -1, "skip": 1}', :'newest'), 'right', 'no second page');
SELECT is(under_fault('{"action": "reset", "count": -1, "skip": 2}', :'newest'), 'right', 'no third one');
SELECT is(under_fault('{"action": "status", "status": 404, "code": "NotFound", "count": -1}', :'newest'), 'right', 'no functions');

-- An answer that is not what was asked for.
CREATE FUNCTION body(VARIADIC documents text[]) RETURNS jsonb LANGUAGE sql AS
$$ SELECT jsonb_build_object('action', 'body', 'count', 1, 'skip', 1, 'body', format('{"status":"success","value":{"continueCursor":"x","isDone":true,"page":[%s]}}', array_to_string(documents, ','))) $$;
SELECT is(under_fault(body('{"_id":"a","_creationTime":1e15,"x":2600}'), :'newest'), 'right', 'an order that is broken');
SELECT is(under_fault(body('{"_id":"a","_creationTime":5,"x":2600}', '{"_id":"a","_creationTime":4,"x":2600}'), :'newest'), 'right', 'a document twice');
SELECT is(under_fault(body('{"_id":"a","x":2600}'), :'newest'), 'right', 'a document without a time');
SELECT is(under_fault(body('{"error":"Invalid value","filter":0}'), :'newest'), 'right', 'an error in the page');
SELECT is(under_fault(body('null'), :'newest'), 'right', 'no document');

BEGIN;
INSERT INTO items (x) VALUES (4000);
SELECT is(went_over('SELECT x FROM items ORDER BY at DESC LIMIT 3'), 'the transaction has written to the table', 'own writes');
SELECT is((SELECT array_agg(x) FROM (SELECT x FROM items WHERE at IS NOT NULL ORDER BY at DESC LIMIT 3) AS i), (SELECT array_agg(x) FROM (SELECT x FROM local ORDER BY at DESC LIMIT 3) AS l), 'are sorted here');
ROLLBACK;

-- ------------------------------------------------------------------ partitions

CREATE TABLE parts (_id text, at timestamptz, x float8) PARTITION BY RANGE (x);
CREATE FOREIGN TABLE part PARTITION OF parts FOR VALUES FROM (0) TO (2000000) SERVER convex OPTIONS (table_name 'items');
ALTER FOREIGN TABLE part ALTER COLUMN at OPTIONS (ADD column_name '_creationTime');
CREATE TABLE local_part PARTITION OF parts FOR VALUES FROM (-1000) TO (0);
INSERT INTO local_part SELECT 'l' || i, to_timestamp(1700000000.003 + i * 10), -i FROM generate_series(1, 3) AS i;
CREATE INDEX ON local_part (at);
ANALYZE local_part;
SELECT emu.clear_journal() \g /dev/null
SELECT is((SELECT array_agg(x) FROM (SELECT x FROM parts ORDER BY at DESC LIMIT 30) AS p), (SELECT array_agg(x) FROM (SELECT x FROM (SELECT at, x FROM local UNION ALL SELECT at, x FROM local_part) AS l ORDER BY at DESC LIMIT 30) AS p), 'partitions are merged');
SELECT is(asked(), '1 0 30', 'by what is needed of each');

-- ------------------------------------------------------------------ random queries

SELECT setseed(0.5) \g /dev/null
CREATE FUNCTION random_query() RETURNS text LANGUAGE sql AS
$$
SELECT format('SELECT x, %s FROM items %s ORDER BY %s %s %s %s', (ARRAY['1', 'at', '_id', 'ms'])[1 + (random() * 3)::int],
	(ARRAY['', 'WHERE x > 2990', 'WHERE x <> 7', 'WHERE x::int % 5 = 0', 'WHERE at > ''2023-11-14 22:13:30+00'''])[1 + (random() * 4)::int],
	(ARRAY['at', 'ms'])[1 + (random() * 1)::int], (ARRAY['', 'DESC'])[1 + (random() * 1)::int],
	(ARRAY['', 'LIMIT 1', 'LIMIT 33', 'LIMIT 700'])[1 + (random() * 3)::int], (ARRAY['', 'OFFSET 40'])[1 + (random() * 1)::int])
$$;
CREATE FUNCTION is_same(query text) RETURNS boolean LANGUAGE plpgsql AS
$$
DECLARE
	have text;
	want text;
BEGIN
	EXECUTE format('SELECT md5(string_agg(q::text, '' '')) FROM (%s) AS q', query) INTO have;
	EXECUTE format('SELECT md5(string_agg(q::text, '' '')) FROM (%s) AS q', replace(query, 'items', 'local')) INTO want;
	RETURN have IS NOT DISTINCT FROM want;
END
$$;
SELECT is((SELECT string_agg(query, '; ') FROM (SELECT random_query() AS query FROM generate_series(1, 60) OFFSET 0) AS q WHERE NOT is_same(query)), NULL, 'random queries give the rows of a local table');

-- Others write while a cursor is read, and the timestamp is forgotten, or not.
CREATE TEMPORARY TABLE torn (query text);
CREATE PROCEDURE read_while_others_write(rounds int) LANGUAGE plpgsql AS
$$
DECLARE
	query text;
	c refcursor;
	this record;
	have text;
	want text;
BEGIN
	FOR i IN 1 .. rounds LOOP
		PERFORM emu.config(jsonb_build_object('query_window_s', (ARRAY[0, 0, 1, 10])[1 + i % 4]));
		query := random_query();
		COMMIT;
		SET TRANSACTION ISOLATION LEVEL REPEATABLE READ;
		have := '';
		OPEN c FOR EXECUTE query;
		FOR k IN 1 .. 1000000 LOOP
			FETCH c INTO this;
			EXIT WHEN NOT FOUND;
			have := have || this::text;
			IF k IN (1, 2, 40, 41, 300) THEN
				PERFORM emu.insert('items', jsonb_build_object('x', k)), emu.mutate(jsonb_build_array(jsonb_build_object('op', 'patch', 'table', 'items', 'id', (SELECT _id FROM local WHERE x = k), 'doc', jsonb_build_object('x', 5000 + i))));
			END IF;
		END LOOP;
		CLOSE c;
		SET LOCAL convex_fdw.pushdown = off;
		EXECUTE format($x$SELECT coalesce(string_agg(q::text, ''), '') FROM (%s) AS q$x$, query) INTO want;
		SET LOCAL convex_fdw.pushdown = auto;
		IF have <> want THEN
			INSERT INTO torn VALUES (query);
		END IF;
	END LOOP;
	COMMIT;
END
$$;
CALL read_while_others_write(40);
SELECT is((SELECT string_agg(query, '; ') FROM torn), NULL, 'a cursor gives the rows of one moment while others write');
SELECT * FROM finish();
