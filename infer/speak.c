/* SPDX-License-Identifier: MIT */
/* See speak.h. */
#include "speak.h"

#include "icae/log.h"

icae_status speaker_open(speaker *s, const options *given, icae_error *error) {
    *s = (speaker){0};
    icae_status status = icae_base_open(&s->base, given->base, error);
    if (status) return status;
    icae_base_info info = icae_base_describe(s->base);
    char count[32], bytes[32];
    icae_log_detail("base %s: %s, %s parameters, %s", info.path, info.architecture,
                    human_count(info.parameters, count),
                    human_bytes((double)info.weight_bytes, bytes));
    icae_session_options wishes = {.n_threads = (int)given->threads, .compute = given->compute};
    return icae_session_open(&s->session, s->base, given->adapter, &wishes, error);
}

icae_status speaker_load(speaker *s, const char *const *paths, int n_paths, icae_error *error) {
    for (int i = 0; i < n_paths; i++) {
        icae_slots *slots;
        icae_status status = icae_session_load_slots(s->session, paths[i], &slots, error);
        if (status) return status;
        if (!s->slots) {
            s->slots = slots;
            continue;
        }
        status = icae_slots_join(s->slots, slots, error);
        icae_slots_free(slots);
        if (status) return icae_fail_within(error, "%s", paths[i]);
    }
    return ICAE_OK;
}

void speaker_close(speaker *s) {
    icae_slots_free(s->slots);
    icae_session_close(s->session);
    icae_base_close(s->base);
    *s = (speaker){0};
}

icae_generation speaker_wish(const options *given, icae_mode mode, const char *prompt) {
    /* Who says from which tokens to draw, or with which seed, wants them drawn. */
    const bool is_drawing = given->top_p > 0 || given->top_k > 0 || given->draw_seed >= 0;
    return (icae_generation){.mode = mode,
                             .prompt = prompt,
                             .spans_together = given->is_together,
                             .max_tokens = given->length,
                             .temperature = given->temperature >= 0 ? given->temperature
                                            : is_drawing            ? 1
                                                                    : 0,
                             .top_p = given->top_p,
                             .top_k = given->top_k,
                             .seed = given->draw_seed > 0 ? (uint64_t)given->draw_seed : 0};
}

/* Returns false, which ends the generation, when a signal came or nobody takes the text. */
static bool print_piece(void *user, const char *piece, size_t bytes) {
    const bool *is_silent = user;
    if (!*is_silent && (fwrite(piece, 1, bytes, stdout) < bytes || fflush(stdout)))
        return false;
    return signal_caught() == 0;
}

icae_status speaker_write(speaker *s, const icae_generation *wish, bool is_silent,
                          icae_generated *result, double *elapsed_s, icae_error *error) {
    double start_s = icae_clock_seconds();
    icae_status status = icae_session_generate(s->session, s->slots, wish, print_piece,
                                               &is_silent, result, error);
    if (elapsed_s) *elapsed_s = icae_clock_seconds() - start_s;
    return status;
}

void json_generated(json_object *object, const icae_generated *result, double elapsed_s) {
    json_string(object, "text", result->text, result->bytes);
    json_integer(object, "prompt_tokens", result->prompt_tokens);
    json_integer(object, "generated_tokens", result->generated_tokens);
    json_bool(object, "complete", result->is_complete);
    json_number(object, "seconds", elapsed_s);
}
