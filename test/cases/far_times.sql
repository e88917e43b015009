-- '5874897-12-31'::date was written and could not be read again; timestamps beyond 2^53 ms were rounded without a word when written
-- as float64, and written but not read as int64. What is written can be read, and is the same.

\ir ../pgtap/lib/setup.sql
\ir ../pgtap/lib/writes.sql

SELECT plan(15);

SELECT emu.server(), emu.index('far', '{k}') \g /dev/null
CREATE FOREIGN TABLE far (k text, d date, i date OPTIONS (convex_type 'int64'), s date OPTIONS (convex_type 'string'),
	t timestamp, ti timestamp OPTIONS (convex_type 'int64'), z timestamptz OPTIONS (convex_type 'int64')) SERVER convex OPTIONS (primary_key 'k');

INSERT INTO far (k, d, i, s) SELECT day, day::date, day::date, day::date
FROM unnest('{5874897-12-31,4713-01-01 BC,287396-10-13,1970-01-01,1969-12-31}'::text[]) AS day;
SELECT is(d, k::date, k || ' as float64 is read as it was'), is(i, k::date, k || ' as int64, too') FROM far ORDER BY k;
SELECT is((SELECT count(*) FROM far WHERE s = k::date), 5::bigint, 'and as a string');
DELETE FROM far;

-- One ms beyond 2^53, which no float64 holds.
INSERT INTO far (k, ti, z) SELECT stamp, stamp::timestamp, (stamp || '+00')::timestamptz
FROM unnest('{294276-12-31 23:59:59.999,4713-01-01 00:00:00 BC,287396-10-12 08:59:00.993,287396-10-12 08:59:00.992,1969-12-31 23:59:59.999}'::text[]) AS stamp;
SELECT is((SELECT array_agg(k ORDER BY k) FROM far WHERE ti = k::timestamp AND z = (k || '+00')::timestamptz), (SELECT array_agg(k ORDER BY k) FROM far),
	'timestamps as int64 are read as they were');
SELECT is((SELECT count(*) FROM far), 5::bigint, 'all of them');
SELECT is(emu.failure($$INSERT INTO far (k, t) VALUES ('x', '287396-10-12 08:59:00.993')$$) ->> 'sqlstate', 'HV004',
	'a millisecond that no float64 holds is refused');
INSERT INTO far (k, t) VALUES ('x', '287396-10-12 08:59:00.994');
SELECT is((SELECT t FROM far WHERE k = 'x'), '287396-10-12 08:59:00.994', 'one that a float64 holds is taken');
SELECT * FROM finish();
