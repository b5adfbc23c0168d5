//! The doctor on real releases: it finds by itself what is known of each.

use std::sync::atomic::Ordering;

use serde_json::Value;

use crate::doctor::fixture::{Said, doctor};
use crate::support::bounded;
use crate::support::journald::{Journald, UNIT};
use crate::support::model::ScriptedModel;
use crate::support::opencode::{Home, Opencode};
use crate::support::relay::Relay;

const DURABLE: [&str; 5] =
    ["message.part.updated", "message.updated", "session.created", "session.deleted", "session.updated"];

struct Patient {
    opencode: Opencode,
    model: ScriptedModel,
}

impl Patient {
    async fn new(version: &'static str) -> Self {
        let model = ScriptedModel::start().await.unwrap();
        let opencode = Home::new(version, &model).with_log_file().start().await;
        Self { opencode, model }
    }

    async fn examined(&self, url: &str, arguments: &[&str]) -> Said {
        let env = self.opencode.home.env();
        let env: Vec<_> = env.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let said = doctor(&[&[url], arguments].concat(), &env).await;
        let left = self.opencode.api().get("/session").await;
        assert_eq!(left, Value::Array(Vec::new()), "the probe's session is gone");
        assert_eq!(self.model.words_sent().load(Ordering::Relaxed), 0, "a model was asked");
        said
    }

    async fn found(&self) -> Value {
        let said = self.examined(self.opencode.base(), &["--json"]).await;
        assert_eq!(said.code, Some(0), "{said:?}");
        said.json()
    }
}

fn sights(found: &Value) -> Vec<(&str, &str)> {
    let streams = found["streams"].as_array().unwrap().iter();
    streams.map(|stream| (stream["path"].as_str().unwrap(), stream["sight"].as_str().unwrap())).collect()
}

fn known(found: &Value) -> Vec<&str> {
    found["known"].as_array().unwrap().iter().map(|known| known["shown"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn nothing_is_broken_in_1_14_41() {
    bounded(async {
        let found = Patient::new("1.14.41").await.found().await;
        assert_eq!(sights(&found), [("/global/event", "whole"), ("/event", "whole")], "{found:#}");
        assert_eq!((&found["log"]["sight"], known(&found)), (&"announces".into(), vec![]), "{found:#}");
        assert!(found["command"].as_str().unwrap().contains("--log dir:"), "{found:#}");
    })
    .await;
}

#[tokio::test]
async fn the_stream_of_1_14_48_ends_at_once() {
    bounded(async {
        let patient = Patient::new("1.14.48").await;
        let found = patient.found().await;
        assert_eq!(sights(&found), [("/global/event", "whole"), ("/event", "ends-at-once")], "{found:#}");
        assert_eq!((&found["log"]["sight"], known(&found)), (&"announces".into(), vec!["shown"]), "{found:#}");
        // Watching alone sees it too.
        let said = patient.examined(patient.opencode.base(), &["--read-only", "--watch", "1s"]).await;
        assert!(said.flat().contains("broken /event ends"), "{}", said.out);
    })
    .await;
}

/// systemd's journal has the log where opencode prints it.
#[tokio::test]
async fn a_log_in_the_journal_of_systemd_announces() {
    bounded(async {
        let model = ScriptedModel::start().await.unwrap();
        let patient = Patient { opencode: Home::new("1.14.48", &model).start().await, model };
        let journald = Journald::start("RateLimitBurst=0").await;
        let journalctl = journald.journalctl();
        let path = journalctl.env().remove(0).1;
        let source = format!("journald:{UNIT}");
        let arguments = ["--json", "--log", &source];
        let examined =
            async || doctor(&[&[patient.opencode.base()], &arguments[..]].concat(), &[("PATH", &path)]).await;
        let found = examined().await.json();
        assert_eq!(found["log"]["sight"], "foreign", "nothing is in it: {found:#}");

        let _tail = journald.tail(&patient.opencode.home.stderr_file(), UNIT);
        let found = examined().await.json();
        assert_eq!(found["log"]["sight"], "announces", "{found:#}");
        assert!(found["command"].as_str().unwrap().contains(&format!("--log {source}")), "{found:#}");
    })
    .await;
}

#[tokio::test]
async fn the_silent_omission_of_1_15_0_is_named_type_by_type_and_mended_by_the_relay() {
    bounded(async {
        let patient = Patient::new("1.15.0").await;
        let found = patient.found().await;
        assert_eq!(sights(&found), [("/global/event", "whole"), ("/event", "lacks")], "{found:#}");
        let missing = found["streams"][1]["missing"].as_object().unwrap();
        for kind in DURABLE {
            assert!(missing.contains_key(kind), "{kind}: {found:#}");
        }
        assert!(!missing.contains_key("session.status") && !missing.contains_key("session.idle"), "{found:#}");
        assert_eq!((&found["log"]["sight"], known(&found)), (&"announces".into(), vec!["shown"]), "{found:#}");

        let folder = format!("dir:{}", patient.opencode.home.log_folder().display());
        for witness in ["auto", "log"] {
            let relay = Relay::beside(&patient.opencode, &folder, witness, &["--journal", "memory"]).await;
            let said = patient.examined(relay.base(), &[]).await;
            assert_eq!(said.code, Some(0), "{witness}: {said:?}\n{}", relay.output());
            for expected in
                ["broken /event stays open, but silently lacks", "The relay makes up for it", "ok /event open; all"]
            {
                assert!(said.flat().contains(expected), "{witness}: {expected:?} is not in\n{}", said.out);
            }
        }
    })
    .await;
}

#[tokio::test]
async fn only_the_log_is_silent_in_1_17_11() {
    bounded(async {
        let found = Patient::new("1.17.11").await.found().await;
        assert_eq!(
            sights(&found),
            [("/global/event", "whole"), ("/event", "whole"), ("/api/event", "whole")],
            "{found:#}"
        );
        assert_eq!((&found["log"]["sight"], known(&found)), (&"silent".into(), vec!["shown"]), "{found:#}");
        assert!(!found["command"].as_str().unwrap().contains("--log"), "{found:#}");
    })
    .await;
}

#[tokio::test]
async fn the_v2_stream_of_1_18_34_ends_before_the_first_status() {
    bounded(async {
        let found = Patient::new("1.18.34").await.found().await;
        assert_eq!(
            sights(&found),
            [("/global/event", "whole"), ("/event", "whole"), ("/api/event", "ends-before")],
            "{found:#}"
        );
        assert!(found["streams"][2]["words"].as_str().unwrap().contains("session.status"), "{found:#}");
        assert_eq!(known(&found), ["shown", "shown"], "{found:#}");
    })
    .await;
}
