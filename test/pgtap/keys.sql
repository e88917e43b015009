-- Deploy keys: a statement that the validator refuses shows the key neither to
-- the client nor to the log, and a key file is read as the option promises.
--
-- The log is that of test/run/cluster, one directory above the data.

\ir lib/setup.sql
\pset fieldsep '\n'

SELECT plan(54);
SELECT emu.server() \g /dev/null
SELECT * FROM emu.insert('messages', '{"body": "hello"}') \g /dev/null

-- ---------------------------------------------------------------------------
-- Refused statements
-- ---------------------------------------------------------------------------

-- SECRET stands for a key until the statement reaches the other session.
CREATE TABLE refused (place serial, what text, statement text, state text);
INSERT INTO refused (what, statement, state) VALUES
	('a misspelled option', $$ALTER USER MAPPING FOR CURRENT_USER SERVER convex OPTIONS (ADD deploy_kei 'SECRET')$$,
	'HV00D'),
	('an unknown option', $$CREATE USER MAPPING FOR PUBLIC SERVER convex OPTIONS (password 'SECRET')$$, 'HV00D'),
	('an option of servers',
	$$CREATE USER MAPPING FOR PUBLIC SERVER convex OPTIONS (deploy_key 'SECRET', connect_timeout '1s')$$, 'HV00D'),
	('a key with a blank',
	$$ALTER USER MAPPING FOR CURRENT_USER SERVER convex OPTIONS (SET deploy_key 'SECRET SECRET')$$, '22023'),
	('a key of two lines',
	$$ALTER USER MAPPING FOR CURRENT_USER SERVER convex OPTIONS (SET deploy_key e'SECRET\nSECRET')$$, '22023'),
	('a key beside a key file',
	$$CREATE USER MAPPING FOR PUBLIC SERVER convex OPTIONS (deploy_key 'SECRET', deploy_key_file '/key')$$, '22023'),
	('a key as the name of a file', $$CREATE USER MAPPING FOR PUBLIC SERVER convex OPTIONS (deploy_key_file 'SECRET')$$,
	'22023'),
	('a key in the options of a server', $$ALTER SERVER convex OPTIONS (ADD deploy_key 'SECRET')$$, 'HV00D'),
	('a key in the options of a new server',
	$$CREATE SERVER another FOREIGN DATA WRAPPER convex_fdw OPTIONS (deployment_url 'http://localhost', deploy_key 'SECRET')$$,
	'HV00D'),
	('a key in the options of a table', $$CREATE FOREIGN TABLE another () SERVER convex OPTIONS (deploy_key 'SECRET')$$,
	'HV00D'),
	('a key in the options of a column',
	$$CREATE FOREIGN TABLE another (a text OPTIONS (deploy_key 'SECRET')) SERVER convex$$, 'HV00D'),
	('a key in the options of the wrapper', $$ALTER FOREIGN DATA WRAPPER convex_fdw OPTIONS (ADD deploy_key 'SECRET')$$,
	'HV00D'),
	('a key as the password of a URL',
	$$ALTER SERVER convex OPTIONS (SET deployment_url 'https://user:SECRET@localhost')$$, '22023'),
	('a file without the right to it',
	$$SET ROLE chapter_keys; CREATE USER MAPPING FOR CURRENT_USER SERVER convex OPTIONS (deploy_key 'SECRET', deploy_key_file '/key'); RESET ROLE$$,
	'42501');
-- A URL is not a user mapping: what is logged of its statement is the core's.
UPDATE refused SET what = NULL WHERE what LIKE '%URL';
-- The same from within a function, where the context tells the statement
INSERT INTO refused (what, statement, state)
SELECT what || ' in a DO block', format('DO $do$ BEGIN EXECUTE %L; END $do$', statement), state
FROM refused WHERE what IS NOT NULL AND statement NOT LIKE 'SET ROLE%' ORDER BY place;

CREATE ROLE chapter_keys;
GRANT USAGE ON FOREIGN SERVER convex TO chapter_keys;

-- Another session runs them; it is not shown the context, which core makes of its own statements.
-- log_statement shows what it is told to show, so it is off there.
\setenv PGDATABASE :DBNAME
\setenv PGOPTIONS '-c log_statement=none -c log_min_messages=warning -c log_min_error_statement=error -c log_error_verbosity=verbose'
SELECT string_agg(statement || e';\n', '' ORDER BY place) AS statements, count(*) AS n FROM refused
	WHERE what IS NOT NULL \gset
\setenv STATEMENTS :statements
SELECT (pg_stat_file(current_setting('data_directory') || '/../server.log')).size AS log_begins \gset
\set told `printf %s "$STATEMENTS" | sed 's/SECRET/prod:happy-otter-123|chapterkeys00/g' | psql -X -q -v VERBOSITY=verbose -v SHOW_CONTEXT=never 2>&1`
\setenv PGOPTIONS ''
-- What follows is logged as well, and names the key that is looked for.
SELECT (pg_stat_file(current_setting('data_directory') || '/../server.log')).size AS log_ends \gset
CREATE FUNCTION logged_since(bigint, bigint DEFAULT 200000000) RETURNS text LANGUAGE sql AS
$$ SELECT convert_from(pg_read_binary_file(current_setting('data_directory') || '/../server.log', $1, $2), 'LATIN1') $$;

SELECT is((regexp_match(line, 'ERROR:  (\w{5}):'))[1], state, what || ' is refused')
FROM (SELECT line, row_number() OVER () AS place FROM regexp_split_to_table(:'told', e'\n') AS line
	WHERE line LIKE 'ERROR:%') AS told
FULL JOIN (SELECT what, state, row_number() OVER (ORDER BY place) AS place FROM refused
	WHERE what IS NOT NULL) AS refused USING (place);
SELECT is(position('chapterkeys00' IN :'told'), 0, 'no key is shown to the client');
SELECT is(position('happy-otter-123|' IN :'told'), 0, 'nor a part of one');
SELECT is((SELECT count(*) FROM regexp_matches(logged_since(:log_begins, :log_ends - :log_begins), '@' || current_database()
	|| ' ERROR:  (HV00D|22023|42501): ', 'g')), :n::bigint, 'every refusal is logged');
SELECT is(position('chapterkeys00' IN logged_since(:log_begins, :log_ends - :log_begins)), 0, 'without the key');
SELECT is(array_length(ARRAY(SELECT umoptions FROM pg_user_mappings WHERE srvname = 'convex'), 1), 1,
	'nothing of it is stored');

-- ---------------------------------------------------------------------------
-- Key files
-- ---------------------------------------------------------------------------

SELECT current_setting('data_directory') || '/chapter_keys' AS directory \gset
CREATE FUNCTION shell(command text) RETURNS void LANGUAGE plpgsql AS
$$ BEGIN EXECUTE format('COPY (SELECT) TO PROGRAM %L', 'cat >/dev/null; cd ' || emu.shell_quote(current_setting('data_directory')) || ' && ' || command); END $$;
SELECT shell('rm -rf chapter_keys && mkdir chapter_keys') \g /dev/null

SELECT emu.server('by_file') \g /dev/null
CREATE FOREIGN TABLE messages (body text) SERVER by_file;

-- Reads with a key file made by a command that writes to "$f"; gives the text or the SQLSTATE.
CREATE FUNCTION reads(command text) RETURNS text LANGUAGE plpgsql AS
$$
DECLARE
	file text := current_setting('data_directory') || '/chapter_keys/key';
	result text;
BEGIN
	PERFORM shell('umask 077; f=chapter_keys/key; k=' || emu.shell_quote(emu.key()) || '; ' || command);
	EXECUTE format('ALTER USER MAPPING FOR CURRENT_USER SERVER by_file OPTIONS (%s deploy_key_file %L)',
		CASE WHEN EXISTS (SELECT FROM pg_user_mappings WHERE srvname = 'by_file'
		AND umoptions::text LIKE '%deploy_key_file%')
			THEN 'SET' ELSE 'DROP deploy_key, ADD' END, file);
	SELECT body INTO result FROM messages;
	RETURN result;
EXCEPTION WHEN OTHERS THEN
	RETURN SQLSTATE || ': ' || SQLERRM;
END
$$;
SELECT is(reads('printf %s "$k" >$f'), 'hello', 'a key file with one key is read');
SELECT is(reads('echo "$k" >$f'), 'hello', 'a trailing newline is no part of the key');
SELECT is(reads('printf "%s\r\n" "$k" >$f'), 'hello', 'nor is a carriage return before it');
SELECT is(reads('chmod 640 $f'), 'hello', 'the group may read it');
SELECT matches(reads('chmod 644 $f'), '^42501', 'a file that everybody can read is refused');
SELECT matches(reads('chmod 604 $f'), '^42501', 'whatever the group may');
SELECT is(reads('chmod 600 $f'), 'hello', 'until that is mended');
SELECT matches(reads(': >$f'), '^22023', 'an empty file is refused');
SELECT matches(reads('echo >$f'), '^22023', 'so is a blank one');
SELECT matches(reads('printf "%s\n%s\n" "$k" "$k" >$f'), '^22023', 'so is one of two lines');
SELECT matches(reads('printf "%s\0%s" "$k" "$k" >$f'), '^22023', 'or with a zero byte');
SELECT unalike(reads('echo "user:chapterkeys00 and more" >$f'), '%chapterkeys00%', 'what is in the file is not shown');
SELECT matches(reads('head -c 4097 /dev/zero | tr "\0" x >$f'), '^54000', 'more than 4 KiB are refused');
SELECT matches(reads('head -c 4096 /dev/zero | tr "\0" x >$f'), '^28000',
	'4 KiB are read (the server refuses that key)');
SELECT matches(reads('rm -f $f; mkdir $f'), '^42809', 'a directory is refused');
SELECT matches(reads('rmdir $f; mkfifo -m 600 $f'), '^42809', 'a pipe is refused and not waited for');
SELECT matches(reads('rm -f $f; ln -s /dev/zero $f'), '^42809', 'so is a device');
SELECT matches(reads('rm -f $f'), '^58P01', 'a missing file is an error');
SELECT is(reads('echo "$k" >chapter_keys/real; ln -s real $f'), 'hello',
	'a symbolic link to a regular file is followed');
SELECT is(reads('rm -f $f; echo "$k" >$f'), 'hello', 'a good file again');

-- It is read again when it changes, in the same session and without ALTER.
SELECT shell('echo "prod:happy-otter-123|wrong" >chapter_keys/key') \g /dev/null
SELECT throws_ok('SELECT body FROM messages', '28000', NULL,
	'a key that was replaced in the file is not used any longer');
SELECT shell('echo "'
	|| emu.key() || '" >chapter_keys/new && chmod 600 chapter_keys/new && mv chapter_keys/new chapter_keys/key') \g /dev/null
SELECT is(body, 'hello', 'a file put into its place is read') FROM messages;
SELECT shell('rm -rf chapter_keys') \g /dev/null
SELECT throws_ok('SELECT body FROM messages', '58P01', NULL, 'a file that was removed is missed');
SELECT lives_ok('EXPLAIN (VERBOSE) SELECT body FROM messages', 'planning needs no key');

DROP OWNED BY chapter_keys;
DROP ROLE chapter_keys;

SELECT * FROM finish();
