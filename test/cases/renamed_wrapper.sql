-- Whether a server is ours was asked of the wrapper's name in one place and of
-- the handler's name in two others, so after a rename some functions refused it.
-- It is ours when its wrapper's handler is our C function, whatever the names.

\ir ../pgtap/lib/setup.sql
SELECT plan(10);

SELECT emu.server('convex') \g /dev/null
SELECT emu.insert('notes', '{"n": 1}') \g /dev/null
CREATE FOREIGN TABLE notes (_id text, n float8) SERVER convex;

ALTER FOREIGN DATA WRAPPER convex_fdw RENAME TO ours;
SELECT lives_ok($$SELECT convex_tables('convex')$$, 'a function works after the wrapper was renamed');
SELECT lives_ok($$SELECT convex_create_subscription('one', 'convex', target_schema => 'one')$$, 'and a subscription can be created');
ALTER FUNCTION convex_fdw_handler() RENAME TO handler_of_convex;
SELECT lives_ok($$SELECT convex_tables('convex')$$, 'a function works after the handler was renamed');
SELECT lives_ok($$SELECT convex_create_subscription('two', 'convex', target_schema => 'two')$$, 'and a subscription can be created');
SELECT throws_ok($$UPDATE notes SET n = 2$$, '0A000', NULL, 'and what a table may do is known');

CREATE FOREIGN DATA WRAPPER second HANDLER handler_of_convex VALIDATOR convex_fdw_validator;
CREATE SERVER other FOREIGN DATA WRAPPER second OPTIONS (deployment_url 'http://127.0.0.1:1');
SELECT throws_ok($$SELECT convex_create_subscription('three', 'other')$$, '42704', NULL,
	'a server of another wrapper with the handler lacks nothing but a mapping');

-- One that only has the name is none.
CREATE FOREIGN DATA WRAPPER convex_fdw;
CREATE SERVER stranger FOREIGN DATA WRAPPER convex_fdw;
CREATE USER MAPPING FOR CURRENT_USER SERVER stranger;
SELECT throws_ok($$SELECT convex_create_subscription('four', 'stranger')$$, '42809', NULL, 'a server of a wrapper of that name is refused for a subscription');
SELECT throws_ok($$SELECT convex_tables('stranger')$$, '42809', NULL, 'and for a function');
CREATE FUNCTION convex_fdw_handler() RETURNS fdw_handler LANGUAGE internal AS 'fdw_handler_in';
CREATE FOREIGN DATA WRAPPER third HANDLER convex_fdw_handler;
CREATE SERVER namesake FOREIGN DATA WRAPPER third;
SELECT throws_ok($$SELECT convex_tables('namesake')$$, '42809', NULL, 'a handler of that name that is not ours is refused');
SELECT throws_ok($$SELECT convex_create_subscription('five', 'namesake')$$, '42809', NULL, 'in each place');

SELECT * FROM finish();
