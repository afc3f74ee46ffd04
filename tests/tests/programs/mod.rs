//! The real programs, `smp-server` and `smp`, run as processes.
#![allow(dead_code, reason = "each test program uses a part of it")]
#![allow(clippy::unwrap_used, reason = "a test")]

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use serde_json::Value;
use smp_runtime_std::certificates::Fingerprint;

/// Where cargo puts what it builds for the profile that this test was built with.
fn folder() -> PathBuf {
    // …/debug/deps/this-test
    let test = std::env::current_exe().unwrap();
    test.parent().unwrap().parent().unwrap().to_owned()
}

/// Builds the programs, once; usually there is nothing to do.
fn built() {
    static BUILT: OnceLock<()> = OnceLock::new();
    BUILT.get_or_init(|| {
        let mut command = Command::new(env!("CARGO"));
        command.args(["build", "--quiet", "-p", "smp-runtime-smol", "--bin", "smp-server"]);
        command.args(["-p", "smp-runtime-std", "--bin", "smp"]);
        if folder().ends_with("release") {
            command.arg("--release");
        }
        command.arg("--target-dir").arg(folder().parent().unwrap());
        command.current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap());
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    });
}

/// A program, to be run.
pub fn program(name: &str) -> Command {
    built();
    let mut command = Command::new(folder().join(name));
    // What the developer's shell has set must not decide.
    for variable in ["SMP_DATA", "SMP_ADDRESS", "SMP_PASSPHRASE", "SMP_PASSPHRASE_FILE", "SMP_PROXY"] {
        command.env_remove(variable);
    }
    command.stdin(Stdio::null());
    command
}

/// What it printed on its standard output, when it succeeded.
pub fn succeeded(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{}\n{}\n{}", output.status, text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}

/// The JSON lines of a text.
pub fn json_lines(text: &str) -> Vec<Value> {
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect()
}

/// A folder of `smp-server`, and how to run it.
pub struct ServerFolder {
    folder: tempfile::TempDir,
}

/// A running `smp-server`. It is killed when dropped.
pub struct ServerProcess {
    pub child: Child,
    pub address: SocketAddr,
    pub fingerprint: Fingerprint,
    /// Queues that were there when it started.
    pub queues: u64,
    output: BufReader<ChildStdout>,
}

impl ServerFolder {
    /// A relay that listens on a free port of the loopback interface, and lets everybody create queues.
    pub fn init() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let init = program("smp-server")
            .arg("--data")
            .arg(folder.path().join("data"))
            .args([
                "--json",
                "init",
                "--no-password",
                "--host",
                "127.0.0.1",
                "--listen",
                "127.0.0.1",
                "--port",
                "0",
            ])
            .output()
            .unwrap();
        succeeded(&init);
        Self { folder }
    }

    /// Changes lines of its configuration: `("key", "value")`.
    pub fn set(&self, settings: &[(&str, &str)]) {
        let file = self.folder.path().join("data/smp-server.ini");
        let mut text = std::fs::read_to_string(&file).unwrap();
        for (key, value) in settings {
            let mut found = false;
            let lines: Vec<String> = text
                .lines()
                .map(|line| {
                    let bare = line.strip_prefix("# ").unwrap_or(line);
                    if bare.starts_with(&format!("{key}:")) {
                        found = true;
                        format!("{key}: {value}")
                    } else {
                        line.to_owned()
                    }
                })
                .collect();
            assert!(found, "{key} is not in the configuration");
            text = lines.join("\n");
        }
        std::fs::write(&file, text).unwrap();
    }

    /// Runs a command on the folder, until it ends.
    pub fn run(&self, arguments: &[&str]) -> Output {
        let data = self.folder.path().join("data");
        program("smp-server").arg("--data").arg(data).arg("--json").args(arguments).output().unwrap()
    }

    /// Starts the process, without waiting for anything.
    pub fn spawn(&self) -> Child {
        program("smp-server")
            .arg("--data")
            .arg(self.folder.path().join("data"))
            .args(["--json", "start"])
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap()
    }

    /// Starts the relay, and waits until it listens.
    pub fn start(&self) -> ServerProcess {
        ServerProcess::listening(self.spawn())
    }
}

impl ServerProcess {
    /// Waits until a process that was spawned listens.
    pub fn listening(mut child: Child) -> Self {
        let mut output = BufReader::new(child.stdout.take().unwrap());
        loop {
            let mut line = String::new();
            if output.read_line(&mut line).unwrap() == 0 {
                panic!("smp-server ended before it listened: {}", child.wait().unwrap());
            }
            let event: Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
            if event["event"] == "listening" {
                let address = event["addresses"][0].as_str().unwrap().parse().unwrap();
                let fingerprint = event["fingerprint"].as_str().unwrap().parse().unwrap();
                let queues = event["queues"].as_u64().unwrap();
                return Self { child, address, fingerprint, queues, output };
            }
        }
    }

    /// The relay's address for clients.
    pub fn text(&self) -> String {
        format!("smp://{}@{}", self.fingerprint, self.address)
    }

    /// SIGKILL, and nothing after it.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// SIGTERM; the relay must end by itself and successfully.
    pub fn terminate(mut self) {
        let status = Command::new("kill").arg(self.child.id().to_string()).status().unwrap();
        assert!(status.success());
        // Reading to the end is waiting for the process.
        let mut rest = String::new();
        self.output.read_to_string(&mut rest).unwrap();
        let status = self.child.wait().unwrap();
        assert!(status.success(), "{status}: {rest}");
    }
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A child that is killed when dropped.
pub struct Running(pub Child);

impl Running {
    /// Waits for its end, for a while that is long enough for a busy machine.
    pub fn wait(&mut self, patience: Duration) -> std::process::ExitStatus {
        let until = std::time::Instant::now() + patience;
        loop {
            if let Some(status) = self.0.try_wait().unwrap() {
                return status;
            }
            assert!(std::time::Instant::now() < until, "the program does not end");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
