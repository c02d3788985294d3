//! What is kept for a while, of so many things at most: pure.
//!
//! Mostly it belongs to something that has left the plan and may come back. While the only pod of a profile on a node is
//! replaced, the profile leaves the node's plan for a second. What was forgotten then would be free for whoever can make a
//! pod end: a spent alert budget would be a full one again.

use std::collections::BTreeMap;
use std::time::Duration;

/// How long something is kept after it has left the plan.
pub const GRACE: Duration = Duration::from_secs(3600);
/// Things that are kept at once. Those that go first make room.
const MOST: usize = 1024;

/// Values, and until when each is kept, by the monotonic clock.
#[derive(Debug)]
pub struct Grace<K, V>(BTreeMap<K, (V, Duration)>);

impl<K, V> Default for Grace<K, V> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<K: Ord + Clone, V> Grace<K, V> {
    /// Keeps a value until then, as far as there is room.
    pub fn keep(&mut self, key: K, value: V, until: Duration) {
        self.0.insert(key, (value, until));
        while self.0.len() > MOST {
            let first = self.0.iter().min_by_key(|(_, (_, until))| *until);
            let Some(first) = first.map(|(key, _)| key.clone()) else {
                return;
            };
            self.0.remove(&first);
        }
    }

    /// The value of what is kept, as of the last turn.
    pub fn get(&self, key: &K) -> Option<&V> {
        self.0.get(key).map(|(value, _)| value)
    }

    /// What is kept, as of the last turn, in order.
    pub fn keys(&self) -> impl Iterator<Item = &K> {
        self.0.keys()
    }

    /// The value of what comes back, unless that comes too late.
    pub fn take(&mut self, key: &K, now: Duration) -> Option<V> {
        let (value, until) = self.0.remove(key)?;
        (now < until).then_some(value)
    }

    /// Forgets what has been kept for long enough.
    pub fn turn(&mut self, now: Duration) {
        self.0.retain(|_, (_, until)| now < *until);
    }

    /// What is kept, and how much longer.
    pub fn iter(&self, now: Duration) -> impl Iterator<Item = (&K, &V, Duration)> {
        let left = move |until: Duration| until.saturating_sub(now);
        let kept = self.0.iter().filter(move |(_, (_, until))| now < *until);
        kept.map(move |(key, (value, until))| (key, value, left(*until)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn what_comes_back_in_time_is_as_it_was() {
        let mut grace = Grace::default();
        for key in ["a", "b", "c"] {
            grace.keep(key, key.len(), at(100));
        }
        assert_eq!(grace.take(&"a", at(99)), Some(1));
        assert_eq!(grace.take(&"a", at(99)), None, "it is kept once");
        assert_eq!(grace.take(&"b", at(100)), None, "it is too late");
        assert_eq!(grace.iter(at(70)).collect::<Vec<_>>(), [(&"c", &1, at(30))]);
        assert_eq!(grace.iter(at(100)).count(), 0);
        grace.turn(at(100));
        assert!(grace.0.is_empty());
    }

    #[test]
    fn however_much_leaves_what_is_kept_is_bounded() {
        let mut grace = Grace::default();
        for number in 0..MOST as u64 + 10 {
            grace.keep(number, (), at(number));
        }
        assert_eq!(grace.0.len(), MOST);
        assert_eq!(grace.take(&9, at(0)), None, "the first to go made room");
        assert_eq!(grace.take(&10, at(0)), Some(()));
    }
}
