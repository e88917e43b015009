-- Random transactions under random faults: what PostgreSQL says is what Convex
-- has. A commit is there, whole and once; an error that knows leaves nothing;
-- only 08007 may be either, and never half.
-- CONVEX_RANDOM_SEED and CONVEX_RANDOM_TRANSACTIONS look further.

\set seed `echo "${CONVEX_RANDOM_SEED:-1}"`
\set transactions `echo "${CONVEX_RANDOM_TRANSACTIONS:-150}"`
\ir lib/setup.sql
\ir lib/writes.sql
\pset fieldsep '\n'
\set server_options 'max_retries ''3'', max_retry_wait ''5ms'''
\ir lib/transactions.sql
SELECT no_plan();

-- A fault for the next transaction; half of them come to nothing that matters.
CREATE FUNCTION gen.fault() RETURNS jsonb LANGUAGE sql AS
$$
	SELECT jsonb_build_object('path', gen.one('/api/streaming_import', '/api/streaming_import', '/api/streaming_import', '/api'), 'count', 1 + gen.less(3), 'skip', greatest(gen.less(4) - 2, 0))
		|| gen.one('{"action": "apply_then_cut"}', '{"action": "apply_then_cut"}', '{"action": "reset"}', '{"action": "reset"}', '{"action": "apply_then_status", "status": 500}', '{"action": "apply_then_status", "status": 408}',
			'{"action": "apply_then_status", "status": 502, "body": "x"}', '{"action": "status", "status": 408}', '{"action": "status", "status": 500}', '{"action": "status", "status": 504, "body": "x"}',
			'{"action": "status", "status": 429, "code": "TooManyWrites"}', '{"action": "status", "status": 503, "code": "OptimisticConcurrencyControlFailure"}', '{"action": "status", "status": 503, "code": "CommitterFullError"}',
			'{"action": "status", "status": 503, "code": "InternalServerError"}', '{"action": "status", "status": 400, "code": "TooNestedError"}', '{"action": "close_after"}', '{"action": "close_after", "at": "next"}')::jsonb
$$;
CREATE FUNCTION gen.statement_on(target text) RETURNS text LANGUAGE plpgsql AS
$$
DECLARE
	statement text;
BEGIN
	LOOP
		statement := gen.statement();
		EXIT WHEN statement ~ ('^(INSERT INTO|UPDATE|DELETE FROM) @\.' || target);
	END LOOP;
	RETURN statement;
END
$$;

CREATE TABLE runs (number int, fault jsonb, state text, held text, commits int, problem text);
-- Runs one transaction of one route, and brings the model to what Convex has.
CREATE FUNCTION gen.run(number int) RETURNS void LANGUAGE plpgsql AS
$$
DECLARE
	target text := gen.one('keyed', 'keyed', 'appended');
	statements text[] := ARRAY(SELECT gen.statement_on(target) FROM generate_series(0, gen.less(4)));
	fault jsonb := gen.fault();
	before jsonb := gen.documents();
	after jsonb;
	there jsonb;
	state text;
	held text;
	sent int;
	statement text;
BEGIN
	PERFORM dblink_exec('writer', 'BEGIN');
	FOREACH statement IN ARRAY statements LOOP
		PERFORM dblink_exec('writer', gen.both(statement));
	END LOOP;
	after := (SELECT t.d FROM dblink('writer', 'SELECT gen.documents()') AS t (d jsonb));
	PERFORM emu.clear_journal(), emu.fault(fault);
	state := coalesce(emu.failure($f$ SELECT public.dblink_exec('writer', 'COMMIT') $f$) ->> 'sqlstate', '00000');
	PERFORM emu.clear_faults();
	IF state <> '00000' THEN
		PERFORM dblink_exec('writer', 'ROLLBACK');
	END IF;
	there := jsonb_build_array(emu.documents('keyed'), emu.documents('appended'));
	held := CASE WHEN there = after AND there = before THEN 'both' WHEN there = after THEN 'all' WHEN there = before THEN 'nothing' ELSE 'something else' END;
	sent := (SELECT coalesce(sum(jsonb_array_length(w -> 'commits')), 0) FROM emu.writes() AS w);
	IF state <> '00000' AND held = 'all' THEN
		FOREACH statement IN ARRAY statements LOOP
			EXECUTE replace(statement, '@', 'model');
		END LOOP;
	END IF;
	INSERT INTO app.runs VALUES (number, fault, state, held, sent,
		CASE WHEN held = 'something else' OR sent > 1 OR held = ANY (CASE state WHEN '00000' THEN '{nothing}' WHEN '08007' THEN '{}' ELSE '{all}' END::text[])
			THEN array_to_string(statements, e'\n') || e'\n' || fault || e'\nPostgreSQL: ' || state || ', Convex: ' || held || ', transactions: ' || sent || e'\nbefore: ' || before || e'\nafter: ' || after || e'\nConvex: ' || there END);
END
$$;

SELECT setseed((:seed % 1000) / 1000.0) \g /dev/null
SELECT format('SELECT gen.run(%s)', n) FROM generate_series(1, :transactions) AS n \gexec
SELECT is(problem, NULL, 'transaction ' || number || ' of seed ' || :seed || ' is in Convex as PostgreSQL says') FROM runs ORDER BY number;
SELECT is((SELECT count(*) FROM runs), :transactions::bigint, 'all of them ran');
SELECT cmp_ok(count(*), '>', 3::bigint, 'some were unknown and there'), cmp_ok((SELECT count(*) FROM runs WHERE state = '08007' AND held = 'nothing'), '>', 1::bigint, 'some unknown and not there') FROM runs WHERE state = '08007' AND held = 'all';
SELECT is((SELECT count(*) FROM runs WHERE state = '08007' AND fault ->> 'action' IN ('close_after')), 0::bigint, 'a connection that was closed meanwhile leaves nothing unknown');

SELECT * FROM finish();
