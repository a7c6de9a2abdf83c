//! Traits of this machine that a build might have seen, for its outcome.

use std::num::NonZeroU32;
use std::path::Path;
use std::sync::OnceLock;

use kiln_model::outcome::Host;
use nix::sched::{CpuSet, sched_getaffinity};
use nix::sys::statfs::{self, FsType};
use nix::unistd::Pid;

/// Numbers of the processors that kiln itself may run on; at least one.
pub fn processors() -> Vec<usize> {
    let Ok(set) = sched_getaffinity(Pid::from_raw(0)) else { return vec![0] };
    let cpus: Vec<usize> = (0..CpuSet::count()).filter(|&cpu| set.is_set(cpu).unwrap_or(false)).collect();
    if cpus.is_empty() { vec![0] } else { cpus }
}

/// How many processors kiln itself may run on.
pub fn processor_count() -> NonZeroU32 {
    u32::try_from(processors().len()).ok().and_then(NonZeroU32::new).unwrap_or(NonZeroU32::MIN)
}

/// Bytes of memory that the machine has, from `/proc/meminfo` (proc(5)); 1 GiB where that cannot be read.
pub fn memory() -> u64 {
    static MEMORY: OnceLock<u64> = OnceLock::new();
    *MEMORY.get_or_init(total_memory)
}

fn total_memory() -> u64 {
    let kib = std::fs::read_to_string("/proc/meminfo").ok().and_then(|text| {
        let line = text.lines().find(|line| line.starts_with("MemTotal:"))?;
        line.split_whitespace().nth(1)?.parse::<u64>().ok()
    });
    kib.unwrap_or(1 << 20) * 1024
}

/// Name of the file system that `path` lies on; its magic number in hexadecimal where it is none of the usual ones.
pub fn file_system(path: &Path) -> String {
    match statfs::statfs(path) {
        Ok(stat) => file_system_name(stat.filesystem_type()),
        Err(_) => "unknown".into(),
    }
}

/// Name of a file system by its magic number (statfs(2)).
pub fn file_system_name(magic: FsType) -> String {
    const XFS: i64 = 0x5846_5342;
    const ZFS: i64 = 0x2fc1_2fc1;
    const BCACHEFS: i64 = 0xca45_1a4e;
    match magic {
        statfs::TMPFS_MAGIC => "tmpfs".into(),
        statfs::EXT4_SUPER_MAGIC => "ext4".into(),
        statfs::BTRFS_SUPER_MAGIC => "btrfs".into(),
        statfs::OVERLAYFS_SUPER_MAGIC => "overlay".into(),
        statfs::NFS_SUPER_MAGIC => "nfs".into(),
        FsType(XFS) => "xfs".into(),
        FsType(ZFS) => "zfs".into(),
        FsType(BCACHEFS) => "bcachefs".into(),
        FsType(other) => format!("{other:#x}"),
    }
}

/// The processor's own name. Asked once: the kernel makes the text anew for each processor, which takes longer than a small file.
fn cpu() -> &'static str {
    static CPU: OnceLock<String> = OnceLock::new();
    CPU.get_or_init(|| {
        let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let name = text.lines().find_map(|line| Some(line.strip_prefix("model name")?.split_once(':')?.1.trim()));
        name.unwrap_or("unknown").to_owned()
    })
}

/// The traits of this machine, and of the store at `store`.
pub fn traits(store: &Path) -> Host {
    let uname = nix::sys::utsname::uname();
    let part = |get: fn(&nix::sys::utsname::UtsName) -> &std::ffi::OsStr| {
        uname.as_ref().map(|u| get(u).to_string_lossy().into_owned()).unwrap_or_default()
    };
    Host {
        kernel: format!("{} {} {}", part(|u| u.sysname()), part(|u| u.release()), part(|u| u.version())),
        machine: part(|u| u.machine()),
        cpu: cpu().to_owned(),
        cores: processor_count().get(),
        store_file_system: file_system(store),
        kiln: env!("CARGO_PKG_VERSION").into(),
    }
}
