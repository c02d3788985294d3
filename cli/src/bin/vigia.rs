//! See the library: both names are one program.

fn main() -> std::process::ExitCode {
    vigia_cli::main()
}
