-- convex_fdw.allowed_hosts took entries that match nothing ('a.test:9443', '*',
-- 'https://a.test', ';') without a word, and an IPv6 address in the brackets
-- that a URL needs matched nothing either.  What is set is checked; what is
-- stored already stays in force, matches nothing, and is told in the log.

\ir ../pgtap/lib/setup.sql
SELECT plan(44);

SELECT is(f ->> 'sqlstate', '22023', quote_literal(list) || ' is refused'),
	ok(f ->> 'detail' LIKE '%"' || bad || '"%' AND f ->> 'hint' <> '', 'and the entry is named')
FROM (VALUES ('a.test:9443', 'a.test:9443'), ('*', '*'), ('b.test, https://a.test', 'https://a.test'), (';', ';'), ('a.test;b.test', 'a.test;b.test'),
	('[2001:db8::5]:443', '[2001:db8::5]:443'), ('2001:db8::g', '2001:db8::g'), ('[a.test]', '[a.test]'), ('10.0.0.0/8', '10.0.0.0/8'),
	('a.*.test', 'a.*.test'), ('a.test.', 'a.test.'), ('*.', '*.'), ('a..test', 'a..test'), ('ä.test', 'ä.test'), ('a.test/api', 'a.test/api')) AS t (list, bad),
	emu.failure(format('SET convex_fdw.allowed_hosts = %L', list)) AS f;
SELECT is(emu.failure(format('ALTER DATABASE %I SET convex_fdw.allowed_hosts = ''a.test:1''', current_database())) ->> 'sqlstate', '22023', 'ALTER DATABASE is told');
SELECT is(emu.failure('ALTER ROLE CURRENT_USER SET convex_fdw.allowed_hosts = ''a.test:1''') ->> 'sqlstate', '22023', 'ALTER ROLE is told');
\set ON_ERROR_STOP 0
ALTER SYSTEM SET convex_fdw.allowed_hosts = 'a.test:1';
\set refused :LAST_ERROR_SQLSTATE
\set ON_ERROR_STOP 1
SELECT is(:'refused'::text, '22023', 'ALTER SYSTEM is told');

CREATE FUNCTION state_at(url text, list text) RETURNS text LANGUAGE plpgsql AS
$$
BEGIN
	PERFORM set_config('convex_fdw.allowed_hosts', list, false);
	EXECUTE format('ALTER SERVER convex OPTIONS (SET deployment_url %L)', url);
	RETURN coalesce(emu.failure('SELECT * FROM notes') ->> 'sqlstate', 'none');
END
$$;
SELECT emu.server('convex', $$max_retries '0', connect_timeout '100ms'$$) \g /dev/null
CREATE FOREIGN TABLE notes (_id text) SERVER convex;
SELECT is(state_at(url, list), state, format('%s under "%s" is %s', url, list, state))
FROM (VALUES ('http://[::1]:1', '[::1]', 'HV00N'), ('http://[::1]:1', '::1', 'HV00N'), ('http://[::1]:1', '[0:0::0:1], a.test', 'HV00N'),
	('http://[::1]:1', '[::2]', '42501'), ('http://127.0.0.1:1', '127.0.0.1', 'HV00N'),
	('http://a.localhost:1', 'b.test *.LOCALHOST', 'HV00N'), ('http://localhost:1', '*.localhost', '42501'), ('http://127.0.0.1:1', ' , ', 'HV00N')) AS t (url, list, state);

-- Stored before anybody looked: by a session without the library. With preload there is none.
SELECT current_setting('shared_preload_libraries') ~ 'convex_fdw' AS is_preloaded \gset
\if :is_preloaded
SELECT skip('the library is preloaded', 3);
\else
CREATE EXTENSION dblink;
SELECT format('host=%s port=%s dbname=%s user=postgres', split_part(current_setting('unix_socket_directories'), ',', 1),
	current_setting('port'), current_database()) AS conninfo \gset
SELECT dblink_connect('before', :'conninfo') \g /dev/null
SELECT dblink_exec('before', format('ALTER DATABASE %I SET convex_fdw.allowed_hosts = ''127.0.0.1:9443''', current_database())) \g /dev/null
SELECT dblink_connect('later', :'conninfo') \g /dev/null
SELECT is(emu.failure($$SELECT dblink_exec('later', 'CREATE TEMP TABLE n AS SELECT * FROM notes')$$) ->> 'sqlstate', '42501',
	'a stored list of entries that match nothing allows nothing');
SELECT is(setting, '127.0.0.1:9443', 'and stays what it is')
FROM dblink('later', $$SELECT current_setting('convex_fdw.allowed_hosts')$$) AS t (setting text);
SELECT dblink_exec('later', $$SET convex_fdw.allowed_hosts = ''$$) \g /dev/null
SELECT is(emu.failure($$SELECT dblink_exec('later', 'CREATE TEMP TABLE n AS SELECT * FROM notes')$$) ->> 'sqlstate', 'HV00N', 'until it is set anew');
\endif

SELECT * FROM finish();
