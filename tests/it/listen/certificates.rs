//! A certificate and its key as files, and what is said when they are not usable.

use std::fs;
use std::path::PathBuf;

use opencode_relay::http::Tls;
use rustls::pki_types::CertificateDer;
use tempfile::TempDir;

/// A folder with a certificate of `localhost`.
pub(crate) struct Files {
    _folder: TempDir,
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
}

impl Files {
    pub(crate) fn new() -> (Self, CertificateDer<'static>) {
        let folder = tempfile::tempdir().unwrap();
        let (certificate, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
        let files = Self { _folder: folder, certificate, key };
        let shown = files.renew();
        (files, shown)
    }

    /// Writes another pair; the certificate.
    pub(crate) fn renew(&self) -> CertificateDer<'static> {
        let pair = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        fs::write(&self.certificate, pair.cert.pem()).unwrap();
        fs::write(&self.key, pair.signing_key.serialize_pem()).unwrap();
        pair.cert.der().clone()
    }

    pub(crate) fn load(&self) -> Tls {
        Tls::load(&self.certificate, &self.key).unwrap()
    }
}

#[test]
fn files_that_cannot_be_used_are_named() {
    let (files, _) = Files::new();
    let (other, _) = Files::new();
    let fails = |certificate: &PathBuf, key: &PathBuf| Tls::load(certificate, key).unwrap_err().to_string();
    let nowhere = files.certificate.with_file_name("nowhere.pem");
    for (error, words) in [
        (fails(&nowhere, &files.key), ["nowhere.pem", "check the path"]),
        (fails(&files.certificate, &nowhere), ["nowhere.pem", "check the path"]),
        (fails(&files.key, &files.key), ["key.pem", "-----BEGIN CERTIFICATE-----"]),
        (fails(&files.certificate, &files.certificate), ["cert.pem", "-----BEGIN PRIVATE KEY-----"]),
        (fails(&files.certificate, &other.key), ["key.pem", "the key's own"]),
    ] {
        for word in words {
            assert!(error.replace('\n', " ").contains(word), "{word:?} is not in {error:?}");
        }
    }
    let text = fs::read_to_string(&files.key).unwrap();
    fs::write(&files.key, &text[..text.len() / 2]).unwrap();
    let error = fails(&files.certificate, &files.key);
    assert!(error.contains("key.pem") && !error.contains(text.lines().nth(1).unwrap()), "{error}");
    fs::write(&files.certificate, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").unwrap();
    assert!(fails(&files.certificate, &other.key).contains("cert.pem"));
}

#[test]
fn a_pair_that_does_not_fit_is_not_taken() {
    let (files, _) = Files::new();
    let (other, _) = Files::new();
    let tls = files.load();
    tls.reload().unwrap();
    fs::copy(&other.key, &files.key).unwrap();
    assert!(tls.reload().unwrap_err().to_string().contains("key.pem"));
    files.renew();
    tls.reload().unwrap();
}
