//! Images made of single static programs, written as OCI archives without a container engine.

use std::fs::{self, File};
use std::io::Read;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// An image to be: its name, its files, its command.
pub struct Image<'a> {
    /// The name pods use, with a tag: `vigia.local/pause:1`.
    pub name: &'a str,
    /// Each program's path in the image and on this machine.
    pub programs: &'a [(&'a str, &'a str)],
    /// The command that the image runs.
    pub entrypoint: &'a [&'a str],
}

impl Image<'_> {
    /// Writes the image as an OCI archive (OCI image layout 1.0 in a tar). The same input gives the same bytes.
    pub fn write(&self, archive: &Path) -> Result<()> {
        let mut layer = tar::Builder::new(Vec::new());
        for (inside, outside) in self.programs {
            let mut bytes = Vec::new();
            File::open(outside)
                .and_then(|mut file| file.read_to_end(&mut bytes))
                .with_context(|| format!("cannot read {outside}"))?;
            append(&mut layer, inside.trim_start_matches('/'), &bytes, 0o755)?;
        }
        let layer = layer.into_inner()?;
        let config = json!({
            "architecture": architecture(),
            "os": "linux",
            "config": {"Entrypoint": self.entrypoint, "Env": ["PATH=/bin:/usr/bin"]},
            "rootfs": {"type": "layers", "diff_ids": [digest(&layer)]},
        })
        .to_string()
        .into_bytes();
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": descriptor("application/vnd.oci.image.config.v1+json", &config),
            "layers": [descriptor("application/vnd.oci.image.layer.v1.tar", &layer)],
        })
        .to_string()
        .into_bytes();
        let mut entry = descriptor("application/vnd.oci.image.manifest.v1+json", &manifest);
        entry["annotations"] = json!({
            "io.containerd.image.name": self.name,
            "org.opencontainers.image.ref.name": self.name.rsplit(':').next(),
        });
        let index = json!({"schemaVersion": 2, "manifests": [entry]}).to_string();

        let mut out = tar::Builder::new(Vec::new());
        append(
            &mut out,
            "oci-layout",
            br#"{"imageLayoutVersion":"1.0.0"}"#,
            0o644,
        )?;
        append(&mut out, "index.json", index.as_bytes(), 0o644)?;
        for blob in [&layer, &config, &manifest] {
            append(
                &mut out,
                &format!("blobs/{}", digest(blob).replace(':', "/")),
                blob,
                0o644,
            )?;
        }
        fs::write(archive, out.into_inner()?).with_context(|| format!("cannot write {}", archive.display()))
    }
}

fn append(tar: &mut tar::Builder<Vec<u8>>, path: &str, bytes: &[u8], mode: u32) -> Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_size(bytes.len() as u64);
    header.set_mode(mode);
    tar.append_data(&mut header, path, bytes)?;
    Ok(())
}

fn descriptor(media_type: &str, blob: &[u8]) -> Value {
    json!({"mediaType": media_type, "digest": digest(blob), "size": blob.len()})
}

fn digest(bytes: &[u8]) -> String {
    format!("sha256:{:x}", Sha256::digest(bytes))
}

fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_image_gives_the_same_bytes_and_its_blobs_are_named_by_their_digest() {
        let folder = std::env::temp_dir().join(format!("vigia-images-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let program = folder.join("program");
        fs::write(&program, "#!").unwrap();
        let program = program.display().to_string();
        let image = Image {
            name: "vigia.local/x:1",
            programs: &[("/bin/x", &program)],
            entrypoint: &["/bin/x"],
        };
        let (one, two) = (folder.join("one"), folder.join("two"));
        image.write(&one).unwrap();
        image.write(&two).unwrap();
        assert_eq!(fs::read(&one).unwrap(), fs::read(&two).unwrap());

        let mut blobs = 0;
        for entry in tar::Archive::new(File::open(&one).unwrap()).entries().unwrap() {
            let mut entry = entry.unwrap();
            let path = entry.path().unwrap().display().to_string();
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).unwrap();
            if let Some(name) = path.strip_prefix("blobs/sha256/") {
                assert_eq!(digest(&bytes), format!("sha256:{name}"));
                blobs += 1;
            }
        }
        assert_eq!(blobs, 3);
        fs::remove_dir_all(folder).unwrap();
    }
}
