# A hostile server: each line of test/hostile/lines.py against a scan, IMPORT
# FOREIGN SCHEMA, an UPDATE by key, the load of a subscription, the change log
# and the check of a key. Whatever the peer does, a use ends with
# the right result or the right SQLSTATE, after a bounded number of requests,
# within its limits, and without more memory than two pages need.
#
# CONVEX_TEST_LINES is a pattern of the names of lines to run alone.

use strict;
use warnings;

use ConvexTest;
use Test::More;
use Time::HiRes qw(time);

# Backends that work side by side.
my $WORKERS = 8;

# What a loaded machine may take beside the limits of a server.
my $SLACK_S = 20;

my $peer = ConvexTest::HostilePeer->new;
my $only = $ENV{CONVEX_TEST_LINES} // '.';
my @lines = $peer->lines;
my @queue = grep { $lines[$_]{use} !~ /^(?:worker|check)$/ && "$lines[$_]{use}: $lines[$_]{name}" =~ /$only/ } 0 .. $#lines;

my $cluster = ConvexTest::Cluster->new;
$cluster->value(join "\n", 'CREATE EXTENSION convex_fdw;', map { $peer->server($_) . <<~END } @lines[@queue]);
	CREATE SCHEMA $_->{id};
	CREATE FOREIGN TABLE $_->{id}.users (_id text, id bigint, name text, time float8 OPTIONS (column_name '_creationTime')@{[ $_->{columns} && ", $_->{columns}" ]})
		SERVER $_->{id} OPTIONS (table_name 'users', primary_key 'id');
	END

# What a use sends, and what it gives when all is well.
my %uses = (
	ask => sub { my ($id) = @_; return ("SELECT convex_fdw_disconnect_all() \\g /dev/null\nSELECT count(*), max(name), count(u.*) FROM $id.users AS u WHERE _id = '@{[ sprintf 'j57%029d', 1 ]}';\nSELECT convex_fdw_disconnect_all() \\g /dev/null\nSELECT count(*) FROM $id.users;\nSELECT convex_fdw_disconnect_all() \\g /dev/null\nSELECT name FROM (SELECT name FROM $id.users ORDER BY time DESC LIMIT 1) AS n;", qr/^(?:1\|Eve\|1|1|Eve)$/) },
	scan => sub { my ($id) = @_; return ("SELECT count(*), max(name), count(u.*) FROM $id.users AS u;", qr/^1\|Eve\|1$/) },
	imports => sub { my ($id) = @_; return ("DROP SCHEMA IF EXISTS ${id}_new CASCADE; CREATE SCHEMA ${id}_new; IMPORT FOREIGN SCHEMA convex FROM SERVER $id INTO ${id}_new;", qr/^$/) },
	follow => sub { my ($id) = @_; return (<<~END, qr/^1\|(?:Eve|Adam)\|1$/) },
		SELECT convex_create_subscription('$id', '$id', '{users}', '${id}_mirror') \\g /dev/null
		CALL convex_sync('$id');
		\\if :ERROR
		\\else
		SELECT count(*), max(name), count(u.*) FROM ${id}_mirror.users AS u;
		\\endif
		SELECT convex_drop_subscription('$id', true) \\g /dev/null
		DROP SCHEMA IF EXISTS ${id}_mirror;
		END
	keys => sub { my ($id) = @_; return ("SELECT convex_ensure_primary_key('$id.users');", qr/^$/) },
	changes => sub { my ($id) = @_; return ("SELECT count(id) FROM convex_changes('$id', 1787000001000000000, '{users}');", qr/^\d+$/) },
	write => sub { my ($id) = @_; return ("UPDATE $id.users SET name = 'Ada' WHERE id = 1;", qr/^$/) });

sub begin_line
{
	my ($session, $line) = @_;
	my ($sql) = $uses{ $line->{use} }->($line->{id});
	$line->{from_kb} = begin_memory($session->pid);
	$line->{begun} = time;
	$session->send(join "\n", ($sql) x $line->{variants});
	return;
}

sub end_line
{
	my ($session, $line) = @_;
	my $got = $session->finish($line->{variants} * $SLACK_S);
	$line->{took_s} = time - $line->{begun};
	$line->{grown_mb} = (peak_kb($session->pid) - $line->{from_kb}) / 1024 if $line->{from_kb};
	$line->{got} = $got;
	$line->{errors} = $session->errors;
	$session->query('SELECT convex_fdw_disconnect_all()');
	return;
}

# Seconds that the limits of a server allow for one try.
sub allowed_s
{
	my ($line) = @_;
	my %limits = %{ $line->{limits} };
	my $s = 0;
	for (grep { /timeout$/ } keys %limits)
	{
		$s += $limits{$_} =~ /^(\d+)ms$/ ? $1 / 1000 : $limits{$_} =~ /^(\d+)s$/ ? $1 : 0;
	}
	return $s;
}

sub judge
{
	my ($line, $requests) = @_;
	my @problems;
	my @states = $line->{errors} =~ /(?:ERROR|FATAL|PANIC):  (\w{5}):/g;
	my (undef, $right) = $uses{ $line->{use} }->($line->{id});
	my $outcome = $line->{outcome};
	if ($outcome =~ s/^right (\d+)$/right/)
	{
		$right = qr/^$1\b/;
	}
	my @wrong = grep { !/^(?:$outcome)$/ } @states;
	push @problems, 'SQLSTATE ' . join(' ', @wrong) if @wrong;
	push @problems, scalar(@states) . " of $line->{variants} failed" if $outcome !~ /right/ && @states != $line->{variants};
	push @problems, "result $line->{got}" if !@states && grep { $_ !~ $right } split /\n/, $line->{got};
	my $max = $line->{requests} * $line->{variants} * ($line->{use} eq 'follow' ? 3 : 1) + ($line->{use} eq 'ask' ? 12 * $line->{variants} : 0);
	push @problems, "$requests requests instead of $max" if $requests > $max;
	push @problems, sprintf('%.1f MB', $line->{grown_mb}) if defined $line->{grown_mb} && $line->{grown_mb} > $line->{memory_mb};
	push @problems, sprintf('%.1f s', $line->{took_s}) if $line->{took_s} > $line->{variants} * allowed_s($line) + $SLACK_S;
	push @problems, 'the key is told' if "$line->{got}$line->{errors}" =~ /Zm9v|V0cXV4|c2VjcmV/;
	is(join(', ', @problems), '', "$line->{use}: $line->{name}") or diag(substr($line->{errors}, 0, 2000));
	note(sprintf('%.2f s, %s requests, %.1f MB %s', $line->{took_s}, $requests, $line->{grown_mb} // 0, join ' | ', $line->{errors} =~ /(?:ERROR|FATAL|PANIC):  (.*)/g));
	return;
}

my @workers;

sub new_session
{
	my $session = $cluster->session;
	$session->query("SET statement_timeout = '${SLACK_S}s'");
	return $session;
}

# One that looks at no interrupt would outlive the cluster.
sub end_backend
{
	my ($pid) = @_;
	$cluster->value("SELECT pg_terminate_backend($pid)");
	return if eval { wait_until(sub { !-d "/proc/$pid" }, 'the end of a backend', 5) };
	kill 'KILL', $pid;
	BAIL_OUT('a backend had to be killed');
}
push @workers, { session => new_session() } for 1 .. $WORKERS;
while (@queue || grep { defined $_->{at} } @workers)
{
	for my $worker (@workers)
	{
		my $line = defined $worker->{at} ? $lines[ $worker->{at} ] : undef;
		if ($line && $worker->{session}->is_done)
		{
			end_line($worker->{session}, $line);
			judge($line, $peer->ask('counts')->[ delete $worker->{at} ]);
		}
		elsif ($line && time - $line->{begun} > $SLACK_S * 2 + $line->{variants} * allowed_s($line))
		{
			fail("$line->{use}: $line->{name} ends");
			end_backend($worker->{session}->pid);
			$worker->{session} = new_session();
			delete $worker->{at};
		}
		if (!defined $worker->{at} && @queue)
		{
			$worker->{at} = shift @queue;
			begin_line($worker->{session}, $lines[ $worker->{at} ]);
		}
	}
	Time::HiRes::sleep(0.005);
}
is($cluster->value('SELECT 1'), '1', 'and the server goes on');
unlike($cluster->log_text, qr/Zm9vYmFyc2VjcmV0cXV4(?!'\);$)/m, 'the key is in the log only where it was set');

$_->{session}->quit for @workers;
done_testing();
