//! Artifacts: what is written can be read, and everything else is refused for the right reason.

use crate::workload::{REVERSE_SHELL, Store, rows, train};
use proptest::prelude::*;
use std::sync::OnceLock;
use vigia_model::artifact::{self, Artifact, ArtifactError, ContentKey, Metadata, Reader, Task};
use vigia_model::calibration::Severity;
use vigia_model::keys::{SigningKey, TrustedKeys};
use vigia_model::pipeline::{EstimatorSpec, MAX_MEMBERS, PipelineSpec, Scratch};
use vigia_model::schema::{Schema, SchemaHash};

/// Offsets in the header.
const TYPE: usize = 6;
const METADATA_SIZE: usize = 8;
const PAYLOAD_SIZE: usize = 12;
const UNCOMPRESSED_SIZE: usize = 16;
const COMPRESSION: usize = 20;
const FLAGS: usize = 21;
const HEADER: usize = 32;
/// Signature, key and checksum at the end of a signed file.
const TAIL: usize = 64 + 32 + 4;

fn key() -> SigningKey {
    SigningKey::from_seed([7; 32])
}

fn trusted() -> TrustedKeys {
    TrustedKeys::new([SigningKey::from_seed([1; 32]).public(), key().public()])
}

fn spec() -> &'static PipelineSpec {
    static SPEC: OnceLock<PipelineSpec> = OnceLock::new();
    SPEC.get_or_init(|| train(&mut Store::new(1), 120, 60))
}

fn metadata() -> Metadata {
    let mut metadata = Metadata::new("redis", Task::Anomaly, Schema::syscalls_v1());
    metadata.created_at = "2026-11-21T00:00:00Z".to_owned();
    metadata.data_digest = "sha256:0123".to_owned();
    metadata.seed = 42;
    metadata.samples = 180;
    metadata.hyperparameters = [
        ("trees".to_owned(), "100".to_owned()),
        ("psi".to_owned(), "256".to_owned()),
    ]
    .into();
    metadata.metrics = [("holdout".to_owned(), 0.01), ("recall".to_owned(), 1.0)].into();
    metadata.labels = [("team".to_owned(), "shop".to_owned())].into();
    metadata
}

fn unsigned() -> Vec<u8> {
    artifact::encode(&metadata(), spec()).expect("encodes")
}

fn signed() -> &'static [u8] {
    static SIGNED: OnceLock<Vec<u8>> = OnceLock::new();
    SIGNED.get_or_init(|| artifact::sign(&unsigned(), &key()).expect("signs"))
}

fn open(bytes: &[u8]) -> Result<Artifact, ArtifactError> {
    artifact::open(bytes, &trusted(), Task::Anomaly)
}

fn reason(bytes: &[u8]) -> &'static str {
    open(bytes).expect_err("refused").reason()
}

/// The bytes with a right checksum, as whoever tampers would leave them.
fn resealed(mut bytes: Vec<u8>) -> Vec<u8> {
    let end = bytes.len() - 4;
    let checksum = apr_format::crc32(&bytes[..end]);
    bytes[end..].copy_from_slice(&checksum.to_le_bytes());
    bytes
}

fn changed(change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut bytes = signed().to_vec();
    change(&mut bytes);
    resealed(bytes)
}

fn put(bytes: &mut [u8], at: usize, value: u32) {
    bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
}

fn get(bytes: &[u8], at: usize) -> usize {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes")) as usize
}

/// An unsigned container around any metadata and compressed payload, then signed with the trusted key: what
/// a broken trainer, or a signer without checks, could deliver.
fn forged(metadata: &[u8], compressed: &[u8], uncompressed: u32) -> Vec<u8> {
    let mut bytes = unsigned()[..HEADER].to_vec();
    put(&mut bytes, METADATA_SIZE, metadata.len() as u32);
    put(&mut bytes, PAYLOAD_SIZE, compressed.len() as u32);
    put(&mut bytes, UNCOMPRESSED_SIZE, uncompressed);
    bytes.extend_from_slice(metadata);
    bytes.extend_from_slice(compressed);
    bytes.extend_from_slice(&[0; 4]);
    artifact::sign(&resealed(bytes), &key()).expect("a well-formed container")
}

fn good_metadata() -> Vec<u8> {
    let bytes = unsigned();
    bytes[HEADER..HEADER + get(&bytes, METADATA_SIZE)].to_vec()
}

fn with_payload(payload: &[u8]) -> Vec<u8> {
    let compressed = zstd::bulk::compress(payload, 3).expect("compresses");
    forged(&good_metadata(), &compressed, payload.len() as u32)
}

#[test]
fn a_signed_artifact_opens_and_scores() {
    let opened = open(signed()).expect("opens");
    assert_eq!(opened.signed_by, Some(key().id()));
    assert_eq!(opened.metadata, metadata());
    assert_eq!(opened.digest, artifact::digest(signed()));
    let (mut store, mut scratch) = (Store::new(9), Scratch::default());
    let calm = opened
        .pipeline
        .score(&store.window(), &mut scratch)
        .expect("scores");
    let odd = opened
        .pipeline
        .score(&store.window_with(REVERSE_SHELL), &mut scratch)
        .expect("scores");
    assert!(calm.severity == Severity::None && odd.severity > Severity::None);
}

#[test]
fn what_is_loaded_scores_as_what_was_trained() {
    let schema = Schema::syscalls_v1();
    let trained = spec().compile(schema).expect("compiles");
    let loaded = open(signed()).expect("opens").pipeline;
    let mut store = Store::new(10);
    let mut scratch = Scratch::default();
    for _ in 0..200 {
        let window = store.window();
        assert_eq!(
            trained.score(&window, &mut scratch),
            loaded.score(&window, &mut scratch)
        );
    }
    assert_eq!(trained.reference(), loaded.reference());
}

#[test]
fn the_same_pipeline_and_metadata_make_the_same_bytes() {
    assert_eq!(unsigned(), unsigned());
    assert_eq!(artifact::sign(&unsigned(), &key()).expect("signs"), signed());
}

#[test]
fn signing_changes_nothing_that_was_validated() {
    let (unsigned, signed) = (unsigned(), signed());
    assert_eq!(
        unsigned[HEADER..unsigned.len() - 4],
        signed[HEADER..signed.len() - TAIL]
    );
    let validated = artifact::open_unsigned(&unsigned, Task::Anomaly).expect("opens");
    assert_eq!(validated.signed_by, None);
    assert_eq!(validated.metadata, open(signed).expect("opens").metadata);
}

#[test]
fn unsigned_and_signed_are_told_apart() {
    assert!(matches!(open(&unsigned()), Err(ArtifactError::Unsigned)));
    assert!(matches!(
        artifact::open_unsigned(signed(), Task::Anomaly),
        Err(ArtifactError::Signed)
    ));
    assert!(matches!(
        artifact::sign(signed(), &key()),
        Err(ArtifactError::Signed)
    ));
}

#[test]
fn only_pinned_keys_count_never_the_embedded_one() {
    let stranger = SigningKey::from_seed([66; 32]);
    let bytes = artifact::sign(&unsigned(), &stranger).expect("signs");
    assert!(matches!(open(&bytes), Err(ArtifactError::UntrustedKey(id)) if id == stranger.id()));
    // The stranger names a pinned key beside their own signature.
    let at = bytes.len() - 36;
    let mut named = bytes;
    named[at..at + 32].copy_from_slice(key().public().as_bytes());
    assert!(matches!(open(&resealed(named)), Err(ArtifactError::BadSignature(id)) if id == key().id()));
    let nobody = TrustedKeys::default();
    let refused = artifact::open(signed(), &nobody, Task::Anomaly);
    assert!(matches!(refused, Err(ArtifactError::UntrustedKey(_))));
}

#[test]
fn a_key_of_small_order_cannot_be_pinned_and_signs_nothing() {
    // With the identity as key and as R, and S = 0, lax verification accepts any message.
    let identity: [u8; 32] = std::array::from_fn(|i| u8::from(i == 0));
    let bytes = changed(|b| {
        let at = b.len() - TAIL;
        b[at..at + 32].copy_from_slice(&identity);
        b[at + 32..at + 64].fill(0);
        b[at + 64..at + 96].copy_from_slice(&identity);
    });
    assert_eq!(reason(&bytes), "UntrustedKey");
    use base64::Engine as _;
    let text = base64::engine::general_purpose::STANDARD.encode(identity);
    assert!(TrustedKeys::parse(&text).is_err());
}

#[test]
fn size_caps_come_first() {
    let header = |at, value| changed(|b| put(b, at, value));
    assert_eq!(reason(&vec![0; artifact::MAX_FILE + 1]), "TooLarge");
    assert_eq!(
        reason(&header(METADATA_SIZE, artifact::MAX_METADATA as u32 + 1)),
        "TooLarge"
    );
    assert_eq!(reason(&header(PAYLOAD_SIZE, u32::MAX)), "TooLarge");
    assert_eq!(
        reason(&header(UNCOMPRESSED_SIZE, artifact::MAX_PAYLOAD as u32 + 1)),
        "TooLarge"
    );
}

#[test]
fn every_truncation_is_refused_as_one() {
    let bytes = signed();
    for keep in 0..bytes.len() {
        assert_eq!(reason(&bytes[..keep]), "Truncated", "{keep} bytes kept");
    }
}

/// A model without a forest, which is small enough for each of its bits to have a turn.
fn small() -> Vec<u8> {
    let store = &mut Store::new(1);
    let held_out = rows(Schema::syscalls_v1(), (0..60).map(|_| store.window()));
    let deviation = spec().deviation.clone();
    let alone = vec![EstimatorSpec::Deviation];
    let spec =
        PipelineSpec::calibrate(Schema::syscalls_v1(), deviation, alone, &held_out).expect("calibrates");
    artifact::encode(&metadata(), &spec).expect("encodes")
}

#[test]
fn any_bit_changed_anywhere_is_refused_signed_or_not_encrypted_or_not() {
    let (unsigned, content) = (small(), ContentKey::from_bytes(&[9; 32]));
    let encrypted = artifact::encrypt(&unsigned, &content).expect("encrypts");
    let signed = |bytes: &[u8]| artifact::sign(bytes, &key()).expect("signs");
    let trusted = trusted();
    let reader = |is_signed| match is_signed {
        true => Reader::signed(&trusted).with_key(Some(&content)),
        false => Reader::unsigned().with_key(Some(&content)),
    };
    for (form, is_signed, is_sealed, bytes) in [
        ("signed", true, true, signed(&unsigned)),
        ("signed and encrypted", true, true, signed(&encrypted)),
        ("unsigned", false, false, unsigned),
        ("encrypted", false, true, encrypted),
    ] {
        let open = |bytes: &[u8]| reader(is_signed).open(bytes, Task::Anomaly).map(drop);
        open(&bytes).expect("opens as it was written");
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut damaged = bytes.clone();
                damaged[at] ^= 1 << bit;
                assert!(open(&damaged).is_err(), "{form}: bit {bit} at {at}");
                // A checksum is no secret: what was signed or encrypted is refused behind it too. One bit of each byte, and
                // where there are signatures, which take their time, of every third.
                let is_turn = bit == at % 8 && (!is_signed || at % 3 == 0);
                if is_sealed && is_turn && at < bytes.len() - 4 {
                    let error = open(&resealed(damaged)).expect_err("refused");
                    assert_ne!(error.reason(), "ChecksumMismatch", "{form}: bit {bit} at {at}");
                }
            }
        }
    }
}

#[test]
fn trailing_bytes_are_refused() {
    let mut bytes = signed().to_vec();
    bytes.push(0);
    assert!(matches!(open(&bytes), Err(ArtifactError::Trailing(1))));
    // Between signature and checksum, with the checksum made right.
    let mut bytes = signed().to_vec();
    bytes.extend_from_slice(&[0; 100]);
    assert!(matches!(
        open(&resealed(bytes)),
        Err(ArtifactError::Trailing(100))
    ));
}

#[test]
fn damage_is_told_from_forgery() {
    let mut bytes = signed().to_vec();
    bytes[HEADER + 10] ^= 1;
    assert_eq!(reason(&bytes), "ChecksumMismatch");
    assert_eq!(reason(&resealed(bytes)), "BadSignature");
}

#[test]
fn foreign_headers_are_refused() {
    assert_eq!(reason(&changed(|b| b[0] = b'X')), "BadHeader");
    assert_eq!(reason(&changed(|b| b[4] = 2)), "BadHeader");
    assert_eq!(reason(&changed(|b| b[5] = 1)), "BadHeader");
    assert_eq!(reason(&changed(|b| b[TYPE] = 6)), "BadHeader");
    for compression in [0, 2, 3, 9] {
        assert_eq!(reason(&changed(|b| b[COMPRESSION] = compression)), "BadHeader");
    }
    for flag in [4, 8, 16, 32, 64, 128] {
        assert_eq!(reason(&changed(|b| b[FLAGS] |= flag)), "BadHeader");
    }
    for reserved in 23..HEADER {
        assert_eq!(reason(&changed(|b| b[reserved] = 1)), "BadHeader");
    }
}

#[test]
fn models_for_another_task_are_refused() {
    for task in Task::ALL.into_iter().filter(|&t| t != Task::Anomaly) {
        let refused = artifact::open(signed(), &trusted(), task);
        assert!(
            matches!(refused, Err(ArtifactError::Task { expected, got: Task::Anomaly }) if expected == task)
        );
    }
}

#[test]
fn models_of_another_schema_are_refused_on_writing_and_on_reading() {
    let mut other = metadata();
    other.schema_hash = SchemaHash([0; 32]);
    assert!(matches!(
        artifact::encode(&other, spec()),
        Err(ArtifactError::Schema { .. })
    ));
    let mut other = metadata();
    other.schema = "vigia.syscalls.v9".to_owned();
    assert!(matches!(
        artifact::encode(&other, spec()),
        Err(ArtifactError::Schema { .. })
    ));

    let hash = Schema::syscalls_v1().hash().to_string();
    let bytes = String::from_utf8_lossy(&good_metadata()).into_owned();
    assert!(bytes.contains(&hash), "the metadata names the schema's hash");
    let mut metadata = good_metadata();
    let at = metadata
        .windows(64)
        .position(|w| w == hash.as_bytes())
        .expect("the hash");
    metadata[at..at + 64].fill(b'0');
    let payload = unsigned()[HEADER + metadata.len()..].to_vec();
    let payload = &payload[..payload.len() - 4];
    let bytes = forged(&metadata, payload, get(&unsigned(), UNCOMPRESSED_SIZE) as u32);
    assert_eq!(reason(&bytes), "SchemaMismatch");
}

#[test]
fn a_bomb_is_stopped_at_what_the_header_declares() {
    let payload = vec![0u8; 200 << 20];
    let bomb = zstd::bulk::compress(&payload, 3).expect("compresses");
    assert!(bomb.len() < 100_000);
    assert_eq!(
        reason(&forged(&good_metadata(), &bomb, 1000)),
        "DecompressionBomb"
    );
    assert_eq!(
        reason(&forged(&good_metadata(), &bomb, artifact::MAX_PAYLOAD as u32)),
        "DecompressionBomb"
    );
    let short = zstd::bulk::compress(&payload[..10], 3).expect("compresses");
    assert_eq!(
        reason(&forged(&good_metadata(), &short, 1000)),
        "DecompressionBomb"
    );
}

#[test]
fn payloads_that_are_no_pipeline_are_refused() {
    assert_eq!(
        reason(&forged(&good_metadata(), b"not zstd", 8)),
        "BadCompression"
    );
    assert_eq!(reason(&with_payload(&[])), "BadPayload");
    assert_eq!(reason(&with_payload(&[0xff; 64])), "BadPayload");
    let mut payload = bincode::serialize(spec()).expect("encodes");
    assert!(open(&with_payload(&payload)).is_ok());
    payload.push(0);
    assert_eq!(reason(&with_payload(&payload)), "BadPayload");
    let mut crowd = spec().clone();
    crowd.members = vec![crowd.members[0].clone(); MAX_MEMBERS + 1];
    assert!(artifact::encode(&metadata(), &crowd).is_err());
    let payload = bincode::serialize(&crowd).expect("encodes");
    assert_eq!(reason(&with_payload(&payload)), "BadPayload");
}

#[test]
fn pipelines_out_of_range_are_refused_however_well_signed() {
    let refused = |change: fn(&mut PipelineSpec)| {
        let mut spec = spec().clone();
        change(&mut spec);
        assert!(matches!(
            artifact::encode(&metadata(), &spec),
            Err(ArtifactError::Model(_))
        ));
        assert_eq!(
            reason(&with_payload(&bincode::serialize(&spec).expect("encodes"))),
            "InvalidModel"
        );
    };
    refused(|s| s.deviation.normals.truncate(5));
    refused(|s| s.deviation.normals[3].spread = 0.0);
    refused(|s| s.deviation.normals[3].mean = f32::NAN);
    refused(|s| s.deviation.normals[3].present = 0.0);
    refused(|s| s.deviation.normals[3].expected_per_s = f32::INFINITY);
    refused(|s| s.members.clear());
    refused(|s| s.tests = 0.5);
    refused(|s| s.tests = f32::NAN);
    refused(|s| s.members[0].calibration.scale = -1.0);
    refused(|s| s.members[1].calibration.knots.clear());
    refused(|s| {
        let EstimatorSpec::IsolationForest(forest) = &mut s.members[1].estimator else {
            unreachable!()
        };
        forest.features -= 1;
    });
    refused(|s| {
        let EstimatorSpec::IsolationForest(forest) = &mut s.members[1].estimator else {
            unreachable!()
        };
        forest.trees[7].samples = 1;
    });
}

#[test]
fn metadata_that_lies_or_does_not_parse_is_refused() {
    let payload = unsigned()[HEADER + good_metadata().len()..].to_vec();
    let forge = |metadata: &[u8]| {
        let uncompressed = get(&unsigned(), UNCOMPRESSED_SIZE) as u32;
        reason(&forged(metadata, &payload[..payload.len() - 4], uncompressed))
    };
    assert_eq!(forge(&[]), "BadMetadata");
    assert_eq!(forge(&[0xc1; 40]), "BadMetadata");
    // Arrays in arrays, deep enough to overflow a stack that recurses.
    assert_eq!(forge(&[0x91; 60_000]), "BadMetadata");
    let mut trailing = good_metadata();
    trailing.push(0xc0);
    assert_eq!(forge(&trailing), "BadMetadata");
    let mut version = good_metadata();
    let at = version
        .windows(21)
        .position(|w| w == b"vigia.payloadVersion\xa1")
        .expect("the version");
    // An older one would score lower than it was calibrated, a newer one nobody knows how.
    for (other, advice) in [
        (b'1', "train the model anew"),
        (b'9', "the version of Vigía that made it"),
    ] {
        version[at + 21] = other;
        assert_eq!(forge(&version), "PayloadVersion");
        let uncompressed = get(&unsigned(), UNCOMPRESSED_SIZE) as u32;
        let forged = forged(&version, &payload[..payload.len() - 4], uncompressed);
        let said = open(&forged).expect_err("refused").to_string();
        assert!(said.contains(advice), "{said}");
    }
}

#[test]
fn metadata_that_cannot_be_read_back_is_not_written() {
    let mut nan = metadata();
    nan.metrics.insert("recall".to_owned(), f64::NAN);
    assert!(matches!(
        artifact::encode(&nan, spec()),
        Err(ArtifactError::Encode(_))
    ));
    let mut reserved = metadata();
    reserved
        .labels
        .insert("vigia.task".to_owned(), "Threat".to_owned());
    assert!(matches!(
        artifact::encode(&reserved, spec()),
        Err(ArtifactError::Encode(_))
    ));
    let mut huge = metadata();
    huge.labels
        .insert("note".to_owned(), "x".repeat(artifact::MAX_METADATA));
    assert!(matches!(
        artifact::encode(&huge, spec()),
        Err(ArtifactError::TooLarge { .. })
    ));
}

#[test]
fn inspection_shows_without_trusting() {
    let shown = artifact::inspect(signed()).expect("well-formed");
    assert_eq!(shown.claimed_key, Some(key().id()));
    assert_eq!((shown.metadata, shown.size), (metadata(), signed().len()));
    assert_eq!(
        artifact::inspect(&unsigned()).expect("well-formed").claimed_key,
        None
    );
    assert!(artifact::inspect(&signed()[1..]).is_err());
}

#[test]
fn files_are_replaced_whole_and_read_bounded() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("model.apr");
    artifact::write_atomic(&path, b"old").expect("writes");
    artifact::write_atomic(&path, signed()).expect("replaces");
    assert_eq!(artifact::read(&path).expect("reads"), signed());
    let left: Vec<_> = std::fs::read_dir(folder.path()).expect("a folder").collect();
    assert_eq!(left.len(), 1, "{left:?}");
    let before = std::fs::read_dir(folder.path()).expect("a folder").count();
    artifact::can_write(&path).expect("over what is there");
    artifact::can_write(&folder.path().join("new.apr")).expect("beside it");
    let after = std::fs::read_dir(folder.path()).expect("a folder").count();
    assert_eq!(after, before, "a try leaves nothing");
    assert!(artifact::can_write(folder.path()).is_err());
    let socket = folder.path().join("socket");
    let _listens = std::os::unix::net::UnixListener::bind(&socket).expect("binds");
    assert!(artifact::can_write(&socket).is_err());
    assert!(artifact::write_atomic(&socket, b"x").is_err());
    assert!(!socket.is_file(), "it is still one");
    assert!(artifact::can_write(&folder.path().join("missing/model.apr")).is_err());
    assert!(artifact::write_atomic(&folder.path().join("missing/model.apr"), b"x").is_err());

    let huge = folder.path().join("huge");
    let file = std::fs::File::create(&huge).expect("creates");
    file.set_len(artifact::MAX_FILE as u64 * 4).expect("sparse");
    assert_eq!(reason(&artifact::read(&huge).expect("reads")), "TooLarge");
}

#[test]
fn digests_are_written_and_read() {
    let digest = artifact::digest(b"abc");
    let text = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    assert_eq!(digest.to_string(), text);
    assert_eq!(text.parse(), Ok(digest));
    for bad in [
        "",
        "sha256:",
        &text[7..],
        &text.to_uppercase(),
        &format!("{text}0"),
        "sha512:00",
    ] {
        assert!(bad.parse::<artifact::Digest>().is_err(), "{bad}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_flipped_bit_goes_unnoticed(at: prop::sample::Index, bit in 0u8..8) {
        let mut bytes = signed().to_vec();
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        prop_assert!(open(&bytes).is_err());
    }

    #[test]
    fn no_flipped_bit_goes_unnoticed_with_the_checksum_made_right(at: prop::sample::Index, bit in 0u8..8) {
        let at = at.index(signed().len() - 4);
        let bytes = changed(|b| b[at] ^= 1 << bit);
        let error = open(&bytes).expect_err("refused");
        prop_assert_ne!(error.reason(), "ChecksumMismatch");
    }

    #[test]
    fn arbitrary_bytes_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        prop_assert!(open(&bytes).is_err());
        prop_assert!(artifact::open_unsigned(&bytes, Task::Anomaly).is_err());
        prop_assert!(artifact::inspect(&bytes).is_err());
    }

    #[test]
    fn signed_nonsense_is_refused_without_a_panic(
        metadata in prop::collection::vec(any::<u8>(), 0..200), payload in prop::collection::vec(any::<u8>(), 0..2000),
    ) {
        prop_assert!(open(&forged(&metadata, &payload, 1000)).is_err());
        let compressed = zstd::bulk::compress(&payload, 3).expect("compresses");
        prop_assert!(open(&forged(&good_metadata(), &compressed, payload.len() as u32)).is_err());
    }

    #[test]
    fn a_payload_with_one_byte_changed_opens_to_a_pipeline_that_scores_or_not_at_all(
        at: prop::sample::Index, byte: u8,
    ) {
        let mut payload = bincode::serialize(spec()).expect("encodes");
        let at = at.index(payload.len());
        payload[at] = byte;
        if let Ok(opened) = open(&with_payload(&payload)) {
            let verdict = opened.pipeline.score(&Store::new(3).window_with(REVERSE_SHELL), &mut Scratch::default());
            prop_assert!(verdict.is_ok_and(|v| (0.0..=1.0).contains(&v.score)));
        }
    }

    #[test]
    fn metadata_comes_back(
        name in "\\PC{0,40}", created_at in "\\PC{0,30}", seed: u64, samples: u64,
        metrics in prop::collection::btree_map("[a-z]{1,8}", -1e9f64..1e9, 0..6),
        labels in prop::collection::btree_map("[a-z]{1,8}", "\\PC{0,20}", 0..6),
    ) {
        let metadata = Metadata { name, created_at, seed, samples, metrics, labels, ..metadata() };
        let bytes = artifact::encode(&metadata, spec()).expect("encodes");
        prop_assert_eq!(artifact::open_unsigned(&bytes, Task::Anomaly).expect("opens").metadata, metadata);
    }
}

#[test]
fn an_artifact_says_of_which_calls_its_windows_were() {
    let mut said = metadata();
    assert!(said.fits("all") && said.fits("other"), "it does not say");
    said.set_captures(&["all", "c0c0"]);
    assert_eq!(said.captures().collect::<Vec<_>>(), ["all", "c0c0"]);
    assert!(said.fits("all") && said.fits("c0c0") && !said.fits("other"));
    assert!(!said.fits("c0"));
}
