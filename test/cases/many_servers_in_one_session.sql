-- A session that had used 108 servers failed with "epoll_create1 failed: Too many open files". Connections that nobody uses
-- are closed by age and number, and those that only wait for their statement's end give their descriptors to others.
\ir ../pgtap/lib/setup.sql
SELECT plan(5);

SELECT emu.insert('users', '{"name": "Ada"}') \g /dev/null
DO $$
BEGIN
	FOR i IN 1 .. 110 LOOP
		PERFORM emu.server('many_' || i, '');
		EXECUTE format('CREATE FOREIGN TABLE users_%s (_id text, name text) SERVER many_%s OPTIONS (table_name ''users'')', i, i);
	END LOOP;
END
$$;
CREATE FUNCTION count_each() RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
	total bigint := 0;
	n bigint;
BEGIN
	FOR i IN 1 .. 110 LOOP
		EXECUTE format('SELECT count(*) FROM users_%s', i) INTO n;
		total := total + n;
	END LOOP;
	RETURN total;
END
$$;
CREATE FUNCTION count_all() RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
	n bigint;
BEGIN
	EXECUTE (SELECT 'SELECT count(*) FROM (' || string_agg('SELECT _id FROM users_' || i, ' UNION ALL ') || ') AS t' FROM generate_series(1, 110) AS i) INTO n;
	RETURN n;
END
$$;
SELECT is(count_each(), 110::bigint, 'a session reads from many servers, one after the other');
SELECT cmp_ok((SELECT count(*) FROM convex_fdw_get_connections()), '<=', 17::bigint, 'and keeps few of the connections');
SET enable_async_append = off;
SELECT is(count_all(), 110::bigint, 'one statement reads from many servers');
SET enable_async_append = on;
SELECT is(count_all(), 110::bigint, 'also at the same time');
SELECT is(count_each(), 110::bigint, 'and the session goes on');
SELECT * FROM finish();
