//! What a look at the metrics costs a relay with many types and many clients. Not a test: run it by name.

use std::time::Duration;

use tokio::io::AsyncReadExt as _;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use super::{event, get};
use crate::standin::StandIn;
use crate::support::relay::Relay;
use crate::support::situations::until;

const TYPES: usize = 40;
const CLIENTS: usize = 1_000;
const SCRAPES: u32 = 500;

#[tokio::test]
#[ignore = "measures: cargo nextest run --release --run-ignored only metrics::cost --no-capture"]
async fn what_a_scrape_costs() {
    let standin = StandIn::start("1.14.48").await;
    let (url, log, state) = (standin.url(), standin.log_source(), standin.state_dir());
    let arguments = ["--upstream", &url, "--log", &log, "--state-dir", &state, "--watch-state", "off"];
    let relay = Relay::start(&arguments, &[], &std::env::temp_dir()).await;
    standin.granted(1).await;
    for number in 0..TYPES {
        standin.publish(&event(&format!("some.type.{number}"), "ses_1"));
    }
    for clients in [0, CLIENTS] {
        let host = relay.base().strip_prefix("http://").unwrap();
        let mut open = Vec::new();
        for _ in 0..clients {
            let mut socket = TcpStream::connect(host).await.unwrap();
            socket.write_all(format!("GET /event HTTP/1.1\r\nhost: {host}\r\n\r\n").as_bytes()).await.unwrap();
            assert!(socket.read(&mut [0; 64]).await.unwrap() > 0);
            open.push(socket);
        }
        let size = until("all to be there", || async {
            let text = get(&relay.api(), "*/*").await.text();
            let streams = format!("opencode_relay_client_streams{{stream=\"event\"}} {clients}\n");
            (text.contains(&streams) && text.contains("some.type.39")).then_some(text.len())
        })
        .await;
        for (path, name) in [("/_relay/metrics", "metrics"), ("/_relay/status", "status"), ("/_relay/nothing", "404")] {
            let before = relay.cost().cpu;
            for _ in 0..SCRAPES {
                relay.api().send(http::Method::GET, path, None).await.unwrap();
            }
            let each = (relay.cost().cpu.saturating_sub(before)) / SCRAPES;
            println!("{clients} clients, {TYPES} types: {name} {each:?} of CPU each; metrics have {size} bytes");
        }
        assert!(relay.cost().cpu > Duration::ZERO);
    }
}
