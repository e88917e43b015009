# CPU time of workers that have nothing to do.
#
#	test/run/chapter test/bench/idle.pl
#
# CONVEX_IDLE_WORKERS (10) subscriptions with default settings, at rest at
# idle_poll_interval, for CONVEX_IDLE_S (60) seconds. Read from schedstat, which
# counts nanoseconds. The launcher is shown, too.

use strict;
use warnings;

use ConvexTest;
use Test::More;
use Time::HiRes qw(sleep time);

my $WORKERS = $ENV{CONVEX_IDLE_WORKERS} // 10;
my $SECONDS = $ENV{CONVEX_IDLE_S} // 60;
my $LIMIT_MS = 0.5;

my $emulator = ConvexTest::Emulator->new;
my $slots = $WORKERS + 4;
my $cluster = ConvexTest::Cluster->new(conf => <<~"END");
	shared_preload_libraries = 'convex_fdw'
	max_worker_processes = $slots
	convex_fdw.max_workers = $WORKERS
	log_min_messages = warning
	log_statement = none
	END
$cluster->convex($emulator);
$emulator->insert('users', map { { n => $_ } } 1 .. 1000);
$cluster->value("SELECT convex_create_subscription('s$_', 'convex', '{users}', target_schema => 's$_')") for 1 .. $WORKERS;
is($cluster->value("SELECT convex_wait_for('s$_')"), 't', "s$_ follows") for 1 .. $WORKERS;

# 1, 2, 4, 8 seconds, then every 10.
sleep(20);

sub cpu_ms { my ($pid) = @_; return (split ' ', ConvexTest::slurp("/proc/$pid/schedstat"))[0] / 1e6 }

my %pids = map { reverse split /\|/ } split /\n/, $cluster->value("SELECT pid, name FROM convex_workers() UNION ALL SELECT pid, 'launcher' FROM pg_stat_activity WHERE backend_type = 'convex_fdw launcher'");
$emulator->clear_journal;
my %before = map { $_ => cpu_ms($pids{$_}) } keys %pids;
my $begun = time;
sleep($SECONDS);
my $elapsed = time - $begun;
my %after = map { $_ => cpu_ms($pids{$_}) } keys %pids;
my @polls = $emulator->journal('/api/document_deltas');
my %ms = map { $_ => ($after{$_} - $before{$_}) / $elapsed } keys %pids;
note(sprintf('%-8s %.3f ms CPU a second', $_, $ms{$_})) for sort keys %ms;
my $sum = 0;
$sum += $ms{$_} for grep { $_ ne 'launcher' } keys %ms;
diag(sprintf('%d workers: %.3f ms CPU a second each, launcher %.3f, %.2f polls a second each',
		$WORKERS, $sum / $WORKERS, $ms{launcher}, @polls / $elapsed / $WORKERS));
cmp_ok($sum / $WORKERS, '<', $LIMIT_MS, "a worker at rest takes less than $LIMIT_MS ms of CPU a second");

done_testing();
