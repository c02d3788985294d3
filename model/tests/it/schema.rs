//! The feature schema: fixed for good, the same everywhere, and every value in its place.

use crate::support::Random;
use proptest::prelude::*;
use vigia_model::schema::{
    Feature, FeatureError, GROUPS, MAX_FEATURES, Schema, UNIT_RATE, from_rate, to_rate,
};
use vigia_model::syscalls::{Arch, Class, IA32, X32, all, class_of, name, number};
use vigia_model::window::{Calls, Window};

fn vector(window: &Window) -> Vec<f32> {
    let schema = Schema::syscalls_v1();
    let mut out = vec![0.0; schema.width()];
    schema.vector(window, &mut out).expect("a vector");
    out
}

fn place(feature: &str) -> usize {
    let schema = Schema::syscalls_v1();
    schema
        .features()
        .iter()
        .position(|f| f.to_string() == feature)
        .expect("a feature")
}

fn call(arch: Arch, name: &str, count: u64, errors: u64) -> Calls {
    Calls {
        nr: number(arch, name).expect("a system call"),
        count,
        errors,
    }
}

/// If this fails, a rule has changed and every model in the field would be refused: make a v2 instead.
#[test]
fn the_schema_is_what_models_were_trained_on() {
    let schema = Schema::syscalls_v1();
    assert_eq!(schema.name(), "vigia.syscalls.v1");
    assert_eq!(schema.width(), GROUPS.len() + 18);
    assert_eq!(
        schema.hash().to_string(),
        "ebf0c5b386293ed191d06078f6e41f824e6cc8ccc6e17e8a08d59595f8141a48"
    );
    assert!(std::ptr::eq(
        Schema::by_name(schema.name()).expect("known"),
        schema
    ));
    assert!(std::ptr::eq(
        Schema::by_hash(schema.hash()).expect("known"),
        schema
    ));
    assert!(Schema::by_name("vigia.syscalls.v0").is_none());
}

#[test]
fn every_group_names_system_calls_once_and_exists_on_both_architectures() {
    let mut seen = std::collections::BTreeSet::new();
    for group in GROUPS {
        for name in *group {
            assert!(seen.insert(*name), "{name} is in two groups");
            assert!(
                Arch::ALL.iter().any(|&arch| number(arch, name).is_some()),
                "{name} is no system call"
            );
        }
        for arch in Arch::ALL {
            let known = group.iter().any(|name| number(arch, name).is_some());
            assert!(known, "{group:?} is empty on {arch}");
        }
    }
    assert!(Schema::syscalls_v1().width() <= MAX_FEATURES);
}

#[test]
fn every_number_has_one_place_among_the_rates() {
    let schema = Schema::syscalls_v1();
    for arch in Arch::ALL {
        for (nr, name) in all(arch) {
            match schema.features()[schema.feature_of(arch, nr)] {
                Feature::Group(names) => assert!(names.contains(&name)),
                Feature::Rest(class) => assert_eq!(class, class_of(arch, nr)),
                other => panic!("{name} counts as {other}"),
            }
        }
        for nr in [511, 512, X32 | 548, IA32 | 511, u32::MAX] {
            assert_eq!(schema.feature_of(arch, nr), place("rest:other"), "{nr}");
        }
    }
}

#[test]
fn one_window_by_hand() {
    let arch = Arch::X86_64;
    let calls = [
        call(arch, "open", 3, 1),
        call(arch, "openat", 2, 0),
        call(arch, "kexec_load", 1, 1),
    ];
    let v = vector(&Window::new(arch, 0, 10_000, calls));
    let rate = |r: f64| (r / UNIT_RATE).ln_1p() as f32;
    assert_eq!(v[place("openat")], rate(0.5));
    assert_eq!(v[place("rest:process")], rate(0.1));
    assert_eq!(v[place("errors:file")], rate(0.1));
    assert_eq!(v[place("errors:process")], rate(0.1));
    assert_eq!(v[place("total")], rate(0.6));
    assert_eq!(v[place("distinct")], 3f32.ln_1p());
    assert_eq!(v.iter().filter(|&&x| x != 0.0).count(), 6);
}

#[test]
fn dominant_calls_are_those_with_the_most() {
    let arch = Arch::X86_64;
    let schema = Schema::syscalls_v1();
    let calls = [
        call(arch, "open", 3, 2),
        call(arch, "openat", 9, 1),
        call(arch, "keyctl", 4, 0),
    ];
    let window = Window::new(arch, 0, 1000, calls);
    let dominant = |feature: &str| {
        let (nr, n) = schema.dominant(place(feature), &window)?;
        Some((name(arch, nr)?, n))
    };
    assert_eq!(dominant("openat"), Some(("openat", 9)));
    assert_eq!(dominant("errors:file"), Some(("open", 2)));
    assert_eq!(dominant("rest:process"), Some(("keyctl", 4)));
    assert_eq!(dominant("total"), Some(("openat", 9)));
    assert_eq!(dominant("read"), None);
}

#[test]
fn what_makes_no_vector_is_refused() {
    let schema = Schema::syscalls_v1();
    let empty = Window::new(Arch::X86_64, 0, 0, []);
    let mut out = vec![0.0; schema.width()];
    assert_eq!(schema.vector(&empty, &mut out), Err(FeatureError::NoDuration));
    let window = Window::new(Arch::X86_64, 0, 1000, []);
    assert_eq!(
        schema.vector(&window, &mut out[1..]).err(),
        Some(FeatureError::Width {
            expected: schema.width(),
            got: schema.width() - 1
        })
    );
    assert!(
        schema
            .vector(&window, &mut out)
            .is_ok_and(|()| out.iter().all(|&x| x == 0.0))
    );
}

fn windows() -> impl Strategy<Value = Window> {
    let calls =
        (0u32..600, any::<u64>(), any::<u64>()).prop_map(|(nr, count, errors)| Calls { nr, count, errors });
    (any::<bool>(), 1u32.., prop::collection::vec(calls, 0..40)).prop_map(|(arm, duration_ms, calls)| {
        Window::new(
            if arm { Arch::Aarch64 } else { Arch::X86_64 },
            0,
            duration_ms,
            calls,
        )
    })
}

proptest! {
    #[test]
    fn vectors_are_finite_and_not_negative(window in windows()) {
        prop_assert!(vector(&window).iter().all(|x| x.is_finite() && *x >= 0.0));
    }

    #[test]
    fn rates_do_not_depend_on_the_length_of_the_window(seed: u64, factor in 1u64..50) {
        let mut random = Random(seed);
        let calls: Vec<Calls> = (0..20).map(|_| Calls { nr: random.below(450) as u32, count: random.next() >> 40, errors: random.next() >> 50 }).collect();
        let longer = calls.iter().map(|c| Calls { count: c.count * factor, errors: c.errors * factor, ..*c });
        let short = vector(&Window::new(Arch::X86_64, 0, 1000, calls.iter().copied()));
        let long = vector(&Window::new(Arch::X86_64, 9, 1000 * factor as u32, longer));
        prop_assert_eq!(short, long);
    }

    #[test]
    fn more_calls_never_lower_a_feature(window in windows(), nr in 0u32..500, more in 1u64..1000) {
        let calls = window.calls.iter().copied().chain([Calls { nr, count: more, errors: 0 }]);
        let grown = Window::new(window.arch, 0, window.duration_ms, calls);
        prop_assert!(vector(&window).iter().zip(vector(&grown)).all(|(a, b)| *a <= b));
    }

    #[test]
    fn names_not_numbers_decide(seed: u64) {
        let mut random = Random(seed);
        let shared: Vec<&str> = all(Arch::Aarch64).map(|(_, n)| n).filter(|n| number(Arch::X86_64, n).is_some()).collect();
        let picked: Vec<(&str, u64)> = (0..15).map(|_| (shared[random.below(shared.len())], random.next() >> 50)).collect();
        let on = |arch| vector(&Window::new(arch, 0, 5000, picked.iter().map(|&(n, count)| call(arch, n, count, 0))));
        prop_assert_eq!(on(Arch::X86_64), on(Arch::Aarch64));
    }

    #[test]
    fn rates_come_back(rate in 0f64..1e9) {
        prop_assert!((to_rate(from_rate(rate)) - rate).abs() <= 1e-5 * rate + 1e-7);
    }

    #[test]
    fn classes_cover_what_groups_leave(class in prop::sample::select(&Class::ALL[..])) {
        let schema = Schema::syscalls_v1();
        prop_assert_eq!(schema.features()[schema.errors_of(class)], Feature::Errors(class));
    }
}

#[test]
fn another_abi_makes_the_same_vector_and_explains_by_native_names() {
    let arch = Arch::X86_64;
    let window = |numbers: [u32; 5]| {
        let calls = numbers.map(|nr| Calls {
            nr,
            count: 2,
            errors: 1,
        });
        Window::new(arch, 0, 10_000, calls)
    };
    let native =
        window(["socket", "connect", "dup2", "execve", "fork"].map(|n| number(arch, n).expect("known")));
    // By ia32, and by x32, whose execve has a number of its own.
    let ia32 = window([359, 362, 63, 11, 2].map(|nr| IA32 | nr));
    let x32 = window([41, 42, 33, 520, 57].map(|nr| X32 | nr));
    for other in [ia32, x32] {
        assert_eq!(vector(&other), vector(&native));
        let (nr, calls) = Schema::syscalls_v1()
            .dominant(place("connect"), &other)
            .expect("it is there");
        assert_eq!((name(arch, nr), calls), (Some("connect"), 2));
    }
}
