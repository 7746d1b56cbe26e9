/* SPDX-License-Identifier: MIT */
/*
 * The table of chat templates, and what it becomes; the contract stands in icae/chat.h.
 *
 * Sources of the facts: the chat_template and special tokens in tokenizer_config.json of
 * Qwen/Qwen2.5-7B-Instruct, Qwen/Qwen2-7B-Instruct, Qwen/Qwen3-8B, HuggingFaceTB/SmolLM2-135M-Instruct,
 * meta-llama/Llama-2-7b-chat-hf, Meta-Llama-3-8B-Instruct and Llama-3.1-8B-Instruct,
 * mistralai/Mistral-7B-Instruct-v0.1 to v0.3 and google/gemma-2-9b-it. tests/interop/chat_templates.py
 * compares the table with templates of these forms.
 *
 * Where a family puts a system part of its own when none is given (SmolLM2, Qwen2, Llama 3.1), it is
 * part of the prefix. Qwen3 gives none, and unless told otherwise opens an answer as ChatML does. Llama
 * 3.1's names a date: the one that its template falls back on, since a text that changes by the day
 * could not be trained on.
 *
 * Llama 2 and Mistral print spaces around [INST] and [/INST]. Theirs are SentencePiece-style
 * tokenizers, which put that space themselves before every section that is encoded by itself (question,
 * answer and these texts are); Mistral's newest template, of a byte-level tokenizer, has none. So the
 * texts here have none either. One token of Llama 2's is left out: the lone space that ends an earlier
 * answer in its dialogues, which such a tokenizer cannot spell as a section.
 */
#include "icae/chat.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "formats/quote.h"
#include "icae/log.h"
#include "icae/text.h"

enum { MOST_TOKENS = 5, MOST_MARKS = 3 };

typedef struct preset {
    const char *name, *prefix, *suffix, *turn, *end;
    const char *tokens[MOST_TOKENS]; /* must be single tokens of the vocabulary; NULL ends it */
    const char *marks[MOST_MARKS];   /* all of these are in the template's text ... */
    const char *lacks[MOST_MARKS];   /* ... and none of these */
    const char *own;                 /* a token that no other family has, or NULL */
} preset;

#define CHATML_USER "<|im_start|>user\n"
#define CHATML(name_, system_)                                                                 \
    .name = name_, .prefix = system_ CHATML_USER,                                              \
    .suffix = "<|im_end|>\n<|im_start|>assistant\n", .turn = "<|im_end|>\n" CHATML_USER,       \
    .end = "<|im_end|>", .tokens = {"<|im_start|>", "<|im_end|>"}
#define CHATML_SYSTEM(text) "<|im_start|>system\n" text "<|im_end|>\n"

#define HEADER(role) "<|start_header_id|>" role "<|end_header_id|>\n\n"
#define LLAMA3(name_, system_)                                                                 \
    .name = name_, .prefix = "<|begin_of_text|>" system_ HEADER("user"),                       \
    .suffix = "<|eot_id|>" HEADER("assistant"), .turn = "<|eot_id|>" HEADER("user"),           \
    .end = "<|eot_id|>",                                                                       \
    .tokens = {"<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"}
#define LLAMA31_SYSTEM                                                                         \
    HEADER("system")                                                                           \
    "Cutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024\n\n<|eot_id|>"

/* A template belongs to the first row that fits: those with more marks stand before those with fewer. */
static const preset presets[] = {
    {.name = "none", .prefix = "", .suffix = "", .turn = "", .end = ""},
    {CHATML("smollm2", CHATML_SYSTEM("You are a helpful AI assistant named SmolLM, "
                                     "trained by Hugging Face")),
     .marks = {"<|im_start|>", "named SmolLM, trained by Hugging Face<|im_end|>"}},
    {CHATML("qwen2.5", CHATML_SYSTEM("You are Qwen, created by Alibaba Cloud. "
                                     "You are a helpful assistant.")),
     .marks = {"<|im_start|>", "You are Qwen, created by Alibaba Cloud."}},
    {CHATML("qwen2", CHATML_SYSTEM("You are a helpful assistant.")),
     .marks = {"<|im_start|>", "You are a helpful assistant.<|im_end|>"}},
    /* Phi-4 has a separator of its own, SmolLM3 a long system part, and others one that begins so. */
    {CHATML("chatml", ""), .marks = {"<|im_start|>", "<|im_end|>"},
     .lacks = {"<|im_sep|>", "## Metadata", "You are a "}, .own = "<|im_start|>"},
    {LLAMA3("llama3.1", LLAMA31_SYSTEM),
     .marks = {"<|start_header_id|>", "<|eot_id|>", "Cutting Knowledge Date"}},
    {LLAMA3("llama3", ""), .marks = {"<|start_header_id|>", "<|eot_id|>"},
     .own = "<|start_header_id|>"},
    {.name = "llama2",
     .prefix = "<s>[INST]",
     .suffix = "[/INST]",
     .turn = "</s><s>[INST]",
     .end = "</s>",
     .tokens = {"<s>", "</s>"},
     .marks = {"[INST]", "<<SYS>>"}},
    {.name = "mistral",
     .prefix = "<s>[INST]",
     .suffix = "[/INST]",
     .turn = "</s>[INST]",
     .end = "</s>",
     .tokens = {"<s>", "</s>"},
     .marks = {"[INST]", "[/INST]"},
     .lacks = {"<<SYS>>", "[SYSTEM_PROMPT]"}},
    {.name = "gemma",
     .prefix = "<bos><start_of_turn>user\n",
     .suffix = "<end_of_turn>\n<start_of_turn>model\n",
     .turn = "<end_of_turn>\n<start_of_turn>user\n",
     .end = "<end_of_turn>",
     .tokens = {"<bos>", "<start_of_turn>", "<end_of_turn>"},
     .marks = {"<start_of_turn>", "<end_of_turn>", "model"},
     .lacks = {"developer"},
     .own = "<start_of_turn>"},
};
enum { N_PRESETS = sizeof presets / sizeof presets[0] };

const char *icae_chat_name(size_t i) {
    return i < N_PRESETS ? presets[i].name : NULL;
}

static const preset *find_preset(const char *name) {
    for (size_t i = 0; i < N_PRESETS; i++) {
        if (!strcmp(presets[i].name, name)) return &presets[i];
    }
    return NULL;
}

/* ---- tokens ---- */

/* *id: what the text becomes as a template's text, or -1 when that is not exactly one token. */
static icae_status single_token(const icae_tokenizer *tokenizer, const char *text, int32_t *id,
                                icae_error *error) {
    int32_t *ids = NULL;
    size_t count = 0;
    icae_status status =
        icae_tokenizer_encode(tokenizer, text, strlen(text), true, &ids, &count, error);
    *id = !status && count == 1 ? ids[0] : -1;
    free(ids);
    return status;
}

/* The first token of the preset that the tokenizer lacks, or NULL. */
static const char *missing_token(const preset *p, const icae_tokenizer *tokenizer) {
    for (size_t i = 0; i < MOST_TOKENS && p->tokens[i]; i++) {
        if (!icae_tokenizer_is_special(tokenizer, icae_tokenizer_find(tokenizer, p->tokens[i])))
            return p->tokens[i];
    }
    return NULL;
}

/* ---- choosing ---- */

static bool fits(const preset *p, const char *template_text) {
    if (!p->marks[0]) return false;
    for (size_t i = 0; i < MOST_MARKS; i++) {
        if (p->marks[i] && !strstr(template_text, p->marks[i])) return false;
        if (p->lacks[i] && strstr(template_text, p->lacks[i])) return false;
    }
    return true;
}

const char *icae_chat_choose(const icae_tokenizer *tokenizer, bool *is_known) {
    const char *text = tokenizer ? icae_tokenizer_chat_template(tokenizer) : NULL;
    if (is_known) *is_known = true;
    if (!text) return presets[0].name;
    for (size_t i = 0; i < N_PRESETS; i++) {
        if (fits(&presets[i], text) && !missing_token(&presets[i], tokenizer))
            return presets[i].name;
    }
    if (is_known) *is_known = false;
    for (size_t i = 0; i < N_PRESETS; i++) {
        if (presets[i].own && !missing_token(&presets[i], tokenizer)) return presets[i].name;
    }
    return presets[0].name;
}

void icae_chat_warn(const char *path, const char *chosen) {
    icae_log_warning(
        "%s: its chat template is none of those known here; questions are set in "
        "'%s', chosen by the tokens of its vocabulary (adapter.chat_template names "
        "another)",
        path, chosen);
}

/* ---- settings ---- */

/* One text of the settings, and where wish and preset have it. */
typedef struct text_field {
    const char *key;
    char *to;
    size_t room;
    const char *wished;
} text_field;

enum { N_FIELDS = 4 };

static void list_fields(icae_adapter_settings *s, const icae_chat_wish *wish,
                        text_field fields[N_FIELDS]) {
    fields[0] =
        (text_field){"chat_prefix", s->chat_prefix, sizeof s->chat_prefix, wish->prefix};
    fields[1] =
        (text_field){"chat_suffix", s->chat_suffix, sizeof s->chat_suffix, wish->suffix};
    fields[2] = (text_field){"chat_turn", s->chat_turn, sizeof s->chat_turn, wish->turn};
    fields[3] = (text_field){"chat_end", s->chat_end, sizeof s->chat_end, wish->end};
}

static void set_preset(icae_adapter_settings *s, const preset *p) {
    snprintf(s->chat_template, sizeof s->chat_template, "%s", p->name);
    snprintf(s->chat_prefix, sizeof s->chat_prefix, "%s", p->prefix);
    snprintf(s->chat_suffix, sizeof s->chat_suffix, "%s", p->suffix);
    snprintf(s->chat_turn, sizeof s->chat_turn, "%s", p->turn);
    snprintf(s->chat_end, sizeof s->chat_end, "%s", p->end);
}

static icae_status refuse_name(const char *name, const char *where, icae_error *error) {
    icae_text names = {0};
    for (size_t i = 0; i < N_PRESETS; i++)
        icae_text_printf(&names, "%s, ", presets[i].name);
    icae_status status =
        icae_fail(error, ICAE_INVALID, "%schat_template: '%s' is unknown; expected %sor %s",
                  where, icae_quote_string(name).text, icae_text_string(&names),
                  ICAE_CHAT_CUSTOM " with texts of your own");
    icae_text_release(&names);
    return status;
}

icae_status icae_chat_apply(icae_adapter_settings *settings, const icae_chat_wish *wish,
                            const icae_tokenizer *tokenizer, const char *where,
                            icae_error *error) {
    bool is_custom = wish->name && !strcmp(wish->name, ICAE_CHAT_CUSTOM), is_changed = false;
    const preset *named =
        !wish->name ? NULL : find_preset(is_custom ? presets[0].name : wish->name);
    if (wish->name && !named) return refuse_name(wish->name, where, error);
    if (named) set_preset(settings, named);
    text_field fields[N_FIELDS];
    list_fields(settings, wish, fields);
    bool is_other_suffix = wish->suffix && strcmp(wish->suffix, settings->chat_suffix) != 0;
    for (size_t i = 0; i < N_FIELDS; i++) {
        const text_field *f = &fields[i];
        bool is_emptied = !f->wished && is_other_suffix && i >= 2;
        const char *text = is_emptied ? "" : f->wished;
        if (!text || !strcmp(text, f->to)) continue;
        if (named && !is_custom) {
            return icae_fail(error, ICAE_INVALID,
                             "%s%s: is another than that of the preset '%s'; remove it, or "
                             "%schat_template",
                             where, f->key, named->name, where);
        }
        size_t length = strlen(text);
        if (length >= f->room) {
            return icae_fail(error, ICAE_INVALID, "%s%s: has %zu bytes, expected at most %zu",
                             where, f->key, length, f->room - 1);
        }
        memcpy(f->to, text, length + 1);
        is_changed = true;
    }
    if (is_changed || is_custom)
        snprintf(settings->chat_template, sizeof settings->chat_template, "%s",
                 ICAE_CHAT_CUSTOM);
    return icae_chat_check(settings, tokenizer, where, error);
}

icae_status icae_chat_check(const icae_adapter_settings *settings,
                            const icae_tokenizer *tokenizer, const char *where,
                            icae_error *error) {
    const struct {
        const char *key, *text;
        size_t room;
    } texts[] = {
        {"chat_template", settings->chat_template, sizeof settings->chat_template},
        {"chat_prefix", settings->chat_prefix, sizeof settings->chat_prefix},
        {"chat_suffix", settings->chat_suffix, sizeof settings->chat_suffix},
        {"chat_turn", settings->chat_turn, sizeof settings->chat_turn},
        {"chat_end", settings->chat_end, sizeof settings->chat_end},
    };
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        if (memchr(texts[i].text, 0, texts[i].room)) continue;
        return icae_fail(error, ICAE_INVALID, "%s%s: is longer than %zu bytes", where,
                         texts[i].key, texts[i].room - 1);
    }
    if (!tokenizer) return ICAE_OK;
    const preset *p = find_preset(settings->chat_template);
    const char *missing = p ? missing_token(p, tokenizer) : NULL;
    if (missing) {
        return icae_fail(error, ICAE_MISMATCH,
                         "%schat_template: '%s' needs the token %s, which the base's tokenizer "
                         "does not have; choose another, or %s",
                         where, p->name, missing, ICAE_CHAT_CUSTOM " with texts of your own");
    }
    int32_t end = 0;
    icae_status status = *settings->chat_end
                             ? single_token(tokenizer, settings->chat_end, &end, error)
                             : ICAE_OK;
    if (status || end >= 0) return status;
    return icae_fail(error, ICAE_MISMATCH,
                     "%schat_end: '%s' is not one token of the base's tokenizer; name one that "
                     "is, or none to end answers with the end-of-text token",
                     where, icae_quote_string(settings->chat_end).text);
}

/* ---- encoding ---- */

static icae_status encode(const icae_tokenizer *tokenizer, const char *text, bool is_template,
                          int32_t **ids, int64_t *n, icae_error *error) {
    size_t count = 0;
    icae_status status =
        icae_tokenizer_encode(tokenizer, text, strlen(text), is_template, ids, &count, error);
    *n = status ? 0 : (int64_t)count;
    return status;
}

icae_status icae_chat_encode(icae_chat_ids *chat, const icae_adapter_settings *settings,
                             const icae_tokenizer *tokenizer, icae_error *error) {
    *chat = (icae_chat_ids){.end = icae_adapter_stop(settings, tokenizer)};
    icae_status status = icae_chat_check(settings, tokenizer, "", error);
    if (!status && *settings->chat_end && !settings->has_stop_id)
        status = single_token(tokenizer, settings->chat_end, &chat->end, error);
    if (!status)
        status = encode(tokenizer, settings->chat_prefix, true, &chat->prefix, &chat->n_prefix,
                        error);
    if (!status)
        status = encode(tokenizer, settings->chat_suffix, true, &chat->suffix, &chat->n_suffix,
                        error);
    if (!status)
        status =
            encode(tokenizer, settings->chat_turn, true, &chat->turn, &chat->n_turn, error);
    if (status) icae_chat_release(chat);
    return status;
}

void icae_chat_release(icae_chat_ids *chat) {
    free(chat->prefix);
    free(chat->suffix);
    free(chat->turn);
    *chat = (icae_chat_ids){0};
}

void icae_chat_prompt(const icae_chat_ids *chat, const int32_t *question, int64_t n,
                      int32_t *out) {
    if (n) memcpy(out, question, (size_t)n * sizeof *out);
    if (chat->n_suffix) memcpy(out + n, chat->suffix, (size_t)chat->n_suffix * sizeof *out);
}

/* ---- dialogues ---- */

typedef struct id_list {
    int32_t *ids;
    int64_t n, room;
} id_list;

/* Room for `more` ids behind those that are there. */
static int32_t *grow(id_list *list, int64_t more, icae_error *error) {
    if (more > list->room - list->n) {
        int64_t room = 2 * list->room + more;
        int32_t *larger = realloc(list->ids, (size_t)(room ? room : 1) * sizeof *larger);
        if (!larger) {
            icae_fail_memory(error, "a dialogue");
            return NULL;
        }
        list->ids = larger;
        list->room = room;
    }
    int32_t *at = list->ids + list->n;
    list->n += more;
    return at;
}

static icae_status add_question(id_list *list, const icae_chat_ids *chat,
                                const icae_tokenizer *tokenizer, const char *question,
                                icae_error *error) {
    int32_t *asked = NULL;
    int64_t n;
    icae_status status = encode(tokenizer, question, false, &asked, &n, error);
    /* One more than needed, so that an empty prompt has its array, too. */
    int32_t *to = status ? NULL : grow(list, n + chat->n_suffix + 1, error);
    if (to) {
        icae_chat_prompt(chat, asked, n, to);
        list->n--;
    }
    free(asked);
    return status ? status : to ? ICAE_OK : ICAE_MEMORY;
}

static icae_status add_turn(id_list *list, const icae_chat_ids *chat,
                            const icae_tokenizer *tokenizer, const icae_turn *turn,
                            icae_error *error) {
    int32_t *answer = NULL;
    int64_t n;
    icae_status status = add_question(list, chat, tokenizer, turn->question, error);
    if (!status) status = encode(tokenizer, turn->answer, false, &answer, &n, error);
    if (status) return status;
    int32_t *to = grow(list, n + chat->n_turn, error);
    if (to && n) memcpy(to, answer, (size_t)n * sizeof *to);
    if (to) memcpy(to + n, chat->turn, (size_t)chat->n_turn * sizeof *to);
    free(answer);
    return to ? ICAE_OK : ICAE_MEMORY;
}

/* For templates that say nothing about dialogues: they become one question. */
static icae_status add_as_text(id_list *list, const icae_chat_ids *chat,
                               const icae_tokenizer *tokenizer, const icae_turn *turns,
                               size_t n_turns, const char *question, icae_error *error) {
    icae_text text = {0};
    for (size_t i = 0; i < n_turns; i++) {
        icae_text_printf(&text, "User: %s\nAssistant: %s\n", turns[i].question,
                         turns[i].answer);
    }
    icae_text_printf(&text, "User: %s", question);
    icae_status status =
        text.failed ? icae_fail_memory(error, "a dialogue")
                    : add_question(list, chat, tokenizer, icae_text_string(&text), error);
    icae_text_release(&text);
    return status;
}

icae_status icae_chat_dialogue(const icae_chat_ids *chat, const icae_tokenizer *tokenizer,
                               const icae_turn *turns, size_t n_turns, const char *question,
                               int32_t **ids, int64_t *n, icae_error *error) {
    id_list list = {0};
    icae_status status = ICAE_OK;
    if (n_turns && !chat->n_turn) {
        status = add_as_text(&list, chat, tokenizer, turns, n_turns, question, error);
    } else {
        for (size_t i = 0; i < n_turns && !status; i++)
            status = add_turn(&list, chat, tokenizer, &turns[i], error);
        if (!status) status = add_question(&list, chat, tokenizer, question, error);
    }
    if (status) free(list.ids);
    *ids = status ? NULL : list.ids;
    *n = status ? 0 : list.n;
    return status;
}
