-- Random queries give the same rows from Convex as from a local copy.
--
-- A generator with a seed writes queries over four tables, whose schema stands
-- open as "@"; each runs over the foreign tables and over the copy, under the
-- same random planner settings. CONVEX_RANDOM_SEED and CONVEX_RANDOM_QUERIES
-- look further than `make check` does. (Ids are the emulator's and differ from
-- run to run, and with them what a condition on them selects.)

\set seed `echo "${CONVEX_RANDOM_SEED:-1}"`
\set queries `echo "${CONVEX_RANDOM_QUERIES:-220}"`
\ir lib/setup.sql
SELECT no_plan();

SELECT setseed((:seed % 1000) / 1000.0) \g /dev/null

-- ------------------------------------------------------------------ the data, twice

CREATE SCHEMA local;
CREATE SCHEMA app;
CREATE TABLE local.users (place int, _id text COLLATE "C", name text, age bigint, score float8, active boolean, tags jsonb, manager text COLLATE "C", note text);
CREATE TABLE local.posts (place int, _id text COLLATE "C", author text COLLATE "C", n int, title text, likes bigint, body jsonb, "_creationTime" timestamptz);
CREATE TABLE local.pairs (place int, _id text COLLATE "C", a int, b int);
CREATE TABLE local.nothing (place int, _id text COLLATE "C", a int);

INSERT INTO local.users SELECT i, NULL, 'user ' || i % 31, CASE WHEN i % 9 <> 0 THEN (i - 20)::bigint * 1000000000003 END, i * 1.25 - 7,
	i % 3 = 0, jsonb_build_array('t' || i % 4, i % 5), NULL, CASE i % 4 WHEN 0 THEN 'note ' || i WHEN 1 THEN '' END
FROM generate_series(1, 43) AS i;
INSERT INTO local.posts SELECT i, NULL, NULL, i % 50, 'title ' || i % 17, CASE WHEN i % 3 <> 0 THEN 9007199254740993 + i END,
	jsonb_build_object('k', i % 6, 'list', jsonb_build_array(i % 2, NULL)), timestamptz '2025-06-01 00:00:00Z' + i * interval '1001 ms'
FROM generate_series(1, 130) AS i;
INSERT INTO local.pairs SELECT i, NULL, i % 5, CASE WHEN i % 4 <> 3 THEN i END FROM generate_series(1, 16) AS i;

-- How the emulator takes an int64.
CREATE FUNCTION int64(value bigint) RETURNS jsonb LANGUAGE sql IMMUTABLE STRICT AS
$$
	SELECT jsonb_build_object('$integer', encode(decode(string_agg(substr(encode(int8send(value), 'hex'), 2 * i + 1, 2), '' ORDER BY i DESC), 'hex'), 'base64'))
	FROM generate_series(0, 7) AS i
$$;
CREATE FUNCTION put(name text, documents jsonb[]) RETURNS void LANGUAGE plpgsql AS
$$
BEGIN
	EXECUTE format('UPDATE local.%I AS t SET _id = given.id
		FROM unnest(ARRAY(SELECT emu.insert(%L, VARIADIC $1))) WITH ORDINALITY AS given (id, place) WHERE t.place = given.place', name, name) USING documents;
END
$$;
SELECT put('users', ARRAY(SELECT jsonb_strip_nulls(jsonb_build_object('name', name, 'age', int64(age), 'score', score, 'active', active, 'note', note)) || jsonb_build_object('tags', tags)
	FROM local.users ORDER BY place)) \g /dev/null
ALTER TABLE local.users DROP COLUMN place;
-- Half of the managers and authors are ids of users.
UPDATE local.users SET manager = (SELECT u._id FROM local.users u WHERE u.age < users.age ORDER BY u.age DESC OFFSET 2 LIMIT 1) WHERE (score * 4)::int % 3 <> 0;
SELECT emu.mutate(jsonb_agg(jsonb_build_object('op', 'patch', 'table', 'users', 'id', _id, 'doc', jsonb_build_object('manager', manager)))) FROM local.users WHERE manager IS NOT NULL \g /dev/null
UPDATE local.posts SET author = (SELECT _id FROM local.users ORDER BY _id OFFSET posts.place * 7 % 43 LIMIT 1) WHERE place % 5 <> 0;
SELECT put('posts', ARRAY(SELECT jsonb_strip_nulls(jsonb_build_object('author', author, 'n', n, 'title', title, 'likes', int64(likes), '_creationTime', extract(epoch FROM "_creationTime") * 1000))
	|| jsonb_build_object('body', body) FROM local.posts ORDER BY place)) \g /dev/null
ALTER TABLE local.posts DROP COLUMN place;
SELECT put('pairs', ARRAY(SELECT jsonb_build_object('a', a, 'b', b) FROM local.pairs ORDER BY place)) \g /dev/null
ALTER TABLE local.pairs DROP COLUMN place;
SELECT emu.mutate('[{"op": "create_table", "table": "nothing"}]') \g /dev/null
ALTER TABLE local.nothing DROP COLUMN place;
ANALYZE local.users, local.posts, local.pairs, local.nothing;

SELECT emu.server() \g /dev/null
SELECT format('CREATE FOREIGN TABLE app.%I (gone int, %s) SERVER convex; ALTER FOREIGN TABLE app.%1$I DROP gone', relname,
	string_agg(format('%I %s%s', attname, format_type(atttypid, atttypmod), CASE WHEN attcollation = 'pg_catalog."C"'::regcollation THEN ' COLLATE "C"' ELSE '' END), ', ' ORDER BY attnum))
FROM pg_class JOIN pg_attribute ON attrelid = pg_class.oid
WHERE relnamespace = 'local'::regnamespace AND relkind = 'r' AND attnum > 0 AND NOT attisdropped GROUP BY relname \gexec
SELECT format('CREATE VIEW %s.labels AS SELECT _id, name AS label FROM %1$s.users UNION ALL SELECT _id, title FROM %1$s.posts UNION ALL SELECT _id, note FROM %1$s.users WHERE note > ''''', schema)
FROM unnest('{app,local}'::text[]) AS schema \gexec

-- ------------------------------------------------------------------ the generator

CREATE FUNCTION dice(n int) RETURNS int LANGUAGE sql VOLATILE AS $$ SELECT floor(random() * n)::int $$;
CREATE FUNCTION pick(VARIADIC choices text[]) RETURNS text LANGUAGE sql VOLATILE AS
$$ SELECT choices[1 + floor(random() * cardinality(choices))::int] $$;

-- A table of random choice with an alias; a sub-select now and then.
CREATE FUNCTION source(kind text, alias text) RETURNS text LANGUAGE plpgsql AS
$$
BEGIN
	RETURN CASE dice(6)
		WHEN 0 THEN format('(SELECT * FROM @.%s WHERE %s) AS %s', kind, condition(kind, kind), alias)
		WHEN 1 THEN format('(SELECT * FROM @.%s ORDER BY _id LIMIT %s) AS %s', kind, 1 + dice(60), alias)
		WHEN 2 THEN format('(SELECT * FROM @.%s WHERE %s OFFSET 0) AS %s', kind, condition(kind, kind), alias)
		ELSE format('@.%s AS %s', kind, alias) END;
END
$$;

CREATE FUNCTION condition(kind text, alias text) RETURNS text LANGUAGE plpgsql AS
$$
BEGIN
	RETURN replace(CASE dice(8)
		WHEN 0 THEN 'NOT (' || condition(kind, alias) || ')'
		WHEN 1 THEN '(' || condition(kind, alias) || pick(' AND ', ' OR ') || condition(kind, alias) || ')'
		ELSE CASE kind
			WHEN 'users' THEN pick('~age > ' || dice(30)::bigint * 1000000000003, '~score < ' || dice(40), '~active', '~name LIKE ''%' || dice(9) || '%''',
				'~note IS NULL', '~tags ? ''t' || dice(5) || '''', '~manager IS NOT NULL', '~age IS NULL', '~note = ''''', '~_id > ~manager', '~tags @> ''[' || dice(5) || ']''')
			WHEN 'posts' THEN pick('~n % 7 = ' || dice(7), '~likes IS NULL', '~likes > 9007199254740993 + ' || dice(130), '~title <> ''title ' || dice(17) || '''',
				'(~body ->> ''k'')::int < ' || dice(7), '~"_creationTime" > timestamptz ''2025-06-01 00:01:00Z''', '~author IS NOT NULL', '~n BETWEEN ' || dice(25) || ' AND ' || 25 + dice(25))
			WHEN 'pairs' THEN pick('~a = ' || dice(5), '~b > ' || dice(16), '~b IS NULL', '~a < ~b')
			ELSE pick('~a > 1', 'true') END
		END, '~', alias || '.');
END
$$;

-- What of a table is shown.
CREATE FUNCTION shown(kind text, alias text) RETURNS text LANGUAGE plpgsql AS
$$
BEGIN
	RETURN replace(CASE kind
		WHEN 'users' THEN pick('~_id', '~name, ~age', '~*', '~', '~score, ~manager', '~tags, ~note', '1')
		WHEN 'posts' THEN pick('~_id, ~n', '~title, ~likes', '~*', '~', '~body -> ''k'', ~"_creationTime"', '~author', '2')
		WHEN 'pairs' THEN pick('~a', '~a, ~b', '~_id', '~*')
		ELSE '~a' END, '~', alias || '.');
END
$$;
-- "~" alone is a whole row.
CREATE FUNCTION tidy(query text) RETURNS text LANGUAGE sql IMMUTABLE AS
$$ SELECT regexp_replace(query, '\.(?=\s|,|\))', '', 'g') $$;

-- How two tables meet.
CREATE FUNCTION meeting(kind text, alias text, other text, other_alias text) RETURNS text LANGUAGE plpgsql AS
$$
BEGIN
	RETURN replace(replace(CASE kind || ' ' || other
		WHEN 'users users' THEN pick('#manager = ~_id', '#name = ~name', '#age < ~age AND #score > ~score - 20', '#active = ~active AND #note = ~note')
		WHEN 'users posts' THEN pick('#author = ~_id', '#author = ~_id', '#n = ~score', '#title || ''!'' < ~name', '#author > ~_id AND #n < 10')
		WHEN 'posts users' THEN pick('~author = #_id', '~author = #_id', '~n = #score', '~author = #manager')
		WHEN 'posts posts' THEN pick('#_id = ~_id', '#author = ~author', '#n = ~n AND #title = ~title', '#likes = ~likes + 1', '#n = ~n + 1 AND #likes > ~likes')
		WHEN 'users pairs' THEN pick('~score > #b * 3', '~tags @> to_jsonb(#a)', '#b = ~score')
		WHEN 'posts pairs' THEN pick('~n = #a', '#b = ~n AND #a > 1', '~n % 5 = #a')
		WHEN 'pairs pairs' THEN pick('~a = #a', '~b = #a', '~a = #b AND ~b > #a')
		WHEN 'pairs posts' THEN pick('#n = ~b', '#n % 5 = ~a AND #likes > 0')
		WHEN 'pairs users' THEN pick('#score >= ~b', '#active = (~a > 2)')
		ELSE '(~_id < #_id)' END, '~', alias || '.'), '#', other_alias || '.');
END
$$;
CREATE FUNCTION any_kind() RETURNS text LANGUAGE sql VOLATILE AS
$$ SELECT pick('users', 'users', 'posts', 'posts', 'pairs', 'pairs', 'nothing') $$;
-- FULL JOIN needs an equality.
CREATE FUNCTION join_word(meets text) RETURNS text LANGUAGE sql VOLATILE AS
$$ SELECT CASE WHEN meets ~ '^\S+ = \S+$' THEN pick('JOIN', 'LEFT JOIN', 'RIGHT JOIN', 'FULL JOIN') ELSE pick('JOIN', 'LEFT JOIN', 'RIGHT JOIN') END $$;

-- A query of one of these kinds. What is ordered is compared in order.
CREATE FUNCTION compose(kind text, OUT query text, OUT is_ordered boolean) LANGUAGE plpgsql AS
$$
DECLARE
	a text := any_kind();
	b text := any_kind();
	c text := any_kind();
	meets text := meeting(a, 'x', b, 'y');
	further text := meeting(b, 'y', c, 'z');
BEGIN
	is_ordered := false;
	CASE kind
	WHEN 'join' THEN
		query := format('SELECT %s, %s FROM %s %s %s ON %s', shown(a, 'x'), shown(b, 'y'), source(a, 'x'), join_word(meets), source(b, 'y'), meets);
		IF dice(2) = 0 THEN
			query := query || format(' %s %s ON %s', pick('JOIN', 'LEFT JOIN'), source(c, 'z'), further);
		END IF;
		query := query || ' WHERE ' || pick('true', condition(a, 'x'), condition(b, 'y'), condition(a, 'x') || ' OR ' || condition(b, 'y'));
	WHEN 'limit' THEN
		query := format('SELECT %s FROM %s WHERE %s ORDER BY %s x._id %s LIMIT %s OFFSET %s', shown(a, 'x'), source(a, 'x'), condition(a, 'x'),
			CASE a WHEN 'users' THEN pick('', 'x.name,', 'x.age DESC NULLS LAST,', 'x.active, x.score DESC,') WHEN 'posts' THEN pick('', 'x.n,', 'x.author NULLS FIRST,', 'x.likes DESC,')
				ELSE pick('', 'x.a,') END, pick('', 'DESC'), dice(40), dice(4) * dice(10));
		is_ordered := true;
	WHEN 'exists' THEN
		query := format(pick('SELECT %1$s FROM %2$s WHERE EXISTS (SELECT FROM %3$s WHERE %4$s AND %5$s)', 'SELECT %1$s FROM %2$s WHERE NOT EXISTS (SELECT FROM %3$s WHERE %4$s AND %5$s)',
			'SELECT %1$s, EXISTS (SELECT FROM %3$s WHERE %4$s) FROM %2$s', 'SELECT %1$s FROM %2$s WHERE x._id IN (SELECT y._id FROM %3$s WHERE %5$s)',
			'SELECT %1$s FROM %2$s WHERE x._id NOT IN (SELECT y._id FROM %3$s WHERE %5$s)', 'SELECT %1$s FROM %2$s WHERE x._id >= ALL (SELECT y._id FROM %3$s WHERE %4$s)',
			'SELECT %1$s FROM %2$s WHERE x._id > ANY (SELECT y._id FROM %3$s WHERE %5$s)', 'SELECT %1$s, (SELECT count(*) FROM %3$s WHERE %4$s) FROM %2$s',
			'SELECT %1$s FROM %2$s WHERE (SELECT max(y._id) FROM %3$s WHERE %4$s) > x._id OR EXISTS (SELECT FROM %3$s WHERE %5$s OFFSET 3)'),
			shown(a, 'x'), source(a, 'x'), source(b, 'y'), meets, condition(b, 'y'));
	WHEN 'lateral' THEN
		query := format('SELECT %s, l.* FROM %s %s JOIN LATERAL (%s) AS l ON true', shown(a, 'x'), source(a, 'x'), pick('', 'LEFT'),
			format(pick('SELECT y._id FROM %1$s WHERE %2$s ORDER BY y._id %3$s LIMIT %4$s', 'SELECT count(*), min(y._id) FROM %1$s WHERE %2$s', 'SELECT DISTINCT left(y._id, 4) FROM %1$s WHERE %2$s OFFSET 0',
				'SELECT y._id, z._id AS third FROM %1$s JOIN %5$s ON %6$s WHERE %2$s', 'SELECT y._id FROM %1$s WHERE %2$s UNION ALL SELECT z._id FROM %5$s WHERE z._id > x._id'),
				source(b, 'y'), meets, pick('', 'DESC'), dice(5), source(c, 'z'), further));
	WHEN 'distinct' THEN
		query := format(pick('SELECT DISTINCT %1$s FROM %2$s LEFT JOIN %3$s ON %4$s', 'SELECT DISTINCT ON (left(x._id, 5)) x._id FROM %2$s WHERE %5$s ORDER BY left(x._id, 5), x._id DESC',
			'SELECT left(x._id, 5) AS k, count(*), count(DISTINCT y._id), max(y._id) FROM %2$s JOIN %3$s ON %4$s GROUP BY 1 HAVING count(*) > 1',
			'SELECT x._id, rank() OVER (PARTITION BY left(x._id, 4) ORDER BY x._id), count(*) OVER () FROM %2$s WHERE %5$s', 'SELECT left(x._id, 4), left(x._id, 5), count(*) FROM %2$s WHERE %5$s GROUP BY ROLLUP (1, 2)'),
			shown(a, 'x'), source(a, 'x'), source(b, 'y'), meets, condition(a, 'x'));
	WHEN 'union' THEN
		query := format(pick('SELECT x._id FROM %1$s WHERE %2$s %3$s SELECT y._id FROM %4$s WHERE %5$s', 'SELECT label, count(*) FROM @.labels JOIN %1$s USING (_id) GROUP BY label',
			'SELECT * FROM @.labels WHERE _id %6$s (SELECT y._id FROM %4$s WHERE %5$s)', 'SELECT count(*), min(label), max(l._id) FROM @.labels l LEFT JOIN %1$s ON x._id = l._id WHERE label LIKE ''%%1%%''',
			'SELECT (SELECT count(*) FROM @.labels l WHERE l._id >= x._id) FROM %1$s WHERE %2$s', 'SELECT x._id, l.label FROM %1$s, LATERAL (SELECT label FROM @.labels WHERE labels._id <= x._id ORDER BY _id DESC, label LIMIT 2) AS l'),
			source(a, 'x'), condition(a, 'x'), pick('UNION', 'UNION ALL', 'EXCEPT', 'EXCEPT ALL', 'INTERSECT', 'INTERSECT ALL'), source(b, 'y'), condition(b, 'y'), pick('IN', 'NOT IN'));
	WHEN 'recursive' THEN
		query := format(pick('WITH RECURSIVE r (id, d) AS (SELECT x._id, 0 FROM %1$s WHERE %2$s UNION ALL SELECT u.manager, d + 1 FROM r JOIN @.users u ON u._id = r.id WHERE d < %3$s) SELECT id, d FROM r',
			'WITH RECURSIVE r (id) AS (SELECT x._id FROM %1$s WHERE %2$s UNION SELECT u._id FROM r JOIN %4$s ON u.manager = r.id) SELECT * FROM r LEFT JOIN @.users ON users._id = id',
			'WITH RECURSIVE r (i, id) AS (SELECT 1, (SELECT min(x._id) FROM %1$s) UNION ALL SELECT i + 1, (SELECT min(_id) FROM @.posts p WHERE p._id > r.id) FROM r WHERE id IS NOT NULL AND i < 40) SELECT * FROM r'),
			source(a, 'x'), condition(a, 'x'), 1 + dice(6), source('users', 'u'));
	WHEN 'with' THEN
		query := format('WITH q AS %s (SELECT x._id, row_number() OVER (ORDER BY x._id) AS i FROM %s WHERE %s), s AS %s (SELECT count(*) AS n FROM %s) SELECT %s FROM q LEFT JOIN %s ON y._id = q._id OR %s WHERE q.i <= (SELECT n FROM s) %s',
			pick('', 'MATERIALIZED', 'NOT MATERIALIZED'), source(a, 'x'), condition(a, 'x'), pick('', 'MATERIALIZED'), source(c, 'z'), pick('q.i, y._id', 'count(*), max(q.i)', 'q.*, (SELECT n FROM s)'), source(b, 'y'), condition(b, 'y'), pick('', '') );
		IF query ~ 'SELECT count\(\*\), max' THEN
			query := query || ' HAVING count(*) >= 0';
		END IF;
	END CASE;
	query := tidy(query);
END
$$;

-- Planner settings of random choice, for the whole session.
CREATE FUNCTION shuffle_settings() RETURNS text LANGUAGE plpgsql AS
$$
DECLARE
	result text := '';
	name text;
	value text;
BEGIN
	FOREACH name IN ARRAY '{enable_hashjoin,enable_mergejoin,enable_nestloop,enable_material,enable_memoize,enable_hashagg,enable_sort,enable_incremental_sort,enable_async_append}'::text[] LOOP
		value := pick('on', 'on', 'off');
		PERFORM set_config(name, value, false);
		result := result || CASE value WHEN 'off' THEN format(' %s=off', name) ELSE '' END;
	END LOOP;
	FOR name, value IN VALUES ('work_mem', pick('64kB', '64kB', '4MB')), ('cursor_tuple_fraction', pick('0.01', '0.5', '1')), ('join_collapse_limit', pick('1', '8')),
		('from_collapse_limit', pick('1', '8')), ('plan_cache_mode', pick('auto', 'force_generic_plan', 'force_custom_plan')),
		('hash_mem_multiplier', pick('1', '2')) LOOP
		PERFORM set_config(name, value, false);
		result := result || format(' %s=%s', name, value);
	END LOOP;
	PERFORM set_config(s.name, pick('off', 'off', 'on'), false) FROM pg_settings AS s WHERE s.name IN ('force_parallel_mode', 'debug_parallel_query');
	RETURN result;
END
$$;

-- ------------------------------------------------------------------ running a query

CREATE FUNCTION rows_of(command text) RETURNS text[] LANGUAGE plpgsql AS
$$
DECLARE
	r record;
	result text[] := '{}';
BEGIN
	FOR r IN EXECUTE command LOOP
		result := result || r::text;
	END LOOP;
	RETURN result;
END
$$;

-- In order or as a bag; an error is a result, too.
CREATE FUNCTION result_of(query text, is_ordered boolean) RETURNS text[] LANGUAGE plpgsql AS
$$
DECLARE
	result text[];
BEGIN
	result := rows_of(query);
	IF NOT is_ordered THEN
		result := ARRAY(SELECT line FROM unnest(result) AS line ORDER BY line COLLATE "C");
	END IF;
	RETURN result;
EXCEPTION WHEN OTHERS THEN
	RETURN ARRAY['error ' || SQLSTATE, SQLERRM];
END
$$;

CREATE FUNCTION result_of_prepared(query text, arguments text[]) RETURNS text[] LANGUAGE plpgsql AS
$$
DECLARE
	result text[] := '{}';
	argument text;
BEGIN
	EXECUTE format('PREPARE prepared (int) AS %s', query);
	FOREACH argument IN ARRAY arguments LOOP
		result := result || '--'::text || ARRAY(SELECT line FROM unnest(rows_of(format('EXECUTE prepared (%s)', argument))) AS line ORDER BY line COLLATE "C");
	END LOOP;
	DEALLOCATE prepared;
	RETURN result;
EXCEPTION WHEN OTHERS THEN
	DEALLOCATE ALL;
	RETURN ARRAY['error ' || SQLSTATE, SQLERRM];
END
$$;

CREATE FUNCTION walk_cursor(moves text[]) RETURNS text[] LANGUAGE plpgsql AS
$$
DECLARE
	result text[] := '{}';
	move text;
BEGIN
	FOREACH move IN ARRAY moves LOOP
		IF move LIKE 'MOVE%' THEN
			EXECUTE move || ' IN walked';
		ELSE
			result := result || move || rows_of(move || ' FROM walked');
		END IF;
	END LOOP;
	RETURN result;
END
$$;
CREATE FUNCTION result_of_cursor(query text, moves text[]) RETURNS text[] LANGUAGE plpgsql AS
$$
DECLARE
	result text[];
BEGIN
	EXECUTE 'DECLARE walked SCROLL CURSOR FOR ' || query;
	result := walk_cursor(moves);
	EXECUTE 'CLOSE walked';
	RETURN result;
EXCEPTION WHEN OTHERS THEN
	RETURN ARRAY['error ' || SQLSTATE, SQLERRM];
END
$$;
CREATE FUNCTION some_moves() RETURNS text[] LANGUAGE sql VOLATILE AS
$$
	SELECT array_agg(pick('FETCH', 'FETCH', 'FETCH', 'MOVE') || ' ' || CASE dice(9) WHEN 0 THEN 'NEXT' WHEN 1 THEN 'PRIOR' WHEN 2 THEN 'FORWARD ' || dice(20) WHEN 3 THEN 'BACKWARD ' || dice(20)
		WHEN 4 THEN 'ABSOLUTE ' || dice(40) - 10 WHEN 5 THEN 'RELATIVE ' || dice(20) - 10 WHEN 6 THEN pick('FIRST', 'LAST') WHEN 7 THEN pick('FORWARD ALL', 'BACKWARD ALL') ELSE 'FORWARD 7' END)
	FROM generate_series(1, 4 + dice(10)) AS i
$$;

CREATE TABLE runs (number int PRIMARY KEY, kind text, query text, settings text, of_convex text[], of_copy text[]);

CREATE PROCEDURE run(first int, last int) LANGUAGE plpgsql AS
$$
DECLARE
	number int;
	kind text;
	sub record;
	settings text;
	moves text[];
	latency int;
	convex text[];
	copy text[];
BEGIN
	FOR number IN first..last LOOP
		IF number % 5 = 0 THEN
			latency := dice(5) / 4;
			PERFORM emu.config(jsonb_build_object('extra_latency_ms', latency,
				'page_limit', CASE latency WHEN 0 THEN (ARRAY[1, 2, 3, 7, 16, 43, 1024])[1 + dice(7)] ELSE 50 + dice(2) * 1000 END));
		END IF;
		settings := shuffle_settings();
		kind := (ARRAY['join', 'limit', 'exists', 'lateral', 'distinct', 'union', 'recursive', 'with', 'prepared', 'cursor', 'held'])[1 + number % 11];
		IF kind = 'prepared' THEN
			SELECT * INTO sub FROM compose(pick('join', 'exists', 'lateral', 'union', 'with'));
			sub.query := format('SELECT s FROM (%s) AS s WHERE length(s::text) %% 5 <> $1', sub.query);
			moves := ARRAY(SELECT dice(6)::text FROM generate_series(1, 3));
			convex := result_of_prepared(replace(sub.query, '@.', 'app.'), moves);
			copy := result_of_prepared(replace(sub.query, '@.', 'local.'), moves);
		ELSIF kind = 'cursor' THEN
			SELECT * INTO sub FROM compose(pick('join', 'exists', 'lateral', 'union', 'recursive'));
			sub.query := format('SELECT s::text COLLATE "C" AS line FROM (%s) AS s ORDER BY line', sub.query);
			moves := some_moves();
			convex := result_of_cursor(replace(sub.query, '@.', 'app.'), moves);
			copy := result_of_cursor(replace(sub.query, '@.', 'local.'), moves);
		ELSIF kind = 'held' THEN
			SELECT * INTO sub FROM compose('limit');
			moves := some_moves();
			EXECUTE format('DECLARE walked %s CURSOR WITH HOLD FOR %s', 'SCROLL', replace(sub.query, '@.', 'app.'));
			convex := walk_cursor(moves[1:3]);
			COMMIT;
			convex := convex || walk_cursor(moves[4:]);
			EXECUTE 'CLOSE walked';
			EXECUTE format('DECLARE walked %s CURSOR WITH HOLD FOR %s', 'SCROLL', replace(sub.query, '@.', 'local.'));
			copy := walk_cursor(moves[1:3]);
			COMMIT;
			copy := copy || walk_cursor(moves[4:]);
			EXECUTE 'CLOSE walked';
		ELSE
			SELECT * INTO sub FROM compose(kind);
			convex := result_of(replace(sub.query, '@.', 'app.'), sub.is_ordered);
			copy := result_of(replace(sub.query, '@.', 'local.'), sub.is_ordered);
			moves := '{}';
		END IF;
		INSERT INTO runs VALUES (number, kind, sub.query || ' ' || array_to_string(moves, '; '), settings, convex, copy);
		COMMIT;
	END LOOP;
END
$$;

-- The first half as the planner guesses, the second with statistics.
CALL run(1, :queries / 2);
ANALYZE app.users, app.posts, app.pairs, app.nothing;
CALL run(:queries / 2 + 1, :queries);

-- ------------------------------------------------------------------ the outcome

SELECT is((SELECT count(*) FROM runs), :queries::bigint, 'all queries have run');
SELECT is(sum((of_convex IS DISTINCT FROM of_copy)::int), 0::bigint, format('%s random queries of kind "%s" give the rows of the local copy', count(*), kind)) FROM runs GROUP BY kind ORDER BY kind;
SELECT diag(format(e'seed %s, query %s:\n%s\nwith%s\n%s rows and %s of the copy; of Convex only: %s; of the copy only: %s', :seed, number, query, settings, cardinality(of_convex), cardinality(of_copy),
	(ARRAY(SELECT unnest(of_convex) EXCEPT ALL SELECT unnest(of_copy)))[1:3], (ARRAY(SELECT unnest(of_copy) EXCEPT ALL SELECT unnest(of_convex)))[1:3]))
FROM runs WHERE of_convex IS DISTINCT FROM of_copy ORDER BY number LIMIT 5;
-- The generator itself: queries that run, and most of them with rows.
SELECT is((SELECT count(*) FROM runs WHERE of_copy[1] LIKE 'error%'), 0::bigint, 'the generator writes queries without errors');
SELECT diag(format(e'query %s: %s\n%s', number, query, array_to_string(of_copy, ' '))) FROM runs WHERE of_copy[1] LIKE 'error%' ORDER BY number LIMIT 5;
SELECT cmp_ok((SELECT count(*) FROM runs WHERE cardinality(of_copy) > 0), '>', :queries * 2 / 3::bigint, 'most of them have rows');

SELECT * FROM finish();
