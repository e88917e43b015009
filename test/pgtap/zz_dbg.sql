-- One snapshot: which scans read the same state of the deployment?
--
-- Nearly everything here runs while the emulator commits a change before each
-- page it is asked for, so that two scans agree only if they name the same
-- snapshot.

\ir lib/setup.sql
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

-- What a statement fails with: {sqlstate, message, detail, hint}.
CREATE FUNCTION failure(statement text) RETURNS jsonb LANGUAGE plpgsql AS
$$
DECLARE
	state text; message text; detail text; hint text;
BEGIN
	EXECUTE statement;
	RETURN NULL;
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS state = RETURNED_SQLSTATE, message = MESSAGE_TEXT,
		detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
	RETURN jsonb_build_object('sqlstate', state, 'message', message, 'detail', detail, 'hint', hint);
END
$$;

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
SELECT emu.clear_faults(), never_stand_still(), emu.clear_journal() \g /dev/null
explain verbose WITH counted AS MATERIALIZED (SELECT sum(balance) AS total FROM accounts)
SELECT array_agg(DISTINCT total) AS totals, max(ts) AS told, count(DISTINCT ts) AS tellings
FROM (SELECT convex_snapshot('convex') AS ts, unnest(ARRAY[
		(SELECT total FROM counted),
		(SELECT sum(balance) FROM ledger),
		stable_sql(), stable_plpgsql(), stable_that_catches(),
		(SELECT sum(l.balance) FROM ledger l WHERE l.balance > a.balance - 1000)]) AS total
	FROM accounts a
	WHERE balance <= (SELECT max(balance) FROM ledger)
		AND EXISTS (SELECT FROM ledger l WHERE l.name = a.name AND l.balance = a.balance)
		AND a.name IN (SELECT name FROM stable_set())) AS parts ;
SELECT taken();
select array_agg(name) FROM accounts a where a.name IN (SELECT name FROM stable_set()); select taken();
select array_agg(stable_sql()) FROM accounts a ; select taken();
select array_agg(stable_plpgsql()) FROM accounts a ; select taken();
select array_agg(stable_that_catches()) FROM accounts a ; select taken();
select array_agg(unnest) FROM (select unnest(ARRAY[stable_sql(), stable_plpgsql()]) FROM accounts a) s ; select taken();
