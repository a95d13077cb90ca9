/* SPDX-License-Identifier: Apache-2.0 */
/* Lines for the chat: libedit with a history file on a terminal, plain lines from a pipe. */
#include <errno.h>
#include <fcntl.h>
#include <histedit.h>
#include <locale.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "chat.h"
#include "output.h"

enum { HISTORY_LINES = 1000 };

struct chat_input {
    EditLine *editor; /* NULL: plain lines */
    History *history;
    HistEvent event;
    char *history_file; /* NULL: none */
    bool continues;
    char *line; /* of getline */
    size_t capacity;
};

static const char *prompt(EditLine *editor) {
    chat_input *input;
    el_get(editor, EL_CLIENTDATA, &input);
    return input->continues ? ". " : "> ";
}

/* $XDG_STATE_HOME/quern/history or ~/.local/state/quern/history, its folders made; NULL without a home. */
static char *find_history_file(void) {
    const char *state = getenv("XDG_STATE_HOME"), *home = getenv("HOME");
    char *path;
    if (state && *state == '/')
        path = must_format("%s/quern/history", state);
    else if (home && *home == '/')
        path = must_format("%s/.local/state/quern/history", home);
    else
        return NULL;
    for (char *slash = strchr(path + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        mkdir(path, 0700);
        *slash = '/';
    }
    /* what was said is nobody else's business: the file is the user's own before anything is in it */
    int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0) {
        free(path);
        return NULL;
    }
    close(fd);
    return path;
}

static void open_editor(chat_input *input) {
    /* libedit needs to know that bytes are UTF-8 */
    if (!setlocale(LC_CTYPE, "") || MB_CUR_MAX == 1) setlocale(LC_CTYPE, "C.UTF-8");
    input->history = history_init();
    input->editor = el_init("quern", stdin, stderr, stderr);
    if (!input->history || !input->editor) return;
    history(input->history, &input->event, H_SETSIZE, HISTORY_LINES);
    history(input->history, &input->event, H_SETUNIQUE, 1);
    input->history_file = find_history_file();
    if (input->history_file) history(input->history, &input->event, H_LOAD, input->history_file);
    el_set(input->editor, EL_CLIENTDATA, input);
    el_set(input->editor, EL_PROMPT, prompt);
    el_set(input->editor, EL_EDITOR, "emacs");
    el_set(input->editor, EL_HIST, history, input->history);
    el_set(input->editor, EL_BIND, "^R", "em-inc-search-prev", NULL);
    el_source(input->editor, NULL);
}

chat_input *chat_input_open(void) {
    chat_input *input = must_calloc(1, sizeof(*input));
    if (is_terminal(stdin) && is_terminal(stderr)) open_editor(input);
    return input;
}

void chat_input_close(chat_input *input) {
    if (input->history_file) history(input->history, &input->event, H_SAVE, input->history_file);
    if (input->editor) el_end(input->editor);
    if (input->history) history_end(input->history);
    free(input->history_file);
    free(input->line);
    free(input);
}

/* One physical line with its newline; NULL at the end or after an interrupt. */
static const char *read_line(chat_input *input, size_t *size) {
    if (!input->editor) {
        ssize_t n = getline(&input->line, &input->capacity, stdin);
        *size = n > 0 ? (size_t)n : 0;
        return n > 0 ? input->line : NULL;
    }
    int n = 0;
    const char *line = el_gets(input->editor, &n);
    *size = n > 0 ? (size_t)n : 0;
    if (!line || n <= 0) return NULL;
    if (n > 1) history(input->history, &input->event, H_ENTER, line);
    return line;
}

chat_line chat_input_read(chat_input *input, qn_text *out) {
    out->size = 0;
    input->continues = false;
    interrupted_clear();
    for (;;) {
        size_t size;
        const char *line = read_line(input, &size);
        if (interrupted()) {
            if (input->editor) {
                el_reset(input->editor);
                fputc('\n', stderr);
            }
            interrupted_clear();
            clearerr(stdin);
            return CHAT_LINE_CANCELED;
        }
        if (!line) {
            if (input->editor) fputc('\n', stderr);
            return out->size ? CHAT_LINE : CHAT_LINE_END;
        }
        if (size && line[size - 1] == '\n') size--;
        bool more = size && line[size - 1] == '\\';
        append_bytes(out, line, more ? size - 1 : size);
        if (!more) return CHAT_LINE;
        append_bytes(out, "\n", 1);
        input->continues = true;
    }
}
