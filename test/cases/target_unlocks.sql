-- A target's trigger called pg_advisory_unlock_all(): the subscription's lock was gone, and a second process worked beside.
-- Nothing is committed without that lock; the table whose code let it go waits, the others go on.

\ir ../pgtap/lib/setup.sql

SELECT plan(11);
SELECT emu.server() \g /dev/null
SELECT emu.insert(t, '{"x": "1"}') FROM unnest('{a,b}'::text[]) AS t \g /dev/null
SELECT convex_create_subscription('s', 'convex', '{a,b}') \g /dev/null
CALL convex_sync('s');

-- How many processes hold the lock when the code has run.
CREATE TABLE seen (holders bigint);
CREATE FUNCTION holders() RETURNS bigint LANGUAGE sql AS
$$ SELECT count(*) FROM pg_catalog.pg_locks WHERE locktype = 'advisory' AND objsubid = 11 AND granted
	AND database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database()) $$;
CREATE FUNCTION unlock() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN PERFORM pg_catalog.pg_advisory_unlock_all(); RETURN NULL; END $$;
CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN INSERT INTO public.seen VALUES (public.holders()); RETURN NULL; END $$;
CREATE TRIGGER unlock AFTER INSERT ON s.a FOR EACH ROW EXECUTE FUNCTION unlock();
CREATE TRIGGER note AFTER INSERT ON s.b FOR EACH ROW EXECUTE FUNCTION note();
SELECT emu.insert(t, '{"x": "2"}') FROM unnest('{a,b}'::text[]) AS t \g /dev/null
CALL convex_sync('s');
SELECT is((SELECT concat_ws(' ', state, error_code, error_message) FROM convex_stat_subscription_rel WHERE table_name = 'a'),
	'error 55000 the lock of the subscription was released', 'a table whose code lets go of the lock waits');
SELECT is((SELECT array_agg(x ORDER BY x) FROM s.a), '{1}', 'with the rows that it had');
SELECT is((SELECT array_agg(x ORDER BY x) FROM s.b), '{1,2}', 'the other one goes on');
SELECT is((SELECT array_agg(DISTINCT holders) FROM seen), '{1}', 'under the lock');
SELECT is(holders(), 0::bigint, 'which is given back');

-- One that throws as well, and one that does so while its rows are loaded or compared.
CREATE OR REPLACE FUNCTION unlock() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN PERFORM pg_catalog.pg_advisory_unlock_all(); RAISE 'no' USING ERRCODE = '23514'; END $$;
SELECT convex_enable_subscription('s') \g /dev/null
SELECT emu.insert(t, '{"x": "3"}') FROM unnest('{a,b}'::text[]) AS t \g /dev/null
CALL convex_sync('s');
SELECT is((SELECT concat_ws(' ', state, error_code) FROM convex_stat_subscription_rel WHERE table_name = 'a'), 'error 23514', 'an error after it is told as it is');
SELECT is((SELECT array_agg(DISTINCT holders) FROM seen), '{1}', 'and the other table is written under the lock');
DROP TRIGGER unlock ON s.a;
SELECT convex_enable_subscription('s') \g /dev/null
CALL convex_sync('s');
SELECT is((SELECT array_agg(x ORDER BY x) FROM s.a), '{1,2,3}', 'without the code nothing is missing');
CREATE FUNCTION unlock(text) RETURNS boolean LANGUAGE plpgsql AS
$$ BEGIN PERFORM pg_catalog.pg_advisory_unlock_all(); RETURN true; END $$;
ALTER TABLE s.a ADD CHECK (unlock(x)) NOT VALID;
SELECT emu.insert('a', '{"x": "4"}') \g /dev/null
CALL convex_sync('s');
SELECT is((SELECT concat_ws(' ', state, error_code) FROM convex_stat_subscription_rel WHERE table_name = 'a'), 'error 55000', 'a check that does it is noticed');
DO $$ DECLARE c name; BEGIN SELECT conname INTO STRICT c FROM pg_constraint WHERE conrelid = 's.a'::regclass AND contype = 'c'; EXECUTE format('ALTER TABLE s.a DROP CONSTRAINT %I', c); END $$;
CREATE DOMAIN unlocking AS text CHECK (unlock(VALUE));
ALTER TABLE s.b ALTER x TYPE unlocking;
SELECT convex_resync_table('s', 'b') \g /dev/null
\set ON_ERROR_STOP 0
CALL convex_sync('s');
SELECT :'SQLSTATE' AS state \gset
\set ON_ERROR_STOP 1
SELECT is(:'state'::text, '55000', 'and a type that does it during a load');
SELECT is(holders(), 0::bigint, 'no lock is left');
SELECT * FROM finish();
