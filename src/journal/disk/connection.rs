//! Connections to the file, and its checkpoints.

use std::path::Path;
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

use super::Failure;

/// How long a lock that somebody else holds (a person with `sqlite3`) is waited for.
const BUSY: Duration = Duration::from_secs(2);

/// How long readers are waited for when the write-ahead log is to be cut off; the writer waits too.
const CUT_BUSY: Duration = Duration::from_millis(100);

/// A connection for checkpoints, which do not hold up the writer.
#[derive(Debug)]
pub(in crate::journal) struct Checkpoints(Connection);

impl Checkpoints {
    pub(in crate::journal) fn open(path: &Path) -> Result<Self, Failure> {
        let connection = connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        connection.busy_timeout(CUT_BUSY)?;
        connection.execute_batch("PRAGMA synchronous = NORMAL; PRAGMA wal_autocheckpoint = 0")?;
        Ok(Self(connection))
    }

    /// Moves into the file what nobody reads in the write-ahead log, and waits for the disk.
    pub(in crate::journal) fn make(&self) -> Result<(), Failure> {
        checkpoint(&self.0, "PASSIVE")
    }

    /// The same, and cuts the log off, unless somebody reads it for longer than 100 ms. Nobody may write meanwhile.
    pub(in crate::journal) fn make_and_cut(&self) -> Result<(), Failure> {
        checkpoint(&self.0, "TRUNCATE")
    }
}

pub(super) fn checkpoint(connection: &Connection, mode: &str) -> Result<(), Failure> {
    // The row says whether somebody was in the way; then the log is synced all the same.
    connection.query_row(&format!("PRAGMA wal_checkpoint({mode})"), [], |_| Ok(()))?;
    Ok(())
}

pub(super) fn connect(path: &Path, flags: OpenFlags) -> Result<Connection, Failure> {
    let connection = Connection::open_with_flags(path, flags | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    connection.busy_timeout(BUSY)?;
    // Otherwise the last connection to an old file would delete the write-ahead log of a new one with its name, and the
    // end of a process would take as long as a checkpoint.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    connection.execute_batch("PRAGMA cell_size_check = ON; PRAGMA trusted_schema = OFF")?;
    Ok(connection)
}
