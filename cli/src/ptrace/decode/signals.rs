//! Signals by name, and where they come from.

use vigia_model::syscalls::Arch;

use crate::record::name_of;

const NAMES: &[(i32, &str)] = &[
    (libc::SIGHUP, "HUP"),
    (libc::SIGINT, "INT"),
    (libc::SIGQUIT, "QUIT"),
    (libc::SIGILL, "ILL"),
    (libc::SIGTRAP, "TRAP"),
    (libc::SIGABRT, "ABRT"),
    (libc::SIGBUS, "BUS"),
    (libc::SIGFPE, "FPE"),
    (libc::SIGKILL, "KILL"),
    (libc::SIGUSR1, "USR1"),
    (libc::SIGSEGV, "SEGV"),
    (libc::SIGUSR2, "USR2"),
    (libc::SIGPIPE, "PIPE"),
    (libc::SIGALRM, "ALRM"),
    (libc::SIGTERM, "TERM"),
    (libc::SIGSTKFLT, "STKFLT"),
    (libc::SIGCHLD, "CHLD"),
    (libc::SIGCONT, "CONT"),
    (libc::SIGSTOP, "STOP"),
    (libc::SIGTSTP, "TSTP"),
    (libc::SIGTTIN, "TTIN"),
    (libc::SIGTTOU, "TTOU"),
    (libc::SIGURG, "URG"),
    (libc::SIGXCPU, "XCPU"),
    (libc::SIGXFSZ, "XFSZ"),
    (libc::SIGVTALRM, "VTALRM"),
    (libc::SIGPROF, "PROF"),
    (libc::SIGWINCH, "WINCH"),
    (libc::SIGIO, "IO"),
    (libc::SIGPWR, "PWR"),
    (libc::SIGSYS, "SYS"),
];
/// The kernel's first real-time signal.
const FIRST_RT: i32 = 32;

/// Without the SIG in front.
pub fn short(signal: i32) -> String {
    match NAMES.iter().find(|(number, _)| *number == signal) {
        Some((_, name)) => (*name).to_owned(),
        None if signal == FIRST_RT => "RTMIN".to_owned(),
        None if (FIRST_RT..=64).contains(&signal) => format!("RT_{}", signal - FIRST_RT),
        None => signal.to_string(),
    }
}

/// As in C.
pub fn name(signal: i32) -> String {
    let short = short(signal);
    if (1..=64).contains(&signal) {
        format!("SIG{short}")
    } else {
        short
    }
}

/// Where a signal comes from.
pub fn describe(info: &libc::siginfo_t) -> String {
    let signal = info.si_signo;
    let head = format!(
        "si_signo={}, si_code={}",
        name(signal),
        code(signal, info.si_code)
    );
    let faults = [
        libc::SIGSEGV,
        libc::SIGBUS,
        libc::SIGILL,
        libc::SIGFPE,
        libc::SIGTRAP,
    ];
    // SAFETY: the kernel has filled the whole structure in; which of its fields mean something is what is tested, and
    // all of them are plain numbers.
    let (pid, uid, address, status) = unsafe {
        (
            info.si_pid(),
            info.si_uid(),
            info.si_addr() as u64,
            info.si_status(),
        )
    };
    if signal == libc::SIGCHLD && info.si_code > 0 {
        let status = if info.si_code == libc::CLD_EXITED {
            status.to_string()
        } else {
            name(status)
        };
        // SAFETY: as above.
        let (user, system) = unsafe { (info.si_utime(), info.si_stime()) };
        return format!(
            "{{{head}, si_pid={pid}, si_uid={uid}, si_status={status}, si_utime={}, si_stime={}}}",
            ticks(user),
            ticks(system)
        );
    }
    let queued = || {
        // SAFETY: as above.
        let value = unsafe { info.si_value().sival_ptr } as u64;
        format!(
            "si_int={}, si_ptr={}",
            super::int(value),
            super::text::pointer(value)
        )
    };
    let sender = format!("si_pid={pid}, si_uid={uid}");
    if signal == libc::SIGSYS && info.si_code > 0 {
        return format!("{{{head}, {}}}", refused(info));
    }
    match info.si_code {
        libc::SI_TIMER => {
            // SAFETY: as above. Where others have who sent it, a timer has its number and how often it was late.
            return format!(
                "{{{head}, si_timerid={}, si_overrun={}, {}}}",
                pid,
                uid.cast_signed(),
                queued()
            );
        }
        libc::SI_QUEUE | libc::SI_MESGQ => return format!("{{{head}, {sender}, {}}}", queued()),
        _ => {}
    }
    if info.si_code > 0 && faults.contains(&signal) {
        return format!("{{{head}, si_addr={}}}", super::text::pointer(address));
    }
    if info.si_code <= 0 {
        return format!("{{{head}, {sender}}}");
    }
    format!("{{{head}}}")
}

/// Time that was used, in the hundredths of seconds in which the kernel tells it.
pub fn ticks(ticks: i64) -> String {
    if ticks == 0 {
        return "0".to_owned();
    }
    format!("{ticks} /* {:.2} s */", ticks as f64 / 100.0)
}

/// Which call a filter has refused, and where it was made.
fn refused(info: &libc::siginfo_t) -> String {
    // SAFETY: a siginfo_t is larger than the four words that are read, and all of them are plain numbers.
    let [_, _, address, call] = unsafe { std::ptr::from_ref(info).cast::<[u64; 4]>().read_unaligned() };
    let (number, arch) = (call as u32, (call >> 32) as u32);
    let native = arch == super::super::sys::AUDIT_ARCH;
    let number = if native {
        format!("__NR_{}", name_of(Arch::NATIVE, number))
    } else {
        number.to_string()
    };
    let arch = match arch {
        0xc000_003e => "AUDIT_ARCH_X86_64".to_owned(),
        0xc000_00b7 => "AUDIT_ARCH_AARCH64".to_owned(),
        0x4000_0003 => "AUDIT_ARCH_I386".to_owned(),
        other => format!("{other:#x}"),
    };
    format!(
        "si_call_addr={}, si_syscall={number}, si_arch={arch}",
        super::text::pointer(address)
    )
}

fn code(signal: i32, code: i32) -> String {
    let name = match (signal, code) {
        (_, 0) => "SI_USER",
        (_, 0x80) => "SI_KERNEL",
        (_, -1) => "SI_QUEUE",
        (_, -2) => "SI_TIMER",
        (_, -3) => "SI_MESGQ",
        (_, -4) => "SI_ASYNCIO",
        (_, -5) => "SI_SIGIO",
        (_, -6) => "SI_TKILL",
        (libc::SIGCHLD, 1) => "CLD_EXITED",
        (libc::SIGCHLD, 2) => "CLD_KILLED",
        (libc::SIGCHLD, 3) => "CLD_DUMPED",
        (libc::SIGCHLD, 4) => "CLD_TRAPPED",
        (libc::SIGCHLD, 5) => "CLD_STOPPED",
        (libc::SIGCHLD, 6) => "CLD_CONTINUED",
        (libc::SIGSEGV, 1) => "SEGV_MAPERR",
        (libc::SIGSEGV, 2) => "SEGV_ACCERR",
        (libc::SIGSEGV, 4) => "SEGV_PKUERR",
        (libc::SIGBUS, 1) => "BUS_ADRALN",
        (libc::SIGBUS, 2) => "BUS_ADRERR",
        (libc::SIGBUS, 3) => "BUS_OBJERR",
        (libc::SIGFPE, 1) => "FPE_INTDIV",
        (libc::SIGFPE, 2) => "FPE_INTOVF",
        (libc::SIGFPE, 3) => "FPE_FLTDIV",
        (libc::SIGFPE, 7) => "FPE_FLTINV",
        (libc::SIGILL, 1) => "ILL_ILLOPC",
        (libc::SIGILL, 2) => "ILL_ILLOPN",
        (libc::SIGTRAP, 1) => "TRAP_BRKPT",
        (libc::SIGTRAP, 2) => "TRAP_TRACE",
        (libc::SIGIO, 1) => "POLL_IN",
        (libc::SIGIO, 2) => "POLL_OUT",
        (libc::SIGIO, 6) => "POLL_HUP",
        (libc::SIGSYS, 1) => "SYS_SECCOMP",
        _ => return code.to_string(),
    };
    name.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_has_something_to_show() {
        assert_eq!(
            [9, 17, 32, 34].map(name),
            ["SIGKILL", "SIGCHLD", "SIGRTMIN", "SIGRT_2"]
        );
        assert_eq!([0, -1, 900].map(name), ["0", "-1", "900"]);
        assert_eq!(code(libc::SIGSEGV, 1), "SEGV_MAPERR");
        assert_eq!([0, 9].map(ticks), ["0", "9 /* 0.09 s */"]);
    }
}
