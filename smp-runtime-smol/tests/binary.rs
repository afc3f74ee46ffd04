//! The binary as an operator meets it: init, start, stop, renew, delete, and what it says when something is wrong.

mod support;

use std::path::Path;
use std::process::Output;

use serde_json::Value;
use support::{PlainClient, Server, init, run, set, smp_server};

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("there is room for temporary files")
}

fn events(output: &Output) -> Vec<Value> {
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .map(|line| serde_json::from_str(line).expect("one JSON object a line"))
        .collect()
}

/// The one line of an unsuccessful run.
fn complaint(output: &Output) -> String {
    assert!(!output.status.success(), "it must fail");
    let text = String::from_utf8_lossy(&output.stderr);
    let lines: Vec<_> = text.lines().filter(|line| line.contains("\"error\"")).collect();
    assert_eq!(lines.len(), 1, "one line: {text}");
    let line: Value = serde_json::from_str(lines[0]).expect("a JSON object");
    line["message"].as_str().expect("a text").to_owned()
}

fn assert_mentions(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "`{part}` is not in: {text}");
    }
}

#[test]
fn from_init_to_stop() {
    let temporary = folder();
    let data = temporary.path().join("relay");
    let output = run(&data, &["init", "-n", "smp.example.com", "--port", "0", "--listen", "127.0.0.1"]);
    assert!(output.status.success());
    let initialised = &events(&output)[0];
    assert_eq!(initialised["event"], "initialised");
    let address = initialised["address"].as_str().expect("an address").to_owned();
    let fingerprint = initialised["fingerprint"].as_str().expect("a fingerprint").to_owned();
    assert!(
        address.starts_with(&format!("smp://{fingerprint}:")) && address.contains("@smp.example.com"),
        "{address}"
    );

    let mut server = Server::start(&data);
    assert_eq!(server.fingerprint.to_string(), fingerprint);
    let mut client = PlainClient::connect(&server);
    client.ping();
    // An idle client does not keep the relay from stopping.
    server.signal(rustix::process::Signal::TERM);
    assert_eq!(server.next_event().expect("it says so")["event"], "stopping");
    assert_eq!(server.next_event().expect("it says so")["event"], "stopped");
    assert!(server.stop_waiting().success());
    assert!(client.waits_to_be_closed());

    // The same relay again, stopped by the other signal.
    let server = Server::start(&data);
    assert_eq!(server.fingerprint.to_string(), fingerprint);
    PlainClient::connect(&server).ping();
    server.signal(rustix::process::Signal::INT);
    assert!(server.stop_waiting().success());
}

#[test]
fn first_use_without_arguments() {
    let temporary = folder();
    let data = temporary.path().join("smp-data");
    // The default port may be taken on this machine, by a test of somebody else even: then it says so, and the folder
    // is there all the same.
    let mut child = smp_server(&data, &[])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::null())
        .spawn()
        .expect("the binary starts");
    let mut line = String::new();
    let mut lines = std::io::BufReader::new(child.stdout.take().expect("it was piped"));
    std::io::BufRead::read_line(&mut lines, &mut line).expect("it says something");
    let initialised: Value = serde_json::from_str(&line).expect("a JSON object");
    assert_eq!(initialised["event"], "initialised");
    assert!(data.join("smp-server.ini").exists() && data.join("fingerprint").exists());
    child.kill().expect("it is ours");
    child.wait().expect("it ends");

    set(&data, &[("port", "0"), ("listen", "127.0.0.1")]);
    let server = Server::spawn(smp_server(&data, &[]));
    assert_eq!(server.fingerprint.to_string(), initialised["fingerprint"]);
    PlainClient::connect(&server).ping();
    assert!(server.stop().success());
}

#[test]
fn text_for_people_has_a_code_to_scan() {
    let temporary = folder();
    let data = temporary.path().join("relay");
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_smp-server"))
        .args(["--data", &data.to_string_lossy(), "init", "-n", "smp.example.com", "--password", "secret"])
        .output()
        .expect("the binary runs");
    assert!(output.status.success());
    let text = String::from_utf8_lossy(&output.stdout);
    assert_mentions(&text, &["Fingerprint:", ":secret@smp.example.com", "ca.key", "smp-server.ini", "█"]);
}

#[test]
fn a_relay_is_not_initialised_twice_and_nothing_foreign_is_touched() {
    let temporary = folder();
    let data = temporary.path().join("relay");
    init(&data, &[]);
    assert_mentions(&complaint(&run(&data, &["init"])), &["already", "smp-server start"]);

    let foreign = temporary.path().join("photos");
    std::fs::create_dir(&foreign).expect("a folder");
    std::fs::write(foreign.join("cat.jpg"), b"cat").expect("a file");
    for arguments in [&["init"][..], &["start"], &["cert"], &["delete", "--yes"], &[]] {
        assert_mentions(&complaint(&run(&foreign, arguments)), &["other things", "--data"]);
    }
    assert!(foreign.join("cat.jpg").exists());
    assert_mentions(&complaint(&run(&temporary.path().join("nothing"), &["start"])), &["smp-server init"]);
}

#[test]
fn a_folder_without_configuration_is_explained() {
    let temporary = folder();
    let data = temporary.path().join("relay");
    init(&data, &[]);
    std::fs::remove_file(data.join("smp-server.ini")).expect("it is there");
    assert_mentions(&complaint(&run(&data, &["start"])), &["smp-server.ini is missing", "smp-server delete"]);
}

#[test]
fn bad_configurations_are_named_with_what_is_allowed() {
    let temporary = folder();
    let data = temporary.path().join("relay");
    init(&data, &[]);
    let file = data.join("smp-server.ini");
    let good = std::fs::read_to_string(&file).expect("init wrote it");
    let cases: &[(&str, &[&str])] = &[
        ("[TRANSPORT]\nport: http\n", &["smp-server.ini", "[TRANSPORT] port", "`http`", "0 to 65535"]),
        ("[TRANSPORT]\nprot: 5223\n", &["[TRANSPORT] prot", "unknown key", "port"]),
        ("[TRANSPROT]\nport: 5223\n", &["[TRANSPROT]", "unknown section"]),
        ("[AUTH]\nnew_queues: maybe\n", &["[AUTH] new_queues", "`maybe`", "`on` or `off`"]),
        ("[STORAGE]\ndurability: never\n", &["[STORAGE] durability", "`commit` or `relaxed`"]),
        ("nonsense", &["smp-server.ini", "line 1"]),
    ];
    for (text, parts) in cases {
        std::fs::write(&file, text).expect("it can be written");
        assert_mentions(&complaint(&run(&data, &["start"])), parts);
    }
    std::fs::write(&file, good).expect("it can be written");
    assert!(Server::start(&data).stop().success());
}

#[test]
fn a_taken_port_and_a_foreign_address_are_explained() {
    let temporary = folder();
    let data = temporary.path().join("relay");
    init(&data, &[]);
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("loopback has free ports");
    let port = taken.local_addr().expect("it is bound").port().to_string();
    set(&data, &[("port", &port)]);
    assert_mentions(&complaint(&run(&data, &["start"])), &[&port, "another program", "[TRANSPORT] port"]);
    set(&data, &[("port", "0"), ("listen", "192.0.2.1")]);
    assert_mentions(&complaint(&run(&data, &["start"])), &["192.0.2.1", "[TRANSPORT] listen"]);
}

#[test]
fn two_processes_do_not_share_a_folder() {
    let temporary = folder();
    let data = temporary.path().join("relay");
    init(&data, &[]);
    let server = Server::start(&data);
    for arguments in [&["start"][..], &["cert"], &["delete", "--yes"]] {
        assert_mentions(&complaint(&run(&data, arguments)), &["another smp-server uses this folder"]);
    }
    PlainClient::connect(&server).ping();
    assert!(server.stop().success());
}

#[test]
fn renewing_the_certificate_keeps_the_identity() {
    let temporary = folder();
    let data = temporary.path().join("relay");
    init(&data, &[]);
    let before = std::fs::read(data.join("server.crt")).expect("init wrote it");
    let fingerprint = Server::start(&data).fingerprint;
    let output = run(&data, &["cert"]);
    assert!(output.status.success());
    assert_eq!(events(&output)[0]["fingerprint"], fingerprint.to_string());
    assert_ne!(std::fs::read(data.join("server.crt")).expect("it was renewed"), before);
    let server = Server::start(&data);
    assert_eq!(server.fingerprint, fingerprint);
    PlainClient::connect(&server).ping();
    assert!(server.stop().success());
    // The key of the authority may be, and should be, elsewhere.
    std::fs::remove_file(data.join("ca.key")).expect("it is there");
    assert_mentions(&complaint(&run(&data, &["cert"])), &["ca.key"]);
    assert!(Server::start(&data).stop().success());
}

#[test]
fn deleting_asks_and_removes_only_what_is_the_relays() {
    let temporary = folder();
    let data = temporary.path().join("relay");
    init(&data, &[]);
    assert!(Server::start(&data).stop().success());
    assert_mentions(&complaint(&run(&data, &["delete"])), &["--yes"]);
    assert!(data.join("smp-server.ini").exists());
    std::fs::write(data.join("notes.txt"), b"mine").expect("a file");
    assert!(run(&data, &["delete", "--yes"]).status.success());
    let left: Vec<_> = names(&data);
    assert_eq!(left, ["notes.txt"]);
    std::fs::remove_file(data.join("notes.txt")).expect("it is there");
    init(&data, &[]);
    assert!(run(&data, &["delete", "--yes"]).status.success());
    assert!(!data.exists());
}

fn names(folder: &Path) -> Vec<String> {
    std::fs::read_dir(folder)
        .expect("a folder")
        .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
        .collect()
}

#[cfg(unix)]
#[test]
fn secrets_are_for_the_owner_only() {
    use std::os::unix::fs::PermissionsExt;
    let temporary = folder();
    let data = temporary.path().join("relay");
    init(&data, &[]);
    for (name, mode) in [(".", 0o700), ("ca.key", 0o600), ("server.key", 0o600), ("smp-server.ini", 0o600)] {
        let found = std::fs::metadata(data.join(name)).expect("init wrote it").permissions().mode() & 0o777;
        assert_eq!(found, mode, "{name}");
    }
}
