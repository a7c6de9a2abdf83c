//! The system call filters, as tables of rules.
//!
//! Deny list over default allow, for calls that this table knows; calls newer than the table answer ENOSYS, which user
//! space takes as an old kernel. Arguments in memory cannot be read by a filter, so calls that hide their flags there
//! (`clone3`, `openat2`, io_uring) answer ENOSYS too. Wrong architecture and x32: the process is killed.

use std::collections::BTreeSet;

use crate::spec::{Filter, Ids};

mod assemble;

use assemble::{
    ALLOW, ARCH_AT, Check, Instruction, JUMP_AT_LEAST, JUMP_EQUAL, KILL, LOAD, NUMBER_AT, RETURN, Rule, answer, search,
};

#[cfg(not(target_arch = "x86_64"))]
compile_error!("the table of system calls is x86-64's; another architecture needs its own numbers");

const EPERM: u16 = libc::EPERM as u16;
const ENOSYS: u16 = libc::ENOSYS as u16;
const ENOTSUP: u16 = libc::ENOTSUP as u16;
/// The call is not made and succeeds.
const DONE: u16 = 0;

/// First number that this table does not know.
pub(crate) const BEYOND: u32 = 471;
/// Bit of the x32 interface in a call's number.
const X32: u32 = 0x4000_0000;
/// `AUDIT_ARCH_X86_64`.
const ARCH: u32 = 0xc000_003e;
/// Set-user-id and set-group-id.
const SET_ID: u32 = 0o6000;
const NEW_NAMESPACES: u32 = (libc::CLONE_NEWNS
    | libc::CLONE_NEWCGROUP
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET) as u32;
/// `O_CREAT`, and `O_TMPFILE` without `O_DIRECTORY`: only these make `open` read a mode.
const CREATES: u32 = (libc::O_CREAT | (libc::O_TMPFILE & !libc::O_DIRECTORY)) as u32;

const PERMITTED_FAMILIES: &[u32] =
    &[libc::AF_UNIX as u32, libc::AF_INET as u32, libc::AF_INET6 as u32, libc::AF_NETLINK as u32];
/// None, `ADDR_NO_RANDOMIZE`, and asking.
const PERMITTED_PERSONALITIES: &[u32] = &[0, 0x0004_0000, u32::MAX];

const REAPING: &[i64] = &[
    libc::SYS_rt_sigtimedwait,
    libc::SYS_wait4,
    libc::SYS_waitid,
    libc::SYS_kill,
    libc::SYS_getrusage,
    libc::SYS_write,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_restart_syscall,
];

/// Calls that the libc crate does not name yet.
const OPEN_TREE_ATTR: u32 = 467;
const STATMOUNT: u32 = 457;
const LISTMOUNT: u32 = 458;
const LISTNS: u32 = 470;
const FILE_SETATTR: u32 = 469;
const SETXATTRAT: u32 = 463;
const GETXATTRAT: u32 = 464;
const LISTXATTRAT: u32 = 465;
const REMOVEXATTRAT: u32 = 466;
const URETPROBE: u32 = 335;
const UPROBE: u32 = 336;

fn rules(filter: Filter, ids: Ids) -> Vec<Rule> {
    let mut rules = Vec::new();
    let mut rule = |call: i64, checks: &[Check]| {
        rules.push(Rule { call: call as u32, checks: checks.to_vec() });
    };

    for call in [
        libc::SYS_io_uring_setup,
        libc::SYS_io_uring_enter,
        libc::SYS_io_uring_register,
        libc::SYS_clone3,
        libc::SYS_openat2,
    ] {
        rule(call, &[Check::Always(ENOSYS)]);
    }
    for call in [
        libc::SYS_setns,
        // mounts
        libc::SYS_mount,
        libc::SYS_umount2,
        libc::SYS_pivot_root,
        libc::SYS_fsopen,
        libc::SYS_fsconfig,
        libc::SYS_fsmount,
        libc::SYS_fspick,
        libc::SYS_move_mount,
        libc::SYS_open_tree,
        libc::SYS_mount_setattr,
        OPEN_TREE_ATTR.into(),
        STATMOUNT.into(),
        LISTMOUNT.into(),
        LISTNS.into(),
        // keys are per user of the host, shared by sandboxes
        libc::SYS_keyctl,
        libc::SYS_add_key,
        libc::SYS_request_key,
        // kernel surface
        libc::SYS_bpf,
        libc::SYS_perf_event_open,
        libc::SYS_userfaultfd,
        libc::SYS_kexec_load,
        libc::SYS_kexec_file_load,
        libc::SYS_init_module,
        libc::SYS_finit_module,
        libc::SYS_delete_module,
        libc::SYS_quotactl,
        libc::SYS_quotactl_fd,
        libc::SYS_swapon,
        libc::SYS_swapoff,
        libc::SYS_reboot,
        libc::SYS_acct,
        libc::SYS_settimeofday,
        libc::SYS_clock_settime,
        libc::SYS_adjtimex,
        libc::SYS_clock_adjtime,
        libc::SYS_sethostname,
        libc::SYS_setdomainname,
        libc::SYS_name_to_handle_at,
        libc::SYS_open_by_handle_at,
        libc::SYS_memfd_secret,
        libc::SYS_lookup_dcookie,
        libc::SYS_syslog,
        libc::SYS_iopl,
        libc::SYS_ioperm,
        libc::SYS_vhangup,
        libc::SYS_nfsservctl,
        FILE_SETATTR.into(),
        URETPROBE.into(),
        UPROBE.into(),
    ] {
        rule(call, &[Check::Always(EPERM)]);
    }
    let namespaces = |bits| Check::Bits { argument: 0, bits, answer: EPERM };
    rule(libc::SYS_clone, &[namespaces(NEW_NAMESPACES)]);
    rule(libc::SYS_unshare, &[namespaces(NEW_NAMESPACES | libc::CLONE_NEWTIME as u32)]);
    for call in [libc::SYS_socket, libc::SYS_socketpair] {
        let families = Check::NoneOf { argument: 0, values: PERMITTED_FAMILIES, answer: EPERM };
        rule(call, &[families]);
    }
    rule(libc::SYS_personality, &[Check::NoneOf { argument: 0, values: PERMITTED_PERSONALITIES, answer: EPERM }]);
    // Typing into a terminal, and attaching line disciplines.
    let request = |value: u64| Check::Equal { argument: 1, mask: u32::MAX, value: value as u32, answer: EPERM };
    rule(libc::SYS_ioctl, &[request(libc::TIOCSTI), request(libc::TIOCLINUX), request(libc::TIOCSETD)]);

    // A lease on an input, which an unprivileged kiln's payload owns, makes the host's own opens wait for the payload.
    rule(libc::SYS_fcntl, &[request(libc::F_SETLEASE as u64)]);

    let creating =
        |argument, flags| Check::BitsWith { argument, bits: SET_ID, also: flags, also_bits: CREATES, answer: EPERM };
    rule(libc::SYS_open, &[creating(2, 1)]);
    rule(libc::SYS_openat, &[creating(3, 2)]);
    rule(libc::SYS_creat, &[Check::Bits { argument: 1, bits: SET_ID, answer: EPERM }]);
    let (faked, xattrs) = match filter {
        Filter::Build => (EPERM, ENOTSUP),
        Filter::FakeRoot => (DONE, DONE),
    };
    for (call, mode) in [(libc::SYS_mknod, 1), (libc::SYS_mknodat, 2)] {
        let node = |value| Check::Equal { argument: mode, mask: libc::S_IFMT, value, answer: faked };
        let set_id = Check::Bits { argument: mode, bits: SET_ID, answer: EPERM };
        rule(call, &[node(libc::S_IFCHR), node(libc::S_IFBLK), set_id]);
    }
    for (call, mode) in [(libc::SYS_chmod, 1), (libc::SYS_fchmod, 1), (libc::SYS_fchmodat, 2), (libc::SYS_fchmodat2, 2)]
    {
        rule(call, &[Check::Bits { argument: mode, bits: SET_ID, answer: faked }]);
    }
    for call in [
        libc::SYS_setxattr,
        libc::SYS_lsetxattr,
        libc::SYS_fsetxattr,
        libc::SYS_removexattr,
        libc::SYS_lremovexattr,
        libc::SYS_fremovexattr,
        SETXATTRAT.into(),
        REMOVEXATTRAT.into(),
    ] {
        rule(call, &[Check::Always(xattrs)]);
    }
    for call in [
        libc::SYS_getxattr,
        libc::SYS_lgetxattr,
        libc::SYS_fgetxattr,
        libc::SYS_listxattr,
        libc::SYS_llistxattr,
        libc::SYS_flistxattr,
        GETXATTRAT.into(),
        LISTXATTRAT.into(),
    ] {
        rule(call, &[Check::Always(ENOTSUP)]);
    }
    if let Ids::One { uid, gid } = ids {
        // An id that is not mapped would be EINVAL, for which no program is prepared: where there are others, it is EPERM.
        let user = |argument| Check::Foreign { argument, own: uid, answer: EPERM };
        let group = |argument| Check::Foreign { argument, own: gid, answer: EPERM };
        for call in [libc::SYS_chown, libc::SYS_lchown, libc::SYS_fchown] {
            rule(call, &[user(1), group(2)]);
        }
        rule(libc::SYS_fchownat, &[user(2), group(3)]);
        rule(libc::SYS_setuid, &[user(0)]);
        rule(libc::SYS_setgid, &[group(0)]);
        rule(libc::SYS_setreuid, &[user(0), user(1)]);
        rule(libc::SYS_setregid, &[group(0), group(1)]);
        rule(libc::SYS_setresuid, &[user(0), user(1), user(2)]);
        rule(libc::SYS_setresgid, &[group(0), group(1), group(2)]);
    }
    if filter == Filter::FakeRoot {
        for call in [
            libc::SYS_chown,
            libc::SYS_lchown,
            libc::SYS_fchown,
            libc::SYS_fchownat,
            libc::SYS_setuid,
            libc::SYS_setgid,
            libc::SYS_setreuid,
            libc::SYS_setregid,
            libc::SYS_setresuid,
            libc::SYS_setresgid,
            libc::SYS_setgroups,
            libc::SYS_setfsuid,
            libc::SYS_setfsgid,
            libc::SYS_capset,
        ] {
            rule(call, &[Check::Always(DONE)]);
        }
        // What a fake root makes is copied and synced by the caller or thrown away; dpkg syncs each of thousands of files,
        // and each waits for whatever else the machine writes.
        for call in [libc::SYS_sync, libc::SYS_fsync, libc::SYS_fdatasync, libc::SYS_syncfs, libc::SYS_sync_file_range]
        {
            rule(call, &[Check::Always(DONE)]);
        }
    }
    rules.sort_by_key(|rule| rule.call);
    debug_assert!(rules.windows(2).all(|pair| pair[0].call < pair[1].call), "one rule per call");
    rules
}

/// The assembled filter.
pub(crate) fn program(filter: Filter, ids: Ids) -> Vec<Instruction> {
    let mut program = vec![
        (LOAD, 0, 0, ARCH_AT),
        (JUMP_EQUAL, 1, 0, ARCH),
        (RETURN, 0, 0, KILL),
        (LOAD, 0, 0, NUMBER_AT),
        (JUMP_AT_LEAST, 0, 1, X32),
        (RETURN, 0, 0, KILL),
        (JUMP_AT_LEAST, 0, 1, BEYOND),
        answer(ENOSYS),
    ];
    program.extend(search(&rules(filter, ids)));
    program
}

/// The filter of pid 1 once it has forked: it waits, forwards a signal, writes its report and ends.
pub(crate) fn of_pid_1() -> Vec<Instruction> {
    let mut program =
        vec![(LOAD, 0, 0, ARCH_AT), (JUMP_EQUAL, 1, 0, ARCH), (RETURN, 0, 0, KILL), (LOAD, 0, 0, NUMBER_AT)];
    for call in REAPING {
        program.extend([(JUMP_EQUAL, 0, 1, *call as u32), (RETURN, 0, 0, ALLOW)]);
    }
    program.push(answer(EPERM));
    program
}

/// A filter that gives these calls to a supervisor and lets all others pass. It comes under the first and weakens
/// nothing of it: of several answers the kernel takes the strictest, and an errno is stricter than a supervisor.
pub(crate) fn watch(calls: &BTreeSet<u32>) -> Vec<Instruction> {
    // Of other interfaces only what the first filter kills.
    let mut program =
        vec![(LOAD, 0, 0, ARCH_AT), (JUMP_EQUAL, 1, 0, ARCH), (RETURN, 0, 0, ALLOW), (LOAD, 0, 0, NUMBER_AT)];
    let rules: Vec<Rule> = calls.iter().map(|&call| Rule { call, checks: vec![Check::Supervised] }).collect();
    program.extend(search(&rules));
    program
}

/// Name, length and FNV-1a checksum of a filter: enough to see that two runs had the same.
pub(crate) fn fingerprint(filter: Filter, ids: Ids, watched: &BTreeSet<u32>) -> String {
    let name = match filter {
        Filter::Build => "build",
        Filter::FakeRoot => "fake-root",
    };
    let first = checksum(name, &program(filter, ids));
    if watched.is_empty() { first } else { format!("{first}+{}", checksum("watch", &watch(watched))) }
}

fn checksum(name: &str, program: &[Instruction]) -> String {
    let mut sum: u64 = 0xcbf2_9ce4_8422_2325;
    for (code, jt, jf, k) in program {
        let bytes = code.to_le_bytes().into_iter().chain([*jt, *jf]).chain(k.to_le_bytes());
        for byte in bytes {
            sum = (sum ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
    format!("{name}-{}-{sum:016x}", program.len())
}

#[cfg(test)]
mod tests {
    use super::assemble::{AND, ERRNO, JUMP, JUMP_BITS, NOTIFY};
    use super::*;

    const ONE: Ids = Ids::One { uid: 1000, gid: 100 };
    const ALL: [(Filter, Ids); 3] =
        [(Filter::Build, ONE), (Filter::Build, Ids::Range), (Filter::FakeRoot, Ids::FakeRoot)];

    /// What the kernel would do, from the classic BPF subset that the assembler emits.
    fn verdict(program: &[Instruction], arch: u32, call: u32, arguments: [u64; 6]) -> u32 {
        let mut data = [0u32; 16];
        data[0] = call;
        data[1] = arch;
        for (index, argument) in arguments.iter().enumerate() {
            data[4 + 2 * index] = *argument as u32;
            data[5 + 2 * index] = (*argument >> 32) as u32;
        }
        let (mut at, mut accumulator) = (0usize, 0u32);
        loop {
            let (code, jt, jf, k) = program[at];
            at += 1;
            let holds = match code {
                LOAD => {
                    accumulator = data[k as usize / 4];
                    continue;
                }
                AND => {
                    accumulator &= k;
                    continue;
                }
                JUMP => {
                    at += k as usize;
                    continue;
                }
                RETURN => return k,
                JUMP_EQUAL => accumulator == k,
                JUMP_AT_LEAST => accumulator >= k,
                JUMP_BITS => accumulator & k != 0,
                other => panic!("no such instruction: {other:#x}"),
            };
            at += usize::from(if holds { jt } else { jf });
        }
    }

    /// The table read in a line: what the search by halves must agree with.
    fn meant(rules: &[Rule], call: u32, arguments: [u64; 6]) -> u32 {
        if call >= X32 {
            return KILL;
        }
        if call >= BEYOND {
            return ERRNO | u32::from(ENOSYS);
        }
        let low = |argument: u32| arguments[argument as usize] as u32;
        let checks = rules.iter().find(|rule| rule.call == call).map_or(&[][..], |rule| &rule.checks);
        for check in checks {
            let (hit, answer) = match *check {
                Check::Always(answer) => (true, answer),
                Check::Supervised => return NOTIFY,
                Check::Bits { argument, bits, answer } => (low(argument) & bits != 0, answer),
                Check::BitsWith { argument, bits, also, also_bits, answer } => {
                    (low(argument) & bits != 0 && low(also) & also_bits != 0, answer)
                }
                Check::Equal { argument, mask, value, answer } => (low(argument) & mask == value, answer),
                Check::NoneOf { argument, values, answer } => (!values.contains(&low(argument)), answer),
                Check::Foreign { argument, own, answer } => (![own, u32::MAX].contains(&low(argument)), answer),
            };
            if hit {
                return ERRNO | u32::from(answer);
            }
        }
        ALLOW
    }

    #[test]
    fn the_search_by_halves_answers_every_call_as_the_table_does() {
        let words = [
            0,
            1,
            2,
            10,
            16,
            17,
            38,
            40,
            0o100,
            0o2000,
            0o4000,
            0o4755,
            0o755,
            100,
            1000,
            0o020_666,
            0o060_000,
            0o104_755,
            0x80,
            0x5412,
            0x541c,
            0x0002_0000,
            0x0040_0000,
            0x0040_4755,
            0x1000_0000,
            0x7c02_0000,
            0x0004_0000,
            0xffff_ffff,
            0x1_0000_0000,
            0x1_0000_5412,
        ];
        for (filter, ids) in ALL {
            let (program, rules) = (program(filter, ids), rules(filter, ids));
            for call in (0..700).chain([X32, X32 | 39, u32::MAX]) {
                for first in words {
                    for second in words {
                        let arguments = [first, second, first, second, 0, 0];
                        assert_eq!(
                            verdict(&program, ARCH, call, arguments),
                            meant(&rules, call, arguments),
                            "{filter:?} call {call} arguments {first:#x} {second:#x}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn a_watch_gives_its_calls_to_a_supervisor_and_lets_every_other_pass() {
        for calls in [vec![libc::SYS_openat as u32], vec![0, 1, 59, 257, 439], (0..BEYOND).collect()] {
            let calls: BTreeSet<u32> = calls.into_iter().collect();
            let program = watch(&calls);
            for call in 0..600 {
                let meant = if calls.contains(&call) { NOTIFY } else { ALLOW };
                assert_eq!(verdict(&program, ARCH, call, [0; 6]), meant, "{call}");
            }
        }
        let stricter = |one: u32, other: u32| (one as i32) < (other as i32);
        assert!(stricter(KILL, ERRNO) && stricter(ERRNO, NOTIFY) && stricter(NOTIFY, ALLOW), "as the kernel compares");
    }

    #[test]
    fn pid_1_may_reap_and_report_and_do_nothing_else() {
        let program = of_pid_1();
        for call in 0..600 {
            let meant = if REAPING.contains(&i64::from(call)) { ALLOW } else { ERRNO | u32::from(EPERM) };
            assert_eq!(verdict(&program, ARCH, call, [0; 6]), meant, "{call}");
        }
        assert_eq!(verdict(&program, 0x4000_0003, 1, [0; 6]), KILL);
    }

    #[test]
    fn another_architecture_kills_whatever_the_call() {
        let i386 = 0x4000_0003;
        for call in [0, 1, 20, 500] {
            assert_eq!(verdict(&program(Filter::Build, ONE), i386, call, [0; 6]), KILL);
        }
    }

    #[test]
    fn a_fake_root_s_changes_of_owner_succeed_without_being_made() {
        let (fake, build) = (program(Filter::FakeRoot, Ids::FakeRoot), program(Filter::Build, Ids::Range));
        let chown = libc::SYS_fchownat as u32;
        assert_eq!(verdict(&fake, ARCH, chown, [0; 6]), ERRNO);
        assert_eq!(verdict(&build, ARCH, chown, [0; 6]), ALLOW);
        let chmod = libc::SYS_fchmodat as u32;
        assert_eq!(verdict(&fake, ARCH, chmod, [0, 0, 0o4755, 0, 0, 0]), ERRNO);
        assert_eq!(verdict(&fake, ARCH, chmod, [0, 0, 0o755, 0, 0, 0]), ALLOW);
    }

    #[test]
    fn whoever_is_alone_may_be_nobody_else_and_give_files_to_nobody_else() {
        let program = program(Filter::Build, ONE);
        let refused = ERRNO | u32::from(EPERM);
        let same = u64::from(u32::MAX);
        for (call, arguments, meant) in [
            (libc::SYS_chown, [0, 1000, 100], ALLOW),
            (libc::SYS_chown, [0, same, same], ALLOW),
            (libc::SYS_chown, [0, 0, 100], refused),
            (libc::SYS_lchown, [0, 1000, 1000], refused),
            (libc::SYS_fchownat, [0, 0, 1000], refused),
            (libc::SYS_setuid, [1000, 0, 0], ALLOW),
            (libc::SYS_setuid, [0, 0, 0], refused),
            (libc::SYS_setgid, [1000, 0, 0], refused),
            (libc::SYS_setreuid, [same, 1000, 0], ALLOW),
            (libc::SYS_setresuid, [same, 1000, 1], refused),
            (libc::SYS_setresgid, [100, 100, same], ALLOW),
        ] {
            let [first, second, third] = arguments;
            let got = verdict(&program, ARCH, call as u32, [first, second, third, 0, 0, 0]);
            assert_eq!(got, meant, "{call} {arguments:?}");
        }
    }

    #[test]
    fn the_program_fits_the_kernel_s_bound_of_4096_instructions() {
        for (filter, ids) in ALL {
            assert!(program(filter, ids).len() < 1024);
        }
    }
}
