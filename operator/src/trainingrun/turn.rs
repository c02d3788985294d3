//! Whose turn it is to train. Each run that trains has pods beside the operator, where no quota of its own namespace
//! counts them, and a copy of its windows on the operator's volume; runs are made by whoever may edit any one namespace.
//! So only so many train at once, and the others wait, the oldest first.
//!
//! A run has a place from when its windows are chosen until it is over, by its phase, which outlives the operator. No
//! namespace gets more than half of the places while another one waits; what it has already it keeps, so that nothing is
//! ended for it. Every training ends by its timeout, so each who waits has its turn; who does not ask for it (a run
//! that cannot be written, for one) is passed over meanwhile.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;
use vigia_crds::{RunPhase, TrainingRun};

use super::reconcile::FINALIZER;

/// A run that has not asked for so long is passed over: they ask each [`super::reconcile::ASK`], or after a backoff.
const ASKS: SignedDuration = SignedDuration::from_secs(60);

/// A run, as far as turns go.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Claim {
    created: Timestamp,
    namespace: String,
    name: String,
    uid: String,
}

/// Those of the waiting who may train now. Pure.
fn turns(mut places: HashMap<String, usize>, waiting: Vec<Claim>, most: usize) -> Vec<Claim> {
    let half = most.div_ceil(2);
    let mut queue: BinaryHeap<Reverse<Claim>> = waiting.into_iter().map(Reverse).collect();
    // Those whose namespace has its half, by age: theirs is what nobody else waits for.
    let mut over = VecDeque::new();
    let mut taken: usize = places.values().sum();
    let mut chosen = vec![];
    while taken < most {
        let next = match queue.pop() {
            Some(Reverse(claim)) if places.get(&claim.namespace).is_some_and(|&has| has >= half) => {
                over.push_back(claim);
                continue;
            }
            Some(Reverse(claim)) => claim,
            None => match over.pop_front() {
                Some(claim) => claim,
                None => break,
            },
        };
        *places.entry(next.namespace.clone()).or_default() += 1;
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
        None | Some(RunPhase::Preparing) if run.metadata.deletion_timestamp.is_some() => State::Done,
        None | Some(RunPhase::Preparing) => State::Waits,
    }
}

/// What this operator knows of a run beside its phase.
#[derive(Clone, Copy, Debug)]
struct Known {
    /// When it asked last whether it is its turn.
    asked: Timestamp,
    /// When it had its turn first.
    begun: Option<Timestamp>,
    /// Its windows are chosen or being chosen, and no phase says so yet.
    is_placed: bool,
}

/// The runs on their way to the phase that holds their place.
#[derive(Debug)]
pub struct Turns {
    /// Until [`ASKS`] after it, a run that has not asked yet may just not have come to it.
    since: Timestamp,
    known: Mutex<HashMap<String, Known>>,
}

impl Turns {
    /// Of an operator that starts now.
    pub fn new(now: Timestamp) -> Self {
        Self {
            since: now,
            known: Mutex::default(),
        }
    }

    /// The runs whose turn it is, of all there are.
    fn due(&self, runs: &[Arc<TrainingRun>], most: usize, now: Timestamp) -> Vec<Claim> {
        let known = self.lock();
        let mut places: HashMap<String, usize> = HashMap::new();
        let mut waiting = vec![];
        for run in runs {
            let (namespace, uid) = (run.namespace().unwrap_or_default(), run.uid().unwrap_or_default());
            let of_run = known.get(&uid);
            match state(run) {
                State::Waits if !of_run.is_some_and(|of_run| of_run.is_placed) => {
                    let asked = of_run.map_or(self.since, |of_run| of_run.asked);
                    if now.duration_since(asked) < ASKS {
                        waiting.push(Claim {
                            created: run
                                .metadata
                                .creation_timestamp
                                .as_ref()
                                .map_or(Timestamp::MAX, |t| t.0),
                            namespace,
                            name: run.name_any(),
                            uid,
                        });
                    }
                }
                State::Placed | State::Waits => *places.entry(namespace).or_default() += 1,
                State::Done => {}
            }
        }
        drop(known);
        turns(places, waiting, most)
    }

    /// Whether it is a run's turn, which it asks for by this. One that has its place keeps it.
    pub fn is_due(&self, uid: &str, runs: &[Arc<TrainingRun>], most: usize, now: Timestamp) -> bool {
        let is_placed = {
            let mut all = self.lock();
            let known = all.entry(uid.to_owned()).or_insert(Known {
                asked: now,
                begun: None,
                is_placed: false,
            });
            known.asked = now;
            known.is_placed
        };
        is_placed || self.due(runs, most, now).iter().any(|claim| claim.uid == uid)
    }

    /// Namespace and name of the runs whose turn it is.
    pub fn next(&self, runs: &[Arc<TrainingRun>], most: usize, now: Timestamp) -> Vec<(String, String)> {
        let due = self.due(runs, most, now).into_iter();
        due.map(|claim| (claim.namespace, claim.name)).collect()
    }

    /// A run takes its place; the time when it did so first.
    pub fn begin(&self, uid: &str, runs: &[Arc<TrainingRun>], now: Timestamp) -> Timestamp {
        let mut all = self.lock();
        // Of the others their phase says it by now, or they are gone.
        let wait = runs.iter().filter(|run| matches!(state(run), State::Waits));
        let wait: HashSet<&str> = wait.filter_map(|run| run.metadata.uid.as_deref()).collect();
        all.retain(|uid, _| wait.contains(uid.as_str()));
        let known = all.entry(uid.to_owned()).or_insert(Known {
            asked: now,
            begun: None,
            is_placed: true,
        });
        known.is_placed = true;
        *known.begun.get_or_insert(now)
    }

    /// Its windows could not be chosen now: it waits for another turn.
    pub fn give_up(&self, uid: &str) {
        if let Some(known) = self.lock().get_mut(uid) {
            known.is_placed = false;
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn claim(namespace: &str, name: &str, created: i64) -> Claim {
        Claim {
            created: Timestamp::from_second(created).expect("a time"),
            namespace: namespace.into(),
            name: name.into(),
            uid: format!("{namespace}-{name}"),
        }
    }

    fn names(claims: Vec<Claim>) -> Vec<String> {
        claims.into_iter().map(|claim| claim.name).collect()
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
        let waiting = vec![claim("a", "3", 3), claim("a", "1", 1), claim("b", "2", 2)];
        assert_eq!(names(turns(HashMap::new(), waiting.clone(), 2)), ["1", "2"]);
        assert_eq!(
            names(turns(HashMap::from([("c".into(), 1)]), waiting.clone(), 2)),
            ["1"]
        );
        assert!(turns(HashMap::from([("c".into(), 5)]), waiting, 2).is_empty());
    }

    #[test]
    fn a_namespace_that_asks_for_many_leaves_half_to_the_others() {
        let flood = (0..500).map(|i| claim("flood", &format!("f{i:03}"), i));
        let waiting: Vec<Claim> = flood.chain([claim("shop", "late", 9_999)]).collect();
        assert_eq!(
            names(turns(HashMap::new(), waiting.clone(), 4)),
            ["f000", "f001", "late", "f002"]
        );
        // It had all of them before the other came: the next one that is free is the other's.
        assert_eq!(
            names(turns(HashMap::from([("flood".into(), 3)]), waiting.clone(), 4)),
            ["late"]
        );
        // Alone it may have all, and where there is one place it is taken in turns.
        assert_eq!(turns(HashMap::new(), waiting[..500].to_vec(), 4).len(), 4);
        assert_eq!(names(turns(HashMap::new(), waiting, 1)), ["f000"]);
    }

    #[test]
    fn a_place_is_held_from_its_turn_until_the_run_is_over() {
        let now = Timestamp::from_second(100).expect("a time");
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
        turns.begin("old", &runs, now);
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
    fn a_turn_that_came_to_nothing_is_given_up_and_its_time_is_counted_from_the_first() {
        let at = |second| Timestamp::from_second(second).expect("a time");
        let turns = Turns::new(at(0));
        let runs = [run("a", 1, Some("Preparing"), false, true)];
        assert_eq!(turns.begin("a", &runs, at(5)), at(5));
        turns.give_up("a");
        assert_eq!(turns.next(&runs, 1, at(6)).len(), 1);
        assert_eq!(turns.begin("a", &runs, at(9)), at(5));
        // What is gone is forgotten.
        turns.begin("b", &[], at(10));
        assert_eq!(turns.begin("a", &runs, at(11)), at(11));
    }

    #[test]
    fn who_does_not_ask_holds_nobody_up() {
        let at = |second| Timestamp::from_second(second).expect("a time");
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
            let name = |i: usize| format!("n{i}");
            let places: HashMap<String, usize> = placed.iter().enumerate().map(|(i, n)| (name(i), *n)).collect();
            let taken: usize = placed.iter().sum();
            let claims: Vec<Claim> = waiting.iter().enumerate().map(|(i, (of, at))| claim(&name(*of), &i.to_string(), *at)).collect();
            let chosen = turns(places.clone(), claims.clone(), most);
            prop_assert_eq!(chosen.len(), claims.len().min(most.saturating_sub(taken)));
            for of in chosen.iter().map(|claim| &claim.namespace) {
                let has = places.get(of).copied().unwrap_or(0) + chosen.iter().filter(|c| c.namespace == *of).count();
                let others_wait = claims.iter().any(|c| c.namespace != *of && !chosen.contains(c)
                    && places.get(&c.namespace).copied().unwrap_or(0)
                        + chosen.iter().filter(|d| d.namespace == c.namespace).count() < most.div_ceil(2));
                prop_assert!(has <= most.div_ceil(2).max(places.get(of).copied().unwrap_or(0)) || !others_wait);
            }
        }
    }
}
