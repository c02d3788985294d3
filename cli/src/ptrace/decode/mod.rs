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
    // Numbers as they are, where structures have another layout: by a name that is no call's.
    let name = if call.is_compat() {
        call.name()
    } else {
        name_of(Arch::NATIVE, call.nr())
    };
    signature::of(&name, &call.args)
}

/// How many arguments are shown.
pub fn count(call: &Call) -> usize {
    signature(call).args.len()
}

/// Arguments up to the first that is known at the end only.
pub fn at_entry(call: &Call, memory: Memory) -> Vec<String> {
    let signature = signature(call);
    signature
        .args
        .iter()
        .take_while(|arg| !arg.is_result())
        .enumerate()
        .map(|(at, arg)| show(*arg, at, call, memory, 0))
        .collect()
}

/// The arguments from `from` on, once the call has returned `value`.
pub fn at_exit(call: &Call, from: usize, memory: Memory, value: i64) -> Vec<String> {
    let signature = signature(call);
    signature
        .args
        .iter()
        .enumerate()
        .skip(from)
        .map(|(at, arg)| {
            if is_unwritten(*arg, value) {
                text::pointer(call.args[at])
            } else {
                show(*arg, at, call, memory, value)
            }
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

/// What comes after the equals sign.
pub fn result(call: &Call, value: i64) -> String {
    if (-4095..0).contains(&value) {
        return errno::describe(-value);
    }
    match signature(call).ret {
        Ret::Decimal => value.to_string(),
        Ret::Address => text::hex(value.cast_unsigned()),
        Ret::Octal => format!("0{value:o}"),
        Ret::OpenFlags => text::prefixed(value.cast_unsigned(), 16, flags::open),
    }
}

/// Bits of the low half, as C's int has them.
fn int(value: u64) -> i32 {
    value as u32 as i32
}

fn show(arg: Arg, at: usize, call: &Call, memory: Memory, result: i64) -> String {
    let value = call.args[at];
    let length = |at: usize| usize::try_from(call.args[at]).unwrap_or(usize::MAX);
    match arg {
        Arg::Int => int(value).to_string(),
        Arg::Unsigned => (value as u32).to_string(),
        Arg::Long => value.cast_signed().to_string(),
        Arg::Size => value.to_string(),
        Arg::Hex => text::hex(value),
        Arg::Pointer | Arg::PointerOut => text::pointer(value),
        Arg::Fd => int(value).to_string(),
        Arg::DirFd if int(value) == libc::AT_FDCWD => "AT_FDCWD".to_owned(),
        Arg::DirFd => int(value).to_string(),
        Arg::Path => text::path(value, memory),
        Arg::PathOut => match usize::try_from(result) {
            // The NUL of getcwd is counted, that of readlink is not there.
            Ok(size) if value != 0 => {
                let bytes = memory.bytes(value, size);
                text::quoted(bytes.strip_suffix(&[0]).unwrap_or(&bytes), false)
            }
            _ => text::pointer(value),
        },
        Arg::In(size) => text::buffer(value, length(size), memory),
        Arg::Out => text::buffer(value, usize::try_from(result).unwrap_or(0), memory),
        Arg::Open => flags::open(u64::from(value as u32)),
        Arg::Mode => format!("0{:0>3o}", value as u32 & 0o7777),
        Arg::Bits(table) => text::bits(u64::from(value as u32), table, "0"),
        Arg::BitsOr(table, none) => text::bits(u64::from(value as u32), table, none),
        Arg::One(table) => text::one(int(value).into(), table),
        Arg::Map => flags::map(value),
        Arg::Socket => flags::socket_type(value),
        Arg::Clone => flags::clone(value),
        Arg::Signal => signals::name(int(value)),
        Arg::Set => structs::signal_set(value, memory),
        Arg::SetOut => structs::signal_set(value, memory),
        Arg::Action | Arg::ActionOut => structs::action(value, memory),
        Arg::Strings => structs::strings(value, memory),
        Arg::Environment => structs::environment(value, memory),
        Arg::Stat => structs::stat(value, memory),
        Arg::Statx => structs::statx(value, memory),
        Arg::Time | Arg::TimeOut | Arg::Remaining => structs::time(value, memory),
        Arg::Address(size) => structs::address(value, length(size), memory),
        Arg::AddressOut(size) => structs::address_out(value, call.args[size], memory),
        Arg::IntPointer | Arg::IntOut => structs::number(value, memory),
        Arg::Vectors(count) => structs::vectors(value, length(count), None, memory),
        Arg::VectorsOut(count) => {
            structs::vectors(value, length(count), usize::try_from(result).ok(), memory)
        }
        Arg::Pair => structs::pair(value, memory),
        Arg::Status => structs::status(value, result, memory),
        Arg::Limit | Arg::LimitOut => structs::limit(value, memory),
        Arg::Polled(count) => structs::polled(value, length(count), memory),
        Arg::Device => structs::device(value),
        Arg::Node => structs::mode(value as u32),
        Arg::How => structs::how(value, memory),
        Arg::Event => structs::event(value, memory),
        Arg::AtStatx => flags::statx(value),
        Arg::Entries => structs::entries(value, result, memory),
        Arg::Futex => flags::futex(value),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

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
                let call = Call { number, args };
                let early = at_entry(&call, memory);
                let late = at_exit(&call, early.len(), memory, value);
                prop_assert_eq!(early.len() + late.len(), count(&call));
                prop_assert!(early.iter().chain(&late).all(|arg| arg.len() < 100_000));
                result(&call, value);
            }
        }
    }
}
