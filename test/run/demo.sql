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
