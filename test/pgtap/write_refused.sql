-- What is refused is refused before anything is sent.

\ir lib/setup.sql
\ir lib/writes.sql
\pset fieldsep '\n'
SELECT plan(117);

SELECT emu.server(), emu.server('second') \g /dev/null
SELECT emu.index('keyed', '{k}'), emu.index('dedup', '{k}', 'airbyte') \g /dev/null
SELECT emu.insert('keyed', '{"k": "a", "n": 1}', '{"k": "b", "n": 2}'), emu.mutate('[{"op": "insert", "table": "inside", "component": "billing", "doc": {"k": "a"}}, {"op": "insert", "table": "plain", "doc": {"k": "a"}}]') \g /dev/null
CREATE FOREIGN TABLE keyed (k text, n float8) SERVER convex OPTIONS (primary_key 'k');
CREATE FOREIGN TABLE dedup (k text, n float8) SERVER convex OPTIONS (primary_key 'k', import_route 'airbyte');
CREATE FOREIGN TABLE plain (k text, n float8) SERVER convex;
CREATE FOREIGN TABLE inside (k text, n float8) SERVER convex OPTIONS (component 'billing');
CREATE FOREIGN TABLE inside_keyed (k text, n float8) SERVER convex OPTIONS (table_name 'inside', component 'billing', primary_key 'k');
CREATE FOREIGN TABLE still (k text, n float8) SERVER convex OPTIONS (table_name 'keyed', primary_key 'k', updatable 'false', truncatable 'false');
CREATE FOREIGN TABLE elsewhere (k text, n float8) SERVER second OPTIONS (table_name 'plain');
CREATE FOREIGN TABLE keyless (n float8) SERVER convex OPTIONS (table_name 'keyed', primary_key 'k');
CREATE FOREIGN TABLE half_key (a text, n float8) SERVER convex OPTIONS (table_name 'keyed', primary_key 'a,b');
CREATE TABLE here (k text, n float8);

-- state: the SQLSTATE, or what it is like; hint: what the hint contains
CREATE FUNCTION refused(what text, state text, hint text, VARIADIC statements text[]) RETURNS SETOF text LANGUAGE plpgsql AS
$$
DECLARE
	failure jsonb;
BEGIN
	PERFORM emu.clear_journal();
	failure := emu.outcome(VARIADIC statements);
	RETURN NEXT matches(failure ->> 'sqlstate', '^' || state || '$', what || ' is refused');
	RETURN NEXT is((SELECT count(*) FROM emu.writes()), 0::bigint, 'and nothing is sent');
	IF hint IS NOT NULL THEN
		RETURN NEXT matches(failure ->> 'hint', hint, 'with a hint');
	END IF;
END
$$;

-- ------------------------------------------------------------------ kinds of statements

SELECT refused('UPDATE without a primary key', '(0A000|55000)', 'primary_key', 'UPDATE plain SET n = 1');
SELECT refused('DELETE without a primary key', '(0A000|55000)', 'primary_key', 'DELETE FROM plain');
SELECT is((SELECT count(*) FROM emu.journal()), 0::bigint, 'without a request of any kind');
SELECT refused('UPDATE by the dedup import', '(0A000|55000)', 'import_route', 'UPDATE dedup SET n = 1');
SELECT refused('DELETE by the dedup import', '(0A000|55000)', 'import_route', 'DELETE FROM dedup');
SELECT refused(format('ON CONFLICT %s on %s', what, name), '0A000', 'primary_key', format('INSERT INTO %s VALUES (''a'', 1) ON CONFLICT %s', name, what))
FROM unnest(ARRAY['plain', 'keyed', 'dedup']) AS name, unnest(ARRAY['DO NOTHING']) AS what;
SELECT refused(format('ON CONFLICT (k) %s on %s', what, name), '(0A000|42P10)', NULL, format('INSERT INTO %s VALUES (''a'', 1) ON CONFLICT (k) %s', name, what))
FROM unnest(ARRAY['plain', 'keyed', 'dedup']) AS name, unnest(ARRAY['DO NOTHING', 'DO UPDATE SET n = 2']) AS what;
SELECT refused('WHERE CURRENT OF', '0A000', NULL, 'DECLARE c CURSOR FOR SELECT * FROM keyed', 'MOVE c', 'UPDATE keyed SET n = 1 WHERE CURRENT OF c');
SELECT refused('INSERT into a component', '0A000', NULL, 'INSERT INTO inside VALUES (''x'', 1)');
SELECT refused('INSERT into a keyed table of a component', '0A000', NULL, 'INSERT INTO inside_keyed VALUES (''x'', 1)');
SELECT refused('UPDATE in a component', '0A000', NULL, 'UPDATE inside_keyed SET n = 1');
SELECT refused('DELETE in a component', '0A000', NULL, 'DELETE FROM inside_keyed');
SELECT refused('TRUNCATE in a component', '0A000', NULL, 'TRUNCATE inside');
SELECT refused('COPY into a component', '(0A000|55000)', NULL, 'COPY inside FROM PROGRAM ''echo x,1'' (FORMAT csv)');
SELECT refused('INSERT with updatable false', '55000', NULL, 'INSERT INTO still VALUES (''x'', 1)');
SELECT refused('UPDATE with updatable false', '55000', NULL, 'UPDATE still SET n = 1');
SELECT refused('DELETE with updatable false', '55000', NULL, 'DELETE FROM still');
SELECT refused('TRUNCATE with truncatable false', '(0A000|55000)', NULL, 'TRUNCATE still');
SELECT refused('INSERT in a read-only transaction', '25006', NULL, 'SET TRANSACTION READ ONLY', 'INSERT INTO plain VALUES (''x'', 1)');
SELECT refused('TRUNCATE RESTART IDENTITY of a foreign table with updatable false', '(0A000|55000)', NULL, 'TRUNCATE still RESTART IDENTITY');

SELECT convex_snapshot('convex') AS ts \gset
SELECT refused('UPDATE under convex_fdw.snapshot', '25006', NULL, format('SET LOCAL convex_fdw.snapshot = %L', :'ts'), 'UPDATE keyed SET n = 9');
SELECT refused('DELETE under convex_fdw.snapshot', '25006', NULL, format('SET LOCAL convex_fdw.snapshot = %L', :'ts'), 'DELETE FROM keyed');

-- ------------------------------------------------------------------ keys

SELECT refused('a NULL key', '(22...|23502)', NULL, 'INSERT INTO keyed (n) VALUES (1)');
SELECT refused('a NULL key in the second row', '(22...|23502)', NULL, 'INSERT INTO keyed VALUES (''x'', 1), (NULL, 2)');
SELECT refused('a NULL key of the dedup import', '(22...|23502)', NULL, 'INSERT INTO dedup (n) VALUES (1)');
SELECT refused('a key set to NULL', '(22...|23502)', NULL, 'UPDATE keyed SET k = NULL WHERE k = ''a''');
SELECT refused('INSERT into a table without its key column', '23502', 'primary_key', 'INSERT INTO keyless VALUES (1)');
SELECT refused('INSERT into a table with half of its key', '23502', 'primary_key', 'INSERT INTO half_key VALUES (''x'', 1)');
SELECT is(emu.sqlstate('DELETE FROM keyless WHERE n = 2'), '00000', 'DELETE finds the key in the document');

-- ------------------------------------------------------------------ system columns

SELECT ok(emu.failure('SELECT xmin FROM app.keyed') IS NOT NULL, 'xmin is an error');
SELECT ok(emu.failure('SELECT cmax FROM app.keyed') IS NOT NULL, 'so is cmax');
SELECT is((SELECT array_agg(DISTINCT tableoid::regclass::text) FROM keyed), '{keyed}', 'tableoid works');
SELECT lives_ok('SELECT ctid FROM app.keyed', 'ctid can be selected');
SELECT emu.clear_journal() \g /dev/null
BEGIN;
SELECT k FROM keyed FOR UPDATE \g /dev/null
SELECT k FROM keyed FOR SHARE NOWAIT \g /dev/null
COMMIT;
SELECT is(emu.count_writes(), 0, 'SELECT FOR UPDATE takes no lock in Convex');

-- ------------------------------------------------------------------ transactions

SELECT refused('PREPARE TRANSACTION with pending writes', '0A000', NULL, 'INSERT INTO plain VALUES (''x'', 1)', 'PREPARE TRANSACTION ''p''');
SELECT refused('PREPARE TRANSACTION with a pending TRUNCATE', '0A000', NULL, 'TRUNCATE plain', 'PREPARE TRANSACTION ''p''');
SELECT is(emu.sqlstate('INSERT INTO here VALUES (''x'', 1)', 'SAVEPOINT s', 'INSERT INTO plain VALUES (''x'', 1)', 'ROLLBACK TO s', 'PREPARE TRANSACTION ''p''') <> '0A000', true, 'without any it is none of ours');
SELECT emu.failure($$ SELECT dblink_exec('writer', 'ROLLBACK PREPARED ''p''') $$) \g /dev/null

SELECT refused(what || ' under strict_atomic_writes', '(0A000|25...|54000|55000|HV...)', NULL, VARIADIC ARRAY['SET LOCAL convex_fdw.strict_atomic_writes = on'] || statements)
FROM (VALUES ('writing to two servers', ARRAY['INSERT INTO plain VALUES (''x'', 1)', 'INSERT INTO elsewhere VALUES (''x'', 1)']),
	('writing by two routes', ARRAY['INSERT INTO plain VALUES (''x'', 1)', 'INSERT INTO keyed VALUES (''x'', 1)']),
	('TRUNCATE beside an INSERT', ARRAY['TRUNCATE plain', 'INSERT INTO plain VALUES (''x'', 1)']),
	('an INSERT before a TRUNCATE', ARRAY['INSERT INTO keyed VALUES (''x'', 1)', 'TRUNCATE plain'])) AS s (what, statements);
SELECT is(emu.sqlstate('SET LOCAL convex_fdw.strict_atomic_writes = on', 'INSERT INTO plain VALUES (''x'', 1)', 'SAVEPOINT s', 'INSERT INTO elsewhere VALUES (''x'', 1)', 'ROLLBACK TO s', 'INSERT INTO dedup VALUES (''x'', 1)'), '00000',
	'what fits one request is not refused: rolled back writes do not count, two tables of one route are one request');
SELECT is(emu.count_writes(), 1, 'it is one');
SELECT is(emu.sqlstate('INSERT INTO plain VALUES (''y'', 1)', 'INSERT INTO elsewhere VALUES (''y'', 1)'), '00000', 'by default two servers are written');
SELECT is(emu.count_writes(), 2, 'each by its request');
SELECT is(emu.sqlstate('INSERT INTO plain VALUES (''y'', 1)', 'INSERT INTO keyed VALUES (''y'', 1)', 'INSERT INTO plain VALUES (''z'', 1)'), '00000', 'and two routes');
SELECT is((SELECT array_agg(request ->> 'path' ~ 'airbyte' ORDER BY n) FROM emu.writes() WITH ORDINALITY AS s (request, n)), '{t,f,t}', 'in statement order');

-- ------------------------------------------------------------------ rights

CREATE ROLE chapter_write_refused;
GRANT USAGE ON SCHEMA app TO chapter_write_refused;
GRANT ALL ON plain, keyed TO chapter_write_refused;
SELECT refused('writing without a user mapping', '(HV...|42...)', NULL, 'SET LOCAL ROLE chapter_write_refused', 'INSERT INTO plain VALUES (''x'', 1)');
DROP OWNED BY chapter_write_refused;
DROP ROLE chapter_write_refused;

-- A key that may read only: Convex refuses, and says which action is missing.
SELECT emu.config(jsonb_build_object('keys', jsonb_build_object('prod:happy-otter-123|' || 'importer', '["deployment:backups:import"]'::jsonb))) \g /dev/null
ALTER USER MAPPING FOR CURRENT_USER SERVER convex OPTIONS (SET deploy_key 'prod:happy-otter-123|readonly');
SELECT outcome AS refused FROM emu.outcome('INSERT INTO plain VALUES (''x'', 1)') AS outcome \gset
SELECT is(:'refused'::jsonb ->> 'sqlstate', '42501', 'a key without deployment:backups:import is told');
SELECT matches(:'refused'::text, 'deployment:backups:import', 'the action');
ALTER USER MAPPING FOR CURRENT_USER SERVER convex OPTIONS (SET deploy_key 'prod:happy-otter-123|importer');
SELECT is(emu.sqlstate('INSERT INTO plain VALUES (''by importer'', 1)'), '00000', 'a key with that action alone can INSERT');
SELECT is(emu.sqlstate('INSERT INTO keyed VALUES (''by importer'', 1)'), '00000', 'also into keyed tables');
SELECT refused('an UPDATE with it', '42501', NULL, 'UPDATE keyed SET n = 1');
SELECT emu.config('{"streaming_export": false}') \g /dev/null
ALTER USER MAPPING FOR CURRENT_USER SERVER convex OPTIONS (DROP deploy_key);
SELECT format('ALTER USER MAPPING FOR CURRENT_USER SERVER convex OPTIONS (ADD deploy_key %L)', emu.key()) \gexec
SELECT is(emu.sqlstate('INSERT INTO plain VALUES (''ungated'', 1)'), '00000', 'without streaming export INSERT works');
SELECT refused('UPDATE', '(42501|0A000|HV...)', '(?i)writing|INSERT', 'UPDATE keyed SET n = 1');
SELECT emu.config('{"streaming_export": true}') \g /dev/null

-- ------------------------------------------------------------------ EXPLAIN

SELECT emu.clear_journal() \g /dev/null
EXPLAIN (VERBOSE) INSERT INTO plain VALUES ('x', 1) \g /dev/null
EXPLAIN (VERBOSE) UPDATE keyed SET n = 1 \g /dev/null
EXPLAIN (VERBOSE) DELETE FROM keyed \g /dev/null
SELECT is((SELECT count(*) FROM emu.journal()), 0::bigint, 'EXPLAIN of a write sends nothing');
SELECT ok(NOT EXISTS (SELECT FROM emu.dump('keyed') AS d WHERE d ->> 'k' = 'x'), 'nothing of what was refused is in Convex');

SELECT * FROM finish();
