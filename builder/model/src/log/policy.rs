//! Which logs and witnesses are believed: C2SP's tlog-policy, read and applied.
//!
//! A checkpoint counts if a listed log signed it and witnesses cosigned it as the quorum asks. Each name is a member once and no
//! key is listed twice, so that nobody counts twice. Witnesses with keys of types that are not known here are read, and never
//! count; a quorum that cannot be met without them is refused when the policy is read.

use std::collections::{BTreeMap, BTreeSet};

use super::entry::Entry;
use super::note::{self, NoteKind, SignedNote, Vkey};
use super::proof::{self, Proof};
use super::{Checkpoint, LogError, decimal, witness};
use crate::digest::Digest;

/// Bytes of the largest policy.
pub const MOST_BYTES: usize = 1 << 20;
/// Logs, witnesses and groups that a policy may have, of each; the specification asks for 32.
const MOST: usize = 1024;

/// Logs, witnesses, and how many of them it takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogPolicy {
    logs: Vec<Vkey>,
    /// By name; in `vkey` those whose signatures can be checked.
    witnesses: BTreeMap<String, Option<Vkey>>,
    groups: BTreeMap<String, Group>,
    /// None: no cosignature is asked for.
    quorum: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Group {
    least: usize,
    members: Vec<String>,
}

/// A checkpoint that a policy believes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Believed {
    /// The checkpoint.
    pub checkpoint: Checkpoint,
    /// The key of the log that signed it.
    pub log: Vkey,
    /// As [`Included::cosigned`].
    pub cosigned: Option<(u64, u64)>,
}

/// An entry that a policy believes to be logged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Included {
    /// The log.
    pub origin: String,
    /// How many entries it had.
    pub size: u64,
    /// The root over them.
    pub root: Digest,
    /// Which entry it is.
    pub index: u64,
    /// Seconds since 1970, if the policy has a quorum: the checkpoint is as fresh as the first (with any fewer of the oldest
    /// cosignatures the quorum would not be met by the others) and existed no later than the second (the quorum is met by
    /// the cosignatures up to then). No witness, nor any too small a number of them, moves either beyond what the others say.
    pub cosigned: Option<(u64, u64)>,
}

impl LogPolicy {
    /// Reads a policy.
    pub fn parse(text: &str) -> Result<Self, LogError> {
        if text.len() > MOST_BYTES {
            return Err(LogError::TooLong { what: "a log policy", most: MOST_BYTES, bytes: text.len() });
        }
        let mut policy = Self { logs: Vec::new(), witnesses: BTreeMap::new(), groups: BTreeMap::new(), quorum: None };
        let mut reading = Reading::default();
        for (number, line) in text.split('\n').enumerate() {
            let refused = |what: String| LogError::Policy { line: number + 1, what };
            if let Some(odd) = line.chars().find(|c| c.is_ascii_control() && *c != '\t') {
                return Err(refused(format!(
                    "character {odd:?} is not allowed: expected lines ended by a newline only"
                )));
            }
            let words: Vec<&str> = line.split([' ', '\t']).filter(|word| !word.is_empty()).collect();
            if words.first().is_none_or(|word| word.starts_with('#')) {
                continue;
            }
            policy.line(&words, &mut reading).map_err(refused)?;
        }
        let lines = text.lines().count();
        if !reading.quorum {
            return Err(LogError::Policy {
                line: lines,
                what: "no quorum: expected one line `quorum NAME` or `quorum none`".into(),
            });
        }
        let checkable = policy.witnesses.iter().filter(|(_, vkey)| vkey.is_some()).map(|(name, _)| name.as_str());
        if !policy.is_met_by(&checkable.collect()) {
            let what = "the quorum can never be met: too many of its witnesses have keys of a type other than 0x04";
            return Err(LogError::Policy { line: lines, what: what.into() });
        }
        Ok(policy)
    }

    fn line(&mut self, words: &[&str], reading: &mut Reading) -> Result<(), String> {
        match words {
            ["log", vkey] | ["log", vkey, _] => {
                let vkey: Vkey = vkey.parse().map_err(|error: LogError| error.to_string())?;
                if vkey.kind() != NoteKind::Log {
                    return Err("a witness's key (0x04) for a log: expected type 0x01".into());
                }
                if !reading.log_keys.insert(*vkey.raw()) {
                    return Err(format!("the key of log {} is listed twice", vkey.name()));
                }
                self.logs.push(vkey);
                full(self.logs.len(), "logs")
            }
            ["witness", name, vkey] | ["witness", name, vkey, _] => {
                self.define(name)?;
                let (_, _, kind, raw) = note::parts(vkey).map_err(|error| error.to_string())?;
                if !reading.witness_keys.insert(raw) {
                    return Err(format!("the key of witness {name} is listed twice: one witness would count as two"));
                }
                let vkey = match kind {
                    0x04 => Some(vkey.parse::<Vkey>().map_err(|error| error.to_string())?),
                    0x01 => return Err("a log's key (0x01) for a witness: expected type 0x04".into()),
                    _ => None,
                };
                self.witnesses.insert((*name).into(), vkey);
                full(self.witnesses.len(), "witnesses")
            }
            ["group", name, least, members @ ..] => {
                self.define(name)?;
                let least = match *least {
                    "any" => Some(1),
                    "all" => Some(members.len()),
                    number => decimal(number).and_then(|least| usize::try_from(least).ok()),
                };
                let least = least.filter(|least| (1..=members.len()).contains(least));
                let least = least.ok_or("expected `any`, `all` or a number from 1 to that of the members that follow")?;
                for member in members {
                    if !self.knows(member) {
                        return Err(format!("member {member} is not defined on a line before"));
                    }
                    if !reading.members.insert((*member).into()) {
                        return Err(format!("{member} is a member twice: it would count twice"));
                    }
                }
                let members = members.iter().map(|member| (*member).into()).collect();
                self.groups.insert((*name).into(), Group { least, members });
                full(self.groups.len(), "groups")
            }
            ["quorum", name] => {
                if std::mem::replace(&mut reading.quorum, true) {
                    return Err("a second quorum: expected one".into());
                }
                if *name != "none" && !self.knows(name) {
                    return Err(format!("quorum {name} is not defined on a line before"));
                }
                self.quorum = (*name != "none").then(|| (*name).into());
                Ok(())
            }
            _ => Err("expected `log VKEY [URL]`, `witness NAME VKEY [URL]`, `group NAME K|any|all NAME…` or `quorum NAME|none`".into()),
        }
    }

    fn knows(&self, name: &str) -> bool {
        self.witnesses.contains_key(name) || self.groups.contains_key(name)
    }

    fn define(&self, name: &str) -> Result<(), String> {
        match name {
            "none" => Err("nothing can be called none".into()),
            name if self.knows(name) => Err(format!("{name} is defined twice")),
            _ => Ok(()),
        }
    }

    /// The logs whose entries count.
    pub fn logs(&self) -> &[Vkey] {
        &self.logs
    }

    /// The witnesses whose signatures can be checked, by name in the policy.
    pub fn witnesses(&self) -> impl Iterator<Item = (&str, &Vkey)> {
        self.witnesses.iter().filter_map(|(name, vkey)| Some((name.as_str(), vkey.as_ref()?)))
    }

    /// Whether cosignatures are asked for; without, a checkpoint has no time.
    pub fn has_quorum(&self) -> bool {
        self.quorum.is_some()
    }

    fn is_met_by(&self, witnesses: &BTreeSet<&str>) -> bool {
        self.quorum.as_ref().is_none_or(|name| self.witnessed(name, witnesses))
    }

    /// Groups name only what was defined before, so that this ends; each is a member once, so that it is short.
    fn witnessed(&self, name: &str, witnesses: &BTreeSet<&str>) -> bool {
        match self.groups.get(name) {
            Some(group) => {
                group.members.iter().filter(|member| self.witnessed(member, witnesses)).count() >= group.least
            }
            None => witnesses.contains(name),
        }
    }

    /// Says whether a checkpoint is signed by a log of the policy, and cosigned as its quorum asks. All signatures by keys
    /// of the policy must hold.
    pub fn believe(&self, note: &SignedNote) -> Result<Believed, LogError> {
        let checkpoint = Checkpoint::parse(note.text())?;
        let mut signed = None;
        for log in &self.logs {
            let own = log.name() == checkpoint.origin;
            if !note.verified_by(log)?.is_empty() && own {
                signed = signed.or(Some(log));
            }
        }
        let mut times: Vec<(u64, &str)> = Vec::new();
        for (name, vkey) in self.witnesses() {
            times.extend(witness::times(vkey, note)?.into_iter().map(|time| (time, name)));
        }
        if !self.logs.iter().any(|log| log.name() == checkpoint.origin) {
            let known = self.logs.iter().map(|log| log.name().into()).collect();
            return Err(LogError::UnknownLog { origin: checkpoint.origin, known });
        }
        let Some(log) = signed else { return Err(LogError::Unsigned { name: checkpoint.origin }) };
        let cosigned = match &self.quorum {
            None => None,
            Some(quorum) => {
                times.sort_unstable();
                let by = self.first_meeting(times.iter());
                let since = self.first_meeting(times.iter().rev());
                let found: BTreeSet<&str> = times.iter().map(|(_, name)| *name).collect();
                let found =
                    || LogError::Quorum { quorum: quorum.clone(), found: found.into_iter().map(Into::into).collect() };
                Some(since.zip(by).ok_or_else(found)?)
            }
        };
        Ok(Believed { checkpoint, log: log.clone(), cosigned })
    }

    /// The time at which the quorum is met, as cosignatures are added one by one.
    fn first_meeting<'t>(&self, times: impl Iterator<Item = &'t (u64, &'t str)>) -> Option<u64> {
        let mut witnesses = BTreeSet::new();
        let mut times = times.peekable();
        while let Some((time, name)) = times.next() {
            witnesses.insert(*name);
            // Those of one moment count together.
            if times.peek().is_none_or(|(next, _)| next != time) && self.is_met_by(&witnesses) {
                return Some(*time);
            }
        }
        None
    }

    /// Says whether `entry` is logged as `proof` claims.
    pub fn judge(&self, proof: &Proof, entry: &Entry) -> Result<Included, LogError> {
        self.believe(&proof.checkpoint)?.includes(proof, entry)
    }
}

impl Believed {
    /// Says whether `entry` is in the log of this checkpoint, which is the one that `proof` carries. For many proofs under
    /// one checkpoint, whose signatures need to be checked once.
    pub fn includes(&self, proof: &Proof, entry: &Entry) -> Result<Included, LogError> {
        let Checkpoint { origin, size, root } = &self.checkpoint;
        proof::holds(proof, entry.as_bytes(), *size, *root)?;
        Ok(Included { origin: origin.clone(), size: *size, root: *root, index: proof.index, cosigned: self.cosigned })
    }
}

/// What may not be there twice.
#[derive(Default)]
struct Reading {
    log_keys: BTreeSet<[u8; 32]>,
    witness_keys: BTreeSet<Vec<u8>>,
    members: BTreeSet<String>,
    quorum: bool,
}

fn full(count: usize, what: &str) -> Result<(), String> {
    if count > MOST { Err(format!("more than {MOST} {what}")) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::envelope::Envelope;
    use crate::key::SecretKey;
    use crate::log::samples::{self, log, logged, note, witness};
    use crate::log::{NoteSigner, Weight};

    fn policy(lines: &str) -> Result<LogPolicy, LogError> {
        let mut text = format!("# who is believed\nlog {} https://log.example.org/\n", log().vkey());
        for number in 1..=4 {
            text.push_str(&format!("\twitness W{number}   {}\n", witness(number).vkey()));
        }
        LogPolicy::parse(&format!("{text}{lines}"))
    }

    fn cosigned(lines: &str, by: &[(u8, u64)]) -> Result<Option<(u64, u64)>, LogError> {
        Ok(policy(lines)?.believe(&note(5, by))?.cosigned)
    }

    #[test]
    fn a_quorum_counts_as_the_specification_says() {
        assert_eq!(cosigned("quorum none\n", &[]), Ok(None));
        assert_eq!(cosigned("quorum W1\n", &[(1, 7)]), Ok(Some((7, 7))));
        let unmet = LogError::Quorum { quorum: "W1".into(), found: vec!["W2".into()] };
        assert_eq!(cosigned("quorum W1\n", &[(2, 7)]), Err(unmet.clone()));
        assert_eq!(unmet.weight(), Weight::Insufficient);
        let nested = "group A 2 W1 W2\ngroup B any W3 W4\ngroup both all A B\nquorum both\n";
        assert!(cosigned(nested, &[(1, 1), (2, 2), (4, 3)]).is_ok());
        for few in [&[(1, 1), (2, 2)][..], &[(1, 1), (3, 2), (4, 3)], &[]] {
            assert!(cosigned(nested, few).is_err(), "{few:?}");
        }
    }

    #[test]
    fn one_witness_cannot_move_the_time_beyond_what_the_others_say() {
        let two = "group two 2 W1 W2 W3\nquorum two\n";
        // As fresh as the second newest, there no later than the second oldest.
        assert_eq!(cosigned(two, &[(1, 100), (2, 200), (3, 300)]), Ok(Some((200, 200))));
        assert_eq!(cosigned(two, &[(1, 1), (2, 200), (3, 300)]), Ok(Some((200, 200))));
        assert_eq!(cosigned(two, &[(1, 9_999), (2, 200), (3, 300)]), Ok(Some((300, 300))));
        assert_eq!(cosigned(two, &[(1, 100), (2, 200)]), Ok(Some((100, 200))));
        assert_eq!(cosigned(two, &[(1, 100), (2, 100)]), Ok(Some((100, 100))));
    }

    #[test]
    fn lines_that_would_weaken_a_policy_are_refused_with_their_number() {
        let w1 = witness(1).vkey().to_string();
        let same = NoteSigner::new("other.example", NoteKind::Witness, SecretKey::ed25519(&[11; 32])).unwrap();
        for (lines, what) in [
            ("".into(), "no quorum"),
            ("quorum none\nquorum none\n".into(), "second quorum"),
            ("quorum W9\n".into(), "not defined"),
            ("group g any W9\nquorum g\n".into(), "not defined"),
            ("group g any g\nquorum g\n".into(), "not defined"),
            ("group g any none\nquorum g\n".into(), "not defined"),
            ("group g 0 W1\nquorum g\n".into(), "number from 1"),
            ("group g 3 W1 W2\nquorum g\n".into(), "number from 1"),
            ("group g 02 W1 W2\nquorum g\n".into(), "number from 1"),
            ("group g any\nquorum g\n".into(), "number from 1"),
            ("group g 2 W1 W1\nquorum g\n".into(), "twice"),
            ("group g any W1\ngroup h any W1\nquorum h\n".into(), "twice"),
            ("group W1 any W2\nquorum W1\n".into(), "defined twice"),
            ("group none any W2\nquorum W1\n".into(), "none"),
            (format!("witness again {w1}\nquorum W1\n"), "listed twice"),
            (format!("witness again {}\nquorum W1\n", same.vkey()), "listed twice"),
            (format!("log {}\nquorum W1\n", log().vkey()), "listed twice"),
            (format!("log {}\nquorum W1\n", witness(5).vkey()), "witness's key"),
            (format!("witness W5 {}\nquorum W1\n", samples::log().vkey()), "log's key"),
            ("quorum W1 W2\n".into(), "expected `log"),
            ("threshold 2\nquorum W1\n".into(), "expected `log"),
            ("quorum W1\r\n".into(), "not allowed"),
            ("quorum\u{b}W1\n".into(), "not allowed"),
            ("log x\nquorum W1\n".into(), "NAME+ID+BASE64"),
        ] {
            let refused = policy(&lines).unwrap_err();
            assert!(matches!(refused, LogError::Policy { line, .. } if line >= 6), "{lines:?}: {refused}");
            assert!(refused.to_string().contains(what), "{lines:?}: {refused}");
        }
        let huge = "#".repeat(MOST_BYTES + 1);
        assert!(LogPolicy::parse(&huge).is_err());
    }

    #[test]
    fn witnesses_of_unknown_types_never_count_and_must_not_be_needed() {
        let mut key = vec![6_u8];
        key.extend([9; 1312]);
        let line = format!("witness new new.example+00000000+{}\n", data_encoding::BASE64.encode(&key));
        assert_eq!(cosigned(&format!("{line}group g any new W1\nquorum g\n"), &[(1, 7)]), Ok(Some((7, 7))));
        assert!(cosigned(&format!("{line}quorum new\n"), &[(1, 7)]).unwrap_err().to_string().contains("never be met"));
        assert!(cosigned(&format!("{line}group g all new W1\nquorum g\n"), &[(1, 7)]).is_err());
    }

    #[test]
    fn thirty_two_of_each_are_supported_and_names_are_opaque() {
        let mut text = String::new();
        for number in 0..32_u8 {
            let log =
                NoteSigner::new(&format!("l{number}"), NoteKind::Log, SecretKey::ed25519(&[100 + number; 32])).unwrap();
            let witness = NoteSigner::new("w", NoteKind::Witness, SecretKey::ed25519(&[200 + number; 32])).unwrap();
            text.push_str(&format!("log {}\nwitness w\u{e4}{number} {}\n", log.vkey(), witness.vkey()));
        }
        for number in 0..32 {
            text.push_str(&format!("group g{number} all w\u{e4}{number}\n"));
        }
        let policy = LogPolicy::parse(&format!("{text}quorum g31")).unwrap();
        assert_eq!((policy.logs().len(), policy.witnesses().count()), (32, 32));
    }

    #[test]
    fn an_entry_is_judged_by_signatures_quorum_and_proof() {
        let key = SecretKey::ed25519(&[3; 32]);
        let envelope = Envelope::sign(b"{}".to_vec(), &key);
        let (entry, proof) = logged(&envelope, &key, &[(1, 50)]);
        let policy = policy("quorum W1\n").unwrap();
        let included = policy.judge(&proof, &entry).unwrap();
        assert_eq!((included.index, included.size, included.cosigned), (1, 3, Some((50, 50))));

        let weight = |proof: &Proof, entry: &Entry| policy.judge(proof, entry).unwrap_err().weight();
        let other = Entry::from_bytes(b"other".to_vec()).unwrap();
        assert_eq!(weight(&proof, &other), Weight::Contradicted);
        assert_eq!(weight(&Proof { index: 0, ..proof.clone() }, &entry), Weight::Contradicted);
        let bare = SignedNote::parse(note(3, &[]).print().as_bytes()).unwrap();
        assert_eq!(weight(&Proof { checkpoint: bare, ..proof.clone() }, &entry), Weight::Insufficient);
        let mut altered = proof.checkpoint.print();
        altered = altered.replace("\n3\n", "\n4\n");
        let altered = SignedNote::parse(altered.as_bytes()).unwrap();
        assert_eq!(weight(&Proof { checkpoint: altered, ..proof.clone() }, &entry), Weight::Contradicted);

        let elsewhere = LogPolicy::parse("quorum none\n").unwrap();
        let refused = elsewhere.judge(&proof, &entry).unwrap_err();
        assert!(matches!(refused, LogError::UnknownLog { .. }));
        // A witness of the policy whose signature fails spoils the note, even where none is needed.
        let mut spoilt = proof.checkpoint.print();
        let line = spoilt.lines().last().unwrap().to_owned();
        let encoded = line.rsplit_once(' ').unwrap().1.to_owned();
        let mut bytes = data_encoding::BASE64.decode(encoded.as_bytes()).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        spoilt = spoilt.replace(&encoded, &data_encoding::BASE64.encode(&bytes));
        let spoilt = Proof { checkpoint: SignedNote::parse(spoilt.as_bytes()).unwrap(), ..proof };
        let lenient = super::tests::policy("quorum none\n").unwrap();
        assert!(
            matches!(lenient.judge(&spoilt, &entry), Err(LogError::BadSignature { name }) if name == "w1.example.org")
        );
    }
}
