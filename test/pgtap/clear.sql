-- Functions that change Convex at once: clears, and the indexes of keys.

\ir lib/setup.sql
SELECT plan(145);

SELECT emu.server('convex', $$max_retries '2'$$) \g /dev/null
SELECT emu.seed('demo') \g /dev/null

CREATE FUNCTION state(statement text) RETURNS text LANGUAGE sql AS
$$ SELECT coalesce(emu.failure(statement) ->> 'sqlstate', 'no error') $$;
CREATE FUNCTION told(statement text) RETURNS text LANGUAGE sql AS
$$ SELECT concat_ws(' | ', f ->> 'message', f ->> 'detail', f ->> 'hint') FROM emu.failure(statement) AS f $$;
CREATE FUNCTION documents(table_name text) RETURNS bigint LANGUAGE sql AS
$$ SELECT count(*) FROM emu.dump(table_name) $$;

-- What was sent to change something.
CREATE VIEW sent AS
	SELECT entry ->> 'method' AS method, entry ->> 'path' AS path, entry -> 'body' AS body
	FROM emu.journal() WITH ORDINALITY AS j (entry, place)
	WHERE entry ->> 'path' LIKE '/api/streaming_import/%' AND entry ->> 'path' NOT LIKE '%/get_schema'
		AND entry ->> 'path' NOT LIKE '%/apply_fivetran_operations' -- questions about the index
	ORDER BY place;

-- ------------------------------------------------------------------ convex_clear_tables

SELECT cmp_ok(documents('users') * documents('messages'), '>', 0::bigint, 'two tables have documents');
SELECT emu.clear_journal() \g /dev/null
SELECT lives_ok($$SELECT convex_clear_tables('convex', 'users', 'messages', 'users')$$, 'convex_clear_tables() takes several tables');
SELECT is(documents('users') + documents('messages'), 0::bigint, 'and they are empty');
SELECT cmp_ok(documents('channels'), '>', 0::bigint, 'another table is as it was');
SELECT results_eq('SELECT * FROM sent',
	$$ VALUES ('PUT', '/api/streaming_import/clear_tables', '{"tableNames": ["users", "messages"]}'::jsonb) $$,
	'with one request that names each table once');

-- Refused before anything is sent.
SELECT emu.clear_journal() \g /dev/null
SELECT is(state($$SELECT convex_clear_tables('convex', 'channels', 'chanels')$$), 'HV00R', 'a table that Convex does not have is refused');
SELECT matches(told($$SELECT convex_clear_tables('convex', 'channels', 'chanels')$$), '"chanels".*would create it.*convex_tables', 'with its name and the reason');
SELECT is(state($$SELECT convex_clear_tables('convex', 'invoices')$$), 'HV00R', 'a table of a component is none of the root');
SELECT is(state($$SELECT convex_clear_tables('convex', 'billing/invoices')$$), '22023', 'and cannot be named by its path');
SELECT is(state(format('SELECT convex_clear_tables(''convex'', %L)', name)), '22023', format('"%s" is no name of a table', name))
FROM unnest('{"",_users,"Hello World",9to5,ünder}'::text[]) AS name;
SELECT is(state($$SELECT convex_clear_tables('convex', VARIADIC '{}')$$), '22023', 'no table at all is refused');
SELECT is(state($$SELECT convex_clear_tables('convex', 'channels', NULL)$$), '22004', 'and so is a null among them');
SELECT is(state($$SELECT convex_clear_tables('nowhere', 'channels')$$), '42704', 'a server that does not exist is refused');
SELECT is((SELECT count(*) FROM sent), 0::bigint, 'and nothing of all that was sent');
SELECT cmp_ok(documents('channels'), '>', 0::bigint, 'so the table is as it was');

-- A key that may import but not read.
SELECT emu.config('{"keys": {"prod:happy-otter-123|importer": ["deployment:backups:import"], "prod:happy-otter-123|nothing": []}}') \g /dev/null
SELECT emu.server('importer') \g /dev/null
ALTER USER MAPPING FOR CURRENT_USER SERVER importer OPTIONS (SET deploy_key 'prod:happy-otter-123|importer');
SELECT emu.clear_journal() \g /dev/null
SELECT is(state($$SELECT convex_clear_tables('importer', 'channels')$$), '42501', 'names that cannot be checked are refused');
SELECT matches(told($$SELECT convex_clear_tables('importer', 'channels')$$), 'deployment:data:view.*convex_fdw\.allow_unchecked_clear', 'with the permission and the setting that help');
SELECT is((SELECT count(*) FROM sent), 0::bigint, 'and nothing is sent');
SELECT emu.config('{"schema": {"tables": [{"tableName": "channels", "indexes": [], "documentType": null}], "schemaValidation": false}}') \g /dev/null
SELECT is(state($$SELECT convex_clear_tables('importer', 'drafts')$$), 'HV00R', 'where a schema is declared, its tables are known');
SELECT is(state($$SELECT convex_clear_tables('importer', 'channels')$$), 'no error', 'and can be cleared');
SELECT is(documents('channels'), 0::bigint, 'which is done');
SELECT emu.config('{"schema": null}') \g /dev/null
SET convex_fdw.allow_unchecked_clear = on;
SELECT is(state($$SELECT convex_clear_tables('importer', 'channels')$$), 'no error', 'convex_fdw.allow_unchecked_clear allows what cannot be checked');
SELECT is(state($$SELECT convex_clear_tables('importer', '_channels')$$), '22023', 'but not a name that Convex would change');
SELECT is(state($$SELECT convex_clear_tables('convex', 'chanels')$$), 'HV00R', 'nor one that is known to be wrong');
RESET convex_fdw.allow_unchecked_clear;
ALTER USER MAPPING FOR CURRENT_USER SERVER importer OPTIONS (SET deploy_key 'prod:happy-otter-123|nothing');
SELECT is(state($$SELECT convex_clear_tables('importer', 'channels')$$), '42501', 'a key that may do nothing is refused');
ALTER USER MAPPING FOR CURRENT_USER SERVER importer OPTIONS (SET deploy_key 'prod:happy-otter-123|importer');

-- Servers before get_table_column_names.
SELECT emu.config('{"routes_missing": ["/api/get_table_column_names"]}') \g /dev/null
SELECT is(state($$SELECT convex_clear_tables('convex', 'users')$$), 'no error', 'an older server is asked for its schemas');
SELECT is(state($$SELECT convex_clear_tables('convex', 'usres')$$), 'HV00R', 'which know the tables as well');
SELECT emu.config('{"routes_missing": []}') \g /dev/null

-- What happened when nobody says so.
SELECT emu.insert('channels', '{"name": "a"}') \g /dev/null
SELECT emu.clear_journal() \g /dev/null
SELECT emu.fault('{"action": "apply_then_cut", "path": "/api/streaming_import/clear_tables"}') \g /dev/null
SELECT is(state($$SELECT convex_clear_tables('convex', 'channels')$$), '08007', 'a line cut after the request is an unknown outcome');
SELECT is((SELECT count(*) FROM sent), 1::bigint, 'and the request went out once');
SELECT is(documents('channels'), 0::bigint, 'for it may have been obeyed');
SELECT emu.fault('{"action": "status", "status": 500, "path": "/api/streaming_import/clear_tables"}') \g /dev/null
SELECT is(state($$SELECT convex_clear_tables('convex', 'channels')$$), '08007', 'so is status 500');
SELECT emu.fault('{"action": "status", "status": 408, "body": "", "path": "/api/streaming_import/clear_tables"}') \g /dev/null
SELECT is(state($$SELECT convex_clear_tables('convex', 'channels')$$), '08007', 'and 408');
SELECT is((SELECT count(*) FROM sent), 3::bigint, 'each sent once');
SELECT emu.clear_journal() \g /dev/null
SELECT emu.fault('{"action": "status", "status": 503, "code": "OptimisticConcurrencyControlFailure", "path": "/api/streaming_import/clear_tables"}') \g /dev/null
SELECT is(state($$SELECT convex_clear_tables('convex', 'channels')$$), 'no error', 'a conflict, which did nothing, is repeated');
SELECT is((SELECT count(*) FROM sent), 2::bigint, 'once');
SELECT emu.fault('{"action": "stall", "path": "/api/streaming_import/clear_tables"}') \g /dev/null
SET statement_timeout = '1s';
SELECT is(state($$SELECT convex_clear_tables('convex', 'channels')$$), '08007', 'a time-out while the server may be at work is an unknown outcome');
RESET statement_timeout;
SELECT emu.clear_faults() \g /dev/null

-- Beside writes that are not sent yet.
SELECT emu.insert('channels', '{"name": "a"}') \g /dev/null
CREATE FOREIGN TABLE channels (_id text, name text) SERVER convex;
SELECT emu.clear_journal() \g /dev/null
BEGIN;
INSERT INTO channels (name) VALUES ('b');
SELECT is(state($$SELECT convex_clear_tables('convex', 'channels')$$), '55000', 'while the transaction has unsent writes a clear would overtake them');
SELECT matches(told($$SELECT convex_clear_tables('convex', 'channels')$$), 'TRUNCATE', 'TRUNCATE would not');
ROLLBACK;
SELECT is((SELECT count(*) FROM sent), 0::bigint, 'and nothing is sent');
BEGIN;
INSERT INTO channels (name) VALUES ('b');
COMMIT;
SELECT is(state($$SELECT convex_clear_tables('convex', 'channels')$$), 'no error', 'once they are sent a table can be cleared');
SELECT is(documents('channels'), 0::bigint, 'with them');
BEGIN READ ONLY;
SELECT is(state($$SELECT convex_clear_tables('convex', 'channels')$$), '25006', 'a read-only transaction clears nothing');
SELECT is(state($$SELECT convex_import('convex', 'channels', 'SELECT 1 AS n')$$), '25006', 'nor does it import');
SELECT is(state($$SELECT convex_add_primary_key_indexes('convex', 'channels', '{name}')$$), '25006', 'nor does it make indexes');
ROLLBACK;

-- ------------------------------------------------------------------ convex_replace_tables

SELECT emu.insert('channels', '{"name": "a"}') \g /dev/null
SELECT is(state($$SELECT convex_replace_tables('convex', 'channels')$$), '0A000', 'convex_replace_tables() is no longer supported');
SELECT matches(told($$SELECT convex_replace_tables('convex', 'channels')$$), 'OverwriteNotSupported.*convex_clear_tables', 'it says what Convex says, and what to use');
SELECT is(documents('channels'), 1::bigint, 'and changes nothing');

-- ------------------------------------------------------------------ indexes of the airbyte route

SELECT is(state($$SELECT convex_primary_key_indexes_ready('convex', 'channels')$$), '55000', 'a missing index cannot be ready');
SELECT matches(told($$SELECT convex_primary_key_indexes_ready('convex', 'channels')$$), 'convex_add_primary_key_indexes\(\)', 'the hint is the call that makes it');
SELECT emu.config('{"index_backfill_polls": 2, "index_backfill_ms": null}') \g /dev/null
SELECT emu.clear_journal() \g /dev/null
SELECT is(state($$SELECT convex_add_primary_key_indexes('convex', 'channels', '{name,place.city}')$$), 'no error', 'convex_add_primary_key_indexes() makes it');
SELECT results_eq('SELECT * FROM sent',
	$$ VALUES ('PUT', '/api/streaming_import/add_primary_key_indexes', '{"indexes": {"channels": [["name"], ["place", "city"]]}}'::jsonb) $$,
	'a.b is a nested path');
SELECT is(state($$SELECT convex_clear_tables('convex', 'channels')$$), '55000', 'a table whose index is being built cannot be cleared');
SELECT matches(told($$SELECT convex_clear_tables('convex', 'channels')$$), 'convex_primary_key_indexes_ready\(\)', 'the hint tells when it can');
SELECT is(convex_primary_key_indexes_ready('convex', 'channels'), false, 'an index that is being built is not ready');
SELECT ok(emu.wait_until('convex_primary_key_indexes_ready(''convex'', ''channels'')'), 'then it is');
SELECT is((SELECT body FROM sent WHERE method = 'GET' LIMIT 1), '{"tables": ["channels"]}', 'the question is a GET with a body');
SELECT is(state($$SELECT convex_clear_tables('convex', 'channels')$$), 'no error', 'and the table can be cleared');
SELECT is(state($$SELECT convex_primary_key_indexes_ready('convex', 'channels', 'drafts')$$), '55000', 'of several tables each needs its index');

SELECT is(state(format('SELECT convex_add_primary_key_indexes(''convex'', ''channels'', %L)', key)), '22023', format('%s is no key', key))
FROM unnest('{"{}","{_id}","{a,a}","{a..b}","{\"\"}","{\"a b\"}"}'::text[]) AS key;
SELECT is(state($$SELECT convex_add_primary_key_indexes('convex', '_x', '{a}')$$), '22023', 'nor can any table have one');
SELECT is(state(format('SELECT convex_add_primary_key_indexes(''convex'', ''channels'', %L)', (SELECT array_agg('f' || i) FROM generate_series(1, 16) AS i))), '22023', 'nor do 16 fields make one');

-- ------------------------------------------------------------------ convex_ensure_primary_key

SELECT emu.reset() \g /dev/null
SELECT emu.config('{"index_backfill_polls": 1, "index_backfill_ms": 200}') \g /dev/null
SELECT emu.insert('pets', '{"name": "Ada", "tag": {"n": {"$integer": "AQAAAAAAAAA="}}}', '{"name": "Bob", "tag": {"n": {"$integer": "AgAAAAAAAAA="}}}') \g /dev/null
CREATE FOREIGN TABLE pets (_id text, name text) SERVER convex OPTIONS (primary_key 'name');
CREATE FOREIGN TABLE nested (_id text, name text) SERVER convex OPTIONS (table_name 'pets', primary_key 'name, tag.n');
CREATE FOREIGN TABLE dedup (_id text, name text) SERVER convex OPTIONS (table_name 'pets', primary_key 'name', import_route 'airbyte');
CREATE FOREIGN TABLE append_only (_id text, name text) SERVER convex OPTIONS (table_name 'pets');
CREATE FOREIGN TABLE elsewhere (_id text, name text) SERVER convex OPTIONS (table_name 'pets', component 'billing', primary_key 'name');
CREATE TABLE local (i int);

SELECT emu.clear_journal() \g /dev/null
SELECT is(state($$SELECT convex_ensure_primary_key('pets')$$), 'no error', 'convex_ensure_primary_key() makes the index of the fivetran route');
SELECT results_eq('SELECT * FROM sent',
	$$ VALUES ('POST', '/api/streaming_import/fivetran_create_table', '{"tableDefinition": {"tableName": "pets", "documentType": null,
		"indexes": [{"indexDescriptor": "_fivetran_by_primary_key", "fields": ["name"]}]}}'::jsonb) $$, 'with one request');
SELECT is((SELECT j -> 'body' -> 'selection' FROM emu.journal('/api/list_snapshot') AS j),
	'{"_other": "excluded", "": {"_other": "excluded", "pets": {"_other": "excluded", "_id": "included", "name": "included"}}}',
	'after the key fields, and nothing else, were read');
SELECT is(state($$SELECT convex_ensure_primary_key('pets')$$), 'no error', 'a second time it finds everything in place');
SELECT is(state($$SELECT convex_ensure_primary_key('nested')$$), 'no error', 'a key may have several fields, nested ones too');
SELECT is((SELECT array_agg(body #>> '{tableDefinition,indexes,0,fields}') FROM sent WHERE path LIKE '%create_table'), '{"[\"name\"]","[\"name\"]","[\"name\", \"tag.n\"]"}', 'which are those of its index');
SELECT emu.clear_journal() \g /dev/null
SELECT is(state($$SELECT convex_ensure_primary_key('dedup')$$), 'no error', 'on the airbyte route it makes and awaits that route''s index');
SELECT is((SELECT array_agg(DISTINCT regexp_replace(path, '^.*/', '') ORDER BY regexp_replace(path, '^.*/', '')) FROM sent), '{add_primary_key_indexes,primary_key_indexes_ready}', 'by its routes');
SELECT is(convex_primary_key_indexes_ready('convex', 'pets'), true, 'and it is ready');
CREATE FOREIGN TABLE fresh (_id text, name text) SERVER convex OPTIONS (primary_key 'name');
SELECT is(state($$SELECT convex_ensure_primary_key('fresh')$$), 'no error', 'a table that Convex does not have yet is made');

-- Documents that cannot have the key.
CREATE FUNCTION ids(table_name text, field text) RETURNS SETOF text LANGUAGE sql AS
$$ SELECT d ->> '_id' FROM emu.dump(table_name) AS d WHERE d ->> field = 'twin' $$;
SELECT emu.insert('pets', '{"name": "twin"}', '{"name": "twin"}') \g /dev/null
SELECT is(state($$SELECT convex_ensure_primary_key('pets')$$), '23505', 'documents with the same key are refused');
SELECT is((SELECT bool_and(told($$SELECT convex_ensure_primary_key('pets')$$) LIKE '%' || id || '%') FROM ids('pets', 'name') AS id), true, 'and named');
SELECT is(state($$SELECT convex_ensure_primary_key('dedup')$$), '23505', 'on both routes');
SELECT is(state($$SELECT convex_ensure_primary_key('pets', "check" => false)$$), 'no error', 'without the check nobody looks');
SELECT is(state($$SELECT convex_ensure_primary_key('nested')$$), '23502', 'documents without a field of the key are refused');
SELECT is((SELECT bool_and(told($$SELECT convex_ensure_primary_key('nested')$$) LIKE '%' || id || '%') FROM ids('pets', 'name') AS id), true, 'and two of them named');
SELECT emu.mutate(jsonb_agg(jsonb_build_object('op', 'delete', 'table', 'pets', 'id', id))) FROM ids('pets', 'name') AS id \g /dev/null
SELECT is(state($$SELECT convex_ensure_primary_key('nested')$$), 'no error', 'without them all is well');
SELECT emu.insert('pets', '{"name": null}') \g /dev/null
SELECT is(state($$SELECT convex_ensure_primary_key('pets')$$), '23502', 'null is no key');
SELECT emu.reset() \g /dev/null
SELECT emu.insert('pets', '{"name": 1}', '{"name": {"$integer": "AQAAAAAAAAA="}}') \g /dev/null
SELECT is(state($$SELECT convex_ensure_primary_key('pets')$$), '42804', 'keys of different types are refused');
SELECT is((SELECT bool_and(told($$SELECT convex_ensure_primary_key('pets')$$) LIKE '%' || (d ->> '_id') || '%') FROM emu.dump('pets') AS d), true, 'and named');
SELECT emu.reset() \g /dev/null
SELECT emu.clear_journal() \g /dev/null
SELECT emu.config('{"page_limit": 3}') \g /dev/null
SELECT emu.mutate(jsonb_agg(jsonb_build_object('op', 'insert', 'table', 'pets', 'doc', jsonb_build_object('name', 'n' || i % 10)))) FROM generate_series(1, 11) AS i \g /dev/null
SELECT is(state($$SELECT convex_ensure_primary_key('pets')$$), '23505', 'a pair is found on whatever pages it stands');
SELECT is((SELECT count(DISTINCT j ->> 'snapshot') FROM emu.journal('/api/list_snapshot') AS j), 1::bigint, 'all of one snapshot');
SELECT is((SELECT count(*) FROM sent), 0::bigint, 'and no index is made');
SELECT emu.config('{"page_limit": 1024}') \g /dev/null

-- Notices, as text.
SELECT emu.reset() \g /dev/null
SELECT emu.insert('pets', '{"name": "Ada", "tag": "x"}') \g /dev/null
CREATE FOREIGN TABLE other_dedup (_id text) SERVER convex OPTIONS (table_name 'pets', primary_key 'tag', import_route 'airbyte');
CREATE FOREIGN TABLE both_pets (_id text) SERVER convex OPTIONS (table_name 'pets', primary_key 'name,tag');
CREATE FOREIGN TABLE other_pets (_id text) SERVER convex OPTIONS (table_name 'pets', primary_key 'tag');
CREATE FUNCTION notices(statement text) RETURNS text LANGUAGE plpgsql AS
$$
DECLARE
	psql text := format('psql -X -q -A -t -v ON_ERROR_STOP=1 -h %s -p %s -U %s -d %s -c %s 2>&1 >/dev/null',
		emu.shell_quote(split_part(current_setting('unix_socket_directories'), ',', 1)), current_setting('port'),
		current_user, current_database(), emu.shell_quote(statement));
BEGIN
	CREATE TEMP TABLE IF NOT EXISTS said (line text);
	TRUNCATE said;
	EXECUTE format('COPY said FROM PROGRAM %L', psql || ' | sed ''s/\\/\\\\/g''');
	RETURN coalesce((SELECT string_agg(line, E'\n') FROM said), '');
END
$$;
SELECT is(notices($$SELECT convex_ensure_primary_key('dedup')$$), '', 'a first index replaces nothing');
SELECT is(notices($$SELECT convex_ensure_primary_key('dedup')$$), '', 'nor does the same once more');
SELECT matches(notices($$SELECT convex_ensure_primary_key('other_dedup')$$), 'NOTICE: .*replaces', 'an index with other fields does, and a notice says so');
SELECT is(notices($$SELECT convex_ensure_primary_key('pets')$$), '', 'on the fivetran route, too, a first index replaces nothing');
SELECT is(notices($$SELECT convex_ensure_primary_key('pets')$$), '', 'nor does the same once more');
SELECT matches(notices($$SELECT convex_ensure_primary_key('other_pets')$$), 'NOTICE: .*replaces', 'and other fields are told');
SELECT matches(notices($$SELECT convex_ensure_primary_key('both_pets')$$), 'NOTICE: .*replaces', 'more fields as well');
SELECT is(notices($$SELECT convex_ensure_primary_key('both_pets')$$), '', 'several fields once more do not');
SELECT matches(notices($$SELECT convex_ensure_primary_key('pets')$$), 'NOTICE: .*replaces', 'but fewer do');
SELECT is((SELECT count(*) FROM emu.journal('/api/streaming_import/apply_fivetran_operations') AS j WHERE j ->> 'status' = '200'), 0::bigint, 'finding that out is refused every time');
SELECT is((SELECT count(*) FROM emu.dump('pets') AS d WHERE d ->> 'name' = 'Ada' AND d ->> 'tag' = 'x'), 1::bigint, 'so it changes no document');

-- What cannot be awaited, or does not fit.
SELECT emu.config('{"index_backfill_polls": 1000, "index_backfill_ms": null}') \g /dev/null
SELECT emu.reset() \g /dev/null
SELECT is(state($$SELECT convex_ensure_primary_key('pets', '300 ms')$$), '55000', 'an index that is not ready in time is an error');
SELECT is(state($$SELECT convex_ensure_primary_key('dedup', '300 ms')$$), '55000', 'on both routes');
SELECT matches(told($$SELECT convex_ensure_primary_key('dedup', '0')$$), 'is building other indexes.*convex_ensure_primary_key\(\) again', 'with the hint to go on waiting');
SELECT is(state($$SELECT convex_add_primary_key_indexes('convex', 'pets', ARRAY['name'])$$), '40001', 'while Convex builds another index, asking for one is a conflict');

-- An index of another table is being built: Convex turns away those that are asked for meanwhile.
SELECT emu.reset() \g /dev/null
SELECT emu.config('{"index_backfill_ms": 1500}') \g /dev/null
SELECT emu.mutate('[{"op": "index", "table": "other", "fields": ["id"], "ready": false}]') \g /dev/null
SELECT is(state($$SELECT convex_ensure_primary_key('dedup')$$), 'no error', 'convex_ensure_primary_key() waits for its turn');
SELECT ok((SELECT bool_or(j ->> 'status' = '503') FROM emu.journal('/api/streaming_import/add_primary_key_indexes') AS j), 'as the server wants');
SELECT emu.reset() \g /dev/null
SELECT emu.mutate('[{"op": "index", "table": "other", "fields": ["id"], "ready": false}]') \g /dev/null
SELECT is(state($$SELECT convex_ensure_primary_key('pets')$$), 'no error', 'on both routes');
SELECT ok((SELECT bool_or(j ->> 'status' = '503') FROM emu.journal('/api/streaming_import/fivetran_create_table') AS j), 'the same');
SELECT emu.config('{"index_backfill_polls": 1, "index_backfill_ms": 200}') \g /dev/null
SELECT is(state($$SELECT convex_ensure_primary_key('pets', '-1 s')$$), '22023', 'a negative timeout is refused');
SELECT is(state($$SELECT convex_ensure_primary_key('append_only')$$), '55000', 'a table without primary_key has no index');
SELECT is(state($$SELECT convex_ensure_primary_key('elsewhere')$$), '0A000', 'nor has one of a component');
SELECT is(state($$SELECT convex_ensure_primary_key('local')$$), '42809', 'nor a local table');
SELECT is(state($$SELECT convex_ensure_primary_key(0)$$), '42809', 'nor what does not exist');
SELECT emu.config('{"routes_missing": ["/api/streaming_import/fivetran_create_table"]}') \g /dev/null
SELECT is(state($$SELECT convex_ensure_primary_key('pets')$$), '0A000', 'a server without the route is an error of its own');
SELECT emu.config('{"routes_missing": []}') \g /dev/null
SELECT emu.fault('{"action": "status", "status": 408, "body": "", "path": "/api/streaming_import/fivetran_create_table", "count": 3}') \g /dev/null
SELECT is(state($$SELECT convex_ensure_primary_key('pets')$$), 'no error', 'a server that gives up its own waiting is asked again');

-- ------------------------------------------------------------------ rights

CREATE ROLE clear_user;
GRANT USAGE ON SCHEMA emu TO clear_user;
CREATE TEMP TABLE calls AS SELECT * FROM (VALUES
	('convex_clear_tables(name, text[])', $$SELECT convex_clear_tables('convex', 'pets')$$),
	('convex_replace_tables(name, text[])', $$SELECT convex_replace_tables('convex', 'pets')$$),
	('convex_add_primary_key_indexes(name, text, text[])', $$SELECT convex_add_primary_key_indexes('convex', 'pets', '{name}')$$),
	('convex_primary_key_indexes_ready(name, text[])', $$SELECT convex_primary_key_indexes_ready('convex', 'pets')$$),
	('convex_ensure_primary_key(regclass, interval, boolean)', $$SELECT convex_ensure_primary_key('pets')$$),
	('convex_import(name, text, text, text, text)', $$SELECT convex_import('convex', 'pets', 'SELECT 1 AS one', 'replace')$$)) AS v (function, call);
GRANT SELECT ON calls TO clear_user;
SELECT emu.clear_journal() \g /dev/null
SET ROLE clear_user;
SELECT is(state(call), '42501', function || ' is not everybody''s') FROM calls;
RESET ROLE;
SELECT format('GRANT EXECUTE ON FUNCTION %s TO clear_user', function) FROM calls \gexec
SET ROLE clear_user;
SELECT is(state(call), '42501', function || ' needs USAGE on the server') FROM calls;
RESET ROLE;
GRANT USAGE ON FOREIGN SERVER convex TO clear_user;
SET ROLE clear_user;
SELECT is(state(call), '42704', function || ' needs a user mapping') FROM calls;
RESET ROLE;
SELECT is((SELECT count(*) FROM emu.journal()), 0::bigint, 'and nothing of all that was sent');
SELECT ok(obj_description(function::regprocedure, 'pg_proc') <> '', function || ' has a comment') FROM calls;
SELECT is((SELECT count(*) FROM emu.dump('pets')), 0::bigint, 'the table is as it was');

DROP OWNED BY clear_user;
DROP ROLE clear_user;
SELECT * FROM finish();
