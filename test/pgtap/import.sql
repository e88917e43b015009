-- IMPORT FOREIGN SCHEMA: which tables, columns, types and comments it makes.

\ir lib/setup.sql
\pset fieldsep '\n'

SELECT no_plan();
SELECT emu.server() \g /dev/null

-- ---------------------------------------------------------------------------
-- Tools
-- ---------------------------------------------------------------------------

-- Imports into a schema made anew; gives its tables.
CREATE FUNCTION import(INTO schema name, clauses text DEFAULT '', options text DEFAULT '', component text DEFAULT 'convex', server text DEFAULT 'convex')
RETURNS SETOF text LANGUAGE sql AS '';
