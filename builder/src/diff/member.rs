//! Members of two containers held against each other: which there are, in which order, what their headers say.
//!
//! Members are paired by name, the first of a name with the first of it. What differs for many members in the same way (a
//! time, an owner) is one detail with a few examples, so that an archive of ten thousand files stays readable.

use std::collections::{BTreeMap, BTreeSet};

use kiln_model::normalise::Normaliser;
use kiln_model::outcome::Moment;
use kiln_model::report::{Aspect, Detail};

use super::list::{Listing, Member, MemberKind};

/// Examples of a detail of many members.
const EXAMPLES: usize = 3;

/// A member of each side that has the same name.
pub(super) struct Pair<'a> {
    pub(super) place: String,
    pub(super) first: &'a Member,
    pub(super) second: &'a Member,
}

/// What the two containers say of their members, and the members of both sides, in the order of the first.
pub(super) fn compare<'a>(place: &str, first: &'a Listing, second: &'a Listing) -> (Vec<Detail>, Vec<Pair<'a>>) {
    let mut details = Vec::new();
    for (listing, which) in [(first, "first"), (second, "second")] {
        for why in &listing.unsound {
            details.push(Detail::new(
                place,
                Aspect::Header,
                format!("the {which} {} is not sound: {why}", listing.what),
            ));
        }
    }
    let (ours, mut theirs) = (numbered(&first.members), numbered(&second.members));
    let renamed = compressed_otherwise(&ours, &theirs);
    for (from, to) in &renamed {
        // The second side's member takes the name of its counterpart; what it is really called is a detail of its own.
        let (mine, other) = (String::from_utf8_lossy(from.0), String::from_utf8_lossy(to.0));
        let says = format!("called {mine:?} and {other:?}: compressed otherwise");
        details.push(Detail::new(inner(place, from.0), Aspect::Compression, says).between(mine, other));
        if let Some(index) = theirs.remove(to) {
            theirs.insert(*from, index);
        }
    }
    let both: BTreeMap<Key<'_>, (usize, usize)> =
        ours.iter().filter_map(|(key, &i)| theirs.get(key).map(|&j| (*key, (i, j)))).collect();
    for (side, other, kind, which) in
        [(&ours, &theirs, Aspect::OnlyInFirst, "first"), (&theirs, &ours, Aspect::OnlyInSecond, "second")]
    {
        let members = if kind == Aspect::OnlyInFirst { &first.members } else { &second.members };
        for (key, &index) in side.iter().filter(|(key, _)| !other.contains_key(*key)) {
            let what = members[index].kind.word();
            details.push(Detail::new(inner(place, key.0), kind, format!("this {what} is only in the {which}")));
        }
    }
    let mut pairs: Vec<(usize, usize)> = both.into_values().collect();
    pairs.sort_unstable();
    details.extend(order(place, first, second, &pairs));
    let pairs: Vec<Pair<'a>> = pairs
        .into_iter()
        .map(|(i, j)| {
            let (a, b) = (&first.members[i], &second.members[j]);
            Pair { place: inner(place, &a.name), first: a, second: b }
        })
        .collect();
    details.extend(kinds(&pairs));
    details.extend(metadata(place, first, &pairs));
    for ((name, a), (_, b)) in first.around.iter().zip(&second.around) {
        if a != b {
            let says = format!("{name} of the {}: {a:?} and {b:?}", first.what);
            details.push(Detail::new(place, Aspect::Header, says).between(a, b));
        }
    }
    (details, pairs)
}

/// A name and how many of it stood before.
type Key<'a> = (&'a [u8], usize);

fn numbered(members: &[Member]) -> BTreeMap<Key<'_>, usize> {
    let mut count: BTreeMap<&[u8], usize> = BTreeMap::new();
    let mut all = BTreeMap::new();
    for (index, member) in members.iter().enumerate() {
        let before = count.entry(&member.name).or_default();
        all.insert((member.name.as_slice(), *before), index);
        *before += 1;
    }
    all
}

/// Members that only differ in what their names say of their compression: `data.tar.xz` and `data.tar.zst`.
fn compressed_otherwise<'a>(
    ours: &BTreeMap<Key<'a>, usize>,
    theirs: &BTreeMap<Key<'a>, usize>,
) -> Vec<(Key<'a>, Key<'a>)> {
    let stem = |key: &Key<'a>| -> &'a [u8] {
        let ends: [&[u8]; 4] = [b".gz", b".xz", b".zst", b".bz2"];
        ends.iter().find_map(|end| key.0.strip_suffix(*end)).unwrap_or(key.0)
    };
    let alone: Vec<&Key<'a>> = theirs.keys().filter(|key| !ours.contains_key(*key)).collect();
    let mut pairs: Vec<(Key<'a>, Key<'a>)> = Vec::new();
    for from in ours.keys().filter(|key| !theirs.contains_key(*key)) {
        let mut matching = alone.iter().filter(|to| stem(to) == stem(from) && to.1 == from.1);
        if let (Some(to), None) = (matching.next(), matching.next())
            && pairs.iter().all(|(_, taken)| *taken != **to)
        {
            pairs.push((*from, **to));
        }
    }
    pairs
}

/// Where a member is, for people: `data.tar.xz!usr/bin/x`.
pub(super) fn inner(place: &str, name: &[u8]) -> String {
    let name = name.strip_prefix(b"./").filter(|rest| !rest.is_empty()).unwrap_or(name);
    let name = String::from_utf8_lossy(name);
    if place.is_empty() { name.into_owned() } else { format!("{place}!{name}") }
}

fn order(place: &str, first: &Listing, second: &Listing, pairs: &[(usize, usize)]) -> Option<Detail> {
    let theirs: Vec<usize> = pairs.iter().map(|&(_, j)| j).collect();
    if theirs.is_sorted() {
        return None;
    }
    let mut sorted = theirs.clone();
    sorted.sort_unstable();
    let elsewhere: Vec<usize> = (0..pairs.len()).filter(|&at| sorted[at] != theirs[at]).collect();
    let at = *elsewhere.first()?;
    let name = |member: &Member| String::from_utf8_lossy(&member.name).into_owned();
    let (a, b) = (name(&first.members[pairs[at].0]), name(&second.members[sorted[at]]));
    let says = format!(
        "the order of members: {} of {} stand elsewhere, the first where one has {a:?} and the other {b:?}",
        elsewhere.len(),
        pairs.len()
    );
    let detail = Detail::new(place, Aspect::Order, says).between(a, b);
    Some(match first.order {
        Some(normaliser) => detail.under(normaliser),
        None => detail,
    })
}

fn kinds(pairs: &[Pair<'_>]) -> Vec<Detail> {
    let text = |target: &[u8]| String::from_utf8_lossy(target).into_owned();
    let differing = pairs.iter().filter(|p| p.first.kind != p.second.kind);
    differing
        .map(|pair| match (&pair.first.kind, &pair.second.kind) {
            (MemberKind::Symlink(a), MemberKind::Symlink(b)) | (MemberKind::HardLink(a), MemberKind::HardLink(b)) => {
                let says = format!("the link points to {:?} and {:?}", text(a), text(b));
                Detail::new(&pair.place, Aspect::Target, says).between(text(a), text(b))
            }
            (a, b) => {
                let says = format!("a {} in the first, a {} in the second", a.word(), b.word());
                Detail::new(&pair.place, Aspect::Type, says).between(a.word(), b.word())
            }
        })
        .collect()
}

/// One way in which members differ, with those that do.
struct Way {
    aspect: Aspect,
    name: &'static str,
    places: Vec<(String, String, String)>,
    shifts: BTreeSet<i64>,
    normaliser: Option<Normaliser>,
}

fn metadata(place: &str, listing: &Listing, pairs: &[Pair<'_>]) -> Vec<Detail> {
    let mut ways: Vec<Way> = Vec::new();
    let mut differs = |aspect, name, normaliser, pair: &Pair<'_>, a: String, b: String, shift: Option<i64>| {
        let found = ways.iter().position(|w| w.aspect == aspect && w.name == name && w.normaliser == normaliser);
        let index = found.unwrap_or_else(|| {
            ways.push(Way { aspect, name, places: Vec::new(), shifts: BTreeSet::new(), normaliser });
            ways.len() - 1
        });
        ways[index].places.push((pair.place.clone(), a, b));
        if ways[index].shifts.len() < 2 {
            ways[index].shifts.extend(shift);
        }
    };
    for pair in pairs {
        let (a, b) = (pair.first, pair.second);
        let normaliser = listing.metadata;
        if a.time != b.time {
            let shift = a.time.zip(b.time).map(|(x, y)| y - x);
            differs(Aspect::Time, "modification time", normaliser, pair, date(a.time), date(b.time), shift);
        }
        if a.mode != b.mode {
            let text = |mode: Option<u32>| mode.map_or("none".into(), |mode| format!("{:04o}", mode & 0o7_777));
            // In a zip the high bits say what it is: not a matter of permissions.
            let same_type =
                a.mode.unwrap_or(0) >> 12 == b.mode.unwrap_or(0) >> 12 || a.mode.is_none() || b.mode.is_none();
            let (x, y) = if same_type { (text(a.mode), text(b.mode)) } else { (octal(a.mode), octal(b.mode)) };
            differs(Aspect::Mode, "mode", normaliser, pair, x, y, None);
        }
        if a.owner != b.owner {
            let text = |owner: &Option<String>| owner.clone().unwrap_or_else(|| "none".into());
            differs(Aspect::Owner, "owner", normaliser, pair, text(&a.owner), text(&b.owner), None);
        }
        if a.method != b.method {
            let text = |method: &Option<String>| method.clone().unwrap_or_default();
            differs(Aspect::Compression, "compression", normaliser, pair, text(&a.method), text(&b.method), None);
        }
        for (name, values) in headers(a, b) {
            // Only what a normaliser is named for; the encoding of an ASCII name says nothing.
            let covered = match name {
                "system" | "version" | "flags" | "descriptor" | "attributes" | "extra field" => true,
                "name encoding" => a.name.is_ascii(),
                _ => false,
            };
            let normaliser = normaliser.filter(|_| covered);
            differs(Aspect::Header, name, normaliser, pair, values.0, values.1, None);
        }
    }
    let count = pairs.len();
    ways.into_iter().map(|way| told(place, way, count)).collect()
}

fn octal(mode: Option<u32>) -> String {
    mode.map_or("none".into(), |mode| format!("{mode:06o}"))
}

/// Fields that the headers of two members have another value of.
fn headers(a: &Member, b: &Member) -> BTreeMap<&'static str, (String, String)> {
    let all = |member: &Member, name: &str| -> String {
        let values: Vec<&str> = member.header.iter().filter(|(n, _)| *n == name).map(|(_, v)| v.as_str()).collect();
        values.join(", ")
    };
    let names: BTreeSet<&'static str> = a.header.iter().chain(&b.header).map(|(name, _)| *name).collect();
    names.into_iter().map(|n| (n, (all(a, n), all(b, n)))).filter(|(_, (x, y))| x != y).collect()
}

fn told(place: &str, way: Way, count: usize) -> Detail {
    let (place, says, first, second) = match way.places.as_slice() {
        [(place, a, b)] => (place.clone(), format!("{}: {a} and {b}", way.name), a.clone(), b.clone()),
        places => {
            let examples: Vec<String> = places
                .iter()
                .take(EXAMPLES)
                .map(|(at, a, b)| format!("{}: {a} and {b}", at.rsplit('!').next().unwrap_or(at)))
                .collect();
            let more = if places.len() > EXAMPLES { ", …" } else { "" };
            let shift = match way.shifts.iter().next() {
                Some(&by) if way.shifts.len() == 1 => format!(", all by {}", duration(by)),
                _ => String::new(),
            };
            let says =
                format!("{} of {} of {count} members{shift}: {}{more}", way.name, places.len(), examples.join(", "));
            (place.to_owned(), says, places[0].1.clone(), places[0].2.clone())
        }
    };
    let shift = way.shifts.first().copied().filter(|_| way.shifts.len() == 1);
    let detail = Detail { shift, ..Detail::new(place, way.aspect, says) }.between(first, second);
    match way.normaliser {
        Some(normaliser) => detail.under(normaliser),
        None => detail,
    }
}

/// A time as a date.
pub(super) fn date(seconds: Option<i64>) -> String {
    match seconds {
        None => "none".into(),
        Some(seconds) => match u64::try_from(seconds) {
            Ok(seconds) => Moment::from_unix(seconds).to_string(),
            Err(_) => format!("{seconds} s"),
        },
    }
}

/// `+5 h`, `-90 s`
fn duration(seconds: i64) -> String {
    if seconds != 0 && seconds % 900 == 0 {
        let hours = seconds as f64 / 3600.0;
        return format!("{hours:+} h");
    }
    format!("{seconds:+} s")
}

#[cfg(test)]
mod tests {
    use super::super::blob::Blob;
    use super::super::list;
    use super::*;

    fn tar(files: &[(&str, &[u8], u64)]) -> Listing {
        list::tar(&Blob::of_bytes(list::tests::tar(files)), 100).unwrap()
    }

    fn said(first: &Listing, second: &Listing) -> Vec<(String, Aspect, String)> {
        compare("x.tar", first, second).0.into_iter().map(|d| (d.place, d.kind, d.says)).collect()
    }

    #[test]
    fn what_only_one_side_has_is_named() {
        let (a, b) = (tar(&[("./a", b"", 0), ("./b", b"", 0)]), tar(&[("./b", b"", 0), ("./c", b"", 0)]));
        let details = said(&a, &b);
        assert_eq!(details[0], ("x.tar!a".into(), Aspect::OnlyInFirst, "this file is only in the first".into()));
        assert_eq!(details[1].0, "x.tar!c");
        assert_eq!(details.len(), 2);
    }

    #[test]
    fn an_order_is_one_detail_that_names_the_first_out_of_place() {
        let a = tar(&[("a", b"", 0), ("b", b"", 0), ("c", b"", 0)]);
        let b = tar(&[("a", b"", 0), ("c", b"", 0), ("b", b"", 0)]);
        let (details, pairs) = compare("x.tar", &a, &b);
        assert_eq!((details.len(), details[0].kind, pairs.len()), (1, Aspect::Order, 3));
        assert_eq!(details[0].normaliser, Some(Normaliser::TarOrder));
        assert!(details[0].says.contains("2 of 3 stand elsewhere, the first where one has \"b\" and the other \"c\""));
    }

    #[test]
    fn many_times_are_one_detail_with_examples_and_their_shift() {
        let a = tar(&[("a", b"", 0), ("b", b"", 100), ("c", b"", 200), ("d", b"", 300), ("e", b"", 7)]);
        let b = tar(&[("a", b"", 7200), ("b", b"", 7300), ("c", b"", 7400), ("d", b"", 7500), ("e", b"", 7)]);
        let (details, _) = compare("x.tar", &a, &b);
        assert_eq!((details.len(), details[0].kind, details[0].shift), (1, Aspect::Time, Some(7200)));
        let says = &details[0].says;
        assert!(
            says.starts_with("modification time of 4 of 5 members, all by +2 h: a: 1970-01-01T00:00:00Z and "),
            "{says}"
        );
        let one = said(&tar(&[("a", b"", 0)]), &tar(&[("a", b"", 1)]));
        assert_eq!(one[0].0, "x.tar!a");
    }

    #[test]
    fn an_unsound_container_is_told_whatever_else_it_has() {
        let (a, b) = (tar(&[("a", b"", 0)]), tar(&[("a", b"", 0), ("a", b"", 0)]));
        let details = said(&a, &b);
        assert!(details.iter().any(|d| d.2.contains("second tar archive is not sound: member \"a\"")), "{details:?}");
    }
}
