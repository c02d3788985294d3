//! A store whose checkpoint is missing, damaged or older than the rest, and one with marks in any number.

use super::*;

/// What a store holds beside marks, which go with the checkpoint.
async fn assert_kept(store: &Store, commits: u64, how: &str) {
    let all: Vec<u64> = (1..=commits).collect();
    assert_eq!(sources(store, "a").await, all, "{how}");
    assert_eq!(sources(store, "b").await, all, "{how}");
    let summaries = store.summaries().await.unwrap();
    let whole = summaries.iter().filter(|s| !s.histogram.is_empty());
    assert_eq!(whole.map(|s| s.windows).sum::<u64>(), 2 * commits, "{how}");
}

/// A store with five commits in samples, five more, and one in the journal; its checkpoints after the first and the second
/// five.
async fn grown(folder: &Path) -> (Vec<u8>, Vec<u8>) {
    let store = Store::open(folder, small()).await.unwrap();
    let mut checkpoints = vec![];
    for number in 1..=10 {
        store.commit(segment(number)).await.unwrap();
        if number % 5 == 0 {
            while store.maintain(3_600_000).await.unwrap() {}
            checkpoints.push(std::fs::read(folder.join(CHECKPOINT)).unwrap());
        }
    }
    store.commit(segment(11)).await.unwrap();
    (checkpoints.remove(0), checkpoints.remove(0))
}

#[tokio::test]
async fn without_a_whole_checkpoint_no_sample_and_no_sum_is_lost() {
    let model = tempfile::tempdir().unwrap();
    let (older, newest) = grown(model.path()).await;
    let bent = |at: usize| {
        let mut bytes = newest.clone();
        bytes[at] ^= 1;
        bytes
    };
    let half = newest[..newest.len() / 2].to_vec();
    for (how, bytes) in [
        ("missing", None),
        ("empty", Some(vec![])),
        ("cut off", Some(half)),
        ("bent", Some(bent(newest.len() - 1))),
        ("of something else", Some(b"PAR1 not at all".to_vec())),
        ("older than the samples", Some(older)),
        ("whole", Some(newest.clone())),
    ] {
        let folder = tempfile::tempdir().unwrap();
        copy(model.path(), folder.path());
        let path = folder.path().join(CHECKPOINT);
        std::fs::remove_file(&path).unwrap();
        if let Some(bytes) = &bytes {
            std::fs::write(&path, bytes).unwrap();
        }
        let is_damaged = !["missing", "older than the samples", "whole"].contains(&how);
        for start in 1..=2 {
            let store = Store::open(folder.path(), small()).await.unwrap();
            assert_kept(&store, 11, how).await;
            let aside = folder.path().join("damaged").join(CHECKPOINT);
            assert_eq!(
                std::fs::read(aside).ok(),
                bytes.clone().filter(|_| is_damaged),
                "{how}"
            );
            // What is in the journal says its marks itself.
            assert_eq!(store.mark("n", "i"), 11, "{how}, start {start}");
        }
        let store = Store::open(folder.path(), small()).await.unwrap();
        store.commit(segment(12)).await.unwrap();
        while store.maintain(7_200_000).await.unwrap() {}
        assert!(path.exists(), "{how}: it is written anew");
        drop(store);
        let store = Store::open(folder.path(), small()).await.unwrap();
        assert_kept(&store, 12, how).await;
    }
}

/// As [`super::a_crash_at_any_step_of_upkeep_loses_and_doubles_nothing`], and the checkpoint is gone with the crash.
#[tokio::test]
async fn a_checkpoint_lost_in_a_crash_at_any_step_of_upkeep_loses_and_doubles_nothing() {
    let before = tempfile::tempdir().unwrap();
    let store = Store::open(before.path(), small()).await.unwrap();
    for number in 1..=10 {
        store.commit(segment(number)).await.unwrap();
        if number == 5 {
            assert!(store.maintain(3_600_000).await.unwrap());
        }
    }
    drop(store);
    let after = tempfile::tempdir().unwrap();
    copy(before.path(), after.path());
    let store = Store::open(after.path(), small()).await.unwrap();
    assert!(store.maintain(3_600_000).await.unwrap());
    drop(store);

    let old = files(before.path());
    let written: Vec<String> = files(after.path())
        .into_iter()
        .filter(|f| !old.contains(f))
        .collect();
    let removed: Vec<&String> = old.iter().filter(|f| f.starts_with("journal")).collect();
    assert_eq!((written.len(), removed.len()), (3, 5), "{written:?}");
    for step in 0..=written.len() + removed.len() {
        for lost in [true, false] {
            let folder = tempfile::tempdir().unwrap();
            copy(before.path(), folder.path());
            for file in written.iter().take(step) {
                std::fs::copy(after.path().join(file), folder.path().join(file)).unwrap();
            }
            for file in removed.iter().take(step.saturating_sub(written.len())) {
                std::fs::remove_file(folder.path().join(file)).unwrap();
            }
            // Or it is that of before, as in a copy that was made while the store was in use.
            if lost {
                std::fs::remove_file(folder.path().join(CHECKPOINT)).unwrap();
            }
            let how = format!("step {step}, {}", if lost { "lost" } else { "old" });
            let store = Store::open(folder.path(), small()).await.unwrap();
            assert_kept(&store, 10, &how).await;
            store.commit(segment(11)).await.unwrap();
            while store.maintain(7_200_000).await.unwrap() {}
            assert_kept(&store, 11, &how).await;
        }
    }
}

#[tokio::test]
async fn a_new_store_and_one_from_before_there_was_a_checkpoint_are_as_they_were() {
    let folder = tempfile::tempdir().unwrap();
    drop(Store::open(folder.path(), small()).await.unwrap());
    let store = Store::open(folder.path(), small()).await.unwrap();
    store.commit(segment(1)).await.unwrap();
    drop(store);
    let store = Store::open(folder.path(), small()).await.unwrap();
    assert_whole(&store, 1).await;
    assert!(!folder.path().join("damaged").exists());
}

#[tokio::test]
async fn instances_of_one_node_in_any_number_cost_nobody_anything() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path(), small()).await.unwrap();
    store.commit(segment(1)).await.unwrap();
    for group in 0..10 {
        let marks = (0..1000).map(|i| Mark {
            instance: format!("i-{group}-{i}"),
            ..mark("bad", 1, 10_000 + group * 1000 + i)
        });
        let marks = marks.collect();
        let segment = Segment {
            marks,
            ..Segment::default()
        };
        store.commit(segment).await.unwrap();
    }
    while store.maintain(3_600_000).await.unwrap() {}
    let written = std::fs::metadata(folder.path().join(CHECKPOINT)).unwrap().len();
    assert!(written < 33 * 40, "{written}");
    drop(store);
    let store = Store::open(folder.path(), small()).await.unwrap();
    assert_whole(&store, 1).await;
    // Of that node the newest are known. What is older would be taken again, which the head of `marks` owns to.
    assert_eq!((store.mark("bad", "i-9-999"), store.mark("bad", "i-0-0")), (1, 0));
}
