/* SPDX-License-Identifier: MIT */
/* icae selftest: one line a check, and a closing one; exit code 1 when any of them failed. */
#include <stdlib.h>
#include <string.h>

#include "engine.h"
#include "icae/selftest.h"
#include "report.h"

typedef struct printer {
    bool is_json;
    icae_text list; /* JSON objects, between commas */
    const char *last_subject;
} printer;

static void print_check(void *user, const icae_check *check) {
    printer *p = user;
    if (p->is_json) {
        json_object object;
        json_begin(&object);
        json_string(&object, "subject", check->subject, strlen(check->subject));
        json_string(&object, "name", check->name, strlen(check->name));
        json_number(&object, "error", check->error);
        json_number(&object, "limit", check->limit);
        json_bool(&object, "ok", check->is_ok);
        json_string(&object, "note", check->note, strlen(check->note));
        icae_text_printf(&p->list, "%s%s}", p->list.length ? ", " : "[",
                         icae_text_string(&object.text));
        p->list.failed |= object.text.failed;
        icae_text_release(&object.text);
        return;
    }
    if (!p->last_subject || strcmp(p->last_subject, check->subject) != 0) {
        printf("%s\n", check->subject);
        p->last_subject = check->subject;
    }
    printf("  %-20s error %-10.2e limit %-10.1e %-4s %s\n", check->name, check->error,
           check->limit, check->is_ok ? "ok" : "FAIL", check->note);
    fflush(stdout);
}

static icae_status run_checks(const options *given, icae_checks *checks, icae_error *error) {
    options used = *given;
    if (given->n_golden > 0) used.base = NULL; /* each folder opens its own */
    engine e;
    icae_status status = engine_open(&e, &used, error);
    for (int64_t i = 0; i < given->n_golden && !status; i++)
        status = icae_selftest_golden(checks, given->golden[i], given->base, e.be, error);
    if (!status && given->n_golden == 0) {
        status = icae_selftest_kernels(checks, e.be, error);
        if (!status && e.model)
            status = icae_selftest_tokenizer(checks, e.model->tokenizer, error);
    }
    engine_close(&e);
    return status;
}

int run_selftest(const options *given) {
    printer p = {.is_json = given->is_json};
    icae_checks checks = {.callback = print_check, .user = &p};
    icae_error error = {0};
    icae_status status = run_checks(given, &checks, &error);
    int code = EXIT_DONE;
    if (status) {
        code = report_failure(&error);
    } else if (given->is_json) {
        json_object object;
        json_begin(&object);
        json_bool(&object, "ok", checks.n_failed == 0);
        json_integer(&object, "checks", checks.n);
        json_integer(&object, "failed", checks.n_failed);
        icae_text_append_string(&p.list, p.list.length ? "]" : "[]");
        json_raw(&object, "list", icae_text_string(&p.list));
        object.text.failed |= p.list.failed;
        code = json_end(&object);
    } else {
        printf("%lld checks, %lld failed\n", (long long)checks.n, (long long)checks.n_failed);
        code = finish_output();
    }
    icae_text_release(&p.list);
    return code == EXIT_DONE && checks.n_failed > 0 ? EXIT_FAILED : code;
}
