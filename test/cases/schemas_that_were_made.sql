-- convex_drop_subscription with drop_tables left the schemas behind that subscriptions had made. What was made for a
-- subscription goes with it; what was there before, or is somebody else's by now, stays.
\ir ../pgtap/lib/setup.sql
SELECT plan(13);

SELECT emu.server('convex') \g /dev/null
SELECT emu.mutate('[{"op": "insert", "table": "users", "doc": {"name": "ada"}}, {"op": "insert", "table": "logs", "doc": {"n": 1}}]') \g /dev/null
CREATE ROLE schema_maker;
CREATE ROLE schema_taker;
GRANT CREATE ON DATABASE :"DBNAME" TO schema_maker;
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA public TO schema_maker;
GRANT USAGE ON FOREIGN SERVER convex TO schema_maker;
DO $$BEGIN EXECUTE format('CREATE USER MAPPING FOR schema_maker SERVER convex OPTIONS (deploy_key %L)',
	(SELECT option_value FROM pg_options_to_table((SELECT umoptions FROM pg_user_mapping LIMIT 1)) WHERE option_name = 'deploy_key')); END$$;

CREATE FUNCTION there(schema name) RETURNS boolean RETURN to_regnamespace(quote_ident(schema)) IS NOT NULL;

SELECT convex_create_subscription('Made Here', 'convex', '{users}') \g /dev/null
CALL convex_sync('Made Here');
SELECT convex_drop_subscription('Made Here', true) \g /dev/null
SELECT ok(NOT there('Made Here'), 'a schema that was made for a subscription goes with its tables');

SELECT convex_create_subscription('kept', 'convex', '{users}') \g /dev/null
CALL convex_sync('kept');
SELECT convex_drop_subscription('kept') \g /dev/null
SELECT ok(there('kept'), 'and stays when the tables do');

CREATE SCHEMA before;
SELECT convex_create_subscription('before', 'convex', '{users}') \g /dev/null
CALL convex_sync('before');
SELECT convex_drop_subscription('before', true) \g /dev/null
SELECT ok(there('before'), 'a schema that was there before stays');

SELECT convex_create_subscription('filled', 'convex', '{users}') \g /dev/null
CREATE FUNCTION filled.mine() RETURNS int LANGUAGE sql AS 'SELECT 1';
SELECT convex_drop_subscription('filled', true) \g /dev/null
SELECT ok(there('filled'), 'one with a function in it stays');

SELECT convex_create_subscription('defaults', 'convex', '{users}') \g /dev/null
ALTER DEFAULT PRIVILEGES IN SCHEMA defaults GRANT SELECT ON TABLES TO schema_taker;
SELECT convex_drop_subscription('defaults', true) \g /dev/null
SELECT ok(there('defaults'), 'so does one that somebody has set privileges for');

SELECT convex_create_subscription('given', 'convex', '{users}') \g /dev/null
ALTER SCHEMA given OWNER TO schema_taker;
SELECT convex_drop_subscription('given', true) \g /dev/null
SELECT ok(there('given'), 'and one that was given to another role');

SELECT convex_create_subscription('renamed', 'convex', '{users}') \g /dev/null
ALTER SCHEMA renamed RENAME TO mine;
SELECT convex_drop_subscription('renamed', true) \g /dev/null
SELECT ok(there('mine'), 'and one that was renamed');

SELECT convex_create_subscription('first', 'convex', '{users}', target_schema => 'shared') \g /dev/null
SELECT convex_create_subscription('second', 'convex', '{logs}', target_schema => 'shared') \g /dev/null
SELECT convex_drop_subscription('first', true) \g /dev/null
SELECT ok(there('shared'), 'a schema that another subscription uses stays');
CALL convex_sync('second');
SELECT is((SELECT count(*) FROM shared.logs), 1::bigint, 'for that one');
SELECT convex_drop_subscription('second', true) \g /dev/null
SELECT ok(NOT there('shared'), 'and goes with the last of them');

BEGIN;
SELECT convex_create_subscription('undone', 'convex', '{users}') \g /dev/null
SAVEPOINT here;
SELECT convex_drop_subscription('undone', true) \g /dev/null
SELECT ok(NOT there('undone'), 'it goes in the transaction that made it');
ROLLBACK TO here;
SELECT ok(there('undone'), 'and comes back with it');
COMMIT;

SET ROLE schema_maker;
SELECT convex_create_subscription('theirs', 'convex', '{users}') \g /dev/null
SELECT convex_drop_subscription('theirs', true) \g /dev/null
RESET ROLE;
SELECT ok(NOT there('theirs'), 'a role that is no superuser drops its own');

DROP SCHEMA given CASCADE;
DROP OWNED BY schema_maker, schema_taker CASCADE;
DROP ROLE schema_maker, schema_taker;

SELECT * FROM finish();
