-- Subscriptions: changes that go past the executor's statements leave the rows
-- that statements would leave. Each mode mirrors the same tables twice: as they
-- are made, and with a trigger that does nothing but ask for statements.

\ir lib/setup.sql
SELECT no_plan();

SELECT emu.server() \g /dev/null
-- pages of changes end within rounds, and revisions of a document share pages
SELECT emu.config('{"delta_limit": 40}') \g /dev/null
\set seed `echo ${DIRECT_SEED:-1}`
\set rounds `echo ${DIRECT_ROUNDS:-12}`
SELECT setseed(:seed / 1000.0) \g /dev/null

-- ------------------------------------------------------------------ random changes

CREATE FUNCTION pick(n int) RETURNS int LANGUAGE sql AS $$ SELECT floor(random() * n)::int $$;

-- a value of any kind, often one that does not fit its column
CREATE FUNCTION any_value() RETURNS jsonb LANGUAGE plpgsql AS
$$
DECLARE
	n int := pick(1000);
BEGIN
	RETURN CASE pick(12)
		WHEN 0 THEN 'null'::jsonb
		WHEN 1 THEN to_jsonb(n % 2 = 0)
		WHEN 2 THEN to_jsonb(n / 8.0)
		WHEN 3 THEN jsonb_build_object('$integer', translate(encode(int8send(n * 99991::bigint), 'base64'), E'\n', ''))
		WHEN 4 THEN jsonb_build_object('$bytes', translate(encode(sha256(n::text::bytea), 'base64'), E'\n', ''))
		WHEN 5 THEN jsonb_build_object('$float', 'AAAAAAAA8H8=')
		WHEN 6 THEN jsonb_build_array(n, 'x', NULL, jsonb_build_object('a', n))
		WHEN 7 THEN jsonb_build_object('b', n, 'a', jsonb_build_object('$integer', 'AQAAAAAAAAA='))
		WHEN 8 THEN to_jsonb(repeat(md5(n::text), 300))
		ELSE to_jsonb('text ' || n)
	END;
END
$$;
CREATE FUNCTION any_document(round int) RETURNS jsonb LANGUAGE sql AS
$$
	SELECT jsonb_object_agg('f' || i, any_value())
	FROM (SELECT DISTINCT pick(5 + round) AS i FROM generate_series(1, 6)) AS fields
$$;
-- changes of one transaction; several may be of one document
CREATE FUNCTION any_changes(table_name text, n int, round int) RETURNS jsonb LANGUAGE plpgsql AS
$$
DECLARE
	ids text[] := ARRAY(SELECT d ->> '_id' FROM emu.dump(table_name) AS d);
	gone text[] := '{}';
	ops jsonb := '[]';
	id text;
BEGIN
	FOR i IN 1 .. n LOOP
		id := ids[1 + pick(cardinality(ids))];
		IF pick(4) = 0 OR id IS NULL OR id = ANY (gone) THEN
			ops := ops || jsonb_build_object('op', 'insert', 'table', table_name, 'doc', any_document(round));
		ELSIF pick(4) = 0 THEN
			ops := ops || jsonb_build_object('op', 'delete', 'table', table_name, 'id', id);
			gone := gone || id;
		ELSE
			ops := ops || jsonb_build_object('op', CASE pick(2) WHEN 0 THEN 'patch' ELSE 'replace' END,
				'table', table_name, 'id', id, 'doc', any_document(round));
		END IF;
	END LOOP;
	RETURN ops;
END
$$;

-- ------------------------------------------------------------------ subscriptions

CREATE FUNCTION do_nothing() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN coalesce(NEW, OLD); END $$;

SELECT emu.insert('a', any_document(0)), emu.insert('b', any_document(0)) \g /dev/null
SELECT emu.mutate(any_changes('a', 60, 0) || any_changes('b', 30, 0)) \g /dev/null
SELECT convex_create_subscription(mode || way, 'convex', '{a,b}', mode => mode)
FROM unnest('{mirror,soft_delete,history}'::text[]) AS mode, unnest('{_direct,_stated}'::text[]) AS way \g /dev/null
CALL convex_sync();
SELECT format('CREATE TRIGGER do_nothing BEFORE INSERT OR UPDATE OR DELETE ON %s_stated.%s FOR EACH ROW EXECUTE FUNCTION do_nothing()', mode, name),
	-- a column that is not ours, in both
	format('ALTER TABLE %1$s_stated.%2$s ADD own text', mode, name), format('ALTER TABLE %1$s_direct.%2$s ADD own text', mode, name),
	format('UPDATE %1$s_stated.%2$s SET own = md5(_id)', mode, name), format('UPDATE %1$s_direct.%2$s SET own = md5(_id)', mode, name)
FROM unnest('{mirror,soft_delete,history}'::text[]) AS mode, unnest('{a,b}'::text[]) AS name \gexec

-- rows of one that the other does not have, as columns and their values
CREATE FUNCTION differences(mode text) RETURNS bigint LANGUAGE plpgsql AS
$$
DECLARE
	n bigint;
	total bigint := 0;
	name text;
BEGIN
	FOREACH name IN ARRAY '{a,b}'::text[] LOOP
		EXECUTE format('SELECT count(*) FROM ((SELECT to_jsonb(t) FROM %1$s_direct.%2$s AS t EXCEPT ALL SELECT to_jsonb(t) FROM %1$s_stated.%2$s AS t)
			UNION ALL (SELECT to_jsonb(t) FROM %1$s_stated.%2$s AS t EXCEPT ALL SELECT to_jsonb(t) FROM %1$s_direct.%2$s AS t)) AS d', mode, name) INTO n;
		total := total + n;
	END LOOP;
	RETURN total;
END
$$;
-- _ids that are not in both the mirror and Convex, and rows of another revision
CREATE FUNCTION strays(mode text) RETURNS bigint LANGUAGE plpgsql AS
$$
DECLARE
	n bigint;
	total bigint := 0;
	name text;
BEGIN
	FOREACH name IN ARRAY '{a,b}'::text[] LOOP
		EXECUTE format('SELECT count(*) FROM (SELECT _id, (_extra ->> ''f0'') IS NOT NULL OR f0 IS NOT NULL AS has FROM %s_direct.%s WHERE %s) AS t
			FULL JOIN (SELECT d ->> ''_id'' AS _id, (d ->> ''f0'') IS NOT NULL AS has FROM emu.dump(%L) AS d) AS d USING (_id)
			WHERE t.has IS DISTINCT FROM d.has', mode, name, CASE mode WHEN 'mirror' THEN 'true' ELSE '_deleted_at IS NULL' END, name) INTO n;
		total := total + n;
	END LOOP;
	RETURN total;
END
$$;

SELECT format('SELECT emu.mutate(any_changes(''a'', 25, %1$s)) ->> ''ts'', emu.mutate(any_changes(''b'', 40, %1$s)) ->> ''ts'', emu.mutate(any_changes(''a'', 55, %1$s)) ->> ''ts''', round),
	'CALL convex_sync()',
	format('SELECT is(differences(mode), 0::bigint, format(''%%s: both ways leave the same rows, round %s'', mode)) FROM unnest(''{mirror,soft_delete,history}''::text[]) AS mode', round),
	format('SELECT is(strays(mode), 0::bigint, format(''%%s: which are those of Convex, round %s'', mode)) FROM unnest(''{mirror,soft_delete}''::text[]) AS mode', round)
FROM generate_series(1, :rounds) AS round \gexec
SELECT cmp_ok((SELECT count(*) FROM mirror_direct.a), '>', 50::bigint, 'there are rows to be the same');
SELECT cmp_ok((SELECT count(*) FROM mirror_direct.a WHERE own = md5(_id)), '>', 0::bigint, 'some of which have what the user put into them');
SELECT cmp_ok((SELECT count(*) FROM soft_delete_direct.a WHERE _deleted_at IS NOT NULL), '>', 20::bigint, 'and some of which are deleted');
SELECT cmp_ok((SELECT count(*) FROM mirror_direct.a WHERE _extra IS NOT NULL), '>', 20::bigint, 'or hold values that fit no column');
SELECT is((SELECT count(*) FROM convex_stat_subscription_rel WHERE state <> 'ready'), 0::bigint, 'and no table waits');
SELECT convex_drop_subscription(mode || way, true) FROM unnest('{mirror,soft_delete,history}'::text[]) AS mode, unnest('{_direct,_stated}'::text[]) AS way \g /dev/null

-- ------------------------------------------------------------------ what a statement would do

SELECT emu.insert('c', '{"x": 1, "y": "one"}', '{"x": 2, "y": "two"}') \g /dev/null
SELECT convex_create_subscription('plain', 'convex', '{c}') \g /dev/null
CALL convex_sync('plain');
SELECT d ->> '_id' AS one FROM emu.dump('c') AS d WHERE d ->> 'y' = 'one' \gset
SELECT d ->> '_id' AS two FROM emu.dump('c') AS d WHERE d ->> 'y' = 'two' \gset
CREATE FUNCTION change(id text, doc jsonb) RETURNS bigint LANGUAGE sql AS
$$ SELECT (emu.mutate(jsonb_build_array(jsonb_build_object('op', 'patch', 'table', 'c', 'id', id, 'doc', doc))) ->> 'ts')::bigint $$;
CREATE FUNCTION rel(what text) RETURNS text LANGUAGE plpgsql AS
$$ DECLARE r text; BEGIN EXECUTE format('SELECT %s FROM convex_stat_subscription_rel WHERE name = ''plain''', what) INTO r; RETURN r; END $$;

-- A look-up for each document, where statements need more, or none.
CREATE FUNCTION lookups() RETURNS bigint LANGUAGE sql AS $$ SELECT idx_scan FROM pg_stat_user_indexes WHERE indexrelid = 'plain.c_pkey'::regclass $$;
SELECT pg_stat_force_next_flush() \g /dev/null
SELECT lookups() AS before, count(*) FROM emu.insert('c', VARIADIC ARRAY(SELECT jsonb_build_object('x', 0, 'y', 'many' || n) FROM generate_series(1, 20) AS n)) \gset
CALL convex_sync('plain');
SELECT pg_stat_force_next_flush() \g /dev/null
SELECT is(lookups() - :before, 20::bigint, 'a plain table is changed past statements');
ALTER TABLE plain.c ADD made int DEFAULT 7;
SELECT pg_stat_force_next_flush() \g /dev/null
SELECT lookups() AS before, count(*) FROM emu.insert('c', VARIADIC ARRAY(SELECT jsonb_build_object('x', 0, 'y', 'more' || n) FROM generate_series(1, 20) AS n)) \gset
CALL convex_sync('plain');
SELECT pg_stat_force_next_flush() \g /dev/null
SELECT isnt(lookups() - :before, 20::bigint, 'another one is not');
SELECT is((SELECT count(*) FROM plain.c WHERE y ~ '^(many|more)'), 40::bigint, 'with all rows in both cases');
SELECT emu.insert('c', '{"x": 3, "y": "three"}') \g /dev/null
CALL convex_sync('plain');
SELECT is((SELECT made FROM plain.c WHERE y = 'three'), 7, 'a column of the user''s gets its default');
ALTER TABLE plain.c DROP made, ADD twice double precision GENERATED ALWAYS AS (x * 2) STORED;
SELECT change(:'one', '{"x": 10}') \g /dev/null
CALL convex_sync('plain');
SELECT is((SELECT twice FROM plain.c WHERE _id = :'one'), 20::double precision, 'a generated column is computed');
ALTER TABLE plain.c DROP twice;
CREATE TABLE seen (id text);
CREATE RULE tell AS ON UPDATE TO plain.c DO ALSO INSERT INTO seen VALUES (NEW._id);
SELECT change(:'two', '{"x": 20}') \g /dev/null
CALL convex_sync('plain');
SELECT is((SELECT array_agg(id) FROM seen), ARRAY[:'two'], 'a rule is obeyed');
DROP RULE tell ON plain.c;

CREATE UNIQUE INDEX only_once ON plain.c (lower(y));
SELECT change(:'two', '{"y": "ONE"}') \g /dev/null
CALL convex_sync('plain');
SELECT is(rel('state || '' '' || error_code'), 'error 23505', 'what a unique index of the user''s refuses makes the table wait');
SELECT is((SELECT y FROM plain.c WHERE _id = :'two'), 'two', 'with the row as it was');
DROP INDEX plain.only_once;
SELECT convex_resync_table('plain', 'c') \g /dev/null
CALL convex_sync('plain');
SELECT is((SELECT y FROM plain.c WHERE _id = :'two'), 'ONE', 'until it is gone');

CREATE ROLE keeper;
CREATE FUNCTION small(x double precision) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS
$$ BEGIN IF current_user <> 'keeper' THEN RAISE 'run as %', current_user; END IF; RETURN x < 100; END $$;
GRANT USAGE ON SCHEMA plain TO keeper;
ALTER TABLE plain.c OWNER TO keeper;
ALTER TABLE plain.c ADD CONSTRAINT small CHECK (public.small(x)) NOT VALID;
SELECT change(:'two', '{"x": 99}') \g /dev/null
CALL convex_sync('plain');
SELECT is((SELECT x FROM plain.c WHERE _id = :'two'), 99::double precision, 'a constraint is checked as the table''s owner');
SELECT change(:'two', '{"x": 100}') \g /dev/null
SELECT emu.insert('c', '{"x": 4, "y": "four"}') \g /dev/null
CALL convex_sync('plain');
SELECT is(rel('state || '' '' || error_code'), 'error 23514', 'and what it refuses makes the table wait');
SELECT is((SELECT count(*) FROM plain.c WHERE y = 'four'), 0::bigint, 'as a whole');
ALTER TABLE plain.c DROP CONSTRAINT small;
SELECT convex_resync_table('plain', 'c') \g /dev/null
CALL convex_sync('plain');
SELECT is(rel('state'), 'ready', 'until that is gone, too');

REVOKE UPDATE ON plain.c FROM keeper;
SELECT change(:'two', '{"x": 5}') \g /dev/null
CALL convex_sync('plain');
SELECT is(rel('state || '' '' || error_code'), 'error 42501', 'an owner who may not update does not');
GRANT UPDATE ON plain.c TO keeper;
SELECT convex_resync_table('plain', 'c') \g /dev/null
CALL convex_sync('plain');
SELECT is((SELECT x FROM plain.c WHERE _id = :'two'), 5::double precision, 'until that is allowed');
ALTER TABLE plain.c ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY few ON plain.c USING (x < 50) WITH CHECK (x < 50);
SELECT change(:'two', '{"x": 60}') \g /dev/null
CALL convex_sync('plain');
SELECT is(rel('state || '' '' || error_code'), 'error 42501', 'row security holds for the owner where it is forced');
ALTER TABLE plain.c DISABLE ROW LEVEL SECURITY;
SELECT convex_resync_table('plain', 'c') \g /dev/null
CALL convex_sync('plain');
SELECT is((SELECT x FROM plain.c WHERE _id = :'two'), 60::double precision, 'and no longer when it is not');

CREATE TABLE child () INHERITS (plain.c);
INSERT INTO child (_id, x, _ts) SELECT :'one', 0, 0;
SELECT change(:'one', '{"x": 61}') \g /dev/null
CALL convex_sync('plain');
SELECT is((SELECT array_agg(x) FROM plain.c WHERE _id = :'one'), '{61,61}'::double precision[], 'a table is changed with its children');
DROP TABLE child;
SELECT convex_drop_subscription('plain', true) \g /dev/null
DROP OWNED BY keeper;
DROP ROLE keeper;
SELECT * FROM finish();
