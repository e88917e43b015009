# What the launcher and its workers withstand: locked catalogs, databases that
# allow no connections, triggers that hang, its own death, storms of commands.

use strict;
use warnings;

use ConvexTest;
use Test::More;
use Time::HiRes qw(time);

my $emulator = ConvexTest::Emulator->new;
my $cluster = ConvexTest::Cluster->new(conf => "shared_preload_libraries = 'convex_fdw'\nmax_worker_processes = 12\n");

sub database
{
	my ($name) = @_;
	$cluster->value("CREATE DATABASE $name") if $name ne 'postgres';
	$cluster->convex($emulator, db => $name, options => "max_retries '0'");
	$cluster->value(
		q{SELECT convex_create_subscription('app', 'convex', tables => '{users}', poll_interval => '50 ms', options => '{"idle_poll_interval": "200 ms"}')},
		db => $name);
	return;
}

sub arrives
{
	my ($db, $name, $what) = @_;
	$emulator->insert('users', { name => $name });
	ok(eval { $cluster->wait_until_sql("EXISTS (SELECT FROM app.users WHERE name = '$name')", $name, db => $db) }, $what)
	  or diag($cluster->value('SELECT * FROM convex_workers()'));
	return;
}

sub worker_of
{
	my ($db) = @_;
	return $cluster->value("SELECT string_agg(pid::text, ' ') FROM pg_stat_activity WHERE backend_type = 'convex_fdw worker' AND datname = '$db'");
}

$emulator->insert('users', { name => 'first' });
database('postgres');
database('locked');
arrives('postgres', 'ada', 'a database is followed');
arrives('locked', 'grace', 'and another one');

# -- a catalog that cannot be read -------------------------------------------------

my $session = $cluster->session(db => 'locked');
$session->query('BEGIN; LOCK TABLE convex_subscription IN ACCESS EXCLUSIVE MODE');
$cluster->value('SELECT pg_terminate_backend(' . worker_of('locked') . ')');
database('fresh');
arrives('fresh', 'kay', 'a new database is followed while another cannot be looked into');
arrives('postgres', 'hopper', 'and so is an old one');
$session->query('COMMIT');
$session->quit;
arrives('locked', 'liskov', 'and that one when it can');

# -- a database that allows no connections ---------------------------------------------

my $look = sub { $cluster->value(q{SELECT convex_enable_subscription('app')}) };
$cluster->value('ALTER DATABASE fresh ALLOW_CONNECTIONS false');
$look->();
ok(eval { wait_until(sub { worker_of('fresh') eq '' }, 'it leaves') }, 'a database that allows no connections has no worker');
$cluster->value('ALTER DATABASE fresh ALLOW_CONNECTIONS true');
$look->();
arrives('fresh', 'clarke', 'and has one when it allows them again');

# -- a trigger that hangs ------------------------------------------------------------------

$cluster->value(<<~'END', db => 'fresh');
	CREATE FUNCTION hang() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_catalog.pg_sleep(3600); RETURN new; END';
	CREATE TRIGGER hang BEFORE INSERT ON app.users FOR EACH ROW EXECUTE FUNCTION hang();
	END
$emulator->insert('users', { name => 'bartik' });
$cluster->wait_until_sql("EXISTS (SELECT FROM pg_stat_activity WHERE datname = 'fresh' AND wait_event = 'PgSleep')", 'it hangs');
$cluster->value('DROP DATABASE fresh');
pass('a database whose worker hangs in a trigger can be dropped');

# -- the launcher dies ---------------------------------------------------------------------

my $launcher = $cluster->value("SELECT pid FROM pg_stat_activity WHERE backend_type = 'convex_fdw launcher'");
kill 'KILL', $launcher;
wait_until(sub { !-e "/proc/$launcher" }, 'it is gone');
wait_until(sub { ($cluster->try_psql('SELECT 1'))[0] == 0 }, 'the server recovers', 60);
arrives('postgres', 'holberton', 'after the launcher was killed the databases are followed');
arrives('locked', 'jennings', 'all of them');

# -- storms ----------------------------------------------------------------------------------

for (1 .. 20)
{
	$cluster->value(q{SELECT convex_disable_subscription('app')});
	$cluster->value(q{SELECT convex_enable_subscription('app')});
}
arrives('postgres', 'meltzer', 'a subscription that is disabled and enabled again and again is followed');
like(worker_of('postgres'), qr/^\d+$/, 'by one worker');
my @sessions = map { $cluster->session } 1 .. 3;
for (1 .. 10)
{
	$_->send(q{SELECT convex_start_worker('app')}) for @sessions[ 0, 2 ];
	$sessions[1]->send(q{SELECT convex_stop_worker('app')});
	$_->finish(60) for @sessions;
}
$_->quit for @sessions;
$cluster->value(q{SELECT convex_start_worker('app')});
arrives('postgres', 'spence', 'so is one whose worker is started and stopped at the same time');
like(worker_of('postgres'), qr/^\d+$/, 'by one worker');

# -- a restart while it fails ------------------------------------------------------------------

$cluster->value(q{ALTER SERVER convex OPTIONS (SET deployment_url 'http://127.0.0.1:1')});
$cluster->wait_until_sql("(SELECT phase = 'failing' FROM convex_stat_subscription)", 'it fails');
$cluster->restart('fast');
$cluster->wait_until_sql("(SELECT phase = 'failing' AND last_error_at > pg_postmaster_start_time() FROM convex_stat_subscription)", 'it fails again');
$cluster->value("ALTER SERVER convex OPTIONS (SET deployment_url '" . $emulator->url . "')");
arrives('postgres', 'teitelbaum', 'a subscription that failed before and after a restart mends');

unlike($cluster->log_text, qr/PANIC|signal (?:6|11)\b|TRAP:/, 'nothing crashed');

done_testing();
