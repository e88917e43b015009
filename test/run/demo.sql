\echo
\echo '-- A foreign server is one Convex deployment; the key belongs to the user mapping.'
CREATE EXTENSION convex_fdw;
CREATE SERVER convex FOREIGN DATA WRAPPER convex_fdw
	OPTIONS (deployment_url :'emulator');
CREATE USER MAPPING FOR CURRENT_USER SERVER convex
	OPTIONS (deploy_key :'deploy_key');

\echo
\echo '-- Its tables become foreign tables; a component is imported by its path.'
CREATE SCHEMA app;
IMPORT FOREIGN SCHEMA convex FROM SERVER convex INTO app;
CREATE SCHEMA billing;
IMPORT FOREIGN SCHEMA billing FROM SERVER convex INTO billing;
\d app.messages

\echo
\echo '-- Only the columns that are needed travel; LIMIT stops fetching.'
SELECT body, sent, reactions FROM app.messages WHERE reactions IS NOT NULL LIMIT 3;

\echo
\echo '-- Two tables and a local one, joined. Both scans read one Convex snapshot.'
CREATE TABLE office (city text PRIMARY KEY, country text);
INSERT INTO office VALUES ('London', 'GB'), ('New York', 'US'), ('Paris', 'FR');
BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;
SELECT u.name, o.country, count(*) AS messages, max(m.sequence) AS last
FROM app.users u
JOIN app.messages m ON m.author = u._id
JOIN office o ON o.city = u.address->>'city'
GROUP BY u._id, u.name, o.country
ORDER BY messages DESC, u.name
LIMIT 5;
SELECT convex_snapshot('convex') AS snapshot \gset
COMMIT;
\echo 'The snapshot was' :snapshot

\echo
\echo '-- What a scan costs: fields asked for, pages, bytes, time waited.'
EXPLAIN (ANALYZE, VERBOSE, COSTS OFF)
SELECT count(*), sum(total) FROM billing.invoices WHERE status = 'open';

\echo
\echo '-- Somebody else edits a message. The change log since our snapshot has it.'
SELECT _id AS message FROM app.messages WHERE sequence = 7 \gset
\setenv EMULATOR :emulator
\setenv MESSAGE :message
\! curl -q -sS --noproxy '*' "$EMULATOR/_emulator/mutate" -d '{"ops":[{"op":"patch","table":"messages","id":"'"$MESSAGE"'","doc":{"body":"Edited from outside."}}]}'
SELECT ts, table_name, id, deleted, document->>'body' AS body
FROM convex_changes('convex', :snapshot);
SELECT body FROM app.messages WHERE _id = :'message';

\echo
\echo '-- Write by key: everything leaves at COMMIT, as one Convex transaction.'
CREATE FOREIGN TABLE app.products (sku text, price numeric, stock integer, _id text)
	SERVER convex OPTIONS (primary_key 'sku');
SELECT convex_ensure_primary_key('app.products');
BEGIN;
INSERT INTO app.products (sku, price, stock) VALUES ('a-1', 9.5, 10), ('b-2', 20, 0);
UPDATE app.products SET stock = stock - 1 WHERE sku = 'a-1';
SELECT sku, price, stock FROM app.products;
COMMIT;
SELECT table_name, ts = max(ts) OVER () AS same_transaction, document->>'sku' AS sku, document->>'stock' AS stock
FROM convex_changes('convex', :snapshot, '{products}') WHERE id IS NOT NULL;

\echo
\echo '-- Follow: local tables that a background worker keeps up to date.'
SELECT convex_create_subscription('crm', server => 'convex', tables => '{users,products}');
SELECT convex_wait_for('crm');
SELECT count(*) AS users FROM crm.users;
UPDATE app.products SET stock = 5 WHERE sku = 'b-2';
SELECT convex_wait_for('crm');
SELECT sku, price, stock FROM crm.products ORDER BY sku;
SELECT name, phase, caught_up, lag FROM convex_stat_subscription;
