-- IMPORT FOREIGN SCHEMA: which tables, columns, types and comments it makes.

\ir lib/setup.sql
\pset fieldsep '\n'

SELECT plan(65);
\ir lib/import.sql

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

SELECT * FROM finish();
