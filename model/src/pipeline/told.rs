//! Sequences of calls that made a verdict, in words.
//!
//! A model knows places of a schema, not calls: `open` and `openat` are one, and so are all calls of a class that no group
//! names. Who is told of a sequence wants to know what ran. So each call bears the name that it had in the window, and
//! where the window is gone, or different calls had that place, the name of the place: a group's first call, or
//! `rest:process`.

use super::verdict::{UNKNOWN, rest_of};
use crate::context::{Gram, ORDER};
use crate::estimators::oddest::OddSequence;
use crate::schema::{Feature, Schema};
use crate::syscalls::{self, Arch};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::fmt;

/// Calls that came right after each other in one thread.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ToldSequence {
    /// Their names, the earliest first: two to [`ORDER`].
    pub calls: Vec<Cow<'static, str>>,
    /// Times that they came in the window.
    pub times: u32,
    /// Whether training saw them.
    pub seen: bool,
    /// −ln P of the last call after the others, in nats, where the estimator has such a thing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub surprise: Option<f32>,
}

impl fmt::Display for ToldSequence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.calls.join(" → "))?;
        match self.surprise {
            _ if !self.seen => f.write_str(" (never seen, ")?,
            Some(surprise) => write!(f, " (surprise {surprise:.1}, ")?,
            None => f.write_str(" (")?,
        }
        match self.times {
            1 => f.write_str("once)"),
            times => write!(f, "{times} times)"),
        }
    }
}

/// What the place of a call counts.
fn of_place(schema: &Schema, place: usize) -> &'static str {
    match schema.features().get(place) {
        Some(Feature::Group(names)) => names[0],
        Some(Feature::Rest(class)) => rest_of(*class),
        _ => UNKNOWN,
    }
}

/// The sequences with the names of those that ran.
pub(super) fn named(
    schema: &Schema,
    arch: Arch,
    odd: &[OddSequence],
    ran: impl IntoIterator<Item = impl IntoIterator<Item = u32>>,
) -> Vec<ToldSequence> {
    let mut names: Vec<Vec<Cow<'static, str>>> = vec![Vec::new(); odd.len()];
    let mut numbers = Vec::with_capacity(ORDER);
    for one in ran {
        numbers.clear();
        numbers.extend(one);
        // As the context does, which takes the latest.
        let latest = &numbers[numbers.len().saturating_sub(ORDER)..];
        let id = Gram::id_of(latest.iter().map(|&nr| schema.feature_of(arch, nr)));
        let Some(at) = odd.iter().position(|odd| odd.id == id) else {
            continue;
        };
        let name = |nr: u32| syscalls::name(arch, syscalls::native(arch, nr)).unwrap_or(UNKNOWN);
        let known = &mut names[at];
        if known.is_empty() {
            known.extend(latest.iter().map(|&nr| Cow::from(name(nr))));
            continue;
        }
        for (known, &nr) in known.iter_mut().zip(latest) {
            if *known != name(nr) {
                *known = of_place(schema, schema.feature_of(arch, nr)).into();
            }
        }
    }
    let told = odd.iter().zip(names).map(|(odd, mut calls)| {
        if calls.is_empty() {
            calls.extend(Gram::latest_first(odd.id).map(|place| Cow::from(of_place(schema, place))));
            calls.reverse();
        }
        ToldSequence {
            calls,
            times: odd.times,
            seen: odd.seen,
            surprise: odd.surprise,
        }
    });
    told.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::context::{Context, GramCounts, PLACES, Past};
    use crate::estimators::oddest::MAX_ODDEST;
    use crate::estimators::order::{Ngrams, Stide};
    use proptest::prelude::*;

    fn told(calls: &[&'static str], times: u32, seen: bool, surprise: Option<f32>) -> ToldSequence {
        ToldSequence {
            calls: calls.iter().map(|name| Cow::from(*name)).collect(),
            times,
            seen,
            surprise,
        }
    }

    fn numbers(calls: &[&str]) -> Vec<u32> {
        let number = |name| syscalls::number(Arch::X86_64, name).expect("a call");
        calls.iter().map(|name| number(name)).collect()
    }

    fn words(odd: &[&str], ran: &[&[&str]]) -> String {
        let schema = Schema::syscalls_v1();
        let places = numbers(odd)
            .into_iter()
            .map(|nr| schema.feature_of(Arch::X86_64, nr));
        let odd = OddSequence {
            id: Gram::id_of(places),
            times: 4,
            seen: false,
            surprise: None,
        };
        let ran = ran.iter().map(|calls| numbers(calls));
        let told = named(schema, Arch::X86_64, &[odd], ran);
        told[0].calls.join(">")
    }

    #[test]
    fn a_sequence_is_told_in_a_few_words() {
        let calls = ["clone", "execve", "brk"];
        for (told, words) in [
            (
                told(&calls, 4, false, None),
                "clone → execve → brk (never seen, 4 times)",
            ),
            (
                told(&calls, 1, false, Some(9.0)),
                "clone → execve → brk (never seen, once)",
            ),
            (
                told(&calls[1..], 2, true, Some(8.25)),
                "execve → brk (surprise 8.2, 2 times)",
            ),
            (told(&calls[1..], 2, true, None), "execve → brk (2 times)"),
        ] {
            assert_eq!(told.to_string(), words);
        }
    }

    #[test]
    fn calls_have_the_names_that_they_had_in_the_window() {
        let ran: &[&[&str]] = &[&["read", "write"], &["clone", "open", "setns"]];
        assert_eq!(words(&["clone", "open", "setns"], ran), "clone>open>setns");
        // Both are in the window, and one to the model.
        let both: &[&[&str]] = &[&["clone", "open", "setns"], &["clone", "openat", "setns"]];
        assert_eq!(words(&["clone", "open", "setns"], both), "clone>openat>setns");
        // Of a window that is gone there are only places.
        assert_eq!(words(&["clone", "open", "read"], &[]), "clone>openat>read");
        let schema = Schema::syscalls_v1();
        let rest = schema
            .features()
            .iter()
            .position(|f| matches!(f, Feature::Rest(_)));
        let rest = rest.expect("there is one");
        assert!(of_place(schema, rest).starts_with("rest:"));
        assert_eq!(of_place(schema, schema.total()), UNKNOWN);
        assert_eq!(of_place(schema, PLACES), UNKNOWN);
    }

    proptest! {
        #[test]
        fn whatever_ran_is_told_in_bounds(
            trained in prop::collection::btree_map(prop::collection::vec(0..PLACES, 2..=ORDER).prop_map(Gram::id_of), 1u64.., 1..40),
            ran in prop::collection::vec((prop::collection::vec(prop_oneof![0u32..520, any::<u32>()], 0..9), any::<u64>()), 0..80),
            vector_alone in any::<bool>(),
        ) {
            let schema = Schema::syscalls_v1();
            let counts = GramCounts { seen: trained.into_iter().collect() };
            let mut context = Context::default();
            let counted = || ran.iter().map(|(numbers, count)| (numbers.iter().copied(), *count));
            context.observe(schema, Arch::X86_64, counted(), &Past::default());
            let ngrams = Ngrams::new(&counts).expect("fits").oddest(&context);
            let stide = Stide::new(&counts).expect("fits").oddest(&context);
            prop_assert_eq!(ngrams.is_empty(), context.grams().is_empty());
            for odd in [ngrams, stide] {
                let names = counted().map(|(numbers, _)| numbers).filter(|_| !vector_alone);
                let told = named(schema, Arch::X86_64, &odd, names);
                prop_assert!(told.len() == odd.len() && told.len() <= MAX_ODDEST);
                for one in told {
                    prop_assert!((2..=ORDER).contains(&one.calls.len()));
                    prop_assert!(one.calls.iter().all(|name| (1..=32).contains(&name.len())));
                    prop_assert!(one.to_string().len() <= 250);
                }
            }
        }
    }
}
