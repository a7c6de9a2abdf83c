//! Another build, the host, the network: nothing of them can be reached.

use std::net::{TcpListener, UdpSocket};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::process::{Command, Stdio};

use kiln_sandbox::{Network, Spec};

use crate::ground::{Background, REACH, held, mark, not_here, outside, told};
use crate::harness::{Bench, bench_of};

/// CVE-2024-27297: with a shared network namespace two builds did meet on an abstract socket.
#[test]
fn e01_two_builds_cannot_meet_on_an_abstract_socket_to_pass_a_descriptor() {
    let (Some(one), Some(other)) = (bench_of(REACH), bench_of(REACH)) else { return };
    // Where the network is the caller's, Landlock's scope holds them apart.
    for network in [Network::None, Network::Host] {
        let spec = |bench: &Bench, arguments: &[&str]| Spec { network, ..bench.spec(arguments[0], &arguments[1..]) };
        let name = mark("abstract");
        let smuggler = Background::start(&one, &spec(&one, &["smuggle", &name]), "listening");
        held(&other.run(&spec(&other, &["visit", &name])), 1);
        // The same slot, as one kiln might use it twice.
        held(&one.run(&spec(&one, &["visit", &name])), 1);
        let log = smuggler.stop();
        assert!(!log.contains("visited"), "{log}");
        assert_eq!(std::fs::read(one.path("build/output")).unwrap(), b"smuggled", "only its own child got it");
    }
}

#[test]
fn e01_an_abstract_socket_of_the_host_is_out_of_reach() {
    let Some(bench) = bench_of(REACH) else { return };
    let name = mark("host-abstract");
    let address = SocketAddr::from_abstract_name(&name).unwrap();
    let listener = UnixListener::bind_addr(&address).unwrap();
    UnixStream::connect_addr(&address).unwrap();
    let control = outside(&bench, &["visit", &name]);
    assert!(String::from_utf8_lossy(&control.stdout).contains("possible"), "{control:?}");
    for _ in 0..2 {
        listener.accept().unwrap();
    }
    listener.set_nonblocking(true).unwrap();
    held(&bench.run(&bench.spec("visit", &[&name])), 1);
    assert_eq!(listener.accept().unwrap_err().kind(), std::io::ErrorKind::WouldBlock, "someone came");
}

/// CVE-2025-46416.
#[test]
fn e06_no_directory_in_which_two_builds_could_meet_by_socket_or_fifo() {
    let (Some(one), Some(other)) = (bench_of(REACH), bench_of(REACH)) else { return };
    let server = Background::start(&one, &one.spec("paths-serve", &[]), "listening");
    let mut spec = other.spec("paths-visit", &[]);
    spec.inputs[1].source = one.path("input");
    held(&other.run(&spec), 10);
    server.stop();
}

#[test]
fn e23_no_address_of_the_host_or_beyond_answers_and_the_inner_loopback_does() {
    let Some(bench) = bench_of(REACH) else { return };
    let name = format!("/tmp/.X11-unix/{}", mark("x11"));
    let x11 = UnixListener::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
    let v4 = TcpListener::bind("127.0.0.1:0").unwrap();
    let v6 = TcpListener::bind("[::1]:0");
    if let Err(error) = &v6 {
        not_here("E23 ipv6", &error.to_string());
    }
    let port = |listener: &TcpListener| listener.local_addr().unwrap().port().to_string();
    let port6 = v6.as_ref().map_or_else(|_| "9".into(), port);
    let dns = UdpSocket::bind("127.0.0.1:0").unwrap();
    held(&bench.run(&bench.spec("network", &[&port(&v4), &port6, &name])), 17);
    for listener in [Some(&v4), v6.as_ref().ok()].into_iter().flatten() {
        listener.set_nonblocking(true).unwrap();
        assert!(listener.accept().is_err(), "someone came");
    }
    x11.set_nonblocking(true).unwrap();
    assert!(x11.accept().is_err(), "someone came");
    drop(dns);
}

/// AF_VSOCK is not confined by a network namespace: the hypervisor answered from inside one.
#[test]
fn e23_sockets_to_the_hypervisor_the_wire_and_the_kernel_s_own_services_are_refused() {
    let Some(bench) = bench_of(REACH) else { return };
    if outside(&bench, &["vsock"]).status.code() != Some(0) {
        not_here("E23 vsock", "this kernel has no such sockets, so the refusal is all there is to see");
    }
    held(&bench.run(&bench.spec("families", &[])), 60);
}

#[test]
fn e24_shared_memory_queues_keys_and_processes_of_the_host_are_not_there() {
    let Some(bench) = bench_of(REACH) else { return };
    let (key, name) = ((0x4b00_0000 + std::process::id()).to_string(), format!("/{}", mark("ipc")));
    let mut host = Command::new(bench.path("probe"))
        .args(["ipc-host", &key, &name])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut first = String::new();
    let mut output = std::io::BufReader::new(host.stdout.take().unwrap());
    std::io::BufRead::read_line(&mut output, &mut first).unwrap();
    let run = bench.run(&bench.spec("ipc", &[&key, &name, &host.id().to_string()]));
    drop(host.stdin.take());
    assert_eq!((first.as_str(), host.wait().unwrap().code()), ("made\n", Some(0)), "the control");
    held(&run, 10);
    // SECURITY.md says so; whoever makes this work takes the line away.
    assert_eq!(told(&run, "queue"), "EACCES");
}

/// One inode is one inode: whoever may read it can lock it, wait on it and watch it, read-only mount or not.
#[test]
fn e24_what_builds_that_share_an_input_can_signal_is_what_security_md_admits() {
    let (Some(one), Some(other)) = (bench_of(REACH), bench_of(REACH)) else { return };
    let file = "/nix/store/input/file";
    let waiter = Background::start(&one, &one.spec("wait-on-input", &[file]), "listening");
    let mut spec = other.spec("wake-on-input", &[file]);
    spec.inputs[1].source = one.path("input");
    let run = other.run(&spec);
    held(&run, 3);
    waiter.says("noticed");
    let log = waiter.stop() + &run.log;
    let admitted = include_str!("../../../SECURITY.md");
    for line in log.lines().filter_map(|line| line.strip_prefix("channel ")) {
        assert!(admitted.contains(&format!("`{line}`")), "SECURITY.md does not admit {line}");
    }
    assert!(log.contains("channel flock"), "the probe saw no channel at all:\n{log}");
    // Without a file in common there is none.
    let (Some(one), Some(other)) = (bench_of(REACH), bench_of(REACH)) else { return };
    let waiter = Background::start(&one, &one.spec("wait-on-input", &[file]), "listening");
    let run = other.run(&other.spec("wake-on-input", &[file]));
    held(&run, 3);
    let log = waiter.stop() + &run.log;
    assert!(!log.contains("channel"), "{log}");
}
