//! (to come)
pub(super) fn run(_: &std::path::Path, _: bool) -> std::process::ExitCode {
    std::process::ExitCode::FAILURE
}
