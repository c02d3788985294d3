//! The classes that `-e trace=%class` names.
//!
//! They are strace's: unlike those of the feature schema ([`vigia_model::syscalls::Class`]) they overlap, as an
//! `openat` is about a path and gives a descriptor. Names that an architecture lacks are passed over.

/// Names of classes, and of their system calls.
pub const CLASSES: [(&str, &str); 18] = [
    ("file", FILE),
    ("network", NETWORK),
    ("net", NETWORK),
    ("process", PROCESS),
    ("memory", MEMORY),
    ("ipc", IPC),
    ("signal", SIGNAL),
    ("desc", DESC),
    ("creds", CREDS),
    ("clock", CLOCK),
    ("stat", "stat"),
    ("lstat", "lstat"),
    ("fstat", "fstat newfstatat fstatat statx"),
    ("%stat", "stat lstat fstat newfstatat fstatat statx"),
    ("statfs", "statfs"),
    ("fstatfs", "fstatfs"),
    ("%statfs", "statfs fstatfs ustat"),
    (
        "pure",
        "getegid geteuid getgid getpgrp getpid getppid gettid getuid",
    ),
];

/// Names of the system calls of a class, if there is such a class.
pub fn members(class: &str) -> Option<&'static str> {
    CLASSES
        .iter()
        .find(|(name, _)| *name == class)
        .map(|(_, members)| *members)
}

const FILE: &str = "access acct chdir chmod chown chroot creat execve execveat faccessat faccessat2 fanotify_mark \
    fchmodat fchmodat2 fchownat file_getattr file_setattr fsconfig fspick fstatat futimesat getcwd getxattr getxattrat \
    inotify_add_watch lchown lgetxattr link linkat listxattr listxattrat llistxattr lremovexattr lsetxattr lstat \
    mkdir mkdirat mknod mknodat mount mount_setattr move_mount name_to_handle_at newfstatat open open_tree \
    open_tree_attr openat openat2 pivot_root quotactl readlink readlinkat removexattr removexattrat rename renameat \
    renameat2 rmdir setxattr setxattrat stat statfs statx swapoff swapon symlink symlinkat truncate umount2 unlink \
    unlinkat uselib utime utimensat utimes";

const NETWORK: &str = "accept accept4 bind connect getpeername getsockname getsockopt listen recvfrom recvmmsg recvmsg \
    sendfile sendmmsg sendmsg sendto setsockopt shutdown socket socketpair";

const PROCESS: &str = "clone clone3 execve execveat exit exit_group fork kill pidfd_send_signal rt_sigqueueinfo \
    rt_tgsigqueueinfo tgkill tkill vfork wait4 waitid";

const MEMORY: &str = "brk get_mempolicy io_destroy io_setup io_uring_register madvise map_shadow_stack mbind migrate_pages mincore mlock \
    mlock2 mlockall mmap move_pages mprotect mremap mseal msync munlock munlockall munmap pkey_mprotect \
    remap_file_pages set_mempolicy set_mempolicy_home_node shmat shmdt";

const IPC: &str = "msgctl msgget msgrcv msgsnd semctl semget semop semtimedop shmat shmctl shmdt shmget";

const SIGNAL: &str = "io_uring_enter kill pause pidfd_send_signal rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo \
    rt_sigreturn rt_sigsuspend rt_sigtimedwait rt_tgsigqueueinfo sigaltstack signalfd signalfd4 tgkill tkill";

const DESC: &str = "bpf cachestat close close_range copy_file_range creat dup dup2 dup3 epoll_create epoll_create1 \
    epoll_ctl epoll_pwait epoll_pwait2 epoll_wait eventfd eventfd2 execveat faccessat faccessat2 fadvise64 fallocate \
    fanotify_init fanotify_mark fchdir fchmod fchmodat fchmodat2 fchown fchownat fcntl fdatasync fgetxattr \
    finit_module flistxattr flock fremovexattr fsconfig fsetxattr fsmount fsopen fspick fstat fstatat fstatfs fsync \
    ftruncate futimesat getdents getdents64 inotify_add_watch inotify_init inotify_init1 inotify_rm_watch \
    io_uring_enter io_uring_register io_uring_setup ioctl kexec_file_load landlock_add_rule \
    landlock_create_ruleset landlock_restrict_self linkat lseek memfd_create memfd_secret mkdirat mknodat mmap \
    mount_setattr move_mount mq_getsetattr mq_notify mq_open mq_timedreceive mq_timedsend name_to_handle_at \
    newfstatat open open_by_handle_at open_tree openat openat2 perf_event_open pidfd_getfd pidfd_open \
    pidfd_send_signal pipe pipe2 poll ppoll pread64 preadv preadv2 process_madvise process_mrelease pselect6 \
    pwrite64 pwritev pwritev2 quotactl_fd read readahead readlinkat readv renameat renameat2 select sendfile setns \
    signalfd signalfd4 splice statx symlinkat sync_file_range syncfs tee timerfd_create timerfd_gettime \
    timerfd_settime unlinkat userfaultfd utimensat vmsplice write writev";

const CREDS: &str = "capget capset getegid geteuid getgid getgroups getresgid getresuid getuid prctl setfsgid setfsuid \
    setgid setgroups setregid setresgid setresuid setreuid setuid";

const CLOCK: &str =
    "adjtimex clock_adjtime clock_getres clock_gettime clock_settime gettimeofday settimeofday time";
