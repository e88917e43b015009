-- What the chapters scan and scan_plans have in common.

SELECT emu.server() \g /dev/null
CREATE SCHEMA app;
SET search_path = app, public;

-- How many pages of snapshots were asked for since the last call?
CREATE FUNCTION requests() RETURNS int LANGUAGE plpgsql AS
$$
DECLARE
	result int := count(*) FROM emu.journal('/api/list_snapshot');
BEGIN
	PERFORM emu.clear_journal();
	RETURN result;
END
$$;

-- The only (or last) body that list_snapshot was sent; and of its selection
-- what stands at a table of the root component.
CREATE FUNCTION body() RETURNS jsonb LANGUAGE sql AS
$$ SELECT entry -> 'body' FROM emu.journal('/api/list_snapshot') AS entry ORDER BY (entry -> 'n')::int DESC LIMIT 1 $$;
CREATE FUNCTION fields(table_name text DEFAULT 'items') RETURNS text[] LANGUAGE sql AS
$$
	SELECT array_agg(CASE state WHEN 'included' THEN field ELSE field || ' ' || state END ORDER BY field COLLATE "C")
	FROM emu.journal('/api/list_snapshot') AS entry, jsonb_each_text(entry -> 'body' -> 'selection' -> '' -> table_name) AS t (field, state)
	WHERE entry -> 'body' ->> 'tableName' = table_name AND entry -> 'body' -> 'cursor' IS NULL
$$;

-- The fields that a query asks of items.
CREATE FUNCTION fields_of(query text) RETURNS text[] LANGUAGE plpgsql AS
$$
BEGIN
	PERFORM emu.clear_journal();
	EXECUTE query;
	RETURN app.fields();
END
$$;

-- The numbers that a statement (also FETCH) gives, in order.
CREATE FUNCTION numbers(statement text) RETURNS int[] LANGUAGE plpgsql AS
$$
DECLARE
	r record;
	result int[] := '{}';
BEGIN
	FOR r IN EXECUTE statement LOOP
		result := result || (to_jsonb(r) ->> 'n')::int;
	END LOOP;
	RETURN result;
END
$$;

-- The nodes of a plan, as EXPLAIN tells them.
CREATE FUNCTION nodes(statement text, options text DEFAULT 'ANALYZE, VERBOSE') RETURNS SETOF jsonb LANGUAGE plpgsql AS
$$
DECLARE
	plan jsonb;
BEGIN
	EXECUTE format('EXPLAIN (%s, FORMAT JSON) %s', options, statement) INTO plan;
	RETURN QUERY SELECT jsonb_path_query(plan, 'strict $.**{1 to last} ? (@."Node Type" == "Foreign Scan")');
END
$$;

SELECT emu.mutate(jsonb_agg(jsonb_build_object('op', 'insert', 'table', 'items', 'doc',
	jsonb_build_object('n', i, 'name', 'name ' || i, 'Font Size', i / 2.0, 'unused', repeat('x', 100),
		'address', jsonb_build_object('city', 'city ' || i % 3, 'zip', i)))))
FROM generate_series(1, 10) AS i \g /dev/null
SELECT emu.mutate('[{"op": "insert", "table": "items", "component": "shop/stock", "doc": {"n": 77, "name": "in stock"}}]') \g /dev/null
CREATE FOREIGN TABLE items (_id text, n int, dropped int, name text, "_creationTime" timestamptz,
	size float8 OPTIONS (column_name 'Font Size'),
	city text OPTIONS (column_name 'address.city', path 'true')) SERVER convex;
ALTER FOREIGN TABLE items DROP COLUMN dropped;
CREATE FOREIGN TABLE whole (n int, document jsonb OPTIONS (column_name '*')) SERVER convex OPTIONS (table_name 'items');
CREATE FOREIGN TABLE stock (n int, name text) SERVER convex OPTIONS (table_name 'items', component 'shop/stock');

SELECT emu.seed('bench:5000') \g /dev/null
CREATE FOREIGN TABLE bench (_id text, name text, count bigint, amount float8) SERVER convex;

SELECT emu.mutate('[{"op": "create_table", "table": "t0"}]') \g /dev/null
SELECT emu.mutate(jsonb_agg(jsonb_build_object('op', 'insert', 'table', 't' || size, 'doc', jsonb_build_object('n', i))))
FROM unnest('{1,3,4,5,8,9}'::int[]) AS size, generate_series(1, size) AS i \g /dev/null
SELECT format('CREATE FOREIGN TABLE app.t%s (n int) SERVER convex', size) FROM unnest('{0,1,3,4,5,8,9}'::int[]) AS size \gexec
