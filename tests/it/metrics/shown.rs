//! What is shown and alerted on is there: the dashboard's and the rules' metrics are those of a running relay.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use serde_json::Value;

use super::{busy, metrics};
use crate::standin::StandIn;
use crate::support::bounded;

fn file(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path))
        .unwrap_or_else(|error| panic!("{path}: {error}"))
}

pub(super) fn dashboard() -> Value {
    serde_json::from_str(&file("deploy/grafana/opencode-relay.json")).unwrap()
}

/// The metrics that a text names.
fn named(text: &str) -> BTreeSet<String> {
    text.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_')
        .filter(|word| word.starts_with("opencode_relay_") || word.starts_with("process_"))
        .map(str::to_owned)
        .collect()
}

/// The queries of a dashboard's panels and variables.
pub(super) fn queries(dashboard: &Value) -> Vec<String> {
    let panels = dashboard["panels"].as_array().unwrap().iter();
    let targets = panels.flat_map(|panel| panel["targets"].as_array().into_iter().flatten());
    let expressions = targets.map(|target| target["expr"].as_str().unwrap().to_owned());
    let variables = dashboard["templating"]["list"].as_array().unwrap().iter();
    expressions.chain(variables.filter_map(|variable| variable["definition"].as_str().map(str::to_owned))).collect()
}

#[tokio::test]
async fn every_metric_that_is_used_is_told_and_documented() {
    bounded(async {
        let standin = StandIn::start("1.14.48").await;
        let relay = busy(&standin).await;
        let metrics = metrics(&relay.api()).await;
        let names = metrics.names();
        let queries = queries(&dashboard());
        assert!(queries.len() > 20, "{queries:?}");
        for query in &queries {
            let used = named(query);
            assert!(!used.is_empty(), "{query} is about nothing of the relay");
            assert!(used.is_subset(&names), "{query} uses what the relay does not tell");
        }
        let rules: Vec<String> =
            file("deploy/prometheus/opencode-relay.rules.yml").lines().map(str::to_owned).collect();
        let used = named(&rules.join("\n"));
        assert!(used.len() > 10 && used.is_subset(&names), "{:?}", used.difference(&names));
        let tested = named(&file("deploy/prometheus/tests.yml"));
        assert!(used.is_subset(&tested), "no test of the rules has {:?}", used.difference(&tested));
        for alert in rules.iter().filter_map(|line| line.trim().strip_prefix("- alert: ")) {
            assert!(file("deploy/prometheus/tests.yml").contains(&format!("alertname=\"{alert}\"")), "{alert}");
            assert!(file("docs/metrics.md").contains(&format!("`{alert}`")), "docs/metrics.md lacks {alert}");
        }

        for document in ["README.md", "docs/operating.md", "docs/troubleshooting.md"] {
            let used = named(&file(document));
            assert!(used.is_subset(&names), "{document} has {:?}", used.difference(&names));
        }
        let documented = named(&file("docs/metrics.md"));
        let families: BTreeSet<String> = metrics.families().cloned().collect();
        let left_out: Vec<_> = families.difference(&documented).collect();
        assert!(left_out.is_empty(), "docs/metrics.md lacks {left_out:?}");
        let invented: Vec<_> =
            documented.iter().filter(|name| !families.contains(*name) && !names.contains(*name)).collect();
        assert!(invented.is_empty(), "docs/metrics.md has {invented:?}");
    })
    .await;
}

#[test]
fn the_dashboard_is_one_that_grafana_takes() {
    let dashboard = dashboard();
    // What Grafana 9 wrote; newer ones take it over.
    assert_eq!(dashboard["schemaVersion"], 37);
    assert!(dashboard["id"].is_null() && dashboard["uid"].is_string() && dashboard["title"].is_string());
    let variables: Vec<&str> =
        dashboard["templating"]["list"].as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap()).collect();
    assert_eq!(variables, ["datasource", "instance"]);
    let (mut ids, mut taken) = (BTreeSet::new(), BTreeSet::new());
    for panel in dashboard["panels"].as_array().unwrap() {
        let title = panel["title"].as_str().unwrap();
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "{title}");
        let at = |name: &str| panel["gridPos"][name].as_u64().unwrap();
        assert!(at("w") > 0 && at("h") > 0 && at("x") + at("w") <= 24, "{title}");
        for x in at("x")..at("x") + at("w") {
            for y in at("y")..at("y") + at("h") {
                assert!(taken.insert((x, y)), "{title} stands on another");
            }
        }
        if panel["type"] == "row" {
            continue;
        }
        assert_eq!(panel["datasource"]["uid"], "${datasource}", "{title}");
        assert!(!panel["description"].as_str().unwrap().is_empty(), "{title}");
        let mut letters = BTreeSet::new();
        for target in panel["targets"].as_array().unwrap() {
            assert!(letters.insert(target["refId"].as_str().unwrap()), "{title}");
            assert!(target["expr"].as_str().unwrap().contains(r#"instance=~"$instance""#), "{title}: {target}");
        }
        assert!(!letters.is_empty(), "{title}");
    }
}
