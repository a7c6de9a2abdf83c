//! A diagnosis for a terminal: a line for each feature, more only for what is not there.

use anstyle::{AnsiColor, Style};
use kiln_sandbox::doctor::{Finding, Need, State};

use super::{Colour, words};
use crate::doctor::Diagnosis;

/// Columns that prose is wrapped to; commands are not, so that they can be copied.
const WIDTH: usize = 100;
/// Where details begin.
const INDENT: &str = "            ";

const GREEN: Style = Style::new().fg_color(Some(anstyle::Color::Ansi(AnsiColor::Green)));
const YELLOW: Style = Style::new().fg_color(Some(anstyle::Color::Ansi(AnsiColor::Yellow)));
const RED: Style = Style::new().bold().fg_color(Some(anstyle::Color::Ansi(AnsiColor::Red)));
const BOLD: Style = Style::new().bold();

/// The diagnosis as text.
pub fn diagnosis(diagnosis: &Diagnosis, colour: Colour) -> String {
    let widest = diagnosis.findings.iter().map(|finding| finding.feature.len()).max().unwrap_or(0);
    let mut out = format!("kiln {} on Linux {}\n\n", diagnosis.kiln, words::plain(&diagnosis.kernel));
    for finding in &diagnosis.findings {
        let (state, style) = match (finding.state, finding.need) {
            (State::Ok, _) => ("ok", GREEN),
            (State::Degraded, _) => ("degraded", YELLOW),
            (State::Missing, Need::Optional) => ("missing", YELLOW),
            (State::Missing, Need::Required) => ("missing", RED),
        };
        let line = format!("  {}  {:<widest$}  ", styled(colour, style, &format!("{state:<8}")), finding.feature);
        let head = 2 + 8 + 2 + widest + 2;
        out.push_str(&line);
        out.push_str(&wrapped(&words::plain(&finding.found), head, &" ".repeat(head)));
        if finding.state != State::Ok {
            details(&mut out, finding);
        }
    }
    out.push('\n');
    out.push_str(&styled(colour, BOLD, &sentence(diagnosis)));
    out.push('\n');
    out
}

fn details(out: &mut String, finding: &Finding) {
    for (label, text) in [("for", finding.purpose), ("costs", finding.cost.as_str())] {
        let text = wrapped(&words::plain(text), INDENT.len() + 7, &format!("{INDENT}       "));
        out.push_str(&format!("{INDENT}{label:<7}{text}"));
    }
    for remedy in &finding.remedies {
        let colon = if remedy.command.is_some() { ":" } else { "" };
        let what = format!("{}{colon}", words::plain(&remedy.what));
        out.push_str(&format!("{INDENT}do     {}", wrapped(&what, INDENT.len() + 7, &format!("{INDENT}       "))));
        if let Some(command) = &remedy.command {
            out.push_str(&format!("{INDENT}         {}\n", words::plain(command)));
        }
    }
}

fn sentence(diagnosis: &Diagnosis) -> String {
    let count = |state| diagnosis.findings.iter().filter(|finding| finding.state == state).count() as u64;
    let (degraded, missing) = (count(State::Degraded), count(State::Missing));
    let first = match (diagnosis.isolates, diagnosis.builds) {
        (false, _) => "Builds cannot be isolated here, and kiln refuses to run them otherwise.",
        (true, false) => "Builds can be isolated here, but not run: see what is missing.",
        (true, true) => "Builds can be isolated here.",
    };
    match (degraded, missing) {
        (0, 0) => format!("{first} Nothing is missing."),
        _ => format!("{first} {} missing, {degraded} degraded.", words::counted(missing, "feature is", "features are")),
    }
}

fn styled(colour: Colour, style: Style, text: &str) -> String {
    match colour {
        Colour::Never => text.into(),
        Colour::Always => format!("{style}{text}{style:#}"),
    }
}

/// Words in lines of at most [`WIDTH`], the first of which has `used` columns already.
fn wrapped(text: &str, used: usize, indent: &str) -> String {
    let mut out = String::new();
    let mut column = used;
    for (number, word) in text.split(' ').enumerate() {
        let width = word.chars().count();
        if number > 0 && column + 1 + width > WIDTH {
            out.push('\n');
            out.push_str(indent);
            column = indent.len();
        } else if number > 0 {
            out.push(' ');
            column += 1;
        }
        out.push_str(word);
        column += width;
    }
    out.push('\n');
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use kiln_sandbox::doctor::Remedy;

    fn sample(need: Need) -> Diagnosis {
        let ok = Finding::ok("kernel", Need::Required, "namespaces", "6.8.0-31-generic");
        let apparmor = Finding::ok(
            "user-namespaces",
            need,
            "all isolation without a setuid program or root",
            "kernel.apparmor_restrict_unprivileged_userns is 1: AppArmor takes all capabilities away inside (Ubuntu 23.10 and later)",
        );
        let remedies = vec![
            Remedy::command(
                "allow them until the next boot",
                "sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0",
            ),
            Remedy::advice("or run kiln elsewhere"),
        ];
        let landlock = Finding::ok("landlock", Need::Optional, "a second layer under the mounts", "ABI 4");
        let scopes =
            landlock.but(State::Degraded, "no second layer for sockets", vec![Remedy::advice("boot Linux 6.12")]);
        let findings =
            vec![ok, apparmor.but(State::Missing, "nothing can be isolated: kiln refuses", remedies), scopes];
        Diagnosis::of("6.8.0-31-generic", findings, vec![])
    }

    #[test]
    fn a_host_that_forbids_builds_reads_like_this() {
        insta::assert_snapshot!("doctor.txt", diagnosis(&sample(Need::Required), Colour::Never));
    }

    #[test]
    fn what_is_there_has_one_line_and_what_is_not_has_its_cost_and_command() {
        let text = diagnosis(&sample(Need::Optional), Colour::Never);
        assert_eq!(text.lines().filter(|line| line.contains("kernel  ")).count(), 1);
        assert!(text.contains("sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0\n"), "{text}");
        assert!(text.ends_with("Builds can be isolated here. 1 feature is missing, 1 degraded.\n"), "{text}");
        assert!(!text.contains('\u{1b}') && diagnosis(&sample(Need::Optional), Colour::Always).contains('\u{1b}'));
    }

    #[test]
    fn prose_is_wrapped_and_nothing_is_lost() {
        let text = "word ".repeat(60);
        let lines = wrapped(text.trim_end(), 40, "    ");
        assert!(lines.lines().all(|line| line.len() <= WIDTH));
        assert_eq!(lines.split_whitespace().count(), 60);
    }
}
