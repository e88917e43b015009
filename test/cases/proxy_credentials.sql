-- A user and password in http_proxy stood readable for every role in
-- pg_foreign_server.  They are refused there, also when an earlier version has
-- stored them, and are set in the role's own user mapping.

\ir ../pgtap/lib/setup.sql
SELECT plan(16);

CREATE FUNCTION said(statement text) RETURNS text LANGUAGE sql AS
$$ SELECT concat_ws(' | ', f ->> 'sqlstate', f ->> 'message', nullif(f ->> 'detail', ''), nullif(f ->> 'hint', '')) FROM emu.failure(statement) AS f $$;

SELECT emu.server('convex', $$max_retries '0'$$) \g /dev/null
CREATE FOREIGN TABLE notes (_id text) SERVER convex;

SELECT is(said(format($$CREATE SERVER s FOREIGN DATA WRAPPER convex_fdw OPTIONS (deployment_url 'https://example.com', http_proxy %L)$$, proxy)),
	'22023 | option "http_proxy" must not hold a user or password | Set proxy_user and proxy_password in CREATE USER MAPPING.',
	'a proxy with credentials is refused at CREATE: ' || replace(proxy, 'topsecret', '..'))
FROM unnest(ARRAY['http://u:topsecret@127.0.0.1:1', 'u:topsecret@127.0.0.1:1', 'socks5h://u@127.0.0.1']) AS proxy;
SELECT matches(said($$ALTER SERVER convex OPTIONS (ADD http_proxy 'http://u:topsecret@127.0.0.1:1')$$), '^22023', 'and at ALTER');
SELECT is(said($$ALTER SERVER convex OPTIONS (ADD proxy_password 'topsecret')$$),
	'HV00D | option "proxy_password" belongs to a user mapping | Use CREATE USER MAPPING FOR CURRENT_USER SERVER ... OPTIONS (proxy_password ''...'').',
	'a password on a server is refused without being shown');

-- As an earlier version has left it.
UPDATE pg_foreign_server SET srvoptions = srvoptions || '{http_proxy=http://u:topsecret@127.0.0.1:1}'::text[] WHERE srvname = 'convex';
SELECT is(said('SELECT * FROM notes'),
	'22023 | option "http_proxy" must not hold a user or password | Set proxy_user and proxy_password in CREATE USER MAPPING.',
	'a stored proxy with credentials is not used');
SELECT ok((SELECT NOT bool_or(detail LIKE '%topsecret%') AND bool_or(NOT ok) FROM convex_test_connection('convex')),
	'and convex_test_connection does not show them');

-- What the proxy gets: the emulator stands in for it.
SELECT lives_ok(format($$ALTER SERVER convex OPTIONS (SET http_proxy %L, SET deployment_url 'http://127.0.0.1:1')$$, :'emulator'),
	'it can be set without them');
CREATE FUNCTION shown() RETURNS text LANGUAGE plpgsql AS
$$
BEGIN
	PERFORM emu.clear_journal(), said('SELECT * FROM notes');
	RETURN (SELECT string_agg(DISTINCT convert_from(decode(substr(r -> 'headers' ->> 'proxy-authorization', 7), 'base64'), 'UTF8'), ', ')
		FROM emu.journal() AS r WHERE r ->> 'path' LIKE 'http://127.0.0.1:1/api/%');
END
$$;
SELECT is(shown(), NULL, 'a proxy gets no credentials when there are none');
ALTER USER MAPPING FOR CURRENT_USER SERVER convex OPTIONS (ADD proxy_user 'u', ADD proxy_password 'topsecret');
SELECT is(shown(), 'u:topsecret', 'it gets those of the mapping');
ALTER USER MAPPING FOR CURRENT_USER SERVER convex OPTIONS (SET proxy_password 'another: @ one');
SELECT is(shown(), 'u:another: @ one', 'and new ones at once');
SELECT matches(said($$CREATE USER MAPPING FOR PUBLIC SERVER convex OPTIONS (proxy_password 'topsecret')$$), '^HV002 .* needs option "proxy_user"$',
	'a password needs a user');
SELECT matches(said(format($$CREATE USER MAPPING FOR PUBLIC SERVER convex OPTIONS (proxy_user %L)$$, name)), '^22023', 'a user cannot be ' || quote_literal(name))
FROM unnest(ARRAY['a:b', '', E'a\nb']) AS name;

-- A proxy that echoes them.
SELECT emu.fault(jsonb_build_object('path', 'http:', 'action', 'status', 'status', 407, 'body',
	'no entry for ' || encode('u:another: @ one', 'base64') || ' that is another: @ one')) \g /dev/null
SELECT ok(s LIKE '%no entry for%[key]%' AND s !~ 'another|YW5vdGhlcj', 'what a proxy echoes of them is not shown') FROM said('SELECT * FROM notes') AS s;

SELECT * FROM finish();
