//! Signals by name, and where they come from.

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
            "{{{head}, si_pid={pid}, si_uid={uid}, si_status={status}, si_utime={user}, si_stime={system}}}"
        );
    }
    if info.si_code > 0 && faults.contains(&signal) {
        return format!("{{{head}, si_addr={}}}", super::text::pointer(address));
    }
    if info.si_code <= 0 {
        return format!("{{{head}, si_pid={pid}, si_uid={uid}}}");
    }
    format!("{{{head}}}")
}

fn code(signal: i32, code: i32) -> String {
    let name = match (signal, code) {
        (_, 0) => "SI_USER",
        (_, 0x80) => "SI_KERNEL",
        (_, -1) => "SI_QUEUE",
        (_, -2) => "SI_TIMER",
        (_, -6) => "SI_TKILL",
        (libc::SIGCHLD, 1) => "CLD_EXITED",
        (libc::SIGCHLD, 2) => "CLD_KILLED",
        (libc::SIGCHLD, 3) => "CLD_DUMPED",
        (libc::SIGCHLD, 4) => "CLD_TRAPPED",
        (libc::SIGCHLD, 5) => "CLD_STOPPED",
        (libc::SIGCHLD, 6) => "CLD_CONTINUED",
        (libc::SIGSEGV, 1) => "SEGV_MAPERR",
        (libc::SIGSEGV, 2) => "SEGV_ACCERR",
        (libc::SIGBUS, 1) => "BUS_ADRALN",
        (libc::SIGBUS, 2) => "BUS_ADRERR",
        (libc::SIGFPE, 1) => "FPE_INTDIV",
        (libc::SIGILL, 2) => "ILL_ILLOPN",
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
    }
}
