//! Where the cluster's programs are. `e2e/parts/build.sh` knows, and builds what is missing.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

/// Folders of programs, one for each part that was asked for.
#[derive(Debug, Clone)]
pub struct Parts(Vec<PathBuf>);

impl Parts {
    /// Finds the parts, building those that were never built: minutes the first time, milliseconds after.
    pub fn find(parts: &[&str]) -> Result<Self> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("parts/build.sh");
        let output = Command::new(&script)
            .arg("--bin")
            .args(parts)
            .stdin(Stdio::null())
            .stderr(Stdio::inherit())
            .output()
            .with_context(|| format!("cannot run {}", script.display()))?;
        ensure!(
            output.status.success(),
            "the cluster's programs could not be built: run scripts/setup.sh cluster and read what it says"
        );
        let folders = String::from_utf8(output.stdout)?;
        Ok(Self(folders.lines().map(PathBuf::from).collect()))
    }

    /// The full path of a program.
    pub fn program(&self, name: &str) -> Result<String> {
        self.0
            .iter()
            .map(|folder| folder.join(name))
            .find(|path| path.is_file())
            .map(|path| path.display().to_string())
            .with_context(|| format!("no part of this cluster has the program {name}"))
    }

    /// The folder that holds a program.
    pub fn folder_of(&self, name: &str) -> Result<String> {
        let program = self.program(name)?;
        Ok(program[..program.len() - name.len() - 1].to_owned())
    }
}
