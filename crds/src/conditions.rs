//! Conditions as kstatus reads them: `Ready`, `Reconciling` and `Stalled`, beside a kind's own.
//!
//! kstatus calls an object current when its `observedGeneration` is its generation and neither
//! `Reconciling` nor `Stalled` is True, so both are kept in every status and never left out.
//! Source: the kstatus library of sigs.k8s.io/cli-utils and KEP-1623 (standard conditions).

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;

/// The object does what its spec says.
pub const READY: &str = "Ready";
/// The controller is on its way to what the spec says.
pub const RECONCILING: &str = "Reconciling";
/// The controller cannot go on until a person changes something.
pub const STALLED: &str = "Stalled";

/// What a controller wants a condition to say; the time of the last change is derived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The condition's type, for example [`READY`].
    pub type_: &'static str,
    /// True, False or Unknown.
    pub status: Option<bool>,
    /// One CamelCase word for scripts.
    pub reason: &'static str,
    /// A sentence for people: what is wrong, where, and what to do next.
    pub message: String,
}

impl Wanted {
    /// A condition with a status of True or False.
    pub fn new(type_: &'static str, status: bool, reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            type_,
            status: Some(status),
            reason,
            message: message.into(),
        }
    }

    /// A condition whose status is Unknown.
    pub fn unknown(type_: &'static str, reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            type_,
            status: None,
            reason,
            message: message.into(),
        }
    }
}

/// Longest message that is written; the API server refuses more than 32 KiB and people read less.
const MESSAGE_MAX: usize = 1024;

/// The next list of conditions: `wanted` laid over `current`.
///
/// A condition whose status does not change keeps its `lastTransitionTime`, so that laying the
/// same wishes twice gives equal lists and a no-op writes nothing. Types that are not wished for
/// are kept. Order is that of `current`, then of `wanted`.
pub fn apply(current: &[Condition], wanted: &[Wanted], generation: i64, now: Timestamp) -> Vec<Condition> {
    let mut next = current.to_vec();
    for want in wanted {
        let status = match want.status {
            Some(true) => "True",
            Some(false) => "False",
            None => "Unknown",
        };
        let mut message = want.message.clone();
        if message.len() > MESSAGE_MAX {
            let cut = (0..=MESSAGE_MAX - 3)
                .rev()
                .find(|&i| message.is_char_boundary(i))
                .unwrap_or(0);
            message.truncate(cut);
            message.push('…');
        }
        let old = next.iter().position(|c| c.type_ == want.type_);
        let since = match old {
            Some(i) if next[i].status == status => next[i].last_transition_time.clone(),
            _ => Time(now),
        };
        let condition = Condition {
            type_: want.type_.to_owned(),
            status: status.to_owned(),
            reason: want.reason.to_owned(),
            message,
            observed_generation: Some(generation),
            last_transition_time: since,
        };
        match old {
            Some(i) => next[i] = condition,
            None => next.push(condition),
        }
    }
    next
}

/// The condition of a type, where there is one.
pub fn find<'a>(conditions: &'a [Condition], type_: &str) -> Option<&'a Condition> {
    conditions.iter().find(|c| c.type_ == type_)
}

/// Whether the condition of a type is True.
pub fn is_true(conditions: &[Condition], type_: &str) -> bool {
    find(conditions, type_).is_some_and(|c| c.status == "True")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("a small number is a timestamp")
    }

    #[test]
    fn the_same_wish_twice_changes_nothing() {
        let wish = [Wanted::new(READY, true, "Traced", "3 pods traced")];
        let once = apply(&[], &wish, 1, at(10));
        assert_eq!(once, apply(&once, &wish, 1, at(20)));
    }

    #[test]
    fn a_change_of_status_moves_the_time_and_keeps_the_others() {
        let first = apply(
            &[],
            &[
                Wanted::new(READY, true, "A", ""),
                Wanted::new(STALLED, false, "B", ""),
            ],
            1,
            at(10),
        );
        let second = apply(&first, &[Wanted::new(READY, false, "C", "")], 2, at(20));
        assert_eq!(
            find(&second, READY).map(|c| c.last_transition_time.0),
            Some(at(20))
        );
        assert_eq!(
            find(&second, STALLED).map(|c| c.last_transition_time.0),
            Some(at(10))
        );
        assert!(!is_true(&second, READY));
    }

    #[test]
    fn long_messages_are_cut_between_characters() {
        let long = "é".repeat(2000);
        let cut = apply(&[], &[Wanted::new(READY, true, "A", long)], 1, at(1));
        assert!(cut[0].message.len() <= MESSAGE_MAX && cut[0].message.ends_with('…'));
    }
}
