//! Classes of system calls, by name.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// What a system call is about. The names match strace's `-e trace=%class` where strace has one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum Class {
    /// Takes a path: files, folders, mounts, extended attributes.
    File,
    /// Sockets.
    Network,
    /// Birth, death, identity and privileges of processes.
    Process,
    /// Address space.
    Memory,
    /// System V and POSIX IPC, futexes.
    Ipc,
    /// Signals.
    Signal,
    /// Works on a descriptor: reading, writing, polling, duplicating.
    Desc,
    /// Clocks, scheduling, the rest, and numbers without a name.
    Other,
}

impl Class {
    /// Every class, in the order of its discriminant.
    pub const ALL: [Self; 8] = [
        Self::File,
        Self::Network,
        Self::Process,
        Self::Memory,
        Self::Ipc,
        Self::Signal,
        Self::Desc,
        Self::Other,
    ];

    /// The class's lower-case name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Network => "network",
            Self::Process => "process",
            Self::Memory => "memory",
            Self::Ipc => "ipc",
            Self::Signal => "signal",
            Self::Desc => "desc",
            Self::Other => "other",
        }
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Class {
    type Err = UnknownClass;

    fn from_str(text: &str) -> Result<Self, UnknownClass> {
        Self::ALL
            .into_iter()
            .find(|c| c.as_str() == text)
            .ok_or_else(|| UnknownClass(text.to_owned()))
    }
}

/// The text names no class.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "unknown class of system calls {0:?}; classes are file, network, process, memory, ipc, signal, desc and other"
)]
pub struct UnknownClass(pub String);

/// Class of the system call called `name`; unknown names are [`Class::Other`].
pub fn class(name: &str) -> Class {
    match name {
        "open" | "openat" | "openat2" | "creat" | "stat" | "lstat" | "newfstatat" | "fstatat" | "statx"
        | "access" | "faccessat" | "faccessat2" | "truncate" | "getcwd" | "chdir" | "rename" | "renameat"
        | "renameat2" | "mkdir" | "mkdirat" | "rmdir" | "link" | "linkat" | "unlink" | "unlinkat"
        | "symlink" | "symlinkat" | "readlink" | "readlinkat" | "chmod" | "fchmodat" | "fchmodat2"
        | "chown" | "lchown" | "fchownat" | "utime" | "utimes" | "utimensat" | "utimensat_time64"
        | "futimesat" | "mknod" | "mknodat" | "uselib" | "statfs" | "pivot_root" | "chroot" | "acct"
        | "mount" | "umount2" | "swapon" | "swapoff" | "quotactl" | "setxattr" | "lsetxattr" | "getxattr"
        | "lgetxattr" | "listxattr" | "llistxattr" | "removexattr" | "lremovexattr" | "setxattrat"
        | "getxattrat" | "listxattrat" | "removexattrat" | "inotify_add_watch" | "fanotify_mark"
        | "name_to_handle_at" | "open_by_handle_at" | "open_tree" | "open_tree_attr" | "move_mount"
        | "fsopen" | "fsconfig" | "fsmount" | "fspick" | "mount_setattr" | "statmount" | "listmount"
        | "file_getattr" | "file_setattr" | "sysfs" | "lookup_dcookie" => Class::File,
        "socket" | "connect" | "accept" | "accept4" | "sendto" | "recvfrom" | "sendmsg" | "recvmsg"
        | "shutdown" | "bind" | "listen" | "getsockname" | "getpeername" | "socketpair" | "setsockopt"
        | "getsockopt" | "recvmmsg" | "recvmmsg_time64" | "sendmmsg" => Class::Network,
        "clone"
        | "clone3"
        | "fork"
        | "vfork"
        | "execve"
        | "execveat"
        | "exit"
        | "exit_group"
        | "wait4"
        | "waitid"
        | "ptrace"
        | "prctl"
        | "arch_prctl"
        | "seccomp"
        | "setuid"
        | "setgid"
        | "setreuid"
        | "setregid"
        | "setresuid"
        | "setresgid"
        | "setfsuid"
        | "setfsgid"
        | "setgroups"
        | "getuid"
        | "getgid"
        | "geteuid"
        | "getegid"
        | "getresuid"
        | "getresgid"
        | "getgroups"
        | "getpid"
        | "getppid"
        | "gettid"
        | "getpgid"
        | "getpgrp"
        | "getsid"
        | "setpgid"
        | "setsid"
        | "capget"
        | "capset"
        | "unshare"
        | "setns"
        | "personality"
        | "pidfd_open"
        | "pidfd_getfd"
        | "kcmp"
        | "set_tid_address"
        | "getpriority"
        | "setpriority"
        | "getrlimit"
        | "setrlimit"
        | "prlimit64"
        | "getrusage"
        | "landlock_create_ruleset"
        | "landlock_add_rule"
        | "landlock_restrict_self"
        | "rseq"
        | "set_robust_list"
        | "get_robust_list"
        | "add_key"
        | "request_key"
        | "keyctl"
        | "init_module"
        | "finit_module"
        | "delete_module"
        | "kexec_load"
        | "kexec_file_load"
        | "bpf"
        | "perf_event_open"
        | "lsm_get_self_attr"
        | "lsm_set_self_attr"
        | "lsm_list_modules"
        | "modify_ldt" => Class::Process,
        "mmap"
        | "mprotect"
        | "munmap"
        | "brk"
        | "mremap"
        | "msync"
        | "mincore"
        | "madvise"
        | "process_madvise"
        | "mlock"
        | "mlock2"
        | "munlock"
        | "mlockall"
        | "munlockall"
        | "remap_file_pages"
        | "mbind"
        | "set_mempolicy"
        | "get_mempolicy"
        | "migrate_pages"
        | "move_pages"
        | "pkey_mprotect"
        | "pkey_alloc"
        | "pkey_free"
        | "process_vm_readv"
        | "process_vm_writev"
        | "memfd_create"
        | "memfd_secret"
        | "userfaultfd"
        | "membarrier"
        | "process_mrelease"
        | "set_mempolicy_home_node"
        | "map_shadow_stack"
        | "mseal"
        | "cachestat" => Class::Memory,
        "shmget"
        | "shmat"
        | "shmctl"
        | "shmdt"
        | "semget"
        | "semop"
        | "semctl"
        | "semtimedop"
        | "semtimedop_time64"
        | "msgget"
        | "msgsnd"
        | "msgrcv"
        | "msgctl"
        | "mq_open"
        | "mq_unlink"
        | "mq_timedsend"
        | "mq_timedsend_time64"
        | "mq_timedreceive"
        | "mq_timedreceive_time64"
        | "mq_notify"
        | "mq_getsetattr"
        | "futex"
        | "futex_time64"
        | "futex_waitv"
        | "futex_wake"
        | "futex_wait"
        | "futex_requeue" => Class::Ipc,
        "rt_sigaction"
        | "rt_sigprocmask"
        | "rt_sigreturn"
        | "rt_sigpending"
        | "rt_sigtimedwait"
        | "rt_sigtimedwait_time64"
        | "rt_sigqueueinfo"
        | "rt_tgsigqueueinfo"
        | "rt_sigsuspend"
        | "sigaltstack"
        | "kill"
        | "tkill"
        | "tgkill"
        | "pause"
        | "signalfd"
        | "signalfd4"
        | "pidfd_send_signal"
        | "alarm" => Class::Signal,
        "read"
        | "write"
        | "close"
        | "fstat"
        | "poll"
        | "ppoll"
        | "ppoll_time64"
        | "lseek"
        | "ioctl"
        | "pread64"
        | "pwrite64"
        | "readv"
        | "writev"
        | "preadv"
        | "pwritev"
        | "preadv2"
        | "pwritev2"
        | "pipe"
        | "pipe2"
        | "select"
        | "pselect6"
        | "pselect6_time64"
        | "dup"
        | "dup2"
        | "dup3"
        | "sendfile"
        | "fcntl"
        | "flock"
        | "fsync"
        | "fdatasync"
        | "ftruncate"
        | "getdents"
        | "getdents64"
        | "fchdir"
        | "fchmod"
        | "fchown"
        | "fstatfs"
        | "readahead"
        | "fsetxattr"
        | "fgetxattr"
        | "flistxattr"
        | "fremovexattr"
        | "epoll_create"
        | "epoll_create1"
        | "epoll_ctl"
        | "epoll_wait"
        | "epoll_pwait"
        | "epoll_pwait2"
        | "epoll_ctl_old"
        | "epoll_wait_old"
        | "inotify_init"
        | "inotify_init1"
        | "inotify_rm_watch"
        | "fanotify_init"
        | "splice"
        | "tee"
        | "vmsplice"
        | "sync_file_range"
        | "timerfd_create"
        | "timerfd_settime"
        | "timerfd_gettime"
        | "timerfd_settime64"
        | "timerfd_gettime64"
        | "eventfd"
        | "eventfd2"
        | "fallocate"
        | "fadvise64"
        | "copy_file_range"
        | "close_range"
        | "syncfs"
        | "io_setup"
        | "io_destroy"
        | "io_submit"
        | "io_cancel"
        | "io_getevents"
        | "io_pgetevents"
        | "io_pgetevents_time64"
        | "io_uring_setup"
        | "io_uring_enter"
        | "io_uring_register"
        | "quotactl_fd" => Class::Desc,
        _ => Class::Other,
    }
}
