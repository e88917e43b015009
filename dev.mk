# The second makefile: everything around the build. Makefile calls it, so
# `make check` and the rest are typed there.

TOP := $(CURDIR)
PG_CONFIG ?= pg_config
export PG_CONFIG

# Every test file by name. `make lint` fails on a file that is not listed and
# on a name without its file. One kind or file can be chosen, for example
# `make check REGRESS= ISOLATION= CASES= TAPS= CHAPTERS=scan`.
REGRESS = readme options explain
ISOLATION = write_conflict follow_concurrent
CHAPTERS = snapshot snapshot_kept errors errors_line scan scan_plans lookup newest append functions types types_shapes roundtrip import import_declared encoding keys security roles random write_append write_keyed write_types write_refused write_own write_outcome truncate write_random write_faults write_edges write_kept write_race write_streamed clear import_write follow follow_schema follow_swap follow_check follow_replaced follow_idle follow_old follow_wide follow_random follow_targets follow_modes follow_direct follow_wait follow_errors standing
TAPS = hostile_follow locks publication failures launcher workers pauses turns owners kills chaos readers joins waits calls spread cron dump unlogged cancel leaks json fuzz tls wire hostile import
CASES = $(sort $(basename $(notdir $(wildcard test/cases/*.sql))))
export REGRESS ISOLATION CHAPTERS CASES TAPS

# Compilers may run side by side unless the caller said how many jobs.
JOBS = $(if $(filter -j%,$(MAKEFLAGS)),,-j$(shell nproc))
REMAKE = $(MAKE) --no-print-directory $(JOBS) -f Makefile

.PHONY: packages writable check check-assert installcheck demo demo-stop lint bench dist \
	list-tests

packages:
	@test/run/packages build test

writable: packages
	@test/run/packages --installable

# The build is a make of its own, because pg_config may only have appeared
# just now.
check: writable
	+@$(REMAKE) COPT=-Werror install
	@test/run/check

# The same on a PostgreSQL that checks its own assertions, without and with
# preload. It is built once, outside of the tree.
check-assert: packages
	@test/run/packages assert
	+@server=$$(test/run/assert-server) && export PG_CONFIG="$$server/bin/pg_config" && \
	$(REMAKE) PG_CONFIG="$$PG_CONFIG" COPT=-Werror install && \
	{ test/run/check; status=$$?; CONVEX_TEST_PRELOAD=1 test/run/check && exit $$status; }

installcheck:
	@test/run/packages test
	@test/run/regress $(REGRESS)

demo: writable
	+@$(REMAKE) install
	@test/run/demo start

demo-stop:
	@test/run/demo stop

lint:
	@test/run/packages --missing-only build
	@test/lint/lint.py

bench: writable
	+@$(REMAKE) install
	@if test -x test/bench/run; then exec test/bench/run; \
	else echo "make bench: test/bench/run is not there" >&2; exit 1; fi

# A release as PGXN wants it.
dist: VERSION = $(shell sed -n 's/^  "version": "\(.*\)",/\1/p' META.json)
dist:
	git archive --format=zip --prefix=convex_fdw-$(VERSION)/ -o convex_fdw-$(VERSION).zip HEAD
	@echo "convex_fdw-$(VERSION).zip"

list-tests:
	@printf 'REGRESS %s\nISOLATION %s\nCHAPTERS %s\nTAPS %s\n' '$(REGRESS)' '$(ISOLATION)' '$(CHAPTERS)' '$(TAPS)'
