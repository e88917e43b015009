# Targets that are not logged: a crash empties them, and they are loaded again
# before anybody is told that they are current.

use strict;
use warnings;

use ConvexTest;
use Test::More;

my $emulator = ConvexTest::Emulator->new;
my $cluster = ConvexTest::Cluster->new;
$cluster->convex($emulator);
$emulator->insert($_, map { { name => "first $_" } } 1 .. 20) for qw(users orders);
$emulator->mutate({ op => 'create_table', table => 'none' });
$cluster->value(q{SELECT convex_create_subscription('app', 'convex')});
$cluster->value(q{CALL convex_sync('app')});
$cluster->value('ALTER TABLE app.users SET UNLOGGED; ALTER TABLE app.none SET UNLOGGED; CHECKPOINT');
sub rows { return $cluster->value('SELECT (SELECT count(*) FROM app.users), (SELECT count(*) FROM app.orders), (SELECT count(*) FROM app.none)') }
is(rows(), '20|20|0', 'a mirror may be not logged');

$cluster->stop('immediate')->start;
is(rows(), '0|20|0', 'a crash empties it');
$emulator->insert('users', { name => 'later' });
$cluster->value(q{CALL convex_sync('app')});
is(rows(), '21|20|0', 'and it is loaded again, changes included');
is($cluster->value(q{SELECT string_agg(table_name || ' ' || detail, ', ') FROM convex_stat_subscription_event WHERE kind = 'resync'}),
	'users the target is not logged, and empty', 'which is told');
$cluster->value(q{CALL convex_sync('app')}) for 1 .. 2;
is($cluster->value(q{SELECT count(*) FROM convex_stat_subscription_event WHERE kind = 'resync'}), '1', 'once');

# One whose rows all came by changes.
$emulator->insert('none', { name => 'now' });
$cluster->value(q{CALL convex_sync('app')});
is(rows(), '21|20|1', 'a table that was empty gets rows');
$cluster->stop('immediate')->start;
$emulator->insert('none', { name => 'later' });
$cluster->value(q{CALL convex_sync('app')});
is(rows(), '21|20|2', 'and is mended, too');

# By a worker, and without waiting too short.
$cluster->stop('immediate')->start;
$cluster->value(q{SELECT convex_start_worker('app')});
is($cluster->value(q{SELECT convex_wait_for('app')}), 't', 'a worker is waited for');
is($cluster->value('SELECT count(*) FROM app.users'), '21', 'and what was loaded with rows is there');

done_testing();
