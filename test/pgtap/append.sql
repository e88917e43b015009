-- Several foreign tables under one Append: partitions and UNION ALL, of one
-- deployment and of two, one after the other and asynchronously.

\ir lib/setup.sql
SELECT plan(146);

-- A second deployment, which lasts as long as this psql.
\set second `dir=$(mktemp -d); mkfifo "$dir/said"; (tail --pid=$PPID -s 0.2 -f /dev/null | python3 ../emulator/convex_emulator.py --seed none --exit-with-stdin >"$dir/said"; rm -r "$dir") >/dev/null 2>&1 & read -r _ _ url <"$dir/said"; echo "$url"`
SELECT set_config('emu.second', :'second', false), set_config('emu.first', :'emulator', false) \g /dev/null

CREATE SCHEMA app;
SET search_path = app, public;
SELECT emu.server(), emu.server('also_convex') \g /dev/null
CREATE SERVER second FOREIGN DATA WRAPPER convex_fdw OPTIONS (deployment_url :'second');
SELECT format('CREATE USER MAPPING FOR CURRENT_USER SERVER second OPTIONS (deploy_key %L)', emu.key()) \gexec

-- An emu function, for the second deployment.
CREATE FUNCTION on_second(call text) RETURNS jsonb LANGUAGE plpgsql AS
$$
DECLARE
	result jsonb;
BEGIN
	PERFORM set_config('emu.url', current_setting('emu.second'), false);
	EXECUTE 'SELECT to_jsonb(' || call || ')' INTO result;
	PERFORM set_config('emu.url', current_setting('emu.first'), false);
	RETURN result;
END
$$;

-- Requests of pages since the last call: to the first and to the second.
CREATE FUNCTION requests() RETURNS int[] LANGUAGE plpgsql AS
$$
DECLARE
	result int[] := ARRAY[(SELECT count(*) FROM emu.journal('/api/list_snapshot')),
		app.on_second('(SELECT count(*) FROM emu.journal(''/api/list_snapshot''))')::int];
BEGIN
	PERFORM emu.clear_journal(), app.on_second('emu.clear_journal()');
	RETURN result;
END
$$;
CREATE FUNCTION nodes(statement text, options text DEFAULT 'COSTS') RETURNS SETOF jsonb LANGUAGE plpgsql AS
$$
DECLARE
	plan jsonb;
BEGIN
	EXECUTE format('EXPLAIN (%s, FORMAT JSON) %s', options, statement) INTO plan;
	RETURN QUERY SELECT jsonb_path_query(plan, 'strict $.**{1 to last} ? (@."Node Type" == "Foreign Scan")');
END
$$;
CREATE FUNCTION numbers(statement text) RETURNS int[] LANGUAGE plpgsql AS
$$
DECLARE
	r record;
	result int[] := '{}';
BEGIN
	FOR r IN EXECUTE statement LOOP
		result := result || (to_jsonb(r) ->> 'n')::int;
	END LOOP;
	RETURN result;
END
$$;
CREATE FUNCTION sorted(int[]) RETURNS int[] LANGUAGE sql AS
$$ SELECT array_agg(n ORDER BY n) FROM unnest($1) AS n $$;
CREATE FUNCTION series(first int, last int) RETURNS int[] LANGUAGE sql AS
$$ SELECT array_agg(n ORDER BY n) FROM generate_series(first, last) AS n $$;

-- Numbers 1 to 50 in the first deployment, to 75 in the second, to 100 here.
CREATE FUNCTION documents(name text, first int, last int) RETURNS jsonb LANGUAGE sql AS
$$
	SELECT jsonb_agg(jsonb_build_object('op', 'insert', 'table', name, 'doc', jsonb_build_object('n', n, 'kind', 'k' || n % 3)))
	FROM generate_series(first, last) AS n
$$;
SELECT emu.mutate(documents('east', 1, 25)), emu.mutate(documents('west', 26, 50)), on_second('emu.mutate(app.documents(''north'', 51, 75))') \g /dev/null
SELECT emu.config('{"page_limit": 4}'), on_second('emu.config(''{"page_limit": 4}'')') \g /dev/null
CREATE TABLE logs (n int, kind text) PARTITION BY RANGE (n);
CREATE FOREIGN TABLE east PARTITION OF logs FOR VALUES FROM (1) TO (26) SERVER convex;
CREATE FOREIGN TABLE west PARTITION OF logs FOR VALUES FROM (26) TO (51) SERVER convex;
CREATE FOREIGN TABLE north PARTITION OF logs FOR VALUES FROM (51) TO (76) SERVER second;
CREATE TABLE here PARTITION OF logs FOR VALUES FROM (76) TO (101);
INSERT INTO here SELECT n, 'k' || n % 3 FROM generate_series(76, 100) AS n;
SELECT requests() \g /dev/null

-- ------------------------------------------------------------------ plans

SELECT is((SELECT count(*) FROM nodes('SELECT * FROM app.logs') AS node WHERE node @> '{"Async Capable": true}'), 3::bigint, 'foreign partitions are read asynchronously');
SELECT is((SELECT count(*) FROM nodes('SELECT n FROM app.east UNION ALL SELECT n FROM app.north') AS node WHERE node @> '{"Async Capable": true}'), 2::bigint, 'so are the branches of UNION ALL');
ALTER FOREIGN TABLE west OPTIONS (ADD async_capable 'false');
SELECT is((SELECT count(*) FROM nodes('SELECT * FROM app.logs') AS node WHERE node @> '{"Async Capable": true}'), 2::bigint, 'unless the table''s async_capable is false');
ALTER FOREIGN TABLE west OPTIONS (DROP async_capable);
ALTER SERVER second OPTIONS (ADD async_capable 'false');
SELECT is((SELECT array_agg(node ->> 'Relation Name' ORDER BY 1) FROM nodes('SELECT * FROM app.logs') AS node WHERE node @> '{"Async Capable": true}'), '{east,west}', 'or the server''s');
ALTER SERVER second OPTIONS (DROP async_capable);
SELECT is(requests(), '{0,0}', 'planning sends nothing');

-- ------------------------------------------------------------------ right rows, either way

CREATE FUNCTION right_rows(way text) RETURNS SETOF text LANGUAGE plpgsql AS
$$
BEGIN
	PERFORM app.requests();
	RETURN NEXT is(app.sorted(app.numbers('SELECT n FROM app.logs')), app.series(1, 100), 'all partitions give their rows ' || way);
	RETURN NEXT is(app.requests(), '{14,7}', 'each page of each partition is asked for once ' || way);
	RETURN NEXT is((SELECT jsonb_object_agg(name, count) FROM (SELECT tableoid::regclass::text AS name, count(*) FROM app.logs GROUP BY 1) AS s),
		'{"east": 25, "west": 25, "north": 25, "here": 25}', 'tableoid tells the partition ' || way);
	RETURN NEXT is(app.numbers('SELECT n FROM app.logs WHERE kind = ''k1'' AND n > 20 ORDER BY n LIMIT 20'),
		(SELECT array_agg(n ORDER BY n) FROM (SELECT n FROM generate_series(21, 100) AS n WHERE n % 3 = 1 ORDER BY n LIMIT 20) AS s), 'conditions are checked ' || way);
	PERFORM app.requests();
	RETURN NEXT is(app.sorted(app.numbers('SELECT n FROM app.logs WHERE n BETWEEN 30 AND 60')), app.series(30, 60), 'partitions that cannot match give nothing ' || way);
	RETURN NEXT is(app.requests(), '{7,7}', 'and are not asked ' || way);
	RETURN NEXT is((SELECT count(*)::int FROM (SELECT n FROM app.logs LIMIT 30) AS s), 30, 'LIMIT over partitions gives its rows ' || way);
	PERFORM app.requests();
	RETURN NEXT is(app.sorted(app.numbers('SELECT n FROM app.east UNION ALL SELECT n FROM app.east UNION ALL SELECT -n FROM app.east UNION ALL SELECT n FROM app.here')),
		app.sorted(app.series(1, 25) || app.series(1, 25) || app.series(-25, -1) || app.series(76, 100)), 'a table that stands in a union three times gives its rows three times ' || way);
	RETURN NEXT is(app.requests(), '{21,0}', 'and is downloaded three times ' || way);

	-- an Append below another that is not its child
	PERFORM app.requests();
	RETURN NEXT is(app.sorted(app.numbers('(SELECT n FROM app.logs WHERE n > 0 OFFSET 0) UNION ALL SELECT -n FROM app.east UNION ALL (SELECT n + 200 FROM app.logs LIMIT 1000)')),
		app.sorted(app.series(1, 100) || app.series(-25, -1) || app.series(201, 300)), 'an Append in a branch of another gives its rows ' || way);
	RETURN NEXT is(app.requests(), '{35,14}', 'for one download of each scan ' || way);

	-- a condition that itself reads the same deployments
	RETURN NEXT is(app.sorted(app.numbers('SELECT n FROM app.logs WHERE n > (SELECT max(n) - 10 FROM app.west) AND n < (SELECT min(n) + 10 FROM app.north)')), app.series(41, 60), 'init plans over the same deployments are right ' || way);
	RETURN NEXT is(app.sorted(app.numbers('SELECT n FROM app.logs o WHERE EXISTS (SELECT FROM app.logs i WHERE i.n = o.n * 2 AND i.kind <= o.kind || ''z'' OFFSET 0)')),
		(SELECT array_agg(n ORDER BY n) FROM generate_series(1, 50) AS n WHERE 'k' || n * 2 % 3 <= 'k' || n % 3 || 'z'), 'sub-plans over the same partitions are right ' || way);

	-- rescans
	PERFORM app.requests();
	RETURN NEXT is(app.numbers('SELECT (SELECT count(*) FROM app.logs WHERE n <= g) AS n FROM unnest(ARRAY[10, 100, 0, 60, 30]) AS g'), '{10,100,0,60,30}', 'an Append that is rescanned gives its rows ' || way);
	RETURN NEXT is(app.requests(), '{14,7}', 'and asks for each page once ' || way);
	RETURN NEXT is(app.numbers('SELECT l.n FROM unnest(ARRAY[10, 99, 3, 60, 30]) AS g, LATERAL (SELECT n FROM app.logs WHERE n = g LIMIT 1) AS l'), '{10,99,3,60,30}', 'an Append that ends early and is rescanned gives its rows ' || way);
	RETURN NEXT is((SELECT sum(a.n * b.n) FROM app.logs a JOIN app.logs b USING (n)), 338350::bigint, 'a join of two Appends is right ' || way);
	RETURN NEXT is((SELECT count(*) FROM app.logs a CROSS JOIN app.east b), 2500::bigint, 'so is a product ' || way);
	RETURN NEXT is(app.numbers('WITH RECURSIVE up (n) AS (SELECT 1 UNION ALL SELECT l.n FROM up JOIN app.logs l ON l.n = up.n + 30) SELECT n FROM up'), '{1,31,61,91}', 'so is a recursive query ' || way);
END
$$;

SELECT right_rows('asynchronously');
SET enable_async_append = off;
SELECT right_rows('one after the other');
RESET enable_async_append;
SET enable_hashjoin = off;
SET enable_mergejoin = off;
SET enable_material = off;
SELECT right_rows('with nested loops');
RESET enable_hashjoin;
RESET enable_mergejoin;
RESET enable_material;
SET enable_partitionwise_join = on;
SET enable_partitionwise_aggregate = on;
SELECT right_rows('partition by partition');
RESET enable_partitionwise_join;
RESET enable_partitionwise_aggregate;

SELECT emu.config('{"extra_latency_ms": 1}'), on_second('emu.config(''{"extra_latency_ms": 2}'')') \g /dev/null
SELECT right_rows('slowly');
SELECT emu.config('{"extra_latency_ms": 0}'), on_second('emu.config(''{"extra_latency_ms": 0}'')') \g /dev/null

SET plan_cache_mode = force_generic_plan;
PREPARE above (int) AS SELECT n FROM logs WHERE n > $1;
SELECT requests() \g /dev/null
SELECT is(sorted(numbers('EXECUTE above (60)')), series(61, 100), 'a generic plan gives the rows of its parameter');
SELECT is(requests(), '{0,7}', 'partitions that are pruned at execution are not asked');
SELECT is(sorted(numbers('EXECUTE above (20)')), series(21, 100), 'and of another one');
RESET plan_cache_mode;
SELECT is(numbers('SELECT n FROM app.logs ORDER BY n DESC LIMIT 3'), '{100,99,98}', 'ORDER BY over partitions is right');
SELECT is((SELECT sum((node -> 'Documents')::int) FROM nodes('SELECT * FROM app.logs', 'ANALYZE') AS node), 75::bigint, 'EXPLAIN ANALYZE counts the documents of asynchronous scans');
SELECT is((SELECT sum((node -> 'Actual Rows')::numeric) FROM nodes('SELECT * FROM app.logs WHERE kind = ''k1''', 'ANALYZE') AS node), 25::numeric, 'and their rows');
SELECT is((SELECT sum((node -> 'Rows Removed by Filter')::numeric) FROM nodes('SELECT * FROM app.logs WHERE kind = ''k1''', 'ANALYZE') AS node), 50::numeric, 'and those that were filtered');

-- ------------------------------------------------------------------ who is asked when

SELECT requests() \g /dev/null
SELECT count(*) FROM (SELECT n FROM east UNION ALL SELECT n FROM west UNION ALL SELECT n FROM east) AS united \g /dev/null
SELECT is((SELECT count(*) FROM emu.journal('/api/list_snapshot') AS entry WHERE (entry -> 'walk_miss')::boolean), 3::bigint,
	'three scans of one deployment under an Append are three walks: their pages do not interleave');
SELECT requests() \g /dev/null
SELECT count(*) FROM east JOIN west ON west.n = east.n + 25 \g /dev/null
SELECT cmp_ok((SELECT count(*) FROM emu.journal('/api/list_snapshot') AS entry WHERE (entry -> 'walk_miss')::boolean), '<=', 3::bigint,
	'a hash join changes between the walks of its tables at most twice');
SELECT requests() \g /dev/null

CREATE EXTENSION dblink;
SELECT dblink_connect('other', format('host=%s port=%s dbname=%s user=postgres',
	split_part(current_setting('unix_socket_directories'), ',', 1), current_setting('port'), current_database())) \g /dev/null
SELECT dblink_exec('other', 'SET search_path = app, public') \g /dev/null
SELECT emu.fault('{"action": "stall", "path": "/api/list_snapshot"}') \g /dev/null
SELECT dblink_send_query('other', 'SELECT sum(n) FROM logs') \g /dev/null
SELECT ok(emu.wait_until($$ app.on_second('(SELECT count(*) FROM emu.journal(''/api/list_snapshot'') AS entry WHERE entry ->> ''status'' = ''200'')')::int = 7 $$),
	'while the first deployment is silent, the second is read to its end');
SELECT is((SELECT array_agg(entry -> 'body' ->> 'tableName') FROM emu.journal('/api/list_snapshot') AS entry), '{east}', 'and no other table of the first is asked for');
SELECT emu.clear_faults() \g /dev/null
SELECT is(sum, 5050::bigint, 'then the first goes on') FROM dblink_get_result('other') AS t (sum bigint);
SELECT dblink_disconnect('other') \g /dev/null
SELECT requests() \g /dev/null

-- ------------------------------------------------------------------ one snapshot for each deployment

SELECT emu.fault('{"action": "mutate", "path": "/api/list_snapshot", "count": -1, "ops": [
	{"op": "increment_all", "table": "east", "field": "moved"}, {"op": "increment_all", "table": "west", "field": "moved"}]}') \g /dev/null
CREATE FOREIGN TABLE east_moved (moved int) SERVER convex OPTIONS (table_name 'east');
CREATE FOREIGN TABLE west_moved (moved int) SERVER convex OPTIONS (table_name 'west');
SELECT is((SELECT count(DISTINCT moved) FROM (SELECT * FROM east_moved UNION ALL SELECT * FROM west_moved UNION ALL SELECT * FROM east_moved) AS united), 1::bigint,
	'asynchronous scans of one deployment read one snapshot while it changes');
SELECT is((SELECT count(DISTINCT entry -> 'snapshot') FROM emu.journal('/api/list_snapshot') AS entry), 1::bigint, 'and name it in all requests');
SELECT emu.clear_faults() \g /dev/null
SELECT requests() \g /dev/null

-- What else the statement reads waits for the answer that tells the snapshot,
-- and may take in the first page of an asynchronous scan, or its only one.
CREATE FUNCTION smallest() RETURNS int LANGUAGE sql STABLE AS 'SELECT min(n) FROM app.east';
CREATE FUNCTION who_waits(pages text) RETURNS SETOF text LANGUAGE plpgsql AS
$$
BEGIN
	RETURN NEXT is(app.sorted(app.numbers('SELECT n FROM app.west UNION ALL SELECT n FROM app.east WHERE n >= app.smallest()')), app.series(1, 50),
		'a function that takes the snapshot from an asynchronous scan takes no row from it, with ' || pages);
	RETURN NEXT is(app.sorted(app.numbers('SELECT n FROM (SELECT n FROM app.west UNION ALL SELECT n FROM app.east) AS u WHERE n > (SELECT min(n) FROM app.east)')), app.series(2, 50),
		'nor does an init plan, with ' || pages);
	RETURN NEXT is((SELECT count(convex_snapshot('convex')) FROM (SELECT n FROM app.west WHERE convex_snapshot('convex') > 0 UNION ALL SELECT n FROM app.east WHERE convex_snapshot('convex') > 0) AS u), 50::bigint,
		'nor does convex_snapshot(), with ' || pages);
	RETURN NEXT is((SELECT count(*) FROM (SELECT n FROM app.west UNION ALL SELECT n FROM app.east) AS u LEFT JOIN app.east USING (n)), 50::bigint, 'nor does a join, with ' || pages);
	RETURN NEXT is((SELECT count(*) FROM (SELECT n FROM app.west UNION ALL SELECT n FROM app.east) AS u RIGHT JOIN app.east USING (n)), 25::bigint, 'nor the other way round, with ' || pages);
END
$$;
SELECT emu.config('{"extra_latency_ms": 5}') \g /dev/null
SELECT who_waits('many pages');
SELECT emu.config('{"page_limit": 1024}') \g /dev/null
SELECT who_waits('one page');
SELECT emu.config('{"page_limit": 4, "extra_latency_ms": 0}') \g /dev/null
SELECT requests() \g /dev/null

-- ------------------------------------------------------------------ cursors and other statements between

-- Answers take so long that pages are under way at the end of each FETCH.
SELECT emu.config('{"extra_latency_ms": 5}'), on_second('emu.config(''{"extra_latency_ms": 5}'')') \g /dev/null
BEGIN;
DECLARE c CURSOR FOR SELECT n FROM logs;
DECLARE d CURSOR FOR SELECT n FROM logs;
SELECT numbers('FETCH 30 FROM c') AS c_rows, numbers('FETCH 3 FROM d') AS d_rows \gset
SELECT is(sorted(numbers('SELECT n FROM app.logs')), series(1, 100), 'a statement between two FETCHes of an asynchronous cursor is right');
SELECT :'c_rows'::int[] || numbers('FETCH 50 FROM c') AS c_rows, :'d_rows'::int[] || numbers('FETCH ALL FROM d') AS d_rows \gset
SELECT is(sorted(:'d_rows'), series(1, 100), 'a cursor beside another has its rows once each');
CLOSE d;
SELECT is(sorted(:'c_rows'::int[] || numbers('FETCH ALL FROM c')), series(1, 100), 'and so has the other');
COMMIT;

BEGIN;
DECLARE c SCROLL CURSOR FOR SELECT n FROM logs;
SELECT numbers('FETCH 60 FROM c') AS first \gset
SELECT is(numbers('FETCH BACKWARD ALL FROM c'), ARRAY(SELECT n FROM unnest((:'first'::int[])[1:59]) WITH ORDINALITY AS u (n, i) ORDER BY i DESC), 'an asynchronous cursor goes back');
SELECT is(sorted(numbers('FETCH ALL FROM c')), series(1, 100), 'and forward again');
ROLLBACK;

BEGIN;
DECLARE c CURSOR WITH HOLD FOR SELECT n FROM logs;
SELECT numbers('FETCH 10 FROM c') AS first \gset
COMMIT;
SELECT is(sorted(:'first'::int[] || numbers('FETCH ALL FROM c')), series(1, 100), 'an asynchronous cursor WITH HOLD has its rows after COMMIT');
CLOSE c;

BEGIN;
DECLARE c CURSOR FOR SELECT n FROM logs;
SELECT numbers('FETCH 1 FROM c') AS first \gset
SAVEPOINT s;
DECLARE d CURSOR FOR SELECT n FROM logs;
SELECT numbers('FETCH 1 FROM d') AS first_of_d \gset
ROLLBACK TO s;
SELECT is(sorted(:'first'::int[] || numbers('FETCH ALL FROM c')), series(1, 100), 'an asynchronous cursor outlives one that is rolled back');
COMMIT;

SELECT emu.config('{"extra_latency_ms": 0}'), on_second('emu.config(''{"extra_latency_ms": 0}'')') \g /dev/null

-- ------------------------------------------------------------------ troubles

SELECT emu.fault('{"action": "status", "status": 503, "code": "TableSummariesUnavailable", "path": "/api/list_snapshot", "where": {"table": "west"}}'),
	on_second($$ emu.fault('{"action": "status", "status": 503, "code": "TableSummariesUnavailable", "path": "/api/list_snapshot", "skip": 2}') $$) \g /dev/null
SELECT is(sorted(numbers('SELECT n FROM app.logs')), series(1, 100), 'asynchronous scans repeat what may be repeated');
SELECT emu.fault('{"action": "cut", "after_bytes": 80, "path": "/api/list_snapshot", "skip": 3}') \g /dev/null
SELECT is(sorted(numbers('SELECT n FROM app.logs')), series(1, 100), 'also when the line is cut');

SELECT on_second($$ emu.fault('{"action": "status", "status": 403, "code": "OperationNotPermitted", "path": "/api/list_snapshot", "skip": 1}') $$) \g /dev/null
SELECT throws_ok('SELECT n FROM app.logs', '42501', NULL, 'an error of one partition is the statement''s error');
SELECT emu.fault('{"action": "wrong_table", "path": "/api/list_snapshot", "skip": 9}') \g /dev/null
SELECT throws_ok('SELECT n FROM app.logs', 'HV00M', NULL, 'a wrong document in one partition is the statement''s error');
CREATE FOREIGN TABLE south PARTITION OF logs FOR VALUES FROM (101) TO (126) SERVER second;
SELECT throws_ok('SELECT n FROM app.logs', 'HV00R', NULL, 'a partition that Convex does not have is the statement''s error');
SELECT on_second('emu.mutate(''[{"op": "create_table", "table": "south"}]'')') \g /dev/null
SELECT is(sorted(numbers('SELECT n FROM app.logs')), series(1, 100), 'an empty partition is none, and the session goes on after the errors');

-- (throws_ok() does not catch a cancel.)
CREATE FUNCTION cancelled(statement text) RETURNS text LANGUAGE plpgsql AS
$$ BEGIN EXECUTE statement; RETURN NULL; EXCEPTION WHEN query_canceled THEN RETURN SQLSTATE; END $$;

SET statement_timeout = '30s';
ALTER SERVER second OPTIONS (ADD request_timeout '200ms', ADD max_retries '0');
SELECT on_second($$ emu.fault('{"action": "stall", "path": "/api/list_snapshot", "skip": 1}') $$) \g /dev/null
SELECT throws_ok('SELECT n FROM app.logs', '08006', NULL, 'an asynchronous scan obeys request_timeout');
SELECT on_second('emu.clear_faults()') \g /dev/null
ALTER SERVER second OPTIONS (DROP request_timeout, DROP max_retries);
SELECT is(sorted(numbers('SELECT n FROM app.logs')), series(1, 100), 'the session goes on after it');
RESET statement_timeout;

SET statement_timeout = '300ms';
SELECT emu.fault('{"action": "stall", "path": "/api/list_snapshot"}') \g /dev/null
SELECT is(cancelled('SELECT n FROM app.logs'), '57014', 'an asynchronous scan can be cancelled');
RESET statement_timeout;
SELECT emu.clear_faults() \g /dev/null
SELECT is(sorted(numbers('SELECT n FROM app.logs')), series(1, 100), 'and read again');

-- The second name of a server is another connection to the same deployment.
CREATE FOREIGN TABLE also_west (n int) SERVER also_convex OPTIONS (table_name 'west');
SELECT is(sorted(numbers('SELECT n FROM app.also_west UNION ALL SELECT n FROM app.east UNION ALL SELECT n FROM app.west')), sorted(series(26, 50) || series(1, 50)), 'two servers of one deployment are read side by side');

ANALYZE logs;
SELECT is((SELECT array_agg(attname ORDER BY attname) FROM pg_stats WHERE schemaname = 'app' AND tablename = 'logs' AND inherited), '{kind,n}'::name[], 'ANALYZE of the partitioned table samples its foreign partitions');
SELECT is((SELECT count(*) FROM nodes('SELECT * FROM app.logs') AS node WHERE node @> '{"Async Capable": true}'), 4::bigint, 'and they are still read asynchronously');
SELECT is(sorted(numbers('SELECT n FROM app.logs')), series(1, 100), 'and give their rows');

-- Many branches, more than one page each.
SELECT format('SELECT sum(n) AS n FROM (%s) AS many', string_agg(format('SELECT n FROM app.%s', name), ' UNION ALL ')) AS many
FROM (SELECT CASE i % 3 WHEN 0 THEN 'east' WHEN 1 THEN 'north' ELSE 'also_west' END AS name FROM generate_series(1, 30) AS i) AS s \gset
SELECT is(numbers(:'many'), ARRAY[10 * (325 + 950 + 1575)], 'thirty branches of three servers give their rows');

SELECT * FROM finish();
