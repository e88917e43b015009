-- IMPORT FOREIGN SCHEMA from a declared schema, from servers of another age, under
-- odd names, and by whom.

\ir lib/setup.sql
\pset fieldsep '\n'

SELECT plan(83);
\ir lib/import.sql

-- ---------------------------------------------------------------------------
-- A declared schema
-- ---------------------------------------------------------------------------

SELECT emu.reset() \g /dev/null
SELECT id AS team FROM emu.insert('teams', '{"name": "red"}') AS id \gset
SELECT * FROM emu.insert('people', jsonb_build_object('team', :'team') || '{"name": "ada", "age": {"$integer": "JAAAAAAAAAA="},
	"kind": "a", "either": 1, "tags": [], "attrs": {"x": 1}, "anything": 1}'::jsonb) \g /dev/null
SELECT emu.mutate('[{"op": "insert", "component": "c", "table": "people", "doc": {"name": 1}},
	{"op": "create_table", "table": "planned"}, {"op": "insert", "table": "small", "doc": {"n": 1}}]') \g /dev/null

CREATE TABLE declared AS SELECT '{"schemaValidation": true, "tables": [
	{"tableName": "people", "indexes": [], "documentType": {"type": "object", "value": {
		"name": {"fieldType": {"type": "string"}, "optional": false},
		"age": {"fieldType": {"type": "bigint"}, "optional": false},
		"team": {"fieldType": {"type": "id", "tableName": "teams"}, "optional": false},
		"kind": {"fieldType": {"type": "union", "value": [{"type": "literal", "value": "a"}, {"type": "literal", "value": "b"}, {"type": "null"}]}, "optional": false},
		"either": {"fieldType": {"type": "union", "value": [{"type": "number"}, {"type": "string"}]}, "optional": false},
		"tags": {"fieldType": {"type": "array", "value": {"type": "string"}}, "optional": false},
		"attrs": {"fieldType": {"type": "record", "keys": {"type": "string"}, "values": {"fieldType": {"type": "number"}, "optional": false}}, "optional": false},
		"anything": {"fieldType": {"type": "any"}, "optional": false},
		"later": {"fieldType": {"type": "bytes"}, "optional": true},
		"rank": {"fieldType": {"type": "literal", "value": {"$integer": "AQAAAAAAAAA="}}, "optional": true},
		"level": {"fieldType": {"type": "union", "value": [{"type": "number"}, {"type": "null"}]}, "optional": true},
		"stamp": {"fieldType": {"type": "commitTs"}, "optional": true},
		"hook": {"fieldType": {"type": "function"}, "optional": true},
		"hooks": {"fieldType": {"type": "union", "value": [{"type": "function"}, {"type": "null"}, {"type": "string"}]}, "optional": true},
		"flag": {"fieldType": {"type": "boolean"}, "optional": true}}}},
	{"tableName": "planned", "indexes": [], "documentType": {"type": "object", "value": {
		"total": {"fieldType": {"type": "bigint"}, "optional": false},
		"note": {"fieldType": {"type": "string"}, "optional": true}}}},
	{"tableName": "small", "indexes": [], "documentType": {"type": "object", "value": {
		"n": {"fieldType": {"type": "union", "value": [{"type": "number"}, {"type": "bytes"}]}, "optional": false}}}},
	{"tableName": "teams", "indexes": [], "documentType": null}]}'::jsonb AS schema;
SELECT emu.config(jsonb_build_object('schema', schema)) FROM declared \g /dev/null

CREATE TABLE people_columns AS SELECT ARRAY[:'id', :'created', 'age: bigint', 'anything: jsonb', 'attrs: jsonb',
	'either: jsonb', 'flag: boolean', 'hook: text', 'hooks: text',
	'kind: text', 'later: bytea', 'level: double precision', 'name: text', 'rank: bigint', 'stamp: bigint',
	'tags: jsonb', 'team: text COLLATE C'] AS columns;

SELECT is(imported(), '{people,planned,small,teams}', 'with a declared schema the same tables are imported');
SELECT is(shown('people'), columns, 'declared types win, also for fields that no document has yet') FROM people_columns;
SELECT ok(bool_and(value LIKE '%declared%'), 'their comments say declared'),
	ok(NOT bool_or(value LIKE '%inferred%'), 'and not inferred')
FROM jsonb_each_text(comments('people')) WHERE key NOT LIKE '\_%';
SELECT is(shown('small'), ARRAY[:'id', :'created', 'n: jsonb'], 'a declared union is jsonb, whatever is stored');
SELECT matches(comments('teams') ->> 'name', 'inferred', 'a table without validators stays inferred');
SELECT is(to_jsonb(p) - '_id' - '_creationTime', jsonb_build_object('team', :'team') || '{"name": "ada", "age": 36, "kind": "a", "either": 1, "tags": [],
	"attrs": {"x": 1}, "anything": 1, "later": null, "rank": null, "level": null, "stamp": null, "flag": null, "hook": null, "hooks": null}', 'and can be read') FROM app.people AS p;
SELECT ok(shown('planned') @> ARRAY[:'id', :'created', 'note: text', 'total: bigint'],
	'an empty table has its declared columns');
SELECT imported(options => $$import_not_null 'true'$$) \g /dev/null
SELECT is(ARRAY(SELECT split_part(line, ':', 1) FROM unnest(shown('people')) AS line WHERE line LIKE '%NOT NULL%'),
	'{_id,_creationTime,age,anything,attrs,either,name,tags,team}',
	'with import_not_null what is neither optional nor nullable is NOT NULL');
SELECT is(imported(component => 'c'), '{people}', 'a component''s table of the same name');
SELECT is(shown('people'), ARRAY[:'id', :'created', 'name: double precision'], 'is not touched by the root''s schema');

-- json_schemas refuses beside it
SELECT emu.config('{"json_schemas_error": "NoSchemaForExport"}') \g /dev/null
SELECT is(imported(), '{people,planned,small,teams}', 'where json_schemas refuses');
SELECT is(ARRAY(SELECT line FROM unnest(shown('people')) AS line WHERE line <> :'whole'), columns,
	'declared types win over the first page')
FROM people_columns;
SELECT ok(shown('people') @> ARRAY[:'whole'], 'and the table also gets a column for the whole document');
SELECT is(shown('small'), ARRAY[:'id', :'created', 'n: jsonb', :'whole'], 'also one with a single field');
SELECT is(shown('teams'), ARRAY[:'id', :'created', 'name: text', :'whole'], 'the others come from theirs');
SELECT is(name, 'ada', 'which can be read') FROM app.people;
SELECT imported('LIMIT TO (people)', $$import_not_null 'true'$$) \g /dev/null
SELECT is((shown('people'))[1:3], ARRAY[:'id' || ' NOT NULL', :'created' || ' NOT NULL', 'age: bigint NOT NULL'],
	'there import_not_null holds for _id and _creationTime as well');
SELECT emu.config('{"json_schemas_error": null}') \g /dev/null

-- Not enforced, or nothing to be had
SELECT emu.config(jsonb_build_object('schema', jsonb_set(schema, '{schemaValidation}', 'false')))
	FROM declared \g /dev/null
SELECT is(imported(), '{people,planned,small,teams}', 'with schemaValidation false');
SELECT ok(shown('people') @> '{either: double precision}' AND NOT shown('people')::text LIKE '%later%',
	'declared types are not believed');
SELECT ok(bool_and(value LIKE '%inferred%'), 'all are inferred') FROM jsonb_each_text(comments('people'));
SELECT emu.config(jsonb_build_object('schema', jsonb_set(schema, '{tables,0,documentType}', '{"type": "any"}')))
	FROM declared \g /dev/null
SELECT ok(imported() = '{people,planned,small,teams}' AND shown('people') @> '{age: bigint}',
	'a table declared as any stays inferred');
SELECT emu.config(jsonb_build_object('schema', jsonb_set(schema, '{tables,0,documentType}',
	'{"type": "union", "value": [{"type": "object", "value": {}}, {"type": "object", "value": {}}]}')))
	FROM declared \g /dev/null
SELECT ok(imported() = '{people,planned,small,teams}' AND shown('people') @> '{age: bigint}',
	'so does a table declared as a union of objects');

SELECT emu.config(jsonb_build_object('schema', schema)) FROM declared \g /dev/null
SELECT emu.server('reader') \g /dev/null
ALTER USER MAPPING FOR CURRENT_USER SERVER reader OPTIONS (SET deploy_key 'prod:happy-otter-123|readonly');
SELECT is(imported(server => 'reader'), '{people,planned,small,teams}', 'a read-only key can import');
SELECT ok(shown('people') @> '{either: double precision,age: bigint}', 'with inferred types');
SELECT ok(bool_and(value LIKE '%inferred%'), 'as the comments say') FROM jsonb_each_text(comments('people'));
SELECT is(name, 'ada', 'and can read') FROM app.people;
ALTER USER MAPPING FOR CURRENT_USER SERVER reader OPTIONS (SET deploy_key 'prod:happy-otter-123|wrong');
SELECT is(thrown($$SELECT imported(server => 'reader')$$) ->> 'state', '28000', 'a wrong key cannot');
SELECT emu.config('{"schema": null}') \g /dev/null

-- ---------------------------------------------------------------------------
-- Servers of another age
-- ---------------------------------------------------------------------------

SELECT imported() \g /dev/null
CREATE TABLE usual AS SELECT name, shown(name) AS columns, comments(name) AS comments
	FROM unnest('{people,planned,small,teams}'::text[]) AS name;
SELECT emu.config('{"routes_missing": ["/api/get_table_column_names"]}') \g /dev/null
SELECT is(imported(), '{people,planned,small,teams}',
	'a server without get_table_column_names tells its tables by json_schemas');
SELECT is(shown(name), columns, name || ' has the same columns'), is(comments(name), comments, 'and comments')
	FROM usual;
SELECT is(imported(component => 'c'), '{people}', 'components as well');
SELECT emu.config('{"json_schemas_error": "NoSchemaForExport"}') \g /dev/null
SELECT isnt(thrown('SELECT imported()'), NULL, 'without both routes an import fails');
SELECT emu.config('{"json_schemas_error": null, "routes_missing": [], "column_names_fallback": ["people"]}') \g /dev/null
SELECT is(imported(), '{people,planned,small,teams}',
	'a table listed with _id and _creationTime only, although it has more fields');
SELECT ok(shown('people') @> ARRAY['name: text', 'age: bigint', :'whole'],
	'has those of its first page and a column for the whole document');
SELECT emu.config('{"selection_supported": false}') \g /dev/null
SELECT is(imported('LIMIT TO (people)'), '{people}', 'a server that does not know selections can be imported from');
SELECT ok(shown('people') @> ARRAY['name: text', 'age: bigint', :'whole'], 'by first pages, too');
SELECT emu.config('{"column_names_fallback": [], "selection_supported": true, "routes_missing": ["/api/streaming_import/get_schema"]}') \g /dev/null
SELECT is(imported(), '{people,planned,small,teams}', 'so can one without get_schema');
SELECT emu.config('{"routes_missing": [], "streaming_export": false}') \g /dev/null
SELECT is(thrown('SELECT imported()') ->> 'state', '42501', 'a plan without streaming export refuses permission');
SELECT emu.config('{"streaming_export": true}') \g /dev/null

-- ---------------------------------------------------------------------------
-- Names of columns
-- ---------------------------------------------------------------------------

SELECT emu.reset() \g /dev/null
SELECT * FROM emu.insert('plain',
	'{"firstName": "a", "Plain": 1, "plain": 2, "PLAIN": 3, "x1Y": 5, "select": 6, "user": 7}') \g /dev/null
SELECT imported() \g /dev/null
SELECT is(shown('plain'), ARRAY[:'id', :'created', 'PLAIN: double precision', 'Plain: double precision',
	'firstName: text', 'plain: double precision',
	'select: double precision', 'user: double precision', 'x1Y: double precision'],
	'case keep: columns have the fields'' own names');
SELECT imported(options => $$case 'lower'$$) \g /dev/null
SELECT ok(shown('plain') @> ARRAY['_creationtime: timestamp with time zone <- _creationTime',
	'firstname: text <- firstName',
	'plain: double precision', 'select: double precision', 'x1y: double precision <- x1Y'],
	'case lower: in lower case, with the field as an option');
SELECT is(by_field('plain'), '{"firstName": "a", "Plain": 1, "plain": 2, "PLAIN": 3, "x1Y": 5, "select": 6, "user": 7}',
	'fields equal after folding have columns of their own');
SELECT is(plain, 2::float8, 'the one that has the name already keeps it') FROM app.plain;
CREATE TABLE folded AS SELECT line FROM unnest(shown('plain')) AS line;
SELECT * FROM emu.insert('plain', '{"another": 1, "pLAIN": 1}') \g /dev/null
SELECT imported(options => $$case 'lower'$$) \g /dev/null
SELECT ok(shown('plain') @> ARRAY(SELECT line FROM folded), 'a new field does not change the names of the others');
SELECT imported(options => $$case 'snake'$$) \g /dev/null
SELECT ok(shown('plain') @> ARRAY['_creation_time: timestamp with time zone <- _creationTime',
	'first_name: text <- firstName', 'x1_y: double precision <- x1Y'],
	'case snake: words are separated by "_"');

-- Odd names, all in one table, the value tells the field
CREATE TABLE odd AS SELECT name, row_number() OVER ()::int AS n FROM unnest(ARRAY['', ' ', 'a b', 'a.b', 'a"b', 'a\b',
	'a''b', '*', 'tableoid', 'ctid',
	'xmin', 'xmax', 'cmin', 'cmax', 'oid', 'document', 'Document', repeat('x', 62), repeat('x', 63), repeat('x', 64),
	repeat('x', 65),
	repeat('x', 64) || 'y', repeat('Y', 1024), '%s', 'NULL', '1st', ';--', 'a_b', 'aB', 'CTID', 'fOO', 'Foo']) AS name;
SELECT * FROM emu.insert('odd', (SELECT jsonb_object_agg(name, n) FROM odd)) \g /dev/null
CREATE TABLE named AS SELECT style, NULL::text[] AS columns FROM unnest('{keep,lower,snake}'::text[]) AS style;
CREATE FUNCTION odd_columns(style text) RETURNS text[] LANGUAGE plpgsql AS
$$ BEGIN PERFORM imported('LIMIT TO (odd)', format('case %L', style)); RETURN shown('odd'); END $$;
CREATE FUNCTION odd_values(style text) RETURNS jsonb LANGUAGE plpgsql AS
$$ BEGIN PERFORM imported('LIMIT TO (odd)', format('case %L', style)); RETURN by_field('odd'); END $$;
UPDATE named SET columns = odd_columns(style);
SELECT is(odd_values(style) - '*', (SELECT jsonb_object_agg(name, n) FROM odd WHERE name <> '*'),
	format('case %s: every oddly named field has a column of its own and can be read', style)) FROM named;
SELECT is(odd_columns(style), columns, format('case %s: names are the same at the next import', style)) FROM named;
SELECT imported('LIMIT TO (odd)') \g /dev/null
SELECT ok(shown('odd') @> ARRAY['a b: double precision', 'a.b: double precision', 'a"b: double precision',
	'a\b: double precision', 'oid: double precision',
	'1st: double precision', 'document: double precision', repeat('x', 63) || ': double precision'],
	'names that PostgreSQL allows are kept');
SELECT is(document::int, n, 'a field named document keeps its name') FROM app.odd, odd WHERE name = 'document';
SELECT is((SELECT count(*) FROM unnest(shown('odd')) AS line WHERE line LIKE '%: jsonb <- *'), 1::bigint,
	'the whole document has another');
SELECT is((SELECT count(*) FROM jsonb_each(to_jsonb(r)) AS e WHERE value = to_jsonb(n)), 1::bigint,
	'a field named * has a column, and is not the whole document')
FROM app.odd AS r, odd WHERE name = '*';

-- A field that has the name which was made for another
SELECT split_part(line, ': ', 1) AS made FROM named, unnest(columns) AS line WHERE style = 'keep'
	AND line LIKE '%<- ' \gset
SELECT * FROM emu.insert('twins', jsonb_build_object('', 1, :'made', 2)) \g /dev/null
SELECT is(thrown($$SELECT imported('LIMIT TO (twins)')$$), NULL,
	'a field may have the name that was made for an empty one');
SELECT is(CASE WHEN to_regclass('app.twins') IS NOT NULL THEN by_field('twins') END,
	jsonb_build_object('', 1, :'made', 2), 'both are read');
SELECT split_part(line, ': ', 1) AS made FROM named, unnest(columns) AS line WHERE style = 'keep'
	AND line LIKE '%<- ctid' \gset
SELECT * FROM emu.insert('more_twins', jsonb_build_object('ctid', 1, :'made', 2)) \g /dev/null
SELECT is(thrown($$SELECT imported('LIMIT TO (more_twins)')$$), NULL, 'or for a system column''s');
SELECT is(CASE WHEN to_regclass('app.more_twins') IS NOT NULL THEN by_field('more_twins') END,
	jsonb_build_object('ctid', 1, :'made', 2), 'both are read');

-- Many fields
SELECT * FROM emu.insert('wide', (SELECT jsonb_object_agg('f' || i, i) FROM generate_series(1, 1000) AS i)) \g /dev/null
SELECT is(imported('LIMIT TO (wide)'), '{wide}', 'a table of 1000 fields is imported');
SELECT is(f1000, 1000::float8, 'and read') FROM app.wide;
SELECT emu.mutate((SELECT jsonb_agg(jsonb_build_object('op', 'insert', 'table', 'wider', 'doc',
		(SELECT jsonb_object_agg('g' || j * 900 + i, 1) FROM generate_series(1, 900) AS i)))
	FROM generate_series(0, 3) AS j)) \g /dev/null
SELECT is(imported('LIMIT TO (wider)'), '{wider}', 'so is one with more fields than PostgreSQL has columns');
SELECT is(count(document), 4::bigint, 'what has no column is in the document') FROM app.wider;

-- ---------------------------------------------------------------------------
-- Names of tables
-- ---------------------------------------------------------------------------

SELECT emu.reset() \g /dev/null
SELECT emu.mutate(jsonb_agg(jsonb_build_object('op', 'insert', 'table', name, 'doc', jsonb_build_object('n', name))))
FROM unnest(ARRAY['Teams', 'teams', 'TEAMS', repeat('t', 63), repeat('t', 64), 'userProfiles',
	'select']) AS name \g /dev/null

-- Tables that show the documents of another
CREATE FUNCTION wrong_tables() RETURNS text[] LANGUAGE plpgsql AS
$$
DECLARE
	relation regclass; wanted text; found text; result text[] := '{}';
BEGIN
	FOR relation, wanted IN SELECT ftrelid, substr(ftoptions[1], length('table_name=') + 1)
		FROM pg_foreign_table JOIN pg_class ON oid = ftrelid WHERE relnamespace = 'app'::regnamespace
	LOOP
		EXECUTE format('SELECT n FROM %s', relation) INTO found;
		IF found IS DISTINCT FROM wanted THEN
			result := result || wanted;
		END IF;
	END LOOP;
	RETURN result;
END
$$;
SELECT ok(imported() @> ARRAY['TEAMS', 'Teams', 'teams', 'select', repeat('t', 63), 'userProfiles'],
	'tables keep their own names');
SELECT is(count(*), 7::bigint, 'one with 64 characters gets another') FROM pg_class
	WHERE relnamespace = 'app'::regnamespace;
SELECT is(wrong_tables(), '{}', 'each shows its own documents');
CREATE TABLE kept AS SELECT imported() AS names;
SELECT is(imported(), names, 'the names are the same at the next import') FROM kept;
SELECT imported(options => $$case 'lower'$$) \g /dev/null
SELECT is(count(*), 7::bigint, 'tables equal after folding are all imported') FROM pg_class
	WHERE relnamespace = 'app'::regnamespace;
SELECT is(wrong_tables(), '{}', 'and each shows its own documents');
SELECT is(n, 'teams', 'the one that has the name already keeps it') FROM app.teams;
SELECT is(imported('LIMIT TO (userprofiles)', $$case 'lower'$$), '{userprofiles}',
	'LIMIT TO speaks of the names that the tables get');
SELECT is(imported('LIMIT TO (user_profiles)', $$case 'snake'$$), '{user_profiles}', 'with case snake, too');
SELECT is(array_position(imported('EXCEPT ("TEAMS", teams)'), 'Teams') IS NOT NULL
	AND array_position(imported('EXCEPT ("TEAMS", teams)'), 'teams') IS NULL, true, 'so does EXCEPT');

-- ---------------------------------------------------------------------------
-- Rights
-- ---------------------------------------------------------------------------

CREATE ROLE chapter_importer;
GRANT USAGE ON FOREIGN SERVER convex TO chapter_importer;
CREATE SCHEMA mine AUTHORIZATION chapter_importer;
CREATE USER MAPPING FOR chapter_importer SERVER convex OPTIONS (deploy_key 'prod:happy-otter-123|readonly');
SET ROLE chapter_importer;
SELECT lives_ok('IMPORT FOREIGN SCHEMA convex LIMIT TO ("Teams") FROM SERVER convex INTO mine',
	'a role with USAGE and a mapping imports into its schema');
SELECT lives_ok('SELECT * FROM mine."Teams"', 'and reads');
SELECT throws_ok('IMPORT FOREIGN SCHEMA convex LIMIT TO (teams) FROM SERVER reader INTO mine', '42501', NULL,
	'not without USAGE on the server');
RESET ROLE;
DROP USER MAPPING FOR chapter_importer SERVER convex;
SET ROLE chapter_importer;
SELECT throws_ok('IMPORT FOREIGN SCHEMA convex LIMIT TO (teams) FROM SERVER convex INTO mine', '42704', NULL,
	'nor without a mapping');
RESET ROLE;
DROP OWNED BY chapter_importer;
DROP ROLE chapter_importer;

SELECT * FROM finish();
