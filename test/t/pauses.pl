# Somebody's request ends every pause: the launcher's before it starts a worker
# again, a failing worker's, and those of tables that wait by themselves.

use strict;
use warnings;

use ConvexTest;
use Test::More;

my $emulator = ConvexTest::Emulator->new;
my $cluster = ConvexTest::Cluster->new(conf => <<~'END');
	shared_preload_libraries = 'convex_fdw'
	max_worker_processes = 16
	convex_fdw.max_workers = 10
	END
$cluster->convex($emulator, options => "max_retries '0'");
$emulator->insert('users', { name => 'ada' });

# Polls that find nothing are an hour apart: what comes sooner was asked for.
my $RARE = q{poll_interval => '1 h', options => '{"idle_poll_interval": "1 h"}'};

sub subscription
{
	my ($name) = @_;
	$cluster->value("SELECT convex_create_subscription('$name', 'convex', tables => '{users}', target_schema => '$name', $RARE)");
	return;
}

# -- the launcher's pause after short lives ---------------------------------------

my %calls = (
	by_enable => q{SELECT convex_enable_subscription('by_enable')},
	by_alter => q{SELECT convex_alter_subscription('by_alter', poll_interval => '1 h')},
	by_refresh => q{SELECT convex_refresh_subscription('by_refresh')},
	by_resync => q{SELECT convex_resync_table('by_resync', 'users')},
	by_start => q{SELECT convex_start_worker('by_start')},
	by_wait => q{SELECT convex_wait_for('by_wait')},
);
subscription($_) for sort(keys %calls), 'nobody';
my $all = "(SELECT count(*) FROM convex_workers() WHERE state = 'running') = 7";
$cluster->wait_until_sql($all, 'seven workers run');
my %pids;
for my $life (1 .. 4)
{
	$cluster->wait_until_sql($all, "life $life");
	$cluster->value('SELECT pg_terminate_backend(pid) FROM convex_workers() WHERE pid IS NOT NULL');
	$cluster->wait_until_sql("NOT EXISTS (SELECT FROM convex_workers() WHERE state <> 'pausing')", "the ends of life $life") if $life == 4;
}
# One session, so that nothing lies between the calls.
my $session = $cluster->session;
my @back = split /\n/, $session->query(join(";\n", map({ $calls{$_} } sort keys %calls),
	q{DO $$ BEGIN WHILE (SELECT count(*) FROM convex_workers() WHERE pid IS NOT NULL AND name <> 'nobody') < 6 LOOP PERFORM pg_sleep(0.01); END LOOP; END $$},
	q{SELECT name || ' ' || state FROM convex_workers() ORDER BY name}));
is(join(', ', grep { /pausing/ } @back), 'nobody pausing', 'each request ends the pause of its own subscription');
$session->quit;

# -- a request during a step --------------------------------------------------------

$cluster->wait_until_sql($all, 'all are back');
$emulator->insert('users', { name => 'grace' });
is($cluster->value(qq{SELECT convex_wait_for('nobody')}), 't', 'an idle worker is woken');
$emulator->clear_journal;
$emulator->fault({ path => '/api/document_deltas', action => 'delay', ms => 1000, count => 1 });
$cluster->value(q{SELECT convex_refresh_subscription('by_enable')});
wait_until(sub { my @sent = $emulator->journal('/api/document_deltas'); scalar @sent }, 'its poll has begun');
$emulator->insert('users', { name => 'kay' });
is($cluster->value(q{SELECT convex_wait_for('by_enable')}), 't', 'a request that comes during a poll leads to another one');

# -- tables that wait by themselves ---------------------------------------------------

$cluster->value(q{ALTER TABLE by_wait.users ADD CONSTRAINT short CHECK (length(name) < 6)});
for my $call (
	q{SELECT convex_wait_for('by_wait', timeout => '30 s')},
	q{SELECT convex_enable_subscription('by_wait')},
	q{SELECT convex_alter_subscription('by_wait', poll_interval => '1 h')},
	q{SELECT convex_refresh_subscription('by_wait')},
	q{SELECT convex_start_worker('by_wait')},
	q{CALL convex_sync('by_wait')})
{
	my ($what) = $call =~ /(convex_\w+)/;
	$emulator->insert('users', { name => "too long for $what" });
	$cluster->value(q{SELECT convex_refresh_subscription('by_wait')});
	$cluster->wait_until_sql("EXISTS (SELECT FROM convex_stat_subscription_rel WHERE name = 'by_wait' AND state = 'error' AND retry_at IS NOT NULL)", 'the target refuses');
	# As after many attempts.
	$cluster->value(q{UPDATE convex_subscription_rel AS r SET retry_at = now() + interval '1 h' FROM convex_subscription AS s WHERE s.subid = r.subid AND s.name = 'by_wait'});
	$cluster->value(q{ALTER TABLE by_wait.users DROP CONSTRAINT short});
	$cluster->value($call);
	ok(eval { $cluster->wait_until_sql("EXISTS (SELECT FROM by_wait.users WHERE name = 'too long for $what')", 'it arrives') }, "$what ends the pause of a table");
	$cluster->value(q{BEGIN; LOCK TABLE by_wait.users; DELETE FROM by_wait.users WHERE length(name) >= 6; ALTER TABLE by_wait.users ADD CONSTRAINT short CHECK (length(name) < 6); COMMIT});
}

# A table that waits is tried when it is time, though nothing else is to be done.
$emulator->insert('users', { name => 'tried at its own time' });
$cluster->value(q{SELECT convex_refresh_subscription('by_wait')});
$cluster->wait_until_sql("EXISTS (SELECT FROM convex_stat_subscription_rel WHERE name = 'by_wait' AND state = 'error')", 'the target refuses');
$cluster->value(q{ALTER TABLE by_wait.users DROP CONSTRAINT short});
ok(eval { $cluster->wait_until_sql("EXISTS (SELECT FROM by_wait.users WHERE name = 'tried at its own time')", 'it arrives') },
	'a table is tried again when its pause is over, however rare the polls are');

# -- what is put off beside the changes -------------------------------------------------

# The first pause after a refused key is a minute, give or take a quarter.
my $refused = { path => '/api/get_table_column_names', action => 'status', status => 403, code => 'Forbidden', count => -1 };
for my $call (q{SELECT convex_wait_for('by_start', timeout => '30 s')}, q{SELECT convex_start_worker('by_start')}, q{CALL convex_sync('by_start')})
{
	my ($what) = $call =~ /(convex_\w+)/;
	$emulator->fault($refused);
	$cluster->value(q{SELECT convex_refresh_subscription('by_start')});
	$cluster->wait_until_sql("(SELECT next_attempt_at > now() + interval '30 s' FROM convex_stat_subscription WHERE name = 'by_start')", 'its check fails');
	$emulator->clear_faults;
	$cluster->value($call);
	ok(eval { $cluster->wait_until_sql("(SELECT NOT check_wanted FROM convex_subscription_state JOIN convex_subscription USING (subid) WHERE name = 'by_start')", 'it passes', deadline_s => 30) },
		"$what ends the pause of a check");
}

# -- who waits holds no lock on the catalog ---------------------------------------------

my $waiter = $cluster->session;
my $pid = $waiter->query('SELECT pg_backend_pid()');
$waiter->send(q{SELECT convex_wait_for('by_wait', 9223372036854775807, '10 min')});
$cluster->wait_until_sql("(SELECT wait_event_type = 'Extension' FROM pg_stat_activity WHERE pid = $pid)", 'it waits');
is($cluster->sqlstate('SET statement_timeout = 60000; DROP EXTENSION convex_fdw CASCADE') =~ /^no error \(status 0\)/ ? 1 : 0, 1, 'DROP EXTENSION does not wait for one who waits');
eval { $waiter->finish(60) };
# Between two looks, or in the middle of one.
like($waiter->errors, qr/42704|42P01/, 'who learns it');
$waiter->quit;

done_testing();
