//! What the tests of the cloud link share.

pub(crate) mod authority;
pub(crate) mod broker;
pub(crate) mod consumer;
pub(crate) mod gateway;
pub(crate) mod ledger;
pub(crate) mod offline;
pub(crate) mod program;
pub(crate) mod proxy;
