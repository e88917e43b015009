-- Every Convex value class survives: random documents of all kinds, nested,
-- are read back exactly as they are stored.

\ir lib/setup.sql
\pset fieldsep '\n'

SELECT plan(12);
SELECT emu.server() \g /dev/null

-- ---------------------------------------------------------------------------
-- Random values, the same ones every time
-- ---------------------------------------------------------------------------

CREATE FUNCTION below(n int) RETURNS int LANGUAGE sql VOLATILE AS
$$ SELECT floor(random() * n)::int $$;

CREATE FUNCTION random_bytes(n int) RETURNS bytea LANGUAGE sql VOLATILE AS
$$ SELECT coalesce(decode(string_agg(lpad(to_hex(below(256)), 2, '0'), ''), 'hex'), '') FROM generate_series(1, n) $$;

CREATE FUNCTION marker(name text, bytes bytea) RETURNS jsonb LANGUAGE sql IMMUTABLE AS
$$ SELECT jsonb_build_object(name, translate(encode(bytes, 'base64'), e'\n', '')) $$;

-- From one character of each class: ASCII, controls, JSON's own, Latin, Greek,
-- CJK, emoji, the last code points before and after the surrogates.
CREATE FUNCTION random_text(n int) RETURNS text LANGUAGE sql VOLATILE AS
$$
	SELECT coalesce(string_agg(CASE below(9)
		WHEN 0 THEN chr(1 + below(31)) WHEN 1 THEN (ARRAY['"', '\', '/', '\u0000', '{', ']', ',', '$',
		e'\x7f'])[1 + below(9)]
		WHEN 2 THEN chr(160 + below(96)) WHEN 3 THEN chr(913 + below(50)) WHEN 4 THEN chr(19968 + below(2000))
		WHEN 5 THEN chr(128512 + below(60)) WHEN 6 THEN (ARRAY[chr(55295), chr(57344), chr(65279), chr(65535),
		chr(65536), chr(1114111), chr(8232)])[1 + below(7)]
		ELSE chr(32 + below(95)) END, ''), '') FROM generate_series(1, n)
$$;

-- Sometimes a name that a document could not have at its top.
CREATE FUNCTION random_name() RETURNS text LANGUAGE sql VOLATILE AS
$$
	SELECT CASE below(12) WHEN 0 THEN (ARRAY['_ts', '_table', '_component', '_deleted', '_id',
		'_creationTime'])[1 + below(6)]
		WHEN 1 THEN '' WHEN 2 THEN repeat('long ', 10 + below(190))
		ELSE regexp_replace((SELECT string_agg(chr(32 + below(95)), '') FROM generate_series(1, 1 + below(9))), '^\$',
		'S') END
$$;

CREATE FUNCTION random_number() RETURNS jsonb LANGUAGE sql VOLATILE AS
$$
	SELECT CASE below(5)
		WHEN 0 THEN to_jsonb(below(2000000) - 1000000)
		WHEN 1 THEN to_jsonb(random())
		WHEN 2 THEN to_jsonb((random() - 0.5) * power(10::float8, below(600) - 300))
		WHEN 3 THEN to_jsonb(power(2::float8, below(2000) - 1000))
		ELSE to_jsonb((ARRAY[0, 5e-324, 1.7976931348623157e308, -2.2250738585072014e-308, 9007199254740992, 1e16,
		0.1]::float8[])[1 + below(7)]) END
$$;

-- Special floats are NaN with its usual bits, infinities and minus zero.
CREATE FUNCTION random_value(depth int) RETURNS jsonb LANGUAGE plpgsql VOLATILE AS
$$
BEGIN
	CASE below(CASE WHEN depth > 0 THEN 12 ELSE 9 END)
		WHEN 0 THEN RETURN 'null';
		WHEN 1 THEN RETURN to_jsonb(random() < 0.5);
		WHEN 2 THEN RETURN random_number();
		WHEN 3 THEN RETURN random_number();
		WHEN 4 THEN RETURN marker('$integer', random_bytes(8));
		WHEN 5 THEN RETURN marker('$integer', (ARRAY['\x0000000000000080', '\xffffffffffffff7f', '\x0100000000002000',
			'\x0000000000000000', '\xffffffffffffffff']::bytea[])[1 + below(5)]);
		WHEN 6 THEN RETURN marker('$float', (ARRAY['\x000000000000f87f', '\x000000000000f07f', '\x000000000000f0ff',
			'\x0000000000000080']::bytea[])[1 + below(4)]);
		WHEN 7 THEN RETURN marker('$bytes', random_bytes(below(40)));
		WHEN 8 THEN RETURN to_jsonb(random_text(below(30)));
		WHEN 9 THEN RETURN coalesce((SELECT jsonb_agg(random_value(depth - 1)) FROM generate_series(1, below(6))),
		'[]');
		ELSE RETURN coalesce((SELECT jsonb_object_agg(random_name(), random_value(depth - 1))
		FROM generate_series(1, below(6))), '{}');
	END CASE;
END
$$;

CREATE FUNCTION random_document(n int) RETURNS jsonb LANGUAGE sql VOLATILE AS
$$
	SELECT jsonb_object_agg(name, random_value(4)) || jsonb_build_object('n', n)
	FROM unnest('{a,b,c,d,e,f,g,h,"odd name","","a.b"}'::text[]) AS name WHERE random() < 0.8
$$;

SELECT setseed(0.75) \g /dev/null
CREATE TABLE given AS SELECT n, random_document(n) AS document FROM generate_series(1, 400) AS n;
-- At the limits: 16 levels, 1024 members, 8192 elements, 1 MB of text.
INSERT INTO given VALUES
	(401, jsonb_build_object('n', 401, 'deep', (repeat('{"o":[', 7) || '"bottom"' || repeat(']}', 7))::jsonb)),
	(402, jsonb_build_object('n', 402, 'wide', (SELECT jsonb_object_agg('member ' || i, i)
	FROM generate_series(1, 1024) AS i))),
	(403, jsonb_build_object('n', 403, 'list', (SELECT jsonb_agg(marker('$integer', int8send(i::int8)))
	FROM generate_series(1, 8192) AS i))),
	(404, jsonb_build_object('n', 404, 'text', repeat('éß€😀"\', 62000))),
	(405, jsonb_build_object('n', 405, 'bytes', marker('$bytes', decode(repeat('00ff8041', 250000), 'hex')))),
	(406, '{"n": 406}');
SELECT emu.mutate(jsonb_agg(jsonb_build_object('op', 'insert', 'table', 'documents', 'doc', document) ORDER BY n))
	FROM given \g /dev/null
CREATE TABLE stored AS SELECT document, (document ->> 'n')::float8::int AS n FROM emu.dump('documents') AS document;

CREATE FOREIGN TABLE encoded (n int, document jsonb OPTIONS (column_name '*'), text json OPTIONS (column_name '*'))
	SERVER convex OPTIONS (table_name 'documents', json_values 'encoded');
CREATE FOREIGN TABLE clean (n int, document jsonb OPTIONS (column_name '*'), text json OPTIONS (column_name '*'))
	SERVER convex OPTIONS (table_name 'documents');

SELECT is((SELECT count(*) FROM stored JOIN given USING (n)
	WHERE stored.document - '_id' - '_creationTime' = given.document), 406::bigint,
	'the emulator has stored what was generated');
SELECT ok(count(*) FILTER (WHERE t LIKE '%$integer%') > 100 AND count(*) FILTER (WHERE t LIKE '%$float%') > 100
	AND count(*) FILTER (WHERE t LIKE '%$bytes%') > 100 AND count(*) FILTER (WHERE t LIKE '%"_table"%') > 10
	AND count(*) FILTER (WHERE t LIKE '%[]%') > 10 AND count(*) FILTER (WHERE t LIKE '%{}%') > 10
	AND count(*) FILTER (WHERE t LIKE '%null%') > 100,
	'the generated documents have values of all kinds') FROM (SELECT document::text AS t FROM given) AS texts;

SELECT bag_eq('SELECT document FROM encoded', 'SELECT document FROM stored',
	'every document read as encoded jsonb equals the stored one');
SELECT bag_eq('SELECT text::jsonb FROM encoded', 'SELECT document FROM stored',
	'every document read as encoded json equals the stored one');
SELECT is((SELECT count(*) FROM encoded JOIN stored USING (n) WHERE encoded.document = stored.document), 406::bigint,
	'beside another column, too');

-- Every number of the stored text, in order, bit by bit: jsonb compares by value,
-- which would not tell a double from its neighbour's decimal.
CREATE FUNCTION doubles(value jsonb) RETURNS TABLE (number float8) LANGUAGE sql AS
$$ SELECT (found #>> '{}')::float8 FROM jsonb_path_query(value, 'strict $.**') AS found WHERE jsonb_typeof(found) = 'number' $$;
SELECT is((SELECT md5(string_agg(float8send(number)::text, '' ORDER BY n, place)) FROM encoded, doubles(document)
	WITH ORDINALITY AS d (number, place)),
	(SELECT md5(string_agg(float8send(number)::text, '' ORDER BY n, place)) FROM stored, doubles(document)
	WITH ORDINALITY AS d (number, place)),
	'every float64 within is the same double');

-- What clean must be, said independently of the library
CREATE FUNCTION reversed(bytes bytea) RETURNS bytea LANGUAGE sql IMMUTABLE AS
$$ SELECT coalesce(string_agg(substr(bytes, place, 1), '' ORDER BY place DESC), '') FROM generate_series(1, length(bytes)) AS place $$;
CREATE FUNCTION int8_of(bytes bytea) RETURNS numeric LANGUAGE sql IMMUTABLE AS
$$ SELECT ('x' || encode(reversed(bytes), 'hex'))::bit(64)::int8::numeric $$;
CREATE FUNCTION clean_value(value jsonb) RETURNS jsonb LANGUAGE plpgsql IMMUTABLE AS
$$
BEGIN
	IF jsonb_typeof(value) = 'array' THEN
		RETURN coalesce((SELECT jsonb_agg(clean_value(item) ORDER BY place) FROM jsonb_array_elements(value)
		WITH ORDINALITY AS i (item, place)), '[]');
	ELSIF jsonb_typeof(value) <> 'object' THEN
		RETURN value;
	ELSIF value ? '$integer' THEN
		RETURN to_jsonb(int8_of(decode(value ->> '$integer', 'base64')));
	ELSIF value ? '$bytes' THEN
		RETURN value -> '$bytes';
	ELSIF value ? '$float' THEN
		RETURN '{"AAAAAAAA+H8=": "NaN", "AAAAAAAA8H8=": "Infinity", "AAAAAAAA8P8=": "-Infinity", "AAAAAAAAAIA=": 0}'::jsonb -> (value ->> '$float');
	END IF;
	RETURN coalesce((SELECT jsonb_object_agg(name, clean_value(item)) FROM jsonb_each(value) AS e (name, item)), '{}');
END
$$;
CREATE TABLE cleaned AS SELECT n, clean_value(document) AS document FROM stored;
SELECT bag_eq('SELECT document FROM clean', 'SELECT document FROM cleaned',
	'every document read as clean jsonb has numbers for int64, base64 for bytes, text for special floats');
SELECT bag_eq('SELECT text::jsonb FROM clean', 'SELECT document FROM cleaned', 'and as clean json');

-- Field by field
CREATE FOREIGN TABLE fields (n int, a jsonb, b json, c jsonb, "odd name" jsonb, none jsonb OPTIONS (column_name ''),
	dotted jsonb OPTIONS (column_name 'a.b'),
	_id text, "_creationTime" float8) SERVER convex OPTIONS (table_name 'documents', json_values 'encoded');
SELECT bag_eq('SELECT n, a, b::jsonb, c, "odd name", none, dotted, _id, "_creationTime" FROM fields',
	$$ SELECT n, nullif(document -> 'a', 'null') AS a, nullif(document -> 'b', 'null') AS b, nullif(document -> 'c', 'null') AS c,
		nullif(document -> 'odd name', 'null') AS odd, nullif(document -> '', 'null') AS none,
		nullif(document -> 'a.b', 'null') AS dotted,
		document ->> '_id' AS id, (document -> '_creationTime')::float8 AS created FROM stored $$,
	'every field read alone equals the stored one');

-- By the change log
SELECT bag_eq($$ SELECT document FROM convex_changes('convex', 0, '{documents}') WHERE id IS NOT NULL $$,
	'SELECT document FROM cleaned',
	'the change log carries the same documents');

-- In pages of any size, and when other documents change meanwhile
SELECT emu.config('{"page_limit": 7}') \g /dev/null
SELECT bag_eq('SELECT document FROM encoded', 'SELECT document FROM stored', 'small pages carry the same documents');
SELECT emu.config('{"page_limit": 1024}') \g /dev/null

-- Read through everything that stores rows on the way
BEGIN;
DECLARE walker SCROLL CURSOR FOR SELECT document FROM encoded;
MOVE FORWARD ALL IN walker;
CREATE FUNCTION backward() RETURNS SETOF jsonb LANGUAGE plpgsql AS
$$ DECLARE walker refcursor := 'walker'; item jsonb; BEGIN LOOP FETCH PRIOR FROM walker INTO item; EXIT WHEN NOT FOUND; RETURN NEXT item; END LOOP; END $$;
SELECT bag_eq('SELECT backward()', 'SELECT document FROM stored', 'backwards by a cursor they are the same');
COMMIT;

SELECT * FROM finish();
