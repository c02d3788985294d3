//! A call's arguments and result as text, in strace's manner.
//!
//! What the kernel reads is decoded when the call begins, what it writes when it has returned. Everything comes from
//! the traced program and may be anything: reads are bounded, and what cannot be read is shown as its address.

pub mod errno;
mod flags;
mod names;
pub mod signals;
mod signature;
mod structs;
mod text;

use super::memory::Memory;
use super::watch::Call;
use crate::record::name_of;
use signature::{Arg, Ret, Signature};
use vigia_model::syscalls::Arch;

fn signature(call: &Call) -> Signature {
    let name = name_of(Arch::NATIVE, call.nr());
    let native = signature::of(&name, &call.args);
    if call.is_compat() {
        native.in_32_bits(&name)
    } else {
        native
    }
}

/// How many arguments are shown.
pub fn count(call: &Call) -> usize {
    signature(call).args.len()
}

/// What is known of a call's arguments when it begins.
#[derive(Debug, Default)]
pub struct Begun {
    /// Those that the kernel reads: it may write over them.
    given: Vec<Option<String>>,
    /// How long the caller said that the place for an answer is.
    room: Option<u32>,
}

impl Begun {
    /// Arguments up to the first that is known at the end only.
    pub fn first(&self) -> impl Iterator<Item = &str> {
        self.given.iter().map_while(Option::as_deref)
    }
}

/// What an argument is shown by.
struct Context<'a> {
    call: &'a Call,
    memory: Memory,
    result: i64,
    room: Option<u32>,
}

/// What the kernel reads, when it is about to.
pub fn at_entry(call: &Call, memory: Memory) -> Begun {
    let args = signature(call).args;
    let room = args.iter().position(|arg| matches!(arg, Arg::Length));
    let room = room.and_then(|at| memory.halves::<1>(call.args[at]));
    let room = room.map(|[room]| room);
    let context = Context {
        call,
        memory,
        result: 0,
        room,
    };
    let given = args.iter().enumerate();
    Begun {
        given: given
            .map(|(at, arg)| (!arg.is_result()).then(|| show(*arg, at, &context)))
            .collect(),
        room,
    }
}

/// All arguments, once the call has returned `value`. Where its begin was not seen, they are read now.
pub fn at_exit(call: &Call, begun: &Begun, memory: Memory, value: i64) -> Vec<String> {
    let context = Context {
        call,
        memory,
        result: value,
        room: begun.room,
    };
    let args = signature(call).args.iter().enumerate();
    args.map(|(at, arg)| match begun.given.get(at) {
        Some(Some(given)) => given.clone(),
        _ => show(*arg, at, &context),
    })
    .collect()
}

/// Whether the kernel has left it as it was.
fn is_unwritten(arg: Arg, result: i64) -> bool {
    // The kernel's own number for a sleep that is begun again if the signal has no handler.
    const RESTARTED: i64 = -516;
    match arg {
        Arg::Remaining => result != RESTARTED && result != -i64::from(libc::EINTR),
        _ => result < 0 && arg.is_result(),
    }
}

/// What comes after the equals sign: the number, and what that means where it says more than how many.
pub fn result(call: &Call, value: i64, memory: Memory) -> (String, Option<String>) {
    if (-4095..0).contains(&value) {
        return (errno::describe(-value), None);
    }
    let word = value.cast_unsigned();
    match signature(call).ret {
        Ret::Decimal => (value.to_string(), None),
        Ret::Hex => (text::hex(word), None),
        Ret::Octal => (text::octal(word), None),
        Ret::Named(name) => (value.to_string(), name(word)),
        Ret::HexNamed(name) => (text::hex(word), name(word)),
        Ret::Ready(ready) => (value.to_string(), ready(call, word, memory)),
    }
}

/// Bits of the low half, as C's int has them.
fn int(value: u64) -> i32 {
    value as u32 as i32
}

fn show(arg: Arg, at: usize, context: &Context<'_>) -> String {
    let Context {
        call,
        memory,
        result,
        room,
    } = *context;
    let value = call.args[at];
    let length = |at: usize| usize::try_from(call.args[at]).unwrap_or(usize::MAX);
    let written = usize::try_from(result).unwrap_or(0);
    match arg {
        // What was to be written, at least where.
        Arg::VectorsOut(count) if result < 0 => structs::remote_vectors(value, length(count), memory),
        Arg::Length => match room {
            Some(room) => structs::length(value, room, memory),
            None => text::pointer(value),
        },
        Arg::Named("", at, arg) => show(*arg, at, context),
        Arg::Named(name, at, arg) => format!("{name}={}", show(*arg, at, context)),
        _ if is_unwritten(arg, result) => text::pointer(value),
        Arg::Int | Arg::Fd => int(value).to_string(),
        Arg::Unsigned => (value as u32).to_string(),
        Arg::Long => value.cast_signed().to_string(),
        Arg::Size => value.to_string(),
        Arg::Hex => text::hex(value),
        Arg::Pointer | Arg::PointerOut => text::pointer(value),
        Arg::DirFd if int(value) == libc::AT_FDCWD => "AT_FDCWD".to_owned(),
        Arg::DirFd => int(value).to_string(),
        Arg::Path => text::path(value, memory),
        // The NUL of getcwd is counted, that of readlink is not there.
        Arg::PathOut if value != 0 => {
            let bytes = memory.bytes(value, written);
            text::quoted(bytes.strip_suffix(&[0]).unwrap_or(&bytes), false)
        }
        Arg::PathOut => text::pointer(value),
        Arg::In(size) => text::buffer(value, length(size), memory),
        Arg::Out => text::buffer(value, written, memory),
        Arg::Mode => text::octal(value & 0xffff),
        Arg::Bits(table) => text::bits(u64::from(value as u32), table, "0"),
        Arg::BitsOr(table, none) => text::bits(u64::from(value as u32), table, none),
        Arg::One(table) => text::one(value as u32, table),
        Arg::Word(show) => show(value),
        Arg::Given(show) | Arg::Written(show) => show(value, memory),
        Arg::GivenSome(show, count) | Arg::WrittenSome(show, count) => show(value, length(count), memory),
        Arg::WrittenBy(show) => show(value, written, memory),
        Arg::VectorsOut(count) => structs::vectors(value, length(count), Some(written), memory),
        Arg::Status => structs::status(value, result, memory),
        Arg::Remaining => structs::time(value, memory),
        Arg::Frame => structs::returned_mask(call.stack, memory),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_result_says_who_is_ready() {
        let polled = [3u32, 1 | 1 << 16];
        let call = Call {
            number: libc::SYS_ppoll.cast_unsigned(),
            args: [polled.as_ptr() as u64, 1, 0, 0, 8, 0],
            stack: 0,
        };
        let memory = Memory(std::process::id().cast_signed());
        let meaning = |value| result(&call, value, memory).1;
        assert_eq!(meaning(1).as_deref(), Some("[{fd=3, revents=POLLIN}]"));
        assert_eq!(meaning(0).as_deref(), Some("Timeout"));
        assert_eq!(meaning(-4), None);
    }

    /// Anything that a program may pass, with memory that is there and memory that is not.
    fn word() -> impl Strategy<Value = u64> {
        static THERE: [u64; 64] = [0x0101_0203_0000_0010; 64];
        prop_oneof![
            any::<u64>(),
            0u64..300,
            Just(u64::MAX),
            Just(THERE.as_ptr() as u64),
            (0u64..500).prop_map(|at| THERE.as_ptr() as u64 + at),
        ]
    }

    proptest! {
        #[test]
        fn anything_is_shown(number in prop_oneof![0u64..600, any::<u64>()], args: [u64; 6], words in proptest::array::uniform6(word()), value in prop_oneof![any::<i64>(), -600i64..600]) {
            let memory = Memory(std::process::id().cast_signed());
            for args in [args, words] {
                let call = Call { number, args, stack: words[0] };
                let early = at_entry(&call, memory);
                let late = at_exit(&call, &early, memory, value);
                prop_assert_eq!(late.len(), count(&call));
                prop_assert!(early.first().eq(late.iter().take(early.first().count())));
                prop_assert!(late.iter().all(|arg| arg.len() < 100_000));
                result(&call, value, memory);
            }
        }
    }
}
