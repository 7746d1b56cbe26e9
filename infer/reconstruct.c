/* SPDX-License-Identifier: MIT */
/* icae reconstruct and icae continue: text from slots alone. */
#include <unistd.h>

#include "icae/log.h"
#include "speak.h"

/* A span that its slots do not hold runs on until it is cut, whatever -n says; the report shows which. */
static void tell_why_incomplete(const options *given, const speaker *s, icae_mode mode,
                                const icae_generated *result) {
    bool is_apart = mode == ICAE_RECONSTRUCT && !given->is_together;
    icae_slots_info info = icae_slots_describe(s->slots);
    int64_t most = result->generated_tokens + info.raw_tokens; /* that were told */
    if (is_apart && (given->length == 0 || most < given->length)) {
        icae_log_info("(%s did not end by %s cut: compress --report shows what the slots hold)",
                      info.spans > 1 ? "some spans" : "the text",
                      info.spans > 1 ? "themselves and were" : "itself and was");
        return;
    }
    icae_log_info("(cut after %lld tokens; -n TOKENS asks for more)",
                  (long long)result->generated_tokens);
}

/* The text goes out exactly as it was made: only a terminal gets a line's end behind it. */
static int write_text(const options *given, icae_mode mode) {
    speaker s;
    icae_error error = {0};
    icae_generated result = {0};
    double elapsed_s = 0;
    signals_catch();
    icae_status status = speaker_open(&s, given, &error);
    if (!status) status = speaker_load(&s, given->words, given->n_words, &error);
    if (!status) {
        icae_generation wish = speaker_wish(given, mode, NULL);
        status = speaker_write(&s, &wish, given->is_json, &result, &elapsed_s, &error);
    }
    int code;
    if (status) {
        code = ferror(stdout) ? finish_output() : report_failure(&error);
    } else if (given->is_json) {
        json_object object;
        json_begin(&object);
        json_generated(&object, &result, elapsed_s);
        json_integer(&object, "source_tokens", icae_slots_describe(s.slots).source_tokens);
        code = json_end(&object);
    } else {
        if (isatty(STDOUT_FILENO)) putchar('\n');
        code = finish_output();
        if (!result.is_complete) tell_why_incomplete(given, &s, mode, &result);
        icae_log_detail("%lld tokens in %.2f s", (long long)result.generated_tokens, elapsed_s);
    }
    icae_generated_release(&result);
    speaker_close(&s);
    return code;
}

int run_reconstruct(const options *given) {
    if (given->into) return reconstruct_into(given);
    if (given->n_words > 1) {
        return usage_error("reconstruct", "-m BASE -a ADAPTER FILE.slots... --into FOLDER",
                           "where shall the texts of %d files go? Give --into FOLDER",
                           given->n_words);
    }
    return write_text(given, ICAE_RECONSTRUCT);
}

int run_continue(const options *given) {
    return write_text(given, ICAE_CONTINUE);
}
