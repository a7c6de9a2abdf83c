//! What a request becomes, and what is refused.

use super::*;

fn request(mounts: Vec<Mount>) -> Request {
    Request { mounts, ..Request::new(vec!["/probe".into()]) }
}

fn host(target: &str) -> Mount {
    Mount { target: target.into(), what: What::Host(env!("CARGO_MANIFEST_DIR").into()) }
}

#[track_caller]
fn refused(request: &Request) -> String {
    let error = request.spec(Path::new("/")).unwrap_err();
    assert_eq!(error.kind(), crate::exit::Kind::BadInput, "{error}");
    error.to_string()
}

#[test]
fn targets_are_absolute_lead_nowhere_back_and_are_used_once() {
    for target in ["relative", "/a/../b", "", "/a/.."] {
        assert!(refused(&request(vec![host(target)])).contains("expected an absolute path"), "{target:?}");
    }
    assert!(refused(&request(vec![host("/a"), host("/a/")])).contains("two mounts at /a"));
    assert!(refused(&request(vec![host("/"), host("/")])).contains("two mounts at /"));
    let many = (0..=MOST_MOUNTS).map(|number| host(&format!("/{number}"))).collect();
    assert!(refused(&request(many)).contains("10001 mounts are more than"));
    assert!(refused(&request(vec![host("/proc/x")])).contains("the sandbox's own"));
    assert!(refused(&request(vec![host("/dev")])).contains("the sandbox's own"));
}

#[test]
fn a_source_must_be_there_and_what_is_written_to_must_be_a_directory() {
    let missing = Mount { target: "/a".into(), what: What::Host("/no/such/input".into()) };
    assert!(refused(&request(vec![missing])).contains("/no/such/input"));
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
    let file = Mount { target: "/a".into(), what: What::Writable(file.into()) };
    assert!(refused(&request(vec![file])).contains("is not a directory"));
}

#[test]
fn a_variable_has_a_name_without_equals_sign_and_no_nul() {
    for (name, value) in [("", "x"), ("a=b", "x"), ("a\0", "x"), ("a", "x\0y")] {
        let mut request = request(vec![]);
        request.env.insert(name.into(), value.into());
        assert!(refused(&request).contains("variable"), "{name:?}");
    }
    let mut request = request(vec![]);
    request.command = vec!["/probe".into(), "a\0b".into()];
    assert!(refused(&request).contains("NUL"));
}

#[test]
fn a_command_that_is_not_inside_is_told_with_what_to_add() {
    let told = refused(&Request::new(vec!["true".into()]));
    assert!(told.contains("true is not in the sandbox's root, which is empty: add --host-root"), "{told}");
    let told = refused(&Request { mounts: vec![host("/src")], ..Request::new(vec!["true".into()]) });
    assert!(told.contains("--ro-bind SRC DEST, or set PATH"), "{told}");
    let told = refused(&Request { mounts: vec![host("/src")], ..Request::new(vec!["/src/Cargo.toml".into()]) });
    assert!(told.contains("/src/Cargo.toml in the sandbox is not an executable file"), "{told}");
}

#[test]
fn a_root_must_have_the_places_of_the_sandbox_s_own_and_cannot_be_memory() {
    let root = tempfile::tempdir().unwrap();
    std::fs::create_dir(root.path().join("dev")).unwrap();
    std::fs::write(root.path().join("probe"), "").unwrap();
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(root.path().join("probe"), std::fs::Permissions::from_mode(0o755)).unwrap();
    let mut asked = request(vec![Mount { target: "/".into(), what: What::Host(root.path().into()) }]);
    assert!(refused(&asked).contains("it has no directory proc"));
    asked.proc_mode = ProcMode::None;
    let spec = asked.spec(Path::new("/")).unwrap();
    assert_eq!(spec.root, Root::Tree(root.path().into()));
    // Nothing is laid over what is not there, and no /tmp is put where none can be.
    assert!(spec.surface.etc.is_empty());
    assert_eq!(spec.tmpfs.iter().map(|t| t.target.display().to_string()).collect::<Vec<_>>(), ["/dev/shm"]);
    let processes = Request {
        proc_mode: ProcMode::None,
        ..request(vec![Mount { target: "/".into(), what: What::Host("/".into()) }])
    };
    let processes = Request { command: vec!["/proc/self/exe".into()], ..processes };
    assert!(refused(&processes).contains("/proc shows the host's processes"));
    asked.ids = Ids::FakeRoot;
    assert!(refused(&asked).contains("--fake-root needs /proc"));
    let memory = Mount { target: "/".into(), what: What::Memory(1) };
    assert!(!refused(&request(vec![memory])).is_empty());
}

#[test]
fn what_the_caller_mounts_replaces_the_sandbox_s_own_and_nothing_is_written_into_it() {
    let private = tempfile::tempdir().unwrap();
    let mut asked = request(vec![
        host("/etc"),
        Mount { target: "/tmp".into(), what: What::Memory(4096) },
        Mount { target: "/bin".into(), what: What::Link("usr/bin".into()) },
    ]);
    asked.command = vec!["/proc/self/exe".into()];
    let spec = asked.spec(private.path()).unwrap();
    assert!(spec.surface.etc.is_empty(), "the caller's /etc stays as it is");
    let tmp: Vec<u64> = spec.tmpfs.iter().filter(|t| t.target == Path::new("/tmp")).map(|t| t.size).collect();
    assert_eq!(tmp, [4096]);
    let link = spec.inputs.iter().find(|input| input.target == Path::new("/bin")).unwrap();
    assert_eq!(std::fs::read_link(&link.source).unwrap(), Path::new("usr/bin"));
    assert_eq!(spec.process.env, [OsString::from(format!("PATH={PATH}"))]);
}
