/* SPDX-License-Identifier: MIT */
/*
 * What the settings mean together: required keys, limits that stand for others, and the adapter
 * section against an adapter. The table itself is in settings.c.
 */
#include <string.h>

#include "icae/chat.h"
#include "icae/settings.h"

int64_t icae_settings_context(const icae_settings *settings) {
    if (settings->objective.context_tokens) return settings->objective.context_tokens;
    return settings->adapter.memory_slots * settings->adapter.compression_rate;
}

int64_t icae_settings_continuation(const icae_settings *settings) {
    int64_t tokens = settings->objective.continuation_tokens;
    return tokens ? tokens : icae_settings_context(settings);
}

icae_status icae_settings_check(const icae_settings *settings, icae_error *error) {
    if (!*settings->base) {
        return icae_fail(error, ICAE_INVALID,
                         "base: missing; give the base model's .gguf file or folder "
                         "(--set base=PATH)");
    }
    if (!*settings->out) {
        return icae_fail(error, ICAE_INVALID,
                         "out: missing; give the folder that the run is to be kept in "
                         "(--set out=runs/NAME)");
    }
    if (settings->data.train.count == 0) {
        return icae_fail(error, ICAE_INVALID,
                         "data.train: missing; give files or folders with training text");
    }
    if (!*settings->data.text_field) {
        return icae_fail(error, ICAE_INVALID, "data.text_field: expected the name of a field");
    }
    if (settings->objective.least_context > icae_settings_context(settings)) {
        return icae_fail(error, ICAE_INVALID,
                         "objective.least_context: %lld is more than objective.context_tokens, "
                         "%lld, so no text would do",
                         (long long)settings->objective.least_context,
                         (long long)icae_settings_context(settings));
    }
    int64_t first = settings->objective.first_context;
    if (!first != !settings->objective.grow_steps || first > icae_settings_context(settings) ||
        (first && first < settings->objective.least_context)) {
        return icae_fail(error, ICAE_INVALID,
                         "objective.first_context and objective.grow_steps: %lld and %lld; "
                         "expected both 0, or a length from least_context, %lld, to "
                         "context_tokens, %lld, and the number of steps to grow in",
                         (long long)first, (long long)settings->objective.grow_steps,
                         (long long)settings->objective.least_context,
                         (long long)icae_settings_context(settings));
    }
    if (settings->adapter.targets.count == 0) {
        return icae_fail(error, ICAE_INVALID,
                         "adapter.targets: empty; name at least one module, as \"q_proj\"");
    }
    for (size_t i = 0; i < settings->adapter.targets.count; i++) {
        const char *name = settings->adapter.targets.list[i];
        if (icae_module_from_name(name) != ICAE_MODULE_COUNT) continue;
        return icae_fail(error, ICAE_INVALID,
                         "adapter.targets: '%s' is unknown; expected q_proj, k_proj, v_proj, "
                         "o_proj, gate_proj, up_proj or down_proj",
                         name);
    }
    return ICAE_OK;
}

static void mark_targets(const icae_strings *targets, bool marked[ICAE_MODULE_COUNT + 1]) {
    memset(marked, 0, ICAE_MODULE_COUNT + 1);
    for (size_t i = 0; i < targets->count; i++)
        marked[icae_module_from_name(targets->list[i])] = true; /* the last: of unknown ones */
}

bool icae_settings_same_adapter(const icae_settings *old, const icae_settings *now) {
    bool were[ICAE_MODULE_COUNT + 1], are[ICAE_MODULE_COUNT + 1];
    mark_targets(&old->adapter.targets, were);
    mark_targets(&now->adapter.targets, are);
    return old->adapter.memory_slots == now->adapter.memory_slots &&
           old->adapter.rank == now->adapter.rank && !memcmp(were, are, sizeof were);
}

/* Only values that are not the default: a run's own config.json gives every key. */
size_t icae_settings_idle(const icae_settings *s, icae_text *out) {
    enum {
        MIXED = 1 << ICAE_OBJECTIVE_MIXED,
        BOTH = 1 << ICAE_OBJECTIVE_BOTH,
        INSTRUCT = 1 << ICAE_OBJECTIVE_INSTRUCT
    };
    icae_settings usual;
    icae_settings_init(&usual);
    /* What 0 stands for is written out, too. */
    int64_t continuation = s->objective.continuation_tokens;
    bool is_continued = continuation && continuation != icae_settings_context(s);
    const struct {
        const char *key;
        int kinds;
        bool is_changed;
    } keys[] = {
        {"data.text_field", MIXED | BOTH,
         strcmp(s->data.text_field, usual.data.text_field) != 0},
        {"objective.lm_ratio", MIXED, s->objective.lm_ratio != usual.objective.lm_ratio},
        {"objective.ae_weight", BOTH, s->objective.ae_weight != usual.objective.ae_weight},
        {"objective.ae_share", INSTRUCT, s->objective.ae_share != usual.objective.ae_share},
        {"objective.continuation_tokens", MIXED | BOTH, is_continued},
        {"objective.least_continuation", MIXED | BOTH,
         s->objective.least_continuation != usual.objective.least_continuation},
        {"objective.skip_for_lm", MIXED | BOTH,
         s->objective.skip_for_lm != usual.objective.skip_for_lm},
        {"objective.prompt_tokens", INSTRUCT,
         s->objective.prompt_tokens != usual.objective.prompt_tokens},
        {"objective.answer_tokens", INSTRUCT,
         s->objective.answer_tokens != usual.objective.answer_tokens},
    };
    size_t count = 0;
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) {
        bool is_used = keys[i].kinds >> s->objective.kind & 1;
        if (is_used || !keys[i].is_changed || !icae_settings_has(s, keys[i].key)) continue;
        icae_text_printf(out, "%s%s (of ", count++ ? ", " : "", keys[i].key);
        bool is_first = true;
        for (int kind = 0; kind < ICAE_OBJECTIVE_COUNT; kind++) {
            if (!(keys[i].kinds >> kind & 1)) continue;
            icae_text_printf(out, "%s%s", is_first ? "" : " and ", icae_objective_names[kind]);
            is_first = false;
        }
        icae_text_append_char(out, ')');
    }
    icae_settings_release(&usual);
    return count;
}

static icae_status apply_chat(const icae_settings *settings, const icae_model *model,
                              icae_adapter_settings *out, icae_error *error) {
    icae_chat_wish wish = {.name = settings->adapter.chat_template,
                           .prefix = settings->adapter.chat_prefix,
                           .suffix = settings->adapter.chat_suffix,
                           .turn = settings->adapter.chat_turn,
                           .end = settings->adapter.chat_end};
    return icae_chat_apply(out, &wish, model->tokenizer, "adapter.", error);
}

icae_status icae_settings_adapter(const icae_settings *settings, const icae_model *model,
                                  icae_adapter_settings *out, icae_error *error) {
    *out = icae_adapter_defaults(model);
    out->memory_slots = settings->adapter.memory_slots;
    out->compression_rate = settings->adapter.compression_rate;
    out->layout = (icae_layout)settings->adapter.layout;
    out->memory_init = (icae_memory_init)settings->adapter.memory_init;
    out->memory_inputs = (icae_memory_inputs)settings->adapter.memory_inputs;
    out->slot_values = (icae_slot_values)settings->adapter.slot_values;
    out->rank = settings->adapter.rank;
    out->alpha = settings->adapter.alpha;
    out->dropout = settings->adapter.dropout;
    memset(out->targets, 0, sizeof out->targets);
    for (size_t i = 0; i < settings->adapter.targets.count; i++) {
        out->targets[icae_module_from_name(settings->adapter.targets.list[i])] = true;
    }
    bool is_known;
    const char *chosen = icae_chat_choose(model->tokenizer, &is_known);
    if (!is_known && !settings->adapter.chat_template && !settings->adapter.chat_suffix)
        icae_chat_warn(model->path, chosen);
    return apply_chat(settings, model, out, error);
}

/* Whether the config names a choice that is not the loaded adapter's; then the error is set. */
static bool differs(const icae_settings *settings, const char *key, int given, int loaded,
                    const char *const *names, icae_error *error) {
    if (!icae_settings_has(settings, key) || given == loaded) return false;
    icae_fail(error, ICAE_MISMATCH,
              "%s: the config says %s, but the adapter %s was made with %s; remove the key",
              key, names[given], settings->adapter.start, names[loaded]);
    return true;
}

static icae_status refuse(const icae_settings *settings, const char *key, double given,
                          double loaded, icae_error *error) {
    return icae_fail(error, ICAE_MISMATCH,
                     "%s: the config says %g, but the adapter %s was made with %g; remove the "
                     "key, or start from another adapter",
                     key, given, settings->adapter.start, loaded);
}

/* The loaded targets as names. */
static icae_status adopt_targets(icae_settings *settings, const icae_adapter_settings *loaded,
                                 icae_error *error) {
    bool given[ICAE_MODULE_COUNT] = {false};
    for (size_t i = 0; i < settings->adapter.targets.count; i++) {
        given[icae_module_from_name(settings->adapter.targets.list[i])] = true;
    }
    if (icae_settings_has(settings, "adapter.targets") &&
        memcmp(given, loaded->targets, sizeof given) != 0) {
        return icae_fail(error, ICAE_MISMATCH,
                         "adapter.targets: not the modules that the adapter %s was made with; "
                         "remove the key, or start from another adapter",
                         settings->adapter.start);
    }
    icae_strings names = {0};
    names.list = icae_arena_array(&settings->arena, ICAE_MODULE_COUNT, sizeof *names.list);
    if (!names.list) return icae_fail_memory(error, "the names of adapted modules");
    for (int i = 0; i < ICAE_MODULE_COUNT; i++) {
        if (loaded->targets[i]) names.list[names.count++] = icae_module_name((icae_module)i);
    }
    settings->adapter.targets = names;
    return ICAE_OK;
}

icae_status icae_settings_adopt(icae_settings *settings, const icae_model *model,
                                icae_adapter_settings *loaded, icae_error *error) {
    const struct {
        const char *key;
        int64_t *given, loaded;
    } integers[] = {
        {"adapter.memory_slots", &settings->adapter.memory_slots, loaded->memory_slots},
        {"adapter.compression_rate", &settings->adapter.compression_rate,
         loaded->compression_rate},
        {"adapter.rank", &settings->adapter.rank, loaded->rank},
    };
    for (size_t i = 0; i < sizeof integers / sizeof integers[0]; i++) {
        if (icae_settings_has(settings, integers[i].key) &&
            *integers[i].given != integers[i].loaded) {
            return refuse(settings, integers[i].key, (double)*integers[i].given,
                          (double)integers[i].loaded, error);
        }
        *integers[i].given = integers[i].loaded;
    }
    if (icae_settings_has(settings, "adapter.alpha") &&
        settings->adapter.alpha != loaded->alpha) {
        return refuse(settings, "adapter.alpha", settings->adapter.alpha, loaded->alpha, error);
    }
    settings->adapter.alpha = loaded->alpha;
    if (differs(settings, "adapter.layout", settings->adapter.layout, (int)loaded->layout,
                icae_layout_names, error) ||
        differs(settings, "adapter.memory_inputs", settings->adapter.memory_inputs,
                (int)loaded->memory_inputs, icae_memory_inputs_names, error) ||
        differs(settings, "adapter.slot_values", settings->adapter.slot_values,
                (int)loaded->slot_values, icae_slot_values_names, error)) {
        return ICAE_MISMATCH;
    }
    settings->adapter.layout = (int)loaded->layout;
    settings->adapter.memory_inputs = (int)loaded->memory_inputs;
    settings->adapter.slot_values = (int)loaded->slot_values;
    settings->adapter.memory_init = (int)loaded->memory_init;
    icae_status status = adopt_targets(settings, loaded, error);
    if (status) return status;
    loaded->dropout = settings->adapter.dropout;
    return apply_chat(settings, model, loaded, error);
}

icae_status icae_settings_complete(icae_settings *settings, const icae_adapter_settings *used,
                                   icae_error *error) {
    settings->objective.continuation_tokens = icae_settings_continuation(settings);
    settings->objective.context_tokens = icae_settings_context(settings);
    const struct {
        const char **to, *text;
    } texts[] = {{&settings->adapter.chat_template, used->chat_template},
                 {&settings->adapter.chat_prefix, used->chat_prefix},
                 {&settings->adapter.chat_suffix, used->chat_suffix},
                 {&settings->adapter.chat_turn, used->chat_turn},
                 {&settings->adapter.chat_end, used->chat_end}};
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        *texts[i].to = icae_arena_copy(&settings->arena, texts[i].text, strlen(texts[i].text));
        if (!*texts[i].to) return icae_fail_memory(error, "the settings");
    }
    return ICAE_OK;
}
