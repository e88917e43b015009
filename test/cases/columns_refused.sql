-- ALTER TABLE ADD COLUMN can be refused for as long as somebody likes: by an
-- event trigger, by a child that has such a column already, for want of room.
-- A new field stopped the table until then, while it was followed and at the
-- end of a load. Its values go to _extra, which is told once.

\ir ../pgtap/lib/setup.sql
SELECT plan(28);

SELECT emu.server('convex') \g /dev/null
SELECT emu.config('{"page_limit": 10}') \g /dev/null

CREATE FUNCTION state_of(sub text) RETURNS text LANGUAGE sql AS
$$ SELECT string_agg(concat_ws(' ', state, load, error_code, error_message), ', ') FROM convex_stat_subscription_rel WHERE name = sub $$;
CREATE FUNCTION drifts(sub text) RETURNS text LANGUAGE sql AS
$$ SELECT string_agg(detail, ', ' ORDER BY eventid) FROM convex_stat_subscription_event WHERE name = sub AND kind = 'drift' $$;

-- An event trigger.
CREATE FUNCTION refuse() RETURNS event_trigger LANGUAGE plpgsql AS
$$ BEGIN RAISE 'nobody alters tables here'; END $$;
SELECT emu.insert('a', '{"x": "one"}') \g /dev/null
SELECT convex_create_subscription('app', 'convex', '{a}') \g /dev/null
CALL convex_sync('app');
CREATE EVENT TRIGGER refuse ON ddl_command_start WHEN TAG IN ('ALTER TABLE') EXECUTE FUNCTION refuse();
SELECT emu.insert('a', '{"x": "two", "y": "new"}') \g /dev/null
CALL convex_sync('app');
SELECT is(state_of('app'), 'ready', 'a table that nobody may alter is followed');
SELECT is((SELECT _extra FROM app.a WHERE x = 'two'), '{"y": "new"}', 'a new field is in _extra');
SELECT is(drifts('app'), 'field "y" has no column: nobody alters tables here', 'which is told with the reason');
SELECT emu.insert('a', '{"x": "three", "y": "newer"}') \g /dev/null
CALL convex_sync('app');
SELECT is((SELECT _extra FROM app.a WHERE x = 'three'), '{"y": "newer"}', 'so is the next value');
SELECT is(drifts('app'), 'field "y" has no column: nobody alters tables here', 'which is not told again');
DROP EVENT TRIGGER refuse;
SELECT emu.insert('a', '{"x": "four", "y": "newest"}') \g /dev/null
CALL convex_sync('app');
SELECT is((SELECT y FROM app.a WHERE x = 'four'), 'newest', 'once the trigger is gone the field gets its column');

-- The same in a load: of a table that had the column when the load began, and
-- of one that never had it. Staging tables are altered by the loads themselves.
CREATE FUNCTION refuse_a() RETURNS event_trigger LANGUAGE plpgsql AS
$$ BEGIN
	IF EXISTS (SELECT FROM pg_event_trigger_ddl_commands() WHERE object_identity = 'app.a' AND command_tag = 'ALTER TABLE') THEN
		RAISE 'nobody alters these tables';
	END IF;
END $$;
SELECT emu.insert('a', jsonb_build_object('x', 'more', 'y', 'y' || i)) FROM generate_series(1, 30) AS i \g /dev/null
CALL convex_sync('app');
SELECT convex_resync_table('app', 'a') \g /dev/null
CALL convex_sync('app', 2);
SELECT is((SELECT load FROM convex_stat_subscription_rel WHERE name = 'app'), 'walking', 'a load is under way');
ALTER TABLE app.a DROP COLUMN y;
CREATE EVENT TRIGGER refuse ON ddl_command_end WHEN TAG IN ('ALTER TABLE') EXECUTE FUNCTION refuse_a();
CALL convex_sync('app');
SELECT is(state_of('app'), 'ready', 'a load ends whose target has lost a column for good');
SELECT is((SELECT count(_extra ->> 'y') FROM app.a), 33::bigint, 'and no value is lost');
SELECT emu.insert('a', '{"x": "five", "z": 5}') \g /dev/null
SELECT convex_resync_table('app', 'a') \g /dev/null
CALL convex_sync('app');
SELECT is(state_of('app'), 'ready', 'so does one that meets a new field');
SELECT is((SELECT _extra ->> 'z' FROM app.a WHERE x = 'five'), '5.0', 'whose value is in _extra');
SELECT matches(drifts('app'), 'field "z" has no column: nobody alters these tables', 'which is told');
SELECT is((SELECT count(*) FROM app.a), 35::bigint, 'all rows are there');
DROP EVENT TRIGGER refuse;

-- Children: what the parent gets, they get too.
SELECT emu.insert('b', '{"x": "one"}') \g /dev/null
SELECT convex_create_subscription('kin', 'convex', '{b}') \g /dev/null
CALL convex_sync('kin');
CREATE TABLE child (y bytea) INHERITS (kin.b);
SELECT emu.insert('b', '{"x": "two", "y": "new"}') \g /dev/null
CALL convex_sync('kin');
SELECT is(state_of('kin'), 'ready', 'a table is followed whose child has such a column of another type');
SELECT is((SELECT _extra FROM kin.b WHERE x = 'two'), '{"y": "new"}', 'the new field is in _extra');
SELECT matches(drifts('kin'), 'field "y" has no column: child table', 'which is told');
SELECT convex_resync_table('kin', 'b') \g /dev/null
CALL convex_sync('kin');
SELECT is(state_of('kin'), 'ready', 'a load ends, too');
DROP TABLE child;
ALTER TABLE kin.b SET (fillfactor = 90); -- else within a minute
SELECT emu.insert('b', '{"x": "three", "y": "newer"}') \g /dev/null
CALL convex_sync('kin');
SELECT is((SELECT y FROM kin.b WHERE x = 'three'), 'newer', 'once the child is gone the field gets its column');

-- A child of a table.
CREATE TABLE parent (LIKE kin.b);
ALTER TABLE kin.b INHERIT parent;
SELECT emu.insert('b', '{"x": "four", "w": 1}') \g /dev/null
CALL convex_sync('kin');
SELECT is((SELECT w FROM kin.b WHERE x = 'four'), 1::float8, 'a child of another table gets columns of its own');

-- A table that is full.
CREATE SCHEMA full_up;
SELECT format('CREATE TABLE full_up.c (_id text COLLATE "C" PRIMARY KEY, n float8, _ts bigint, _extra jsonb, %s)', string_agg(format('c%s bool', i), ', '))
FROM generate_series(1, 1595) AS i \gexec
SELECT emu.insert('c', '{"n": 1, "m": 1}', '{"n": 2, "k": 2, "l": 2}') \g /dev/null
SELECT convex_create_subscription('full_up', 'convex', '{c}', options => '{"max_columns": 1000}') \g /dev/null
CALL convex_sync('full_up');
SELECT is(state_of('full_up'), 'ready', 'a table with room for one more column is loaded');
SELECT is((SELECT count(*) FROM pg_attribute WHERE attrelid = 'full_up.c'::regclass AND attnum > 0), 1600::bigint, 'gets that column');
SELECT emu.insert('c', '{"n": 3, "later": 3}') \g /dev/null
CALL convex_sync('full_up');
SELECT is(state_of('full_up'), 'ready', 'and is followed without any more');
SELECT is((SELECT _extra ->> 'later' FROM full_up.c WHERE n = 3), '3.0', 'fields that have none are in _extra');
SELECT matches(drifts('full_up'), 'field "later" has no column', 'which is told');
SELECT convex_resync_table('full_up', 'c') \g /dev/null
CALL convex_sync('full_up');
SELECT is(state_of('full_up'), 'ready', 'a load ends, too');

-- What an option asks for.
SELECT emu.insert('d', '{"x": "one"}') \g /dev/null
SELECT convex_create_subscription('doc', 'convex', '{d}') \g /dev/null
CALL convex_sync('doc');
SELECT convex_drop_subscription('doc') \g /dev/null
CREATE TABLE whole (LIKE doc.d) PARTITION BY RANGE (_id);
ALTER TABLE whole ATTACH PARTITION doc.d DEFAULT;
SELECT convex_create_subscription('doc', 'convex', '{d}', options => '{"document": "jsonb"}') \g /dev/null
CALL convex_sync('doc');
SELECT is(state_of('doc'), 'ready', 'a partition without a column _document is a target');
SELECT is((SELECT x FROM whole), 'one', 'with its rows');
SELECT matches(drifts('doc'), '_document', 'which is told');

SELECT * FROM finish();
