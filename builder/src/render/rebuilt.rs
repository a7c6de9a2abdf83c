//! What is told of a rebuild besides its verdict, as lines that text and HTML share.

use kiln_model::report::{EnvironmentKind, Explained, Rebuilt, Report, Tried};
use kiln_model::verdict::Verdict;

use super::words::plain;

/// Versions that are shown; the JSON has all.
const SHOWN: usize = 12;

/// A name and what is said under it.
pub(super) type Line = (&'static str, String);

/// The lines of a rebuild.
pub(super) fn lines(report: &Report) -> Vec<Line> {
    let Some(rebuilt) = &report.rebuild else { return Vec::new() };
    let mut lines = vec![
        ("target", plain(&rebuilt.target)),
        ("settings", plain(&rebuilt.settings_in_words())),
        ("environment", environment(rebuilt)),
    ];
    let differs = rebuilt.environment_differs.iter().take(SHOWN).map(|one| {
        let version = |version: &Option<String>| version.clone().unwrap_or_else(|| "none".into());
        ("", plain(&format!("  {}: recorded {}, used {}", one.name, version(&one.recorded), version(&one.used))))
    });
    lines.extend(differs);
    if rebuilt.environment_differs.len() > SHOWN {
        lines.push(("", format!("  and {} more", rebuilt.environment_differs.len() - SHOWN)));
    }
    for missing in &rebuilt.missing {
        lines.push(("missing", plain(&missing.what)));
        lines.extend(missing.tries.iter().map(|line| ("", format!("  {}", plain(line)))));
    }
    if !matches!(report.verdict, Verdict::Reproduced | Verdict::Failed) && rebuilt.missing.is_empty() {
        let said = match rebuilt.explained {
            Explained::No => "no: nothing is known that would make these bytes differ",
            Explained::Suspected => "suspected: the bytes point at a reason, no build has shown it",
            Explained::Proved => "proved: a build with one setting changed has the published bytes",
        };
        lines.push(("explained", said.into()));
    }
    lines.extend(rebuilt.tried.iter().map(|one| ("tried", tried(one))));
    lines.extend(rebuilt.notes.iter().map(|note| ("note", plain(note))));
    lines
}

fn environment(rebuilt: &Rebuilt) -> String {
    let word = rebuilt.environment.as_str();
    match rebuilt.environment {
        EnvironmentKind::Recorded => format!("{word}: the versions that the builder recorded"),
        EnvironmentKind::Current => format!("{word}: what the archive has now, not what the publisher had"),
        EnvironmentKind::Substituted => {
            let count = rebuilt.environment_differs.len();
            format!(
                "{word}: {count} recorded {} gone, nearest ones stand in",
                if count == 1 { "version is" } else { "versions are" }
            )
        }
    }
}

fn tried(tried: &Tried) -> String {
    let setting = plain(&tried.setting);
    match (tried.verdict, &tried.error) {
        (Verdict::Reproduced, _) => format!("matches with {setting}"),
        (_, Some(error)) => format!("{setting}: {}", plain(error)),
        (verdict, None) => {
            let equal = tried.subjects.values().filter(|v| **v == Verdict::Reproduced).count();
            let said = match verdict {
                Verdict::Failed => "does not build".into(),
                _ => format!("{equal} of {} artifacts match", tried.subjects.len()),
            };
            format!("{setting}: {said}")
        }
    }
}
