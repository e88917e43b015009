-- A document of 1,023 or 1,024 fields was sent, and refused by Convex (HV00L): an object has at most 1,024, and Convex adds _id and
-- _creationTime before it counts. It is refused before sending (54000), on every route.

\ir ../pgtap/lib/setup.sql
\ir ../pgtap/lib/writes.sql

SELECT plan(20);

SELECT emu.server(), emu.index('keyed', '{f1}'), emu.index('patched', '{f1}') \g /dev/null
CREATE FUNCTION fields(n int) RETURNS jsonb LANGUAGE sql AS $$ SELECT jsonb_object_agg('f' || i, i) FROM generate_series(1, n) AS i $$;
CREATE FOREIGN TABLE appended (d jsonb OPTIONS (column_name '*')) SERVER convex;
CREATE FOREIGN TABLE keyed (d jsonb OPTIONS (column_name '*')) SERVER convex OPTIONS (primary_key 'f1');
CREATE FOREIGN TABLE patched (f1 int, more int, d jsonb OPTIONS (column_name '*')) SERVER convex OPTIONS (primary_key 'f1');

SELECT lives_ok(format('INSERT INTO %I SELECT app.fields(1022)', name), '1,022 fields are taken, ' || name),
	is(emu.failure(format('INSERT INTO %I SELECT app.fields(1023)', name)) ->> 'sqlstate', '54000', '1,023 are not'),
	is(emu.failure(format('INSERT INTO %I SELECT app.fields(1024)', name)) ->> 'hint', 'Convex allows at most 1022.', 'nor are 1,024'),
	lives_ok(format($$INSERT INTO %I SELECT jsonb_build_object('f1', 1, 'o', app.fields(1024))$$, name), 'an object within may have 1,024'),
	is(emu.failure(format($$INSERT INTO %I SELECT jsonb_build_object('f1', 1, 'o', app.fields(1025))$$, name)) ->> 'sqlstate', '54000', 'and no more')
FROM unnest('{appended,keyed}'::text[]) AS name;

-- An UPDATE that adds a field.
INSERT INTO patched (d) SELECT fields(1022);
SELECT is(emu.failure('UPDATE patched SET more = 1') ->> 'sqlstate', '54000', 'an UPDATE may not add one');
SELECT lives_ok('UPDATE patched SET d = d - ''f5'', more = 1', 'unless another goes');
SELECT is((SELECT count(*) FROM patched, jsonb_object_keys(d)), 1024::bigint, 'so there are as many as Convex takes');

-- An import: _id and _creationTime may be given, and count once.
CREATE FUNCTION import(n int, system text DEFAULT '') RETURNS text LANGUAGE plpgsql AS $$
DECLARE result text;
BEGIN
	SELECT emu.failure(format('SELECT convex_import(''convex'', ''imported'', %L, ''replace'')',
		'SELECT ' || system || string_agg(format('%s AS f%1$s', i), ', '))) ->> 'sqlstate' INTO result FROM generate_series(1, n) AS i;
	RETURN coalesce(result, '00000');
END $$;
SELECT is(import(1022), '00000', 'an import takes 1,022'), is(import(1023), '54000', 'and not 1,023');
SELECT is(import(1022, '1700000000000.5::float8 AS "_creationTime", '), '00000', 'with the time of creation as well'),
	is(import(1023, '1700000000000.5::float8 AS "_creationTime", '), '54000', 'but no more');
INSERT INTO keyed SELECT jsonb_build_object('f1', 7, 't', repeat('x', 1048576 - 61 - 2 - 12 - 2 - 2));
SELECT is((SELECT count(*) FROM keyed WHERE d ? 't'), 1::bigint, 'a document of just 1 MiB is taken');
SELECT is(convex_import('convex', 'keyed', 'SELECT "_id", "_creationTime", d -> ''t'' AS t, 7::float8 AS f1 FROM (SELECT d ->> ''_id'' AS "_id", (d ->> ''_creationTime'')::float8 AS "_creationTime", d FROM app.keyed WHERE d ? ''t'') AS s', 'replace'),
	1::bigint, 'by an import with its _id, too');
SELECT is(emu.failure($$INSERT INTO app.keyed SELECT jsonb_build_object('f1', 8, 't', repeat('x', 1048576 - 61 - 2 - 12 - 2 - 1))$$) ->> 'sqlstate', '54000', 'and a byte more is not');
SELECT * FROM finish();
