-- An INSERT by key into a server that cannot be reached used up all repetitions
-- for the timestamp, again for another way to ask for it, and a third time for
-- the write.  The first request that finds no connection ends the statement, as
-- a read's does; so it is with the head of a subscription and convex_wait_for.

\ir ../pgtap/lib/setup.sql
\ir ../pgtap/lib/writes.sql
SELECT plan(4);

SELECT emu.server('convex', $$max_retries '2', max_retry_wait '1ms', connect_timeout '1s'$$) \g /dev/null
SELECT emu.insert('notes', '{"id": 1}') \g /dev/null
SELECT convex_create_subscription('followed', 'convex') \g /dev/null
CALL convex_sync('followed');
CREATE FOREIGN TABLE notes (id float8, name text) SERVER convex OPTIONS (primary_key 'id', flush 'statement');
ALTER SERVER convex OPTIONS (SET deployment_url 'http://127.0.0.1:1');

CREATE FUNCTION ends_with_first(statement text, first text) RETURNS text LANGUAGE sql AS
$$
	SELECT is(failed ->> 'sqlstate' || ': ' || substr(failed ->> 'detail', 1, length(first)), 'HV00N: ' || first, statement)
	FROM emu.failure(statement) AS failed
$$;
SELECT ends_with_first($$INSERT INTO notes VALUES (2, 'a')$$, 'POST /api/query got no answer after 3 attempts');
SELECT ends_with_first($$SELECT convex_wait_for('followed', timeout => '1 s')$$, 'POST /api/query_ts got no answer after 3 attempts');
SELECT ends_with_first($$SELECT * FROM notes$$, 'POST /api/list_snapshot got no answer after 3 attempts');

-- A server that answers, and does not know the route, is asked in another way.
ALTER SERVER convex OPTIONS (SET deployment_url :'emulator');
SELECT emu.fault('{"path": "/api/query_ts", "count": -1, "action": "status", "status": 404}'), emu.index('notes', '{id}') \g /dev/null
SELECT lives_ok($$INSERT INTO notes VALUES (2, 'a')$$, 'a server without query_ts is written to');

SELECT * FROM finish();
