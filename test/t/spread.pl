# A target whose partitions are tables of two other clusters.

use strict;
use warnings;

use ConvexTest;
use Test::More;

my $emulator = ConvexTest::Emulator->new(args => [ '--page-limit', 40, '--delta-limit', 16 ]);
my $cluster = ConvexTest::Cluster->new(conf => "shared_preload_libraries = 'convex_fdw'\n");
my @nodes = map { ConvexTest::Cluster->new } 1 .. 2;
$cluster->convex($emulator);
my @ids = $emulator->insert('users', map { { name => "user $_", n => $_ } } 1 .. 200);

$cluster->value(<<~'END');
	CREATE EXTENSION postgres_fdw;
	CREATE SCHEMA app;
	CREATE TABLE app.users (_id text COLLATE "C" NOT NULL, "_creationTime" timestamptz, name text, n float8, _ts bigint, _extra jsonb) PARTITION BY HASH (_id);
	END
for my $i (0, 1)
{
	my $node = $nodes[$i];
	$node->value('CREATE TABLE users (_id text COLLATE "C" PRIMARY KEY, "_creationTime" timestamptz, name text, n float8, _ts bigint, _extra jsonb)');
	my ($host, $port) = ($node->host, $node->port);
	$cluster->value(<<~END);
		CREATE SERVER node$i FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '$host', port '$port', dbname 'postgres');
		CREATE USER MAPPING FOR postgres SERVER node$i OPTIONS (user 'postgres');
		CREATE FOREIGN TABLE app.users_$i PARTITION OF app.users FOR VALUES WITH (MODULUS 2, REMAINDER $i) SERVER node$i OPTIONS (schema_name 'public', table_name 'users');
		END
}
$cluster->value(q{SELECT convex_create_subscription('app', 'convex', tables => '{users}', poll_interval => '50 ms', options => '{"idle_poll_interval": "50 ms"}')});

sub equal
{
	my ($head, $what) = @_;
	wait_until(sub { $cluster->value("SELECT coalesce(applied_ts >= $head, false) FROM convex_stat_subscription") eq 't' }, $what, 30)
	  if $head;
	return ok(eval { $cluster->wait_until_sql(<<~'END', $what) }, $what);
		WITH source AS MATERIALIZED (SELECT document->>'_id' AS id, document->>'name' AS name, (document->>'n')::float8 AS n FROM emu.dump('users') AS document),
			mirror AS MATERIALIZED (SELECT _id, name, n FROM app.users)
		SELECT NOT EXISTS ((TABLE source EXCEPT ALL TABLE mirror) UNION ALL (TABLE mirror EXCEPT ALL TABLE source))
		END
}

equal(0, 'the first load equals the source')
  or diag($cluster->value('SELECT * FROM convex_stat_subscription; SELECT * FROM convex_stat_subscription_rel', args => ['-x']));
is(scalar(grep { $_->value('SELECT count(*) > 50 FROM users') eq 't' } @nodes), 2, 'both nodes have their share');

my $head;
for my $round (1 .. 40)
{
	$head = $emulator->mutate(
		{ op => 'patch', table => 'users', id => $ids[ 3 * $round ], doc => { name => "round $round" } },
		{ op => 'delete', table => 'users', id => $ids[ 3 * $round + 1 ] },
		{ op => 'insert', table => 'users', doc => { name => "new $round", n => $round } })->{ts};
}
equal($head, 'changes reach both nodes');

$nodes[1]->stop('immediate');
$head = $emulator->mutate(map { { op => 'patch', table => 'users', id => $ids[$_], doc => { name => 'while one is down' } } } 150 .. 199)->{ts};
$cluster->wait_until_sql("EXISTS (SELECT FROM convex_stat_subscription_rel WHERE error_code IS NOT NULL) OR EXISTS (SELECT FROM convex_stat_subscription WHERE last_error_code IS NOT NULL)", 'a node that is down is told');
$nodes[1]->start;
equal(0, 'after a node comes back the target equals the source again')
  or diag($cluster->value('SELECT * FROM convex_stat_subscription; SELECT * FROM convex_stat_subscription_rel', args => ['-x']));

done_testing();
