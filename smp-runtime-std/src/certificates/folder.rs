//! The folder in which a server keeps its identity, in the layout of the reference.
//!
//! | file | what | when it is needed |
//! |---|---|---|
//! | `ca.key` | key of the authority, PKCS#8 PEM, mode 0600 | for renewal only: keep it elsewhere |
//! | `ca.crt` | certificate of the authority, PEM | always: it is sent to clients, and its fingerprint is the identity |
//! | `server.key` | key in use, PKCS#8 PEM, mode 0600 | always |
//! | `server.crt` | certificate in use, PEM | always |
//! | `fingerprint` | base64url of the SHA-256 of `ca.crt`'s DER | checked when present |

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, UnixTime};
use x509_cert::Certificate;
use x509_cert::der::Decode;
use x509_cert::der::pem::{LineEnding, encode_string};
use zeroize::Zeroizing;

use super::issue::issue_online;
use super::{
    Algorithm, Credentials, Fingerprint, IssueError, NewIdentity, PrivateKey, PrivateKeyError, Validity,
};
use crate::tls::{ChainError, verify_server_chain};

const AUTHORITY_KEY: &str = "ca.key";
const AUTHORITY: &str = "ca.crt";
const ONLINE_KEY: &str = "server.key";
const ONLINE: &str = "server.crt";
const FINGERPRINT: &str = "fingerprint";

/// Where a server's identity is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFolder {
    path: PathBuf,
}

/// What a server runs with, and what its operator should know about it.
#[derive(Clone, Debug)]
pub struct LoadedIdentity {
    /// The chain to send, and the key of its leaf.
    pub credentials: Credentials,
    /// The identity, as in the server's address.
    pub fingerprint: Fingerprint,
    /// The name in the certificate in use, if it has one.
    pub host: Option<String>,
    /// The last second of the certificate in use, since 1970.
    pub not_after: u64,
    /// What does not prevent running, but should be changed.
    pub warnings: Vec<String>,
}

/// What is wrong with a file of the folder.
#[derive(Debug)]
pub struct FolderError {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    pub problem: FolderProblem,
}

/// What can be wrong with a file of the folder.
#[derive(Debug)]
pub enum FolderProblem {
    /// It is not there.
    Missing,
    /// It is there, where a new one was to be made.
    Exists,
    /// It cannot be read or written.
    Io(io::Error),
    /// There is no certificate in it, or something that is not one.
    NoCertificate,
    /// There is no private key in it that can be used.
    NoKey(PrivateKeyError),
    /// The key is not the one of the certificate.
    OtherKey,
    /// The chain of certificates would be refused by clients.
    Chain(ChainError),
    /// The file says another fingerprint than the certificate of the authority has.
    OtherFingerprint {
        /// What the certificate has.
        actual: Fingerprint,
    },
    /// No certificate could be made.
    Issue(IssueError),
}

impl fmt::Display for FolderError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.display();
        let is_authority_key = self.path.ends_with(AUTHORITY_KEY);
        match &self.problem {
            FolderProblem::Missing if is_authority_key => write!(
                formatter,
                "{path} is missing: the key of the authority is needed to sign a certificate; copy it here from where you \
                 keep it, and take it away again afterwards"
            ),
            FolderProblem::Missing => {
                write!(
                    formatter,
                    "{path} is missing: restore it from a backup, or make a new server with `smp-server init`"
                )
            }
            FolderProblem::Exists => write!(
                formatter,
                "{path} exists already, and overwriting it would lose the identity of a server: choose another folder, or \
                 move the old one away"
            ),
            FolderProblem::Io(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                write!(
                    formatter,
                    "{path}: no permission: check who owns it, and as which user the server runs"
                )
            }
            FolderProblem::Io(error) => write!(formatter, "{path}: {error}"),
            FolderProblem::NoCertificate => {
                write!(formatter, "{path} has no PEM certificate that can be read: restore it from a backup")
            }
            FolderProblem::NoKey(error) => write!(formatter, "{path}: {error}: restore it from a backup"),
            FolderProblem::OtherKey => write!(
                formatter,
                "{path} is not the key of the certificate beside it: restore both from one backup, or make them anew with \
                 `smp-server cert`"
            ),
            FolderProblem::Chain(ChainError::Expired { .. }) => {
                write!(formatter, "{path} has expired: renew it with `smp-server cert`")
            }
            FolderProblem::Chain(error) => {
                write!(
                    formatter,
                    "{path} would be refused by clients: {error}: renew it with `smp-server cert`"
                )
            }
            FolderProblem::OtherFingerprint { actual } => write!(
                formatter,
                "{path} is not the fingerprint of {AUTHORITY}, which is {actual}: if the address of the server has this \
                 fingerprint, remove the file; if not, {AUTHORITY} is of another server: restore it from a backup"
            ),
            FolderProblem::Issue(error) => write!(formatter, "{path}: {error}"),
        }
    }
}

impl std::error::Error for FolderError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.problem {
            FolderProblem::Io(error) => Some(error),
            FolderProblem::NoKey(error) => Some(error),
            FolderProblem::Chain(error) => Some(error),
            FolderProblem::Issue(error) => Some(error),
            _ => None,
        }
    }
}

impl CertificateFolder {
    /// A folder, which need not exist yet.
    #[must_use]
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes a new identity; makes the folder if needed.
    ///
    /// # Errors
    /// [`FolderProblem::Exists`] when any of the files is there: then nothing is written. Otherwise what the system says.
    pub fn create(&self, identity: &NewIdentity) -> Result<(), FolderError> {
        for file in [AUTHORITY_KEY, AUTHORITY, ONLINE_KEY, ONLINE, FINGERPRINT] {
            let path = self.path.join(file);
            if fs::symlink_metadata(&path).is_ok() {
                return Err(FolderError { path, problem: FolderProblem::Exists });
            }
        }
        fs::create_dir_all(&self.path).map_err(|error| self.problem("", FolderProblem::Io(error)))?;
        self.write_new(AUTHORITY_KEY, &self.key_pem(AUTHORITY_KEY, &identity.authority_key)?, true)?;
        self.write_new(AUTHORITY, &self.certificate_pem(AUTHORITY, &identity.authority)?, false)?;
        self.write_new(ONLINE_KEY, &self.key_pem(ONLINE_KEY, &identity.online.key)?, true)?;
        let leaf = identity
            .online
            .chain
            .first()
            .ok_or_else(|| self.problem(ONLINE, FolderProblem::NoCertificate))?;
        self.write_new(ONLINE, &self.certificate_pem(ONLINE, leaf)?, false)?;
        self.write_new(FINGERPRINT, &format!("{}\n", identity.fingerprint()), false)?;
        self.sync()
    }

    /// Reads what a server needs to run, and checks that clients will accept it now. `ca.key` is not needed.
    ///
    /// # Errors
    /// The first file found wrong, and what to do about it.
    pub fn load(&self) -> Result<LoadedIdentity, FolderError> {
        let (credentials, leaf, authority) = self.read()?;
        if leaf.tbs_certificate().subject_public_key_info().subject_public_key.raw_bytes()
            != credentials.key.public_key()
        {
            return Err(self.problem(ONLINE_KEY, FolderProblem::OtherKey));
        }
        let fingerprint = Fingerprint::of(&authority);
        match fs::read_to_string(self.path.join(FINGERPRINT)) {
            Ok(text) if text.trim().parse() == Ok(fingerprint) => {}
            Ok(_) => {
                return Err(
                    self.problem(FINGERPRINT, FolderProblem::OtherFingerprint { actual: fingerprint })
                );
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(self.problem(FINGERPRINT, FolderProblem::Io(error))),
        }
        let identity = credentials.fingerprint().unwrap_or(fingerprint);
        verify_server_chain(&credentials.chain, &identity, UnixTime::now())
            .map_err(|error| self.problem(ONLINE, FolderProblem::Chain(error)))?;
        let not_after = leaf.tbs_certificate().validity().not_after.to_unix_duration().as_secs();
        let warnings = self.warnings(not_after);
        Ok(LoadedIdentity {
            credentials,
            fingerprint: identity,
            host: common_name(&leaf),
            not_after,
            warnings,
        })
    }

    /// Replaces `server.key` and `server.crt` by new ones, signed by the same authority, so that the address of the
    /// server stays. The old ones stay beside them, with `.old` at the end. `host`: `None` keeps the name.
    ///
    /// # Errors
    /// [`FolderProblem::Missing`] for `ca.key` when it is kept elsewhere, as it should be; and the others.
    pub fn renew(
        &self,
        host: Option<&str>,
        algorithm: Algorithm,
        validity: Validity,
    ) -> Result<LoadedIdentity, FolderError> {
        let authority_key = self.read_key(AUTHORITY_KEY)?;
        let authorities = self.read_certificates(AUTHORITY)?;
        let authority =
            authorities.first().ok_or_else(|| self.problem(AUTHORITY, FolderProblem::NoCertificate))?;
        let host = match host {
            Some(host) => host.to_owned(),
            None => {
                let certificates = self.read_certificates(ONLINE)?;
                let leaf = certificates.first().and_then(|leaf| Certificate::from_der(leaf).ok());
                leaf.as_ref().and_then(common_name).unwrap_or_default()
            }
        };
        let online = issue_online(&host, algorithm, &authority_key, authority, validity)
            .map_err(|error| self.problem(ONLINE, FolderProblem::Issue(error)))?;
        let leaf = online.chain.first().ok_or_else(|| self.problem(ONLINE, FolderProblem::NoCertificate))?;
        self.replace(ONLINE_KEY, &self.key_pem(ONLINE_KEY, &online.key)?, true)?;
        self.replace(ONLINE, &self.certificate_pem(ONLINE, leaf)?, false)?;
        self.sync()?;
        self.load()
    }

    fn key_pem(&self, file: &str, key: &PrivateKey) -> Result<Zeroizing<String>, FolderError> {
        pem("PRIVATE KEY", &key.to_pkcs8()).map_err(|problem| self.problem(file, problem))
    }

    fn certificate_pem(
        &self,
        file: &str,
        certificate: &CertificateDer<'_>,
    ) -> Result<Zeroizing<String>, FolderError> {
        pem("CERTIFICATE", certificate).map_err(|problem| self.problem(file, problem))
    }

    fn problem(&self, file: &str, problem: FolderProblem) -> FolderError {
        FolderError { path: self.path.join(file), problem }
    }

    fn read(&self) -> Result<(Credentials, Certificate, CertificateDer<'static>), FolderError> {
        let key = self.read_key(ONLINE_KEY)?;
        let mut chain = self.read_certificates(ONLINE)?;
        let authorities = self.read_certificates(AUTHORITY)?;
        let first = |chain: &[CertificateDer<'static>], file| {
            chain.first().cloned().ok_or_else(|| self.problem(file, FolderProblem::NoCertificate))
        };
        let authority = first(&authorities, AUTHORITY)?;
        let leaf = Certificate::from_der(&first(&chain, ONLINE)?)
            .map_err(|_| self.problem(ONLINE, FolderProblem::NoCertificate))?;
        chain.extend(authorities);
        Ok((Credentials { chain, key }, leaf, authority))
    }

    fn read_file(&self, file: &str) -> Result<Vec<u8>, FolderError> {
        fs::read(self.path.join(file)).map_err(|error| {
            let missing = error.kind() == io::ErrorKind::NotFound;
            self.problem(file, if missing { FolderProblem::Missing } else { FolderProblem::Io(error) })
        })
    }

    fn read_key(&self, file: &str) -> Result<PrivateKey, FolderError> {
        let pem = Zeroizing::new(self.read_file(file)?);
        let der = PrivatePkcs8KeyDer::from_pem_slice(&pem)
            .map_err(|_| self.problem(file, FolderProblem::NoKey(PrivateKeyError::Malformed)))?;
        PrivateKey::from_pkcs8(der.secret_pkcs8_der())
            .map_err(|error| self.problem(file, FolderProblem::NoKey(error)))
    }

    fn read_certificates(&self, file: &str) -> Result<Vec<CertificateDer<'static>>, FolderError> {
        let pem = self.read_file(file)?;
        let certificates = CertificateDer::pem_slice_iter(&pem)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|_| self.problem(file, FolderProblem::NoCertificate))?;
        if certificates.is_empty() {
            Err(self.problem(file, FolderProblem::NoCertificate))
        } else {
            Ok(certificates)
        }
    }

    fn write_new(&self, file: &str, content: &str, secret: bool) -> Result<(), FolderError> {
        let write = || -> io::Result<()> {
            let mut options = OpenOptions::new();
            options.write(true).create_new(true);
            #[cfg(unix)]
            std::os::unix::fs::OpenOptionsExt::mode(&mut options, if secret { 0o600 } else { 0o644 });
            let mut written = options.open(self.path.join(file))?;
            written.write_all(content.as_bytes())?;
            written.sync_all()
        };
        write().map_err(|error| {
            let exists = error.kind() == io::ErrorKind::AlreadyExists;
            self.problem(file, if exists { FolderProblem::Exists } else { FolderProblem::Io(error) })
        })
    }

    /// The new content is complete on disk before the name points to it, and the old one is kept under another name.
    fn replace(&self, file: &str, content: &str, secret: bool) -> Result<(), FolderError> {
        let new = format!("{file}.new");
        let io =
            |problem: io::Result<()>| problem.map_err(|error| self.problem(file, FolderProblem::Io(error)));
        // What an interrupted attempt left behind.
        match fs::remove_file(self.path.join(&new)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => io(Err(error))?,
            _ => {}
        }
        self.write_new(&new, content, secret)?;
        let old = self.path.join(format!("{file}.old"));
        match fs::copy(self.path.join(file), old).map(|_bytes| ()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => io(Err(error))?,
            _ => {}
        }
        io(fs::rename(self.path.join(&new), self.path.join(file)))
    }

    fn sync(&self) -> Result<(), FolderError> {
        let synced =
            if cfg!(unix) { File::open(&self.path).and_then(|folder| folder.sync_all()) } else { Ok(()) };
        synced.map_err(|error| self.problem("", FolderProblem::Io(error)))
    }

    fn warnings(&self, not_after: u64) -> Vec<String> {
        const MONTH: u64 = 30 * 86_400;
        let mut warnings = Vec::new();
        for file in [AUTHORITY_KEY, ONLINE_KEY] {
            let path = self.path.join(file);
            if is_readable_by_others(&path) {
                let path = path.display();
                warnings.push(format!(
                    "{path} can be read by other users of this machine: run `chmod 600 {path}`"
                ));
            }
        }
        let authority_key = self.path.join(AUTHORITY_KEY);
        if authority_key.exists() {
            warnings.push(format!(
                "{} is on this machine: whoever gets it can take the server's place for ever; move it to a safe place, it is \
                 needed only to renew {ONLINE}",
                authority_key.display()
            ));
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        if not_after < now.saturating_add(MONTH) {
            let online = self.path.join(ONLINE);
            warnings.push(format!(
                "{} expires within a month: renew it with `smp-server cert`",
                online.display()
            ));
        }
        warnings
    }
}

#[cfg(unix)]
fn is_readable_by_others(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    fs::metadata(path).is_ok_and(|metadata| metadata.permissions().mode() & 0o077 != 0)
}

#[cfg(not(unix))]
fn is_readable_by_others(_path: &Path) -> bool {
    false
}

fn pem(label: &'static str, der: &[u8]) -> Result<Zeroizing<String>, FolderProblem> {
    encode_string(label, LineEnding::LF, der)
        .map(Zeroizing::new)
        .map_err(|error| FolderProblem::Issue(IssueError::Encoding { reason: error.to_string() }))
}

/// The name of the subject of a certificate.
fn common_name(certificate: &Certificate) -> Option<String> {
    let name = certificate.tbs_certificate().subject().common_name().ok().flatten()?;
    Some(name.value().into_owned())
}
