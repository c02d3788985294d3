//! Errors by name and with their text.

use std::io;

macro_rules! names {
    ($($name:ident)*) => {
        &[$((libc::$name, stringify!($name))),*]
    };
}

const NAMES: &[(i32, &str)] = names!(
    EPERM ENOENT ESRCH EINTR EIO ENXIO E2BIG ENOEXEC EBADF ECHILD EAGAIN ENOMEM EACCES EFAULT ENOTBLK EBUSY EEXIST
    EXDEV ENODEV ENOTDIR EISDIR EINVAL ENFILE EMFILE ENOTTY ETXTBSY EFBIG ENOSPC ESPIPE EROFS EMLINK EPIPE EDOM
    ERANGE EDEADLK ENAMETOOLONG ENOLCK ENOSYS ENOTEMPTY ELOOP ENOMSG EIDRM ENOSTR ENODATA ETIME ENOLINK EPROTO
    EBADMSG EOVERFLOW EUSERS ENOTSOCK EDESTADDRREQ EMSGSIZE EPROTOTYPE ENOPROTOOPT EPROTONOSUPPORT ESOCKTNOSUPPORT
    EOPNOTSUPP EPFNOSUPPORT EAFNOSUPPORT EADDRINUSE EADDRNOTAVAIL ENETDOWN ENETUNREACH ENETRESET ECONNABORTED
    ECONNRESET ENOBUFS EISCONN ENOTCONN ESHUTDOWN ETIMEDOUT ECONNREFUSED EHOSTDOWN EHOSTUNREACH EALREADY EINPROGRESS
    ESTALE EDQUOT ECANCELED EOWNERDEAD ENOTRECOVERABLE EILSEQ EBADE EBADR EXFULL ENOANO EBADRQC EBADSLT EBFONT ENONET ENOPKG EREMOTE EADV ESRMNT ECOMM EMULTIHOP
    EDOTDOT ENOTUNIQ EBADFD EREMCHG ELIBACC ELIBBAD ELIBSCN ELIBMAX ELIBEXEC ERESTART ESTRPIPE ETOOMANYREFS EUCLEAN
    ENOTNAM ENAVAIL EISNAM EREMOTEIO ENOMEDIUM EMEDIUMTYPE ERFKILL EHWPOISON ECHRNG EL2NSYNC EL3HLT EL3RST ELNRNG
    EUNATCH ENOCSI EL2HLT ENOKEY EKEYEXPIRED EKEYREVOKED EKEYREJECTED
);

/// Answers that only tracers see: the kernel makes the call again, or not, when a signal has been dealt with.
const RESTARTS: [(i64, &str, &str); 4] = [
    (512, "ERESTARTSYS", "To be restarted if SA_RESTART is set"),
    (513, "ERESTARTNOINTR", "To be restarted"),
    (514, "ERESTARTNOHAND", "To be restarted if no handler"),
    (516, "ERESTART_RESTARTBLOCK", "Interrupted by signal"),
];

/// Its name, or its number.
pub fn name(error: i64) -> String {
    let restart = RESTARTS.iter().find(|(number, ..)| *number == error);
    let known = NAMES.iter().find(|(number, _)| i64::from(*number) == error);
    restart
        .map(|(_, name, _)| *name)
        .or(known.map(|(_, name)| *name))
        .map_or_else(|| error.to_string(), str::to_owned)
}

/// What is written after the equals sign.
pub fn describe(error: i64) -> String {
    if let Some((_, name, text)) = RESTARTS.iter().find(|(number, ..)| *number == error) {
        return format!("? {name} ({text})");
    }
    let number = i32::try_from(error).unwrap_or(i32::MAX);
    let text = io::Error::from_raw_os_error(number).to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    format!("-1 {} ({text})", name(error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_have_a_name_and_a_text() {
        assert_eq!(describe(2), "-1 ENOENT (No such file or directory)");
        assert_eq!(
            describe(512),
            "? ERESTARTSYS (To be restarted if SA_RESTART is set)"
        );
        assert_eq!((name(11), name(4000)), ("EAGAIN".to_owned(), "4000".to_owned()));
    }
}
