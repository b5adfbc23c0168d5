//! The format of the file, and how an older one becomes today's.

use rusqlite::{Connection, Transaction, TransactionBehavior};

use super::Failure;

/// Marks the file as ours in SQLite's header: "ocrj".
const APPLICATION: i64 = 0x6f63_726a;

/// The format that this relay writes.
pub(in crate::journal) const VERSION: i64 = 1;

/// One step: makes format n + 1 of format n.
type Step = fn(&Transaction<'_>) -> rusqlite::Result<()>;

/// The steps from format 1 on, in order.
const STEPS: &[Step] = &[];

/// The tables of a new file; the doc comment of `journal::disk` says what is in them.
const TABLES: &str = "
    CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL, crc INTEGER NOT NULL) WITHOUT ROWID;
    CREATE TABLE epoch (
        position INTEGER PRIMARY KEY,
        number TEXT NOT NULL,
        first_seq INTEGER NOT NULL,
        crc INTEGER NOT NULL
    );
    CREATE TABLE note (name TEXT PRIMARY KEY, text TEXT NOT NULL, crc INTEGER NOT NULL) WITHOUT ROWID;
    CREATE TABLE event (
        seq INTEGER PRIMARY KEY,
        at INTEGER NOT NULL,
        kind TEXT NOT NULL,
        directory TEXT,
        session TEXT,
        origin TEXT NOT NULL,
        views INTEGER NOT NULL,
        payload_start INTEGER NOT NULL,
        payload_end INTEGER NOT NULL,
        total INTEGER NOT NULL,
        api TEXT,
        frame TEXT NOT NULL,
        crc INTEGER NOT NULL
    );
";

/// Makes the file one of today's format: a new one gets its tables, an older one is brought up. Says whether it was new.
pub(super) fn prepare(connection: &mut Connection) -> Result<bool, Failure> {
    prepare_with(connection, VERSION, STEPS)
}

fn prepare_with(connection: &mut Connection, ours: i64, steps: &[Step]) -> Result<bool, Failure> {
    // One transaction: a relay that is killed in here leaves the file as it was.
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let number = |name: &str| transaction.query_row(&format!("PRAGMA {name}"), [], |row| row.get::<_, i64>(0));
    let (application, version) = (number("application_id")?, number("user_version")?);
    let tables: i64 = transaction.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    let is_new = application == 0 && version == 0 && tables == 0;
    if is_new {
        transaction.execute_batch(TABLES)?;
    } else if application != APPLICATION || version < 1 {
        return Err(Failure::Corrupt("it is not a journal of opencode-relay".to_owned()));
    } else if version > ours {
        return Err(Failure::Newer(version));
    } else {
        let done = usize::try_from(version - 1).unwrap_or(usize::MAX);
        for step in steps.iter().skip(done) {
            step(&transaction)?;
        }
    }
    if is_new || version != ours {
        transaction.execute_batch(&format!("PRAGMA application_id = {APPLICATION}; PRAGMA user_version = {ours};"))?;
    }
    transaction.commit()?;
    Ok(is_new)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(to: &'static str) -> impl Fn(&Transaction<'_>) -> rusqlite::Result<()> {
        move |transaction| transaction.execute("INSERT INTO meta VALUES (?1, '', 0)", [to]).map(drop)
    }

    #[test]
    fn an_older_file_is_brought_up_step_by_step_and_a_newer_one_is_left_alone() {
        let mut connection = Connection::open_in_memory().unwrap();
        assert!(prepare(&mut connection).unwrap());
        assert!(!prepare(&mut connection).unwrap());
        let steps: [Step; 2] = [|transaction| step("to 2")(transaction), |transaction| step("to 3")(transaction)];
        assert!(!prepare_with(&mut connection, 2, &steps[..1]).unwrap());
        assert!(!prepare_with(&mut connection, 3, &steps).unwrap());
        let keys: Vec<String> = connection
            .prepare("SELECT key FROM meta ORDER BY key")
            .unwrap()
            .query_map([], |row| row.get(0))
            .unwrap()
            .map(Result::unwrap)
            .collect();
        assert_eq!(keys, ["to 2", "to 3"]);
        assert!(matches!(prepare(&mut connection), Err(Failure::Newer(3))));
    }

    #[test]
    fn a_step_that_fails_leaves_the_file_as_it_was() {
        let mut connection = Connection::open_in_memory().unwrap();
        prepare(&mut connection).unwrap();
        let steps: [Step; 2] =
            [|transaction| step("to 2")(transaction), |transaction| transaction.execute_batch("SELECT no_such_thing")];
        assert!(prepare_with(&mut connection, 3, &steps).is_err());
        let count: i64 = connection.query_row("SELECT count(*) FROM meta", [], |row| row.get(0)).unwrap();
        assert_eq!(count, 0);
        assert!(!prepare(&mut connection).unwrap());
    }

    #[test]
    fn what_is_not_ours_is_not_touched() {
        let mut connection = Connection::open_in_memory().unwrap();
        connection.execute_batch("CREATE TABLE other (x)").unwrap();
        assert!(matches!(prepare(&mut connection), Err(Failure::Corrupt(_))));
    }
}
