//! What can go wrong with the file, by what is done about it.

use std::io;

use rusqlite::ErrorCode;
use rusqlite::ffi;

/// Why something with the file failed.
#[derive(Debug, thiserror::Error)]
pub(in crate::journal) enum Failure {
    /// The file is not what was written: it is set aside.
    #[error("the file is damaged: {0}")]
    Corrupt(String),
    /// A newer relay wrote the file: it is left alone.
    #[error("the file has format {0}")]
    Newer(i64),
    /// The relay may not use the file or its folder: only a person can change that.
    #[error("{0}")]
    Denied(String),
    /// The disk is full, or fails: it may pass.
    #[error("{0}")]
    Disk(String),
}

impl From<rusqlite::Error> for Failure {
    fn from(error: rusqlite::Error) -> Self {
        use rusqlite::Error;
        let text = error.to_string();
        let Error::SqliteFailure(code, _) = &error else {
            return match error {
                // A column holds what never was put into it, or a row is missing.
                Error::FromSqlConversionFailure(..)
                | Error::IntegralValueOutOfRange(..)
                | Error::InvalidColumnType(..)
                | Error::QueryReturnedNoRows => Self::Corrupt(text),
                _ => Self::Disk(text),
            };
        };
        match code.code {
            ErrorCode::DatabaseCorrupt
            | ErrorCode::NotADatabase
            // A number that is taken already, or a table that is not there (`Unknown` is SQLite's general error).
            | ErrorCode::ConstraintViolation
            | ErrorCode::Unknown => Self::Corrupt(text),
            // The file is shorter than it says.
            ErrorCode::SystemIoFailure if code.extended_code == ffi::SQLITE_IOERR_SHORT_READ => Self::Corrupt(text),
            ErrorCode::ReadOnly | ErrorCode::CannotOpen | ErrorCode::PermissionDenied => Self::Denied(text),
            _ => Self::Disk(text),
        }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::PermissionDenied
            | io::ErrorKind::ReadOnlyFilesystem
            | io::ErrorKind::NotADirectory
            | io::ErrorKind::NotFound => Self::Denied(error.to_string()),
            _ => Self::Disk(error.to_string()),
        }
    }
}
