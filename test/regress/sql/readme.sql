--
-- What README.md tells a user to type. `make lint` fails when a statement of
-- the README is not here. The deployment is the emulator's sample.
--
\getenv emulator CONVEX_EMULATOR
\set deploy_key 'prod:happy-otter-123|' '0123456789abcdef'
\! curl -q -sS --noproxy '*' -o /dev/null -X POST "$CONVEX_EMULATOR/_emulator/reset"
\! curl -q -sS --noproxy '*' -o /dev/null "$CONVEX_EMULATOR/_emulator/seed" -d '{"seed": "demo"}'

-- Install
CREATE EXTENSION convex_fdw;

-- First rows
CREATE SERVER prod FOREIGN DATA WRAPPER convex_fdw
    OPTIONS (deployment_url :'emulator');
CREATE USER MAPPING FOR CURRENT_USER SERVER prod
    OPTIONS (deploy_key :'deploy_key');

-- the details differ from run to run
\o /dev/null
SELECT check_name, ok, detail, hint FROM convex_test_connection('prod');
\o
SELECT check_name, ok FROM convex_test_connection('prod')
WHERE check_name IN ('url', 'tls', 'key', 'plan', 'data:view', 'backups:import', 'selection', 'head');

CREATE SCHEMA app;
IMPORT FOREIGN SCHEMA convex FROM SERVER prod INTO app;

SELECT u.name, count(*) AS messages, max(m.sequence) AS last
FROM app.users u JOIN app.messages m ON m.author = u._id
GROUP BY u._id, u.name
ORDER BY messages DESC, u.name
LIMIT 3;

BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;
SELECT count(*) FROM app.users;
SELECT count(*) FROM app.messages;
SELECT convex_snapshot('prod') AS snapshot \gset
COMMIT;

-- a message changes
SELECT _id AS message FROM app.messages WHERE sequence = 7 \gset
\setenv MESSAGE :message
\! curl -q -sS --noproxy '*' -o /dev/null "$CONVEX_EMULATOR/_emulator/mutate" -d '{"ops": [{"op": "patch", "table": "messages", "id": "'"$MESSAGE"'", "doc": {"edited": true, "body": "Edited from outside."}}]}'

SET convex_fdw.snapshot = :'snapshot';
SELECT count(*) FROM app.messages WHERE edited;
RESET convex_fdw.snapshot;

SELECT table_name, deleted, document->>'body' AS body
FROM convex_changes('prod', :snapshot);

-- numbers that differ from run to run
\o /dev/null
EXPLAIN (ANALYZE, VERBOSE, COSTS OFF)
SELECT name FROM app.users WHERE active LIMIT 2;
\o
ANALYZE app.messages;

CREATE FOREIGN TABLE app.products (sku text, price numeric, stock integer)
    SERVER prod OPTIONS (primary_key 'sku');
SELECT convex_ensure_primary_key('app.products');

BEGIN;
INSERT INTO app.products VALUES ('a-1', 9.5, 10), ('b-2', 20, 0);
UPDATE app.products SET stock = stock - 1 WHERE sku = 'a-1';
DELETE FROM app.products WHERE stock = 0;
COMMIT;
SELECT sku, price, stock FROM app.products;

SELECT convex_create_subscription('crm', server => 'prod', tables => '{users,products}');
CALL convex_sync('crm');
SELECT count(*) FROM crm.users;
SELECT sku, price, stock FROM crm.products;
SELECT convex_drop_subscription('crm', drop_tables => true);

-- Limits
SELECT name FROM app.users ORDER BY name LIMIT 1 FOR UPDATE;
UPDATE app.users SET name = 'x';
DELETE FROM app.users;

ALTER USER MAPPING FOR CURRENT_USER SERVER prod
    OPTIONS (DROP deploy_key, ADD deploy_key_file '/etc/postgresql/convex.key');

-- leave an empty deployment
\! curl -q -sS --noproxy '*' -o /dev/null -X POST "$CONVEX_EMULATOR/_emulator/reset"
