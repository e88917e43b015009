-- A cheap function of any role in the WHERE clause of a view was called with the rows of other roles' subscriptions, which the
-- view then hid. The views are security barriers: the function sees what the role sees, under any plan.

\ir ../pgtap/lib/setup.sql

SELECT plan(11);
SELECT emu.server() \g /dev/null
SELECT emu.insert('secret', '{"x": "1"}') \g /dev/null
SELECT convex_create_subscription('secret', 'convex', '{secret}') \g /dev/null
CALL convex_sync('secret', 1);
CREATE ROLE spy;
CREATE TABLE leaked (value text);
GRANT INSERT ON leaked TO PUBLIC;
GRANT CREATE ON SCHEMA public TO spy;
SET ROLE spy;
CREATE FUNCTION leak(value text) RETURNS boolean LANGUAGE plpgsql COST 0.0000001 AS
$$ BEGIN INSERT INTO leaked VALUES (value); RETURN true; END $$;

-- Every column of each view, by the plan that is chosen and by plans without hash and merge joins.
CREATE FUNCTION spy_on(view_name text) RETURNS bigint LANGUAGE plpgsql AS
$$
DECLARE
	tells text := (SELECT string_agg(format('leak(%L || v.%I::text)', attname || ' ', attname), ' AND ') FROM pg_attribute WHERE attrelid = view_name::regclass AND attnum > 0);
	n bigint;
BEGIN
	EXECUTE format('SELECT count(*) FROM %I AS v WHERE %s', view_name, tells) INTO n;
	RETURN n;
END
$$;
SELECT is(spy_on(v), 0::bigint, v || ' shows nothing')
FROM unnest('{convex_stat_subscription,convex_stat_subscription_rel,convex_stat_progress_snapshot,convex_stat_subscription_event}'::text[]) AS v;
SET enable_hashjoin = off;
SET enable_mergejoin = off;
SET enable_seqscan = off;
SELECT is(spy_on(v), 0::bigint, v || ' shows nothing under another plan')
FROM unnest('{convex_stat_subscription,convex_stat_subscription_rel,convex_stat_progress_snapshot,convex_stat_subscription_event}'::text[]) AS v;
RESET ROLE;
SELECT is((SELECT array_agg(DISTINCT value) FROM leaked), NULL, 'and tells nothing to a function');
GRANT pg_read_all_stats TO spy;
SET ROLE spy;
SELECT is(spy_on('convex_stat_subscription_rel'), 1::bigint, 'members of pg_read_all_stats see all');
RESET ROLE;
SELECT ok(EXISTS (SELECT FROM leaked WHERE value LIKE '%secret'), 'and so do their functions');
DROP OWNED BY spy;
DROP ROLE spy;
SELECT * FROM finish();
