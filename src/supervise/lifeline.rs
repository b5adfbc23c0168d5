//! What the guardian tells the relay over the lifeline: one line per fact.
//!
//! The lifeline is a pair of sockets. The relay never writes to it; that it closes is the message. The guardian writes
//!
//! 1. `started PID` or `failed ERRNO`,
//! 2. after `started`: `exited CODE` or `signaled NUMBER`.

use std::fmt;
use std::str::FromStr;

/// How the command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// By itself, with this code.
    Exited(i32),
    /// By this signal.
    Signaled(i32),
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exited(code) => write!(f, "ended with code {code}"),
            Self::Signaled(signal) => write!(f, "was ended by signal {signal}"),
        }
    }
}

/// One line of the guardian.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Report {
    /// The command runs.
    Started {
        /// Its process.
        pid: u32,
    },
    /// The command could not be started.
    Failed {
        /// The system's error number.
        errno: i32,
    },
    /// The command ended.
    Ended(Ending),
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Started { pid } => write!(f, "started {pid}"),
            Self::Failed { errno } => write!(f, "failed {errno}"),
            Self::Ended(Ending::Exited(code)) => write!(f, "exited {code}"),
            Self::Ended(Ending::Signaled(signal)) => write!(f, "signaled {signal}"),
        }
    }
}

impl FromStr for Report {
    type Err = ();

    fn from_str(line: &str) -> Result<Self, ()> {
        let (word, number) = line.trim_end().split_once(' ').ok_or(())?;
        let number: i32 = number.parse().map_err(|_| ())?;
        Ok(match word {
            "started" => Self::Started { pid: u32::try_from(number).map_err(|_| ())? },
            "failed" => Self::Failed { errno: number },
            "exited" => Self::Ended(Ending::Exited(number)),
            "signaled" => Self::Ended(Ending::Signaled(number)),
            _ => return Err(()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_it_writes() {
        for report in [
            Report::Started { pid: 7 },
            Report::Failed { errno: 2 },
            Report::Ended(Ending::Exited(3)),
            Report::Ended(Ending::Signaled(9)),
        ] {
            assert_eq!(format!("{report}\n").parse(), Ok(report));
        }
        for line in ["", "started", "started x", "started -1", "gone 1"] {
            assert_eq!(line.parse::<Report>(), Err(()), "{line}");
        }
    }
}
