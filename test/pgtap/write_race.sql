-- Nobody's update is lost: sessions that change the same rows over a line with
-- latency take turns, and what a writer elsewhere did in between is told.
-- CONVEX_RACE_ROUNDS and CONVEX_RACE_SESSIONS look further.

\set rounds `echo "${CONVEX_RACE_ROUNDS:-4}"`
\set sessions `echo "${CONVEX_RACE_SESSIONS:-4}"`
\ir lib/setup.sql
\ir lib/writes.sql
\pset fieldsep '\n'
SELECT no_plan();

SELECT emu.server() \g /dev/null
SELECT emu.index('counters', '{id}') \g /dev/null
SELECT emu.insert('counters', VARIADIC ARRAY(SELECT jsonb_build_object('id', n, 'n', 0, 'note', 'kept') FROM generate_series(1, 30) AS n)) \g /dev/null
CREATE FOREIGN TABLE counters (id float8, n float8, note text, extra text) SERVER convex OPTIONS (primary_key 'id');
CREATE FOREIGN TABLE streamed (id float8, n float8) SERVER convex OPTIONS (table_name 'counters', primary_key 'id', flush 'statement');

-- A session of its own for each racer.
CREATE FUNCTION emu.racer(number int) RETURNS text LANGUAGE sql AS $$ SELECT 'racer' || number $$;
SELECT dblink_connect(emu.racer(n), format('host=%s port=%s dbname=%s user=postgres options=-csearch_path=app,public',
	split_part(current_setting('unix_socket_directories'), ',', 1), current_setting('port'), current_database())) FROM generate_series(1, :sessions) AS n \g /dev/null

-- The SQLSTATE that a statement sent to a racer ended with; 00000: it was acknowledged.
CREATE FUNCTION emu.end_of(racer text) RETURNS text LANGUAGE plpgsql AS
$$
DECLARE
	state text := '00000';
BEGIN
	BEGIN
		PERFORM * FROM public.dblink_get_result(racer) AS t (status text);
	EXCEPTION WHEN OTHERS THEN
		state := sqlstate;
	END;
	PERFORM * FROM public.dblink_get_result(racer, false) AS t (status text);
	RETURN state;
END
$$;

-- Every racer runs the statement at the same time, some rounds long; %s is a key.
CREATE FUNCTION emu.race(statement text, keys int, rounds int, sessions int) RETURNS TABLE (acknowledged bigint, states text[]) LANGUAGE plpgsql AS
$$
DECLARE
	ends text[] := '{}';
BEGIN
	FOR round IN 1 .. rounds LOOP
		PERFORM public.dblink_send_query(emu.racer(s), format(statement, 1 + (round * 7 + s * (keys - 1)) % keys)) FROM generate_series(1, sessions) AS s;
		ends := ends || ARRAY(SELECT emu.end_of(emu.racer(s)) FROM generate_series(1, sessions) AS s);
	END LOOP;
	RETURN QUERY SELECT count(*) FILTER (WHERE e = '00000'), array_agg(DISTINCT e) FILTER (WHERE e <> '00000') FROM unnest(ends) AS e;
END
$$;
CREATE FUNCTION emu.counted() RETURNS bigint LANGUAGE sql AS $$ SELECT sum((d ->> 'n')::float8)::bigint FROM emu.dump('counters') AS d $$;
CREATE FUNCTION emu.set_isolation(level text, sessions int) RETURNS void LANGUAGE sql AS
$$ SELECT public.dblink_exec(emu.racer(s), 'SET default_transaction_isolation = ' || quote_literal(level)) FROM generate_series(1, sessions) AS s $$;

-- ------------------------------------------------------------------ sessions of this cluster

SELECT emu.config('{"extra_latency_ms": 20}') \g /dev/null
CREATE TABLE races (kind text, rows int, level text, before bigint, after bigint, acknowledged bigint, states text[]);
CREATE FUNCTION emu.run_race(kind text, rows int, level text, statement text, keys int, rounds int, sessions int) RETURNS void LANGUAGE plpgsql AS
$$
DECLARE
	before bigint := emu.counted();
	result record;
BEGIN
	PERFORM emu.set_isolation(level, sessions);
	SELECT * INTO result FROM emu.race(statement, keys, rounds, sessions);
	INSERT INTO app.races VALUES (kind, rows, level, before, emu.counted(), result.acknowledged, result.states);
END
$$;
SELECT emu.run_race(kind, rows, level, statement, keys, :rounds, :sessions)
FROM (VALUES ('one row', 1, 'UPDATE counters SET n = n + 1 WHERE id = 1', 1),
		('one row with its statement', 1, 'UPDATE streamed SET n = n + 1 WHERE id = 1', 1),
		('a whole document', 1, 'UPDATE counters SET n = n + 1, extra = NULL WHERE id = 1', 1),
		('two of 30 rows', 2, 'UPDATE counters SET n = n + 1 WHERE id IN (%1$s, 1 + %1$s %% 30)', 30)) AS k (kind, rows, statement, keys),
	unnest(ARRAY['read committed', 'repeatable read', 'serializable']) AS level \g /dev/null
SELECT emu.config('{"extra_latency_ms": 0}') \g /dev/null
SELECT is(after - before, rows * acknowledged, kind || ', ' || level || ': every acknowledged increment counts') FROM races ORDER BY kind, level;
SELECT cmp_ok(acknowledged, '>=', :rounds::bigint, kind || ', ' || level || ': one of each round at least gets through') FROM races ORDER BY kind, level;
SELECT is(coalesce(states, '{40001}'), '{40001}', kind || ', ' || level || ': the others get 40001') FROM races ORDER BY kind, level;

SELECT * FROM finish();
