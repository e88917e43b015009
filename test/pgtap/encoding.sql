-- Databases whose encoding is not UTF-8.
--
-- The chapter moves into a LATIN1 and a SQL_ASCII database of its own. The
-- documents come from the UTF8 one, which can write every character.

\ir lib/setup.sql
\pset fieldsep '\n'
\set home :DBNAME
\set latin :DBNAME _latin1
\set ascii :DBNAME _sql_ascii
SELECT format('DROP DATABASE IF EXISTS %I WITH (FORCE)', name) FROM unnest(ARRAY[:'latin', :'ascii']) AS name \gexec
CREATE DATABASE :"latin" TEMPLATE template0 ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C';
CREATE DATABASE :"ascii" TEMPLATE template0 ENCODING 'SQL_ASCII' LC_COLLATE 'C' LC_CTYPE 'C';

SELECT * FROM emu.insert('latin',
	'{"word": "Grüße, señor", "o": {"a": ["ÿ"]}, "l": ["é", "x"], "b": {"$bytes": "w6k="}}') \g /dev/null
SELECT * FROM emu.insert('escaped', '{"word": "<escapes>", "o": {"a": ["<escapes>"]}, "l": ["<escapes>"]}') \g /dev/null
SELECT emu.fault('{"action": "edit", "find": "<escapes>", "replace": "\\u0047r\\u00fc\\u00dfe\\u0000", "count": -1}') \g /dev/null
SELECT id AS euro FROM emu.insert('euro',
	'{"word": "10 €", "o": {"a": ["€"]}, "l": ["x", "€"], "b": {"$bytes": "4oKs"}}') AS id \gset
SELECT * FROM emu.insert('emoji',
	'{"word": "😀", "o": {"a": ["😀"]}, "l": ["😀"], "b": {"$bytes": "8J+YgA=="}}') \g /dev/null
SELECT * FROM emu.insert('mixed', '{"n": 1, "word": "é"}', '{"n": 2, "word": "€"}', '{"n": 3, "word": "ü"}',
	'{"n": 4, "word": "😀"}', '{"n": 5, "word": "ascii"}') \g /dev/null
SELECT * FROM emu.insert('moods', '{"mood": "fröhlich"}') \g /dev/null

-- ---------------------------------------------------------------------------
-- SQL_ASCII: bytes as they come, in UTF-8; told below
-- ---------------------------------------------------------------------------

\c :"ascii"
\ir lib/setup.sql
SELECT emu.server() \g /dev/null
CREATE FOREIGN TABLE emoji (word text, o jsonb, oj json OPTIONS (column_name 'o'), l text[]) SERVER convex
	OPTIONS (table_name 'emoji');
CREATE TABLE results AS
SELECT convert_to(word, 'SQL_ASCII') = '\xf09f9880' AS text, convert_to(o #>> '{a,0}',
	'SQL_ASCII') = '\xf09f9880' AS jsonb,
	convert_to(oj #>> '{a,0}', 'SQL_ASCII') = '\xf09f9880' AS json, convert_to(l[1],
	'SQL_ASCII') = '\xf09f9880' AS arrays FROM emoji;
SELECT text AS has_text, jsonb AS has_jsonb, json AS has_json, arrays AS has_arrays FROM results \gset

-- ---------------------------------------------------------------------------
-- LATIN1: strings are converted; what has no place in it does not fit
-- ---------------------------------------------------------------------------

\c :"latin"
\encoding UTF8
\ir lib/setup.sql
SELECT plan(60);
SELECT is(getdatabaseencoding()::text, 'LATIN1', 'the database is LATIN1');
SELECT emu.server() \g /dev/null
CREATE TYPE mood AS ENUM ('fröhlich');

-- What a column of a table reads as; the SQLSTATE when it is refused.
CREATE FUNCTION reading(relation text, definition text, options text DEFAULT '') RETURNS text LANGUAGE plpgsql AS
$$
DECLARE
	value text;
BEGIN
	EXECUTE format('CREATE FOREIGN TABLE reading (v %s) SERVER convex OPTIONS (table_name %L %s)', definition, relation,
	options);
	EXECUTE 'SELECT v::text FROM reading' INTO STRICT value;
	DROP FOREIGN TABLE reading;
	RETURN value;
EXCEPTION WHEN OTHERS THEN
	RETURN SQLSTATE;
END
$$;

SELECT is(reading('latin', $$text OPTIONS (column_name 'word')$$), 'Grüße, señor', 'text is converted');
SELECT is(length(reading('latin', $$text OPTIONS (column_name 'word')$$)), 12, 'to one byte per character');
SELECT is(reading('latin', $$varchar(12) OPTIONS (column_name 'word')$$), 'Grüße, señor',
	'varchar(n) counts the characters of this encoding');
SELECT is(reading('latin', $$name OPTIONS (column_name 'word')$$), 'Grüße, señor', 'name is converted');
SELECT is(reading('latin', $$text[] OPTIONS (column_name 'l')$$), '{é,x}', 'arrays are converted');
SELECT is(reading('latin', $$jsonb OPTIONS (column_name 'o')$$), '{"a": ["ÿ"]}', 'jsonb is converted');
SELECT is(reading('latin', $$json OPTIONS (column_name 'o')$$), '{"a":["ÿ"]}', 'json is converted');
SELECT is(reading('latin', $$text OPTIONS (column_name 'o.a', path 'true')$$), 'HV004',
	'an array is no text here either');
SELECT is(reading('latin', $$bytea OPTIONS (column_name 'b')$$), '\xc3a9', 'bytes are left alone');
SELECT is(reading('latin', $$jsonb OPTIONS (column_name '*')$$)::jsonb -> 'word', '"Grüße, señor"',
	'so is the whole document');
SELECT is(reading('moods', $$mood OPTIONS (column_name 'mood')$$), 'fröhlich', 'an enum finds its label');

SELECT is(reading('escaped', $$text OPTIONS (column_name 'word')$$, $$, nul_handling 'strip'$$), 'Grüße',
	'escapes are converted');
SELECT is(reading('escaped', $$jsonb OPTIONS (column_name 'o')$$, $$, nul_handling 'strip'$$), '{"a": ["Grüße"]}',
	'also in jsonb');
SELECT is(reading('escaped', $$text[] OPTIONS (column_name 'l')$$, $$, nul_handling 'strip'$$), '{Grüße}',
	'also in arrays');
SELECT is(reading('escaped', $$text OPTIONS (column_name 'word')$$), 'HV004', 'U+0000 is refused');
SELECT is(reading('escaped', $$text OPTIONS (column_name 'word')$$, $$, nul_handling 'replace'$$), 'HV004',
	'U+FFFD has no place in LATIN1, so ''replace'' does not help');

SELECT is(reading(relation, definition), 'HV004', format('a character without a place in LATIN1 does not fit: %s as %s',
	relation, definition)),
	is(reading(relation, definition, $$, on_conversion_error 'null'$$), NULL, 'it is NULL where the table says so')
FROM unnest('{euro,emoji}'::text[]) AS relation, unnest(ARRAY[
	$$text OPTIONS (column_name 'word')$$, $$varchar(9) OPTIONS (column_name 'word')$$,
	$$name OPTIONS (column_name 'word')$$,
	$$text[] OPTIONS (column_name 'l')$$, $$jsonb OPTIONS (column_name 'o')$$, $$json OPTIONS (column_name 'o')$$,
	$$jsonb OPTIONS (column_name '*')$$,
	$$uuid OPTIONS (column_name 'word')$$]) AS definition;
SELECT is(reading('euro', $$bytea OPTIONS (column_name 'b')$$), '\xe282ac', 'its bytes fit');

CREATE FOREIGN TABLE euro (word text) SERVER convex OPTIONS (table_name 'euro');
CREATE FUNCTION complaint() RETURNS text LANGUAGE plpgsql AS
$$
DECLARE
	message text; detail text; hint text;
BEGIN
	PERFORM word FROM euro;
	RETURN 'none';
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS message = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
	RETURN message || ' / ' || detail || ' / ' || hint;
END
$$;
SELECT ok(position(:'euro' IN complaint()) > 0, 'the error names the document');
SELECT matches(complaint(), 'euro.*on_conversion_error', 'and the table, with a hint');

CREATE FOREIGN TABLE mixed (n int, word text) SERVER convex OPTIONS (table_name 'mixed', on_conversion_error 'null');
SELECT results_eq('SELECT n, word FROM mixed ORDER BY n',
	$$ VALUES (1, 'é'), (2, NULL), (3, 'ü'), (4, NULL), (5, 'ascii') $$,
	'with on_conversion_error ''null'' only what does not fit is NULL');
SELECT is((SELECT array_agg(n) FROM mixed WHERE word = 'é'), '{1}', 'conditions compare in the database''s encoding');

IMPORT FOREIGN SCHEMA convex LIMIT TO (latin) FROM SERVER convex INTO public;
SELECT is(word, 'Grüße, señor', 'an imported table is read') FROM latin;
SELECT ok(EXISTS (SELECT FROM convex_changes('convex', 0, '{latin}') WHERE document ->> 'word' = 'Grüße, señor'),
	'the change log is converted');
SELECT ok(:'has_text', 'SQL_ASCII: text is UTF-8 as it came'), ok(:'has_jsonb', 'so is jsonb'),
	ok(:'has_json', 'so is json'), ok(:'has_arrays', 'so are arrays');
SELECT * FROM finish();

\c :"home"
SELECT format('DROP DATABASE %I WITH (FORCE)', name) FROM unnest(ARRAY[:'latin', :'ascii']) AS name \gexec
