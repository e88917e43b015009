-- With flush 'statement' a cursor over the transaction's own unsent rows was
-- fetched from after a nested INSERT had sent them and others had taken their
-- place: the server crashed. A cursor shows what it was opened for.
\ir ../pgtap/lib/setup.sql
\ir ../pgtap/lib/writes.sql
SELECT plan(7);

SELECT emu.server(), emu.mutate('[{"op": "create_table", "table": "logs"}]') \g /dev/null
CREATE FOREIGN TABLE logs (n int, t text) SERVER convex OPTIONS (flush 'statement');
CREATE FOREIGN TABLE kept (n int, t text) SERVER convex OPTIONS (table_name 'logs');
CREATE TABLE seen (i int, n int, length int);

-- From the third row on: looks at the rows so far, has them sent, and goes on.
CREATE FUNCTION look(i int) RETURNS int LANGUAGE plpgsql AS
$$
DECLARE
	unsent CURSOR FOR SELECT n, length(t) AS length FROM app.logs ORDER BY n;
	-- not sorted: fetched row by row from where they are
	walked refcursor;
	r record;
BEGIN
	IF i <> 3 THEN
		RETURN i;
	END IF;
	OPEN walked NO SCROLL FOR SELECT n, length(t) AS length FROM app.logs;
	FETCH walked INTO r;
	INSERT INTO app.seen VALUES (i, r.n, r.length);
	INSERT INTO app.logs VALUES (100, repeat('n', 5000));
	INSERT INTO app.logs SELECT 100 + g, repeat('m', 10 * g) FROM generate_series(1, 50) AS g;
	LOOP
		FETCH walked INTO r;
		EXIT WHEN NOT FOUND;
		INSERT INTO app.seen VALUES (i, r.n, r.length);
	END LOOP;
	CLOSE walked;
	RETURN i;
END
$$;
SELECT is(emu.sqlstate('INSERT INTO logs SELECT look(i), repeat(''x'', i * 1000) FROM generate_series(1, 5) AS i'), '00000', 'the statement ends');
SELECT is(array_agg(n || ':' || length ORDER BY n), '{1:1000,2:2000}', 'the cursor shows the two rows that it was opened for') FROM seen;
SELECT is(array_agg((d ->> 'n')::float8::int ORDER BY (d ->> 'n')::float8), ARRAY[1, 2, 3, 4, 5] || ARRAY(SELECT generate_series(100, 150)), 'every row is in Convex once') FROM emu.dump('logs') AS d;

-- The same beyond work_mem, and across a rollback to a savepoint.
TRUNCATE seen;
SELECT is(emu.sqlstate('SET LOCAL work_mem = ''64kB''', 'INSERT INTO kept SELECT -i, repeat(''y'', 1000) FROM generate_series(1, 200) AS i',
	'SAVEPOINT s', 'DECLARE walked CURSOR FOR SELECT n, length(t) FROM kept WHERE n < 0', 'MOVE 50 FROM walked', 'RELEASE s', 'SAVEPOINT s2', 'INSERT INTO kept SELECT -1000 - i, repeat(''z'', 37) FROM generate_series(1, 300) AS i', 'ROLLBACK TO s2',
	'INSERT INTO kept SELECT -5000 - i, repeat(''q'', 91) FROM generate_series(1, 300) AS i',
	'DO $do$ DECLARE walked refcursor := ''walked''; r record; BEGIN LOOP FETCH walked INTO r; EXIT WHEN NOT FOUND; INSERT INTO app.seen VALUES (0, r.n, r.length); END LOOP; END $do$'), '00000', 'a cursor goes on across a cut of what it was opened over');
SELECT is(count(*), 150::bigint, 'it gives the rest') FROM seen;
SELECT is((min(n), max(n), min(length), max(length))::text, '(-200,-51,1000,1000)', 'of its own rows') FROM seen;
SELECT is(count(*), 556::bigint, 'and what was not cut is in Convex') FROM emu.dump('logs');

SELECT * FROM finish();
