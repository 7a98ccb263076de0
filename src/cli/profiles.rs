//! (to come)
pub(super) fn list(_: &std::path::Path, _: bool) -> std::process::ExitCode {
    std::process::ExitCode::FAILURE
}
pub(super) fn show(_: &std::path::Path, _: &str) -> std::process::ExitCode {
    std::process::ExitCode::FAILURE
}
pub(super) fn check(_: &std::path::Path) -> std::process::ExitCode {
    std::process::ExitCode::FAILURE
}
