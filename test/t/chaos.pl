# Everything at once: transactions, imports and clears in Convex, tables that
# come and go, DDL on the targets, hostile code in them, roles that change,
# processes that die, and a peer that misbehaves for a third of the time.
# Readers look all the while for what no reader may see. When it is over,
# everything recovers, equals the source, and nothing has grown or is left.
#
# CONVEX_CHAOS_SECONDS says how long, CONVEX_CHAOS_SEED which acts; the file
# CONVEX_CHAOS_LOG gets them all. Beyond some minutes CONVEX_TEST_TIMEOUT of
# test/run/chapter must be longer, too.

use strict;
use warnings;

use ConvexTest;
use HTTP::Tiny ();
use JSON::PP ();
use List::Util qw(max min);
use Test::More;
use Time::HiRes qw(sleep time);

my $SECONDS = $ENV{CONVEX_CHAOS_SECONDS} // 20;
my $SEED = $ENV{CONVEX_CHAOS_SEED} // 1;

# What everything may take to recover: longer than the longest pauses.
my $PATIENCE_S = 240;

# How often an import and a clear come.
my $IMPORT_S = min(60, $SECONDS / 4);

# What a process may grow from its tenth second on.
my $GROWTH_KB = 16 * 1024;

my $ACCOUNTS = 60;
my $KEY = 'prod:happy-otter-123|0123456789abcdef';

my $state = $SEED * 2654435761 % 4294967296;
sub random { $state = ($state * 1664525 + 1013904223) % 4294967296; return int($state / 65536) % $_[0] }
sub one_of { return $_[ random(scalar @_) ] }

my $begun = time;
my @log;

sub told
{
	my ($act, $outcome) = @_;
	push @log, sprintf '%7.2f %s%s', time - $begun, $act, defined $outcome && $outcome ne '' ? ": $outcome" : '';
	if (defined $ENV{CONVEX_CHAOS_LOG})
	{
		open(my $file, '>>', $ENV{CONVEX_CHAOS_LOG}) or die "$ENV{CONVEX_CHAOS_LOG}: $!\n";
		print $file "$log[-1]\n";
		close $file;
	}
	return;
}

local $SIG{PIPE} = 'IGNORE';

my $emulator = ConvexTest::Emulator->new(args => [ '--page-limit', 25, '--delta-limit', 16, '--random-seed', $SEED ]);
my $cluster = ConvexTest::Cluster->new(conf => <<~'END');
	shared_preload_libraries = 'convex_fdw'
	restart_after_crash = on
	log_statement = 'none'
	log_min_messages = 'warning'
	log_line_prefix = '%m [%p] %e %b %q%u@%d '
	deadlock_timeout = '200ms'
	END
$cluster->convex($emulator, options => "max_retries '1', max_retry_wait '50 ms', request_timeout '5 s', max_response_size '4MB'");
$emulator->config({ extra_latency_ms => 3 });

# -- what Convex holds ----------------------------------------------------------

# A transaction moves something from `left` to `right` and sets the clocks of
# three tables: the sum, the number of accounts and the clocks agree always.
my %balance = (left => {}, right => {});
for my $side (qw(left right))
{
	$balance{$side}{$_} = 1000 for $emulator->insert($side, map { { n => 1000 } } 1 .. $ACCOUNTS);
}
my $clock = 0;
my @clocks = map { { %$_, id => $emulator->mutate({ op => 'insert', %$_, doc => { clock => 0 } })->{ids}[0] } }
  { table => 'left' }, { table => 'right' }, { table => 'till', component => 'shop' };
my $GOOD = join ' ', 2 * $ACCOUNTS * 1000, 2 * $ACCOUNTS, 3, 0;

# Tables of no invariant; `t1` and so on come and go.
my %documents = (notes => [], imported => [], cleared => [], map { ("t$_" => undef) } 1 .. 4);

sub random_document
{
	my %document = map { 'f' . random(8) => one_of(random(1000), 'text ' . random(1000), \random(2), [ random(9), 'x' ], { a => random(9) }, undef) } 1 .. 1 + random(3);
	ref $_ eq 'SCALAR' and $_ = $$_ ? JSON::PP::true : JSON::PP::false for values %document;
	return { n => random(100), %document };
}

sub transfer
{
	my ($from, $to) = map { one_of(sort keys %{ $balance{$_} }) } qw(left right);
	my $by = 1 + random(9);
	$clock++;
	my @ops = map { { op => 'patch', %$_, doc => { clock => $clock } } } @clocks;
	$balance{left}{$from} -= $by;
	$balance{right}{$to} += $by;
	push @ops, { op => 'patch', table => 'right', id => $to, doc => { n => $balance{right}{$to} } };
	my $moved = random(4) == 0;
	if ($moved)
	{
		push @ops, { op => 'delete', table => 'left', id => $from }, { op => 'insert', table => 'left', doc => { n => $balance{left}{$from} } };
	}
	else
	{
		push @ops, { op => 'patch', table => 'left', id => $from, doc => { n => $balance{left}{$from} } };
	}
	my $answer = $emulator->mutate(@ops);
	$balance{left}{ $answer->{ids}[0] } = delete $balance{left}{$from} if $moved;
	return;
}

# Imports and clears give other documents than those that are known here.
sub scribble
{
	my ($table) = @_;
	my $known = $documents{$table} or return;
	my $what = random(3);
	if ($what == 0 || @$known < 3)
	{
		push @$known, $emulator->insert($table, map { random_document() } 1 .. 1 + random(20));
		splice(@$known, 0, @$known - 400) if @$known > 400;
	}
	else
	{
		my $id = $known->[ random(scalar @$known) ];
		my $is_there = eval { $emulator->mutate({ op => one_of(qw(patch replace)), table => $table, id => $id, doc => random_document() }); 1 };
		eval { $emulator->mutate({ op => 'delete', table => $table, id => $id }) } if $what == 2;
		@$known = grep { $_ ne $id } @$known if !$is_there || $what == 2;
	}
	return;
}

sub deployment
{
	my ($method, $path, $type, $content) = @_;
	my $answer = HTTP::Tiny->new(timeout => 10, proxy => undef, http_proxy => undef, all_proxy => undef)
	  ->request($method, $emulator->url . $path, { headers => { 'content-type' => $type, authorization => "Convex $KEY" }, content => $content });
	return "$path $answer->{status}";
}

$documents{$_} = [ $emulator->insert($_, map { random_document() } 1 .. 40) ] for qw(notes imported cleared t1);

# -- the subscriptions, their owners, and an attacker ------------------------------

$cluster->value(<<~'END');
	CREATE ROLE anna LOGIN; CREATE ROLE bert LOGIN; CREATE ROLE carl LOGIN; CREATE ROLE mallory LOGIN;
	GRANT carl TO anna;
	GRANT USAGE ON FOREIGN SERVER convex TO anna, bert, carl;
	GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA public TO anna, bert, carl;
	GRANT EXECUTE ON ALL PROCEDURES IN SCHEMA public TO anna, bert, carl;
	SELECT format('CREATE USER MAPPING FOR %s SERVER convex OPTIONS (deploy_key %L)', rolname, emu.key()) FROM pg_roles WHERE rolname IN ('anna', 'bert', 'carl') \gexec
	CREATE SCHEMA app AUTHORIZATION anna;
	CREATE SCHEMA soft AUTHORIZATION bert;
	CREATE SCHEMA past;
	CREATE SCHEMA app_aside; CREATE SCHEMA soft_aside; CREATE SCHEMA past_aside;
	GRANT ALL ON SCHEMA app_aside, soft_aside, past_aside TO PUBLIC;
	GRANT ALL ON SCHEMA past TO mallory;
	CREATE SCHEMA evil;
	GRANT USAGE ON SCHEMA evil TO PUBLIC;
	CREATE FUNCTION evil.climb() RETURNS boolean LANGUAGE plpgsql AS $$
	BEGIN
		IF (SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user) THEN
			ALTER ROLE mallory SUPERUSER;
		END IF;
		RETURN true;
	END $$;
	CREATE FUNCTION evil.now() RETURNS timestamptz LANGUAGE sql AS 'SELECT pg_catalog.now() WHERE evil.climb()';
	CREATE FUNCTION evil.clock_timestamp() RETURNS timestamptz LANGUAGE sql AS 'SELECT pg_catalog.now() WHERE evil.climb()';
	CREATE FUNCTION evil.eq(integer, integer) RETURNS boolean LANGUAGE sql AS 'SELECT evil.climb() AND $1 OPERATOR(pg_catalog.=) $2';
	CREATE OPERATOR evil.= (FUNCTION = evil.eq, LEFTARG = integer, RIGHTARG = integer);
	CREATE FUNCTION evil.ok(text) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT true';
	CREATE FUNCTION evil.same(text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS $$
	BEGIN
		PERFORM evil.climb();
		PERFORM set_config('search_path', 'evil, pg_catalog', false);
		RETURN $1;
	END $$;
	CREATE OR REPLACE FUNCTION evil.ok(text) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RETURN evil.same($1) = $1; END';
	-- Dropping its own table is left out: a trigger that tries it, and goes on,
	-- crashes a plain INSERT as well (ExecRelCheck finds fewer constraints).
	CREATE FUNCTION evil.attack() RETURNS trigger LANGUAGE plpgsql AS $$
	DECLARE
		attempts text[] := ARRAY[
			'ALTER ROLE mallory SUPERUSER', 'GRANT postgres TO mallory', 'GRANT pg_write_server_files TO mallory', 'CREATE ROLE climbed SUPERUSER',
			'RESET ROLE', 'SET ROLE postgres', 'SET LOCAL ROLE NONE', 'SET SESSION AUTHORIZATION DEFAULT', 'SET SESSION AUTHORIZATION postgres',
			'SELECT pg_catalog.set_config(''role'', ''postgres'', false)', 'SELECT pg_catalog.set_config(''session_authorization'', ''postgres'', false)',
			'SET search_path = evil, pg_catalog', 'SET default_transaction_read_only = on', 'SET statement_timeout = 1', 'SET lock_timeout = 1',
			'SET session_replication_role = replica', 'SET TimeZone = ''Asia/Kolkata''', 'SET CONSTRAINTS ALL DEFERRED', 'SET work_mem = ''64kB''',
			'SELECT pg_catalog.pg_advisory_unlock_all()', 'LISTEN climb', 'NOTIFY climb', 'PREPARE climb AS SELECT evil.climb()',
			'CREATE TEMP TABLE pg_class (a int)', 'CREATE TYPE pg_temp.text AS (a int)', 'CREATE TEMP TABLE convex_subscription (subid int)',
			'CREATE FUNCTION pg_temp.now() RETURNS timestamptz LANGUAGE sql AS ''SELECT evil.now()''', 'DISCARD ALL', 'DEALLOCATE ALL', 'CLOSE ALL',
			'DECLARE climb CURSOR WITH HOLD FOR SELECT evil.climb()', 'COPY (SELECT 1) TO PROGRAM ''false''', 'SELECT evil.climb()',
			'UPDATE public.convex_subscription SET owner = ''postgres'', owner_oid = 10', 'DELETE FROM public.convex_subscription_rel',
			'SELECT pg_catalog.lo_create(0)', 'LOCK TABLE public.convex_subscription_state', 'ALTER ROLE CURRENT_USER SET search_path = evil',
			pg_catalog.format('ALTER TABLE %I.%I ADD COLUMN mine_%s int', TG_TABLE_SCHEMA, TG_TABLE_NAME, (pg_catalog.random() * 9)::int),
			pg_catalog.format('TRUNCATE %I.%I', TG_TABLE_SCHEMA, TG_TABLE_NAME)];
	BEGIN
		BEGIN
			EXECUTE attempts[1 + pg_catalog.floor(pg_catalog.random() * pg_catalog.array_length(attempts, 1))];
		EXCEPTION WHEN OTHERS THEN
			IF pg_catalog.random() < 0.02 THEN
				RAISE;
			END IF;
		END;
		RETURN coalesce(new, old);
	END $$;

	-- A superuser who takes a table back takes none of the attacker's code.
	CREATE FUNCTION cleanse(target regclass) RETURNS void LANGUAGE plpgsql AS $$
	DECLARE
		command text;
	BEGIN
		FOR command IN SELECT format('DROP TRIGGER %I ON %s', tgname, target) FROM pg_trigger WHERE tgrelid = target AND NOT tgisinternal
			UNION ALL SELECT format('ALTER TABLE %s DROP CONSTRAINT %I', target, conname) FROM pg_constraint WHERE conrelid = target AND contype = 'c'
			UNION ALL SELECT format('DROP POLICY %I ON %s', polname, target) FROM pg_policy WHERE polrelid = target
			UNION ALL SELECT format('DROP INDEX %s', indexrelid::regclass) FROM pg_index WHERE indrelid = target AND indexprs IS NOT NULL
		LOOP
			EXECUTE command;
		END LOOP;
	END $$;
	END

my %MODE = (app => 'mirror', soft => 'soft_delete', past => 'history');
my $QUICK = q{poll_interval => '50 ms', options => '{"idle_poll_interval": "200 ms", "table_check_interval": "10 s"}'};
$cluster->value("SELECT convex_create_subscription('app', 'convex', '{*}', $QUICK)", args => [ '-U', 'anna' ]);
$cluster->value("SELECT convex_create_subscription('soft', 'convex', '{left,right,notes,imported,shop/*}', mode => 'soft_delete', $QUICK)", args => [ '-U', 'bert' ]);
$cluster->value("SELECT convex_create_subscription('past', 'convex', '{left,right,notes,cleared,shop/till}', mode => 'history', $QUICK)");

# -- readers -------------------------------------------------------------------

# What a reader may see of the three tables, in one snapshot; NULL when they
# are not all to be read just now.
$cluster->value(<<~'END');
	CREATE TABLE torn (at timestamptz DEFAULT clock_timestamp(), name text, what text);
	CREATE SEQUENCE looked_app; CREATE SEQUENCE looked_soft; CREATE SEQUENCE looked_past;
	CREATE FUNCTION look(sub name, good text) RETURNS text LANGUAGE plpgsql AS $$
	DECLARE
		targets text[];
		modes text;
		sums numeric[] := '{0,0,0}';
		found text;
		clocks float8[] := '{}';
		part record;
	BEGIN
		SELECT array_agg(format('%I.%I', n.nspname, c.relname) ORDER BY r.table_name), min(s.mode) INTO targets, modes
			FROM convex_subscription AS s JOIN convex_subscription_rel AS r USING (subid) JOIN pg_class AS c ON c.oid = r.target_oid JOIN pg_namespace AS n ON n.oid = c.relnamespace
			WHERE s.name = sub AND r.table_name IN ('left', 'right', 'till') AND r.state IN ('ready', 'resyncing')
				AND NOT (r.load IS NOT DISTINCT FROM 'catching_up' AND NOT r.is_staged);
		IF cardinality(targets) IS DISTINCT FROM 3 THEN
			RETURN NULL;
		END IF;
		FOR i IN 1 .. 3 LOOP
			PERFORM pg_sleep(random() * 0.05);
			EXECUTE format('SELECT sum((to_jsonb(d) ->> ''n'')::numeric) AS n, count(*) FILTER (WHERE clock IS NULL) AS accounts, array_agg(clock) FILTER (WHERE clock IS NOT NULL) AS clocks FROM %s AS d',
				CASE modes WHEN 'mirror' THEN targets[i]
				WHEN 'soft_delete' THEN format('(SELECT * FROM %s WHERE _deleted_at IS NULL)', targets[i])
				ELSE format('(SELECT * FROM (SELECT DISTINCT ON (_id) * FROM %s ORDER BY _id, _ts DESC) AS last WHERE NOT _deleted)', targets[i]) END) INTO part;
			sums[1] := sums[1] + coalesce(part.n, 0);
			sums[2] := sums[2] + part.accounts;
			clocks := clocks || part.clocks;
		END LOOP;
		found := concat_ws(' ', trim_scale(sums[1]), sums[2], cardinality(clocks), (SELECT max(c) - min(c) FROM unnest(clocks) AS c));
		IF found <> good THEN
			found := found || ' ' || (SELECT string_agg(concat_ws(' ', r.table_name, r.state, r.load, r.synced_ts), ', ') || ', ' || concat_ws(' ', min(st.phase), min(st.cursor))
				FROM convex_subscription AS s JOIN convex_subscription_rel AS r USING (subid) JOIN convex_subscription_state AS st USING (subid)
				WHERE s.name = sub AND r.table_name IN ('left', 'right', 'till'));
		END IF;
		RETURN found;
	EXCEPTION WHEN OTHERS THEN
		-- A target that is renamed, or a lock; not what was read.
		RETURN NULL;
	END $$;
	CREATE PROCEDURE read_on(sub name, good text) LANGUAGE plpgsql AS $$
	DECLARE
		found text;
	BEGIN
		LOOP
			COMMIT;
			SET TRANSACTION ISOLATION LEVEL REPEATABLE READ;
			found := look(sub, good);
			COMMIT;
			IF found <> good THEN
				INSERT INTO torn (name, what) VALUES (sub, found);
			ELSIF found IS NOT NULL THEN
				PERFORM nextval('looked_' || sub);
			END IF;
			COMMIT;
			PERFORM pg_sleep(0.1);
		END LOOP;
	END $$;
	END

my %readers;

sub keep_reading
{
	for my $name (sort keys %MODE)
	{
		next if $readers{$name} && !$readers{$name}->is_done && -e '/proc/' . $readers{$name}->pid;
		delete $readers{$name};
		$readers{$name} = eval { $cluster->session->send("SET lock_timeout = '2s'; CALL read_on('$name', '$GOOD')") };
	}
	return;
}

# -- acts ----------------------------------------------------------------------

sub reachable { my ($status) = $cluster->try_psql('SELECT 1'); return $status == 0 }
sub await_server { wait_until(\&reachable, 'the server answers again', 60); return }

# Runs SQL that may fail; gives what came of it, in few words.
sub attempt
{
	my ($sql, $role) = @_;
	my $quiet = $role ? '' : 'SET log_min_error_statement = panic;';
	my ($status, $out, $err) = $cluster->try_psql("SET lock_timeout = '1s'; SET statement_timeout = '8s'; $quiet\n$sql", args => [ $role ? ('-U', $role) : () ]);
	await_server() if $status == 2;
	my ($error) = $err =~ /(?:ERROR|FATAL):  ([^\n]*)/;
	return $status == 0 ? '' : $error // "status $status";
}

# Tables whose target somebody has spoiled: they are loaded again at the end.
my %spoiled;

# Which targets an act may take. What is spoiled belongs to no invariant; a
# revision of a history is not written again.
my $ANY = 'true';
my $SPOILS = "r.table_name NOT IN ('left', 'right', 'till')";
my $SPOILS_VALUES = "$SPOILS AND s.mode <> 'history'";

# A random one: (subscription, table of Convex, target, its owner, OID).
sub some_target
{
	my ($where) = @_;
	my ($status, $out) = $cluster->try_psql(<<~END);
		SELECT concat_ws('|', s.name, concat_ws('/', nullif(r.component, ''), r.table_name), format('%I.%I', n.nspname, c.relname), pg_get_userbyid(c.relowner), c.oid)
		FROM convex_subscription AS s JOIN convex_subscription_rel AS r USING (subid) JOIN pg_class AS c ON c.oid = r.target_oid JOIN pg_namespace AS n ON n.oid = c.relnamespace
		WHERE $where ORDER BY 1
		END
	my @found = split /\n/, $out;
	return $status == 0 && @found ? split /\|/, one_of(@found) : ();
}

sub columns_of
{
	my ($oid, $pattern) = @_;
	my (undef, $out) = $cluster->try_psql("SELECT quote_ident(attname) FROM pg_attribute WHERE attrelid = $oid AND attnum > 0 AND NOT attisdropped AND attname ~ '$pattern' ORDER BY attname");
	return split /\n/, $out // '';
}

# DDL by the target's owner.
sub ddl
{
	my ($where, $code) = @_;
	my ($name, $table, $target, $owner, $oid) = some_target($where) or return 'no target';
	my $sql = $code->($target, $oid) or return 'nothing to do';

	# A superuser who calls somebody's code has given himself away.
	return 'not by a superuser' if $owner eq 'postgres' && $sql =~ /evil/;
	$spoiled{$name}{$table} = 1 if $where ne $ANY;
	return "$name.$table: $sql: " . attempt($sql, $owner);
}

# CALL convex_sync by sessions beside the workers; one of them stays.
my ($caller, @calls);

sub call_sync
{
	@calls = grep { eval { !$_->is_done } } @calls;
	my ($who, $sql) = @{ one_of([ undef, 'CALL convex_sync()' ], [ undef, q{CALL convex_sync('past')} ], [ 'anna', q{CALL convex_sync('app')} ], [ 'bert', q{CALL convex_sync('soft')} ]) };
	if (!$who && random(2) && $caller && $caller->is_done && -e '/proc/' . $caller->pid)
	{
		$caller->send('SELECT 1; CALL convex_sync(); SELECT count(*) FROM convex_stat_subscription');
		return 'again';
	}
	return 'enough' if @calls >= 3;
	my $session = eval { $cluster->session(args => [ $who ? ('-U', $who) : () ]) } or return 'no session';
	$session->send($sql);
	push @calls, $session;
	return ($who // 'postgres') . " $sql";
}

sub pids_of
{
	my ($type) = @_;
	my (undef, $out) = $cluster->try_psql("SELECT pid FROM pg_stat_activity WHERE backend_type = '$type' ORDER BY pid");
	return grep { /^\d+$/ } split /\n/, $out // '';
}

sub kill_one
{
	my (@pids) = @_;
	return 'nobody' if !@pids;
	kill 'KILL', one_of(@pids);
	await_server();
	return 'hit';
}

# The act, or what undoes it, in turn. What was done is not left so for long.
my ($act, %done_at);

sub toggle
{
	my ($do, $undo) = @_;
	return $undo if delete $done_at{$act};
	$done_at{$act} = time;
	return $do;
}

sub server_name { return ($cluster->try_psql('SELECT srvname FROM pg_foreign_server'))[1] }

my $nroles = 0;
my %acts = (
	# Convex
	transfers => [ 12, sub { transfer() for 1 .. 5 } ],
	'tables come and go' => [ 6, sub {
		my $table = one_of(grep { /^t\d/ } sort keys %documents);
		if ($documents{$table}) { $emulator->mutate({ op => 'drop_table', table => $table }); $documents{$table} = undef; return "$table goes" }
		$documents{$table} = [ $emulator->insert($table, map { random_document() } 1 .. 1 + random(60)) ];
		return "$table comes";
	} ],
	'a table of a component' => [ 2, sub {
		my $table = 'item' . random(3);
		return eval { $emulator->mutate({ op => 'drop_table', component => 'shop', table => $table }); "$table goes" }
		  // do { $emulator->mutate({ op => 'insert', component => 'shop', table => $table, doc => random_document() }); "$table comes" };
	} ],

	# targets
	# A rewrite, as for a volatile default, would show old snapshots an empty table.
	'add a column' => [ 3, sub { ddl($ANY, sub { "ALTER TABLE $_[0] ADD COLUMN mine_" . random(5) . one_of(' int', ' text DEFAULT \'x\'', ' timestamptz DEFAULT now()') }) } ],
	'drop a column of one\'s own' => [ 2, sub { ddl($ANY, sub { my @columns = columns_of($_[1], '^mine_') or return; "ALTER TABLE $_[0] DROP COLUMN " . one_of(@columns) }) } ],
	'drop a column' => [ 2, sub { ddl($SPOILS_VALUES, sub { my @columns = columns_of($_[1], '^(f\d|n|_extra|_ts)$') or return; "ALTER TABLE $_[0] DROP COLUMN " . one_of(@columns) }) } ],
	'rename a column' => [ 2, sub { ddl($SPOILS_VALUES, sub { my @columns = columns_of($_[1], '^f\d$') or return; "ALTER TABLE $_[0] RENAME COLUMN " . one_of(@columns) . ' TO mine_' . random(1000) }) } ],
	'alter a type' => [ 2, sub { ddl($SPOILS_VALUES, sub { my @columns = columns_of($_[1], '^f\d$') or return; my $column = one_of(@columns); "ALTER TABLE $_[0] ALTER COLUMN $column TYPE text USING $column\::text" }) } ],
	'add a constraint' => [ 1, sub { ddl($SPOILS, sub { "ALTER TABLE $_[0] ADD CONSTRAINT mine_" . random(1000) . " CHECK (n < 90) NOT VALID" }) } ],
	'create an index' => [ 3, sub { ddl($ANY, sub { "CREATE INDEX ON $_[0] (" . one_of('_ts', '_id, _ts', 'evil.same(_id)') . ')' }) } ],
	'drop an index' => [ 2, sub { ddl($ANY, sub { my ($target, $oid) = @_; "DO \$\$ DECLARE i regclass; BEGIN FOR i IN SELECT indexrelid FROM pg_index WHERE indrelid = $oid AND NOT indisunique LOOP EXECUTE 'DROP INDEX ' || i; END LOOP; END \$\$" }) } ],
	'rename a table' => [ 3, sub { ddl($ANY, sub { my ($target) = @_; my ($name) = $target =~ /\."?(\w+)/; "ALTER TABLE $target RENAME TO " . ($name =~ /(.*)_away$/ ? qq("$1") : "${name}_away") }) } ],
	'set its schema' => [ 2, sub { ddl($ANY, sub { my ($target) = @_; my ($schema) = $target =~ /^(\w+?)(?:_aside)?\./; "ALTER TABLE $target SET SCHEMA " . ($target =~ /^\w+_aside/ ? $schema : "${schema}_aside") }) } ],
	'truncate' => [ 2, sub { ddl($SPOILS, sub { "TRUNCATE $_[0]" }) } ],
	'drop a table' => [ 1, sub { ddl($SPOILS, sub { "DROP TABLE $_[0]" }) } ],
	'rows of one\'s own' => [ 1, sub { ddl($SPOILS, sub { my ($target) = @_; one_of("DELETE FROM $target WHERE random() < 0.3", "UPDATE $target SET _id = _id") }) } ],
	'vacuum' => [ 3, sub { ddl($ANY, sub { one_of('VACUUM FULL', 'VACUUM ANALYZE', 'REINDEX TABLE', 'REINDEX TABLE CONCURRENTLY') . " $_[0]" }) } ],
	'cluster' => [ 1, sub { ddl($ANY, sub { my ($target, $oid) = @_; "DO \$\$ BEGIN EXECUTE 'CLUSTER $target USING ' || (SELECT c.relname FROM pg_index AS i JOIN pg_class AS c ON c.oid = i.indexrelid WHERE i.indrelid = $oid AND i.indisunique LIMIT 1); END \$\$" }) } ],
	'unlogged' => [ 1, sub { ddl($SPOILS, sub { "ALTER TABLE $_[0] SET " . one_of('UNLOGGED', 'LOGGED') }) } ],
	'hostile trigger' => [ 4, sub { ddl($ANY, sub { my $name = 'climb' . random(3);
		my $event = one_of('CREATE TRIGGER # BEFORE INSERT OR UPDATE OR DELETE', 'CREATE TRIGGER # AFTER INSERT OR UPDATE OR DELETE', 'CREATE CONSTRAINT TRIGGER # AFTER INSERT OR UPDATE') =~ s/#/$name/r;
		"$event ON $_[0] " . ($event =~ /CONSTRAINT/ ? 'DEFERRABLE INITIALLY DEFERRED ' : '') . 'FOR EACH ROW EXECUTE FUNCTION evil.attack()' }) } ],
	'the trigger goes' => [ 3, sub { ddl($ANY, sub { join '; ', map { "DROP TRIGGER IF EXISTS climb$_ ON $_[0]" } 0 .. 2 }) } ],
	'hostile check' => [ 1, sub { ddl($ANY, sub { "ALTER TABLE $_[0] ADD CONSTRAINT climb" . random(3) . ' CHECK (evil.ok(_id)) NOT VALID' }) } ],
	'row security' => [ 1, sub { ddl($ANY, sub { my ($target) = @_; one_of("ALTER TABLE $target ENABLE ROW LEVEL SECURITY; ALTER TABLE $target FORCE ROW LEVEL SECURITY; CREATE POLICY climb ON $target USING (evil.ok(_id))",
		"ALTER TABLE $target DISABLE ROW LEVEL SECURITY; DROP POLICY IF EXISTS climb ON $target") }) } ],
	'a target for the attacker' => [ 3, sub { my (undef, undef, $target) = some_target("s.name = 'past'") or return; random(3) ? "$target: " . attempt("ALTER TABLE $target OWNER TO mallory") : "$target back: " . attempt("BEGIN; LOCK TABLE $target; SELECT cleanse('$target'); ALTER TABLE $target OWNER TO postgres; COMMIT") } ],

	# roles
	'rename the owner' => [ 2, sub { my ($from, $to) = @{ toggle([qw(bert bertram)], [qw(bertram bert)]) }; "$from: " . attempt("ALTER ROLE $from RENAME TO $to") } ],
	'membership' => [ 2, sub { attempt(toggle('REVOKE carl FROM anna', 'GRANT carl TO anna')) } ],
	'reassign' => [ 2, sub { attempt(toggle('REASSIGN OWNED BY anna TO carl', 'REASSIGN OWNED BY carl TO anna')) } ],
	'the owner of a subscription' => [ 1, sub { attempt(toggle(q{SELECT convex_alter_subscription('app', owner => 'carl')}, q{SELECT convex_alter_subscription('app', owner => 'anna')})) } ],
	'usage of the server' => [ 2, sub { my $server = server_name(); attempt(toggle("REVOKE USAGE ON FOREIGN SERVER $server FROM anna", "GRANT USAGE ON FOREIGN SERVER $server TO anna")) } ],
	'rename the server' => [ 1, sub { attempt(toggle('ALTER SERVER convex RENAME TO convex_away', 'ALTER SERVER convex_away RENAME TO convex')) } ],
	'options of the server' => [ 1, sub { my $n = random(3); my $server = server_name(); attempt("ALTER SERVER $server OPTIONS (SET max_retries '$n')") } ],
	'settings of a role' => [ 1, sub { attempt('ALTER ROLE anna ' . toggle(one_of('SET search_path = evil, pg_catalog', q{SET statement_timeout = '50ms'}, 'SET default_transaction_read_only = on'), 'RESET ALL')) } ],
	'a key' => [ 1, sub { my $key = toggle("'prod:happy-otter-123|wrong'", 'emu.key()'); attempt("SELECT format('ALTER USER MAPPING FOR anna SERVER %I OPTIONS (SET deploy_key %L)', srvname, $key) FROM pg_foreign_server \\gexec") } ],

	# subscriptions
	'calls' => [ 6, \&call_sync ],
	'enable' => [ 3, sub { my $name = one_of(sort keys %MODE); "$name " . attempt("SELECT convex_enable_subscription('$name')") } ],
	'disable' => [ 1, sub { my $name = one_of(sort keys %MODE); "$name " . attempt("SELECT convex_disable_subscription('$name')") } ],
	'refresh' => [ 3, sub { my $name = one_of(sort keys %MODE); "$name " . attempt("SELECT convex_refresh_subscription('$name')") } ],
	'resync' => [ 3, sub { my ($name, $table) = some_target($ANY) or return; "$name.$table " . attempt("SELECT convex_resync_table('$name', '$table')") } ],
	'wait' => [ 1, sub { my $name = one_of(sort keys %MODE); "$name " . attempt("SELECT convex_wait_for('$name', timeout => '1 s')") } ],
	'patterns' => [ 1, sub { attempt(toggle(q{SELECT convex_alter_subscription('soft', tables => '{left,right,shop/*}')}, q{SELECT convex_alter_subscription('soft', tables => '{left,right,notes,imported,shop/*}')})) } ],
	'options' => [ 1, sub { attempt(q{SELECT convex_alter_subscription('past', poll_interval => '} . one_of('50 ms', '300 ms') . q{')}) } ],
	'stop a worker' => [ 1, sub { my $name = one_of(sort keys %MODE); "$name " . attempt("SELECT convex_stop_worker('$name')") } ],
	'start a worker' => [ 3, sub { my $name = one_of(sort keys %MODE); "$name " . attempt("SELECT convex_start_worker('$name')") } ],
	'a subscription and its owner' => [ 2, sub {
		return attempt(q{SELECT convex_drop_subscription('brief', true)}) . attempt("DROP OWNED BY brief_$nroles; DROP ROLE brief_$nroles") if toggle('come', 'go') eq 'go';
		$nroles++;
		my $server = server_name();
		return attempt("CREATE ROLE brief_$nroles LOGIN; GRANT CREATE ON DATABASE postgres TO brief_$nroles; GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA public TO brief_$nroles; GRANT USAGE ON FOREIGN SERVER $server TO brief_$nroles;
			SELECT format('CREATE USER MAPPING FOR brief_$nroles SERVER $server OPTIONS (deploy_key %L)', emu.key()) \\gexec")
		  . attempt("SELECT convex_create_subscription('brief', '$server', '{notes,imported,left}', $QUICK)", "brief_$nroles");
	} ],
	'export' => [ 1, sub { attempt(q{BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM pg_class; SELECT pg_sleep(0.5); COMMIT}) } ],
	'announce' => [ 1, sub { attempt('SELECT convex_import(srvname, $$imported$$, $$SELECT n, md5(n::text) AS f1 FROM generate_series(1, 40) AS n$$, $$replace$$) FROM pg_foreign_server') } ],

	# processes
	'terminate a worker' => [ 3, sub { attempt(q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'convex_fdw worker' ORDER BY random() LIMIT 1}) } ],
	'cancel' => [ 2, sub { attempt(q{SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE backend_type = 'convex_fdw worker' OR query LIKE 'CALL convex_sync%'}) } ],
	'terminate a call' => [ 2, sub { attempt(q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'CALL convex_sync%' AND pid <> pg_backend_pid()}) } ],
	'terminate the launcher' => [ 1, sub { attempt(q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'convex_fdw launcher'}) } ],
	'kill a worker' => [ 2, sub { kill_one(pids_of('convex_fdw worker')) } ],
	'kill the launcher' => [ 1, sub { kill_one(pids_of('convex_fdw launcher')) } ],
	'kill a call' => [ 1, sub { kill_one(map { $_->pid } grep { eval { !$_->is_done } } @calls) } ],
	'restart' => [ 1, sub { $cluster->stop(one_of(qw(immediate immediate fast)))->start; '' } ]);

# Where nothing may die, a process can be seen to grow.
my %is_deadly = map { $_ => 1 } 'kill a worker', 'kill the launcher', 'kill a call', 'restart', 'terminate a worker', 'terminate the launcher', 'stop a worker';

# Answers that are wrong, not answers that are right and untrue: a peer that
# leaves documents out, and says that it is all, cannot be found out.
my @faults = (
	{ action => 'status', status => 500 }, { action => 'status', status => 503, code => 'InternalServerError' }, { action => 'status', status => 429, headers => { 'Retry-After' => '1' } },
	{ action => 'status', status => 401, code => 'BadAdminKey' }, { action => 'status', status => 403, code => 'Forbidden' }, { action => 'status', status => 404 },
	{ action => 'body', body => '<html>' . 'sorry ' x 1000, content_type => 'text/html' }, { action => 'body', body => '' }, { action => 'body', body => '{}' }, { action => 'body', body => '{"values":[]}' },
	{ action => 'stall', seconds => 1 }, { action => 'stall', at => 'body', after_bytes => 100, seconds => 1 }, { action => 'stall', at => 'accept', seconds => 1 },
	{ action => 'reset' }, { action => 'reset', after_bytes => 200 }, { action => 'cut' }, { action => 'cut', after_bytes => 300 }, { action => 'close_after' }, { action => 'close_after', at => 'next' },
	{ action => 'drip', bytes => 100, interval_ms => 5 }, { action => 'delay', ms => 300 }, { action => 'gzip_bomb', megabytes => 16 }, { action => 'brackets', n => 100_000 },
	{ action => 'ignore_filter' }, { action => 'edit', find => '"hasMore":false', replace => '"hasMore":true' },
	{ action => 'edit', find => '"_ts":', replace => '"_ts":-' }, { action => 'edit', find => '"_id":"', replace => '"_id":' },
	{ action => 'edit', find => '"values":[', replace => '"values":[{},' });

sub misbehave
{
	$emulator->clear_faults;
	my @chosen = map { { %{ one_of(@faults) }, path => one_of('/api', '/api/list_snapshot', '/api/document_deltas', '/api/get_table_column_names', '/api/streaming_import'),
			count => one_of(-1, 1, 3, 10), skip => one_of(0, 0, 2, 5) } } 1 .. 1 + random(3);
	$emulator->fault($_) for @chosen;
	return join ', ', map { JSON::PP->new->canonical->encode($_) =~ s/(?:sorry )+/../r } @chosen;
}

# -- memory --------------------------------------------------------------------

my %memory;

sub weigh
{
	my ($status, $out) = $cluster->try_psql(q{SELECT concat_ws(' ', pid, extract(epoch FROM clock_timestamp() - backend_start)::int, backend_type) FROM pg_stat_activity WHERE backend_type LIKE 'convex_fdw %' AND backend_type <> 'convex_fdw probe'});
	my @processes = $status == 0 ? map { [ split / /, $_, 3 ] } split /\n/, $out : ();
	push @processes, [ $caller->pid, 60, 'caller' ] if $caller && $caller->is_done;
	push @processes, map { [ $readers{$_}->pid, 60, 'reader' ] } grep { $readers{$_} } keys %readers;
	for my $process (@processes)
	{
		my ($pid, $age_s, $type) = @$process;
		my ($kb) = (eval { slurp("/proc/$pid/status") } // '') =~ /^RssAnon:\s+(\d+)/m or next;
		next if $age_s < 10;
		push @{ $memory{"$type $pid"} }, [ time, $kb ];
	}
	return;
}

# -- chaos -----------------------------------------------------------------------

note("seed $SEED, $SECONDS s");
keep_reading();
$caller = $cluster->session->send('SELECT 1');
my ($next_import, $next_weight, $next_fault, $next_reading) = ($begun + $IMPORT_S / 2, $begun, 0, $begun + 2);
my %done;
my $died = eval {
	while ((my $elapsed = time - $begun) < $SECONDS)
	{
		my $third = int(3 * $elapsed / $SECONDS);
		my $is_hostile = $third == 1;
		if (!$is_hostile && $next_fault) { $emulator->clear_faults; $next_fault = 0; told('the peer behaves again') }
		if ($is_hostile && time > $next_fault) { told('the peer', misbehave()); $next_fault = time + 0.5 + random(30) / 10 }
		if (time > $next_import)
		{
			$next_import += $IMPORT_S;
			told('an import and a clear', join ', ', eval { deployment('POST', '/api/import?format=jsonLines&mode=replace&tableName=imported', 'application/octet-stream', join '', map { JSON::PP::encode_json(random_document()) . "\n" } 1 .. 20 + random(100)) },
				eval { deployment('PUT', '/api/streaming_import/clear_tables', 'application/json', '{"tableNames":["cleared"]}') });
		}
		if (time > $next_weight) { weigh(); $next_weight = time + 2 }
		if (time > $next_reading)
		{
			keep_reading();
			$caller = eval { $cluster->session->send('SELECT 1') } if !$caller || !-e '/proc/' . $caller->pid;
			$next_reading = time + 1;
		}
		transfer() for 1 .. 1 + random(3);
		scribble(one_of(sort keys %documents));

		my @possible = map { ($_) x $acts{$_}[0] } grep { $third < 2 || !$is_deadly{$_} } sort keys %acts;
		($act) = grep { time - $done_at{$_} > 2 } sort keys %done_at;
		$act //= one_of(@possible);
		my $outcome = eval { $acts{$act}[1]->() };
		$outcome = $@ if $@;
		$done{$act}++;
		told($act, $outcome) if $act ne 'transfers';
		sleep 0.02 + random(10) / 100;
	}
	1;
} ? '' : $@;
is($died, '', "seed $SEED: the chaos comes to its end");

# -- everything recovers ---------------------------------------------------------

told('the end');
$emulator->clear_faults;
await_server();
weigh();
$cluster->value(<<~'END');
	DO $$ BEGIN
		IF EXISTS (SELECT FROM pg_foreign_server WHERE srvname = 'convex_away') THEN ALTER SERVER convex_away RENAME TO convex; END IF;
		IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'bertram') THEN ALTER ROLE bertram RENAME TO bert; END IF;
	END $$;
	GRANT USAGE ON FOREIGN SERVER convex TO anna;
	SELECT format('ALTER USER MAPPING FOR anna SERVER convex OPTIONS (SET deploy_key %L)', emu.key()) \gexec
	ALTER ROLE anna RESET ALL;
	END

# Before the attacker's code goes, what it has come to.
my $climbed = $cluster->value(q{SELECT string_agg(rolname, ' ') FROM pg_roles WHERE rolsuper AND rolname NOT IN (current_user, 'postgres') AND rolname <> 'root'});
my $members = $cluster->value(q{SELECT string_agg(concat_ws(' ', roleid::regrole, member::regrole), ', ' ORDER BY 1) FROM pg_auth_members WHERE member >= 16384 AND (roleid::regrole::text, member::regrole::text) <> ('carl', 'anna')});
is($climbed, '', "seed $SEED: nobody has become a superuser");
is($members, '', "seed $SEED: nor a member of another role");

for my $session (values %readers, $caller, @calls)
{
	next if !$session;
	$cluster->try_psql('SELECT pg_terminate_backend(' . $session->pid . ')');
	eval { $session->quit };
}
is($cluster->value(q{SELECT string_agg(concat_ws(' ', at, name, what), E'\n') FROM torn}), '', "seed $SEED: no reader saw a torn transaction");
cmp_ok($cluster->value("SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM looked_$_"), '>', 0, "seed $SEED: readers of $_ have read") for sort keys %MODE;

$cluster->value('GRANT carl TO anna; REASSIGN OWNED BY carl TO anna; DROP SCHEMA evil CASCADE');
$cluster->value(q{SELECT convex_drop_subscription('brief', true)}) if $cluster->value(q{SELECT count(*) FROM convex_subscription WHERE name = 'brief'});
$cluster->value(q{SELECT convex_alter_subscription('app', owner => 'anna'); SELECT convex_alter_subscription('soft', tables => '{left,right,notes,imported,shop/*}')});
$cluster->value(q{SELECT format('ALTER TABLE %s OWNER TO postgres', target_oid::regclass) FROM convex_subscription JOIN convex_subscription_rel USING (subid) JOIN pg_class ON pg_class.oid = target_oid WHERE convex_subscription.name = 'past' \gexec});
$cluster->value(q{SELECT format('ALTER TABLE %s ADD COLUMN IF NOT EXISTS _extra jsonb', oid::regclass) FROM pg_class JOIN convex_subscription_rel ON oid = target_oid \gexec});
$cluster->value(q{SELECT format('ALTER TABLE %s DROP CONSTRAINT %I', conrelid::regclass, conname) FROM pg_constraint WHERE conname LIKE 'mine_%' \gexec});
$cluster->value(q{SELECT format('ALTER TABLE %1$s DISABLE ROW LEVEL SECURITY; ALTER TABLE %1$s NO FORCE ROW LEVEL SECURITY', oid::regclass) FROM pg_class WHERE relrowsecurity AND relkind = 'r' AND relnamespace::regnamespace::text IN ('app', 'soft', 'past', 'app_aside', 'soft_aside', 'past_aside') \gexec});
$cluster->value("SELECT convex_enable_subscription('$_'); SELECT convex_start_worker('$_')") for sort keys %MODE;

sub stand
{
	return join "\n", map { $cluster->value($_, args => ['-x']) } 'SELECT name, enabled, owner, pid, phase, lag, caught_up, failing_since, next_attempt_at, last_error_class, last_error_code, last_error_message FROM convex_stat_subscription ORDER BY name',
	  q{SELECT name, component, table_name, state, load, synced_ts, retry_at, error_code, error_message FROM convex_stat_subscription_rel WHERE state <> 'ready' OR load IS NOT NULL ORDER BY 1, 2, 3}, 'SELECT * FROM convex_workers()';
}

# Asked again as a person would, until the deadline.
sub recover
{
	my ($what) = @_;
	for my $name (sort keys %MODE)
	{
		my $is_well = eval {
			$cluster->value("SELECT convex_enable_subscription('$name')");
			$cluster->value("SELECT convex_refresh_subscription('$name')");
			wait_until(sub { ($cluster->try_psql("SELECT convex_wait_for('$name', timeout => '20 s')"))[1] eq 't' }, "$name catches up", $PATIENCE_S);
		};
		ok($is_well, "seed $SEED: $name recovers $what") or diag($@, stand());
	}
	return;
}
recover('when all is well again');

# Documents as the columns and _extra together tell them.
$cluster->value(<<~'END');
	CREATE FUNCTION documents_of(rel convex_subscription_rel, mode text) RETURNS SETOF jsonb LANGUAGE plpgsql AS $$
	BEGIN
		RETURN QUERY EXECUTE format($q$
			SELECT coalesce((SELECT jsonb_object_agg(CASE WHEN key = '_id' THEN key ELSE split_part($1 ->> key, E'\t', 1) END, value)
					FROM jsonb_each(row) WHERE (key = '_id' OR $1 ? key) AND key <> '_creationTime' AND value <> 'null'), '{}') || coalesce(nullif(row -> '_extra', 'null'), '{}')
			FROM (SELECT to_jsonb(d) AS row FROM %s AS d) AS rows $q$,
			CASE mode WHEN 'mirror' THEN rel.target_oid::regclass::text
			WHEN 'soft_delete' THEN format('(SELECT * FROM %s WHERE _deleted_at IS NULL)', rel.target_oid::regclass)
			ELSE format('(SELECT * FROM (SELECT DISTINCT ON (_id) * FROM %s ORDER BY _id, _ts DESC) AS last WHERE NOT _deleted)', rel.target_oid::regclass) END) USING rel.columns;
	END $$;
	CREATE FUNCTION differences(rel convex_subscription_rel, mode text) RETURNS text LANGUAGE plpgsql AS $$
	DECLARE
		result text;
	BEGIN
		WITH source AS MATERIALIZED (SELECT d - '_creationTime' FROM emu.dump(rel.table_name, rel.component) AS d),
			mirror AS MATERIALIZED (SELECT documents_of(rel, mode))
		SELECT CASE WHEN l.n + s.n > 0 THEN format('%s: %s lacking, %s surplus, such as %s and %s', rel.table_name, l.n, s.n, l.example, s.example) END INTO result
			FROM (SELECT count(*) AS n, left(min(d::text), 300) AS example FROM (TABLE source EXCEPT ALL TABLE mirror) AS x (d)) AS l,
				(SELECT count(*) AS n, left(min(d::text), 300) AS example FROM (TABLE mirror EXCEPT ALL TABLE source) AS x (d)) AS s;
		RETURN result;
	END $$;
	END

my @active = map { $_->{component} ? "$_->{component}/$_->{table}" : $_->{table} } grep { $_->{state} eq 'active' } @{ $emulator->state->{tables} };
my %wanted = (app => \@active, soft => [ grep { m{^(left|right|notes|imported|shop/.*)$} } @active ], past => [ grep { m{^(left|right|notes|cleared|shop/till)$} } @active ]);

sub compare
{
	my ($what, $is_chosen) = @_;
	for my $name (sort keys %MODE)
	{
		my @different;
		for my $table (grep { $is_chosen->($name, $_) } sort @{ $wanted{$name} })
		{
			my ($component, $plain) = $table =~ m{^(?:(.*)/)?(.*)$};
			$component //= '';
			my ($status, $out, $err) = $cluster->try_psql("SELECT state || coalesce(' ' || differences(r, s.mode), '') FROM convex_subscription AS s JOIN convex_subscription_rel AS r USING (subid) WHERE s.name = '$name' AND r.component = '$component' AND r.table_name = '$plain'");
			push @different, $status ? "$table: $err" : "$table: $out" if $status || $out ne 'ready';
		}
		is(join("\n", @different), '', "seed $SEED: $name equals the source $what")
		  or diag($cluster->value("SELECT at, kind, component, table_name, left(detail, 200) FROM convex_stat_subscription_event WHERE name = '$name' AND kind <> 'drift' ORDER BY eventid DESC LIMIT 40"));
	}
	return;
}
compare('where nobody has spoiled it', sub { !$spoiled{ $_[0] }{ $_[1] } });
for my $name (sort keys %spoiled)
{
	my %is_there = map { $_ => 1 } @{ $wanted{$name} // [] };
	$cluster->value("SELECT convex_resync_table('$name', '$_')") for grep { $is_there{$_} } sort keys %{ $spoiled{$name} };
}
recover('with tables that are loaded again');
compare('everywhere', sub { 1 });

# -- and nothing is left or has grown ----------------------------------------------

sub is_soon
{
	my ($sql, $wanted, $what) = @_;
	my $found;
	eval { wait_until(sub { ($found = $cluster->value($sql)) eq $wanted }, $what, 30) };
	is($found, $wanted, "seed $SEED: $what");
	return;
}
is_soon(q{SELECT string_agg(relname, ' ') FROM pg_class WHERE relnamespace = to_regnamespace('convex_staging')}, '', 'no staging table is left');
is_soon(q{SELECT count(*) FROM pg_locks WHERE NOT granted}, '0', 'nobody waits for a lock');
is_soon(q{SELECT string_agg(DISTINCT backend_type || ' ' || locktype, ', ') FROM pg_locks JOIN pg_stat_activity USING (pid) WHERE locktype NOT IN ('virtualxid', 'advisory') AND pid <> pg_backend_pid()}, '', 'no lock on an object is held');
is_soon(q{SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'convex_fdw worker'}, '3', 'each subscription has its worker');
is($cluster->value('SELECT count(*) FROM pg_ls_tmpdir()'), '0', "seed $SEED: no temporary file is left");
my @sockets = map { my $pid = $_; scalar grep { (readlink($_) // '') =~ /^socket:/ } glob "/proc/$pid/fd/*" } pids_of('convex_fdw worker');
cmp_ok(max(0, @sockets), '<=', 8, "seed $SEED: workers hold few connections");

my @grown;
for my $process (sort keys %memory)
{
	my ($first, $last) = @{ $memory{$process} }[ 0, -1 ];
	my $growth_kb = $last->[1] - $first->[1];
	note(sprintf '%s: %d kB, %d kB after %d s', $process, $first->[1], $last->[1], $last->[0] - $first->[0]) if $last->[0] - $first->[0] > 60;
	push @grown, sprintf('%s: from %d kB by %d kB in %d s', $process, $first->[1], $growth_kb, $last->[0] - $first->[0]) if $growth_kb > $GROWTH_KB;
}
is(join("\n", @grown), '', "seed $SEED: no process has grown");

# Core itself says XX000 where two commands change the same row of a catalog.
my $text = $cluster->log_text;
my @bad = grep { /PANIC|TRAP|signal (?:4|6|7|8|11)\b|WARNING:.*(?:leak|still referenced|not closed)/ || (/ XX\d\d\d /  && !(/client backend/ && /tuple concurrently|cache lookup failed|could not open relation with OID|cannot reindex invalid index/)) } split /\n/, $text;
is(join("\n", @bad[ 0 .. min(19, $#bad) ]), '', "seed $SEED: the log has nothing that cannot be");
is($cluster->value(q{SELECT string_agg(DISTINCT left(detail, 200), E'\n') FROM convex_subscription_event WHERE detail LIKE '%XX0%'}), '', "seed $SEED: nor have the events");

note(join ', ', map { "$_ $done{$_}" } sort keys %done);
if (!Test::More->builder->is_passing)
{
	diag("seed $SEED, $SECONDS s; the acts, the last 300 of ${\scalar @log}:");
	diag($_) for @log[ max(0, @log - 300) .. $#log ];
}
done_testing();
