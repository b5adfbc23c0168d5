//! `/api/event`, the v2 shape, in front of releases that have it.

use std::time::Duration;

use serde_json::Value;

use crate::support::bounded;
use crate::support::model::ScriptedModel;
use crate::support::opencode::{Home, Opencode};
use crate::support::relay::Relay;
use crate::support::situations::{self, Stage};
use crate::support::sse::{End, Stream};

const LIMIT: Duration = Duration::from_secs(20);

struct Scene {
    direct: Stream,
    relayed: Stream,
    stage: Stage,
    _relay: Relay,
    _opencode: Opencode,
    _model: ScriptedModel,
}

impl Scene {
    async fn set(version: &'static str) -> Self {
        let model = ScriptedModel::start().await.unwrap();
        let opencode = Home::new(version, &model).start().await;
        let relay = Relay::beside(&opencode, "none", "auto", &[]).await;
        let stage = Stage::set(&opencode, &model, &relay.api()).await;
        let direct = Stream::open(&opencode.api(), "/api/event").await.unwrap();
        let relayed = Stream::open(&relay.api(), "/api/event").await.unwrap();
        for stream in [&direct, &relayed] {
            let greeting = stream.wait_for(|frame| frame.data.is_some(), LIMIT).await;
            assert_eq!(greeting.json()["type"], "server.connected");
            assert_eq!(greeting.json()["data"], serde_json::json!({}));
        }
        Self { direct, relayed, stage, _relay: relay, _opencode: opencode, _model: model }
    }
}

/// The events of a stream. opencode leaves the project out for events that come from outside of a request, which
/// `/global/event` does not show; so it is not compared.
fn events(stream: &Stream) -> Vec<Value> {
    let data = stream.frames().into_iter().filter(|frame| frame.data.is_some());
    let mut events: Vec<Value> =
        data.map(|frame| frame.json()).filter(|event| event["type"] != "server.connected").collect();
    for event in &mut events {
        if let Some(location) = event["location"].as_object_mut() {
            location.remove("project");
        }
    }
    events
}

#[tokio::test]
async fn equals_opencodes_own_on_1_17_11() {
    bounded(async {
        let scene = Scene::set("1.17.11").await;
        situations::text_turn(&scene.stage).await;
        situations::permission_asked(&scene.stage).await;
        scene.direct.settle(Duration::from_secs(1), LIMIT).await;
        scene.relayed.settle(Duration::from_secs(1), LIMIT).await;
        let (direct, relayed) = (events(&scene.direct), events(&scene.relayed));
        assert!(direct.len() > 40 && direct.iter().any(|event| event["durable"]["seq"].is_u64()));
        // What opencode publishes beside a session (plugins, the catalog) has its own place in each of its streams.
        let parts = |events: Vec<Value>| -> (Vec<Value>, Vec<Value>) {
            events.into_iter().partition(|event| event["data"]["sessionID"].is_string())
        };
        assert_eq!(parts(relayed), parts(direct));
        assert_eq!(scene.relayed.end(), None);
    })
    .await;
}

#[tokio::test]
async fn goes_on_where_1_18_34_ends() {
    bounded(async {
        let scene = Scene::set("1.18.34").await;
        situations::text_turn(&scene.stage).await;
        assert_eq!(
            scene.direct.wait_end(LIMIT).await,
            End::Clean,
            "opencode's own ends before the first session.status"
        );
        scene.relayed.wait_for(|frame| frame.data.is_some() && frame.json()["type"] == "session.idle", LIMIT).await;
        let relayed = events(&scene.relayed);
        let own = events(&scene.direct);
        assert_eq!(relayed[..own.len()], own[..], "what opencode sent before its end");
        assert!(relayed.iter().any(|event| event["type"] == "session.status"));
        assert_eq!(scene.relayed.end(), None);
    })
    .await;
}
