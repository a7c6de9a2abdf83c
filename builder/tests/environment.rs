//! Environments from packages made here, good and bad: what is unpacked, recorded, normalised, and refused by name.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::io::{Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use kiln::environment::{Assembler, Call, Deb, DebError, EnvironmentError, Inside, Kept, Package};
use kiln_model::digest::Digest;
use kiln_model::lock::{Layer, LockedPackage};

/// A tar header and the padded body, with no check of the name.
fn entry(name: &[u8], kind: u8, mode: u32, link: &[u8], body: &[u8]) -> Vec<u8> {
    let mut header = tar::Header::new_gnu();
    let raw = header.as_mut_bytes();
    raw[..name.len()].copy_from_slice(name);
    raw[157..157 + link.len()].copy_from_slice(link);
    header.set_mode(mode);
    header.set_size(body.len() as u64);
    header.set_entry_type(tar::EntryType::new(kind));
    header.set_cksum();
    let mut bytes = header.as_bytes().to_vec();
    bytes.extend_from_slice(body);
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes
}

fn directory(name: &str) -> Vec<u8> {
    entry(name.as_bytes(), b'5', 0o755, b"", b"")
}

fn file(name: &str, body: &str) -> Vec<u8> {
    entry(name.as_bytes(), b'0', 0o644, b"", body.as_bytes())
}

fn link(name: &str, target: &str) -> Vec<u8> {
    entry(name.as_bytes(), b'2', 0o777, target.as_bytes(), b"")
}

fn archive(entries: &[Vec<u8>]) -> Vec<u8> {
    [entries.concat(), vec![0; 1024]].concat()
}

fn xz(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = liblzma::write::XzEncoder::new(Vec::new(), 0);
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn ar(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut bytes = b"!<arch>\n".to_vec();
    for (name, body) in members {
        bytes.extend(format!("{name:<16}{:<12}{:<6}{:<6}{:<8}{:<10}`\n", 0, 0, 0, 100644, body.len()).bytes());
        bytes.extend_from_slice(body);
        bytes.resize(bytes.len().next_multiple_of(2), b'\n');
    }
    bytes
}

fn control(name: &str, more: &str) -> String {
    format!("Package: {name}\nVersion: 1\nArchitecture: amd64\n{more}Description: x\n")
}

fn deb(control: &[Vec<u8>], data: &[Vec<u8>]) -> Vec<u8> {
    let (control, data) = (xz(&archive(control)), xz(&archive(data)));
    ar(&[("debian-binary", b"2.0\n"), ("control.tar.xz", &control), ("data.tar.xz", &data)])
}

/// Notes what would have been run: a tree without `dpkg` in it can run nothing.
#[derive(Default)]
struct Noted(Mutex<Vec<Call>>);

/// What `dpkg --configure` does to its database.
fn configured(tree: &Path) {
    let status = tree.join("var/lib/dpkg/status");
    let text = std::fs::read_to_string(&status).unwrap();
    std::fs::write(&status, text.replace("install ok unpacked", "install ok installed")).unwrap();
}

impl Inside for Noted {
    fn run(&self, tree: &Path, calls: &[Call]) -> Result<(), EnvironmentError> {
        configured(tree);
        self.0.lock().unwrap().extend_from_slice(calls);
        Ok(())
    }
}

struct Scene {
    scratch: tempfile::TempDir,
    packages: Vec<(LockedPackage, PathBuf)>,
    noted: Noted,
}

impl Scene {
    fn new() -> Self {
        Self { scratch: tempfile::tempdir().unwrap(), packages: Vec::new(), noted: Noted::default() }
    }

    fn write(&mut self, name: &str, layer: Layer, bytes: &[u8]) -> &mut Self {
        let path = self.scratch.path().join(format!("{name}.deb"));
        std::fs::write(&path, bytes).unwrap();
        let locked = LockedPackage {
            name: name.into(),
            arch: "amd64".into(),
            version: "1".into(),
            layer,
            archive: "debian".into(),
            path: String::new(),
            size: bytes.len() as u64,
            sha256: Digest::of(bytes),
        };
        self.packages.push((locked, path));
        self
    }

    fn package(&mut self, name: &str, more: &str, data: &[Vec<u8>]) -> &mut Self {
        let bytes = deb(&[file("./control", &control(name, more))], data);
        self.write(name, Layer::Base, &bytes)
    }

    fn delta(&mut self, name: &str, more: &str, data: &[Vec<u8>]) -> &mut Self {
        let bytes = deb(&[file("./control", &control(name, more))], data);
        self.write(name, Layer::Delta, &bytes)
    }

    fn of(&self, layer: Layer) -> Vec<Package<'_>> {
        let of = self.packages.iter().filter(|(locked, _)| locked.layer == layer);
        of.map(|(locked, file)| Package { locked, file: file.clone() }).collect()
    }

    fn assembler(&self) -> Assembler<'_> {
        Assembler { inside: &self.noted, epoch: 1_000_000_000, kept: None }
    }

    fn base(&self) -> Result<PathBuf, EnvironmentError> {
        let into = self.scratch.path().join("base");
        self.assembler().base(&self.of(Layer::Base), &into).map(|()| into)
    }

    fn both(&self) -> Result<PathBuf, EnvironmentError> {
        let base = self.base()?;
        let into = self.scratch.path().join("delta");
        self.assembler().delta(&base, &self.of(Layer::Delta), &into).map(|()| into)
    }
}

fn read(tree: &Path, path: &str) -> String {
    std::fs::read_to_string(tree.join(path)).unwrap()
}

fn whole_text(error: &EnvironmentError) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}

fn refused(data: &[Vec<u8>]) -> String {
    let mut scene = Scene::new();
    let error = scene.package("bad", "", data).base().unwrap_err();
    assert!(!scene.scratch.path().join("base").exists(), "a half-made tree was left");
    whole_text(&error)
}

#[test]
fn entries_that_leave_the_tree_or_are_no_files_are_refused_by_name() {
    for (entries, name, why) in [
        (vec![file("/etc/passwd", "x")], "/etc/passwd", "absolute"),
        (vec![file("./../etc/passwd", "x")], "../etc/passwd", ".."),
        (vec![file("./a/../../x", "x")], "a/../../x", ".."),
        (vec![link("./out", "/"), file("./out/x", "x")], "/out/x", "unpacking"),
        (vec![link("./out", ".."), directory("./out/d/")], "/out/d", "unpacking"),
        (vec![entry(b"./h", b'1', 0o644, b"../../etc/passwd", b"")], "./h", "hard link"),
        (vec![entry(b"./h", b'1', 0o644, b"/etc/passwd", b"")], "./h", "hard link"),
        (vec![entry(b"./h", b'1', 0o644, b"./etc/shadow", b"")], "/h", "hard link"),
        (vec![entry(b"./dev", b'3', 0o644, b"", b"")], "./dev", "device"),
        (vec![entry(b"./pipe", b'6', 0o644, b"", b"")], "./pipe", "pipe"),
        (vec![entry(b"./sparse", b'S', 0o644, b"", b"")], "./sparse", "sparse"),
        (vec![entry(b"./pax", b'x', 0o644, b"", b"13 size=1000\n")], "./pax", "PAX"),
        (vec![entry(b"./line\nbreak", b'0', 0o644, b"", b"")], "line", "line break"),
        (vec![entry(b"./dir", b'5', 0o755, b"", b"x")], "./dir", "bytes"),
        (vec![link("./empty", "")], "./empty", "target"),
    ] {
        let text = refused(&entries);
        assert!(text.contains(name) && text.contains(why), "{name}, {why}: {text}");
    }
}

#[test]
fn paths_that_are_too_deep_are_refused() {
    let deep = "d/".repeat(100);
    let text = refused(&[entry(b"././@LongLink", b'L', 0o644, b"", deep.as_bytes()), directory("short")]);
    assert!(text.contains("deeper than"), "{text}");
}

#[test]
fn names_beyond_the_header_are_read() {
    let name = format!("./usr/{}", "n".repeat(200));
    let mut scene = Scene::new();
    let long = entry(b"././@LongLink", b'L', 0o644, b"", name.as_bytes());
    let target = entry(b"././@LongLink", b'K', 0o644, b"", "t".repeat(150).as_bytes());
    scene.package("long", "", &[long.clone(), target, link("short", "short")]);
    let tree = scene.base().unwrap();
    assert_eq!(std::fs::read_link(tree.join(name)).unwrap(), Path::new(&"t".repeat(150)));
}

#[test]
fn a_package_cut_short_anywhere_is_refused_when_opened() {
    let whole = deb(&[file("./control", &control("cut", ""))], &[file("./a", &"x".repeat(4000))]);
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("cut.deb");
    // A padding byte at the very end may be missing.
    for length in (0..whole.len() - 1).step_by(7) {
        std::fs::write(&path, &whole[..length]).unwrap();
        let result = Deb::open(&path);
        assert!(matches!(result, Err(DebError::Container { .. })), "{length} of {} bytes: {result:?}", whole.len());
    }
}

#[test]
fn a_sound_container_around_a_broken_archive_is_refused() {
    let control_tar = xz(&archive(&[file("./control", &control("cut", ""))]));
    let data = archive(&[file("./a", &"x".repeat(4000))]);
    let packed = xz(&data);
    let longer = [packed.as_slice(), b"more"].concat();
    let trailing = [data.as_slice(), b"more"].concat();
    for (name, bytes) in [
        ("data.tar.xz", &packed[..packed.len() - 9]),
        ("data.tar.xz", &longer),
        ("data.tar", &data[..1024]),
        ("data.tar", &data[..data.len() - 1024]),
        ("data.tar", &data[..data.len() - 512]),
        ("data.tar", &trailing),
        ("data.tar.gz", &data),
        ("data.tar.zst", &data),
        ("data.tar.bz2", &data),
    ] {
        let mut scene = Scene::new();
        let whole = ar(&[("debian-binary", b"2.0\n"), ("control.tar.xz", &control_tar), (name, bytes)]);
        let error = scene.write("cut", Layer::Base, &whole).base().unwrap_err();
        let known = matches!(error, EnvironmentError::Deb(DebError::Decode { .. }) | EnvironmentError::Unpack { .. });
        assert!(known, "{name} of {} bytes: {error}", bytes.len());
    }
}

#[test]
fn members_out_of_place_are_refused() {
    let control_tar = xz(&archive(&[file("./control", &control("odd", ""))]));
    let data_tar = xz(&archive(&[]));
    let debian = ("debian-binary", b"2.0\n".as_slice());
    let (control, data) = (("control.tar.xz", control_tar.as_slice()), ("data.tar.xz", data_tar.as_slice()));
    let odd = ("odd", b"x".as_slice());
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("odd.deb");
    let open = |members: &[(&str, &[u8])]| {
        std::fs::write(&path, ar(members)).unwrap();
        Deb::open(&path)
    };
    assert!(open(&[debian, control, data]).is_ok());
    assert!(open(&[debian, ("_extra", b"x"), control, data, ("_gpgorigin", b"x")]).is_ok());
    assert!(open(&[debian, data, control]).is_err());
    assert!(open(&[debian, odd, control, data]).is_err());
    assert!(open(&[debian, control, data, odd]).is_err());
    assert!(open(&[debian, control, ("data.tar.lz", b"x")]).is_err());
    assert!(open(&[debian, control]).is_err());
    assert!(open(&[("debian-binary", b"3.0\n"), control, data]).is_err());
    assert!(open(&[debian, ("a/b", b"x"), control, data]).is_err());
    for size in [b"-1        ", b"9999999999", b"1 1       "] {
        let mut bytes = ar(&[debian, control, data]);
        bytes[8 + 48..8 + 58].copy_from_slice(size);
        std::fs::write(&path, bytes).unwrap();
        assert!(Deb::open(&path).is_err(), "{:?}", String::from_utf8_lossy(size));
    }
}

#[test]
fn a_copy_that_cannot_be_written_is_the_hosts_fault_wherever_that_begins() {
    /// Takes so many bytes.
    struct Full(usize);
    impl std::io::Write for Full {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0 = self.0.checked_sub(bytes.len()).ok_or(std::io::ErrorKind::StorageFull)?;
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let bytes = deb(&[file("./control", &control("a", ""))], &[directory("./etc/"), file("./etc/x", "x")]);
    let path = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(path.path(), bytes).unwrap();
    let deb = Deb::open(path.path()).unwrap();
    let copied = |room| deb.entries::<DebError>(Some(&mut Full(room)), &mut |_, _| Ok(()));
    // Two headers, a block of text, two of zeros.
    for room in (0..5 * 512).step_by(256) {
        let error = copied(room).unwrap_err();
        assert!(matches!(error, DebError::Copy { .. }), "{room}: {error:?}");
        assert_eq!(EnvironmentError::from(error).kind(), kiln::exit::Kind::Host);
    }
    copied(1 << 20).unwrap();
}

#[test]
fn a_bomb_is_refused_before_it_fills_the_disk() {
    // 90 MiB of zeros in some 13 kB of xz: beyond 64 MiB and a thousandfold.
    let size = 90_u64 << 20;
    let mut header = tar::Header::new_gnu();
    header.set_path("bomb").unwrap();
    header.set_size(size);
    header.set_mode(0o644);
    header.set_cksum();
    let mut encoder = liblzma::write::XzEncoder::new(Vec::new(), 1);
    encoder.write_all(header.as_bytes()).unwrap();
    std::io::copy(&mut std::io::repeat(0).take(size + 1024), &mut encoder).unwrap();
    let data = encoder.finish().unwrap();
    let control_tar = xz(&archive(&[file("./control", &control("bomb", ""))]));
    let bytes = ar(&[("debian-binary", b"2.0\n"), ("control.tar.xz", &control_tar), ("data.tar.xz", &data)]);
    let mut scene = Scene::new();
    let text = whole_text(&scene.write("bomb", Layer::Base, &bytes).base().unwrap_err());
    assert!(text.contains("/bomb") && text.contains("expands"), "{text}");
}

#[test]
fn every_compression_gives_the_same_files() {
    let data = archive(&[directory("./usr/"), file("./usr/a", "a")]);
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    gzip.write_all(&data).unwrap();
    let mut bzip2 = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
    bzip2.write_all(&data).unwrap();
    for (suffix, bytes) in [
        ("", data.clone()),
        (".gz", gzip.finish().unwrap()),
        (".xz", xz(&data)),
        (".zst", zstd::encode_all(data.as_slice(), 1).unwrap()),
        (".bz2", bzip2.finish().unwrap()),
    ] {
        let control_tar = archive(&[file("./control", &control("a", ""))]);
        let name = format!("data.tar{suffix}");
        let whole = ar(&[("debian-binary", b"2.0\n"), ("control.tar", &control_tar), (&name, &bytes)]);
        let mut scene = Scene::new();
        let tree = scene.write("a", Layer::Base, &whole).base().unwrap();
        assert_eq!(read(&tree, "usr/a"), "a", "{name}");
    }
}

#[test]
fn two_packages_with_one_file_are_refused_and_both_are_named() {
    let mut scene = Scene::new();
    scene.package("one", "", &[file("./bin/x", "1")]).package("two", "", &[file("./usr/bin/x", "2")]);
    let text = scene.base().unwrap_err().to_string();
    assert!(text.contains("/usr/bin/x") && text.contains("one") && text.contains("two"), "{text}");
}

#[test]
fn a_file_and_a_directory_of_one_name_are_refused() {
    let mut scene = Scene::new();
    scene.package("one", "", &[directory("./etc/x/")]).package("two", "", &[file("./etc/x", "2")]);
    assert!(matches!(scene.base(), Err(EnvironmentError::Conflict { .. })));
}

#[test]
fn a_package_that_replaces_another_takes_its_file_and_its_line() {
    let mut scene = Scene::new();
    scene.package("loser", "", &[file("./usr/x", "loser"), file("./usr/y", "y")]).package(
        "winner",
        "Replaces: loser (<< 2)\n",
        &[file("./usr/x", "winner")],
    );
    let tree = scene.base().unwrap();
    assert_eq!(read(&tree, "usr/x"), "winner");
    assert_eq!(read(&tree, "var/lib/dpkg/info/loser.list"), "/usr/y\n");
    assert_eq!(read(&tree, "var/lib/dpkg/info/winner.list"), "/usr/x\n");
    let private = std::fs::read_dir(tree.join("usr")).unwrap().map(|entry| entry.unwrap().file_name());
    assert!(private.into_iter().all(|name| !name.to_string_lossy().starts_with('.')));
}

#[test]
fn a_delta_may_replace_but_not_overwrite_what_is_below() {
    let mut scene = Scene::new();
    scene.package("below", "", &[file("./etc/x", "below"), file("./etc/y", "y")]);
    scene.delta("above", "Replaces: below\n", &[directory("./etc/"), file("./etc/x", "above")]);
    let tree = scene.both().unwrap();
    assert_eq!(read(&tree, "etc/x"), "above");
    assert_eq!(read(&tree, "var/lib/dpkg/info/below.list"), "/etc/y\n");
    assert_eq!(read(&scene.scratch.path().join("base"), "etc/x"), "below");

    let mut scene = Scene::new();
    scene.package("below", "", &[file("./etc/x", "below")]).delta("above", "", &[file("./etc/x", "above")]);
    assert!(matches!(scene.both(), Err(EnvironmentError::Conflict { .. })));
}

#[test]
fn a_package_that_is_not_the_one_in_the_lock_is_refused() {
    let mut scene = Scene::new();
    let other = deb(&[file("./control", &control("other", ""))], &[]);
    let text = scene.write("named", Layer::Base, &other).base().unwrap_err().to_string();
    assert!(text.contains("field package") && text.contains("\"named\"") && text.contains("\"other\""), "{text}");
}

#[test]
fn the_database_is_what_dpkg_would_have_written() {
    let mut scene = Scene::new();
    let control_files = [
        directory("./"),
        file("./control", &control("a", "Multi-Arch: same\n")),
        file("./conffiles", "/etc/a.conf\nremove-on-upgrade /etc/old\n"),
        file("./triggers", "# why\ninterest-noawait /usr/share/x\nactivate-noawait ldconfig\n"),
        entry(b"./postinst", b'0', 0o755, b"", b"#!/bin/sh\n"),
        entry(b"./preinst", b'0', 0o755, b"", b"#!/bin/sh\n"),
    ];
    let data = [directory("./"), directory("./etc/"), file("./etc/a.conf", "abc"), file("./lib/b", "b")];
    scene.write("a", Layer::Base, &deb(&control_files, &data));
    let tree = scene.base().unwrap();
    let info = |suffix: &str| read(&tree, &format!("var/lib/dpkg/info/a:amd64.{suffix}"));
    assert_eq!(info("list"), "/.\n/etc\n/etc/a.conf\n/lib/b\n");
    assert_eq!(info("md5sums"), "92eb5ffee6ae2fec3ad71c777531578f  lib/b\n");
    assert_eq!(read(&tree, "var/lib/dpkg/triggers/File"), "/usr/share/x a/noawait\n");
    // The MD5 of "abc" is in RFC 1321, A.5.
    assert_eq!(
        read(&tree, "var/lib/dpkg/status"),
        "Package: a\nStatus: install ok installed\nVersion: 1\nArchitecture: amd64\nMulti-Arch: same\nDescription: x\n\
         Conffiles:\n /etc/a.conf 900150983cd24fb0d6963f7d28e17f72\n /etc/old newconffile remove-on-upgrade\n\n"
    );
    assert_eq!(std::fs::metadata(tree.join("var/lib/dpkg/info/a:amd64.postinst")).unwrap().mode() & 0o7777, 0o755);
    let calls = scene.noted.0.lock().unwrap();
    let programs: Vec<&str> = calls.iter().map(|call| call.program.as_str()).collect();
    assert_eq!(programs, ["/var/lib/dpkg/info/a:amd64.preinst", "/usr/bin/dpkg"]);
    assert!(calls[0].variables.contains(&"DPKG_MAINTSCRIPT_PACKAGE=a".into()));
}

#[test]
fn configuration_files_of_a_delta_wait_until_their_package_is_configured() {
    let mut scene = Scene::new();
    let declares = |name: &str, more: &str, data: &[Vec<u8>]| {
        let control = [file("./control", &control(name, more)), file("./conffiles", "/etc/hooks.d/x\n/etc/y\n")];
        deb(&control, data)
    };
    let data = |text: &str| [directory("./etc/hooks.d/"), file("./etc/hooks.d/x", text), file("./etc/y", text)];
    scene.package("below", "", &[directory("./etc/"), file("./etc/y", "below")]);
    scene.write("above", Layer::Delta, &declares("above", "Replaces: below\n", &data("above")));
    let tree = scene.both().unwrap();
    assert!(!tree.join("etc/hooks.d/x").exists(), "another package's script would run it");
    assert_eq!(read(&tree, "etc/hooks.d/x.dpkg-new"), "above");
    // What replaces another package's file is not new to dpkg; it is there at once. MD5 as of md5sum(1).
    assert_eq!(read(&tree, "etc/y"), "above");
    assert!(!tree.join("etc/y.dpkg-new").exists());
    let status = read(&tree, "var/lib/dpkg/status");
    assert!(
        status.contains("Conffiles:\n /etc/hooks.d/x newconffile\n /etc/y 55a9d6aa251e3c334db4ab4055a4a004\n"),
        "{status}"
    );
    assert_eq!(read(&tree, "var/lib/dpkg/info/above.list"), "/etc/hooks.d\n/etc/hooks.d/x\n/etc/y\n");
}

#[test]
fn configured_packages_hear_of_the_triggers_of_a_delta() {
    let mut scene = Scene::new();
    let triggers = "interest /usr/share/watched\ninterest named\n";
    let bytes = deb(&[file("./control", &control("ears", "")), file("./triggers", triggers)], &[]);
    scene.write("ears", Layer::Base, &bytes);
    let bytes = deb(
        &[file("./control", &control("loud", "")), file("./triggers", "activate named\nactivate unheard\n")],
        &[directory("./usr/share/watched/"), file("./usr/share/watched/x", "x")],
    );
    scene.write("loud", Layer::Delta, &bytes);
    let tree = scene.both().unwrap();
    assert_eq!(read(&tree, "var/lib/dpkg/triggers/Unincorp"), "/usr/share/watched -\nnamed -\n");
    assert_eq!(read(&scene.scratch.path().join("base"), "var/lib/dpkg/triggers/Unincorp"), "");
}

#[test]
fn a_tree_has_only_the_modes_that_a_nar_implies_and_files_have_the_times_of_their_packages() {
    let mut scene = Scene::new();
    let data = [
        entry(b"./usr/bin/su", b'0', 0o4755, b"", b"x"),
        entry(b"./etc/shadow", b'0', 0o600, b"", b"x"),
        entry(b"./var/mail", b'5', 0o2775, b"", b""),
        entry(b"./usr/bin/two", b'1', 0o4755, b"./usr/bin/su", b""),
    ];
    let tree = scene.package("a", "", &data).base().unwrap();
    // The entries' headers say 0; a directory has the one fixed time, since dpkg writes into it.
    for (path, mode, time) in [
        ("usr/bin/su", 0o755, 0),
        ("etc/shadow", 0o644, 0),
        ("var/mail", 0o755, 1_000_000_000),
        ("usr/bin/two", 0o755, 0),
        ("", 0o755, 1_000_000_000),
    ] {
        let stat = std::fs::metadata(tree.join(path)).unwrap();
        assert_eq!(stat.mode() & 0o7777, mode, "{path}");
        assert_eq!(stat.mtime(), time, "{path}");
    }
}

#[test]
fn mount_points_are_there_and_the_loader_works_from_outside() {
    let mut scene = Scene::new();
    let data = [
        file("./lib/x86_64-linux-gnu/ld-linux-x86-64.so.2", "loader"),
        link("./lib64/ld-linux-x86-64.so.2", "/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2"),
        link("./etc/resolv.conf", "/run/resolv.conf"),
        file("./tmp/left", "x"),
    ];
    let tree = scene.package("libc6", "", &data).base().unwrap();
    assert_eq!(read(&tree, "lib64/ld-linux-x86-64.so.2"), "loader");
    for path in ["nix/store", "build", "proc", "dev", "tmp"] {
        assert_eq!(std::fs::read_dir(tree.join(path)).unwrap().count(), 0, "{path}");
    }
    for path in ["etc/passwd", "etc/group", "etc/hosts", "etc/resolv.conf"] {
        assert!(std::fs::symlink_metadata(tree.join(path)).unwrap().is_file(), "{path}");
    }
}

/// Leaves one file under a name, with bytes that no other run has.
struct Littering(&'static str);

impl Inside for Littering {
    fn run(&self, tree: &Path, _: &[Call]) -> Result<(), EnvironmentError> {
        configured(tree);
        let path = tree.join(self.0);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, format!("{:?}", std::time::Instant::now())).unwrap();
        Ok(())
    }
}

#[test]
fn what_scripts_leave_of_clock_and_chance_is_gone() {
    let mut scene = Scene::new();
    scene.package("a", "", &[file("./etc/a", "a")]);
    let digest = |litter| {
        let into = scene.scratch.path().join("tree");
        Assembler { inside: &Littering(litter), ..scene.assembler() }.base(&scene.of(Layer::Base), &into).unwrap();
        let found = nix_archive::nar::hash_path(&into, nix_archive::nar::CaseHack::Disabled).unwrap().sha256;
        std::fs::remove_dir_all(&into).unwrap();
        found
    };
    for litter in [
        "var/cache/ldconfig/aux-cache",
        "var/log/dpkg.log",
        "var/log/apt/history.log",
        "var/lib/dpkg/status-old",
        "var/cache/debconf/config.dat-old",
        "etc/machine-id",
        "var/lib/dbus/machine-id",
        "etc/ssh/ssh_host_rsa_key",
        "var/lib/systemd/random-seed",
        "var/lib/apt/lists/some_Packages",
        "var/cache/apt/pkgcache.bin",
        "var/cache/fontconfig/some-le64.cache-8",
        "var/cache/man/de/index.db",
        "run/some.pid",
        "tmp/some",
        "var/tmp/some",
    ] {
        assert_eq!(digest(litter), digest(litter), "{litter}");
    }
    assert_ne!(digest("etc/unknown"), digest("etc/unknown"), "what has no rule must show");
}

/// A script that fails.
struct Failing;

impl Inside for Failing {
    fn run(&self, _: &Path, calls: &[Call]) -> Result<(), EnvironmentError> {
        Err(EnvironmentError::Script { act: calls[0].act.clone(), end: "exit code 1".into(), log: "no luck".into() })
    }
}

#[test]
fn a_failed_script_leaves_no_tree() {
    let mut scene = Scene::new();
    scene.package("a", "", &[file("./etc/a", "a")]);
    let into = scene.scratch.path().join("failed");
    assert!(Assembler { inside: &Failing, ..scene.assembler() }.base(&scene.of(Layer::Base), &into).is_err());
    assert!(!into.exists());
}

/// Does nothing at all.
struct Idle;

impl Inside for Idle {
    fn run(&self, _: &Path, _: &[Call]) -> Result<(), EnvironmentError> {
        Ok(())
    }
}

#[test]
fn packages_that_are_not_configured_in_the_end_are_refused() {
    let mut scene = Scene::new();
    scene.package("lazy", "", &[file("./etc/a", "a")]);
    let into = scene.scratch.path().join("tree");
    let error = Assembler { inside: &Idle, ..scene.assembler() }.base(&scene.of(Layer::Base), &into).unwrap_err();
    assert!(error.to_string().contains("package lazy is \"install ok unpacked\""), "{error}");
}

/// A script that indexes manuals, and perhaps moves the program that it does it by.
struct Indexing {
    moves: bool,
}

impl Inside for Indexing {
    fn run(&self, tree: &Path, _: &[Call]) -> Result<(), EnvironmentError> {
        configured(tree);
        assert_eq!(read(tree, "usr/bin/mandb"), "true");
        if self.moves {
            std::fs::rename(tree.join("usr/bin/mandb"), tree.join("usr/bin/mandb.distrib")).unwrap();
        }
        Ok(())
    }
}

#[test]
fn programs_whose_work_is_removed_again_do_nothing_while_scripts_run_and_are_there_in_the_end() {
    let mut scene = Scene::new();
    scene.package("a", "", &[file("./usr/bin/true", "true"), file("./usr/bin/mandb", "mandb")]);
    let assemble = |inside: &dyn Inside, name: &str| {
        let into = scene.scratch.path().join(name);
        Assembler { inside, ..scene.assembler() }.base(&scene.of(Layer::Base), &into).map(|()| into)
    };
    let into = assemble(&Indexing { moves: false }, "indexed").unwrap();
    let untouched = assemble(&scene.noted, "untouched").unwrap();
    for name in ["mandb", "true"] {
        let [here, there] = [&into, &untouched].map(|tree| tree.join("usr/bin").join(name));
        assert_eq!(std::fs::read(&here).unwrap(), std::fs::read(&there).unwrap());
        let [here, there] = [here, there].map(|path| path.metadata().unwrap());
        assert_eq!((here.mode(), here.mtime(), here.nlink()), (there.mode(), there.mtime(), 1));
    }
    assert_eq!(std::fs::read_dir(into.join("usr/bin")).unwrap().count(), 2);
    let error = assemble(&Indexing { moves: true }, "moved").unwrap_err();
    assert!(
        whole_text(&error).contains("usr/bin/mandb") && whole_text(&error).contains("replaced or moved"),
        "{error}"
    );
}

/// A script that makes a way out of the tree.
struct Escaping(PathBuf);

impl Inside for Escaping {
    fn run(&self, tree: &Path, _: &[Call]) -> Result<(), EnvironmentError> {
        configured(tree);
        symlink(&self.0, tree.join("var/log")).unwrap();
        Ok(())
    }
}

#[test]
fn normalising_follows_no_link_that_a_script_made() {
    let mut scene = Scene::new();
    scene.package("a", "", &[file("./etc/a", "a")]);
    let outside = tempfile::tempdir().unwrap();
    std::fs::write(outside.path().join("precious"), "bytes").unwrap();
    let into = scene.scratch.path().join("tree");
    let escaping = Escaping(outside.path().into());
    let result = Assembler { inside: &escaping, ..scene.assembler() }.base(&scene.of(Layer::Base), &into);
    assert!(result.is_err());
    assert_eq!(read(outside.path(), "precious"), "bytes");
}

#[test]
fn kept_packages_give_the_same_tree_and_need_no_original() {
    let mut scene = Scene::new();
    scene.package("a", "", &[file("./etc/a", "a"), link("./etc/l", "a")]).package("b", "", &[file("./etc/b", "b")]);
    let directory = scene.scratch.path().join("kept");
    let kept = Kept::new(&directory, directory.parent().unwrap());
    let digest = |name: &str| {
        let into = scene.scratch.path().join(name);
        Assembler { kept: Some(&kept), ..scene.assembler() }.base(&scene.of(Layer::Base), &into).unwrap();
        nix_archive::nar::hash_path(&into, nix_archive::nar::CaseHack::Disabled).unwrap().sha256
    };
    let first = digest("first");
    assert_eq!(std::fs::read_dir(&directory).unwrap().count(), 2);
    for (_, file) in &scene.packages {
        std::fs::remove_file(file).unwrap();
    }
    assert_eq!(first, digest("second"));
}
