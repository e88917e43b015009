# Subscriptions are followed without hands: the launcher starts their workers
# and looks after them, through renamed, copied and dropped databases, on the
# server that is written to and on no other.

use strict;
use warnings;

use ConvexTest;
use Test::More;
use Time::HiRes qw(time);

my $emulator = ConvexTest::Emulator->new;
my $other = ConvexTest::Emulator->new;
my $cluster = ConvexTest::Cluster->new(conf => <<~'END');
	shared_preload_libraries = 'convex_fdw'
	convex_fdw.max_workers = 8
	wal_level = replica
	max_wal_senders = 4
	allow_in_place_tablespaces = on
	END

my $QUICK = q{poll_interval => '50 ms', options => '{"idle_poll_interval": "200 ms"}'};

# A database with the extension, a server and a subscription `app` of users.
sub database
{
	my ($name, %option) = @_;
	$cluster->value("CREATE DATABASE $name") if $name ne 'postgres';
	$cluster->convex($option{emulator} // $emulator, db => $name, options => "max_retries '0'");
	$cluster->value("SELECT convex_create_subscription('app', 'convex', tables => '{users}', $QUICK)", db => $name)
	  unless $option{idle};
	return;
}

sub workers
{
	my ($condition) = @_;
	return $cluster->value("SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'convex_fdw worker' AND ($condition)");
}

# The process of the worker of `app`, once there is one and it is not `not`.
sub worker_pid
{
	my ($db, $not) = @_;
	return wait_until(
		sub {
			my $pid = $cluster->value("SELECT pid FROM pg_stat_activity WHERE backend_type = 'convex_fdw worker' AND datname = '$db'");
			$pid =~ /^\d+$/ && $pid ne ($not // '') && $pid;
		},
		"a worker in $db");
}

sub add_user
{
	my ($name, $to) = @_;
	($to // $emulator)->insert('users', { name => $name });
	return $name;
}

sub shows
{
	my ($name, $what, %option) = @_;
	my $in = $option{cluster} // $cluster;
	ok(eval { $in->wait_until_sql("EXISTS (SELECT FROM app.users WHERE name = '$name')", $name, db => $option{db} // 'postgres') }, $what)
	  or diag($@, $in->value('SELECT * FROM public.convex_stat_subscription; SELECT * FROM public.convex_stat_subscription_rel; SELECT * FROM public.convex_stat_subscription_event', db => $option{db} // 'postgres', args => ['-x']),
		$in->value('SELECT * FROM public.convex_workers()'));
	return;
}

sub state_of
{
	my ($db) = @_;
	return $cluster->value("SELECT w.state FROM convex_workers() AS w JOIN pg_database AS d ON d.oid = w.database WHERE datname = '$db'");
}

# -- the launcher ------------------------------------------------------------

$cluster->wait_until_sql("EXISTS (SELECT FROM pg_stat_activity WHERE backend_type = 'convex_fdw launcher')", 'the launcher runs');
is($cluster->value("SELECT datname IS NULL FROM pg_stat_activity WHERE backend_type = 'convex_fdw launcher'"), 't',
	'the launcher is connected to no database');

add_user('ada');
database('postgres');
my $pid = worker_pid('postgres');
ok($pid, 'creating a subscription starts its worker');
shows('ada', 'the worker loads the table');
add_user('grace');
shows('grace', 'a change arrives');
is($cluster->value("SELECT application_name ~ '^convex_fdw worker \\d+\$' FROM pg_stat_activity WHERE pid = $pid"), 't',
	'a worker is known by its name');
is($cluster->value("SELECT pid = $pid FROM convex_stat_subscription"), 't', 'the view names its process');
is($cluster->value("SELECT state FROM convex_workers() WHERE pid = $pid"), 'running', 'convex_workers shows it running');
ok($cluster->wait_until_sql("(SELECT n_tup_ins >= 1 AND n_live_tup >= 1 FROM pg_stat_all_tables WHERE relid = 'app.users'::regclass)"),
	'autovacuum sees what the worker does');

# -- while the server is silent ------------------------------------------------

database('silent', emulator => $other, idle => 1);
$other->insert('users', { name => 'ada' });
$cluster->value('CREATE TABLE mine (i integer)', db => 'silent');
$cluster->value("SELECT convex_create_subscription('app', 'convex', tables => '{users}', $QUICK)", db => 'silent');
shows('ada', 'a second database has a worker of its own', db => 'silent');
$other->clear_journal;
$other->fault({ path => '/api', count => -1, action => 'stall', seconds => 60 });
wait_until(sub { my @sent = $other->journal; @sent || $cluster->value("SELECT wait_event_type FROM pg_stat_activity WHERE datname = 'silent' AND state = 'active'") eq 'Extension' },
	'the worker waits for the server');
is($cluster->value("SELECT count(*) FROM pg_stat_activity WHERE datname = 'silent' AND backend_type = 'convex_fdw worker'
	AND xact_start IS NULL AND backend_xmin IS NULL AND backend_xid IS NULL"), '1', 'a worker that waits for the server has no transaction');
my $silent_pid = worker_pid('silent');
my $begun = time;
$cluster->value('DROP TABLE mine; DROP TABLE app.users', db => 'silent');
cmp_ok(time - $begun, '<', 30, 'DROP TABLE returns at once');
$begun = time;
$cluster->value('DROP EXTENSION convex_fdw CASCADE', db => 'silent');
cmp_ok(time - $begun, '<', 30, 'DROP EXTENSION returns at once');
wait_until(sub { !-e "/proc/$silent_pid" }, 'the worker ends');
pass('the worker of a dropped extension ends');
$other->clear_faults;
ok($cluster->wait_until_sql("NOT EXISTS (SELECT FROM convex_workers() AS w JOIN pg_database AS d ON d.oid = w.database WHERE datname = 'silent')"),
	'and the launcher forgets it');

# -- cancel, terminate and DROP DATABASE while the server is silent --------------

database('silent2', emulator => $other);
shows('ada', 'another database is followed', db => 'silent2');
my $stall = sub {
	my ($db) = @_;
	my $victim = worker_pid($db, $_[1]);
	$other->clear_faults;
	$cluster->wait_until_sql("EXISTS (SELECT FROM convex_stat_subscription WHERE pid IS NOT NULL)", 'it works', db => $db);
	$other->clear_journal;
	$other->fault({ path => '/api', count => -1, action => 'stall', seconds => 60 });
	wait_until(sub { my @sent = $other->journal; scalar @sent }, 'the worker has asked');
	return $victim;
};
my $stalled = $stall->('silent2');
$cluster->value("SELECT pg_cancel_backend($stalled)");
$other->clear_faults;
add_user('hamilton', $other);
shows('hamilton', 'a request that was cancelled is tried again', db => 'silent2');
is(worker_pid('silent2'), $stalled, 'by the same process');
$stalled = $stall->('silent2');
$begun = time;
$cluster->value("SELECT pg_terminate_backend($stalled)");
wait_until(sub { !-e "/proc/$stalled" }, 'it ends');
cmp_ok(time - $begun, '<', 30, 'terminate ends a worker that waits for the server');
$stall->('silent2', $stalled);
$begun = time;
$cluster->value('DROP DATABASE silent2');
cmp_ok(time - $begun, '<', 30, 'DROP DATABASE does not wait for the server');
$other->clear_faults;

# -- settings ------------------------------------------------------------------

$emulator->insert('log', { n => 1 });
database('crooked', idle => 1);
$cluster->value(<<~'END', db => 'crooked');
	ALTER DATABASE crooked SET default_transaction_read_only = on;
	ALTER DATABASE crooked SET default_transaction_isolation = 'serializable';
	ALTER DATABASE crooked SET statement_timeout = '300ms';
	ALTER DATABASE crooked SET search_path = 'nowhere';
	ALTER DATABASE crooked SET DateStyle = 'SQL, DMY';
	ALTER DATABASE crooked SET session_replication_role = 'replica';
	ALTER ROLE postgres IN DATABASE crooked SET TimeZone = 'Asia/Kolkata';
	ALTER ROLE postgres IN DATABASE crooked SET IntervalStyle = 'sql_standard';
	CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_catalog.pg_sleep(0.5); RETURN new; END';
	CREATE SCHEMA app;
	CREATE TABLE app.users (_id text PRIMARY KEY, "_creationTime" timestamptz, _ts bigint, name text, _extra jsonb);
	CREATE TRIGGER slow BEFORE INSERT ON app.users EXECUTE FUNCTION slow();
	END
$cluster->value("SET statement_timeout = 0; SET default_transaction_read_only = off; BEGIN READ WRITE; SET search_path = public;
	SELECT convex_create_subscription('app', 'convex', tables => '{users}', $QUICK); COMMIT", db => 'crooked');
add_user('hopper');
shows('hopper', 'no setting of a role or a database changes what a worker does', db => 'crooked');
is($cluster->value(q{SET statement_timeout = 0; SELECT bool_and("_creationTime" BETWEEN now() - interval '1 hour' AND now() + interval '1 minute') FROM app.users}, db => 'crooked'),
	't', 'times are right');
$cluster->value('DROP DATABASE crooked');
pass('a plain DROP DATABASE drops a database with a worker');

# -- cancel, terminate, wake ---------------------------------------------------

my $postmaster = $cluster->postmaster_pid;
my $session = $cluster->session;
$session->query("SELECT pg_cancel_backend($pid)");
add_user('kay');
shows('kay', 'a cancelled worker goes on');
is(worker_pid('postgres'), $pid, 'it is the same process');
for my $round (1 .. 3)
{
	$session->query("SELECT pg_terminate_backend($pid)");
	$pid = worker_pid('postgres', $pid);
}
add_user('liskov');
shows('liskov', 'a terminated worker is replaced');
is($cluster->postmaster_pid, $postmaster, 'the cluster lives on');
is($session->query('SELECT 1'), '1', 'and its sessions do');

$cluster->value(q{SELECT convex_alter_subscription('app', poll_interval => '50 ms', options => '{"idle_poll_interval": "1 h"}')});
my $polls = sub { my @polls = $emulator->journal('/api/document_deltas'); scalar @polls };
shows(add_user('wilson'), 'the altered worker works');
$emulator->clear_journal;
$begun = time;
wait_until(sub { time - $begun > 3 }, 'three seconds pass');
cmp_ok($polls->(), '<', 15, 'while nothing changes, polls become rare');
add_user('perlman');
$emulator->clear_journal;
is($cluster->value(q{SELECT convex_wait_for('app')}), 't', 'convex_wait_for wakes the worker');
shows('perlman', 'which sees what has changed');
for my $call (q{convex_alter_subscription('app', poll_interval => '1 h')}, q{convex_refresh_subscription('app')})
{
	my $name = $call =~ /convex_(\w+)/ ? $1 : die;
	add_user($name);
	$cluster->value("SELECT $call");
	shows($name, "convex_$name wakes the worker");
}
$cluster->value(q{SELECT convex_alter_subscription('app', poll_interval => '50 ms', options => '{"idle_poll_interval": "200 ms"}')});

# -- stop and start ------------------------------------------------------------

is($cluster->value(q{SELECT convex_stop_worker('app')}), 't', 'convex_stop_worker ends a worker');
is(workers("pid = $pid"), '0', 'its process is gone');
is(state_of('postgres'), 'stopped', 'its state says why');
is($cluster->value(q{SELECT convex_stop_worker('app')}), 'f', 'a second call finds none');
add_user('lovelace');
is($cluster->sqlstate(q{SELECT convex_wait_for('app')}), '55000', 'convex_wait_for says that no worker runs');
my $started = $cluster->value(q{SELECT convex_start_worker('app')});
is($started, worker_pid('postgres'), 'convex_start_worker gives the new process');
is($cluster->value(q{SELECT convex_start_worker('app')}), $started, 'and does not start a second one');
is($cluster->sqlstate(q{SELECT convex_start_worker('nobody')}), '42704', 'an unknown subscription is refused');
is($cluster->sqlstate(q{BEGIN; SELECT convex_create_subscription('mine', 'convex', tables => '{users}'); SELECT convex_start_worker('mine')}), '55000',
	'one that is not committed gets no worker');
$cluster->value('CREATE ROLE stranger LOGIN');
$cluster->value('GRANT EXECUTE ON FUNCTION convex_stop_worker TO stranger');
is($cluster->sqlstate(q{SET ROLE stranger; SELECT convex_stop_worker('app')}), '42501', 'somebody else may not stop a worker');

$cluster->value(q{SELECT convex_disable_subscription('app')});
$cluster->wait_until_sql("NOT EXISTS (SELECT FROM pg_stat_activity WHERE pid = $started)", 'a disabled subscription has no worker');
is($cluster->sqlstate(q{SELECT convex_start_worker('app')}), '55000', 'it gets none either');
$cluster->value(q{SELECT convex_enable_subscription('app')});
$pid = worker_pid('postgres');
pass('enabling it starts one');

# -- databases that come and go ------------------------------------------------

database('first', idle => 0);
shows('liskov', 'a new database is followed', db => 'first');
my $first = worker_pid('first');
is($cluster->sqlstate('SET ROLE stranger; DROP DATABASE first'), '42501', 'who may not drop a database cannot drop it');
is($cluster->sqlstate('BEGIN; DROP DATABASE first'), '25001', 'nor can it be dropped inside a transaction');
is(worker_pid('first'), $first, 'neither disturbs its worker');

my $guest = $cluster->session(db => 'first');
is($cluster->sqlstate('DROP DATABASE first'), '55006', 'with a session in it, it is not dropped');
$guest->quit;
$first = worker_pid('first', $first);
shows(add_user('clarke'), 'and its worker comes back', db => 'first');

$cluster->value('ALTER DATABASE first RENAME TO second');
$first = worker_pid('second', $first);
shows(add_user('bartik'), 'a renamed database is followed', db => 'second');

$cluster->value('CREATE DATABASE copy TEMPLATE second');
shows(add_user('holberton'), 'the original of a copy is followed', db => 'second');
shows('holberton', 'and so is the copy', db => 'copy');

$cluster->value(q{CREATE TABLESPACE elsewhere LOCATION ''});
$cluster->value('ALTER DATABASE copy SET TABLESPACE elsewhere');
shows(add_user('jennings'), 'a moved database is followed', db => 'copy');

my $log_size = $cluster->log_size;
$cluster->value('DROP DATABASE copy');
$cluster->value('DROP DATABASE second WITH (FORCE)');
$cluster->wait_until_sql("(SELECT count(*) FROM convex_workers()) = 1", 'the dropped databases are forgotten');
shows(add_user('meltzer'), 'the others are followed meanwhile');
my $late_starts = () = $cluster->log_text($log_size) =~ /FATAL:  database .* does not exist/g;
is($late_starts, 0, 'nothing is started in a database that is gone');

# -- one broken database beside others -----------------------------------------

my @names = map { "db$_" } 1 .. 3;
database($_) for @names;
$cluster->value(q{ALTER SERVER convex OPTIONS (SET deployment_url 'http://127.0.0.1:1')}, db => 'db2');
$cluster->value(q{SELECT convex_create_subscription('app2', 'convex', tables => '{users}', target_schema => 'app2')}, db => 'db1');
add_user('antonelli');
shows('antonelli', "$_ is current", db => $_) for 'db1', 'db3', 'postgres';
$cluster->wait_until_sql('EXISTS (SELECT FROM convex_stat_subscription WHERE last_error_code IS NOT NULL AND next_attempt_at IS NOT NULL)',
	'the broken one says what is wrong', db => 'db2');
$cluster->wait_until_sql("EXISTS (SELECT FROM app2.users WHERE name = 'antonelli')", 'two subscriptions of one database', db => 'db1');
my $broken = worker_pid('db2');
$cluster->value('DROP TABLE app.users', db => 'db2');
$cluster->value('DROP SERVER convex CASCADE', db => 'db2');
shows(add_user('spence'), "$_ is current although another has no server any more", db => $_) for 'db1', 'db3', 'postgres';
$log_size = $cluster->log_size;
$begun = time;
wait_until(sub { time - $begun > 2 }, 'two seconds pass');
my $restarts = () = $cluster->log_text($log_size) =~ /starting background worker process "convex_fdw worker/g;
cmp_ok($restarts, '<=', 2, 'a broken subscription is no loop of processes');

# -- slots and settings of the server ------------------------------------------

$log_size = $cluster->log_size;
$cluster->append_conf('convex_fdw.max_workers = 2')->reload;
$cluster->value("SELECT pg_terminate_backend(pid) FROM convex_workers() WHERE pid IS NOT NULL");
$cluster->wait_until_sql("(SELECT count(*) FILTER (WHERE state = 'running') = 2 AND count(*) FILTER (WHERE state = 'no free slot') = 3 FROM convex_workers())",
	'as many workers as there may be');
pass('a worker without a slot is shown as such');
$begun = time;
wait_until(sub { time - $begun > 1 }, 'a second passes');
my $complaints = () = $cluster->log_text($log_size) =~ /LOG:  could not start worker of subscription/g;
is($complaints, 3, 'and is in the log once');
$cluster->append_conf('convex_fdw.max_workers = 8')->reload;
$cluster->wait_until_sql("(SELECT count(*) FILTER (WHERE state = 'running') = 5 FROM convex_workers())", 'they start when they may');

$cluster->append_conf("convex_fdw.databases = 'db1, db3'")->reload;
$cluster->wait_until_sql("(SELECT array_agg(DISTINCT datname ORDER BY datname) = '{db1,db3}' FROM pg_stat_activity WHERE backend_type = 'convex_fdw worker')",
	'only the databases of the list have workers');
pass('convex_fdw.databases chooses databases');
$cluster->append_conf("convex_fdw.worker_enabled = off")->reload;
$cluster->wait_until_sql("NOT EXISTS (SELECT FROM pg_stat_activity WHERE backend_type = 'convex_fdw worker')", 'all leave');
pass('convex_fdw.worker_enabled ends them');
add_user('teitelbaum');
$started = $cluster->value(q{SELECT convex_start_worker('app')}, db => 'db1');
shows('teitelbaum', 'convex_start_worker works without the launcher', db => 'db1');
is($cluster->value(q{SELECT convex_stop_worker('app')}, db => 'db1'), 't', 'and convex_stop_worker');
$cluster->append_conf("convex_fdw.worker_enabled = on\nconvex_fdw.databases = ''")->reload;
is($cluster->sqlstate(q{ALTER SYSTEM SET convex_fdw.databases = 'a b'}), '22023', 'a list that is none is refused');
$cluster->wait_until_sql("(SELECT count(*) FILTER (WHERE state = 'running') = 4 FROM convex_workers())", 'they come back');
is(state_of('db1') =~ /stopped/ ? 1 : 0, 1, 'except the one that was stopped');

my $launcher = $cluster->value("SELECT pid FROM pg_stat_activity WHERE backend_type = 'convex_fdw launcher'");
$pid = worker_pid('postgres');
$cluster->value("SELECT pg_terminate_backend($launcher)");
$cluster->wait_until_sql("EXISTS (SELECT FROM pg_stat_activity WHERE backend_type = 'convex_fdw launcher' AND pid <> $launcher)", 'the launcher comes back');
is(worker_pid('postgres'), $pid, 'a restart of the launcher does not disturb the workers');

# -- point-in-time recovery ------------------------------------------------------

my $last_event = $cluster->value('SELECT coalesce(max(eventid), 0) FROM convex_stat_subscription_event');
my $backup = $cluster->backup;
add_user('gosling');
shows('gosling', 'the original goes on after a backup');
$cluster->value(q{SELECT pg_create_restore_point('then')});
add_user('borg');
shows('borg', 'and after the restore point');
$cluster->value('SELECT pg_switch_wal()');
my $wal = $cluster->data_dir . '/pg_wal';
my $recovered = $backup->start_as("restore_command = 'cp $wal/%f %p'\nrecovery_target_name = 'then'\nrecovery_target_action = 'promote'\n", 'recovery.signal');
shows('borg', 'a cluster recovered to a point in time applies again what came later', cluster => $recovered);
is($recovered->value('SELECT count(*) - count(DISTINCT _id) FROM app.users'), '0', 'and nothing twice');
is($recovered->value("SELECT string_agg(concat_ws(' ', kind, table_name, detail), '; ') FROM convex_stat_subscription_event WHERE eventid > $last_event AND kind IN ('resnapshot', 'resync', 'table_replaced')"), '', 'without loading anything again');
$recovered->remove;

# -- standby and promotion -----------------------------------------------------

my $standby = $cluster->standby;
$standby->wait_until_sql("pg_is_in_recovery() AND EXISTS (SELECT FROM app.users WHERE name = 'teitelbaum')", 'the standby has the rows');
is($standby->value("SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'convex%'"), '0', 'a standby has none of our processes');
is($standby->sqlstate(q{SELECT convex_start_worker('app')}), '25006', 'and starts none by hand');
is($standby->sqlstate(q{CALL convex_sync('app')}), '25006', 'convex_sync is refused there');
is($standby->sqlstate(q{SELECT convex_refresh_subscription('app')}), '25006', 'and so are changes');
is($standby->value(q{SELECT convex_wait_for('app', 1)}), 't', 'convex_wait_for works');
$cluster->stop('fast');
$standby->value('SELECT pg_promote()');
add_user('snyder');
shows('snyder', 'after the promotion the launcher and the workers run', cluster => $standby);
$standby->remove;

# -- hardly any slots ------------------------------------------------------------

# The server's own launcher, ours, and one more.
my $small = ConvexTest::Cluster->new(conf => "shared_preload_libraries = 'convex_fdw'\nmax_worker_processes = 3\n");
$small->convex($emulator);
$small->value("SELECT convex_create_subscription('app', 'convex', tables => '{users}', $QUICK)");
shows('snyder', 'one slot is enough for a probe and then a worker', cluster => $small);
ok($small->log_text =~ /LOG:  convex_fdw.max_workers \(4\) may leave parallel queries only 0 of 2 planned workers/, 'the log says when workers leave parallel queries too little');
$small->value("SELECT convex_create_subscription('app2', 'convex', tables => '{users}', $QUICK)");
is($small->value(q{SELECT convex_start_worker('app2') > 0}), 't', 'another one comes to its turn');
my $easley = $emulator->mutate({ op => 'insert', table => 'users', doc => { name => 'easley' } })->{ts};
is($small->value("SELECT convex_wait_for('$_', $easley)"), 't', "$_ is followed in turns") for qw(app app2);
my $nlooks = () = $small->log_text =~ /LOG:  could not scan database/g;
cmp_ok($nlooks, '<=', 1, 'that probes wait for a slot is in the log once');
$emulator->fault({ path => '/api/document_deltas', action => 'stall', seconds => 120, count => -1 });
$small->wait_until_sql("EXISTS (SELECT FROM pg_stat_activity WHERE backend_type = 'convex_fdw worker' AND state = 'active')", 'the one that runs waits for Convex');
my $idle = $small->value(q{SELECT name FROM convex_stat_subscription WHERE pid IS NULL});
like(($small->try_psql("SELECT convex_start_worker('$idle')"))[2], qr/53400: .*\nDETAIL:  max_worker_processes is 3, and all of them are used/, 'another worker finds no slot, and the call says so');
$emulator->clear_faults;
$small->remove;

# -- more subscriptions than there is room for -----------------------------------

my $crowd = ConvexTest::Cluster->new(conf => "shared_preload_libraries = 'convex_fdw'\nconvex_fdw.max_workers = 0\n");
$crowd->convex($emulator);
$crowd->value("SELECT convex_create_subscription('app', 'convex', tables => '{users}', $QUICK)");
$crowd->value(<<~'END');
	INSERT INTO convex_subscription (name, server, owner, enabled, tables, target_schema, mode, protocol, poll_interval, options)
		SELECT 's' || i, 'convex', 'postgres', true, '{users}', 'app', 'mirror', 'document_deltas', '1 s', '{}' FROM generate_series(1, 1100) AS i;
	INSERT INTO convex_subscription_state (subid) SELECT subid FROM convex_subscription ON CONFLICT DO NOTHING;
	UPDATE convex_subscription SET enabled = true, (home, owner_oid, server_oid) = (SELECT home, owner_oid, server_oid FROM convex_subscription WHERE name = 'app');
	END
$log_size = $crowd->log_size;
my $look = sub { $crowd->value(q{SELECT convex_enable_subscription('app')}); return 1 };
$look->();
$crowd->wait_until_sql("EXISTS (SELECT FROM convex_workers() WHERE state = 'no room for 77' AND subid IS NULL AND name IS NULL)", 'too many');
is($crowd->value('SELECT count(*) FROM convex_workers() WHERE subid IS NOT NULL'), '1024', 'the table of processes has room for 1024, and shows that there are more');
like(($crowd->try_psql(q{SELECT convex_start_worker('s1100')}))[2], qr/53400: no room for a worker/, 'starting another one says so');
is($crowd->value(q{SELECT worker FROM convex_stat_subscription WHERE name = 's1100'}), 'no room for 77', 'and so does the view');
my ($no_room, $no_worker) = map { ($crowd->try_psql("SELECT convex_wait_for('$_', 1)"))[2] } qw(s1100 app);
like($no_room, qr/55000: .*\nDETAIL:  A server has room for 1024 subscriptions/, 'and convex_wait_for');
like($no_worker, qr/55000: .*\nDETAIL:  convex_fdw.max_workers is 0\./, 'which says as well when there are no workers at all');
$look->() for 1 .. 3;
$crowd->value("DELETE FROM convex_subscription WHERE name IN (SELECT 's' || i FROM generate_series(1, 100) AS i)");
wait_until(sub { $look->() && $crowd->value("SELECT count(*) FROM convex_workers() WHERE state LIKE 'no room%'") eq '0' }, 'there is room');
is($crowd->value("SELECT count(*) FROM convex_workers() WHERE name = 's1100'"), '1', 'a place that becomes free is taken');
my $overflows = () = $crowd->log_text($log_size) =~ /LOG:  too many subscriptions: 77 of/g;
is($overflows, 1, 'the log has it once');
my $lacking = () = $crowd->log_text($log_size) =~ /LOG:  could not start worker/g;
cmp_ok($lacking, '<=', 24, 'and names not each of a thousand that have no worker');
ok($crowd->log_text !~ /parallel queries/, 'and not when they leave enough');
$crowd->remove;

# -- without preload -----------------------------------------------------------

my $plain = ConvexTest::Cluster->new(conf => "shared_preload_libraries = ''\n");
$plain->convex($emulator);
$plain->value("SELECT convex_create_subscription('app', 'convex', tables => '{users}', $QUICK)");
is($plain->value("SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'convex%'"), '0', 'without preload nothing starts by itself');
is($plain->value('SELECT count(*) FROM convex_workers()'), '0', 'there is no table of processes');
is($plain->sqlstate(q{BEGIN; SELECT convex_disable_subscription('app'); SELECT convex_enable_subscription('app'); SELECT convex_start_worker('app')}), '55000',
	'convex_start_worker needs a committed subscription');
$pid = $plain->value(q{SELECT convex_start_worker('app')});
is($plain->value("SELECT backend_type FROM pg_stat_activity WHERE pid = $pid"), 'convex_fdw worker', 'convex_start_worker starts one');
shows('snyder', 'it follows', cluster => $plain);
is($plain->value(q{SELECT convex_start_worker('app')}), $pid, 'a second call gives the same process');
is($plain->value(q{SELECT convex_stop_worker('app')}), 't', 'convex_stop_worker ends it');
wait_until(sub { !-e "/proc/$pid" }, 'the process ends');
my @callers = map { $plain->session->send(q{SELECT convex_start_worker('app')}) } 1 .. 4;
my %started = map { $_->finish => 1 } @callers;
is(scalar keys %started, 1, 'calls at the same time give one process');
is($plain->value("SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'convex_fdw worker'"), '1', 'and start one');
is($plain->value(q{SELECT convex_stop_worker('app')}), 't', 'which ends');
$pid = $plain->value(q{SELECT convex_start_worker('app')});
$plain->value(q{SELECT convex_drop_subscription('app', drop_tables => true)});
wait_until(sub { !-e "/proc/$pid" }, 'the process ends');
pass('a worker whose subscription was dropped ends by itself');

# The postmaster dies; the worker must not stay behind.
$plain->value("SELECT convex_create_subscription('app', 'convex', tables => '{users}', $QUICK)");
$pid = $plain->value(q{SELECT convex_start_worker('app')});
kill 'KILL', $plain->postmaster_pid;
wait_until(sub { !-e "/proc/$pid" }, 'the worker ends');
pass('a worker ends with the postmaster');
is($plain->start->value("SELECT 1"), "1", "and nothing keeps the cluster from starting again");

done_testing();
