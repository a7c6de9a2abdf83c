//! A campaign as text and as one page: how many came to what, and each target with its verdict.
//!
//! The page loads nothing and can be read without its script, which only filters and sorts the rows that are there; the
//! policy of the page lets that script run by its digest, and no other.

use std::time::Duration;

use anstyle::{AnsiColor, Style};
use data_encoding::BASE64;
use kiln_model::campaign::{Asked, Campaign, Counts, Entry, Finished};
use kiln_model::report::{Confidence, EnvironmentKind, Explained};
use kiln_model::verdict::Verdict;
use maud::{DOCTYPE, Markup, PreEscaped, html};
use sha2::Digest as _;

use super::Colour;
use super::html::{STYLE, sign, tone};
use super::words::{self, plain};

const SCRIPT: &str = include_str!("campaign.js");
const TABLE_STYLE: &str = include_str!("campaign.css");

/// Targets that are listed on a terminal; the page and the JSON have all.
const SHOWN: usize = 200;

/// A campaign for people, as text.
pub fn text(campaign: &Campaign, colour: Colour) -> String {
    let mut out = String::new();
    let bold = |text: &str| styled(Style::new().bold(), text, colour);
    let mut entries: Vec<&Entry> = campaign.targets.iter().filter(|entry| !is_well(entry)).collect();
    // Stable: among equals the order asked for.
    entries.sort_by_key(|entry| std::cmp::Reverse(entry.verdict()));
    let mut line = |text: String| {
        out.push_str(text.trim_end());
        out.push('\n');
    };
    let widest = entries.iter().take(SHOWN).map(|entry| title(entry).chars().count()).max().unwrap_or(0).min(60);
    for entry in entries.iter().take(SHOWN) {
        let (word, style) = word(entry);
        let gap = " ".repeat(18_usize.saturating_sub(word.len()));
        line(format!("  {}{gap}{:<widest$}  {}", styled(style, word, colour), title(entry), remark(entry)));
    }
    if entries.len() > SHOWN {
        line(format!("  and {} more", entries.len() - SHOWN));
    }
    if !entries.is_empty() {
        line(String::new());
    }
    line(bold(&words::counted(campaign.targets.len() as u64, "target", "targets")));
    for (verdict, count) in &campaign.counts.verdicts {
        let artifacts = campaign.artifacts.verdicts.get(verdict).copied().unwrap_or_default();
        if *count > 0 || artifacts > 0 {
            let artifacts = match artifacts {
                0 => String::new(),
                n => format!("   {}", words::counted(n, "artifact", "artifacts")),
            };
            let word = verdict.as_str();
            let gap = " ".repeat(18_usize.saturating_sub(word.len()));
            line(format!("  {}{gap}{count:>6}{artifacts}", styled(style(*verdict), word, colour)));
        }
    }
    if campaign.counts.not_attempted > 0 {
        line(format!("  {:<18}{:>6}", "not attempted", campaign.counts.not_attempted));
    }
    let (expected, unexpected): (usize, Vec<&Asked>) = (campaign.expected(), campaign.unexpected().collect());
    if expected > 0 {
        line(format!("{} of {expected} as expected", expected - unexpected.len()));
        for asked in unexpected.iter().take(SHOWN) {
            line(format!("  {}", unlike(asked)));
        }
    }
    out
}

fn styled(style: Style, text: &str, colour: Colour) -> String {
    match colour {
        Colour::Never => text.into(),
        Colour::Always => format!("{style}{text}{style:#}"),
    }
}

fn style(verdict: Verdict) -> Style {
    let colour = match verdict {
        Verdict::Reproduced => AnsiColor::Green,
        Verdict::Equivalent | Verdict::Inconclusive => AnsiColor::Yellow,
        Verdict::Failed | Verdict::Diverged | Verdict::UpstreamDiffers => AnsiColor::Red,
    };
    Style::new().bold().fg_color(Some(anstyle::Color::Ansi(colour)))
}

fn is_well(entry: &Entry) -> bool {
    entry.verdict() == Some(Verdict::Reproduced)
}

fn word(entry: &Entry) -> (&'static str, Style) {
    match entry.verdict() {
        Some(verdict) => (verdict.as_str(), style(verdict)),
        None => ("not attempted", Style::new()),
    }
}

fn title(entry: &Entry) -> String {
    let title = entry.finished.as_ref().map_or(entry.target.as_str(), |finished| finished.title.as_str());
    match entry.settings.as_str() {
        "default" => plain(title),
        settings => plain(&format!("{title} with {settings}")),
    }
}

/// The most telling thing about a target, on one line.
fn remark(entry: &Entry) -> String {
    let Some(finished) = &entry.finished else {
        return entry.not_attempted.map(|why| why.as_str().to_string()).unwrap_or_default();
    };
    let line =
        entry.asked.first().and_then(|asked| asked.line).map(|line| format!("line {line}: ")).unwrap_or_default();
    if let Some(trouble) = &finished.error {
        return format!("{line}{}", plain(&trouble.text));
    }
    if let Some(missing) = finished.missing.first() {
        return plain(missing);
    }
    causes(finished)
}

fn causes(finished: &Finished) -> String {
    let cause = |reason: &kiln_model::campaign::Reason| match (&reason.setting, reason.confidence) {
        (Some(setting), Confidence::Proven) => format!("{}: matches with {setting}", reason.label),
        _ => format!("{} ({})", reason.label, words::confidence(reason.confidence)),
    };
    let causes: Vec<String> = finished.causes.iter().map(cause).collect();
    match (causes.is_empty(), finished.explained, finished.verdict) {
        (true, Some(Explained::No), Verdict::UpstreamDiffers | Verdict::Equivalent) => "unexplained".into(),
        _ => plain(&causes.join(", ")),
    }
}

fn unlike(asked: &Asked) -> String {
    let word = |verdict: Option<Verdict>| verdict.map_or("nothing", Verdict::as_str);
    let line = asked.line.map(|line| format!("line {line}: ")).unwrap_or_default();
    format!("{line}{}: expected {}, got {}", plain(&asked.target), word(asked.expected), word(asked.verdict))
}

/// A campaign as an HTML document.
pub fn page(campaign: &Campaign) -> String {
    let digest = BASE64.encode(&sha2::Sha256::digest(SCRIPT));
    let policy = format!(
        "default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    );
    let title = words::counted(campaign.targets.len() as u64, "target", "targets");
    let markup = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta http-equiv="Content-Security-Policy" content=(policy);
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { "kiln campaign: " (title) }
                style { (PreEscaped(STYLE)) (PreEscaped(TABLE_STYLE)) }
            }
            body {
                main.wide {
                    (head(campaign, &title))
                    (counts(campaign))
                    (unexpected(campaign))
                    (table(campaign))
                    footer { p { "kiln " (plain(&campaign.kiln)) " · verdicts of one machine; nobody independent has confirmed them" } }
                }
                script { (PreEscaped(SCRIPT)) }
            }
        }
    };
    let mut text = markup.into_string();
    text.push('\n');
    text
}

fn head(campaign: &Campaign, title: &str) -> Markup {
    let well = campaign.counts.verdicts.get(&Verdict::Reproduced).copied().unwrap_or_default();
    let tone = tone(campaign.verdict);
    html! {
        header {
            p.brand { "kiln campaign" }
            h1 { (title) }
            div.verdict {
                span.sign.(tone) aria-hidden="true" { (sign(campaign.verdict)) }
                strong.(tone) { (well) " of " (campaign.targets.len()) " reproduced" }
            }
            p.sentence { "The worst verdict is " (campaign.verdict.as_str()) "." }
        }
    }
}

/// How many came to what, each a button that shows only those.
fn counts(campaign: &Campaign) -> Markup {
    let Counts { verdicts, not_attempted } = &campaign.counts;
    html! {
        section.tally aria-label="Verdicts" {
            @for (verdict, count) in verdicts {
                (tally(verdict.as_str(), tone(*verdict), *count, campaign.artifacts.verdicts.get(verdict).copied()))
            }
            @if *not_attempted > 0 { (tally("not attempted", "plain", *not_attempted, None)) }
        }
    }
}

fn tally(word: &str, tone: &str, count: u64, artifacts: Option<u64>) -> Markup {
    html! {
        button.card type="button" data-verdict=(word) aria-pressed="false" disabled[count == 0] {
            span.tag.(tone) { (word) }
            b { (count) }
            span.quiet { @if let Some(n) = artifacts.filter(|n| *n > 0) { (words::counted(n, "artifact", "artifacts")) } }
        }
    }
}

fn unexpected(campaign: &Campaign) -> Markup {
    let (expected, unlike_these): (usize, Vec<&Asked>) = (campaign.expected(), campaign.unexpected().collect());
    html! {
        @if expected > 0 {
            section {
                h2 { (expected - unlike_these.len()) " of " (expected) " as expected" }
                @if !unlike_these.is_empty() {
                    div.card { table.pairs { @for asked in unlike_these { tr { td { (unlike(asked)) } } } } }
                }
            }
        }
    }
}

fn table(campaign: &Campaign) -> Markup {
    let column = |name: &str, kind: &str| {
        html! { th aria-sort="none" { button type="button" data-sort=(kind) { (name) } } }
    };
    html! {
        section {
            div.row.tools {
                label { span.quiet { "Filter " } input #filter type="search" autocomplete="off" placeholder="name, cause, setting"; }
                span.quiet #shown role="status" { (words::counted(campaign.targets.len() as u64, "target", "targets")) }
            }
            div.card {
                table.targets {
                    thead { tr {
                        (column("Verdict", "rank")) (column("Target", "text")) (column("Settings", "text"))
                        (column("Environment", "text")) (column("Why", "text")) (column("Builds", "number"))
                        (column("Seconds", "number")) th { "Log" }
                    } }
                    tbody { @for entry in &campaign.targets { (row(entry)) } }
                }
            }
        }
    }
}

fn row(entry: &Entry) -> Markup {
    let (word, _) = word(entry);
    let rank = entry.verdict().map_or(0, |verdict| 1 + verdict as u8);
    let directory = entry.directory.as_deref().filter(|_| entry.trouble().is_none());
    let finished = entry.finished.as_ref();
    let built = finished.is_some_and(|finished| finished.builds > 0);
    let also: Vec<String> = entry.asked.iter().filter_map(|asked| asked.package.as_deref().map(plain)).collect();
    html! {
        tr data-verdict=(word) {
            td data-value=(rank) { span.tag.(entry.verdict().map_or("plain", tone)) { (word) } }
            td.target {
                @match directory {
                    Some(directory) if finished.is_some() => a href=(format!("{directory}/index.html")) { (title_alone(entry)) },
                    _ => (title_alone(entry)),
                }
                @if !also.is_empty() { div.quiet { (also.join(", ")) } }
            }
            td.settings { @if entry.settings != "default" { code { (plain(&entry.settings)) } } @else { span.quiet { "default" } } }
            td { (finished.and_then(|finished| finished.environment).map(EnvironmentKind::as_str).unwrap_or_default()) }
            td.why { (remark(entry)) }
            td.number { @if let Some(finished) = finished { (finished.builds) } }
            td.number data-value=(finished.map_or(0, |finished| finished.seconds.as_millis())) {
                (finished.filter(|f| !f.seconds.is_zero()).map(|f| seconds(f.seconds)).unwrap_or_default())
                @if entry.earlier { span.quiet title="done by an earlier run" { " ·" } }
            }
            td { @if let (Some(directory), true) = (directory, built) { a href=(format!("{directory}/log.txt")) { "log" } } }
        }
    }
}

fn title_alone(entry: &Entry) -> String {
    plain(entry.finished.as_ref().map_or(entry.target.as_str(), |finished| finished.title.as_str()))
}

fn seconds(took: Duration) -> String {
    match took.as_secs() {
        0..10 => format!("{:.1}", took.as_secs_f64()),
        whole => whole.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use kiln_model::campaign::{JudgedArtifact, Reason, TroubleKind, Withheld};
    use kiln_model::variation::Label;

    use super::*;

    fn sample() -> Campaign {
        let ended = |verdict: Verdict, title: &str| {
            let mut finished =
                Finished::trouble(title, TroubleKind::Host, String::new(), Duration::from_millis(74_300));
            (finished.verdict, finished.error, finished.builds) = (verdict, None, 1);
            finished.environment = Some(EnvironmentKind::Current);
            finished.artifacts = vec![JudgedArtifact { name: format!("{title}_1_all.deb"), verdict }];
            finished
        };
        let entry = |target: &str, settings: &str, finished: Option<Finished>| {
            let asked = Asked {
                target: target.into(),
                line: Some(7),
                package: None,
                expected: Some(Verdict::Reproduced),
                verdict: None,
            };
            let mut entry = Entry {
                target: target.into(),
                settings: settings.into(),
                asked: vec![asked],
                finished: None,
                not_attempted: finished.is_none().then_some(Withheld::TimeLimit),
                earlier: false,
                directory: Some("targets/x-1".into()),
            };
            entry.finish(finished);
            entry
        };
        let mut differs = ended(Verdict::UpstreamDiffers, "cowsay 3.03");
        differs.explained = Some(Explained::Proved);
        differs.causes = vec![Reason {
            label: Label::ChangelogTrimming,
            confidence: Confidence::Proven,
            setting: Some("build-options=notrimdch".parse().unwrap()),
        }];
        let hostile = "debian:<script>alert(1)</script>\u{202e}";
        let unreadable =
            Finished::trouble(hostile, TroubleKind::BadInput, "names nothing\x1b[1m".into(), Duration::ZERO);
        Campaign::new(
            "0.1.0",
            vec![
                entry("debian:hello=2.10-3", "default", Some(ended(Verdict::Reproduced, "hello 2.10-3"))),
                entry("debian:cowsay=3.03", "no-check", Some(differs)),
                entry(hostile, "default", Some(unreadable)),
                entry("debian:late", "default", None),
            ],
        )
    }

    #[test]
    fn a_campaign_reads_like_this() {
        insta::assert_snapshot!("campaign.txt", text(&sample(), Colour::Never));
        insta::assert_snapshot!(
            "campaign.html",
            page(&sample()).replace(STYLE, "…").replace(SCRIPT, "…").replace(TABLE_STYLE, "…")
        );
    }

    #[test]
    fn nothing_that_a_list_of_targets_says_reaches_a_terminal_or_a_browser_raw() {
        let (text, page) = (text(&sample(), Colour::Never), page(&sample()));
        for shown in [&text, &page] {
            assert!(!shown.contains(['\x1b', '\u{202e}']));
        }
        assert!(page.contains("&lt;script&gt;alert(1)") && !page.contains("<script>alert"));
        assert!(!page.contains("http:") && !page.contains("https:") && !page.contains("url("));
        // The one script is the page's own, and the policy names its digest.
        assert_eq!(page.matches("<script").count(), 1);
        assert!(page.contains(&BASE64.encode(&sha2::Sha256::digest(SCRIPT))));
    }

    #[test]
    fn the_document_is_as_its_schema_says() {
        let schema: serde_json::Value =
            serde_json::from_str(include_str!("../../../docs/campaign.schema.json")).unwrap();
        let validator = jsonschema::validator_for(&schema).unwrap();
        let complaints = |document: &serde_json::Value| -> Vec<String> {
            validator.iter_errors(document).map(|e| format!("{}: {e}", e.instance_path())).collect()
        };
        let good = serde_json::to_value(sample()).unwrap();
        assert_eq!(complaints(&good), [""; 0]);
        for (at, bad) in [
            ("/verdict", serde_json::json!("fine")),
            ("/schema", serde_json::json!("kiln/campaign/v0")),
            ("/targets/0/extra", serde_json::json!(1)),
            ("/targets/0/finished/verdict", serde_json::json!("ok")),
            ("/targets/3/not_attempted", serde_json::json!("tired")),
            ("/counts/not_attempted", serde_json::json!(-1)),
        ] {
            let mut document = good.clone();
            let (parent, key) = at.rsplit_once('/').unwrap();
            document.pointer_mut(parent).unwrap()[key] = bad;
            assert_ne!(complaints(&document), [""; 0], "{at}");
        }
    }
}
