-- Names that hold "@." were rewritten where the library names its own schema so in its statements: a mirror of schema 'we@.b' went
-- into a schema 'wepublic.b' and failed, and a field "mail@.home" came into a column of another name. A name is taken as it is.

\ir ../pgtap/lib/setup.sql

SELECT plan(6);

SELECT emu.server() \g /dev/null
SELECT * FROM emu.insert('people', '{"mail@.home": "a", "\"@.": "b", "it''s@.": "c"}') \g /dev/null
CREATE ROLE "ow@.ner";
SELECT format('GRANT CREATE ON DATABASE %I TO "ow@.ner"', current_database()) \gexec
GRANT USAGE ON FOREIGN SERVER convex TO "ow@.ner";
SELECT format('CREATE USER MAPPING FOR "ow@.ner" SERVER convex OPTIONS (deploy_key %L)', emu.key()) \gexec
SELECT format('GRANT EXECUTE ON FUNCTION %s TO "ow@.ner"', oid::regprocedure) FROM pg_proc WHERE proname IN ('convex_create_subscription', 'convex_resync_table') \gexec
GRANT EXECUTE ON PROCEDURE convex_sync TO "ow@.ner";
SET ROLE "ow@.ner";
SELECT lives_ok($$SELECT convex_create_subscription('m@.irror', 'convex', '{people}', target_schema => 'we@.b')$$, 'a schema''s name may hold @.');
CALL convex_sync('m@.irror');
SELECT is((SELECT array_agg(attname ORDER BY attname) FROM pg_attribute WHERE attrelid = '"we@.b".people'::regclass AND attnum > 0 AND attname LIKE '%@.%'),
	'{"\"@.",it''s@.,mail@.home}'::name[], 'and so may a field''s');
SELECT results_eq($$SELECT "mail@.home", """@.", "it's@." FROM "we@.b".people$$, $$VALUES ('a', 'b', 'c')$$, 'whose values are there');
RESET ROLE;
SELECT is((SELECT tableowner FROM pg_tables WHERE schemaname = 'we@.b'), 'ow@.ner', 'and the owner''s');
SELECT * FROM emu.insert('people', '{"new@.": 1}') \g /dev/null
SET ROLE "ow@.ner";
SELECT convex_resync_table('m@.irror', 'people') \g /dev/null
CALL convex_sync('m@.irror');
SELECT is((SELECT "new@." FROM "we@.b".people WHERE "new@." IS NOT NULL), 1::float8, 'a later field comes, and a reload with it');
RESET ROLE;
ALTER TABLE "we@.b".people RENAME TO "@.";
SELECT * FROM emu.insert('people', '{"new@.": 2}') \g /dev/null
SET ROLE "ow@.ner";
CALL convex_sync('m@.irror');
SELECT is((SELECT max("new@.") FROM "we@.b"."@."), 2::float8, 'a target renamed to such a name is followed');
RESET ROLE;
SELECT * FROM finish();
DROP OWNED BY "ow@.ner";
DROP ROLE "ow@.ner";
