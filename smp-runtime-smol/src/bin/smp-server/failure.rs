//! Why a command did not do what it was asked for: one line with cause and way out.

use core::fmt::Display;

/// One line for the operator.
#[derive(Debug)]
pub(crate) struct Failure(String);

impl Failure {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self(message.into())
    }

    pub(crate) fn message(&self) -> &str {
        &self.0
    }
}

/// The errors of the layers below are such lines already.
impl<E: Display + core::error::Error> From<E> for Failure {
    fn from(error: E) -> Self {
        Self(error.to_string())
    }
}
