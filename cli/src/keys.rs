//! `vigia keygen`, `vigia sign`, `vigia encrypt` and `vigia decrypt`.

use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use serde_json::json;
use vigia_model::artifact::{self, ArtifactError, ContentKey};
use vigia_model::keys::{KeyError, PublicKey, SigningKey};

use crate::args::{Decrypt, Encrypt, Format, Keygen, Sign};
use crate::error::Failure;
use crate::files::{self, Given};
use crate::{input, say};

/// What of a key is no secret.
struct Shown {
    id: String,
    /// Of one to sign with.
    public: Option<String>,
}

impl From<SigningKey> for Shown {
    fn from(key: SigningKey) -> Self {
        Self {
            id: key.id().to_string(),
            public: Some(key.public().to_base64()),
        }
    }
}

impl From<ContentKey> for Shown {
    fn from(key: ContentKey) -> Self {
        Self {
            id: key.id().to_string(),
            public: None,
        }
    }
}

/// Writes a new private key, prints the public one; or prints that of a key that is there.
pub fn keygen(args: &Keygen) -> Result<u8, Failure> {
    let key = match (args.public, args.content) {
        (true, false) => signing_key(&args.file)?.into(),
        (true, true) => content_key(&args.file)?.into(),
        (false, is_content) => new_key(&args.file, is_content)?,
    };
    show(args, &key);
    if !args.public && say::is_unsaid() {
        let content = if args.content { "--content " } else { "" };
        say::Out::Stderr.line(&format!(
            "the key is in {file}; `vigia keygen {content}-y {file}` prints again what was to be printed of it",
            file = args.file.display()
        ));
    }
    Ok(0)
}

fn new_key(path: &Path, is_content: bool) -> Result<Shown, Failure> {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed)
        .map_err(|error| Failure::input(format!("no randomness from the system: {error}")))?;
    let (text, key) = if is_content {
        (ContentKey::to_text(&seed), ContentKey::from_bytes(&seed).into())
    } else {
        (SigningKey::to_text(&seed), SigningKey::from_seed(seed).into())
    };
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .map_err(|error| match error.kind() {
            ErrorKind::AlreadyExists => {
                Failure::write(path, "is there already, and a key that is lost is lost")
                    .next("write to another file, or remove that one if you are sure")
            }
            _ => Failure::write(path, error),
        })?;
    let written = writeln!(file, "{text}").and_then(|()| file.sync_all());
    written.map_err(|error| {
        // Half a key is none, and what is there would only be in the way of the next try.
        let _ = fs::remove_file(path);
        Failure::write(path, error)
    })?;
    Ok(key)
}

fn show(args: &Keygen, key: &Shown) {
    match (&key.public, args.format) {
        (None, Format::Text) => say::Out::Stdout.line(&key.id),
        (None, Format::Json) => say::json(&json!({"file": args.file, "keyId": key.id})),
        (Some(public), Format::Text) => {
            say::Out::Stdout.line(public);
            if !args.public {
                say::Out::Stderr.line(&format!(
                    "private key in {}, key id {}",
                    args.file.display(),
                    key.id
                ));
            }
        }
        (Some(public), Format::Json) => say::json(&json!({
            "file": args.file,
            "publicKey": public,
            "keyId": key.id,
        })),
    }
}

/// Signs a model, in place or into another file.
pub fn sign(args: &Sign) -> Result<u8, Failure> {
    let output = args.output.as_ref().unwrap_or(&args.file);
    files::apart(&[("the signed model", output)], &[("--key", &args.key)])?;
    let key = signing_key(&args.key)?;
    let unsigned = input::bytes(&args.file)?;
    let signed = artifact::sign(&unsigned, &key).map_err(|error| {
        let failure = Failure::read(&args.file, &error);
        match error {
            ArtifactError::Signed => failure
                .next("sign the file that `vigia train` wrote; --output keeps it beside the signed one"),
            _ => failure,
        }
    })?;
    artifact::write_atomic(output, &signed).map_err(|error| Failure::write(output, error))?;
    let digest = artifact::digest(&signed);
    match args.format {
        Format::Text => {
            say::Out::Stdout.line(&format!(
                "{}: signed by key {}\n{digest}",
                output.display(),
                key.id()
            ));
        }
        Format::Json => say::json(&json!({
            "file": output,
            "digest": digest.to_string(),
            "keyId": key.id().to_string(),
        })),
    }
    Ok(0)
}

/// Encrypts a model, in place or into another file.
pub fn encrypt(args: &Encrypt) -> Result<u8, Failure> {
    let output = args.output.as_ref().unwrap_or(&args.file);
    let key_file = ("--content-key", args.content_key.as_path());
    files::apart(&[("the encrypted model", output)], &[key_file])?;
    let key = ContentKey::load_marked(&args.content_key)
        .map_err(|error| content_key_problem(&args.content_key, &error))?;
    let bytes = input::bytes(&args.file)?;
    let sealed = artifact::encrypt(&bytes, &key).map_err(|error| match error {
        ArtifactError::Signed => Failure::read(&args.file, "is signed already")
            .next("encrypt first, sign then: a signature covers what is encrypted"),
        other => Failure::read(&args.file, other),
    })?;
    // A file that is mapped is not written over; its folder's entry is.
    artifact::write_atomic(output, &sealed).map_err(|error| Failure::write(output, error))?;
    say::Out::Stdout.line(&format!("{}: encrypted with key {}", output.display(), key.id()));
    Ok(0)
}

/// Decrypts a model into another file.
pub fn decrypt(args: &Decrypt) -> Result<u8, Failure> {
    let inputs: [Given<'_>; 2] = [("FILE", &args.file), ("--content-key", &args.content_key)];
    files::apart(&[("--output", &args.output)], &inputs)?;
    let key = content_key(&args.content_key)?;
    let bytes = input::bytes(&args.file)?;
    let readable = artifact::decrypt(&bytes, &key).map_err(|error| input::refused(&args.file, &error))?;
    artifact::write_atomic(&args.output, &readable).map_err(|error| Failure::write(&args.output, error))?;
    say::Out::Stdout.line(&format!("{}: not signed", args.output.display()));
    Ok(0)
}

/// The key that is in this file, to decrypt with.
pub fn content_key(path: &Path) -> Result<ContentKey, Failure> {
    ContentKey::load(path).map_err(|error| content_key_problem(path, &error))
}

/// The key that is in this file, to sign with.
pub fn signing_key(path: &Path) -> Result<SigningKey, Failure> {
    SigningKey::load(path).map_err(|error| {
        let error = match error {
            KeyError::Mode { .. } => of_another_kind(path).unwrap_or(error),
            other => other,
        };
        let failure = unusable(path, &error);
        match error {
            KeyError::Io { source, .. } if source.kind() == ErrorKind::NotFound => {
                failure.next(format!("make one with `vigia keygen {}`", path.display()))
            }
            KeyError::UnmarkedSigning => failure.next(
                "if this is a public key, give the private one; if an older vigia made it to sign with, write \
                 vigia-signing-key: before what is in it; `vigia keygen FILE` makes a new one",
            ),
            KeyError::ForContent => {
                failure.next("give the file of a key to sign with; `vigia keygen FILE` makes one")
            }
            _ => failure,
        }
    })
}

/// Where a file that others may read holds no private key to sign with, that is what is wrong, and not who may read it.
fn of_another_kind(path: &Path) -> Option<KeyError> {
    let text = input::text_of_keys(path).ok()?;
    let public = || {
        PublicKey::parse(&text)
            .is_ok()
            .then_some(KeyError::UnmarkedSigning)
    };
    SigningKey::parse(&text).err().or_else(public)
}

fn content_key_problem(path: &Path, error: &KeyError) -> Failure {
    let failure = unusable(path, error);
    match error {
        KeyError::Io { source, .. } if source.kind() == ErrorKind::NotFound => failure.next(format!(
            "make one with `vigia keygen --content {}`",
            path.display()
        )),
        KeyError::Unmarked => failure.next(
            "make one with `vigia keygen --content FILE`; if an older vigia made this one so, write \
             vigia-content-key: before what is in it",
        ),
        KeyError::Content => {
            failure.next("give the file of a key to encrypt with; `vigia keygen --content FILE` makes one")
        }
        _ => failure,
    }
}

/// Names the file, where the reason does not.
fn unusable(path: &Path, error: &KeyError) -> Failure {
    match error {
        KeyError::Io { .. } | KeyError::Mode { .. } => Failure::input(error),
        _ => Failure::read(path, error),
    }
}
