-- convex_test_connection() said that a full key lacks deployment:backups:view:
-- it took every failure of a made-up import for a refusal unless it read a word
-- that system functions never send.  It asks what the key may do, or lists the
-- imports; what says nothing about permissions is unknown, not false.

\ir ../pgtap/lib/setup.sql
SELECT plan(10);

SELECT emu.server('convex', $$max_retries '0'$$) \g /dev/null
CREATE FUNCTION backups() RETURNS jsonb LANGUAGE sql AS
$$ SELECT jsonb_object_agg(split_part(check_name, ':', 2), ok) FROM convex_test_connection('convex') WHERE check_name LIKE 'backups:%' $$;
CREATE FUNCTION with_ops(ops jsonb) RETURNS jsonb LANGUAGE sql AS
$$ SELECT emu.config(jsonb_build_object('keys', jsonb_build_object(emu.key(), ops))) $$;

-- A full key, on servers of all ages.
SELECT is(backups(), '{"import": true, "view": true}', 'a full key may import, and look');
SELECT emu.fault('{"path": "/api/check_admin_key", "count": -1, "action": "status", "status": 404}') \g /dev/null
SELECT is(backups(), '{"import": true, "view": true}', 'also where the server does not tell');
SELECT emu.fault('{"path": "/api/query", "count": -1, "action": "status", "status": 404}') \g /dev/null
SELECT is(backups(), '{"import": true, "view": null}', 'where the list of imports is not to be had, it is unknown');
SELECT emu.clear_faults() \g /dev/null

-- A key with one of the permissions.
SELECT with_ops('["deployment:backups:import", "deployment:data:view"]') \g /dev/null
SELECT is(backups(), '{"import": true, "view": false}', 'a key without deployment:backups:view is told');
SELECT ok(hint ~ 'deployment:backups:view' AND detail ~ 'ViewBackups', 'with what is missing') FROM convex_test_connection('convex') WHERE check_name = 'backups:view';
SELECT emu.fault('{"path": "/api/check_admin_key", "count": -1, "action": "status", "status": 404}') \g /dev/null
SELECT is(backups(), '{"import": true, "view": false}', 'and so it is where the server does not tell of keys');
SELECT emu.clear_faults(), with_ops('["deployment:backups:view", "deployment:data:view"]') \g /dev/null
SELECT is(backups(), '{"import": false, "view": true}', 'the other way about');

-- Other failures of the query say nothing.
CREATE FUNCTION under(body text, status int) RETURNS jsonb LANGUAGE sql AS
$$
	SELECT emu.clear_faults(), emu.fault('{"path": "/api/check_admin_key", "count": -1, "action": "status", "status": 404}');
	SELECT emu.fault(jsonb_build_object('path', '/api/query', 'count', -1, 'action', 'body', 'status', status,
		'body_base64', translate(encode(convert_to(body, 'UTF8'), 'base64'), E'\n', '')));
	SELECT backups() -> 'view';
$$;
SELECT is(under('{"status":"error","errorMessage":"Couldn''t find system module"}', 200), 'null', 'a server without the function is unknown');
SELECT is(under('{"status":"error","errorMessage":"Value does not match validator."}', 560), 'null', 'so is a failure with status 560');
SELECT is(under('{"status":"error","errorMessage":"You do not have permission to perform this operation (deployment:backups:view)."}', 560),
	'false', 'unless it is about the permission');

SELECT * FROM finish();
