-- Subscriptions: random documents, whose fields are of any type, come and go;
-- columns and _extra together always tell what Convex has, in every mode.
--
-- CONVEX_RANDOM_SEED chooses others.

\ir lib/setup.sql
SELECT no_plan();
\set seed `echo "${CONVEX_RANDOM_SEED:-1}"`
SELECT setseed((:seed % 1000) / 1000.0) \g /dev/null

SELECT emu.server() \g /dev/null
SELECT emu.config('{"page_limit": 40, "delta_limit": 30}') \g /dev/null

-- ------------------------------------------------------------------ documents

CREATE SCHEMA gen;
CREATE FUNCTION gen.less(n int) RETURNS int LANGUAGE sql AS $$ SELECT floor(random() * n)::int $$;
CREATE FUNCTION gen.scalar() RETURNS jsonb LANGUAGE sql AS
$$
	SELECT (ARRAY['null', 'true', 'false', '0', '-1.5', '1e300', '4503599627370497.5', '{"$integer": "AAAAAAAAAIA="}', '{"$integer": "/////////38="}', '{"$integer": "AQAAAAAAAAA="}',
		'{"$float": "AAAAAAAA+H8="}', '{"$float": "AAAAAAAA8H8="}', '""', '"text"', '"2024-01-01"', '"<nul>"', '"a<nul>b\u00e9\ud83d\ude00"', '"\\ \" \n"', '{"$bytes": ""}', '{"$bytes": "AAEC/w=="}'])[1 + gen.less(20)]::jsonb
$$;
CREATE FUNCTION gen.value() RETURNS jsonb LANGUAGE plpgsql AS
$$
BEGIN
	CASE gen.less(8)
		WHEN 0 THEN RETURN (SELECT coalesce(jsonb_agg(gen.scalar()), '[]') FROM generate_series(1, gen.less(4)));
		WHEN 1 THEN RETURN (SELECT coalesce(jsonb_object_agg('k' || i, gen.scalar()), '{}') FROM generate_series(1, gen.less(3)) AS i);
		WHEN 2 THEN RETURN jsonb_build_object('deep', jsonb_build_array(gen.scalar(), jsonb_build_object('er', gen.scalar())));
		ELSE RETURN gen.scalar();
	END CASE;
END
$$;
-- Names that differ in case, are those of system columns, or long; most fields have a favourite type.
CREATE FUNCTION gen.document() RETURNS jsonb LANGUAGE plpgsql AS
$$
DECLARE
	names text[] := ARRAY['a', 'b', 'c', 'Name', 'name', 'NAME', 'ctid', 'select', repeat('x', 63), repeat('x', 64), repeat('y', 1024), 'z' || gen.less(12)];
	result jsonb := '{}';
	name text;
BEGIN
	FOREACH name IN ARRAY names LOOP
		CONTINUE WHEN gen.less(3) = 0;
		result := result || jsonb_build_object(name, CASE WHEN gen.less(2) = 0 THEN gen.value()
			WHEN name = 'a' THEN jsonb_build_object('$integer', encode(decode(lpad(to_hex(gen.less(255)), 2, '0') || '00000000000000', 'hex'), 'base64'))
			WHEN name = 'b' THEN to_jsonb(gen.less(1000) + 0.25) WHEN name = 'c' THEN to_jsonb('text ' || gen.less(100)) ELSE to_jsonb(gen.less(2) = 0) END);
	END LOOP;
	RETURN result;
END
$$;
CREATE FUNCTION gen.change() RETURNS void LANGUAGE plpgsql AS
$$
DECLARE
	ids text[] := ARRAY(SELECT d ->> '_id' FROM emu.dump('t') AS d ORDER BY random());
	ops jsonb := '[]';
BEGIN
	FOR i IN 1 .. 12 LOOP
		ops := ops || CASE WHEN i <= 5 THEN jsonb_build_object('op', 'insert', 'table', 't', 'doc', gen.document())
			WHEN i <= 9 THEN jsonb_build_object('op', 'replace', 'table', 't', 'id', ids[i], 'doc', gen.document())
			ELSE jsonb_build_object('op', 'delete', 'table', 't', 'id', ids[i]) END;
	END LOOP;
	PERFORM emu.call('POST', '/_emulator/mutate', jsonb_build_object('ops', ops, 'rows_per_transaction', 1 + gen.less(6)));
END
$$;

-- ------------------------------------------------------------------ from rows to documents

-- {"$text": ..} is a string with U+0000, which the emulator holds as <nul>.
CREATE FUNCTION with_nul(document jsonb) RETURNS jsonb LANGUAGE plpgsql AS
$$
DECLARE
	result text := document::text;
	found text;
	plain bytea;
BEGIN
	FOR found IN SELECT (regexp_matches(result, '\{"\$text": "([^"]*)"\}', 'g'))[1] LOOP
		SELECT coalesce(string_agg(CASE WHEN get_byte(b, i) = 0 THEN '<nul>'::bytea ELSE substr(b, i + 1, 1) END, '' ORDER BY i), '') INTO plain
			FROM decode(found, 'base64') AS b, generate_series(0, length(b) - 1) AS i;
		result := replace(result, '{"$text": "' || found || '"}', to_json(convert_from(plain, 'UTF8'))::text);
	END LOOP;
	RETURN result::jsonb;
END
$$;
CREATE FUNCTION reversed(number bigint) RETURNS bytea LANGUAGE sql AS
$$ SELECT string_agg(substr(b, i, 1), '' ORDER BY i DESC) FROM int8send(number) AS b, generate_series(1, 8) AS i $$;
CREATE FUNCTION encoded(row_json jsonb, types jsonb, fields jsonb, extra jsonb) RETURNS jsonb LANGUAGE plpgsql AS
$$
DECLARE
	result jsonb := '{}';
	attribute text; value jsonb; type text;
BEGIN
	FOR attribute, value IN SELECT * FROM jsonb_each(row_json) LOOP
		type := types ->> attribute;
		CONTINUE WHEN value = 'null' OR (attribute <> '_id' AND NOT fields ? attribute);
		value := CASE
			WHEN type = 'bigint' THEN jsonb_build_object('$integer', encode(reversed((value #>> '{}')::bigint), 'base64'))
			WHEN type = 'bytea' THEN jsonb_build_object('$bytes', encode((value #>> '{}')::bytea, 'base64'))
			WHEN type = 'double precision' AND value = '"NaN"' THEN '{"$float": "AAAAAAAA+H8="}'
			WHEN type = 'double precision' AND value = '"Infinity"' THEN '{"$float": "AAAAAAAA8H8="}'
			ELSE value END;
		result := result || jsonb_build_object(coalesce(split_part(fields ->> attribute, e'\t', 1), attribute), value);
	END LOOP;
	RETURN with_nul(result || coalesce(extra, '{}'));
END
$$;
CREATE FUNCTION mirror(subscription name, condition text DEFAULT 'true') RETURNS SETOF jsonb LANGUAGE plpgsql AS
$$
DECLARE
	types jsonb := (SELECT jsonb_object_agg(attname, format_type(atttypid, NULL)) FROM pg_attribute WHERE attrelid = format('%I.t', subscription)::regclass AND attnum > 0);
	fields jsonb := (SELECT columns FROM convex_subscription_rel JOIN convex_subscription AS s USING (subid) WHERE s.name = subscription);
BEGIN
	RETURN QUERY EXECUTE format('SELECT encoded(to_jsonb(t) - ''_extra'', %L, %L, _extra) FROM %I.t AS t WHERE %s', types, fields, subscription, condition);
END
$$;
CREATE FUNCTION source(ts bigint DEFAULT NULL) RETURNS SETOF jsonb LANGUAGE sql AS
$$ SELECT document - '_creationTime' FROM emu.dump('t', '', ts) AS document $$;

-- ------------------------------------------------------------------ the comparison

-- jsonb cannot hold U+0000: the emulator's answers get it.
SELECT emu.fault('{"action": "edit", "find": "<nul>", "replace": "\\u0000", "count": -1}') \g /dev/null
SELECT emu.insert('t', VARIADIC ARRAY(SELECT gen.document() FROM generate_series(1, 100))) \g /dev/null
SELECT convex_create_subscription('plain', 'convex') \g /dev/null
SELECT convex_create_subscription('encoded', 'convex', options => '{"json_values": "encoded", "nul_handling": "strip", "document": "jsonb"}') \g /dev/null
SELECT convex_create_subscription('narrow', 'convex', options => '{"schema_evolution": "ignore"}') \g /dev/null
SELECT convex_create_subscription('few', 'convex', options => '{"max_columns": 10}') \g /dev/null
SELECT convex_create_subscription('soft', 'convex', mode => 'soft_delete') \g /dev/null
SELECT convex_create_subscription('past', 'convex', mode => 'history') \g /dev/null
CALL convex_sync();
SELECT bag_eq('SELECT mirror(''plain'')', 'SELECT source()', 'random documents are loaded');

CREATE PROCEDURE change_and_follow(rounds int) LANGUAGE plpgsql AS
$$
BEGIN
	FOR i IN 1 .. rounds LOOP
		PERFORM gen.change();
		COMMIT;
		CALL convex_sync();
	END LOOP;
END
$$;
CALL change_and_follow(12);
SELECT cmp_ok((SELECT count(*) FROM plain.t WHERE _extra IS NOT NULL), '>', 50::bigint, 'many have something in _extra');
SELECT bag_eq('SELECT mirror(''plain'')', 'SELECT source()', 'columns and _extra tell what is there after changes');
SELECT bag_eq('SELECT mirror(''encoded'')', 'SELECT source()', 'with markers in columns, too');
SELECT bag_eq('SELECT mirror(''narrow'')', 'SELECT source()', 'and without new columns');
SELECT bag_eq('SELECT mirror(''few'')', 'SELECT source()', 'or with few');
SELECT bag_eq('SELECT mirror(''soft'', ''_deleted_at IS NULL'')', 'SELECT source()', 'soft_delete has what is not deleted');
SELECT bag_eq('SELECT mirror(''past'', ''NOT _deleted AND NOT EXISTS (SELECT FROM past.t AS later WHERE later._id = t._id AND later._ts > t._ts)'')', 'SELECT source()', 'the last revisions of history are what is there');

-- What history says of the past is what Convex had then.
SELECT array_agg(ts ORDER BY ts) AS times FROM (SELECT DISTINCT _ts AS ts FROM past.t ORDER BY 1 DESC LIMIT 20) AS t \gset
SELECT results_eq(format('SELECT DISTINCT m FROM mirror(''past'', ''NOT _deleted AND _ts <= %s AND NOT EXISTS (SELECT FROM past.t AS later WHERE later._id = t._id AND later._ts > t._ts AND later._ts <= %s)'') AS m ORDER BY m', ts, ts),
	format('SELECT DISTINCT s FROM source(%s) AS s ORDER BY s', ts), format('history tells what was at revision %s before the last', 21 - n)) FROM unnest(:'times'::bigint[]) WITH ORDINALITY AS t (ts, n) WHERE n % 7 = 1;

-- A reload finds nothing to change.
SELECT array_agg(xmin::text ORDER BY _id) AS kept FROM plain.t \gset
SELECT convex_resync_table('plain', 't') \g /dev/null
CALL convex_sync('plain');
SELECT is((SELECT array_agg(xmin::text ORDER BY _id) FROM plain.t), :'kept', 'a reload decodes each document as the changes did');
SELECT is((SELECT count(*) FROM convex_stat_subscription_event WHERE kind IN ('table_error', 'error', 'table_replaced', 'resnapshot')), 0::bigint, 'and nothing has stopped');

SELECT * FROM finish();
