-- convex_subscription_restored() as a trigger of another table, with a column owner_oid of another type, ended the server by
-- a segmentation fault. It is for the catalog's tables, whose columns it knows.

\ir ../pgtap/lib/setup.sql

SELECT plan(5);
CREATE TABLE mine (owner_oid text, enabled text);
CREATE TRIGGER restored BEFORE INSERT ON mine FOR EACH ROW EXECUTE FUNCTION convex_subscription_restored();
SELECT throws_ok($$ INSERT INTO mine VALUES ('a', 'b') $$, '39P01', NULL, 'another table cannot have the trigger of the catalog');
CREATE SCHEMA other;
CREATE TABLE other.convex_subscription (owner_oid text, enabled text);
CREATE TRIGGER restored BEFORE INSERT ON other.convex_subscription FOR EACH ROW EXECUTE FUNCTION convex_subscription_restored();
SELECT throws_ok($$ INSERT INTO other.convex_subscription VALUES ('a', 'b') $$, '39P01', NULL, 'whatever its name');
CREATE TABLE kept (owner_oid text);
CREATE TRIGGER restored BEFORE INSERT ON kept EXECUTE FUNCTION convex_subscription_restored();
SELECT throws_ok($$ INSERT INTO kept VALUES ('a') $$, '39P01', NULL, 'nor a trigger for each statement');
SELECT throws_ok($$ SELECT convex_subscription_restored() $$, '39P01', NULL, 'and it is no function to call');
SELECT emu.server() \g /dev/null
SELECT emu.insert('a', '{"x": "1"}') \g /dev/null
SELECT convex_create_subscription('s', 'convex', '{a}') \g /dev/null
CREATE TABLE backup AS SELECT * FROM convex_subscription;
DELETE FROM convex_subscription;
INSERT INTO convex_subscription SELECT * FROM backup;
SELECT results_eq('SELECT name, enabled, owner_oid FROM convex_subscription', $$ VALUES ('s'::name, false, 0::oid) $$, 'in the catalog it makes a restored subscription disabled');
SELECT * FROM finish();
