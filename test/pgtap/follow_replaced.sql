-- Subscriptions: imports that end and that fail, clears, and tables that are
-- dropped, with polls before, during and after. One subscription is refreshed
-- by hand, the other one waits for its own check.

\ir lib/setup.sql
CREATE EXTENSION dblink;
SELECT plan(57);

SELECT emu.server('convex', $$max_retries '0'$$) \g /dev/null

-- ------------------------------------------------------------------ tools

CREATE FUNCTION fill(table_name text, prefix text, n int) RETURNS void LANGUAGE sql AS
$$ SELECT emu.insert(table_name, VARIADIC ARRAY(SELECT jsonb_build_object('x', prefix || i) FROM generate_series(1, n) AS i)) $$;
CREATE FUNCTION clear(table_name text) RETURNS void LANGUAGE plpgsql AS
$$
BEGIN
	EXECUTE format('COPY (SELECT 1) TO PROGRAM %L', 'cat >/dev/null; curl -q -sS --fail --noproxy ''*'' -X PUT -o /dev/null -H ''Content-Type: application/json'' -H '
		|| emu.shell_quote('Authorization: Convex ' || emu.key()) || ' --data ' || emu.shell_quote(jsonb_build_object('tableNames', ARRAY[table_name])::text)
		|| ' ' || emu.shell_quote(current_setting('emu.url') || '/api/streaming_import/clear_tables'));
END
$$;
-- `npx convex import --replace` of n rows, perhaps with one at the end that Convex refuses; does not wait.
CREATE FUNCTION import(table_name text, n int, fails boolean, mode text DEFAULT 'replace') RETURNS void LANGUAGE plpgsql AS
$$
BEGIN
	EXECUTE format('COPY (SELECT 1) TO PROGRAM %L', 'cat >/dev/null; { seq -f ''{"x": "i%g"}'' 1 ' || n
		|| CASE WHEN fails THEN '; echo ''{"x": "bad", "_creationTime": -1}''' ELSE '' END
		|| '; } | curl -q -sS --noproxy ''*'' -X POST -o /dev/null -H ''Content-Type: application/octet-stream'' -H '
		|| emu.shell_quote('Authorization: Convex ' || emu.key()) || ' --data-binary @- '
		|| emu.shell_quote(current_setting('emu.url') || '/api/import?format=jsonLines&mode=' || mode || '&tableName=' || table_name)
		|| ' >/dev/null 2>&1 &');
END
$$;
CREATE FUNCTION documents_of(table_name text, state text) RETURNS int LANGUAGE sql AS
$$ SELECT coalesce(sum((t ->> 'documents')::int), 0)::int FROM jsonb_array_elements(emu.state() -> 'tables') AS t WHERE t ->> 'table' = table_name AND t ->> 'state' = $2 $$;

-- What a mirror has and Convex has not, and the other way round.
CREATE FUNCTION difference(subscription name, table_name text) RETURNS text LANGUAGE plpgsql AS
$$
DECLARE
	result text;
BEGIN
	EXECUTE format($q$ WITH source AS MATERIALIZED (SELECT d ->> '_id', d ->> 'x' FROM emu.dump(%1$L) AS d), mirror AS MATERIALIZED (SELECT _id, x FROM %2$I.%1$I)
		SELECT (SELECT count(*) FROM (TABLE mirror EXCEPT ALL TABLE source) AS s) || ' ' || (SELECT count(*) FROM (TABLE source EXCEPT ALL TABLE mirror) AS l) $q$, table_name, subscription) INTO result;
	RETURN result;
END
$$;
CREATE FUNCTION events(subscription name, since bigint) RETURNS text LANGUAGE sql AS
$$ SELECT coalesce(string_agg(kind, ' ' ORDER BY eventid), '') FROM convex_stat_subscription_event WHERE name = subscription AND eventid > since AND kind <> 'drift' $$;

CREATE TABLE result (n serial, subscription name, what text, how text, have text, want text);

-- A poll of both; with a look, each in its own way.
CREATE PROCEDURE poll(looks boolean) LANGUAGE plpgsql AS
$$
BEGIN
	CALL convex_sync('refreshed');
	IF looks THEN
		PERFORM convex_refresh_subscription('refreshed');
		COMMIT;
		CALL convex_sync('refreshed');
		UPDATE convex_subscription_state AS st SET checked_at = checked_at - interval '1 h' FROM convex_subscription AS s WHERE s.subid = st.subid AND s.name = 'checked';
		COMMIT;
	END IF;
	CALL convex_sync('checked');
END
$$;
CREATE PROCEDURE compare(table_name text, how text) LANGUAGE sql AS
$$ INSERT INTO result (subscription, what, how, have, want) SELECT s.name, table_name, how, difference(s.name, table_name), '0 0' FROM convex_subscription AS s $$;
CREATE PROCEDURE expect_events(table_name text, since bigint, want text) LANGUAGE sql AS
$$ INSERT INTO result (subscription, what, how, have, want) SELECT s.name, table_name, 'and the events tell', events(s.name, since), want FROM convex_subscription AS s $$;
CREATE FUNCTION last_event() RETURNS bigint LANGUAGE sql AS
$$ SELECT coalesce(max(eventid), 0) FROM convex_stat_subscription_event $$;

-- Rows come and go in the other tables, and in this one, all the time.
CREATE PROCEDURE stir(table_name text) LANGUAGE plpgsql AS
$$
BEGIN
	PERFORM emu.mutate(jsonb_build_array('{"op": "insert", "table": "calm", "doc": {"x": "more"}}'::jsonb, jsonb_build_object('op', 'insert', 'table', table_name, 'doc', '{"x": "more"}'::jsonb)));
END
$$;

SELECT fill('calm', 'c', 50), fill('imported', 'a', 1500), fill('failed', 'a', 1500), fill('cleared', 'a', 1500), fill('dropped', 'a', 1500), fill('again', 'a', 1500), fill('exact', 'a', 1024) \g /dev/null
SELECT convex_create_subscription('refreshed', 'convex') \g /dev/null
SELECT convex_create_subscription('checked', 'convex', options => '{"table_check_interval": "30 min"}') \g /dev/null
CALL poll(true);

-- ------------------------------------------------------------------ an import

CREATE PROCEDURE import_and_look(table_name text, fails boolean) LANGUAGE plpgsql AS
$$
DECLARE
	mark bigint := last_event();
	had int := documents_of(table_name, 'active');
BEGIN
	PERFORM emu.config('{"import_hold": "in_progress", "import_batch_rows": 300}');
	PERFORM import(table_name, 1000, fails);
	PERFORM emu.wait_until(format('documents_of(%L, ''hidden'') > 300', table_name));
	CALL stir(table_name);
	COMMIT;
	CALL poll(true);
	CALL compare(table_name, 'while an import is going on, shows what Convex shows after a look');
	CALL expect_events(table_name, mark, 'table_replaced table_resynced');
	COMMIT;
	PERFORM emu.config('{"import_hold": null}');
	IF fails THEN
		PERFORM emu.wait_until(format('documents_of(%L, ''hidden'') >= 900', table_name));
	ELSE
		PERFORM emu.wait_until(format('documents_of(%L, ''active'') = 1000', table_name));
	END IF;
	mark := last_event();
	CALL stir(table_name);
	COMMIT;
	CALL poll(false);
	CALL poll(true);
	CALL compare(table_name, CASE WHEN fails THEN 'after an import that failed, is what it was' ELSE 'after the import, is equal after one look' END);
	CALL expect_events(table_name, mark, 'table_replaced table_resynced');
END
$$;
CALL import_and_look('imported', false);
SELECT is(documents_of('imported', 'active'), 1001, 'an import has replaced a table');
CALL import_and_look('failed', true);
SELECT is(documents_of('failed', 'active'), 1502, 'an import that fails has replaced nothing');

-- ------------------------------------------------------------------ a clear

CREATE PROCEDURE clear_and_look(table_name text, stirs boolean) LANGUAGE plpgsql AS
$$
DECLARE
	mark bigint := last_event();
BEGIN
	IF stirs THEN
		CALL stir(table_name);
		COMMIT;
	END IF;
	CALL poll(false);
	PERFORM clear(table_name);
	COMMIT;
	CALL poll(false);
	IF stirs THEN
		CALL stir(table_name);
		COMMIT;
	END IF;
	CALL poll(true);
	CALL compare(table_name, 'after a clear, is equal after one look');
	CALL expect_events(table_name, mark, 'table_replaced table_resynced');
END
$$;
CALL clear_and_look('cleared', true);
SELECT is(documents_of('cleared', 'active'), 1, 'a table has been emptied');

-- The look before ended at the last document of a full page: nothing is behind it, before and after.
SELECT isnt((SELECT min(check_cursor) FROM convex_subscription_rel WHERE table_name = 'exact'), NULL, 'a table is a whole page');
CALL clear_and_look('exact', false);

-- ------------------------------------------------------------------ dropped, and made again

CREATE PROCEDURE drop_and_look(table_name text) LANGUAGE plpgsql AS
$$
DECLARE
	mark bigint := last_event();
BEGIN
	CALL stir(table_name);
	COMMIT;
	CALL poll(false);
	PERFORM emu.mutate(jsonb_build_array(jsonb_build_object('op', 'drop_table', 'table', table_name)));
	COMMIT;
	CALL poll(false);
	CALL poll(true);
	INSERT INTO result (subscription, what, how, have, want) SELECT name, r.table_name, 'once dropped, is known to be', state, 'dropped' FROM convex_stat_subscription_rel AS r WHERE r.table_name = 'dropped';
	CALL expect_events(table_name, mark, 'table_dropped');
	mark := last_event();
	PERFORM fill(table_name, 'b', 1200);
	COMMIT;
	CALL poll(false);
	CALL poll(true);
	CALL compare(table_name, 'once it is back, is equal after one look');
	CALL expect_events(table_name, mark, 'table_returned table_resynced');
END
$$;
CALL drop_and_look('dropped');

CREATE PROCEDURE make_again_and_look(table_name text) LANGUAGE plpgsql AS
$$
DECLARE
	mark bigint := last_event();
BEGIN
	CALL stir(table_name);
	COMMIT;
	CALL poll(false);
	PERFORM emu.mutate(jsonb_build_array(jsonb_build_object('op', 'drop_table', 'table', table_name)));
	PERFORM fill(table_name, 'b', 1200);
	COMMIT;
	CALL poll(false);
	CALL stir(table_name);
	COMMIT;
	CALL poll(true);
	CALL compare(table_name, 'dropped and made again between two looks, is equal after one');
	CALL expect_events(table_name, mark, 'table_replaced table_resynced');
END
$$;
CALL make_again_and_look('again');

-- ------------------------------------------------------------------ an import into a table that is not there yet

CREATE PROCEDURE import_new_and_look(table_name text) LANGUAGE plpgsql AS
$$
DECLARE
	mark bigint := last_event();
BEGIN
	PERFORM emu.config('{"import_hold": "in_progress", "import_batch_rows": 300}');
	PERFORM import(table_name, 1000, false);
	PERFORM emu.wait_until(format('documents_of(%L, ''hidden'') > 300', table_name));
	COMMIT;
	CALL poll(false);
	CALL poll(true);
	INSERT INTO result (subscription, what, how, have, want) SELECT name, table_name, 'while its first import is going on, is not there', coalesce(to_regclass(name || '.' || table_name)::text, 'none'), 'none' FROM convex_subscription;
	CALL expect_events(table_name, mark, '');
	PERFORM emu.config('{"import_hold": null}');
	PERFORM emu.wait_until(format('documents_of(%L, ''active'') = 1000', table_name));
	COMMIT;
	CALL poll(true);
	CALL compare(table_name, 'is loaded whole once it is listed');
	CALL expect_events(table_name, mark, 'table_new table_joined');
END
$$;
CALL import_new_and_look('fresh');

-- ------------------------------------------------------------------ the verdict

CALL compare('calm', 'which nobody replaced, is equal');
SELECT is(have, want, format('%s.%s, %s', subscription, what, how)) FROM result ORDER BY n;
SELECT is((SELECT count(*) FROM result), 46::bigint, 'all of them were looked at');
SELECT is((SELECT count(*) FROM convex_stat_subscription_event WHERE table_name = 'calm' AND kind <> 'table_joined'), 0::bigint, 'other tables are left alone');
SELECT is((SELECT array_agg(DISTINCT phase) FROM convex_stat_subscription), '{following}', 'and both subscriptions follow');

-- ------------------------------------------------------------------ a restore of everything

TRUNCATE result;
CREATE PROCEDURE restore_and_look() LANGUAGE plpgsql AS
$$
BEGIN
	PERFORM import('calm', 1000, false, 'replaceAll');
	PERFORM emu.wait_until('documents_of(''calm'', ''active'') = 1000');
	COMMIT;
	CALL poll(false);
	CALL poll(true);
	CALL compare('calm', 'after a restore, is equal after one look');
END
$$;
SELECT count(*) AS imported_rows FROM refreshed.imported \gset
CALL restore_and_look();
SELECT is(have, want, format('%s.%s, %s', subscription, what, how)) FROM result ORDER BY n;
SELECT is((SELECT array_agg(DISTINCT state) FROM convex_stat_subscription_rel WHERE table_name <> 'calm'), '{dropped}', 'tables that a restore does not bring are dropped');
SELECT is((SELECT count(*) FROM refreshed.imported), :imported_rows::bigint, 'and their rows stay');

SELECT * FROM finish();
