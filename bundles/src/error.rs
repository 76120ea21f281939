// SPDX-License-Identifier: Apache-2.0
//! The one error of the crate: what failed, on which field, entry or file, why, and what to do.

use std::fmt;

/// What `Result` means everywhere in this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// One failure, told in one sentence: `subject: why (what to do)`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    subject: String,
    why: String,
    hint: Option<String>,
}

impl Error {
    /// A failure on `subject` (a file, an entry of an archive, a JSON path, an argument).
    pub fn new(subject: impl Into<String>, why: impl Into<String>) -> Self {
        Self { subject: subject.into(), why: why.into(), hint: None }
    }

    /// The same error with a way out, printed in brackets.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The same failure, told of `subject`.
    pub fn of(self, subject: impl Into<String>) -> Self {
        Self { subject: subject.into(), ..self }
    }

    /// Subject, reason and way out, for an error type of the caller's.
    pub fn parts(&self) -> (&str, &str, Option<&str>) {
        (&self.subject, &self.why, self.hint.as_deref())
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.subject, self.why)?;
        self.hint.as_ref().map_or(Ok(()), |hint| write!(f, " ({hint})"))
    }
}

impl std::error::Error for Error {}

/// Adds to a bare error what it was about.
pub trait Context<T> {
    /// `subject` is what was tried, such as `open /x/index.json`.
    fn context(self, subject: impl FnOnce() -> String) -> Result<T>;
}

impl<T, E: fmt::Display> Context<T> for Result<T, E> {
    fn context(self, subject: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|error| Error::new(subject(), plain(&error)))
    }
}

/// As this project's messages are: a small letter first, and no number of the kernel's.
pub fn plain(error: &impl fmt::Display) -> String {
    let text = error.to_string();
    let text = text.rsplit_once(" (os error ").map_or(text.as_str(), |(text, _)| text);
    let mut letters = text.chars();
    let shouted = letters.clone().nth(1).is_some_and(char::is_uppercase);
    match letters.next().filter(|_| !shouted) {
        Some(first) => first.to_lowercase().chain(letters).collect(),
        None => text.to_owned(),
    }
}
