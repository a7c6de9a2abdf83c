//! What a campaign is asked for: a table of targets, an archive's index, what this machine has installed.
//!
//! A line that cannot be read is an answer like any other, with its number: one bad line does not cost the others. What is no
//! such file at all is an error.

use std::io::Read;
use std::path::{Path, PathBuf};

use kiln_model::format::control::{ControlError, Stanza, Stanzas};
use kiln_model::verdict::Verdict;
use kiln_model::wheel::times::Epoch;

use crate::exit::Kind;
use crate::rebuild::setting::{Changelog, Settings, Substitute, Tests};
use crate::rebuild::target::{Target, is_package};

/// The largest file that is read, after decompression.
const LARGEST: u64 = 1 << 30;
/// What this machine's dpkg has installed.
pub const INSTALLED: &str = "/var/lib/dpkg/status";
/// Architectures whose packages can be rebuilt here.
const ARCHITECTURES: [&str; 2] = ["amd64", "all"];

/// One thing that was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// The words.
    pub text: String,
    /// The line of its file, from 1.
    pub line: Option<u64>,
    /// What it means, or why it means nothing.
    pub wish: Result<Wish, String>,
    /// The verdict that the file expects.
    pub expected: Option<Verdict>,
}

/// What is to be rebuilt, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wish {
    /// The target.
    pub target: Target,
    /// The binary package that was named, where the target is its source.
    pub package: Option<String>,
    /// The settings.
    pub settings: Settings,
}

/// Why a file names no targets at all.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// It cannot be read.
    #[error("reading {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// It is too large.
    #[error("{} has more than {limit} bytes: expected a table of targets, or a Packages or Sources file", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The bound.
        limit: u64,
    },
    /// It is no text.
    #[error("{} is not UTF-8 text: expected a table of targets, or a Packages or Sources file", path.display())]
    NotText {
        /// The file.
        path: PathBuf,
    },
    /// It is an index, and broken.
    #[error("in {}", path.display())]
    Index {
        /// The file.
        path: PathBuf,
        /// Where and why.
        source: ControlError,
    },
    /// There is nothing in it.
    #[error("{} names no target: expected one on each line, or a Packages or Sources file", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
}

impl RequestError {
    /// What sort of error it is.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Read { source, .. } if source.kind() != std::io::ErrorKind::NotFound => Kind::Host,
            Self::Read { .. }
            | Self::TooLarge { .. }
            | Self::NotText { .. }
            | Self::Index { .. }
            | Self::Empty { .. } => Kind::BadInput,
        }
    }
}

/// A target that was named on the command line.
pub fn named(target: Target, settings: &Settings) -> Request {
    let wish = Wish { target: target.clone(), package: None, settings: settings.clone() };
    Request { text: target.to_string(), line: None, wish: Ok(wish), expected: None }
}

/// What the file at `path` asks for, each with `settings` and its own.
pub fn read(path: &Path, settings: &Settings) -> Result<Vec<Request>, RequestError> {
    let failed = |source| RequestError::Read { path: path.into(), source };
    let bytes = std::fs::read(path).map_err(failed)?;
    let mut plain = Vec::new();
    let limit = LARGEST + 1;
    let read = match &bytes[..] {
        [0x1f, 0x8b, ..] => flate2::read::MultiGzDecoder::new(&bytes[..]).take(limit).read_to_end(&mut plain),
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => {
            liblzma::read::XzDecoder::new(&bytes[..]).take(limit).read_to_end(&mut plain)
        }
        _ => (&bytes[..]).take(limit).read_to_end(&mut plain),
    };
    read.map_err(failed)?;
    if plain.len() as u64 > LARGEST {
        return Err(RequestError::TooLarge { path: path.into(), limit: LARGEST });
    }
    let text = String::from_utf8(plain).map_err(|_| RequestError::NotText { path: path.into() })?;
    // Which field comes first is nobody's promise, but that a stanza has this one is.
    let mut stanza = text.lines().skip_while(|line| line.trim().is_empty()).take_while(|line| !line.trim().is_empty());
    let requests = match stanza.any(|line| line.starts_with("Package: ")) {
        true => index(&text, settings).map_err(|source| RequestError::Index { path: path.into(), source })?,
        false => table(&text, settings),
    };
    match requests.is_empty() {
        true => Err(RequestError::Empty { path: path.into() }),
        false => Ok(requests),
    }
}

/// The targets of a Packages or Sources file, or of dpkg's own database.
fn index(text: &str, settings: &Settings) -> Result<Vec<Request>, ControlError> {
    let mut requests = Vec::new();
    let mut stanzas = Stanzas::new(text);
    while let Some(stanza) = stanzas.next()? {
        let line = stanza.line() as u64;
        // dpkg's database also has what was removed.
        if stanza.value("Status").is_some_and(|status| !status.ends_with(" installed")) {
            continue;
        }
        let (Some(name), Some(version)) = (stanza.value("Package"), stanza.value("Version")) else {
            let wish = Err("a stanza without Package or Version".into());
            let text = stanza.value("Package").unwrap_or_default().into();
            requests.push(Request { text, line: Some(line), wish, expected: None });
            continue;
        };
        let text = format!("{name} {version}");
        let wish = of_stanza(stanza, name, version).map(|(target, package)| Wish {
            target,
            package,
            settings: settings.clone(),
        });
        requests.push(Request { text, line: Some(line), wish, expected: None });
    }
    Ok(requests)
}

/// The source of a package, and the package's name; of a source, itself.
fn of_stanza(stanza: &Stanza<'_>, name: &str, version: &str) -> Result<(Target, Option<String>), String> {
    // Only sources name their binaries.
    if stanza.field("Binary").is_some() {
        return Ok((debian(name, version)?, None));
    }
    if let Some(architecture) = stanza.value("Architecture").filter(|found| !ARCHITECTURES.contains(found)) {
        return Err(format!("architecture {architecture}: this kiln builds for {}", ARCHITECTURES[0]));
    }
    let source = stanza.value("Source").unwrap_or(name);
    let (source, of) = match source.split_once(" (") {
        Some((source, of)) => (source, of.trim_end_matches(')')),
        None => (source, version),
    };
    // A binary-only rebuild is asked for by its own version.
    let version = if kiln_model::debian::build::is_binary_only(version, of) { version } else { of };
    Ok((debian(source, version)?, Some(name.into())))
}

fn debian(name: &str, version: &str) -> Result<Target, String> {
    format!("debian:{name}={version}").parse().map_err(|error: crate::rebuild::target::TargetError| error.to_string())
}

/// Which column of a table is what.
struct Columns {
    names: Vec<String>,
}

impl Columns {
    /// The columns of a table without a line that names them.
    fn unnamed() -> Self {
        Self { names: ["target", "settings", "expected"].map(str::to_string).into() }
    }

    /// Those that a line names, if it does.
    fn named(line: &str) -> Option<Self> {
        let names: Vec<String> = line.split('\t').map(|name| name.trim().to_string()).collect();
        let has = |name: &str| names.iter().any(|other| other == name);
        (has("target") || (has("name") && has("version"))).then_some(Self { names })
    }

    fn value<'t>(&self, fields: &[&'t str], name: &str) -> Option<&'t str> {
        let at = self.names.iter().position(|other| other == name)?;
        fields.get(at).copied().map(str::trim).filter(|value| !value.is_empty())
    }
}

/// The targets of a table: one on each line, tabs between columns, `#` before remarks. The first line may name the columns:
/// `target` or `name` and `version` (of Debian packages, with `source` if it is another; of wheels, if there is a column
/// `wheel`), `settings`, `tests`, `expected`; others are left alone. Without, it is target, settings, expected.
fn table(text: &str, settings: &Settings) -> Vec<Request> {
    let mut requests = Vec::new();
    let mut columns = None;
    for (n, line) in text.lines().enumerate() {
        if line.trim().is_empty() || line.starts_with('#') {
            continue;
        }
        let columns = match &columns {
            Some(columns) => columns,
            None => match Columns::named(line) {
                Some(named) => {
                    columns = Some(named);
                    continue;
                }
                None => columns.insert(Columns::unnamed()),
            },
        };
        let fields: Vec<&str> = line.split('\t').collect();
        let value = |name| columns.value(&fields, name);
        let (text, wish) = target(&value);
        let set = || -> Result<Settings, String> {
            let mut settings = match value("settings") {
                Some(words) => with(settings, words)?,
                None => settings.clone(),
            };
            if value("tests") == Some("nocheck") {
                settings.tests = Tests::Skip;
            }
            Ok(settings)
        };
        let wish = wish.and_then(|(target, package)| Ok(Wish { target, package, settings: set()? }));
        let expected = value("expected")
            .and_then(|word| serde_json::from_value::<Verdict>(serde_json::Value::String(word.into())).ok());
        requests.push(Request { text, line: Some(n as u64 + 1), wish, expected });
    }
    requests
}

/// The words of a line, and what they mean.
fn target<'t>(value: &dyn Fn(&'static str) -> Option<&'t str>) -> (String, Result<(Target, Option<String>), String>) {
    let parsed = |text: &str| text.parse::<Target>().map_err(|error| error.to_string());
    if let Some(text) = value("target") {
        return (text.into(), parsed(text).map(|target| (target, None)));
    }
    let (Some(name), Some(version)) = (value("name"), value("version")) else {
        return (value("name").unwrap_or_default().into(), Err("a line without name or version".into()));
    };
    if value("wheel").is_some() {
        let text = format!("pypi:{name}=={version}");
        let target = parsed(&text).map(|target| (target, None));
        return (text, target);
    }
    let text = format!("debian:{name}={version}");
    let source = value("source").unwrap_or(name);
    let whole = value("arch") == Some("source");
    (text, debian(source, version).map(|target| (target, (!whole).then(|| name.to_string()))))
}

/// `settings` and those that a table's words name.
fn with(settings: &Settings, words: &str) -> Result<Settings, String> {
    let mut settings = settings.clone();
    for word in words.split(';').map(str::trim).filter(|word| !word.is_empty()) {
        if let Some((name, bound)) = word.split_once('<').filter(|(name, _)| is_project(name)) {
            settings.pins.insert(name.into(), format!("<{bound}"));
            continue;
        }
        let (key, value) = word.split_once('=').unwrap_or((word, ""));
        match (key, value) {
            ("default", "") => {}
            ("no-check" | "nocheck", "") => settings.tests = Tests::Skip,
            ("build-options" | "build-option", words) if !words.is_empty() => {
                settings.build_options.extend(words.split([',', ' ']).map(str::to_string));
            }
            ("pin", pins) if !pins.is_empty() => pinned(&mut settings, pins)?,
            ("package", names) if !names.is_empty() => {
                for name in names.split(',') {
                    if !is_package(name) {
                        return Err(format!("{word:?}: {name:?} is not the name of a Debian package"));
                    }
                    settings.packages.insert(name.into());
                }
            }
            ("changelog", "binnmu") => settings.changelog = Changelog::Binnmu,
            ("substitute", "nearest") => settings.substitute = Substitute::Nearest,
            ("time-zone" | "TZ", zone) if !zone.is_empty() => {
                settings.time_zone = (zone != "UTC").then(|| zone.to_string());
            }
            ("epoch" | "SOURCE_DATE_EPOCH", "unset") => settings.epoch = Some(Epoch::Unset),
            ("epoch" | "SOURCE_DATE_EPOCH", seconds) => {
                let seconds =
                    seconds.parse().map_err(|_| format!("{word:?}: expected seconds since 1970, or unset"))?;
                settings.epoch = Some(Epoch::At(seconds));
            }
            // The version that wrote the reference, which is what kiln takes anyway.
            ("backend", _) => {}
            ("clock" | "identity", _) => return Err(format!("{word:?}: this kiln has no such setting")),
            _ => {
                return Err(format!(
                    "{word:?} is no setting: expected no-check, build-options=, pin=, package=, changelog=binnmu, …"
                ));
            }
        }
    }
    Ok(settings)
}

/// Whether a word can be the name of a Python project, of which a table says below which version it is taken.
fn is_project(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
}

/// `a:1,b,c:2` pins `a` to 1, and `b` and `c` to 2.
fn pinned(settings: &mut Settings, pins: &str) -> Result<(), String> {
    let mut waiting = Vec::new();
    for pin in pins.split(',') {
        match pin.split_once(':') {
            None => waiting.push(pin),
            Some((name, version)) => {
                waiting.push(name);
                settings.pins.extend(waiting.drain(..).map(|name| (name.to_string(), version.to_string())));
            }
        }
    }
    match waiting.first() {
        Some(name) => Err(format!("pin={pins}: no version for {name}; write NAME:VERSION")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(request: &Request) -> String {
        match &request.wish {
            Ok(wish) => format!("{} {:?} {}", wish.target, wish.package.as_deref().unwrap_or("-"), wish.settings),
            Err(why) => format!("! {why}"),
        }
    }

    fn all(requests: &[Request]) -> Vec<String> {
        requests.iter().map(told).collect()
    }

    #[test]
    fn a_table_without_names_of_columns_has_targets_settings_and_expectations() {
        let text =
            "# remark\n\ndebian:cowsay\ndebian:hello=2.10-3\tno-check\treproduced\npypi:six==1.16.0\n./earlier\n";
        let requests = table(text, &Settings::default());
        assert_eq!(
            all(&requests),
            [
                "debian:cowsay \"-\" default",
                "debian:hello=2.10-3 \"-\" no-check",
                "pypi:six==1.16.0 \"-\" default",
                "./earlier \"-\" default"
            ]
        );
        assert_eq!((requests[1].line, requests[1].expected), (Some(4), Some(Verdict::Reproduced)));
        assert_eq!(requests[0].expected, None);
    }

    #[test]
    fn a_table_that_names_its_columns_is_read_by_them() {
        let debian = "name\tversion\tarch\tsettings\texpected\tsource\ttests\n\
            cowsay-off\t3.03-8\tall\tbuild-options=notrimdch\treproduced\tcowsay\tcheck\n\
            libperl\t2.0\tamd64\tpin=perl,perl-base:5.36.0-7\t-\t\tnocheck\n\
            dns-root-data\t1\tsource\tdefault\tfailed\tdns-root-data\tcheck\n\
            hello\t1\tall\tclock=2024-07-25\treproduced\thello\tcheck\n";
        let requests = table(debian, &Settings::default());
        assert_eq!(
            all(&requests),
            [
                "debian:cowsay=3.03-8 \"cowsay-off\" build-options=notrimdch",
                "debian:libperl=2.0 \"libperl\" no-check pin=perl:5.36.0-7,perl-base:5.36.0-7",
                "debian:dns-root-data=1 \"-\" default",
                "! \"clock=2024-07-25\": this kiln has no such setting",
            ]
        );
        assert_eq!(requests[2].expected, Some(Verdict::Failed));
        let wheels = "name\tversion\tarch\tsettings\twheel\nsix\t1.16.0\tpy3\tbackend=setuptools==1;SOURCE_DATE_EPOCH=unset;TZ=UTC\tsix.whl\n";
        assert_eq!(all(&table(wheels, &Settings::default())), ["pypi:six==1.16.0 \"-\" epoch=unset"]);
        let wheels = wheels.replace("TZ=UTC", "setuptools<70.1;TZ=UTC");
        let requests = table(&wheels, &Settings::default());
        assert_eq!(all(&requests), ["pypi:six==1.16.0 \"-\" epoch=unset pin=setuptools:<70.1"]);
        let requests =
            table("pypi:cffi==1.0\tpackage=libffi-dev,zlib1g-dev\npypi:cffi==1.0\tpackage=Lib\n", &Settings::default());
        assert_eq!(all(&requests[..1]), ["pypi:cffi==1.0 \"-\" package=libffi-dev,zlib1g-dev"]);
        assert!(requests[1].wish.as_ref().is_err_and(|why| why.contains("\"Lib\"")), "{requests:?}");
        let wheels = wheels.replace("setuptools<70.1", "<70.1");
        assert!(table(&wheels, &Settings::default())[0].wish.is_err());
    }

    #[test]
    fn a_line_that_means_nothing_says_so_and_costs_no_other() {
        let text =
            "cowsay\ndebian:Cow\ndebian:hello\tfaster=1\ndebian:hello\tpin=perl\ndebian:hello\tepoch=soon\ndebian:ok\n";
        let requests = table(text, &Settings::default());
        let bad = requests.iter().filter(|request| request.wish.is_err()).count();
        assert_eq!((requests.len(), bad), (6, 5));
        assert_eq!(told(&requests[5]), "debian:ok \"-\" default");
        assert_eq!(requests[3].line, Some(4));
    }

    #[test]
    fn an_index_names_sources_and_binary_only_rebuilds_by_their_own_version() {
        let text = "Package: libcap2\nSource: libcap (1:2.66-4)\nVersion: 1:2.66-4+b1\nArchitecture: amd64\n\n\
            Package: hello\nVersion: 2.10-3\nArchitecture: amd64\nStatus: install ok installed\n\n\
            Package: gone\nVersion: 1\nStatus: deinstall ok config-files\n\n\
            Package: gcc-doc\nSource: gcc-defaults (1.203)\nVersion: 5:12\nArchitecture: all\n\n\
            Package: far\nVersion: 1\nArchitecture: riscv64\n\n\
            Package: cowsay\nBinary: cowsay, cowsay-off\nVersion: 3.03-8\nArchitecture: all\n\n\
            Package: broken\n";
        assert_eq!(
            all(&index(text, &Settings::default()).unwrap()),
            [
                "debian:libcap=1:2.66-4+b1 \"libcap2\" default",
                "debian:hello=2.10-3 \"hello\" default",
                "debian:gcc-defaults=1.203 \"gcc-doc\" default",
                "! architecture riscv64: this kiln builds for amd64",
                "debian:cowsay=3.03-8 \"-\" default",
                "! a stanza without Package or Version",
            ]
        );
    }

    #[test]
    fn a_file_may_be_compressed_and_one_that_is_none_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, bytes: &[u8]| {
            let path = dir.path().join(name);
            std::fs::write(&path, bytes).unwrap();
            path
        };
        let text = b"Package: hello\nVersion: 1\n";
        let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        std::io::Write::write_all(&mut gz, text).unwrap();
        let mut xz = liblzma::write::XzEncoder::new(Vec::new(), 0);
        std::io::Write::write_all(&mut xz, text).unwrap();
        let (gz, xz) = (gz.finish().unwrap(), xz.finish().unwrap());
        let scanned = &b"\nFormat: 3.0 (native)\nPackage: hello\nBinary: hello\nVersion: 1\n"[..];
        for (name, bytes) in [("Packages", &text[..]), ("Packages.gz", &gz), ("Packages.xz", &xz), ("Sources", scanned)]
        {
            assert_eq!(read(&write(name, bytes), &Settings::default()).unwrap().len(), 1, "{name}");
        }
        let refused = |bytes: &[u8]| read(&write("x", bytes), &Settings::default()).unwrap_err();
        assert!(matches!(refused(b"# nothing\n"), RequestError::Empty { .. }));
        assert!(matches!(refused(b"\xff\xfe"), RequestError::NotText { .. }));
        assert!(matches!(refused(&xz[..xz.len() - 9]), RequestError::Read { .. }));
        assert!(matches!(refused(b"Package: a\nVersion 1\n"), RequestError::Index { .. }));
        assert!(matches!(read(Path::new("/nonexistent"), &Settings::default()), Err(RequestError::Read { .. })));
    }
}
