//! Becoming another program, and the system call filter that precedes it.

use std::ffi::{CStr, CString, c_char};
use std::marker::PhantomData;
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::AtomicI32;

use rustix::io::Errno;

use super::process::last_errno;

/// A null-terminated array of C strings, as `execve` wants it, made before the fork.
pub(crate) struct StringArray<'a> {
    pointers: Vec<*const c_char>,
    strings: PhantomData<&'a [CString]>,
}

impl<'a> StringArray<'a> {
    /// Points to `strings`.
    pub(crate) fn new(strings: &'a [CString]) -> Self {
        let pointers = strings.iter().map(|string| string.as_ptr()).chain([std::ptr::null()]).collect();
        Self { pointers, strings: PhantomData }
    }
}

/// Replaces this process. Returns only if that failed.
pub(crate) fn execve(program: &CStr, argv: &StringArray<'_>, env: &StringArray<'_>) -> Errno {
    // SAFETY: both arrays end with a null pointer and their strings are alive, by `StringArray`'s lifetime.
    unsafe { libc::execve(program.as_ptr(), argv.pointers.as_ptr(), env.pointers.as_ptr()) };
    last_errno()
}

/// A system call filter, made before the fork.
pub(crate) struct Program(Vec<libc::sock_filter>);

impl Program {
    /// From (code, jt, jf, k).
    pub(crate) fn new(instructions: &[(u16, u8, u8, u32)]) -> Self {
        Self(instructions.iter().map(|&(code, jt, jf, k)| libc::sock_filter { code, jt, jf, k }).collect())
    }
}

/// Filters every further system call of this process and its children. Needs no-new-privs.
pub(crate) fn install_filter(program: &Program) -> Result<(), Errno> {
    install(program, 0).map(drop)
}

/// The same, and a descriptor that hears of the calls that the filter gives to a supervisor. Once such a call was
/// received, only a fatal signal interrupts it.
pub(crate) fn install_listening_filter(program: &Program) -> Result<OwnedFd, Errno> {
    let flags = libc::SECCOMP_FILTER_FLAG_NEW_LISTENER;
    let listener = match install(program, flags | libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV) {
        // Linux before 5.19.
        Err(Errno::INVAL) => install(program, flags)?,
        other => other?,
    };
    // SAFETY: with NEW_LISTENER a successful call returns a new descriptor that nothing else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(listener) })
}

fn install(program: &Program, flags: libc::c_ulong) -> Result<RawFd, Errno> {
    let len = u16::try_from(program.0.len()).map_err(|_| Errno::TOOBIG)?;
    let fprog = libc::sock_fprog { len, filter: program.0.as_ptr().cast_mut() };
    // SAFETY: the kernel copies `len` instructions from `filter`, which is that long; it does not write to them.
    let result = unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const fprog) };
    if result < 0 { Err(last_errno()) } else { Ok(result as RawFd) }
}

/// One number that this process and those that it forks afterwards share.
pub(crate) struct Mailbox(*const AtomicI32);

impl Mailbox {
    /// A mailbox with 0 in it.
    pub(crate) fn new() -> Result<Self, Errno> {
        let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_ANONYMOUS);
        // SAFETY: a new mapping at an address of the kernel's choice touches no memory that is in use.
        let page = unsafe { libc::mmap(std::ptr::null_mut(), size_of::<AtomicI32>(), protection, flags, -1, 0) };
        if page == libc::MAP_FAILED { Err(last_errno()) } else { Ok(Self(page.cast())) }
    }

    /// The number.
    pub(crate) fn number(&self) -> &AtomicI32 {
        // SAFETY: the mapping is zeroed, aligned to a page, never unmapped, and only used through this atomic.
        unsafe { &*self.0 }
    }
}

/// A descriptor that another process put into the table that both share.
pub(crate) fn shared_descriptor(number: RawFd) -> BorrowedFd<'static> {
    // SAFETY: the other process keeps it open until it hears from this one, which ends right after.
    unsafe { BorrowedFd::borrow_raw(number) }
}
