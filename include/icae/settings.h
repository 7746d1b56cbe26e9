/* SPDX-License-Identifier: MIT */
/*
 * Everything that decides a training run, in one struct: read from a JSON file, changed from the
 * command line, written back with all values as used.
 *
 * One table (src/learn/settings.c) says for every key its section, type, range and whether it may
 * change when a run is resumed; reading, overriding, writing and comparing are loops over it. A key
 * that no row knows is an error that names file, line and key. Paths are relative to the folder that
 * the program was started in. configs/README.md explains the keys one by one.
 */
#ifndef ICAE_SETTINGS_H
#define ICAE_SETTINGS_H

#include "icae/feed.h"
#include "icae/memory.h"
#include "icae/text.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum icae_schedule {
    ICAE_SCHEDULE_CONSTANT,
    ICAE_SCHEDULE_COSINE,
    ICAE_SCHEDULE_LINEAR,
    ICAE_SCHEDULE_COUNT
} icae_schedule;
extern const char *const icae_schedule_names[]; /* "constant", "cosine", "linear", NULL */

typedef struct icae_strings {
    const char **list;
    size_t count;
} icae_strings;

typedef struct icae_settings {
    const char *base; /* .gguf or Hugging Face folder; required */
    const char *out;  /* run folder; required */
    int64_t
        memory_budget; /* bytes that the process may take; 0: as much as it wants. See icae_plan_fit */
    struct {
        icae_strings train, heldout; /* heldout may be empty: no evaluation */
        const char *text_field;
        int64_t shuffle_documents;
        bool strict;
        int64_t prefetch_steps;
    } data;
    struct {
        const char *start; /* adapter folder to go on from, or "" for a fresh one */
        int64_t memory_slots, compression_rate;
        int layout;        /* icae_layout */
        int memory_init;   /* icae_memory_init */
        int memory_inputs; /* icae_memory_inputs */
        int slot_values;   /* icae_slot_values */
        int64_t rank;
        double alpha, dropout;
        icae_strings targets;
        /* See icae/chat.h. NULL: what the base's chat template asks for. */
        const char *chat_template, *chat_prefix, *chat_suffix, *chat_turn, *chat_end;
    } adapter;
    struct {
        int kind; /* icae_objective */
        double lm_ratio;
        double ae_weight;                            /* lambda, in "both" */
        double ae_share;                             /* lambda, in "instruct"; 0: no AE */
        int64_t context_tokens, continuation_tokens; /* 0: one full span, and the same again */
        int64_t first_context, grow_steps; /* the limit grows from the first; 0: it does not */
        int64_t least_context, least_continuation, skip_for_lm;
        int64_t prompt_tokens, answer_tokens;
    } objective;
    struct {
        int64_t steps;
        int64_t batch;       /* samples per step */
        int64_t micro_batch; /* samples per forward pass; 0: as icae_pass_limit has it */
        double lr;
        int schedule; /* icae_schedule */
        int64_t warmup_steps;
        double final_lr_fraction;
        double beta1, beta2, eps, weight_decay;
        double clip_norm; /* 0: no clipping */
        int64_t seed;
        bool checkpointing; /* recompute activations instead of keeping them */
        int64_t threads;    /* 0: as many as the machine has */
        int compute;        /* icae_compute; auto becomes what is used when a run begins */
    } train;
    struct {
        int64_t every;   /* steps; 0: only at the start and the end */
        int64_t samples; /* held-out samples whose loss is taken */
        int64_t reconstruct_samples, reconstruct_tokens;
    } evaluate;
    struct {
        int64_t every; /* steps; 0: only at the end */
        int64_t keep;
    } checkpoint;
    uint64_t given;   /* bit i: row i of the table was set by file or command line */
    icae_arena arena; /* strings and lists */
} icae_settings;

/* The defaults. A settings struct is released whether or not reading it succeeded. */
void icae_settings_init(icae_settings *settings);
void icae_settings_release(icae_settings *settings);

/* Reads a JSON object over what the struct holds. */
icae_status icae_settings_read(icae_settings *settings, const char *path, icae_error *error);

/* "train.lr=1e-4": the value is JSON; what is no JSON is taken as a string ("out=runs/a"). For a key that
 * wants text everything but a string in quotes, null and a list where lists are wanted is the text itself
 * ("out=2024"). The same checks as for a file. */
icae_status icae_settings_set(icae_settings *settings, const char *assignment,
                              icae_error *error);

/* What one key alone cannot tell: required keys, limits that exclude each other, unknown target names. */
icae_status icae_settings_check(const icae_settings *settings, icae_error *error);

/* Appends the keys that were given another value than their default and mean nothing to objective.kind, each
 * with the kinds that it belongs to: "objective.lm_ratio (of mixed)". Returns how many. */
size_t icae_settings_idle(const icae_settings *settings, icae_text *out);

/* All values, as a JSON object that icae_settings_read takes. */
void icae_settings_write(const icae_settings *settings, icae_text *out);

/* Appends all keys that differ and may not when a run goes on, values as JSON, long ones shortened:
 * "train.lr = 0.003, now it is 0.001; train.batch = 4, now it is 8". Returns how many. */
size_t icae_settings_difference(const icae_settings *old, const icae_settings *now,
                                icae_text *out);
/* Whether adapters of both have the same numbers, each with the same meaning: slots, rank and target modules. */
bool icae_settings_same_adapter(const icae_settings *old, const icae_settings *now);

/* Whether file or command line gave this key. */
bool icae_settings_has(const icae_settings *settings, const char *key);

/* Hash of all values that must not change in a run. The base is not among them: its fingerprint tells it,
 * not how its path is spelled. with_base: as checkpoints of earlier versions have it. */
uint64_t icae_settings_hash(const icae_settings *settings, bool with_base);

/* The limits with 0 replaced by what it stands for. */
int64_t icae_settings_context(const icae_settings *settings);
int64_t icae_settings_continuation(const icae_settings *settings);

/* The adapter section as the adapter module wants it; the model gives what the section leaves open.
 */
icae_status icae_settings_adapter(const icae_settings *settings, const icae_model *model,
                                  icae_adapter_settings *out, icae_error *error);
/* The other way round, after an adapter was loaded from `start`: keys that were given and differ from
 * it are refused, except dropout and the chat texts, which are handed on to it. */
icae_status icae_settings_adopt(icae_settings *settings, const icae_model *model,
                                icae_adapter_settings *loaded, icae_error *error);
/* Puts in what was left open (limits that were 0, the chat texts), so that the written settings are
 * those used. */
icae_status icae_settings_complete(icae_settings *settings, const icae_adapter_settings *used,
                                   icae_error *error);

#ifdef __cplusplus
}
#endif
#endif
