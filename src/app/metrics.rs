//! What `/_relay/metrics` says. Nothing is counted here: every number is read where `/_relay/status` has it from.

mod process;
mod text;

use super::report::{Moment, Report};
use crate::config::Witness;
use crate::event::View;
use crate::http::Exposition;
use crate::proxy::{ANSWER_BOUNDS, CODES, Traffic};
use crate::reconcile::Count;

use text::Page;

/// Streams are counted by how many events they are behind: more than each of these.
const BEHIND: [u64; 4] = [0, 100, 1_000, 10_000];

/// The longest version of opencode that is told, in bytes; it comes from outside.
const VERSION: usize = 64;

impl Report {
    /// The metrics, as Prometheus reads them.
    pub(super) fn metrics(&self, form: Exposition) -> String {
        let mut page = Page::new(form);
        let moment = self.look();
        page.gauge("opencode_relay_build_info", "1, and which relay this is.")
            .with(&[("version", env!("CARGO_PKG_VERSION"))], 1);
        page.gauge("opencode_relay_ready", "1 while clients can be served, as /_relay/ready says.")
            .is(u8::from(moment.ready.is_ok()));
        upstream(&mut page, &moment);
        self.witnesses(&mut page, &moment);
        ledger(&mut page, &moment);
        self.journal(&mut page, &moment);
        self.clients(&mut page, &moment);
        self.connections(&mut page);
        self.proxy(&mut page, &self.proxy.traffic());
        process::write(&mut page);
        page.finish()
    }

    fn witnesses(&self, page: &mut Page, moment: &Moment) {
        let mut up = page.gauge("opencode_relay_witness_up", "1 while the witness sees something; those in use only.");
        if moment.log.0 != "none" {
            up.with(&[("witness", "log")], u8::from(moment.log.0 == "following"));
        }
        if self.config.witness != Witness::Log {
            up.with(&[("witness", "stream")], u8::from(moment.stream == "connected"));
        }
        let (log, stream, state) = (&moment.status.log, &moment.status.stream, &moment.status.state);
        up.with(&[("witness", "state")], u8::from(!state.is_failing));
        page.counter("opencode_relay_witness_log_notices_total", "Events that the bus log announced.").is(log.notices);
        page.counter("opencode_relay_witness_log_gaps_total", "Times that part of the bus log could not be read.")
            .is(log.gaps);
        page.counter("opencode_relay_witness_stream_events_total", "Events that the upstream stream delivered.")
            .is(stream.events);
        page.counter("opencode_relay_witness_stream_connects_total", "Times that the upstream stream was connected.")
            .is(stream.connects);
        page.counter(
            "opencode_relay_witness_stream_frames_lost_total",
            "Frames of the upstream stream that could not be read.",
        )
        .is(stream.lost);
        page.counter("opencode_relay_witness_state_reads_total", "Questions about the state that opencode was asked.")
            .is(state.reads);
        page.counter("opencode_relay_witness_state_reads_failed_total", "Such questions without a usable answer.")
            .is(state.failed);
        page.gauge("opencode_relay_witness_state_reads_in_flight", "Such questions that wait for their answers.")
            .is(state.in_flight);
        page.counter("opencode_relay_witness_state_events_total", "Events made from the state.").is(moment.status.made);
    }

    fn journal(&self, page: &mut Page, moment: &Moment) {
        let (fill, health) = (&moment.fill, &moment.health);
        page.gauge("opencode_relay_journal_on_disk", "1 if events are kept in a file, 0 if in memory by choice.")
            .is(u8::from(health.path.is_some()));
        page.gauge("opencode_relay_journal_degraded", "1 while events are in memory although there should be a file.")
            .is(u8::from(health.degraded.is_some()));
        page.gauge("opencode_relay_journal_events", "Events that clients can resume from.").is(fill.events);
        page.gauge("opencode_relay_journal_bytes", "Bytes that these events take.").is(fill.bytes);
        page.gauge("opencode_relay_journal_waiting_events", "Events that wait for the journal's file.")
            .is(moment.status.newest.saturating_sub(fill.newest.0));
        page.gauge("opencode_relay_journal_limit_bytes", "Most bytes that are kept.").is(self.config.journal_bytes);
        page.counter("opencode_relay_journal_appended_total", "Events numbered since the journal began.")
            .is(fill.newest.0);
    }

    fn clients(&self, page: &mut Page, moment: &Moment) {
        let open = self.clients.open();
        let mut streams = page.gauge("opencode_relay_client_streams", "Event streams that clients have open.");
        for view in [View::Instance, View::Session, View::Global, View::Api] {
            let count = open.iter().filter(|client| client.scope().view == view).count();
            streams.with(&[("stream", view.name())], count);
        }
        page.counter("opencode_relay_client_streams_opened_total", "Event streams that clients opened.")
            .is(self.clients.opened());
        let lags: Vec<u64> = open.iter().map(|client| moment.fill.newest.0.saturating_sub(client.seq().0)).collect();
        page.gauge("opencode_relay_client_lag_max_events", "How many events the client furthest behind has to take.")
            .is(lags.iter().max().copied().unwrap_or_default());
        let mut behind =
            page.gauge("opencode_relay_client_streams_behind", "Event streams that are more events behind than that.");
        for limit in BEHIND {
            behind.with(&[("events", &limit.to_string())], lags.iter().filter(|lag| **lag > limit).count());
        }
    }

    fn connections(&self, page: &mut Page) {
        page.gauge("opencode_relay_connections_open", "Connections of clients.").is(self.connections.open());
        page.gauge("opencode_relay_connections_limit", "Most connections at a time.").is(self.config.max_connections);
        page.counter(
            "opencode_relay_connections_refused_total",
            "Connections closed at once, because their address had too many.",
        )
        .is(self.connections.refused());
    }

    fn proxy(&self, page: &mut Page, traffic: &Traffic) {
        let mut requests = page.counter(
            "opencode_relay_proxy_requests_total",
            "Requests passed through by their answers' status; none: the client went before there was one.",
        );
        for (code, count) in CODES.into_iter().zip(traffic.requests) {
            requests.with(&[("code", code)], count);
        }
        let mut failures = page.counter(
            "opencode_relay_proxy_failures_total",
            "Requests that the relay answered itself, because they could not be passed through.",
        );
        for (error, count) in &traffic.failures {
            failures.with(&[("error", error)], count);
        }
        #[expect(clippy::cast_precision_loss, reason = "the bounds are small")]
        let bounds = ANSWER_BOUNDS.into_iter().map(|bound| Some(bound as f64 / 1_000.0)).chain([None]);
        page.histogram(
            "opencode_relay_proxy_answer_seconds",
            "Time until an answer began, in seconds. A prompt is answered when its turn is over.",
            bounds.zip(traffic.answers),
            traffic.waited.as_secs_f64(),
        );
        page.gauge("opencode_relay_proxy_requests_in_flight", "Requests at opencode.").is(traffic.in_flight);
        page.gauge("opencode_relay_proxy_requests_limit", "Most requests at opencode at a time.")
            .is(self.config.max_requests);
        page.gauge("opencode_relay_proxy_sockets_open", "Upgraded connections (WebSockets).").is(traffic.sockets);
        page.gauge("opencode_relay_proxy_sockets_limit", "Most upgraded connections at a time.")
            .is(self.config.max_sockets);
        page.counter(
            "opencode_relay_proxy_reports_lost_total",
            "Requests that the event side was not told of; it reads the state instead.",
        )
        .is(traffic.lost_reports);
    }
}

fn upstream(page: &mut Page, moment: &Moment) {
    let release = moment.known.release.as_ref().map(ToString::to_string);
    page.gauge("opencode_relay_upstream_up", "1 while opencode runs and has said which release it is.")
        .is(u8::from(moment.upstream.0 == "up"));
    let mut info = page.gauge("opencode_relay_upstream_info", "1, and which opencode this is.");
    if let Some(version) = release {
        info.with(&[("version", &version[..version.floor_char_boundary(VERSION)])], 1);
    }
    page.gauge("opencode_relay_upstream_directories", "Directories in which opencode is in use.")
        .is(moment.status.directories.len());
}

/// The counts go on over restarts of the relay while the journal is on disk. There are 129 types at most: the ledger counts
/// what is beyond that as `other`.
fn ledger(page: &mut Page, moment: &Moment) {
    type Number = fn(&Count) -> u64;
    const ROWS: [(&str, &str, Number); 3] = [
        ("opencode_relay_events_published_total", "Events that the bus log announced.", |count| count.published),
        ("opencode_relay_events_delivered_total", "Events that the upstream stream delivered.", |count| {
            count.delivered
        }),
        ("opencode_relay_events_recovered_total", "Events that were made from the state.", |count| count.recovered),
    ];
    let ledger = &moment.status.ledger;
    for (name, help, number) in ROWS {
        let mut family = page.counter(name, help);
        for (kind, count) in ledger {
            family.with(&[("type", kind)], number(count));
        }
    }
    let mut lost = page.counter(
        "opencode_relay_events_unrecoverable_total",
        "Events that were announced and that no witness could tell.",
    );
    for (kind, count) in ledger {
        lost.with(&[("type", kind), ("reason", "overwritten")], count.overwritten);
        lost.with(&[("type", kind), ("reason", "no_source")], count.no_source);
    }
    let mut pending = page.gauge("opencode_relay_events_pending", "Events announced and not accounted for yet.");
    for (kind, count) in ledger {
        pending.with(&[("type", kind)], count.pending);
    }
}
