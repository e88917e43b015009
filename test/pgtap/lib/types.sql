-- What the chapters types and types_shapes have in common.

SELECT emu.server() \g /dev/null

-- ---------------------------------------------------------------------------
-- Tools
-- ---------------------------------------------------------------------------

CREATE FUNCTION reversed(bytes bytea) RETURNS bytea LANGUAGE sql IMMUTABLE AS
$$
	SELECT coalesce(string_agg(substr(bytes, place, 1), '' ORDER BY place DESC), '')
	FROM generate_series(1, length(bytes)) AS place
$$;

-- The markers of convex_encoded_json.
CREATE FUNCTION int64(number bigint) RETURNS jsonb LANGUAGE sql IMMUTABLE AS
$$ SELECT jsonb_build_object('$integer', encode(reversed(int8send(number)), 'base64')) $$;
CREATE FUNCTION float64(number float8) RETURNS jsonb LANGUAGE sql IMMUTABLE AS
$$ SELECT jsonb_build_object('$float', encode(reversed(float8send(number)), 'base64')) $$;
CREATE FUNCTION bytes(value bytea) RETURNS jsonb LANGUAGE sql IMMUTABLE AS
$$ SELECT jsonb_build_object('$bytes', translate(encode(value, 'base64'), e'\n', '')) $$;

-- What a statement throws; NULL when it throws nothing.
CREATE FUNCTION thrown(statement text) RETURNS jsonb LANGUAGE plpgsql AS
$$
DECLARE
	state text; message text; detail text; hint text;
BEGIN
	EXECUTE statement;
	RETURN NULL;
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS state = RETURNED_SQLSTATE, message = MESSAGE_TEXT,
		detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
	RETURN jsonb_build_object('state', state, 'message', message, 'detail', detail, 'hint', hint);
END
$$;

-- One document with a value of every kind. (Its field `absent` is missing.)
SELECT * FROM emu.insert('samples', jsonb_build_object(
	'nothing', NULL,
	'yes', true,
	'no', false,
	'five', int64(5),
	'big', int64(9007199254740993),
	'largest', int64(9223372036854775807),
	'smallest', int64(-9223372036854775808),
	'whole', 5.0,
	'half', 2.5,
	'minus_zero', float64('-0'),
	'million', 1e6,
	'huge', 1e300,
	'nan', float64('NaN'),
	'infinity', float64('Infinity'),
	'minus_infinity', float64('-Infinity'),
	'word', 'ada',
	'digits', '42',
	'empty', '',
	'bytes', bytes('\x00ff'),
	'list', jsonb_build_array(1, 2),
	'object', jsonb_build_object('a', 1))) \g /dev/null

CREATE FUNCTION sample_fields() RETURNS text[] LANGUAGE sql IMMUTABLE AS
$$
	SELECT '{absent,nothing,yes,no,five,big,largest,smallest,whole,half,minus_zero,million,huge,nan,infinity,
		minus_infinity,word,digits,empty,bytes,list,object}'::text[]
$$;

-- The samples that a type takes, as text, by field. What is not among them is
-- refused with HV004; only what is missing or null reads as NULL.
CREATE FUNCTION taken(type text, options text DEFAULT '') RETURNS jsonb LANGUAGE plpgsql AS
$$
DECLARE
	result jsonb := '{}';
	field text;
	value text;
BEGIN
	EXECUTE format('CREATE FOREIGN TABLE taken (%s) SERVER convex OPTIONS (table_name ''samples'' %s)',
		(SELECT string_agg(format('%I %s', name, type), ', ') FROM unnest(sample_fields()) AS name), options);
	FOREACH field IN ARRAY sample_fields() LOOP
		BEGIN
			EXECUTE format('SELECT %I::text FROM taken', field) INTO STRICT value;
			IF (value IS NULL) <> (field IN ('absent', 'nothing')) THEN
				value := coalesce('NOT NULL: ' || value, 'NULL');
			END IF;
			IF value IS NOT NULL THEN
				result := result || jsonb_build_object(field, value);
			END IF;
		EXCEPTION WHEN fdw_invalid_data_type THEN
			NULL;
		END;
	END LOOP;
	DROP FOREIGN TABLE taken;
	RETURN result;
END
$$;

-- A type's reading of any text that a server may put into the place of a value.
SELECT * FROM emu.insert('wire', '{"v": "<placeholder>", "z": 1}') \g /dev/null

CREATE FUNCTION on_wire(type text, raw text, options text DEFAULT '') RETURNS text LANGUAGE plpgsql AS
$$
DECLARE
	value text;
BEGIN
	PERFORM emu.fault(jsonb_build_object('action', 'edit', 'path', '/api/list_snapshot',
		'find', '"<placeholder>"', 'replace', raw));
	EXECUTE format('CREATE FOREIGN TABLE on_wire (v %s) SERVER convex OPTIONS (table_name ''wire'' %s)', type, options);
	BEGIN
		EXECUTE 'SELECT v::text FROM on_wire' INTO STRICT value;
	EXCEPTION WHEN OTHERS THEN
		value := SQLSTATE;
	END;
	DROP FOREIGN TABLE on_wire;
	RETURN value;
END
$$;

CREATE TYPE mood AS ENUM ('ada', '42', 'calm');
CREATE DOMAIN small_number AS int4 CHECK (VALUE < 100);
CREATE DOMAIN any_int AS int8;
CREATE DOMAIN present AS text NOT NULL;
CREATE DOMAIN shortish AS varchar(2);
CREATE DOMAIN list_of_two AS float8[] CHECK (cardinality(VALUE) = 2);
CREATE DOMAIN tiny AS small_number CHECK (VALUE < 5);
CREATE DOMAIN short_words AS varchar(2)[];
CREATE DOMAIN with_o AS jsonb CHECK (VALUE ? 'o');
CREATE DOMAIN with_name AS jsonb CHECK (VALUE ? 'name');
