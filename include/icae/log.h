/* SPDX-License-Identifier: MIT */
/*
 * Chatter on stderr: levels, and one progress line that rewrites itself.
 *
 * Results go to stdout, never through here. On a terminal the progress line is redrawn in place
 * and log lines are printed above it; elsewhere it is printed now and then as a line of its own.
 */
#ifndef ICAE_LOG_H
#define ICAE_LOG_H

#include "icae/status.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum icae_log_level {
    ICAE_LOG_QUIET, /* warnings only */
    ICAE_LOG_NORMAL,
    ICAE_LOG_VERBOSE
} icae_log_level;

void icae_log_set_level(icae_log_level level);
icae_log_level icae_log_get_level(void);

void icae_log_info(const char *format, ...) ICAE_PRINTF(1, 2);   /* from NORMAL */
void icae_log_detail(const char *format, ...) ICAE_PRINTF(1, 2); /* from VERBOSE */
void icae_log_warning(const char *format, ...)
    ICAE_PRINTF(1, 2); /* always; "warning: " first */

/* Shows this line as the progress. When stderr is no terminal it is printed at most every few
 * seconds. done ends it: the last text stays as a line. */
void icae_progress_show(const char *format, ...) ICAE_PRINTF(1, 2);
void icae_progress_done(void);

double icae_clock_seconds(void); /* monotonic */

#ifdef __cplusplus
}
#endif
#endif
