//! Where files are put, as a user writes it: a directory, or an address that takes PUT.

use std::path::{Path, PathBuf};

use url::Url;

/// A place for files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// A directory of this host.
    Directory(PathBuf),
    /// A directory of a server; it ends in a slash, so that names can be joined to it.
    Web(Url),
}

/// Why a text is no place for files.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// No address at all.
    #[error("expected a directory, file://…, http://… or https://…")]
    Form,
    /// Of something that is not put to.
    #[error("nothing is put to {scheme}://: expected a directory, file://…, http://… or https://…")]
    Scheme {
        /// What it begins with.
        scheme: String,
    },
    /// With settings in it.
    #[error("it has parameters: leave out what follows ? or #")]
    Parameters,
    /// With a password in it.
    #[error("it holds credentials, which other users can see: write them into ~/.netrc instead")]
    Secret {
        /// Whose address it is.
        host: String,
    },
}

impl Address {
    /// What `address` means: a directory, `file://…`, `http://…` or `https://…`.
    pub fn of(address: &Path) -> Result<Self, AddressError> {
        let Some((text, scheme)) = address.to_str().and_then(|text| Some((text, text.split_once("://")?.0))) else {
            return Ok(Self::Directory(address.into()));
        };
        let mut url = Url::parse(text).map_err(|_| match scheme {
            "file" | "http" | "https" => AddressError::Form,
            scheme => AddressError::Scheme { scheme: scheme.into() },
        })?;
        match url.scheme() {
            "file" | "http" | "https" if url.query().is_some() || url.fragment().is_some() => {
                Err(AddressError::Parameters)
            }
            "file" => url.to_file_path().map(Self::Directory).map_err(|()| AddressError::Form),
            "http" | "https" if !url.username().is_empty() || url.password().is_some() => {
                Err(AddressError::Secret { host: url.host_str().unwrap_or_default().into() })
            }
            "http" | "https" => {
                // Without a slash at its end, joining would replace the last part.
                if !url.path().ends_with('/') {
                    url.set_path(&format!("{}/", url.path()));
                }
                Ok(Self::Web(url))
            }
            scheme => Err(AddressError::Scheme { scheme: scheme.into() }),
        }
    }
}

/// What of an address, or of what is none, may end in a log: no credentials and no parameters.
pub fn public(address: &str) -> String {
    let Some((scheme, rest)) = address.split_once("://") else { return address.into() };
    let rest = rest.rsplit_once('@').map_or(rest, |(_, rest)| rest);
    format!("{scheme}://{}", rest.split(['?', '#']).next().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_directory_and_takes_no_put_is_refused_and_a_password_is_not_repeated() {
        let of = |address: &str| Address::of(Path::new(address));
        for directory in ["cache", "./cache", "/cache", "a:b"] {
            assert_eq!(of(directory), Ok(Address::Directory(directory.into())));
        }
        assert_eq!(of("file:///cache"), Ok(Address::Directory("/cache".into())));
        for (address, base) in
            [("http://cache.test", "http://cache.test/"), ("https://cache.test/a/b", "https://cache.test/a/b/")]
        {
            assert_eq!(of(address), Ok(Address::Web(base.parse().unwrap())));
        }
        for address in ["s3://bucket", "gs://bucket/x", "ssh://host", "://x"] {
            assert!(matches!(of(address), Err(AddressError::Scheme { .. })), "{address}");
        }
        assert_eq!(of("https://"), Err(AddressError::Form));
        assert_eq!(of("http://cache.test/?compression=xz"), Err(AddressError::Parameters));
        let secret = of("https://me:s3cret@cache.test").unwrap_err();
        assert_eq!(secret, AddressError::Secret { host: "cache.test".into() });
        assert!(!secret.to_string().contains("s3cret"));
        for (address, shown) in [
            ("http://me:s3cret@/", "http:///"),
            ("https://a.test/b?token=s3cret#x", "https://a.test/b"),
            ("a@b", "a@b"),
        ] {
            assert_eq!(public(address), shown);
        }
    }
}
