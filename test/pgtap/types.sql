-- What each declared type takes from each kind of Convex value.

\ir lib/setup.sql
-- Several assertions in one row are several lines of TAP.
\pset fieldsep '\n'
SET timezone = 'UTC';

SELECT no_plan();
SELECT emu.server() \g /dev/null

-- ---------------------------------------------------------------------------
-- Tools
-- ---------------------------------------------------------------------------

CREATE FUNCTION reversed(bytes bytea) RETURNS bytea LANGUAGE sql IMMUTABLE AS
$$
	SELECT coalesce(string_agg(substr(bytes, place, 1), '' ORDER BY place DESC), '')
	FROM generate_series(1, length(bytes)) AS place
$$;

-- The markers of convex_encoded_json.
CREATE FUNCTION int64(number bigint) RETURNS jsonb LANGUAGE sql IMMUTABLE AS
$$ SELECT jsonb_build_object('$integer', encode(reversed(int8send(number)), 'base64')) $$;
CREATE FUNCTION float64(number float8) RETURNS jsonb LANGUAGE sql IMMUTABLE AS
$$ SELECT jsonb_build_object('$float', encode(reversed(float8send(number)), 'base64')) $$;
CREATE FUNCTION bytes(value bytea) RETURNS jsonb LANGUAGE sql IMMUTABLE AS
$$ SELECT jsonb_build_object('$bytes', translate(encode(value, 'base64'), e'\n', '')) $$;

-- What a statement throws; NULL when it throws nothing.
CREATE FUNCTION thrown(statement text) RETURNS jsonb LANGUAGE plpgsql AS
$$
DECLARE
	state text; message text; detail text; hint text;
BEGIN
	EXECUTE statement;
	RETURN NULL;
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS state = RETURNED_SQLSTATE, message = MESSAGE_TEXT,
		detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
	RETURN jsonb_build_object('state', state, 'message', message, 'detail', detail, 'hint', hint);
END
$$;

-- One document with a value of every kind. (Its field `absent` is missing.)
SELECT * FROM emu.insert('samples', jsonb_build_object(
	'nothing', NULL,
	'yes', true,
	'no', false,
	'five', int64(5),
	'big', int64(9007199254740993),
	'largest', int64(9223372036854775807),
	'smallest', int64(-9223372036854775808),
	'whole', 5.0,
	'half', 2.5,
	'minus_zero', float64('-0'),
	'million', 1e6,
	'huge', 1e300,
	'nan', float64('NaN'),
	'infinity', float64('Infinity'),
	'minus_infinity', float64('-Infinity'),
	'word', 'ada',
	'digits', '42',
	'empty', '',
	'bytes', bytes('\x00ff'),
	'list', jsonb_build_array(1, 2),
	'object', jsonb_build_object('a', 1))) \g /dev/null

CREATE FUNCTION sample_fields() RETURNS text[] LANGUAGE sql IMMUTABLE AS
$$
	SELECT '{absent,nothing,yes,no,five,big,largest,smallest,whole,half,minus_zero,million,huge,nan,infinity,
		minus_infinity,word,digits,empty,bytes,list,object}'::text[]
$$;

-- The samples that a type takes, as text, by field. What is not among them is
-- refused with HV004; only what is missing or null reads as NULL.
CREATE FUNCTION taken(type text, options text DEFAULT '') RETURNS jsonb LANGUAGE plpgsql AS
$$
DECLARE
	result jsonb := '{}';
	field text;
	value text;
BEGIN
	EXECUTE format('CREATE FOREIGN TABLE taken (%s) SERVER convex OPTIONS (table_name ''samples'' %s)',
		(SELECT string_agg(format('%I %s', name, type), ', ') FROM unnest(sample_fields()) AS name), options);
	FOREACH field IN ARRAY sample_fields() LOOP
		BEGIN
			EXECUTE format('SELECT %I::text FROM taken', field) INTO STRICT value;
			IF (value IS NULL) <> (field IN ('absent', 'nothing')) THEN
				value := coalesce('NOT NULL: ' || value, 'NULL');
			END IF;
			IF value IS NOT NULL THEN
				result := result || jsonb_build_object(field, value);
			END IF;
		EXCEPTION WHEN fdw_invalid_data_type THEN
			NULL;
		END;
	END LOOP;
	DROP FOREIGN TABLE taken;
	RETURN result;
END
$$;

-- A type's reading of any text that a server may put into the place of a value.
SELECT * FROM emu.insert('wire', '{"v": "<placeholder>", "z": 1}') \g /dev/null

CREATE FUNCTION on_wire(type text, raw text, options text DEFAULT '') RETURNS text LANGUAGE plpgsql AS
$$
DECLARE
	value text;
BEGIN
	PERFORM emu.fault(jsonb_build_object('action', 'edit', 'path', '/api/list_snapshot',
		'find', '"<placeholder>"', 'replace', raw));
	EXECUTE format('CREATE FOREIGN TABLE on_wire (v %s) SERVER convex OPTIONS (table_name ''wire'' %s)', type, options);
	BEGIN
		EXECUTE 'SELECT v::text FROM on_wire' INTO STRICT value;
	EXCEPTION WHEN OTHERS THEN
		value := SQLSTATE;
	END;
	DROP FOREIGN TABLE on_wire;
	RETURN value;
END
$$;

CREATE TYPE mood AS ENUM ('ada', '42', 'calm');
CREATE DOMAIN small_number AS int4 CHECK (VALUE < 100);
CREATE DOMAIN any_int AS int8;
CREATE DOMAIN present AS text NOT NULL;
CREATE DOMAIN shortish AS varchar(2);
CREATE DOMAIN list_of_two AS float8[] CHECK (cardinality(VALUE) = 2);
CREATE DOMAIN tiny AS small_number CHECK (VALUE < 5);
CREATE DOMAIN short_words AS varchar(2)[];
CREATE DOMAIN with_o AS jsonb CHECK (VALUE ? 'o');
CREATE DOMAIN with_name AS jsonb CHECK (VALUE ? 'name');

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
