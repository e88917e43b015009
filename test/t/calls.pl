# CALL convex_sync in psql: it commits page by page, says how far it is, and is
# refused at once where it cannot be.

use strict;
use warnings;

use ConvexTest;
use Test::More;

my $emulator = ConvexTest::Emulator->new(args => [ '--page-limit', 50, '--delta-limit', 10 ]);
my $cluster = ConvexTest::Cluster->new;
$cluster->convex($emulator);
$emulator->insert('users', map { { n => $_ } } 1 .. 500);
$cluster->value(q{SELECT convex_create_subscription('app', 'convex')});

# -- what is refused, before any request ------------------------------------------

$emulator->clear_journal;
is($cluster->sqlstate(q{BEGIN; CALL convex_sync('app')}), '25001', 'it is refused within a transaction block');
is($cluster->sqlstate(q{SELECT 1\; CALL convex_sync('app')}), '25001', 'and beside another statement of its string');
is($cluster->sqlstate(q{CALL convex_sync('app', 0)}), '22023', 'pages must be some');
is($cluster->sqlstate(q{CALL convex_sync('nobody')}), '42704', 'the subscription must be there');
$cluster->value(q{SELECT convex_disable_subscription('app')});
is($cluster->sqlstate(q{CALL convex_sync('app')}), '55000', 'and enabled');
$cluster->value(q{SELECT convex_enable_subscription('app')});
is(scalar(my @requests = $emulator->journal), 0, 'nothing was sent');
is($cluster->value(q{DO $$ BEGIN CALL convex_sync('app', 1); END $$; SELECT rows FROM convex_stat_progress_snapshot}), '50', 'a DO block outside a transaction will do');

# -- commits per page, progress ---------------------------------------------------

# The fourth page that is asked for comes when the faults are gone.
$emulator->fault({ action => 'stall', path => '/api/list_snapshot', skip => 2, count => 1 });
my $call = $cluster->session;
$call->send(q{CALL convex_sync('app')});
$cluster->wait_until_sql('(SELECT rows = 150 FROM convex_stat_progress_snapshot)', 'others see each page that is loaded');
pass('others see each page that is loaded');
is($cluster->value('SELECT count(*) FROM convex_staging.s1_1'), '150', 'with its rows');
is($cluster->value('SELECT pages FROM convex_stat_progress_snapshot'), '3', 'and its count');

my $second = $cluster->session;
is($second->query(q{CALL convex_sync('app')}), '', 'a second call returns');
is($second->sqlstate, '55006', 'with 55006');
like($second->errors, qr/already running/, 'and says that it is running');
my $pid = $call->pid;
like($second->errors, qr/Process $pid /, 'in which process');
ok(!$call->is_done, 'while the first goes on');
$second->query('CALL convex_sync()');
is($second->sqlstate, '', 'a call for all subscriptions passes it over');
like($second->errors, qr/NOTICE.*already running/, 'and says so');

# It speaks when it has not done so for five seconds.
$cluster->wait_until_sql("(SELECT clock_timestamp() - query_start > '5.1 s' FROM pg_stat_activity WHERE pid = $pid)", 'some time passes');
$emulator->clear_faults;
is($call->finish, '', 'the call ends');
is($call->sqlstate, '', 'well');
like($call->errors, qr/NOTICE.*subscription "app": \d+ pages/, 'and has told how far it was');
is($cluster->value('SELECT count(*) FROM app.users'), '500', 'all is loaded');

# Changes commit page by page as well.
$emulator->insert('users', { n => 1000 + $_ }) for 1 .. 30;
$emulator->fault({ action => 'stall', path => '/api/document_deltas', skip => 2, count => 1 });
$call->send(q{CALL convex_sync('app')});
$cluster->wait_until_sql('(SELECT count(*) = 520 FROM app.users)', 'two pages of changes are visible');
pass('each page of changes is visible while the next is awaited');
is($cluster->value('SELECT caught_up FROM convex_stat_subscription'), 'f', 'the view tells that there is more');
my $head = $emulator->state->{head};
is($cluster->value("SELECT lag = ($head - applied_ts) / 1000 * interval '1 microsecond' AND lag > '0' FROM convex_stat_subscription"), 't', 'and how far the head is, in the time of Convex');
$emulator->clear_faults;
$call->finish;
is($call->sqlstate, '', 'the call ends well');
is($cluster->value('SELECT count(*) FROM app.users'), '530', 'with the rest');
is($cluster->value('SELECT lag FROM convex_stat_subscription'), '00:00:00', 'and there is no lag');

done_testing();
