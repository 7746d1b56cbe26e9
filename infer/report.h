/* SPDX-License-Identifier: MIT */
/*
 * What the commands have in common behind the command line: errors, signals, text from files and
 * standard input, JSON results, numbers for people.
 */
#ifndef ICAE_INFER_REPORT_H
#define ICAE_INFER_REPORT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "icae/status.h"
#include "icae/text.h"

/* Prints the sentence. EXIT_FAILED, or 130 / 143 when a signal stopped the work. */
int report_failure(const icae_error *error);

/* From now on Ctrl-C and SIGTERM only set a mark, once; a second one ends the process. */
void signals_catch(void);
int signal_caught(void); /* its number, or 0 */
/* Waits for input at the terminal; false when a signal ends that, or came before. */
bool signals_wait_for_input(void);

/* Flushes standard output: EXIT_DONE, or EXIT_FAILED with a sentence when it could not be written. */
int finish_output(void);

/* Whether no name for a result can be made of this one: "-", or what the shell or the system names (/dev/fd/N). */
bool is_nameless(const char *path);
/* A file whole; with "-" standard input, with /dev/... what can be read there; malloc'ed with a 0 behind. */
icae_status read_text(const char *path, char **text, size_t *bytes, icae_error *error);
/* Whether both names are of one file that is there, by links or otherwise. */
bool is_same_file(const char *a, const char *b);
/* Refuses what is there already, without --force. */
icae_status check_unwritten(const char *path, bool is_forced, icae_error *error);
bool is_regular_file(const char *path);
/* Warns about bytes that are not UTF-8, naming the first; refuses what has too many of them to be a text. */
icae_status check_text(const char *path, const char *text, size_t bytes, icae_error *error);

/* One JSON object, key by key. end prints it as a line and releases it. */
typedef struct json_object {
    icae_text text;
} json_object;
void json_begin(json_object *object);
void json_string(json_object *object, const char *key, const char *value, size_t bytes);
void json_number(json_object *object, const char *key, double value);
void json_integer(json_object *object, const char *key, int64_t value);
void json_bool(json_object *object, const char *key, bool value);
void json_raw(json_object *object, const char *key, const char *json); /* JSON already */
int json_end(json_object *object);                                     /* as finish_output */

/* "11.3 MiB", "812 bytes"; into out, which is returned. */
const char *human_bytes(double bytes, char out[32]);
/* "134,515,008" */
const char *human_count(int64_t count, char out[32]);

#endif
