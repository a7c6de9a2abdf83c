//! pip's settings: where its index is, which certificates it trusts.
//!
//! Files in pip's order (later ones win): `pip/pip.conf` in each of `$XDG_CONFIG_DIRS`, `/etc/pip.conf`, `~/.pip/pip.conf`,
//! `~/.config/pip/pip.conf`, `$VIRTUAL_ENV/pip.conf`, `$PIP_CONFIG_FILE`; sections `[global]`, then `[install]`, then
//! `[download]`; then `PIP_*` variables. Where none of them names an index, pip has a default of its own: kiln does not know
//! it, but asks the installed pip (`python3 -I` importing `pip._internal.models.index`), and only if it is needed.
//!
//! Limits: a site file is looked for in an active virtual environment only.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::host::{Host, text_of};

/// Prints the default index of the pip that is installed.
const DEFAULT_INDEX: &str = "from pip._internal.models.index import PyPI; print(PyPI.simple_url)";

/// pip's settings as far as they concern kiln.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pip {
    /// The index.
    pub index: Index,
    /// Further indices.
    pub extra: Vec<String>,
    /// Directories, pages or files with links.
    pub links: Vec<String>,
    /// A file of certificates to trust besides the platform's.
    pub certificates: Option<PathBuf>,
    /// The proxy for pip's own requests.
    pub proxy: Option<String>,
}

/// Where pip's index is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Index {
    /// Settings name it.
    Named(String),
    /// No setting names it: pip's own default.
    Default,
    /// Settings say that none is to be used.
    None,
}

impl Pip {
    /// The settings of `host`.
    pub fn of(host: &Host) -> Self {
        let mut values: BTreeMap<String, String> = BTreeMap::new();
        for section in ["global", "install", "download"] {
            for file in files(host) {
                let text = text_of(&file).unwrap_or_default();
                values.extend(section_of(&text, section));
            }
        }
        for key in ["index-url", "extra-index-url", "no-index", "find-links", "cert", "proxy"] {
            let name = format!("PIP_{}", key.replace('-', "_").to_ascii_uppercase());
            if let Some(value) = host.variable(&name) {
                values.insert(key.into(), value.into());
            }
        }
        let list = |key: &str| -> Vec<String> {
            values.get(key).map(|v| v.split_whitespace().map(str::to_string).collect()).unwrap_or_default()
        };
        // distutils' strtobool, which pip reads flags with.
        let no_index = values
            .get("no-index")
            .is_some_and(|v| matches!(v.to_ascii_lowercase().as_str(), "y" | "yes" | "t" | "true" | "on" | "1"));
        Self {
            index: match values.get("index-url").filter(|v| !v.is_empty()) {
                _ if no_index => Index::None,
                Some(url) => Index::Named(url.clone()),
                None => Index::Default,
            },
            extra: if no_index { Vec::new() } else { list("extra-index-url") },
            links: list("find-links"),
            certificates: values.get("cert").filter(|v| !v.is_empty()).map(PathBuf::from),
            proxy: values.get("proxy").filter(|v| !v.is_empty()).cloned(),
        }
    }

    /// The index that the installed pip uses where nothing else is said.
    pub fn default_index(host: &Host) -> Option<String> {
        let python = |name: &str| host.ask(&[name, "-I", "-c", DEFAULT_INDEX]);
        // `/usr/bin/python3` too: the first in PATH may be one without pip.
        let printed = python("python3").or_else(|| python("/usr/bin/python3"))?;
        Some(printed.trim().to_string()).filter(|url| url.starts_with("https://") || url.starts_with("http://"))
    }
}

fn files(host: &Host) -> Vec<PathBuf> {
    let named = host.variable("PIP_CONFIG_FILE");
    if named == Some("/dev/null") {
        return Vec::new(); // documented by pip: no file at all is read
    }
    let mut files: Vec<PathBuf> = match host.variable("XDG_CONFIG_DIRS") {
        Some(list) => {
            list.split(':').filter(|d| !d.is_empty()).map(|d| PathBuf::from(d).join("pip/pip.conf")).collect()
        }
        None => vec![host.rooted("etc/xdg/pip/pip.conf")],
    };
    files.push(host.rooted("etc/pip.conf"));
    files.extend(host.home().map(|home| home.join(".pip/pip.conf")));
    files.extend(host.user_settings().map(|settings| settings.join("pip/pip.conf")));
    files.extend(host.variable("VIRTUAL_ENV").map(|env| PathBuf::from(env).join("pip.conf")));
    files.extend(named.map(PathBuf::from));
    files
}

/// Keys and values of one section, as Python's `configparser` reads them: indented lines go on with the value above.
fn section_of(text: &str, wanted: &str) -> BTreeMap<String, String> {
    let mut values: BTreeMap<String, String> = BTreeMap::new();
    let mut inside = false;
    let mut last: Option<String> = None;
    for line in text.lines() {
        let trimmed = line.trim();
        if trimmed.is_empty() || trimmed.starts_with(['#', ';']) {
            continue;
        }
        if line.starts_with([' ', '\t'])
            && let Some(key) = &last
        {
            let value = values.entry(key.clone()).or_default();
            value.push('\n');
            value.push_str(trimmed);
        } else if let Some(section) = trimmed.strip_prefix('[').and_then(|s| s.strip_suffix(']')) {
            inside = section == wanted;
            last = None;
        } else if let Some((key, value)) = trimmed.split_once(['=', ':']).filter(|_| inside) {
            let key = key.trim().to_ascii_lowercase().replace('_', "-");
            values.insert(key.clone(), value.trim().to_string());
            last = Some(key);
        }
    }
    values
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(variables: &[(&str, &str)], files: &[(&str, &str)]) -> (tempfile::TempDir, Host) {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let mut all = BTreeMap::from([("HOME".to_string(), root.path().join("home").display().to_string())]);
        all.extend(variables.iter().map(|(k, v)| (k.to_string(), v.to_string())));
        let host = Host::told(all, root.path().into(), |command| {
            command.contains(&DEFAULT_INDEX).then(|| "https://default.test/simple\n".into())
        });
        (root, host)
    }

    #[test]
    fn later_files_and_variables_win() {
        let files = [
            ("etc/pip.conf", "[global]\nindex-url = https://a.test/simple\ncert = /a.pem\n"),
            (
                "home/.config/pip/pip.conf",
                "; mine\n[global]\nindex_url: https://b.test/simple\nextra-index-url =\n    https://c.test/simple\n    https://d.test/simple\n[list]\ncert = /no\n",
            ),
        ];
        let (_root, told) = host(&[], &files);
        let pip = Pip::of(&told);
        assert_eq!(pip.index, Index::Named("https://b.test/simple".into()));
        assert_eq!(pip.extra, ["https://c.test/simple", "https://d.test/simple"]);
        assert_eq!(pip.certificates, Some("/a.pem".into()));
        let (_root, told) = host(&[("PIP_INDEX_URL", "https://e.test/simple")], &files);
        assert_eq!(Pip::of(&told).index, Index::Named("https://e.test/simple".into()));
    }

    #[test]
    fn without_a_setting_the_installed_pip_is_asked() {
        let (_root, told) = host(&[], &[]);
        assert_eq!(Pip::of(&told).index, Index::Default);
        assert_eq!(Pip::default_index(&told).as_deref(), Some("https://default.test/simple"));
    }

    #[test]
    fn no_index_means_none_and_the_null_file_means_no_files() {
        let files = [("etc/pip.conf", "[global]\nindex-url = https://a.test/simple\n")];
        let (_root, told) = host(&[("PIP_NO_INDEX", "1"), ("PIP_FIND_LINKS", "/opt/a /opt/b")], &files);
        let pip = Pip::of(&told);
        assert_eq!((pip.index, pip.links), (Index::None, vec!["/opt/a".into(), "/opt/b".into()]));
        let (_root, told) = host(&[("PIP_CONFIG_FILE", "/dev/null")], &files);
        assert_eq!(Pip::of(&told).index, Index::Default);
    }
}
