-- SELECT .. FROM convex_changes(..) LIMIT 10 read the whole change log, because
-- PostgreSQL keeps all rows of a function in FROM before it gives the first.
-- The function streams: what is not asked for is not read.

\ir ../pgtap/lib/setup.sql
SELECT plan(26);

SELECT emu.server('convex') \g /dev/null
SELECT emu.config('{"delta_limit": 5}') \g /dev/null
SELECT emu.insert('notes', '{"x": 0}') \g /dev/null
SELECT convex_snapshot('convex') AS start \gset
SELECT emu.insert('notes', jsonb_build_object('x', n)) FROM generate_series(1, 200) AS n \g /dev/null

-- How many pages were asked for, since this was called last.
CREATE FUNCTION pages() RETURNS bigint LANGUAGE plpgsql AS
$$
DECLARE
	n bigint := (SELECT count(*) FROM emu.journal() AS j WHERE j ->> 'path' = '/api/document_deltas');
BEGIN
	PERFORM emu.clear_journal();
	RETURN n;
END
$$;
CREATE FUNCTION state(query text) RETURNS text LANGUAGE sql AS
$$ SELECT coalesce(emu.failure(query) ->> 'sqlstate', 'no error') $$;
SELECT pages() \g /dev/null

SELECT is((SELECT count(*) FROM convex_changes('convex', :start)), 201::bigint, 'the whole log');
SELECT cmp_ok(pages(), '>=', 40::bigint, 'has many pages');
SELECT is((SELECT count(*) FROM (SELECT * FROM convex_changes('convex', :start) LIMIT 1) AS c), 1::bigint, 'one row');
SELECT is(pages(), 1::bigint, 'is one page');
SELECT is((SELECT array_agg(document ->> 'x') FROM (SELECT * FROM convex_changes('convex', :start) LIMIT 10) AS c), ARRAY['1', '2', '3', '4', '5', '6', '7', '8', '9', '10'], 'ten rows');
SELECT cmp_ok(pages(), '<=', 3::bigint, 'are two pages, and one that is under way');
SELECT is((SELECT document ->> 'x' FROM convex_changes('convex', :start) WHERE document ->> 'x' = '7' LIMIT 1), '7', 'a condition ends it at the row that was looked for');
SELECT cmp_ok(pages(), '<=', 3::bigint, 'and reads no further');
SELECT is(EXISTS (SELECT FROM convex_changes('convex', :start) WHERE id IS NOT NULL), true, 'EXISTS');
SELECT cmp_ok(pages(), '<=', 2::bigint, 'as well');
SELECT is((SELECT count(*) FROM (SELECT convex_changes('convex', :start) LIMIT 3) AS c), 3::bigint, 'in the select list');
SELECT cmp_ok(pages(), '<=', 2::bigint, 'as in FROM');
PREPARE first_rows(bigint, int) AS SELECT count(*) FROM (SELECT * FROM convex_changes('convex', $1) LIMIT $2) AS c;
SET plan_cache_mode = force_generic_plan;
EXECUTE first_rows(:start, 3) \g /dev/null
RESET plan_cache_mode;
SELECT cmp_ok(pages(), '<=', 2::bigint, 'and with a generic plan');

-- One look-up for each row, each of which ends by itself.
SELECT is((SELECT count(c.id) FROM generate_series(1, 3) AS n, LATERAL (SELECT * FROM convex_changes('convex', :start + n - n) LIMIT 2) AS c), 6::bigint, 'LATERAL');
SELECT cmp_ok(pages(), '<=', 6::bigint, 'begins anew for each row');

-- Two at once over one connection.
SELECT is((SELECT count(*) FROM (SELECT a.id, b.id FROM convex_changes('convex', :start) AS a JOIN convex_changes('convex', :start) AS b ON a.ts = b.ts AND a.id = b.id) AS c), 200::bigint, 'two that are read side by side');
SELECT is((SELECT count(*) FROM (SELECT (convex_changes('convex', :start)).id, (convex_changes('convex', :start)).ts LIMIT 12) AS c), 12::bigint, 'in one select list, too');
SELECT pages() \g /dev/null

-- Cursors.
BEGIN;
DECLARE few CURSOR FOR SELECT document ->> 'x' AS x FROM convex_changes('convex', :start);
FETCH 2 FROM few \g /dev/null
SAVEPOINT s;
SELECT is(state('SELECT 1 / (count(*) - 4) FROM (SELECT * FROM convex_changes(''convex'', ' || :start || ') LIMIT 4) AS c'), '22012', 'a subtransaction that fails beside it');
ROLLBACK TO s;
FETCH 1 FROM few \gset
SELECT is(:'x'::text, '3', 'does not disturb a cursor');
CLOSE few;
SELECT cmp_ok(pages(), '<=', 4::bigint, 'which reads as far as it is fetched');
DECLARE held CURSOR WITH HOLD FOR SELECT id FROM convex_changes('convex', :start) LIMIT 8;
COMMIT;
SELECT cmp_ok(pages(), '<=', 3::bigint, 'one WITH HOLD as far as its limit');
FETCH ALL FROM held \g /dev/null
CLOSE held;
SELECT is((SELECT count(*) FROM convex_fdw_get_connections()), 1::bigint, 'and the connection serves all of them');

-- Who may call it.
CREATE ROLE reader;
GRANT USAGE ON FOREIGN SERVER convex TO reader;
SELECT format('CREATE USER MAPPING FOR reader SERVER convex OPTIONS (deploy_key %L)', emu.key()) \gexec
GRANT EXECUTE ON FUNCTION state(text), emu.failure(text) TO reader;
GRANT USAGE ON SCHEMA emu TO reader;
SET ROLE reader;
SELECT is(state('SELECT * FROM convex_changes(''convex'', 1)'), '42501', 'a role needs EXECUTE');
SELECT is(state('SELECT * FROM convex_changes_stream(''convex'', 1, NULL, NULL)'), '42501', 'and has no way around it');
RESET ROLE;
GRANT EXECUTE ON FUNCTION convex_changes(name, bigint, text[], int) TO reader;
SET ROLE reader;
SELECT is(state('SELECT * FROM convex_changes(''convex'', ' || :start || ') LIMIT 1'), 'no error', 'it needs no right on anything below');
SELECT is(state('SELECT * FROM convex_changes_stream(''convex'', ' || :start || ', NULL, NULL) LIMIT 1'), 'no error', 'either way');
RESET ROLE;

SELECT * FROM finish();
