-- Sessions that a server asked to come back after two seconds all came back
-- within some milliseconds of each other.  Pauses are spread, and never shorter
-- than asked.  A Retry-After with a date was compared with the local clock; the
-- server's own Date is the clock that made it.

\ir ../pgtap/lib/setup.sql
SELECT plan(7);

SELECT emu.insert('notes', '{"n": 1}') \g /dev/null
SELECT emu.server('convex', $$max_retries '2', max_retry_wait '5s'$$) \g /dev/null
CREATE FOREIGN TABLE notes (_id text) SERVER convex;

-- How long a scan takes, and what it ends with, when the first answer says so.
CREATE FUNCTION pause(date text, retry_after text, OUT took interval, OUT state text, OUT requests bigint) LANGUAGE plpgsql AS
$$
DECLARE
	begun timestamptz;
BEGIN
	PERFORM emu.clear_journal(), emu.fault(jsonb_build_object('path', '/api/list_snapshot', 'action', 'status', 'status', 429,
		'headers', jsonb_strip_nulls(jsonb_build_object('Retry-After', retry_after, 'Date', date))));
	begun := clock_timestamp();
	state := coalesce(emu.failure('SELECT * FROM notes') ->> 'sqlstate', 'none');
	took := clock_timestamp() - begun;
	requests := (SELECT count(*) FROM emu.journal('/api/list_snapshot'));
	PERFORM emu.clear_faults();
END
$$;
SELECT ok(took >= '1 s' AND state = 'none' AND requests = 2, 'a date after an early Date is waited for')
FROM pause('Sun, 06 Nov 1994 08:49:37 GMT', 'Sun, 06 Nov 1994 08:49:38 GMT');
SELECT ok(took >= '1 s' AND state = 'none' AND requests = 2, 'and so is one after a late Date')
FROM pause('Fri, 01 Jan 2100 00:00:00 GMT', 'Fri, 01 Jan 2100 00:00:01 GMT');
SELECT ok(state = 'none' AND requests = 2, 'one that has passed by the server''s clock is no reason to wait')
FROM pause('Fri, 01 Jan 2100 00:00:10 GMT', 'Fri, 01 Jan 2100 00:00:01 GMT');
SELECT ok(state = '53000' AND requests = 1, 'one beyond max_retry_wait by the server''s clock ends the repetitions')
FROM pause('Sun, 06 Nov 1994 08:49:37 GMT', 'Sun, 06 Nov 1994 08:50:38 GMT');
SELECT ok(state = 'none' AND requests = 2, 'what is no date is not waited for') FROM pause(NULL, 'soon');

-- Eight sessions at once.
CREATE EXTENSION dblink;
SELECT format('host=%s port=%s dbname=%s user=postgres', split_part(current_setting('unix_socket_directories'), ',', 1),
	current_setting('port'), current_database()) AS conninfo \gset
SELECT dblink_connect('s' || n, :'conninfo') FROM generate_series(1, 8) AS n \g /dev/null
SELECT emu.fault('{"path": "/api/list_snapshot", "count": 8, "action": "status", "status": 429, "headers": {"Retry-After": "1"}}') \g /dev/null
SELECT clock_timestamp() AS begun \gset
SELECT dblink_send_query('s' || n, 'SELECT clock_timestamp() + 0 * min(length(_id)) * interval ''1 s'' FROM notes')
FROM generate_series(1, 8) AS n \g /dev/null
CREATE TEMP TABLE came AS SELECT t.* FROM generate_series(1, 8) AS n, dblink_get_result('s' || n) AS t (ended timestamptz);
SELECT ok(count(*) = 8 AND min(ended) - :'begun' >= '1 s', 'eight sessions come back, none too early') FROM came;
SELECT ok(max(ended) - min(ended) > '50 ms', 'and not at the same moment') FROM came;

SELECT * FROM finish();
