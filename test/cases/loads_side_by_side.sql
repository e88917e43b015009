-- Two tables that were loaded again at once, for owners that are no superusers, met at the schema of the staging tables: XX000
-- "tuple concurrently updated".  Subscriptions have nothing to do with each other: both succeed, without waiting.

\ir ../pgtap/lib/setup.sql
CREATE EXTENSION dblink;
SELECT plan(7);

SELECT emu.insert(t, '{"n": 1}', '{"n": 2}') FROM unnest('{a,b}'::text[]) AS t \g /dev/null
CREATE ROLE loads_one;
CREATE ROLE loads_two;
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA public TO loads_one, loads_two;
GRANT EXECUTE ON PROCEDURE convex_sync TO loads_one, loads_two;

-- The same deployment by two names, so that both walk at once.
SELECT format('CREATE SERVER %I FOREIGN DATA WRAPPER convex_fdw OPTIONS (deployment_url %L, max_retries ''0'')', name, replace(current_setting('emu.url'), '127.0.0.1', host))
FROM (VALUES ('one', '127.0.0.1'), ('two', 'localhost')) AS s (name, host) \gexec
SELECT format('CREATE USER MAPPING FOR %I SERVER %I OPTIONS (deploy_key %L)', 'loads_' || s, s, emu.key()) FROM unnest('{one,two}'::text[]) AS s \gexec
SELECT format('GRANT USAGE ON FOREIGN SERVER %1$I TO loads_%1$s', s) FROM unnest('{one,two}'::text[]) AS s \gexec
SELECT format('CREATE SCHEMA %1$I AUTHORIZATION loads_%1$s', s) FROM unnest('{one,two}'::text[]) AS s \gexec
SELECT dblink_connect(s, format('host=%s port=%s dbname=%s user=postgres', split_part(current_setting('unix_socket_directories'), ',', 1), current_setting('port'), current_database())),
	dblink_exec(s, 'SET ROLE loads_' || s) FROM unnest('{one,two}'::text[]) AS s \g /dev/null
SELECT * FROM dblink('one', 'SELECT convex_create_subscription(''one'', ''one'', ''{a}'')') AS t (n int), dblink('two', 'SELECT convex_create_subscription(''two'', ''two'', ''{b}'')') AS u (n int) \g /dev/null
SELECT one, two FROM dblink('one', 'SELECT pg_backend_pid()') AS t (one int), dblink('two', 'SELECT pg_backend_pid()') AS u (two int) \gset

-- The first one stops in the midst of its transaction until this session lets it go on.
CREATE FUNCTION public.stop() RETURNS event_trigger LANGUAGE plpgsql AS
'BEGIN IF current_setting(''application_name'') = ''stops'' THEN PERFORM pg_advisory_xact_lock(4711); END IF; END';
CREATE FUNCTION public.stop_row() RETURNS trigger LANGUAGE plpgsql AS
'BEGIN PERFORM pg_advisory_xact_lock(4711); RETURN NEW; END';
CREATE FUNCTION waits(pid int) RETURNS text LANGUAGE sql AS
$$ SELECT format('EXISTS (SELECT FROM pg_locks WHERE pid = %s AND NOT granted)', $1) $$;
-- Both calls, one begun while the other is stopped; whether it waits, and what each ends with.
CREATE FUNCTION call_both(one int, two int) RETURNS text LANGUAGE plpgsql AS
$$
DECLARE
	s text;
	x text;
	result text := '';
BEGIN
	PERFORM pg_advisory_lock(4711);
	PERFORM dblink_send_query('one', 'CALL convex_sync(''one'')');
	PERFORM emu.wait_until(waits(one));
	PERFORM dblink_send_query('two', 'CALL convex_sync(''two'')');
	PERFORM emu.wait_until(format('dblink_is_busy(''two'') = 0 OR %s', waits(two)));
	result := CASE dblink_is_busy('two') WHEN 0 THEN 'beside: ' ELSE 'after: ' END;
	PERFORM pg_advisory_unlock(4711);
	FOREACH s IN ARRAY '{one,two}'::text[] LOOP
		BEGIN
			SELECT t.x INTO x FROM dblink_get_result(s) AS t (x text);
			result := result || x || ' ';
		EXCEPTION WHEN OTHERS THEN
			result := result || SQLSTATE || ' ' || SQLERRM || ' ';
		END;
		PERFORM * FROM dblink_get_result(s) AS t (x text);
	END LOOP;
	RETURN result;
END
$$;

CREATE EVENT TRIGGER stop ON ddl_command_end WHEN TAG IN ('CREATE SCHEMA') EXECUTE FUNCTION public.stop();
SELECT dblink_exec('one', 'SET application_name = ''stops''') \g /dev/null
SELECT is(call_both(:one, :two), 'after: CALL CALL ', 'two first loads make the schema of the staging tables');
DROP EVENT TRIGGER stop;
SELECT is((SELECT ROW ((SELECT count(*) FROM one.a), (SELECT count(*) FROM two.b))::text), '(2,2)', 'and both have loaded their tables');

-- ------------------------------------------------------------------ beside rows that are there

CREATE TRIGGER stop BEFORE INSERT ON one.a FOR EACH ROW EXECUTE FUNCTION public.stop_row();
DELETE FROM one.a WHERE n = 1;
DELETE FROM two.b WHERE n = 1;
SELECT convex_resync_table('one', 'a'), convex_resync_table('two', 'b') \g /dev/null
SELECT is(call_both(:one, :two), 'beside: CALL CALL ', 'two tables are loaded again at once');
SELECT is((SELECT ROW ((SELECT count(*) FROM one.a), (SELECT count(*) FROM two.b))::text), '(2,2)', 'both of them');

-- ------------------------------------------------------------------ and nothing is left open

SELECT is(has_schema_privilege('loads_one', 'convex_staging', 'USAGE'), false, 'nobody has rights on the schema of the staging tables');
SELECT is((SELECT count(*) FROM pg_class WHERE relnamespace = 'convex_staging'::regnamespace), 0::bigint, 'and nothing of them is left');

SELECT dblink_disconnect(s) FROM unnest('{one,two}'::text[]) AS s \g /dev/null
SELECT convex_drop_subscription(s, true) FROM unnest('{one,two}'::text[]) AS s \g /dev/null
DROP SCHEMA one, two;
SELECT format('DROP USER MAPPING FOR loads_%1$s SERVER %1$I; DROP SERVER %1$I', s) FROM unnest('{one,two}'::text[]) AS s \gexec
DROP OWNED BY loads_one, loads_two;
SELECT lives_ok('DROP ROLE loads_one, loads_two', 'roles leave no rights behind');

SELECT * FROM finish();
