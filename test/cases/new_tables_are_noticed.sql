-- New tables that appeared within 10 s of another one were missed, those of a pattern like wl/* always, and one that came
-- back after it was dropped, too: the cursor moved past the changes that name them, and only the hourly check found them.
-- They enter in the commit that moves the cursor, so that CALL convex_sync and convex_wait_for have them.

\ir ../pgtap/lib/setup.sql
CREATE EXTENSION dblink;
SELECT plan(27);

SELECT emu.server('convex', $$max_retries '0'$$) \g /dev/null
SELECT emu.insert('first', '{"n": 0}') \g /dev/null
SELECT emu.mutate('[{"op": "insert", "table": "first", "component": "wl", "doc": {"n": 0}}, {"op": "insert", "table": "first", "component": "other", "doc": {"n": 0}}, {"op": "create_table", "table": "empty"}]') \g /dev/null
SELECT convex_create_subscription('every', 'convex'), convex_create_subscription('part', 'convex', '{first,wl/*}'), convex_create_subscription('named', 'convex', '{first,empty}') \g /dev/null
CALL convex_sync();

CREATE FUNCTION add(table_name text, component text DEFAULT '') RETURNS jsonb LANGUAGE sql AS
$$ SELECT emu.mutate(jsonb_build_array(jsonb_build_object('op', 'insert', 'table', table_name, 'component', component, 'doc', '{"n": 1}'::jsonb))) $$;
-- The subscription's tables with their rows.
CREATE FUNCTION tables(subscription name) RETURNS jsonb LANGUAGE plpgsql AS
$$
DECLARE
	r record;
	n bigint;
	result jsonb := '{}';
BEGIN
	FOR r IN SELECT * FROM convex_stat_subscription_rel WHERE name = subscription AND state = 'ready' LOOP
		EXECUTE format('SELECT count(*) FROM %I.%I', r.target_schema, r.target_name) INTO n;
		result := result || jsonb_build_object(r.target_name, n);
	END LOOP;
	RETURN result;
END
$$;
CREATE PROCEDURE add_and_sync(times int) LANGUAGE plpgsql AS
$$
BEGIN
	FOR i IN 1..times LOOP
		PERFORM add('t' || i), add('t' || i, 'wl'), add('t' || i, 'other');
		COMMIT;
		CALL convex_sync();
	END LOOP;
END
$$;
CALL add_and_sync(3);
SELECT is(tables('every'), '{"first": 1, "wl_first": 1, "other_first": 1, "empty": 0, "t1": 1, "t2": 1, "t3": 1, "wl_t1": 1, "wl_t2": 1, "wl_t3": 1, "other_t1": 1, "other_t2": 1, "other_t3": 1}',
	'tables that appear one soon after the other are all there after the call');
SELECT is(tables('part'), '{"first": 1, "wl_first": 1, "wl_t1": 1, "wl_t2": 1, "wl_t3": 1}', 'and so are new ones of a component');
SELECT is(tables('named'), '{"first": 1, "empty": 0}', 'and nothing that was not asked for');

-- The request asks for what the patterns name.
SELECT emu.clear_journal() \g /dev/null
CALL convex_sync('part');
SELECT is((SELECT r #> '{body,selection}' FROM emu.journal('/api/document_deltas') AS r LIMIT 1),
	'{"_other": "excluded", "": {"_other": "excluded", "first": {"_other": "included"}}, "wl": {"_other": "included"}}', 'a pattern of a component is asked for as that');

-- ------------------------------------------------------------------ dropped, and back

SELECT emu.mutate('[{"op": "drop_table", "table": "t1"}, {"op": "drop_table", "table": "t1", "component": "wl"}, {"op": "drop_table", "table": "empty"}]') \g /dev/null
SELECT convex_refresh_subscription(name) FROM unnest('{every,part,named}'::name[]) AS name \g /dev/null
CALL convex_sync();
SELECT is((SELECT string_agg(name || ' ' || target_name, ', ' ORDER BY name, target_name) FROM convex_stat_subscription_rel WHERE state = 'dropped'), 'every empty, every t1, every wl_t1, named empty, part wl_t1', 'tables are dropped');
SELECT add('t1'), add('t1'), add('t1', 'wl'), add('empty') \g /dev/null
CALL convex_sync();
SELECT is((SELECT count(*) FROM convex_stat_subscription_rel WHERE state <> 'ready'), 0::bigint, 'when they come back, the change log tells');
SELECT is(tables('every') -> 't1', '2', 'with the rows that they have now');
SELECT is(tables('part') -> 'wl_t1', '1', 'in a component, too');
SELECT is(tables('named') -> 'empty', '1', 'and by name');

-- ------------------------------------------------------------------ a worker

SELECT convex_alter_subscription('every', poll_interval => '50 ms') \g /dev/null
SELECT convex_start_worker('every') \g /dev/null
CREATE TABLE waited (n int, said boolean, rows jsonb);
CREATE PROCEDURE add_and_wait(first int, last int) LANGUAGE plpgsql AS
$$
BEGIN
	FOR i IN first..last LOOP
		PERFORM add('w' || i);
		COMMIT;
		INSERT INTO waited SELECT i, convex_wait_for('every'), NULL;
		COMMIT;
		UPDATE waited SET rows = tables('every') -> ('w' || i) WHERE n = i;
		COMMIT;
	END LOOP;
END
$$;
CALL add_and_wait(1, 3);
SELECT is((SELECT array_agg(said ORDER BY n) FROM waited), '{t,t,t}', 'convex_wait_for waits for new tables');
SELECT is((SELECT array_agg(rows ORDER BY n) FROM waited), '{1,1,1}', 'and is true when they are there');
SELECT convex_stop_worker('every') \g /dev/null

-- ------------------------------------------------------------------ a look that fails

SELECT emu.fault('{"action": "status", "status": 503, "code": "TableSummariesUnavailable", "path": "/api/get_table_column_names", "count": -1}') \g /dev/null
SELECT add('late'), add('first') \g /dev/null
CREATE FUNCTION sync_fails() RETURNS text LANGUAGE sql AS
$$
	SELECT emu.failure(format('SELECT dblink_exec(%L, ''CALL convex_sync(''''every'''')'')', format('host=%s port=%s dbname=%s user=postgres',
		split_part(current_setting('unix_socket_directories'), ',', 1), current_setting('port'), current_database()))) ->> 'sqlstate'
$$;
SELECT is(sync_fails(), '53000', 'a call that cannot look for tables fails');
SELECT is(tables('every') -> 'first', '2', 'the changes of the others are there all the same');
SELECT is(tables('every') -> 'late', NULL, 'the new table is not');
SELECT emu.clear_faults() \g /dev/null
CALL convex_sync('every');
SELECT is(tables('every') -> 'late', '1', 'but the next call has it, though the cursor is past what named it');
SELECT is((SELECT phase FROM convex_stat_subscription WHERE name = 'every'), 'following', 'and all is well');

-- ------------------------------------------------------------------ what is not listed

-- A table that is gone again before anybody looks.
SELECT add('gone'), emu.mutate('[{"op": "drop_table", "table": "gone"}]'), emu.clear_journal() \g /dev/null
CALL convex_sync('every');
SELECT cmp_ok((SELECT count(*) FROM emu.journal('/api/get_table_column_names')), '<=', 1::bigint, 'a table that is not listed costs one look at most');
SELECT is((SELECT count(*) FROM emu.journal('/api/list_snapshot')), 0::bigint, 'and no check of the others');
SELECT is(tables('every') -> 'gone', NULL, 'and does not appear');
SELECT is((SELECT count(*) FROM convex_stat_subscription_rel WHERE table_name = 'gone'), 0::bigint, 'nor wait');

SELECT throws_ok(format('SELECT convex_create_subscription(''bad'', ''convex'', %L)', ARRAY[pattern]), '22023', NULL, format('pattern "%s" is refused', pattern)) FROM unnest('{wl//*,wl /*,1x/wl/*,wl-x/*,/,a*,//a}'::text[]) AS pattern;

SELECT * FROM finish();
