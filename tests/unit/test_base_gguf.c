/* SPDX-License-Identifier: MIT */
/*
 * Bases as GGUF: every golden model written as llama.cpp's converter would (its names, its order of the
 * rows of q and k, Gemma's norms with their 1 added, the tokenizer as metadata) gives what its folder
 * gives; and a base that is cut off, incomplete, of another shape, architecture or type is refused in
 * a sentence, within a second.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "icae/exchange.h"
#include "icae/file.h"
#include "icae/gguf_write.h"
#include "icae/json.h"
#include "icae/model.h"
#include "icae/selftest.h"
#include "suites.h"

static icae_error error;

/* How a golden model is called in a GGUF. */
typedef struct golden {
    const char *name, *architecture;
    const char *pre; /* of byte-level BPE; NULL: scores */
} golden;

static const golden goldens[] = {
    {"llama", "llama", "smollm"}, {"llama2", "llama", NULL},   {"llama3", "llama", "llama-bpe"},
    {"mistral", "llama", NULL},   {"qwen2", "qwen2", "qwen2"}, {"qwen3", "qwen3", "qwen2"},
    {"gemma3", "gemma3", NULL},
};
enum { N_GOLDENS = sizeof goldens / sizeof goldens[0] };

/* ---- a folder's base as GGUF ---- */

typedef struct conversion {
    icae_gguf_writer out;
    const golden *golden;
    const icae_json_value *config;
    icae_safetensors weights;
    const char *left_out; /* a tensor's name, or NULL */
    void *kept[512];      /* widened vectors and reordered rows, until they are written */
    size_t n_kept;
} conversion;

static int64_t integer(const conversion *c, const char *key, int64_t otherwise) {
    int64_t value = otherwise;
    icae_json_as_integer(icae_json_member(c->config, key), &value);
    return value;
}

static double number(const icae_json_value *object, const char *key, double otherwise) {
    double value = otherwise;
    icae_json_as_number(icae_json_member(object, key), &value);
    return value;
}

static const char *full_key(const conversion *c, const char *key) {
    static char full[128];
    snprintf(full, sizeof full, "%s.%s", c->golden->architecture, key);
    return full;
}

static void put_config(conversion *c) {
    static const struct {
        const char *hf, *gguf;
    } keys[] = {{"hidden_size", "embedding_length"},
                {"num_hidden_layers", "block_count"},
                {"num_attention_heads", "attention.head_count"},
                {"num_key_value_heads", "attention.head_count_kv"},
                {"intermediate_size", "feed_forward_length"},
                {"max_position_embeddings", "context_length"},
                {"head_dim", "attention.key_length"},
                {"head_dim", "attention.value_length"},
                {"sliding_window", "attention.sliding_window"}};
    icae_gguf_put_string(&c->out, "general.architecture", c->golden->architecture);
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) {
        int64_t value = integer(c, keys[i].hf, -1);
        if (value > 0) icae_gguf_put_u32(&c->out, full_key(c, keys[i].gguf), (uint32_t)value);
    }
    icae_gguf_put_f32(&c->out, full_key(c, "attention.layer_norm_rms_epsilon"),
                      (float)number(c->config, "rms_norm_eps", 0));
    const icae_json_value *rope = icae_json_member(c->config, "rope_parameters");
    const icae_json_value *full = icae_json_member(rope, "full_attention");
    double theta = number(c->config, "rope_theta", number(full, "rope_theta", 10000));
    icae_gguf_put_f32(&c->out, full_key(c, "rope.freq_base"), (float)theta);
    if (!full) return;
    /* Gemma: keys that say what the architecture's own values do not. */
    icae_gguf_put_string(&c->out, full_key(c, "rope.scaling.type"), "linear");
    icae_gguf_put_f32(&c->out, full_key(c, "rope.scaling.factor"),
                      (float)number(full, "factor", 1));
    icae_gguf_put_u32(&c->out, full_key(c, "attention.sliding_window_pattern"), 3);
    icae_gguf_put_f32(&c->out, full_key(c, "attention.scale"), 0.223606797749979f);
}

/* "model.layers.3.self_attn.q_proj.weight" -> "blk.3.attn_q.weight"; false: not in a GGUF. */
static bool gguf_name(const conversion *c, const char *hf, char out[128]) {
    static const struct {
        const char *hf, *gguf, *gemma;
    } names[] = {
        {"embed_tokens", "token_embd", NULL},
        {"lm_head", "output", NULL},
        {"input_layernorm", "attn_norm", NULL},
        {"post_attention_layernorm", "ffn_norm", "post_attention_norm"},
        {"pre_feedforward_layernorm", NULL, "ffn_norm"},
        {"post_feedforward_layernorm", NULL, "post_ffw_norm"},
        {"self_attn.q_norm", "attn_q_norm", NULL},
        {"self_attn.k_norm", "attn_k_norm", NULL},
        {"self_attn.q_proj", "attn_q", NULL},
        {"self_attn.k_proj", "attn_k", NULL},
        {"self_attn.v_proj", "attn_v", NULL},
        {"self_attn.o_proj", "attn_output", NULL},
        {"mlp.gate_proj", "ffn_gate", NULL},
        {"mlp.up_proj", "ffn_up", NULL},
        {"mlp.down_proj", "ffn_down", NULL},
        {"model.norm", "output_norm", NULL},
    };
    const char *ending = strrchr(hf, '.');
    bool is_gemma = strcmp(c->golden->architecture, "gemma3") == 0;
    long layer = -1;
    if (!strncmp(hf, "model.layers.", 13)) layer = strtol(hf + 13, NULL, 10);
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        size_t n = strlen(names[i].hf);
        if ((size_t)(ending - hf) < n || strncmp(ending - n, names[i].hf, n)) continue;
        const char *name = is_gemma && names[i].gemma ? names[i].gemma : names[i].gguf;
        if (layer < 0)
            snprintf(out, 128, "%s%s", name, ending);
        else
            snprintf(out, 128, "blk.%ld.%s%s", layer, name, ending);
        return true;
    }
    return false;
}

/* llama.cpp's order: row 2i of a head is our row i, row 2i+1 our row i + E/2. */
static void *paired_rows(conversion *c, const icae_safetensors_entry *e, int64_t head_width) {
    unsigned char *rows = malloc(e->bytes);
    ck_assert_ptr_nonnull(rows);
    size_t row_bytes = e->bytes / (size_t)e->shape[0];
    for (int64_t row = 0; row < e->shape[0]; row++) {
        int64_t head = row / head_width, i = row % head_width;
        int64_t from = head * head_width + i / 2 + (i % 2) * (head_width / 2);
        memcpy(rows + (size_t)row * row_bytes,
               (const unsigned char *)e->data + (size_t)from * row_bytes, row_bytes);
    }
    c->kept[c->n_kept++] = rows;
    return rows;
}

static void *widened(conversion *c, const icae_safetensors_entry *e) {
    bool is_gemma = strcmp(c->golden->architecture, "gemma3") == 0;
    float *values = malloc((size_t)e->shape[0] * sizeof *values);
    ck_assert_ptr_nonnull(values);
    icae_dtype_widen_f32(e->dtype, e->data, e->shape[0], values);
    for (int64_t i = 0; i < e->shape[0] && is_gemma; i++)
        values[i] += 1;
    c->kept[c->n_kept++] = values;
    return values;
}

/* The divisors of rope's frequencies that stand for Llama 3's scaling. */
static void put_divisors(conversion *c, const icae_model *model, float divisors[64]) {
    icae_model_config plain = model->config;
    double ours[64], without[64];
    int64_t half = plain.head_width / 2;
    plain.rope.type = ICAE_ROPE_DEFAULT;
    icae_rope_frequencies(&model->config, false, ours);
    icae_rope_frequencies(&plain, false, without);
    for (int64_t i = 0; i < half; i++)
        divisors[i] = (float)(without[i] / ours[i]);
    icae_gguf_put_tensor(&c->out, "rope_freqs.weight", ICAE_DTYPE_F32, 1, &half);
}

static void put_weights(conversion *c, const icae_model *model) {
    const void *data[512];
    size_t bytes[512], n = 0;
    float divisors[64];
    for (size_t i = 0; i < c->weights.n_entries; i++) {
        const icae_safetensors_entry *e = &c->weights.entries[i];
        char name[128];
        ck_assert_msg(gguf_name(c, e->name, name), "%s", e->name);
        if (c->left_out && !strcmp(c->left_out, name)) continue;
        bool is_paired = !strcmp(c->golden->architecture, "llama") &&
                         (strstr(name, ".attn_q.") || strstr(name, ".attn_k."));
        data[n] = e->data;
        bytes[n] = e->bytes;
        if (is_paired) data[n] = paired_rows(c, e, model->config.head_width);
        if (e->rank == 1) {
            data[n] = widened(c, e);
            bytes[n] = (size_t)e->shape[0] * sizeof(float);
        }
        icae_gguf_put_tensor(&c->out, name, e->rank == 1 ? ICAE_DTYPE_F32 : e->dtype, e->rank,
                             e->shape);
        n++;
    }
    bool has_divisors = model->config.rope.type == ICAE_ROPE_LLAMA3;
    if (has_divisors) put_divisors(c, model, divisors);
    for (size_t i = 0; i < n; i++)
        icae_gguf_write_data(&c->out, data[i], bytes[i]);
    if (has_divisors) {
        icae_gguf_write_data(&c->out, divisors,
                             (size_t)(model->config.head_width / 2) * sizeof *divisors);
    }
}

/* Ids, types, and merges or scores: a token's score is the place of the merge that makes it. */
static void put_tokenizer(conversion *c, const icae_json_value *root, const icae_model *model) {
    const icae_json_value *part = icae_json_member(root, "model");
    const icae_json_value *merges = icae_json_member(part, "merges");
    size_t n = (size_t)icae_tokenizer_size(model->tokenizer),
           n_merges = icae_json_count(merges);
    const char **tokens = calloc(n, sizeof *tokens),
               **joined = calloc(n_merges, sizeof *joined);
    int32_t *types = calloc(n, sizeof *types);
    float *scores = calloc(n, sizeof *scores);
    ck_assert(tokens && joined && types && scores);
    int64_t id;
    for (size_t i = 0; i < n; i++)
        types[i] = 1;
    for (const icae_json_value *v = icae_json_first(icae_json_member(part, "vocab")); v;
         v = icae_json_next(v)) {
        ck_assert(icae_json_as_integer(v, &id));
        tokens[id] = icae_json_key(v);
        if (!c->golden->pre && strlen(tokens[id]) == 6 && !strncmp(tokens[id], "<0x", 3))
            types[id] = 6;
        scores[id] = -1e6f; /* characters: never the result of a merge */
    }
    for (const icae_json_value *v = icae_json_first(icae_json_member(root, "added_tokens")); v;
         v = icae_json_next(v)) {
        bool is_special = false;
        ck_assert(icae_json_as_integer(icae_json_member(v, "id"), &id));
        icae_json_as_bool(icae_json_member(v, "special"), &is_special);
        tokens[id] = icae_json_as_string(icae_json_member(v, "content"));
        types[id] = is_special ? 3 : 4;
    }
    size_t rank = 0;
    for (const icae_json_value *v = icae_json_first(merges); v; v = icae_json_next(v), rank++) {
        const char *left = icae_json_as_string(icae_json_first(v));
        const char *right = icae_json_as_string(icae_json_next(icae_json_first(v)));
        char *text = malloc(strlen(left) + strlen(right) + 2);
        ck_assert_ptr_nonnull(text);
        sprintf(text, "%s%s", left, right);
        for (size_t i = 0; i < n && !c->golden->pre; i++) {
            bool is_it = tokens[i] && !strcmp(tokens[i], text) && scores[i] <= -1e6f;
            if (is_it) scores[i] = -(float)rank;
        }
        sprintf(text, "%s %s", left, right);
        joined[rank] = text;
    }
    const char *kind = c->golden->pre ? "gpt2" : "llama";
    icae_gguf_put_string(&c->out, "tokenizer.ggml.model", kind);
    icae_gguf_put_strings(&c->out, "tokenizer.ggml.tokens", tokens, n);
    icae_gguf_item item = {.key = "tokenizer.ggml.token_type",
                           .type = ICAE_GGUF_ARRAY,
                           .element_type = ICAE_GGUF_I32,
                           .count = n,
                           .raw = (const unsigned char *)types};
    icae_gguf_put_item(&c->out, &item);
    if (c->golden->pre) {
        icae_gguf_put_string(&c->out, "tokenizer.ggml.pre", c->golden->pre);
        icae_gguf_put_strings(&c->out, "tokenizer.ggml.merges", joined, n_merges);
    } else {
        item.key = "tokenizer.ggml.scores";
        item.element_type = ICAE_GGUF_F32;
        item.raw = (const unsigned char *)scores;
        icae_gguf_put_item(&c->out, &item);
        icae_gguf_put_bool(&c->out, "tokenizer.ggml.add_space_prefix",
                           strcmp(c->golden->architecture, "gemma3") != 0);
    }
    icae_gguf_put_u32(&c->out, "tokenizer.ggml.bos_token_id",
                      (uint32_t)icae_tokenizer_bos(model->tokenizer));
    icae_gguf_put_u32(&c->out, "tokenizer.ggml.eos_token_id",
                      (uint32_t)icae_tokenizer_eos(model->tokenizer));
    for (size_t i = 0; i < n_merges; i++)
        free((char *)(uintptr_t)joined[i]);
    free(tokens), free(joined), free(types), free(scores);
}

/* Writes tests/golden/NAME/model as a GGUF, without the tensor left_out if that is not NULL. */
static void convert(const golden *g, const char *left_out, const char *path) {
    char folder[64];
    snprintf(folder, sizeof folder, "tests/golden/%s/model", g->name);
    icae_json *config, *tokenizer;
    icae_model *model;
    conversion c = {.golden = g, .left_out = left_out};
    ck_ok(icae_json_open(&config, test_path(folder, "config.json"), &error));
    ck_ok(icae_json_open(&tokenizer, test_path(folder, "tokenizer.json"), &error));
    ck_ok(icae_safetensors_open(&c.weights, test_path(folder, "model.safetensors"), &error));
    ck_ok(icae_model_open(&model, folder, &error));
    c.config = icae_json_root(config);
    icae_gguf_begin(&c.out, path);
    put_config(&c);
    put_tokenizer(&c, icae_json_root(tokenizer), model);
    put_weights(&c, model);
    ck_ok(icae_gguf_commit(&c.out, &error));
    for (size_t i = 0; i < c.n_kept; i++)
        free(c.kept[i]);
    icae_model_close(model);
    icae_safetensors_close(&c.weights);
    icae_json_free(config);
    icae_json_free(tokenizer);
}

/* ---- agreement ---- */

static icae_text failed;

static void note_failure(void *user, const icae_check *check) {
    (void)user;
    if (check->is_ok) return;
    icae_text_printf(&failed, " %s (%g > %g, %s)", check->name, check->error, check->limit,
                     check->note);
}

static void copy(const char *from, const char *folder, const char *name) {
    char *data;
    size_t bytes;
    ck_ok(icae_file_read(test_path(from, name), 1 << 26, &data, &bytes, &error));
    ck_ok(icae_file_write(test_path(folder, name), data, bytes, &error));
    free(data);
}

/* One text in a file replaced by one of the same length. */
static void patch(const char *path, const char *from, const char *to, size_t n) {
    char *data;
    size_t bytes;
    ck_ok(icae_file_read(path, 1 << 26, &data, &bytes, &error));
    size_t at = 0;
    while (at + n <= bytes && memcmp(data + at, from, n))
        at++;
    ck_assert_msg(at + n <= bytes, "%s is not in %s", from, path);
    memcpy(data + at, to, n);
    ck_ok(icae_file_write(path, data, bytes, &error));
    free(data);
}

/* The golden folder without its model, and the model as GGUF beside it. */
static void agrees(const golden *g) {
    static const char *const files[] = {"expected.json",
                                        "expected.safetensors",
                                        "adapter/icae.json",
                                        "adapter/adapter_config.json",
                                        "adapter/adapter_model.safetensors",
                                        "adapter/memory.safetensors"};
    char from[64];
    snprintf(from, sizeof from, "tests/golden/%s", g->name);
    const char *folder = test_folder("base-gguf");
    ck_ok(icae_folder_make(test_path(folder, "adapter"), &error));
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++)
        copy(from, folder, files[i]);
    /* Ten steps of training tell no more about a file than the gradients do. */
    patch(test_path(folder, "expected.json"), "\"adamw\"", "\"steps\"", 7);
    char path[640];
    snprintf(path, sizeof path, "%s/base.gguf", folder);
    convert(g, NULL, path);
    icae_backend *be;
    icae_checks checks = {.callback = note_failure};
    icae_text_clear(&failed);
    ck_ok(icae_backend_create(&be, NULL, 0, &error));
    ck_ok(icae_selftest_golden(&checks, folder, path, be, &error));
    ck_assert_int_ge(checks.n, 17);
    ck_assert_msg(checks.n_failed == 0, "%s:%s", g->name, icae_text_string(&failed));
    icae_backend_free(be);
}

/* llama.cpp's names of weights are the row's of the architecture, which has one name for config.json and
 * may have another in a GGUF. */
START_TEST(an_adapter_of_a_gguf_is_exported_and_read_back) {
    for (int i = 0; i < N_GOLDENS; i++) {
        const char *folder = test_folder("base-gguf-lora");
        char path[640], lora[640];
        snprintf(path, sizeof path, "%s/base.gguf", folder);
        snprintf(lora, sizeof lora, "%s/lora.gguf", folder);
        convert(&goldens[i], NULL, path);
        icae_backend *be;
        icae_model *model;
        icae_adapter *adapter, *again;
        ck_ok(icae_backend_create(&be, NULL, 1, &error));
        ck_ok(icae_model_open(&model, path, &error));
        icae_adapter_settings settings = icae_adapter_defaults(model);
        settings.memory_slots = settings.rank = 2;
        ck_ok(icae_adapter_create(&adapter, model, &settings, 1, be, false, &error));
        ck_ok(icae_adapter_export_gguf(adapter, lora, model, ICAE_DTYPE_F32, &error));
        icae_import given = {.layout = -1};
        ck_ok(icae_adapter_import_gguf(&again, lora, &given, model, be, &error));
        icae_adapter_free(again);
        icae_adapter_free(adapter);
        icae_model_close(model);
        icae_backend_free(be);
    }
}
END_TEST

/* A window is what tells a Mistral from a Llama in a GGUF, and Llama 3's scaling is a tensor: these
 * open as another architecture than the folder's, yet all numbers are those of the folder. */
START_TEST(a_gguf_gives_what_its_folder_gives) {
    for (int i = 0; i < N_GOLDENS; i++) {
        /* A GGUF has scale and frequencies as float, too coarse for the limits in double. */
        bool is_coarse =
            !strcmp(goldens[i].name, "llama3") || !strcmp(goldens[i].name, "gemma3");
        if (!is_coarse || sizeof(icae_real) == sizeof(float)) agrees(&goldens[i]);
    }
}
END_TEST

/* Files without the kind of scaling are read by llama.cpp as linear where they have a factor. */
START_TEST(a_factor_alone_scales_rope_linearly) {
    const golden *g = &goldens[0];
    while (strcmp(g->name, "gemma3"))
        g++;
    char path[640];
    snprintf(path, sizeof path, "%s/base.gguf", test_folder("base-gguf-factor"));
    icae_model *model;
    icae_rope_scaling ropes[2];
    for (int i = 0; i < 2; i++) {
        convert(g, NULL, path);
        if (i) patch(path, "rope.scaling.type", "rope.scaling.kind", 17);
        ck_ok(icae_model_open(&model, path, &error));
        ropes[i] = model->config.rope;
        icae_model_close(model);
    }
    ck_assert_int_eq(ropes[0].type, ICAE_ROPE_LINEAR);
    ck_assert_int_eq(ropes[1].type, ICAE_ROPE_LINEAR);
    ck_assert(ropes[0].factor > 1 && !(ropes[1].factor < ropes[0].factor) &&
              !(ropes[1].factor > ropes[0].factor));
}
END_TEST

/* ---- refusals ---- */

static void refused_at_once(const char *path, const char *part) {
    struct timespec start, end;
    icae_model *model;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &start);
    icae_status status = icae_model_open(&model, path, &error);
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &end);
    double spent =
        (double)(end.tv_sec - start.tv_sec) + 1e-9 * (double)(end.tv_nsec - start.tv_nsec);
    ck_assert_msg(status != ICAE_OK, "%s was accepted", path);
    ck_assert_msg(strstr(error.message, part) != NULL, "\"%s\" lacks \"%s\"", error.message,
                  part);
    ck_assert_msg(strstr(error.message, path) != NULL, "does not name the file: %s",
                  error.message);
    ck_assert_msg(strchr(error.message, '\n') == NULL, "more than a line: %s", error.message);
    ck_assert_msg(spent < 1, "%s was refused after %.1f s only", path, spent);
}

static void cut(const char *path, size_t off) {
    char *data;
    size_t bytes;
    ck_ok(icae_file_read(path, 1 << 26, &data, &bytes, &error));
    ck_ok(icae_file_write(path, data, bytes - off, &error));
    free(data);
}

START_TEST(a_gguf_that_is_no_base_is_refused_at_once) {
    const golden *g = &goldens[0];
    char path[640]; /* test_path's own do not last */
    snprintf(path, sizeof path, "%s/base.gguf", test_folder("base-gguf-bad"));
    convert(g, NULL, path);
    cut(path, 1000);
    refused_at_once(path, "fetch it again");
    convert(g, "blk.2.ffn_down.weight", path);
    refused_at_once(path, "the tensor blk.2.ffn_down.weight is missing");
    convert(g, NULL, path);
    patch(path, "\5\0\0\0\0\0\0\0llama", "\5\0\0\0\0\0\0\0mamba", 13);
    refused_at_once(path, "the architecture 'mamba' is not known; known are: llama");
    convert(g, NULL, path); /* the width, as u32 */
    patch(path, "embedding_length\4\0\0\0\x40", "embedding_length\4\0\0\0\x20", 21);
    refused_at_once(path, "does not have the shape");
    convert(g, NULL, path); /* a rank of 1, a length of 64, and the type of the norm, 0: F32 */
    patch(path, "output_norm.weight\1\0\0\0\x40\0\0\0\0\0\0\0\0",
          "output_norm.weight\1\0\0\0\x40\0\0\0\0\0\0\0\x63", 31);
    refused_at_once(path, "output_norm.weight");
    icae_gguf_writer
        part; /* the first of several may hold no tensor, the others name no architecture */
    icae_gguf_begin(&part, path);
    icae_gguf_put_u32(&part, "split.no", 1);
    icae_gguf_put_u32(&part, "split.count", 3);
    ck_ok(icae_gguf_commit(&part, &error));
    refused_at_once(path, "is one of the 3 parts of a base");
}
END_TEST

/* What would be computed otherwise than the model was trained is refused by its key. */
START_TEST(a_value_that_is_not_computed_is_refused) {
    static const struct {
        const char *key;
        bool is_flag;
        double value;
    } cases[] = {{"llama.attn_logit_softcapping", false, 50},
                 {"llama.final_logit_softcapping", false, 30},
                 {"llama.attention.causal", true, 0},
                 {"llama.rope.scale_linear", false, 2}};
    char path[640], changed[640];
    const char *folder = test_folder("base-gguf-values");
    snprintf(path, sizeof path, "%s/base.gguf", folder);
    snprintf(changed, sizeof changed, "%s/changed.gguf", folder);
    convert(&goldens[0], NULL, path);
    icae_gguf file;
    ck_ok(icae_gguf_open(&file, path, &error));
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        icae_gguf_writer out;
        icae_gguf_begin(&out, changed);
        for (size_t k = 0; k < file.n_items; k++)
            icae_gguf_put_item(&out, &file.items[k]);
        if (cases[i].is_flag)
            icae_gguf_put_bool(&out, cases[i].key, cases[i].value > 0);
        else
            icae_gguf_put_f32(&out, cases[i].key, (float)cases[i].value);
        ck_ok(icae_gguf_commit(&out, &error));
        refused_at_once(changed, cases[i].key);
    }
    icae_gguf_close(&file);
}
END_TEST

static const char *folder_copy(void) {
    static const char *const names[] = {"config.json", "model.safetensors", "tokenizer.json"};
    const char *folder = test_folder("base-folder");
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        copy("tests/golden/llama/model", folder, names[i]);
    return folder;
}

START_TEST(a_folder_that_is_no_base_is_refused_at_once) {
    const char *folder = folder_copy();
    cut(test_path(folder, "model.safetensors"), 1000);
    refused_at_once(folder, "model.safetensors");
    folder = folder_copy();
    patch(test_path(folder, "model.safetensors"), "model.norm.weight", "model.warm.weight", 17);
    refused_at_once(folder, "the tensor model.norm.weight is missing");
    folder = folder_copy();
    patch(test_path(folder, "model.safetensors"), "\"BF16\"", "\"XF16\"", 6);
    refused_at_once(folder, "XF16");
    folder = folder_copy();
    patch(test_path(folder, "config.json"), "\"llama\"", "\"mamba\"", 7);
    refused_at_once(folder, "the architecture 'mamba' is not known; known are: llama");
    folder = folder_copy();
    patch(test_path(folder, "config.json"), "\"hidden_size\": 64", "\"hidden_size\": 32", 17);
    refused_at_once(folder, "does not have the shape");
    folder = folder_copy();
    ck_assert_int_eq(remove(test_path(folder, "tokenizer.json")), 0);
    refused_at_once(folder, "tokenizer.json");
}
END_TEST

#if !defined(ICAE_F64) && !defined(__SANITIZE_ADDRESS__)
START_TEST(half_of_the_real_base_is_refused_at_once) {
    const char *base = test_base_model();
    ck_assert_msg(base != NULL, "the base model is not there: run \"make base\"");
    char path[640];
    snprintf(path, sizeof path, "%s/half.gguf", test_folder("base-gguf-half"));
    char *data;
    size_t bytes;
    ck_ok(icae_file_read(base, 1 << 28, &data, &bytes, &error));
    ck_ok(icae_file_write(path, data, bytes / 2, &error));
    free(data);
    refused_at_once(path, "fetch it again");
    ck_assert_int_eq(remove(path), 0);
}
END_TEST
#define REAL_BASE_TESTS , half_of_the_real_base_is_refused_at_once
#else
#define REAL_BASE_TESTS
#endif

SUITE_OF(base_gguf, 300, a_gguf_gives_what_its_folder_gives,
         an_adapter_of_a_gguf_is_exported_and_read_back, a_factor_alone_scales_rope_linearly,
         a_gguf_that_is_no_base_is_refused_at_once, a_value_that_is_not_computed_is_refused,
         a_folder_that_is_no_base_is_refused_at_once REAL_BASE_TESTS)
