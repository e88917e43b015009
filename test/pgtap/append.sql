-- Several foreign tables under one Append: partitions and UNION ALL, of one
-- deployment and of two, one after the other and asynchronously.

\ir lib/setup.sql
SELECT no_plan();

-- A second deployment, which lasts as long as this psql.
\set second `dir=$(mktemp -d) && { tail --pid=$PPID -s 0.2 -f /dev/null | python3 ../emulator/convex_emulator.py --seed none --port-file "$dir/port" --exit-with-stdin; rm -r "$dir"; } >/dev/null 2>&1 & dir=$(mktemp -d); echo`
SELECT * FROM finish();
