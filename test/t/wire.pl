# HTTP as it comes from a hostile or broken peer, names that lead elsewhere, and
# an environment that would like the requests for itself.

use strict;
use warnings;

use Compress::Zlib ();
use ConvexTest;
use File::Temp qw(tempdir);
use IO::Socket::INET;
use POSIX ();
use Socket qw(SOCK_NONBLOCK SOCK_STREAM AF_INET inet_aton pack_sockaddr_in);
use Test::More;
use feature 'state';
use Time::HiRes qw(sleep time);

my $scratch = tempdir('convex_wire.XXXXXX', DIR => $ConvexTest::SCRATCH, CLEANUP => 1);
chmod 0755, $scratch;
system(split(' ', $ENV{CC} || 'cc'), '-shared', '-fPIC', '-o', "$scratch/preload.so", map("$ConvexTest::TOP/test/unit/$_.c", qw(names memory)), '-ldl') == 0
  or BAIL_OUT('the preloaded library does not compile');

# A peer that answers every request on a connection with the bytes of a file and
# then keeps silent, closes, or goes on: with headers for ever, or with what comes
# after the line `more` of the file, again and again, or every 100 ms (drip), or
# once after 500 ms (late). It notes what it was sent.
sub peer
{
	my $listener = IO::Socket::INET->new(Listen => 50, LocalAddr => '127.0.0.1') or die "listen: $!\n";
	my $self = { port => $listener->sockport, answer => "$scratch/answer.$$." . $listener->sockport };
	$self->{requests} = "$self->{answer}.requests";
	$self->{pid} = fork // die "fork: $!\n";
	return $self if $self->{pid};
	$SIG{TERM} = 'DEFAULT';
	$SIG{PIPE} = 'IGNORE';
	while (my $client = $listener->accept)
	{
		while (1)
		{
			my $request = '';
			while ($request !~ /\r\n\r\n/ || length($') < ($request =~ /^content-length: (\d+)/mi ? $1 : 0))
			{
				last unless $client->sysread($request, 65536, length $request);
			}
			last if $request eq '';
			open(my $log, '>>', $self->{requests});
			print $log $request, "\n\0";
			close $log;
			my ($then, $bytes) = split /\n/, ConvexTest::slurp($self->{answer}), 2;
			($bytes, my $more) = split /\nmore\n/, $bytes, 2;
			$client->syswrite($bytes);
			if ($then eq 'flood')
			{
				my $block = $more x (1 + 65536 / length $more);
				while ($client->syswrite($block)) { }
			}
			if ($then eq 'drip')
			{
				do { sleep 0.1 } while $client->syswrite($more);
			}
			if ($then eq 'late')
			{
				sleep 0.5;
				$client->syswrite($more);
				$then = 'again';
			}
			if ($then eq 'endless')
			{
				while ($client->syswrite('X-Endless: ' . 'x' x 1000 . "\r\n")) { }
			}
			$client->sysread(my $rest, 1) if $then eq 'silence';
			last if $then ne 'again';
		}
		close $client;
	}
	POSIX::_exit(0);
}
my $peer = peer();
my $proxy = peer();
END { kill 'KILL', map { $_->{pid} } grep { $_ && $_->{pid} } $peer, $proxy }

sub answer
{
	my ($to, $then, $bytes) = @_;
	open(my $file, '>:raw', "$to->{answer}.new") or die "answer: $!\n";
	print $file "$then\n$bytes";
	close $file;
	rename("$to->{answer}.new", $to->{answer}) or die "answer: $!\n";
	unlink $to->{requests};
	return;
}

sub requests
{
	my ($to) = @_;
	return -e $to->{requests} ? split(/\n\0/, ConvexTest::slurp($to->{requests})) : ();
}

# An environment full of traps.
mkdir "$scratch/home";
open(my $netrc, '>', "$scratch/home/.netrc") or die "netrc: $!\n";
print $netrc "default login evil password evil\nmachine 127.0.0.1 login evil password evil\n";
close $netrc;
chmod 0644, "$scratch/home/.netrc";
chmod 0755, "$scratch/home";
my $proxy_url = "http://127.0.0.1:$proxy->{port}";
my $cluster = ConvexTest::Cluster->new(env => {
		LD_PRELOAD => "$scratch/preload.so", HOME => "$scratch/home", NETRC => "$scratch/home/.netrc",
		map { ($_ => $proxy_url) } qw(http_proxy https_proxy HTTP_PROXY HTTPS_PROXY all_proxy ALL_PROXY) });
my $emulator = ConvexTest::Emulator->new;
$emulator->insert('users', { name => 'Ada' });
$cluster->convex($emulator, options => "max_retries '0'");
my $port = $emulator->port;
answer($proxy, 'close', "HTTP/1.1 502 Bad Gateway\r\nContent-Length: 5\r\n\r\nproxy");

my $n = 0;

sub table_at
{
	my ($url, $options) = @_;
	my $name = 'wire_' . ++$n;
	$options = $options ? ", $options" : '';
	$cluster->value(<<~END);
		CREATE SERVER $name FOREIGN DATA WRAPPER convex_fdw OPTIONS (deployment_url '$url', max_retry_wait '1ms'$options);
		SELECT format('CREATE USER MAPPING FOR CURRENT_USER SERVER $name OPTIONS (deploy_key %L)', emu.key()) \\gexec
		CREATE FOREIGN TABLE ${name}_users (_id text, name text) SERVER $name OPTIONS (table_name 'users');
		END
	return "${name}_users";
}

# -- the environment --------------------------------------------------------------

$cluster->value('CREATE FOREIGN TABLE users (_id text, name text) SERVER convex');
is($cluster->value('SELECT name FROM users'), 'Ada', 'a server is reached without the proxy of the environment');
is(join('', requests($proxy)), '', 'which is asked nothing');
my ($seen) = $emulator->journal('/api/list_snapshot');
like($seen->{headers}{authorization}, qr/^Convex prod:happy-otter-123\|/, 'and the key is not replaced by what a netrc says');
unlike($seen->{headers}{authorization}, qr/evil/, 'of which nothing is sent');
my $by_name = table_at("http://localhost:$port", q{max_retries '0'});
is($cluster->value("SELECT name FROM $by_name"), 'Ada', 'nor is a proxy asked for a name');

# The proxy that a superuser sets is used.
answer($proxy, 'close', "HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\nproxied");
my $proxied = table_at("http://127.0.0.1:$port", qq{max_retries '0', http_proxy '$proxy_url'});
is($cluster->sqlstate("SELECT * FROM $proxied"), 'HV00M', 'the option http_proxy is obeyed');
like((requests($proxy))[0], qr{^POST http://127\.0\.0\.1:$port/api/list_snapshot HTTP/1\.1\r\n}, 'and asked for the server');

# What a proxy says to CONNECT, before anything is sent to the server.
answer($peer, 'close', '');
for my $case (
	[ 'no credentials', '28000', 1, 'close', "HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic realm=\"x\"\r\nContent-Length: 0\r\n\r\n" ],
	[ 'credentials and an endless page', '28000', 1, 'flood', "HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 900000000000\r\n\r\n\nmore\n<p>" ],
	[ 'a refusal', '42501', 1, 'close', "HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno" ],
	[ 'a refusal with an endless page', '42501', 1, 'flood', "HTTP/1.1 403 Forbidden\r\n\r\n\nmore\n<p>" ],
	[ 'endless headers', 'HV00M|HV00N', 2, 'flood', "HTTP/1.1 200 OK\r\n\nmore\nA: b\r\n" ],
	[ 'a server that it does not reach', 'HV00N', 2, 'close', "HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n" ],
	[ 'no answer', 'HV00N', 2, 'close', '' ],
	[ 'an answer and silence', 'HV00N', 2, 'silence', "HTTP/1.1 200 OK\r\n\r\n" ],
	[ 'a consent and no server', 'HV00N', 2, 'close', "HTTP/1.1 200 OK\r\n\r\n" ])
{
	my ($what, $state, $times, $then, $bytes) = @$case;
	state $table = table_at('https://127.0.0.1:9', qq{max_retries '1', http_proxy '$proxy_url', connect_timeout '500ms', request_timeout '700ms'});
	answer($proxy, $then, $bytes);
	like($cluster->sqlstate("SELECT * FROM $table"), qr/^(?:$state)$/, "a proxy that answers CONNECT with $what is $state");
	cmp_ok(scalar(requests($proxy)), '<=', $times, "asked $times time(s) at most");
	like($cluster->sqlstate("INSERT INTO $table (name) VALUES ('Eve')"), qr/^(?:$state)$/, 'for a write, too');
}

# -- names ------------------------------------------------------------------------

for my $case (
	[ 'private.test', '10.1.2.3' ], [ 'metadata.test', '169.254.169.254' ], [ 'this-network.test', '0.0.0.0' ])
{
	my ($host, $address) = @$case;
	for my $url ("https://$host", "http://$host:$port")
	{
		my $table = table_at($url, q{max_retries '0', allow_insecure_http 'true', connect_timeout '60s'});
		my $begun = time;
		my ($status, undef, $err) = $cluster->try_psql("SELECT * FROM $table");
		like($err, qr/ERROR:  42501:/, "$url is refused for its address");
		like($err, qr/\Q$address\E/, "which is told ($url)");
		cmp_ok(time - $begun, '<', 30, "at once ($url)");
	}
}
$emulator->clear_journal;
my $elsewhere = table_at("http://this-network.test:$port", q{max_retries '0', allow_insecure_http 'true'});
is($cluster->sqlstate("SELECT * FROM $elsewhere"), '42501', 'a name that leads to 0.0.0.0 is refused');
is(scalar($emulator->journal), 0, 'before a byte is sent');
is($cluster->value("SET convex_fdw.allowed_hosts = 'this-network.test'; SELECT name FROM $elsewhere"), 'Ada', 'unless it is listed');
is($cluster->sqlstate("SET convex_fdw.allowed_hosts = '0.0.0.0'; SELECT name FROM $elsewhere"), '42501', 'by its name, not by its address');
my $loopback = table_at("http://loopback.test:$port", q{max_retries '0', allow_insecure_http 'true'});
is($cluster->value("SELECT name FROM $loopback"), 'Ada', 'a name that leads to loopback is reached');
for my $host (qw(private-first.test loopback-first.test))
{
	my $table = table_at("http://$host:$port", q{max_retries '0', allow_insecure_http 'true', connect_timeout '60s'});
	my (undef, $out, $err) = $cluster->try_psql("SELECT name FROM $table");
	ok($out eq 'Ada' || $err =~ /ERROR:  42501:/, "of the addresses of $host only the good one is used");
	$table = table_at("https://$host:1", q{max_retries '0', connect_timeout '60s'});
	my $begun = time;
	like($cluster->sqlstate("SELECT name FROM $table"), qr/^(?:42501|HV00N)$/, "and not the other one when it fails ($host)");
	cmp_ok(time - $begun, '<', 30, "at once ($host)");
}

# Of two addresses the first connects late; meanwhile the second one is tried,
# which is refused. What the first one then answers counts.
my $late = IO::Socket::INET->new(Listen => 1, LocalAddr => '127.0.0.1') or die "listen: $!\n";
my @waiting = map {
	socket(my $socket, AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0) or die "socket: $!\n";
	connect($socket, pack_sockaddr_in($late->sockport, inet_aton('127.0.0.1')));
	$socket
} 1 .. 10;
my $both = table_at('http://two-families.test:' . $late->sockport, q{max_retries '0', allow_insecure_http 'true'});
my $writer = $cluster->session;
$writer->send("INSERT INTO $both (name) VALUES ('Eve')");
sleep 0.5;
@waiting = ();
my $late_pid = fork // die "fork: $!\n";
if ($late_pid == 0)
{
	$SIG{TERM} = 'DEFAULT';
	while (my $client = $late->accept)
	{
		my $request = '';
		while ($client->sysread($request, 65536, length $request)) { last if $request =~ /Eve/ }
		$client->syswrite("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n") if $request ne '';
		close $client;
	}
	POSIX::_exit(0);
}
$writer->finish;
is($writer->sqlstate, '', 'an address that is refused while another one answers does not undo the answer');
$writer->quit;
kill 'TERM', $late_pid;
waitpid $late_pid, 0;

# -- answers ------------------------------------------------------------------------

my $page = '{"values":[{"_component":"","_table":"users","_ts":1700000000000000000,"_creationTime":1.5,"_id":"j57","name":"Eve"}],'
  . '"snapshot":1700000000000000001,"cursor":null,"hasMore":false}';
my $length = length $page;

sub packed { my ($text) = @_; return Compress::Zlib::memGzip($text) }
sub http { my ($headers, $body) = @_; return "HTTP/1.1 200 OK\r\n$headers\r\n$body" }
sub whole { my ($headers, $body) = @_; return http($headers . 'Content-Length: ' . length($body) . "\r\n", $body) }
sub chunked { my ($size) = @_; return join '', map { sprintf("%x\r\n%s\r\n", length, $_) } $page =~ /(.{1,$size})/gs }
my $gzip = "Content-Encoding: gzip\r\n";
my $chunks = "Transfer-Encoding: chunked\r\n";

# answer => what it is: rows, or the SQLSTATEs it may have
my @answers = (
	[ 'an answer that ends with the connection', 'rows', 'close', http('', $page) ],
	[ 'an answer of HTTP/1.0', 'rows', 'close', "HTTP/1.0 200 OK\r\n\r\n$page" ],
	[ 'an answer without a reason', 'rows', 'again', "HTTP/1.1 200\r\nContent-Length: $length\r\n\r\n$page" ],
	[ 'lines that end with LF alone', 'rows', 'again', "HTTP/1.1 200 OK\nContent-Length: $length\n\n$page" ],
	[ 'chunks', 'rows', 'again', http($chunks, chunked(50) . "0\r\n\r\n") ],
	[ 'chunks of one byte', 'rows', 'again', http($chunks, chunked(1) . "0\r\n\r\n") ],
	[ 'chunks with extensions and a trailer', 'rows', 'again', http($chunks, do { (my $c = chunked(50)) =~ s/\r\n/;a="b"\r\n/; $c } . "0\r\nX-Trailer: 1\r\n\r\n") ],
	[ 'gzip', 'rows', 'again', whole($gzip, packed($page)) ],
	[ 'gzip in chunks', 'rows', 'again', do { my $z = packed($page); http($gzip . $chunks, sprintf("%x\r\n", length $z) . $z . "\r\n0\r\n\r\n") } ],
	[ 'deflate', 'rows', 'again', whole("Content-Encoding: deflate\r\n", Compress::Zlib::compress($page)) ],
	[ 'gzip twice', 'rows|HV00M', 'again', whole("Content-Encoding: gzip, gzip\r\n", packed(packed($page))) ],
	[ 'an interim answer first', 'rows', 'again', "HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" . whole('', $page) ],
	[ 'a hundred interim answers first', 'rows', 'again', "HTTP/1.1 100 Continue\r\n\r\n" x 100 . whole('', $page) ],
	[ 'many headers', 'rows', 'again', whole(join('', map { "X-Header-$_: value\r\n" } 1 .. 500), $page) ],
	[ 'a Location with status 200', 'rows', 'again', whole("Location: http://127.0.0.1:$port/\r\n", $page) ],
	[ 'no HTTP at all', 'HV00M', 'close', "220 mail.example.com ESMTP\r\n" ],
	[ 'JSON without HTTP', 'HV00M', 'close', $page ],
	[ 'noise', 'HV00M|08006', 'close', join '', map { chr int rand 256 } 1 .. 2000 ],
	[ 'a protocol of another century', 'HV00M', 'close', "HTTP/7.7 200 OK\r\n\r\n$page" ],
	[ 'a status that is no number', 'HV00M', 'close', "HTTP/1.1 abc OK\r\n\r\n$page" ],
	[ 'a switch of protocols', 'HV00M|08006', 'close', "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n$page" ],
	[ 'headers without an end', 'HV00M|08006', 'close', "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n" ],
	[ 'a zero byte in a header', 'HV00M|08006', 'close', whole("X-Header: a\0b\r\n", $page) ],
	[ 'a header of 300 kB', 'HV00M|08006', 'close', whole('X-Header: ' . 'x' x 300_000 . "\r\n", $page) ],
	[ 'a length that is negative', 'HV00M|08006', 'close', http("Content-Length: -5\r\n", $page) ],
	[ 'a length that is no number', 'HV00M|08006', 'close', http("Content-Length: many\r\n", $page) ],
	[ 'a length beyond 64 bits', 'rows|54000|HV00M|08006', 'close', http("Content-Length: 99999999999999999999\r\n", $page) ],
	[ 'a length of 900 GB', '54000|08006', 'close', http("Content-Length: 900000000000\r\n", $page) ],
	[ 'a length of 900 GB and silence', '54000|08006', 'silence', http("Content-Length: 900000000000\r\n", $page) ],
	[ 'a length that is too long', '08006', 'close', http('Content-Length: ' . ($length + 1) . "\r\n", $page) ],
	[ 'a length that is too long and silence', '08006', 'silence', http('Content-Length: ' . ($length + 1) . "\r\n", $page) ],
	[ 'a length that is too short', 'HV00M', 'close', http('Content-Length: ' . ($length - 1) . "\r\n", $page) ],
	[ 'no length and silence', '08006', 'silence', http('', $page) ],
	[ 'chunks that are cut', '08006', 'close', http($chunks, chunked(50)) ],
	[ 'chunks that stop', '08006', 'silence', http($chunks, chunked(50)) ],
	[ 'a chunk whose size is no number', 'HV00M|08006', 'close', http($chunks, "zz\r\n$page\r\n0\r\n\r\n") ],
	[ 'a chunk of 2^63 bytes', 'HV00M|08006|54000', 'close', http($chunks, "8000000000000000\r\n$page\r\n0\r\n\r\n") ],
	[ 'a chunk longer than it says', 'HV00M|08006', 'close', http($chunks, "5\r\n$page\r\n0\r\n\r\n") ],
	[ 'gzip that is not packed', 'HV00M', 'again', whole($gzip, $page) ],
	[ 'gzip that is cut', 'HV00M', 'again', whole($gzip, substr(packed($page), 0, 100)) ],
	[ 'gzip with a wrong sum', 'HV00M', 'again', whole($gzip, do { my $z = packed($page); substr($z, -8, 1) = chr(255 - ord substr($z, -8, 1)); $z }) ],
	[ 'gzip of which a byte is another', 'HV00M', 'again', whole($gzip, do { my $z = packed($page); substr($z, 60, 1) = chr(255 - ord substr($z, 60, 1)); $z }) ],
	[ 'an encoding that nobody asked for', 'HV00M', 'again', whole("Content-Encoding: shrink\r\n", $page) ],
	[ 'gzip a hundred times', 'HV00M', 'again', whole('Content-Encoding: ' . join(', ', ('gzip') x 100) . "\r\n", packed($page)) ],
	[ 'nothing', '08006', 'close', '' ],
	[ 'an interim answer and nothing', '08006', 'close', "HTTP/1.1 100 Continue\r\n\r\n" ],
	[ 'interim answers without end', '08006|HV00M', 'silence', "HTTP/1.1 100 Continue\r\n\r\n" x 10 ],
	[ 'headers without end', '08006|HV00M|54000', 'endless', "HTTP/1.1 200 OK\r\n" ],
	[ 'trailers without end', 'HV00M', 'endless', http($chunks, chunked(50) . "0\r\n") ],
	[ 'a flood of short trailers', 'HV00M', 'flood', http($chunks, chunked(50) . "0\r\n") . "\nmore\nA: b\r\n" ],
	[ 'a flood of interim answers', 'HV00M', 'flood', "HTTP/1.1 100 Continue\r\n\r\n\nmore\nHTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" ],
	[ 'a flood of short headers', 'HV00M', 'flood', "HTTP/1.1 200 OK\r\n\nmore\nA: b\r\n" ],
	[ 'a chunk extension without end', '08006|HV00M', 'flood', http($chunks, "5;a=\nmore\nb") ],
	[ 'an interim answer now and then', '08006', 'drip', "HTTP/1.1 100 Continue\r\n\r\n\nmore\nHTTP/1.1 103 Early Hints\r\n\r\n" ],
	[ 'a header now and then', '08006', 'drip', "HTTP/1.1 200 OK\r\n\nmore\nA: b\r\n" ],
	[ 'a byte now and then', '08006', 'drip', http("Content-Length: 500000\r\n", "\nmore\n ") ],
	[ 'a trailer now and then', '08006', 'drip', http($chunks, "2\r\n{}\r\n0\r\n") . "\nmore\nA: b\r\n" ],
	[ 'an interim answer long before the answer', 'rows', 'late', "HTTP/1.1 103 Early Hints\r\n\r\n\nmore\n" . whole('', $page) ],
	[ 'a redirect to itself', 'HV00M', 'again', "HTTP/1.1 307 Temporary Redirect\r\nLocation: /api/list_snapshot\r\nContent-Length: 0\r\n\r\n" ],
	[ 'a redirect to a file', 'HV00M', 'again', "HTTP/1.1 302 Found\r\nLocation: file:///etc/passwd\r\nContent-Length: 0\r\n\r\n" ],
	[ 'a refusal that offers other ways to sign in', '28000', 'again', "HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Negotiate\r\nWWW-Authenticate: Basic realm=\"x\"\r\nContent-Length: 0\r\n\r\n" ],
	[ 'a proxy that wants a password', '28000', 'again', "HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic realm=\"x\"\r\nContent-Length: 0\r\n\r\n" ],
	[ 'a status line that echoes', 'HV00L', 'again', "HTTP/1.1 400 secret-" . 'x' x 500 . "\e[31m\r\nContent-Length: 0\r\n\r\n" ],
	[ 'status 204', 'HV00M', 'again', "HTTP/1.1 204 No Content\r\n\r\n" ]);

my $raw = table_at("http://127.0.0.1:$peer->{port}", q{max_retries '0', request_timeout '60s', idle_timeout '60s', max_response_size '1MB'});
my $hasty = table_at("http://127.0.0.1:$peer->{port}", q{max_retries '0', request_timeout '500ms', idle_timeout '300ms', max_response_size '1MB'});
my $session = $cluster->session;
$session->query('SELECT 1');

sub status_kb
{
	my ($name) = @_;
	my ($kb) = ConvexTest::slurp('/proc/' . $session->pid . '/status') =~ /^$name:\s+(\d+)/m;
	return $kb;
}
my $peak = status_kb('VmHWM');
for my $case (@answers)
{
	my ($what, $wanted, $then, $bytes) = @$case;
	answer($peer, $then, $bytes);
	my $table = $then =~ /^(?:silence|endless|drip)$/ || ($then eq 'flood' && $wanted =~ /^08006/) ? $hasty : $raw;
	my $begun = time;
	my $rows = $session->query("SELECT name FROM $table");
	my $state = $session->sqlstate;
	my $found = $state eq '' && $rows eq 'Eve' ? 'rows' : $state eq '' ? "no error and '$rows'" : $rows eq '' ? $state : "$state and '$rows'";
	like($found, qr/^(?:$wanted)$/, "$what is " . ($wanted eq 'rows' ? 'read' : 'an error'));
	cmp_ok(time - $begun, '<', 30, "$what takes no longer than the server may be silent");
	cmp_ok(scalar(requests($peer)), '<=', 1, "$what is one request");
}
cmp_ok(status_kb('VmHWM'), '<', $peak + 16 * 1024, 'none of this takes more memory than an answer may have');

# Headers without end are ended by a cancel, too, and are not kept.
answer($peer, 'endless', "HTTP/1.1 200 OK\r\n");
$session->query(q{SET statement_timeout = '250ms'});
my $begun = time;
$session->query("SELECT name FROM $raw");
cmp_ok(time - $begun, '<', 30, 'headers without end do not outlast statement_timeout');
$session->query('RESET statement_timeout');

# Memory that is not there (64 MB in one piece): an error of the statement, not
# the end of the process.
my $hungry = $cluster->session;
my $large = table_at($emulator->url, q{max_retries '0', max_response_size '2GB'});
$emulator->fault({ path => '/api/list_snapshot', action => 'gzip_bomb', megabytes => 100 });
$hungry->query("SELECT name FROM $large", 60);
is($hungry->sqlstate, '53200', 'an answer that does not fit into memory is an error');
like($hungry->errors, qr{/api/list_snapshot.*^HINT:  }ms, 'with endpoint and hint');
is($hungry->query("SELECT name FROM $large"), 'Ada', 'after which a scan works');
$hungry->quit;

# What is sent, byte by byte.
answer($peer, 'again', whole("Set-Cookie: a=b; Path=/\r\n", $page));
$session->query("SELECT name FROM $raw");
$session->query("SELECT name FROM $raw");
my @requests = requests($peer);
is(scalar(@requests), 2, 'two scans are two requests');
my ($head, $body) = split /\r\n\r\n/, $requests[1], 2;
like($head, qr{^POST /api/list_snapshot HTTP/1\.1\r\nHost: 127\.0\.0\.1:$peer->{port}\r\n}, 'a request names route and host');
is(join(',', sort map { lc } $head =~ /^([\w-]+):/mg), 'accept,accept-encoding,authorization,content-length,content-type,convex-client,host',
	'and has these headers, no cookie among them');
is(length($body), ($head =~ /^Content-Length: (\d+)/mi)[0], 'and a body of the length it says');

# A connection that the server has closed meanwhile is made again.
answer($peer, 'close', whole('', $page));
is($session->query("SELECT name FROM $raw"), 'Eve', 'a server that hangs up after each answer is read');
is($session->query("SELECT name FROM $raw"), 'Eve', 'again and again');
$session->quit;
$emulator->kill;
is($cluster->sqlstate('SELECT name FROM users'), 'HV00N', 'a server that is gone is no connection');

# -- the log ------------------------------------------------------------------------

my $from = $cluster->log_size;
my $secret = 'qrstuvwxyzabcdef';
$cluster->try_psql("ALTER USER MAPPING FOR CURRENT_USER SERVER convex OPTIONS (SET deploy_key 'prod:otter|$secret with a space')");
$cluster->try_psql("ALTER USER MAPPING FOR CURRENT_USER SERVER convex OPTIONS (ADD deploy_kee 'prod:otter|$secret')");
$cluster->try_psql("ALTER USER MAPPING FOR CURRENT_USER SERVER convex OPTIONS (ADD deploy_key_file 'prod:otter|$secret')");
$cluster->try_psql("DO \$\$ BEGIN ALTER USER MAPPING FOR CURRENT_USER SERVER convex OPTIONS (SET deploy_key 'prod:otter|$secret with a space'); END \$\$");
my @lines = grep { /$secret/ && !/LOG:  statement:/ } split /\n/, $cluster->log_text($from);
is(join("\n", @lines), '', 'a mapping that is refused is in the log only as log_statement shows it');

done_testing();
