//! What a handshake has agreed on, to hand to those who have no stream: handlers of HTTP, say.

use std::sync::Arc;

use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::{
    CommonState, HandshakeKind, ProtocolVersion, ServerConnection, SupportedCipherSuite,
};

/// What a handshake has agreed on. A clone shares it.
///
/// # Examples
///
/// ```
/// use quoit_tls::{TlsInfo, server::TlsStream};
///
/// fn who<IO>(stream: &TlsStream<IO>) -> String {
///     let info = TlsInfo::from(stream.get_ref().1);
///     let name = info.server_name().unwrap_or("nobody in particular");
///     let count = info.peer_certificates().map_or(0, <[_]>::len);
///     format!("asked for {name}, with {count} certificates")
/// }
/// ```
#[derive(Clone, Debug)]
pub struct TlsInfo(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    server_name: Option<String>,
    alpn: Option<Vec<u8>>,
    version: Option<ProtocolVersion>,
    suite: Option<SupportedCipherSuite>,
    kind: Option<HandshakeKind>,
    certificates: Option<Vec<CertificateDer<'static>>>,
}

impl TlsInfo {
    fn new(connection: &CommonState, server_name: Option<&str>) -> Self {
        Self(Arc::new(Inner {
            server_name: server_name.map(str::to_owned),
            alpn: connection.alpn_protocol().map(<[u8]>::to_vec),
            version: connection.protocol_version(),
            suite: connection.negotiated_cipher_suite(),
            kind: connection.handshake_kind(),
            certificates: connection
                .peer_certificates()
                .map(|chain| chain.iter().map(|one| one.clone().into_owned()).collect()),
        }))
    }

    /// The name that the client has asked for (SNI); `None` if for none.
    #[must_use]
    pub fn server_name(&self) -> Option<&str> {
        self.0.server_name.as_deref()
    }

    /// The protocol that both speak inside (ALPN).
    #[must_use]
    pub fn alpn_protocol(&self) -> Option<&[u8]> {
        self.0.alpn.as_deref()
    }

    /// The version of TLS.
    #[must_use]
    pub fn protocol_version(&self) -> Option<ProtocolVersion> {
        self.0.version
    }

    /// The cipher suite.
    #[must_use]
    pub fn negotiated_cipher_suite(&self) -> Option<SupportedCipherSuite> {
        self.0.suite
    }

    /// Whether it was a full handshake, or a session was resumed.
    #[must_use]
    pub fn handshake_kind(&self) -> Option<HandshakeKind> {
        self.0.kind
    }

    /// The client's certificates, its own first, which the configuration's verifier found good;
    /// `None` if it has shown none.
    #[must_use]
    pub fn peer_certificates(&self) -> Option<&[CertificateDer<'static>]> {
        self.0.certificates.as_deref()
    }
}

impl From<&ServerConnection> for TlsInfo {
    fn from(connection: &ServerConnection) -> Self {
        Self::new(connection, connection.server_name())
    }
}
