//! What the system says about this process, under the names that all exporters use.

use std::fs;
use std::sync::LazyLock;

use rustix::param::{clock_ticks_per_second, page_size};
use rustix::process::{Resource, getrlimit};

use super::text::Page;

/// When the process began, in seconds of Unix time; it does not change.
static STARTED: LazyLock<Option<f64>> = LazyLock::new(|| {
    let boot = fs::read_to_string("/proc/stat").ok()?;
    let boot: f64 = boot.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()?;
    Some(boot + seconds(Stat::read()?.started))
});

/// Numbers of `/proc/self/stat`.
#[derive(Debug, PartialEq, Eq)]
struct Stat {
    /// In ticks of the clock.
    processor: u64,
    threads: u64,
    /// In ticks of the clock since the machine began.
    started: u64,
    /// In bytes.
    virtual_memory: u64,
    /// In pages.
    resident: u64,
}

impl Stat {
    fn read() -> Option<Self> {
        Self::parse(&fs::read_to_string("/proc/self/stat").ok()?)
    }

    fn parse(text: &str) -> Option<Self> {
        // The program's name, second in the line, can hold spaces and brackets.
        let (_, rest) = text.rsplit_once(')')?;
        let numbers: Vec<&str> = rest.split_ascii_whitespace().collect();
        // Counted as in proc(5), where the state behind the name is field 3.
        let field = |number: usize| numbers.get(number - 3)?.parse::<u64>().ok();
        Some(Self {
            processor: field(14)? + field(15)?,
            threads: field(20)?,
            started: field(22)?,
            virtual_memory: field(23)?,
            resident: field(24)?,
        })
    }
}

/// Writes what can be read; without `/proc` that is little.
pub(super) fn write(page: &mut Page) {
    if let Some(stat) = Stat::read() {
        let cpu = seconds(stat.processor);
        page.counter("process_cpu_seconds_total", "Processor time, user and system, in seconds.").is(cpu);
        let resident = stat.resident * page_size() as u64;
        page.gauge("process_resident_memory_bytes", "Memory that is held in RAM, in bytes.").is(resident);
        page.gauge("process_virtual_memory_bytes", "Address space, in bytes.").is(stat.virtual_memory);
        page.gauge("process_threads", "Threads.").is(stat.threads);
    }
    if let Some(started) = *STARTED {
        page.gauge("process_start_time_seconds", "When the process began, in seconds of Unix time.").is(started);
    }
    if let Some(open) = descriptors() {
        page.gauge("process_open_fds", "Open file descriptors.").is(open);
    }
    if let Some(most) = getrlimit(Resource::Nofile).current {
        page.gauge("process_max_fds", "Most file descriptors that may be open.").is(most);
    }
}

/// From Linux 6.2 on the folder's size is their number; before that it is 0 and they are counted.
fn descriptors() -> Option<u64> {
    const FOLDER: &str = "/proc/self/fd";
    let told = fs::metadata(FOLDER).ok()?.len();
    // The one that reading the folder takes is not counted.
    if told > 0 { Some(told) } else { Some((fs::read_dir(FOLDER).ok()?.count() as u64).saturating_sub(1)) }
}

/// Ticks of the clock as seconds.
#[expect(clippy::cast_precision_loss, reason = "a hundred million years would lose a second")]
fn seconds(ticks: u64) -> f64 {
    ticks as f64 / clock_ticks_per_second() as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_may_have_any_name() {
        let text = "7 (a) 1 2 (b) S 1 2 3 4 5 6 7 8 9 10 100 20 13 14 15 16 5 18 999 4096000 250 rest";
        let stat = Stat::parse(text).unwrap();
        assert_eq!(stat, Stat { processor: 120, threads: 5, started: 999, virtual_memory: 4_096_000, resident: 250 });
        assert_eq!(Stat::parse("7 (a) S 1"), None);
        assert_eq!(Stat::parse(""), None);
    }

    #[test]
    fn this_process_began_before_now_and_has_descriptors() {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64();
        let started = STARTED.unwrap();
        assert!(started > now - 3_600.0 && started < now + 2.0, "{started} is not just before {now}");
        let before = descriptors().unwrap();
        let _more: Vec<_> = (0..50).map(|_| fs::File::open("/dev/null").unwrap()).collect();
        assert!(descriptors().unwrap() >= before + 40);
    }
}
