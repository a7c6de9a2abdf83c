//! kiln substitutes from caches that Nix published, and refuses what was altered in one.

use std::fs;
use std::path::Path;

use kiln_model::digest::{Digest, NarHash};
use kiln_model::format::narinfo::{Compression, NarInfo};
use kiln_model::format::signature::SecretKey;
use kiln_model::store_path::spelled;
use kiln_tests::ground::Ground;
use kiln_tests::lab::Lab;
use kiln_tests::run::Kiln;

use crate::{cache_of_nix, edit, listing, narinfo, nix_hash, substitute, trees};

#[test]
fn kiln_substitutes_from_caches_that_nix_published() {
    let Some(lab) = Lab::open("kiln_substitutes_from_caches_that_nix_published") else { return };
    let (path, naming) = trees(&lab);
    let expected = lab.first("nix-store", ["-q", "--hash", &path]).succeeded().stdout;
    for compression in ["xz", "zstd", "none", "bzip2", "gzip"] {
        let cache = cache_of_nix(&lab, compression, &[&path, &naming]);
        let kiln = Kiln::fresh(Ground::Disk);
        let address = format!("file://{}", cache.display());
        let brought = substitute(&kiln, &address, &lab.public("ours"), &naming).succeeded();
        assert_eq!(brought.stdout, format!("{path}\n{naming}\n"), "{compression}");
        let info = kiln.run(["store", "info", "--json", &path]).succeeded().json();
        assert_eq!(nix_hash(info["path"]["nar_hash"].as_str().unwrap()), expected.trim_end());
        kiln.verified();
        assert_eq!(substitute(&kiln, &address, &lab.public("ours"), &naming).succeeded().stdout, "");
    }
}

#[test]
fn a_path_that_no_cache_has_is_missing_and_one_without_a_trusted_signature_is_refused() {
    let test = "a_path_that_no_cache_has_is_missing_and_one_without_a_trusted_signature_is_refused";
    let Some(lab) = Lab::open(test) else { return };
    let (path, _) = trees(&lab);
    let cache = cache_of_nix(&lab, "zstd", &[&path]);
    let address = cache.display().to_string();
    let kiln = Kiln::fresh(Ground::Disk);
    let nowhere = "/nix/store/00000000000000000000000000000000-nowhere";
    substitute(&kiln, &address, &lab.public("ours"), nowhere).exits(7).says(&["in none of 1 caches"]);
    substitute(&kiln, "/nonexistent", &lab.public("ours"), &path).exits(2).says(&["nix-cache-info"]);
    substitute(&kiln, &address, "nonsense", &path).exits(2).says(&["NAME:BASE64"]);
    edit(&cache, &path, |info| info.address = None);
    substitute(&kiln, &address, &lab.public("ours"), &path).succeeded();
    let other = Kiln::fresh(Ground::Disk);
    substitute(&other, &address, &lab.public("other"), &path).exits(6).says(&["not trusted", "ours-1"]);
    assert_eq!(other.run(["store", "ls"]).succeeded().stdout, "");
}

type Change<'a> = Box<dyn Fn(&Path) + 'a>;
type Edit<'a> = Box<dyn Fn(&Path, &mut NarInfo) + 'a>;

fn editing<'a>(path: &'a str, change: Edit<'a>) -> Change<'a> {
    Box::new(move |cache| edit(cache, path, |info| change(cache, info)))
}

/// Replaces the archive by `nar`, compressed, with digest and size of the file made to fit.
fn replace(cache: &Path, info: &mut NarInfo, nar: &[u8]) {
    fs::write(cache.join("nar/other.nar"), nar).unwrap();
    info.url = "nar/other.nar".into();
    info.compression = Compression::None;
    info.file_hash = Some(Digest::of(nar));
    info.file_size = Some(nar.len() as u64);
}

#[test]
fn whatever_is_altered_in_a_cache_is_refused_by_name_and_nothing_enters_the_store() {
    let test = "whatever_is_altered_in_a_cache_is_refused_by_name_and_nothing_enters_the_store";
    let Some(lab) = Lab::open(test) else { return };
    let (path, naming) = trees(&lab);
    let pristine = cache_of_nix(&lab, "zstd", &[&path, &naming]);
    // Signed paths are what matters here: without its address, a path is trusted for its signature alone.
    edit(&pristine, &path, |info| info.address = None);
    edit(&pristine, &naming, |info| info.address = None);
    let nar = lab.command("nix-store", ["--dump".into(), lab.physical(&path)]).output().unwrap().stdout;
    let altered = {
        let mut nar = nar.clone();
        let at = nar.windows(3).position(|window| window == b"odd").unwrap();
        nar[at] ^= 1;
        nar
    };
    let other: SecretKey = fs::read_to_string(lab.secret("other")).unwrap().trim_end().parse().unwrap();
    let namesake = other.reveal().replacen("other-1", "ours-1", 1).parse::<SecretKey>().unwrap();
    let cases: Vec<(&str, Change<'_>, &str)> = vec![
        (
            "NAR altered and compressed again",
            editing(&path, Box::new(|cache, info| replace(cache, info, &altered))),
            "NarHash",
        ),
        (
            "compressed bytes damaged",
            editing(
                &path,
                Box::new(|cache, info| {
                    let file = cache.join(&info.url);
                    let mut bytes = fs::read(&file).unwrap();
                    let middle = bytes.len() / 2;
                    bytes[middle] ^= 1;
                    fs::write(file, bytes).unwrap();
                }),
            ),
            "FileHash",
        ),
        (
            "NAR and NarHash altered together",
            editing(
                &path,
                Box::new(|cache, info| {
                    replace(cache, info, &altered);
                    info.nar_hash = NarHash::new(Digest::of(&altered));
                }),
            ),
            "signature",
        ),
        ("NarSize", editing(&path, Box::new(|_, info| info.nar_size += 8)), "signature"),
        ("no signature", editing(&path, Box::new(|_, info| info.signatures.clear())), "no signature"),
        (
            "signature flipped",
            editing(
                &path,
                Box::new(|_, info| {
                    let line = &mut info.signatures[0];
                    let other = if line.as_bytes()[10] == b'A' { "B" } else { "A" };
                    line.replace_range(10..11, other);
                }),
            ),
            "signature",
        ),
        (
            "same key name, other key",
            editing(
                &path,
                Box::new(|_, info| {
                    info.signatures.clear();
                    info.sign(&namesake);
                }),
            ),
            "signature by ours-1",
        ),
        (
            "a false CA",
            editing(
                &path,
                Box::new(|_, info| info.address = Some(format!("text:{}", spelled(&Digest::of("x"))).parse().unwrap())),
            ),
            "CA",
        ),
        ("wrong FileHash", editing(&path, Box::new(|_, info| info.file_hash = Some(Digest::of("x")))), "FileHash"),
        (
            "wrong FileSize",
            editing(&path, Box::new(|_, info| info.file_size = info.file_size.map(|size| size + 1))),
            "FileSize",
        ),
        (
            "bytes after the NAR",
            editing(&path, Box::new(|cache, info| replace(cache, info, &[&nar[..], b"more"].concat()))),
            "NarSize",
        ),
        (
            "a NAR cut short",
            editing(&path, Box::new(|cache, info| replace(cache, info, &nar[..nar.len() - 8]))),
            "the archive of",
        ),
        (
            "a decompression bomb",
            editing(
                &path,
                Box::new(|cache, info| {
                    let bomb = lab.path().join("bomb");
                    let size = info.nar_size as usize;
                    fs::write(&bomb, [&nar[..size - 8], &vec![0; 200 << 20][..]].concat()).unwrap();
                    let ran = std::process::Command::new("gzip").arg("-9").arg(&bomb).status().unwrap();
                    assert!(ran.success());
                    let bytes = fs::read(bomb.with_extension("gz")).unwrap();
                    fs::remove_file(bomb.with_extension("gz")).unwrap();
                    replace(cache, info, &bytes);
                    info.compression = Compression::Gzip;
                }),
            ),
            "NarSize",
        ),
        (
            "another path's narinfo",
            Box::new(|cache: &Path| {
                fs::copy(narinfo(cache, &naming), narinfo(cache, &path)).unwrap();
            }),
            "StorePath",
        ),
        (
            "html",
            Box::new(|cache: &Path| fs::write(narinfo(cache, &path), "<html>\n<p>Welcome: yes\n").unwrap()),
            "line 1",
        ),
    ];
    let mut tried = 0;
    for (name, change, named) in &cases {
        let cache = lab.path().join("altered");
        fs::create_dir_all(cache.join("nar")).unwrap();
        for (file, bytes) in listing(&pristine) {
            fs::write(cache.join(file.strip_prefix(&pristine).unwrap()), bytes).unwrap();
        }
        change(&cache);
        let kiln = Kiln::fresh(Ground::Disk);
        let address = cache.display().to_string();
        // What names it is not brought either.
        let refused = substitute(&kiln, &address, &lab.public("ours"), &naming);
        assert_eq!(refused.code(), Some(6), "{name}:\n{}", refused.stderr);
        assert!(refused.stderr.contains(named), "{name} does not name {named}:\n{}", refused.stderr);
        assert_eq!(kiln.run(["store", "ls"]).succeeded().stdout, "", "{name}");
        assert_eq!(fs::read_dir(kiln.store().join("nix/store")).unwrap().count(), 0, "{name}");
        kiln.verified();
        fs::remove_dir_all(&cache).unwrap();
        tried += 1;
    }
    assert!(tried >= 14);
    // A reference dropped: `naming` itself.
    edit(&pristine, &naming, |info| info.references.clear());
    let kiln = Kiln::fresh(Ground::Disk);
    substitute(&kiln, &pristine.display().to_string(), &lab.public("ours"), &naming).exits(6).says(&["signature"]);
}

#[test]
fn a_path_that_follows_from_its_contents_needs_no_signature_and_its_contents_are_read() {
    let test = "a_path_that_follows_from_its_contents_needs_no_signature_and_its_contents_are_read";
    let Some(lab) = Lab::open(test) else { return };
    let (path, naming) = trees(&lab);
    let cache = cache_of_nix(&lab, "none", &[&path, &naming]);
    let address = cache.display().to_string();
    for path in [&path, &naming] {
        edit(&cache, path, |info| info.signatures.clear());
    }
    let kiln = Kiln::fresh(Ground::Disk);
    kiln.run(["store", "substitute", "--substituters", &address, &naming]).succeeded();
    kiln.verified();
    // Another tree under an honest address: only the contents tell.
    let etc = lab.path().join("etc");
    let other = lab.command("nix-store", ["--dump".as_ref(), etc.as_os_str()]).output().unwrap().stdout;
    edit(&cache, &path, |info| {
        replace(&cache, info, &other);
        info.nar_hash = NarHash::new(Digest::of(&other));
        info.nar_size = other.len() as u64;
    });
    let fresh = Kiln::fresh(Ground::Disk);
    fresh.run(["store", "substitute", "--substituters", &address, &naming]).exits(6).says(&["CA of"]);
    assert_eq!(fresh.run(["store", "ls"]).succeeded().stdout, "");
}
