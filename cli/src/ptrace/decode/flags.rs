//! Flags that are more than bits: part of the word is a value.

use super::names;
use super::text;

/// Flags of open.
pub fn open(value: u64) -> String {
    let mode = match value & 3 {
        0 => "O_RDONLY",
        1 => "O_WRONLY",
        2 => "O_RDWR",
        _ => "O_ACCMODE",
    };
    // O_SYNC holds O_DSYNC's bit and O_TMPFILE holds O_DIRECTORY's: the larger come first in the table.
    let rest = text::bits(value & !3, names::OPEN, "");
    if rest.is_empty() {
        mode.to_owned()
    } else {
        format!("{mode}|{rest}")
    }
}

/// Flags of mmap.
pub fn map(value: u64) -> String {
    let kind = match value & 3 {
        1 => "MAP_SHARED",
        2 => "MAP_PRIVATE",
        3 => "MAP_SHARED_VALIDATE",
        _ => "MAP_FILE",
    };
    let rest = text::bits(value & !3, names::MAP, "");
    if rest.is_empty() {
        kind.to_owned()
    } else {
        format!("{kind}|{rest}")
    }
}

/// Type and flags of a socket.
pub fn socket_type(value: u64) -> String {
    let mut name = text::one((value & 0xf).cast_signed(), names::SOCK);
    for (flag, word) in [
        (libc::SOCK_CLOEXEC, "SOCK_CLOEXEC"),
        (libc::SOCK_NONBLOCK, "SOCK_NONBLOCK"),
    ] {
        if value & u64::from(flag.cast_unsigned()) != 0 {
            name = format!("{name}|{word}");
        }
    }
    name
}

/// Flags of clone, and the signal that its end sends.
pub fn clone(value: u64) -> String {
    let signal = (value & 0xff) as i32;
    let flags = text::bits(value & !0xff, names::CLONE, "");
    match (flags.is_empty(), signal) {
        (true, 0) => "0".to_owned(),
        (false, 0) => flags,
        (true, _) => super::signals::name(signal),
        (false, _) => format!("{flags}|{}", super::signals::name(signal)),
    }
}

/// Flags of statx, of which two bits say how to be synchronous.
pub fn statx(value: u64) -> String {
    const SYNC: u64 = 0x6000;
    let value = u64::from(value as u32);
    let sync = match value & SYNC {
        0 => "AT_STATX_SYNC_AS_STAT",
        0x2000 => "AT_STATX_FORCE_SYNC",
        0x4000 => "AT_STATX_DONT_SYNC",
        _ => "AT_STATX_SYNC_TYPE",
    };
    let rest = text::bits(value & !SYNC, names::STATX, "");
    if rest.is_empty() {
        sync.to_owned()
    } else {
        format!("{sync}|{rest}")
    }
}

/// What a futex is asked for.
pub fn futex(value: u64) -> String {
    const OPERATIONS: [&str; 14] = [
        "WAIT",
        "WAKE",
        "FD",
        "REQUEUE",
        "CMP_REQUEUE",
        "WAKE_OP",
        "LOCK_PI",
        "UNLOCK_PI",
        "TRYLOCK_PI",
        "WAIT_BITSET",
        "WAKE_BITSET",
        "WAIT_REQUEUE_PI",
        "CMP_REQUEUE_PI",
        "LOCK_PI2",
    ];
    const PRIVATE: u64 = 128;
    const REALTIME: u64 = 256;
    let value = u64::from(value as u32);
    let operation = usize::try_from(value & !(PRIVATE | REALTIME)).unwrap_or(usize::MAX);
    let Some(name) = OPERATIONS.get(operation) else {
        return text::hex(value);
    };
    let private = if value & PRIVATE != 0 { "_PRIVATE" } else { "" };
    let realtime = if value & REALTIME != 0 {
        "|FUTEX_CLOCK_REALTIME"
    } else {
        ""
    };
    format!("FUTEX_{name}{private}{realtime}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_flags_and_values_are_both() {
        let flags = |flags: i32| u64::from(flags.cast_unsigned());
        assert_eq!(open(flags(libc::O_CLOEXEC)), "O_RDONLY|O_CLOEXEC");
        assert_eq!(
            open(flags(libc::O_RDWR | libc::O_CREAT | libc::O_TRUNC)),
            "O_RDWR|O_CREAT|O_TRUNC"
        );
        assert_eq!(
            open(flags(libc::O_RDONLY | libc::O_DIRECTORY)),
            "O_RDONLY|O_DIRECTORY"
        );
        assert_eq!(map(0x22), "MAP_PRIVATE|MAP_ANONYMOUS");
        assert_eq!(
            socket_type(flags(libc::SOCK_STREAM | libc::SOCK_CLOEXEC)),
            "SOCK_STREAM|SOCK_CLOEXEC"
        );
        assert_eq!(clone(0x4111), "CLONE_VM|CLONE_VFORK|SIGCHLD");
        assert_eq!(clone(17), "SIGCHLD");
        assert_eq!(
            (futex(129), futex(999)),
            ("FUTEX_WAKE_PRIVATE".to_owned(), "0x3e7".to_owned())
        );
    }
}
