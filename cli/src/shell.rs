//! Completions and manual pages, made from the command line's own definition.

use clap::CommandFactory;

use crate::args::{Completions, Man, Vigia};
use crate::error::Failure;
use crate::say::Out;

/// Prints completions.
pub fn completions(args: &Completions) -> Result<u8, Failure> {
    let mut text = Vec::new();
    clap_complete::generate(args.shell, &mut Vigia::command(), "vigia", &mut text);
    Out::Stdout.text(&String::from_utf8_lossy(&text));
    Ok(0)
}

/// Writes a page for the command and one for each of its own commands.
pub fn man(args: &Man) -> Result<u8, Failure> {
    clap_mangen::generate_to(Vigia::command(), &args.folder)
        .map_err(|error| Failure::write(&args.folder, error))?;
    Ok(0)
}
