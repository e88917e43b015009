# A hostile server and the workers that follow it: each line of
# test/hostile/lines.py that a load, the change log or a check reads, all at
# once. Whatever the peer does, a worker asks seldom, needs no more memory than
# two pages do, says what is wrong where a person looks, and goes on by itself
# when the peer is sane, with every row.
#
# CONVEX_TEST_LINES is a pattern of the names of lines to run alone.

use strict;
use warnings;

use ConvexTest;
use Test::More;
use Time::HiRes qw(time);

# A peer is hostile for so long at least.
my $HOSTILE_S = 5;

# The most requests of a subscription in that time, unless all is as it can be:
# a change log that goes on is read without a pause.
my $REQUESTS_PER_S = 20;

# Within this everything recovers that makes no longer pauses than this.
my $RECOVERY_S = 150;
my $LONG_S = 80;

# The longest pause that a class of failures comes to by itself, and the one
# that Retry-After or a plan may come to.
my $OWN_S = 600 * 1.25;
my $TOLD_S = 2 * 3600;

my $peer = ConvexTest::HostilePeer->new;
my $only = $ENV{CONVEX_TEST_LINES} // '.';
my @lines = grep { $_->{use} =~ /^(?:worker|check)$/ && "$_->{use}: $_->{name}" =~ /$only/ } $peer->lines;
my %line = map { $_->{id} => $_ } @lines;

my $nworkers = @lines + 8;
my $cluster = ConvexTest::Cluster->new(conf => <<~END);
	shared_preload_libraries = 'convex_fdw'
	max_worker_processes = $nworkers
	convex_fdw.max_workers = $nworkers
	log_min_messages = 'warning'
	END
$cluster->value(join "\n", 'CREATE EXTENSION convex_fdw;', map { $peer->server($_) } @lines);

sub follow
{
	my (@followed) = @_;
	$cluster->value(join "\n", map { "SELECT convex_create_subscription('$_->{id}', '$_->{id}', '{users}', '$_->{id}', options => '{\"table_check_interval\": \"1 d\"}');" } @followed);
	return;
}

# The state of each subscription, by its name.
sub states
{
	my %states;
	my $found = $cluster->value(q{
		SELECT s.name, s.pid, s.phase, s.caught_up, r.state, r.load, s.failing_since IS NOT NULL AS fails, coalesce(s.last_error_class, r.error_code) AS class,
			coalesce(r.error_code, s.last_error_code) AS code, coalesce(r.error_message, s.last_error_message) AS message,
			extract(epoch FROM coalesce(s.next_attempt_at, r.retry_at) - now())::int AS pause
		FROM convex_stat_subscription AS s JOIN convex_stat_subscription_rel AS r USING (name)}, args => [ '-F', "\x02", '-R', "\x03" ]);
	for (split /\x03/, $found)
	{
		my %state;
		@state{qw(name pid phase caught_up state load fails class code message pause)} = split /\x02/, $_, -1;
		$states{ $state{name} } = \%state;
	}
	return \%states;
}

sub is_well { my ($state) = @_; return $state->{phase} eq 'following' && $state->{caught_up} eq 't' && $state->{state} eq 'ready' && $state->{load} eq '' }

sub await
{
	my ($what, $deadline_s, $is_so, @awaited) = @_;
	my @others;
	eval {
		wait_until(sub { my $states = states(); @others = grep { !$is_so->($states->{ $_->{id} }) } @awaited; !@others }, $what, $deadline_s);
	};
	return @others;
}

# The peer is hostile to some lines for a while.
sub attack
{
	my ($use, $begin, @attacked) = @_;
	my %from_kb = map { $_->{name} => $_->{pid} ? begin_memory($_->{pid}) : 0 } values %{ states() };
	$peer->ask("hostile $use");
	my $begun = time;
	$begin->();
	my $states;
	my %seen;
	eval {
		wait_until(
			sub {
				$states = states();
				$seen{$_} //= $states->{$_} for grep { $states->{$_}{fails} eq 't' || $states->{$_}{code} ne '' } map { $_->{id} } @attacked;
				time - $begun >= $HOSTILE_S && !grep { !$seen{ $_->{id} } && $_->{outcome} !~ /right/ } @attacked;
			},
			'all lines fail', 30);
	};
	my %peak_kb = map { $_->{name} => eval { peak_kb($_->{pid}) } // 0 } grep { $_->{pid} } values %$states;
	my @requests = @{ $peer->ask("sane $use") };
	my $took_s = time - $begun;
	my ($idle_kb) = sort { $a <=> $b } grep { $_ } values %peak_kb;
	for my $line (@attacked)
	{
		my $state = $seen{ $line->{id} };
		my ($n) = $line->{id} =~ /(\d+)/;
		my @problems;
		push @problems, 'nothing is told' if !$state && $line->{outcome} !~ /right/;
		push @problems, "SQLSTATE $state->{code}: $state->{message}" if $state && $state->{code} !~ /^(?:$line->{outcome})$/;
		push @problems, 'no class' if $state && $state->{class} eq '';
		push @problems, sprintf '%d requests in %.1f s', $requests[$n], $took_s if $line->{outcome} !~ /right/ && $requests[$n] > 10 + $REQUESTS_PER_S * $took_s;
		my $grown_mb = (($peak_kb{ $line->{id} } // 0) - ($from_kb{ $line->{id} } || $idle_kb // 0)) / 1024;
		push @problems, sprintf '%.1f MB', $grown_mb if $grown_mb > $line->{memory_mb};
		push @problems, 'the key is told' if $state && $state->{message} =~ /Zm9v|V0cXV4|c2VjcmV/;
		is(join(', ', @problems), '', "$line->{use}: $line->{name}");
		note(sprintf '%d requests, %.1f MB, %s: %s', $requests[$n], $grown_mb, $state ? @{$state}{qw(class message)} : ('', ''));
	}
	return;
}

# A pause that is longer than anybody waits here is ended as a person ends it.
sub recover
{
	my ($what, @lines) = @_;
	my $states = states();
	my @long = grep { $states->{ $_->{id} }{pause} ne '' && $states->{ $_->{id} }{pause} > $LONG_S } @lines;
	for (@long)
	{
		my $is_told = $states->{ $_->{id} }{class} eq 'plan' || $_->{name} =~ /Retry-After/;
		cmp_ok($states->{ $_->{id} }{pause}, '<=', $is_told ? $TOLD_S : $OWN_S, "$_->{name}: no longer pause than it may be") or diag(explain($states->{ $_->{id} }));
	}
	$cluster->value(join "\n", map { "SELECT convex_enable_subscription('$_->{id}');" } @long) if @long;
	my @others = await($what, $RECOVERY_S, \&is_well, @lines);
	$states = states();
	is(join("\n", map { "$_->{use}: $_->{name}: " . join ' ', %{ $states->{ $_->{id} } } } @others), '', $what);
	return;
}

# What each mirror has, as one text.
sub compare
{
	my ($wanted, $what, @lines) = @_;
	my @rows = split /\n/, $cluster->value(join ' UNION ALL ', map { "(SELECT '$_->{id}', string_agg(name, ' ' ORDER BY _id) FROM $_->{id}.users)" } @lines);
	is(join(', ', map { /^(\w+)\|(.*)/; $2 eq $wanted ? () : "$line{$1}{use}: $line{$1}{name}: $2" } @rows), '', $what);
	return;
}

# The peer is hostile to a first load, and to those who follow already.
my @workers = grep { $_->{use} eq 'worker' } @lines;
my @checks = grep { $_->{use} eq 'check' } @lines;
follow(@workers);
is(join(', ', map { $_->{name} } await('all are loaded', 120, \&is_well, @workers)), '', 'all are loaded from a peer that is sane');
attack('worker check', sub { follow(@checks) }, @lines);
recover('all have recovered', @lines);
compare('Eve', 'with all rows', @lines);

# It is hostile to a check.
attack('check', sub { $cluster->value(join "\n", map { "SELECT convex_refresh_subscription('$_->{id}');" } @checks) }, @checks);
recover('all have recovered from a check', @lines);
$peer->ask('news');
wait_until(sub { $cluster->value(join ' UNION ALL ', map { "SELECT count(*) FROM $_->{id}.users WHERE name = 'News'" } @lines) !~ /0/ }, 'news arrive', 60);
compare('Eve News', 'and changes reach all', @lines);
unlike($cluster->log_text, qr/Zm9vYmFyc2VjcmV0cXV4(?!'\);$)|PANIC|TRAP|terminated by signal/m, 'the log has no key, and no crash');

done_testing();
