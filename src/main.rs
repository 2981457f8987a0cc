//! The `novella` program. All of it is in the library.

fn main() -> std::process::ExitCode {
    novella::cli::run()
}
