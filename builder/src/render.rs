//! Reports and outcomes as text, HTML and JSON.
//!
//! Layout only: every fact comes from the document, so the three can never disagree. Whatever a build could choose (paths,
//! log lines, bytes) is escaped for where it is shown: control and direction-changing characters never reach a terminal,
//! and HTML is escaped by construction, loads nothing, and carries no script but the one of the page over many targets.

pub mod campaign;
pub mod decision;
mod detail;
pub mod doctor;
mod excerpt;
pub mod html;
mod rebuilt;
pub mod text;
mod words;

#[cfg(test)]
mod samples;

use serde::Serialize;

/// Whether text carries colour. The caller knows the terminal and the user's wish.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Colour {
    /// Plain text.
    Never,
    /// ANSI escape sequences.
    Always,
}

/// One JSON document, indented, with a line feed at its end.
pub fn json(document: &impl Serialize) -> String {
    let mut text = serde_json::to_string_pretty(document).expect("kiln's documents have string keys only");
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use super::html::page;
    use super::text::{builds, report as text};
    use super::*;
    use kiln_model::outcome::Builds;
    use kiln_model::report::{Report, Reports};
    use serde_json::Value;

    fn all() -> [(&'static str, Report); 4] {
        [
            ("reproduced", samples::reproduced()),
            ("diverged", samples::diverged()),
            ("failed", samples::failed()),
            ("upstream-differs", samples::upstream_differs()),
        ]
    }

    #[test]
    fn a_reproduced_report_reads_like_this() {
        insta::assert_snapshot!("reproduced.txt", text(&samples::reproduced(), Colour::Never));
        insta::assert_snapshot!("reproduced.html", page(&[samples::reproduced()]));
    }

    #[test]
    fn a_diverged_report_reads_like_this() {
        insta::assert_snapshot!("diverged.txt", text(&samples::diverged(), Colour::Never));
        insta::assert_snapshot!("diverged.html", page(&[samples::diverged()]));
    }

    #[test]
    fn a_failed_report_and_an_alarm_read_like_this() {
        insta::assert_snapshot!("failed.txt", text(&samples::failed(), Colour::Never));
        insta::assert_snapshot!("upstream-differs.txt", text(&samples::upstream_differs(), Colour::Never));
    }

    #[test]
    fn builds_read_like_this() {
        let mut outcomes = samples::failed().outcomes;
        outcomes.extend(samples::reproduced().outcomes.into_iter().take(1));
        insta::assert_snapshot!("builds.txt", builds(&outcomes, Colour::Never));
    }

    #[test]
    fn every_report_says_its_verdict_first() {
        for (verdict, report) in all() {
            assert_eq!(report.verdict.as_str(), verdict);
            let first = text(&report, Colour::Never).lines().next().map(str::to_owned);
            assert_eq!(first.as_deref(), Some(format!("hello 2.10: {verdict}").as_str()));
        }
    }

    #[test]
    fn colour_is_only_added_never_needed() {
        for (_, report) in all() {
            assert!(!text(&report, Colour::Never).contains('\x1b'));
            let coloured = text(&report, Colour::Always);
            assert!(coloured.contains("\x1b["));
            let (plain, stripped) = (text(&report, Colour::Never), anstream::adapter::strip_str(&coloured).to_string());
            let words = |text: &str| {
                text.lines().filter(|l| !l.contains("^^")).flat_map(str::split_whitespace).map(str::to_owned).collect()
            };
            let (plain, stripped): (Vec<String>, Vec<String>) = (words(&plain), words(&stripped));
            assert_eq!(plain, stripped);
        }
    }

    #[test]
    fn nothing_that_a_build_chose_reaches_a_terminal_or_a_browser_raw() {
        for (_, report) in all() {
            let (text, html) = (text(&report, Colour::Never), page(std::slice::from_ref(&report)));
            for shown in [&text, &html] {
                assert!(!shown.contains(['\x1b', '\x07', '\u{202e}']));
            }
            assert!(!html.contains("<script") && !html.contains("<b>"));
            assert!(!html.contains("http:") && !html.contains("https:") && !html.contains("url("));
        }
        assert!(page(&[samples::diverged()]).contains("&lt;script&gt;alert(1)&lt;/script&gt;"));
        assert!(page(&[samples::failed()]).contains("&lt;b&gt;no acceptable C compiler"));
    }

    #[test]
    fn a_page_of_several_reports_begins_with_the_worst() {
        let several = page(&all().map(|(_, report)| report));
        let at = |text: &str| several.find(text).unwrap_or(usize::MAX);
        assert!(
            at("href=\"#report-4\"") < at("href=\"#report-2\"") && at("href=\"#report-2\"") < at("href=\"#report-1\"")
        );
        assert!(at("href=\"#report-1\"") < at("<article id=\"report-1\""));
        assert!(at("<article id=\"report-4\"") < usize::MAX);
    }

    fn schema(text: &str) -> Value {
        serde_json::from_str(text).unwrap()
    }

    fn outcome_schema() -> Value {
        schema(include_str!("../../docs/outcome.schema.json"))
    }

    /// What is wrong with `document`, held against a schema.
    fn complaints(root: &Value, outcome: &Value, document: &str) -> Vec<String> {
        let registry =
            jsonschema::Registry::new().add("urn:kiln:schema:outcome:v1", outcome).unwrap().prepare().unwrap();
        let validator = jsonschema::options().with_registry(&registry).build(root).unwrap();
        let document: Value = serde_json::from_str(document).unwrap();
        validator.iter_errors(&document).map(|e| format!("{}: {e}", e.instance_path())).collect()
    }

    /// The schema, with every field that it does not describe forbidden.
    fn closed(mut schema: Value) -> Value {
        fn close(schema: &mut Value) {
            match schema {
                Value::Object(fields) => {
                    // What is always used together with other parts cannot be closed by itself.
                    fields.iter_mut().filter(|(key, _)| *key != "entry" && *key != "allOf").for_each(|(_, f)| close(f));
                    if fields.contains_key("properties") && fields.contains_key("required") {
                        fields.insert("unevaluatedProperties".into(), false.into());
                    }
                }
                Value::Array(items) => items.iter_mut().for_each(close),
                Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
            }
        }
        close(&mut schema);
        schema
    }

    #[test]
    fn documents_are_as_their_schemas_say() {
        let report = schema(include_str!("../../docs/report.schema.json"));
        let builds = schema(include_str!("../../docs/builds.schema.json"));
        let outcome = outcome_schema();
        for (_, sample) in all() {
            assert_eq!(complaints(&report, &outcome, &json(&sample)), [""; 0]);
            assert_eq!(complaints(&report, &outcome, &json(&Reports::new(vec![sample.clone()]))), [""; 0]);
            assert_eq!(complaints(&builds, &outcome, &json(&Builds::new(sample.outcomes.clone()))), [""; 0]);
            for one in &sample.outcomes {
                assert_eq!(complaints(&outcome, &outcome, &json(one)), [""; 0]);
            }
        }
    }

    #[test]
    fn documents_have_no_field_that_their_schemas_do_not_describe() {
        let (report, outcome) =
            (closed(schema(include_str!("../../docs/report.schema.json"))), closed(outcome_schema()));
        for (_, sample) in all() {
            assert_eq!(complaints(&report, &outcome, &json(&sample)), [""; 0]);
        }
        let odd = json(&samples::diverged()).replacen("\"scope\"", "\"extra\": 1, \"scope\"", 1);
        assert_ne!(complaints(&report, &outcome, &odd), [""; 0]);
        let odd = json(&samples::diverged()).replacen("\"cached\"", "\"extra\": 1, \"cached\"", 1);
        assert_ne!(complaints(&report, &outcome, &odd), [""; 0]);
    }

    #[test]
    fn schemas_refuse_what_the_contract_forbids() {
        let report = schema(include_str!("../../docs/report.schema.json"));
        let good = json(&samples::diverged());
        for (field, bad) in [
            ("\"verdict\": \"diverged\"", "\"verdict\": \"fine\""),
            ("kiln/report/v1", "kiln/report/v0"),
            ("\"status\": \"built\"", "\"status\": \"ok\""),
            ("\"kind\": \"only-in-second\"", "\"kind\": \"odd\""),
            ("\"nar_hash\": \"sha256-", "\"nar_hash\": \"sha1-"),
            ("\"causes\":", "\"cause\":"),
        ] {
            assert!(good.contains(field), "{field}");
            assert_ne!(complaints(&report, &outcome_schema(), &good.replacen(field, bad, 1)), [""; 0], "{bad}");
        }
    }
}
