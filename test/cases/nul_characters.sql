-- Writing json with "\u0000" gave PostgreSQL's raw error, reading U+0000 into jsonb hinted at jsonb, and the demonstration of a backup
-- with such strings stopped. The hint of each says what helps; the demonstration goes on.

\ir ../pgtap/lib/setup.sql
\ir ../pgtap/lib/writes.sql

SELECT plan(16);

SELECT emu.server(), emu.index('t', '{k}') \g /dev/null
CREATE FOREIGN TABLE t (k text, j json, js json[]) SERVER convex OPTIONS (primary_key 'k');
SELECT is(failure ->> 'sqlstate', 'HV004', statement || ' is refused'), matches(failure ->> 'hint', 'Take "\\u0000" out', 'with a hint')
FROM unnest(ARRAY[$$INSERT INTO t (k, j) VALUES ('a', '"x\u0000"')$$, $$INSERT INTO t (k, j) VALUES ('a', '{"x\\\u0000": 1}')$$,
	$$INSERT INTO t (k, js) VALUES ('a', ARRAY['["\u0000"]'::json])$$]) AS statement, emu.failure(statement) AS failure;
SELECT lives_ok($$INSERT INTO t (k, j) VALUES ('a', '"\\u0000"')$$, 'a backslash before u0000 is no U+0000');
SELECT is((SELECT j::text FROM t), '"\\u0000"', 'and stays');
SELECT matches(emu.failure($$UPDATE t SET j = '"\u0000"'$$) ->> 'hint', 'Take "\\u0000" out', 'nor can an UPDATE write it');

SELECT emu.mutate(jsonb_build_array(jsonb_build_object('op', 'insert', 'table', 'u', 'doc', jsonb_build_object('a', 'x<nul>', 'b', jsonb_build_array('<nul>'))))) \g /dev/null
SELECT emu.fault('{"action": "edit", "find": "<nul>", "replace": "\\u0000", "count": -1}') \g /dev/null
CREATE FOREIGN TABLE u (a text, b jsonb, words text[] OPTIONS (column_name 'b'), d jsonb OPTIONS (column_name '*'), j json OPTIONS (column_name 'b')) SERVER convex;
SELECT is(failure ->> 'sqlstate', 'HV004', format('column %s refuses it', name)), matches(failure ->> 'hint', 'nul_handling .* ''replace'' or ''strip''', 'and hints at the option')
FROM unnest('{a,b}'::text[]) AS name, emu.failure(format('SELECT %I FROM u', name)) AS failure;
SELECT ok(bool_and(failure ->> 'hint' LIKE '%nul_handling%'), 'so do an array and a whole document')
FROM unnest('{words,d}'::text[]) AS name, emu.failure(format('SELECT %I FROM u', name)) AS failure;
SELECT is((SELECT j::text FROM u), '["\u0000"]', 'a json column keeps the text');

-- make demo BACKUP=..
DROP EXTENSION convex_fdw CASCADE;
DROP SCHEMA app CASCADE;
SELECT emu.key() AS deploy_key \gset
\o /dev/null
\ir ../run/demo-backup.sql
\x off
\pset format unaligned
\o
SELECT is((SELECT a FROM app.u), e'x\uFFFD', 'the demonstration of a backup shows it');
SELECT * FROM finish();
