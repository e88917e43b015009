-- A rule DO INSTEAD on a target: rows were lost or stayed, and the table was
-- `joining` without an error, or `ready`. It is refused, and told.

\ir ../pgtap/lib/setup.sql
SELECT plan(12);

SELECT emu.server('convex') \g /dev/null
CREATE FUNCTION state_of(sub text) RETURNS text LANGUAGE sql AS
$$ SELECT string_agg(concat_ws(' ', state, load, error_code, error_message), ', ') FROM convex_stat_subscription_rel WHERE name = sub $$;

-- Before the first load.
SELECT emu.insert('a', '{"x": 1}') AS first \gset
CREATE SCHEMA app;
CREATE TABLE app.a (_id text COLLATE "C" PRIMARY KEY, x float8, _ts bigint, _extra jsonb);
CREATE RULE elsewhere AS ON INSERT TO app.a DO INSTEAD NOTHING;
SELECT throws_ok($$ SELECT convex_create_subscription('app', 'convex', '{a}') $$, '42809', 'table "a" has a rule ON INSERT DO INSTEAD, by which changes would be lost', 'a table with such a rule is no target');
DROP RULE elsewhere ON app.a;
SELECT convex_create_subscription('app', 'convex', '{a}') \g /dev/null
CREATE RULE elsewhere AS ON INSERT TO app.a DO INSTEAD NOTHING;
\set ON_ERROR_STOP 0
CALL convex_sync('app');
\set ON_ERROR_STOP 1
SELECT matches(state_of('app'), '42809 table "a" has a rule ON INSERT DO INSTEAD', 'nor one that has got it before the first load');
DROP RULE elsewhere ON app.a;
SELECT convex_resync_table('app', 'a') \g /dev/null
CALL convex_sync('app');
SELECT is(state_of('app'), 'ready', 'without the rule it is');
SELECT is((SELECT array_agg(x) FROM app.a), '{1}', 'and has its rows');

-- While it is followed, for each of the commands.
CREATE RULE elsewhere AS ON UPDATE TO app.a DO INSTEAD NOTHING;
SELECT emu.mutate(jsonb_build_array(jsonb_build_object('op', 'patch', 'table', 'a', 'id', :'first', 'doc', jsonb '{"x": 2}'))) \g /dev/null
\set ON_ERROR_STOP 0
CALL convex_sync('app');
\set ON_ERROR_STOP 1
SELECT matches(state_of('app'), '42809 table "a" has a rule ON UPDATE', 'one that comes later stops the table');
ALTER TABLE app.a DISABLE RULE elsewhere;
SELECT convex_resync_table('app', 'a') \g /dev/null
CALL convex_sync('app');
SELECT is(state_of('app'), 'ready', 'one that is disabled does not');
SELECT is((SELECT array_agg(x) FROM app.a), '{2}', 'the change is there');
CREATE RULE never AS ON DELETE TO app.a WHERE old.x = 7 DO INSTEAD NOTHING;
SELECT emu.mutate(jsonb_build_array(jsonb_build_object('op', 'patch', 'table', 'a', 'id', :'first', 'doc', jsonb '{"x": 3}'))) \g /dev/null
\set ON_ERROR_STOP 0
CALL convex_sync('app');
\set ON_ERROR_STOP 1
SELECT matches(state_of('app'), '42809 table "a" has a rule ON DELETE', 'conditions make no difference');
DROP RULE never ON app.a;
SELECT convex_resync_table('app', 'a') \g /dev/null
CALL convex_sync('app');
SELECT is((SELECT array_agg(x) FROM app.a), '{3}', 'and nothing is lost');

-- What is done as well is nobody's business.
CREATE TABLE seen (id text);
CREATE RULE also AS ON UPDATE TO app.a DO ALSO INSERT INTO seen VALUES (new._id);
SELECT emu.mutate(jsonb_build_array(jsonb_build_object('op', 'patch', 'table', 'a', 'id', :'first', 'doc', jsonb '{"x": 4}'))) \g /dev/null
CALL convex_sync('app');
SELECT is(state_of('app'), 'ready', 'a rule DO ALSO is allowed');
SELECT is((SELECT array_agg(x) FROM app.a), '{4}', 'the change is there');
SELECT is((SELECT count(*) FROM seen), 1::bigint, 'and what the rule did');

SELECT * FROM finish();
