//! What stands for TLS in a relay that was built without the feature `tls`: nothing that could ever be there.

use std::convert::Infallible;
use std::path::Path;

/// Never there.
#[derive(Clone, Debug)]
pub struct Tls(Infallible);

/// Failed to have a certificate and its key.
#[derive(Debug, thiserror::Error)]
#[error("speak TLS: this relay was built without it; build it with `--features tls`, or do not listen on https://")]
pub struct TlsError;

impl Tls {
    /// Fails.
    ///
    /// # Errors
    ///
    /// Always.
    pub fn load(_: &Path, _: &Path) -> Result<Self, TlsError> {
        Err(TlsError)
    }

    /// Never called.
    ///
    /// # Errors
    ///
    /// None.
    pub fn reload(&self) -> Result<(), TlsError> {
        match self.0 {}
    }

    /// Never called.
    pub(super) fn never(self) {
        match self.0 {}
    }
}
