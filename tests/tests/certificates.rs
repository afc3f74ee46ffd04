//! Certificates: the reference's vectors, chains of all lengths, and the folder of a server through its life.
#![allow(clippy::unwrap_used, reason = "a test")]

mod tls_support;

use std::fs;
use std::path::Path;
use std::sync::Arc;

use openssl::stack::Stack;
use openssl::x509::store::X509StoreBuilder;
use openssl::x509::{X509, X509PurposeId, X509StoreContext};
use smp_runtime_std::certificates::{
    Algorithm, CertificateFolder, Credentials, Fingerprint, FolderProblem, NewIdentity, PrivateKey, Validity,
};
use smp_runtime_std::tls::{
    ChainError, ChainRoles, ClientTls, ClientTlsOptions, ServerTls, TimeProvider, TlsSession, UnixTime,
    verify_client_chain, verify_server_chain,
};
use smp_tests::vectors::{Fields, run};
use tls_support::*;

type Der = rustls::pki_types::CertificateDer<'static>;

/// A moment at which the certificates of the vectors are valid: in June 2026.
fn moment() -> UnixTime {
    at(1_780_000_000)
}

/// A clock that stands still at [`moment`].
#[derive(Debug)]
struct Moment;

impl TimeProvider for Moment {
    fn current_time(&self) -> Option<UnixTime> {
        Some(moment())
    }
}

fn at(seconds: u64) -> UnixTime {
    UnixTime::since_unix_epoch(std::time::Duration::from_secs(seconds))
}

fn certificates(fields: &Fields, key: &str) -> Result<Vec<Der>, String> {
    fields.get(key).items()?.iter().map(|item| Ok(Der::from(item.as_bytes()?))).collect()
}

fn check_chain(certs: &[Der], key_hash: [u8; 32], private_key: &[u8]) -> Result<PrivateKey, String> {
    let expected = Fingerprint(key_hash);
    verify_server_chain(certs, &expected, moment()).map_err(|error| error.to_string())?;
    let key = PrivateKey::from_pkcs8(private_key).map_err(|error| error.to_string())?;
    if key.to_pkcs8()[..] != *private_key {
        return Err("the key is written in another form".into());
    }
    let credentials = Credentials { chain: certs.to_vec(), key: key.clone() };
    if credentials.fingerprint() != Some(expected) {
        return Err("another fingerprint".into());
    }
    // Also: the key belongs to the leaf, and the whole can be hosted and reached.
    let server = ServerTls::new(&credentials).map_err(|error| error.to_string())?;
    let mut server = TlsSession::server(&server).map_err(|error| error.to_string())?;
    let options = ClientTlsOptions { clock: Arc::new(Moment), ..Default::default() };
    let client = ClientTls::with_options(expected, &options).map_err(|error| error.to_string())?;
    let mut client = TlsSession::client(&client).map_err(|error| error.to_string())?;
    let result = shake_hands_with_us(&mut client, &mut server);
    if result == (Ok(()), Ok(())) { Ok(key) } else { Err(format!("{result:?}")) }
}

#[test]
fn the_reference_s_chains_are_accepted() {
    let count = run("crypto.jsonl", "certificate-chain", |vector| {
        let certs = certificates(&vector.input, "certs")?;
        let key =
            check_chain(&certs, vector.output.array("keyHash")?, &vector.input.bytes("leafPrivateKey")?)?;
        assert_eq!(
            Fingerprint(vector.output.array("keyHash")?).to_string(),
            vector.output.text("keyHashText")?
        );
        assert_eq!(
            vector.output.text("keyHashText")?.parse(),
            Ok(Fingerprint(vector.output.array("keyHash")?))
        );
        vector.output.expect_bytes("leafKey", &key.public_key_der())?;
        // In the signed object the key is wrapped in one more sequence, and that is what is signed.
        let mut signed = vec![0x30, 44];
        signed.extend(vector.input.bytes("sessionPublicKey")?);
        assert!(vector.output.bytes("signedKey")?.ends_with(&key.sign(&signed)));
        Ok(())
    });
    assert_eq!(count, 2);
    run("hello.jsonl", "certificates", |vector| {
        for name in ["ed448", "ed25519"] {
            let fields = vector.output.get(name);
            check_chain(
                &certificates(&fields, "certs")?,
                fields.array("keyHash")?,
                &fields.bytes("leafPrivateKey")?,
            )?;
        }
        Ok(())
    });
}

#[test]
fn roles_are_the_reference_s() {
    let mut ed448 = Vec::new();
    for vector in smp_tests::vectors::read("crypto.jsonl") {
        if vector.id == "chain-ed448" {
            ed448 = certificates(&vector.input, "certs").unwrap();
        }
    }
    run("crypto.jsonl", "chain-roles", |vector| {
        let chain = vector.input.get("chain").items()?;
        let chain: Vec<&Der> = chain.iter().map(|index| &ed448[index.0.as_u64().unwrap() as usize]).collect();
        let roles = vector.output.get("roles");
        let of = |index: usize| Fingerprint::of(chain[index]).0;
        match ChainRoles::of(chain.len()) {
            Ok(ChainRoles::SelfSigned) => roles.expect_bytes("self", &of(0)),
            Ok(ChainRoles::Chain { leaf, identity, anchor }) => {
                roles.expect_bytes("leaf", &of(leaf))?;
                roles.expect_bytes("id", &of(identity))?;
                roles.expect_bytes("ca", &of(anchor))
            }
            Err(ChainError::Length { length: 0 }) => vector.output.expect("roles", "empty"),
            Err(ChainError::Length { length: 5 }) => vector.output.expect("roles", "too long"),
            Err(other) => Err(other.to_string()),
        }
    });
}

#[test]
fn chains_of_every_length_are_judged() {
    for algorithm in [Algorithm::Ed25519, Algorithm::Ed448] {
        for length in 2..=5 {
            let server = credentials(&chain(Purpose::Server, algorithm, length));
            let client = credentials(&chain(Purpose::Client, algorithm, length));
            let identity = server.fingerprint().unwrap();
            let expected = if length < 5 { Ok(()) } else { Err(ChainError::Length { length }) };
            assert_eq!(verify_server_chain(&server.chain, &identity, moment()), expected);
            let expected = expected.map(|()| client.fingerprint().unwrap());
            assert_eq!(verify_client_chain(&client.chain, moment()), expected);
        }
        let alone = credentials(&[issue("alone", Purpose::Authority, algorithm, None)]);
        assert_eq!(verify_client_chain(&alone.chain, moment()), Ok(Fingerprint::of(&alone.chain[0])));
        let leaf = credentials(&[issue("alone", Purpose::Client, algorithm, None)]);
        assert_eq!(verify_client_chain(&leaf.chain, moment()), Ok(Fingerprint::of(&leaf.chain[0])));
    }
    let nobody = Fingerprint([0; 32]);
    assert_eq!(verify_server_chain(&[], &nobody, moment()), Err(ChainError::Length { length: 0 }));
    assert_eq!(verify_client_chain(&[], moment()), Err(ChainError::Length { length: 0 }));
}

#[test]
fn dates_count_for_every_kind_of_chain() {
    let dates = (1_700_000_000, 1_800_000_000);
    let root = issue("root", Purpose::Authority, Algorithm::Ed25519, None);
    let leaf = issue_dated("leaf", Purpose::Server, Algorithm::Ed25519, Some(&root), dates);
    let between = issue_dated("between", Purpose::Authority, Algorithm::Ed25519, Some(&root), dates);
    let under = issue("under", Purpose::Server, Algorithm::Ed25519, Some(&between));
    let alone = issue_dated("alone", Purpose::Authority, Algorithm::Ed25519, None, dates);
    let of_two = credentials(&[leaf, root.clone()]);
    let of_three = credentials(&[under, between, root]);
    let alone = credentials(&[alone]);
    for (now, expected) in [
        (1_699_999_999, Err(ChainError::NotYetValid { not_before: 1_700_000_000 })),
        (1_700_000_000, Ok(())),
        (1_800_000_000, Ok(())),
        (1_800_000_001, Err(ChainError::Expired { not_after: 1_800_000_000 })),
    ] {
        for chain in [&of_two, &of_three] {
            let identity = chain.fingerprint().unwrap();
            assert_eq!(verify_server_chain(&chain.chain, &identity, at(now)), expected, "{now}");
        }
        assert_eq!(verify_client_chain(&alone.chain, at(now)).map(|_| ()), expected, "{now}");
    }
    assert!(ChainError::Expired { not_after: 1_800_000_000 }.to_string().contains("2027-01-15"));
}

#[test]
fn no_bit_of_a_chain_may_change() {
    let of_two = credentials(&chain(Purpose::Client, Algorithm::Ed25519, 2));
    let alone = credentials(&[issue("alone", Purpose::Authority, Algorithm::Ed25519, None)]);
    for original in [&of_two, &alone] {
        let identity = original.fingerprint().unwrap();
        for position in 0..original.chain[0].len() {
            let mut leaf = original.chain[0].to_vec();
            leaf[position] ^= 1 << (position % 8);
            let mut changed = original.chain.clone();
            changed[0] = leaf.into();
            match verify_client_chain(&changed, moment()) {
                Err(_) => {}
                Ok(accepted) => panic!("changed at {position}, accepted as {accepted}, was {identity}"),
            }
        }
    }
}

#[test]
fn nobody_hides_behind_the_certificate_of_another() {
    let victim = chain(Purpose::Server, Algorithm::Ed25519, 2);
    let identity = fingerprint(&victim);
    for length in [2, 3] {
        let own = chain(Purpose::Server, Algorithm::Ed25519, length);
        let mut forged: Vec<Issued> = vec![own[0].clone(), victim[1].clone()];
        forged.extend_from_slice(&own[1..]);
        assert_eq!(
            verify_server_chain(&credentials(&forged).chain, &identity, moment()),
            Err(ChainError::NotSignedByIdentity)
        );
    }
    // A server's certificate is not a client's, nor the reverse.
    let unusable = |result: Result<(), ChainError>| matches!(result, Err(ChainError::Unusable { .. }));
    assert!(unusable(verify_client_chain(&credentials(&victim).chain, moment()).map(|_| ())));
    let client = credentials(&chain(Purpose::Client, Algorithm::Ed25519, 2));
    assert!(unusable(verify_server_chain(&client.chain, &client.fingerprint().unwrap(), moment())));
}

fn openssl_accepts(credentials: &Credentials) -> bool {
    let certificate = |index: usize| X509::from_der(&credentials.chain[index]).unwrap();
    let mut store = X509StoreBuilder::new().unwrap();
    store.add_cert(certificate(1)).unwrap();
    store.set_purpose(X509PurposeId::SSL_SERVER).unwrap();
    let mut context = X509StoreContext::new().unwrap();
    context
        .init(&store.build(), &certificate(0), &Stack::new().unwrap(), |context| context.verify_cert())
        .unwrap()
}

fn contains(der: &[u8], hex: &str) -> bool {
    let wanted: Vec<u8> = (0..hex.len())
        .step_by(2)
        .map(|index| u8::from_str_radix(&hex[index..index + 2], 16).unwrap())
        .collect();
    der.windows(wanted.len()).any(|window| window == wanted)
}

#[test]
fn a_new_identity_is_what_the_reference_makes() {
    for algorithm in [Algorithm::Ed25519, Algorithm::Ed448] {
        let identity =
            NewIdentity::make("smp.example.org", algorithm, Validity::days_from_now(999_999)).unwrap();
        assert!(openssl_accepts(&identity.online));
        let [leaf, authority] = &identity.online.chain[..] else { panic!() };
        assert_eq!(authority, &identity.authority);
        // Names, extensions and their order are those of the vectors' certificates, byte for byte.
        let name = "302a3116301406035504030c0d534d50207365727665722043413110300e060355040a0c0753696d706c6558";
        assert!(contains(authority, name) && contains(leaf, name));
        assert!(contains(leaf, "301a3118301606035504030c0f736d702e6578616d706c652e6f7267"));
        let usage = "30090603551d1304023000300b0603551d0f0404030203c830130603551d25040c300a06082b06010505070301301d0603551d0e0416";
        assert!(contains(leaf, usage));
        assert!(contains(authority, "300f0603551d130101ff040530030101ff"));
        assert!(
            contains(authority, "301d0603551d0e0416") && contains(authority, "301f0603551d23041830168014")
        );
        // More than 2700 years: dates of four digits.
        let year = X509::from_der(leaf).unwrap().not_after().to_string();
        assert!(year.contains(" 47"), "{year}");
        assert!(!format!("{identity:?}").contains(&format!("{:?}", identity.authority_key.seed())));
    }
    for host in ["", &"x".repeat(65)] {
        assert!(NewIdentity::make(host, Algorithm::Ed25519, Validity::days_from_now(1)).is_err());
    }
    let beyond = Validity { not_before: 0, not_after: 253_402_300_800 };
    let error = NewIdentity::make("localhost", Algorithm::Ed25519, beyond).unwrap_err();
    assert!(error.to_string().contains("fewer days"), "{error}");
}

fn new_folder(path: &Path, algorithm: Algorithm) -> (CertificateFolder, NewIdentity) {
    let identity = identity(algorithm);
    let folder = CertificateFolder::at(path.join("identity"));
    folder.create(&identity).unwrap();
    (folder, identity)
}

#[test]
fn a_folder_lives_through_creation_loading_and_renewal() {
    let temporary = tempfile::tempdir().unwrap();
    for (number, algorithm) in [Algorithm::Ed25519, Algorithm::Ed448].into_iter().enumerate() {
        let (folder, identity) = new_folder(&temporary.path().join(number.to_string()), algorithm);
        let mut names: Vec<_> = fs::read_dir(folder.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(names, ["ca.crt", "ca.key", "fingerprint", "server.crt", "server.key"]);
        #[cfg(unix)]
        for (file, mode) in [("ca.key", 0o600), ("server.key", 0o600)] {
            use std::os::unix::fs::PermissionsExt;
            assert_eq!(fs::metadata(folder.path().join(file)).unwrap().permissions().mode() & 0o777, mode);
        }
        let fingerprint = fs::read_to_string(folder.path().join("fingerprint")).unwrap();
        assert_eq!(fingerprint, format!("{}\n", identity.fingerprint()));
        // OpenSSL reads the files as well.
        let key = fs::read(folder.path().join("server.key")).unwrap();
        let key = openssl::pkey::PKey::private_key_from_pem(&key).unwrap();
        let leaf = X509::from_pem(&fs::read(folder.path().join("server.crt")).unwrap()).unwrap();
        assert!(leaf.public_key().unwrap().public_eq(&key));

        let loaded = folder.load().unwrap();
        assert_eq!(loaded.fingerprint, identity.fingerprint());
        assert_eq!(loaded.credentials.chain, identity.online.chain);
        assert_eq!(loaded.host.as_deref(), Some("localhost"));
        assert!(loaded.warnings.iter().any(|warning| warning.contains("ca.key")), "{:?}", loaded.warnings);

        // A second identity never overwrites the first.
        let error = folder.create(&identity).unwrap_err();
        assert!(matches!(error.problem, FolderProblem::Exists));

        for (host, expected) in [(None, "localhost"), (Some("other.example.org"), "other.example.org")] {
            let before = folder.load().unwrap();
            let renewed = folder.renew(host, Algorithm::Ed25519, Validity::days_from_now(10)).unwrap();
            assert_eq!(renewed.fingerprint, identity.fingerprint());
            assert_eq!(renewed.host.as_deref(), Some(expected));
            assert_ne!(renewed.credentials.chain[0], before.credentials.chain[0]);
            assert!(
                renewed.warnings.iter().any(|warning| warning.contains("expires")),
                "{:?}",
                renewed.warnings
            );
            assert!(openssl_accepts(&renewed.credentials));
            assert!(folder.path().join("server.key.old").exists());
            let mut client = TlsSession::client(&ClientTls::new(identity.fingerprint()).unwrap()).unwrap();
            let mut server = TlsSession::server(&ServerTls::new(&renewed.credentials).unwrap()).unwrap();
            assert_eq!(shake_hands_with_us(&mut client, &mut server), (Ok(()), Ok(())));
        }

        // Without the authority's key a server runs, but cannot be renewed.
        fs::remove_file(folder.path().join("ca.key")).unwrap();
        assert!(!folder.load().unwrap().warnings.iter().any(|warning| warning.contains("ca.key")));
        let error = folder.renew(None, Algorithm::Ed25519, Validity::days_from_now(10)).unwrap_err();
        assert!(matches!(error.problem, FolderProblem::Missing));
        assert!(
            error.to_string().contains("ca.key") && error.to_string().contains("copy it here"),
            "{error}"
        );
    }
}

#[test]
fn a_folder_made_with_openssl_is_loaded_and_renewed() {
    for algorithm in [Algorithm::Ed25519, Algorithm::Ed448] {
        let temporary = tempfile::tempdir().unwrap();
        let made = chain(Purpose::Server, algorithm, 2);
        let write = |file: &str, content: &[u8]| fs::write(temporary.path().join(file), content).unwrap();
        write("ca.key", &made[1].key.private_key_to_pem_pkcs8().unwrap());
        write("ca.crt", &made[1].certificate.to_pem().unwrap());
        write("server.key", &made[0].key.private_key_to_pem_pkcs8().unwrap());
        write("server.crt", &made[0].certificate.to_pem().unwrap());
        write("fingerprint", format!("{}\n", fingerprint(&made)).as_bytes());
        let folder = CertificateFolder::at(temporary.path());
        let loaded = folder.load().unwrap();
        assert_eq!(loaded.fingerprint, fingerprint(&made));
        assert_eq!(loaded.credentials.key.algorithm(), algorithm);
        assert_eq!(loaded.host.as_deref(), Some("leaf"));
        #[cfg(unix)]
        assert!(loaded.warnings.iter().any(|warning| warning.contains("chmod 600")), "{:?}", loaded.warnings);
        // An authority without a key identifier signs as well.
        let renewed = folder.renew(None, algorithm, Validity::days_from_now(999_999)).unwrap();
        assert_eq!(renewed.fingerprint, loaded.fingerprint);
        assert!(openssl_accepts(&renewed.credentials));
    }
}

#[test]
fn what_is_wrong_with_a_folder_is_said_with_the_name_of_the_file() {
    let temporary = tempfile::tempdir().unwrap();
    let (folder, _) = new_folder(&temporary.path().join("good"), Algorithm::Ed25519);
    let (other, _) = new_folder(&temporary.path().join("other"), Algorithm::Ed25519);
    let read = |folder: &CertificateFolder, file: &str| fs::read(folder.path().join(file)).unwrap();
    let expired = {
        let root = issue("root", Purpose::Authority, Algorithm::Ed25519, None);
        [
            issue_dated(
                "leaf",
                Purpose::Server,
                Algorithm::Ed25519,
                Some(&root),
                (1_577_836_800, 1_609_459_200),
            ),
            root,
        ]
    };
    let rsa = openssl::pkey::PKey::from_rsa(openssl::rsa::Rsa::generate(2048).unwrap()).unwrap();
    let rsa = rsa.private_key_to_pem_pkcs8().unwrap();
    let expired_key = expired[0].key.private_key_to_pem_pkcs8().unwrap();
    let expired_leaf = expired[0].certificate.to_pem().unwrap();
    let expired_root = expired[1].certificate.to_pem().unwrap();
    // Name, files that change (`None`: are removed), the file that the error names, a part of what it says.
    type Case<'a> = (&'a str, Vec<(&'a str, Option<Vec<u8>>)>, &'a str, &'a str);
    let cases: [Case<'_>; 10] = [
        ("no key", vec![("server.key", None)], "server.key", "missing"),
        ("no certificate", vec![("server.crt", None)], "server.crt", "missing"),
        ("no authority", vec![("ca.crt", None)], "ca.crt", "missing"),
        ("not a key", vec![("server.key", Some(b"hello".to_vec()))], "server.key", "PKCS#8"),
        ("an RSA key", vec![("server.key", Some(rsa))], "server.key", "1.2.840.113549.1.1.1"),
        ("not a certificate", vec![("server.crt", Some(b"hello".to_vec()))], "server.crt", "certificate"),
        (
            "the key of another",
            vec![("server.key", Some(read(&other, "server.key")))],
            "server.key",
            "smp-server cert",
        ),
        (
            "the fingerprint of another",
            vec![("fingerprint", Some(read(&other, "fingerprint")))],
            "fingerprint",
            "is not the fingerprint",
        ),
        (
            "signed by another",
            vec![
                ("ca.crt", Some(read(&other, "ca.crt"))),
                ("fingerprint", Some(read(&other, "fingerprint"))),
            ],
            "server.crt",
            "not signed",
        ),
        (
            "expired",
            vec![
                ("ca.crt", Some(expired_root)),
                ("server.crt", Some(expired_leaf)),
                ("server.key", Some(expired_key)),
                ("fingerprint", Some(format!("{}\n", fingerprint(&expired)).into_bytes())),
            ],
            "server.crt",
            "expired",
        ),
    ];
    for (name, changes, file, words) in cases {
        let damaged = temporary.path().join(name);
        fs::create_dir(&damaged).unwrap();
        for entry in fs::read_dir(folder.path()).unwrap() {
            let entry = entry.unwrap();
            fs::copy(entry.path(), damaged.join(entry.file_name())).unwrap();
        }
        for (file, content) in changes {
            match content {
                Some(content) => fs::write(damaged.join(file), content).unwrap(),
                None => fs::remove_file(damaged.join(file)).unwrap(),
            }
        }
        let error = CertificateFolder::at(&damaged).load().expect_err(name);
        assert_eq!(error.path, damaged.join(file), "{name}: {error}");
        assert!(error.to_string().contains(words), "{name}: {error}");
    }
    // A fingerprint file is a convenience.
    fs::remove_file(folder.path().join("fingerprint")).unwrap();
    folder.load().unwrap();
}

#[test]
fn private_keys_are_read_in_the_forms_that_exist() {
    for algorithm in [Algorithm::Ed25519, Algorithm::Ed448] {
        let theirs = key(algorithm);
        let ours = PrivateKey::from_pkcs8(&theirs.private_key_to_pkcs8().unwrap()).unwrap();
        assert_eq!(ours.algorithm(), algorithm);
        assert_eq!(ours.seed(), theirs.raw_private_key().unwrap());
        assert_eq!(ours.public_key(), theirs.raw_public_key().unwrap());
        assert_eq!(ours.public_key_der(), theirs.public_key_to_der().unwrap());
        let mut verifier = openssl::sign::Verifier::new_without_digest(&theirs).unwrap();
        assert!(verifier.verify_oneshot(&ours.sign(b"message"), b"message").unwrap());
        assert!(!format!("{ours:?}").contains(&format!("{}", ours.seed()[0])));
    }
    // Version 2 adds the public key.
    let ours = PrivateKey::generate(Algorithm::Ed25519).unwrap();
    let mut version_2 = ours.to_pkcs8().to_vec();
    version_2[1] += 35;
    version_2[4] = 1;
    version_2.extend([0x81, 33, 0]);
    version_2.extend(ours.public_key());
    assert_eq!(PrivateKey::from_pkcs8(&version_2).unwrap().seed(), ours.seed());
    assert!(PrivateKey::from_pkcs8(&[]).is_err());
    assert!(PrivateKey::from_pkcs8(&key(Algorithm::Ed25519).private_key_to_pkcs8().unwrap()[..40]).is_err());
}
