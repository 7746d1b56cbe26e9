/* SPDX-License-Identifier: MIT */
/*
 * The table of all settings, and the loops over it; the contract stands in icae/settings.h.
 *
 * Adding a setting is a field in the struct, a row here, and a line in configs/README.md.
 */
#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "icae/backend.h"
#include "icae/rng.h"
#include "icae/settings.h"

const char *const icae_schedule_names[] = {"constant", "cosine", "linear", NULL};

typedef enum kind { INTEGER, NUMBER, BOOL, STRING, CHOICE, STRINGS, BYTES } kind;

/* Whether a resumed run may use another value than the run that it goes on with. */
typedef enum mobility {
    FIXED,
    FREE,
    KNOWN /* otherwise: the base by its fingerprint, however its path is spelled */
} mobility;

typedef struct row {
    const char *section, *key;
    kind kind;
    mobility mobility;
    size_t offset;
    double least, most;         /* numbers */
    const char *const *choices; /* CHOICE */
} row;

#define AT(field) offsetof(icae_settings, field)

/* clang-format off */
#define ROW_LIST(X) \
    X("", "base",                         STRING,  KNOWN, base,                          0, 0, NULL) \
    X("", "out",                          STRING,  FREE,  out,                           0, 0, NULL) \
    X("", "memory_budget",                BYTES,   FREE,  memory_budget,                 0, 9e15, NULL) \
    X("data", "train",                    STRINGS, FIXED, data.train,                    0, 0, NULL) \
    X("data", "heldout",                  STRINGS, FREE,  data.heldout,                  0, 0, NULL) \
    X("data", "text_field",               STRING,  FIXED, data.text_field,               0, 0, NULL) \
    X("data", "shuffle_documents",        INTEGER, FIXED, data.shuffle_documents,        0, 1e8, NULL) \
    X("data", "strict",                   BOOL,    FREE,  data.strict,                   0, 0, NULL) \
    X("data", "prefetch_steps",           INTEGER, FREE,  data.prefetch_steps,           0, 1024, NULL) \
    X("adapter", "start",                 STRING,  FIXED, adapter.start,                 0, 0, NULL) \
    X("adapter", "memory_slots",          INTEGER, FIXED, adapter.memory_slots,          1, 65536, NULL) \
    X("adapter", "compression_rate",      INTEGER, FIXED, adapter.compression_rate,      1, 65536, NULL) \
    X("adapter", "layout",                CHOICE,  FIXED, adapter.layout,                0, 0, icae_layout_names) \
    X("adapter", "memory_init",           CHOICE,  FIXED, adapter.memory_init,           0, 0, icae_memory_init_names) \
    X("adapter", "memory_inputs",         CHOICE,  FIXED, adapter.memory_inputs,         0, 0, icae_memory_inputs_names) \
    X("adapter", "slot_values",           CHOICE,  FIXED, adapter.slot_values,           0, 0, icae_slot_values_names) \
    X("adapter", "rank",                  INTEGER, FIXED, adapter.rank,                  1, 65536, NULL) \
    X("adapter", "alpha",                 NUMBER,  FIXED, adapter.alpha,                 1e-6, 1e6, NULL) \
    X("adapter", "dropout",               NUMBER,  FIXED, adapter.dropout,               0, 0.99, NULL) \
    X("adapter", "targets",               STRINGS, FIXED, adapter.targets,               0, 0, NULL) \
    X("adapter", "chat_template",         STRING,  FIXED, adapter.chat_template,         0, 0, NULL) \
    X("adapter", "chat_prefix",           STRING,  FIXED, adapter.chat_prefix,           0, 0, NULL) \
    X("adapter", "chat_suffix",           STRING,  FIXED, adapter.chat_suffix,           0, 0, NULL) \
    X("adapter", "chat_turn",             STRING,  FIXED, adapter.chat_turn,             0, 0, NULL) \
    X("adapter", "chat_end",              STRING,  FIXED, adapter.chat_end,              0, 0, NULL) \
    X("objective", "kind",                CHOICE,  FIXED, objective.kind,                0, 0, icae_objective_names) \
    X("objective", "lm_ratio",            NUMBER,  FIXED, objective.lm_ratio,            0, 1, NULL) \
    X("objective", "ae_weight",           NUMBER,  FIXED, objective.ae_weight,           0, 1, NULL) \
    X("objective", "ae_share",            NUMBER,  FIXED, objective.ae_share,            0, 1, NULL) \
    X("objective", "context_tokens",      INTEGER, FIXED, objective.context_tokens,      0, 1e7, NULL) \
    X("objective", "first_context",       INTEGER, FIXED, objective.first_context,       0, 1e7, NULL) \
    X("objective", "grow_steps",          INTEGER, FIXED, objective.grow_steps,          0, 1e9, NULL) \
    X("objective", "continuation_tokens", INTEGER, FIXED, objective.continuation_tokens, 0, 1e7, NULL) \
    X("objective", "least_context",       INTEGER, FIXED, objective.least_context,       1, 1e7, NULL) \
    X("objective", "least_continuation",  INTEGER, FIXED, objective.least_continuation,  0, 1e7, NULL) \
    X("objective", "skip_for_lm",         INTEGER, FIXED, objective.skip_for_lm,         0, 1e7, NULL) \
    X("objective", "prompt_tokens",       INTEGER, FIXED, objective.prompt_tokens,       1, 1e7, NULL) \
    X("objective", "answer_tokens",       INTEGER, FIXED, objective.answer_tokens,       1, 1e7, NULL) \
    X("train", "steps",                   INTEGER, FREE,  train.steps,                   0, 1e12, NULL) \
    X("train", "batch",                   INTEGER, FIXED, train.batch,                   1, 1e6, NULL) \
    X("train", "micro_batch",             INTEGER, FIXED, train.micro_batch,             0, 1e6, NULL) \
    X("train", "lr",                      NUMBER,  FIXED, train.lr,                      0, 10, NULL) \
    X("train", "schedule",                CHOICE,  FIXED, train.schedule,                0, 0, icae_schedule_names) \
    X("train", "warmup_steps",            INTEGER, FIXED, train.warmup_steps,            0, 1e12, NULL) \
    X("train", "final_lr_fraction",       NUMBER,  FIXED, train.final_lr_fraction,       0, 1, NULL) \
    X("train", "beta1",                   NUMBER,  FIXED, train.beta1,                   0, 0.999999, NULL) \
    X("train", "beta2",                   NUMBER,  FIXED, train.beta2,                   0, 0.999999, NULL) \
    X("train", "eps",                     NUMBER,  FIXED, train.eps,                     1e-20, 1, NULL) \
    X("train", "weight_decay",            NUMBER,  FIXED, train.weight_decay,            0, 10, NULL) \
    X("train", "clip_norm",               NUMBER,  FIXED, train.clip_norm,               0, 1e12, NULL) \
    X("train", "seed",                    INTEGER, FIXED, train.seed,                    0, 9e15, NULL) \
    X("train", "checkpointing",           BOOL,    FREE,  train.checkpointing,           0, 0, NULL) \
    X("train", "threads",                 INTEGER, FREE,  train.threads,                 0, 1024, NULL) \
    X("train", "compute",                 CHOICE,  FIXED, train.compute,                 0, 0, icae_compute_names) \
    X("evaluate", "every",                INTEGER, FREE,  evaluate.every,                0, 1e12, NULL) \
    X("evaluate", "samples",              INTEGER, FREE,  evaluate.samples,              0, 1e6, NULL) \
    X("evaluate", "reconstruct_samples",  INTEGER, FREE,  evaluate.reconstruct_samples,  0, 1e5, NULL) \
    X("evaluate", "reconstruct_tokens",   INTEGER, FREE,  evaluate.reconstruct_tokens,   0, 1e7, NULL) \
    X("checkpoint", "every",              INTEGER, FREE,  checkpoint.every,              0, 1e12, NULL) \
    X("checkpoint", "keep",               INTEGER, FREE,  checkpoint.keep,               1, 1e6, NULL)
/* clang-format on */

static const row rows[] = {
#define ROW(section, key, kind, mobility, field, least, most, choices)                         \
    {section, key, kind, mobility, AT(field), least, most, choices},
    ROW_LIST(ROW)
#undef ROW
};
enum { N_ROWS = sizeof rows / sizeof rows[0] };
_Static_assert(N_ROWS <= 64, "icae_settings.given has one bit for every row");

static void *field_of(const icae_settings *settings, const row *r) {
    return (char *)(uintptr_t)settings + r->offset;
}

static void full_name(const row *r, char *out, size_t bytes) {
    snprintf(out, bytes, "%s%s%s", r->section, *r->section ? "." : "", r->key);
}

/* ---- defaults: for a base of a hundred million parameters on a desktop processor ---- */

static const char *default_targets[] = {"q_proj", "v_proj"};

void icae_settings_init(icae_settings *settings) {
    *settings = (icae_settings){
        .base = "",
        .out = "",
        .data = {.text_field = "text", .shuffle_documents = 2000, .prefetch_steps = 2},
        .adapter = {.start = "",
                    .memory_slots = 32,
                    .compression_rate = 4,
                    .layout = ICAE_LAYOUT_UNIFORM,
                    .memory_init = ICAE_MEMORY_INIT_BASE,
                    .memory_inputs = ICAE_MEMORY_INPUTS_LEARNED,
                    .slot_values = ICAE_SLOT_VALUES_HIDDEN,
                    .rank = 32,
                    .alpha = 32,
                    .dropout = 0.05,
                    .targets = {default_targets, 2}},
        .objective = {.kind = ICAE_OBJECTIVE_MIXED,
                      .lm_ratio = 0.5,
                      .ae_weight = 0.5,
                      .least_context = 8,
                      .least_continuation = 64,
                      .skip_for_lm = 8,
                      .prompt_tokens = 256,
                      .answer_tokens = 256},
        .train = {.steps = 1000,
                  .batch = 8,
                  .lr = 5e-4,
                  .schedule = ICAE_SCHEDULE_COSINE,
                  .warmup_steps = 50,
                  .final_lr_fraction = 0.1,
                  .beta1 = 0.9,
                  .beta2 = 0.95,
                  .eps = 1e-8,
                  .weight_decay = 0.01,
                  .clip_norm = 2.0,
                  .seed = 1},
        .evaluate = {.every = 100,
                     .samples = 16,
                     .reconstruct_samples = 4,
                     .reconstruct_tokens = 64},
        .checkpoint = {.every = 100, .keep = 3},
    };
}

void icae_settings_release(icae_settings *settings) {
    icae_arena_release(&settings->arena);
    *settings = (icae_settings){0};
}

/* ---- reading ---- */

static void read_strings(icae_settings *settings, icae_json_object *object, const row *r,
                         const icae_json_value *value) {
    icae_strings strings = {.count = icae_json_count(value)};
    bool is_list = icae_json_is_array(value);
    const char *single = icae_json_as_string(value);
    if (single) strings.count = 1; /* "data.train": "file" is a list of one */
    if (!single && !is_list) {
        icae_json_complain(object, r->key, "expected a list of strings");
        return;
    }
    strings.list = icae_arena_array(&settings->arena, strings.count + 1, sizeof *strings.list);
    const icae_json_value *element = single ? value : icae_json_first(value);
    for (size_t i = 0; strings.list && i < strings.count; i++) {
        const char *text = icae_json_as_string(element);
        if (!text || !*text) {
            icae_json_complain(object, r->key,
                               "element %zu: expected a string that is not empty", i + 1);
            return;
        }
        strings.list[i] = icae_arena_copy(&settings->arena, text, strlen(text));
        if (!strings.list[i]) strings.list = NULL;
        element = icae_json_next(element);
    }
    if (strings.list)
        memcpy(field_of(settings, r), &strings, sizeof strings);
    else
        icae_json_complain(object, r->key, "not enough memory for it");
}

/* 1500000, or "1.5 MB", "6 GiB": a number and a unit, with or without a space between. */
static void read_bytes(icae_json_object *object, const row *r, int64_t *bytes) {
    static const struct {
        const char *name;
        double size;
    } units[] = {{"B", 1},
                 {"KB", 1e3},
                 {"MB", 1e6},
                 {"GB", 1e9},
                 {"TB", 1e12},
                 {"KiB", 1024},
                 {"MiB", 1024 * 1024},
                 {"GiB", 1073741824.0},
                 {"TiB", 1099511627776.0}};
    const char *text = icae_json_as_string(icae_json_get_value(object, r->key));
    if (!text) {
        *bytes =
            icae_json_get_integer(object, r->key, *bytes, (int64_t)r->least, (int64_t)r->most);
        return;
    }
    /* By hand, as strtod asks the locale what a decimal point is. */
    double value = 0, place = 1;
    const char *at = text;
    for (; *at >= '0' && *at <= '9'; at++)
        value = 10 * value + (*at - '0');
    if (at > text && *at == '.') {
        for (at++; *at >= '0' && *at <= '9'; at++)
            value += (*at - '0') * (place /= 10);
    }
    bool is_number = at > text;
    at += strspn(at, " ");
    for (size_t i = 0; is_number && i < sizeof units / sizeof units[0]; i++) {
        if (strcmp(at, units[i].name) != 0) continue;
        if (value * units[i].size > r->most) break;
        *bytes = (int64_t)(value * units[i].size);
        return;
    }
    icae_json_complain(object, r->key,
                       "expected bytes as a whole number, or as \"800 MB\" or \"6 GiB\" (units "
                       "B, KB, MB, GB, TB, KiB, MiB, GiB, TiB)");
}

static void read_row(icae_settings *settings, icae_json_object *object, size_t index) {
    const row *r = &rows[index];
    void *field = field_of(settings, r);
    if (!icae_json_has(object, r->key)) {
        icae_json_get_value(object,
                            r->key); /* so that a misspelt key can be answered with it */
        return;
    }
    settings->given |= UINT64_C(1) << index;
    switch (r->kind) {
    case INTEGER: {
        int64_t *number = field;
        *number =
            icae_json_get_integer(object, r->key, *number, (int64_t)r->least, (int64_t)r->most);
        break;
    }
    case NUMBER: {
        double *number = field;
        *number = icae_json_get_number(object, r->key, *number, r->least, r->most);
        break;
    }
    case BYTES:
        read_bytes(object, r, field);
        break;
    case BOOL: {
        bool *flag = field;
        *flag = icae_json_get_bool(object, r->key, *flag);
        break;
    }
    case CHOICE: {
        int *choice = field;
        *choice = icae_json_get_choice(object, r->key, r->choices, *choice);
        break;
    }
    case STRING: {
        const char **string = field;
        const char *text = icae_json_get_string(object, r->key, NULL);
        if (!text) break; /* null: the default stands */
        *string = icae_arena_copy(&settings->arena, text, strlen(text));
        if (!*string) icae_json_complain(object, r->key, "not enough memory for it");
        break;
    }
    case STRINGS: {
        const icae_json_value *value = icae_json_get_value(object, r->key);
        if (value) read_strings(settings, object, r, value);
        break;
    }
    }
}

/* Rows of one section follow each other, those without a section stand first. */
static icae_status read_document(icae_settings *settings, const icae_json *json,
                                 icae_error *error) {
    const icae_json_value *root = icae_json_root(json);
    icae_json_object top = icae_json_begin(json, root, "", error);
    for (size_t i = 0; i < N_ROWS && !top.status;) {
        const char *section = rows[i].section;
        char where[64] = "";
        icae_json_object inner = {0}, *object = &top;
        if (*section) {
            const icae_json_value *value = icae_json_get_value(&top, section);
            snprintf(where, sizeof where, "%s.", section);
            inner = icae_json_begin(json, value, where, error);
            object = &inner;
        }
        bool is_there = object == &top || inner.value;
        for (; i < N_ROWS && !strcmp(rows[i].section, section); i++) {
            if (is_there) read_row(settings, object, i);
        }
        if (object != &top && is_there) {
            icae_status status = icae_json_end(object);
            if (status) return status;
        }
    }
    return icae_json_end(&top);
}

icae_status icae_settings_read(icae_settings *settings, const char *path, icae_error *error) {
    icae_json *json;
    icae_status status = icae_json_open(&json, path, error);
    if (status) return status;
    status = read_document(settings, json, error);
    icae_json_free(json);
    return status;
}

/* Whether the value stands in the document as it is: JSON, and of a kind that its key can mean. Else it is
 * text. */
static bool is_json(const char *name, const char *key, size_t key_bytes, const char *value) {
    icae_json *json;
    if (icae_json_parse(&json, name, value, strlen(value), NULL)) return false;
    const icae_json_value *root = icae_json_root(json);
    bool is_taken = true;
    for (size_t i = 0; i < N_ROWS; i++) {
        const row *r = &rows[i];
        char full[64];
        full_name(r, full, sizeof full);
        if (strlen(full) != key_bytes || memcmp(full, key, key_bytes) != 0) continue;
        bool is_list = r->kind == STRINGS && icae_json_is_array(root);
        bool wants_text = r->kind == STRING || r->kind == STRINGS || r->kind == CHOICE;
        const char *data;
        size_t bytes;
        is_taken = !wants_text || is_list || icae_json_is_null(root) ||
                   icae_json_as_bytes(root, &data, &bytes);
    }
    icae_json_free(json);
    return is_taken;
}

/* The key's words become nested objects. */
static void build_assignment(icae_text *out, const char *key, const char *equals, bool quoted) {
    const char *dot = memchr(key, '.', (size_t)(equals - key));
    const char *value = equals + 1;
    icae_text_append_char(out, '{');
    if (dot) {
        icae_json_write_string(out, key, (size_t)(dot - key));
        icae_text_append_string(out, ": {");
        key = dot + 1;
    }
    icae_json_write_string(out, key, (size_t)(equals - key));
    icae_text_append_string(out, ": ");
    if (quoted)
        icae_json_write_string(out, value, strlen(value));
    else
        icae_text_append_string(out, value);
    icae_text_append_string(out, dot ? "}}" : "}");
}

/* "--set KEY=VALUE:1: ..." without the line: there is but one. */
static void drop_line(icae_error *error, const char *name) {
    size_t length = strlen(name), line = strlen(":1");
    if (!error || strncmp(error->message, name, length) != 0 ||
        strncmp(error->message + length, ":1: ", 4) != 0)
        return;
    char *rest = error->message + length + line;
    memmove(error->message + length, rest, strlen(rest) + 1);
}

icae_status icae_settings_set(icae_settings *settings, const char *assignment,
                              icae_error *error) {
    const char *equals = strchr(assignment, '=');
    if (!equals || equals == assignment) {
        return icae_fail(error, ICAE_INVALID,
                         "--set %s: expected key=value, as in --set train.lr=1e-4", assignment);
    }
    char name[160];
    snprintf(name, sizeof name, "--set %s", assignment);
    icae_text text = {0};
    icae_json *json = NULL;
    /* By itself, as what follows a comma or a brace in it would be other keys. */
    bool is_taken = is_json(name, assignment, (size_t)(equals - assignment), equals + 1);
    build_assignment(&text, assignment, equals, !is_taken);
    icae_status status = text.failed
                             ? icae_fail_memory(error, name)
                             : icae_json_parse(&json, name, text.data, text.length, error);
    if (!status) status = read_document(settings, json, error);
    if (status) drop_line(error, name);
    icae_json_free(json);
    icae_text_release(&text);
    return status;
}

/* ---- writing and comparing ---- */

static void write_value(const icae_settings *settings, const row *r, icae_text *out) {
    const void *field = field_of(settings, r);
    switch (r->kind) {
    case INTEGER:
    case BYTES:
        icae_text_printf(out, "%lld", (long long)*(const int64_t *)field);
        break;
    case NUMBER:
        icae_json_write_number(out, *(const double *)field);
        break;
    case BOOL:
        icae_text_append_string(out, *(const bool *)field ? "true" : "false");
        break;
    case CHOICE: {
        const char *name = r->choices[*(const int *)field];
        icae_json_write_string(out, name, strlen(name));
        break;
    }
    case STRING: {
        const char *string = *(const char *const *)field;
        if (string)
            icae_json_write_string(out, string, strlen(string));
        else
            icae_text_append_string(out, "null");
        break;
    }
    case STRINGS: {
        icae_strings strings;
        memcpy(&strings, field, sizeof strings);
        icae_text_append_char(out, '[');
        for (size_t i = 0; i < strings.count; i++) {
            if (i) icae_text_append_string(out, ", ");
            icae_json_write_string(out, strings.list[i], strlen(strings.list[i]));
        }
        icae_text_append_char(out, ']');
        break;
    }
    }
}

void icae_settings_write(const icae_settings *settings, icae_text *out) {
    icae_text_append_string(out, "{\n");
    const char *section = "";
    for (size_t i = 0; i < N_ROWS; i++) {
        const row *r = &rows[i];
        bool is_new = strcmp(r->section, section) != 0;
        if (is_new && *section) icae_text_append_string(out, "\n  }");
        if (i) icae_text_append_string(out, ",\n");
        if (is_new) icae_text_printf(out, "  \"%s\": {\n", r->section);
        section = r->section;
        icae_text_printf(out, "%s\"%s\": ", *section ? "    " : "  ", r->key);
        write_value(settings, r, out);
    }
    icae_text_append_string(out, "\n  }\n}\n");
}

size_t icae_settings_difference(const icae_settings *old, const icae_settings *now,
                                icae_text *out) {
    size_t count = 0;
    icae_text was = {0}, is = {0};
    for (size_t i = 0; i < N_ROWS; i++) {
        const row *r = &rows[i];
        if (r->mobility != FIXED) continue;
        icae_text_clear(&was);
        icae_text_clear(&is);
        write_value(old, r, &was);
        write_value(now, r, &is);
        out->failed |= was.failed || is.failed;
        if (!strcmp(icae_text_string(&was), icae_text_string(&is))) continue;
        char name[64];
        full_name(r, name, sizeof name);
        icae_text_printf(out, "%s%s = %.100s, now it is %.100s", count++ ? "; " : "", name,
                         icae_text_string(&was), icae_text_string(&is));
    }
    icae_text_release(&was);
    icae_text_release(&is);
    return count;
}

bool icae_settings_has(const icae_settings *settings, const char *key) {
    for (size_t i = 0; i < N_ROWS; i++) {
        const row *r = &rows[i];
        char name[64];
        full_name(r, name, sizeof name);
        if (!strcmp(name, key)) return settings->given >> i & 1;
    }
    assert(false && "a key of the table");
    return false;
}

uint64_t icae_settings_hash(const icae_settings *settings, bool with_base) {
    uint64_t hash = N_ROWS;
    icae_text text = {0};
    for (size_t i = 0; i < N_ROWS; i++) {
        const row *r = &rows[i];
        if (r->mobility == FREE || (r->mobility == KNOWN && !with_base)) continue;
        icae_text_clear(&text);
        icae_text_printf(&text, "%s.%s=", r->section, r->key);
        write_value(settings, r, &text);
        hash = icae_hash64(icae_text_string(&text), text.length, hash);
    }
    icae_text_release(&text);
    return hash;
}
