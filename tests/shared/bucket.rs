//! An S3 bucket on this machine, over S3's own protocol: a `moto_server`, which keeps it in memory.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use object_store::ObjectStore;
use url::Url;

/// Python takes its time on a busy machine.
const START: Duration = Duration::from_secs(60);
const NAME: &str = "shelf";

pub(crate) struct Bucket {
    server: Child,
    addr: String,
}

impl Bucket {
    /// Serves an empty bucket, with the program that INSIGHTFORGE_TEST_S3_SERVER names.
    pub(crate) fn serve() -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let program =
            std::env::var("INSIGHTFORGE_TEST_S3_SERVER").expect("INSIGHTFORGE_TEST_S3_SERVER names moto_server");
        let deadline = Instant::now() + START;
        // Another process may take the port in between.
        loop {
            let addr = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
            let mut server = Command::new(&program)
                .args(["-H", "127.0.0.1", "-p", &addr.port().to_string()])
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            while server.try_wait().unwrap().is_none() {
                if let Ok(connection) = TcpStream::connect(addr) {
                    let bucket = Self { server, addr: addr.to_string() };
                    bucket.create(connection);
                    return bucket;
                }
                assert!(Instant::now() < deadline, "{program} does not listen");
                std::thread::sleep(Duration::from_millis(20));
            }
            assert!(Instant::now() < deadline, "{program} ends at once");
        }
    }

    fn create(&self, mut connection: TcpStream) {
        let head =
            format!("PUT /{NAME} HTTP/1.1\r\nHost: {}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", self.addr);
        connection.write_all(head.as_bytes()).unwrap();
        let mut answer = String::new();
        connection.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }

    pub(crate) fn url(&self, prefix: &str) -> String {
        format!("s3://{NAME}/{prefix}")
    }

    /// How `object_store` reaches it, as its variables say in lower case.
    pub(crate) fn options(&self) -> Vec<(String, String)> {
        let endpoint = format!("http://{}", self.addr);
        let options = [
            ("aws_endpoint", endpoint.as_str()),
            ("aws_allow_http", "true"),
            ("aws_region", "us-east-1"),
            ("aws_access_key_id", "shelf-id"),
            ("aws_secret_access_key", "shelf-word"),
        ];
        options.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec()
    }

    /// The bucket itself, past the program.
    pub(crate) fn objects(&self) -> Box<dyn ObjectStore> {
        object_store::parse_url_opts(&Url::parse(&self.url("")).unwrap(), self.options()).unwrap().0
    }
}

impl Drop for Bucket {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}
