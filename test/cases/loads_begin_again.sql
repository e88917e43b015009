-- A server that gives snapshots and says of each that its changes are no longer
-- kept had everything loaded again 150 times a second, for ever, and a table
-- that is loaded again did not always say why. A load that begins again says
-- so in its row; one of everything fails, and pauses, when it is of no use.

\ir ../pgtap/lib/setup.sql
SELECT plan(11);

SELECT emu.server('convex') \g /dev/null
SELECT emu.config('{"page_limit": 10}') \g /dev/null

CREATE FUNCTION state_of(sub text) RETURNS text LANGUAGE sql AS
$$ SELECT string_agg(concat_ws(' ', state, load, error_code, error_message), ', ') FROM convex_stat_subscription_rel WHERE name = sub $$;

SELECT emu.insert('a', jsonb_build_object('x', i)) FROM generate_series(1, 50) AS i \g /dev/null
SELECT convex_create_subscription('app', 'convex', '{a}') \g /dev/null
CALL convex_sync('app');

-- The change log is lost, once.
SELECT emu.fault('{"action": "status", "status": 400, "code": "InvalidWindowToReadDocuments", "path": "/api/document_deltas", "count": 1}') \g /dev/null
CALL convex_sync('app', 3);
SELECT is(state_of('app'), 'resyncing walking Convex no longer keeps the changes since the cursor', 'everything is loaded again, and each table says why');
CALL convex_sync('app');
SELECT is(state_of('app'), 'ready', 'until it is loaded');

-- And always.
SELECT emu.clear_journal() \g /dev/null
SELECT emu.fault('{"action": "status", "status": 400, "code": "InvalidWindowToReadDocuments", "path": "/api/document_deltas", "count": -1}') \g /dev/null
SET statement_timeout = '60s';
\set ON_ERROR_STOP 0
CALL convex_sync('app');
\set state :SQLSTATE
\set ON_ERROR_STOP 1
RESET statement_timeout;
SELECT is(:'state'::text, 'HV00L', 'a log that no cursor is good for is a failure');
SELECT is((SELECT count(*) FROM convex_stat_subscription_event WHERE kind = 'resnapshot'), 2::bigint, 'after one more load of everything');
SELECT is((SELECT concat_ws(' ', phase, last_error_class, next_attempt_at > last_error_at) FROM convex_stat_subscription), 'failing retention t', 'that pauses');
SELECT emu.clear_faults() \g /dev/null
CALL convex_sync('app');
SELECT is((SELECT phase FROM convex_stat_subscription), 'following', 'and ends');

-- Rows that are not there.
DELETE FROM app.a;
SELECT convex_refresh_subscription('app') \g /dev/null
CALL convex_sync('app', 4);
SELECT matches(state_of('app'), '^resyncing \w+ document "[^"]+" is missing$', 'a table that a check finds to differ says so');
CALL convex_sync('app');
SELECT is(state_of('app'), 'ready', 'until it is loaded again');
SELECT is((SELECT count(*) FROM app.a), 50::bigint, 'whole');

-- A walk whose snapshot is lost.
SELECT convex_resync_table('app', 'a') \g /dev/null
CALL convex_sync('app', 2);
SELECT emu.fault('{"action": "status", "status": 400, "code": "SnapshotTooOld", "path": "/api/list_snapshot", "count": 1}') \g /dev/null
CALL convex_sync('app', 2);
SELECT matches(state_of('app'), '^resyncing \w+ Convex no longer serves the snapshot: ', 'so does one whose walk begins again');
CALL convex_sync('app');
SELECT is(state_of('app'), 'ready', 'until it is loaded');

SELECT * FROM finish();
