//! What is to be said of a stream, from what came on it and what must have come. Pure.

use std::collections::HashSet;
use std::time::Duration;

use super::probe::{Called, MARKS};
use super::stream::{End, Watched};

/// An end so soon after the greeting is an end at once.
const AT_ONCE: Duration = Duration::from_secs(2);

/// How far an observation goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Level {
    Ok,
    /// There is nothing to be seen, and that is no fault.
    None,
    Unknown,
    Broken,
}

impl Level {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::None => "none",
            Self::Unknown => "unknown",
            Self::Broken => "broken",
        }
    }
}

/// Events of one type that must come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Due {
    pub(super) kind: String,
    pub(super) count: usize,
}

/// Events of one type that did not all come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Lack {
    pub(super) kind: String,
    pub(super) seen: usize,
    pub(super) due: usize,
}

/// What is to be said of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Sight {
    /// So many events had to come, and came.
    Whole(usize),
    /// Open, but nothing happened that it could have shown.
    Idle,
    /// Open, and some of the events did not come.
    Lacks { missing: Vec<Lack>, shown: Vec<String> },
    /// Open, and only so many of so many events have come, the first ones: it is slow, or held back.
    Behind { seen: usize, due: usize },
    /// Open, and none of so many events came.
    Mute(usize),
    /// It ended so soon after its greeting, before any event.
    EndsAtOnce(Duration),
    /// It ended before the first event of a type.
    EndsBefore(String),
    /// It ended while it was watched.
    Ends(End),
    /// The head came, and no greeting.
    NoGreeting,
    /// There is no such stream: the head did not come, or another one.
    None(End),
    /// So much came that it cannot be compared.
    TooMuch,
}

/// What must have come, by type, in the order in which it happened: what any stream showed of the session, and what REST
/// proves.
pub(super) fn due(streams: &[&Watched], session: &str, calls: &[Called]) -> Vec<Due> {
    let mut ordered = streams.to_vec();
    ordered.sort_by_key(|stream| std::cmp::Reverse(stream.of(session).count()));
    let mut due: Vec<Due> = Vec::new();
    for stream in ordered {
        for event in stream.of(session) {
            if !due.iter().any(|due| due.kind == event.kind) {
                due.push(Due { kind: event.kind.clone(), count: 0 });
            }
        }
        for due in &mut due {
            due.count = due.count.max(count(stream, session, &due.kind));
        }
    }
    for kind in calls.iter().flat_map(|call| call.proves) {
        if !due.iter().any(|due| due.kind == *kind) {
            due.push(Due { kind: (*kind).to_owned(), count: 1 });
        }
    }
    due
}

/// What must have come on any account: the types whose change REST shows, once each.
pub(super) fn proved(calls: &[Called]) -> Vec<Due> {
    let kinds = calls.iter().flat_map(|call| call.proves);
    kinds.map(|kind| Due { kind: (*kind).to_owned(), count: 1 }).collect()
}

fn count(stream: &Watched, session: &str, kind: &str) -> usize {
    stream.of(session).filter(|event| event.kind == kind).count()
}

/// Judges a stream by the probe's session, and by the order in which another stream showed its events.
pub(super) fn of_probe(stream: &Watched, session: &str, due: &[Due], order: &[&str]) -> Sight {
    let sight = judge(stream, due, |kind| count(stream, session, kind));
    let seen: Vec<&str> = stream.of(session).map(|event| event.kind.as_str()).collect();
    match sight {
        // What lacks none but the last may show them yet. An omission shows by what came after it.
        Sight::Lacks { .. } if seen.len() < order.len() && order.starts_with(&seen) => {
            Sight::Behind { seen: seen.len(), due: order.len() }
        }
        sight => sight,
    }
}

/// The types of the session's events in their order, by the stream that showed most.
pub(super) fn order<'a>(streams: &[&'a Watched], session: &'a str) -> Vec<&'a str> {
    let orders = streams.iter().map(|stream| stream.of(session).map(|event| event.kind.as_str()).collect::<Vec<_>>());
    orders.max_by_key(Vec::len).unwrap_or_default()
}

/// Judges a stream by what `/global/event` of the same server brought for its own directory: what came after both were open,
/// up to this time.
pub(super) fn of_watching(stream: &Watched, reference: &Watched, directory: &str, until: Duration) -> Sight {
    let since = stream.greeted.max(reference.greeted);
    let theirs = |event: &&super::stream::Arrived| event.directory.as_deref() == Some(directory);
    let during = |at: Duration| since.is_some_and(|since| at > since) && at < until;
    let events = reference.events.iter().filter(theirs).filter(|event| during(event.at));
    let (mut due, mut ids): (Vec<Due>, Vec<(String, String)>) = (Vec::new(), Vec::new());
    for event in events {
        let Some(id) = &event.id else { continue };
        ids.push((event.kind.clone(), id.clone()));
        match due.iter_mut().find(|due| due.kind == event.kind) {
            Some(due) => due.count += 1,
            None => due.push(Due { kind: event.kind.clone(), count: 1 }),
        }
    }
    let came: HashSet<&str> = stream.events.iter().filter_map(|event| event.id.as_deref()).collect();
    judge(stream, &due, |kind| ids.iter().filter(|(of, id)| of == kind && came.contains(id.as_str())).count())
}

fn judge(stream: &Watched, due: &[Due], seen: impl Fn(&str) -> usize) -> Sight {
    let Some(greeted) = stream.greeted else {
        return match &stream.ended {
            Some((_, end @ (End::Clean | End::Broken(_)))) => Sight::Ends(end.clone()),
            Some((_, end)) => Sight::None(end.clone()),
            None if stream.headed.is_some() => Sight::NoGreeting,
            None => Sight::None(End::NoHead),
        };
    };
    let lacks = due.iter().map(|due| Lack { kind: due.kind.clone(), seen: seen(&due.kind), due: due.count });
    let (missing, whole): (Vec<Lack>, Vec<Lack>) = lacks.partition(|lack| lack.seen < lack.due);
    if let Some((ended, end)) = &stream.ended {
        let first = missing.iter().find(|lack| lack.seen == 0).or(missing.first());
        return match first {
            _ if stream.events.is_empty() && ended.saturating_sub(greeted) < AT_ONCE => {
                Sight::EndsAtOnce(ended.saturating_sub(greeted))
            }
            Some(lack) => Sight::EndsBefore(lack.kind.clone()),
            None => Sight::Ends(end.clone()),
        };
    }
    if stream.overflowed {
        return Sight::TooMuch;
    }
    let total = due.iter().map(|due| due.count).sum();
    match (missing.is_empty(), total) {
        (true, 0) => Sight::Idle,
        (true, total) => Sight::Whole(total),
        (false, total) if whole.is_empty() && missing.iter().all(|lack| lack.seen == 0) => Sight::Mute(total),
        (false, _) => Sight::Lacks { missing, shown: whole.into_iter().map(|lack| lack.kind).collect() },
    }
}

impl Sight {
    pub(super) fn level(&self) -> Level {
        match self {
            Self::Whole(_) => Level::Ok,
            Self::Idle | Self::TooMuch | Self::Behind { .. } => Level::Unknown,
            _ => Level::Broken,
        }
    }

    /// A word for programs.
    pub(super) fn word(&self) -> &'static str {
        match self {
            Self::Whole(_) => "whole",
            Self::Idle => "idle",
            Self::Lacks { .. } => "lacks",
            Self::Behind { .. } => "behind",
            Self::Mute(_) => "mute",
            Self::EndsAtOnce(_) => "ends-at-once",
            Self::EndsBefore(_) => "ends-before",
            Self::Ends(_) => "ends",
            Self::NoGreeting => "no-greeting",
            Self::None(_) => "none",
            Self::TooMuch => "too-much",
        }
    }

    /// Whether it looks as if something between holds the stream back.
    pub(super) fn is_held_back(&self) -> bool {
        matches!(self, Self::NoGreeting | Self::None(End::NoHead) | Self::Mute(_))
    }

    /// For people.
    pub(super) fn words(&self) -> String {
        match self {
            Self::Whole(count) => format!("open; all {count} events came"),
            Self::Idle => "open; nothing happened meanwhile that it could have shown".into(),
            Self::Lacks { missing, shown } => {
                let missing: Vec<String> = missing
                    .iter()
                    .map(|lack| match lack.seen {
                        0 => lack.kind.clone(),
                        seen => format!("{} ({seen} of {} came)", lack.kind, lack.due),
                    })
                    .collect();
                let mut words = format!("stays open, but silently lacks {}", missing.join(", "));
                if !shown.is_empty() {
                    words.push_str(&format!("; it shows {}", shown.join(", ")));
                }
                words
            }
            Self::Behind { seen, due } => {
                format!("open, but only the first {seen} of {due} events came in time; it is slow, or held back")
            }
            Self::Mute(count) => format!("stays open, but none of {count} events came"),
            Self::EndsAtOnce(after) => {
                format!("ends {} after server.connected, before any event", milliseconds(*after))
            }
            Self::EndsBefore(kind) => format!("ends before the first {kind}"),
            Self::Ends(End::Broken(error)) => format!("breaks off: {error}"),
            Self::Ends(_) => "ends by itself".into(),
            Self::NoGreeting => "answers as a stream, but server.connected does not come".into(),
            Self::None(End::NoHead) => "gives no answer in time".into(),
            Self::None(End::Refused(status)) => format!("answers {status}"),
            Self::None(End::NoStream(kind)) => format!("answers with {kind} instead of a stream"),
            Self::None(End::NoAnswer(error)) => format!("failed to {error}"),
            Self::None(_) => "is not there".into(),
            Self::TooMuch => "open; so much came that it cannot be compared".into(),
        }
    }
}

/// How long after their calls the events of the session came at most.
pub(super) fn lateness(stream: &Watched, session: &str, calls: &[Called]) -> Option<Duration> {
    let late = |(name, kind): (&str, &str)| {
        let call = calls.iter().find(|call| call.call == name && call.failure.is_none())?;
        let last = stream.of(session).filter(|event| event.kind == kind).map(|event| event.at).max()?;
        Some(last.saturating_sub(call.asked + call.took))
    };
    MARKS.into_iter().filter_map(late).max()
}

/// A short time, for people.
pub(super) fn milliseconds(time: Duration) -> String {
    match time.as_millis() {
        short @ ..1000 => format!("{short} ms"),
        long => format!("{}.{} s", long / 1000, long % 1000 / 100),
    }
}

#[cfg(test)]
mod tests {
    use super::super::stream::Arrived;
    use super::*;

    const SESSION: &str = "ses_1";

    fn stream(kinds: &[&str]) -> Watched {
        let arrived = |(index, kind): (usize, &&str)| Arrived {
            at: Duration::from_millis(100 + index as u64),
            kind: (*kind).to_owned(),
            id: Some(format!("evt_{index}")),
            session: Some(SESSION.to_owned()),
            directory: Some("/d".to_owned()),
        };
        let second = Some(Duration::from_millis(50));
        let events = kinds.iter().enumerate().map(arrived).collect();
        Watched { path: "/event", headed: second, greeted: second, events, ..Watched::default() }
    }

    const ALL: [&str; 7] = [
        "session.created",
        "session.updated",
        "session.status",
        "session.idle",
        "message.updated",
        "session.updated",
        "session.deleted",
    ];

    fn sight(stream: &Watched) -> Sight {
        let reference = Watched { path: "/global/event", ..self::stream(&ALL) };
        of_probe(stream, SESSION, &due(&[&reference, stream], SESSION, &[]), &ALL)
    }

    #[test]
    fn a_healthy_stream_is_told_from_a_silent_omission() {
        assert_eq!(sight(&stream(&ALL)), Sight::Whole(7));
        // What 1.15.0 shows.
        let lacking = sight(&stream(&["session.updated", "session.status", "session.idle"]));
        let Sight::Lacks { missing, shown } = &lacking else { panic!("{lacking:?}") };
        let missing: Vec<_> = missing.iter().map(|lack| (lack.kind.as_str(), lack.seen, lack.due)).collect();
        assert_eq!(
            missing,
            [
                ("session.created", 0, 1),
                ("session.updated", 1, 2),
                ("message.updated", 0, 1),
                ("session.deleted", 0, 1)
            ]
        );
        assert_eq!(shown, &["session.status", "session.idle"]);
        assert_eq!(lacking.level(), Level::Broken);
        assert_eq!(sight(&stream(&[])), Sight::Mute(7));
        // What lacks only the last events may be slow.
        assert_eq!(sight(&stream(&ALL[..3])), Sight::Behind { seen: 3, due: 7 });
        assert_eq!(sight(&stream(&ALL[..3])).level(), Level::Unknown);
    }

    #[test]
    fn ends_are_told_apart() {
        let ended = |kinds: &[&str], end: End| {
            sight(&Watched { ended: Some((Duration::from_millis(400), end)), ..stream(kinds) })
        };
        assert_eq!(ended(&[], End::Clean), Sight::EndsAtOnce(Duration::from_millis(350)));
        let api = ended(&["session.created", "session.updated"], End::Clean);
        assert_eq!(api, Sight::EndsBefore("session.status".into()));
        assert_eq!(ended(&ALL, End::Clean), Sight::Ends(End::Clean));
        let none = |ended| sight(&Watched { greeted: None, ended, ..stream(&[]) });
        assert_eq!(none(None), Sight::NoGreeting);
        assert_eq!(none(Some((Duration::ZERO, End::Refused(503)))), Sight::None(End::Refused(503)));
        for sight in [none(None), api] {
            assert_eq!(sight.level(), Level::Broken, "{}", sight.words());
        }
    }

    #[test]
    fn what_rest_proves_is_due_though_no_stream_showed_it() {
        let call = Called {
            call: "POST /session",
            asked: Duration::ZERO,
            took: Duration::ZERO,
            failure: None,
            proves: &["session.created"],
        };
        let silent = stream(&[]);
        let due = due(&[&silent], SESSION, &[call]);
        assert_eq!(due, [Due { kind: "session.created".into(), count: 1 }]);
        assert_eq!(of_probe(&silent, SESSION, &due, &[]), Sight::Mute(1));
    }

    #[test]
    fn watching_compares_by_id_and_only_while_both_are_open() {
        let reference = stream(&ALL);
        let until = Duration::from_secs(1);
        assert_eq!(of_watching(&stream(&ALL), &reference, "/d", until), Sight::Whole(7));
        assert_eq!(of_watching(&stream(&ALL), &reference, "/elsewhere", until), Sight::Idle);
        // It was opened after the first three.
        let mut late = stream(&ALL);
        late.greeted = Some(Duration::from_millis(102));
        late.events.drain(..3);
        assert_eq!(of_watching(&late, &reference, "/d", until), Sight::Whole(4));
        late.events.retain(|event| event.kind != "message.updated");
        let Sight::Lacks { missing, .. } = of_watching(&late, &reference, "/d", until) else { panic!("whole") };
        assert_eq!(missing[0].kind, "message.updated");
        // What came last may still be on its way.
        late.events.truncate(1);
        assert_eq!(of_watching(&late, &reference, "/d", Duration::from_millis(104)), Sight::Whole(1));
    }
}
