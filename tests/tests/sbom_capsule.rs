//! `kiln capsule create` and `kiln rebuild FILE.capsule`: a build goes through one file to another machine, and what is wrong
//! with such a file is said before anything is built.

use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};

use kiln_model::canonical;
use kiln_model::derivation::Output;
use kiln_model::digest::{Digest, NarHash};
use kiln_model::format::capsule::{Member, Place, Table};
use kiln_model::store_path::{Algorithm, Method, StorePath};
use kiln_tests::derivation;
use kiln_tests::ground::{self, Ground};
use kiln_tests::recipe::Made;
use kiln_tests::run::{Kiln, Ran};
use kiln_tests::schema::fits;
use serde_json::Value;
use tempfile::TempDir;

/// A recipe with a tree beside it, built, and its capsule.
fn packed(script: &str) -> (Made, TempDir, PathBuf) {
    let made = Made::new(script);
    let place = ground::directory(Ground::Disk);
    let file = place.path().join("made.capsule");
    Kiln::warm().build_one(made.path());
    let ran = create(&Kiln::warm(), made.path(), &file).succeeded();
    fits("capsule-created", &ran.json());
    (made, place, file)
}

fn create(kiln: &Kiln, recipe: &Path, file: &Path) -> Ran {
    let output = ["--output".as_ref(), file.as_os_str()];
    kiln.run(["capsule".as_ref(), "create".as_ref(), "--json".as_ref(), recipe.as_os_str()].into_iter().chain(output))
}

/// A kiln that has nothing and can fetch nothing.
fn stranger() -> Kiln {
    let kiln = Kiln::fresh(Ground::Disk);
    kiln.mirrors(&["/nonexistent"]);
    kiln
}

fn rebuild(kiln: &Kiln, file: &Path) -> Ran {
    kiln.run(["rebuild".as_ref(), "--json".as_ref(), file.as_os_str()])
}

const SAME: &str = r#"mkdir "$out"; echo same >"$out/file""#;

#[test]
fn a_stranger_builds_the_same_from_a_capsule_alone_and_the_same_build_gives_the_same_file() {
    if !ground::has_files("a_stranger_builds_the_same_from_a_capsule_alone_and_the_same_build_gives_the_same_file") {
        return;
    }
    let (made, place, file) = packed(SAME);
    let again = place.path().join("again.capsule");
    create(&Kiln::warm(), made.path(), &again).succeeded();
    assert_eq!(std::fs::read(&file).unwrap(), std::fs::read(&again).unwrap());
    drop(made);
    let report = rebuild(&stranger(), &file).succeeded().json();
    assert_eq!(report["verdict"], "reproduced");
    assert_eq!(report["outcomes"].as_array().unwrap().len(), 2);
    assert_eq!(report["outcomes"][0]["derivation"], report["outcomes"][1]["derivation"]);
    assert_eq!(report["outcomes"][1]["cached"], false);
}

#[test]
fn a_build_that_comes_out_otherwise_is_not_reproduced() {
    if !ground::has_files("a_build_that_comes_out_otherwise_is_not_reproduced") {
        return;
    }
    let (_made, _place, file) = packed(r#"cat /proc/sys/kernel/random/uuid >"$out""#);
    let report = rebuild(&stranger(), &file).exits(1).json();
    assert_eq!(report["verdict"], "diverged");
}

/// The members of a capsule.
fn members(file: &Path) -> Vec<(String, Vec<u8>)> {
    let compressed = std::fs::read(file).unwrap();
    let mut command = std::process::Command::new("zstd");
    command.args(["-dcq", "--long=27"]).arg(file);
    let tar = command.output().expect("zstd").stdout;
    assert!(tar.len() > compressed.len() / 2, "zstd -d");
    let mut archive = tar::Archive::new(&tar[..]);
    let read = |entry: std::io::Result<tar::Entry<'_, &[u8]>>| {
        let mut entry = entry.unwrap();
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).unwrap();
        (String::from_utf8(entry.path_bytes().into_owned()).unwrap(), bytes)
    };
    archive.entries().unwrap().map(read).collect()
}

/// Writes a capsule of these members, whatever they are.
fn pack(file: &Path, members: &[(String, Vec<u8>)]) {
    let mut tar = tar::Builder::new(Vec::new());
    for (name, bytes) in members {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        header.set_entry_type(tar::EntryType::Regular);
        // Names that the crate would refuse to write.
        let field = &mut header.as_old_mut().name;
        field.fill(0);
        field[..name.len().min(100)].copy_from_slice(&name.as_bytes()[..name.len().min(100)]);
        header.set_cksum();
        tar.append(&header, &bytes[..]).unwrap();
    }
    let tar = tar.into_inner().unwrap();
    let mut command = std::process::Command::new("zstd");
    command.args(["-1", "-cq"]).stdin(std::process::Stdio::piped()).stdout(std::fs::File::create(file).unwrap());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(&tar).unwrap();
    assert!(child.wait().unwrap().success());
}

#[test]
fn a_capsule_that_is_cut_short_changed_or_leads_elsewhere_is_refused() {
    if !ground::has_files("a_capsule_that_is_cut_short_changed_or_leads_elsewhere_is_refused") {
        return;
    }
    let (_made, place, file) = packed(SAME);
    let good = members(&file);
    let bad = place.path().join("bad.capsule");
    let kiln = stranger();
    let refused = |changed: &[(String, Vec<u8>)], code: i32, says: &[&str]| {
        pack(&bad, changed);
        rebuild(&kiln, &bad).exits(code).says(says);
    };
    // Packed by another program it is still the same.
    pack(&bad, &good);
    rebuild(&kiln, &bad).succeeded();

    let bytes = std::fs::read(&file).unwrap();
    for length in [0, 10, bytes.len() / 2, bytes.len() - 1] {
        std::fs::write(&bad, &bytes[..length]).unwrap();
        rebuild(&kiln, &bad).exits(2).says(&["bad.capsule", "no whole capsule"]);
    }
    std::fs::write(&bad, [&bytes[..], b"more"].concat()).unwrap();
    rebuild(&kiln, &bad).exits(2).says(&["something follows"]);

    let at = |name: &str| good.iter().position(|(member, _)| member.starts_with(name)).unwrap();
    let with = |index: usize, member: (String, Vec<u8>)| {
        let mut changed = good.clone();
        changed[index] = member;
        changed
    };
    // A file whose bytes are others, of the same length.
    let files = at("files/");
    let mut other = good[files].clone();
    other.1[0] ^= 1;
    let fresh = stranger();
    pack(&bad, &with(files, other));
    rebuild(&fresh, &bad).exits(6).says(&["is not what its table says"]);
    let recipe = good.iter().position(|(name, _)| name.ends_with("recipe.toml")).unwrap();
    let mut other = good[recipe].clone();
    let last = other.1.len() - 1;
    other.1[last] = b' ';
    refused(&with(recipe, other), 6, &["recipe.toml", "is not what its table says"]);

    // Another recipe, with a table that fits it: no longer what the derivation says.
    let table = Table::parse(&good[0].1).unwrap();
    let script = String::from_utf8(good[recipe].1.clone()).unwrap().replace("echo same", "echo evil");
    let mut forged = table.clone();
    let member = forged.members.iter_mut().find(|member| member.place.to_string() == good[recipe].0).unwrap();
    (member.size, member.sha256) = (script.len() as u64, Digest::of(&script));
    let mut changed = with(recipe, (good[recipe].0.clone(), script.into_bytes()));
    changed[0].1 = forged.print().unwrap();
    refused(&changed, 6, &["is said to be of"]);

    // Names that lead elsewhere, in the archive and in the table.
    for name in ["../recipe.toml", "/recipes/recipe.toml", "recipes/../../recipe.toml"] {
        refused(&with(recipe, (name.into(), good[recipe].1.clone())), 2, &["expected recipes/recipe.toml"]);
        let mut text: Value = serde_json::from_slice(&good[0].1).unwrap();
        for member in text["members"].as_array_mut().unwrap() {
            if member["path"] == good[recipe].0 {
                member["path"] = name.into();
            }
        }
        let mut changed = with(recipe, (name.into(), good[recipe].1.clone()));
        changed[0].1 = canonical::print(&text).unwrap();
        refused(&changed, 2, &["capsule.json"]);
    }

    // A table that promises more than such a file can hold.
    let mut text: Value = serde_json::from_slice(&good[0].1).unwrap();
    let last = text["members"].as_array().unwrap().len() - 1;
    text["members"][last]["size"] = (1_u64 << 50).into();
    let mut changed = good.clone();
    changed[0].1 = canonical::print(&text).unwrap();
    refused(&changed, 2, &["would unpack to"]);

    // Something that it needs is not in it: said at once, and nothing is built.
    let mut forged = table.clone();
    let name = good[files].0.clone();
    forged.members.retain(|member| member.place.to_string() != name);
    let mut changed = good.clone();
    changed.remove(files);
    changed[0].1 = forged.print().unwrap();
    pack(&bad, &changed);
    rebuild(&stranger(), &bad).exits(4).says(&["neither in it nor in the store", ".deb"]);
    assert_eq!(std::fs::read_dir(place.path()).unwrap().count(), 2, "nothing else was written beside it");
}

#[test]
fn a_recipe_that_was_built_is_packed_as_its_derivation_alone_too_with_the_tree_that_is_its_environment() {
    let name = "a_recipe_that_was_built_is_packed_as_its_derivation_alone_too_with_the_tree_that_is_its_environment";
    if !ground::has_files(name) {
        return;
    }
    let made = Made::new(SAME);
    made.write("recipe.toml", &format!("{}\n[artifacts]\nout = [\"file\"]\n", made.read("recipe.toml")));
    let kiln = Kiln::warm();
    let outcome = kiln.build_one(made.path());
    assert!(outcome["artifacts"]["file"].is_object());
    let derivation = PathBuf::from(outcome["derivation"].as_str().unwrap());
    // A recipe names artifacts, a derivation none, whichever of them was built.
    let of_derivation = kiln.build_one(&derivation);
    assert_eq!(of_derivation["cached"], true);
    assert!(of_derivation["artifacts"].as_object().unwrap().is_empty());
    let place = ground::directory(Ground::Disk);
    let file = place.path().join("made.capsule");
    create(&kiln, &derivation, &file).succeeded();
    let names: Vec<String> = members(&file).into_iter().map(|(name, _)| name).collect();
    assert_eq!(names.len(), 4, "table, outcome, derivation and environment: {names:?}");
    let report = rebuild(&stranger(), &file).succeeded().json();
    assert_eq!(report["verdict"], "reproduced");
}

/// Derivations of every kind, of which the last needs the others: its file, and what its fixed input was built by.
fn derivations() -> (derivation::Made, PathBuf, PathBuf) {
    let made = derivation::Made::default();
    let first = made.closed("first", &[], "echo one >$out");
    let digest = Digest::of("fetched\n").as_bytes().to_vec();
    let path = StorePath::fixed(&"fetched".parse().unwrap(), Method::Flat, Algorithm::Sha256, &digest).unwrap();
    let fixed = Output::Fixed { path, method: Method::Flat, algorithm: Algorithm::Sha256, digest };
    let inner = made.closed("inner", &[], "echo fetched >$out");
    let from_inner = format!("cat {} >$out", inner.derivation.outputs.values().next().unwrap().path().unwrap());
    let fetched = made.derivation("fetched", &[("out", fixed.clone())], &[(&inner.path, &["out"])], &from_inner);
    let one = first.derivation.outputs.values().next().unwrap().path().unwrap();
    let script = format!("cat {one} {} >$out; echo $out >>$out", fixed.path().unwrap());
    let needs: [(&StorePath, &[&str]); 2] = [(&first.path, &["out"]), (&fetched, &["out"])];
    let wanted = made.derivation("wanted", &[("out", derivation::floating())], &needs, &script);
    let (wanted, inner) = (made.file(&wanted), made.file(&inner.path));
    (made, wanted, inner)
}

#[test]
fn a_capsule_of_a_derivation_holds_what_all_that_it_needs_rests_on_and_a_stranger_builds_from_that_alone() {
    let name = "a_capsule_of_a_derivation_holds_what_all_that_it_needs_rests_on_and_a_stranger_builds_from_that_alone";
    let Some(kiln) = derivation::with_builder(name) else { return };
    let (made, wanted, inner) = derivations();
    let place = ground::directory(Ground::Disk);
    let (file, again) = (place.path().join("made.capsule"), place.path().join("again.capsule"));
    create(&kiln, &wanted, &file).exits(2).says(&["is not built"]);
    kiln.build_one(&wanted);
    create(&kiln, &wanted, &file).succeeded();
    create(&kiln, &wanted, &again).succeeded();
    assert_eq!(std::fs::read(&file).unwrap(), std::fs::read(&again).unwrap());
    drop(made);

    let good = members(&file);
    let table = Table::parse(&good[0].1).unwrap();
    fits("capsule", &serde_json::from_slice(&good[0].1).unwrap());
    let names: Vec<&str> = table.sources.iter().map(|source| source.path.name()).collect();
    assert_eq!(names.len(), 2, "the builder, and what has a fixed digest: {names:?}");
    assert!(names.contains(&"bb") && names.contains(&"fetched"), "{names:?}");

    let other = stranger();
    let ran = rebuild(&other, &file).succeeded();
    let told = ran.stderr.clone();
    assert!(told.contains("building first") && told.contains("building wanted"), "{told}");
    assert!(!told.contains("building inner") && !told.contains("building fetched"), "a fixed output is there: {told}");
    let report = ran.json();
    assert_eq!(report["verdict"], "reproduced");
    assert_eq!(report["outcomes"][0]["derivation"], report["outcomes"][1]["derivation"]);
    drop(inner);

    // Other bytes where a path follows from its own, in a file that is consistent in itself.
    let bad = place.path().join("bad.capsule");
    let position = table.sources.iter().position(|source| source.path.name() == "fetched").unwrap();
    let nar_hash = table.sources[position].nar_hash;
    let tree = Place::Tree(nar_hash).to_string();
    let evil: Vec<u8> = good.iter().find(|(name, _)| *name == tree).unwrap().1.clone();
    let at = evil.windows(7).position(|bytes| bytes == b"fetched").unwrap();
    let evil = [&evil[..at], b"altered", &evil[at + 7..]].concat();
    let mut forged = table.clone();
    let digest = Digest::of(&evil);
    forged.sources[position].nar_hash = NarHash::new(digest);
    forged.members.retain(|member| member.place != Place::Tree(nar_hash));
    let member = Member { place: Place::Tree(NarHash::new(digest)), size: evil.len() as u64, sha256: digest };
    forged.members.push(member);
    forged.members.sort_by(|a, b| a.place.cmp(&b.place));
    let bytes = |place: &Place| match *place == Place::Tree(NarHash::new(digest)) {
        true => evil.clone(),
        false => good.iter().find(|(name, _)| *name == place.to_string()).unwrap().1.clone(),
    };
    let mut changed = vec![(good[0].0.clone(), forged.print().unwrap())];
    changed.extend(forged.members.iter().map(|member| (member.place.to_string(), bytes(&member.place))));
    pack(&bad, &changed);
    let fresh = stranger();
    rebuild(&fresh, &bad).exits(6).says(&["fetched", "is not what its path says"]);
    let valid = fresh.run(["store", "ls"]).succeeded().stdout;
    assert!(!valid.contains("-fetched"), "{valid}");

    // Without it, and without the source that it is: said before anything is built.
    for sources in [table.sources.clone(), vec![]] {
        let forged = Table { members: table.members.clone(), sources, ..table.clone() };
        let kept = |member: &&Member| member.place != Place::Tree(nar_hash);
        let forged = Table { members: forged.members.iter().filter(kept).cloned().collect(), ..forged };
        let left = good.iter().skip(1).filter(|(name, _)| *name != tree).cloned();
        let changed: Vec<_> = std::iter::once((good[0].0.clone(), forged.print().unwrap())).chain(left).collect();
        pack(&bad, &changed);
        let ran = rebuild(&stranger(), &bad).exits(4).says(&["neither in it nor in the store", "-fetched"]);
        assert!(!ran.stderr.contains("building"), "{}", ran.stderr);
    }
}
