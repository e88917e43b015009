-- With deletes 'ignore' a check read every row behind the page that it compared,
-- 157 MB for 400,000 of them, since rows stay whose documents are gone. It
-- looks at the page's documents only. And a page of ids without any, which
-- says that there are more, was taken for a check that has passed.

\ir ../pgtap/lib/setup.sql
SELECT plan(5);

SELECT emu.server('convex') \g /dev/null
SELECT emu.config('{"page_limit": 10}') \g /dev/null
SELECT emu.insert('a', VARIADIC ARRAY(SELECT jsonb_build_object('x', n) FROM generate_series(1, 25) AS n)) \g /dev/null
SELECT convex_create_subscription('keep', 'convex', '{a}', options => '{"deletes": "ignore"}') \g /dev/null
CALL convex_sync('keep');

-- Rows of documents that are gone, on either side of those that are there.
INSERT INTO keep.a (_id, x, _ts) SELECT side || n, 0, 1 FROM unnest('{0,zz}'::text[]) AS side, generate_series(1, CASE side WHEN '0' THEN 1000 ELSE 300000 END) AS n;
CREATE FUNCTION peak_kb() RETURNS int LANGUAGE sql AS
$$ SELECT substring(pg_read_file('/proc/self/status') FROM 'VmHWM:\s+(\d+)')::int $$;
SELECT peak_kb() AS before \gset
SELECT convex_refresh_subscription('keep') \g /dev/null
CALL convex_sync('keep');
SELECT convex_refresh_subscription('keep') \g /dev/null
CALL convex_sync('keep');
SELECT convex_refresh_subscription('keep') \g /dev/null
CALL convex_sync('keep');
SELECT cmp_ok(peak_kb() - :before, '<', 12000, 'a check takes little memory however many rows are kept');
SELECT is((SELECT state || ' ' || (checked_at IS NOT NULL) FROM convex_stat_subscription_rel), 'ready true', 'and passes');

-- A row that is missing, and one of another revision.
DELETE FROM keep.a WHERE x = 3;
SELECT convex_refresh_subscription('keep') \g /dev/null
CALL convex_sync('keep');
SELECT convex_refresh_subscription('keep') \g /dev/null
CALL convex_sync('keep');
SELECT convex_refresh_subscription('keep') \g /dev/null
CALL convex_sync('keep');
SELECT is((SELECT count(*) FROM keep.a WHERE x = 3), 1::bigint, 'a row that is missing is found');
SELECT is((SELECT count(*) FROM keep.a), 301025::bigint, 'the others stay');

-- A page without ids, of a server that hides the first document for once.
SELECT emu.config('{"page_limit": 1}') \g /dev/null
SELECT emu.insert('b', '{"x": 1}', '{"x": 2}') \g /dev/null
SELECT convex_create_subscription('app', 'convex', '{b}') \g /dev/null
CALL convex_sync('app');
DELETE FROM app.b;
SELECT emu.fault('{"action": "edit", "path": "/api/list_snapshot", "count": 1, "find": "\"values\":[{", "replace": "\"values\":[],\"was\":[{"}') \g /dev/null
SELECT convex_refresh_subscription('app') \g /dev/null
CALL convex_sync('app');
SELECT is((SELECT count(*) FROM app.b), 2::bigint, 'a page without ids that has more behind it is no check');

SELECT * FROM finish();
