-- What was written depended on the session: with DateStyle 'SQL, DMY' a date went to Convex as '07/08/2026' and was read back as
-- another day; IntervalStyle, TimeZone, extra_float_digits, search_path, lc_monetary and others changed texts, and so keys. A value
-- has one spelling in Convex, whoever writes it, and every session reads the same value from it.

\ir ../pgtap/lib/setup.sql
\ir ../pgtap/lib/writes.sql

SELECT plan(14);

CREATE SCHEMA hidden;
CREATE TABLE hidden.item (n int);
CREATE TYPE hidden.pair AS (day date, number float8, bytes bytea, words text[]);
SET search_path = app, public, hidden;
SELECT emu.server(), emu.index('spelled', '{k,day}'), emu.index('said', '{k}') \g /dev/null
CREATE FOREIGN TABLE spelled (k text, day date OPTIONS (convex_type 'string'), local timestamp OPTIONS (convex_type 'string'),
	instant timestamptz OPTIONS (convex_type 'string'), clock timetz, lasts interval, place point, days daterange,
	times tstzmultirange, rel regclass, kind regtype, func regprocedure, price money, page xml, pair hidden.pair, dates date[] OPTIONS (convex_type 'string'))
SERVER convex OPTIONS (primary_key 'k,day');

-- The values themselves do not depend on the settings either.
CREATE TABLE model AS SELECT 'a' AS k, date '2026-08-07' AS day, timestamp '2026-08-07 12:34:56.789' AS local,
	timestamptz '2026-08-07 12:34:56.789+00' AS instant, timetz '01:02:03+04' AS clock, interval '1 year -2 months 3 days -04:05:06.7' AS lasts,
	point '(0.1,0.30000000000000004)' AS place, daterange '[2026-08-07,2026-09-10)' AS days,
	tstzmultirange '{[2026-08-07 00:00:00+00,2026-09-10 00:00:00+00)}' AS times, regclass 'hidden.item' AS rel, regtype 'hidden.pair' AS kind,
	regprocedure 'emu.key()' AS func, money '1234.5' AS price, xml 'x<a/>' AS page,
	ROW (date '2026-08-07', 0.30000000000000004::float8, '\x00ff'::bytea, ARRAY[NULL, 'NULL'])::hidden.pair AS pair, ARRAY[date '2026-08-07'] AS dates;

-- Not in the database's own settings, which all sessions share.
CREATE PROCEDURE crooked() LANGUAGE plpgsql AS $$
BEGIN
	SET DateStyle = 'SQL, DMY';
	SET IntervalStyle = 'sql_standard';
	SET TimeZone = 'Asia/Kolkata';
	SET extra_float_digits = -3;
	SET bytea_output = 'escape';
	SET xmloption = 'document';
	SET quote_all_identifiers = on;
	SET array_nulls = off;
	SET search_path = hidden, app, public;
END $$;

INSERT INTO spelled SELECT * FROM model;
SELECT documents AS plain FROM emu.documents('spelled') AS documents \gset
SELECT is(documents -> 0, $${"k": "a", "day": "2026-08-07", "local": "2026-08-07 12:34:56.789", "instant": "2026-08-07 12:34:56.789+00",
	"clock": "01:02:03+04", "lasts": "10 mons 3 days -04:05:06.7", "place": "(0.1,0.30000000000000004)", "days": "[2026-08-07,2026-09-10)",
	"times": "{[\"2026-08-07 00:00:00+00\",\"2026-09-10 00:00:00+00\")}", "rel": "hidden.item", "kind": "hidden.pair", "func": "emu.key()",
	"price": "$1,234.50", "page": "x<a/>", "pair": "(2026-08-07,0.30000000000000004,\"\\\\x00ff\",\"{NULL,\"\"NULL\"\"}\")", "dates": ["2026-08-07"]}$$::jsonb,
	'texts are ISO, in UTC, exact, and have their schema')
FROM emu.documents('spelled') AS documents;
CREATE FUNCTION differing() RETURNS text[] LANGUAGE sql AS $$
	SELECT array_remove(ARRAY[CASE WHEN s.day <> m.day THEN 'day' END, CASE WHEN s.local <> m.local THEN 'local' END,
		CASE WHEN s.instant <> m.instant THEN 'instant' END, CASE WHEN s.clock <> m.clock THEN 'clock' END, CASE WHEN s.lasts <> m.lasts THEN 'lasts' END,
		CASE WHEN NOT s.place ~= m.place THEN 'place' END, CASE WHEN s.days <> m.days THEN 'days' END, CASE WHEN s.times <> m.times THEN 'times' END,
		CASE WHEN s.rel <> m.rel THEN 'rel' END, CASE WHEN s.kind <> m.kind THEN 'kind' END, CASE WHEN s.func <> m.func THEN 'func' END,
		CASE WHEN s.price <> m.price THEN 'price' END, CASE WHEN s.page::text <> m.page::text THEN 'page' END,
		CASE WHEN s.pair <> m.pair THEN 'pair' END, CASE WHEN s.dates <> m.dates THEN 'dates' END], NULL)
	FROM app.spelled AS s, app.model AS m $$;
SELECT is(differing(), '{}', 'they are read as they were');

CALL crooked();
SELECT is(differing(), '{}', 'a session with other settings reads the same values');
SELECT is(current_setting('DateStyle') || split_part(current_setting('search_path'), ',', 1), 'SQL, DMY"hidden"', 'and keeps its settings');
INSERT INTO app.spelled SELECT * FROM app.model;
SELECT is(emu.documents('spelled'), :'plain'::jsonb, 'what it writes is spelled the same, and so is the key');
UPDATE app.spelled SET lasts = lasts + interval '0', pair = pair, rel = 'item', local = local, instant = instant;
SELECT is(emu.documents('spelled'), :'plain'::jsonb, 'so is what an UPDATE sets');
SELECT is(emu.failure($$INSERT INTO app.spelled (k, day, rel) VALUES ('b', 'infinity', 'item'), (NULL, NULL, NULL)$$) ->> 'sqlstate', '23502',
	'an error in the middle');
SELECT is(current_setting('DateStyle') || split_part(current_setting('search_path'), ',', 1), 'SQL, DMY"hidden"', 'leaves the settings as well');

-- Foreign texts mean the same to everybody.
SELECT emu.mutate('[{"op": "create_table", "table": "foreign"}]') \g /dev/null
SELECT * FROM emu.insert('foreign', '{"day": "03/04/2024", "instant": "2024-03-04 00:00:00", "clock": "12:00"}') \g /dev/null
CREATE FOREIGN TABLE app.read (day date, instant timestamptz, clock timetz) SERVER convex OPTIONS (table_name 'foreign');
SELECT is(day, make_date(2024, 3, 4), 'a date of a style of its own is month and day in every session'),
	is(instant, to_timestamp(1709510400), 'a time without zone is UTC'), is(clock, timetz '12:00+00', 'also without a date')
FROM app.read;

-- An import.
SELECT convex_import('convex', 'imported', 'SELECT k, lasts, rel, days, pair, price, local::text AS said FROM app.model') \g /dev/null
SELECT is(documents -> 0, (:'plain'::jsonb -> 0) - '{day,local,instant,clock,place,times,kind,func,page,dates}'::text[] || '{"said": "07/08/2026 12:34:56.789"}',
	'an import spells values the same; what its query makes is the query''s')
FROM emu.documents('imported') AS documents;

-- A mirror, filled by the same session.
SELECT convex_create_subscription('mirror', 'convex', '{foreign}', enabled => true) \g /dev/null
CALL convex_sync('mirror');
ALTER TABLE mirror."foreign" ALTER day TYPE date USING NULL;
SELECT convex_resync_table('mirror', 'foreign') \g /dev/null
CALL convex_sync('mirror');
SELECT is(day, make_date(2024, 3, 4), 'a mirror reads the same') FROM mirror."foreign";
SELECT is(current_setting('DateStyle'), 'SQL, DMY', 'CALL keeps the settings');
SELECT * FROM finish();
