/* The limit for warm shells: a driver that speaks the protocol of our sessions to the same shells, with nothing around it.
 *
 * session SHELL SESSIONS COMMANDS LINE
 *
 * Runs the line that often in each of so many shells, a thread for each, one line in flight in each. For every line two
 * fresh pipes are made, which the shell opens by their names under /proc; the status comes on a descriptor of its own, and
 * both pipes are read until they are empty. Prints lines a second. */

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static const char *shell, *line;
static int commands;

static void die(const char *what) {
    perror(what);
    exit(1);
}

static void *session(void *unused) {
    (void)unused;
    int in[2], status[2];
    if (pipe2(in, O_CLOEXEC) || pipe2(status, O_CLOEXEC)) die("pipe2");
    pid_t pid = fork();
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        dup2(in[0], 0);
        dup2(status[1], 3);
        execl(shell, shell, (char *)0);
        _exit(127);
    }
    if (pid < 0) die("fork");
    close(in[0]);
    close(status[1]);
    char kept[65536], text[4096];
    for (int i = 0; i < commands; i++) {
        int out[2], err[2];
        if (pipe2(out, O_CLOEXEC | O_NONBLOCK) || pipe2(err, O_CLOEXEC | O_NONBLOCK)) die("pipe2");
        int length = snprintf(text, sizeof text,
                              "\\command eval '%s' </dev/null >/proc/%d/fd/%d 2>/proc/%d/fd/%d 3>&-;\\command echo \"$?\" >&3\n", line,
                              getpid(), out[1], getpid(), err[1]);
        if (write(in[1], text, length) != length) die("write");
        struct pollfd fds[3] = {{status[0], POLLIN, 0}, {out[0], POLLIN, 0}, {err[0], POLLIN, 0}};
        int done = 0;
        while (!done) {
            if (poll(fds, 3, -1) < 0) die("poll");
            if (fds[0].revents) {
                char code[16];
                if (read(status[0], code, sizeof code) <= 0) die("the shell is gone");
                done = 1;
            }
            for (int n = 1; n < 3; n++)
                if (fds[n].revents || done)
                    while (read(fds[n].fd, kept, sizeof kept) > 0) {}
        }
        close(out[0]);
        close(out[1]);
        close(err[0]);
        close(err[1]);
    }
    close(in[1]);
    waitpid(pid, 0, 0);
    return 0;
}

int main(int argc, char **argv) {
    if (argc != 5) return 2;
    shell = argv[1];
    int sessions = atoi(argv[2]);
    commands = atoi(argv[3]);
    line = argv[4];
    signal(SIGPIPE, SIG_IGN);
    pthread_t threads[64];
    if (sessions < 1 || sessions > 64) return 2;
    struct timespec begin, end;
    clock_gettime(CLOCK_MONOTONIC, &begin);
    for (int i = 0; i < sessions; i++)
        if (pthread_create(&threads[i], 0, session, 0)) die("pthread_create");
    for (int i = 0; i < sessions; i++) pthread_join(threads[i], 0);
    clock_gettime(CLOCK_MONOTONIC, &end);
    double seconds = (end.tv_sec - begin.tv_sec) + (end.tv_nsec - begin.tv_nsec) / 1e9;
    printf("%.1f\n", sessions * (double)commands / seconds);
}
