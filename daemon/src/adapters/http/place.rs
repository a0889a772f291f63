//! URLs: which ones are fetched at all, where a relative one or a redirect leads, and how one is shown.
//!
//! Pure; opens nothing. Resolution follows RFC 3986, section 5.2.

use std::fmt;
use std::net::IpAddr;

use ureq::http::Uri;

/// Bytes of the longest URL that is looked at. Signed storage URLs have about 2000.
const MAX_URL_BYTES: usize = 8192;

/// An absolute `http` or `https` URL without a user, a password or a fragment.
///
/// It is shown without its query, which is where storage providers put secrets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place(Uri);

/// Why a URL is not fetched. No message repeats the URL: it may hold a password.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum PlaceError {
    /// Not a URL.
    #[error("not a URL of the form http://host/path or https://host/path")]
    Syntax,
    /// Another scheme.
    #[error("only http and https URLs are fetched")]
    Scheme,
    /// It holds a user name or a password, which would end up in logs.
    #[error("URLs with a user or password are refused; bundles are signed and need no secret to be fetched")]
    Credentials,
    /// Far longer than any real URL.
    #[error("the URL has more than {MAX_URL_BYTES} bytes")]
    TooLong,
    /// A redirect that gives up encryption.
    #[error("the redirect leads from https to http")]
    Unencrypted,
    /// A redirect from elsewhere into the device or its own link.
    #[error("the redirect leads to an address of this device or of its local link")]
    Local,
}

impl Place {
    /// Parses an absolute URL.
    pub(super) fn parse(text: &str) -> Result<Place, PlaceError> {
        if text.len() > MAX_URL_BYTES {
            return Err(PlaceError::TooLong);
        }
        let uri: Uri = text.parse().map_err(|_| PlaceError::Syntax)?;
        match uri.scheme_str() {
            Some("http" | "https") => {}
            Some(_) => return Err(PlaceError::Scheme),
            None => return Err(PlaceError::Syntax),
        }
        let authority = uri.authority().ok_or(PlaceError::Syntax)?;
        if authority.as_str().contains('@') {
            return Err(PlaceError::Credentials);
        }
        let host = authority.host();
        let port_is_wrong = authority.as_str().len() > host.len() && authority.port_u16().is_none();
        if host.is_empty() || port_is_wrong || (address(host).is_none() && ends_in_a_number(host)) {
            return Err(PlaceError::Syntax);
        }
        Ok(Place(uri))
    }

    /// Resolves a URL reference against this place.
    pub(super) fn join(&self, reference: &str) -> Result<Place, PlaceError> {
        let (reference, _fragment) = reference.split_once('#').unwrap_or((reference, ""));
        if has_scheme(reference) {
            return Place::parse(reference);
        }
        let scheme = self.0.scheme_str().unwrap_or_default();
        if reference.starts_with("//") {
            return Place::parse(&format!("{scheme}:{reference}"));
        }
        let (path, query) = match reference.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (reference, None),
        };
        let base = self.0.path();
        let (path, query) = if path.is_empty() {
            (base.to_owned(), query.or(self.0.query()))
        } else if path.starts_with('/') {
            (without_dot_segments(path), query)
        } else {
            let (directory, _file) = base.rsplit_once('/').unwrap_or_default();
            (without_dot_segments(&format!("{directory}/{path}")), query)
        };
        let query = query.map(|query| format!("?{query}")).unwrap_or_default();
        Place::parse(&format!("{scheme}://{}{path}{query}", self.authority()))
    }

    /// The place a redirect from here leads to, for a request that was made to `origin` first.
    ///
    /// A redirect never gives up encryption. It never leads into this device or its link from outside of them, as a way
    /// to make the device knock at its own doors; names that only resolve to such addresses are not seen here.
    pub(super) fn follow(&self, location: &str, origin: &Place) -> Result<Place, PlaceError> {
        let next = self.join(location)?;
        if self.0.scheme_str() == Some("https") && next.0.scheme_str() != Some("https") {
            return Err(PlaceError::Unencrypted);
        }
        if next.reach() != Reach::Elsewhere && next.reach() != origin.reach() {
            return Err(PlaceError::Local);
        }
        Ok(next)
    }

    /// The same place with more path and a query behind it; the values are escaped.
    pub(super) fn with(&self, path: &str, query: &[(&str, &str)]) -> Result<Place, PlaceError> {
        let pairs: Vec<_> = query.iter().map(|(name, value)| format!("{name}={}", escaped(value))).collect();
        let mark = if pairs.is_empty() { "" } else { "?" };
        let base = self.0.path().trim_end_matches('/');
        let scheme = self.0.scheme_str().unwrap_or_default();
        Place::parse(&format!("{scheme}://{}{base}{path}{mark}{}", self.authority(), pairs.join("&")))
    }

    /// The URL for the request itself.
    pub(super) fn uri(&self) -> &Uri {
        &self.0
    }

    fn authority(&self) -> &str {
        self.0.authority().map_or("", |authority| authority.as_str())
    }

    fn reach(&self) -> Reach {
        let host = self.0.host().unwrap_or_default();
        let name = host.trim_end_matches('.').to_ascii_lowercase();
        if name == "localhost" || name.ends_with(".localhost") {
            return Reach::Device;
        }
        let address = match address(host) {
            Some(IpAddr::V6(v6)) => v6.to_ipv4_mapped().map_or(IpAddr::V6(v6), IpAddr::V4),
            Some(v4) => v4,
            None => return Reach::Elsewhere,
        };
        let link_local = match address {
            IpAddr::V4(v4) => v4.is_link_local(),
            IpAddr::V6(v6) => v6.is_unicast_link_local(),
        };
        match (address.is_loopback() || address.is_unspecified(), link_local) {
            (true, _) => Reach::Device,
            (false, true) => Reach::Link,
            (false, false) => Reach::Elsewhere,
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}{}", self.0.scheme_str().unwrap_or_default(), self.authority(), self.0.path())
    }
}

/// How far away an address is, as far as its spelling tells.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reach {
    Device,
    Link,
    Elsewhere,
}

fn address(host: &str) -> Option<IpAddr> {
    host.trim_start_matches('[').trim_end_matches(']').parse().ok()
}

/// Resolvers read `0x7f.1` and `2130706433` as IPv4 addresses; a name that ends like that is no name.
fn ends_in_a_number(host: &str) -> bool {
    let last = host.trim_end_matches('.').rsplit('.').next().unwrap_or_default().to_ascii_lowercase();
    let hexadecimal =
        last.strip_prefix("0x").is_some_and(|rest| rest.bytes().all(|byte| byte.is_ascii_hexdigit()));
    hexadecimal || (!last.is_empty() && last.bytes().all(|byte| byte.is_ascii_digit()))
}

fn has_scheme(reference: &str) -> bool {
    let Some((scheme, _)) = reference.split_once(':') else { return false };
    scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'))
}

fn without_dot_segments(path: &str) -> String {
    let mut kept: Vec<&str> = Vec::new();
    let mut segments = path.split('/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        match segment {
            "." => {}
            ".." => {
                kept.pop();
            }
            name => {
                kept.push(name);
                continue;
            }
        }
        if segments.peek().is_none() {
            kept.push("");
        }
    }
    format!("/{}", kept.join("/"))
}

/// Percent-encodes everything but RFC 3986's unreserved characters.
fn escaped(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    for byte in value.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(char::from(byte)),
            other => out.push_str(&format!("%{other:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(url: &str) -> Place {
        Place::parse(url).unwrap_or_else(|error| panic!("{url}: {error}"))
    }

    /// The examples of RFC 3986, sections 5.4.1 and 5.4.2, with an http base.
    #[test]
    fn references_resolve_as_the_rfc_shows() {
        let base = place("http://a/b/c/d;p?q");
        for (reference, expected) in [
            ("g", "http://a/b/c/g"),
            ("./g", "http://a/b/c/g"),
            ("g/", "http://a/b/c/g/"),
            ("/g", "http://a/g"),
            ("//g", "http://g/"),
            ("?y", "http://a/b/c/d;p?y"),
            ("g?y", "http://a/b/c/g?y"),
            ("#s", "http://a/b/c/d;p?q"),
            ("g#s", "http://a/b/c/g"),
            ("g?y#s", "http://a/b/c/g?y"),
            (";x", "http://a/b/c/;x"),
            ("", "http://a/b/c/d;p?q"),
            (".", "http://a/b/c/"),
            ("./", "http://a/b/c/"),
            ("..", "http://a/b/"),
            ("../", "http://a/b/"),
            ("../g", "http://a/b/g"),
            ("../..", "http://a/"),
            ("../../g", "http://a/g"),
            ("../../../g", "http://a/g"),
            ("/./g", "http://a/g"),
            ("/../g", "http://a/g"),
            ("g.", "http://a/b/c/g."),
            ("..g", "http://a/b/c/..g"),
            ("./../g", "http://a/b/g"),
            ("./g/.", "http://a/b/c/g/"),
            ("g/../h", "http://a/b/c/h"),
            ("g;x=1/../y", "http://a/b/c/y"),
            ("g?y/../x", "http://a/b/c/g?y/../x"),
            ("https://h/x", "https://h/x"),
        ] {
            assert_eq!(base.join(reference).unwrap().uri().to_string(), expected, "{reference:?}");
        }
    }

    #[test]
    fn only_plain_web_urls_are_places() {
        for (url, expected) in [
            ("ftp://a/x", PlaceError::Scheme),
            ("file:///etc/passwd", PlaceError::Syntax),
            ("file://host/etc", PlaceError::Scheme),
            ("/only/a/path", PlaceError::Syntax),
            ("", PlaceError::Syntax),
            ("http://", PlaceError::Syntax),
            ("http://:80/x", PlaceError::Syntax),
            ("http://a:99999/x", PlaceError::Syntax),
            ("http://a b/x", PlaceError::Syntax),
            ("https://user:secret@a/x", PlaceError::Credentials),
            ("https://user@a/x", PlaceError::Credentials),
            ("http://2130706433/x", PlaceError::Syntax),
            ("http://0x7f.0x1/x", PlaceError::Syntax),
            ("http://127.1/x", PlaceError::Syntax),
        ] {
            assert_eq!(Place::parse(url).unwrap_err(), expected, "{url}");
        }
        assert_eq!(Place::parse(&format!("http://a/{}", "x".repeat(9000))).unwrap_err(), PlaceError::TooLong);
        for url in [
            "http://a",
            "https://a:8443/x?y",
            "http://[::1]:80/",
            "http://10.0.0.1/x",
            "http://1st.example/",
            "http://3par/",
        ] {
            place(url);
        }
    }

    /// N8: a redirect gives up neither encryption nor the border around the device.
    #[test]
    fn redirects_stay_outside_and_encrypted() {
        let origin = place("https://updates.example/x");
        for (location, expected) in [
            ("http://updates.example/x", PlaceError::Unencrypted),
            ("https://localhost/x", PlaceError::Local),
            ("https://LOCALHOST./x", PlaceError::Local),
            ("https://127.0.0.1/x", PlaceError::Local),
            ("https://0.0.0.0/x", PlaceError::Local),
            ("https://[::1]/x", PlaceError::Local),
            ("https://[::ffff:127.0.0.1]/x", PlaceError::Local),
            ("https://169.254.169.254/latest", PlaceError::Local),
            ("https://[fe80::1]/x", PlaceError::Local),
            ("file:///etc/shadow", PlaceError::Syntax),
            ("ftp://other.example/x", PlaceError::Scheme),
            ("https://u:p@other.example/x", PlaceError::Credentials),
        ] {
            assert_eq!(origin.follow(location, &origin).unwrap_err(), expected, "{location}");
        }
        assert!(origin.follow("https://cdn.example/y", &origin).is_ok());
        let lan = place("http://10.0.0.1/x");
        assert!(lan.follow("https://cdn.example/y", &lan).is_ok());
        let own = place("http://127.0.0.1:8080/x");
        assert!(own.follow("http://127.0.0.1:9090/y", &own).is_ok());
        assert!(own.follow("http://169.254.1.1/y", &own).is_err());
    }

    #[test]
    fn what_is_shown_has_no_query_and_what_is_asked_is_escaped() {
        assert_eq!(place("https://a:1/x?token=secret").to_string(), "https://a:1/x");
        let asked = place("https://a/base/")
            .with("/update", &[("device", "ä &=1"), ("version", "1.0.0+b~x")])
            .unwrap();
        assert_eq!(
            asked.uri().to_string(),
            "https://a/base/update?device=%C3%A4%20%26%3D1&version=1.0.0%2Bb~x"
        );
    }
}
