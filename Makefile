# Builds and installs convex_fdw with PGXS. What develops it (packages, check,
# demo, lint, bench, dist) lives in dev.mk, because PGXS has a `check` of its
# own and because those targets must work before PostgreSQL is installed.

EXTENSION = convex_fdw
MODULE_big = convex_fdw

# Looked for where this file lies, because a VPATH build runs elsewhere.
TOP := $(dir $(firstword $(MAKEFILE_LIST)))
here = $(patsubst $(TOP)%,%,$(sort $(wildcard $(TOP)$(1))))
OBJS = $(patsubst %.c,%.o,$(call here,src/*/*.c))
DATA = $(call here,sql/convex_fdw--*.sql)
ifeq ($(OBJS),)
$(error no sources in $(TOP)src)
endif

DEV_GOALS = packages check check-assert demo demo-stop lint bench dist

# The first pg_config that comes with PGXS and the server's headers. A client
# library alone brings one that names files which are not there.
pg_config_ok = $(and $(wildcard $(shell $(1) --pgxs 2>/dev/null)),$(wildcard $(shell $(1) --includedir-server 2>/dev/null)/postgres.h),$(1))
ifeq ($(origin PG_CONFIG),undefined)
PG_CONFIG := $(firstword $(foreach p,pg_config /usr/lib/postgresql/15/bin/pg_config,$(call pg_config_ok,$(p))) pg_config)
endif
export PG_CONFIG

ifneq ($(filter $(DEV_GOALS),$(MAKECMDGOALS)),)

# Goals of both kinds in one command: run them one after the other.
.NOTPARALLEL:
.PHONY: $(MAKECMDGOALS)
$(filter $(DEV_GOALS),$(MAKECMDGOALS)):
	+@$(MAKE) --no-print-directory -f dev.mk $@
$(filter-out $(DEV_GOALS),$(MAKECMDGOALS)):
	+@$(MAKE) --no-print-directory $@

else ifeq ($(call pg_config_ok,$(PG_CONFIG)),)

# No PostgreSQL to build against yet: install it, then start over.
.PHONY: all install installcheck clean
all install installcheck:
	@test/run/packages build
	+@$(MAKE) --no-print-directory $@
clean:
	rm -rf src/*/*.o convex_fdw.so .build-flags .deps

else

PGXS := $(shell $(PG_CONFIG) --pgxs)

PG_CPPFLAGS = -I$(srcdir)/src
PG_CFLAGS = -Wall -Wextra -Wno-unused-parameter -Wno-sign-compare \
	-Wno-missing-field-initializers -Wdeclaration-after-statement \
	-fno-semantic-interposition
SHLIB_LINK = -lcurl -Wl,-Bsymbolic
EXTRA_CLEAN = .build-flags .deps

NO_INSTALLCHECK = yes

# Bitcode for the JIT would need clang and gains nothing here; dependency
# files make an edited header rebuild what includes it.
override with_llvm = no
override autodepend = yes

include $(PGXS)

# Changed flags (another PG_CONFIG, COPT=-Werror) rebuild everything. A VPATH
# build has no folders for its objects yet.
BUILD_FLAGS := $(COMPILE.c) $(shell $(PG_CONFIG) --version)
ifneq ($(shell cat .build-flags 2>/dev/null),$(BUILD_FLAGS))
.PHONY: .build-flags
endif
.build-flags:
	@mkdir -p $(sort $(dir $(OBJS)))
	@printf '%s\n' '$(BUILD_FLAGS)' > $@
$(OBJS): .build-flags

# How one file is compiled, for `make lint`.
.PHONY: compile-command
compile-command:
	@printf '%s\n' '$(COMPILE.c)'

.PHONY: installcheck
installcheck:
	+@$(MAKE) --no-print-directory -f dev.mk installcheck

endif
