# How long after its commit a change is visible, and what that costs the server.
#
#	test/run/chapter test/bench/latency.pl
#
# Default settings; a document changes every CONVEX_LATENCY_INTERVAL (0.5)
# seconds for CONVEX_LATENCY_S (120) seconds. From the answer to the commit
# until another session sees it, to some 2 ms. Nobody asks the worker for
# anything meanwhile.

use strict;
use warnings;

use ConvexTest;
use Test::More;
use Time::HiRes qw(sleep time);

my $SECONDS = $ENV{CONVEX_LATENCY_S} // 120;
my $INTERVAL = $ENV{CONVEX_LATENCY_INTERVAL} // 0.5;
my $MEDIAN_S = 0.7;
my $P99_S = 1.5;
my $POLLS = 70;

my $emulator = ConvexTest::Emulator->new;
my $cluster = ConvexTest::Cluster->new(conf => "shared_preload_libraries = 'convex_fdw'");
$cluster->convex($emulator);
my ($id) = $emulator->insert('a', { n => 0 });
$cluster->value("SELECT convex_create_subscription('app', 'convex')");
is($cluster->value("SELECT convex_wait_for('app')"), 't', 'a worker follows');

my $count = int($SECONDS / $INTERVAL);
$cluster->value(<<~"END");
	CREATE TABLE seen (n int, at timestamptz);
	CREATE PROCEDURE watch() LANGUAGE plpgsql AS \$\$
	DECLARE
		last int := 0;
		present int;
	BEGIN
		WHILE last < $count LOOP
			SELECT n INTO present FROM app.a;
			IF present > last THEN
				INSERT INTO seen SELECT i, clock_timestamp() FROM generate_series(last + 1, present) AS i;
				last := present;
			END IF;
			COMMIT;
			PERFORM pg_sleep(0.002);
		END LOOP;
	END \$\$;
	END
my $watcher = $cluster->session;
$watcher->send('CALL watch()');
$emulator->clear_journal;
my $begun = time;
my @committed;
for my $n (1 .. $count)
{
	my $pause = $begun + $n * $INTERVAL - time;
	sleep($pause) if $pause > 0;
	$emulator->mutate({ op => 'patch', table => 'a', id => $id, doc => { n => $n } });
	$committed[$n] = time;
}
my $elapsed = time - $begun;
$watcher->finish(60);
my $polls = $emulator->journal('/api/document_deltas');
my %seen = map { split /\|/ } split /\n/, $cluster->value('SELECT n, extract(epoch FROM at) FROM seen');
my @latency = sort { $a <=> $b } map { $seen{$_} - $committed[$_] } 1 .. $count;
my ($median, $p99, $most) = @latency[ int($count * 0.5), int($count * 0.99), -1 ];
my $per_minute = $polls / $elapsed * 60;
diag(sprintf('%d commits, one each %s s: median %.3f s, p99 %.3f s, most %.3f s; %.1f polls a minute', $count, $INTERVAL, $median, $p99, $most, $per_minute));
cmp_ok($median, '<', $MEDIAN_S, "the median is below $MEDIAN_S s");
cmp_ok($p99, '<', $P99_S, "99 of 100 are below $P99_S s");
cmp_ok($per_minute, '<=', $POLLS, "at most $POLLS polls a minute");

done_testing();
