-- A transaction sees its own unsent writes as it would those to a local table.

\ir lib/setup.sql
\ir lib/writes.sql
\pset fieldsep '\n'
SELECT plan(48);

SELECT emu.server() \g /dev/null
SELECT emu.index('users', '{name}') \g /dev/null
CREATE FOREIGN TABLE users (_id text, name text, age bigint, note text) SERVER convex OPTIONS (primary_key 'name');
CREATE FOREIGN TABLE events (_id text, kind text, n float8) SERVER convex;
SELECT emu.insert('users', VARIADIC ARRAY[jsonb_build_object('name', 'ada', 'age', emu.int64(1), 'note', 'x', 'unmapped', emu.bytes('\x01')), jsonb_build_object('name', 'bob', 'age', emu.int64(2)), jsonb_build_object('name', 'cyd', 'age', emu.int64(3))]),
	emu.insert('events', '{"kind": "old", "n": 1}') \g /dev/null
CREATE FUNCTION users() RETURNS text[] LANGUAGE sql AS $$ SELECT array_agg(name || ' ' || age ORDER BY name) FROM app.users $$;
CREATE FUNCTION events() RETURNS text[] LANGUAGE sql AS $$ SELECT array_agg(kind || ' ' || n ORDER BY n, kind) FROM app.events $$;
CREATE FUNCTION held() RETURNS text[] LANGUAGE sql AS
$$ SELECT array_agg((d ->> 'name') || ' ' || coalesce(('x' || encode(emu.reversed(decode(d #>> '{age,$integer}', 'base64')), 'hex'))::bit(64)::bigint::text, '') ORDER BY d ->> 'name') FROM emu.dump('users') AS d $$;
SELECT emu.clear_journal() \g /dev/null

-- ------------------------------------------------------------------ append-only

BEGIN;
INSERT INTO events (kind, n) VALUES ('new', 2);
SELECT is(events(), '{"old 1","new 2"}', 'an appended row is seen by the next command');
SELECT is((SELECT array_agg(kind ORDER BY kind) FROM events WHERE _id IS NULL), '{new}', 'its _id is NULL');
INSERT INTO events (kind, n) SELECT kind || '!', n + 10 FROM events;
SELECT is(events(), '{"old 1","new 2","old! 11","new! 12"}', 'a command does not see its own rows');
SAVEPOINT s;
INSERT INTO events (kind, n) VALUES ('lost', 99);
SELECT is((SELECT count(*) FROM events), 5::bigint, 'a savepoint''s rows are seen');
ROLLBACK TO s;
SELECT is(events(), '{"old 1","new 2","old! 11","new! 12"}', 'and forgotten by ROLLBACK TO');
SELECT is((SELECT array_agg(kind) FROM events), '{old,new,old!,new!}', 'appended rows come at the end');
SELECT is((SELECT sum(a.n * b.n) FROM events a JOIN events b ON a.kind = b.kind), 1 + 4 + 121 + 144::float8, 'in joins too');
SELECT is((SELECT array_agg((SELECT count(*) FROM events e WHERE e.n <= g)) FROM unnest(ARRAY[1, 2, 50]) AS g), '{1,2,4}', 'and in rescans');
COMMIT;
SELECT is(emu.count_writes(), 1, 'all of it is one request');
SELECT is(events(), '{"old 1","new 2","old! 11","new! 12"}', 'after COMMIT the rows are those of Convex');
SELECT ok((SELECT bool_and(_id IS NOT NULL) FROM events), 'with an _id');
BEGIN;
INSERT INTO events (kind, n) VALUES ('gone', 50);
SELECT count(*) AS seen FROM events \gset
ROLLBACK;
SELECT is(:seen, 5, 'rows that are to be rolled back are seen');
SELECT is((SELECT count(*) FROM events), 4::bigint, 'until they are');

-- ------------------------------------------------------------------ keyed

SELECT emu.clear_journal() \g /dev/null
BEGIN;
INSERT INTO users (name, age) VALUES ('dee', 4);
SELECT is(users(), '{"ada 1","bob 2","cyd 3","dee 4"}', 'an inserted row is seen');
UPDATE users SET age = age * 10;
SELECT is(users(), '{"ada 10","bob 20","cyd 30","dee 40"}', 'an UPDATE is seen, also of an inserted row');
UPDATE users SET age = age + 1 WHERE age > 20;
SELECT is(users(), '{"ada 10","bob 20","cyd 31","dee 41"}', 'a second UPDATE builds on the first');
DELETE FROM users WHERE name IN ('bob', 'dee');
SELECT is(users(), '{"ada 10","cyd 31"}', 'a DELETE is seen, also of an inserted row');
INSERT INTO users (name, age) VALUES ('bob', 7);
SELECT is(users(), '{"ada 10","bob 7","cyd 31"}', 'an INSERT after a DELETE is seen');
INSERT INTO users (name, age) VALUES ('ada', 8);
SELECT is((SELECT array_agg(name || ' ' || age || coalesce(note, '') ORDER BY name) FROM users), '{"ada 8","bob 7","cyd 31"}', 'an INSERT replaces what was there');
UPDATE users SET name = 'ann' WHERE name = 'ada';
SELECT is(users(), '{"ann 8","bob 7","cyd 31"}', 'a changed key is seen');
COMMIT;
SELECT is(emu.count_writes(), 1, 'all of it is one request');
SELECT is(users(), '{"ann 8","bob 7","cyd 31"}', 'after COMMIT it is as it was seen');
SELECT is(held(), '{"ann 8","bob 7","cyd 31"}', 'in Convex');

BEGIN;
UPDATE users SET age = 100 WHERE name = 'ann';
SAVEPOINT a;
UPDATE users SET age = 200 WHERE name = 'ann';
SAVEPOINT b;
DELETE FROM users;
SELECT is(users(), NULL, 'everything is gone');
ROLLBACK TO b;
SELECT is(users(), '{"ann 200","bob 7","cyd 31"}', 'ROLLBACK TO restores the savepoint''s state');
RELEASE b;
ROLLBACK TO a;
SELECT is(users(), '{"ann 100","bob 7","cyd 31"}', 'and that of an outer savepoint, over what was released into it');
INSERT INTO users (name, age) VALUES ('eve', 5);
COMMIT;
SELECT is(held(), '{"ann 100","bob 7","cyd 31","eve 5"}', 'what is left is sent');

SELECT emu.clear_journal() \g /dev/null
BEGIN;
UPDATE users SET age = 1 WHERE name = 'ann';
UPDATE users SET note = 'n' WHERE name = 'ann';
COMMIT;
SELECT is(emu.documents('users') @> jsonb_build_array(jsonb_build_object('name', 'ann', 'age', emu.int64(1), 'note', 'n')), true, 'two UPDATEs of one row add their fields');
BEGIN;
DELETE FROM users WHERE name = 'eve';
DELETE FROM users WHERE name = 'eve';
COMMIT;
SELECT is((SELECT count(*) FROM emu.messages() AS m WHERE m ->> 1 = 'HardDelete'), 1::bigint, 'a DELETE of a key twice is sent once');
BEGIN;
INSERT INTO users (name, age) VALUES ('fay', 1);
DELETE FROM users WHERE name = 'fay';
COMMIT;
SELECT ok(NOT held() @> '{"fay 1"}', 'a row inserted and deleted is not there');
BEGIN;
UPDATE users SET age = 9 WHERE name = 'cyd';
DELETE FROM users WHERE name = 'cyd';
INSERT INTO users (name, age) VALUES ('cyd', 10);
UPDATE users SET age = age + 1 WHERE name = 'cyd';
SELECT is((SELECT age FROM users WHERE name = 'cyd'), 11::bigint, 'UPDATE, DELETE, INSERT and UPDATE of one row build on each other');
COMMIT;
SELECT is((SELECT age FROM users WHERE name = 'cyd'), 11::bigint, 'and arrive so');

-- The same command twice over a row that a join finds twice changes it once.
CREATE TABLE twice (name text, by bigint);
INSERT INTO twice VALUES ('ann', 1), ('ann', 1);
SELECT emu.clear_journal() \g /dev/null
UPDATE users SET age = age + by FROM twice WHERE twice.name = users.name;
SELECT is((SELECT age FROM users WHERE name = 'ann'), 2::bigint, 'a row that a join finds twice is changed once');
DELETE FROM users USING twice WHERE twice.name = users.name;
SELECT ok(NOT held() && '{"ann 2"}', 'and deleted once');

-- ------------------------------------------------------------------ functions, triggers, cursors

INSERT INTO users (name, age) VALUES ('ann', 1);
CREATE FUNCTION raise_age(who text) RETURNS bigint LANGUAGE plpgsql AS
$$
DECLARE
	result bigint;
BEGIN
	UPDATE app.users SET age = age + 1 WHERE name = who;
	SELECT age INTO result FROM app.users WHERE name = who;
	RETURN result;
END
$$;
SELECT is((SELECT array_agg(raise_age('ann')) FROM generate_series(1, 3)), '{2,3,4}', 'the commands of a volatile function see what those before them wrote');
SELECT is((SELECT age FROM users WHERE name = 'ann'), 4::bigint, 'and it arrives');
CREATE FUNCTION stable_age() RETURNS bigint LANGUAGE sql STABLE AS $$ SELECT age FROM app.users WHERE name = 'ann' $$;
SELECT is((SELECT array_agg(a ORDER BY g) FROM (SELECT g, CASE g WHEN 2 THEN raise_age('ann') ELSE stable_age() END AS a FROM generate_series(1, 3) AS g) AS s), '{4,5,4}', 'a stable one sees what the statement sees');

BEGIN;
DECLARE c CURSOR FOR SELECT age FROM users WHERE name = 'ann';
UPDATE users SET age = 50 WHERE name = 'ann';
FETCH c \gset early_
SELECT is(:early_age, 5, 'a cursor does not see what was written after it was opened');
DECLARE d CURSOR FOR SELECT age FROM users WHERE name = 'ann';
FETCH d \gset later_
SELECT is(:later_age, 50, 'one opened later does');
DECLARE s SCROLL CURSOR FOR SELECT name FROM users ORDER BY name;
MOVE LAST s;
INSERT INTO users (name) VALUES ('aaa');
MOVE ABSOLUTE 0 s;
FETCH s \gset scroll_
SELECT is(:'scroll_name'::text, 'ann', 'one that scrolls back neither');
ROLLBACK;

BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT is((SELECT age FROM users WHERE name = 'ann'), 5::bigint, 'a REPEATABLE READ transaction');
UPDATE users SET age = 6 WHERE name = 'ann';
SELECT is((SELECT age FROM users WHERE name = 'ann'), 6::bigint, 'sees its own writes');
SELECT emu.mutate('[{"op": "insert", "table": "users", "doc": {"name": "new"}}]') \g /dev/null
SELECT is((SELECT count(*) FROM users WHERE name = 'new'), 0::bigint, 'and no one else''s');
COMMIT;
SELECT is((SELECT age FROM users WHERE name = 'ann'), 6::bigint, 'they arrive');

-- The savepoints of plpgsql
CREATE FUNCTION tries() RETURNS text[] LANGUAGE plpgsql AS
$$
DECLARE
	seen text[] := '{}';
BEGIN
	FOR i IN 1 .. 4 LOOP
		BEGIN
			UPDATE app.users SET age = 1000 + i WHERE name = 'ann';
			seen := seen || (SELECT age::text FROM app.users WHERE name = 'ann');
			IF i % 2 = 0 THEN
				PERFORM 1 / 0;
			END IF;
		EXCEPTION WHEN division_by_zero THEN
			seen := seen || (SELECT 'back to ' || age FROM app.users WHERE name = 'ann');
		END;
	END LOOP;
	RETURN seen;
END
$$;
SELECT is(tries(), '{1001,1002,"back to 1001",1003,1004,"back to 1003"}', 'exception blocks restore what was pending before them');
SELECT is((SELECT age FROM users WHERE name = 'ann'), 1003::bigint, 'what is left arrives');

-- Large pending states are spilled and read back.
SET work_mem = '64kB';
BEGIN;
INSERT INTO events (kind, n) SELECT repeat('x', 1000), n FROM generate_series(1001, 3000) AS n;
SELECT sum(n) AS seen FROM events WHERE n > 1000 \gset
ROLLBACK;
SELECT is(:seen, 4001000, 'pending rows beyond work_mem are seen');
BEGIN;
INSERT INTO users (name, age, note) SELECT 'bulk ' || n, n, repeat('y', 1000) FROM generate_series(1, 2000) AS n;
UPDATE users SET age = -age WHERE name LIKE 'bulk %' AND age % 2 = 0;
DELETE FROM users WHERE name LIKE 'bulk %' AND age > 0;
SELECT count(*) || ' ' || sum(age) AS seen FROM users WHERE name LIKE 'bulk %' \gset
ROLLBACK;
SELECT is(:'seen'::text, '1000 -1001000', 'so are keyed ones');
RESET work_mem;

SELECT * FROM finish();
