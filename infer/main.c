/* SPDX-License-Identifier: MIT */
/*
 * icae: compress texts into memory slots, and read, restore and question them.
 *
 * This file is the table of commands. Reading the command line is options.c, the commands are in files
 * of their own; none of them computes anything itself.
 */
#include <stdlib.h>
#include <string.h>

#include "convert.h"
#include "engine.h"
#include "icae.h"
#include "icae/startup.h"
#include "icae/text.h"
#include "inspect.h"
#include "speak.h"

#define BASE_AND_ADAPTER (TAKES_BASE | TAKES_ADAPTER)
#define COMPUTES         (TAKES_THREADS | TAKES_COMPUTE)
#define WRITES           (COMPUTES | TAKES_SAMPLING | TAKES_LENGTH)

/* clang-format off */
static const command commands[] = {
    {"compress", "-m BASE -a ADAPTER [-o FILE.slots] [--rate N] [--refine N] [--report FILE.html] [--min-fidelity X] [--force] TEXT|-",
     "compress a text into a slots file and print what it weighs",
     "TEXT is a file, - standard input (which needs -o). Without -o the slots go beside TEXT, its ending replaced by .slots.\n"
     "Earlier slots and reports are replaced, other files only with --force.\n",
     BASE_AND_ADAPTER | COMPUTES | TAKES_OUTPUT | TAKES_REPORT, BASE_AND_ADAPTER, 1, 1, run_compress},
    {"reconstruct", "-m BASE -a ADAPTER FILE.slots... [--into FOLDER [--force]] [--together] [-n TOKENS]",
     "write compressed texts again, from their slots alone",
     "Standard output gets the text and nothing else. Every span is restored from its own slots, eight at a time side\n"
     "by side; it may grow an eighth longer than it was. --together lets the base read all spans at once, which only\n"
     "adapters that were trained to restore texts of several spans can do. Several files need --into FOLDER: each\n"
     "text goes into FOLDER/NAME.txt.\n",
     BASE_AND_ADAPTER | WRITES | TAKES_INTO, BASE_AND_ADAPTER, 1, -1, run_reconstruct},
    {"continue", "-m BASE -a ADAPTER FILE.slots [-n TOKENS]",
     "write what might follow the compressed text",
     "Without -n at most 256 tokens.\n",
     BASE_AND_ADAPTER | WRITES, BASE_AND_ADAPTER, 1, 1, run_continue},
    {"ask", "-m BASE -a ADAPTER FILE.slots... \"PROMPT\" [-n TOKENS]",
     "answer a question about compressed texts",
     "The last argument is the question, - reads it from standard input. Several slots files are read in the\n"
     "order given. A prompt that begins with a hyphen goes behind --. Without -n at most 256 tokens.\n",
     BASE_AND_ADAPTER | WRITES, BASE_AND_ADAPTER, 2, -1, run_ask},
    {"chat", "-m BASE -a ADAPTER FILE.slots... [-n TOKENS]",
     "answer one question after the other, a line each",
     "Every turn is asked with the slots and the whole dialogue so far, laid out by the adapter's chat template;\n"
     "when that leaves no room for an answer of 64 tokens, the oldest turn is forgotten, and said to be. Without\n"
     "-n an answer has at most 256 tokens.\n",
     BASE_AND_ADAPTER | WRITES, BASE_AND_ADAPTER, 1, -1, run_chat},
    {"eval", EVAL_USAGE,
     "measure an adapter: suites ae, lm, random, qa, latency, ppl, all",
     "ae       loss of a text from its slots, and the text restored from them: BLEU-4, exact prefix, tokens in place\n"
     "lm       loss of what follows a text: from its slots, from the text itself, from nothing\n"
     "random   ae on normal text, on the same with every id + 1, on random tokens\n"
     "qa       answers from slots and from the text, and the right answer's likelihood (JSON lines input, prompt, answer)\n"
     "latency  seconds and cache bytes to read and write from slots, against the text itself (needs no --data)\n"
     "ppl      perplexity of the bare base (needs no adapter)\n"
     "all      every one of them; qa with --questions FILE\n"
     "With --out a run that was stopped goes on where it was; another base, adapter, data or options are refused there.\n",
     BASE_AND_ADAPTER | COMPUTES | TAKES_EVAL, TAKES_BASE, 1, 1, run_eval},
    {"inspect", "PATH [-m BASE] [-a ADAPTER]",
     "say in plain words what a file or folder is",
     "Models, GGUF, safetensors and .pt files, adapters (also of peft and llama.cpp), released ICAE weights, slots,\n"
     "checkpoints, runs, golden cases; of models and adapters also the chat template. With -m (for an adapter) or\n"
     "-m and -a (for slots) it is also checked that they belong together.\n",
     BASE_AND_ADAPTER, 0, 1, 1, run_inspect},
    {"convert", "FROM TO [-m BASE] [-a ADAPTER] [--to FORMAT]",
     "translate adapters and slots from and to the formats of other programs",
     CONVERT_DETAILS,
     BASE_AND_ADAPTER | TAKES_CONVERT, 0, 2, 2, run_convert},
    {"selftest", "[-m BASE] [--golden DIR]...",
     "check this build on this machine",
     "Without --golden: the kernels in use against the plain ones, and the tokenizer when -m is given. With it:\n"
     "everything that the folder expects (-m where it has no model/ of its own). One line a check.\n",
     TAKES_BASE | TAKES_THREADS | TAKES_GOLDEN, 0, 0, 0, run_selftest},
    {"bench", BENCH_USAGE,
     "time training, prefill and decoding",
     "A training step is 8 texts of 128 tokens into 32 slots each, LoRA rank 32 on q and v, autoencoding.\n"
     "With --out: ceilings of this machine, shares of a step's time, and how cost grows with length, batch, rank\n"
     "and threads, as bench.md, bench.json and pictures (about five minutes on two cores). --quick: the same\n"
     "tables in half a minute.\n",
     TAKES_BASE | COMPUTES | TAKES_BENCH, TAKES_BASE, 0, 0, run_bench},
};
/* clang-format on */
enum { N_COMMANDS = sizeof commands / sizeof commands[0] };

static void print_overview(FILE *out) {
    fputs("icae compresses texts into memory slots that a frozen language model reads in their "
          "place.\n\nusage: icae COMMAND ...\n\n",
          out);
    for (int i = 0; i < N_COMMANDS; i++)
        fprintf(out, "  %-12s %s\n", commands[i].name, commands[i].summary);
    fputs("\nicae help COMMAND tells about one of them; icae --version says which this is.\n"
          "Adapters are made by icae-pretrain and icae-finetune (icae-pretrain --help).\n\n"
          "  icae compress -m base.gguf -a adapter notes.txt\n"
          "  icae ask -m base.gguf -a adapter notes.slots \"What was decided?\"\n"
          "  icae reconstruct -m base.gguf -a adapter notes.slots > again.txt\n",
          out);
}

/* The command meant by a word that is none: what other programs call it, or the nearest name. */
static const char *suggestion(const char *word) {
    static const char *const elsewhere[][2] = {{"info", "inspect"},
                                               {"restore", "reconstruct"},
                                               {"decompress", "reconstruct"},
                                               {"train", "icae-pretrain CONFIG.json"},
                                               {"plan", "icae-pretrain CONFIG.json --dry-run"}};
    for (size_t i = 0; i < sizeof elsewhere / sizeof elsewhere[0]; i++) {
        if (strcmp(word, elsewhere[i][0]) == 0) return elsewhere[i][1];
    }
    const char *nearest = NULL;
    for (int i = 0; i < N_COMMANDS; i++)
        icae_name_suggest(word, commands[i].name, &nearest);
    return nearest;
}

/* The command of that name; NULL after saying that there is none. */
static const command *find_command(const char *name) {
    for (int i = 0; i < N_COMMANDS; i++) {
        if (strcmp(name, commands[i].name) == 0) return &commands[i];
    }
    const char *meant = suggestion(name);
    fprintf(stderr, "icae: there is no command \"%s\"", name);
    if (meant) fprintf(stderr, "; did you mean %s?", meant);
    fputs("\n\n", stderr);
    print_overview(stderr);
    return NULL;
}

static int help(int argc, char **argv) {
    if (argc > 1) {
        fprintf(stderr,
                "icae help: \"%s\" is one argument too many\nusage: icae help COMMAND\n",
                argv[1]);
        return EXIT_USAGE;
    }
    const command *about = argc == 1 ? find_command(argv[0]) : NULL;
    if (argc == 1 && !about) return EXIT_USAGE;
    if (about)
        options_help(stdout, about);
    else
        print_overview(stdout);
    return finish_output();
}

static int run(const command *self, int argc, char **argv) {
    const char **words = calloc((size_t)argc + 1, sizeof *words);
    if (!words) {
        fputs("icae: not enough memory\n", stderr);
        return EXIT_FAILED;
    }
    options given;
    int code = options_read(&given, self, argc, argv, words);
    if (code < 0) code = self->run(&given);
    free(words);
    return code;
}

int main(int argc, char **argv) {
    icae_startup_tune(argv);
    if (argc < 2) {
        print_overview(stderr);
        return EXIT_USAGE;
    }
    const char *name = argv[1];
    if (strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0 || strcmp(name, "help") == 0)
        return help(argc - 2, argv + 2);
    if (strcmp(name, "--version") == 0) {
        printf("icae %s\n", icae_version());
        return finish_output();
    }
    const command *self = find_command(name);
    return self ? run(self, argc - 2, argv + 2) : EXIT_USAGE;
}
