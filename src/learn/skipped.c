/* SPDX-License-Identifier: MIT */
/*
 * The samples of a step that makes no update, kept for whoever wants to know why.
 *
 *     OUT/skipped/step-12.jsonl
 *         {"step": 12, "reason": "loss", "loss": null, "lr": 0.0005, "samples": 8}
 *         {"sample": 0, "task": "ae", "nll": 7.25, "targets": 9, "context_ids": [5, ...],
 *          "context": "...", "prefix_ids": [], "prompt_ids": [], "target_ids": [5, ...], "target": "..."}
 *
 * A step that is done again after a resume writes the same file again. A file that cannot be written is
 * an error like any other: a full disk shows here before it shows in a checkpoint.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "icae/file.h"
#include "learn/trainer_internal.h"

static void put_ids(icae_text *out, const char *name, const int32_t *ids, int64_t n) {
    icae_text_printf(out, ", \"%s\": [", name);
    for (int64_t i = 0; i < n; i++)
        icae_text_printf(out, "%s%d", i ? ", " : "", (int)ids[i]);
    icae_text_append_char(out, ']');
}

/* The same ids as text, for people. */
static icae_status put_text(const trainer *t, icae_text *out, const char *name,
                            const int32_t *ids, int64_t n, icae_error *error) {
    icae_text text = {0};
    icae_status status =
        icae_tokenizer_decode(t->model->tokenizer, ids, (size_t)n, true, &text, error);
    if (!status && text.failed) status = icae_fail_memory(error, name);
    if (!status) {
        icae_text_printf(out, ", \"%s\": ", name);
        icae_json_write_string(out, icae_text_string(&text), text.length);
    }
    icae_text_release(&text);
    return status;
}

static icae_status put_sample(const trainer *t, const icae_batch *batch, int64_t j, double nll,
                              icae_text *out, icae_error *error) {
    const icae_job *job = &batch->jobs[j];
    const icae_context *context = &batch->contexts[job->context];
    icae_text_printf(out, "{\"sample\": %lld, \"task\": \"%s\", \"nll\": ", (long long)j,
                     icae_task_names[job->task]);
    icae_json_write_number(out, nll);
    icae_text_printf(out, ", \"targets\": %lld", (long long)icae_job_bearing(job));
    put_ids(out, "context_ids", context->ids, context->n);
    icae_status status = put_text(t, out, "context", context->ids, context->n, error);
    put_ids(out, "prefix_ids", job->prefix, job->n_prefix);
    put_ids(out, "prompt_ids", job->prompt, job->n_prompt);
    put_ids(out, "target_ids", job->target, job->n_target);
    if (!status) status = put_text(t, out, "target", job->target, job->n_target, error);
    icae_text_append_string(out, "}\n");
    return status;
}

icae_status icae_skipped_write(const trainer *t, const icae_batch *batch, const double *nll,
                               const step_result *result, icae_error *error) {
    icae_text text = {0};
    icae_text_printf(&text, "{\"step\": %lld, \"reason\": \"%s\", \"loss\": ",
                     (long long)t->state.step, isfinite(result->loss) ? "gradient" : "loss");
    icae_json_write_number(&text, result->loss);
    icae_text_append_string(&text, ", \"lr\": ");
    icae_json_write_number(&text, result->lr);
    icae_text_printf(&text, ", \"samples\": %lld}\n", (long long)batch->n_jobs);
    icae_status status = icae_folder_make(t->folder.skipped, error);
    for (int64_t j = 0; !status && j < batch->n_jobs; j++)
        status = put_sample(t, batch, j, nll[j], &text, error);
    char name[64];
    snprintf(name, sizeof name, "step-%lld.jsonl", (long long)t->state.step);
    char *path = icae_path_join(t->folder.skipped, name);
    if (!status && (!path || text.failed)) status = icae_fail_memory(error, name);
    if (!status) status = icae_file_write(path, text.data, text.length, error);
    free(path);
    icae_text_release(&text);
    return status;
}
