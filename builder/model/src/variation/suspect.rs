//! Causes that differing bytes give away without another build.
//!
//! A value that only one build had (its hostname, its directory, its date), found in that build's bytes at the place where
//! they differ and not in the other's, is telling. It is evidence and not proof: [`Confidence`] says how far it goes, and a
//! difference that gives nothing away gets no cause.

mod clock;

use crate::outcome::{Entry, Outcome};
use crate::report::{Cause, Confidence, Difference, Differences};

use super::{Conditions, Factor, Label};

/// Values shorter than this are only believed where a whole number stands at the place that differs.
const TELLING: usize = 6;

/// What the listed differences give away: each cause once, shown by the first file that gives it away best.
pub fn causes(outcomes: &[Outcome], differences: &Differences) -> Vec<Cause> {
    let mut causes: Vec<Cause> = Vec::new();
    for difference in &differences.differences {
        let [Some(first), Some(second)] = difference.between.map(|i| outcomes.get(i)) else { continue };
        let place = Place::of(difference, first, second);
        for clue in clues(&place) {
            let cause = Cause {
                label: clue.label,
                factor: clue.factor,
                confidence: clue.confidence,
                output: difference.output.to_string(),
                path: difference.path.clone(),
                evidence: clue.evidence,
                setting: None,
            };
            match causes.iter_mut().find(|c| c.label == cause.label) {
                Some(known) if cause.confidence < known.confidence => *known = cause,
                Some(_) => {}
                None => causes.push(cause),
            }
        }
    }
    causes.sort_by_key(|c| c.confidence);
    causes
}

/// One finding.
struct Clue {
    label: Label,
    factor: Option<Factor>,
    confidence: Confidence,
    evidence: String,
}

/// Two builds' bytes at one place that differs.
struct Place<'a> {
    first: Bytes<'a>,
    second: Bytes<'a>,
}

struct Bytes<'a> {
    /// A few bytes around the place.
    near: &'a [u8],
    /// Where in `near` the first difference is.
    at: usize,
    outcome: &'a Outcome,
}

impl<'a> Place<'a> {
    /// Bytes of contents if there are any, else what names the difference: the links' targets or the path itself.
    fn of(difference: &'a Difference, first: &'a Outcome, second: &'a Outcome) -> Self {
        if let Some(content) = &difference.content {
            let at = usize::try_from(content.offset.saturating_sub(content.excerpt_offset)).unwrap_or(usize::MAX);
            let side = |near, outcome| Bytes { near, at, outcome };
            return Self {
                first: side(content.first.as_bytes(), first),
                second: side(content.second.as_bytes(), second),
            };
        }
        let name = |entry: &'a Option<Entry>| match entry {
            Some(Entry::Symlink { target }) => target.as_bytes(),
            Some(Entry::File { .. } | Entry::Directory) => difference.path.as_bytes(),
            None => &[],
        };
        let (a, b) = (name(&difference.first), name(&difference.second));
        let at = a.iter().zip(b).take_while(|(x, y)| x == y).count();
        Self { first: Bytes { near: a, at, outcome: first }, second: Bytes { near: b, at, outcome: second } }
    }
}

impl Bytes<'_> {
    fn settings(&self) -> Option<&Conditions> {
        self.outcome.conditions.as_ref().map(|ran| &ran.settings)
    }

    fn has(&self, value: &str) -> bool {
        self.near.windows(value.len().max(1)).any(|window| window == value.as_bytes())
    }

    /// The longest run around the first difference whose bytes all satisfy `part`.
    fn run(&self, part: impl Fn(&u8) -> bool) -> &str {
        let Some((before, after)) = self.near.split_at_checked(self.at) else { return "" };
        let start = before.len() - before.iter().rev().take_while(|b| part(b)).count();
        let end = before.len() + after.iter().take_while(|b| part(b)).count();
        std::str::from_utf8(&self.near[start..end]).unwrap_or("")
    }
}

fn clues(place: &Place<'_>) -> Vec<Clue> {
    let mut clues = literals(place);
    clues.extend(numbers(place));
    clues.extend(pointers(place));
    clues.extend(clock::clues(place));
    clues
}

/// Texts that stand for a factor, as a build under these conditions would write them.
fn texts(conditions: &Conditions, outcome: &Outcome) -> Vec<(Factor, String)> {
    let mut texts = vec![
        (Factor::BuildPath, conditions.build_dir.clone()),
        (Factor::Hostname, conditions.hostname.clone()),
        (Factor::Domain, conditions.domain.clone()),
        (Factor::UserName, conditions.user_name.clone()),
        (Factor::Home, conditions.home.clone()),
    ];
    texts.extend(conditions.locale.iter().map(|v| (Factor::Locale, v.clone())));
    texts.extend(conditions.path_suffix.iter().map(|v| (Factor::ExecPath, v.clone())));
    texts.extend(conditions.time_zone.iter().map(|v| (Factor::TimeZone, v.clone())));
    texts.extend(conditions.noise.values().filter(|v| v.len() >= TELLING).map(|v| (Factor::Environment, v.clone())));
    let observed = outcome.conditions.as_ref().and_then(|ran| ran.observed.as_ref());
    texts.extend(observed.and_then(|o| o.kernel.clone()).map(|v| (Factor::Kernel, v)));
    texts
}

/// Values of factors that stand as they are in the bytes of the build that had them.
fn literals(place: &Place<'_>) -> Vec<Clue> {
    let (Some(first), Some(second)) = (place.first.settings(), place.second.settings()) else { return Vec::new() };
    let ours = texts(first, place.first.outcome);
    let theirs = texts(second, place.second.outcome);
    let mut clues = Vec::new();
    for &factor in Factor::ALL {
        let values = |side: &[(Factor, String)]| -> Vec<String> {
            side.iter().filter(|(f, v)| *f == factor && v.len() >= TELLING).map(|(_, v)| v.clone()).collect()
        };
        let (ours, theirs) = (values(&ours), values(&theirs));
        if ours == theirs {
            continue;
        }
        let mine = ours.iter().find(|v| place.first.has(v) && !place.second.has(v));
        let other = theirs.iter().find(|v| place.second.has(v) && !place.first.has(v));
        // The control's build directory begins the varied one, so it is in both builds' bytes.
        let prefix = ours.iter().find(|v| place.first.has(v) && other.is_some_and(|o| o.starts_with(v.as_str())));
        let (confidence, evidence) = match (mine.or(prefix), other) {
            (Some(mine), Some(other)) => {
                (Confidence::Likely, format!("each build wrote its own {factor}: {mine:?} and {other:?}"))
            }
            (None, Some(other)) => {
                (Confidence::Suspected, format!("only the second build wrote its own {factor}, {other:?}"))
            }
            (Some(mine), None) => {
                (Confidence::Suspected, format!("only the first build wrote its own {factor}, {mine:?}"))
            }
            (None, None) => continue,
        };
        clues.push(Clue { label: factor.label(), factor: Some(factor), confidence, evidence });
    }
    clues
}

/// Whole numbers at the first difference, held against the numbers that each build was given.
fn numbers(place: &Place<'_>) -> Option<Clue> {
    let (first, second) = (place.first.settings()?, place.second.settings()?);
    let (a, b) = (place.first.run(u8::is_ascii_digit), place.second.run(u8::is_ascii_digit));
    if a == b || a.is_empty() || b.is_empty() {
        return None;
    }
    let cpus = |side: &Bytes<'_>| {
        let observed = side.outcome.conditions.as_ref().and_then(|ran| ran.observed.as_ref());
        observed.and_then(|o| o.cpus).or_else(|| side.settings()?.cpus.map(|n| n.get()))
    };
    if first.umask != second.umask && a == first.umask.to_string() && b == second.umask.to_string() {
        let evidence = format!("each build wrote its own umask: {a} and {b}");
        let (label, factor) = (Label::Umask, Some(Factor::Umask));
        return Some(Clue { label, factor, confidence: Confidence::Likely, evidence });
    }
    let pairs = [
        (Factor::Uid, Some(first.uid), Some(second.uid)),
        (Factor::Gid, Some(first.gid), Some(second.gid)),
        (Factor::CpuCount, cpus(&place.first), cpus(&place.second)),
        (Factor::Parallelism, Some(first.cores.get()), Some(second.cores.get())),
    ];
    for (factor, ours, theirs) in pairs {
        let (Some(ours), Some(theirs)) = (ours, theirs) else { continue };
        let decimal = a.parse() == Ok(ours) && b.parse() == Ok(theirs);
        let octal =
            a.len() >= TELLING && [(a, ours), (b, theirs)].iter().all(|(t, n)| u32::from_str_radix(t, 8) == Ok(*n));
        if ours != theirs && (decimal || octal) {
            let confidence = if ours.max(theirs) >= 1000 { Confidence::Likely } else { Confidence::Suspected };
            let label = if factor == Factor::Parallelism { Label::Ncpu } else { factor.label() };
            let evidence = format!("each build wrote its own {factor}: {a} and {b}");
            return Some(Clue { label, factor: Some(factor), confidence, evidence });
        }
    }
    // A mode as tar and cpio write it: octal, of fixed width, and the stricter mask took bits away.
    if a.len() == b.len()
        && a.len() >= TELLING
        && let (Ok(x), Ok(y)) = (u32::from_str_radix(a, 8), u32::from_str_radix(b, 8))
        && first.umask != second.umask
        && x & !first.umask.bits() == x
        && y & !second.umask.bits() == y
        && (x | y) & !(first.umask.bits() & second.umask.bits()) == (x | y)
        && x & !second.umask.bits() == y & !first.umask.bits()
    {
        let evidence = format!("file modes {a} and {b} differ by the masks {} and {}", first.umask, second.umask);
        return Some(Clue {
            label: Label::Umask,
            factor: Some(Factor::Umask),
            confidence: Confidence::Likely,
            evidence,
        });
    }
    // Process ids count from the first one; few builds start so many that the two ranges meet.
    let span = first.first_pid.abs_diff(second.first_pid);
    let ours = a.parse::<u32>().is_ok_and(|n| (first.first_pid..first.first_pid + span).contains(&n));
    let theirs = b.parse::<u32>().is_ok_and(|n| (second.first_pid..second.first_pid + span).contains(&n));
    (ours && theirs && b.len() > 3).then(|| Clue {
        label: Label::Pid,
        factor: Some(Factor::Pid),
        confidence: Confidence::Suspected,
        evidence: format!("{a} and {b} are in the range of each build's process ids"),
    })
}

/// An address in hexadecimal that has the place it takes without randomisation in the one build, and another in the other.
fn pointers(place: &Place<'_>) -> Option<Clue> {
    let (first, second) = (place.first.settings()?, place.second.settings()?);
    if first.aslr == second.aslr {
        return None;
    }
    let address = |side: &Bytes<'_>| {
        let text = side.run(|b| b.is_ascii_hexdigit() || *b == b'x').to_string();
        let digits = text.strip_prefix("0x").unwrap_or(&text).len();
        (digits == 12).then_some(text)
    };
    let (a, b) = (address(&place.first)?, address(&place.second)?);
    // Where x86-64 puts the stack and libraries, and position-independent programs, under ADDR_NO_RANDOMIZE.
    let unmoved =
        |text: &str| ["7fffff", "7ffff7", "555555"].iter().any(|p| text.trim_start_matches("0x").starts_with(p));
    (unmoved(&a) != unmoved(&b)).then(|| Clue {
        label: Label::Aslr,
        factor: Some(Factor::Aslr),
        confidence: Confidence::Likely,
        evidence: format!("{a} and {b} are addresses; one has the place it takes without randomisation"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::{Moment, samples};
    use crate::report::{Content, Excerpt, Kind};
    use crate::variation::{Aslr, Kernel, Umask};
    use std::num::NonZeroU32;

    /// What two builds, a minute apart, give away that wrote `first` and `second` at the start of one file.
    fn given_away(first: &[u8], second: &[u8]) -> Vec<(Label, Confidence)> {
        let offset = first.iter().zip(second).take_while(|(a, b)| a == b).count() as u64;
        let outcomes = [samples::control(), samples::varied()];
        let difference = Difference {
            between: [0, 1],
            output: "out".parse().unwrap(),
            path: crate::outcome::EntryPath::from_bytes(*b"file"),
            kind: Kind::Content,
            first: None,
            second: None,
            content: Some(Content {
                offset,
                differing_bytes: 1,
                excerpt_offset: 0,
                first: Excerpt::new(first),
                second: Excerpt::new(second),
            }),
            details: Vec::new(),
            details_left_out: 0,
            equivalence: None,
        };
        let differences = Differences { differences: vec![difference], differences_left_out: 0 };
        causes(&outcomes, &differences).into_iter().map(|c| (c.label, c.confidence)).collect()
    }

    fn time(outcome: &Outcome, after: u64) -> u32 {
        u32::try_from(outcome.started.unix() + after).unwrap()
    }

    #[test]
    fn the_samples_differ_in_what_these_tests_look_for() {
        let varied = samples::varied();
        let settings = varied.conditions.as_ref().map(|ran| &ran.settings).unwrap();
        assert_eq!((settings.aslr, settings.kernel), (Aslr::On, Kernel::Uname26));
        assert_eq!((settings.umask, settings.cores), (Umask::new(0o077), NonZeroU32::MIN));
        assert_eq!(settings.time_zone.as_deref(), Some("GMT+12"));
    }

    #[test]
    fn each_builds_own_value_names_the_cause() {
        for (first, second, label) in [
            ("on localhost.", "on another-hostname.", Label::Host),
            ("by nixbld", "by another-user", Label::User),
            ("DW_AT_comp_dir /build", "DW_AT_comp_dir /build/another/much-longer-path", Label::Path),
            ("HOME=/homeless-shelter", "HOME=/nonexistent/another-home", Label::Home),
            ("uid=1000(", "uid=4177(", Label::User),
            ("mode 0000644 ", "mode 0000600 ", Label::Umask),
            ("0022\n", "0077\n", Label::Umask),
            ("p=0x7fffffffe0f0", "p=0x7ffd3c0a1e40", Label::Aslr),
            ("built in UTC", "built in GMT", Label::Tz),
            ("+0000]", "-1200]", Label::Tz),
        ] {
            assert_eq!(given_away(first.as_bytes(), second.as_bytes()), [(label, Confidence::Likely)], "{second}");
        }
    }

    #[test]
    fn weak_traces_are_only_suspected() {
        for (first, second, label) in
            [("", "tag another-tag", Label::Env), ("jobs=2", "jobs=1", Label::Ncpu), ("tmp.17", "tmp.5017", Label::Pid)]
        {
            assert_eq!(given_away(first.as_bytes(), second.as_bytes()), [(label, Confidence::Suspected)], "{second}");
        }
    }

    #[test]
    fn times_are_known_in_every_usual_spelling() {
        let (first, second) = (time(&samples::control(), 3), time(&samples::varied(), 5));
        let gzip = |t: u32| [&[0x1f, 0x8b, 8, 8], &t.to_le_bytes()[..], b"\x02\x03name"].concat();
        assert_eq!(given_away(&gzip(first), &gzip(second)), [(Label::Mtime, Confidence::Likely)]);
        let tar = |t: u32| format!("0001750\0 00000000144\0 {t:011o}\0 012345\0").into_bytes();
        assert_eq!(given_away(&tar(first), &tar(second)), [(Label::Mtime, Confidence::Likely)]);
        let decimal = |t: u32| format!("built at {t}\n").into_bytes();
        assert_eq!(given_away(&decimal(first), &decimal(second)), [(Label::Time, Confidence::Likely)]);
        let big = |t: u32| [b"stamp ", &t.to_be_bytes()[..]].concat();
        assert_eq!(given_away(&big(first), &big(second)), [(Label::Time, Confidence::Likely)]);
        let iso = |t: u32| Moment::from_unix(t.into()).to_string().into_bytes();
        assert_eq!(given_away(&iso(first), &iso(second)), [(Label::Time, Confidence::Likely)]);
    }

    #[test]
    fn a_local_time_is_the_clocks_and_the_zones_doing() {
        let (first, second) = (time(&samples::control(), 3), time(&samples::varied(), 5) - 12 * 3600);
        let local = |t: u32| {
            let text = Moment::from_unix(t.into()).to_string();
            format!("at Nov {:>2} {} {}", &text[8..10], &text[0..4], &text[11..19]).into_bytes()
        };
        assert_eq!(
            given_away(&local(first), &local(second)),
            [(Label::Time, Confidence::Likely), (Label::Tz, Confidence::Likely)]
        );
        let date = |t: u32, zone: &str| {
            let text = Moment::from_unix(t.into()).to_string();
            format!("Sun Nov {:>2} {} {zone} {}", &text[8..10], &text[11..19], &text[0..4]).into_bytes()
        };
        assert_eq!(
            given_away(&date(first, "UTC"), &date(second, "GMT")),
            [(Label::Time, Confidence::Likely), (Label::Tz, Confidence::Likely)]
        );
    }

    #[test]
    fn noise_gives_nothing_away() {
        for (first, second) in [
            (&b"\x8a\x01\xff random"[..], &b"\x13\x77\x02 random"[..]),
            (b"1234567890", b"1334567890"),
            (b"", b"more"),
            (b"0x7f01", b"0x7f02"),
            (b"localhost a", b"localhost b"),
        ] {
            assert_eq!(given_away(first, second), [], "{:?}", String::from_utf8_lossy(second));
        }
    }

    #[test]
    fn a_file_named_after_the_host_gives_it_away_too() {
        let difference = Difference {
            between: [0, 1],
            output: "out".parse().unwrap(),
            path: crate::outcome::EntryPath::from_bytes(*b"log.another-hostname"),
            kind: Kind::OnlyInSecond,
            first: None,
            second: Some(Entry::Directory),
            content: None,
            details: Vec::new(),
            details_left_out: 0,
            equivalence: None,
        };
        let differences = Differences { differences: vec![difference], differences_left_out: 0 };
        let causes = causes(&[samples::control(), samples::varied()], &differences);
        assert_eq!(causes.iter().map(|c| c.label).collect::<Vec<_>>(), [Label::Host]);
    }

    #[test]
    fn outcomes_that_never_ran_or_are_not_there_give_nothing_away() {
        let mut differences = Differences::default();
        let path = crate::outcome::EntryPath::default();
        differences.differences.push(Difference::new([0, 7], "out".parse().unwrap(), path, Kind::Content));
        assert_eq!(causes(&[samples::control()], &differences), []);
    }
}
