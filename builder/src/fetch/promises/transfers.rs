//! One file from one server, or from the next: retried, gone on with, given up, refused.

use super::*;

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
