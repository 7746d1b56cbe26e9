/* SPDX-License-Identifier: MIT */
/* icae compress: a text becomes a slots file; what it weighs, and what it holds, is told. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "engine.h"
#include "icae/fidelity.h"
#include "icae/file.h"
#include "icae/log.h"
#include "icae/refine.h"
#include "icae/rng.h"
#include "report.h"

/* A text on its way into slots. */
typedef struct job {
    const options *given;
    engine engine;
    const char *path;
    char *text, *output;
    size_t bytes;
    int32_t *ids;
    icae_slots slots;
    icae_refined refined;
    icae_fidelity fidelity;
    double elapsed_s; /* of the compression alone */
    bool is_shown;    /* progress was */
} job;

static void release(job *j) {
    icae_fidelity_release(&j->fidelity);
    icae_slots_release(&j->slots);
    engine_close(&j->engine);
    free(j->ids);
    free(j->output);
    free(j->text);
}

/* "notes.txt" -> "notes.slots"; malloc'ed. A dot in a folder's name or at the start of the file's
 * does not begin an ending. */
static char *default_output(const char *path) {
    const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
    const char *dot = strrchr(name, '.');
    size_t stem = dot && dot > name ? (size_t)(dot - path) : strlen(path);
    char *output = malloc(stem + sizeof ".slots");
    if (!output) return NULL;
    memcpy(output, path, stem);
    memcpy(output + stem, ".slots", sizeof ".slots");
    return output;
}

/* ---- what is told ---- */

static void json_fidelity(json_object *object, const icae_fidelity *f) {
    json_number(object, "tokens_kept", icae_fidelity_kept(f));
    json_number(object, "tokens_in_place", icae_fidelity_in_place(f));
    json_integer(object, "exact_spans", f->n_exact);
    json_integer(object, "numbers", f->n_numbers);
    json_integer(object, "numbers_lost", f->n_numbers_lost);
    json_integer(object, "names", f->n_names);
    json_integer(object, "names_lost", f->n_names_lost);
    json_number(object, "ppl_from_slots", exp(f->nll / (double)f->n_targets));
    double n = (double)f->n_continuation;
    json_number(object, "continuation_ppl",
                n > 0 ? exp(f->continuation_slots / n) : (double)NAN);
    json_number(object, "continuation_ppl_raw",
                n > 0 ? exp(f->continuation_raw / n) : (double)NAN);
    json_number(object, "continuation_ppl_none",
                n > 0 ? exp(f->continuation_none / n) : (double)NAN);
}

static void print_fidelity(const job *j) {
    const icae_fidelity *f = &j->fidelity;
    printf("kept      %.1f %% of the tokens%s in order, %lld of %lld spans exactly\n",
           100 * icae_fidelity_kept(f), f->n_raw ? " in slots" : "", (long long)f->n_exact,
           (long long)(f->n_spans - f->n_raw));
    printf("lost      %lld of %lld numbers, %lld of %lld names\n", (long long)f->n_numbers_lost,
           (long long)f->n_numbers, (long long)f->n_names_lost, (long long)f->n_names);
    if (j->given->report) printf("report    %s\n", j->given->report);
}

/* Perplexity of the text and its end, restored from the slots. */
static double perplexity(const icae_refined *r, double nll) {
    return exp(nll / (double)r->targets);
}

static void json_refined(json_object *object, const icae_refined *r) {
    json_integer(object, "refine_steps", r->steps);
    json_integer(object, "certain_spans", r->certain);
    json_number(object, "ppl_before_refining", perplexity(r, r->before));
    json_number(object, "ppl_refined", perplexity(r, r->after));
}

static void print_refined(const icae_refined *r) {
    int64_t steps = (r->steps + r->spans / 2) / r->spans;
    printf(
        "refined   %lld of %lld span%s to the letter, perplexity %.4g -> %.4g in %lld step%s "
        "a span\n",
        (long long)r->certain, (long long)r->spans, r->spans == 1 ? "" : "s",
        perplexity(r, r->before), perplexity(r, r->after), (long long)steps,
        steps == 1 ? "" : "s");
}

static int print_sizes(const job *j) {
    const icae_slots *slots = &j->slots;
    int64_t vectors = icae_slots_vectors(slots), raw_tokens = icae_slots_raw_tokens(slots);
    int64_t file_bytes = icae_file_bytes(j->output);
    double cache_bytes = (double)icae_cache_bytes(&j->engine.model->config, slots->n_tokens);
    double rate = (double)(slots->n_tokens - raw_tokens) / (double)vectors;
    bool has_fidelity = j->fidelity.spans != NULL;
    if (j->given->is_json) {
        json_object object;
        json_begin(&object);
        json_string(&object, "file", j->output, strlen(j->output));
        json_integer(&object, "text_bytes", (int64_t)j->bytes);
        json_integer(&object, "tokens", slots->n_tokens);
        json_integer(&object, "spans", slots->n_spans);
        json_integer(&object, "raw_spans", slots->n_raw);
        json_integer(&object, "raw_tokens", raw_tokens);
        json_integer(&object, "slots", vectors);
        json_integer(&object, "width", slots->width);
        json_integer(&object, "slot_bytes", vectors * slots->width * (int64_t)sizeof(float));
        json_integer(&object, "file_bytes", file_bytes);
        json_number(&object, "kv_cache_bytes", cache_bytes);
        json_number(&object, "tokens_per_slot", rate);
        if (j->refined.spans) json_refined(&object, &j->refined);
        if (has_fidelity) json_fidelity(&object, &j->fidelity);
        json_number(&object, "seconds", j->elapsed_s);
        return json_end(&object);
    }
    char count[32], text[32], file[32], cache[32];
    printf("text      %s tokens, %s\n", human_count(slots->n_tokens, count),
           human_bytes((double)j->bytes, text));
    printf("slots     %s vectors of %lld numbers in %lld span%s: %.2f tokens a slot\n",
           human_count(vectors, count), (long long)slots->width,
           (long long)(slots->n_spans - slots->n_raw),
           slots->n_spans - slots->n_raw == 1 ? "" : "s", rate);
    if (slots->n_raw) {
        printf("raw       %lld of the spans, %lld tokens, are kept as text\n",
               (long long)slots->n_raw, (long long)raw_tokens);
    }
    if (j->refined.spans) print_refined(&j->refined);
    printf("file      %s, %s\n", j->output, human_bytes((double)file_bytes, file));
    printf("KV cache  %s for the text itself (16-bit): %.1f times the file\n",
           human_bytes(cache_bytes, cache), cache_bytes / (double)file_bytes);
    if (has_fidelity) print_fidelity(j);
    return finish_output();
}

/* ---- the steps ---- */

static bool is_dash(const char *word) {
    return word && strcmp(word, "-") == 0;
}

/* Refuses a text that has nothing to be restored. */
static icae_status check_input(const job *j, icae_error *error) {
    const char *name = is_dash(j->path) ? "standard input" : j->path;
    if (j->bytes == 0)
        return icae_fail(error, ICAE_INVALID, "%s is empty: there is nothing to compress",
                         name);
    if (strspn(j->text, " \t\r\n\v\f") == j->bytes) {
        return icae_fail(error, ICAE_INVALID,
                         "%s holds white space alone: there is nothing to compress", name);
    }
    return check_text(j->path, j->text, j->bytes, error);
}

static bool holds_slots(const char *path) {
    icae_error ignored = {0};
    icae_slots slots = {0};
    bool holds = icae_slots_load(&slots, path, NULL, NULL, &ignored) == ICAE_OK;
    icae_slots_release(&slots);
    return holds;
}

static bool holds_report(const char *path) {
    enum { HEAD = 4096 };
    char head[HEAD + 1] = "";
    FILE *file = fopen(path, "rb");
    if (!file) return false;
    head[fread(head, 1, HEAD, file)] = 0;
    fclose(file);
    return strstr(head, "<title>" ICAE_FIDELITY_TITLE) != NULL;
}

/* Earlier slots and reports give way to new ones; another file only with --force. */
static icae_status check_replaceable(const job *j, const char *path, const char *kind,
                                     bool (*holds)(const char *), icae_error *error) {
    icae_status status = icae_file_check_writable(path, error);
    if (status || j->given->is_forced || !is_regular_file(path) || holds(path)) return status;
    return icae_fail(
        error, ICAE_INVALID,
        "%s: is there already and is no %s of icae compress; give another name, or "
        "--force to replace it",
        path, kind);
}

static icae_status read_input(job *j, icae_error *error) {
    icae_status status = read_text(j->path, &j->text, &j->bytes, error);
    if (!status) status = check_input(j, error);
    if (status) return status;
    j->output = j->given->output ? strdup(j->given->output) : default_output(j->path);
    if (!j->output) return icae_fail_memory(error, "a file name");
    const char *report = j->given->report;
    const char *const read[] = {is_dash(j->path) ? "/dev/stdin" : j->path, j->given->base};
    for (int i = 0; i < 2; i++) {
        if (!is_same_file(j->output, read[i]) && !(report && is_same_file(report, read[i])))
            continue;
        return icae_fail(error, ICAE_INVALID,
                         "%s would be overwritten by slots or a report; give another name",
                         read[i]);
    }
    if (report && (strcmp(j->output, report) == 0 || is_same_file(j->output, report))) {
        return icae_fail(error, ICAE_INVALID,
                         "slots and report would both be written to %s; give two names",
                         report);
    }
    /* Refining and reports take their time: what cannot be written is told before. */
    status = check_replaceable(j, j->output, "slots file", holds_slots, error);
    if (!status && report) status = check_replaceable(j, report, "report", holds_report, error);
    return status;
}

/* What is done in one pass is not worth a line. */
static bool show_progress(void *user, const char *verb, int64_t done, int64_t total) {
    job *j = user;
    j->is_shown |= done < total;
    if (j->is_shown)
        icae_progress_show("%s %lld of %lld spans", verb, (long long)done, (long long)total);
    return signal_caught() == 0;
}

static icae_fidelity_how how_of(const options *given, const icae_span_watch *watch) {
    return (icae_fidelity_how){.least = given->min_fidelity,
                               .refine = given->refine > 0 ? given->refine : 0,
                               .watch = watch};
}

static icae_status compress(job *j, icae_error *error) {
    engine *e = &j->engine;
    double start_s = icae_clock_seconds();
    const icae_span_watch watch = {show_progress, j};
    icae_fidelity_how how = how_of(j->given, &watch);
    icae_status status = ICAE_OK;
    if (how.least < 0) {
        status = icae_compress_text(e->graph, e->model, e->adapter, j->text, j->bytes, &watch,
                                    &j->slots, &j->ids, error);
        if (!status && how.refine > 0) {
            status = icae_refine(e->graph, e->model, e->adapter, j->ids, how.refine, &watch,
                                 &j->slots, &j->refined, error);
        }
    } else {
        size_t n;
        status = icae_adapter_encode(&e->adapter->settings, e->model->tokenizer, j->text,
                                     j->bytes, &j->ids, &n, error);
        if (!status) {
            status = icae_fidelity_compress(e->graph, e->model, e->adapter, j->ids, (int64_t)n,
                                            &how, &j->slots, &j->fidelity, error);
            j->refined = j->fidelity.refined;
        }
        j->slots.source_bytes = j->bytes;
        j->slots.source_hash = icae_hash64(j->text, j->bytes, 0);
    }
    j->elapsed_s = icae_clock_seconds() - start_s;
    if (status) return status;
    int64_t tokens = j->slots.n_tokens, context = e->model->config.context_length;
    if (tokens > context) {
        icae_log_warning("the text has %lld tokens, the base was trained on contexts of "
                         "%lld: it can be restored, span by span, but not read as one text",
                         (long long)tokens, (long long)context);
    }
    return ICAE_OK;
}

static icae_status write_report(job *j, icae_error *error) {
    engine *e = &j->engine;
    icae_status status = ICAE_OK;
    const icae_span_watch watch = {show_progress, j};
    icae_fidelity_how how = how_of(j->given, &watch);
    if (!j->fidelity.spans) {
        status = icae_fidelity_measure(e->graph, e->model, e->adapter, j->ids, &j->slots, &how,
                                       &j->fidelity, error);
    }
    icae_text page = {0};
    if (!status) {
        const icae_fidelity_source source = {.text =
                                                 is_dash(j->path) ? "standard input" : j->path,
                                             .base = j->given->base,
                                             .adapter = j->given->adapter,
                                             .command = j->given->command_line};
        status =
            icae_fidelity_write_page(&page, &j->fidelity, e->model->tokenizer, &source, error);
    }
    if (!status) status = icae_file_write(j->given->report, page.data, page.length, error);
    icae_text_release(&page);
    return status;
}

int run_compress(const options *given) {
    job j = {.given = given, .path = given->words[0]};
    icae_error error = {0};
    if (is_nameless(j.path) && !given->output) {
        return usage_error("compress", "-m BASE -a ADAPTER -o FILE.slots -",
                           "a text from %s has no name: say where its slots go",
                           is_dash(j.path) ? "standard input" : j.path);
    }
    if (is_dash(given->output) || is_dash(given->report)) {
        return usage_error(
            "compress", "-m BASE -a ADAPTER [-o FILE.slots] TEXT",
            "standard output is for what is told: slots and reports go into files "
            "(./- is one that is called -)");
    }
    icae_status status = read_input(&j, &error);
    if (!status) status = engine_open(&j.engine, given, &error);
    if (!status && given->rate > 0) j.engine.adapter->settings.compression_rate = given->rate;
    signals_catch();
    if (!status) status = compress(&j, &error);
    if (!status && given->report) status = write_report(&j, &error);
    icae_progress_done();
    if (!status) status = icae_slots_save(&j.slots, j.output, &error);
    int code = status ? report_failure(&error) : print_sizes(&j);
    release(&j);
    return code;
}
