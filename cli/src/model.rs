//! `vigia verify` and `vigia inspect`.

use serde_json::json;
use vigia_model::artifact::{self, ArtifactError, Inspection, Reader, Task};

use crate::args::{Format, Inspect, Verify};
use crate::error::{Failure, NO};
use crate::say::Out;
use crate::{input, say};

/// Checks a model as a node does.
pub fn verify(args: &Verify) -> Result<u8, Failure> {
    let keys = input::keys(&args.keys)?;
    let bytes = input::bytes(&args.file)?;
    let key = input::content_key(args.content_key.as_deref())?;
    let reader = Reader::signed(&keys).with_key(key.as_ref());
    let outcome = reader.open(&bytes, Task::Anomaly);
    if args.format == Format::Json {
        say::json(&match &outcome {
            Ok(model) => json!({
                "verified": true,
                "digest": model.digest.to_string(),
                "name": model.metadata.name,
                "signedBy": model.signed_by.map(|id| id.to_string()),
            }),
            Err(error) => json!({
                "verified": false,
                "digest": artifact::digest(&bytes).to_string(),
                "reason": error.reason(),
                "message": error.to_string(),
            }),
        });
        return Ok(if outcome.is_ok() { 0 } else { NO });
    }
    let model = outcome.map_err(|error| {
        let failure = input::refused(&args.file, &error).answering_no();
        let signer = match error {
            ArtifactError::UntrustedKey(signer) => signer,
            // Whoever verifies has asked whose it is, so that it is one's own is no way out.
            ArtifactError::Unsigned => return failure.next("sign it with `vigia sign`"),
            _ => return failure,
        };
        match input::private_half(&args.keys, signer) {
            Some(public) => failure.next(format!(
                "what --key names is the private half of that key: give the public one, {}",
                public.to_base64()
            )),
            None => failure,
        }
    })?;
    let signer = model.signed_by.map_or_else(String::new, |id| id.to_string());
    Out::Stdout.line(&format!(
        "{}: verified, signed by key {signer}\n{}",
        args.file.display(),
        model.digest
    ));
    Ok(0)
}

/// Shows what a model says about itself.
pub fn inspect(args: &Inspect) -> Result<u8, Failure> {
    let bytes = input::bytes(&args.file)?;
    let found = artifact::inspect(&bytes).map_err(|error| input::refused(&args.file, &error))?;
    let mut key = input::content_key(args.content_key.as_deref())?;
    if found.encrypted_with.is_none() && key.take().is_some() {
        Out::Stderr.line("--content-key: the model is not encrypted");
    }
    let verified = if args.keys.is_empty() {
        // Whose it is remains open then; whether the key is the one can be said.
        let opened = key.map(|key| artifact::decrypt(&bytes, &key));
        opened.and_then(Result::err).map(Err)
    } else {
        let keys = input::keys(&args.keys)?;
        let reader = Reader::signed(&keys).with_key(key.as_ref());
        Some(reader.open(&bytes, Task::Anomaly).map(drop))
    };
    let verdict = match &verified {
        None if found.claimed_key.is_none() => "not signed".to_owned(),
        None => "not verified: give --key".to_owned(),
        Some(Ok(())) => "verified".to_owned(),
        Some(Err(error)) => format!("REFUSED: {error} ({})", error.reason()),
    };
    match args.format {
        Format::Json => say::json(&document(&found, &verdict, verified.as_ref().map(Result::is_ok))),
        Format::Text => print(&found, &verdict),
    }
    Ok(if matches!(verified, Some(Err(_))) { NO } else { 0 })
}

/// What a model says about itself, as JSON.
pub fn document(found: &Inspection, verdict: &str, verified: Option<bool>) -> serde_json::Value {
    let metadata = &found.metadata;
    json!({
        "digest": found.digest.to_string(),
        "verified": verified.unwrap_or(false),
        "verification": verdict,
        "claimedKey": found.claimed_key.map(|id| id.to_string()),
        "encryptedWith": found.encrypted_with.map(|id| id.to_string()),
        "sizeBytes": found.size,
        "payloadBytes": found.payload_size,
        "uncompressedBytes": found.uncompressed_size,
        "name": metadata.name,
        "task": metadata.task.to_string(),
        "schema": metadata.schema,
        "schemaSha256": metadata.schema_hash.to_string(),
        "createdAt": metadata.created_at,
        "madeBy": metadata.made_by,
        "samples": metadata.samples,
        "dataDigest": metadata.data_digest,
        "seed": metadata.seed,
        "hyperparameters": metadata.hyperparameters,
        "metrics": metadata.metrics,
        "labels": metadata.labels,
    })
}

fn print(found: &Inspection, verdict: &str) {
    let metadata = &found.metadata;
    let line = |key: &str, value: &str| Out::Stdout.line(&format!("{key:<14}{}", say::plain(value)));
    let signer = found
        .claimed_key
        .map_or_else(|| "nobody".to_owned(), |id| format!("key {id}, it says"));
    line("name", &metadata.name);
    line("task", &metadata.task.to_string());
    line("signed by", &format!("{signer} ({verdict})"));
    line("digest", &found.digest.to_string());
    if let Some(id) = found.encrypted_with {
        line("encrypted", &format!("with key {id}"));
    }
    line(
        "size",
        &format!(
            "{} bytes, model {} bytes ({} unpacked)",
            say::count(found.size as u64),
            say::count(found.payload_size as u64),
            say::count(found.uncompressed_size as u64)
        ),
    );
    line(
        "schema",
        &format!("{} ({:.12}…)", metadata.schema, metadata.schema_hash.to_string()),
    );
    // So that the same data and seed make the same bytes, nobody's clock is in it.
    line(
        "as of",
        &format!(
            "{} (where its windows end, or its TrainingRun was created)",
            metadata.created_at
        ),
    );
    line("made by", &metadata.made_by);
    line(
        "trained on",
        &format!(
            "{}, seed {}",
            say::windows(usize::try_from(metadata.samples).unwrap_or(usize::MAX)),
            metadata.seed
        ),
    );
    line("data digest", &metadata.data_digest);
    for (name, value) in &metadata.hyperparameters {
        line("parameter", &format!("{name} = {value}"));
    }
    for (name, value) in &metadata.metrics {
        line("metric", &format!("{name} = {}", (value * 1e4).round() / 1e4));
    }
    for (name, value) in &metadata.labels {
        line("label", &format!("{name} = {value}"));
    }
}
