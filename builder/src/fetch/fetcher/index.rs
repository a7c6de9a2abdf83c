//! Where a Python index says that a file is. Each project's listing is read once from each index.

use url::Url;

use super::super::listing::{self, Listed};
use super::super::mirror::{Origin, below};
use super::super::transfer::small_web;
use super::super::{FetchError, Refusal};
use super::{Fetcher, Reach, locked};

/// A project's listing, and the address that it came from.
#[derive(Clone)]
pub(super) struct Page {
    pub(super) url: Url,
    pub(super) bytes: Vec<u8>,
}

impl Fetcher {
    /// Where the index says that a file is.
    pub(super) fn address_in_index(
        &self,
        reach: &Reach,
        base: &Url,
        origin: Origin,
        file: &str,
    ) -> Result<Result<Url, Refusal>, FetchError> {
        /// Far above the listing of any project known.
        const MOST: u64 = 64 << 20;
        let Some((project, _)) = listing::project_and_version(file) else {
            return Ok(Err(Refusal::Unreadable("cannot be asked: the file's name says no project and version".into())));
        };
        let page = match self.page(reach, base, origin, &project, MOST)? {
            Ok(page) => page,
            Err(refusal) => return Ok(Err(refusal)),
        };
        let listed: Vec<Listed> = match listing::parse(&page.bytes) {
            Ok(listed) => listed,
            Err(what) => return Ok(Err(Refusal::Unreadable(format!("its listing {what}")))),
        };
        let Some(entry) = listed.into_iter().find(|entry| entry.name == file) else {
            return Ok(Err(Refusal::Absent("lists the project without this file".into())));
        };
        Ok(match page.url.join(&entry.url) {
            Ok(url) if matches!((page.url.scheme(), url.scheme()), (_, "https") | ("http", "http")) => Ok(url),
            _ => Err(Refusal::Unreadable(
                "lists the file at an address that is no web address, or at http from https".into(),
            )),
        })
    }

    /// A project's listing from one index.
    pub(super) fn page(
        &self,
        reach: &Reach,
        base: &Url,
        origin: Origin,
        project: &str,
        limit: u64,
    ) -> Result<Result<Page, Refusal>, FetchError> {
        let key = (base.to_string(), project.to_string());
        if let Some(page) = locked(&self.listings).get(&key) {
            return Ok(Ok(page.clone()));
        }
        let Some(client) = &reach.client else { return Ok(Err(Refusal::Offline)) };
        // With the final slash, which PEP 503 asks for and which relative addresses in it are relative to.
        let url = below(base, &format!("{project}/"));
        let page = self.persist(&url, |_| (small_web(client, origin, &url, listing::ACCEPT, limit), 0))?;
        Ok(page.map(|(url, bytes)| {
            let page = Page { url, bytes };
            locked(&self.listings).insert(key, page.clone());
            page
        }))
    }
}
