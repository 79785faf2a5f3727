//! The storage fence. It is the ban itself: it is in the share node's orders from the first moment, whatever else is tried, and stays there
//! until the node has started anew.

use lodge_model::incident::Method;

use super::{Case, Fence, Stand};
use crate::failover::records::Word;

/// By the share node.
pub struct Share;

impl Fence for Share {
    fn method(&self) -> Method {
        Method::Share
    }

    fn stand(&self, case: &Case) -> Stand {
        let Some(share) = case.share else { return Stand::Impossible("no node serves the share".to_owned()) };
        match &case.ban.share {
            Word::Confirmed => Stand::Done,
            Word::None => Stand::Waits(format!("{} has to confirm that {} is cut off", share.name, case.name)),
            Word::Failed(why) => {
                Stand::Waits(format!("{} has to confirm that {} is cut off, and cannot yet: {why}", share.name, case.name))
            }
        }
    }
}
