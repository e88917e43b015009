-- Where a server may point, whose key is sent where, and who may decide that.

\ir lib/setup.sql
SELECT plan(234);

SELECT emu.insert('users', '{"name": "Ada"}', '{"name": "Bob"}') \g /dev/null
SELECT emu.server('convex', $$max_retries '0'$$) \g /dev/null
CREATE FOREIGN TABLE users (_id text, name text) SERVER convex;

-- Runs a command or a query; gives its SQLSTATE and all it tells.
CREATE FUNCTION ask(command text, OUT state text, OUT told text, OUT ms numeric) LANGUAGE plpgsql AS
$$
DECLARE
	begun timestamptz := clock_timestamp();
	message text;
	detail text;
	hint text;
	context text;
BEGIN
	BEGIN
		state := 'no error';
		EXECUTE command;
	EXCEPTION WHEN OTHERS THEN
		GET STACKED DIAGNOSTICS state = RETURNED_SQLSTATE, message = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL,
			hint = PG_EXCEPTION_HINT, context = PG_EXCEPTION_CONTEXT;
	END;
	told := concat_ws(' | ', message, detail, hint);
	ms := extract(epoch FROM clock_timestamp() - begun) * 1000;
END
$$;
CREATE FUNCTION state_of(command text) RETURNS text LANGUAGE sql AS $$ SELECT state FROM ask(command) $$;
CREATE FUNCTION told_of(command text) RETURNS text LANGUAGE sql AS $$ SELECT told FROM ask(command) $$;
CREATE FUNCTION key_in(text) RETURNS boolean LANGUAGE sql IMMUTABLE AS
$$ SELECT coalesce($1, '') ~ ('0123456' || '789abcdef') $$;

-- A server at a URL with a table, in place of the last one.
CREATE FUNCTION point_to(url text, options text DEFAULT '', key text DEFAULT emu.key()) RETURNS void LANGUAGE plpgsql
SET log_min_messages = log AS
$$
BEGIN
	DROP SERVER IF EXISTS pointed CASCADE;
	EXECUTE format('CREATE SERVER pointed FOREIGN DATA WRAPPER convex_fdw OPTIONS (deployment_url %L,
		max_retries ''0'', connect_timeout ''60s''%s)', url, options);
	EXECUTE format('CREATE USER MAPPING FOR CURRENT_USER SERVER pointed OPTIONS (deploy_key %L)', key);
	CREATE FOREIGN TABLE pointed_users (_id text, name text) SERVER pointed OPTIONS (table_name 'users');
END
$$;
CREATE FUNCTION scan_at(url text, options text DEFAULT '', key text DEFAULT emu.key(), OUT state text, OUT told text, OUT ms numeric)
LANGUAGE plpgsql AS
$$
BEGIN
	PERFORM point_to(url, options, key);
	SELECT * INTO state, told, ms FROM ask('SELECT * FROM pointed_users');
END
$$;
CREATE FUNCTION port() RETURNS text LANGUAGE sql AS $$ SELECT substring(current_setting('emu.url') FROM '\d+$') $$;


-- ------------------------------------------------------------- allowed hosts

SELECT is(current_setting('convex_fdw.allowed_hosts'), '', 'no list of hosts is set at first');
SELECT is(state_of('SELECT * FROM users'), 'no error', 'without a list loopback is reached');

SET convex_fdw.allowed_hosts = 'example.com';
SELECT emu.clear_journal() \g /dev/null
SELECT is(state_of('SELECT * FROM users'), '42501', 'with a list only its hosts are reached, loopback included');
SELECT matches(told_of('SELECT * FROM users'), '127\.0\.0\.1.*convex_fdw\.allowed_hosts', 'the refusal names host and setting');
SELECT is((SELECT count(*) FROM emu.journal()), 0::bigint, 'and nothing has been sent');
SELECT is(state_of($$SELECT convex_tables('convex')$$), '42501', 'functions obey the list');
SELECT is(state_of($$SELECT convex_snapshot('convex')$$), '42501', 'and so do all of them');
SELECT is(state_of('ANALYZE users'), '42501', 'ANALYZE obeys the list');
SELECT is(state_of('IMPORT FOREIGN SCHEMA convex FROM SERVER convex INTO public'), '42501', 'IMPORT FOREIGN SCHEMA obeys the list');
SELECT is(state_of('SELECT * FROM users'), allowed, format('the list "%s" %s 127.0.0.1', list,
	CASE allowed WHEN '42501' THEN 'does not hold' ELSE 'holds' END))
FROM (VALUES
	('127.0.0.1', 'no error'),
	('example.com, 127.0.0.1', 'no error'),
	('example.com,127.0.0.1,*.example.org', 'no error'),
	('  127.0.0.1  ', 'no error'),
	(' , ', 'no error'),
	('127.0.0.2', '42501'),
	('127.0.0.1x', '42501')
) AS list (list, allowed), LATERAL set_config('convex_fdw.allowed_hosts', list, false);

-- Names below a name, with hosts that loopback answers and a port where nobody listens.
SELECT is(state, expected, format('the list "%s" %s %s', list, CASE expected WHEN '42501' THEN 'does not hold' ELSE 'holds' END, host))
FROM (VALUES
	('*.localhost', 'a.localhost', 'HV00N'),
	('*.localhost', 'a.b.localhost', 'HV00N'),
	('*.LocalHost', 'A.localhost', 'HV00N'),
	('*.localhost', 'localhost', '42501'),
	('localhost', 'a.localhost', '42501'),
	('localhost', 'localhost', 'HV00N'),
	('LOCALHOST', 'localhost', 'HV00N'),
	('a.localhost', 'b.localhost', '42501'),
	('*.a.localhost', 'a.localhost', '42501'),
	('*.a.localhost', 'ba.localhost', '42501')
) AS list (list, host, expected),
	LATERAL set_config('convex_fdw.allowed_hosts', list, false),
	LATERAL scan_at('http://' || host || ':1');
RESET convex_fdw.allowed_hosts;
SELECT is(state_of('SELECT * FROM users'), 'no error', 'once the list is gone the connection is made again');

-- Addresses that are never reached without being listed, in all their clothes.
SELECT is(state, '42501', url || ' is refused')
FROM unnest('{https://10.0.0.1,https://10.255.255.255,https://172.16.0.1,https://172.31.255.255,https://192.168.0.1,
	https://169.254.169.254,https://169.254.0.1,https://100.64.0.1,https://100.100.100.200,https://192.0.0.192,https://198.18.0.1,
	https://0.0.0.0,https://0.1.2.3,https://224.0.0.1,https://240.0.0.1,https://255.255.255.255,
	https://10.1,https://167772161,https://0x0a000001,https://012.0.0.1,https://0xa9.254.43518,
	https://[::],https://[fd00::1],https://[fc00::1],https://[fd00:ec2::254],https://[fe80::1],https://[febf::1],https://[fec0::1],
	https://[ff02::1],https://[::ffff:10.0.0.1],https://[::ffff:a00:1],https://[::ffff:169.254.169.254],https://[::10.0.0.1],
	https://[64:ff9b::10.0.0.1],https://[64:ff9b:1::10.0.0.1],https://[2002:a00:1::1],https://[2002:c0a8:101::],
	https://168.63.129.16,https://10.0.0.1:8443}'::text[]) AS url, LATERAL scan_at(btrim(url, E' \n\t'));
SELECT ok(ms < 30000 AND told ~ '10\.0\.0\.1' AND told ~ 'allowed_hosts', 'the refusal is told at once, with address and setting')
	FROM scan_at('https://10.0.0.1');
SELECT ok(NOT key_in(told), 'and without the key') FROM scan_at('https://10.0.0.1');
SELECT is(state, '42501', 'an address whose like is listed is refused')
	FROM set_config('convex_fdw.allowed_hosts', '10.0.0.2', false), LATERAL scan_at('https://10.0.0.1');
RESET convex_fdw.allowed_hosts;

-- 0.0.0.0 leads to loopback on Linux: there it shows that no byte is sent.
SELECT is(state_of(format($$SELECT point_to('http://0.0.0.0:%s')$$, port())), '22023', 'plain http is for loopback only');
SELECT is(state_of(format($$SELECT point_to('http://192.168.7.7:%s')$$, port())), '22023', 'a private network is not loopback');
SELECT is(state_of(format($$SELECT point_to('http://localhost.example.com:%s')$$, port())), '22023', 'nor is a name that begins like it');
SELECT is(state_of(format($$SELECT point_to('http://127.0.0.1.example.com:%s')$$, port())), '22023', 'nor one that begins like its address');
SELECT emu.clear_journal() \g /dev/null
SELECT is(state, '42501', 'with allow_insecure_http a private address is still refused')
	FROM scan_at('http://192.168.7.7:' || port(), $$, allow_insecure_http 'true'$$);
SELECT is(state, '42501', 'and so is 0.0.0.0') FROM scan_at('http://0.0.0.0:' || port(), $$, allow_insecure_http 'true'$$);
SELECT is((SELECT count(*) FROM emu.journal()), 0::bigint, 'before a byte is sent');
SELECT is(state, 'no error', 'once it is listed it is reached')
	FROM set_config('convex_fdw.allowed_hosts', '0.0.0.0', false), LATERAL scan_at('http://0.0.0.0:' || port(), $$, allow_insecure_http 'true'$$);
RESET convex_fdw.allowed_hosts;
SELECT is(state_of('SELECT * FROM pointed_users'), '42501', 'and no more when it is listed no more');
SELECT is(state, 'no error', 'every way to write loopback is loopback: ' || host)
	FROM unnest('{127.0.0.1,localhost,LocalHost,a.localhost}'::text[]) AS host, LATERAL scan_at('http://' || host || ':' || port());

-- What a URL may be.
SELECT is(state_of(format('SELECT point_to(%L)', url)), '22023', url || ' is no deployment_url')
FROM unnest('{ftp://127.0.0.1,file:///etc/passwd,gopher://127.0.0.1:70,//127.0.0.1,127.0.0.1,https://,https://user@example.com,https://u:p@example.com,
	https://example.com/api,https://example.com?x=1,https://example.com#x,https://exa mple.com,https://example.com:0,https://example.com:65536,
	https://example.com:,https://example.com:80x,https://[::1,https://[::1%25lo],https://exa\\mple.com,"https://127.0.0.1@example.com",
	https://happy-otter-123.convex.site}'::text[]) AS url;
SELECT matches(told_of($$SELECT point_to('https://happy-otter-123.convex.site')$$), 'https://happy-otter-123\.convex\.cloud',
	'a .convex.site host is refused with the .convex.cloud one');
SELECT is(state_of(format('SELECT point_to(%L)', e'https://example.com\r\nX-Header: 1')), '22023', 'a line break is no part of a URL');


-- ------------------------------------------------------------- keys and hosts

-- With this list whatever passes the comparison ends before the network.
SET convex_fdw.allowed_hosts = 'nowhere.invalid';
SELECT is(state, '28000', format('%s is not for %s', kind, host))
FROM (VALUES
	('prod:happy-otter-123|sec-0000', 'brave-cat-7.convex.cloud'),
	('dev:happy-otter-123|sec-0000', 'brave-cat-7.convex.cloud'),
	('prod:happy-otter-123|sec-0000', 'brave-cat-7.eu-west-1.convex.cloud'),
	('prod:happy-otter-12|sec-0000', 'happy-otter-123.convex.cloud'),
	('prod:happy-otter-1234|sec-0000', 'happy-otter-123.convex.cloud'),
	('prod:eu-west-1|sec-0000', 'happy-otter-123.eu-west-1.convex.cloud'),
	('prod:|sec-0000', 'happy-otter-123.convex.cloud')
) AS pair (kind, host), LATERAL scan_at('https://' || host, '', kind);
SELECT is(state, '42501', format('%s is not compared with %s', kind, host))
FROM (VALUES
	('prod:happy-otter-123|sec-0000', 'happy-otter-123.convex.cloud'),
	('prod:happy-otter-123|sec-0000', 'happy-otter-123.eu-west-1.convex.cloud'),
	('prod:Happy-Otter-123|sec-0000', 'happy-otter-123.CONVEX.cloud'),
	('preview:team:project|sec-0000', 'brave-cat-7.convex.cloud'),
	('project:team:project|sec-0000', 'brave-cat-7.convex.cloud'),
	('happy-otter-123|sec-0000', 'brave-cat-7.convex.cloud'),
	('token-no-bar', 'brave-cat-7.convex.cloud'),
	('token:no-bar', 'brave-cat-7.convex.cloud'),
	('prod:happy-otter-123|sec-0000', 'convex.example.com'),
	('prod:happy-otter-123|sec-0000', 'happy-otter-123.convex.cloud.example.com'),
	('prod:happy-otter-123|sec-0000', 'evilconvex.cloud')
) AS pair (kind, host), LATERAL scan_at('https://' || host, '', kind);
SELECT ok(told ~ 'happy-otter-123' AND told ~ 'brave-cat-7' AND told ~ 'allow_key_mismatch' AND told !~ 'sec-0000',
	'a mismatch names both deployments and the option, but not the secret')
	FROM scan_at('https://brave-cat-7.convex.cloud', '', 'prod:happy-otter-123|sec-0000');
SELECT is(state, '42501', 'allow_key_mismatch lifts the comparison')
	FROM scan_at('https://brave-cat-7.convex.cloud', $$, allow_key_mismatch 'true'$$, 'prod:happy-otter-123|sec-0000');
SELECT point_to('https://brave-cat-7.convex.cloud', '', 'prod:happy-otter-123|sec-0000') \g /dev/null
SELECT ok(bool_or(NOT ok AND detail ~ 'brave-cat-7'), 'convex_test_connection compares key and host')
	FROM convex_test_connection('pointed');
SELECT is_empty($$SELECT * FROM convex_test_connection('pointed') AS t WHERE t::text ~ 'sec-0000'$$, 'and shows no key');
SELECT is(state_of($$SELECT convex_tables('pointed')$$), '28000', 'functions compare key and host');
SELECT is(state_of('EXPLAIN SELECT * FROM pointed_users'), 'no error', 'plain EXPLAIN does not');
RESET convex_fdw.allowed_hosts;
DROP SERVER pointed CASCADE;


-- --------------------------------------------------------------------- rights

DROP ROLE IF EXISTS security_plain, security_reader;
CREATE ROLE security_plain;
CREATE ROLE security_reader IN ROLE pg_read_server_files;
GRANT USAGE ON FOREIGN DATA WRAPPER convex_fdw TO security_plain, security_reader;
GRANT CREATE, USAGE ON SCHEMA public TO security_plain, security_reader;

SET ROLE security_plain;
SELECT is(state_of('SET convex_fdw.allowed_hosts = ''127.0.0.1'''), '42501', 'only a superuser sets the list of hosts');
SELECT is(state_of(format('CREATE SERVER plain FOREIGN DATA WRAPPER convex_fdw OPTIONS (deployment_url ''https://example.com'', %s)', option)),
	'42501', 'an ordinary role may not set ' || option)
FROM unnest(ARRAY[$$allow_insecure_http 'true'$$, $$allow_insecure_http 'false'$$, $$http_proxy 'http://127.0.0.1:1'$$,
	$$allow_key_mismatch 'true'$$, $$ca_file '/etc/ssl/certs/ca-certificates.crt'$$]) AS option;
CREATE SERVER plain FOREIGN DATA WRAPPER convex_fdw OPTIONS (deployment_url 'https://example.com');
SELECT is(state_of($$CREATE USER MAPPING FOR CURRENT_USER SERVER plain OPTIONS (deploy_key_file '/tmp/key')$$), '42501',
	'an ordinary role may not name a key file');
CREATE USER MAPPING FOR CURRENT_USER SERVER plain OPTIONS (deploy_key 'prod:happy-otter-123|sec-0000');
SELECT is(state_of($$ALTER USER MAPPING FOR CURRENT_USER SERVER plain OPTIONS (ADD deploy_key_file '/tmp/key')$$), '42501',
	'nor add one');
RESET ROLE;
ALTER SERVER plain OPTIONS (ADD ca_file '/etc/ssl/certs/ca-certificates.crt');
SET ROLE security_plain;
SELECT is(state_of($$ALTER SERVER plain OPTIONS (SET deployment_url 'https://example.org')$$), '42501',
	'what a superuser has added needs the right again from whoever alters the server');
SELECT is(state_of('ALTER SERVER plain OPTIONS (DROP ca_file)'), 'no error', 'unless it is dropped');
SET ROLE security_reader;
SELECT is(state_of($$CREATE SERVER reader FOREIGN DATA WRAPPER convex_fdw OPTIONS (deployment_url 'https://example.com', ca_file '/etc/ssl/certs/ca-certificates.crt')$$),
	'no error', 'a member of pg_read_server_files may set ca_file');
SELECT is(state_of($$ALTER SERVER reader OPTIONS (ADD allow_insecure_http 'true')$$), '42501', 'but not allow_insecure_http');
SELECT is(state_of($$ALTER SERVER reader OPTIONS (ADD allow_key_mismatch 'true')$$), '42501', 'nor allow_key_mismatch');
SELECT is(state_of($$CREATE USER MAPPING FOR CURRENT_USER SERVER reader OPTIONS (deploy_key_file '/nonexistent/key')$$), 'no error', 'and may name a key file');
RESET ROLE;

-- A server without mapping or right.
SELECT is(state_of('SELECT * FROM users'), 'no error', 'the owner reads');
GRANT SELECT ON users TO security_plain;
SET ROLE security_plain;
SELECT is(state_of('SELECT * FROM users'), '42704', 'nobody uses another role''s mapping');
SELECT is(state_of($$SELECT convex_tables('convex')$$), '42501', 'functions are not for everybody');
SELECT is(state_of('SELECT convex_fdw_version()'), 'no error', 'but the version is');
RESET ROLE;
GRANT EXECUTE ON FUNCTION convex_tables(name) TO security_plain;
SELECT format('CREATE USER MAPPING FOR security_plain SERVER convex OPTIONS (deploy_key %L)', emu.key()) \gexec
SET ROLE security_plain;
SELECT is(state_of($$SELECT convex_tables('convex')$$), '42501', 'a function needs USAGE on the server');
SELECT is(state_of('SELECT * FROM users'), 'no error', 'a table needs a mapping and the right to read it');
SELECT is(state_of('SELECT 1 FROM pg_user_mapping'), '42501', 'mappings are not readable');
SELECT ok(NOT bool_or(key_in(mapping::text)), 'pg_user_mappings shows no key but a role''s own')
	FROM pg_user_mappings AS mapping WHERE usename <> 'security_plain';
RESET ROLE;
GRANT USAGE ON FOREIGN SERVER convex TO security_plain;
SET ROLE security_plain;
SELECT is(state_of($$SELECT convex_tables('convex')$$), 'no error', 'with USAGE it works');
RESET ROLE;
REVOKE USAGE ON FOREIGN SERVER convex FROM security_plain;

-- The extension as a whole.
SELECT is(trusted, false, 'the extension is not trusted') FROM pg_available_extension_versions
	WHERE name = 'convex_fdw' AND installed;
SELECT is_empty($$
	SELECT p.oid::regprocedure FROM pg_depend AS d JOIN pg_proc AS p ON p.oid = d.objid
	WHERE d.refclassid = 'pg_extension'::regclass AND d.classid = 'pg_proc'::regclass
		AND d.refobjid = (SELECT oid FROM pg_extension WHERE extname = 'convex_fdw') AND p.prosecdef$$,
	'no function runs with its definer''s rights');
SELECT results_eq($$
	SELECT p.proname FROM pg_depend AS d JOIN pg_proc AS p ON p.oid = d.objid
	WHERE d.refclassid = 'pg_extension'::regclass AND d.classid = 'pg_proc'::regclass
		AND d.refobjid = (SELECT oid FROM pg_extension WHERE extname = 'convex_fdw')
		AND has_function_privilege('public', p.oid, 'EXECUTE') AND p.prorettype NOT IN ('fdw_handler'::regtype, 'trigger'::regtype, 'event_trigger'::regtype)
		AND p.proname <> 'convex_fdw_validator'
	ORDER BY p.proname$$, $$VALUES ('convex_changes_stream'::name), ('convex_fdw_version'), ('convex_workers')$$, 'everybody may call convex_fdw_version, and convex_workers for what is their own, and what convex_changes is made of with the right to call that, and nothing else');

-- Types are those of PostgreSQL, whatever the search_path.
CREATE SCHEMA evil;
CREATE DOMAIN evil.text AS pg_catalog.text CHECK (false);
CREATE DOMAIN evil.jsonb AS pg_catalog.jsonb CHECK (false);
CREATE DOMAIN evil.timestamptz AS pg_catalog.timestamptz CHECK (false);
CREATE SCHEMA target;
SELECT set_config('search_path', 'evil, pg_catalog, public', false) \g /dev/null
SELECT is(public.state_of('IMPORT FOREIGN SCHEMA convex FROM SERVER convex INTO target'), 'no error', 'IMPORT FOREIGN SCHEMA works under any search_path');
RESET search_path;
SELECT is_empty($$SELECT attname FROM pg_attribute WHERE attrelid = 'target.users'::regclass AND attnum > 0
	AND (SELECT typnamespace FROM pg_type WHERE oid = atttypid) <> 'pg_catalog'::regnamespace$$, 'and names the types of PostgreSQL');
SELECT is(state_of('SELECT * FROM target.users'), 'no error', 'so that its tables can be read');


-- ------------------------------------------------------------------ key files

CREATE FUNCTION shell(command text, input text DEFAULT '') RETURNS void LANGUAGE plpgsql AS
$$
BEGIN
	EXECUTE format('COPY (SELECT %L::text) TO PROGRAM %L',
		translate(encode(convert_to(input, 'UTF8'), 'base64'), e'\n', ''), 'base64 -d | ( ' || command || ' )');
END
$$;
SELECT current_setting('data_directory') || '/security.keys' AS keys \gset
SELECT set_config('test.keys', :'keys', false) \g /dev/null
SELECT shell('rm -rf ' || :'keys' || '; mkdir ' || :'keys') \g /dev/null

-- A file of the directory with a content and a mode.
CREATE FUNCTION write_key(name text, content text, mode text DEFAULT '0600') RETURNS void LANGUAGE sql AS
$$ SELECT shell(format('umask 077; cat >%1$s/%2$s; chmod %3$s %1$s/%2$s', current_setting('test.keys'), name, mode), content) $$;
-- How a scan goes whose key is in that file.
CREATE FUNCTION scan_with(name text, OUT state text, OUT told text, OUT ms numeric) LANGUAGE plpgsql AS
$$
BEGIN
	EXECUTE format('ALTER USER MAPPING FOR CURRENT_USER SERVER keyed OPTIONS (SET deploy_key_file %L)',
		CASE WHEN name LIKE '/%' THEN name ELSE current_setting('test.keys') || '/' || name END);
	SELECT * INTO state, told, ms FROM ask('SELECT * FROM keyed_users');
END
$$;
CREATE SERVER keyed FOREIGN DATA WRAPPER convex_fdw OPTIONS (deployment_url :'emulator', max_retries '0');
CREATE USER MAPPING FOR CURRENT_USER SERVER keyed OPTIONS (deploy_key_file '/nonexistent');
CREATE FOREIGN TABLE keyed_users (_id text, name text) SERVER keyed OPTIONS (table_name 'users');

SELECT write_key('good', emu.key()) \g /dev/null
SELECT is(state, 'no error', 'a key is read from a file') FROM scan_with('good');
SELECT write_key('group', emu.key(), '0640') \g /dev/null
SELECT is(state, 'no error', 'a file that its group may read is taken') FROM scan_with('group');
SELECT write_key('line', emu.key() || e'\n') \g /dev/null
SELECT is(state, 'no error', 'a trailing newline is no part of the key') FROM scan_with('line');
SELECT write_key('crlf', emu.key() || e'\r\n') \g /dev/null
SELECT is(state, 'no error', 'nor is that of another system') FROM scan_with('crlf');
SELECT shell('ln -s good ' || :'keys' || '/link') \g /dev/null
SELECT is(state, 'no error', 'a link to a file is followed') FROM scan_with('link');
SELECT is(state, '58P01', 'a file that is not there is told') FROM scan_with('missing');
SELECT matches(told, 'security\.keys/missing', 'by its name') FROM scan_with('missing');
SELECT write_key('world', emu.key(), '0644'), write_key('others', emu.key(), '0604') \g /dev/null
SELECT is(state, '42501', 'a file that everybody may read is refused') FROM scan_with('world');
SELECT is(state, '42501', 'also when its group may not') FROM scan_with('others');
SELECT ok(told ~ 'chmod' AND NOT key_in(told), 'with a hint and without the key') FROM scan_with('world');
SELECT write_key('largest', repeat('k', 4096)), write_key('larger', repeat('k', 4097)), write_key('huge', repeat('k', 1000000)) \g /dev/null
SELECT is(state, '28000', 'a key of 4 KiB is sent') FROM scan_with('largest');
SELECT is(state, '54000', 'a larger file is refused') FROM scan_with('larger');
SELECT is(state, '54000', 'however large it is') FROM scan_with('huge');
SELECT write_key('empty', ''), write_key('newline', e'\n'), write_key('lines', e'first-secret-line\nsecond-secret-line\n'),
	write_key('spaces', 'first-secret second-secret'), write_key('latin', 'first-secret-é') \g /dev/null
SELECT shell('umask 077; printf ''first-secret\0second-secret'' >' || :'keys' || '/zero') \g /dev/null
SELECT is(state, '22023', name || ' is no key') FROM unnest('{empty,newline,lines,spaces,latin,zero}'::text[]) AS name, LATERAL scan_with(name);
SELECT ok(told !~ 'secret', 'and nothing of it is told: ' || name) FROM unnest('{lines,spaces,latin,zero,larger}'::text[]) AS name, LATERAL scan_with(name);

-- What is no file.
SELECT shell(format('mkdir -m 0700 %1$s/directory; mkfifo -m 0600 %1$s/fifo', :'keys')) \g /dev/null
SELECT ok(state <> 'no error' AND ms < 30000, name || ' is refused at once')
	FROM unnest('{directory,fifo,/dev/null,/dev/zero,/dev/stdin}'::text[]) AS name, LATERAL scan_with(name);
SELECT is(state, '42809', name || ' is no regular file') FROM unnest('{directory,fifo}'::text[]) AS name, LATERAL scan_with(name);

-- A file that changes.
SELECT write_key('turning', emu.key()) \g /dev/null
SELECT is(state, 'no error', 'a file is read') FROM scan_with('turning');
SELECT write_key('turning', 'prod:happy-otter-123|another-secret') \g /dev/null
SELECT is(state_of('SELECT * FROM keyed_users'), '28000', 'and read again when it changes');
SELECT write_key('turning.new', emu.key()) \g /dev/null
SELECT shell(format('mv %1$s/turning.new %1$s/turning', :'keys')) \g /dev/null
SELECT is(state_of('SELECT * FROM keyed_users'), 'no error', 'or is replaced');
SELECT shell(format('chmod 0644 %1$s/turning', :'keys')) \g /dev/null
SELECT is(state_of('SELECT * FROM keyed_users'), '42501', 'or everybody may read it');
SELECT shell(format('rm %1$s/turning', :'keys')) \g /dev/null
SELECT is(state_of('SELECT * FROM keyed_users'), '58P01', 'or is gone');

-- Which file a mapping may name, and for whom it is read.
SELECT is(state_of(format('ALTER USER MAPPING FOR CURRENT_USER SERVER keyed OPTIONS (SET deploy_key_file %L)', path)), '22023',
	format('"%s" is no absolute path', path))
	FROM unnest(ARRAY['key', './key', '../key', '', '~/key']) AS path;
SELECT is(state_of($$ALTER USER MAPPING FOR CURRENT_USER SERVER keyed OPTIONS (ADD deploy_key 'x')$$), '22023', 'a mapping has a key or a key file');
SELECT format('CREATE USER MAPPING FOR security_plain SERVER keyed OPTIONS (deploy_key_file %L)', :'keys' || '/good') \gexec
GRANT SELECT ON keyed_users TO security_plain;
SET ROLE security_plain;
SELECT is(state_of('SELECT * FROM keyed_users'), 'no error', 'a role reads with the key file that a superuser gave it');
SELECT is(state_of($$ALTER USER MAPPING FOR CURRENT_USER SERVER keyed OPTIONS (SET deploy_key_file '/etc/passwd')$$), '42501', 'but cannot choose another');
RESET ROLE;
SELECT write_key('other', 'prod:brave-cat-7|sec-0000') \g /dev/null
SELECT set_config('convex_fdw.allowed_hosts', 'nowhere.invalid', false) \g /dev/null
ALTER SERVER keyed OPTIONS (SET deployment_url 'https://happy-otter-123.convex.cloud');
SELECT ok(state = '28000' AND told !~ 'sec-0000', 'a key from a file is compared with the host, too') FROM scan_with('other');
RESET convex_fdw.allowed_hosts;
SELECT shell('rm -rf ' || :'keys') \g /dev/null


-- ------------------------------------------------------ the key is in no message

SELECT is(state, expected, 'refused: ' || what) FROM (VALUES
	('a key on a server', 'HV00D', $$CREATE SERVER s FOREIGN DATA WRAPPER convex_fdw OPTIONS (deployment_url 'https://example.com', deploy_key 'K')$$),
	('a key file on a server', 'HV00D', $$CREATE SERVER s FOREIGN DATA WRAPPER convex_fdw OPTIONS (deployment_url 'https://example.com', deploy_key_file 'K')$$),
	('a key on a table', 'HV00D', $$CREATE FOREIGN TABLE t (_id text) SERVER convex OPTIONS (deploy_key 'K')$$),
	('a key on a column', 'HV00D', $$CREATE FOREIGN TABLE t (_id text OPTIONS (deploy_key 'K')) SERVER convex$$),
	('a misspelt key', 'HV00D', $$ALTER USER MAPPING FOR CURRENT_USER SERVER convex OPTIONS (ADD deploy_kee 'K')$$),
	('a key with a space', '22023', $$ALTER USER MAPPING FOR CURRENT_USER SERVER convex OPTIONS (SET deploy_key 'K K')$$),
	('a key with a line break', '22023', $$ALTER USER MAPPING FOR CURRENT_USER SERVER convex OPTIONS (SET deploy_key E'K\r\nX-Header: 1')$$),
	('a key with a foreign letter', '22023', $$ALTER USER MAPPING FOR CURRENT_USER SERVER convex OPTIONS (SET deploy_key 'Ké')$$),
	('an empty key', '22023', $$ALTER USER MAPPING FOR CURRENT_USER SERVER convex OPTIONS (SET deploy_key '')$$),
	('a key that is too long', '22023', $$ALTER USER MAPPING FOR CURRENT_USER SERVER convex OPTIONS (SET deploy_key '$$ || repeat('K', 5000) || $$')$$),
	('a key beside a key file', '22023', $$ALTER USER MAPPING FOR CURRENT_USER SERVER convex OPTIONS (ADD deploy_key_file '/K')$$),
	('a key in a URL', '22023', $$ALTER SERVER convex OPTIONS (SET deployment_url 'https://K@example.com')$$),
	('a key as a URL', '22023', $$ALTER SERVER convex OPTIONS (SET deployment_url 'K')$$)
) AS wrong (what, expected, command), LATERAL ask(replace(command, 'K', emu.key()))
WHERE length(command) < 1000 OR what = 'a key that is too long';
SELECT ok(NOT key_in(told), 'and not told: ' || what) FROM (VALUES
	('a key on a server', $$CREATE SERVER s FOREIGN DATA WRAPPER convex_fdw OPTIONS (deployment_url 'https://example.com', deploy_key 'K')$$),
	('a key on a table', $$CREATE FOREIGN TABLE t (_id text) SERVER convex OPTIONS (deploy_key 'K')$$),
	('a key on a column', $$CREATE FOREIGN TABLE t (_id text OPTIONS (deploy_key 'K')) SERVER convex$$),
	('a misspelt key', $$ALTER USER MAPPING FOR CURRENT_USER SERVER convex OPTIONS (ADD deploy_kee 'K')$$),
	('a key with a space', $$ALTER USER MAPPING FOR CURRENT_USER SERVER convex OPTIONS (SET deploy_key 'K K')$$),
	('a key with a foreign letter', $$ALTER USER MAPPING FOR CURRENT_USER SERVER convex OPTIONS (SET deploy_key 'Ké')$$),
	('a key that is no path', $$CREATE USER MAPPING FOR security_reader SERVER convex OPTIONS (deploy_key_file 'K')$$),
	('a key in a URL', $$ALTER SERVER convex OPTIONS (SET deployment_url 'https://K@example.com')$$)
) AS wrong (what, command), LATERAL ask(replace(command, 'K', emu.key()));
SELECT matches(told_of($$CREATE SERVER s FOREIGN DATA WRAPPER convex_fdw OPTIONS (deployment_url 'https://example.com', deploy_key 'K')$$),
	'CREATE USER MAPPING', 'a key in the wrong place is refused with the right one');

-- Nor in what shows a scan.
CREATE FUNCTION explained(query text) RETURNS SETOF text LANGUAGE plpgsql AS
$$ BEGIN RETURN QUERY EXECUTE 'EXPLAIN (ANALYZE, VERBOSE, BUFFERS, SETTINGS, WAL) ' || query; END $$;
SELECT ok(NOT bool_or(key_in(line)), 'EXPLAIN shows no key') FROM explained('SELECT * FROM users') AS line;
SELECT ok(NOT bool_or(key_in(row::text)), 'convex_test_connection shows no key') FROM convex_test_connection('convex') AS row;
SELECT ok(NOT bool_or(key_in(row::text)), 'convex_fdw_get_connections shows no key') FROM convex_fdw_get_connections() AS row;
SELECT ok(NOT bool_or(key_in(row::text)), 'pg_stat_activity shows no key') FROM pg_stat_activity AS row;
SELECT ok(NOT bool_or(key_in(row::text)), 'no setting shows a key') FROM pg_settings AS row;
SELECT ok(NOT bool_or(key_in(row::text)), 'no memory context is named by a key') FROM pg_backend_memory_contexts AS row;

-- How the key travels: in one header, never in the URL.
SELECT emu.clear_journal() \g /dev/null
SELECT state_of('SELECT * FROM users'), state_of($$SELECT convex_tables('convex')$$), state_of($$SELECT convex_json_schemas('convex')$$) \g /dev/null
SELECT ok(bool_and(entry #>> '{headers,authorization}' = 'Convex ' || emu.key()), 'the key is sent as an authorization')
	FROM emu.journal() AS entry;
SELECT ok(NOT bool_or(key_in((entry #- '{headers,authorization}')::text)), 'and nowhere else') FROM emu.journal() AS entry;
SELECT ok(bool_and(entry #>> '{headers,convex-client}' ~ '^pg-convex-fdw-\d+\.\d+\.\d+$'), 'every request says who asks')
	FROM emu.journal() AS entry;

DROP OWNED BY security_plain, security_reader CASCADE;
DROP ROLE security_plain, security_reader;
SELECT * FROM finish();
