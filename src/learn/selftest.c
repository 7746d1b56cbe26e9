/* SPDX-License-Identifier: MIT */
/*
 * Golden folders; see icae/selftest.h. What is in one:
 *
 *     expected.json         base {ids, nll}; samples [{context, continuation, prefix, prompt, answer,
 *                           spans, ae, lm, ft: {sum, n}}]; ae_loss, lm_loss, ft_loss; adamw; tokenizer
 *     expected.safetensors  base.logits (its last rows), {i}.slots, {task}.grad.{parameter},
 *                           adamw.{parameter}
 *
 * The loss whose gradients are kept is the mean over all targets of all samples of one task. Targets: AE
 * the context and eos, LM the continuation without its first 8, FT the answer and eos.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "icae/evaluate.h"
#include "icae/file.h"
#include "learn/selftest_internal.h"

enum { SKIP_FOR_LM = 8 };

double icae_check_limit_loss(void) {
    return ICAE_REAL_IS_DOUBLE ? 1e-9 : 1e-5;
}

double icae_check_limit_tensor(void) {
    return ICAE_REAL_IS_DOUBLE ? 1e-7 : 2e-4;
}

void icae_check_report(icae_checks *checks, const char *name, double error, double limit,
                       const char *note) {
    icae_check check = {.subject = checks->subject,
                        .name = name,
                        .error = error,
                        .limit = limit,
                        .is_ok = error <= limit, /* false for a NaN */
                        .note = note};
    checks->n++;
    if (!check.is_ok) checks->n_failed++;
    if (checks->callback) checks->callback(checks->user, &check);
}

double icae_golden_relative(double got, double expected) {
    double scale = fabs(expected);
    return scale > 0 ? fabs(got - expected) / scale : fabs(got);
}

/* Largest difference over the largest expected entry; a NaN anywhere comes out as NaN. */
double icae_golden_compare(const icae_real *got, const icae_real *expected, int64_t n) {
    double largest = 0, difference = 0;
    for (int64_t i = 0; i < n; i++) {
        double d = fabs((double)got[i] - (double)expected[i]);
        if (isnan(d)) return (double)NAN;
        if (d > difference) difference = d;
        if (fabs((double)expected[i]) > largest) largest = fabs((double)expected[i]);
    }
    return largest > 0 ? difference / largest : difference;
}

/* ---- reading expected.json ---- */

icae_status icae_golden_broken(golden *g, const char *what) {
    return icae_fail(g->error, ICAE_FORMAT, "%s: %s is missing or not what it should be",
                     icae_json_name(g->json), what);
}

static icae_status read_ids(golden *g, const icae_json_value *value, const char *what,
                            int64_t extra, ids *out) {
    if (!icae_json_is_array(value)) return icae_golden_broken(g, what);
    size_t count = icae_json_count(value);
    out->list = icae_arena_array(&g->arena, count + (size_t)extra, sizeof *out->list);
    if (!out->list) return icae_fail_memory(g->error, "token ids");
    out->n = 0;
    for (const icae_json_value *v = icae_json_first(value); v; v = icae_json_next(v)) {
        int64_t id;
        if (!icae_json_as_integer(v, &id) || id < 0 || id >= g->model->config.vocabulary) {
            return icae_golden_broken(g, what);
        }
        out->list[out->n++] = (int32_t)id;
    }
    return ICAE_OK;
}

icae_status icae_golden_number(golden *g, const icae_json_value *object, const char *key,
                               double *out) {
    return icae_json_as_number(icae_json_member(object, key), out) ? ICAE_OK
                                                                   : icae_golden_broken(g, key);
}

static icae_status read_sample(golden *g, const icae_json_value *value, sample *s) {
    static const struct {
        const char *key;
        size_t place;
        bool ends;
    } lists[] = {
        {"context", offsetof(sample, context), false},
        {"prefix", offsetof(sample, prefix), false},
        {"prompt", offsetof(sample, prompt), false},
        {"context", offsetof(sample, target[ICAE_TASK_AE]), true},
        {"continuation", offsetof(sample, target[ICAE_TASK_LM]), false},
        {"answer", offsetof(sample, target[ICAE_TASK_FT]), true},
    };
    int32_t eos = icae_tokenizer_eos(g->model->tokenizer);
    if (eos < 0) {
        return icae_fail(g->error, ICAE_MISMATCH, "%s: its tokenizer has no end token",
                         g->model->path);
    }
    for (size_t i = 0; i < sizeof lists / sizeof lists[0]; i++) {
        ids *list = (ids *)(void *)((char *)s + lists[i].place);
        icae_status status =
            read_ids(g, icae_json_member(value, lists[i].key), lists[i].key, 1, list);
        if (status) return status;
        if (lists[i].ends) list->list[list->n++] = eos;
    }
    for (int t = 0; t < ICAE_TASK_COUNT; t++) {
        const icae_json_value *loss = icae_json_member(value, icae_task_names[t]);
        icae_status status = icae_golden_number(g, loss, "sum", &s->sum[t]);
        if (status) return status;
        if (!icae_json_as_integer(icae_json_member(loss, "n"), &s->n[t]) || s->n[t] < 1)
            return icae_golden_broken(g, "n of a loss");
    }
    s->n_spans = (int64_t)icae_json_count(icae_json_member(value, "spans"));
    if (s->context.n < 1 || s->n_spans < 1) return icae_golden_broken(g, "context or spans");
    return ICAE_OK;
}

static icae_status read_samples(golden *g) {
    const icae_json_value *list = icae_json_member(icae_json_root(g->json), "samples");
    size_t count = icae_json_count(list);
    if (!icae_json_is_array(list) || count == 0) return icae_golden_broken(g, "samples");
    g->samples = icae_arena_array(&g->arena, count, sizeof *g->samples);
    if (!g->samples) return icae_fail_memory(g->error, "samples");
    for (const icae_json_value *v = icae_json_first(list); v; v = icae_json_next(v)) {
        icae_status status = read_sample(g, v, &g->samples[g->n_samples++]);
        if (status) return status;
    }
    return ICAE_OK;
}

/* A tensor of expected.safetensors, widened; its shape in *rows and *cols (1 when of rank 1). */
static icae_status read_tensor(golden *g, const char *name, const icae_real **values,
                               int64_t *rows, int64_t *cols) {
    const icae_safetensors_entry *entry = icae_safetensors_find(&g->tensors, name);
    if (!entry || entry->rank < 1 || entry->rank > 2) {
        return icae_fail(g->error, ICAE_FORMAT, "%s: expected a matrix %s",
                         g->tensors.mapping.path, name);
    }
    *rows = entry->shape[0];
    *cols = entry->rank == 2 ? entry->shape[1] : 1;
    icae_real *wide = icae_arena_array(&g->arena, (size_t)(*rows * *cols), sizeof *wide);
    if (!wide) return icae_fail_memory(g->error, "expected numbers");
    icae_dtype_widen(entry->dtype, entry->data, *rows * *cols, wide);
    *values = wide;
    return ICAE_OK;
}

/* ---- the checks ---- */

static icae_status check_tokenizer(golden *g) {
    const icae_tokenizer *tokenizer = g->model->tokenizer;
    const icae_json_value *list = icae_json_member(icae_json_root(g->json), "tokenizer");
    if (!icae_json_is_array(list)) return icae_golden_broken(g, "tokenizer");
    int64_t wrong_ids = 0, wrong_texts = 0, number = 0;
    char note[64] = "";
    for (const icae_json_value *v = icae_json_first(list); v; v = icae_json_next(v), number++) {
        const char *text, *decoded;
        size_t text_bytes, decoded_bytes;
        ids expected;
        if (!icae_json_as_bytes(icae_json_member(v, "text"), &text, &text_bytes) ||
            !icae_json_as_bytes(icae_json_member(v, "decoded"), &decoded, &decoded_bytes)) {
            return icae_golden_broken(g, "a text of tokenizer");
        }
        icae_status status =
            read_ids(g, icae_json_member(v, "ids"), "ids of tokenizer", 1, &expected);
        if (status) return status;
        int32_t *made = NULL;
        size_t n = 0;
        status = icae_tokenizer_encode(tokenizer, text, text_bytes, true, &made, &n, g->error);
        if (status) return status;
        bool is_same = n == (size_t)expected.n &&
                       (n == 0 || memcmp(made, expected.list, n * sizeof *made) == 0);
        free(made);
        icae_text back = {0};
        status = icae_tokenizer_decode(tokenizer, expected.list, (size_t)expected.n, false,
                                       &back, g->error);
        bool is_back = back.length == decoded_bytes &&
                       memcmp(icae_text_string(&back), decoded, decoded_bytes) == 0;
        icae_text_release(&back);
        if (status) return status;
        if ((!is_same || !is_back) && wrong_ids + wrong_texts == 0)
            snprintf(note, sizeof note, "text %lld", (long long)number);
        wrong_ids += !is_same;
        wrong_texts += !is_back;
    }
    icae_check_report(g->checks, "tokenizer.ids", (double)wrong_ids, 0, note);
    icae_check_report(g->checks, "tokenizer.decoded", (double)wrong_texts, 0, note);
    return ICAE_OK;
}

/* The base's logits on the last `rows` tokens, [rows, V]. */
static icae_status base_logits(golden *g, const ids *text, int64_t rows, icae_real *out) {
    icae_graph_begin(g->graph, false, false);
    size_t n = (size_t)text->n;
    int64_t starts[2] = {0, text->n};
    int32_t *positions = icae_graph_arena(g->graph, n * sizeof *positions);
    int32_t *last = icae_graph_arena(g->graph, (size_t)rows * sizeof *last);
    if (!positions || !last) return icae_graph_status(g->graph, g->error);
    for (int64_t i = 0; i < text->n; i++)
        positions[i] = (int32_t)i;
    for (int64_t i = 0; i < rows; i++)
        last[i] = (int32_t)(text->n - rows + i);
    icae_pack pack = {1, text->n, starts, positions, NULL};
    icae_forward options = {.pack = &pack};
    icae_tensor *x = icae_model_inputs(g->graph, g->model, 0, NULL, text->n, NULL, text->list);
    icae_tensor *h = icae_model_forward(g->graph, g->model, x, &options);
    icae_tensor *picked = h ? icae_rows(g->graph, 1, &h, rows, NULL, last) : NULL;
    icae_tensor *logits = icae_linear(g->graph, picked, &g->model->head, NULL, NULL, NULL);
    if (logits) icae_tensor_read(g->graph, logits, out);
    return icae_graph_status(g->graph, g->error);
}

static icae_status check_logits(golden *g, const ids *text) {
    const icae_real *expected;
    int64_t rows, V;
    icae_status status = read_tensor(g, "base.logits", &expected, &rows, &V);
    if (status) return status;
    if (V != g->model->config.vocabulary || rows < 1 || rows > text->n) {
        return icae_fail(g->error, ICAE_MISMATCH,
                         "%s: base.logits is [%lld, %lld] for %lld tokens of a vocabulary of "
                         "%lld; the base is another one",
                         g->tensors.mapping.path, (long long)rows, (long long)V,
                         (long long)text->n, (long long)g->model->config.vocabulary);
    }
    icae_real *made = icae_arena_array(&g->arena, (size_t)(rows * V), sizeof *made);
    if (!made) return icae_fail_memory(g->error, "logits");
    status = base_logits(g, text, rows, made);
    if (status) return status;
    icae_check_report(g->checks, "base.logits", icae_golden_compare(made, expected, rows * V),
                      icae_check_limit_tensor(), "");
    return ICAE_OK;
}

static icae_status check_base(golden *g) {
    const icae_json_value *base = icae_json_member(icae_json_root(g->json), "base");
    ids text;
    icae_status status = read_ids(g, icae_json_member(base, "ids"), "base.ids", 1, &text);
    if (status) return status;
    const icae_json_value *list = icae_json_member(base, "nll");
    if (text.n < 2 || (int64_t)icae_json_count(list) != text.n - 1)
        return icae_golden_broken(g, "base.nll");
    status = check_logits(g, &text);
    if (status) return status;
    icae_real *expected = icae_arena_array(&g->arena, (size_t)text.n, sizeof *expected);
    icae_real *made = icae_arena_array(&g->arena, (size_t)text.n, sizeof *made);
    if (!expected || !made) return icae_fail_memory(g->error, "losses");
    double expected_sum = 0, sum = 0;
    int64_t at = 0;
    for (const icae_json_value *v = icae_json_first(list); v; v = icae_json_next(v), at++) {
        double number;
        if (!icae_json_as_number(v, &number)) return icae_golden_broken(g, "base.nll");
        expected[at] = (icae_real)number;
        expected_sum += number;
    }
    icae_eval_sequence sequence = {text.list, text.n, 1};
    status = icae_eval_base_nll(g->graph, g->model, &sequence, 1, &sum, made, g->error);
    if (status) return status;
    icae_check_report(g->checks, "base.nll", icae_golden_compare(made, expected, at),
                      icae_check_limit_loss(), "each token's");
    icae_check_report(g->checks, "base.nll sum", icae_golden_relative(sum, expected_sum),
                      icae_check_limit_loss(), "");
    return ICAE_OK;
}

static icae_status check_slots(golden *g) {
    int64_t k = g->adapter->settings.memory_slots, D = g->model->config.width;
    for (int64_t i = 0; i < g->n_samples; i++) {
        const sample *s = &g->samples[i];
        char name[64];
        snprintf(name, sizeof name, "%lld.slots", (long long)i);
        const icae_real *expected;
        int64_t rows, cols;
        icae_status status = read_tensor(g, name, &expected, &rows, &cols);
        if (status) return status;
        int64_t spans = icae_span_count(s->context.n, k, g->adapter->settings.compression_rate);
        if (rows != s->n_spans * k || cols != D || spans != s->n_spans) {
            return icae_fail(g->error, ICAE_MISMATCH,
                             "%s: %s is [%lld, %lld], the adapter would make [%lld, %lld]",
                             g->tensors.mapping.path, name, (long long)rows, (long long)cols,
                             (long long)(spans * k), (long long)D);
        }
        icae_real *made = icae_arena_array(&g->arena, (size_t)(rows * cols), sizeof *made);
        if (!made) return icae_fail_memory(g->error, "slots");
        icae_graph_begin(g->graph, false, false);
        icae_context context = {s->context.list, s->context.n, (uint64_t)i};
        int64_t firsts[2];
        icae_run run = {0};
        icae_tensor *slots =
            icae_encode(g->graph, g->model, g->adapter, &context, 1, &run, firsts);
        if (slots) icae_tensor_read(g->graph, slots, made);
        status = icae_graph_status(g->graph, g->error);
        if (status) return status;
        icae_check_report(g->checks, name, icae_golden_compare(made, expected, rows * cols),
                          icae_check_limit_tensor(), "");
    }
    return ICAE_OK;
}

/* ---- losses and gradients ---- */

int64_t icae_golden_targets(const golden *g, int task) {
    int64_t total = 0;
    for (int64_t i = 0; i < g->n_samples; i++)
        total += g->samples[i].n[task];
    return total;
}

/* All samples as contexts, and for each of the tasks asked for a job: weight over the number of all its
 * targets is every target's coefficient. Arrays live in the graph's arena. */
static bool make_batch(golden *g, const double weight[ICAE_TASK_COUNT], icae_batch *batch) {
    size_t n = (size_t)g->n_samples;
    icae_context *contexts = icae_graph_arena(g->graph, n * sizeof *contexts);
    icae_job *jobs = icae_graph_arena(g->graph, ICAE_TASK_COUNT * n * sizeof *jobs);
    if (!contexts || !jobs) return false;
    *batch = (icae_batch){contexts, g->n_samples, jobs, 0};
    for (int64_t i = 0; i < g->n_samples; i++) {
        const sample *s = &g->samples[i];
        contexts[i] = (icae_context){s->context.list, s->context.n, (uint64_t)i};
    }
    for (int t = 0; t < ICAE_TASK_COUNT; t++) {
        if (!(weight[t] > 0)) continue;
        for (int64_t i = 0; i < g->n_samples; i++) {
            const sample *s = &g->samples[i];
            bool has_question = t == ICAE_TASK_FT;
            jobs[batch->n_jobs++] =
                (icae_job){.context = i,
                           .task = (icae_task)t,
                           .prefix = s->prefix.list,
                           .n_prefix = has_question ? s->prefix.n : 0,
                           .prompt = s->prompt.list,
                           .n_prompt = has_question ? s->prompt.n : 0,
                           .target = s->target[t].list,
                           .n_target = s->target[t].n,
                           .skip = t == ICAE_TASK_LM ? SKIP_FOR_LM : 0,
                           .coef = (icae_real)(weight[t] / (double)icae_golden_targets(g, t))};
        }
    }
    return true;
}

/* Runs forward and backward; sums [jobs] receives every job's loss. */
icae_status icae_golden_gradients(golden *g, const double weight[ICAE_TASK_COUNT],
                                  double *sums) {
    icae_params_zero_gradients(&g->adapter->params);
    icae_graph_begin(g->graph, true, false);
    icae_batch batch;
    if (!make_batch(g, weight, &batch)) return icae_graph_status(g->graph, g->error);
    icae_run run = {0};
    icae_tensor *loss =
        icae_batch_loss(g->graph, g->model, g->adapter, &batch, &run, sums, NULL);
    icae_status status = icae_graph_status(g->graph, g->error);
    return status ? status : icae_graph_backward(g->graph, loss, g->error);
}

/* The folder's name of a parameter. */
static const char *short_name(const golden *g, const icae_param *param) {
    return param->tensor.data == g->adapter->memory->data ? "memory_token_embed" : param->name;
}

/* Every trained parameter's values or gradient against `{prefix}{parameter}`: one check. */
icae_status icae_golden_parameters(golden *g, const char *check, const char *prefix,
                                   const icae_real *block, double limit) {
    icae_params *params = &g->adapter->params;
    double worst = 0;
    char note[160] = "";
    icae_real *made = icae_arena_array(&g->arena, (size_t)params->count, sizeof *made);
    if (!made) return icae_fail_memory(g->error, "gradients");
    params->be->k.copy_out(params->be, made, block, (size_t)params->count * sizeof *made);
    for (int p = 0; p < params->n_params; p++) {
        const icae_param *param = &params->list[p];
        char name[192];
        snprintf(name, sizeof name, "%s%s", prefix, short_name(g, param));
        const icae_real *expected;
        int64_t rows, cols;
        icae_status status = read_tensor(g, name, &expected, &rows, &cols);
        if (status) return status;
        if (rows * cols != param->count) {
            return icae_fail(g->error, ICAE_MISMATCH, "%s: %s has %lld numbers, not %lld",
                             g->tensors.mapping.path, name, (long long)(rows * cols),
                             (long long)param->count);
        }
        double error = icae_golden_compare(made + param->offset, expected, param->count);
        if (!(error <= worst)) {
            worst = error;
            snprintf(note, sizeof note, "%s", short_name(g, param));
            if (isnan(error)) break;
        }
    }
    icae_check_report(g->checks, check, worst, limit, note);
    return ICAE_OK;
}

static icae_status check_task(golden *g, int task) {
    const char *task_name = icae_task_names[task];
    double weight[ICAE_TASK_COUNT] = {0}, total = 0, expected_mean, worst = 0;
    weight[task] = 1;
    char key[64], prefix[64], note[64] = "";
    snprintf(key, sizeof key, "%s_loss", task_name);
    double *sums = icae_arena_array(&g->arena, (size_t)g->n_samples, sizeof *sums);
    if (!sums) return icae_fail_memory(g->error, "losses");
    icae_status status = icae_golden_number(g, icae_json_root(g->json), key, &expected_mean);
    if (!status) status = icae_golden_gradients(g, weight, sums);
    if (status) return status;
    for (int64_t i = 0; i < g->n_samples; i++) {
        const sample *s = &g->samples[i];
        int64_t bearing = s->target[task].n - (task == ICAE_TASK_LM ? SKIP_FOR_LM : 0);
        double error = icae_golden_relative(sums[i], s->sum[task]);
        if (bearing != s->n[task])
            return icae_golden_broken(g, "the number of targets of a sample");
        if (!(error <= worst)) {
            worst = error;
            snprintf(note, sizeof note, "sample %lld", (long long)i);
        }
        total += sums[i];
    }
    char check[64];
    snprintf(check, sizeof check, "%s.samples", task_name);
    icae_check_report(g->checks, check, worst, icae_check_limit_loss(), note);
    double mean = total / (double)icae_golden_targets(g, task);
    icae_check_report(g->checks, key, icae_golden_relative(mean, expected_mean),
                      icae_check_limit_loss(), "");
    snprintf(prefix, sizeof prefix, "%s.grad.", task_name);
    snprintf(check, sizeof check, "%s.gradients", task_name);
    char probe[96];
    snprintf(probe, sizeof probe, "%smemory_token_embed", prefix);
    if (!icae_safetensors_find(&g->tensors, probe)) return ICAE_OK; /* kept for AE only */
    return icae_golden_parameters(g, check, prefix, g->adapter->params.gradients,
                                  icae_check_limit_tensor());
}

/* ---- all of it ---- */

static icae_status open_parts(golden *g, const char *base, icae_backend *be) {
    char *model = icae_path_join(g->folder, "model");
    char *adapter = icae_path_join(g->folder, "adapter");
    char *json = icae_path_join(g->folder, "expected.json");
    char *tensors = icae_path_join(g->folder, "expected.safetensors");
    icae_status status = model && adapter && json && tensors
                             ? ICAE_OK
                             : icae_fail_memory(g->error, "file names");
    if (!status && !icae_path_is_folder(model) && !base) {
        status = icae_fail(g->error, ICAE_INVALID,
                           "%s has no model/ of its own: give the base it was made with by -m",
                           g->folder);
    }
    if (!status) status = icae_json_open(&g->json, json, g->error);
    if (!status) status = icae_safetensors_open(&g->tensors, tensors, g->error);
    if (!status) {
        status =
            icae_model_open(&g->model, icae_path_is_folder(model) ? model : base, g->error);
    }
    if (!status) {
        status = icae_adapter_load(&g->adapter, adapter, g->model, be, true, g->error);
    }
    if (!status) status = icae_graph_create(&g->graph, be, g->error);
    free(model);
    free(adapter);
    free(json);
    free(tensors);
    return status;
}

icae_status icae_selftest_golden(icae_checks *checks, const char *folder, const char *base,
                                 icae_backend *be, icae_error *error) {
    golden g = {.checks = checks, .folder = folder, .error = error};
    checks->subject = folder;
    icae_error own = {0};
    if (!error) g.error = &own;
    icae_status status = open_parts(&g, base, be);
    if (!status) status = check_tokenizer(&g);
    if (!status) status = read_samples(&g);
    if (!status) status = check_base(&g);
    if (!status) status = check_slots(&g);
    for (int task = 0; task < ICAE_TASK_COUNT && !status; task++)
        status = check_task(&g, task);
    if (!status) status = icae_golden_adamw(&g);
    if (g.graph) icae_graph_free(g.graph);
    if (g.adapter) icae_adapter_free(g.adapter);
    if (g.model) icae_model_close(g.model);
    icae_safetensors_close(&g.tensors);
    icae_json_free(g.json);
    icae_arena_release(&g.arena);
    return status;
}
