//! Blobs of a repository, one after the other.

use std::io::{BufRead as _, BufReader, Read, Write as _};
use std::process::{Command, Stdio};

use super::GitError;

/// A running `cat-file --batch`: one request, one answer, so that neither side waits for the other.
pub(super) struct Blobs {
    child: std::process::Child,
    answers: BufReader<std::process::ChildStdout>,
}

impl Blobs {
    pub(super) fn start(mut command: Command) -> Result<Self, GitError> {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(GitError::Program)?;
        let answers = BufReader::new(child.stdout.take().expect("stdout was piped"));
        Ok(Self { child, answers })
    }

    fn broken(says: impl Into<String>) -> GitError {
        GitError::Failed { act: "cat-file", says: says.into() }
    }

    /// The bytes of one; [`Blobs::end`] follows when all of them were read.
    pub(super) fn read(&mut self, id: &str) -> Result<impl Read + '_, GitError> {
        let stdin = self.child.stdin.as_mut().expect("stdin was piped");
        writeln!(stdin, "{id}").map_err(|e| Self::broken(e.to_string()))?;
        let mut head = String::new();
        self.answers.read_line(&mut head).map_err(|e| Self::broken(e.to_string()))?;
        let mut words = head.split_whitespace();
        let size = match (words.next(), words.next(), words.next()) {
            (Some(found), Some("blob"), Some(size)) if found == id => size.parse::<u64>().ok(),
            _ => None,
        };
        let size = size.ok_or_else(|| Self::broken(format!("no blob {id}: {}", head.trim())))?;
        Ok((&mut self.answers).take(size))
    }

    /// Passes the line feed after a blob.
    pub(super) fn end(&mut self) -> Result<(), GitError> {
        let mut end = [0];
        match self.answers.read_exact(&mut end) {
            Ok(()) if end == *b"\n" => Ok(()),
            _ => Err(Self::broken("ended early")),
        }
    }
}

impl Drop for Blobs {
    fn drop(&mut self) {
        drop(self.child.stdin.take()); // it ends at end of file; killed in case it does not
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
