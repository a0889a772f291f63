//! What a power cut may leave of everything that was not flushed, and of the operation it hit.
//!
//! A [`Crash`] says of every pending act how much of it reached the medium. [`crashes`] lists the models for one moment:
//!
//! | model | pending acts | the act that was hit |
//! |---|---|---|
//! | none, all | none, all of them | nothing, all |
//! | prefix | the first so many | nothing |
//! | single, all but one | each one alone, all without each one | nothing |
//! | subset, reordered | each subset, at random when there are many; a random order | at random |
//! | torn at a sector | all | the first so many sectors, or sectors at random |
//! | torn at a byte | all | the first so many bytes |
//! | garbage | all | whole, but the last sector is garbage |
//! | all of it torn | each whole, in part or not at all, at random | the first bytes |
//! | shorn | all | the first bytes, and zeros where the rest belongs |

use super::medium::{Data, SECTOR_BYTES, mix};
use super::storage::{Content, Names, Pending, Storage, View};

/// How much of one act reached the medium.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Part {
    /// Nothing.
    Nothing,
    /// Everything.
    All,
    /// The first so many bytes.
    Bytes(usize),
    /// Sectors at random.
    Sectors(u64),
    /// Everything, but the last sector is garbage.
    Garbage,
    /// The first so many bytes; zeros where the rest belongs.
    Shorn(usize),
}

/// What one power cut leaves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Crash {
    /// Its model, for reports.
    pub name: &'static str,
    /// Of the pending acts; whatever is not listed is lost.
    pub pending: Kept,
    /// Of the act that was hit.
    pub hit: Part,
}

/// Which pending acts reached the medium.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kept {
    /// None.
    None,
    /// All, in order.
    All,
    /// The first so many.
    Prefix(usize),
    /// That one.
    Single(usize),
    /// All without that one.
    Without(usize),
    /// Those whose bit is set.
    Subset(u64),
    /// All, in an order drawn from this seed.
    Reordered(u64),
    /// Each whole, in part or not at all, drawn from this seed.
    Random(u64),
}

/// How many models are tried at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Effort {
    /// Up to this many pending acts every subset is tried.
    pub exhaustive: usize,
    /// Random subsets, orders and tears beyond that.
    pub random: u64,
    /// At most so many places at which a write is torn between sectors.
    pub sectors: usize,
    /// At most so many places at which it is torn between bytes.
    pub bytes: usize,
}

/// Lists the models for a cut in `storage` while `hit` was being done.
pub fn crashes(storage: &Storage, hit: Option<&Pending>, effort: Effort) -> Vec<Crash> {
    let mut list = pending_crashes(storage, effort);
    if let Some(hit) = hit {
        hit_crashes(storage, hit, effort, &mut list);
    }
    list
}

fn pending_crashes(storage: &Storage, effort: Effort) -> Vec<Crash> {
    let count = storage.pending.len();
    let crash = |name, pending| Crash { name, pending, hit: Part::Nothing };
    let mut list = vec![crash("none", Kept::None)];
    if count == 0 {
        return list;
    }
    list.push(crash("all", Kept::All));
    if count > 1 && count <= effort.exhaustive {
        list.extend((1..(1_u64 << count) - 1).map(|mask| crash("subset", Kept::Subset(mask))));
    } else if count > 1 {
        list.extend((1..count).map(|n| crash("prefix", Kept::Prefix(n))));
        list.extend((0..count).map(|n| crash("single", Kept::Single(n))));
        list.extend((0..count).map(|n| crash("all but one", Kept::Without(n))));
    }
    let torn = storage.pending.iter().any(|act| act.length() > 0);
    for seed in 0..effort.random {
        let seed = mix(storage.hash(), seed);
        if count > effort.exhaustive {
            list.push(crash("subset", Kept::Subset(seed)));
        }
        if count > 1 {
            list.push(crash("reordered", Kept::Reordered(seed)));
        }
        if torn {
            list.push(crash("random", Kept::Random(seed)));
        }
    }
    list
}

fn hit_crashes(storage: &Storage, hit: &Pending, effort: Effort, list: &mut Vec<Crash>) {
    let length = hit.length();
    if length == 0 {
        return;
    }
    if !storage.pending.is_empty() {
        for seed in 0..effort.random {
            let draw = mix(storage.hash(), mix(hit.hash(), seed));
            let hit = Part::Bytes(place(draw, length));
            list.push(Crash { name: "all of it torn", pending: Kept::Random(draw), hit });
        }
    }
    let mut both = |name, hit| {
        list.push(Crash { name, pending: Kept::All, hit });
        if !storage.pending.is_empty() {
            list.push(Crash { name, pending: Kept::None, hit });
        }
    };
    for at in spread(length.div_ceil(SECTOR_BYTES), effort.sectors) {
        both("torn at a sector", Part::Bytes(at * SECTOR_BYTES));
    }
    for at in spread(length, effort.bytes) {
        both("torn at a byte", Part::Bytes(at));
    }
    for seed in 0..effort.random {
        if length > SECTOR_BYTES {
            both("random sectors", Part::Sectors(mix(hit.hash(), seed)));
        }
        both("shorn", Part::Shorn(mix(hit.hash(), seed) as usize % length));
    }
    both("garbage in the last sector", Part::Garbage);
}

/// A place in `length` bytes, as likely among the first few as in the middle: that is where headers are.
fn place(draw: u64, length: usize) -> usize {
    ((draw >> 8) as usize % length) >> (draw % 8)
}

/// At most `limit` places between 1 and `count - 1`, evenly spread.
fn spread(count: usize, limit: usize) -> impl Iterator<Item = usize> {
    let places = count.saturating_sub(1);
    let step = if limit == 0 { usize::MAX } else { places.div_ceil(limit).max(1) };
    (1..count).step_by(step)
}

/// Tells a crash from others in the same state.
pub fn hash(crash: &Crash) -> u64 {
    let kept = match crash.pending {
        Kept::None => 1,
        Kept::All => 2,
        Kept::Prefix(n) => mix(3, n as u64),
        Kept::Single(n) => mix(4, n as u64),
        Kept::Without(n) => mix(5, n as u64),
        Kept::Subset(mask) => mix(6, mask),
        Kept::Reordered(seed) => mix(7, seed),
        Kept::Random(seed) => mix(8, seed),
    };
    let hit = match crash.hit {
        Part::Nothing => 1,
        Part::All => 2,
        Part::Bytes(n) => mix(3, n as u64),
        Part::Sectors(seed) => mix(4, seed),
        Part::Garbage => 5,
        Part::Shorn(n) => mix(6, n as u64),
    };
    mix(kept, hit)
}

/// What is there when the power comes back.
pub fn power_cut(storage: &Storage, hit: Option<&Pending>, crash: &Crash) -> Storage {
    let mut durable = storage.durable.clone();
    for (at, part) in chosen(storage, &crash.pending) {
        land(&mut durable, &storage.pending[at], part);
    }
    if let Some(hit) = hit {
        land(&mut durable, hit, crash.hit);
    }
    storage.after_cut(durable)
}

/// The pending acts that reach the medium, in the order in which they do.
fn chosen(storage: &Storage, kept: &Kept) -> Vec<(usize, Part)> {
    let count = storage.pending.len();
    let all = |choose: &dyn Fn(usize) -> bool| -> Vec<(usize, Part)> {
        (0..count).filter(|at| choose(*at)).map(|at| (at, Part::All)).collect()
    };
    let list = match *kept {
        Kept::None => Vec::new(),
        Kept::All => all(&|_| true),
        Kept::Prefix(n) => all(&|at| at < n),
        Kept::Single(n) => all(&|at| at == n),
        Kept::Without(n) => all(&|at| at != n),
        Kept::Subset(mask) => all(&|at| mask >> (at % 64) & 1 == 1),
        Kept::Reordered(seed) => names_in_order(storage, shuffled(all(&|_| true), seed)),
        Kept::Random(seed) => {
            let part = |at: usize| {
                let draw = mix(seed, at as u64);
                let length = storage.pending[at].length();
                match draw % 6 {
                    0 => Part::Nothing,
                    1 if length > 0 => Part::Bytes(place(draw >> 3, length)),
                    2 if length > 0 => Part::Sectors(draw),
                    3 if length > 0 => Part::Garbage,
                    4 if length > 0 => Part::Shorn(place(draw >> 3, length)),
                    _ => Part::All,
                }
            };
            (0..count).map(|at| (at, part(at))).filter(|(_, part)| *part != Part::Nothing).collect()
        }
    };
    match storage.names {
        Names::AnyOrder => list,
        Names::Ordered => in_journal_order(storage, list),
    }
}

fn shuffled(mut list: Vec<(usize, Part)>, seed: u64) -> Vec<(usize, Part)> {
    for at in (1..list.len()).rev() {
        list.swap(at, mix(seed, at as u64) as usize % (at + 1));
    }
    list
}

/// Which names reach the medium is open, but a rename is atomic: a name that it took away does not come back after it.
fn names_in_order(storage: &Storage, mut list: Vec<(usize, Part)>) -> Vec<(usize, Part)> {
    let places: Vec<usize> = (0..list.len()).filter(|n| storage.pending[list[*n].0].is_name()).collect();
    let mut names: Vec<(usize, Part)> = places.iter().map(|n| list[*n]).collect();
    names.sort_by_key(|(at, _)| *at);
    for (place, name) in places.into_iter().zip(names) {
        list[place] = name;
    }
    list
}

/// A journal keeps changes of names in order: of as many as reached the medium, the first ones did.
fn in_journal_order(storage: &Storage, list: Vec<(usize, Part)>) -> Vec<(usize, Part)> {
    let is_name = |at: usize| storage.pending[at].is_name();
    let names = list.iter().filter(|(at, _)| is_name(*at)).count();
    let first = (0..storage.pending.len()).filter(|at| is_name(*at)).take(names).map(|at| (at, Part::All));
    list.into_iter().filter(|(at, _)| !is_name(*at)).chain(first).collect()
}

/// Puts a part of an act onto the medium.
fn land(durable: &mut View, act: &Pending, part: Part) {
    match (part, act) {
        (Part::Nothing, _) => {}
        (Part::All, _) => durable.apply(act),
        (_, Pending::Write { medium, offset, data }) => {
            let medium = durable.medium_mut(*medium);
            let length = data.bytes().len();
            let last = length.saturating_sub(SECTOR_BYTES);
            match part {
                Part::Bytes(n) => medium.write(*offset, data, 0..n.min(length)),
                Part::Sectors(seed) => {
                    for at in (0..length).step_by(SECTOR_BYTES) {
                        if mix(seed, at as u64).is_multiple_of(2) {
                            medium.write(*offset, data, at..(at + SECTOR_BYTES).min(length));
                        }
                    }
                }
                Part::Garbage => {
                    medium.write(*offset, data, 0..last);
                    medium.write(
                        *offset + last as u64,
                        &Data::new(vec![0xa5; length - last]),
                        0..length - last,
                    );
                }
                Part::Shorn(n) => {
                    medium.write(*offset, data, 0..n);
                    medium.write(*offset + n as u64, &Data::new(vec![0; length - n]), 0..length - n);
                }
                Part::Nothing | Part::All => {}
            }
        }
        (_, Pending::Fill { inode, content }) => {
            let bytes = &content.bytes;
            let torn = match part {
                Part::Bytes(n) => bytes[..n.min(bytes.len())].to_vec(),
                Part::Garbage => {
                    let keep = bytes.len().saturating_sub(SECTOR_BYTES);
                    [&bytes[..keep], &vec![0xa5; bytes.len() - keep]].concat()
                }
                // The size is there and the data is not.
                Part::Shorn(n) => [&bytes[..n], &vec![0; bytes.len() - n]].concat(),
                Part::Nothing | Part::All | Part::Sectors(_) => bytes.iter().map(|_| 0).collect(),
            };
            durable.fill(*inode, Content::new(torn));
        }
        // Names are atomic.
        (_, Pending::Link { .. } | Pending::Rename { .. } | Pending::Unlink { .. }) => {}
    }
}
