// SPDX-License-Identifier: Apache-2.0
//! The answers: at once to the first, later to a flooder. A call is taken at once in any case, since a signal interrupts a
//! caller that we have not heard yet (SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV of seccomp(2)); SIGKILL ends one at any time.

use crate::sys::{self, Result};

/// How many are answered at once, and how long it takes until another one is, in nanoseconds.
const AT_ONCE: u64 = 64;
const EACH: u64 = 4_000_000;
/// A flood has one part in so many of a CPU: 2.5 %.
const SHARE: u64 = 40;
/// A call waits for each that waits already SHARE times what a call costs us, within these bounds, in nanoseconds.
const FOR_EACH: u64 = 250_000;
const FOR_EACH_AT_MOST: u64 = 4_000_000;
/// What a call costs is measured over so many.
const MEASURED: u64 = 128;
const SHORTEST: u64 = 1_000_000;
/// Several are answered at one time, so that one wake-up is enough for them; those that wait LONG, fewer times.
const TICK: u64 = 1_000_000;
const TICK_OF_MANY: u64 = 4_000_000;
const LONG: u64 = 9_000_000;
/// The most that can wait: for two seconds at most, which a freeze has patience for.
const ROOM: usize = 512;
/// Room to begin with: memory that a few callers are enough for.
const FEW: usize = 32;
/// So many waiting callers are a crowd.
const CROWD: usize = 6;
/// Words of one that waits: listener and error number, id, when it is due.
const WORDS: usize = 3;

/// How often something may be done: `at_once` in a row, later every `each` nanoseconds.
pub struct Budget {
    burst: u64,
    each: u64,
    /// Up to when it is spent
    spent: u64,
}

impl Budget {
    pub fn new(at_once: u64, each: u64) -> Self {
        Self { burst: at_once * each, each, spent: 0 }
    }

    /// Whether less than half of it is spent.
    pub fn is_plenty(&self, now: u64) -> bool {
        self.spent <= now + self.burst / 2
    }

    /// Whether it may be done once more.
    pub fn take(&mut self, now: u64) -> bool {
        let spent = self.spent.max(now) + self.each;
        let may = spent <= now + self.burst;
        if may {
            self.spent = spent;
        }
        may
    }
}

/// How long a call waits for each that waits already, by what calls cost here: machines differ, and so do floods (the kernel looks
/// through all callers of a listener for each of them). It grows at once, and shrinks slowly.
struct Pace {
    for_each: u64,
    calls: u64,
    /// CPU time up to the last measurement
    spent: u64,
}

impl Pace {
    /// One more call.
    fn step(&mut self) {
        self.calls += 1;
        if self.calls == MEASURED {
            let spent = sys::cpu_time();
            let fair = spent.saturating_sub(self.spent) / MEASURED * SHARE;
            let for_each = fair.max(self.for_each / 8 * 7).clamp(FOR_EACH, FOR_EACH_AT_MOST);
            *self = Self { for_each, calls: 0, spent };
        }
    }
}

/// Those that wait, the first one first.
pub struct Answers {
    budget: Budget,
    pace: Pace,
    waiting: &'static mut [u64],
    room: usize,
    first: usize,
    count: usize,
    last_due: u64,
}

impl Answers {
    pub fn new() -> Result<Self> {
        let waiting = sys::zeroes(ROOM * WORDS)?;
        let (budget, pace) = (Budget::new(AT_ONCE, EACH), Pace { for_each: FOR_EACH, calls: 0, spent: 0 });
        Ok(Self { budget, pace, waiting, room: FEW, first: 0, count: 0, last_due: 0 })
    }

    /// Fails call `id` with `errno`: at once, or when its time has come.
    pub fn give(&mut self, listener: i32, id: u64, errno: i32, now: u64) {
        if self.count == 0 && self.budget.take(now) {
            return sys::answer(listener, id, errno);
        }
        if self.count == self.room {
            self.make_room();
        }
        self.pace.step();
        let wait = (self.pace.for_each * (self.count as u64 + 1)).max(SHORTEST);
        let tick = if wait > LONG { TICK_OF_MANY } else { TICK };
        self.last_due = self.last_due.max((now + wait).next_multiple_of(tick));
        let at = (self.first + self.count) % self.room * WORDS;
        if let Some(place) = self.waiting.get_mut(at..at + WORDS) {
            place.copy_from_slice(&[listener as u64 | (errno as u64) << 32, id, self.last_due]);
            self.count += 1;
        }
    }

    /// Whether many wait.
    pub fn are_for_a_crowd(&self) -> bool {
        self.count >= CROWD
    }

    /// Whether no more can wait: one more is answered in place of the first, so nobody is to be heard.
    pub fn are_full(&self) -> bool {
        self.count == ROOM
    }

    /// Gives those whose time has come: how long the next one has to wait, in nanoseconds.
    pub fn give_due(&mut self, now: u64) -> Option<u64> {
        while self.count > 0 {
            let due = self.waiting.get(self.first * WORDS + 2).copied().unwrap_or_default();
            if due > now {
                return Some(due - now);
            }
            self.give_first();
        }
        None
    }

    fn make_room(&mut self) {
        if self.room == ROOM {
            return self.give_first();
        }
        // The later ones, which lie before the first one, go on behind the others.
        if let Some((old, new)) = self.waiting.split_at_mut_checked(self.room * WORDS) {
            old.iter().take(self.first * WORDS).zip(new).for_each(|(from, to)| *to = *from);
        }
        self.room *= 2;
    }

    fn give_first(&mut self) {
        let at = self.first * WORDS;
        if let Some(&[to, id, _]) = self.waiting.get(at..at + WORDS) {
            sys::answer(to as u32 as i32, id, (to >> 32) as i32);
        }
        self.first = (self.first + 1) % self.room;
        self.count -= 1;
    }
}
