/* SPDX-License-Identifier: MIT */
/* icae-finetune: instructions on compressed contexts. */
#include "common.h"

static const char help[] =
    "icae-finetune - teach a pretrained in-context autoencoder to answer\n"
    "\n"
    "usage\n"
    "    icae-finetune CONFIG.json [--set KEY=VALUE]... [--resume [--allow-changes]] "
    "[--dry-run]\n"
    "\n"
    "    CONFIG.json      its adapter.start names the adapter to start from, its data.train "
    "JSON\n"
    "                     lines {\"input\": ..., \"prompt\": ..., \"answer\": ...}; rows that "
    "share an\n"
    "                     input should follow each other, it is compressed once for all of "
    "them\n"
    "    --set KEY=VALUE  changes one value of the config, as in --set train.lr=5e-5\n"
    "    --resume         goes on from the run folder's newest good checkpoint; wants the "
    "same\n"
    "                     --set as before\n"
    "    --allow-changes  resumes although settings, data, threads or processor have changed, "
    "and "
    "says\n"
    "                     what is lost by it\n"
    "    --dry-run        says parameters, memory, tokens and time, and does nothing\n"
    "    -t, --threads N  threads (train.threads)\n"
    "    --seed N         train.seed\n"
    "    --compute TYPE   train.compute: auto, f32 or bf16\n"
    "    --json           one JSON object on standard output at the end\n"
    "    -q, -v           say less, say more (--quiet, --verbose)\n"
    "    --help, --version\n"
    "\n"
    "examples\n"
    "    icae-finetune configs/smollm2-64x16-questions.json --set out=runs/answers\n"
    "    icae-finetune configs/smollm2-64x16-questions.json --set out=runs/answers --resume\n"
    "\n"
    "Ctrl-C finishes the step, writes a checkpoint and says how to go on. The result is in\n"
    "OUT/adapter, the course of the run in OUT/metrics.jsonl and OUT/loss.svg.\n"
    "exit codes: 0 done, 1 failed, 2 wrong usage, 129, 130, 143 stopped by SIGHUP,\n"
    "SIGINT, SIGTERM after saving\n";

int main(int argc, char **argv) {
    static const train_program program = {"icae-finetune", help, true};
    return train_main(&program, argc, argv);
}
