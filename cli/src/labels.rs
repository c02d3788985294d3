//! Windows of which the user says that they are not normal (`vigia train --suspicious --malicious`), held against those that
//! are: what is in both would teach classifiers nothing, and a filter that made one of them would be all that they learn.

use std::collections::BTreeSet;
use std::path::PathBuf;

use vigia_model::pipeline::EstimatorKind;
use vigia_trainer::data::{About, Class, Labelled, Rows, about_as_long};

use crate::args::Train;
use crate::error::Failure;
use crate::files::Given;
use crate::{input, say, train};

/// Fewest windows of a class that are held out, and half of the fewest that there may be.
const LEAST: usize = 5;

/// One in so many may be of another length.
const LATE: usize = 10;

/// Windows of one class, in the order of time.
pub struct Label {
    /// Which.
    pub class: Class,
    /// All of them.
    pub rows: Rows,
}

impl Label {
    /// Those to learn from, and those to validate on.
    pub fn parted(self, seed: u64) -> Labelled {
        let held = train::share(self.rows.len(), LEAST);
        let (taught, holdout) = self.rows.hold_out(held, seed);
        Labelled {
            class: self.class,
            taught,
            holdout,
        }
    }

    /// What there is to say where some are of another length than the normal ones.
    pub fn other_lengths(&self, normal: &Rows) -> Option<String> {
        let lengths = normal.lengths();
        let is_other = |about: &&About| !lengths.iter().any(|ms| about_as_long(*ms, about.window_ms));
        let others = self.rows.about().iter().filter(is_other).count();
        // One may be late on a busy machine.
        (others * LATE > self.rows.len()).then(|| {
            format!(
                "warning: {}: {} of another length than those of --input: what happens once is another rate in each; \
                 record all with one --window",
                option(self.class),
                say::windows(others)
            )
        })
    }
}

fn option(class: Class) -> String {
    format!("--{}", class.name())
}

fn paths(args: &Train, class: Class) -> &[PathBuf] {
    match class {
        Class::Suspicious => &args.suspicious,
        Class::Malicious => &args.malicious,
    }
}

/// The files of windows that are not normal.
pub fn files(args: &Train) -> impl Iterator<Item = Given<'_>> {
    let suspicious = args
        .suspicious
        .iter()
        .map(|path| ("--suspicious", path.as_path()));
    suspicious.chain(args.malicious.iter().map(|path| ("--malicious", path.as_path())))
}

/// Refuses windows from which no estimator would learn.
///
/// # Errors
/// Which.
pub fn can_be_learnt(args: &Train) -> Result<(), Failure> {
    let given = Class::ALL
        .into_iter()
        .find(|class| !paths(args, *class).is_empty());
    match given {
        Some(class) if !args.estimators.iter().any(|kind| kind.is_classifier()) => {
            let classifiers = EstimatorKind::ALL.iter().filter(|kind| kind.is_classifier());
            let names: Vec<&str> = classifiers.map(|kind| kind.as_str()).collect();
            Err(Failure::command_line(format!(
                "{}: no estimator of this model learns from windows that are not normal",
                option(class)
            ))
            .next(format!(
                "name a classifier in --estimator too: {}",
                names.join(" or ")
            )))
        }
        _ => Ok(()),
    }
}

/// Reads what there is of each class.
///
/// # Errors
/// What is wrong with the files; too few windows; such as are normal, or of another class, too; or of other calls.
pub fn read(args: &Train, normal: &Rows) -> Result<Vec<Label>, Failure> {
    let mut labels: Vec<Label> = Vec::new();
    for class in Class::ALL {
        let paths = paths(args, class);
        if paths.is_empty() {
            continue;
        }
        let rows = input::rows_beside(labels.last().map_or(normal, |label| &label.rows), paths)?;
        let name = option(class);
        if rows.len() < 2 * LEAST {
            return Err(Failure::input(format!(
                "{name}: {}, and at least {} are needed, of which half validate the model",
                say::windows(rows.len()),
                2 * LEAST
            ))
            .next("record it for longer, or with a shorter --window"));
        }
        let others = labels.iter().map(|label| (option(label.class), &label.rows));
        for (other, others) in std::iter::once(("--input".to_owned(), normal)).chain(others) {
            let both = shared(&rows, others);
            if both > 0 {
                return Err(Failure::input(format!(
                    "{name}: {} of {} are in {other} too",
                    both,
                    say::windows(rows.len())
                ))
                .next("a window has one class: leave it out of one of them"));
            }
        }
        let captures: BTreeSet<_> = normal.about().iter().map(|about| about.capture).collect();
        let is_other = |about: &&About| about.capture.is_some() && !captures.contains(&about.capture);
        let others = rows.about().iter().filter(is_other).count();
        if others > 0 && !captures.contains(&None) {
            return Err(Failure::input(format!(
                "{name}: {} of other system calls than those of --input (-e): what a filter left out would tell them apart",
                say::windows(others)
            ))
            .next("record both with the same -e"));
        }
        labels.push(Label { class, rows });
    }
    Ok(labels)
}

/// How many windows of `one` are in `other` too; both are in order.
fn shared(one: &Rows, other: &Rows) -> usize {
    let key = |about: &About| (about.started_ms, about.source, about.window_ms);
    let is_there = |i: &usize| {
        let wanted = key(&one.about()[*i]);
        let from = other.about().partition_point(|about| key(about) < wanted);
        let same = other.about()[from..]
            .iter()
            .take_while(|about| key(about) == wanted);
        same.zip(from..).any(|(_, j)| one.row(*i) == other.row(j))
    };
    (0..one.len()).filter(is_there).count()
}
