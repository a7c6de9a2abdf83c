//! Which proxy a request goes through.
//!
//! `http_proxy`, `https_proxy`, `all_proxy`, `no_proxy` as curl(1) reads them; for apt's mirrors what apt is told comes first, for
//! pip's its `proxy`. Plain http goes to a proxy in absolute form (RFC 9112, 3.2.2), since many proxies refuse CONNECT to
//! port 80; https goes through CONNECT.

use std::net::IpAddr;

use url::Url;

use super::apt::Apt;
use super::host::Host;
use super::mirror::Origin;

/// How a request gets to its host.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Route {
    /// Straight.
    Direct,
    /// Through a proxy that is told the whole address.
    Forward(Url),
    /// Through a tunnel that a proxy opens.
    Tunnel(Url),
}

/// The host's proxies.
pub(super) struct Proxies {
    http: Option<String>,
    https: Option<String>,
    pip: Option<String>,
    except: Vec<String>,
}

impl Proxies {
    pub(super) fn of(host: &Host, pip: Option<String>) -> Self {
        let either =
            |lower: &str, upper: &str| host.variable(lower).or_else(|| host.variable(upper)).map(str::to_string);
        let all = either("all_proxy", "ALL_PROXY");
        // Under CGI a client sets HTTP_PROXY by sending a header ("httpoxy", CVE-2016-5385).
        let http = match host.variable("REQUEST_METHOD") {
            Some(_) => host.variable("http_proxy").map(str::to_string),
            None => either("http_proxy", "HTTP_PROXY"),
        };
        Self {
            http: http.or_else(|| all.clone()),
            https: either("https_proxy", "HTTPS_PROXY").or(all),
            pip,
            except: either("no_proxy", "NO_PROXY")
                .map(|list| list.split([',', ' ']).map(|e| e.trim().to_ascii_lowercase()).collect())
                .unwrap_or_default(),
        }
    }

    /// The way to `url`, or why there is none.
    pub(super) fn route(&self, url: &Url, origin: Origin, apt: Option<&Apt>) -> Result<Route, String> {
        let told = match origin {
            Origin::Apt => apt.and_then(|apt| apt.proxy(url)),
            Origin::Pip => self.pip.as_deref(),
            Origin::Kiln | Origin::Author => None,
        };
        let general = if url.scheme() == "https" { &self.https } else { &self.http };
        let proxy = match (told, general) {
            (Some("DIRECT"), _) => return Ok(Route::Direct),
            (Some(proxy), _) => proxy,
            (None, Some(proxy)) if !self.is_excepted(url) => proxy,
            (None, _) => return Ok(Route::Direct),
        };
        let spelled = if proxy.contains("://") { proxy.to_string() } else { format!("http://{proxy}") };
        let proxy: Url = spelled.parse().map_err(|_| "the proxy's address is not an address".to_string())?;
        match (proxy.scheme(), url.scheme()) {
            ("http", "http") => Ok(Route::Forward(proxy)),
            ("http" | "https", _) => Ok(Route::Tunnel(proxy)),
            (other, _) => Err(format!("proxies of kind {other} are not supported; use one of http")),
        }
    }

    fn is_excepted(&self, url: &Url) -> bool {
        let Some(host) = url.host_str().map(|h| h.trim_matches(['[', ']']).to_ascii_lowercase()) else { return false };
        let port = url.port_or_known_default().map(|p| p.to_string()).unwrap_or_default();
        self.except.iter().any(|entry| {
            let (name, wanted) = match entry.rsplit_once(':') {
                Some((name, p)) if !p.is_empty() && p.bytes().all(|b| b.is_ascii_digit()) && !name.contains(':') => {
                    (name, p)
                }
                _ => (entry.as_str(), port.as_str()),
            };
            let name = name.trim_start_matches("*.").trim_start_matches('.').trim_matches(['[', ']']);
            let same = entry == "*"
                || (!name.is_empty() && (host == name || host.strip_suffix(name).is_some_and(|h| h.ends_with('.'))))
                || is_in_network(&host, name);
            same && wanted == port
        })
    }
}

/// Whether an address is in a network such as `10.0.0.0/8`.
fn is_in_network(host: &str, network: &str) -> bool {
    let bits = |ip: IpAddr| match ip {
        IpAddr::V4(v4) => (u128::from(u32::from(v4)) << 96, 32),
        IpAddr::V6(v6) => (u128::from(v6), 128),
    };
    let Some((base, length)) = network.split_once('/') else { return false };
    let (Ok(host), Ok(base), Ok(length)) = (host.parse().map(bits), base.parse().map(bits), length.parse::<u32>())
    else {
        return false;
    };
    let mask = u128::MAX.checked_shl(128 - length.min(128)).unwrap_or(0);
    host.1 == base.1 && length <= host.1 && host.0 & mask == base.0 & mask
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn proxies(variables: &[(&str, &str)]) -> Proxies {
        let variables: BTreeMap<_, _> = variables.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
        Proxies::of(&Host::told(variables, "/nonexistent".into(), |_| None), None)
    }

    fn route(proxies: &Proxies, url: &str) -> Route {
        proxies.route(&url.parse().unwrap(), Origin::Kiln, None).unwrap()
    }

    #[test]
    fn schemes_have_their_own_proxies() {
        let p = proxies(&[("http_proxy", "p.test:3128"), ("HTTPS_PROXY", "http://q.test:1/")]);
        assert_eq!(route(&p, "http://a.test/"), Route::Forward("http://p.test:3128".parse().unwrap()));
        assert_eq!(route(&p, "https://a.test/"), Route::Tunnel("http://q.test:1/".parse().unwrap()));
        assert_eq!(route(&proxies(&[]), "https://a.test/"), Route::Direct);
        assert_eq!(
            route(&proxies(&[("HTTP_PROXY", "p.test:1"), ("REQUEST_METHOD", "GET")]), "http://a.test/"),
            Route::Direct
        );
        assert!(
            proxies(&[("all_proxy", "socks5://p.test")])
                .route(&"http://a.test/".parse().unwrap(), Origin::Kiln, None)
                .is_err()
        );
    }

    #[test]
    fn exceptions_are_names_their_subdomains_ports_and_networks() {
        let p = proxies(&[("http_proxy", "p.test:1"), ("no_proxy", "a.test,.b.test, c.test:81,10.0.0.0/8,::1")]);
        for direct in [
            "http://a.test/",
            "http://x.a.test/",
            "http://x.b.test/",
            "http://c.test:81/",
            "http://10.9.8.7/",
            "http://[::1]/",
        ] {
            assert_eq!(route(&p, direct), Route::Direct, "{direct}");
        }
        for proxied in ["http://aa.test/", "http://c.test/", "http://11.0.0.1/", "http://b.test.evil.test/"] {
            assert_ne!(route(&p, proxied), Route::Direct, "{proxied}");
        }
        assert_eq!(route(&proxies(&[("http_proxy", "p.test:1"), ("no_proxy", "*")]), "http://z.test/"), Route::Direct);
    }
}
