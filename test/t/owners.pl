# Whose rights a worker uses: the subscription's owner's mapping, the target's
# owner's rights, and never its own.

use strict;
use warnings;

use ConvexTest;
use Test::More;

my $emulator = ConvexTest::Emulator->new;
my $cluster = ConvexTest::Cluster->new(conf => "shared_preload_libraries = 'convex_fdw'\n");
$cluster->convex($emulator);
$emulator->insert($_, { name => 'ada' }) for qw(users orders);

# An owner that cannot log in, has nothing but its own, and settings that would
# break it.
$cluster->value(<<~'END');
	CREATE ROLE follower NOLOGIN;
	CREATE ROLE other NOLOGIN;
	GRANT USAGE ON FOREIGN SERVER convex TO follower;
	SELECT format('CREATE USER MAPPING FOR follower SERVER convex OPTIONS (deploy_key %L)', emu.key()) \gexec
	GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA public TO follower;
	CREATE SCHEMA app AUTHORIZATION follower;
	CREATE SCHEMA evil AUTHORIZATION follower;
	ALTER ROLE follower SET statement_timeout = '1ms';
	ALTER ROLE follower SET default_transaction_read_only = on;
	ALTER ROLE follower SET role = 'other';
	GRANT other TO follower;
	SET ROLE follower;
	SELECT convex_create_subscription('app', 'convex', tables => '{users,orders}', poll_interval => '50 ms', options => '{"idle_poll_interval": "50 ms"}');
	END
sub has
{
	my ($table, $name, $what) = @_;
	ok(eval { $cluster->wait_until_sql("EXISTS (SELECT FROM app.$table WHERE name = '$name')", $what) }, $what)
	  or diag($cluster->value('SELECT * FROM convex_stat_subscription; SELECT * FROM convex_stat_subscription_rel', args => ['-x']));
	return;
}
has('users', 'ada', 'a worker follows for an owner that may not log in');
is($cluster->value("SELECT string_agg(DISTINCT tableowner, ' ') FROM pg_tables WHERE schemaname = 'app'"), 'follower', 'who owns what it makes');
is($cluster->value("SELECT count(*) FROM pg_tables WHERE tableowner = 'postgres' AND schemaname IN ('app', 'convex_staging')"), '0', 'nothing belongs to a superuser');

# What a trigger may try. Each runs once and says who it was.
my $climb = sub {
	my ($what, $body, $wanted) = @_;
	$cluster->value(<<~END);
		SET ROLE follower;
		CREATE TABLE IF NOT EXISTS evil.who (name text, super boolean);
		CREATE OR REPLACE FUNCTION evil.climb() RETURNS trigger LANGUAGE plpgsql AS \$\$
		BEGIN
			INSERT INTO evil.who SELECT current_user, rolsuper FROM pg_roles WHERE rolname = current_user;
			$body
			RETURN NULL;
		END \$\$;
		DROP TRIGGER IF EXISTS climb ON app.users;
		CREATE CONSTRAINT TRIGGER climb AFTER INSERT ON app.users DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION evil.climb();
		END
	$emulator->insert('users', { name => $what });
	$emulator->insert('orders', { name => $what });
	has('orders', $what, "$what: the other table goes on");
	if ($wanted)
	{
		has('users', $what, "$what: it does no harm");
	}
	else
	{
		$cluster->wait_until_sql("EXISTS (SELECT FROM convex_stat_subscription_rel WHERE table_name = 'users' AND state = 'error')", 'an error');
		pass("$what: it is an error of its table");
	}
	is($cluster->value("SELECT count(*) FROM pg_roles WHERE rolname = 'climbed' OR rolsuper AND rolname IN ('follower', 'other')"), '0', "$what: nobody has become superuser");
	is($cluster->value("SELECT coalesce(bool_or(super), false) FROM evil.who"), 'f', "$what: the trigger ran as no superuser");
	$cluster->value('DROP TRIGGER climb ON app.users');
	$cluster->value("SELECT convex_resync_table('app', 'users')");
	has('users', $what, "$what: without the trigger all is well");
	return;
};
$climb->('reset role', 'RESET ROLE; CREATE ROLE climbed SUPERUSER;', 0);
$climb->('role none', q{PERFORM set_config('role', 'postgres', false); CREATE ROLE climbed SUPERUSER;}, 0);
$climb->('session', q{SET SESSION AUTHORIZATION postgres; CREATE ROLE climbed SUPERUSER;}, 0);
$climb->('deferred', q{SET CONSTRAINTS ALL DEFERRED;}, 1);
$cluster->value(<<~'END');
	SET ROLE follower;
	CREATE TABLE evil.second (i integer);
	CREATE FUNCTION evil.at_commit() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN CREATE ROLE climbed SUPERUSER; RETURN NULL; END';
	CREATE CONSTRAINT TRIGGER at_commit AFTER INSERT ON evil.second DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION evil.at_commit();
	END
$climb->('put off to the commit', q{SET CONSTRAINTS ALL DEFERRED; INSERT INTO evil.second VALUES (1);}, 0);

# Settings that a trigger leaves behind, and names that it puts in the way.
$cluster->value(<<~'END');
	SET ROLE follower;
	CREATE FUNCTION evil.now() RETURNS timestamptz LANGUAGE plpgsql AS
	$$ BEGIN INSERT INTO evil.who SELECT current_user, rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user; RETURN pg_catalog.now(); END $$;
	CREATE FUNCTION evil.clock_timestamp() RETURNS timestamptz LANGUAGE sql AS 'SELECT evil.now()';
	CREATE FUNCTION evil.eq(integer, integer) RETURNS boolean LANGUAGE sql AS 'SELECT evil.now() IS NOT NULL AND $1 OPERATOR(pg_catalog.=) $2';
	CREATE OPERATOR evil.= (FUNCTION = evil.eq, LEFTARG = integer, RIGHTARG = integer);
	END
$climb->('search path', q{
	PERFORM set_config('search_path', 'evil, pg_catalog', false);
	PERFORM set_config('default_transaction_read_only', 'on', false);
	PERFORM set_config('default_transaction_isolation', 'serializable', false);
	PERFORM set_config('lock_timeout', '1ms', false);
	PERFORM set_config('TimeZone', 'Asia/Kolkata', false);
	PERFORM set_config('application_name', 'somebody else', false);
	}, 1);
$emulator->insert('users', { name => 'after' });
has('users', 'after', 'settings that a trigger made do not last');
is($cluster->value("SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'convex_fdw worker' AND application_name ~ '^convex_fdw worker \\d+\$'"), '1',
	'nor does its name of the process');

# Membership that ends.
$cluster->value('CREATE ROLE stranger; GRANT USAGE ON SCHEMA app TO stranger; ALTER TABLE app.users OWNER TO stranger');
$emulator->insert($_, { name => 'late' }) for qw(users orders);
has('orders', 'late', 'a table goes on beside one whose owner is a stranger');
is($cluster->value("SELECT count(*) FROM app.users WHERE name = 'late'"), '0', 'a stranger\'s table is not written');
is($cluster->value("SELECT error_code FROM convex_stat_subscription_rel WHERE table_name = 'users'"), '42501', 'and its state says why');
$cluster->value('GRANT stranger TO follower');
has('users', 'late', 'membership mends it');

# The server is taken away, and given back.
$cluster->value('REVOKE USAGE ON FOREIGN SERVER convex FROM follower');
$emulator->insert('users', { name => 'later' });
$cluster->wait_until_sql("EXISTS (SELECT FROM convex_stat_subscription WHERE last_error_code = '42501' AND next_attempt_at IS NOT NULL)", 'no right to use the server');
pass('an owner without USAGE of the server follows no more');
$cluster->value('GRANT USAGE ON FOREIGN SERVER convex TO follower');
$cluster->value("SELECT convex_enable_subscription('app')");
has('users', 'later', 'until it has it again');

done_testing();
