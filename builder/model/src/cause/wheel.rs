//! Causes that show in Python wheels: modules that were compiled, the program that packed them, times of generated files.

use super::{Clue, SettingName, line_pairs};
use crate::report::{Aspect, Confidence, Detail, Difference};
use crate::variation::Label;

pub(super) fn clues(difference: &Difference) -> Vec<Clue> {
    let mut clues: Vec<Clue> = extensions(&difference.details).into_iter().collect();
    for detail in &difference.details {
        clues.extend(generator(detail));
    }
    if difference.path.to_string().ends_with(".whl") || difference.details.iter().any(in_metadata) {
        clues.extend(difference.details.iter().find_map(file_times));
    }
    clues
}

/// Whether these are wheels of two versions: each has metadata that the other has not.
pub(super) fn is_other_version(difference: &Difference) -> bool {
    let only = |kind| difference.details.iter().any(|d| d.kind == kind && d.place.ends_with(".dist-info/METADATA"));
    only(Aspect::OnlyInFirst) && only(Aspect::OnlyInSecond)
}

fn in_metadata(detail: &Detail) -> bool {
    detail.place.contains(".dist-info/")
}

fn extensions(details: &[Detail]) -> Option<Clue> {
    let modules = |kind| {
        let module = |d: &&Detail| d.kind == kind && (d.place.ends_with(".so") || d.place.ends_with(".pyd"));
        details.iter().filter(module).count()
    };
    // A package of Debian has shared objects, too: those are not the modules of a wheel.
    let wheel = details.iter().any(in_metadata);
    let (first, second) = (modules(Aspect::OnlyInFirst), modules(Aspect::OnlyInSecond));
    let evidence = match (first, second) {
        (0, 0) => return None,
        (_, _) if !wheel => return None,
        (0, n) => format!("the second has {n} extension modules that the first does not make"),
        (n, _) => format!("the first has {n} extension modules that the second lacks"),
    };
    Some(Clue::new(Label::NativeExtension, Confidence::Likely, evidence))
}

/// `Generator: setuptools (68.0.0)` in the `WHEEL` of both.
fn generator(detail: &Detail) -> Option<Clue> {
    if !detail.place.ends_with(".dist-info/WHEEL") {
        return None;
    }
    let named = |line: &str| -> Option<(String, String)> {
        let text = line.strip_prefix("Generator: ")?.trim();
        let (program, version) = text.split_once(' ')?;
        Some((program.to_owned(), version.trim_matches(['(', ')']).to_owned()))
    };
    let (ours, theirs) = line_pairs(detail).into_iter().find_map(|(a, b)| named(a).zip(named(b)))?;
    let package = match theirs.0.as_str() {
        "bdist_wheel" => "wheel",
        "flit" => "flit_core",
        other => other,
    };
    let evidence = format!("packed by {} {} in the first, {} {} in the second", ours.0, ours.1, theirs.0, theirs.1);
    let clue = Clue::new(Label::DependencyVersion, Confidence::Likely, evidence);
    Some(clue.proved_by(SettingName::Pin, format!("{package}:{}", theirs.1)))
}

/// Times of some members, not all by the same: files of the source beside files that the build made.
fn file_times(detail: &Detail) -> Option<Clue> {
    if detail.kind != Aspect::Time || detail.shift.is_some() {
        return None;
    }
    let clue = Clue::new(Label::FileTimes, Confidence::Suspected, detail.says.clone());
    Some(clue.proved_by(SettingName::FileTimes, "now"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::EntryPath;
    use crate::report::{Kind, Line};

    fn wheel(details: Vec<Detail>) -> Difference {
        let path = EntryPath::from("x-1-py3-none-any.whl");
        Difference { details, ..Difference::new([0, 1], "out".parse().unwrap(), path, Kind::Content) }
    }

    fn named(difference: &Difference) -> Vec<(Label, Option<String>)> {
        clues(difference).into_iter().map(|c| (c.label, c.setting.map(|s| s.to_string()))).collect()
    }

    #[test]
    fn compiled_modules_that_one_side_lacks_are_named() {
        let module = Detail::new("tomli/_parser.cpython-311.so", Aspect::OnlyInSecond, "");
        let record = Detail::new("tomli-2.dist-info/RECORD", Aspect::Checksum, "");
        assert_eq!(named(&wheel(vec![module.clone(), record])), [(Label::NativeExtension, None)]);
        assert_eq!(named(&wheel(vec![module])), []);
    }

    #[test]
    fn the_program_that_packed_it_is_pinned_to_the_references() {
        let line = |first, text: &str| Line {
            first: Some(2).filter(|_| first),
            second: Some(2).filter(|_| !first),
            text: text.into(),
        };
        let mut detail = Detail::new("x-1.dist-info/WHEEL", Aspect::Text, "");
        detail.lines = vec![line(true, "Generator: setuptools (70.1)"), line(false, "Generator: bdist_wheel (0.37.1)")];
        assert_eq!(named(&wheel(vec![detail])), [(Label::DependencyVersion, Some("pin=wheel:0.37.1".into()))]);
    }

    #[test]
    fn times_that_do_not_move_together_are_those_of_generated_files() {
        let times = Detail::new("", Aspect::Time, "3 of 9");
        assert_eq!(named(&wheel(vec![times.clone()])), [(Label::FileTimes, Some("file-times=now".into()))]);
        assert_eq!(named(&wheel(vec![Detail { shift: Some(3600), ..times }])), []);
    }
}
