-- What every chapter begins with: \ir lib/setup.sql
--
-- Needs the psql variable `emulator` (the URL). Gives the extensions and schema
-- emu, by which a chapter arranges the emulator and asks what it was sent.

\set ON_ERROR_STOP 1
\set QUIET 1
SET client_min_messages = warning;
-- Assertions side by side in one SELECT are lines of their own.
\pset fieldsep '\n'

CREATE EXTENSION IF NOT EXISTS pgtap;
CREATE EXTENSION IF NOT EXISTS convex_fdw;

-- Further sessions of this database find the emulator as well.
SELECT set_config('emu.url', :'emulator', false) \g /dev/null
SELECT format('ALTER DATABASE %I SET emu.url = %L', current_database(), :'emulator') \gexec

CREATE SCHEMA IF NOT EXISTS emu;

-- The key of emu.server, in pieces: a log that shows this statement does not
-- show the key.
CREATE OR REPLACE FUNCTION emu.key() RETURNS text
LANGUAGE sql IMMUTABLE AS
$$ SELECT 'prod:happy-otter-123|' || '01234567' || '89abcdef' $$;

CREATE OR REPLACE FUNCTION emu.shell_quote(word text) RETURNS text
LANGUAGE sql IMMUTABLE STRICT AS
$$ SELECT '''' || replace(word, '''', '''\''''') || '''' $$;

CREATE OR REPLACE FUNCTION emu.url_encode(word text) RETURNS text
LANGUAGE sql IMMUTABLE STRICT AS
$$
	SELECT coalesce(string_agg(
			CASE WHEN byte ~ '^(2d|2e|5f|7e|3\d|4[1-9a-f]|5[0-9a]|6[1-9a-f]|7[0-9a])$'
				THEN convert_from(decode(byte, 'hex'), 'UTF8')
				ELSE '%' || upper(byte) END, '' ORDER BY place), '')
	FROM (SELECT place, substr(encode(convert_to(word, 'UTF8'), 'hex'), place, 2)
		FROM generate_series(1, 2 * octet_length(word), 2) AS place) AS bytes (place, byte)
$$;

-- One HTTP request; gives the answer's JSON. The body goes through curl's stdin,
-- so it may be large, and nothing is written to the database, so it works in a
-- read-only transaction too.
CREATE OR REPLACE FUNCTION emu.call(method text, path text, body jsonb DEFAULT NULL)
RETURNS jsonb LANGUAGE plpgsql AS
$$
DECLARE
	answer text := current_setting('data_directory') || '/emu.' || pg_backend_pid();
	command text := 'curl -q -sS --noproxy ''*'' --max-time 60 -X ' || emu.shell_quote(method)
		|| ' -o ' || emu.shell_quote(answer) || ' -w ''%{http_code}'' '
		|| emu.shell_quote(current_setting('emu.url') || path);
	status text;
	content text;
BEGIN
	IF body IS NULL THEN
		command := 'cat >/dev/null; : >' || emu.shell_quote(answer) || '; ' || command;
	ELSE
		command := ': >' || emu.shell_quote(answer) || '; ' || command
			|| ' -H ''Content-Type: application/json'' --data-binary @-';
	END IF;
	command := command || ' >' || emu.shell_quote(answer || '.status');
	-- CSV with a delimiter and a quote that JSON cannot hold changes nothing.
	EXECUTE format($copy$ COPY (SELECT %L::text) TO PROGRAM %L
		(FORMAT csv, DELIMITER e'\x02', QUOTE e'\x01') $copy$, coalesce(body::text, ''), command);
	status := pg_read_file(answer || '.status');
	content := pg_read_file(answer);
	IF status NOT LIKE '2%' THEN
		RAISE EXCEPTION '% % of the emulator: %: %', method, path, status, left(content, 500);
	END IF;
	RETURN nullif(content, '')::jsonb;
END
$$;

-- Commits the operations as one Convex transaction; gives its timestamp and the
-- ids of what it inserted.
CREATE OR REPLACE FUNCTION emu.mutate(ops jsonb) RETURNS jsonb
LANGUAGE sql AS
$$ SELECT emu.call('POST', '/_emulator/mutate', jsonb_build_object('ops', ops)) $$;

-- Commits new documents of one table; gives their ids.
CREATE OR REPLACE FUNCTION emu.insert(table_name text, VARIADIC documents jsonb[]) RETURNS SETOF text
LANGUAGE sql AS
$$
	SELECT jsonb_array_elements_text(emu.mutate((
		SELECT jsonb_agg(jsonb_build_object('op', 'insert', 'table', table_name, 'doc', document) ORDER BY place)
		FROM unnest(documents) WITH ORDINALITY AS given (document, place))) -> 'ids')
$$;

CREATE OR REPLACE FUNCTION emu.fault(fault jsonb) RETURNS jsonb
LANGUAGE sql AS
$$ SELECT emu.call('POST', '/_emulator/faults', fault) $$;

CREATE OR REPLACE FUNCTION emu.clear_faults() RETURNS jsonb
LANGUAGE sql AS
$$ SELECT emu.call('DELETE', '/_emulator/faults') $$;

CREATE OR REPLACE FUNCTION emu.config(settings jsonb) RETURNS jsonb
LANGUAGE sql AS
$$ SELECT emu.call('POST', '/_emulator/config', settings) $$;

-- An empty deployment again; its settings stay.
CREATE OR REPLACE FUNCTION emu.reset() RETURNS jsonb
LANGUAGE sql AS
$$ SELECT emu.call('POST', '/_emulator/reset') $$;

-- none, demo, bench:N, bench:N:narrow, bench:N:wide
CREATE OR REPLACE FUNCTION emu.seed(name text) RETURNS jsonb
LANGUAGE sql AS
$$ SELECT emu.call('POST', '/_emulator/seed', jsonb_build_object('seed', name)) $$;

CREATE OR REPLACE FUNCTION emu.state() RETURNS jsonb
LANGUAGE sql AS
$$ SELECT emu.call('GET', '/_emulator/state') $$;

-- What the emulator was sent, oldest first.
CREATE OR REPLACE FUNCTION emu.journal(path text DEFAULT NULL) RETURNS SETOF jsonb
LANGUAGE sql AS
$$
	SELECT jsonb_array_elements(emu.call('GET', '/_emulator/journal'
		|| coalesce('?path=' || emu.url_encode(path), '')) -> 'requests')
$$;

CREATE OR REPLACE FUNCTION emu.clear_journal() RETURNS jsonb
LANGUAGE sql AS
$$ SELECT emu.call('DELETE', '/_emulator/journal') $$;

-- The documents of a table, now or at a timestamp.
CREATE OR REPLACE FUNCTION emu.dump(table_name text, component text DEFAULT '', ts bigint DEFAULT NULL)
RETURNS SETOF jsonb LANGUAGE sql AS
$$
	SELECT jsonb_array_elements(emu.call('GET', '/_emulator/dump?table=' || emu.url_encode(table_name)
		|| '&component=' || emu.url_encode(component) || coalesce('&ts=' || ts, '')) -> 'documents')
$$;

-- A server and the current user's mapping for it. Options as in CREATE SERVER:
-- emu.server('convex', $$max_retries '0', request_timeout '2s'$$)
CREATE OR REPLACE FUNCTION emu.server(name text DEFAULT 'convex', options text DEFAULT '')
RETURNS void LANGUAGE plpgsql AS
$$
BEGIN
	EXECUTE format('CREATE SERVER %I FOREIGN DATA WRAPPER convex_fdw OPTIONS (deployment_url %L%s)',
		name, current_setting('emu.url'), CASE WHEN options <> '' THEN ', ' || options ELSE '' END);
	EXECUTE format('CREATE USER MAPPING FOR CURRENT_USER SERVER %I OPTIONS (deploy_key %L)',
		name, emu.key());
END
$$;

-- What a statement fails with: {sqlstate, message, detail, hint}; NULL when it does not.
CREATE OR REPLACE FUNCTION emu.failure(statement text)
RETURNS jsonb LANGUAGE plpgsql AS
$$
DECLARE
	state text; message text; detail text; hint text;
BEGIN
	EXECUTE statement;
	RETURN NULL;
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS state = RETURNED_SQLSTATE, message = MESSAGE_TEXT,
		detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
	RETURN jsonb_build_object('sqlstate', state, 'message', message, 'detail', detail, 'hint', hint);
END
$$;

-- Waits until an SQL condition holds: ok(emu.wait_until('EXISTS (...)'), 'it comes').
CREATE OR REPLACE FUNCTION emu.wait_until(condition text, deadline interval DEFAULT '120s')
RETURNS boolean LANGUAGE plpgsql AS
$$
DECLARE
	until timestamptz := clock_timestamp() + deadline;
	holds boolean;
BEGIN
	LOOP
		PERFORM pg_stat_clear_snapshot();
		EXECUTE 'SELECT (' || condition || ')' INTO holds;
		IF holds THEN
			RETURN true;
		END IF;
		IF clock_timestamp() > until THEN
			RAISE EXCEPTION 'not within %: %', deadline, condition;
		END IF;
		PERFORM pg_sleep(0.01);
	END LOOP;
END
$$;
