/* SPDX-License-Identifier: MIT */
/* icae compress: a text becomes a slots file; what it weighs is printed. */
#include <stdlib.h>
#include <string.h>

#include "icae/file.h"
#include "icae/log.h"
#include "speak.h"

/* "notes.txt" -> "notes.slots"; malloc'ed. A dot in a folder's name or at the start of the file's
 * does not begin an ending. */
static char *default_output(const char *path) {
    const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
    const char *dot = strrchr(name, '.');
    size_t stem = dot && dot > name ? (size_t)(dot - path) : strlen(path);
    char *output = malloc(stem + sizeof ".slots");
    if (!output) return NULL;
    memcpy(output, path, stem);
    memcpy(output + stem, ".slots", sizeof ".slots");
    return output;
}

static int print_sizes(const options *given, const speaker *s, const char *output,
                       size_t text_bytes, double elapsed_s) {
    icae_slots_info info = icae_slots_describe(s->slots);
    int64_t file_bytes = icae_file_bytes(output);
    double cache_bytes = (double)icae_base_cache_bytes(s->base, info.source_tokens);
    double rate = (double)info.source_tokens / (double)info.slots;
    if (given->is_json) {
        json_object object;
        json_begin(&object);
        json_string(&object, "file", output, strlen(output));
        json_integer(&object, "text_bytes", (int64_t)text_bytes);
        json_integer(&object, "tokens", info.source_tokens);
        json_integer(&object, "spans", info.spans);
        json_integer(&object, "slots", info.slots);
        json_integer(&object, "width", info.width);
        json_integer(&object, "slot_bytes", (int64_t)info.value_bytes);
        json_integer(&object, "file_bytes", file_bytes);
        json_number(&object, "kv_cache_bytes", cache_bytes);
        json_number(&object, "tokens_per_slot", rate);
        json_number(&object, "seconds", elapsed_s);
        return json_end(&object);
    }
    char count[32], text[32], file[32], cache[32];
    printf("text      %s tokens, %s\n", human_count(info.source_tokens, count),
           human_bytes((double)text_bytes, text));
    printf("slots     %s vectors of %lld numbers in %lld span%s: %.2f tokens a slot\n",
           human_count(info.slots, count), (long long)info.width, (long long)info.spans,
           info.spans == 1 ? "" : "s", rate);
    printf("file      %s, %s\n", output, human_bytes((double)file_bytes, file));
    printf("KV cache  %s for the text itself (16-bit): %.1f times the file\n",
           human_bytes(cache_bytes, cache), cache_bytes / (double)file_bytes);
    return finish_output();
}

int run_compress(const options *given) {
    const char *path = given->words[0];
    if (strcmp(path, "-") == 0 && !given->output) {
        return usage_error("compress", "-m BASE -a ADAPTER -o FILE.slots -",
                           "a text from standard input has no name: say where its slots go");
    }
    speaker s = {0};
    icae_error error = {0};
    char *text = NULL, *output = NULL;
    size_t bytes = 0;
    double start_s = 0, elapsed_s = 0;
    icae_status status = read_text(path, &text, &bytes, &error);
    if (!status && bytes == 0) {
        status = icae_fail(&error, ICAE_INVALID, "%s is empty: there is nothing to compress",
                           strcmp(path, "-") == 0 ? "standard input" : path);
    }
    if (!status) {
        warn_about_text(path, text, bytes);
        output = given->output ? strdup(given->output) : default_output(path);
        if (!output) status = icae_fail_memory(&error, "a file name");
    }
    if (!status && strcmp(output, path) == 0) {
        status = icae_fail(&error, ICAE_INVALID,
                           "%s would be overwritten by its own slots; give another -o", path);
    }
    if (!status) status = speaker_open(&s, given, &error);
    if (!status) {
        start_s = icae_clock_seconds();
        status = icae_session_compress(s.session, text, bytes, &s.slots, &error);
        elapsed_s = icae_clock_seconds() - start_s;
    }
    if (!status) {
        int64_t tokens = icae_slots_describe(s.slots).source_tokens;
        int64_t context = icae_base_describe(s.base).context_length;
        if (tokens > context) {
            icae_log_warning("the text has %lld tokens, the base was trained on contexts of "
                             "%lld: it can be compressed, but little of it can be read back",
                             (long long)tokens, (long long)context);
        }
        status = icae_slots_save(s.slots, output, &error);
    }
    int code =
        status ? report_failure(&error) : print_sizes(given, &s, output, bytes, elapsed_s);
    speaker_close(&s);
    free(output);
    free(text);
    return code;
}
