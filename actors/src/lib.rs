//! An embeddable supervision runtime.

pub mod os;
pub mod policy;
