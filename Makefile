# ICAE in C - build, test, install
#
# NAME
#     make - builds libicae and the programs icae, icae-pretrain, icae-finetune
#
# TARGETS
#     all            library and programs, into build/release (the default)
#     demo           all set-up, then: train, compress, restore on real text (10 to 20 minutes)
#     test           all set-up, the golden cases in double, then every test; the last line is Check's
#     grad           the same tests in double precision: gradients against central differences
#     asan           the tests under AddressSanitizer and UndefinedBehaviorSanitizer
#     torture        a training run killed KILLS=1000 times; must end as if it had been left in peace
#     faults         every allocation and file call fails once; power cuts after every event (ASan); MOST_FAULTS=400
#     controls       programs broken on purpose: the suites must notice each
#     tsan           the suites that have to do with threads and signals under ThreadSanitizer
#     soak           MINUTES=60 of training; its memory must stay flat; draws docs/soak.svg
#     coverage       lines, functions and branches that the tests reach (gcov)
#     fuzz           libFuzzer over every parser (needs clang); FUZZ_RUNS=20000 FUZZ_TARGETS="all of them"
#     interop-tokenizers  token ids against Hugging Face's tokenizers (Python, network)
#     interop-released    golden files of the released layout against PyTorch (Python)
#     interop-dequant, interop-peft, interop-llama-cpp   see tests/interop/README.md
#     interop-metrics  BLEU, ROUGE-L, F1 against sacrebleu, rouge-score (Python, network)
#     instructions   counts a fixed step's instructions (valgrind), against the committed figures; UPDATE=1 writes them anew
#     check-pages    data/*.py on made-up results and texts; options, keys, files and links in the documents (Python)
#     interop-chat   tests/golden/chat.json against Jinja2 and Hugging Face's tokenizers (Python, network)
#     bench          our figures, ceilings, shares, growth, into BENCH_OUT=build/bench (5 minutes)
#     bench-docs     the same, and its pictures and tables into docs/
#     bench-peers    beside PyTorch and llama.cpp in one run: PYTHON= LLAMA_BIN= PEER_ROUNDS=3 PEER_ROWS=
#     bench-memory   peak memory of some runs, predicted and seen
#     experiments    the paper's experiments with the shipped adapters, or ADAPTER= TUNED= PLAIN= (N=100 SKIP= MORE=),
#                    into docs/experiments.md (hours)
#     ablations      every switch of configs/ablations/variants.json on the same budget (STEPS=200 THREADS=1), into
#                    docs/ablations.md (10 minutes each on one core; what is done is kept)
#     compare-compute  loss curves of training in f32 and bf16 (half an hour)
#     install        PREFIX=/usr/local; DESTDIR is honoured
#     uninstall      removes what install put there
#     format         clang-format over all sources; format-check only looks
#     layers         checks that includes only go down, and that libicae.so names nothing but icae_...
#     setup          looks for what is needed and installs what is missing from Debian packages (root, or sudo at hand)
#     base texts     fetches the base model; fetches and prepares the texts
#     clean          removes build/
#     help           this page
#
# VARIABLES
#     CC=gcc|clang   MODE=release|debug|asan|tsan|coverage|f64   V=1 (show commands)   PREFIX= DESTDIR=
#     CPPFLAGS= CFLAGS= LDFLAGS=   follow the build's own flags (CFLAGS="-O2 -Wno-error"); a new value wants make clean first
#     PYTHON=python3 for the interop targets
#     TESTS=name     runs the test suites whose name contains this word

MODE ?= release
PREFIX ?= /usr/local
ifeq ($(origin CC),default)
CC := gcc
endif
PYTHON ?= python3
BUILD := build/$(MODE)
VERSION := 0.1.0
Q := $(if $(V),,@)
comma := ,
# One word for the shell, whatever is in it.
quote = '$(subst ','\'',$(1))'

WARNINGS := -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wstrict-prototypes \
	-Wmissing-prototypes -Wvla -Wdouble-promotion -Wformat=2 -Wno-format-truncation -Werror
ifneq (,$(findstring clang,$(CC)))
WARNINGS := $(filter-out -Wno-format-truncation,$(WARNINGS))
endif

# -ffast-math is banned: it deletes the guards against NaN (FASTMATH below refuses the user's).
MODEFLAGS_release := -O3 -ffp-contract=fast -fno-math-errno
MODEFLAGS_debug := -O0 -g3
MODEFLAGS_asan := -O1 -g -fsanitize=address,undefined -fno-sanitize-recover=all \
	-fno-omit-frame-pointer
MODEFLAGS_tsan := -O1 -g -fsanitize=thread -fno-omit-frame-pointer
# Only what is measured is counted; kernels without optimization would take hours.
MODEFLAGS_coverage = $(if $(filter src/base/% src/formats/% src/icae/% src/learn/%,$<),-O0 -g \
	--coverage -fprofile-update=atomic,-O2)
MODEFLAGS_fuzz := -O1 -g -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=all
MODEFLAGS_f64 := -O2 -g -DICAE_F64 -ffp-contract=fast -fno-math-errno
ifeq ($(MODEFLAGS_$(MODE)),)
$(error MODE=$(MODE) is unknown: expected release, debug, asan, tsan, coverage, fuzz or f64)
endif

PACKAGES := libopenblas-openmp-dev libcjson-dev zlib1g-dev check pkg-config
# Without these nothing builds or works as tested; CPPFLAGS, CFLAGS and LDFLAGS are left to the user and follow them.
ICAE_CPPFLAGS := -Iinclude -Isrc -Ibuild/$(MODE)/generated -DICAE_VERSION='"$(VERSION)"' -D_GNU_SOURCE
ICAE_CFLAGS = -std=c11 $(MODEFLAGS_$(MODE)) -g1 -fPIC -fopenmp $(WARNINGS)
ICAE_LDFLAGS = $(MODEFLAGS_$(MODE)) -fopenmp $(if $(filter coverage,$(MODE)),--coverage)
FASTMATH := $(filter -Ofast -ffast-math -ffinite-math-only -funsafe-math-optimizations,$(CPPFLAGS) $(CFLAGS))
ifneq (,$(FASTMATH))
$(error $(FASTMATH) in CFLAGS is refused: it deletes the guards against NaN)
endif
# Of the user's CFLAGS some must be told to the linker, too (-flto, -m32).
LINK = $(CC) $(strip $(ICAE_LDFLAGS) $(CFLAGS) $(LDFLAGS))
LDLIBS := -lopenblas -lcjson -lz -lm -lpthread
CHECKLIBS = $(shell pkg-config --libs check 2>/dev/null)

# Levels of instruction sets: the hot file is compiled once for each, chosen at run time.
LEVELS := portable avx2 avx512
LEVELFLAGS_portable :=
LEVELFLAGS_avx2 := -mavx2 -mfma -mf16c
LEVELFLAGS_avx512vnni = $(LEVELFLAGS_avx512) -mavx512vnni
LEVELFLAGS_avx512bf16 = $(LEVELFLAGS_avx512) -mavx512bf16
# Not a level: AVX2's vectors with what the level avx512vnni knows of integers.
LEVELFLAGS_avx2vnni = $(LEVELFLAGS_avx2) -mavx512vl -mavx512vnni -mprefer-vector-width=256
LEVELFLAGS_avx512 := -mavx512f -mavx512bw -mavx512vl -mavx512dq -mfma -mavx2 -mf16c \
	-mprefer-vector-width=512
# Files that one level alone has; the rest of it is the level below. In double there are no such levels.
ONLY_avx512vnni := cpu_linear_int
ONLY_avx2vnni := cpu_linear_int cpu_few_int
ONLY_avx512bf16 := cpu_bf16 cpu_few
ONLYLEVELS := avx512vnni avx2vnni avx512bf16
ifeq (f64,$(MODE))
ONLYLEVELS :=
endif
ifneq (x86_64,$(shell uname -m))
LEVELS := portable
ONLYLEVELS :=
endif

LAYERS := base formats backend autograd model icae learn
LIBSOURCES := $(sort $(foreach layer,$(LAYERS),$(wildcard src/$(layer)/*.c)))
SIMDSOURCES := $(addprefix src/backend/,cpu_simd.c cpu_linear.c cpu_few.c cpu_few_int.c cpu_linear_int.c cpu_attention.c)
LIBOBJECTS := $(patsubst %.c,$(BUILD)/%.o,$(filter-out $(SIMDSOURCES) src/backend/cpu_bf16.c,$(LIBSOURCES))) \
	$(foreach level,$(ONLYLEVELS),$(patsubst %,$(BUILD)/src/backend/%_$(level).o,$(ONLY_$(level)))) \
	$(foreach level,$(LEVELS),$(patsubst %.c,$(BUILD)/%_$(level).o,$(wildcard $(SIMDSOURCES))))

PROGRAMS := $(BUILD)/icae $(BUILD)/icae-pretrain $(BUILD)/icae-finetune
TESTSOURCES := $(sort $(wildcard tests/unit/test_*.c))
TESTSUPPORT := $(sort $(filter-out $(TESTSOURCES),$(wildcard tests/unit/*.c)))
TESTNAMES := $(patsubst tests/unit/test_%.c,%,$(TESTSOURCES))

.PHONY: all lib programs
all: lib programs
lib: $(BUILD)/libicae.a $(BUILD)/libicae.so
programs: $(PROGRAMS)

# ---- a missing package is named with the command that installs it ----
$(BUILD)/.packages:
	$(Q)mkdir -p $(@D)
	$(Q)missing=; for header in cblas.h cjson/cJSON.h zlib.h; do \
	  echo "#include <$$header>" | $(CC) $(CPPFLAGS) $(CFLAGS) -E -x c - >/dev/null 2>&1 || missing="$$missing $$header"; \
	done; \
	if [ -n "$$missing" ]; then \
	  echo "Missing headers:$$missing. Install them with:  sudo apt-get install $(PACKAGES)   (or: make setup)" >&2; \
	  exit 1; fi
	$(Q)touch $@

$(LIBOBJECTS): | $(BUILD)/.packages

define compile
$(Q)mkdir -p $(@D)
$(if $(V),,@echo "  CC $@")
$(Q)$(CC) $(ICAE_CPPFLAGS) $(CPPFLAGS) $(ICAE_CFLAGS) $(CFLAGS) $(1) -MMD -MP -c $< -o $@
endef

$(BUILD)/%.o: %.c
	$(call compile,)

define level_rule
$(BUILD)/%_$(1).o: %.c
	$$(call compile,$$(LEVELFLAGS_$(1)) -DICAE_LEVEL=$(1))
endef
$(foreach level,$(LEVELS) $(ONLYLEVELS),$(eval $(call level_rule,$(level))))

$(BUILD)/libicae.a: $(LIBOBJECTS)
	@echo "  AR $@"
	$(Q)rm -f $@; ar rcs $@ $^

$(BUILD)/libicae.so: $(LIBOBJECTS)
	@echo "  LD $@"
	$(Q)$(LINK) -shared -Wl,-soname,libicae.so.0 -o $@ $^ $(LDLIBS)

INFEROBJECTS := $(patsubst %.c,$(BUILD)/%.o,$(sort $(wildcard infer/*.c)))
TRAINCOMMON := $(patsubst %.c,$(BUILD)/%.o,$(filter-out train/pretrain.c train/finetune.c,$(sort $(wildcard train/*.c))))

define link
@echo "  LD $@"
$(Q)$(LINK) -o $@ $(filter %.o %.a,$^) $(LDLIBS) $(1)
endef

$(BUILD)/icae: $(INFEROBJECTS) $(BUILD)/libicae.a
	$(call link,)
$(BUILD)/icae-pretrain: $(BUILD)/train/pretrain.o $(TRAINCOMMON) $(BUILD)/libicae.a
	$(call link,)
$(BUILD)/icae-finetune: $(BUILD)/train/finetune.o $(TRAINCOMMON) $(BUILD)/libicae.a
	$(call link,)

# ---- tests: every tests/unit/test_NAME.c defines Suite *NAME_suite(void) ----
$(BUILD)/generated/suites.inc: $(TESTSOURCES) Makefile
	$(Q)mkdir -p $(@D)
	$(Q)for name in $(TESTNAMES); do echo "SUITE($$name)"; done > $@

TESTOBJECTS := $(patsubst %.c,$(BUILD)/%.o,$(TESTSOURCES) $(TESTSUPPORT))
$(BUILD)/tests/unit/runner.o: $(BUILD)/generated/suites.inc
$(BUILD)/run-tests: $(TESTOBJECTS) $(BUILD)/libicae.a
	$(call link,$(CHECKLIBS))

# ---- the example: an outsider's program, it sees icae.h and what is installed beside it ----
EXAMPLE := $(BUILD)/tests/example/compress_and_ask
all: $(EXAMPLE)
$(BUILD)/example-include/icae.h: include/icae.h include/icae/status.h
	$(Q)mkdir -p $(@D)/icae
	$(Q)cp include/icae/status.h $(@D)/icae/ && cp include/icae.h $@
$(EXAMPLE): tests/example/compress_and_ask.c $(BUILD)/example-include/icae.h $(BUILD)/libicae.a
	@echo "  LD $@"
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) -I$(BUILD)/example-include $(CPPFLAGS) $(ICAE_CFLAGS) $(CFLAGS) $< $(BUILD)/libicae.a $(ICAE_LDFLAGS) $(LDFLAGS) $(LDLIBS) -o $@
check-only: $(EXAMPLE)

# ---- what a machine needs; each step does nothing when it is done already ----
BASE := data/base/smollm2-135m-instruct-q4_1.gguf

.PHONY: setup base texts
setup:
	$(Q)CC=$(call quote,$(CC)) CPPFLAGS=$(call quote,$(CPPFLAGS)) CFLAGS=$(call quote,$(CFLAGS)) LDFLAGS=$(call quote,$(LDFLAGS)) \
	  data/setup.sh $(PACKAGES) python3 python3-pip
base:
	$(Q)data/fetch_base.sh
texts:
	$(Q)data/fetch_texts.sh

# ---- tests ----
.PHONY: test check-only grad asan fuzz
test: setup
	$(Q)$(MAKE) --no-print-directory base
	$(Q)$(MAKE) --no-print-directory MODE=f64 check-only TESTS=golden
	$(Q)$(MAKE) --no-print-directory check-only

check-only: $(BUILD)/run-tests $(PROGRAMS)
	$(Q)ICAE_BUILD=$(BUILD) GOMP_SPINCOUNT=2000 $(BUILD)/run-tests $(TESTS)

grad:
	$(Q)$(MAKE) --no-print-directory MODE=f64 check-only TESTS="$(or $(TESTS),ops graph golden objective kernels layout)"

# The OpenMP and OpenBLAS runtimes keep their thread pools until the end: not leaks of ours.
SANITIZED := ASAN_OPTIONS=detect_leaks=1:allocator_may_return_null=1 UBSAN_OPTIONS=print_stacktrace=1 \
	LSAN_OPTIONS=suppressions=tests/scripts/lsan.supp:print_suppressions=0
asan:
	$(Q)$(SANITIZED) CK_TIMEOUT_MULTIPLIER=10 \
	  $(MAKE) --no-print-directory MODE=asan check-only

# ---- reliability: kills, faults, broken controls, memory over time; figures in docs/reliability.md ----
KILLS ?= 1000
MINUTES ?= 60
RELIABILITY := $(BUILD)/reliability
MOST_FAULTS ?= 400
WRAPPED := malloc calloc realloc aligned_alloc free strdup strndup vasprintf asprintf inflateInit2_ \
	open close read write fsync rename renameat2 mkdir remove unlink truncate mmap opendir flock gzopen \
	gzread gzerror readdir stat lstat fstat icae_checkpoint_save icae_arena_alloc icae_arena_array \
	icae_arena_copy icae_model_open
.PHONY: torture faults check-faults controls tsan coverage soak
.PRECIOUS: $(BUILD)/tests/reliability/%.o
$(BUILD)/soak: $(addprefix $(BUILD)/tests/reliability/,soak.o tiny_run.o) $(BUILD)/libicae.a
	$(call link,)
$(BUILD)/torture: $(addprefix $(BUILD)/tests/reliability/,torture.o tiny_run.o) $(BUILD)/libicae.a
	$(call link,)
torture: $(BUILD)/torture $(BUILD)/icae-pretrain
	$(Q)$(BUILD)/torture $(BUILD)/icae-pretrain $(RELIABILITY)/torture $(KILLS)
# The library's objects are those of make asan; only the linking differs.
wrap = $(addprefix -Wl$(comma)--wrap=,$(1))
FAULTOBJECTS := $(addprefix $(BUILD)/tests/reliability/,faults.o fault_layer.o scenarios.o scenarios_formats.o \
	scenarios_exchange.o scenarios_run.o power.o disk.o tiny_run.o)
$(BUILD)/faults: $(FAULTOBJECTS) $(BUILD)/libicae.a
	$(call link,$(call wrap,$(WRAPPED)))
faults:
	$(Q)$(MAKE) --no-print-directory MODE=asan check-faults
check-faults: $(BUILD)/faults
	$(Q)export $(SANITIZED) OMP_NUM_THREADS=1; \
	  $(BUILD)/faults power $(RELIABILITY)/power && \
	  $(BUILD)/faults all $(RELIABILITY)/faults $(MOST_FAULTS)
# Programs broken on purpose, by what is linked before the library.
$(BUILD)/control-rng: $(TESTOBJECTS) $(BUILD)/tests/reliability/control_rng.o $(BUILD)/libicae.a
	$(call link,$(call wrap,icae_train icae_batch_loss) $(CHECKLIBS))
$(BUILD)/control-gradient: $(TESTOBJECTS) $(BUILD)/tests/reliability/control_gradient.o $(BUILD)/libicae.a
	$(call link,$(call wrap,icae_rmsnorm_backward) $(CHECKLIBS))
$(BUILD)/tests/reliability/control_sync.o: tests/reliability/fault_layer.c
	$(call compile,-DCONTROL_SYNC)
$(BUILD)/control-sync: $(subst fault_layer,control_sync,$(FAULTOBJECTS)) $(BUILD)/libicae.a
	$(call link,$(call wrap,$(WRAPPED)))
controls: $(addprefix $(BUILD)/control-,rng gradient sync) $(PROGRAMS)
	$(Q)tests/reliability/controls.sh $(BUILD)
# OpenMP's runtime is not instrumented: with one thread there is little that it could hide.
tsan:
	$(Q)TSAN_OPTIONS=exitcode=66:history_size=7:allocator_may_return_null=1:suppressions=tests/scripts/tsan.supp \
	  OMP_NUM_THREADS=1 CK_TIMEOUT_MULTIPLIER=20 \
	  $(MAKE) --no-print-directory MODE=tsan check-only TESTS="feed trainer checkpoint train_cli resume"
coverage:
	$(Q)find build/coverage -name '*.gcda' -delete 2>/dev/null || true
	$(Q)CK_TIMEOUT_MULTIPLIER=10 $(MAKE) --no-print-directory MODE=coverage check-only
	$(Q)$(MAKE) --no-print-directory MODE=coverage check-faults
	$(Q)tests/reliability/coverage.sh build/coverage
soak: $(BUILD)/soak $(BUILD)/icae-pretrain
	$(Q)$(BUILD)/soak $(BUILD)/icae-pretrain $(RELIABILITY)/soak $(MINUTES) docs/soak.svg

# ---- against other programs: needs the network once, Python and its packages; no part of test ----
.PHONY: interop-tokenizers interop-dequant interop-peft interop-llama-cpp interop-released
.PRECIOUS: $(BUILD)/tests/interop/%.o
$(BUILD)/interop-%: $(BUILD)/tests/interop/%.o $(BUILD)/libicae.a
	$(call link,)
interop-tokenizers: $(BUILD)/interop-tokenize
	$(Q)ICAE_TOKENIZE=$< $(PYTHON) tests/interop/tokenizers.py
interop-dequant: $(BUILD)/interop-dequant
	$(Q)ICAE_DEQUANT=$< $(PYTHON) tests/interop/dequant.py
interop-peft: $(BUILD)/interop-logits $(BUILD)/icae
	$(Q)ICAE_LOGITS=$< ICAE=$(BUILD)/icae $(PYTHON) tests/interop/peft_logits.py
interop-llama-cpp: $(BUILD)/interop-logits $(BUILD)/icae
	$(Q)$(MAKE) --no-print-directory base
	$(Q)ICAE_LOGITS=$< ICAE=$(BUILD)/icae $(PYTHON) tests/interop/llama_cpp.py $(BASE)
interop-released:
	$(Q)$(PYTHON) tests/interop/released.py check
.PHONY: interop-metrics
interop-metrics: $(BUILD)/interop-metrics
	$(Q)ICAE_METRICS=$< $(PYTHON) tests/interop/metrics.py check
# The pages that data/*.py write, from small results made up for it, and what all documents say of the source: seconds, no network.
.PHONY: check-pages
check-pages: $(BUILD)/compare-runs
	$(Q)$(PYTHON) tests/scripts/pages.py $(BUILD)/compare-runs
	$(Q)$(PYTHON) tests/scripts/texts.py
	$(Q)$(PYTHON) tests/scripts/documents.py
.PHONY: interop-chat
interop-chat:
	$(Q)$(PYTHON) tests/interop/chat_templates.py check

# ---- fuzzing: one libFuzzer program per parser, FUZZ_RUNS inputs each, and all of tests/broken ----
# The long form: make fuzz FUZZ_RUNS=10000000 FUZZ_TARGETS="slots gguf"
FUZZ_RUNS ?= 20000
FUZZERS := $(patsubst tests/fuzz/fuzz_%.c,%,$(wildcard tests/fuzz/fuzz_*.c))
FUZZ_TARGETS ?= $(FUZZERS)
.PHONY: fuzz-programs
# The kernels read no files; instrumented they would take minutes to compile.
$(BUILD)/src/backend/%.o: MODEFLAGS_fuzz := -O1
.PRECIOUS: $(BUILD)/tests/fuzz/%.o
BROKEN := $(sort $(wildcard tests/broken/*.txt))
fuzz-programs: $(addprefix $(BUILD)/fuzz_,$(FUZZ_TARGETS)) $(BUILD)/broken/.written
$(BUILD)/write-broken: $(BUILD)/tests/fuzz/write_broken.o $(BUILD)/tests/unit/broken.o $(BUILD)/libicae.a
	$(call link,)
$(BUILD)/broken/.written: $(BUILD)/write-broken $(BROKEN)
	$(Q)$(BUILD)/write-broken $(@D) $(BROKEN) && touch $@
$(BUILD)/fuzz_%: $(BUILD)/tests/fuzz/fuzz_%.o $(BUILD)/libicae.a
	$(call link,-fsanitize=fuzzer)
fuzz:
	$(Q)command -v clang >/dev/null || { echo "make fuzz needs clang: apt-get install clang libclang-rt-14-dev" >&2; exit 1; }
	$(Q)$(MAKE) --no-print-directory MODE=fuzz CC=clang fuzz-programs FUZZ_TARGETS="$(FUZZ_TARGETS)"
	$(Q)tests/scripts/fuzz.sh build/fuzz $(FUZZ_RUNS) $(FUZZ_TARGETS)

# ---- style ----
FORMATTED := $(wildcard src/*/*.c src/*/*.h include/*.h include/icae/*.h train/*.c train/*.h infer/*.c \
	infer/*.h tests/unit/*.c tests/unit/*.h tests/fuzz/*.c tests/fuzz/*.h tests/example/*.c tests/interop/*.c \
	tests/bench/*.c tests/reliability/*.c tests/reliability/*.h)
CLANG_FORMAT ?= $(or $(shell command -v clang-format-14),clang-format)
.PHONY: format format-check layers
format:
	$(Q)$(CLANG_FORMAT) -i $(FORMATTED)
format-check:
	$(Q)$(CLANG_FORMAT) --dry-run -Werror $(FORMATTED) && echo "format: clean"
layers: $(BUILD)/libicae.so
	$(Q)tests/scripts/check_layers.sh $<

# ---- installing ----
# A path may hold spaces. icae.pc has them behind backslashes, which pkg-config hands on: a recipe of make, CMake and
# eval "cc ... $(pkg-config ...)" read them, a bare $(pkg-config ...) in a shell does not. Other marks do not survive it.
BLANK := $(subst ,, )
INTO = $(call quote,$(DESTDIR)$(PREFIX))
PKGCONFIG = $(INTO)/lib/pkgconfig
.PHONY: check-prefix install uninstall
check-prefix:
	$(Q)case $(call quote,$(PREFIX)) in \
	  *[\'\"\\\$$\`\#\;\&\(\)\<\>\|*?[:cntrl:]]*) \
	    echo "PREFIX has a mark that icae.pc cannot hold: name a folder without quotes and the shell's other marks" >&2; exit 1;; \
	  ''|/*) ;; \
	  *) printf "PREFIX must begin with a slash, since icae.pc holds it: '%s' does not\n" $(call quote,$(PREFIX)) >&2; exit 1;; \
	esac; \
	case $(call quote,$(DESTDIR)) in \
	  '~'*) echo "DESTDIR begins with a tilde that the shell left: write \$$HOME" >&2; exit 1;; \
	esac
install: check-prefix
	$(Q)$(MAKE) --no-print-directory all
	install -d $(INTO)/bin $(PKGCONFIG) $(INTO)/include/icae
	install -m 755 $(PROGRAMS) $(INTO)/bin
	install -m 644 $(BUILD)/libicae.a $(INTO)/lib
	install -m 755 $(BUILD)/libicae.so $(INTO)/lib/libicae.so.$(VERSION)
	ln -sf libicae.so.$(VERSION) $(INTO)/lib/libicae.so.0
	ln -sf libicae.so.0 $(INTO)/lib/libicae.so
	install -m 644 include/icae.h $(INTO)/include
	install -m 644 include/icae/status.h $(INTO)/include/icae
	printf '%s\n' $(call quote,prefix=$(subst $(BLANK),\$(BLANK),$(PREFIX))) \
	  'libdir=$${prefix}/lib' 'includedir=$${prefix}/include' '' \
	  'Name: icae' 'Description: In-context Autoencoder: compress text into memory slots' \
	  'Version: $(VERSION)' 'Libs: -L$${libdir} -licae' \
	  'Libs.private: -lopenblas -lcjson -lz -lm -lpthread -fopenmp' 'Cflags: -I$${includedir}' \
	  > $(PKGCONFIG)/icae.pc
uninstall: check-prefix
	rm -f $(foreach program,$(notdir $(PROGRAMS)),$(INTO)/bin/$(program))
	rm -f $(INTO)/lib/libicae.* $(PKGCONFIG)/icae.pc
	rm -f $(INTO)/include/icae.h $(INTO)/include/icae/status.h
	rmdir $(INTO)/include/icae 2>/dev/null || true

# ---- showing ----
.PHONY: demo bench
demo: setup
	$(Q)$(MAKE) --no-print-directory base texts all
	$(Q)data/demo.sh $(BUILD)

# ---- measuring: on a machine that does nothing else ----
BENCH_OUT ?= build/bench
LLAMA_BIN ?=
PEER_ROUNDS ?= 3
.PHONY: bench-docs bench-peers bench-memory
bench: all
	$(Q)$(MAKE) --no-print-directory base
	$(Q)$(BUILD)/icae bench -m $(BASE) --out $(BENCH_OUT)
bench-docs: bench
	$(Q)cp $(BENCH_OUT)/bench-*.svg $(BENCH_OUT)/bench.md docs/
bench-peers: all
	$(Q)$(MAKE) --no-print-directory base texts
	$(Q)PYTHON="$(PYTHON)" LLAMA_BIN="$(LLAMA_BIN)" ICAE=$(BUILD)/icae tests/bench/peers/compare.py \
	  $(BASE) --out $(BENCH_OUT)/peers --rounds $(PEER_ROUNDS) $(PEER_ROWS)

bench-memory: all
	$(Q)$(MAKE) --no-print-directory base texts
	$(Q)tests/bench/memory_plan.py $(BUILD)

# ---- the paper's experiments with an adapter: hours; what was done is kept in runs/experiments ----
# [BASE=FILE] [ADAPTER=FOLDER] [TUNED=FOLDER] [PLAIN=FOLDER] [N=100] [SKIP=latency] [MORE="--refine 0"]
ifeq ($(ADAPTER),)
experiments: ADAPTER := adapters/smollm2-135m-4x
experiments: TUNED := adapters/smollm2-135m-4x-ask
endif
.PHONY: experiments
experiments: all
	$(Q)$(MAKE) --no-print-directory base texts
	$(Q)$(PYTHON) data/experiments.py $(BUILD) -m $(BASE) -a $(ADAPTER) $(if $(TUNED),--tuned $(TUNED)) \
	  $(if $(PLAIN),--tuned-plain $(PLAIN)) $(if $(N),-n $(N)) $(addprefix --skip ,$(SKIP)) $(MORE)

$(BUILD)/compare-runs: $(BUILD)/tests/bench/compare_runs.o $(BUILD)/libicae.a
	$(call link,)
.PHONY: ablations
ablations: all $(BUILD)/compare-runs
	$(Q)$(MAKE) --no-print-directory base texts
	$(Q)$(PYTHON) data/ablations.py $(BUILD) $(if $(STEPS),--steps $(STEPS)) $(if $(THREADS),--threads $(THREADS))
.PHONY: compare-compute
compare-compute: all $(BUILD)/compare-runs
	$(Q)$(MAKE) --no-print-directory base texts
	$(Q)tests/bench/compare_compute.sh $(BUILD)

# ---- the guard that does not time: instructions of a fixed piece of work (needs valgrind) ----
.PHONY: instructions
$(BUILD)/fixed-work: $(BUILD)/tests/bench/fixed_work.o $(BUILD)/libicae.a
	$(call link,)
instructions: $(BUILD)/fixed-work
	$(Q)tests/bench/instructions.sh $(BUILD)/fixed-work $(if $(UPDATE),update)

.PHONY: clean help
clean:
	rm -rf build
help:
	@sed -n '3,/^$$/s/^# \{0,1\}//p' Makefile

-include $(shell find $(BUILD) -name '*.d' 2>/dev/null)
