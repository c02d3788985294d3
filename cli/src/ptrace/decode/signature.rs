//! What the arguments and the result of each system call are.

use super::super::memory::Memory;
use super::super::watch::Call;
use super::flags as f;
use super::names as n;
use super::signals;
use super::structs as s;
use super::text::{self, Table};

/// Shows what lies at an address.
pub type Show = fn(u64, Memory) -> String;
/// Shows what lies at an address, so many of it or so long.
pub type ShowSome = fn(u64, usize, Memory) -> String;

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
    Mode,
    Bits(Table),
    /// Bits, and a word for none.
    BitsOr(Table, &'static str),
    One(Table),
    /// Flags or values with a way of their own.
    Word(fn(u64) -> String),
    /// What the kernel reads.
    Given(Show),
    GivenSome(ShowSome, usize),
    /// What the kernel writes.
    Written(Show),
    WrittenSome(ShowSome, usize),
    /// As much of it as the result says.
    WrittenBy(ShowSome),
    /// The room for an answer, whose length the kernel writes over it.
    Length,
    VectorsOut(usize),
    Status,
    /// What is left of a sleep, written where it was interrupted.
    Remaining,
    /// What a handler's end takes from the stack.
    Frame,
    /// The argument at a position, with its name.
    Named(&'static str, usize, &'static Arg),
}

impl Arg {
    /// Whether the kernel writes it, so that it is known at the end only.
    pub fn is_result(self) -> bool {
        matches!(
            self,
            Self::PathOut
                | Self::PointerOut
                | Self::Out
                | Self::Written(_)
                | Self::WrittenSome(..)
                | Self::WrittenBy(_)
                | Self::Length
                | Self::VectorsOut(_)
                | Self::Status
                | Self::Remaining
        ) || matches!(self, Self::Named(_, _, arg) if arg.is_result())
    }

    /// Whether it is the same in 32 bits as in 64.
    fn is_alike(&self) -> bool {
        matches!(
            self,
            Int | Unsigned
                | Size
                | Hex
                | Pointer
                | PointerOut
                | Fd
                | DirFd
                | Path
                | PathOut
                | In(_)
                | Out
                | Mode
                | Bits(_)
                | BitsOr(..)
                | One(_)
                | Word(_)
        )
    }
}

/// How a result is shown.
#[derive(Debug, Clone, Copy)]
pub enum Ret {
    Decimal,
    Hex,
    Octal,
    /// A number that stands for something.
    Named(fn(u64) -> Option<String>),
    HexNamed(fn(u64) -> Option<String>),
    /// How many descriptors are ready, and which.
    Ready(fn(&Call, u64, Memory) -> Option<String>),
}

/// Arguments and result.
#[derive(Debug, Clone, Copy)]
pub struct Signature {
    pub args: &'static [Arg],
    pub ret: Ret,
}

impl Signature {
    /// The same call by the ABI of 32 bits: as it is where nothing but numbers, texts and bytes are passed. Structures have
    /// another layout there, numbers of 64 bits are two, and some calls take their arguments in another way.
    pub fn in_32_bits(self, name: &str) -> Self {
        const REGISTERS: &[Arg] = &[Hex; 6];
        let is_other = ["mmap", "socket", "truncate", "ftruncate", "shmat", "semctl"].contains(&name);
        if self.args.iter().all(|arg| arg.is_alike()) && !is_other {
            return self;
        }
        let count = if is_other {
            REGISTERS.len()
        } else {
            self.args.len()
        };
        Self {
            args: &REGISTERS[..count],
            ret: Ret::Decimal,
        }
    }
}

/// The signature of a call; `values` decide where a call has several. Of one that is not known every register is shown.
pub fn of(name: &str, values: &[u64; 6]) -> Signature {
    Signature {
        args: args(name, values),
        ret: ret(name, values),
    }
}

fn ret(name: &str, values: &[u64; 6]) -> Ret {
    match name {
        "mmap" | "brk" | "mremap" | "shmat" => Ret::Hex,
        "umask" => Ret::Octal,
        "fcntl" => match values[1] as i32 {
            libc::F_GETFL => Ret::HexNamed(|value| Some(format!("flags {}", f::open(value)))),
            libc::F_GETFD => Ret::HexNamed(|value| named("flags", value, n::FD)),
            libc::F_GET_SEALS => Ret::HexNamed(|value| named("seals", value, n::SEALS)),
            libc::F_GETLEASE => Ret::HexNamed(|value| Some(text::one(value as u32, n::LOCK_TYPE))),
            F_GETSIG => Ret::Named(signal),
            _ => Ret::Decimal,
        },
        "rt_sigtimedwait" => Ret::Named(signal),
        "personality" => Ret::HexNamed(|value| Some(f::personality(value))),
        "time" => Ret::Named(s::day),
        "sched_getscheduler" => Ret::Named(|value| Some(text::one(value as u32, n::SCHEDULER))),
        "ioprio_get" => Ret::HexNamed(|value| Some(f::io_priority(value))),
        "prctl" if values[0] as i32 == libc::PR_GET_DUMPABLE => {
            Ret::Named(|value| Some(text::one(value as u32, n::DUMPABLE)))
        }
        "membarrier" if values[0] as u32 == 0 => {
            Ret::HexNamed(|value| Some(text::bits(value, n::MEMBARRIER, "0")))
        }
        "poll" => Ret::Ready(|call, value, memory| polled(call, value, None, memory)),
        "ppoll" => Ret::Ready(|call, value, memory| {
            let left = (call.args[2] != 0).then(|| s::time(call.args[2], memory));
            polled(call, value, left, memory)
        }),
        "select" => Ret::Ready(|call, value, memory| selected(call, value, s::micro_time, memory)),
        "recvmmsg" => Ret::Ready(|call, value, memory| {
            (value != 0 && call.args[4] != 0).then(|| format!("left {}", s::time(call.args[4], memory)))
        }),
        "pselect6" => Ret::Ready(|call, value, memory| selected(call, value, s::time, memory)),
        _ => Ret::Decimal,
    }
}

fn named(what: &str, value: u64, table: Table) -> Option<String> {
    (value != 0).then(|| format!("{what} {}", text::bits(value, table, "0")))
}

fn signal(value: u64) -> Option<String> {
    (value != 0).then(|| signals::name(value as u32 as i32))
}

fn polled(call: &Call, value: u64, left: Option<String>, memory: Memory) -> Option<String> {
    if value == 0 {
        return Some("Timeout".to_owned());
    }
    let count = usize::try_from(call.args[1] as u32).unwrap_or(usize::MAX);
    let ready = s::ready(call.args[0], count, memory);
    Some(match left {
        Some(left) => format!("{ready}, left {left}"),
        None => ready,
    })
}

fn selected(call: &Call, value: u64, time: Show, memory: Memory) -> Option<String> {
    if value == 0 {
        return Some("Timeout".to_owned());
    }
    let [count, read, write, except, left, _] = call.args;
    let count = usize::try_from(count as u32).unwrap_or(usize::MAX);
    let mut parts: Vec<String> = [("in", read), ("out", write), ("except", except)]
        .into_iter()
        .filter(|(_, at)| *at != 0)
        .map(|(name, at)| (name, s::descriptors(at, count, memory)))
        .filter(|(_, set)| set != "[]")
        .map(|(name, set)| format!("{name} {set}"))
        .collect();
    if left != 0 {
        parts.push(format!("left {}", time(left, memory)));
    }
    Some(parts.join(", "))
}

fn creates(flags: u64) -> bool {
    flags & (libc::O_CREAT | (libc::O_TMPFILE & !libc::O_DIRECTORY)) as u64 != 0
}

// What the kernel gives besides numbers, in the manner of a type.
use Arg::{
    Bits, BitsOr, DirFd, Fd, Frame, Given, GivenSome, Hex, In, Int, Length, Long, Mode, Named, One, Out,
    Path, PathOut, Pointer, PointerOut, Remaining, Size, Status, Unsigned, VectorsOut, Word, Written,
    WrittenBy, WrittenSome,
};
const OPEN: Arg = Word(f::open_int);
const SIGNAL: Arg = Word(|value| signals::name(value as u32 as i32));
const SET: Arg = Given(s::signal_set);
const TIME: Arg = Given(s::time);
const INT: Arg = Given(s::number);
const INT_OUT: Arg = Written(s::number);
const OFFSET: Arg = Given(s::long);
const PROTECTION: Arg = BitsOr(n::PROTECTION, "PROT_NONE");
const SCHEDULER: Arg = One(n::SCHEDULER);
const CAPABILITY: Arg = One(n::CAPABILITY);
const F_SETSIG: i32 = 10;
const F_GETSIG: i32 = 11;
const F_SETOWN_EX: i32 = 15;
const F_GETOWN_EX: i32 = 16;

fn args(name: &str, values: &[u64; 6]) -> &'static [Arg] {
    match name {
        "openat" if !creates(values[2]) => &[DirFd, Path, OPEN],
        "open" if !creates(values[1]) => &[Path, OPEN],
        "fcntl" => fcntl(values[1] as i32),
        "futex" => futex(values[1]),
        "ioctl" => ioctl(values[1] as u32),
        "clone" => clone(values[0]),
        "arch_prctl" if matches!(values[0], 0x1003 | 0x1004) => &[One(n::ARCH), Written(s::address_of)],
        "mknod" if is_device(values[1]) => &[Path, NODE, DEVICE],
        "mknodat" if is_device(values[2]) => &[DirFd, Path, NODE, DEVICE],
        "prctl" => prctl(values[0] as i32, values[1]),
        "socket" => socket(values[0] as i32),
        "setsockopt" => setsockopt(values[1] as i32, values[2] as i32),
        "getsockopt" => getsockopt(values[1] as i32, values[2] as i32),
        "mremap" if values[3] as i32 & libc::MREMAP_FIXED != 0 => {
            &[Pointer, Size, Size, Bits(n::REMAP), Pointer]
        }
        "seccomp" => match values[0] as u32 {
            1 => &[One(n::SECCOMP), Bits(n::SECCOMP_FLAGS), Given(s::filter)],
            _ => &[One(n::SECCOMP), Hex, Pointer],
        },
        "keyctl" => keyctl(values[0] as u32),
        "mq_open" if !creates(values[1]) => &[Path, OPEN],
        "ptrace" if matches!(values[0] as u32, 16 | 17) => &[One(n::PTRACE), Int],
        "syslog" if values[1] == 0 => &[SYSLOG],
        _ => files(name)
            .or_else(|| descriptors(name))
            .or_else(|| processes(name))
            .or_else(|| signalling(name))
            .or_else(|| memory(name))
            .or_else(|| network(name))
            .or_else(|| others(name))
            .unwrap_or(&[Hex; 6]),
    }
}

fn is_device(mode: u64) -> bool {
    matches!(mode as u32 & libc::S_IFMT, libc::S_IFCHR | libc::S_IFBLK)
}

fn fcntl(command: i32) -> &'static [Arg] {
    match command {
        libc::F_GETFD
        | libc::F_GETFL
        | libc::F_GETOWN
        | libc::F_GETPIPE_SZ
        | libc::F_GET_SEALS
        | libc::F_GETLEASE
        | F_GETSIG => &[Fd, One(n::FCNTL)],
        libc::F_SETFD => &[Fd, One(n::FCNTL), Bits(n::FD)],
        libc::F_SETFL => &[Fd, One(n::FCNTL), OPEN],
        libc::F_DUPFD | libc::F_DUPFD_CLOEXEC | libc::F_SETPIPE_SZ | libc::F_SETOWN => {
            &[Fd, One(n::FCNTL), Int]
        }
        libc::F_SETLK | libc::F_SETLKW | libc::F_OFD_SETLK | libc::F_OFD_SETLKW => {
            &[Fd, One(n::FCNTL), Given(s::lock)]
        }
        libc::F_GETLK | libc::F_OFD_GETLK => &[Fd, One(n::FCNTL), Written(s::held_lock)],
        libc::F_ADD_SEALS => &[Fd, One(n::FCNTL), Bits(n::SEALS)],
        libc::F_SETLEASE => &[Fd, One(n::FCNTL), One(n::LOCK_TYPE)],
        libc::F_NOTIFY => &[Fd, One(n::FCNTL), Bits(n::NOTIFY)],
        F_SETSIG => &[Fd, One(n::FCNTL), SIGNAL],
        F_SETOWN_EX => &[Fd, One(n::FCNTL), Given(s::owner)],
        F_GETOWN_EX => &[Fd, One(n::FCNTL), Written(s::owner)],
        _ => &[Fd, One(n::FCNTL), Hex],
    }
}

fn futex(operation: u64) -> &'static [Arg] {
    const OPERATION: Arg = Word(f::futex);
    match operation & 127 {
        0 => &[Pointer, OPERATION, Int, TIME],
        1 | 2 => &[Pointer, OPERATION, Unsigned],
        3 => &[Pointer, OPERATION, Unsigned, Unsigned, Pointer],
        4 | 12 => &[Pointer, OPERATION, Unsigned, Unsigned, Pointer, Unsigned],
        5 => &[
            Pointer,
            OPERATION,
            Unsigned,
            Unsigned,
            Pointer,
            Word(f::futex_wake),
        ],
        6 | 13 => &[Pointer, OPERATION, Named("", 3, &TIME)],
        7 | 8 => &[Pointer, OPERATION],
        9 => &[
            Pointer,
            OPERATION,
            Unsigned,
            TIME,
            Named("", 5, &Word(f::futex_bits)),
        ],
        10 => &[Pointer, OPERATION, Unsigned, Named("", 5, &Word(f::futex_bits))],
        11 => &[Pointer, OPERATION, Unsigned, TIME, Pointer],
        _ => &[Pointer, OPERATION, Unsigned, Pointer, Pointer, Hex],
    }
}

fn ioctl(request: u32) -> &'static [Arg] {
    const REQUEST: Arg = Word(f::ioctl);
    let is = |name: &str| {
        let row = n::IOCTL
            .rows
            .iter()
            .find(|(number, _)| *number == u64::from(request));
        row.is_some_and(|(_, known)| *known == name)
    };
    let any = |names: &[&str]| names.iter().any(|name| is(name));
    if any(&["FIOCLEX", "FIONCLEX", "TIOCNOTTY", "TIOCEXCL", "TIOCNXCL"]) {
        &[Fd, REQUEST]
    } else if any(&[
        "FIONREAD",
        "TIOCOUTQ",
        "TIOCGPGRP",
        "TIOCGSID",
        "TIOCGPTN",
        "TIOCMGET",
        "BLKSSZGET",
    ]) {
        &[Fd, REQUEST, INT_OUT]
    } else if any(&[
        "FIONBIO",
        "FIOASYNC",
        "TIOCSPGRP",
        "TIOCSPTLCK",
        "TIOCMSET",
        "TIOCMBIS",
        "TIOCMBIC",
    ]) {
        &[Fd, REQUEST, INT]
    } else if is("TIOCGWINSZ") {
        &[Fd, REQUEST, Written(s::window)]
    } else if is("TIOCSWINSZ") {
        &[Fd, REQUEST, Given(s::window)]
    } else if is("TCFLSH") {
        &[Fd, REQUEST, One(n::QUEUE)]
    } else if any(&["TIOCSCTTY", "TCSBRK", "TCSBRKP", "FICLONE"]) {
        &[Fd, REQUEST, Int]
    } else {
        &[Fd, REQUEST, Pointer]
    }
}

fn clone(flags: u64) -> &'static [Arg] {
    const STACK: Arg = Named("child_stack", 1, &Pointer);
    const FLAGS: Arg = Named("flags", 0, &Word(f::clone));
    const PARENT: Arg = Named("parent_tid", 2, &INT_OUT);
    // The last two change their places from one architecture to the next.
    const AREA: Arg = Named("tls", if cfg!(target_arch = "x86_64") { 4 } else { 3 }, &Pointer);
    const CHILD: Arg = Named(
        "child_tidptr",
        if cfg!(target_arch = "x86_64") { 3 } else { 4 },
        &Pointer,
    );
    let has = |flag: i32| flags & u64::from(flag.cast_unsigned()) != 0;
    let parent = has(libc::CLONE_PARENT_SETTID | libc::CLONE_PIDFD);
    let child = has(libc::CLONE_CHILD_SETTID | libc::CLONE_CHILD_CLEARTID);
    match (parent, has(libc::CLONE_SETTLS), child) {
        (false, false, false) => &[STACK, FLAGS],
        (false, false, true) => &[STACK, FLAGS, CHILD],
        (false, true, false) => &[STACK, FLAGS, AREA],
        (false, true, true) => &[STACK, FLAGS, AREA, CHILD],
        (true, false, false) => &[STACK, FLAGS, PARENT],
        (true, false, true) => &[STACK, FLAGS, PARENT, CHILD],
        (true, true, false) => &[STACK, FLAGS, PARENT, AREA],
        (true, true, true) => &[STACK, FLAGS, PARENT, AREA, CHILD],
    }
}

fn prctl(option: i32, second: u64) -> &'static [Arg] {
    const WHAT: Arg = One(n::PRCTL);
    match option {
        libc::PR_SET_NAME => &[WHAT, Path],
        libc::PR_GET_NAME => &[WHAT, Written(s::name)],
        libc::PR_SET_DUMPABLE => &[WHAT, One(n::DUMPABLE)],
        libc::PR_GET_DUMPABLE
        | libc::PR_GET_SECCOMP
        | libc::PR_GET_KEEPCAPS
        | libc::PR_GET_TIMERSLACK
        | libc::PR_GET_TIMING
        | libc::PR_GET_SECUREBITS
        | libc::PR_TASK_PERF_EVENTS_DISABLE
        | libc::PR_TASK_PERF_EVENTS_ENABLE => &[WHAT],
        libc::PR_SET_PDEATHSIG => &[WHAT, SIGNAL],
        libc::PR_GET_PDEATHSIG => &[WHAT, Written(s::signal)],
        libc::PR_CAPBSET_READ | libc::PR_CAPBSET_DROP => &[WHAT, CAPABILITY],
        libc::PR_SET_KEEPCAPS | libc::PR_SET_TIMERSLACK | libc::PR_SET_CHILD_SUBREAPER => &[WHAT, Long],
        libc::PR_GET_CHILD_SUBREAPER => &[WHAT, INT_OUT],
        libc::PR_SET_NO_NEW_PRIVS | libc::PR_SET_THP_DISABLE => &[WHAT, Long, Hex, Hex, Hex],
        libc::PR_CAP_AMBIENT => &[WHAT, One(n::AMBIENT), CAPABILITY, Hex, Hex],
        libc::PR_SET_SECCOMP if second == 2 => &[WHAT, One(n::SECCOMP_MODE), Given(s::filter)],
        libc::PR_SET_SECCOMP => &[WHAT, One(n::SECCOMP_MODE), Hex, Hex, Hex],
        libc::PR_SET_PTRACER => &[WHAT, Word(f::tracer)],
        PR_SET_VMA => &[WHAT, One(n::VMA), Pointer, Size, Path],
        _ => &[WHAT, Hex, Hex, Hex, Hex],
    }
}
const PR_SET_VMA: i32 = 0x5356_4d41;

/// Keys are told by their numbers.
fn keyctl(command: u32) -> &'static [Arg] {
    const COMMAND: Arg = One(n::KEYCTL);
    const KEY: Arg = Word(f::keyring);
    match command {
        libc::KEYCTL_GET_KEYRING_ID => &[COMMAND, KEY, Int],
        libc::KEYCTL_JOIN_SESSION_KEYRING => &[COMMAND, Path],
        libc::KEYCTL_REVOKE | libc::KEYCTL_CLEAR | libc::KEYCTL_INVALIDATE => &[COMMAND, KEY],
        libc::KEYCTL_SETPERM => &[COMMAND, KEY, Hex],
        libc::KEYCTL_LINK | libc::KEYCTL_UNLINK => &[COMMAND, KEY, KEY],
        libc::KEYCTL_DESCRIBE | libc::KEYCTL_READ => &[COMMAND, KEY, Pointer, Size],
        libc::KEYCTL_SEARCH => &[COMMAND, KEY, Path, Path, KEY],
        libc::KEYCTL_SET_TIMEOUT => &[COMMAND, KEY, Unsigned],
        _ => &[COMMAND, KEY, Hex, Hex, Hex],
    }
}

/// Numbers of protocols are the family's own.
fn socket(family: i32) -> &'static [Arg] {
    const KIND: Arg = Word(f::socket_type);
    match family {
        libc::AF_INET | libc::AF_INET6 => &[One(n::DOMAIN), KIND, One(n::PROTOCOL)],
        libc::AF_NETLINK => &[One(n::DOMAIN), KIND, One(n::NETLINK)],
        libc::AF_PACKET => &[One(n::DOMAIN), KIND, Word(f::ethernet)],
        _ => &[One(n::DOMAIN), KIND, Int],
    }
}

fn setsockopt(level: i32, option: i32) -> &'static [Arg] {
    const VALUE: Arg = GivenSome(s::option, 4);
    match (level, option) {
        (libc::SOL_SOCKET, libc::SO_LINGER) => &[Fd, LEVEL, One(n::OPTION), Given(s::linger), Int],
        (libc::SOL_SOCKET, 20 | 21) => &[Fd, LEVEL, One(n::OPTION), Given(s::micro_time), Int],
        (libc::SOL_SOCKET, libc::SO_ATTACH_FILTER) => &[Fd, LEVEL, One(n::OPTION), Given(s::filter), Int],
        (libc::SOL_SOCKET, libc::SO_BINDTODEVICE) => &[Fd, LEVEL, One(n::OPTION), In(4), Int],
        (libc::SOL_SOCKET, _) => &[Fd, LEVEL, One(n::OPTION), VALUE, Int],
        (libc::SOL_TCP, _) => &[Fd, LEVEL, One(n::TCP_OPTION), VALUE, Int],
        (libc::SOL_UDP, _) => &[Fd, LEVEL, One(n::UDP_OPTION), VALUE, Int],
        (libc::SOL_IP, _) => &[Fd, LEVEL, One(n::IP_OPTION), VALUE, Int],
        (libc::SOL_IPV6, _) => &[Fd, LEVEL, One(n::IPV6_OPTION), VALUE, Int],
        (libc::SOL_NETLINK, _) => &[Fd, LEVEL, One(n::NETLINK_OPTION), VALUE, Int],
        (libc::SOL_PACKET, _) => &[Fd, LEVEL, One(n::PACKET_OPTION), VALUE, Int],
        _ => &[Fd, LEVEL, Int, VALUE, Int],
    }
}

fn getsockopt(level: i32, option: i32) -> &'static [Arg] {
    const VALUE: Arg = WrittenSome(s::option_out, 4);
    match (level, option) {
        (libc::SOL_SOCKET, libc::SO_LINGER) => &[Fd, LEVEL, One(n::OPTION), Written(s::linger), Length],
        (libc::SOL_SOCKET, 20 | 21) => &[Fd, LEVEL, One(n::OPTION), Written(s::micro_time), Length],
        (libc::SOL_SOCKET, libc::SO_PEERCRED) => {
            &[Fd, LEVEL, One(n::OPTION), Written(s::credentials), Length]
        }
        (libc::SOL_SOCKET, _) => &[Fd, LEVEL, One(n::OPTION), VALUE, Length],
        (libc::SOL_TCP, _) => &[Fd, LEVEL, One(n::TCP_OPTION), VALUE, Length],
        (libc::SOL_UDP, _) => &[Fd, LEVEL, One(n::UDP_OPTION), VALUE, Length],
        (libc::SOL_IP, _) => &[Fd, LEVEL, One(n::IP_OPTION), VALUE, Length],
        (libc::SOL_IPV6, _) => &[Fd, LEVEL, One(n::IPV6_OPTION), VALUE, Length],
        (libc::SOL_NETLINK, _) => &[Fd, LEVEL, One(n::NETLINK_OPTION), VALUE, Length],
        (libc::SOL_PACKET, _) => &[Fd, LEVEL, One(n::PACKET_OPTION), VALUE, Length],
        _ => &[Fd, LEVEL, Int, VALUE, Length],
    }
}

const LEVEL: Arg = One(n::LEVEL);
/// Permissions, with the kind of file.
const NODE: Arg = Word(|value| s::mode(value as u32));
const DEVICE: Arg = Word(s::device);
const USER: Arg = Word(f::signed);
const SYSLOG: Arg = Word(f::log);

/// Paths, and what they lead to.
fn files(name: &str) -> Option<&'static [Arg]> {
    Some(match name {
        "openat" => &[DirFd, Path, OPEN, Mode],
        "open" => &[Path, OPEN, Mode],
        "openat2" => &[DirFd, Path, GivenSome(s::how, 3), Size],
        "creat" | "mkdir" | "chmod" => &[Path, Mode],
        "stat" | "lstat" => &[Path, Written(s::stat)],
        "fstat" => &[Fd, Written(s::stat)],
        "newfstatat" => &[DirFd, Path, Written(s::stat), Bits(n::AT)],
        "statx" => &[
            DirFd,
            Path,
            Word(f::statx),
            Bits(n::STATX_MASK),
            Written(s::statx),
        ],
        "access" => &[Path, BitsOr(n::ACCESS, "F_OK")],
        "faccessat" => &[DirFd, Path, BitsOr(n::ACCESS, "F_OK")],
        "faccessat2" => &[DirFd, Path, BitsOr(n::ACCESS, "F_OK"), Bits(n::AT_ACCESS)],
        "chdir" | "rmdir" | "unlink" | "chroot" | "acct" | "swapoff" | "mq_unlink" | "uselib" => &[Path],
        "swapon" => &[Path, Word(f::swap)],
        "mkdirat" | "fchmodat" => &[DirFd, Path, Mode],
        "fchmodat2" => &[DirFd, Path, Mode, Bits(n::AT)],
        "unlinkat" => &[DirFd, Path, Bits(n::AT)],
        "rename" | "link" | "symlink" | "pivot_root" => &[Path, Path],
        "renameat" => &[DirFd, Path, DirFd, Path],
        "renameat2" => &[DirFd, Path, DirFd, Path, Bits(n::RENAME)],
        "linkat" => &[DirFd, Path, DirFd, Path, Bits(n::AT)],
        "symlinkat" => &[Path, DirFd, Path],
        "readlink" => &[Path, PathOut, Size],
        "readlinkat" => &[DirFd, Path, PathOut, Size],
        "getcwd" => &[PathOut, Size],
        "chown" | "lchown" => &[Path, USER, USER],
        "fchownat" => &[DirFd, Path, USER, USER, Bits(n::AT)],
        "truncate" => &[Path, Size],
        "statfs" => &[Path, Written(s::filesystem)],
        "utimensat" => &[DirFd, Path, Given(s::file_times), Bits(n::AT)],
        "futimesat" => &[DirFd, Path, Given(s::file_micro_times)],
        "utimes" => &[Path, Given(s::file_micro_times)],
        "utime" => &[Path, Given(s::file_seconds)],
        "mount" => &[Path, Path, Path, Bits(n::MOUNT), Path],
        "umount2" => &[Path, Bits(n::UNMOUNT)],
        "mknod" => &[Path, NODE],
        "mknodat" => &[DirFd, Path, NODE],
        "getxattr" | "lgetxattr" => &[Path, Path, WrittenBy(s::attributes), Size],
        "listxattr" | "llistxattr" => &[Path, WrittenBy(s::attributes), Size],
        "setxattr" | "lsetxattr" => &[Path, Path, In(3), Size, Bits(n::XATTR)],
        "removexattr" | "lremovexattr" => &[Path, Path],
        "inotify_add_watch" => &[Fd, Path, Bits(n::INOTIFY_WATCH)],
        "name_to_handle_at" => &[DirFd, Path, Pointer, PointerOut, Bits(n::HANDLE_AT)],
        "open_by_handle_at" => &[Fd, Pointer, OPEN],
        "memfd_create" => &[Path, Word(f::memfd)],
        "mq_open" => &[Path, OPEN, Mode, Given(s::queue)],
        "fsopen" => &[Path, Bits(n::FSOPEN)],
        "fsmount" => &[Fd, Bits(n::FSMOUNT), Bits(n::MOUNT_ATTRIBUTE)],
        "fsconfig" => &[Fd, One(n::FSCONFIG), Path, Path, Int],
        "fspick" => &[DirFd, Path, Bits(n::FSPICK)],
        "move_mount" => &[DirFd, Path, DirFd, Path, Bits(n::MOVE_MOUNT)],
        "open_tree" => &[DirFd, Path, Bits(n::OPEN_TREE)],
        "mount_setattr" => &[DirFd, Path, Bits(n::AT), Pointer, Size],
        "fanotify_mark" => &[Fd, Bits(n::FANOTIFY_MARK), Bits(n::FANOTIFY_EVENT), DirFd, Path],
        "quotactl" => &[Hex, Path, Hex, Pointer],
        "delete_module" => &[Path, Word(f::descriptor)],
        "finit_module" => &[Fd, Path, Bits(n::MODULE)],
        "init_module" => &[Pointer, Size, Path],
        _ => return None,
    })
}

/// Descriptors.
fn descriptors(name: &str) -> Option<&'static [Arg]> {
    const POLLED: Arg = GivenSome(s::polled, 1);
    const FDS: Arg = GivenSome(s::descriptors, 0);
    const EVENTS: Arg = WrittenBy(s::events);
    Some(match name {
        "read" => &[Fd, Out, Size],
        "write" => &[Fd, In(2), Size],
        "pread64" => &[Fd, Out, Size, Long],
        "pwrite64" => &[Fd, In(2), Size, Long],
        "readv" => &[Fd, VectorsOut(2), Unsigned],
        "writev" => &[Fd, GivenSome(s::all_vectors, 2), Unsigned],
        "preadv" => &[Fd, VectorsOut(2), Unsigned, Long],
        "pwritev" => &[Fd, GivenSome(s::all_vectors, 2), Unsigned, Long],
        // On 64 bits all of the offset is in its low half.
        "preadv2" => &[
            Fd,
            VectorsOut(2),
            Unsigned,
            Long,
            Named("", 5, &Bits(n::READ_WRITE)),
        ],
        "pwritev2" => &[
            Fd,
            GivenSome(s::all_vectors, 2),
            Unsigned,
            Long,
            Named("", 5, &Bits(n::READ_WRITE)),
        ],
        "vmsplice" => &[Fd, GivenSome(s::all_vectors, 2), Unsigned, Bits(n::SPLICE)],
        "close" | "fsync" | "fdatasync" | "fchdir" | "dup" | "syncfs" => &[Fd],
        "dup2" => &[Fd, Fd],
        "dup3" => &[Fd, Fd, Word(f::descriptor)],
        "close_range" => &[Unsigned, Unsigned, Bits(n::CLOSE_RANGE)],
        "fchmod" => &[Fd, Mode],
        "fchown" => &[Fd, USER, USER],
        "ftruncate" => &[Fd, Size],
        "lseek" => &[Fd, Long, One(n::WHENCE)],
        "getdents64" | "getdents" => &[Fd, WrittenBy(s::entries), Size],
        "fstatfs" => &[Fd, Written(s::filesystem)],
        "fgetxattr" => &[Fd, Path, WrittenBy(s::attributes), Size],
        "flistxattr" => &[Fd, WrittenBy(s::attributes), Size],
        "fsetxattr" => &[Fd, Path, In(3), Size, Bits(n::XATTR)],
        "fremovexattr" => &[Fd, Path],
        "inotify_init" => &[],
        "inotify_init1" => &[Bits(n::INOTIFY)],
        "inotify_rm_watch" => &[Fd, Int],
        "fanotify_init" => &[Word(f::fanotify), OPEN],
        "flock" => &[Fd, Bits(n::FLOCK)],
        "fadvise64" => &[Fd, Long, Size, One(n::FADVICE)],
        "readahead" => &[Fd, Long, Size],
        "sync_file_range" => &[Fd, Long, Long, Bits(n::SYNC_RANGE)],
        "fallocate" => &[Fd, Bits(n::FALLOCATE), Long, Long],
        "copy_file_range" => &[Fd, OFFSET, Fd, OFFSET, Size, Unsigned],
        "splice" => &[Fd, OFFSET, Fd, OFFSET, Size, Bits(n::SPLICE)],
        "tee" => &[Fd, Fd, Size, Bits(n::SPLICE)],
        "sendfile" => &[Fd, Fd, OFFSET, Size],
        "pipe" => &[Written(s::pair)],
        "pipe2" => &[Written(s::pair), Word(f::descriptor)],
        "poll" => &[POLLED, Unsigned, Int],
        "ppoll" => &[POLLED, Unsigned, TIME, SET, Size],
        "select" => &[Int, FDS, FDS, FDS, Given(s::micro_time)],
        "pselect6" => &[Int, FDS, FDS, FDS, TIME, Given(s::sized_set)],
        "epoll_create1" => &[Bits(n::EPOLL_CREATE)],
        "epoll_create" => &[Int],
        "epoll_ctl" => &[Fd, One(n::EPOLL_OP), Fd, Given(s::event)],
        "epoll_wait" => &[Fd, EVENTS, Int, Int],
        "epoll_pwait" => &[Fd, EVENTS, Int, Int, SET, Size],
        "epoll_pwait2" => &[Fd, EVENTS, Int, TIME, SET, Size],
        "eventfd" => &[Unsigned],
        "eventfd2" => &[Unsigned, Bits(n::EVENTFD)],
        "signalfd" => &[Fd, SET, Size],
        "signalfd4" => &[Fd, SET, Size, Bits(n::SIGNALFD)],
        "timerfd_create" => &[One(n::CLOCK), Bits(n::TIMERFD)],
        "timerfd_settime" => &[Fd, Bits(n::TIMERFD_SET), Given(s::timer), Written(s::timer)],
        "timerfd_gettime" => &[Fd, Written(s::timer)],
        "userfaultfd" => &[Bits(n::USERFAULTFD)],
        "umask" => &[Mode],
        "pidfd_open" => &[Int, Bits(n::PIDFD)],
        "pidfd_send_signal" => &[Fd, SIGNAL, Given(s::info), Unsigned],
        "pidfd_getfd" => &[Fd, Fd, Unsigned],
        "mq_timedsend" => &[Fd, In(2), Size, Unsigned, TIME],
        "mq_timedreceive" => &[Fd, Out, Size, INT_OUT, TIME],
        "mq_getsetattr" => &[Fd, Given(s::queue), Written(s::queue)],
        "mq_notify" => &[Fd, Given(s::notification)],
        _ => return None,
    })
}

/// Processes, and what they are allowed.
fn processes(name: &str) -> Option<&'static [Arg]> {
    const LIMIT: Arg = One(n::RLIMIT);
    const USAGE: Arg = Written(s::usage);
    Some(match name {
        "execve" => &[Path, Given(s::strings), Given(s::environment)],
        "execveat" => &[DirFd, Path, Given(s::strings), Given(s::environment), Bits(n::AT)],
        "exit" | "exit_group" | "getpgid" | "getsid" => &[Int],
        "setuid" | "setgid" | "setfsuid" | "setfsgid" => &[USER],
        "fork" | "vfork" | "getpid" | "getppid" | "gettid" | "getuid" | "geteuid" | "getgid" | "getegid"
        | "getpgrp" | "setsid" | "pause" | "sync" | "sched_yield" | "munlockall" | "vhangup"
        | "restart_syscall" => &[],
        "clone3" => &[GivenSome(s::clone_args, 1), Size],
        "wait4" => &[Int, Status, Bits(n::WAIT), USAGE],
        "waitid" => &[One(n::IDTYPE), Int, Written(s::info), Bits(n::WAIT), USAGE],
        "arch_prctl" => &[One(n::ARCH), Hex],
        "set_tid_address" => &[Hex],
        "set_robust_list" => &[Pointer, Size],
        "get_robust_list" => &[Int, Written(s::address_of), Written(s::size)],
        "rseq" => &[Hex, Hex, Hex, Hex],
        "prlimit64" => &[Int, LIMIT, Given(s::limit), Written(s::limit)],
        "getrlimit" => &[LIMIT, Written(s::limit)],
        "setrlimit" => &[LIMIT, Given(s::limit)],
        "getrusage" => &[One(n::RUSAGE), USAGE],
        "getpriority" => &[One(n::PRIORITY), Int],
        "setpriority" => &[One(n::PRIORITY), Int, Int],
        "ioprio_get" => &[One(n::IO_PRIORITY), Int],
        "ioprio_set" => &[One(n::IO_PRIORITY), Int, Word(f::io_priority)],
        "setpgid" => &[Int, Int],
        "setreuid" | "setregid" => &[USER, USER],
        "setresuid" | "setresgid" => &[USER, USER, USER],
        "getresuid" | "getresgid" => &[INT_OUT, INT_OUT, INT_OUT],
        "getgroups" => &[Int, WrittenBy(s::numbers)],
        "setgroups" => &[Int, GivenSome(s::numbers, 0)],
        "capget" => &[Given(s::capability_head), Written(s::capabilities)],
        "capset" => &[Given(s::capability_head), Given(s::capabilities)],
        "unshare" => &[Bits(n::CLONE)],
        "setns" => &[Fd, Bits(n::CLONE)],
        "personality" => &[Word(f::personality)],
        "sched_getaffinity" => &[Int, Size, WrittenBy(s::processors)],
        "sched_setaffinity" => &[Int, Size, GivenSome(s::processors, 1)],
        "sched_getscheduler" => &[Int],
        "sched_get_priority_max" | "sched_get_priority_min" => &[SCHEDULER],
        "sched_getparam" => &[Int, INT_OUT],
        "sched_setparam" => &[Int, INT],
        "sched_setscheduler" => &[Int, SCHEDULER, INT],
        "sched_rr_get_interval" => &[Int, Written(s::time)],
        "sched_getattr" => &[Int, Written(s::scheduling), Unsigned, Unsigned],
        "sched_setattr" => &[Int, Given(s::scheduling), Unsigned],
        "getcpu" => &[INT_OUT, INT_OUT, Pointer],
        "kcmp" => &[Int, Int, One(n::KCMP), Size, Size],
        "process_vm_readv" => &[
            Int,
            VectorsOut(2),
            Size,
            GivenSome(s::remote_vectors, 4),
            Size,
            Unsigned,
        ],
        "process_vm_writev" => &[
            Int,
            GivenSome(s::all_vectors, 2),
            Size,
            GivenSome(s::remote_vectors, 4),
            Size,
            Unsigned,
        ],
        "process_mrelease" => &[Fd, Unsigned],
        "ptrace" => &[One(n::PTRACE), Int, Hex, Hex],
        _ => return None,
    })
}

/// Signals, and timers that send them.
fn signalling(name: &str) -> Option<&'static [Arg]> {
    const ACTION: Arg = Given(s::action);
    Some(match name {
        "kill" | "tkill" => &[Int, SIGNAL],
        "tgkill" => &[Int, Int, SIGNAL],
        "rt_sigaction" => &[SIGNAL, ACTION, Written(s::action), Size],
        "rt_sigprocmask" => &[One(n::HOW), SET, Written(s::signal_set), Size],
        "rt_sigsuspend" => &[SET, Size],
        "rt_sigtimedwait" => &[SET, Written(s::info), TIME, Size],
        "rt_sigpending" => &[Written(s::signal_set), Size],
        "rt_sigqueueinfo" => &[Int, SIGNAL, Given(s::info)],
        "rt_tgsigqueueinfo" => &[Int, Int, SIGNAL, Given(s::info)],
        "rt_sigreturn" => &[Frame],
        "sigaltstack" => &[Given(s::stack), Written(s::stack)],
        "setitimer" => &[One(n::ITIMER), Given(s::micro_timer), Written(s::micro_timer)],
        "getitimer" => &[One(n::ITIMER), Written(s::micro_timer)],
        "alarm" => &[Unsigned],
        "timer_create" => &[One(n::CLOCK), Given(s::notification), INT_OUT],
        "timer_settime" => &[Int, Bits(n::TIMER), Given(s::timer), Written(s::timer)],
        "timer_gettime" => &[Int, Written(s::timer)],
        "timer_getoverrun" | "timer_delete" => &[Int],
        _ => return None,
    })
}

/// Memory, alone and shared.
fn memory(name: &str) -> Option<&'static [Arg]> {
    const FLAGS: Arg = Word(f::map);
    const IPC: Arg = Word(f::shared);
    const KEY: Arg = Word(f::key);
    Some(match name {
        "brk" => &[Pointer],
        "mmap" => &[Pointer, Size, PROTECTION, FLAGS, Fd, Hex],
        "mprotect" => &[Pointer, Size, PROTECTION],
        "pkey_mprotect" => &[Pointer, Size, PROTECTION, Int],
        "pkey_alloc" => &[Unsigned, Bits(n::KEY_RIGHTS)],
        "pkey_free" => &[Int],
        "munmap" | "mlock" | "munlock" => &[Pointer, Size],
        "mlock2" => &[Pointer, Size, Bits(n::LOCK)],
        "mlockall" => &[Bits(n::LOCK_ALL)],
        "mremap" => &[Pointer, Size, Size, Bits(n::REMAP)],
        "remap_file_pages" => &[Pointer, Size, PROTECTION, Size, FLAGS],
        "madvise" => &[Pointer, Size, One(n::ADVICE)],
        "process_madvise" => &[
            Fd,
            GivenSome(s::remote_vectors, 2),
            Size,
            One(n::ADVICE),
            Unsigned,
        ],
        "mincore" => &[Pointer, Size, WrittenSome(s::pages, 1)],
        "msync" => &[Pointer, Size, Bits(n::SYNC)],
        "memfd_secret" => &[Word(f::descriptor)],
        "get_mempolicy" => &[INT_OUT, Pointer, Size, Pointer, Hex],
        "set_mempolicy" => &[One(n::POLICY), GivenSome(s::nodes, 2), Size],
        "mbind" => &[
            Pointer,
            Size,
            One(n::POLICY),
            GivenSome(s::nodes, 4),
            Size,
            Bits(n::POLICY_MOVE),
        ],
        "migrate_pages" => &[Int, Size, GivenSome(s::nodes, 1), GivenSome(s::nodes, 1)],
        "move_pages" => &[Int, Size, Pointer, Pointer, Pointer, Bits(n::POLICY_MOVE)],
        "set_mempolicy_home_node" => &[Pointer, Size, Size, Hex],
        "shmget" => &[KEY, Size, Word(f::shared_memory)],
        "shmat" => &[Int, Pointer, Bits(n::SHM_ATTACH)],
        "shmdt" => &[Pointer],
        "shmctl" => &[Int, One(n::SHM_CONTROL), Pointer],
        "semget" => &[KEY, Int, IPC],
        "semop" => &[Int, GivenSome(s::semaphores, 2), Unsigned],
        "semtimedop" => &[Int, GivenSome(s::semaphores, 2), Unsigned, TIME],
        "semctl" => &[Int, Int, One(n::SEM_CONTROL), Pointer],
        "msgget" => &[KEY, IPC],
        "msgsnd" => &[Int, GivenSome(s::message, 2), Size, Bits(n::MSG_FLAGS)],
        "msgrcv" => &[Int, WrittenBy(s::message), Size, Long, Bits(n::MSG_FLAGS)],
        "msgctl" => &[Int, One(n::MSG_CONTROL), Pointer],
        _ => return None,
    })
}

/// Sockets.
fn network(name: &str) -> Option<&'static [Arg]> {
    const FLAGS: Arg = Bits(n::MESSAGE);
    const PEER: Arg = WrittenSome(s::address_out, 2);
    Some(match name {
        "socketpair" => &[One(n::DOMAIN), Word(f::socket_type), Int, Written(s::pair)],
        "connect" | "bind" => &[Fd, GivenSome(s::address, 2), Int],
        "accept" | "getsockname" | "getpeername" => &[Fd, PEER, Length],
        "accept4" => &[Fd, PEER, Length, Bits(n::ACCEPT)],
        "listen" => &[Fd, Int],
        "shutdown" => &[Fd, One(n::SHUT)],
        "sendto" => &[Fd, In(2), Size, FLAGS, GivenSome(s::address, 5), Int],
        "recvfrom" => &[Fd, Out, Size, FLAGS, WrittenSome(s::address_out, 5), Length],
        "sendmsg" => &[Fd, Given(s::sent), FLAGS],
        "recvmsg" => &[Fd, WrittenBy(s::received), FLAGS],
        "sendmmsg" => &[Fd, GivenSome(s::sent_many, 2), Unsigned, FLAGS],
        "recvmmsg" => &[Fd, WrittenBy(s::received_many), Unsigned, FLAGS, TIME],
        _ => return None,
    })
}

/// Clocks, the machine, the rest.
fn others(name: &str) -> Option<&'static [Arg]> {
    Some(match name {
        "nanosleep" => &[TIME, Remaining],
        "clock_nanosleep" => &[One(n::CLOCK), Bits(n::TIMER), TIME, Remaining],
        "clock_gettime" | "clock_getres" => &[One(n::CLOCK), Written(s::time)],
        "clock_settime" => &[One(n::CLOCK), TIME],
        "clock_adjtime" => &[One(n::CLOCK), Pointer],
        "adjtimex" => &[Pointer],
        "time" => &[Written(s::long)],
        "gettimeofday" => &[Written(s::micro_time), Pointer],
        "getrandom" => &[WrittenBy(s::random), Size, Bits(n::RANDOM)],
        "uname" => &[Written(s::system)],
        "sysinfo" => &[Written(s::machine)],
        "times" => &[Written(s::ticks)],
        "sethostname" | "setdomainname" => &[In(1), Unsigned],
        "syslog" => &[SYSLOG, Pointer, Int],
        "reboot" => &[Hex, Hex, Hex],
        "iopl" => &[Int],
        "ioperm" => &[Hex, Hex, Int],
        "membarrier" => &[Word(f::membarrier), Unsigned],
        "io_setup" => &[Unsigned, Given(s::address_of)],
        "io_destroy" => &[Pointer],
        "io_submit" => &[Pointer, Long, Pointer],
        "io_cancel" => &[Pointer, Pointer, PointerOut],
        "io_getevents" => &[Pointer, Long, Long, PointerOut, TIME],
        "io_uring_setup" => &[Unsigned, Pointer],
        "io_uring_enter" => &[Fd, Unsigned, Unsigned, Bits(n::URING_ENTER), SET, Size],
        "io_uring_register" => &[Fd, Unsigned, Pointer, Unsigned],
        "bpf" => &[One(n::BPF), Pointer, Size],
        "perf_event_open" => &[Pointer, Int, Int, Fd, Bits(n::PERF_OPEN)],
        "landlock_create_ruleset" => &[Pointer, Size, Bits(n::LANDLOCK)],
        "landlock_add_rule" => &[Fd, One(n::LANDLOCK_RULE), Pointer, Unsigned],
        "landlock_restrict_self" => &[Fd, Unsigned],
        "add_key" => &[Path, Path, In(3), Size, Word(f::keyring)],
        "request_key" => &[Path, Path, Path, Word(f::keyring)],
        "kexec_load" => &[Hex, Size, Pointer, Hex],
        "futex_waitv" => &[Pointer, Unsigned, Unsigned, TIME, One(n::CLOCK)],
        "modify_ldt" => &[Int, Pointer, Size],
        "lookup_dcookie" => &[Size, Pointer, Size],
        "sysfs" => &[Hex, Hex, Hex],
        "ustat" => &[DEVICE, Pointer],
        "quotactl_fd" => &[Fd, Hex, Hex, Pointer],
        _ => return None,
    })
}
