/* SPDX-License-Identifier: MIT */
/* Adapters and slots in other programs' formats, and what stands around slots: texts kept as they are, chat
 * templates. See scenarios.h. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "icae/chat.h"
#include "icae/exchange.h"
#include "icae/file.h"
#include "icae/generate.h"
#include "icae/released.h"
#include "scenarios.h"

/* Made once in each process, by the first scenario that needs it. */
static struct {
    icae_model *released[2];
    icae_tokenizer *marked; /* one with a chat template */
    icae_slots raw;         /* three spans, the second as text */
    char chosen[32];        /* the preset found last */
    bool is_joined_whole;   /* whether the last join left all or nothing of its second part */
} kept;

void exchange_scenarios_close(void) {
    icae_model_close(kept.released[0]);
    icae_model_close(kept.released[1]);
    icae_tokenizer_free(kept.marked);
    icae_slots_release(&kept.raw);
}

/* ---- PEFT and GGUF ---- */

static const icae_import as_written = {.layout = -1};

static icae_status forget_peft(scenario_state *state, icae_error *error) {
    return icae_folder_remove(scenario_path(state, "peft"), error);
}

static icae_status export_peft(scenario_state *state, icae_error *error) {
    return icae_adapter_export_peft(state->adapters[0], scenario_path(state, "peft"),
                                    state->model, ICAE_DTYPE_F16, "org/base", error);
}

static icae_status keep_peft(scenario_state *state, icae_error *error) {
    return icae_path_exists(scenario_path(state, "peft")) ? ICAE_OK : export_peft(state, error);
}

static icae_status keep_gguf(scenario_state *state, icae_error *error) {
    if (icae_path_exists(scenario_path(state, "lora.gguf"))) return ICAE_OK;
    return icae_adapter_export_gguf(state->adapters[0], scenario_path(state, "lora.gguf"),
                                    state->model, ICAE_DTYPE_F32, error);
}

/* On a backend of its own, as a pool keeps what it was given back. */
static icae_status import(scenario_state *state, bool is_peft, icae_error *error) {
    icae_backend *be;
    icae_adapter *adapter = NULL;
    icae_status status = icae_backend_create(&be, NULL, 1, error);
    if (!status && is_peft) {
        status = icae_adapter_import_peft(&adapter, scenario_path(state, "peft"), &as_written,
                                          state->model, be, error);
    } else if (!status) {
        status = icae_adapter_import_gguf(&adapter, scenario_path(state, "lora.gguf"),
                                          &as_written, state->model, be, error);
    }
    icae_adapter_free(adapter);
    icae_backend_free(be);
    return status;
}

static icae_status import_peft(scenario_state *state, icae_error *error) {
    return import(state, true, error);
}

static icae_status import_gguf(scenario_state *state, icae_error *error) {
    return import(state, false, error);
}

static icae_status check_peft(scenario_state *state, icae_status status, icae_error *error) {
    if (status && !icae_path_exists(scenario_path(state, "peft"))) return ICAE_OK;
    return import_peft(state, error);
}

/* ---- released weights ---- */

static const char *const released[][2] = {
    {"tests/golden/released/v1.pt", "tests/golden/llama2/model"},
    {"tests/golden/released/v2.safetensors", "tests/golden/mistral/model"}};

static icae_status open_released_bases(scenario_state *state, icae_error *error) {
    icae_status status = ICAE_OK;
    (void)state;
    for (int i = 0; i < 2 && !status; i++) {
        if (!kept.released[i])
            status = icae_model_open(&kept.released[i], released[i][1], error);
    }
    return status;
}

static icae_status convert_released(scenario_state *state, icae_error *error) {
    icae_backend *be;
    icae_status status = icae_backend_create(&be, NULL, 1, error);
    (void)state;
    for (int i = 0; i < 2 && !status; i++) {
        icae_adapter *adapter;
        int32_t *ids = NULL;
        size_t n;
        status = icae_released_convert(&adapter, released[i][0], kept.released[i], NULL, be,
                                       false, error);
        if (!status) {
            status = icae_adapter_encode(&adapter->settings, kept.released[i]->tokenizer,
                                         "Who?", 4, &ids, &n, error);
        }
        free(ids);
        icae_adapter_free(adapter);
    }
    icae_backend_free(be);
    return status;
}

/* ---- slots ---- */

static icae_status keep_raw_slots(scenario_state *state, icae_error *error) {
    static const bool is_raw[] = {false, true, false};
    (void)state;
    if (kept.raw.values) return ICAE_OK;
    icae_status status = icae_slots_allocate(&kept.raw, 3, 2, 3, error);
    for (int s = 0; s < 3 && !status; s++) {
        kept.raw.span_lengths[s] = 4 + s;
        kept.raw.n_tokens += 4 + s;
    }
    return status ? status : icae_slots_keep_raw(&kept.raw, is_raw, error);
}

static icae_status forget_raw_slots(scenario_state *state, icae_error *error) {
    icae_status status = keep_raw_slots(state, error);
    return status ? status : icae_folder_remove(scenario_path(state, "raw.slots"), error);
}

static icae_status load_raw_slots(scenario_state *state, icae_error *error) {
    icae_slots slots = {0};
    icae_status status =
        icae_slots_load(&slots, scenario_path(state, "raw.slots"), NULL, NULL, error);
    if (!status)
        status = scenario_expect(slots.n_raw == 1 && icae_slots_raw_tokens(&slots) == 5, "lost",
                                 error);
    icae_slots_release(&slots);
    return status;
}

static icae_status save_raw_slots(scenario_state *state, icae_error *error) {
    icae_status status = icae_slots_save(&kept.raw, scenario_path(state, "raw.slots"), error);
    return status ? status : load_raw_slots(state, error);
}

static icae_status check_raw_slots(scenario_state *state, icae_status status,
                                   icae_error *error) {
    if (status && !icae_path_exists(scenario_path(state, "raw.slots"))) return ICAE_OK;
    return load_raw_slots(state, error);
}

static icae_status join_slots(scenario_state *state, icae_error *error) {
    icae_slots joined = {0};
    icae_status status = ICAE_OK;
    (void)state;
    kept.is_joined_whole = true;
    for (int64_t i = 0; i < 3 && !status; i++) {
        status = icae_slots_join(&joined, &kept.raw, error);
        int64_t n = status ? i : i + 1;
        if (joined.n_spans != 3 * n || joined.n_raw != n || joined.n_tokens != 15 * n)
            kept.is_joined_whole = false;
    }
    icae_slots_release(&joined);
    return status;
}

static icae_status check_joined(scenario_state *state, icae_status status, icae_error *error) {
    (void)state, (void)status;
    return scenario_expect(kept.is_joined_whole, "a join that failed left half of it", error);
}

static icae_status forget_rows(scenario_state *state, icae_error *error) {
    /* only without gaps in the positions has a torch tensor what is needed */
    state->adapters[1]->settings.layout = ICAE_LAYOUT_APPEND;
    icae_status status = icae_folder_remove(scenario_path(state, "rows.pt"), error);
    return status ? status
                  : icae_folder_remove(scenario_path(state, "rows.safetensors"), error);
}

static icae_status export_rows(scenario_state *state, icae_error *error) {
    icae_status status = icae_slots_export_embeds(
        state->slots, scenario_path(state, "rows.safetensors"), state->model,
        state->adapters[0], ICAE_TASK_AE, ICAE_DTYPE_BF16, error);
    if (status) return status;
    return icae_slots_export_torch(state->slots, scenario_path(state, "rows.pt"),
                                   state->adapters[1], ICAE_TASK_LM, ICAE_DTYPE_F16, error);
}

static icae_status check_rows(scenario_state *state, icae_status status, icae_error *error) {
    static int64_t all[2]; /* of the first run, in peace */
    const int64_t bytes[] = {icae_file_bytes(scenario_path(state, "rows.safetensors")),
                             icae_file_bytes(scenario_path(state, "rows.pt"))};
    bool is_whole = true;
    for (int i = 0; i < 2; i++) {
        if (!status && !all[i]) all[i] = bytes[i];
        is_whole = is_whole && (bytes[i] == all[i] || (status && bytes[i] < 0));
    }
    return scenario_expect(is_whole, "half a file", error);
}

/* A text of which a part is kept, read again beside a prompt without slots. */
static icae_status compress_and_write(scenario_state *state, icae_error *error) {
    static const int32_t ids[] = {5, 6, 7, 8, 9, 10, 11, 12, 13, 14}, lengths[] = {4, 3, 3};
    static const bool is_raw[] = {false, true, false};
    icae_backend *be;
    icae_graph *graph = NULL;
    icae_adapter *adapter = NULL;
    icae_slots slots = {0};
    icae_result results[2] = {{0}};
    icae_status status = icae_backend_create(&be, NULL, 1, error);
    if (!status) status = icae_graph_create(&graph, be, error);
    if (!status)
        status = icae_adapter_load(&adapter, scenario_adapter, state->model, be, false, error);
    if (!status) {
        status = icae_compress_spans(graph, state->model, adapter, ids, 3, lengths, is_raw,
                                     NULL, &slots, error);
    }
    if (!status) {
        const icae_sampling sampling = {.temperature = 1, .top_p = 0.9, .top_k = 20};
        const icae_request requests[] = {
            {.slots = &slots, .task = ICAE_TASK_LM, .max_tokens = 3, .stop = -1},
            {.prefix = ids, .n_prefix = 3, .max_tokens = 2, .stop = -1}};
        status = icae_generate(graph, state->model, adapter, requests, 2, &sampling, NULL, NULL,
                               results, error);
    }
    icae_results_release(results, 2);
    icae_slots_release(&slots);
    icae_adapter_free(adapter);
    icae_graph_free(graph);
    icae_backend_free(be);
    return status;
}

/* Slots refined by gradient descent, and two texts of some spans written side by side. */
static icae_status refine_and_write(scenario_state *state, icae_error *error) {
    static const char text[] = "The library opens at nine on weekdays, at ten on Saturdays.";
    const icae_session_options options = {.n_threads = 1, .refine_steps = 2};
    const icae_generation what = {.mode = ICAE_RECONSTRUCT, .max_tokens = 40};
    icae_generated results[2] = {{0}};
    icae_slots *slots = NULL;
    icae_session *session;
    icae_status status =
        icae_session_open(&session, state->base, scenario_adapter, &options, error);
    if (!status) status = icae_session_compress(session, text, sizeof text - 1, &slots, error);
    if (!status) {
        const icae_slots *const both[] = {slots, slots};
        status =
            icae_session_generate_batch(session, both, 2, &what, NULL, NULL, results, error);
    }
    icae_generated_release(&results[0]);
    icae_generated_release(&results[1]);
    icae_slots_free(slots);
    icae_session_close(session);
    return status;
}

/* ---- chat ---- */

static icae_status open_marked_tokenizer(scenario_state *state, icae_error *error) {
    static const char config[] = "{\"eos_token\": \"<|im_end|>\", \"chat_template\": "
                                 "\"<|im_start|>{{ m }}<|im_end|>\"}";
    if (kept.marked) return ICAE_OK;
    char *text;
    size_t bytes;
    icae_status status = icae_folder_make(scenario_path(state, "marked"), error);
    if (!status) {
        status = icae_file_read("tests/golden/llama/model/tokenizer.json", 1 << 20, &text,
                                &bytes, error);
    }
    if (status) return status;
    status = icae_file_write(scenario_path(state, "marked/tokenizer.json"), text, bytes, error);
    free(text);
    if (!status) {
        status = icae_file_write(scenario_path(state, "marked/tokenizer_config.json"), config,
                                 sizeof config - 1, error);
    }
    return status ? status
                  : icae_tokenizer_open_folder(&kept.marked, scenario_path(state, "marked"),
                                               error);
}

static icae_status talk(const icae_adapter_settings *settings, icae_error *error) {
    static const icae_turn turns[] = {{"Who?", "Nobody."}, {"When?", "In May."}};
    icae_chat_ids chat;
    int32_t *ids = NULL;
    int64_t n;
    icae_status status = icae_chat_encode(&chat, settings, kept.marked, error);
    if (!status)
        status = icae_chat_dialogue(&chat, kept.marked, turns, 2, "Why?", &ids, &n, error);
    free(ids);
    icae_chat_release(&chat);
    return status;
}

/* The defaults for a base with a chat template, then a template without turns. */
static icae_status chat(scenario_state *state, icae_error *error) {
    const icae_chat_wish plain = {.name = ICAE_CHAT_CUSTOM, .prefix = "Q: ", .suffix = "A: "};
    icae_model model = {.tokenizer = kept.marked};
    (void)state;
    icae_adapter_settings settings = icae_adapter_defaults(&model);
    snprintf(kept.chosen, sizeof kept.chosen, "%s", settings.chat_template);
    icae_status status = talk(&settings, error);
    if (!status) status = icae_chat_apply(&settings, &plain, kept.marked, "", error);
    if (!status) status = talk(&settings, error);
    return status;
}

/* Memory that ends must not make it another template. */
static icae_status check_chat(scenario_state *state, icae_status status, icae_error *error) {
    (void)state, (void)status;
    return scenario_expect(!strcmp(kept.chosen, "chatml"), "another template was chosen",
                           error);
}

static icae_status count_tokens(scenario_state *state, icae_error *error) {
    int64_t tokens;
    return icae_base_count_tokens(state->base, "Who came in May?", 16, &tokens, error);
}

/* ---- the table ---- */

const scenario exchange_scenarios[] = {
    {"export to peft", true, forget_peft, export_peft, check_peft},
    {"import from peft", true, keep_peft, import_peft, NULL},
    {"import from gguf", true, keep_gguf, import_gguf, NULL},
    {"convert released", true, open_released_bases, convert_released, NULL},
    {"save raw slots", true, forget_raw_slots, save_raw_slots, check_raw_slots},
    {"join slots", true, keep_raw_slots, join_slots, check_joined},
    {"export rows", true, forget_rows, export_rows, check_rows},
    {"compress and write", true, NULL, compress_and_write, NULL},
    {"refine and write", true, NULL, refine_and_write, NULL},
    {"chat", true, open_marked_tokenizer, chat, check_chat},
    {"count tokens", true, NULL, count_tokens, NULL},
    {.name = NULL},
};
