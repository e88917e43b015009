-- A peer that echoes the deploy key as a document's _id, a value, a name, a
-- header or in an error, as it is, escaped or in base64, found it printed in
-- details, contexts, events and stored errors.  No text of ours shows it: short
-- excerpts with [key] in its place, and a name that is the key is refused.

\ir ../pgtap/lib/setup.sql
SELECT plan(29);

SELECT emu.server('convex', $$max_retries '0'$$) \g /dev/null
CREATE FOREIGN TABLE users (_id text, name text, age integer, born date) SERVER convex;
CREATE FOREIGN TABLE keyed (id bigint, name text) SERVER convex OPTIONS (table_name 'users', primary_key 'id');
SELECT emu.insert('users', '{"name": "Ada"}') \g /dev/null

CREATE FUNCTION secret() RETURNS text LANGUAGE sql IMMUTABLE AS $$ SELECT split_part(emu.key(), '|', 2) $$;

-- The same in the forms that a peer may give it, and what of it is secret.
CREATE FUNCTION base64(word text) RETURNS text LANGUAGE sql IMMUTABLE AS
$$ SELECT translate(encode(convert_to(word, 'UTF8'), 'base64'), E'\n', '') $$;
CREATE FUNCTION escaped(before text) RETURNS text LANGUAGE sql IMMUTABLE AS
$$
	SELECT string_agg(before || encode(convert_to(c, 'UTF8'), 'hex'), '')
	FROM regexp_split_to_table(split_part(emu.key(), '|', 2), '') AS c
$$;
CREATE TEMP TABLE forms AS SELECT form, spelled, substr(spelled, first) AS core
FROM (VALUES
	('as it is', secret(), 1),
	('in capitals', upper(secret()), 1),
	('with \u', escaped('\u00'), 1),
	('with \u within JSON', escaped('\\u00'), 1),
	('with %', escaped('%'), 1),
	('in base64', base64(secret()), 1),
	('in base64, one byte on', base64('x' || secret() || 'y'), 1),
	('in base64, as a header', base64('Convex ' || emu.key()), (7 + length(emu.key()) - length(secret())) * 8 / 6 + 2)
) AS form (form, spelled, first);

-- Is there anything of it in a text?
CREATE FUNCTION shows_key(said text) RETURNS boolean LANGUAGE sql AS
$$
	SELECT bool_or(strpos(lower(said), lower(substr(core, place, 9))) > 0)
	FROM forms, generate_series(1, 200) AS place WHERE length(substr(core, place, 9)) = 9
$$;

-- What a statement fails with under a body that a path answers.
CREATE FUNCTION failure(path text, body text, statement text, status int DEFAULT 200) RETURNS jsonb LANGUAGE plpgsql AS
$$
DECLARE
	state text; message text; detail text; hint text; context text;
BEGIN
	PERFORM emu.fault(jsonb_build_object('path', path, 'count', -1, 'action', 'body', 'status', status,
		'body_base64', translate(encode(convert_to(body, 'UTF8'), 'base64'), E'\n', '')));
	BEGIN
		EXECUTE statement;
	EXCEPTION WHEN OTHERS THEN
		GET STACKED DIAGNOSTICS state = RETURNED_SQLSTATE, message = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL,
			hint = PG_EXCEPTION_HINT, context = PG_EXCEPTION_CONTEXT;
	END;
	PERFORM emu.clear_faults();
	RETURN jsonb_build_object('sqlstate', state, 'said', concat_ws(' | ', message, detail, hint, context));
END
$$;

CREATE FUNCTION page(id text, rest text, table_name text DEFAULT 'users') RETURNS text LANGUAGE sql AS
$$
	SELECT format('{"values":[{"_component":"","_table":"%s","_ts":1700000000000000000,"_creationTime":1.5,"_id":"%s"%s}],'
		|| '"snapshot":1700000000000000001,"cursor":null,"hasMore":false}', table_name, id, rest)
$$;

-- ----------------------------------------------- in every form, as an _id

-- An _id with escapes is none.
SELECT ok(failed ->> 'sqlstate' ~ 'HV004|HV00M' AND NOT shows_key(failed ->> 'said'),
	'a value that does not fit does not show the key of its _id ' || form)
FROM forms, failure('/api/list_snapshot', page(spelled, ',"age":"old"'), 'SELECT age FROM users') AS failed;

SELECT ok(failed ->> 'sqlstate' = 'HV000' AND NOT shows_key(failed ->> 'said'),
	'a body does not show the key ' || form)
FROM forms, failure('/api/list_snapshot', 'you sent ' || spelled, 'SELECT * FROM users', 500) AS failed;

-- ------------------------------------------------------- in other places

SELECT ok(coalesce(failed ->> 'sqlstate' = state AND NOT shows_key(failed ->> 'said') AND length(failed ->> 'said') < 2500, false),
	what || ' is ' || state || ' without the key, and short')
FROM (VALUES
	('a value that its type refuses', 'HV004', '/api/list_snapshot',
		page('j57000820c20a1g7104gm2rc1m70ynr8', ',"born":"' || secret() || '"'), 'SELECT born FROM users'),
	('a long value that its type refuses', 'HV004', '/api/list_snapshot',
		page('j57000820c20a1g7104gm2rc1m70ynr8', ',"born":"' || repeat('x', 100000) || '"'), 'SELECT born FROM users'),
	('a marker that is none', 'HV004', '/api/list_snapshot',
		page('j57000820c20a1g7104gm2rc1m70ynr8', ',"age":{"$integer":"' || secret() || '"}'), 'SELECT age FROM users'),
	('a table that was not asked for', 'HV00M', '/api/list_snapshot', page('x', '', secret()), 'SELECT * FROM users'),
	('a table that is the key', 'HV00M', '/api/get_table_column_names',
		'{"byComponent":{"":[{"name":"k' || secret() || '","columns":["_id"]}]}}', $$SELECT convex_tables('convex')$$),
	('a field that is the key', 'HV00M', '/api/get_table_column_names',
		'{"byComponent":{"":[{"name":"users","columns":["' || secret() || '"]}]}}', $$SELECT convex_tables('convex')$$),
	('a component that is the key', 'HV00M', '/api/get_table_column_names',
		'{"byComponent":{"k' || secret() || '":[{"name":"users","columns":["_id"]}]}}',
		'IMPORT FOREIGN SCHEMA other FROM SERVER convex INTO public'),
	('what jsonb refuses', 'HV00M', '/api/get_table_column_names',
		'{"byComponent":{"' || secret() || '":"\u0000"}}', $$SELECT convex_tables('convex')$$),
	('a document of a key check', '23502', '/api/list_snapshot', page(secret(), ',"id":null'), $$SELECT convex_ensure_primary_key('keyed')$$)
) AS given (what, state, path, body, statement),
	failure(path, body, statement) AS failed;

-- ----------------------------------------------------------- subscriptions

SELECT emu.reset() \g /dev/null
SELECT emu.insert('notes', '{"text": "one"}') \g /dev/null
SELECT convex_create_subscription('mirror', 'convex', '{notes}', options => '{"max_columns": 20}') \g /dev/null
CALL convex_sync('mirror');
SELECT emu.insert('notes', jsonb_build_object(secret(), 1)) \g /dev/null
CALL convex_sync('mirror');
SELECT ok(NOT EXISTS (SELECT FROM pg_attribute WHERE attrelid = 'mirror.notes'::regclass AND shows_key(attname))
	AND EXISTS (SELECT FROM mirror.notes WHERE _extra ? secret()), 'a field that is the key gets no column, and is kept');

SELECT emu.fault(jsonb_build_object('path', '/api/document_deltas', 'count', -1, 'action', 'body', 'status', 500,
	'body_base64', translate(encode(convert_to('you sent ' || secret(), 'UTF8'), 'base64'), E'\n', ''))) \g /dev/null
\set ON_ERROR_STOP 0
\o /dev/null
CALL convex_sync('mirror');
\o
\set ON_ERROR_STOP 1
SELECT emu.clear_faults() \g /dev/null
SELECT ok(last_error_message IS NOT NULL AND NOT shows_key(last_error_message), 'a stored error is without the key')
FROM convex_stat_subscription;

-- A target's own words may quote a document.
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN RAISE EXCEPTION 'no % here', NEW.text USING DETAIL = NEW.text; END $$;
CREATE TRIGGER refuse BEFORE INSERT ON mirror.notes FOR EACH ROW EXECUTE FUNCTION refuse();
SELECT emu.insert('notes', jsonb_build_object('text', secret() || repeat('y', 5000))) \g /dev/null
\set ON_ERROR_STOP 0
CALL convex_sync('mirror');
\set ON_ERROR_STOP 1
SELECT ok(error_message IS NOT NULL AND NOT shows_key(error_message) AND length(error_message) < 1100,
	'nor does a table''s stored error show it') FROM convex_stat_subscription_rel;
SELECT ok(count(*) > 0 AND NOT bool_or(shows_key(detail)), 'nor do events') FROM convex_stat_subscription_event WHERE detail IS NOT NULL;

SELECT * FROM finish();
