-- Subscriptions: deployments on which nothing happens for weeks, and change
-- logs in which nothing concerns the subscription.

\ir lib/setup.sql
SELECT plan(19);

SELECT emu.server() \g /dev/null

CREATE FUNCTION events(subscription name) RETURNS text[] LANGUAGE sql AS
$$ SELECT coalesce(array_agg(kind ORDER BY eventid), '{}') FROM convex_stat_subscription_event WHERE name = subscription AND kind NOT LIKE 'table\_joined' $$;
CREATE FUNCTION source() RETURNS SETOF text LANGUAGE sql AS
$$ SELECT (d ->> '_id') || ' ' || (d ->> 'x') FROM emu.dump('a') AS d $$;
-- The emulator's clock, in hours from now.
CREATE FUNCTION set_clock(hours int) RETURNS jsonb LANGUAGE sql AS
$$ SELECT emu.config(jsonb_build_object('clock_offset_ns', hours * 3600000000000)) $$;

SELECT emu.insert('a', VARIADIC ARRAY(SELECT jsonb_build_object('x', 'a' || i) FROM generate_series(1, 30) AS i)) \g /dev/null
SELECT convex_create_subscription('polled', 'convex') \g /dev/null
SELECT convex_create_subscription('forgotten', 'convex') \g /dev/null
CALL convex_sync();
SELECT applied_ts AS first_ts FROM convex_stat_subscription WHERE name = 'polled' \gset

-- ------------------------------------------------------------------ fifteen days without a change

CREATE TABLE polls (hours int, applied_ts bigint, head bigint);
CREATE PROCEDURE fifteen_days() LANGUAGE plpgsql AS
$$
BEGIN
	FOR hours IN 6 .. 15 * 24 BY 6 LOOP
		PERFORM set_clock(hours);
		COMMIT;
		CALL convex_sync('polled');
		INSERT INTO polls SELECT hours, applied_ts, (emu.state() ->> 'head')::bigint FROM convex_stat_subscription WHERE name = 'polled';
		COMMIT;
	END LOOP;
END
$$;
SELECT emu.clear_journal() \g /dev/null
CALL fifteen_days();
SELECT is((SELECT count(*) FROM polls WHERE applied_ts = head), 60::bigint, 'in fifteen idle days every poll keeps the cursor that the server gives');
SELECT cmp_ok((SELECT max(applied_ts) FROM polls), '>', (:first_ts + 14 * 86400 * 1000000000::bigint)::bigint, 'which moves by more than what is retained');
SELECT throws_ok(format($$ SELECT * FROM convex_changes('convex', %s) $$, :'first_ts'), 'HV00L', NULL, 'while the first cursor has become useless');
SELECT is((SELECT count(*) FROM emu.journal('/api/list_snapshot')), 0::bigint, 'nothing is loaded again');
SELECT is(events('polled'), '{created}', 'and no event tells of anything');
SELECT emu.insert('a', '{"x": "late"}') \g /dev/null
CALL convex_sync('polled');
SELECT bag_eq('SELECT _id || '' '' || x FROM polled.a', 'SELECT source()', 'a change after that arrives as ever');
SELECT is(events('polled'), '{created}', 'without an event');

-- ------------------------------------------------------------------ fifteen days without a poll

CALL convex_sync('forgotten', 1);
SELECT is((SELECT phase FROM convex_stat_subscription WHERE name = 'forgotten'), 'reloading', 'a cursor beyond retention leads to a new snapshot');
CREATE TABLE seen (n bigint);
CREATE PROCEDURE reload_and_look() LANGUAGE plpgsql AS
$$
BEGIN
	WHILE (SELECT phase = 'reloading' FROM convex_stat_subscription WHERE name = 'forgotten') LOOP
		INSERT INTO seen SELECT count(*) FROM forgotten.a;
		COMMIT;
		CALL convex_sync('forgotten', 1);
	END LOOP;
END
$$;
SELECT emu.config('{"page_limit": 4}') \g /dev/null
CALL reload_and_look();
SELECT emu.config('{"page_limit": 1024}') \g /dev/null
SELECT cmp_ok((SELECT count(*) FROM seen), '>', 5::bigint, 'which takes a while');
SELECT is((SELECT array_agg(DISTINCT n) FROM seen), '{30}', 'the old rows are readable meanwhile');
CALL convex_sync('forgotten');
SELECT bag_eq('SELECT _id || '' '' || x FROM forgotten.a', 'SELECT source()', 'then the mirror is right');
SELECT is((SELECT count(*) FROM unnest(events('forgotten')) AS e WHERE e = 'resnapshot'), 1::bigint, 'with one event');
SELECT is(events('forgotten'), '{created,resnapshot,table_resynced}', 'of a new snapshot');

-- ------------------------------------------------------------------ a thousand pages without a document

SELECT emu.config('{"delta_limit": 1}') \g /dev/null
SELECT convex_alter_subscription('polled', '{a}') \g /dev/null
CALL convex_sync('polled');
SELECT emu.call('POST', '/_emulator/mutate', jsonb_build_object('rows_per_transaction', 1, 'ops',
	(SELECT jsonb_agg('{"op": "insert", "table": "noise", "doc": {}}'::jsonb) FROM generate_series(1, 1000)))) \g /dev/null
SELECT pages AS pages_before, applied_ts AS applied_before, rows AS rows_before FROM convex_stat_subscription WHERE name = 'polled' \gset
SELECT emu.clear_journal() \g /dev/null
CALL convex_sync('polled', 250);
SELECT applied_ts AS applied_then FROM convex_stat_subscription WHERE name = 'polled' \gset
SELECT cmp_ok(:applied_then::bigint, '>', :applied_before::bigint, 'the cursor moves through pages without documents');
SELECT is((SELECT pages - :pages_before FROM convex_stat_subscription WHERE name = 'polled'), 250::bigint, 'and is kept on each');
CALL convex_sync('polled');
SELECT is((SELECT count(DISTINCT r -> 'body' -> 'cursor') FROM emu.journal('/api/document_deltas') AS r WHERE (r -> 'body' ->> 'cursor')::bigint < (emu.state() ->> 'head')::bigint), 1000::bigint, 'each of a thousand pages is asked for');
SELECT is((SELECT applied_ts FROM convex_stat_subscription WHERE name = 'polled'), (emu.state() ->> 'head')::bigint, 'up to the head');
SELECT is((SELECT rows FROM convex_stat_subscription WHERE name = 'polled'), :rows_before::bigint, 'without a row');
SELECT is(events('polled'), '{created}', 'and nothing was loaded again');

SELECT * FROM finish();
