/* The limit for captured commands: vfork, a pidfd, stdout and stderr read until both end, the end awaited. Nothing else.
 *
 * exec THREADS COMMANDS PROGRAM [ARGUMENT...]
 *
 * Runs so many commands in all, one at a time in each thread. Prints commands a second. */

#define _GNU_SOURCE
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#ifndef P_PIDFD
#define P_PIDFD 3
#endif

static char **argv_of_child;
static int commands, null_fd;
extern char **environ;

static void die(const char *what)
{
    perror(what);
    exit(1);
}

static void run(void)
{
    int out[2], err[2];
    if (pipe2(out, O_CLOEXEC) || pipe2(err, O_CLOEXEC)) die("pipe2");
    int pid = vfork();
    if (pid == 0) {
        setsid();
        dup2(null_fd, 0);
        dup2(out[1], 1);
        dup2(err[1], 2);
        execve(argv_of_child[0], argv_of_child, environ);
        _exit(127);
    }
    if (pid < 0) die("vfork");
    int pidfd = syscall(SYS_pidfd_open, pid, 0);
    if (pidfd < 0) die("pidfd_open");
    close(out[1]);
    close(err[1]);
    char kept[65536];
    struct pollfd fds[3] = {{out[0], POLLIN, 0}, {err[0], POLLIN, 0}, {pidfd, POLLIN, 0}};
    for (int open = 3; open;) {
        if (poll(fds, 3, -1) < 0) die("poll");
        for (int n = 0; n < 3; n++) {
            if (!fds[n].revents) continue;
            if (n < 2 && read(fds[n].fd, kept, sizeof kept) > 0) continue;
            fds[n].fd = ~fds[n].fd;
            open--;
        }
    }
    siginfo_t info;
    if (waitid(P_PIDFD, pidfd, &info, WEXITED)) die("waitid");
    close(pidfd);
    close(out[0]);
    close(err[0]);
}

static void *worker(void *count)
{
    for (long left = (long)count; left; left--) run();
    return 0;
}

int main(int argc, char **argv)
{
    if (argc < 4) return 2;
    int threads = atoi(argv[1]);
    commands = atoi(argv[2]);
    argv_of_child = argv + 3;
    null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
    pthread_t all[64];
    if (threads < 1 || threads > 64) return 2;
    struct timespec begin, end;
    clock_gettime(CLOCK_MONOTONIC, &begin);
    for (int i = 0; i < threads; i++)
        if (pthread_create(&all[i], 0, worker, (void *)(long)(commands / threads))) die("pthread_create");
    for (int i = 0; i < threads; i++) pthread_join(all[i], 0);
    clock_gettime(CLOCK_MONOTONIC, &end);
    double seconds = (end.tv_sec - begin.tv_sec) + (end.tv_nsec - begin.tv_nsec) / 1e9;
    printf("%.1f\n", commands / threads * threads / seconds);
}
