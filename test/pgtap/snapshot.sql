-- One snapshot: which scans read the same state of the deployment?
--
-- Nearly everything here runs while the emulator commits a change before each
-- page it is asked for, so that two scans agree only if they name the same
-- snapshot.

\ir lib/setup.sql
-- The walk is what this is about: see lookup.sql for what Convex is asked.
SET convex_fdw.pushdown = off;
SELECT plan(81);
\ir lib/snapshot.sql

-- ------------------------------------------------------------------ a join

SELECT never_stand_still() \g /dev/null

-- Documents come and go as well.
SELECT emu.fault(jsonb_build_object('action', 'mutate', 'path', '/api/list_snapshot', 'skip', 2 * place,
		'ops', jsonb_build_array(
			jsonb_build_object('op', 'delete', 'table', 'accounts', 'id', a ->> '_id'),
			jsonb_build_object('op', 'delete', 'table', 'ledger', 'id', l ->> '_id'),
			jsonb_build_object('op', 'insert', 'table', 'accounts', 'doc',
				jsonb_build_object('name', 'new' || place, 'balance', place)),
			jsonb_build_object('op', 'insert', 'table', 'ledger', 'doc',
				jsonb_build_object('name', 'new' || place, 'balance', place)))))
FROM (SELECT a, l, row_number() OVER () AS place FROM emu.dump('accounts') AS a
	JOIN emu.dump('ledger') AS l ON l ->> 'name' = a ->> 'name' LIMIT 8) AS pairs \g /dev/null


SELECT emu.clear_journal() \g /dev/null
SELECT jsonb_agg(jsonb_build_array(a.name, a.balance, l.balance) ORDER BY a.name) AS seen
FROM accounts a FULL JOIN ledger l USING (name) \gset
SELECT is((SELECT count(*) FROM emu.journal('/api/list_snapshot') AS entry WHERE entry -> 'body' -> 'snapshot' IS NULL),
	1::bigint, 'one request takes the snapshot and the other table waits for it');
SELECT * FROM taken() \gset
SELECT is(:snapshots, 1, 'a join of two tables names one snapshot on all of its pages');
SELECT is(:'seen'::jsonb, joined_at(:ts), 'a join under constant change is the state of one timestamp');
SELECT isnt(joined_at(:ts), joined_at((emu.state() ->> 'head')::bigint), 'meanwhile the tables have changed');
SELECT never_stand_still() \g /dev/null

SET enable_hashjoin = off;
SET enable_mergejoin = off;
SELECT emu.clear_journal() \g /dev/null
SELECT jsonb_agg(jsonb_build_array(a.name, a.balance, l.balance) ORDER BY a.name) AS seen
FROM accounts a LEFT JOIN ledger l USING (name) \gset
SELECT * FROM taken() \gset
SELECT is(:snapshots, 1, 'a nested loop names one snapshot');
SELECT is(:'seen'::jsonb, joined_at(:ts), 'a nested loop is the state of one timestamp');
RESET enable_hashjoin;
RESET enable_mergejoin;

SELECT count(*) AS seen FROM (SELECT name, balance FROM accounts EXCEPT SELECT name, balance FROM ledger) AS odd \gset
SELECT is(:seen, 0, 'EXCEPT of two tables that always agree is empty');
SELECT is(snapshots_taken(), 1, 'the branches of a set operation share the snapshot');

SELECT sum(a.balance) = sum(b.balance) AS seen FROM accounts a JOIN accounts b USING (_id) \gset
SELECT ok(:'seen', 'a table joined with itself agrees with itself');
SELECT is(snapshots_taken(), 1, 'both scans of a self-join share the snapshot');

-- ------------------------------------------------------------------ one executor

WITH counted AS MATERIALIZED (SELECT sum(balance) AS total FROM accounts)
SELECT array_agg(DISTINCT total) AS totals, max(ts) AS told, count(DISTINCT ts) AS tellings
FROM (SELECT convex_snapshot('convex') AS ts, ARRAY[
		(SELECT total FROM counted),
		(SELECT sum(balance) FROM ledger),
		stable_sql(), stable_plpgsql(), stable_that_catches(),
		(SELECT sum(l.balance) FROM ledger l WHERE l.balance > a.balance - 1000)] AS totals
	FROM accounts a
	WHERE balance <= (SELECT max(balance) FROM ledger)
		AND EXISTS (SELECT FROM ledger l WHERE l.name = a.name AND l.balance = a.balance)
		AND a.name IN (SELECT name FROM stable_set())
	OFFSET 0) AS parts, unnest(totals) AS total \gset
SELECT * FROM taken() \gset
SELECT is(:snapshots, 1,
	'sub-plans, a CTE, init plans and STABLE functions read the snapshot of the executor that runs them');
SELECT is(:'totals'::bigint[], ARRAY[sum_at(:ts)], 'all of them give the sum at that timestamp');
SELECT is(:tellings, 1, 'convex_snapshot() gives one value throughout the statement');
SELECT is(:told::bigint, :ts::bigint, 'convex_snapshot() gives the snapshot that the scans use');

SELECT count(DISTINCT n) AS seen FROM (SELECT stable_sql() AS n FROM generate_series(1, 4)
	UNION ALL SELECT stable_plpgsql() FROM generate_series(1, 4)) AS calls \gset
SELECT is(:seen, 1, 'STABLE functions called many times give one result when only they scan');
SELECT is(snapshots_taken(), 1, 'STABLE functions share the snapshot when only they scan');

SELECT stable_of_stable() AS seen \gset
SELECT * FROM taken() \gset
SELECT is(:snapshots, 1, 'STABLE functions that call STABLE functions, with and without exception blocks, share the snapshot');
SELECT is(:seen::bigint, 5 * sum_at(:ts), 'and give sums of one timestamp');

SELECT stable_that_catches() + sum(balance) + stable_that_catches() AS seen FROM accounts \gset
SELECT * FROM taken() \gset
SELECT is(:snapshots, 1, 'an exception block in a STABLE function leaves the statement its snapshot');
SELECT is(:seen::bigint, 3 * sum_at(:ts), 'and its result is that of one timestamp');

SELECT count(*) AS seen FROM stable_set() AS f JOIN ledger l USING (name) WHERE f.balance <> l.balance \gset
SELECT is(:seen, 0, 'a STABLE set-returning function in FROM agrees with the table beside it');
SELECT is(snapshots_taken(), 1, 'and shares its snapshot');

CREATE TABLE copied AS SELECT a.balance = l.balance AS agrees FROM accounts a JOIN ledger l USING (name);
SELECT is(snapshots_taken(), 1, 'CREATE TABLE AS reads one snapshot');
SELECT ok((SELECT bool_and(agrees) FROM copied), 'CREATE TABLE AS stores the state of one timestamp');
INSERT INTO copied SELECT l.balance = (SELECT a.balance FROM accounts a WHERE a.name = l.name) FROM ledger l;
SELECT is(snapshots_taken(), 1, 'INSERT ... SELECT reads one snapshot');
SELECT ok((SELECT bool_and(agrees) FROM copied), 'INSERT ... SELECT stores the state of one timestamp');

CREATE MATERIALIZED VIEW materialized AS
	SELECT a.balance = l.balance AS agrees FROM accounts a JOIN ledger l USING (name);
SELECT is(snapshots_taken(), 1, 'a materialized view is filled from one snapshot');
REFRESH MATERIALIZED VIEW materialized;
SELECT is(snapshots_taken(), 1, 'REFRESH MATERIALIZED VIEW reads one snapshot');
SELECT ok((SELECT bool_and(agrees) FROM materialized), 'a materialized view holds the state of one timestamp');

-- A WITH query that also writes is still one command.
WITH written AS (INSERT INTO copied SELECT balance > 0 FROM accounts RETURNING agrees)
SELECT count(*) + (SELECT count(*) FROM ledger) AS seen FROM written \gset
SELECT is(snapshots_taken(), 1, 'a WITH query that writes reads one snapshot with the rest of the statement');

-- ------------------------------------------------------------------ READ COMMITTED: a command, a snapshot

SELECT commit_a_change() \g /dev/null
BEGIN;
SELECT sum(balance) AS first FROM accounts \gset
SELECT sum(balance) AS second FROM accounts \gset
SELECT is(snapshots_taken(), 2, 'in READ COMMITTED each statement takes its own snapshot');
SELECT cmp_ok(:second, '>', :first, 'in READ COMMITTED the next statement sees what was committed meanwhile');
COMMIT;

SELECT volatile_twice() AS sums \gset
SELECT is(snapshots_taken(), 2, 'each command in a VOLATILE PL/pgSQL function takes its own snapshot');
SELECT cmp_ok((:'sums'::bigint[])[2], '>', (:'sums'::bigint[])[1], 'the second one sees what was committed meanwhile');

SELECT volatile_sql() \g /dev/null
SELECT is(snapshots_taken(), 2, 'each command in a VOLATILE SQL function takes its own snapshot');
SELECT cmp_ok((SELECT total FROM two_sums WHERE place = 2), '>', (SELECT total FROM two_sums WHERE place = 1),
	'the second one sees what was committed meanwhile');

SELECT array_agg(volatile_plpgsql() ORDER BY i) AS sums FROM generate_series(1, 3) AS i \gset
SELECT is(snapshots_taken(), 3, 'each call of a VOLATILE function takes its own snapshot');

SELECT array_agg(stable_plpgsql()) AS sums, volatile_plpgsql() AS volatile_sum, max(outer_total) AS outer_total
FROM (SELECT sum(balance) AS outer_total, stable_plpgsql() AS early FROM accounts) AS o \gset
SELECT is(snapshots_taken(), 2, 'a VOLATILE function beside STABLE ones and a scan takes the second snapshot of the statement');
SELECT is(:'sums'::bigint[], ARRAY[:outer_total]::bigint[], 'the STABLE function agrees with the scan');
SELECT cmp_ok(:volatile_sum, '>', :outer_total, 'the VOLATILE function sees what was committed meanwhile');

-- The statement goes on with its own pages after a VOLATILE function has read.
SELECT sum(balance) AS seen, max(ts) AS used
FROM (SELECT balance, convex_snapshot('convex') AS ts, volatile_plpgsql() FROM accounts OFFSET 0) AS rows \gset
SELECT is(snapshots_taken(), 13, 'a VOLATILE function called for each row takes a snapshot for each call');
SELECT is(:seen::bigint, sum_at(:used), 'the scan that calls it keeps its own to the last page');

DO $$
BEGIN
	PERFORM sum(balance) FROM app.accounts;
	PERFORM sum(balance) FROM app.accounts;
	PERFORM app.stable_sql(), app.stable_plpgsql();
END
$$;
SELECT is(snapshots_taken(), 3, 'each command of a DO block takes its own snapshot, shared by the STABLE functions it calls');

CREATE PROCEDURE read_thrice() LANGUAGE plpgsql AS
$$
BEGIN
	PERFORM sum(balance) FROM app.accounts;
	PERFORM sum(balance) FROM app.accounts;
	COMMIT;
	PERFORM sum(balance) FROM app.accounts;
END
$$;
CALL read_thrice();
SELECT is(snapshots_taken(), 3, 'each command of a procedure takes its own snapshot, before and after COMMIT');

-- A loop over a query is one command; what it does in between are others.
SELECT sums[1] AS total, sums[2] AS used, sums[3] AS other FROM walk() AS sums \gset
SELECT is(snapshots_taken(), 2, 'a FOR loop and the command in its body take one snapshot each');
SELECT is(:total::bigint, sum_at(:used), 'a FOR loop keeps its snapshot whatever its body reads');
SELECT cmp_ok(:other, '>', :total, 'the body sees what was committed meanwhile');

-- COMMIT in the loop makes its cursor a held one.
CREATE PROCEDURE walk_and_commit(INOUT total bigint, INOUT used bigint) LANGUAGE plpgsql AS
$$
DECLARE
	r record;
BEGIN
	total := 0;
	FOR r IN SELECT balance, convex_snapshot('convex') AS ts FROM app.accounts LOOP
		total := total + r.balance;
		used := r.ts;
		COMMIT;
	END LOOP;
END
$$;
CALL walk_and_commit(NULL, NULL) \gset
SELECT is(snapshots_taken(), 1, 'a FOR loop whose body commits takes one snapshot');
SELECT is(:total::bigint, sum_at(:used), 'and keeps it to its end');
CREATE PROCEDURE walk_and_roll_back(INOUT total bigint, INOUT used bigint) LANGUAGE plpgsql AS
$$
DECLARE
	r record;
BEGIN
	total := 0;
	FOR r IN SELECT balance, convex_snapshot('convex') AS ts FROM app.accounts LOOP
		total := total + r.balance;
		used := r.ts;
		ROLLBACK;
	END LOOP;
END
$$;
CALL walk_and_roll_back(NULL, NULL) \gset
SELECT is(snapshots_taken(), 1, 'a FOR loop whose body rolls back takes one snapshot');
SELECT is(:total::bigint, sum_at(:used), 'and keeps it to its end, too');

SELECT sum(balance) AS seen, min(ts) AS used, min(other) <> max(other) AS differs
FROM (SELECT a.balance, convex_snapshot('convex') AS ts, (SELECT min(v) FROM volatile_set(a.balance - 1000) AS v) AS other
	FROM accounts a OFFSET 0) AS rows \gset
SELECT is(:seen::bigint, sum_at(:used), 'a scan keeps its snapshot beside a VOLATILE set-returning function');
SELECT ok(:'differs', 'whose calls have each their own');
SELECT emu.clear_journal() \g /dev/null

INSERT INTO triggered SELECT i FROM generate_series(1, 3) AS i;
SELECT is(snapshots_taken(), 3, 'each command of a trigger takes its own snapshot');
SELECT is((SELECT count(DISTINCT total) FROM triggered), 3::bigint, 'each row''s trigger sees what was committed meanwhile');
TRUNCATE triggered;
INSERT INTO triggered SELECT max(balance) FROM accounts UNION ALL SELECT max(balance) FROM ledger;
SELECT is(snapshots_taken(), 3, 'the statement that fires the triggers has one snapshot of its own');
SELECT is((SELECT count(DISTINCT i) FROM triggered), 1::bigint, 'and reads one state');

EXECUTE summed \gset first_
EXECUTE summed \gset second_
SELECT cmp_ok(:second_total, '>', :first_total, 'each execution of a prepared statement takes its own snapshot');
SELECT is(snapshots_taken(), 2, 'each execution of a prepared statement takes one snapshot');
SET plan_cache_mode = force_generic_plan;
PREPARE above (int) AS SELECT count(*) = (SELECT count(*) FROM ledger WHERE balance > $1) AS agrees
	FROM accounts WHERE balance > $1;
EXECUTE above (5) \gset first_
EXECUTE above (30) \gset second_
SELECT ok(:'first_agrees' AND :'second_agrees', 'a generic plan reads one snapshot an execution');
SELECT is(snapshots_taken(), 2, 'a generic plan takes a new snapshot for each execution');
RESET plan_cache_mode;

-- ------------------------------------------------------------------ cursors

BEGIN;
DECLARE early CURSOR FOR SELECT balance FROM accounts;
SELECT sum_of_next('early', 2) AS head \gset
SELECT * FROM taken() \gset early_
SELECT sum(balance) AS between FROM accounts \gset
DECLARE late CURSOR FOR SELECT balance FROM accounts;
SELECT sum_of_next('late', 1) AS late_head \gset
SELECT snapshots AS others, ts AS late_ts FROM taken() \gset
SELECT is(:others, 2, 'while a cursor is open, other statements and cursors of the transaction take snapshots of their own');
SELECT commit_a_change() \g /dev/null
SELECT is(:head + sum_of_next('early', 100), sum_at(:early_ts), 'a cursor keeps its snapshot until it is closed');
SELECT cmp_ok(:between::bigint, '>', sum_at(:early_ts), 'a statement beside it sees what was committed meanwhile');
SELECT is(:late_head + sum_of_next('late', 100), sum_at(:late_ts), 'a second cursor keeps its own');
COMMIT;
SELECT emu.clear_journal() \g /dev/null

BEGIN;
DECLARE calling CURSOR FOR SELECT stable_plpgsql() + stable_sql() + stable_that_catches() FROM generate_series(1, 4);
SELECT sum_of_next('calling', 1) AS first \gset
SELECT sum(balance) AS between FROM accounts \gset
SELECT commit_a_change() \g /dev/null
SELECT is(sum_of_next('calling', 1), :first::bigint, 'the STABLE functions that a cursor calls read the cursor''s snapshot at every FETCH');
SELECT sum(balance) AS between FROM accounts \gset
SELECT is(sum_of_next('calling', 1), :first::bigint, 'also after other statements have taken theirs');
SELECT is(snapshots_taken(), 3, 'so there is one snapshot for the cursor and one for each statement');
CLOSE calling;
COMMIT;

BEGIN;
DECLARE told CURSOR FOR SELECT convex_snapshot('convex') FROM generate_series(1, 3);
SELECT sum_of_next('told', 1) AS first \gset
SELECT commit_a_change() \g /dev/null
SELECT isnt(convex_snapshot('convex'), :first::bigint, 'a statement beside a cursor has another snapshot');
SELECT is(sum_of_next('told', 1), :first::bigint, 'convex_snapshot() in a cursor''s query tells the cursor''s');
COMMIT;
SELECT emu.clear_journal() \g /dev/null

BEGIN;
DECLARE scrolling SCROLL CURSOR FOR SELECT balance FROM accounts;
SELECT sum_of_next('scrolling', 100) AS forward \gset
SELECT commit_a_change() \g /dev/null
MOVE ABSOLUTE 0 IN scrolling;
SELECT is(sum_of_next('scrolling', 100), :forward::bigint, 'a cursor that is rewound shows the same state again');
SELECT is(snapshots_taken(), 1, 'a cursor that is rewound asks for no other snapshot');
COMMIT;

BEGIN;
DECLARE held CURSOR WITH HOLD FOR SELECT balance FROM accounts;
SELECT sum_of_next('held', 1) AS head \gset
SELECT * FROM taken() \gset
SELECT commit_a_change() \g /dev/null
COMMIT;
SELECT commit_a_change() \g /dev/null
SELECT is(snapshots_taken(), 1, 'COMMIT reads the rest of a WITH HOLD cursor at one snapshot');
SELECT is(:head + sum_of_next('held', 100), sum_at(:ts), 'a WITH HOLD cursor has the rows of its snapshot after COMMIT');
CLOSE held;

BEGIN;
DECLARE held CURSOR WITH HOLD FOR SELECT a.balance - l.balance FROM accounts a JOIN ledger l USING (name);
COMMIT;
SELECT is(snapshots_taken(), 1, 'a WITH HOLD cursor that is first read at COMMIT takes one snapshot');
SELECT is(sum_of_next('held', 100), 0::bigint, 'and holds the state of one timestamp');
CLOSE held;

-- Neither the cursor nor a half of it moves when the session is pinned.
SET enable_async_append = off;
BEGIN;
DECLARE united CURSOR FOR SELECT balance FROM accounts UNION ALL SELECT balance FROM ledger;
SELECT sum_of_next('united', 2) AS head \gset
SELECT * FROM taken() \gset
SELECT commit_a_change() \g /dev/null
SELECT set_config('convex_fdw.snapshot', (emu.state() ->> 'head'), true) \g /dev/null
SELECT is(:head + sum_of_next('united', 100), 2 * sum_at(:ts), 'an open cursor keeps its snapshot when another one is pinned');
DECLARE united_in_the_past CURSOR FOR SELECT balance FROM accounts UNION ALL SELECT balance FROM ledger;
SELECT sum_of_next('united_in_the_past', 2) AS head, current_setting('convex_fdw.snapshot') AS ts \gset
SELECT commit_a_change() \g /dev/null
RESET convex_fdw.snapshot;
SELECT is(:head + sum_of_next('united_in_the_past', 100), 2 * sum_at(:ts), 'a cursor of a pinned session keeps the pinned snapshot after RESET');
COMMIT;
RESET enable_async_append;
SELECT emu.clear_journal() \g /dev/null

-- ------------------------------------------------------------------ subtransactions in READ COMMITTED

BEGIN;
DECLARE outlasting CURSOR FOR SELECT balance FROM accounts;
SELECT sum_of_next('outlasting', 1) AS head \gset
SELECT * FROM taken() \gset
SAVEPOINT s;
SELECT :head + sum_of_next('outlasting', 4) AS head \gset
SELECT sum(balance) AS inside FROM accounts \gset
ROLLBACK TO s;
SELECT sum(balance) AS after FROM accounts \gset
SELECT cmp_ok(:after, '>', :inside, 'after ROLLBACK TO the next statement takes a new snapshot');
SELECT is(:head + sum_of_next('outlasting', 100), sum_at(:ts),
	'a cursor that was read in a subtransaction goes on at its snapshot after ROLLBACK TO');
COMMIT;
SELECT emu.clear_journal() \g /dev/null

SELECT fail_in_the_middle() AS seen \gset
SELECT is(snapshots_taken(), 3, 'a command that failed in an exception block leaves nothing to the next');

SELECT * FROM finish();
