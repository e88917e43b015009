-- What the chapters import and import_declared have in common.

SELECT emu.server() \g /dev/null

-- ---------------------------------------------------------------------------
-- Tools
-- ---------------------------------------------------------------------------

-- Imports into schema `app`, made anew, and lists its tables.
CREATE FUNCTION imported(clauses text DEFAULT '', options text DEFAULT '', component text DEFAULT 'convex',
	server text DEFAULT 'convex')
RETURNS text[] LANGUAGE plpgsql AS
$$
BEGIN
	DROP SCHEMA IF EXISTS app CASCADE;
	CREATE SCHEMA app;
	EXECUTE format('IMPORT FOREIGN SCHEMA %I %s FROM SERVER %I INTO app %s', component, clauses, server,
		CASE WHEN options <> '' THEN 'OPTIONS (' || options || ')' ELSE '' END);
	RETURN ARRAY(SELECT relname::text FROM pg_class WHERE relnamespace = 'app'::regnamespace
		ORDER BY relname COLLATE "C");
END
$$;

-- name: type [COLLATE] [NOT NULL] [<- field]
CREATE FUNCTION shown(relation text) RETURNS text[] LANGUAGE sql AS
$$
	SELECT array_agg(attname || ': ' || format_type(atttypid, atttypmod)
		|| CASE WHEN attcollation NOT IN (0, 100)
			THEN ' COLLATE ' || (SELECT collname FROM pg_collation AS c WHERE c.oid = attcollation) ELSE '' END
		|| CASE WHEN attnotnull THEN ' NOT NULL' ELSE '' END
		|| coalesce(' <- ' || substr(attfdwoptions[1], length('column_name=') + 1), '') ORDER BY attnum)
	FROM pg_attribute
	WHERE attrelid = ('app.' || quote_ident(relation))::regclass AND attnum > 0 AND NOT attisdropped
$$;

-- Comments by column
CREATE FUNCTION comments(relation text) RETURNS jsonb LANGUAGE sql AS
$$
	SELECT coalesce(jsonb_object_agg(attname, comment) FILTER (WHERE comment IS NOT NULL), '{}')
	FROM pg_attribute, col_description(attrelid, attnum) AS comment
	WHERE attrelid = ('app.' || quote_ident(relation))::regclass AND attnum > 0
$$;

CREATE FUNCTION table_options(relation text) RETURNS text[] LANGUAGE sql AS
$$ SELECT ftoptions FROM pg_foreign_table WHERE ftrelid = ('app.' || quote_ident(relation))::regclass $$;

-- What each column of a table with one document shows, by its field. (The
-- whole document and the system fields are left out.)
CREATE FUNCTION by_field(relation text) RETURNS jsonb LANGUAGE plpgsql AS
$$
DECLARE
	result jsonb := '{}';
	item record;
	value jsonb;
BEGIN
	FOR item IN SELECT attname, coalesce(substr(attfdwoptions[1], length('column_name=') + 1), attname) AS field
		FROM pg_attribute WHERE attrelid = ('app.' || quote_ident(relation))::regclass AND attnum > 0
		AND attfdwoptions IS DISTINCT FROM '{column_name=*}'
		AND coalesce(substr(attfdwoptions[1], length('column_name=') + 1), attname) NOT IN ('_id', '_creationTime')
	LOOP
		EXECUTE format('SELECT to_jsonb(%I) FROM app.%I', item.attname, relation) INTO value;
		result := result || jsonb_build_object(item.field, value);
	END LOOP;
	RETURN result;
END
$$;

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

\set id '_id: text COLLATE C'
\set created '_creationTime: timestamp with time zone'
\set whole 'document: jsonb <- *'
