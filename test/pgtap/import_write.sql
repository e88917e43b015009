-- convex_import(): the rows of a query become the documents of a table.

\ir lib/setup.sql
SELECT plan(160);

SELECT emu.server('convex', $$max_retries '2'$$) \g /dev/null

CREATE FUNCTION state(statement text) RETURNS text LANGUAGE sql AS
$$ SELECT coalesce(emu.failure(statement) ->> 'sqlstate', 'no error') $$;
CREATE FUNCTION told(statement text) RETURNS text LANGUAGE sql AS
$$ SELECT concat_ws(' | ', f ->> 'message', f ->> 'detail', f ->> 'hint') FROM emu.failure(statement) AS f $$;
CREATE FUNCTION import(query text, mode text DEFAULT 'replace') RETURNS bigint LANGUAGE sql AS
$$ SELECT convex_import('convex', 't', query, mode) $$;
-- Without what Convex adds.
CREATE FUNCTION documents(table_name text DEFAULT 't', component text DEFAULT '') RETURNS SETOF jsonb LANGUAGE sql AS
$$ SELECT d - '_id' - '_creationTime' FROM emu.dump(table_name, component) AS d $$;
CREATE VIEW sent AS
	SELECT regexp_replace(entry ->> 'path', '^/api/', '') AS path, entry -> 'body' AS body, (entry -> 'headers' ->> 'content-length')::bigint AS bytes,
		entry ->> 'query' AS query, entry -> 'headers' ->> 'content-type' AS type, (entry ->> 'status')::int AS status, place
	FROM emu.journal() WITH ORDINALITY AS j (entry, place) ORDER BY place;
-- Everything that a statement says, by psql.
CREATE FUNCTION notices(statement text) RETURNS text LANGUAGE plpgsql AS
$$
DECLARE
	psql text := format('psql -X -q -A -t -h %s -p %s -U %s -d %s -c %s 2>&1 >/dev/null',
		emu.shell_quote(split_part(current_setting('unix_socket_directories'), ',', 1)), current_setting('port'),
		current_user, current_database(), emu.shell_quote(statement));
BEGIN
	CREATE TEMP TABLE IF NOT EXISTS said (line text);
	TRUNCATE said;
	EXECUTE format('COPY said FROM PROGRAM %L', psql || ' | sed ''s/\\/\\\\/g''');
	RETURN coalesce((SELECT string_agg(line, E'\n') FROM said), '');
END
$$;

-- ------------------------------------------------------------------ every type

CREATE TYPE mood AS ENUM ('happy', 'sad');
CREATE TABLE typed (name text, query text, wire text);
INSERT INTO typed VALUES
	('bigint', '7::bigint', '{"$integer": "BwAAAAAAAAA="}'),
	('the largest bigint', '9223372036854775807::bigint', '{"$integer": "/////////38="}'),
	('the smallest bigint', '(-9223372036854775808)::bigint', '{"$integer": "AAAAAAAAAIA="}'),
	('a bigint beyond 2^53', '9007199254740993::bigint', '{"$integer": "AQAAAAAAIAA="}'),
	('integer', '7', '7.0'),
	('smallint', '(-7)::smallint', '-7.0'),
	('double precision', '0.1::float8', '0.1'),
	('a whole double precision', '1e15::float8', '1000000000000000.0'),
	('a large one', '1e300::float8', '1e300'),
	('real', '1.5::real', '1.5'),
	('numeric', '12.25::numeric', '12.25'),
	('NaN', '''NaN''::float8', '{"$float": "AAAAAAAA+H8="}'),
	('Infinity', '''Infinity''::float8', '{"$float": "AAAAAAAA8H8="}'),
	('-Infinity', '''-Infinity''::float8', '{"$float": "AAAAAAAA8P8="}'),
	('negative zero', '''-0''::float8', '{"$float": "AAAAAAAAAIA="}'),
	('boolean', 'true', 'true'),
	('text', $q$E'a "quoted" \\ line\n\t\u00e9\U0001F600'$q$, to_json(E'a "quoted" \\ line\n\t\u00e9\U0001F600'::text)::text),
	('an empty text', '''''::text', '""'),
	('digits as text', '''7''::text', '"7"'),
	('bytea', '''\x00ff10''::bytea', '{"$bytes": "AP8Q"}'),
	('an empty bytea', '''''::bytea', '{"$bytes": ""}'),
	('uuid', '''a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11''::uuid', '"a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"'),
	('enum', '''sad''::mood', '"sad"'),
	('jsonb', $q$'{"a": [1, 2.5, null, {"b": true}], "s": "x", "n": {}}'::jsonb$q$, '{"a": [1.0, 2.5, null, {"b": true}], "s": "x", "n": {}}'),
	('json', $q$'[1, "7", 1e3]'::json$q$, '[1.0, "7", 1000.0]'),
	('jsonb null', $q$'null'::jsonb$q$, 'null'),
	('an array of bigint', 'ARRAY[1, 2]::bigint[]', '[{"$integer": "AQAAAAAAAAA="}, {"$integer": "AgAAAAAAAAA="}]'),
	('an array of text', 'ARRAY[''a'', ''b'']', '["a", "b"]'),
	('an empty array', '''{}''::float8[]', '[]'),
	('timestamptz', '''2026-01-02 03:04:05.678+00''::timestamptz', '1767323045678.0');

SELECT is(import(format('SELECT %s AS v', query)), 1::bigint, name || ' is imported') FROM typed;
SELECT is(import((SELECT 'SELECT ' || string_agg(format('%s AS f%s', query, row_number), ', ') FROM (SELECT *, row_number() OVER () FROM typed) AS n)), 1::bigint, 'and all of them at once');
SELECT is(d -> ('f' || n), wire::jsonb, name || ' arrives as it was')
FROM documents() AS d, (SELECT *, row_number() OVER () AS n FROM typed) AS typed;
SELECT is(jsonb_typeof(d -> ('f' || n)), jsonb_typeof(wire::jsonb), name || ' has its type')
FROM documents() AS d, (SELECT *, row_number() OVER () AS n FROM typed) AS typed WHERE wire LIKE '{"$%';

SELECT is(import('SELECT 1 AS a, NULL::text AS b'), 1::bigint, 'a NULL');
SELECT is((SELECT d FROM documents() AS d), '{"a": 1.0}', 'is a field that is not there');
SELECT is(import('SELECT 1 AS "a b", 2 AS "A", 3 AS "x.y"'), 1::bigint, 'names of columns');
SELECT is((SELECT d FROM documents() AS d), '{"a b": 1.0, "A": 2.0, "x.y": 3.0}', 'are the names of the fields');
ALTER SERVER convex OPTIONS (ADD json_values 'encoded');
SELECT is(import($$SELECT '{"a": [{"$integer": "/////////38="}, {"$bytes": "AP8Q"}, {"$float": "AAAAAAAA+H8="}]}'::jsonb AS j$$), 1::bigint, 'with json_values encoded, markers in jsonb');
SELECT is((SELECT d FROM documents() AS d), '{"j": {"a": [{"$integer": "/////////38="}, {"$bytes": "AP8Q"}, {"$float": "AAAAAAAA+H8="}]}}', 'are the values that they stand for');
ALTER SERVER convex OPTIONS (DROP json_values);

-- What a foreign table reads, an import gives back.
SELECT emu.reset() \g /dev/null
SELECT emu.seed('demo') \g /dev/null
CREATE TABLE before AS SELECT d FROM emu.dump('channels') AS d;
CREATE FOREIGN TABLE channels (_id text, "_creationTime" double precision, name text, owner text, topic text, members text[], capacity bigint) SERVER convex;
SELECT is(convex_import('convex', 'channels', 'SELECT * FROM channels ORDER BY name', 'replace'), (SELECT count(*) FROM before), 'documents of a foreign table can replace themselves');
SELECT results_eq('SELECT jsonb_strip_nulls(d) FROM emu.dump(''channels'') AS d ORDER BY d ->> ''_id''', 'SELECT jsonb_strip_nulls(d) FROM before ORDER BY d ->> ''_id''', '_id and _creationTime are kept, and everything else');

-- ------------------------------------------------------------------ modes and components

SELECT emu.reset() \g /dev/null
SELECT is(convex_import('convex', 't', 'SELECT 1 AS n'), 1::bigint, 'a table that does not exist is made');
SELECT is(state($$SELECT convex_import('convex', 't', 'SELECT 2 AS n')$$), 'HV00L', 'by default a table that has documents is refused');
SELECT matches(told($$SELECT convex_import('convex', 't', 'SELECT 2 AS n')$$), 'failed \| .*already exists.*Nothing was changed', 'with Convex''s words as the detail');
SELECT results_eq('SELECT documents()', $$ VALUES ('{"n": 1.0}'::jsonb) $$, 'and is as it was');
SELECT is(import('SELECT n FROM generate_series(2, 3) AS n', 'append'), 2::bigint, 'append adds');
SELECT results_eq('SELECT (documents() -> ''n'')::int ORDER BY 1', 'VALUES (1), (2), (3)', 'to what there is');
SELECT is(import('SELECT n FROM generate_series(4, 5) AS n', 'replace'), 2::bigint, 'replace puts the rows');
SELECT results_eq('SELECT (documents() -> ''n'')::int ORDER BY 1', 'VALUES (4), (5)', 'in the place of what there is');
SELECT is(import('SELECT 1 AS n WHERE false'), 0::bigint, 'no row at all');
SELECT is((SELECT count(*) FROM documents()), 0::bigint, 'empties the table');
SELECT is(convex_import('convex', 't', 'SELECT 1 AS n'), 1::bigint, 'which is then empty enough for the default mode');
SELECT is(import('INSERT INTO typed VALUES (''a''), (''b'') RETURNING name'), 2::bigint, 'a query may be anything that returns rows');

SELECT emu.mutate('[{"op": "insert", "table": "inner", "component": "billing", "doc": {}}, {"op": "insert", "table": "inner", "component": "billing/ledger", "doc": {}}]') \g /dev/null
SELECT is(convex_import('convex', 't', 'SELECT 9 AS n', 'replace', 'billing'), 1::bigint, 'a component is named by its path');
SELECT results_eq('SELECT documents(''t'', ''billing'')', $$ VALUES ('{"n": 9.0}'::jsonb) $$, 'and has the rows');
SELECT is(convex_import('convex', 't', 'SELECT 8 AS n', component => 'billing/ledger'), 1::bigint, 'a nested one as well');
SELECT results_eq('SELECT documents(''t'', ''billing/ledger'')', $$ VALUES ('{"n": 8.0}'::jsonb) $$, 'has its rows');

-- ------------------------------------------------------------------ what is sent

SELECT emu.clear_journal() \g /dev/null
SELECT is(import('SELECT 1 AS n'), 1::bigint, 'a small import');
SELECT is((SELECT array_agg(path ORDER BY place) FROM (SELECT *, lag(path) OVER (ORDER BY place) AS before FROM sent) AS s WHERE path IS DISTINCT FROM before),
	'{import/start_upload,import/upload_part,import/finish_upload,query,perform_import,query}', 'takes these steps');
SELECT results_eq('SELECT body -> ''import'' FROM sent WHERE path = ''import/finish_upload''', $$ VALUES ('{"format": "zip", "mode": "replace"}'::jsonb) $$, 'with a ZIP file, which names the table itself');

SELECT emu.clear_journal() \g /dev/null
SELECT setseed(0.5) \g /dev/null
SELECT is(import('SELECT n::bigint, repeat(md5(n::text), 500) AS filler FROM generate_series(1, 800) AS n'), 800::bigint, 'a larger import');
SELECT is((SELECT count(*) FROM sent WHERE path = 'import/upload_part'), 3::bigint, 'has several parts');
SELECT is((SELECT array_agg(substring(query FROM 'partNumber=(\d+)')::int ORDER BY place) FROM sent WHERE path = 'import/upload_part'), '{1,2,3}', 'in their order');
SELECT is((SELECT bool_and(bytes >= 5 * 1024 * 1024) FROM sent WHERE path = 'import/upload_part' AND query NOT LIKE '%partNumber=3%'), true, 'all but the last have 5 MiB');
SELECT is((SELECT jsonb_array_length(body -> 'partTokens') FROM sent WHERE path = 'import/finish_upload'), 3, 'each has its token');
SELECT is((SELECT count(DISTINCT d ->> 'n') FROM documents() AS d WHERE d ->> 'filler' LIKE '________________________________%'), 800::bigint, 'and every row arrives');

SELECT matches(notices($$SELECT convex_import('convex', 't', 'SELECT 1 AS n', 'replace')$$), 'NOTICE: .*800 of 800', 'what Convex wants to have confirmed is a notice');
SELECT emu.config('{"import_hold": "in_progress"}') \g /dev/null
SELECT matches(notices($$SET statement_timeout = '3s'; SELECT convex_import('convex', 't', 'SELECT 2 AS n', 'replace')$$), 'NOTICE: .*Importing "t"', 'and so is progress');
SELECT emu.config('{"import_hold": null}') \g /dev/null
SELECT emu.fault(jsonb_build_object('path', '/api/query', 'count', 2, 'action', 'body', 'body_base64', translate(encode(convert_to(
	'{"status":"success","value":{"state":{"state":"in_progress","progress_message":"Imported t","checkpoint_messages":["Began","Imported t"]}}}',
	'UTF8'), 'base64'), E'\n', ''))) \g /dev/null
SELECT is((SELECT array_agg(m[1]) FROM regexp_matches(notices($$SELECT convex_import('convex', 't', 'SELECT 3 AS n', 'replace')$$), 'NOTICE:  (Began|Imported t)', 'g') AS m),
	'{Began,Imported t}', 'a step that is the state as well is told once');

-- ------------------------------------------------------------------ refused before anything is sent

SELECT is(import('SELECT 1 AS n'), 1::bigint, 'a table to be left alone');
SELECT emu.clear_journal() \g /dev/null
CREATE TABLE refused (call text, wanted text, name text);
INSERT INTO refused VALUES
	($$'convex', 't', 'SELECT 1 AS n', 'replaceAll'$$, '0A000', 'mode replaceAll'),
	($$'convex', 't', 'SELECT 1 AS n', 'Replace'$$, '22023', 'an unknown mode'),
	($$'convex', '_t', 'SELECT 1 AS n'$$, '22023', 'a table that Convex would call otherwise'),
	($$'convex', '', 'SELECT 1 AS n'$$, '22023', 'a table without a name'),
	($$'convex', 'a/b', 'SELECT 1 AS n'$$, '22023', 'a table by its path'),
	($$'convex', NULL, 'SELECT 1 AS n'$$, '22004', 'no table'),
	($$'convex', 't', NULL$$, '22004', 'no query'),
	($$'convex', 't', 'SELECT 1 AS n', NULL$$, '22004', 'no mode'),
	($$'nowhere', 't', 'SELECT 1 AS n'$$, '42704', 'an unknown server'),
	($$'convex', 't', 'SELECT 1 AS n', 'replace', 'biling'$$, 'HV00Q', 'an unknown component'),
	($$'convex', 't', 'SELEKT 1', 'replace'$$, '42601', 'a query that is none'),
	($$'convex', 't', 'CREATE TABLE x ()', 'replace'$$, '22023', 'a command without rows'),
	($$'convex', 't', 'SELECT 1 AS a; SELECT 2 AS a', 'replace'$$, '22023', 'two queries'),
	($$'convex', 't', '', 'replace'$$, '22023', 'an empty query'),
	($$'convex', 't', 'SELECT 1 AS a, 2 AS a', 'replace'$$, '42701', 'two columns of one name'),
	($$'convex', 't', 'SELECT 1 AS _a', 'replace'$$, '42602', 'a field that is Convex''s own'),
	($$'convex', 't', 'SELECT 1 AS "$a"', 'replace'$$, '42602', 'a field that is a marker'),
	($$'convex', 't', 'SELECT 1 AS "ä"', 'replace'$$, '42602', 'a field with other letters'),
	($$'convex', 't', 'SELECT 1 / (3 - n) AS n FROM generate_series(1, 5) AS n', 'replace'$$, '22012', 'a query that fails on the way'),
	($$'convex', 't', 'SELECT repeat(''x'', 1100000) AS n', 'replace'$$, '54000', 'a document over 1 MiB');
SELECT is(state(format('SELECT convex_import(%s)', call)), wanted, name || ' is refused') FROM refused;
SELECT alike(state($$SELECT convex_import('convex', 't', 'SELECT 1e400::numeric AS n', 'replace')$$), '22%', 'a number that no float64 holds is refused');
SELECT is((SELECT count(*) FROM sent WHERE path LIKE 'import/%' OR path LIKE '%import'), 0::bigint, 'and nothing of all that was sent');
SELECT matches(told($$SELECT convex_import('convex', 't', 'SELECT 1 AS n', 'replace', 'biling')$$), 'billing', 'the known components are told');
SELECT results_eq('SELECT documents()', $$ VALUES ('{"n": 1.0}'::jsonb) $$, 'the table is as it was');

-- ------------------------------------------------------------------ keys

SELECT emu.config('{"keys": {"prod:happy-otter-123|importer": ["deployment:backups:import"],
	"prod:happy-otter-123|enough": ["deployment:backups:import", "deployment:backups:view"]}}') \g /dev/null
SELECT emu.server('importer') \g /dev/null
ALTER USER MAPPING FOR CURRENT_USER SERVER importer OPTIONS (SET deploy_key 'prod:happy-otter-123|importer');
SELECT emu.clear_journal() \g /dev/null
SELECT is(state($$SELECT convex_import('importer', 't', 'SELECT 2 AS n', 'replace')$$), '42501', 'a key that may not follow the import is refused');
SELECT results_eq('SELECT path, status FROM sent WHERE path LIKE ''%_import''', $$ VALUES ('cancel_import', 200) $$, 'the import is cancelled, and not begun');
SELECT results_eq('SELECT documents()', $$ VALUES ('{"n": 1.0}'::jsonb) $$, 'and nothing has changed');
SELECT matches(told($$SELECT convex_import('importer', 't', 'SELECT 2 AS n', 'replace')$$), 'deployment:backups:view', 'the missing permission is named');
SELECT is(state($$SELECT convex_import('importer', 't', 'SELECT 2 AS n', 'replace', 'billing')$$), '42501', 'a component that cannot be checked is refused');
ALTER USER MAPPING FOR CURRENT_USER SERVER importer OPTIONS (SET deploy_key 'prod:happy-otter-123|enough');
SELECT is(convex_import('importer', 't', 'SELECT 2 AS n', 'replace'), 1::bigint, 'reading documents is not needed');
ALTER USER MAPPING FOR CURRENT_USER SERVER importer OPTIONS (SET deploy_key 'prod:happy-otter-123|readonly');
SELECT is(state($$SELECT convex_import('importer', 't', 'SELECT 2 AS n', 'replace')$$), '42501', 'a key that only reads is refused');

-- ------------------------------------------------------------------ failures

SELECT is(import('SELECT 1 AS n'), 1::bigint, 'a table to be left alone');
SELECT emu.config('{"schema": {"tables": [{"tableName": "t", "indexes": [], "documentType": {"type": "object", "value": {"n": {"fieldType": {"type": "number"}, "optional": false}}}}], "schemaValidation": true}}') \g /dev/null
SELECT is(state($$SELECT import('SELECT n FROM (VALUES (1), (NULL)) AS v (n)')$$), 'HV00L', 'rows that the schema refuses fail the import');
SELECT isnt(emu.failure($$SELECT import('SELECT n::bigint FROM generate_series(1, 3) AS n')$$) ->> 'detail', NULL, 'with a reason');
SELECT results_eq('SELECT documents()', $$ VALUES ('{"n": 1.0}'::jsonb) $$, 'and the table is as it was');
SELECT emu.config('{"schema": null}') \g /dev/null
SELECT is(state($$SELECT import('SELECT ''nonsense'' AS _id')$$), 'HV00L', 'so do ids that are none');

-- An import that fails while its statement runs is over: nothing is left of it.
SELECT emu.clear_journal() \g /dev/null
SELECT emu.fault('{"action": "apply_then_cut", "path": "/api/import/upload_part"}') \g /dev/null
SELECT is(state($$SELECT import('SELECT 2 AS n')$$), '08006', 'a part whose answer is lost ends the statement');
SELECT is((SELECT count(*) FROM sent WHERE path = 'import/upload_part'), 1::bigint, 'it is not sent again');
SELECT emu.fault('{"action": "apply_then_cut", "path": "/api/import/finish_upload"}') \g /dev/null
SELECT is(state($$SELECT import('SELECT 2 AS n')$$), '08006', 'so does a lost answer to the end of the upload');
SELECT is((SELECT count(*) FROM sent WHERE path = 'import/finish_upload'), 1::bigint, 'which is not sent again either');
SELECT emu.fault('{"action": "status", "status": 500, "path": "/api/query", "count": -1}') \g /dev/null
SELECT is(state($$SELECT import('SELECT 2 AS n')$$), 'HV000', 'a state that cannot be told before the confirmation ends it as well');
SELECT emu.clear_faults() \g /dev/null
SELECT is((SELECT count(*) FROM sent WHERE path = 'perform_import'), 0::bigint, 'none of these has begun');
SELECT is((SELECT count(*) FROM sent WHERE path = 'cancel_import' AND status = 200), 1::bigint, 'and what is known is cancelled');
SELECT results_eq('SELECT documents()', $$ VALUES ('{"n": 1.0}'::jsonb) $$, 'the table is as it was');

SELECT emu.fault('{"action": "apply_then_cut", "path": "/api/perform_import"}') \g /dev/null
SELECT is(import('SELECT 3 AS n'), 1::bigint, 'a lost answer to the confirmation is no harm: it is sent again');
SELECT results_eq('SELECT documents()', $$ VALUES ('{"n": 3.0}'::jsonb) $$, 'and the rows are there once');

-- The end that nobody sees.
SELECT emu.config('{"import_hold": "in_progress"}') \g /dev/null
SELECT emu.fault('[{"action": "status", "status": 500, "path": "/api/query", "skip": 3, "count": -1}]') \g /dev/null
SELECT is(state($$SELECT import('SELECT 4 AS n')$$), 'HV000', 'an import that cannot be followed any more is cancelled');
SELECT emu.clear_faults() \g /dev/null
SELECT results_eq('SELECT documents()', $$ VALUES ('{"n": 3.0}'::jsonb) $$, 'and has changed nothing');
SELECT emu.fault('[{"action": "status", "status": 500, "path": "/api/query", "skip": 3, "count": -1}, {"action": "status", "status": 500, "path": "/api/cancel_import", "count": -1}]') \g /dev/null
SELECT is(state($$SELECT import('SELECT 4 AS n')$$), '08007', 'when it cannot be cancelled either, its end is unknown');
SELECT emu.clear_faults() \g /dev/null
SELECT emu.config('{"import_hold": null}') \g /dev/null
SELECT ok(emu.wait_until($$(SELECT array_agg(d -> 'n') FROM documents() AS d) = '{4.0}'$$), 'for it may go on');

-- A transaction that is rolled back does not take the import with it.
BEGIN;
SELECT is(import('SELECT 5 AS n'), 1::bigint, 'an import inside of a transaction');
ROLLBACK;
SELECT results_eq('SELECT documents()', $$ VALUES ('{"n": 5.0}'::jsonb) $$, 'is done when it returns');

SELECT * FROM finish();
