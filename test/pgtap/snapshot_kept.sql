-- One snapshot for a transaction, a session or two servers, and nothing that it
-- holds back.

\ir lib/setup.sql
-- The walk is what this is about: see lookup.sql for what Convex is asked.
SET convex_fdw.pushdown = off;
SELECT plan(84);
\ir lib/snapshot.sql
SELECT never_stand_still() \g /dev/null

-- ------------------------------------------------------------------ REPEATABLE READ and SERIALIZABLE

CREATE PROCEDURE read_in_every_way() LANGUAGE plpgsql AS
$$
BEGIN
	PERFORM app.volatile_twice(), app.stable_of_stable(), app.walk();
	BEGIN
		PERFORM sum(balance) FROM app.accounts;
		RAISE division_by_zero;
	EXCEPTION WHEN division_by_zero THEN
		PERFORM sum(balance) FROM app.ledger;
	END;
END
$$;
SELECT emu.clear_journal() \g /dev/null

BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT commit_a_change() \g /dev/null
SELECT sum(balance) AS first FROM accounts \gset
SELECT * FROM taken() \gset
SELECT is(:first::bigint, sum_at(:ts), 'in REPEATABLE READ the first request takes the snapshot');
SELECT commit_a_change() \g /dev/null
SELECT is((SELECT sum(balance) FROM accounts), :first::bigint, 'in REPEATABLE READ the next statement sees the same state');
SELECT is((SELECT sum(balance) FROM ledger), :first::bigint, 'in REPEATABLE READ another table is of the same state');
DECLARE early CURSOR FOR SELECT balance FROM accounts;
SELECT sum_of_next('early', 2) AS head \gset
SAVEPOINT s;
SELECT is((SELECT sum(balance) FROM accounts), :first::bigint, 'a subtransaction reads the transaction''s snapshot');
ROLLBACK TO s;
SELECT is((SELECT sum(balance) FROM accounts), :first::bigint, 'ROLLBACK TO keeps the transaction''s snapshot');
SELECT is(:head + sum_of_next('early', 100), :first::bigint, 'a cursor reads the transaction''s snapshot');
CALL read_in_every_way();
DO 'BEGIN PERFORM sum(balance) FROM app.accounts; END';
EXECUTE summed \gset again_
SELECT is(:again_total, :first, 'a prepared statement reads the transaction''s snapshot');
INSERT INTO triggered VALUES (-1);
SELECT is((SELECT total FROM triggered WHERE i = -1), :first::bigint, 'a trigger reads the transaction''s snapshot');
SELECT is(convex_snapshot('convex'), :ts::bigint, 'convex_snapshot() tells the transaction''s snapshot');
SELECT * FROM taken() \gset used_
SELECT is(:used_snapshots, 1, 'whatever a REPEATABLE READ transaction does, it reads one snapshot');
SELECT is(:used_ts, :ts, 'and it is that of the first request');
ROLLBACK;
SELECT isnt((SELECT sum(balance) FROM accounts), :first::bigint, 'after the transaction the present state is seen');
SELECT emu.clear_journal() \g /dev/null

BEGIN ISOLATION LEVEL SERIALIZABLE;
SELECT sum(balance) AS first FROM accounts \gset
SELECT commit_a_change() \g /dev/null
CALL read_in_every_way();
SELECT is((SELECT sum(balance) FROM ledger), :first::bigint, 'in SERIALIZABLE the next statement sees the same state');
SELECT is(snapshots_taken(), 1, 'whatever a SERIALIZABLE transaction does, it reads one snapshot');
COMMIT;

BEGIN ISOLATION LEVEL REPEATABLE READ;
SAVEPOINT s;
SELECT sum(balance) AS first FROM accounts \gset
ROLLBACK TO s;
SELECT is((SELECT sum(balance) FROM accounts), :first::bigint, 'a snapshot taken in a subtransaction outlives its ROLLBACK');
SELECT is(snapshots_taken(), 1, 'no other is taken after it');
COMMIT;

BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT convex_snapshot('convex') AS told \gset
SELECT commit_a_change() \g /dev/null
SELECT is((SELECT sum(balance) FROM accounts), sum_at(:told), 'convex_snapshot() may be the first request of the transaction');
SELECT * FROM taken() \gset
SELECT is(:snapshots, 1, 'the scans after it use what it gave');
COMMIT;

BEGIN ISOLATION LEVEL REPEATABLE READ;
DECLARE held CURSOR WITH HOLD FOR SELECT balance FROM accounts;
SELECT sum(balance) AS first FROM accounts \gset
COMMIT;
SELECT is(sum_of_next('held', 100), :first::bigint, 'a WITH HOLD cursor that COMMIT reads has the transaction''s snapshot');
SELECT is(snapshots_taken(), 1, 'and no other');
CLOSE held;

BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT sum(balance) AS first FROM accounts \gset
COMMIT AND CHAIN;
SELECT cmp_ok((SELECT sum(balance) FROM accounts), '>', :first::bigint, 'COMMIT AND CHAIN begins with a new snapshot');
COMMIT;
SELECT is(snapshots_taken(), 2, 'which is one for each transaction');

BEGIN;
SELECT sum(balance) AS first FROM accounts \gset
INSERT INTO triggered VALUES (-2);
PREPARE TRANSACTION 'has read';
SELECT lives_ok('SELECT sum(balance) FROM app.accounts', 'a transaction that has read can be prepared');
COMMIT PREPARED 'has read';
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT sum(balance) AS first FROM accounts \gset
PREPARE TRANSACTION 'has read repeatably';
SELECT cmp_ok((SELECT sum(balance) FROM accounts), '>', :first::bigint, 'the snapshot of a prepared transaction is no longer used');
COMMIT PREPARED 'has read repeatably';
SELECT emu.clear_journal() \g /dev/null

-- A first request that fails fixes nothing and blocks nothing.
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT emu.fault('{"action": "status", "status": 403, "code": "OperationNotPermitted", "path": "/api/list_snapshot"}') \g /dev/null
SELECT is(emu.failure('SELECT count(*) FROM app.accounts') ->> 'sqlstate', '42501', 'a first request may fail');
SELECT emu.clear_journal() \g /dev/null
SELECT lives_ok('SELECT sum(balance) FROM app.accounts', 'the next statement asks for the snapshot then');
SELECT lives_ok('SELECT sum(balance) FROM app.accounts', 'and so on');
SELECT is(snapshots_taken(), 1, 'and fixes it for the transaction');
COMMIT;

-- ------------------------------------------------------------------ convex_snapshot()

SELECT count(*) AS others FROM accounts, LATERAL (SELECT convex_snapshot('convex') AS ts, balance) AS told
WHERE ts <> (SELECT convex_snapshot('convex')) \gset
SELECT is(:others, 0, 'convex_snapshot() is the same before the scan and at each of its rows');
SELECT is(snapshots_taken(), 1, 'and costs no second snapshot');

WITH told AS MATERIALIZED (SELECT convex_snapshot('convex') AS ts)
SELECT ts AS before, (SELECT sum(balance) FROM accounts) AS seen FROM told \gset
SELECT * FROM taken() \gset
SELECT is(:snapshots, 1, 'asked before the scan, convex_snapshot() takes the statement''s snapshot');
SELECT is(:before, :ts, 'which is what it gives');
SELECT is(:seen::bigint, sum_at(:before), 'and what the scan reads');

SELECT seen, convex_snapshot('convex') AS after FROM (SELECT sum(balance) AS seen FROM accounts OFFSET 0) AS s \gset
SELECT is(snapshots_taken(), 1, 'asked after the scan, convex_snapshot() takes no other');
SELECT is(:seen::bigint, sum_at(:after), 'and gives the one that was read');

SELECT convex_snapshot('convex') AS first \gset
SELECT convex_snapshot('convex') AS second \gset
SELECT cmp_ok(:second, '>', :first, 'on its own, convex_snapshot() gives a fresh snapshot each time');
SELECT is((SELECT count(*) FROM emu.journal('/api/list_snapshot') AS entry
		WHERE entry -> 'body' -> 'selection' @> '{"_other": "excluded"}'), 2::bigint,
	'a fresh snapshot is asked for without any table');
SELECT emu.clear_journal() \g /dev/null

-- ------------------------------------------------------------------ a pinned snapshot

SELECT convex_snapshot('convex') AS past \gset
SELECT commit_a_change() \g /dev/null
SELECT emu.clear_journal() \g /dev/null
SELECT set_config('convex_fdw.snapshot', :'past', false) \g /dev/null
SELECT is((SELECT sum(balance) FROM accounts), sum_at(:past), 'a pinned session reads the state of the pinned timestamp');
SELECT is((SELECT sum(balance) FROM ledger), sum_at(:past), 'so does its next statement');
SELECT is(volatile_twice(), ARRAY[sum_at(:past), sum_at(:past)], 'so does a VOLATILE function');
SELECT is(convex_snapshot('convex'), :past::bigint, 'convex_snapshot() tells the pinned timestamp');
SELECT ok((SELECT bool_and(entry -> 'body' -> 'snapshot' = :'past'::jsonb) FROM emu.journal('/api/list_snapshot') AS entry),
	'every request of a pinned session names the pinned timestamp');
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT is((SELECT sum(balance) FROM accounts), sum_at(:past), 'REPEATABLE READ reads the pinned timestamp, too');
COMMIT;
BEGIN;
SET LOCAL convex_fdw.snapshot = '';
SELECT cmp_ok((SELECT sum(balance) FROM accounts), '>', sum_at(:past), 'the empty string reads at the head');
COMMIT;
SELECT is((SELECT sum(balance) FROM accounts), sum_at(:past), 'SET LOCAL ends with its transaction');
RESET convex_fdw.snapshot;
SELECT cmp_ok((SELECT sum(balance) FROM accounts), '>', sum_at(:past), 'RESET ends the pinning');

-- Deleted documents and tables that changed since are as they were.
SELECT emu.insert('gone', '{"n": 1}', '{"n": 2}', '{"n": 3}', '{"n": 4}') \g /dev/null
CREATE FOREIGN TABLE gone (n int) SERVER convex;
SELECT convex_snapshot('convex') AS past \gset
SELECT emu.mutate('[{"op": "delete_all", "table": "gone"}]') \g /dev/null
SELECT is((SELECT count(*) FROM gone), 0::bigint, 'deleted documents are gone');
BEGIN;
SELECT set_config('convex_fdw.snapshot', :'past', true) \g /dev/null
SELECT results_eq('SELECT n FROM gone ORDER BY n', 'VALUES (1), (2), (3), (4)', 'and are there at a timestamp before');
COMMIT;

SELECT emu.clear_faults() \g /dev/null
SELECT emu.state() ->> 'head' AS head \gset
SELECT set_config('convex_fdw.snapshot', (:head + 1000000000)::text, false) \g /dev/null
SELECT emu.failure('SELECT count(*) FROM app.accounts') AS failed \gset
SELECT is(:'failed'::jsonb ->> 'sqlstate', 'HV00L', 'a timestamp above the head is refused');
SELECT ok(strpos(:'failed', :'head') > 0, 'the error names the head');
SELECT set_config('convex_fdw.snapshot', :'head', false) \g /dev/null
SELECT lives_ok('SELECT count(*) FROM app.accounts', 'the head itself is not too new');

SELECT emu.config('{"snapshot_max_age_ns": 1000}') \g /dev/null
SELECT commit_a_change() \g /dev/null
SELECT is(emu.failure('SELECT count(*) FROM app.accounts') ->> 'sqlstate', '72000', 'a timestamp that the server no longer serves is refused');
SELECT emu.config('{"snapshot_max_age_ns": 432000000000000}') \g /dev/null
SELECT lives_ok('SELECT count(*) FROM app.accounts', 'the session goes on after it');

SELECT is(emu.failure(format('DO %L', format('BEGIN SET convex_fdw.snapshot = %L; PERFORM count(*) FROM app.accounts; END', value)))
	->> 'sqlstate', '22023', format('%L cannot be pinned', value))
FROM unnest(ARRAY['yesterday', '12ab', '-1', '1.5', '1e18', '0x10', '99999999999999999999']) AS value;
RESET convex_fdw.snapshot;
SELECT lives_ok('SELECT count(*) FROM app.accounts', 'after RESET the session reads again');
SELECT never_stand_still() \g /dev/null
SELECT emu.clear_journal() \g /dev/null

-- ------------------------------------------------------------------ two roles, two servers

SELECT 'reader_' || current_database() AS reader \gset
DROP ROLE IF EXISTS :"reader";
CREATE ROLE :"reader";
GRANT USAGE ON FOREIGN SERVER convex TO :"reader";
GRANT USAGE, CREATE ON SCHEMA app TO :"reader";
SELECT format('CREATE USER MAPPING FOR %I SERVER convex OPTIONS (deploy_key %L)', :'reader', emu.key()) \gexec
SET ROLE :"reader";
CREATE FOREIGN TABLE app.their_ledger (_id text, name text, balance int) SERVER convex OPTIONS (table_name 'ledger');
CREATE VIEW app.their_view AS SELECT name, balance FROM app.their_ledger;
RESET ROLE;
SELECT bool_and(a.balance = v.balance) AS agree FROM accounts a JOIN their_view v USING (name) \gset
SELECT is((SELECT count(DISTINCT entry -> 'connection') FROM emu.journal('/api/list_snapshot') AS entry), 2::bigint,
	'a view is read with its owner''s mapping, over a connection of its own');
SELECT is(snapshots_taken(), 1, 'two roles of one server share the snapshot within a statement');
SELECT ok(:'agree', 'and see one state');
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT sum(balance) AS first FROM accounts \gset
SELECT is((SELECT sum(balance) FROM their_view), :first::bigint, 'two roles of one server share the snapshot of a transaction');
SELECT is(snapshots_taken(), 1, 'and take no other');
COMMIT;

SELECT emu.server('second') \g /dev/null
CREATE FOREIGN TABLE second_ledger (name text, balance int) SERVER second OPTIONS (table_name 'ledger');
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT sum(a.balance) AS sum_a, sum(l.balance) AS sum_b FROM accounts a JOIN second_ledger l USING (name) \gset
SELECT is(snapshots_taken(), 2, 'two servers have a snapshot each');
SELECT is((SELECT ROW (sum(a.balance), sum(l.balance)) FROM accounts a JOIN second_ledger l USING (name)),
	ROW (:sum_a::bigint, :sum_b::bigint), 'and keep it to the end of a REPEATABLE READ transaction');
SELECT is(snapshots_taken(), 2, 'both of them');
COMMIT;

-- ------------------------------------------------------------------ nothing is held back

CREATE EXTENSION dblink;
SELECT dblink_connect('other', format('host=%s port=%s dbname=%s user=postgres',
	split_part(current_setting('unix_socket_directories'), ',', 1), current_setting('port'), current_database())) \g /dev/null
SELECT pid AS other FROM dblink('other', 'SELECT pg_backend_pid()') AS t (pid int) \gset
SELECT dblink_exec('other', 'SET search_path = app, public') \g /dev/null

-- Does the other session, between two statements, hold back the horizon?
CREATE FUNCTION other_holds(pid int) RETURNS boolean LANGUAGE sql AS
$$ SELECT backend_xmin IS NOT NULL FROM pg_stat_activity WHERE pg_stat_activity.pid = other_holds.pid $$;
CREATE FUNCTION other_does(statement text) RETURNS text LANGUAGE sql AS
$$ SELECT dblink_exec('other', statement) $$;
CREATE FUNCTION other_reads(query text) RETURNS bigint LANGUAGE sql AS
$$ SELECT count(*) FROM dblink('other', format('SELECT row_to_json(t)::text FROM (%s) AS t', query), false) AS t (line text) $$;

SELECT other_does('BEGIN') \g /dev/null
SELECT other_does('DO $$BEGIN PERFORM sum(balance) FROM accounts; PERFORM sum(balance) FROM ledger; END$$') \g /dev/null
SELECT ok(NOT other_holds(:other), 'no xmin is held back between the statements of a READ COMMITTED transaction');
SELECT other_reads('SELECT sum(a.balance) FROM accounts a JOIN ledger l USING (name)') \g /dev/null
SELECT ok(NOT other_holds(:other), 'nor after a join');
SELECT other_reads('SELECT stable_of_stable(), volatile_twice(), convex_snapshot(''convex'')') \g /dev/null
SELECT ok(NOT other_holds(:other), 'nor after functions with exception blocks');
SELECT other_reads('SELECT fail_in_the_middle()') \g /dev/null
SELECT ok(NOT other_holds(:other), 'nor after commands that failed in exception blocks');
SELECT other_reads('SELECT balance FROM accounts LIMIT 1') \g /dev/null
SELECT ok(NOT other_holds(:other), 'nor after a scan that was not read to its end');
SELECT other_does('SAVEPOINT s') \g /dev/null
SELECT other_reads('SELECT 1 / (balance - balance) FROM accounts') \g /dev/null
SELECT other_does('ROLLBACK TO s') \g /dev/null
SELECT ok(NOT other_holds(:other), 'nor after ROLLBACK TO');
SELECT other_does('DECLARE c CURSOR FOR SELECT balance FROM accounts') \g /dev/null
SELECT count(*) FROM dblink('other', 'FETCH 2 FROM c') AS t (balance int) \g /dev/null
SELECT ok(other_holds(:other), 'an open cursor holds its own snapshot, as any cursor does');
SELECT other_does('CLOSE c') \g /dev/null
SELECT ok(NOT other_holds(:other), 'a closed one does not');
SELECT other_does('COMMIT') \g /dev/null
SELECT ok(NOT other_holds(:other), 'no xmin is held back after COMMIT');

-- ------------------------------------------------------------------ rows that are rechecked

-- The other session waits for our row and then looks at its condition again.
CREATE TABLE locked (name text, v int);
INSERT INTO locked SELECT min(name), 0 FROM accounts;
SELECT dblink_connect('holder', format('host=%s port=%s dbname=%s user=postgres',
	split_part(current_setting('unix_socket_directories'), ',', 1), current_setting('port'), current_database())) \g /dev/null
SELECT dblink_exec('holder', 'BEGIN') \g /dev/null
SELECT dblink_exec('holder', 'UPDATE app.locked SET v = 1') \g /dev/null
SELECT emu.clear_journal() \g /dev/null
SELECT dblink_send_query('other', $$
	UPDATE locked SET v = v + 10
	WHERE (SELECT count(*) FROM accounts a WHERE a.balance >= locked.v) = (SELECT count(*) FROM ledger l WHERE l.balance >= locked.v) $$) \g /dev/null
SELECT ok(emu.wait_until(format('(SELECT wait_event_type = ''Lock'' FROM pg_stat_activity WHERE pid = %s)', :other)),
	'an UPDATE waits for a row');
SELECT dblink_exec('holder', 'COMMIT') \g /dev/null
SELECT status FROM dblink_get_result('other') AS t (status text) \gset
SELECT count(*) AS rest FROM dblink_get_result('other') AS t (status text) \gset
SELECT is((SELECT v FROM locked), 11, 'it goes on when the row is free');
SELECT is(snapshots_taken(), 1, 'looking at a changed row again reads the statement''s snapshot');

-- The same with a join, whose foreign row is not read again.
SELECT dblink_exec('holder', 'BEGIN') \g /dev/null
SELECT dblink_exec('holder', 'UPDATE app.locked SET v = 2') \g /dev/null
SELECT emu.clear_journal() \g /dev/null
SELECT dblink_send_query('other', $$
	UPDATE locked SET v = v + 10 FROM accounts a JOIN ledger l ON a.name = l.name AND a.balance = l.balance
	WHERE a.name = locked.name AND a.balance > locked.v $$) \g /dev/null
SELECT ok(emu.wait_until(format('(SELECT wait_event_type = ''Lock'' FROM pg_stat_activity WHERE pid = %s)', :other)), 'an UPDATE with a join waits for a row');
SELECT dblink_exec('holder', 'COMMIT') \g /dev/null
SELECT status FROM dblink_get_result('other') AS t (status text) \gset
SELECT count(*) AS rest FROM dblink_get_result('other') AS t (status text) \gset
SELECT is((SELECT v FROM locked), 12, 'it changes the row as the other transaction left it');
SELECT is(snapshots_taken(), 1, 'with the rows of one snapshot');
SELECT dblink_disconnect('holder') \g /dev/null
SELECT dblink_disconnect('other') \g /dev/null

DROP VIEW their_view;
DROP FOREIGN TABLE their_ledger;
DROP OWNED BY :"reader";
DROP ROLE :"reader";
SELECT * FROM finish();
