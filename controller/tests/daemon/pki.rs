//! Certificates for one test; the daemon's own tests and those with real clients share it.

use std::fs;
use std::path::Path;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use twintrack_host::ClientTls;

/// A CA, and what it has signed.
pub struct Pki {
    pub ca: String,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate and its key, as PEM.
pub struct Identity {
    pub certificate: String,
    pub key: String,
}

impl Pki {
    pub fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let ca = params.self_signed(&key).unwrap().pem();
        Self { ca, issuer: Issuer::new(params, key) }
    }

    pub fn sign(&self, name: &str) -> Identity {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap().pem();
        Identity { certificate, key: key.serialize_pem() }
    }

    /// Writes what an array needs that is reached as localhost.
    pub fn install(&self, folder: &Path) {
        let server = self.sign("localhost");
        for (name, text) in [("ca", &self.ca), ("cert", &server.certificate), ("key", &server.key)] {
            fs::write(folder.join(format!("{name}.pem")), text).unwrap();
        }
    }

    /// Writes what a host has that trusts this CA and shows a certificate of `by`, or none; by the names that NBD
    /// clients look for.
    pub fn equip(&self, folder: &Path, by: Option<&Pki>) {
        fs::create_dir_all(folder).unwrap();
        fs::write(folder.join("ca-cert.pem"), &self.ca).unwrap();
        if let Some(by) = by {
            let Identity { certificate, key } = by.sign("host-1");
            fs::write(folder.join("client-cert.pem"), certificate).unwrap();
            fs::write(folder.join("client-key.pem"), key).unwrap();
        }
    }

    /// A host that trusts this CA and shows nothing.
    pub fn stranger(&self) -> ClientTls {
        ClientTls::new(self.ca.as_bytes()).unwrap()
    }

    /// A host that trusts this CA and shows a certificate of `by`.
    pub fn host(&self, by: &Pki) -> ClientTls {
        let Identity { certificate, key } = by.sign("host-1");
        ClientTls::with_identity(self.ca.as_bytes(), certificate.as_bytes(), key.as_bytes()).unwrap()
    }
}
