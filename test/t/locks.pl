# Subscriptions of many tables on a server with a small table of locks: loads,
# reloads and drops take it in portions.

use strict;
use warnings;

use ConvexTest;
use Test::More;

my $TABLES = $ENV{CONVEX_LOCK_TABLES} // 70;

# Room for some 130 locks, and what shared memory has left.
my $small = "max_locks_per_transaction = 10\nmax_connections = 10\nautovacuum_max_workers = 1\nmax_wal_senders = 0\nmax_worker_processes = 1\n";
my $emulator = ConvexTest::Emulator->new;
my $cluster = ConvexTest::Cluster->new(conf => $ENV{CONVEX_LOCK_TABLES} ? '' : $small);
$cluster->convex($emulator);
my @names = map { sprintf('t%04d', $_) } 1 .. $TABLES;
$emulator->mutate(map { { op => 'insert', table => $_, doc => { name => "first of $_" } } } @names);

sub states { return $cluster->value(q{SELECT string_agg(state || ' ' || n, ', ' ORDER BY state) FROM (SELECT state, count(*) AS n FROM convex_stat_subscription_rel GROUP BY state) AS s}) }
sub rows { return $cluster->value(q{SELECT sum((xpath('/row/n/text()', query_to_xml(format('SELECT count(*) AS n FROM %I.%I', target_schema, target_name), false, true, '')))[1]::text::int) FROM convex_stat_subscription_rel}) }

$cluster->value(q{SELECT convex_create_subscription('app', 'convex')});
$cluster->value(q{CALL convex_sync('app')});
is(states(), "ready $TABLES", 'all tables are loaded');
is($cluster->value(q{SELECT count(*) FROM convex_stat_subscription_event WHERE kind = 'table_joined'}), $TABLES, 'each once');
is($cluster->value(q{SELECT count(DISTINCT detail) FROM convex_stat_subscription_event WHERE kind = 'table_joined'}), '1', 'at one timestamp');
cmp_ok($cluster->value(q{SELECT count(DISTINCT xmin::text) FROM pg_class WHERE relnamespace = 'app'::regnamespace AND relkind = 'r'}), '>', 1, 'in several transactions');

# One Convex transaction that changes all of them, and then each by itself.
$emulator->mutate(map { { op => 'insert', table => $_, doc => { name => "second of $_" } } } @names[ 0 .. 14 ]);
$emulator->insert($_, { name => 'third' }) for @names[ 0 .. 59 ];
$cluster->value(q{CALL convex_sync('app')});
is(rows(), $TABLES + 15 + 60, 'changes of many tables arrive');

# A cursor that Convex no longer keeps: everything is loaded again.
$emulator->insert($names[0], { name => 'fourth' });
$cluster->value(q{SELECT emu.config(jsonb_build_object('retention_floor', (emu.state() ->> 'head')::bigint))});
$cluster->value(q{CALL convex_sync('app')});
like($cluster->value(q{SELECT string_agg(detail, ';') FROM convex_stat_subscription_event WHERE kind = 'resnapshot'}), qr/no longer keeps/, 'a cursor out of the window');
is(states(), "ready $TABLES", 'all tables are loaded again');
is(rows(), $TABLES + 15 + 61, 'with all rows');
is($cluster->value(q{SELECT count(*) FROM pg_class WHERE relnamespace = 'convex_staging'::regnamespace}), '0', 'no staging table is left');
$cluster->value(q{CALL convex_sync('app')});

# The end.
my ($status, undef, $error) = $cluster->try_psql(q{SELECT convex_drop_subscription('app', true)});
like($error, qr/53200.*HINT:  CALL convex_drop_tables\('app'\) first/s, 'too many to be dropped at once: the hint names how');
is($cluster->sqlstate(q{BEGIN; CALL convex_drop_tables('app')}), '25001', 'which is no matter of one transaction');
$cluster->value(q{CALL convex_drop_tables('app')});
is($cluster->value(q{SELECT count(*) FROM pg_class WHERE relnamespace = 'app'::regnamespace}), '0', 'all tables are dropped');
$cluster->value(q{SELECT convex_drop_subscription('app', true)});
is($cluster->value(q{SELECT count(*) FROM convex_stat_subscription}), '0', 'and so is the subscription');
unlike($cluster->log_text, qr/out of shared memory/, 'and never was the table of locks full');

done_testing();
