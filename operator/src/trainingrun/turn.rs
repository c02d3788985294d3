//! Whose turn it is to train. Each run that trains has pods beside the operator, where no quota of its own namespace
//! counts them, and a copy of its windows on the operator's volume; runs are made by whoever may edit any one namespace.
//! So only so many train at once, and the others wait.
//!
//! A run has a place from when its windows are chosen until it is over, by its phase, which outlives the operator. A place
//! that is free goes to the namespace that has the fewest of those that wait; among equals to the one that was not given
//! one for the longest (this operator remembers), and there to its oldest run. What a namespace has already it keeps, so
//! that nothing is ended for another. Every training ends by its timeout, so each namespace has its turn; who does not
//! ask for it (a run that cannot be written, for one) is passed over meanwhile.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;
use vigia_crds::{RunPhase, TrainingRun};

use super::reconcile::FINALIZER;

/// A run that has not asked for so long is passed over: they ask each [`super::reconcile::ASK`], or after a backoff.
const ASKS: SignedDuration = SignedDuration::from_secs(60);
/// So many runs are looked through in a millisecond at the most: of a flood of them each asks, and each may be deleted.
const RUNS_PER_MS: usize = 10;

/// A run that waits. Ordered by age.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Claim<'a> {
    created: Timestamp,
    namespace: &'a str,
    name: &'a str,
    uid: &'a str,
}

/// Those of the waiting who may train now, given the places that namespaces have and when each was given one last. Pure.
fn turns<'a>(
    mut places: HashMap<&'a str, usize>,
    served: &HashMap<String, Timestamp>,
    mut waiting: Vec<Claim<'a>>,
    most: usize,
) -> Vec<Claim<'a>> {
    let mut taken: usize = places.values().sum();
    if taken >= most {
        return Vec::new();
    }
    // The oldest last, where they are taken from.
    waiting.sort_unstable_by(|a, b| b.cmp(a));
    let mut queues: HashMap<&str, Vec<Claim<'a>>> = HashMap::new();
    for claim in waiting {
        queues.entry(claim.namespace).or_default().push(claim);
    }
    let mut chosen = vec![];
    while taken < most {
        let next = queues
            .iter_mut()
            .filter(|(_, queue)| !queue.is_empty())
            .min_by_key(|(namespace, queue)| {
                let has = places.get(**namespace).copied().unwrap_or(0);
                (has, served.get(**namespace).copied(), queue.last().copied())
            })
            .and_then(|(_, queue)| queue.pop());
        let Some(next) = next else { break };
        *places.entry(next.namespace).or_default() += 1;
        taken += 1;
        chosen.push(next);
    }
    chosen
}

/// What a run is doing about its turn.
enum State {
    /// It has a place.
    Placed,
    /// It wants one.
    Waits,
    /// It is over, or about to go.
    Done,
}

/// Whether a run has a place or wants one.
pub fn is_live(run: &TrainingRun) -> bool {
    !matches!(state(run), State::Done)
}

fn state(run: &TrainingRun) -> State {
    // Who holds a run that is deleted holds no place with it.
    if run.metadata.deletion_timestamp.is_some() && !run.finalizers().iter().any(|f| f == FINALIZER) {
        return State::Done;
    }
    match run.status.as_ref().and_then(|status| status.phase) {
        Some(RunPhase::Training | RunPhase::Validating | RunPhase::Signing) => State::Placed,
        Some(RunPhase::Succeeded | RunPhase::Failed) => State::Done,
        None | Some(RunPhase::Queued | RunPhase::Preparing) if run.metadata.deletion_timestamp.is_some() => {
            State::Done
        }
        None | Some(RunPhase::Queued | RunPhase::Preparing) => State::Waits,
    }
}

/// What this operator knows of a run beside its phase.
#[derive(Clone, Copy, Debug)]
struct Known {
    /// When it asked last whether it is its turn.
    asked: Timestamp,
    /// Its windows are chosen or being chosen, and no phase says so yet.
    is_placed: bool,
}

/// A run whose turn it is.
#[derive(Clone, Debug)]
struct Due {
    uid: String,
    namespace: String,
    name: String,
}

/// What this operator remembers.
#[derive(Debug, Default)]
struct Memory {
    /// Of runs, by uid; of those that are gone no more than of those there are.
    known: HashMap<String, Known>,
    /// When a namespace was given a place last.
    served: HashMap<String, Timestamp>,
    /// Whose turn it was at that time. They alone take places until it is worked out anew, so it never lets too many in.
    decided: Option<(Timestamp, Vec<Due>)>,
}

/// The runs on their way to the phase that holds their place.
#[derive(Debug)]
pub struct Turns {
    /// Until [`ASKS`] after it, a run that has not asked yet may just not have come to it.
    since: Timestamp,
    memory: Mutex<Memory>,
}

impl Turns {
    /// Of an operator that starts now.
    pub fn new(now: Timestamp) -> Self {
        Self {
            since: now,
            memory: Mutex::default(),
        }
    }

    /// Works out whose turn it is, of all runs there are, unless that was done a moment ago.
    fn decide<'a>(
        &self,
        memory: &'a mut Memory,
        runs: &[Arc<TrainingRun>],
        most: usize,
        now: Timestamp,
    ) -> &'a [Due] {
        let holds = SignedDuration::from_millis((runs.len() / RUNS_PER_MS).try_into().unwrap_or(i64::MAX));
        let is_fresh = |at: &Timestamp| *at <= now && now.duration_since(*at) < holds;
        if !memory.decided.as_ref().is_some_and(|(at, _)| is_fresh(at)) {
            let due = self.due(memory, runs, most, now);
            memory.decided = Some((now, due));
        }
        memory.decided.as_ref().map_or(&[], |(_, due)| due)
    }

    fn due(&self, memory: &mut Memory, runs: &[Arc<TrainingRun>], most: usize, now: Timestamp) -> Vec<Due> {
        if memory.known.len() > runs.len() {
            let there: HashSet<&str> = runs
                .iter()
                .filter_map(|run| run.metadata.uid.as_deref())
                .collect();
            memory.known.retain(|uid, _| there.contains(uid.as_str()));
        }
        let mut places: HashMap<&str, usize> = HashMap::new();
        let mut waiting = vec![];
        for run in runs {
            let metadata = &run.metadata;
            let namespace = metadata.namespace.as_deref().unwrap_or_default();
            let uid = metadata.uid.as_deref().unwrap_or_default();
            match state(run) {
                State::Done => {}
                State::Placed => *places.entry(namespace).or_default() += 1,
                State::Waits => {
                    let of_run = memory.known.get(uid);
                    if of_run.is_some_and(|of_run| of_run.is_placed) {
                        *places.entry(namespace).or_default() += 1;
                        continue;
                    }
                    let asked = of_run.map_or(self.since, |of_run| of_run.asked);
                    if now.duration_since(asked) < ASKS {
                        let created = metadata.creation_timestamp.as_ref();
                        waiting.push(Claim {
                            created: created.map_or(Timestamp::MAX, |t| t.0),
                            namespace,
                            name: metadata.name.as_deref().unwrap_or_default(),
                            uid,
                        });
                    }
                }
            }
        }
        turns(places, &memory.served, waiting, most)
            .into_iter()
            .map(|claim| Due {
                uid: claim.uid.to_owned(),
                namespace: claim.namespace.to_owned(),
                name: claim.name.to_owned(),
            })
            .collect()
    }

    /// Whether it is a run's turn, which it asks for by this. One that has its place keeps it.
    pub fn is_due(&self, uid: &str, runs: &[Arc<TrainingRun>], most: usize, now: Timestamp) -> bool {
        let mut memory = self.lock();
        let known = memory.known.entry(uid.to_owned()).or_insert(Known {
            asked: now,
            is_placed: false,
        });
        known.asked = now;
        known.is_placed
            || self
                .decide(&mut memory, runs, most, now)
                .iter()
                .any(|due| due.uid == uid)
    }

    /// Namespace and name of the runs whose turn it is.
    pub fn next(&self, runs: &[Arc<TrainingRun>], most: usize, now: Timestamp) -> Vec<(String, String)> {
        let mut memory = self.lock();
        let due = self.decide(&mut memory, runs, most, now).to_vec().into_iter();
        let begun = |due: &Due| memory.known.get(&due.uid).is_some_and(|of_run| of_run.is_placed);
        due.filter(|due| !begun(due))
            .map(|due| (due.namespace, due.name))
            .collect()
    }

    /// A run takes its place, which it has until it gives it up.
    pub fn begin<'a>(&'a self, uid: &'a str, runs: &[Arc<TrainingRun>], now: Timestamp) -> Place<'a> {
        let mut memory = self.lock();
        // Of the others their phase says it by now, or they are gone.
        let wait = runs.iter().filter(|run| matches!(state(run), State::Waits));
        let wait: HashMap<&str, &TrainingRun> = wait
            .filter_map(|run| Some((run.metadata.uid.as_deref()?, &**run)))
            .collect();
        memory.known.retain(|uid, _| wait.contains_key(uid.as_str()));
        let namespaces: HashSet<&str> = runs
            .iter()
            .filter_map(|run| run.metadata.namespace.as_deref())
            .collect();
        memory
            .served
            .retain(|namespace, _| namespaces.contains(namespace.as_str()));
        if let Some(namespace) = wait.get(uid).and_then(|run| run.metadata.namespace.clone()) {
            memory.served.insert(namespace, now);
        }
        let known = Known {
            asked: now,
            is_placed: true,
        };
        memory.known.insert(uid.to_owned(), known);
        Place {
            turns: self,
            uid,
            is_kept: false,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The place of a run whose windows are being chosen. Where that came to nothing, be it by a panic, it is given up: until
/// the run asks again, others have its turn.
#[derive(Debug)]
#[must_use]
pub struct Place<'a> {
    turns: &'a Turns,
    uid: &'a str,
    is_kept: bool,
}

impl Place<'_> {
    /// They are chosen: the run has its place until its phase says so.
    pub fn keep(mut self) {
        self.is_kept = true;
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if self.is_kept {
            return;
        }
        if let Some(known) = self.turns.lock().known.get_mut(self.uid) {
            known.is_placed = false;
            known.asked = Timestamp::MIN;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn claim(namespace: &'static str, name: impl Into<String>, created: i64) -> Claim<'static> {
        let name: &str = name.into().leak();
        Claim {
            created: at(created),
            namespace,
            name,
            uid: format!("{namespace}-{name}").leak(),
        }
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("a time")
    }

    fn names<'a>(claims: &[Claim<'a>]) -> Vec<&'a str> {
        claims.iter().map(|claim| claim.name).collect()
    }

    const NOBODY: [(&str, usize); 0] = [];

    fn go<'a>(
        places: impl IntoIterator<Item = (&'a str, usize)>,
        waiting: &[Claim<'a>],
        most: usize,
    ) -> Vec<&'a str> {
        names(&turns(
            places.into_iter().collect(),
            &HashMap::new(),
            waiting.to_vec(),
            most,
        ))
    }

    fn run(name: &str, created: i64, phase: Option<&str>, deleted: bool, held: bool) -> Arc<TrainingRun> {
        let at = |second| Timestamp::from_second(second).expect("a time").to_string();
        let mut run: TrainingRun = serde_json::from_value(json!({
            "apiVersion": "vigia.dev/v1alpha1", "kind": "TrainingRun",
            "metadata": {"name": name, "namespace": "shop", "uid": name, "creationTimestamp": at(created),
                         "finalizers": held.then_some([FINALIZER])},
            "spec": {"modelRef": {"name": "m"}}, "status": phase.map(|phase| json!({"phase": phase})),
        }))
        .expect("a TrainingRun");
        if deleted {
            run.metadata.deletion_timestamp = run.metadata.creation_timestamp.clone();
        }
        Arc::new(run)
    }

    #[test]
    fn the_oldest_go_first_and_no_more_than_there_are_places() {
        let waiting = [claim("a", "3", 3), claim("a", "1", 1), claim("b", "2", 2)];
        assert_eq!(go(NOBODY, &waiting, 2), ["1", "2"]);
        assert_eq!(go([("c", 1)], &waiting, 2), ["1"]);
        assert!(go([("c", 5)], &waiting, 2).is_empty());
    }

    #[test]
    fn a_namespace_that_asks_for_many_shares_with_those_that_ask_for_few() {
        let flood = (0..500).map(|i| claim("flood", format!("f{i:03}"), i));
        let mut waiting: Vec<Claim<'_>> = flood.collect();
        assert_eq!(go(NOBODY, &waiting, 4).len(), 4, "alone it may have all");
        waiting.push(claim("shop", "late", 9_999));
        assert_eq!(go(NOBODY, &waiting, 4), ["f000", "late", "f001", "f002"]);
        // It had all of them before the other came: the next one that is free is the other's.
        assert_eq!(go([("flood", 3)], &waiting, 4), ["late"]);
        waiting.push(claim("bank", "later", 10_000));
        assert_eq!(go([("flood", 1)], &waiting, 4), ["late", "later", "f000"]);
    }

    #[test]
    fn one_place_is_taken_in_turns() {
        let most = 1;
        let turns = Turns::new(at(0));
        let in_namespace = |namespace: &str, name: &str, created| {
            let mut run = Arc::unwrap_or_clone(run(name, created, Some("Preparing"), false, true));
            run.metadata.namespace = Some(namespace.to_owned());
            Arc::new(run)
        };
        let mut runs: Vec<_> = (0..6)
            .map(|i| in_namespace("flood", &format!("f{i}"), i))
            .collect();
        runs.extend((0..3).map(|i| in_namespace("also-flood", &format!("g{i}"), i)));
        runs.push(in_namespace("shop", "late", 50));
        let mut order = vec![];
        for second in 1..=5 {
            let next = turns.next(&runs, most, at(second));
            let [(_, name)] = &next[..] else {
                panic!("one at a time: {next:?}");
            };
            turns.begin(name, &runs, at(second)).keep();
            assert!(turns.next(&runs, most, at(second)).is_empty());
            runs.retain(|run| run.name_any() != *name);
            order.push(name.clone());
        }
        assert_eq!(order, ["g0", "f0", "late", "g1", "f1"]);
    }

    #[test]
    fn what_is_remembered_of_runs_is_no_more_than_there_are() {
        let turns = Turns::new(at(0));
        let holds = [run("holds", 1, Some("Training"), false, true)];
        for i in 0..10_000 {
            let name = format!("r{i}");
            let runs = [holds[0].clone(), run(&name, 2, Some("Preparing"), false, true)];
            assert!(!turns.is_due(&name, &runs, 1, at(3)));
        }
        assert!(turns.lock().known.len() <= 3);
    }

    #[test]
    fn a_flood_is_not_looked_through_for_each_that_asks() {
        let turns = Turns::new(at(0));
        let mut runs: Vec<_> = (0..5_000)
            .map(|i| run(&format!("r{i}"), i, Some("Preparing"), false, true))
            .collect();
        let ms = |ms: i64| at(1) + SignedDuration::from_millis(ms);
        let name = |next: Vec<(String, String)>| next.into_iter().map(|(_, name)| name).collect::<Vec<_>>();
        assert_eq!(name(turns.next(&runs, 1, ms(0))), ["r0"]);
        runs.remove(0);
        assert_eq!(name(turns.next(&runs, 1, ms(400))), ["r0"], "as it was decided");
        assert_eq!(name(turns.next(&runs, 1, ms(500))), ["r1"]);
        // A clock that goes back does not keep it so.
        runs.remove(0);
        assert_eq!(name(turns.next(&runs, 1, ms(0))), ["r2"]);
    }

    #[test]
    fn a_place_is_held_from_its_turn_until_the_run_is_over() {
        let now = at(100);
        let turns = Turns::new(now);
        let mut runs = vec![
            run("training", 1, Some("Training"), false, true),
            run("old", 2, Some("Preparing"), false, true),
            run("young", 3, None, false, false),
        ];
        let due = |turns: &Turns, runs: &[Arc<TrainingRun>]| -> Vec<String> {
            turns
                .next(runs, 2, now)
                .into_iter()
                .map(|(_, name)| name)
                .collect()
        };
        assert_eq!(due(&turns, &runs), ["old"]);
        assert!(turns.is_due("old", &runs, 2, now) && !turns.is_due("young", &runs, 2, now));
        // Its windows are chosen; no phase says so yet.
        turns.begin("old", &runs, now).keep();
        assert!(turns.is_due("old", &runs, 2, now));
        assert!(due(&turns, &runs).is_empty());
        runs[1] = run("old", 2, Some("Training"), false, true);
        assert!(due(&turns, &runs).is_empty());
        for over in ["Succeeded", "Failed"] {
            runs[0] = run("training", 1, Some(over), false, false);
            assert_eq!(due(&turns, &runs), ["young"]);
        }
        // Deleted, it has its place until its Job is gone; a finalizer of somebody else holds none.
        runs[0] = run("training", 1, Some("Training"), true, true);
        assert!(due(&turns, &runs).is_empty());
        runs[0] = run("training", 1, Some("Training"), true, false);
        assert_eq!(due(&turns, &runs), ["young"]);
        runs[2] = run("young", 3, Some("Preparing"), true, true);
        assert!(due(&turns, &runs).is_empty());
    }

    #[test]
    fn a_turn_that_came_to_nothing_is_given_up_be_it_by_a_panic() {
        let turns = Turns::new(at(0));
        let runs = [run("a", 1, Some("Preparing"), false, true)];
        for second in [5, 15] {
            let panics = std::panic::AssertUnwindSafe(|| {
                let _place = turns.begin("a", &runs, at(second));
                assert!(turns.is_due("a", &runs, 0, at(second)), "it has its place");
                panic!("its windows cannot be chosen");
            });
            std::panic::catch_unwind(panics).expect_err("panics");
            assert!(
                turns.next(&runs, 1, at(second + 1)).is_empty(),
                "until it asks again"
            );
            assert!(turns.is_due("a", &runs, 1, at(second + 1)));
        }
        turns.begin("a", &runs, at(20)).keep();
        assert!(turns.is_due("a", &runs, 0, at(21)), "it has its place");
        // What is gone is forgotten.
        turns.begin("b", &[], at(22)).keep();
        assert!(!turns.is_due("a", &runs, 0, at(23)));
    }

    #[test]
    fn who_does_not_ask_holds_nobody_up() {
        let turns = Turns::new(at(0));
        let runs = [
            run("stuck", 1, Some("Preparing"), false, true),
            run("asks", 2, Some("Preparing"), false, true),
        ];
        // The operator has just started: the older one may be about to.
        assert!(!turns.is_due("asks", &runs, 1, at(59)));
        assert!(turns.is_due("asks", &runs, 1, at(60)));
        assert!(turns.is_due("stuck", &runs, 1, at(61)) && !turns.is_due("asks", &runs, 1, at(61)));
    }

    proptest! {
        #[test]
        fn somebody_goes_while_there_is_room_and_never_too_many(
            most in 1usize..9, placed in prop::collection::vec(0usize..4, 0..4), waiting in prop::collection::vec((0usize..4, 0i64..9), 0..20),
        ) {
            let name = |i: usize| ["n0", "n1", "n2", "n3"][i];
            let places: HashMap<&str, usize> = placed.iter().enumerate().map(|(i, n)| (name(i), *n)).collect();
            let taken: usize = placed.iter().sum();
            let claims: Vec<Claim<'_>> = waiting.iter().enumerate().map(|(i, (of, at))| claim(name(*of), i.to_string(), *at)).collect();
            let chosen = turns(places.clone(), &HashMap::new(), claims.clone(), most);
            prop_assert_eq!(chosen.len(), claims.len().min(most.saturating_sub(taken)));
            let has = |of: &str| places.get(of).copied().unwrap_or(0) + chosen.iter().filter(|c| c.namespace == of).count();
            for of in chosen.iter().map(|claim| claim.namespace) {
                for left in claims.iter().filter(|claim| !chosen.contains(claim)) {
                    prop_assert!(has(of) <= has(left.namespace) + 1, "{} has {}, {} waits with {}", of, has(of), left.namespace, has(left.namespace));
                }
            }
        }
    }
}
