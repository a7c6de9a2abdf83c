//! What the fetcher promises, against servers that behave and servers that do not.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use kiln_model::digest::Digest;
use kiln_model::lock::Suite;

use super::server::{Answer, Request, Server, announced};
use super::*;
use crate::config::Config;
use crate::event::Event;
use crate::exit::Kind;

const PATH: &str = "pool/main/h/hello/hello_2.10-3_amd64.deb";

fn content() -> Vec<u8> {
    (0..100_000_u32).flat_map(u32::to_le_bytes).collect()
}

/// A store, and a host with nothing configured.
struct Ground {
    directory: tempfile::TempDir,
    variables: BTreeMap<String, String>,
    python: Option<String>,
    /// Long enough that no busy machine takes a good server for a stalled one.
    stall: Duration,
}

impl Ground {
    fn new() -> Self {
        Self {
            directory: tempfile::tempdir().unwrap(),
            variables: BTreeMap::new(),
            python: None,
            stall: Duration::from_secs(60),
        }
    }

    fn set(mut self, name: &str, value: impl ToString) -> Self {
        self.variables.insert(name.into(), value.to_string());
        self
    }

    fn path(&self, path: &str) -> PathBuf {
        self.directory.path().join(path)
    }

    fn write(&self, path: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, bytes).unwrap();
        path
    }

    fn fetcher(&self, mirrors: &str, network: Network) -> Fetcher {
        let config = Config::parse(&format!("[mirrors]\n{mirrors}\n"), &self.path("config.toml")).unwrap();
        let python = self.python.clone();
        let host = Host::told(self.variables.clone(), self.path("host"), move |command| {
            if command[0].ends_with("python3") { python.clone() } else { None }
        });
        let policy =
            Policy { parallel: 4, attempts: 3, stall: self.stall, backoff: Duration::from_millis(1), largest: 1 << 20 };
        Fetcher::new(&self.path("store"), config, host, network).unwrap().with_policy(policy)
    }

    /// A fetcher for the archive `debian` with these mirrors.
    fn debian(&self, mirrors: &[String]) -> Fetcher {
        self.fetcher(&format!("debian = {mirrors:?}"), Network::Online)
    }

    fn part(&self, bytes: &[u8]) -> PathBuf {
        self.path(&format!("store/tmp/{}.part", Digest::of(bytes)))
    }
}

fn debian() -> Archive {
    Archive::Debian("debian".into())
}

fn wanted(bytes: &[u8]) -> Wanted {
    Wanted { archive: debian(), path: PATH.into(), size: Some(bytes.len() as u64), sha256: Digest::of(bytes) }
}

fn good() -> Server {
    Server::start(|_| Answer::File(content()))
}

fn base(server: &Server) -> String {
    server.url("debian/")
}

/// What each mirror said about the one file wanted.
fn refusals(error: FetchError) -> Vec<Refusal> {
    match error {
        FetchError::Missing { files, .. } | FetchError::Tampered { files, .. } => {
            files.into_iter().flat_map(|f| f.tries).map(|t| t.refusal).collect()
        }
        other => panic!("{other}"),
    }
}

/// Fetches from one server that answers so, after which a good one is asked.
fn after(answer: impl Fn(&Request) -> Answer + Send + Sync + 'static) -> (Vec<Request>, Vec<Request>) {
    let (bad, good, ground) = (Server::start(answer), good(), Ground::new());
    let paths = ground.debian(&[base(&bad), base(&good)]).pinned(&[wanted(&content())]).unwrap();
    assert!(fs::read(&paths[0]).unwrap() == content());
    (bad.seen(), good.seen())
}

/// Fetches from one server that answers so.
fn only(answer: impl Fn(&Request) -> Answer + Send + Sync + 'static) -> FetchError {
    let (bad, ground) = (Server::start(answer), Ground::new());
    ground.debian(&[base(&bad)]).pinned(&[wanted(&content())]).unwrap_err()
}

#[test]
fn a_file_is_fetched_once_and_kept_read_only_under_its_digest() {
    let (server, ground) = (good(), Ground::new());
    let path = ground.debian(&[base(&server)]).pinned(&[wanted(&content())]).unwrap().remove(0);
    assert_eq!(path, ground.path(&format!("store/files/{}", Digest::of(content()))));
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o444);
    assert!(!ground.part(&content()).exists());
    ground.debian(&[base(&server)]).pinned(&[wanted(&content())]).unwrap();
    let seen = server.seen();
    assert_eq!(seen.len(), 1);
    assert_eq!(seen[0].line, format!("GET /debian/{PATH}"));
    assert_eq!(seen[0].headers["accept-encoding"], "identity");
}

#[test]
fn a_damaged_cached_file_is_fetched_again() {
    let (server, ground) = (good(), Ground::new());
    let path = ground.write(&format!("store/files/{}", Digest::of(content())), "damaged");
    ground.debian(&[base(&server)]).pinned(&[wanted(&content())]).unwrap();
    assert!(fs::read(path).unwrap() == content());
}

#[test]
fn a_missing_file_is_asked_of_the_next_mirror_and_not_again_of_the_first() {
    let (bad, good) = after(|_| Answer::Status(404, ""));
    assert_eq!((bad.len(), good.len()), (1, 1));
    assert!(!good[0].headers.contains_key("range"));
}

#[test]
fn what_may_pass_is_tried_again() {
    let ground = Ground::new();
    let server = Server::start(|request| match request.nth {
        0 => Answer::Status(503, "Retry-After: 0\r\n"),
        1 => Answer::Status(429, ""),
        _ => Answer::File(content()),
    });
    ground.debian(&[base(&server)]).pinned(&[wanted(&content())]).unwrap();
    assert_eq!(server.seen().len(), 3);
    assert_eq!(refusals(only(|_| Answer::Status(500, ""))), [Refusal::Status(500)]);
}

#[test]
fn a_broken_transfer_goes_on_where_it_ended_at_the_same_mirror() {
    let ground = Ground::new();
    let server = Server::start(|request| match request.nth {
        0 => Answer::Raw(announced(content().len(), &content()[..50_000])),
        _ => Answer::File(content()),
    });
    ground.debian(&[base(&server)]).pinned(&[wanted(&content())]).unwrap();
    assert_eq!(server.seen()[1].headers["range"], "bytes=50000-");
}

#[test]
fn a_broken_transfer_goes_on_at_the_next_mirror() {
    let (bad, good) = after(|request| match request.nth {
        0 => Answer::Raw(announced(content().len(), &content()[..50_000])),
        _ => Answer::Status(404, ""),
    });
    assert_eq!((bad.len(), good.len()), (2, 1));
    assert_eq!(good[0].headers["range"], "bytes=50000-");
}

#[test]
fn a_reset_connection_is_tried_again() {
    let ground = Ground::new();
    let server = Server::start(|request| match request.nth {
        0 => Answer::Reset(announced(content().len(), &content()[..50_000])),
        _ => Answer::File(content()),
    });
    ground.debian(&[base(&server)]).pinned(&[wanted(&content())]).unwrap();
    assert_eq!(server.seen().len(), 2);
}

#[test]
fn a_part_that_was_left_behind_is_gone_on_with() {
    let (server, ground) = (good(), Ground::new());
    fs::create_dir_all(ground.path("store/tmp")).unwrap();
    fs::write(ground.part(&content()), &content()[..70_000]).unwrap();
    ground.debian(&[base(&server)]).pinned(&[wanted(&content())]).unwrap();
    assert_eq!(server.seen()[0].headers["range"], "bytes=70000-");
    // One that was whole but for its name needs no mirror at all.
    let ground = Ground::new();
    fs::create_dir_all(ground.path("store/tmp")).unwrap();
    fs::write(ground.part(&content()), content()).unwrap();
    fs::set_permissions(ground.part(&content()), fs::Permissions::from_mode(0o444)).unwrap();
    ground.fetcher("", Network::Offline).pinned(&[wanted(&content())]).unwrap();
}

#[test]
fn a_part_with_other_bytes_costs_a_second_request_and_nothing_else() {
    for bytes in [vec![7; 70_000], vec![7; content().len()], vec![7; content().len() + 1]] {
        let (server, ground) = (good(), Ground::new());
        fs::create_dir_all(ground.path("store/tmp")).unwrap();
        fs::write(ground.part(&content()), &bytes).unwrap();
        let path = ground.debian(&[base(&server)]).pinned(&[wanted(&content())]).unwrap().remove(0);
        assert!(fs::read(path).unwrap() == content());
        assert!(!server.seen().last().unwrap().headers.contains_key("range"), "{}", bytes.len());
    }
}

#[test]
fn a_server_without_ranges_is_read_from_the_beginning() {
    for refuses in [|| Answer::Raw(announced(content().len(), &content())), || Answer::Status(416, "")] {
        let ground = Ground::new();
        let server = Server::start(move |request| match request.headers.contains_key("range") {
            true => refuses(),
            false => Answer::File(content()),
        });
        fs::create_dir_all(ground.path("store/tmp")).unwrap();
        fs::write(ground.part(&content()), &content()[..70_000]).unwrap();
        ground.debian(&[base(&server)]).pinned(&[wanted(&content())]).unwrap();
    }
}

#[test]
fn a_stall_in_head_or_body_is_given_up() {
    let body = || announced(content().len(), &content()[..50_000]);
    for (sent, gone_on) in [(Vec::new(), None), (body(), Some("bytes=50000-"))] {
        let (server, mut ground) = (Server::start(move |_| Answer::Stall(sent.clone())), Ground::new());
        ground.stall = Duration::from_millis(100);
        let error = ground.debian(&[base(&server)]).pinned(&[wanted(&content())]).unwrap_err();
        assert_eq!(error.kind(), Kind::Host);
        assert!(matches!(refusals(error)[..], [Refusal::Stalled(_)]));
        let seen = server.seen();
        assert_eq!(seen.len(), 3);
        assert_eq!(seen[1].headers.get("range").map(String::as_str), gone_on);
    }
}

#[test]
fn a_server_that_trickles_is_a_stall() {
    let (server, mut ground) = (Server::start(|_| Answer::Trickle(announced(content().len(), b""))), Ground::new());
    // Long enough for a busy machine to send the first bytes.
    ground.stall = Duration::from_millis(500);
    let error = ground.debian(&[base(&server)]).pinned(&[wanted(&content())]).unwrap_err();
    assert!(matches!(refusals(error)[..], [Refusal::Stalled(read)] if read > 0));
}

#[test]
fn a_length_that_is_not_the_locked_one_is_refused_without_reading() {
    let size = content().len() as u64;
    for lie in [size - 1, size + 1] {
        let error = only(move |_| Answer::Raw(announced(lie as usize, &content())));
        assert_eq!(error.kind(), Kind::Tampered);
        assert_eq!(refusals(error), [Refusal::WrongSize { found: lie, expected: size }]);
    }
}

#[test]
fn an_endless_body_is_not_read_past_the_locked_size() {
    let head = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n".to_vec();
    let error = only(move |_| Answer::Endless(head.clone()));
    assert!(matches!(refusals(error)[..], [Refusal::WrongSize { .. }]));
}

#[test]
fn other_bytes_of_the_right_length_are_tampering_and_leave_nothing_behind() {
    let other = vec![b'x'; content().len()];
    let digest = Digest::of(&other);
    let (server, ground) = (Server::start(move |_| Answer::File(other.clone())), Ground::new());
    let error = ground.debian(&[base(&server)]).pinned(&[wanted(&content())]).unwrap_err();
    assert_eq!(error.kind(), Kind::Tampered);
    assert_eq!(refusals(error), [Refusal::WrongDigest(digest)]);
    assert!(!ground.part(&content()).exists());
    assert!(fs::read_dir(ground.path("store/files")).unwrap().next().is_none());
}

#[test]
fn a_page_instead_of_the_file_fails_and_the_next_mirror_is_asked() {
    let page = b"<!DOCTYPE html><title>Please log in</title>".to_vec();
    let (bad, good) = after(move |_| Answer::File(page.clone()));
    assert_eq!((bad.len(), good.len()), (1, 1));
}

#[test]
fn redirects_are_followed_but_not_for_ever() {
    let (server, ground) = (good(), Ground::new());
    let to = server.url("elsewhere");
    let moved = Server::start(move |_| Answer::Redirect(to.clone()));
    ground.debian(&[base(&moved)]).pinned(&[wanted(&content())]).unwrap();
    assert_eq!(server.seen()[0].line, "GET /elsewhere");
    for to in ["/again", "ftp://a.test/", "file:///etc/passwd", ""] {
        let error = only(move |_| Answer::Redirect(to.into()));
        assert!(matches!(refusals(error)[..], [Refusal::Redirect(_)]), "{to}");
    }
}

#[test]
fn every_file_is_tried_and_each_failure_told() {
    let ground = Ground::new();
    let server = Server::start(|request| match request.line.ends_with("gone.deb") {
        true => Answer::Status(404, ""),
        false => Answer::File(content()),
    });
    ground.write("debs/other", "");
    let gone = |name: &str| Wanted { path: format!("pool/{name}"), sha256: Digest::of(name), ..wanted(b"12345") };
    let fetcher = ground.debian(&[base(&server), "debs".into()]);
    let error = fetcher.pinned(&[gone("a/gone.deb"), wanted(&content()), gone("b/gone.deb")]).unwrap_err();
    assert_eq!(error.kind(), Kind::Host);
    assert!(error.is_absent());
    let (a, b) = (Digest::of("a/gone.deb"), Digest::of("b/gone.deb"));
    assert_eq!(
        error.to_string(),
        format!(
            "2 of 3 files are on no configured mirror\n\
             \x20 pool/a/gone.deb  (sha256 {a})\n\
             \x20   mirrors.debian, entry 1   404 Not Found\n\
             \x20   offline directory \"debs\"  no such file\n\
             \x20 pool/b/gone.deb  (sha256 {b})\n\
             \x20   mirrors.debian, entry 1   404 Not Found\n\
             \x20   offline directory \"debs\"  no such file\n\
             \x20 add a mirror or an offline directory to debian under [mirrors] in kiln's configuration"
        )
    );
    assert!(ground.path(&format!("store/files/{}", Digest::of(content()))).exists());
}

#[test]
fn with_no_mirror_at_all_the_error_says_so() {
    let error = Ground::new().debian(&[]).pinned(&[wanted(&content())]).unwrap_err();
    assert!(error.to_string().contains("no mirror of debian is configured"), "{error}");
    assert!(!error.is_absent());
}

#[test]
fn offline_no_connection_is_made_and_directories_are_read() {
    let (server, ground) = (good(), Ground::new());
    let mirrors = format!("debian = [{:?}, \"archive\", \"loose\"]\npypi = [{:?}]", base(&server), base(&server));
    let error = ground.fetcher(&mirrors, Network::Offline).pinned(&[wanted(&content())]).unwrap_err();
    assert_eq!(refusals(error)[0], Refusal::Offline);
    let address = Wanted { archive: Archive::Address, path: server.url("x"), ..wanted(b"x") };
    assert!(ground.fetcher(&mirrors, Network::Offline).pinned(&[address]).is_err());
    assert!(ground.fetcher(&mirrors, Network::Offline).unpinned(&Archive::Pypi, "x", 9).is_err());
    for place in [format!("archive/{PATH}"), format!("loose/{}", Path::new(PATH).file_name().unwrap().display())] {
        let file = ground.write(&place, content());
        ground.fetcher(&mirrors, Network::Offline).pinned(&[wanted(&content())]).unwrap();
        fs::remove_file(file).unwrap();
        fs::remove_file(ground.path(&format!("store/files/{}", Digest::of(content())))).unwrap();
    }
    assert_eq!(server.seen().len(), 0);
}

#[test]
fn a_file_in_a_directory_is_checked_like_any_other() {
    let ground = Ground::new();
    ground.write(&format!("debs/{PATH}"), vec![b'x'; content().len()]);
    let error = ground.debian(&["debs".into()]).pinned(&[wanted(&content())]).unwrap_err();
    assert!(matches!(refusals(error)[..], [Refusal::WrongDigest(_)]));
    ground.write(&format!("debs/{PATH}"), "short");
    let error = ground.debian(&["debs".into()]).pinned(&[wanted(&content())]).unwrap_err();
    assert!(matches!(refusals(error)[..], [Refusal::WrongSize { found: 5, .. }]));
}

#[test]
fn threads_and_processes_that_want_the_same_file_fetch_it_once() {
    let (server, ground) = (good(), Ground::new());
    let (one, two) = (ground.debian(&[base(&server)]), ground.debian(&[base(&server)]));
    std::thread::scope(|scope| {
        for fetcher in [&one, &two] {
            scope.spawn(|| fetcher.pinned(&[wanted(&content()), wanted(&content())]).unwrap());
        }
    });
    assert_eq!(server.seen().len(), 1);
    assert!(fs::read_dir(ground.path("store/tmp")).unwrap().next().is_none());
}

#[test]
fn http_goes_to_a_proxy_in_absolute_form_with_the_proxys_credentials() {
    let proxy = good();
    let ground = Ground::new().set("http_proxy", format!("http://me:s%40@{}", proxy.address));
    ground.debian(&["http://mirror.test/debian".into()]).pinned(&[wanted(&content())]).unwrap();
    let seen = proxy.seen();
    assert_eq!(seen[0].line, format!("GET http://mirror.test/debian/{PATH}"));
    assert_eq!(seen[0].headers["host"], "mirror.test");
    assert_eq!(seen[0].headers["proxy-authorization"], "Basic bWU6c0A=");
    // Two more on the same connection.
    let unpinned = |fetcher: &Fetcher, path| fetcher.unpinned(&debian(), path, 1 << 20).unwrap().len();
    let fetcher = ground.debian(&["http://mirror.test/debian".into()]);
    assert_eq!(unpinned(&fetcher, "a") + unpinned(&fetcher, "b"), 2 * content().len());
    assert_eq!(proxy.seen()[2].line, "GET http://mirror.test/debian/b");
}

#[test]
fn https_goes_through_a_tunnel_and_exceptions_go_straight() {
    let proxy = Server::start(|_| Answer::Status(403, ""));
    let ground =
        Ground::new().set("https_proxy", proxy.url("")).set("http_proxy", proxy.url("")).set("no_proxy", "127.0.0.1");
    let error = ground.debian(&["https://mirror.test/debian".into()]).pinned(&[wanted(&content())]).unwrap_err();
    assert!(matches!(refusals(error)[..], [Refusal::Network(_)]));
    assert!(proxy.seen()[0].line.starts_with("CONNECT mirror.test:443"), "{:?}", proxy.seen());
    let asked = proxy.seen().len();
    ground.debian(&[base(&good())]).pinned(&[wanted(&content())]).unwrap();
    assert_eq!(proxy.seen().len(), asked);
}

#[test]
fn credentials_go_to_their_host_and_not_where_it_redirects_to() {
    let elsewhere = good();
    let to = elsewhere.url("x");
    let own = Server::start(move |request| match request.line.ends_with("second") {
        false => Answer::Redirect("/second".into()),
        true => Answer::Redirect(to.clone()),
    });
    let ground = Ground::new();
    let netrc = ground.write("netrc", "machine 127.0.0.1 login me password s3cret");
    let ground = ground.set("NETRC", netrc.display());
    let told = Arc::new(Mutex::new(Vec::new()));
    // One with the password in its address, too.
    for mirror in [base(&own), base(&own).replace("http://", "http://me:s3cret@")] {
        let unreachable = mirror.replace("debian/", "none/");
        let fetcher = ground.debian(&[mirror, unreachable]).telling({
            let told = told.clone();
            move |event| told.lock().unwrap().push(format!("{event:?}"))
        });
        fetcher.pinned(&[wanted(&content())]).unwrap();
        fs::remove_file(ground.path(&format!("store/files/{}", Digest::of(content())))).unwrap();
    }
    assert!(own.seen().iter().all(|r| r.headers["authorization"] == "Basic bWU6czNjcmV0"), "{:?}", own.seen());
    assert_eq!(own.seen().len(), 4);
    assert!(elsewhere.seen().iter().all(|r| !r.headers.contains_key("authorization")));
    assert!(!told.lock().unwrap().concat().contains("s3cret"));
}

#[test]
fn apts_sources_and_proxy_are_honoured_for_apts_mirrors_only() {
    let (proxy, own) = (good(), good());
    let ground = Ground::new();
    ground.write("host/etc/apt/sources.list", "deb http://mirror.test/debian bookworm main\n");
    let dump = format!("Dir \"/\";\nAcquire::http::Proxy \"{}\";\n", proxy.url(""));
    let fetcher = |mirrors: &[String]| {
        let dump = dump.clone();
        let host =
            Host::told(BTreeMap::new(), ground.path("host"), move |c| (c[0] == "apt-config").then(|| dump.clone()));
        let config = Config::parse(&format!("[mirrors]\ndebian = {mirrors:?}"), &ground.path("c.toml")).unwrap();
        Fetcher::new(&ground.path("store"), config, host, Network::Online).unwrap()
    };
    fetcher(&[]).unpinned(&debian(), "dists/bookworm/InRelease", 1 << 20).unwrap();
    assert_eq!(proxy.seen()[0].line, "GET http://mirror.test/debian/dists/bookworm/InRelease");
    fetcher(&[base(&own)]).unpinned(&debian(), "x", 1 << 20).unwrap();
    assert_eq!((proxy.seen().len(), own.seen().len()), (1, 1));
}

#[test]
fn an_unpinned_file_has_a_limit_and_a_refusal_is_remembered() {
    let (server, ground) = (
        Server::start(|request| match request.line.as_str() {
            "GET /debian/gone" => Answer::Status(404, ""),
            "GET /debian/endless" => Answer::Endless(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n".to_vec()),
            _ => Answer::File(content()),
        }),
        Ground::new(),
    );
    let fetcher = ground.debian(&[base(&server)]);
    assert!(fetcher.unpinned(&debian(), "x", content().len() as u64).unwrap() == content());
    for path in ["y", "endless"] {
        let error = fetcher.unpinned(&debian(), path, 1000).unwrap_err();
        assert_eq!(refusals(error), [Refusal::TooLarge(1000)], "{path}");
    }
    for _ in 0..2 {
        assert!(fetcher.unpinned(&debian(), "gone", 1000).unwrap_err().is_absent());
    }
    assert_eq!(server.seen().iter().filter(|r| r.line.ends_with("gone")).count(), 1);
}

#[test]
fn a_dated_mirror_is_asked_for_the_date_of_the_lock() {
    let (server, ground) = (good(), Ground::new());
    let fetcher = ground.debian(&[server.url("{date}/debian/")]);
    let suite = Suite {
        archive: "debian".into(),
        name: "bookworm".into(),
        date: "2025-05-20T08:11:36Z".into(),
        inrelease: Digest::of(""),
        signed_by: Vec::new(),
    };
    assert!(fetcher.pinned(&[wanted(&content())]).is_err());
    fetcher.dated(&[suite]).pinned(&[wanted(&content())]).unwrap();
    assert_eq!(server.seen()[0].line, format!("GET /20250520T081136Z/debian/{PATH}"));
}

#[test]
fn paths_that_lead_outside_a_mirror_are_refused() {
    let ground = Ground::new();
    ground.write("secret", "x");
    let fetcher = ground.debian(&["debs".into()]);
    for path in ["../secret", "/etc/passwd", "pool//x", "pool/./x", "", "a\\b"] {
        let error = fetcher.pinned(&[Wanted { path: path.into(), ..wanted(b"x") }]).unwrap_err();
        assert_eq!(error.kind(), Kind::BadInput, "{path}");
    }
    let address = |path: &str| Wanted { archive: Archive::Address, path: path.into(), ..wanted(b"x") };
    assert_eq!(fetcher.pinned(&[address("file:///etc/passwd")]).unwrap_err().kind(), Kind::BadInput);
}

#[test]
fn an_address_is_asked_after_the_mirrors_that_know_its_name() {
    let (server, ground) = (good(), Ground::new());
    let file = ground.write("tarballs/x-1.tar.gz", content());
    let want = Wanted {
        archive: Archive::Address,
        path: server.url("a/x-1.tar.gz?raw=1"),
        size: None,
        sha256: Digest::of(content()),
    };
    let fetcher = ground.fetcher("url = [\"tarballs\"]", Network::Online);
    fetcher.pinned(std::slice::from_ref(&want)).unwrap();
    assert_eq!(server.seen().len(), 0);
    fs::remove_file(file).unwrap();
    fs::remove_file(ground.path(&format!("store/files/{}", Digest::of(content())))).unwrap();
    fetcher.pinned(&[want]).unwrap();
    assert_eq!(server.seen()[0].line, "GET /a/x-1.tar.gz?raw=1");
}

#[test]
fn a_release_is_found_in_either_form_of_index_and_its_address_is_the_listings() {
    let digest = Digest::of(content());
    let html = format!("<html><a href=\"../../files/idna-3.7.tar.gz#sha256={digest}\">idna-3.7.tar.gz</a></html>");
    let json = format!(
        "{{\"files\": [{{\"filename\": \"idna-3.7.tar.gz\", \"url\": \"../../files/idna-3.7.tar.gz\", \"hashes\": {{\"sha256\": \"{digest}\"}}}}]}}"
    );
    for listing in [html, json] {
        let (server, ground) = (
            Server::start(move |request| match request.line.as_str() {
                "GET /simple/idna/" => Answer::File(listing.clone().into_bytes()),
                "GET /files/idna-3.7.tar.gz" => Answer::File(content()),
                _ => Answer::Status(404, ""),
            }),
            Ground::new(),
        );
        let fetcher = ground.fetcher(&format!("pypi = [{:?}]", server.url("simple")), Network::Online);
        let pin = crate::pin::pypi::pin(&fetcher, "IDNA", "3.7", kiln_model::recipe::PypiFile::Sdist).unwrap();
        assert_eq!(pin.files.locked[0].sha256, digest);
        assert_eq!(pin.files.locked[0].size, content().len() as u64);
        assert_eq!(server.seen().len(), 2, "the listing is read once: {:?}", server.seen());
        assert!(server.seen()[0].headers["accept"].starts_with("application/vnd.pypi.simple.v1+json"));
    }
}

#[test]
fn pips_own_default_is_asked_for_when_no_index_is_configured() {
    let (server, mut ground) = (Server::start(|_| Answer::Status(404, "")), Ground::new());
    let none = ground.fetcher("", Network::Online).unpinned(&Archive::Pypi, "idna", 9).unwrap_err();
    assert!(none.to_string().contains("no python3 with pip answered"), "{none}");
    ground.python = Some(server.url("simple\n"));
    assert!(ground.fetcher("", Network::Online).unpinned(&Archive::Pypi, "idna", 9).unwrap_err().is_absent());
    assert_eq!(server.seen()[0].line, "GET /simple/idna/");
    let offline = ground.fetcher("", Network::Offline).unpinned(&Archive::Pypi, "idna", 9).unwrap_err();
    assert_eq!(refusals(offline), [Refusal::Offline]);
    assert_eq!(server.seen().len(), 1);
}

#[test]
fn loose_files_are_an_index_of_their_own() {
    let ground = Ground::new();
    ground.write("wheels/foo_bar-1.0-py3-none-any.whl", "x");
    ground.write("wheels/other-1.0.tar.gz", "y");
    let fetcher = ground.fetcher("pypi = [\"wheels\"]", Network::Offline);
    let pin = crate::pin::pypi::pin(&fetcher, "foo.bar", "1", kiln_model::recipe::PypiFile::Wheel).unwrap();
    assert_eq!(fs::read(&pin.files.at[0].1).unwrap(), b"x");
    let error = fetcher.unpinned(&Archive::Pypi, "absent", 99).unwrap_err();
    assert!(matches!(refusals(error)[..], [Refusal::Absent(_), Refusal::Offline]));
}

#[test]
fn a_transfer_is_told_from_start_to_finish() {
    let (server, ground) = (good(), Ground::new());
    let told = Arc::new(Mutex::new(Vec::new()));
    let sink = {
        let told = told.clone();
        move |event| told.lock().unwrap().push(event)
    };
    ground.debian(&[base(&server)]).telling(sink).pinned(&[wanted(&content())]).unwrap();
    let told = told.lock().unwrap().clone();
    let Event::Started { task, ref name, total, .. } = told[0] else { panic!("{told:?}") };
    assert_eq!((name.as_str(), total), ("hello_2.10-3_amd64.deb", Some(content().len() as u64)));
    assert!(told.contains(&Event::Advanced { task, done: content().len() as u64 }));
    assert_eq!(told.last(), Some(&Event::Finished { task }));
}

#[test]
fn a_store_that_cannot_be_written_is_the_hosts_failure() {
    let ground = Ground::new();
    ground.write("store/files", "a file, not a directory");
    let host = Host::told(BTreeMap::new(), ground.path("host"), |_| None);
    let error = Fetcher::new(&ground.path("store"), Config::default(), host, Network::Offline).err().unwrap();
    assert_eq!(error.kind(), Kind::Host);
}
