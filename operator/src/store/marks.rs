//! Up to which number the batches of each agent are stored, so that a batch whose answer was lost is stored once.
//!
//! Numbers count within an instance, a name that an agent chooses at each of its starts. Whoever has a node's token can
//! choose any number of them, so of a node only the [`MOST_OF_NODE`] that were heard of last are kept: a node pushes
//! out its own and nobody else's. What that leaves: a batch that comes again after so many other instances of its node
//! is stored, and its windows counted, a second time. An honest agent would have to start that often between sending a
//! batch and sending it again; a hostile one could as well have made up new windows.

use std::collections::HashMap;

use super::segment::Mark;

/// Instances of one node that are remembered.
const MOST_OF_NODE: usize = 32;
/// Marks of all nodes that are written down: those of 6,250 nodes that all have as many as they may.
const MOST: usize = 200_000;
/// Marks of agents that were not heard of for so long are forgotten.
const AGE_MS: i64 = 30 * 86_400_000;

/// What is remembered of an instance.
#[derive(Clone, Copy, Debug)]
struct Known {
    sequence: u64,
    seen_ms: i64,
}

/// High-water marks by node and instance.
#[derive(Debug, Default)]
pub(super) struct Marks(HashMap<String, HashMap<String, Known>>);

impl Marks {
    /// Takes in a mark, where it is not lower than what is known. It is kept, whatever its time says; an older one of the
    /// node may go for it.
    pub fn raise(&mut self, mark: &Mark) {
        let of_node = self.0.entry(mark.node.clone()).or_default();
        let new = Known {
            sequence: mark.sequence,
            seen_ms: mark.seen_ms,
        };
        if let Some(known) = of_node.get_mut(&mark.instance) {
            if known.sequence <= new.sequence {
                *known = new;
            }
            return;
        }
        if of_node.len() >= MOST_OF_NODE {
            let oldest = of_node.iter().min_by_key(|(name, known)| (known.seen_ms, *name));
            if let Some(oldest) = oldest.map(|(name, _)| name.clone()) {
                of_node.remove(&oldest);
            }
        }
        of_node.insert(mark.instance.clone(), new);
    }

    /// Up to which number the batches of an instance are stored; 0 where that is not known.
    pub fn sequence(&self, node: &str, instance: &str) -> u64 {
        let known = self.0.get(node).and_then(|of_node| of_node.get(instance));
        known.map_or(0, |known| known.sequence)
    }

    /// Forgets those that were not heard of for long, and the oldest of too many; the rest, sorted.
    pub fn settle(&mut self, now_ms: i64) -> Vec<Mark> {
        let mut after_ms = now_ms.saturating_sub(AGE_MS);
        let mut seen: Vec<i64> = self
            .0
            .values()
            .flat_map(HashMap::values)
            .map(|k| k.seen_ms)
            .collect();
        if seen.len() > MOST {
            let (_, least, _) = seen.select_nth_unstable_by(MOST, |a, b| b.cmp(a));
            after_ms = after_ms.max(*least);
        }
        self.0.retain(|_, of_node| {
            of_node.retain(|_, known| known.seen_ms > after_ms);
            !of_node.is_empty()
        });
        let marks = self.0.iter().flat_map(|(node, of_node)| {
            of_node.iter().map(|(instance, known)| Mark {
                node: node.clone(),
                instance: instance.clone(),
                sequence: known.sequence,
                seen_ms: known.seen_ms,
            })
        });
        let mut marks: Vec<Mark> = marks.collect();
        marks.sort_by(|a, b| (&a.node, &a.instance).cmp(&(&b.node, &b.instance)));
        marks
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(node: &str, instance: &str, sequence: u64, seen_ms: i64) -> Mark {
        Mark {
            node: node.into(),
            instance: instance.into(),
            sequence,
            seen_ms,
        }
    }

    #[test]
    fn one_node_cannot_fill_the_marks_nor_push_out_those_of_others() {
        let mut marks = Marks::default();
        marks.raise(&mark("honest", "a", 7, 0));
        for i in 0..10_000 {
            marks.raise(&mark("bad", &format!("i-{i}"), 1, i));
        }
        assert_eq!(marks.settle(10_000).len(), 1 + MOST_OF_NODE);
        assert_eq!(marks.sequence("honest", "a"), 7);
        let newest: Vec<i64> = (0..10_000)
            .filter(|i| marks.sequence("bad", &format!("i-{i}")) == 1)
            .collect();
        assert_eq!(newest, (10_000 - 32..10_000).collect::<Vec<_>>());
    }

    #[test]
    fn an_instance_that_is_heard_of_stays_and_never_goes_back() {
        let mut marks = Marks::default();
        for i in 0..10_000 {
            marks.raise(&mark("n", "mine", i, i.cast_signed()));
            marks.raise(&mark("n", &format!("i-{i}"), 1, i.cast_signed()));
        }
        marks.raise(&mark("n", "mine", 3, 20_000));
        assert_eq!(marks.sequence("n", "mine"), 9_999);
        // A clock that was ahead for a while keeps nobody out.
        for i in 0..40 {
            marks.raise(&mark("ahead", &format!("i-{i}"), 1, i64::MAX));
        }
        marks.raise(&mark("ahead", "now", 5, 20_001));
        assert_eq!(marks.sequence("ahead", "now"), 5);
    }

    #[test]
    fn what_was_not_heard_of_for_long_is_forgotten() {
        let mut marks = Marks::default();
        marks.raise(&mark("n", "old", 1, 0));
        marks.raise(&mark("n", "young", 1, 1));
        assert_eq!(marks.settle(AGE_MS), [mark("n", "young", 1, 1)]);
        assert_eq!(marks.sequence("n", "old"), 0);
        assert!(marks.settle(AGE_MS + 1).is_empty() && marks.0.is_empty());
    }

    #[test]
    fn however_many_nodes_there_are_what_is_written_can_be_read() {
        let mut marks = Marks::default();
        let (node, instance) = ("n".repeat(253), "i".repeat(64));
        for i in 0..MOST + 1000 {
            let at = i64::MAX - MOST as i64 * 2 + i as i64;
            marks.raise(&mark(&format!("{i:06}{}", &node[6..]), &instance, u64::MAX, at));
        }
        let checkpoint = crate::store::checkpoint::Checkpoint {
            through: u64::MAX,
            marks: marks.settle(i64::MAX),
        };
        assert_eq!(checkpoint.marks.len(), MOST);
        assert!(checkpoint.marks[0].node.starts_with("001000"), "the oldest go");
        let bytes = checkpoint.to_bytes();
        assert!(
            (bytes.len() as u64) < crate::store::MAX_FILE / 3,
            "{}",
            bytes.len()
        );
    }
}
