-- What the chapters snapshot and snapshot_kept have in common.

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

CREATE FUNCTION joined_at(ts bigint) RETURNS jsonb LANGUAGE sql AS
$$
	SELECT jsonb_agg(jsonb_build_array(a -> 'name', (a ->> 'balance')::float8::int, (l ->> 'balance')::float8::int)
			ORDER BY a ->> 'name')
	FROM emu.dump('accounts', '', ts) AS a FULL JOIN emu.dump('ledger', '', ts) AS l
		ON l ->> 'name' = a ->> 'name'
$$;

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

CREATE FUNCTION volatile_set(above int) RETURNS SETOF int LANGUAGE sql VOLATILE AS
$$ SELECT balance FROM app.accounts WHERE balance > above $$;

PREPARE summed AS SELECT sum(balance) AS total FROM accounts;

CREATE TABLE triggered (i int, total bigint);
CREATE FUNCTION note_sum() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN SELECT sum(balance) INTO NEW.total FROM app.accounts; RETURN NEW; END $$;
CREATE TRIGGER note BEFORE INSERT ON triggered FOR EACH ROW EXECUTE FUNCTION note_sum();
