//! Errors for people: what happened, to what, and what to do; and the exit code that scripts see.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What kind of thing went wrong: the exit code, and `kind` in JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Kind {
    /// Something that should not happen: 1.
    Unexpected,
    /// What was asked makes no sense: 2, like errors of the command line itself.
    Usage,
    /// The relay cannot be reached, or does not answer: 3.
    Network,
    /// The other side is not the relay of the address: 4.
    Identity,
    /// The relay answered with an error: 5.
    Refused,
    /// The queue is full: 6. Trying again later may work.
    Full,
    /// The local folder: 7.
    State,
}

impl Kind {
    /// The exit code.
    pub(crate) const fn exit_code(self) -> u8 {
        match self {
            Self::Unexpected => 1,
            Self::Usage => 2,
            Self::Network => 3,
            Self::Identity => 4,
            Self::Refused => 5,
            Self::Full => 6,
            Self::State => 7,
        }
    }

    /// The name in JSON.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Unexpected => "unexpected",
            Self::Usage => "usage",
            Self::Network => "network",
            Self::Identity => "identity",
            Self::Refused => "refused",
            Self::Full => "full",
            Self::State => "state",
        }
    }
}

/// Why a command failed.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Failure {
    pub(crate) kind: Kind,
    /// What happened, and to what.
    pub(crate) what: String,
    /// What to do.
    pub(crate) advice: Option<String>,
}

impl Failure {
    pub(crate) fn new(kind: Kind, what: impl Into<String>) -> Self {
        Self { kind, what: what.into(), advice: None }
    }

    pub(crate) fn advise(mut self, advice: impl Into<String>) -> Self {
        self.advice = Some(advice.into());
        self
    }

    /// Something in the local folder.
    pub(crate) fn state(what: impl Into<String>, error: impl fmt::Display) -> Self {
        Self::new(Kind::State, format!("{}: {error}", what.into()))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.what)?;
        if let Some(advice) = &self.advice {
            write!(formatter, "\n       {advice}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Failure {}

/// Writing to the standard output failed: most often somebody stopped reading, as `head` does.
impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::new(Kind::Unexpected, format!("the output cannot be written: {error}"))
    }
}
