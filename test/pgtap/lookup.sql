-- Documents by their _id: Convex is asked for them, at the snapshot of the
-- statement, and the rows are those that a walk gives. Whatever keeps Convex
-- from answering costs a walk, and nothing else.

\ir lib/setup.sql
SELECT plan(108);

SELECT emu.server('convex', $$max_retries '2', max_retry_wait '1ms'$$) \g /dev/null
SELECT emu.config('{"page_limit": 100}') \g /dev/null

-- ------------------------------------------------------------------ the same rows, for one request

SELECT emu.insert('users', VARIADIC ARRAY(SELECT jsonb_build_object('x', i, 'name', 'user ' || i, 'tags', jsonb_build_array('a', i::text)) FROM generate_series(1, 3000) AS i)) \g /dev/null
SELECT emu.insert('others', '{"x": 1}') AS other \gset
SELECT emu.mutate('[{"op": "insert", "table": "users", "component": "shop", "doc": {"x": 1}}]') \g /dev/null
CREATE FOREIGN TABLE users (_id text, "_creationTime" timestamptz, x float8, name text, tags text[], document jsonb OPTIONS (column_name '*')) SERVER convex;
CREATE FOREIGN TABLE keyed (_id text, x float8, n float8) SERVER convex OPTIONS (table_name 'users', primary_key 'x');
CREATE FOREIGN TABLE absent (_id text, x float8) SERVER convex;
CREATE FOREIGN TABLE shop_users (_id text, x float8) SERVER convex OPTIONS (table_name 'users', component 'shop');
CREATE TABLE local AS SELECT row_number() OVER (ORDER BY x) AS k, * FROM users;
SELECT _id AS first FROM local WHERE x = 1 \gset
SELECT _id AS last FROM local WHERE x = 3000 \gset

-- What a statement gives, and asks for: questions, walks, and the rest.
CREATE FUNCTION asked() RETURNS text LANGUAGE sql AS
$$ SELECT concat_ws(' ', count(*) FILTER (WHERE e->>'path' = '/api/query_at_ts'), count(*) FILTER (WHERE e->>'path' = '/api/list_snapshot'),
	count(*) FILTER (WHERE e->>'path' NOT IN ('/api/query_at_ts', '/api/list_snapshot'))) FROM emu.journal() AS e $$;
CREATE PROCEDURE expect(statement text, wanted text, questions text, what text) LANGUAGE plpgsql AS
$$
DECLARE
	have text;
BEGIN
	PERFORM emu.clear_journal();
	EXECUTE format('SELECT string_agg(q::text, '' '' ORDER BY q::text) FROM (%s) AS q', statement) INTO have;
	INSERT INTO result VALUES (is(have, wanted, what)), (is(asked(), questions, what || ': requests'));
END
$$;
CREATE TEMPORARY TABLE result (line text);
\set show 'SELECT line FROM result; TRUNCATE result;'

CALL expect(format('SELECT x FROM users WHERE _id = %L', :'first'), '(1)', '1 0 1', 'a document by its _id');
CALL expect(format('SELECT x FROM users WHERE %L = _id', :'last'), '(3000)', '1 0 1', 'the other way round');
CALL expect(format('SELECT x FROM users WHERE _id = %L AND x = 1', :'last'), NULL, '1 0 1', 'other conditions are checked here');
CALL expect(format('SELECT x FROM users WHERE _id IN (%L, %L, %L, NULL)', :'first', :'last', :'first'), '(1) (3000)', '1 0 1', 'some by their _ids, each once');
CALL expect('SELECT x FROM users WHERE _id = ''nobody''', NULL, '1 0 2', 'what is no _id finds nothing');
CALL expect(format('SELECT x FROM users WHERE _id = %L', :'other'), NULL, '1 0 2', 'nor does the _id of another table');
CALL expect('SELECT x FROM users WHERE _id = NULL::text', NULL, '0 0 0', 'NULL finds nothing');
CALL expect('SELECT x FROM users WHERE _id = ANY (ARRAY(SELECT _id FROM local WHERE k <= 2500)) AND x > 2498', '(2499) (2500)', '3 0 1', 'many are asked for in parts');
CALL expect('SELECT count(*) FROM users WHERE _id = ANY (ARRAY(SELECT _id || g FROM local, generate_series(1, 2) AS g))', '(0)', '0 31 1', 'very many are a walk');
CALL expect(format('SELECT document->>''name'', tags FROM users WHERE _id = %L', :'last'), '("user 3000","{a,3000}")', '1 0 1', 'all of a document');
CALL expect(format('SELECT u.x, v.x FROM users AS u, users AS v WHERE u._id = %L AND v._id = %L', :'first', :'last'), '(1,3000)', '2 0 1', 'two scans of a statement ask for the moment once');
CALL expect('SELECT x FROM users WHERE _id = (SELECT _id FROM local WHERE k = 7)', '(7)', '1 0 1', 'a sub-select that runs once');
CALL expect(format('SELECT x FROM shop_users WHERE _id = %L', :'first'), NULL, '0 1 0', 'tables of components are walked');
:show

-- A walk in the same statement reads at the question's timestamp.
CREATE FUNCTION decode_ts(ts text) RETURNS numeric LANGUAGE sql AS
$$ SELECT sum(get_byte(decode(ts, 'base64'), i) * 256::numeric ^ i)::numeric(20) FROM generate_series(0, 7) AS i $$;
SELECT emu.clear_journal() \g /dev/null
SELECT count(*) FROM users AS u LEFT JOIN users AS v ON v.x <= 2 WHERE u._id = :'first' \g /dev/null
SELECT is((SELECT count(DISTINCT e->'body'->>'snapshot') FROM emu.journal('/api/list_snapshot') AS e), 1::bigint, 'a walk beside it has one snapshot');
SELECT is((SELECT min(e->'body'->>'snapshot')::numeric FROM emu.journal('/api/list_snapshot') AS e),
	(SELECT min(decode_ts(e->'body'->>'ts')) FROM emu.journal('/api/query_at_ts') AS e), 'that of the question');

BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT count(*) FROM users WHERE _id = :'first' \g /dev/null
SELECT emu.mutate(jsonb_build_array(jsonb_build_object('op', 'patch', 'table', 'users', 'id', :'first', 'doc', '{"x": -1}'::jsonb))) \g /dev/null
SELECT emu.clear_journal() \g /dev/null
SELECT is((SELECT x FROM users WHERE _id = :'first'), 1::float8, 'a transaction keeps its moment');
SELECT is(asked(), '1 0 0', 'and asks for it once');
COMMIT;
SELECT is((SELECT x FROM users WHERE _id = :'first'), -1::float8, 'the next one has another');

-- ------------------------------------------------------------------ counts

CALL expect('SELECT count(*) FROM users', '(3000)', '1 0 1', 'the number of documents');
CALL expect('SELECT count(*) + 1, count(*)::text FROM users HAVING true', '(3001,3000)', '1 0 1', 'in expressions');
CALL expect('SELECT (SELECT count(*) FROM users), (SELECT count(*) FROM users WHERE x <= 2 AND _id IS NOT NULL)', '(3000,2)', '1 31 1', 'beside a scan, at its moment');
CALL expect('SELECT count(*) FROM users WHERE x > 0', '(2999)', '0 31 0', 'a condition wants rows');
CALL expect('SELECT count(_id) FROM users', '(3000)', '0 31 0', 'so does another count');
CALL expect('SELECT count(*) FILTER (WHERE x < 3) FROM users', '(2)', '0 31 0', 'and a filter');
CALL expect('SELECT count(*) FROM users GROUP BY x > 1500', '(1500) (1500)', '0 31 0', 'and groups');
CALL expect('SELECT count(*) FROM users AS u, local AS l WHERE l.k = 1', '(3000)', '0 31 0', 'and a join');
CALL expect('SELECT count(*) FROM (SELECT * FROM users LIMIT 10) AS u', '(10)', '0 1 0', 'and a LIMIT below');
CALL expect('SELECT g, (SELECT count(*) + g FROM users) FROM generate_series(1, 3) AS g', '(1,3001) (2,3002) (3,3003)', '1 0 1', 'a sub-select counts once');
CALL expect('SELECT count(*) FROM shop_users', '(1)', '0 1 0', 'tables of components are read');
:show
SELECT throws_ok('SELECT count(*) FROM absent', 'HV00R', NULL, 'no table is not an empty table');
CREATE FOREIGN TABLE few (x float8) SERVER convex OPTIONS (table_name 'others');
SELECT is((SELECT count(*) FROM few), 1::bigint, 'a small table');
BEGIN;
INSERT INTO few VALUES (7);
SELECT is((SELECT count(*) FROM few), 2::bigint, 'own writes are counted');
ROLLBACK;
CREATE TABLE child () INHERITS (few);
INSERT INTO child VALUES (8), (9);
SELECT is((SELECT count(*) FROM few), 3::bigint, 'children are counted');
SELECT is((SELECT count(*) FROM ONLY few), 1::bigint, 'unless they are not asked for');
CREATE TABLE parts (_id text, x float8) PARTITION BY RANGE (x);
CREATE FOREIGN TABLE part PARTITION OF parts FOR VALUES FROM (0) TO (2000000) SERVER convex OPTIONS (table_name 'users');
CREATE TABLE local_part PARTITION OF parts FOR VALUES FROM (-1000) TO (0);
INSERT INTO local_part VALUES (:'last', -5);
SELECT is((SELECT count(*) FROM parts), 3001::bigint, 'so are partitions');
SELECT is((SELECT array_agg(x ORDER BY x) FROM parts WHERE _id = :'last'), '{-5,3000}', 'which are looked up each by itself');
DROP TABLE parts, child;
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT is((SELECT count(*) FROM few), 1::bigint, 'a transaction keeps its moment');
SELECT emu.insert('others', '{"x": 2}') \g /dev/null
SELECT is((SELECT count(*) FROM few), 1::bigint, 'in counts as well');
COMMIT;
SELECT is((SELECT count(*) FROM few), 2::bigint, 'the next one has another');

-- ------------------------------------------------------------------ plans

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
CREATE FOREIGN TABLE kinds (_id varchar, short varchar(10) OPTIONS (column_name '_id'), name text) SERVER convex OPTIONS (table_name 'users');
SELECT is(access_of($$SELECT 1 FROM kinds WHERE _id = 'a'$$), 'look-up by _id', 'a varchar is a text');
SELECT is(access_of($$SELECT 1 FROM kinds WHERE short = 'a'$$), 'walk', 'one that may be too long for its type is not');
SELECT EXISTS (SELECT FROM pg_collation WHERE collprovider = 'i') AS has_icu \gset
\if :has_icu
CREATE COLLATION any_case (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
CREATE FOREIGN TABLE alike (_id text COLLATE any_case) SERVER convex OPTIONS (table_name 'users');
SELECT is(access_of($$SELECT 1 FROM alike WHERE _id = 'a'$$), 'walk', 'nor is equality that is not of bytes');
SELECT is(access_of($$SELECT 1 FROM kinds WHERE _id = 'a' COLLATE any_case$$), 'walk', 'whose collation it ever is');
\else
SELECT skip('this PostgreSQL has no ICU', 2);
\endif
SELECT is(access_of($$SELECT 1 FROM users WHERE _id <> 'a'$$), 'walk', 'inequality asks for all');
SELECT is(access_of($$SELECT 1 FROM users WHERE _id = 'a' OR x = 1$$), 'walk', 'OR does as well');
SELECT is(access_of($$SELECT 1 FROM users WHERE _id <> ALL ('{a,b}')$$), 'walk', 'and NOT IN');
SELECT is(access_of($$SELECT 1 FROM users WHERE _id = random()::text$$), 'walk', 'what is volatile is checked row by row');
SELECT is(access_of($$SELECT 1 FROM users WHERE _id = current_setting('app.id', true)$$), 'look-up by _id', 'what is stable is asked for');
SELECT is(access_of($$SELECT 1 FROM users WHERE _id = name$$), 'walk', 'a column of the row is not');
SELECT is(access_of($$SELECT (SELECT u.x FROM users AS u WHERE u._id = l._id) FROM local AS l$$), 'walk', 'nor one of an outer row');
SELECT is(access_of($$UPDATE keyed SET n = 1 WHERE _id = 'a'$$), 'walk', 'nor what is updated');

CREATE VIEW guarded WITH (security_barrier) AS SELECT * FROM users WHERE x > 5;
SELECT is(access_of($$SELECT 1 FROM guarded WHERE _id = 'a'$$), 'look-up by _id', 'equality of texts passes a security barrier');

SET plan_cache_mode = force_generic_plan;
PREPARE by_id(text) AS SELECT x FROM users WHERE _id = $1;
PREPARE by_ids(text[]) AS SELECT count(*) FROM users WHERE _id = ANY ($1);
SELECT emu.clear_journal() \g /dev/null
EXECUTE by_id(:'last') \g /dev/null
EXECUTE by_ids(ARRAY[:'first', :'last']) \g /dev/null
SELECT is(asked(), '2 0 2', 'generic plans ask');
RESET plan_cache_mode;

-- A scan that is run again with other values asks some times, and then walks.
SELECT emu.clear_journal() \g /dev/null
SELECT is((SELECT string_agg((SELECT u.x FROM users AS u WHERE u._id = (SELECT max(l._id) FROM local AS l WHERE l.k = o.k))::text, ' ' ORDER BY o.k) FROM generate_series(101, 120) AS o(k)),
	(SELECT string_agg(k::text, ' ' ORDER BY k) FROM generate_series(101, 120) AS k), 'a look-up that is run again');
SELECT is(asked(), '10 31 1', 'walks after some questions');
SELECT emu.clear_journal() \g /dev/null
SELECT is((SELECT count(*) FROM generate_series(1, 50) AS g LEFT JOIN users AS u ON u._id = :'last' AND u.x + g > 0), 50::bigint, 'a look-up that is run again with the same value');
SELECT is(asked(), '1 0 1', 'asks once');

BEGIN;
DECLARE c SCROLL CURSOR FOR SELECT x FROM users WHERE _id = ANY (ARRAY[:'first', :'last']);
FETCH ALL FROM c \g /dev/null
MOVE ABSOLUTE 0 FROM c;
FETCH 1 FROM c \g /dev/null
COMMIT;
SELECT pass('a cursor goes back');

-- ------------------------------------------------------------------ what keeps Convex from being asked

-- As the last walk says: why, and the rows are right.
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
SELECT format('SELECT x FROM users WHERE _id = %L', :'last') AS look \gset
SET convex_fdw.pushdown = off;
SELECT is(went_over(:'look'), 'pushdown is off', 'the setting');
SELECT is((SELECT x FROM users WHERE _id = :'last'), 3000::float8, 'gives the same');
RESET convex_fdw.pushdown;
ALTER SERVER convex OPTIONS (ADD pushdown 'off');
SELECT is(access_of(:'look'), 'walk', 'the option of a server');
ALTER FOREIGN TABLE users OPTIONS (ADD pushdown 'auto');
SELECT is(access_of(:'look'), 'look-up by _id', 'that of a table comes first');
ALTER FOREIGN TABLE users OPTIONS (DROP pushdown);
ALTER SERVER convex OPTIONS (DROP pushdown);
SELECT throws_ok($$ALTER SERVER convex OPTIONS (ADD pushdown 'on')$$, '22023', NULL, 'it is auto or off');

SELECT convex_snapshot('convex') AS now \gset
SELECT set_config('convex_fdw.snapshot', :'now', false) \g /dev/null
SELECT is(went_over(:'look'), 'convex_fdw.snapshot is set', 'a pinned snapshot');
RESET convex_fdw.snapshot;

SELECT emu.config('{"query_window_s": 0}') \g /dev/null
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT count(*) FROM users WHERE _id = :'last' \g /dev/null
SELECT emu.mutate(jsonb_build_array(jsonb_build_object('op', 'patch', 'table', 'users', 'id', :'last', 'doc', '{"x": 3001}'::jsonb))) \g /dev/null
SELECT emu.insert('others', '{"x": 2}') \g /dev/null
SELECT is(went_over(:'look'), 'HTTP status 503', 'a timestamp that Convex has forgotten');
SELECT is((SELECT x FROM users WHERE _id = :'last'), 3000::float8, 'is still that of the transaction');
COMMIT;
SELECT emu.config('{"query_window_s": 10}') \g /dev/null

SELECT convex_ensure_primary_key('keyed') \g /dev/null
SELECT _id AS seventh FROM local WHERE k = 7 \gset
SELECT format('SELECT n FROM keyed WHERE _id = %L', :'seventh') AS look_at_key \gset
BEGIN;
UPDATE keyed SET n = 5 WHERE _id = :'seventh';
SELECT is((SELECT n FROM keyed WHERE _id = :'seventh'), 5::float8, 'own writes are seen');
SELECT is(went_over(:'look_at_key'), 'the transaction has written to the table', 'by a walk');
COMMIT;
SELECT is(went_over(:'look_at_key'), 'no', 'afterwards Convex is asked');

CREATE FUNCTION rows_of(ids text[], setting text) RETURNS text LANGUAGE plpgsql AS
$$
BEGIN
	PERFORM set_config('convex_fdw.pushdown', setting, true);
	RETURN (SELECT string_agg(u::text, ';' ORDER BY _id) FROM users AS u WHERE _id = ANY (ids));
END
$$;
SELECT is((SELECT count(*) FROM generate_series(1, 25) AS g, LATERAL (SELECT array_agg(CASE WHEN random() < 0.1 THEN left(_id, 20) ELSE _id END) AS ids FROM local WHERE random() < 0.01 AND g > 0) AS sample
	WHERE rows_of(ids, 'auto') IS DISTINCT FROM rows_of(ids, 'off')), 0::bigint, 'random look-ups give the rows of a walk');

CREATE FUNCTION under_fault(fault jsonb, statement text) RETURNS text LANGUAGE plpgsql AS
$$
DECLARE
	result text;
BEGIN
	PERFORM emu.fault(fault || '{"path": "/api/query_at_ts"}');
	result := went_over(statement);
	PERFORM emu.clear_faults();
	RETURN result;
END
$$;
SELECT is(under_fault('{"action": "status", "status": 500, "code": "InternalServerError", "count": -1}', :'look'), 'HTTP status 500', 'trouble of the server');
SELECT is(under_fault('{"action": "status", "status": 429, "code": "TooManyConcurrentRequests", "count": 2}', :'look'), 'no', 'a server that is busy for a moment');
SELECT is(under_fault('{"action": "reset", "count": -1}', :'look'), 'no answer', 'a connection that breaks');
SELECT emu.clear_journal() \g /dev/null
SELECT is(under_fault('{"action": "status", "status": 404, "code": "NotFound", "count": -1}', :'look'), 'HTTP status 404', 'a server without functions');
SELECT is(went_over(:'look'), 'the server does not take questions', 'is not asked again');
SELECT is(asked(), '1 62 2', 'for a while');

SELECT convex_fdw_disconnect_all() \g /dev/null
SELECT is((SELECT concat_ws(' ', ok, detail) FROM convex_test_connection('convex') WHERE check_name = 'functions'), 't Convex answers look-ups and counts', 'the server has functions');
SELECT emu.fault('{"action": "status", "status": 404, "code": "NotFound", "path": "/api/query_at_ts"}') \g /dev/null
SELECT is((SELECT concat_ws(' ', ok, detail, hint) FROM convex_test_connection('convex') WHERE check_name = 'functions'), 'f HTTP status 404 Tables are read whole.', 'or not');

-- A deployment whose plan has no streaming export.
SELECT emu.config('{"streaming_export": false}') \g /dev/null
SELECT is((SELECT count(*) FROM users WHERE _id IN (:'first', :'last', 'nobody')), 2::bigint, 'a plan without the export has look-ups');
SELECT is((SELECT count(*) FROM users WHERE _id = 'nobody'), 0::bigint, 'also of nothing');
SELECT is((SELECT count(*) FROM users), 3000::bigint, 'and counts');
SELECT throws_ok('SELECT count(*) FROM users WHERE x > 0', '42501', NULL, 'and no walk');
SELECT throws_ok('SELECT count(*) FROM shop_users', '42501', NULL, 'not even of a component');
SELECT emu.config('{"streaming_export": true}') \g /dev/null

SELECT throws_ok($$SELECT 1 FROM absent WHERE _id = 'a'$$, 'HV00R', NULL, 'a table that does not exist is an error');
SELECT * FROM finish();
