-- Scans: are the rows right, and asked for once, in the plans that PostgreSQL
-- makes of them; what EXPLAIN and ANALYZE tell; what is repeated.

\ir lib/setup.sql
-- The walk is what this is about: see lookup.sql for what Convex is asked.
SET convex_fdw.pushdown = off;
SELECT plan(152);
\ir lib/scan.sql
SELECT emu.config('{"page_limit": 4}') \g /dev/null

-- ------------------------------------------------------------------ rescans

-- Nine documents in pages of 4 are three requests, however often they are used.
SET enable_hashjoin = off;
SET enable_mergejoin = off;
SET enable_material = off;
SET enable_memoize = off;
SELECT requests() \g /dev/null
SELECT is((SELECT count(*) FROM t9 a LEFT JOIN t5 b ON a.n > b.n), (SELECT count(*) FROM generate_series(1, 9) AS a LEFT JOIN generate_series(1, 5) AS b ON a > b),
	'a nested loop gives its rows');
SELECT is(requests(), 5, 'a nested loop asks for each page of each table once');
SELECT is((SELECT count(*) FROM t9 a CROSS JOIN t9 b CROSS JOIN t9 c), 729::bigint, 'so do three');
SELECT is(requests(), 9, 'three scans of three pages');

SELECT is(numbers('SELECT (SELECT count(*) FROM app.t9 b WHERE b.n <= a.n) AS n FROM app.t9 a ORDER BY a.n'), ARRAY(SELECT generate_series(1, 9)), 'a correlated sub-query gives its rows');
SELECT is(requests(), 6, 'a correlated sub-query is downloaded once');
SELECT is(numbers('SELECT l.n FROM app.t9 a, LATERAL (SELECT max(b.n) AS n FROM app.t9 b WHERE b.n < a.n) AS l ORDER BY a.n'), '{NULL,1,2,3,4,5,6,7,8}', 'LATERAL sees each parameter');
SELECT is(requests(), 6, 'LATERAL is downloaded once');

-- The inner scan stops early and goes on at a later rescan.
SELECT is(numbers('SELECT l.place AS n FROM generate_series(1, 9) AS g, LATERAL (SELECT count(*) AS place FROM (SELECT FROM app.t9 WHERE g > 0 LIMIT g) AS few) AS l ORDER BY g'),
	ARRAY(SELECT generate_series(1, 9)), 'a scan that stops a row later each time gives its rows');
SELECT is(requests(), 3, 'each page is asked for once');
SELECT is(numbers('SELECT l.n FROM unnest(ARRAY[1,9,2,8,3,7]) AS g, LATERAL (SELECT n FROM app.t9 WHERE n = g LIMIT 1) AS l'), '{1,9,2,8,3,7}', 'a search in changing depth gives its rows');
SELECT is(requests(), 3, 'each page is asked for once, too');
SELECT is(numbers('SELECT g AS n FROM generate_series(1, 12) AS g WHERE EXISTS (SELECT FROM app.t9 WHERE n = g AND g <> 5) ORDER BY g'), '{1,2,3,4,6,7,8,9}', 'EXISTS as a sub-plan gives its rows');
SELECT cmp_ok(requests(), '<=', 3, 'EXISTS as a sub-plan asks for each page once');
SELECT is(numbers('SELECT g AS n FROM generate_series(1, 12) AS g WHERE g > ALL (SELECT n FROM app.t9)'), '{10,11,12}', 'ALL gives its rows');
SELECT is(requests(), 3, 'ALL asks for each page once');
SELECT is(numbers('SELECT g AS n FROM generate_series(1, 12) AS g WHERE g NOT IN (SELECT n FROM app.t9)'), '{10,11,12}', 'NOT IN gives its rows');
SELECT is(requests(), 3, 'NOT IN asks for each page once');
SELECT is(numbers('SELECT g AS n FROM generate_series(1, 12) AS g WHERE g IN (SELECT n + g - g FROM app.t9)'), ARRAY(SELECT generate_series(1, 9)), 'a correlated IN gives its rows');
SELECT is(requests(), 3, 'a correlated IN asks for each page once');

SELECT is(numbers('WITH RECURSIVE up (n) AS (SELECT min(n) FROM app.t9 UNION ALL SELECT t.n FROM up JOIN app.t9 t ON t.n = up.n + 1) SELECT n FROM up'),
	ARRAY(SELECT generate_series(1, 9)), 'a recursive query gives its rows');
SELECT is(requests(), 6, 'a recursive query asks for each page of each scan once');
SELECT is(numbers('WITH RECURSIVE r (n, d) AS (SELECT n, 0 FROM app.t5 UNION SELECT (SELECT max(t.n) FROM app.t5 t WHERE t.n < r.n), d + 1 FROM r WHERE n IS NOT NULL)
	SELECT count(*)::int AS n FROM r'), '{20}', 'a sub-query in a recursive query gives its rows');
SELECT is(requests(), 4, 'it asks for each page once');

-- An empty table is known to be empty.
SELECT emu.clear_journal() \g /dev/null
SELECT is((SELECT count(*) FROM t9 a LEFT JOIN t0 b ON a.n > b.n), 9::bigint, 'a nested loop over an empty table gives its rows');
SELECT is((SELECT count(*) FROM emu.journal() AS entry WHERE entry -> 'body' ->> 'tableName' = 't0'), 1::bigint, 'an empty table is asked for once');
SELECT is((SELECT count(*) FROM emu.journal('/api/get_table_column_names')), 1::bigint, 'and looked for once');
SELECT requests() \g /dev/null
SELECT is((SELECT count(*) FROM t9 a WHERE (SELECT max(b.n) FROM t0 b WHERE b.n < a.n) IS NULL), 9::bigint, 'a correlated sub-query over an empty table gives its rows');
SELECT is(requests(), 4, 'asking for it once');
RESET enable_hashjoin;
RESET enable_mergejoin;
RESET enable_material;
RESET enable_memoize;

-- Kept rows beyond work_mem go to a temporary file.
SELECT emu.mutate(jsonb_agg(jsonb_build_object('op', 'insert', 'table', 'large', 'doc', jsonb_build_object('n', i, 'body', repeat(md5(i::text), 60)))))
FROM generate_series(1, 300) AS i \g /dev/null
CREATE FOREIGN TABLE large (n int, body text) SERVER convex;
SELECT emu.config('{"page_limit": 50}') \g /dev/null
SET work_mem = '64kB';
SELECT requests() \g /dev/null
BEGIN;
DECLARE c CURSOR FOR SELECT l.n FROM unnest(ARRAY[0, 300, 1, 150, 299, 2]) WITH ORDINALITY AS g (n, i),
	LATERAL (SELECT large.n FROM large WHERE large.n = g.n AND large.body = repeat(md5(g.n::text), 60) OFFSET 0) AS l;
SELECT is(numbers('FETCH 1 FROM c'), '{300}', 'a search through large rows finds one');
SELECT cmp_ok((SELECT sum(size) FROM pg_ls_tmpdir()), '>', 0::numeric, 'kept rows that exceed work_mem are in a temporary file');
SELECT is(numbers('FETCH ALL FROM c'), '{1,150,299,2}', 'and are found there again');
CLOSE c;
SELECT is((SELECT count(*) FROM pg_ls_tmpdir()), 0::bigint, 'the file goes with the cursor');
SAVEPOINT s;
DECLARE c CURSOR FOR SELECT l.n FROM unnest(ARRAY[300, 1, 150]) AS g (n), LATERAL (SELECT large.n FROM large WHERE large.n = g.n AND large.body > '' OFFSET 0) AS l;
SELECT is(numbers('FETCH 1 FROM c'), '{300}', 'in a subtransaction as well');
RELEASE s;
SAVEPOINT s;
SELECT is(numbers('FETCH 1 FROM c'), '{1}', 'and in another');
ROLLBACK TO s;
SELECT is(numbers('FETCH 1 FROM c'), '{150}', 'a rolled back one takes no kept row away');
ROLLBACK;
SELECT is((SELECT count(*) FROM pg_ls_tmpdir()), 0::bigint, 'the file goes with the transaction');
RESET work_mem;
SELECT emu.config('{"page_limit": 4}') \g /dev/null

-- ------------------------------------------------------------------ prepared statements, views, roles

SET plan_cache_mode = force_generic_plan;
PREPARE between_two (int, int) AS SELECT n FROM t9 WHERE n BETWEEN $1 AND $2 ORDER BY n;
SELECT is(numbers('EXECUTE between_two (2, 4)'), '{2,3,4}', 'a generic plan gives the rows of its parameters');
SELECT is(numbers('EXECUTE between_two (7, 20)'), '{7,8,9}', 'and of other ones');
PREPARE lateral_of (int[]) AS SELECT l.n FROM unnest($1) WITH ORDINALITY AS g (n, i), LATERAL (SELECT max(n) AS n FROM t9 WHERE n <= g.n) AS l ORDER BY i;
SELECT is(numbers('EXECUTE lateral_of (''{3,99,1}'')') || numbers('EXECUTE lateral_of (''{0,5}'')'), '{3,9,1,NULL,5}', 'a generic plan with rescans gives its rows at each execution');
ALTER FOREIGN TABLE t9 OPTIONS (ADD table_name 't3');
SELECT is(numbers('EXECUTE between_two (2, 4)'), '{2,3}', 'a prepared statement follows ALTER FOREIGN TABLE');
ALTER FOREIGN TABLE t9 OPTIONS (DROP table_name);
RESET plan_cache_mode;

SELECT 'scan_reader_' || current_database() AS reader, 'scan_owner_' || current_database() AS owner \gset
DROP ROLE IF EXISTS :"reader", :"owner";
CREATE ROLE :"reader";
CREATE ROLE :"owner";
GRANT USAGE, CREATE ON SCHEMA app TO :"owner";
GRANT USAGE ON SCHEMA app TO :"reader";
GRANT SELECT ON t4 TO :"reader", :"owner";
GRANT USAGE ON FOREIGN SERVER convex TO :"reader", :"owner";
SELECT format('CREATE USER MAPPING FOR %I SERVER convex OPTIONS (deploy_key %L)', :'owner', emu.key()) \gexec
SET ROLE :"owner";
CREATE VIEW app.view_of_t4 AS SELECT n FROM app.t4;
CREATE FUNCTION app.owners_sum() RETURNS bigint LANGUAGE sql STABLE SECURITY DEFINER AS 'SELECT sum(n) FROM app.t4';
GRANT SELECT ON app.view_of_t4 TO PUBLIC;
RESET ROLE;
SET ROLE :"reader";
SELECT throws_ok('SELECT n FROM app.t4', '42704', NULL, 'a role without a mapping reads nothing');
SELECT is((SELECT sum(n) FROM app.view_of_t4), 10::bigint, 'a view is read with its owner''s mapping');
SELECT is(app.owners_sum(), 10::bigint, 'a SECURITY DEFINER function reads with its owner''s mapping');
SELECT throws_ok('SELECT v.n FROM app.view_of_t4 v JOIN app.t4 t USING (n)', '42704', NULL, 'which serves the view only');
RESET ROLE;
SELECT format('CREATE USER MAPPING FOR PUBLIC SERVER convex OPTIONS (deploy_key %L)', emu.key()) \gexec
SET ROLE :"reader";
SELECT is((SELECT sum(n) FROM app.t4), 10::bigint, 'a mapping of PUBLIC serves a role without one');
RESET ROLE;
DROP OWNED BY :"reader", :"owner";
DROP ROLE :"reader", :"owner";
SELECT requests() \g /dev/null

-- ------------------------------------------------------------------ system columns, locks, samples

SELECT is((SELECT DISTINCT tableoid::regclass::text FROM t9), 't9', 'tableoid names the foreign table');
SELECT lives_ok('SELECT ctid FROM app.t9', 'ctid can be shown');
SELECT throws_ok(format('SELECT %s FROM app.t9', name), '0A000', NULL, format('%s is refused', name)) FROM unnest('{xmin,xmax,cmin,cmax}'::text[]) AS name;
SELECT throws_ok('SELECT n FROM app.t9 WHERE xmin::text = ''1''', '0A000', NULL, 'xmin is refused in a condition');
SELECT is(numbers('SELECT n FROM app.t4 ORDER BY n FOR UPDATE'), '{1,2,3,4}', 'SELECT FOR UPDATE gives the rows');
SELECT is(numbers('SELECT n FROM app.t4 WHERE n > 2 ORDER BY n LIMIT 1 FOR SHARE SKIP LOCKED'), '{3}', 'so does FOR SHARE');
CREATE TABLE local AS SELECT n FROM generate_series(3, 6) AS n;
SELECT is(numbers('SELECT n FROM app.local JOIN app.t4 USING (n) ORDER BY n FOR UPDATE'), '{3,4}', 'so does a join with a table that is locked');
SELECT throws_ok('SELECT n FROM app.t9 TABLESAMPLE bernoulli (50)', '0A000', NULL, 'TABLESAMPLE is refused');

-- ------------------------------------------------------------------ parallel plans

SELECT set_config(name, 'on', false) FROM pg_settings WHERE name IN ('force_parallel_mode', 'debug_parallel_query') \g /dev/null
SET min_parallel_table_scan_size = 0;
SET parallel_setup_cost = 0;
SET parallel_tuple_cost = 0;
CREATE TABLE numbers AS SELECT n % 10 AS n FROM generate_series(1, 10000) AS n;
ANALYZE numbers;
SELECT is((SELECT sum(n) FROM t9), 45::bigint, 'a scan is right when parallel plans are forced');
SELECT is((SELECT count(*) FROM numbers JOIN t9 USING (n)), 9000::bigint, 'so is a join with a table that is scanned in parallel');
SELECT is((SELECT count(*) FROM numbers WHERE n IN (SELECT n FROM t4)), 4000::bigint, 'so is a semi-join');
SELECT is((SELECT count(*) FROM numbers WHERE n = (SELECT max(n) FROM t4)), 1000::bigint, 'so is an init plan');
SELECT is((SELECT count(*) FROM numbers o WHERE EXISTS (SELECT FROM t4 WHERE t4.n = o.n OR t4.n = o.n - 1)), 5000::bigint, 'so is a sub-plan');
SELECT is((SELECT count(*) FROM (SELECT n FROM numbers UNION ALL SELECT n FROM t9) AS all_of_them), 10009::bigint, 'so is UNION ALL');
SELECT is((SELECT convex_snapshot('convex') > 0), true, 'so is convex_snapshot()');
SELECT is((SELECT count(*) FROM pg_proc WHERE proname LIKE 'convex%' AND proname NOT IN ('convex_fdw_version') AND proparallel = 's'
		AND prorettype NOT IN ('fdw_handler'::regtype, 'void'::regtype)), 0::bigint,
	'no function that uses a connection is declared parallel safe');
RESET min_parallel_table_scan_size;
RESET parallel_setup_cost;
RESET parallel_tuple_cost;
SELECT set_config(name, 'off', false) FROM pg_settings WHERE name IN ('force_parallel_mode', 'debug_parallel_query') \g /dev/null
SELECT requests() \g /dev/null

-- ------------------------------------------------------------------ EXPLAIN

SELECT emu.clear_journal() \g /dev/null
SELECT is((SELECT count(*) FROM nodes('SELECT n FROM app.t9', 'VERBOSE')), 1::bigint, 'EXPLAIN shows a foreign scan');
SELECT is((SELECT count(*) FROM nodes('SELECT n FROM app.t9 WHERE n > (SELECT count(*) FROM app.t4)', 'COSTS')), 2::bigint, 'and those of sub-plans');
SELECT is((SELECT count(*) FROM emu.journal()), 0::bigint, 'EXPLAIN sends nothing');
PREPARE planned AS SELECT n FROM t9;
SELECT is((SELECT count(*) FROM emu.journal()), 0::bigint, 'PREPARE sends nothing');

SELECT node ->> 'Convex Table' AS "table", node ->> 'Convex Component' AS component, node -> 'Convex Fields' AS fields
FROM nodes('SELECT name FROM app.stock WHERE n > 1', 'VERBOSE') AS node \gset
SELECT is(ARRAY[:'table', :'component', :'fields'], '{items,shop/stock,"[\"n\", \"name\"]"}', 'EXPLAIN VERBOSE shows table, component and fields');
SELECT is((SELECT node -> 'Convex Fields' FROM nodes('SELECT document FROM app.whole', 'VERBOSE') AS node), '["*"]', 'whole documents are shown as *');
SELECT ok((SELECT NOT node ?| '{Convex Table,Convex Snapshot,Pages}' FROM nodes('SELECT n FROM app.t9', 'COSTS') AS node), 'plain EXPLAIN shows none of this');

SELECT emu.config('{"extra_latency_ms": 20}') \g /dev/null
SELECT node FROM nodes('SELECT n FROM app.t9') AS node \gset
SELECT emu.config('{"extra_latency_ms": 0}') \g /dev/null
SELECT is((:'node'::jsonb -> 'Pages')::int, 3, 'EXPLAIN ANALYZE counts pages');
SELECT is((:'node'::jsonb -> 'Documents')::int, 9, 'and documents');
SELECT is((:'node'::jsonb -> 'Requests')::int, 3, 'and requests');
SELECT is((:'node'::jsonb -> 'Retries')::int, 0, 'and retries');
SELECT is((:'node'::jsonb -> 'Bytes Received')::bigint, (SELECT sum((entry -> 'bytes')::bigint) FROM emu.journal('/api/list_snapshot') AS entry)::bigint, 'and the bytes of the answers');
SELECT is((:'node'::jsonb -> 'Convex Snapshot')::bigint, (SELECT DISTINCT (entry -> 'snapshot')::bigint FROM emu.journal('/api/list_snapshot') AS entry), 'and tells the snapshot');
SELECT ok((:'node'::jsonb -> 'Wait Time')::float8 BETWEEN 50 AND 2000, 'and the milliseconds spent waiting');
SELECT is((SELECT array_agg(DISTINCT jsonb_typeof(value)) FROM jsonb_each(:'node')
		WHERE key IN ('Convex Snapshot', 'Pages', 'Documents', 'Bytes Received', 'Requests', 'Retries', 'Wait Time')), '{number}', 'all typed as numbers');
SET enable_hashjoin = off;
SET enable_mergejoin = off;
SET enable_material = off;
SELECT is((SELECT (node -> 'Documents')::int FROM nodes('SELECT FROM app.t4 a LEFT JOIN app.t9 b ON a.n < b.n') AS node WHERE node ->> 'Convex Table' = 't9'), 9,
	'documents that a nested loop reads again are counted once');
RESET enable_hashjoin;
RESET enable_mergejoin;
RESET enable_material;
SELECT emu.clear_journal() \g /dev/null

-- ------------------------------------------------------------------ estimates and ANALYZE

SELECT cmp_ok((SELECT (node -> 'Plan Rows')::float8 FROM nodes('SELECT count FROM app.bench', 'COSTS') AS node), '>', 100::float8, 'a table that was never analyzed is not planned as empty');
SELECT emu.config('{"page_limit": 1024}') \g /dev/null
ANALYZE bench;
SELECT is(requests(), 5, 'ANALYZE reads the table once');
SELECT is((SELECT reltuples FROM pg_class WHERE oid = 'bench'::regclass), 5000::real, 'ANALYZE counts the rows');
SELECT is((SELECT (node -> 'Plan Rows')::float8 FROM nodes('SELECT count FROM app.bench', 'COSTS') AS node), 5000::float8, 'and the planner uses that');
SELECT is((SELECT array_agg(attname ORDER BY attname) FROM pg_stats WHERE schemaname = 'app' AND tablename = 'bench'), '{_id,amount,count,name}'::name[], 'every column has statistics');
SELECT is((SELECT n_distinct FROM pg_stats WHERE tablename = 'bench' AND attname = 'count'), (-1)::real, 'and they are true');
SELECT is((SELECT array_length(histogram_bounds, 1) FROM pg_stats WHERE tablename = 'bench' AND attname = 'count'), 101, 'with a histogram');
SELECT cmp_ok((SELECT (node -> 'Plan Rows')::float8 FROM nodes('SELECT count FROM app.bench WHERE count < 2500', 'COSTS') AS node), '<', 700::float8, 'by which conditions are estimated');

SELECT emu.config('{"page_limit": 20}') \g /dev/null
SET convex_fdw.analyze_max_documents = 100;
SELECT requests() \g /dev/null
ANALYZE bench;
SELECT cmp_ok(requests(), '<=', 7, 'convex_fdw.analyze_max_documents bounds what ANALYZE reads');
SELECT is((SELECT reltuples FROM pg_class WHERE oid = 'bench'::regclass), 5000::real, 'a bounded ANALYZE does not shrink the estimate');
CREATE FOREIGN TABLE bench_again (count bigint) SERVER convex OPTIONS (table_name 'bench');
ANALYZE bench_again;
SELECT cmp_ok((SELECT reltuples FROM pg_class WHERE oid = 'bench_again'::regclass), '>=', 100::real, 'a first bounded ANALYZE counts what it has read at least');
RESET convex_fdw.analyze_max_documents;
SELECT emu.config('{"page_limit": 1024}') \g /dev/null
ANALYZE t0;
SELECT cmp_ok((SELECT (node -> 'Plan Rows')::float8 FROM nodes('SELECT n FROM app.t0', 'COSTS') AS node), '<=', 1::float8, 'an analyzed empty table is planned as empty');
SELECT requests() \g /dev/null
ANALYZE items (n, name);
SELECT is((SELECT array_agg(attname ORDER BY attname) FROM pg_stats WHERE schemaname = 'app' AND tablename = 'items'), '{n,name}'::name[], 'ANALYZE of some columns makes their statistics');
SELECT throws_ok('SET convex_fdw.analyze_max_documents = 0', '22023', NULL, 'analyze_max_documents cannot be 0');

-- ------------------------------------------------------------------ repetitions

-- The first statement of each kind of trouble, and what the emulator got.
SELECT emu.config('{"page_limit": 4}') \g /dev/null
CREATE FUNCTION all_of_t9(fault jsonb, OUT n int[], OUT state text, OUT requests int, OUT bodies int, OUT retries int) LANGUAGE plpgsql AS
$$
DECLARE
	plan jsonb;
BEGIN
	PERFORM emu.clear_faults(), emu.clear_journal();
	PERFORM emu.fault(fault || '{"path": "/api/list_snapshot"}');
	BEGIN
		n := app.numbers('SELECT n FROM app.t9 ORDER BY n');
	EXCEPTION WHEN OTHERS THEN
		state := SQLSTATE;
	END;
	SELECT count(*), count(DISTINCT entry -> 'body') INTO requests, bodies FROM emu.journal('/api/list_snapshot') AS entry;
	IF state IS NULL THEN
		PERFORM emu.clear_faults();
		PERFORM emu.fault(fault || '{"path": "/api/list_snapshot"}');
		SELECT node -> 'Retries' INTO retries FROM app.nodes('SELECT n FROM app.t9') AS node;
	END IF;
	PERFORM emu.clear_faults();
END
$$;
CREATE TABLE troubles (what text, fault jsonb);
INSERT INTO troubles VALUES
	('503', '{"action": "status", "status": 503, "code": "TableSummariesUnavailable"}'),
	('503 on the second page', '{"action": "status", "status": 503, "code": "TableSummariesUnavailable", "skip": 1}'),
	('503 InternalServerError', '{"action": "status", "status": 503, "code": "InternalServerError"}'),
	('500', '{"action": "status", "status": 500}'),
	('429', '{"action": "status", "status": 429, "code": "TooManyWrites"}'),
	('425', '{"action": "status", "status": 425, "code": "TooEarly"}'),
	('502 of a proxy', '{"action": "status", "status": 502, "body": "<html>Bad Gateway</html>"}'),
	('408', '{"action": "status", "status": 408}'),
	('408 on the last page', '{"action": "status", "status": 408, "skip": 2}'),
	('a reset connection', '{"action": "reset"}'),
	('a line that is cut in the middle', '{"action": "cut", "after_bytes": 100, "skip": 1}'),
	('a reset in the middle of the last page', '{"action": "reset", "after_bytes": 60, "skip": 2}');
CREATE TABLE outcomes AS SELECT what, outcome.* FROM troubles, all_of_t9(fault) AS outcome;
SELECT is(state || '', NULL, what || ' is not the end') FROM outcomes;
SELECT is(n, ARRAY(SELECT generate_series(1, 9)), 'all rows come once in spite of ' || what) FROM outcomes;
SELECT is(ARRAY[requests, bodies], '{4,3}', 'after ' || what || ' exactly the same request is sent again') FROM outcomes;
-- (libcurl itself repeats what a kept connection loses before the first byte.)
SELECT is(retries, 1, 'EXPLAIN counts the retry after ' || what) FROM outcomes WHERE what <> 'a reset connection';

SELECT * FROM all_of_t9('{"action": "status", "status": 500, "count": -1}') \gset
SELECT is(:'state'::text, 'HV000', 'a lasting 500 is an error');
SELECT cmp_ok(:requests, '<=', 4, 'after a few attempts');
SELECT * FROM all_of_t9('{"action": "status", "status": 403, "code": "OperationNotPermitted", "count": -1}') \gset
SELECT is(ARRAY[:'state', :'requests'], '{42501,1}', '403 is not asked again');
SELECT * FROM all_of_t9('{"action": "status", "status": 401, "code": "BadAdminKey", "count": -1}') \gset
SELECT is(ARRAY[:'state', :'requests'], '{28000,1}', '401 is not asked again');
SELECT * FROM all_of_t9('{"action": "status", "status": 400, "code": "BadJsonBody", "count": -1}') \gset
SELECT is(ARRAY[:'state', :'requests'], '{HV00L,1}', '400 is not asked again');
SELECT * FROM all_of_t9('{"action": "status", "status": 403, "code": "StreamingExportNotEnabled", "count": -1}') \gset
SELECT is(ARRAY[:'state', :'requests'], '{42501,1}', 'a plan without streaming export is not asked again');

ALTER SERVER convex OPTIONS (ADD max_retries '1');
SELECT * FROM all_of_t9('{"action": "status", "status": 503, "code": "TableSummariesUnavailable", "count": 2}') \gset
SELECT is(ARRAY[:'state', :'requests'], '{53000,2}', 'max_retries bounds the attempts');
SELECT * FROM all_of_t9('{"action": "status", "status": 408, "count": 3}') \gset
SELECT is(:'n'::int[], ARRAY(SELECT generate_series(1, 9)), '408 of a walk does not count');
ALTER SERVER convex OPTIONS (SET max_retries '0');
SELECT * FROM all_of_t9('{"action": "status", "status": 503, "code": "TableSummariesUnavailable"}') \gset
SELECT is(ARRAY[:'state', :'requests'], '{53000,1}', 'max_retries 0 allows one attempt');
SELECT emu.fault('{"action": "status", "status": 503, "code": "TableSummariesUnavailable", "message": "still loading", "path": "/api/list_snapshot"}') \g /dev/null
SELECT emu.failure('SELECT n FROM app.t9') AS failed \gset
SELECT ok(:'failed'::jsonb ->> 'message' ~ '"convex"' AND :'failed' ~ 'list_snapshot' AND :'failed' ~ '503' AND :'failed' ~ 'TableSummariesUnavailable'
	AND :'failed' ~ 'still loading' AND :'failed'::jsonb ->> 'hint' <> '', 'an error tells server, endpoint, status, code, message and a hint');

SELECT * FROM finish();
