/* SPDX-License-Identifier: MIT */
/*
 * Run checkpoints: all that a run needs to go on as if it had never stopped, bit for bit.
 *
 *     OUT/checkpoints/step-N/
 *         adapter/               as icae_adapter_save writes it: usable for inference as it is
 *         optimizer.safetensors  values, moment1, moment2: the trainable block and AdamW's two
 *         state.json             step, updates, counts, feed position, length of metrics.jsonl
 *         hashes.json            size and hash of every file above
 *
 * A checkpoint is written whole or not at all: into OUT/checkpoints/.tmp-step-N, flushed to the disk,
 * renamed, and the folder flushed. One that is no longer wanted loses its name before its files. Reading
 * checks every hash first; a damaged checkpoint is named and the newest good one is used.
 */
#ifndef ICAE_CHECKPOINT_H
#define ICAE_CHECKPOINT_H

#include "icae/adapter.h"
#include "icae/json.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct icae_run_state {
    int64_t step;           /* steps done */
    int64_t updates;        /* of the optimizer: steps without the skipped ones */
    int64_t skipped;        /* steps without update because loss or gradient was not finite */
    int64_t skipped_in_row; /* of these, the last ones */
    int64_t samples, context_tokens; /* seen so far */
    int64_t cut, passed_over,
        broken_lines;      /* of the data so far, as icae_feed_stats has them */
    int64_t metrics_bytes; /* length of metrics.jsonl when this was taken */
    double seconds;        /* of training so far, over all sessions */
    double norm_mean;      /* usual norm of the gradient: what a spike stands out from */
    int64_t norm_count;    /* steps it was made of */
    int64_t threads;       /* that computed the last step; 0: not known */
    char kernels[16];      /* their level, as "avx2"; "": not known */
    uint64_t settings_hash, base_fingerprint;
    const char *feed_json; /* where the feed goes on; the caller's. NULL after a load */
    icae_json *json;       /* after a load: holds feed; free with icae_run_state_release */
    const icae_json_value *feed;
} icae_run_state;

void icae_run_state_release(icae_run_state *state);

/* Writes step-{state->step} below run_folder, then removes the oldest so that `keep` are left; never
 * the one just written, and nothing at all when reading that one back shows damage. */
icae_status icae_checkpoint_save(const char *run_folder, icae_adapter *adapter,
                                 const icae_model *model, const icae_run_state *state,
                                 int64_t keep, icae_error *error);

/* Whether run_folder has anything that looks like a checkpoint, good or not. */
icae_status icae_checkpoint_any(const char *run_folder, bool *has_any, icae_error *error);

/* Removes what a crash left of checkpoints that were being written or removed. For the only run in it. */
icae_status icae_checkpoint_sweep(const char *run_folder, icae_error *error);

/* All hashes of one checkpoint folder. The sentence names the damaged file. */
icae_status icae_checkpoint_verify(const char *path, icae_error *error);

/* The newest good checkpoint: *path is malloc'ed. Damaged ones are named in warnings. Fails when
 * there is none. */
icae_status icae_checkpoint_newest(const char *run_folder, char **path, icae_error *error);

/* Reads a verified checkpoint into a training adapter of the same shape, and into state. */
icae_status icae_checkpoint_load(const char *path, icae_adapter *adapter, icae_run_state *state,
                                 icae_error *error);

#ifdef __cplusplus
}
#endif
#endif
