//! Where a webhook may go: the check that keeps callers from using this installation to reach what only it can reach
//! (server-side request forgery).
//!
//! Default deny: an address must be a public one, or lie in a range the operator has opened. The same policy is asked
//! twice: when a URL is accepted ([`AddressPolicy::check_url`]) and, because a name can resolve to something else later,
//! for every address of every connection ([`AddressPolicy::check`]).
//!
//! The ranges are those of IANA's special-purpose address registries (RFC 6890 and its updates) and the metadata
//! services of the large clouds.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use ipnet::IpNet;
use url::{Host, Url};

/// The longest webhook URL, in bytes; what `webhook_outbox.url` holds.
pub const MAX_URL_BYTES: usize = 2048;

/// Which addresses webhooks of callers may reach. Endpoints the operator configures are not asked; see [`parse_url`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AddressPolicy {
    allow: Vec<IpNet>,
}

/// Why a URL or an address is refused. The text is for the caller; it says nothing about what listens there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("a webhook URL has {MAX_URL_BYTES} bytes at most, this one has {0}")]
    TooLong(usize),
    #[error("a webhook URL has no spaces and no control characters")]
    BadCharacter,
    #[error("this is no URL: {0}")]
    NotAUrl(String),
    #[error("a webhook URL starts with http:// or https://")]
    Scheme,
    #[error("a webhook URL carries no user name and no password")]
    UserInfo,
    #[error("a webhook URL names a host")]
    NoHost,
    #[error("port {0} belongs to another service than HTTP")]
    Port(u16),
    #[error("{0} is this machine itself, and the operator has not allowed webhooks there")]
    LocalName(String),
    #[error("{address} is {range}, and the operator has not allowed webhooks there")]
    Address { address: IpAddr, range: &'static str },
}

/// An allow-list entry that opens nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadAllowance {
    #[error("{0} is no network such as 172.16.0.0/12")]
    NotANetwork(String),
    #[error("{0} opens nothing: an entry lies within one closed range that may be opened, such as 172.16.0.0/12")]
    OpensNothing(IpNet),
    #[error("{entry} lies in {range}, which opens for single addresses only (/32 or /128)")]
    TooWide { entry: IpNet, range: &'static str },
}

impl AddressPolicy {
    /// Public addresses, and what `allow` opens. Each entry lies within one closed range: a blanket `0.0.0.0/0` would
    /// open the metadata service to callers, and is refused.
    ///
    /// # Errors
    /// [`BadAllowance`] names the entry.
    pub fn new(allow: Vec<IpNet>) -> Result<Self, BadAllowance> {
        for entry in &allow {
            let closed = CLOSED.iter().find(|closed| closed.network.contains(entry));
            match closed {
                Some(closed) if closed.opens == Opens::ByHost && entry.prefix_len() != entry.max_prefix_len() => {
                    return Err(BadAllowance::TooWide { entry: *entry, range: closed.range });
                }
                Some(closed) if closed.opens != Opens::Never => {}
                _ => return Err(BadAllowance::OpensNothing(*entry)),
            }
        }
        Ok(Self { allow })
    }

    /// Reads the operator's list: networks (`172.16.0.0/12`) or single addresses, separated by commas; may be empty.
    ///
    /// # Errors
    /// [`BadAllowance`] names the entry.
    pub fn parse(list: &str) -> Result<Self, BadAllowance> {
        let entries = list.split(',').map(str::trim).filter(|entry| !entry.is_empty());
        let networks = entries.map(|entry| {
            IpNet::from_str(entry)
                .or_else(|_| IpAddr::from_str(entry).map(IpNet::from))
                .map_err(|_| BadAllowance::NotANetwork(entry.to_owned()))
        });
        Self::new(networks.collect::<Result<_, _>>()?)
    }

    /// Reads a caller's webhook URL and refuses what can be refused without asking DNS: its form, its port, an address
    /// written in it (in whatever spelling), a name for this machine.
    ///
    /// # Errors
    /// [`Refusal`].
    pub fn check_url(&self, text: &str) -> Result<Url, Refusal> {
        let url = parse_url(text)?;
        if let Some(port) = url.port()
            && NOT_HTTP.contains(&port)
        {
            return Err(Refusal::Port(port));
        }
        match url.host().ok_or(Refusal::NoHost)? {
            Host::Ipv4(address) => self.check(IpAddr::V4(address))?,
            Host::Ipv6(address) => self.check(IpAddr::V6(address))?,
            // RFC 6761 §6.3: these names mean loopback, whatever DNS says.
            Host::Domain(name) => {
                let bare = name.strip_suffix('.').unwrap_or(name);
                let local = bare == "localhost" || bare.ends_with(".localhost");
                if local && !self.allows(IpAddr::V4(Ipv4Addr::LOCALHOST)) {
                    return Err(Refusal::LocalName(name.to_owned()));
                }
            }
        }
        Ok(url)
    }

    /// Whether a connection to `address` may be made.
    #[must_use]
    pub fn allows(&self, address: IpAddr) -> bool {
        self.check(address).is_ok()
    }

    /// [`Self::allows`] with the reason.
    ///
    /// # Errors
    /// [`Refusal::Address`].
    pub fn check(&self, address: IpAddr) -> Result<(), Refusal> {
        let judged = translated(address);
        let Some(closed) = CLOSED.iter().find(|closed| closed.network.contains(&judged)) else {
            return Ok(());
        };
        let opened = match closed.opens {
            Opens::Never => false,
            Opens::ByHost => self.allow.contains(&IpNet::from(judged)),
            // An entry for a wider or another range says nothing about this one.
            Opens::ByRange => self.allow.iter().any(|entry| entry.contains(&judged) && closed.network.contains(entry)),
        };
        if opened { Ok(()) } else { Err(Refusal::Address { address, range: closed.range }) }
    }
}

/// Reads a webhook URL and checks its form only: what an endpoint of the operator's own configuration must satisfy.
///
/// # Errors
/// [`Refusal`].
pub fn parse_url(text: &str) -> Result<Url, Refusal> {
    if text.len() > MAX_URL_BYTES {
        return Err(Refusal::TooLong(text.len()));
    }
    // The URL parser drops tabs and line ends silently; what was checked must be what was written.
    if text.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return Err(Refusal::BadCharacter);
    }
    let url = Url::parse(text).map_err(|error| Refusal::NotAUrl(error.to_string()))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(Refusal::Scheme);
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(Refusal::UserInfo);
    }
    match url.host() {
        None | Some(Host::Domain("")) => return Err(Refusal::NoHost),
        Some(_) => {}
    }
    // Escaping can make it longer than it was written.
    if url.as_str().len() > MAX_URL_BYTES {
        return Err(Refusal::TooLong(url.as_str().len()));
    }
    Ok(url)
}

/// A URL without what may be a secret in it: credentials and query.
#[must_use]
pub fn shown_url(url: &str) -> String {
    let Ok(mut shown) = Url::parse(url) else { return "(unreadable)".to_owned() };
    // Neither can fail for a URL with a host, and one without has no credentials.
    let _ = (shown.set_username(""), shown.set_password(None));
    let query = shown.query().is_some();
    shown.set_query(None);
    shown.set_fragment(None);
    if query { format!("{shown}?…") } else { shown.to_string() }
}

/// The IPv4 address that a NAT64 gateway turns this one into (RFC 6052, well-known prefix); else the address itself.
fn translated(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V6(v6) if v6.segments()[..6] == [0x64, 0xff9b, 0, 0, 0, 0] => {
            let [.., a, b, c, d] = v6.octets();
            IpAddr::V4(Ipv4Addr::new(a, b, c, d))
        }
        other => other,
    }
}

/// A range that is closed to callers' webhooks.
struct Closed {
    network: IpNet,
    range: &'static str,
    opens: Opens,
}

/// How the operator can open a closed range.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Opens {
    /// By an entry for it or for a part of it.
    ByRange,
    /// Address by address: whoever opens a network did not mean the metadata service in it.
    ByHost,
    Never,
}

const fn v4(a: u8, b: u8, c: u8, d: u8, prefix: u8, range: &'static str, opens: Opens) -> Closed {
    Closed { network: IpNet::new_assert(IpAddr::V4(Ipv4Addr::new(a, b, c, d)), prefix), range, opens }
}

const fn v6(segments: [u16; 8], prefix: u8, range: &'static str, opens: Opens) -> Closed {
    let [a, b, c, d, e, f, g, h] = segments;
    Closed { network: IpNet::new_assert(IpAddr::V6(Ipv6Addr::new(a, b, c, d, e, f, g, h)), prefix), range, opens }
}

const METADATA: &str = "an address of cloud metadata services";
const LOOPBACK: &str = "loopback";
const PRIVATE: &str = "private";
const LINK_LOCAL: &str = "link-local";
const DOCUMENTATION: &str = "kept for documentation";
const SPECIAL: &str = "kept for special purposes";
const MULTICAST: &str = "multicast";
const TUNNEL: &str = "a tunnel to an IPv4 address";

/// The closed ranges; the first that contains an address decides.
static CLOSED: [Closed; 36] = [
    v4(0, 0, 0, 0, 8, "this network", Opens::Never),
    v4(10, 0, 0, 0, 8, PRIVATE, Opens::ByRange),
    v4(100, 100, 100, 200, 32, METADATA, Opens::ByHost),
    v4(100, 64, 0, 0, 10, "shared by carriers", Opens::ByRange),
    v4(127, 0, 0, 0, 8, LOOPBACK, Opens::ByRange),
    v4(168, 63, 129, 16, 32, METADATA, Opens::ByHost),
    v4(169, 254, 0, 0, 16, LINK_LOCAL, Opens::ByHost),
    v4(172, 16, 0, 0, 12, PRIVATE, Opens::ByRange),
    v4(192, 0, 0, 0, 24, SPECIAL, Opens::ByHost),
    v4(192, 0, 2, 0, 24, DOCUMENTATION, Opens::ByRange),
    v4(192, 88, 99, 0, 24, "a 6to4 relay", Opens::Never),
    v4(192, 168, 0, 0, 16, PRIVATE, Opens::ByRange),
    v4(198, 18, 0, 0, 15, "kept for benchmarks", Opens::ByRange),
    v4(198, 51, 100, 0, 24, DOCUMENTATION, Opens::ByRange),
    v4(203, 0, 113, 0, 24, DOCUMENTATION, Opens::ByRange),
    v4(224, 0, 0, 0, 4, MULTICAST, Opens::Never),
    v4(240, 0, 0, 0, 4, "reserved", Opens::Never),
    v6([0, 0, 0, 0, 0, 0, 0, 1], 128, LOOPBACK, Opens::ByRange),
    // The unspecified address reaches loopback, and IPv4 hides behind the mapped and compatible forms.
    v6([0, 0, 0, 0, 0, 0xffff, 0, 0], 96, "an IPv4 address written as IPv6", Opens::Never),
    v6([0, 0, 0, 0, 0, 0, 0, 0], 8, "reserved", Opens::Never),
    v6([0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254], 128, METADATA, Opens::ByHost),
    v6([0xfc00, 0, 0, 0, 0, 0, 0, 0], 7, PRIVATE, Opens::ByRange),
    v6([0xfe80, 0, 0, 0, 0, 0, 0, 0], 10, LINK_LOCAL, Opens::ByHost),
    v6([0xfec0, 0, 0, 0, 0, 0, 0, 0], 10, PRIVATE, Opens::ByRange),
    v6([0xff00, 0, 0, 0, 0, 0, 0, 0], 8, MULTICAST, Opens::Never),
    v6([0x2001, 0xdb8, 0, 0, 0, 0, 0, 0], 32, DOCUMENTATION, Opens::ByRange),
    v6([0x2001, 0, 0, 0, 0, 0, 0, 0], 23, SPECIAL, Opens::Never),
    v6([0x2002, 0, 0, 0, 0, 0, 0, 0], 16, TUNNEL, Opens::Never),
    v6([0x3fff, 0, 0, 0, 0, 0, 0, 0], 20, DOCUMENTATION, Opens::ByRange),
    // Global unicast is 2000::/3; the rest of the space, in the six prefixes that make up its complement.
    v6([0x0100, 0, 0, 0, 0, 0, 0, 0], 8, "reserved", Opens::Never),
    v6([0x0200, 0, 0, 0, 0, 0, 0, 0], 7, "reserved", Opens::Never),
    v6([0x0400, 0, 0, 0, 0, 0, 0, 0], 6, "reserved", Opens::Never),
    v6([0x0800, 0, 0, 0, 0, 0, 0, 0], 5, "reserved", Opens::Never),
    v6([0x1000, 0, 0, 0, 0, 0, 0, 0], 4, "reserved", Opens::Never),
    v6([0x4000, 0, 0, 0, 0, 0, 0, 0], 2, "reserved", Opens::Never),
    v6([0x8000, 0, 0, 0, 0, 0, 0, 0], 1, "reserved", Opens::Never),
];

/// Ports on which other services than HTTP wait: an opened network often holds them beside the receiver. The Fetch
/// standard's blocked ports that servers use, and the databases and brokers a deployment is likely to have.
static NOT_HTTP: [u16; 47] = [
    0, 1, 7, 9, 11, 13, 15, 17, 19, 20, 21, 22, 23, 25, 37, 42, 43, 53, 69, 79, 110, 111, 119, 123, 135, 137, 139, 143,
    161, 179, 389, 445, 465, 514, 587, 636, 873, 993, 995, 2049, 3306, 5432, 6379, 6380, 9092, 11211, 27017,
];

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn closed() -> AddressPolicy {
        AddressPolicy::default()
    }

    fn open(list: &str) -> AddressPolicy {
        AddressPolicy::parse(list).unwrap()
    }

    #[test]
    fn a_public_url_is_taken_as_it_is_written() {
        for url in [
            "https://hooks.example.com/insight?team=7",
            "http://93.184.216.34/",
            "https://example.com:8443/a",
            "http://[2606:2800:220:1:248:1893:25c8:1946]:8080/x",
            "http://[64:ff9b::5db8:d822]/",
            "https://例え.jp/受信",
        ] {
            assert!(closed().check_url(url).is_ok(), "{url}");
        }
    }

    #[test]
    fn every_spelling_of_a_closed_address_is_refused() {
        const SPELLINGS: &str = "\
            127.0.0.1 127.1 127.0.1 2130706433 0x7f000001 0x7f.0.0.1 0177.0.0.1 017700000001 127.0.0.1. \
            ①②⑦.0.0.1 127。0。0。1 %31%32%37.0.0.1 0 0.0.0.0 localhost LOCALHOST localhost. a.localhost 10.0.0.1 \
            172.16.0.1 172.31.255.255 192.168.1.1 169.254.169.254 100.64.0.1 100.100.100.200 168.63.129.16 \
            192.0.0.192 192.0.2.1 192.88.99.1 198.18.0.1 198.19.255.255 198.51.100.7 203.0.113.9 224.0.0.1 \
            239.255.255.255 240.0.0.1 255.255.255.255 2852039166 0xa9fea9fe 0251.0376.0251.0376 [::] [::1] \
            [0:0:0:0:0:0:0:1] [::ffff:127.0.0.1] [::ffff:7f00:1] [::ffff:93.184.216.34] [::127.0.0.1] \
            [64:ff9b::127.0.0.1] [64:ff9b::a9fe:a9fe] [64:ff9b:1::7f00:1] [2002:7f00:1::] [2001::1] \
            [2001:db8::1] [3fff::1] [5f00::1] [fc00::1] [fd00:ec2::254] [fd12:3456::1] [fe80::1] [fec0::1] \
            [ff02::1] [100::1] [4000::1] [8000::1]";
        for host in SPELLINGS.split_whitespace() {
            let refusal = closed().check_url(&format!("http://{host}:8080/")).expect_err(host);
            assert!(matches!(refusal, Refusal::Address { .. } | Refusal::LocalName(_)), "{host}: {refusal:?}");
        }
    }

    #[test]
    fn a_url_in_the_wrong_form_is_refused_with_its_reason() {
        for (url, why) in [
            ("ftp://example.com/", Refusal::Scheme),
            ("file:///etc/passwd", Refusal::Scheme),
            ("gopher://example.com/", Refusal::Scheme),
            ("https://user@example.com/", Refusal::UserInfo),
            ("https://:secret@example.com/", Refusal::UserInfo),
            ("https://exam\tple.com/", Refusal::BadCharacter),
            (" https://example.com/", Refusal::BadCharacter),
            ("https://example.com/\u{0}", Refusal::BadCharacter),
            ("http://example.com:6379/", Refusal::Port(6379)),
            ("http://example.com:25/", Refusal::Port(25)),
        ] {
            assert_eq!(closed().check_url(url), Err(why), "{url}");
        }
        for url in
            ["", "example.com", "/hook", "http://", "http://[::1", "http://[fe80::1%25eth0]/", "http://1.2.3.4.5/"]
        {
            assert!(matches!(closed().check_url(url), Err(Refusal::NotAUrl(_) | Refusal::NoHost)), "{url}");
        }
        let long = format!("https://example.com/{}", "a".repeat(MAX_URL_BYTES));
        assert_eq!(closed().check_url(&long), Err(Refusal::TooLong(long.len())));
        let grows = format!("https://example.com/{}", "é".repeat(1_000));
        assert!(matches!(closed().check_url(&grows), Err(Refusal::TooLong(_))), "escaping makes it too long");
    }

    #[test]
    fn an_opened_network_opens_itself_and_nothing_else() {
        let docker = open("172.16.0.0/12, fd12::/16");
        for url in ["http://172.18.0.5:8000/hook", "http://[fd12::5]/hook", "http://[64:ff9b::ac12:5]/hook"] {
            assert!(docker.check_url(url).is_ok(), "{url}");
        }
        for url in [
            "http://172.32.0.1:6379/",
            "http://127.0.0.1/",
            "http://localhost/",
            "http://10.0.0.1/",
            "http://172.18.0.5:6379/",
            "http://172.18.0.5:3306/",
            "http://[::ffff:172.18.0.5]/",
            "http://[fd00:ec2::254]/",
        ] {
            assert!(docker.check_url(url).is_err(), "{url}");
        }
        let local = open("127.0.0.1,::1");
        assert!(local.check_url("http://localhost:8000/").is_ok());
        assert!(local.check_url("http://[::1]:8000/").is_ok());
        assert!(local.check_url("http://127.0.0.2/").is_err());
    }

    #[test]
    fn metadata_services_open_one_address_at_a_time() {
        assert!(open("100.64.0.0/10").allows("100.64.3.4".parse().unwrap()));
        assert!(!open("100.64.0.0/10").allows("100.100.100.200".parse().unwrap()));
        assert!(!open("fc00::/7").allows("fd00:ec2::254".parse().unwrap()));
        assert!(open("169.254.10.1").allows("169.254.10.1".parse().unwrap()));
        assert!(matches!(AddressPolicy::parse("169.254.0.0/16"), Err(BadAllowance::TooWide { .. })));
    }

    #[test]
    fn an_entry_that_would_open_everything_or_nothing_is_refused() {
        for list in ["0.0.0.0/0", "::/0", "8.8.8.0/24", "10.0.0.0/7", "224.0.0.1", "::ffff:0:0/96", "2002::/16"] {
            assert!(matches!(AddressPolicy::parse(list), Err(BadAllowance::OpensNothing(_))), "{list}");
        }
        assert!(matches!(AddressPolicy::parse("docker"), Err(BadAllowance::NotANetwork(_))));
        assert_eq!(AddressPolicy::parse(" "), Ok(AddressPolicy::default()));
    }

    #[test]
    fn a_url_shows_no_credentials() {
        for (url, shown) in [
            ("https://user:secret@example.com/hook?token=secret#x", "https://example.com/hook?…"),
            ("https://example.com/hook", "https://example.com/hook"),
            ("secret", "(unreadable)"),
        ] {
            assert_eq!(shown_url(url), shown);
        }
    }

    proptest! {
        #[test]
        fn the_verdict_on_an_ipv4_address_does_not_depend_on_its_spelling(bits: u32) {
            let address = Ipv4Addr::from(bits);
            let [a, b, c, d] = address.octets();
            let allowed = closed().allows(IpAddr::V4(address));
            for host in [
                format!("{address}"), format!("{bits}"), format!("{bits:#x}"), format!("0{bits:o}"),
                format!("{a:#x}.{b:#x}.{c:#x}.{d:#x}"), format!("0{a:o}.0{b:o}.0{c:o}.0{d:o}"),
                format!("{a}.{b}.{}", u32::from(c) << 8 | u32::from(d)), format!("[64:ff9b::{address}]"),
            ] {
                let verdict = closed().check_url(&format!("http://{host}/"));
                prop_assert_eq!(verdict.is_ok(), allowed, "{}: {:?}", host, verdict);
            }
            prop_assert!(!closed().allows(IpAddr::V6(address.to_ipv6_mapped())));
            prop_assert!(!closed().allows(IpAddr::V6(address.to_ipv6_compatible())));
            let six_to_four = format!("2002:{:x}:{:x}::1", bits >> 16, bits & 0xffff);
            prop_assert!(!closed().allows(six_to_four.parse().unwrap()));
        }

        #[test]
        fn nothing_outside_global_unicast_is_allowed(bits: u128) {
            let address = Ipv6Addr::from(bits);
            let global = address.segments()[0] >> 13 == 1;
            let nat64 = translated(IpAddr::V6(address)).is_ipv4();
            prop_assert!(global || nat64 || !closed().allows(IpAddr::V6(address)), "{}", address);
        }

        #[test]
        fn whatever_is_written_never_panics(text in "\\PC{0,80}", host in "[0-9a-fx.:\\[\\]%]{1,30}") {
            let _ = closed().check_url(&text);
            let _ = closed().check_url(&format!("http://{host}/"));
            let _ = AddressPolicy::parse(&text);
        }
    }
}
