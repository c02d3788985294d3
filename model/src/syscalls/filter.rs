//! Which system calls a window is made of, by their names and classes.

use super::{Arch, Class, MAX_NUMBER, abi, class_of, name, native, number};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

/// A set of system calls of one architecture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    arch: Arch,
    words: [u64; MAX_NUMBER / 64],
    /// Numbers that no native call stands for.
    unknown: bool,
}

/// The text names neither a system call of any architecture nor a class.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is neither a system call nor a class: write a name as in man 2 syscalls, or one of file, network, process, \
     memory, ipc, signal, desc"
)]
pub struct UnknownCall(pub String);

impl Default for Filter {
    /// All of them.
    fn default() -> Self {
        Self {
            arch: Arch::NATIVE,
            words: [u64::MAX; MAX_NUMBER / 64],
            unknown: true,
        }
    }
}

/// The fingerprint of a filter that leaves out nothing.
pub const ALL_CALLS: &str = "all";

/// Hexadecimal digits of any other.
const FINGERPRINT: usize = 32;

/// Whether a text may be what [`Filter::fingerprint`] gave.
pub fn is_fingerprint(text: &str) -> bool {
    text.parse::<Fingerprint>().is_ok()
}

/// What [`Filter::fingerprint`] gave, small enough to stand beside each window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Fingerprint(Option<u128>);

/// The text is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("neither {ALL_CALLS:?} nor {FINGERPRINT} hexadecimal digits in lower case")]
pub struct NoFingerprint;

impl Fingerprint {
    /// Of a filter that leaves out nothing.
    pub const ALL: Self = Self(None);
}

impl FromStr for Fingerprint {
    type Err = NoFingerprint;

    fn from_str(text: &str) -> Result<Self, NoFingerprint> {
        let is_digit = |b| matches!(b, b'0'..=b'9' | b'a'..=b'f');
        match text {
            ALL_CALLS => Ok(Self::ALL),
            _ if text.len() == FINGERPRINT && text.bytes().all(is_digit) => u128::from_str_radix(text, 16)
                .map(|hash| Self(Some(hash)))
                .map_err(|_| NoFingerprint),
            _ => Err(NoFingerprint),
        }
    }
}

impl TryFrom<String> for Fingerprint {
    type Error = NoFingerprint;

    fn try_from(text: String) -> Result<Self, NoFingerprint> {
        text.parse()
    }
}

impl From<Fingerprint> for String {
    fn from(fingerprint: Fingerprint) -> Self {
        fingerprint.to_string()
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            None => f.write_str(ALL_CALLS),
            Some(hash) => write!(f, "{hash:0FINGERPRINT$x}"),
        }
    }
}

impl Filter {
    /// What tells windows made by these names from windows made by others: the same for every way to write the same calls,
    /// in whichever order and by names or by classes, and on every architecture. Windows of two fingerprints mean different
    /// things by the same rates.
    ///
    /// It is of the names that are left out, where none are named to be let in: a call that a later kernel adds does not
    /// change what was meant. Else it is of those that are let in.
    ///
    /// # Errors
    /// The first name that means nothing anywhere.
    pub fn fingerprint<S: AsRef<str>>(include: &[S], exclude: &[S]) -> Result<String, UnknownCall> {
        // As most profiles have it, and asked often.
        if include.is_empty() && exclude.is_empty() {
            return Ok(ALL_CALLS.to_owned());
        }
        let mut names = BTreeSet::new();
        for arch in Arch::ALL {
            let filter = Self::parse(arch, include, exclude)?;
            let told = super::all(arch).filter(|(nr, _)| filter.has_native(*nr) != include.is_empty());
            names.extend(told.map(|(_, name)| name));
        }
        if include.is_empty() && names.is_empty() {
            return Ok(ALL_CALLS.to_owned());
        }
        let mut hash = Sha256::new();
        hash.update([u8::from(include.is_empty())]);
        for name in names {
            hash.update(name);
            hash.update([0]);
        }
        let hash: [u8; 32] = hash.finalize().into();
        let mut text = String::with_capacity(FINGERPRINT);
        for byte in &hash[..FINGERPRINT / 2] {
            use std::fmt::Write as _;
            // Writing to a String cannot fail.
            let _ = write!(text, "{byte:02x}");
        }
        Ok(text)
    }

    /// What `include` names, or all where it names nothing, but for what `exclude` names. A call that `arch` lacks and
    /// another architecture has is passed over, so that one list serves a cluster of both.
    ///
    /// # Errors
    /// The first name that means nothing anywhere.
    pub fn parse<S: AsRef<str>>(arch: Arch, include: &[S], exclude: &[S]) -> Result<Self, UnknownCall> {
        let mut filter = Self {
            arch,
            ..Self::default()
        };
        if !include.is_empty() {
            filter.words = [0; MAX_NUMBER / 64];
            filter.unknown = false;
        }
        for (names, wanted) in [(include, true), (exclude, false)] {
            for name in names {
                filter.set(name.as_ref(), wanted)?;
            }
        }
        Ok(filter)
    }

    fn set(&mut self, text: &str, wanted: bool) -> Result<(), UnknownCall> {
        let arch = self.arch;
        if let Ok(class) = Class::from_str(text) {
            for nr in
                (0..MAX_NUMBER as u32).filter(|&nr| name(arch, nr).is_some() && class_of(arch, nr) == class)
            {
                self.put(nr, wanted);
            }
            return Ok(());
        }
        if Arch::ALL.iter().all(|&any| number(any, text).is_none()) {
            return Err(UnknownCall(text.to_owned()));
        }
        if let Some(nr) = number(arch, text) {
            self.put(nr, wanted);
        }
        Ok(())
    }

    fn put(&mut self, nr: u32, wanted: bool) {
        if let Some(word) = self.words.get_mut(nr as usize / 64) {
            let bit = 1 << (nr % 64);
            *word = if wanted { *word | bit } else { *word & !bit };
        }
    }

    /// Whether a window has calls of this number, by whichever ABI: one that may make any call of a class is had where
    /// some call of that class is.
    pub fn has(&self, nr: u32) -> bool {
        if let Some(class) = abi::multiplexed(self.arch, nr) {
            return (0..MAX_NUMBER as u32).any(|nr| class_of(self.arch, nr) == class && self.has_native(nr));
        }
        self.has_native(native(self.arch, nr))
    }

    fn has_native(&self, nr: u32) -> bool {
        self.words
            .get(nr as usize / 64)
            .map_or(self.unknown, |word| word >> (nr % 64) & 1 == 1)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{IA32, X32};
    use super::*;
    use proptest::prelude::*;

    fn filter(include: &[&str], exclude: &[&str]) -> Filter {
        Filter::parse(Arch::X86_64, include, exclude).expect("known names")
    }

    fn has(filter: &Filter, name: &str) -> bool {
        filter.has(number(Arch::X86_64, name).expect("a name"))
    }

    #[test]
    fn nothing_named_is_all_of_them() {
        let all = filter(&[], &[]);
        assert!((0..2000).chain([1 << 31, u32::MAX]).all(|nr| all.has(nr)));
    }

    fn fingerprint(include: &[&str], exclude: &[&str]) -> String {
        Filter::fingerprint(include, exclude).expect("known names")
    }

    #[test]
    fn a_fingerprint_is_of_what_is_let_in_and_not_of_how_it_is_written() {
        assert_eq!(fingerprint(&[], &[]), ALL_CALLS);
        let network: Vec<&str> = Arch::ALL
            .into_iter()
            .flat_map(super::super::all)
            .map(|(_, name)| name)
            .filter(|name| super::super::class(name) == Class::Network)
            .collect();
        assert_eq!(fingerprint(&["network"], &[]), fingerprint(&network, &[]));
        assert_eq!(
            fingerprint(&["read", "write"], &[]),
            fingerprint(&["write", "read", "read"], &[])
        );
        assert_eq!(
            fingerprint(&["read", "write"], &["write"]),
            fingerprint(&["read"], &[])
        );
        let all: BTreeSet<String> = [
            fingerprint(&[], &[]),
            fingerprint(&[], &["futex"]),
            fingerprint(&["futex"], &[]),
            fingerprint(&[], &["memory"]),
            fingerprint(&["memory"], &[]),
            fingerprint(&["memory"], &["mmap"]),
        ]
        .into();
        assert_eq!(all.len(), 6);
        for text in &all {
            assert!(is_fingerprint(text));
            let small: Fingerprint = text.parse().expect("a fingerprint");
            assert_eq!(
                (small.to_string(), small == Fingerprint::ALL),
                (text.clone(), text == ALL_CALLS)
            );
        }
        let zeros = "0".repeat(32);
        assert_eq!(zeros.parse().map(|f: Fingerprint| f.to_string()), Ok(zeros));
        for bad in [
            "",
            "ALL",
            "0123",
            &"g".repeat(32),
            &"A".repeat(32),
            &"0".repeat(33),
        ] {
            assert!(!is_fingerprint(bad), "{bad}");
        }
        assert!(Filter::fingerprint(&["raed"], &[]).is_err());
    }

    #[test]
    fn names_and_classes_are_taken_in_and_left_out() {
        let some = filter(&["network", "read"], &["connect"]);
        assert!(has(&some, "accept4") && has(&some, "read"));
        assert!(!has(&some, "connect") && !has(&some, "write") && !some.has(1 << 31));
        let most = filter(&[], &["futex", "desc"]);
        assert!(!has(&most, "futex") && !has(&most, "epoll_wait"));
        assert!(has(&most, "openat") && most.has(1 << 31));
    }

    #[test]
    fn another_abi_hides_no_call_and_brings_none_back() {
        let ia32 = |nr: u32| IA32 | nr;
        let some = filter(&["connect", "execve"], &[]);
        // connect, socketcall, execve; by x32, too
        assert!(
            [ia32(362), ia32(102), ia32(11), X32 | 42, X32 | 520]
                .iter()
                .all(|&nr| some.has(nr))
        );
        // read, ipc, vm86, and what is in no table
        assert!(
            [ia32(3), ia32(117), ia32(166), ia32(9999), X32 | 548]
                .iter()
                .all(|&nr| !some.has(nr))
        );
        let most = filter(&[], &["network", "futex"]);
        assert!(
            [ia32(362), ia32(102), ia32(240), ia32(422), X32 | 202]
                .iter()
                .all(|&nr| !most.has(nr))
        );
        assert!(
            [ia32(3), ia32(117), ia32(166), ia32(9999), X32 | 1]
                .iter()
                .all(|&nr| most.has(nr))
        );
        assert!(filter(&[], &["connect"]).has(ia32(102)), "it may be another call");
    }

    #[test]
    fn another_architectures_call_is_known_and_nonsense_is_named() {
        assert!(Filter::parse(Arch::Aarch64, &[], &["open", "fork"]).is_ok());
        let error = Filter::parse(Arch::X86_64, &["read"], &["raed"]).expect_err("no such call");
        assert!(error.to_string().contains("\"raed\""), "{error}");
    }

    proptest! {
        #[test]
        fn exclusion_wins_and_nothing_panics(include in proptest::collection::vec(0u32..600, 0..20), exclude in proptest::collection::vec(0u32..600, 0..20), any in any::<u32>()) {
            let names = |of: &[u32]| of.iter().filter_map(|&nr| name(Arch::X86_64, nr)).collect::<Vec<_>>();
            let (include, exclude) = (names(&include), names(&exclude));
            let filter = Filter::parse(Arch::X86_64, &include, &exclude).expect("known names");
            prop_assert!(exclude.iter().all(|name| !has(&filter, name)));
            prop_assert!(include.iter().all(|name| has(&filter, name) != exclude.contains(name)));
            let _ = filter.has(any);
        }
    }
}
