//! What pointers point to.

use super::super::memory::Memory;
use super::signals;
use super::text::{bits, hex, path, pointer, quoted};
use super::{flags, int, names};

/// Items of a list that are shown.
const SHOWN: usize = 32;

/// A list of texts, as execve takes them.
pub fn strings(address: u64, memory: Memory) -> String {
    if address == 0 {
        return pointer(address);
    }
    let mut items = Vec::new();
    for at in 0..=SHOWN as u64 {
        match word_at(address, at, memory) {
            Some(0) => return format!("[{}]", items.join(", ")),
            Some(_) if at == SHOWN as u64 => items.push("...".to_owned()),
            Some(item) => items.push(path(item, memory)),
            None => return pointer(address),
        }
    }
    format!("[{}]", items.join(", "))
}

fn word_at(address: u64, index: u64, memory: Memory) -> Option<u64> {
    memory
        .words::<1>(address.checked_add(index * 8)?)
        .map(|[word]| word)
}

/// How many variables there are: they are many, and may hold secrets.
pub fn environment(address: u64, memory: Memory) -> String {
    const MOST: u64 = 4096;
    if address == 0 {
        return pointer(address);
    }
    let end = (0..MOST).find_map(|at| match word_at(address, at, memory) {
        Some(0) => Some(Some(at)),
        Some(_) => None,
        None => Some(None),
    });
    match end.flatten() {
        Some(1) => format!("{} /* 1 var */", pointer(address)),
        Some(count) => format!("{} /* {count} vars */", pointer(address)),
        None => pointer(address),
    }
}

/// A set of signals; of one that lacks few, those that it lacks.
pub fn signal_set(address: u64, memory: Memory) -> String {
    let Some([set]) = memory.words::<1>(address) else {
        return pointer(address);
    };
    signal_bits(set)
}

fn signal_bits(set: u64) -> String {
    let (sign, set) = if set.count_ones() > 48 {
        ("~", !set)
    } else {
        ("", set)
    };
    let names: Vec<String> = (1..=64)
        .filter(|signal| set >> (signal - 1) & 1 == 1)
        .map(signals::short)
        .collect();
    format!("{sign}[{}]", names.join(" "))
}

/// The kernel's struct sigaction.
pub fn action(address: u64, memory: Memory) -> String {
    const RESTORER: u64 = 0x0400_0000;
    // The restorer is part of it on x86-64 only in fact, and everywhere in layout.
    let Some([handler, flags, restorer, mask]) = memory.words::<4>(address) else {
        return pointer(address);
    };
    let handler = match handler {
        0 => "SIG_DFL".to_owned(),
        1 => "SIG_IGN".to_owned(),
        other => hex(other),
    };
    let restored = if flags & RESTORER != 0 {
        format!(", sa_restorer={}", hex(restorer))
    } else {
        String::new()
    };
    format!(
        "{{sa_handler={handler}, sa_mask={}, sa_flags={}{restored}}}",
        signal_bits(mask),
        bits(flags, names::ACTION, "0")
    )
}

/// Kind of file and permissions.
pub fn mode(mode: u32) -> String {
    let kind = match mode & 0o170_000 {
        0o100_000 => "S_IFREG|",
        0o040_000 => "S_IFDIR|",
        0o120_000 => "S_IFLNK|",
        0o020_000 => "S_IFCHR|",
        0o060_000 => "S_IFBLK|",
        0o010_000 => "S_IFIFO|",
        0o140_000 => "S_IFSOCK|",
        _ => "",
    };
    let mut text = kind.to_owned();
    for (bit, name) in [(0o4000, "S_ISUID|"), (0o2000, "S_ISGID|"), (0o1000, "S_ISVTX|")] {
        if mode & bit != 0 {
            text.push_str(name);
        }
    }
    format!("{text}0{:0>3o}", mode & 0o777)
}

/// A device's number.
pub fn device(number: u64) -> String {
    let (major, minor) = (libc::major(number), libc::minor(number));
    format!("makedev({major:#x}, {minor:#x})")
}

/// struct open_how.
pub fn how(address: u64, memory: Memory) -> String {
    let Some([flags, permissions, resolve]) = memory.words::<3>(address) else {
        return pointer(address);
    };
    let mut text = format!("{{flags={}", flags::open(flags));
    if permissions != 0 {
        text.push_str(&format!(", mode=0{permissions:0>3o}"));
    }
    if resolve != 0 {
        text.push_str(&format!(", resolve={}", bits(resolve, names::RESOLVE, "0")));
    }
    text + "}"
}

/// struct stat: type, permissions, and size or device.
pub fn stat(address: u64, memory: Memory) -> String {
    #[cfg(target_arch = "x86_64")]
    const MODE: u64 = 24;
    #[cfg(target_arch = "aarch64")]
    const MODE: u64 = 16;
    let found = (
        memory.halves::<1>(address.saturating_add(MODE)),
        memory.words::<7>(address),
    );
    let (Some([bits]), Some(words)) = found else {
        return pointer(address);
    };
    let (device, size) = if cfg!(target_arch = "x86_64") {
        (words[5], words[6])
    } else {
        (words[4], words[6])
    };
    let kind = bits & 0o170_000;
    if kind == 0o020_000 || kind == 0o060_000 {
        return format!(
            "{{st_mode={}, st_rdev={}, ...}}",
            mode(bits),
            self::device(device)
        );
    }
    format!("{{st_mode={}, st_size={size}, ...}}", mode(bits))
}

/// struct statx.
pub fn statx(address: u64, memory: Memory) -> String {
    const SIZE: u64 = 40;
    let found = (
        memory.halves::<8>(address),
        memory.words::<1>(address.saturating_add(SIZE)),
    );
    match found {
        (Some(halves), Some([size])) => {
            let bits = halves[7] & 0xffff;
            format!("{{stx_mode={}, stx_size={size}, ...}}", mode(bits))
        }
        _ => pointer(address),
    }
}

/// struct timespec.
pub fn time(address: u64, memory: Memory) -> String {
    match memory.words::<2>(address) {
        Some([seconds, nanoseconds]) => format!(
            "{{tv_sec={}, tv_nsec={}}}",
            seconds.cast_signed(),
            nanoseconds.cast_signed()
        ),
        None => pointer(address),
    }
}

/// struct sockaddr of a length.
pub fn address(address: u64, length: usize, memory: Memory) -> String {
    let bytes = memory.bytes(address, length.min(128));
    let Some(([family_low, family_high], rest)) = bytes.split_first_chunk::<2>() else {
        return pointer(address);
    };
    let family = u16::from_ne_bytes([*family_low, *family_high]);
    let port = rest.first_chunk::<2>().map(|port| u16::from_be_bytes(*port));
    match (i32::from(family), port) {
        (libc::AF_UNIX, _) => {
            let shown = match rest {
                [] => String::new(),
                [0, name @ ..] => format!(", sun_path=@{}", quoted(name, false)),
                name => {
                    let end = name.iter().position(|b| *b == 0).unwrap_or(name.len());
                    format!(", sun_path={}", quoted(&name[..end], false))
                }
            };
            format!("{{sa_family=AF_UNIX{shown}}}")
        }
        (libc::AF_INET, Some(port)) if rest.len() >= 6 => format!(
            "{{sa_family=AF_INET, sin_port=htons({port}), sin_addr=inet_addr(\"{}.{}.{}.{}\")}}",
            rest[2], rest[3], rest[4], rest[5]
        ),
        (libc::AF_INET6, Some(port)) if rest.len() >= 22 => {
            let mut octets = [0; 16];
            octets.copy_from_slice(&rest[6..22]);
            let text = std::net::Ipv6Addr::from(octets);
            format!(
                "{{sa_family=AF_INET6, sin6_port=htons({port}), inet_pton(AF_INET6, \"{text}\", &sin6_addr)}}"
            )
        }
        (family, _) => format!(
            "{{sa_family={}, ...}}",
            super::text::one(family.into(), names::DOMAIN)
        ),
    }
}

/// struct sockaddr whose length is where `length` points to.
pub fn address_out(at: u64, length: u64, memory: Memory) -> String {
    match memory.halves::<1>(length) {
        Some([length]) => address(at, length as usize, memory),
        None => pointer(at),
    }
}

/// An int that is pointed to.
pub fn number(address: u64, memory: Memory) -> String {
    match memory.halves::<1>(address) {
        Some([value]) => format!("[{}]", value as i32),
        None => pointer(address),
    }
}

/// struct iovec, several; where `filled` is given, so many bytes of them mean something.
pub fn vectors(address: u64, count: usize, filled: Option<usize>, memory: Memory) -> String {
    let mut left = filled;
    let mut items = Vec::new();
    for at in 0..count.min(SHOWN) as u64 {
        let Some([base, length]) = memory.words::<2>(address.saturating_add(at * 16)) else {
            return pointer(address);
        };
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        let shown = left.map_or(length, |left| left.min(length));
        left = left.map(|left| left - shown);
        let text = super::text::buffer(base, shown, memory);
        items.push(format!("{{iov_base={text}, iov_len={length}}}"));
    }
    if count > SHOWN {
        items.push("...".to_owned());
    }
    format!("[{}]", items.join(", "))
}

/// Two descriptors.
pub fn pair(address: u64, memory: Memory) -> String {
    match memory.halves::<2>(address) {
        Some([one, other]) => format!("[{}, {}]", one as i32, other as i32),
        None => pointer(address),
    }
}

/// How a child has ended, if one has.
pub fn status(address: u64, result: i64, memory: Memory) -> String {
    let Some([status]) = memory.halves::<1>(address).filter(|_| result > 0) else {
        return pointer(address);
    };
    let status = int(status.into());
    if libc::WIFEXITED(status) {
        format!(
            "[{{WIFEXITED(s) && WEXITSTATUS(s) == {}}}]",
            libc::WEXITSTATUS(status)
        )
    } else if libc::WIFSIGNALED(status) {
        let signal = signals::name(libc::WTERMSIG(status));
        let core = if libc::WCOREDUMP(status) {
            " && WCOREDUMP(s)"
        } else {
            ""
        };
        format!("[{{WIFSIGNALED(s) && WTERMSIG(s) == {signal}{core}}}]")
    } else if libc::WIFSTOPPED(status) {
        let signal = signals::name(libc::WSTOPSIG(status));
        format!("[{{WIFSTOPPED(s) && WSTOPSIG(s) == {signal}}}]")
    } else {
        format!("[{status:#x}]")
    }
}

/// struct rlimit64.
pub fn limit(address: u64, memory: Memory) -> String {
    let one = |value: u64| match value {
        u64::MAX => "RLIM64_INFINITY".to_owned(),
        value if value > 1024 && value.is_multiple_of(1024) => format!("{}*1024", value / 1024),
        value => value.to_string(),
    };
    match memory.words::<2>(address) {
        Some([soft, hard]) => format!("{{rlim_cur={}, rlim_max={}}}", one(soft), one(hard)),
        None => pointer(address),
    }
}

/// struct epoll_event, which is packed on some architectures.
pub fn event(address: u64, memory: Memory) -> String {
    let offset = if cfg!(target_arch = "x86_64") { 4 } else { 8 };
    let found = (
        memory.halves::<1>(address),
        memory.words::<1>(address.saturating_add(offset)),
    );
    match found {
        (Some([events]), Some([data])) => format!(
            "{{events={}, data={{u32={}, u64={data}}}}}",
            bits(events.into(), names::EPOLL, "0"),
            data as u32
        ),
        _ => pointer(address),
    }
}

/// struct linux_dirent64, several, of which the number is shown.
pub fn entries(address: u64, result: i64, memory: Memory) -> String {
    const LENGTH: u64 = 16;
    let end = result.cast_unsigned();
    let (mut at, mut count) = (0u64, 0);
    while at < end && count < 4096 {
        let Some([word]) = memory.halves::<1>(address.saturating_add(at + LENGTH)) else {
            return pointer(address);
        };
        let [low, high, ..] = word.to_ne_bytes();
        // An entry takes room, or this would never end.
        at += u64::from(u16::from_ne_bytes([low, high])).max(24);
        count += 1;
    }
    format!("{} /* {count} entries */", pointer(address))
}

/// struct pollfd, several.
pub fn polled(address: u64, count: usize, memory: Memory) -> String {
    let mut items = Vec::new();
    for at in 0..count.min(SHOWN) as u64 {
        let Some([fd, events]) = memory.halves::<2>(address.saturating_add(at * 8)) else {
            return pointer(address);
        };
        let wanted = bits(u64::from(events & 0xffff), names::POLL, "0");
        let had = events >> 16;
        let had = if had == 0 {
            String::new()
        } else {
            format!(", revents={}", bits(had.into(), names::POLL, "0"))
        };
        items.push(format!("{{fd={}, events={wanted}{had}}}", fd as i32));
    }
    if count > SHOWN {
        items.push("...".to_owned());
    }
    format!("[{}]", items.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own() -> Memory {
        Memory(std::process::id().cast_signed())
    }

    #[test]
    fn structures_are_read_from_memory() {
        let text = c"one";
        let list = [text.as_ptr() as u64, 0];
        assert_eq!(strings(list.as_ptr() as u64, own()), "[\"one\"]");
        assert!(environment(list.as_ptr() as u64, own()).ends_with(" /* 1 var */"));
        let time_of = [2u64, 5];
        assert_eq!(time(time_of.as_ptr() as u64, own()), "{tv_sec=2, tv_nsec=5}");
        assert_eq!(
            limit([8192 * 1024, u64::MAX].as_ptr() as u64, own()),
            "{rlim_cur=8192*1024, rlim_max=RLIM64_INFINITY}"
        );
        assert_eq!(
            status([256u32].as_ptr() as u64, 7, own()),
            "[{WIFEXITED(s) && WEXITSTATUS(s) == 1}]"
        );
        let inet = [2u8, 0, 0, 80, 127, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(
            address(inet.as_ptr() as u64, 16, own()),
            "{sa_family=AF_INET, sin_port=htons(80), sin_addr=inet_addr(\"127.0.0.1\")}"
        );
        assert_eq!(
            polled([3u32, 1 | 1 << 16].as_ptr() as u64, 1, own()),
            "[{fd=3, events=POLLIN, revents=POLLIN}]"
        );
    }

    #[test]
    fn nothing_is_read_from_nowhere() {
        for show in [
            strings,
            environment,
            signal_set,
            action,
            stat,
            statx,
            time,
            number,
            pair,
            limit,
        ] {
            assert_eq!(show(0, own()), "NULL");
            assert_eq!(show(16, own()), "0x10");
        }
        assert_eq!(vectors(16, usize::MAX, None, own()), "0x10");
        assert_eq!(polled(u64::MAX, 3, own()), "0xffffffffffffffff");
        assert_eq!(address(u64::MAX, usize::MAX, own()), "0xffffffffffffffff");
    }

    #[test]
    fn sets_of_signals_are_short() {
        assert_eq!(signal_bits(0), "[]");
        assert_eq!(signal_bits(1 << 16 | 1 << 1), "[INT CHLD]");
        assert_eq!(signal_bits(!(1 << 8)), "~[KILL]");
    }
}
