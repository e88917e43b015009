-- SET convex_fdw.snapshot = 'nonsense' succeeded, and only the next scan failed. SET refuses it, once the library is there; a value
-- that was set before it was loaded is not lost (the session would read the head) but refused by the scan.

\ir ../pgtap/lib/setup.sql

SELECT emu.server() \g /dev/null
SELECT * FROM emu.insert('t', '{"n": 1}') \g /dev/null
CREATE FOREIGN TABLE t (n float8) SERVER convex;
CREATE TABLE plain AS SELECT generate_series(1, 10000) AS n;

-- The library is not in a new session yet, unless it is preloaded.
\c
SELECT plan(12);
SELECT current_setting('shared_preload_libraries') ~ 'convex_fdw' AS is_preloaded \gset
\if :is_preloaded
SELECT skip('the library is preloaded', 3);
\else
SET convex_fdw.snapshot = 'nonsense';
SELECT is(emu.failure('SELECT * FROM t') ->> 'sqlstate', '22023', 'a bad value from before the load is refused by a scan');
SELECT is(current_setting('convex_fdw.snapshot'), 'nonsense', 'and stays');
SET max_parallel_workers_per_gather = 1;
SET parallel_setup_cost = 0;
SET parallel_tuple_cost = 0;
SET min_parallel_table_scan_size = 0;
ALTER TABLE plain SET (parallel_workers = 1);
SELECT is((SELECT sum(n) FROM plain), 50005000::bigint, 'parallel workers do not mind it');
\endif
SET convex_fdw.snapshot = '';
SELECT is((SELECT sum(n) FROM t), 1::float8, 'an empty one reads at the head');

SELECT is(emu.failure(format('SET convex_fdw.snapshot = %L', value)) ->> 'sqlstate', '22023', format('SET refuses %L', value))
FROM unnest('{nonsense,0,-1,1e18,9223372036854775808}'::text[]) AS value;
SELECT matches(emu.failure('SET convex_fdw.snapshot = ''x''') ->> 'hint', 'nanoseconds', 'with the hint');
SELECT is(current_setting('convex_fdw.snapshot'), '', 'and keeps the old value');
SELECT lives_ok(format('SET convex_fdw.snapshot = %L', emu.state() ->> 'head'), 'a timestamp is taken');
SELECT * FROM finish();
