-- Subscriptions: rows that are too big for a page keep their largest values in
-- _extra, whichever way they come.

\ir lib/setup.sql
SELECT plan(27);

SELECT emu.server() \g /dev/null

-- Documents of texts and floats again, from rows: what _extra says comes before the columns.
CREATE FUNCTION mirror(relation regclass) RETURNS SETOF jsonb LANGUAGE plpgsql AS
$$
BEGIN
	RETURN QUERY EXECUTE format('SELECT jsonb_strip_nulls(to_jsonb(t) - ''{_creationTime,_ts,_extra,_deleted}''::text[]) || coalesce(_extra, ''{}'') FROM %s AS t', relation);
END
$$;
CREATE FUNCTION source(table_name text) RETURNS SETOF jsonb LANGUAGE sql AS
$$ SELECT document - '_creationTime' FROM emu.dump(table_name) AS document $$;
CREATE FUNCTION floats(n int, seed int) RETURNS jsonb LANGUAGE sql AS
$$ SELECT jsonb_object_agg('f' || i, seed + i + 0.5) FROM generate_series(1, n) AS i $$;
CREATE FUNCTION texts(n int, length int, seed int) RETURNS jsonb LANGUAGE sql AS
$$ SELECT jsonb_object_agg('t' || i, (SELECT string_agg(md5(i || ' ' || seed || ' ' || part), '') FROM generate_series(1, length / 32) AS part)) FROM generate_series(1, n) AS i $$;

-- 240 texts that no compression shortens: all out of line.
SELECT emu.insert('medium', texts(240, 1024, 1)) \g /dev/null
SELECT emu.insert('fitting', floats(600, 1)) \g /dev/null
SELECT emu.insert('floats', floats(1020, 1), floats(1020, 2)) \g /dev/null
SELECT emu.insert('texts', texts(700, 96, 1), texts(3, 96, 1)) \g /dev/null
SELECT emu.insert('mixed', floats(500, 1) || texts(400, 32, 1)) \g /dev/null
SELECT convex_create_subscription('wide', 'convex', options => '{"max_columns": 1400}') \g /dev/null
SELECT convex_create_subscription('past', 'convex', mode => 'history', options => '{"max_columns": 1400}') \g /dev/null
CALL convex_sync();
SELECT is((SELECT array_agg(DISTINCT state) FROM convex_stat_subscription_rel), '{ready}', 'rows of any width stop nothing');
SELECT is((SELECT count(*) FROM wide.medium WHERE _extra IS NOT NULL), 0::bigint, '240 texts of 1 kB fit into a page, out of line');
SELECT is((SELECT count(*) FROM wide.fitting WHERE _extra IS NOT NULL), 0::bigint, 'and so do 600 floats');
SELECT is((SELECT count(*) FROM wide.floats WHERE _extra IS NULL), 0::bigint, '1020 floats do not: some are in _extra');
SELECT cmp_ok((SELECT max((SELECT count(*) FROM jsonb_object_keys(_extra))) FROM wide.floats), '<', 60::bigint, 'not more than have to be');
SELECT is((SELECT count(*) FROM wide.texts WHERE _extra IS NULL), 1::bigint, 'nor do 700 texts; a row that fits keeps its columns');
SELECT is((SELECT count(*) FROM pg_attribute WHERE attrelid = 'wide.floats'::regclass AND attname LIKE 'f%' AND attnum > 0), 1020::bigint, 'all have their columns');
SELECT bag_eq(format('SELECT mirror(%L)', 'wide.' || name), format('SELECT source(%L)', name), format('columns and _extra of "%s" tell the documents', name)) FROM unnest('{medium,fitting,floats,texts,mixed}'::text[]) AS name;
SELECT bag_eq(format('SELECT mirror(%L)', 'past.' || name), format('SELECT source(%L)', name), format('in history, too: "%s"', name)) FROM unnest('{floats,texts,mixed}'::text[]) AS name;
SELECT is((SELECT count(*) FROM convex_stat_subscription_event WHERE kind = 'drift' AND name = 'wide' AND table_name = 'floats'), 1::bigint, 'a drift is told once');

-- By changes.
SELECT emu.insert('floats', floats(1020, 3), floats(10, 4)) \g /dev/null
SELECT emu.insert('medium', texts(240, 1024, 2) || texts(600, 96, 2)) \g /dev/null
SELECT emu.mutate((SELECT jsonb_agg(jsonb_build_object('op', 'replace', 'table', 'texts', 'id', d ->> '_id', 'doc', texts(900, 64, 5))) FROM emu.dump('texts') AS d)) \g /dev/null
SELECT emu.mutate('[{"op": "increment_all", "table": "mixed", "field": "f1", "by": 1}]') \g /dev/null
CALL convex_sync();
SELECT bag_eq(format('SELECT mirror(%L)', 'wide.' || name), format('SELECT source(%L)', name), format('changes of "%s" arrive', name)) FROM unnest('{medium,floats,texts,mixed}'::text[]) AS name;
SELECT is((SELECT count(*) FROM past.texts), 4::bigint, 'and are kept');
SELECT is((SELECT array_agg(DISTINCT state) FROM convex_stat_subscription_rel), '{ready}', 'without a table that waits');

-- By statements, where there is a trigger, and by a merge.
CREATE TABLE log (id text);
CREATE FUNCTION log() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN INSERT INTO public.log VALUES (NEW._id); RETURN NULL; END $$;
CREATE TRIGGER log AFTER INSERT OR UPDATE ON wide.floats FOR EACH ROW EXECUTE FUNCTION log();
SELECT emu.insert('floats', floats(1020, 6)) \g /dev/null
CALL convex_sync('wide');
SELECT is((SELECT count(*) FROM log), 1::bigint, 'a trigger sees it');
SELECT convex_resync_table('wide', 'floats') \g /dev/null
CALL convex_sync('wide');
SELECT is((SELECT count(*) FROM log), 1::bigint, 'and a reload leaves it alone');
SELECT bag_eq($$ SELECT mirror('wide.floats') $$, $$ SELECT source('floats') $$, 'the table is right');

-- A target without _extra says so.
CREATE SCHEMA own;
SELECT format('CREATE TABLE own.mixed (_id text PRIMARY KEY, %s)', string_agg(format('%s%s %s', CASE WHEN i <= 600 THEN 'f' ELSE 't' END, CASE WHEN i <= 600 THEN i ELSE i - 600 END, CASE WHEN i <= 600 THEN 'float8' ELSE 'text' END), ', ')) FROM generate_series(1, 1100) AS i \gexec
SELECT convex_create_subscription('own', 'convex', '{mixed}', options => '{"max_columns": 1400}') \g /dev/null
CALL convex_sync('own');
SELECT is((SELECT count(*) FROM own.mixed WHERE f1 IS NOT NULL OR t1 IS NOT NULL), 1::bigint, 'a target without _extra gets what fits');
SELECT matches((SELECT string_agg(detail, ' ') FROM convex_stat_subscription_event WHERE kind = 'drift' AND name = 'own'), 'not kept', 'and the drift tells');

SELECT * FROM finish();
