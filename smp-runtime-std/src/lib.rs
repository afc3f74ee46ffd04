//! smp-runtime-std
