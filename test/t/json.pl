# The reader of JSON against PostgreSQL's own: both accept the same texts and
# find the same strings and numbers in them, however hostile the text.

use strict;
use warnings;

use ConvexTest;
use File::Temp qw(tempdir);
use MIME::Base64 ();
use Test::More;

my $scratch = tempdir('convex_json.XXXXXX', DIR => $ConvexTest::SCRATCH, CLEANUP => 1);
chmod 0755, $scratch;
my $pg_config = $ENV{PG_CONFIG} || 'pg_config';
chomp(my $include = `$pg_config --includedir-server`);
system(split(' ', $ENV{CC} || 'cc'), '-std=gnu99', '-O2', '-fPIC', '-shared', '-fno-strict-aliasing', '-fwrapv', '-D_GNU_SOURCE',
	"-I$include", "-I$ConvexTest::TOP/src", '-o', "$scratch/json_test.so",
	"$ConvexTest::TOP/test/unit/json_test.c", "$ConvexTest::TOP/src/wire/json.c") == 0
  or BAIL_OUT('json_test.c does not compile');

my $cluster = ConvexTest::Cluster->new;
$cluster->value(<<~END);
	SET check_function_bodies = off;
	CREATE FUNCTION rewrite(bytea) RETURNS text LANGUAGE c STRICT AS '$scratch/json_test', 'json_test_rewrite';
	CREATE FUNCTION skip(bytea) RETURNS boolean LANGUAGE c STRICT AS '$scratch/json_test', 'json_test_skip';
	CREATE FUNCTION number(text) RETURNS float8 LANGUAGE c STRICT AS '$scratch/json_test', 'json_test_number';
	CREATE FUNCTION whole(bytea) RETURNS bigint LANGUAGE c STRICT AS '$scratch/json_test', 'json_test_integer';
	CREATE TABLE text_table (n int GENERATED ALWAYS AS IDENTITY, bytes bytea);

	-- What one text is to a reader: a value, or an SQLSTATE.
	CREATE FUNCTION try_rewrite(bytes bytea, OUT value text, OUT state text) LANGUAGE plpgsql AS
	\$\$ BEGIN value := rewrite(bytes); EXCEPTION WHEN OTHERS THEN state := SQLSTATE; END \$\$;
	CREATE FUNCTION try_skip(bytes bytea) RETURNS boolean LANGUAGE plpgsql AS
	\$\$ BEGIN RETURN skip(bytes); EXCEPTION WHEN OTHERS THEN RETURN false; END \$\$;
	CREATE FUNCTION try_jsonb(input text, OUT value jsonb, OUT state text) LANGUAGE plpgsql AS
	\$\$ BEGIN value := input::jsonb; EXCEPTION WHEN OTHERS THEN state := SQLSTATE; END \$\$;
	CREATE FUNCTION try_text(bytes bytea) RETURNS text LANGUAGE plpgsql AS
	\$\$ BEGIN RETURN convert_from(bytes, 'UTF8'); EXCEPTION WHEN OTHERS THEN RETURN NULL; END \$\$;
	CREATE FUNCTION try_float(input text) RETURNS float8 LANGUAGE plpgsql AS
	\$\$ BEGIN RETURN input::float8; EXCEPTION WHEN OTHERS THEN RETURN NULL; END \$\$;
	CREATE FUNCTION try_whole(bytes bytea) RETURNS bigint LANGUAGE plpgsql AS
	\$\$ BEGIN RETURN whole(bytes); EXCEPTION WHEN OTHERS THEN RETURN NULL; END \$\$;
	CREATE FUNCTION try_bigint(input text) RETURNS bigint LANGUAGE plpgsql AS
	\$\$ BEGIN RETURN input::bigint; EXCEPTION WHEN OTHERS THEN RETURN NULL; END \$\$;
	END

# -- texts ---------------------------------------------------------------------

my $seed = $ENV{CONVEX_TEST_SEED} // 20261121;
srand $seed;
note "seed $seed (CONVEX_TEST_SEED chooses another)";

sub one_of { return $_[ rand @_ ] }

my @characters = ('a' .. 'e', ' ', '/', "\x7f", "\x{e9}", "\x{20ac}", "\x{1f600}", "\x{ffff}", "\x{10ffff}", "\x{80}", "\x{2028}");
my @escapes = ('\\"', '\\\\', '\\/', '\\b', '\\f', '\\n', '\\r', '\\t', '\\u0041', '\\u00e9', '\\u20AC', '\\ud83d\\ude00', '\\uD83D\\uDE00',
	'\\u001f', '\\u007f', '\\ufffd', '\\uffff', '\\u0000');
my @bad_pieces = ('\\', '\\u', '\\u12', '\\ud83d', '\\ude00', '\\ud83d\\u0041', '\\x41', '\\U0041', '\\\'', '"', "\t", "\n", "\x01", "\x1f");

sub space { return rand() < 0.2 ? one_of(' ', "\n", "\t", "\r", '  ') : '' }

sub string
{
	my $text = '';
	$text .= rand() < 0.7 ? one_of(@characters) : one_of(@escapes) for 1 .. rand 12;
	return "\"$text\"";
}

my $are_floats = 0;    # numbers that are a float64 as they are written

sub number
{
	return sprintf '%.15g', one_of(int(rand 100), rand(1e6) - 5e5, rand() / 1e9, 2**int(rand 50), -1e20) if $are_floats;
	my $text = one_of('', '', '-') . one_of('0', int(rand 10) + 1, int(rand 1e6) + 1, int(rand 1e9) + 1 . int(rand 1e9), '9007199254740993', '9223372036854775807',
		'9223372036854775808', '18446744073709551616', '1' . '0' x int(rand 30));
	$text .= '.' . one_of('0', '5', int(rand 1e6), int(rand 1e9) . int(rand 1e9), '0' x int(rand 25) . '1', '30000000000000004') if rand() < 0.4;
	$text .= one_of('e', 'E') . one_of('', '+', '-') . int(rand(rand() < 0.1 ? 400 : 30)) if rand() < 0.3;
	return $text;
}

sub value
{
	my ($depth) = @_;
	my $kind = rand;
	return string() if $kind < 0.25;
	return number() if $kind < 0.45;
	return one_of('true', 'false', 'null') if $kind < 0.55 || $depth > 6;
	my $n = int rand 5;
	return '[' . space() . join(',', map { space() . value($depth + 1) . space() } 1 .. $n) . ']' if $kind < 0.75;
	return '{' . space() . join(',', map { space() . string() . space() . ':' . space() . value($depth + 1) . space() } 1 .. $n) . '}';
}

sub mutate
{
	my ($text) = @_;
	my $at = int rand(1 + length $text);
	my $kind = int rand 8;
	return substr($text, 0, $at) if $kind == 0;
	return substr($text, $at) if $kind == 1;
	substr($text, $at, 1 + int rand 3) = '' if $kind == 2 && $at < length $text;
	substr($text, $at, 0) = chr int rand 256 if $kind == 3;
	substr($text, $at, 1) = chr int rand 128 if $kind == 4 && $at < length $text;
	substr($text, $at, 0) = one_of(@bad_pieces) if $kind == 5;
	substr($text, $at, 0) = one_of('{', '}', '[', ']', ',', ':', '"', '0', '-', '.', 'e', 'true', 'null', '""', ' ', '\\u0000', '1', '//', '/**/', "\x{feff}", 'NaN')
	  if $kind == 6;
	substr($text, int rand(1 + length $text), 0) = substr($text, $at, int rand 20) if $kind == 7;
	return $text;
}

# By hand: the corners of the grammar.
my @corners = (
	'', ' ', "\n", '{}', '[]', ' [] ', '[ ]', '{ }', '""', '" "', '0', '-0', '-', '+1', '00', '01', '-01', '0.', '.0', '0.0', '-0.0', '0e', '0e+', '0e0', '0E-0',
	'1e1.5', '1.e1', '1.5e', '0x1', '1_0', "1\x{660}", '1 2', 'Infinity', '-Infinity', 'NaN', '-NaN', 'nan', 'inf', 'true', 'True', 'TRUE', 'tru', 'truee', 'true1',
	'truefalse', 'null', 'nul', 'nulll', 'false', 'falsey', '[true', '[true]', '[true ]', '[truefalse]', '[nullnull]', '["a""b"]', '[1 2]', '[1,]', '[,1]', '[,]',
	'[1,,2]', '[1', '[', ']', '[]]', '[[]', '[}', '{]', '{', '}', '{}}', '{"a"}', '{"a":}', '{"a":1', '{"a":1,}', '{,"a":1}', '{"a":1,,"b":2}', '{"a"1}', '{"a"::1}',
	'{"a":1:2}', '{a:1}', '{1:1}', '{null:1}', '{"a":1 "b":2}', '{"a":1}{"b":2}', '{"a":1}[]', '[1]1', '"a"b', '"a', '"', '\'a\'', '"a\'', '"\\"', '"\\\\"', '"\\',
	'"\\u0000"', '"\\u000"', '"\\u00g0"', '"\\u 000"', '"\\u+000"', '"\\u-000"', '"\\ud800"', '"\\udbff"', '"\\udc00"', '"\\udfff"', '"\\ud800\\udc00"', '"\\udbff\\udfff"',
	'"\\ud800\\ud800"', '"\\udc00\\ud800"', '"\\ud800x"', '"\\ud800\\n"', '"\\ud800\\u"', '"\\ud800\\udc0"', '"\\uD83D\\uDE00"', '"\\uFFFF"', '"\\uFFFE"', '"\\u0020"', '"\\a"',
	'"\\0"', '"\\x41"', "\"\\\n\"", "\"\t\"", "\"\n\"", "\"\r\"", "\"\0\"", "\"\x1f\"", "\"\x7f\"", "\0", "[\0]", "1\0", "\x{feff}[]", "[]\x{feff}", "\x{a0}[]", "[\x{a0}]",
	"\x0b[]", "[\x0c]", "//\n[]", '/**/[]', '[]//', '#', '[1]#', '"\\ud83d\\ude00\\ud83d\\ude00"', '{"a":1,"a":2}', '{"\\u0061":1,"a":2}', '{"":1}', '{"\\u0000":1}',
	'[1e308]', '[1e309]', '[-1e309]', '[1e-400]', '[5e-324]', '[2.2250738585072011e-308]', '[0.1]', '[123456789012345678901234567890]', '[1e131071]', '[1e200000]',
	'[' . '9' x 1000 . ']', '[0.' . '0' x 1000 . '1]', '"' . 'x' x 100_000 . '"', '[' x 100 . ']' x 100, '{"a":' x 100 . '1' . '}' x 100, '[' x 101 . ']' x 100,
	'[' . '1,' x 10_000 . '1]', '[' . '""' . ',""' x 10_000 . ']', (map { 'a' x $_ . '"' } 0 .. 17), (map { '"' . 'a' x $_ . '"' } 0 .. 17),
	(map { '"' . 'a' x $_ . '\\"' . 'a' x (17 - $_) . '"' } 0 .. 17), (map { '"' . 'a' x $_ . "\x{e9}" . 'a' x (17 - $_) . '"' } 0 .. 17),
	(map { '"' . 'a' x $_ . "\x1f" . 'a' x (17 - $_) . '"' } 0 .. 17), (map { '"' . 'a' x $_ . "\x80" . 'a' x (17 - $_) . '"' } 0 .. 17));

my @texts = map { my $text = $_; utf8::encode($text); $text } @corners;
for (1 .. 6000)
{
	my $text = space() . value(0) . space();
	if ($_ % 3)
	{
		$text = mutate($text) for 0 .. rand 3;
	}
	utf8::encode($text);
	push @texts, $text;
}
# Bytes, not characters: what is no UTF-8.
for (1 .. 1000)
{
	my $text = value(3);
	utf8::encode($text);
	$text = mutate($text);
	utf8::encode($text) if $text =~ /[^\0-\xff]/;
	push @texts, $text;
}

my $copy = "COPY text_table (bytes) FROM stdin;\n";
$copy .= '\\\\x' . unpack('H*', $_) . "\n" for @texts;
$cluster->value("$copy\\.\n");

# -- the comparison --------------------------------------------------------------

# What is right: jsonb's verdict. It refuses U+0000 and numbers that numeric does
# not hold, though they are JSON; so these are asked about without.
$cluster->value(<<~'END');
	CREATE TABLE verdict AS
	SELECT n, bytes, input, ours.value AS ours, ours.state AS our_state, try_skip(bytes) AS is_skipped, theirs.value AS theirs, theirs.state AS their_state,
		CASE WHEN theirs.state IN ('22P05', '22003') THEN (try_jsonb(plain)).state IS NULL ELSE theirs.value IS NOT NULL END AS is_right
	FROM text_table, try_text(bytes) AS input, try_rewrite(bytes) AS ours, try_jsonb(input) AS theirs,
		LATERAL (SELECT CASE WHEN theirs.state = '22P05' THEN regexp_replace(input, '(?<!\\)((\\\\)*)\\u0000', '\1\\u0001', 'g')
			WHEN theirs.state = '22003' THEN regexp_replace(input, '[eE]\+?\d+', '', 'g') ELSE input END) AS oracle (plain);
	END

sub verdicts
{
	my ($condition) = @_;
	return $cluster->value("SELECT left(encode(bytes, 'escape'), 200) || ' -> ' || coalesce(left(ours, 200), our_state) || ' / ' || coalesce(left(theirs::text, 200), their_state, '')
		FROM verdict WHERE $condition ORDER BY n LIMIT 5");
}

is(verdicts('is_right AND our_state IS NOT NULL'), '', 'what jsonb accepts is accepted');
is(verdicts('is_right IS NOT TRUE AND our_state IS NULL'), '', 'what jsonb refuses is refused');
is(verdicts('(our_state IS NULL) <> is_skipped'), '', 'passing over a text accepts what reading it accepts');
is(verdicts("our_state <> 'HV00M'"), '', 'a refusal is an answer that cannot be read');
is(verdicts('theirs IS NOT NULL AND theirs <> (try_jsonb(ours)).value'), '', 'what is read is what jsonb reads');
is(verdicts("theirs IS NULL AND our_state IS NULL AND (try_rewrite(convert_to(ours, 'UTF8'))).value IS DISTINCT FROM ours"), '',
	'and so it is once more when it is written');
my ($n, $accepted) = split /\|/, $cluster->value('SELECT count(*), count(ours) FROM verdict');
cmp_ok($accepted, '>', $n / 5, 'enough of the texts are good');
cmp_ok($n - $accepted, '>', $n / 5, 'and enough are bad');

# Where they differ, and why.
is($cluster->value(q{SELECT string_agg(DISTINCT their_state, ',' ORDER BY their_state) FROM verdict WHERE our_state IS NULL AND theirs IS NULL}), '22003,22P05',
	'only U+0000 and the size of numbers make a difference');
is($cluster->value(q{SELECT rewrite(convert_to(repeat('[', 128) || repeat(']', 128), 'UTF8')) IS NOT NULL}), 't', '128 levels are read');
is($cluster->sqlstate(q{SELECT rewrite(convert_to(repeat('[', 129) || repeat(']', 129), 'UTF8'))}), 'HV00M', '129 levels are not');
is($cluster->sqlstate(q{SELECT skip(convert_to(repeat('{"a":', 129) || '1' || repeat('}', 129), 'UTF8'))}), 'HV00M', 'nor passed over');
is($cluster->sqlstate(q{SELECT skip(convert_to(repeat('[', 10000000), 'UTF8'))}), 'HV00M', 'ten million levels are refused without using up the stack');

# Strings: every character, escaped and not.
is($cluster->value(<<~'END'), '', 'every character is read as jsonb reads it');
	SELECT string_agg(to_hex(c), ',')
	FROM generate_series(1, 1114111) AS c
	WHERE NOT c BETWEEN 55296 AND 57343 AND (c < 70000 OR c % 97 = 0) AND c NOT IN (34, 92) AND c >= 32
		AND rewrite(convert_to('"' || chr(c) || '"', 'UTF8'))::jsonb <> to_jsonb(chr(c))
	END
is($cluster->value(<<~'END'), '', 'and every escape');
	SELECT string_agg(to_hex(c), ',')
	FROM generate_series(1, 65535) AS c, LATERAL (SELECT '"\u' || lpad(to_hex(c), 4, '0') || '"') AS escape (input)
	WHERE NOT c BETWEEN 55296 AND 57343 AND rewrite(convert_to(input, 'UTF8'))::jsonb <> input::jsonb
	END
is($cluster->value(<<~'END'), '', 'and every pair of surrogates');
	SELECT string_agg(to_hex(c), ',')
	FROM generate_series(65536, 1114111, 61) AS c, LATERAL (SELECT '"\u' || to_hex(55232 + (c >> 10)) || '\u' || to_hex(56320 + (c & 1023)) || '"') AS escape (input)
	WHERE rewrite(convert_to(input, 'UTF8'))::jsonb <> to_jsonb(chr(c))
	END

# Numbers: the nearest float8, bit by bit, and the very integer.
my @numbers = ((map { number() } 1 .. 20_000), (map { sprintf '%.17g', (rand() - 0.5) * 10**int(rand 40) } 1 .. 5000),
	(map { 2**53 - 5 + $_ } 0 .. 10), (map { ('9' x $_, '1' . '0' x $_, "0." . '0' x $_ . '1', '1' . '0' x $_ . '.5', '4503599627370497.5' . '0' x $_) } 1 .. 40),
	qw(-0 0.0 -0.0 9007199254740991 9007199254740992 9007199254740993 9007199254740994 0.30000000000000004 1.7976931348623157e308 1.7976931348623158e308
	  4.9e-324 2.2250738585072014e-308 2.2250738585072011e-308 1e22 1e23 8.41e21 9e21 5e-324 1e-323 123456789.123456789 0.1e1 1E5 1e+5 1e-5 9223372036854775807
	  9223372036854775808 -9223372036854775808 -9223372036854775809 18446744073709551615 18446744073709551616 99999999999999999999 999999999999999999 1000000000000000000));
@numbers = grep { /^-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][-+]?\d+)?$/ } @numbers;
$cluster->value("CREATE TABLE number_table (input text);\nCOPY number_table FROM stdin;\n" . join("\n", @numbers) . "\n\\.\n");
is($cluster->value(<<~'END'), '', 'a number is the float8 that PostgreSQL reads');
	SELECT string_agg(input, ',') FROM (SELECT input FROM number_table, try_float(input) AS wanted
		WHERE wanted IS NOT NULL AND float8send(number(input)) IS DISTINCT FROM float8send(wanted) LIMIT 5) AS wrong
	END
is($cluster->value(<<~'END'), '', 'a number that is too large is none');
	SELECT string_agg(input, ',') FROM number_table WHERE abs(input::numeric) > 1.8e308 AND number(input) IS NOT NULL
	END
is($cluster->value(<<~'END'), '', 'a number that is too small is zero or the smallest');
	SELECT string_agg(input, ',') FROM number_table WHERE input::numeric <> 0 AND abs(input::numeric) < 1e-324 AND number(input) IS DISTINCT FROM 0
	END
is($cluster->value(<<~'END'), '', 'an integer is read digit by digit, or refused');
	SELECT string_agg(input, ',') FROM (SELECT input FROM number_table
		WHERE try_whole(convert_to(input, 'UTF8')) IS DISTINCT FROM CASE WHEN input ~ '^-?\d+$' THEN try_bigint(input) END LIMIT 5) AS wrong
	END

# -- through a foreign table -------------------------------------------------------

my $emulator = ConvexTest::Emulator->new;
$cluster->convex($emulator, options => "max_retries '0'");
$cluster->value(<<~'END');
	CREATE FOREIGN TABLE clean (_id text, x jsonb) SERVER convex OPTIONS (table_name 'texts');
	CREATE FOREIGN TABLE encoded (_id text, x jsonb) SERVER convex OPTIONS (table_name 'texts', json_values 'encoded');
	CREATE FOREIGN TABLE plain (_id text, x json) SERVER convex OPTIONS (table_name 'texts');
	CREATE FOREIGN TABLE words (_id text, x text) SERVER convex OPTIONS (table_name 'texts', on_conversion_error 'null');
	CREATE FOREIGN TABLE whole_document (_id text, document jsonb OPTIONS (column_name '*')) SERVER convex OPTIONS (table_name 'texts');
	CREATE TABLE given (_id text, x jsonb);
	END

# One page of a table `texts` whose documents have these fields x.
sub serve
{
	my (@values) = @_;
	my $i = 0;
	my $page = '{"values":[' . join(',', map { sprintf '{"_component":"","_table":"texts","_ts":1700000000000000000,"_creationTime":1.5,"_id":"j%06d","x":%s}', ++$i, $_ } @values)
	  . '],"snapshot":1700000000000000001,"cursor":null,"hasMore":false}';
	utf8::encode($page);
	$emulator->clear_faults;
	$emulator->fault({ path => '/api/list_snapshot', action => 'body', body_base64 => MIME::Base64::encode_base64($page, ''), count => -1 });
	$i = 0;
	my $lines = join '', map { sprintf "j%06d\t\\\\x%s\n", ++$i, do { my $text = $_; utf8::encode($text); unpack('H*', $text) } } @values;
	$cluster->value("TRUNCATE given; CREATE TEMP TABLE raw (_id text, x bytea);\nCOPY raw FROM stdin;\n$lines\\.\nINSERT INTO given SELECT _id, convert_from(x, 'UTF8')::jsonb FROM raw");
	return;
}

sub differences
{
	my ($table, $expression, $wanted, $condition) = @_;
	return $cluster->value("SELECT given._id || ' ' || left(given.x::text, 200) || ' -> ' || coalesce(left((t.$expression)::text, 200), 'NULL')
		FROM given LEFT JOIN $table AS t ON t._id = given._id WHERE t.$expression IS DISTINCT FROM $wanted AND ($condition) ORDER BY 1 LIMIT 3");
}
$are_floats = 1;
my @values = grep { !/\\u0000/ } map { value(0) } 1 .. 3000;
serve(@values);
my $not_null = "given.x <> 'null'";
is(differences('clean', 'x::text', 'given.x::text', $not_null), '', 'a jsonb column holds what jsonb would');
is(differences('encoded', 'x::text', 'given.x::text', $not_null), '', 'also when markers are kept');
is(differences('plain', 'x::jsonb::text', 'given.x::text', $not_null), '', 'and so does a json column');
is(differences('words', 'x', q{given.x #>> '{}'}, "jsonb_typeof(given.x) = 'string'"), '', 'a text column holds the string');
is(differences('whole_document', q{document -> 'x'}, 'given.x', 'true'), '', 'the whole document holds it as well');
is($cluster->value('SELECT count(*) FROM clean WHERE x IS NULL') - grep({ /^\s*null\s*$/ } @values), 0, 'and only null is NULL');

# Floats by every type that takes them.
my @floats = grep { $_ !~ /[eE][-+]?\d{3}/ } @numbers[0 .. 4999];
serve(@floats);
$cluster->value('CREATE FOREIGN TABLE floats (_id text, x float8) SERVER convex OPTIONS (table_name $$texts$$)');
is($cluster->value(<<~'END'), '', 'a double precision column holds the nearest float8');
	SELECT string_agg(given.x::text, ',') FROM (SELECT given.x FROM given LEFT JOIN floats USING (_id)
		WHERE float8send(floats.x) IS DISTINCT FROM float8send((given.x #>> '{}')::float8) AND given.x <> '0' LIMIT 5) AS given
	END

done_testing();
