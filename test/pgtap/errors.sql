-- Every way in which a deployment, or what stands in its place, can fail to
-- answer is a clear error of its own, never rows.

\ir lib/setup.sql
-- The walk is what this is about: see lookup.sql for what Convex is asked.
SET convex_fdw.pushdown = off;
SELECT plan(923);
\ir lib/errors.sql

-- ------------------------------------------------------------------ statuses

-- status, Convex's code, SQLSTATE, requests sent when two repetitions are allowed
CREATE TEMP TABLE refusal (place int GENERATED ALWAYS AS IDENTITY, status int, code text, state text, sent int);
INSERT INTO refusal (status, code, state, sent)
SELECT 400, code, 'HV00L', 1 FROM unnest('{InvalidClientVersion,ClientVersionUnsupported,HeaderParseFailure,
	InvalidHeaderFailure,InvalidAdminKey,BadQueryArgs,BadJsonBody,BadFormat,DocumentDeltasCursorRequired,
	InvalidWindowToReadDocuments,InvalidListSnapshotCursor,InvalidDataSyncCursor,
	DataSyncCursorExpired,InvalidDataSyncSelection,LimitOutOfRange,InvalidCursor,NoSchemaForExport,
	NoTableDefinitionForExport,UnsupportedSchemaForExport,EmptyPrimaryKey,
	SchemaEnforcementError,ValueTooLargeError,TooManyWrites,TooManyReads,TooManyTables,InvalidTableName,
	ImportFailed,SomethingNew}'::text[]) AS code;
INSERT INTO refusal (status, code, state, sent) VALUES
	(401, 'BadAdminKey', '28000', 1),
	(401, 'InvalidAuthHeader', '28000', 1),
	(401, 'NoAuthProvider', '28000', 1),
	(401, 'Unauthenticated', '28000', 1),
	(401, NULL, '28000', 1),
	(403, 'BadDeployKey', '42501', 1),
	(403, 'OperationNotPermitted', '42501', 1),
	(403, 'SystemIdentityRequired', '42501', 1),
	(403, 'StreamingExportNotEnabled', '42501', 1),
	(403, NULL, '42501', 1),
	(400, 'SnapshotTooOld', '72000', 1),
	(404, NULL, '0A000', 1),
	(405, NULL, '0A000', 1),
	(400, 'InvalidPrimaryKey', '22023', 1),
	(400, 'MissingIndex', '55000', 1),
	(400, 'InvalidImport', '55000', 1),
	(406, NULL, 'HV00L', 1),
	(409, 'Conflict', 'HV00L', 1),
	(412, NULL, 'HV00L', 1),
	(413, NULL, 'HV00L', 1),
	(421, 'Misdirected', 'HV00L', 1),
	(425, 'TooEarly', '53000', 3),
	(429, 'TooManyWrites', '53000', 3),
	(429, NULL, '53000', 3),
	(500, 'InternalServerError', 'HV000', 3),
	(500, NULL, 'HV000', 3),
	(501, NULL, 'HV000', 3),
	(502, NULL, 'HV000', 3),
	(503, 'TableSummariesUnavailable', '53000', 3),
	(503, 'OptimisticConcurrencyControlFailure', '40001', 3),
	(503, 'CommitterFullError', '53000', 3),
	(503, 'SubscriptionsWorkerFullError', '53000', 3),
	(503, 'TextIndexTooLarge', '53000', 3),
	(503, 'VectorIndexTooLarge', '53000', 3),
	(503, 'InternalServerError', '53000', 3),
	(503, NULL, '53000', 3),
	(504, NULL, 'HV000', 3),
	(520, NULL, 'HV000', 3),
	(522, NULL, 'HV000', 3),
	(599, NULL, 'HV000', 3);

CREATE FUNCTION check_refusal(refusal) RETURNS SETOF text LANGUAGE plpgsql AS
$$
DECLARE
	name text := concat_ws(' ', $1.status, coalesce($1.code, 'without a code'));
	word text := 'the word is ' || md5($1.place::text);
	got record;
BEGIN
	SELECT * INTO got FROM ask_under(CASE
		WHEN $1.code IS NULL THEN jsonb_build_object('action', 'status', 'status', $1.status, 'body', word)
		ELSE jsonb_build_object('action', 'status', 'status', $1.status, 'code', $1.code, 'message', word) END);
	RETURN NEXT is(got.state, $1.state, name || ' has its SQLSTATE');
	RETURN NEXT is(
		(SELECT string_agg(part, ', ') FROM unnest(ARRAY['convex', 'POST /api/list_snapshot', $1.status::text, $1.code,
				word, CASE WHEN $1.sent > 1 THEN $1.sent || ' attempts' END]) AS part
			WHERE strpos(got.told, part) = 0),
		NULL, name || ' names server, endpoint, status, code, message and attempts');
	RETURN NEXT isnt(coalesce(got.hint, ''), '', name || ' comes with a hint');
	RETURN NEXT is(got.requests, $1.sent, name || ' is sent as often as it may');
	RETURN NEXT is(got.nrows, 0, name || ' gives no row');
	RETURN NEXT results_eq('SELECT 1 FROM users', 'VALUES (1), (1), (1)', 'after ' || name || ' a scan works');
END
$$;

SELECT check_refusal(refusal) FROM refusal ORDER BY place;

SELECT ok((SELECT told FROM ask_under('{"action": "status", "status": 400, "code": "SomethingNew"}')) ~ '\m1 attempt|one attempt',
	'a failure tells the number of attempts also when it was one');
SELECT matches((SELECT told FROM ask_under('{"action": "status", "status": 400, "code": "SnapshotTooNew", "message": "the word is tomorrow"}')),
	'list_snapshot.*400.*SnapshotTooNew.*the word is tomorrow', '400 SnapshotTooNew names endpoint, status, code and message');
SELECT is(state, 'HV00L', '400 SnapshotTooNew has its SQLSTATE')
	FROM ask_under('{"action": "status", "status": 400, "code": "SnapshotTooNew"}');
SELECT matches(hint, 'plan', '403 StreamingExportNotEnabled tells that the plan lacks it')
	FROM ask_under('{"action": "status", "status": 403, "code": "StreamingExportNotEnabled"}');
SELECT matches(hint, '[Ww]riting still works', '403 StreamingExportNotEnabled says that writing still works')
	FROM ask_under('{"action": "status", "status": 403, "code": "StreamingExportNotEnabled"}');

-- A wrong table is found by the name list, not by an error of the server.
CREATE FOREIGN TABLE nobody (_id text) SERVER convex;
SELECT is(state, 'HV00R', 'a table that the deployment does not have is an error and not an empty table')
	FROM ask('SELECT * FROM nobody');
SELECT isnt(hint, '', 'a table that the deployment does not have comes with a hint') FROM ask('SELECT * FROM nobody');

-- The emulator's own words: keys it refuses.
CREATE SERVER locked FOREIGN DATA WRAPPER convex_fdw OPTIONS (deployment_url :'emulator');
CREATE FOREIGN TABLE locked_users (_id text) SERVER locked OPTIONS (table_name 'users');
SELECT is(state, '42704', 'a role without a user mapping sends nothing') FROM ask('SELECT * FROM locked_users');
CREATE USER MAPPING FOR CURRENT_USER SERVER locked OPTIONS (deploy_key 'prod:happy-otter-123|no-such-key');
SELECT is(state, '28000', 'a key that the deployment refuses is an invalid authorization')
	FROM ask('SELECT * FROM locked_users');
SELECT ok(told !~ 'no-such-key', 'the refused key is in no message')
	FROM (SELECT concat_ws(' ', message, detail, hint, context) AS told FROM ask('SELECT * FROM locked_users')) AS got;
ALTER USER MAPPING FOR CURRENT_USER SERVER locked OPTIONS (DROP deploy_key);
SELECT is(state, '42501', 'a mapping without a key is refused by the server, with its words')
	FROM ask('SELECT * FROM locked_users');


-- ----------------------------------------------------------------- redirects

CREATE FUNCTION check_redirect(status int) RETURNS SETOF text LANGUAGE plpgsql AS
$$
DECLARE
	got record;
BEGIN
	SELECT * INTO got FROM ask_under(jsonb_build_object('action', 'status', 'status', status, 'body', '',
		'headers', jsonb_build_object('location', current_setting('emu.url') || '/api/get_table_column_names')));
	RETURN NEXT is(got.state, 'HV00M', 'a redirect with status ' || status || ' is an error');
	RETURN NEXT is(got.requests, 1, 'a redirect with status ' || status || ' is not followed');
	RETURN NEXT ok(got.told ~ status::text AND got.told ~ 'redirect' AND got.hint <> '',
		'a redirect with status ' || status || ' is called by its name');
END
$$;
SELECT check_redirect(status) FROM unnest(ARRAY[300, 301, 302, 303, 307, 308]) AS status;
SELECT check_redirect(304);


-- -------------------------------------------------- answers that cannot be read

CREATE TEMP TABLE garbage (place int GENERATED ALWAYS AS IDENTITY, name text, fault jsonb, state text DEFAULT 'HV00M');
INSERT INTO garbage (name, fault) VALUES
	('an HTML page', body('<!DOCTYPE html><html><title>Sign in to the café</title></html>') || '{"content_type": "text/html"}'),
	('an empty body', '{"action": "body", "body": ""}'),
	('a body of white space', '{"action": "body", "body": "   \r\n "}'),
	('a page cut in its values', body(left(page(), 150))),
	('a page cut before its last bracket', body(left(page(), -1))),
	('a page cut in a string', body(left(page(), 160))),
	('a page cut after a backslash', body(left(page(), 180) || '\')),
	('100,000 nested arrays', '{"action": "brackets", "n": 100000}'),
	('100,000 nested arrays in a page', body('{"values":' || repeat('[', 100000))),
	('100,000 nested arrays in a field', body(page(',"x":' || repeat('[', 100000) || repeat(']', 100000)))),
	('100,000 nested objects in a field', body(page(',"x":' || repeat('{"a":', 100000) || '1' || repeat('}', 100000)))),
	('100,000 nested arrays in an unknown member', body(page('', ',"x":' || repeat('[', 100000)))),
	('a gzip bomb of 200 MB', '{"action": "gzip_bomb", "megabytes": 200}'),
	('an array', body('[' || page() || ']')),
	('a null', body('null')),
	('a number', body('1')),
	('a string', body('"' || 'maintenance' || '"')),
	('an empty object', body('{}')),
	('an answer of another endpoint', body('{"byComponent":{"":[]}}')),
	('a Convex error with status 200', body('{"code":"InternalServerError","message":"no"}')),
	('a page without values', body('{"snapshot":1700000000000000001,"cursor":null,"hasMore":false}')),
	('a page without a snapshot', body('{"values":[],"cursor":null,"hasMore":false}')),
	('a page without hasMore', body('{"values":[],"snapshot":1700000000000000001,"cursor":null}')),
	('a page with more but no cursor', body('{"values":[],"snapshot":1700000000000000001,"cursor":null,"hasMore":true}')),
	('values that are no array', body('{"values":{},"snapshot":1700000000000000001,"cursor":null,"hasMore":false}')),
	('values that are null', body('{"values":null,"snapshot":1700000000000000001,"cursor":null,"hasMore":false}')),
	('a document that is no object', body('{"values":[1],"snapshot":1700000000000000001,"cursor":null,"hasMore":false}')),
	('a document that is null', body('{"values":[null],"snapshot":1700000000000000001,"cursor":null,"hasMore":false}')),
	('a document without an _id', body(replace(page(), '"_id"', '"id"'))),
	('a document whose _id is a number', body(replace(page(), '"j57000820c20a1g7104gm2rc1m70ynr8"', '7'))),
	('a document whose _id is empty', body(replace(page(), 'j57000820c20a1g7104gm2rc1m70ynr8', ''))),
	('a document without a table', body(replace(page(), '"_table":"users",', ''))),
	('a document without a component', body(replace(page(), '"_component":"",', ''))),
	('a document without a timestamp', body(replace(page(), '"_ts":1700000000000000000,', ''))),
	('a document of another table', body(replace(page(), '"_table":"users"', '"_table":"secrets"'))),
	('a document of another component', body(replace(page(), '"_component":""', '"_component":"billing"'))),
	('a document whose table is only a prefix', body(replace(page(), '"_table":"users"', '"_table":"user"'))),
	('a document whose table is longer', body(replace(page(), '"_table":"users"', '"_table":"users2"'))),
	('a timestamp that is a float', body(replace(page(), '1700000000000000000', '1.7e18'))),
	('a timestamp that is a string', body(replace(page(), '1700000000000000000', '"1700000000000000000"'))),
	('a timestamp beyond 64 bits', body(replace(page(), '1700000000000000000', '9223372036854775808'))),
	('a timestamp with a leading zero', body(replace(page(), '1700000000000000000', '01700000000000000000'))),
	('a snapshot that is a float', body(replace(page(), '1700000000000000001', '1700000000000000001.0'))),
	('a snapshot that is null', body(replace(page(), '1700000000000000001', 'null'))),
	('a snapshot of zero', body(replace(page(), '1700000000000000001', '0'))),
	('a negative snapshot', body(replace(page(), '1700000000000000001', '-1700000000000000001'))),
	('hasMore as a string', body(replace(page(), 'false', '"false"'))),
	('hasMore as null', body(replace(page(), 'false', 'null'))),
	('hasMore as a number', body(replace(page(), 'false', '0'))),
	('two members values', body(page('', ',"values":[]'))),
	('two members snapshot', body(page('', ',"snapshot":1700000000000000002'))),
	('two members hasMore', body(page('', ',"hasMore":false'))),
	('a page with a comma at its end', body(page('', ','))),
	('a document with a comma at its end', body(page(','))),
	('a page with a comma at the end of values', body(replace(page(), '}],', '},],'))),
	('a page in single quotes', body(replace(page(), '"', ''''))),
	('a page with a comment', body(page('', '/* all */'))),
	('a page with NaN', body(page(',"x":NaN'))),
	('a page with Infinity', body(page(',"x":-Infinity'))),
	('a page with a hexadecimal number', body(page(',"x":0x10'))),
	('a page with a number that begins with a plus', body(page(',"x":+1'))),
	('a page with a number that begins with a point', body(page(',"x":.5'))),
	('a page with a number that ends with a point', body(page(',"x":5.'))),
	('a page with a number that begins with a zero', body(page(',"x":05'))),
	('a page with a number without an exponent', body(page(',"x":5e'))),
	('a page with a bad word', body(page(',"x":nul'))),
	('a page with a bad escape', body(page(',"x":"\x41"'))),
	('a page with a bad \u escape', body(page(',"x":"\u12G4"'))),
	('a page with the first half of a surrogate pair', body(page(',"x":"\ud83d"'))),
	('a page with the second half of a surrogate pair', body(page(',"x":"\ude00"'))),
	('a page with a tab in a string', body(page(e',"x":"a\tb"'))),
	('a page with a line feed in a string', body(page(e',"x":"a\nb"'))),
	('two pages', body(page() || page())),
	('a page and one more bracket', body(page() || '}')),
	('a page and HTML', body(page() || '<!-- served by a proxy -->')),
	('a byte order mark before the page', bytes('\xefbbbf'::bytea || convert_to(page(), 'UTF8'))),
	('a zero byte after the page', bytes(convert_to(page(), 'UTF8') || '\x00'::bytea)),
	('a zero byte before the page', bytes('\x00'::bytea || convert_to(page(), 'UTF8'))),
	('a zero byte in a string', bytes(convert_to(replace(page(), 'Eve"}', 'Ev'), 'UTF8') || '\x00'::bytea || convert_to('e"}],"snapshot":1700000000000000001,"cursor":null,"hasMore":false}', 'UTF8'))),
	('a zero byte between members', bytes(convert_to(page('', ','), 'UTF8') || '\x00'::bytea || convert_to('"x":1}', 'UTF8'))),
	('bytes that are not UTF-8', bytes(replace(encode(convert_to(page(), 'UTF8'), 'escape'), 'Eve', 'E\376e')::bytea)),
	('an overlong encoding', bytes(replace(encode(convert_to(page(), 'UTF8'), 'escape'), 'Eve', 'E\300\257e')::bytea)),
	('a surrogate in UTF-8', bytes(replace(encode(convert_to(page(), 'UTF8'), 'escape'), 'Eve', 'E\355\240\200e')::bytea)),
	('UTF-8 cut in a character', bytes(convert_to(left(page(), 150), 'UTF8') || '\xe282'::bytea)),
	('a page in UTF-16', bytes(decode(regexp_replace(encode(convert_to(page(), 'UTF8'), 'hex'), '(..)', '\1' || '00', 'g'), 'hex'))),
	('a page with status 201', body(page()) || '{"status": 201}'),
	('a page with status 206', body(page()) || '{"status": 206}'),
	('status 204', '{"action": "status", "status": 204, "body": ""}'),
	('status 999', '{"action": "status", "status": 999, "body": "no"}');

CREATE FUNCTION check_garbage(garbage) RETURNS SETOF text LANGUAGE plpgsql AS
$$
DECLARE
	got record;
BEGIN
	SELECT * INTO got FROM ask_under($1.fault, 'SELECT _id, name FROM users');
	RETURN NEXT is(got.state, $1.state, $1.name || ' is an error');
	RETURN NEXT is(got.nrows, 0, $1.name || ' gives no row');
	RETURN NEXT ok(got.message <> '' AND got.detail <> '' AND got.hint <> '' AND length(got.told) < 1500,
		$1.name || ' is told with detail and hint, and short');
	RETURN NEXT is(got.requests, 1, $1.name || ' is not asked for again');
	RETURN NEXT results_eq('SELECT 1 FROM users', 'VALUES (1), (1), (1)', 'after ' || $1.name || ' a scan works');
END
$$;

SELECT check_garbage(garbage) FROM garbage ORDER BY place;

SELECT ok(told ~ '/api/list_snapshot' AND told ~ '\m200\M', name || ' names endpoint and status')
	FROM garbage, LATERAL ask_under(fault)
	WHERE name IN ('an HTML page', 'an empty body', 'a page cut in its values', '100,000 nested arrays',
		'100,000 nested arrays in a field', 'a gzip bomb of 200 MB', 'a document of another table', 'an empty object');
SELECT matches((SELECT told FROM ask_under((SELECT fault FROM garbage WHERE name = 'an HTML page'))), 'Sign in to the café',
	'an HTML page is quoted');
SELECT matches((SELECT told FROM ask_under('{"action": "body", "body": ""}')), 'empty', 'an empty body is called empty');
SELECT matches((SELECT told FROM ask_under('{"action": "brackets", "n": 100000}')), 'nested|deep|\[',
	'nested brackets are quoted or called deep');

-- What looks odd but is right is read.
SELECT results_eq(format('SELECT nrows, state FROM ask_under(%L)', fault), $$VALUES (1, 'no error')$$, name || ' is read')
FROM (VALUES
	('a page with a wrong content type', body(page()) || '{"content_type": "text/html; charset=latin1"}'),
	('a page without a content type', body(page()) || '{"content_type": ""}'),
	('a page with white space around it', body(e' \r\n\t' || page() || e' \r\n\t')),
	('a page with white space within', body(replace(replace(page(), ':', e' :\n'), ',', e' ,\t'))),
	('a page with unknown members', body(page('', ',"more":{"a":[1,{"b":null}]},"":"","_x":-1.5E+10'))),
	('a page with members in another order', body('{"hasMore":false,"cursor":null,"snapshot":1700000000000000001,' || substring(page() from '"values":\[.*\]') || '}')),
	('a document with unknown metadata', body(page(',"_new":{"a":1}'))),
	('a document nested 64 deep', body(page(',"x":' || repeat('[', 64) || repeat(']', 64)))),
	('a document with an empty field name', body(page(',"":1'))),
	('a document with U+0000 in a field that is not asked for', body(page(',"x":"\u0000"'))),
	('a document with escaped member names', body(replace(page(), '"name"', '"\u006eame"')))
) AS odd (name, fault);
SELECT is((SELECT array_agg(name) FROM resolute_users), '{Eve}', 'the value behind an escaped member name is read')
	FROM emu.fault('{"path": "/api/list_snapshot", "count": 1}' || body(replace(page(), '"name"', '"\u006eame"')));
SELECT is((SELECT array_agg(name) FROM resolute_users), '{Zoe}', 'of two fields of one name the last is read, as jsonb does')
	FROM emu.fault('{"path": "/api/list_snapshot", "count": 1}' || body(page(',"name":"Zoe"')));
SELECT is((SELECT array_agg(document ->> 'name') FROM documents), '{Zoe}', 'and so it is in the whole document')
	FROM emu.fault('{"path": "/api/list_snapshot", "count": 1}' || body(page(',"name":"Zoe"')));

-- Two documents of which only the second is odd.
CREATE FUNCTION two(first text, second text) RETURNS jsonb LANGUAGE sql AS
$$ SELECT body('{"values":[' || $1 || ',' || $2 || '],"snapshot":1700000000000000001,"cursor":null,"hasMore":false}') $$;
SELECT is((SELECT array_agg(name) FROM resolute_users), '{Eve,Eve}', 'fields that come before the timestamp are read')
	FROM emu.fault('{"path": "/api/list_snapshot", "count": 1}' || two(
		'{"_component":"","_table":"users","name":"Eve","_ts":1700000000000000000,"_id":"j1"}',
		'{"_component":"","_table":"users","name":"Eve","_ts":1700000000000000000,"_id":"j2"}'));
SELECT is((SELECT array_agg(_id || name) FROM resolute_users), '{j1Eve,j2Eve}', 'and so are they with others')
	FROM emu.fault('{"path": "/api/list_snapshot", "count": 1}' || two(
		'{"_component":"","_table":"users","_id":"j1","name":"Eve","_ts":1700000000000000000}',
		'{"_component":"","_table":"users","_id":"j2","name":"Eve","_ts":1700000000000000000}'));
SELECT is(state || ' ' || nrows, 'HV00M 0', 'a second document that is ' || name || ' is an error')
FROM (VALUES
	('of another table', '{"_component":"","_table":"secrets","_ts":1,"_id":"j2","name":"Eve"}'),
	('of another table at the second look', '{"_component":"","_table":"users","_ts":1,"_id":"j2","name":"Eve","_table":"secrets"}'),
	('of another component at the second look', '{"_component":"","_table":"users","_ts":1,"_id":"j2","name":"Eve","_component":"billing"}'),
	('without an _id', '{"_component":"","_table":"users","_ts":1,"name":"Eve"}'),
	('cut after its head', '{"_component":"","_table":"users","_ts":'),
	('without a timestamp', '{"_component":"","_table":"users","_ts":,"_id":"j2","name":"Eve"}'),
	('an array', '["_component","","_table","users","_ts",1,"_id","j2"]')
) AS odd (name, document), LATERAL ask_under(two('{"_component":"","_table":"users","_ts":1,"_id":"j1","name":"Eve"}', document));

SELECT is(state || ' ' || nrows, 'HV00M 0', 'nor does a first one that says both tables let others of the wrong table in')
	FROM ask_under(two('{"_component":"","_table":"secrets","_ts":1,"_id":"j1","name":"Eve","_table":"users"}',
		'{"_component":"","_table":"secrets","_ts":1,"_id":"j2","name":"Eve"}'));

-- A cursor is echoed byte for byte or refused.
SELECT emu.clear_faults(), emu.clear_journal() \g /dev/null
SELECT emu.fault('{"path": "/api/list_snapshot", "count": 1}'
	|| body('{"values":[],"snapshot":1700000000000000001,"cursor":"a\u0000b","hasMore":true}')) \g /dev/null
SELECT is(state, 'HV00M', 'a page cursor with U+0000 is refused, not shortened') FROM ask('SELECT * FROM resolute_users');
SELECT is((SELECT count(*) FROM emu.journal()), 1::bigint, 'a shortened cursor is not sent');
SELECT emu.clear_faults(), emu.clear_journal() \g /dev/null
SELECT emu.fault('{"path": "/api/list_snapshot", "count": 1}'
	|| body(e'{"values":[],"snapshot":1700000000000000001,"cursor":"\\"\\\\\\/\\t\\u00e9\\ud83d\\ude00\\u007f\u00e9","hasMore":true}')) \g /dev/null
SELECT ask('SELECT * FROM resolute_users') \g /dev/null
SELECT is((SELECT entry #>> '{body,cursor}' FROM emu.journal() AS entry OFFSET 1), e'"\\/\t\u00e9\U0001F600\u007f\u00e9',
	'a page cursor is sent back as it came');
SELECT emu.clear_faults() \g /dev/null

SELECT * FROM finish();
