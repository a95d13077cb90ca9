/* SPDX-License-Identifier: Apache-2.0 */
/* --help, generated from the option tables. */
#include <stdio.h>
#include <string.h>

#include <quern/quern.h>

#include "options.h"

enum { HELP_INDENT = 30, HELP_WIDTH = 100 };

/* Print `text` word-wrapped, starting in column `column`; continuation lines are indented by `indent`. */
static void print_wrapped(const char *text, int column, int indent) {
    while (*text) {
        int length = (int)strcspn(text, " \n");
        if (column > indent && column + 1 + length > HELP_WIDTH) {
            printf("\n%*s", indent, "");
            column = indent;
        } else if (column > indent) {
            putchar(' ');
            column++;
        }
        printf("%.*s", length, text);
        column += length;
        text += length;
        if (*text == '\n') {
            printf("\n%*s", indent, "");
            column = indent;
        }
        text += *text != '\0';
    }
    putchar('\n');
}

static void print_option(const option *o) {
    int column = printf("  %s%s%s", o->names, o->argument ? " " : "", o->argument ? o->argument : "");
    if (column + 2 > HELP_INDENT) {
        putchar('\n');
        column = 0;
    }
    printf("%*s", HELP_INDENT - column, "");
    print_wrapped(o->help, HELP_INDENT, HELP_INDENT);
}

void help_print(const command *c) {
    printf("usage: quern %s [options]%s%s\n\n", c->name, *c->operands ? " " : "", c->operands);
    print_wrapped(c->text, 0, 0);
    printf("\noptions:\n");
    for (const option *const *group = c->groups; *group; group++)
        for (const option *o = *group; o->names; o++) print_option(o);
}

void help_print_all(void) {
    printf("usage: quern COMMAND [options]\n\nquern %s runs Qwen3 language models natively.\n\ncommands:\n",
           qn_version());
    for (const command *c = commands; c->name; c++) printf("  %-12s %s\n", c->name, c->summary);
    printf("\n  quern help COMMAND    describe a command and its options (also: quern COMMAND --help)\n"
           "  quern --version       print the version\n"
           "\nWithout -m DIR a small demo model is used: quern run -p \"Tell me a story.\"\n"
           "Exit codes: 0 done, 1 the command or a check failed, 2 usage error, 128 + the number of a signal.\n");
}
