-- What the chapters errors and errors_line have in common.

SELECT emu.insert('users', '{"name": "Ada"}', '{"name": "Bob"}', '{"name": "Cy"}') \g /dev/null

-- What a request that may be repeated is worth: two repetitions, no pause.
SELECT emu.server('convex', $$max_retries '2', max_retry_wait '1ms'$$) \g /dev/null
SELECT emu.server('patient', $$max_retries '5', max_retry_wait '1ms'$$) \g /dev/null
SELECT emu.server('resolute', $$max_retries '0'$$) \g /dev/null
SELECT emu.server('small', $$max_retries '0', max_response_size '64kB'$$) \g /dev/null
CREATE FOREIGN TABLE users (_id text, name text) SERVER convex;
CREATE FOREIGN TABLE patient_users (_id text, name text) SERVER patient OPTIONS (table_name 'users');
CREATE FOREIGN TABLE resolute_users (_id text, name text) SERVER resolute OPTIONS (table_name 'users');
CREATE FOREIGN TABLE small_users (_id text, name text) SERVER small OPTIONS (table_name 'users');
CREATE FOREIGN TABLE documents (_id text, document jsonb OPTIONS (column_name '*')) SERVER convex OPTIONS (table_name 'users');

-- Runs a query; gives how it failed and how many rows came before.
CREATE FUNCTION ask(query text, OUT state text, OUT message text, OUT detail text, OUT hint text,
	OUT context text, OUT nrows int)
LANGUAGE plpgsql AS
$$
DECLARE
	unused record;
BEGIN
	nrows := 0;
	state := 'no error';
	FOR unused IN EXECUTE query LOOP
		nrows := nrows + 1;
	END LOOP;
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS state = RETURNED_SQLSTATE, message = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL,
		hint = PG_EXCEPTION_HINT, context = PG_EXCEPTION_CONTEXT;
END
$$;

-- The same under a fault that stays; then the fault is gone.
CREATE FUNCTION ask_under(fault jsonb, query text DEFAULT 'SELECT * FROM users', OUT state text, OUT message text,
	OUT detail text, OUT hint text, OUT context text, OUT nrows int, OUT told text, OUT requests int)
LANGUAGE plpgsql AS
$$
BEGIN
	PERFORM emu.clear_journal(), emu.fault('{"path": "/api/list_snapshot", "count": -1}' || fault);
	SELECT * INTO state, message, detail, hint, context, nrows FROM ask(query);
	told := concat_ws(' | ', message, detail, hint, context);
	requests := (SELECT count(*) FROM emu.journal(coalesce(fault ->> 'path', '/api/list_snapshot')));
	PERFORM emu.clear_faults();
END
$$;

CREATE FUNCTION key_in(text) RETURNS boolean LANGUAGE sql AS
$$ SELECT coalesce($1, '') ~ ('0123456' || '789abcdef') $$;

-- A good page of one row, to be spoilt.
CREATE FUNCTION page(document text DEFAULT '', rest text DEFAULT '') RETURNS text LANGUAGE sql AS
$$
	SELECT '{"values":[{"_component":"","_table":"users","_ts":1700000000000000000,"_creationTime":1700000000000.0,'
		|| '"_id":"j57000820c20a1g7104gm2rc1m70ynr8","name":"Eve"' || document
		|| '}],"snapshot":1700000000000000001,"cursor":null,"hasMore":false' || rest || '}'
$$;

CREATE FUNCTION body(text) RETURNS jsonb LANGUAGE sql AS
$$ SELECT jsonb_build_object('action', 'body', 'body_base64', translate(encode(convert_to($1, 'UTF8'), 'base64'), e'\n', '')) $$;

CREATE FUNCTION bytes(bytea) RETURNS jsonb LANGUAGE sql AS
$$ SELECT jsonb_build_object('action', 'body', 'body_base64', translate(encode($1, 'base64'), e'\n', '')) $$;
