-- Random transactions whose rows leave with their statements: functions that
-- write while their statement does, cursors over own rows, caught errors, two
-- roles, faults. What left stays, whatever PostgreSQL undoes; so after each
-- statement the deployment holds what a local table would hold, or it was 08007.
-- CONVEX_RANDOM_SEED and CONVEX_RANDOM_TRANSACTIONS look further.

\set seed `echo "${CONVEX_RANDOM_SEED:-1}"`
\set transactions `echo "${CONVEX_RANDOM_TRANSACTIONS:-40}"`
\ir lib/setup.sql
\ir lib/writes.sql
\set server_options 'flush ''statement'', max_retries ''2'', max_retry_wait ''5ms'''
\ir lib/transactions.sql
\pset fieldsep '\n'
SELECT no_plan();

CREATE ROLE chapter_write_streamed;
GRANT USAGE ON SCHEMA app, gen, model TO chapter_write_streamed;
GRANT USAGE ON FOREIGN SERVER convex TO chapter_write_streamed;
GRANT SELECT, INSERT, UPDATE, DELETE ON app.keyed, app.appended TO chapter_write_streamed;
SELECT format('CREATE USER MAPPING FOR chapter_write_streamed SERVER convex OPTIONS (deploy_key %L)', emu.key()) \gexec

-- Writes while the statement that calls it writes, and counts what it sees.
DO $do$
BEGIN
	FOR i IN 0 .. 1 LOOP
		EXECUTE replace($f$
			CREATE FUNCTION @.nest(i int) RETURNS int LANGUAGE plpgsql AS $$
			BEGIN
				INSERT INTO @.appended VALUES ((SELECT count(*) FROM @.appended), 'seen');
				IF i % 2 = 0 THEN
					UPDATE @.keyed SET b = coalesce(b, 0) + 1 WHERE k = 'k1';
				END IF;
				RETURN i;
			END $$ $f$, '@', (ARRAY['app', 'model'])[i + 1]);
	END LOOP;
END
$do$;

-- {app, model}: what to run over the foreign tables, and what it must come to.
CREATE FUNCTION gen.step() RETURNS text[] LANGUAGE plpgsql AS
$$
DECLARE
	statement text;
BEGIN
	CASE gen.less(8)
		WHEN 0 THEN statement := format('INSERT INTO @.appended SELECT @.nest(i), ''outer'' FROM generate_series(1, %s) AS i', 1 + gen.less(5));
		WHEN 1 THEN statement := format('INSERT INTO @.keyed (k, a) SELECT ''n'' || @.nest(i), i FROM generate_series(1, %s) AS i', 1 + gen.less(3));
		WHEN 2 THEN statement := format('DO $c$ DECLARE c CURSOR FOR SELECT n FROM @.appended; r record; m int := 0; BEGIN OPEN c; FETCH c INTO r; IF FOUND THEN m := 1; END IF;
			INSERT INTO @.appended SELECT g, ''in between'' FROM generate_series(1, %s) AS g; PERFORM @.nest(%s); LOOP FETCH c INTO r; EXIT WHEN NOT FOUND; m := m + 1; END LOOP; CLOSE c; INSERT INTO @.appended VALUES (m, ''cursor''); END $c$', 1 + gen.less(40), gen.less(3));
		WHEN 3 THEN
			-- What has left stays when its block is undone; the model has no block.
			statement := gen.statement();
			RETURN ARRAY[format('DO $d$ BEGIN BEGIN %s; PERFORM 1 / 0; EXCEPTION WHEN division_by_zero THEN NULL; END; END $d$', replace(statement, '@', 'app')), replace(statement, '@', 'model')];
		WHEN 4 THEN RETURN ARRAY[gen.one('SET LOCAL ROLE chapter_write_streamed', 'RESET ROLE'), 'SELECT'];
		ELSE statement := gen.statement();
	END CASE;
	RETURN ARRAY[replace(statement, '@', 'app'), replace(statement, '@', 'model')];
END
$$;

-- A fault for the step, and whether a block around it catches what comes of it.
CREATE FUNCTION gen.step_fault() RETURNS jsonb LANGUAGE sql AS
$$
	SELECT CASE WHEN gen.less(5) = 0 THEN '{"path": "/api/streaming_import", "count": 1}' || gen.one('{"action": "apply_then_cut"}', '{"action": "reset"}', '{"action": "apply_then_status", "status": 502, "body": "x"}',
		'{"action": "status", "status": 503, "code": "OptimisticConcurrencyControlFailure"}', '{"action": "status", "status": 429, "code": "TooManyWrites"}')::jsonb END
$$;

CREATE TABLE runs (number int, state text, problem text);
CREATE FUNCTION gen.resync() RETURNS void LANGUAGE plpgsql AS
$$
BEGIN
	TRUNCATE model.keyed, model.appended;
	INSERT INTO model.keyed SELECT * FROM app.keyed;
	INSERT INTO model.appended SELECT * FROM app.appended;
END
$$;
CREATE FUNCTION gen.run(number int) RETURNS void LANGUAGE plpgsql AS
$$
DECLARE
	done text := '';
	step text[];
	fault jsonb;
	catches boolean;
	failure jsonb;
	state text := '00000';
	problem text;
	here jsonb;
BEGIN
	PERFORM dblink_exec('writer', 'BEGIN');
	FOR i IN 0 .. gen.less(7) LOOP
		step := gen.step();
		fault := gen.step_fault();
		catches := fault IS NOT NULL AND gen.less(2) = 0 AND step[1] NOT LIKE '%ROLE%';
		IF catches THEN
			step[1] := format('DO $o$ BEGIN BEGIN %s; EXCEPTION WHEN OTHERS THEN NULL; END; END $o$', step[1]);
		END IF;
		done := done || e'\n' || step[1] || coalesce(e'\n  under ' || fault::text, '');
		IF fault IS NOT NULL THEN
			PERFORM emu.fault(fault);
		END IF;
		failure := emu.failure(format('SELECT public.dblink_exec(%L, %L)', 'writer', step[1]));
		PERFORM emu.clear_faults();
		state := coalesce(failure ->> 'sqlstate', '00000');
		EXIT WHEN state <> '00000';

		-- Was the outcome caught? Then it must come back.
		failure := emu.failure($f$ SELECT public.dblink_exec('writer', 'SAVEPOINT probe; INSERT INTO app.appended SELECT 0, ''never'' WHERE false; RELEASE probe') $f$);
		state := coalesce(failure ->> 'sqlstate', '00000');
		EXIT WHEN state <> '00000';
		EXECUTE step[2];
		IF catches THEN
			-- Whether something was caught only Convex knows: nothing may be lost silently.
			here := gen.documents();
			IF jsonb_build_array(emu.documents('keyed'), emu.documents('appended')) <> here THEN
				failure := emu.failure($f$ SELECT public.dblink_exec('writer', 'COMMIT') $f$);
				state := coalesce(failure ->> 'sqlstate', '00000');
				IF state <> '08007' THEN
					problem := done || e'\ncaught, and COMMIT gave ' || state;
				END IF;
				EXIT;
			END IF;
		END IF;
	END LOOP;
	IF state = '00000' THEN
		failure := emu.failure($f$ SELECT public.dblink_exec('writer', 'COMMIT') $f$);
		state := coalesce(failure ->> 'sqlstate', '00000');
	END IF;
	IF state <> '00000' THEN
		PERFORM dblink_exec('writer', 'ROLLBACK');
	END IF;
	here := gen.documents();
	IF problem IS NULL AND state <> '08007' AND jsonb_build_array(emu.documents('keyed'), emu.documents('appended')) <> here THEN
		problem := done || e'\n' || coalesce(failure::text, 'committed') || e'\nlocal:  ' || here || e'\nConvex: ' || jsonb_build_array(emu.documents('keyed'), emu.documents('appended'));
	END IF;
	INSERT INTO app.runs VALUES (number, state, problem);
	IF state <> '00000' OR problem IS NOT NULL THEN
		PERFORM gen.resync();
	END IF;
END
$$;

SELECT setseed((:seed % 1000) / 1000.0) \g /dev/null
DO $$ BEGIN PERFORM dblink_exec('writer', 'SET client_min_messages = error'); END $$;
SELECT format('SELECT gen.run(%s)', n) FROM generate_series(1, :transactions) AS n \gexec
SELECT is(problem, NULL, 'transaction ' || number || ' of seed ' || :seed || ' leaves what it leaves a local table, or is unknown') FROM runs ORDER BY number;
SELECT is(array_agg(DISTINCT state ORDER BY state) <@ '{00000,08007}', true, 'no other error comes of it') FROM runs;
SELECT cmp_ok(count(*) FILTER (WHERE state = '00000'), '>', 3::bigint, 'some are committed') FROM runs;

DROP OWNED BY chapter_write_streamed;
DROP ROLE chapter_write_streamed;
SELECT * FROM finish();
