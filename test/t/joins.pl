# A table that joins while others are followed under write load: no change is
# lost, none comes twice.
#
# CONVEX_JOIN_SEEDS says how many tables join, one after the other.

use strict;
use warnings;

use ConvexTest;
use Test::More;

my $SEEDS = $ENV{CONVEX_JOIN_SEEDS} // 6;

my $emulator = ConvexTest::Emulator->new(args => [ '--page-limit', 10, '--delta-limit', 8 ]);
my $cluster = ConvexTest::Cluster->new(conf => "shared_preload_libraries = 'convex_fdw'\n");
$cluster->convex($emulator);
$emulator->config({ extra_latency_ms => 1 });

my %ids = (base => [ $emulator->insert('base', map { { n => $_ } } 1 .. 50) ]);
my $SUBSCRIBE = q{tables => '{*}', poll_interval => '50 ms', options => '{"idle_poll_interval": "50 ms"}'};
$cluster->value("SELECT convex_create_subscription('app', 'convex', $SUBSCRIBE)");
$cluster->value("SELECT convex_create_subscription('past', 'convex', mode => 'history', $SUBSCRIBE)");

# One Convex transaction over all tables so far.
sub change
{
	my ($random) = @_;
	my @ops;
	for my $table (sort keys %ids)
	{
		my $known = $ids{$table};
		push @ops, { op => 'patch', table => $table, id => $known->[ $random->(scalar @$known) ], doc => { n => $random->(1000) } };
		push @ops, { op => 'delete', table => $table, id => splice(@$known, $random->(scalar @$known), 1) } if $random->(3) == 0 && @$known > 5;
		push @ops, { op => 'insert', table => $table, doc => { n => $random->(1000) } } if $random->(3) == 0;
	}

	# What was deleted cannot be patched in the same breath.
	my %gone = map { $_->{id} => 1 } grep { $_->{op} eq 'delete' } @ops;
	@ops = grep { $_->{op} ne 'patch' || !$gone{ $_->{id} } } @ops;
	my @tables = map { $_->{table} } grep { $_->{op} eq 'insert' } @ops;
	my $answer = @ops ? $emulator->mutate(@ops) : { ts => 0 };
	push @{ $ids{ shift @tables } }, $_ for @{ $answer->{ids} // [] };
	return $answer->{ts};
}

for my $seed (1 .. $SEEDS)
{
	my $state = $seed * 2654435761 % 4294967296;
	my $random = sub { $state = ($state * 1664525 + 1013904223) % 4294967296; return int($state / 65536) % $_[0] };
	my $table = "joining_$seed";
	my $head = 0;

	$ids{$table} = [ $emulator->insert($table, map { { n => $_ } } 1 .. 5 + $random->(100)) ];
	change($random) for 1 .. $random->(10);
	$cluster->value("SELECT convex_refresh_subscription('$_')") for qw(app past);
	my $is_in = eval {
		wait_until(
			sub {
				$head = change($random) || $head for 1 .. 5;
				$cluster->value("SELECT count(*) = 2 FROM convex_stat_subscription_rel WHERE table_name = '$table' AND state = 'ready'") eq 't';
			},
			"$table joins", 60);
	};
	ok($is_in, "$table joins under write load") or diag($@, $cluster->value('SELECT * FROM convex_stat_subscription_rel'));
	$head = change($random) || $head for 1 .. 20;
	wait_until(sub { $cluster->value("SELECT bool_and(coalesce(applied_ts >= $head, false)) FROM convex_stat_subscription") eq 't' }, 'both catch up', 60);

	for my $followed ('base', $table)
	{
		is($cluster->value(<<~END), '0 0', "seed $seed: app.$followed equals the source");
			WITH source AS MATERIALIZED (SELECT document->>'_id', (document->>'n')::float8 FROM convex_stat_subscription AS s,
					LATERAL emu.dump('$followed', '', s.applied_ts) AS document WHERE s.name = 'app'),
				mirror AS MATERIALIZED (SELECT _id, n FROM app."$followed")
			SELECT (SELECT count(*) FROM (TABLE source EXCEPT ALL TABLE mirror) AS lacking)
				|| ' ' || (SELECT count(*) FROM (TABLE mirror EXCEPT ALL TABLE source) AS surplus)
			END
		is($cluster->value(<<~END), '0', "seed $seed: past.$followed has every revision since it joined");
			SELECT count(*) FROM (
				SELECT id, ts, deleted FROM convex_changes('convex', (SELECT coalesce(snapshot, -1) FROM convex_subscription_rel JOIN convex_subscription AS s USING (subid)
					WHERE s.name = 'past' AND table_name = '$followed'), '{$followed}')
				WHERE id IS NOT NULL AND ts <= (SELECT applied_ts FROM convex_stat_subscription WHERE name = 'past')
				EXCEPT SELECT _id, _ts, _deleted FROM past."$followed") AS missing
			END
	}

	# What has joined stays in the selection; few tables keep the writes quick.
	delete $ids{$table};
}
is($cluster->value("SELECT count(*) FROM convex_subscription_event WHERE kind IN ('table_replaced', 'resync', 'resnapshot', 'table_error')"), '0',
	'and nothing had to be loaded twice');

done_testing();
