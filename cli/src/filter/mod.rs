//! Which system calls are looked at: the grammar of `-e trace=SET`, as strace has it.
//!
//! ```text
//! expression := [ ("trace" | "t") "=" ] set
//! set        := ["!"] item { "," item }
//! item       := ["!"] ["?"] ( name | number | "%" class | class | "/" regex | "all" | "none" )
//! ```
//!
//! A `!` at the very front negates the whole set, as with strace; further on it takes one item away from those before
//! and after it. A `?` lets a name be unknown, so that one expression serves several kernels.

mod classes;

use std::fmt;

use regex::RegexBuilder;
use vigia_model::syscalls::{self, Arch, Fingerprint, MAX_NUMBER};

use classes::CLASSES;

/// Longest expression; every name there is, written out, is a third of it.
const MAX_LENGTH: usize = 16 << 10;
/// Bytes that a compiled regular expression may take.
const MAX_REGEX: usize = 1 << 20;
/// Further from any name than this, a guess at what was meant helps nobody.
const MAX_DISTANCE: usize = 3;
const WORDS: usize = MAX_NUMBER / 64;

/// A set of system calls of one architecture.
#[derive(Clone, PartialEq, Eq)]
pub struct Filter {
    arch: Arch,
    calls: [u64; WORDS],
    /// Calls that no native call stands for, and that have no name.
    nameless: bool,
}

/// What is wrong with an expression, and in which piece of it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FilterError {
    /// Too long to be meant.
    #[error("the expression has {0} bytes; {MAX_LENGTH} are the most")]
    TooLong(usize),
    /// Something that strace filters by, and that is not about names of system calls.
    #[error("{0:?} cannot be filtered by; write trace=SET")]
    Qualifier(String),
    /// Nothing between two commas, or after a sign.
    #[error("item {0} of the list is empty; names are separated by single commas")]
    Empty(usize),
    /// No such class.
    #[error("no class {piece:?} of system calls{}", Guess(.nearest))]
    Class {
        /// As it was written.
        piece: String,
        /// What may have been meant.
        nearest: Option<String>,
    },
    /// No such system call.
    #[error("no system call {piece:?} on {arch}{}", Guess(.nearest))]
    Name {
        /// As it was written.
        piece: String,
        /// Where it was looked for.
        arch: Arch,
        /// What may have been meant.
        nearest: Option<String>,
    },
    /// Not a regular expression, or one that is too large.
    #[error("the regular expression {piece:?} is wrong: {why}")]
    Regex {
        /// As it was written.
        piece: String,
        /// Why.
        why: String,
    },
}

struct Guess<'a>(&'a Option<String>);

impl fmt::Display for Guess<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(name) => write!(f, "; did you mean {name}?"),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let numbers = (0..MAX_NUMBER as u32).filter(|nr| self.has(*nr));
        f.debug_set().entries(numbers).finish()
    }
}

impl Default for Filter {
    /// Every system call.
    fn default() -> Self {
        Self::all(Arch::NATIVE)
    }
}

impl Filter {
    const fn all(arch: Arch) -> Self {
        Self {
            arch,
            calls: [u64::MAX; WORDS],
            nameless: true,
        }
    }

    const fn none(arch: Arch) -> Self {
        Self {
            arch,
            calls: [0; WORDS],
            nameless: false,
        }
    }

    /// Reads an expression.
    ///
    /// # Errors
    /// Names the piece that is wrong.
    pub fn parse(expression: &str, arch: Arch) -> Result<Self, FilterError> {
        if expression.len() > MAX_LENGTH {
            return Err(FilterError::TooLong(expression.len()));
        }
        let set = set_of(expression)?;
        let negated = set.starts_with('!');
        let set = set.strip_prefix('!').unwrap_or(set);
        let (mut wanted, mut unwanted) = (Self::none(arch), Self::none(arch));
        for (at, item) in (1..).zip(set.split(',')) {
            let bare = item.strip_prefix('!').unwrap_or(item);
            if bare.is_empty() {
                return Err(FilterError::Empty(at));
            }
            // What is within a negated whole is taken away, with a sign of its own or without.
            let into = if negated || bare.len() != item.len() {
                &mut unwanted
            } else {
                &mut wanted
            };
            into.add(bare, arch)?;
        }
        if negated {
            wanted = Self::all(arch);
        }
        wanted.remove(&unwanted);
        Ok(wanted)
    }

    /// Whether a system call is in the set, by whichever ABI it was made: as with a TraceProfile, the native call that does
    /// the same decides, and one that may make any call of a class is in where some call of that class is.
    pub fn has(&self, number: u32) -> bool {
        if let Some(class) = syscalls::multiplexed(self.arch, number) {
            let mut all = syscalls::all(self.arch);
            return all.any(|(nr, name)| syscalls::class(name) == class && self.has_native(nr));
        }
        self.has_native(syscalls::native(self.arch, number))
    }

    fn has_native(&self, number: u32) -> bool {
        match self.calls.get(number as usize / 64) {
            Some(word) => word >> (number % 64) & 1 == 1,
            None => self.nameless,
        }
    }

    /// The same as that of a TraceProfile that lets in the same calls by their names.
    pub fn fingerprint(&self, arch: Arch) -> Option<Fingerprint> {
        let names = |wanted| {
            let such = syscalls::all(arch).filter(move |(number, _)| self.has(*number) == wanted);
            such.map(|(_, name)| name).collect::<Vec<&str>>()
        };
        let named = names(true);
        // A list of no name lets everything in: a set of nothing is everything but all that there is.
        let (include, exclude) = if self.nameless || named.is_empty() {
            (vec![], names(false))
        } else {
            (named, vec![])
        };
        let text = syscalls::Filter::fingerprint(&include, &exclude).ok()?;
        text.parse().ok()
    }

    fn add(&mut self, item: &str, arch: Arch) -> Result<(), FilterError> {
        if let Some(regex) = item.strip_prefix('/') {
            return self.add_matching(item, regex, arch);
        }
        let (item, optional) = match item.strip_prefix('?') {
            Some(rest) => (rest, true),
            None => (item, false),
        };
        if let Some(class) = item.strip_prefix('%') {
            return match classes::members(class) {
                Some(members) => {
                    self.add_class(members, arch);
                    Ok(())
                }
                None if optional => Ok(()),
                None => Err(FilterError::Class {
                    piece: short(item),
                    nearest: nearest(class, CLASSES.iter().map(|(name, _)| *name)).map(|c| format!("%{c}")),
                }),
            };
        }
        match item {
            "all" => *self = Self::all(arch),
            "none" => {}
            // A name before the class of that name: `fstat` is one call, `%fstat` all that do the same.
            _ => match (number(item, arch), classes::members(item)) {
                (Some(number), _) => self.insert(number),
                (None, Some(members)) => self.add_class(members, arch),
                (None, None) if optional => {}
                (None, None) => {
                    let known = syscalls::all(arch).map(|(_, name)| name);
                    let words = CLASSES.iter().map(|(name, _)| *name).chain(["all", "none"]);
                    return Err(FilterError::Name {
                        piece: short(item),
                        arch,
                        nearest: nearest(item, known.chain(words)),
                    });
                }
            },
        }
        Ok(())
    }

    fn add_class(&mut self, members: &str, arch: Arch) {
        members
            .split_ascii_whitespace()
            .filter_map(|name| syscalls::number(arch, name))
            .for_each(|number| self.insert(number));
    }

    fn add_matching(&mut self, item: &str, regex: &str, arch: Arch) -> Result<(), FilterError> {
        let regex = RegexBuilder::new(regex)
            .size_limit(MAX_REGEX)
            .build()
            .map_err(|error| FilterError::Regex {
                piece: short(item),
                why: error.to_string().lines().last().unwrap_or_default().to_owned(),
            })?;
        syscalls::all(arch)
            .filter(|(_, name)| regex.is_match(name))
            .for_each(|(number, _)| self.insert(number));
        Ok(())
    }

    fn insert(&mut self, number: u32) {
        if let Some(word) = self.calls.get_mut(number as usize / 64) {
            *word |= 1 << (number % 64);
        }
    }

    fn remove(&mut self, other: &Self) {
        self.calls.iter_mut().zip(other.calls).for_each(|(a, b)| *a &= !b);
        self.nameless &= !other.nameless;
    }
}

/// The set without the word before it.
fn set_of(expression: &str) -> Result<&str, FilterError> {
    match expression.split_once('=') {
        Some(("trace" | "t", set)) => Ok(set),
        Some((word, _)) if word.bytes().all(|b| b.is_ascii_alphabetic()) => {
            Err(FilterError::Qualifier(short(word)))
        }
        _ => Ok(expression),
    }
}

/// A name, or a number that the architecture has a name for.
fn number(item: &str, arch: Arch) -> Option<u32> {
    syscalls::number(arch, item).or_else(|| {
        let number = item.parse().ok()?;
        syscalls::name(arch, number).map(|_| number)
    })
}

fn nearest<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> Option<String> {
    // A word much longer than any name is near none of them, and measuring how far would take its length squared.
    if word.len() > 40 {
        return None;
    }
    known
        .filter(|name| name.len().abs_diff(word.len()) <= MAX_DISTANCE)
        .map(|name| (strsim::osa_distance(word, name), name))
        .min()
        .filter(|(distance, _)| *distance <= MAX_DISTANCE && *distance < word.chars().count())
        .map(|(_, name)| name.to_owned())
}

/// What a message quotes: enough to find it by.
fn short(piece: &str) -> String {
    const MOST: usize = 60;
    match piece.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}…", &piece[..end]),
        None => piece.to_owned(),
    }
}

#[cfg(test)]
mod tests;
