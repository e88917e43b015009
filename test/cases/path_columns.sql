-- UPDATE of a path column addr.city put an object in the place of whatever addr was, a string, an array, bytes; and of two columns addr
-- and addr.city in one INSERT one won silently. Nothing is lost without a word: HV004 names the document, or the field.

\ir ../pgtap/lib/setup.sql
\ir ../pgtap/lib/writes.sql

SELECT plan(39);

SELECT emu.server(), emu.index('p', '{k}'), emu.index('q', '{k}') \g /dev/null
CREATE FOREIGN TABLE p (k text, city text OPTIONS (column_name 'addr.city', path 'true'), x bigint OPTIONS (column_name 'addr.geo.x', path 'true'),
	note text OPTIONS (column_name 'note', nulls 'null')) SERVER convex OPTIONS (primary_key 'k');
CREATE TABLE kinds (kind text PRIMARY KEY, addr jsonb);
INSERT INTO kinds VALUES ('string', '"Main St"'), ('array', '["Main St"]'), ('float64', '5'), ('boolean', 'false'), ('bytes', emu.bytes('\x01')), ('int64', emu.int64(5));
SELECT emu.insert('p', VARIADIC array_agg(jsonb_build_object('k', kind, 'addr', addr))) FROM kinds \g /dev/null
SELECT emu.documents('p') AS before \gset

SELECT is(failure ->> 'sqlstate', 'HV004', 'a path through ' || kind || ' is not set'),
	matches(failure ->> 'message', format('field "addr" of document "%s" has type %s', _id, kind), 'and the document is named')
FROM kinds, LATERAL (SELECT document ->> '_id' AS _id FROM emu.dump('p') AS document WHERE document ->> 'k' = kind) AS d,
	emu.failure(format('UPDATE p SET city = ''Rome'' WHERE k = %L', kind)) AS failure;
SELECT is(emu.failure('UPDATE p SET x = 1 WHERE k = ''string''') ->> 'sqlstate', 'HV004', 'nor is a longer one');
SELECT lives_ok('UPDATE p SET city = NULL, note = ''n'' WHERE k = ''string''', 'NULL has nothing to take out');
UPDATE p SET note = NULL WHERE k = 'string';
SELECT is((SELECT jsonb_agg(d - 'note' ORDER BY d - 'note') FROM jsonb_array_elements(emu.documents('p')) AS d), :'before'::jsonb, 'all is as it was');
SELECT emu.insert('p', '{"k": "null", "addr": null}', '{"k": "deep", "addr": {"geo": ["x"]}}') \g /dev/null
SELECT lives_ok($$UPDATE p SET city = 'Rome' WHERE k = 'null'$$, 'a null is in nobody''s way');
SELECT matches(emu.failure('UPDATE p SET x = 1 WHERE k = ''deep''') ->> 'message', 'field "addr.geo" of document .* has type array', 'the field in the way is named');
SELECT lives_ok($$UPDATE p SET city = 'Rome' WHERE k = 'deep'$$, 'which is not in the way of others');
ALTER FOREIGN TABLE p OPTIONS (ADD on_conversion_error 'null');
SELECT lives_ok($$UPDATE p SET city = 'Rome' WHERE k = 'string'$$, 'with on_conversion_error ''null''');
SELECT is(d -> 'addr', '{"city": "Rome"}', 'what is no object is replaced') FROM emu.dump('p') AS d WHERE d ->> 'k' = 'string';

-- Two columns with one field, in either order.
CREATE FOREIGN TABLE inner_first (k text, city text OPTIONS (column_name 'addr.city', path 'true'), n bigint OPTIONS (column_name 'addr.n', path 'true'),
	addr jsonb OPTIONS (nulls 'null'), same jsonb OPTIONS (column_name 'addr')) SERVER convex OPTIONS (table_name 'q', primary_key 'k');
CREATE FOREIGN TABLE outer_first (k text, addr jsonb OPTIONS (nulls 'null'), same jsonb OPTIONS (column_name 'addr'), city text OPTIONS (column_name 'addr.city', path 'true', nulls 'null'),
	n bigint OPTIONS (column_name 'addr.n', path 'true')) SERVER convex OPTIONS (table_name 'q', primary_key 'k');
SELECT is(failure ->> 'sqlstate', 'HV004', 'different values for one field, ' || name), matches(failure ->> 'message', '"addr.city" is given different', 'name it'),
	is(emu.failure(format($$INSERT INTO %I (k, addr, city) VALUES ('a', '"Main St"', 'Rome')$$, name)) ->> 'sqlstate', 'HV004', 'also where it can have none'),
	is(emu.failure(format($$INSERT INTO %I (k, addr, city) VALUES ('a', '{"zip": 1}', 'Rome')$$, name)) ->> 'sqlstate', 'HV004', 'or has none'),
	is(emu.failure(format($$INSERT INTO %I (k, addr, same) VALUES ('a', '1', '2')$$, name)) ->> 'sqlstate', 'HV004', 'or twice the same column'),
	is(emu.failure(format($$INSERT INTO %I (k, addr, city, n) VALUES (%L, '{"city": "Rome", "n": 5}', 'Rome', 5)$$, name, name)), NULL, 'the same value is fine')
FROM unnest('{inner_first,outer_first}'::text[]) AS name, emu.failure(format($$INSERT INTO %I (k, addr, city) VALUES ('a', '{"city": "Paris"}', 'Rome')$$, name)) AS failure;
INSERT INTO outer_first (k, addr, city) VALUES ('one', '{"city": "Rome"}', NULL), ('other', NULL, 'Rome');
SELECT is(emu.documents('q'), (SELECT jsonb_agg(d ORDER BY d) FROM unnest(ARRAY[jsonb_build_object('k', 'inner_first', 'addr', jsonb_build_object('city', 'Rome', 'n', emu.int64(5))),
	jsonb_build_object('k', 'outer_first', 'addr', jsonb_build_object('city', 'Rome', 'n', emu.int64(5))), '{"k": "one", "addr": {"city": "Rome"}}', '{"k": "other", "addr": {"city": "Rome"}}']) AS d),
	'NULL leaves a field to the column that gives it, and a number has the type of its own column');
DELETE FROM outer_first WHERE k NOT IN ('one', 'inner_first');

SELECT is(emu.failure($$UPDATE outer_first SET addr = '{"city": "Paris"}', city = 'Oslo'$$) ->> 'sqlstate', 'HV004', 'UPDATE as well');
UPDATE inner_first SET addr = '{"city": "Paris"}', city = city, k = k, same = same;
SELECT is((SELECT array_agg(city) FROM inner_first), '{Paris,Paris}', 'a column that stays as it is does not undo another one''s change');
UPDATE outer_first SET addr = addr, city = 'Oslo', same = same;
SELECT is((SELECT array_agg(addr) FROM inner_first), ARRAY[jsonb '{"city": "Oslo"}', '{"city": "Oslo"}'], 'neither way');
UPDATE outer_first SET addr = '{"city": "Bonn"}', city = 'Bonn';
SELECT is((SELECT array_agg(addr) FROM inner_first), ARRAY[jsonb '{"city": "Bonn"}', '{"city": "Bonn"}'], 'the same change twice is fine');
-- The whole document is what other columns lie over.
CREATE FOREIGN TABLE whole (d jsonb OPTIONS (column_name '*'), city text OPTIONS (column_name 'addr.city', path 'true')) SERVER convex OPTIONS (table_name 'q', primary_key 'k');
SELECT is(emu.failure($$INSERT INTO whole VALUES ('{"k": "w", "addr": "x"}', 'Rome')$$) ->> 'sqlstate', 'HV004', 'but not over what is no object');
INSERT INTO whole VALUES ('{"k": "w", "addr": {"city": "x", "zip": 1}}', 'Rome');
SELECT is((SELECT addr FROM inner_first WHERE k = 'w'), '{"city": "Rome", "zip": 1}', 'over an object they do');
SELECT * FROM finish();
