-- Who may do what to a subscription: one line for each attempt, in order. What an attempt changes is there for the next ones.

\ir lib/setup.sql
SELECT plan(77);

CREATE EXTENSION dblink;
SELECT dblink_connect('role', format('host=%s port=%s dbname=%s user=postgres',
	split_part(current_setting('unix_socket_directories'), ',', 1), current_setting('port'), current_database())) \g /dev/null
SELECT emu.server() \g /dev/null
SELECT emu.insert(t, '{"x": "1"}') FROM unnest('{a,b,c}'::text[]) AS t \g /dev/null

CREATE ROLE alice;						-- owns subscriptions
CREATE ROLE bob IN ROLE alice;			-- is a member of hers
CREATE ROLE carol;						-- may call everything, and owns nothing
CREATE ROLE dora;						-- may read statistics
CREATE ROLE erin;						-- may call nothing
CREATE ROLE frank;						-- owns a table and a schema
CREATE ROLE gina;						-- owns the database
GRANT pg_read_all_stats TO dora;
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA public TO alice, carol;
GRANT EXECUTE ON PROCEDURE convex_sync TO alice, carol;
GRANT USAGE ON FOREIGN SERVER convex TO alice, carol;
SELECT format('CREATE USER MAPPING FOR %I SERVER convex OPTIONS (deploy_key %L)', r, emu.key()) FROM unnest('{alice,carol}'::text[]) AS r \gexec
CREATE SCHEMA hers AUTHORIZATION alice;
CREATE SCHEMA franks AUTHORIZATION frank;
SELECT format('ALTER DATABASE %I OWNER TO gina', current_database()) \gexec

-- The first column of what a role gets, 'ok' for a command, or a SQLSTATE.
CREATE FUNCTION attempt(who text, does text) RETURNS text LANGUAGE plpgsql AS
$$
DECLARE
	result text := 'ok';
BEGIN
	PERFORM public.dblink_exec('role', 'RESET ROLE');
	PERFORM public.dblink_exec('role', format('SET ROLE %I', who));
	IF does ~ '^SELECT' THEN
		SELECT x INTO result FROM public.dblink('role', format('SELECT (%s)::text', does)) AS t (x text);
		RETURN CASE WHEN does ~ '^SELECT convex_' AND does !~ 'wait_for' THEN 'ok' ELSE result END;
	END IF;
	PERFORM public.dblink_exec('role', does);
	RETURN result;
EXCEPTION WHEN OTHERS THEN
	RETURN SQLSTATE;
END
$$;

CREATE TABLE matrix (place serial, who text, does text, outcome text, why text);
INSERT INTO matrix (who, does, outcome, why) VALUES
	-- creating
	('erin', $$SELECT convex_create_subscription('s', 'convex', '{a}', 'hers')$$, '42501', 'without EXECUTE nobody calls it'),
	('carol', $$SELECT convex_create_subscription('s', 'convex', '{a}', 'hers')$$, '42501', 'a schema of somebody else takes no tables'),
	('carol', $$SELECT convex_create_subscription('s', 'convex', '{a}', 'carols')$$, '42501', 'nor is one made without CREATE on the database'),
	('alice', $$SELECT convex_create_subscription('s', 'elsewhere', '{a}', 'hers')$$, '42704', 'the server must be there'),
	('alice', $$SELECT convex_create_subscription('s', 'convex', '{a,b}', 'hers')$$, 'ok', 'an owner of a schema subscribes into it'),
	('carol', $$SELECT convex_create_subscription('s', 'convex', '{a,b}', 'hers')$$, '42710', 'a name is there once'),

	-- reading
	('alice', $$SELECT count(*) FROM convex_stat_subscription$$, '1', 'its owner sees it'),
	('bob', $$SELECT count(*) FROM convex_stat_subscription_rel$$, '2', 'so does a member'),
	('carol', $$SELECT count(*) FROM convex_stat_subscription_rel$$, '0', 'a stranger does not'),
	('carol', $$SELECT count(*) FROM convex_stat_subscription_event$$, '0', 'nor its events'),
	('carol', $$SELECT count(*) FROM convex_stat_progress_snapshot$$, '0', 'nor its loads'),
	('dora', $$SELECT count(*) FROM convex_stat_subscription$$, '1', 'a reader of statistics does'),
	('dora', $$SELECT count(*) FROM convex_subscription$$, '42501', 'but not the catalog'),
	('alice', $$SELECT count(*) FROM convex_subscription$$, '42501', 'nor does its owner'),
	('gina', $$SELECT count(*) FROM convex_subscription$$, '1', 'which is for the owner of the database'),
	('gina', $$DELETE FROM convex_subscription$$, '42501', 'to read'),
	('gina', $$SELECT count(*) FROM convex_stat_subscription$$, '0', 'it has no part in the subscription'),

	-- running
	('carol', $$CALL convex_sync('s')$$, '42501', 'a stranger does not run it'),
	('carol', $$CALL convex_sync()$$, 'ok', 'nor with all of its own'),
	('carol', $$SELECT convex_wait_for('s')$$, '42501', 'nor waits for it'),
	('carol', $$SELECT convex_start_worker('s')$$, '42501', 'nor starts its worker'),
	('carol', $$SELECT convex_stop_worker('s')$$, '42501', 'nor stops it'),
	('gina', $$CALL convex_sync('s')$$, '42501', 'nor does the owner of the database'),
	('bob', $$CALL convex_sync('s', 1)$$, 'ok', 'a member runs it'),
	('alice', $$CALL convex_sync('s')$$, 'ok', 'its owner runs it'),
	('alice', $$SELECT string_agg(tableowner, ' ') FROM pg_tables WHERE schemaname = 'hers'$$, 'alice alice', 'and owns the mirrors'),
	('carol', $$SELECT count(*) FROM hers.a$$, '42501', 'which are nobody else''s'),
	('postgres', $$CALL convex_sync('s')$$, 'ok', 'a superuser runs it'),
	('postgres', $$SELECT string_agg(tableowner, ' ') FROM pg_tables WHERE schemaname = 'hers'$$, 'alice alice', 'as its owner'),

	-- changing
	('carol', $$SELECT convex_alter_subscription('s', '{a}')$$, '42501', 'a stranger does not change it'),
	('carol', $$SELECT convex_disable_subscription('s')$$, '42501', 'nor disable it'),
	('carol', $$SELECT convex_enable_subscription('s')$$, '42501', 'nor enable it'),
	('carol', $$SELECT convex_refresh_subscription('s')$$, '42501', 'nor refresh it'),
	('carol', $$SELECT convex_resync_table('s', 'a')$$, '42501', 'nor load a table again'),
	('carol', $$SELECT convex_drop_subscription('s')$$, '42501', 'nor drop it'),
	('carol', $$SELECT convex_alter_subscription('s', owner => 'carol')$$, '42501', 'nor take it'),
	('alice', $$SELECT convex_alter_subscription('s', owner => 'carol')$$, '42501', 'its owner gives it to no role that she is not a member of'),
	('alice', $$SELECT convex_refresh_subscription('s')$$, 'ok', 'its owner refreshes it'),
	('alice', $$SELECT convex_resync_table('s', 'a')$$, 'ok', 'and loads a table again'),
	('alice', $$SELECT convex_disable_subscription('s')$$, 'ok', 'and disables it'),
	('alice', $$CALL convex_sync('s')$$, '55000', 'so that it does not run'),
	('alice', $$SELECT convex_enable_subscription('s')$$, 'ok', 'and enables it'),
	('alice', $$CALL convex_sync('s')$$, 'ok', 'so that it does'),

	-- the internals
	('alice', $$SELECT count(*) FROM convex_staging.s1_1$$, '42501', 'staging tables are nobody''s'),
	('alice', $$CREATE TABLE convex_staging.mine ()$$, '42501', 'and their schema takes none'),
	('alice', $$SELECT convex_subscription_restored()$$, '39P01', 'the trigger is no function'),
	('alice', $$INSERT INTO convex_subscription_event (subid, kind) VALUES (1, 'x')$$, '42501', 'events are written by functions only'),
	('alice', $$SELECT nextval('convex_subscription_subid')$$, '42501', 'and numbers given'),

	-- rights that end, and come back
	('postgres', $$REVOKE USAGE ON FOREIGN SERVER convex FROM alice$$, 'ok', 'a server can be taken away'),
	('alice', $$CALL convex_sync('s')$$, '42501', 'then its subscription fails'),
	('postgres', $$CALL convex_sync('s')$$, '42501', 'for a superuser, too, who has no part in it'),
	('postgres', $$GRANT USAGE ON FOREIGN SERVER convex TO alice$$, 'ok', 'and given back'),
	('postgres', $$DROP USER MAPPING FOR alice SERVER convex$$, 'ok', 'so can a mapping'),
	('postgres', $$CALL convex_sync('s')$$, '42704', 'a superuser''s own is not used instead'),
	('postgres', $$DO 'BEGIN EXECUTE format(''CREATE USER MAPPING FOR alice SERVER convex OPTIONS (deploy_key %L)'', emu.key()); END'$$, 'ok', 'and given back'),
	('alice', $$CALL convex_sync('s')$$, 'ok', 'and all is as before'),
	('alice', $$ALTER TABLE hers.a OWNER TO frank$$, '42501', 'a target is given to no role that one is not a member of'),
	('postgres', $$ALTER TABLE hers.a OWNER TO frank$$, 'ok', 'but a superuser does that'),
	('postgres', $$SELECT (SELECT count(*) FROM emu.insert('a', '{"x": "2"}'))$$, '1', 'and when something changes'),
	('alice', $$CALL convex_sync('s')$$, 'ok', 'the subscription goes on'),
	('alice', $$SELECT state || ' ' || error_code FROM convex_stat_subscription_rel WHERE table_name = 'a'$$, 'error 42501', 'without that table'),
	('postgres', $$ALTER TABLE hers.a OWNER TO alice$$, 'ok', 'until it has it back'),
	('alice', $$SELECT convex_enable_subscription('s')$$, 'ok', 'and looks at once'),
	('alice', $$CALL convex_sync('s')$$, 'ok', 'goes on'),
	('alice', $$SELECT count(*) FROM hers.a$$, '2', 'and catches up'),

	-- a superuser's subscription over others' tables
	('frank', $$CREATE TABLE franks.c (_id text COLLATE "C" PRIMARY KEY, x text, _ts bigint, _extra jsonb)$$, 'ok', 'a table of the name that a mirror is to have'),
	('postgres', $$SELECT convex_create_subscription('f', 'convex', '{c}', 'franks')$$, '42501', 'is not adopted by a superuser'),
	('postgres', $$SELECT convex_create_subscription('f', 'convex', '{c}', 'franks', options => '{"adopt": ["c"]}')$$, 'ok', 'unless it says so'),
	('postgres', $$CALL convex_sync('f')$$, 'ok', 'then it is written'),
	('frank', $$SELECT x FROM franks.c$$, '1', 'for its owner to read'),
	('frank', $$SELECT count(*) FROM convex_stat_subscription$$, '0', 'who does not see the subscription'),
	('frank', $$DROP TABLE franks.c$$, 'ok', 'and may drop its table'),
	('postgres', $$SELECT convex_drop_subscription('f', true)$$, 'ok', 'which is no hindrance to dropping the subscription'),

	-- dropping
	('alice', $$ALTER TABLE hers.b RENAME TO beta$$, 'ok', 'a renamed target'),
	('alice', $$CREATE TABLE hers.b ()$$, 'ok', 'and another table of its name'),
	('alice', $$SELECT convex_drop_subscription('s', true)$$, 'ok', 'are told apart when the targets go, too'),
	('alice', $$SELECT string_agg(tablename, ' ') FROM pg_tables WHERE schemaname = 'hers'$$, 'b', 'what is not a target stays');
SELECT is(attempt(who, does), outcome, format('%s: %s', who, why)) FROM (SELECT * FROM matrix ORDER BY place OFFSET 0) AS m;

SELECT dblink_disconnect('role') \g /dev/null
SELECT format('ALTER DATABASE %I OWNER TO postgres', current_database()) \gexec
DROP OWNED BY alice, bob, carol, dora, erin, frank, gina CASCADE;
DROP ROLE alice, bob, carol, dora, erin, frank, gina;
SELECT * FROM finish();
