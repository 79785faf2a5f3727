//! Users: who may have environments without being an operator, and how much. A user has a name, tokens and a quota; whatever she makes
//! carries her name as its owner. One function a request, over one transaction.

use jiff::Timestamp;
use lodge_model::environment::view::Quota;
use serde::{Deserialize, Serialize};

use crate::store::Record;

/// A user.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    /// Unique among users.
    pub name: String,
    /// What she may have.
    pub quota: Quota,
    /// When she was added.
    pub created: Timestamp,
}

impl Record for User {
    const KIND: &'static str = "user";
    fn key(&self) -> String {
        self.name.clone()
    }
}
