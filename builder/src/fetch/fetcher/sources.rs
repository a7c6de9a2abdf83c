//! What is tried for one file, in order: its archive's mirrors, then an address of its own.

use std::path::PathBuf;

use url::Url;

use super::super::mirror::{Mirror, Origin, Place, below};
use super::super::pip::Pip;
use super::super::{Archive, FetchError, Refusal};
use super::{Dates, Fetcher, Reach};

/// One thing to try for one file.
pub(super) struct Source {
    pub(super) label: String,
    pub(super) place: From,
}

pub(super) enum From {
    Web { url: Url, origin: Origin },
    Index { base: Url, origin: Origin },
    Directory(PathBuf),
    Nowhere(Refusal),
}

impl Fetcher {
    /// What to try for a path, in order.
    pub(super) fn sources(
        &self,
        reach: &Reach,
        archive: &Archive,
        path: &str,
        dates: &Dates,
    ) -> Result<Vec<Source>, FetchError> {
        let mut sources = Vec::new();
        // Mirrors know a file with an address of its own by its name only.
        let address = match archive {
            Archive::Address => Some(web_address(path)?),
            _ => None,
        };
        let name = match &address {
            Some(url) => url.path_segments().and_then(|mut parts| parts.next_back()).unwrap_or_default(),
            None => path,
        };
        for Mirror { label, origin, place } in reach.mirrors.list(archive) {
            let index_or_file = |base: &Url| match archive {
                Archive::Pypi => From::Index { base: base.clone(), origin: *origin },
                _ => From::Web { url: below(base, name), origin: *origin },
            };
            match place {
                Place::Base(base) => sources.push(Source { label: label.clone(), place: index_or_file(base) }),
                Place::Dated(template) => {
                    let known = dates.get(archive.key()).into_iter().flatten().rev();
                    sources.extend(known.map(|date| Source {
                        label: format!("{label}, of {date}"),
                        place: match template.replace("{date}", date).parse() {
                            Ok(base) => index_or_file(&base),
                            Err(_) => From::Nowhere(Refusal::Unreadable("is no address with this date".into())),
                        },
                    }));
                }
                Place::Directory(path) => {
                    sources.push(Source { label: label.clone(), place: From::Directory(path.clone()) });
                }
                Place::PipDefault => {
                    let place = match (&reach.client, self.pip_default(reach)) {
                        (None, _) => From::Nowhere(Refusal::Offline),
                        (Some(_), Some(base)) => index_or_file(base),
                        (Some(_), None) => From::Nowhere(Refusal::Unreadable(
                            "is not known: no python3 with pip answered; name an index in pip.conf or under [mirrors]"
                                .into(),
                        )),
                    };
                    sources.push(Source { label: label.clone(), place });
                }
            }
        }
        sources.extend(address.map(|url| Source {
            label: "the recipe's address".into(),
            place: From::Web { url, origin: Origin::Author },
        }));
        Ok(sources)
    }

    fn pip_default<'r>(&self, reach: &'r Reach) -> Option<&'r Url> {
        let asked = || reach.client.as_ref().and_then(|_| Pip::default_index(&self.host)?.parse().ok());
        reach.pip_default.get_or_init(asked).as_ref()
    }
}

pub(super) fn web_address(path: &str) -> Result<Url, FetchError> {
    let url: Option<Url> = path.parse().ok();
    url.filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host()).ok_or_else(|| FetchError::BadPath {
        archive: Archive::Address,
        path: path.into(),
        expected: "expected an address that begins with https:// or http://",
    })
}
