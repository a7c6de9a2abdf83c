//! One request: proxy, credentials, certificates, redirects.
//!
//! Redirects are followed here and not by the HTTP library: at most [`MOST_REDIRECTS`], never from https to http, and
//! credentials go only to the origin (scheme, host, port) that they were asked for; uploads are not redirected at all. What is
//! waited for is bounded: a connection that is silent for longer than the stall time is given up. Refusals never name an
//! address.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustls_native_certs::load_native_certs;
use ureq::AsSendBody;
use ureq::http::{HeaderMap, Method, Request, Response, Uri, header, request};
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{Buffers, ConnectionDetails, Connector, NextTimeout, TcpConnector, Transport};
use url::Url;

use super::Refusal;
use super::apt::Apt;
use super::credentials::{Credentials, basic};
use super::mirror::Origin;
use super::route::{Proxies, Route};

/// Hops after the first address.
const MOST_REDIRECTS: usize = 8;

/// Larger bodies are sent once the server has said that it takes them: one that refuses would hang up in the midst.
const MOST_UNASKED: u64 = 1 << 20;

/// The most that is read of what a server says to an upload.
const MOST_READ_OF_ANSWER: u64 = 64 << 10;

/// What the fetcher asks with. Connections are kept for the next request to the same host.
pub(super) struct Client {
    pub(super) proxies: Proxies,
    pub(super) credentials: Credentials,
    pub(super) apt: Option<Apt>,
    /// Certificates that only pip's mirrors are checked with, besides the platform's.
    pub(super) pip_certificates: Option<PathBuf>,
    /// How long a silent connection is waited for.
    pub(super) stall: Duration,
    /// By certificates and route; made when first needed, since reading the platform's certificates takes a while.
    pub(super) agents: Mutex<BTreeMap<(Trust, Route), ureq::Agent>>,
}

/// Whose certificates are believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Trust {
    Platform,
    Pip,
}

/// The head of an answer, and its body to be read.
pub(super) struct Reply {
    pub(super) status: u16,
    /// The address that answered, after redirects.
    pub(super) url: Url,
    /// Bytes of this body, where announced.
    pub(super) length: Option<u64>,
    /// Where in the file the body begins, if it is a part.
    pub(super) from: Option<u64>,
    /// How long the server asks to be left alone.
    pub(super) retry_after: Option<Duration>,
    /// What names these bytes (RFC 9110, 8.8.3), as the server wrote it.
    pub(super) tag: Option<String>,
    pub(super) body: Box<dyn Read>,
}

impl Client {
    /// Asks for the bytes of `url` after the first `from`.
    pub(super) fn get(&self, origin: Origin, url: &Url, from: u64, accept: &str) -> Result<Reply, Refusal> {
        self.followed(origin, url, || {
            let request = Request::builder().header(header::ACCEPT, accept);
            if from > 0 { request.header(header::RANGE, format!("bytes={from}-")) } else { request }
        })
    }

    /// Asks for the bytes of `url` as they are now, whatever a cache on the way remembers (RFC 9111, 5.2.1.4).
    pub(super) fn get_now(&self, origin: Origin, url: &Url) -> Result<Reply, Refusal> {
        self.followed(origin, url, || {
            Request::builder().header(header::ACCEPT, "*/*").header(header::CACHE_CONTROL, "no-cache")
        })
    }

    /// Asks what a GET would give.
    pub(super) fn head(&self, origin: Origin, url: &Url) -> Result<Reply, Refusal> {
        self.followed(origin, url, || Request::builder().method(Method::HEAD))
    }

    /// Sends `body` to `url` itself, to be taken under a `condition`, if there is one; the status of the answer. A redirect is
    /// refused: who asked meant this server.
    pub(super) fn put(
        &self,
        origin: Origin,
        url: &Url,
        kind: &str,
        condition: Option<(header::HeaderName, &str)>,
        body: impl AsSendBody,
        size: u64,
    ) -> Result<u16, Refusal> {
        let mut request = Request::builder().method(Method::PUT).header(header::CONTENT_TYPE, kind);
        if let Some((name, value)) = condition {
            request = request.header(name, value);
        }
        if size > MOST_UNASKED {
            request = request.header(header::EXPECT, "100-continue");
        }
        let authorization = self.credentials.header(url, origin);
        let reply = self.hop(origin, url, authorization.as_deref(), request, body)?;
        let status = reply.status().as_u16();
        // Read to its end, so that the connection can be used again.
        io::copy(&mut reply.into_body().into_reader().take(MOST_READ_OF_ANSWER), &mut io::sink()).ok();
        match status {
            300..=399 => Err(Refusal::Redirect("redirected; uploads go only to the address that was given".into())),
            status => Ok(status),
        }
    }

    /// Asks `url` itself to become a directory (RFC 4918, 9.3); the status of the answer.
    pub(super) fn make_directory(&self, origin: Origin, url: &Url) -> Result<u16, Refusal> {
        let method = Method::from_bytes(b"MKCOL").expect("a method's name");
        let authorization = self.credentials.header(url, origin);
        let reply = self.hop(origin, url, authorization.as_deref(), Request::builder().method(method), ())?;
        let status = reply.status().as_u16();
        io::copy(&mut reply.into_body().into_reader().take(MOST_READ_OF_ANSWER), &mut io::sink()).ok();
        Ok(status)
    }

    fn followed(&self, origin: Origin, url: &Url, ask: impl Fn() -> request::Builder) -> Result<Reply, Refusal> {
        let credentials = self.credentials.header(url, origin);
        let mut here = url.clone();
        for _ in 0..=MOST_REDIRECTS {
            let own = here.origin() == url.origin();
            let reply = self.hop(origin, &here, credentials.as_deref().filter(|_| own), ask(), ())?;
            let (status, headers) = (reply.status().as_u16(), reply.headers());
            if !matches!(status, 301 | 302 | 303 | 307 | 308) {
                return Ok(Reply {
                    status,
                    url: here,
                    length: number(headers, header::CONTENT_LENGTH),
                    from: range_start(headers),
                    retry_after: number(headers, header::RETRY_AFTER).map(Duration::from_secs),
                    tag: headers.get(header::ETAG).and_then(|tag| tag.to_str().ok()).map(str::to_owned),
                    body: Box::new(reply.into_body().into_reader()),
                });
            }
            here = redirected(&here, headers)?;
        }
        Err(Refusal::Redirect(format!("redirected more than {MOST_REDIRECTS} times")))
    }

    fn hop(
        &self,
        origin: Origin,
        url: &Url,
        authorization: Option<&str>,
        request: request::Builder,
        body: impl AsSendBody,
    ) -> Result<Response<ureq::Body>, Refusal> {
        let route = self.proxies.route(url, origin, self.apt.as_ref()).map_err(Refusal::Unreadable)?;
        let trust = if origin == Origin::Pip { Trust::Pip } else { Trust::Platform };
        let mut bare = url.clone();
        // An address with credentials was turned into a header; both calls fail only for addresses without a host.
        let _ = (bare.set_username(""), bare.set_password(None));
        bare.set_fragment(None);
        // Mirrors that compress on the way would change the bytes.
        let mut request = request.uri(bare.as_str()).header(header::ACCEPT_ENCODING, "identity");
        if let Some(value) = authorization {
            request = request.header(header::AUTHORIZATION, value);
        }
        if let Route::Forward(proxy) = &route
            && !proxy.username().is_empty()
        {
            request = request.header(header::PROXY_AUTHORIZATION, proxy_authorization(proxy));
        }
        let request = request.body(body).map_err(|error| Refusal::Unreadable(format!("no such request: {error}")))?;
        self.agent(trust, &route)?.run(request).map_err(refusal)
    }

    fn agent(&self, trust: Trust, route: &Route) -> Result<ureq::Agent, Refusal> {
        let mut agents = self.agents.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (trust, route.clone());
        if let Some(agent) = agents.get(&key) {
            return Ok(agent.clone());
        }
        let proxy = match route {
            Route::Tunnel(proxy) => Some(ureq::Proxy::new(proxy.as_str()).map_err(refusal)?),
            Route::Direct | Route::Forward(_) => None,
        };
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            // MKCOL.
            .allow_non_standard_methods(true)
            .max_redirects(0)
            .proxy(proxy)
            .user_agent(concat!("kiln/", env!("CARGO_PKG_VERSION")))
            .tls_config(TlsConfig::builder().root_certs(self.roots(trust)?).build())
            // One for each thread that fetches; the default would close half of them after each file.
            .max_idle_connections(64)
            .max_idle_connections_per_host(64)
            .timeout_resolve(Some(self.stall))
            .timeout_connect(Some(self.stall))
            .timeout_recv_response(Some(self.stall))
            .timeout_per_read(Some(self.stall))
            .timeout_per_write(Some(self.stall))
            .build();
        let agent = match route {
            Route::Forward(proxy) => {
                let uri = proxy
                    .as_str()
                    .parse()
                    .map_err(|_| Refusal::Unreadable("the proxy has no usable address".into()))?;
                ureq::Agent::with_parts(
                    config,
                    ().chain(TcpConnector::default()).chain(AbsoluteForm),
                    ProxyAddress(uri),
                )
            }
            Route::Direct | Route::Tunnel(_) => config.new_agent(),
        };
        agents.insert(key, agent.clone());
        Ok(agent)
    }

    /// The platform's certificates (`$SSL_CERT_FILE`, `$SSL_CERT_DIR` or where the platform keeps them), and pip's.
    fn roots(&self, trust: Trust) -> Result<RootCerts, Refusal> {
        let mut roots: Vec<Certificate<'static>> =
            load_native_certs().certs.iter().map(|der| Certificate::from_der(der).to_owned()).collect();
        if let (Trust::Pip, Some(path)) = (trust, &self.pip_certificates) {
            let pem = std::fs::read(path)
                .map_err(|e| Refusal::Unreadable(format!("pip's certificates cannot be read ({})", e.kind())))?;
            roots.extend(parse_pem(&pem).filter_map(|item| match item {
                Ok(PemItem::Certificate(certificate)) => Some(certificate),
                _ => None,
            }));
        }
        Ok(RootCerts::Specific(Arc::new(roots)))
    }
}

fn proxy_authorization(proxy: &Url) -> String {
    basic(
        &super::credentials::decoded(proxy.username()),
        &super::credentials::decoded(proxy.password().unwrap_or_default()),
    )
}

fn number(headers: &HeaderMap, name: header::HeaderName) -> Option<u64> {
    headers.get(name)?.to_str().ok()?.trim().parse().ok()
}

/// `bytes FIRST-LAST/TOTAL` (RFC 9110, 14.4).
fn range_start(headers: &HeaderMap) -> Option<u64> {
    let value = headers.get(header::CONTENT_RANGE)?.to_str().ok()?;
    value.trim().strip_prefix("bytes")?.trim_start().split('-').next()?.parse().ok()
}

fn redirected(here: &Url, headers: &HeaderMap) -> Result<Url, Refusal> {
    let to =
        headers.get(header::LOCATION).and_then(|value| value.to_str().ok()).and_then(|value| here.join(value).ok());
    let Some(to) = to else { return Err(Refusal::Redirect("redirected without a usable address".into())) };
    match (here.scheme(), to.scheme()) {
        ("https", "http") => Err(Refusal::Redirect("redirected from https to http".into())),
        (_, "http" | "https") => Ok(to),
        (_, other) => Err(Refusal::Redirect(format!("redirected to an address of kind {other:?}"))),
    }
}

/// What a failed request says about the mirror.
fn refusal(error: ureq::Error) -> Refusal {
    match error {
        ureq::Error::Timeout(_) => Refusal::Stalled(0),
        ureq::Error::Io(e) => while_reading(&e, 0),
        // A certificate does not become good by asking again.
        ureq::Error::Tls(what) => Refusal::Unreadable(format!("TLS failed: {what}")),
        ureq::Error::Rustls(e) => Refusal::Unreadable(format!("TLS failed: {e}")),
        ureq::Error::HostNotFound => Refusal::Network("host not found".into()),
        ureq::Error::ConnectProxyFailed(_) => Refusal::Network("the proxy opened no tunnel".into()),
        ureq::Error::Protocol(e) => Refusal::Network(format!("spoke no proper HTTP: {e}")),
        _ => Refusal::Network("the request failed".into()),
    }
}

/// What an error while reading a body says, after `read` bytes.
pub(super) fn while_reading(error: &io::Error, read: u64) -> Refusal {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<ureq::Error>());
    match (error.kind(), inner) {
        (io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock, _) | (_, Some(ureq::Error::Timeout(_))) => {
            Refusal::Stalled(read)
        }
        (io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe, _) if read > 0 => {
            Refusal::CutShort(read)
        }
        (io::ErrorKind::InvalidData, _) => Refusal::Unreadable(format!("TLS failed: {error}")),
        (kind, _) => Refusal::Network(kind.to_string()),
    }
}

/// Resolves the proxy instead of the host that is asked for: the proxy does that.
#[derive(Debug)]
struct ProxyAddress(Uri);

impl Resolver for ProxyAddress {
    fn resolve(
        &self,
        _: &Uri,
        config: &ureq::config::Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        DefaultResolver::default().resolve(&self.0, config, timeout)
    }
}

/// Makes `GET /path` into `GET http://host/path`: ureq itself only knows proxies that tunnel.
///
/// What is sent is a whole head, which is far smaller than the buffer, or a piece of the body whose length that head told.
#[derive(Debug)]
struct AbsoluteForm;

#[derive(Debug)]
struct AbsoluteTransport<In> {
    inner: In,
    authority: String,
    /// Bytes of the body that are still to be sent.
    body: u64,
}

impl<In: Transport> Connector<In> for AbsoluteForm {
    type Out = AbsoluteTransport<In>;

    fn connect(&self, details: &ConnectionDetails<'_>, chained: Option<In>) -> Result<Option<Self::Out>, ureq::Error> {
        let authority = details.uri.authority().map(|a| format!("http://{}", a.as_str())).unwrap_or_default();
        Ok(chained.map(|inner| AbsoluteTransport { inner, authority, body: 0 }))
    }
}

impl<In: Transport> Transport for AbsoluteTransport<In> {
    fn buffers(&mut self) -> &mut dyn Buffers {
        self.inner.buffers()
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), ureq::Error> {
        if self.body > 0 || amount == 0 {
            self.body = self.body.saturating_sub(amount as u64);
            return self.inner.transmit_output(amount, timeout);
        }
        let output = self.inner.buffers().output();
        let method = [b"GET ".as_slice(), b"HEAD ", b"PUT "].into_iter().find(|method| output.starts_with(method));
        let head = str::from_utf8(&output[..amount]).ok().filter(|head| head.ends_with("\r\n\r\n"));
        let longer = amount + self.authority.len();
        let (Some(method), Some(head), true) = (method.map(<[u8]>::len), head, longer <= output.len()) else {
            return Err(ureq::Error::Io(io::Error::other("request too long for a proxy")));
        };
        self.body = announced(head);
        output.copy_within(method..amount, method + self.authority.len());
        output[method..method + self.authority.len()].copy_from_slice(self.authority.as_bytes());
        self.inner.transmit_output(longer, timeout)
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, ureq::Error> {
        self.inner.await_input(timeout)
    }

    fn is_open(&mut self) -> bool {
        self.inner.is_open()
    }
}

/// The length of the body that follows a head.
fn announced(head: &str) -> u64 {
    let fields = head.lines().filter_map(|line| line.split_once(':'));
    let length = fields.filter(|(name, _)| name.eq_ignore_ascii_case("content-length")).map(|(_, value)| value.trim());
    length.filter_map(|value| value.parse().ok()).next().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_redirect_never_leads_from_https_to_http() {
        let to = |here: &str, location: &str| {
            let headers = HeaderMap::from_iter([(header::LOCATION, location.parse().unwrap())]);
            redirected(&here.parse().unwrap(), &headers).map(String::from)
        };
        assert_eq!(to("https://a.test/x/y", "../z").as_deref(), Ok("https://a.test/z"));
        assert_eq!(to("http://a.test/", "https://b.test/").as_deref(), Ok("https://b.test/"));
        for (here, location) in
            [("https://a.test/", "http://a.test/"), ("http://a.test/", "data:,x"), ("http://a.test/", "http://")]
        {
            assert!(matches!(to(here, location), Err(Refusal::Redirect(_))), "{location}");
        }
    }

    #[test]
    fn a_range_begins_where_it_says() {
        let start =
            |value: &'static str| range_start(&HeaderMap::from_iter([(header::CONTENT_RANGE, value.parse().unwrap())]));
        assert_eq!(start("bytes 500-999/1000"), Some(500));
        assert_eq!(start("bytes */1000"), None);
        assert_eq!(start("lines 5-9/10"), None);
    }
}
