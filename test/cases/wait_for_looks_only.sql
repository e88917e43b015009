-- convex_wait_for wrote a renamed target or owner into the catalog, within the caller's transaction, and so held up the
-- process that it waited for until its own timeout; in a READ ONLY transaction it failed. It looked at all locks of the
-- server 50 times a second and took memory with each look.

\ir ../pgtap/lib/setup.sql
CREATE EXTENSION dblink;
SELECT plan(10);

SELECT emu.server() \g /dev/null
SELECT emu.insert('a', '{"n": 0}'), emu.mutate('[{"op": "create_table", "table": "b"}]') \g /dev/null
CREATE ROLE wait_for_owner SUPERUSER;
SET ROLE wait_for_owner;
SELECT format('CREATE USER MAPPING FOR CURRENT_USER SERVER convex OPTIONS (deploy_key %L)', emu.key()) \gexec
SELECT convex_create_subscription('app', 'convex') \g /dev/null
CALL convex_sync('app');
RESET ROLE;
SELECT dblink_connect('one', format('host=%s port=%s dbname=%s user=postgres', split_part(current_setting('unix_socket_directories'), ',', 1), current_setting('port'), current_database())) \g /dev/null

-- ------------------------------------------------------------------ it writes nothing

CREATE FUNCTION writes(statement text) RETURNS text LANGUAGE plpgsql AS
$$
DECLARE
	said text;
BEGIN
	EXECUTE statement INTO said;
	RETURN said || CASE WHEN pg_current_xact_id_if_assigned() IS NULL THEN ', and writes nothing' ELSE ', and writes' END;
END
$$;
ALTER TABLE app.a RENAME TO renamed;
SELECT is(writes('SELECT convex_wait_for(''app'', 1)'), 'true, and writes nothing', 'a renamed target is left to the process that steps');
ALTER ROLE wait_for_owner RENAME TO wait_for_another;
SELECT is(writes('SELECT convex_wait_for(''app'', 1)'), 'true, and writes nothing', 'so is a renamed owner');
DROP TABLE app.b;
SELECT is(writes('SELECT convex_wait_for(''app'', 1)'), 'true, and writes nothing', 'and a target that is gone');
BEGIN READ ONLY;
SELECT is(convex_wait_for('app', 1), true, 'it works in a READ ONLY transaction');
COMMIT;
BEGIN;
SELECT convex_wait_for('app', 1) \g /dev/null
SELECT is(dblink_exec('one', 'SET lock_timeout = ''10 s'''), 'SET', 'while a transaction that has waited is open');
SELECT is(dblink_exec('one', 'CALL convex_sync(''app'')'), 'CALL', 'the subscription can be stepped');
COMMIT;
SELECT is((SELECT string_agg(target_name || ' ' || owner, ', ' ORDER BY target_name) FROM convex_subscription_rel JOIN convex_subscription USING (subid)), 'b wait_for_another, renamed wait_for_another', 'which enters the new names');

-- ------------------------------------------------------------------ what a wait costs

SELECT emu.fault('{"action": "stall", "path": "/api/document_deltas", "count": -1}') \g /dev/null
SELECT dblink_send_query('one', $$ CALL convex_sync('app') $$) \g /dev/null
SELECT emu.wait_until($$ EXISTS (SELECT FROM emu.journal('/api/document_deltas')) AND (SELECT pid FROM convex_stat_subscription) IS NOT NULL $$) \g /dev/null
-- The most memory that this process has had, in kB.
CREATE FUNCTION memory() RETURNS int LANGUAGE sql AS
$$ SELECT (regexp_match(pg_read_file('/proc/' || pg_backend_pid() || '/status'), 'VmHWM:\s+(\d+) kB'))[1]::int $$;
SELECT convex_wait_for('app', 9223372036854775807, '200 ms') \g /dev/null
SELECT memory() AS memory \gset
SELECT is(convex_wait_for('app', 9223372036854775807, '3 s'), false, 'a wait of three seconds');
SELECT cmp_ok(memory() - :memory, '<', 600, 'takes no more memory than a short one');
CREATE FUNCTION looks_in(duration interval) RETURNS bigint LANGUAGE plpgsql AS
$$
DECLARE
	before bigint := (SELECT coalesce(seq_scan, 0) + coalesce(idx_scan, 0) FROM pg_stat_xact_user_tables WHERE relname = 'convex_subscription_state');
BEGIN
	PERFORM convex_wait_for('app', 9223372036854775807, duration);
	RETURN (SELECT coalesce(seq_scan, 0) + coalesce(idx_scan, 0) FROM pg_stat_xact_user_tables WHERE relname = 'convex_subscription_state') - before;
END
$$;
SELECT cmp_ok(looks_in('2 s'), '<', 40::bigint, 'it looks ten times a second at most, when nobody can wake it');
SELECT emu.clear_faults() \g /dev/null
SELECT * FROM dblink_get_result('one') AS t (x text) \g /dev/null
SELECT * FROM dblink_get_result('one') AS t (x text) \g /dev/null
SELECT dblink_disconnect('one') \g /dev/null
SELECT convex_drop_subscription('app') \g /dev/null
DROP USER MAPPING FOR wait_for_another SERVER convex;
DROP OWNED BY wait_for_another;
DROP ROLE wait_for_another;
SELECT * FROM finish();
