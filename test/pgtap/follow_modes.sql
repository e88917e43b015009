-- Subscriptions: modes, targets that exist, broken targets, and rights.

\ir lib/setup.sql
SELECT plan(73);

SELECT emu.server() \g /dev/null

CREATE FUNCTION state(statement text) RETURNS text LANGUAGE sql AS
$$ SELECT coalesce(emu.failure(statement) ->> 'sqlstate', 'no error') $$;
CREATE FUNCTION source(table_name text) RETURNS SETOF text LANGUAGE sql AS
$$ SELECT (d ->> '_id') || ' ' || (d ->> 'x') FROM emu.dump(table_name) AS d $$;
CREATE FUNCTION change(op text, id text, x text DEFAULT NULL) RETURNS bigint LANGUAGE sql AS
$$ SELECT (emu.mutate(jsonb_build_array(jsonb_strip_nulls(jsonb_build_object('op', op, 'table', 'a', 'id', id, 'doc', CASE WHEN x IS NOT NULL THEN jsonb_build_object('x', x) END)))) ->> 'ts')::bigint $$;

SELECT emu.insert('a', '{"x": "one"}', '{"x": "two"}', '{"x": "three"}') \g /dev/null
SELECT d ->> '_id' AS one FROM emu.dump('a') AS d WHERE d ->> 'x' = 'one' \gset
SELECT d ->> '_id' AS two FROM emu.dump('a') AS d WHERE d ->> 'x' = 'two' \gset

-- ------------------------------------------------------------------ soft_delete and history

SELECT convex_create_subscription('soft', 'convex', '{a}', mode => 'soft_delete') \g /dev/null
SELECT convex_create_subscription('hist', 'convex', '{a}', mode => 'history') \g /dev/null
SELECT convex_create_subscription('keep', 'convex', '{a}', options => '{"deletes": "ignore"}') \g /dev/null
CALL convex_sync();
SELECT is((SELECT count(*) FROM soft.a WHERE _deleted_at IS NULL), 3::bigint, 'soft_delete loads rows that are not deleted');
SELECT is((SELECT count(*) FROM hist.a WHERE NOT _deleted), 3::bigint, 'history loads the present revisions');
SELECT is((SELECT array_agg(a.attname ORDER BY a.attname) FROM pg_index AS i JOIN pg_attribute AS a ON a.attrelid = i.indrelid AND a.attnum = ANY (i.indkey) WHERE i.indrelid = 'hist.a'::regclass), '{_id,_ts}', 'whose key has the timestamp');

SELECT change('patch', :'one', 'uno') AS t1 \gset
SELECT change('patch', :'one', 'eins') AS t2 \gset
SELECT change('delete', :'two') AS t3 \gset
CALL convex_sync();
SELECT results_eq(format('SELECT x, _ts, _deleted FROM hist.a WHERE _id = %L ORDER BY _ts OFFSET 1', :'one'),
	format($$ VALUES ('uno', %s::bigint, false), ('eins', %s, false) $$, :'t1', :'t2'), 'history keeps every revision of the change log');
SELECT results_eq(format('SELECT x, _ts, _deleted FROM hist.a WHERE _id = %L ORDER BY _ts OFFSET 1', :'two'),
	format($$ VALUES (NULL::text, %s::bigint, true) $$, :'t3'), 'and the deletion');
SELECT is((SELECT x FROM soft.a WHERE _id = :'one'), 'eins', 'soft_delete has the last revision');
SELECT is((SELECT _deleted_at FROM soft.a WHERE _id = :'two'), 'epoch'::timestamptz + :t3 / 1000 * interval '1 us', 'and marks a deleted row with the time of the deletion');
SELECT is((SELECT x FROM soft.a WHERE _id = :'two'), 'two', 'which keeps its values');
SELECT is((SELECT count(*) FROM keep.a), 3::bigint, 'deletes ignore keeps deleted rows');
SELECT is((SELECT x FROM keep.a WHERE _id = :'one'), 'eins', 'and applies the rest');

SELECT emu.mutate('[{"op": "delete_all", "table": "a"}]') ->> 'ts' AS gone \gset
SELECT emu.insert('a', '{"x": "two"}') AS two \gset
CALL convex_sync();
SELECT is((SELECT count(*) FROM soft.a WHERE _deleted_at IS NULL), 1::bigint, 'rows that are not deleted are not marked');
SELECT is((SELECT count(*) FROM hist.a WHERE _ts = :gone AND _deleted), 2::bigint, 'history saw all of it');

-- Reloads keep the mode.
SELECT emu.insert('a', '{"x": "four"}', '{"x": "five"}') \g /dev/null
CALL convex_sync();
SELECT count(*) AS revisions FROM hist.a \gset
DELETE FROM soft.a WHERE x = 'four';
SELECT convex_resync_table('soft', 'a'), convex_resync_table('hist', 'a') \g /dev/null
CALL convex_sync();
SELECT is((SELECT count(*) FROM hist.a), :revisions::bigint, 'a reload adds no revision that is there');
SELECT bag_eq('SELECT _id || '' '' || x FROM soft.a WHERE _deleted_at IS NULL', $$ SELECT source('a') $$, 'and mends a soft_delete mirror');
SELECT is((SELECT count(*) FROM soft.a WHERE _deleted_at IS NOT NULL), 3::bigint, 'whose marks stay');

-- ------------------------------------------------------------------ targets that exist

CREATE SCHEMA mine;
CREATE TABLE mine.a (_id text PRIMARY KEY, x text, seen int DEFAULT 7, len int GENERATED ALWAYS AS (length(x)) STORED);
CREATE TABLE log (op text, id text, who name DEFAULT current_user);
CREATE FUNCTION log() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN INSERT INTO public.log VALUES (TG_OP, coalesce(NEW._id, OLD._id)); RETURN NULL; END $$;
CREATE TRIGGER log AFTER INSERT OR UPDATE OR DELETE ON mine.a FOR EACH ROW EXECUTE FUNCTION log();
INSERT INTO mine.a (_id, x) VALUES ('stale', 'stale');
TRUNCATE log;
SELECT 'mine.a'::regclass::oid AS oid_before \gset
SELECT convex_create_subscription('mine', 'convex', '{a}') \g /dev/null
CALL convex_sync('mine');
SELECT bag_eq('SELECT _id || '' '' || x FROM mine.a', $$ SELECT source('a') $$, 'a table that exists is used as it is');
SELECT is('mine.a'::regclass::oid, :oid_before::oid, 'the very same table');
SELECT is((SELECT array_agg(DISTINCT len - length(x)) FROM mine.a), '{0}', 'generated columns are generated');
SELECT is((SELECT array_agg(DISTINCT seen) FROM mine.a), '{7}', 'columns that no field fills have their defaults');
SELECT results_eq('SELECT op, count(*) FROM log GROUP BY op ORDER BY op', $$ VALUES ('DELETE', 1::bigint), ('INSERT', 3) $$, 'its triggers fire');
UPDATE mine.a SET seen = 8;
TRUNCATE log;
SELECT change('patch', :'two', 'changed') \g /dev/null
CALL convex_sync('mine');
SELECT results_eq('SELECT op, id FROM log', format($$ VALUES ('UPDATE', %L) $$, :'two'), 'once for each change');
SELECT is((SELECT seen FROM mine.a WHERE _id = :'two'), 8, 'other columns stay');
ALTER TABLE mine.a RENAME TO renamed;
ALTER TABLE mine.renamed SET SCHEMA public;
SELECT change('patch', :'two', 'moved') \g /dev/null
CALL convex_sync('mine');
SELECT is((SELECT x FROM renamed WHERE _id = :'two'), 'moved', 'a target that is renamed and moved keeps its subscription');
SELECT is((SELECT target_schema || '.' || target_name FROM convex_stat_subscription_rel WHERE name = 'mine'), 'public.renamed', 'which knows its new name');

-- A deferrable constraint is checked at once.
CREATE SCHEMA refs;
CREATE TABLE refs.known (x text PRIMARY KEY);
INSERT INTO refs.known SELECT DISTINCT d ->> 'x' FROM emu.dump('a') AS d;
CREATE TABLE refs.a (_id text PRIMARY KEY, x text REFERENCES refs.known DEFERRABLE INITIALLY DEFERRED, _ts bigint, _extra jsonb);
SELECT emu.insert('other', '{"x": "o"}') \g /dev/null
SELECT convex_create_subscription('refs', 'convex', '{a,other}') \g /dev/null
CALL convex_sync('refs');
SELECT is((SELECT count(*) FROM refs.a), 3::bigint, 'a target may have a deferrable foreign key');

-- ------------------------------------------------------------------ a broken target waits alone

SELECT emu.mutate(jsonb_build_array(jsonb_build_object('op', 'patch', 'table', 'a', 'id', :'two', 'doc', '{"x": "unknown"}'::jsonb), '{"op": "insert", "table": "other", "doc": {"x": "p"}}'::jsonb)) \g /dev/null
CALL convex_sync('refs');
SELECT is((SELECT ROW (state, error_code)::text FROM convex_stat_subscription_rel WHERE name = 'refs' AND table_name = 'a'), '(error,23503)', 'a table whose target refuses a row waits');
SELECT is((SELECT state FROM convex_stat_subscription_rel WHERE name = 'refs' AND table_name = 'other'), 'ready', 'the others do not');
SELECT is((SELECT array_agg(x ORDER BY x) FROM refs.other), '{o,p}', 'and go on');
SELECT is((SELECT x FROM refs.a WHERE _id = :'two'), 'moved', 'its rows stand where they were');
SELECT emu.insert('a', '{"x": "six"}') \g /dev/null
SELECT emu.insert('other', '{"x": "q"}') \g /dev/null
CALL convex_sync('refs');
SELECT is((SELECT array_agg(x ORDER BY x) FROM refs.other), '{o,p,q}', 'for as long as it lasts');
INSERT INTO refs.known VALUES ('unknown'), ('six');
SELECT ok(emu.wait_until($$ (SELECT retry_at <= clock_timestamp() FROM convex_subscription_rel WHERE target_schema = 'refs' AND table_name = 'a') $$), 'it is tried again');
CALL convex_sync('refs');
SELECT is((SELECT state FROM convex_stat_subscription_rel WHERE name = 'refs' AND table_name = 'a'), 'ready', 'and catches up once the target takes the row');
SELECT bag_eq('SELECT _id || '' '' || x FROM refs.a', $$ SELECT source('a') $$, 'with nothing lost');

DROP TABLE refs.a;
SELECT change('patch', :'two', 'x') \g /dev/null
CALL convex_sync('refs');
SELECT is((SELECT ROW (state, error_code)::text FROM convex_stat_subscription_rel WHERE name = 'refs' AND table_name = 'a'), '(error,42P01)', 'a target that is dropped is an error of its table');
SELECT convex_resync_table('refs', 'a') \g /dev/null
CALL convex_sync('refs');
SELECT bag_eq('SELECT _id || '' '' || x FROM refs.a', $$ SELECT source('a') $$, 'until it is loaded again');

-- Partitions.
CREATE SCHEMA parts;
CREATE TABLE parts.a (_id text NOT NULL, x text, _ts bigint, _extra jsonb) PARTITION BY HASH (_id);
CREATE TABLE parts.a0 PARTITION OF parts.a FOR VALUES WITH (MODULUS 2, REMAINDER 0);
CREATE TABLE parts.a1 PARTITION OF parts.a FOR VALUES WITH (MODULUS 2, REMAINDER 1);
SELECT convex_create_subscription('parts', 'convex', '{a}') \g /dev/null
CALL convex_sync('parts');
SELECT change('patch', :'two', 'part') \g /dev/null
SELECT emu.insert('a', '{"x": "seven"}', '{"x": "eight"}') \g /dev/null
CALL convex_sync('parts');
SELECT bag_eq('SELECT _id || '' '' || x FROM parts.a', $$ SELECT source('a') $$, 'a target may be partitioned by _id');

-- ------------------------------------------------------------------ rights

CREATE ROLE follower;
CREATE ROLE stranger;
CREATE SCHEMA theirs AUTHORIZATION follower;
GRANT USAGE ON FOREIGN SERVER convex TO follower;
SELECT format('CREATE USER MAPPING FOR follower SERVER convex OPTIONS (deploy_key %L)', emu.key()) \gexec
SELECT is(state($$ SET ROLE follower; SELECT public.convex_create_subscription('theirs', 'convex', '{a}') $$), '42501', 'the functions are not for everybody');
RESET ROLE;
GRANT EXECUTE ON FUNCTION convex_create_subscription(name, name, text[], name, text, text, interval, boolean, jsonb), convex_resync_table(name, text), convex_drop_subscription(name, boolean) TO follower, stranger;
GRANT EXECUTE ON PROCEDURE convex_sync(name, int) TO follower, stranger;
SET ROLE follower;
SELECT convex_create_subscription('theirs', 'convex', '{a}') \g /dev/null
CALL convex_sync('theirs');
RESET ROLE;
SELECT bag_eq('SELECT _id || '' '' || x FROM theirs.a', $$ SELECT source('a') $$, 'a role without rights on the catalog follows with its own mapping');
SELECT is((SELECT tableowner FROM pg_tables WHERE schemaname = 'theirs' AND tablename = 'a'), 'follower', 'and owns its tables');
SET ROLE stranger;
RESET ROLE;
SELECT is(state($$ SET ROLE stranger; SELECT public.convex_drop_subscription('theirs') $$), '42501', 'another role may not touch it');
RESET ROLE;
SELECT is(state($$ SET ROLE stranger; SELECT * FROM public.convex_subscription $$), '42501', 'nor see the catalog');
RESET ROLE;
SET ROLE stranger;
SELECT count(*) AS seen FROM convex_stat_subscription \gset
RESET ROLE;
SELECT is(:seen, 0, 'and the views show a role its own subscriptions only');

SELECT emu.insert('a', '{"x": "nine", "fresh": true}') \g /dev/null
SELECT convex_resync_table('theirs', 'a') \g /dev/null
CALL convex_sync('theirs');
SELECT bag_eq('SELECT _id || '' '' || x FROM theirs.a', $$ SELECT source('a') $$, 'a reload reads the staging table as the target''s owner');
SELECT has_column('theirs', 'a', 'fresh', 'and new columns are added as that role');
SELECT is(has_schema_privilege('follower', 'convex_staging', 'USAGE'), false, 'who may not see staging tables otherwise');

-- Types of a target run code of its owner's, with its owner's rights.
CREATE ROLE trojan;
CREATE SCHEMA trojan AUTHORIZATION trojan;
CREATE TABLE who_ran (role text);
GRANT INSERT ON who_ran TO PUBLIC;
SET ROLE trojan;
CREATE FUNCTION trojan.evil(x text) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN INSERT INTO public.who_ran VALUES (current_user); RETURN true; END $$;
CREATE DOMAIN trojan.horse AS text CHECK (trojan.evil(value));
CREATE TABLE trojan.t (_id text COLLATE "C" PRIMARY KEY, x trojan.horse, _ts bigint, _extra jsonb);
RESET ROLE;
SELECT emu.insert('t', '{"x": "1"}') \g /dev/null
SELECT convex_create_subscription('trojan', 'convex', '{t}', options => '{"adopt": ["t"]}') \g /dev/null
CALL convex_sync('trojan');
SELECT emu.insert('t', '{"x": "2"}') \g /dev/null
CALL convex_sync('trojan');
SELECT convex_resync_table('trojan', 't') \g /dev/null
CALL convex_sync('trojan', 3);
SELECT emu.insert('t', '{"x": "3"}') \g /dev/null
CALL convex_sync('trojan');
SELECT is((SELECT count(*) FROM trojan.t), 3::bigint, 'a target with types of its owner is loaded, changed and loaded again');
SELECT is((SELECT array_agg(DISTINCT role) FROM who_ran), '{trojan}', 'and nobody else ran their code');
SELECT convex_drop_subscription('trojan') \g /dev/null
DROP OWNED BY trojan;
DROP ROLE trojan;

-- Errors of a target that look like those of a server or of the moment.
SELECT emu.insert('m', '{"x": "1"}') \g /dev/null
SELECT emu.insert('o', '{"x": "1"}') \g /dev/null
SELECT convex_create_subscription('odd', 'convex', '{m,o}') \g /dev/null
CALL convex_sync('odd');
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'not now' USING ERRCODE = TG_ARGV[0]; END $$;
CREATE FUNCTION odd(table_name text) RETURNS text LANGUAGE sql AS
$$ SELECT concat_ws(' ', state, error_code) FROM convex_stat_subscription_rel AS r WHERE name = 'odd' AND r.table_name = $1 $$;
CREATE TRIGGER refuse BEFORE INSERT ON odd.m FOR EACH ROW EXECUTE FUNCTION refuse('08006');
SELECT emu.insert('m', '{"x": "2"}') \g /dev/null
SELECT emu.insert('o', '{"x": "2"}') \g /dev/null
CALL convex_sync('odd');
SELECT is(odd('m'), 'error 08006', 'a target that has lost a connection of its own waits');
SELECT is((SELECT count(*) FROM odd.o), 2::bigint, 'alone');
DROP TRIGGER refuse ON odd.m;
SELECT convex_resync_table('odd', 'm') \g /dev/null
CALL convex_sync('odd');
CREATE TRIGGER refuse BEFORE INSERT ON odd.m FOR EACH ROW EXECUTE FUNCTION refuse('40001');
SELECT emu.insert('m', '{"x": "3"}') \g /dev/null
SELECT emu.insert('o', '{"x": "3"}') \g /dev/null
\set ON_ERROR_STOP 0
CALL convex_sync('odd');
SELECT is(:'SQLSTATE'::text, '40001', 'what may pass by itself is tried again');
CALL convex_sync('odd'); CALL convex_sync('odd');
\set ON_ERROR_STOP 1
SELECT is(odd('m'), 'ready', 'some times');
CALL convex_sync('odd');
SELECT is(odd('m'), 'error 40001', 'but not for ever');
SELECT is((SELECT count(*) FROM odd.o), 3::bigint, 'and the others go on');
DROP TRIGGER refuse ON odd.m;
SELECT convex_resync_table('odd', 'm') \g /dev/null
CALL convex_sync('odd');
SELECT is((SELECT count(*) FROM odd.m), 3::bigint, 'nothing is lost by it');
SELECT convex_drop_subscription('odd', true) \g /dev/null

-- Types of a target run their owner's code, whoever's the subscription is.
CREATE SCHEMA typed AUTHORIZATION follower;
GRANT USAGE ON SCHEMA typed TO PUBLIC;
SET ROLE follower;
CREATE TABLE typed.who (name name);
CREATE FUNCTION typed.note(text) RETURNS boolean LANGUAGE plpgsql AS
$$ BEGIN INSERT INTO typed.who VALUES (current_user); RETURN true; END $$;
CREATE DOMAIN typed.noted AS text CHECK (typed.note(VALUE));
CREATE TABLE typed.a (_id text PRIMARY KEY, x typed.noted, _ts bigint, _extra jsonb);
GRANT INSERT ON typed.who TO PUBLIC;
RESET ROLE;
SELECT convex_create_subscription('typed', 'convex', '{a}', options => '{"adopt": ["a"]}') \g /dev/null
CALL convex_sync('typed');
SELECT is((SELECT array_agg(DISTINCT name) FROM typed.who), '{follower}', 'a load runs the code of a target''s types as its owner');
SELECT emu.insert('a', '{"x": "typed"}') \g /dev/null
CALL convex_sync('typed');
SELECT is((SELECT array_agg(DISTINCT name) FROM typed.who), '{follower}', 'and so do changes');
SELECT bag_eq('SELECT _id || '' '' || x FROM typed.a', $$ SELECT source('a') $$, 'which are there');
SELECT convex_drop_subscription('typed', true) \g /dev/null
DROP SCHEMA typed CASCADE;

-- A target that becomes useless waits alone when it is to be loaded, too.
SELECT convex_create_subscription('bad', 'convex', '{a,other}') \g /dev/null
CREATE TABLE bad.a (_id int PRIMARY KEY);
CALL convex_sync('bad');
SELECT is((SELECT ROW (state, error_code)::text FROM convex_stat_subscription_rel WHERE name = 'bad' AND table_name = 'a'), '(error,42P16)', 'a target that cannot be used is an error of its table');
SELECT is((SELECT count(*) FROM bad.other), (SELECT count(*) FROM emu.dump('other')), 'the other one is loaded');
DROP TABLE bad.a;
SELECT ok(emu.wait_until($$ (SELECT retry_at <= clock_timestamp() FROM convex_subscription_rel WHERE target_schema = 'bad' AND table_name = 'a') $$), 'it is tried again');
CALL convex_sync('bad');
SELECT bag_eq('SELECT _id || '' '' || x FROM bad.a', $$ SELECT source('a') $$, 'and loaded when it is out of the way');

-- A trigger runs as the table's owner and cannot become somebody else.
SET ROLE follower;
CREATE FUNCTION theirs.climb() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN RESET ROLE; EXECUTE 'SET SESSION AUTHORIZATION DEFAULT'; CREATE ROLE evil SUPERUSER; RETURN NULL; END $$;
CREATE TRIGGER climb AFTER INSERT OR UPDATE ON theirs.a FOR EACH ROW EXECUTE FUNCTION theirs.climb();
RESET ROLE;
SELECT change('patch', :'two', 'climb') \g /dev/null
CALL convex_sync('theirs');
SELECT is((SELECT ROW (state, error_code)::text FROM convex_stat_subscription_rel WHERE name = 'theirs'), '(error,42501)', 'a trigger that tries to become superuser breaks its own table only');
SELECT is((SELECT count(*) FROM pg_roles WHERE rolname = 'evil'), 0::bigint, 'and does not become it');
DROP TRIGGER climb ON theirs.a;

-- The owner of the target changes.
ALTER TABLE theirs.a OWNER TO stranger;
SELECT ok(emu.wait_until($$ (SELECT retry_at <= clock_timestamp() FROM convex_subscription_rel WHERE target_schema = 'theirs') $$), 'it is tried again');
CALL convex_sync('theirs');
SELECT is((SELECT ROW (state, error_code)::text FROM convex_stat_subscription_rel WHERE name = 'theirs'), '(error,42501)', 'a target of a role that the owner is no member of is not written');
SELECT is((SELECT x FROM theirs.a WHERE _id = :'two'), 'part', 'and keeps its rows');
GRANT stranger TO follower;
GRANT USAGE ON SCHEMA theirs TO stranger;
SELECT ok(emu.wait_until($$ (SELECT retry_at <= clock_timestamp() FROM convex_subscription_rel WHERE target_schema = 'theirs') $$), 'it is tried again');
CALL convex_sync('theirs');
SELECT bag_eq('SELECT _id || '' '' || x FROM theirs.a', $$ SELECT source('a') $$, 'until membership is granted');

-- Nobody may keep the schema of staging tables, and so put tables of its own there.
SELECT format('GRANT CREATE ON DATABASE %I TO stranger', current_database()) \gexec
DROP SCHEMA convex_staging CASCADE;
SET ROLE stranger;
CREATE SCHEMA convex_staging;
RESET ROLE;
SELECT convex_resync_table('theirs', 'a') \g /dev/null
\set ON_ERROR_STOP 0
CALL convex_sync('theirs');
SELECT :'SQLSTATE' AS state \gset
\set ON_ERROR_STOP 1
SELECT is(:'state'::text, '42501', 'a schema convex_staging of a role that is no superuser is refused');
SELECT is((SELECT count(*) FROM pg_class WHERE relnamespace = 'convex_staging'::regnamespace), 0::bigint, 'and nothing is loaded there');
DROP SCHEMA convex_staging;
CALL convex_sync('theirs');
SELECT is((SELECT state FROM convex_stat_subscription_rel WHERE name = 'theirs'), 'ready', 'until it is gone');

DROP SCHEMA theirs CASCADE;
SELECT convex_drop_subscription('theirs') \g /dev/null
DROP OWNED BY follower, stranger;
DROP ROLE follower, stranger;

-- A server that is gone.
DROP SERVER convex CASCADE;
SELECT throws_ok($$ SELECT convex_wait_for('hist') $$, '42704', NULL, 'a subscription without its server cannot be waited for');
SELECT lives_ok($$ SELECT convex_drop_subscription('hist') $$, 'but it can be dropped');

SELECT * FROM finish();
