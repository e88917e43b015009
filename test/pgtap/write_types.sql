-- What each declared type becomes in Convex on both import routes, and what is
-- refused because a route cannot carry it exactly.

\ir lib/setup.sql
\ir lib/writes.sql
\pset fieldsep '\n'
SET timezone = 'UTC';
SELECT dblink_exec('writer', 'SET timezone = ''UTC''') \g /dev/null
SELECT plan(581);

SELECT emu.server() \g /dev/null
SELECT emu.index('exact', '{k}') \g /dev/null
CREATE TYPE mood AS ENUM ('sad', 'very happy');
CREATE DOMAIN percent AS float8 CHECK (value BETWEEN 0 AND 100);
CREATE DOMAIN tally AS bigint;

-- ------------------------------------------------------------------ values, one by one

-- plain and exact: what Convex holds after an INSERT by the route airbyte and by
-- the route fivetran; NULL where it must be refused.
CREATE TABLE cases (n serial, declared text, literal text, plain jsonb, exact jsonb, options text DEFAULT '', "table" text DEFAULT '');
INSERT INTO cases (declared, literal, plain, exact) VALUES
	('bool', 'true', 'true', 'true'),
	('int2', '-32768', '-32768', '-32768'),
	('int4', '2147483647', '2147483647', '2147483647'),
	('int8', '0', NULL, emu.int64(0)),
	('int8', '-1', NULL, emu.int64(-1)),
	('int8', '9223372036854775807', NULL, emu.int64(9223372036854775807)),
	('int8', '-9223372036854775808', NULL, emu.int64(-9223372036854775808)),
	('tally', '5', NULL, emu.int64(5)),
	('float8', '1.5', '1.5', '1.5'),
	('float8', '0.1', '0.1', '0.1'),
	('float8', '1e300', '1e300', '1e300'),
	('float8', '5e-324', '5e-324', '5e-324'),
	('float8', '''-0''', '{"$float": "AAAAAAAAAIA="}', '{"$float": "AAAAAAAAAIA="}'),
	('float8', '''NaN''', NULL, '{"$float": "AAAAAAAA+H8="}'),
	('float8', '''Infinity''', NULL, '{"$float": "AAAAAAAA8H8="}'),
	('float8', '''-Infinity''', NULL, '{"$float": "AAAAAAAA8P8="}'),
	('float4', '0.1', '0.10000000149011612', '0.10000000149011612'),
	('float4', '''NaN''', NULL, '{"$float": "AAAAAAAA+H8="}'),
	('percent', '99.5', '99.5', '99.5'),
	('numeric', '0.1', '0.1', '0.1'),
	('numeric', '-12.5', '-12.5', '-12.5'),
	('numeric', '9007199254740992', '9007199254740992', '9007199254740992'),
	('numeric', '9007199254740993', NULL, NULL),
	('numeric', '0.12345678901234567890', NULL, NULL),
	('numeric', '1e400', NULL, NULL),
	('numeric', '1e-400', NULL, NULL),
	('numeric', '''NaN''', NULL, '{"$float": "AAAAAAAA+H8="}'),
	('numeric', '''Infinity''', NULL, '{"$float": "AAAAAAAA8H8="}'),
	('text', '''''', '""', '""'),
	('text', 'e''tab\t"quote" \\ \u00e4\U0001F600\x01''', to_jsonb(e'tab\t"quote" \\ \u00e4\U0001F600\x01'::text), to_jsonb(e'tab\t"quote" \\ \u00e4\U0001F600\x01'::text)),
	('varchar(5)', '''abc''', '"abc"', '"abc"'),
	('char(5)', '''abc''', '"abc  "', '"abc  "'),
	('name', '''a name''', '"a name"', '"a name"'),
	('"char"', '''x''', '"x"', '"x"'),
	('bytea', '''\x00ff''', NULL, '{"$bytes": "AP8="}'),
	('bytea', '''''', NULL, '{"$bytes": ""}'),
	('uuid', '''A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11''', '"a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"', '"a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"'),
	('mood', '''very happy''', '"very happy"', '"very happy"'),
	('inet', '''10.0.0.1/8''', '"10.0.0.1/8"', '"10.0.0.1/8"'),
	('interval', '''1 day''', '"1 day"', '"1 day"'),
	('timestamptz', '''2026-01-02 03:04:05.678Z''', '1767323045678', '1767323045678'),
	('timestamptz', '''2026-01-02 03:04:05.678901Z''', '1767323045678.901', '1767323045678.901'),
	('timestamp', '''2026-01-02 03:04:05''', '1767323045000', '1767323045000'),
	('date', '''2026-01-02''', '1767312000000', '1767312000000'),
	('timestamptz', '''infinity''', NULL, NULL),
	('jsonb', '''{"b": [1, 2.5, "x", true, null, {}], "a": {"c": []}}''', '{"b": [1, 2.5, "x", true, null, {}], "a": {"c": []}}', '{"b": [1, 2.5, "x", true, null, {}], "a": {"c": []}}'),
	('json', '''{"b" : 1}''', '{"b": 1}', '{"b": 1}'),
	('jsonb', '''null''', 'null', 'null'),
	('jsonb', '''"text"''', '"text"', '"text"'),
	('jsonb', '''9007199254740993''', NULL, NULL),
	('jsonb', '''{"deep": [{"er": 9007199254740993}]}''', NULL, NULL),
	('jsonb', '''[1e400]''', NULL, NULL),
	('jsonb', '''{"_x": 1}''', NULL, '{"_x": 1}'),
	('jsonb', '''{"a": {"_x": 1}}''', NULL, '{"a": {"_x": 1}}'),
	('jsonb', '''{"$x": 1}''', NULL, NULL),
	('jsonb', '''{"a": [{"$x": 1, "y": 2}]}''', NULL, NULL),
	('jsonb', '''{"\u00e4": 1}''', NULL, NULL),
	('jsonb', '''{"a b.c": 1, "": 2}''', '{"a b.c": 1, "": 2}', '{"a b.c": 1, "": 2}'),
	('jsonb', '''{"$integer": "AQAAAAAAAAA="}''', NULL, NULL),
	('int4[]', '''{1,NULL,3}''', '[1, null, 3]', '[1, null, 3]'),
	('int4[]', '''{}''', '[]', '[]'),
	('int4[]', '''{{1,2},{3,4}}''', '[[1, 2], [3, 4]]', '[[1, 2], [3, 4]]'),
	('text[]', '''{a,"b c"}''', '["a", "b c"]', '["a", "b c"]'),
	('int8[]', '''{1,2}''', NULL, jsonb_build_array(emu.int64(1), emu.int64(2))),
	('int8[]', '''{}''', '[]', '[]'),
	('bytea[]', '''{"\\x01"}''', NULL, '[{"$bytes": "AQ=="}]'),
	('float8[]', '''{1,NaN}''', NULL, '[1, {"$float": "AAAAAAAA+H8="}]'),
	('jsonb[]', '''{"{\"a\": 1}"}''', '[{"a": 1}]', '[{"a": 1}]');
INSERT INTO cases (declared, options, literal, plain, exact) VALUES
	('int8', $$convex_type 'float64'$$, '7', '7', '7'),
	('int8', $$convex_type 'float64'$$, '-9007199254740992', '-9007199254740992', '-9007199254740992'),
	('int8', $$convex_type 'float64'$$, '9007199254740993', NULL, NULL),
	('int4', $$convex_type 'int64'$$, '7', NULL, emu.int64(7)),
	('numeric', $$convex_type 'int64'$$, '9223372036854775807', NULL, emu.int64(9223372036854775807)),
	('numeric', $$convex_type 'int64'$$, '9223372036854775808', NULL, NULL),
	('numeric', $$convex_type 'int64'$$, '1.5', NULL, NULL),
	('jsonb', $$nulls 'null'$$, 'NULL', 'null', 'null'),
	('text', $$nulls 'null'$$, 'NULL', 'null', 'null'),
	('text', $$nulls 'omit'$$, 'NULL', '"absent"', '"absent"'),
	('int8', $$nulls 'null'$$, 'NULL', 'null', 'null');
INSERT INTO cases (declared, "table", literal, plain, exact) VALUES
	('jsonb', $$json_values 'encoded'$$, '''{"a": {"$integer": "AQAAAAAAAAA="}}''', NULL, '{"a": {"$integer": "AQAAAAAAAAA="}}'),
	('jsonb', $$json_values 'encoded'$$, '''[{"$bytes": "AP8="}]''', NULL, '[{"$bytes": "AP8="}]'),
	('jsonb', $$json_values 'encoded'$$, '''{"$float": "AAAAAAAA+H8="}''', NULL, '{"$float": "AAAAAAAA+H8="}'),
	('jsonb', $$json_values 'encoded'$$, '''{"$float": "AAAAAAAAAIA="}''', '{"$float": "AAAAAAAAAIA="}', '{"$float": "AAAAAAAAAIA="}'),
	('jsonb', $$json_values 'encoded'$$, '''{"$integer": "x"}''', NULL, NULL),
	('jsonb', $$json_values 'encoded'$$, '''{"$bytes": "x"}''', NULL, NULL),
	('jsonb', $$json_values 'encoded'$$, '''{"$integer": "AQAAAAAAAAA=", "b": 1}''', NULL, NULL),
	('jsonb', $$json_values 'encoded'$$, '''{"a": 1.5}''', '{"a": 1.5}', '{"a": 1.5}');

SELECT format('CREATE FOREIGN TABLE plain_%s (k text, v %s%s) SERVER convex OPTIONS (table_name ''plain'', on_conversion_error ''null''%s)', n, declared, ' OPTIONS (' || nullif(options, '') || ')', ', ' || nullif("table", '')) FROM cases \gexec
SELECT format('CREATE FOREIGN TABLE exact_%s (k text, v %s%s) SERVER convex OPTIONS (table_name ''exact'', primary_key ''k'', on_conversion_error ''null''%s)', n, declared, ' OPTIONS (' || nullif(options, '') || ')', ', ' || nullif("table", '')) FROM cases \gexec
SELECT emu.clear_journal() \g /dev/null

CREATE TABLE outcomes AS
SELECT n, route, emu.outcome(format('INSERT INTO %s_%s VALUES (''first'', DEFAULT), (%L, %s)', route, n, n, literal)) AS failure, (SELECT count(*) FROM emu.writes() AS w WHERE w #>> '{body}' LIKE '%"' || n || '"%') AS sent
FROM cases, unnest(ARRAY['plain', 'exact']) AS route ORDER BY n;
CREATE TABLE held AS SELECT 'plain' AS route, document FROM emu.dump('plain') AS document UNION ALL SELECT 'exact', document FROM emu.dump('exact') AS document;

-- A value that is not there shows as "absent".
SELECT is(coalesce(failure, '{}') || coalesce(jsonb_build_object('v', CASE WHEN document ? 'v' THEN document -> 'v' ELSE '"absent"' END), '{}'), jsonb_build_object('v', CASE route WHEN 'plain' THEN plain ELSE exact END),
	format('%s %s %s%s is written by the route %s', declared, literal, options, "table", CASE route WHEN 'plain' THEN 'airbyte' ELSE 'fivetran' END))
FROM cases JOIN outcomes USING (n) LEFT JOIN held USING (route)
WHERE coalesce(document ->> 'k', n::text) = n::text AND CASE route WHEN 'plain' THEN plain ELSE exact END IS NOT NULL ORDER BY n, route;

SELECT matches(failure ->> 'sqlstate', '^(22...|HV...|0A000)$', format('%s %s %s%s is refused on the route %s', declared, literal, options, "table", route)),
	is(sent, 0::bigint, 'before it is sent'),
	matches(failure ->> 'message' || ' ' || coalesce(failure ->> 'detail', ''), 'Row 2', 'naming the row'),
	matches(failure ->> 'message' || ' ' || coalesce(failure ->> 'detail', ''), '"v"', 'and the column'),
	ok(length(failure ->> 'hint') > 10, 'with a hint')
FROM cases JOIN outcomes USING (n) WHERE CASE route WHEN 'plain' THEN plain ELSE exact END IS NULL ORDER BY n, route;

-- What was written reads back as it was.
CREATE FUNCTION reads_back(name text, n int, literal text, declared text) RETURNS boolean LANGUAGE plpgsql AS
$$
DECLARE
	result boolean;
BEGIN
	EXECUTE format('SELECT bool_and(v::text IS NOT DISTINCT FROM (%s)::%s::text) FROM app.%I WHERE k = %L', literal, declared, name, n) INTO result;
	RETURN result;
END
$$;
SELECT ok(reads_back(route || '_' || n, n, literal, declared), format('%s %s reads back by the route %s', declared, literal, route))
FROM cases JOIN outcomes USING (n)
WHERE failure IS NULL AND declared NOT IN ('json', 'varchar(5)', 'char(5)') AND literal <> '''null''' AND CASE route WHEN 'plain' THEN plain ELSE exact END IS NOT NULL ORDER BY n, route;

-- ------------------------------------------------------------------ names of columns

CREATE FOREIGN TABLE renamed (k text, "Ünïcode" text OPTIONS (column_name 'plain name'), b text OPTIONS (column_name 'a.b'), c float8 OPTIONS (column_name 'o.c', path 'true'), d text OPTIONS (column_name 'o.d.e', path 'true'), f text OPTIONS (column_name '')) SERVER convex OPTIONS (table_name 'names');
INSERT INTO renamed VALUES ('1', 'u', 'b', 1, 'd', 'f'), ('2', NULL, NULL, 1, NULL, NULL), ('3', NULL, NULL, NULL, NULL, NULL);
SELECT is(emu.documents('names'), '[{"k": "3"}, {"k": "2", "o": {"c": 1}}, {"": "f", "k": "1", "o": {"c": 1, "d": {"e": "d"}}, "a.b": "b", "plain name": "u"}]', 'columns are fields of another name, and paths into objects');

CREATE FOREIGN TABLE whole (k text, doc jsonb OPTIONS (column_name '*'), n float8) SERVER convex OPTIONS (table_name 'whole');
INSERT INTO whole VALUES ('1', '{"a": [1], "n": 0, "z": {"y": "x"}}', 5), ('2', '{}', NULL), ('3', NULL, 1);
SELECT is(emu.documents('whole'), (SELECT jsonb_agg(d ORDER BY d) FROM unnest(ARRAY[jsonb '{"k": "1", "a": [1], "n": 5, "z": {"y": "x"}}', '{"k": "2"}', '{"k": "3", "n": 1}']) AS d), 'a ''*'' column is the document, over which the other columns lie');

-- Not one of them may be written.
CREATE FUNCTION refused(statement text, "column" text DEFAULT NULL) RETURNS SETOF text LANGUAGE plpgsql AS
$$
DECLARE
	failure jsonb;
BEGIN
	PERFORM emu.clear_journal();
	failure := emu.outcome(statement);
	RETURN NEXT matches(failure ->> 'sqlstate', '^(22...|HV...|0A000|23502|42...|428C9|54000)$', statement || ' is refused');
	RETURN NEXT is((SELECT count(*) FROM emu.writes()), 0::bigint, 'before anything is sent');
	IF "column" IS NOT NULL THEN
		RETURN NEXT matches((failure ->> 'message') || ' ' || coalesce(failure ->> 'detail', ''), '"' || "column" || '"', 'naming ' || "column");
	END IF;
	RETURN NEXT ok(length(failure ->> 'hint') > 10, 'with a hint');
END
$$;
SELECT refused($$ INSERT INTO whole VALUES ('4', '[1]', 1) $$, 'doc');
SELECT refused($$ INSERT INTO whole VALUES ('4', '{"_x": 1}', 1) $$, 'doc');
SELECT refused($$ INSERT INTO whole VALUES ('4', '{"source_ab_cdc_deleted_at": "x"}', 1) $$, 'doc');
SELECT refused($$ INSERT INTO whole VALUES ('4', '{"a": {"$x": 1}}', 1) $$, 'doc');
SELECT refused($$ INSERT INTO whole VALUES ('4', '{"_id": "x"}', 1) $$);
CREATE FOREIGN TABLE system (k text, _id text, "_creationTime" timestamptz) SERVER convex;
SELECT refused($$ INSERT INTO system (k, _id) VALUES ('1', 'x') $$, '_id');
SELECT refused($$ INSERT INTO system (k, "_creationTime") VALUES ('1', now()) $$, '_creationTime');
CREATE FOREIGN TABLE under (k text, _x text) SERVER convex;
SELECT refused($$ INSERT INTO under VALUES ('1', 'x') $$, '_x');
CREATE FOREIGN TABLE cdc (k text, source_ab_cdc_cursor text) SERVER convex;
SELECT refused($$ INSERT INTO cdc VALUES ('1', 'x') $$, 'source_ab_cdc_cursor');
CREATE FOREIGN TABLE system_keyed (k text, _id text) SERVER convex OPTIONS (table_name 'exact', primary_key 'k');
SELECT refused($$ INSERT INTO system_keyed (k, _id) VALUES ('1', 'x') $$, '_id');
SELECT refused($$ UPDATE system_keyed SET _id = 'x' WHERE k = '1' $$, '_id');
CREATE FOREIGN TABLE under_keyed (k text, _x text) SERVER convex OPTIONS (table_name 'exact', primary_key 'k');
SELECT refused($$ INSERT INTO under_keyed (k, _x) VALUES ('1', 'x') $$, '_x');

-- Sizes: 1 MiB as Convex counts, 10 of them for the empty document with the key.
CREATE FOREIGN TABLE big (k text, v text) SERVER convex;
SELECT is(emu.sqlstate('INSERT INTO big VALUES (''1'', repeat(''x'', 1048576 - 200))'), '00000', 'a document just under 1 MiB is sent');
SELECT refused($$ INSERT INTO big VALUES ('1', repeat('x', 1048576)) $$);
SELECT refused($$ INSERT INTO big VALUES ('1', repeat('ä', 524288)) $$);
CREATE FOREIGN TABLE big_keyed (k text, v text) SERVER convex OPTIONS (table_name 'exact', primary_key 'k');
SELECT refused($$ INSERT INTO big_keyed VALUES ('1', repeat('x', 1048576)) $$);
SELECT is(emu.sqlstate($$ INSERT INTO big_keyed VALUES ('big', repeat('x', 1048576 - 200)) $$), '00000', 'a large document is sent by the route fivetran');

-- ------------------------------------------------------------------ UPDATE keeps what it does not map

SELECT emu.index('kept', '{k}') \g /dev/null
SELECT emu.insert('kept', jsonb_build_object('k', emu.int64(9007199254740993), 'int', emu.int64(-9223372036854775808), 'bytes', emu.bytes('\xdeadbeef'), 'nan', emu.float64('NaN'), 'inf', emu.float64('-Infinity'), 'mzero', emu.float64('-0'),
	'null', NULL, 'a b', 1, '', 'empty', 'nested', jsonb_build_object('_u', emu.int64(5), 'l', jsonb_build_array(emu.bytes(''), emu.int64(1), 1, 1e300, '{}'::jsonb, '[]'::jsonb)), 'n', 0.1)) \g /dev/null
SELECT document AS kept FROM emu.dump('kept') AS document \gset
CREATE FOREIGN TABLE kept (k bigint, n float8, m text, inner_n float8 OPTIONS (column_name 'nested.x', path 'true')) SERVER convex OPTIONS (primary_key 'k');
UPDATE kept SET n = 0.2 WHERE k = 9007199254740993;
SELECT is((SELECT document FROM emu.dump('kept') AS document), :'kept'::jsonb || '{"n": 0.2}', 'an Update leaves all else as it was');
UPDATE kept SET n = NULL WHERE k = 9007199254740993;
SELECT is((SELECT document FROM emu.dump('kept') AS document), :'kept'::jsonb - 'n', 'so does an UPDATE that sends the whole document');
UPDATE kept SET inner_n = 3 WHERE k = 9007199254740993;
SELECT is((SELECT document FROM emu.dump('kept') AS document), jsonb_set(:'kept'::jsonb - 'n', '{nested,x}', '3'), 'and one of a nested path');
UPDATE kept SET k = 5 WHERE k = 9007199254740993;
SELECT is((SELECT document - '_id' - '_creationTime' FROM emu.dump('kept') AS document), jsonb_set(:'kept'::jsonb - 'n' - '_id' - '_creationTime', '{nested,x}', '3') || jsonb_build_object('k', emu.int64(5)), 'and one of the key');

SELECT * FROM finish();
