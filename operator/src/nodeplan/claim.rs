//! Which profile traces which container. A container has one window at a time, so it is one
//! profile's: of those that select it, the oldest; of equally old ones, the first by name.

use std::sync::Arc;

use kube::ResourceExt;
use vigia_crds::TraceProfile;

use crate::pods::PodView;
use crate::select::Ready;
use crate::traceprofile::capture;

/// The profiles of one namespace, in the order in which they may choose.
#[derive(Clone, Debug, Default)]
pub struct Claimants(Vec<(Arc<TraceProfile>, Ready)>);

/// A container that runs: its name and the runtime's id.
pub type Container = (String, String);

/// What one profile traces of a pod.
#[derive(Clone, Debug, PartialEq)]
pub struct Claim<'a> {
    /// The profile.
    pub profile: &'a TraceProfile,
    /// Containers that run, by name.
    pub containers: Vec<Container>,
}

/// A container that a profile selects and another one traces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Overlap {
    /// Name of the profile that does not get it.
    pub loser: String,
    /// Name of the profile that traces it.
    pub winner: String,
    /// Name of the container.
    pub container: String,
}

impl Claimants {
    /// Profiles of one namespace, in any order. Those being deleted choose no more, and those of which nothing can be
    /// carried out keep nothing from the others.
    pub fn new(profiles: impl IntoIterator<Item = Arc<TraceProfile>>) -> Self {
        let mut profiles: Vec<_> = profiles
            .into_iter()
            .filter(|p| p.metadata.deletion_timestamp.is_none() && capture::known(&p.spec.capture).is_some())
            .collect();
        profiles.sort_by_cached_key(|p| (p.creation_timestamp().map(|t| t.0), p.name_any()));
        let ready = |profile: Arc<TraceProfile>| {
            let selector = Ready::new(&profile.spec.pod_selector);
            (profile, selector)
        };
        Self(profiles.into_iter().map(ready).collect())
    }

    /// The profiles that select a pod, whether or not anything of it runs yet.
    pub fn selecting(&self, pod: &PodView) -> impl Iterator<Item = &TraceProfile> {
        let selecting = |(_, selector): &&(_, Ready)| !pod.ended && selector.matches(&pod.labels);
        self.0.iter().filter(selecting).map(|(profile, _)| &**profile)
    }

    /// What each profile traces of a pod's running containers. Profiles that get none are left out.
    pub fn claims(&self, pod: &PodView) -> Vec<Claim<'_>> {
        self.resolve(pod).0
    }

    /// The same, and who did not get what.
    pub fn resolve(&self, pod: &PodView) -> (Vec<Claim<'_>>, Vec<Overlap>) {
        let mut claims: Vec<Claim<'_>> = Vec::new();
        let mut overlaps = Vec::new();
        if pod.ended {
            return (claims, overlaps);
        }
        for (profile, selector) in &self.0 {
            if !selector.matches(&pod.labels) {
                continue;
            }
            let mut containers = Vec::new();
            for container in pod.containers.iter().filter(|(name, _)| selects(profile, name)) {
                let winner = claims.iter().find(|c| c.containers.contains(container));
                match winner {
                    None => containers.push(container.clone()),
                    Some(winner) => overlaps.push(Overlap {
                        loser: profile.name_any(),
                        winner: winner.profile.name_any(),
                        container: container.0.clone(),
                    }),
                }
            }
            if !containers.is_empty() {
                claims.push(Claim { profile, containers });
            }
        }
        (claims, overlaps)
    }
}

fn selects(profile: &TraceProfile, container: &str) -> bool {
    profile.spec.containers.iter().any(|c| c == "*" || c == container)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::{pod, profile};

    #[test]
    fn the_oldest_profile_gets_a_container_and_the_other_one_is_told() {
        let all = profile("shop", "zebra", 10);
        let mut app = profile("shop", "app-only", 20);
        app.spec.containers = vec!["app".to_owned()];
        let claimants = Claimants::new([app.clone(), all].map(Arc::new));
        let pod = pod("shop", "web", "n1", &["app", "proxy"]);
        let (claims, overlaps) = claimants.resolve(&pod);
        assert_eq!(claims.len(), 1);
        assert_eq!(claims[0].profile.name_any(), "zebra");
        assert_eq!(claims[0].containers.len(), 2);
        assert_eq!(
            overlaps,
            [Overlap {
                loser: "app-only".to_owned(),
                winner: "zebra".to_owned(),
                container: "app".to_owned()
            }]
        );
        // Younger, the wide one gets what is left.
        app.metadata.creation_timestamp = profile("shop", "x", 1).metadata.creation_timestamp;
        let claimants = Claimants::new([profile("shop", "zebra", 10), app].map(Arc::new));
        let names: Vec<_> = claimants
            .claims(&pod)
            .iter()
            .map(|c| (c.profile.name_any(), c.containers[0].0.clone()))
            .collect();
        assert_eq!(
            names,
            [
                ("app-only".to_owned(), "app".to_owned()),
                ("zebra".to_owned(), "proxy".to_owned())
            ]
        );
    }

    #[test]
    fn equally_old_profiles_choose_by_name() {
        let claimants = Claimants::new([profile("shop", "b", 1), profile("shop", "a", 1)].map(Arc::new));
        let pod = pod("shop", "web", "n1", &["app"]);
        assert_eq!(claimants.claims(&pod)[0].profile.name_any(), "a");
    }

    #[test]
    fn a_pod_that_ended_or_runs_nothing_is_nobodys() {
        let claimants = Claimants::new([Arc::new(profile("shop", "a", 1))]);
        let mut ended = pod("shop", "web", "n1", &["app"]);
        ended.ended = true;
        assert!(claimants.claims(&ended).is_empty());
        assert!(claimants.claims(&pod("shop", "web", "n1", &[])).is_empty());
    }
}
