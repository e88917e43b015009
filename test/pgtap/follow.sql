-- Subscriptions: first load, changes, waiting, and what each function refuses.

\ir lib/setup.sql
SELECT plan(37);

SELECT emu.server() \g /dev/null
SELECT emu.seed('demo') \g /dev/null

CREATE FUNCTION state(statement text) RETURNS text LANGUAGE sql AS
$$ SELECT coalesce(emu.failure(statement) ->> 'sqlstate', 'no error') $$;

-- What the deployment has, as a mirror without _ts, _extra and rounding has it.
CREATE FUNCTION source(table_name text, component text DEFAULT '', ts bigint DEFAULT NULL) RETURNS SETOF jsonb LANGUAGE sql AS
$$ SELECT jsonb_strip_nulls(document - '_creationTime') FROM emu.dump(table_name, component, ts) AS document $$;

-- ------------------------------------------------------------------ the first load

SELECT isnt(convex_create_subscription('app', 'convex', '{users,messages}'), NULL, 'a subscription of two tables is created');
SELECT is((SELECT array_agg(table_name ORDER BY table_name) FROM convex_stat_subscription_rel), '{messages,users}', 'it knows both');
SELECT is((SELECT array_agg(DISTINCT state) FROM convex_stat_subscription_rel), '{joining}', 'which have not joined yet');
SELECT is(to_regclass('app.users'), NULL, 'there is no table before it is loaded');

SELECT emu.clear_journal() \g /dev/null
CALL convex_sync('app');
SELECT is((SELECT array_agg(DISTINCT state) FROM convex_stat_subscription_rel), '{ready}', 'CALL convex_sync loads them');
SELECT is((SELECT count(*) FROM app.users), (SELECT count(*) FROM emu.dump('users')), 'one table is complete');
SELECT is((SELECT count(*) FROM app.messages), (SELECT count(*) FROM emu.dump('messages')), 'and so is the other');
SELECT is((SELECT array_agg(_id ORDER BY _id) FROM app.users), (SELECT array_agg(d ->> '_id' ORDER BY d ->> '_id' COLLATE "C") FROM emu.dump('users') AS d), 'with the documents of Convex');
SELECT is((SELECT count(DISTINCT (r -> 'body' ->> 'snapshot')) FROM emu.journal('/api/list_snapshot') AS r WHERE r -> 'body' ? 'snapshot' AND r -> 'body' -> 'selection' -> '' -> 'users' ->> '_other' = 'included'), 1::bigint, 'under one snapshot');
SELECT is((SELECT count(DISTINCT (r -> 'body' ->> 'selection')) FROM emu.journal('/api/list_snapshot') AS r WHERE r -> 'body' -> 'selection' -> '' -> 'users' ->> '_other' = 'included'), 1::bigint, 'with one selection');
SELECT col_is_pk('app', 'users', '_id', '_id is the primary key');
SELECT is((SELECT collname FROM pg_attribute a JOIN pg_collation c ON c.oid = attcollation WHERE attrelid = 'app.users'::regclass AND attname = '_id'), 'C', 'in byte order');
SELECT is((SELECT phase FROM convex_stat_subscription), 'following', 'the subscription follows');
SELECT ok((SELECT caught_up FROM convex_stat_subscription), 'and has caught up');
SELECT is((SELECT lag FROM convex_stat_subscription), '0'::interval, 'without lag');
SELECT is((SELECT applied_ts FROM convex_stat_subscription), (emu.state() ->> 'head')::bigint, 'at the head');

-- ------------------------------------------------------------------ changes

SELECT emu.insert('users', '{"name": "Zoe", "email": "zoe@example.org"}') AS zoe \gset
CALL convex_sync('app');
SELECT is((SELECT name FROM app.users WHERE _id = :'zoe'), 'Zoe', 'a new document becomes a row');
SELECT emu.mutate(jsonb_build_array(jsonb_build_object('op', 'patch', 'table', 'users', 'id', :'zoe', 'doc', '{"name": "Zoë"}'::jsonb))) ->> 'ts' AS patched \gset
CALL convex_sync('app');
SELECT is((SELECT name FROM app.users WHERE _id = :'zoe'), 'Zoë', 'a changed document changes its row');
SELECT is((SELECT _ts FROM app.users WHERE _id = :'zoe'), :patched, 'which carries the commit timestamp');
SELECT emu.mutate(jsonb_build_array(jsonb_build_object('op', 'delete', 'table', 'users', 'id', :'zoe'))) \g /dev/null
CALL convex_sync('app');
SELECT is((SELECT count(*) FROM app.users WHERE _id = :'zoe'), 0::bigint, 'a deleted document disappears from the mirror');
SELECT emu.mutate('[{"op":"insert","table":"users","doc":{"name":"both","email":"b"}},{"op":"insert","table":"messages","doc":{"body":"both"}},{"op":"insert","table":"channels","doc":{"name":"no"}}]') ->> 'ts' AS both_ts \gset
CALL convex_sync('app');
SELECT is((SELECT _ts FROM app.users WHERE name = 'both'), :both_ts, 'a transaction arrives in one table');
SELECT is((SELECT count(*) FROM app.messages WHERE _ts = :both_ts), 1::bigint, 'and in the other');
SELECT is(to_regclass('app.channels'), NULL, 'but not in tables that are not selected');
SELECT is((SELECT count(*) FROM app.messages), (SELECT count(*) FROM emu.dump('messages')), 'nothing else');

-- ------------------------------------------------------------------ what is refused

SELECT is(state($$ SELECT convex_create_subscription('app', 'convex') $$), '42710', 'a name is taken once');
SELECT is(state($$ SELECT convex_create_subscription('b', 'convex', '{nothing}') $$), 'HV00R', 'a table that is named must exist');
SELECT is(state($$ SELECT convex_create_subscription('b', 'convex', mode => 'x') $$), '22023', 'a mode must be known');
SELECT is(state($$ SELECT convex_create_subscription('b', 'convex', options => '{"x": 1}') $$), '22023', 'and so must an option');
SELECT is(state($$ SELECT convex_create_subscription('b', 'convex', protocol => 'data_sync') $$), '0A000', 'other protocols are not supported yet');
SELECT is(state($$ SELECT convex_resync_table('app', 'nothing') $$), '42P01', 'a table to resync must be one of the subscription');
SELECT is(state($$ CALL convex_sync('app') $$), '25001', 'convex_sync is refused within a transaction');
SELECT is(state($$ SELECT convex_drop_subscription('nothing') $$), '42704', 'a subscription must exist');

SELECT convex_disable_subscription('app') \g /dev/null
SELECT ok(NOT (SELECT enabled FROM convex_stat_subscription), 'a subscription can be disabled');
SELECT convex_enable_subscription('app') \g /dev/null
CALL convex_sync();
SELECT ok((SELECT caught_up FROM convex_stat_subscription), 'and enabled; CALL convex_sync() takes all subscriptions');

SELECT convex_drop_subscription('app', true) \g /dev/null
SELECT is((SELECT count(*) FROM convex_stat_subscription), 0::bigint, 'a dropped subscription is gone');
SELECT is(to_regclass('app.users'), NULL, 'with its tables, if wanted');
SELECT is((SELECT count(*) FROM pg_class WHERE relnamespace = 'convex_staging'::regnamespace AND relkind = 'r'), 0::bigint, 'and nothing is left in staging');

SELECT * FROM finish();
