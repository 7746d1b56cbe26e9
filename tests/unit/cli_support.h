/* SPDX-License-Identifier: MIT */
/* What the tests of `icae` share: how a command must end, a text with its slots, reading what --json prints. */
#ifndef ICAE_TESTS_CLI_SUPPORT_H
#define ICAE_TESTS_CLI_SUPPORT_H

#include "command.h"
#include "icae/json.h"

#define WITH "-m " TINY_BASE " -a " TINY_ADAPTER

/* A command that must have ended well; one that must have failed with this sentence; one that must have ended
 * well and printed all of these, NULL at the end. */
void must(outcome result);
void must_refuse(outcome result, const char *sentence);
void must_say(outcome result, const char *const *sentences);

extern const char passage[];

/* A folder with text.txt, which is the passage, and text.slots made from it. */
const char *folder_with_slots(const char *name);
const char *folder_with_slots_of(const char *name, const char *base, const char *adapter);
/* Fails unless the weights of two adapters, folders both, have the same bytes under the same names. */
void same_adapter(const char *left, const char *right);

/* The object printed by a command that must have ended well; it lives until the test's process ends. */
const icae_json_value *parse(outcome result);
/* Members of an object that must be there. */
double number(const icae_json_value *object, const char *key);
const char *string(const icae_json_value *object, const char *key);

#endif
