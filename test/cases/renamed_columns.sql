-- A column of a mirror that is renamed kept its old values for ever, and the
-- field got another column, which only an event told. A column is known by its
-- number: it keeps its field under any name, and one that gets the name of
-- another does not get its field.

\ir ../pgtap/lib/setup.sql
SELECT plan(30);

SELECT emu.server('convex') \g /dev/null
SELECT emu.config('{"page_limit": 10}') \g /dev/null

CREATE FUNCTION state_of(sub text) RETURNS text LANGUAGE sql AS
$$ SELECT string_agg(concat_ws(' ', state, load, error_code, error_message), ', ') FROM convex_stat_subscription_rel WHERE name = sub $$;
CREATE FUNCTION events(sub text, what text) RETURNS text LANGUAGE sql AS
$$ SELECT string_agg(detail, ', ' ORDER BY eventid) FROM convex_stat_subscription_event WHERE name = sub AND kind = what $$;
CREATE FUNCTION columns_of(what regclass) RETURNS text LANGUAGE sql AS
$$ SELECT string_agg(attname, ' ' ORDER BY attnum) FROM pg_attribute WHERE attrelid = what AND attnum > 0 AND NOT attisdropped $$;

SELECT emu.insert('a', '{"x": "one", "y": 1}') AS one \gset
SELECT convex_create_subscription('app', 'convex', '{a}') \g /dev/null
CALL convex_sync('app');
ALTER TABLE app.a RENAME x TO title;
ALTER TABLE app.a RENAME "_creationTime" TO created_at;
SELECT emu.mutate(jsonb_build_array(jsonb_build_object('op', 'patch', 'table', 'a', 'id', :'one', 'doc', '{"x": "changed"}'::jsonb))) \g /dev/null
SELECT emu.insert('a', '{"x": "two", "y": 2}') \g /dev/null
CALL convex_sync('app');
SELECT is(columns_of('app.a'), '_id created_at title y _ts _extra', 'a renamed column keeps its field: there is no other');
SELECT results_eq('SELECT title, y, created_at IS NULL FROM app.a ORDER BY y', $$ VALUES ('changed', 1::float8, false), ('two', 2, false) $$, 'and changes reach it');
SELECT matches(events('app', 'column_renamed'), 'field "x": column "x" is "title" now', 'which is told');
SELECT is(events('app', 'column_added'), NULL, 'no column is added');
SELECT is(state_of('app'), 'ready', 'nothing waits');

-- Two that change names.
ALTER TABLE app.a RENAME title TO z;
ALTER TABLE app.a RENAME y TO title;
ALTER TABLE app.a RENAME z TO y;
SELECT emu.insert('a', '{"x": "three", "y": 3}') \g /dev/null
CALL convex_sync('app');
SELECT results_eq('SELECT y, title FROM app.a ORDER BY title', $$ VALUES ('changed', 1::float8), ('two', 2), ('three', 3) $$, 'columns that change names change no fields');

-- A column of the user's own gets a field's name, known or new.
ALTER TABLE app.a ADD COLUMN mine text DEFAULT 'mine';
ALTER TABLE app.a RENAME y TO text;
ALTER TABLE app.a RENAME mine TO x;
ALTER TABLE app.a ADD COLUMN notes text DEFAULT 'mine';
SELECT emu.insert('a', '{"x": "four", "y": 4}') \g /dev/null
CALL convex_sync('app');
SELECT results_eq('SELECT text, x FROM app.a WHERE title = 4', $$ VALUES ('four', 'mine') $$, 'a column that gets the name of a field that has one is left alone');
SELECT emu.insert('a', '{"x": "five", "y": 5, "text": "body"}') \g /dev/null
CALL convex_sync('app');
SELECT is((SELECT text FROM app.a WHERE title = 5), 'five', 'a new field does not take a column of its name that is another''s');
SELECT matches(events('app', 'column_added'), '^field "text": column "text_', 'but gets one of another name');
SELECT emu.insert('a', '{"x": "six", "y": 6, "notes": "for all"}') \g /dev/null
CALL convex_sync('app');
SELECT is((SELECT notes FROM app.a WHERE title = 6), 'for all', 'though it takes one that is nobody''s');

-- A load.
SELECT convex_resync_table('app', 'a') \g /dev/null
CALL convex_sync('app');
SELECT is(state_of('app'), 'ready', 'it is loaded again');
SELECT is(columns_of('app.a'), '_id created_at text title _ts _extra x notes ' || substring(events('app', 'column_added') FROM '"(text_[^"]*)"'), 'with the same columns');
SELECT results_eq('SELECT text, title FROM app.a ORDER BY title', $$ VALUES ('changed', 1::float8), ('two', 2), ('three', 3), ('four', 4), ('five', 5), ('six', 6) $$ , 'and the same values');

-- In the middle of one.
SELECT emu.insert('a', jsonb_build_object('x', 'more', 'y', 10 + i)) FROM generate_series(1, 30) AS i \g /dev/null
CALL convex_sync('app');
SELECT convex_resync_table('app', 'a') \g /dev/null
CALL convex_sync('app', 2);
SELECT is((SELECT load FROM convex_stat_subscription_rel WHERE name = 'app'), 'walking', 'a load is under way');
ALTER TABLE app.a RENAME text TO words;
UPDATE app.a SET words = 'lost';
CALL convex_sync('app');
SELECT is(state_of('app'), 'ready', 'a load whose target''s columns are renamed ends');
SELECT is((SELECT count(*) FILTER (WHERE words = 'more') || ' ' || count(*) FILTER (WHERE words = 'lost') FROM app.a), '30 0', 'and all values are right');

-- Back, and away.
ALTER TABLE app.a RENAME created_at TO "_creationTime";
ALTER TABLE app.a RENAME words TO x_1;
ALTER TABLE app.a DROP COLUMN title;
SELECT emu.insert('a', '{"x": "seven", "y": 7}') \g /dev/null
CALL convex_sync('app');
SELECT is((SELECT y FROM app.a WHERE x_1 = 'seven'), 7::float8, 'one that is dropped comes back under its field''s name');
SELECT is((SELECT "_creationTime" IS NULL FROM app.a WHERE x_1 = 'seven'), false, 'the time of creation can be renamed back');
ALTER TABLE app.a DROP COLUMN y;
ALTER TABLE app.a ADD COLUMN y float8;
SELECT emu.insert('a', '{"x": "eight", "y": 8}') \g /dev/null
CALL convex_sync('app');
SELECT is((SELECT y FROM app.a WHERE x_1 = 'eight'), 8::float8, 'and so does one that is made again by hand');
DROP TABLE app.a;
SELECT convex_resync_table('app', 'a') \g /dev/null
CALL convex_sync('app');
SELECT is(state_of('app'), 'ready', 'a target that is gone is made anew');
SELECT is((SELECT count(x_1) || ' ' || count(y) || ' ' || count("_creationTime") FROM app.a), '38 38 38', 'with each field once');

-- PostgreSQL's own and back: an identity, which takes the field's column.
SELECT emu.insert('b', '{"n": {"$integer": "AQAAAAAAAAA="}}') AS b \gset
SELECT convex_create_subscription('own', 'convex', '{b}') \g /dev/null
CALL convex_sync('own');
ALTER TABLE own.b ALTER n SET NOT NULL, ALTER n ADD GENERATED BY DEFAULT AS IDENTITY (START 100);
SELECT emu.insert('b', '{"n": {"$integer": "AgAAAAAAAAA="}}', '{"m": true}') \g /dev/null
CALL convex_sync('own');
SELECT is(state_of('own'), 'ready', 'a column that becomes an identity is PostgreSQL''s');
SELECT is((SELECT array_agg(n ORDER BY n) FROM own.b), '{1,100,101}', 'and left to it');
SELECT matches(events('own', 'column_added'), 'field "n": column "n_', 'its field has another');
ALTER TABLE own.b ALTER n DROP IDENTITY, ALTER n SET DEFAULT -1;
SELECT emu.insert('b', '{"n": {"$integer": "AwAAAAAAAAA="}}') \g /dev/null
CALL convex_sync('own');
SELECT is((SELECT array_agg(n ORDER BY n) FROM own.b), '{-1,1,100,101}', 'and keeps that when it is none any more');

-- What has no field is known by its name alone.
ALTER TABLE own.b RENAME _extra TO rest;
SELECT emu.insert('b', '{"n": null}') \g /dev/null
CALL convex_sync('own');
SELECT matches(events('own', 'drift'), 'column "_extra" is "rest" now', 'a renamed _extra is no longer filled, which is told');

-- A copy of the catalog goes by names.
UPDATE convex_subscription_rel SET attnums = '{"1": "x"}' WHERE target_name = 'b';
SET session_replication_role = replica;
UPDATE convex_subscription_rel SET attnums = '{"1": "y"}' WHERE target_name = 'b';
RESET session_replication_role;
SELECT is((SELECT attnums::text FROM convex_subscription_rel WHERE target_name = 'b'), '{"1": "x"}', 'numbers of another cluster are not taken');
CREATE TEMP TABLE copy AS SELECT * FROM convex_subscription_rel WHERE target_name = 'b';
DELETE FROM convex_subscription_rel WHERE target_name = 'b';
INSERT INTO convex_subscription_rel SELECT * FROM copy;
SELECT is((SELECT attnums FROM convex_subscription_rel WHERE target_name = 'b'), NULL, 'nor are those of a dump');
CALL convex_sync('own');
SELECT emu.insert('b', '{"n": {"$integer": "BAAAAAAAAAA="}, "m": false}') \g /dev/null
CALL convex_sync('own');
SELECT is(state_of('own'), 'ready', 'there columns are known by their names');
SELECT is((SELECT count(*) FROM own.b WHERE NOT m), 1::bigint, 'until they have numbers again');

SELECT * FROM finish();
