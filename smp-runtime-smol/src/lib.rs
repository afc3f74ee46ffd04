//! smp-runtime-smol
