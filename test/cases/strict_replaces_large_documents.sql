-- With convex_fdw.strict_atomic_writes an INSERT by key of 900 small rows over
-- documents of 30 kB was one request that Convex committed as four transactions:
-- it counts what it reads of the old ones. The sizes are found out, and what does
-- not fit is refused before anything is sent.
\ir ../pgtap/lib/setup.sql
\ir ../pgtap/lib/writes.sql
SELECT plan(11);

SELECT emu.server(), emu.index('wide', '{id}') \g /dev/null
SELECT count(*) FROM emu.insert('wide', VARIADIC ARRAY(SELECT jsonb_build_object('id', n, 'text', repeat('x', 30000)) FROM generate_series(1, 900) AS n)) \g /dev/null
CREATE FOREIGN TABLE wide (id float8, text text) SERVER convex OPTIONS (primary_key 'id');
CREATE FUNCTION commits() RETURNS bigint LANGUAGE sql AS $$ SELECT sum(jsonb_array_length(w -> 'commits')) FROM emu.writes() AS w $$;

SELECT emu.clear_journal() \g /dev/null
SELECT is(emu.outcome('SET LOCAL convex_fdw.strict_atomic_writes = on', 'INSERT INTO wide SELECT n, ''small'' FROM generate_series(1, 900) AS n') - 'hint',
	'{"sqlstate": "54000", "message": "writes do not fit into one Convex transaction", "detail": "They replace documents of more than 6291456 bytes, which Convex reads.  Nothing was sent."}', 'strict refuses to replace 27 MB');
SELECT is(emu.count_writes(), 0, 'before anything is sent');
SELECT is(emu.sqlstate('SET LOCAL convex_fdw.strict_atomic_writes = on', 'INSERT INTO wide SELECT n, ''small'' FROM generate_series(1, 200) AS n'), '00000', 'it allows 6 MB');
SELECT is(commits(), 1::bigint, 'which are one transaction');
SELECT is(emu.sqlstate('SET LOCAL convex_fdw.strict_atomic_writes = on', 'INSERT INTO wide SELECT n, ''new'' FROM generate_series(1001, 1900) AS n'), '00000', 'and any number of new rows');
SELECT is(commits(), 2::bigint, 'which are one, too');
SELECT is(emu.sqlstate('SET LOCAL convex_fdw.strict_atomic_writes = on', 'UPDATE wide SET text = ''less'' WHERE id > 300 AND id <= 900'), '54000', 'the rows of an UPDATE are known');
SELECT emu.clear_journal() \g /dev/null
SELECT is(emu.sqlstate('SET LOCAL convex_fdw.strict_atomic_writes = on', 'INSERT INTO wide SELECT n, ''few'' FROM generate_series(301, 306) AS n'), '00000', 'a few rows fit however large they were');
SELECT is(count(*), 0::bigint, 'so that nothing is read for them') FROM emu.journal('/api/list_snapshot');
SELECT is(emu.sqlstate('INSERT INTO wide SELECT n, ''small'' FROM generate_series(1, 900) AS n'), '00000', 'otherwise Convex may divide it');
SELECT cmp_ok(commits(), '>', 2::bigint, 'as it does');

SELECT * FROM finish();
