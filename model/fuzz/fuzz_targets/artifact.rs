//! The artifact reader on hostile bytes. The first byte says how deep the rest is planted, so that coverage
//! reaches behind checksum, compression and encryption: a whole file, a file with its checksum made right, metadata of a
//! well-formed container, the decompressed payload of one, or that of one encrypted with a key that is given.
//!
//! Nothing may panic, and what opens must score and say why.
#![no_main]

use apr_format::{Compression, Header, ModelType};
use libfuzzer_sys::fuzz_target;
use std::sync::LazyLock;
use vigia_model::artifact::{self, Artifact, Reader, Task};
use vigia_model::pipeline::Scratch;
use vigia_model::syscalls::Arch;
use vigia_model::window::{Calls, Window};
use vigia_model_fuzz::{Good, context};

static GOOD: LazyLock<Good> = LazyLock::new(Good::make);

fn container(metadata: &[u8], payload: &[u8]) -> Vec<u8> {
    let compressed = zstd::bulk::compress(payload, 1).expect("compresses");
    let mut header = Header::new(ModelType::Custom);
    header.compression = Compression::ZstdDefault;
    header.metadata_size = metadata.len() as u32;
    header.payload_size = compressed.len() as u32;
    header.uncompressed_size = payload.len() as u32;
    let mut bytes = [&header.to_bytes()[..], metadata, &compressed, &[0; 4]].concat();
    seal(&mut bytes);
    bytes
}

fn seal(bytes: &mut [u8]) {
    if let Some(end) = bytes.len().checked_sub(4) {
        let checksum = apr_format::crc32(&bytes[..end]);
        bytes[end..].copy_from_slice(&checksum.to_le_bytes());
    }
}

fn score(artifact: &Artifact) {
    let calls = (0..450).map(|nr| Calls {
        nr,
        count: u64::from(nr) * 7,
        errors: u64::from(nr % 3),
    });
    // Everything is known that an estimator may look at, so that each has something to say.
    let (window, context) = (Window::new(Arch::X86_64, 0, 1000, calls), context(7));
    let verdict = artifact
        .pipeline
        .score_within(&window, &context, &mut Scratch::default());
    let verdict = verdict.expect("a window has a verdict");
    assert!((0.0..=1.0).contains(&verdict.score));
    assert!(verdict.p_value > 0.0 && verdict.p_value <= 1.0);
    let ran = [[0, 1, 2], [59, 41, 42]];
    let told = artifact
        .pipeline
        .sequences(&verdict, &context, Arch::X86_64, ran);
    assert!(told.iter().all(|one| !one.calls.is_empty()));
}

fuzz_target!(|data: &[u8]| {
    let Some((mode, data)) = data.split_first() else {
        return;
    };
    let bytes = match mode % 5 {
        0 => data.to_vec(),
        1 => {
            let mut bytes = data.to_vec();
            seal(&mut bytes);
            bytes
        }
        2 => container(data, &[]),
        3 => container(GOOD.metadata(), data),
        _ => {
            let whole = container(GOOD.metadata(), data);
            artifact::encrypt(&whole, &GOOD.content).unwrap_or(whole)
        }
    };
    let _ = artifact::inspect(&bytes);
    let _ = artifact::open(&bytes, &GOOD.trusted, Task::Anomaly);
    let _ = artifact::open_unsigned(&bytes, Task::Anomaly);
    let with_key = Reader::unsigned().with_key(Some(&GOOD.content));
    if let Ok(unsigned) = with_key.open(&bytes, Task::Anomaly) {
        score(&unsigned);
        let signed = artifact::sign(&bytes, &GOOD.key).expect("what opens can be signed");
        let with_keys = Reader::signed(&GOOD.trusted).with_key(Some(&GOOD.content));
        score(&with_keys.open(&signed, Task::Anomaly).expect("what was signed opens"));
    }
});
