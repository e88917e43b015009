# Whatever dies at whatever moment: the worker, a backend that runs
# CALL convex_sync, the whole server. Afterwards the mirrors equal the source,
# and every delivered revision has been seen exactly once.
#
# CONVEX_KILL_SEEDS says how many seeds, CONVEX_KILL_FIRST with which to begin.

use strict;
use warnings;

use ConvexTest;
use Test::More;
use Time::HiRes qw(sleep time);

my $SEEDS = $ENV{CONVEX_KILL_SEEDS} // 8;
my $FIRST = $ENV{CONVEX_KILL_FIRST} // 1;

my $emulator = ConvexTest::Emulator->new(args => [ '--page-limit', 40, '--delta-limit', 16 ]);
my $cluster = ConvexTest::Cluster->new(conf => <<~'END');
	shared_preload_libraries = 'convex_fdw'
	restart_after_crash = on
	fsync = on
	END
$cluster->convex($emulator, options => "max_retries '0'");
$emulator->config({ extra_latency_ms => 3 });

# A change of both tables in one Convex transaction keeps the sum of `n`.
my @ids = $emulator->insert('users', map { { name => "user $_", n => 100 } } 1 .. 120);
my @orders = $emulator->insert('orders', map { { n => 100 } } 1 .. 120);

my $SUBSCRIBE = q{tables => '{users,orders}', poll_interval => '50 ms', options => '{"idle_poll_interval": "50 ms"}'};

# What the triggers saw, in tables that are rolled back with what they saw.
my $AUDIT = <<~'END';
	CREATE TABLE audit (tab text, id text, ts bigint);
	CREATE FUNCTION audit() RETURNS trigger LANGUAGE plpgsql AS
	$$ BEGIN INSERT INTO public.audit VALUES (TG_TABLE_NAME, new._id, new._ts); RETURN NULL; END $$;
	END

sub change
{
	my ($random) = @_;
	my ($from, $to) = ($ids[ $random->(scalar @ids) ], $orders[ $random->(scalar @orders) ]);
	my $by = 1 + $random->(5);
	my @ops = (
		{ op => 'patch', table => 'users', id => $from, doc => { n => 100 - $by, name => 'user ' . $random->(1000) } },
		{ op => 'patch', table => 'orders', id => $to, doc => { n => 100 + $by } },
		{ op => 'patch', table => 'users', id => $ids[ $random->(scalar @ids) ], doc => { name => 'twice ' . $random->(1000) } });
	if ($random->(4) == 0)
	{
		my $gone = splice(@ids, $random->(scalar @ids), 1);
		@ops = ({ op => 'delete', table => 'users', id => $gone }, { op => 'insert', table => 'users', doc => { name => 'new', n => 100 } });
	}
	my $answer = $emulator->mutate(@ops);
	push @ids, @{ $answer->{ids} // [] };
	return $answer->{ts};
}

sub reachable { my ($status) = $cluster->try_psql('SELECT 1'); return $status == 0 }

sub await_server
{
	wait_until(\&reachable, 'the server answers again', 60);
	return;
}

# The differences between a mirror and the source at the cursor's timestamp.
sub differences
{
	my ($name, $table) = @_;
	my $history = $name eq 'past';
	my $mirror = $history
	  ? "SELECT _id, name, n FROM (SELECT DISTINCT ON (_id) * FROM $name.$table ORDER BY _id, _ts DESC) AS last WHERE NOT _deleted"
	  : "SELECT _id, name, n FROM $name.$table";
	$mirror =~ s/name, n/n/ if $table eq 'orders';
	my $source = $table eq 'orders' ? "document->>'_id', (document->>'n')::float8" : "document->>'_id', document->>'name', (document->>'n')::float8";
	return $cluster->value(<<~END);
		WITH source AS MATERIALIZED (SELECT $source FROM convex_stat_subscription AS s,
				LATERAL emu.dump('$table', '', s.applied_ts) AS document WHERE s.name = '$name'),
			mirror AS MATERIALIZED ($mirror)
		SELECT (SELECT count(*) FROM (TABLE source EXCEPT ALL TABLE mirror) AS lacking)
			|| ' ' || (SELECT count(*) FROM (TABLE mirror EXCEPT ALL TABLE source) AS surplus)
		END
}

# A CALL in a session that may die under it.
sub call_sync
{
	my $session = eval { $cluster->session } or return;
	$session->send("CALL convex_sync('past')");
	return $session;
}

# Each gives whether it hit something.
my %kill = (
	terminate => sub {
		my (undef, $hits) = $cluster->try_psql("SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE backend_type = 'convex_fdw worker'");
		return $hits;
	},
	worker => sub {
		my (undef, $pid) = $cluster->try_psql("SELECT pid FROM pg_stat_activity WHERE backend_type = 'convex_fdw worker' ORDER BY random() LIMIT 1");
		return $pid =~ /^\d+$/ && kill 'KILL', $pid;
	},
	call => sub {
		my ($session) = @_;
		return $session && !$session->is_done && kill 'KILL', $session->pid;
	},
	immediate => sub { $cluster->stop('immediate')->start; return 1 });
my %hits = map { $_ => 0 } keys %kill;

local $SIG{PIPE} = 'IGNORE';
for my $seed ($FIRST .. $FIRST + $SEEDS - 1)
{
	my $state = $seed * 2654435761 % 4294967296;
	my $random = sub { $state = ($state * 1664525 + 1013904223) % 4294967296; return int($state / 65536) % $_[0] };
	my $how = (sort keys %kill)[ $seed % 4 ];

	# `app` is a worker's, `past` with its audit alternates between a worker and CALL.
	my $by_call = $how eq 'call';
	$cluster->value($AUDIT);
	$cluster->value("SELECT convex_create_subscription('app', 'convex', $SUBSCRIBE)");
	$cluster->value("CREATE SCHEMA past");
	$cluster->value("CREATE TABLE past.$_ (_id text NOT NULL, _ts bigint NOT NULL, _deleted boolean NOT NULL, \"_creationTime\" timestamptz, name text, n float8, _extra jsonb, PRIMARY KEY (_id, _ts));
		CREATE TRIGGER audit AFTER INSERT OR UPDATE OR DELETE ON past.$_ FOR EACH ROW EXECUTE FUNCTION audit()") for qw(users orders);
	$cluster->value("SELECT convex_create_subscription('past', 'convex', mode => 'history', $SUBSCRIBE)");
	$cluster->value("SELECT convex_stop_worker('past')") if $by_call;

	my $head = 0;
	for my $round (1 .. 3)
	{
		my $session = $by_call ? call_sync() : undef;
		$cluster->wait_until_sql("EXISTS (SELECT FROM pg_stat_activity WHERE backend_type = 'convex_fdw worker')") if $how =~ /terminate|worker/;
		my $until = time + $random->($by_call ? 50 : 250) / 1000;
		do { $head = change($random) } while time < $until;
		$hits{$how}++ if $kill{$how}->($session);
		await_server();

		# A restart forgets that the worker is to stay away.
		wait_until(sub { ($cluster->try_psql("SELECT convex_stop_worker('past')"))[0] == 0 }, 'the worker stays away', 60) if $by_call;
		$head = change($random);
	}
	my $caught_up = eval {
		wait_until(
			sub {
				$cluster->try_psql("CALL convex_sync('past')") if $by_call;
				($cluster->try_psql("SELECT bool_and(coalesce(applied_ts >= $head, false)) FROM convex_stat_subscription"))[1] eq 't';
			},
			'both catch up', 60);
	};
	ok($caught_up, "seed $seed ($how): both subscriptions catch up")
	  or diag($cluster->value('SELECT * FROM convex_stat_subscription', args => ['-x']), $cluster->value('SELECT * FROM convex_stat_subscription_event'));
	is($cluster->value("SELECT count(*) FROM (SELECT table_name, id, ts FROM convex_changes('convex', (SELECT coalesce(min(snapshot), -1) FROM convex_subscription_rel AS r
				JOIN convex_subscription AS s USING (subid) WHERE s.name = 'past'), '{users,orders}')
			WHERE id IS NOT NULL AND ts <= (SELECT applied_ts FROM convex_stat_subscription WHERE name = 'past')
		EXCEPT (SELECT 'users', _id, _ts FROM past.users UNION ALL SELECT 'orders', _id, _ts FROM past.orders)) AS missing"), '0',
		"seed $seed ($how): no revision after the load is missing");
	for my $name (qw(app past))
	{
		for my $table (qw(users orders))
		{
			is(differences($name, $table), '0 0', "seed $seed ($how): $name.$table equals the source")
			  or diag($cluster->value('SELECT * FROM convex_stat_subscription_rel'), "\n", $cluster->value('SELECT * FROM convex_stat_subscription_event ORDER BY eventid'));
		}
	}
	is($cluster->value('SELECT count(*) FROM (SELECT tab, id, ts FROM audit GROUP BY 1, 2, 3 HAVING count(*) <> 1) AS twice'), '0',
		"seed $seed ($how): no revision was delivered twice");
	is($cluster->value("SELECT count(*) FROM ((SELECT 'users', _id, _ts FROM past.users UNION ALL SELECT 'orders', _id, _ts FROM past.orders)
		EXCEPT SELECT tab, id, ts FROM audit) AS unseen"), '0', "seed $seed ($how): and none unseen");
	$cluster->value("SELECT convex_drop_subscription('$_', drop_tables => true)") for qw(app past);
	$cluster->value('DROP SCHEMA IF EXISTS app CASCADE; DROP SCHEMA IF EXISTS past CASCADE; DROP TABLE audit; DROP FUNCTION audit');
}

note(join ', ', map { "$_ $hits{$_}" } sort keys %hits);
cmp_ok($hits{$_}, '>', 0, "something was hit by $_") for grep { my $how = $_; grep { (sort keys %kill)[ $_ % 4 ] eq $how } $FIRST .. $FIRST + $SEEDS - 1 } sort keys %kill;

done_testing();
