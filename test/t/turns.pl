# More subscriptions than workers take turns; where there are workers enough,
# nobody is disturbed; where nobody gives a place, convex_wait_for says so.

use strict;
use warnings;

use ConvexTest;
use Test::More;

my $emulator = ConvexTest::Emulator->new;
my $cluster = ConvexTest::Cluster->new(conf => <<~'END');
	shared_preload_libraries = 'convex_fdw'
	max_worker_processes = 16
	convex_fdw.max_workers = 4
	END
$cluster->convex($emulator, options => "max_retries '0'");
$emulator->insert('users', { name => 'ada' });

my @names = map { "s$_" } 1 .. 4;
$cluster->value("SELECT convex_create_subscription('$_', 'convex', tables => '{users}', target_schema => '$_', poll_interval => '100 ms', options => '{\"idle_poll_interval\": \"300 ms\"}')")
  for @names;
my $pids = q{SELECT string_agg(pid::text, ' ' ORDER BY name) FROM convex_stat_subscription WHERE worker = 'running'};
$cluster->wait_until_sql(q{(SELECT count(*) = 4 FROM convex_stat_subscription WHERE worker = 'running' AND pid IS NOT NULL AND phase = 'following')}, 'four run');
my $before = $cluster->value($pids);
$cluster->wait_until_sql(q{(SELECT min(since) < now() - interval '6 s' FROM convex_workers())}, 'longer than a turn');
is($cluster->value($pids), $before, 'where workers are enough each keeps its process');

# -- two workers for four --------------------------------------------------------------

my $log_size = $cluster->log_size;
$cluster->append_conf('convex_fdw.max_workers = 2')->reload;
$cluster->value('SELECT pg_terminate_backend(pid) FROM convex_workers() WHERE pid IS NOT NULL');
my $ada = $emulator->mutate({ op => 'insert', table => 'users', doc => { name => 'grace' } })->{ts};
is(join(' ', map { $cluster->value("SELECT convex_wait_for('$_', $ada)") } @names), 't t t t', 'each of four subscriptions comes to its turn with two workers');
is($cluster->value(join(' UNION ALL ', map { "SELECT count(*) FROM $_.users WHERE name = 'grace'" } @names)), join("\n", (1) x 4), 'and has the change');
my $most = 0;
my %seen;
wait_until(
	sub {
		my @rows = map { [ split /\|/ ] } split /\n/, $cluster->value('SELECT name, worker FROM convex_stat_subscription');
		my $running = grep { $_->[1] =~ /running|leaving|starting/ } @rows;
		$most = $running if $running > $most;
		$seen{ $_->[0] } = 1 for grep { $_->[1] eq 'running' } @rows;
		$seen{lacking} = 1 if grep { $_->[1] eq 'no free slot' } @rows;
		keys %seen == 5;
	},
	'all have run');
is($most, 2, 'never more than two run');
ok($seen{lacking}, 'the view says which wait for a slot');
my @told = $cluster->log_text($log_size) =~ /LOG:  could not start worker of subscription "(\w+)": all 2 workers are in use/g;
is(scalar(@told), keys %{ { map { $_ => 1 } @told } }, 'the log has each that waits once');
is(join(' ', map { $cluster->value("SELECT convex_start_worker('$_') > 0") } @names[ 0 .. 2 ]), 't t t', 'convex_start_worker waits for a turn');

# -- nobody gives a place ---------------------------------------------------------------

$emulator->clear_journal;
$emulator->fault({ path => '/api/document_deltas', action => 'stall', seconds => 120, count => -1 });
wait_until(sub { $emulator->journal('/api/document_deltas') >= 2 && $cluster->value(q{SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'convex_fdw worker' AND state = 'active'}) eq '2' }, 'two workers wait for Convex');
$cluster->wait_until_sql(q{EXISTS (SELECT FROM convex_stat_subscription WHERE worker = 'no free slot')}, 'one waits');
my $waiting = $cluster->value(q{SELECT name FROM convex_stat_subscription WHERE worker = 'no free slot' LIMIT 1});
my ($status, $out, $err) = $cluster->try_psql("SELECT convex_wait_for('$waiting', 9223372036854775807, '1 min')");
like($err, qr/ERROR:  55000: no process follows subscription "$waiting"/, 'without a place to come convex_wait_for fails');
like($err, qr/DETAIL:  convex_fdw.max_workers is 2, and none of the workers has caught up/, 'and names the setting');
$emulator->clear_faults;
$cluster->append_conf('convex_fdw.max_workers = 4')->reload;
$cluster->wait_until_sql(q{(SELECT count(*) = 4 FROM convex_stat_subscription WHERE worker = 'running')}, 'all run again');
pass('with more workers all run again');

# -- who sees what ------------------------------------------------------------------------

$cluster->value(q{CREATE ROLE stranger LOGIN; GRANT pg_read_all_stats TO stranger});
is($cluster->value(q{SET ROLE stranger; SELECT count(*) FROM convex_workers()}), '4', 'who reads all statistics sees all workers');
$cluster->value(q{REVOKE pg_read_all_stats FROM stranger});
is($cluster->value(q{SET ROLE stranger; SELECT count(*) FROM convex_workers()}), '0', 'others see those of their own subscriptions');

done_testing();
