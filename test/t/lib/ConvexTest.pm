# What the TAP programs build on: clusters of their own, emulators, sessions.
#
#   use ConvexTest;
#   my $cluster  = ConvexTest::Cluster->new(conf => "wal_level = logical\n");
#   my $emulator = ConvexTest::Emulator->new(seed => 'demo');
#   $cluster->convex($emulator);                # extension, emu, server `convex`
#   is($cluster->value('SELECT 1'), '1', 'a query answers');
#   wait_until(sub { $cluster->value('SELECT ...') eq 't' }, 'it happens');
#
# Everything is stopped and removed when the program ends. Nothing sleeps but
# wait_until, which asks again until its deadline.

package ConvexTest;

use strict;
use warnings;

use Cwd qw(abs_path);
use Exporter qw(import);
use File::Basename qw(dirname);
use Test::More ();
use Time::HiRes ();

our @EXPORT = qw(wait_until slurp begin_memory peak_kb);

our $TOP = abs_path(dirname(__FILE__) . '/../../..');
our $DEADLINE_S = $ENV{CONVEX_TEST_DEADLINE} || 120;

# Where everything is put; test/run/chapter empties it.
our $SCRATCH = $ENV{CONVEX_TEST_SCRATCH} || '/tmp';

# A signal unwinds like an exit, so that the servers are stopped.
$SIG{INT} = $SIG{TERM} = $SIG{HUP} = sub { exit 1 };

# Waits until the code returns true; dies at the deadline, naming what was
# awaited. Gives what the code returned.
sub wait_until
{
	my ($code, $what, $deadline_s) = @_;
	my $end = Time::HiRes::time() + ($deadline_s || $DEADLINE_S);
	while (1)
	{
		my $result = $code->();
		return $result if $result;
		die "not in time: $what\n" if Time::HiRes::time() > $end;
		Time::HiRes::sleep(0.02);
	}
}

sub slurp
{
	my ($path) = @_;
	open(my $file, '<', $path) or die "$path: $!\n";
	local $/;
	return scalar <$file>;
}

# The most memory of a process from now on; 0 where the kernel does not say.
sub begin_memory
{
	my ($pid) = @_;
	open(my $refs, '>', "/proc/$pid/clear_refs") or return 0;
	print $refs '5';
	close $refs or return 0;
	return peak_kb($pid);
}
sub peak_kb { my ($pid) = @_; return slurp("/proc/$pid/status") =~ /^VmHWM:\s+(\d+)/m ? $1 : 0 }

package ConvexTest::Cluster;

use strict;
use warnings;

use File::Basename qw(basename);
use File::Temp qw(tempdir);
use IPC::Run ();

my %running;

# conf: text added to postgresql.conf; env: { NAME => value } for the server;
# start => 0 leaves it stopped.
sub new
{
	my ($class, %option) = @_;
	my $self = bless {
		dir => tempdir('convex_fdw.XXXXXX', DIR => $ConvexTest::SCRATCH),
		conf => $option{conf} // '',
		env => $option{env} // {},
		owner => $$,
	}, $class;
	$running{ $self->{dir} } = $self->{owner};
	$self->start if $option{start} // 1;
	return $self;
}

sub _control
{
	my ($self, @arguments) = @_;
	my ($out, $err) = ('', '');
	IPC::Run::run([ "$TOP/test/run/cluster", @arguments ], '>', \$out, '2>', \$err)
	  or die "cluster @arguments: $err\n";
	return $out;
}

sub start
{
	my ($self) = @_;
	my $conf = File::Temp->new;
	print $conf $self->{conf};
	close $conf;
	my @env = map { ('--env', "$_=$self->{env}{$_}") } sort keys %{ $self->{env} };
	$self->_control('start', '--log-everything', '--conf', $conf->filename, @env, $self->{dir});
	my %libpq = $self->_control('env', $self->{dir}) =~ /(PG\w+)=(\S+)/g;
	$self->{libpq} = \%libpq;
	return $self;
}

# mode: fast, smart, immediate
sub stop
{
	my ($self, $mode) = @_;
	$self->_control('stop', '--mode', $mode // 'fast', $self->{dir});
	return $self;
}

sub restart
{
	my ($self, $mode) = @_;
	return $self->stop($mode)->start;
}

# A standby of this cluster, running.
sub standby
{
	my ($self) = @_;
	return $self->backup->start_as("primary_conninfo = '" . $self->connstr . "'\n", 'standby.signal');
}

# A copy of this cluster, stopped; start_as gives it settings and a signal file.
sub backup
{
	my ($self) = @_;
	my $standby = (ref $self)->new(conf => $self->{conf}, start => 0);
	my ($from, $to) = ($self->{dir}, $standby->{dir});
	my $owner = (stat $self->data_dir)[4];
	$self->with_env(sub { IPC::Run::run([ 'pg_basebackup', '-D', "$to/data", '-c', 'fast', '-X', 'stream' ]) })
	  or die "pg_basebackup failed\n";
	my $conf = ConvexTest::slurp("$to/data/postgresql.conf");
	$conf =~ s/\Q$from\E/$to/g;
	open(my $file, '>', "$to/data/postgresql.conf") or die "postgresql.conf: $!\n";
	print $file $conf;
	close $file;
	open($file, '>', "$to/ready") or die "ready: $!\n";
	close $file;
	mkdir "$to/socket";
	IPC::Run::run([ 'cp', "$from/password", "$to/password" ]) or die "no password\n";
	IPC::Run::run([ 'chown', '-R', $owner, $to ]) if $> == 0;
	return $standby;
}

sub start_as
{
	my ($self, $settings, $signal) = @_;
	my ($owner, $group) = (stat $self->data_dir)[ 4, 5 ];
	open(my $file, '>>', $self->data_dir . '/postgresql.conf') or die "postgresql.conf: $!\n";
	print $file $settings;
	close $file;
	my $path = $self->data_dir . "/$signal";
	open($file, '>', $path) or die "$path: $!\n";
	close $file;
	chown $owner, $group, $path;
	return $self->start;
}

# Takes effect with the next start; reload makes it take effect now.
sub append_conf
{
	my ($self, $lines) = @_;
	$self->{conf} .= "$lines\n";
	open(my $file, '>>', "$self->{dir}/extra.conf") or die "extra.conf: $!\n";
	print $file "$lines\n";
	close $file;
	return $self;
}

sub reload
{
	my ($self) = @_;
	$self->value('SELECT pg_reload_conf()');
	return $self;
}

sub data_dir { return "$_[0]{dir}/data" }
sub port { return $_[0]{libpq}{PGPORT} }
sub host { return $_[0]{libpq}{PGHOST} }
sub connstr { return "host=$_[0]{libpq}{PGHOST} port=$_[0]{libpq}{PGPORT} user=postgres" }

sub postmaster_pid
{
	my ($self) = @_;
	my ($pid) = ConvexTest::slurp($self->data_dir . '/postmaster.pid') =~ /^(\d+)/;
	return $pid;
}

# Runs code with libpq's environment pointing here.
sub with_env
{
	my ($self, $code) = @_;
	local %ENV = (%ENV, %{ $self->{libpq} });
	return $code->();
}

sub _psql
{
	my ($self, %option) = @_;
	return ('psql', '-X', '-q', '-A', '-t', '-v', 'ON_ERROR_STOP=1', '-v', 'VERBOSITY=verbose',
		'-d', $option{db} // 'postgres', @{ $option{args} // [] });
}

# Runs SQL; gives (exit status, output, errors). option: db, args.
sub try_psql
{
	my ($self, $sql, %option) = @_;
	my ($out, $err) = ('', '');
	local $SIG{PIPE} = 'IGNORE';
	my $has_run = eval {
		$self->with_env(sub { IPC::Run::run([ $self->_psql(%option) ], '<', \$sql, '>', \$out, '2>', \$err) });
		1;
	};

	# psql may end before it has read anything: no server, for example.
	my $status = $has_run ? $? >> 8 : 2;
	die $@ if !$has_run && $@ !~ /Broken pipe/;
	chomp $out;
	return ($status, $out, $err);
}

# Runs SQL that must succeed; gives its output.
sub value
{
	my ($self, $sql, %option) = @_;
	my ($status, $out, $err) = $self->try_psql($sql, %option);
	die "psql ended with $status: $err\nin: $sql\n" if $status != 0;
	return $out;
}

# Runs SQL that must fail; gives the SQLSTATE.
sub sqlstate
{
	my ($self, $sql, %option) = @_;
	my ($status, $out, $err) = $self->try_psql($sql, %option);
	return $err =~ /(?:ERROR|FATAL):  (\w{5}):/ ? $1 : "no error (status $status): $err";
}

# The chapters' helpers, the extension, and a server `convex` at the emulator.
sub convex
{
	my ($self, $emulator, %option) = @_;
	$self->setup($emulator, %option);
	my $server_options = $option{options} // '';
	$self->value("SELECT emu.server('convex', \$\$$server_options\$\$)", %option);
	return $self;
}

sub setup
{
	my ($self, $emulator, %option) = @_;
	my $url = $emulator->url;
	$self->value("\\i $TOP/test/pgtap/lib/setup.sql\n",
		%option, args => [ '-v', "emulator=$url" ]);
	return $self;
}

sub wait_until_sql
{
	my ($self, $condition, $what, %option) = @_;
	return ConvexTest::wait_until(
		sub { my ($status, $out) = $self->try_psql("SELECT ($condition)", %option); $out eq 't' },
		$what // $condition, $option{deadline_s});
}

# A psql that stays open.
sub session
{
	my ($self, %option) = @_;
	return ConvexTest::Session->new($self, %option);
}

sub log_file { return "$_[0]{dir}/server.log" }
sub log_size { return -s $_[0]->log_file }

# The log, from a size that log_size gave earlier.
sub log_text
{
	my ($self, $from) = @_;
	return substr(ConvexTest::slurp($self->log_file), $from // 0);
}

sub DESTROY { $_[0]->remove }

sub remove
{
	my ($self) = @_;
	return if $self->{owner} != $$ || !delete $running{ $self->{dir} };
	local ($?, $@, $!);
	system("$TOP/test/run/cluster", 'remove', $self->{dir});
	return;
}

END
{
	my $status = $?;
	for my $dir (grep { $running{$_} == $$ } keys %running)
	{
		system("$ConvexTest::TOP/test/run/cluster", 'remove', $dir);
	}
	$? = $status;
}

package ConvexTest::Session;

use strict;
use warnings;

use IPC::Run ();

my $marks = 0;

sub new
{
	my ($class, $cluster, %option) = @_;
	my $self = bless { in => '', out => '', err => '' }, $class;
	my @psql = $cluster->_psql(%option, args => [ '-v', 'ON_ERROR_STOP=0' ]);
	$self->{harness} = $cluster->with_env(
		sub { IPC::Run::start(\@psql, '<', \$self->{in}, '>', \$self->{out}, '2>', \$self->{err}) });
	$self->{pid} = $self->query('SELECT pg_backend_pid()');
	return $self;
}

# The server process behind it.
sub pid { return $_[0]{pid} }

# Sends SQL and returns at once; finish waits for its end and gives the output.
sub send
{
	my ($self, $sql) = @_;
	$self->{mark} = 'end of command ' . ++$marks;
	$self->{in} .= "$sql\n;\n\\echo '$self->{mark}'\n\\warn '$self->{mark}'\n";
	$self->{harness}->pump_nb while length $self->{in} && $self->{harness}->pumpable;
	return $self;
}

sub finish
{
	my ($self, $deadline_s) = @_;
	my $mark = $self->{mark};
	ConvexTest::wait_until(
		sub {
			$self->{harness}->pump_nb if $self->{harness}->pumpable;
			$self->{out} =~ /^\Q$mark\E$/m && $self->{err} =~ /^\Q$mark\E$/m
			  or !$self->{harness}->pumpable;
		},
		"the answer to $mark", $deadline_s);
	my $out = $self->{out};
	$self->{errors} = $self->{err};
	s/^\Q$mark\E\n?//m for $out, $self->{errors};
	$self->{out} = $self->{err} = '';
	chomp $out;
	return $out;
}

# Has what was sent come to an end?
sub is_done
{
	my ($self) = @_;
	$self->{harness}->pump_nb if $self->{harness}->pumpable;
	return $self->{out} =~ /^\Q$self->{mark}\E$/m;
}

sub query
{
	my ($self, $sql, $deadline_s) = @_;
	return $self->send($sql)->finish($deadline_s);
}

# What the last finish or query had on standard error, and its SQLSTATE.
sub errors { return $_[0]{errors} }

sub sqlstate
{
	my ($self) = @_;
	return $self->{errors} =~ /(?:ERROR|FATAL):  (\w{5}):/ ? $1 : '';
}

sub quit
{
	my ($self) = @_;
	my $harness = delete $self->{harness} or return;
	local ($?, $@, $!);
	$self->{in} .= "\\q\n";
	eval { $harness->finish; };
	return;
}

sub DESTROY
{
	my ($self) = @_;
	my $harness = delete $self->{harness} or return;

	# Then IPC::Run may be gone in part; psql ends with its standard input.
	return if ${^GLOBAL_PHASE} eq 'DESTRUCT';
	local ($?, $@, $!);
	eval { $harness->kill_kill(grace => 2); };
	return;
}

package ConvexTest::Emulator;

use strict;
use warnings;

use HTTP::Tiny ();
use IPC::Run ();
use JSON::PP ();

my $json = JSON::PP->new->utf8->canonical->allow_nonref;

# seed: none (default), demo, ...; port: a fixed one; args: further arguments.
sub new
{
	my ($class, %option) = @_;
	my $self = bless { in => '', out => '', option => \%option }, $class;
	return $self->start;
}

sub start
{
	my ($self) = @_;
	my %option = %{ $self->{option} };
	my @command = ('python3', "$ConvexTest::TOP/test/emulator/convex_emulator.py",
		'--port', $option{port} // 0, '--seed', $option{seed} // 'none',
		'--exit-with-stdin', @{ $option{args} // [] });
	$self->{out} = '';
	$self->{harness} = IPC::Run::start(\@command, '<', \$self->{in}, '>', \$self->{out});
	$self->{harness}->pump until $self->{out} =~ /^listening on (\S+)/m;
	$self->{url} = $1;
	return $self;
}

# Ends it at once, as a crash would.
sub kill
{
	my ($self) = @_;
	my $harness = delete $self->{harness} or return $self;
	local ($?, $@, $!);
	eval { $harness->signal('KILL'); $harness->finish; };
	return $self;
}

sub url { return $_[0]{url} }
sub port { my ($port) = $_[0]{url} =~ /:(\d+)/; return $port }

# One request; gives the decoded answer.
sub call
{
	my ($self, $method, $path, $body) = @_;
	my %request = (headers => { 'content-type' => 'application/json' });
	$request{content} = $json->encode($body) if defined $body;
	my $answer = HTTP::Tiny->new(timeout => 60, proxy => undef, http_proxy => undef, all_proxy => undef)
	  ->request($method, $self->url . $path, \%request);
	die "$method $path: $answer->{status}: $answer->{content}\n" unless $answer->{success};
	return length($answer->{content}) ? $json->decode($answer->{content}) : undef;
}

sub mutate { my ($self, @ops) = @_; return $self->call('POST', '/_emulator/mutate', { ops => \@ops }) }
sub fault { my ($self, $fault) = @_; return $self->call('POST', '/_emulator/faults', $fault) }
sub clear_faults { return $_[0]->call('DELETE', '/_emulator/faults') }
sub config { my ($self, $settings) = @_; return $self->call('POST', '/_emulator/config', $settings) }
sub state { return $_[0]->call('GET', '/_emulator/state') }
sub clear_journal { return $_[0]->call('DELETE', '/_emulator/journal') }

# What it was sent, as a list.
sub journal
{
	my ($self, $path) = @_;
	my $answer = $self->call('GET', '/_emulator/journal' . (defined $path ? "?path=$path" : ''));
	return @{ $answer->{requests} };
}

# Commits new documents of one table; gives their ids.
sub insert
{
	my ($self, $table, @documents) = @_;
	my @ops = map { { op => 'insert', table => $table, doc => $_ } } @documents;
	return @{ $self->mutate(@ops)->{ids} };
}

# At the end of the program the emulator ends with its standard input; IPC::Run
# may be gone in part.
sub DESTROY { $_[0]->kill if ${^GLOBAL_PHASE} ne 'DESTRUCT' }

package ConvexTest::HostilePeer;

use strict;
use warnings;

use IPC::Run ();
use JSON::PP ();

# The table of test/hostile/lines.py, which is served until the program ends.
sub new
{
	my ($class) = @_;
	my $self = bless { in => '', out => '' }, $class;
	$self->{harness} = IPC::Run::start([ 'python3', "$ConvexTest::TOP/test/hostile/lines.py" ], '<', \$self->{in}, '>', \$self->{out});
	$self->{table} = $self->ask;
	my $n = 0;
	$_->{id} = 'line_' . $n++ for @{ $self->{table}{lines} };
	return $self;
}

sub ask
{
	my ($self, $question) = @_;
	$self->{out} = '';
	$self->{in} .= "$question\n" if defined $question;
	$self->{harness}->pump until $self->{out} =~ /\n/;
	return JSON::PP::decode_json($self->{out});
}

sub lines { return @{ $_[0]{table}{lines} } }

# SQL that makes the server of a line.
sub server
{
	my ($self, $line) = @_;
	my $limits = join ', ', map { "$_ '$line->{limits}{$_}'" } sort keys %{ $line->{limits} };
	return <<~END;
		CREATE SERVER $line->{id} FOREIGN DATA WRAPPER convex_fdw OPTIONS (deployment_url '$line->{scheme}://127.0.0.1:$line->{port}', $limits);
		CREATE USER MAPPING FOR CURRENT_USER SERVER $line->{id} OPTIONS (deploy_key '$self->{table}{key}');
		END
}

sub DESTROY
{
	my ($self) = @_;
	my $harness = delete $self->{harness} or return;
	return if ${^GLOBAL_PHASE} eq 'DESTRUCT';
	local ($?, $@, $!);
	eval { $harness->kill_kill(grace => 2) };
	return;
}

1;
