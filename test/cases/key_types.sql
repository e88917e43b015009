-- Documents {id: 3} hold float64, a bigint column writes int64: convex_ensure_primary_key() was silent, and INSERT of 3 made a second
-- document. The key's type is compared with what the column writes: 42804.

\ir ../pgtap/lib/setup.sql
\ir ../pgtap/lib/writes.sql

SELECT plan(48);

SELECT emu.server() \g /dev/null
CREATE FUNCTION ensure(columns text, key text DEFAULT 'id', table_name text DEFAULT 'k') RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
	failure jsonb;
BEGIN
	EXECUTE format('CREATE FOREIGN TABLE app.probe (%s) SERVER convex OPTIONS (table_name %L, primary_key %L)', columns, table_name, key);
	failure := emu.failure('SELECT convex_ensure_primary_key(''app.probe'')');
	DROP FOREIGN TABLE app.probe;
	RETURN coalesce(failure, '{"sqlstate": "00000"}');
END $$;

SELECT emu.insert('k', '{"id": 3}') AS _id \gset
SELECT ensure('id bigint') AS failure \gset
SELECT is(:'failure'::jsonb ->> 'sqlstate', '42804', 'int64 beside float64 is refused'),
	is(:'failure'::jsonb ->> 'hint', 'Set the column''s option convex_type to ''float64''.', 'with what helps'),
	matches(:'failure'::jsonb ->> 'detail', format('"id" of document "%s" has float64', :'_id'), 'and the document');
SELECT is(failure ->> 'sqlstate', state, columns), is(failure ->> 'hint', hint, '... hint')
FROM (VALUES ('id bigint OPTIONS (convex_type ''float64'')', '00000', NULL), ('id int', '00000', NULL), ('id numeric', '00000', NULL),
	('id int OPTIONS (convex_type ''int64'')', '42804', 'Set the column''s option convex_type to ''float64''.'),
	('id text', '42804', 'Set the column''s option convex_type to ''float64''.'), ('id uuid', '42804', 'Set the column''s option convex_type to ''float64''.'),
	('id timestamptz', '00000', NULL), ('id timestamptz OPTIONS (convex_type ''string'')', '42804', 'Set the column''s option convex_type to ''float64''.'),
	('id bytea', '42804', 'Give the column a type that is float64 in Convex.'), ('id jsonb', '00000', NULL),
	('document jsonb OPTIONS (column_name ''*'')', '00000', NULL)) AS cases (columns, state, hint), ensure(columns) AS failure;

SELECT emu.insert('deep', '{"o": {"n": 1}, "t": "a"}') \g /dev/null
SELECT is(ensure('n bigint OPTIONS (column_name ''o.n'', path ''true''), t text', 'o.n,t', 'deep') ->> 'sqlstate', '42804', 'a nested field of a key of two'),
	is(ensure('n float8 OPTIONS (column_name ''o.n'', path ''true''), t bytea', 'o.n,t', 'deep') ->> 'hint', 'Give the column a type that is string in Convex.', 'each of them'),
	is(ensure('n float8 OPTIONS (column_name ''o.n'', path ''true''), t text', 'o.n,t', 'deep') ->> 'sqlstate', '00000', 'and both right');
SELECT emu.mutate('[{"op": "create_table", "table": "empty"}]') \g /dev/null
SELECT is(ensure('id bigint', 'id', 'empty') ->> 'sqlstate', '00000', 'an empty table has no type');

-- The same where nobody has called it: the first INSERT of a session looks at one document.
SELECT emu.index('k', '{id}') \g /dev/null
CREATE FOREIGN TABLE k (id bigint, v int) SERVER convex;
ALTER FOREIGN TABLE k OPTIONS (ADD primary_key 'id');
CREATE FUNCTION looks() RETURNS bigint LANGUAGE sql AS $$ SELECT count(*) FROM emu.journal('/api/query') $$;
SELECT emu.clear_journal() \g /dev/null
SELECT is(emu.failure('INSERT INTO k VALUES (3, 1)') ->> 'sqlstate', '42804', 'INSERT of int64 beside float64 is refused'),
	is(emu.failure('INSERT INTO k VALUES (3, 1)') ->> 'hint', 'Set the column''s option convex_type to ''float64''.', 'each time, with the hint');
SELECT is(emu.failure('UPDATE k SET id = 4') ->> 'sqlstate', '42804', 'so is an UPDATE of the key'),
	is(emu.failure('UPDATE k SET id = id, v = 2') ->> 'sqlstate', '42804', 'to what it was as well');
SELECT lives_ok('UPDATE k SET v = 2', 'an UPDATE of other fields takes the key as it is');
SELECT is(emu.documents('k'), '[{"id": 3, "v": 2}]', 'no second document was made');
ALTER FOREIGN TABLE k ALTER id OPTIONS (ADD convex_type 'float64');
SELECT emu.clear_journal() \g /dev/null
INSERT INTO k VALUES (3, 3), (4, 4);
SELECT is(emu.documents('k'), '[{"id": 3, "v": 3}, {"id": 4, "v": 4}]', 'the right type replaces');
INSERT INTO k VALUES (3, 5);
SELECT is(looks(), 1::bigint, 'a session looks once'), is((SELECT count(*) FROM emu.writes()), 2::bigint, 'and writes as ever');

-- What it does not look at.
CREATE FOREIGN TABLE e (id bigint, v int) SERVER convex OPTIONS (table_name 'e', primary_key 'id');
CREATE FOREIGN TABLE c (id bigint, v int) SERVER convex OPTIONS (table_name 'k', primary_key 'id', conflict_check 'false');
SELECT emu.index('e', '{id}'), emu.insert('e', '{"id": 1}'), emu.clear_journal() \g /dev/null
BEGIN;
TRUNCATE e;
INSERT INTO e VALUES (1, 1);
COMMIT;
SELECT is(emu.documents('e'), jsonb_build_array(jsonb_build_object('id', emu.int64(1), 'v', 1)), 'a transaction may empty the table first'), is(looks(), 0::bigint, 'which tells nothing of what was');
SELECT lives_ok('INSERT INTO c VALUES (9, 9)', 'conflict_check ''false'' leaves the look out'), is(looks(), 0::bigint, 'it does');
DELETE FROM c WHERE id = 9;

-- Sessions of their own: an UPDATE's scan has seen the types; a server that does not tell.
CREATE FUNCTION session(VARIADIC statements text[]) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	result text;
BEGIN
	PERFORM public.dblink_disconnect('writer');
	PERFORM public.dblink_connect('writer', format('host=%s port=%s dbname=%s user=postgres options=-csearch_path=app,public',
		split_part(current_setting('unix_socket_directories'), ',', 1), current_setting('port'), current_database()));
	PERFORM emu.clear_journal();
	result := emu.sqlstate(VARIADIC statements);
	RETURN result || ' ' || looks();
END $$;
SELECT is(session('INSERT INTO k VALUES (5, 5)', 'INSERT INTO k VALUES (6, 6)'), '00000 1', 'another session looks for itself');
SELECT is(session('UPDATE k SET v = 6 WHERE id = 5', 'INSERT INTO k VALUES (7, 7)'), '00000 0', 'not where an UPDATE has read the table');
SELECT emu.fault('{"action": "status", "status": 500, "path": "/api/query"}') \g /dev/null
SELECT is(session('INSERT INTO k VALUES (5, 7)'), '00000 1', 'a failure of the look is none of the INSERT, and is not repeated');
SELECT emu.fault('{"action": "status", "status": 404, "path": "/api/query"}') \g /dev/null
SELECT is(session('INSERT INTO k VALUES (5, 8)'), '00000 1', 'nor is an older server''s answer');
SELECT emu.fault('{"action": "body", "path": "/api/query", "body": "{\"status\":\"success\",\"value\":{\"page\":[{\"error\":\"x\",\"filter\":0.0}]}}"}') \g /dev/null
SELECT is(session('INSERT INTO k VALUES (5, 9)'), '00000 1', 'an error in the page is no document');
SELECT is((SELECT v FROM k WHERE id = 5), 9, 'all were written');
SELECT * FROM finish();
