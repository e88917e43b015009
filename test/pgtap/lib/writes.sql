-- What the chapters about writing share, after lib/setup.sql: a session whose
-- transactions may fail at COMMIT, and what Convex was sent and now holds.

CREATE EXTENSION IF NOT EXISTS dblink;
CREATE SCHEMA app;
SET search_path = app, public;
SELECT dblink_connect('writer', format('host=%s port=%s dbname=%s user=postgres options=-csearch_path=app,public',
	split_part(current_setting('unix_socket_directories'), ',', 1), current_setting('port'), current_database())) \g /dev/null

-- What a transaction of these statements, in the other session, ends with: NULL
-- when it commits, else {sqlstate, message, detail, hint}.
CREATE FUNCTION emu.outcome(VARIADIC statements text[]) RETURNS jsonb LANGUAGE plpgsql AS
$$
DECLARE
	failure jsonb := emu.failure(format('SELECT public.dblink_exec(%L, %L)', 'writer',
		'BEGIN; ' || array_to_string(statements, '; ') || '; COMMIT'));
BEGIN
	IF failure IS NOT NULL THEN
		PERFORM public.dblink_exec('writer', 'ROLLBACK');
	END IF;
	RETURN failure;
END
$$;
CREATE FUNCTION emu.sqlstate(VARIADIC statements text[]) RETURNS text LANGUAGE sql AS
$$ SELECT coalesce(emu.outcome(VARIADIC statements) ->> 'sqlstate', '00000') $$;

-- Makes a hidden index of an import route, ready.
CREATE FUNCTION emu.index(table_name text, fields text[], route text DEFAULT 'fivetran') RETURNS jsonb LANGUAGE sql AS
$$ SELECT emu.mutate(jsonb_build_array(jsonb_build_object('op', 'index', 'table', table_name, 'fields', fields, 'route', route))) $$;

-- The writing requests, oldest first.
CREATE FUNCTION emu.writes() RETURNS SETOF jsonb LANGUAGE sql AS
$$ SELECT request FROM emu.journal() AS request WHERE request ->> 'path' LIKE '/api/streaming\_import/%' $$;

-- How many there were since the last call, and forgets them.
CREATE FUNCTION emu.count_writes() RETURNS int LANGUAGE plpgsql AS
$$
DECLARE
	result int := (SELECT count(*) FROM emu.writes());
BEGIN
	PERFORM emu.clear_journal();
	RETURN result;
END
$$;

-- The messages of all of them, in order: [table, operation, row]. Without the one
-- in a request of UPDATEs that repeats what its row had before (write_race.sql):
-- the first Update followed by a change of the same row, one field different.
CREATE FUNCTION emu.messages() RETURNS SETOF jsonb LANGUAGE sql AS
$$
	WITH sent AS (
		SELECT n, place, CASE WHEN message ? 'operation' THEN jsonb_build_array(message -> 'table', message -> 'operation', message -> 'row')
			ELSE jsonb_build_array(message -> 'tableName', 'Append', message -> 'data') END AS entry
		FROM emu.writes() WITH ORDINALITY AS request (entry, n),
			jsonb_array_elements(CASE jsonb_typeof(entry -> 'body') WHEN 'array' THEN entry -> 'body' ELSE entry #> '{body,messages}' END) WITH ORDINALITY AS m (message, place)),
	pairs AS (SELECT *, lead(entry) OVER (PARTITION BY n ORDER BY place) AS next FROM sent),
	repeated AS (
		SELECT n, min(place) AS place FROM pairs
		WHERE entry ->> 1 = 'Update' AND entry -> 0 = next -> 0
			AND (SELECT count(*) = 1 FROM jsonb_each(entry -> 2) AS f WHERE f.value IS DISTINCT FROM next -> 2 -> f.key)
		GROUP BY n)
	SELECT entry FROM sent WHERE (n, place) NOT IN (SELECT n, place FROM repeated) ORDER BY n, place
$$;

-- A table's documents without system fields, as an ordered array.
CREATE FUNCTION emu.documents(table_name text) RETURNS jsonb LANGUAGE sql AS
$$ SELECT coalesce(jsonb_agg(d ORDER BY d), '[]') FROM (SELECT document - '_id' - '_creationTime' AS d FROM emu.dump(table_name) AS document) AS s $$;

-- The markers of convex_encoded_json.
CREATE FUNCTION emu.reversed(bytes bytea) RETURNS bytea LANGUAGE sql IMMUTABLE AS
$$
	SELECT coalesce(string_agg(substr(bytes, place, 1), '' ORDER BY place DESC), '')
	FROM generate_series(1, length(bytes)) AS place
$$;
CREATE FUNCTION emu.int64(number bigint) RETURNS jsonb LANGUAGE sql IMMUTABLE AS
$$ SELECT jsonb_build_object('$integer', encode(emu.reversed(int8send(number)), 'base64')) $$;
CREATE FUNCTION emu.float64(number float8) RETURNS jsonb LANGUAGE sql IMMUTABLE AS
$$ SELECT jsonb_build_object('$float', encode(emu.reversed(float8send(number)), 'base64')) $$;
CREATE FUNCTION emu.bytes(value bytea) RETURNS jsonb LANGUAGE sql IMMUTABLE AS
$$ SELECT jsonb_build_object('$bytes', translate(encode(value, 'base64'), e'\n', '')) $$;
