/* SPDX-License-Identifier: Apache-2.0 */
/* Line input for the chat: libedit with a history file on a terminal, plain lines from a pipe. */
#include <errno.h>
#include <fcntl.h>
#include <histedit.h>
#include <locale.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "chat_keys.h"
#include "command_chat.h"
#include "output.h"

enum { HISTORY_LINES = 1000 };

struct chat_input {
    EditLine *editor; /* NULL: plain lines */
    History *history;
    HistEvent event;
    char *history_file; /* NULL: none */
    bool continues;
    line_input lines; /* when reading from a pipe */
};

static const char *prompt(EditLine *editor) {
    chat_input *input;
    el_get(editor, EL_CLIENTDATA, &input);
    return input->continues ? ". " : "> ";
}

static bool is_folder(const char *path) {
    struct stat st;
    return path && *path == '/' && !stat(path, &st) && S_ISDIR(st.st_mode);
}

/* $XDG_STATE_HOME/quern/history or ~/.local/state/quern/history; NULL without a home. Folders are created only below a
 * home directory that exists: Debian marks "no home" with a nonexistent path. */
static char *find_history_file(void) {
    const char *state = getenv("XDG_STATE_HOME"), *home = getenv("HOME");
    bool has_home = is_folder(home);
    size_t below = has_home ? strlen(home) : 0;
    char *path;
    if (is_folder(state) || (state && has_home && !strncmp(state, home, below) && state[below] == '/'))
        path = must_format("%s/quern/history", state);
    else if (has_home && !(state && *state == '/'))
        path = must_format("%s/.local/state/quern/history", home);
    else
        return NULL;
    if (is_folder(state)) below = strlen(state);
    for (char *slash = strchr(path + below, '/'); slash; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        if (*path) mkdir(path, 0700);
        *slash = '/';
    }
    /* conversations are private: make the file accessible to its owner only before anything is written */
    int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0) {
        free(path);
        return NULL;
    }
    close(fd);
    return path;
}

static void open_editor(chat_input *input) {
    /* libedit needs a UTF-8 locale */
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
    el_set(input->editor, EL_GETCFN, chat_keys_read);
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
    if (input->history_file && history(input->history, &input->event, H_SAVE, input->history_file) < 0)
        fail(input->history_file, "the history could not be written");
    if (input->editor) el_end(input->editor);
    if (input->history) history_end(input->history);
    free(input->history_file);
    free(input->lines.text.data);
    free(input);
}

/* Read one physical line, including its line ending. NULL at end of input, after a signal, or on a read error (sets
 * *failed). */
static const char *read_physical(chat_input *input, size_t *size, bool *failed) {
    if (!input->editor) {
        qn_string line = {NULL, 0};
        line_state state = LINE_END;
        *failed = read_line(&input->lines, true, &line, &state) == EXIT_FAILED;
        *size = line.size;
        return state == LINE_READ ? line.data : NULL;
    }
    int n = 0;
    chat_keys_begin();
    el_resize(input->editor); /* the size may have changed since the last line */
    const char *line = el_gets(input->editor, &n);
    chat_keys_end();
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
        size_t size = 0;
        bool failed = false;
        const char *line = read_physical(input, &size, &failed);
        if (failed) return CHAT_LINE_FAILED;
        if (interrupted()) {
            if (input->editor) {
                el_reset(input->editor);
                fputc('\n', stderr);
            }
            interrupted_clear();
            clearerr(stdin);
            return interrupted() ? CHAT_LINE_END : CHAT_LINE_CANCELED;
        }
        if (!line) {
            if (input->editor) fputc('\n', stderr);
            return out->size ? CHAT_LINE : CHAT_LINE_END;
        }
        /* a line ends with LF or CR LF */
        if (size && line[size - 1] == '\n') size--;
        if (size && line[size - 1] == '\r') size--;
        bool more = size && line[size - 1] == '\\';
        append_bytes(out, line, more ? size - 1 : size);
        if (!more) return CHAT_LINE;
        append_bytes(out, "\n", 1);
        input->continues = true;
    }
}
