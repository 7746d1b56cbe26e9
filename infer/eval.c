/* SPDX-License-Identifier: MIT */
/*
 * icae eval: the suites of icae/evaluate.h on texts from files.
 *
 * Which samples a file gives, always the same ones: a document of a JSON-lines file gives one, its
 * first tokens; a plain text file is one long document and is cut into consecutive pieces. Pieces
 * shorter than 8 tokens are left out. ppl takes documents whole.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "engine.h"
#include "icae/corpus.h"
#include "icae/evaluate.h"
#include "icae/file.h"
#include "icae/log.h"
#include "report.h"

enum {
    LEAST_TOKENS = 8, /* a shorter text says nothing about compression */
    DEFAULT_SAMPLES = 100,
    DEFAULT_CONTINUATION = 128,
    DEFAULT_SKIP = 8,
    DEFAULT_WINDOW = 1024
};

/* ---- samples ---- */

typedef struct samples {
    icae_eval_sample *list;
    int32_t **owned; /* the ids that the list points into, one block a document */
    int64_t n, capacity;
    int64_t n_owned, owned_capacity;
    int64_t passed_over; /* documents that were too short */
} samples;

static void samples_release(samples *s) {
    for (int64_t i = 0; i < s->n_owned; i++)
        free(s->owned[i]);
    free(s->owned);
    free(s->list);
}

static bool grow(void **list, int64_t *capacity, size_t each) {
    int64_t wanted = *capacity ? 2 * *capacity : 64;
    void *grown = realloc(*list, (size_t)wanted * each);
    if (!grown) return false;
    *list = grown;
    *capacity = wanted;
    return true;
}

static icae_status samples_add(samples *s, const int32_t *ids, int64_t n,
                               int64_t n_continuation, icae_error *error) {
    if (s->n == s->capacity && !grow((void **)&s->list, &s->capacity, sizeof *s->list)) {
        return icae_fail_memory(error, "samples");
    }
    s->list[s->n++] = (icae_eval_sample){ids, n, ids + n, n_continuation};
    return ICAE_OK;
}

/* How documents become samples. */
typedef struct cutting {
    int64_t tokens;       /* of a context; 0: documents whole */
    int64_t continuation; /* of what follows; 0: none wanted */
    int64_t least_continuation;
    int64_t most;                         /* samples; 0: all */
    const icae_adapter_settings *adapter; /* NULL: the bare base reads them */
} cutting;

static bool is_full(const samples *s, const cutting *cut) {
    return cut->most > 0 && s->n >= cut->most;
}

static bool is_plain_text(const char *path) {
    const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
    const char *txt = strstr(name, ".txt");
    return txt && (txt[4] == 0 || strcmp(txt + 4, ".gz") == 0);
}

/* Samples from one document's ids, which s owns already. */
static icae_status cut_document(samples *s, const int32_t *ids, int64_t n, bool is_text,
                                const cutting *cut, icae_error *error) {
    int64_t before = s->n;
    icae_status status = ICAE_OK;
    for (int64_t at = 0; at < n && !status && !is_full(s, cut);) {
        int64_t left = n - at;
        int64_t length = cut->tokens > 0 && cut->tokens < left ? cut->tokens : left;
        int64_t follows = left - length;
        if (follows > cut->continuation) follows = cut->continuation;
        if (cut->tokens > 0 && length < LEAST_TOKENS) break;
        if (cut->continuation > 0 && follows < cut->least_continuation) break;
        status = samples_add(s, ids + at, length, follows, error);
        at += length + follows;
        if (!is_text) break;
    }
    if (s->n == before && !is_full(s, cut)) s->passed_over++;
    return status;
}

static icae_status add_document(samples *s, const icae_document *document,
                                const icae_tokenizer *tokenizer, const cutting *cut,
                                icae_error *error) {
    int32_t *ids = NULL;
    size_t n = 0;
    icae_status status = icae_adapter_encode(cut->adapter, tokenizer, document->text,
                                             document->bytes, &ids, &n, error);
    if (status) return status;
    if (s->n_owned == s->owned_capacity &&
        !grow((void **)&s->owned, &s->owned_capacity, sizeof *s->owned)) {
        free(ids);
        return icae_fail_memory(error, "samples");
    }
    s->owned[s->n_owned++] = ids;
    return cut_document(s, ids, (int64_t)n, is_plain_text(document->file), cut, error);
}

static icae_status samples_read(samples *s, const char *path, const icae_tokenizer *tokenizer,
                                const cutting *cut, icae_error *error) {
    icae_corpus *corpus = NULL;
    icae_corpus_options wishes = {.paths = &path, .n_paths = 1, .epochs = 1};
    icae_status status = icae_corpus_open(&corpus, &wishes, error);
    while (!status && !is_full(s, cut)) {
        icae_document document;
        status = icae_corpus_next(corpus, &document, error);
        if (status || !document.text) break;
        status = add_document(s, &document, tokenizer, cut, error);
    }
    if (corpus) icae_corpus_close(corpus);
    if (!status && s->n == 0) {
        status =
            icae_fail(error, ICAE_INVALID, "%s: no text is long enough; %lld were passed over",
                      path, (long long)s->passed_over);
    }
    if (!status && s->passed_over > 0) {
        icae_log_info("%lld texts of %s are too short and were passed over",
                      (long long)s->passed_over, path);
    }
    return status;
}

/* ---- progress, restored texts, results ---- */

typedef struct watcher {
    const icae_model *model;
    const samples *samples;
    const char *suite;
    double start_s;
    icae_text restored; /* JSON lines, when --out wants them */
    bool keeps_restored;
} watcher;

static bool show_progress(void *user, int64_t done, int64_t total) {
    const watcher *w = user;
    double elapsed_s = icae_clock_seconds() - w->start_s;
    icae_progress_show("eval %s  %lld/%lld  %.0f s, %.0f s to go", w->suite, (long long)done,
                       (long long)total, elapsed_s,
                       elapsed_s * (double)(total - done) / (double)done);
    return signal_caught() == 0;
}

static void keep_restored(void *user, int64_t index, const int32_t *ids, int64_t n,
                          bool is_stopped) {
    watcher *w = user;
    if (!w->keeps_restored) return;
    const icae_eval_sample *sample = &w->samples->list[index];
    icae_text text = {0};
    json_object object;
    json_begin(&object);
    icae_tokenizer_decode(w->model->tokenizer, sample->ids, (size_t)sample->n, true, &text,
                          NULL);
    json_string(&object, "original", icae_text_string(&text), text.length);
    icae_text_clear(&text);
    icae_tokenizer_decode(w->model->tokenizer, ids, (size_t)n, true, &text, NULL);
    json_string(&object, "restored", icae_text_string(&text), text.length);
    json_bool(&object, "complete", is_stopped);
    icae_text_printf(&w->restored, "%s}\n", icae_text_string(&object.text));
    w->restored.failed |= object.text.failed || text.failed;
    icae_text_release(&object.text);
    icae_text_release(&text);
}

static icae_status write_into(const char *folder, const char *name, const icae_text *text,
                              icae_error *error) {
    char *path = icae_path_join(folder, name);
    icae_status status = path && !text->failed
                             ? icae_file_write(path, text->data, text->length, error)
                             : icae_fail_memory(error, name);
    free(path);
    return status;
}

static icae_status write_results(const options *given, const json_object *object,
                                 const watcher *w, icae_error *error) {
    if (!given->out_folder) return ICAE_OK;
    icae_status status = icae_folder_make(given->out_folder, error);
    icae_text whole = {0};
    icae_text_printf(&whole, "%s}\n", icae_text_string(&object->text));
    whole.failed |= object->text.failed;
    if (!status) status = write_into(given->out_folder, "results.json", &whole, error);
    icae_text_release(&whole);
    if (!status && w->restored.length) {
        status = write_into(given->out_folder, "restored.jsonl", &w->restored, error);
    }
    return status;
}

/* ---- the suites: each fills the JSON object, and prints its lines when people read ---- */

typedef icae_status suite_function(engine *e, const options *given, const samples *s,
                                   const icae_eval_options *wishes, json_object *object,
                                   icae_error *error);

static icae_status suite_ae(engine *e, const options *given, const samples *s,
                            const icae_eval_options *wishes, json_object *object,
                            icae_error *error) {
    icae_eval_ae_result r;
    icae_status status =
        icae_eval_ae(e->graph, e->model, e->adapter, s->list, s->n, wishes, &r, error);
    if (status) return status;
    json_integer(object, "n", r.n);
    json_integer(object, "context_tokens", r.context_tokens);
    json_integer(object, "slots", r.slots);
    json_integer(object, "targets", r.targets);
    json_number(object, "loss", r.loss);
    json_number(object, "bleu4", r.bleu4);
    json_number(object, "prefix_em", r.prefix_em);
    json_number(object, "token_accuracy", r.token_accuracy);
    json_integer(object, "exact", r.exact);
    if (given->is_json) return ICAE_OK;
    icae_progress_done();
    printf("samples         %lld, %lld tokens in %lld slots\n", (long long)r.n,
           (long long)r.context_tokens, (long long)r.slots);
    printf("loss            %.4f nats a token\n", r.loss);
    printf("BLEU-4          %.2f\n", r.bleu4);
    printf("exact prefix    %.4f of a text\n", r.prefix_em);
    printf("token accuracy  %.4f\n", r.token_accuracy);
    printf("exact texts     %lld\n", (long long)r.exact);
    return ICAE_OK;
}

static icae_status suite_lm(engine *e, const options *given, const samples *s,
                            const icae_eval_options *wishes, json_object *object,
                            icae_error *error) {
    icae_eval_lm_result r;
    icae_status status =
        icae_eval_lm(e->graph, e->model, e->adapter, s->list, s->n, wishes, &r, error);
    if (status) return status;
    double gap = r.loss_none - r.loss_raw;
    json_integer(object, "n", r.n);
    json_integer(object, "context_tokens", r.context_tokens);
    json_integer(object, "targets", r.targets);
    json_number(object, "loss", r.loss_slots);
    json_number(object, "ppl", exp(r.loss_slots));
    json_number(object, "loss_raw", r.loss_raw);
    json_number(object, "ppl_raw", exp(r.loss_raw));
    json_number(object, "loss_none", r.loss_none);
    json_number(object, "ppl_none", exp(r.loss_none));
    json_number(object, "recovered",
                gap > 0 ? (r.loss_none - r.loss_slots) / gap : (double)NAN);
    if (given->is_json) return ICAE_OK;
    icae_progress_done();
    printf("samples          %lld, %lld tokens of context, %lld scored\n", (long long)r.n,
           (long long)r.context_tokens, (long long)r.targets);
    printf("from slots       loss %.4f, perplexity %.3f\n", r.loss_slots, exp(r.loss_slots));
    printf("from the text    loss %.4f, perplexity %.3f\n", r.loss_raw, exp(r.loss_raw));
    printf("from nothing     loss %.4f, perplexity %.3f\n", r.loss_none, exp(r.loss_none));
    if (gap > 0) {
        printf("slots recover    %.1f %% of what the text is worth\n",
               100 * (r.loss_none - r.loss_slots) / gap);
    }
    return ICAE_OK;
}

static icae_status suite_ppl(engine *e, const options *given, const samples *s,
                             const icae_eval_options *wishes, json_object *object,
                             icae_error *error) {
    icae_eval_ppl_result r;
    icae_status status = icae_eval_ppl(e->graph, e->model, s->list, s->n, wishes, &r, error);
    if (status) return status;
    json_integer(object, "n", r.n);
    json_integer(object, "tokens", r.tokens);
    json_number(object, "loss", r.loss);
    json_number(object, "ppl", exp(r.loss));
    json_integer(object, "window", wishes->window);
    json_integer(object, "stride", wishes->stride);
    if (given->is_json) return ICAE_OK;
    icae_progress_done();
    printf("texts       %lld, %lld tokens scored\n", (long long)r.n, (long long)r.tokens);
    printf("loss        %.4f nats a token\n", r.loss);
    printf("perplexity  %.4f\n", exp(r.loss));
    return ICAE_OK;
}

static const struct suite {
    const char *name;
    suite_function *run;
    bool wants_adapter;
} suites[] = {
    {"ae", suite_ae, true},
    {"lm", suite_lm, true},
    {"ppl", suite_ppl, false},
};

static int64_t or_default(int64_t given, int64_t otherwise) {
    return given >= 0 ? given : otherwise;
}

static cutting choose_cutting(const struct suite *suite, const options *given,
                              const engine *e) {
    cutting cut = {.most = or_default(given->samples, DEFAULT_SAMPLES)};
    if (!suite->wants_adapter) {
        cut.most = or_default(given->samples, 0);
        cut.tokens = or_default(given->tokens, 0);
        return cut;
    }
    const icae_adapter_settings *settings = &e->adapter->settings;
    cut.adapter = settings;
    cut.tokens = or_default(given->tokens, settings->memory_slots * settings->compression_rate);
    if (suite->run == suite_lm) {
        cut.continuation = or_default(given->continuation, DEFAULT_CONTINUATION);
        cut.least_continuation = cut.continuation / 2;
        int64_t skip = or_default(given->skip, DEFAULT_SKIP);
        if (cut.least_continuation <= skip) cut.least_continuation = skip + 1;
    }
    return cut;
}

static icae_status evaluate(const struct suite *suite, const options *given, engine *e,
                            json_object *object, icae_error *error) {
    samples s = {0};
    watcher w = {.model = e->model,
                 .samples = &s,
                 .suite = suite->name,
                 .keeps_restored = given->out_folder != NULL};
    int64_t context = e->model->config.context_length;
    int64_t window = context < DEFAULT_WINDOW ? context : DEFAULT_WINDOW;
    window = or_default(given->window, window);
    icae_eval_options wishes = {.batch = or_default(given->batch, 0),
                                .skip = or_default(given->skip, DEFAULT_SKIP),
                                .window = window,
                                .stride = or_default(given->stride, window / 2),
                                .progress = show_progress,
                                .restored = keep_restored,
                                .user = &w};
    cutting cut = choose_cutting(suite, given, e);
    icae_status status = samples_read(&s, given->data, e->model->tokenizer, &cut, error);
    if (!status) {
        json_string(object, "suite", suite->name, strlen(suite->name));
        json_string(object, "data", given->data, strlen(given->data));
        if (suite->wants_adapter) json_integer(object, "tokens_per_context", cut.tokens);
        w.start_s = icae_clock_seconds();
        status = suite->run(e, given, &s, &wishes, object, error);
    }
    if (!status) {
        json_number(object, "seconds", icae_clock_seconds() - w.start_s);
        status = write_results(given, object, &w, error);
    }
    icae_text_release(&w.restored);
    samples_release(&s);
    return status;
}

int run_eval(const options *given) {
    static const char usage[] = "SUITE -m BASE -a ADAPTER --data FILE [--out DIR]";
    const struct suite *suite = NULL;
    for (size_t i = 0; i < sizeof suites / sizeof suites[0]; i++) {
        if (strcmp(given->words[0], suites[i].name) == 0) suite = &suites[i];
    }
    if (!suite) {
        return usage_error("eval", usage, "unknown suite \"%s\"; known: ae, lm, ppl",
                           given->words[0]);
    }
    if (!given->data) return usage_error("eval", usage, "which texts? Give --data FILE");
    if (suite->wants_adapter && !given->adapter) {
        return usage_error("eval", usage,
                           "which adapter? Give -a ADAPTER, or set ICAE_ADAPTER");
    }
    options used = *given;
    if (!suite->wants_adapter) used.adapter = NULL;
    engine e;
    icae_error error = {0};
    json_object object;
    json_begin(&object);
    signals_catch();
    icae_status status = engine_open(&e, &used, &error);
    if (!status) status = evaluate(suite, &used, &e, &object, &error);
    engine_close(&e);
    if (!status) icae_progress_done();
    if (status) {
        icae_text_release(&object.text);
        return report_failure(&error);
    }
    if (given->is_json) return json_end(&object);
    icae_text_release(&object.text);
    return finish_output();
}
