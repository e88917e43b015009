-- What each declared type takes from each kind of Convex value.

\ir lib/setup.sql
-- Several assertions in one row are several lines of TAP.
\pset fieldsep '\n'
SET timezone = 'UTC';

SELECT plan(199);
\ir lib/types.sql

-- ---------------------------------------------------------------------------
-- Which kinds a type takes
-- ---------------------------------------------------------------------------

SELECT is(taken('bool'), '{"yes": "true", "no": "false"}',
	'a boolean column takes booleans and nothing else');
SELECT is(taken('int2'), '{"five": "5", "whole": "5", "minus_zero": "0"}',
	'a smallint column takes whole numbers of either kind within its range');
SELECT is(taken('int4'), '{"five": "5", "whole": "5", "minus_zero": "0", "million": "1000000"}',
	'an integer column takes whole numbers of either kind within its range');
SELECT is(taken('int8'), '{"five": "5", "whole": "5", "minus_zero": "0", "million": "1000000",
	"big": "9007199254740993", "largest": "9223372036854775807", "smallest": "-9223372036854775808"}',
	'a bigint column takes every int64 exactly, and float64 where it is whole');
SELECT is(taken('float4'), '{"five": "5", "whole": "5", "half": "2.5", "minus_zero": "-0", "million": "1e+06",
	"smallest": "-9.223372e+18", "nan": "NaN", "infinity": "Infinity", "minus_infinity": "-Infinity"}',
	'a real column takes float64 within its range, and int64 that a float64 holds');
SELECT is(taken('float8'), '{"five": "5", "whole": "5", "half": "2.5", "minus_zero": "-0", "million": "1000000",
	"smallest": "-9.223372036854776e+18", "huge": "1e+300",
	"nan": "NaN", "infinity": "Infinity", "minus_infinity": "-Infinity"}',
	'a double precision column takes float64, and int64 that a float64 holds: none is rounded');
SELECT is(taken('numeric'), jsonb_build_object('huge', 1e300::text) || '{"five": "5", "whole": "5", "half": "2.5",
	"minus_zero": "0", "million": "1000000", "big": "9007199254740993", "largest": "9223372036854775807",
	"smallest": "-9223372036854775808", "nan": "NaN", "infinity": "Infinity", "minus_infinity": "-Infinity"}',
	'a numeric column takes every number');
SELECT is(taken('numeric(6,1)'), '{"five": "5.0", "whole": "5.0", "half": "2.5", "minus_zero": "0.0", "nan": "NaN"}',
	'numeric(6,1) takes the numbers that its precision allows');
SELECT is(taken('text'), '{"word": "ada", "digits": "42", "empty": ""}',
	'a text column takes strings, and no other kind silently turns into one');
SELECT is(taken('varchar'), '{"word": "ada", "digits": "42", "empty": ""}', 'so does varchar');
SELECT is(taken('varchar(2)'), '{"digits": "42", "empty": ""}', 'varchar(2) takes strings of at most two characters');
SELECT is(taken('char(2)'), '{"digits": "42", "empty": ""}', 'char(2) takes strings of at most two characters');
SELECT is(taken('name'), '{"word": "ada", "digits": "42", "empty": ""}', 'a name column takes strings');
SELECT is(taken('bytea'), '{"bytes": "\\x00ff"}', 'a bytea column takes bytes and nothing else');
SELECT is(taken('mood'), '{"word": "ada", "digits": "42"}', 'an enum column takes its labels');
SELECT is(taken('uuid'), '{}', 'a uuid column takes nothing that its input function refuses');
SELECT is(taken('inet'), '{}', 'nor does inet');
SELECT is(taken('timestamptz'), '{"five": "1970-01-01 00:00:00.005+00", "whole": "1970-01-01 00:00:00.005+00",
	"half": "1970-01-01 00:00:00.0025+00", "minus_zero": "1970-01-01 00:00:00+00", "million": "1970-01-01 00:16:40+00",
	"big": "287396-10-12 08:59:00.993+00"}',
	'a timestamptz column takes numbers as milliseconds since 1970 within its range');
SELECT is(taken('timestamp'), '{"five": "1970-01-01 00:00:00.005", "whole": "1970-01-01 00:00:00.005",
	"half": "1970-01-01 00:00:00.0025", "minus_zero": "1970-01-01 00:00:00", "million": "1970-01-01 00:16:40",
	"big": "287396-10-12 08:59:00.993"}',
	'so does timestamp');
SELECT is(taken('timestamp(2)'), '{"five": "1970-01-01 00:00:00", "whole": "1970-01-01 00:00:00",
	"half": "1970-01-01 00:00:00", "minus_zero": "1970-01-01 00:00:00", "million": "1970-01-01 00:16:40",
	"big": "287396-10-12 08:59:00.99"}',
	'timestamp(2) rounds to its precision, as PostgreSQL rounds before 2000');
SELECT is(taken('date'), '{"five": "1970-01-01", "whole": "1970-01-01", "half": "1970-01-01",
	"minus_zero": "1970-01-01", "million": "1970-01-01", "big": "287396-10-12"}',
	'a date column takes numbers as milliseconds since 1970');
SELECT is(taken('small_number'), '{"five": "5", "whole": "5", "minus_zero": "0"}',
	'a domain takes what its base type takes and its CHECK allows');
SELECT is(taken('tiny'), '{"minus_zero": "0"}', 'a domain over a domain checks both');
SELECT is(taken('any_int'), taken('int8'), 'a domain without constraints takes what its base type takes');
SELECT is(taken('shortish'), '{"digits": "42", "empty": ""}', 'a domain keeps the type modifier of its base type');
SELECT is(taken('int4[]'), '{"list": "{1,2}"}', 'an array column takes arrays and nothing else');
SELECT is(taken('text[]'), '{}', 'an array whose elements have another kind is refused');
SELECT is(taken('jsonb[]'), '{"list": "{1,2}"}', 'an array of jsonb takes elements of every kind');
SELECT is(taken('small_number[]'), '{"list": "{1,2}"}', 'an array of a domain checks its elements');
SELECT is(taken('tiny[]'), '{"list": "{1,2}"}', 'also where the domain is over a domain');
SELECT is(taken('list_of_two'), '{"list": "{1,2}"}', 'a domain over an array checks the whole array');

SELECT is(taken('jsonb') - 'huge', '{"yes": "true", "no": "false", "five": "5", "big": "9007199254740993",
	"largest": "9223372036854775807", "smallest": "-9223372036854775808", "whole": "5", "half": "2.5",
	"minus_zero": "0", "million": "1000000", "nan": "\"NaN\"", "infinity": "\"Infinity\"",
	"minus_infinity": "\"-Infinity\"", "word": "\"ada\"", "digits": "\"42\"", "empty": "\"\"",
	"bytes": "\"AP8=\"", "list": "[1, 2]", "object": "{\"a\": 1}"}',
	'a jsonb column takes every value; int64 is a number, bytes are base64, special floats are text');
SELECT is((taken('jsonb') ->> 'huge')::numeric, 1e300, 'also a number of 300 digits');
SELECT is(taken('json'), '{"yes": "true", "no": "false", "five": "5", "big": "9007199254740993",
	"largest": "9223372036854775807", "smallest": "-9223372036854775808", "whole": "5", "half": "2.5",
	"minus_zero": "-0", "million": "1000000", "huge": "1e300", "nan": "\"NaN\"", "infinity": "\"Infinity\"",
	"minus_infinity": "\"-Infinity\"", "word": "\"ada\"", "digits": "\"42\"", "empty": "\"\"",
	"bytes": "\"AP8=\"", "list": "[1,2]", "object": "{\"a\":1}"}',
	'a json column takes every value; whole numbers are written as JavaScript writes them');
SELECT is(taken('jsonb', $$, json_values 'encoded'$$) - 'huge',
	taken('jsonb') - 'huge' || jsonb_build_object('five', int64(5)::text, 'big', int64(9007199254740993)::text,
		'largest', int64(9223372036854775807)::text, 'smallest', int64(-9223372036854775808)::text,
		'minus_zero', float64('-0')::text, 'nan', float64('NaN')::text, 'infinity', float64('Infinity')::text,
		'minus_infinity', float64('-Infinity')::text, 'bytes', bytes('\x00ff')::text,
		'whole', '5.0', 'million', '1000000.0', 'list', '[1.0, 2.0]', 'object', '{"a": 1.0}'),
	'with json_values ''encoded'' a jsonb column keeps Convex''s markers');
SELECT is((SELECT jsonb_object_agg(field, value::jsonb) FROM jsonb_each_text(taken('json',
	$$, json_values 'encoded'$$)) AS j (field, value)),
	(SELECT jsonb_object_agg(field, value::jsonb) FROM jsonb_each_text(taken('jsonb',
	$$, json_values 'encoded'$$)) AS j (field, value)),
	'so does a json column');

-- on_conversion_error 'null'
SELECT is(taken('int4', $$, on_conversion_error 'null'$$),
	(SELECT jsonb_object_agg(field, coalesce(taken('int4') ->> field, 'NULL'))
	FROM unnest(sample_fields()) AS field WHERE field NOT IN ('absent', 'nothing')),
	'with on_conversion_error ''null'' exactly what an integer column refuses reads as NULL');
SELECT is(taken(type, $$, on_conversion_error 'null'$$),
	(SELECT jsonb_object_agg(field, coalesce(taken(type) ->> field, 'NULL'))
	FROM unnest(sample_fields()) AS field WHERE field NOT IN ('absent', 'nothing')),
	'the same holds for ' || type)
FROM unnest('{bool,float8,"numeric(6,1)",text,varchar(2),name,bytea,timestamptz,timestamp(2),date,uuid,inet,mood,tiny,int4[],tiny[],list_of_two}'::text[]) AS type;

-- Missing and null
CREATE FOREIGN TABLE nothing (
	absent present, nothing present, absent_list list_of_two OPTIONS (column_name 'absent'),
	absent_json jsonb OPTIONS (column_name 'absent'), nothing_json jsonb OPTIONS (column_name 'nothing'),
	inner_null jsonb OPTIONS (column_name 'nested')
) SERVER convex OPTIONS (table_name 'nothing');
SELECT * FROM emu.insert('nothing', '{"nothing": null, "nested": {"a": null, "b": [null]}}') \g /dev/null
SELECT is(absent_json, NULL, 'a missing field reads as SQL NULL, in jsonb too'),
	is(nothing_json, NULL, 'a null field reads as SQL NULL, in jsonb too'),
	is(inner_null, '{"a": null, "b": [null]}', 'nulls within an object stay JSON nulls')
FROM nothing;
SELECT throws_ok('SELECT absent FROM nothing', 'HV004', NULL, 'a missing field violates a domain''s NOT NULL');
SELECT throws_ok('SELECT nothing FROM nothing', 'HV004', NULL, 'a null field violates a domain''s NOT NULL');
SELECT is(absent_list, NULL, 'a domain''s CHECK that NULL passes lets it pass') FROM nothing;
ALTER FOREIGN TABLE nothing OPTIONS (on_conversion_error 'null');
SELECT ok(absent IS NULL AND nothing IS NULL, 'with on_conversion_error ''null'' they are NULL all the same')
	FROM nothing;

-- ---------------------------------------------------------------------------
-- Integers and floats
-- ---------------------------------------------------------------------------

CREATE TABLE integers (n serial, v bigint);
INSERT INTO integers (v) VALUES (0), (1), (-1), (127), (128), (255), (256), (-129), (32767), (32768), (-32769),
	(2147483647), (2147483648), (-2147483649), (4294967296), (9007199254740991), (9007199254740992),
	(9007199254740993), (-9007199254740993), (9223372036854774784), (9223372036854775807),
	(-9223372036854775807), (-9223372036854775808), (1234567890123456789), (72057594037927936), (-72057594037927937);
SELECT count(*) FROM emu.mutate((SELECT jsonb_agg(jsonb_build_object('op', 'insert', 'table', 'integers',
	'doc', jsonb_build_object('n', n, 'v', int64(v), 'o', jsonb_build_object('v', int64(v)))))
	FROM integers)) \g /dev/null
CREATE FOREIGN TABLE remote_integers (n int, v int8, as_numeric numeric OPTIONS (column_name 'v'),
	as_jsonb jsonb OPTIONS (column_name 'v'), as_json json OPTIONS (column_name 'v'), o jsonb,
	a_domain any_int OPTIONS (column_name 'v'))
SERVER convex OPTIONS (table_name 'integers');
SELECT results_eq('SELECT n, v FROM remote_integers ORDER BY n', 'SELECT n, v FROM integers ORDER BY n',
	'every int64 is exact as bigint');
SELECT results_eq('SELECT n, as_numeric, as_jsonb, as_json::text, o, a_domain FROM remote_integers ORDER BY n',
	$$ SELECT n, v::numeric, to_jsonb(v), v::text, jsonb_build_object('v', v), v::any_int FROM integers ORDER BY n $$,
	'and as numeric, as jsonb, as json, nested, and through a domain: it never passes through a double');

-- Doubles: powers, neighbours of powers of two and ten, random ones of every size.
SELECT setseed(0.25) \g /dev/null
CREATE TABLE doubles AS
SELECT row_number() OVER ()::int AS n, v FROM (
	SELECT unnest('{0,5e-324,1e-323,2.2250738585072014e-308,2.225073858507201e-308,1.7976931348623157e308,
		-1.7976931348623157e308,0.1,0.2,0.30000000000000004,0.3,1e16,1e15,9999999999999998,1e21,1e22,1e23,
		9007199254740992,9007199254740994,-9007199254740991,123456789012345680,1234567890.1234567,
		1.0000000000000002,0.9999999999999999,1e-5,1e-6,1e-7,0.00001234567890123456,4.35,0.000001,8.41e21,
		9.5e-7,2.0919495182368195e19,7.2057594037927933e16,5e-5,3.5844466002796428e298,
		1.3e-319,179769313486231570000,4503599627370496.5,4503599627370497.5,9007199254740993}'::float8[])
	UNION ALL SELECT power(2::float8, e) * s FROM generate_series(-1070, 1020, 37) AS e,
	unnest('{1,-1.0000000000000002,0.9999999999999999}'::float8[]) AS s
	UNION ALL SELECT (random() - 0.5) * power(10::float8, i % 600 - 300) FROM generate_series(1, 600) AS i
) AS given (v);
SELECT count(*) FROM emu.mutate((SELECT jsonb_agg(jsonb_build_object('op', 'insert', 'table', 'doubles',
	'doc', jsonb_build_object('n', n, 'v', to_jsonb(v), 'o', jsonb_build_array(to_jsonb(v)))))
	FROM doubles)) \g /dev/null
CREATE FOREIGN TABLE remote_doubles (n int, v float8, as_numeric numeric OPTIONS (column_name 'v'),
	as_jsonb jsonb OPTIONS (column_name 'v'), as_json json OPTIONS (column_name 'v'), o float8[])
SERVER convex OPTIONS (table_name 'doubles');
CREATE FOREIGN TABLE rounded_doubles (n int, v float4) SERVER convex OPTIONS (table_name 'doubles',
	on_conversion_error 'null');
SELECT results_eq('SELECT n, float8send(v) FROM remote_doubles ORDER BY n',
	'SELECT n, float8send(v) FROM doubles ORDER BY n', 'every float64 is exact, bit by bit, as double precision');
SELECT results_eq('SELECT n, float8send(as_numeric::float8), float8send(as_jsonb::float8), float8send(as_json::text::float8), float8send(o[1]) FROM remote_doubles ORDER BY n',
	'SELECT n, float8send(v), float8send(v), float8send(v), float8send(v) FROM doubles ORDER BY n',
	'and as numeric, jsonb, json and within an array');
SELECT results_eq($$ SELECT n, as_numeric FROM remote_doubles WHERE abs(v) BETWEEN 1e-9 AND 1e15 ORDER BY n $$,
	$$ SELECT n, v::text::numeric FROM doubles WHERE abs(v) BETWEEN 1e-9 AND 1e15 ORDER BY n $$,
	'numeric shows the shortest decimal of a float64, so 0.1 is 0.1');
SELECT results_eq('SELECT n, float4send(v) FROM rounded_doubles ORDER BY n',
	$$ SELECT n, CASE WHEN v = 0 OR abs(v) BETWEEN 8e-46 AND 3.4028235e38 THEN float4send(v::float4) END FROM doubles ORDER BY n $$,
	'real is the nearest one, but never infinity or zero for a number that is neither');
SELECT is(float8send(minus_zero), '\x8000000000000000', 'minus zero keeps its sign as double precision'),
	is(float4send(minus_zero_4), '\x80000000', 'and as real')
FROM (SELECT 1) AS one, LATERAL (SELECT on_wire('float8', '{"$float":"AAAAAAAAAIA="}')::float8,
	on_wire('float4', '{"$float":"AAAAAAAAAIA="}')::float4) AS zeros (minus_zero, minus_zero_4);
SELECT is(on_wire('float8', '{"$float":"AQAAAAAA+H8="}'), 'NaN', 'a NaN with another payload is NaN');
SELECT is(on_wire('float8', '{"$float":"AAAAAAAA+P8="}'), 'NaN', 'so is one with a sign');

-- Numbers as another JSON writer might put them
SELECT is(on_wire('float8', raw)::float8, value, 'the number ' || left(raw, 40) || ' is read to the nearest double')
FROM (VALUES ('1', 1::float8), ('-1', -1), ('1E5', 1e5), ('1e+5', 1e5), ('1.0e-3', 0.001), ('0', 0), ('0e0', 0),
	('9007199254740993.0', 9007199254740992), ('9007199254740992.999999999999999999999', 9007199254740992),
	('9007199254740993.0000000000000000000000000000000000000000000000000000000000000000001', 9007199254740994),
	('0.1000000000000000055511151231257827021181583404541015625', 0.1),
	('2.47032822920623272e-324', 0), ('2.47032822920623273e-324', 5e-324), ('1e-400', 0),
	('1.7976931348623158e308', 1.7976931348623157e308), ('0.30000000000000000000000000000000000000000000004', 0.3),
	('123456789012345678901234567890', 1.2345678901234568e29),
	('9007199254740991.5', 9007199254740992), ('1' || repeat('0', 308), 1e308),
	('0.' || repeat('0', 320) || '1', 1e-321)) AS numbers (raw, value);
SELECT is(on_wire('float8', '1e309'), 'HV004', 'a number beyond every double is refused, not infinity');
SELECT is(on_wire('float8', '1e309', $$, on_conversion_error 'null'$$), 'HV004',
	'also with on_conversion_error ''null'': the answer is wrong, not the declaration');
SELECT matches(on_wire('int8', '{"$integer":"AAAA"}', $$, on_conversion_error 'null'$$), '^HV',
	'a marker that does not hold eight bytes is an error, never NULL');
SELECT is(on_wire(type, raw), value, 'blanks are allowed where JSON allows them: ' || type || to_json(raw))
FROM (VALUES ('int8', '{ "$integer" : "BQAAAAAAAAA=" }', '5'), ('bytea', e'{\n"$bytes"\t:"AP8=" }', '\x00ff'),
	('float8[]', e' [ 1.0 , { "$float":"AAAAAAAA+H8=" }\r\n] ', '{1,NaN}'),
	('jsonb', e'{ "a" : [ ] , "b" : { } , "c" : { "$integer" : "BQAAAAAAAAA=" } } ', '{"a": [], "b": {}, "c": 5}'),
	('text', ' "a" ', 'a'), ('bool', ' true ', 'true')) AS cases (type, raw, value);
SELECT is(on_wire('int4', raw), coalesce(value, 'HV004'), raw || ' as an integer is ' || coalesce(value, 'refused'))
FROM (VALUES ('2147483647.0', '2147483647'), ('2147483648.0', NULL), ('-2147483648.0', '-2147483648'),
	('-2147483649.0', NULL),
	('0.1', NULL), ('1e-300', NULL), ('1e9', '1000000000')) AS numbers (raw, value);
SELECT is(on_wire('int2', raw), coalesce(value, 'HV004'), raw || ' as a smallint is ' || coalesce(value, 'refused'))
FROM (VALUES ('32767.0', '32767'), ('32768.0', NULL), ('-32768.0', '-32768'), ('-32769.0', NULL))
	AS numbers (raw, value);
SELECT is(on_wire('int8', raw), coalesce(value, 'HV004'), raw || ' as a bigint is ' || coalesce(value, 'refused'))
FROM (VALUES ('9223372036854775807.0', NULL), ('9223372036854774784.0', '9223372036854774784'),
	('-9223372036854775808.0', '-9223372036854775808'), ('-9223372036854777856.0', NULL),
	('9.5', NULL)) AS numbers (raw, value);
SELECT is(on_wire('float4', raw), coalesce(value, 'HV004'), raw || ' as real is ' || coalesce(value, 'refused'))
FROM (VALUES ('3.4028235e38', '3.4028235e+38'), ('3.5e38', NULL), ('1e-45', '1e-45'), ('1e-46', NULL), ('0.1', '0.1'),
	('16777217.0', '1.6777216e+07')) AS numbers (raw, value);
SELECT is(on_wire('numeric(4,2)', raw), coalesce(value, 'HV004'), raw || ' as numeric(4,2) is '
	|| coalesce(value, 'refused'))
FROM (VALUES ('12.345', '12.35'), ('99.99', '99.99'), ('99.999', NULL), ('100.0', NULL), ('-0.001', '0.00'),
	('{"$integer":"BQAAAAAAAAA="}', '5.00')) AS numbers (raw, value);

-- ---------------------------------------------------------------------------
-- Strings
-- ---------------------------------------------------------------------------

SELECT is(on_wire('text', raw), value, 'the string ' || raw || ' is read')
FROM (VALUES ('"\"\\\/\b\f\n\r\t"', e'"\\/\b\f\n\r\t'), ('"\u0041\u00e9\u20AC"', 'Aé€'), ('"\ud83d\ude00"', '😀'),
	('"\uD83D\uDE00\uDBFF\uDFFF"', '😀' || u&'\+10ffff'), ('"é€😀"', 'é€😀'),
	('"\u001f\u007f\u0080"', e'\x1f\x7f' || u&'\0080'),
	('"\ufeff\ufffe\uffff"', u&'\feff\fffe\ffff'), ('"\\u0000"', '\u0000'), ('"a\\"', 'a\'), ('""', ''),
	('"' || u&'\2028\2029' || '"', u&'\2028\2029'), ('"\\\\u0000\n"', e'\\\\u0000\n')) AS strings (raw, value);
SELECT matches(on_wire('text', raw), '^HV00[M4]$', to_json(raw) || ' is no JSON: the answer is refused')
FROM unnest(ARRAY['"\ud83d"', '"\ude00"', '"\ud83d\u0041"', '"\x"', '"\u12"', e'"\n"', e'"\x01"', 'nul', '01', '+1',
	'.5', '1.', '1e', '--1', 'NaN', 'Infinity', '[1,]', '{"a"}', '']) AS raw;
SELECT is(on_wire(type, '"\ud83d\ude00\u00e9"'), '😀é', 'escapes are read as ' || type)
FROM unnest('{varchar(2),name}'::text[]) AS type;
SELECT is(on_wire('jsonb', '{"k\"\u0041":"\ud83d\ude00\u00e9"}')::jsonb, '{"k\"A": "😀é"}',
	'escapes are read in jsonb, names included');
SELECT is(on_wire('json', '{"k":"\ud83d\ude00\u00e9"}')::jsonb, '{"k": "😀é"}', 'escapes are read in json');
SELECT is(on_wire('text[]', '["\ud83d\ude00","\"",""]'), '{😀,"\"",""}', 'escapes are read in arrays');

SELECT is(on_wire('name', to_jsonb(repeat('x', 63))::text), repeat('x', 63), 'a name column takes 63 bytes');
SELECT is(on_wire('name', to_jsonb(repeat('x', 64))::text), 'HV004', 'and refuses 64: it does not cut');
SELECT is(on_wire('name', to_jsonb(repeat('é', 32))::text), 'HV004', 'it counts bytes, not characters');
SELECT is(on_wire('varchar(3)', '"abc  "'), 'abc', 'varchar(3) lets go of trailing blanks, as COPY does');
SELECT is(on_wire('varchar(3)', '"ééé"'), 'ééé', 'varchar counts characters');
CREATE FOREIGN TABLE padded (word char(5)) SERVER convex OPTIONS (table_name 'samples');
SELECT is(octet_length(word), 5, 'char(n) is padded') FROM padded;
SELECT is(on_wire('text', '"' || repeat('0123456789', 100000) || '"'), repeat('0123456789', 100000),
	'a string of 1 MB is read');
SELECT is(on_wire('text', '"' || repeat('\n', 300000) || '"'), repeat(e'\n', 300000), 'so is one of escapes only');

-- U+0000, which PostgreSQL's text cannot hold
SELECT is(on_wire('text', '"a\u0000b"'), 'HV004', 'U+0000 in a string is refused');
SELECT is(on_wire('text', '"a\u0000b"', $$, nul_handling 'error'$$), 'HV004', 'nul_handling ''error'' says the same');
SELECT is(on_wire('text', '"a\u0000b"', $$, on_conversion_error 'null'$$), NULL,
	'on_conversion_error ''null'' makes it NULL');
SELECT is(on_wire('text', '"\u0000a\u0000\u0000b\u0000"', $$, nul_handling 'replace'$$),
	u&'\fffda\fffd\fffdb\fffd', 'nul_handling ''replace'' puts U+FFFD in its place');
SELECT is(on_wire('text', '"\u0000a\u0000\u0000b\u0000"', $$, nul_handling 'strip'$$), 'ab',
	'nul_handling ''strip'' leaves it out');
SELECT is(on_wire(type, '"\u0000a\u0000"', $$, nul_handling 'strip'$$), 'a', 'strip works for ' || type)
FROM unnest('{varchar(1),char(1),name,shortish}'::text[]) AS type;
SELECT is(on_wire(type, raw), 'HV004', 'U+0000 is refused in ' || type || ' ' || raw)
FROM (VALUES ('varchar(9)', '"a\u0000"'), ('name', '"a\u0000"'), ('jsonb', '"a\u0000"'), ('jsonb', '["\u0000"]'),
	('jsonb', '{"a":{"b":["x\u0000"]}}'), ('text[]', '["a","\u0000"]'), ('mood', '"ada\u0000"')) AS cases (type, raw);
SELECT is(on_wire('jsonb', '{"a":["x\u0000",{"b":"\u0000\u0000"}]}', $$, nul_handling 'replace'$$)::jsonb,
	jsonb_build_object('a', jsonb_build_array(u&'x\fffd', jsonb_build_object('b', u&'\fffd\fffd'))),
	'replace works anywhere in jsonb');
SELECT is(on_wire('jsonb', '{"a":["x\u0000",{"b":"\u0000\u0000"}]}', $$, nul_handling 'strip'$$)::jsonb,
	'{"a": ["x", {"b": ""}]}', 'strip works anywhere in jsonb');
SELECT is(on_wire('text[]', '["a\u0000","\u0000"]', $$, nul_handling 'replace'$$)::text[],
	ARRAY[u&'a\fffd', u&'\fffd'], 'replace works in arrays');
SELECT is(on_wire('jsonb', '["\\u0000"]')::jsonb, '["\\u0000"]', 'a backslash before u0000 is not U+0000');
SELECT is(on_wire('bytea', '{"$bytes":"AAAA"}'), '\x000000', 'bytes may be zero');

-- Bytes
SELECT is(on_wire('bytea', '{"$bytes":""}'), '\x', 'no bytes at all are an empty bytea');
SELECT is(on_wire('bytea', '{"$bytes":"+\/+\/"}'), '\xfbffbf', 'a slash may be escaped');
SELECT is(on_wire('bytea', '{"$bytes":"AP8"}'), 'HV004', 'base64 without its padding is refused');
SELECT is(on_wire('bytea', '{"$bytes":"!!!!"}'), 'HV004', 'what is no base64 is refused');
SELECT is(on_wire('bytea', bytes(decode(repeat('00ff10', 100000), 'hex'))::text), '\x' || repeat('00ff10', 100000),
	'300 kB of bytes are read');
SELECT is(on_wire('bytea[]', '[{"$bytes":"AP8="},null,{"$bytes":""}]'), '{"\\x00ff",NULL,"\\x"}',
	'bytes are read in arrays');

-- ---------------------------------------------------------------------------

SELECT * FROM finish();
