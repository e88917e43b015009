# What a worker does while its subscription fails: it waits as long as the
# class says, others go on, and it mends without hands when the reason ends.

use strict;
use warnings;

use ConvexTest;
use Test::More;

my $emulator = ConvexTest::Emulator->new(args => [ '--page-limit', 5 ]);
my $second = ConvexTest::Emulator->new;
my $cluster = ConvexTest::Cluster->new(conf => "shared_preload_libraries = 'convex_fdw'\n");
$cluster->convex($emulator, options => "max_retries '0'");
my $KEY = $cluster->value('SELECT emu.key()');
my $QUICK = q{poll_interval => '50 ms', options => '{"idle_poll_interval": "100 ms"}'};

sub shown
{
	my ($name) = @_;
	return $cluster->value("SELECT phase || ' ' || coalesce(last_error_class, '') FROM convex_stat_subscription WHERE name = '$name'");
}

sub becomes
{
	my ($name, $shown, $what) = @_;
	ok(eval { wait_until(sub { shown($name) eq $shown }, $shown) }, $what)
	  or diag(shown($name), $cluster->value('SELECT * FROM convex_stat_subscription; SELECT * FROM convex_stat_subscription_event', args => ['-x']));
	return;
}

sub arrives
{
	my ($schema, $x, $what) = @_;
	$_->insert('a', { x => $x }) for $emulator, $second;
	ok(eval { $cluster->wait_until_sql("EXISTS (SELECT FROM $schema.a WHERE x = '$x')", $x) }, $what)
	  or diag($cluster->value('SELECT * FROM convex_stat_subscription; SELECT * FROM convex_stat_subscription_event', args => ['-x']));
	return;
}

# Seconds that are left until the next attempt.
sub left
{
	return $cluster->value("SELECT coalesce(extract(epoch FROM next_attempt_at - clock_timestamp()), 0) FROM convex_stat_subscription WHERE name = 'app'");
}

$_->insert('a', { x => 'first' }) for $emulator, $second;
my $url = $second->url;
$cluster->value("SET emu.url = '$url'; SELECT emu.server('second')");
$cluster->value("SELECT convex_create_subscription('app', 'convex', tables => '{a}', $QUICK)");
$cluster->value("SELECT convex_create_subscription('other', 'second', tables => '{a}', $QUICK)");
arrives('app', 'begin', 'a worker follows');
becomes('app', 'following ', 'and does not fail');
my $pid = $cluster->value("SELECT pid FROM convex_stat_subscription WHERE name = 'app'");

# -- a key ---------------------------------------------------------------------

my $log = $cluster->log_size;
$cluster->value("ALTER USER MAPPING FOR postgres SERVER convex OPTIONS (SET deploy_key 'prod:happy-otter-123|keyofsomebodyelse')");
becomes('app', 'failing auth', 'a key that Convex refuses is a failure of class auth');
cmp_ok(left(), '>', 30, 'that is not tried again soon');
arrives('other', 'auth', 'another subscription goes on');
$cluster->value("SELECT convex_wait_for('app', timeout => '0 s')") for 1 .. 3;
wait_until(sub { $cluster->value("SELECT failures FROM convex_subscription_state AS st JOIN convex_subscription AS s USING (subid) WHERE name = 'app'") > 1 },
	'it is tried again');
pass('unless somebody waits for it');
$cluster->value("ALTER USER MAPPING FOR postgres SERVER convex OPTIONS (SET deploy_key '$KEY')");
becomes('app', 'following auth', 'the right key in the user mapping ends it at once');
ok($cluster->wait_until_sql("EXISTS (SELECT FROM app.a WHERE x = 'auth')"), 'with what came meanwhile');
my $said = () = $cluster->log_text($log) =~ /LOG:  subscription "app" fails \(auth\)/g;
is($said, 1, 'the log has it once');
like($cluster->log_text($log), qr/LOG:  subscription "app" has recovered/, 'and its end');
unlike($cluster->log_text($log), qr/subscription "app".*keyofsomebodyelse/, 'without the key');

my $file = $cluster->data_dir . '/deploy_key';
$cluster->value("COPY (SELECT 'prod:happy-otter-123|other') TO PROGRAM 'umask 077; cat >$file'");
$cluster->value("ALTER USER MAPPING FOR postgres SERVER convex OPTIONS (DROP deploy_key, ADD deploy_key_file '$file')");
becomes('app', 'failing auth', 'a key in a file may be refused, too');
$cluster->value("COPY (SELECT emu.key()) TO PROGRAM 'cat >$file'");
becomes('app', 'following auth', 'a changed file ends it at once');
$cluster->value("COPY (SELECT 1) TO PROGRAM 'cat >/dev/null; rm $file'");
becomes('app', 'failing config', 'a file that is gone is a failure of class config');
$cluster->value("COPY (SELECT emu.key()) TO PROGRAM 'umask 077; cat >$file'");
becomes('app', 'following config', 'which ends when it is there again');
$cluster->value("ALTER USER MAPPING FOR postgres SERVER convex OPTIONS (DROP deploy_key_file, ADD deploy_key '$KEY')");

# -- an option -------------------------------------------------------------------

$cluster->value("ALTER SERVER convex OPTIONS (ADD max_response_size '64kB')");
$emulator->insert('a', { x => 'long' x 30000 });
becomes('app', 'failing config', 'a page beyond max_response_size is a failure of class config');
arrives('other', 'config', 'another subscription goes on');
$cluster->value('ALTER SERVER convex OPTIONS (DROP max_response_size)');
becomes('app', 'following config', 'ALTER SERVER ends it at once');

# -- the line and the server -------------------------------------------------------

$emulator->fault({ path => '/api/document_deltas', count => 2, action => 'reset' });
becomes('app', 'following network', 'a lost connection mends by itself');
$emulator->fault({ path => '/api/document_deltas', count => 1, action => 'status', status => 503, code => 'CommitterFullError' });
becomes('app', 'following overload', 'and so does an overloaded server');
for ([ 'paused', 400, 'BackendIsNotRunning' ], [ 'plan', 403, 'StreamingExportNotEnabled' ], [ 'protocol', 418, 'SomethingNew' ])
{
	my ($class, $status, $code) = @$_;
	$emulator->fault({ path => '/api/document_deltas', count => -1, action => 'status', status => $status, code => $code });
	becomes('app', "failing $class", "a pause of class $class");
	$emulator->clear_faults;
	$cluster->value("SELECT convex_enable_subscription('app')");
	becomes('app', "following $class", 'ends when the subscription is enabled');
}
is($cluster->value("SELECT pid FROM convex_stat_subscription WHERE name = 'app'"), $pid, 'all that happened to one process');

# -- what fails beside the changes ---------------------------------------------------

$emulator->insert('c', map { { x => "c$_" } } 1 .. 12);
$emulator->fault({ path => '/api/list_snapshot', count => -1, action => 'status', status => 500, where => { table => 'c' } });
$cluster->value("SELECT convex_alter_subscription('app', tables => '{a,c}')");
becomes('app', 'failing overload', 'a table whose pages fail makes its subscription fail');
arrives('app', 'beside', 'the other tables go on');
is(shown('app'), 'failing overload', 'while it fails');
$emulator->clear_faults;
ok(eval { $cluster->wait_until_sql('(SELECT count(*) = 12 FROM app.c)', 'c joins') }, 'and the table joins when they do not fail any more');
becomes('app', 'following overload', 'which ends the failure');

$emulator->fault({ path => '/api/get_table_column_names', count => -1, action => 'status', status => 503, code => 'TableSummariesUnavailable' });
$cluster->value("SELECT convex_refresh_subscription('app')");
becomes('app', 'failing overload', 'a check that fails makes its subscription fail');
arrives('app', 'unchecked', 'the changes are applied all the same');
$emulator->clear_faults;
becomes('app', 'following overload', 'until the check succeeds');

# A table that waits for its target reads its own changes, later.
$cluster->value("ALTER TABLE app.a ADD CONSTRAINT good CHECK (x <> 'bad')");
$emulator->insert('a', { x => 'bad' });
ok(eval { $cluster->wait_until_sql("(SELECT state = 'error' FROM convex_stat_subscription_rel WHERE name = 'app' AND table_name = 'a')", 'a waits') }, 'a table waits for its target');
like($cluster->log_text($log), qr/LOG:  table "a" of subscription "app" waits \(apply\)/, 'and the log has it');
$emulator->fault({ path => '/api/document_deltas', count => -1, action => 'status', status => 500, where => { table => 'a' } });
becomes('app', 'failing overload', 'its own changes may fail to come');
$emulator->insert('c', { x => 'aside' });
ok(eval { $cluster->wait_until_sql("EXISTS (SELECT FROM app.c WHERE x = 'aside')", 'c') }, 'those of the others arrive');
$emulator->clear_faults;
$cluster->value('ALTER TABLE app.a DROP CONSTRAINT good');
ok(eval { $cluster->wait_until_sql("(SELECT state = 'ready' FROM convex_stat_subscription_rel WHERE name = 'app' AND table_name = 'a')", 'a') }, 'it catches up');
becomes('app', 'following overload', 'and nothing fails');

# Walks of one deployment take turns; one that fails gives up its turn.
$emulator->insert('big', { x => 'large' x 30000 });
$emulator->insert('d', { x => 'd' });
$url = $emulator->url;
$cluster->value("SET emu.url = '$url'; SELECT emu.server('small', \$\$max_retries '0', max_response_size '64kB'\$\$)");
$cluster->value("SELECT convex_create_subscription('huge', 'small', tables => '{big}', $QUICK)");
becomes('huge', 'failing config', 'a first load that fails makes its subscription fail');
$cluster->value("SELECT convex_alter_subscription('app', tables => '{a,c,d}')");
ok(eval { $cluster->wait_until_sql('(SELECT count(*) = 1 FROM app.d)', 'd joins') }, 'and keeps no other from loading');
is(shown('huge'), 'failing config', 'meanwhile');
$cluster->value('ALTER SERVER small OPTIONS (DROP max_response_size)');
becomes('huge', 'following config', 'until the option is corrected');
is($cluster->value('SELECT count(*) FROM huge.big'), '1', 'then it loads');

is($cluster->value("SELECT count(*) FILTER (WHERE kind = 'error') = count(*) FILTER (WHERE kind = 'recovered') FROM convex_stat_subscription_event WHERE name = 'app'"),
	't', 'each failure and its end is an event')
  or diag($cluster->value('SELECT * FROM convex_stat_subscription_event'));

done_testing();
