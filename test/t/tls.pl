# A server is who it says it is, or nothing is sent to it.

use strict;
use warnings;

use ConvexTest;
use File::Temp qw(tempdir);
use IO::Socket::INET;
use IPC::Run ();
use POSIX ();
use Test::More;
use Time::HiRes qw(time);

my $scratch = tempdir('convex_tls.XXXXXX', DIR => $ConvexTest::SCRATCH, CLEANUP => 1);
chmod 0755, $scratch;

# -- authorities and certificates ------------------------------------------------

sub openssl
{
	my (@arguments) = @_;
	my $out = '';
	IPC::Run::run([ 'openssl', @arguments ], '<', \'', '>&', \$out) or BAIL_OUT("openssl @arguments: $out");
	return;
}

sub write_file
{
	my ($name, $text) = @_;
	open(my $file, '>', "$scratch/$name") or die "$name: $!\n";
	print $file $text;
	close $file;
	chmod 0644, "$scratch/$name";
	return "$scratch/$name";
}

sub authority
{
	my ($name) = @_;
	openssl('req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-days', '2', '-subj', "/CN=$name",
		'-keyout', "$scratch/$name.key", '-out', "$scratch/$name.crt", '-addext', 'basicConstraints=critical,CA:TRUE');
	chmod 0644, "$scratch/$name.crt";
	return;
}

# A certificate for names, signed by an authority, from and to a date.
sub certificate
{
	my ($name, $authority, $names, $from, $to) = @_;
	my $now = time;
	my $date = sub { POSIX::strftime('%Y%m%d%H%M%SZ', gmtime($now + 86400 * $_[0])) };
	write_file("$name.cnf", <<~END);
		[ca]
		default_ca = own
		[own]
		dir = $scratch
		database = $scratch/$name.index
		new_certs_dir = $scratch
		rand_serial = yes
		default_md = sha256
		policy = any
		x509_extensions = extensions
		[any]
		commonName = supplied
		[extensions]
		subjectAltName = $names
		[req]
		distinguished_name = own_name
		[own_name]
		END
	write_file("$name.index", '');
	openssl('req', '-new', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-config', "$scratch/$name.cnf", '-subj', "/CN=127.0.0.1",
		'-keyout', "$scratch/$name.key", '-out', "$scratch/$name.csr");
	openssl('ca', '-batch', '-notext', '-config', "$scratch/$name.cnf", '-cert', "$scratch/$authority.crt", '-keyfile', "$scratch/$authority.key",
		'-startdate', $date->($from // -1), '-enddate', $date->($to // 2), '-in', "$scratch/$name.csr", '-out', "$scratch/$name.crt");
	return ("$scratch/$name.crt", "$scratch/$name.key");
}

authority($_) for qw(good other);
my %pair = (
	good => [ certificate('right', 'good', 'IP:127.0.0.1,DNS:localhost') ],
	wrong_name => [ certificate('wrong_name', 'good', 'DNS:convex.example,IP:127.0.0.2') ],
	expired => [ certificate('expired', 'good', 'IP:127.0.0.1', -10, -1) ],
	early => [ certificate('early', 'good', 'IP:127.0.0.1', 1, 2) ],
	other => [ certificate('stranger', 'other', 'IP:127.0.0.1') ]);

# What the machine's OpenSSL allows must not matter.
my $weak = write_file('openssl.cnf', <<~'END');
	openssl_conf = all
	[all]
	ssl_conf = ssl
	[ssl]
	system_default = weak
	[weak]
	MinProtocol = None
	CipherString = ALL:@SECLEVEL=0
	END
# Nor must a wish for the secrets of its sessions.
my $secrets = write_file('secrets', '');
chmod 0666, $secrets;
my $cluster = ConvexTest::Cluster->new(env => { OPENSSL_CONF => $weak, SSLKEYLOGFILE => $secrets });
my $plain = ConvexTest::Emulator->new;
$cluster->setup($plain);

my %emulator;
for my $name (sort keys %pair)
{
	my ($crt, $key) = @{ $pair{$name} };
	my $scratch_emulator = ConvexTest::Emulator->new(seed => 'demo', args => [ '--tls-cert', $crt, '--tls-key', $key ]);
	$emulator{$name} = $scratch_emulator;
}

my $n = 0;

# A server at a URL with options; gives a query that reads a table there.
sub table_at
{
	my ($url, %option) = @_;
	my $name = 'tls_' . ++$n;
	%option = (connect_timeout => '60s', %option);
	my $options = join '', map { ", $_ '$option{$_}'" } sort keys %option;
	$cluster->value(<<~END);
		CREATE SERVER $name FOREIGN DATA WRAPPER convex_fdw
			OPTIONS (deployment_url '$url', max_retry_wait '1ms'$options);
		SELECT format('CREATE USER MAPPING FOR CURRENT_USER SERVER $name OPTIONS (deploy_key %L)', emu.key()) \\gexec
		CREATE FOREIGN TABLE ${name}_users (_id text, name text) SERVER $name OPTIONS (table_name 'users');
		END
	return $name;
}

sub fails
{
	my ($state, $what, $url, %option) = @_;
	my $name = table_at($url, max_retries => 0, %option);
	my (undef, $out, $err) = $cluster->try_psql("SELECT * FROM ${name}_users");
	like($err, qr/ERROR:  $state:/, "$what is $state");
	is($out, '', "$what gives no row");
	like($err, qr/^HINT:  /m, "$what comes with a hint");
	return $err;
}

# What has a TLS emulator been asked? Its control needs TLS as well.
sub journal
{
	my ($name) = @_;
	my $out = '';
	IPC::Run::run([ 'curl', '-q', '-sSk', '--noproxy', '*', $emulator{$name}->url . '/_emulator/journal' ], '>', \$out);
	return scalar(() = $out =~ /"method"/g);
}

# -- certificates --------------------------------------------------------------

my $ca = "$scratch/good.crt";
my $good_url = $emulator{good}->url;
my $good = table_at($good_url, ca_file => $ca);
cmp_ok($cluster->value("SELECT count(*) FROM ${good}_users"), '>', 0, 'with its authority in ca_file a server is read');
(my $localhost_url = $good_url) =~ s/127\.0\.0\.1/localhost/;
my $local = table_at($localhost_url, ca_file => $ca);
cmp_ok($cluster->value("SELECT count(*) FROM ${local}_users"), '>', 0, 'and by each name of its certificate');
my $requests = journal('good');

like(fails('HV00N', 'an authority that nobody knows', $good_url), qr/ca_file/, 'and the hint names ca_file');
fails('HV00N', 'another authority', $good_url, ca_file => "$scratch/other.crt");
fails('HV00N', 'an authority file that is not there', $good_url, ca_file => "$scratch/missing.crt");
fails('HV00N', 'an authority file that is none', $good_url, ca_file => write_file('none.crt', "no certificate\n"));
is(journal('good'), $requests, 'and nothing has been sent');

fails('HV00N', 'a certificate for another name', $emulator{wrong_name}->url, ca_file => $ca);
like(fails('HV00N', 'a certificate that has expired', $emulator{expired}->url, ca_file => $ca), qr/^HINT:.*clock/m, 'and the hint names the clock');
like(fails('HV00N', 'a certificate that is not valid yet', $emulator{early}->url, ca_file => $ca), qr/^HINT:.*clock/m, 'and so does this one');
fails('HV00N', 'a certificate of another authority', $emulator{other}->url, ca_file => $ca);
is(journal($_), 0, "and nothing has been sent ($_)") for qw(wrong_name expired early other);

my $unknown = table_at($good_url, max_retries => 3);
my (undef, undef, $err) = $cluster->try_psql("SELECT * FROM ${unknown}_users");
like($err, qr/\b1 attempt/, 'a certificate is not asked for again in the hope of a better one');
like($cluster->value("SELECT string_agg(check_name, ',') FROM convex_test_connection('$unknown') WHERE NOT ok"), qr/\btls\b/,
	'convex_test_connection tells that it is the certificate');
like($cluster->value("SELECT string_agg(check_name, ',') FROM convex_test_connection('$good') WHERE ok"), qr/\btls\b/,
	'or that it is good');

# A certificate that changes, and a session that has been connected before.
my $session = $cluster->session;
$session->query("SELECT count(*) FROM ${good}_users");
is($session->sqlstate, '', 'a session is connected');
$cluster->value("ALTER SERVER $good OPTIONS (SET ca_file '$scratch/other.crt')");
$session->query("SELECT count(*) FROM ${good}_users");
is($session->sqlstate, 'HV00N', 'an authority that is changed counts at once');
$cluster->value("ALTER SERVER $good OPTIONS (SET ca_file '$ca')");
cmp_ok($session->query("SELECT count(*) FROM ${good}_users"), '>', 0, 'and so does changing it back');
$session->quit;

# The same file with other contents: nothing that was learned from the old ones
# is kept, for a pooled connection or for a scan that is under way.
my $rotating = "$scratch/rotating.crt";

sub rotate
{
	my ($authority) = @_;
	write_file('rotating.new', ConvexTest::slurp("$scratch/$authority.crt"));
	rename("$scratch/rotating.new", $rotating) or die "rotate: $!\n";
	return;
}
rotate('good');
my $rotated = table_at($good_url, ca_file => $rotating, max_retries => 0);
$session = $cluster->session;
cmp_ok($session->query("SELECT count(*) FROM ${rotated}_users"), '>', 0, 'a session is connected');
$session->query("BEGIN; DECLARE walk CURSOR FOR SELECT FROM ${rotated}_users");
rotate('other');
$session->query("FETCH ALL FROM walk");
is($session->sqlstate, 'HV00N', 'an authority that is withdrawn is not trusted any more');
$session->query('ROLLBACK');
$session->query("INSERT INTO ${rotated}_users (name) VALUES ('Eve')");
is($session->sqlstate, 'HV00N', 'nor for a write');
rotate('good');
cmp_ok($session->query("SELECT count(*) FROM ${rotated}_users"), '>', 0, 'one that is new in the file is, at once');
$session->query("BEGIN; DECLARE one CURSOR FOR SELECT FROM ${rotated}_users; FETCH 1 FROM one; DECLARE two CURSOR FOR SELECT FROM ${rotated}_users");
rotate('other');
$session->query("FETCH 1 FROM two");
is($session->sqlstate, 'HV00N', 'and a transaction that has read does not go on reading from a server that is no longer trusted');
$session->quit;

# -- protocols -------------------------------------------------------------------

# A server that speaks one version of TLS and answers every request with a page
# of HTML: HV00M means that the handshake came to an end. Or it demands a
# certificate.
my $one_version = write_file('one_version.py', <<~'END');
	import http.server, ssl, sys
	class Handler(http.server.BaseHTTPRequestHandler):
	    def do_POST(self):
	        self.rfile.read(int(self.headers["content-length"]))
	        self.send_response(200)
	        self.end_headers()
	        self.wfile.write(b"<html>")
	    def log_message(self, *arguments):
	        pass
	context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
	context.set_ciphers("ALL:@SECLEVEL=0")
	context.minimum_version = context.maximum_version = ssl.TLSVersion[sys.argv[3]]
	context.load_cert_chain(sys.argv[1], sys.argv[2])
	if len(sys.argv) > 4:
	    context.load_verify_locations(sys.argv[4])
	    context.verify_mode = ssl.CERT_REQUIRED
	server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
	server.socket = context.wrap_socket(server.socket, server_side=True)
	print("port", server.server_port, flush=True)
	server.serve_forever()
	END
for my $case ([ 'HV00N', 'TLSv1', '-tls1' ], [ 'HV00N', 'TLSv1_1', '-tls1_1' ], [ 'HV00M', 'TLSv1_2', '-tls1_2' ], [ 'HV00M', 'TLSv1_3', '-tls1_3' ])
{
	my ($state, $version, $flag) = @$case;
	my ($in, $out, $seen) = ('', '', '');
	my $harness = IPC::Run::start([ 'python3', '-W', 'ignore', $one_version, @{ $pair{good} }, $version ], '<', \$in, '>', \$out);
	$harness->pump until $out =~ /^port (\d+)$/m;
	my $port = $1;

	# Only a refusal of ours counts: another client must get through.
	local $ENV{OPENSSL_CONF} = $weak;
	IPC::Run::run([ 'openssl', 's_client', '-connect', "127.0.0.1:$port", $flag, '-cipher', 'ALL:@SECLEVEL=0' ], '<', \"Q\n", '>&', \$seen);
	SKIP:
	{
		skip "this OpenSSL has no $version", $state eq 'HV00N' ? 4 : 3 if $seen !~ /^New, (?:TLS|SSL)v.*Cipher is (?!\(NONE\))/m;
		my $said = fails($state, "a server with $version", "https://127.0.0.1:$port", ca_file => $ca, request_timeout => '60s');
		like($said, qr/secure connection.*^HINT:.*no version of TLS in common/ms, 'and the hint says why') if $state eq 'HV00N';
	}
	$harness->kill_kill(grace => 1);
}

# A demand for a certificate, of which we have none. With TLS 1.3 the server says
# so when our request is under way. It has not looked at it; but where the end of
# the connection overtakes the alert, it is only known that it has asked.
for my $version (qw(TLSv1_2 TLSv1_3))
{
	my ($in, $out) = ('', '');
	my $harness = IPC::Run::start([ 'python3', '-W', 'ignore', $one_version, @{ $pair{good} }, $version, $ca ], '<', \$in, '>', \$out, '2>', '/dev/null');
	$harness->pump until $out =~ /^port (\d+)$/m;
	my $name = table_at("https://127.0.0.1:$1", ca_file => $ca, request_timeout => '5s', max_retries => 3);
	for my $sql ("SELECT * FROM ${name}_users", "INSERT INTO ${name}_users (name) VALUES ('Eve')")
	{
		my (undef, undef, $error) = $cluster->try_psql($sql);
		my $overtaken = $version eq 'TLSv1_3' ? qr/asked for a client certificate/ : qr/(?!)/;
		like($error, qr/ERROR:  28000: .*demands a client certificate|$overtaken/, "a certificate that is demanded with $version is told");
		like($error, qr/\b1 attempt\b|$overtaken|tlsv13/, 'and not waited for');
	}
	like($cluster->value("SELECT string_agg(check_name, ',') FROM convex_test_connection('$name') WHERE NOT ok"), $version eq 'TLSv1_3' ? qr/\b(?:tls|url)\b/ : qr/\btls\b/, 'convex_test_connection names it');
	$harness->kill_kill(grace => 1);
}

# -- one protocol for the other --------------------------------------------------

# Answers whatever comes first with these bytes, then closes.
sub answer_with
{
	my ($bytes) = @_;
	my $listener = IO::Socket::INET->new(Listen => 5, LocalAddr => '127.0.0.1') or die "listen: $!\n";
	my $pid = fork // die "fork: $!\n";
	if ($pid == 0)
	{
		$SIG{TERM} = 'DEFAULT';
		while (my $client = $listener->accept)
		{
			$client->sysread(my $hello, 4096);
			$client->syswrite($bytes) if length $bytes;
			close $client;
		}
		POSIX::_exit(0);
	}
	return ($pid, $listener->sockport);
}
my @servers;
for my $case (
	[ 'a plain server behind an https URL', "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n", qr/^HINT:.*does not speak TLS/m ],
	[ 'a server that hangs up on the handshake', '' ],
	[ 'a server that answers the handshake with an alert', "\x15\x03\x03\x00\x02\x02\x28", qr/^HINT:.*refused the TLS handshake/m ],
	[ 'a server that answers the handshake with noise', join '', map { chr int rand 256 } 1 .. 3000 ])
{
	my ($what, $bytes, $hint) = @$case;
	my ($pid, $port) = answer_with($bytes);
	push @servers, $pid;
	my $said = fails('HV00N', $what, "https://127.0.0.1:$port", ca_file => $ca);
	like($said, $hint, 'and the hint says so') if $hint;
}
kill 'TERM', @servers;
waitpid $_, 0 for @servers;

(my $https_to_plain = $plain->url) =~ s/^http:/https:/;
my $begun = time;
fails('HV00N', 'a server that waits for more than a handshake', $https_to_plain, ca_file => $ca, connect_timeout => '300ms');
cmp_ok(time - $begun, '<', 30, 'connect_timeout covers the handshake');
(my $plain_to_tls = $good_url) =~ s/^https:/http:/;
fails('(?:HV00M|08006)', 'a TLS server behind an http URL', $plain_to_tls);

# -- what works without TLS works with it ----------------------------------------

my $big = ConvexTest::Emulator->new(seed => 'bench:20000', args => [ '--tls-cert', $pair{good}[0], '--tls-key', $pair{good}[1] ]);
my $bench = table_at($big->url, ca_file => $ca);
$cluster->value("CREATE FOREIGN TABLE bench (_id text, count bigint) SERVER $bench");
is($cluster->value('SELECT count(*), sum(count) FROM bench'), '20000|' . (7 * 20000 * 19999 / 2 - 1000 * 20000), 'many pages come whole through TLS');
my $fault = sub {
	my ($body) = @_;
	my $out = '';
	IPC::Run::run([ 'curl', '-q', '-sSk', '--noproxy', '*', '-d', $body, $big->url . '/_emulator/faults' ], '>&', \$out) or die "curl: $out\n";
};
$fault->('{"path": "/api/list_snapshot", "action": "stall", "at": "body", "after_bytes": 5000, "seconds": 60, "count": -1}');
$begun = time;
is($cluster->sqlstate(q{SET statement_timeout = '300ms'; SELECT count(_id) FROM bench}), '57014', 'a stall within TLS ends in time');
cmp_ok(time - $begun, '<', 30, 'which is soon');

# A proxy's consent to CONNECT is no answer: what counts from then on is
# request_timeout, and nothing has been sent before the server's handshake.
IPC::Run::run([ 'curl', '-q', '-sSk', '--noproxy', '*', '-X', 'DELETE', $big->url . '/_emulator/faults' ], '>', \my $none);
$fault->('{"path": "/api/list_snapshot", "action": "stall", "at": "headers", "seconds": 0.7, "count": 1}');
my $relay = write_file('relay.py', <<~'END');
	import os, socketserver, socket, sys, threading
	class Relay(socketserver.BaseRequestHandler):
	    def handle(self):
	        head = b""
	        while b"\r\n\r\n" not in head:
	            head += self.request.recv(65536)
	        host, port = head.split()[1].decode().split(":")
	        with socket.create_connection((host, int(port))) as server:
	            self.request.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
	            threading.Thread(target=pump, args=(self.request, server), daemon=True).start()
	            pump(server, self.request)
	def pump(source, sink):
	    try:
	        while data := source.recv(65536):
	            sink.sendall(data)
	        sink.shutdown(socket.SHUT_WR)
	    except OSError:
	        pass
	class Server(socketserver.ThreadingTCPServer):
	    daemon_threads = True
	server = Server(("127.0.0.1", 0), Relay)
	print("port", server.server_address[1], flush=True)
	threading.Thread(target=server.serve_forever, daemon=True).start()
	sys.stdin.read()
	END
my ($in, $out) = ('', '');
my $harness = IPC::Run::start([ 'python3', $relay ], '<', \$in, '>', \$out);
$harness->pump until $out =~ /^port (\d+)$/m;
my $proxy = "http://127.0.0.1:$1";
my $tunnelled = table_at($big->url, ca_file => $ca, http_proxy => $proxy, request_timeout => '20s', idle_timeout => '300ms');
$cluster->value("CREATE FOREIGN TABLE tunnelled (_id text, count bigint) SERVER $tunnelled OPTIONS (table_name 'bench')");
is($cluster->value('SELECT count(*) FROM (SELECT FROM tunnelled LIMIT 5) AS t'), '5', "a server behind a proxy has as much time for its answer as one that is reached directly");
$fault->('{"path": "/api/streaming_import/import_airbyte_records", "action": "stall", "at": "headers", "seconds": 60, "count": 1}');
my $lost = table_at($big->url, ca_file => $ca, http_proxy => $proxy, request_timeout => '500ms');
is($cluster->sqlstate("INSERT INTO ${lost}_users (name) VALUES ('Eve')"), '08007', 'and what it may have received is told');
my $mute = IO::Socket::INET->new(Listen => 5, LocalAddr => '127.0.0.1') or die "listen: $!\n";
my $silent = table_at('https://127.0.0.1:' . $mute->sockport, ca_file => $ca, http_proxy => $proxy, connect_timeout => '500ms', max_retries => 0);
is($cluster->sqlstate("INSERT INTO ${silent}_users (name) VALUES ('Eve')"), 'HV00N', 'but not where the handshake has not come to an end');
my $direct = table_at('https://127.0.0.1:' . $mute->sockport, ca_file => $ca, connect_timeout => '500ms', max_retries => 0);
is($cluster->sqlstate("INSERT INTO ${direct}_users (name) VALUES ('Eve')"), 'HV00N', 'nor without a proxy');
$harness->kill_kill(grace => 1);
is(-s $secrets, 0, 'no secret of a session has been written, whatever SSLKEYLOGFILE says');

done_testing();
