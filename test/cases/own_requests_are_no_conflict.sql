-- One row updated by two roles in one transaction was 40001 "Nothing was sent.
-- Run the transaction again", though the first part was in Convex: each obedient
-- repetition added again. What the transaction has sent itself is no conflict,
-- rows leave in statement order whoever wrote them, and once something of the
-- transaction is in Convex an error is 08007 and says so.
\ir ../pgtap/lib/setup.sql
\ir ../pgtap/lib/writes.sql
SELECT plan(16);

SELECT emu.server(), emu.index('counters', '{id}') \g /dev/null
SELECT emu.insert('counters', '{"id": 1, "n": 0}', '{"id": 2, "n": 0}') \g /dev/null
CREATE FOREIGN TABLE counters (id float8, n float8, note text) SERVER convex OPTIONS (primary_key 'id');
CREATE FOREIGN TABLE streamed (id float8, n float8, note text) SERVER convex OPTIONS (table_name 'counters', primary_key 'id', flush 'statement');
CREATE FOREIGN TABLE small (id float8, n float8, note text) SERVER convex OPTIONS (table_name 'counters', primary_key 'id', batch_size '1');
CREATE ROLE case_own_requests;
GRANT USAGE ON SCHEMA app TO case_own_requests;
GRANT USAGE ON FOREIGN SERVER convex TO case_own_requests;
GRANT SELECT, INSERT, UPDATE, DELETE ON counters, streamed TO case_own_requests;
SELECT format('CREATE USER MAPPING FOR case_own_requests SERVER convex OPTIONS (deploy_key %L)', emu.key()) \gexec
CREATE FUNCTION n_of(key int) RETURNS int LANGUAGE sql AS $$ SELECT (d ->> 'n')::float8::int FROM emu.dump('counters') AS d WHERE (d ->> 'id')::float8 = key $$;

-- two roles, kept until the commit
SELECT is(emu.sqlstate('UPDATE counters SET n = n + 1 WHERE id = 1', 'SET LOCAL ROLE case_own_requests', 'UPDATE counters SET n = n + 1 WHERE id = 1'), '00000', 'two roles update one row');
SELECT is(n_of(1), 2, 'both count');
SELECT is(emu.sqlstate('UPDATE counters SET n = n * 10 WHERE id = 1', 'SET LOCAL ROLE case_own_requests', 'UPDATE counters SET n = n + 1 WHERE id = 1', 'RESET ROLE', 'UPDATE counters SET n = n * 10 WHERE id = 1'), '00000', 'and take turns');
SELECT is(n_of(1), 210, 'in statement order');
SELECT is(emu.sqlstate('INSERT INTO counters VALUES (2, 5)', 'SET LOCAL ROLE case_own_requests', 'UPDATE counters SET n = n + 1 WHERE id = 2'), '00000', 'a row that one role inserts is updated by another');
SELECT is(n_of(2), 6, 'as it was inserted');

-- several requests of one flush
SELECT emu.clear_journal() \g /dev/null
SELECT is(emu.sqlstate('UPDATE small SET n = n + 1 WHERE id = 1', 'UPDATE small SET n = n + 1 WHERE id = 1', 'INSERT INTO small VALUES (2, 1)', 'UPDATE small SET n = n + 1 WHERE id = 2'), '00000', 'requests of one flush do not conflict with each other');
SELECT is(emu.count_writes(), 4, 'there were four');
SELECT is(ARRAY[n_of(1), n_of(2)], ARRAY[212, 2], 'they build on each other');

-- with each statement: READ COMMITTED sees what was sent, an older snapshot does not
SELECT is(emu.sqlstate('UPDATE streamed SET n = n + 1 WHERE id = 1', 'UPDATE streamed SET n = n + 1 WHERE id = 1'), '00000', 'with flush ''statement'' the next command sees what was sent');
SELECT is(n_of(1), 214, 'and adds to it');
SELECT is(emu.sqlstate('SET TRANSACTION ISOLATION LEVEL REPEATABLE READ', 'UPDATE streamed SET n = n + 1 WHERE id = 1', 'UPDATE streamed SET n = n + 1 WHERE id = 1'), '08007', 'in REPEATABLE READ its snapshot does not, and the second is refused');
SELECT is(n_of(1), 215, 'the first one is there');
SELECT matches(emu.outcome('SET TRANSACTION ISOLATION LEVEL REPEATABLE READ', 'UPDATE streamed SET n = n + 1 WHERE id = 1', 'SET LOCAL ROLE case_own_requests', 'UPDATE streamed SET n = n + 1 WHERE id = 1') ->> 'detail',
	'has changed since it was read\.  1 change of this transaction is in Convex\.', 'the error says what is in Convex');

-- PostgreSQL's own serialization failure, after something was sent
CREATE TABLE local (k int, v int);
INSERT INTO local VALUES (1, 0), (2, 0);
SELECT dblink_connect('other', format('host=%s port=%s dbname=%s user=postgres options=-csearch_path=app,public', split_part(current_setting('unix_socket_directories'), ',', 1), current_setting('port'), current_database())) \g /dev/null
DO $$
BEGIN
	PERFORM dblink_exec('writer', 'BEGIN ISOLATION LEVEL SERIALIZABLE'), dblink_exec('other', 'BEGIN ISOLATION LEVEL SERIALIZABLE');
	PERFORM * FROM dblink('writer', 'SELECT sum(v) FROM local WHERE k = 1') AS t (s bigint);
	PERFORM * FROM dblink('other', 'SELECT sum(v) FROM local WHERE k = 2') AS t (s bigint);
	PERFORM dblink_exec('other', 'UPDATE local SET v = v + 1 WHERE k = 1');
	PERFORM dblink_exec('writer', 'UPDATE local SET v = v + 1 WHERE k = 2; UPDATE streamed SET n = n + 1 WHERE id = 2');
	PERFORM dblink_exec('other', 'COMMIT');
END
$$;
SELECT is(emu.failure($$SELECT dblink_exec('writer', 'COMMIT')$$) ->> 'sqlstate', '08007', 'a serialization failure of PostgreSQL''s is no leave to repeat what was sent');
SELECT is(n_of(2), 3, 'for it is there');
DO $$ BEGIN PERFORM dblink_exec('writer', 'ROLLBACK'); END $$;

DROP OWNED BY case_own_requests;
DROP ROLE case_own_requests;
SELECT * FROM finish();
