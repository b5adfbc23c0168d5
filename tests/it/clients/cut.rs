//! Connections that break in the middle of a frame, again and again, while the relay lives: no client that keeps ids loses
//! anything, and none is told anything twice.

use serde_json::{Value, json};

use super::fixture::{Cutter, SOON, Served, bounded, event_type, seen, since_session, tool};
use super::{eventsource, go, python, sdk};
use crate::support::browser::Browser;
use crate::support::situations::until;

/// In the middle of frames, wherever that is.
const BUDGETS: [usize; 2] = [3_000, 2_500];

fn see(line: &str) -> Option<Value> {
    serde_json::from_str(line).ok()
}

#[tokio::test]
async fn nobody_misses_anything_over_cut_connections() {
    let go = go::build("follow").await;
    bounded(async {
        let served = Served::start("1.14.48").await;
        let folder = served.home.scratch();
        let mut cutters = Vec::new();
        for _ in 0..6 {
            cutters.push(Cutter::start(&served.relay, &BUDGETS).await);
        }
        let urls = Vec::from_iter(cutters.iter().map(|cutter| format!("{}/event", cutter.base())));
        let browser = Browser::start("eventsource.mjs", &[&urls[0], "", ""], &folder);
        let others = [
            ("sdk", sdk::subscribe(&folder, &cutters[1].base())),
            ("go", tool(&go, &[&urls[2]], &folder)),
            ("python", python::follow(&urls[3], &folder)),
            ("eventsource 4", eventsource::follow(eventsource::SCRIPTS[0], &urls[4], &folder)),
        ];
        let hasty = eventsource::follow(eventsource::SCRIPTS[1], &urls[5], &folder);
        let all = others.iter().map(|(name, client)| (*name, client)).chain([("eventsource 2", &hasty)]);
        for (name, client) in all {
            let greeted = client.stdout.wait(0, SOON, |line| see(&line.text)).await;
            assert_eq!(greeted.map(|event| event_type(&event)).as_deref(), Some("server.connected"), "{name}");
        }
        served.compare(&served.turn(&browser.script, see).await);
        let count = served.published().len();
        for (name, client) in &others {
            println!("{name}:");
            let events = || since_session(seen(&client.stdout, see), event_type);
            until("the client to catch up", || async { (events().len() >= count).then_some(()) }).await;
            served.compare(&events());
        }

        // Version 2 counts an id when it has its line: of a frame that broke behind that, before its end, it hears no more.
        let ended = hasty.stdout.wait(0, SOON, |line| see(&line.text).filter(|event| event["type"] == "session.idle"));
        assert!(ended.await.is_some(), "{}", hasty.output());
        let (events, mut rest) = (since_session(seen(&hasty.stdout, see), event_type), served.published().into_iter());
        let is_next = |event: &Value| rest.any(|text| see(&text).as_ref() == Some(event));
        assert!(events.iter().all(is_next), "in order, nothing twice: {}", hasty.output());
        println!("eventsource 2: {} of {count}", events.len());
        assert!(events.len() + BUDGETS.len() >= count, "{} of {count}", events.len());

        let resumed = json!({"resumed": true});
        let clients =
            [("browser", &browser.script)].into_iter().chain(others.iter().map(|(name, client)| (*name, client)));
        for ((name, client), cutter) in clients.zip(&cutters) {
            let greetings = || {
                let all = seen(&client.stdout, see).into_iter().filter(|event| event["type"] == "server.connected");
                Vec::from_iter(all.map(|greeting| greeting["properties"].clone()))
            };
            // The last event may come before the last break.
            until("the last greeting", || async { (greetings().len() > BUDGETS.len()).then_some(()) }).await;
            let greetings = greetings();
            let heads = cutter.heads.from(0);
            assert_eq!(greetings, [json!({}), resumed.clone(), resumed.clone()], "{name}: {heads:?}");
            let came_back = |head: &String| head.to_lowercase().contains("\r\nlast-event-id: ");
            assert_eq!(Vec::from_iter(heads.iter().map(came_back)), [false, true, true], "{name}: {heads:?}");
            assert_eq!(client.stderr.len(), 2, "{name}, broken twice, ended never: {}", client.output());
        }
    })
    .await;
}
