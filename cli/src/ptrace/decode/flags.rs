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
    let rest = text::further_bits(value & !3, names::OPEN);
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
    let rest = huge(value & !3, names::MAP, libc::MAP_HUGETLB as u64, "MAP");
    if rest.is_empty() {
        kind.to_owned()
    } else {
        format!("{kind}|{rest}")
    }
}

/// Flags among which six bits are the size of huge pages, where those are wanted.
fn huge(value: u64, table: text::Table, wanted: u64, prefix: &str) -> String {
    const SHIFT: u32 = 26;
    let size = value >> SHIFT & 0x3f;
    if value & wanted == 0 || size == 0 {
        return text::further_bits(value, table);
    }
    let rest = text::further_bits(value & !(0x3f << SHIFT), table);
    format!("{rest}|{size}<<{prefix}_HUGE_SHIFT")
}

/// Flags of memfd_create.
pub fn memfd(value: u64) -> String {
    let text = huge(
        u64::from(value as u32),
        names::MEMFD,
        libc::MFD_HUGETLB.into(),
        "MFD",
    );
    if text.is_empty() { "0".to_owned() } else { text }
}

/// Type and flags of a socket.
pub fn socket_type(value: u64) -> String {
    let flags = u64::from((libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK).cast_unsigned());
    let kind = text::one((value & !flags) as u32, names::SOCK);
    match text::further_bits(value & flags, names::ACCEPT) {
        flags if flags.is_empty() => kind,
        flags => format!("{kind}|{flags}"),
    }
}

/// Flags of pipe2 and its like, which are some of those of open.
pub fn descriptor(value: u64) -> String {
    text::bits(u64::from(value as u32), names::OPEN, "0")
}

/// Flags of clone, and the signal that its end sends.
pub fn clone(value: u64) -> String {
    let signal = (value & 0xff) as i32;
    let flags = text::further_bits(value & !0xff, names::CLONE);
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
    let rest = text::further_bits(value & !SYNC, names::STATX);
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
        return format!("{} /* FUTEX_??? */", text::hex(value));
    };
    let private = if value & PRIVATE != 0 { "_PRIVATE" } else { "" };
    let realtime = if value & REALTIME != 0 {
        "|FUTEX_CLOCK_REALTIME"
    } else {
        ""
    };
    format!("FUTEX_{name}{private}{realtime}")
}

/// What a futex is set to, and what it is compared with, by FUTEX_WAKE_OP.
pub fn futex_wake(value: u64) -> String {
    const OPERATIONS: [&str; 5] = ["SET", "ADD", "OR", "ANDN", "XOR"];
    const COMPARISONS: [&str; 6] = ["EQ", "NE", "LT", "LE", "GT", "GE"];
    let name = |of: &[&str], prefix: &str, at: u64| {
        let known = usize::try_from(at).ok().and_then(|at| of.get(at));
        known.map_or_else(|| format!("{at:#x}"), |name| format!("{prefix}{name}"))
    };
    let shift = if value >> 31 & 1 == 1 {
        "FUTEX_OP_OPARG_SHIFT<<28|"
    } else {
        ""
    };
    format!(
        "{shift}{}<<28|{}<<12|{}<<24|{}",
        name(&OPERATIONS, "FUTEX_OP_", value >> 28 & 7),
        text::hex(value >> 12 & 0xfff),
        name(&COMPARISONS, "FUTEX_OP_CMP_", value >> 24 & 15),
        text::hex(value & 0xfff)
    )
}

/// The mask of the bits that a wait is for.
pub fn futex_bits(value: u64) -> String {
    match value as u32 {
        u32::MAX => "FUTEX_BITSET_MATCH_ANY".to_owned(),
        bits => text::hex(bits.into()),
    }
}

/// The execution domain.
pub fn personality(value: u64) -> String {
    let value = u64::from(value as u32);
    if value == u64::from(u32::MAX) {
        return text::hex(value);
    }
    let domain = match value & 0xff {
        0 => "PER_LINUX".to_owned(),
        8 => "PER_LINUX32".to_owned(),
        other => format!("{other:#x} /* PER_??? */"),
    };
    match text::further_bits(value & !0xff, names::PERSONALITY) {
        flags if flags.is_empty() => domain,
        flags => format!("{domain}|{flags}"),
    }
}

/// The same, as an argument that is an int: what else is in its register means nothing.
pub fn open_int(value: u64) -> String {
    open(u64::from(value as u32))
}

/// What is to be done with the kernel's log.
pub fn log(value: u64) -> String {
    let action = value as u32;
    let name = text::one(action, names::LOG);
    format!("{} /* {} */", action.cast_signed(), name)
}

/// Who may trace, if not everybody.
pub fn tracer(value: u64) -> String {
    match value {
        u64::MAX => "PR_SET_PTRACER_ANY".to_owned(),
        process => (process as u32).cast_signed().to_string(),
    }
}

/// Flags of swapon, and the priority among them.
pub fn swap(value: u64) -> String {
    const PREFER: u64 = 0x8000;
    const PRIORITY: u64 = 0x7fff;
    // An int.
    let value = value & 0xffff_ffff;
    if value & PREFER == 0 {
        return text::hex(value);
    }
    let discards = match value & !(PREFER | PRIORITY) {
        0 => String::new(),
        other => format!("|{other:#x}"),
    };
    format!("SWAP_FLAG_PREFER{discards}|{}", value & PRIORITY)
}

/// The class and the flags of fanotify_init.
pub fn fanotify(value: u64) -> String {
    const CLASS: u64 = 12;
    let class = match value & CLASS {
        0 => "FAN_CLASS_NOTIF",
        4 => "FAN_CLASS_CONTENT",
        8 => "FAN_CLASS_PRE_CONTENT",
        _ => "0xc /* FAN_CLASS_??? */",
    };
    match text::further_bits(u64::from(value as u32) & !CLASS, names::FANOTIFY) {
        flags if flags.is_empty() => class.to_owned(),
        flags => format!("{class}|{flags}"),
    }
}

/// What membarrier is asked for; 0 is the question of what there is.
pub fn membarrier(value: u64) -> String {
    match value as u32 {
        0 => "MEMBARRIER_CMD_QUERY".to_owned(),
        command => text::one(command, names::MEMBARRIER),
    }
}

/// Priority of input and output: a class, and a rank in it.
pub fn io_priority(value: u64) -> String {
    let value = value as u32;
    format!(
        "IOPRIO_PRIO_VALUE({}, {})",
        text::one(value >> 13, names::IO_CLASS),
        value & 0x1fff
    )
}

/// A number of milliseconds or of a user, of which all bits set stand for none.
pub fn signed(value: u64) -> String {
    (value as u32).cast_signed().to_string()
}

/// Flags and permissions of what processes share.
pub fn shared(value: u64) -> String {
    permitted(value, names::IPC_GET)
}

/// Flags and permissions of shared memory.
pub fn shared_memory(value: u64) -> String {
    permitted(value, names::SHM_GET)
}

fn permitted(value: u64, table: text::Table) -> String {
    let mode = text::octal(value & 0o777);
    match text::further_bits(u64::from(value as u32) & !0o777, table) {
        flags if flags.is_empty() => mode,
        flags => format!("{flags}|{mode}"),
    }
}

/// The key of what processes share.
pub fn key(value: u64) -> String {
    match value as u32 {
        0 => "IPC_PRIVATE".to_owned(),
        key => text::hex(key.into()),
    }
}

/// A key of the kernel's, or the name of a keyring.
pub fn keyring(value: u64) -> String {
    let value = value as u32;
    let known = names::KEYRING
        .rows
        .iter()
        .find(|(key, _)| *key == u64::from(value));
    known.map_or_else(|| value.cast_signed().to_string(), |(_, name)| (*name).to_owned())
}

/// What ioctl is asked for: by its name, or by the parts of its number.
pub fn ioctl(value: u64) -> String {
    let value = value as u32;
    let known = names::IOCTL
        .rows
        .iter()
        .find(|(request, _)| *request == u64::from(value));
    if let Some((_, name)) = known {
        return (*name).to_owned();
    }
    let direction = ["_IOC_NONE", "_IOC_WRITE", "_IOC_READ", "_IOC_READ|_IOC_WRITE"];
    let part = |shift: u32, mask: u32| text::hex((value >> shift & mask).into());
    format!(
        "_IOC({}, {}, {}, {})",
        direction[(value >> 30) as usize],
        part(8, 0xff),
        part(0, 0xff),
        part(16, 0x3fff)
    )
}

/// A protocol of packets, as they have it: the high byte first.
pub fn ethernet(value: u64) -> String {
    let protocol = u32::from((value as u16).swap_bytes());
    let known = names::ETHERNET
        .rows
        .iter()
        .find(|(known, _)| *known == u64::from(protocol));
    known.map_or_else(
        || format!("htons({protocol:#x})"),
        |(_, name)| format!("htons({name})"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_else_is_in_the_register_of_an_int_means_nothing() {
        const REST: u64 = 1 << 44;
        let cloexec = REST | u64::from(libc::O_CLOEXEC.cast_unsigned());
        assert_eq!(open_int(cloexec), "O_RDONLY|O_CLOEXEC");
        assert_eq!(descriptor(cloexec), "O_CLOEXEC");
        assert_eq!(memfd(REST), "0");
    }

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
            (
                "FUTEX_WAKE_PRIVATE".to_owned(),
                "0x3e7 /* FUTEX_??? */".to_owned()
            )
        );
    }
}
