//! The grammar of `-e` on hostile text. Nothing may panic; a set and its negation share nothing, and an error quotes
//! no more than a line of what was given.
#![no_main]

use libfuzzer_sys::fuzz_target;
use vigia_model::syscalls::{Arch, MAX_NUMBER};

// The module alone: the whole command brings the probe and the trainer with it, which have nothing to do with text.
#[path = "../../src/filter/mod.rs"]
mod filter;
use filter::Filter;

fuzz_target!(|text: &str| {
    let arch = Arch::ALL[text.len() % 2];
    let set = match Filter::parse(text, arch) {
        Ok(set) => set,
        Err(error) => {
            assert!(error.to_string().len() < 2000, "{error}");
            return;
        }
    };
    // What a sign in front does to a set without one.
    if !text.contains(['!', '=']) {
        let rest = Filter::parse(&format!("!{text}"), arch);
        let Ok(rest) = rest else {
            assert!(text.len() >= (16 << 10) - 1, "{text:?}: {rest:?}");
            return;
        };
        for number in 0..MAX_NUMBER as u32 {
            assert!(set.has(number) != rest.has(number), "{text:?}: {number}");
        }
    }
});
