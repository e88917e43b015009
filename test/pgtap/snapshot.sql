-- One snapshot: which scans read the same state of the deployment?
--
-- Nearly everything here runs while the emulator commits a change before each
-- page it is asked for, so that two scans agree only if they name the same
-- snapshot.

\ir lib/setup.sql
-- The walk is what this is about: see lookup.sql for what Convex is asked.
SET convex_fdw.pushdown = off;
SELECT no_plan();

SELECT emu.server() \g /dev/null
SELECT emu.config('{"page_limit": 3}') \g /dev/null

-- Twelve accounts, and a ledger that always agrees with them.
CREATE SCHEMA app;
SET search_path = app, public;
CREATE FOREIGN TABLE accounts (_id text, name text, balance int) SERVER convex;
CREATE FOREIGN TABLE ledger (_id text, name text, balance int) SERVER convex;
SELECT emu.mutate(jsonb_agg(op))
FROM (SELECT jsonb_build_object('op', 'insert', 'table', t, 'doc',
		jsonb_build_object('name', 'n' || i, 'balance', i))
	FROM unnest('{accounts,ledger}'::text[]) AS t, generate_series(1, 12) AS i) AS given (op) \g /dev/null

-- One transaction: every balance in both tables goes up by one.
CREATE FUNCTION raise_all() RETURNS jsonb LANGUAGE sql IMMUTABLE AS
$$ SELECT '[{"op": "increment_all", "table": "accounts", "field": "balance"},
	{"op": "increment_all", "table": "ledger", "field": "balance"}]'::jsonb $$;
CREATE FUNCTION commit_a_change() RETURNS void LANGUAGE sql AS
$$ SELECT emu.mutate(raise_all()) $$;

-- From now on a change is committed before every page of a snapshot.
CREATE FUNCTION never_stand_still() RETURNS void LANGUAGE sql AS
$$
	SELECT emu.clear_faults();
	SELECT emu.fault(jsonb_build_object('action', 'mutate', 'path', '/api/list_snapshot',
		'count', -1, 'ops', raise_all()));
$$;

-- How many different snapshots was the emulator asked for since the last call,
-- and, when it was one, which?
CREATE FUNCTION taken(OUT snapshots bigint, OUT ts bigint) LANGUAGE plpgsql AS
$$
BEGIN
	SELECT count(DISTINCT entry ->> 'snapshot'), max((entry ->> 'snapshot')::bigint)
		INTO snapshots, ts FROM emu.journal('/api/list_snapshot') AS entry;
	PERFORM emu.clear_journal();
END
$$;
CREATE FUNCTION snapshots_taken() RETURNS int LANGUAGE sql AS
$$ SELECT snapshots::int FROM taken() $$;

-- The sum of all balances of one table at a timestamp, asked of the emulator.
CREATE FUNCTION sum_at(ts bigint, name text DEFAULT 'accounts') RETURNS bigint LANGUAGE sql AS
$$ SELECT sum((document ->> 'balance')::float8)::bigint FROM emu.dump(name, '', ts) AS document $$;

-- The next rows of an open cursor, added up. (FETCH at top level would print.)
CREATE FUNCTION sum_of_next(cursor_name text, n int) RETURNS bigint LANGUAGE plpgsql AS
$$
DECLARE
	c refcursor := cursor_name;
	number bigint;
	total bigint;
BEGIN
	FOR i IN 1..n LOOP
		FETCH c INTO number;
		EXIT WHEN NOT FOUND;
		total := coalesce(total, 0) + number;
	END LOOP;
	RETURN total;
END
$$;

-- Functions of each volatility that read a foreign table.
CREATE FUNCTION stable_sql() RETURNS bigint LANGUAGE sql STABLE AS
$$ SELECT sum(balance) FROM app.accounts $$;
CREATE FUNCTION stable_plpgsql() RETURNS bigint LANGUAGE plpgsql STABLE AS
$$ BEGIN RETURN (SELECT sum(balance) FROM app.accounts); END $$;
CREATE FUNCTION stable_that_catches() RETURNS bigint LANGUAGE plpgsql STABLE AS
$$
DECLARE
	result bigint;
BEGIN
	BEGIN
		SELECT sum(balance) INTO result FROM app.accounts;
		PERFORM 1 / (result - result);
	EXCEPTION WHEN division_by_zero THEN
		RETURN (SELECT sum(balance) FROM app.accounts);
	END;
	RETURN NULL;
END
$$;
CREATE FUNCTION stable_of_stable() RETURNS bigint LANGUAGE plpgsql STABLE AS
$$
DECLARE
	result bigint := app.stable_sql();
BEGIN
	FOR i IN 1..2 LOOP
		result := result + app.stable_plpgsql() + app.stable_that_catches();
	END LOOP;
	RETURN result;
END
$$;
CREATE FUNCTION stable_set() RETURNS TABLE (name text, balance int) LANGUAGE plpgsql STABLE AS
$$ BEGIN RETURN QUERY SELECT l.name, l.balance FROM app.ledger l; END $$;
CREATE FUNCTION volatile_plpgsql() RETURNS bigint LANGUAGE plpgsql VOLATILE AS
$$ BEGIN RETURN (SELECT sum(balance) FROM app.accounts); END $$;
CREATE FUNCTION volatile_twice() RETURNS bigint[] LANGUAGE plpgsql VOLATILE AS
$$
DECLARE
	first bigint;
	second bigint;
BEGIN
	SELECT sum(balance) INTO first FROM app.accounts;
	SELECT sum(balance) INTO second FROM app.accounts;
	RETURN ARRAY[first, second];
END
$$;
CREATE TABLE two_sums (place serial, total bigint);
CREATE FUNCTION volatile_sql() RETURNS void LANGUAGE sql VOLATILE AS
$$
	INSERT INTO app.two_sums (total) SELECT sum(balance) FROM app.accounts;
	INSERT INTO app.two_sums (total) SELECT sum(balance) FROM app.accounts;
$$;

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

CREATE FUNCTION joined_at(ts bigint) RETURNS jsonb LANGUAGE sql AS
$$
	SELECT jsonb_agg(jsonb_build_array(a -> 'name', (a ->> 'balance')::float8::int, (l ->> 'balance')::float8::int)
			ORDER BY a ->> 'name')
	FROM emu.dump('accounts', '', ts) AS a FULL JOIN emu.dump('ledger', '', ts) AS l
		ON l ->> 'name' = a ->> 'name'
$$;

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
CREATE FUNCTION walk() RETURNS bigint[] LANGUAGE plpgsql AS
$$
DECLARE
	total bigint := 0;
	other bigint;
	r record;
BEGIN
	FOR r IN SELECT balance, convex_snapshot('convex') AS ts FROM app.accounts LOOP
		total := total + r.balance;
		IF other IS NULL THEN
			SELECT sum(balance) INTO other FROM app.accounts;
		END IF;
	END LOOP;
	RETURN ARRAY[total, r.ts, other];
END
$$;
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

CREATE FUNCTION volatile_set(above int) RETURNS SETOF int LANGUAGE sql VOLATILE AS
$$ SELECT balance FROM app.accounts WHERE balance > above $$;
SELECT sum(balance) AS seen, min(ts) AS used, min(other) <> max(other) AS differs
FROM (SELECT a.balance, convex_snapshot('convex') AS ts, (SELECT min(v) FROM volatile_set(a.balance - 1000) AS v) AS other
	FROM accounts a OFFSET 0) AS rows \gset
SELECT is(:seen::bigint, sum_at(:used), 'a scan keeps its snapshot beside a VOLATILE set-returning function');
SELECT ok(:'differs', 'whose calls have each their own');
SELECT emu.clear_journal() \g /dev/null

CREATE TABLE triggered (i int, total bigint);
CREATE FUNCTION note_sum() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN SELECT sum(balance) INTO NEW.total FROM app.accounts; RETURN NEW; END $$;
CREATE TRIGGER note BEFORE INSERT ON triggered FOR EACH ROW EXECUTE FUNCTION note_sum();
INSERT INTO triggered SELECT i FROM generate_series(1, 3) AS i;
SELECT is(snapshots_taken(), 3, 'each command of a trigger takes its own snapshot');
SELECT is((SELECT count(DISTINCT total) FROM triggered), 3::bigint, 'each row''s trigger sees what was committed meanwhile');
TRUNCATE triggered;
INSERT INTO triggered SELECT max(balance) FROM accounts UNION ALL SELECT max(balance) FROM ledger;
SELECT is(snapshots_taken(), 3, 'the statement that fires the triggers has one snapshot of its own');
SELECT is((SELECT count(DISTINCT i) FROM triggered), 1::bigint, 'and reads one state');

PREPARE summed AS SELECT sum(balance) AS total FROM accounts;
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

CREATE FUNCTION fail_in_the_middle() RETURNS bigint LANGUAGE plpgsql AS
$$
DECLARE
	r record;
BEGIN
	BEGIN
		FOR r IN SELECT balance FROM app.accounts LOOP
			PERFORM 1 / 0;
		END LOOP;
	EXCEPTION WHEN division_by_zero THEN
		NULL;
	END;
	BEGIN
		PERFORM 1 / (balance - balance) FROM app.accounts;
	EXCEPTION WHEN division_by_zero THEN
		NULL;
	END;
	RETURN (SELECT sum(balance) FROM app.accounts);
END
$$;
SELECT fail_in_the_middle() AS seen \gset
SELECT is(snapshots_taken(), 3, 'a command that failed in an exception block leaves nothing to the next');

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
