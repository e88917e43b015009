-- Subscriptions: what was loaded is compared with Convex before anybody sees
-- it, so a table that was replaced meanwhile is never shown as it was.

\ir lib/setup.sql
CREATE EXTENSION dblink;
SELECT plan(37);

SELECT emu.server('convex', $$max_retries '0'$$) \g /dev/null
SELECT emu.config('{"page_limit": 10, "delta_limit": 20}') \g /dev/null

CREATE FUNCTION events(since bigint DEFAULT 0) RETURNS text[] LANGUAGE sql AS
$$ SELECT coalesce(array_agg(kind || coalesce(' ' || table_name, '') ORDER BY eventid), '{}') FROM convex_stat_subscription_event WHERE eventid > since $$;
CREATE FUNCTION last_event() RETURNS bigint LANGUAGE sql AS
$$ SELECT coalesce(max(eventid), 0) FROM convex_stat_subscription_event $$;
CREATE FUNCTION source(table_name text) RETURNS SETOF text LANGUAGE sql AS
$$ SELECT (d ->> '_id') || ' ' || (d ->> 'x') FROM emu.dump(table_name) AS d $$;
CREATE FUNCTION fill(table_name text, prefix text, n int) RETURNS void LANGUAGE sql AS
$$ SELECT emu.insert(table_name, VARIADIC ARRAY(SELECT jsonb_build_object('x', prefix || i) FROM generate_series(1, n) AS i)) $$;

-- Steps to the end, page by page, and notes what can be seen after each.
CREATE TABLE seen (x text, UNIQUE NULLS NOT DISTINCT (x));
CREATE PROCEDURE follow(subscription name, relation text, steps int DEFAULT 60) LANGUAGE plpgsql AS
$$
BEGIN
	FOR i IN 1 .. steps LOOP
		CALL convex_sync(subscription, 1);
		IF to_regclass(relation) IS NOT NULL THEN
			EXECUTE format('INSERT INTO seen SELECT DISTINCT left(x, 1) FROM %s ON CONFLICT DO NOTHING', relation);
		END IF;
		COMMIT;
		EXIT WHEN (SELECT bool_and(r.state = 'ready' AND r.load IS NULL) AND bool_and(NOT st.check_wanted AND st.caught_up)
			FROM convex_subscription AS s JOIN convex_subscription_state AS st USING (subid) JOIN convex_subscription_rel AS r USING (subid) WHERE s.name = subscription);
	END LOOP;
	CALL convex_sync(subscription);
END
$$;
-- A table is replaced by one with n rows, at once.
CREATE FUNCTION replace(table_name text, prefix text, n int) RETURNS void LANGUAGE plpgsql AS
$$
BEGIN
	PERFORM emu.mutate(jsonb_build_array(jsonb_build_object('op', 'drop_table', 'table', table_name)));
	PERFORM fill(table_name, prefix, n);
END
$$;
-- The same when the server is asked for this path the next time.
CREATE FUNCTION replace_at(path text, table_name text, prefix text, n int, skip int DEFAULT 0) RETURNS void LANGUAGE sql AS
$$
	SELECT emu.fault(jsonb_build_object('action', 'mutate', 'path', path, 'count', 1, 'skip', skip, 'ops', jsonb_build_array(jsonb_build_object('op', 'drop_table', 'table', table_name))));
	SELECT emu.fault(jsonb_build_object('action', 'mutate', 'path', path, 'count', 1, 'skip', skip, 'ops',
		(SELECT jsonb_agg(jsonb_build_object('op', 'insert', 'table', table_name, 'doc', jsonb_build_object('x', prefix || i))) FROM generate_series(1, n) AS i)));
$$;

-- ------------------------------------------------------------------ a first load

SELECT fill('small', 'a', 3), fill('large', 'a', 35) \g /dev/null
SELECT convex_create_subscription('first', 'convex', '{small}') \g /dev/null
CALL convex_sync('first', 1);
SELECT is((SELECT load FROM convex_stat_subscription_rel), 'indexing', 'a table has been walked');
SELECT replace('small', 'b', 2) \g /dev/null
CALL follow('first', 'first.small');
SELECT bag_eq('SELECT _id || '' '' || x FROM first.small', $$ SELECT source('small') $$, 'a table that is replaced after its walk is loaded again');
SELECT bag_eq('TABLE seen', $$ VALUES ('b') $$, 'and nobody ever sees what it was');
SELECT is(events(), '{created,"table_replaced small","table_joined small"}', 'the events tell');
SELECT ok((SELECT checked_at IS NOT NULL FROM convex_subscription_state), 'the check counts');

-- Of a table of several pages it is the tablet that tells.
SELECT last_event() AS mark \gset
SELECT convex_create_subscription('second', 'convex', '{large}') \g /dev/null
CALL convex_sync('second', 4);
SELECT is((SELECT load FROM convex_stat_subscription_rel WHERE name = 'second'), 'indexing', 'a table of several pages has been walked');
SELECT isnt((SELECT tablet FROM convex_subscription_rel WHERE table_name = 'large'), NULL, 'from a tablet that is known');
TRUNCATE seen;
SELECT replace('large', 'b', 25) \g /dev/null
CALL follow('second', 'second.large');
SELECT bag_eq('SELECT _id || '' '' || x FROM second.large', $$ SELECT source('large') $$, 'a table of several pages as well');
SELECT bag_eq('TABLE seen', $$ VALUES ('b') $$, 'and nobody ever sees what it was');
SELECT is(events(:mark), '{created,"table_replaced large","table_joined large"}', 'the events tell');

-- In the middle of the walk.
SELECT convex_drop_subscription('second', true) \g /dev/null
SELECT last_event() AS mark \gset
TRUNCATE seen;
SELECT convex_create_subscription('second', 'convex', '{large,small}') \g /dev/null
SELECT replace_at('/api/list_snapshot', 'large', 'c', 25, 1) \g /dev/null
CALL follow('second', 'second.large');
SELECT bag_eq('SELECT _id || '' '' || x FROM second.large', $$ SELECT source('large') $$, 'so is one that is replaced in the middle of its walk');
SELECT bag_eq('TABLE seen', $$ VALUES ('c') $$, 'and nobody ever sees what it was');
SELECT bag_eq('SELECT _id || '' '' || x FROM second.small', $$ SELECT source('small') $$, 'the other table of the load is there');
SELECT is((SELECT array_agg(e ORDER BY e) FROM unnest(events(:mark)) AS e), '{created,"table_joined large","table_joined small","table_replaced large"}', 'and was loaded once');

-- Dropped meanwhile.
SELECT last_event() AS mark \gset
SELECT fill('brief', 'a', 3) \g /dev/null
SELECT convex_create_subscription('third', 'convex', '{brief,small}') \g /dev/null
CALL convex_sync('third', 2);
SELECT is((SELECT array_agg(DISTINCT load) FROM convex_stat_subscription_rel WHERE name = 'third'), '{indexing}', 'two tables have been walked');
SELECT emu.mutate('[{"op": "drop_table", "table": "brief"}]') \g /dev/null
CALL convex_sync('third');
SELECT is(to_regclass('third.brief'), NULL, 'a table that is dropped after its walk does not appear');
SELECT is((SELECT state FROM convex_stat_subscription_rel WHERE name = 'third' AND table_name = 'brief'), 'dropped', 'but is known to be dropped');
SELECT bag_eq('SELECT _id || '' '' || x FROM third.small', $$ SELECT source('small') $$, 'the other one appears');
SELECT is(events(:mark), '{created,"table_dropped brief","table_joined small"}', 'the events tell');
SELECT convex_drop_subscription('third', true) \g /dev/null

-- ------------------------------------------------------------------ a table that joins, and a reload

SELECT last_event() AS mark \gset
SELECT convex_alter_subscription('first', '{small,late}') \g /dev/null
SELECT fill('late', 'a', 23) \g /dev/null
TRUNCATE seen;
CALL convex_sync('first', 1);
SELECT replace_at('/api/list_snapshot', 'late', 'b', 23, 2) \g /dev/null
CALL follow('first', 'first.late');
SELECT bag_eq('SELECT _id || '' '' || x FROM first.late', $$ SELECT source('late') $$, 'a table that joins and is replaced meanwhile is loaded again');
SELECT bag_eq('TABLE seen', $$ VALUES ('b') $$, 'and nobody ever sees what it was');
SELECT is(events(:mark), '{"table_new late","table_replaced late","table_joined late"}', 'the events tell');
SELECT emu.clear_faults() \g /dev/null

SELECT last_event() AS mark \gset
CREATE TABLE changed (x text);
CREATE FUNCTION changed() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN INSERT INTO public.changed VALUES (left(NEW.x, 1)); RETURN NULL; END $$;
CREATE TRIGGER changed AFTER INSERT OR UPDATE ON first.late FOR EACH ROW EXECUTE FUNCTION changed();
SELECT emu.mutate('[{"op": "delete_all", "table": "late"}]') \g /dev/null
SELECT fill('late', 'c', 23) \g /dev/null
SELECT replace_at('/api/list_snapshot', 'late', 'd', 23, 3) \g /dev/null
SELECT convex_resync_table('first', 'late') \g /dev/null
CALL convex_sync('first');
SELECT bag_eq('SELECT _id || '' '' || x FROM first.late', $$ SELECT source('late') $$, 'a table that is replaced during its reload is right in the end');
SELECT is((SELECT count(*) FROM unnest(events(:mark)) AS e WHERE e = 'table_replaced late'), 1::bigint, 'the event tells');
SELECT emu.clear_faults() \g /dev/null
DROP TRIGGER changed ON first.late;

-- ------------------------------------------------------------------ a long import into a table that is to be loaded

-- Rows of the import come with the changes, after each walk anew.
SELECT last_event() AS mark \gset
SELECT emu.config('{"page_limit": 100, "delta_limit": 128}') \g /dev/null
CREATE FUNCTION import(table_name text, n int, ending text) RETURNS void LANGUAGE plpgsql AS
$$
BEGIN
	EXECUTE format('COPY (SELECT 1) TO PROGRAM %L', 'cat >/dev/null; seq -f ''{"x": "i%g"}'' 1 ' || n
		|| ' | curl -q -sS --noproxy ''*'' -X POST -o /dev/null -H ''Content-Type: application/octet-stream'' -H '
		|| emu.shell_quote('Authorization: Convex ' || emu.key()) || ' --data-binary @- '
		|| emu.shell_quote(current_setting('emu.url') || '/api/import?format=jsonLines&mode=replace&tableName=' || table_name)
		|| ending);
END
$$;
SELECT emu.config('{"import_hold": "in_progress", "import_batch_rows": 1}') \g /dev/null
SELECT import('large', 30, ' >/dev/null 2>&1 &') \g /dev/null
SELECT ok(emu.wait_until($$ EXISTS (SELECT FROM jsonb_array_elements(emu.state() -> 'tables') AS t WHERE t ->> 'table' = 'large' AND t ->> 'state' = 'hidden' AND (t ->> 'documents')::int > 0) $$), 'while an import is going on');
SELECT convex_create_subscription('fourth', 'convex', '{large,small}') \g /dev/null
TRUNCATE seen;
-- Each answer about the head finds one more row of the import: it never rests.
CREATE FUNCTION hidden_rows() RETURNS int LANGUAGE sql AS
$$ SELECT sum((t ->> 'documents')::int)::int FROM jsonb_array_elements(emu.state() -> 'tables') AS t WHERE t ->> 'table' = 'large' AND t ->> 'state' = 'hidden' $$;
SELECT emu.fault('{"action": "mutate", "path": "/api/query_ts", "count": -1, "ops": [{"op": "insert", "table": "large", "hidden": true, "doc": {"x": "i"}}]}') \g /dev/null
CALL follow('fourth', 'fourth.large', 40);
SELECT cmp_ok(hidden_rows(), '>', 3, 'which adds rows after each walk');
SELECT is((SELECT state || ' ' || (retry_at IS NOT NULL) FROM convex_stat_subscription_rel WHERE name = 'fourth' AND table_name = 'large'), 'joining true', 'a table that always differs waits longer and longer');
SELECT bag_eq('SELECT _id || '' '' || x FROM fourth.small', $$ SELECT source('small') $$, 'while the others are followed');
SELECT bag_eq('TABLE seen', $$ SELECT 'x' WHERE false $$, 'and no row of the import is seen');
SELECT emu.clear_faults() \g /dev/null
SELECT emu.config('{"import_hold": null, "import_batch_rows": 8000}') \g /dev/null
SELECT ok(emu.wait_until($$ (SELECT count(*) FROM emu.dump('large') AS d WHERE d ->> 'x' LIKE 'i%') >= 30 $$), 'once the import has ended');
SELECT convex_refresh_subscription('fourth') \g /dev/null
CALL convex_sync('fourth');
SELECT bag_eq('SELECT _id || '' '' || x FROM fourth.large', $$ SELECT source('large') $$, 'convex_refresh_subscription ends the pause, and it joins');
SELECT is((SELECT load IS NULL AND retry_at IS NULL FROM convex_stat_subscription_rel WHERE name = 'fourth' AND table_name = 'large'), true, 'and has no pause any more');

-- ------------------------------------------------------------------ a check that fails

SELECT last_event() AS mark \gset
SELECT emu.fault('{"action": "status", "status": 503, "code": "TableSummariesUnavailable", "path": "/api/get_table_column_names", "count": -1}') \g /dev/null
SELECT fill('small', 'n', 1) \g /dev/null
SELECT convex_refresh_subscription('first') \g /dev/null
SELECT throws_ok($$ SELECT dblink_exec(format('host=%s port=%s dbname=%s user=postgres', split_part(current_setting('unix_socket_directories'), ',', 1), current_setting('port'), current_database()), 'CALL convex_sync(''first'')') $$, '53000', NULL, 'a check that cannot be made is an error of the call');
SELECT is((SELECT count(*) FROM first.small WHERE x = 'n1'), 1::bigint, 'after the changes have been applied');
SELECT emu.clear_faults() \g /dev/null
CALL convex_sync('first');
SELECT is((SELECT check_wanted FROM convex_subscription_state AS st JOIN convex_subscription USING (subid) WHERE name = 'first'), false, 'and is made when it can be');

-- Convex does not serve the timestamp any more: what is loaded appears all the same.
SELECT last_event() AS mark \gset
SELECT fill('aged', 'a', 3) \g /dev/null
SELECT convex_create_subscription('fifth', 'convex', '{aged}') \g /dev/null
SELECT emu.fault('{"action": "status", "status": 400, "code": "SnapshotTooOld", "path": "/api/list_snapshot", "skip": 1, "count": 1}') \g /dev/null
CALL convex_sync('fifth');
SELECT bag_eq('SELECT _id || '' '' || x FROM fifth.aged', $$ SELECT source('aged') $$, 'a table whose check Convex refuses for good is not held up');
SELECT is(events(:mark), '{created,"check_skipped aged","table_joined aged"}', 'and the event tells');

SELECT * FROM finish();
