//! What a process and its children take, from `/proc`.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::PathBuf;

use crate::figures::Figures;

/// A process with all that it starts.
pub(crate) struct Processes(u32);

/// What each thread has taken until a moment, by its number: CPU time in nanoseconds, and how often it was taken off its CPU.
#[derive(Debug, Default)]
pub(crate) struct Spent(BTreeMap<u32, (u64, u64)>);

/// What was taken between two moments.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Cost {
    /// Nanoseconds on any CPU, user and system. What a thread that ended took since the first moment is not in it.
    pub(crate) cpu: u64,
    /// How often one of the threads was taken off its CPU, by itself or not.
    pub(crate) switches: u64,
}

/// What they hold at a moment.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Held {
    /// Bytes of resident memory, what they share counted in each.
    pub(crate) resident: u64,
    /// The same, what is shared divided by those who share it.
    pub(crate) proportional: u64,
}

impl Processes {
    pub(crate) fn of(pid: u32) -> Self {
        Self(pid)
    }

    /// The process and its descendants as they are now: workers may be started late.
    fn all(&self) -> io::Result<Vec<u32>> {
        let mut found = vec![self.0];
        let mut next = 0;
        while let Some(pid) = found.get(next) {
            for (_, task) in tasks(*pid)? {
                let children = fs::read_to_string(task.join("children")).unwrap_or_default();
                found.extend(children.split_whitespace().filter_map(|child| child.parse::<u32>().ok()));
            }
            next += 1;
        }
        Ok(found)
    }

    pub(crate) fn spent(&self) -> io::Result<Spent> {
        let mut spent = Spent::default();
        for pid in self.all()? {
            for (number, task) in tasks(pid)? {
                // Threads come and go.
                let (Ok(times), Ok(status)) =
                    (fs::read_to_string(task.join("schedstat")), fs::read_to_string(task.join("status")))
                else {
                    continue;
                };
                let cpu = times.split(' ').next().and_then(|cpu| cpu.parse().ok()).unwrap_or_default();
                let switches =
                    field(&status, "voluntary_ctxt_switches:") + field(&status, "nonvoluntary_ctxt_switches:");
                spent.0.insert(number, (cpu, switches));
            }
        }
        Ok(spent)
    }

    pub(crate) fn held(&self) -> io::Result<Held> {
        let mut held = Held::default();
        for pid in self.all()? {
            let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
            held.resident += field(&text, "Rss:") << 10;
            held.proportional += field(&text, "Pss:") << 10;
        }
        Ok(held)
    }
}

impl Spent {
    pub(crate) fn since(&self, before: &Self) -> Cost {
        let mut cost = Cost::default();
        for (number, (cpu, switches)) in &self.0 {
            let (cpu_before, switches_before) = before.0.get(number).copied().unwrap_or_default();
            cost.cpu += cpu.saturating_sub(cpu_before);
            cost.switches += switches.saturating_sub(switches_before);
        }
        cost
    }
}

impl Held {
    pub(crate) fn tell(&self, name: &str, figures: &mut Figures) {
        figures.add(&format!("{name}_rss_bytes"), self.resident as f64);
        figures.add(&format!("{name}_pss_bytes"), self.proportional as f64);
    }
}

/// The cost of whatever `--cost` names; nothing if it names nobody.
pub(crate) struct Meter(Option<Processes>);

impl Meter {
    pub(crate) fn new(pid: Option<u32>) -> Self {
        Self(pid.map(Processes::of))
    }

    pub(crate) fn spent(&self) -> io::Result<Spent> {
        self.0.as_ref().map_or(Ok(Spent::default()), Processes::spent)
    }

    pub(crate) fn held(&self) -> io::Result<Held> {
        self.0.as_ref().map_or(Ok(Held::default()), Processes::held)
    }
}

/// A process's threads: their numbers and folders.
fn tasks(pid: u32) -> io::Result<Vec<(u32, PathBuf)>> {
    let mut found = Vec::new();
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        let task = task?;
        found.extend(task.file_name().to_str().and_then(|number| Some((number.parse().ok()?, task.path()))));
    }
    Ok(found)
}

/// The number behind a name at the beginning of a line.
fn field(text: &str, name: &str) -> u64 {
    let value = text.lines().find_map(|line| line.strip_prefix(name));
    value.and_then(|value| value.split_whitespace().next()?.parse().ok()).unwrap_or_default()
}
