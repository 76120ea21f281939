// SPDX-License-Identifier: Apache-2.0
//! What the unpacker and its jailed child say to each other, as JSON.

use serde::{Deserialize, Serialize};

use crate::error::Error;

/// How much an image may become. What is over is refused: it is a mistake or a bomb.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Limits {
    /// Bytes that the files of one layer may have, holes included.
    pub size: u64,
    /// Entries that one layer may have.
    pub entries: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { size: 16 << 30, entries: 1_000_000 }
    }
}

/// What a compressed stream becomes in its folder, see [`Form::Decoded`].
pub const ARCHIVE: &str = "archive";

/// What a layer becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Form {
    /// A folder for overlay's `lowerdir`: whiteouts stay, as overlay has them (Documentation/filesystems/overlayfs.rst).
    Overlay,
    /// Applied to the folder, which has the layers below: whiteouts remove (image-spec, "Whiteouts").
    Applied,
    /// One file, [`ARCHIVE`]: what is in it nobody looks at.
    Decoded,
}

/// What the child has to do with the stream it gets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Order {
    /// See [`Form`].
    pub form: Form,
    /// See [`Limits`].
    pub limits: Limits,
    /// The digest that the uncompressed tar has to have, if it is known and not the stream's own.
    pub diff_id: Option<String>,
    /// The parent knows the stream's digest, so that its end is where it should be.
    pub sealed: bool,
    /// Every file is the caller's own, whoever owns it in the layer: a user may give no file away.
    pub own: bool,
}

/// What became of a layer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Entries of the tar.
    pub entries: u64,
    /// Bytes of files, holes included.
    pub size: u64,
    /// Folders that have entries but none of their own: what lower layers say of them holds.
    pub implied: Vec<String>,
    /// Nothing of the layers below is in the root.
    pub hides_all: bool,
    /// It has another name of a file that only a layer below has: it can only be applied.
    pub borrows: bool,
    /// What was left out, with the reason, once for each kind.
    pub skipped: Vec<String>,
    /// The digest of its tar, by the image that brought it
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub diff_id: Option<String>,
}

/// The child's last words.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Answer {
    Done(Report),
    Failed { subject: String, why: String, hint: Option<String> },
}

impl From<Result<Report, Error>> for Answer {
    fn from(result: Result<Report, Error>) -> Self {
        match result {
            Ok(report) => Self::Done(report),
            Err(error) => {
                let (subject, why, hint) = error.parts();
                Self::Failed { subject: subject.into(), why: why.into(), hint: hint.map(Into::into) }
            }
        }
    }
}

impl From<Answer> for Result<Report, Error> {
    fn from(answer: Answer) -> Self {
        match answer {
            Answer::Done(report) => Ok(report),
            Answer::Failed { subject, why, hint } => {
                let error = Error::new(subject, why);
                Err(match hint {
                    Some(hint) => error.hint(hint),
                    None => error,
                })
            }
        }
    }
}
