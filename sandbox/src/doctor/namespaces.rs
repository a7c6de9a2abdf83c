//! Namespaces: whether they can be made here, and if not, which of the many switches forbids it.

use super::attempt::Attempt;
use super::{Facts, Finding, Need::Optional, Need::Required, Remedy, State::Missing};
use crate::forbidden;
use crate::probe::Caller;

pub(super) fn user(facts: &Facts) -> Finding {
    let purpose = "all isolation without a setuid program or root";
    // Only what comes after the mounts shows that capabilities inside were granted, too.
    if facts.attempts.best().passed("pivot") {
        return Finding::ok("user-namespaces", Required, purpose, "with an own id map and capabilities inside");
    }
    let (why, remedies) = why_no_namespaces(facts);
    Finding::ok("user-namespaces", Required, purpose, why).but(
        Missing,
        "nothing can be isolated: kiln refuses",
        remedies,
    )
}

/// A sysctl that is to be set now, and kept over a boot.
pub(super) fn sysctl(what: &str, name: &str, value: &str) -> Vec<Remedy> {
    vec![
        Remedy::command(format!("{what}, until the next boot"), format!("sudo sysctl -w {name}={value}")),
        Remedy::command(
            "the same for good",
            format!("echo '{name} = {value}' | sudo tee /etc/sysctl.d/60-kiln.conf && sudo sysctl --system"),
        ),
    ]
}

/// Why making namespaces failed, and what helps. The first that applies: later ones would only show after it is mended.
fn why_no_namespaces(facts: &Facts) -> (String, Vec<Remedy>) {
    let setting = |name: &str| facts.settings.get(name).map(String::as_str);
    for kind in ["user", "mnt", "pid", "net"] {
        let name = format!("user.max_{kind}_namespaces");
        if setting(&name) == Some("0") {
            return (format!("{name} is 0"), sysctl("allow namespaces", &name, "10000"));
        }
    }
    if facts.caller == Caller::User {
        let name = "kernel.unprivileged_userns_clone";
        if setting(name) == Some("0") {
            return (format!("{name} is 0: only root may make them"), sysctl("allow them to users", name, "1"));
        }
        let name = forbidden::APPARMOR;
        if setting(name) == Some("1") {
            let found = format!("{name} is 1: AppArmor takes all capabilities away inside (Ubuntu 23.10 and later)");
            let mut remedies = sysctl("allow them to every program", name, "0");
            remedies.push(Remedy::command("allow them to kiln alone", forbidden::apparmor_profile(&facts.executable)));
            return (found, remedies);
        }
    }
    if !facts.namespaces.contains("user") {
        let advice = Remedy::advice("boot a kernel with CONFIG_USER_NS=y, and mount /proc");
        return ("/proc/self/ns/user does not exist".into(), vec![advice]);
    }
    let told = facts.attempts.best().told();
    if let Some(container) = &facts.container {
        return (format!("inside {container}, which forbids them: {told}"), outer_container());
    }
    let remedies = vec![
        Remedy::command(
            "see whether a security module denied it",
            "sudo dmesg | grep -iE 'apparmor|selinux|audit' | tail",
        ),
        Remedy::command(
            "see whether all allowed ones are in use",
            "sysctl user.max_user_namespaces && lsns -t user | wc -l",
        ),
    ];
    (told, remedies)
}

/// How to start the container that kiln runs in.
pub(super) fn outer_container() -> Vec<Remedy> {
    vec![
        Remedy::command(
            "start the outer container so (podman)",
            "podman run --security-opt seccomp=unconfined --security-opt unmask=ALL …",
        ),
        Remedy::command(
            "start the outer container so (docker)",
            "docker run --security-opt seccomp=unconfined --security-opt apparmor=unconfined --security-opt systempaths=unconfined …",
        ),
    ]
}

pub(super) fn other(facts: &Facts) -> Finding {
    let purpose = "no files, processes, network, queues or names of the host inside";
    let options = crate::probe::BESIDE_USER;
    let absent: Vec<_> = options.into_iter().filter(|(kind, _)| !facts.namespaces.contains(*kind)).collect();
    let names = |list: &[(&str, &str)]| list.iter().map(|(kind, _)| *kind).collect::<Vec<_>>().join(" ");
    if absent.is_empty() {
        return Finding::ok("namespaces", Required, purpose, names(&options));
    }
    let wanted = absent.iter().map(|(_, option)| format!("{option}=y")).collect::<Vec<_>>().join(" ");
    Finding::ok("namespaces", Required, purpose, format!("no {}", names(&absent))).but(
        Missing,
        "nothing can be isolated: kiln refuses",
        vec![Remedy::advice(format!("boot a kernel with {wanted}, and mount /proc"))],
    )
}

pub(super) fn time(facts: &Facts) -> Finding {
    let purpose = "monotonic clocks and uptime that start at a fixed value";
    match &facts.attempts.clocks {
        Attempt::Worked { .. } => Finding::ok("time-namespaces", Optional, purpose, "with offsets"),
        other if facts.namespaces.contains("time") && !other.passed("become") => Finding::ok(
            "time-namespaces",
            Optional,
            purpose,
            "/proc/self/ns/time exists; not tried, see `user-namespaces`",
        ),
        other => {
            let absent = !facts.namespaces.contains("time");
            let found = if absent { "/proc/self/ns/time does not exist".into() } else { other.told() };
            Finding::ok("time-namespaces", Optional, purpose, found).but(
                Missing,
                "programs inside can read how long the host is up; `kiln sandbox` needs --host-clocks",
                vec![Remedy::advice("boot a kernel with CONFIG_TIME_NS=y (Linux 5.6 or later)")],
            )
        }
    }
}
