//! What went wrong, as an exit code, a line and a hint.

use yunju_manager::http;
use yunju_manager::model::Problem;
use yunju_manager::serve;

/// A command that was not carried out for a known reason.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// Nobody answers on the local socket.
    #[error("the service cannot be reached: {0}")]
    Unreachable(http::Error),
    /// Nobody answers at an address.
    #[error("{url} cannot be reached: {error}")]
    Away {
        /// Where.
        url: String,
        /// Why.
        error: String,
    },
    /// Somebody answers with a certificate that is not believed.
    #[error("the certificate of {url} is not trusted: {error} (its SHA-256 is {fingerprint})")]
    Distrusted {
        /// Where.
        url: String,
        /// Why.
        error: String,
        /// The certificate's SHA-256, in hexadecimal.
        fingerprint: String,
    },
    /// The service refuses.
    #[error("{}", .0.detail)]
    Refused(Problem),
    /// An operation ended otherwise than it should.
    #[error("{}", .0.detail)]
    Operation(Problem),
    /// It took longer than it may.
    #[error("{0}")]
    TimedOut(String),
    /// A guest's command ended with this code.
    #[error("the command ended with code {0}")]
    Guest(u8),
}

/// Refusals that a login helps against.
const LOGIN: [&str; 2] = ["password_change_needed", "second_factor_needed"];

/// The exit code for `error`.
pub fn exit_code(error: &anyhow::Error) -> u8 {
    match error.downcast_ref::<Failure>() {
        Some(Failure::Unreachable(_) | Failure::Away { .. } | Failure::Distrusted { .. }) => 3,
        Some(Failure::Refused(problem)) => match problem.status {
            400 | 413 | 415 | 422 => 2,
            _ if problem.code == "quota_exceeded" => 8,
            401 | 429 => 4,
            403 if LOGIN.contains(&problem.code.as_str()) => 4,
            403 => 5,
            404 => 6,
            409 | 410 | 412 | 428 => 7,
            _ => 1,
        },
        Some(Failure::TimedOut(_)) => 9,
        Some(Failure::Operation(_)) => 10,
        Some(Failure::Guest(code)) => *code,
        None => 1,
    }
}

/// What may help, if something is known to.
pub fn hint(error: &anyhow::Error) -> Option<&'static str> {
    if let Some(Failure::Unreachable(_)) = error.downcast_ref() {
        return Some("start it with `yunju serve`, or say with --data which one is meant");
    }
    if let Some(Failure::Distrusted { .. }) = error.downcast_ref() {
        return Some(
            "if it is the right one, say so with `yunju login --fingerprint`, or who signed it with `yunju login --ca-file`",
        );
    }
    if let Some(Failure::Refused(problem)) = error.downcast_ref() {
        match (problem.status, problem.code.as_str()) {
            (401, _) => return Some("log in with `yunju login URL`"),
            (_, "quota_exceeded") => {
                return Some(
                    "remove what is not needed, or ask an admin for more: `yunju user show` says how much there is",
                );
            }
            _ => {}
        }
    }
    match error.downcast_ref() {
        Some(serve::Error::Listen { .. }) => Some("choose another address with --listen"),
        _ => None,
    }
}
