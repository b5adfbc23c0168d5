//! A journal whose file cannot be written for a while: events wait, nobody else does.

use super::restart::{numbered, start, until, until_number};
use crate::standin::StandIn;
use crate::support::bounded;
use crate::support::sse::Stream;

#[tokio::test]
async fn nobody_but_the_events_waits_for_the_file() {
    bounded(async {
        let (standin, state) = (StandIn::start("1.14.48").await, tempfile::tempdir().unwrap());
        let relay = start(&standin, state.path(), &[]).await;
        let stream = Stream::open_url(&format!("{}/global/event", relay.base()), &[]).await.unwrap();
        let file = rusqlite::Connection::open(state.path().join("journal.sqlite3")).unwrap();
        file.execute_batch("BEGIN IMMEDIATE").unwrap();
        assert!(standin.send(&numbered(1)));
        let status = until(&relay, "taken", |status| status["witnesses"]["stream"]["events"] == 1).await;
        assert_eq!(status["journal"]["newest"], 0, "the status waited for the file");
        assert_eq!(status["journal"]["waiting"], 1);
        assert_eq!(relay.api().get("/global/health").await["healthy"], true);
        file.execute_batch("ROLLBACK").unwrap();
        until_number(&stream, 1).await;
    })
    .await;
}
