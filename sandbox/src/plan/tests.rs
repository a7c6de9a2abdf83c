//! Plans as the lines that people read, and specs that make none.

use super::*;
use crate::spec::{Filter, Input, Tmpfs, Writable};

fn host(caller: Caller) -> Host {
    Host {
        caller,
        kernel: "6.18.0".into(),
        lacks: Vec::new(),
        proc: ProcMount::Possible,
        time_namespace: TimeNamespace::Possible,
        control_groups: ControlGroups::Absent { why: "none".into(), remedy: "be root".into() },
        landlock_abi: 7,
        cpus: 2,
        cpuinfo: "processor: 0\n\nprocessor: 1\n\n".into(),
    }
}

fn build() -> Spec {
    let mut spec = Spec::new("/nix/store/b-tool/bin/tool");
    spec.inputs = vec![Input { source: "/s/b-tool".into(), target: "/nix/store/b-tool".into() }];
    spec.writable = vec![
        Writable { source: "/w/build".into(), target: "/build".into() },
        Writable { source: "/w/store".into(), target: "/nix/store".into() },
    ];
    spec.process.cwd = "/build".into();
    spec.process.env = vec!["A=1".into()];
    spec
}

#[track_caller]
fn refused(spec: &Spec, host: &Host, words: &str) {
    let PlanError::Host(refusal) = plan(spec, host).expect_err("it must be refused") else { panic!("not the spec") };
    assert!(refusal.to_string().contains(words), "{refusal}");
    assert!(!refusal.remedy.is_empty());
}

#[test]
fn a_user_s_build_on_an_empty_root_is_these_steps() {
    insta::assert_snapshot!(plan(&build(), &host(Caller::User)).expect("possible"));
}

#[test]
fn root_s_build_with_every_factor_on_a_tree_is_these_steps() {
    let mut spec = build();
    spec.root = Root::Tree("/env".into());
    spec.process.affinity = Some(vec![1]);
    spec.process.first_pid = Some(5001);
    spec.process.personality = Kernel::Uname26;
    spec.process.aslr = Aslr::Random;
    spec.process.umask = 0o077;
    spec.proc_mode = ProcMode::Strict;
    spec.limits.cpu = Some(60);
    spec.time_offsets = None;
    insta::assert_snapshot!(plan(&spec, &host(Caller::Root)).expect("possible"));
}

#[test]
fn a_fake_root_allows_one_more_user_namespace_and_uses_it_up() {
    let mut spec = build();
    spec.root = Root::WritableTree("/env".into());
    (spec.filter, spec.ids) = (Filter::FakeRoot, Ids::FakeRoot);
    let text = plan(&spec, &host(Caller::User)).expect("possible").to_string();
    for line in
        ["further user namespaces 1", "lock mounts, 1000:100 is 0:0", "landlock, writable /\n", "root source 0 rw"]
    {
        assert!(text.contains(line), "{line} in\n{text}");
    }
}

#[test]
fn in_every_plan_both_processes_have_dropped_everything_before_the_payload_goes_on() {
    let mut fake_root = build();
    fake_root.root = Root::WritableTree("/env".into());
    (fake_root.filter, fake_root.ids) = (Filter::FakeRoot, Ids::FakeRoot);
    let mut watched = build();
    watched.watched = [257].into();
    let mut online = build();
    online.network = Network::Host;
    let mut ranged = build();
    ranged.ids = Ids::Range;
    for (caller, spec) in [Caller::User, Caller::Root]
        .into_iter()
        .flat_map(|c| [&build(), &fake_root, &watched, &online, &ranged].map(|s| (c, s.clone())))
    {
        let steps = plan(&spec, &host(caller)).expect("possible").steps;
        let at = |wanted: fn(&Step) -> bool| steps.iter().position(wanted).expect("in the plan");
        let (fork, reap) = (at(|step| matches!(step, Step::Fork)), at(|step| matches!(step, Step::Reap { .. })));
        let (disarm, awaited) =
            (at(|step| matches!(step, Step::Disarm { .. })), at(|step| matches!(step, Step::Await)));
        let filter = at(|step| matches!(step, Step::Filter { .. }));
        assert!(at(|step| matches!(step, Step::Nesting { .. })) < at(|step| matches!(step, Step::Pivot)));
        assert!(at(|step| matches!(step, Step::Seal)) < at(|step| matches!(step, Step::Pivot)));
        let unmount = at(|step| matches!(step, Step::Unmount));
        assert!(at(|step| matches!(step, Step::Pivot)) < unmount && unmount < reap, "{spec:?}");
        assert_eq!(at(|step| matches!(step, Step::Drop { .. })) + 1, reap);
        assert!(at(|step| matches!(step, Step::Become { .. })) < fork && reap < awaited, "{spec:?}");
        assert!(disarm < awaited && disarm < filter, "{spec:?}");
        assert!(matches!(steps[..], [.., Step::Execute { .. }]));
        match spec.network {
            Network::None => {
                let (made, joined) = (at(|step| matches!(step, Step::Network)), at(|step| matches!(step, Step::Join)));
                assert!(made < disarm && joined < reap - 1);
            }
            Network::Host => assert!(!steps.iter().any(|step| matches!(step, Step::Network | Step::Join))),
        }
        // In the new root before the host's is gone, but never the program, and never to lock mounts of which that is one.
        match steps.iter().position(|step| matches!(step, Step::AwaitRoot)) {
            Some(root) => {
                assert_eq!(at(|step| matches!(step, Step::Admit)) + 1, unmount);
                assert!(root < awaited && awaited + 2 == steps.len(), "{spec:?}");
            }
            None => {
                assert!(!steps.iter().any(|step| matches!(step, Step::Admit)), "{spec:?}");
                let lock = steps.iter().position(|step| matches!(step, Step::Lock { .. } | Step::Door { .. }));
                assert!(lock.is_some_and(|lock| awaited < lock), "{spec:?}");
            }
        }
        if let Some(door) = steps.iter().position(|step| matches!(step, Step::Door { .. })) {
            assert_eq!(filter, door + 1, "a watched call must not stop what comes before the program");
        }
    }
}

#[test]
fn what_can_be_done_ahead_needs_no_source_but_the_root_and_ends_before_anything_is_let_go() {
    let mut on_a_tree = build();
    on_a_tree.root = Root::Tree("/env".into());
    let mut fake_root = build();
    fake_root.root = Root::WritableTree("/env".into());
    (fake_root.filter, fake_root.ids) = (Filter::FakeRoot, Ids::FakeRoot);
    for mut spec in [build(), on_a_tree, fake_root] {
        spec.time_offsets = None;
        let plan = plan(&spec, &host(Caller::Root)).expect("possible");
        let ahead = plan.ahead.expect("it can be begun");
        let (first, rest) = plan.steps.split_at(ahead.steps);
        assert!(first.iter().filter_map(Step::source).all(|source| (source as usize) < ahead.sources), "{plan}");
        assert!(rest.iter().all(|step| !matches!(step, Step::Clone | Step::Become { .. } | Step::Fork)), "{plan}");
        let of_rest = |step: &Step| {
            matches!(step, Step::Pivot | Step::Admit | Step::Drop { .. } | Step::Reap { .. } | Step::Await)
        };
        assert!(!first.iter().any(of_rest), "{plan}");
    }
}

#[test]
fn a_file_system_in_memory_below_an_input_waits_for_it_and_so_do_files_of_etc() {
    let mut spec = build();
    spec.inputs.push(Input { source: "/s".into(), target: "/etc".into() });
    spec.tmpfs.push(Tmpfs::scratch("/nix/store/b-tool/tmp"));
    let text = plan(&spec, &host(Caller::User)).expect("possible").to_string();
    let line = |wanted: &str| text.lines().position(|line| line.contains(wanted)).expect(wanted);
    assert!(line("bind nix/store/b-tool ") < line("tmpfs nix/store/b-tool/tmp "), "{text}");
    assert!(line("bind etc ") < line("file etc/passwd "), "{text}");
    assert!(line("tmpfs tmp ") < line("bind build "), "{text}");
}

#[test]
fn what_the_host_lacks_is_refused_and_never_left_out() {
    let mut lacking = host(Caller::User);
    lacking.lacks = vec![Refusal { missing: "user namespaces".into(), why: "off".into(), remedy: "on".into() }];
    refused(&build(), &lacking, "user namespaces");
    let mut container = host(Caller::User);
    container.proc = ProcMount::Covered("/proc/kcore".into());
    refused(&build(), &container, "/proc/kcore");
    let mut no_proc = build();
    no_proc.proc_mode = ProcMode::None;
    assert!(plan(&no_proc, &container).is_ok());
    let mut old = host(Caller::User);
    old.time_namespace = TimeNamespace::Absent;
    refused(&build(), &old, "time namespaces");
    let mut bounded = build();
    bounded.limits.memory_total = Some(1 << 30);
    refused(&bounded, &host(Caller::Root), "total memory");
}

#[test]
fn a_range_of_ids_is_mapped_by_kiln_and_its_root_keeps_rights_over_it_alone() {
    let mut spec = build();
    spec.ids = Ids::Range;
    for caller in [Caller::User, Caller::Root] {
        let text = plan(&spec, &host(caller)).expect("possible").to_string();
        for line in [
            "launcher map 0 to 65535, by kiln",
            "init     become 0:0",
            "init     drop all but signals to own",
            "payload  disarm, all but rights over own",
        ] {
            assert!(text.contains(line), "{line} in\n{text}");
        }
        assert!(text.contains("further user namespaces 0") && !text.contains("lock mounts"), "{text}");
    }
}

#[test]
fn what_a_group_counts_the_user_s_own_limit_never_answers_first() {
    let legacy = ControlGroups::Legacy { memory: "/g/m".into(), pids: "/g/p".into(), cpuacct: "/g/c".into() };
    let mut spec = build();
    spec.limits.processes = Some(200);
    for (groups, memory, own, counted) in [
        (legacy.clone(), Some(1 << 30), 400, Some(200)),
        (legacy, None, 200, None),
        (host(Caller::Root).control_groups, None, 200, None),
    ] {
        spec.limits.memory_total = memory;
        let plan = plan(&spec, &Host { control_groups: groups, ..host(Caller::Root) }).expect("possible");
        let steps = plan.to_string();
        assert_eq!(plan.group.and_then(|group| group.processes), counted);
        assert!(steps.contains(&format!("Processes={own} ")), "{steps}");
    }
}
