//! Reports for tests, as `check` and `rebuild` would make them.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;
use std::time::Duration;

use kiln_model::digest::{Digest, NarHash};
use kiln_model::outcome::{
    Entry, EntryPath, Failure, Host, Limit, Log, Manifest, Moment, Outcome, Output, Ran, Status,
};
use kiln_model::report::{About, Differences, Report};
use kiln_model::variation::observed::{Effects, Observed};
use kiln_model::variation::{Aslr, Conditions, Fixed, Kernel, Means, Plan};
use kiln_model::verdict::{Identity, Reference, Subject};

use crate::diff::{self, Bounds, Tree};

const START: u64 = 1_795_310_874;

fn plan() -> Plan {
    let two = NonZeroU32::new(2).unwrap();
    let means = Means { cpus: two, store_fs: "ext4".into(), locales: BTreeSet::new(), unix_time: START };
    Plan::new(Conditions::control(two), &Fixed::new(["HOME"]), &BTreeSet::new(), &means)
}

fn observed(c: &Conditions, start: u64) -> Observed {
    let mut env = c.noise.clone();
    env.insert(
        "PATH".into(),
        format!("/usr/bin{}", c.path_suffix.as_deref().map(|s| format!(":{s}")).unwrap_or_default()),
    );
    env.insert("NIX_BUILD_CORES".into(), c.cores.to_string());
    env.extend(c.time_zone.iter().map(|tz| ("TZ".to_string(), tz.clone())));
    Observed {
        cwd: Some(c.build_dir.clone()),
        hostname: Some(c.hostname.clone()),
        domain: Some(c.domain.clone()),
        user_name: Some(c.user_name.clone()),
        uid: Some(c.uid),
        gid: Some(c.gid),
        umask: Some(c.umask),
        cpus: Some(c.cpus.map_or(2, NonZeroU32::get)),
        file_system: Some(c.setting(kiln_model::variation::Factor::FileSystem)),
        pid: None,
        personality: Some(if c.aslr == Aslr::Off { 0x0004_0000 } else { 0 }),
        kernel: Some(if c.kernel == Kernel::Native { "6.18.0" } else { "2.6.78" }.into()),
        unix_time: Some(start),
        env: Some(env),
    }
}

type Files = BTreeMap<&'static str, Vec<u8>>;

fn outcome(files: &Files, conditions: &Conditions, effects: Option<Effects>, start: u64) -> Outcome {
    let mut entries = BTreeMap::from([(EntryPath::default(), Entry::Directory)]);
    let mut all = Vec::new();
    for (path, content) in files {
        let entry = Entry::File { executable: false, size: content.len() as u64, sha256: Digest::of(content) };
        for (at, _) in path.match_indices('/') {
            entries.insert(EntryPath::from(&path[..at]), Entry::Directory);
        }
        entries.insert(EntryPath::from(*path), entry);
        all.extend_from_slice(content);
    }
    let output = Output {
        path: "/nix/store/0c0v54xhd6jl5d6rmbpbhqa9r1zyl5v7-hello-2.10".into(),
        nar_hash: NarHash::new(Digest::of(&all)),
        nar_size: all.len() as u64 + 400,
        manifest: Manifest::new(entries).expect("each file has its directories"),
    };
    let held = [
        ("namespaces", serde_json::json!(["user", "pid", "mount", "ipc", "uts", "net", "cgroup"])),
        ("network", serde_json::json!("none")),
        ("seccomp", serde_json::json!("build")),
        ("landlock", serde_json::json!(6)),
    ];
    Outcome {
        schema: (),
        status: Status::Built,
        limit: None,
        cached: false,
        derivation: "/nix/store/jp5rz6r3yr7zl6rhs4wyg1vnhbcr3ncn-hello-2.10.drv".into(),
        outputs: [("out".parse().unwrap(), output)].into(),
        artifacts: BTreeMap::new(),
        isolation: held.map(|(k, v)| (k.to_string(), v)).into(),
        conditions: Some(Ran { observed: Some(observed(conditions, start)), settings: conditions.clone(), effects }),
        host: Host {
            kernel: "Linux 6.18.0 #1 SMP PREEMPT_DYNAMIC".into(),
            machine: "x86_64".into(),
            cpu: "Intel Xeon Processor @ 2.30GHz".into(),
            cores: 2,
            store_file_system: "ext4".into(),
            kiln: "0.1.0".into(),
        },
        inputs: [
            ("/nix/store/1hzkvg3zqlbcrmzl4a5d0k9ww6yq1r7d-environment".to_string(), NarHash::new(Digest::of("env"))),
            ("/nix/store/7wk6iy3rgcqfbvjyhmjfv8g6zlk8dspn-hello_2.10".to_string(), NarHash::new(Digest::of("src"))),
        ]
        .into(),
        started: Moment::from_unix(start),
        seconds: Duration::from_millis(4250),
        log: Some(Log { sha256: Digest::of("log"), bytes: 48_211 }),
        failure: None,
    }
}

fn about() -> About {
    About {
        title: "hello 2.10".into(),
        recipe: Some("recipes/hello/recipe.toml".into()),
        derivation: Some("/nix/store/jp5rz6r3yr7zl6rhs4wyg1vnhbcr3ncn-hello-2.10.drv".into()),
        origin: None,
    }
}

fn control_files() -> Files {
    let stamp = u32::try_from(START + 3).unwrap();
    let gzip =
        [&[0x1f, 0x8b, 8, 8], &stamp.to_le_bytes()[..], b"\x02\x03changelog\0\xcb\x48\xcd\xc9\xc9\x07\x00"].concat();
    [
        ("bin/hello", b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0/build/hello-2.10/src/hello.c\0GNU C17 12.2.0\0".to_vec()),
        ("share/doc/hello/build-info", b"Built by nixbld on localhost\n".to_vec()),
        ("share/doc/hello/changelog.gz", gzip),
        ("share/doc/hello/readme", b"Hello.\n".to_vec()),
    ]
    .into()
}

fn varied_files() -> Files {
    let stamp = u32::try_from(START + 65).unwrap();
    let gzip =
        [&[0x1f, 0x8b, 8, 8], &stamp.to_le_bytes()[..], b"\x02\x03changelog\0\xcb\x48\xcd\xc9\xc9\x07\x00"].concat();
    let elf = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0/build/another/much-longer-path/hello-2.10/src/hello.c\0GNU C17 12.2.0\0";
    let mut files = control_files();
    files.insert("bin/hello", elf.to_vec());
    files.insert("share/doc/hello/build-info", b"Built by another-user on another-hostname\n".to_vec());
    files.insert("share/doc/hello/changelog.gz", gzip);
    files.insert("share/doc/hello/<script>alert(1)</script>\u{202e}\x1b[31m", b"boo".to_vec());
    files
}

fn pair(first: &Files, second: &Files) -> [Outcome; 2] {
    let plan = plan();
    let effects = Effects::of(&plan, &observed(&plan.control, START), &observed(&plan.varied, START + 61));
    [outcome(first, &plan.control, None, START), outcome(second, &plan.varied, Some(effects), START + 61)]
}

/// Two builds with the same bytes.
pub(super) fn reproduced() -> Report {
    let outcomes = pair(&control_files(), &control_files());
    Report::of(about(), outcomes.into(), &Reference::None, Differences::default())
}

/// Two builds with other bytes in three files, and a fourth that only one has.
pub(super) fn diverged() -> Report {
    let dir = tempfile::tempdir().unwrap();
    let trees = [("one", control_files()), ("two", varied_files())].map(|(name, files)| {
        let root = dir.path().join(name);
        for (path, content) in &files {
            let path = root.join(path.replace("</script>", "<|script>"));
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, content).unwrap();
        }
        (root, files)
    });
    let outcomes = pair(&trees[0].1, &trees[1].1);
    let mut differences = Differences::default();
    let tree = |i: usize| Tree {
        manifest: &outcomes[i].outputs.values().next().unwrap().manifest,
        path: Some(&trees[i].0),
        outcome: i,
    };
    diff::trees(&"out".parse().unwrap(), tree(0), tree(1), Bounds::default(), &mut differences).unwrap();
    differences.differences_left_out = 3;
    Report::of(about(), outcomes.into(), &Reference::None, differences)
}

/// A build that said no, with a hostile log.
pub(super) fn failed() -> Report {
    let [control, varied] = pair(&control_files(), &control_files());
    let failure = |message: &str, log_tail: &str| Failure {
        message: message.into(),
        exit: Some(2),
        signal: None,
        log_tail: log_tail.into(),
    };
    let log = "checking for gcc... no\n\x1b]0;owned\x07configure: error: <b>no acceptable C compiler</b> found in $PATH\n\tsee `config.log'\n";
    let outcomes = vec![
        Outcome {
            status: Status::Failed,
            outputs: BTreeMap::new(),
            failure: Some(failure("the script ended with exit status 2", log)),
            ..control
        },
        Outcome {
            status: Status::Failed,
            limit: Some(Limit::Memory),
            outputs: BTreeMap::new(),
            failure: Some(failure("the build reached its limit of 2 GiB of memory", "")),
            ..varied
        },
    ];
    Report::of(about(), outcomes, &Reference::None, Differences::default())
}

/// Two builds that agree, against something else that was published.
pub(super) fn upstream_differs() -> Report {
    let published = [(Subject::Output("out".into()), Identity { exact: Digest::of("theirs"), normalised: None })];
    let about = About { origin: Some("debian:hello=2.10-3".into()), ..about() };
    let outcomes = pair(&control_files(), &control_files());
    Report::of(about, outcomes.into(), &Reference::Published(published.into()), Differences::default())
}
