//! Lays rules out as a program of the kernel's packet filter: a search by halves over runs of calls that are treated alike.
//!
//! In a line it would take five times as long to install. Knows conditions and answers; which call has which is the
//! tables'.

/// One instruction: code, jump if true, jump if false, operand.
pub(crate) type Instruction = (u16, u8, u8, u32);

// linux/bpf_common.h, linux/seccomp.h
pub(super) const LOAD: u16 = 0x20;
pub(super) const AND: u16 = 0x54;
pub(super) const JUMP: u16 = 0x05;
pub(super) const JUMP_EQUAL: u16 = 0x15;
pub(super) const JUMP_AT_LEAST: u16 = 0x35;
pub(super) const JUMP_BITS: u16 = 0x45;
pub(super) const RETURN: u16 = 0x06;
pub(super) const ALLOW: u32 = 0x7fff_0000;
pub(super) const ERRNO: u32 = 0x0005_0000;
pub(super) const NOTIFY: u32 = 0x7fc0_0000;
pub(super) const KILL: u32 = 0x8000_0000;

/// Offsets in `struct seccomp_data`.
pub(super) const NUMBER_AT: u32 = 0;
pub(super) const ARCH_AT: u32 = 4;
pub(super) const ARGUMENTS_AT: u32 = 16;

/// When a call does not go through. Conditions look at the low 32 bits of an argument, which is all the kernel uses of
/// modes, families, requests and these flags.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Check {
    Always(u16),
    /// A supervisor answers.
    Supervised,
    /// Any of these bits.
    Bits {
        argument: u32,
        bits: u32,
        answer: u16,
    },
    /// Any of `bits` in `argument` while any of `also_bits` is in `also`.
    BitsWith {
        argument: u32,
        bits: u32,
        also: u32,
        also_bits: u32,
        answer: u16,
    },
    /// The bits under the mask equal the value.
    Equal {
        argument: u32,
        mask: u32,
        value: u32,
        answer: u16,
    },
    /// None of these values.
    NoneOf {
        argument: u32,
        values: &'static [u32],
        answer: u16,
    },
    /// An id that is neither this one nor the -1 that changes nothing.
    Foreign {
        argument: u32,
        own: u32,
        answer: u16,
    },
}

#[derive(Debug, Clone)]
pub(super) struct Rule {
    pub(super) call: u32,
    pub(super) checks: Vec<Check>,
}

pub(super) fn answer(errno: u16) -> Instruction {
    (RETURN, 0, 0, ERRNO | u32::from(errno))
}

/// A search by halves over runs of calls that are treated alike.
pub(super) fn search(rules: &[Rule]) -> Vec<Instruction> {
    let mut runs: Vec<(u32, &[Check])> = vec![(0, &[])];
    for (rule, next) in rules.iter().zip(rules.iter().skip(1).map(Some).chain([None])) {
        let (last_begin, last) = runs.last_mut().expect("it began with one");
        if *last_begin == rule.call {
            *last = &rule.checks;
        } else if *last != &rule.checks[..] {
            runs.push((rule.call, &rule.checks));
        }
        if next.is_none_or(|next| next.call > rule.call + 1) {
            runs.push((rule.call + 1, &[]));
        }
    }
    let mut code = Backwards::default();
    code.runs(&runs);
    code.reversed.reverse();
    code.reversed
}

/// A program in the making, from its end to its beginning: where a jump leads is then known when it is written.
/// Jumps only go forward, conditional ones over at most 255 instructions.
#[derive(Default)]
struct Backwards<'a> {
    reversed: Vec<Instruction>,
    /// Where, counted from the end, the code is that treats a call so.
    treatments: Vec<(&'a [Check], usize)>,
}

impl<'a> Backwards<'a> {
    /// Writes the search and returns where it begins.
    fn runs(&mut self, runs: &[(u32, &'a [Check])]) -> usize {
        if let [(_, checks)] = runs {
            return self.treatment(checks);
        }
        let (low, high) = runs.split_at(runs.len() / 2);
        let above = self.runs(high);
        let below = self.runs(low);
        let (above, below) = match (self.distance(above), self.distance(below)) {
            (Some(above), Some(below)) => (above, below),
            // Each step may push the other out of reach, so both get one that is near.
            _ => {
                let above = self.bridge(above);
                let below = self.bridge(below);
                let near = "two instructions away";
                (self.distance(above).expect(near), self.distance(below).expect(near))
            }
        };
        self.push((JUMP_AT_LEAST, above, below, high[0].0))
    }

    /// Where calls are treated so; written anew where the last such code is out of reach.
    fn treatment(&mut self, checks: &'a [Check]) -> usize {
        let known = self.treatments.iter().rev().find(|(known, _)| *known == checks);
        if let Some(&(_, at)) = known
            && self.distance(at).is_some_and(|distance| distance < 128)
        {
            return at;
        }
        let mut code: Vec<Instruction> = checks.iter().flat_map(check).collect();
        if !matches!(checks, [Check::Always(_) | Check::Supervised]) {
            code.push((RETURN, 0, 0, ALLOW));
        }
        self.reversed.extend(code.into_iter().rev());
        self.treatments.push((checks, self.reversed.len()));
        self.reversed.len()
    }

    fn bridge(&mut self, to: usize) -> usize {
        self.push((JUMP, 0, 0, (self.reversed.len() - to) as u32))
    }

    fn push(&mut self, instruction: Instruction) -> usize {
        self.reversed.push(instruction);
        self.reversed.len()
    }

    /// How far a conditional jump that is written next must reach, if it can.
    fn distance(&self, to: usize) -> Option<u8> {
        u8::try_from(self.reversed.len() - to).ok()
    }
}

/// Code that answers if the check holds, and goes on behind itself if not.
fn check(check: &Check) -> Vec<Instruction> {
    let load = |argument: u32| (LOAD, 0, 0, ARGUMENTS_AT + 8 * argument);
    match *check {
        Check::Always(errno) => vec![answer(errno)],
        Check::Supervised => vec![(RETURN, 0, 0, NOTIFY)],
        Check::Bits { argument, bits, answer: errno } => {
            vec![load(argument), (JUMP_BITS, 0, 1, bits), answer(errno)]
        }
        Check::BitsWith { argument, bits, also, also_bits, answer: errno } => {
            vec![load(also), (JUMP_BITS, 0, 3, also_bits), load(argument), (JUMP_BITS, 0, 1, bits), answer(errno)]
        }
        Check::Equal { argument, mask: u32::MAX, value, answer: errno } => {
            vec![load(argument), (JUMP_EQUAL, 0, 1, value), answer(errno)]
        }
        Check::Equal { argument, mask, value, answer: errno } => {
            vec![load(argument), (AND, 0, 0, mask), (JUMP_EQUAL, 0, 1, value), answer(errno)]
        }
        Check::NoneOf { argument, values, answer: errno } => {
            let mut code = vec![load(argument)];
            for (index, value) in values.iter().enumerate() {
                let past_answer = (values.len() - index) as u8;
                code.push((JUMP_EQUAL, past_answer, 0, *value));
            }
            code.push(answer(errno));
            code
        }
        Check::Foreign { argument, own, answer: errno } => {
            vec![load(argument), (JUMP_EQUAL, 2, 0, own), (JUMP_EQUAL, 1, 0, u32::MAX), answer(errno)]
        }
    }
}
