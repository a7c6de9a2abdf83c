//! What apt tells a program of `DPkg::Pre-Install-Pkgs` that speaks version 3 of its protocol: every step it is about to take.
//!
//! A line `VERSION 3`, apt's configuration up to an empty line, then a line for each step: package, old version, its
//! architecture and multi-arch kind, a direction, the same three of the new version, and the file that is unpacked or
//! `**CONFIGURE**` or `**REMOVE**`. An older version is refused: it does not say which package a file is. So is a text that
//! ends before apt's configuration does: what was cut off might have been a file.
//! Reference: apt.conf(5), "HOW APT CALLS DPKG(1)"; apt-pkg/deb/dpkgpm.cc, SendPkgsInfo.

/// How apt is told to speak this version, for messages.
const WAY_OUT: &str = "set DPkg::Tools::Options::PROGRAM::Version \"3\" in apt's configuration, PROGRAM being the first word of the command in DPkg::Pre-Install-Pkgs";

/// A step that apt is about to take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step<'a> {
    /// Which package.
    pub package: &'a str,
    /// The version that will be there; none after a removal.
    pub version: Option<&'a str>,
    /// Its architecture; `all` for any.
    pub architecture: Option<&'a str>,
    /// What is done.
    pub action: Action<'a>,
}

/// What a step does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action<'a> {
    /// Unpacks this file.
    Unpack(&'a str),
    /// Configures what was unpacked.
    Configure,
    /// Removes it.
    Remove,
}

/// Why a text is not what apt says.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HookError {
    /// Another version, or none.
    #[error("expected \"VERSION 3\" on the first line, found {found:?}: {WAY_OUT}")]
    Version {
        /// The line's beginning.
        found: String,
    },
    /// No empty line after apt's configuration.
    #[error("it ends before the empty line that ends apt's configuration")]
    Cut,
    /// A line that is no step.
    #[error("line {line}: expected nine words, the last a path, **CONFIGURE** or **REMOVE**, found {found:?}")]
    Step {
        /// Where, from 1.
        line: usize,
        /// The line's beginning.
        found: String,
    },
}

/// All steps, in their order.
pub fn parse(text: &str) -> Result<Vec<Step<'_>>, HookError> {
    let start = |line: &str| line.chars().take(120).collect::<String>();
    let mut lines = text.lines().zip(1..);
    let (first, _) = lines.next().unwrap_or_default();
    if first != "VERSION 3" {
        return Err(HookError::Version { found: start(first) });
    }
    if !lines.by_ref().any(|(line, _)| line.is_empty()) {
        return Err(HookError::Cut);
    }
    lines.map(|(line, number)| step(line).ok_or(HookError::Step { line: number, found: start(line) })).collect()
}

/// A line's step. Only the last word, a path, may have blanks in it.
fn step(line: &str) -> Option<Step<'_>> {
    let mut words = line.splitn(9, ' ');
    let mut word = || words.next().filter(|word| !word.is_empty());
    let package = word()?;
    let (_, _, _) = (word()?, word()?, word()?);
    word().filter(|direction| matches!(*direction, "<" | "=" | ">" | "-"))?;
    let known = |word: &'_ str| word != "-";
    let version = word()?;
    let architecture = word()?;
    let _multi_arch = word()?;
    let action = match word()? {
        "**CONFIGURE**" => Action::Configure,
        "**REMOVE**" => Action::Remove,
        path if path.starts_with('/') => Action::Unpack(path),
        _ => return None,
    };
    // What is unpacked is something.
    if matches!(action, Action::Unpack(_)) && !(known(version) && known(architecture)) {
        return None;
    }
    Some(Step {
        package,
        version: Some(version).filter(|word| known(word)),
        architecture: Some(architecture).filter(|word| known(word)),
        action,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "VERSION 3\nAPT::Architecture=amd64\nDPkg::Pre-Install-Pkgs::=/x/hook%20apt\n\n";

    fn parsed(steps: &str) -> Result<Vec<Step<'static>>, HookError> {
        parse(Box::leak(format!("{HEAD}{steps}").into_boxed_str()))
    }

    /// As apt 2.6 wrote them.
    #[test]
    fn every_step_is_read_and_paths_may_have_blanks() {
        let steps = parsed(
            "greet - - none < 1.0-1 all none /srv/a b/./greet_1.0-1_all.deb\n\
             greet - - none < 1.0-1 all none **CONFIGURE**\n\
             libc6 2.36-9 amd64 same < 2.36-9+deb12u9 amd64 same /var/cache/apt/archives/libc6_2.36-9+deb12u9_amd64.deb\n\
             old 1:1 amd64 foreign > - - none **REMOVE**\n",
        )
        .unwrap();
        assert_eq!(steps[0].action, Action::Unpack("/srv/a b/./greet_1.0-1_all.deb"));
        assert_eq!((steps[0].package, steps[0].version, steps[0].architecture), ("greet", Some("1.0-1"), Some("all")));
        assert_eq!(steps[1].action, Action::Configure);
        assert_eq!(steps[2].version, Some("2.36-9+deb12u9"));
        assert_eq!((steps[3].version, steps[3].action), (None, Action::Remove));
        assert_eq!(parsed(""), Ok(Vec::new()));
    }

    #[test]
    fn older_versions_are_refused_with_a_way_out() {
        for text in ["", "/var/cache/apt/archives/greet_1.0-1_all.deb\n", "VERSION 2\n\ngreet - < 1.0-1 /x.deb\n"] {
            let error = parse(text).unwrap_err();
            assert!(matches!(error, HookError::Version { .. }), "{text}");
            assert!(error.to_string().contains("DPkg::Tools::Options"), "{error}");
        }
    }

    #[test]
    fn what_is_cut_off_or_no_step_is_refused_with_its_line() {
        assert_eq!(parse("VERSION 3\nAPT::Architecture=amd64\n"), Err(HookError::Cut));
        assert_eq!(parse("VERSION 3"), Err(HookError::Cut));
        for line in [
            "greet - < 1.0-1 /x.deb",
            "greet - - none < 1.0-1 all none",
            "greet - - none < 1.0-1 all none relative.deb",
            "greet - - none < 1.0-1 all none **NOTHING**",
            "greet - - none < - - none /x.deb",
            "greet - - none ? 1.0-1 all none /x.deb",
            "",
        ] {
            let error = parsed(&format!("a - - none < 1 all none /a.deb\n{line}\n")).unwrap_err();
            assert!(matches!(error, HookError::Step { line: 6, .. }), "{line}: {error}");
        }
    }
}
