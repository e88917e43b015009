-- A target's own code set search_path for the session, and after a superuser's CALL convex_sync() the superuser's next now()
-- was the target owner's. The code runs while its owner is acted for, so nothing that it sets may outlive that.

\ir ../pgtap/lib/setup.sql

SELECT plan(27);
SELECT emu.server() \g /dev/null
CREATE ROLE mallory;
CREATE SCHEMA mallory AUTHORIZATION mallory;
CREATE TABLE who_ran (role name);
GRANT INSERT ON who_ran TO PUBLIC;
SET ROLE mallory;
CREATE FUNCTION mallory.note() RETURNS timestamptz LANGUAGE sql AS
$$ INSERT INTO public.who_ran VALUES (current_user); SELECT pg_catalog.now() $$;
CREATE FUNCTION mallory.now() RETURNS timestamptz LANGUAGE sql AS 'SELECT mallory.note()';
CREATE FUNCTION mallory.noted(pg_catalog.text) RETURNS boolean LANGUAGE sql AS 'SELECT mallory.note() IS NOT NULL';

-- What the code tries, each for the session and for the transaction. It is volatile inside whatever it says of itself.
CREATE FUNCTION mallory.set_all() RETURNS void LANGUAGE plpgsql AS
$$
DECLARE
	setting text[];
BEGIN
	FOREACH setting SLICE 1 IN ARRAY ARRAY[['search_path', 'mallory, pg_catalog, public'], ['default_transaction_read_only', 'on'],
		['default_transaction_isolation', 'serializable'], ['statement_timeout', '1'], ['lock_timeout', '1'],
		['work_mem', '64'], ['TimeZone', 'Asia/Kolkata'], ['DateStyle', 'SQL, DMY'], ['client_min_messages', 'error'],
		['application_name', 'mallory'], ['mallory.own', 'hers']]
	LOOP
		PERFORM set_config(setting[1], setting[2], pg_catalog.left(setting[1], 1) = 'l');
	END LOOP;
END
$$;
CREATE FUNCTION mallory.in_trigger() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM mallory.set_all(); RETURN NULL; END';
CREATE FUNCTION mallory.in_domain(text) RETURNS boolean LANGUAGE plpgsql AS 'BEGIN PERFORM mallory.set_all(); RETURN true; END';
CREATE FUNCTION mallory.in_index(text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS 'BEGIN PERFORM mallory.set_all(); RETURN $1; END';
CREATE FUNCTION mallory.in_policy() RETURNS boolean LANGUAGE plpgsql AS 'BEGIN PERFORM mallory.set_all(); RETURN true; END';
CREATE DOMAIN mallory.checked AS text CHECK (mallory.in_domain(VALUE));
CREATE TABLE mallory.triggers (_id text COLLATE "C" PRIMARY KEY, x text, _ts bigint, _extra jsonb);
CREATE TRIGGER t AFTER INSERT OR UPDATE OR DELETE ON mallory.triggers FOR EACH ROW EXECUTE FUNCTION mallory.in_trigger();
CREATE TABLE mallory.domains (_id text COLLATE "C" PRIMARY KEY, x mallory.checked, _ts bigint, _extra jsonb);
CREATE TABLE mallory.indexes (_id text COLLATE "C" PRIMARY KEY, x text, _ts bigint, _extra jsonb);
CREATE INDEX ON mallory.indexes (mallory.in_index(x));
CREATE TABLE mallory.checks (_id text COLLATE "C" PRIMARY KEY, x text CHECK (mallory.in_domain(x)), _ts bigint, _extra jsonb);
CREATE TABLE mallory.policies (_id text COLLATE "C" PRIMARY KEY, x text, _ts bigint, _extra jsonb);
ALTER TABLE mallory.policies ENABLE ROW LEVEL SECURITY;
ALTER TABLE mallory.policies FORCE ROW LEVEL SECURITY;
CREATE POLICY p ON mallory.policies USING (mallory.in_policy());
CREATE TABLE mallory.defaults (_id text COLLATE "C" PRIMARY KEY, own boolean DEFAULT mallory.in_policy(), x text, _ts bigint, _extra jsonb);
RESET ROLE;
SELECT emu.insert(t, '{"x": "1"}') FROM unnest('{triggers,domains,indexes,checks,policies,defaults}'::text[]) AS t \g /dev/null

-- What the session has set, and what a superuser's next statement calls.
SET application_name = 'superuser';
SET DateStyle = 'German';
SET search_path = public, pg_catalog;
CREATE FUNCTION settings() RETURNS text LANGUAGE sql AS
$$ SELECT pg_catalog.string_agg(name || '=' || setting, ', ' ORDER BY name) FROM pg_catalog.pg_settings WHERE (source = 'session' AND name !~ '^transaction') OR name ~ 'mallory' $$;
SELECT settings() AS before \gset

CREATE TABLE target (name text, place serial);
INSERT INTO target (name) VALUES ('triggers'), ('domains'), ('indexes'), ('checks'), ('policies'), ('defaults');
SELECT convex_create_subscription(name, 'convex', ARRAY[name], 'mallory', options => jsonb_build_object('adopt', ARRAY[name])) FROM target \g /dev/null
SELECT s FROM target, LATERAL (VALUES
	(format('CALL convex_sync(%L)', name)),
	(format('SELECT is(settings(), %L, %L)', :'before', 'nothing is left of loading ' || name)),
	(format('SELECT FROM emu.insert(%L, ''{"x": "2", "fresh": "column"}'')', name)),
	(format('CALL convex_sync(%L)', name)),
	(format('SELECT is(settings(), %L, %L)', :'before', 'nor of changing ' || name)),
	(format('SELECT FROM convex_resync_table(%1$L, %1$L)', name)),
	(format('CALL convex_sync(%L)', name)),
	(format('SELECT is(settings(), %L, %L)', :'before', 'nor of loading them again')),
	(format('SELECT is((SELECT array_agg(ROW (x, fresh)::text ORDER BY x) FROM mallory.%I), ''{"(1,)","(2,column)"}'', ''the rows are there'')', name))
	) AS statement (s) ORDER BY place \gexec
SELECT now() \g /dev/null
SELECT is((SELECT array_agg(DISTINCT role) FROM who_ran), NULL, 'a superuser''s next statement does not run code of a target''s owner');

-- Types of pg_temp stand before those of pg_catalog.
SET ROLE mallory;
CREATE FUNCTION mallory.in_temporary() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN CREATE DOMAIN pg_temp.text AS pg_catalog.text CHECK (mallory.noted(VALUE)); RETURN NULL; END $$;
CREATE TRIGGER temporary AFTER INSERT ON mallory.triggers FOR EACH ROW EXECUTE FUNCTION mallory.in_temporary();
RESET ROLE;
SELECT emu.insert('triggers', '{"x": "3"}') \g /dev/null
CALL convex_sync('triggers');
SELECT 'text'::text \g /dev/null
SELECT is((SELECT concat_ws(' ', state, error_code) FROM convex_stat_subscription_rel WHERE name = 'triggers'), 'error 42501', 'nor makes temporary types that stand before others');
SELECT is((SELECT array_agg(DISTINCT role) FROM who_ran WHERE role <> 'mallory'), NULL, 'nobody else ran the code of a target''s owner');
SELECT convex_drop_subscription(name) FROM target \g /dev/null
DROP OWNED BY mallory;
DROP ROLE mallory;
SELECT * FROM finish();
