-- DROP EXTENSION in the middle of a load left the schema convex_staging with
-- tables that nobody knew any more.

\ir ../pgtap/lib/setup.sql
SELECT plan(9);

SELECT emu.server('convex') \g /dev/null
SELECT emu.config('{"page_limit": 10}') \g /dev/null
SELECT emu.insert('a', jsonb_build_object('x', i)) FROM generate_series(1, 30) AS i \g /dev/null
CREATE FUNCTION begin_load() RETURNS void LANGUAGE sql AS
$$ SELECT convex_resync_table('app', 'a') $$;
SELECT convex_create_subscription('app', 'convex', '{a}') \g /dev/null
CALL convex_sync('app');
SELECT begin_load() \g /dev/null
CALL convex_sync('app', 2);
SELECT is((SELECT count(*) FROM pg_class WHERE relnamespace = 'convex_staging'::regnamespace AND relkind = 'r'), 1::bigint, 'a load is under way');

-- It may go without the extension.
SELECT lives_ok('DROP SCHEMA convex_staging CASCADE', 'the schema can be dropped');
CALL convex_sync('app');
SELECT is((SELECT count(*) FROM app.a), 30::bigint, 'after which the load begins again');
SELECT begin_load() \g /dev/null
CALL convex_sync('app', 2);

-- And goes with it, unless something else is in it.
CREATE TABLE convex_staging.mine (a int);
SELECT throws_ok('DROP EXTENSION convex_fdw', '2BP01', NULL, 'a table of the user''s own is not dropped');
DROP TABLE convex_staging.mine;
DROP SERVER convex CASCADE;
SELECT lives_ok('DROP EXTENSION convex_fdw', 'but staging tables are');
SELECT is(to_regnamespace('convex_staging'), NULL, 'with their schema');
SELECT is((SELECT count(*) FROM app.a), 30::bigint, 'mirrors stay');

-- A schema that was there before stays.
CREATE SCHEMA convex_staging;
CREATE EXTENSION convex_fdw;
SELECT emu.server('convex') \g /dev/null
SELECT convex_create_subscription('other', 'convex', '{a}') \g /dev/null
CALL convex_sync('other', 2);
DROP SERVER convex CASCADE;
SELECT lives_ok('DROP EXTENSION convex_fdw CASCADE', 'a schema that was there before');
SELECT isnt(to_regnamespace('convex_staging'), NULL, 'stays');

SELECT * FROM finish();
