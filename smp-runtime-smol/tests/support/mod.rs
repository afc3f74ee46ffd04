//! A relay process and a plain client, for tests of the binary.
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::io::{BufRead, BufReader, Read};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::Duration;

use serde_json::Value;
use smp_runtime_std::certificates::Fingerprint;
use smp_runtime_std::tls::{ClientTls, TlsSession};

/// Long enough for any machine; a test that gets here has failed.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// `smp-server` with these arguments.
pub fn smp_server(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_smp-server"));
    command.arg("--data").arg(folder).arg("--json").args(arguments).stdin(Stdio::null());
    command
}

/// Runs it to its end.
pub fn run(folder: &Path, arguments: &[&str]) -> Output {
    smp_server(folder, arguments).output().expect("the binary runs")
}

/// Makes a folder for a relay on a free port of loopback, and changes lines of its configuration: `("key", "value")`.
pub fn init(folder: &Path, settings: &[(&str, &str)]) {
    let output = run(folder, &["init", "--port", "0", "--listen", "127.0.0.1"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    set(folder, settings);
}

/// Changes lines of the configuration.
pub fn set(folder: &Path, settings: &[(&str, &str)]) {
    let file = folder.join("smp-server.ini");
    let mut text = std::fs::read_to_string(&file).expect("init wrote it");
    for (key, value) in settings {
        let lines: Vec<String> = text
            .lines()
            .map(|line| {
                let bare = line.strip_prefix("# ").unwrap_or(line);
                if bare.starts_with(&format!("{key}:")) { format!("{key}: {value}") } else { line.to_owned() }
            })
            .collect();
        assert!(lines.iter().any(|line| *line == format!("{key}: {value}")), "{key} is in the file");
        text = lines.join("\n");
    }
    std::fs::write(&file, text).expect("it can be written");
}

/// A relay that listens.
pub struct Server {
    child: Child,
    lines: BufReader<std::process::ChildStdout>,
    pub address: SocketAddr,
    pub fingerprint: Fingerprint,
}

impl Server {
    /// Starts it and waits until it listens.
    pub fn start(folder: &Path) -> Self {
        Self::spawn(smp_server(folder, &["start"]))
    }

    pub fn spawn(mut command: Command) -> Self {
        let mut child =
            command.stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn().expect("the binary starts");
        let mut lines = BufReader::new(child.stdout.take().expect("it was piped"));
        let listening = loop {
            let event = next_event(&mut lines).expect("it listens before it ends");
            if event["event"] == "listening" {
                break event;
            }
        };
        let address = listening["addresses"][0].as_str().expect("an address").parse().expect("an address");
        let fingerprint =
            listening["fingerprint"].as_str().expect("a fingerprint").parse().expect("a fingerprint");
        Self { child, lines, address, fingerprint }
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    pub fn next_event(&mut self) -> Option<Value> {
        next_event(&mut self.lines)
    }

    /// Resident memory of the process, in bytes.
    pub fn resident_memory(&self) -> usize {
        let text = std::fs::read_to_string(format!("/proc/{}/status", self.id())).expect("it runs");
        let line = text.lines().find(|line| line.starts_with("VmRSS:")).expect("Linux says so");
        let kilobytes: usize =
            line.split_whitespace().nth(1).and_then(|number| number.parse().ok()).expect("a number");
        kilobytes * 1024
    }

    /// Asks it to stop, and waits until it has.
    pub fn stop(self) -> ExitStatus {
        self.signal(rustix::process::Signal::TERM);
        self.stop_waiting()
    }

    /// Waits until it has stopped.
    pub fn stop_waiting(mut self) -> ExitStatus {
        self.child.wait().expect("it ends")
    }

    pub fn signal(&self, signal: rustix::process::Signal) {
        let id = rustix::process::Pid::from_raw(i32::try_from(self.id()).expect("it fits")).expect("not 0");
        rustix::process::kill_process(id, signal).expect("it runs");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // A test that failed leaves no process behind; after `stop` there is none.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn next_event(lines: &mut impl BufRead) -> Option<Value> {
    let mut line = String::new();
    if lines.read_line(&mut line).expect("it can be read") == 0 {
        return None;
    }
    Some(serde_json::from_str(&line).expect("one JSON object a line"))
}

/// A client that speaks any version without block encryption, by hand: it shares no code with what it tests.
pub struct PlainClient {
    pub socket: TcpStream,
    pub tls: TlsSession,
    session_id: [u8; 32],
}

impl PlainClient {
    /// Dials, and does the TLS handshake.
    pub fn dial(address: SocketAddr, fingerprint: Fingerprint) -> Self {
        let mut socket = TcpStream::connect(address).expect("it listens");
        socket.set_read_timeout(Some(PATIENCE)).expect("a socket");
        socket.set_nodelay(true).expect("a socket");
        let configuration = ClientTls::new(fingerprint).expect("a configuration");
        let mut tls = TlsSession::client(&configuration).expect("a session");
        let facts = loop {
            while tls.wants_write() {
                tls.write_tls(&mut socket).expect("it reads");
            }
            if let Some(facts) = tls.take_facts() {
                break facts;
            }
            assert_ne!(tls.read_tls(&mut socket).expect("it answers"), 0, "it closed during the handshake");
            tls.process().expect("the handshake is right");
        };
        Self { socket, tls, session_id: facts.session_id }
    }

    /// Dials and shakes hands.
    pub fn connect(server: &Server) -> Self {
        let mut client = Self::dial(server.address, server.fingerprint);
        client.hello(server.fingerprint);
        client
    }

    /// The SMP handshake at the newest version that the relay offers, without a key (WIRE-FACTS 4.5).
    pub fn hello(&mut self, fingerprint: Fingerprint) {
        let hello = self.receive();
        assert_eq!(hello[..2], [0, 6], "the oldest version");
        let version = u16::from_be_bytes([hello[2], hello[3]]);
        assert_eq!(hello[4], 32);
        assert_eq!(hello[5..37], self.session_id, "the session id is TLS's");
        let mut answer = version.to_be_bytes().to_vec();
        answer.push(32);
        answer.extend_from_slice(&fingerprint.0);
        if version >= 14 {
            answer.push(b'F');
        }
        if version >= 16 {
            answer.push(b'0');
        }
        self.send(&answer);
    }

    /// Sends one block.
    pub fn send(&mut self, content: &[u8]) {
        self.tls.write_plaintext(&block(content)).expect("there is room");
        while self.tls.wants_write() {
            self.tls.write_tls(&mut self.socket).expect("it reads");
        }
    }

    /// Sends one unauthorized transmission.
    pub fn send_command(&mut self, correlation: [u8; 24], entity: &[u8], command: &[u8]) {
        self.send(&batch(&[transmission(correlation, entity, command)]));
    }

    /// The content of the next block.
    pub fn receive(&mut self) -> Vec<u8> {
        self.try_receive().expect("it does not close")
    }

    /// The content of the next block, `None` when the relay closes the connection.
    pub fn try_receive(&mut self) -> Option<Vec<u8>> {
        loop {
            let content = self.tls.read_block(|block: &mut [u8; 16_384]| {
                let length = usize::from(u16::from_be_bytes([block[0], block[1]]));
                block[2..2 + length].to_vec()
            });
            if let Some(content) = content.expect("blocks are right") {
                return Some(content);
            }
            if self.tls.peer_has_closed() {
                return None;
            }
            match self.tls.read_tls(&mut self.socket) {
                Ok(0) => return None,
                Ok(_) => {}
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return None,
                Err(error) => panic!("the relay says nothing: {error}"),
            }
        }
    }

    /// Asks for a sign of life.
    pub fn ping(&mut self) {
        let correlation = [7; 24];
        self.send_command(correlation, b"", b"PING");
        let answer = self.receive();
        let expected = batch(&[transmission(correlation, b"", b"PONG")]);
        assert_eq!(answer, expected);
    }

    /// Whether the relay closes the connection, after whatever it still says.
    pub fn waits_to_be_closed(mut self) -> bool {
        let mut rest = Vec::new();
        match self.socket.read_to_end(&mut rest) {
            Ok(_) => true,
            Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
        }
    }
}

/// `content` padded to a block (WIRE-FACTS 3, 4.4).
pub fn block(content: &[u8]) -> Vec<u8> {
    let mut block = u16::try_from(content.len()).expect("it fits").to_be_bytes().to_vec();
    block.extend_from_slice(content);
    block.resize(16_384, b'#');
    block
}

/// Transmissions as the content of a block (WIRE-FACTS 4.7).
pub fn batch(transmissions: &[Vec<u8>]) -> Vec<u8> {
    let mut content = vec![u8::try_from(transmissions.len()).expect("at most 255")];
    for transmission in transmissions {
        content.extend_from_slice(&u16::try_from(transmission.len()).expect("it fits").to_be_bytes());
        content.extend_from_slice(transmission);
    }
    content
}

/// A transmission without authorization, version 7 and above.
pub fn transmission(correlation: [u8; 24], entity: &[u8], command: &[u8]) -> Vec<u8> {
    let mut transmission = vec![0, 24];
    transmission.extend_from_slice(&correlation);
    transmission.push(u8::try_from(entity.len()).expect("at most 255"));
    transmission.extend_from_slice(entity);
    transmission.extend_from_slice(command);
    transmission
}
