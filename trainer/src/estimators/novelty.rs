//! Which windows show what no other does: what [`Novelty`] is calibrated by, beside windows held out.
//!
//! A feature that one window of all has is one that one window of one shard has and no other shard. So a worker names
//! those of its shard, and with the sums of all shards it is seen which of them are alone on the whole.

use serde::{Deserialize, Serialize};
use vigia_model::deviation::Moments;
use vigia_model::estimators::novelty::Novelty;
use vigia_model::schema::{Feature, Schema};

use crate::data::Rows;

/// A feature that one window of a shard has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lone {
    /// Its place.
    pub feature: u16,
    /// The window's place in the shard.
    pub window: u32,
}

/// Features that one window of the shard has, by place.
pub fn lone(shard: &Rows) -> Vec<Lone> {
    let mut first = vec![(0u64, 0u32); shard.width()];
    for window in 0..shard.len() {
        for ((count, at), &x) in first.iter_mut().zip(shard.row(window)) {
            if x != 0.0 {
                *count += 1;
                *at = window as u32;
            }
        }
    }
    let lone = (0..).zip(first).filter(|(_, (count, _))| *count == 1);
    lone.map(|(feature, (_, window))| Lone { feature, window })
        .collect()
}

/// Whether these are features of a shard of so many windows that `sums` counts once, each named once.
pub fn is_valid(lone: &[Lone], sums: &Moments) -> bool {
    let once = |one: &Lone| sums.present.get(usize::from(one.feature)) == Some(&1);
    lone.windows(2).all(|two| two[0].feature < two[1].feature)
        && lone
            .iter()
            .all(|one| once(one) && u64::from(one.window) < sums.rows)
}

/// From sums of all shards, and what is lone in each.
pub fn fit<'a>(schema: &Schema, sums: &Moments, shards: impl Iterator<Item = &'a [Lone]>) -> Novelty {
    let features = schema.features();
    let counts = |one: &&Lone| {
        let feature = usize::from(one.feature);
        sums.present.get(feature) == Some(&1)
            && !matches!(
                features.get(feature),
                None | Some(Feature::Total | Feature::Distinct)
            )
    };
    let kinds = shards.flat_map(|shard| {
        let mut windows: Vec<u32> = shard.iter().filter(counts).map(|one| one.window).collect();
        windows.sort_unstable();
        let kinds: Vec<u64> = windows
            .chunk_by(|a, b| a == b)
            .map(|same| same.len() as u64)
            .collect();
        kinds
    });
    Novelty::learn(schema, sums, kinds)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::About;
    use crate::fit::moments;

    fn rows(windows: &[&[usize]]) -> Rows {
        let schema = Schema::syscalls_v1();
        let mut rows = Rows::new(schema);
        for places in windows {
            let mut row = vec![0.0; schema.width()];
            places.iter().for_each(|&place| row[place] = 1.0);
            row[schema.total()] = 2.0;
            rows.push(&row, About::default()).expect("a row");
        }
        rows
    }

    #[test]
    fn shards_say_together_what_the_whole_says() {
        // 7 is alone in both halves and in neither on the whole; 5 and 6 come together.
        let all: [&[usize]; 6] = [&[0, 1], &[0, 5, 6], &[0, 1, 7], &[0, 7], &[0, 9], &[0, 1]];
        let of = |parts: &[&[&[usize]]]| {
            let shards: Vec<Rows> = parts.iter().map(|part| rows(part)).collect();
            let lone: Vec<Vec<Lone>> = shards.iter().map(lone).collect();
            let mut sums = Moments::new(Schema::syscalls_v1().width());
            for (shard, lone) in shards.iter().zip(&lone) {
                let part = moments(shard).expect("finite");
                assert!(is_valid(lone, &part));
                sums.merge(&part).expect("one width");
            }
            fit(Schema::syscalls_v1(), &sums, lone.iter().map(Vec::as_slice))
        };
        let whole = of(&[&all]);
        assert_eq!((whole.windows, whole.alone, whole.beyond), (6, 2, 1));
        assert_eq!(of(&[&all[..3], &all[3..]]), whole);
        assert_eq!((whole.seen[5], whole.seen[7], whole.seen[4]), (1, 2, 0));
    }

    #[test]
    fn what_no_shard_can_have_said_is_refused() {
        let shard = rows(&[&[0, 1], &[0, 2]]);
        let (sums, said) = (moments(&shard).expect("finite"), lone(&shard));
        assert!(is_valid(&said, &sums));
        let with = |feature, window| is_valid(&[Lone { feature, window }], &sums);
        assert!(with(1, 0) && !with(0, 0) && !with(1, 2) && !with(u16::MAX, 0));
        assert!(!is_valid(&[said[0], said[0]], &sums));
    }
}
