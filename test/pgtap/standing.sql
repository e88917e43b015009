-- Every state in which a table can stand still: how it shows itself, and what
-- ends it.

\ir lib/setup.sql
SELECT plan(32);

SELECT emu.server('convex', $$max_retries '0'$$) \g /dev/null
CREATE EXTENSION dblink;
SELECT format('host=%s port=%s dbname=%s user=postgres', split_part(current_setting('unix_socket_directories'), ',', 1),
	current_setting('port'), current_database()) AS conninfo \gset
SELECT dblink_connect('second', :'conninfo') \g /dev/null
CREATE FUNCTION stands(sub text, named text DEFAULT 'a') RETURNS text LANGUAGE sql AS
$$ SELECT concat_ws(' ', state, load, coalesce(waits_for, '-'), error_code) FROM convex_stat_subscription_rel WHERE name = sub AND table_name = named $$;
CREATE FUNCTION whole(sub text) RETURNS text LANGUAGE sql AS
$$ SELECT concat_ws(' ', phase, last_error_class, CASE WHEN next_attempt_at > now() THEN 'paused' END) FROM convex_stat_subscription WHERE name = sub $$;
CREATE FUNCTION is_due() RETURNS boolean LANGUAGE sql AS
$$ SELECT bool_and(coalesce(retry_at < clock_timestamp(), true)) FROM convex_stat_subscription_rel WHERE name = 'app' $$;
SELECT emu.insert('a', '{"x": 1}') \g /dev/null
SELECT emu.insert('b', '{"x": 1}') \g /dev/null

-- No process.
SELECT convex_create_subscription('app', 'convex', '{a}', options => '{"table_check_interval": "1 d"}') \g /dev/null
SELECT is(stands('app'), 'joining wanted worker', 'a table waits for a worker, or a CALL');
CALL convex_sync('app');
SELECT is(stands('app'), 'ready worker', 'so does one that was followed');
SELECT is((SELECT count(*) FROM app.a), 1::bigint, 'the CALL ended it');

-- Disabled.
SELECT convex_disable_subscription('app') \g /dev/null
SELECT is(stands('app'), 'ready enable', 'a table of a subscription that is disabled waits for a person');
SELECT convex_enable_subscription('app') \g /dev/null
SELECT is(stands('app'), 'ready worker', 'who enables it');

-- The target refuses rows, and takes them again.
ALTER TABLE app.a ADD CONSTRAINT small CHECK (x < 5);
SELECT emu.insert('a', '{"x": 9}') \g /dev/null
\set ON_ERROR_STOP 0
CALL convex_sync('app');
\set ON_ERROR_STOP 1
SELECT is(stands('app'), 'error catching_up retry_at 23514', 'a target that refuses rows waits until retry_at');
SELECT ok((SELECT retry_at > now() AND error_message ~ 'small' FROM convex_stat_subscription_rel WHERE name = 'app'), 'which the view has, with the constraint');
ALTER TABLE app.a DROP CONSTRAINT small;
SELECT emu.wait_until('is_due()') \g /dev/null
CALL convex_sync('app');
SELECT is(stands('app'), 'ready worker', 'and goes on after that');
SELECT is((SELECT count(*) FROM app.a), 2::bigint, 'and nothing is lost');

-- The target is gone, and a table of somebody else's has its name.
CREATE ROLE stranger;
CREATE SCHEMA kept;
ALTER TABLE app.a SET SCHEMA kept;
DROP TABLE kept.a;
CREATE TABLE kept.a (_id text);
ALTER TABLE kept.a OWNER TO stranger;
SELECT emu.insert('a', '{"x": 3}') \g /dev/null
\set ON_ERROR_STOP 0
CALL convex_sync('app');
CALL convex_sync('app');
\set ON_ERROR_STOP 1
SELECT matches(stands('app'), '^(joining|error|resyncing).* retry_at \w{5}$', 'a table whose target is not to be had waits until retry_at');
SELECT ok((SELECT error_message <> '' FROM convex_stat_subscription_rel WHERE name = 'app'), 'and says why');
DROP TABLE kept.a;
SELECT convex_resync_table('app', 'a') \g /dev/null
CALL convex_sync('app');
SELECT is(stands('app'), 'ready worker', 'it is made again when somebody asks for it');

-- Convex fails.
SELECT emu.fault('{"path": "/api", "count": -1, "action": "status", "status": 401, "code": "BadAdminKey"}') \g /dev/null
\set ON_ERROR_STOP 0
CALL convex_sync('app');
\set ON_ERROR_STOP 1
SELECT is(stands('app'), 'ready next_attempt_at', 'a table of a subscription that fails waits for its next attempt');
SELECT is(whole('app'), 'failing auth paused', 'which the subscription''s view has, with the class');
SELECT emu.clear_faults() \g /dev/null
CALL convex_sync('app');
SELECT is(stands('app') || ', ' || whole('app'), 'ready worker, following auth', 'a CALL tries it at once');

-- A check, or a new table, fails and the changes do not.
SELECT convex_alter_subscription('app', tables => '{a,b}') \g /dev/null
SELECT emu.fault('{"path": "/api/list_snapshot", "count": -1, "action": "status", "status": 503, "code": "Overloaded"}') \g /dev/null
\set ON_ERROR_STOP 0
CALL convex_sync('app');
\set ON_ERROR_STOP 1
SELECT matches(stands('app', 'b'), '^joining (wanted|walking) next_attempt_at', 'a load that Convex does not serve waits for the next attempt');
SELECT is(whole('app'), 'failing overload paused', 'for the reason that the subscription has');
SELECT isnt(stands('app'), 'ready next_attempt_at', 'and holds up no other table');
SELECT emu.clear_faults() \g /dev/null
CALL convex_sync('app');
SELECT is(stands('app', 'b'), 'ready worker', 'then it joins');

-- Another walk of the deployment.
SELECT emu.fault('{"path": "/api/list_snapshot", "count": 1, "action": "stall", "seconds": 60}') \g /dev/null
SELECT convex_create_subscription('one', 'convex', '{a}', 'one') \g /dev/null
SELECT convex_create_subscription('two', 'convex', '{a}', 'two') \g /dev/null
SELECT dblink_send_query('second', $$CALL convex_sync('one')$$) \g /dev/null
SELECT emu.wait_until($$ (SELECT load FROM convex_stat_subscription_rel WHERE name = 'one') = 'walking' AND EXISTS (SELECT FROM emu.journal('/api/list_snapshot')) $$) \g /dev/null
SELECT dblink_connect('third', :'conninfo') \g /dev/null
SELECT dblink_send_query('third', $$CALL convex_sync('two')$$) \g /dev/null
SELECT emu.wait_until($$ stands('two') = 'joining wanted walk' $$) \g /dev/null
SELECT is(stands('two'), 'joining wanted walk', 'a load waits for another walk of the deployment');
SELECT is(stands('one'), 'joining walking -', 'which is under way');
SELECT dblink_cancel_query('second') \g /dev/null
SELECT emu.wait_until($$ stands('two') ~ '^ready' $$) \g /dev/null
SELECT matches(stands('two'), '^ready', 'and ends with it');
SELECT dblink_disconnect('third'), dblink_disconnect('second') \g /dev/null
CALL convex_sync('one');
SELECT is(stands('one'), 'ready worker', 'what was cancelled goes on at the next CALL');

-- A load that outlives its snapshot.
\set gone '{"path": "/api/list_snapshot", "action": "status", "status": 400, "code": "SnapshotTooOld"}'
SELECT convex_create_subscription('slow', 'convex', '{a}', 'slow') \g /dev/null
SELECT emu.config('{"page_limit": 1}') \g /dev/null
CALL convex_sync('slow', 1);
SELECT emu.fault(:'gone') \g /dev/null
CALL convex_sync('slow', 1);
CALL convex_sync('slow', 1);
SELECT emu.fault(:'gone') \g /dev/null
CALL convex_sync('slow', 1);
SELECT is((SELECT phase FROM convex_stat_subscription WHERE name = 'slow'), 'load_too_slow', 'a load that outlived its snapshot twice');
SELECT matches(stands('slow'), ' enable', 'waits for a person');
SELECT ok((SELECT error_message <> '' FROM convex_stat_subscription_rel WHERE name = 'slow'), 'and says why');
SELECT emu.clear_faults() \g /dev/null
SELECT convex_enable_subscription('slow') \g /dev/null
CALL convex_sync('slow');
SELECT is(stands('slow'), 'ready worker', 'who enables it again');

-- A restored catalog.
SELECT is((SELECT string_agg(DISTINCT waits_for, ' ') FROM convex_stat_subscription_rel), 'worker', 'all wait for a worker');
UPDATE convex_subscription SET home = 'elsewhere' WHERE name = 'slow';
SELECT is(stands('slow'), 'ready enable', 'a subscription of another server waits for a person');
SELECT convex_enable_subscription('slow') \g /dev/null
SELECT is(stands('slow'), 'ready worker', 'who enables it here');

-- What is not selected does not wait.
SELECT convex_alter_subscription('app', tables => '{a}') \g /dev/null
CALL convex_sync('app');
SELECT is(stands('app', 'b'), 'dropped -', 'a table that is not selected waits for nothing');
SELECT is((SELECT count(*) FROM app.b), 1::bigint, 'and keeps its rows');

SELECT * FROM finish();
