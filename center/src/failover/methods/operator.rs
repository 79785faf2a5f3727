//! An operator's word. It may come at any time, and ends the wait for everything else; nothing is done to a machine after it, because
//! somebody may have their hands in it.

use lodge_model::incident::Method;

use super::{Case, Fence, Stand};

/// By an operator.
pub struct Operator;

impl Fence for Operator {
    fn method(&self) -> Method {
        Method::Operator
    }

    fn stand(&self, case: &Case) -> Stand {
        match case.confirmed_off {
            true => Stand::Done,
            false => {
                Stand::Waits(format!("if that does not come, switch {0} off and say so: lodge node confirm-off {0}", case.name))
            }
        }
    }
}
