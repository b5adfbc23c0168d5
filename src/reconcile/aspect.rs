//! What can be read of the state: which question answers which notice (FACTS §3).

use std::sync::Arc;

/// A session, as `ses_…`.
pub(super) type SessionId = Arc<str>;
/// An instance's directory, as opencode writes it.
pub(super) type Directory = Arc<str>;

/// The path of [`Aspect::History`], the one question that is a POST.
pub(super) const HISTORY: &str = "/sync/history";

/// One question about the state. Their order is the order in which they are asked when several are due: content before
/// status, because a client that hears of a turn's end reads what it has.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Aspect {
    /// Which directory the server's default instance has.
    Path,
    /// The newest sessions of all directories.
    Sessions,
    /// All sessions there are, archived ones too, for [`Aspect::History`].
    Everything,
    /// The durable events of some sessions.
    History,
    /// One session.
    Session(SessionId),
    /// A session's newest messages.
    Messages(SessionId),
    /// A session's todo list.
    Todo(SessionId),
    /// A session's file changes.
    Diff(SessionId),
    /// Open permissions of an instance.
    Permissions(Directory),
    /// Open questions of an instance.
    Questions(Directory),
    /// An instance's terminals.
    Terminals(Directory),
    /// An instance's branch.
    Branch(Directory),
    /// An instance's language servers.
    Servers(Directory),
    /// Which sessions of an instance are busy.
    Status(Directory),
}

impl Aspect {
    /// The request's path and query. `limit` bounds lists, newest first.
    pub(super) fn path(&self, limit: usize) -> String {
        match self {
            Self::Path => "/path".into(),
            Self::Sessions => format!("/experimental/session?limit={limit}"),
            Self::Everything => format!("/experimental/session?limit={limit}&archived=true"),
            Self::History => HISTORY.into(),
            Self::Session(id) => format!("/session/{id}"),
            Self::Messages(id) => format!("/session/{id}/message?limit={limit}"),
            Self::Todo(id) => format!("/session/{id}/todo"),
            Self::Diff(id) => format!("/session/{id}/diff"),
            Self::Permissions(_) => "/permission".into(),
            Self::Questions(_) => "/question".into(),
            Self::Terminals(_) => "/pty".into(),
            Self::Branch(_) => "/vcs".into(),
            Self::Servers(_) => "/lsp".into(),
            Self::Status(_) => "/session/status".into(),
        }
    }

    /// The instance that has to be asked. The others are answered alike by any instance.
    pub(super) fn directory(&self) -> Option<&Directory> {
        match self {
            Self::Permissions(directory)
            | Self::Questions(directory)
            | Self::Terminals(directory)
            | Self::Branch(directory)
            | Self::Servers(directory)
            | Self::Status(directory) => Some(directory),
            _ => None,
        }
    }

    /// The session that it is about.
    pub(super) fn session(&self) -> Option<&SessionId> {
        match self {
            Self::Session(id) | Self::Messages(id) | Self::Todo(id) | Self::Diff(id) => Some(id),
            _ => None,
        }
    }

    /// How many entries to ask for at first.
    pub(super) fn limit(&self) -> usize {
        match self {
            Self::Sessions => 50,
            Self::Everything => 1000,
            Self::Messages(_) => 16,
            _ => 0,
        }
    }
}

/// Notices that the same question answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Group {
    Sessions,
    Status,
    Messages,
    Todo,
    Diff,
    Permissions,
    Questions,
    Terminals,
    Branch,
    Servers,
}

/// What tells all that is open in an instance: asks and turns.
pub(super) const OPEN: [Group; 3] = [Group::Status, Group::Permissions, Group::Questions];

impl Group {
    /// Every group.
    pub(super) const ALL: [Self; 10] = [
        Self::Sessions,
        Self::Status,
        Self::Messages,
        Self::Todo,
        Self::Diff,
        Self::Permissions,
        Self::Questions,
        Self::Terminals,
        Self::Branch,
        Self::Servers,
    ];

    /// Which group tells the content of an event type; `None` when nothing can (FACTS §3).
    pub(super) fn of(kind: &str) -> Option<Self> {
        Some(match kind {
            "session.created" | "session.updated" | "session.deleted" => Self::Sessions,
            "session.status" | "session.idle" => Self::Status,
            "message.updated"
            | "message.removed"
            | "message.part.updated"
            | "message.part.removed"
            | "message.part.delta"
            | "session.error" => Self::Messages,
            "todo.updated" => Self::Todo,
            "session.diff" => Self::Diff,
            "permission.asked" | "permission.replied" => Self::Permissions,
            "question.asked" | "question.replied" | "question.rejected" => Self::Questions,
            "pty.created" | "pty.updated" | "pty.exited" | "pty.deleted" => Self::Terminals,
            "vcs.branch.updated" => Self::Branch,
            "lsp.updated" => Self::Servers,
            _ => return None,
        })
    }

    /// The question about one session, for the groups that have one.
    pub(super) fn of_session(self, session: &SessionId) -> Option<Aspect> {
        Some(match self {
            Self::Messages => Aspect::Messages(session.clone()),
            Self::Todo => Aspect::Todo(session.clone()),
            Self::Diff => Aspect::Diff(session.clone()),
            _ => return None,
        })
    }

    /// The question about one instance, for the groups that have one.
    pub(super) fn of_directory(self, directory: &Directory) -> Option<Aspect> {
        Some(match self {
            Self::Status => Aspect::Status(directory.clone()),
            Self::Permissions => Aspect::Permissions(directory.clone()),
            Self::Questions => Aspect::Questions(directory.clone()),
            Self::Terminals => Aspect::Terminals(directory.clone()),
            Self::Branch => Aspect::Branch(directory.clone()),
            Self::Servers => Aspect::Servers(directory.clone()),
            _ => return None,
        })
    }
}
