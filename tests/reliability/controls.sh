#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
#
# NAME
#     controls.sh BUILD - shows that the suites notice what they are there for
#
# Three programs are broken on purpose: one forgets its random numbers when it resumes, one does not flush
# files before it renames them, one has a wrong gradient. The test that is meant for each must fail, and by
# its own name; passing, or failing for another reason, is an error here.
set -uo pipefail
build=$1
export ICAE_BUILD=$build OMP_NUM_THREADS=1 CK_FORK=yes
failed=0

# expect NAME SENTENCE COMMAND...: COMMAND must fail and say SENTENCE
expect() {
  local name=$1 sentence=$2
  shift 2
  local said code
  said=$("$@" 2>&1)
  code=$?
  if [ $code = 0 ]; then
    echo "controls: $name went unnoticed" >&2
    failed=1
  elif ! grep -q "$sentence" <<<"$said"; then
    echo "controls: $name failed for another reason than '$sentence':" >&2
    tail -5 <<<"$said" >&2
    failed=1
  else
    echo "controls: $name is noticed: $(grep -m1 "$sentence" <<<"$said" | cut -c1-140)"
  fi
}

expect "a resume that forgets its random numbers" a_stopped_and_resumed_run_equals_one_that_was_not \
  "$build/control-rng" trainer
expect "a rename before the bytes are flushed" "a power cut after event" \
  "$build/control-sync" power "$build/reliability/control-sync"
expect "a wrong gradient" gradients_agree_with_central_differences_at_every_level \
  "$build/control-gradient" ops
exit $failed
