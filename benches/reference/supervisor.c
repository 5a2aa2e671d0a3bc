/*
 * The reference of the benches: the least that does a supervisor's work on one thread.
 *
 * For each child: two pipes whose output is read, a session of its own, a pidfd. When it ends: observed while its ids are
 * still pinned, its group killed, reaped, started again at once. SIGTERM: every group is asked to stop, and the program ends
 * with the last child.
 *
 * Arguments: how many children, the program, its arguments.
 */

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef P_PIDFD
#define P_PIDFD 3
#endif

enum { PROCESS, STDOUT, STDERR, KINDS };

struct child {
    int pid;
    int fds[KINDS];
};

struct plan {
    char **argv;
    int stdout_fd;
    int stderr_fd;
};

static const uint64_t SIGNALS = UINT64_MAX;
static char stack[64 * 1024] __attribute__((aligned(16)));
static char scratch[64 * 1024];
static struct child *children;
static int epoll_fd, null_fd;

static void fail(const char *what)
{
    perror(what);
    exit(1);
}

/* Shares our memory, and we wait until the program runs. */
static int be_child(void *argument)
{
    struct plan *plan = argument;
    sigset_t none;
    setsid();
    dup2(null_fd, 0);
    dup2(plan->stdout_fd, 1);
    dup2(plan->stderr_fd, 2);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    execv(plan->argv[0], plan->argv);
    _exit(127);
}

static void watch(int fd, uint64_t data)
{
    struct epoll_event event = { .events = EPOLLIN, .data.u64 = data };
    if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event) < 0)
        fail("epoll_ctl");
}

static void begin(uint64_t which, char **argv)
{
    struct child *child = &children[which];
    int out[2], err[2];
    if (pipe2(out, O_CLOEXEC) < 0 || pipe2(err, O_CLOEXEC) < 0)
        fail("pipe2");
    fcntl(out[0], F_SETFL, O_NONBLOCK);
    fcntl(err[0], F_SETFL, O_NONBLOCK);
    struct plan plan = { argv, out[1], err[1] };
    child->pid = clone(be_child, stack + sizeof stack, CLONE_VM | CLONE_VFORK | CLONE_PIDFD | SIGCHLD, &plan,
                       &child->fds[PROCESS]);
    if (child->pid < 0)
        fail("clone");
    close(out[1]);
    close(err[1]);
    child->fds[STDOUT] = out[0];
    child->fds[STDERR] = err[0];
    for (int kind = 0; kind < KINDS; kind++)
        watch(child->fds[kind], which * KINDS + kind);
}

static void close_one(struct child *child, int kind)
{
    if (child->fds[kind] >= 0)
        close(child->fds[kind]);
    child->fds[kind] = -1;
}

static void read_some(struct child *child, int kind)
{
    if (child->fds[kind] < 0)
        return;
    ssize_t length = read(child->fds[kind], scratch, sizeof scratch);
    if (length == 0 || (length < 0 && errno != EAGAIN && errno != EINTR))
        close_one(child, kind);
}

static void end(struct child *child)
{
    siginfo_t info;
    if (waitid(P_PIDFD, child->fds[PROCESS], &info, WEXITED | WNOWAIT) < 0)
        fail("waitid");
    kill(-child->pid, SIGKILL);
    read_some(child, STDOUT);
    read_some(child, STDERR);
    waitid(P_PIDFD, child->fds[PROCESS], &info, WEXITED);
    for (int kind = 0; kind < KINDS; kind++)
        close_one(child, kind);
}

int main(int argc, char **argv)
{
    if (argc < 3)
        return 2;
    uint64_t count = strtoull(argv[1], NULL, 10);
    uint64_t live = count;
    int stopping = 0;
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    children = calloc(count + 1, sizeof *children);
    null_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    sigset_t term;
    sigemptyset(&term);
    sigaddset(&term, SIGTERM);
    sigprocmask(SIG_BLOCK, &term, NULL);
    int signal_fd = signalfd(-1, &term, SFD_CLOEXEC);
    watch(signal_fd, SIGNALS);
    for (uint64_t which = 0; which < count; which++)
        begin(which, argv + 2);
    if (write(1, "ready\n", 6) < 0)
        fail("write");
    while (!stopping || live > 0) {
        struct epoll_event events[256];
        int ready = epoll_wait(epoll_fd, events, 256, -1);
        for (int at = 0; at < ready; at++) {
            uint64_t data = events[at].data.u64;
            if (data == SIGNALS) {
                for (uint64_t which = 0; !stopping && which < count; which++)
                    kill(-children[which].pid, SIGTERM);
                stopping = 1;
                close(signal_fd);
                continue;
            }
            struct child *child = &children[data / KINDS];
            if (data % KINDS != PROCESS) {
                read_some(child, (int)(data % KINDS));
                continue;
            }
            end(child);
            if (stopping)
                live--;
            else
                begin(data / KINDS, argv + 2);
        }
    }
    return 0;
}
