-- After ALTER SERVER .. RENAME somebody made a server of the old name, and the next sync took its documents; the same with a
-- role. A subscription is bound to its server, owner and targets themselves: who has their old names counts for nothing.

\ir ../pgtap/lib/setup.sql

SELECT plan(30);
SELECT emu.server() \g /dev/null
CREATE ROLE keeper;
GRANT USAGE ON FOREIGN SERVER convex TO keeper;
SELECT format('CREATE USER MAPPING FOR keeper SERVER convex OPTIONS (deploy_key %L)', emu.key()) \gexec
GRANT EXECUTE ON FUNCTION convex_create_subscription, convex_alter_subscription, convex_resync_table TO PUBLIC;
GRANT EXECUTE ON PROCEDURE convex_sync TO PUBLIC;
CREATE SCHEMA s AUTHORIZATION keeper;
SELECT emu.insert('a', '{"x": "1"}') \g /dev/null
SET ROLE keeper;
SELECT convex_create_subscription('s', 'convex', '{a}') \g /dev/null
RESET ROLE;
CALL convex_sync('s');
CREATE FUNCTION told() RETURNS text LANGUAGE sql AS
$$ SELECT concat_ws(' ', owner, server, phase, last_error_code) FROM convex_stat_subscription $$;
CREATE FUNCTION rows(name text) RETURNS text LANGUAGE plpgsql AS
$$ DECLARE r text; BEGIN EXECUTE format('SELECT string_agg(x, '','' ORDER BY x) FROM %s', name) INTO r; RETURN r; END $$;
-- What CALL fails with. It is no statement of a function.
\set ON_ERROR_STOP 0

-- A server.
ALTER SERVER convex RENAME TO prod;
SELECT is(told(), 'keeper prod following', 'a renamed server is told at once');
CREATE SERVER convex FOREIGN DATA WRAPPER convex_fdw OPTIONS (deployment_url 'http://127.0.0.1:1', max_retries '0');
GRANT USAGE ON FOREIGN SERVER convex TO PUBLIC;
CREATE USER MAPPING FOR PUBLIC SERVER convex OPTIONS (deploy_key 'x|y');
SELECT emu.insert('a', '{"x": "2"}') \g /dev/null
CALL convex_sync('s');
SELECT is(rows('s.a'), '1,2', 'a renamed server keeps its subscription, whoever has its old name');
SELECT is((SELECT server FROM convex_subscription), 'prod', 'which notes the new one');

-- A role.
ALTER ROLE keeper RENAME TO holder;
SELECT is(told(), 'holder prod following', 'a renamed role is told at once');
CREATE ROLE keeper;
GRANT keeper TO holder;
SELECT emu.insert('a', '{"x": "3"}') \g /dev/null
CALL convex_sync('s');
SELECT is(rows('s.a'), '1,2,3', 'and keeps its subscription');
SELECT is(emu.failure($$ SET ROLE keeper; SELECT convex_alter_subscription('s', '{a}') $$) ->> 'sqlstate', '42501', 'the role that has its old name may not touch it');
RESET ROLE;
SET ROLE keeper;
SELECT is((SELECT count(*) FROM convex_stat_subscription), 0::bigint, 'nor see it');
RESET ROLE;

-- A target.
GRANT CREATE ON SCHEMA s TO keeper;
ALTER TABLE s.a RENAME TO renamed;
CREATE TABLE s.a (_id text COLLATE "C" PRIMARY KEY, x text, _ts bigint, _extra jsonb);
ALTER TABLE s.a OWNER TO keeper;
SELECT emu.insert('a', '{"x": "4"}') \g /dev/null
CALL convex_sync('s');
SELECT is(rows('s.renamed'), '1,2,3,4', 'a renamed target keeps its rows');
SELECT is(rows('s.a'), NULL, 'a table that has its old name gets none');
REVOKE keeper FROM holder;
ALTER TABLE s.a RENAME TO taken;
DROP TABLE s.renamed;
ALTER TABLE s.taken RENAME TO renamed;
SELECT emu.insert('a', '{"x": "5"}') \g /dev/null
CALL convex_sync('s');
SELECT is((SELECT concat_ws(' ', state, error_code) FROM convex_stat_subscription_rel), 'error 42P01', 'one that is dropped is missed, though another has its name');
SELECT is(rows('s.renamed'), NULL, 'which gets no rows');
SELECT convex_resync_table('s', 'a') \g /dev/null
CALL convex_sync('s');
SELECT is((SELECT concat_ws(' ', state, error_code) FROM convex_stat_subscription_rel), 'error 42501', 'nor does it when the table is to be loaded again');
SELECT is(rows('s.renamed'), NULL, 'because a role that is not trusted has it');
DROP TABLE s.renamed;
SELECT convex_resync_table('s', 'a') \g /dev/null
SELECT emu.wait_until($$ (SELECT coalesce(retry_at, '-infinity') <= clock_timestamp() FROM convex_subscription_rel) $$) \g /dev/null
CALL convex_sync('s');
SELECT is(rows('s.renamed'), '1,2,3,4,5', 'it is made again when the name is free');

-- A server that is dropped.
DROP SERVER prod CASCADE;
CALL convex_sync('s');
SELECT is(:'SQLSTATE'::text, '42704', 'without its server a subscription fails');
SELECT is(told(), 'holder prod failing 42704', 'and the view says so');
CREATE SERVER prod FOREIGN DATA WRAPPER convex_fdw OPTIONS (deployment_url 'http://127.0.0.1:1', max_retries '0');
CALL convex_sync('s');
SELECT is(:'SQLSTATE'::text, '55000', 'another server of its name is not it');
SELECT is((SELECT last_error_message FROM convex_stat_subscription), 'server "prod" is not the one of subscription "s"', 'which is told');
SELECT emu.server('next') \g /dev/null
SELECT is(emu.failure($$ SET ROLE holder; SELECT convex_alter_subscription('s', server => 'next') $$) ->> 'sqlstate', '42501', 'a server that the owner may not use cannot be chosen');
RESET ROLE;
GRANT USAGE ON FOREIGN SERVER next TO holder;
SELECT format('CREATE USER MAPPING FOR holder SERVER next OPTIONS (deploy_key %L)', emu.key()) \gexec
CREATE FOREIGN DATA WRAPPER strange;
CREATE SERVER strange FOREIGN DATA WRAPPER strange;
SELECT is(emu.failure($$ SELECT convex_alter_subscription('s', server => 'strange') $$) ->> 'sqlstate', '42809', 'nor one of another wrapper');
SELECT convex_alter_subscription('s', server => 'next') \g /dev/null
SELECT emu.insert('a', '{"x": "6"}') \g /dev/null
CALL convex_sync('s');
SELECT is(rows('s.renamed'), '1,2,3,4,5,6', 'one that is chosen goes on where it stood');

-- A role that is dropped.
REASSIGN OWNED BY holder TO postgres;
DROP OWNED BY holder;
DROP ROLE holder;
CALL convex_sync('s');
SELECT is(:'SQLSTATE'::text, '42704', 'without its owner a subscription fails');
SELECT is(told(), 'holder next failing 42704', 'and a superuser still sees it');
CREATE ROLE holder;
CALL convex_sync('s');
SELECT is(:'SQLSTATE'::text, '55000', 'another role of the owner''s name is not the owner');
SELECT is(emu.failure($$ SET ROLE holder; SELECT convex_alter_subscription('s', owner => 'holder') $$) ->> 'sqlstate', '42501', 'and cannot make itself the owner');
RESET ROLE;
SET ROLE holder;
SELECT is((SELECT count(*) FROM convex_stat_subscription), 0::bigint, 'nor see the subscription');
RESET ROLE;
SELECT convex_alter_subscription('s', owner => 'postgres') \g /dev/null
SELECT emu.insert('a', '{"x": "7"}') \g /dev/null
CALL convex_sync('s');
SELECT is(rows('s.renamed'), '1,2,3,4,5,6,7', 'a superuser gives it to a role');

-- An owner gives it to a role that it is a member of.
GRANT holder TO keeper;
SELECT convex_alter_subscription('s', owner => 'keeper') \g /dev/null
SELECT is(emu.failure($$ SET ROLE keeper; SELECT convex_alter_subscription('s', owner => 'postgres') $$) ->> 'sqlstate', '42501', 'an owner gives it to no role that it is not a member of');
RESET ROLE;
SELECT is(emu.failure($$ SET ROLE keeper; SELECT convex_alter_subscription('s', owner => 'holder') $$), NULL, 'but to one that it is');
RESET ROLE;
SELECT is(emu.failure($$ SELECT convex_alter_subscription('s', owner => 'nobody') $$) ->> 'sqlstate', '42704', 'which must be there');
SELECT convex_drop_subscription('s') \g /dev/null
DROP OWNED BY keeper, holder CASCADE;
DROP ROLE keeper, holder;
SELECT * FROM finish();
