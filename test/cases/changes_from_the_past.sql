-- A broken server sent a change again whose timestamp was at or below the
-- cursor, and it overwrote a newer row; and one whose change log ended before
-- its own snapshots had everything loaded again, 25 times a second. Convex
-- gives each change once and in order, so both are errors of the answer.

\ir ../pgtap/lib/setup.sql
CREATE EXTENSION dblink;
SELECT plan(14);

SELECT emu.server('convex', $$max_retries '0'$$) \g /dev/null
SELECT dblink_connect('two', format('host=%s port=%s dbname=%s user=postgres', split_part(current_setting('unix_socket_directories'), ',', 1), current_setting('port'), current_database())) \g /dev/null

-- What a call fails with in another session, where it may commit.
CREATE FUNCTION call_fails() RETURNS text LANGUAGE sql AS
$$ SELECT coalesce(emu.failure($c$SELECT dblink_exec('two', 'CALL convex_sync(''app'')')$c$) ->> 'sqlstate', 'no error') $$;
-- The same while the change log says another thing than it should.
CREATE FUNCTION call_fails_when(find text, replace text) RETURNS text LANGUAGE plpgsql AS
$$
DECLARE
	state text;
BEGIN
	PERFORM emu.clear_journal();
	PERFORM emu.fault(jsonb_build_object('action', 'edit', 'path', '/api/document_deltas', 'count', -1, 'find', find, 'replace', replace));
	state := call_fails();
	PERFORM emu.clear_faults();
	RETURN state;
END
$$;
CREATE FUNCTION requests() RETURNS bigint LANGUAGE sql AS
$$ SELECT count(*) FROM emu.journal() $$;
CREATE FUNCTION change(x text) RETURNS void LANGUAGE sql AS
$$ SELECT emu.mutate(jsonb_build_array(jsonb_build_object('op', 'update_all', 'table', 'a', 'doc', jsonb_build_object('x', x)))) $$;
CREATE FUNCTION shown() RETURNS text LANGUAGE plpgsql AS
$$
BEGIN
	RETURN (SELECT string_agg(x, ' ') FROM app.a);
END
$$;

SELECT emu.insert('a', '{"x": "first"}') \g /dev/null
SELECT convex_create_subscription('app', 'convex', '{a}') \g /dev/null
CALL convex_sync('app');
SELECT change('second') \g /dev/null
CALL convex_sync('app');
SELECT is(shown(), 'second', 'a change is applied');

SELECT change('third') \g /dev/null
SELECT is(call_fails_when('"_ts":', '"_ts":1,"_was":'), 'HV00M', 'a change from before the cursor is refused');
SELECT is(shown(), 'second', 'and not applied');
SELECT is((SELECT last_error_class FROM convex_stat_subscription), 'protocol', 'which is a failure of class protocol');
SELECT is(call_fails_when('"_ts":', '"_ts":9000000000000000000,"_was":'), 'HV00M', 'so is a change from after the cursor of its page');
SELECT is(call_fails_when('"_deleted":', '"_was":'), 'HV00M', 'and one that does not say whether the document was deleted');
SELECT is(call_fails(), 'no error', 'the change as it is');
SELECT is(shown(), 'third', 'is applied later');

SELECT is(call_fails_when('"cursor":', '"cursor":1,"was":'), 'HV00M', 'a log that ends before the cursor, for ever, is an error');
SELECT cmp_ok(requests(), '<', 40::bigint, 'after one load of everything');
SELECT is(shown(), 'third', 'meanwhile the rows are there');
SELECT is(call_fails(), 'no error', 'a log that is as it should be');
SELECT is((SELECT phase FROM convex_stat_subscription), 'following', 'ends it');
SELECT is(shown(), 'third', 'with the right rows');

SELECT * FROM finish();
