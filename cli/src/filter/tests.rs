use proptest::prelude::*;

use super::*;

const ARCH: Arch = Arch::X86_64;

fn names(expression: &str) -> Vec<&'static str> {
    let filter = Filter::parse(expression, ARCH).expect("well-formed");
    syscalls::all(ARCH)
        .filter(|(nr, _)| filter.has(*nr))
        .map(|(_, name)| name)
        .collect()
}

fn error(expression: &str) -> String {
    Filter::parse(expression, ARCH).expect_err("refused").to_string()
}

#[test]
fn names_numbers_and_classes_make_a_set() {
    assert_eq!(names("trace=read,write"), ["read", "write"]);
    assert_eq!(names("t=59,0"), ["read", "execve"]);
    assert_eq!(names("open"), ["open"]);
    assert_eq!(names("trace=%file"), names("file"));
    assert!(names("%file").contains(&"execve") && !names("%file").contains(&"read"));
    assert_eq!(names("fstat"), ["fstat"]);
    assert!(names("%fstat").contains(&"newfstatat") && names("%%stat").contains(&"stat"));
    assert_eq!(names("%%statfs"), ["ustat", "statfs", "fstatfs"]);
    assert!(names("%process").contains(&"clone") && !names("%process").contains(&"getpid"));
    assert_eq!(
        names("/^(p?read|write)v2?$"),
        ["readv", "writev", "preadv", "preadv2"]
    );
    assert_eq!(names("?no_such_call,read"), ["read"]);
    assert!(names("none").is_empty());
}

#[test]
fn signs_take_away() {
    let every = syscalls::all(ARCH).count();
    assert_eq!(names("all").len(), every);
    assert_eq!(names("!read,write").len(), every - 2);
    assert_eq!(names("!read,!write"), names("!read,write"));
    assert_eq!(names("%ipc,!shmat,!shmdt").len(), names("%ipc").len() - 2);
    // Wherever it stands.
    assert_eq!(names("read,!write,write"), ["read"]);
    assert!(names("!all").is_empty());
}

fn has(expression: &str, number: u32) -> bool {
    Filter::parse(expression, ARCH).expect("well-formed").has(number)
}

#[test]
fn calls_by_another_abi_are_chosen_by_the_native_call_that_does_the_same() {
    // read by ia32, write by x32, execve and rt_sigaction by numbers that only x32 has
    for (number, name) in [
        (syscalls::IA32 | 3, "read"),
        (syscalls::X32 | 1, "write"),
        (syscalls::X32 | 520, "execve"),
        (syscalls::X32 | 512, "rt_sigaction"),
    ] {
        assert!(
            has(name, number) && has("all", number) && has("!close", number),
            "{name}"
        );
        assert!(
            !has(&format!("!{name}"), number) && !has("close", number),
            "{name}"
        );
    }
    assert!(has("%desc", syscalls::IA32 | 3) && !has("%creds", syscalls::IA32 | 3));
    // Which call socketcall makes is in its arguments: whoever looks at one that it may make wants it.
    let socketcall = syscalls::IA32 | 102;
    assert!(has("connect", socketcall) && has("!connect", socketcall));
    assert!(!has("read", socketcall) && !has("!all", socketcall));
}

#[test]
fn the_same_calls_are_in_as_in_a_profile_that_names_them() {
    let names = ["connect", "semop", "execve", "read", "futex"];
    let theirs = syscalls::Filter::parse(ARCH, &names, &[]).expect("known names");
    let ours = Filter::parse(&names.join(","), ARCH).expect("known names");
    for nr in 0..1024 {
        for flag in [0, syscalls::IA32, syscalls::X32] {
            assert_eq!(ours.has(flag | nr), theirs.has(flag | nr), "{flag:x} {nr}");
        }
    }
}

#[test]
fn calls_without_a_name_are_in_what_is_not_chosen_by_name() {
    for nameless in [u32::MAX, syscalls::IA32 | 9999, syscalls::X32 | 600] {
        assert!(has("all", nameless) && has("!read", nameless) && Filter::default().has(nameless));
        assert!(!has("read", nameless) && !has("!all", nameless) && !has("%desc", nameless));
    }
}

#[test]
fn what_is_wrong_is_quoted_with_what_may_have_been_meant() {
    assert_eq!(
        error("trace=read,opne"),
        "no system call \"opne\" on x86_64; did you mean open?"
    );
    assert_eq!(
        error("%netwrok"),
        "no class \"%netwrok\" of system calls; did you mean %network?"
    );
    assert_eq!(
        error("fiel"),
        "no system call \"fiel\" on x86_64; did you mean file?"
    );
    assert_eq!(
        error("read,,write"),
        "item 2 of the list is empty; names are separated by single commas"
    );
    assert_eq!(
        error(""),
        "item 1 of the list is empty; names are separated by single commas"
    );
    assert_eq!(
        error("trace=!"),
        "item 1 of the list is empty; names are separated by single commas"
    );
    assert_eq!(
        error("abbrev=all"),
        "\"abbrev\" cannot be filtered by; write trace=SET"
    );
    assert!(error("/(").contains("\"/(\" is wrong"));
    assert_eq!(error("9999"), "no system call \"9999\" on x86_64");
    assert_eq!(
        error(" read"),
        "no system call \" read\" on x86_64; did you mean read?"
    );
    assert!(error(&"x".repeat(5000)).len() < 200);
    assert!(error(&"read,".repeat(5000)).contains("bytes"));
    assert!(error("/a{1000}{1000}{1000}").contains("is wrong"));
}

#[test]
fn every_name_of_every_class_is_a_system_call_somewhere() {
    for (class, members) in CLASSES {
        for name in members.split_ascii_whitespace() {
            assert!(
                Arch::ALL
                    .iter()
                    .any(|arch| syscalls::number(*arch, name).is_some())
                    || name == "fstatat",
                "{class}: {name}"
            );
        }
    }
}

fn item() -> impl Strategy<Value = String> {
    let known: Vec<&'static str> = syscalls::all(ARCH).map(|(_, name)| name).collect();
    prop_oneof![
        proptest::sample::select(known).prop_map(str::to_owned),
        proptest::sample::select(CLASSES.map(|(name, _)| name).to_vec()).prop_map(|c| format!("%{c}")),
    ]
}

proptest! {
    #[test]
    fn anything_is_a_set_or_an_error(text in "\\PC{0,80}") {
        let _ = Filter::parse(&text, ARCH);
    }

    #[test]
    fn anything_near_the_grammar_is_a_set_or_an_error(text in "(trace=|t=)?!?([%/?!]?[a-z_0-9*()\\[]{0,8},?){0,8}") {
        let _ = Filter::parse(&text, ARCH);
    }

    #[test]
    fn a_negation_is_the_complement(items in proptest::collection::vec(item(), 1..6)) {
        let list = items.join(",");
        let set = Filter::parse(&list, ARCH).expect("well-formed");
        let rest = Filter::parse(&format!("!{list}"), ARCH).expect("well-formed");
        for (nr, name) in syscalls::all(ARCH) {
            prop_assert_ne!(set.has(nr), rest.has(nr), "{}", name);
        }
    }

    #[test]
    fn order_and_repetition_do_not_matter(items in proptest::collection::vec(item(), 1..6)) {
        let forth = items.join(",");
        let back: Vec<_> = items.iter().rev().chain(&items).cloned().collect();
        prop_assert_eq!(Filter::parse(&forth, ARCH), Filter::parse(&back.join(","), ARCH));
    }
}

#[test]
fn a_fingerprint_is_that_of_a_profile_that_lets_in_the_same() {
    let of = |text: &str| {
        let filter = Filter::parse(text, Arch::X86_64).expect("a set");
        filter.fingerprint(Arch::X86_64).expect("known names").to_string()
    };
    let profile = |include: &[&str], exclude: &[&str]| {
        syscalls::Filter::fingerprint(include, exclude).expect("known names")
    };
    assert_eq!(of("trace=all"), syscalls::ALL_CALLS);
    assert_eq!(of("trace=read,write"), profile(&["write", "read"], &[]));
    assert_eq!(of("!futex"), profile(&[], &["futex"]));
    let told_apart = ["all", "!all", "/.*", "%file", "!%file"].map(of);
    let mut once = told_apart.to_vec();
    once.sort();
    once.dedup();
    // Nothing but names is not everything: there are calls without one.
    assert_eq!(once.len(), told_apart.len(), "{told_apart:?}");
    assert_eq!(of("none"), of("!all"));
}
