/* SPDX-License-Identifier: MIT */
/*
 * Does this build, on this machine, compute what it should?
 *
 *     golden    a folder of numbers that another program computed in double precision (model/,
 *               adapter/, expected.json, expected.safetensors): token ids and decoded text, logits,
 *               losses, slots, gradients, and the course of ten optimizer steps
 *     built-in  the kernels of the level in use against the plain reference ones, on random input
 *
 * One check is one line: its name, the largest error found, the limit, whether it holds. The error of
 * a tensor is its largest difference over the largest expected entry; of a loss, relative; of ids and
 * texts, how many differ (limit 0).
 */
#ifndef ICAE_SELFTEST_H
#define ICAE_SELFTEST_H

#include "icae/graph.h"
#include "icae/model.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct icae_check {
    const char *subject; /* the golden folder, or the level of the kernels */
    const char *name;
    double error, limit;
    bool is_ok;       /* error <= limit; false for a NaN */
    const char *note; /* where the largest error is, or "" */
} icae_check;

typedef void icae_check_callback(void *user, const icae_check *check);

typedef struct icae_checks {
    icae_check_callback *callback; /* may be NULL */
    void *user;
    const char *subject;
    int64_t n, n_failed; /* counted up */
} icae_checks;

/* Counts a check and tells the callback. */
void icae_check_report(icae_checks *checks, const char *name, double error, double limit,
                       const char *note);

/* In a float build: 1e-5 for losses, 2e-4 for the rest; in a double build 1e-9 and 1e-7. Over ten
 * optimizer steps a float build's limits widen with the amplification that selftest.c measures. */
double icae_check_limit_loss(void);
double icae_check_limit_tensor(void);

/* base: used when the folder has no model/ of its own; may be NULL. Fails when something cannot be
 * read or run at all; numbers that disagree only count. */
icae_status icae_selftest_golden(icae_checks *checks, const char *folder, const char *base,
                                 icae_backend *be, icae_error *error);

/* The kernels of `be`, and OpenBLAS through them, against the reference. */
icae_status icae_selftest_kernels(icae_checks *checks, icae_backend *be, icae_error *error);

/* Texts of many scripts into ids and back. */
icae_status icae_selftest_tokenizer(icae_checks *checks, const icae_tokenizer *tokenizer,
                                    icae_error *error);

#ifdef __cplusplus
}
#endif
#endif
