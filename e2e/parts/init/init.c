// The smallest thing that can be process 1: it reaps what is orphaned to it and does nothing else.
//
//   init            a pod's sandbox container, a node's process 1
//   init -          the same until standard input closes: whoever holds the other end takes all with it
//   init - CMD ...  run CMD until standard input closes or CMD ends
//
// A closed pipe is the one death notice that arrives however the holder died and whichever of its
// threads started us; PR_SET_PDEATHSIG fires when that thread ends.

#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

static pid_t command;

static void reap(int signal) {
    (void)signal;
    int status;
    for (pid_t gone; (gone = waitpid(-1, &status, WNOHANG)) > 0;)
        if (gone == command) _exit(WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
}

static void leave(int signal) {
    (void)signal;
    if (command > 0) kill(command, SIGKILL);
    _exit(0);
}

int main(int argc, char **argv) {
    int held = argc > 1 && strcmp(argv[1], "-") == 0;
    sigset_t block, before;
    sigemptyset(&block);
    sigaddset(&block, SIGCHLD);
    sigprocmask(SIG_BLOCK, &block, &before);
    signal(SIGCHLD, reap);
    signal(SIGTERM, leave);
    signal(SIGINT, leave);
    signal(SIGPIPE, SIG_IGN);
    if (held && argc > 2) {
        command = fork();
        if (command < 0) return 71;
        if (command == 0) {
            // This process has one thread, so here the death signal does mean the parent's death.
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            for (int s = 1; s < 32; s++) signal(s, SIG_DFL);
            sigprocmask(SIG_SETMASK, &before, NULL);
            execvp(argv[2], argv + 2);
            _exit(127);
        }
    }
    sigprocmask(SIG_SETMASK, &before, NULL);
    reap(SIGCHLD);
    if (!held)
        for (;;) pause();
    char bytes[64];
    for (;;) {
        struct pollfd in = {.fd = 0, .events = POLLIN};
        if (poll(&in, 1, -1) > 0 && read(0, bytes, sizeof bytes) == 0) leave(0);
    }
}
