/* SPDX-License-Identifier: Apache-2.0 */
/* Entry point of the quern command: finds the subcommand, parses its options and runs it. */
#include <stdio.h>
#include <string.h>

#include <quern/quern.h>

#include "options.h"
#include "output.h"
#include "records.h"

static int run_command(const command *cmd, int argc, char **argv) {
    settings given;
    int code = options_parse(&given, cmd, argc, argv);
    if (code == EXIT_DONE) {
        if (given.help)
            help_print(cmd);
        else
            code = cmd->run(&given);
    }
    settings_release(&given);
    return output_finish(code);
}

static int help(int argc, char **argv) {
    if (argc > 1) return usage_error(NULL, "help: unexpected argument '%s'", argv[1]);
    const command *cmd = argc == 1 ? command_find(argv[0]) : NULL;
    if (argc == 1 && !cmd) return usage_error(NULL, "%s: no such command", argv[0]);
    if (cmd)
        help_print(cmd);
    else
        help_print_all();
    return output_finish(EXIT_DONE);
}

int main(int argc, char **argv) {
    streams_open();
    json_watch_memory();
    interrupts_install();
    if (argc < 2) return usage_error(NULL, "a command is needed");
    const char *name = argv[1];
    if (!strcmp(name, "help") || !strcmp(name, "--help") || !strcmp(name, "-h")) return help(argc - 2, argv + 2);
    if (!strcmp(name, "--version")) {
        printf("quern %s\n", qn_version());
        return output_finish(EXIT_DONE);
    }
    const command *cmd = command_find(name);
    if (!cmd) return usage_error(NULL, "%s: no such %s", name, *name == '-' ? "option" : "command");
    return run_command(cmd, argc - 2, argv + 2);
}
