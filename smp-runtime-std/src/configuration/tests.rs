//! What the file may say, and what an operator is told when it says something else.

use std::path::Path;

use smp_proto::proxy::hosts::{HostMode, HostPolicy, SocksMode};

use super::{Configuration, ConfigurationError, Durability, Initial, ProxySettings, catalogue, render};

fn parse(text: &str) -> Result<Configuration, ConfigurationError> {
    Configuration::parse(Path::new("smp-server.ini"), text)
}

fn complaint(text: &str) -> String {
    let complaint = parse(text).expect_err("the file is wrong").to_string();
    assert!(!complaint.contains('\n'), "one line: {complaint}");
    complaint
}

#[test]
fn an_empty_file_has_the_defaults() {
    assert_eq!(parse("").expect("an empty file is right"), Configuration::default());
}

#[test]
fn every_default_is_allowed_when_written_out() {
    let mut text = String::new();
    for (section, _) in catalogue::SECTIONS {
        text.push_str(&format!("[{section}]\n"));
        for key in catalogue::KEYS.iter().filter(|key| key.section == *section) {
            text.push_str(&format!("{}: {}\n", key.name, key.default));
        }
    }
    let written = parse(&text).expect("defaults are right");
    assert_eq!(written, Configuration { listen_was_set: true, ..Configuration::default() });
}

#[test]
fn the_file_that_init_writes_reads_as_what_was_asked_for() {
    let initial = Initial {
        hosts: vec!["smp.example.com".into(), "[2001:db8::1]".into()],
        ports: vec![5223, 443],
        listen: vec!["127.0.0.1".parse().expect("an address")],
        create_password: Some("p#ss\\w;rd\"".parse().expect("a password")),
    };
    let text = render(&initial);
    let read = parse(&text).expect("what init writes is right");
    assert_eq!(read.hosts, initial.hosts);
    assert_eq!(read.ports, initial.ports);
    assert_eq!(read.listen, initial.listen);
    assert_eq!(read.create_password, initial.create_password);
    assert_eq!(parse(&render(&Initial::default())).expect("right"), Configuration::default());
    for key in catalogue::KEYS {
        assert!(text.contains(&format!("{}:", key.name)), "{} is not in the file", key.name);
    }
}

#[test]
fn settings_take_effect() {
    let read = parse(
        "[STORE_LOG]\nenable = on\nexpire_messages_days: 2\n[STORAGE]\ndurability: relaxed\n\
         relaxed_window_milliseconds: 50\n[AUTH]\nnew_queues: off\n[INACTIVE_CLIENTS]\ndisconnect: off\n\
         [LIMITS]\nuncounted_addresses:\nmessage_quota: 7\n[THREADS]\nthreads: 3\n",
    )
    .expect("right");
    assert_eq!(read.durability, Durability::Relaxed(core::time::Duration::from_millis(50)));
    assert_eq!(read.message_expiry.as_secs(), 2 * 24 * 3600);
    assert!(!read.new_queues);
    assert_eq!(read.inactive_after, None);
    assert!(read.limits.uncounted_addresses.is_empty());
    assert_eq!(read.limits.message_quota, 7);
    assert_eq!(read.threads, Some(3));
    let read = parse(
        "[PROXY]\nhost_mode: onion\nrequired_host_mode: on\nsocks_proxy: [::1]:9050\nsocks_mode: always\n\
         own_server_domains: .example.com Example.org\nclient_concurrency: 5\nprivate_destinations: on\n",
    )
    .expect("right");
    let policy =
        HostPolicy { mode: HostMode::Onion, required: true, socks: SocksMode::Always, allow_private: true };
    let proxy = ProxySettings {
        policy,
        socks_proxy: Some("[::1]:9050".into()),
        own_domains: vec!["example.com".into(), "example.org".into()],
        client_concurrency: 5,
        ..ProxySettings::default()
    };
    assert_eq!(read.proxy, proxy);
    // Without a SOCKS proxy nothing goes through it.
    assert_eq!(parse("[PROXY]\nsocks_mode: always\n").expect("right").proxy, ProxySettings::default());
}

#[test]
fn complaints_say_where_and_what_is_allowed() {
    let cases: &[(&str, &[&str])] = &[
        ("[TRANSPORT]\nport: 70000\n", &["smp-server.ini", "[TRANSPORT] port", "`70000`", "0 to 65535"]),
        ("[TRANSPORT]\nport: 443,443\n", &["[TRANSPORT] port", "each port once"]),
        ("[TRANSPORT]\nport:\n", &["[TRANSPORT] port", "0 to 65535"]),
        ("[TRANSPORT]\nlisten: everywhere\n", &["[TRANSPORT] listen", "`everywhere`", "IPv4 or IPv6"]),
        ("[TRANSPORT]\nhost: <your server>\n", &["[TRANSPORT] host", "domain names"]),
        ("[TRANSPORT]\nwebsockets: 5224\n", &["[TRANSPORT] websockets", "only `off`"]),
        ("[STORE_LOG]\nenable: off\n", &["[STORE_LOG] enable", "only `on`"]),
        ("[STORE_LOG]\nexpire_messages_days: 0\n", &["expire_messages_days", "`0`", "1 to 3650"]),
        ("[STORAGE]\ndurability: maybe\n", &["durability", "`maybe`", "`commit` or `relaxed`"]),
        ("[AUTH]\nnew_queues: yes\n", &["[AUTH] new_queues", "`yes`", "`on` or `off`"]),
        ("[AUTH]\nnew_queue: on\n", &["[AUTH] new_queue", "unknown key", "create_password"]),
        ("[AUTH]\nport: 1\n", &["[AUTH] port", "unknown key", "belongs in [TRANSPORT]"]),
        ("[AUHT]\nnew_queues: on\n", &["[AUHT]", "unknown section", "AUTH"]),
        ("[WEB]\nhttps: 443\n", &["[WEB]", "nothing to set there"]),
        ("[PROXY]\nsocks_proxy: localhost\n", &["[PROXY] socks_proxy", "localhost:9050"]),
        ("[PROXY]\nhost_mode: onion\n", &["[PROXY] host_mode", "together with socks_proxy"]),
        ("[PROXY]\nsocks_mode: sometimes\n", &["[PROXY] socks_mode", "`onion` or `always`"]),
        ("[PROXY]\nclient_concurrency: 0\n", &["[PROXY] client_concurrency", "1 to 1000"]),
        ("[PROXY]\nown_server_domains: a,b\n", &["own_server_domains", "separated by spaces"]),
        ("[AUTH]\nnew_queues: on\nnew_queues: off\n", &["[AUTH] new_queues", "more than once"]),
        ("[AUTH]\nnew_queues: on\n[AUTH]\nnew_queues: off\n", &["[AUTH] new_queues", "more than once"]),
        ("new_queues: on\n", &["unknown section"]),
        ("[AUTH\nnew_queues: on\n", &["smp-server.ini", "line"]),
        ("[AUTH]\nnonsense\n", &["smp-server.ini", "line"]),
        ("[LIMITS]\ncommands_in_flight: 1\n", &["commands_in_flight", "255 to 65535"]),
    ];
    for (text, expected) in cases {
        let complaint = complaint(text);
        for part in *expected {
            assert!(complaint.contains(part), "{text:?}: `{part}` is not in: {complaint}");
        }
    }
}

#[test]
fn passwords_are_never_printed() {
    let complaint = complaint("[AUTH]\ncreate_password: pass:word\n");
    assert!(complaint.contains("create_password") && !complaint.contains("pass:word"), "{complaint}");
    let read = parse("[AUTH]\ncreate_password: hunter2\n").expect("right");
    assert!(!format!("{read:?}").contains("hunter2"));
    assert_eq!(read.create_password.expect("it is set").as_str(), "hunter2");
}

#[test]
fn a_missing_file_is_named() {
    let error = Configuration::read(Path::new("/nowhere/smp-server.ini")).expect_err("there is no such file");
    assert!(error.to_string().starts_with("/nowhere/smp-server.ini: cannot be read"), "{error}");
}
