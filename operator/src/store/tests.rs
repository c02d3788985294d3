use super::checkpoint::CHECKPOINT;
use super::rows::tests::row;
use super::*;

fn small() -> Options {
    Options {
        reserve: 0,
        ..Options::default()
    }
}

fn mark(node: &str, sequence: u64, seen_ms: i64) -> Mark {
    Mark {
        node: node.into(),
        instance: "i".into(),
        sequence,
        seen_ms,
    }
}

fn summary(node: &str, start_ms: i64) -> Summary {
    Summary {
        namespace: "shop".into(),
        model: "m".into(),
        digest: "d".into(),
        node: node.into(),
        start_ms,
        last_ms: start_ms,
        windows: 2,
        above_threshold: 1,
        histogram: vec![1, 1],
    }
}

/// A commit of two profiles, numbered so that every row is another one.
fn segment(number: u64) -> Segment {
    let at = i64::try_from(number).unwrap() * 1000;
    Segment {
        rows: vec![row("a", number, at), row("b", number, at)],
        summaries: vec![summary("n", at)],
        marks: vec![mark("n", number, at)],
    }
}

async fn sources(store: &Store, profile: &str) -> Vec<u64> {
    let mut sources = vec![];
    store
        .each_row("shop", profile, (i64::MIN, i64::MAX), |row| {
            sources.push(row.source);
            i64::MIN
        })
        .await
        .unwrap();
    sources.sort_unstable();
    sources
}

/// Everything that a store must still know.
async fn assert_whole(store: &Store, commits: u64) {
    let all: Vec<u64> = (1..=commits).collect();
    assert_eq!(sources(store, "a").await, all);
    assert_eq!(sources(store, "b").await, all);
    assert_eq!(store.mark("n", "i"), commits);
    assert_eq!(
        store.count("shop", "a", (i64::MIN, i64::MAX), |_, _| true),
        commits
    );
    let windows: u64 = store
        .summaries()
        .await
        .unwrap()
        .iter()
        .filter(|s| !s.histogram.is_empty())
        .map(|s| s.windows)
        .sum();
    assert_eq!(windows, 2 * commits);
}

#[tokio::test]
async fn commits_outlive_a_restart_before_and_after_compaction() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path(), small()).await.unwrap();
    for number in 1..=70 {
        store.commit(segment(number)).await.unwrap();
    }
    assert_whole(&store, 70).await;
    drop(store);

    let store = Store::open(folder.path(), small()).await.unwrap();
    assert_whole(&store, 70).await;
    assert!(store.maintain(100_000).await.unwrap());
    assert_whole(&store, 70).await;
    drop(store);

    let store = Store::open(folder.path(), small()).await.unwrap();
    assert_whole(&store, 70).await;
    store.commit(segment(71)).await.unwrap();
    assert_whole(&store, 71).await;
}

#[tokio::test]
async fn many_small_files_become_few() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path(), small()).await.unwrap();
    for number in 1..=20 {
        store.commit(segment(number)).await.unwrap();
        // An hour later each commit is old enough to be moved on by itself.
        while store.maintain(3_600_000).await.unwrap() {}
    }
    assert!(store.stats().unwrap().files < 16, "{:?}", store.stats());
    assert_whole(&store, 20).await;
    drop(store);
    let store = Store::open(folder.path(), small()).await.unwrap();
    assert_whole(&store, 20).await;
}

/// Every state of the folder in which a crash can leave it is a prefix of the writes and removals of a round
/// of upkeep, in their order. Here each one of them is put together from the folder before and after.
#[tokio::test]
async fn a_crash_at_any_step_of_upkeep_loses_and_doubles_nothing() {
    let before = tempfile::tempdir().unwrap();
    let store = Store::open(before.path(), small()).await.unwrap();
    for number in 1..=10 {
        store.commit(segment(number)).await.unwrap();
    }
    drop(store);
    let after = tempfile::tempdir().unwrap();
    copy(before.path(), after.path());
    let store = Store::open(after.path(), small()).await.unwrap();
    assert!(store.maintain(3_600_000).await.unwrap());
    drop(store);

    let old = files(before.path());
    let mut written: Vec<String> = files(after.path())
        .into_iter()
        .filter(|f| !old.contains(f))
        .collect();
    written.sort_by_key(|f| (f == CHECKPOINT, f.clone()));
    assert_eq!(written.last().map(String::as_str), Some(CHECKPOINT));
    assert!(written.len() >= 4, "{written:?}");
    let removed = old.len();
    for step in 0..=written.len() + removed {
        let folder = tempfile::tempdir().unwrap();
        copy(before.path(), folder.path());
        for file in written.iter().take(step) {
            let to = folder.path().join(file);
            std::fs::create_dir_all(to.parent().unwrap()).unwrap();
            std::fs::copy(after.path().join(file), to).unwrap();
        }
        for file in old.iter().take(step.saturating_sub(written.len())) {
            std::fs::remove_file(folder.path().join(file)).unwrap();
        }
        let store = Store::open(folder.path(), small()).await.unwrap();
        assert_whole(&store, 10).await;
        store.commit(segment(11)).await.unwrap();
        while store.maintain(3_600_000).await.unwrap() {}
        assert_whole(&store, 11).await;
    }
}

#[tokio::test]
async fn a_damaged_file_is_set_aside_and_the_rest_serves() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path(), small()).await.unwrap();
    for number in 1..=3 {
        store.commit(segment(number)).await.unwrap();
    }
    drop(store);
    let victim = files(folder.path()).into_iter().nth(1).unwrap();
    std::fs::write(folder.path().join(&victim), b"PAR1 not at all PAR1").unwrap();
    let store = Store::open(folder.path(), small()).await.unwrap();
    assert_eq!(sources(&store, "a").await, [1, 3]);
    assert!(folder.path().join("damaged").join(victim).exists());
    store.commit(segment(4)).await.unwrap();
}

/// Bends bytes where the rows are, and leaves the footer as it is.
fn bend(path: &Path) {
    let mut bytes = std::fs::read(path).unwrap();
    bytes[8..200].fill(0xa5);
    std::fs::write(path, bytes).unwrap();
}

#[tokio::test]
async fn rows_that_are_damaged_stop_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path(), small()).await.unwrap();
    for number in 1..=3 {
        store.commit(segment(number)).await.unwrap();
    }
    // In the journal: it moves on without that file's rows, and with its sums and marks.
    let victim = files(folder.path())
        .into_iter()
        .find(|f| f.starts_with("journal") && f.contains("2-"))
        .unwrap();
    bend(&folder.path().join(&victim));
    while store.maintain(3_600_000).await.unwrap() {}
    assert_eq!(sources(&store, "a").await, [1, 3]);
    assert!(folder.path().join("damaged").join(&victim).exists());
    let windows = |all: &[Summary]| -> u64 {
        let whole = all.iter().filter(|s| !s.histogram.is_empty());
        whole.map(|s| s.windows).sum()
    };
    assert_eq!(windows(&store.summaries().await.unwrap()), 6);
    assert_eq!(store.mark("n", "i"), 3);

    // In a partition: who reads it goes on with the others.
    store.commit(segment(4)).await.unwrap();
    while store.maintain(7_200_000).await.unwrap() {}
    let victim = files(folder.path())
        .into_iter()
        .find(|f| f.starts_with("samples/shop/a") && f.contains("1-"))
        .unwrap();
    bend(&folder.path().join(&victim));
    assert_eq!(sources(&store, "a").await, [4]);
    assert!(folder.path().join("damaged").join(&victim).exists());
    assert_eq!(store.count("shop", "a", (i64::MIN, i64::MAX), |_, _| true), 1);

    // And where it is merged.
    for number in 5..=9 {
        store.commit(segment(number)).await.unwrap();
        store.compact(3_600_000 * number as i64).await.unwrap();
    }
    let victim = files(folder.path())
        .into_iter()
        .find(|f| f.starts_with("samples/shop/b") && f.contains("6-"))
        .unwrap();
    bend(&folder.path().join(&victim));
    for number in 10..=14 {
        store.commit(segment(number)).await.unwrap();
        store.compact(3_600_000 * number as i64).await.unwrap();
    }
    while store.maintain(3_600_000 * 20).await.unwrap() {}
    assert!(folder.path().join("damaged").join(&victim).exists());
    assert_eq!(
        sources(&store, "b").await,
        [1, 3, 4, 5, 7, 8, 9, 10, 11, 12, 13, 14]
    );
}

#[tokio::test]
async fn what_cannot_be_read_now_is_no_damage() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path(), small()).await.unwrap();
    store.commit(segment(1)).await.unwrap();
    let error = StoreError::from(std::io::Error::from_raw_os_error(5));
    let path = files(folder.path())
        .into_iter()
        .find(|f| f.starts_with("journal"))
        .unwrap();
    let refused = store.quarantine(&path, error).await;
    assert!(matches!(refused, Err(StoreError::Io(_))), "{refused:?}");
    assert_eq!(sources(&store, "a").await, [1]);
}

#[tokio::test]
async fn a_checkpoint_that_fails_doubles_no_sums() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path(), small()).await.unwrap();
    let blocked = folder.path().join(CHECKPOINT);
    let mut number = 0;
    let mut commit = async |store: &Store| {
        number += 1;
        store.commit(segment(number)).await.unwrap();
        number
    };
    commit(&store).await;
    std::fs::create_dir_all(blocked.join("x")).unwrap();
    assert!(store.maintain(3_600_000).await.is_err());
    commit(&store).await;
    std::fs::remove_dir_all(&blocked).unwrap();
    // Enough compactions for the sums to be merged.
    let mut last = 2;
    for _ in 0..40 {
        store.maintain(3_600_000).await.unwrap();
        last = commit(&store).await;
    }
    assert_whole(&store, last).await;
    drop(store);
    let store = Store::open(folder.path(), small()).await.unwrap();
    assert_whole(&store, last).await;
}

#[tokio::test]
async fn a_start_reads_footers_alone() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path(), small()).await.unwrap();
    let mut large = segment(1);
    large.rows = (0..5_000).map(|i| row("a", i, i as i64 * 5_000)).collect();
    store.commit(large).await.unwrap();
    let file = files(folder.path())
        .into_iter()
        .find(|f| f.starts_with("journal"))
        .unwrap();
    // A footer longer than what is read at first, and rows that nobody looks at yet.
    bend(&folder.path().join(&file));
    let meta = store.meta(&file).await.unwrap();
    assert_eq!(meta.profiles[0].counts.len(), 5_000);
    drop(store);
    let store = Store::open(folder.path(), small()).await.unwrap();
    assert_eq!(store.count("shop", "a", (i64::MIN, i64::MAX), |_, _| true), 5_000);
}

#[tokio::test]
async fn a_full_volume_costs_old_samples_and_not_the_new_reports() {
    let volume = Volume::new("8m");
    let root = volume.0.path();
    let options = Options {
        max_bytes: 1 << 30,
        reserve: 2 << 20,
        ..Options::default()
    };
    let store = Store::open(root, options).await.unwrap();
    store.commit(segment(1)).await.unwrap();
    while store.maintain(3_600_000).await.unwrap() {}
    assert_eq!(sources(&store, "a").await, [1]);
    // Artifacts, for one.
    std::fs::write(root.join("filler"), vec![0; 6 << 20]).unwrap();
    assert!(matches!(store.commit(segment(2)).await, Err(StoreError::Full(_))));
    assert!(store.maintain(3_600_000).await.unwrap());
    assert!(sources(&store, "a").await.is_empty());
}

#[tokio::test]
async fn samples_past_the_retention_go_and_the_newest_stay() {
    let folder = tempfile::tempdir().unwrap();
    let options = Options {
        max_age: std::time::Duration::from_secs(3600),
        ..small()
    };
    let store = Store::open(folder.path(), options).await.unwrap();
    store.commit(segment(1)).await.unwrap();
    while store.maintain(3_000_000).await.unwrap() {}
    assert_eq!(sources(&store, "a").await, [1]);
    store.commit(segment(5_000)).await.unwrap();
    while store.maintain(6_000_000).await.unwrap() {}
    assert_eq!(sources(&store, "a").await, [5_000]);
    assert_eq!(store.mark("n", "i"), 5_000);
}

#[tokio::test]
async fn the_reserve_is_kept_for_artifacts() {
    let folder = tempfile::tempdir().unwrap();
    let options = Options {
        reserve: u64::MAX,
        ..Options::default()
    };
    let store = Store::open(folder.path(), options).await.unwrap();
    let health = store.health();
    assert!(matches!(store.commit(segment(1)).await, Err(StoreError::Full(_))));
    assert!(health.borrow().full.is_some());
    assert_eq!(store.mark("n", "i"), 0);
    let shard = store.put_run_rows("u-1", "shard-0", vec![row("a", 1, 1)]).await;
    assert!(matches!(shard, Err(StoreError::Full(_))), "{shard:?}");
    store.put_artifact(Bytes::from_static(b"x")).await.unwrap();
}

#[tokio::test]
async fn a_runs_output_is_whole_or_absent() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path(), small()).await.unwrap();
    assert!(store.output("u-1").await.unwrap().is_none());
    let output = Output {
        digest: digest_of(b"bytes"),
        metrics: [("m".to_owned(), 0.5)].into(),
    };
    store
        .put_output("u-1", &output, Bytes::from_static(b"bytes"))
        .await
        .unwrap();
    assert_eq!(
        store.output("u-1").await.unwrap(),
        Some((output.clone(), Bytes::from_static(b"bytes")))
    );
    store
        .put_output("u-1", &output, Bytes::from_static(b"other"))
        .await
        .unwrap();
    assert!(matches!(
        store.output("u-1").await,
        Err(StoreError::Corrupt { .. })
    ));
    store.delete_run("u-1").await.unwrap();
    assert!(store.output("u-1").await.unwrap().is_none());
    assert!(matches!(store.output("../x").await, Err(StoreError::Name(_))));
}

/// Files below a folder, by their path, sorted.
fn files(root: &Path) -> Vec<String> {
    fn walk(folder: &Path, root: &Path, all: &mut Vec<String>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, root, all);
            } else {
                all.push(path.strip_prefix(root).unwrap().to_str().unwrap().to_owned());
            }
        }
    }
    let mut all = vec![];
    walk(root, root, &mut all);
    all.sort();
    all
}

fn copy(from: &Path, to: &Path) {
    for file in files(from) {
        let target = to.join(&file);
        std::fs::create_dir_all(target.parent().unwrap()).unwrap();
        std::fs::copy(from.join(file), target).unwrap();
    }
}

/// A small file system of its own, unmounted at the end.
struct Volume(tempfile::TempDir);

impl Volume {
    fn new(size: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mount = std::process::Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={size}"), "vigia-test"])
            .arg(folder.path())
            .status()
            .unwrap();
        assert!(mount.success(), "this test mounts a tmpfs, which needs root");
        Self(folder)
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        let unmounted = std::process::Command::new("umount")
            .arg("-l")
            .arg(self.0.path())
            .status();
        if !unmounted.is_ok_and(|status| status.success()) {
            eprintln!("{} could not be unmounted", self.0.path().display());
        }
    }
}

#[tokio::test]
async fn a_full_volume_refuses_loses_nothing_and_goes_on_when_there_is_space() {
    let volume = Volume::new("3m");
    let root = volume.0.path();
    let options = Options {
        // Larger than the volume: retention does not help here.
        max_bytes: 1 << 30,
        ..small()
    };
    let store = Store::open(root, options.clone()).await.unwrap();
    let artifact = Bytes::from(vec![1; 100_000]);
    let digest = store.put_artifact(artifact.clone()).await.unwrap();
    store.commit(segment(1)).await.unwrap();
    std::fs::write(root.join("filler"), vec![0; 2 << 20]).unwrap();

    let mut stored = 1;
    let error = loop {
        match store.commit(segment(stored + 1)).await {
            Ok(()) => stored += 1,
            Err(error) => break error,
        }
        assert!(stored < 10_000, "the volume never fills");
    };
    assert!(matches!(error, StoreError::Full(_)), "{error}");
    assert!(store.health().borrow().full.is_some());
    assert_whole(&store, stored).await;
    // Upkeep on a full volume fails, says so, and breaks nothing.
    let upkeep = store.maintain(3_600_000).await;
    assert!(matches!(upkeep, Err(StoreError::Full(_)) | Ok(_)), "{upkeep:?}");
    assert_eq!(store.get_artifact(&digest).await.unwrap(), artifact);
    drop(store);

    let store = Store::open(root, options).await.unwrap();
    assert_eq!(store.mark("n", "i"), stored);
    assert_eq!(store.get_artifact(&digest).await.unwrap(), artifact);
    std::fs::remove_file(root.join("filler")).unwrap();
    store.commit(segment(stored + 1)).await.unwrap();
    assert_eq!(store.health().borrow().full, None);
    assert_eq!(store.mark("n", "i"), stored + 1);
}

mod lost;
