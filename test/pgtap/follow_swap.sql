-- Subscriptions: what happens to tables behind the change log, and to cursors
-- that are of no use, is mended without hands.

\ir lib/setup.sql
SELECT plan(84);

SELECT emu.server() \g /dev/null

CREATE FUNCTION events(since bigint DEFAULT 0) RETURNS text[] LANGUAGE sql AS
$$ SELECT coalesce(array_agg(kind || coalesce(' ' || table_name, '') ORDER BY eventid), '{}') FROM convex_stat_subscription_event WHERE eventid > since $$;
CREATE FUNCTION last_event() RETURNS bigint LANGUAGE sql AS
$$ SELECT coalesce(max(eventid), 0) FROM convex_stat_subscription_event $$;
-- Documents and rows as (_id, text, _ts is not compared: it is checked by itself).
CREATE FUNCTION source(table_name text, ts bigint DEFAULT NULL) RETURNS SETOF text LANGUAGE sql AS
$$ SELECT (d ->> '_id') || ' ' || regexp_replace(d ->> 'x', '\.0$', '') FROM emu.dump(table_name, '', ts) AS d $$;

SELECT emu.insert('a', VARIADIC ARRAY(SELECT jsonb_build_object('x', 'a' || i) FROM generate_series(1, 30) AS i)) \g /dev/null
SELECT emu.insert('b', VARIADIC ARRAY(SELECT jsonb_build_object('x', 'b' || i) FROM generate_series(1, 30) AS i)) \g /dev/null
SELECT emu.config('{"page_limit": 10}') \g /dev/null
SELECT convex_create_subscription('app', 'convex') \g /dev/null
CALL convex_sync('app');
SELECT bag_eq($$ SELECT _id || ' ' || x FROM app.a $$, $$ SELECT source('a') $$, 'a table of several pages is loaded');
SELECT is((SELECT min(checked_at) FROM convex_stat_subscription_rel) IS NULL, false, 'and checked at once');

-- ------------------------------------------------------------------ clear

SELECT last_event() AS mark \gset
CREATE FUNCTION clear(VARIADIC tables text[]) RETURNS void LANGUAGE plpgsql AS
$$
BEGIN
	EXECUTE format('COPY (SELECT 1) TO PROGRAM %L', 'cat >/dev/null; curl -q -sS --fail --noproxy ''*'' -X PUT -o /dev/null -H ''Content-Type: application/json'' -H '
		|| emu.shell_quote('Authorization: Convex ' || emu.key()) || ' --data ' || emu.shell_quote(jsonb_build_object('tableNames', tables)::text)
		|| ' ' || emu.shell_quote(current_setting('emu.url') || '/api/streaming_import/clear_tables'));
END
$$;
SELECT clear('a') \g /dev/null
CALL convex_sync('app');
SELECT is((SELECT count(*) FROM app.a), 30::bigint, 'a clear is not in the change log');
SELECT convex_refresh_subscription('app') \g /dev/null
CALL convex_sync('app');
SELECT is((SELECT count(*) FROM app.a), 0::bigint, 'convex_refresh_subscription mends it');
SELECT is(events(:mark), '{"table_replaced a","table_resynced a"}', 'and the events tell');
SELECT is((SELECT count(*) FROM app.b), 30::bigint, 'other tables are left alone');
SELECT emu.insert('a', '{"x": "new"}') \g /dev/null
CALL convex_sync('app');
SELECT bag_eq($$ SELECT _id || ' ' || x FROM app.a $$, $$ SELECT source('a') $$, 'the new table is followed');
SELECT 'app.a'::regclass::oid AS oid_before \gset

-- ------------------------------------------------------------------ import

CREATE FUNCTION import(table_name text, mode text, lines text, suffix text DEFAULT '') RETURNS void LANGUAGE plpgsql AS
$$
BEGIN
	EXECUTE format('COPY (SELECT 1) TO PROGRAM %L', 'cat >/dev/null; printf %s ' || emu.shell_quote(lines)
		|| ' | curl -q -sS --noproxy ''*'' -X POST -o /dev/null -H ''Content-Type: application/octet-stream'' -H '
		|| emu.shell_quote('Authorization: Convex ' || emu.key()) || ' --data-binary @- '
		|| emu.shell_quote(current_setting('emu.url') || '/api/import?format=jsonLines&mode=' || mode || '&tableName=' || table_name)
		|| suffix);
END
$$;
SELECT last_event() AS mark \gset
SELECT import('a', 'replace', e'{"x": "i1"}\n{"x": "i2"}\n{"x": "i3"}\n') \g /dev/null
SELECT is((SELECT count(*) FROM emu.dump('a')), 3::bigint, 'an import replaces a table');
CALL convex_sync('app');
SELECT convex_refresh_subscription('app') \g /dev/null
CALL convex_sync('app');
SELECT bag_eq($$ SELECT _id || ' ' || x FROM app.a $$, $$ SELECT source('a') $$, 'and the mirror is equal after one convex_refresh_subscription');
SELECT is(events(:mark), '{"table_replaced a","table_resynced a"}', 'the events tell');

-- Polls before, during and after.
SELECT convex_create_subscription('past', 'convex', '{a}', mode => 'history') \g /dev/null
CALL convex_sync('past');
SELECT emu.config('{"import_hold": "in_progress", "import_batch_rows": 1}') \g /dev/null
SELECT import('a', 'replace', e'{"x": "j1"}\n{"x": "j2"}\n{"x": "j3"}\n', ' >/dev/null 2>&1 &') \g /dev/null
SELECT ok(emu.wait_until($$ EXISTS (SELECT FROM jsonb_array_elements(emu.state() -> 'tables') AS t WHERE t ->> 'table' = 'a' AND t ->> 'state' = 'hidden' AND (t ->> 'documents')::int > 0) $$), 'while an import is going on');
CALL convex_sync('app');
SELECT convex_refresh_subscription('app') \g /dev/null
CALL convex_sync('app');
SELECT bag_eq($$ SELECT _id || ' ' || x FROM app.a $$, $$ SELECT source('a') $$, 'a refresh leaves the rows that Convex shows');
CALL convex_sync('past');
SELECT convex_refresh_subscription('past') \g /dev/null
CALL convex_sync('past');
CREATE FUNCTION present() RETURNS SETOF text LANGUAGE sql AS
$$ SELECT _id || ' ' || x FROM (SELECT DISTINCT ON (_id) * FROM past.a ORDER BY _id, _ts DESC) AS r WHERE NOT _deleted $$;
SELECT bag_eq('SELECT present()', $$ SELECT source('a') $$, 'a history says of the others that they are gone');
SELECT emu.config('{"import_hold": null, "import_batch_rows": 8000}') \g /dev/null
SELECT ok(emu.wait_until($$ (SELECT count(*) FROM emu.dump('a') AS d WHERE d ->> 'x' LIKE 'j%') = 3 $$), 'when it has ended');
CALL convex_sync('app');
SELECT convex_refresh_subscription('app') \g /dev/null
CALL convex_sync('app');
SELECT bag_eq($$ SELECT _id || ' ' || x FROM app.a $$, $$ SELECT source('a') $$, 'the mirror is equal after a refresh');
CALL convex_sync('past');
SELECT convex_refresh_subscription('past') \g /dev/null
CALL convex_sync('past');
SELECT bag_eq('SELECT present()', $$ SELECT source('a') $$, 'and so is the history: they are there, under their revisions');
SELECT is((SELECT count(*) FROM convex_stat_subscription_event WHERE name = 'past' AND kind = 'table_error'), 0::bigint, 'without an error');
SELECT last_event() AS mark \gset
SELECT convex_refresh_subscription('past') \g /dev/null
CALL convex_sync('past');
SELECT is(events(:mark), '{}', 'and nothing is left to be replaced');
SELECT convex_drop_subscription('past', true) \g /dev/null

-- ------------------------------------------------------------------ drop, and again

SELECT last_event() AS mark \gset
SELECT emu.mutate('[{"op": "drop_table", "table": "b"}]') \g /dev/null
SELECT convex_refresh_subscription('app') \g /dev/null
CALL convex_sync('app');
SELECT is((SELECT state FROM convex_stat_subscription_rel WHERE table_name = 'b'), 'dropped', 'a table that is no longer listed is dropped');
SELECT is((SELECT count(*) FROM app.b), 30::bigint, 'its rows stay');
SELECT is(events(:mark), '{"table_dropped b"}', 'and an event tells');
SELECT emu.insert('b', '{"x": "again"}', '{"x": "and again"}') \g /dev/null
CALL convex_sync('app');
SELECT convex_refresh_subscription('app') \g /dev/null
CALL convex_sync('app');
SELECT is((SELECT state FROM convex_stat_subscription_rel WHERE table_name = 'b'), 'ready', 'a table that comes back is followed again');
SELECT bag_eq($$ SELECT _id || ' ' || x FROM app.b $$, $$ SELECT source('b') $$, 'with what it holds now');

-- Dropped and made again between two looks.
SELECT last_event() AS mark \gset
SELECT emu.mutate('[{"op": "drop_table", "table": "b"}]') \g /dev/null
SELECT emu.insert('b', '{"x": "third"}') \g /dev/null
SELECT convex_refresh_subscription('app') \g /dev/null
CALL convex_sync('app');
SELECT bag_eq($$ SELECT _id || ' ' || x FROM app.b $$, $$ SELECT source('b') $$, 'a table that was dropped and made again between two looks is noticed');
SELECT is(events(:mark), '{"table_replaced b","table_resynced b"}', 'as replaced');

-- ------------------------------------------------------------------ new tables

SELECT last_event() AS mark \gset
SELECT emu.insert('late', VARIADIC ARRAY(SELECT jsonb_build_object('x', 'l' || i) FROM generate_series(1, 25) AS i)) \g /dev/null
CALL convex_sync('app');
SELECT is(events(:mark), '{"table_new late","table_joined late"}', 'a table that the changes name joins');
SELECT bag_eq($$ SELECT _id || ' ' || x FROM app.late $$, $$ SELECT source('late') $$, 'with all its rows');

-- A table joins while it and the others change at every request.
SELECT emu.insert('busy', VARIADIC ARRAY(SELECT jsonb_build_object('x', 0) FROM generate_series(1, 35) AS i)) \g /dev/null
SELECT emu.fault('{"action": "mutate", "count": 60, "ops": [{"op": "increment_all", "table": "busy", "field": "x", "by": 1}, {"op": "insert", "table": "a", "doc": {"x": "more"}}, {"op": "insert", "table": "busy", "doc": {"x": 0}}]}') \g /dev/null
CALL convex_sync('app');
SELECT emu.clear_faults() \g /dev/null
CALL convex_sync('app');
SELECT is((SELECT state FROM convex_stat_subscription_rel WHERE table_name = 'busy'), 'ready', 'a table joins under load');
SELECT bag_eq($$ SELECT _id || ' ' || x FROM app.busy $$, $$ SELECT source('busy') $$, 'without a lost or doubled change');
SELECT bag_eq($$ SELECT _id || ' ' || x FROM app.a $$, $$ SELECT source('a') $$, 'nor one of the others');

-- ------------------------------------------------------------------ resync

SELECT last_event() AS mark \gset
DELETE FROM app.late WHERE x IN ('l3', 'l7');
UPDATE app.late SET x = 'wrong' WHERE x = 'l9';
INSERT INTO app.late (_id, x, _ts) VALUES ('extra', 'extra', 1);
SELECT array_agg(xmin::text ORDER BY x) AS kept FROM app.late WHERE x IN ('l1', 'l2') \gset
SELECT convex_resync_table('app', 'late') \g /dev/null
SELECT is((SELECT state FROM convex_stat_subscription_rel WHERE table_name = 'late'), 'resyncing', 'a table can be loaded again');
CALL convex_sync('app');
SELECT bag_eq($$ SELECT _id || ' ' || x FROM app.late $$, $$ SELECT source('late') $$, 'which mends what was changed by hand');
SELECT is((SELECT array_agg(xmin::text ORDER BY x) FROM app.late WHERE x IN ('l1', 'l2')), :'kept', 'and leaves rows alone that are right');
SELECT is('app.a'::regclass::oid, :oid_before::oid, 'no reload changes a table''s OID');

-- ------------------------------------------------------------------ cursors of no use

SELECT last_event() AS mark \gset
SELECT emu.mutate('[{"op": "delete_all", "table": "late"}, {"op": "insert", "table": "late", "doc": {"x": "after"}}]') \g /dev/null
SELECT emu.config(jsonb_build_object('retention_floor', (emu.state() ->> 'head')::bigint)) \g /dev/null
CALL convex_sync('app', 2);
SELECT is((SELECT phase FROM convex_stat_subscription), 'reloading', 'a cursor out of retention leads to a new snapshot');
SELECT is((SELECT count(*) FROM app.late), 25::bigint, 'while the old rows are served');
CALL convex_sync('app');
SELECT is((SELECT count(*) FROM unnest(events(:mark)) AS e WHERE e = 'resnapshot'), 1::bigint, 'with one event');
SELECT bag_eq($$ SELECT _id || ' ' || x FROM app.late $$, $$ SELECT source('late') $$, 'then the mirror is right');
SELECT bag_eq($$ SELECT _id || ' ' || x FROM app.busy $$, $$ SELECT source('busy') $$, 'in all tables');
SELECT is((SELECT phase FROM convex_stat_subscription), 'following', 'and the subscription follows');
SELECT emu.config('{"retention_floor": null}') \g /dev/null

SELECT last_event() AS mark \gset
SELECT emu.mutate('[{"op": "insert", "table": "late", "doc": {"x": "once more"}}]') \g /dev/null
UPDATE convex_subscription_state SET cursor = cursor + 100000000000000000;
CALL convex_sync('app');
SELECT is((SELECT count(*) FROM unnest(events(:mark)) AS e WHERE e = 'resnapshot'), 1::bigint, 'a cursor ahead of the server leads to a new snapshot, too');
SELECT bag_eq($$ SELECT _id || ' ' || x FROM app.late $$, $$ SELECT source('late') $$, 'and the mirror is right');
SELECT is((SELECT applied_ts FROM convex_stat_subscription), (emu.state() ->> 'head')::bigint, 'at the head');

-- ------------------------------------------------------------------ pages and walks

-- Interrupted walks go on where they stopped.
SELECT emu.insert('long', VARIADIC ARRAY(SELECT jsonb_build_object('x', 'l' || i) FROM generate_series(1, 95) AS i)) \g /dev/null
SELECT convex_create_subscription('walk', 'convex', '{long}') \g /dev/null
SELECT emu.clear_journal() \g /dev/null
CALL convex_sync('walk', 3);
SELECT is((SELECT rows FROM convex_stat_progress_snapshot WHERE name = 'walk'), 30::numeric, 'max_pages stops a walk');
CALL convex_sync('walk', 4);
CALL convex_sync('walk');
SELECT bag_eq($$ SELECT _id || ' ' || x FROM walk.long $$, $$ SELECT source('long') $$, 'which goes on where it stopped');
SELECT cmp_ok((SELECT count(*) FROM emu.journal('/api/list_snapshot') AS r WHERE NOT r -> 'body' -> 'selection' -> '' -> 'long' ? '_id'), '<=', 12::bigint, 'without asking for more than a page again at each stop');

-- A snapshot that is no longer served: once more, then it says so.
SELECT convex_create_subscription('slow', 'convex', '{long}') \g /dev/null
CALL convex_sync('slow', 3);
SELECT emu.fault('{"action": "status", "status": 400, "code": "SnapshotTooOld", "path": "/api/list_snapshot", "skip": 0, "count": 1}') \g /dev/null
CALL convex_sync('slow', 1);
SELECT is((SELECT array_agg(kind) FROM convex_stat_subscription_event WHERE name = 'slow' AND kind LIKE 'load%'), '{load_restarted}', 'a walk whose snapshot is gone starts again once');
CALL convex_sync('slow', 3);
SELECT emu.fault('{"action": "status", "status": 400, "code": "SnapshotTooOld", "path": "/api/list_snapshot", "skip": 0, "count": 1}') \g /dev/null
CALL convex_sync('slow', 1);
SELECT is((SELECT phase FROM convex_stat_subscription WHERE name = 'slow'), 'load_too_slow', 'and says at the second time that it cannot keep up');
SELECT matches((SELECT detail FROM convex_stat_subscription_event WHERE name = 'slow' AND kind = 'load_too_slow'), '\d+ pages, \d+ rows in \d+ s', 'with the rate that was measured');
SELECT emu.clear_faults() \g /dev/null
SELECT convex_enable_subscription('slow') \g /dev/null
CALL convex_sync('slow');
SELECT bag_eq($$ SELECT _id || ' ' || x FROM slow.long $$, $$ SELECT source('long') $$, 'until it is enabled again');

-- Beside others that are followed, a table that cannot keep up waits alone.
SELECT emu.insert('brief', '{"x": "1"}', '{"x": "2"}') \g /dev/null
SELECT convex_create_subscription('aside', 'convex', '{brief,long}') \g /dev/null
CALL convex_sync('aside');
SELECT convex_resync_table('aside', 'long') \g /dev/null
CALL convex_sync('aside', 6);
SELECT emu.fault('{"action": "status", "status": 400, "code": "SnapshotTooOld", "path": "/api/list_snapshot", "skip": 0, "count": 1}') \g /dev/null
CALL convex_sync('aside', 8);
SELECT emu.fault('{"action": "status", "status": 400, "code": "SnapshotTooOld", "path": "/api/list_snapshot", "skip": 0, "count": 1}') \g /dev/null
SELECT emu.insert('brief', '{"x": "3"}') \g /dev/null
CALL convex_sync('aside');
SELECT is((SELECT array_agg(kind ORDER BY eventid) FROM convex_stat_subscription_event WHERE name = 'aside' AND kind LIKE 'load%'), '{load_restarted,load_too_slow}', 'a reload that loses its snapshot twice');
SELECT is((SELECT phase FROM convex_stat_subscription WHERE name = 'aside'), 'following', 'does not stop the subscription');
SELECT ok((SELECT retry_at > now() AND error_message ~ 'pages' FROM convex_stat_subscription_rel WHERE name = 'aside' AND table_name = 'long'), 'but waits');
SELECT is((SELECT count(*) FROM aside.brief), 3::bigint, 'while the others go on');
SELECT convex_enable_subscription('aside') \g /dev/null
CALL convex_sync('aside');
SELECT is((SELECT array_agg(DISTINCT state) FROM convex_stat_subscription_rel WHERE name = 'aside'), '{ready}', 'until it is enabled again');
SELECT convex_drop_subscription('aside', true) \g /dev/null

-- A table becomes visible while the next one walks already.
SELECT convex_create_subscription('turns', 'convex', '{brief,long}') \g /dev/null
CALL convex_sync('turns');
SELECT emu.config('{"delta_limit": 5}') \g /dev/null
SELECT emu.insert('brief', jsonb_build_object('x', i::text)) FROM generate_series(3, 60) AS i \g /dev/null
SELECT convex_resync_table('turns', 'brief') \g /dev/null
CALL convex_sync('turns', 14);
SELECT is((SELECT load FROM convex_stat_subscription_rel WHERE name = 'turns' AND table_name = 'brief'), 'indexing', 'a table is loaded at a timestamp that the common cursor has not reached');
SELECT convex_resync_table('turns', 'long') \g /dev/null
CALL convex_sync('turns');
SELECT is((SELECT array_agg(state) FROM convex_stat_subscription_rel WHERE name = 'turns'), '{ready,ready}', 'it becomes visible while another one walks, which is not disturbed');
SELECT bag_eq($$ SELECT _id || ' ' || x FROM turns.long $$, $$ SELECT source('long') $$, 'both are complete: one');
SELECT bag_eq($$ SELECT _id || ' ' || x FROM turns.brief $$, $$ SELECT source('brief') $$, 'and the other');
SELECT emu.config('{"delta_limit": 128}') \g /dev/null

-- Changes of a table that has waited are gone by then, while another one walks.
SELECT convex_create_subscription('apart', 'convex', '{brief,long}') \g /dev/null
CALL convex_sync('apart');
ALTER TABLE apart.brief ADD CONSTRAINT never CHECK (x <> 'bad');
SELECT emu.insert('brief', '{"x": "bad"}') \g /dev/null
CALL convex_sync('apart');
SELECT convex_resync_table('apart', 'long') \g /dev/null
CALL convex_sync('apart', 6);
SELECT is((SELECT array_agg(load ORDER BY table_name) FROM convex_stat_subscription_rel WHERE name = 'apart'), '{catching_up,walking}', 'a table waits while another one walks');
ALTER TABLE apart.brief DROP CONSTRAINT never;
SELECT convex_enable_subscription('apart') \g /dev/null
SELECT emu.fault('{"action": "status", "status": 400, "code": "InvalidWindowToReadDocuments", "path": "/api/document_deltas", "count": 1}') \g /dev/null
CALL convex_sync('apart');
SELECT is((SELECT array_agg(state) FROM convex_stat_subscription_rel WHERE name = 'apart'), '{ready,ready}', 'one that cannot catch up is loaded again, and the walk is not disturbed');
SELECT is((SELECT table_name FROM convex_stat_subscription_event WHERE name = 'apart' AND kind = 'resync' AND detail ~ 'no longer keeps'), 'brief', 'an event says so');
SELECT bag_eq($$ SELECT _id || ' ' || x FROM apart.long $$, $$ SELECT source('long') $$, 'both are complete: one');
SELECT bag_eq($$ SELECT _id || ' ' || x FROM apart.brief $$, $$ SELECT source('brief') $$, 'and the other');

-- A new field that a load meets gets its column in the mirror, too.
SELECT emu.insert('mixed', VARIADIC ARRAY(SELECT jsonb_build_object('x', i::text) FROM generate_series(1, 5) AS i)) \g /dev/null
SELECT convex_create_subscription('mixed', 'convex', '{mixed}') \g /dev/null
CALL convex_sync('mixed');
SELECT emu.config('{"delta_limit": 1}') \g /dev/null
SELECT emu.insert('mixed', document) FROM jsonb_array_elements('[{"x": "6"}, {"x": "7"}, {"x": "8"}, {"x": "n", "f": 1.5}, {"x": "t", "f": "text"}]') AS document \g /dev/null
SELECT convex_resync_table('mixed', 'mixed') \g /dev/null
CALL convex_sync('mixed');
CALL convex_sync('mixed');
SELECT is((SELECT state FROM convex_stat_subscription_rel WHERE name = 'mixed'), 'ready', 'a load meets a new field whose values are of two types before the mirror does');
SELECT results_eq($$ SELECT x, coalesce(_extra -> 'f', to_jsonb(f)) #>> '{}' FROM mixed.mixed WHERE x IN ('n', 't') ORDER BY x $$, $$ VALUES ('n', '1.5'), ('t', 'text') $$, 'and nothing is lost');
SELECT emu.config('{"delta_limit": 128}') \g /dev/null

-- A table that goes and comes again before it was loaded.
SELECT convex_create_subscription('again', 'convex', '{brief,mixed}') \g /dev/null
SELECT convex_alter_subscription('again', tables => '{brief}') \g /dev/null
CALL convex_sync('again');
SELECT is((SELECT state FROM convex_stat_subscription_rel WHERE name = 'again' AND table_name = 'mixed'), 'dropped', 'a table that is no longer selected is dropped');
SELECT convex_alter_subscription('again', tables => '{brief,mixed}') \g /dev/null
SELECT emu.insert('mixed', '{"x": "9"}') \g /dev/null
CALL convex_sync('again', 2);
SELECT emu.insert('mixed', '{"x": "10"}') \g /dev/null
CALL convex_sync('again');
SELECT is((SELECT state FROM convex_stat_subscription_rel WHERE name = 'again' AND table_name = 'mixed'), 'ready', 'and joins when it is selected again, though it never had a mirror');
SELECT bag_eq($$ SELECT _id || ' ' || x FROM again.mixed $$, $$ SELECT source('mixed') $$, 'with all of its documents');

-- Empty pages.
SELECT emu.config('{"delta_limit": 1}') \g /dev/null
SELECT emu.call('POST', '/_emulator/mutate', jsonb_build_object('rows_per_transaction', 1, 'ops',
	(SELECT jsonb_agg('{"op": "insert", "table": "noise", "doc": {}}'::jsonb) FROM generate_series(1, 1000)))) \g /dev/null
SELECT pages AS pages_before FROM convex_stat_subscription WHERE name = 'walk' \gset
CALL convex_sync('walk', 10);
SELECT pages AS pages_then, applied_ts AS applied_then FROM convex_stat_subscription WHERE name = 'walk' \gset
SELECT is(:pages_then - :pages_before, 10, 'the cursor is kept on each page, empty ones too');
CALL convex_sync('walk');
SELECT cmp_ok((SELECT pages FROM convex_stat_subscription WHERE name = 'walk'), '>=', (:pages_before + 1000)::bigint, 'a thousand pages without documents are passed');
SELECT cmp_ok((SELECT applied_ts FROM convex_stat_subscription WHERE name = 'walk'), '>', :applied_then::bigint, 'the cursor moves through them');
SELECT is((SELECT applied_ts FROM convex_stat_subscription WHERE name = 'walk'), (emu.state() ->> 'head')::bigint, 'up to the head');

-- ------------------------------------------------------------------ swaps by this database

SELECT emu.reset() \g /dev/null
SELECT convex_drop_subscription(name) FROM convex_stat_subscription \g /dev/null
SELECT emu.insert('shop', '{"x": "one"}', '{"x": "two"}') \g /dev/null
SELECT emu.insert('stock', '{"x": "three"}') \g /dev/null
CREATE FOREIGN TABLE shop (x text) SERVER convex;
SELECT emu.server('again') \g /dev/null
SELECT convex_create_subscription('swaps', 'again', '{shop,stock}') \g /dev/null
CALL convex_sync('swaps');
SELECT is((SELECT array_agg(x ORDER BY x) FROM swaps.shop), '{one,two}', 'two tables are followed, by another server of the same deployment');
SELECT last_event() AS mark \gset
BEGIN;
TRUNCATE shop;
ROLLBACK;
CALL convex_sync('swaps');
SELECT is(events(:mark), '{}', 'a TRUNCATE that is rolled back asks for nothing');
BEGIN ISOLATION LEVEL REPEATABLE READ;
TRUNCATE shop;
COMMIT;
CALL convex_sync('swaps');
SELECT is((SELECT count(*) FROM swaps.shop), 0::bigint, 'TRUNCATE of a foreign table asks for the check by itself');
SELECT is(events(:mark), '{swap_seen,"table_replaced shop","table_resynced shop"}', 'and the events tell');
SELECT is(convex_import('convex', 'stock', $$ SELECT 'row ' || n AS x FROM generate_series(1, 3) AS n $$, 'replace'), 3::bigint, 'an import replaces the other table');
CALL convex_sync('swaps');
SELECT is((SELECT array_agg(x ORDER BY x) FROM swaps.stock), '{row 1,row 2,row 3}', 'and is noticed as well');
SELECT convex_clear_tables('convex', 'stock') \g /dev/null
CALL convex_sync('swaps');
SELECT is((SELECT count(*) FROM swaps.stock), 0::bigint, 'so is convex_clear_tables()');

-- ------------------------------------------------------------------ another deployment

SELECT emu.insert('long', '{"x": "stays"}') \g /dev/null
SELECT emu.server('moved', $$max_retries '0'$$) \g /dev/null
SELECT convex_create_subscription('moved', 'moved', '{long}') \g /dev/null
CALL convex_sync('moved');
CREATE FUNCTION move_to(url text) RETURNS void LANGUAGE plpgsql AS
$$ BEGIN EXECUTE format('ALTER SERVER moved OPTIONS (SET deployment_url %L)', url); END $$;
SELECT move_to('http://127.0.0.1:1') \g /dev/null
\set ON_ERROR_STOP 0
CALL convex_sync('moved');
\set ON_ERROR_STOP 1
SELECT move_to(current_setting('emu.url')) \g /dev/null
CALL convex_sync('moved');
SELECT is((SELECT count(*) FROM convex_stat_subscription_event WHERE name = 'moved' AND kind = 'resnapshot'), 0::bigint, 'a deployment that does not answer changes nothing');
SELECT move_to(replace(current_setting('emu.url'), '127.0.0.1', 'localhost')) \g /dev/null
SELECT emu.insert('long', '{"x": "moved"}') \g /dev/null
CALL convex_sync('moved');
SELECT is((SELECT array_agg(detail) FROM convex_stat_subscription_event WHERE name = 'moved' AND kind = 'resnapshot'), '{"deployment_url of the server was changed"}', 'under another address everything is loaded again');
SELECT bag_eq($$ SELECT _id || ' ' || x FROM moved.long $$, $$ SELECT source('long') $$, 'from there');
CALL convex_sync('moved');
SELECT is((SELECT count(*) FROM convex_stat_subscription_event WHERE name = 'moved' AND kind = 'resnapshot'), 1::bigint, 'once');

SELECT * FROM finish();
