-- Subscriptions: names of targets, what becomes of tables when the selection
-- changes or the subscription ends, columns that cannot be added now, and one
-- walk at a time.

\ir lib/setup.sql
CREATE EXTENSION dblink;
SELECT plan(48);

SELECT emu.server('convex', $$max_retries '0'$$) \g /dev/null
CREATE FUNCTION state(statement text) RETURNS text LANGUAGE sql AS
$$ SELECT coalesce(emu.failure(statement) ->> 'sqlstate', 'no error') $$;
CREATE FUNCTION source(table_name text, component text DEFAULT '') RETURNS SETOF text LANGUAGE sql AS
$$ SELECT (d ->> '_id') || ' ' || (d ->> 'x') FROM emu.dump(table_name, component) AS d $$;
SELECT dblink_connect(name, format('host=%s port=%s dbname=%s user=postgres', split_part(current_setting('unix_socket_directories'), ',', 1), current_setting('port'), current_database())) FROM unnest('{one,two}'::text[]) AS name \g /dev/null
SELECT pid AS one FROM dblink('one', 'SELECT pg_backend_pid()') AS t (pid int) \gset
SELECT pid AS two FROM dblink('two', 'SELECT pg_backend_pid()') AS t (pid int) \gset

-- ------------------------------------------------------------------ names

SELECT emu.mutate(jsonb_build_array(
	'{"op": "insert", "table": "b", "component": "a", "doc": {"x": "of a component"}}'::jsonb, '{"op": "insert", "table": "a_b", "doc": {"x": "of the root"}}'::jsonb,
	'{"op": "insert", "table": "Case", "doc": {"x": "upper"}}'::jsonb, '{"op": "insert", "table": "case", "doc": {"x": "lower"}}'::jsonb,
	jsonb_build_object('op', 'insert', 'table', repeat('l', 64), 'doc', '{"x": "64"}'::jsonb), jsonb_build_object('op', 'insert', 'table', repeat('l', 63), 'doc', '{"x": "63"}'::jsonb),
	'{"op": "insert", "table": "c", "component": "a/deeper", "doc": {"x": "of a component in a component"}}'::jsonb)) \g /dev/null
SELECT convex_create_subscription('names', 'convex') \g /dev/null
CALL convex_sync('names');
SELECT is((SELECT count(*) FROM convex_stat_subscription_rel WHERE state = 'ready'), 7::bigint, 'every table of every component gets its own');
SELECT is((SELECT count(DISTINCT target_name) FROM convex_stat_subscription_rel), 7::bigint, 'under a name of its own');
SELECT is((SELECT max(octet_length(target_name::text)) FROM convex_stat_subscription_rel), 63, 'of 63 bytes at most');
SELECT is((SELECT x FROM names."Case"), 'upper', 'names that differ in case are different');
SELECT is((SELECT x FROM names."case"), 'lower', 'as in Convex');
SELECT is((SELECT x FROM names.a_deeper_c), 'of a component in a component', 'components are part of the name');
CREATE FUNCTION content(component text, table_name text) RETURNS text LANGUAGE plpgsql AS
$$
DECLARE
	target text := (SELECT format('%I.%I', r.target_schema, r.target_name) FROM convex_stat_subscription_rel AS r WHERE r.name = 'names' AND r.component = $1 AND r.table_name = $2);
	result text;
BEGIN
	EXECUTE 'SELECT x FROM ' || target INTO result;
	RETURN result;
END
$$;
SELECT is(content('a', 'b'), 'of a component', 'names that would be equal are told apart');
SELECT is(content('', 'a_b'), 'of the root', 'both of them');
SELECT is(content('', repeat('l', 64)), '64', 'long names as well');

-- ------------------------------------------------------------------ the selection, and the end

SELECT is(state($$ SELECT convex_alter_subscription('names', tables => '{"no pattern"}') $$), '22023', 'a pattern must be one');
SELECT is(state($$ SELECT convex_alter_subscription('names', options => '{"notify": "perhaps"}') $$), '22023', 'and a value valid');
SELECT convex_alter_subscription('names', '{case,a/*}', '2 s', '{"notify": true}') \g /dev/null
CALL convex_sync('names');
SELECT is((SELECT array_agg(component || '/' || table_name ORDER BY component, table_name) FROM convex_stat_subscription_rel WHERE state = 'ready'), '{/case,a/b}', 'tables that are no longer selected are dropped');
SELECT is((SELECT count(*) FROM convex_stat_subscription_rel WHERE state = 'dropped'), 5::bigint, 'and known to be');
SELECT is((SELECT x FROM names."Case"), 'upper', 'their rows stay');
SELECT is((SELECT poll_interval::text || ' ' || (options ->> 'notify') FROM convex_subscription), '00:00:02 true', 'the rest is changed, too');
SELECT emu.mutate('[{"op": "insert", "table": "Case", "doc": {"x": "later"}}, {"op": "insert", "table": "case", "doc": {"x": "later"}}]') \g /dev/null
CALL convex_sync('names');
SELECT is((SELECT count(*) FROM names."Case") || ' ' || (SELECT count(*) FROM names."case"), '1 2', 'and are not followed any more');
SELECT convex_alter_subscription('names', '{*}') \g /dev/null
CALL convex_sync('names');
SELECT is((SELECT count(*) FROM names."Case"), 2::bigint, 'until they are selected again');
SELECT convex_drop_subscription('names') \g /dev/null
SELECT is((SELECT count(*) FROM pg_class WHERE relnamespace = 'names'::regnamespace AND relkind = 'r'), 7::bigint, 'tables outlive their subscription');
SELECT is((SELECT count(*) FROM convex_subscription_state) + (SELECT count(*) FROM convex_subscription_rel) + (SELECT count(*) FROM convex_subscription_event), 0::bigint, 'of which nothing else is left');
SELECT convex_create_subscription('names', 'convex') \g /dev/null
SELECT array_agg(xmin::text) AS kept FROM names."Case" \gset
CALL convex_sync('names');
SELECT is((SELECT array_agg(xmin::text) FROM names."Case"), :'kept', 'another one takes them over as they are');
SELECT convex_drop_subscription('names', true) \g /dev/null

-- ------------------------------------------------------------------ columns

SELECT emu.insert('t', '{"x": "first"}') \g /dev/null
CREATE SCHEMA app;
CREATE TABLE app.t (_id text PRIMARY KEY, "_creationTime" double precision, x text, _ts bigint, _extra jsonb);
SELECT convex_create_subscription('app', 'convex', '{t}') \g /dev/null
CALL convex_sync('app');
SELECT is((SELECT "_creationTime" FROM app.t), (SELECT (d ->> '_creationTime')::float8 FROM emu.dump('t') AS d), 'a target may have the exact _creationTime');

-- A reader holds the table: the new field waits in _extra, and everything goes on.
SELECT dblink_exec('one', 'BEGIN; LOCK TABLE app.t IN ACCESS SHARE MODE') \g /dev/null
SELECT emu.insert('t', '{"x": "second", "new": "field"}') \g /dev/null
CALL convex_sync('app');
SELECT is((SELECT _extra FROM app.t WHERE x = 'second'), '{"new": "field"}', 'a column that cannot be added now: the value is in _extra');
SELECT hasnt_column('app', 't', 'new', 'and there is no column');
SELECT is((SELECT state FROM convex_stat_subscription_rel), 'ready', 'nothing waits');
SELECT dblink_exec('one', 'COMMIT') \g /dev/null
SELECT emu.insert('t', '{"x": "third", "new": "field"}') \g /dev/null
CALL convex_sync('app');
SELECT is((SELECT new FROM app.t WHERE x = 'third'), 'field', 'the next document gives it its column');
SELECT is((SELECT _extra ->> 'new' FROM app.t WHERE x = 'second'), 'field', 'the value before stays where it is');
SELECT convex_resync_table('app', 't') \g /dev/null
CALL convex_sync('app');
SELECT is((SELECT ROW (new, _extra)::text FROM app.t WHERE x = 'second'), '(field,)', 'until the table is loaded again');
SELECT convex_drop_subscription('app', true) \g /dev/null

-- ------------------------------------------------------------------ roles

CREATE ROLE follower;
CREATE ROLE reader;
CREATE SCHEMA theirs AUTHORIZATION follower;
GRANT USAGE ON FOREIGN SERVER convex TO follower;
SELECT format('CREATE USER MAPPING FOR follower SERVER convex OPTIONS (deploy_key %L)', emu.key()) \gexec
GRANT EXECUTE ON FUNCTION convex_create_subscription(name, name, text[], name, text, text, interval, boolean, jsonb), convex_resync_table(name, text) TO follower;
GRANT EXECUTE ON PROCEDURE convex_sync(name, int) TO follower;
SET ROLE follower;
SELECT convex_create_subscription('theirs', 'convex', '{t}') \g /dev/null
CALL convex_sync('theirs');
GRANT SELECT ON theirs.t TO reader;
RESET ROLE;
ALTER ROLE follower RENAME TO successor;
SELECT emu.insert('t', '{"x": "fourth"}') \g /dev/null
SET ROLE successor;
SELECT convex_resync_table('theirs', 't') \g /dev/null
CALL convex_sync('theirs');
RESET ROLE;
SELECT bag_eq('SELECT _id || '' '' || x FROM theirs.t', $$ SELECT source('t') $$, 'a role that is renamed keeps its subscription');
SELECT is((SELECT owner FROM convex_subscription), 'successor', 'which knows its new name');
SELECT ok(has_table_privilege('reader', 'theirs.t', 'SELECT'), 'and a reload keeps what was granted');
SELECT convex_drop_subscription('theirs', true) \g /dev/null
DROP SCHEMA theirs;
DROP OWNED BY successor, reader;
DROP ROLE successor, reader;

-- ------------------------------------------------------------------ one walk at a time

SELECT emu.config('{"page_limit": 10}') \g /dev/null
SELECT emu.insert('long', VARIADIC ARRAY(SELECT jsonb_build_object('x', 'l' || i) FROM generate_series(1, 60) AS i)) \g /dev/null
SELECT emu.server('other') \g /dev/null
SELECT convex_create_subscription('first', 'convex', '{long}') \g /dev/null
SELECT convex_create_subscription('second', 'other', '{long}') \g /dev/null
SELECT emu.clear_journal() \g /dev/null
SELECT emu.fault('{"action": "stall", "path": "/api/list_snapshot", "skip": 3, "count": 1}') \g /dev/null
SELECT dblink_send_query('one', $$ CALL convex_sync('first') $$) \g /dev/null
SELECT ok(emu.wait_until($$ (SELECT count(*) = 4 FROM emu.journal('/api/list_snapshot')) $$), 'while one subscription walks');
SELECT dblink_send_query('two', $$ CALL convex_sync('second') $$) \g /dev/null
SELECT ok(emu.wait_until(format($$ EXISTS (SELECT FROM pg_locks WHERE pid = %s AND locktype = 'advisory' AND objsubid = 11) $$, :'two')), 'another one of the same deployment, by another server,');
SELECT ok(emu.wait_until(format($$ (SELECT wait_event_type = 'Extension' FROM pg_stat_activity WHERE pid = %s) AND EXISTS (SELECT FROM emu.journal('/api/query_ts') AS r HAVING count(*) >= 2) $$, :'two')), 'waits');
SELECT is((SELECT count(*) FROM emu.journal('/api/list_snapshot')), 4::bigint, 'and asks for no page');
SELECT emu.clear_faults() \g /dev/null
SELECT * FROM dblink_get_result('one') AS t (x text) \g /dev/null
SELECT * FROM dblink_get_result('one') AS t (x text) \g /dev/null
SELECT * FROM dblink_get_result('two') AS t (x text) \g /dev/null
SELECT * FROM dblink_get_result('two') AS t (x text) \g /dev/null
SELECT bag_eq('SELECT _id || '' '' || x FROM first.long', $$ SELECT source('long') $$, 'the first ends');
SELECT bag_eq('SELECT _id || '' '' || x FROM second.long', $$ SELECT source('long') $$, 'and the second follows');
SELECT is((SELECT array_agg(row_number ORDER BY row_number) FROM (SELECT row_number() OVER (ORDER BY (r ->> 'n')::int), r -> 'body' ->> 'cursor' AS cursor FROM emu.journal('/api/list_snapshot') AS r
	WHERE r -> 'body' -> 'selection' -> '' -> 'long' ->> '_other' = 'included') AS pages WHERE cursor IS NULL), '{1,8}', 'after the seven pages of the first');

-- ------------------------------------------------------------------ targets that are taken

SELECT is(state($$ SELECT convex_create_subscription('third', 'convex', '{long}', target_schema => 'first') $$), '42710', 'a table is the target of one subscription');
SELECT is(state(format('SELECT convex_create_subscription(''third'', ''convex'', ''{long}'', target_schema => %L)', name)), '42939', format('schema %s cannot be a target schema', name)) FROM unnest('{pg_catalog,pg_toast,information_schema,convex_staging}'::text[]) AS name;
SELECT is(state($$ SELECT convex_create_subscription('', 'convex', '{long}') $$), '42602', 'a subscription has a name');
SELECT is((SELECT count(*) FROM convex_stat_subscription WHERE name IN ('third', '')), 0::bigint, 'nothing is left of what was refused');

-- A table of the user's is in the way of one that comes later.
CREATE FUNCTION tray(VARIADIC names text[]) RETURNS jsonb LANGUAGE sql AS
$$ SELECT emu.mutate(jsonb_agg(jsonb_build_object('op', 'insert', 'table', name, 'component', 'tray', 'doc', '{"x": "1"}'::jsonb))) FROM unnest(names) AS name $$;
SELECT tray('old') \g /dev/null
SELECT convex_create_subscription('late', 'convex', '{tray/*}') \g /dev/null
CALL convex_sync('late');
CREATE TABLE late.tray_clash (mine int);
INSERT INTO late.tray_clash VALUES (1);
SELECT tray('clash', 'other') \g /dev/null
SELECT convex_refresh_subscription('late') \g /dev/null
CALL convex_sync('late');
SELECT is((SELECT state || ' ' || error_code FROM convex_stat_subscription_rel WHERE name = 'late' AND table_name = 'clash'), 'error 42P16', 'a table waits for its name');
SELECT is((SELECT count(*) FROM late.tray_other), 1::bigint, 'alone');
SELECT is((SELECT mine FROM late.tray_clash), 1, 'what the user has is left alone');
DROP TABLE late.tray_clash;
SELECT convex_enable_subscription('late') \g /dev/null
CALL convex_sync('late');
SELECT is((SELECT x FROM late.tray_clash), '1', 'until it is free');

SELECT * FROM finish();
