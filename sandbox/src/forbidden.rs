//! What a host forbids in a way that only trying shows: the reason, from the step that failed, and what lifts it.
//!
//! AppArmor may take all capabilities in user namespaces away from everyone but those whom a profile allows them, and no
//! file says whether one covers kiln. So kiln tries, and this is asked when the try has failed.

use std::fs;

use kiln_launcher::step::Step;
use rustix::io::Errno;

use crate::error::Refusal;
use crate::probe::Caller;

/// The setting, as sysctl(8) calls it.
pub(crate) const APPARMOR: &str = "kernel.apparmor_restrict_unprivileged_userns";

/// Why a step failed, if this host forbids it.
pub(crate) fn by_host(step: &Step, errno: Errno) -> Option<Refusal> {
    let caller = if rustix::process::geteuid().is_root() { Caller::Root } else { Caller::User };
    let setting = fs::read_to_string(format!("/proc/sys/{}", APPARMOR.replace('.', "/"))).unwrap_or_default();
    let executable = std::env::current_exe().map_or("kiln".into(), |path| path.display().to_string());
    by_apparmor(step, errno, caller, setting.trim(), &executable)
}

fn by_apparmor(step: &Step, errno: Errno, caller: Caller, setting: &str, executable: &str) -> Option<Refusal> {
    // What needs a capability in the new namespaces and no file of the host.
    let needs_capability = matches!(
        step,
        Step::Clone
            | Step::Map { .. }
            | Step::Ranges { .. }
            | Step::Become { .. }
            | Step::GroupRoot
            | Step::Clocks { .. }
            | Step::Network
            | Step::Name { .. }
            | Step::FirstPid { .. }
            | Step::Nesting { .. }
            | Step::Private
            | Step::Scratch
            | Step::EmptyRoot { .. }
    );
    let denied = matches!(errno, Errno::PERM | Errno::ACCESS);
    (caller == Caller::User && setting == "1" && needs_capability && denied).then(|| {
        let line = step.to_string();
        let words: Vec<&str> = line.split_whitespace().skip(1).collect();
        Refusal {
            missing: "permission to use user namespaces".into(),
            why: format!(
                "{APPARMOR} is 1, no AppArmor profile allows them to {executable}, and `{}` failed",
                words.join(" ")
            ),
            remedy: format!(
                "allow them to kiln alone: `{}`; or to every program: `sudo sysctl -w {APPARMOR}=0`",
                apparmor_profile(executable)
            ),
        }
    })
}

/// AppArmor attaches a profile by path; what an unconfined profile's program starts stays in it, the launcher too.
pub(crate) fn apparmor_profile(executable: &str) -> String {
    format!(
        "printf 'abi <abi/4.0>,\\ninclude <tunables/global>\\nprofile kiln \"{executable}\" flags=(unconfined) {{\\n  userns,\\n}}\\n' \
         | sudo tee /etc/apparmor.d/kiln && sudo apparmor_parser -r /etc/apparmor.d/kiln"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use kiln_launcher::step::Access;

    #[test]
    fn a_step_that_apparmor_forbade_is_told_with_the_profile_and_the_sysctl() {
        for (step, errno) in [
            (Step::Clone, Errno::PERM),
            (Step::Map { uid: 1000, gid: 100 }, Errno::ACCESS),
            (Step::Network, Errno::PERM),
        ] {
            let refusal = by_apparmor(&step, errno, Caller::User, "1", "/usr/bin/kiln").expect("forbidden");
            assert!(refusal.remedy.contains("profile kiln \"/usr/bin/kiln\""), "{refusal}");
            assert!(refusal.remedy.contains("sysctl -w kernel.apparmor_restrict_unprivileged_userns=0"), "{refusal}");
        }
    }

    #[test]
    fn what_failed_for_another_reason_is_not_blamed_on_apparmor() {
        let clone = Step::Clone;
        let bind = Step::Bind { source: 0, target: c"x".into(), access: Access::ReadOnly };
        assert_eq!(by_apparmor(&clone, Errno::PERM, Caller::User, "0", "kiln"), None);
        assert_eq!(by_apparmor(&clone, Errno::PERM, Caller::User, "", "kiln"), None, "no AppArmor");
        assert_eq!(by_apparmor(&clone, Errno::PERM, Caller::Root, "1", "kiln"), None, "root is not restricted");
        assert_eq!(by_apparmor(&clone, Errno::NOSPC, Caller::User, "1", "kiln"), None);
        assert_eq!(by_apparmor(&bind, Errno::ACCESS, Caller::User, "1", "kiln"), None, "a file that may not be read");
    }
}
