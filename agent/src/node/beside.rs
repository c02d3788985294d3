//! What is known of a window beside its counts, put together once for all models and for training: its sequences of calls,
//! and the rates of the windows before it.
//!
//! A window that is missing or too short leaves a gap, and what was before is forgotten. Nothing here belongs to a
//! model, so that a swap of models changes nothing.

use std::collections::BTreeMap;

use vigia_model::context::{Context, ORDER, Past};
use vigia_model::schema::Schema;

use crate::node::score::WindowKey;
use crate::probe::Sequence;
use crate::window::Closed;

const _: () = assert!(
    Sequence::CALLS as usize == ORDER,
    "a model looks at sequences as long as the probe's"
);

/// See the module's head.
#[derive(Debug, Default)]
pub struct Beside {
    context: Context,
    /// How busy the windows before were, and the age of the last of them.
    past: BTreeMap<WindowKey, (u32, Past)>,
}

impl Beside {
    /// Takes the next window of a container, and remembers how busy it was for the one after.
    pub fn observe(&mut self, closed: &Closed<WindowKey>) {
        // Borrowed first, since most windows have a window before.
        let (age, past) = match self.past.get_mut(&closed.key) {
            Some(known) => known,
            None => self.past.entry(closed.key.clone()).or_default(),
        };
        if closed.age != age.saturating_add(1) {
            *past = Past::default();
        }
        // All schemas have the same places.
        if let Some(schema) = Schema::all().last() {
            let sequences = closed.detail.sequences.iter();
            let counted = sequences.map(|(sequence, count)| (sequence.numbers(), *count));
            self.context.observe(schema, closed.window.arch, counted, past);
        }
        *age = closed.age;
        // A container's start is like nothing that comes after.
        if closed.age > 0 {
            past.push(&closed.window);
        }
    }

    /// What is known of the window that was taken last.
    pub const fn context(&self) -> &Context {
        &self.context
    }

    /// Forgets the windows of a container under a profile.
    pub fn forget(&mut self, key: &WindowKey) {
        self.past.remove(key);
    }

    /// Forgets what is no longer wanted.
    pub fn retain(&mut self, wanted: impl Fn(&WindowKey) -> bool) {
        self.past.retain(|key, _| wanted(key));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::containers::ContainerId;
    use crate::node::desired::Key;
    use crate::probe::Sequence;
    use crate::window::Detail;
    use vigia_model::schema::from_rate;
    use vigia_model::syscalls::Arch;
    use vigia_model::window::{Calls, Window};

    fn key(container: &str) -> WindowKey {
        WindowKey {
            container: ContainerId {
                pod_uid: "uid".to_owned(),
                id: container.to_owned(),
            },
            profile: Key {
                namespace: "shop".to_owned(),
                name: "redis".to_owned(),
            },
        }
    }

    fn closed(container: &str, age: u32, count: u64) -> Closed<WindowKey> {
        let call = Calls {
            nr: 0,
            count,
            errors: 0,
        };
        Closed {
            key: key(container),
            window: Window::new(Arch::X86_64, 0, 1000, [call]),
            detail: Detail {
                durations: vec![],
                sequences: [(Sequence::default().then(0).then(1), count)].into(),
            },
            partial: false,
            age,
            last: false,
        }
    }

    #[test]
    fn a_window_knows_its_sequences_and_the_windows_right_before() {
        let mut beside = Beside::default();
        for age in 0..4 {
            beside.observe(&closed("a", age, 10 + u64::from(age)));
            beside.observe(&closed("b", age, 99));
        }
        beside.observe(&closed("a", 4, 14));
        let rates = [13.0, 12.0, 11.0].map(from_rate);
        assert_eq!(beside.context().past(), rates);
        assert_eq!(beside.context().grams().len(), 1);
        assert_eq!(beside.context().grams()[0].count, 14);
    }

    #[test]
    fn what_was_before_a_gap_or_before_a_container_came_again_is_forgotten() {
        let mut beside = Beside::default();
        let mut past = |age| {
            beside.observe(&closed("a", age, 7));
            beside.context().past().len()
        };
        assert_eq!([0, 1, 2, 3].map(&mut past), [0, 0, 1, 2]);
        assert_eq!([5, 6, 0, 1, 2].map(&mut past), [0, 1, 0, 0, 1]);
        beside.forget(&key("a"));
        beside.observe(&closed("a", 3, 7));
        assert!(beside.context().past().is_empty());
        beside.retain(|_| false);
        assert!(beside.past.is_empty());
    }
}
