//! The features of a sandbox apart from namespaces, each judged by what was tried, else by what the host says of itself.

use rustix::io::Errno;

use super::attempt::Attempt;
use super::facts::Systemd;
use super::namespaces::{outer_container, sysctl};
use super::{
    ControlGroups, Facts, Finding, IdHelpers, Need::Optional, Need::Required, Remedy, State::Degraded, State::Missing,
};
use crate::error::Refusal;
use crate::probe::Caller;

/// What cannot be known before something else is mended.
const LATER: &str = "mend what is missing above, then run `kiln doctor` again";

/// First kernel with everything that has no substitute, as [`crate::probe()`] has it.
const OLDEST: (u32, u32) = (5, 14);

fn version(facts: &Facts) -> (u32, u32) {
    let mut numbers = facts.kernel.split(|c: char| !c.is_ascii_digit()).map(|number| number.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

pub(super) fn kernel(facts: &Facts) -> Finding {
    let found = Finding::ok("kernel", Required, "namespaces, mounts and filters of a sandbox", &facts.kernel);
    if version(facts) >= OLDEST {
        return found;
    }
    found.but(
        Missing,
        format!("nothing can be isolated before Linux {}.{}", OLDEST.0, OLDEST.1),
        vec![
            Remedy::command(
                "Debian 11: a newer kernel from backports",
                "sudo apt install -t bullseye-backports linux-image-amd64",
            ),
            Remedy::advice("elsewhere: a newer release of the distribution, or its newest kernel; then boot it"),
        ],
    )
}

pub(super) fn calls(facts: &Facts) -> Finding {
    let purpose = "sandboxes that are born in their namespaces, cannot be mistaken for another, and inherit nothing";
    let name = "clone3, pidfd, close_range";
    if facts.attempts.best().passed("descriptors") {
        return Finding::ok("process-calls", Required, purpose, name);
    }
    // clone3 is of 5.3 and close_range's flag of 5.11: a kernel that is new enough has them, unless a filter hides them.
    let hidden = facts.attempts.best().failed_with("clone", Errno::NOSYS);
    if version(facts) >= OLDEST && !hidden {
        return Finding::ok("process-calls", Required, purpose, format!("{name}, by the kernel's version"));
    }
    let found = Finding::ok("process-calls", Required, purpose, "clone3: function not implemented");
    let cost = "nothing can be isolated: kiln refuses";
    match version(facts) >= OLDEST {
        true => found.but(Missing, cost, outer_container()),
        false => found.but(Missing, cost, vec![Remedy::advice("see `kernel`")]),
    }
}

pub(super) fn mounts(facts: &Facts) -> Finding {
    let purpose = "inputs that are read-only, submounts too, before anything can see them";
    let name = "open_tree, mount_setattr, move_mount";
    let best = facts.attempts.best();
    if best.passed("pivot") {
        return Finding::ok("mount-api", Required, purpose, name);
    }
    let hidden = best.failed_with("detach", Errno::NOSYS) || best.failed_with("root", Errno::NOSYS);
    if version(facts) >= OLDEST && !hidden {
        return Finding::ok("mount-api", Required, purpose, format!("{name}, by the kernel's version"));
    }
    let remedies = if hidden { outer_container() } else { vec![Remedy::advice("see `kernel`")] };
    Finding::ok("mount-api", Required, purpose, "function not implemented").but(
        Missing,
        "nothing can be isolated: kiln refuses",
        remedies,
    )
}

pub(super) fn proc(facts: &Facts) -> Finding {
    let purpose = "a /proc of the sandbox's own, with what tells of the host masked";
    let (full, strict) = (&facts.attempts.build, &facts.attempts.strict);
    if full.passed("proc") && strict.passed("proc") {
        return Finding::ok("proc", Required, purpose, "full and subset=pid");
    }
    if full.passed("proc") {
        return Finding::ok("proc", Required, purpose, "full, not subset=pid").but(
            Degraded,
            "`kiln sandbox --proc strict` is refused",
            vec![Remedy::advice("boot Linux 5.8 or later")],
        );
    }
    if let Some(point) = &facts.covered_proc {
        let found = format!("{point} is covered, as in a container, and the kernel then forbids another /proc");
        let mut remedies = outer_container();
        remedies.push(Remedy::command("without /proc it works already", "kiln sandbox --proc none -- COMMAND"));
        return Finding::ok("proc", Required, purpose, found).but(
            Missing,
            "no builds, since programs need /proc; `kiln sandbox --proc none` works",
            remedies,
        );
    }
    if !facts.attempts.best().passed("pivot") {
        return Finding::ok("proc", Required, purpose, "not covered; not tried, see `user-namespaces`");
    }
    Finding::ok("proc", Required, purpose, full.told()).but(
        Missing,
        "no builds, since programs need /proc",
        outer_container(),
    )
}

pub(super) fn seccomp(facts: &Facts) -> Finding {
    let purpose = "no setuid files, nested namespaces, odd sockets, io_uring or mounts from inside";
    match (&facts.filter_actions, facts.attempts.best().passed("filter")) {
        (_, true) => Finding::ok("seccomp", Required, purpose, "filters load"),
        (Some(_), false) => Finding::ok("seccomp", Required, purpose, "there, by /proc/sys/kernel/seccomp"),
        (None, false) => Finding::ok("seccomp", Required, purpose, "/proc/sys/kernel/seccomp does not exist").but(
            Missing,
            "nothing can be isolated: kiln refuses",
            vec![Remedy::advice("boot a kernel with CONFIG_SECCOMP_FILTER=y")],
        ),
    }
}

pub(super) fn notification(facts: &Facts) -> Finding {
    let purpose = "a supervisor that answers chosen calls; plain builds use none";
    let there =
        facts.filter_actions.as_ref().is_some_and(|actions| actions.split_whitespace().any(|a| a == "user_notif"));
    match there {
        true => Finding::ok("seccomp-notification", Optional, purpose, "user_notif is among the actions"),
        false => Finding::ok("seccomp-notification", Optional, purpose, "user_notif is not among the actions").but(
            Missing,
            "calls cannot be traced to their cause",
            vec![Remedy::advice("boot Linux 5.0 or later with CONFIG_SECCOMP_FILTER=y")],
        ),
    }
}

pub(super) fn landlock(facts: &Facts) -> Finding {
    /// First ABI with scopes for abstract sockets and signals.
    const WHOLE: u32 = 6;
    let purpose = "a second layer under the mounts: writes only where the sandbox may write";
    let boot =
        Remedy::advice("boot with `landlock` first in the kernel's lsm= parameter, and CONFIG_SECURITY_LANDLOCK=y");
    let abi =
        match facts.attempts.best() {
            Attempt::Worked { landlock_abi, .. } => *landlock_abi,
            _ => {
                let active =
                    facts.security_modules.as_ref().map(|list| list.split(',').any(|name| name.trim() == "landlock"));
                return match active {
                    Some(false) => Finding::ok("landlock", Optional, purpose, "not among the active security modules")
                        .but(Missing, "only the mounts stand between a build and files", vec![boot]),
                    Some(true) => Finding::ok("landlock", Optional, purpose, "among the active security modules"),
                    None => Finding::ok("landlock", Optional, purpose, "not known, since no sandbox started").but(
                        Degraded,
                        "not known",
                        vec![Remedy::advice(LATER)],
                    ),
                };
            }
        };
    let found = Finding::ok("landlock", Optional, purpose, format!("ABI {abi}"));
    match abi {
        0 => found.but(Missing, "only the mounts stand between a build and files", vec![boot]),
        WHOLE.. => found,
        _ => found.but(
            Degraded,
            "no second layer for abstract sockets and signals; namespaces hold them",
            vec![Remedy::advice("boot Linux 6.12 or later")],
        ),
    }
}

pub(super) fn identity(facts: &Facts) -> Finding {
    let purpose = "a host user behind the sandbox that is never root";
    match (&facts.slot, facts.caller) {
        (Ok(()), Caller::User) => Finding::ok("identity", Required, purpose, "the caller's own"),
        (Ok(()), Caller::Root) => Finding::ok("identity", Required, purpose, "a user of its own for each sandbox"),
        (Err(why), _) => Finding::ok("identity", Required, purpose, why).but(
            Missing,
            "kiln refuses to run sandboxes as the host's root",
            vec![
                Remedy::command(
                    "run kiln as an ordinary user",
                    "setpriv --reuid=1000 --regid=1000 --clear-groups kiln doctor",
                ),
                Remedy::advice("in a container: map at least 65536 ids into it"),
            ],
        ),
    }
}

pub(super) fn fake_root(facts: &Facts) -> Finding {
    let purpose = "assembling environments: packages' scripts that expect to be root";
    match &facts.attempts.fake_root {
        Attempt::Worked { .. } => Finding::ok("fake-root", Required, purpose, "behind a second user namespace"),
        other if !facts.attempts.build.passed("execute") => {
            Finding::ok("fake-root", Required, purpose, format!("not reached: {}", other.told())).but(
                Degraded,
                "not known",
                vec![Remedy::advice(LATER)],
            )
        }
        other => Finding::ok("fake-root", Required, purpose, other.told()).but(
            Missing,
            "environments cannot be assembled, and so no recipe locked or built",
            sysctl("allow namespaces in namespaces", "user.max_user_namespaces", "10000"),
        ),
    }
}

pub(super) fn uid_range(facts: &Facts) -> Finding {
    let purpose = "several users inside, really distinct: `kiln sandbox --uid-range`; builds have one";
    let cost = "`kiln sandbox --uid-range` is refused; builds do not need it";
    let finding = |found: String| Finding::ok("uid-range", Optional, purpose, found);
    match (&facts.attempts.range, facts.caller) {
        (Attempt::Worked { .. }, Caller::Root) => finding("65536 ids, mapped by root".into()),
        (Attempt::Worked { .. }, Caller::User) => finding("65536 ids, by newuidmap and newgidmap".into()),
        (Attempt::Refused(refusal), _) => {
            let mut remedies = id_remedies(facts);
            if remedies.is_empty() {
                remedies.push(Remedy::advice(refusal.remedy.as_str()));
            }
            let found = format!("{} is missing: {}", refusal.missing, refusal.why);
            finding(found).but(Missing, cost, remedies)
        }
        (other @ Attempt::Failed { .. }, _) if !facts.attempts.build.passed("execute") => {
            let found = format!("not reached: {}", other.told());
            finding(found).but(Degraded, "not known", vec![Remedy::advice(LATER)])
        }
        (other @ Attempt::Failed { .. }, _) => finding(other.told()).but(
            Missing,
            cost,
            vec![Remedy::command(
                "see whether newuidmap and newgidmap have the rights that they need (setuid root, or file capabilities)",
                "ls -l $(command -v newuidmap newgidmap); getcap $(command -v newuidmap newgidmap)",
            )],
        ),
    }
}

/// What an ordinary user lacks, all of it at once.
fn id_remedies(facts: &Facts) -> Vec<Remedy> {
    let IdHelpers { newuidmap, newgidmap, range } = &facts.id_helpers;
    let mut remedies = Vec::new();
    if facts.caller == Caller::Root {
        return remedies;
    }
    if !newuidmap || !newgidmap {
        remedies.push(Remedy::command("Debian, Ubuntu (elsewhere often in shadow-utils)", "sudo apt install uidmap"));
    }
    if !range {
        remedies.push(Remedy::command(
            "give yourself a range",
            "sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535 \"$(id -un)\"",
        ));
    }
    remedies
}

pub(super) fn control_groups(facts: &Facts) -> Finding {
    let purpose = "a bound on the memory of all processes together";
    let found = match (&facts.attempts.memory, &facts.control_groups) {
        (Attempt::Worked { rung: 2.., .. }, _) => {
            return Finding::ok("control-groups", Optional, purpose, "version 2, delegated");
        }
        (Attempt::Worked { .. }, _) => return Finding::ok("control-groups", Optional, purpose, "version 1, as root"),
        (_, ControlGroups::Unified) => "version 2, none delegated to kiln",
        (_, ControlGroups::Hybrid) => "versions 1 and 2 side by side, none that kiln can use",
        (_, ControlGroups::Legacy) => "version 1, none that kiln can use",
        (_, ControlGroups::None) => "none are mounted",
    };
    let unified = Remedy::command(
        "boot with version 2 alone (GRUB)",
        "sudo sed -i 's/^GRUB_CMDLINE_LINUX=\"/&systemd.unified_cgroup_hierarchy=1 /' /etc/default/grub && sudo update-grub",
    );
    let delegated = Remedy::command(
        "run kiln in a delegated group of its own",
        match facts.caller {
            Caller::User => "systemd-run --user --scope -p Delegate=yes kiln build RECIPE",
            Caller::Root => "systemd-run --scope -p Delegate=yes kiln build RECIPE",
        },
    );
    let remedies = match (&facts.control_groups, facts.systemd) {
        (ControlGroups::Unified, Systemd::Runs) => vec![delegated],
        (ControlGroups::Unified, Systemd::Absent) => vec![Remedy::advice(
            "give the caller a group of its own: make a directory below /sys/fs/cgroup, chown it, start kiln in it",
        )],
        (ControlGroups::Hybrid | ControlGroups::Legacy, Systemd::Runs) => vec![unified, delegated],
        (ControlGroups::Hybrid | ControlGroups::Legacy, Systemd::Absent) => {
            vec![Remedy::advice(
                "version 1 is for root alone; let the host's init mount version 2 alone at /sys/fs/cgroup",
            )]
        }
        (ControlGroups::None, _) => {
            vec![Remedy::command("mount version 2", "sudo mount -t cgroup2 none /sys/fs/cgroup")]
        }
    };
    Finding::ok("control-groups", Optional, purpose, found).but(
        Degraded,
        "limits are per process and per file system: a build of many processes can use much memory, and \
         a limit on total memory is refused",
        remedies,
    )
}

pub(super) fn overlay(facts: &Facts) -> Finding {
    let purpose = "a writable view of an input; kiln copies instead and does not use it";
    let there = facts.file_systems.contains("overlay") && version(facts) >= (5, 11);
    match there {
        true => Finding::ok("overlay", Optional, purpose, "in user namespaces, by the kernel's version"),
        false => Finding::ok("overlay", Optional, purpose, "not loaded, or not in user namespaces").but(
            Missing,
            "nothing",
            vec![Remedy::command("load it", "sudo modprobe overlay")],
        ),
    }
}

/// The one finding that is the truth; the others say why.
pub(super) fn sandbox(facts: &Facts) -> Finding {
    let purpose = "every build, and every environment";
    let cost = "nothing can be isolated: kiln refuses";
    if let Some(Refusal { missing, why, remedy }) = facts.lacks.first() {
        return Finding::ok("sandbox", Required, purpose, format!("{missing} is missing: {why}")).but(
            Missing,
            cost,
            vec![Remedy::advice(remedy.as_str())],
        );
    }
    match &facts.attempts.build {
        Attempt::Worked { .. } => Finding::ok("sandbox", Required, purpose, "a whole one ran a program here"),
        other => {
            Finding::ok("sandbox", Required, purpose, other.told()).but(Missing, cost, vec![Remedy::advice(LATER)])
        }
    }
}
