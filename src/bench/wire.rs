//! HTTP/1.1 messages framed by `Content-Length` over one kept-alive connection: all that the load and the receiver need,
//! at a tenth of a full client's cost.

use std::io;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A body beyond this is refused, in bytes.
const MAX_BODY: usize = 64 << 20;
const MAX_HEAD: usize = 64 << 10;

pub(super) struct Connection {
    stream: TcpStream,
    received: BytesMut,
}

/// A request or an answer.
pub(super) struct Message {
    head: BytesMut,
    pub(super) body: BytesMut,
}

impl Connection {
    pub(super) fn new(stream: TcpStream) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        Ok(Self { stream, received: BytesMut::with_capacity(4096) })
    }

    pub(super) async fn connect(addr: &str) -> io::Result<Self> {
        Self::new(TcpStream::connect(addr).await?)
    }

    /// Sends `request` and waits for its answer.
    pub(super) async fn exchange(&mut self, request: &[u8]) -> io::Result<Message> {
        self.send(request).await?;
        self.receive().await?.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }

    pub(super) async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await
    }

    /// The next message; `None` when the other side closed between two.
    pub(super) async fn receive(&mut self) -> io::Result<Option<Message>> {
        let head_length = loop {
            if let Some(at) = self.received.windows(4).position(|window| window == b"\r\n\r\n") {
                break at + 4;
            }
            if self.received.len() > MAX_HEAD {
                return Err(invalid("the head is too long"));
            }
            if self.read_more().await? == 0 {
                return if self.received.is_empty() { Ok(None) } else { Err(io::ErrorKind::UnexpectedEof.into()) };
            }
        };
        let body_length = body_length(&self.received[..head_length])?;
        while self.received.len() < head_length + body_length {
            if self.read_more().await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        let head = self.received.split_to(head_length);
        Ok(Some(Message { head, body: self.received.split_to(body_length) }))
    }

    async fn read_more(&mut self) -> io::Result<usize> {
        self.received.reserve(2048);
        self.stream.read_buf(&mut self.received).await
    }
}

impl Message {
    /// The status of an answer; 0 for what is none.
    pub(super) fn status(&self) -> u16 {
        let mut words = self.head[..].split(|byte| *byte == b' ');
        words.next();
        words.next().and_then(|word| std::str::from_utf8(word).ok()?.parse().ok()).unwrap_or(0)
    }

    pub(super) fn header(&self, name: &str) -> Option<&str> {
        header(&self.head, name)
    }

    /// Whether the connection may carry another message.
    pub(super) fn keeps_alive(&self) -> bool {
        !self.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"))
    }
}

fn header<'h>(head: &'h [u8], name: &str) -> Option<&'h str> {
    head.split(|byte| *byte == b'\n').find_map(|line| {
        let (found, value) = line.split_at_checked(name.len())?;
        let value = found.eq_ignore_ascii_case(name.as_bytes()).then_some(value)?.strip_prefix(b":")?;
        std::str::from_utf8(value).ok().map(str::trim)
    })
}

fn body_length(head: &[u8]) -> io::Result<usize> {
    if header(head, "transfer-encoding").is_some() {
        return Err(invalid("a body without Content-Length"));
    }
    let Some(length) = header(head, "content-length") else { return Ok(0) };
    length.parse().ok().filter(|length| *length <= MAX_BODY).ok_or_else(|| invalid("Content-Length"))
}

fn invalid(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

/// The bytes of a request with a JSON or NDJSON body.
pub(super) fn post(host: &str, path: &str, content_type: &str, body: &[u8]) -> Vec<u8> {
    let mut request = format!(
        "POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\n\r\n",
        body.len()
    )
    .into_bytes();
    request.extend_from_slice(body);
    request
}

/// The bytes of a request without a body.
pub(super) fn get(host: &str, path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n").into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn pair() -> (Connection, TcpStream) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (Connection::new(listener.accept().await.unwrap().0).unwrap(), client)
    }

    #[tokio::test]
    async fn two_messages_in_one_packet_are_read_one_after_the_other() {
        let (mut connection, mut peer) = pair().await;
        peer.write_all(
            b"HTTP/1.1 202 Accepted\r\ncontent-LENGTH:  2\r\n\r\nokHTTP/1.1 429 Too Many\r\nRetry-After: 3\r\n",
        )
        .await
        .unwrap();
        peer.write_all(b"Connection: close\r\n\r\n").await.unwrap();
        drop(peer);
        let first = connection.receive().await.unwrap().unwrap();
        assert_eq!((first.status(), &first.body[..], first.keeps_alive()), (202, &b"ok"[..], true));
        let second = connection.receive().await.unwrap().unwrap();
        assert_eq!((second.status(), second.header("retry-after"), second.keeps_alive()), (429, Some("3"), false));
        assert!(connection.receive().await.unwrap().is_none());
    }

    #[tokio::test]
    async fn a_message_cut_short_is_an_error_and_not_an_end() {
        for cut in ["HTTP/1.1 200 OK\r\nContent-", "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf"] {
            let (mut connection, mut peer) = pair().await;
            peer.write_all(cut.as_bytes()).await.unwrap();
            drop(peer);
            assert!(connection.receive().await.is_err(), "{cut:?}");
        }
    }

    #[test]
    fn an_unframed_body_is_refused() {
        assert!(body_length(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").is_err());
        assert!(body_length(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n").is_err());
        assert_eq!(body_length(b"GET / HTTP/1.1\r\n\r\n").unwrap(), 0);
    }
}
