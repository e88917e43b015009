-- A mirror that is attached as a partition cannot get a column: a new field
-- stopped the table for ever. A generated column of a field's name had the
-- table loaded again without end, an identity column stopped it, and so did a
-- column that a target got back while it was loaded. What has no column goes to
-- _extra, or to a column of another name, and a load that does not fit its
-- target any more begins again, with pauses and a reason.

\ir ../pgtap/lib/setup.sql
SELECT plan(35);

SELECT emu.server('convex') \g /dev/null
SELECT emu.config('{"page_limit": 10}') \g /dev/null

CREATE FUNCTION state_of(sub text) RETURNS text LANGUAGE sql AS
$$ SELECT string_agg(concat_ws(' ', state, load, error_code, error_message), ', ') FROM convex_stat_subscription_rel WHERE name = sub $$;
CREATE FUNCTION events(sub text, what text) RETURNS bigint LANGUAGE sql AS
$$ SELECT count(*) FROM convex_stat_subscription_event WHERE name = sub AND kind = what $$;

-- A partition.
SELECT emu.insert('a', '{"x": "one"}') AS first \gset
SELECT convex_create_subscription('app', 'convex', '{a}') \g /dev/null
CALL convex_sync('app');
CREATE TABLE whole (LIKE app.a) PARTITION BY RANGE (_id);
ALTER TABLE whole ATTACH PARTITION app.a DEFAULT;
SELECT emu.insert('a', '{"x": "two", "y": "new"}') \g /dev/null
CALL convex_sync('app');
SELECT is(state_of('app'), 'ready', 'a partition is followed when there is a new field');
SELECT is((SELECT _extra FROM whole WHERE x = 'two'), '{"y": "new"}', 'whose value is in _extra');
SELECT is(events('app', 'drift'), 1::bigint, 'which is told');
SELECT convex_resync_table('app', 'a') \g /dev/null
SELECT emu.insert('a', '{"x": "three", "z": 3}') \g /dev/null
CALL convex_sync('app');
SELECT is(state_of('app'), 'ready', 'it is loaded again');
SELECT is((SELECT array_agg(_extra ORDER BY x) FROM whole), ARRAY[NULL, '{"z": 3}', '{"y": "new"}']::jsonb[], 'with all values');
ALTER TABLE whole DETACH PARTITION app.a;
SELECT emu.insert('a', '{"x": "four", "y": "newer"}') \g /dev/null
CALL convex_sync('app');
SELECT is((SELECT y FROM app.a WHERE x = 'four'), 'newer', 'a table that is none any more gets the column');

-- A table of a composite type.
CREATE SCHEMA typed;
CREATE TYPE typed.row AS (_id text COLLATE "C", x text, _ts bigint, _extra jsonb);
CREATE TABLE typed.a OF typed.row (PRIMARY KEY (_id));
SELECT convex_create_subscription('typed', 'convex', '{a}') \g /dev/null
CALL convex_sync('typed');
SELECT is(state_of('typed'), 'ready', 'a table of a composite type is a target');
SELECT is((SELECT _extra ->> 'y' FROM typed.a WHERE x = 'two'), 'new', 'with what it has no column for in _extra');

-- Columns that PostgreSQL fills.
CREATE SCHEMA filled;
CREATE TABLE filled.b (_id text COLLATE "C" PRIMARY KEY, n float8, g float8 GENERATED ALWAYS AS (n * 2) STORED, i bigint GENERATED ALWAYS AS IDENTITY, _ts bigint, _extra jsonb);
SELECT emu.insert('b', '{"n": 1, "g": 5, "i": 7}') \g /dev/null
SELECT convex_create_subscription('filled', 'convex', '{b}') \g /dev/null
CALL convex_sync('filled');
CREATE FUNCTION value_of(field text, number float8) RETURNS jsonb LANGUAGE plpgsql AS
$$
DECLARE
	result jsonb;
BEGIN
	EXECUTE format('SELECT coalesce(to_jsonb(b) -> %L, _extra -> %L) FROM filled.b WHERE n = $1',
		(SELECT key FROM convex_subscription JOIN convex_subscription_rel AS r USING (subid), jsonb_each_text(r.columns) WHERE name = 'filled' AND split_part(value, E'\t', 1) = field AND key <> field), field)
		INTO result USING number;
	RETURN result;
END
$$;
SELECT is(state_of('filled'), 'ready', 'a target with columns that PostgreSQL fills is loaded');
SELECT is((SELECT concat_ws(' ', n, g, i) FROM filled.b), '1 2 1', 'these have PostgreSQL''s values');
SELECT is(value_of('g', 1), '5', 'and the field of the name of a generated one has a column of another name');
SELECT is(value_of('i', 1), '7', 'as has that of an identity column');
SELECT is(events('filled', 'resync') + events('filled', 'table_error'), 0::bigint, 'at the first attempt');
SELECT emu.insert('b', '{"n": 2, "g": 6, "i": 8}') \g /dev/null
CALL convex_sync('filled');
SELECT is((SELECT concat_ws(' ', g, i) FROM filled.b WHERE n = 2), '4 2', 'changes find them');
SELECT is(value_of('g', 2), '6', 'in the same way');
SELECT is(value_of('i', 2), '8', 'both of them');
ALTER TABLE filled.b ADD COLUMN h float8 GENERATED ALWAYS AS (n * 3) STORED;
SELECT emu.insert('b', '{"n": 3, "h": 1}') \g /dev/null
CALL convex_sync('filled');
SELECT is((SELECT h FROM filled.b WHERE n = 3), 9::float8, 'one that is added later');
SELECT is(value_of('h', 3), '1', 'is told apart from its field, too');
SELECT convex_resync_table('filled', 'b') \g /dev/null
CALL convex_sync('filled');
SELECT is(state_of('filled'), 'ready', 'and a load finds it');
SELECT is((SELECT concat_ws(' ', h, value_of('h', 3), value_of('g', 2)) FROM filled.b WHERE n = 3), '9 1 6', 'with the same values');

-- An identity that would take values, but is never NULL.
CREATE SCHEMA given;
CREATE TABLE given.i (_id text COLLATE "C" PRIMARY KEY, n bigint GENERATED BY DEFAULT AS IDENTITY, x float8, _ts bigint, _extra jsonb);
SELECT emu.insert('i', '{"n": 7, "x": 1}', '{"x": 2}') \g /dev/null
SELECT convex_create_subscription('given', 'convex', '{i}') \g /dev/null
CALL convex_sync('given');
SELECT is(state_of('given'), 'ready', 'an identity GENERATED BY DEFAULT is PostgreSQL''s, too');
SELECT is((SELECT array_agg(n ORDER BY n) FROM given.i), '{1,2}', 'with its values');
SELECT emu.insert('i', '{"n": 8, "x": 3}', '{"x": 4}') \g /dev/null
CALL convex_sync('given');
SELECT is((SELECT array_agg(n ORDER BY n) FROM given.i), '{1,2,3,4}', 'which changes leave to it');
SELECT results_eq($$ SELECT x, (to_jsonb(i) - '{n,x,_ts,_id,_extra,_creationTime}'::text[]) FROM given.i WHERE to_jsonb(i) - '{n,x,_ts,_id,_extra,_creationTime}'::text[] @? '$.* ? (@ != null)' ORDER BY x $$,
	format($$ VALUES (1::float8, '{%1$s: 7}'::jsonb), (3, '{%1$s: 8}') $$, (SELECT to_json(attname) FROM pg_attribute WHERE attrelid = 'given.i'::regclass AND attname ~ '^n_')), 'the field has a column of another name');

-- A column of PostgreSQL's that comes while a load has found the field.
SELECT emu.insert('g', jsonb_build_object('x', i)) FROM generate_series(1, 30) AS i \g /dev/null
SELECT convex_create_subscription('grown', 'convex', '{g}') \g /dev/null
CALL convex_sync('grown');
SELECT convex_resync_table('grown', 'g') \g /dev/null
CALL convex_sync('grown', 2);
SELECT is((SELECT load FROM convex_stat_subscription_rel WHERE name = 'grown'), 'walking', 'a load is under way');
ALTER TABLE grown.g DROP COLUMN x;
ALTER TABLE grown.g ADD COLUMN x float8 GENERATED ALWAYS AS (_ts) STORED;
CALL convex_sync('grown');
SELECT is(state_of('grown'), 'ready', 'a column that PostgreSQL fills comes in the middle of it');
SELECT is((SELECT count(*) FROM grown.g WHERE x = _ts), 30::bigint, 'has its values');
SELECT is((SELECT sum((SELECT sum(value::float8) FROM jsonb_each_text(to_jsonb(g)) WHERE key ~ '^x_')) FROM grown.g), 465::float8, 'and the field those of all documents');

-- A column that is there when the load begins, and is not, or the other way.
SELECT emu.insert('e', '{"x": 1}') FROM generate_series(1, 30) \g /dev/null
SELECT convex_create_subscription('late', 'convex', '{e}', options => '{"schema_evolution": "ignore"}') \g /dev/null
CALL convex_sync('late');
ALTER TABLE late.e DROP COLUMN _extra;
SELECT convex_resync_table('late', 'e') \g /dev/null
CALL convex_sync('late', 2);
SELECT is((SELECT load FROM convex_stat_subscription_rel WHERE name = 'late'), 'walking', 'a target without _extra is being loaded');
ALTER TABLE late.e ADD COLUMN _extra jsonb;
CALL convex_sync('late');
SELECT is(state_of('late'), 'ready', 'one that has got it back is loaded');
SELECT is((SELECT count(*) FROM convex_stat_subscription_event WHERE name = 'late' AND detail ~ 'columns of its target'), 1::bigint, 'from the beginning, which is told');

-- Again and again.
SELECT convex_resync_table('late', 'e') \g /dev/null
CREATE PROCEDURE change_while_loading(times int) LANGUAGE plpgsql AS
$$
BEGIN
	FOR i IN 1 .. times LOOP
		CALL convex_sync('late', 1);
		EXECUTE format('ALTER TABLE late.e ALTER COLUMN x TYPE %s USING NULL', CASE i % 2 WHEN 1 THEN 'text' ELSE 'float8' END);
		COMMIT;
		FOR page IN 1 .. 9 LOOP
			EXIT WHEN (SELECT attempts >= i FROM convex_subscription_rel WHERE table_name = 'e');
			CALL convex_sync('late', 1);
		END LOOP;
	END LOOP;
END
$$;
CALL change_while_loading(5);
SELECT ok((SELECT retry_at > now() FROM convex_stat_subscription_rel WHERE name = 'late'), 'a load that never fits pauses');
SELECT matches((SELECT error_message FROM convex_stat_subscription_rel WHERE name = 'late'), 'column', 'and says why');
SELECT convex_resync_table('late', 'e') \g /dev/null
CALL convex_sync('late');
SELECT is(state_of('late'), 'ready', 'a request ends the pause');
SELECT is((SELECT count(*) FROM late.e), 30::bigint, 'with all rows');

SELECT * FROM finish();
