//! Writes the corpus that fuzzing starts from into the folder named by the first argument.

fn main() {
    let folder = std::path::PathBuf::from(std::env::args().nth(1).expect("a folder to write to"));
    let seeds = [
        "trace=read,write",
        "!%file,desc",
        "t=?open,!close,/^p(read|write)64$",
        "all,!none,59",
        "%process,%network,%memory,%ipc,%signal,%creds,%clock",
        "opne",
        "abbrev=all",
    ];
    for (number, seed) in seeds.iter().enumerate() {
        std::fs::write(folder.join(number.to_string()), seed).expect("the folder is writable");
    }
}
