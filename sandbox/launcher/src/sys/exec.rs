//! Becoming another program, and the system call filter that precedes it.

use std::ffi::{CStr, CString, c_char};
use std::marker::PhantomData;

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
    let len = u16::try_from(program.0.len()).map_err(|_| Errno::TOOBIG)?;
    let fprog = libc::sock_fprog { len, filter: program.0.as_ptr().cast_mut() };
    // SAFETY: the kernel copies `len` instructions from `filter`, which is that long; it does not write to them.
    let result = unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const fprog) };
    if result == 0 { Ok(()) } else { Err(last_errno()) }
}
