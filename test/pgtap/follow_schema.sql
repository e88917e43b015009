-- Subscriptions: nothing is lost and nothing stops, whatever documents hold.

\ir lib/setup.sql
SELECT plan(35);

SELECT emu.server() \g /dev/null

-- A document again, from its row: what _extra says comes before the columns.
CREATE FUNCTION encoded(row_json jsonb, types jsonb, extra jsonb) RETURNS jsonb LANGUAGE plpgsql AS
$$
DECLARE
	result jsonb := '{}';
	field text; value jsonb; type text;
BEGIN
	FOR field, value IN SELECT * FROM jsonb_each(row_json) LOOP
		type := types ->> field;
		CONTINUE WHEN value = 'null' OR field LIKE E'\\_%' AND field <> '_id';
		IF type = 'bigint' THEN
			value := jsonb_build_object('$integer', encode(decode(string_agg(byte, '' ORDER BY place DESC), 'hex'), 'base64'))
				FROM (SELECT place, substr(lpad(to_hex((value #>> '{}')::bigint), 16, '0'), place * 2 - 1, 2) AS byte FROM generate_series(1, 8) AS place) AS b;
		ELSIF type = 'bytea' THEN
			value := jsonb_build_object('$bytes', encode((value #>> '{}')::bytea, 'base64'));
		END IF;
		result := result || jsonb_build_object(field, value);
	END LOOP;
	RETURN result || coalesce(extra, '{}');
END
$$;
CREATE FUNCTION mirror(relation regclass) RETURNS SETOF jsonb LANGUAGE plpgsql AS
$$
DECLARE
	types jsonb;
BEGIN
	SELECT jsonb_object_agg(attname, format_type(atttypid, NULL)) INTO types FROM pg_attribute WHERE attrelid = relation AND attnum > 0;
	RETURN QUERY EXECUTE format('SELECT encoded(to_jsonb(t) - ''_extra'', %L, _extra) FROM %s AS t ORDER BY _id', types, relation);
END
$$;
CREATE FUNCTION source(table_name text) RETURNS SETOF jsonb LANGUAGE sql AS
$$ SELECT document - '_creationTime' FROM emu.dump(table_name) AS document $$;

-- ------------------------------------------------------------------ types

SELECT emu.insert('t', '{"b": true, "i": {"$integer": "AAAAAAAAAIA="}, "f": 1.5, "s": "text", "y": {"$bytes": "AQI="}, "o": {"a": 1.5}, "a": [1.5, "x"]}',
	'{"b": false, "i": {"$integer": "/////////38="}, "f": -0.5, "s": "", "y": {"$bytes": ""}, "o": {}, "a": []}') \g /dev/null
SELECT convex_create_subscription('app', 'convex') \g /dev/null
CALL convex_sync('app');
SELECT results_eq($$ SELECT attname::text COLLATE "default", format_type(atttypid, NULL) FROM pg_attribute WHERE attrelid = 'app.t'::regclass AND attnum > 0 ORDER BY attname COLLATE "C" $$,
	$$ VALUES ('_creationTime', 'timestamp with time zone'), ('_extra', 'jsonb'), ('_id', 'text'), ('_ts', 'bigint'), ('a', 'jsonb'), ('b', 'boolean'), ('f', 'double precision'), ('i', 'bigint'), ('o', 'jsonb'), ('s', 'text'), ('y', 'bytea') $$,
	'each field gets a column of its type');
SELECT is((SELECT array_agg(i ORDER BY i) FROM app.t), '{-9223372036854775808,9223372036854775807}', 'the extremes of int64 are exact');
SELECT is((SELECT count(*) FROM app.t WHERE _extra IS NOT NULL), 0::bigint, 'what the columns tell is not in _extra');
SELECT bag_eq($$ SELECT mirror('app.t') $$, $$ SELECT source('t') $$, 'the columns tell the documents');

-- ------------------------------------------------------------------ evolution

SELECT emu.insert('t', '{"new": "field", "n2": {"$integer": "AQAAAAAAAAA="}}') AS id \gset
CALL convex_sync('app');
SELECT is((SELECT new FROM app.t WHERE _id = :'id'), 'field', 'a new field becomes a column');
SELECT is((SELECT n2 FROM app.t WHERE _id = :'id'), 1::bigint, 'of its type');
SELECT is((SELECT count(*) FROM convex_stat_subscription_event WHERE kind = 'column_added'), 2::bigint, 'and an event');
SELECT emu.insert('t', '{"s": 5.5, "i": 3.0, "b": null, "f": {"$float": "AAAAAAAA+H8="}}') AS id \gset
CALL convex_sync('app');
SELECT is((SELECT _extra FROM app.t WHERE _id = :'id'), '{"s": 5.5, "i": 3.0, "b": null}', 'values of another type, and null, are in _extra, exactly');
SELECT is((SELECT f FROM app.t WHERE _id = :'id'), 'NaN', 'a special float is in its column');
SELECT is((SELECT s FROM app.t WHERE _id = :'id'), NULL, 'the column of a value that does not fit is NULL');
SELECT is((SELECT count(*) FROM convex_stat_subscription_event WHERE kind = 'drift'), 2::bigint, 'a drift is told');
SELECT emu.insert('t', '{"s": 6.5}') \g /dev/null
CALL convex_sync('app');
SELECT is((SELECT count(*) FROM convex_stat_subscription_event WHERE kind = 'drift'), 2::bigint, 'once for each field and type');
SELECT emu.mutate(jsonb_build_array(jsonb_build_object('op', 'replace', 'table', 't', 'id', :'id', 'doc', '{"s": "fits"}'::jsonb))) \g /dev/null
CALL convex_sync('app');
SELECT is((SELECT ROW (s, i, f, _extra)::text FROM app.t WHERE _id = :'id'), '(fits,,,)', 'fields that are gone clear their columns and _extra');

-- ------------------------------------------------------------------ odd data

-- jsonb cannot hold U+0000: the emulator's answers get it.
SELECT emu.fault('{"action": "edit", "find": "<nul>", "replace": "\\u0000", "count": -1}') \g /dev/null
SELECT emu.insert('t', '{"s": "a<nul>b", "o": {"deep": ["x<nul>", 1.5, {"$integer": "BQAAAAAAAAA="}]}}') AS id \gset
CALL convex_sync('app');
SELECT is((SELECT s FROM app.t WHERE _id = :'id'), E'a\uFFFDb', 'U+0000 is replaced in a column');
SELECT is((SELECT _extra -> 's' FROM app.t WHERE _id = :'id'), jsonb_build_object('$text', encode('\x610062', 'base64')), 'and exact in _extra');
SELECT is((SELECT _extra -> 'o' FROM app.t WHERE _id = :'id'), '{"deep": [{"$text": "eAA="}, 1.5, {"$integer": "BQAAAAAAAAA="}]}', 'at any depth');
SELECT is((SELECT o FROM app.t WHERE _id = :'id'), E'{"deep": ["x\uFFFD", 1.5, 5]}', 'while the column is clean');
SELECT emu.insert('t', jsonb_build_object('o', '{"n": {"$integer": "BQAAAAAAAAA="}}'::jsonb)) AS id \gset
CALL convex_sync('app');
SELECT is((SELECT _extra FROM app.t WHERE _id = :'id'), '{"o": {"n": {"$integer": "BQAAAAAAAAA="}}}', 'a nested int64 is exact in _extra where the column shows a number');

SELECT emu.insert('t', jsonb_build_object(repeat('x', 64), 1.5, 'Name', 'upper', 'name', 'lower', 'NAME', 'all', 'ctid', 'system')) AS id \gset
CALL convex_sync('app');
SELECT is((SELECT ROW ("Name", name, "NAME")::text FROM app.t WHERE _id = :'id'), '(upper,lower,all)', 'names that differ in case are columns of their own');
SELECT is((SELECT count(*) FROM pg_attribute WHERE attrelid = 'app.t'::regclass AND (attname LIKE 'xxxx%' OR attname LIKE 'ctid\_%')), 2::bigint, 'long names and names of system columns get a hash');
SELECT is((SELECT count(*) FROM mirror('app.t') AS m WHERE m ->> '_id' = :'id' AND m ->> 'Name' = 'upper'), 1::bigint, 'and nothing is lost');

SELECT emu.insert('spaced', '{"first name": "Ada"}') \g /dev/null
SELECT convex_create_subscription('spaced', 'convex', '{spaced}') \g /dev/null
SELECT emu.insert('spaced', jsonb_build_object(repeat('y', 1024), 'long', 'last name', 'Lovelace')) \g /dev/null
CALL convex_sync('spaced');
SELECT bag_eq($$ SELECT m - 'last name' FROM mirror('spaced.spaced') AS m WHERE m ? 'first name' $$, $$ SELECT s FROM source('spaced') AS s WHERE s ? 'first name' $$, 'names of fields may hold blanks');
SELECT is((SELECT count(*) FROM pg_attribute WHERE attrelid = 'spaced.spaced'::regclass AND attname LIKE 'yyyy%'), 1::bigint, 'and be 1024 bytes long');
SELECT convex_drop_subscription('spaced', true) \g /dev/null

-- Many fields: columns up to the limit, the rest in _extra.
SELECT emu.insert('many', VARIADIC ARRAY(SELECT (SELECT jsonb_object_agg('f' || d || '_' || i, i + 0.5) FROM generate_series(1, 100) AS i) FROM generate_series(1, 20) AS d)) \g /dev/null
SELECT convex_refresh_subscription('app') \g /dev/null
CALL convex_sync('app');
SELECT is((SELECT count(*) FROM app.many), 20::bigint, '2,000 distinct fields do not stop a table');
SELECT cmp_ok((SELECT count(*) FROM pg_attribute WHERE attrelid = 'app.many'::regclass AND attnum > 0), '<=', 250::bigint, 'it gets 250 columns at most');
SELECT bag_eq($$ SELECT mirror('app.many') $$, $$ SELECT source('many') $$, 'columns and _extra together tell every document');

-- ------------------------------------------------------------------ columns of other types

CREATE SCHEMA typed;
CREATE TYPE typed.mood AS ENUM ('sad', 'ok');
CREATE DOMAIN typed.whole AS bigint;
CREATE TABLE typed.other (_id text COLLATE "C" PRIMARY KEY, i2 smallint, i4 integer, r real, n numeric(5, 1), v varchar(3), c char(6),
	w timestamptz, d date, m typed.mood, u uuid, big typed.whole, a text[], b bigint[], f double precision[], _ts bigint, _extra jsonb);
SELECT emu.insert('other', '{"i2": 2, "i4": 4, "r": 0.5, "n": 0.3, "v": "abc", "c": "abcdef", "w": 1700000000000, "d": 86400000, "m": "ok", "big": {"$integer": "BQAAAAAAAAA="},
	"u": "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", "a": ["x", null, "y"], "b": [{"$integer": "BQAAAAAAAAA="}], "f": [0.5, 1]}') \g /dev/null
SELECT convex_create_subscription('typed', 'convex', '{other}') \g /dev/null
CALL convex_sync('typed');
SELECT is((SELECT _extra FROM typed.other), NULL, 'columns of other types tell values of their kind');
SELECT is((SELECT array_agg(e.key) FROM typed.other AS t, jsonb_each(to_jsonb(t)) AS e WHERE e.value = 'null'), '{_extra}', 'and all hold theirs');
SELECT $$ {"i2": {"$float": "AAAAAAAAAIA="}, "i4": {"$integer": "BAAAAAAAAAA="}, "r": 0.1, "n": 0.25, "v": "abc   ", "c": "abc", "w": 1700000000000.1234, "d": 86400001, "big": 5,
	"u": "A0EEBC99-9c0b-4ef8-bb6d-6bb9bd380a11", "b": [5], "f": [{"$integer": "BQAAAAAAAAA="}]} $$ AS rough \gset
SELECT emu.insert('other', :'rough') AS rough_id \gset
CALL convex_sync('typed');
SELECT is((SELECT _extra FROM typed.other WHERE _id = :'rough_id'), (SELECT d - '_id' - '_creationTime' FROM emu.dump('other') AS d WHERE d ->> '_id' = :'rough_id'), 'what they show only roughly is in _extra, too');
SELECT convex_drop_subscription('typed', true) \g /dev/null
DROP SCHEMA typed CASCADE;

-- ------------------------------------------------------------------ options

SELECT emu.insert('plain', '{"a": {"n": {"$integer": "BQAAAAAAAAA="}}}') \g /dev/null
SELECT convex_create_subscription('enc', 'convex', '{plain}', options => '{"json_values": "encoded", "document": "jsonb", "schema_evolution": "ignore", "nul_handling": "strip"}') \g /dev/null
CALL convex_sync('enc');
SELECT is((SELECT ROW (a, _extra)::text FROM enc.plain), '("{""n"": {""$integer"": ""BQAAAAAAAAA=""}}",)', 'json_values encoded keeps the markers in the column');
SELECT is((SELECT _document -> 'a' FROM enc.plain), '{"n": {"$integer": "BQAAAAAAAAA="}}', 'document adds the whole document');
SELECT emu.insert('plain', '{"z": "new", "a": "x<nul>y"}') AS id \gset
CALL convex_sync('enc');
SELECT hasnt_column('enc', 'plain', 'z', 'schema_evolution ignore adds no column');
SELECT is((SELECT _extra ->> 'z' FROM enc.plain WHERE _id = :'id'), 'new', 'the value is in _extra');
SELECT is((SELECT a FROM enc.plain WHERE _id = :'id'), '"xy"', 'nul_handling strip leaves the character out');
SELECT convex_create_subscription('late', 'convex', '{plain}') \g /dev/null
CALL convex_sync('late');
SELECT convex_alter_subscription('late', options => '{"document": "jsonb"}') \g /dev/null
SELECT convex_resync_table('late', 'plain') \g /dev/null
CALL convex_sync('late');
SELECT is((SELECT count(*) FROM late.plain WHERE _document ->> '_id' = _id), (SELECT count(*) FROM emu.dump('plain')), 'a document that is wanted later comes with the next load');

SELECT * FROM finish();
