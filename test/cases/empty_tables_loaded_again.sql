-- A load that had found no document and was begun again after its key was made:
-- 42P16 "multiple primary keys" for ever. The staging table was taken for a new
-- one, since it had no rows.

\ir ../pgtap/lib/setup.sql
SELECT plan(4);

SELECT emu.server('convex') \g /dev/null
CREATE FUNCTION state_of(sub text) RETURNS text LANGUAGE sql AS
$$ SELECT string_agg(concat_ws(' ', table_name, state, load, error_code, error_message), ', ' ORDER BY table_name) FROM convex_stat_subscription_rel WHERE name = sub $$;

-- A peer that shows nothing at first.
SELECT emu.insert('a', '{"x": 1}') \g /dev/null
SELECT convex_create_subscription('app', 'convex', '{a}') \g /dev/null
SELECT emu.fault(jsonb_build_object('path', '/api/list_snapshot', 'action', 'body', 'body',
	format('{"values":[],"snapshot":%s,"cursor":null,"hasMore":false}', emu.state() ->> 'head'))) \g /dev/null
CALL convex_sync('app');
SELECT is((SELECT count(*) FROM convex_stat_subscription_event WHERE name = 'app' AND kind = 'table_replaced'), 1::bigint, 'a load that lacks documents begins again');
SELECT is(state_of('app'), 'a ready', 'and comes to its end');
SELECT is((SELECT array_agg(x) FROM app.a), '{1}', 'with the document');
SELECT is((SELECT count(*) FROM pg_class WHERE relnamespace = 'convex_staging'::regnamespace), 0::bigint, 'no staging table is left');

SELECT * FROM finish();
