-- A role with CREATE on the target schema made the table of the name that a superuser's mirror was to have: it was adopted, and
-- that role read the documents. A table of a less trusted role becomes a target only when the subscription names it.

\ir ../pgtap/lib/setup.sql

SELECT plan(17);
SELECT emu.server() \g /dev/null
CREATE ROLE mallory;
CREATE SCHEMA shared;
GRANT USAGE, CREATE ON SCHEMA shared TO mallory;
SELECT emu.insert(t, '{"x": "secret"}') FROM unnest('{a,b,c}'::text[]) AS t \g /dev/null
CREATE FUNCTION table_of(name text, owner text DEFAULT 'mallory') RETURNS void LANGUAGE plpgsql AS
$$
BEGIN
	EXECUTE format('CREATE TABLE shared.%I (_id text COLLATE "C" PRIMARY KEY, x text, _ts bigint, _extra jsonb)', name);
	EXECUTE format('ALTER TABLE shared.%I OWNER TO %I', name, owner);
END
$$;
CREATE FUNCTION state(name text) RETURNS text LANGUAGE sql AS
$$ SELECT concat_ws(' ', state, error_code) FROM convex_stat_subscription_rel WHERE table_name = $1 $$;

SELECT table_of('a') \g /dev/null
SELECT is(emu.failure($$ SELECT convex_create_subscription('s', 'convex', '{a}', 'shared') $$) ->> 'sqlstate', '42501', 'a superuser does not adopt a table of another role');
SELECT is(emu.failure($$ SELECT convex_create_subscription('s', 'convex', '{*}', 'shared') $$) ->> 'hint',
	'If it is to be the target, name it in option "adopt" of the subscription: {"adopt": ["a"]}.', 'and is told how to');
SELECT is((SELECT count(*) FROM convex_subscription), 0::bigint, 'nothing is left of it');
SELECT is(emu.failure($$ SELECT convex_create_subscription('s', 'convex', '{a}', 'shared', options => '{"adopt": "a"}') $$) ->> 'sqlstate', '22023', 'the option is an array');
SELECT is(emu.failure($$ SELECT convex_create_subscription('s', 'convex', '{a}', 'shared', options => '{"adopt": ["b"]}') $$) ->> 'sqlstate', '42501', 'and counts for the tables that it names');
SELECT convex_create_subscription('s', 'convex', '{a,b}', 'shared', options => '{"adopt": ["a"]}') \g /dev/null

-- One that comes between the creation and the load.
SELECT table_of('b') \g /dev/null
CALL convex_sync('s');
SELECT is(state('a'), 'ready', 'a table that is named is adopted');
SELECT is(state('b'), 'error 42501', 'one that appears before the load is not');
SELECT is((SELECT count(*) FROM shared.b), 0::bigint, 'and stays empty');

-- One that comes before a table that Convex has later.
SELECT convex_alter_subscription('s', '{a,b,c}') \g /dev/null
SELECT table_of('c') \g /dev/null
CALL convex_sync('s');
SELECT is(state('c'), 'error 42501', 'nor one that is there before its documents are');
SELECT is((SELECT count(*) FROM shared.c), 0::bigint, 'it stays empty, too');
DROP TABLE shared.b;
SELECT convex_alter_subscription('s', options => '{"adopt": ["a", "c"]}') \g /dev/null
SELECT convex_enable_subscription('s') \g /dev/null
CALL convex_sync('s');
SELECT is(state('b') || ', ' || state('c'), 'ready, ready', 'until it is gone, or named');

-- A target that is given away stays one.
ALTER TABLE shared.b OWNER TO mallory;
SELECT emu.insert('b', '{"x": "public"}') \g /dev/null
CALL convex_sync('s');
SELECT is((SELECT array_agg(x ORDER BY x) FROM shared.b), '{public,secret}', 'a target that is given to another role stays one');
SELECT convex_drop_subscription('s', true) \g /dev/null

-- Roles that one was made a member of.
CREATE ROLE writers;
CREATE ROLE alice IN ROLE writers;
GRANT USAGE, CREATE ON SCHEMA shared TO writers;
GRANT USAGE ON FOREIGN SERVER convex TO alice;
SELECT format('CREATE USER MAPPING FOR alice SERVER convex OPTIONS (deploy_key %L)', emu.key()) \gexec
GRANT EXECUTE ON FUNCTION convex_create_subscription TO alice;
SELECT table_of('a', 'writers'), table_of('b') \g /dev/null
SET ROLE alice;
SELECT convex_create_subscription('t', 'convex', '{a}', 'shared') \g /dev/null
RESET ROLE;
CALL convex_sync('t');
SELECT is((SELECT x FROM shared.a), 'secret', 'a table of a role that one is a member of is adopted');
SELECT is(emu.failure($$ SET ROLE alice; SELECT convex_create_subscription('u', 'convex', '{b}', 'shared') $$) ->> 'sqlstate', '42501', 'one of another is not');
RESET ROLE;
SELECT is(emu.failure($$ SET ROLE alice; SELECT convex_create_subscription('u', 'convex', '{b}', 'shared', options => '{"adopt": ["b"]}') $$) ->> 'sqlstate', '42501', 'nor when it is named: its owner''s rights are not there');
RESET ROLE;
GRANT writers TO postgres;
DROP TABLE shared.b;
SELECT table_of('b', 'writers') \g /dev/null
SELECT is(emu.failure($$ SELECT convex_create_subscription('u', 'convex', '{b}', 'shared') $$) ->> 'sqlstate', '42501', 'a superuser is no member in this sense');
SELECT is(emu.failure($$ SELECT convex_create_subscription('u', 'convex', '{b}', 'shared', options => '{"adopt": ["b"]}') $$) ->> 'sqlstate', NULL, 'unless it names the table');
SELECT convex_drop_subscription('t'), convex_drop_subscription('u') \g /dev/null
DROP OWNED BY alice, mallory, writers CASCADE;
DROP ROLE alice, mallory, writers;
SELECT * FROM finish();
