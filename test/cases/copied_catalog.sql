-- A subscription that arrived by logical replication of the catalog, or by pg_restore --data-only --disable-triggers, stayed
-- enabled with the other cluster's OIDs, and documents of one table went into the mirror of another. OIDs count where they are of.

\ir ../pgtap/lib/setup.sql

SELECT plan(19);
SELECT emu.server() \g /dev/null
SELECT emu.insert(t, jsonb_build_object('x', t)) FROM unnest('{a,b}'::text[]) AS t \g /dev/null
SELECT convex_create_subscription('s', 'convex', '{a,b}') \g /dev/null
CALL convex_sync('s');
CREATE FUNCTION rows() RETURNS text LANGUAGE sql AS
$$ SELECT (SELECT string_agg(x, ',' ORDER BY x) FROM s.a) || ' ' || (SELECT string_agg(x, ',' ORDER BY x) FROM s.b) $$;
CREATE FUNCTION add(x text) RETURNS void LANGUAGE sql AS
$$ SELECT emu.insert(t, jsonb_build_object('x', t || $1)) FROM unnest('{a,b}'::text[]) AS t $$;

-- What another cluster's rows would be: its tables have each other's OIDs, its role and server those of others here.
CREATE ROLE other;
CREATE SERVER forged FOREIGN DATA WRAPPER convex_fdw OPTIONS (deployment_url 'http://127.0.0.1:1');
CREATE TABLE subscription AS SELECT * FROM convex_subscription;
CREATE TABLE rel AS SELECT * FROM convex_subscription_rel;
UPDATE subscription SET home = '1/1', owner_oid = 'other'::regrole, server_oid = (SELECT oid FROM pg_foreign_server WHERE srvname = 'forged');
UPDATE rel SET target_oid = (CASE table_name WHEN 'a' THEN 's.b' ELSE 's.a' END)::regclass;

-- Triggers are off, as pg_restore --disable-triggers has it.
ALTER TABLE convex_subscription DISABLE TRIGGER ALL;
ALTER TABLE convex_subscription_rel DISABLE TRIGGER ALL;
DELETE FROM convex_subscription;
DELETE FROM convex_subscription_rel;
INSERT INTO convex_subscription SELECT * FROM subscription;
INSERT INTO convex_subscription_rel SELECT * FROM rel;
ALTER TABLE convex_subscription ENABLE TRIGGER ALL;
ALTER TABLE convex_subscription_rel ENABLE TRIGGER ALL;
SELECT add('1') \g /dev/null
SELECT is((SELECT enabled FROM convex_stat_subscription), false, 'a subscription of another cluster is disabled');
SELECT is((SELECT concat_ws(' ', owner, server) FROM convex_stat_subscription), 'postgres convex', 'role and server are those of its names');
\set ON_ERROR_STOP 0
CALL convex_sync('s');
SELECT :'SQLSTATE' AS state \gset
\set ON_ERROR_STOP 1
SELECT is(:'state'::text, '55000', 'it is not followed');
CALL convex_sync();
SELECT is(rows(), 'a b', 'nothing moves');
SELECT convex_enable_subscription('s') \g /dev/null
SELECT is((SELECT concat_ws(' ', enabled, owner, server) FROM convex_stat_subscription), 't postgres convex', 'enabled, it is this cluster''s');
CALL convex_sync('s');
SELECT is(rows(), 'a,a1 b,b1', 'and each document goes into the mirror of its table');
SELECT is((SELECT bool_and(target_oid = format('s.%I', table_name)::regclass) FROM convex_subscription_rel), true, 'which is bound by its own OID');

-- An apply worker of logical replication, which is in the replica role.
ALTER TABLE convex_subscription ENABLE ALWAYS TRIGGER restored;
ALTER TABLE convex_subscription_rel ENABLE ALWAYS TRIGGER restored;
SET session_replication_role = replica;
UPDATE convex_subscription SET owner_oid = 'other'::regrole, home = '1/1', enabled = false, server_oid = 1;
UPDATE convex_subscription_rel SET target_oid = (CASE table_name WHEN 'a' THEN 's.b' ELSE 's.a' END)::regclass;
RESET session_replication_role;
SELECT add('2') \g /dev/null
CALL convex_sync('s');
SELECT is(rows(), 'a,a1,a2 b,b1,b2', 'changes that are replicated do not move targets');
SELECT is((SELECT enabled FROM convex_stat_subscription), true, 'nor decide whether it is enabled');
SET session_replication_role = replica;
DELETE FROM convex_subscription;
DELETE FROM convex_subscription_rel;
INSERT INTO convex_subscription SELECT * FROM subscription;
INSERT INTO convex_subscription_rel SELECT * FROM rel;
RESET session_replication_role;
SELECT results_eq('SELECT enabled, owner_oid, server_oid, home FROM convex_subscription', $$ VALUES (false, 0::oid, 0::oid, NULL::text) $$, 'one that is replicated comes disabled and without OIDs');
SELECT is((SELECT array_agg(DISTINCT target_oid) FROM convex_subscription_rel), '{0}', 'and so do its tables');
CALL convex_sync();
SELECT is(rows(), 'a,a1,a2 b,b1,b2', 'it is not followed');
SELECT is((SELECT array_agg(tgenabled ORDER BY tgrelid) FROM pg_trigger WHERE tgname = 'restored'), '{A,A}', 'because the trigger fires always');
SELECT convex_enable_subscription('s') \g /dev/null
SELECT add('3') \g /dev/null
CALL convex_sync('s');
SELECT is(rows(), 'a,a1,a2,a3 b,b1,b2,b3', 'until it is enabled');

-- By hand, a superuser may do as it likes.
UPDATE convex_subscription SET enabled = false;
SELECT is((SELECT enabled FROM convex_stat_subscription), false, 'an update by hand is one');
SELECT convex_enable_subscription('s') \g /dev/null

-- Neither names count where there is nothing of the name.
UPDATE convex_subscription SET home = NULL, owner = 'nobody';
SELECT is(emu.failure($$ SELECT convex_enable_subscription('s') $$) ->> 'sqlstate', '42704', 'a restored one of a role that is not here cannot be enabled');
SELECT convex_alter_subscription('s', owner => 'postgres') \g /dev/null
UPDATE convex_subscription SET server = 'nowhere';
SELECT is(emu.failure($$ SELECT convex_enable_subscription('s') $$) ->> 'sqlstate', '42704', 'nor without its server');
SELECT convex_alter_subscription('s', server => 'convex') \g /dev/null
SELECT convex_enable_subscription('s') \g /dev/null
SELECT add('4') \g /dev/null
CALL convex_sync('s');
SELECT is(rows(), 'a,a1,a2,a3,a4 b,b1,b2,b3,b4', 'but with others that are chosen');
SELECT is((SELECT home FROM convex_subscription), (SELECT system_identifier || '/' || 'convex_subscription'::regclass::oid FROM pg_control_system()), 'home is the cluster and the catalog');
DROP ROLE other;
SELECT * FROM finish();
