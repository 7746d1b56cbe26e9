/* SPDX-License-Identifier: MIT */
/*
 * Reading the two JSON files of an adapter folder; the folder itself is adapter_file.c's.
 *
 *     icae.json             ours: settings, chat texts, training summary, and the fingerprints of base,
 *                           tokenizer, tensors and files; every key must be known
 *     adapter_config.json   PEFT's: rank, alpha, targets; features that are switched on and would change
 *                           what is computed are refused by name
 *
 * What icae.json says about its base and about the files beside it is held against them here; its hash of
 * the tensors waits in the loader until they are read. The same keys travel as metadata of a memory table
 * (exchange.c), which icae_adapter_read_settings reads. adapter_save.c writes both files.
 */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "formats/quote.h"
#include "icae/adapter_internal.h"
#include "icae/chat.h"
#include "icae/json.h"
#include "icae/log.h"
#include "icae/rng.h"

/* The files whose hashes icae.json holds. */
static const char *const hashed_names[ICAE_ADAPTER_HASHED] = {
    "adapter_model.safetensors", "memory.safetensors", "adapter_config.json"};

/* ---- icae.json ---- */

static bool read_digits(icae_json_object *object, const char *key, uint64_t *out) {
    const char *text = icae_json_get_string(object, key, NULL);
    if (!text) return false;
    if (strlen(text) != 16 || strspn(text, "0123456789abcdef") != 16) {
        icae_json_complain(object, key, "expected 16 digits of 0-9a-f");
        return false;
    }
    *out = strtoull(text, NULL, 16);
    return true;
}

static bool read_fingerprint(icae_json_object *object, uint64_t *out) {
    return read_digits(object, "fingerprint", out);
}

static icae_status read_hashes(icae_adapter_loader *load, icae_json_object *root) {
    icae_json_object files =
        icae_json_begin(root->json, icae_json_get_value(root, "files"), "files.", load->error);
    for (int i = 0; i < ICAE_ADAPTER_HASHED; i++)
        load->has_hash[i] = read_digits(&files, hashed_names[i], &load->hashes[i]);
    return icae_json_end(&files);
}

static icae_status read_base(icae_adapter_loader *load, icae_json_object *root) {
    const icae_model_config *config = &load->model->config;
    icae_json_object base =
        icae_json_begin(root->json, icae_json_get_value(root, "base"), "base.", load->error);
    load->has_base = read_fingerprint(&base, &load->base);
    snprintf(load->base_name, sizeof load->base_name, "%s",
             icae_json_get_string(&base, "name", "unnamed"));
    icae_json_get_string(&base, "architecture", "");
    const struct {
        const char *key;
        int64_t value;
    } sizes[] = {{"width", config->width},
                 {"layers", config->layers},
                 {"vocabulary", config->vocabulary}};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        int64_t value = sizes[i].value;
        int64_t said = icae_json_get_integer(&base, sizes[i].key, value, 1, INT32_MAX);
        if (said == value || load->has_base) continue; /* the fingerprint says it better */
        icae_json_complain(&base, sizes[i].key,
                           "the adapter was made for a base that has %lld, the base given (%s) "
                           "has %lld; pass the one that it was made for",
                           (long long)said, load->model->path, (long long)value);
    }
    return icae_json_end(&base);
}

/* An object that holds one fingerprint and nothing else. */
static icae_status read_holder(icae_adapter_loader *load, icae_json_object *root,
                               const char *key, bool *has_value, uint64_t *value) {
    char where[32];
    snprintf(where, sizeof where, "%s.", key);
    icae_json_object object =
        icae_json_begin(root->json, icae_json_get_value(root, key), where, load->error);
    *has_value = read_fingerprint(&object, value);
    return icae_json_end(&object);
}

/*
 * The chat template: its name, and its texts, which count whatever the table says about the name today.
 * Texts that are missing are the named preset's. Files of before there were names have at most prefix
 * and suffix, and their answers end with eos; those without any get what suits the base.
 */
static icae_status read_chat(icae_adapter_loader *load, icae_json_object *root) {
    icae_adapter_settings *settings = &load->settings;
    const icae_tokenizer *tokenizer = load->model->tokenizer;
    const char *name = icae_json_get_string(root, "chat_template", NULL);
    icae_chat_wish texts = {.prefix = icae_json_get_string(root, "chat_prefix", NULL),
                            .suffix = icae_json_get_string(root, "chat_suffix", NULL),
                            .turn = icae_json_get_string(root, "chat_turn", NULL),
                            .end = icae_json_get_string(root, "chat_end", NULL)};
    if (root->status) return root->status;
    char where[320];
    snprintf(where, sizeof where, "%.300s/icae.json: ", load->folder);
    bool has_all = texts.prefix && texts.suffix && texts.turn && texts.end;
    bool is_old = !name && (texts.prefix || texts.suffix);
    if (!name && !is_old && !texts.turn && !texts.end) {
        bool is_known;
        const char *chosen = icae_chat_choose(tokenizer, &is_known);
        if (!is_known) icae_chat_warn(load->model->path, chosen);
        return ICAE_OK; /* the defaults, which are that preset */
    }
    if (is_old && !texts.turn) texts.turn = "";
    if (is_old && !texts.end) texts.end = "";
    icae_status status = ICAE_OK;
    if (name && !has_all) {
        icae_chat_wish preset = {.name = name};
        status = icae_chat_apply(settings, &preset, tokenizer, where, load->error);
    }
    if (!status) status = icae_chat_apply(settings, &texts, NULL, where, load->error);
    if (status) return status;
    if (is_old && !*settings->chat_prefix && !*settings->chat_suffix) name = icae_chat_name(0);
    if (name && strlen(name) >= sizeof settings->chat_template) {
        return icae_fail(load->error, ICAE_INVALID,
                         "%schat_template: has %zu bytes, expected at most %zu", where,
                         strlen(name), sizeof settings->chat_template - 1);
    }
    if (name) memcpy(settings->chat_template, name, strlen(name) + 1);
    return icae_chat_check(settings, tokenizer, where, load->error);
}

static void require_key(icae_json_object *object, const char *key) {
    if (!icae_json_has(object, key)) {
        icae_json_complain(object, NULL, "the key '%s' is missing", key);
    }
}

static void read_header(icae_json_object *root) {
    const char *format = icae_json_get_string(root, "format", "");
    if (strcmp(format, "icae-adapter")) {
        icae_json_complain(root, "format",
                           "expected \"icae-adapter\"; this is no adapter's icae.json");
    }
    require_key(root, "version");
    int64_t version = icae_json_get_integer(root, "version", 1, 0, INT32_MAX);
    if (version != 1) {
        icae_json_complain(root, "version",
                           "is %lld, and this program reads version 1; use a newer program",
                           (long long)version);
    }
}

static icae_status read_root(icae_adapter_loader *load, icae_json_object *root) {
    icae_adapter_settings *settings = &load->settings;
    static const char *const required[] = {"memory_slots", "compression_rate", "layout"};
    static const char advice[] = "take an earlier copy, or remove the keys \"checksum\" and "
                                 "\"files\" if you edited it yourself";
    icae_status sealed = icae_json_check_seal(root->json, advice, load->error);
    if (sealed) return sealed;
    icae_json_get_value(root, "checksum");
    read_header(root);
    for (size_t i = 0; i < sizeof required / sizeof required[0]; i++)
        require_key(root, required[i]);
    settings->memory_slots =
        icae_json_get_integer(root, "memory_slots", 1, 1, ICAE_ADAPTER_MOST_SLOTS);
    settings->compression_rate =
        icae_json_get_integer(root, "compression_rate", 1, 1, ICAE_ADAPTER_MOST_RATE);
    settings->layout = (icae_layout)icae_json_get_choice(root, "layout", icae_layout_names,
                                                         (int)settings->layout);
    settings->memory_init = (icae_memory_init)icae_json_get_choice(
        root, "memory_init", icae_memory_init_names, (int)settings->memory_init);
    settings->memory_inputs = (icae_memory_inputs)icae_json_get_choice(
        root, "memory_inputs", icae_memory_inputs_names, (int)settings->memory_inputs);
    settings->slot_values = (icae_slot_values)icae_json_get_choice(
        root, "slot_values", icae_slot_values_names, (int)settings->slot_values);
    settings->closes_prompt = icae_json_get_bool(root, "closes_prompt", false);
    settings->no_lm_token = icae_json_get_bool(root, "no_lm_token", false);
    settings->context_bos = icae_json_get_bool(root, "context_bos", false);
    settings->has_stop_id = icae_json_get_value(root, "stop_id") != NULL;
    settings->stop_id = (int32_t)icae_json_get_integer(root, "stop_id", 0, 0,
                                                       load->model->config.vocabulary - 1);
    const icae_json_value *training = icae_json_get_value(root, "training");
    if (training && !icae_json_is_object(training))
        icae_json_complain(root, "training", "expected an object {...}");
    else if (training)
        icae_adapter_write_json(&load->summary, training);
    if (root->status) return root->status;
    icae_status status = read_chat(load, root);
    if (!status) status = read_base(load, root);
    if (!status)
        status = read_holder(load, root, "tokenizer", &load->has_tokenizer, &load->tokenizer);
    if (!status) status = read_holder(load, root, "adapter", &load->has_values, &load->values);
    if (!status) status = read_hashes(load, root);
    if (!status) status = icae_json_end(root);
    if (!status && load->summary.failed) status = icae_fail_memory(load->error, load->folder);
    return status;
}

icae_status icae_adapter_read_settings(const char *json, const char *name,
                                       const icae_model *model, icae_adapter_settings *settings,
                                       icae_error *error) {
    icae_adapter_loader load = {
        .folder = name, .model = model, .settings = *settings, .error = error};
    icae_json *parsed = NULL;
    icae_status status = icae_json_parse(&parsed, name, json, strlen(json), error);
    if (!status) {
        icae_json_object root = icae_json_begin(parsed, icae_json_root(parsed), "", error);
        status = read_root(&load, &root);
    }
    icae_json_free(parsed);
    icae_text_release(&load.summary);
    if (!status) *settings = load.settings;
    return status;
}

static icae_status check_base(const icae_adapter_loader *load) {
    const icae_model *model = load->model;
    if (load->has_base && load->base != model->fingerprint) {
        return icae_fail(load->error, ICAE_MISMATCH,
                         "%s: was made for the base '%s' (%016" PRIx64
                         "), but the base given (%s) is %016" PRIx64
                         "; pass the base that the adapter was made for",
                         load->folder, icae_quote_string(load->base_name).text, load->base,
                         model->path, model->fingerprint);
    }
    if (!load->has_tokenizer || !model->tokenizer) return ICAE_OK;
    uint64_t tokenizer = icae_tokenizer_fingerprint(model->tokenizer);
    if (load->tokenizer == tokenizer) return ICAE_OK;
    return icae_fail(load->error, ICAE_MISMATCH,
                     "%s: was made with the tokenizer %016" PRIx64
                     ", but that of the base given (%s) is %016" PRIx64
                     "; pass the base with the tokenizer that the adapter was made with",
                     load->folder, load->tokenizer, model->path, tokenizer);
}

/* The files beside icae.json are those that it was written for. */
static icae_status check_hashes(const icae_adapter_loader *load) {
    icae_status status = ICAE_OK;
    for (int i = 0; i < ICAE_ADAPTER_HASHED && !status; i++) {
        if (!load->has_hash[i]) continue;
        char *path = icae_path_join(load->folder, hashed_names[i]);
        uint64_t hash = 0;
        size_t bytes;
        status = path ? icae_hash_file(path, &hash, &bytes, load->error)
                      : icae_fail_memory(load->error, load->folder);
        if (!status && hash != load->hashes[i]) {
            status = icae_fail(
                load->error, ICAE_MISMATCH,
                "%s: its hash is %016" PRIx64 ", but icae.json was written for %016" PRIx64
                ": saving was interrupted or the file was changed; take an earlier copy, or "
                "remove the keys \"files\" and \"checksum\" from icae.json if you changed it "
                "yourself",
                path, hash, load->hashes[i]);
        }
        free(path);
    }
    return status;
}

/* ---- adapter_config.json ---- */

/* null, false, [], {}: a feature that is off. */
static bool is_off(const icae_json_value *value) {
    bool flag = true;
    if (icae_json_is_null(value)) return true;
    if (icae_json_as_bool(value, &flag)) return !flag;
    return (icae_json_is_array(value) || icae_json_is_object(value)) &&
           icae_json_count(value) == 0;
}

static void refuse_features(icae_json_object *root) {
    static const char *const features[] = {
        "use_dora",          "fan_in_fan_out",
        "modules_to_save",   "rank_pattern",
        "alpha_pattern",     "layers_to_transform",
        "layers_pattern",    "exclude_modules",
        "layer_replication", "lora_bias",
        "target_parameters", "trainable_token_indices",
        "use_qalora",        "alora_invocation_tokens",
        "use_bdlora",        "arrow_config",
        "kasa_config",       "monteclora_config",
    };
    for (size_t i = 0; i < sizeof features / sizeof features[0]; i++) {
        if (is_off(icae_json_get_value(root, features[i]))) continue;
        icae_json_complain(root, features[i],
                           "is switched on, and this program knows plain LoRA only; convert "
                           "the adapter without it");
    }
    if (strcmp(icae_json_get_string(root, "bias", "none"), "none")) {
        icae_json_complain(root, "bias", "expected \"none\": no biases are trained here");
    }
    if (strcmp(icae_json_get_string(root, "peft_type", "LORA"), "LORA")) {
        icae_json_complain(root, "peft_type", "expected \"LORA\"");
    }
}

/* A feature that a newer peft may have: a LoRA that computes something else with the same tensors would come
 * in as a plain one. What the listed keys say has no part in what a trained LoRA computes. */
static void warn_of_unknown(const icae_json_object *root) {
    static const char *const known[] = {
        "r",
        "lora_alpha",
        "lora_dropout",
        "use_rslora",
        "target_modules",
        "bias",
        "peft_type",
        "init_lora_weights",
        "base_model_name_or_path",
        "revision",
        "task_type",
        "inference_mode",
        "auto_mapping",
        "peft_version",
        "megatron_config",
        "megatron_core",
        "loftq_config",
        "eva_config",
        "corda_config",
        "lora_ga_config",
        "velora_config",
        "qalora_group_size",
        "runtime_config",
        "ensure_weight_tying",
    };
    for (const icae_json_value *value = icae_json_first(root->value); value;
         value = icae_json_next(value)) {
        const char *key = icae_json_key(value);
        size_t i = 0;
        while (i < sizeof known / sizeof known[0] && strcmp(key, known[i]) != 0)
            i++;
        if (i < sizeof known / sizeof known[0] || is_off(value)) continue;
        icae_log_warning(
            "%s: '%s' is not known here and passed over; if it changes what a LoRA "
            "computes, this one is read wrongly",
            icae_json_name(root->json), icae_quote_string(key).text);
    }
}

/*
 * How training began concerns us only where it changed the base: PiSSA, OLoRA, CorDA and LoRA-GA take the
 * product that the pairs begin with out of the base's matrices, and LoftQ rounds them. Beside the base as
 * it is such pairs count that part twice. peft writes true when it has turned them into plain ones.
 */
static void check_beginning(icae_json_object *root) {
    static const char key[] = "init_lora_weights";
    static const char *const harmless[] = {"gaussian", "eva", "orthogonal", "mica"};
    bool flag;
    const icae_json_value *value = icae_json_get_value(root, key);
    if (icae_json_is_null(value) || icae_json_as_bool(value, &flag)) return;
    const char *name = icae_json_get_string(root, key, "");
    for (size_t i = 0; i < sizeof harmless / sizeof harmless[0]; i++) {
        if (!strcmp(name, harmless[i])) return;
    }
    icae_json_complain(root, key,
                       "'%s' may have changed the base's weights, which this LoRA would need; "
                       "let peft save it as a plain one: save_pretrained(FOLDER, "
                       "path_initial_model_for_weight_conversion=START)",
                       icae_quote_string(name).text);
}

static void read_targets(icae_json_object *root, bool targets[ICAE_MODULE_COUNT]) {
    memset(targets, 0, ICAE_MODULE_COUNT * sizeof *targets);
    const icae_json_value *list = icae_json_get_value(root, "target_modules");
    if (icae_json_as_string(list)) {
        icae_json_complain(root, "target_modules",
                           "is one pattern; write a list of names such as [\"q_proj\"]");
        return;
    }
    if (!icae_json_is_array(list) || icae_json_count(list) == 0) {
        icae_json_complain(root, "target_modules", "expected a list of names");
        return;
    }
    for (const icae_json_value *at = icae_json_first(list); at; at = icae_json_next(at)) {
        const char *name = icae_json_as_string(at);
        icae_module module = name ? icae_module_from_name(name) : ICAE_MODULE_COUNT;
        if (module == ICAE_MODULE_COUNT) {
            icae_json_complain(root, "target_modules",
                               "'%s' is none of q_proj, k_proj, v_proj, o_proj, gate_proj, "
                               "up_proj, down_proj",
                               name ? icae_quote_string(name).text : "(no text)");
            return;
        }
        targets[module] = true;
    }
}

static icae_status read_peft(icae_adapter_loader *load, icae_json_object *root) {
    icae_adapter_settings *settings = &load->settings;
    require_key(root, "r");
    require_key(root, "lora_alpha");
    settings->rank = icae_json_get_integer(root, "r", 1, 1, ICAE_ADAPTER_MOST_RANK);
    settings->alpha = icae_json_get_number(root, "lora_alpha", 1, 0, 1e12);
    settings->dropout = icae_json_get_number(root, "lora_dropout", 0, 0, 1);
    /* rsLoRA scales by alpha / sqrt(r) (Kalajdzievski, arXiv 2312.03732); ours is alpha / r. */
    if (icae_json_get_bool(root, "use_rslora", false))
        settings->alpha *= sqrt((double)settings->rank);
    read_targets(root, settings->targets);
    refuse_features(root);
    check_beginning(root);
    if (!root->status) warn_of_unknown(root);
    return icae_json_end_lenient(root);
}

/* ---- the files ---- */

/* Opens one of the two JSON files and hands its root to `read`. */
static icae_status read_json(icae_adapter_loader *load, const char *name,
                             icae_status (*read)(icae_adapter_loader *load,
                                                 icae_json_object *root)) {
    char *path = icae_path_join(load->folder, name);
    if (!path) return icae_fail_memory(load->error, load->folder);
    icae_json *json = NULL;
    icae_status status = icae_json_open(&json, path, load->error);
    if (!status) {
        icae_json_object root = icae_json_begin(json, icae_json_root(json), "", load->error);
        status = read(load, &root);
    }
    icae_json_free(json);
    free(path);
    return status;
}

icae_status icae_peft_settings(const char *folder, icae_adapter_settings *settings,
                               icae_error *error) {
    icae_adapter_loader load = {.folder = folder, .settings = *settings, .error = error};
    icae_status status = read_json(&load, "adapter_config.json", read_peft);
    if (!status) *settings = load.settings;
    return status;
}

icae_status icae_adapter_read_icae_json(icae_adapter_loader *load) {
    icae_status status = read_json(load, "icae.json", read_root);
    if (!status) status = check_base(load);
    if (!status) status = check_hashes(load);
    return status;
}

icae_status icae_adapter_read_peft_json(icae_adapter_loader *load) {
    return read_json(load, "adapter_config.json", read_peft);
}
