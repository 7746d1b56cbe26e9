/* SPDX-License-Identifier: MIT */
/* What the tests of `icae` share: a text with its slots, and reading what --json prints. */
#ifndef ICAE_TESTS_CLI_SUPPORT_H
#define ICAE_TESTS_CLI_SUPPORT_H

#include "command.h"
#include "icae/json.h"

#define WITH "-m " TINY_BASE " -a " TINY_ADAPTER

extern const char passage[];

/* A folder with text.txt, which is the passage, and text.slots made from it. */
const char *folder_with_slots(const char *name);

/* The object printed by a command that must have ended well; it lives until the test's process ends. */
const icae_json_value *parse(outcome result);
/* Members of an object that must be there. */
double number(const icae_json_value *object, const char *key);
const char *string(const icae_json_value *object, const char *key);

#endif
