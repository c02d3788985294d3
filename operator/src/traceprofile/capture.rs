//! Names of system calls in a profile, before nodes hear of them: one that means nothing is the profile's own matter,
//! and no node's.

use vigia_crds::{Capture, SyscallFilter};
use vigia_model::syscalls::{Arch, Class, Filter, all};

/// Names like an unknown one that are told.
const NEAR: usize = 3;
/// How like they must be, by Jaro and Winkler: a letter left out, turned round or too much.
const LIKE: f64 = 0.85;

/// A name that is neither a system call's nor a class's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unknown<'a> {
    /// The list that it is in.
    pub field: &'static str,
    /// The name.
    pub name: &'a str,
}

fn is_known(name: &str) -> bool {
    Filter::parse(Arch::X86_64, &[name], &[]).is_ok()
}

/// The names of a filter that mean nothing on any architecture.
pub fn unknown(syscalls: &SyscallFilter) -> Vec<Unknown<'_>> {
    let lists = [("include", &syscalls.include), ("exclude", &syscalls.exclude)];
    let names = lists
        .into_iter()
        .flat_map(|(field, names)| names.iter().map(move |name| Unknown { field, name }));
    names.filter(|unknown| !is_known(unknown.name)).collect()
}

/// The names of a filter that mean something.
fn meant(syscalls: &SyscallFilter) -> SyscallFilter {
    let known = |names: &[String]| names.iter().filter(|n| is_known(n)).cloned().collect();
    SyscallFilter {
        include: known(&syscalls.include),
        exclude: known(&syscalls.exclude),
    }
}

/// Whether a filter lets in no system call of any architecture, though names of it mean something: it excludes all that
/// it includes.
pub fn is_empty(syscalls: &SyscallFilter) -> bool {
    left(syscalls).is_some_and(|meant| excludes_all(&meant))
}

/// What a filter means; `None` where nothing is left of what should be included.
fn left(syscalls: &SyscallFilter) -> Option<SyscallFilter> {
    let meant = meant(syscalls);
    (syscalls.include.is_empty() || !meant.include.is_empty()).then_some(meant)
}

fn excludes_all(meant: &SyscallFilter) -> bool {
    // As most profiles have it, and asked often.
    if meant.include.is_empty() && meant.exclude.is_empty() {
        return false;
    }
    let lets_in = |arch| match Filter::parse(arch, &meant.include, &meant.exclude) {
        Ok(filter) => all(arch).any(|(number, _)| filter.has(number)),
        Err(_) => false,
    };
    !Arch::ALL.into_iter().any(lets_in)
}

/// What nodes keep of calls: what is wanted, without names that mean nothing. `None` where nothing is left of what
/// should be included: all would be in, or none, which nobody asked for.
pub fn known(wanted: &Capture) -> Option<Capture> {
    let syscalls = left(&wanted.syscalls)?;
    (!excludes_all(&syscalls)).then(|| Capture {
        syscalls,
        ..wanted.clone()
    })
}

/// What tells a profile's windows from those of another filter, by the names of it that mean something; none where
/// nothing is traced.
pub fn fingerprint(wanted: &Capture) -> Option<String> {
    let known = known(wanted)?.syscalls;
    Filter::fingerprint(&known.include, &known.exclude).ok()
}

/// Names of system calls and classes that are like one that is none, the likest first.
pub fn near(name: &str) -> Vec<&'static str> {
    let calls = Arch::ALL.into_iter().flat_map(all).map(|(_, name)| name);
    let classes = Class::ALL.iter().map(|class| class.as_str());
    let mut names: Vec<(f64, &'static str)> = calls
        .chain(classes)
        .map(|known| (strsim::jaro_winkler(name, known), known))
        .filter(|(like, _)| *like >= LIKE)
        .collect();
    names.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(b.1)));
    names.dedup();
    names.into_iter().take(NEAR).map(|(_, name)| name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(include: &[&str], exclude: &[&str]) -> SyscallFilter {
        let own = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect();
        SyscallFilter {
            include: own(include),
            exclude: own(exclude),
        }
    }

    fn planned(include: &[&str], exclude: &[&str]) -> Option<SyscallFilter> {
        let wanted = Capture {
            syscalls: filter(include, exclude),
            ..Capture::default()
        };
        known(&wanted).map(|capture| capture.syscalls)
    }

    #[test]
    fn names_that_mean_nothing_are_told_with_their_place() {
        let wrong = filter(&["network", "opnat"], &["futex", "memry"]);
        let names: Vec<_> = unknown(&wrong).iter().map(|u| (u.field, u.name)).collect();
        assert_eq!(names, [("include", "opnat"), ("exclude", "memry")]);
        // What one architecture alone has is known.
        assert!(unknown(&filter(&["open", "openat"], &[])).is_empty());
    }

    #[test]
    fn nodes_are_told_what_is_known_or_nothing() {
        assert_eq!(planned(&[], &[]), Some(filter(&[], &[])));
        assert_eq!(
            planned(&["network", "raed"], &["futex"]),
            Some(filter(&["network"], &["futex"]))
        );
        assert_eq!(planned(&[], &["raed"]), Some(filter(&[], &[])));
        assert_eq!(planned(&["raed"], &[]), None);
    }

    #[test]
    fn a_filter_that_lets_in_nothing_is_none() {
        for (include, exclude) in [
            (&["file"][..], &["file"][..]),
            (&["openat"], &["file"]),
            (&["network", "raed"], &["network"]),
            (
                &[],
                &[
                    "file", "network", "process", "memory", "ipc", "signal", "desc", "other",
                ],
            ),
        ] {
            let is_known = exclude.iter().all(|name| is_known(name));
            assert_eq!(
                is_empty(&filter(include, exclude)),
                is_known,
                "{include:?} {exclude:?}"
            );
            assert_eq!(planned(include, exclude).is_none(), is_known);
        }
        for (include, exclude) in [(&[][..], &[][..]), (&["file"], &["openat"]), (&["raed"], &[])] {
            assert!(!is_empty(&filter(include, exclude)), "{include:?} {exclude:?}");
        }
    }

    #[test]
    fn what_was_meant_is_among_what_is_near() {
        for (wrong, meant) in [
            ("opnat", "openat"),
            ("raed", "read"),
            ("netwrok", "network"),
            ("execv", "execve"),
            ("proces", "process"),
        ] {
            assert!(near(wrong).contains(&meant), "{wrong}: {:?}", near(wrong));
        }
        assert!(near("qqqqqqqq").is_empty());
        assert!(near("e").len() <= NEAR);
    }
}
