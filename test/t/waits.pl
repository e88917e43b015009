# convex_wait_for is true only when what Convex had committed before the call is
# visible: commits through the foreign table and by others, under load, while
# tables are loaded again, with time-outs long and short. And a worker goes on
# following while the checks of its tables fail.
#
# CONVEX_WAIT_TRIES says how often.

use strict;
use warnings;

use ConvexTest;
use Test::More;

my $TRIES = $ENV{CONVEX_WAIT_TRIES} // 500;

my $emulator = ConvexTest::Emulator->new(args => [ '--page-limit', 200, '--delta-limit', 16 ]);
my $cluster = ConvexTest::Cluster->new(conf => "shared_preload_libraries = 'convex_fdw'\n");
$cluster->convex($emulator);
$emulator->insert('mine', { n => -1 });
$emulator->insert('theirs', map { { n => -$_ } } 1 .. 300);
$emulator->insert($_, { n => 0 }) for qw(noise ticking);

$cluster->value(<<~'END');
	SELECT convex_create_subscription('app', 'convex', '{mine,theirs,ticking}', poll_interval => '50 ms', options => '{"idle_poll_interval": "100 ms"}');
	CREATE SCHEMA remote;
	CREATE FOREIGN TABLE remote.mine (n int) SERVER convex;
	CREATE TABLE tries (n int, way text, timeout interval, said boolean, found boolean);
	-- What the waiting says, and what the next statement finds.
	CREATE PROCEDURE try_them(first int, last int) LANGUAGE plpgsql AS $$
	DECLARE
		way text; timeout interval; said boolean; found boolean; target bigint;
	BEGIN
		FOR this IN first .. last LOOP
			way := (ARRAY['inserted', 'committed by others', 'by timestamp'])[1 + this % 3];
			timeout := CASE WHEN this % 5 = 0 THEN interval '1 ms' * (this % 7) ELSE interval '60 s' END;
			target := NULL;
			IF way = 'inserted' THEN
				INSERT INTO remote.mine VALUES (this);
				COMMIT;
			ELSE
				target := (emu.mutate(jsonb_build_array(jsonb_build_object('op', 'insert', 'table', 'theirs', 'doc', jsonb_build_object('n', this)))) ->> 'ts')::bigint;
			END IF;
			IF this % 60 = 0 THEN
				PERFORM convex_resync_table('app', 'theirs');
				COMMIT;
			END IF;
			said := CASE WHEN way = 'by timestamp' THEN convex_wait_for('app', target, timeout) ELSE convex_wait_for('app', timeout => timeout) END;
			found := EXISTS (SELECT FROM app.mine AS m WHERE m.n = this UNION ALL SELECT FROM app.theirs AS t WHERE t.n = this);
			INSERT INTO tries VALUES (this, way, timeout, said, found);
			COMMIT;
		END LOOP;
	END $$;
	END
is($cluster->value(q{SELECT convex_wait_for('app')}), 't', 'a first load can be waited for');

# Two sessions at once; each poll of the worker finds other changes, too. The
# second half has pages of changes that come late.
my $NOISE = { action => 'mutate', path => '/api/document_deltas', count => -1,
	ops => [ { op => 'insert', table => 'noise', doc => { n => 1 } }, { op => 'increment_all', table => 'ticking', field => 'n', by => 1 } ] };
my $half = int($TRIES / 2);
my @sessions = map { $cluster->session } 1 .. 2;
# A table may be loaded already when the other asks for it.
$_->query("SET client_min_messages = warning") for @sessions;
for my $range ([ 1, $half ], [ $half + 1, $TRIES ])
{
	my ($first, $last) = @$range;
	my $middle = int(($first + $last) / 2);
	$emulator->fault($first == 1 ? $NOISE : { action => 'delay', ms => 10, path => '/api/document_deltas', count => -1 });
	$sessions[0]->send("CALL try_them($first, $middle)");
	$sessions[1]->send("CALL try_them($middle + 1, $last)");
	$_->finish(300) for @sessions;
	is(join('', map { $_->errors } @sessions), '', "tries $first to $last end well");
	$emulator->clear_faults;
}
$_->quit for @sessions;
note($cluster->value(q{SELECT string_agg(format('%s: %s true, %s false', way, t, f), '; ') FROM (SELECT way, count(*) FILTER (WHERE said) AS t, count(*) FILTER (WHERE NOT said) AS f FROM tries GROUP BY way) AS s}));
is($cluster->value('SELECT count(*) FROM tries'), $TRIES, "$TRIES tries");
is($cluster->value('SELECT count(*) FROM tries WHERE said AND NOT found'), '0', 'convex_wait_for is never true for what cannot be seen');
is($cluster->value("SELECT count(*) FROM tries WHERE NOT said AND timeout = '60 s'"), '0', 'nor false when there is time');
$emulator->fault({ action => 'stall', path => '/api/document_deltas', count => -1 });
$emulator->insert('mine', { n => 999_999 });
is($cluster->value(q{SELECT convex_wait_for('app', timeout => '20 ms') OR EXISTS (SELECT FROM app.mine WHERE n = 999999)}), 'f', 'but false when there is none');
$emulator->clear_faults;
is($cluster->value(q{SELECT convex_wait_for('app', 9223372036854775807, '50 ms')}), 'f', 'or for a time that has not come');

# -- a worker whose checks fail --------------------------------------------------

my $n = 1_000_000;
for my $path ('/api/get_table_column_names', '/api/list_snapshot')
{
	$emulator->fault({ action => 'status', status => 503, code => 'TableSummariesUnavailable', path => $path, count => -1 });
	$cluster->value(q{UPDATE convex_subscription_state SET last_error_code = NULL});
	$cluster->value(q{SELECT convex_refresh_subscription('app')});
	$cluster->wait_until_sql(q{(SELECT last_error_code = '53000' FROM convex_stat_subscription)}, "a check fails at $path");
	for (1 .. 3)
	{
		my $ts = $emulator->mutate({ op => 'insert', table => 'mine', doc => { n => ++$n } })->{ts};
		$cluster->wait_until_sql("(SELECT applied_ts >= $ts FROM convex_stat_subscription)", "change $n is followed while checks fail at $path");
		pass("change $n is followed while checks fail at $path");
	}
	is($cluster->value("SELECT convex_wait_for('app', timeout => '20 ms')"), 'f', 'but the check has not passed');
	$emulator->clear_faults;
	$cluster->wait_until_sql('(SELECT NOT check_wanted FROM convex_subscription_state)', 'a check succeeds');
}
is($cluster->value('SELECT phase FROM convex_stat_subscription'), 'following', 'and the subscription follows');

# -- a worker that compares many tables -------------------------------------------

$emulator->insert("many_$_", { n => 0 }) for 1 .. 12;
$cluster->value(q{SELECT convex_create_subscription('many', 'convex', ARRAY(SELECT 'many_' || i FROM generate_series(1, 12) AS i), poll_interval => '50 ms')});
is($cluster->value(q{SELECT convex_wait_for('many')}), 't', 'twelve tables are followed');
$emulator->clear_journal;
$emulator->fault([ { action => 'delay', ms => 250, path => '/api/list_snapshot', count => -1 },
		{ action => 'stall', path => '/api/list_snapshot', skip => 8, count => 1 } ]);
$cluster->value(q{SELECT convex_refresh_subscription('many')});
wait_until(sub { my @pages = $emulator->journal('/api/list_snapshot'); @pages > 0 }, 'a check begins');
my $later = $emulator->mutate({ op => 'insert', table => 'many_12', doc => { n => 1 } })->{ts};
$cluster->wait_until_sql("(SELECT applied_ts >= $later FROM convex_stat_subscription WHERE name = 'many')", 'changes arrive while many tables are compared');
pass('changes arrive while many tables are compared');
is($cluster->value("SELECT check_wanted FROM convex_subscription_state JOIN convex_subscription USING (subid) WHERE name = 'many'"), 't', 'which goes on');
$emulator->clear_faults;
$cluster->wait_until_sql("(SELECT NOT check_wanted FROM convex_subscription_state JOIN convex_subscription USING (subid) WHERE name = 'many')", 'and ends');
is($cluster->value("SELECT count(*) FROM convex_subscription_rel WHERE table_name LIKE 'many%' AND checked_at IS NOT NULL"), '12', 'with all of them');
$cluster->value(q{SELECT convex_drop_subscription('many', true)});

# -- how far behind a worker is ---------------------------------------------------

# The page after the first one comes when the faults are gone.
$cluster->value(q{SELECT convex_stop_worker('app')});
my $head = $emulator->call('POST', '/_emulator/mutate',
	{ rows_per_transaction => 1, ops => [ map { { op => 'insert', table => 'mine', doc => { n => ++$n } } } 1 .. 100 ] })->{ts};
$emulator->fault({ action => 'stall', path => '/api/document_deltas', count => 1, skip => 1 });
$cluster->value(q{SELECT convex_start_worker('app')});
$cluster->wait_until_sql("(SELECT lag = ($head - applied_ts) / 1000 * interval '1 microsecond' AND lag > '0' FROM convex_stat_subscription)", 'a worker that is behind says how far');
pass('a worker that is behind says how far');
$emulator->clear_faults;
is($cluster->value(q{SELECT convex_wait_for('app')}), 't', 'it catches up');
$cluster->wait_until_sql("(SELECT lag = '0' FROM convex_stat_subscription)", 'and is not behind');
pass('and is not behind');

# -- a call beside the worker ----------------------------------------------------

$emulator->insert('mine', { n => 2_000_000 });
is($cluster->value(q{CALL convex_sync('app')}), '', 'CALL convex_sync beside a worker waits for it');
is($cluster->value('SELECT count(*) FROM app.mine WHERE n = 2000000'), '1', 'and what was committed before is there');

done_testing();
