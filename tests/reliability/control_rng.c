/* SPDX-License-Identifier: MIT */
/*
 * A broken control: training whose random numbers begin anew with every session. Linked into the test
 * program by -Wl,--wrap; the comparison of a resumed run with one that was not stopped must notice.
 */
#include "icae/objective.h"
#include "icae/rng.h"
#include "icae/trainer.h"

static uint64_t calls; /* of this session */

icae_status __real_icae_train(icae_settings *settings, const icae_train_options *options,
                              icae_train_report *report, icae_error *error);
icae_status __wrap_icae_train(icae_settings *settings, const icae_train_options *options,
                              icae_train_report *report, icae_error *error);
icae_status __wrap_icae_train(icae_settings *settings, const icae_train_options *options,
                              icae_train_report *report, icae_error *error) {
    calls = 0;
    return __real_icae_train(settings, options, report, error);
}

icae_tensor *__real_icae_batch_loss(icae_graph *graph, const icae_model *model,
                                    const icae_adapter *adapter, const icae_batch *batch,
                                    const icae_run *run, double *job_nll, icae_real *token_nll);
icae_tensor *__wrap_icae_batch_loss(icae_graph *graph, const icae_model *model,
                                    const icae_adapter *adapter, const icae_batch *batch,
                                    const icae_run *run, double *job_nll, icae_real *token_nll);
icae_tensor *__wrap_icae_batch_loss(icae_graph *graph, const icae_model *model,
                                    const icae_adapter *adapter, const icae_batch *batch,
                                    const icae_run *run, double *job_nll,
                                    icae_real *token_nll) {
    icae_run forgetful = *run;
    if (run->is_training) forgetful.seed = icae_mix64(1, calls++);
    return __real_icae_batch_loss(graph, model, adapter, batch, &forgetful, job_nll, token_nll);
}
