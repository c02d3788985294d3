//! What the arguments and the result of each system call are.

use super::names as n;
use super::text::Table;

/// How an argument is shown. A number is the position of the argument that holds a length.
#[derive(Debug, Clone, Copy)]
pub enum Arg {
    Int,
    Unsigned,
    Long,
    Size,
    Hex,
    Pointer,
    PointerOut,
    Fd,
    DirFd,
    Path,
    PathOut,
    In(usize),
    /// As much of it as the result says.
    Out,
    Open,
    Mode,
    Bits(Table),
    /// Bits, and a word for none.
    BitsOr(Table, &'static str),
    One(Table),
    Map,
    Socket,
    Clone,
    Futex,
    Signal,
    Set,
    SetOut,
    Action,
    ActionOut,
    Strings,
    Environment,
    Stat,
    Statx,
    Time,
    TimeOut,
    Address(usize),
    AddressOut(usize),
    IntPointer,
    IntOut,
    Vectors(usize),
    VectorsOut(usize),
    Pair,
    Status,
    Limit,
    LimitOut,
    Polled(usize),
    Device,
    /// Permissions, with the kind of file.
    Node,
    /// What is left of a sleep, written where it was interrupted.
    Remaining,
    How,
    Event,
    /// Flags of statx, whose 0 has a name.
    AtStatx,
    Entries,
}

impl Arg {
    /// Whether the kernel writes it, so that it is known at the end only.
    pub fn is_result(self) -> bool {
        matches!(
            self,
            Self::PathOut
                | Self::PointerOut
                | Self::Out
                | Self::SetOut
                | Self::ActionOut
                | Self::Stat
                | Self::Statx
                | Self::TimeOut
                | Self::Remaining
                | Self::AddressOut(_)
                | Self::IntOut
                | Self::VectorsOut(_)
                | Self::Pair
                | Self::Status
                | Self::Entries
                | Self::LimitOut
                | Self::Polled(_)
        )
    }
}

/// How a result is shown.
#[derive(Debug, Clone, Copy)]
pub enum Ret {
    Decimal,
    Address,
    Octal,
    OpenFlags,
}

/// Arguments and result.
#[derive(Debug, Clone, Copy)]
pub struct Signature {
    pub args: &'static [Arg],
    pub ret: Ret,
}

/// The signature of a call; `values` decide where a call has several. Of one that is not known every register is shown.
pub fn of(name: &str, values: &[u64; 6]) -> Signature {
    let ret = match name {
        "mmap" | "brk" | "mremap" | "shmat" => Ret::Address,
        "umask" => Ret::Octal,
        "fcntl" if values[1] == libc::F_GETFL as u64 => Ret::OpenFlags,
        _ => Ret::Decimal,
    };
    Signature {
        args: args(name, values),
        ret,
    }
}

fn creates(flags: u64) -> bool {
    flags & (libc::O_CREAT | (libc::O_TMPFILE & !libc::O_DIRECTORY)) as u64 != 0
}

fn args(name: &str, values: &[u64; 6]) -> &'static [Arg] {
    use Arg::*;
    match name {
        "openat" if !creates(values[2]) => &[DirFd, Path, Open],
        "open" if !creates(values[1]) => &[Path, Open],
        "fcntl" => fcntl(values[1] as i32),
        "futex" => futex(values[1]),
        "mknod" if is_device(values[1]) => &[Path, Node, Device],
        "mknodat" if is_device(values[2]) => &[DirFd, Path, Node, Device],
        "prctl" if values[0] as i32 == libc::PR_SET_NAME => &[One(n::PRCTL), Path],
        // Numbers of protocols are the family's own.
        "socket" if [libc::AF_INET, libc::AF_INET6].contains(&(values[0] as i32)) => {
            &[One(n::DOMAIN), Socket, One(n::PROTOCOL)]
        }
        "setsockopt" if values[1] as i32 == libc::IPPROTO_TCP => {
            &[Fd, One(n::LEVEL), One(n::TCP_OPTION), IntPointer, Int]
        }
        "getsockopt" if values[1] as i32 == libc::IPPROTO_TCP => {
            &[Fd, One(n::LEVEL), One(n::TCP_OPTION), IntOut, IntOut]
        }
        "setsockopt" if values[1] as i32 != libc::SOL_SOCKET => &[Fd, One(n::LEVEL), Int, IntPointer, Int],
        "getsockopt" if values[1] as i32 != libc::SOL_SOCKET => &[Fd, One(n::LEVEL), Int, IntOut, IntOut],
        _ => files(name)
            .or_else(|| processes(name))
            .or_else(|| others(name))
            .unwrap_or_else(|| undecoded(name)),
    }
}

fn is_device(mode: u64) -> bool {
    matches!(mode as u32 & libc::S_IFMT, libc::S_IFCHR | libc::S_IFBLK)
}

/// Registers as they are: so many as the call takes, where that is known to be few.
fn undecoded(name: &str) -> &'static [Arg] {
    const ALL: &[Arg] = &[Arg::Hex; 6];
    let count = match name {
        "inotify_init" | "vhangup" => 0,
        "eventfd"
        | "fsopen"
        | "inotify_init1"
        | "io_destroy"
        | "iopl"
        | "memfd_secret"
        | "mlockall"
        | "mq_unlink"
        | "personality"
        | "pkey_free"
        | "sched_get_priority_max"
        | "sched_get_priority_min"
        | "sched_getscheduler"
        | "setfsgid"
        | "setfsuid"
        | "shmdt"
        | "time"
        | "timer_delete"
        | "timer_getoverrun"
        | "userfaultfd" => 1,
        "delete_module"
        | "fanotify_init"
        | "getitimer"
        | "getpriority"
        | "io_setup"
        | "landlock_restrict_self"
        | "pkey_alloc"
        | "sched_getparam"
        | "sched_setparam"
        | "timerfd_gettime"
        | "utime"
        | "utimes" => 2,
        _ => ALL.len(),
    };
    &ALL[..count]
}

fn fcntl(command: i32) -> &'static [Arg] {
    use Arg::*;
    const DESCRIPTOR: Table = &[(1, "FD_CLOEXEC")];
    match command {
        libc::F_GETFD | libc::F_GETFL | libc::F_GETOWN => &[Fd, One(n::FCNTL)],
        libc::F_SETFD => &[Fd, One(n::FCNTL), Bits(DESCRIPTOR)],
        libc::F_SETFL => &[Fd, One(n::FCNTL), Open],
        libc::F_DUPFD | libc::F_DUPFD_CLOEXEC => &[Fd, One(n::FCNTL), Int],
        libc::F_GETLK | libc::F_SETLK | libc::F_SETLKW => &[Fd, One(n::FCNTL), Pointer],
        _ => &[Fd, One(n::FCNTL), Hex],
    }
}

fn futex(operation: u64) -> &'static [Arg] {
    use Arg::*;
    match operation & 127 {
        0 => &[Pointer, Futex, Int, Time],
        1 | 7 => &[Pointer, Futex, Int],
        9 => &[Pointer, Futex, Unsigned, Time, Pointer, Hex],
        _ => &[Pointer, Futex, Unsigned, Pointer, Pointer, Hex],
    }
}

/// Paths and descriptors.
fn files(name: &str) -> Option<&'static [Arg]> {
    use Arg::*;
    Some(match name {
        "openat" => &[DirFd, Path, Open, Mode],
        "open" => &[Path, Open, Mode],
        "fsopen" => &[Path, Hex],
        "openat2" => &[DirFd, Path, How, Size],
        "creat" | "mkdir" | "chmod" => &[Path, Mode],
        "read" => &[Fd, Out, Size],
        "write" => &[Fd, In(2), Size],
        "pread64" => &[Fd, Out, Size, Long],
        "pwrite64" => &[Fd, In(2), Size, Long],
        "readv" => &[Fd, VectorsOut(2), Int],
        "writev" => &[Fd, Vectors(2), Int],
        "close" | "fsync" | "fdatasync" | "fchdir" | "dup" | "syncfs" => &[Fd],
        "dup2" => &[Fd, Fd],
        "dup3" => &[Fd, Fd, Bits(n::PIPE)],
        "close_range" => &[Fd, Fd, Hex],
        "stat" | "lstat" => &[Path, Stat],
        "fstat" => &[Fd, Stat],
        "newfstatat" => &[DirFd, Path, Stat, Bits(n::AT)],
        "statx" => &[DirFd, Path, AtStatx, Bits(n::STATX_MASK), Statx],
        "access" => &[Path, BitsOr(n::ACCESS, "F_OK")],
        "faccessat" => &[DirFd, Path, BitsOr(n::ACCESS, "F_OK")],
        "faccessat2" => &[DirFd, Path, BitsOr(n::ACCESS, "F_OK"), Bits(n::AT)],
        "chdir" | "rmdir" | "unlink" | "chroot" | "acct" | "swapoff" => &[Path],
        "mkdirat" | "fchmodat" => &[DirFd, Path, Mode],
        "fchmod" => &[Fd, Mode],
        "unlinkat" => &[DirFd, Path, Bits(&[(libc::AT_REMOVEDIR as u64, "AT_REMOVEDIR")])],
        "rename" | "link" | "symlink" | "pivot_root" => &[Path, Path],
        "renameat" => &[DirFd, Path, DirFd, Path],
        "renameat2" => &[DirFd, Path, DirFd, Path, Bits(n::RENAME)],
        "linkat" => &[DirFd, Path, DirFd, Path, Bits(n::AT)],
        "symlinkat" => &[Path, DirFd, Path],
        "readlink" => &[Path, PathOut, Size],
        "readlinkat" => &[DirFd, Path, PathOut, Size],
        "getcwd" => &[PathOut, Size],
        "chown" | "lchown" => &[Path, Int, Int],
        "fchown" => &[Fd, Int, Int],
        "fchownat" => &[DirFd, Path, Int, Int, Bits(n::AT)],
        "truncate" => &[Path, Long],
        "ftruncate" => &[Fd, Long],
        "lseek" => &[Fd, Long, One(n::WHENCE)],
        "getdents64" => &[Fd, Entries, Size],
        "getdents" => &[Fd, PointerOut, Size],
        "statfs" => &[Path, PointerOut],
        "fstatfs" => &[Fd, PointerOut],
        "utimensat" => &[DirFd, Path, Pointer, Bits(n::AT)],
        "mount" => &[Path, Path, Path, Bits(n::MOUNT), Pointer],
        "umount2" => &[Path, Hex],
        "mknod" => &[Path, Node],
        "mknodat" => &[DirFd, Path, Node],
        "getxattr" | "lgetxattr" => &[Path, Path, PointerOut, Size],
        "fgetxattr" => &[Fd, Path, PointerOut, Size],
        "listxattr" | "llistxattr" => &[Path, PointerOut, Size],
        "setxattr" | "lsetxattr" => &[Path, Path, In(3), Size, Hex],
        "inotify_add_watch" => &[Fd, Path, Hex],
        "inotify_rm_watch" => &[Fd, Int],
        "ioctl" => &[Fd, One(n::IOCTL), Pointer],
        "flock" => &[Fd, Bits(n::FLOCK)],
        "fadvise64" => &[Fd, Long, Size, One(n::FADVICE)],
        "fallocate" => &[Fd, Hex, Long, Long],
        "copy_file_range" | "splice" => &[Fd, Pointer, Fd, Pointer, Size, Hex],
        "sendfile" => &[Fd, Fd, Pointer, Size],
        "pipe" => &[Pair],
        "pipe2" => &[Pair, Bits(n::PIPE)],
        "poll" => &[Polled(1), Unsigned, Int],
        "ppoll" => &[Polled(1), Unsigned, Time, Set],
        "select" => &[Int, Pointer, Pointer, Pointer, Pointer],
        "pselect6" => &[Int, Pointer, Pointer, Pointer, Time, Pointer],
        "epoll_create1" => &[Bits(n::EPOLL_CREATE)],
        "epoll_create" => &[Int],
        "epoll_ctl" => &[Fd, One(n::EPOLL_OP), Fd, Event],
        "epoll_wait" => &[Fd, PointerOut, Int, Int],
        "epoll_pwait" => &[Fd, PointerOut, Int, Int, Set, Size],
        "eventfd2" => &[Unsigned, Bits(n::EVENTFD)],
        "timerfd_create" => &[One(n::CLOCK), Hex],
        "timerfd_settime" => &[Fd, Hex, Pointer, PointerOut],
        "memfd_create" => &[Path, Bits(n::MEMFD)],
        "umask" => &[Mode],
        _ => return None,
    })
}

/// Processes, signals, memory.
fn processes(name: &str) -> Option<&'static [Arg]> {
    use Arg::*;
    Some(match name {
        "execve" => &[Path, Strings, Environment],
        "execveat" => &[DirFd, Path, Strings, Environment, Bits(n::AT)],
        "exit" | "exit_group" | "setuid" | "setgid" | "getpgid" | "getsid" | "pidfd_open" => &[Int],
        "fork" | "vfork" | "getpid" | "getppid" | "gettid" | "getuid" | "geteuid" | "getgid" | "getegid"
        | "getpgrp" | "setsid" | "pause" | "sync" | "sched_yield" | "munlockall" => &[],
        "clone" => &[Clone, Pointer, Pointer, Pointer, Pointer],
        "clone3" => &[Pointer, Size],
        "wait4" => &[Int, Status, Bits(n::WAIT), Pointer],
        "waitid" => &[One(n::IDTYPE), Int, PointerOut, Bits(n::WAIT), Pointer],
        "kill" | "tkill" => &[Int, Signal],
        "tgkill" => &[Int, Int, Signal],
        "rt_sigaction" => &[Signal, Action, ActionOut, Size],
        "rt_sigprocmask" => &[One(n::HOW), Set, SetOut, Size],
        "rt_sigsuspend" => &[Set, Size],
        "rt_sigtimedwait" => &[Set, PointerOut, Time, Size],
        "rt_sigpending" => &[SetOut, Size],
        "sigaltstack" => &[Pointer, PointerOut],
        "rt_sigreturn" | "restart_syscall" => &[],
        "brk" => &[Pointer],
        "mmap" => &[Pointer, Size, BitsOr(n::PROTECTION, "PROT_NONE"), Map, Fd, Hex],
        "mprotect" => &[Pointer, Size, BitsOr(n::PROTECTION, "PROT_NONE")],
        "munmap" | "mlock" | "munlock" => &[Pointer, Size],
        "mremap" => &[Pointer, Size, Size, Bits(n::REMAP)],
        "madvise" => &[Pointer, Size, One(n::ADVICE)],
        "msync" => &[Pointer, Size, Bits(n::SYNC)],
        "arch_prctl" => &[One(n::ARCH), Hex],
        "prctl" => &[One(n::PRCTL), Hex, Hex, Hex, Hex],
        "set_tid_address" => &[Pointer],
        "set_robust_list" => &[Pointer, Size],
        "rseq" => &[Pointer, Hex, Hex, Hex],
        "prlimit64" => &[Int, One(n::RLIMIT), Limit, LimitOut],
        "getrlimit" => &[One(n::RLIMIT), LimitOut],
        "setrlimit" => &[One(n::RLIMIT), Limit],
        "getrusage" => &[One(n::RUSAGE), PointerOut],
        "setpgid" | "setreuid" | "setregid" => &[Int, Int],
        "setresuid" | "setresgid" => &[Int, Int, Int],
        "getresuid" | "getresgid" => &[IntOut, IntOut, IntOut],
        "getgroups" | "setgroups" => &[Int, Pointer],
        "capget" | "capset" => &[Pointer, Pointer],
        "unshare" => &[Bits(n::CLONE)],
        "setns" => &[Fd, Bits(n::CLONE)],
        "sched_getaffinity" => &[Int, Size, PointerOut],
        "sched_setaffinity" => &[Int, Size, Pointer],
        _ => return None,
    })
}

/// Sockets, clocks, the rest.
fn others(name: &str) -> Option<&'static [Arg]> {
    use Arg::*;
    Some(match name {
        "socket" => &[One(n::DOMAIN), Socket, Int],
        "socketpair" => &[One(n::DOMAIN), Socket, Int, Pair],
        "connect" | "bind" => &[Fd, Address(2), Int],
        "accept" => &[Fd, AddressOut(2), IntOut],
        "accept4" => &[Fd, AddressOut(2), IntOut, Bits(n::ACCEPT)],
        "getsockname" | "getpeername" => &[Fd, AddressOut(2), IntOut],
        "listen" => &[Fd, Int],
        "shutdown" => &[Fd, One(n::SHUT)],
        "sendto" => &[Fd, In(2), Size, Bits(n::MESSAGE), Address(5), Int],
        "recvfrom" => &[Fd, Out, Size, Bits(n::MESSAGE), AddressOut(5), IntOut],
        "sendmsg" => &[Fd, Pointer, Bits(n::MESSAGE)],
        "recvmsg" => &[Fd, PointerOut, Bits(n::MESSAGE)],
        "setsockopt" => &[Fd, One(n::LEVEL), One(n::OPTION), IntPointer, Int],
        "getsockopt" => &[Fd, One(n::LEVEL), One(n::OPTION), IntOut, IntOut],
        "nanosleep" => &[Time, Remaining],
        "clock_nanosleep" => &[One(n::CLOCK), Hex, Time, Remaining],
        "clock_gettime" | "clock_getres" => &[One(n::CLOCK), TimeOut],
        "gettimeofday" => &[PointerOut, Pointer],
        "getrandom" => &[Out, Size, Bits(n::RANDOM)],
        "uname" | "sysinfo" | "times" => &[PointerOut],
        "sethostname" => &[In(1), Size],
        "alarm" => &[Unsigned],
        "io_uring_setup" => &[Unsigned, Pointer],
        "io_uring_enter" => &[Fd, Unsigned, Unsigned, Hex, Pointer, Size],
        "bpf" => &[Int, Pointer, Size],
        "perf_event_open" => &[Pointer, Int, Int, Fd, Hex],
        _ => return None,
    })
}
