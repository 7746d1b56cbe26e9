/* SPDX-License-Identifier: MIT */
/* Any bytes as JSON lines: every document whole and well-formed, broken lines counted or refused. */
#include "fuzz_folder.h"
#include "icae/corpus.h"
#include "icae/log.h"

static const sound_file sound[] = {{"lines.jsonl", "{\"text\": \"a b\"}\n", 16},
                                   {"text.txt", "a b\n", 4}};

static void read_all(const char *path, bool is_strict) {
    const icae_corpus_options options = {
        .paths = &path, .n_paths = 1, .epochs = 1, .strict = is_strict, .limit_bytes = 1 << 16};
    icae_corpus *corpus;
    icae_error error = {0};
    icae_document document;
    if (icae_corpus_open(&corpus, &options, &error)) {
        fuzz_expect_sentence(&error);
        return;
    }
    do {
        if (icae_corpus_next(corpus, &document, &error)) {
            fuzz_expect_sentence(&error);
            break;
        }
        if (document.text && document.text[document.bytes] != 0) abort();
    } while (document.text);
    icae_corpus_close(corpus);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes) {
    static fuzz_folder folder;
    static char paths[2][160];
    if (!folder.n_files) {
        icae_log_set_level(ICAE_LOG_QUIET);
        fuzz_folder_make(&folder, sound, 2);
        for (int i = 0; i < 2; i++)
            snprintf(paths[i], sizeof paths[i], "%s/%s", folder.path, sound[i].name);
    }
    size_t total = fuzz_folder_fill(&folder, data, bytes);
    fuzz_watch_begin();
    read_all(paths[0], true);
    read_all(paths[0], false);
    if (folder.is_changed[1]) read_all(paths[1], false);
    fuzz_watch_end(total, bound_documents);
    return 0;
}
