-- While a large table was loaded again the merge took temporary files of the
-- table's size, and where temp_file_limit forbade that, the whole subscription
-- failed. Right: a merge takes next to none, and a limit that one table's load
-- goes beyond is that table's failure alone.

\ir ../pgtap/lib/setup.sql
SELECT plan(9);
SELECT emu.server() \g /dev/null
SELECT emu.insert('big', VARIADIC ARRAY(SELECT jsonb_build_object('n', i, 'text', repeat('x', 50)) FROM generate_series(1, 25000) AS i)) \g /dev/null
SELECT emu.insert('small', '{"n": 1}') \g /dev/null
SELECT convex_create_subscription('app', 'convex') \g /dev/null
CREATE FUNCTION states() RETURNS text LANGUAGE sql AS
$$ SELECT string_agg(table_name || ' ' || state || coalesce(' ' || error_code, ''), ', ' ORDER BY table_name) FROM convex_stat_subscription_rel $$;

SET temp_file_limit = '64kB';
SET maintenance_work_mem = '1MB';
SET max_parallel_maintenance_workers = 0;
CALL convex_sync('app');
SELECT is(states(), 'big error 53400, small ready', 'an index that needs too much is its table''s failure');
SELECT is((SELECT phase FROM convex_stat_subscription), 'following', 'and the others are followed');
SELECT emu.insert('small', '{"n": 2}') \g /dev/null
CALL convex_sync('app');
SELECT is((SELECT count(*) FROM app.small), 2::bigint, 'as ever');
RESET maintenance_work_mem;
SELECT convex_enable_subscription('app') \g /dev/null
CALL convex_sync('app');
SELECT is(states(), 'big ready, small ready', 'with room the table joins');
SELECT is((SELECT count(*) FROM app.big), 25000::bigint, 'whole');

-- Some rows that differ, some that lack, some that are nobody's.
UPDATE app.big SET n = -1 WHERE n::int % 5 = 0;
DELETE FROM app.big WHERE n::int % 7 = 0;
INSERT INTO app.big (_id, n, _ts) SELECT chr(32 + i) || 'none', i, 1 FROM generate_series(16, 90) AS i;
SET work_mem = '1MB';
SET hash_mem_multiplier = 1;
SELECT convex_resync_table('app', 'big') \g /dev/null
CALL convex_sync('app');
RESET temp_file_limit;
SELECT is(states(), 'big ready, small ready', 'a merge takes no room for temporary files');
SELECT bag_eq($$ SELECT _id, n FROM app.big $$, $$ SELECT d ->> '_id', (d ->> 'n')::float8 FROM emu.dump('big') AS d $$,
	'and leaves what Convex has');
SELECT is((SELECT count(*) FROM convex_stat_subscription_event WHERE kind IN ('table_error', 'error')), 1::bigint, 'nothing else has failed');
SELECT is((SELECT count(*) FROM pg_class WHERE relnamespace = 'convex_staging'::regnamespace), 0::bigint, 'and no staging table is left');
SELECT * FROM finish();
