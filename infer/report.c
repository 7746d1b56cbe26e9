/* SPDX-License-Identifier: MIT */
/* See report.h. */
#include "report.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/select.h>
#include <sys/stat.h>
#include <unistd.h>

#include "icae/file.h"
#include "icae/json.h"
#include "icae/log.h"
#include "options.h"

/* Longest text that a command reads at once; a token is some 4 bytes and takes kilobytes of work. */
static const size_t MOST_TEXT = (size_t)256 << 20;

static volatile sig_atomic_t caught;

static void on_signal(int number) {
    caught = number;
}

void signals_catch(void) {
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = (int)SA_RESETHAND};
    sigemptyset(&action.sa_mask);
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
}

int signal_caught(void) {
    return (int)caught;
}

/* A signal between the question whether one came and read() would leave read() waiting: here they may
 * come only while pselect waits. */
bool signals_wait_for_input(void) {
    sigset_t held, before;
    sigemptyset(&held);
    sigaddset(&held, SIGINT);
    sigaddset(&held, SIGTERM);
    sigprocmask(SIG_BLOCK, &held, &before);
    int ready = -1;
    errno = EINTR;
    while (!caught && ready < 0 && errno == EINTR) {
        fd_set inputs;
        FD_ZERO(&inputs);
        FD_SET(STDIN_FILENO, &inputs);
        ready = pselect(STDIN_FILENO + 1, &inputs, NULL, NULL, NULL, &before);
    }
    sigprocmask(SIG_SETMASK, &before, NULL);
    return !caught;
}

int report_failure(const icae_error *error) {
    icae_progress_done();
    fflush(stdout);
    if (error->status == ICAE_INTERRUPTED && caught) {
        fprintf(stderr, "icae: stopped\n");
        return 128 + (int)caught;
    }
    fprintf(stderr, "icae: %s\n", error->message);
    return EXIT_FAILED;
}

int finish_output(void) {
    if (fflush(stdout) == 0 && !ferror(stdout)) return EXIT_DONE;
    fprintf(stderr, "icae: standard output could not be written: %s\n", strerror(errno));
    return EXIT_FAILED;
}

static icae_status read_stream(int fd, const char *name, char **text, size_t *bytes,
                               icae_error *error) {
    icae_text all = {0};
    char chunk[1 << 14];
    for (;;) {
        ssize_t got = read(fd, chunk, sizeof chunk);
        if (got < 0) {
            icae_text_release(&all);
            return icae_fail(error, ICAE_IO, "%s could not be read: %s", name, strerror(errno));
        }
        if (got == 0) break;
        icae_text_append(&all, chunk, (size_t)got);
        if (all.failed || all.length > MOST_TEXT) {
            icae_text_release(&all);
            return icae_fail(error, ICAE_INVALID,
                             "%s holds more than %zu MB; cut the text into parts", name,
                             MOST_TEXT >> 20);
        }
    }
    *bytes = all.length;
    *text = all.data ? all.data : calloc(1, 1);
    return *text ? ICAE_OK : icae_fail_memory(error, name);
}

bool is_nameless(const char *path) {
    return strcmp(path, "-") == 0 || strncmp(path, "/dev/", 5) == 0;
}

icae_status read_text(const char *path, char **text, size_t *bytes, icae_error *error) {
    *text = NULL;
    if (!is_nameless(path)) return icae_file_read(path, MOST_TEXT, text, bytes, error);
    if (strcmp(path, "-") == 0)
        return read_stream(STDIN_FILENO, "standard input", text, bytes, error);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return icae_fail(error, ICAE_IO, "%s: cannot open: %s", path, strerror(errno));
    icae_status status = read_stream(fd, path, text, bytes, error);
    close(fd);
    return status;
}

bool is_same_file(const char *a, const char *b) {
    struct stat x, y;
    return !stat(a, &x) && !stat(b, &y) && x.st_dev == y.st_dev && x.st_ino == y.st_ino;
}

icae_status check_unwritten(const char *path, bool is_forced, icae_error *error) {
    if (is_forced || !icae_path_exists(path)) return ICAE_OK;
    return icae_fail(error, ICAE_INVALID,
                     "%s: is there already; give another name, or --force to replace it", path);
}

bool is_regular_file(const char *path) {
    struct stat info;
    return !stat(path, &info) && S_ISREG(info.st_mode);
}

icae_status check_text(const char *path, const char *text, size_t bytes, icae_error *error) {
    const char *name = strcmp(path, "-") == 0 ? "standard input" : path;
    const icae_utf8_flaws flaws = icae_utf8_examine(text, bytes);
    if (!icae_utf8_is_text(flaws, bytes)) {
        return icae_fail(error, ICAE_INVALID,
                         "%s is no text in UTF-8: %zu of its %zu bytes are not UTF-8, %zu are "
                         "zeros; iconv converts texts in other encodings",
                         name, flaws.wrong, bytes, flaws.zeros);
    }
    if (flaws.wrong == 0) return ICAE_OK;
    icae_log_warning("%s: %zu byte%s not UTF-8, the first at byte %zu; each becomes U+FFFD",
                     name, flaws.wrong, flaws.wrong == 1 ? " is" : "s are", flaws.first);
    return ICAE_OK;
}

/* ---- JSON ---- */

void json_begin(json_object *object) {
    *object = (json_object){0};
}

static void put_key(json_object *object, const char *key) {
    icae_text_append_string(&object->text, object->text.length ? ", " : "{");
    icae_json_write_string(&object->text, key, strlen(key));
    icae_text_append_string(&object->text, ": ");
}

void json_string(json_object *object, const char *key, const char *value, size_t bytes) {
    put_key(object, key);
    icae_text repaired = {0};
    icae_utf8_repair(&repaired, value, bytes);
    icae_json_write_string(&object->text, icae_text_string(&repaired), repaired.length);
    object->text.failed |= repaired.failed;
    icae_text_release(&repaired);
}

void json_number(json_object *object, const char *key, double value) {
    put_key(object, key);
    icae_json_write_number(&object->text, value);
}

void json_integer(json_object *object, const char *key, int64_t value) {
    put_key(object, key);
    icae_text_printf(&object->text, "%lld", (long long)value);
}

void json_bool(json_object *object, const char *key, bool value) {
    json_raw(object, key, value ? "true" : "false");
}

void json_raw(json_object *object, const char *key, const char *json) {
    put_key(object, key);
    icae_text_append_string(&object->text, json);
}

int json_end(json_object *object) {
    icae_text_append_string(&object->text, object->text.length ? "}\n" : "{}\n");
    bool failed = object->text.failed;
    if (!failed) fputs(icae_text_string(&object->text), stdout);
    icae_text_release(&object->text);
    if (!failed) return finish_output();
    fprintf(stderr, "icae: not enough memory for the result\n");
    return EXIT_FAILED;
}

/* ---- numbers for people ---- */

const char *human_bytes(double bytes, char out[32]) {
    static const char *const units[] = {"bytes", "KiB", "MiB", "GiB", "TiB"};
    size_t unit = 0;
    while (bytes >= 1024 && unit + 1 < sizeof units / sizeof units[0]) {
        bytes /= 1024;
        unit++;
    }
    snprintf(out, 32, "%.*f %s", unit ? 1 : 0, bytes, units[unit]);
    return out;
}

const char *human_count(int64_t count, char out[32]) {
    char digits[24];
    int n = snprintf(digits, sizeof digits, "%lld", (long long)count), used = 0;
    for (int i = 0; i < n && used < 30; i++) {
        out[used++] = digits[i];
        if (digits[i] != '-' && i + 1 < n && (n - i - 1) % 3 == 0) out[used++] = ',';
    }
    out[used] = 0;
    return out;
}
