# Wherever the server is silent, cancel, statement_timeout and terminate act
# within 200 ms, and the session works on.

use strict;
use warnings;

use ConvexTest;
use File::Temp qw(tempdir);
use IO::Socket::INET;
use Socket qw(SOCK_NONBLOCK SOCK_STREAM AF_INET inet_aton pack_sockaddr_in);
use Test::More;
use Time::HiRes qw(time);

my $ALLOWED_MS = 200;
my $PATIENCE_S = 30;

# A name server that does not answer.
my $scratch = tempdir('convex_names.XXXXXX', DIR => $ConvexTest::SCRATCH, CLEANUP => 1);
chmod 0755, $scratch;
system(split(' ', $ENV{CC} || 'cc'), '-shared', '-fPIC', '-o', "$scratch/names.so", "$ConvexTest::TOP/test/unit/names.c", '-ldl') == 0
  or BAIL_OUT('names.c does not compile');

my $cluster = ConvexTest::Cluster->new(env => { LD_PRELOAD => "$scratch/names.so" });
my $emulator = ConvexTest::Emulator->new;
$emulator->insert('users', map { { name => "user $_" } } 1 .. 6);
$emulator->insert('log', { n => $_ }) for 1 .. 6;
$cluster->convex($emulator, options => "max_retries '0'");

# A port where connecting never comes to an end: its queue is full.
my $full = IO::Socket::INET->new(Listen => 1, LocalAddr => '127.0.0.1') or die "listen: $!\n";
my @waiting;
for (1 .. 10)
{
	socket(my $socket, AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0) or die "socket: $!\n";
	connect($socket, pack_sockaddr_in($full->sockport, inet_aton('127.0.0.1')));
	push @waiting, $socket;
}

# A port that takes connections and says nothing.
my $mute = IO::Socket::INET->new(Listen => 200, LocalAddr => '127.0.0.1') or die "listen: $!\n";

my %url = (
	resolve => 'https://convex.stall.test',
	connect => 'http://127.0.0.1:' . $full->sockport,
	handshake => 'https://127.0.0.1:' . $mute->sockport,
	mute => 'http://127.0.0.1:' . $mute->sockport);
for my $name (sort keys %url)
{
	$cluster->value(<<~END);
		CREATE SERVER $name FOREIGN DATA WRAPPER convex_fdw
			OPTIONS (deployment_url '$url{$name}', max_retries '0', connect_timeout '60s');
		CREATE USER MAPPING FOR CURRENT_USER SERVER $name;
		CREATE FOREIGN TABLE ${name}_users (_id text, name text) SERVER $name OPTIONS (table_name 'users');
		END
}
$cluster->value(q{
	SELECT emu.server('patient', $$max_retries '20'$$);
	CREATE FOREIGN TABLE patient_users (_id text, name text) SERVER patient OPTIONS (table_name 'users');
	CREATE FOREIGN TABLE users (_id text, name text) SERVER convex;
	CREATE FOREIGN TABLE keyed_log (_id text, n double precision) SERVER convex OPTIONS (table_name 'log', primary_key 'n');
	CREATE SCHEMA target;
});

my $control = $cluster->session;
my $session = $cluster->session;

# Is the session's process waiting for an answer?
sub is_waiting
{
	my ($pid) = @_;
	return $control->query("SELECT wait_event_type FROM pg_stat_activity WHERE pid = $pid AND state = 'active'") =~ /Extension|IPC/;
}

# How many milliseconds beyond the moment of the order did the session's
# command take to end, and with which SQLSTATE?
my %act = (
	cancel => sub {
		my ($sql, $ready) = @_;
		$session->send($sql);
		wait_until(sub { is_waiting($session->pid) && (!$ready || $ready->()) }, "the session waits: $sql");
		my $begun = time;
		$control->query('SELECT pg_cancel_backend(' . $session->pid . ')');
		$session->finish;
		return (1000 * (time - $begun), $session->sqlstate);
	},
	statement_timeout => sub {
		my ($sql, undef, $limit_ms) = @_;
		$session->query("SET statement_timeout = '${limit_ms}ms'");
		my $begun = time;
		$session->query($sql);
		my $took = 1000 * (time - $begun);
		my $state = $session->sqlstate;
		$session->query('RESET statement_timeout');
		return ($took - $limit_ms, $state);
	},
	terminate => sub {
		my ($sql, $ready) = @_;
		my $victim = $cluster->session;
		$victim->send($sql);
		wait_until(sub { is_waiting($victim->pid) && (!$ready || $ready->()) }, "the session waits: $sql");
		my $begun = time;
		$control->query('SELECT pg_terminate_backend(' . $victim->pid . ')');
		my $is_gone = sub { !-e '/proc/' . $victim->pid };
		wait_until($is_gone, 'the process is gone');
		my $took = 1000 * (time - $begun);
		$victim->finish;
		return ($took, $victim->sqlstate);
	});
my %wanted_state = (cancel => '57014', statement_timeout => '57014', terminate => '57P01');

# The best try counts, for the machine may be busy with something else. When a
# timeout has struck before the server was silent, the next one is longer.
sub check
{
	my ($how, $what, $sql, $prepare, $ready, $limit_ms) = @_;
	my ($best, $state);
	my $begun = time;
	$limit_ms //= 250;
	while (1)
	{
		$prepare->() if $prepare;
		my ($took, $found) = eval { $act{$how}->($sql, $ready, $limit_ms) };
		if (!defined $took)
		{
			fail("$how acts $what");
			diag($@);
			$session = $cluster->session;
			$emulator->clear_faults;
			return;
		}
		my $is_wanted = $found eq $wanted_state{$how};
		($best, $state) = ($took, $found)
		  if !defined $best || $is_wanted && ($state ne $found || $took < $best);
		last if $is_wanted && $took < $ALLOWED_MS;
		last if time - $begun > $PATIENCE_S;
		$limit_ms *= 2 unless $is_wanted;
	}
	note(sprintf('%.0f ms', $best));
	cmp_ok($best, '<', $ALLOWED_MS, "$how acts within $ALLOWED_MS ms $what");
	is($state, $wanted_state{$how}, "$how $what ends with its own SQLSTATE");
	my $after = $how eq 'terminate' ? $control : $session;
	$after->query('ROLLBACK TO s');
	is($after->query('SELECT 1'), '1', "SELECT 1 works after $how $what");
	$emulator->clear_faults;
	return;
}

sub fault
{
	my (%fault) = @_;
	return sub {
		$emulator->clear_faults;
		$emulator->clear_journal;
		$emulator->fault({ path => '/api', count => -1, %fault });
	};
}

sub sent { my ($n) = @_; return sub { my @sent = $emulator->journal; @sent >= $n } }

my %stall = (action => 'stall', seconds => 60);
my @stages = (
	['in name resolution', 'SELECT * FROM resolve_users'],
	['in connect', 'SELECT * FROM connect_users'],
	['in the TLS handshake', 'SELECT * FROM handshake_users'],
	['on a server that takes the request and is mute', 'SELECT * FROM mute_users'],
	['before the headers', 'SELECT * FROM users', fault(%stall), sent(1)],
	['in mid-body', 'SELECT * FROM users', fault(%stall, at => 'body', after_bytes => 50), sent(1)],
	['in an answer that drips', 'SELECT * FROM users', fault(action => 'drip', interval_ms => 100), sent(1)],
	['while a look-up is asked for', q{SELECT * FROM users WHERE _id = 'a'}, fault(%stall, path => '/api/query_at_ts'), sent(2)],
	['while a count is asked for', 'SELECT count(*) FROM users', fault(%stall, path => '/api/query_at_ts'), sent(2)],
	['during back-off', 'SELECT * FROM patient_users', fault(action => 'status', status => 503, code => 'CommitterFullError'), sent(3), 900]);
for my $stage (@stages)
{
	check($_, @$stage) for sort keys %act;
	is($session->query('SELECT count(*) FROM users'), '6', "and a scan works after stalls $stage->[0]");
}

# Everything else that waits, at the first request and at a later one.
my @commands = (
	['IMPORT FOREIGN SCHEMA', 'IMPORT FOREIGN SCHEMA convex FROM SERVER convex INTO target'],
	['ANALYZE', 'ANALYZE users'],
	['convex_changes', q{SELECT * FROM convex_changes('convex', 1)}],
	['convex_test_connection', q{SELECT * FROM convex_test_connection('convex')}],
	['convex_tables', q{SELECT * FROM convex_tables('convex')}],
	['convex_json_schemas', q{SELECT convex_json_schemas('convex')}],
	['convex_snapshot', q{SELECT convex_snapshot('convex')}],
	['convex_add_primary_key_indexes', q{SELECT convex_add_primary_key_indexes('convex', 'log', '{n}')}],
	['convex_primary_key_indexes_ready', q{SELECT convex_primary_key_indexes_ready('convex', 'log')}],
	['convex_ensure_primary_key', q{SELECT convex_ensure_primary_key('keyed_log')}],
	['EXPLAIN ANALYZE', 'EXPLAIN ANALYZE SELECT * FROM users'],
	['COPY', 'COPY (SELECT * FROM users) TO STDOUT'],
	['CREATE TABLE AS', 'CREATE TABLE made AS SELECT * FROM users'],
	['a nested loop', 'SELECT * FROM users a, users b'],
	['UNION ALL', 'SELECT * FROM users UNION ALL SELECT * FROM patient_users'],
	['a function', 'DO $$ BEGIN PERFORM * FROM users; END $$'],
	['a function that catches others', 'DO $$ BEGIN PERFORM * FROM users; EXCEPTION WHEN OTHERS THEN NULL; END $$']);
for my $command (@commands)
{
	my ($name, $sql) = @$command;
	check($_, "in $name", $sql, fault(%stall), sent(1)) for qw(cancel statement_timeout);
}
$emulator->config({ page_limit => 2, delta_limit => 2 });
for my $command (@commands)
{
	my ($name, $sql) = @$command;
	next unless $name =~ /ANALYZE|IMPORT|changes|test_connection|ensure|UNION|nested/;
	check('cancel', "in a later request of $name", $sql, fault(%stall, skip => 1), sent(2));
}
$session->query('IMPORT FOREIGN SCHEMA convex FROM SERVER convex INTO target');
is($session->sqlstate, '', 'after all of this IMPORT FOREIGN SCHEMA works');
is($session->query('SELECT count(*) FROM target.users'), '6', 'and a scan of what it made');

# Writes leave at COMMIT. Before a byte of them is sent a cancel is a cancel, and
# nothing is in Convex; from then on the outcome is unknown.
$emulator->clear_faults;
$emulator->config({ page_limit => 1024, delta_limit => 128 });
$emulator->mutate({ op => 'index', table => 'keyed', fields => ['name'] }, map { { op => 'insert', table => 'keyed', doc => { name => $_ } } } qw(ada bob));
for my $name (qw(resolve connect handshake mute))
{
	$cluster->value("CREATE FOREIGN TABLE ${name}_log (n int) SERVER $name OPTIONS (table_name 'log')");
}
$cluster->value(q{
	CREATE FOREIGN TABLE log (n int) SERVER convex;
	CREATE FOREIGN TABLE patient_log (n int) SERVER patient OPTIONS (table_name 'log');
	CREATE FOREIGN TABLE keyed (name text, n int) SERVER convex OPTIONS (primary_key 'name');
});
my @early = (
	['in name resolution of a write', 'INSERT INTO resolve_log VALUES (1)'],
	['in connect of a write', 'INSERT INTO connect_log VALUES (1)'],
	['in the TLS handshake of a write', 'INSERT INTO handshake_log VALUES (1)'],
	['in the conflict check', 'UPDATE keyed SET n = 1', fault(%stall, path => '/api/document_deltas'), sent(2)],
	['in the scan of an UPDATE', 'UPDATE keyed SET n = 1', fault(%stall, path => '/api/list_snapshot'), sent(1)],
	['in the back-off of a write', 'INSERT INTO patient_log VALUES (1)', fault(action => 'status', status => 429, code => 'TooManyWrites'), sent(3), 900]);
my @late = (
	['in an append', 'INSERT INTO log VALUES (1)'],
	['in an append by COPY', q{COPY log FROM PROGRAM 'echo 1'}],
	['in an Upsert', q{INSERT INTO keyed VALUES ('cyd', 1)}],
	['in an Update', 'UPDATE keyed SET n = 1'],
	['in TRUNCATE', 'TRUNCATE log']);
sub writes { return scalar grep { $_->{path} =~ m{/streaming_import/(?!get_schema)} } $emulator->journal }
for my $stage (@early)
{
	my ($what) = @$stage;
	for my $how (sort keys %act)
	{
		check($how, @$stage);
		is(writes(), 0, "$how $what sends nothing") unless $what =~ /back-off/;
	}
}
{
	local @wanted_state{qw(cancel statement_timeout terminate)} = ('08007') x 3;
	for my $stage (@late)
	{
		my ($what, $sql) = @$stage;
		my $wait = fault(%stall, path => '/api/streaming_import');
		my $is_sent = sub { writes() == 1 };
		for my $how (sort keys %act)
		{
			check($how, $what, $sql, $wait, $is_sent);
			is(writes(), 1, "$how $what sends nothing again");
		}
	}
	check($_, 'on a server that takes a write and is mute', 'INSERT INTO mute_log VALUES (1)') for sort keys %act;
}
$session->query('INSERT INTO log VALUES (7)');
is($session->sqlstate, '', 'after all of this a write works');
$emulator->config({ page_limit => 2, delta_limit => 2 });

# Cursors: a later page is silent. What a savepoint catches, it catches: the
# transaction goes on.
sub cursor
{
	$emulator->clear_faults;
	$session->query($_) for 'ROLLBACK', 'BEGIN', 'DECLARE walk CURSOR FOR SELECT name FROM users', 'SAVEPOINT s';
	return;
}
for my $how (qw(cancel statement_timeout))
{
	check($how, 'in FETCH', 'FETCH 100 FROM walk', sub { cursor(); fault(%stall)->() }, sent(1));
	check($how, 'in FETCH of a later page', 'FETCH 100 FROM walk',
		sub {
			cursor();
			fault(%stall, skip => 1)->();
			$session->query('FETCH 1 FROM walk');
			$session->query('SAVEPOINT s');
		},
		sent(2));
	is($session->query('SELECT count(*) FROM users'), '6', "after $how and ROLLBACK TO the transaction reads again");
}
cursor();
is($session->query('FETCH 100 FROM walk') =~ tr/\n//, 5, 'after that a cursor reads to the end');
$session->query('COMMIT');

# A process with a name still being looked up ends at once when it is to end.
my $idle = $cluster->session;
my $pid = $idle->pid;
$idle->query(q{SET statement_timeout = '100ms'});
$idle->query('SELECT * FROM resolve_users');
is($idle->sqlstate, '57014', 'a name that is not found in time is a timeout');
my $begun = time;
$idle->quit;
wait_until(sub { !-e "/proc/$pid" }, 'the process ends');
cmp_ok(time - $begun, '<', 30, 'a session ends at once although a name is still being looked up');

my $stuck = $cluster->session;
$stuck->send('SELECT * FROM resolve_users');
wait_until(sub { is_waiting($stuck->pid) }, 'the session waits');
$begun = time;
$cluster->stop('fast');
cmp_ok(time - $begun, '<', 30, 'a fast shutdown does not wait for a name');

# Their server is gone; psql ends with it, in whatever way.
local $SIG{PIPE} = 'IGNORE';
for my $left ($session, $control, $stuck)
{
	eval { $left->quit };
}
done_testing();
