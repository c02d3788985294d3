//! Generated files are what their source makes.

use vigia_tests::root;

#[test]
fn crds_and_api_reference_are_current() {
    let stale: Vec<_> = vigia_crds::generate::files()
        .into_iter()
        .filter(|(path, text)| std::fs::read_to_string(root().join(path)).ok().as_ref() != Some(text))
        .map(|(path, _)| path)
        .collect();
    assert!(
        stale.is_empty(),
        "run `make generate`: {stale:?} differ from what crds/src makes"
    );
}

#[test]
fn the_chart_holds_no_crd_beside_ours() {
    let made: Vec<_> = vigia_crds::generate::files()
        .into_iter()
        .map(|(path, _)| root().join(path))
        .collect();
    for file in vigia_tests::yaml_files("charts/vigia/crds").unwrap() {
        assert!(made.contains(&file), "{} is made from no kind", file.display());
    }
}
