//! What a condition or an Event can give as its reason is in docs/troubleshooting.md, and nothing else is; under each kind
//! those of its own conditions, all of which its schema names.
//!
//! Reasons are words in the sources: those of two humps, and what a condition is made with.

use std::collections::BTreeSet;
use std::path::Path;

use vigia_crds::conditions::{READY, RECONCILING, STALLED};

/// Words that are no reasons: Kubernetes' own, kinds, and metrics of gates.
const OTHER: &[&str] = &[
    "DeadlineExceeded",
    "DisruptionTarget",
    "FailJob",
    "FailureTarget",
    "False",
    "HoldoutExceedance",
    "IfNotPresent",
    "InjectionRecall",
    "LocalFileSystem",
    "ModelVersion",
    "NoExecute",
    "RuntimeDefault",
    "ScheduleAnyway",
    "SuccessCriteriaMet",
    "SyscallAnomaly",
    "TrainingRun",
];

/// The program's part of every file below a folder, without comments.
fn sources(folder: &Path, found: &mut Vec<String>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if ["tests", "tests.rs", "simulation", "fixture.rs"].contains(&name.as_str()) {
            continue;
        }
        if path.is_dir() {
            sources(&path, found);
        } else if name.ends_with(".rs") {
            let text = std::fs::read_to_string(&path).unwrap();
            let program = text.split("#[cfg(test)]").next().unwrap_or_default();
            let lines = program
                .lines()
                .filter(|line| !line.trim_start().starts_with("//"));
            found.push(lines.collect::<Vec<_>>().join("\n"));
        }
    }
}

fn is_word(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_uppercase())
        && text.len() > 2
        && text.chars().all(|c| c.is_ascii_alphanumeric())
        && text.contains(|c: char| c.is_ascii_lowercase())
}

fn humps(word: &str) -> usize {
    word.chars().filter(char::is_ascii_uppercase).count()
}

/// What is between a pair of these marks.
fn between(text: &str, mark: char) -> impl Iterator<Item = &str> {
    text.split(mark).skip(1).step_by(2)
}

/// Words in quotes. What is between two texts is never a word.
fn literals(program: &str) -> impl Iterator<Item = &str> {
    program.split('"').filter(|text| is_word(text))
}

fn page() -> String {
    std::fs::read_to_string(vigia_tests::root().join("docs/troubleshooting.md")).unwrap()
}

#[test]
fn each_kinds_table_is_of_the_conditions_that_its_schema_names() {
    let page = page();
    for crd in vigia_crds::all() {
        let heading = format!("\n## {}\n", crd.spec.names.kind);
        let section = page.split(&heading).nth(1).unwrap_or_default();
        let section = section.split("\n##").next().unwrap_or_default();
        let rows = section.lines().filter(|line| line.starts_with("| "));
        let cells = rows.filter_map(|row| row.split(" | ").next());
        let told: BTreeSet<&str> = cells
            .flat_map(|cell| between(cell, '`'))
            .filter(|word| is_word(word))
            .collect();

        let crd = serde_json::to_value(&crd).unwrap();
        let schema = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
        let conditions = &schema["properties"]["status"]["properties"]["conditions"];
        let named: BTreeSet<&str> =
            between(conditions["description"].as_str().unwrap_or_default(), '`').collect();

        let kstatus = BTreeSet::from([READY, RECONCILING, STALLED]);
        let unnamed: Vec<_> = told.difference(&named).collect();
        assert!(
            unnamed.is_empty(),
            "{heading} has what its schema does not name: {unnamed:?}"
        );
        let untold: Vec<_> = named
            .difference(&told)
            .filter(|word| !kstatus.contains(*word))
            .collect();
        assert!(
            untold.is_empty(),
            "not in docs/troubleshooting.md under {heading}: {untold:?}"
        );
    }
}

#[test]
fn every_reason_is_explained_and_no_other() {
    let root = vigia_tests::root();
    let mut programs = Vec::new();
    for folder in ["operator/src", "agent/src", "model/src/artifact"] {
        sources(&root.join(folder), &mut programs);
    }
    let all: BTreeSet<&str> = programs.iter().flat_map(|program| literals(program)).collect();
    let mut reasons: BTreeSet<&str> = all.iter().copied().filter(|word| humps(word) > 1).collect();
    for made in ["Wanted::new(", "Wanted::unknown("] {
        for program in &programs {
            let after = program.split(made).skip(1);
            // The type of the condition is a constant, its reason the first text.
            reasons.extend(
                after
                    .filter_map(|call| call.split('"').nth(1))
                    .filter(|word| is_word(word)),
            );
        }
    }
    let gone: Vec<_> = OTHER.iter().filter(|word| !all.contains(*word)).collect();
    assert!(gone.is_empty(), "no word of the sources any more: {gone:?}");
    reasons.retain(|word| !OTHER.contains(word));
    assert!(reasons.len() > 100, "only {} reasons found", reasons.len());

    let page = page();
    let explained: BTreeSet<&str> = between(&page, '`').filter(|word| is_word(word)).collect();
    let missing: Vec<_> = reasons.difference(&explained).collect();
    assert!(missing.is_empty(), "not in docs/troubleshooting.md: {missing:?}");

    let rows = page.lines().filter(|line| line.starts_with("| "));
    let cells = rows.flat_map(|row| row.split(" | ").take(2));
    let unknown: Vec<&str> = cells
        .flat_map(|cell| between(cell, '`'))
        .filter(|word| is_word(word) && !all.contains(word) && !RECONCILING.eq(*word))
        .collect();
    assert!(unknown.is_empty(), "no reason of these names: {unknown:?}");
}
