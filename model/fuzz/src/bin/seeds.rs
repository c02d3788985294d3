//! Writes the corpus that fuzzing starts from into the folder named by the first argument.

use vigia_model_fuzz::Good;

fn main() {
    let folder = std::path::PathBuf::from(std::env::args().nth(1).expect("a folder to write to"));
    let good = Good::make();
    let seeds = [
        ("signed", 0, good.signed.clone()),
        ("unsigned", 0, good.unsigned.clone()),
        ("sealed", 1, good.signed.clone()),
        ("metadata", 2, good.metadata().to_vec()),
        ("payload", 3, good.payload()),
    ];
    for (name, mode, bytes) in seeds {
        std::fs::write(folder.join(name), [&[mode][..], &bytes].concat()).expect("the folder is writable");
    }
}
