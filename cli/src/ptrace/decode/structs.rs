//! What pointers point to.

use super::super::memory::Memory;
use super::signals;
use super::text::{bits, hex, octal, one, path, pointer, quoted};
use super::{flags, int, names};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

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
        format!(", sa_restorer={}", pointer(restorer))
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
        0 => "",
        _ => return octal(mode.into()),
    };
    let mut text = kind.to_owned();
    for (bit, name) in [(0o4000, "S_ISUID|"), (0o2000, "S_ISGID|"), (0o1000, "S_ISVTX|")] {
        if mode & bit != 0 {
            text.push_str(name);
        }
    }
    text + &octal(u64::from(mode & 0o777))
}

/// A device's number.
pub fn device(number: u64) -> String {
    let (major, minor) = (libc::major(number), libc::minor(number));
    format!("makedev({}, {})", hex(major.into()), hex(minor.into()))
}

/// struct open_how of a length.
pub fn how(address: u64, length: usize, memory: Memory) -> String {
    if length < 24 {
        return pointer(address);
    }
    let Some([flags, permissions, resolve]) = memory.words::<3>(address) else {
        return pointer(address);
    };
    let mut text = format!("{{flags={}", flags::open(flags));
    if permissions != 0 {
        text.push_str(&format!(", mode={}", octal(permissions)));
    }
    text + &format!(", resolve={}}}", bits(resolve, names::RESOLVE, "0"))
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
    let Some(words) = memory.words::<6>(address) else {
        return pointer(address);
    };
    let halves = |word: u64| (word as u32, (word >> 32) as u32);
    let bits_of = (halves(words[3]).1 & 0xffff, halves(words[0]).0);
    format!(
        "{{stx_mask={}, stx_attributes={}, stx_mode={}, stx_size={}, ...}}",
        bits(bits_of.1.into(), names::STATX_MASK, "0"),
        bits(words[1], names::STATX_ATTRIBUTES, "0"),
        mode(bits_of.0),
        words[5]
    )
}

/// struct timespec.
pub fn time(address: u64, memory: Memory) -> String {
    match memory.words::<2>(address) {
        Some([seconds, nanoseconds]) => timespec(seconds, nanoseconds),
        None => pointer(address),
    }
}

fn timespec(seconds: u64, nanoseconds: u64) -> String {
    format!("{{tv_sec={}, tv_nsec={nanoseconds}}}", seconds.cast_signed())
}

fn timeval(seconds: u64, microseconds: u64) -> String {
    format!("{{tv_sec={}, tv_usec={microseconds}}}", seconds.cast_signed())
}

/// struct timeval.
pub fn micro_time(address: u64, memory: Memory) -> String {
    match memory.words::<2>(address) {
        Some([seconds, microseconds]) => timeval(seconds, microseconds),
        None => pointer(address),
    }
}

/// struct itimerspec.
pub fn timer(address: u64, memory: Memory) -> String {
    match memory.words::<4>(address) {
        Some([a, b, c, d]) => format!("{{it_interval={}, it_value={}}}", timespec(a, b), timespec(c, d)),
        None => pointer(address),
    }
}

/// struct itimerval.
pub fn micro_timer(address: u64, memory: Memory) -> String {
    match memory.words::<4>(address) {
        Some([a, b, c, d]) => format!("{{it_interval={}, it_value={}}}", timeval(a, b), timeval(c, d)),
        None => pointer(address),
    }
}

/// A time of the calendar, where it is one.
fn date(seconds: u64, nanoseconds: u64, digits: usize) -> Option<String> {
    let since = SignedDuration::new(seconds.cast_signed(), 0);
    let date = Timestamp::from_duration(since).ok()?.to_zoned(TimeZone::system());
    let fraction = match nanoseconds {
        0 => String::new(),
        nanoseconds => format!(".{:0digits$}", nanoseconds / 10u64.pow(9 - digits as u32)),
    };
    let [day, zone] = ["%Y-%m-%dT%H:%M:%S", "%z"].map(|part| date.strftime(part).to_string());
    Some(format!("{day}{fraction}{zone}"))
}

/// Seconds since 1970, as a date.
pub fn day(seconds: u64) -> Option<String> {
    date(seconds, 0, 0)
}

/// Two struct timespec: when a file was read and written.
pub fn file_times(address: u64, memory: Memory) -> String {
    let Some([a, b, c, d]) = memory.words::<4>(address) else {
        return pointer(address);
    };
    let one = |seconds: u64, nanoseconds: u64| match nanoseconds {
        0x3fff_ffff => "UTIME_NOW".to_owned(),
        0x3fff_fffe => "UTIME_OMIT".to_owned(),
        _ => dated(timespec(seconds, nanoseconds), date(seconds, nanoseconds, 9)),
    };
    format!("[{}, {}]", one(a, b), one(c, d))
}

/// Two struct timeval: when a file was read and written.
pub fn file_micro_times(address: u64, memory: Memory) -> String {
    let Some([a, b, c, d]) = memory.words::<4>(address) else {
        return pointer(address);
    };
    let one = |seconds: u64, us: u64| dated(timeval(seconds, us), date(seconds, us.saturating_mul(1000), 6));
    format!("[{}, {}]", one(a, b), one(c, d))
}

/// struct utimbuf.
pub fn file_seconds(address: u64, memory: Memory) -> String {
    let Some([read, written]) = memory.words::<2>(address) else {
        return pointer(address);
    };
    let one = |seconds: u64| dated(seconds.cast_signed().to_string(), day(seconds));
    format!("{{actime={}, modtime={}}}", one(read), one(written))
}

fn dated(text: String, date: Option<String>) -> String {
    match date {
        Some(date) => format!("{text} /* {date} */"),
        None => text,
    }
}

/// struct sockaddr of a length.
pub fn address(address: u64, length: usize, memory: Memory) -> String {
    // A length that is negative as C's int is none.
    let length = if length > i32::MAX as usize {
        0
    } else {
        length.min(128)
    };
    let bytes = memory.bytes(address, length);
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
            let [flow, scope] = [rest.get(2..6), rest.get(22..26)].map(|at| {
                let bytes = at.and_then(|at| <[u8; 4]>::try_from(at).ok());
                bytes.unwrap_or_default()
            });
            format!(
                "{{sa_family=AF_INET6, sin6_port=htons({port}), sin6_flowinfo=htonl({}), inet_pton(AF_INET6, \"{text}\", &sin6_addr), sin6_scope_id={}}}",
                u32::from_be_bytes(flow),
                u32::from_ne_bytes(scope)
            )
        }
        (libc::AF_NETLINK, _) if rest.len() >= 10 => {
            let [pid, groups] = [2, 6].map(|at| half(rest, at));
            format!(
                "{{sa_family=AF_NETLINK, nl_pid={}, nl_groups={groups:#08x}}}",
                pid as i32
            )
        }
        (libc::AF_PACKET, Some(protocol)) if rest.len() >= 10 => format!(
            "{{sa_family=AF_PACKET, sll_protocol={}, sll_ifindex={}, ...}}",
            flags::ethernet(u64::from(protocol.swap_bytes())),
            half(rest, 2) as i32
        ),
        (family, _) => format!(
            "{{sa_family={}, sa_data={}}}",
            one(family.cast_unsigned(), names::DOMAIN),
            quoted(rest, false)
        ),
    }
}

/// An u32 that lies among bytes, 0 where it does not.
fn half(bytes: &[u8], at: usize) -> u32 {
    let found = bytes.get(at..).and_then(|rest| rest.first_chunk::<4>());
    found.map_or(0, |bytes| u32::from_ne_bytes(*bytes))
}

/// struct sockaddr whose length is where `length` points to.
pub fn address_out(at: u64, length: usize, memory: Memory) -> String {
    match memory.halves::<1>(length as u64) {
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

/// A length that is pointed to: of the room for an answer, and of the answer where that is another.
pub fn length(address: u64, room: u32, memory: Memory) -> String {
    match memory.halves::<1>(address) {
        Some([now]) if now != room => format!("[{} => {}]", room as i32, now as i32),
        _ => format!("[{}]", room as i32),
    }
}

/// A long that is pointed to.
pub fn long(address: u64, memory: Memory) -> String {
    match memory.words::<1>(address) {
        Some([value]) => format!("[{}]", value.cast_signed()),
        None => pointer(address),
    }
}

/// An unsigned long that is pointed to.
pub fn size(address: u64, memory: Memory) -> String {
    match memory.words::<1>(address) {
        Some([value]) => format!("[{value}]"),
        None => pointer(address),
    }
}

/// A pointer that is pointed to.
pub fn address_of(address: u64, memory: Memory) -> String {
    match memory.words::<1>(address) {
        Some([value]) => format!("[{}]", pointer(value)),
        None => pointer(address),
    }
}

/// A signal that is pointed to.
pub fn signal(address: u64, memory: Memory) -> String {
    match memory.halves::<1>(address) {
        Some([value]) => format!("[{}]", signals::name(value as i32)),
        None => pointer(address),
    }
}

/// A name of at most 16 bytes.
pub fn name(address: u64, memory: Memory) -> String {
    let bytes = memory.bytes(address, 16);
    match bytes.iter().position(|byte| *byte == 0) {
        Some(end) => quoted(&bytes[..end], false),
        None => pointer(address),
    }
}

/// Items one after the other, of which the first ones are shown.
fn list(count: usize, address: u64, item: impl Fn(u64) -> Option<String>) -> String {
    if address == 0 {
        return pointer(address);
    }
    let mut items = Vec::new();
    for at in 0..count.min(SHOWN) as u64 {
        match item(at) {
            Some(item) => items.push(item),
            None => return pointer(address),
        }
    }
    if count > SHOWN {
        items.push("...".to_owned());
    }
    format!("[{}]", items.join(", "))
}

/// Unsigned ints, several.
pub fn numbers(address: u64, count: usize, memory: Memory) -> String {
    list(count, address, |at| {
        let [value] = memory.halves::<1>(address.checked_add(at * 4)?)?;
        Some(value.to_string())
    })
}

/// Which pages of so many bytes are there.
pub fn pages(address: u64, length: usize, memory: Memory) -> String {
    list(length.div_ceil(4096), address, |at| {
        memory
            .bytes(address.checked_add(at)?, 1)
            .first()
            .map(|byte| (byte & 1).to_string())
    })
}

/// Numbers of the bits that are set in so many bytes.
fn set_bits(address: u64, bytes: usize, memory: Memory) -> Option<Vec<String>> {
    let bytes = bytes.min(256);
    let set = memory.bytes(address, bytes);
    let is_set = |at: &usize| set[at / 8] >> (at % 8) & 1 == 1;
    (set.len() == bytes).then(|| (0..bytes * 8).filter(is_set).map(|at| at.to_string()).collect())
}

/// Processors, in so many bytes.
pub fn processors(address: u64, bytes: usize, memory: Memory) -> String {
    set_bits(address, bytes, memory).map_or_else(|| pointer(address), |set| format!("[{}]", set.join(" ")))
}

/// Descriptors below a number, as select takes them.
pub fn descriptors(address: u64, count: usize, memory: Memory) -> String {
    // Words, of which there are 16 at most.
    let count = count.min(1024);
    match set_bits(address, count.div_ceil(64) * 8, memory) {
        Some(set) if address != 0 => {
            let below = |fd: &&String| fd.parse().is_ok_and(|fd: usize| fd < count);
            let set: Vec<&str> = set.iter().filter(below).map(String::as_str).collect();
            format!("[{}]", set.join(" "))
        }
        _ => pointer(address),
    }
}

/// Which of the polled are ready, and how.
pub fn ready(address: u64, count: usize, memory: Memory) -> String {
    let polled = (0..count.min(4096) as u64).map_while(|at| memory.halves::<2>(address.checked_add(at * 8)?));
    let mut items: Vec<String> = polled
        .filter(|[_, events]| events >> 16 != 0)
        .take(SHOWN + 1)
        .map(|[fd, events]| {
            let had = bits(u64::from(events >> 16), names::POLL, "0");
            format!("{{fd={}, revents={had}}}", fd as i32)
        })
        .collect();
    if items.len() > SHOWN {
        items.truncate(SHOWN);
        items.push("...".to_owned());
    }
    format!("[{}]", items.join(", "))
}

/// A set of signals with its size, as pselect6 takes it.
pub fn sized_set(address: u64, memory: Memory) -> String {
    match memory.words::<2>(address) {
        Some([set, size]) => format!("{{sigmask={}, sigsetsize={size}}}", signal_set(set, memory)),
        None => pointer(address),
    }
}

/// stack_t.
pub fn stack(address: u64, memory: Memory) -> String {
    match memory.words::<3>(address) {
        Some([base, flags, size]) => format!(
            "{{ss_sp={}, ss_flags={}, ss_size={size}}}",
            pointer(base),
            bits(u64::from(flags as u32), names::STACK, "0")
        ),
        None => pointer(address),
    }
}

/// siginfo_t.
pub fn info(address: u64, memory: Memory) -> String {
    let bytes = memory.bytes(address, size_of::<libc::siginfo_t>());
    if bytes.len() < size_of::<libc::siginfo_t>() {
        return pointer(address);
    }
    // SAFETY: as many bytes as it has were read, and it is made of plain numbers, of which any is one.
    let info = unsafe { bytes.as_ptr().cast::<libc::siginfo_t>().read_unaligned() };
    if info.si_signo == 0 {
        return "{}".to_owned();
    }
    signals::describe(&info)
}

/// struct sigevent: by which signal, and how.
pub fn notification(address: u64, memory: Memory) -> String {
    let Some([value, how]) = memory.words::<2>(address) else {
        return pointer(address);
    };
    let (signal, how) = (how as u32 as i32, how >> 32);
    let value = match value {
        0 => String::new(),
        value => format!(
            "sigev_value={{sival_int={}, sival_ptr={}}}, ",
            int(value),
            pointer(value)
        ),
    };
    let (signal, how) = match how {
        0 => (signals::name(signal), "SIGEV_SIGNAL".to_owned()),
        1 => (signal.to_string(), "SIGEV_NONE".to_owned()),
        2 => (signal.to_string(), "SIGEV_THREAD".to_owned()),
        4 => (signals::name(signal), "SIGEV_THREAD_ID".to_owned()),
        other => (signal.to_string(), hex(other)),
    };
    format!("{{{value}sigev_signo={signal}, sigev_notify={how}}}")
}

/// struct rusage.
pub fn usage(address: u64, memory: Memory) -> String {
    match memory.words::<4>(address) {
        Some([a, b, c, d]) => format!("{{ru_utime={}, ru_stime={}, ...}}", timeval(a, b), timeval(c, d)),
        None => pointer(address),
    }
}

/// struct flock, as it is asked for.
pub fn lock(address: u64, memory: Memory) -> String {
    file_lock(address, memory, false)
}

/// struct flock, as it is answered: with who holds it.
pub fn held_lock(address: u64, memory: Memory) -> String {
    file_lock(address, memory, true)
}

fn file_lock(address: u64, memory: Memory, is_held: bool) -> String {
    let Some([kind, start, length, owner]) = memory.words::<4>(address) else {
        return pointer(address);
    };
    let owner = if is_held {
        format!(", l_pid={}", int(owner))
    } else {
        String::new()
    };
    format!(
        "{{l_type={}, l_whence={}, l_start={}, l_len={}{owner}}}",
        one((kind & 0xffff) as u32, names::LOCK_TYPE),
        one((kind >> 16 & 0xffff) as u32, names::WHENCE),
        start.cast_signed(),
        length.cast_signed()
    )
}

/// struct f_owner_ex.
pub fn owner(address: u64, memory: Memory) -> String {
    match memory.halves::<2>(address) {
        Some([kind, id]) => format!("{{type={}, pid={}}}", one(kind, names::OWNER), id as i32),
        None => pointer(address),
    }
}

/// Header of capget and capset.
pub fn capability_head(address: u64, memory: Memory) -> String {
    match memory.halves::<2>(address) {
        Some([version, pid]) => {
            let version = one(version, names::CAPABILITY_VERSION);
            format!("{{version={version}, pid={}}}", pid as i32)
        }
        None => pointer(address),
    }
}

/// Capabilities, of the versions that have two words for each set.
pub fn capabilities(address: u64, memory: Memory) -> String {
    let Some(halves) = memory.halves::<6>(address) else {
        return pointer(address);
    };
    let set = |at: usize| {
        let set = u64::from(halves[at]) | u64::from(halves[at + 3]) << 32;
        let names: Vec<String> = (0..64)
            .filter(|bit| set >> bit & 1 == 1)
            .map(|bit| format!("1<<{}", one(bit, names::CAPABILITY)))
            .collect();
        if names.is_empty() {
            "0".to_owned()
        } else {
            names.join("|")
        }
    };
    format!(
        "{{effective={}, permitted={}, inheritable={}}}",
        set(0),
        set(1),
        set(2)
    )
}

/// struct sched_attr.
pub fn scheduling(address: u64, memory: Memory) -> String {
    let Some([head, flags, nice, runtime, deadline, period]) = memory.words::<6>(address) else {
        return pointer(address);
    };
    let (nice, priority) = (nice as u32 as i32, nice >> 32);
    format!(
        "{{size={}, sched_policy={}, sched_flags={}, sched_nice={nice}, sched_priority={priority}, sched_runtime={runtime}, sched_deadline={deadline}, sched_period={period}}}",
        head as u32,
        one((head >> 32) as u32, names::SCHEDULER),
        hex(flags),
    )
}

/// struct statfs.
pub fn filesystem(address: u64, memory: Memory) -> String {
    let Some(
        [
            kind,
            block,
            blocks,
            free,
            available,
            files,
            free_files,
            id,
            name,
            fragment,
            flags,
        ],
    ) = memory.words::<11>(address)
    else {
        return pointer(address);
    };
    format!(
        "{{f_type={}, f_bsize={block}, f_blocks={blocks}, f_bfree={free}, f_bavail={available}, f_files={files}, f_ffree={free_files}, f_fsid={{val=[{}, {}]}}, f_namelen={name}, f_frsize={fragment}, f_flags={}}}",
        one(kind as u32, names::FILESYSTEM),
        hex(u64::from(id as u32)),
        hex(id >> 32),
        bits(flags, names::FILESYSTEM_FLAGS, "0")
    )
}

/// struct utsname.
pub fn system(address: u64, memory: Memory) -> String {
    const FIELD: usize = 65;
    let bytes = memory.bytes(address, 2 * FIELD);
    let (fields, _) = bytes.as_chunks::<FIELD>();
    let [system, node] = fields else {
        return pointer(address);
    };
    let [system, node] = [system, node].map(|field| {
        let end = field.iter().position(|byte| *byte == 0).unwrap_or(FIELD);
        quoted(&field[..end], false)
    });
    format!("{{sysname={system}, nodename={node}, ...}}")
}

/// struct sysinfo.
pub fn machine(address: u64, memory: Memory) -> String {
    let Some(words) = memory.words::<13>(address) else {
        return pointer(address);
    };
    let [
        uptime,
        a,
        b,
        c,
        total,
        free,
        shared,
        buffers,
        total_swap,
        free_swap,
        tasks,
        total_high,
        free_high,
    ] = words;
    let unit = memory
        .halves::<1>(address.saturating_add(104))
        .unwrap_or_default()[0];
    format!(
        "{{uptime={uptime}, loads=[{a}, {b}, {c}], totalram={total}, freeram={free}, sharedram={shared}, bufferram={buffers}, totalswap={total_swap}, freeswap={free_swap}, procs={}, totalhigh={total_high}, freehigh={free_high}, mem_unit={unit}}}",
        tasks & 0xffff
    )
}

/// struct tms.
pub fn ticks(address: u64, memory: Memory) -> String {
    match memory.words::<4>(address) {
        Some(words) => {
            let [user, system, users, systems] = words.map(|word| signals::ticks(word.cast_signed()));
            format!("{{tms_utime={user}, tms_stime={system}, tms_cutime={users}, tms_cstime={systems}}}")
        }
        None => pointer(address),
    }
}

/// struct clone_args of a length.
pub fn clone_args(address: u64, length: usize, memory: Memory) -> String {
    let Some([flags, pidfd, child, parent, signal, stack, size, tls]) =
        memory.words::<8>(address).filter(|_| length >= 64)
    else {
        return pointer(address);
    };
    let flag = |flag: i32| flags & u64::from(flag.cast_unsigned()) != 0;
    let mut text = format!("{{flags={}", bits(flags, names::CLONE, "0"));
    if flag(libc::CLONE_PIDFD) {
        text.push_str(&format!(", pidfd={}", pointer(pidfd)));
    }
    if flag(libc::CLONE_CHILD_SETTID | libc::CLONE_CHILD_CLEARTID) {
        text.push_str(&format!(", child_tid={}", pointer(child)));
    }
    if flag(libc::CLONE_PARENT_SETTID) {
        text.push_str(&format!(", parent_tid={}", pointer(parent)));
    }
    let signal = if signal == 0 {
        "0".to_owned()
    } else {
        signals::name(int(signal))
    };
    text.push_str(&format!(
        ", exit_signal={signal}, stack={}, stack_size={}",
        pointer(stack),
        hex(size)
    ));
    if flag(libc::CLONE_SETTLS) {
        text.push_str(&format!(", tls={}", pointer(tls)));
    }
    text + "}"
}

/// A program of a filter.
pub fn filter(address: u64, memory: Memory) -> String {
    match memory.words::<2>(address) {
        Some([length, code]) => format!("{{len={}, filter={}}}", length & 0xffff, pointer(code)),
        None => pointer(address),
    }
}

/// What is done to a semaphore of a set, several times.
pub fn semaphores(address: u64, count: usize, memory: Memory) -> String {
    list(count, address, |at| {
        let bytes = memory.bytes(address.checked_add(at * 6)?, 6);
        let (&[number, change, how], []) = bytes.as_chunks::<2>().0.split_first_chunk::<3>()? else {
            return None;
        };
        Some(format!(
            "{{sem_num={}, sem_op={}, sem_flg={}}}",
            u16::from_ne_bytes(number),
            i16::from_ne_bytes(change),
            bits(u16::from_ne_bytes(how).into(), names::SEM_FLAGS, "0")
        ))
    })
}

/// struct msgbuf with a text of a length.
pub fn message(address: u64, length: usize, memory: Memory) -> String {
    match memory.words::<1>(address) {
        Some([kind]) => format!(
            "{{mtype={}, mtext={}}}",
            kind.cast_signed(),
            super::text::buffer(address.saturating_add(8), length, memory)
        ),
        None => pointer(address),
    }
}

/// struct mq_attr.
pub fn queue(address: u64, memory: Memory) -> String {
    match memory.words::<4>(address) {
        Some([flags, most, size, now]) => format!(
            "{{mq_flags={}, mq_maxmsg={most}, mq_msgsize={size}, mq_curmsgs={now}}}",
            bits(flags, names::OPEN, "0")
        ),
        None => pointer(address),
    }
}

/// Attributes of names, each with its NUL.
pub fn attributes(address: u64, length: usize, memory: Memory) -> String {
    super::text::buffer(address, length, memory)
}

/// Bytes that mean nothing, each by its number.
pub fn random(address: u64, length: usize, memory: Memory) -> String {
    let bytes = memory.bytes(address, length.min(SHOWN));
    if address == 0 || bytes.len() < length.min(SHOWN) {
        return pointer(address);
    }
    let text: String = bytes.iter().map(|byte| format!("\\x{byte:02x}")).collect();
    let more = if length > SHOWN { "..." } else { "" };
    format!("\"{text}\"{more}")
}

/// A value that a socket's option is set to or has, by what its length is of.
pub fn option(address: u64, length: usize, memory: Memory) -> String {
    match length {
        4 => number(address, memory),
        // A pair of ints is shown by who knows which option it is.
        0..4 => pointer(address),
        _ => super::text::buffer(address, length, memory),
    }
}

/// The same, with the length where a pointer leads.
pub fn option_out(address: u64, length: usize, memory: Memory) -> String {
    match memory.halves::<1>(length as u64) {
        Some([length]) => option(address, length as usize, memory),
        None => pointer(address),
    }
}

/// struct linger.
pub fn linger(address: u64, memory: Memory) -> String {
    match memory.halves::<2>(address) {
        Some([on, seconds]) => format!("{{l_onoff={}, l_linger={}}}", on as i32, seconds as i32),
        None => pointer(address),
    }
}

/// struct ucred.
pub fn credentials(address: u64, memory: Memory) -> String {
    match memory.halves::<3>(address) {
        Some([pid, user, group]) => format!("{{pid={}, uid={user}, gid={group}}}", pid as i32),
        None => pointer(address),
    }
}

/// struct winsize.
pub fn window(address: u64, memory: Memory) -> String {
    match memory.words::<1>(address) {
        Some([word]) => {
            let [rows, columns, width, height] = [0, 16, 32, 48].map(|at| word >> at & 0xffff);
            format!("{{ws_row={rows}, ws_col={columns}, ws_xpixel={width}, ws_ypixel={height}}}")
        }
        None => pointer(address),
    }
}

/// struct msghdr, all of which is the sender's.
pub fn sent(address: u64, memory: Memory) -> String {
    header(address, None, memory)
}

/// struct msghdr that so many bytes were written to.
pub fn received(address: u64, count: usize, memory: Memory) -> String {
    header(address, Some(count), memory)
}

fn header(address: u64, filled: Option<usize>, memory: Memory) -> String {
    let Some([name, name_length, parts, count, control, control_length, flags]) = memory.words::<7>(address)
    else {
        return pointer(address);
    };
    let (name_length, count) = (name_length as u32, usize::try_from(count).unwrap_or(usize::MAX));
    let name = if name_length == 0 {
        pointer(name)
    } else {
        self::address(name, name_length as usize, memory)
    };
    let control = match (control, control_length) {
        (0, _) | (_, 0) => String::new(),
        _ => format!(", msg_control={}", controls(control, control_length, memory)),
    };
    format!(
        "{{msg_name={name}, msg_namelen={name_length}, msg_iov={}, msg_iovlen={count}{control}, msg_controllen={control_length}, msg_flags={}}}",
        vectors(parts, count, filled, memory),
        bits(u64::from(flags as u32), names::MESSAGE, "0")
    )
}

/// What goes along with a message.
fn controls(address: u64, length: u64, memory: Memory) -> String {
    const HEAD: u64 = 16;
    let (mut at, mut items) = (0u64, Vec::new());
    while at.saturating_add(HEAD) <= length && items.len() < SHOWN {
        let Some([size, kind]) = memory.words::<2>(address.saturating_add(at)) else {
            return pointer(address);
        };
        let (level, kind) = (kind as u32, (kind >> 32) as u32);
        let is_socket = level == libc::SOL_SOCKET.cast_unsigned();
        let shown = if is_socket {
            one(kind, names::CONTROL)
        } else {
            hex(kind.into())
        };
        let (data, bytes) = (address.saturating_add(at + HEAD), size.saturating_sub(HEAD));
        let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
        let data = match kind.cast_signed() {
            libc::SCM_RIGHTS if is_socket => numbers(data, bytes / 4, memory),
            libc::SCM_CREDENTIALS if is_socket => credentials(data, memory),
            _ => super::text::buffer(data, bytes, memory),
        };
        let level = one(level, names::LEVEL);
        items.push(format!(
            "{{cmsg_len={size}, cmsg_level={level}, cmsg_type={shown}, cmsg_data={data}}}"
        ));
        // One takes room, or this would never end.
        at = at.saturating_add(size.max(HEAD).saturating_add(7) & !7);
    }
    format!("[{}]", items.join(", "))
}

/// struct mmsghdr, several, to be sent.
pub fn sent_many(address: u64, count: usize, memory: Memory) -> String {
    list(count, address, |at| {
        let head = address.checked_add(at * 64)?;
        memory.words::<8>(head)?;
        Some(format!("{{msg_hdr={}}}", sent(head, memory)))
    })
}

/// struct mmsghdr, so many of which were received.
pub fn received_many(address: u64, count: usize, memory: Memory) -> String {
    list(count, address, |at| {
        let head = address.checked_add(at * 64)?;
        let words = memory.words::<8>(head)?;
        let length = words[7] as u32;
        Some(format!(
            "{{msg_hdr={}, msg_len={length}}}",
            received(head, length as usize, memory)
        ))
    })
}

/// struct iovec of another process, several.
pub fn remote_vectors(address: u64, count: usize, memory: Memory) -> String {
    list(count, address, |at| {
        let [base, length] = memory.words::<2>(address.checked_add(at * 16)?)?;
        Some(format!("{{iov_base={}, iov_len={length}}}", pointer(base)))
    })
}

/// Words of bits, as sets of memory's nodes have them.
pub fn nodes(address: u64, count: usize, memory: Memory) -> String {
    list(count.div_ceil(64), address, |at| {
        let [word] = memory.words::<1>(address.checked_add(at * 8)?)?;
        Some(format!("{word:#016x}"))
    })
}

/// The signals that are blocked once the handler has returned, in the frame that the kernel put on its stack.
pub fn returned_mask(stack: u64, memory: Memory) -> String {
    const MASK: u64 = if cfg!(target_arch = "x86_64") { 296 } else { 168 };
    match stack.checked_add(MASK).and_then(|at| memory.words::<1>(at)) {
        Some([mask]) => format!("{{mask={}}}", signal_bits(mask)),
        None => String::new(),
    }
}

/// struct iovec, all of them to be read.
pub fn all_vectors(address: u64, count: usize, memory: Memory) -> String {
    vectors(address, count, None, memory)
}

/// struct iovec, several; where `filled` is given, so many bytes of them mean something.
pub fn vectors(address: u64, count: usize, filled: Option<usize>, memory: Memory) -> String {
    if address == 0 {
        return pointer(address);
    }
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
    } else if libc::WIFCONTINUED(status) {
        "[{WIFCONTINUED(s)}]".to_owned()
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

/// struct epoll_event, several.
pub fn events(address: u64, count: usize, memory: Memory) -> String {
    let step = if cfg!(target_arch = "x86_64") { 12 } else { 16 };
    list(count, address, |at| {
        let at = address.checked_add(at * step)?;
        memory.bytes(at, 12).get(11).map(|_| event(at, memory))
    })
}

/// Entries of a folder in so many bytes, of which the number is shown.
pub fn entries(address: u64, bytes: usize, memory: Memory) -> String {
    const LENGTH: u64 = 16;
    let end = bytes as u64;
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
    if address == 0 {
        return pointer(address);
    }
    let mut items = Vec::new();
    for at in 0..count.min(SHOWN) as u64 {
        let Some([fd, events]) = memory.halves::<2>(address.saturating_add(at * 8)) else {
            return pointer(address);
        };
        let wanted = bits(u64::from(events & 0xffff), names::POLL, "0");
        let fd = fd as i32;
        items.push(if fd < 0 {
            format!("{{fd={fd}}}")
        } else {
            format!("{{fd={fd}, events={wanted}}}")
        });
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
        let asked = [3u32, 1 | 1 << 16, 4, 4];
        assert_eq!(
            polled(asked.as_ptr() as u64, 2, own()),
            "[{fd=3, events=POLLIN}, {fd=4, events=POLLOUT}]"
        );
        assert_eq!(ready(asked.as_ptr() as u64, 2, own()), "[{fd=3, revents=POLLIN}]");
        let fds = [0b110_0000u64, 0];
        assert_eq!(descriptors(fds.as_ptr() as u64, 6, own()), "[5]");
        assert_eq!(length([4u32].as_ptr() as u64, 16, own()), "[16 => 4]");
        let times = file_times([1u64, 0, 0, 0x3fff_fffe].as_ptr() as u64, own());
        // Whether that was in 1969 is the machine's.
        assert!(times.starts_with("[{tv_sec=1, tv_nsec=0} /* 19"), "{times}");
        assert!(times.ends_with(" */, UTIME_OMIT]"), "{times}");
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
    fn a_control_message_of_any_length_is_shown_and_is_the_last_where_it_is_the_longest() {
        let kind = u64::from(libc::SOL_SOCKET.cast_unsigned()) | 9 << 32;
        let list = [u64::MAX, kind, 16, kind];
        let shown = controls(list.as_ptr() as u64, 32, own());
        assert_eq!(shown.matches("cmsg_len=").count(), 1, "{shown}");
    }

    #[test]
    fn sets_of_signals_are_short() {
        assert_eq!(signal_bits(0), "[]");
        assert_eq!(signal_bits(1 << 16 | 1 << 1), "[INT CHLD]");
        assert_eq!(signal_bits(!(1 << 8)), "~[KILL]");
    }
}
