/* SPDX-License-Identifier: Apache-2.0 */
/* Waits for keys with ppoll(), so that a signal arriving just before the wait is not missed. */
#include "chat_keys.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>
#include <wchar.h>

#include "signals.h"

enum { PROMPT_WIDTH = 2 };

static volatile sig_atomic_t stop_seen, continue_seen, resize_seen;

/* The signal mask saved by chat_keys_begin(). */
static sigset_t outside;
static struct sigaction stop_outside, continue_outside, resize_outside;

static void on_signal(int number) {
    if (number == SIGTSTP) stop_seen = 1;
    if (number == SIGCONT) continue_seen = 1;
    if (number == SIGWINCH) resize_seen = 1;
}

static const struct sigaction handler = {.sa_handler = on_signal};

void chat_keys_begin(void) {
    static const int held[] = {SIGTSTP, SIGCONT, SIGWINCH};
    sigset_t set;
    sigemptyset(&set);
    interrupts_add(&set);
    for (size_t i = 0; i < sizeof(held) / sizeof(*held); i++) sigaddset(&set, held[i]);
    sigprocmask(SIG_BLOCK, &set, &outside);
    stop_seen = continue_seen = resize_seen = 0;
    sigaction(SIGTSTP, NULL, &stop_outside);
    if (stop_outside.sa_handler != SIG_IGN) sigaction(SIGTSTP, &handler, NULL);
    sigaction(SIGCONT, &handler, &continue_outside);
    sigaction(SIGWINCH, &handler, &resize_outside);
}

void chat_keys_end(void) {
    sigaction(SIGTSTP, &stop_outside, NULL);
    sigaction(SIGCONT, &continue_outside, NULL);
    sigaction(SIGWINCH, &resize_outside, NULL);
    sigprocmask(SIG_SETMASK, &outside, NULL);
}

/* Column of the cursor, counted from the start of the prompt. */
static int cursor_column(EditLine *editor) {
    const LineInfo *line = el_line(editor);
    int column = PROMPT_WIDTH;
    mbstate_t state = {0};
    for (const char *p = line->buffer; p < line->cursor;) {
        wchar_t c;
        size_t n = mbrtowc(&c, p, (size_t)(line->cursor - p), &state);
        if (!n || n > (size_t)(line->cursor - p)) break;
        int width = wcwidth(c);
        column += width < 0 ? 2 : width; /* ^X */
        p += n;
    }
    return column;
}

/* Terminals rewrap a line when their width changes. So the prompt starts as many rows above the cursor as the text
 * between them occupies at the new width. */
static void draw_resized(EditLine *editor) {
    struct winsize size;
    int rows = 0;
    if (!ioctl(STDERR_FILENO, TIOCGWINSZ, &size) && size.ws_col) rows = cursor_column(editor) / size.ws_col;
    el_set(editor, EL_ECHOTC, "-s", "cr", NULL);
    for (int i = 0; i < rows; i++) el_set(editor, EL_ECHOTC, "-s", "up", NULL);
    el_set(editor, EL_ECHOTC, "-s", "cd", NULL);
    el_resize(editor);
    el_set(editor, EL_REFRESH);
}

static void stop(EditLine *editor) {
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTSTP);
    el_set(editor, EL_PREP_TERM, 0);
    signal(SIGTSTP, SIG_DFL);
    raise(SIGTSTP);
    sigprocmask(SIG_UNBLOCK, &set, NULL); /* stops here, unless no process could continue it */
    sigprocmask(SIG_BLOCK, &set, NULL);
    sigaction(SIGTSTP, &handler, NULL);
    signal(SIGCONT, SIG_IGN); /* discards the SIGCONT that ended the stop */
    sigaction(SIGCONT, &handler, NULL);
}

/* While the program was stopped, the terminal's modes, size and contents may have changed. */
static void resume(EditLine *editor) {
    el_set(editor, EL_PREP_TERM, 0);
    el_set(editor, EL_PREP_TERM, 1);
    el_set(editor, EL_ECHOTC, "-s", "cr", NULL);
    el_set(editor, EL_ECHOTC, "-s", "cd", NULL);
    el_resize(editor);
    el_set(editor, EL_REFRESH);
}

/* In the background the terminal's modes belong to the shell. Setting them would stop the program, which is about to
 * end. So libedit is given another file to set them on. */
static void leave_terminal(void) {
    if (tcgetpgrp(STDIN_FILENO) == getpgrp()) return;
    int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    if (fd >= 0) dup2(fd, STDIN_FILENO);
    if (fd >= 0) close(fd);
}

static bool wait_for_key(EditLine *editor) {
    struct pollfd keys = {STDIN_FILENO, POLLIN, 0};
    for (;;) {
        int n = ppoll(&keys, 1, NULL, &outside), reason = errno;
        if (interrupted()) {
            leave_terminal();
            errno = EINTR;
            return false;
        }
        bool stopped = stop_seen;
        if (stopped) stop(editor);
        if (stopped || continue_seen)
            resume(editor);
        else if (resize_seen)
            draw_resized(editor);
        stop_seen = continue_seen = resize_seen = 0;
        if (n > 0) return true;
        if (n < 0 && reason != EINTR) return false;
    }
}

int chat_keys_read(EditLine *editor, wchar_t *out) {
    mbstate_t state = {0};
    for (;;) {
        if (!wait_for_key(editor)) return -1;
        char byte;
        ssize_t n = read(STDIN_FILENO, &byte, 1);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return (int)n;
        size_t size = mbrtowc(out, &byte, 1, &state);
        if (size == (size_t)-1) memset(&state, 0, sizeof(state)); /* invalid sequence: skipped */
        if (size <= 1) return 1;
    }
}
