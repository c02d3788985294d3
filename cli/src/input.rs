//! Reading windows, models and keys.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use vigia_agent::window::Sequences;
use vigia_model::artifact::{self, Artifact, ArtifactError, ContentKey, Contents, Metadata, Reader, Task};
use vigia_model::context::{Context, Past};
use vigia_model::keys::{KeyError, KeyId, PublicKey, SigningKey, TrustedKeys};
use vigia_model::pipeline::{Pipeline, PipelineSpec, ToldSequence, Verdict};
use vigia_model::schema::Schema;
use vigia_model::syscalls::Fingerprint;
use vigia_model::window::Window;
use vigia_trainer::data::{About, MAX_ROWS, RowError, Rows};
use vigia_trainer::parquet;

use crate::args::Trusted;
use crate::brief::{Brief, Briefs};
use crate::error::Failure;
use crate::record::{Edge, Record};
use crate::say::{self, Out};
use crate::vector::Vector;

/// Largest Parquet file that is read.
const MAX_PARQUET: u64 = 1 << 30;
/// Longest line of JSON: a window of every system call there is has 50 KiB.
const MAX_LINE: u64 = 1 << 20;
/// How much of a file of keys is read: more than the longest list of them that is taken.
const MAX_KEYS: u64 = 64 << 10;

/// What one file held.
pub enum Windows {
    /// Vectors; the windows themselves are gone.
    Rows(Rows),
    /// Windows with their system calls.
    Whole(Vec<Seen>),
}

/// A window with its system calls.
#[derive(PartialEq)]
pub struct Seen {
    /// What was counted.
    pub window: Window,
    /// Of what.
    pub target: String,
    /// Calls with those right before them in a thread, and how often each sequence came; none where that was not counted.
    pub sequences: Sequences,
    /// See [`Record::edge`].
    pub edge: Option<Edge>,
    /// See [`Record::capture`].
    pub capture: Option<Fingerprint>,
}

impl Seen {
    /// What is known of it beside its counts.
    pub fn context(&self, schema: &Schema, past: &Past) -> Context {
        let mut context = Context::default();
        let counted = self.sequences.iter();
        let counted = counted.map(|(sequence, count)| (sequence.numbers(), *count));
        context.observe(schema, self.window.arch, counted, past);
        context
    }

    /// The sequences of calls that made a verdict of it, where they did.
    pub fn why(&self, pipeline: &Pipeline, verdict: &Verdict, context: &Context) -> Vec<ToldSequence> {
        let ran = self.sequences.keys().map(|sequence| sequence.numbers());
        pipeline.sequences(verdict, context, self.window.arch, ran)
    }
}

/// Reads a file of windows by its extension.
///
/// # Errors
/// What is wrong with it, and where.
pub fn windows(path: &Path, schema: &'static Schema) -> Result<Windows, Failure> {
    let mut windows = Vec::new();
    let rows = each(path, schema, |seen| {
        if windows.len() == MAX_ROWS {
            return Err(RowError::TooMany);
        }
        windows.push(seen);
        Ok(())
    })?;
    Ok(if rows.is_empty() {
        Windows::Whole(windows)
    } else {
        Windows::Rows(rows)
    })
}

/// Hands over each window of a file as it is read; gives its vectors, where it has these.
fn each(
    path: &Path,
    schema: &'static Schema,
    take: impl FnMut(Seen) -> Result<(), RowError>,
) -> Result<Rows, Failure> {
    match path.extension().and_then(|e| e.to_str()) {
        Some("parquet") => {
            let mut bytes = Vec::new();
            let file = File::open(path).map_err(|error| Failure::read(path, error))?;
            file.take(MAX_PARQUET)
                .read_to_end(&mut bytes)
                .map_err(|error| Failure::read(path, error))?;
            parquet::read(bytes.into(), schema).map_err(|error| Failure::read(path, error))
        }
        Some("jsonl" | "json" | "ndjson") => json_lines(path, schema, take),
        _ => Err(Failure::read(path, "not .parquet and not .jsonl")
            .next("record windows with `vigia trace --output windows.parquet`")),
    }
}

fn json_lines(
    path: &Path,
    schema: &'static Schema,
    mut take: impl FnMut(Seen) -> Result<(), RowError>,
) -> Result<Rows, Failure> {
    let file = File::open(path).map_err(|error| Failure::read(path, error))?;
    let mut reader = BufReader::new(file);
    let (mut line, mut has_windows) = (Vec::new(), false);
    let mut rows = Rows::new(schema);
    for number in 1.. {
        line.clear();
        let read = reader.by_ref().take(MAX_LINE).read_until(b'\n', &mut line);
        if read.map_err(|error| Failure::read(path, error))? == 0 {
            break;
        }
        let at = |why: String| Failure::read(path, format!("line {number}: {why}"));
        if line.len() as u64 == MAX_LINE {
            return Err(at("longer than 1 MiB".to_owned()));
        }
        if line.trim_ascii().is_empty() {
            continue;
        }
        if Vector::is_one(&line) {
            if has_windows {
                return Err(at(
                    "a vector after windows: a file holds one or the other".to_owned()
                ));
            }
            let vector: Vector = serde_json::from_slice(&line).map_err(|error| at(unplaced(&error)))?;
            vector.push(&mut rows).map_err(at)?;
            continue;
        }
        if !rows.is_empty() {
            return Err(at(
                "a window after vectors: a file holds one or the other".to_owned()
            ));
        }
        let record: Record = match serde_json::from_slice(&line) {
            Ok(record) => record,
            Err(error) if error.is_eof() && has_windows && !line.ends_with(b"\n") => {
                Out::Stderr.line(&format!(
                    "warning: {}: line {number} is cut short, as where a recording was broken off, and left out",
                    path.display()
                ));
                break;
            }
            Err(error) => return Err(at(unplaced(&error))),
        };
        if record.partial {
            continue;
        }
        // A command may end at once.
        if record.duration_ms == 0 && record.edge.is_none() {
            return Err(at("duration_ms: 0 is no window's length".to_owned()));
        }
        let seen = Seen {
            window: record.window().map_err(at)?,
            sequences: record.numbered_sequences().map_err(at)?,
            target: record.target,
            edge: record.edge,
            capture: record.capture,
        };
        has_windows = true;
        take(seen).map_err(|error| at(error.to_string()))?;
    }
    Ok(rows)
}

/// What is wrong with one line, without its place in that line, which would read like the file's.
fn unplaced(error: &serde_json::Error) -> String {
    let place = format!(" at line {} column {}", error.line(), error.column());
    let said = error.to_string();
    said.strip_suffix(&place).unwrap_or(&said).to_owned()
}

/// Reads files of windows as vectors, in the order of time; those in which a command began or ended are left out.
///
/// # Errors
/// As [`windows`].
pub fn rows(paths: &[PathBuf], schema: &'static Schema) -> Result<Rows, Failure> {
    read_into(Rows::new(schema), paths)
}

/// The same, of windows that are none of those and lie beside them in memory.
///
/// # Errors
/// As [`windows`].
pub fn rows_beside(others: &Rows, paths: &[PathBuf]) -> Result<Rows, Failure> {
    read_into(others.beside(), paths)
}

fn read_into(mut all: Rows, paths: &[PathBuf]) -> Result<Rows, Failure> {
    let schema = all.schema();
    let mut briefs = Briefs::beside(&all);
    for (file, path) in paths.iter().enumerate() {
        let rows = each(path, schema, |seen| briefs.take(Brief::of(seen, file, schema)))?;
        all.append(rows).map_err(|error| Failure::read(path, error))?;
    }
    let (briefs, given_again) = briefs.in_order();
    let mut pasts = Pasts::default();
    let mut edges = 0;
    for brief in briefs {
        let past = pasts.right_before(&brief.target, &brief.window);
        let context = brief.context.after(past);
        if brief.edge.is_some() {
            edges += 1;
            continue;
        }
        past.push(&brief.window);
        add(&mut all, &brief.window, &brief.target, brief.capture, context)
            .map_err(|error| Failure::read(&paths[brief.file], error))?;
    }
    if edges > 0 {
        Out::Stderr.line(&format!(
            "{} left out, in which a command began or ended",
            say::windows(edges)
        ));
    }
    all.sort();
    let twice = given_again + all.drop_repeated();
    if twice > 0 {
        Out::Stderr.line(&format!(
            "{} given more than once, and taken once",
            say::windows(twice)
        ));
    }
    Ok(all)
}

/// How busy the windows before were, by target.
#[derive(Default)]
pub struct Pasts(HashMap<String, Past>);

impl Pasts {
    /// What is known of a target's next window beside its counts.
    pub fn before(&mut self, schema: &Schema, seen: &Seen) -> Context {
        let past = self.right_before(&seen.target, &seen.window);
        let context = seen.context(schema, past);
        // How a command began says nothing of what comes after.
        if seen.edge.is_none() {
            past.push(&seen.window);
        }
        context
    }

    /// Those of a target right before a window of it.
    fn right_before(&mut self, target: &str, window: &Window) -> &mut Past {
        self.0.entry(target.to_owned()).or_default().right_before(window)
    }
}

/// Adds a window's vector, with what else is known of it.
///
/// # Errors
/// A window without length, or one too many.
pub fn push(rows: &mut Rows, seen: &Seen, context: Context) -> Result<(), String> {
    add(rows, &seen.window, &seen.target, seen.capture, context)
}

fn add(
    rows: &mut Rows,
    window: &Window,
    target: &str,
    capture: Option<Fingerprint>,
    context: Context,
) -> Result<(), String> {
    let mut vector = vec![0.0; rows.width()];
    rows.schema()
        .vector(window, &mut vector)
        .map_err(|error| error.to_string())?;
    let about = About {
        source: source(target),
        started_ms: i64::try_from(window.started_ms).unwrap_or(i64::MAX),
        window_ms: window.duration_ms,
        above_threshold: false,
        capture,
    };
    rows.push_within(&vector, about, context)
        .map_err(|error| error.to_string())
}

/// Tells targets apart in a file.
pub fn source(target: &str) -> u64 {
    use sha2::{Digest, Sha256};
    let digest: [u8; 32] = Sha256::digest(target).into();
    u64::from_le_bytes([
        digest[0], digest[1], digest[2], digest[3], digest[4], digest[5], digest[6], digest[7],
    ])
}

/// Public keys: base64, or files of them.
///
/// # Errors
/// Which is none.
pub fn keys(given: &[String]) -> Result<TrustedKeys, Failure> {
    let mut trusted = TrustedKeys::default();
    for key in given {
        let path = Path::new(key);
        if path.exists() {
            let text = text_of_keys(path).map_err(|error| Failure::read(path, error))?;
            let keys = TrustedKeys::parse(&text).map_err(|error| of_another_kind(path, &text, &error))?;
            trusted.extend(keys.iter().copied());
        } else {
            let parsed = PublicKey::parse(key).map_err(|error| {
                Failure::input(format!("--key {key}: no such file, and {error}"))
                    .next("give the file or the line that `vigia keygen` printed")
            })?;
            trusted.extend([parsed]);
        }
    }
    if trusted.is_empty() && !given.is_empty() {
        return Err(Failure::input(format!(
            "--key {}: no key in it",
            given.join(", ")
        )));
    }
    Ok(trusted)
}

/// What a file of keys says, as far as one is read.
pub fn text_of_keys(path: &Path) -> std::io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(MAX_KEYS).read_to_string(&mut text)?;
    Ok(text)
}

/// A file that holds no public key: what to give instead.
fn of_another_kind(path: &Path, text: &str, error: &KeyError) -> Failure {
    let failure = Failure::read(path, error);
    match (error, SigningKey::parse(text)) {
        (KeyError::Private, Ok(key)) => failure.next(format!(
            "give its public half: --key {}",
            key.public().to_base64()
        )),
        (KeyError::ForContent, _) => {
            failure.next("give the public key of whoever signed the model; this one goes with --content-key")
        }
        _ => failure,
    }
}

/// The public half of the key that signed a model, where what was given in its place is the private one, as it was
/// written when keys did not say their kind.
pub fn private_half(given: &[String], signer: KeyId) -> Option<PublicKey> {
    let texts = given
        .iter()
        .filter_map(|given| text_of_keys(Path::new(given)).ok());
    let mut keys = texts.filter_map(|text| Some(SigningKey::parse(&text).ok()?.public()));
    keys.find(|key| key.id() == signer)
}

/// Bytes of a model, not yet looked at.
///
/// # Errors
/// The file cannot be read.
pub fn bytes(path: &Path) -> Result<Contents, Failure> {
    artifact::map(path).map_err(|error| Failure::read(path, error))
}

/// The key that models are encrypted with, where a file of one is named.
///
/// # Errors
/// It holds none, or others may read it.
pub fn content_key(path: Option<&Path>) -> Result<Option<ContentKey>, Failure> {
    path.map(crate::keys::content_key).transpose()
}

/// A model to score with. One that nobody has signed is taken without a word if it is the user's own: nobody else could
/// have written it.
///
/// # Errors
/// It does not hold, or it was not said whom to trust.
pub fn model(path: &Path, trusted: &Trusted) -> Result<Artifact, Failure> {
    read_own(path, trusted, |reader, bytes| reader.open(bytes, Task::Anomaly))
}

/// A model as data, to be written in another form; trusted as [`model`] is.
///
/// # Errors
/// As [`model`].
pub fn spec(path: &Path, trusted: &Trusted) -> Result<(Metadata, PipelineSpec), Failure> {
    read_own(path, trusted, |reader, bytes| reader.spec(bytes, Task::Anomaly))
}

fn read<T>(
    path: &Path,
    trusted: &Trusted,
    with: impl Fn(Reader<'_>, &[u8]) -> Result<T, ArtifactError>,
) -> Result<T, Failure> {
    let bytes = bytes(path)?;
    let key = content_key(trusted.content_key.as_deref())?;
    let keys = keys(&trusted.keys)?;
    let reader = if trusted.unsigned {
        Reader::unsigned()
    } else if trusted.keys.is_empty() {
        return Err(
            Failure::input(format!("{}: whose signature should it bear?", path.display()))
                .next("give the public key with --key, or --unsigned for a model that you have just trained"),
        );
    } else {
        Reader::signed(&keys)
    };
    with(reader.with_key(key.as_ref()), &bytes).map_err(|error| refused(path, &error))
}

fn read_own<T>(
    path: &Path,
    trusted: &Trusted,
    with: impl Fn(Reader<'_>, &[u8]) -> Result<T, ArtifactError>,
) -> Result<T, Failure> {
    let file = File::open(path).map_err(|error| Failure::read(path, error))?;
    if trusted.keys.is_empty() && !trusted.unsigned && is_own(&file) {
        // Of the file whose owner was looked at, whatever its name leads to by now.
        let bytes = artifact::contents(file).map_err(|error| Failure::read(path, error))?;
        let key = content_key(trusted.content_key.as_deref())?;
        match with(Reader::unsigned().with_key(key.as_ref()), &bytes) {
            Err(ArtifactError::Signed) => {}
            other => return other.map_err(|error| refused(path, &error)),
        }
    }
    read(path, trusted, with)
}

fn is_own(file: &File) -> bool {
    const WRITABLE_BY_OTHERS: u32 = 0o022;
    // SAFETY: geteuid cannot fail and changes nothing.
    let user = unsafe { libc::geteuid() };
    file.metadata()
        .is_ok_and(|meta| meta.uid() == user && meta.mode() & WRITABLE_BY_OTHERS == 0)
}

/// Why a model is not used, and what to do.
pub fn refused(path: &Path, error: &ArtifactError) -> Failure {
    let why = format!("{error} ({})", error.reason());
    let failure = match error {
        // A model that is not the one that is asked for, or not to be believed.
        ArtifactError::Unsigned
        | ArtifactError::Signed
        | ArtifactError::UntrustedKey(_)
        | ArtifactError::BadSignature(_)
        | ArtifactError::Encrypted(_)
        | ArtifactError::WrongContentKey { .. }
        | ArtifactError::Undecryptable => Failure::no(format!("{}: {why}", path.display())),
        // No model, or none that this build reads.
        _ => Failure::read(path, why),
    };
    match error {
        ArtifactError::Unsigned => {
            failure.next("sign it with `vigia sign`, or say --unsigned if it is your own")
        }
        ArtifactError::Signed => {
            failure.next("it is signed: give the public key with --key instead of --unsigned")
        }
        ArtifactError::UntrustedKey(_) => {
            failure.next("if you trust whoever signed it, give that public key with --key")
        }
        ArtifactError::Encrypted(_) | ArtifactError::WrongContentKey { .. } => {
            failure.next("give the file of that key with --content-key")
        }
        ArtifactError::BadSignature(_) | ArtifactError::Checksum { .. } | ArtifactError::Truncated { .. } => {
            failure.next("get the file again from where it was made; do not use this one")
        }
        _ => failure,
    }
}
