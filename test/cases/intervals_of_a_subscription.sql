-- Intervals of 0, negative ones and ones of a century were taken: poll_interval '0' sent hundreds of requests a second,
-- table_check_interval '0' never let a CALL end. They are checked when they are given, and what a catalog holds
-- all the same is brought into range.

\ir ../pgtap/lib/setup.sql
SELECT plan(40);

SELECT emu.server() \g /dev/null
SELECT emu.insert('a', '{"n": 0}') \g /dev/null
SELECT convex_create_subscription('app', 'convex') \g /dev/null
CALL convex_sync('app');

CREATE FUNCTION state(statement text) RETURNS text LANGUAGE sql AS
$$ SELECT coalesce(emu.failure(statement) ->> 'sqlstate', 'no error') $$;
CREATE FUNCTION altered(what text, value text) RETURNS text LANGUAGE sql AS
$$
	SELECT state(CASE what WHEN 'poll_interval' THEN format('SELECT convex_alter_subscription(''app'', poll_interval => %L)', value)
		ELSE format('SELECT convex_alter_subscription(''app'', options => jsonb_build_object(%L, %L))', what, value) END)
$$;

SELECT is(altered(what, value), '22023', format('%s %s is refused', what, value))
FROM unnest('{poll_interval,idle_poll_interval}'::text[]) AS what, unnest('{0,49 ms,-1 s,1 day 1 ms,100 years,1 mon}'::text[]) AS value;
SELECT is(altered('table_check_interval', value), '22023', format('table_check_interval %s is refused', value)) FROM unnest('{0,9 s,-1 h,31 days,100 years}'::text[]) AS value;
SELECT is(altered('idle_poll_interval', 'x'), '22007', 'what is no interval is refused');
SELECT is(altered('max_columns', value), '22023', format('max_columns %s is refused', value)) FROM unnest('{9,1501,20x,12.5,"",1e2}'::text[]) AS value;
SELECT is((SELECT ROW (poll_interval, options)::text FROM convex_subscription), '(00:00:01,{})', 'and nothing has changed');
SELECT is(state('SELECT convex_create_subscription(''b'', ''convex'', poll_interval => ''10 ms'')'), '22023', 'a new subscription is refused, too');
SELECT is(state('SELECT convex_create_subscription(''b'', ''convex'', options => ''{"table_check_interval": "1 s"}'')'), '22023', 'by its options as well');
SELECT matches(emu.failure('SELECT convex_alter_subscription(''app'', poll_interval => ''0'')') ->> 'message', '^poll_interval .*out of range', 'the message names the interval');
SELECT matches(emu.failure('SELECT convex_alter_subscription(''app'', poll_interval => ''0'')') ->> 'hint', '50 ms to 1 day', 'the hint the range');
SELECT is(altered(what, value), 'no error', format('%s %s is taken', what, value))
FROM (VALUES ('poll_interval', '50 ms'), ('poll_interval', '1 day'), ('poll_interval', '24 h'), ('idle_poll_interval', '0.05'), ('idle_poll_interval', 'PT10S'),
	('table_check_interval', '10 s'), ('table_check_interval', '1 mon'), ('max_columns', '10')) AS s (what, value);

-- A catalog that has them: restored from an older version, or written by hand.
UPDATE convex_subscription SET poll_interval = '0', options = '{"table_check_interval": "-1 s", "idle_poll_interval": "0"}';
SELECT emu.clear_journal() \g /dev/null
CALL convex_sync('app');
SELECT ok((SELECT caught_up FROM convex_stat_subscription), 'a CALL ends');
SELECT cmp_ok((SELECT count(*) FROM emu.journal('/api/list_snapshot')), '<=', 1::bigint, 'with one check at most');
SELECT convex_start_worker('app') \g /dev/null
SELECT ok(convex_wait_for('app'), 'a worker follows');

SELECT convex_drop_subscription('app') \g /dev/null
SELECT * FROM finish();
