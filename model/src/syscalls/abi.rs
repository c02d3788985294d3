//! System calls made through the other ABIs of a 64-bit x86 kernel, as the native calls that do the same.
//!
//! The kernel offers ia32 (`int 0x80`) and, where it is built in, x32 to every process, so whoever wants not to be
//! recognised may choose them. What a call does is what matters: schemas and filters see the native number.

use super::{Arch, Class, MAX_NUMBER, number};
use std::sync::LazyLock;

/// Flag of numbers of ia32, whose table is its own.
pub const IA32: u32 = 1 << 31;
/// Flag of numbers of x32, as the kernel has it.
pub const X32: u32 = 1 << 30;

/// The only numbers that x32 does not share with x86_64 begin at [`MAX_NUMBER`], in this order.
const X32_OWN: [&str; 36] = [
    "rt_sigaction",
    "rt_sigreturn",
    "ioctl",
    "readv",
    "writev",
    "recvfrom",
    "sendmsg",
    "recvmsg",
    "execve",
    "ptrace",
    "rt_sigpending",
    "rt_sigtimedwait",
    "rt_sigqueueinfo",
    "sigaltstack",
    "timer_create",
    "mq_notify",
    "kexec_load",
    "waitid",
    "set_robust_list",
    "get_robust_list",
    "vmsplice",
    "move_pages",
    "preadv",
    "pwritev",
    "rt_tgsigqueueinfo",
    "sendmmsg",
    "recvmmsg",
    "process_vm_readv",
    "process_vm_writev",
    "setsockopt",
    "getsockopt",
    "io_setup",
    "io_submit",
    "execveat",
    "preadv2",
    "pwritev2",
];

/// Calls of ia32 whose native name is another one, beyond a suffix.
const ALIASES: [(&str, &str); 25] = [
    ("waitpid", "wait4"),
    ("oldstat", "stat"),
    ("oldfstat", "fstat"),
    ("oldlstat", "lstat"),
    ("umount", "umount2"),
    ("stime", "settimeofday"),
    ("nice", "setpriority"),
    ("signal", "rt_sigaction"),
    ("sigaction", "rt_sigaction"),
    ("sgetmask", "rt_sigprocmask"),
    ("ssetmask", "rt_sigprocmask"),
    ("sigprocmask", "rt_sigprocmask"),
    ("sigsuspend", "rt_sigsuspend"),
    ("sigpending", "rt_sigpending"),
    ("sigreturn", "rt_sigreturn"),
    ("readdir", "getdents"),
    ("oldolduname", "uname"),
    ("olduname", "uname"),
    ("_llseek", "lseek"),
    ("_newselect", "select"),
    ("ugetrlimit", "getrlimit"),
    ("mmap2", "mmap"),
    ("fadvise64_64", "fadvise64"),
    ("fstatat64", "newfstatat"),
    // Which call of its class it makes is in the arguments, but each use begins with this one.
    ("socketcall", "socket"),
];

/// The native number that does what number `nr` of `arch` does: `nr` itself for native numbers and for those that
/// no native call stands for.
pub fn native(arch: Arch, nr: u32) -> u32 {
    let found = match arch {
        Arch::X86_64 if nr & IA32 != 0 => IA32_TO_NATIVE
            .get((nr & !IA32) as usize)
            .copied()
            .flatten()
            .map(u32::from),
        Arch::X86_64 if nr & X32 != 0 => x32_to_native(nr & !X32),
        Arch::X86_64 | Arch::Aarch64 => None,
    };
    found.unwrap_or(nr)
}

/// The class that `nr` works in, where only its arguments say which call of that class it makes.
pub fn multiplexed(arch: Arch, nr: u32) -> Option<Class> {
    if arch != Arch::X86_64 || nr & IA32 == 0 {
        return None;
    }
    match syscalls::x86::Sysno::new((nr & !IA32) as usize)? {
        syscalls::x86::Sysno::socketcall => Some(Class::Network),
        syscalls::x86::Sysno::ipc => Some(Class::Ipc),
        _ => None,
    }
}

fn x32_to_native(nr: u32) -> Option<u32> {
    match (nr as usize).checked_sub(MAX_NUMBER) {
        None => Some(nr),
        Some(own) => number(Arch::X86_64, X32_OWN.get(own)?),
    }
}

static IA32_TO_NATIVE: LazyLock<[Option<u16>; MAX_NUMBER]> = LazyLock::new(|| {
    std::array::from_fn(|nr| {
        let name = syscalls::x86::Sysno::new(nr)?.name();
        ia32_to_native(name).and_then(|nr| u16::try_from(nr).ok())
    })
});

/// By name, with or without what marks wider arguments.
fn ia32_to_native(name: &str) -> Option<u32> {
    let of = |name| number(Arch::X86_64, name);
    let narrow = ["_time64", "64", "32"]
        .into_iter()
        .find_map(|suffix| of(name.strip_suffix(suffix)?));
    let alias = ALIASES.iter().find(|(theirs, _)| *theirs == name);
    of(name).or(narrow).or_else(|| of(alias?.1))
}

#[cfg(test)]
mod tests {
    use super::super::name;
    use super::*;
    use proptest::prelude::*;

    fn ia32(nr: u32) -> Option<&'static str> {
        name(Arch::X86_64, native(Arch::X86_64, IA32 | nr))
    }

    #[test]
    fn a_32_bit_reverse_shell_makes_the_calls_that_it_makes() {
        // fork, execve, dup2, socketcall, clone, mmap2, fcntl64, setuid32, waitpid, connect, accept4
        let calls = [2, 11, 63, 102, 120, 192, 221, 213, 7, 362, 364].map(|nr| ia32(nr).expect("a name"));
        assert_eq!(
            calls,
            [
                "fork", "execve", "dup2", "socket", "clone", "mmap", "fcntl", "setuid", "wait4", "connect",
                "accept4"
            ]
        );
        assert_eq!(ia32(403), Some("clock_gettime"));
        assert_eq!(ia32(422), Some("futex"));
        assert_eq!(ia32(269), Some("fstatfs"));
    }

    #[test]
    fn what_has_no_native_call_is_no_more_than_the_kernels_leftovers() {
        let left: Vec<&str> = (0..MAX_NUMBER)
            .filter_map(|nr| Some((nr as u32, syscalls::x86::Sysno::new(nr)?.name())))
            .filter(|(nr, _)| native(Arch::X86_64, IA32 | nr) == IA32 | nr)
            .map(|(_, name)| name)
            .collect();
        assert_eq!(
            left,
            [
                "r#break", "stty", "gtty", "ftime", "prof", "lock", "mpx", "ulimit", "profil", "idle",
                "vm86old", "ipc", "bdflush", "vm86"
            ]
        );
    }

    #[test]
    fn every_alias_leads_somewhere() {
        for (theirs, ours) in ALIASES {
            assert!(number(Arch::X86_64, ours).is_some(), "{theirs} is {ours}");
            assert_eq!(ia32_to_native(theirs), number(Arch::X86_64, ours), "{theirs}");
        }
        for own in X32_OWN {
            assert!(number(Arch::X86_64, own).is_some(), "{own}");
        }
    }

    #[test]
    fn x32_shares_its_numbers_but_for_the_last() {
        let x32 = |nr| name(Arch::X86_64, native(Arch::X86_64, X32 | nr));
        assert_eq!(x32(0), Some("read"));
        assert_eq!(x32(512), Some("rt_sigaction"));
        assert_eq!(x32(520), Some("execve"));
        assert_eq!(x32(547), Some("pwritev2"));
        assert_eq!(native(Arch::X86_64, X32 | 548), X32 | 548);
    }

    proptest! {
        #[test]
        fn native_numbers_stay_and_what_is_translated_is_native(nr in any::<u32>(), small in 0u32..2048) {
            for arch in Arch::ALL {
                prop_assert_eq!(native(arch, small), small);
                let to = native(arch, nr);
                prop_assert!(to == nr || (to as usize) < MAX_NUMBER);
                prop_assert_eq!(native(arch, to), to);
            }
            prop_assert_eq!(native(Arch::Aarch64, nr), nr);
        }
    }
}
