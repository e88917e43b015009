# A thousand failures leave the backend's descriptors, threads and memory where
# they were, and a table of any size is read in constant memory.

use strict;
use warnings;

use ConvexTest;
use IO::Socket::INET;
use List::Util qw(max);
use Test::More;

my $cluster = ConvexTest::Cluster->new;
my $emulator = ConvexTest::Emulator->new;
$emulator->insert('users', map { { name => "user $_" } } 1 .. 6);
$cluster->convex($emulator, options => "max_retries '0'");
my $url = $emulator->url;
(my $tls_url = $url) =~ s/^http:/https:/;
my $full = IO::Socket::INET->new(Listen => 200, LocalAddr => '127.0.0.1') or die "listen: $!\n";
my $mute_url = 'http://127.0.0.1:' . $full->sockport;

# What goes wrong, by the name of the table that is read.
my %fault = (
	status_500 => { action => 'status', status => 500 },
	status_401 => { action => 'status', status => 401, code => 'BadAdminKey', message => 'no ' x 500 },
	html => { action => 'body', body => '<html>' . 'sorry ' x 1000 . '</html>', content_type => 'text/html' },
	empty => { action => 'body', body => '' },
	broken_json => { action => 'body', body => '{"values":[{"_component":"","_table":"broken_json","_ts":1,"a":[' . '{"b":"c"},' x 500 },
	brackets => { action => 'brackets', n => 10_000 },
	large => { action => 'gzip_bomb', megabytes => 3 },
	cut => { action => 'cut' },
	cut_in_body => { action => 'cut', after_bytes => 60 },
	reset => { action => 'reset' },
	reset_in_body => { action => 'reset', after_bytes => 60 },
	stall => { action => 'stall', seconds => 30 },
	stall_in_body => { action => 'stall', at => 'body', after_bytes => 60, seconds => 30 },
	later_page => { action => 'status', status => 400, skip => 0 });
sub start_faults
{
	$emulator->clear_faults;
	$emulator->fault({ path => '/api/list_snapshot', count => -1, where => { table => $_ }, %{ $fault{$_} } })
	  for sort keys %fault;
	return;
}
start_faults();

$cluster->value(<<~END);
	CREATE FOREIGN TABLE users (_id text, name text) SERVER convex;
	SELECT emu.server('small', \$\$max_retries '0', max_response_size '64kB'\$\$);
	SELECT emu.server('hasty', \$\$max_retries '0', request_timeout '10ms', idle_timeout '10ms'\$\$);
	CREATE SERVER closed FOREIGN DATA WRAPPER convex_fdw OPTIONS (deployment_url 'http://127.0.0.1:1', max_retries '1', max_retry_wait '1ms');
	CREATE SERVER private FOREIGN DATA WRAPPER convex_fdw OPTIONS (deployment_url 'https://10.0.0.1', max_retries '0');
	CREATE SERVER tls FOREIGN DATA WRAPPER convex_fdw OPTIONS (deployment_url '$tls_url', max_retries '0', connect_timeout '20ms');
	CREATE SERVER mute FOREIGN DATA WRAPPER convex_fdw OPTIONS (deployment_url '$mute_url', max_retries '0', request_timeout '10ms');
	CREATE USER MAPPING FOR CURRENT_USER SERVER closed;
	CREATE USER MAPPING FOR CURRENT_USER SERVER private;
	CREATE USER MAPPING FOR CURRENT_USER SERVER tls;
	CREATE USER MAPPING FOR CURRENT_USER SERVER mute;
	CREATE FOREIGN TABLE closed_users (_id text) SERVER closed;
	CREATE FOREIGN TABLE private_users (_id text) SERVER private;
	CREATE FOREIGN TABLE tls_users (_id text) SERVER tls;
	CREATE FOREIGN TABLE mute_users (_id text) SERVER mute;
	CREATE FOREIGN TABLE misfits (_id text, name bigint) SERVER convex OPTIONS (table_name 'users');
	CREATE PROCEDURE fail_with(query text) LANGUAGE plpgsql AS
	\$\$ BEGIN EXECUTE query; RAISE 'no error'; EXCEPTION WHEN OTHERS THEN NULL; END \$\$;
	END
for my $table (sort keys %fault)
{
	my $server = $table =~ /large/ ? 'small' : $table =~ /stall/ ? 'hasty' : 'convex';
	$cluster->value("CREATE FOREIGN TABLE $table (_id text, name text) SERVER $server");
}
my @failing = (map("SELECT * FROM $_", sort keys %fault),
	'SELECT * FROM closed_users', 'SELECT * FROM private_users', 'SELECT * FROM tls_users', 'SELECT * FROM mute_users',
	'SELECT * FROM misfits', 'ANALYZE html', 'SELECT * FROM users UNION ALL SELECT * FROM cut',
	'SELECT * FROM users, users u, broken_json', q{SELECT convex_tables('closed')}, q{SELECT convex_changes('closed', 1)});

# What a backend holds.
sub holdings
{
	my ($session) = @_;
	my $proc = '/proc/' . $session->pid;
	my ($rss_kb) = ConvexTest::slurp("$proc/status") =~ /^VmRSS:\s+(\d+)/m;
	# PostgreSQL keeps files of relations open as it likes.
	my @fds = grep { (readlink($_) // '') !~ m{^/} } glob "$proc/fd/*";
	my @threads = glob "$proc/task/*";
	return {
		fds => scalar @fds,
		threads => scalar @threads,
		rss_kb => $rss_kb,
		contexts_kb => $session->query('SELECT sum(total_bytes) / 1024 FROM pg_backend_memory_contexts'),
		convex => $session->query(q{SELECT count(*) FROM pg_backend_memory_contexts WHERE name LIKE 'convex%'}) };
}

# Runs it a little, then a lot, and compares.
sub check
{
	my ($what, $session, $few, $many) = @_;
	$few->();
	$session->query('SELECT convex_fdw_disconnect_all()');
	my $before = holdings($session);
	$many->();
	my $connected = holdings($session);
	cmp_ok($connected->{fds}, '<=', $before->{fds} + 6 * $connected->{convex}, "$what: descriptors stay few while connections are kept");
	$session->query('SELECT convex_fdw_disconnect_all()');
	my $after = holdings($session);
	is($after->{fds}, $before->{fds}, "$what: descriptors are where they were");
	is($after->{threads}, $before->{threads}, "$what: threads are where they were");
	is($after->{convex}, 0, "$what: no memory context of ours is left");
	cmp_ok($after->{contexts_kb}, '<=', $before->{contexts_kb} + 256, "$what: memory contexts are where they were");
	cmp_ok($after->{rss_kb}, '<=', $before->{rss_kb} + 2048, "$what: the process is as large as it was");
	note(join ', ', map { "$_ $before->{$_} $connected->{$_} $after->{$_}" } sort keys %$before);
	is($session->query('SELECT count(*) FROM users'), '6', "$what: a scan works afterwards");
	return;
}

my $session = $cluster->session;

# Each statement a transaction of its own.
my $statements = join ";\n", @failing;
my $errors = 0;
my $run = sub {
	my ($times) = @_;
	for (1 .. $times)
	{
		$session->query($statements, 120);
		$errors += () = $session->errors =~ /^ERROR:/mg;
	}
};
check('failed statements', $session, sub { $run->(4) }, sub { $errors = 0; $run->(20) });
is($errors, 20 * @failing, 'every one of them failed');

# Inside exception blocks: sub-transactions of one transaction.
my $calls = join "\n", map { "CALL fail_with(\$q\$$_\$q\$);" } @failing;
my $block = sub {
	my ($times) = @_;
	$session->query("DO \$d\$ BEGIN FOR i IN 1..$times LOOP $calls END LOOP; END \$d\$", 120);
	return $session->errors;
};
check('failures in exception blocks', $session, sub { $block->(4) }, sub { is($block->(22), '', 'the block catches them all') });

# Timeouts, wherever the server is silent.
start_faults();
$cluster->value(q{ALTER SERVER hasty OPTIONS (SET request_timeout '60s', SET idle_timeout '60s');
	ALTER SERVER mute OPTIONS (SET request_timeout '60s')});
my $timeouts = sub {
	my ($times) = @_;
	$session->query(q{SET statement_timeout = '8ms'});
	$session->query(join(";\n", ('SELECT * FROM stall', 'SELECT * FROM stall_in_body', 'SELECT * FROM mute_users',
		q{SELECT convex_tables('mute')}) x $times), 120);
	my $n = () = $session->errors =~ /^ERROR:  57014/mg;
	$session->query('RESET statement_timeout');
	return $n;
};
check('statement timeouts', $session, sub { $timeouts->(10) }, sub { is($timeouts->(60), 240, 'every one of them ran out of time') });

# What ends early without an error: LIMIT, EXISTS, closed cursors, connections
# that changed options made useless.
$emulator->config({ page_limit => 1 });
my $early = sub {
	my ($times) = @_;
	$session->query(join(";\n", ('SELECT * FROM users LIMIT 1', 'SELECT * FROM users LIMIT 3', 'SELECT EXISTS (SELECT FROM users)',
		'BEGIN', 'DECLARE a CURSOR FOR SELECT * FROM users', 'FETCH 2 FROM a', 'DECLARE b CURSOR WITH HOLD FOR SELECT * FROM users',
		'FETCH 1 FROM b', 'CLOSE a', 'COMMIT', 'CLOSE b',
		'BEGIN', 'DECLARE a CURSOR FOR SELECT * FROM users', 'FETCH 2 FROM a', 'SAVEPOINT s', 'SELECT * FROM cut', 'ROLLBACK TO s', 'FETCH 1 FROM a', 'ROLLBACK',
		q{ALTER SERVER convex OPTIONS (SET max_retries '1')}, 'SELECT * FROM users LIMIT 1',
		q{ALTER SERVER convex OPTIONS (SET max_retries '0')}, 'SELECT count(*) FROM users',
		q{SELECT convex_fdw_disconnect('convex')}, 'SELECT count(*) FROM users u, users v') x $times), 120);
	return scalar(() = $session->errors =~ /^ERROR:/mg);
};
check('scans that end early', $session, sub { $early->(10) },
	sub { is($early->(60), 60, 'only what is to fail does') });
$emulator->config({ page_limit => 1024 });
$emulator->clear_faults;

# -- writes -------------------------------------------------------------------

$emulator->mutate({ op => 'index', table => 'keyed', fields => ['n'] }, { op => 'create_table', table => 'appended' });
$cluster->value(q{
	CREATE FOREIGN TABLE appended (n int, v text) SERVER convex;
	CREATE FOREIGN TABLE keyed (n int, v text) SERVER convex OPTIONS (primary_key 'n');
	CREATE FOREIGN TABLE closed_appended (n int) SERVER closed;
	CREATE FOREIGN TABLE mute_appended (n int) SERVER mute;
});
my @write_faults = map { { path => '/api/streaming_import', count => -1, where => { table => $_->[0] }, %{ $_->[1] } } }
  (['refused', { action => 'status', status => 400, code => 'TooNestedError' }], ['broken', { action => 'status', status => 500 }],
	['cut', { action => 'apply_then_cut' }], ['reset', { action => 'reset' }]);
for my $table (qw(refused broken cut reset))
{
	$emulator->mutate({ op => 'index', table => $table, fields => ['n'] });
	$cluster->value("CREATE FOREIGN TABLE appended_$table (n int, v text) SERVER convex OPTIONS (table_name '$table'); "
		  . "CREATE FOREIGN TABLE keyed_$table (n int, v text) SERVER convex OPTIONS (table_name '$table', primary_key 'n')");
}
my @failing_writes = ((map { "INSERT INTO appended_$_ VALUES (1, 'a')" } qw(refused broken cut reset)), (map { "INSERT INTO keyed_$_ VALUES (1, 'a')" } qw(refused broken reset)),
	'INSERT INTO closed_appended VALUES (1)', 'UPDATE appended SET n = 1', "INSERT INTO keyed VALUES (NULL, 'a')",
	"BEGIN; INSERT INTO appended SELECT n, repeat('x', 100) FROM generate_series(1, 2000) AS n; SELECT count(*) FROM appended; SELECT 1 / 0; ROLLBACK",
	"BEGIN; INSERT INTO keyed SELECT n, repeat('x', 100) FROM generate_series(1, 500) AS n; UPDATE keyed SET v = 'y'; DELETE FROM keyed WHERE n < 100; SAVEPOINT s; INSERT INTO keyed VALUES (NULL, 'b'); ROLLBACK");
my $writing = sub {
	my ($times) = @_;
	my $failed = 0;
	$emulator->clear_faults;
	$emulator->fault($_) for @write_faults;
	for (1 .. $times)
	{
		$session->query(join(";\n", @failing_writes), 120);
		$failed += () = $session->errors =~ /^ERROR:/mg;
	}
	return $failed;
};
$session->query(q{SET work_mem = '64kB'});
check('failed writes', $session, sub { $writing->(4) }, sub { is($writing->(20), 20 * @failing_writes, 'every write fails') });
$emulator->clear_faults;
my $good = sub {
	my ($times) = @_;
	$session->query(join(";\n", ("INSERT INTO appended SELECT n, repeat('x', 100) FROM generate_series(1, 1000) AS n", 'TRUNCATE appended',
		"INSERT INTO keyed SELECT n, repeat('x', 100) FROM generate_series(1, 300) AS n", "UPDATE keyed SET v = 'z' WHERE n % 2 = 0", 'DELETE FROM keyed',
		'BEGIN', "INSERT INTO keyed VALUES (1, 'a')", 'SAVEPOINT s', "UPDATE keyed SET v = 'b'", 'ROLLBACK TO s', 'SELECT * FROM keyed', 'COMMIT', 'DELETE FROM keyed') x $times), 120);
	return scalar(() = $session->errors =~ /^ERROR:/mg);
};
check('writes', $session, sub { $good->(4) }, sub { is($good->(20), 0, 'no write fails') });
is($session->query('SELECT count(*) FROM pg_ls_tmpdir()'), '0', 'no temporary file is left');

# -- any number of documents in the memory of a few pages --------------------

my $PAGE_OVERHEAD_KB = 8 * 1024;

# The peak that a query adds to a process that has done the same to few rows.
sub growth_kb
{
	my ($small, $large, @settings) = @_;
	my $session = $cluster->session;
	$session->query($_) for @settings, $small, 'SELECT convex_fdw_disconnect_all()';
	my $before = peak_kb($session->pid);
	my $result = $session->query($large, 120);
	my $after = peak_kb($session->pid);
	$session->quit;
	return ($after - $before, $result);
}

$emulator->call('POST', '/_emulator/seed', { seed => 'bench:200000' });
$emulator->call('POST', '/_emulator/seed', { seed => 'bench:10000:wide' });
$cluster->value(<<~'END');
	CREATE FOREIGN TABLE bench (_id text, _creation double precision OPTIONS (column_name '_creationTime'), active boolean,
		amount double precision, count bigint, name text, note text, parent text) SERVER convex;
	CREATE FOREIGN TABLE bench_wide (_id text, address jsonb, amount double precision, body text, checksum bytea, count bigint,
		name text, note text, parent text, scores double precision[], tags text[], title text,
		document jsonb OPTIONS (column_name '*')) SERVER convex;
	CREATE FOREIGN TABLE bench_document (document jsonb OPTIONS (column_name '*')) SERVER convex OPTIONS (table_name 'bench');
	END

sub check_growth
{
	my ($what, $rows, $allowed_kb, $small, $large, @settings) = @_;
	$emulator->clear_journal;
	my ($growth, $result) = growth_kb($small, $large, @settings);
	my @pages = $emulator->journal('/api/list_snapshot');
	my $page_kb = max(map { $_->{bytes} } @pages) / 1024;
	note(sprintf '%s: %d kB beyond pages of %d kB', $what, $growth, $page_kb);
	is($result, $rows, "$what gives every row");
	cmp_ok($growth, '<=', 2.5 * $page_kb + $PAGE_OVERHEAD_KB + $allowed_kb, "$what takes the memory of a few pages");
	return;
}

check_growth('a count of many documents', 200_000, 0, 'SELECT count(_id) FROM users', 'SELECT count(_id) FROM bench');
check_growth('all columns of many documents', 200_000, 0, 'SELECT count(*), max(name) FROM users',
	'SELECT count(row(b.*)) FROM bench AS b WHERE b IS DISTINCT FROM NULL');
check_growth('wide documents', 10_000, 0, 'SELECT count(*), max(name) FROM users',
	'SELECT count(row(b.*)) FROM bench_wide AS b WHERE b IS DISTINCT FROM NULL');
check_growth('whole documents', 200_000, 0, 'SELECT count(*), max(name) FROM users', 'SELECT count(document) FROM bench_document');
check_growth('rows kept for a rescan', 5, 1024, 'SELECT count(*), max(name) FROM users',
	q{SELECT count(*) FROM generate_series(1, 5) AS i, LATERAL (SELECT count(*) AS n FROM bench WHERE count <> i * 8) AS b WHERE n >= 199999},
	q{SET work_mem = '1MB'});
check_growth('a scrolling cursor', "199999\n200000", 1024, 'SELECT count(*), max(name) FROM users',
	q{BEGIN; DECLARE c SCROLL CURSOR FOR SELECT name FROM bench; MOVE 199999 FROM c; MOVE BACKWARD ALL FROM c; SELECT 199999;
	  MOVE ALL FROM c; SELECT 200000; COMMIT},
	q{SET work_mem = '1MB'});

# Writing much takes little: rows wait in a file, requests are of one batch.
my $WRITE_KB = 24 * 1024;
sub check_write_growth
{
	my ($what, $small, $large, @after) = @_;
	my ($growth) = growth_kb($small, $large, q{SET work_mem = '1MB'});
	note(sprintf '%s: %d kB', $what, $growth);
	cmp_ok($growth, '<=', $WRITE_KB, "$what takes little memory");
	return;
}
$emulator->mutate({ op => 'delete_all', table => 'appended' }, { op => 'delete_all', table => 'keyed' });
check_write_growth('an INSERT of 200,000 rows', 'INSERT INTO appended SELECT n FROM generate_series(1, 10000) AS n', 'INSERT INTO appended SELECT n, repeat(md5(n::text), 5) FROM generate_series(1, 200000) AS n');
check_write_growth('its ROLLBACK', 'BEGIN; INSERT INTO appended SELECT n FROM generate_series(1, 10000) AS n; ROLLBACK', 'BEGIN; INSERT INTO appended SELECT n, repeat(md5(n::text), 5) FROM generate_series(1, 300000) AS n; ROLLBACK');
check_write_growth('an INSERT of 50,000 rows by key', 'INSERT INTO keyed SELECT n FROM generate_series(1, 5000) AS n', 'INSERT INTO keyed SELECT n, repeat(md5(n::text), 5) FROM generate_series(1, 50000) AS n');
check_write_growth('an UPDATE of 50,000 documents', q{UPDATE keyed SET v = 'y' WHERE n < 5000}, q{UPDATE keyed SET v = v || 'y'});
check_write_growth('a DELETE of 50,000 documents', q{DELETE FROM keyed WHERE n < 5000}, q{DELETE FROM keyed});

done_testing();
