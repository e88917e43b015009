-- Databases whose encoding is not UTF-8.
--
-- The chapter moves into a LATIN1 and a SQL_ASCII database of its own.

\ir lib/setup.sql
\set home :DBNAME
\set latin :DBNAME _latin1
\set ascii :DBNAME _sql_ascii
SELECT format('DROP DATABASE IF EXISTS %I WITH (FORCE)', name) FROM unnest(ARRAY[:'latin', :'ascii']) AS name \gexec
CREATE DATABASE :"latin" TEMPLATE template0 ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C';
CREATE DATABASE :"ascii" TEMPLATE template0 ENCODING 'SQL_ASCII' LC_COLLATE 'C' LC_CTYPE 'C';

-- ---------------------------------------------------------------------------
-- LATIN1: strings are converted; what has no place in it does not fit
-- ---------------------------------------------------------------------------

\c :"latin"
\encoding UTF8
\ir lib/setup.sql
SELECT plan(36);
SELECT emu.server() \g /dev/null
SELECT is(getdatabaseencoding(), 'LATIN1', 'the database is LATIN1');

-- The request goes out as ASCII: what the emulator stores does not depend on
-- this database's encoding.
\set umlauts '{"n": 1, "word": "Gr\\u00fc\\u00dfe, se\\u00f1or", "o": {"a": ["\\u00ff"]}, "l": ["\\u00e9", "x"], "b": {"$bytes": "w6k="}}'
CREATE FUNCTION insert_as_text(table_name text, document text) RETURNS jsonb LANGUAGE plpgsql AS
$$
BEGIN
	EXECUTE format($copy$ COPY (SELECT %L::text) TO PROGRAM %L (FORMAT csv, DELIMITER e'\x02', QUOTE e'\x01') $copy$,
		format('{"ops": [{"op": "insert", "table": "%s", "doc": %s}]}', table_name, document),
		format('curl -q -sS --noproxy ''*'' --fail -o /dev/null -H ''Content-Type: application/json'' --data-binary @- %s/_emulator/mutate', current_setting('emu.url')));
	RETURN NULL;
END
$$;
SELECT insert_as_text('words', $${"n": 1, "word": "Gr\u00fc\u00dfe, se\u00f1or", "o": {"a": ["\u00ff"]}, "l": ["\u00e9", "x"], "b": {"$bytes": "w6k="}}$$) \g /dev/null
SELECT insert_as_text('words', $${"n": 2, "word": "10 \u20ac", "o": {"a": ["\u20ac"]}, "l": ["x", "\u20ac"], "b": {"$bytes": "4oKs"}}$$) \g /dev/null
SELECT insert_as_text('words', $${"n": 3, "word": "\ud83d\ude00", "o": {"a": ["\ud83d\ude00"]}, "l": ["\ud83d\ude00"], "b": {"$bytes": "8J+YgA=="}}$$) \g /dev/null
SELECT insert_as_text('words', $${"n": 4, "word": "a\u0000\u00e9", "o": {"a": ["\u0000\u00e9"]}, "l": ["\u00e9\u0000"], "b": {"$bytes": ""}}$$) \g /dev/null

CREATE FOREIGN TABLE words (n int, word text, short varchar(12) OPTIONS (column_name 'word'), named name OPTIONS (column_name 'word'),
	o jsonb, oj json OPTIONS (column_name 'o'), l text[], b bytea, document jsonb OPTIONS (column_name '*'))
SERVER convex OPTIONS (table_name 'words', nul_handling 'strip');
CREATE VIEW reading AS SELECT 1 AS n;

-- What one column of one document reads as; the SQLSTATE when it is refused.
CREATE FUNCTION reading(wanted int, expression text, relation text DEFAULT 'words') RETURNS text LANGUAGE plpgsql AS
$$
DECLARE
	value text;
BEGIN
	-- Other documents' values are not converted: the cursor stops in front of them.
	EXECUTE format('SELECT (SELECT %s FROM %I WHERE false)::text', expression, relation) INTO value;
	EXECUTE format('SELECT (%s)::text FROM %I LIMIT 1', expression, relation || wanted) INTO value;
	RETURN value;
EXCEPTION WHEN OTHERS THEN
	RETURN SQLSTATE;
END
$$;
