/* SPDX-License-Identifier: MIT */
/*
 * The whole benchmark as tables and pictures: icae bench --out DIR, or --quick for the same from less work.
 *
 *     bench.md            all tables; the same text goes to standard output
 *     bench.json          the same numbers
 *     bench-shares.svg    what a training step's time goes to, by operation, forward and backward
 *     bench-length.svg, bench-batch.svg, bench-rank.svg, bench-threads.svg
 *                         how cost grows with one of them, the others fixed
 *
 * What is measured for it, and how, stands in bench_measure.c.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench_train.h"
#include "icae/file.h"
#include "icae/json.h"
#include "icae/log.h"
#include "icae/plot.h"
#include "report.h"

static const struct {
    const char *name, *title, *x;
} sweeps[SWEEP_COUNT] = {
    {"length", "Cost by length of the texts", "tokens of a text"},
    {"batch", "Cost by size of the batch", "texts in a batch"},
    {"rank", "Cost by LoRA rank", "rank"},
    {"threads", "Cost by threads", "threads"},
};

/* ---- bench.md ---- */

static double percent(double part, double whole) {
    return whole > 0 ? 100 * part / whole : 0;
}

static void processor_name(char *out, size_t bytes) {
    snprintf(out, bytes, "unknown processor");
    FILE *file = fopen("/proc/cpuinfo", "r");
    char line[256];
    while (file && fgets(line, sizeof line, file)) {
        char *colon = strchr(line, ':');
        if (strncmp(line, "model name", 10) != 0 || !colon) continue;
        line[strcspn(line, "\n")] = 0;
        snprintf(out, bytes, "%s", colon + 2);
        break;
    }
    if (file) fclose(file);
}

static void write_heads(icae_text *md, const engine *e, const options *given,
                        const report_figures *r) {
    char processor[256];
    processor_name(processor, sizeof processor);
    icae_text_printf(md,
                     "# Benchmark\n\n%s, %d thread%s, %s kernels; base %s. Made by `icae bench "
                     "%s` in %.0f s.\n\n## Ceilings\n\n| | |\n| --- | --- |\n",
                     processor, e->be->n_threads, e->be->n_threads == 1 ? "" : "s", e->be->name,
                     given->base, given->is_quick ? "--quick" : "--out DIR", r->seconds);
    icae_text_printf(md, "| multiply-adds of floats on registers | %.0f GFLOP/s |\n",
                     r->peak.fma_gflops);
    icae_text_printf(md, "| OpenBLAS sgemm, 1024 x 1024, kernels %s | %.0f GFLOP/s |\n",
                     icae_cpu_sgemm_core(), r->peak.sgemm_gflops);
    if (r->peak.bf16_gflops > 0)
        icae_text_printf(md, "| products of bfloat16 on registers | %.0f GFLOP/s |\n",
                         r->peak.bf16_gflops);
    icae_text_printf(md, "| reading memory | %.1f GB/s |\n", r->peak.read_gb_s);
}

static void write_training_table(icae_text *md, const report_figures *r) {
    const training_figures *first = &r->training[0];
    icae_text_printf(
        md,
        "\n## Training\n\n%lld texts, %lld tokens a step -> slots, LoRA rank %d on "
        "q and v, autoencoding, %.0f GFLOP of useful work.\n\n"
        "| compute | a step | fastest | context tokens/s | useful GFLOP/s | of sgemm's best "
        "| of its mean between steps | of bf16 | tensors |\n"
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |\n",
        (long long)first->texts, (long long)first->context_tokens, BENCH_RANK, first->gflop);
    for (int i = 0; i < r->n_types; i++) {
        const training_figures *t = &r->training[i];
        char bytes[32], of_bf16[32] = "";
        if (r->peak.bf16_gflops > 0)
            snprintf(of_bf16, sizeof of_bf16, "%.1f %%",
                     percent(t->gflops, r->peak.bf16_gflops));
        icae_text_printf(
            md, "| %s | %.2f s | %.2f s | %.1f | %.1f | %.1f %% | %.1f %% | %s | %s |\n",
            icae_compute_names[r->types[i]], t->round_s, t->best_round_s, t->context_tokens_s,
            t->gflops, percent(t->gflops, r->peak.sgemm_gflops),
            percent(t->gflops, t->sgemm_mean), of_bf16, human_bytes(t->tensor_bytes, bytes));
    }
    char bytes[32];
    icae_text_printf(md, "\nPeak memory of the process after the first: %s.\n",
                     human_bytes(first->peak_rss_bytes, bytes));
}

/* What is no operation's: clipping, AdamW, making the batch. */
static double rest_of(const training_figures *t) {
    double rest = t->all_rounds_s;
    for (int op = 0; op < ICAE_OP_COUNT; op++)
        rest -= t->profile.forward_s[op] + t->profile.backward_s[op];
    return rest > 0 ? rest : 0;
}

static double op_seconds(const training_figures *t, int op) {
    return t->profile.forward_s[op] + t->profile.backward_s[op];
}

/* Operations of half a per cent or more, the largest first; returns how many. */
static int rank_ops(const training_figures *t, int order[ICAE_OP_COUNT]) {
    int n = 0;
    for (int op = 0; op < ICAE_OP_COUNT; op++) {
        if (percent(op_seconds(t, op), t->all_rounds_s) < 0.5) continue;
        int at = n++;
        for (; at > 0 && op_seconds(t, order[at - 1]) < op_seconds(t, op); at--)
            order[at] = order[at - 1];
        order[at] = op;
    }
    return n;
}

static void write_shares_table(icae_text *md, const report_figures *r) {
    icae_text_append_string(md,
                            "\n## Where a step's time goes\n\n![shares](bench-shares.svg)\n\n"
                            "| operation | compute | forward | backward | together |\n"
                            "| --- | --- | --- | --- | --- |\n");
    for (int i = 0; i < r->n_types; i++) {
        const training_figures *t = &r->training[i];
        const char *type = icae_compute_names[r->types[i]];
        int order[ICAE_OP_COUNT], n = rank_ops(t, order);
        for (int k = 0; k < n; k++) {
            double forward = t->profile.forward_s[order[k]];
            double backward = t->profile.backward_s[order[k]];
            icae_text_printf(md, "| %s | %s | %.1f %% | %.1f %% | %.1f %% |\n",
                             icae_op_names[order[k]], type, percent(forward, t->all_rounds_s),
                             percent(backward, t->all_rounds_s),
                             percent(forward + backward, t->all_rounds_s));
        }
        icae_text_printf(md, "| clipping, AdamW, the rest | %s | | | %.1f %% |\n", type,
                         percent(rest_of(t), t->all_rounds_s));
    }
}

static void write_generation_table(icae_text *md, const engine *e, const report_figures *r) {
    double gb = 1e-9 * (double)e->model->weight_bytes;
    icae_text_append_string(md,
                            "\n## Reading and writing, tokens a second\n\n"
                            "| compute | prefill | decode, one sequence | eight side by side "
                            "| weights read in decode |\n"
                            "| --- | --- | --- | --- | --- |\n");
    for (int i = 0; i < r->n_types; i++) {
        const generation_figures *g = &r->generation[i];
        icae_text_printf(md, "| %s | %.1f | %.1f | %.1f | %.1f GB/s (%.0f %% of reading) |\n",
                         icae_compute_names[r->types[i]], g->prefill_tokens_s,
                         g->decode_tokens_s, g->abreast_tokens_s, gb * g->decode_tokens_s,
                         percent(gb * g->decode_tokens_s, r->peak.read_gb_s));
    }
}

static double cost_ms(const sweep_point *p) {
    return 1e3 * p->training.best_round_s / (double)p->training.context_tokens;
}

static void write_sweep_table(icae_text *md, const report_figures *r, sweep_kind kind) {
    icae_text_printf(md, "\n### %s\n\n![%s](bench-%s.svg)\n\n| %s |", sweeps[kind].title,
                     sweeps[kind].title, sweeps[kind].name, sweeps[kind].x);
    for (int type = 0; type < r->n_types; type++)
        icae_text_printf(md, " %s ms a token | GFLOP/s | tensors |",
                         icae_compute_names[r->types[type]]);
    icae_text_append_string(md, "\n| --- |");
    for (int type = 0; type < r->n_types; type++)
        icae_text_append_string(md, " --- | --- | --- |");
    for (int i = 0; i < r->n_points[kind]; i++) {
        icae_text_printf(md, "\n| %.0f |", r->points[kind][0][i].x);
        for (int type = 0; type < r->n_types; type++) {
            const sweep_point *p = &r->points[kind][type][i];
            char bytes[32];
            icae_text_printf(md, " %.2f | %.1f | %s |", cost_ms(p),
                             p->training.gflop / p->training.best_round_s,
                             human_bytes(p->training.tensor_bytes, bytes));
        }
    }
    icae_text_append_char(md, '\n');
}

static void write_markdown(icae_text *md, const engine *e, const options *given,
                           const report_figures *r) {
    write_heads(md, e, given, r);
    write_training_table(md, r);
    write_shares_table(md, r);
    write_generation_table(md, e, r);
    icae_text_printf(
        md,
        "\n## How cost grows\n\nMilliseconds a context token of a training step. By "
        "length: texts of %lld tokens in all; else %lld of %lld tokens.\n",
        (long long)r->extent->length_tokens, (long long)r->extent->n_texts,
        (long long)r->extent->text_tokens);
    for (int kind = 0; kind < SWEEP_COUNT; kind++)
        write_sweep_table(md, r, (sweep_kind)kind);
}

/* ---- bench.json ---- */

static void put(icae_text *out, const char *key, double value) {
    char last = out->length ? out->data[out->length - 1] : '{';
    icae_text_printf(out, "%s\"%s\": ", last == '{' ? "" : ", ", key);
    icae_json_write_number(out, value);
}

static void put_training(icae_text *out, const training_figures *t) {
    put(out, "texts", (double)t->texts);
    put(out, "context_tokens", (double)t->context_tokens);
    put(out, "step_seconds", t->round_s);
    put(out, "best_step_seconds", t->best_round_s);
    put(out, "gflop", t->gflop);
    put(out, "gflops", t->gflops);
    put(out, "tensor_bytes", t->tensor_bytes);
    put(out, "peak_rss_bytes", t->peak_rss_bytes);
    put(out, "all_steps_seconds", t->all_rounds_s);
    put(out, "sgemm_gflops_between_steps", t->sgemm_mean);
    for (int op = 0; op < ICAE_OP_COUNT; op++) {
        char key[64];
        snprintf(key, sizeof key, "%s_forward_seconds", icae_op_names[op]);
        put(out, key, t->profile.forward_s[op]);
        snprintf(key, sizeof key, "%s_backward_seconds", icae_op_names[op]);
        put(out, key, t->profile.backward_s[op]);
    }
}

static void write_json(icae_text *out, const engine *e, const report_figures *r) {
    char processor[256];
    processor_name(processor, sizeof processor);
    icae_text_append_string(out, "{\"processor\": ");
    icae_json_write_string(out, processor, strlen(processor));
    icae_text_printf(out, ", \"cpu_level\": \"%s\", \"sgemm_core\": \"%s\"", e->be->name,
                     icae_cpu_sgemm_core());
    put(out, "threads", e->be->n_threads);
    put(out, "seconds", r->seconds);
    put(out, "fma_gflops", r->peak.fma_gflops);
    put(out, "sgemm_gflops", r->peak.sgemm_gflops);
    put(out, "bf16_gflops", r->peak.bf16_gflops);
    put(out, "memory_read_gb_s", r->peak.read_gb_s);
    for (int i = 0; i < r->n_types; i++) {
        icae_text_printf(out, ", \"%s\": {", icae_compute_names[r->types[i]]);
        put(out, "prefill_tokens_per_second", r->generation[i].prefill_tokens_s);
        put(out, "decode_tokens_per_second", r->generation[i].decode_tokens_s);
        put(out, "decode_8_abreast_tokens_per_second", r->generation[i].abreast_tokens_s);
        put_training(out, &r->training[i]);
        for (int kind = 0; kind < SWEEP_COUNT; kind++) {
            icae_text_printf(out, ", \"by_%s\": [", sweeps[kind].name);
            for (int k = 0; k < r->n_points[kind]; k++) {
                const sweep_point *p = &r->points[kind][i][k];
                icae_text_append_string(out, k ? ", {" : "{");
                put(out, sweeps[kind].name, p->x);
                put_training(out, &p->training);
                icae_text_append_char(out, '}');
            }
            icae_text_append_char(out, ']');
        }
        icae_text_append_char(out, '}');
    }
    icae_text_append_string(out, "}\n");
}

/* ---- pictures ---- */

/* Bars, an operation a row and a type of training a block: forward dark, backward light. */
static void draw_shares(icae_text *svg, const report_figures *r) {
    enum { LEFT = 220, WIDTH = 960, ROW = 26, TOP = 74, BAR = 600 };
    static const char *const colors[2][2] = {{"#0072b2", "#8fc3e3"}, {"#d55e00", "#f2b48a"}};
    int height = TOP, order[ICAE_OP_COUNT];
    for (int i = 0; i < r->n_types; i++)
        height += ROW * (rank_ops(&r->training[i], order) + 3);
    icae_text_printf(svg,
                     "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %d %d\" "
                     "width=\"%d\" height=\"%d\" font-family=\"system-ui, 'DejaVu Sans', "
                     "sans-serif\" font-size=\"14\" fill=\"#1f2937\">\n"
                     "<rect width=\"100%%\" height=\"100%%\" fill=\"#ffffff\"/>\n"
                     "<text x=\"30\" y=\"34\" font-size=\"20\" font-weight=\"600\">Where a "
                     "training step's time goes</text>\n"
                     "<text x=\"30\" y=\"57\" fill=\"#6b7280\">dark: forward, light: backward; "
                     "per cent of the step</text>\n",
                     WIDTH, height, WIDTH, height);
    int y = TOP;
    for (int i = 0; i < r->n_types; i++) {
        const training_figures *t = &r->training[i];
        int n = rank_ops(t, order);
        y += ROW;
        icae_text_printf(
            svg, "<text x=\"30\" y=\"%d\" font-weight=\"600\">%s, %.2f s a step</text>\n", y,
            icae_compute_names[r->types[i]], t->round_s);
        for (int k = 0; k <= n; k++) {
            bool is_rest = k == n;
            double forward = is_rest ? rest_of(t) : t->profile.forward_s[order[k]];
            double backward = is_rest ? 0 : t->profile.backward_s[order[k]];
            double a = BAR * forward / t->all_rounds_s, b = BAR * backward / t->all_rounds_s;
            y += ROW;
            icae_text_printf(
                svg,
                "<text x=\"%d\" y=\"%d\" text-anchor=\"end\">%s</text>"
                "<rect x=\"%d\" y=\"%d\" width=\"%.1f\" height=\"16\" fill=\"%s\"/>"
                "<rect x=\"%.1f\" y=\"%d\" width=\"%.1f\" height=\"16\" fill=\"%s\"/>"
                "<text x=\"%.1f\" y=\"%d\" fill=\"#6b7280\">%.1f</text>\n",
                LEFT - 10, y, is_rest ? "clipping, AdamW, the rest" : icae_op_names[order[k]],
                LEFT, y - 13, a, colors[i][0], LEFT + a, y - 13, b, colors[i][1],
                LEFT + a + b + 6, y, percent(forward + backward, t->all_rounds_s));
        }
        y += ROW;
    }
    icae_text_append_string(svg, "</svg>\n");
}

static icae_status draw_sweep(const report_figures *r, sweep_kind kind, const char *path,
                              icae_error *error) {
    double x[BENCH_MOST_TYPES][BENCH_MOST_POINTS], y[BENCH_MOST_TYPES][BENCH_MOST_POINTS];
    icae_plot_series series[BENCH_MOST_TYPES];
    for (int type = 0; type < r->n_types; type++) {
        for (int i = 0; i < r->n_points[kind]; i++) {
            x[type][i] = r->points[kind][type][i].x;
            y[type][i] = cost_ms(&r->points[kind][type][i]);
        }
        series[type] = (icae_plot_series){.name = icae_compute_names[r->types[type]],
                                          .x = x[type],
                                          .y = y[type],
                                          .n = (size_t)r->n_points[kind],
                                          .style = ICAE_PLOT_POINTS,
                                          .color = type};
    }
    icae_plot plot = {.title = sweeps[kind].title,
                      .x_label = sweeps[kind].x,
                      .y_label = "ms a context token",
                      .series = series,
                      .n_series = (size_t)r->n_types,
                      .y_axis = ICAE_PLOT_AUTO};
    return icae_plot_write(path, &plot, error);
}

/* ---- files ---- */

static icae_status write_one(const char *folder, const char *name, const icae_text *text,
                             icae_error *error) {
    char *path = icae_path_join(folder, name);
    icae_status status = !path || text->failed
                             ? icae_fail_memory(error, "the report")
                             : icae_file_write(path, text->data, text->length, error);
    free(path);
    return status;
}

static icae_status write_files(const char *folder, const engine *e, const report_figures *r,
                               const icae_text *md, icae_error *error) {
    icae_text json = {0}, svg = {0};
    write_json(&json, e, r);
    draw_shares(&svg, r);
    icae_status status = write_one(folder, "bench.md", md, error);
    if (!status) status = write_one(folder, "bench.json", &json, error);
    if (!status) status = write_one(folder, "bench-shares.svg", &svg, error);
    for (int kind = 0; kind < SWEEP_COUNT && !status; kind++) {
        char name[64];
        snprintf(name, sizeof name, "bench-%s.svg", sweeps[kind].name);
        char *path = icae_path_join(folder, name);
        status = path ? draw_sweep(r, (sweep_kind)kind, path, error)
                      : icae_fail_memory(error, "the report");
        free(path);
    }
    icae_text_release(&json);
    icae_text_release(&svg);
    return status;
}

/* Minutes of measuring are not begun for a report that cannot be written. */
static icae_status make_place(const char *folder, icae_error *error) {
    icae_status status = icae_folder_make(folder, error);
    char *path = icae_path_join(folder, "bench.md");
    if (!status)
        status = path ? icae_file_check_writable(path, error) : icae_fail_memory(error, folder);
    free(path);
    return status;
}

int bench_report(engine *e, const options *given) {
    icae_error error = {0};
    report_figures *r = calloc(1, sizeof *r);
    if (!r) {
        icae_fail_memory(&error, "the report");
        return report_failure(&error);
    }
    r->extent = given->is_quick ? &bench_quick_extent : &bench_full_extent;
    bool is_auto = !given->compute || !strcmp(given->compute, "auto");
    if (is_auto) icae_backend_set_compute(e->be, ICAE_COMPUTE_AUTO);
    r->types[r->n_types++] = e->be->compute;
    if (is_auto && e->be->compute != ICAE_COMPUTE_F32 && r->extent->both_types)
        r->types[r->n_types++] = ICAE_COMPUTE_F32;
    icae_status status = given->out_folder ? make_place(given->out_folder, &error) : ICAE_OK;
    double start_s = icae_clock_seconds();
    if (!status) status = bench_measure(e, given, r, &error);
    r->seconds = icae_clock_seconds() - start_s;
    icae_progress_done();
    icae_text md = {0}, json = {0};
    if (!status) {
        write_markdown(&md, e, given, r);
        write_json(&json, e, r);
    }
    if (!status && given->out_folder)
        status = write_files(given->out_folder, e, r, &md, &error);
    if (!status) fputs(icae_text_string(given->is_json ? &json : &md), stdout);
    icae_text_release(&md);
    icae_text_release(&json);
    free(r);
    return status ? report_failure(&error) : finish_output();
}
