-- Documents {id: 3} hold float64, a bigint column writes int64: convex_ensure_primary_key() was silent, and INSERT of 3 made a second
-- document. The key's type is compared with what the column writes: 42804.

\ir ../pgtap/lib/setup.sql
\ir ../pgtap/lib/writes.sql

SELECT plan(29);

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
SELECT * FROM finish();
