/* SPDX-License-Identifier: MIT */
/* Fills a table with the reference kernels of cpu_ref.c. */
#ifndef ICAE_CPU_REF_H
#define ICAE_CPU_REF_H

#include "icae/backend.h"

void icae_cpu_ref(icae_kernels *table);

#endif
