//! The fixed face of every sandbox: Nix's `/etc` and the files that stand in for telling ones in
//! `/proc`.
//!
//! Pure: bytes in, bytes out. Changing one byte here can change the outputs of builds.

/// `/etc/passwd`, `/etc/group` and `/etc/hosts` exactly as Nix writes them.
pub(crate) fn nix_etc() -> Vec<(String, Vec<u8>)> {
    vec![
        (
            "passwd".into(),
            b"root:x:0:0:Nix build user:/build:/noshell\n\
              nixbld:x:1000:100:Nix build user:/build:/noshell\n\
              nobody:x:65534:65534:Nobody:/:/noshell\n"
                .to_vec(),
        ),
        ("group".into(), b"root:x:0:\nnixbld:!:100:\nnogroup:x:65534:\n".to_vec()),
        ("hosts".into(), b"127.0.0.1 localhost\n::1 localhost\n".to_vec()),
    ]
}

/// `/proc/meminfo` of no machine: 4 GiB, three quarters of it free. On none is all of it: libuv's tests hold that.
pub(crate) const MEMINFO: &[u8] = b"MemTotal:        4194304 kB\n\
MemFree:         3145728 kB\n\
MemAvailable:    3145728 kB\n\
Buffers:               0 kB\n\
Cached:                0 kB\n\
SwapCached:            0 kB\n\
SwapTotal:             0 kB\n\
SwapFree:              0 kB\n";

/// `/proc/loadavg` of an idle machine.
pub(crate) const LOADAVG: &[u8] = b"0.00 0.00 0.00 1/2 2\n";

/// `/proc/sys/kernel/random/boot_id` of no boot.
pub(crate) const BOOT_ID: &[u8] = b"00000000-0000-4000-8000-000000000000\n";

/// `/proc/stat` of a machine that just started with `cpus` processors.
pub(crate) fn stat(cpus: usize) -> Vec<u8> {
    let mut text = String::from("cpu  0 0 0 0 0 0 0 0 0 0\n");
    for cpu in 0..cpus {
        text.push_str(&format!("cpu{cpu} 0 0 0 0 0 0 0 0 0 0\n"));
    }
    text.push_str("intr 0\nctxt 0\nbtime 0\nprocesses 1\nprocs_running 1\nprocs_blocked 0\nsoftirq 0\n");
    text.into_bytes()
}

/// The first `cpus` blocks of the host's `/proc/cpuinfo`.
pub(crate) fn cpuinfo(host: &str, cpus: usize) -> Vec<u8> {
    let mut text = String::new();
    for block in host.split("\n\n").filter(|block| !block.trim().is_empty()).take(cpus) {
        text.push_str(block.trim_start_matches('\n'));
        text.push_str("\n\n");
    }
    text.into_bytes()
}

/// `/sys/devices/system/cpu/online` for `cpus` processors.
pub(crate) fn online(cpus: usize) -> Vec<u8> {
    match cpus {
        0 | 1 => b"0\n".to_vec(),
        more => format!("0-{}\n", more - 1).into_bytes(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn etc_has_the_sizes_that_nix_gives_it() {
        let sizes: Vec<usize> = nix_etc().iter().map(|(_, bytes)| bytes.len()).collect();
        assert_eq!(sizes, [130, 41, 34]);
    }

    #[test]
    fn some_memory_is_in_use_and_none_is_there_twice() {
        let value = |name: &str| -> u64 {
            let text = std::str::from_utf8(MEMINFO).unwrap();
            let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            line.trim().strip_suffix(" kB").unwrap().parse().unwrap()
        };
        assert!(value("MemTotal:") > value("MemAvailable:"));
        assert!(value("MemTotal:") > value("MemFree:") + value("Cached:"));
    }

    #[test]
    fn cpuinfo_keeps_only_as_many_blocks_as_there_are_processors() {
        let host = "processor: 0\nmodel: a\n\nprocessor: 1\nmodel: a\n\nprocessor: 2\n\n";
        assert_eq!(cpuinfo(host, 2), b"processor: 0\nmodel: a\n\nprocessor: 1\nmodel: a\n\n");
        assert_eq!(online(2), b"0-1\n");
        assert_eq!(online(1), b"0\n");
    }
}
