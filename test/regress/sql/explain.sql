--
-- EXPLAIN: what it shows, and that planning sends nothing
--
\getenv emulator CONVEX_EMULATOR
SET client_min_messages = warning;
DROP EXTENSION IF EXISTS convex_fdw CASCADE;
CREATE EXTENSION convex_fdw;
\set clear_journal '\\! curl -q -sS --noproxy "*" -o /dev/null -X DELETE "$CONVEX_EMULATOR/_emulator/journal"'
-- without the key: the statement that uses it is logged
\set read_journal '\\set journal `curl -q -sS --noproxy "*" "$CONVEX_EMULATOR/_emulator/journal" | sed "s/Convex prod[^,]*,/Convex\\",/g"`'
-- 3000 documents in the root component, one in another
\! curl -q -sS --noproxy "*" -o /dev/null -X POST "$CONVEX_EMULATOR/_emulator/reset"
\! curl -q -sS --noproxy "*" -o /dev/null -d '{"seed": "bench:3000"}' "$CONVEX_EMULATOR/_emulator/seed"
\! curl -q -sS --noproxy "*" -o /dev/null -d '{"ops": [{"op": "insert", "component": "billing/ledger", "table": "lines", "doc": {"odd name": 1, "a": {"b": {"c": 2}}}}]}' "$CONVEX_EMULATOR/_emulator/mutate"
-- What changes from run to run is N.
CREATE FUNCTION explain_masked(query text, options text) RETURNS SETOF text LANGUAGE plpgsql AS
$$
DECLARE
	line text;
BEGIN
	FOR line IN EXECUTE format('EXPLAIN (COSTS OFF, SUMMARY OFF, BUFFERS OFF, %s) %s', options, query) LOOP
		line := regexp_replace(line, '(Convex Snapshot|Bytes Received|Wait Time): [0-9.]+', '\1: N', 'g');
		line := regexp_replace(line, 'actual time=[0-9.]+ rows', 'actual rows');
		RETURN NEXT regexp_replace(line, '(rows=\d+)\.00', '\1');
	END LOOP;
END
$$;

--
-- Plain EXPLAIN, with a server that is not there, a role that has no mapping, or no permission
--
CREATE SERVER explain_absent FOREIGN DATA WRAPPER convex_fdw OPTIONS (deployment_url 'https://happy-otter-123.convex.cloud', http_proxy 'http://127.0.0.1:1');
CREATE FOREIGN TABLE absent (_id text, body text) SERVER explain_absent;
EXPLAIN (COSTS OFF) SELECT * FROM absent;
EXPLAIN (VERBOSE, COSTS OFF) SELECT * FROM absent;
DROP SERVER explain_absent CASCADE;

CREATE SERVER explain_east FOREIGN DATA WRAPPER convex_fdw OPTIONS (deployment_url :'emulator');
CREATE USER MAPPING FOR CURRENT_USER SERVER explain_east OPTIONS (deploy_key 'prod:happy-otter-123|0123456789abcdef');
CREATE FOREIGN TABLE items (_id text COLLATE "C", "_creationTime" timestamptz, name text, number int8 OPTIONS (column_name 'count'), active bool,
	amount float8, parent text COLLATE "C", note text) SERVER explain_east OPTIONS (table_name 'bench');
CREATE FOREIGN TABLE lines (odd float8 OPTIONS (column_name 'odd name'), c int OPTIONS (column_name 'a.b.c', path 'true'),
	b jsonb OPTIONS (column_name 'a.b', path 'true'), document jsonb OPTIONS (column_name '*')) SERVER explain_east OPTIONS (component 'billing/ledger');
:clear_journal
EXPLAIN (COSTS OFF) SELECT * FROM items;
EXPLAIN (COSTS OFF) SELECT * FROM items WHERE number > 5 AND name LIKE 'Item%' ORDER BY number LIMIT 3;
EXPLAIN (COSTS OFF) SELECT count(*) FROM items;
SET enable_hashjoin = off;
SET enable_mergejoin = off;
EXPLAIN (COSTS OFF) SELECT * FROM items AS i JOIN items AS p ON p._id = i.parent;
RESET enable_hashjoin;
RESET enable_mergejoin;

--
-- VERBOSE: the table, its component, the fields that are asked for
--
EXPLAIN (VERBOSE, COSTS OFF) SELECT * FROM items;
EXPLAIN (VERBOSE, COSTS OFF) SELECT number FROM items WHERE active;
EXPLAIN (VERBOSE, COSTS OFF) SELECT count(*) FROM items;
EXPLAIN (VERBOSE, COSTS OFF) SELECT 1 FROM items ORDER BY amount;
EXPLAIN (VERBOSE, COSTS OFF) SELECT tableoid::regclass FROM items;
EXPLAIN (VERBOSE, COSTS OFF) SELECT i FROM items AS i;
EXPLAIN (VERBOSE, COSTS OFF) SELECT odd, c FROM lines;
EXPLAIN (VERBOSE, COSTS OFF) SELECT c, b FROM lines;
EXPLAIN (VERBOSE, COSTS OFF) SELECT document, c FROM lines;
EXPLAIN (VERBOSE, COSTS OFF) SELECT p.name FROM items AS i JOIN items AS p ON p._id = i.parent WHERE i.number = 5;
EXPLAIN (VERBOSE, COSTS OFF, FORMAT JSON) SELECT number FROM items WHERE active;
PREPARE by_number(int) AS SELECT name FROM items WHERE number = $1;
SET plan_cache_mode = force_generic_plan;
EXPLAIN (VERBOSE, COSTS OFF) EXECUTE by_number(5);
RESET plan_cache_mode;
-- the system columns that a foreign row has
EXPLAIN (COSTS OFF) SELECT xmin FROM items;
-- nothing was sent by any of these
:read_journal
SELECT :'journal'::jsonb -> 'requests' AS requests;

--
-- ANALYZE
--
SELECT * FROM explain_masked('SELECT number FROM items', 'ANALYZE, VERBOSE, TIMING OFF');
SELECT * FROM explain_masked('SELECT count(*) FROM items WHERE number < 0', 'ANALYZE');
SELECT * FROM explain_masked('SELECT odd FROM lines', 'ANALYZE, FORMAT YAML, TIMING OFF');
-- a server that answers 503 at first
\! curl -q -sS --noproxy "*" -o /dev/null -d '{"action": "status", "status": 503, "count": 1}' "$CONVEX_EMULATOR/_emulator/faults"
SELECT * FROM explain_masked('SELECT odd FROM lines', 'ANALYZE, TIMING OFF');
-- numbers are numbers
CREATE FUNCTION explain_json(query text) RETURNS jsonb LANGUAGE plpgsql AS
$$
DECLARE
	plan json;
BEGIN
	EXECUTE 'EXPLAIN (ANALYZE, VERBOSE, FORMAT JSON) ' || query INTO plan;
	RETURN plan::jsonb -> 0 -> 'Plan';
END
$$;
SELECT key, jsonb_typeof(value) FROM jsonb_each(explain_json('SELECT number FROM items'))
WHERE key ~ 'Convex|Pages|Documents|Bytes Received|Requests|Retries|Wait' ORDER BY key COLLATE "C";
SELECT plan -> 'Convex Table' AS "table", plan -> 'Convex Component' AS component, plan -> 'Convex Fields' AS fields,
	plan -> 'Pages' AS pages, plan -> 'Documents' AS documents, plan -> 'Requests' AS requests, plan -> 'Retries' AS retries,
	(plan -> 'Bytes Received')::int BETWEEN 3000 * 100 AND 3000 * 300 AS bytes
FROM explain_json('SELECT number FROM items') AS plan;
-- a server that takes 100 ms to answer
\! curl -q -sS --noproxy "*" -o /dev/null -d '{"action": "delay", "ms": 100, "count": 1}' "$CONVEX_EMULATOR/_emulator/faults"
SELECT (explain_json('SELECT odd FROM lines') -> 'Wait Time')::float8 BETWEEN 50 AND 5000 AS waited;
-- fewer columns are fewer bytes
SELECT (explain_json('SELECT number FROM items') -> 'Bytes Received')::int * 1.5 < (explain_json('SELECT * FROM items') -> 'Bytes Received')::int AS saved;
-- the snapshot shown is the one in use
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT (explain_json('SELECT number FROM items') -> 'Convex Snapshot')::bigint = convex_snapshot('explain_east') AS same_snapshot;
COMMIT;
-- a scan that is never asked for a row sends nothing
CREATE TABLE nobody (number int8);
:clear_journal
SET enable_hashjoin = off;
SET enable_mergejoin = off;
SET enable_material = off;
SELECT * FROM explain_masked('SELECT * FROM nobody LEFT JOIN lines ON odd = number', 'ANALYZE, TIMING OFF');
RESET enable_hashjoin;
RESET enable_mergejoin;
RESET enable_material;
:read_journal
SELECT :'journal'::jsonb -> 'requests' AS requests;
DROP TABLE nobody;

--
-- LIMIT stops fetching: a page has 1024 documents
--
:clear_journal
SELECT * FROM explain_masked('SELECT number FROM items LIMIT 5', 'ANALYZE, TIMING OFF');
:read_journal
SELECT jsonb_array_length(:'journal'::jsonb -> 'requests') AS requests;
SELECT * FROM explain_masked('SELECT number FROM items LIMIT 1100', 'ANALYZE, TIMING OFF');
SELECT * FROM explain_masked('SELECT number FROM items LIMIT 0', 'ANALYZE, TIMING OFF');

--
-- Append: scans of servers that allow it are asynchronous
--
CREATE SERVER explain_west FOREIGN DATA WRAPPER convex_fdw OPTIONS (deployment_url :'emulator');
CREATE USER MAPPING FOR CURRENT_USER SERVER explain_west OPTIONS (deploy_key 'prod:happy-otter-123|0123456789abcdef');
CREATE TABLE everywhere (region text, number int8) PARTITION BY LIST (region);
CREATE FOREIGN TABLE east PARTITION OF everywhere FOR VALUES IN ('east') SERVER explain_east OPTIONS (table_name 'bench');
ALTER FOREIGN TABLE east ALTER number OPTIONS (ADD column_name 'count');
CREATE FOREIGN TABLE west PARTITION OF everywhere FOR VALUES IN ('west') SERVER explain_west OPTIONS (table_name 'bench');
ALTER FOREIGN TABLE west ALTER number OPTIONS (ADD column_name 'count');
EXPLAIN (VERBOSE, COSTS OFF) SELECT count(number) FROM everywhere;
SELECT * FROM explain_masked('SELECT number FROM everywhere', 'ANALYZE, TIMING OFF');
SELECT count(*), count(DISTINCT number), min(number), max(number) FROM everywhere;
ALTER FOREIGN TABLE west OPTIONS (ADD async_capable 'false');
EXPLAIN (COSTS OFF) SELECT count(number) FROM everywhere;
ALTER SERVER explain_east OPTIONS (ADD async_capable 'false');
EXPLAIN (COSTS OFF) SELECT count(number) FROM everywhere;
ALTER FOREIGN TABLE west OPTIONS (SET async_capable 'true');
EXPLAIN (COSTS OFF) SELECT count(number) FROM everywhere;
SET enable_async_append = off;
EXPLAIN (COSTS OFF) SELECT count(number) FROM everywhere;
RESET enable_async_append;

--
-- Estimates: a table that was never analyzed is not empty; costs are options
--
CREATE FUNCTION estimate(query text) RETURNS jsonb LANGUAGE plpgsql AS
$$
DECLARE
	plan json;
BEGIN
	EXECUTE 'EXPLAIN (FORMAT JSON) ' || query INTO plan;
	RETURN plan::jsonb -> 0 -> 'Plan';
END
$$;
SELECT (estimate('SELECT * FROM items') -> 'Plan Rows')::int > 1 AS not_empty;
ANALYZE items;
SELECT estimate('SELECT * FROM items') -> 'Plan Rows' AS rows;
ALTER FOREIGN TABLE items OPTIONS (ADD fdw_startup_cost '12345', ADD fdw_tuple_cost '1000');
SELECT estimate('SELECT * FROM items') -> 'Startup Cost' AS startup, (estimate('SELECT * FROM items') -> 'Total Cost')::float8 > 3000 * 1000 AS total;

DROP TABLE everywhere;
DROP SERVER explain_east CASCADE;
DROP SERVER explain_west CASCADE;
DROP FUNCTION explain_masked, explain_json, estimate;
DROP EXTENSION convex_fdw;
