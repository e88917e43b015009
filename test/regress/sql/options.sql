--
-- Options: what CREATE and ALTER take and refuse, and in which words
--
SET client_min_messages = warning;
DROP EXTENSION IF EXISTS convex_fdw CASCADE;
CREATE EXTENSION convex_fdw;
RESET client_min_messages;
\set SHOW_CONTEXT never
CREATE ROLE regress_convex_user;
CREATE ROLE regress_convex_reader IN ROLE pg_read_server_files;
GRANT USAGE ON FOREIGN DATA WRAPPER convex_fdw TO regress_convex_user, regress_convex_reader;

--
-- deployment_url
--
CREATE SERVER bad FOREIGN DATA WRAPPER convex_fdw;	-- required
\echo :LAST_ERROR_SQLSTATE
CREATE SERVER bad FOREIGN DATA WRAPPER convex_fdw OPTIONS (connect_timeout '1s');	-- still required
CREATE SERVER url FOREIGN DATA WRAPPER convex_fdw OPTIONS (deployment_url 'https://happy-otter-123.convex.cloud');
ALTER SERVER url OPTIONS (DROP deployment_url);	-- required
ALTER SERVER url OPTIONS (SET deployment_url 'https://happy-otter-123.convex.cloud/');
ALTER SERVER url OPTIONS (SET deployment_url 'HTTPS://Happy-Otter-123.Convex.Cloud');
ALTER SERVER url OPTIONS (SET deployment_url 'https://happy-otter-123.eu-west-1.convex.cloud');
ALTER SERVER url OPTIONS (SET deployment_url 'https://happy-otter-123.convex.cloud:443');
ALTER SERVER url OPTIONS (SET deployment_url 'https://convex.example.com:3210/');
ALTER SERVER url OPTIONS (SET deployment_url 'https://10.0.0.5:65535');
ALTER SERVER url OPTIONS (SET deployment_url 'https://[2001:db8::1]');
ALTER SERVER url OPTIONS (SET deployment_url 'https://[2001:db8::1]:3210');
ALTER SERVER url OPTIONS (SET deployment_url 'https://my_host');
-- plain http for loopback only
ALTER SERVER url OPTIONS (SET deployment_url 'http://127.0.0.1:3210');
ALTER SERVER url OPTIONS (SET deployment_url 'http://127.1.2.3');
ALTER SERVER url OPTIONS (SET deployment_url 'http://[::1]:3210');
ALTER SERVER url OPTIONS (SET deployment_url 'http://localhost:3210');
ALTER SERVER url OPTIONS (SET deployment_url 'http://app.localhost');
ALTER SERVER url OPTIONS (SET deployment_url 'http://happy-otter-123.convex.cloud');
ALTER SERVER url OPTIONS (SET deployment_url 'http://10.0.0.5:3210');
ALTER SERVER url OPTIONS (SET deployment_url 'http://[fe80::1]');
ALTER SERVER url OPTIONS (SET deployment_url 'http://localhost.example.com');
ALTER SERVER url OPTIONS (SET deployment_url 'http://127.0.0.1.example.com');
ALTER SERVER url OPTIONS (SET deployment_url 'http://10.0.0.5:3210', ADD allow_insecure_http 'true');
ALTER SERVER url OPTIONS (DROP allow_insecure_http);
ALTER SERVER url OPTIONS (SET deployment_url 'https://happy-otter-123.convex.cloud', SET allow_insecure_http 'false');
-- not only scheme, host and port
ALTER SERVER url OPTIONS (SET deployment_url '');
ALTER SERVER url OPTIONS (SET deployment_url 'happy-otter-123.convex.cloud');
ALTER SERVER url OPTIONS (SET deployment_url 'happy-otter-123');
ALTER SERVER url OPTIONS (SET deployment_url 'ftp://happy-otter-123.convex.cloud');
ALTER SERVER url OPTIONS (SET deployment_url 'https://');
ALTER SERVER url OPTIONS (SET deployment_url 'https:///api');
ALTER SERVER url OPTIONS (SET deployment_url 'https://:3210');
ALTER SERVER url OPTIONS (SET deployment_url 'https://happy-otter-123.convex.cloud/api');
ALTER SERVER url OPTIONS (SET deployment_url 'https://happy-otter-123.convex.cloud//');
ALTER SERVER url OPTIONS (SET deployment_url 'https://happy-otter-123.convex.cloud?adminKey=secret-in-the-url');
ALTER SERVER url OPTIONS (SET deployment_url 'https://happy-otter-123.convex.cloud/?adminKey=secret-in-the-url');
ALTER SERVER url OPTIONS (SET deployment_url 'https://happy-otter-123.convex.cloud#top');
ALTER SERVER url OPTIONS (SET deployment_url 'https://user:secret-in-the-url@happy-otter-123.convex.cloud');
ALTER SERVER url OPTIONS (SET deployment_url 'https://user@happy-otter-123.convex.cloud');
ALTER SERVER url OPTIONS (SET deployment_url 'https://happy-otter-123.convex.cloud\@example.com');
ALTER SERVER url OPTIONS (SET deployment_url 'https://happy otter.convex.cloud');
ALTER SERVER url OPTIONS (SET deployment_url e'https://happy-otter-123.convex.cloud\r\nX-Header: 1');
ALTER SERVER url OPTIONS (SET deployment_url ' https://happy-otter-123.convex.cloud');
ALTER SERVER url OPTIONS (SET deployment_url 'https://happy-otter-123.convex.cloud ');
ALTER SERVER url OPTIONS (SET deployment_url 'https://happy%2dotter.convex.cloud');
ALTER SERVER url OPTIONS (SET deployment_url 'https://hoooooooooooooooooooooooooooooooooooooooooooooooooooooooooooooooooooooooooooooooooooooooooooooooooooooooooooooooooooooooooooooooooooooooooooooooooooooooooooooooooooooooooooooooooooooooooooooooooooooooooooooooooooooooooooooooooooooooooooooooooooooooooooooo');
-- a host of empty labels; a dot at the end would get round what is checked of Convex's hosts
ALTER SERVER url OPTIONS (SET deployment_url 'https://.');
ALTER SERVER url OPTIONS (SET deployment_url 'https://a..b');
ALTER SERVER url OPTIONS (SET deployment_url 'https://happy-otter-123.convex.site.');
ALTER SERVER url OPTIONS (SET deployment_url 'https://happy-otter-123.convex.cloud.');
-- ports
ALTER SERVER url OPTIONS (SET deployment_url 'https://localhost:0');
ALTER SERVER url OPTIONS (SET deployment_url 'https://localhost:65536');
ALTER SERVER url OPTIONS (SET deployment_url 'https://localhost:4294967297');
ALTER SERVER url OPTIONS (SET deployment_url 'https://localhost:');
ALTER SERVER url OPTIONS (SET deployment_url 'https://localhost:http');
ALTER SERVER url OPTIONS (SET deployment_url 'https://localhost:-1');
ALTER SERVER url OPTIONS (SET deployment_url 'https://localhost:80x');
-- IPv6
ALTER SERVER url OPTIONS (SET deployment_url 'https://[::1');
ALTER SERVER url OPTIONS (SET deployment_url 'https://[]');
ALTER SERVER url OPTIONS (SET deployment_url 'https://[localhost]');
ALTER SERVER url OPTIONS (SET deployment_url 'https://::1');
ALTER SERVER url OPTIONS (SET deployment_url 'https://[fe80::1%25eth0]');
-- HTTP actions live elsewhere
ALTER SERVER url OPTIONS (SET deployment_url 'https://happy-otter-123.convex.site');
\echo :LAST_ERROR_SQLSTATE
ALTER SERVER url OPTIONS (SET deployment_url 'https://happy-otter-123.eu-west-1.convex.site:443/');
ALTER SERVER url OPTIONS (SET deployment_url 'https://HAPPY-OTTER-123.CONVEX.SITE');
DROP SERVER url;

--
-- Durations, sizes, numbers
--
CREATE SERVER good FOREIGN DATA WRAPPER convex_fdw OPTIONS (deployment_url 'https://happy-otter-123.convex.cloud',
	connect_timeout '500ms', request_timeout '6min', idle_timeout '1.5 s', max_retries '0', max_retry_wait '2h', max_response_size '4GB',
	batch_size '16000', batch_bytes '8MB', flush 'statement', updatable 'false', truncatable 'off', conflict_check 'no', async_capable '0',
	fdw_startup_cost '0', fdw_tuple_cost '1e-3', json_values 'encoded', on_conversion_error 'null', nul_handling 'strip',
	ca_file '/etc/ssl/certs/ca-certificates.crt', allow_insecure_http 'false', http_proxy 'http://127.0.0.1:8080', allow_key_mismatch 'true');
SELECT unnest(srvoptions) FROM pg_foreign_server WHERE srvname = 'good';
ALTER SERVER good OPTIONS (SET connect_timeout '0', SET request_timeout '1d', SET batch_size '1', SET batch_bytes '1kB', SET max_response_size '1MB');
ALTER SERVER good OPTIONS (SET connect_timeout '10');	-- a unit is missing
\echo :LAST_ERROR_SQLSTATE
ALTER SERVER good OPTIONS (SET idle_timeout '1.5');
ALTER SERVER good OPTIONS (SET idle_timeout ' 30 ');
ALTER SERVER good OPTIONS (SET idle_timeout '1e3');
ALTER SERVER good OPTIONS (SET idle_timeout '0x10');
ALTER SERVER good OPTIONS (SET max_response_size '268435456');
ALTER SERVER good OPTIONS (SET batch_bytes '4096');
ALTER SERVER good OPTIONS (SET connect_timeout '');
ALTER SERVER good OPTIONS (SET connect_timeout 'soon');
ALTER SERVER good OPTIONS (SET connect_timeout '10 parsecs');
ALTER SERVER good OPTIONS (SET connect_timeout '10MB');
ALTER SERVER good OPTIONS (SET connect_timeout '-1s');
ALTER SERVER good OPTIONS (SET connect_timeout '25h');
ALTER SERVER good OPTIONS (SET request_timeout '1000000d');
ALTER SERVER good OPTIONS (SET max_response_size '0');	-- never unlimited
ALTER SERVER good OPTIONS (SET max_response_size '-1');
ALTER SERVER good OPTIONS (SET max_response_size '5GB');
ALTER SERVER good OPTIONS (SET max_response_size '10s');
ALTER SERVER good OPTIONS (SET max_retries '-1');
ALTER SERVER good OPTIONS (SET max_retries '1001');
ALTER SERVER good OPTIONS (SET max_retries 'many');
ALTER SERVER good OPTIONS (SET batch_size '0');
ALTER SERVER good OPTIONS (SET batch_size '16001');
ALTER SERVER good OPTIONS (SET batch_bytes '9MB');
ALTER SERVER good OPTIONS (SET fdw_startup_cost '-1');
ALTER SERVER good OPTIONS (SET fdw_tuple_cost 'NaN');
ALTER SERVER good OPTIONS (SET fdw_tuple_cost 'cheap');
-- words
ALTER SERVER good OPTIONS (SET updatable 'perhaps');
ALTER SERVER good OPTIONS (SET updatable '');
ALTER SERVER good OPTIONS (SET flush 'rollback');
ALTER SERVER good OPTIONS (SET flush 'commit, statement');
ALTER SERVER good OPTIONS (SET json_values 'Clean');
ALTER SERVER good OPTIONS (SET on_conversion_error 'nul');
ALTER SERVER good OPTIONS (SET nul_handling '');
\echo :LAST_ERROR_SQLSTATE

--
-- Names of options
--
ALTER SERVER good OPTIONS (ADD conect_timeout '1s');
\echo :LAST_ERROR_SQLSTATE
ALTER SERVER good OPTIONS (ADD "Deployment_URL" 'x');
ALTER SERVER good OPTIONS (ADD url 'x');
ALTER SERVER good OPTIONS (ADD table_name 'messages');	-- an option of tables
ALTER SERVER good OPTIONS (ADD "" 'x');
ALTER FOREIGN DATA WRAPPER convex_fdw OPTIONS (ADD connect_timeout '1s');
-- a key that is put into the wrong place is not shown again
ALTER SERVER good OPTIONS (ADD deploy_key 'prod:happy-otter-123|misplaced');
\echo :LAST_ERROR_SQLSTATE
ALTER SERVER good OPTIONS (ADD deploy_key_file '/misplaced');
ALTER SERVER good OPTIONS (ADD deploykey 'prod:happy-otter-123|misplaced');
ALTER FOREIGN DATA WRAPPER convex_fdw OPTIONS (ADD deploy_key 'prod:happy-otter-123|misplaced');
CREATE FOREIGN TABLE bad (_id text) SERVER good OPTIONS (deploy_key 'prod:happy-otter-123|misplaced');
CREATE FOREIGN TABLE bad (_id text OPTIONS (deploy_key 'prod:happy-otter-123|misplaced')) SERVER good;

--
-- User mappings
--
CREATE USER MAPPING FOR PUBLIC SERVER good;	-- keys may come later
DROP USER MAPPING FOR PUBLIC SERVER good;
CREATE USER MAPPING FOR CURRENT_USER SERVER good OPTIONS (deploy_key 'prod:happy-otter-123|mapped');
ALTER USER MAPPING FOR CURRENT_USER SERVER good OPTIONS (SET deploy_key 'dev:happy-otter-123|eyJ2MiI6ICJiYXNlNjQifQ==');
ALTER USER MAPPING FOR CURRENT_USER SERVER good OPTIONS (SET deploy_key 'preview:team:project|mapped');
ALTER USER MAPPING FOR CURRENT_USER SERVER good OPTIONS (SET deploy_key 'self-hosted|0123');
ALTER USER MAPPING FOR CURRENT_USER SERVER good OPTIONS (SET deploy_key 'plain-access-token');
ALTER USER MAPPING FOR CURRENT_USER SERVER good OPTIONS (ADD deploy_kei 'prod:happy-otter-123|misspelled');
\echo :LAST_ERROR_SQLSTATE
ALTER USER MAPPING FOR CURRENT_USER SERVER good OPTIONS (ADD password 'prod:happy-otter-123|misspelled');
ALTER USER MAPPING FOR CURRENT_USER SERVER good OPTIONS (ADD connect_timeout '1s');
ALTER USER MAPPING FOR CURRENT_USER SERVER good OPTIONS (SET deploy_key '');
ALTER USER MAPPING FOR CURRENT_USER SERVER good OPTIONS (SET deploy_key 'prod:happy otter|misspelled');
ALTER USER MAPPING FOR CURRENT_USER SERVER good OPTIONS (SET deploy_key e'prod:happy-otter-123|misspelled\n');
ALTER USER MAPPING FOR CURRENT_USER SERVER good OPTIONS (SET deploy_key 'prod:happy-otter-123|mißspelled');
\echo :LAST_ERROR_SQLSTATE
ALTER USER MAPPING FOR CURRENT_USER SERVER good OPTIONS (ADD deploy_key_file '/etc/convex/key');	-- one of the two
ALTER USER MAPPING FOR CURRENT_USER SERVER good OPTIONS (DROP deploy_key, ADD deploy_key_file 'key');	-- an absolute path
ALTER USER MAPPING FOR CURRENT_USER SERVER good OPTIONS (DROP deploy_key, ADD deploy_key_file '/etc/convex/key');
DROP USER MAPPING FOR CURRENT_USER SERVER good;

--
-- Tables
--
CREATE FOREIGN TABLE good (_id text COLLATE "C", "_creationTime" timestamptz, body text OPTIONS (nulls 'null') NOT NULL,
	city text OPTIONS (column_name 'address.city', path 'true'), "user" text OPTIONS (column_name 'user name', convex_type 'id'),
	document jsonb OPTIONS (column_name '*')) SERVER good OPTIONS (table_name 'Messages', component 'billing/ledger',
	primary_key 'id, tenant.id', import_route 'airbyte', batch_size '500', batch_bytes '1MB', flush 'commit', updatable 'true', truncatable 'true',
	conflict_check 'true', async_capable 'true', fdw_startup_cost '10', fdw_tuple_cost '0.1', json_values 'clean', on_conversion_error 'error', nul_handling 'replace');
\d good
-- options of servers are not options of tables
ALTER FOREIGN TABLE good OPTIONS (ADD connect_timeout '1s');
ALTER FOREIGN TABLE good OPTIONS (ADD tabel_name 'messages');
ALTER FOREIGN TABLE good OPTIONS (ADD column_name 'messages');
ALTER FOREIGN TABLE good OPTIONS (SET batch_bytes '1');
-- names of tables
ALTER FOREIGN TABLE good OPTIONS (SET table_name '_storage');
\echo :LAST_ERROR_SQLSTATE
ALTER FOREIGN TABLE good OPTIONS (SET table_name '');
ALTER FOREIGN TABLE good OPTIONS (SET table_name 'my table');
ALTER FOREIGN TABLE good OPTIONS (SET table_name '1st');
ALTER FOREIGN TABLE good OPTIONS (SET table_name 'größe');
ALTER FOREIGN TABLE good OPTIONS (SET table_name 'a/b');
ALTER FOREIGN TABLE good OPTIONS (SET table_name 'a123456789012345678901234567890123456789012345678901234567890123');
ALTER FOREIGN TABLE good OPTIONS (SET table_name 'a1234567890123456789012345678901234567890123456789012345678901234');
-- components
ALTER FOREIGN TABLE good OPTIONS (SET component '');
ALTER FOREIGN TABLE good OPTIONS (SET component '_private');
ALTER FOREIGN TABLE good OPTIONS (SET component '/');
ALTER FOREIGN TABLE good OPTIONS (SET component 'billing/');
ALTER FOREIGN TABLE good OPTIONS (SET component '/billing');
ALTER FOREIGN TABLE good OPTIONS (SET component 'billing//ledger');
ALTER FOREIGN TABLE good OPTIONS (SET component 'billing.ledger');
-- keys
ALTER FOREIGN TABLE good OPTIONS (SET primary_key 'id');
ALTER FOREIGN TABLE good OPTIONS (SET primary_key 'a,b.c,d.e.f');
ALTER FOREIGN TABLE good OPTIONS (SET primary_key '');
ALTER FOREIGN TABLE good OPTIONS (SET primary_key 'a,');
ALTER FOREIGN TABLE good OPTIONS (SET primary_key ',a');
ALTER FOREIGN TABLE good OPTIONS (SET primary_key 'a b');
ALTER FOREIGN TABLE good OPTIONS (SET primary_key 'a..b');
ALTER FOREIGN TABLE good OPTIONS (SET primary_key 'a.');
ALTER FOREIGN TABLE good OPTIONS (SET primary_key '_id');
ALTER FOREIGN TABLE good OPTIONS (SET primary_key 'a,_creationTime');
ALTER FOREIGN TABLE good OPTIONS (SET primary_key 'a,b,a');
ALTER FOREIGN TABLE good OPTIONS (SET primary_key 'a.b, a.b');
ALTER FOREIGN TABLE good OPTIONS (SET primary_key 'a,b,c,d,e,f,g,h,i,j,k,l,m,n,o');
ALTER FOREIGN TABLE good OPTIONS (SET primary_key 'a,b,c,d,e,f,g,h,i,j,k,l,m,n,o,p');
ALTER FOREIGN TABLE good OPTIONS (SET import_route 'kafka');

--
-- Columns
--
ALTER FOREIGN TABLE good ALTER body OPTIONS (ADD column_name '');
ALTER FOREIGN TABLE good ALTER body OPTIONS (SET column_name 'a.b "c" \ ''d'' {}');
ALTER FOREIGN TABLE good ALTER body OPTIONS (SET column_name '_creationTime');
ALTER FOREIGN TABLE good ALTER body OPTIONS (SET column_name 'größe');
\echo :LAST_ERROR_SQLSTATE
ALTER FOREIGN TABLE good ALTER body OPTIONS (SET column_name '$body');
ALTER FOREIGN TABLE good ALTER body OPTIONS (SET column_name '_body');
ALTER FOREIGN TABLE good ALTER body OPTIONS (SET column_name e'a\tb');
DO $$ BEGIN EXECUTE format('ALTER FOREIGN TABLE good ALTER body OPTIONS (SET column_name %L)', repeat('x', 1024)); END $$;
DO $$ BEGIN EXECUTE format('ALTER FOREIGN TABLE good ALTER body OPTIONS (SET column_name %L)', repeat('x', 1025));
EXCEPTION WHEN invalid_parameter_value THEN RAISE 'a name of 1025 bytes is refused'; END $$;
ALTER FOREIGN TABLE good ALTER city OPTIONS (SET column_name 'address._city.$');
ALTER FOREIGN TABLE good ALTER city OPTIONS (SET column_name '_address.city');
ALTER FOREIGN TABLE good ALTER city OPTIONS (SET column_name 'address..city');
ALTER FOREIGN TABLE good ALTER city OPTIONS (SET column_name '.city');
ALTER FOREIGN TABLE good ALTER city OPTIONS (SET column_name 'city.');
ALTER FOREIGN TABLE good ALTER city OPTIONS (SET column_name '');
ALTER FOREIGN TABLE good ALTER city OPTIONS (SET column_name 'address._city');
ALTER FOREIGN TABLE good ALTER city OPTIONS (SET column_name 'address');
ALTER FOREIGN TABLE good ALTER city OPTIONS (SET path 'a.b');
ALTER FOREIGN TABLE good ALTER city OPTIONS (ADD nulls 'maybe');
ALTER FOREIGN TABLE good ALTER city OPTIONS (ADD convex_type 'decimal');
ALTER FOREIGN TABLE good ALTER city OPTIONS (ADD convex_type 'int64');
ALTER FOREIGN TABLE good ALTER city OPTIONS (ADD column_nam 'city');
ALTER FOREIGN TABLE good ALTER city OPTIONS (ADD table_name 'city');
-- what needs the column's type, or its name, is seen at first use
CREATE FOREIGN TABLE document_as_text (document text OPTIONS (column_name '*')) SERVER good;
CREATE FOREIGN TABLE "no such name" (_id text) SERVER good;
CREATE FOREIGN TABLE no_such_field ("größe" text) SERVER good;
SET client_min_messages = warning;
DROP SERVER good CASCADE;

--
-- Rights
--
SET ROLE regress_convex_user;
CREATE SERVER mine FOREIGN DATA WRAPPER convex_fdw OPTIONS (deployment_url 'https://happy-otter-123.convex.cloud', connect_timeout '1s');
ALTER SERVER mine OPTIONS (ADD ca_file '/etc/hostname');
\echo :LAST_ERROR_SQLSTATE
ALTER SERVER mine OPTIONS (ADD allow_insecure_http 'true');
ALTER SERVER mine OPTIONS (ADD allow_insecure_http 'false');
ALTER SERVER mine OPTIONS (ADD http_proxy 'http://127.0.0.1:1');
ALTER SERVER mine OPTIONS (ADD allow_key_mismatch 'true');
ALTER SERVER mine OPTIONS (SET deployment_url 'http://10.0.0.5');
CREATE USER MAPPING FOR CURRENT_USER SERVER mine OPTIONS (deploy_key_file '/etc/hostname');
\echo :LAST_ERROR_SQLSTATE
CREATE USER MAPPING FOR CURRENT_USER SERVER mine OPTIONS (deploy_key 'prod:happy-otter-123|mapped');
ALTER SERVER mine OPTIONS (SET connect_timeout '2s');
RESET ROLE;
ALTER SERVER mine OPTIONS (ADD allow_insecure_http 'true');
ALTER USER MAPPING FOR regress_convex_user SERVER mine OPTIONS (DROP deploy_key, ADD deploy_key_file '/etc/convex/key');
SET ROLE regress_convex_user;
-- who alters an object needs the rights for all of its options
ALTER SERVER mine OPTIONS (SET connect_timeout '3s');
ALTER SERVER mine OPTIONS (SET deployment_url 'http://10.0.0.5');
ALTER SERVER mine OPTIONS (DROP allow_insecure_http);
ALTER SERVER mine OPTIONS (SET connect_timeout '3s');
ALTER USER MAPPING FOR CURRENT_USER SERVER mine OPTIONS (SET deploy_key_file '/etc/other');
ALTER USER MAPPING FOR CURRENT_USER SERVER mine OPTIONS (DROP deploy_key_file, ADD deploy_key 'prod:happy-otter-123|mapped');
RESET ROLE;
SET ROLE regress_convex_reader;
CREATE SERVER readers FOREIGN DATA WRAPPER convex_fdw OPTIONS (deployment_url 'https://happy-otter-123.convex.cloud', ca_file '/etc/ssl/certs/ca-certificates.crt');
CREATE USER MAPPING FOR CURRENT_USER SERVER readers OPTIONS (deploy_key_file '/etc/convex/key');
ALTER SERVER readers OPTIONS (ADD http_proxy 'http://127.0.0.1:1');
RESET ROLE;
DROP SERVER mine CASCADE;
DROP SERVER readers CASCADE;

--
-- Key and host, at first use: the key must name the deployment. A connection
-- that is tried ends at a proxy where nobody listens (HV00N).
--
CREATE SERVER first_use FOREIGN DATA WRAPPER convex_fdw OPTIONS (deployment_url 'https://happy-otter-123.convex.cloud', http_proxy 'http://127.0.0.1:1', max_retries '0');
CREATE FOREIGN TABLE messages (_id text, body text) SERVER first_use;
SELECT * FROM messages;	-- no mapping
CREATE USER MAPPING FOR CURRENT_USER SERVER first_use;
\set VERBOSITY sqlstate
SELECT * FROM messages;	-- no key: the server decides
ALTER USER MAPPING FOR CURRENT_USER SERVER first_use OPTIONS (ADD deploy_key 'prod:other-name-456|mapped');
\set VERBOSITY default
SELECT * FROM messages;
\set VERBOSITY sqlstate
ALTER USER MAPPING FOR CURRENT_USER SERVER first_use OPTIONS (SET deploy_key 'prod:happy-otter-1234|mapped');
SELECT * FROM messages;
ALTER USER MAPPING FOR CURRENT_USER SERVER first_use OPTIONS (SET deploy_key 'prod:happy-otter-123|mapped');
SELECT * FROM messages;
ALTER USER MAPPING FOR CURRENT_USER SERVER first_use OPTIONS (SET deploy_key 'dev:Happy-Otter-123|mapped');
SELECT * FROM messages;
ALTER USER MAPPING FOR CURRENT_USER SERVER first_use OPTIONS (SET deploy_key 'preview:team:project|mapped');
SELECT * FROM messages;
ALTER USER MAPPING FOR CURRENT_USER SERVER first_use OPTIONS (SET deploy_key 'project:team:project|mapped');
SELECT * FROM messages;
ALTER USER MAPPING FOR CURRENT_USER SERVER first_use OPTIONS (SET deploy_key 'other-name-456|mapped');
SELECT * FROM messages;
ALTER USER MAPPING FOR CURRENT_USER SERVER first_use OPTIONS (SET deploy_key 'access-token');
SELECT * FROM messages;
ALTER USER MAPPING FOR CURRENT_USER SERVER first_use OPTIONS (SET deploy_key 'prod:other-name-456|mapped');
SELECT * FROM messages;
ALTER SERVER first_use OPTIONS (ADD allow_key_mismatch 'true');
SELECT * FROM messages;
ALTER SERVER first_use OPTIONS (DROP allow_key_mismatch, SET deployment_url 'https://HAPPY-otter-123.eu-west-1.convex.cloud:443/');
SELECT * FROM messages;
ALTER SERVER first_use OPTIONS (SET deployment_url 'https://other-name-456.eu-west-1.convex.cloud');
SELECT * FROM messages;
ALTER SERVER first_use OPTIONS (SET deployment_url 'https://other.name.eu-west-1.convex.cloud');
SELECT * FROM messages;
ALTER SERVER first_use OPTIONS (SET deployment_url 'https://convex.example.com');
SELECT * FROM messages;
-- a table and a column that no option names
CREATE FOREIGN TABLE "no such name" (_id text) SERVER first_use;
CREATE FOREIGN TABLE no_such_field ("größe" text) SERVER first_use;
CREATE FOREIGN TABLE document_as_text (document text OPTIONS (column_name '*')) SERVER first_use;
\set VERBOSITY default
SELECT * FROM "no such name";
SELECT * FROM no_such_field;
SELECT * FROM document_as_text;
DROP SERVER first_use CASCADE;

--
-- deploy_key_file, at first use
--
CREATE SERVER key_file FOREIGN DATA WRAPPER convex_fdw OPTIONS (deployment_url 'https://happy-otter-123.convex.cloud', http_proxy 'http://127.0.0.1:1', max_retries '0');
CREATE FOREIGN TABLE messages (_id text, body text) SERVER key_file;
CREATE USER MAPPING FOR CURRENT_USER SERVER key_file OPTIONS (deploy_key_file '/nonexistent/key');
SELECT * FROM messages;
ALTER USER MAPPING FOR CURRENT_USER SERVER key_file OPTIONS (SET deploy_key_file '/');
SELECT * FROM messages;
ALTER USER MAPPING FOR CURRENT_USER SERVER key_file OPTIONS (SET deploy_key_file '/dev/null');
SELECT * FROM messages;
DROP SERVER key_file CASCADE;

REVOKE ALL ON FOREIGN DATA WRAPPER convex_fdw FROM regress_convex_user, regress_convex_reader;
DROP ROLE regress_convex_user, regress_convex_reader;
DROP EXTENSION convex_fdw;
