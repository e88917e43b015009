-- A worker doubled its pause after every poll, also after one that had brought changes: with a change in each poll and
-- poll_interval '1 s' it soon asked every 10 s. The pause grows only after polls that find nothing.

\ir ../pgtap/lib/setup.sql
SELECT plan(3);

SELECT emu.server() \g /dev/null
SELECT emu.insert('a', '{"n": 0}') \g /dev/null
CREATE FUNCTION polls() RETURNS bigint LANGUAGE sql AS
$$ SELECT count(*) FROM emu.journal('/api/document_deltas') $$;
CREATE FUNCTION count_up() RETURNS jsonb LANGUAGE sql AS
$$ SELECT emu.mutate('[{"op": "increment_all", "table": "a", "field": "n", "by": 1}]') $$;

-- Pauses that double come to more than three minutes in twelve polls.
SELECT convex_create_subscription('app', 'convex', poll_interval => '50 ms', options => '{"idle_poll_interval": "1 h"}') \g /dev/null
SELECT convex_start_worker('app') \g /dev/null
SELECT emu.wait_until('(SELECT caught_up FROM convex_stat_subscription)') \g /dev/null
SELECT emu.fault('{"action": "mutate", "path": "/api/document_deltas", "count": -1, "ops": [{"op": "increment_all", "table": "a", "field": "n", "by": 1}]}'),
	emu.clear_journal(), count_up() \g /dev/null
SELECT convex_wait_for('app') \g /dev/null
SELECT ok(emu.wait_until('polls() >= 12'), 'while each poll brings changes, the next comes after poll_interval');
SELECT ok(emu.wait_until('(SELECT n >= 12 FROM app.a)'), 'and the changes are visible');
SELECT emu.clear_faults() \g /dev/null

-- Each change follows a poll that was seen, so the next one brings it, and one without any follows.
CREATE FUNCTION trickle(times int) RETURNS boolean LANGUAGE plpgsql AS
$$
DECLARE
	seen bigint;
BEGIN
	FOR i IN 1..times LOOP
		PERFORM count_up();
		seen := polls();
		PERFORM emu.wait_until(format('polls() > %s', seen + 1));
	END LOOP;
	RETURN true;
END
$$;
SELECT ok(trickle(5), 'polls without changes in between do not make the pauses grow on and on');

SELECT convex_drop_subscription('app') \g /dev/null
SELECT * FROM finish();
