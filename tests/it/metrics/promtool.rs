//! What Prometheus' own tool says of the metrics, the alert rules and the scrape example.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::{busy, get};
use crate::standin::StandIn;
use crate::support::bounded;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Runs promtool in `deploy/prometheus`; everything it says is in a failure's message.
fn promtool(arguments: &[&str], input: &str) {
    let program: PathBuf = root().join(".cache/promtool/promtool");
    assert!(program.exists(), "promtool is not here; run scripts/fetch-promtool");
    let mut child = Command::new(program)
        .args(arguments)
        .current_dir(root().join("deploy/prometheus"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // It reads everything before it says anything.
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    assert!(output.status.success(), "promtool {arguments:?}: {said}\n{input}");
    // Its lints are on standard error, and no reason for it to fail.
    let is_metrics = arguments.contains(&"metrics");
    assert!(!is_metrics || said.trim().is_empty(), "promtool {arguments:?}: {said}");
}

#[tokio::test]
async fn promtool_finds_nothing_in_the_metrics() {
    bounded(async {
        let standin = StandIn::start("1.14.48").await;
        let relay = busy(&standin).await;
        promtool(&["check", "metrics"], &get(&relay.api(), "text/plain").await.text());
    })
    .await;
}

#[test]
fn promtool_takes_the_rules_and_their_tests_pass() {
    promtool(&["check", "rules", "opencode-relay.rules.yml"], "");
    promtool(&["test", "rules", "tests.yml"], "");
}

/// As rules, with Grafana's variables filled in.
#[test]
fn promtool_takes_the_queries_of_the_dashboard() {
    let mut rules = "groups:\n- name: dashboard\n  rules:\n".to_owned();
    for (number, query) in super::shown::queries(&super::shown::dashboard()).iter().enumerate() {
        let query = query.replace("$__rate_interval", "5m").replace("$__range", "3h");
        if !query.starts_with("label_values(") {
            rules += &format!("  - record: query_{number}\n    expr: {}\n", serde_json::json!(query));
        }
    }
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), rules).unwrap();
    promtool(&["check", "rules", file.path().to_str().unwrap()], "");
}

#[test]
fn promtool_takes_the_scrape_example() {
    promtool(&["check", "config", "--syntax-only", "scrape.yml"], "");
}
