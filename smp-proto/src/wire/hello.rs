//! The hello messages of the SMP handshake (WIRE-FACTS 4.5): contents of blocks, without their padding.

/// A chain of DER certificates, leaf first, as it is on the wire: a count byte, then each with a 2-byte length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CertificateChain<'a>(pub(crate) &'a [u8]);

/// A DER public key signed by a certificate's key (WIRE-FACTS 2), without its 2-byte length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SignedKey<'a>(pub &'a [u8]);
