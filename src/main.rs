//! The `tapgate` program: everything is in the library, see `tapgate::cli`.

fn main() -> std::process::ExitCode {
    tapgate::cli::main()
}
