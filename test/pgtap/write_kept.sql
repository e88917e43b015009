-- What an UPDATE does not mean to change stays as it was, whatever the document
-- holds: random documents, changed through every kind of column.
-- CONVEX_RANDOM_SEED and CONVEX_RANDOM_DOCUMENTS look further.

\set seed `echo "${CONVEX_RANDOM_SEED:-1}"`
\set documents `echo "${CONVEX_RANDOM_DOCUMENTS:-300}"`
\ir lib/setup.sql
\ir lib/writes.sql
\pset fieldsep '\n'
SELECT no_plan();

SELECT emu.server() \g /dev/null
SELECT emu.index('docs', '{k}') \g /dev/null

-- ------------------------------------------------------------------ random documents

CREATE SCHEMA gen;
CREATE FUNCTION gen.less(n int) RETURNS int LANGUAGE sql AS $$ SELECT floor(random() * n)::int $$;
CREATE FUNCTION gen.name() RETURNS text LANGUAGE sql AS
$$ SELECT (ARRAY['a', 'b', 'c', 'n', 'Zed', 'with space', 'a.b', '"quoted"', 'x_1', '\back', '', '{brace'])[1 + gen.less(12)] $$;
CREATE FUNCTION gen.value(depth int) RETURNS jsonb LANGUAGE plpgsql AS
$$
BEGIN
	CASE gen.less(CASE WHEN depth > 0 THEN 14 ELSE 10 END)
		WHEN 0 THEN RETURN 'null';
		WHEN 1 THEN RETURN to_jsonb(random() < 0.5);
		WHEN 2 THEN RETURN to_jsonb((ARRAY[0, 1, -1, 0.1, 1e300, 5e-324, 9007199254740993, -12345.678, 1e16, 123456789012])[1 + gen.less(10)]::float8);
		WHEN 3 THEN RETURN emu.int64((ARRAY[0, 1, -1, 9007199254740993, 9223372036854775807, -9223372036854775808, 1767323045000])[1 + gen.less(7)]);
		WHEN 4 THEN RETURN emu.bytes(decode(repeat('a0ff', gen.less(5)), 'hex'));
		WHEN 5 THEN RETURN emu.float64((ARRAY['NaN', 'Infinity', '-Infinity', '-0'])[1 + gen.less(4)]::float8);
		WHEN 6 THEN RETURN to_jsonb((ARRAY['', 'text', e'tab\t"\\ \u00e4\U0001F600\x01', 'NaN', 'AP8=', '$integer', '123'])[1 + gen.less(7)]::text);
		WHEN 7, 8, 9 THEN RETURN to_jsonb(gen.less(1000));
		WHEN 10, 11 THEN RETURN (SELECT coalesce(jsonb_agg(gen.value(depth - 1)), '[]') FROM generate_series(1, gen.less(5)));
		ELSE RETURN (SELECT coalesce(jsonb_object_agg(gen.name(), gen.value(depth - 1)), '{}') FROM generate_series(1, gen.less(5)));
	END CASE;
END
$$;

-- Anything but null, which a column cannot tell from a missing field.
CREATE FUNCTION gen.some(depth int) RETURNS jsonb LANGUAGE sql AS $$ SELECT coalesce(nullif(gen.value(depth), 'null'), '"none"') $$;

SELECT setseed((:seed % 1000) / 1000.0) \g /dev/null
CREATE TABLE given AS SELECT k, jsonb_build_object('k', k, 'n', gen.some(2), 'j', gen.some(4), 'o', jsonb_build_object('p', gen.some(2), 'q', gen.value(3)), 'extra', gen.value(4)) AS doc FROM generate_series(1, :documents) AS k;
SELECT emu.mutate(jsonb_agg(jsonb_build_object('op', 'insert', 'table', 'docs', 'doc', doc))) FROM given \g /dev/null
CREATE TABLE held AS SELECT (document ->> 'k')::float8::int AS k, document FROM emu.dump('docs') AS document;
SELECT is((SELECT count(*) FROM held), :documents::bigint, 'the documents are there');

-- ------------------------------------------------------------------ changes

CREATE FOREIGN TABLE plain (k float8, touched float8) SERVER convex OPTIONS (table_name 'docs', primary_key 'k');
CREATE FOREIGN TABLE nested (k float8, touched float8 OPTIONS (column_name 'o.touched', path 'true'), p jsonb OPTIONS (column_name 'o.p', path 'true')) SERVER convex OPTIONS (table_name 'docs', primary_key 'k');
CREATE FOREIGN TABLE clean (k float8, j jsonb, o jsonb) SERVER convex OPTIONS (table_name 'docs', primary_key 'k');
CREATE FOREIGN TABLE encoded (k float8, j jsonb, o jsonb) SERVER convex OPTIONS (table_name 'docs', primary_key 'k', json_values 'encoded');
CREATE FOREIGN TABLE whole_clean (k float8, doc jsonb OPTIONS (column_name '*')) SERVER convex OPTIONS (table_name 'docs', primary_key 'k');
CREATE FOREIGN TABLE whole_encoded (k float8, doc jsonb OPTIONS (column_name '*')) SERVER convex OPTIONS (table_name 'docs', primary_key 'k', json_values 'encoded');

-- Everything but `touched` is as it was given.
CREATE FUNCTION changed() RETURNS SETOF text LANGUAGE sql AS
$$
	SELECT format(e'%s\nwas %s\nis  %s', h.k, h.document, d) FROM app.held AS h LEFT JOIN emu.dump('docs') AS d ON (d ->> 'k')::float8 = h.k
	WHERE h.document IS DISTINCT FROM (d - 'touched') #- '{o,touched}' LIMIT 1
$$;
CREATE FUNCTION still(statement text) RETURNS SETOF text LANGUAGE plpgsql AS
$$
DECLARE
	failure jsonb := emu.outcome(statement);
BEGIN
	RETURN NEXT is(failure, NULL, statement);
	RETURN NEXT is((SELECT * FROM app.changed()), NULL, '... leaves all else as it was');
END
$$;
SELECT still(statement) FROM (VALUES
	('UPDATE plain SET touched = k'),
	('UPDATE nested SET touched = k'),
	('UPDATE nested SET touched = NULL'),
	('UPDATE nested SET p = p'),
	('UPDATE clean SET j = j'),
	('UPDATE clean SET o = o || ''{"touched": 5}'''),
	('UPDATE encoded SET j = j, o = o'),
	('UPDATE encoded SET o = o - ''touched'''),
	('UPDATE whole_clean SET doc = doc'),
	('UPDATE whole_clean SET doc = doc || ''{"touched": "again"}'''),
	('UPDATE whole_encoded SET doc = doc || ''{"touched": {"$integer": "AQAAAAAAAAA="}}'''),
	('UPDATE whole_encoded SET doc = doc - ''touched''')) AS s (statement);
SELECT is((SELECT document FROM held WHERE k = 7), (SELECT d FROM emu.dump('docs') AS d WHERE d -> 'k' = '7'), 'in the end a document is what it was, _id and _creationTime too');

-- What is read is what can be written: a copy is the same.
SELECT emu.index('copies', '{k}'), emu.index('clean_copies', '{k}') \g /dev/null
CREATE FOREIGN TABLE copies (k float8, n jsonb, j jsonb, o jsonb, extra jsonb) SERVER convex OPTIONS (primary_key 'k', json_values 'encoded');
CREATE FOREIGN TABLE originals (k float8, n jsonb, j jsonb, o jsonb, extra jsonb) SERVER convex OPTIONS (table_name 'docs', primary_key 'k', json_values 'encoded');
SELECT is(emu.sqlstate('INSERT INTO copies SELECT * FROM originals'), '00000', 'INSERT ... SELECT of encoded values');
SELECT is((SELECT count(*) FROM emu.dump('copies') AS d JOIN held AS h ON h.k = (d ->> 'k')::float8 WHERE d - '_id' - '_creationTime' = h.document - '_id' - '_creationTime'
		OR d - '_id' - '_creationTime' = (SELECT jsonb_object_agg(key, value) FROM jsonb_each(h.document - '_id' - '_creationTime') WHERE value <> 'null')), :documents::bigint, 'copies every value exactly; a null of Convex reads as NULL and is left out');

SELECT * FROM finish();
