/* Calls with odd arguments, for a tracer to show: what each does matters less than that it does the same each time. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/falloc.h>
#include <linux/filter.h>
#include <linux/futex.h>
#include <linux/netlink.h>
#include <linux/openat2.h>
#include <linux/seccomp.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/file.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/msg.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/select.h>
#include <sys/sem.h>
#include <sys/shm.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/timerfd.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

#define CALL(name, ...) syscall(SYS_##name, ##__VA_ARGS__)

static void handler(int signal) { (void)signal; }

static void files(void) {
  char b[4096] = {0};
  int f = CALL(memfd_create, "file", MFD_CLOEXEC | MFD_ALLOW_SEALING);
  CALL(memfd_create, "huge", MFD_HUGETLB | (21 << 26) | 0x80);
  CALL(openat, -5, "no", O_RDWR | O_SYNC | O_ASYNC | O_DIRECT | 0x40000000);
  CALL(creat, "/no/x", 0);
  CALL(creat, "/no/x", 07777);
  CALL(write, 99, "\1778\0209", 4);
  CALL(msync, 8L, 4096L, MS_SYNC | MS_INVALIDATE | 8);
  CALL(mknod, "/no/x", 0160600, 0);
  CALL(bind, 99, b, -1);
  CALL(write, f, "hello\0\1\n\t\x80\"\\world", 20);
  CALL(lseek, f, 0, 77);
  CALL(lseek, f, 0, SEEK_SET);
  char c1[3], c2[50];
  struct iovec w[2] = {{c1, 3}, {c2, 50}}, v[2] = {{"one", 3}, {"twotwo", 6}};
  CALL(preadv, f, w, 2, 1L, 0L);
  CALL(pwritev, f, v, 2, 0L, 0L);
  CALL(preadv2, f, w, 2, 2L, 0L, RWF_NOWAIT | RWF_HIPRI);
  CALL(preadv, 99, w, 2, 1L, 0L);
  CALL(writev, 99, v, -1);
  CALL(ftruncate, f, -1L);
  CALL(fallocate, f, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0L, 100L);
  CALL(readahead, 99, 0L, 4096L);
  CALL(sync_file_range, 99, 0L, 10L, SYNC_FILE_RANGE_WRITE | SYNC_FILE_RANGE_WAIT_AFTER);
  struct stat s;
  CALL(newfstatat, AT_FDCWD, "/tmp", &s, 0x10000);
  struct statx x;
  CALL(statx, AT_FDCWD, "/dev/null", AT_STATX_DONT_SYNC, STATX_ALL, &x);
  CALL(faccessat2, AT_FDCWD, "/", R_OK, AT_EACCESS | AT_SYMLINK_NOFOLLOW);
  CALL(unlinkat, AT_FDCWD, "/no/d", AT_REMOVEDIR | 0x100);
  struct open_how h = {.flags = O_PATH};
  CALL(openat2, AT_FDCWD, "/no", &h, 24L);
  CALL(openat2, AT_FDCWD, "/no", &h, 8L);
  CALL(umask, 0);
  CALL(umask, 022);
  struct statfs sf;
  CALL(statfs, "/proc", &sf);
  struct timespec ts[2] = {{1, 2}, {0, UTIME_NOW}};
  CALL(utimensat, AT_FDCWD, "/no", ts, 0);
  struct timeval tv[2] = {{5, 6}, {7, 8}};
  CALL(utimes, "/no", tv);
  CALL(futimesat, AT_FDCWD, "/no", tv);
  CALL(fsetxattr, f, "trusted.q", "\1\2", 2L, XATTR_CREATE);
  CALL(fgetxattr, 99, "trusted.q", b, 100L);
  CALL(lremovexattr, "/no", "user.no");
  CALL(mount, "none", "/no", "tmpfs", (long)(MS_NOSUID | MS_NODEV), "size=1k");
  CALL(umount2, "/no", MNT_DETACH | UMOUNT_NOFOLLOW);
  CALL(flock, f, LOCK_EX | LOCK_NB);
  CALL(close_range, 60, 50, CLOSE_RANGE_UNSHARE);
  CALL(dup3, 0, 42, 1);
  CALL(name_to_handle_at, AT_FDCWD, "/no", 0L, 0L, 0);
}

static void descriptors(void) {
  int p[2], q[2], n = 1;
  CALL(pipe2, p, O_CLOEXEC | O_NONBLOCK | O_DIRECT);
  CALL(pipe, q);
  CALL(fcntl, q[0], F_GETFD);
  CALL(fcntl, p[0], F_GETFD);
  CALL(fcntl, p[0], F_GETFL);
  CALL(fcntl, q[0], F_SETSIG, SIGUSR1);
  CALL(fcntl, q[0], F_GETSIG);
  CALL(fcntl, q[0], F_SETPIPE_SZ, 65536);
  CALL(fcntl, q[0], F_GETPIPE_SZ);
  int m = CALL(memfd_create, "sealed", MFD_ALLOW_SEALING);
  struct flock l = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 1, .l_len = 2};
  CALL(fcntl, m, F_SETLK, &l);
  CALL(fcntl, m, F_GETLK, &l);
  CALL(fcntl, m, 1234, 5L);
  CALL(fcntl, m, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW);
  CALL(fcntl, m, F_GET_SEALS);
  CALL(fcntl, m, F_GETFL);
  struct pollfd pf[3] = {{q[0], POLLIN | POLLPRI, 0}, {q[1], POLLOUT, 0}, {-1, 0, 0}};
  CALL(poll, pf, 3, 0);
  CALL(poll, pf, 1, 1);
  CALL(poll, 0L, 0, 0);
  sigset_t ss;
  sigemptyset(&ss);
  sigaddset(&ss, SIGUSR1);
  struct timespec t = {0, 1000000};
  CALL(ppoll, pf, 1, &t, &ss, 8L);
  CALL(ppoll, pf, 2, 0L, 0L, 8L);
  fd_set r, w;
  FD_ZERO(&r);
  FD_ZERO(&w);
  FD_SET(q[0], &r);
  FD_SET(q[1], &w);
  CALL(select, q[1] + 1, &r, &w, 0L, 0L);
  struct timeval tv = {0, 1000};
  CALL(select, 0, 0L, 0L, 0L, &tv);
  struct { void *set; size_t size; } sized = {&ss, 8};
  FD_SET(q[0], &r);
  t.tv_nsec = 1000;
  CALL(pselect6, q[0] + 1, &r, 0L, 0L, &t, &sized);
  int e = CALL(epoll_create1, 0);
  struct epoll_event ev = {EPOLLOUT | EPOLLET | EPOLLONESHOT, {.u32 = 7}}, evs[4] = {{0}};
  CALL(epoll_ctl, e, EPOLL_CTL_ADD, q[1], &ev);
  CALL(epoll_wait, e, evs, 4, 0);
  CALL(epoll_wait, e, evs, 4, 0);
  CALL(epoll_pwait2, e, evs, 4, &t, 0L, 8L);
  CALL(signalfd4, -1, &ss, 8L, SFD_CLOEXEC | SFD_NONBLOCK);
  int tf = CALL(timerfd_create, CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
  struct itimerspec it = {{1, 2}, {3, 4}}, old;
  CALL(timerfd_settime, tf, 0, &it, &old);
  CALL(timerfd_settime, tf, TFD_TIMER_ABSTIME, &it, 0L);
  int in = CALL(inotify_init1, IN_CLOEXEC | IN_NONBLOCK);
  CALL(inotify_add_watch, in, "/no", IN_CREATE | IN_DELETE | IN_ONLYDIR);
  CALL(ioctl, q[0], FIONREAD, &n);
  CALL(ioctl, q[0], FIOCLEX);
  CALL(ioctl, q[0], FIONBIO, &n);
  CALL(ioctl, q[0], 0x12345678, 5L);
  long long o = 3;
  CALL(sendfile, 99, 0, &o, 10L);
  CALL(splice, m, &o, q[1], 0L, 10L, SPLICE_F_MORE | SPLICE_F_NONBLOCK);
  CALL(tee, 99, p[1], 10L, SPLICE_F_NONBLOCK);
  CALL(pidfd_open, -1, O_NONBLOCK);
  CALL(keyctl, 0, -3L, 0L);
  CALL(pidfd_send_signal, 99, SIGTERM, 0L, 0);
  CALL(userfaultfd, O_CLOEXEC | 4);
  CALL(bpf, 0, 0L, 0);
}

static void processes(void) {
  int n = 0;
  unsigned groups[4];
  CALL(getgroups, -1, groups);
  struct __user_cap_header_struct head = {_LINUX_CAPABILITY_VERSION_3, 0};
  struct __user_cap_data_struct caps[2];
  CALL(capget, &head, caps);
  head.version = 5;
  CALL(capget, &head, caps);
  struct sigaction sa = {.sa_handler = handler, .sa_flags = SA_RESTART};
  sigaction(SIGUSR1, &sa, 0);
  sa.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER | SA_RESETHAND | SA_NOCLDSTOP | SA_NOCLDWAIT;
  sigaction(SIGCHLD, &sa, &sa);
  sigaction(SIGCHLD, 0, &sa);
  union sigval value = {.sival_int = 7};
  sigqueue(getpid(), SIGUSR1, value);
  sigset_t s;
  sigemptyset(&s);
  sigaddset(&s, SIGUSR1);
  CALL(rt_sigprocmask, SIG_BLOCK, &s, 0L, 8L);
  CALL(kill, getpid(), SIGUSR1);
  siginfo_t si = {0};
  struct timespec t = {0, 1000};
  CALL(rt_sigtimedwait, &s, &si, &t, 8L);
  CALL(rt_sigprocmask, 7, &s, 0L, 8L);
  static char area[65536];
  stack_t st = {area, 0, sizeof area}, so;
  CALL(sigaltstack, &st, &so);
  struct itimerval iv = {{0, 0}, {100, 0}}, io;
  CALL(setitimer, ITIMER_REAL, &iv, &io);
  iv.it_value.tv_sec = 0;
  CALL(setitimer, ITIMER_REAL, &iv, 0L);
  CALL(getitimer, 9, &io);
  struct sigevent se = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR2};
  int timer;
  CALL(timer_create, CLOCK_MONOTONIC, &se, &timer);
  struct itimerspec its = {{0, 0}, {100, 0}}, ito;
  CALL(timer_settime, timer, 0, &its, &ito);
  CALL(timer_delete, timer);
  CALL(clock_nanosleep, CLOCK_MONOTONIC, TIMER_ABSTIME, &t, 0L);
  CALL(clock_getres, CLOCK_TAI, 0L);
  CALL(getrlimit, 99, 0L);
  CALL(setpriority, 9, 0, 5);
  CALL(ioprio_set, 1, 99999999, 0x4004);
  CALL(sched_getscheduler, 0);
  struct sched_param sp = {0};
  CALL(sched_setscheduler, 0, SCHED_BATCH, &sp);
  unsigned long mask[16] = {0};
  CALL(sched_setaffinity, 0, 8L, mask);
  CALL(prctl, PR_SET_NAME, "abc");
  char name[16];
  CALL(prctl, PR_GET_NAME, name);
  CALL(prctl, PR_SET_PDEATHSIG, SIGTERM);
  CALL(prctl, PR_GET_PDEATHSIG, &n);
  CALL(prctl, PR_CAPBSET_READ, CAP_SYS_ADMIN);
  CALL(prctl, PR_SET_DUMPABLE, 1L);
  CALL(prctl, PR_GET_DUMPABLE);
  CALL(prctl, 9999, 1L, 2L, 3L, 4L);
  CALL(prctl, PR_CAP_AMBIENT, PR_CAP_AMBIENT_IS_SET, CAP_NET_RAW, 0L, 0L);
  CALL(personality, 0xffffffff);
  struct utsname un;
  CALL(uname, &un);
  CALL(membarrier, 1 << 4, 0, 0);
  int word = 5;
  CALL(futex, &word, FUTEX_WAIT_BITSET_PRIVATE | FUTEX_CLOCK_REALTIME, 5, &t, 0L, -1);
  CALL(futex, &word, FUTEX_WAKE_BITSET, 1, 0L, 0L, 3);
  CALL(futex, &word, FUTEX_CMP_REQUEUE_PRIVATE, 1, 1L, &n, 5);
  CALL(futex, &word, FUTEX_WAKE_OP, 1, 1L, &n, 0x12345678);
  CALL(futex, &word, 99, 1, 2L, 3L, 4);
  void *list;
  size_t size;
  CALL(get_robust_list, 0, &list, &size);
  CALL(unshare, CLONE_NEWNS | CLONE_THREAD);
  CALL(mlockall, MCL_FUTURE | 8);
  CALL(delete_module, "no_such", O_NONBLOCK);
  int status;
  struct rusage ru;
  CALL(wait4, 99999999, &status, __WALL | __WNOTHREAD | WUNTRACED | WCONTINUED, &ru);
  CALL(waitid, P_ALL, 0, 0L, WEXITED, 0L);
}

static void network(void) {
  char b[256] = {0};
  int one = 1;
  socklen_t l = 16;
  int s = CALL(socket, AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, IPPROTO_TCP);
  int x = CALL(socket, AF_INET6, SOCK_STREAM, 0), u = CALL(socket, AF_INET, SOCK_DGRAM, 0);
  int nl = CALL(socket, AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_KOBJECT_UEVENT), sv[2];
  CALL(socket, 99, 77, 5);
  struct linger lg = {1, 2};
  CALL(setsockopt, s, SOL_SOCKET, SO_LINGER, &lg, 8);
  CALL(setsockopt, s, SOL_IP, IP_TOS, &one, 4);
  CALL(setsockopt, x, SOL_IPV6, IPV6_V6ONLY, &one, 4);
  CALL(setsockopt, s, SOL_SOCKET, 999, &one, 4);
  CALL(setsockopt, s, SOL_SOCKET, SO_REUSEADDR, &one, 1);
  CALL(getsockopt, s, SOL_SOCKET, SO_ERROR, b, &l);
  CALL(getsockopt, 99, SOL_SOCKET, SO_ERROR, b, &l);
  l = 8;
  CALL(getsockopt, s, SOL_SOCKET, SO_LINGER, b, &l);
  struct sockaddr_in6 a6 = {.sin6_family = AF_INET6, .sin6_port = htons(80), .sin6_scope_id = 1, .sin6_flowinfo = htonl(5)};
  CALL(bind, 99, &a6, 28);
  struct sockaddr_nl an = {.nl_family = AF_NETLINK, .nl_groups = 1};
  CALL(bind, 99, &an, 12);
  CALL(bind, 99, "\x63\0ab", 4);
  CALL(connect, u, "\0\0abcdefghijklmn", 16);
  struct sockaddr_un au = {.sun_family = AF_UNIX};
  int n = CALL(socket, AF_UNIX, SOCK_STREAM, 0);
  l = 110;
  CALL(getsockname, n, &au, &l);
  CALL(accept, n, b, &l);
  CALL(socketpair, AF_UNIX, SOCK_STREAM, 0, sv);
  struct iovec v[2] = {{"ab", 2}, {"cde", 3}};
  char cb[CMSG_SPACE(8)] = {0};
  struct cmsghdr *c = (void *)cb;
  c->cmsg_len = CMSG_LEN(8);
  c->cmsg_level = SOL_SOCKET;
  c->cmsg_type = SCM_RIGHTS;
  ((int *)CMSG_DATA(c))[1] = 1;
  struct msghdr m = {.msg_iov = v, .msg_iovlen = 2, .msg_control = cb, .msg_controllen = sizeof cb};
  CALL(sendmsg, sv[0], &m, MSG_NOSIGNAL | MSG_CONFIRM);
  char r1[3], r2[10], cb2[64];
  struct iovec w[2] = {{r1, 3}, {r2, 10}};
  struct msghdr mr = {.msg_iov = w, .msg_iovlen = 2, .msg_control = cb2, .msg_controllen = 64};
  CALL(recvmsg, sv[1], &mr, MSG_CMSG_CLOEXEC);
  (void)nl;
}

static void memory(void) {
  CALL(mmap, 0L, 4096L, PROT_READ, MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE | MAP_LOCKED, -1, 0L);
  CALL(mmap, 0L, 4096L, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB | (62 << 26), -1, 0L);
  char *p = (char *)CALL(mmap, 0L, 16384L, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0L), b[16];
  CALL(mremap, p, 4096L, 4096L, MREMAP_MAYMOVE | MREMAP_FIXED, p);
  CALL(madvise, p, 4096L, MADV_COLD);
  CALL(madvise, p, 4096L, 99);
  *p = 1;
  CALL(mincore, p, 8192L, b);
  CALL(mlock2, p, 4096L, 1);
  CALL(pkey_mprotect, p, 4096L, PROT_READ, -1);
  CALL(mbind, p, 4096L, 0, 0L, 0L, 0);
  CALL(shmget, 0x1234567, 4096L, IPC_EXCL | 0600);
  CALL(shmat, -1, 0L, SHM_RDONLY);
  struct sembuf sb[2] = {{0, 1, 0}, {1, -1, IPC_NOWAIT | SEM_UNDO}};
  CALL(semop, -1, sb, 2L);
  struct { long type; char text[20]; } mb = {3, "message"};
  CALL(msgsnd, -1, &mb, 7L, IPC_NOWAIT);
  CALL(mq_open, "no", O_RDONLY | O_NONBLOCK);
}

static void filtered(void) {
  struct sock_filter code[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 0), BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_getppid, 0, 1),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EBADFD), BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_getsid, 0, 1),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRAP), BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)};
  struct sock_fprog program = {6, code};
  struct sigaction sa = {.sa_handler = handler};
  sigaction(SIGSYS, &sa, 0);
  CALL(prctl, PR_SET_NO_NEW_PRIVS, 1L, 0L, 0L, 0L);
  CALL(seccomp, 1, 0, &program);
  CALL(getppid);
  CALL(getsid, 0);
}

int main(void) {
  CALL(getpid);
  files();
  descriptors();
  processes();
  network();
  memory();
  filtered();
  return 0;
}
