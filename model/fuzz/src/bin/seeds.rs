//! Writes the corpus that fuzzing starts from into the folder named by the first argument.

use vigia_model_fuzz::{Good, behind_a_front, payload};

fn main() {
    let folder = std::path::PathBuf::from(std::env::args().nth(1).expect("a folder to write to"));
    let good = Good::make();
    let mut seeds = vec![
        ("signed".to_owned(), 0, good.signed.clone()),
        ("unsigned".to_owned(), 0, good.unsigned.clone()),
        ("encrypted".to_owned(), 0, good.encrypted.clone()),
        ("sealed".to_owned(), 1, good.signed.clone()),
        ("metadata".to_owned(), 2, good.metadata().to_vec()),
        ("payload".to_owned(), 3, payload(&good.unsigned)),
        ("encrypted-payload".to_owned(), 4, payload(&good.unsigned)),
    ];
    for (name, unsigned) in behind_a_front() {
        seeds.push((format!("payload-{name}"), 3, payload(&unsigned)));
    }
    for (name, mode, bytes) in seeds {
        std::fs::write(folder.join(name), [&[mode][..], &bytes].concat()).expect("the folder is writable");
    }
}
