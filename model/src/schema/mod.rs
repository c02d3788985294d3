//! From a window to numbers: versioned, hashed feature schemas.
//!
//! A schema turns a [`Window`] of any length and architecture into a vector of fixed width. It is named
//! (`vigia.syscalls.v1`) and has a canonical description whose SHA-256 every artifact carries, so that a
//! model is never fed vectors made by other rules than those it was trained on.
//!
//! `vigia.syscalls.v1` has, in this order:
//!
//! | features | value |
//! | --- | --- |
//! | one for each of [`GROUPS`] | rate of the group's calls |
//! | one for each [`Class`] | rate of the class's calls that no group names |
//! | one for each [`Class`] | rate of the class's calls that failed |
//! | total | rate of all calls |
//! | distinct | ln(1 + number of different system calls) |
//!
//! A rate of r calls a second enters as ln(1 + r / [`UNIT_RATE`]). The unit is one call in ten seconds, so
//! that a single `execve` in a window stands out (ln 2 = 0.69) while doubling a busy rate moves its feature
//! by the same 0.69, no more: calls that a container never makes matter more than load.
//!
//! A group folds the variants that libcs choose between (`open`, `openat`, `openat2`), so that glibc, musl,
//! x86_64 and aarch64 look alike. Which variant it was, [`Schema::dominant`] finds again for explanations.

mod groups;

pub use groups::GROUPS;
use groups::TELLING;

use crate::syscalls::{self, Arch, Class, MAX_NUMBER};
use crate::window::Window;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::fmt::{self, Write as _};
use std::sync::OnceLock;

/// The rate, in calls a second, that a feature is measured in.
pub const UNIT_RATE: f64 = 0.1;

/// Largest value of a feature: that of 2^64 calls a second.
pub const MAX_VALUE: f32 = 46.67;

/// Widest vector that any schema makes; scratch space is sized by it.
pub const MAX_FEATURES: usize = 128;

/// What one feature measures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Feature {
    /// Rate of one group of [`GROUPS`].
    Group(&'static [&'static str]),
    /// Rate of the calls of a class that no group names.
    Rest(Class),
    /// Rate of the calls of a class that failed.
    Errors(Class),
    /// Rate of all calls.
    Total,
    /// Number of different system calls.
    Distinct,
}

impl Feature {
    /// True where the feature is a rate that [`to_rate`] inverts.
    pub const fn is_rate(self) -> bool {
        !matches!(self, Self::Distinct)
    }
}

impl fmt::Display for Feature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Group(names) => f.write_str(names[0]),
            Self::Rest(class) => write!(f, "rest:{class}"),
            Self::Errors(class) => write!(f, "errors:{class}"),
            Self::Total => f.write_str("total"),
            Self::Distinct => f.write_str("distinct"),
        }
    }
}

/// The feature's value for a rate of `per_second` calls.
pub fn from_rate(per_second: f64) -> f32 {
    (per_second / UNIT_RATE).ln_1p() as f32
}

/// The rate, in calls a second, that gave a feature `value`.
pub fn to_rate(value: f32) -> f64 {
    f64::from(value).exp_m1() * UNIT_RATE
}

/// Whether some window has this value of a feature, or of a rate as features have it.
pub fn is_value(value: f32) -> bool {
    (0.0..=MAX_VALUE).contains(&value)
}

/// SHA-256 of a schema's canonical description.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SchemaHash(pub [u8; 32]);

impl fmt::Display for SchemaHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for SchemaHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Why a window gives no vector.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FeatureError {
    /// The window has no length, so it has no rates.
    #[error("the window has a length of zero")]
    NoDuration,
    /// The caller's slice does not fit the schema.
    #[error("the schema makes {expected} features, the slice holds {got}")]
    Width {
        /// Width of the schema.
        expected: usize,
        /// Width of the slice.
        got: usize,
    },
}

/// A way to turn windows into vectors. There is one static instance of each; see [`Schema::by_name`].
pub struct Schema {
    name: &'static str,
    features: Vec<Feature>,
    groups: usize,
    /// By feature; see [`Schema::telling`].
    telling: Vec<u8>,
    /// By architecture and number: the feature that counts the call, and the class.
    slots: [Box<[(u16, Class)]>; 2],
    description: String,
    hash: SchemaHash,
}

impl Schema {
    /// The schema that counts system calls.
    pub fn syscalls_v1() -> &'static Self {
        static SCHEMA: OnceLock<Schema> = OnceLock::new();
        SCHEMA.get_or_init(|| Self::build("vigia.syscalls.v1", GROUPS))
    }

    /// Every schema this build knows, newest last.
    pub fn all() -> impl Iterator<Item = &'static Self> {
        std::iter::once(Self::syscalls_v1())
    }

    /// The schema called `name`.
    pub fn by_name(name: &str) -> Option<&'static Self> {
        Self::all().find(|s| s.name == name)
    }

    /// The schema with this hash.
    pub fn by_hash(hash: SchemaHash) -> Option<&'static Self> {
        Self::all().find(|s| s.hash == hash)
    }

    fn build(name: &'static str, groups: &'static [&'static [&'static str]]) -> Self {
        let mut features: Vec<Feature> = groups.iter().map(|g| Feature::Group(g)).collect();
        features.extend(Class::ALL.map(Feature::Rest));
        features.extend(Class::ALL.map(Feature::Errors));
        features.push(Feature::Total);
        features.push(Feature::Distinct);
        assert!(
            features.len() <= MAX_FEATURES,
            "a schema is wider than the scratch space"
        );
        let telling = features.iter().map(|&f| telling(f)).collect();
        let slots = Arch::ALL.map(|arch| slots_of(arch, groups));
        let description = describe(name, groups);
        let hash = SchemaHash(Sha256::digest(description.as_bytes()).into());
        Self {
            name,
            features,
            groups: groups.len(),
            telling,
            slots,
            description,
            hash,
        }
    }

    /// The schema's name, version included.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// What artifacts carry to name these exact rules.
    pub fn hash(&self) -> SchemaHash {
        self.hash
    }

    /// Canonical text that [`Schema::hash`] is taken of.
    pub fn description(&self) -> &str {
        &self.description
    }

    /// Width of the vectors.
    pub fn width(&self) -> usize {
        self.features.len()
    }

    /// What each place of a vector means.
    pub fn features(&self) -> &[Feature] {
        &self.features
    }

    fn slot(&self, arch: Arch, nr: u32) -> (usize, Class) {
        let table = &self.slots[arch as usize];
        let (slot, class) = table
            .get(nr as usize)
            .or_else(|| table.get(syscalls::native(arch, nr) as usize))
            .copied()
            .unwrap_or(((self.groups + Class::Other as usize) as u16, Class::Other));
        (usize::from(slot), class)
    }

    /// The feature that counts calls of `nr`.
    pub fn feature_of(&self, arch: Arch, nr: u32) -> usize {
        self.slot(arch, nr).0
    }

    /// Place of the feature that counts failed calls of `class`.
    pub fn errors_of(&self, class: Class) -> usize {
        self.groups + Class::ALL.len() + class as usize
    }

    /// Place of the rate of all calls.
    pub fn total(&self) -> usize {
        self.features.len() - 2
    }

    /// How much the feature's system calls tell about an intruder, 0 for little. For the order of explanations
    /// only: no vector and no score depends on it.
    pub fn telling(&self, feature: usize) -> u8 {
        self.telling[feature]
    }

    /// Writes the window's vector into `out`, which is [`Schema::width`] long. Allocates nothing; every
    /// value is finite and not negative.
    ///
    /// # Errors
    /// A window without length, or a slice of another width.
    pub fn vector(&self, window: &Window, out: &mut [f32]) -> Result<(), FeatureError> {
        if out.len() != self.width() {
            return Err(FeatureError::Width {
                expected: self.width(),
                got: out.len(),
            });
        }
        if window.duration_ms == 0 {
            return Err(FeatureError::NoDuration);
        }
        let mut sums = [0u64; MAX_FEATURES];
        let (mut total, mut distinct) = (0u64, 0u64);
        for call in &window.calls {
            let (slot, class) = self.slot(window.arch, call.nr);
            sums[slot] = sums[slot].saturating_add(call.count);
            let errors = self.errors_of(class);
            sums[errors] = sums[errors].saturating_add(call.errors);
            total = total.saturating_add(call.count);
            distinct += u64::from(call.count > 0);
        }
        let seconds = window.seconds();
        let tail = self.width() - 2;
        for (value, &sum) in out[..tail].iter_mut().zip(&sums) {
            *value = if sum == 0 {
                0.0
            } else {
                from_rate(sum as f64 / seconds)
            };
        }
        out[tail] = from_rate(total as f64 / seconds);
        out[tail + 1] = (distinct as f64).ln_1p() as f32;
        Ok(())
    }

    /// The system call with the most calls (or, for an error feature, the most errors) among those that
    /// `feature` sums up in this window, with that number. Native, whichever ABI made the calls.
    pub fn dominant(&self, feature: usize, window: &Window) -> Option<(u32, u64)> {
        let weight = |call: &crate::window::Calls| {
            let (slot, class) = self.slot(window.arch, call.nr);
            match self.features[feature] {
                Feature::Group(_) | Feature::Rest(_) => (slot == feature).then_some(call.count),
                Feature::Errors(wanted) => (class == wanted).then_some(call.errors),
                Feature::Total | Feature::Distinct => Some(call.count),
            }
        };
        window
            .calls
            .iter()
            .filter_map(|c| {
                weight(c)
                    .filter(|&w| w > 0)
                    .map(|w| (syscalls::native(window.arch, c.nr), w))
            })
            .max_by_key(|&(nr, w)| (w, std::cmp::Reverse(nr)))
    }
}

impl fmt::Debug for Schema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Schema")
            .field("name", &self.name)
            .field("hash", &self.hash)
            .finish_non_exhaustive()
    }
}

fn telling(feature: Feature) -> u8 {
    let rank = |name| TELLING.iter().position(|&telling| telling == name);
    match feature {
        Feature::Group(names) => rank(names[0]).map_or(0, |rank| (TELLING.len() - rank) as u8),
        // What no group names is rare everywhere: module loading by other ways, keys, tracing.
        Feature::Rest(Class::Process) => TELLING.len() as u8,
        _ => 0,
    }
}

fn slots_of(arch: Arch, groups: &[&[&str]]) -> Box<[(u16, Class)]> {
    (0..MAX_NUMBER as u32)
        .map(|nr| {
            let class = syscalls::class_of(arch, nr);
            let group =
                syscalls::name(arch, nr).and_then(|name| groups.iter().position(|g| g.contains(&name)));
            let slot = group.unwrap_or(groups.len() + class as usize);
            (slot as u16, class)
        })
        .collect()
}

/// Everything that decides the meaning of a vector, as text: names, order, folding, classes and scale.
fn describe(name: &str, groups: &[&[&str]]) -> String {
    let mut text = format!("{name}\nrate ln(1+r/{UNIT_RATE})\ncount ln(1+n)\n");
    for group in groups {
        let _ = writeln!(text, "rate {}", group.join("|"));
    }
    for kind in ["rest", "errors"] {
        for class in Class::ALL {
            let _ = writeln!(text, "rate {kind} {class}");
        }
    }
    text.push_str("rate total\ncount distinct\n");
    let mut names: Vec<&str> = Arch::ALL
        .into_iter()
        .flat_map(|arch| syscalls::all(arch).map(|(_, n)| n))
        .collect();
    names.sort_unstable();
    names.dedup();
    // Names of class `other` are left out: a table that learns of a new system call changes no vector.
    for name in names {
        match syscalls::class(name) {
            Class::Other => {}
            class => {
                let _ = writeln!(text, "class {name} {class}");
            }
        }
    }
    text
}
