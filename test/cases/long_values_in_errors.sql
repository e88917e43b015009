-- The refusal of the json number 1e131000 was a message of 131 kB. A message shows an excerpt of what it is about.

\ir ../pgtap/lib/setup.sql
\ir ../pgtap/lib/writes.sql

SELECT plan(18);

SELECT emu.server(), emu.index('t', '{k}'), emu.index('d', '{k}') \g /dev/null
CREATE FOREIGN TABLE t (k text, j jsonb, js json, n numeric, i numeric OPTIONS (convex_type 'int64'), s text OPTIONS (convex_type 'int64'),
	f text OPTIONS (convex_type 'float64')) SERVER convex OPTIONS (primary_key 'k');
CREATE FOREIGN TABLE d (k text, document jsonb OPTIONS (column_name '*')) SERVER convex OPTIONS (primary_key 'k');
SELECT is(failure ->> 'sqlstate', 'HV004', what || ' is refused'), cmp_ok(length(failure::text), '<', 1200, 'in a few lines')
FROM (VALUES ('a json number', $$INSERT INTO t (k, j) VALUES ('a', '1e131000')$$),
	('a number in json', $$INSERT INTO t (k, js) VALUES ('a', '[1e131000]')$$),
	('a numeric', $$INSERT INTO t (k, n) VALUES ('a', 1e131000)$$),
	('a numeric as int64', $$INSERT INTO t (k, i) VALUES ('a', 1e131000)$$),
	('a text as int64', $$INSERT INTO t (k, s) VALUES ('a', repeat('9', 100000))$$),
	('a name of a field', $$INSERT INTO t (k, j) VALUES ('a', jsonb_build_object(repeat('x', 100000), 1))$$),
	('a name in a document', $$INSERT INTO d (k, document) VALUES ('a', jsonb_build_object('_' || repeat('x', 1000), 1))$$)) AS cases (what, statement),
	emu.failure(statement) AS failure;

-- Two rows with one key of 100 kB; and a text that another type's input function quotes.
INSERT INTO t (k, j) VALUES ('a', '1'), ('b', '2');
SELECT cmp_ok(length(emu.failure($$UPDATE t SET k = repeat('x', 100000)$$)::text), '<', 1200, 'a key that two rows would have is shown in part');
SELECT * FROM emu.insert('u', jsonb_build_object('x', repeat('x', 100000))) \g /dev/null
CREATE FOREIGN TABLE u (x uuid) SERVER convex;
SELECT emu.failure('SELECT * FROM u') AS failure \gset
SELECT is(:'failure'::jsonb ->> 'sqlstate', 'HV004', 'a text that the type refuses'),
	cmp_ok(length(:'failure'), '<', 1200, 'is shown in part');
ALTER FOREIGN TABLE u OPTIONS (ADD on_conversion_error 'null');
SELECT is((SELECT x FROM u), NULL, 'on_conversion_error holds for it');
SELECT * FROM finish();
