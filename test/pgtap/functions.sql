-- The SQL functions, other than those that write.

\ir lib/setup.sql
SELECT plan(171);

SELECT emu.server() \g /dev/null
SELECT emu.seed('demo') \g /dev/null

CREATE FUNCTION state(statement text) RETURNS text LANGUAGE sql AS
$$ SELECT coalesce(emu.failure(statement) ->> 'sqlstate', 'no error') $$;

-- ------------------------------------------------------------------ what the deployment is

SELECT matches(convex_fdw_version(), '^1\.0', 'convex_fdw_version() tells the library''s version');
SELECT ok(convex_fdw_version() LIKE extversion || '%', 'which is that of the extension') FROM pg_extension WHERE extname = 'convex_fdw';

SELECT results_eq('SELECT component, table_name FROM convex_tables(''convex'') ORDER BY component COLLATE "C", table_name COLLATE "C"',
	$$ VALUES ('', 'channels'), ('', 'drafts'), ('', 'messages'), ('', 'users'), ('billing', 'invoices'), ('billing/ledger', 'entries') $$,
	'convex_tables() lists the tables of all components, empty ones too');
SELECT is((SELECT array_agg(c ORDER BY c COLLATE "C") FROM convex_tables('convex'), unnest(columns) AS c WHERE table_name = 'channels'),
	'{_creationTime,_id,capacity,members,name,owner,topic}', 'with the fields of each');
SELECT is((SELECT array_agg(c ORDER BY c COLLATE "C") FROM convex_tables('convex'), unnest(columns) AS c WHERE table_name = 'drafts'),
	'{_creationTime,_id}', 'an empty table has those that every document has');
SELECT emu.config('{"routes_missing": ["/api/get_table_column_names"]}') \g /dev/null
SELECT is((SELECT count(*) FROM convex_tables('convex')), 6::bigint, 'a server without get_table_column_names is asked for its schemas');
SELECT emu.config('{"routes_missing": []}') \g /dev/null

SELECT is((SELECT array_agg(key ORDER BY key) FROM jsonb_object_keys(convex_json_schemas('convex')) AS key), '{"",billing,billing/ledger}', 'convex_json_schemas() is by component');
SELECT ok(convex_json_schemas('convex') -> '' -> 'users' -> 'properties' ? 'email', 'and table, with JSON Schemas');
SELECT is(convex_json_schemas('convex') -> '' -> 'users' -> 'properties' ? '_ts', false, 'of documents, not of changes');
SELECT emu.config('{"json_schemas_error": "NoSchemaForExport"}') \g /dev/null
SELECT is(state('SELECT convex_json_schemas(''convex'')'), 'HV00L', 'it fails when Convex refuses to describe its tables');
SELECT is((SELECT count(*) FROM convex_tables('convex')), 6::bigint, 'which convex_tables() does not mind');
SELECT emu.config('{"json_schemas_error": null}') \g /dev/null

SELECT is(convex_snapshot('convex'), (emu.state() ->> 'head')::bigint, 'convex_snapshot() outside of a scan is the head');
SELECT is(pg_typeof(convex_snapshot('convex')), 'bigint'::regtype, 'as a bigint');

-- ------------------------------------------------------------------ convex_changes

CREATE TABLE mark (after bigint);
INSERT INTO mark SELECT convex_snapshot('convex');
SELECT after AS start FROM mark \gset
SELECT results_eq('SELECT * FROM convex_changes(''convex'', ' || :start || ')',
	format('VALUES (%s::bigint, NULL::text, NULL::text, NULL::text, NULL::boolean, NULL::jsonb)', :start),
	'without changes there is only the progress row');

-- Three transactions: two inserts in two components; a change; a delete.
SELECT answer -> 'ids' ->> 0 AS first_id, answer -> 'ids' ->> 1 AS second_id, answer ->> 'ts' AS first_ts
FROM emu.mutate('[{"op": "insert", "table": "notes", "doc": {"text": "one", "big": {"$integer": "/////////38="}, "bytes": {"$bytes": "AQI="}, "list": [1, null]}},
	{"op": "insert", "table": "notes", "component": "billing", "doc": {"text": "two"}}]') AS answer \gset
SELECT answer ->> 'ts' AS second_ts FROM emu.mutate(jsonb_build_array(jsonb_build_object('op', 'patch', 'table', 'notes', 'id', :'first_id', 'doc', '{"text": "three"}'::jsonb))) AS answer \gset
SELECT answer ->> 'ts' AS third_ts FROM emu.mutate(jsonb_build_array(jsonb_build_object('op', 'delete', 'table', 'notes', 'id', :'first_id'))) AS answer \gset

CREATE TABLE seen AS SELECT * FROM convex_changes('convex', :start) WITH ORDINALITY AS t (ts, component, table_name, id, deleted, document, place);
SELECT results_eq('SELECT ts, component, table_name, id, deleted, document ->> ''text'' FROM seen WHERE id IS NOT NULL ORDER BY ts, component',
	format($$ VALUES (%s::bigint, '', 'notes', %L, false, 'one'), (%s, 'billing', 'notes', %L, false, 'two'), (%s, '', 'notes', %L, false, 'three'), (%s, '', 'notes', %L, true, NULL) $$,
		:'first_ts', :'first_id', :'first_ts', :'second_id', :'second_ts', :'first_id', :'third_ts', :'first_id'),
	'each revision is a row with timestamp, component, table, id and document; a delete has no document');
SELECT ok((SELECT bool_and(ts >= before) FROM (SELECT ts, lag(ts) OVER (ORDER BY place) AS before FROM seen) AS s), 'in the order of the change log');
SELECT is((SELECT ROW (ts, component, table_name, id, deleted, document)::text FROM seen ORDER BY place DESC LIMIT 1), format('(%s,,,,,)', :'third_ts'), 'the last row tells only where to go on');
SELECT is((SELECT count(*) FROM seen WHERE id IS NULL), 1::bigint, 'there is one such row');
SELECT is((SELECT document - '_creationTime' FROM seen WHERE id = :'first_id' AND ts = :first_ts),
	jsonb_build_object('_id', :'first_id', 'text', 'one', 'big', 9223372036854775807, 'bytes', 'AQI=', 'list', '[1, null]'::jsonb),
	'a document is itself, without what the change log adds, and its integers are exact');
SELECT is((SELECT jsonb_typeof(document -> '_creationTime') FROM seen WHERE id = :'second_id'), 'number', 'with _creationTime as it is');
SELECT results_eq(format('SELECT * FROM convex_changes(''convex'', %s)', :'third_ts'), format('VALUES (%s::bigint, NULL::text, NULL::text, NULL::text, NULL::boolean, NULL::jsonb)', :'third_ts'),
	'going on from the progress row gives nothing twice');
SELECT is((SELECT count(*) FROM convex_changes('convex', :second_ts)), 2::bigint, 'after is exclusive');
SELECT is((SELECT count(*) FROM (SELECT convex_changes('convex', :start) AS change) AS s WHERE (change).id IS NOT NULL), 4::bigint, 'the function may stand in the select list');
SELECT is((SELECT array_agg((change).ts) FROM (SELECT convex_changes('convex', ts) AS change, generate_series(1, 2) FROM unnest(ARRAY[:second_ts, :third_ts]::bigint[]) AS ts) AS s WHERE (change).id IS NULL AND (change).ts IS NOT NULL),
	ARRAY[:third_ts, :third_ts]::bigint[], 'also several times and beside another set');

ALTER SERVER convex OPTIONS (ADD json_values 'encoded');
SELECT is((SELECT document -> 'big' FROM convex_changes('convex', :start) WHERE ts = :first_ts AND component = ''), '{"$integer": "/////////38="}', 'json_values encoded keeps Convex''s markers');
ALTER SERVER convex OPTIONS (DROP json_values);

-- tables
SELECT is((SELECT array_agg(component ORDER BY component) FROM convex_changes('convex', :start, '{notes}') WHERE id IS NOT NULL), '{"","",""}', 'tables chooses tables of the root component');
SELECT is((SELECT array_agg(id) FROM convex_changes('convex', :start, '{billing/notes}') WHERE id IS NOT NULL), ARRAY[:'second_id'], 'or of another one, by its path');
SELECT is((SELECT count(id) FROM convex_changes('convex', :start, '{notes,billing/notes,users}')), 4::bigint, 'or several');
SELECT is((SELECT array_agg(ts) FROM convex_changes('convex', :start, '{users}')), ARRAY[:third_ts]::bigint[], 'changes of other tables show in the progress row only');
SELECT is((SELECT array_agg(ts) FROM convex_changes('convex', :start, '{billing/ledger/entries}')), ARRAY[:third_ts]::bigint[], 'also for a nested component');
SELECT is((SELECT count(id) FROM convex_changes('convex', :start, NULL)), 4::bigint, 'null is all of them');
SELECT emu.clear_journal() \g /dev/null
SELECT * FROM convex_changes('convex', :start, '{notes,billing/notes}') \g /dev/null
SELECT is((SELECT entry -> 'body' -> 'selection' FROM emu.journal('/api/document_deltas') AS entry), '{"_other": "excluded", "": {"_other": "excluded", "notes": {"_other": "included"}},
	"billing": {"_other": "excluded", "notes": {"_other": "included"}}}', 'the choice is made by Convex');
SELECT is(state(format('SELECT * FROM convex_changes(''convex'', %s, %L)', :'start', tables)), '22023', format('tables %L is refused', tables))
FROM unnest(ARRAY['{}', '{"no table"}', '{_system}', '{""}', '{billing/}', '{NULL}']) AS tables;

SELECT emu.config('{"selection_supported": false}') \g /dev/null
SELECT is((SELECT count(id) FROM convex_changes('convex', :start)), 4::bigint, 'an old server gives the changes of all tables');
SELECT is((SELECT count(id) FROM convex_changes('convex', :start, '{billing/notes}')), 1::bigint, 'or of one');
SELECT is(state(format('SELECT * FROM convex_changes(''convex'', %s, ''{users,channels}'')', :'start')), 'HV00M', 'but it cannot choose several, which is an error');
SELECT emu.config('{"selection_supported": true}') \g /dev/null
SELECT emu.fault('{"action": "ignore_filter", "path": "/api/document_deltas"}') \g /dev/null
SELECT is(state(format('SELECT * FROM convex_changes(''convex'', %s, ''{users}'')', :'start')), 'HV00M', 'a change of a table that was not chosen is an error, never a row');

-- paging
SELECT emu.config('{"delta_limit": 5}') \g /dev/null
INSERT INTO mark SELECT convex_snapshot('convex');
SELECT max(after) AS start FROM mark \gset
SELECT emu.insert('notes', VARIADIC ARRAY(SELECT jsonb_build_object('n', n) FROM generate_series(1, size) AS n)) FROM unnest('{1,2,7,1,1,5,20,3}'::int[]) AS size \g /dev/null
SELECT emu.clear_journal() \g /dev/null
CREATE TABLE at_once AS SELECT * FROM convex_changes('convex', :start) WITH ORDINALITY AS t (ts, component, table_name, id, deleted, document, place);
SELECT is((SELECT count(DISTINCT id) FROM at_once), 40::bigint, 'changes of many pages come together');
SELECT is((SELECT count(*) FROM at_once), 41::bigint, 'once each, with one progress row');
SELECT is((SELECT place FROM at_once WHERE id IS NULL), 41::bigint, 'which is the last');
SELECT is((SELECT ts FROM at_once WHERE id IS NULL), (emu.state() ->> 'head')::bigint, 'and stands at the head');
SELECT cmp_ok((SELECT count(*) FROM emu.journal('/api/document_deltas')), '>=', 3::bigint, 'it took several requests');
SELECT ok((SELECT bool_and(ts >= before) FROM (SELECT ts, lag(ts) OVER (ORDER BY place) AS before FROM at_once) AS s), 'in the order of the change log over all pages');

CREATE TABLE piece_by_piece (round int, ts bigint, id text);
CREATE FUNCTION follow(after bigint, pages int, tables text[] DEFAULT NULL) RETURNS int LANGUAGE plpgsql AS
$$
DECLARE
	rounds int := 0;
	before bigint;
BEGIN
	LOOP
		before := after;
		rounds := rounds + 1;
		INSERT INTO piece_by_piece SELECT rounds, c.ts, c.id FROM convex_changes('convex', before, tables, pages) AS c;
		SELECT c.ts INTO STRICT after FROM piece_by_piece AS c WHERE c.round = rounds AND c.id IS NULL;
		EXIT WHEN after = before;
	END LOOP;
	RETURN rounds;
END
$$;
SELECT emu.clear_journal() \g /dev/null
SELECT cmp_ok(follow(:start, 1), '>=', 5, 'max_pages 1 goes on from progress row to progress row');
SELECT is((SELECT count(*) FROM emu.journal('/api/document_deltas')), (SELECT max(round) FROM piece_by_piece)::bigint, 'with one request a call');
SELECT results_eq('SELECT ts, id FROM piece_by_piece WHERE id IS NOT NULL ORDER BY ts, id', 'SELECT ts, id FROM at_once WHERE id IS NOT NULL ORDER BY ts, id', 'and gives each change once');
SELECT is((SELECT count(*) FROM (SELECT ts FROM piece_by_piece WHERE id IS NOT NULL GROUP BY ts HAVING count(DISTINCT round) > 1) AS torn), 0::bigint, 'no transaction is torn');
TRUNCATE piece_by_piece;
SELECT cmp_ok(follow(:start, 3), '<', 5, 'max_pages 3 takes fewer calls');
SELECT results_eq('SELECT ts, id FROM piece_by_piece WHERE id IS NOT NULL ORDER BY ts, id', 'SELECT ts, id FROM at_once WHERE id IS NOT NULL ORDER BY ts, id', 'and gives the same');
TRUNCATE piece_by_piece;
SELECT cmp_ok(follow(:start, 1, '{users}'), '>=', 5, 'pages without a chosen change are pages, too');
SELECT is((SELECT count(id) FROM piece_by_piece), 0::bigint, 'and have a progress row each');

SELECT is(state(format('SELECT * FROM convex_changes(''convex'', %s, max_pages => %s)', :'start', pages)), '22023', format('max_pages %s is refused', pages)) FROM unnest('{0,-1}'::int[]) AS pages;
SELECT is(state('SELECT * FROM convex_changes(''convex'', -1)'), '22023', 'a negative timestamp is refused');
SELECT is(state('SELECT * FROM convex_changes(''convex'', NULL)'), '22004', 'null for after is refused');

-- timestamps that cannot be served
SELECT emu.state() ->> 'head' AS head \gset
SELECT emu.failure(format('SELECT * FROM convex_changes(''convex'', %s)', :head + 1)) AS failed \gset
SELECT is(:'failed'::jsonb ->> 'sqlstate', '22023', 'a timestamp ahead of the server is an error');
SELECT ok(strpos(:'failed', :'head') > 0, 'that tells the head');
SELECT emu.config(jsonb_build_object('retention_floor', :head)) \g /dev/null
SELECT emu.failure(format('SELECT * FROM convex_changes(''convex'', %s)', :'start')) AS failed \gset
SELECT is(:'failed'::jsonb ->> 'sqlstate', 'HV00L', 'a timestamp that is out of retention is an error');
SELECT ok(:'failed'::jsonb ->> 'hint' <> '', 'that tells what to do');
SELECT is(state(format('SELECT * FROM convex_changes(''convex'', %s)', :'head')), 'no error', 'the oldest kept timestamp is served');
SELECT emu.config('{"retention_floor": null}') \g /dev/null

-- answers that cannot be right
SELECT emu.fault(jsonb_build_object('action', 'body', 'path', '/api/document_deltas', 'count', -1, 'body', format('{"values":[],"cursor":%s,"hasMore":true}', :'head'))) \g /dev/null
SELECT is(state(format('SELECT * FROM convex_changes(''convex'', %s)', :'head')), 'HV00M', 'the same cursor again is an error, not an endless loop');
SELECT is(state(format('SELECT * FROM convex_changes(''convex'', %s)', :'start')), 'HV00M', 'also on a later page');
SELECT is(state(format('SELECT * FROM convex_changes(''convex'', %s, max_pages => 1)', :'head')), 'HV00M', 'and on the last one that was asked for');
SELECT emu.clear_faults() \g /dev/null
SELECT emu.fault(jsonb_build_object('action', 'body', 'path', '/api/document_deltas', 'body', answer))
FROM unnest(ARRAY['', '[]', '{}', '{"values":[],"hasMore":false}', '{"values":[],"cursor":"1","hasMore":false}', '{"values":[],"cursor":1e18,"hasMore":false}']) AS answer \g /dev/null
SELECT is(state(format('SELECT * FROM convex_changes(''convex'', %s)', :'start')), 'HV00M', format('an answer of kind %s is an error', i)) FROM generate_series(1, 6) AS i;
SELECT emu.clear_faults() \g /dev/null
SELECT emu.fault('{"action": "status", "status": 503, "code": "TableSummariesUnavailable", "path": "/api/document_deltas", "skip": 2}') \g /dev/null
SELECT is((SELECT count(*) FROM convex_changes('convex', :start)), 41::bigint, 'a request that may be repeated is repeated');
SELECT is(emu.clear_faults() IS NOT NULL, true, 'and the session goes on');

-- ------------------------------------------------------------------ convex_test_connection

-- check name -> ok (null: unknown)
CREATE FUNCTION checks(server name DEFAULT 'convex') RETURNS jsonb LANGUAGE sql AS
$$ SELECT jsonb_object_agg(check_name, ok) FROM convex_test_connection(server) $$;

SELECT emu.clear_journal() \g /dev/null
SELECT checks() AS checks \gset
SELECT is(:'checks'::jsonb - 'data_sync', '{"url": true, "tls": true, "key": true, "plan": true, "data:view": true, "backups:import": true, "backups:view": true,
	"clock": true, "selection": true, "fivetran": true, "head": true, "functions": true}', 'with a full key everything is well');
SELECT is((SELECT array_agg(DISTINCT entry ->> 'path' ORDER BY entry ->> 'path') FROM emu.journal() AS entry WHERE entry ->> 'method' <> 'GET'), '{/api/list_snapshot,/api/query,/api/query_at_ts,/api/query_ts}', 'nothing is written');
SELECT is((SELECT count(*) FROM convex_test_connection('convex') WHERE check_name IS NULL OR (ok IS NOT TRUE AND detail IS NULL AND hint IS NULL)), 0::bigint, 'what is not well has a detail or a hint');
SELECT matches((SELECT detail FROM convex_test_connection('convex') WHERE check_name = 'head'), emu.state() ->> 'head', 'the head is told');

CREATE FUNCTION with_key(key text) RETURNS jsonb LANGUAGE plpgsql AS
$$
DECLARE
	result jsonb;
BEGIN
	EXECUTE format('ALTER USER MAPPING FOR CURRENT_USER SERVER convex OPTIONS (SET deploy_key %L)', key);
	result := checks();
	EXECUTE format('ALTER USER MAPPING FOR CURRENT_USER SERVER convex OPTIONS (SET deploy_key %L)', emu.key());
	RETURN result;
END
$$;
SELECT with_key('prod:happy-otter-123|wrong') AS checks \gset
SELECT is((:'checks'::jsonb -> 'url')::boolean, true, 'a wrong key reaches the server');
SELECT is((:'checks'::jsonb -> 'key')::boolean, false, 'and is not accepted');
SELECT is((SELECT bool_or(value = 'true') FROM jsonb_each(:'checks') WHERE key IN ('data:view', 'backups:import', 'backups:view')), false, 'and allows nothing');
SELECT with_key('prod:happy-otter-123|readonly') AS checks \gset
SELECT is((SELECT jsonb_object_agg(key, value) FROM jsonb_each(:'checks') WHERE key IN ('key', 'data:view', 'backups:import')), '{"key": true, "data:view": true, "backups:import": false}', 'a read-only key may read and not write');
SELECT is((checks() -> 'backups:import')::boolean, true, 'the full key is back');

SELECT emu.config('{"streaming_export": false}') \g /dev/null
SELECT checks() AS checks \gset
SELECT is((SELECT jsonb_object_agg(key, value) FROM jsonb_each(:'checks') WHERE key IN ('url', 'key', 'plan', 'backups:import')), '{"url": true, "key": true, "plan": false, "backups:import": true}',
	'a plan without streaming export may write and not read');
SELECT matches((SELECT hint FROM convex_test_connection('convex') WHERE check_name = 'plan'), 'writing', 'and the hint says so');
SELECT emu.failure('SELECT * FROM convex_tables(''convex'')') AS failed \gset
SELECT is(:'failed'::jsonb ->> 'sqlstate', '42501', 'reading fails on such a plan');
SELECT matches(:'failed'::jsonb ->> 'hint', '[Ww]riting', 'and that hint says so, too');
SELECT emu.config('{"streaming_export": true}') \g /dev/null

-- An old server: no selection, no fivetran route.
SELECT emu.config('{"selection_supported": false, "routes_missing": ["/api/streaming_import/apply_fivetran_operations"]}') \g /dev/null
SELECT checks() AS checks \gset
SELECT is((SELECT jsonb_object_agg(key, value) FROM jsonb_each(:'checks') WHERE key IN ('data:view', 'selection', 'fivetran')), '{"data:view": true, "selection": false, "fivetran": false}', 'what an old server lacks is told');
SELECT emu.fault(jsonb_build_object('action', 'body', 'path', '/api/list_snapshot', 'body',
	format('{"values":[],"snapshot":%s,"cursor":"another table","hasMore":true}', emu.state() ->> 'head'))) \g /dev/null
SELECT is((checks() -> 'selection')::boolean, false, 'an old server whose first table is empty is still told from one that obeys');
SELECT emu.config('{"selection_supported": true, "routes_missing": ["/api/test_streaming_export_connection"]}') \g /dev/null
SELECT is((checks() -> 'url')::boolean, false, 'a server that is not Convex is told from one');
SELECT emu.config('{"routes_missing": [], "clock_offset_ns": 3600000000000}') \g /dev/null
SELECT is((checks() -> 'clock')::boolean, false, 'a clock that is an hour off is told');
SELECT emu.config('{"clock_offset_ns": 0}') \g /dev/null

-- A port where nobody listens any more.
\set dead `python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print("http://127.0.0.1:%d" % s.getsockname()[1])'`
CREATE SERVER dead FOREIGN DATA WRAPPER convex_fdw OPTIONS (deployment_url :'dead', max_retries '0', connect_timeout '2s');
SELECT format('CREATE USER MAPPING FOR CURRENT_USER SERVER dead OPTIONS (deploy_key %L)', emu.key()) \gexec
SELECT is((checks('dead') -> 'url')::boolean, false, 'a server that cannot be reached is a row, not an error');
SELECT ok((SELECT detail <> '' AND hint <> '' FROM convex_test_connection('dead') WHERE check_name = 'url'), 'with a detail and a hint');
SELECT is(state('SELECT * FROM convex_tables(''dead'')'), 'HV00N', 'for the other functions it is an error');

-- A server that repeats the key.
SELECT emu.fault(jsonb_build_object('action', 'status', 'status', 401, 'code', 'BadAdminKey', 'message', 'no such key: ' || emu.key(), 'count', -1)) \g /dev/null
SELECT is((SELECT count(*) FROM convex_test_connection('convex') AS t WHERE strpos(t::text, split_part(emu.key(), '|', 2)) > 0), 0::bigint, 'a key that the server repeats is not shown');
SELECT is(strpos(emu.failure('SELECT * FROM convex_tables(''convex'')')::text, split_part(emu.key(), '|', 2)), 0, 'nor in an error');
SELECT is(state('SELECT * FROM convex_tables(''convex'')'), '28000', 'which is 28000');
SELECT emu.clear_faults() \g /dev/null

-- ------------------------------------------------------------------ connections

CREATE FOREIGN TABLE messages (sequence bigint) SERVER convex;
CREATE FUNCTION connections() RETURNS text[] LANGUAGE sql AS
$$ SELECT coalesce(array_agg(coalesce(server_name, '?') || CASE WHEN valid THEN ' valid' ELSE ' invalid' END ORDER BY 1), '{}') FROM convex_fdw_get_connections() $$;
SELECT emu.config('{"page_limit": 50}') \g /dev/null
SELECT convex_fdw_disconnect_all() \g /dev/null
SELECT is(connections(), '{}', 'a session without connections has none');
SELECT count(*) FROM messages \g /dev/null
SELECT is(connections(), '{convex valid}', 'a scan leaves a connection that is kept');
SELECT is(convex_fdw_disconnect('convex'), true, 'convex_fdw_disconnect() closes it');
SELECT is(connections(), '{}', 'and it is gone');
SELECT is(convex_fdw_disconnect('convex'), false, 'and says when there was none');
SELECT is(state('SELECT convex_fdw_disconnect(''nowhere'')'), '42704', 'an unknown server is an error');
SELECT lives_ok('SELECT count(*) FROM messages', 'the next scan connects again');
SELECT state('SELECT * FROM convex_tables(''dead'')') \g /dev/null
SELECT is(connections(), '{convex valid,dead valid}', 'each server has its connection');
SELECT is(convex_fdw_disconnect_all(), true, 'convex_fdw_disconnect_all() closes all');
SELECT is(connections(), '{}', 'and they are gone');
SELECT is(convex_fdw_disconnect_all(), false, 'and says when there was none');

BEGIN;
SELECT count(*) FROM messages \g /dev/null
SELECT is(connections(), '{convex valid}', 'a connection is not bound to a transaction');
SELECT is(convex_fdw_disconnect('convex'), true, 'and can be closed inside of one');
DECLARE c CURSOR FOR SELECT sequence FROM messages;
MOVE 1 IN c;
SET LOCAL client_min_messages = error;
SELECT is(convex_fdw_disconnect('convex'), false, 'a connection that a cursor uses is not closed');
SELECT is(convex_fdw_disconnect_all(), false, 'not even with all');
SET LOCAL client_min_messages = warning;
SELECT is(connections(), '{convex valid}', 'and stays');
CLOSE c;
SELECT is(convex_fdw_disconnect('convex'), true, 'after the cursor it can be closed');
COMMIT;
\setenv CHAPTER_DATABASE :DBNAME
\set noise `psql -X -q -A -t -d "$CHAPTER_DATABASE" -c "BEGIN; DECLARE c CURSOR FOR SELECT sequence FROM messages; MOVE 1 IN c; SELECT convex_fdw_disconnect('convex')" 2>&1`
SELECT matches(:'noise'::text, 'WARNING: .*"convex".*still in use', 'a connection in use is warned about');

-- ALTER SERVER takes effect for whatever begins after it.
BEGIN;
DECLARE c CURSOR FOR SELECT sequence FROM messages;
MOVE 1 IN c;
ALTER SERVER convex OPTIONS (ADD connect_timeout '5s');
SELECT is(connections(), '{convex invalid}', 'after ALTER SERVER a connection in use is no longer valid');
SELECT is((SELECT count(*) FROM messages), 240::bigint, 'the next scan makes a new one');
SELECT is(connections(), '{convex invalid,convex valid}', 'beside it');
CREATE FUNCTION drain(name text) RETURNS int LANGUAGE plpgsql AS
$$
DECLARE
	c refcursor := name;
	n int;
BEGIN
	MOVE FORWARD ALL IN c;
	GET DIAGNOSTICS n = ROW_COUNT;
	RETURN n;
END
$$;
SELECT is(drain('c'), 239, 'the cursor goes on with the old one');
CLOSE c;
COMMIT;
SELECT is(connections() @> '{convex invalid}', false, 'which is closed when nobody uses it any more');
ALTER SERVER convex OPTIONS (DROP connect_timeout);
SELECT is(connections(), '{}', 'an unused connection is closed by ALTER SERVER');

SELECT count(*) FROM messages \g /dev/null
ALTER USER MAPPING FOR CURRENT_USER SERVER convex OPTIONS (SET deploy_key 'prod:happy-otter-123|wrong');
SELECT is(state('SELECT count(*) FROM messages'), '28000', 'a changed key is used at once');
SELECT format('ALTER USER MAPPING FOR CURRENT_USER SERVER convex OPTIONS (SET deploy_key %L)', emu.key()) \gexec
SELECT is(state('SELECT count(*) FROM messages'), 'no error', 'and so is the right one');

SELECT state('SELECT * FROM convex_tables(''dead'')') FROM generate_series(1, 20) \g /dev/null
SELECT state('SELECT count(*) / 0 FROM messages') FROM generate_series(1, 20) \g /dev/null
SELECT is(connections(), '{convex valid,dead valid}', 'errors leave no further connections');
BEGIN;
DECLARE c CURSOR FOR SELECT sequence FROM messages;
MOVE 1 IN c;
DROP USER MAPPING FOR CURRENT_USER SERVER convex;
SELECT is(connections(), '{convex invalid,dead valid}', 'DROP USER MAPPING makes its connection invalid');
ROLLBACK;
SELECT is(state('SELECT count(*) FROM messages'), 'no error', 'and ROLLBACK brings it back');
DROP SERVER dead CASCADE;
SELECT is(connections(), '{convex valid}', 'DROP SERVER closes its connection');

-- ------------------------------------------------------------------ who may

SELECT 'functions_' || current_database() AS role \gset
DROP ROLE IF EXISTS :"role";
CREATE ROLE :"role";
GRANT USAGE ON SCHEMA emu TO :"role";
CREATE TABLE calls (name text, call text);
INSERT INTO calls VALUES
	('convex_tables', 'SELECT * FROM convex_tables(%L)'),
	('convex_json_schemas', 'SELECT convex_json_schemas(%L)'),
	('convex_snapshot', 'SELECT convex_snapshot(%L)'),
	('convex_changes', 'SELECT * FROM convex_changes(%L, 1787000000000000000)'),
	('convex_test_connection', 'SELECT * FROM convex_test_connection(%L)'),
	('convex_fdw_disconnect', 'SELECT convex_fdw_disconnect(%L)');
GRANT SELECT ON calls TO :"role";

SELECT is((SELECT array_agg(proname ORDER BY proname) FROM pg_proc JOIN pg_depend ON objid = pg_proc.oid AND deptype = 'e' AND refobjid = (SELECT oid FROM pg_extension WHERE extname = 'convex_fdw')
		WHERE has_function_privilege(:'role', pg_proc.oid, 'EXECUTE') AND prorettype NOT IN ('fdw_handler'::regtype, 'void'::regtype)), '{convex_changes_stream,convex_fdw_version,convex_workers}'::name[],
	'EXECUTE is revoked from PUBLIC, except for what shows nothing of others, or asks for another right');
SET ROLE :"role";
SELECT is(state(format(call, 'convex')), '42501', name || '() needs EXECUTE') FROM calls;
SELECT is(state('SELECT * FROM convex_fdw_get_connections()'), '42501', 'so does convex_fdw_get_connections()');
SELECT is(state('SELECT convex_fdw_disconnect_all()'), '42501', 'so does convex_fdw_disconnect_all()');
SELECT matches(convex_fdw_version(), '^1', 'everybody may ask for the version');
RESET ROLE;
SELECT format('GRANT EXECUTE ON ROUTINE %s TO %I', oid::regprocedure, :'role') FROM pg_proc WHERE proname LIKE 'convex%' \gexec
SET ROLE :"role";
SELECT is(state(format(call, 'convex')), '42501', name || '() needs USAGE on the server') FROM calls WHERE name <> 'convex_fdw_disconnect';
RESET ROLE;
GRANT USAGE ON FOREIGN SERVER convex TO :"role";
SET ROLE :"role";
SELECT is(state(format(call, 'convex')), '42704', name || '() needs a user mapping') FROM calls WHERE name NOT IN ('convex_fdw_disconnect', 'convex_test_connection');
SELECT ok((SELECT count(*) = 0 FROM calls WHERE name = 'convex_test_connection' AND state(format(call, 'convex')) = 'no error')
	OR (SELECT bool_or(NOT ok) FROM convex_test_connection('convex')), 'convex_test_connection() is not well without one');
CREATE USER MAPPING FOR CURRENT_USER SERVER convex OPTIONS (deploy_key 'prod:happy-otter-123|readonly');
SELECT is(state(format(call, 'convex')), 'no error', name || '() then works with a key that may only read') FROM calls WHERE name <> 'convex_changes';
SELECT is(state(format('SELECT * FROM convex_changes(''convex'', %s)', :'start')), 'no error', 'convex_changes() then works with a key that may only read');
RESET ROLE;
SELECT count(*) FROM messages \g /dev/null
SELECT is((SELECT count(*) FROM convex_fdw_get_connections() WHERE server_name = 'convex'), 2::bigint, 'each role has its own connection');
DROP OWNED BY :"role";
DROP ROLE :"role";

CREATE FOREIGN DATA WRAPPER dummy;
CREATE SERVER somebody_elses FOREIGN DATA WRAPPER dummy;
SELECT is(state(format(call, 'somebody_elses')), '42809', name || '() refuses a server of another wrapper') FROM calls WHERE name <> 'convex_fdw_disconnect';
SELECT is(state(format(call, 'nowhere')), '42704', name || '() refuses an unknown server') FROM calls;
SELECT is(convex_json_schemas(NULL), NULL, 'a null server is a null answer');

BEGIN READ ONLY;
SELECT is((SELECT count(*) FROM convex_changes('convex', :start)), 41::bigint, 'the functions that read work in a read-only transaction');
SELECT is((SELECT count(*) FROM convex_tables('convex')) > 0, true, 'all of them');
SELECT is((checks() -> 'url')::boolean, true, 'also convex_test_connection()');
COMMIT;

SELECT * FROM finish();
