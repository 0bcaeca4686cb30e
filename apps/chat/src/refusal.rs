//! Why a request is not carried out: what its sender may know, apart from what the log needs.

use std::error::Error;
use std::fmt;
use std::sync::Arc;

use serde::Serialize;

/// The answer to a request that is not carried out.
#[derive(Clone)]
pub(crate) struct Refusal {
    pub(crate) code: Code,
    /// A sentence for the person who asked.
    pub(crate) message: String,
    /// What failed on our side.
    pub(crate) cause: Option<Arc<dyn Error + Send + Sync>>,
}

/// What kind of refusal, for programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Code {
    NotFound,
    Forbidden,
    Invalid,
    Conflict,
    TooLarge,
    Unavailable,
}

impl Refusal {
    pub(crate) fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), cause: None }
    }

    /// Returns a refusal that asks to try again, for a failure that the sender can do nothing about.
    pub(crate) fn unavailable(
        message: impl Into<String>,
        cause: impl Error + Send + Sync + 'static,
    ) -> Self {
        Self { code: Code::Unavailable, message: message.into(), cause: Some(Arc::new(cause)) }
    }
}

impl fmt::Debug for Refusal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:?}: {}", self.code, self.message)
    }
}

/// Logs a failure of ours that is answered without its cause.
pub(crate) fn log(error: &(dyn Error + 'static), what: &'static str) {
    tracing::warn!(error = %Chain(error), "{what}");
}

/// Shows an error with everything that caused it, on one line.
pub(crate) struct Chain<'a>(pub(crate) &'a (dyn Error + 'a));

impl fmt::Display for Chain<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", self.0)?;
        let mut source = self.0.source();
        while let Some(error) = source {
            write!(formatter, ": {error}")?;
            source = error.source();
        }
        Ok(())
    }
}
