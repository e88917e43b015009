-- Random transactions leave Convex as they leave a local table.
--
-- A generator with a seed writes transactions of up to a dozen statements, with
-- savepoints, exception blocks and rollbacks. Each statement runs over the foreign
-- tables and over local ones in the same transaction, which then see the same;
-- after it Convex is asked what it holds.
-- CONVEX_RANDOM_SEED and CONVEX_RANDOM_TRANSACTIONS look further.

\set seed `echo "${CONVEX_RANDOM_SEED:-1}"`
\set transactions `echo "${CONVEX_RANDOM_TRANSACTIONS:-220}"`
\ir lib/setup.sql
\ir lib/writes.sql
\set server_options ''
\ir lib/transactions.sql
SELECT no_plan();

-- Runs one transaction; NULL when everything agrees.
CREATE FUNCTION gen.run(number int) RETURNS text LANGUAGE plpgsql AS
$$
DECLARE
	done text := '';
	savepoints int := 0;
	statement text;
	here text; there text;
	ending text := gen.one('COMMIT', 'COMMIT', 'COMMIT', 'ROLLBACK');
BEGIN
	PERFORM dblink_exec('writer', 'BEGIN ISOLATION LEVEL ' || gen.one('READ COMMITTED', 'REPEATABLE READ'));
	FOR i IN 0 .. gen.less(12) LOOP
		CASE gen.less(9)
			WHEN 0 THEN savepoints := savepoints + 1;
				statement := 'SAVEPOINT s' || savepoints;
			WHEN 1 THEN IF savepoints > 0 THEN
					savepoints := 1 + gen.less(savepoints);
					statement := 'ROLLBACK TO s' || savepoints;
				ELSE
					statement := gen.block();
				END IF;
			WHEN 2 THEN IF savepoints > 0 THEN
					savepoints := gen.less(savepoints);
					statement := 'RELEASE s' || savepoints + 1;
				ELSE
					statement := gen.block();
				END IF;
			WHEN 3 THEN statement := gen.block();
			ELSE statement := gen.both(gen.statement());
		END CASE;
		done := done || e'\n' || statement;
		PERFORM dblink_exec('writer', statement);
		SELECT t.here, t.there INTO here, there FROM dblink('writer', 'SELECT gen.state(''app''), gen.state(''model'')') AS t (there text, here text);
		IF here <> there THEN
			PERFORM dblink_exec('writer', 'ROLLBACK');
			RETURN done || e'\nlocal:  ' || here || e'\nConvex: ' || there;
		END IF;
	END LOOP;
	PERFORM dblink_exec('writer', ending);
	done := done || e'\n' || ending;
	here := (SELECT t.d FROM dblink('writer', 'SELECT gen.documents()') AS t (d text));
	there := jsonb_build_array(emu.documents('keyed'), emu.documents('appended'));
	RETURN CASE WHEN here::jsonb <> there::jsonb THEN done || e'\nlocal:  ' || here || e'\nConvex: ' || there END;
EXCEPTION WHEN OTHERS THEN
	PERFORM dblink_exec('writer', 'ROLLBACK');
	RETURN done || e'\n' || sqlstate || ' ' || sqlerrm;
END
$$;

SELECT setseed((:seed % 1000) / 1000.0) \g /dev/null
CREATE TABLE runs (number int, problem text);
DO $$ BEGIN PERFORM dblink_exec('writer', 'SET client_min_messages = error'); END $$;
SELECT format('INSERT INTO runs SELECT %s, gen.run(%1$s)', n) FROM generate_series(1, :transactions) AS n \gexec
SELECT is(problem, NULL, 'transaction ' || number || ' of seed ' || :seed || ' leaves what it leaves a local table') FROM runs ORDER BY number;
SELECT cmp_ok((SELECT count(*) FROM model.keyed) + (SELECT count(*) FROM model.appended), '>', 10::bigint, 'something is left to compare');

SELECT * FROM finish();
