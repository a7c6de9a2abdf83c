//! Where files are looked for: mirrors, indices, directories, proxies, and with whose credentials.

use super::*;

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
