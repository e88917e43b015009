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

-- Limits
SELECT name FROM app.users ORDER BY name LIMIT 1 FOR UPDATE;
INSERT INTO app.users (name) VALUES ('x');
UPDATE app.users SET name = 'x';
DELETE FROM app.users;
TRUNCATE app.users;
COPY app.users (name) FROM stdin;
\.

ALTER USER MAPPING FOR CURRENT_USER SERVER prod
    OPTIONS (DROP deploy_key, ADD deploy_key_file '/etc/postgresql/convex.key');

-- leave an empty deployment
\! curl -q -sS --noproxy '*' -o /dev/null -X POST "$CONVEX_EMULATOR/_emulator/reset"
