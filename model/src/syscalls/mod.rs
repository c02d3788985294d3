//! System calls by name and number, and the classes people filter and read by.
//!
//! Numbers differ between architectures, names hardly do, so everything that outlives a node (schemas,
//! models, drivers of a verdict) speaks names and only a [`crate::window::Window`] speaks numbers. The
//! tables come from the `syscalls` crate, which generates them from the kernel's own `*.tbl` files.

mod abi;
mod class;
mod filter;

pub use abi::{IA32, X32, multiplexed, native};
pub use class::{Class, UnknownClass, class};
pub use filter::{ALL_CALLS, Filter, Fingerprint, NoFingerprint, UnknownCall, is_fingerprint};

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// The architecture whose numbers a window uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Arch {
    /// 64-bit x86. Calls by its other ABIs have numbers with [`IA32`] or [`X32`].
    X86_64,
    /// 64-bit Arm.
    Aarch64,
}

/// One past the largest number in any native table; larger numbers have no name, but see [`native`].
pub const MAX_NUMBER: usize = 512;

impl Arch {
    /// Both architectures.
    pub const ALL: [Self; 2] = [Self::X86_64, Self::Aarch64];

    /// The architecture this program was compiled for.
    #[cfg(target_arch = "x86_64")]
    pub const NATIVE: Self = Self::X86_64;
    /// The architecture this program was compiled for.
    #[cfg(target_arch = "aarch64")]
    pub const NATIVE: Self = Self::Aarch64;

    /// The architecture's name as Linux and Rust write it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64",
            Self::Aarch64 => "aarch64",
        }
    }
}

impl fmt::Display for Arch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Name of system call `number` on `arch`, where the table knows it.
pub fn name(arch: Arch, number: u32) -> Option<&'static str> {
    let number = number as usize;
    match arch {
        Arch::X86_64 => syscalls::x86_64::Sysno::new(number).map(|s| s.name()),
        Arch::Aarch64 => syscalls::aarch64::Sysno::new(number).map(|s| s.name()),
    }
}

/// Number of the system call called `name` on `arch`; `None` where that architecture lacks it.
pub fn number(arch: Arch, name: &str) -> Option<u32> {
    let id = match arch {
        Arch::X86_64 => syscalls::x86_64::Sysno::from_str(name).ok()?.id(),
        Arch::Aarch64 => syscalls::aarch64::Sysno::from_str(name).ok()?.id(),
    };
    u32::try_from(id).ok()
}

/// Every `(number, name)` of `arch`, by number.
pub fn all(arch: Arch) -> impl Iterator<Item = (u32, &'static str)> {
    (0..MAX_NUMBER as u32).filter_map(move |nr| name(arch, nr).map(|n| (nr, n)))
}

/// Class of system call `number` on `arch`; numbers without a name are [`Class::Other`].
pub fn class_of(arch: Arch, number: u32) -> Class {
    name(arch, number).map_or(Class::Other, class)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_the_kernels() {
        assert_eq!(number(Arch::X86_64, "read"), Some(0));
        assert_eq!(number(Arch::X86_64, "execve"), Some(59));
        assert_eq!(number(Arch::X86_64, "openat"), Some(257));
        assert_eq!(number(Arch::Aarch64, "read"), Some(63));
        assert_eq!(number(Arch::Aarch64, "execve"), Some(221));
        assert_eq!(number(Arch::Aarch64, "open"), None);
        assert_eq!(name(Arch::X86_64, 59), Some("execve"));
        assert_eq!(name(Arch::X86_64, 0x4000_0000), None);
    }

    #[test]
    fn names_and_numbers_are_one_to_one_and_fit_the_table() {
        for arch in Arch::ALL {
            let mut seen = 0;
            for (nr, name) in all(arch) {
                assert_eq!(number(arch, name), Some(nr), "{arch} {name}");
                seen += 1;
            }
            assert!(seen > 300, "{arch} has {seen} names");
            assert_eq!(name(arch, MAX_NUMBER as u32), None);
        }
    }

    #[test]
    fn every_class_has_members_on_both_architectures() {
        for arch in Arch::ALL {
            for class in Class::ALL {
                assert!(
                    all(arch).any(|(nr, _)| class_of(arch, nr) == class),
                    "{arch} {class}"
                );
            }
        }
    }

    #[test]
    fn class_names_parse_back() {
        for class in Class::ALL {
            assert_eq!(class.as_str().parse(), Ok(class));
        }
        assert!("files".parse::<Class>().is_err());
    }
}
