/* SPDX-License-Identifier: Apache-2.0 */
/* quern quantize: writes a quantized copy of a checkpoint. */
#include <quern/quern.h>

#include "directory.h"
#include "options.h"
#include "output.h"

static int write_into(const void *context, const char *dir) {
    const settings *s = context;
    const char *from = s->operands[0];
    progress_bar bar;
    progress_begin(&bar, "quantizing");
    qn_quantize_options options = {.to = (qn_quantize)s->quantize,
                                   .n_thread = (int32_t)s->threads.value,
                                   .progress = {progress_report, &bar},
                                   .log = warnings_log(s->quiet, from)};
    qn_error err;
    qn_status status = qn_model_quantize(dir, from, &options, &err);
    progress_end(&bar);
    if (status) return interrupted() ? EXIT_INTERRUPTED : fail_error(from, &err);
    return EXIT_DONE;
}

int command_quantize(const settings *s) {
    if (!s->quantize) return usage_error("quantize", "--to q8 or --to q4 is needed");
    interrupts_graceful(false);
    return directory_make(s->operands[1], 0, write_into, s);
}
