/* SPDX-License-Identifier: Apache-2.0 */
/* quern chat on a terminal: effects of signals, stops and resizing on the terminal modes, the edited line and the
 * history. The command runs in its own process group below a leader that waits for it, as below a shell. */
#include "support/cmocka_all.h"
#include "support/files.h"

#include <errno.h>
#include <poll.h>
#include <pty.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

enum { WAIT_MS = 120000, OUTPUT_BYTES = 1 << 16 };

typedef struct terminal {
    int fd;      /* the master side of the terminal */
    int reports; /* statuses of the command, as reported by waitpid() */
    int orders;  /* 'f': run the command in the foreground; 'b': in the background */
    pid_t leader, command;
    char *state; /* XDG_STATE_HOME */
    char output[OUTPUT_BYTES];
    size_t n;    /* bytes of output, NUL-terminated */
    size_t seen; /* bytes of it already matched */
} terminal;

static const char *quern(void) {
    const char *path = getenv("QUERN");
    return path != NULL ? path : "build/quern";
}

/* The leader: starts the command in the foreground, reports its process id and each change of its state. */
static _Noreturn void lead_session(int reports, int orders, const char *const *arguments) {
    signal(SIGTTOU, SIG_IGN);
    signal(SIGHUP, SIG_IGN);
    pid_t pid = fork();
    if (pid == 0) {
        setpgid(0, 0);
        tcsetpgrp(STDIN_FILENO, getpid());
        signal(SIGTTOU, SIG_DFL);
        signal(SIGHUP, SIG_DFL);
        execv(quern(), (char *const *)(uintptr_t)arguments);
        _exit(127);
    }
    setpgid(pid, pid);
    tcsetpgrp(STDIN_FILENO, pid);
    bool good = write(reports, &pid, sizeof pid) == sizeof pid;
    struct pollfd order = {orders, POLLIN, 0};
    while (good) {
        int status;
        if (waitpid(pid, &status, WNOHANG | WUNTRACED) == pid) {
            if (write(reports, &status, sizeof status) != sizeof status || !WIFSTOPPED(status)) break;
        }
        char c;
        if (poll(&order, 1, 10) <= 0) continue;
        if (read(orders, &c, 1) != 1) break;
        good = tcsetpgrp(STDIN_FILENO, c == 'f' ? pid : getpgrp()) == 0 && write(reports, &pid, sizeof pid) > 0;
    }
    _exit(0);
}

static void begin(terminal *t, int columns, const char *home, const char *n_predict) {
    const char *const arguments[] = {"quern", "chat", "-m",           "models/demo", "-n",   n_predict,
                                     "-s",    "1",    "--ignore-eos", "-c",          "2048", NULL};
    int reports[2], orders[2];
    *t = (terminal){.state = files_make_dir()};
    assert_int_equal(pipe(reports), 0);
    assert_int_equal(pipe(orders), 0);
    struct winsize size = {.ws_row = 24, .ws_col = (unsigned short)columns};
    t->leader = forkpty(&t->fd, NULL, NULL, &size);
    assert_true(t->leader >= 0);
    if (t->leader == 0) {
        close(reports[0]);
        close(orders[1]);
        setenv("TERM", "xterm", 1);
        setenv("LC_ALL", "C.UTF-8", 1);
        if (home == NULL) setenv("XDG_STATE_HOME", t->state, 1);
        if (home != NULL) unsetenv("XDG_STATE_HOME");
        if (home != NULL) setenv("HOME", home, 1);
        lead_session(reports[1], orders[0], arguments);
    }
    close(reports[1]);
    close(orders[0]);
    t->reports = reports[0];
    t->orders = orders[1];
    assert_int_equal(read(t->reports, &t->command, sizeof t->command), sizeof t->command);
}

static void read_output(terminal *t, int wait_ms) {
    struct pollfd at = {t->fd, POLLIN, 0};
    if (poll(&at, 1, wait_ms) <= 0) return;
    ssize_t n = read(t->fd, t->output + t->n, OUTPUT_BYTES - 1 - t->n);
    if (n > 0) t->n += (size_t)n;
    t->output[t->n] = '\0';
}

/* Wait until `text` appears; all output up to it counts as seen. */
static void expect(terminal *t, const char *text) {
    for (int waited = 0; waited < WAIT_MS; waited += 20) {
        const char *found = strstr(t->output + t->seen, text);
        if (found != NULL) {
            t->seen = (size_t)(found - t->output) + strlen(text);
            return;
        }
        read_output(t, 20);
    }
    fail_msg("\"%s\" does not come; there is \"%s\"", text, t->output + t->seen);
}

static void type(const terminal *t, const char *text) {
    assert_int_equal(write(t->fd, text, strlen(text)), strlen(text));
}

/* The next change of the command's state; keeps reading its output, or the command would block. */
static int status_of(terminal *t) {
    struct pollfd at = {t->reports, POLLIN, 0};
    int status;
    for (int waited = 0; waited < WAIT_MS && poll(&at, 1, 0) <= 0; waited += 20) {
        read_output(t, 20);
        if (t->n > OUTPUT_BYTES / 2) t->n = t->seen = 0; /* an answer: its text does not matter */
    }
    assert_true(poll(&at, 1, 0) == 1);
    assert_int_equal(read(t->reports, &status, sizeof status), sizeof status);
    return status;
}

static void order(const terminal *t, char c) {
    pid_t answer;
    assert_int_equal(write(t->orders, &c, 1), 1);
    assert_int_equal(read(t->reports, &answer, sizeof answer), sizeof answer);
}

/* Whether the terminal edits and echoes lines, as for a shell, or does neither, as for libedit. */
static bool is_cooked(const terminal *t) {
    struct termios modes;
    assert_int_equal(tcgetattr(t->fd, &modes), 0);
    bool lines = (modes.c_lflag & ICANON) != 0, echo = (modes.c_lflag & ECHO) != 0;
    assert_int_equal(lines, echo);
    return lines;
}

static void wait_for_raw(terminal *t) {
    for (int waited = 0; waited < WAIT_MS && is_cooked(t); waited += 20) read_output(t, 20);
    assert_false(is_cooked(t));
}

static void end(terminal *t) {
    kill(t->command, SIGKILL);
    kill(t->command, SIGCONT);
    close(t->orders);
    close(t->reports);
    close(t->fd);
    waitpid(t->leader, NULL, 0);
    char *folder = files_path(t->state, "quern");
    char *history = files_path(folder, "history");
    unlink(history);
    rmdir(folder);
    free(history);
    free(folder);
    files_remove_dir(t->state);
}

static void assert_history_has(const terminal *t, const char *line) {
    char *path = files_path(t->state, "quern/history");
    char *text = files_read(path, NULL);
    if (strstr(text, line) == NULL) fail_msg("the history has no \"%s\": %s", line, text);
    free(text);
    free(path);
}

static bool skipped(void) {
    return getenv("EMULATOR") != NULL;
}

enum when { AT_PROMPT, EDITED, IN_ANSWER, N_WHEN };

/* A signal that ends the program restores the terminal, keeps the history and is reported as the cause. */
static void ended_by_signals(void **state) {
    (void)state;
    if (skipped()) skip();
    static const int numbers[] = {SIGTERM, SIGHUP, SIGQUIT};
    for (int i = 0; i < 3; i++) {
        for (int when = AT_PROMPT; when < N_WHEN; when++) {
            terminal t;
            begin(&t, 80, NULL, when == IN_ANSWER ? "2000" : "1");
            expect(&t, "> ");
            type(&t, when == IN_ANSWER ? "story\r" : "/stats\r");
            if (when != IN_ANSWER) expect(&t, "turns");
            if (when != IN_ANSWER) expect(&t, "> ");
            if (when == IN_ANSWER) expect(&t, "story\r\n");
            if (when == EDITED) type(&t, "abc");
            if (when == EDITED) expect(&t, "c");
            if (when == IN_ANSWER) read_output(&t, 1000);
            kill(t.command, numbers[i]);
            int status = status_of(&t);
            if (!WIFEXITED(status) || WEXITSTATUS(status) != 128 + numbers[i] || !is_cooked(&t)) {
                fail_msg("%s, case %d: status %x, terminal %s", strsignal(numbers[i]), when, (unsigned)status,
                         is_cooked(&t) ? "restored" : "raw");
            }
            assert_history_has(&t, when == IN_ANSWER ? "story" : "/stats");
            end(&t);
        }
    }
}

/* Ctrl-C discards the line, and the chat continues. */
static void canceled(void **state) {
    (void)state;
    if (skipped()) skip();
    terminal t;
    begin(&t, 80, NULL, "1");
    expect(&t, "> ");
    type(&t, "abc");
    expect(&t, "c");
    kill(t.command, SIGINT);
    expect(&t, "> ");
    wait_for_raw(&t);
    type(&t, "/quit\r");
    int status = status_of(&t);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    assert_true(is_cooked(&t));
    end(&t);
}

/* Ctrl-Z restores the terminal, and the line is back afterwards. */
static void stopped(void **state) {
    (void)state;
    if (skipped()) skip();
    for (int by_stop = 0; by_stop < 2; by_stop++) { /* SIGSTOP cannot be caught, but the continuation can */
        terminal t;
        begin(&t, 80, NULL, "1");
        expect(&t, "> ");
        type(&t, "/sta");
        expect(&t, "a");
        kill(t.command, by_stop ? SIGSTOP : SIGTSTP);
        int status = status_of(&t);
        assert_true(WIFSTOPPED(status));
        if (!by_stop) assert_true(is_cooked(&t));
        struct termios modes;
        assert_int_equal(tcgetattr(t.fd, &modes), 0);
        modes.c_lflag |= ICANON | ECHO; /* as a shell does */
        assert_int_equal(tcsetattr(t.fd, TCSANOW, &modes), 0);
        kill(t.command, SIGCONT);
        expect(&t, "> /sta");
        wait_for_raw(&t);
        type(&t, "ts\r");
        expect(&t, "turns, context");
        end(&t);
    }
}

static void stopped_in_an_answer(void **state) {
    (void)state;
    if (skipped()) skip();
    terminal t;
    begin(&t, 80, NULL, "1500");
    expect(&t, "> ");
    type(&t, "story\r");
    expect(&t, "story\r\n");
    kill(t.command, SIGTSTP);
    assert_true(WIFSTOPPED(status_of(&t)));
    assert_true(is_cooked(&t));
    kill(t.command, SIGCONT);
    expect(&t, "tok/s");
    expect(&t, "> ");
    wait_for_raw(&t);
    type(&t, "/quit\r");
    int status = status_of(&t);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    end(&t);
}

/* A stopped chat that is told to end does so in the background too, and leaves the shell's terminal alone. */
static void ended_in_the_background(void **state) {
    (void)state;
    if (skipped()) skip();
    terminal t;
    begin(&t, 80, NULL, "1");
    expect(&t, "> ");
    wait_for_raw(&t); /* otherwise it would set the modes in the background, which stops it */
    kill(t.command, SIGSTOP);
    assert_true(WIFSTOPPED(status_of(&t)));
    order(&t, 'b');
    struct termios before, after;
    assert_int_equal(tcgetattr(t.fd, &before), 0);
    before.c_cc[VERASE] = 'e';
    before.c_lflag &= ~(tcflag_t)(ICANON | ECHO); /* the shell edits its own line */
    assert_int_equal(tcsetattr(t.fd, TCSANOW, &before), 0);
    kill(t.command, SIGTERM);
    kill(t.command, SIGCONT);
    int status = status_of(&t);
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 143) fail_msg("status %x", (unsigned)status);
    assert_int_equal(tcgetattr(t.fd, &after), 0);
    assert_int_equal(after.c_lflag, before.c_lflag);
    assert_int_equal(after.c_cc[VERASE], 'e');
    end(&t);
}

/* 38 columns fill two rows of 20: the line is redrawn from the row above the cursor. */
static void redraws_after_resize(void **state) {
    (void)state;
    if (skipped()) skip();
    static const char typed[] = "abcdefghijklmnopqrstuvwxyz0123456789";
    terminal t;
    begin(&t, 40, NULL, "1");
    expect(&t, "> ");
    type(&t, typed);
    expect(&t, "9");
    struct winsize size = {.ws_row = 24, .ws_col = 20};
    assert_int_equal(ioctl(t.fd, TIOCSWINSZ, &size), 0);
    expect(&t, "\r\033[A\033[J"); /* carriage return, one row up, clear to the end of the screen */
    expect(&t, "> abcdefghijklmnopqr");
    expect(&t, "stuvwxyz0123456789");
    type(&t, "\001ZZ"); /* Ctrl-A */
    expect(&t, "ZZ");
    type(&t, "\005\r"); /* Ctrl-E */
    expect(&t, "tok/s");
    expect(&t, "> ");
    type(&t, "/quit\r");
    status_of(&t);
    assert_history_has(&t, "ZZabcdefghijklmnopqrstuvwxyz0123456789");
    end(&t);
}

/* Directories are created below an existing home, and nowhere else. */
static void history_without_home(void **state) {
    (void)state;
    if (skipped()) skip();
    char *top = files_make_dir(), *none = files_path(top, "none");
    struct stat st;
    terminal t;
    begin(&t, 80, none, "1");
    expect(&t, "> ");
    type(&t, "/quit\r");
    int status = status_of(&t);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    assert_int_equal(stat(none, &st), -1);
    end(&t);
    begin(&t, 80, top, "1");
    expect(&t, "> ");
    type(&t, "/quit\r");
    assert_true(WIFEXITED(status_of(&t)));
    end(&t);
    static const char *const made[] = {".local/state/quern/history", ".local/state/quern", ".local/state", ".local"};
    for (int i = 0; i < 4; i++) {
        char *path = files_path(top, made[i]);
        assert_int_equal(stat(path, &st), 0);
        assert_int_equal(st.st_mode & 0777, i == 0 ? 0600 : 0700);
        assert_int_equal(i == 0 ? unlink(path) : rmdir(path), 0);
        free(path);
    }
    free(none);
    files_remove_dir(top);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ended_by_signals),
        cmocka_unit_test(canceled),
        cmocka_unit_test(stopped),
        cmocka_unit_test(stopped_in_an_answer),
        cmocka_unit_test(redraws_after_resize),
        cmocka_unit_test(ended_in_the_background),
        cmocka_unit_test(history_without_home),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
