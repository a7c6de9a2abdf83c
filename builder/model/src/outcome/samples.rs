//! Outcomes for tests: a control, its varied companion a minute later, and one that failed.

use std::collections::BTreeSet;
use std::num::NonZeroU32;

use super::*;
use crate::variation::{Fixed, Means, Plan};

fn plan() -> Plan {
    let two = NonZeroU32::new(2).unwrap();
    let means = Means { cpus: two, store_fs: "ext4".into(), locales: BTreeSet::new(), unix_time: 1_795_310_874 };
    Plan::new(Conditions::control(two), &Fixed::default(), &BTreeSet::new(), &means)
}

fn observed(conditions: &Conditions, unix_time: u64) -> Observed {
    Observed {
        cwd: Some(conditions.build_dir.clone()),
        hostname: Some(conditions.hostname.clone()),
        cpus: Some(conditions.cpus.map_or(2, NonZeroU32::get)),
        umask: Some(conditions.umask),
        unix_time: Some(unix_time),
        ..Observed::default()
    }
}

fn output(content: &str) -> Output {
    let sha256 = Digest::of(content);
    let file = Entry::File { executable: false, size: content.len() as u64, sha256 };
    Output {
        path: "/nix/store/0c0v54xhd6jl5d6rmbpbhqa9r1zyl5v7-hello-2.10".into(),
        nar_hash: NarHash::new(sha256),
        nar_size: 120,
        manifest: Manifest::new([(EntryPath::default(), file)]).expect("a root"),
    }
}

/// An unvaried build.
pub(crate) fn control() -> Outcome {
    let settings = plan().control;
    let started = Moment::from_unix(1_795_310_874);
    Outcome {
        schema: (),
        status: Status::Built,
        limit: None,
        cached: false,
        derivation: "/nix/store/jp5rz6r3yr7zl6rhs4wyg1vnhbcr3ncn-hello-2.10.drv".into(),
        outputs: [("out".parse().unwrap(), output("localhost"))].into(),
        artifacts: BTreeMap::new(),
        isolation: [("network".to_string(), "none".into())].into(),
        conditions: Some(Ran { observed: Some(observed(&settings, started.unix())), settings, effects: None }),
        host: Host {
            kernel: "Linux 6.18.0 #1 SMP".into(),
            machine: "x86_64".into(),
            cpu: "Xeon".into(),
            cores: 2,
            store_file_system: "ext4".into(),
            kiln: "0.1.0".into(),
        },
        inputs: [("/nix/store/3w0l3xyz-env".to_string(), NarHash::new(Digest::of("env")))].into(),
        substituted: BTreeMap::new(),
        started,
        seconds: Duration::from_millis(4250),
        log: Some(Log { sha256: Digest::of("log"), bytes: 3 }),
        failure: None,
    }
}

/// The same build under other conditions, with another result.
pub(crate) fn varied() -> Outcome {
    let plan = plan();
    let started = Moment::from_unix(1_795_310_934);
    let control = control();
    let before = control.conditions.as_ref().and_then(|ran| ran.observed.clone()).unwrap();
    let after = observed(&plan.varied, started.unix());
    let effects = Some(Effects::of(&plan, &before, &after));
    Outcome {
        outputs: [("out".parse().unwrap(), output("another-hostname"))].into(),
        conditions: Some(Ran { settings: plan.varied, observed: Some(after), effects }),
        started,
        ..control
    }
}

/// A build that said no.
pub(crate) fn failed() -> Outcome {
    Outcome {
        status: Status::Failed,
        limit: Some(Limit::LogBytes),
        outputs: BTreeMap::new(),
        failure: Some(Failure {
            message: "the log reached its limit of 100 MB".into(),
            exit: None,
            signal: Some(9),
            log_tail: "y\ny\n".into(),
        }),
        ..control()
    }
}
