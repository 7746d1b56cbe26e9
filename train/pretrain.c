/* SPDX-License-Identifier: MIT */
/* icae-pretrain: autoencoding and language modelling on texts. */
#include "common.h"

static const char help[] =
    "icae-pretrain - train an in-context autoencoder on texts\n"
    "\n"
    "usage\n"
    "    icae-pretrain CONFIG.json [--set KEY=VALUE]... [--resume [--allow-changes]] "
    "[--dry-run]\n"
    "\n"
    "    CONFIG.json      what to train, on what, how long; see configs/README.md\n"
    "    --set KEY=VALUE  changes one value of the config, as in --set train.lr=1e-4\n"
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
    "    icae-pretrain configs/smollm2-demo.json --dry-run\n"
    "    icae-pretrain configs/smollm2-demo.json --set out=runs/first\n"
    "    icae-pretrain configs/smollm2-demo.json --set out=runs/first --resume\n"
    "\n"
    "Ctrl-C finishes the step, writes a checkpoint and says how to go on. The result is in\n"
    "OUT/adapter, the course of the run in OUT/metrics.jsonl and OUT/loss.svg.\n"
    "exit codes: 0 done, 1 failed, 2 wrong usage, 129, 130, 143 stopped by SIGHUP,\n"
    "SIGINT, SIGTERM after saving\n";

int main(int argc, char **argv) {
    static const train_program program = {"icae-pretrain", help, false};
    return train_main(&program, argc, argv);
}
