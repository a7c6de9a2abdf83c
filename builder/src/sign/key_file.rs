//! Keys in files: made once, readable by their owner alone.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use kiln_model::key::{Algorithm, KeyError, Passphrase, PublicKey, SecretKey, minisign, nix, ssh};

use super::{SignError, io as failed};

/// Longer than any key.
const LARGEST: u64 = 64 << 10;

/// A new key of random bytes.
pub fn generate(algorithm: Algorithm) -> Result<SecretKey, SignError> {
    loop {
        let key = match algorithm {
            Algorithm::Ed25519 => Ok(SecretKey::ed25519(&random()?)),
            Algorithm::P256 => SecretKey::p256(&random()?),
        };
        // Few of 2^32 numbers are no key of P-256.
        if let Ok(key) = key {
            return Ok(key);
        }
    }
}

/// Bytes from the kernel's generator, which never blocks once it was seeded (random(4)).
pub fn random<const N: usize>() -> Result<[u8; N], SignError> {
    let path = Path::new("/dev/urandom");
    let mut bytes = [0; N];
    let read = File::open(path).and_then(|mut source| source.read_exact(&mut bytes));
    read.map_err(failed("reading", path))?;
    Ok(bytes)
}

/// Writes a secret key to a new file that its owner alone can read.
pub fn write_secret(path: &Path, text: &str) -> Result<(), SignError> {
    let file = File::options().write(true).create_new(true).mode(0o600).open(path);
    let written = file.and_then(|mut file| file.write_all(text.as_bytes()).and_then(|()| file.sync_all()));
    written.map_err(failed("writing", path))
}

/// The text of a key's file: PKCS#8 in PEM, encrypted if there is a passphrase.
pub fn text(key: &SecretKey, passphrase: Option<&str>) -> Result<impl std::ops::Deref<Target = String>, SignError> {
    let passphrase = match passphrase {
        Some(words) => Some(Passphrase { words, salt: random()?, iv: random()? }),
        None => None,
    };
    Ok(key.to_pem(passphrase.as_ref()))
}

/// The first line of the file at `path`.
pub fn passphrase(path: &Path) -> Result<String, SignError> {
    let text = read(path)?;
    Ok(text.lines().next().unwrap_or_default().to_owned())
}

/// The secret key at `path`: PKCS#8 in PEM, or Nix's. Refused if others can read the file.
pub fn secret(path: &Path, passphrase: Option<&str>) -> Result<SecretKey, SignError> {
    let text = read(path)?;
    let metadata = std::fs::metadata(path).map_err(failed("reading", path))?;
    if metadata.is_file() && metadata.mode() & 0o077 != 0 && !text.contains("ENCRYPTED") {
        return Err(SignError::Open { path: path.into() });
    }
    let parsed = match text.contains("-----BEGIN") {
        true => SecretKey::from_pem(&text, passphrase),
        false => nix::parse_secret(&text),
    };
    parsed.map_err(|source| SignError::Key { path: path.into(), source })
}

/// The public key at `path`, in any spelling; that of a secret key, too.
pub fn public(path: &Path, passphrase: Option<&str>) -> Result<PublicKey, SignError> {
    let text = read(path)?;
    let wrong = |source| SignError::Key { path: path.into(), source };
    if text.contains("PRIVATE KEY-----") {
        return secret(path, passphrase).map(|key| key.public());
    }
    if text.contains("-----BEGIN") {
        return PublicKey::from_pem(&text).map_err(wrong);
    }
    let nix = || nix::parse_secret(&text).map(|key| key.public()).or_else(|_| nix::parse_public(&text));
    let spelled = ssh::parse_public(&text).or_else(|_| minisign::parse_public(&text).map(|(key, _)| key));
    let expected = "a public key: PEM, or as OpenSSH, minisign, signify or Nix write it";
    spelled.or_else(|_| nix()).map_err(|_| wrong(KeyError::Form { expected }))
}

fn read(path: &Path) -> Result<String, SignError> {
    let file = File::open(path).map_err(failed("reading", path))?;
    let mut text = String::new();
    file.take(LARGEST).read_to_string(&mut text).map_err(failed("reading", path))?;
    match text.len() as u64 == LARGEST {
        true => Err(failed("reading", path)(io::Error::new(io::ErrorKind::FileTooLarge, "too long for a key"))),
        false => Ok(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn a_key_is_written_once_for_its_owner_and_read_back_in_every_spelling() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        let key = generate(Algorithm::Ed25519).unwrap();
        write_secret(&path, &text(&key, None).unwrap()).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(secret(&path, None).unwrap().public(), key.public());
        assert!(matches!(write_secret(&path, "other"), Err(SignError::Io { .. })), "it is never written over");
        let public_key = key.public();
        for spelled in [
            public_key.to_pem(),
            ssh::public(&public_key),
            minisign::public(&public_key).unwrap(),
            nix::public(&public_key, "a-1").unwrap(),
        ] {
            let path = directory.path().join("public");
            std::fs::write(&path, &spelled).unwrap();
            assert_eq!(public(&path, None).unwrap(), public_key, "{spelled}");
        }
    }

    #[test]
    fn a_secret_key_that_others_can_read_is_refused_unless_it_is_encrypted() {
        let directory = tempfile::tempdir().unwrap();
        let key = generate(Algorithm::P256).unwrap();
        let open = |name: &str, passphrase: Option<&str>| {
            let path = directory.path().join(name);
            write_secret(&path, &text(&key, passphrase).unwrap()).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
            path
        };
        assert!(matches!(secret(&open("plain", None), None), Err(SignError::Open { .. })));
        assert!(secret(&open("sealed", Some("x")), Some("x")).is_ok());
    }
}
