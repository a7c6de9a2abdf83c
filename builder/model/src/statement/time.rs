//! Times in statements: RFC 3339 in any zone and to any fraction is read, UTC in whole seconds is kept and written.

use serde::{Deserialize, Deserializer, Serializer, de};

use crate::outcome::Moment;

/// The second in which the time lies that `text` names.
fn parse(text: &str) -> Option<Moment> {
    if let Ok(moment) = text.parse() {
        return Some(moment);
    }
    let (date_time, rest) = (text.get(..19)?, text.get(19..)?);
    let rest = match rest.strip_prefix('.') {
        Some(fraction) => {
            let digits = fraction.bytes().take_while(u8::is_ascii_digit).count();
            (digits > 0).then(|| &fraction[digits..])?
        }
        None => rest,
    };
    let local: Moment = format!("{}Z", date_time.replacen(['t', ' '], "T", 1)).parse().ok()?;
    let offset = match rest.as_bytes() {
        [b'Z' | b'z'] => 0,
        [sign @ (b'+' | b'-'), _, _, b':', _, _] => {
            let (hours, minutes): (i64, i64) = (digits(&rest[1..3])?, digits(&rest[4..6])?);
            let seconds = (hours < 24 && minutes < 60).then_some(hours * 3600 + minutes * 60)?;
            if *sign == b'+' { seconds } else { -seconds }
        }
        _ => return None,
    };
    let unix = local.unix().checked_add_signed(-offset)?;
    let moment = Moment::from_unix(unix);
    (moment.unix() == unix).then_some(moment)
}

fn digits(text: &str) -> Option<i64> {
    if text.bytes().all(|b| b.is_ascii_digit()) { text.parse().ok() } else { None }
}

fn read<E: de::Error>(text: &str) -> Result<Moment, E> {
    parse(text)
        .ok_or_else(|| E::custom(format!("{text:?} is not a time: expected RFC 3339, such as 2026-11-22T01:27:54Z")))
}

pub(super) fn serialize<S: Serializer>(moment: &Moment, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(moment)
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Moment, D::Error> {
    read(&std::borrow::Cow::<'de, str>::deserialize(deserializer)?)
}

/// A time that may be absent.
pub(super) mod maybe {
    use super::*;

    pub(in crate::statement) fn serialize<S: Serializer>(
        moment: &Option<Moment>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match moment {
            Some(moment) => serializer.collect_str(moment),
            None => serializer.serialize_none(),
        }
    }

    pub(in crate::statement) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Moment>, D::Error> {
        let text = Option::<std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        text.map(|text| read(&text)).transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_zone_and_fraction_of_rfc_3339_names_a_second() {
        for text in [
            "2026-11-22T01:27:54Z",
            "2026-11-22T01:27:54.999999999Z",
            "2026-11-22t02:27:54+01:00",
            "2026-11-21T20:27:54.5-05:00",
            "2026-11-22 01:27:54z",
        ] {
            assert_eq!(parse(text).map(|m| m.to_string()).as_deref(), Some("2026-11-22T01:27:54Z"), "{text}");
        }
    }

    #[test]
    fn what_names_no_second_is_refused() {
        for bad in [
            "",
            "2026-11-22",
            "2026-11-22T01:27:54",
            "2026-11-22T01:27:54.Z",
            "2026-11-22T01:27:54+1:00",
            "2026-02-30T00:00:00+01:00",
            "2026-11-22T01:27:54+24:00",
            "2026-11-22T01:27:54+0+:00",
            "1970-01-01T00:00:00+01:00",
            "9999-12-31T23:59:59-00:01",
            "2026-11-22T01:27:5ä",
            "2026-11-22T01:27:54Zz",
        ] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
