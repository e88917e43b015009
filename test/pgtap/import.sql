-- IMPORT FOREIGN SCHEMA: which tables, columns, types and comments it makes.

\ir lib/setup.sql
\pset fieldsep '\n'

SELECT no_plan();
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

-- ---------------------------------------------------------------------------
-- Types
-- ---------------------------------------------------------------------------

SELECT id AS team FROM emu.insert('teams', '{"name": "red"}') AS id \gset
SELECT * FROM emu.insert('kinds',
	jsonb_build_object('id', :'team', 'nothing', NULL, 'maybe', NULL, 'mixed', 1, 'mixed_numbers', 1, 'id_or_text',
	:'team')
	|| '{"text": "a", "yes": true, "number": 1.5, "int": {"$integer": "AQAAAAAAAAA="}, "bytes": {"$bytes": "AA=="},
		"special": {"$float": "AAAAAAAA+H8="}, "list": [1], "no_list": [], "object": {"a": 1}, "record": {"odd name": 1},
		"sometimes": 1}'::jsonb,
	jsonb_build_object('id', :'team', 'nothing', NULL, 'maybe', 'text', 'mixed', 'x', 'id_or_text', 'b')
	|| '{"text": "b", "yes": false, "number": 2, "int": {"$integer": "AgAAAAAAAAA="}, "bytes": {"$bytes": ""},
		"special": 1, "list": [2], "no_list": [], "object": {"a": 1}, "record": {"odd name": 1},
		"mixed_numbers": {"$integer": "AgAAAAAAAAA="}}'::jsonb) \g /dev/null

SELECT is(imported(), '{kinds,teams}', 'every table of the root component becomes a foreign table');
SELECT is(shown('kinds'), ARRAY[:'id', :'created', 'bytes: bytea', 'id: text COLLATE C', 'id_or_text: text',
	'int: bigint',
	'list: jsonb', 'maybe: text', 'mixed: jsonb', 'mixed_numbers: jsonb', 'no_list: jsonb', 'nothing: jsonb',
	'number: double precision', 'object: jsonb', 'record: jsonb', 'sometimes: double precision',
	'special: double precision', 'text: text', 'yes: boolean'],
	'_id and _creationTime come first, then the fields in byte order, each with the type of its values');
SELECT is(table_options('kinds'), '{table_name=kinds}',
	'the table''s name is kept as an option, so the relation may be renamed');
SELECT ok(bool_and(value LIKE '%inferred%'), 'the comment of an inferred column says so')
	FROM jsonb_each_text(comments('kinds'));
SELECT is((SELECT count(*) FROM jsonb_object_keys(comments('kinds'))), 19::bigint, 'every column has a comment');
SELECT matches(comments('kinds') ->> 'id', 'teams', 'an id''s comment tells its table'),
	matches(comments('kinds') ->> 'sometimes', 'optional', 'a field that not all documents have is optional'),
	matches(comments('kinds') ->> 'maybe', 'null', 'a field that may be null says so'),
	matches(comments('kinds') ->> 'int', 'int64', 'a type is named as Convex names it');
SELECT lives_ok('SELECT * FROM app.kinds', 'what was imported can be read');
SELECT results_eq('SELECT count(*), count(id), count(maybe), sum("int"), bool_and("_creationTime" > ''2000-01-01''), count(mixed) FROM app.kinds',
	'VALUES (2::bigint, 2::bigint, 1::bigint, 3::numeric, true, 2::bigint)', 'with its values');

-- Options
SELECT is(imported(options => $$import_not_null 'true'$$), '{kinds,teams}', 'import_not_null is an option');
SELECT is(ARRAY(SELECT split_part(line, ':', 1) FROM unnest(shown('kinds')) AS line WHERE line NOT LIKE '%NOT NULL%'),
	'{maybe,nothing,sometimes}', 'with it what every document has is NOT NULL');
SELECT is(imported(options => $$import_comments 'false'$$), '{kinds,teams}', 'import_comments is an option');
SELECT is(comments('kinds'), '{}', 'without comments there are none');
SELECT is(imported(options => $$import_comments 'off', import_not_null 'off', case 'keep'$$), '{kinds,teams}',
	'options may stand together');
SELECT is(error ->> 'state', 'HV00D', 'an unknown option is refused'),
	matches(error ->> 'hint', 'import_not_null.*import_comments.*case', 'with the valid ones as hint')
FROM thrown($$SELECT imported(options => 'import_notnull ''true''')$$) AS error;
SELECT is(error ->> 'state', '22023', 'an unknown case is refused'),
	matches(error ->> 'hint', 'keep.*lower.*snake', 'with the valid ones as hint')
FROM thrown($$SELECT imported(options => 'case ''upper''')$$) AS error;
SELECT isnt(thrown($$SELECT imported(options => 'import_comments ''perhaps''')$$), NULL,
	'a boolean option takes booleans only');

-- LIMIT TO and EXCEPT
SELECT * FROM emu.insert('odd', '{"odd name": 1}') \g /dev/null
SELECT emu.config('{"json_schemas_error": null, "schema": {"tables": [{"tableName": "odd", "documentType": {"type": "any"}}], "schemaValidation": false}}') \g /dev/null
SELECT emu.clear_journal() \g /dev/null
SELECT is(imported('LIMIT TO (teams)'), '{teams}', 'LIMIT TO takes the listed tables');
SELECT is(count(*), 0::bigint, 'and reads no page of another table') FROM emu.journal('/api/list_snapshot');
SELECT is(imported('LIMIT TO (teams, nowhere)'), '{teams}', 'a listed name without a table makes nothing');
SELECT is(imported('EXCEPT (teams)'), '{kinds,odd}', 'EXCEPT leaves the listed tables out');
SELECT is(imported('LIMIT TO (nowhere)'), '{}', 'no table at all is no error');
SELECT is(thrown($$DROP SCHEMA app CASCADE; CREATE SCHEMA app; CREATE TABLE app.teams ();
	IMPORT FOREIGN SCHEMA convex FROM SERVER convex INTO app$$) ->> 'state', '42P07', 'a table that exists is not replaced');
SELECT emu.config('{"schema": null}') \g /dev/null

-- An import that failed and was undone leaves nothing to the next one.
BEGIN;
CREATE SCHEMA again;
CREATE TABLE again.kinds ();
SELECT is(thrown('IMPORT FOREIGN SCHEMA convex FROM SERVER convex INTO again') ->> 'state', '42P07',
	'(an import fails)');
DROP TABLE again.kinds;
IMPORT FOREIGN SCHEMA convex LIMIT TO (teams, kinds) FROM SERVER convex INTO again OPTIONS (import_comments 'false');
SELECT is(count(col_description(attrelid, attnum)), 0::bigint,
	'comments of an import that was undone do not appear on another''s tables')
FROM pg_attribute WHERE attrelid IN ('again.teams'::regclass, 'again.kinds'::regclass) AND attnum > 0;
ROLLBACK;

-- Odd names of what stands around
SELECT emu.server('odd "server"') \g /dev/null
CREATE SCHEMA "odd 'schema'";
IMPORT FOREIGN SCHEMA convex LIMIT TO (teams) FROM SERVER "odd ""server""" INTO "odd 'schema'";
SELECT is(name, 'red', 'server and schema may have odd names') FROM "odd 'schema'".teams;
SELECT is(count(col_description(attrelid, attnum)), count(*), 'comments are there, too')
FROM pg_attribute WHERE attrelid = '"odd ''schema''".teams'::regclass AND attnum > 0;

-- Several imports in one transaction, and one beside another one's tables
BEGIN;
CREATE SCHEMA one;
CREATE SCHEMA two;
IMPORT FOREIGN SCHEMA convex LIMIT TO (teams) FROM SERVER convex INTO one;
IMPORT FOREIGN SCHEMA convex LIMIT TO (teams) FROM SERVER convex INTO two OPTIONS (import_comments 'false');
CREATE FOREIGN TABLE two.kinds (_id text) SERVER convex;
SELECT is(array_agg(DISTINCT attrelid::regclass::text), '{one.teams}',
	'comments go to the tables of their own import only')
FROM pg_attribute JOIN pg_class AS c ON c.oid = attrelid
WHERE relnamespace IN ('one'::regnamespace, 'two'::regnamespace) AND col_description(attrelid, attnum) IS NOT NULL;
ROLLBACK;

-- ---------------------------------------------------------------------------
-- Components
-- ---------------------------------------------------------------------------

SELECT emu.mutate('[{"op": "insert", "component": "billing", "table": "invoices", "doc": {"total": {"$integer": "AQAAAAAAAAA="}}},
	{"op": "insert", "component": "billing", "table": "teams", "doc": {"name": 1}},
	{"op": "insert", "component": "billing/ledger", "table": "lines", "doc": {"odd name": "x"}}]') \g /dev/null
SELECT emu.mutate(jsonb_build_array(jsonb_build_object('op', 'drop_table', 'table', 'odd'))) \g /dev/null
SELECT is(imported(component => 'billing'), '{invoices,teams}', 'a component is imported by its path');
SELECT is(table_options('invoices'), '{table_name=invoices,component=billing}', 'which is kept as an option');
SELECT is(imported(component => 'billing/ledger'), '{lines}', 'so is a component within a component');
SELECT is("odd name", 'x', 'first pages are read from the right component') FROM app.lines;
SELECT emu.mutate('[{"op": "drop_table", "component": "billing/ledger", "table": "lines"}]') \g /dev/null
SELECT emu.mutate('[{"op": "insert", "component": "billing/ledger", "table": "lines", "doc": {"n": 1}}]') \g /dev/null
SELECT is(imported(component => 'billing'), '{invoices,teams}', 'where json_schemas answers');
SELECT is(shown('invoices'), ARRAY[:'id', :'created', 'total: bigint'], 'a component''s tables have their own types');
SELECT is(shown('teams'), ARRAY[:'id', :'created', 'name: double precision'],
	'also where the root has a table of the same name');
SELECT is(total, 1::bigint, 'and can be read') FROM app.invoices;
SELECT is(imported(), '{kinds,teams}', 'the root''s import has no tables of components');
SELECT is(error ->> 'state', 'HV00Q', 'an unknown component is refused'),
	matches(error::text, 'billing.*billing/ledger', 'naming the known ones'),
	matches(error::text, 'convex', 'and the name that stands for the root')
FROM thrown($$SELECT imported(component => 'biling')$$) AS error;
SELECT is(thrown($$SELECT imported(component => 'Billing')$$) ->> 'state', 'HV00Q',
	'names of components are case-sensitive');
SELECT is(thrown($$SELECT imported(component => 'public')$$) ->> 'state', 'HV00Q', 'the root has one name here');

-- ---------------------------------------------------------------------------
-- Where the server says little: the first page
-- ---------------------------------------------------------------------------

-- One odd name makes json_schemas fail for the whole deployment.
SELECT * FROM emu.insert('odd', '{"odd name": 1}') \g /dev/null
SELECT is(imported(), '{kinds,odd,teams}', 'one table that json_schemas cannot describe does not hinder the import');
SELECT is(shown('odd'), ARRAY[:'id', :'created', 'odd name: double precision', :'whole'],
	'a table listed with _id and _creationTime only has the fields of its first page, and a column for the whole document');
SELECT is(document - '_id' - '_creationTime', '{"odd name": 1}', 'which can be read') FROM app.odd;
SELECT is(shown('kinds'), ARRAY[:'id', :'created', 'bytes: bytea', 'id: text', 'id_or_text: text', 'int: bigint',
	'list: jsonb', 'maybe: text', 'mixed: jsonb', 'mixed_numbers: jsonb', 'no_list: jsonb', 'nothing: jsonb',
	'number: double precision', 'object: jsonb', 'record: jsonb', 'sometimes: double precision',
	'special: double precision', 'text: text', 'yes: boolean', :'whole'],
	'where json_schemas refuses, every table''s types come from its first page (an id is text there)');
SELECT matches(comments('kinds') ->> 'int', 'int64.*inferred', 'they are inferred');
SELECT emu.mutate('[{"op": "delete_all", "table": "odd"}]') \g /dev/null
SELECT is(imported('LIMIT TO (odd)'), '{odd}', 'an empty table is imported');
SELECT is(shown('odd'), ARRAY[:'id', :'created', :'whole'], 'with a column for the whole document');
SELECT is(count(document), 0::bigint, 'which is empty') FROM app.odd;
SELECT * FROM emu.insert('odd', '{"late": 1}') \g /dev/null
SELECT is(document -> 'late', '1', 'until there are documents') FROM app.odd;

-- json_schemas refuses for any reason
SELECT emu.config('{"json_schemas_error": "UnsupportedSchemaForExport"}') \g /dev/null
SELECT is(imported('LIMIT TO (teams)'), '{teams}', 'UnsupportedSchemaForExport does not hinder an import');
SELECT is(shown('teams'), ARRAY[:'id', :'created', 'name: text', :'whole'], 'types come from the first page');
SELECT emu.config('{"json_schemas_error": "NoTableDefinitionForExport"}') \g /dev/null
SELECT is(imported('LIMIT TO (teams)'), '{teams}', 'nor does NoTableDefinitionForExport');
SELECT emu.config('{"json_schemas_error": null}') \g /dev/null

-- Types of a moment
SELECT * FROM emu.insert('pages', '{"odd name": 1, "v": "a", "w": null}',
	'{"odd name": 2, "v": "b", "w": 5, "x": true}',
	'{"odd name": "three", "v": "c", "late": 1}') \g /dev/null
SELECT emu.config('{"page_limit": 2}') \g /dev/null
SELECT emu.clear_journal() \g /dev/null
SELECT is(imported('LIMIT TO (pages)'), '{pages}', 'a table of several pages is imported');
SELECT is(count(*), 1::bigint, 'from its first page') FROM emu.journal('/api/list_snapshot');
SELECT is(count(*), 3::bigint, 'all of it can be counted') FROM app.pages;
SELECT emu.config('{"page_limit": 1024}') \g /dev/null
SELECT * FROM emu.insert('teams', '{"name": 5}') \g /dev/null
SELECT emu.mutate('[{"op": "drop_table", "table": "odd"}, {"op": "drop_table", "table": "pages"}]') \g /dev/null
SELECT is(imported('LIMIT TO (teams)'), '{teams}', 'types are those of the documents now');
SELECT is(shown('teams'), ARRAY[:'id', :'created', 'name: jsonb'], 'a field with values of two kinds is jsonb');
SELECT emu.mutate('[{"op": "drop_table", "table": "teams"}]') \g /dev/null
SELECT * FROM emu.insert('teams', '{"name": "red"}') \g /dev/null
SELECT imported('LIMIT TO (teams)') \g /dev/null
SELECT * FROM emu.insert('teams', '{"name": 5}') \g /dev/null
SELECT throws_ok('SELECT name FROM app.teams', 'HV004', NULL, 'a later value that does not fit is an error');
SELECT * FROM emu.insert('teams', '{"nick": "r"}') \g /dev/null
SELECT is(count(_id), 3::bigint, 'a later field does not disturb') FROM app.teams;

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
