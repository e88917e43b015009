# pg_dump and restore: a restored subscription is disabled; enabled, it goes on
# where the dump stood, without loading again.

use strict;
use warnings;

use ConvexTest;
use IPC::Run ();
use Test::More;

my $emulator = ConvexTest::Emulator->new;
my $cluster = ConvexTest::Cluster->new;
$cluster->convex($emulator);
$emulator->insert('users', map { { name => "user $_" } } 1 .. 20);
$emulator->insert('orders', map { { n => $_ } } 1 .. 20);
$cluster->value(q{SELECT convex_create_subscription('app', 'convex', tables => '{users,orders}', poll_interval => '3 s')});
$cluster->value(q{CALL convex_sync('app')});
my $applied = $cluster->value('SELECT applied_ts FROM convex_stat_subscription');

# Into another database, with or without the tables.
sub restore
{
	my ($database, @options) = @_;
	my ($dump, $err) = ('', '');
	$cluster->with_env(sub { IPC::Run::run([ 'pg_dump', '-d', 'postgres', @options ], '>', \$dump, '2>', \$err) })
	  or die "pg_dump: $err\n";
	$cluster->value("CREATE DATABASE $database");
	$cluster->value($dump, db => $database);
	return;
}

restore('whole');
is($cluster->value('SELECT name, enabled, poll_interval, owner FROM convex_subscription', db => 'whole'), 'app|f|00:00:03|postgres',
	'a restored subscription is there, and disabled');
is($cluster->value('SELECT applied_ts FROM convex_stat_subscription', db => 'whole'), $applied, 'with its cursor');
is($cluster->value('SELECT count(*) FROM convex_subscription_rel WHERE target_oid <> 0', db => 'whole'), '0', 'no OID came along');
is($cluster->value('SELECT count(*) FROM app.users', db => 'whole'), '20', 'with its rows');
is($cluster->value(q{SELECT nextval('convex_subscription_subid') > (SELECT max(subid) FROM convex_subscription)}, db => 'whole'), 't',
	'and its numbers go on');
is($cluster->sqlstate(q{CALL convex_sync('app')}, db => 'whole'), '55000', 'disabled, it is not followed');

$emulator->insert('users', { name => 'late' });
$emulator->clear_journal;
$cluster->value(q{SELECT convex_enable_subscription('app')}, db => 'whole');
$cluster->value(q{CALL convex_sync('app')}, db => 'whole');
is($cluster->value("SELECT count(*) FROM app.users WHERE name = 'late'", db => 'whole'), '1', 'enabled, it goes on');
is(scalar(grep { ($_->{body}{cursor} // '') ne '' } $emulator->journal('/api/list_snapshot')), 0, 'without a second load');
is($cluster->value("SELECT count(*) FROM convex_subscription_event WHERE kind LIKE 're%'", db => 'whole'), '0', 'and without an event of one');

restore('empty', '--exclude-table-data=app.*');
$cluster->value(q{SELECT convex_enable_subscription('app')}, db => 'empty');
$cluster->value(q{CALL convex_sync('app')}, db => 'empty');
is($cluster->value('SELECT count(*) FROM app.users', db => 'empty'), '21', 'tables that came without rows are loaded again');

restore('bare', '--exclude-table=app.*');
$cluster->value(q{SELECT convex_enable_subscription('app')}, db => 'bare');
$cluster->value(q{CALL convex_sync('app')}, db => 'bare');
is($cluster->value('SELECT count(*) FROM app.users', db => 'bare'), '21', 'tables that did not come are made again');

# By the owner of a database who is no superuser.
$cluster->value('CREATE ROLE plain LOGIN; CREATE ROLE reader LOGIN; GRANT pg_read_all_data TO reader; CREATE DATABASE plain OWNER plain');
my $dump_as = sub {
	my ($role, @options) = @_;
	my ($out, $err) = ('', '');
	$cluster->with_env(sub { IPC::Run::run([ 'pg_dump', '-U', $role, '-d', 'plain', @options ], '>', \$out, '2>', \$err) })
	  or diag($err);
	return $out;
};
$cluster->convex($emulator, db => 'plain');
ok($dump_as->('plain') ne '', 'an owner that is no superuser dumps a database with the extension');
$cluster->value(<<~'END', db => 'plain');
	GRANT USAGE ON FOREIGN SERVER convex TO plain;
	SELECT format('CREATE USER MAPPING FOR plain SERVER convex OPTIONS (deploy_key %L)', emu.key()) \gexec
	GRANT EXECUTE ON FUNCTION convex_create_subscription TO plain;
	SET ROLE plain;
	SELECT convex_create_subscription('app', 'convex', tables => '{users}');
	END
$cluster->value(q{CALL convex_sync('app')}, db => 'plain');
my $plain = $dump_as->('plain');
ok($plain =~ /^1\tapp\tconvex\t\d+\tplain\t/m, 'and with subscriptions');
ok($dump_as->('reader') =~ /^1\tapp\tconvex\t\d+\tplain\t/m, 'so does a member of pg_read_all_data');
$cluster->value('CREATE DATABASE again');
$cluster->value($plain, db => 'again');
$cluster->value(q{SELECT convex_enable_subscription('app')}, db => 'again');
$emulator->insert('users', { name => 'last' });
$cluster->value(q{CALL convex_sync('app')}, db => 'again');
is($cluster->value(q{SELECT count(*), min(tableowner) FROM app.users, pg_tables WHERE name = 'last' AND tablename = 'users' AND schemaname = 'app'}, db => 'again'), '1|plain', 'which a superuser restores, and it goes on');

done_testing();
