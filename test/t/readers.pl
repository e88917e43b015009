# Readers never see a torn Convex transaction or a half-loaded table: during the
# first load, deltas, resyncs and kills.  A walk that is killed goes on at the
# page where it was.
#
# CONVEX_WALK_DOCUMENTS says how large the long walk is.

use strict;
use warnings;

use ConvexTest;
use Test::More;
use Time::HiRes qw(time);

my $DOCUMENTS = $ENV{CONVEX_WALK_DOCUMENTS} // 100_000;
my $ACCOUNTS = 200;

my $emulator = ConvexTest::Emulator->new(args => [ '--page-limit', 40, '--delta-limit', 16 ]);
my $cluster = ConvexTest::Cluster->new(conf => "shared_preload_libraries = 'convex_fdw'\n");
$cluster->convex($emulator);
$emulator->config({ extra_latency_ms => 2 });

# Each transaction moves something from one table to the other.
my @left = $emulator->insert('left', map { { n => 1000 } } 1 .. $ACCOUNTS);
my @right = $emulator->insert('right', map { { n => 1000 } } 1 .. $ACCOUNTS);
my (%left, %right);
@left{@left} = @right{@right} = (1000) x $ACCOUNTS;

sub move
{
	my ($from, $to, $by) = ($left[ rand @left ], $right[ rand @right ], 1 + int rand 9);
	$left{$from} -= $by;
	$right{$to} += $by;
	return $emulator->mutate(
		{ op => 'patch', table => 'left', id => $from, doc => { n => $left{$from} } },
		{ op => 'patch', table => 'right', id => $to, doc => { n => $right{$to} } })->{ts};
}

# Readers note what they see that must not be; a session may die with the server.
$cluster->value(<<~'END');
	CREATE UNLOGGED TABLE seen (what text);
	CREATE PROCEDURE read_on() LANGUAGE plpgsql AS $$
	DECLARE
		found text;
	BEGIN
		LOOP
			SELECT count(*) || ' tables' INTO found FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
				WHERE n.nspname = 'app' AND c.relkind = 'r';
			IF found = '2 tables' THEN
				EXECUTE 'SELECT (SELECT sum(n) FROM app.left) + (SELECT sum(n) FROM app.right) || '' ''
					|| (SELECT count(*) FROM app.left) || '' '' || (SELECT count(*) FROM app.right)' INTO found;
			END IF;
			INSERT INTO seen SELECT found WHERE NOT EXISTS (SELECT FROM seen WHERE what IS NOT DISTINCT FROM found);
			COMMIT;
		END LOOP;
	END $$;
	END
my $GOOD = join ' ', 2 * 1000 * $ACCOUNTS, $ACCOUNTS, $ACCOUNTS;

my @readers;
my $read = sub { @readers = map { $cluster->session->send('CALL read_on()') } 1 .. 2 };
my $verdict = sub {
	my ($when) = @_;
	my $bad = $cluster->value("SELECT string_agg(DISTINCT what, ', ') FROM seen WHERE what NOT IN ('0 tables', '$GOOD')");
	is($bad, '', "no reader sees a broken sum or count $when");
	return;
};
local $SIG{PIPE} = 'IGNORE';

sub follow_until_caught_up
{
	my ($head) = @_;
	wait_until(
		sub { ($cluster->try_psql("SELECT applied_ts >= $head FROM convex_stat_subscription WHERE name = 'app'"))[1] eq 't' },
		"the mirror reaches $head", 60);
	return;
}

$read->();
$cluster->value(q{SELECT convex_create_subscription('app', 'convex', tables => '{left,right}', poll_interval => '50 ms', options => '{"idle_poll_interval": "50 ms"}')});
my $head;
$head = move() for 1 .. 100;
follow_until_caught_up($head);
is($cluster->value("SELECT EXISTS (SELECT FROM seen WHERE what = '$GOOD')"), 't', 'readers read');
$verdict->('during the first load and deltas');

$cluster->value(q{SELECT convex_resync_table('app', 'left')});
$head = move() for 1 .. 100;
follow_until_caught_up($head);
$cluster->wait_until_sql("(SELECT bool_and(state = 'ready' AND load IS NULL) FROM convex_stat_subscription_rel)", 'the resync ends');
$verdict->('during the resync of one table');

for my $round (1 .. 3)
{
	$head = move() for 1 .. 20;
	$cluster->value(q{SELECT convex_resync_table('app', 'right')}) if $round == 2;
	$cluster->value("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'convex_fdw worker'");
	$head = move() for 1 .. 20;
}
follow_until_caught_up($head);
$verdict->('while workers are terminated');

my (undef, $pid) = $cluster->try_psql("SELECT pid FROM pg_stat_activity WHERE backend_type = 'convex_fdw worker' LIMIT 1");
kill 'KILL', $pid if $pid;
wait_until(sub { ($cluster->try_psql('SELECT 1'))[0] == 0 }, 'the server recovers', 60);
eval { $_->quit } for @readers;

# The table of what was seen is empty after the crash.
$read->();
$head = move() for 1 .. 50;
follow_until_caught_up($head);
$cluster->wait_until_sql("EXISTS (SELECT FROM seen WHERE what = '$GOOD')", 'readers read again');
$verdict->('after a crash');
is($cluster->value('SELECT (SELECT sum(n) FROM app.left) = ' . eval { my $sum = 0; $sum += $_ for values %left; $sum }), 't', 'the mirror is the source');
for my $reader (@readers)
{
	$cluster->value('SELECT pg_terminate_backend(' . $reader->pid . ')');
	eval { $reader->quit };
}
$cluster->value(q{SELECT convex_drop_subscription('app', drop_tables => true)});

# -- a long walk, killed near its end -------------------------------------------

$emulator->config({ extra_latency_ms => 0, page_limit => 1024 });
$emulator->call('POST', '/_emulator/seed', { seed => "bench:$DOCUMENTS" });
my $pages = int(($DOCUMENTS + 1023) / 1024);
# Not so fast that the walk is over before it can be killed.
$emulator->call('POST', '/_emulator/config', { extra_latency_ms => 50 });

# The pages that a walk asked for, by their cursors, in order; not those of
# checks, which read ids alone.
sub walked
{
	return map { $_->{body}{cursor} // '' }
	  grep { ($_->{body}{selection}{''}{bench}{_other} // '') eq 'included' } $emulator->journal('/api/list_snapshot');
}

# Kills a walk near its end; gives how many pages are asked for again.
sub kill_walk
{
	my ($name) = @_;
	$emulator->clear_journal;

	# Its end takes long enough for it to be found there.
	$emulator->fault({ path => '/api/list_snapshot', skip => int(0.9 * $pages), count => -1, action => 'delay', ms => 50 });
	$cluster->value("SELECT convex_create_subscription('$name', 'convex', tables => '{bench}', poll_interval => '50 ms')");
	wait_until(sub { my @walked = walked(); @walked > 0.9 * $pages }, 'nine tenths are there', 300);
	my (undef, $victim) = $cluster->try_psql("SELECT pid FROM pg_stat_activity WHERE backend_type = 'convex_fdw worker'");
	ok($victim =~ /^\d+$/ && kill('KILL', $victim), "$name: a walk is killed near its end");
	wait_until(sub { !-e "/proc/$victim" }, 'it is gone');
	$emulator->clear_faults;
	my @before = walked();
	cmp_ok(scalar @before, '<', $pages, 'before its last page');
	wait_until(sub { ($cluster->try_psql("SELECT to_regclass('$name.bench') IS NOT NULL"))[1] eq 't' }, 'the walk ends', 300);
	is($cluster->value("SELECT count(*) FROM $name.bench"), $DOCUMENTS, 'the table is complete');
	my @after = walked();
	splice @after, 0, scalar @before;
	my $again = @before + @after - $pages;
	note("$name: $pages pages, " . @before . " asked for before the kill, $again of them again");
	is_deeply([ @after[ 0 .. $again - 1 ] ], [ @before[ -$again .. -1 ] ], 'it goes on with what was not written');
	my %all = map { $_ => 1 } @before, @after;
	is(scalar keys %all, $pages, 'and no other page is asked for again');
	$cluster->value("SELECT convex_drop_subscription('$name', drop_tables => true)");
	return $again;
}

# The page that was being written when the process died, and the one ahead,
# which had been asked for and not yet taken in.
cmp_ok(kill_walk('walk'), '<=', 2, 'at most the page under way and the one ahead are asked for again');
$cluster->append_conf('convex_fdw.prefetch = off')->reload;
cmp_ok(kill_walk('plain'), '<=', 1, 'without prefetch, at most the page under way');

done_testing();
