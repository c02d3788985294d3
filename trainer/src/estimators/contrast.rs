//! What a classifier needs and a normal workload never shows: windows that are not normal, made from those that are.
//!
//! - **Suspicious**: each feature drawn from another window, so that every rate is usual and their mixture is not
//!   (the synthetic class of Shi and Horvath, J. Comput. Graph. Stat. 15, 2006).
//! - **Malicious**: a normal window to which a few of the features are added that training saw the least of, most
//!   often never, as an intruder adds system calls to a container.
//!
//! They are as many as the normal ones together, and no recorded attack: a classifier trained on them learns the
//! border of what is normal, and what lies beyond it in these two ways. Who has recorded one gives its windows, which
//! are learnt beside those that are made up.

use vigia_model::estimators::table::Table;

use crate::data::Class;
use crate::forest::Draw;

/// Most normal rows that are looked at; half as many of each other class.
const ROWS: usize = 2_048;
/// Features added to a malicious row.
const ADDED: std::ops::RangeInclusive<usize> = 3..=8;
/// Share of the features that are added where training saw all of them.
const RAREST: usize = 4;

/// Rows, and the class of each: 0 normal, 1 suspicious, 2 malicious.
///
/// Beside what is made up of a class stand as many of its `labelled` windows, however few there are: each is taken as often
/// as another, or once more. Without the made-up ones a classifier would know that one attack, and be blind to all others.
pub fn contrast(normal: &Table, labelled: &[(Class, Table)], seed: u64) -> (Table, Vec<u8>) {
    let mut draw = Draw::new(seed, 1 << 46);
    let width = normal.width();
    let most = labelled.iter().map(|(_, rows)| 2 * rows.len()).max();
    let count = normal.len().max(most.unwrap_or(0)).min(ROWS);
    let mut values: Vec<f32> = Vec::with_capacity(2 * count * width);
    let mut classes = vec![0; count];
    spread(normal, count, &mut draw).for_each(|row| values.extend_from_slice(row));
    let (pool, most) = rare(normal);
    for i in 0..count {
        if i % 2 == 0 {
            values.extend((0..width).map(|j| normal.row(draw.below(normal.len()))[j]));
            classes.push(1);
            continue;
        }
        let mut row = normal.row(draw.below(normal.len())).to_vec();
        let count = ADDED.start() + draw.below(ADDED.end() - ADDED.start() + 1);
        for _ in 0..count {
            let feature = pool[draw.below(pool.len())];
            // From once in ten seconds to ten times a second, above what was ever seen.
            row[feature] = most[feature] + 0.7 + (3.9 * draw.unit()) as f32;
        }
        values.extend(row);
        classes.push(2);
    }
    for (class, rows) in labelled {
        for row in spread(rows, count.div_ceil(2), &mut draw) {
            values.extend_from_slice(row);
            classes.push(*class as u8);
        }
    }
    (Table::new(width, values), classes)
}

/// As many rows as are wanted: drawn where there are more, and else each as often as another, or once more.
fn spread<'a>(rows: &'a Table, count: usize, draw: &mut Draw) -> impl Iterator<Item = &'a [f32]> + use<'a> {
    let drawn = draw.sample(rows.len(), count);
    drawn
        .into_iter()
        .cycle()
        .take(count)
        .map(|i| rows.row(i as usize))
}

/// The features never seen, or the rarest quarter; and the largest value of each feature.
fn rare(rows: &Table) -> (Vec<usize>, Vec<f32>) {
    let width = rows.width();
    let (mut present, mut most) = (vec![0usize; width], vec![0f32; width]);
    for row in rows.rows() {
        for (j, &x) in row.iter().enumerate() {
            present[j] += usize::from(x != 0.0);
            most[j] = most[j].max(x);
        }
    }
    let mut pool: Vec<usize> = (0..width).collect();
    pool.sort_by_key(|&j| present[j]);
    let never = present.iter().filter(|&&n| n == 0).count();
    pool.truncate(never.max(width.div_ceil(RAREST)));
    (pool, most)
}
