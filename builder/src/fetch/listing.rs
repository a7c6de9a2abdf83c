//! A project's files as a Python package index lists them.
//!
//! JSON (PEP 691) or HTML (PEP 503), told apart by the first byte: servers label them in many ways. Only what pinning needs is
//! read; entries without a file name or address are left out. A listing says what an index claims: digests in it are as
//! trustworthy as the connection it came over.

use std::collections::BTreeMap;

use kiln_model::digest::Digest;
use serde::{Deserialize, Serialize};

/// A file in a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// File name.
    pub name: String,
    /// Address, absolute or relative to the listing's.
    pub url: String,
    /// Digest, where the index has one.
    pub sha256: Option<Digest>,
    /// Bytes, where the index says so.
    pub size: Option<u64>,
    /// Why the file was yanked (PEP 592), perhaps without a word.
    pub yanked: Option<String>,
    /// When it was uploaded, as the index writes it (PEP 700); HTML does not say.
    pub uploaded: Option<String>,
    /// Pythons that it is for, where the index says so.
    pub requires_python: Option<String>,
}

/// The media types of a listing, in order of preference (PEP 691).
pub(super) const ACCEPT: &str =
    "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html;q=0.2, text/html;q=0.1";

#[derive(Serialize, Deserialize)]
struct Page {
    #[serde(default)]
    files: Vec<PageFile>,
}

#[derive(Serialize, Deserialize)]
struct PageFile {
    filename: String,
    url: String,
    #[serde(default)]
    hashes: BTreeMap<String, String>,
    #[serde(default)]
    size: Option<u64>,
    #[serde(default)]
    yanked: Yanked,
    #[serde(default, rename = "upload-time", skip_serializing_if = "Option::is_none")]
    uploaded: Option<String>,
    #[serde(default, rename = "requires-python", skip_serializing_if = "Option::is_none")]
    requires_python: Option<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Yanked {
    Flag(bool),
    Reason(String),
}

impl Default for Yanked {
    fn default() -> Self {
        Self::Flag(false)
    }
}

/// The files of a listing, or what is wrong with it.
pub fn parse(bytes: &[u8]) -> Result<Vec<Listed>, String> {
    let text = String::from_utf8_lossy(bytes);
    let mut listed = match text.trim_start().chars().next() {
        Some('{') => json(&text)?,
        Some('<') => html(&text),
        _ => return Err("is neither JSON nor HTML; expected a project's page of a simple index".into()),
    };
    // An empty address would be the listing's own.
    listed.retain(|file| !file.name.is_empty() && !file.url.is_empty());
    Ok(listed)
}

/// The JSON listing of files that lie in a directory.
pub(super) fn print<'a>(files: impl Iterator<Item = (&'a str, Digest, u64)>) -> Vec<u8> {
    let files = files.map(|(name, sha256, size)| PageFile {
        filename: name.into(),
        url: name.into(),
        hashes: BTreeMap::from([("sha256".to_string(), sha256.to_string())]),
        size: Some(size),
        yanked: Yanked::default(),
        uploaded: None,
        requires_python: None,
    });
    serde_json::to_vec(&Page { files: files.collect() }).expect("strings and numbers are always JSON")
}

/// A project's name as the index spells it (PEP 503).
pub fn normalised(project: &str) -> String {
    let mut name = String::new();
    for c in project.chars() {
        match c {
            '-' | '_' | '.' if name.ends_with('-') => {}
            '-' | '_' | '.' => name.push('-'),
            c => name.push(c.to_ascii_lowercase()),
        }
    }
    name
}

/// The normalised project and the version in the name of an sdist or a wheel.
pub fn project_and_version(file: &str) -> Option<(String, &str)> {
    let (project, version) = match file.strip_suffix(".whl") {
        // PEP 427: neither part has a hyphen.
        Some(stem) => {
            let mut parts = stem.splitn(3, '-');
            (parts.next()?, parts.next().filter(|_| stem.matches('-').count() >= 4)?)
        }
        None => {
            let endings = [".tar.gz", ".zip", ".tar.bz2", ".tar.xz", ".tgz"];
            endings.iter().find_map(|ending| file.strip_suffix(ending))?.rsplit_once('-')?
        }
    };
    (!project.is_empty() && !version.is_empty()).then(|| (normalised(project), version))
}

fn json(text: &str) -> Result<Vec<Listed>, String> {
    let page: Page = serde_json::from_str(text).map_err(|e| format!("is not a listing (PEP 691): {e}"))?;
    let listed = page.files.into_iter().map(|file| Listed {
        sha256: file.hashes.get("sha256").and_then(|hex| hex.parse().ok()),
        name: file.filename,
        url: file.url,
        size: file.size,
        yanked: match file.yanked {
            Yanked::Flag(false) => None,
            Yanked::Flag(true) => Some(String::new()),
            Yanked::Reason(reason) => Some(reason),
        },
        uploaded: file.uploaded,
        requires_python: file.requires_python.filter(|text| !text.is_empty()),
    });
    Ok(listed.collect())
}

/// The anchors of a page. Not a parser of HTML: pages of an index are anchors and little else.
fn html(text: &str) -> Vec<Listed> {
    let mut listed = Vec::new();
    let mut rest = text;
    while let Some(start) = rest.find('<') {
        rest = &rest[start..];
        if rest.starts_with("<!--") {
            rest = rest.find("-->").map_or("", |end| &rest[end..]);
            continue;
        }
        let Some(end) = tag_end(rest) else { break };
        let (tag, after) = rest.split_at(end);
        rest = after;
        let is_anchor = tag.get(..2).is_some_and(|t| t.eq_ignore_ascii_case("<a"))
            && tag[2..].starts_with(|c: char| c.is_ascii_whitespace());
        if !is_anchor {
            continue;
        }
        let attributes = attributes(&tag[2..]);
        let name = unescaped(rest[..rest.find('<').unwrap_or(rest.len())].trim_start_matches('>').trim());
        let Some(href) = attributes.get("href") else { continue };
        let (url, fragment) = href.split_once('#').unwrap_or((href, ""));
        listed.push(Listed {
            name,
            url: url.into(),
            sha256: fragment.split('&').find_map(|f| f.strip_prefix("sha256=")).and_then(|hex| hex.parse().ok()),
            size: None,
            yanked: attributes.get("data-yanked").cloned(),
            uploaded: None,
            requires_python: attributes.get("data-requires-python").filter(|text| !text.is_empty()).cloned(),
        });
    }
    listed
}

/// Where the `>` of a tag is; one in a quoted value does not count.
fn tag_end(tag: &str) -> Option<usize> {
    let mut quote = None;
    tag.char_indices().find_map(|(at, c)| {
        match (quote, c) {
            (None, '"' | '\'') => quote = Some(c),
            (None, '>') => return Some(at),
            (Some(open), c) if c == open => quote = None,
            _ => {}
        }
        None
    })
}

fn attributes(mut text: &str) -> BTreeMap<String, String> {
    let mut attributes = BTreeMap::new();
    loop {
        text = text.trim_start();
        let end = text.find(|c: char| c.is_ascii_whitespace() || c == '=').unwrap_or(text.len());
        let (name, after) = text.split_at(end);
        if name.is_empty() && after.is_empty() {
            return attributes;
        }
        let after = after.trim_start();
        let (value, after) = match after.strip_prefix('=').map(str::trim_start) {
            None => ("", after),
            Some(value) => match value.chars().next().filter(|c| matches!(c, '"' | '\'')) {
                Some(quote) => value[1..].split_once(quote).unwrap_or((&value[1..], "")),
                None => value.split_at(value.find(|c: char| c.is_ascii_whitespace()).unwrap_or(value.len())),
            },
        };
        attributes.insert(name.to_ascii_lowercase(), unescaped(value));
        text = after;
    }
}

fn unescaped(text: &str) -> String {
    // `&amp;` last: it must not make new entities.
    text.replace("&lt;", "<")
        .replace("&gt;", ">")
        .replace("&quot;", "\"")
        .replace("&#39;", "'")
        .replace("&#x27;", "'")
        .replace("&#43;", "+")
        .replace("&amp;", "&")
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    /// Found by fuzzing: the address of such an entry was taken for the listing's own.
    #[test]
    fn entries_without_a_name_or_an_address_are_left_out_of_both_forms() {
        for page in [
            r##"{"files": [{"filename": "", "url": "x"}, {"filename": "x-1.tar.gz", "url": ""}, {"filename": "a", "url": "b"}]}"##,
            "<a href=x></a><a href=''>x-1.tar.gz</a><a href='#sha256=00'>x-1.tar.gz</a><a href=b>a</a>",
        ] {
            let listed = parse(page.as_bytes()).unwrap();
            assert_eq!(listed.iter().map(|file| (&*file.name, &*file.url)).collect::<Vec<_>>(), [("a", "b")], "{page}");
        }
    }

    #[test]
    fn both_forms_say_the_same() {
        let json = format!(
            r#"{{"meta": {{"api-version": "1.1"}}, "name": "x", "files": [
            {{"filename": "x-1.tar.gz", "url": "../f/x-1.tar.gz", "hashes": {{"sha256": "{HEX}"}}, "yanked": "broken > bad", "requires-python": ">=3"}},
            {{"filename": "x-2.tar.gz", "url": "../f/x-2.tar.gz", "hashes": {{}}, "size": 3, "yanked": false, "upload-time": "2026-09-17T14:11:03.168153Z"}}]}}"#
        );
        let html = format!(
            "<!DOCTYPE html><html><!-- <a href='no'>no</a> --><body><h1>x</h1>\
             <a data-yanked='broken &gt; bad' href=\"../f/x-1.tar.gz#sha256={HEX}\" data-requires-python=\"&gt;=3\">x-1.tar.gz</a><br/>\n\
             <A HREF=../f/x-2.tar.gz >x-2.tar.gz</A><abbr href=no>no</abbr></body></html>"
        );
        let mut from_json = parse(json.as_bytes()).unwrap();
        assert_eq!(from_json[1].size.take(), Some(3));
        assert_eq!(from_json[1].uploaded.take().as_deref(), Some("2026-09-17T14:11:03.168153Z"));
        assert_eq!(from_json[0].requires_python.as_deref(), Some(">=3"));
        assert_eq!(parse(html.as_bytes()).unwrap(), from_json);
        assert_eq!(from_json[0].yanked.as_deref(), Some("broken > bad"));
        assert_eq!(from_json[0].sha256, Some(HEX.parse().unwrap()));
    }

    #[test]
    fn what_is_no_listing_is_refused_and_broken_markup_ends() {
        assert!(parse(b"Not found").is_err());
        assert!(parse(b"").is_err());
        assert!(parse(b"{\"files\": 3}").is_err());
        for broken in ["<a href=\"x", "<a href='x'", "<a", "<!-- <a href=x>x</a>", "<a href=x =>"] {
            assert!(parse(broken.as_bytes()).unwrap().iter().all(|l| l.name.is_empty()), "{broken}");
        }
    }

    #[test]
    fn file_names_say_project_and_version() {
        let said = |file| project_and_version(file).map(|(p, v)| format!("{p} {v}"));
        assert_eq!(said("idna-3.7.tar.gz").as_deref(), Some("idna 3.7"));
        assert_eq!(said("Foo.Bar-baz-1.0rc1.zip").as_deref(), Some("foo-bar-baz 1.0rc1"));
        assert_eq!(said("foo_bar-1.0-py3-none-any.whl").as_deref(), Some("foo-bar 1.0"));
        assert_eq!(said("foo.whl"), None);
        assert_eq!(said("idna.tar.gz"), None);
        assert_eq!(normalised("A__b.-C"), "a-b-c");
    }

    #[test]
    fn a_printed_listing_parses_back() {
        let printed = print([("x-1.tar.gz", HEX.parse().unwrap(), 7)].into_iter());
        let listed = parse(&printed).unwrap();
        assert_eq!((listed[0].name.as_str(), listed[0].size), ("x-1.tar.gz", Some(7)));
    }
}
