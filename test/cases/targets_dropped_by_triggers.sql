-- A target's trigger drops, or renames, the next target of the same page: the
-- table was an internal error (XX000), "could not open relation with OID".

\ir ../pgtap/lib/setup.sql
SELECT plan(5);

SELECT emu.server('convex') \g /dev/null
CREATE FUNCTION state_of(sub text) RETURNS text LANGUAGE sql AS
$$ SELECT string_agg(concat_ws(' ', table_name, state, load, error_code, error_message), ', ' ORDER BY table_name) FROM convex_stat_subscription_rel WHERE name = sub $$;

SELECT emu.insert('a', '{"x": 1}'), emu.insert('b', '{"x": 1}') \g /dev/null
SELECT convex_create_subscription('app', 'convex', '{a,b}') \g /dev/null
CALL convex_sync('app');
CREATE FUNCTION drop_others() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN
	IF TG_TABLE_NAME = 'a' THEN DROP TABLE IF EXISTS app.b; ELSE DROP TABLE IF EXISTS app.a; END IF;
	RETURN new;
END $$;
CREATE TRIGGER drop_others BEFORE INSERT ON app.a FOR EACH ROW EXECUTE FUNCTION drop_others();
CREATE TRIGGER drop_others BEFORE INSERT ON app.b FOR EACH ROW EXECUTE FUNCTION drop_others();
SELECT emu.mutate('[{"op": "insert", "table": "a", "doc": {"x": 2}}, {"op": "insert", "table": "b", "doc": {"x": 2}}]') \g /dev/null
\set ON_ERROR_STOP 0
CALL convex_sync('app');
\set ON_ERROR_STOP 1
SELECT is((SELECT count(*) FROM convex_stat_subscription_event WHERE name = 'app' AND detail ~ 'XX000|OID'), 0::bigint, 'a target that another''s trigger has dropped is no internal error');
SELECT is((SELECT count(*) FROM pg_class WHERE relnamespace = 'app'::regnamespace AND relname IN ('a', 'b') AND relkind = 'r'), 1::bigint, 'one of the tables is left');
SELECT matches(state_of('app'), '(?:error|joining).*42P01', 'and the other one says that it is gone');
DROP FUNCTION drop_others() CASCADE;
SELECT convex_resync_table('app', 'a'), convex_resync_table('app', 'b') \g /dev/null
CALL convex_sync('app');
SELECT is(state_of('app'), 'a ready, b ready', 'both are loaded again');
SELECT is((SELECT ARRAY[(SELECT sum(x) FROM app.a), (SELECT sum(x) FROM app.b)]), '{3,3}', 'with all rows');

SELECT * FROM finish();
