-- Seen: with a bytea primary key, INSERT of '\x01' replaced the document whose
-- key is '\x0100'. Convex finds a key by a prefix of its bytes, and '\x0100' is
-- written as '\x01', its end, and more; so such a value cannot be a key's end.
\ir ../pgtap/lib/setup.sql
\ir ../pgtap/lib/writes.sql
SELECT plan(8);

SELECT emu.server() \g /dev/null
SELECT emu.index('short', '{k}'), emu.index('long', '{k,n}') \g /dev/null
CREATE FOREIGN TABLE short (k bytea, v text) SERVER convex OPTIONS (primary_key 'k');
CREATE FOREIGN TABLE long (k bytea, n float8, v text) SERVER convex OPTIONS (primary_key 'k,n');
INSERT INTO short VALUES ('\x01', 'a'), ('\x', 'b');

SELECT is(emu.outcome('INSERT INTO short VALUES (''\x0100'', ''c'')') ->> 'sqlstate', 'HV004', 'a key that ends with a field of bytes has no zero byte');
SELECT is(emu.outcome('UPDATE short SET k = ''\x0001'' WHERE v = ''a''') ->> 'sqlstate', 'HV004', 'nor does UPDATE make one');
SELECT matches(emu.outcome('INSERT INTO short VALUES (''\x00'', ''c'')') ->> 'hint', 'text column', 'the hint says what can be done');
SELECT results_eq('SELECT k, v FROM short ORDER BY v', $$ VALUES ('\x01'::bytea, 'a'), ('\x', 'b') $$, 'nothing was written');

INSERT INTO long VALUES ('\x0100', 1, 'a');
INSERT INTO long VALUES ('\x01', 1, 'b'), ('\x', 1, 'c');
UPDATE long SET v = v || v WHERE k = '\x01';
SELECT results_eq('SELECT k, v FROM long ORDER BY v', $$ VALUES ('\x0100'::bytea, 'a'), ('\x01', 'bb'), ('\x', 'c') $$, 'followed by a field of another type it may have one');

-- Documents that the application made.
SELECT is(emu.outcome('SELECT convex_ensure_primary_key(''short'')') ->> 'sqlstate', NULL, 'keys without one pass the check');
SELECT emu.insert('short', '{"k": {"$bytes": "AgA="}}') \g /dev/null
SELECT is(emu.outcome('SELECT convex_ensure_primary_key(''short'')') ->> 'sqlstate', 'HV004', 'one with it does not');
SELECT is(emu.outcome('SELECT convex_ensure_primary_key(''long'')') ->> 'sqlstate', NULL, 'unless another field follows');
SELECT * FROM finish();
