//! Random things happen to a log while its follower looks, is killed, and goes on. Whatever was written is given once and
//! in order, or a gap stands where it is missing.
//!
//! On a real folder, without time: a case is a list of [`Act`]s. `PROPTEST_CASES` and `RELAY_SEED` as in `tests/it/reconcile.rs`.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::sync::Mutex;

use proptest::prelude::*;
use proptest::test_runner::{RngSeed, TestCaseError, TestRunner};
use tempfile::TempDir;

use super::super::decode::LONGEST_LINE;
use super::super::position::Identity;
use super::*;

/// How many rotated files are kept.
const KEPT: u32 = 4;

/// Fewer bytes than this of a file do not show that it was emptied.
const TOUCHED: u64 = 64;

#[derive(Clone, Copy, Debug)]
enum Act {
    /// Whole lines.
    Append(u8),
    /// The beginning of a line, then its end.
    Begin(u8),
    Finish,
    /// A line that says nothing; not even UTF-8.
    Garbage(u8),
    /// A line that takes two reads, and one beyond the limit.
    Long,
    TooLong,
    /// Renamed; a new file is there at once, or with the next line.
    Rename {
        create: bool,
    },
    /// Copied, looked at, emptied.
    CopyTruncate {
        looks: u8,
    },
    Rewrite,
    Recreate,
    Remove,
    /// Cut somewhere.
    Cut(u8),
    Compress,
    /// A line in the file that was renamed last, while the new one is empty.
    Late,
    Look(u8),
    LookAll,
    /// Killed after one of the last looks was written down; what was told after it is forgotten.
    Kill(u8),
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let act = prop_oneof![
        20 => (1_u8..6).prop_map(Act::Append),
        4 => any::<u8>().prop_map(Act::Begin),
        4 => Just(Act::Finish),
        3 => any::<u8>().prop_map(Act::Garbage),
        1 => Just(Act::Long),
        1 => Just(Act::TooLong),
        8 => any::<bool>().prop_map(|create| Act::Rename { create }),
        6 => (0_u8..4).prop_map(|looks| Act::CopyTruncate { looks }),
        2 => Just(Act::Rewrite),
        2 => Just(Act::Recreate),
        1 => Just(Act::Remove),
        2 => any::<u8>().prop_map(Act::Cut),
        2 => Just(Act::Compress),
        3 => Just(Act::Late),
        30 => (1_u8..5).prop_map(Act::Look),
        12 => Just(Act::LookAll),
        8 => any::<u8>().prop_map(Act::Kill),
    ];
    proptest::collection::vec(act, 1..60)
}

fn line(number: u64) -> String {
    format!("INFO  2026-11-23T00:39:15 +{number}ms service=bus type=n{number} publishing\n")
}

/// What was written between two emptyings of a file.
type Generation = usize;

struct World {
    folder: TempDir,
    /// Numbers in the names instead of dates.
    counts: bool,
    rotations: u32,
    /// The last rotated file is the log itself, not a copy, and the one before the log that is there now.
    renamed: bool,
    written: u64,
    too_long: u64,
    fillers: u64,
    /// The rest of a line that has begun, and its number.
    begun: Option<(u64, String)>,
    lines: Vec<BTreeSet<u64>>,
    holds: HashMap<Identity, Generation>,
    /// Of which generations the follower has read something, as of its last look.
    touched: BTreeSet<Generation>,
    /// Lines that were written to a file after it was renamed.
    late: Vec<(Identity, u64)>,
    /// Whose file was emptied.
    emptied: BTreeSet<Generation>,
    /// What was written before the first file was opened, and was rotated by then.
    before: BTreeSet<Generation>,
    follower: Follower,
    told: Vec<Item>,
    /// After each look: how many items there were, where to go on, and what was touched.
    looks: Vec<(usize, Saved, BTreeSet<Generation>)>,
    tried: BTreeMap<String, u64>,
}

impl World {
    fn new(counts: bool) -> Self {
        let folder = TempDir::new().unwrap();
        let follower = follower(&folder.path().join("log"), Start::Beginning);
        Self {
            folder,
            counts,
            rotations: 0,
            renamed: false,
            written: 0,
            too_long: 0,
            fillers: 0,
            begun: None,
            lines: Vec::new(),
            holds: HashMap::new(),
            touched: BTreeSet::new(),
            late: Vec::new(),
            emptied: BTreeSet::new(),
            before: BTreeSet::new(),
            follower,
            told: Vec::new(),
            looks: Vec::new(),
            tried: BTreeMap::new(),
        }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("log")
    }

    fn generation(&mut self, path: &Path) -> Generation {
        let identity = Identity::from(&fs::metadata(path).unwrap());
        let next = self.lines.len();
        let generation = *self.holds.entry(identity).or_insert(next);
        if generation == next {
            self.lines.push(BTreeSet::new());
        }
        generation
    }

    /// From here on the file is another one, whatever its inode.
    fn begin_generation(&mut self, path: &Path) {
        let identity = Identity::from(&fs::metadata(path).unwrap());
        self.holds.insert(identity, self.lines.len());
        self.lines.push(BTreeSet::new());
        self.begun = None;
    }

    fn write(&mut self, path: &Path, text: &[u8]) {
        let is_new = !path.exists();
        let mut file = OpenOptions::new().create(true).append(true).open(path).unwrap();
        file.write_all(text).unwrap();
        if is_new {
            self.begin_generation(path);
        }
    }

    fn end_line(&mut self) {
        if let Some((_, rest)) = self.begun.take() {
            self.write(&self.path(), rest.as_bytes());
        }
    }

    /// Writes a line with the next number, all or up to a byte of it.
    fn line(&mut self, path: &Path, up_to: Option<usize>) {
        self.written += 1;
        let text = line(self.written);
        let (now, rest) = text.split_at(up_to.unwrap_or(text.len()));
        self.write(path, now.as_bytes());
        let generation = self.generation(path);
        self.lines[generation].insert(self.written);
        if !rest.is_empty() {
            self.begun = Some((self.written, rest.to_owned()));
        }
    }

    /// Part of a long line. Unlike any other, as what is read from a log is.
    fn filler(&mut self, length: usize) -> Vec<u8> {
        self.fillers += 1;
        format!("filler {} ", self.fillers).into_bytes().into_iter().cycle().take(length).collect()
    }

    fn rotated(&self, number: u32) -> PathBuf {
        match self.counts {
            true => self.folder.path().join(format!("log.{number}")),
            false => self.folder.path().join(format!("log-20261123{:04}", self.rotations.saturating_sub(number - 1))),
        }
    }

    /// Makes room for a rotated file, and says what it will be called.
    fn shift(&mut self) -> PathBuf {
        let packed = |path: &Path| path.with_file_name(format!("{}.gz", path.file_name().unwrap().display()));
        for ending in [false, true] {
            let name = |path: PathBuf| if ending { packed(&path) } else { path };
            let _ = fs::remove_file(name(self.rotated(KEPT)));
            if self.counts {
                for number in (1..KEPT).rev() {
                    let _ = fs::rename(name(self.rotated(number)), name(self.rotated(number + 1)));
                }
            }
        }
        self.rotations += 1;
        self.rotated(1)
    }

    fn look(&mut self) -> bool {
        let look = self.follower.look();
        self.told.extend(look.items);
        if let Some(position) = look.position {
            if self.looks.is_empty() {
                let first = self.holds[&position.cursor.identity];
                self.before = (0..self.lines.len()).filter(|generation| *generation != first).collect();
            }
            if position.cursor.seen >= TOUCHED
                && let Some(generation) = self.holds.get(&position.cursor.identity)
            {
                self.touched.insert(*generation);
            }
            self.looks.push((self.told.len(), position, self.touched.clone()));
        }
        look.next == Next::Again
    }

    fn look_all(&mut self) {
        let mut quiet = 0;
        for _ in 0..200 {
            quiet = if self.look() { 0 } else { quiet + 1 };
            if quiet > QUIET_LOOKS {
                return;
            }
        }
        panic!("never rests");
    }

    fn kill(&mut self, which: u8) {
        let start = match self.looks.len() {
            0 => {
                self.told.clear();
                self.touched.clear();
                Start::Beginning
            }
            count => {
                // Mostly one of the last; what is before it was written down for good.
                let kept = count - 1 - usize::from(which % 16).min(count - 1) * usize::from(which > 100);
                let (told, position, touched) = self.looks[kept].clone();
                self.looks.drain(..kept);
                self.looks.truncate(1);
                self.told.truncate(told);
                self.touched = touched;
                Start::After(position.to_position())
            }
        };
        self.follower = follower(&self.path(), start);
    }

    fn act(&mut self, act: Act) {
        let path = self.path();
        let there = path.exists();
        let empty = fs::metadata(&path).is_ok_and(|metadata| metadata.len() == 0);
        let name = format!("{act:?}");
        *self.tried.entry(name.split(['(', ' ']).next().unwrap_or_default().to_owned()).or_default() += 1;
        match act {
            Act::Append(count) => {
                self.end_line();
                for _ in 0..count {
                    self.line(&path, None);
                }
            }
            Act::Begin(at) => {
                self.end_line();
                let length = line(self.written + 1).len();
                self.line(&path, Some(1 + usize::from(at) % (length - 1)));
            }
            Act::Finish => self.end_line(),
            Act::Garbage(byte) => {
                self.end_line();
                self.write(&path, &[0xff, byte, b'\xc3', b'x', b'\n']);
            }
            Act::Long => {
                self.end_line();
                let filler = self.filler(300_000);
                self.write(&path, &filler);
                self.begun = Some((0, "\n".to_owned()));
            }
            Act::TooLong => {
                self.end_line();
                self.too_long += 1;
                let filler = self.filler(LONGEST_LINE + 1);
                self.write(&path, &filler);
                self.begun = Some((0, "tttt\n".to_owned()));
            }
            Act::Rename { create } if there => {
                let to = self.shift();
                fs::rename(&path, to).unwrap();
                self.renamed = true;
                self.begun = None;
                if create {
                    self.write(&path, b"");
                }
            }
            Act::CopyTruncate { looks } if there => {
                let to = self.shift();
                fs::copy(&path, &to).unwrap();
                self.renamed = false;
                let generation = self.generation(&path);
                let copy = Identity::from(&fs::metadata(&to).unwrap());
                self.holds.insert(copy, generation);
                for _ in 0..looks {
                    self.look();
                }
                OpenOptions::new().write(true).truncate(true).open(&path).unwrap();
                self.emptied.insert(generation);
                self.begin_generation(&path);
            }
            Act::Rewrite if there => {
                OpenOptions::new().write(true).truncate(true).open(&path).unwrap();
                self.begin_generation(&path);
                self.line(&path, None);
            }
            Act::Recreate if there => {
                fs::remove_file(&path).unwrap();
                self.begun = None;
                self.renamed = false;
                self.write(&path, b"");
            }
            Act::Remove if there => {
                fs::remove_file(&path).unwrap();
                self.begun = None;
                self.renamed = false;
            }
            Act::Cut(at) if there && !empty => self.cut(at),
            Act::Compress => {
                let from = self.rotated(1);
                if from.exists() {
                    let name = format!("{}.gz", from.file_name().unwrap().display());
                    let modified = fs::metadata(&from).unwrap().modified().unwrap();
                    let packed = from.with_file_name(name);
                    fs::write(&packed, b"packed").unwrap();
                    fs::File::options().write(true).open(&packed).unwrap().set_modified(modified).unwrap();
                    fs::remove_file(from).unwrap();
                }
            }
            Act::Late if empty || !there => {
                let late = self.rotated(1);
                if self.renamed && late.exists() && fs::read(&late).unwrap().ends_with(b"\n") {
                    self.line(&late, None);
                    self.late.push((Identity::from(&fs::metadata(&late).unwrap()), self.written));
                }
            }
            Act::Look(count) => {
                for _ in 0..count {
                    self.look();
                }
            }
            Act::LookAll => self.look_all(),
            Act::Kill(which) => self.kill(which),
            _ => {}
        }
    }

    /// The lines behind the cut are gone; that can be noticed only if they were read.
    fn cut(&mut self, at: u8) {
        let path = self.path();
        let bytes = fs::read(&path).unwrap();
        let end = bytes.len() * usize::from(at) / 256;
        OpenOptions::new().write(true).open(&path).unwrap().set_len(end as u64).unwrap();
        let text = String::from_utf8_lossy(&bytes[..end]).into_owned();
        let generation = self.generation(&path);
        let (kept, gone): (BTreeSet<u64>, _) =
            self.lines[generation].iter().partition(|number| text.contains(line(**number).as_str()));
        self.lines[generation] = kept;
        let now = self.follower.current.as_ref().map(|current| current.tail.cursor());
        let identity = Identity::from(&fs::metadata(&path).unwrap());
        let reads_this = self.touched.contains(&generation);
        if reads_this
            && now.is_some_and(|now| now.identity == identity && now.seen > end as u64 && end as u64 >= TOUCHED)
        {
            self.touched.insert(self.lines.len());
        }
        self.lines.push(gone);
        self.begun = None;
        self.write(&path, b"\n");
    }

    /// The lines that were emptied away, even if into a copy, or are in no file any more, and of whose generation nothing was read: nobody can know of them.
    fn unknowable(&self) -> BTreeSet<u64> {
        let mut there: BTreeSet<Generation> = BTreeSet::new();
        let mut files = BTreeSet::new();
        for entry in fs::read_dir(self.folder.path()).unwrap().flatten() {
            let identity = Identity::from(&entry.metadata().unwrap());
            files.insert(format!("{identity:?}"));
            let is_packed = entry.path().extension().is_some_and(|ending| ending == "gz");
            there.extend(self.holds.get(&identity).filter(|_| !is_packed).copied());
        }
        let is_there = |generation: &Generation| there.contains(generation) && !self.emptied.contains(generation);
        let is_gone = |generation: &Generation| !is_there(generation) && !self.touched.contains(generation);
        let gone = (0..self.lines.len()).filter(|generation| self.before.contains(generation) || is_gone(generation));
        let late = self.late.iter().filter(|(identity, _)| !files.contains(&format!("{identity:?}")));
        let gone = gone.flat_map(|generation| self.lines[generation].iter().copied());
        gone.chain(late.map(|(_, number)| *number)).collect()
    }

    fn check(&mut self) -> Result<(), String> {
        // Settled, and then one line more: whatever is missing is before it.
        self.look_all();
        self.end_line();
        self.line(&self.path(), None);
        self.look_all();
        let unknowable = self.unknowable();
        let (mut last, mut gap, mut too_long) = (0, false, 0);
        for item in &self.told {
            match item {
                Item::Gap { reason: "line-too-long" } => too_long += 1,
                Item::Gap { reason } => {
                    gap = true;
                    *self.tried.entry(format!("gap {reason}")).or_default() += 1;
                }
                Item::Notice { kind } => {
                    let number: u64 = kind[1..].parse().map_err(|_| format!("invented {kind}"))?;
                    if number <= last || number > self.written {
                        return Err(format!("{number} after {last}"));
                    }
                    let missing: Vec<u64> = (last + 1..number).filter(|n| !unknowable.contains(n)).collect();
                    if !missing.is_empty() && !gap {
                        return Err(format!("{missing:?} missing without a gap"));
                    }
                    let kind = if missing.is_empty() { "nothing" } else { "lines" };
                    if gap {
                        *self.tried.entry(format!("gaps where {kind} was missing")).or_default() += 1;
                    }
                    let skipped = number - last - 1 - missing.len() as u64;
                    *self.tried.entry("lines missing that nobody could know of".to_owned()).or_default() += skipped;
                    *self.tried.entry("lines missing in gaps".to_owned()).or_default() += missing.len() as u64;
                    *self.tried.entry("lines given".to_owned()).or_default() += 1;
                    (last, gap) = (number, false);
                }
                other => return Err(format!("invented {other:?}")),
            }
        }
        if last != self.written && !gap {
            return Err(format!("ends with {last} of {}", self.written));
        }
        if too_long > self.too_long {
            return Err(format!("{too_long} over-long lines of {}", self.too_long));
        }
        Ok(())
    }
}

fn follower(path: &Path, start: Start) -> Follower {
    Follower::new(Place::File(path.to_owned()), start, "file:log".to_owned())
}

#[test]
fn whatever_happens_to_the_file_nothing_is_lost_silently_or_given_twice() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let cases = number("PROPTEST_CASES").unwrap_or(150);
    let seed = number("RELAY_SEED").unwrap_or(1);
    let rng_seed = RngSeed::Fixed(u64::from(seed));
    let config = ProptestConfig {
        cases,
        rng_seed,
        failure_persistence: None,
        max_shrink_iters: 5000,
        ..ProptestConfig::default()
    };
    let tried = Mutex::new(BTreeMap::<String, u64>::new());
    let result = TestRunner::new(config).run(&(any::<bool>(), acts()), |(counts, acts)| {
        let mut world = World::new(counts);
        for act in acts {
            world.act(act);
        }
        let checked = world.check();
        let mut tried = tried.lock().unwrap();
        for (what, count) in world.tried {
            *tried.entry(what).or_default() += count;
        }
        checked.map_err(|why| TestCaseError::fail(format!("{why}\n{:?}", world.told)))
    });
    println!("seed {seed}, {cases} cases: {:#?}", tried.lock().unwrap());
    if let Err(error) = result {
        panic!("seed {seed}: {error}");
    }
}
