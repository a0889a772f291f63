//! Encrypted lines whose server is not who it should be, or which break: row N11, and redirects that give up encryption.
//!
//! The device trusts one authority of the test; so an expired certificate is refused because it is expired, and not
//! because nobody knows who issued it.

use std::io::{self, Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use otad::failure::Code::{NetClock, NetFailed, NetRedirect, NetStalled, NetTls};
use rcgen::{CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, KeyPair, date_time_ymd};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::super::papers::{Acceptor, Authority, authority, identity, subject, trusted, trusting};
use super::super::script::{Answer, Served, Server, read_request};
use super::device::shelf;
use super::hasty_fetch;
use super::stage::End::{Broken, Refused, Resumed};
use super::stage::{Case, End, Opponent, served};

pub(super) fn cases() -> Vec<Case> {
    [certificates(), protocols(), breaks()].into_iter().flatten().collect()
}

/// A byte of the bundle that is well among the chunks.
const MIDDLE: usize = 300_000;

/// What a server shows for itself.
type Identity = fn() -> Arc<ServerConfig>;

fn certificates() -> Vec<Case> {
    let shown = |name: &'static str, identity: Identity, end: End| {
        Case::of("N11", name, end, move || opponent(TlsServer::start(vec![identity()], Mishap::None)))
    };
    let refused = |name, identity, words| shown(name, identity, Refused(NetTls)).saying(words);
    vec![
        shown("a certificate in order", good, Resumed),
        refused(
            "an expired certificate",
            || issued(|leaf| leaf.not_after = date_time_ymd(2020, 1, 1)),
            "expired",
        ),
        shown(
            "a certificate of the future, which means a clock of the past",
            || issued(|leaf| leaf.not_before = date_time_ymd(2190, 1, 1)),
            Refused(NetClock),
        )
        .saying("not valid yet"),
        refused(
            "a certificate for another name",
            || issued_for("updates.example.com", |_| {}),
            "not valid for name",
        ),
        refused(
            "a certificate for another address",
            || issued_for("127.0.0.2", |_| {}),
            "not valid for name",
        ),
        refused("a certificate for clients", || issued(for_clients), "client authentication"),
        refused("a certificate that signs itself", self_signed, "UnknownIssuer"),
        refused(
            "a certificate of an unknown authority",
            || leaf_of(&authority("a stranger"), "127.0.0.1", |_| {}),
            "UnknownIssuer",
        ),
        refused("a certificate issued by a certificate that may not", issued_by_a_leaf, "AsCa"),
    ]
}

fn protocols() -> Vec<Case> {
    // A handshake record with a ServerHello that chooses TLS 1.1 and a cipher suite of its time.
    let mut old_hello = vec![22, 3, 2, 0, 42, 2, 0, 0, 38, 3, 2];
    old_hello.extend([7; 32]);
    old_hello.extend([0, 0x00, 0x2f, 0]);
    let mut last_hello = old_hello.clone();
    // TLS 1.2 with ECDHE-RSA-AES128-GCM-SHA256, which is as good as it was.
    (last_hello[2], last_hello[10]) = (3, 3);
    (last_hello[44], last_hello[45]) = (0xc0, 0x2f);
    let alert = vec![21, 3, 1, 0, 2, 2, 70];
    let plain = b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx".to_vec();
    vec![
        Case::of("N11", "a server that chooses TLS 1.1", Refused(NetTls), move || speaking(old_hello))
            .saying("has to speak TLS 1.3"),
        Case::of("N11", "a server that chooses TLS 1.2", Refused(NetTls), move || speaking(last_hello))
            .saying("has to speak TLS 1.3"),
        Case::of("N11", "a server whose TLS is too old to answer", Refused(NetTls), move || speaking(alert))
            .saying("ProtocolVersion"),
        Case::of("N11", "plain HTTP where TLS should be", Refused(NetTls), move || speaking(plain)),
        Case::of("N11", "a handshake that never comes", Refused(NetStalled), || speaking(Vec::new())),
    ]
}

fn breaks() -> Vec<Case> {
    let case = |name: &'static str,
                mishap: fn(&Server) -> Mishap,
                identities: fn() -> Vec<Arc<ServerConfig>>,
                end| {
        Case::of("N11", name, end, move || {
            let file = served(&shelf().bundle);
            let plain = Server::start(move |_, request, wire| wire.send(&file.answer(request)));
            let mut opponent = opponent(TlsServer::start(identities(), mishap(&plain)));
            opponent.server = Box::new((opponent.server, plain));
            opponent
        })
    };
    let one = || vec![good()];
    let impostor: fn() -> _ = || vec![good(), self_signed()];
    let renewed: fn() -> _ = || vec![good(), good()];
    vec![
        case("a line cut without a farewell in the middle", |_| Mishap::CutInTheMiddle, one, Resumed),
        case(
            "another certificate of the same authority after a break",
            |_| Mishap::CutInTheMiddle,
            renewed,
            Resumed,
        ),
        case(
            "an impostor after a break in the middle",
            |_| Mishap::CutAllFromTheMiddle,
            impostor,
            Broken(NetTls),
        ),
        case("a record damaged on the way, once", |_| Mishap::DamagedRecord, one, Resumed),
        case(
            "a redirect from https to http",
            |plain| Mishap::RedirectFrom(0, plain.url("/x.otab")),
            one,
            Refused(NetRedirect),
        ),
        case(
            "a redirect from https to http in the middle",
            |plain| Mishap::RedirectFrom(MIDDLE, plain.url("/x.otab")),
            one,
            Broken(NetRedirect),
        ),
        case("a line that is cut at each answer", |_| Mishap::CutAlways, one, Refused(NetFailed)),
    ]
}

/// Bytes that a server says whoever asks, before it waits for the client to go.
fn speaking(bytes: Vec<u8>) -> Opponent {
    let acceptor = Acceptor::start(move |mut stream, _| {
        stream.write_all(&bytes)?;
        io::copy(&mut stream, &mut io::sink()).map(drop)
    });
    opponent(TlsServer(acceptor))
}

fn opponent(server: TlsServer) -> Opponent {
    let fetch = hasty_fetch().secured(Ok(trusting(trusted())));
    Opponent { fetch, ..Opponent::new(format!("https://{}/x.otab", server.0.address), server) }
}

fn good() -> Arc<ServerConfig> {
    issued(|_| {})
}

fn issued(adjust: impl FnOnce(&mut CertificateParams)) -> Arc<ServerConfig> {
    issued_for("127.0.0.1", adjust)
}

fn issued_for(name: &str, adjust: impl FnOnce(&mut CertificateParams)) -> Arc<ServerConfig> {
    leaf_of(trusted(), name, adjust)
}

fn for_clients(leaf: &mut CertificateParams) {
    leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
}

fn leaf_of(issuer: &Authority, name: &str, adjust: impl FnOnce(&mut CertificateParams)) -> Arc<ServerConfig> {
    let (mut params, key) = (subject("a server", vec![name.to_owned()]), KeyPair::generate().unwrap());
    adjust(&mut params);
    let leaf = params.signed_by(&key, issuer).unwrap();
    identity(vec![leaf.der().clone()], &key)
}

fn self_signed() -> Arc<ServerConfig> {
    let (params, key) = (subject("a server", vec!["127.0.0.1".to_owned()]), KeyPair::generate().unwrap());
    identity(vec![params.self_signed(&key).unwrap().der().clone()], &key)
}

/// A chain of three in which the middle one is a server and no authority.
fn issued_by_a_leaf() -> Arc<ServerConfig> {
    let params = subject("another server", vec!["other.example.com".to_owned()]);
    let middle = CertifiedIssuer::signed_by(params, KeyPair::generate().unwrap(), trusted()).unwrap();
    let (params, key) = (subject("a server", vec!["127.0.0.1".to_owned()]), KeyPair::generate().unwrap());
    let leaf = params.signed_by(&key, &middle).unwrap();
    identity(vec![leaf.der().clone(), middle.der().clone()], &key)
}

/// What goes wrong on an encrypted line.
enum Mishap {
    None,
    /// Once, the connection goes in the middle of the file, without the farewell that TLS has for that.
    CutInTheMiddle,
    /// The same, and from then on every connection that was there before is closed at its next request.
    CutAllFromTheMiddle,
    /// Every connection goes before the answer.
    CutAlways,
    /// Once, a byte of a record changes on its way.
    DamagedRecord,
    /// From this byte of the file on, the answer is a redirect to there.
    RedirectFrom(usize, String),
}

/// A server of the bundle that shows its first identity until its mishap came, and its last one from then on.
struct TlsServer(Acceptor);

impl TlsServer {
    fn start(identities: Vec<Arc<ServerConfig>>, mishap: Mishap) -> TlsServer {
        let (file, once) = (served(&shelf().bundle), AtomicBool::new(false));
        TlsServer(Acceptor::start(move |stream, number| {
            let early = !once.load(Ordering::SeqCst);
            let identity = if early { identities.first() } else { identities.last() }.unwrap();
            let connection = ServerConnection::new(identity.clone()).map_err(io::Error::other)?;
            let stream = StreamOwned::new(connection, stream);
            serve(stream, (number, early), &file, &mishap, &once)
        }))
    }
}

fn serve(
    mut stream: StreamOwned<ServerConnection, TcpStream>,
    (number, early): (usize, bool),
    file: &Served,
    mishap: &Mishap,
    once: &AtomicBool,
) -> io::Result<()> {
    while let Some(request) = read_request(&mut stream, number)? {
        stream.read_exact(&mut [0])?;
        let (first, answer) = (request.range().unwrap().0, file.answer(&request));
        let first_time = || first >= MIDDLE && !once.swap(true, Ordering::SeqCst);
        match mishap {
            Mishap::CutAlways => return Ok(()),
            Mishap::CutAllFromTheMiddle if early && once.load(Ordering::SeqCst) => return Ok(()),
            Mishap::CutInTheMiddle | Mishap::CutAllFromTheMiddle if first_time() => {
                stream.write_all(&answer.bytes()[..9000])?;
                return stream.flush();
            }
            Mishap::DamagedRecord if first_time() => {
                stream.conn.writer().write_all(&answer.bytes()[..9000])?;
                let mut records = Vec::new();
                stream.conn.write_tls(&mut records)?;
                records[8000] ^= 1;
                stream.sock.write_all(&records)?;
                return stream.sock.read(&mut [0]).map(drop);
            }
            Mishap::RedirectFrom(from, to) if first >= *from => {
                stream.write_all(&Answer::new("302 Found", b"").set("Location", to).bytes())?;
            }
            _ => stream.write_all(&answer.bytes())?,
        }
        stream.flush()?;
    }
    Ok(())
}
