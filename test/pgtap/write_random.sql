-- Random transactions leave Convex as they leave a local table.
--
-- A generator with a seed writes transactions of up to a dozen statements, with
-- savepoints, exception blocks and rollbacks. Each statement, whose schema stands
-- open as "@", runs over the foreign tables and over local ones in the same
-- transaction, which then see the same; after it Convex is asked what it holds.
-- CONVEX_RANDOM_SEED and CONVEX_RANDOM_TRANSACTIONS look further.

\set seed `echo "${CONVEX_RANDOM_SEED:-1}"`
\set transactions `echo "${CONVEX_RANDOM_TRANSACTIONS:-220}"`
\ir lib/setup.sql
\ir lib/writes.sql
SELECT no_plan();

SELECT emu.server() \g /dev/null
SELECT emu.index('keyed', '{k}'), emu.mutate('[{"op": "create_table", "table": "appended"}]') \g /dev/null
CREATE FOREIGN TABLE app.keyed (k text, a bigint, b float8, c text, d jsonb) SERVER convex OPTIONS (primary_key 'k');
CREATE FOREIGN TABLE app.appended (n int, t text) SERVER convex;

CREATE SCHEMA model;
CREATE TABLE model.keyed (k text PRIMARY KEY, a bigint, b float8, c text, d jsonb);
CREATE TABLE model.appended (n int, t text);
-- A key that comes anew replaces the row that had it.
CREATE FUNCTION model.make_room() RETURNS trigger LANGUAGE plpgsql AS
$$
BEGIN
	IF tg_op = 'INSERT' OR new.k <> old.k THEN
		DELETE FROM model.keyed WHERE k = new.k;
	END IF;
	RETURN new;
END
$$;
CREATE TRIGGER make_room BEFORE INSERT OR UPDATE ON model.keyed FOR EACH ROW EXECUTE FUNCTION model.make_room();

-- ------------------------------------------------------------------ the generator

CREATE SCHEMA gen;
CREATE FUNCTION gen.less(n int) RETURNS int LANGUAGE sql AS $$ SELECT floor(random() * n)::int $$;
CREATE FUNCTION gen.one(VARIADIC choices text[]) RETURNS text LANGUAGE sql AS $$ SELECT choices[1 + gen.less(cardinality(choices))] $$;
CREATE FUNCTION gen.key() RETURNS text LANGUAGE sql AS $$ SELECT format('''k%s''', gen.less(9)) $$;
CREATE FUNCTION gen.value(name text) RETURNS text LANGUAGE sql AS
$$
	SELECT CASE name
		WHEN 'a' THEN gen.one('NULL', '9007199254740993', '-1', gen.less(100)::text, 'coalesce(a, 0) + 1', 'length(k) * 1000000007::bigint')
		WHEN 'b' THEN gen.one('NULL', '''NaN''::float8', '0.1', gen.less(100)::text, 'coalesce(b, 0) / 3 + 1', '(SELECT count(*) FROM @.appended)')
		WHEN 'c' THEN gen.one('NULL', '''''', quote_literal('text ' || gen.less(50)), 'k || coalesce(c, ''-'')', '(SELECT max(t) FROM @.appended)')
		ELSE gen.one('NULL', '''[]''::jsonb', '''{"x": {"y": [1, null]}}''::jsonb', 'jsonb_build_array(k, c)', 'to_jsonb(b) || ''[true]''') END
$$;
CREATE FUNCTION gen.condition() RETURNS text LANGUAGE sql AS
$$
	SELECT CASE gen.less(8)
		WHEN 0 THEN 'true'
		WHEN 1 THEN format('k IN (%s, %s, %s)', gen.key(), gen.key(), gen.key())
		WHEN 2 THEN format('a > %s', gen.less(50))
		WHEN 3 THEN format('c IS %s NULL', gen.one('', 'NOT'))
		WHEN 4 THEN format('k < (SELECT max(k) FROM @.keyed WHERE k < %s)', gen.key())
		ELSE 'k = ' || gen.key() END
$$;
CREATE FUNCTION gen.row() RETURNS text LANGUAGE sql AS
$$
	SELECT format('(%s, %s, %s, %s, %s::jsonb)', gen.key(), gen.one('NULL', '-9223372036854775808', gen.less(100)::text), gen.one('NULL', gen.less(100) || '.5', '''Infinity'''),
		gen.one('NULL', quote_literal('row ' || gen.less(50))), gen.one('NULL', '''{"i": 1}''', '''"text"'''))
$$;
CREATE FUNCTION gen.statement() RETURNS text LANGUAGE sql AS
$$
	SELECT CASE gen.less(12)
		WHEN 0 THEN 'INSERT INTO @.keyed VALUES ' || gen.row()
		WHEN 1 THEN 'INSERT INTO @.keyed VALUES ' || (SELECT string_agg(gen.row(), ', ') FROM generate_series(0, gen.less(4)))
		WHEN 2 THEN format('INSERT INTO @.keyed (k, a, c) SELECT k || %L, a, c FROM @.keyed WHERE %s AND length(k) < 4', gen.less(3), gen.condition())
		WHEN 3 THEN 'DELETE FROM @.keyed WHERE ' || gen.condition()
		WHEN 4 THEN format('UPDATE @.keyed SET k = %s%s WHERE k = %s', gen.key(), gen.one('', ', c = ''moved'''), gen.key())
		WHEN 5 THEN format('DELETE FROM @.keyed USING @.appended WHERE t = k AND n > %s', gen.less(50))
		WHEN 6 THEN format('INSERT INTO @.appended SELECT length(c), k FROM @.keyed WHERE %s ORDER BY k', gen.condition())
		WHEN 7 THEN format('INSERT INTO @.appended VALUES (%s, %s), (%s, NULL)', gen.less(100), gen.key(), gen.less(100))
		WHEN 8 THEN format('UPDATE @.keyed SET b = s.n FROM (SELECT t, max(n) AS n FROM @.appended GROUP BY t) AS s WHERE s.t = k')
		ELSE (SELECT format('UPDATE @.keyed SET %s WHERE %s', string_agg(DISTINCT name || ' = ' || gen.value(name), ', ') FILTER (WHERE once = 1), gen.condition())
			FROM (SELECT name, row_number() OVER (PARTITION BY name) AS once FROM (SELECT gen.one('a', 'b', 'c', 'd') AS name FROM generate_series(0, gen.less(3))) AS n) AS s) END
$$;
-- One statement, or a block of them whose work may be undone.
CREATE FUNCTION gen.both(statement text) RETURNS text LANGUAGE sql AS
$$ SELECT replace(statement, '@', 'app') || '; ' || replace(statement, '@', 'model') $$;
CREATE FUNCTION gen.block() RETURNS text LANGUAGE sql AS
$$
	SELECT format('DO $do$ BEGIN BEGIN %s; %s; %s EXCEPTION WHEN division_by_zero THEN %s; END; %s; END $do$', gen.both(gen.statement()), gen.both(gen.statement()),
		gen.one('', 'PERFORM 1 / 0;'), gen.both(gen.statement()), gen.both(gen.statement()))
$$;

-- ------------------------------------------------------------------ the comparison

CREATE FUNCTION gen.state(schema_name text) RETURNS text LANGUAGE plpgsql AS
$$
DECLARE
	result text;
BEGIN
	EXECUTE format('SELECT (SELECT coalesce(jsonb_agg(to_jsonb(t) ORDER BY k), ''[]'') FROM %1$I.keyed AS t)::text || (SELECT coalesce(jsonb_agg(to_jsonb(t) ORDER BY n, t), ''[]'') FROM %1$I.appended AS t)::text', schema_name) INTO result;
	RETURN result;
END
$$;
-- The model as Convex would hold it.
CREATE FUNCTION gen.documents() RETURNS jsonb LANGUAGE sql AS
$$
	SELECT jsonb_build_array(
		(SELECT coalesce(jsonb_agg(d ORDER BY d), '[]') FROM (SELECT jsonb_build_object('k', k)
				|| CASE WHEN a IS NULL THEN '{}' ELSE jsonb_build_object('a', emu.int64(a)) END
				|| CASE WHEN b IS NULL THEN '{}' ELSE jsonb_build_object('b', CASE WHEN b IN ('NaN', 'Infinity', '-Infinity') THEN emu.float64(b) ELSE to_jsonb(b) END) END
				|| CASE WHEN c IS NULL THEN '{}' ELSE jsonb_build_object('c', c) END
				|| CASE WHEN d IS NULL THEN '{}' ELSE jsonb_build_object('d', d) END AS d FROM model.keyed) AS s),
		(SELECT coalesce(jsonb_agg(d ORDER BY d), '[]') FROM (SELECT CASE WHEN n IS NULL THEN '{}' ELSE jsonb_build_object('n', n) END || CASE WHEN t IS NULL THEN '{}' ELSE jsonb_build_object('t', t) END AS d FROM model.appended) AS s))
$$;

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
