# Hostile texts against the readers of answers, under the address and undefined
# behaviour sanitizers. CONVEX_TEST_FUZZ_S and CONVEX_TEST_SEED ask for more.

use strict;
use warnings;

use ConvexTest;
use File::Temp qw(tempdir);
use IPC::Run ();
use Test::More;

my $TOP = $ConvexTest::TOP;
my $seconds = $ENV{CONVEX_TEST_FUZZ_S} // 8;
my $seed = $ENV{CONVEX_TEST_SEED} // 20261121;
my $scratch = tempdir('convex_fuzz.XXXXXX', DIR => $ConvexTest::SCRATCH, CLEANUP => 1);
my $pg_config = $ENV{PG_CONFIG} || 'pg_config';
chomp(my ($include, $lib) = map { `$pg_config --$_` } qw(includedir-server pkglibdir));

sub run_program
{
	my (@command) = @_;
	my $out = '';
	local $ENV{ASAN_OPTIONS} = 'detect_leaks=0';
	IPC::Run::run(\@command, '<', \'', '>&', \$out);
	return ($? >> 8 || $? & 127, $out);
}

sub build
{
	my ($name, @flags) = @_;
	my ($status, $out) = run_program(split(' ', $ENV{CC} || 'cc'), '-std=gnu99', '-g', '-fwrapv', '-fno-strict-aliasing', '-D_GNU_SOURCE', @flags,
		"-I$TOP/src", "-I$include", '-o', "$scratch/$name", "$TOP/test/unit/fuzz_json.c", map("$TOP/src/$_.c", qw(wire/json protocol/page ground/error ground/redact)),
		"-L$lib", '-lpgcommon', '-lpgport', '-lm');
	diag($out) if $status != 0;
	return $status == 0;
}

SKIP:
{
	open(my $probe, '>', "$scratch/probe.c") or die "probe.c: $!\n";
	print $probe "int main(void) { return 0; }\n";
	close $probe;
	my @sanitize = ('-O1', '-fno-omit-frame-pointer', '-fsanitize=address,undefined', '-fno-sanitize-recover=all');
	my ($status) = run_program(split(' ', $ENV{CC} || 'cc'), @sanitize, '-o', "$scratch/probe", "$scratch/probe.c");
	skip 'this compiler has no sanitizers', 2 if $status != 0;
	ok(build('sanitized', @sanitize), 'the readers build under the sanitizers') or skip 'nothing to run', 1;
	my ($failure, $out) = run_program("$scratch/sanitized", 'run', $seconds, $seed);
	is($failure, 0, 'no text makes a reader break a promise or touch what is not its own');
	$failure == 0 ? note($out) : diag($out);
}

SKIP:
{
	ok(build('fast', '-O2'), 'the readers build without a server') or skip 'nothing to run', 2;
	my ($failure, $out) = run_program("$scratch/fast", 'run', 2, $seed + 1);
	is($failure, 0, 'nor at full speed');
	$failure == 0 ? note($out) : diag($out);
	($failure, $out) = run_program('python3', "$TOP/test/unit/json_oracle.py", "$scratch/fast", 30_000, $seed);
	is($failure, 0, 'Python reads the same texts, and the same in them');
	$failure == 0 ? note($out) : diag($out);
}

done_testing();
