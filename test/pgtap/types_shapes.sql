-- What each declared type takes from times, arrays, objects and types of its own,
-- and what it says of a value that does not fit.

\ir lib/setup.sql
-- Several assertions in one row are several lines of TAP.
\pset fieldsep '\n'
SET timezone = 'UTC';

SELECT plan(247);
\ir lib/types.sql

-- Times
-- ---------------------------------------------------------------------------

SELECT is(on_wire('timestamptz', raw), coalesce(value, 'HV004'), raw || ' ms is ' || coalesce(value, 'no timestamp'))
FROM (VALUES ('1700000000000.0', '2023-11-14 22:13:20+00'), ('1700000000000.123', '2023-11-14 22:13:20.000123+00'),
	('1700000000123.4567', '2023-11-14 22:13:20.123457+00'), ('1700000000999.9996', '2023-11-14 22:13:21+00'),
	('-1.0', '1969-12-31 23:59:59.999+00'), ('-0.5', '1969-12-31 23:59:59.9995+00'),
	('-1.00001', '1969-12-31 23:59:59.999+00'),
	('-0.0001', '1970-01-01 00:00:00+00'), ('-0.00001', '1970-01-01 00:00:00+00'),
	('-1e-300', '1970-01-01 00:00:00+00'),
	('-999.99999', '1969-12-31 23:59:59+00'), ('-1000.00001', '1969-12-31 23:59:59+00'),
	('-62135596800000.0', '0001-01-01 00:00:00+00'), ('-62135596800001.0', '0001-12-31 23:59:59.999+00 BC'),
	('253402300799999.0', '9999-12-31 23:59:59.999+00'), ('9224318015999998.0', '294276-12-31 23:59:59.998+00'),
	('9224318016000000.0', NULL), ('-210866803200000.0', '4714-11-24 00:00:00+00 BC'), ('-210866803200001.0', NULL),
	('{"$integer":"AADVGMCLAQA="}', NULL), ('"2024-02-29T12:00:00.5Z"', '2024-02-29 12:00:00.5+00'),
	('"2024-02-29 12:00:00+02"', '2024-02-29 10:00:00+00'), ('"2023-02-29"', NULL), ('"infinity"', 'infinity'),
	('"soon"', NULL), ('true', NULL)) AS times (raw, value)
WHERE raw NOT LIKE '%integer%';
SELECT is(on_wire('timestamptz', int64(1700000000123)::text), '2023-11-14 22:13:20.123+00',
	'an int64 is milliseconds, too');
SELECT is(on_wire('timestamptz(0)', '1700000000600.0'), '2023-11-14 22:13:21+00', 'timestamptz(0) rounds to seconds');
SELECT is(on_wire('timestamptz(0)', '"2024-01-01 00:00:00.6Z"'), '2024-01-01 00:00:01+00', 'strings too');
SELECT is(on_wire('date', raw), coalesce(value, 'HV004'), raw || ' ms is ' || coalesce(value, 'no date'))
FROM (VALUES ('1700000000000.0', '2023-11-14'), ('0.0', '1970-01-01'), ('86399999.0', '1970-01-01'),
	('86400000.0', '1970-01-02'),
	('-1.0', '1969-12-31'), ('-86400000.0', '1969-12-31'), ('-86400001.0', '1969-12-30'), ('1e300', NULL),
	('-1e300', NULL),
	('"2024-02-29"', '2024-02-29'), ('"29 Feb 2023"', NULL), ('[]', NULL)) AS dates (raw, value);
SET timezone = 'Asia/Tokyo';
SELECT is(on_wire('timestamptz', '1700000000000.0'), '2023-11-15 07:13:20+09',
	'the instant does not depend on the session''s time zone');
SELECT is(on_wire('timestamp', '1700000000000.0'), '2023-11-14 22:13:20',
	'timestamp without time zone is UTC in every session');
SELECT is(on_wire('date', '1700000000000.0'), '2023-11-14', 'so is date');
SET timezone = 'UTC';
CREATE FOREIGN TABLE creation (_id text, exact float8 OPTIONS (column_name '_creationTime'),
	"_creationTime" timestamptz)
SERVER convex OPTIONS (table_name 'creation');
SELECT * FROM emu.insert('creation', '{"_creationTime": 1700000000123.4567}') \g /dev/null
SELECT is(exact, 1700000000123.4567::float8, '_creationTime as double precision is the exact number'),
	is("_creationTime", '2023-11-14 22:13:20.123457Z', '_creationTime as timestamptz is the nearest microsecond')
FROM creation;

-- ---------------------------------------------------------------------------
-- Other types, through their input functions
-- ---------------------------------------------------------------------------

CREATE TYPE pair AS (a int, b text);
SELECT is(on_wire(type, raw), coalesce(value, 'HV004'), raw || ' as ' || type || ' is ' || coalesce(value, 'refused'))
FROM (VALUES ('uuid', '"A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11"', 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'),
	('uuid', '"a0eebc99"', NULL), ('interval', '"1 day 02:00"', '1 day 02:00:00'),
	('interval', '"90 minutes"', '01:30:00'),
	('interval', '"soon"', NULL), ('interval(0)', '"1.6 s"', '00:00:02'), ('inet', '"192.0.2.1/24"', '192.0.2.1/24'),
	('inet', '"::1"', '::1/128'), ('inet', '"300.0.0.1"', NULL),
	('mood', '"calm"', 'calm'), ('mood', '"angry"', NULL), ('mood', '["calm"]', NULL),
	('time', '"12:34:56"', '12:34:56'),
	('int4range', '"[1,5)"', '[1,5)'), ('point', '"(1,2)"', '(1,2)'), ('bit(3)', '"101"', '101'),
	('bit(3)', '"1010"', NULL),
	('money', '"soon"', NULL), ('xml', '"<a>"', NULL), ('pair', '"(1,x)"', '(1,x)'), ('pair', '{"a":1}', NULL),
	('tsvector', '"b a"', '''a'' ''b'''), ('oid', '"42"', '42'), ('regtype', '"int4"', 'integer'),
	('jsonpath', '"$.a"', '$."a"'),
	('"char"', '"x"', 'x'), ('pg_lsn', '"0/10"', '0/10'), ('macaddr', '"08:00:2b:01:02:03"', '08:00:2b:01:02:03'),
	('small_number', '100.0', NULL), ('small_number', '99.0', '99'), ('small_number', '99.5', NULL),
	('small_number', '"9"', NULL))
	AS cases (type, raw, value)
WHERE type <> 'xml';

-- ---------------------------------------------------------------------------
-- Arrays
-- ---------------------------------------------------------------------------

SELECT is(on_wire(type, raw), coalesce(value, 'HV004'), raw || ' as ' || type || ' is ' || coalesce(value, 'refused'))
FROM (VALUES ('int4[]', '[]', '{}'), ('int4[]', '[1.0,null,3.0]', '{1,NULL,3}'), ('int4[]', '[null]', '{NULL}'),
	('int4[]', '[1.5]', NULL), ('int4[]', '["1"]', NULL), ('int4[]', '{"a":1}', NULL), ('int4[]', '"{1,2}"', NULL),
	('int4[]', '[[1.0,2.0],[3.0,4.0]]', '{{1,2},{3,4}}'), ('int4[]', '[[1.0],[null]]', '{{1},{NULL}}'),
	('int4[]', '[[1.0,2.0],[3.0]]', NULL), ('int4[]', '[[1.0],[2.0,3.0]]', NULL), ('int4[]', '[1.0,[2.0]]', NULL),
	('int4[]', '[[1.0],2.0]', NULL), ('int4[]', '[[1.0],null]', NULL), ('int4[]', '[null,[1.0]]', NULL),
	('int4[]', '[[],[1.0]]', NULL), ('int4[]', '[[1.0],[]]', NULL), ('int4[]', '[[1.0],[[2.0]]]', NULL),
	('int4[]', '[[[1.0,2.0]],[[3.0,4.0]],[[5.0,6.0]]]', '{{{1,2}},{{3,4}},{{5,6}}}'),
	('int4[]', '[[[[[[7.0]]]]]]', '{{{{{{7}}}}}}'), ('int4[]', '[[[[[[[7.0]]]]]]]', NULL),
	('int4[][]', '[[1.0],[2.0]]', '{{1},{2}}'), ('int8[]', '[' || int64(9007199254740993)::text || ']',
	'{9007199254740993}'),
	('float8[]', '[1.5,{"$float":"AAAAAAAA+H8="}]', '{1.5,NaN}'), ('text[]', '["a b","","NULL",null,"{}","x,y"]',
	'{"a b","","NULL",NULL,"{}","x,y"}'),
	('varchar(2)[]', '["ab",""]', '{ab,""}'), ('varchar(2)[]', '["abc"]', NULL),
	('numeric(4,1)[]', '[1.25,2.0]', '{1.3,2.0}'),
	('bool[]', '[true,false]', '{t,f}'), ('timestamptz[]', '[0.0,"2024-01-01Z"]',
	'{"1970-01-01 00:00:00+00","2024-01-01 00:00:00+00"}'),
	('uuid[]', '["a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"]', '{a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11}'),
	('uuid[]', '["x"]', NULL),
	('mood[]', '["calm","ada"]', '{calm,ada}'), ('mood[]', '["angry"]', NULL),
	('small_number[]', '[1.0,99.0]', '{1,99}'), ('small_number[]', '[1.0,100.0]', NULL), ('present[]', '["a"]', '{a}'),
	('present[]', '["a",null]', NULL),
	('jsonb[]', '[[1.0],{"a":null},"x",null]', '{[1],"{\"a\": null}","\"x\"",NULL}'),
	('json[]', '[[1.0,2.0]]', '{"[1,2]"}'),
	('name[]', '["ada","' || repeat('x', 63) || '"]', '{ada,' || repeat('x', 63) || '}'),
	('name[]', '["' || repeat('x', 64) || '"]', NULL),
	('short_words', '["ab"]', '{ab}'), ('short_words', '["abc"]', NULL),
	('timestamp(0)[]', '[1700000000600.0]', '{"2023-11-14 22:13:21"}'),
	('list_of_two[]', '[[1.0,2.0],[3.0,4.0]]', '{"{1,2}","{3,4}"}'), ('list_of_two[]', '[[1.0,2.0],[3.0]]', NULL),
	('list_of_two[]', '[1.0,2.0]', NULL),
	('with_name', '{"name":1.0}', '{"name": 1}'), ('with_name', '{"n":1.0}', NULL),
	('with_name[]', '[{"name":1.0},{}]', NULL),
	('oid[]', '[42.0,"43"]', '{42,43}'), ('bit(2)[]', '["10"]', '{10}'), ('list_of_two', '[1.0,2.0]', '{1,2}'),
	('list_of_two', '[1.0]', NULL)) AS cases (type, raw, value);
SELECT is(on_wire('jsonb[]', '[{"$integer":"BQAAAAAAAAA="},{"a":{"$bytes":""}}]', $$, json_values 'encoded'$$)::jsonb[],
	ARRAY[int64(5), jsonb_build_object('a', bytes(''))],
	'json_values holds for arrays of jsonb');
SELECT is(cardinality(on_wire('float8[]', '[' || rtrim(repeat('1.5,', 8192), ',') || ']')::float8[]), 8192,
	'an array of 8192 elements is read');

-- ---------------------------------------------------------------------------
-- Fields
-- ---------------------------------------------------------------------------

-- Odd names; the value tells the field.
CREATE TABLE odd (name text, attribute text);
INSERT INTO odd SELECT name, 'c' || row_number() OVER () FROM unnest(ARRAY['', ' ', '  two', 'a b', 'a.b', 'a"b', 'a\b',
	'a\\"b', 'a''b', 'a/b',
	'a,b', 'a:b', '{}', '[0]', 'name', 'Name', 'NAME', '1st', 'select', '~', '!', '%s', '*', '-', 'ctid', 'tableoid',
	'a$integer',
	repeat('x', 63), repeat('x', 64), repeat('x', 65), repeat('y', 1024)]) AS name;
SELECT * FROM emu.insert('odd', (SELECT jsonb_object_agg(name, jsonb_build_object('of', name)) FROM odd)) \g /dev/null
SELECT format('CREATE FOREIGN TABLE odd_fields (%s, document jsonb OPTIONS (column_name ''*'')) SERVER convex OPTIONS (table_name ''odd'')',
	string_agg(format('%I jsonb OPTIONS (column_name %L%s)', attribute, name, CASE name WHEN '*' THEN ', path ''true'''
	ELSE '' END), ', ')) FROM odd \gexec
CREATE FUNCTION odd_value(attribute text) RETURNS text LANGUAGE plpgsql AS
$$ DECLARE result jsonb; BEGIN EXECUTE format('SELECT %I FROM odd_fields', attribute) INTO result; RETURN result ->> 'of'; END $$;
SELECT is(odd_value(attribute), name, format('a field named "%s" is read alone', left(name, 70))) FROM odd;
SELECT is((SELECT jsonb_object_agg(name, to_jsonb(r) -> attribute -> 'of') FROM odd),
	(SELECT jsonb_object_agg(name, name) FROM odd),
	'all of them are read at once') FROM odd_fields AS r;
SELECT is(document - '_id' - '_creationTime', (SELECT jsonb_object_agg(name, jsonb_build_object('of', name)) FROM odd),
	'and the whole document has all of them') FROM odd_fields;

CREATE FOREIGN TABLE cases ("Name" jsonb, name jsonb, "NAME" jsonb, nAmE_ jsonb) SERVER convex
	OPTIONS (table_name 'odd');
SELECT is(jsonb_build_array("Name" -> 'of', name -> 'of', "NAME" -> 'of', name_), '["Name", "name", "NAME", null]',
	'without column_name a column shows the field of exactly its own name') FROM cases;

-- Paths
SELECT * FROM emu.insert('paths', jsonb_build_object('a',
	'{"b": {"c": "deep", "_ts": "inner", "n": null}, "b.c": "dotted inside", "list": [{"c": 1}], "word": "w"}'::jsonb
	|| jsonb_build_object('n', int64(7), 'f', float64('NaN'), 'y', bytes('\x01')), 'a.b',
	jsonb_build_object('c', 'dotted'), 'a.b.c', 'top', 'e', '{"x": 1}'::jsonb)) \g /dev/null
CREATE FOREIGN TABLE paths (
	deep text OPTIONS (column_name 'a.b.c', path 'true'),
	ts text OPTIONS (column_name 'a.b._ts', path 'true'),
	inner_null text OPTIONS (column_name 'a.b.n', path 'true'),
	absent text OPTIONS (column_name 'a.b.x', path 'true'),
	absent_above text OPTIONS (column_name 'a.x.c', path 'true'),
	absent_field text OPTIONS (column_name 'x.y', path 'true'),
	through_list text OPTIONS (column_name 'a.list.c', path 'true'),
	through_word text OPTIONS (column_name 'a.word.c', path 'true'),
	through_int64 text OPTIONS (column_name 'a.n.c', path 'true'),
	n int8 OPTIONS (column_name 'a.n', path 'true'),
	f float8 OPTIONS (column_name 'a.f', path 'true'),
	y bytea OPTIONS (column_name 'a.y', path 'true'),
	object jsonb OPTIONS (column_name 'a.b', path 'true'),
	one_segment jsonb OPTIONS (column_name 'e', path 'true'),
	field_ab jsonb OPTIONS (column_name 'a.b'),
	field_abc text OPTIONS (column_name 'a.b.c', path 'false'),
	field_a jsonb OPTIONS (column_name 'a'),
	misfit int OPTIONS (column_name 'a.b.c', path 'true')
) SERVER convex OPTIONS (table_name 'paths');
SELECT is(deep, 'deep', 'a path reaches into objects'), is(ts, 'inner', 'also to a nested name that begins with "_"'),
	is(inner_null, NULL, 'a null at its end is NULL'), is(absent, NULL, 'a missing member is NULL'),
	is(absent_above, NULL, 'a missing object on the way is NULL'), is(absent_field, NULL, 'so is a missing field'),
	is(through_list, NULL, 'a path does not enter arrays'), is(through_word, NULL, 'nor strings'),
	is(through_int64, NULL, 'nor numbers'),
	is(n, 7::bigint, 'int64 at its end is exact'), is(f, 'NaN', 'special floats are read'),
	is(y, '\x01', 'bytes are read'),
	is(object, '{"c": "deep", "_ts": "inner", "n": null}', 'an object at its end is jsonb'),
	is(one_segment, '{"x": 1}', 'a path of one segment is the field'),
	is(field_ab, '{"c": "dotted"}', 'without path the name is a field, dots included'),
	is(field_abc, 'top', 'also with path ''false'''),
	is(field_a -> 'word', '"w"', 'the field itself may be shown beside its parts')
FROM paths;
SELECT emu.clear_journal() \g /dev/null
SELECT deep, n FROM paths \g /dev/null
SELECT is(entry #> '{body,selection,"",paths}', '{"_other": "excluded", "_id": "included", "a": "included"}',
	'a path asks for its top-level field once') FROM emu.journal('/api/list_snapshot') AS entry;
SELECT is(thrown('SELECT misfit FROM paths') ->> 'state', 'HV004',
	'a value at the end of a path that does not fit is refused');
SELECT matches(thrown('SELECT misfit FROM paths')::text, 'a\.b\.c', 'and the error tells the path');

-- The whole document
SELECT * FROM emu.insert('whole', jsonb_build_object('n', int64(9007199254740993), 'f', float64('-Infinity'), 'b',
	bytes('\xff'), 'z', NULL,
	'o', '{"_ts": 1, "_table": "t", "_component": "c", "_deleted": true, "_id": "i", "_creationTime": "never"}'::jsonb,
	'l', '[{"_table": "t", "_ts": [{"_component": 1}]}]'::jsonb)) \g /dev/null
CREATE FOREIGN TABLE whole (document jsonb OPTIONS (column_name '*'), _id text, "_creationTime" float8, o jsonb, l json,
	ts numeric OPTIONS (column_name 'o._ts', path 'true'))
SERVER convex OPTIONS (table_name 'whole');
CREATE FOREIGN TABLE whole_encoded (document jsonb OPTIONS (column_name '*')) SERVER convex
	OPTIONS (table_name 'whole', json_values 'encoded');
CREATE FOREIGN TABLE whole_json (document json OPTIONS (column_name '*')) SERVER convex OPTIONS (table_name 'whole');
CREATE FOREIGN TABLE whole_json_encoded (document json OPTIONS (column_name '*')) SERVER convex
	OPTIONS (table_name 'whole', json_values 'encoded');
CREATE FOREIGN TABLE whole_text (document text OPTIONS (column_name '*')) SERVER convex OPTIONS (table_name 'whole');
SELECT is(document - 'o' - 'l', jsonb_build_object('_id', _id, '_creationTime', "_creationTime", 'n', 9007199254740993,
	'f', '-Infinity', 'b', '/w==', 'z', NULL),
	'''*'' is the document as stored: without what the export adds, clean by default'),
	is(document -> 'o', o, 'nested user fields named _ts, _table, _component, _deleted survive in it'),
	is(o, '{"_ts": 1, "_table": "t", "_component": "c", "_deleted": true, "_id": "i", "_creationTime": "never"}',
	'and in a jsonb column of their field'),
	is(document -> 'l', l::jsonb, 'and in arrays'), is(l::jsonb, '[{"_table": "t", "_ts": [{"_component": 1}]}]',
	'and in a json column'),
	is(ts, 1::numeric, 'and at the end of a path')
FROM whole;
-- An endpoint that adds more than is known, and escapes what it need not.
SELECT emu.fault('{"action": "edit", "count": -1, "path": "/api/list_snapshot", "find": "\"_component\":\"\"", "replace": "\"_shard\":{\"n\":7},\"_component\":\"\""}'),
	emu.fault('{"action": "edit", "count": -1, "path": "/api/list_snapshot", "find": "/w==", "replace": "\\/w=="}'),
	emu.fault('{"action": "edit", "count": -1, "path": "/api/list_snapshot", "find": "8P8=", "replace": "8P\\u0038="}') \g /dev/null
SELECT is(document - 'o' - 'l', jsonb_build_object('_id', _id, '_creationTime', "_creationTime", 'n', 9007199254740993,
	'f', '-Infinity', 'b', '/w==', 'z', NULL), 'what an export may come to add is no part of the document')
FROM whole;
SELECT is(document, (SELECT emu.dump('whole')), 'nor of its encoded form') FROM whole_encoded;
SELECT is(document::jsonb, (SELECT emu.dump('whole')), 'nor of its text') FROM whole_json_encoded;
SELECT emu.clear_faults() \g /dev/null
SELECT is(document, (SELECT emu.dump('whole')),
	'with json_values ''encoded'' ''*'' equals the document in Convex''s own encoding') FROM whole_encoded;
SELECT is(document::jsonb, (SELECT emu.dump('whole')), 'as json too') FROM whole_json_encoded;
SELECT is(j.document::jsonb, w.document, 'clean json and clean jsonb are the same document') FROM whole_json AS j,
	whole AS w;
CREATE FOREIGN TABLE whole_domain (good with_o OPTIONS (column_name '*'), bad with_name OPTIONS (column_name '*'))
	SERVER convex OPTIONS (table_name 'whole');
SELECT is(good ->> 'z', NULL, 'a domain over jsonb can show the whole document') FROM whole_domain;
SELECT throws_ok('SELECT bad FROM whole_domain', 'HV004', NULL, 'and checks it');
SELECT throws_ok('SELECT document FROM whole_text', 'HV004', NULL,
	'''*'' on a column that is not jsonb is refused at first use');
SELECT emu.clear_journal() \g /dev/null
SELECT document, o FROM whole \g /dev/null
SELECT is(entry #> '{body,selection,"",whole,_other}', '"included"', '''*'' asks for all fields')
	FROM emu.journal('/api/list_snapshot') AS entry;

-- Columns come and go
ALTER FOREIGN TABLE whole DROP COLUMN o, ADD COLUMN later jsonb OPTIONS (column_name 'o'), ALTER COLUMN l
	OPTIONS (ADD column_name 'b'), ALTER COLUMN l TYPE bytea;
SELECT is(l, '\xff', 'ALTER FOREIGN TABLE changes what a column shows'),
	is(later ->> '_table', 't', 'an added column is read, a dropped one is not')
FROM whole;

-- ---------------------------------------------------------------------------
-- A value that does not fit says where it is
-- ---------------------------------------------------------------------------

SELECT id AS ada FROM emu.insert('people',
	'{"age": "old", "code": "x", "shoe size": {"left": "wide"}, "n": 7}') AS id \gset
CREATE SCHEMA app;
CREATE FOREIGN TABLE app.humans (years int OPTIONS (column_name 'age'), code uuid, shoe smallint
	OPTIONS (column_name 'shoe size.left', path 'true'),
	n bool, low tiny OPTIONS (column_name 'n'), list int[] OPTIONS (column_name 'age'))
SERVER convex OPTIONS (table_name 'people');
CREATE TABLE complaints AS
SELECT attribute, thrown('SELECT ' || attribute || ' FROM app.humans') AS error
	FROM unnest('{years,code,shoe,n,low,list}'::text[]) AS attribute;
SELECT is(error ->> 'state', 'HV004', format('column %s: SQLSTATE HV004', attribute)) FROM complaints;
SELECT ok(place IS NOT NULL AND position(place IN error::text) > 0, format('column %s: the error names the %s',
	attribute, what))
FROM complaints, LATERAL (VALUES ('table', 'app.humans'), ('column', attribute), ('document', :'ada'),
	('field', '{"years": "age", "code": "code", "shoe": "shoe size.left", "n": "n", "low": "n", "list": "age"}'::jsonb ->> attribute))
	AS places (what, place);
SELECT matches(error ->> 'hint', 'on_conversion_error', format('column %s: the hint tells what to do', attribute))
	FROM complaints;
SELECT matches(error ->> 'message', 'string.*integer', 'the message tells the value''s kind and the column''s type')
	FROM complaints WHERE attribute = 'years';
SELECT is((SELECT count(*) FROM app.humans), 1::bigint, 'a column that nobody asks for disturbs nobody');
ALTER FOREIGN TABLE app.humans OPTIONS (on_conversion_error 'null');
SELECT results_eq('SELECT * FROM app.humans',
	'VALUES (NULL::int, NULL::uuid, NULL::smallint, NULL::bool, NULL::tiny, NULL::int[])',
	'with on_conversion_error ''null'' all of them are NULL and the row stays');
ALTER SERVER convex OPTIONS (ADD on_conversion_error 'null');
ALTER FOREIGN TABLE app.humans OPTIONS (SET on_conversion_error 'error');
SELECT throws_ok('SELECT years FROM app.humans', 'HV004', NULL, 'a table''s option overrides the server''s');
ALTER FOREIGN TABLE app.humans OPTIONS (DROP on_conversion_error);
SELECT is(years, NULL, 'without one the server''s option counts') FROM app.humans;
ALTER SERVER convex OPTIONS (DROP on_conversion_error);

-- Conversion errors that are NULL leave nothing behind, however many there are.
SELECT emu.mutate(jsonb_agg(jsonb_build_object('op', 'insert', 'table', 'many', 'doc', jsonb_build_object('n', i,
	'v', CASE WHEN i % 3 = 0 THEN '"a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"'::jsonb ELSE '"x"' END))))
	FROM generate_series(1, 3000) AS i \g /dev/null
CREATE FOREIGN TABLE many (n int, v uuid) SERVER convex OPTIONS (table_name 'many', on_conversion_error 'null');
SELECT results_eq('SELECT count(*), count(v), sum(n) FILTER (WHERE v IS NOT NULL) FROM many',
	'VALUES (3000::bigint, 1000::bigint, 1501500::bigint)',
	'thousands of misfits among good values read as NULL, the good values stay');

SELECT * FROM finish();
