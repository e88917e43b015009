\pset format wrapped
\pset columns 110
\echo
\echo '-- A foreign server is one Convex deployment; the key belongs to the user mapping. U+0000, which text cannot hold, is shown as U+FFFD.'
CREATE EXTENSION convex_fdw;
CREATE SERVER convex FOREIGN DATA WRAPPER convex_fdw
	OPTIONS (deployment_url :'emulator', nul_handling 'replace');
CREATE USER MAPPING FOR CURRENT_USER SERVER convex
	OPTIONS (deploy_key :'deploy_key');

\echo
\echo '-- Its tables, with columns for their fields.'
CREATE SCHEMA app;
IMPORT FOREIGN SCHEMA convex FROM SERVER convex INTO app;
SELECT c.relname AS "table", string_agg(a.attname || ' ' || format_type(a.atttypid, a.atttypmod), ', ' ORDER BY a.attnum) AS columns
FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
WHERE c.relnamespace = 'app'::regnamespace
GROUP BY c.oid, c.relname ORDER BY c.relname;

\echo
\echo '-- How many documents each has, all at one snapshot.'
BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;
SELECT coalesce(string_agg(format('SELECT %L AS "table", count(*) AS documents FROM app.%I', c.relname, c.relname),
		E'\nUNION ALL ' ORDER BY c.relname), 'SELECT ''none'' AS "table"') || E'\nORDER BY 1'
FROM pg_class c WHERE c.relnamespace = 'app'::regnamespace AND c.relkind = 'f'
\gexec
SELECT convex_snapshot('convex') AS snapshot;
COMMIT;

\echo
\echo '-- One document of each.'
\x on
SELECT format('SELECT %L AS "table", * FROM app.%I LIMIT 1', c.relname, c.relname)
FROM pg_class c WHERE c.relnamespace = 'app'::regnamespace AND c.relkind = 'f' ORDER BY c.relname
\gexec
