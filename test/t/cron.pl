# pg_cron follows a subscription with CALL convex_sync: no preload of ours, no
# worker. Both ways in which pg_cron runs jobs, a connection and a background
# process. The version of Debian 12 begins jobs at full minutes.

use strict;
use warnings;

use ConvexTest;
use Test::More;

my $pg_config = $ENV{PG_CONFIG} || 'pg_config';
chomp(my $sharedir = `$pg_config --sharedir`);
plan skip_all => 'pg_cron is not installed' unless -e "$sharedir/extension/pg_cron.control";

my $emulator = ConvexTest::Emulator->new;
$emulator->insert('users', map { { name => "user $_" } } 1 .. 300);

my %cluster;
for my $way ('off', 'on')
{
	my $cluster = $cluster{$way} = ConvexTest::Cluster->new(conf => <<~END);
		shared_preload_libraries = 'pg_cron'
		cron.database_name = 'postgres'
		cron.use_background_workers = $way
		END
	$cluster->append_conf("cron.host = '" . $cluster->host . "'");
	$cluster->restart;
	$cluster->convex($emulator);
	$cluster->value('CREATE EXTENSION pg_cron');
	$cluster->value(q{SELECT convex_create_subscription('app', 'convex', tables => '{users}')});
	$cluster->value(q{SELECT cron.schedule('follow', '* * * * *', 'CALL convex_sync(''app'')')});
}

my %how = (off => 'in a connection', on => 'in a background process');
for my $way (sort keys %cluster)
{
	my $cluster = $cluster{$way};
	$cluster->wait_until_sql("EXISTS (SELECT FROM cron.job_run_details WHERE status IN ('succeeded', 'failed'))", 'the job has run', deadline_s => 180);
	is($cluster->value("SELECT string_agg(DISTINCT status || ': ' || return_message, ', ') FROM cron.job_run_details WHERE status IN ('succeeded', 'failed')"),
		'succeeded: CALL', "pg_cron runs CALL convex_sync $how{$way}");
	is($cluster->value('SELECT count(*) FROM app.users'), '300', 'which loads the table');
	is($cluster->value("SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'convex%'"), '0', 'without a process of ours');
	is($cluster->value('SELECT lag FROM convex_stat_subscription'), '00:00:00', 'the mirror stands at the head');
}

done_testing();
