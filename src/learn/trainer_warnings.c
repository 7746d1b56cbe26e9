/* SPDX-License-Identifier: MIT */
/* What a run can do, but its user may not have meant: told once, before the first step. */
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>

#include "icae/corpus.h"
#include "icae/log.h"
#include "learn/trainer_internal.h"

/* Held-out numbers of texts that are trained on say nothing of others. Files that cannot be found are told
 * where they are opened. */
static void warn_of_shared(const icae_settings *s) {
    size_t count;
    char *first;
    if (!s->data.heldout.count || !s->evaluate.samples ||
        icae_corpus_find_shared(s->data.train.list, s->data.train.count, s->data.heldout.list,
                                s->data.heldout.count, &count, &first, NULL))
        return;
    if (count) {
        char more[64] = "";
        if (count > 1) snprintf(more, sizeof more, " and %zu more", count - 1);
        icae_log_warning("data.heldout: %s%s: also in data.train, so held-out numbers tell of "
                         "texts that are learnt",
                         first, more);
    }
    free(first);
}

static void warn_of_idle(const icae_settings *settings) {
    icae_text keys = {0};
    if (icae_settings_idle(settings, &keys)) {
        icae_log_warning("objective.kind is %s, to which these mean nothing: %s",
                         icae_objective_names[settings->objective.kind],
                         icae_text_string(&keys));
    }
    icae_text_release(&keys);
}

void icae_trainer_warn_of_settings(const icae_settings *settings) {
    warn_of_idle(settings);
    warn_of_shared(settings);
    if (settings->train.threads > omp_get_num_procs()) {
        icae_log_warning("train.threads is %lld: more threads than processors (%d) are far "
                         "slower; with 0 every processor has one",
                         (long long)settings->train.threads, omp_get_num_procs());
    }
}

void icae_trainer_warn_of_parts(const trainer *t) {
    if (t->be->compute == ICAE_COMPUTE_BF16 && !t->be->has_fast_bf16) {
        icae_log_warning("train.compute is bf16, which %s kernels only imitate: the same "
                         "numbers, slower than f32",
                         t->be->name);
    }
    int64_t positions = t->report->plan.positions, known = t->model->config.context_length;
    if (positions > known) {
        icae_log_warning("the longest samples take %lld positions, the base was trained on "
                         "contexts of %lld: expect less of long ones",
                         (long long)positions, (long long)known);
    }
}
