-- Every way in which the line, the size or the text of an answer can be wrong is
-- a clear error of its own, whatever is asked; and what may be repeated is.

\ir lib/setup.sql
-- The walk is what this is about: see lookup.sql for what Convex is asked.
SET convex_fdw.pushdown = off;
SELECT plan(268);
\ir lib/errors.sql

-- ------------------------------------------------------ the line and the size

SELECT is(state, '08006', 'a line cut before the answer is a lost connection') FROM ask_under('{"action": "cut"}');
SELECT is(state, '08006', 'a line cut in the body is a lost connection') FROM ask_under('{"action": "cut", "after_bytes": 40}');
SELECT is(state, '08006', 'a reset before the answer is a lost connection') FROM ask_under('{"action": "reset"}');
SELECT is(state, '08006', 'a reset in the body is a lost connection') FROM ask_under('{"action": "reset", "after_bytes": 40}');
SELECT is(requests || ' ' || nrows, '3 0', 'a lost connection is tried again as often as allowed, and gives no row')
	FROM ask_under('{"action": "cut", "after_bytes": 40}');
SELECT ok(told ~ '/api/list_snapshot' AND told ~ '3 attempts' AND told ~ 'convex' AND coalesce(hint, '') <> '',
	'a lost connection names server, endpoint and attempts, and comes with a hint')
	FROM ask_under('{"action": "cut", "after_bytes": 40}');
SELECT results_eq('SELECT 1 FROM users', 'VALUES (1), (1), (1)', 'after a lost connection a scan works');

CREATE SERVER closed FOREIGN DATA WRAPPER convex_fdw
	OPTIONS (deployment_url 'http://127.0.0.1:1', max_retries '2', max_retry_wait '1ms');
CREATE USER MAPPING FOR CURRENT_USER SERVER closed;
CREATE FOREIGN TABLE closed_users (_id text) SERVER closed OPTIONS (table_name 'users');
SELECT is(state, 'HV00N', 'a port where nobody listens is no connection') FROM ask('SELECT * FROM closed_users');
SELECT ok(concat_ws(' ', message, detail) ~ 'closed.*/api/list_snapshot.*3 attempts' AND hint <> '',
	'no connection names server, endpoint and attempts, and comes with a hint') FROM ask('SELECT * FROM closed_users');

-- Silence, up to the server's own options.
SELECT emu.server('hasty', $$max_retries '0', request_timeout '200ms', idle_timeout '150ms'$$) \g /dev/null
CREATE FOREIGN TABLE hasty_users (_id text, name text) SERVER hasty OPTIONS (table_name 'users');
CREATE FUNCTION elapsed_ms(query text) RETURNS numeric LANGUAGE plpgsql AS
$$
DECLARE
	begun timestamptz := clock_timestamp();
BEGIN
	PERFORM ask(query);
	RETURN extract(epoch FROM clock_timestamp() - begun) * 1000;
END
$$;
SELECT emu.fault('{"path": "/api/list_snapshot", "action": "stall", "at": "headers", "seconds": 60, "count": -1}') \g /dev/null
SELECT is(state, '08006', 'silence before the answer is a timeout') FROM ask('SELECT * FROM hasty_users');
SELECT cmp_ok(elapsed_ms('SELECT * FROM hasty_users'), '<', 20000::numeric, 'request_timeout ends it');
SELECT matches(concat_ws(' ', detail, hint), 'request_timeout', 'the timeout names the option') FROM ask('SELECT * FROM hasty_users');
SELECT emu.clear_faults() \g /dev/null
SELECT emu.fault('{"path": "/api/list_snapshot", "action": "stall", "at": "body", "after_bytes": 30, "seconds": 60, "count": -1}') \g /dev/null
SELECT is(state, '08006', 'silence within the answer is a timeout') FROM ask('SELECT * FROM hasty_users');
SELECT cmp_ok(elapsed_ms('SELECT * FROM hasty_users'), '<', 20000::numeric, 'idle_timeout ends it');
SELECT emu.clear_faults() \g /dev/null
SELECT emu.server('steady', $$max_retries '0', request_timeout '700ms', idle_timeout '700ms'$$) \g /dev/null
CREATE FOREIGN TABLE steady_users (_id text, name text) SERVER steady OPTIONS (table_name 'users');
SELECT emu.fault('{"path": "/api/list_snapshot", "action": "stall", "at": "headers", "seconds": 60, "count": -1}') \g /dev/null
SELECT cmp_ok(elapsed_ms('SELECT * FROM steady_users'), '<', 20000::numeric, 'a longer request_timeout ends silence, too');
SELECT emu.clear_faults() \g /dev/null
SELECT emu.fault('{"path": "/api/list_snapshot", "action": "stall", "at": "body", "after_bytes": 30, "seconds": 60, "count": -1}') \g /dev/null
SELECT cmp_ok(elapsed_ms('SELECT * FROM steady_users'), '<', 20000::numeric, 'a longer idle_timeout ends silence, too');
SELECT emu.clear_faults() \g /dev/null
SELECT emu.fault('{"path": "/api/list_snapshot", "action": "drip", "bytes": 20, "interval_ms": 60}') \g /dev/null
SELECT is((SELECT count(*) FROM steady_users), 3::bigint, 'an answer that drips is waited for');
SELECT emu.clear_faults() \g /dev/null

-- The size of an answer is that of its decoded bytes.
CREATE FUNCTION padded(nbytes int) RETURNS jsonb LANGUAGE sql AS
$$ SELECT body(page() || repeat(' ', nbytes - length(page()))) $$;
SELECT is(state || ' ' || nrows, 'no error 1', 'an answer of exactly max_response_size is read')
	FROM ask_under(padded(65536), 'SELECT * FROM small_users');
SELECT is(state || ' ' || nrows, '54000 0', 'an answer of one byte more is too large')
	FROM ask_under(padded(65537), 'SELECT * FROM small_users');
SELECT is(state || ' ' || nrows, '54000 0', 'a gzip bomb is too large, however small it came')
	FROM ask_under('{"action": "gzip_bomb", "megabytes": 200}', 'SELECT * FROM small_users');
SELECT is(state, '54000', 'a large error page is too large, too')
	FROM ask_under(padded(70000) || '{"status": 500}', 'SELECT * FROM small_users');
SELECT ok(told ~ 'max_response_size' AND hint <> '' AND told ~ '/api/list_snapshot' AND told ~ 'small',
	'too large an answer names server, endpoint and the option to raise')
	FROM ask_under(padded(65537), 'SELECT * FROM small_users');
SELECT results_eq('SELECT 1 FROM small_users', 'VALUES (1), (1), (1)', 'after too large an answer a scan works');
SELECT is(requests, 1, 'too large an answer is not asked for again') FROM ask_under(padded(65537), 'SELECT * FROM small_users');

-- ------------------------------------------------------------ foreign text

CREATE FUNCTION told_of(fault jsonb) RETURNS text LANGUAGE sql AS
$$ SELECT told FROM ask_under(fault, 'SELECT * FROM resolute_users') $$;

SELECT ok(NOT key_in(told_of(fault)) AND told_of(fault) IS NOT NULL, 'the key is scrubbed ' || name)
FROM (VALUES
	('from a message', jsonb_build_object('action', 'status', 'status', 401, 'code', 'BadAdminKey', 'message', 'no ' || emu.key() || ' here')),
	('from a code', jsonb_build_object('action', 'status', 'status', 401, 'code', emu.key())),
	('from a message that repeats it', jsonb_build_object('action', 'status', 'status', 500, 'code', 'X', 'message', repeat(emu.key(), 50))),
	('from a message where a part of it comes before', jsonb_build_object('action', 'status', 'status', 500, 'code', 'X', 'message', left(emu.key(), 10) || emu.key())),
	('from a message that an excerpt cuts', jsonb_build_object('action', 'status', 'status', 500, 'code', 'X', 'message', repeat('x', 195) || emu.key())),
	('from a message without its prefix', jsonb_build_object('action', 'status', 'status', 401, 'code', 'X', 'message', 'bad: ' || substr(emu.key(), 6))),
	('from a message with its secret alone', jsonb_build_object('action', 'status', 'status', 401, 'code', 'X', 'message', 'bad: ' || split_part(emu.key(), '|', 2))),
	('from HTML with status 200', body('<html>' || emu.key() || '</html>')),
	('from HTML with status 502', body('<html>' || emu.key() || '</html>') || '{"status": 502}'),
	('from HTML with an escaped bar', body('<html>' || replace(emu.key(), '|', '&#124;') || '</html>')),
	('from text with the bar of a URL', body('key=' || replace(replace(emu.key(), '|', '%7C'), ':', '%3A')) || '{"status": 500}'),
	('from JSON that is no Convex error', body(jsonb_build_object('error', emu.key())::text) || '{"status": 500}'),
	('from broken JSON', body('{"code":"X","message":"' || emu.key()) || '{"status": 500}'),
	('from a page with a wrong table', body(replace(page(), '"_table":"users"', '"_table":"' || emu.key() || '"'))),
	('from a page with a wrong component', body(replace(page(), '"_component":""', '"_component":"' || emu.key() || '"'))),
	('from a body larger than what is looked at', body(repeat('x', 65530) || emu.key()) || '{"status": 500}'),
	('from a redirect', jsonb_build_object('action', 'status', 'status', 302, 'body', '', 'headers', jsonb_build_object('location', 'https://example.com/' || emu.key())))
) AS echo (name, fault);

-- Encoded as proxies encode it: a key whose secret has "/", "+" and "=".
CREATE FUNCTION odd_key() RETURNS text LANGUAGE sql AS
$$ SELECT 'prod:happy-otter-123|' || 'qrstuvwx' || '/yzabcdef' || '+ghijklm==' $$;
CREATE FUNCTION escaped(text, slash text, plus text, equals text) RETURNS text LANGUAGE sql AS
$$ SELECT replace(replace(replace($1, '/', $2), '+', $3), '=', $4) $$;
SELECT emu.server('encoded', $$max_retries '0'$$) \g /dev/null
SELECT format('ALTER USER MAPPING FOR CURRENT_USER SERVER encoded OPTIONS (SET deploy_key %L)', odd_key()) \gexec
CREATE FOREIGN TABLE encoded_users (_id text) SERVER encoded OPTIONS (table_name 'users');
SELECT ok(told !~ 'qrstuvwx|yzabcdef|ghijklm', 'a key is scrubbed ' || name)
FROM (VALUES
	('as it is', odd_key()),
	('with JSON''s escape of a slash', '{"error":"' || escaped(odd_key(), '\/', '+', '=') || '"}'),
	('with JSON''s \u escapes', '{"error":"' || escaped(odd_key(), '/', '\u002b', '\u003d') || '"}'),
	('encoded as in a URL', 'key=' || replace(replace(escaped(odd_key(), '%2F', '%2B', '%3D'), ':', '%3A'), '|', '%7C')),
	('encoded as in HTML', '<p>' || escaped(odd_key(), '&#x2F;', '&#43;', '&#61;') || '</p>')
) AS form (name, text), LATERAL ask_under(body(text) || '{"status": 500}', 'SELECT * FROM encoded_users');

-- Short and printable.
SELECT cmp_ok(length(told_of(fault)), '<', 1500, name || ' is told short')
FROM (VALUES
	('a long message', jsonb_build_object('action', 'status', 'status', 400, 'code', 'X', 'message', repeat('many words ', 1000))),
	('a long code', jsonb_build_object('action', 'status', 'status', 400, 'code', repeat('X', 10000), 'message', 'no')),
	('a long HTML page', body(repeat('<p>many words</p>', 10000)) || '{"status": 502}'),
	('a long table name', body(replace(page(), '"_table":"users"', '"_table":"' || repeat('t', 10000) || '"'))),
	('a long component', body(replace(page(), '"_component":""', '"_component":"' || repeat('t', 10000) || '"')))
) AS long (name, fault);
SELECT cmp_ok(elapsed_ms('SELECT * FROM resolute_users'), '<', 20000::numeric, 'a large ' || name || ' is told at once')
FROM (VALUES
	('error page', body(repeat('<p>%41&#x42;', 300000)) || '{"status": 502}'),
	('page of a wrong table', body(replace(page(), '"_table":"users"', '"_table":"' || repeat('t%5', 90000) || '"'))),
	('broken page', body(page(',' || repeat(' ', 260000))))
) AS large (name, fault), LATERAL emu.clear_faults(), LATERAL emu.fault('{"path": "/api/list_snapshot", "count": 1}' || fault);
SELECT emu.clear_faults() \g /dev/null
CREATE FUNCTION printable(text) RETURNS boolean LANGUAGE sql AS
$$ SELECT $1 !~ e'[\u0001-\u0009\u000b-\u001f\u007f-\u009f\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]' $$;
SELECT ok(printable(told_of(fault)) AND array_length(string_to_array(told_of(fault), e'\n'), 1) < 12, 'what is told of ' || name || ' is printable')
FROM (VALUES
	('control characters in a message', jsonb_build_object('action', 'status', 'status', 400, 'code', 'X', 'message', e'a\u001b[31mb\u0008\u0007\r\nERROR:  c\t\u007fd')),
	('control characters in a code', jsonb_build_object('action', 'status', 'status', 400, 'code', e'a\u001b[31mb\u0008', 'message', 'no')),
	('C1 control characters', jsonb_build_object('action', 'status', 'status', 400, 'code', 'X', 'message', e'a\u009b31mb\u0085\u0090')),
	('writing that changes direction', jsonb_build_object('action', 'status', 'status', 400, 'code', 'X', 'message', e'a\u202eb\u2066c\u2028d\ufeff')),
	('control characters in a body', bytes('\x3c1b5b33316d080d0a7f00013c'::bytea) || '{"status": 502}'),
	('control characters in a table name', body(replace(page(), '"_table":"users"', e'"_table":"a\u007fb\u009bc"')))
) AS odd (name, fault);
SELECT ok(told_of(bytes(fault) || '{"status": 500}') IS NOT NULL, name || ' is told without an encoding error')
FROM (VALUES
	('a message that is not UTF-8', convert_to('{"code":"X","message":"caf', 'UTF8') || '\xe9'::bytea || convert_to(' closed"}', 'UTF8')),
	('a code that is not UTF-8', convert_to('{"code":"X', 'UTF8') || '\xe9'::bytea || convert_to('","message":"closed"}', 'UTF8')),
	('a body that is not UTF-8', '\x3c68746d6c3ec3ffe9e2823c2f68746d6c3e'::bytea),
	('a body cut in a character', '\x3c68746d6c3ee282'::bytea),
	('a message with U+0000', convert_to('{"code":"X","message":"a\u0000b"}', 'UTF8'))
) AS odd (name, fault);
SELECT is(state, 'HV000', name || ' keeps its SQLSTATE')
FROM (VALUES
	('a message that is not UTF-8', convert_to('{"code":"X","message":"caf', 'UTF8') || '\xe9'::bytea || convert_to(' closed"}', 'UTF8')),
	('a message with U+0000', convert_to('{"code":"X","message":"a\u0000b"}', 'UTF8')),
	('an error nested 100,000 deep', convert_to('{"x":' || repeat('[', 60000), 'UTF8')),
	('an error of which code is a number', convert_to('{"code":7,"message":{"a":1}}', 'UTF8')),
	('an error that is an array', convert_to('["code"]', 'UTF8'))
) AS odd (name, fault), LATERAL ask_under(bytes(fault) || '{"status": 500}', 'SELECT * FROM resolute_users');
SELECT matches(told_of('{"action": "status", "status": 400, "code": "Größe", "message": "schön — 日本 🎈"}'), 'Größe.*schön — 日本 🎈',
	'foreign letters are told as they are');

-- A code is what the member code says, not what a message mentions.
SELECT is(state, 'HV00L', 'a message that mentions another code does not change the error')
	FROM ask_under('{"action": "status", "status": 400, "code": "BadJsonBody", "message": "not SnapshotTooNew"}');
SELECT matches(told, 'BadJsonBody.*not SnapshotTooNew', 'and is told as it is')
	FROM ask_under('{"action": "status", "status": 400, "code": "BadJsonBody", "message": "not SnapshotTooNew"}');
SELECT is(requests, 6, 'and does not change how often a request is sent')
	FROM ask_under('{"action": "status", "status": 503, "code": "CommitterFullError", "message": "no InternalServerError"}', 'SELECT * FROM patient_users');

-- ------------------------------------------------------------------- retries

SELECT is(requests, sent, name || ' is sent ' || sent || ' times when five repetitions are allowed')
FROM (VALUES
	('500', '{"action": "status", "status": 500}'::jsonb, 3),
	('500 without a body', '{"action": "status", "status": 500, "body": ""}', 3),
	('503 InternalServerError', '{"action": "status", "status": 503, "code": "InternalServerError"}', 3),
	('503 CommitterFullError', '{"action": "status", "status": 503, "code": "CommitterFullError"}', 6),
	('503 without a body', '{"action": "status", "status": 503, "body": ""}', 6),
	('429', '{"action": "status", "status": 429}', 6),
	('425', '{"action": "status", "status": 425}', 6),
	('429 with a Retry-After of 0', '{"action": "status", "status": 429, "headers": {"Retry-After": "0"}}', 6),
	('429 with a Retry-After beyond max_retry_wait', '{"action": "status", "status": 429, "headers": {"retry-after": "1"}}', 1),
	('503 with a Retry-After long ago', '{"action": "status", "status": 503, "code": "CommitterFullError", "headers": {"Retry-After": "Sun, 06 Nov 1994 08:49:37 GMT"}}', 6),
	('502', '{"action": "status", "status": 502, "body": "<html>"}', 6),
	('a cut', '{"action": "cut"}', 6),
	('a reset', '{"action": "reset"}', 6),
	('400', '{"action": "status", "status": 400}', 1),
	('401', '{"action": "status", "status": 401}', 1),
	('403', '{"action": "status", "status": 403}', 1),
	('404', '{"action": "status", "status": 404, "body": ""}', 1),
	('an HTML page', '{"action": "body", "body": "<html>"}', 1)
) AS kind (name, fault, sent), LATERAL ask_under(fault, 'SELECT * FROM patient_users');
SELECT is(requests || ' ' || nrows, '1 0', 'with max_retries 0 nothing is sent twice: ' || fault::text)
FROM unnest('{"{\"status\": 500}","{\"status\": 503}","{\"status\": 429}","{\"status\": 502}","{\"status\": 408}"}'::jsonb[]) AS fault,
	LATERAL ask_under('{"action": "status"}' || fault, 'SELECT * FROM resolute_users');
SELECT is(requests, 1, 'with max_retries 0 nor is a request that was cut')
	FROM ask_under('{"action": "cut"}', 'SELECT * FROM resolute_users');

-- A request that succeeds in the end is the same request, and says so.
SELECT emu.clear_journal(), emu.fault('{"path": "/api/list_snapshot", "count": 2, "action": "status", "status": 502}') \g /dev/null
SELECT is((SELECT count(*) FROM users), 3::bigint, 'a scan survives what passes');
SELECT is((SELECT count(DISTINCT entry -> 'body') FROM emu.journal() AS entry), 1::bigint, 'repetitions are the same request');
SELECT is((SELECT array_agg((entry ->> 'status')::int ORDER BY (entry ->> 'n')::int) FROM emu.journal() AS entry), '{502,502,200}',
	'and there is no more of them than needed');

-- A page that is repeated in mid-walk goes on where it was.
SELECT emu.config('{"page_limit": 1}'), emu.clear_journal(),
	emu.fault('{"path": "/api/list_snapshot", "skip": 1, "count": 2, "action": "cut", "after_bytes": 60}') \g /dev/null
SELECT is((SELECT array_agg(name ORDER BY name) FROM users), '{Ada,Bob,Cy}', 'a page that was cut is read again, once');
SELECT is((SELECT count(DISTINCT entry -> 'body') FROM emu.journal('/api/list_snapshot') AS entry WHERE entry ->> 'fault' IS NOT NULL
		OR entry #>> '{body,cursor}' IS NOT NULL) <= 3, true, 'with the cursor and the snapshot of its first time');
SELECT is((SELECT count(DISTINCT entry #> '{body,snapshot}') FROM emu.journal('/api/list_snapshot') AS entry
		WHERE entry -> 'body' ? 'cursor'), 1::bigint, 'at one snapshot');

-- An error on a later page ends the statement; nothing of it stays.
CREATE TABLE kept (_id text, name text);
SELECT emu.clear_faults(), emu.fault('{"path": "/api/list_snapshot", "skip": 1, "count": -1, "action": "status", "status": 400, "code": "InvalidListSnapshotCursor"}') \g /dev/null
SELECT throws_ok('INSERT INTO kept SELECT * FROM users', 'HV00L', NULL, 'an error on the second page is an error of the statement');
SELECT is_empty('SELECT * FROM kept', 'and none of the rows before it stays');
SELECT emu.clear_faults(), emu.config('{"page_limit": 1024}') \g /dev/null

-- 408 and timeouts of list_snapshot: the server goes on working, so they do not count.
SELECT emu.server('once', $$max_retries '1', max_retry_wait '1ms', request_timeout '300ms'$$) \g /dev/null
CREATE FOREIGN TABLE once_users (_id text, name text) SERVER once OPTIONS (table_name 'users');
SELECT emu.clear_journal(), emu.fault('{"path": "/api/list_snapshot", "count": 6, "action": "status", "status": 408}') \g /dev/null
SELECT is((SELECT count(*) FROM once_users), 3::bigint, 'six times 408 do not use up one repetition');
SELECT is((SELECT count(DISTINCT entry -> 'body') FROM emu.journal() AS entry), 1::bigint, 'and the request stays the same');
SELECT emu.clear_faults(), emu.clear_journal(),
	emu.fault('{"path": "/api/list_snapshot", "count": 4, "action": "stall", "seconds": 60}') \g /dev/null
SELECT is((SELECT count(*) FROM once_users), 3::bigint, 'nor do four timeouts');
SELECT is((SELECT count(DISTINCT entry -> 'body') FROM emu.journal() AS entry), 1::bigint, 'and the request stays the same');
SELECT emu.clear_faults(), emu.clear_journal(),
	emu.fault('[{"path": "/api/list_snapshot", "count": 3, "action": "status", "status": 408},
		{"path": "/api/list_snapshot", "count": 1, "action": "status", "status": 502},
		{"path": "/api/list_snapshot", "count": 3, "action": "status", "status": 408}]') \g /dev/null
SELECT is((SELECT count(*) FROM once_users), 3::bigint, 'and one repetition is left for what does count');
SELECT is(state, '08006', 'a server that answers nothing but 408 is an error in the end')
	FROM ask_under('{"action": "status", "status": 408}', 'SELECT * FROM once_users');
SELECT ok(told ~ '/api/list_snapshot' AND told ~ '\m408\M' AND told ~ 'attempts' AND coalesce(hint, '') <> '',
	'which names endpoint, status, attempts, and comes with a hint')
	FROM ask_under('{"action": "status", "status": 408}', 'SELECT * FROM once_users');
SELECT is(requests, 3, '408 elsewhere does count')
	FROM ask_under('{"path": "/api/get_table_column_names", "action": "status", "status": 408}', $$SELECT convex_tables('convex')$$);

-- Repetitions are shown.
SELECT emu.clear_faults(), emu.fault('{"path": "/api/list_snapshot", "count": 2, "action": "status", "status": 429}') \g /dev/null
CREATE FUNCTION explained(query text) RETURNS jsonb LANGUAGE plpgsql AS
$$
DECLARE
	plan jsonb;
BEGIN
	EXECUTE 'EXPLAIN (ANALYZE, FORMAT JSON) ' || query INTO plan;
	RETURN plan #> '{0,Plan}';
END
$$;
SELECT is(concat_ws(' ', plan -> 'Requests', plan -> 'Retries'), '3 2', 'EXPLAIN ANALYZE counts the repetitions')
	FROM explained('SELECT * FROM users') AS plan;

-- ----------------------------------------------- never rows, whatever is asked

SELECT emu.clear_faults() \g /dev/null
CREATE TEMP TABLE local AS SELECT 1 AS n, 'Ada' AS name;
SELECT is(state || ' ' || nrows, expected || ' 0', name || ' fails under ' || fault::text)
FROM (VALUES
	('count(*)', 'SELECT count(*) FROM users'),
	('EXISTS', 'SELECT EXISTS (SELECT FROM users)'),
	('NOT EXISTS', 'SELECT 1 WHERE NOT EXISTS (SELECT FROM users)'),
	('NOT IN', 'SELECT 1 FROM local WHERE name NOT IN (SELECT name FROM users)'),
	('an outer join', 'SELECT * FROM local LEFT JOIN users USING (name)'),
	('a scalar sub-query', 'SELECT (SELECT name FROM users LIMIT 1)'),
	('LIMIT 1', 'SELECT * FROM users LIMIT 1'),
	('UNION ALL', 'SELECT name FROM users UNION ALL SELECT name FROM users'),
	('an aggregate over nothing', 'SELECT max(name), coalesce(count(*), 0) FROM users WHERE false OR name IS NOT NULL')
) AS form (name, query), (VALUES
	('{"action": "status", "status": 400}'::jsonb, 'HV00L'),
	('{"action": "status", "status": 502, "body": ""}', 'HV000'),
	('{"action": "body", "body": ""}', 'HV00M'),
	('{"action": "cut", "after_bytes": 20}', '08006'),
	('{"action": "wrong_table"}', 'HV00M')
) AS broken (fault, expected), LATERAL ask_under(fault, query);

-- ---------------------------------------------------- functions, IMPORT, ANALYZE

CREATE SCHEMA target;
CREATE FUNCTION import() RETURNS SETOF int LANGUAGE plpgsql AS
$$ BEGIN IMPORT FOREIGN SCHEMA convex FROM SERVER convex INTO target; END $$;
CREATE FUNCTION sample() RETURNS SETOF int LANGUAGE plpgsql AS
$$ BEGIN ANALYZE users; END $$;

CREATE TEMP TABLE door (name text, query text, path text);
INSERT INTO door VALUES
	('convex_tables', $$SELECT convex_tables('convex')$$, '/api/get_table_column_names'),
	('convex_json_schemas', $$SELECT convex_json_schemas('convex')$$, '/api/json_schemas'),
	('convex_snapshot', $$SELECT convex_snapshot('convex')$$, '/api/list_snapshot'),
	('convex_changes', $$SELECT convex_changes('convex', 1)$$, '/api/document_deltas'),
	('IMPORT FOREIGN SCHEMA', 'SELECT import()', '/api/get_table_column_names'),
	('ANALYZE', 'SELECT sample()', '/api/list_snapshot');
SELECT results_eq(
	format('SELECT state, nrows, told ~ %L FROM ask_under(%L, %L)', path, fault || jsonb_build_object('path', path), query),
	format('VALUES (%L, 0, true)', expected), name || ' fails under ' || left(fault::text, 90) || ' and names its endpoint')
FROM door, (VALUES
	('{"action": "status", "status": 400, "code": "X"}'::jsonb, 'HV00L'),
	('{"action": "status", "status": 401, "code": "BadAdminKey"}', '28000'),
	('{"action": "status", "status": 403, "code": "StreamingExportNotEnabled"}', '42501'),
	('{"action": "status", "status": 503, "code": "TableSummariesUnavailable"}', '53000'),
	('{"action": "status", "status": 500}', 'HV000'),
	('{"action": "status", "status": 302, "body": "", "headers": {"location": "/"}}', 'HV00M'),
	('{"action": "body", "body": ""}', 'HV00M'),
	('{"action": "body", "body": "<html>"}', 'HV00M'),
	('{"action": "body", "body": "{"}', 'HV00M'),
	('{"action": "body", "body": "null"}', 'HV00M'),
	('{"action": "body", "body": "[]"}', 'HV00M'),
	('{"action": "body", "body": "\"maintenance\""}', 'HV00M'),
	('{"action": "body", "body": "7"}', 'HV00M'),
	('{"action": "body", "body": "{\"x\": 1e999999}"}', 'HV00M'),
	('{"action": "body", "body": "{\"x\": \"\\u0000\"}"}', 'HV00M'),
	('{"action": "brackets", "n": 100000}', 'HV00M'),
	('{"action": "cut", "after_bytes": 5}', '08006'),
	('{"action": "reset"}', '08006')
) AS broken (fault, expected)
WHERE NOT (name = 'convex_json_schemas' AND fault ->> 'body' LIKE '{"x"%');

-- A list of tables of another shape is not a deployment without tables.
SELECT is(state || ' ' || nrows, 'HV00M 0', 'convex_tables refuses ' || body)
FROM unnest(ARRAY['{}', '{"byComponent": null}', '{"byComponent": []}', '{"byComponent": {"": {}}}', '{"byComponent": {"": [7]}}',
	'{"byComponent": {"": [{"name": 7, "columns": []}]}}', '{"byComponent": {"": [{"columns": ["_id"]}]}}', '{"code": "X", "message": "no"}']) AS body,
	LATERAL ask_under(jsonb_build_object('path', '/api/get_table_column_names', 'action', 'body', 'body', body), $$SELECT convex_tables('convex')$$);

-- convex_test_connection tells failures as rows that say so: that is its answer.
SELECT is((SELECT count(*) FROM ask_under('{"path": "/api", "action": "status", "status": 401, "code": "BadAdminKey"}',
		$$SELECT 1 FROM convex_test_connection('convex') WHERE NOT ok$$) AS got WHERE got.nrows > 0), 1::bigint,
	'convex_test_connection says what does not work');

SELECT results_eq('SELECT 1 FROM users', 'VALUES (1), (1), (1)', 'after all of this a scan works');
SELECT * FROM finish();
